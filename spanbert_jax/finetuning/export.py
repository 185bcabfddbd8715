"""Export of a fine-tuned model to the formats of other libraries."""

from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from spanbert_jax.errors import InputError
from spanbert_jax.finetuning.predictor import FineTuned, restore
from spanbert_jax.finetuning.task import Task
from spanbert_jax.folders import atomic_folder, refuse_existing
from spanbert_jax.interop import stablehlo
from spanbert_jax.interop.families import required_family
from spanbert_jax.interop.huggingface import write_description, write_tensors
from spanbert_jax.interop.model_card import fine_tuned_card
from spanbert_jax.interop.names import module_tensors, to_theirs
from spanbert_jax.model.layout import ONE_DEVICE
from spanbert_jax.training.workdir import one_device_spec

USE = """```python
from transformers import AutoTokenizer, {name}

tokenizer = AutoTokenizer.from_pretrained("THIS_FOLDER")
model = {name}.from_pretrained("THIS_FOLDER")
outputs = model(**tokenizer({texts}, return_tensors="pt"))
```
"""


def export_fine_tuned(workdir: Path, output: Path, format: str, kinds: Mapping[str, type[Task]]) -> str:
    """Writes the best model of a fine-tuning run into a new folder.

    Args:
      workdir: of the run.
      output: the folder to make.
      format: "huggingface" or "stablehlo".
      kinds: the tasks by name.

    Returns:
      What was exported.

    Raises:
      InputError: there is no such model, the format has no counterpart for it, or `output` exists or cannot be written.
        Nothing is written then.
    """
    refuse_existing(output)
    model = restore(workdir, kinds)
    if format == "huggingface":
        to_huggingface(model, output)
    elif format == "stablehlo":
        to_stablehlo(model, output)
    else:
        raise InputError(
            f"{workdir}: the format {format} is of pretrained models; give --format=huggingface or stablehlo"
        )
    return f"step {model.step:,} of {workdir}"


def to_huggingface(model: FineTuned, output: Path) -> None:
    """Writes a folder for the class of transformers that has the head of the task."""
    config, task = model.config, model.task
    family = required_family(config)
    name = family.classes.get(task.transformers_class)
    if name is None:
        has = "--format=stablehlo has" if task.program_outputs else "scripts/predict.py uses it"
        raise InputError(f"transformers' {family.title} has no counterpart for this head of {task.name}; {has}")
    params = flatten_dict(model.params, sep="/")
    head = {path: array for path, array in params.items() if not path.startswith("encoder/")}
    names = {f"{task.name}/{ours}": theirs for ours, theirs in task.exported.items()}
    tensors = to_theirs({path: array for path, array in params.items() if path not in head})
    tensors = family.tensors(tensors) | module_tensors(head, names)
    texts = '"A text.", "Its pair."' if task.takes_pairs else '"A text."'
    settings = {"architectures": [name], **task.transformers_config}
    with atomic_folder(output) as folder:
        write_tensors(folder / "model.safetensors", tensors)
        write_description(
            folder, {path: array.shape for path, array in params.items()}, config, model.tokenizer, settings
        )
        text = card(model, "transformers", USE.format(name=name, texts=texts))
        (folder / "README.md").write_text(text, encoding="utf-8")


def to_stablehlo(model: FineTuned, output: Path) -> None:
    """Writes encoder and head as one program."""
    config, task = model.config, model.task
    if not task.program_outputs:
        raise InputError(
            f"this head of {task.name} reads more than tokens, so it is no program of its own; "
            "scripts/predict.py uses it"
        )
    spec = stablehlo.portable(one_device_spec(config, model.tokenizer, jax.local_devices()[0]))
    module = task.model(spec, ONE_DEVICE)
    params = {path: np.asarray(array, np.float32) for path, array in flatten_dict(model.params, sep="/").items()}

    def apply(tree, batch):
        return {"logits": module.apply({"params": tree}, batch, None)}

    shown = f'print(outputs["logits"])  # {task.program_outputs}'
    text = card(model, "jax", stablehlo.usage(spec, config.seq_len, f"a head for {task.name}", shown, task.takes_pairs))
    program = stablehlo.export_program(spec, params, apply)
    stablehlo.write_program(output, program, params, config, model.tokenizer, text, **task.transformers_config)


def card(model: FineTuned, library: str, use: str) -> str:
    """Returns the README.md of an export."""
    shapes = {path: np.shape(array) for path, array in flatten_dict(model.params, sep="/").items()}
    return fine_tuned_card(
        model.config,
        shapes,
        model.tokenizer,
        model.step,
        model.task.tuned,
        model.task.pipeline,
        library,
        use,
        model.provenance,
    )
