"""A small classification task that can be learned: which of two words a sentence has."""

import random

import jax
import pytest
from ml_collections import ConfigDict

from spanbert_jax.configs.tasks import classification
from spanbert_jax.finetuning.finetune import finetune
from spanbert_jax.tasks import TASKS
from tests.small import MODEL

FILLERS = "the of and to in that was his he it with is for as had you not be her on at by".split()  # noqa: SIM905


def write_examples(path, number: int, seed: int) -> None:
    """Writes rows of text and label; their lengths differ."""
    draw, lines = random.Random(seed), ["text\tlabel"]
    for _ in range(number):
        words = draw.choices(FILLERS, k=draw.randint(3, 24))
        label = draw.choice(("good", "bad"))
        words[draw.randrange(len(words))] = {"good": "king", "bad": "house"}[label]
        lines.append(" ".join(words) + "\t" + label)
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="session")
def examples(tmp_path_factory):
    """A folder with train.tsv, valid.tsv and test.tsv."""
    folder = tmp_path_factory.mktemp("examples")
    for seed, (name, number) in enumerate((("train", 90), ("valid", 30), ("test", 20))):
        write_examples(folder / f"{name}.tsv", number, seed)
    return folder


def task_config(folder, **changes) -> ConfigDict:
    """The config of a small run on these examples; double underscores stand for dots."""
    config = classification.get_config("table")
    config.update(dict(seq_len=32, batch_size=16, log_every=1))
    config.data.vocab = "tiny"
    config.model.update(MODEL | dict(max_positions=64))
    config.optimizer.learning_rate = 1e-2
    config.classification.update(dict(pooling="mean", positive="good"))
    config.eval.batch_size = 16
    config.task.update(
        dict(train=str(folder / "train.tsv"), valid=str(folder / "valid.tsv"), test=str(folder / "test.tsv"))
    )
    config.task.update(dict(epochs=5, sizes=2))
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
    return config


def run_on(config, workdir, devices: int = 1) -> int:
    """The exit code of a run on the first devices."""
    chosen = jax.devices()[:devices]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "devices", lambda: chosen)
        return finetune(config.lock(), workdir, TASKS[config.task.name])


@pytest.fixture(scope="session")
def finished(examples, tmp_path_factory):
    """The folder of a run that has ended."""
    workdir = tmp_path_factory.mktemp("finetuned") / "run"
    assert run_on(task_config(examples), workdir) == 0
    return workdir
