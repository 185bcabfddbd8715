"""Folders and files appear complete, or leave nothing behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from spanbert_jax.errors import InputError
from spanbert_jax.folders import atomic_file, atomic_folder, publish_file, replace_file, temporary_folder

ROOT = Path(__file__).parents[1]


def test_a_temporary_folder_that_stays_empty_is_removed(tmp_path):
    (tmp_path / "a").mkdir()
    with temporary_folder(tmp_path / "a" / "b" / "c"):
        assert (tmp_path / "a" / "b" / "c").is_dir()
    assert os.listdir(tmp_path / "a") == []
    with temporary_folder(tmp_path / "a"):
        pass
    assert os.listdir(tmp_path) == ["a"]  # it existed before


def test_a_temporary_folder_that_is_used_stays(tmp_path):
    with pytest.raises(KeyError), temporary_folder(tmp_path / "a" / "b"):
        (tmp_path / "a" / "file").write_text("")
        raise KeyError
    assert os.listdir(tmp_path) == ["a"] and os.listdir(tmp_path / "a") == ["file"]


def test_an_atomic_folder_appears_complete(tmp_path):
    with atomic_folder(tmp_path / "a" / "b") as temporary:
        (temporary / "file").write_text("text")
        assert not (tmp_path / "a" / "b").exists()
    assert os.listdir(tmp_path / "a") == ["b"] and (tmp_path / "a" / "b" / "file").read_text() == "text"
    (tmp_path / "empty").mkdir()
    with atomic_folder(tmp_path / "empty") as temporary:
        (temporary / "file").write_text("text")
    assert os.listdir(tmp_path / "empty") == ["file"]


def test_an_atomic_folder_leaves_nothing_behind_after_an_error(tmp_path):
    with pytest.raises(KeyError), atomic_folder(tmp_path / "a" / "b") as temporary:
        (temporary / "file").write_text("text")
        raise KeyError
    assert os.listdir(tmp_path) == []


def test_an_atomic_folder_overwrites_nothing(tmp_path):
    (tmp_path / "file").write_text("precious")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("precious")
    for name in ("file", "folder"):
        with pytest.raises(InputError, match="already"), atomic_folder(tmp_path / name):
            pytest.fail("the block began")
    with pytest.raises(InputError, match="cannot write"), atomic_folder(tmp_path / "file" / "b"):
        pytest.fail("the block began")
    with pytest.raises(InputError, match="already"), atomic_folder(tmp_path / "raced") as temporary:
        (temporary / "file").write_text("slower")
        (tmp_path / "raced").mkdir()
        (tmp_path / "raced" / "file").write_text("faster")
    assert (tmp_path / "raced" / "file").read_text() == "faster"
    assert sorted(os.listdir(tmp_path)) == ["file", "folder", "raced"]


@pytest.mark.parametrize("write", [atomic_file, replace_file])
@pytest.mark.parametrize("mode, old, new", [("w", "old", "né\n"), ("wb", b"old", b"n\xe9\r\n")])
def test_a_file_is_replaced_when_it_is_complete(write, mode, old, new, tmp_path):
    path = tmp_path / "a"

    def content():
        return path.read_bytes() if mode == "wb" else path.read_text(encoding="utf-8")

    path.write_bytes(b"old")
    with write(path, mode) as file:
        file.write(new)
        assert content() == old
    assert content() == new and os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("write", [atomic_file, replace_file])
def test_a_file_leaves_nothing_behind_after_an_error(write, tmp_path):
    with pytest.raises(KeyError), write(tmp_path / "a") as file:
        file.write("half")
        raise KeyError
    assert os.listdir(tmp_path) == []


def test_the_temporary_name_of_a_file_with_one_writer_is_always_the_same(tmp_path):
    (tmp_path / ".a").write_text("left by a killed writer")
    with replace_file(tmp_path / "a", unique=False) as file:
        file.write("new")
        assert os.listdir(tmp_path) == [".a"]
    assert os.listdir(tmp_path) == ["a"] and (tmp_path / "a").read_text() == "new"


def test_a_file_that_cannot_be_written_is_reported_before_the_block(tmp_path):
    for path in (tmp_path / "absent" / "a", tmp_path):
        with pytest.raises(InputError, match=f"cannot write {path}: "), atomic_file(path):
            pytest.fail("the block began")
    with pytest.raises(OSError), replace_file(tmp_path / "absent" / "a"):
        pytest.fail("the block began")


def test_a_path_that_is_not_a_regular_file_is_written_in_place(tmp_path):
    (tmp_path / "link").symlink_to("/dev/null")
    with atomic_file(tmp_path / "link") as file:
        file.write("text")
    assert (tmp_path / "link").is_symlink() and os.listdir(tmp_path) == ["link"]


def test_a_pipe_is_written_in_place():
    program = (
        "from pathlib import Path; from spanbert_jax.folders import atomic_file\n"
        "with atomic_file(Path('/dev/stdout')) as file: file.write('text')"
    )
    command = [sys.executable, "-c", program]
    process = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert (process.stdout, process.stderr) == ("text", "")


@pytest.mark.parametrize("links", [True, False])
def test_the_first_file_of_a_name_stays(tmp_path, links, monkeypatch):
    def refuse(*_):
        raise PermissionError("no hard links here")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "file"
    for content in ("first", "second"):
        temporary = tmp_path / f".{content}"
        temporary.write_text(content)
        publish_file(temporary, path)
        assert path.read_text() == "first" and os.listdir(tmp_path) == ["file"]
    (tmp_path / ".third").write_text("third")
    with pytest.raises(OSError):
        publish_file(tmp_path / ".third", tmp_path / "missing" / "file")
    assert os.listdir(tmp_path) == ["file"]
