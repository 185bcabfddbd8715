"""Compressed files: their suffixes, their bytes, and damage."""

import bz2
import gzip
import lzma

import pytest

from spanbert_jax.data.sources.compression import num_byte_offsets, open_decompressed, split_suffix
from spanbert_jax.errors import InputError


def compress_zst(data):
    pyarrow = pytest.importorskip("pyarrow", reason="needs the extra prepare")
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


COMPRESSORS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": compress_zst}


def compress(data, suffix):
    return COMPRESSORS.get(suffix, bytes)(data)


@pytest.mark.parametrize(
    "name, suffixes",
    [
        ("a.txt", (".txt", "")),
        ("c4-train.00000-of-01024.json.gz", (".json", ".gz")),
        ("folder.d/A.JSONL.GZ", (".jsonl", ".gz")),
        ("gs://bucket/a.Txt.zst", (".txt", ".zst")),
        ("AA/wiki_00", ("", "")),
        ("AA/wiki_00.bz2", ("", ".bz2")),
    ],
)
def test_suffixes_in_any_case(name, suffixes):
    assert split_suffix(name) == suffixes


def test_capital_suffixes_are_decompressed(tmp_path):
    path = tmp_path / "A.TXT.GZ"
    path.write_bytes(gzip.compress(b"text"))
    with open_decompressed(str(path)) as file:
        assert file.read() == b"text"


def test_ranges_of_compressed_files_begin_at_their_first_byte():
    assert num_byte_offsets("a.txt", 1000) == 1000
    assert num_byte_offsets("a.jsonl.GZ", 1000) == 1


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_damaged_archives_are_refused(suffix, tmp_path):
    path = tmp_path / f"a.txt{suffix}"
    archive = compress(b"".join(b"some text %d\n" % (i * i) for i in range(5000)), suffix)
    for damaged in (archive[: len(archive) // 2], archive[:-1], b"not an archive"):
        path.write_bytes(damaged)
        with (
            pytest.raises(InputError, match=f"a.txt{suffix} is a damaged {suffix}"),
            open_decompressed(str(path)) as file,
        ):
            file.read()
