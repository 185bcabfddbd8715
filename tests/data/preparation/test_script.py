"""scripts/prepare_data.py: every kind of input, and every mistake in one line."""

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
def world(tmp_path, monkeypatch):
    """A folder to work in."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(TEXT)
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "binary.txt").write_bytes(bytes(range(256)))
    (tmp_path / "latin.txt").write_bytes("ok\ncafé\n".encode("latin-1"))
    (tmp_path / "bad.jsonl").write_text('{"text": "the cat"}\n{"body": "the cat"}\n')
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 this is none")
    (tmp_path / "cut.txt.gz").write_bytes(b"\x1f\x8b\x08\x00")
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


def everything(folder) -> dict:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


MISTAKES = {
    "empty file": (["--input=text.txt,empty.txt"], ["empty.txt"]),
    "binary file": (["--input=binary.txt"], ["binary.txt", "line 1", "byte 0"]),
    "bad UTF-8": (["--input=latin.txt"], ["latin.txt", "line 2", "byte 6", "0xe9"]),
    "JSON Lines without the field": (["--input=bad.jsonl"], ["bad.jsonl", "line 2", "'text'"]),
    "unreadable Parquet": (["--input=bad.parquet"], ["bad.parquet"]),
    "cut archive": (["--input=cut.txt.gz"], ["cut.txt.gz"]),
    "output that is taken": (["--input=text.txt", "--output=taken"], ["taken", "already"]),
    "work folder that is none": (["--input=text.txt", "--output=begun"], ["begun.partial", "thesis.tex"]),
    "output that cannot be": (["--input=text.txt", "--output=text.txt/store"], ["text.txt", "cannot write"]),
    "output elsewhere": (["--input=text.txt", "--output=gs://bucket/store"], ["gs://bucket/store", "copy"]),
    "Beam runner that is none": (["--input=text.txt", "--runner=SteamRunner"], ["SteamRunner"]),
    "missing n-grams": (["--input=text.txt", "--ngrams=absent"], ["absent"]),
    "unknown tag": (["--input=text.txt", "--tags=verbs"], ["verbs"]),
}


@pytest.mark.parametrize("arguments, said", MISTAKES.values(), ids=MISTAKES)
def test_mistakes(arguments, said, world, capfd):
    if "parquet" in str(arguments):
        pytest.importorskip("pyarrow", reason="needs the extra prepare")
    before = everything(world)
    capfd.readouterr()
    assert run("--output=out", *arguments) == 2
    lines = capfd.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("prepare_data.py: ") and all(part in lines[-1] for part in said), lines
    assert not any("Traceback" in line for line in lines)
    assert everything(world) == before


def test_unknown_tfds(world, capfd):
    pytest.importorskip("tensorflow_datasets")
    assert run("--output=out", "--input=tfds:no_such_data_set", f"--data_dir={world}/tfds") == 2
    assert "no_such_data_set" in capfd.readouterr().err.strip().splitlines()[-1]
    assert not (world / "out").exists()


def test_a_missing_library_is_named(world, capfd, monkeypatch):
    for library, flag, extra in (
        ("apache_beam", "--runner=DirectRunner", "[beam]"),
        ("rensa", "--dedup=near", "[prepare]"),
    ):
        monkeypatch.setitem(sys.modules, library, None)
        assert run("--input=text.txt", "--output=out", flag) == 2
        assert extra in capfd.readouterr().err.strip().splitlines()[-1]
    assert not (world / "out").exists() and not (world / "out.partial").exists()


@pytest.mark.parametrize(
    "name, text",
    [
        ("text.txt", TEXT),
        ("text.jsonl", "\n".join(json.dumps({"text": document, "id": 1}) for document in TEXT.split("\n\n"))),
    ],
)
def test_formats_and_report(name, text, world, capfd):
    (world / name).write_text(text)
    assert run(f"--input={name}", "--output=out") == 0
    told = capfd.readouterr().out
    assert "4 documents read, left out: none" in told
    assert "--config.data.store=out --config.data.vocab=store" in told
    assert open_store(world / "out").split("train").num_documents == 4


def test_tags_of_ngrams(world):
    (world / "ngrams.txt").write_text("the mat\nother document\n")
    assert run("--input=text.txt", "--output=out", "--ngrams=ngrams.txt") == 0
    store = open_store("out")
    split, tokens = store.split("train"), store.tokenizer().tokens
    assert split.tag_kinds == ("ngrams",)
    marks = split.tags("ngrams", 0, split.num_tokens)
    words = [tokens[i] for i in split.read(0, split.num_tokens)]
    assert 0 < marks.sum() < marks.size and {"the"} < {word for word, mark in zip(words, marks, strict=True) if mark}


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
def test_a_language_with_its_own_vocabulary(sentences, world, capfd):
    draw = np.random.default_rng(0)
    documents = ["\n".join(draw.choice(sentences, 4)) for _ in range(40)]
    (world / "text.txt").write_text("\n\n".join(documents), encoding="utf-8")
    assert run("--input=text.txt", "--output=out", "--train_vocab=200", "--unicode=NFC") == 0
    assert "--config.data.store=out --config.data.vocab=store" in capfd.readouterr().out
    store = open_store("out")
    split, tokenizer = store.split("train"), store.tokenizer()
    ids = split.read(0, split.num_tokens)
    assert not (ids == tokenizer.unk_id).any()
    assert tokenizer.decode(ids[: split.sentence_offsets()[1]]).replace(" ", "") == documents[0].split("\n")[0].replace(
        " ", ""
    )
