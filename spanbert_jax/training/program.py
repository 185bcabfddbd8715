"""What a config compiles to on a mesh: the jitted functions of a run, and the shapes and layouts of what goes through them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from spanbert_jax.model.flash import platform_of
from spanbert_jax.model.flops import train_flops
from spanbert_jax.model.spec import ModelSpec, model_spec
from spanbert_jax.training import sharding
from spanbert_jax.training.optimizer import learning_rate, make_optimizer
from spanbert_jax.training.step import init_state, make_eval_step, make_train_step


@dataclasses.dataclass(frozen=True)
class Program:
    """Nothing here holds parameters: state goes in and out."""

    spec: ModelSpec
    mesh: Mesh
    state: Any  # jax.ShapeDtypeStruct of every leaf of the train state, with its sharding
    init: Callable  # (output bias [V] or None) -> state, born sharded
    train_step: Callable  # (state, batch) -> (state, metrics); donates the state
    eval_step: Callable  # (params, batch) -> sums and counts
    flops_per_step: int  # of the matrix products of one train step, over all devices


def build_program(config, mesh: Mesh, vocab_size: int, slots: int) -> Program:
    """The program of a valid config.

    Args:
      config: the whole config.
      mesh: of devices, or of a topology to compile for.
      vocab_size: V.
      slots: M, of a row; see data.masking.mask_slots.
    """
    spec = dataclasses.replace(
        model_spec(config, vocab_size, platform_of(mesh.devices.flat[0])),
        constrain=sharding.constrain_on(mesh),
        shard_map=sharding.shard_map_on(mesh),
        vocab_multiple=sharding.vocab_multiple(mesh),
    )
    tx = make_optimizer(config.optimizer, config.total_steps)
    rate = learning_rate(config.optimizer, config.total_steps)

    def init(output_bias):
        return init_state(spec, tx, config.seed, output_bias)

    shapes = state_shapes(config, spec)
    sharding.check_sharded(mesh, shapes.params)
    layout = sharding.state_shardings(mesh, shapes)
    state = jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), shapes, layout
    )
    rows, everywhere = sharding.batch_sharding(mesh), sharding.replicated(mesh)
    return Program(
        spec=spec,
        mesh=mesh,
        state=state,
        init=jax.jit(init, out_shardings=layout),
        train_step=jax.jit(
            make_train_step(spec, tx, rate, config, sharding.constrain_like(layout.params)),
            in_shardings=(layout, rows),
            out_shardings=(layout, everywhere),
            donate_argnums=0,
        ),
        eval_step=jax.jit(
            make_eval_step(spec, config.objectives), in_shardings=(layout.params, rows), out_shardings=everywhere
        ),
        flops_per_step=train_flops(spec, config.batch_size, config.seq_len, slots),
    )


def state_shapes(config, spec: ModelSpec):
    """The train state of a config's model as shapes and types."""
    tx = make_optimizer(config.optimizer, config.total_steps)
    return jax.eval_shape(lambda: init_state(spec, tx, config.seed, None))


def batch_shapes(config, mesh: Mesh, slots: int, rows: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and layout of a global batch of so many rows: what the steps can be compiled for without data."""
    length = config.seq_len
    shapes = dict.fromkeys(("tokens", "segments", "positions", "token_types"), (rows, length))
    shapes |= dict.fromkeys(
        (
            "mlm_positions",
            "mlm_targets",
            "mlm_weights",
            "sbo_left",
            "sbo_right",
            "sbo_offset",
            "sbo_targets",
            "sbo_weights",
        ),
        (rows, slots),
    )
    if config.data.blocks == "pair":
        shapes |= dict.fromkeys(("nsp_targets", "nsp_weights"), (rows, 1))
    return {
        name: jax.ShapeDtypeStruct(
            shape, jnp.float32 if name.endswith("weights") else jnp.int32, sharding=sharding.batch_sharding(mesh)
        )
        for name, shape in shapes.items()
    }
