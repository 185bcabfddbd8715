"""The report itself: what it holds, and its files."""

import base64
import contextlib
import dataclasses
import functools
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType

from spanbert_jax.data import show
from spanbert_jax.errors import InputError
from spanbert_jax.experiments.curve import draw_curves
from spanbert_jax.experiments.report import hyperparameters, tables
from spanbert_jax.experiments.report.records import Arm, Record, arms_of, read_records
from spanbert_jax.folders import replace_file, reporting_full_disk
from spanbert_jax.tasks import fill_spans, filled_output, held_out

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPLATE = Path(__file__).with_name("page.html")
MOST_SAMPLES = 4  # arms of which samples are shown
WIDTH = 100  # columns of samples


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure as an image that the page holds."""

    title: str
    source: str  # data URI


@dataclasses.dataclass(frozen=True)
class Sample:
    """Something that rich prints, as HTML."""

    title: str
    html: str  # made by rich, which escapes text


def make_report(paths: Sequence[Path], output: Path, samples: int, log: Callable[[str], None]) -> list[Path]:
    """Writes a report on the runs in folders.

    Args:
      paths: folders of runs, of the seeds of a run, or of sweeps.
      output: the HTML file; the tables are written beside it, with the suffixes .md and .csv.
      samples: number of held-out texts whose spans the first run of each arm fills; 0: no samples.
      log: called with messages.

    Returns:
      The files that were written.

    Raises:
      InputError: there are no runs, a package is missing, or a file cannot be written.
    """
    try:
        import jinja2
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise InputError(f"a report needs {error.name}: pip install 'spanbert_jax[report]'") from None
    if output.suffix != ".html":
        raise InputError(f"--output={output}: the report is an HTML file, so give a name that ends in .html")
    records = read_records(paths)
    arms = arms_of(records)
    every = [tables.metrics_table(arms), tables.differences_table(arms), tables.settings_table(arms)]
    every.append(tables.groups_table(arms))
    every += [hyperparameters.importance_table(arms), tables.speed_table(arms), tables.provenance_table(arms)]
    shown = [table for table in every if table]
    title = arms[0].name if len(arms) == 1 else f"{len(records)} runs, {len(arms)} arms"
    loader = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    page = loader.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        title=title,
        tables=shown,
        pictures=pictures(arms),
        samples=samples_of(arms, samples, log) if samples else [],
        runs=[(arm.name, run.repetition_name, run.step, str(run.workdir)) for arm in arms for run in arm.runs],
    )
    markdown = "\n".join([f"# {title}", "", *(table.markdown() for table in shown)])
    contents = {".html": page, ".md": markdown, ".csv": tables.runs_csv(arms)}
    files = [output.with_suffix(suffix) for suffix in contents]
    for file, content in zip(files, contents.values()):
        try:
            with reporting_full_disk(file), replace_file(file) as stream:
                stream.write(content)
        except OSError as error:
            raise InputError(f"cannot write {file}: {error.strerror or error}") from None
    return files


def pictures(arms: Sequence[Arm]) -> list[Picture]:
    """Returns the loss curves, and the parallel coordinates if there are arms enough."""
    found = []
    labels = [
        (run.workdir, arm.name if len(arm.runs) == 1 else f"{arm.name}, seed {run.repetition_name}")
        for arm in arms
        for run in arm.runs
    ]
    with contextlib.suppress(InputError):  # no training loss is logged yet
        found.append(_picture("Loss", draw_curves(labels)))
    if figure := hyperparameters.parallel_coordinates(arms):
        found.append(_picture("Hyperparameters, from the best arm (dark) to the worst", figure))
    return found


def _picture(title: str, figure: "Figure") -> Picture:
    data = io.BytesIO()
    figure.savefig(data, format="svg")
    return Picture(title, f"data:image/svg+xml;base64,{base64.b64encode(data.getvalue()).decode()}")


def samples_of(arms: Sequence[Arm], number: int, log: Callable[[str], None]) -> list[Sample]:
    """Returns spans that the arms fill, and a masked row of the training text, as far as the runs allow it."""
    found = []
    pretraining = [arm.runs[0] for arm in arms if "task" not in arm.runs[0].config]
    for run, arm in zip(pretraining[:MOST_SAMPLES], arms):
        log(f"filling held-out spans with {run.workdir}")
        found.append(_sample(f"Held-out spans, filled by {arm.name}", functools.partial(filled, run, number)))
    if pretraining:
        found.append(_sample("A masked row of the training text", functools.partial(masked, pretraining[0])))
    return found


def filled(run: Record, number: int) -> RenderableType:
    """Returns held-out texts whose spans the newest checkpoint of a run fills."""
    filler = fill_spans.SpanFiller.restored(run.workdir, None)
    texts = held_out.held_out_texts(filler.config, filler.tokenizer, run.workdir, number)
    return filled_output.show_all(list(filler.fill(texts, 1, 16)), filler.tokenizer, excerpts=True)


def masked(run: Record) -> RenderableType:
    """Returns the first row of the first training batch."""
    config = run.config.copy_and_resolve_references()
    batch, tokenizer = show.batch_to_show(config.lock(), run.workdir, "train", 0, lambda line: None)
    return show.show_batch(batch, tokenizer, 1)


def _sample(title: str, make: Callable[[], Any]) -> Sample:
    console = Console(record=True, file=io.StringIO(), width=WIDTH, highlight=False)
    try:
        console.print(make())
    except InputError as error:  # a store or a checkpoint that is gone does not prevent the report
        console.print(f"not available: {error}", markup=False)
    return Sample(title, console.export_html(inline_styles=True, code_format="<pre>{code}</pre>"))
