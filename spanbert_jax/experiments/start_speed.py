"""Seconds that are not steps: from a command to its first step, compilation, saving and restoring."""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax

import spanbert_jax.configs
from spanbert_jax.configs import spanbert
from spanbert_jax.data.batches import Feed
from spanbert_jax.data.mixture import Mixture
from spanbert_jax.experiments.preparation_speed import TOKENIZER, embedded_store
from spanbert_jax.training import sharding
from spanbert_jax.training.checkpoint import Checkpoints
from spanbert_jax.training.pretraining import pretraining_program

CONFIG = Path(spanbert_jax.configs.__file__).parent / "spanbert.py"
PRETRAIN = [sys.executable, "-c", "from spanbert_jax import commands; commands.main()", "pretrain"]
IMPORT = "import time; began = time.perf_counter(); import spanbert_jax; print(time.perf_counter() - began)"
TURNS = 3


def start() -> dict:
    """Measures a command's way to its first step at `tiny`, the import of the package, and compilation of `base`.

    The first command finds no compiled programs and no store (cold), the others find both (warm).
    """
    with tempfile.TemporaryDirectory() as folder:
        cold, *warm = (seconds_to_first_step(Path(folder), number) for number in range(1 + TURNS))
    imports = [
        float(subprocess.run([sys.executable, "-c", IMPORT], check=True, capture_output=True, text=True).stdout)
        for _ in range(TURNS)
    ]
    config = spanbert.get_config("base")
    config.update(dict(batch_size=4, eval=dict(every=0)))
    program = pretraining_program(config, one_device(config), TOKENIZER.vocab_size)
    began = time.perf_counter()
    program.compiled(config, lambda message: None)
    return {
        "cold_start_to_first_step_seconds": round(cold, 1),
        "warm_start_to_first_step_seconds": round(statistics.median(warm), 1),
        "import_seconds": round(statistics.median(imports), 3),
        "compilation_of_base_seconds": round(time.perf_counter() - began, 1),
    }


def seconds_to_first_step(folder: Path, number: int) -> float:
    """Returns the seconds from the start of a new run in a folder until it logs its first step."""
    changes = ["log_every=1", "eval.every=0", f"compile_cache={folder / 'compiled'}"]
    if number:
        changes.append(f"data.store={folder / 'run-0' / 'store'}")
    flags = [f"--config={CONFIG}:tiny", f"--workdir={folder / f'run-{number}'}"]
    began = time.perf_counter()
    command = [*PRETRAIN, *flags, *(f"--config.{change}" for change in changes)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        lines = []
        for line in process.stdout or ():
            lines.append(line)
            if line.startswith("step 1/"):
                process.kill()
                return time.perf_counter() - began
    raise RuntimeError("the run ended before its first step: " + "".join(lines))


def checkpoint() -> dict:
    """Measures saving and restoring `base`: 110 M parameters and their moments, on a local disk."""
    config = spanbert.get_config("base")
    config.update(dict(seq_len=128, batch_size=4))
    with tempfile.TemporaryDirectory() as folder:
        store = embedded_store(Path(folder) / "store", 1)
        batch = next(Feed(config, Mixture([store]), TOKENIZER).training(0))
        program = pretraining_program(config, one_device(config), TOKENIZER.vocab_size)
        state, _ = program.train_step(program.init(None), program.put(batch))
        like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)
        checkpoints = Checkpoints(Path(folder) / "checkpoints", keep_last=1)
        blocked, written, restored = [], [], []
        for step in range(1, 1 + TURNS):
            jax.block_until_ready(state)
            began = time.perf_counter()
            checkpoints.save(step, state, {})
            blocked.append(time.perf_counter() - began)
            checkpoints.wait()
            written.append(time.perf_counter() - began)
            began = time.perf_counter()
            jax.block_until_ready(checkpoints.restore(step, like))
            restored.append(time.perf_counter() - began)
        checkpoints.close()
    return {
        "state_bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(state)),
        "steps_between_saves": config.checkpoint.every,
        "seconds_that_a_save_blocks": round(statistics.median(blocked), 2),
        "seconds_until_written": round(statistics.median(written), 2),
        "seconds_to_restore": round(statistics.median(restored), 2),
    }


def one_device(config):
    """Returns the mesh of one device."""
    return sharding.make_mesh(config.mesh, jax.devices()[:1])
