"""Meshes, slices, and what lies where."""

import dataclasses

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from spanbert_jax.configs import baselines, spanbert
from spanbert_jax.errors import InputError
from spanbert_jax.model.layout import ONE_DEVICE
from spanbert_jax.model.spec import model_spec
from spanbert_jax.objectives import MLM, SBO
from spanbert_jax.objectives.pretraining import layouts
from spanbert_jax.training import sharding
from spanbert_jax.training.pretraining import trainable
from spanbert_jax.training.program import state_shapes
from tests.small import small_config, small_program


def mesh_of(**sizes):
    return sharding.make_mesh(
        small_config(**{f"mesh__{axis}": size for axis, size in sizes.items()}).mesh, jax.devices()
    )


def test_state_is_born_sharded():
    program = small_program(small_config(mesh__data=1, mesh__fsdp=4, mesh__tensor=2), 8)
    word = program.init(None).params["encoder"]["embeddings"]["word"]
    assert {shard.data.shape for shard in word.addressable_shards} == {(word.shape[0], word.shape[1] // 8)}


@pytest.mark.parametrize("variant", ["mini", "base", "large"])
def test_hardly_anything_of_a_recipe_stays_whole(variant):
    """Of what a mesh with shards is for; the rules are looked at through the shapes that devices really hold."""
    config = spanbert.get_config(variant) if variant == "mini" else baselines.get_config(f"spanbert-{variant}")
    mesh = mesh_of(data=1, fsdp=4, tensor=2)
    model = trainable(config, model_spec(config, 28996, "cpu"), ONE_DEVICE)
    state = state_shapes(config, model)
    layout = sharding.state_shardings(mesh, state, model.layouts)
    whole = total = 0
    for leaf, where in zip(jax.tree.leaves(state), jax.tree.leaves(layout)):
        size = int(np.prod(leaf.shape)) * 4
        total += size
        whole += size if where.shard_shape(leaf.shape) == leaf.shape else 0
    assert 0 < whole < 0.02 * total
    sharding.check_sharded(mesh, state.params, model.layouts)


def test_a_large_parameter_without_a_layout_is_refused():
    config = spanbert.get_config("base")
    model = trainable(config, model_spec(config, 28996, "cpu"), ONE_DEVICE)
    params = state_shapes(config, model).params
    rules = tuple((pattern, () if "(hidden|gate)/kernel" in pattern else axes) for pattern, axes in model.layouts)
    with pytest.raises(
        InputError,
        match=r"mesh fsdp=8 would leave 2\d\.\d% .* more than 2%; the largest is encoder/layers/mlp/hidden/kernel",
    ):
        sharding.check_sharded(mesh_of(data=1, fsdp=8), params, rules)
    sharding.check_sharded(mesh_of(data=8), params, rules)  # where nothing is to be sharded nothing is missing


def test_every_parameter_has_one_layout():
    program = small_program(small_config(), 1)
    rules = layouts(program.spec, (MLM, SBO))
    for path in flatten_dict(program.state.params, sep="/"):
        sharding.spec_of(path, rules)
    with pytest.raises(ValueError, match="matches 0 layouts"):
        sharding.spec_of("encoder/novelty/kernel", rules)


def test_optimizer_state_of_any_shape_has_a_layout():
    """Moments follow their parameter, factored ones in the dimensions that they have, and all else is replicated."""
    mesh = mesh_of(data=1, fsdp=4, tensor=2)
    program = small_program(small_config(), 1)
    state = program.state.replace(
        opt_state={
            "moments": program.state.params,
            "rows": jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[:-1], leaf.dtype), program.state.params),
            "columns": jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), program.state.params
            ),
            "numbers": jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1,), leaf.dtype), program.state.params),
            "scalar": jax.ShapeDtypeStruct((), np.float32),
            "vector": jax.ShapeDtypeStruct((7,), np.float32),
        }
    )
    layout = sharding.state_shardings(mesh, state, layouts(program.spec, (MLM, SBO)))
    kernel = ("encoder", "layers", "mlp", "hidden", "kernel")

    def spec(part):
        leaf = layout.opt_state[part]
        for key in kernel:
            leaf = leaf[key]
        return tuple(leaf.spec)

    assert spec("moments") == (None, "fsdp", "tensor")
    assert spec("rows") == (None, "fsdp") and spec("columns") == ("fsdp", "tensor") and spec("numbers") == ()
    assert layout.opt_state["scalar"].spec == layout.opt_state["vector"].spec == sharding.P()


def test_sizes_that_do_not_fit_are_told():
    mesh = small_config().mesh
    assert sharding.mesh_shape(mesh, 8) == (8, 1, 1)
    mesh.update(dict(data=3, fsdp=1, tensor=1))
    with pytest.raises(InputError, match="data=3 x fsdp=1 x tensor=1 is for 3 devices, but there are 8"):
        sharding.mesh_shape(mesh, 8)
    mesh.update(dict(data=-1, fsdp=3, tensor=2))
    with pytest.raises(
        InputError,
        match="data=-1 x fsdp=3 x tensor=2: 8 devices do not divide by 6, the product of the sizes beside -1",
    ):
        sharding.mesh_shape(mesh, 8)
    mesh.update(dict(data=-1, fsdp=-1))
    with pytest.raises(InputError, match="one at most -1"):
        sharding.mesh_shape(mesh, 8)
    config = small_config(mesh__data=4, mesh__tensor=2, batch_size=6, model__heads=1, model__width=33)
    problems = sharding.mesh_problems(config, mesh_of(data=4, tensor=2).shape)
    assert len(problems) == 3 and "6 / 1 = 6 rows must be a multiple of mesh data x fsdp = 4" in problems[0]
    assert (
        "model.width 33 must be a multiple of mesh fsdp x tensor = 2" in problems[1] and "model.heads 1" in problems[2]
    )


@dataclasses.dataclass(frozen=True)
class Chip:
    """A device that says which slice it is in."""

    id: int
    slice_index: int
    platform: str = "cpu"
    device_kind: str = "chip"
    process_index: int = 0


def test_the_data_axis_alone_crosses_slices():
    chips = [Chip(number, number % 2) for number in range(8)]  # in no order
    mesh = sharding.make_mesh(_sizes(4, 2, 1, 0), chips)
    slices = np.vectorize(lambda chip: chip.slice_index)(mesh.devices)
    assert (slices[:2] == 0).all() and (slices[2:] == 1).all()
    with pytest.raises(
        InputError, match="data=1 must be a multiple of the 2 slices .* mesh.slices=1 takes them for one"
    ):
        sharding.make_mesh(_sizes(1, 8, 1, 0), chips)
    assert sharding.make_mesh(_sizes(1, 8, 1, 1), chips).size == 8


def test_devices_that_say_nothing_are_cut_in_equal_parts():
    mesh = sharding.make_mesh(_sizes(4, 1, 2, 2), jax.devices())
    numbers = np.vectorize(lambda device: device.id)(mesh.devices)
    assert set(numbers[:2].flat) == {0, 1, 2, 3} and set(numbers[2:].flat) == {4, 5, 6, 7}
    with pytest.raises(InputError, match="mesh.slices 3 does not divide the 8 devices"):
        sharding.make_mesh(_sizes(-1, 1, 1, 3), jax.devices())


def _sizes(data, fsdp, tensor, slices):
    return small_config(mesh__data=data, mesh__fsdp=fsdp, mesh__tensor=tensor, mesh__slices=slices).mesh


def test_a_part_of_the_rows_is_put_where_it_belongs(monkeypatch):
    """As one of two processes would: it has the rows of its own devices only."""
    mesh = mesh_of(data=4, tensor=2)
    assert sharding.rows_here(mesh, 8).tolist() == list(range(8))
    tokens = np.arange(16).reshape(8, 2)
    whole = sharding.put_batch(mesh, {"tokens": tokens})["tokens"]
    assert np.array_equal(whole, tokens) and whole.sharding == sharding.batch_sharding(mesh)
    part = np.array([2, 3, 6, 7])
    monkeypatch.setattr(sharding, "rows_here", lambda mesh, total: part)
    indices = {
        device: index
        for device, index in sharding.batch_sharding(mesh).devices_indices_map((8,)).items()
        if index[0].start in (2, 6)
    }
    monkeypatch.setattr(jax.sharding.NamedSharding, "addressable_devices_indices_map", lambda self, shape: indices)
    placed = {}
    monkeypatch.setattr(
        jax, "make_array_from_single_device_arrays", lambda shape, where, parts: placed.update(shape=shape, parts=parts)
    )
    sharding.put_batch(mesh, {"tokens": tokens[part]}, 8)
    assert placed["shape"] == (8, 2)
    for (index,), array in zip(indices.values(), placed["parts"]):
        assert np.array_equal(array, tokens[index])
