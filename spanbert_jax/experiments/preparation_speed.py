"""Speed of preparation compared with bare tokenisation of the same lines, and the memory that it takes."""

import itertools
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from tokenizers import Tokenizer

from spanbert_jax.data.sources import EMBEDDED, find_units
from spanbert_jax.data.store import Store, open_store, write_store
from spanbert_jax.data.tokenizer import load_tokenizer

COPIES = 12  # of the embedded corpus, about 60 MB
LINES_PER_CALL = 10_000  # of the bare tokeniser
TURNS = 3  # measurements of each contender, alternating so that a drifting machine affects both alike
TOKENIZER = load_tokenizer("cased", "auto")
COMMAND = [sys.executable, "-c", "from spanbert_jax import commands; commands.main()", "prepare_data"]


def embedded_store(folder: Path, copies: int) -> Store:
    """Writes a store of `copies` copies of the embedded corpus, and opens it."""
    train, valid = find_units(EMBEDDED, "", "", "", "blank")
    documents = {
        "train": itertools.chain.from_iterable(train.documents() for _ in range(copies)),
        "valid": valid.documents(),
    }
    write_store(folder, TOKENIZER, documents)
    return open_store(folder)


def preparation(source: str) -> dict:
    """Measures scripts/prepare_data.py against `encode_batch` of Hugging Face's tokenizers.

    The script is measured as a process from start to end, with one worker per core and without cleaning.
    `encode_batch`, which uses all cores as well, reads the same lines from memory.

    Args:
      source: text files, or "embedded" for COPIES copies of the embedded corpus.

    Returns:
      Figures by name, the unit in the name.
    """
    with tempfile.TemporaryDirectory() as folder:
        if source == EMBEDDED:
            source = f"{folder}/text/*.txt"
            write_copies(Path(folder) / "text")
        units = find_units(source, "text", "train", "", "blank")
        lines = [line for unit in units for document in unit.documents() for line in document]
        tokenizer = bare_tokenizer(folder)
        seconds: dict[str, list[float]] = {"prepare": [], "bare": []}
        peaks = []
        for turn in range(TURNS):
            for name in sorted(seconds, reverse=bool(turn % 2)):
                start = time.perf_counter()
                if name == "bare":
                    for first in range(0, len(lines), LINES_PER_CALL):
                        tokenizer.encode_batch(lines[first : first + LINES_PER_CALL], add_special_tokens=False)
                else:
                    peaks.append(run_script(source, f"{folder}/store-{turn}"))
                seconds[name].append(time.perf_counter() - start)
        tokens = sum(split["num_tokens"] for split in open_store(f"{folder}/store-0").index["splits"].values())
    ratios = [bare / prepare for bare, prepare in zip(seconds["bare"], seconds["prepare"])]
    return {
        "characters": sum(map(len, lines)),
        "lines": len(lines),
        "tokens": tokens,
        "prepare_tokens_per_second": round(tokens / statistics.median(seconds["prepare"])),
        "bare_tokens_per_second": round(tokens / statistics.median(seconds["bare"])),
        "speed_against_bare": round(statistics.median(ratios), 3),
        "peak_resident_bytes": max(peaks),
    }


def bare_tokenizer(folder: str) -> Tokenizer:
    """Returns the tokenizer of the default vocabulary, loaded with Hugging Face's library alone."""
    load_tokenizer("cased", "auto").save(folder)
    return Tokenizer.from_file(f"{folder}/tokenizer.json")


def write_copies(folder: Path) -> None:
    """Writes the embedded corpus into COPIES files."""
    documents = [document for unit in find_units(EMBEDDED, "", "", "", "blank") for document in unit.documents()]
    folder.mkdir()
    text = "\n\n".join("\n".join(document) for document in documents)
    for number in range(COPIES):
        (folder / f"{number:02d}.txt").write_text(text, encoding="utf-8")


def run_script(source: str, output: str) -> int:
    """Makes a store with the script.

    Returns:
      The peak of the resident memory of the script and its workers together, in bytes; shared memory counts for each.
    """
    command = [*COMMAND, f"--input={source}", f"--output={output}", "--valid_fraction=0"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    samples, has_ended = [0], threading.Event()

    def sample_memory() -> None:
        while not has_ended.wait(0.05):
            samples.append(resident_bytes_of_tree(process.pid))

    sampler = threading.Thread(target=sample_memory)
    sampler.start()
    code = process.wait()
    has_ended.set()
    sampler.join()
    if code:
        raise subprocess.CalledProcessError(code, command)
    return max(samples)


def resident_bytes_of_tree(pid: int) -> int:
    """Returns the resident memory of a process and all its descendants, in bytes; 0 for a process that has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        children = [
            int(child)
            for thread in Path(f"/proc/{pid}/task").iterdir()
            for child in (thread / "children").read_text().split()
        ]
    except OSError:
        return 0
    return pages * 4096 + sum(map(resident_bytes_of_tree, children))
