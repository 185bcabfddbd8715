"""Lines, plain and compressed, and every error that a file can have."""

import bz2
import gzip
import lzma

import pytest

from spanbert_jax.data.sources import lines as lines_module
from spanbert_jax.data.sources.lines import lines, num_byte_offsets
from spanbert_jax.errors import InputError


def compress_zst(data):
    pyarrow = pytest.importorskip("pyarrow", reason="needs the extra prepare")
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


COMPRESSORS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": compress_zst}


def write(path, text):
    data = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(COMPRESSORS.get(path.suffix, bytes)(data))
    return str(path)


def error_message(path, begin=0):
    with pytest.raises(InputError) as error:
        list(lines(path, begin))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("suffix", ["", *COMPRESSORS])
def test_lines_with_their_offsets(suffix, tmp_path):
    path = write(tmp_path / f"a.txt{suffix}", "\ufeff One. \n\nTwo é.\r\nThree")
    assert list(lines(path)) == [(0, "One."), (10, ""), (11, "Two é."), (20, "Three")]


def test_reading_from_any_byte_yields_whole_lines(tmp_path):
    path = write(tmp_path / "a.txt", "ab\n\ncd\ne")
    all_lines = list(lines(path))
    for begin in range(10):
        assert list(lines(path, begin)) == [(offset, line) for offset, line in all_lines if offset >= begin]


def test_ranges_of_compressed_files_begin_at_their_first_byte():
    assert num_byte_offsets("a.txt", 1000) == 1000
    assert num_byte_offsets("a.jsonl.gz", 1000) == 1


@pytest.mark.parametrize("suffix", ["", *COMPRESSORS])
def test_invalid_utf8_is_reported_with_file_line_and_byte(suffix, tmp_path):
    data = "Fine é.\n\nAlso ".encode() + b"\xe9t\xe9.\n"
    message = error_message(write(tmp_path / f"latin.txt{suffix}", data))
    assert f"latin.txt{suffix}, line 3, byte {data.index(bytes([0xE9, 0x74]))}: 0xe9" in message


def test_reported_line_is_right_from_within_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(lines_module, "CHUNK_BYTES", 7)  # lines are counted in several chunks
    data = b"a line\n" * 100 + b"bad \xff\n"
    for begin in (0, 1, 300, 693, 694, 700):
        assert "line 101, byte 704: 0xff" in error_message(write(tmp_path / "a.txt", data), begin)


def test_reported_byte_counts_the_byte_order_mark(tmp_path):
    assert "line 1, byte 4: 0xff" in error_message(write(tmp_path / "a.txt", b"\xef\xbb\xbfx\xff\n"))


def test_binary_and_utf16_are_refused(tmp_path):
    assert "line 2, byte 6: zero" in error_message(write(tmp_path / "a.bin", b"text\nx\0y"))
    assert "line 1, byte " in error_message(write(tmp_path / "utf16.txt", "text\n".encode("utf-16")))


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_damaged_archives_are_refused(suffix, tmp_path):
    path = tmp_path / f"a.txt{suffix}"
    write(path, b"".join(b"some text %d\n" % (i * i) for i in range(5000)))
    archive = path.read_bytes()
    for damaged in (archive[: len(archive) // 2], archive[:-1], b"not an archive"):
        path.write_bytes(damaged)
        assert f"a.txt{suffix} is a damaged {suffix}" in error_message(str(path))


def test_too_long_lines_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(lines_module, "MAX_LINE_BYTES", 10)
    assert [line for _, line in lines(write(tmp_path / "a.txt", "ok\n123456789\n"))] == ["ok", "123456789"]
    assert "line 2: longer" in error_message(write(tmp_path / "a.txt", "ok\n1234567890\n"))


def test_missing_files_are_refused(tmp_path):
    assert "cannot read" in error_message(str(tmp_path / "a.txt"))
    assert "cannot read" in error_message(str(tmp_path / "a.txt.gz"))
