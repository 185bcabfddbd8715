"""Paths and globs, local and remote."""

import itertools

import pytest

from spanbert_jax.data.sources.paths import find_files, open_bytes, size_and_stamp
from spanbert_jax.errors import InputError

FOLDERS = itertools.count()


@pytest.fixture
def memory():
    """(fsspec's file system in memory, address of an empty folder of it): remote, for all that the code can tell."""
    fsspec = pytest.importorskip("fsspec")
    return fsspec.filesystem("memory"), f"memory:///folder{next(FOLDERS)}"


def refusal(source):
    with pytest.raises(InputError) as error:
        find_files(source)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_globs_are_sorted_and_each_file_comes_once(tmp_path):
    for name in ("c.txt", "a.txt", "b.txt", "d.txt.gz", "deep/er/e.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    names = [
        path.removeprefix(f"{tmp_path}/") for path in find_files(f"{tmp_path}/b.txt, {tmp_path}/*.txt,{tmp_path}/d*")
    ]
    assert names == ["b.txt", "a.txt", "c.txt", "d.txt.gz"]
    assert find_files(f"{tmp_path}/**/e.txt") == [f"{tmp_path}/deep/er/e.txt"]
    (tmp_path / "odd[1].txt").write_text("odd")
    assert find_files(f"{tmp_path}/odd[1].txt") == [f"{tmp_path}/odd[1].txt"]  # a path that exists is no glob


def test_refuses_nothing_and_folders(tmp_path):
    assert "nothing*.txt" in refusal(f"{tmp_path}/nothing*.txt")
    assert "is empty" in refusal(" , ")
    assert "is a folder" in refusal(str(tmp_path))


def test_remote_files(memory):
    store, folder = memory
    for name in ("b.txt", "a.txt", "sub/c.txt"):
        store.pipe(f"{folder}/{name}", name.encode())
    assert find_files(f"{folder}/*.txt") == [f"{folder}/a.txt", f"{folder}/b.txt"]
    assert find_files(f"{folder}/b.txt,{folder}/*") == [f"{folder}/b.txt", f"{folder}/a.txt"]
    with open_bytes(f"{folder}/sub/c.txt") as file:
        assert file.read() == b"sub/c.txt"
    assert "is a folder" in refusal(f"{folder}/sub")
    assert "no file matches" in refusal(f"{folder}/none.txt")
    assert "no file matches" in refusal(f"{folder}/*.json")


def test_stamps_tell_one_writing_from_the_next(memory, tmp_path):
    import os

    path = tmp_path / "a.txt"
    path.write_text("one")
    before = size_and_stamp(str(path))
    os.utime(path, ns=(0, 5))
    assert before[0] == 3 and size_and_stamp(str(path)) == (3, "5") != before
    store, folder = memory
    store.pipe(f"{folder}/a.txt", b"one")
    before = size_and_stamp(f"{folder}/a.txt")
    assert size_and_stamp(f"{folder}/a.txt") == before
    store.rm(f"{folder}/a.txt")
    store.pipe(f"{folder}/a.txt", b"two")
    assert before[0] == 3 and size_and_stamp(f"{folder}/a.txt") != before


def test_what_a_remote_store_says_becomes_one_line():
    assert "cannot read nosuch://bucket/a.txt" in refusal("nosuch://bucket/a.txt")
    with pytest.raises(InputError, match="cannot read memory://none/a.txt"):
        size_and_stamp("memory://none/a.txt")
    with pytest.raises(InputError, match="cannot read memory://none/a.txt"), open_bytes("memory://none/a.txt"):
        pass


def test_a_bucket_without_its_library():
    import importlib.util

    if importlib.util.find_spec("gcsfs"):
        pytest.skip("gcsfs is here")
    assert "pip install 'spanbert_jax[gcs]'" in refusal("gs://bucket/*.txt")
