"""Builds batches from a config: opens the corpus that config.data names, makes rows of it and masks them.

The other modules of this package take explicit arguments; this one reads them from a config.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from spanbert_jax.config import evaluation_config, known_knobs
from spanbert_jax.data.blocks import KINDS, LONG_SENTENCES, BlockSettings
from spanbert_jax.data.masking import mask_slots
from spanbert_jax.data.mixture import MixedRows, Mixture, weights_of
from spanbert_jax.data.order import Order
from spanbert_jax.data.pipeline import Batch, make_batches, make_eval_batches
from spanbert_jax.data.preparation.made_before import source_change
from spanbert_jax.data.preparation.prepare import prepare
from spanbert_jax.data.preparation.report import read_report
from spanbert_jax.data.preparation.settings import ExecutionOptions, Settings, plain_settings
from spanbert_jax.data.preparation.work_folder import setting_differences
from spanbert_jax.data.rows import Rows, build_rows
from spanbert_jax.data.schemes import TAGS, settings_from_config, tags_of
from spanbert_jax.data.shard import BEGINS
from spanbert_jax.data.sources import EMBEDDED
from spanbert_jax.data.sources.formats import format_names
from spanbert_jax.data.sources.problems import skipped_lines
from spanbert_jax.data.store import Store, open_store
from spanbert_jax.data.targets import Masker, enabled_targets
from spanbert_jax.data.tokenizer import Tokenizer, load_tokenizer
from spanbert_jax.errors import InputError, settings_named
from spanbert_jax.phases import Phase, phases_of

VOCAB_OF_STORE = "store"  # value of config.data.vocab
KEYS = {  # setting of a preparation -> key of a config
    "input": "data.source",
    "format": "data.format",
    "vocab": "data.vocab",
    "lowercase": "data.lowercase",
    "strip_accents": "data.strip_accents",
    "valid_fraction": "data.valid_fraction",
}

DESCRIBED = ("input", "format", "valid_fraction")  # settings whose keys describe the text of a store


def data_problems(config) -> list[str]:
    """Returns what prevents making batches with a config, one line each, without reading data."""
    problems = []
    try:
        settings_from_config(config)
        settings_from_config(evaluation_config(config))
    except InputError as error:
        problems += str(error).splitlines()
    data = config.data
    for key, choices in (("blocks", tuple(KINDS)), ("long_sentences", LONG_SENTENCES)):
        if data[key] not in choices:
            problems.append(f"data.{key} must be one of {', '.join(choices)}, not {data[key]!r}")
    if not 0 <= data.short_seq_prob <= 1 or (data.short_seq_prob and data.blocks != "pair"):
        problems.append(
            f"data.short_seq_prob {data.short_seq_prob} must be in [0, 1], and 0 unless data.blocks is pair"
        )
    if data.format not in format_names():
        problems.append(f"data.format must be one of {', '.join(format_names())}, not {data.format!r}")
    if data.vocab == VOCAB_OF_STORE and not store_names(config):
        problems.append("data.vocab = store takes the vocabulary of data.store: name one there")
    if min(data.weights) < 0 or (len(data.weights) > 1 and min(data.weights) == 0) or data.temperature <= 0:
        problems.append(
            "data.weights must be positive, one for each store, or (0,) for probabilities by size; "
            "data.temperature must be positive"
        )
    if len(store_names(config)) < 2 and tuple(data.weights) != (0.0,):
        problems.append("data.weights is for several stores: name them all in data.store, separated by commas")
    if data.blocks == "pair" and data.max_blocks_per_row != 1:
        problems.append(
            "data.max_blocks_per_row must be 1 with data.blocks = pair: pairs fill their rows and are not packed"
        )
    no_held_out_text = not data.valid_fraction and not data.store and data.source != EMBEDDED
    if config.eval.every and no_held_out_text:
        problems.append("data.valid_fraction 0 holds out no text to evaluate on: raise it, or give eval.every = 0")
    return problems


def store_names(config) -> list[str]:
    """Returns the names of the stores in config.data; an empty list if it names text."""
    return [name.strip() for name in config.data.store.split(",") if name.strip()]


def configured_tokenizer(config) -> Tokenizer:
    """Returns the tokenizer that config.data names.

    Raises:
      InputError: it cannot be read.
    """
    if config.data.vocab == VOCAB_OF_STORE:
        return open_store(store_names(config)[0]).tokenizer()
    return load_tokenizer(config.data.vocab, config.data.lowercase, config.data.strip_accents)


def open_corpus(config, tokenizer: Tokenizer, workdir: Path, log: Callable[[str], None]) -> Mixture:
    """Returns the stores that config.data names, or, if it names text, workdir/store, made here if it does not exist.

    Raises:
      InputError: a corpus or store cannot be used.
    """
    folder, data = workdir / "store", config.data
    if not data.store and tags_of(settings_from_config(config)):
        raise InputError(
            f"masking.schemes {', '.join(config.masking.schemes)}: some need tags, which data.source does not have; "
            "make a store with scripts/prepare_data.py --tags (or --ngrams), and name it in data.store"
        )
    settings = plain_settings(
        data.source, data.format, data.vocab, data.lowercase, data.strip_accents, data.valid_fraction, config.seq_len
    )
    if not data.store and not folder.exists():
        log(f"tokenising {data.source} into {folder}")
        options = ExecutionOptions(workers=0, runner="", beam_options=(), strict=False)
        with settings_named(key_of_setting):
            store = prepare(settings, folder, options, lambda steps, what, number: steps)
        for line in skipped_lines(read_report(store)["skipped"]):
            log(line)
    names: list[str | Path] = [*store_names(config)] or [folder]
    stores = [open_store(name) for name in names]
    for store in stores:
        store.require(tokenizer)
    check_made_from(stores, settings, not data.store, any((workdir / "checkpoints").glob("step_*")))
    for phase in phases_of(config):
        number = len(phase.config.data.weights)
        if number not in (1, len(stores)):
            raise InputError(
                f"data.weights: {number} of them for the {len(stores)} stores of data.store; give one each"
            )
    return Mixture(stores)


def check_made_from(stores: list[Store], settings: Settings, own: bool, resuming: bool) -> None:
    """Checks that stores are of the text that a config describes. What no report says is not checked.

    Args:
      stores: those of the run.
      settings: what the config's data keys would make.
      own: whether the run makes its store of data.source. Otherwise data.store names the text, and the keys that
        describe it must have their defaults or agree.
      resuming: whether the run has a checkpoint, so that its text may have changed since.

    Raises:
      InputError: they are not; names all differences.
    """
    problems = []
    for store in stores:
        with contextlib.suppress(InputError):  # no report
            before = read_report(store)["settings"]
            # Vocabulary and rules are compared by their fingerprint, and seq_len changes only the report.
            before |= {name: getattr(settings, name) for name in ("vocab", "lowercase", "strip_accents", "seq_len")}
            if not own:
                problems += misleading_keys(before, settings, store.where)
            elif differences := setting_differences(settings.to_json() | before, settings.to_json()):
                problems.append(f"store {store.where} was made of other text: {'; '.join(differences)}")
            elif not resuming and (change := source_change(settings, store)):
                problems.append(f"store {store.where}: {change}")
    if problems:
        advice = [f"remove {stores[0].where} to make it again, or give another --workdir"] if own else []
        raise InputError("\n".join(problems + advice))


def misleading_keys(before: dict, settings: Settings, store: str) -> list[str]:
    """Returns a line for each key of a config that describes other text than that of a store, made with `before`."""
    defaults, now = {name: known_knobs()[KEYS[name]].default for name in DESCRIBED}, settings.to_json()
    return [
        f"{KEYS[name]} is {now[name]!r}, but store {store} was made with {before[name]!r}: leave that key out, since "
        "data.store names the text"
        for name in DESCRIBED
        if name in before and now[name] not in (defaults[name], before[name])
    ]


def key_of_setting(setting: str) -> str:
    """Returns how the user of a config gives a setting of a preparation."""
    if setting in KEYS:
        return KEYS[setting]
    return f"--{setting} of scripts/prepare_data.py; then name its store in data.store"


def block_settings(config, split: str) -> BlockSettings:
    """Returns what the rows of a split depend on.

    Held-out pairs are the same in every run, so that runs can be compared.
    """
    data = config.data
    return BlockSettings(
        config.seq_len,
        data.max_blocks_per_row,
        data.blocks,
        data.long_sentences,
        data.short_seq_prob,
        config.seed if split == "train" and data.blocks == "pair" else 0,
    )


def store_problems(config, store: Store) -> list[str]:
    """Returns what prevents making batches of a store with a config, one line each, without reading text."""
    problems = []
    missing = [kind for kind in tags_of(settings_from_config(config)) if kind not in store.index["tags"]]
    if missing:
        schemes = ", ".join(name for name in config.masking.schemes if TAGS.get(name) in missing)
        problems.append(
            f"store {store.where}: no tags of kind {', '.join(missing)} in it, which masking.schemes = {schemes} needs;"
            " make it with scripts/prepare_data.py --tags (or --ngrams)"
        )
    if config.eval.every and not store.split("valid").num_documents:
        problems.append(
            f"store {store.where}: no document is held out to evaluate on; make it with a larger --valid_fraction of"
            " scripts/prepare_data.py, or give eval.every = 0"
        )
    return problems


def rows_of(config, mixture: Mixture, tokenizer: Tokenizer, split: str) -> list[Rows]:
    """Returns the rows of one split of each store.

    Raises:
      InputError: there are none in a store, and they are to be read.
    """
    settings, tags = block_settings(config, split), tags_of(settings_from_config(config))
    rows = [build_rows(store.split(split), settings, tokenizer.starts_word, tags) for store in mixture.stores]
    if split == "train" or config.eval.every:
        problems = [
            f"store {store.where}: data.long_sentences = lose leaves no row of its {split} split at seq_len ="
            f" {config.seq_len}; give data.long_sentences = cut, or a larger seq_len"
            for store, rows_of_store in zip(mixture.stores, rows)
            if not rows_of_store.num_rows
        ]
        if problems:
            raise InputError("\n".join(problems))
    return rows


def slots_of(config) -> int:
    """Returns M, the number of slots per row."""
    return mask_slots(config.masking.rate, block_settings(config, "train").layouts())


def same_rows(config, other) -> bool:
    """Returns whether two configs of one corpus have the same rows, training and held-out ones."""
    kinds = [
        (block_settings(each, split), sorted(tags_of(settings_from_config(each))))
        for which in (config, other)
        for each, split in ((which, "train"), (evaluation_config(which), "valid"))
    ]
    return kinds[:2] == kinds[2:]


def feeds_of(config, mixture: Mixture, tokenizer: Tokenizer, targets: tuple[str, ...] | None = None) -> list["Feed"]:
    """Returns the batches of each phase of a run; see Feed."""
    feeds: list[Feed] = []
    for phase in phases_of(config):
        feeds.append(Feed(phase.config, mixture, tokenizer, targets, phase, feeds[-1] if feeds else None))
    return feeds


class Feed:
    """The batches of a phase of a run: the rows of both splits, their order, and one masker for all of them.

    Attributes:
      names: of the stores.
      train: MixedRows of the training splits.
      order: of the training rows.
      valid: Rows of the held-out text, by name of the store.
    """

    def __init__(
        self,
        config,
        mixture: Mixture,
        tokenizer: Tokenizer,
        targets: tuple[str, ...] | None = None,
        phase: Phase | None = None,
        before: "Feed | None" = None,
    ):
        """Indexes the rows.

        Args:
          config: of the phase.
          mixture: the stores.
          tokenizer: of the stores.
          targets: the objectives to make arrays for; None: those of the config.
          phase: None: the first one.
          before: of the phase before this one, after which the order of rows goes on. If rows or shares are others, it
            is a new order, in which as many epochs of each store are over as then.

        Raises:
          InputError: the corpus cannot be used with the config.
        """
        evaluated = evaluation_config(config)
        problems = [
            problem
            for store in mixture.stores
            for each in (config, evaluated)
            for problem in store_problems(each, store)
        ]
        if problems:
            raise InputError("\n".join(dict.fromkeys(problems)))
        self.config = config
        self.phase = phase or phases_of(config)[0]
        self.names = mixture.names
        self.train: MixedRows
        self.valid: dict[str, Rows]
        if before is not None and same_rows(config, before.config):
            self.train, self.valid = before.train, before.valid
        else:
            self.train = MixedRows(rows_of(config, mixture, tokenizer, "train"))
            self.valid = dict(zip(mixture.names, rows_of(evaluated, mixture, tokenizer, "valid")))
        self.weights: list[float] = weights_of(self.train.sizes, config.data.weights, config.data.temperature)
        if before is None:
            self.order = Order(self.train.sizes, self.weights, config.seed)
        elif self.train is before.train and self.weights == before.weights:
            self.order = before.order.after(before.positions(self.phase.first))
        else:
            begun = before.drawn(self.phase.first) * np.array(self.train.sizes) // before.train.sizes
            self.order = Order(self.train.sizes, self.weights, config.seed, begun)
        targets = enabled_targets(config) if targets is None else targets
        self.masker, self.eval_masker = (
            Masker(settings_from_config(each), slots_of(each), tokenizer, mixture.token_counts("train"), targets)
            for each in (config, evaluated)
        )

    def training(self, start: int, part: np.ndarray | None = None) -> Iterator[Batch]:
        """Returns the batches from step `start` of the run (counted from 0) on, as if the phase had no end.

        Only the rows numbered `part` of each batch are made; None: all.
        """
        return make_batches(
            self.train,
            self.order,
            self.masker,
            batch_size=self.config.batch_size,
            start_step=start - self.phase.first,
            part=part,
            threads=self.config.data.threads,
        )

    def held_out(self, name: str, part: np.ndarray | None = None) -> Iterator[Batch]:
        """Returns the evaluation batches of a store, which are always the same.

        Only the rows numbered `part` of each batch are made; None: all. Stores have equal shares of eval.max_rows, and
        each is read in evenly spread rows. There are no batches of a store without held-out rows.
        """
        if not self.valid[name].num_rows:
            return iter(())
        evaluation = self.config.eval
        return make_eval_batches(
            self.valid[name],
            self.eval_masker,
            batch_size=evaluation.batch_size,
            threads=self.config.data.threads,
            max_rows=-(-evaluation.max_rows // len(self.names)),
            part=part,
        )

    def drawn(self, steps: int) -> np.ndarray:
        """Returns how many rows of each store, in rows of this phase, the first `steps` steps read: int64 [stores]."""
        return self.order.drawn(self.positions(steps))

    def positions(self, steps: int) -> int:
        """Returns how many positions of the phase's order the first `steps` steps of the run read."""
        return (steps - self.phase.first) * self.config.batch_size

    def metrics(self, step: int) -> dict[str, float]:
        """Returns what metrics.jsonl reports of the batches up to a step: rows drawn from each of several stores."""
        if len(self.names) == 1:
            return {}
        return {f"rows/{name}": rows for name, rows in zip(self.names, self.drawn(step).tolist())}

    def summary(self) -> list[str]:
        """Returns a line on each store: its size, and how many epochs of it are read until the end of the phase."""
        lines = []
        for name, rows, drawn in zip(self.names, self.train.parts, self.drawn(self.phase.last).tolist()):
            label = "" if len(self.names) == 1 else f"{name}: "
            size = f"{rows.split.num_tokens:,} tokens in {rows.num_rows:,} rows, {rows.padding_fraction:.1%} padding"
            lines.append(f"{label}{size}; {drawn / rows.num_rows:.1f} epochs")
            fused = [kind for kind in rows.tags if kind + BEGINS not in rows.split.tag_kinds]
            if fused and self.config.masking.touching_tags == "apart":
                problem = f"{' and '.join(fused)} that touch are one in this store, which an earlier release made"
                lines.append(f"{label}{problem}; prepare it again to keep them apart")
        return lines
