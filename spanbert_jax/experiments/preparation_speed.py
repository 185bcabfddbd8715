"""How quick preparation is beside bare tokenisation of the same lines, in turns, and how much memory it takes."""

import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from tokenizers import Tokenizer

from spanbert_jax.data.sources import EMBEDDED, find_units
from spanbert_jax.data.store import open_store
from spanbert_jax.data.tokenizer import load_tokenizer

COPIES = 12  # of the embedded corpus, about 60 MB
LINES = 10_000  # that the bare tokeniser is given at a time
TURNS = 3
SCRIPT = Path(__file__).parents[2] / "scripts" / "prepare_data.py"


def preparation(source: str) -> dict:
    """scripts/prepare_data.py, from its start to its end, with a process a core and no cleaning; and `encode_batch` of Hugging Face's
    tokenizers, which uses all cores too, on the same lines in memory. `source`: files, or "embedded" for COPIES of that.
    """
    with tempfile.TemporaryDirectory() as folder:
        if source == EMBEDDED:
            source = f"{folder}/text/*.txt"
            write_copies(Path(folder) / "text")
        lines = [
            line
            for unit in find_units(source, "text", "train", "", "blank")
            for document in unit.documents()
            for line in document
        ]
        tokenizer = bare_tokenizer(folder)
        seconds, peaks = {"prepare": [], "bare": []}, []
        for turn in range(TURNS):
            for name in sorted(seconds, reverse=bool(turn % 2)):
                began = time.perf_counter()
                if name == "bare":
                    for start in range(0, len(lines), LINES):
                        tokenizer.encode_batch(lines[start : start + LINES], add_special_tokens=False)
                else:
                    peaks.append(run_script(source, f"{folder}/store-{turn}"))
                seconds[name].append(time.perf_counter() - began)
        tokens = sum(split["num_tokens"] for split in open_store(f"{folder}/store-0").index["splits"].values())
    return {
        "characters": sum(map(len, lines)),
        "lines": len(lines),
        "tokens": tokens,
        "prepare_tokens_per_second": round(tokens / statistics.median(seconds["prepare"])),
        "bare_tokens_per_second": round(tokens / statistics.median(seconds["bare"])),
        "speed_against_bare": round(
            statistics.median(bare / ours for bare, ours in zip(seconds["bare"], seconds["prepare"])), 3
        ),
        "peak_resident_bytes": max(peaks),
    }


def bare_tokenizer(folder: str) -> Tokenizer:
    """The tokenizer of the default vocabulary as any user of Hugging Face's library would load it."""
    load_tokenizer("cased", "auto").save(folder)
    return Tokenizer.from_file(f"{folder}/tokenizer.json")


def write_copies(folder: Path) -> None:
    """The embedded corpus as COPIES files."""
    documents = [document for unit in find_units(EMBEDDED, "", "", "", "blank") for document in unit.documents()]
    folder.mkdir()
    text = "\n\n".join("\n".join(document) for document in documents)
    for number in range(COPIES):
        (folder / f"{number:02d}.txt").write_text(text, encoding="utf-8")


def run_script(source: str, output: str) -> int:
    """Makes a store; returns the most memory that the script and its workers had at a time, bytes (what they share counts for each)."""
    command = [sys.executable, str(SCRIPT), f"--input={source}", f"--output={output}", "--valid_fraction=0"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak, ended = [0], threading.Event()

    def watch():
        while not ended.wait(0.05):
            peak[0] = max(peak[0], resident_bytes_of_tree(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait()
    ended.set()
    watcher.join()
    if code:
        raise subprocess.CalledProcessError(code, command)
    return peak[0]


def resident_bytes_of_tree(pid: int) -> int:
    """Memory in RAM of a process and all its descendants; 0 for one that has ended."""
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
