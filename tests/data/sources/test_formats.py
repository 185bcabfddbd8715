"""Formats of files: by suffix, by a look at the first bytes, and by hand."""

import bz2
import gzip
import json
import zipfile

import pytest

from spanbert_jax.data.sources import find_units
from spanbert_jax.data.sources.formats import FORMATS, TEXT, Format, formats_of, undivided
from spanbert_jax.errors import InputError
from tests.data.sources.test_wiki import TEXT as ARTICLES

TEXTS = ["The first document.\nIts second line.", 'Another "one" with {braces} and [brackets].']
DOCUMENTS = [text.split("\n") for text in TEXTS]
RECORDS = [{"url": "https://example.org", "text": text} for text in TEXTS]
LINES = "".join(json.dumps(record) + "\n" for record in RECORDS).encode()
ARRAY = json.dumps(RECORDS, indent=1).encode()
PLAIN = "\n\n".join(TEXTS).encode()


def read(path, format="auto", documents="blank"):
    found = find_units(str(path), "text", "train", "", documents, format)
    return [document for unit in found for document in unit.documents()]


def refusal(paths, format="auto"):
    with pytest.raises(InputError) as error:
        formats_of([str(path) for path in paths], format, "blank")
    assert error.value.setting == "format"
    return str(error.value)


@pytest.mark.parametrize(
    "name, data",
    [
        ("c4-train.00000-of-01024.json.gz", gzip.compress(LINES, mtime=0)),
        ("part-00000-1c2f.json", LINES),  # of Spark
        ("part-00000-1c2f.json.bz2", bz2.compress(LINES)),
        ("A.JSON", LINES),
        ("a.jsonl.GZ", gzip.compress(LINES, mtime=0)),
        ("a.JsonL", LINES),
        ("a.ndjson", LINES),
        ("array.json", ARRAY),
        ("array.json.gz", gzip.compress(ARRAY, mtime=0)),
        ("array.jsonl", b"\xef\xbb\xbf \n" + ARRAY),
        ("a.txt", PLAIN),
        ("A.TXT.GZ", gzip.compress(PLAIN, mtime=0)),
        ("no_suffix", PLAIN),
        ("novel.part1", PLAIN),
        ("a.md", PLAIN),
    ],
)
def test_suffixes_and_content(name, data, tmp_path):
    (tmp_path / name).write_bytes(data)
    assert read(tmp_path / name) == DOCUMENTS


def test_parquet_in_capitals(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="needs the extra prepare")
    import pyarrow.parquet as pq

    pq.write_table(pyarrow.table({"text": TEXTS}), tmp_path / "A.PARQUET")
    assert read(tmp_path / "A.PARQUET") == DOCUMENTS
    (tmp_path / "A.PARQUET").rename(tmp_path / "a")
    assert "a: Parquet, not plain text; give its format, parquet" in refusal([tmp_path / "a"])
    assert read(tmp_path / "a", "parquet") == DOCUMENTS


def test_output_of_wikiextractor(tmp_path):
    (tmp_path / "AA").mkdir()
    (tmp_path / "AB").mkdir()
    (tmp_path / "AA" / "wiki_00").write_text(ARTICLES)
    (tmp_path / "AB" / "wiki_00.bz2").write_bytes(bz2.compress(ARTICLES.encode()))
    (tmp_path / "AB" / "wiki_01").write_bytes(LINES)  # of --json
    articles, records = f"{tmp_path}/A?/wiki_00*", tmp_path / "AB" / "wiki_01"
    with pytest.raises(InputError, match=r"wiki_00, [^ ]*wiki_00.bz2: output of WikiExtractor.*give its format, wiki"):
        read(articles)
    assert [document[0] for document in read(articles, "wiki")] == ["Anarchism", "Albedo", "A"] * 2
    assert refusal([records]).endswith("AB/wiki_01: JSON Lines, not plain text; give its format, jsonl")
    assert read(records, "jsonl") == DOCUMENTS


@pytest.mark.parametrize(
    "data, what",
    [
        (LINES, "JSON Lines, not plain text; give its format, jsonl"),
        (b'\xef\xbb\xbf\n{ "a \\" b" : 1}', "JSON Lines"),
        (ARRAY, "a JSON array, not plain text; give its format, json"),
        (b'[{"text": "x"}]', "a JSON array"),
        (b'\n<doc id="12" url="" title="">', "output of WikiExtractor, not plain text; give its format, wiki"),
        (b"<!DOCTYPE html>", "markup; extract its text; if it is plain text all the same, give its format, text"),
        (b"%PDF-1.7\n", "a PDF"),
        (gzip.compress(PLAIN, mtime=0), "compressed; add .gz"),
        (PLAIN.decode().encode("utf-16"), "UTF-16; convert it (iconv -f UTF-16 -t UTF-8)"),
        (PLAIN.decode().encode("utf-16-le"), "binary data"),
    ],
)
@pytest.mark.parametrize("name", ["a.txt", "a", "a.txt.gz"])
def test_what_begins_as_no_text_does_is_refused(name, data, what, tmp_path):
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    assert f"corpus: {tmp_path / name}: {what}" in refusal([tmp_path / name])


@pytest.mark.parametrize("text", ["{curly} text", "[1] a note", "{{Infobox}}", '"{"', "<b>", "a\0b" + "c" * 100, ""])
def test_what_merely_looks_odd_is_plain_text(text, tmp_path):
    (tmp_path / "a.txt").write_text(text)
    assert formats_of([str(tmp_path / "a.txt")], "auto", "line") == ["line"]


@pytest.mark.parametrize(
    "name, what",
    [
        ("a.csv", "a table; write its column of text to JSON Lines or Parquet"),
        ("a.TSV.gz", "a table"),
        ("a.pdf", "a formatted document; extract its text"),
        ("a.docx", "a formatted document"),
        ("a.html", "markup; extract its text"),
        (
            "enwiki-latest-pages-articles.xml.bz2",
            "markup; extract its text (of a dump of Wikipedia, with WikiExtractor)",
        ),
        ("a.zip", "an archive; unpack it"),
        ("a.tar.gz", "an archive"),
        ("a.tgz", "an archive"),
        ("a.png", "an image, sound or film; leave it out"),
        ("a.JPG", "an image"),
        ("a.bin", "binary data; write its text"),
        ("a.npy", "binary data"),
        ("a.pt", "binary data"),
        ("a.txt.lz4", "compressed in an unknown way"),
    ],
)
def test_names_of_other_kinds_are_refused_without_reading(name, what):
    assert f"corpus: absent/{name}: {what}" in refusal([f"absent/{name}"])


def test_all_files_are_refused_at_once_a_line_for_each_reason(tmp_path):
    for name in ("a.txt", "b.csv", "c.csv", "d.csv", "e.csv", "f.csv", "g.pdf", "h"):
        (tmp_path / name).write_bytes(LINES if name == "h" else PLAIN)
    lines = refusal(sorted(tmp_path.iterdir())).replace(f"{tmp_path}/", "").splitlines()
    assert [line.split(";")[0] for line in lines] == [
        "corpus: b.csv, c.csv, d.csv and 2 more: a table",
        "corpus: g.pdf: a formatted document",
        "corpus: h: JSON Lines, not plain text",
    ]


def test_all_damaged_archives_are_named_at_once(tmp_path):
    for name in ("a.txt.gz", "b.json.gz", "c.txt.gz"):
        (tmp_path / name).write_bytes(gzip.compress(LINES)[:9] if name < "c" else gzip.compress(PLAIN))
    with pytest.raises(InputError) as error:
        read(f"{tmp_path}/*")
    assert [line.split(" is ")[0] for line in str(error.value).splitlines()] == [
        f"corpus: {tmp_path}/a.txt.gz",
        f"corpus: {tmp_path}/b.json.gz",
    ]


def test_a_record_over_several_lines_is_refused(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(RECORDS[0], indent=1))
    assert "a.json: a record over several lines; put one record on each line (jq -c .)" in refusal(
        [tmp_path / "a.json"]
    )


def test_a_format_by_hand_overrules_name_and_content(tmp_path):
    (tmp_path / "a.csv").write_bytes(PLAIN)
    assert read(tmp_path / "a.csv", TEXT) == DOCUMENTS
    (tmp_path / "a.txt").write_bytes(LINES)
    assert read(tmp_path / "a.txt", TEXT, "line") == [[line] for line in LINES.decode().splitlines()]
    assert read(tmp_path / "a.txt", "jsonl") == DOCUMENTS
    (tmp_path / "a.txt").write_bytes(ARRAY)
    assert read(tmp_path / "a.txt", "json") == DOCUMENTS


def test_a_format_from_outside_is_one_line(tmp_path, monkeypatch):
    def members(path, begin, end, field, report):
        with zipfile.ZipFile(path) as archive:
            yield from (archive.read(name).decode().split("\n") for name in sorted(archive.namelist()))

    monkeypatch.setitem(FORMATS, "bundle", Format(undivided, members, suffixes=(".bundle",)))
    with zipfile.ZipFile(tmp_path / "a.bundle", "w") as archive:
        for number, text in enumerate(TEXTS):
            archive.writestr(str(number), text)
    assert read(tmp_path / "a.bundle") == read(tmp_path / "a.bundle", "bundle") == DOCUMENTS
