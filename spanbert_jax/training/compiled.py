"""The programs of a run, compiled before it starts: what does not fit is told then, and no signal or evaluation waits for a compiler."""

import dataclasses
import time
from collections.abc import Callable

import jax
from jax.experimental.compilation_cache import compilation_cache

from spanbert_jax.errors import DoesNotFit
from spanbert_jax.training.program import Program, batch_shapes


@dataclasses.dataclass(frozen=True)
class Steps:
    """Program's train_step and eval_step, compiled; eval_step is None where the run never evaluates."""

    train: Callable
    evaluate: Callable | None


def keep_compiled(folder: str) -> None:
    """Has compiled programs kept in a folder, and taken from it when they are there already; "" for neither."""
    if folder:
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
        compilation_cache.reset_cache()  # it may be at work already, in another folder


def compiled(config, program: Program, slots: int, tell: Callable[[str], None]) -> Steps:
    """The compiled steps of a program.

    Raises:
      DoesNotFit: they need more memory than a device has.
    """
    began = time.perf_counter()
    train = _fitting(
        lambda: program.train_step.lower(
            program.state, batch_shapes(config, program.mesh, slots, config.batch_size)
        ).compile()
    )
    evaluate = None
    if config.eval.every:
        batch = batch_shapes(config, program.mesh, slots, config.eval.batch_size)
        evaluate = _fitting(lambda: program.eval_step.lower(program.state.params, batch).compile())
    tell(f"compiled in {time.perf_counter() - began:.0f} s")
    return Steps(train, evaluate)


def _fitting(compile_step: Callable):
    """What compile_step returns, unless that does not fit."""
    try:
        step = compile_step()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise DoesNotFit(_advice(str(error).strip().partition("\n")[0][:300])) from None
    needed, there = peak_bytes(step), memory_of_device()
    if there and needed > there:
        raise DoesNotFit(_advice(f"{needed / 2**30:.2f} GiB a device, of which it has {there / 2**30:.2f}"))
    return step


def memory_of_device() -> int | None:
    """Bytes that a device of this process has for programs, None where it does not say (a CPU)."""
    return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")


def _advice(said: str) -> str:
    return (
        f"the step does not fit the devices' memory ({said}): raise accumulation, mesh fsdp or tensor, or give model.remat=full; "
        "scripts/plan.py --search finds what fits"
    )


def peak_bytes(step) -> int:
    """Memory that a compiled step needs on one device at its peak: arguments, results that are not written over them, and temporaries."""
    sizes = step.memory_analysis()
    return (
        sizes.argument_size_in_bytes
        + sizes.output_size_in_bytes
        - sizes.alias_size_in_bytes
        + sizes.temp_size_in_bytes
        + sizes.generated_code_size_in_bytes
    )
