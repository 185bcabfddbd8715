"""Lines, plain and packed, and every way a file can be wrong."""

import bz2
import gzip
import lzma

import pytest

from spanbert_jax.data.sources import lines as module
from spanbert_jax.data.sources.lines import lines
from spanbert_jax.errors import InputError


def zst(data):
    pyarrow = pytest.importorskip("pyarrow", reason="packs and unpacks .zst; in the extra [prepare]")
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


PACKERS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zst}


def write(path, text):
    data = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(PACKERS.get(path.suffix, bytes)(data))
    return str(path)


def refusal(path, begin=0):
    with pytest.raises(InputError) as error:
        list(lines(path, begin))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("suffix", ["", *PACKERS])
def test_lines_with_their_bytes(suffix, tmp_path):
    path = write(tmp_path / f"a.txt{suffix}", "\ufeff One. \n\nTwo é.\r\nThree")
    assert list(lines(path)) == [(0, "One."), (10, ""), (11, "Two é."), (20, "Three")]


def test_from_a_byte_on_only_whole_lines(tmp_path):
    path = write(tmp_path / "a.txt", "ab\n\ncd\ne")
    whole = list(lines(path))
    for begin in range(10):
        assert list(lines(path, begin)) == [(address, line) for address, line in whole if address >= begin]


@pytest.mark.parametrize("suffix", ["", *PACKERS])
def test_bad_utf8_is_said_with_file_line_and_byte(suffix, tmp_path):
    data = "Fine é.\n\nAlso ".encode() + b"\xe9t\xe9.\n"
    message = refusal(write(tmp_path / f"latin.txt{suffix}", data))
    assert f"latin.txt{suffix}, line 3, byte {data.index(bytes([0xE9, 0x74]))}: 0xe9" in message


def test_the_line_is_right_also_from_the_middle_of_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 7)  # more than one chunk is counted
    data = b"a line\n" * 100 + b"bad \xff\n"
    for begin in (0, 1, 300, 693, 694, 700):
        assert "line 101, byte 704: 0xff" in refusal(write(tmp_path / "a.txt", data), begin)


def test_byte_of_bad_utf8_after_a_byte_order_mark(tmp_path):
    assert "line 1, byte 4: 0xff" in refusal(write(tmp_path / "a.txt", b"\xef\xbb\xbfx\xff\n"))


def test_refuses_binary_and_utf16(tmp_path):
    assert "line 2, byte 6: zero" in refusal(write(tmp_path / "a.bin", b"text\nx\0y"))
    assert "line 1, byte " in refusal(write(tmp_path / "utf16.txt", "text\n".encode("utf-16")))


@pytest.mark.parametrize("suffix", PACKERS)
def test_refuses_damaged_archives(suffix, tmp_path):
    path = tmp_path / f"a.txt{suffix}"
    write(path, b"".join(b"some text %d\n" % (i * i) for i in range(5000)))
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:-1], b"not an archive"):
        path.write_bytes(damaged)
        assert f"a.txt{suffix} is a damaged {suffix}" in refusal(str(path))


def test_refuses_endless_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_LINE_BYTES", 10)
    assert [line for _, line in lines(write(tmp_path / "a.txt", "ok\n123456789\n"))] == ["ok", "123456789"]
    assert "line 2: longer" in refusal(write(tmp_path / "a.txt", "ok\n1234567890\n"))


def test_a_file_that_is_gone(tmp_path):
    assert "cannot read" in refusal(str(tmp_path / "a.txt"))
    assert "cannot read" in refusal(str(tmp_path / "a.txt.gz"))
