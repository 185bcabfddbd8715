"""Files are read at any address while few of them are open, by any number of threads."""

import collections
import concurrent.futures
import contextlib
import gc
import hashlib
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from spanbert_jax.data import random_access
from spanbert_jax.data.blocks import BlockSettings
from spanbert_jax.data.mixture import MixedRows
from spanbert_jax.data.random_access import RandomAccessFile, most_open
from spanbert_jax.data.rows import build_rows
from spanbert_jax.data.store import open_store, write_store
from spanbert_jax.errors import InputError
from tests.data.test_store import TOKENIZER, Tagger, random_documents

THREADS = 8


class Counted:
    """Opens a file and records the descriptors."""

    def __init__(self, path):
        self.path, self.descriptors = path, []

    def __call__(self):
        self.descriptors.append(os.open(self.path, os.O_RDONLY))
        return self.descriptors[-1]


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Makes 20 files of their number, of which 3 may be open."""
    monkeypatch.setattr(random_access, "MOST_OPEN", 3)
    monkeypatch.setattr(random_access, "_open_files", collections.deque())
    for number in range(20):
        (tmp_path / str(number)).write_bytes(bytes([number]) * 100)
    return [RandomAccessFile(Counted(tmp_path / str(number))) for number in range(20)]


def open_now(files):
    return [number for number, file in enumerate(files) if file._descriptor]


def test_the_file_that_was_opened_first_is_closed(files):
    for number in (0, 1, 0, 2, 0):
        assert files[number].read(7, 5) == bytes([number]) * 5
    assert open_now(files) == [0, 1, 2]
    first = files[0]._open_descriptor.descriptors[0]
    assert files[3].size() == 100 and open_now(files) == [1, 2, 3]
    assert first not in {files[number]._descriptor.number for number in (1, 2)}
    assert files[0].read(98, 5) == b"\0\0" and open_now(files) == [0, 2, 3]
    assert [len(file._open_descriptor.descriptors) for file in files[:5]] == [2, 1, 1, 1, 0]


def test_a_file_that_is_no_longer_needed_is_closed(files):
    files[0].read(0, 1)
    (descriptor,) = files[0]._open_descriptor.descriptors
    inode = os.fstat(descriptor).st_ino
    del files[0]
    gc.collect()
    with contextlib.suppress(OSError):  # closed; or another thread of the process has opened a file of that number
        assert os.fstat(descriptor).st_ino != inode


def test_threads_read_the_right_file_while_others_close_it(files):
    def read(seed):
        numbers = np.random.default_rng(seed).integers(0, 20, 2000).tolist()
        return all(files[number].read(3, 50) == bytes([number]) * 50 for number in numbers)

    with concurrent.futures.ThreadPoolExecutor(THREADS) as threads:
        assert all(threads.map(read, range(THREADS)))
    assert len(open_now(files)) <= 3


def digest(folders):
    """Returns a hash of all rows of both splits of stores with tags, read by several threads, and how many files are
    open at the end.
    """
    settings = BlockSettings(16, 1, "document", "cut", 0.0, 0)
    tags = ("c", "long")
    splits = [[open_store(folder).split(split) for folder in folders] for split in ("train", "valid")]
    mixed = [MixedRows([build_rows(split, settings, TOKENIZER.starts_word, tags) for split in part]) for part in splits]

    def read(seed):
        hashed = hashlib.sha256()
        for rows in mixed:
            for field in rows.read(np.random.default_rng(seed).permutation(rows.num_rows)).values():
                hashed.update(field.tobytes())
        return hashed.hexdigest()

    with concurrent.futures.ThreadPoolExecutor(THREADS) as threads:
        hashes = list(threads.map(read, range(THREADS)))
    return hashlib.sha256("".join(hashes).encode()).hexdigest(), len(os.listdir("/dev/fd"))


PROGRAM = """
import resource, sys
from tests.data import test_random_access
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), hard))
print(*test_random_access.digest(sys.argv[2:]))
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Makes two stores of 40 shards with two kinds of tags: with both splits, 480 files to read."""
    root = tmp_path_factory.mktemp("many")
    for seed, name in enumerate(("first", "second")):
        splits = {split: random_documents(2 * seed + number, 40) for number, split in enumerate(("train", "valid"))}
        write_store(root / name, TOKENIZER, splits, Tagger(), shard_documents=1)
    return [str(root / "first"), str(root / "second")]


def test_corpora_may_have_more_files_than_a_process_may_open(folders):
    expected, _ = digest(folders)
    paths = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM, "64", *folders],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    found, open_files = process.stdout.split()
    assert found == expected and 32 <= int(open_files) < 64


def test_a_limit_that_is_too_low_is_named_at_the_start(folders, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (40, 40))
    with pytest.raises(InputError, match="only 40 files open, and needs at least 64; raise .* ulimit -n 1024"):
        open_store(folders[0]).split("train")


@pytest.mark.parametrize("limit, most", [(64, 32), (1024, 512), (1 << 20, 4096), (resource.RLIM_INFINITY, 4096)])
def test_half_of_the_limit_is_for_corpora(limit, most, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    assert most_open() == most
