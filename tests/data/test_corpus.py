"""Reading documents: formats, splits, and every way a file can be wrong."""

import gzip
import lzma

import pytest

from spanbert_jax.data import corpus
from spanbert_jax.data.corpus import read_documents
from spanbert_jax.errors import InputError


def write(path, text):
    data = text if isinstance(text, bytes) else text.encode()
    path.write_bytes({".gz": gzip.compress, ".xz": lzma.compress}.get(path.suffix, bytes)(data))
    return str(path)


def documents(source, split="train", valid_fraction=0.0):
    return list(read_documents(source, split, valid_fraction))


def refusal(source, split="train", valid_fraction=0.0):
    with pytest.raises(InputError) as error:
        documents(source, split, valid_fraction)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("suffix", [".txt", ".txt.gz", ".txt.xz"])
def test_blank_lines_part_documents(suffix, tmp_path):
    text = "\ufeff\n\n One. \nTwo é.\r\n \t\n\nThree\n\n\nFour"
    assert documents(write(tmp_path / f"a{suffix}", text)) == [["One.", "Two é."], ["Three"], ["Four"]]


def test_end_of_file_ends_a_document(tmp_path):
    first, second = write(tmp_path / "a.txt", "one"), write(tmp_path / "b.txt", "two\n")
    assert documents(f"{first}, {second}") == [["one"], ["two"]]


def test_globs_are_sorted_and_each_file_is_read_once(tmp_path):
    for name in "cab":
        write(tmp_path / f"{name}.txt", name)
    write(tmp_path / "d.txt.gz", "d")
    assert documents(f"{tmp_path}/b.txt,{tmp_path}/*.txt,{tmp_path}/d*") == [["b"], ["a"], ["c"], ["d"]]
    (tmp_path / "odd[1].txt").write_text("odd")
    assert documents(f"{tmp_path}/odd[1].txt") == [["odd"]]  # a path that exists is no glob


def test_split_is_a_stable_partition_by_text(tmp_path):
    texts = [f"document {i}" for i in range(2000)]
    path = write(tmp_path / "a.txt", "\n\n".join(texts))
    back = write(tmp_path / "b.txt", "\n\n".join(reversed(texts)))
    train, valid = documents(path, "train", 0.1), documents(path, "valid", 0.1)
    assert sorted(train + valid) == sorted([text] for text in texts)
    assert 140 < len(valid) < 260  # 200 expected, standard deviation 13
    assert documents(back, "valid", 0.1) == valid[::-1]
    assert [document for document in documents(path, "valid", 0.2) if document in valid] == valid  # more never takes one out
    assert valid[0] == ["document 40"]  # the hash itself must not change: it decides what old checkpoints have seen


def test_fraction_zero_holds_nothing_out(tmp_path):
    path = write(tmp_path / "a.txt", "one\n\ntwo")
    assert documents(path, "valid", 0.0) == []
    assert len(documents(path, "train", 0.0)) == 2


def test_embedded_needs_no_fraction():
    assert documents("embedded", "valid", 0.0) == documents("embedded", "valid", 0.9) != []
    assert all(line and line == line.strip() for document in documents("embedded", "valid") for line in document)


def test_refuses_a_split_without_documents(tmp_path):
    path = write(tmp_path / "a.txt", "only")
    assert "data.valid_fraction" in refusal(path, "valid", 1e-9)
    assert "none of the 1 documents" in refusal(path, "train", 1.0)


def test_refuses_missing_and_empty_sources(tmp_path):
    assert "nothing*.txt" in refusal(f"{tmp_path}/nothing*.txt")
    assert "is empty" in refusal(" , ")
    assert "is a folder" in refusal(str(tmp_path))
    for text in ("", " \n\n\t\n"):
        assert "blank.txt holds no text" in refusal(write(tmp_path / "blank.txt", text))


@pytest.mark.parametrize("suffix", [".txt", ".txt.gz"])
def test_refusal_of_bad_utf8_names_file_line_and_byte(suffix, tmp_path):
    data = "Fine é.\n\nAlso ".encode() + b"\xe9t\xe9.\n"
    message = refusal(write(tmp_path / f"latin{suffix}", data))
    assert f"latin{suffix}, line 3, byte {data.index(bytes([0xe9, 0x74]))}: 0xe9" in message


def test_byte_of_bad_utf8_after_a_byte_order_mark(tmp_path):
    assert "line 1, byte 4: 0xff" in refusal(write(tmp_path / "a.txt", b"\xef\xbb\xbfx\xff\n"))


def test_refuses_binary_and_utf16(tmp_path):
    assert "line 2, byte 6: zero" in refusal(write(tmp_path / "a.bin", b"text\nx\0y"))
    assert "is not UTF-8" in refusal(write(tmp_path / "utf16.txt", "text\n".encode("utf-16")))


@pytest.mark.parametrize("suffix", [".gz", ".xz"])
def test_refuses_damaged_archives(suffix, tmp_path):
    path = tmp_path / f"a.txt{suffix}"
    write(path, "some text\n" * 1000)
    whole = path.read_bytes()
    for damaged in (whole[:len(whole) // 2], b"not an archive", whole[:20] + bytes(20) + whole[40:]):
        path.write_bytes(damaged)
        assert f"a.txt{suffix} is a damaged {suffix}" in refusal(str(path))


def test_refuses_endless_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "MAX_LINE_BYTES", 10)
    assert documents(write(tmp_path / "a.txt", "ok\n123456789\n")) == [["ok", "123456789"]]
    assert "line 2: longer" in refusal(write(tmp_path / "a.txt", "ok\n1234567890\n"))


def test_reading_is_lazy(tmp_path):
    path = write(tmp_path / "a.txt", b"one\n\ntwo\n\n\xff")
    reader = read_documents(path, "train", 0.0)
    assert [next(reader), next(reader)] == [["one"], ["two"]]
    with pytest.raises(InputError):
        next(reader)
