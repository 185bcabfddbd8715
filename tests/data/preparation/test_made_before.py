"""A finished store is recognised by its settings; other settings, or other text, are differences."""

import dataclasses
import json

import pytest

from spanbert_jax.data.preparation.made_before import made_before
from spanbert_jax.data.preparation.settings import Settings
from spanbert_jax.errors import InputError
from tests.data.preparation.settings_for_tests import PLAIN, prepared

TEXT = "the cats sat on the mats .\n\n" * 4 + "the caf\xe9"


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """Of a store in the current folder, of which one document was skipped."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_bytes(TEXT.encode("latin-1"))
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s"]))
    (tmp_path / "ngrams.txt").write_text("the cats\n")
    changes = dict(vocab="vocab.txt", ngrams="ngrams.txt", tags=("ngrams",), valid_fraction=0.0)
    prepared("text.txt", "store", **changes)
    return Settings(**PLAIN | {"input": "text.txt"} | changes)


def differences(settings, strict=False):
    with pytest.raises(InputError, match=r"^store: .*made otherwise: [^\n]*; remove it or choose another") as error:
        made_before(settings, "store", strict)
    return str(error.value)


def test_the_same_settings_find_the_store(settings):
    assert made_before(settings, "store", strict=False).where == "store"
    assert made_before(settings, "other", strict=False) is None


def test_other_settings_are_named(settings):
    changed = dataclasses.replace(settings, unicode="NFC", min_words=3)
    assert "unicode was 'none', now 'NFC'; min_words was 0, now 3;" in differences(changed)


def test_what_a_strict_preparation_refuses_is_named(settings):
    assert "skipped 1 document that is not UTF-8: text.txt, line 9" in differences(settings, strict=True)


def test_changed_files_are_named(settings, tmp_path):
    with (tmp_path / "text.txt").open("a") as file:
        file.write("more")
    assert f"the input has changed ({len(TEXT)} bytes before, {len(TEXT) + 4} now)" in differences(settings)
    (tmp_path / "vocab.txt").write_text((tmp_path / "vocab.txt").read_text() + "\nsat")
    index = json.loads((tmp_path / "store" / "index.json").read_text())
    index["tags"]["ngrams"]["sha256"] = "of another list"
    (tmp_path / "store" / "index.json").write_text(json.dumps(index))
    assert "the vocabulary vocab.txt has changed; the tagger has changed" in differences(settings)


def test_a_store_without_all_its_files_is_not_called_finished(settings, tmp_path):
    (tmp_path / "store" / "train-00000.tokens").unlink()
    with pytest.raises(
        InputError, match=r"^store store: train-00000\.tokens is missing; [^\n]*, after removing store$"
    ):
        made_before(settings, "store", strict=False)


def test_the_text_may_be_removed_after_it_was_prepared(settings, tmp_path):
    (tmp_path / "text.txt").unlink()
    assert made_before(settings, "store", strict=False)


def test_a_store_of_an_older_release_has_the_defaults_of_newer_settings(settings, tmp_path):
    report = json.loads((tmp_path / "store" / "report.json").read_text())
    for key in ("skipped", "source_bytes"):
        del report[key]
    del report["settings"]["format"]
    (tmp_path / "store" / "report.json").write_text(json.dumps(report))
    assert made_before(settings, "store", strict=True)
    assert "format was 'auto', now 'text'" in differences(dataclasses.replace(settings, format="text"))


def test_other_folders_and_unfinished_stores_are_left_to_the_preparation(settings, tmp_path):
    (tmp_path / "store.partial").mkdir()
    assert made_before(settings, "store", strict=False) is None
    (tmp_path / "thesis").mkdir()
    assert made_before(settings, "thesis", strict=False) is None
