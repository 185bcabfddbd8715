"""Folders come into being whole, or leave no trace."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from spanbert_jax.errors import InputError
from spanbert_jax.folders import made_for_now, new_file, new_folder

ROOT = Path(__file__).parents[1]


def test_what_was_made_and_stayed_empty_goes_again(tmp_path):
    (tmp_path / "a").mkdir()
    with made_for_now(tmp_path / "a" / "b" / "c"):
        assert (tmp_path / "a" / "b" / "c").is_dir()
    assert os.listdir(tmp_path / "a") == []
    with made_for_now(tmp_path / "a"):
        pass
    assert os.listdir(tmp_path) == ["a"]  # it was there before


def test_what_is_in_use_stays(tmp_path):
    with pytest.raises(KeyError), made_for_now(tmp_path / "a" / "b"):
        (tmp_path / "a" / "file").write_text("")
        raise KeyError
    assert os.listdir(tmp_path) == ["a"] and os.listdir(tmp_path / "a") == ["file"]


def test_a_new_folder_appears_whole(tmp_path):
    with new_folder(tmp_path / "a" / "b") as temporary:
        (temporary / "file").write_text("text")
        assert not (tmp_path / "a" / "b").exists()
    assert os.listdir(tmp_path / "a") == ["b"] and (tmp_path / "a" / "b" / "file").read_text() == "text"
    (tmp_path / "empty").mkdir()
    with new_folder(tmp_path / "empty") as temporary:
        (temporary / "file").write_text("text")
    assert os.listdir(tmp_path / "empty") == ["file"]


def test_or_not_at_all(tmp_path):
    with pytest.raises(KeyError), new_folder(tmp_path / "a" / "b") as temporary:
        (temporary / "file").write_text("text")
        raise KeyError
    assert os.listdir(tmp_path) == []


def test_and_never_over_something(tmp_path):
    (tmp_path / "file").write_text("precious")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("precious")
    for name in ("file", "folder"):
        with pytest.raises(InputError, match="already"), new_folder(tmp_path / name):
            pytest.fail("entered")
    with pytest.raises(InputError, match="cannot write"), new_folder(tmp_path / "file" / "b"):
        pytest.fail("entered")
    with pytest.raises(InputError, match="already"), new_folder(tmp_path / "raced") as temporary:
        (temporary / "file").write_text("slower")
        (tmp_path / "raced").mkdir()
        (tmp_path / "raced" / "file").write_text("faster")
    assert (tmp_path / "raced" / "file").read_text() == "faster"
    assert sorted(os.listdir(tmp_path)) == ["file", "folder", "raced"]


def test_a_new_file_appears_whole(tmp_path):
    (tmp_path / "a").write_text("old")
    with new_file(tmp_path / "a") as file:
        file.write("new")
        assert (tmp_path / "a").read_text() == "old"
    assert (tmp_path / "a").read_text() == "new" and os.listdir(tmp_path) == ["a"]


def test_a_file_that_nothing_came_of_leaves_no_trace(tmp_path):
    with pytest.raises(KeyError), new_file(tmp_path / "a") as file:
        file.write("half")
        raise KeyError
    assert os.listdir(tmp_path) == []


def test_a_file_that_cannot_be_written_is_told_before_the_work(tmp_path):
    for path in (tmp_path / "absent" / "a", tmp_path):
        with pytest.raises(InputError, match=f"cannot write {path}: "), new_file(path):
            pytest.fail("the block began")


def test_what_is_no_plain_file_stays_what_it_is(tmp_path):
    (tmp_path / "link").symlink_to("/dev/null")
    with new_file(tmp_path / "link") as file:
        file.write("gone")
    assert (tmp_path / "link").is_symlink() and os.listdir(tmp_path) == ["link"]


def test_a_pipe_is_written_to():
    process = subprocess.run(
        [
            sys.executable,
            "-c",
            "from pathlib import Path; from spanbert_jax.folders import new_file\n"
            "with new_file(Path('/dev/stdout')) as file: file.write('told')",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
    )
    assert (process.stdout, process.stderr) == ("told", "")
