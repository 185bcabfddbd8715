"""scripts/prepare_data.py: every kind of input, and every error in one line."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from spanbert_jax.data.store import open_store
from tests.data.preparation.settings_for_tests import FLAGS

SCRIPT = Path(__file__).parents[3] / "scripts" / "prepare_data.py"
TEXT = "The cats sat on the mat.\nIt was late.\n\nAnother document, with more words in it than the first.\n" * 3


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder of a user, with texts and other files."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(TEXT)
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "table.csv").write_text("text\nthe cat\n")
    (tmp_path / "binary.txt").write_bytes(bytes(range(256)))
    (tmp_path / "latin.txt").write_bytes("ok\ncafé\n".encode("latin-1"))
    (tmp_path / "bad.jsonl").write_text('{"text": "the cat"}\n{"body": "the cat"}\n')
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 this is none")
    (tmp_path / "truncated.txt.gz").write_bytes(b"\x1f\x8b\x08\x00")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").write_text("precious")
    (tmp_path / "begun.partial").mkdir()
    (tmp_path / "begun.partial" / "thesis.tex").write_text("precious")
    return tmp_path


def run(*arguments) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["prepare_data.py", *FLAGS, "--valid_fraction=0", *arguments])
        with pytest.raises(SystemExit) as exited:
            runpy.run_path(str(SCRIPT), run_name="__main__")
    return exited.value.code or 0


def content(folder) -> dict:
    """Path -> bytes of each file, None of each folder."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


ERRORS = {
    "empty file": (["--input=empty.txt"], ["empty.txt"]),
    "empty file, strictly": (["--input=text.txt,empty.txt", "--strict"], ["empty.txt"]),
    "binary file": (["--input=binary.txt"], ["binary.txt", "line 1", "byte 0"]),
    "bad UTF-8": (["--input=latin.txt"], ["latin.txt", "line 2", "byte 6", "0xe9"]),
    "JSON Lines without the field": (
        ["--input=bad.jsonl", "--field=title"],
        ["bad.jsonl", "line 1", "'title'", "name the field with the text (--field)"],
    ),
    "JSON Lines without the field, strictly": (
        ["--input=bad.jsonl", "--strict"],
        ["bad.jsonl, line 2: no field 'text' (it has 'body'); name the field with the text (--field)"],
    ),
    "unknown format": (["--input=text.txt", "--format=csv"], ["format must be one of", "wiki", "'csv'"]),
    "table": (["--input=table.csv"], ["table.csv", "a table", "give its format, text (--format)"]),
    "unreadable Parquet": (["--input=bad.parquet"], ["bad.parquet"]),
    "truncated archive": (["--input=truncated.txt.gz"], ["truncated.txt.gz"]),
    "existing output": (["--input=text.txt", "--output=taken"], ["taken", "already"]),
    "foreign work folder": (["--input=text.txt", "--output=begun"], ["begun.partial", "thesis.tex"]),
    "output within a file": (["--input=text.txt", "--output=text.txt/store"], ["text.txt", "cannot write"]),
    "remote output": (["--input=text.txt", "--output=gs://bucket/store"], ["gs://bucket/store", "copy"]),
    "unknown Beam runner": (["--input=text.txt", "--runner=SteamRunner"], ["SteamRunner"]),
    "missing n-grams": (["--input=text.txt", "--ngrams=absent"], ["absent"]),
    "unknown tag": (["--input=text.txt", "--tags=verbs"], ["verbs"]),
}


@pytest.mark.parametrize("arguments, message", ERRORS.values(), ids=ERRORS)
def test_errors(arguments, message, folder, capfd):
    if "parquet" in str(arguments):
        pytest.importorskip("pyarrow", reason="needs the extra prepare")
    before = content(folder)
    capfd.readouterr()
    assert run("--output=out", *arguments) == 2
    lines = capfd.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("prepare_data.py: ") and all(word in lines[-1] for word in message), lines
    assert not any("Traceback" in line for line in lines)
    assert content(folder) == before


def test_unknown_tfds_data_set(folder, capfd):
    pytest.importorskip("tensorflow_datasets")
    assert run("--output=out", "--input=tfds:no_such_data_set", f"--data_dir={folder}/tfds") == 2
    assert "no_such_data_set" in capfd.readouterr().err.strip().splitlines()[-1]
    assert not (folder / "out").exists()


def test_a_missing_library_is_named(folder, capfd, monkeypatch):
    libraries = (("apache_beam", "--runner=DirectRunner", "[beam]"), ("rensa", "--dedup=near", "[prepare]"))
    for library, flag, extra in libraries:
        monkeypatch.setitem(sys.modules, library, None)
        assert run("--input=text.txt", "--output=out", flag) == 2
        assert extra in capfd.readouterr().err.strip().splitlines()[-1]
    assert not (folder / "out").exists() and not (folder / "out.partial").exists()


JSONL = "\n".join(json.dumps({"text": document, "id": 1}) for document in TEXT.split("\n\n"))


@pytest.mark.parametrize("name, text", [("text.txt", TEXT), ("text.jsonl", JSONL)])
def test_formats_and_report(name, text, folder, capfd):
    (folder / name).write_text(text)
    assert run(f"--input={name}", "--output=out") == 0
    printed = capfd.readouterr().out
    assert printed.startswith("vocabulary tiny: 4,096 tokens, cased (as its name says)\n") and "warning" not in printed
    assert "vocabulary of 4,096 tokens; 4 documents read, dropped: none" in printed
    assert "--config.data.store=out --config.data.vocab=store" in printed
    assert open_store(folder / "out").split("train").num_documents == 4


def test_text_of_another_script_is_warned_of(folder, capfd):
    (folder / "text.txt").write_text("Эти слова не из словаря\n", encoding="utf-8")
    assert run("--input=text.txt", "--output=out", "--lowercase=yes", "--strip_accents=no") == 0
    printed = capfd.readouterr().out
    assert (
        "vocabulary tiny: 4,096 tokens, uncased, accents kept (as required, although its name says otherwise)"
        in printed
    )
    assert "warning: 100.0% of the tokens of out are [UNK]" in printed


def test_advice_names_flags(folder, capfd):
    assert run("--input=text.txt", "--output=out", "--valid_fraction=1e-9") == 2
    assert "hold out a larger share than 1e-09, or 0 for none (--valid_fraction)" in capfd.readouterr().err


def test_what_is_skipped_is_printed(folder, capfd):
    assert run("--input=text.txt,empty.txt,bad.jsonl", "--output=out") == 0
    printed = capfd.readouterr().out
    assert "skipped 1 file without text: empty.txt: it is empty" in printed
    assert (
        "skipped 1 record without the field of the text: bad.jsonl, line 2: no field 'text' (it has 'body')" in printed
    )


def test_the_same_command_again_says_that_the_store_is_made(folder, capfd):
    assert run("--input=text.txt", "--output=out") == 0
    before = content(folder / "out")
    capfd.readouterr()
    assert run("--input=text.txt", "--output=out") == 0
    printed = capfd.readouterr().out
    assert "4 documents read" in printed and "made before with these settings, so nothing was done" in printed
    assert run("--input=text.txt", "--output=out", "--min_words=2") == 2
    assert (
        "out: there is a store at this path already, made otherwise: min_words was 0, now 2" in capfd.readouterr().err
    )
    assert content(folder / "out") == before


def test_tags_of_ngrams(folder):
    (folder / "ngrams.txt").write_text("the mat\nother document\n")
    assert run("--input=text.txt", "--output=out", "--ngrams=ngrams.txt") == 0
    store = open_store("out")
    split, tokens = store.split("train"), store.tokenizer().tokens
    assert split.tag_kinds == ("ngrams", "ngrams-begins")
    is_tagged = split.tags("ngrams", 0, split.num_tokens)
    ids = split.read(0, split.num_tokens)
    assert 0 < is_tagged.sum() < is_tagged.size
    assert {"the"} < {tokens[i] for i in ids[is_tagged]}


GERMAN = [
    "Der Fluß fließt über die Grüße der Müllerstochter.",
    "Größere Übungen fördern Gemüt und Körper.",
    "Zwölf Boxkämpfer jagen Viktor.",
]
CHINESE = [
    "学而时习之不亦说乎有朋自远方来不亦乐乎人不知而不愠不亦君子乎",
    "道可道非常道名可名非常名无名天地之始有名万物之母",
    "温故而知新可以为师矣",
]


@pytest.mark.parametrize("sentences", [GERMAN, CHINESE], ids=["German", "Chinese"])
def test_a_language_with_its_own_vocabulary(sentences, folder, capfd):
    draw = np.random.default_rng(0)
    documents = ["\n".join(draw.choice(sentences, 4)) for _ in range(40)]
    (folder / "text.txt").write_text("\n\n".join(documents), encoding="utf-8")
    assert run("--input=text.txt", "--output=out", "--train_vocab=200", "--unicode=NFC") == 0
    assert "--config.data.store=out --config.data.vocab=store" in capfd.readouterr().out
    store = open_store("out")
    split, tokenizer = store.split("train"), store.tokenizer()
    ids = split.read(0, split.num_tokens)
    assert not (ids == tokenizer.unk_id).any()
    first_sentence = documents[0].split("\n")[0]
    decoded = tokenizer.decode(ids[: split.sentence_offsets()[1]])
    assert decoded.replace(" ", "") == first_sentence.replace(" ", "")
