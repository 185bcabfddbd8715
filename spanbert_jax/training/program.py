"""The jitted functions of a run on a mesh. They are compiled before it starts.

So a step that does not fit is reported at once, and neither a signal nor an evaluation waits for the compiler.
"""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import Mesh

from spanbert_jax.errors import DoesNotFit
from spanbert_jax.model.flops import BACKWARD
from spanbert_jax.model.spec import ModelSpec
from spanbert_jax.optimizers import make_optimizer, step_scalars
from spanbert_jax.training import sharding
from spanbert_jax.training.step import Batch, Trainable, init_state, make_train_step


@dataclasses.dataclass(frozen=True)
class Program:
    """The pure functions of a run; none contains parameters, the state is an argument and a result."""

    trainable: Trainable
    mesh: Mesh
    state: Any  # jax.ShapeDtypeStruct of every leaf of the train state, with its sharding
    init: "Completed"  # (start or None) -> state, created sharded; see Trainable.init
    train_step: "Completed"  # (state, batch) -> (state, metrics); donates the state
    eval_step: Any  # (params, batch) -> what the evaluation needs, on every device
    flops_per_step: int | None  # FLOPs of the matrix products of one train step, over all devices; None: they differ

    @property
    def spec(self) -> ModelSpec:
        """The sizes and choices of the model."""
        return self.trainable.spec

    def batch_shapes(self, rows: int, evaluated: bool = False) -> list[dict[str, jax.ShapeDtypeStruct]]:
        """Returns shapes and layouts of global batches, the largest first, to compile the steps without data.

        Args:
          rows: of a batch.
          evaluated: whether they are those of the evaluation.
        """
        layout = sharding.batch_sharding(self.mesh)
        every = (evaluated and self.trainable.eval_shapes) or self.trainable.batch_shapes
        return [
            {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=layout) for name, leaf in shapes.items()}
            for shapes in every(rows)
        ]

    def put(self, batch: dict[str, np.ndarray], rows: int | None = None) -> Batch:
        """Returns the global arrays of a batch, without those that the model does not read.

        Args:
          batch: the rows of this process.
          rows: of the global batch; None: `batch` has all of them.
        """
        read = self.trainable.batch_shapes(1)[0]
        return sharding.put_batch(self.mesh, {name: batch[name] for name in read}, rows)

    def compiled(self, config, log: Callable[[str], None]) -> "Program":
        """Returns the program with its steps compiled; the evaluation step only if the run evaluates.

        Raises:
          DoesNotFit: a step needs more memory than a device has.
        """
        began = time.perf_counter()
        batches, eval_batches = self.batch_shapes(config.batch_size), self.batch_shapes(config.eval.batch_size, True)
        train_step = self.train_step.compiled(self.state, batches)
        eval_step = _compiled(self.eval_step, self.state.params, eval_batches) if config.eval.every else self.eval_step
        sizes = f", {len(batches)} sizes of batches" if len(batches) > 1 else ""
        log(f"compiled in {time.perf_counter() - began:.0f} s{sizes}")
        return dataclasses.replace(self, train_step=train_step, eval_step=eval_step)


def build_program(config, mesh: Mesh, trainable: Trainable) -> Program:
    """Returns the program of a valid config.

    It reads the keys seed, batch_size, accumulation, total_steps and optimizer.*.

    Args:
      config: the whole config.
      mesh: of devices, or of a topology to compile for.
      trainable: what is trained.
    """
    optimizer_with = functools.partial(
        make_optimizer, config.optimizer, config.total_steps, sharding.layout_on(mesh, interpret=False)
    )
    scalars, seed = step_scalars(config.optimizer, config.total_steps), np.int32(config.seed)

    def init(start, seed):
        return init_state(trainable, optimizer_with(), seed, start)

    shapes = state_shapes(config, trainable)
    sharding.check_sharded(mesh, shapes.params, trainable.layouts)
    layout = sharding.state_shardings(mesh, shapes, trainable.layouts)
    state = jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), shapes, layout
    )
    rows, everywhere = sharding.batch_sharding(mesh), sharding.replicated(mesh)
    train_step = make_train_step(trainable, optimizer_with, config.accumulation, sharding.constrain_like(layout.params))
    jitted_scalars = jax.jit(scalars, out_shardings=everywhere)

    def exactly(step: Callable) -> Callable:
        @functools.wraps(step)
        def traced(*args):
            with trainable.spec.exact_products():  # here, so that gradients are computed like that too
                return step(*args)

        return traced

    return Program(
        trainable=trainable,
        mesh=mesh,
        state=state,
        init=Completed(jax.jit(init, out_shardings=layout), lambda start: seed, jax.ShapeDtypeStruct((), np.int32)),
        train_step=Completed(
            jax.jit(
                exactly(train_step),
                in_shardings=(layout, rows, everywhere),
                out_shardings=(layout, everywhere),
                donate_argnums=0,
            ),
            lambda state, batch: jitted_scalars(state.step),
            jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere),
                jax.eval_shape(scalars, state.step),
            ),
        ),
        eval_step=jax.jit(exactly(trainable.evaluate), in_shardings=(layout.params, rows), out_shardings=everywhere),
        flops_per_step=None if trainable.flops is None else (1 + BACKWARD) * config.batch_size * trainable.flops,
    )


@dataclasses.dataclass(frozen=True)
class Completed:
    """A jitted function without its last argument: the numbers in which runs of one compiled program may differ.

    What is compiled does not depend on them, so a compile cache serves all trials of a sweep over them.
    """

    function: Any
    last: Callable  # (*arguments) -> the last one
    last_shapes: Any  # jax.ShapeDtypeStruct of it

    def __call__(self, *arguments):
        """Returns what the function returns."""
        return self.function(*arguments, self.last(*arguments))

    def lower(self, *arguments) -> Any:
        """Returns the function lowered for arguments, or shapes of them."""
        return self.function.lower(*arguments, self.last_shapes)

    def compiled(self, state, batches: list[dict[str, jax.ShapeDtypeStruct]]) -> "Completed":
        """Returns the function compiled for a state and batches of these shapes; see _compiled."""
        return dataclasses.replace(self, function=_compiled(self, state, batches))


def state_shapes(config, trainable: Trainable):
    """Returns the train state of a config as shapes and types."""
    tx = make_optimizer(config.optimizer, config.total_steps)
    return jax.eval_shape(lambda: init_state(trainable, tx, config.seed, None))


def keep_compiled(folder: str) -> None:
    """Makes JAX keep compiled programs in a folder and read them from it; does nothing if it is ""."""
    if folder:
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
        compilation_cache.reset_cache()  # it may already be in use with another folder


def _compiled(step, state, batches: list[dict[str, jax.ShapeDtypeStruct]]) -> Callable:
    """Returns a function of (state, batch, ...) that calls the step compiled for batches of these shapes.

    Raises:
      DoesNotFit: one of them needs more memory than a device has.
    """

    def shapes_of(batch) -> tuple:
        return tuple((name, batch[name].shape) for name in sorted(batch))

    steps = {shapes_of(batch): _fitting(lambda batch=batch: step.lower(state, batch).compile()) for batch in batches}
    if len(steps) == 1:
        return next(iter(steps.values()))
    return lambda state, batch, *more: steps[shapes_of(batch)](state, batch, *more)


def _fitting(compile_step: Callable):
    """Returns the compiled step that compile_step returns.

    Raises:
      DoesNotFit: the step needs more memory than a device has.
    """
    try:
        step = compile_step()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise DoesNotFit(_advice(str(error).strip().partition("\n")[0][:300])) from None
    needed, available = peak_bytes(step), memory_of_device()
    if available and needed > available:
        raise DoesNotFit(_advice(f"{needed / 2**30:.2f} GiB a device, of which it has {available / 2**30:.2f}"))
    return step


def memory_of_device() -> int | None:
    """Returns the bytes that a device of this process has for programs; None if it does not report them (a CPU)."""
    return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")


def _advice(reason: str) -> str:
    return (
        f"the step does not fit the devices' memory ({reason}): raise accumulation, mesh fsdp or tensor, or give "
        "model.remat=full; scripts/plan.py --search finds what fits"
    )


def peak_bytes(step) -> int:
    """Returns the bytes that a compiled step needs on one device at its peak.

    These are arguments, results that do not reuse their memory, temporaries, and the program.
    """
    sizes = step.memory_analysis()
    return (
        sizes.argument_size_in_bytes
        + sizes.output_size_in_bytes
        - sizes.alias_size_in_bytes
        + sizes.temp_size_in_bytes
        + sizes.generated_code_size_in_bytes
    )
