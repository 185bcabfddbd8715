"""A small pretraining run, and the model that it trained."""

import jax
import pytest

from spanbert_jax.tasks.fill_spans import SpanFiller
from spanbert_jax.training.pretrain import pretrain
from tests.small import small_config


@pytest.fixture(scope="session")
def workdir(store, tmp_path_factory):
    """A run with checkpoints of steps 3 and 6. Its learning rate is high, so its distributions are not flat."""
    workdir = tmp_path_factory.mktemp("fill") / "run"
    config = small_config(
        total_steps=6,
        data__store=str(store.folder),
        data__max_blocks_per_row=2,
        eval__every=6,
        optimizer__learning_rate=0.05,
        checkpoint__every=3,
    )
    first_device = jax.devices()[:1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "devices", lambda: first_device)  # halves the time of compilation
        assert pretrain(config.lock(), workdir) == 0
    return workdir


@pytest.fixture(scope="session")
def filler(workdir):
    """The model at the newest checkpoint."""
    return SpanFiller.restored(workdir, None)
