"""Paths and globs, local and remote."""

import importlib.util
import itertools
import os

import pytest

from spanbert_jax.data.sources.paths import find_files, open_bytes, size_and_stamp
from spanbert_jax.errors import InputError

FOLDER_NUMBERS = itertools.count()


@pytest.fixture
def memory():
    """(fsspec's in-memory file system, address of an empty folder in it): a remote file system to the code."""
    fsspec = pytest.importorskip("fsspec")
    return fsspec.filesystem("memory"), f"memory:///folder{next(FOLDER_NUMBERS)}"


def error_message(source):
    with pytest.raises(InputError) as error:
        find_files(source)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_globs_are_sorted_and_each_file_is_found_once(tmp_path):
    for name in ("c.txt", "a.txt", "b.txt", "d.txt.gz", "deep/er/e.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    found = find_files(f"{tmp_path}/b.txt, {tmp_path}/*.txt,{tmp_path}/d*")
    assert [path.removeprefix(f"{tmp_path}/") for path in found] == ["b.txt", "a.txt", "c.txt", "d.txt.gz"]
    assert find_files(f"{tmp_path}/**/e.txt") == [f"{tmp_path}/deep/er/e.txt"]
    (tmp_path / "odd[1].txt").write_text("odd")
    assert find_files(f"{tmp_path}/odd[1].txt") == [f"{tmp_path}/odd[1].txt"]  # an existing path is not a glob


def test_a_file_with_several_names_is_read_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(name)
    (tmp_path / "c.txt").symlink_to("a.txt")
    assert find_files(f"a.txt,./a.txt,sub/../a.txt,{tmp_path}/a.txt,*.txt,[ab].txt,a.txt") == ["a.txt", "b.txt"]


def test_missing_files_and_folders_are_refused(tmp_path):
    assert "nothing*.txt" in error_message(f"{tmp_path}/nothing*.txt")
    assert "is empty" in error_message(" , ")
    assert "is a folder" in error_message(str(tmp_path))


def test_remote_files(memory):
    store, folder = memory
    for name in ("b.txt", "a.txt", "sub/c.txt"):
        store.pipe(f"{folder}/{name}", name.encode())
    assert find_files(f"{folder}/*.txt") == [f"{folder}/a.txt", f"{folder}/b.txt"]
    assert find_files(f"{folder}/b.txt,{folder}/*") == [f"{folder}/b.txt", f"{folder}/a.txt"]
    with open_bytes(f"{folder}/sub/c.txt") as file:
        assert file.read() == b"sub/c.txt"
    assert "is a folder" in error_message(f"{folder}/sub")
    assert "no file matches" in error_message(f"{folder}/none.txt")
    assert "no file matches" in error_message(f"{folder}/*.json")


def test_stamp_changes_when_a_file_is_written_again(memory, tmp_path):
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


def test_errors_of_a_remote_file_system_become_one_line():
    assert "cannot read nosuch://bucket/a.txt" in error_message("nosuch://bucket/a.txt")
    with pytest.raises(InputError, match="cannot read memory://none/a.txt"):
        size_and_stamp("memory://none/a.txt")
    with pytest.raises(InputError, match="cannot read memory://none/a.txt"), open_bytes("memory://none/a.txt"):
        pass


def test_missing_library_of_a_bucket_is_named():
    if importlib.util.find_spec("gcsfs"):
        pytest.skip("gcsfs is installed")
    assert "pip install 'spanbert_jax[gcs]'" in error_message("gs://bucket/*.txt")
