"""Lines, plain and compressed, and every problem that a line can have."""

import pytest

from spanbert_jax.data.sources import lines as lines_module
from spanbert_jax.data.sources import problems as problems_module
from spanbert_jax.data.sources.lines import lines, text_lines
from spanbert_jax.errors import InputError
from tests.data.sources.test_compression import COMPRESSORS, compress


def write(path, text):
    data = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(compress(data, path.suffix))
    return str(path)


def problem_message(path, begin=0):
    (problem,) = [line for _, line in lines(path, begin) if not isinstance(line, str)]
    return problem.message()


@pytest.mark.parametrize("suffix", ["", *COMPRESSORS])
def test_lines_with_their_offsets(suffix, tmp_path):
    path = write(tmp_path / f"a.txt{suffix}", "\ufeff One. \n\nTwo é.\r\nThree")
    assert list(lines(path)) == [(0, "One."), (10, ""), (11, "Two é."), (20, "Three")]


def test_reading_from_any_byte_yields_whole_lines(tmp_path):
    path = write(tmp_path / "a.txt", "ab\n\ncd\ne")
    all_lines = list(lines(path))
    for begin in range(10):
        assert list(lines(path, begin)) == [(offset, line) for offset, line in all_lines if offset >= begin]


@pytest.mark.parametrize("suffix", ["", *COMPRESSORS])
def test_invalid_utf8_is_reported_with_file_line_and_byte(suffix, tmp_path):
    data = "Fine é.\n\nAlso ".encode() + b"\xe9t\xe9.\nFine again."
    path = write(tmp_path / f"latin.txt{suffix}", data)
    byte = data.index(bytes([0xE9, 0x74]))
    assert problem_message(path) == f"{path}, line 3: byte {byte} is 0xe9, not UTF-8"
    assert [line for _, line in lines(path) if isinstance(line, str)] == ["Fine é.", "", "Fine again."]
    with pytest.raises(InputError, match=f"^corpus: {path}, line 3: byte {byte} is 0xe9, not UTF-8; convert [^\n]*$"):
        list(text_lines(path))


def test_reported_line_is_right_from_within_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(lines_module, "CHUNK_BYTES", 7)
    monkeypatch.setattr(problems_module, "CHUNK_BYTES", 7)  # lines are counted in several chunks
    data = b"a line\n" * 100 + b"bad \xff\n"
    for begin in (0, 1, 300, 693, 694, 700):
        assert "line 101: byte 704 is 0xff" in problem_message(write(tmp_path / "a.txt", data), begin)


def test_reported_byte_counts_the_byte_order_mark(tmp_path):
    assert "line 1: byte 4 is 0xff" in problem_message(write(tmp_path / "a.txt", b"\xef\xbb\xbfx\xff\n"))


def test_zero_bytes_are_reported(tmp_path):
    assert "line 2: byte 6 is zero" in problem_message(write(tmp_path / "a.txt", b"text\nx\0y"))


def test_too_long_lines_are_reported_and_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr(lines_module, "MAX_LINE_BYTES", 10)
    assert [line for _, line in lines(write(tmp_path / "a.txt", "ok\n123456789\n"))] == ["ok", "123456789"]
    path = write(tmp_path / "a.txt", "ok\n" + "1234567890" * 5 + "\nfine\n")
    assert "line 2: longer" in problem_message(path)
    assert [(offset, line) for offset, line in lines(path) if isinstance(line, str)] == [(0, "ok"), (54, "fine")]


def test_missing_files_are_refused(tmp_path):
    for name in ("a.txt", "a.txt.gz"):
        with pytest.raises(InputError, match="cannot read"):
            list(lines(str(tmp_path / name)))
