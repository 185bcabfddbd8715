"""Runs with each optimiser: the same on every mesh, and the same bits after a restart."""

import shutil

import jax
import numpy as np
import pytest

from spanbert_jax.training.checkpoint import Checkpoints
from spanbert_jax.training.pretrain import pretrain
from tests.small import small_config
from tests.training.test_mesh import trajectory

OPTIMIZERS = {
    "stable_adamw": {},
    "lamb": {},
    "muon": {},
    "muon with ema": dict(name="muon", average="ema"),
    "schedule-free adamw": dict(name="adamw", schedule="constant", average="schedule_free"),
}
SETTINGS = pytest.mark.parametrize(
    "settings",
    [
        {f"optimizer__{key}": value for key, value in (dict(name=name) | more).items()}
        for name, more in OPTIMIZERS.items()
    ],
    ids=list(OPTIMIZERS),
)


@SETTINGS
def test_trajectories_of_20_steps_agree_on_one_device_and_on_a_mesh(store, settings):
    (losses, norms, params), (expected_losses, expected_norms, expected) = (
        trajectory(store, devices, shape, **settings) for devices, shape in ((8, (2, 2, 2)), (1, (1, 1, 1)))
    )
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    np.testing.assert_allclose(norms, expected_norms, rtol=1e-5)
    for path, leaf in params.items():
        np.testing.assert_allclose(leaf, expected[path], atol=1e-5, err_msg=path)


def arrays(workdir, step: int) -> dict[str, np.ndarray]:
    checkpoints = Checkpoints(workdir / "checkpoints")
    state = checkpoints.read(step)
    checkpoints.close()
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(state)}


@SETTINGS
def test_a_run_that_starts_again_from_its_checkpoint_ends_in_the_same_bits(tmp_path, store, settings):
    config = small_config(
        total_steps=6,
        data__store=str(store.folder),
        checkpoint__every=3,
        eval__every=0,
        mesh__data=4,
        mesh__fsdp=2,
        **settings,
    )
    assert pretrain(config, tmp_path) == 0
    expected = arrays(tmp_path, 6)
    shutil.rmtree(next((tmp_path / "checkpoints").glob("*6")))
    assert pretrain(config, tmp_path) == 0
    again = arrays(tmp_path, 6)
    assert again.keys() == expected.keys()
    for path, array in expected.items():
        np.testing.assert_array_equal(again[path], array, err_msg=path)
