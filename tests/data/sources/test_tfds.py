"""TFDS: data sets made on disk by the test, read by name and folder."""

import pickle
import shutil

import numpy as np
import pytest

from spanbert_jax.data.sources import find_units, units
from spanbert_jax.data.sources.problems import Skipped
from spanbert_jax.errors import InputError

COUNTS = {"train": 1000, "test": 7}


def text(split, number):
    return "" if number % 100 == 5 else f"{split} {number}\n\n line é {number} "


def expected(split, begin=0, end=None):
    numbers = range(*slice(begin, end).indices(COUNTS[split]))
    return [[f"{split} {number}", f"line é {number}"] for number in numbers if text(split, number)]


@pytest.fixture(scope="module", params=["tfrecord", "array_record"])
def data_dir(request, tmp_path_factory):
    """A folder with tiny_books/en and tiny_books/de, three files per split."""
    tfds = pytest.importorskip("tensorflow_datasets")
    if request.param == "array_record":
        pytest.importorskip("array_record", reason="needed for one of the formats of TFDS")

    class TinyBooks(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """A data set of numbered texts."""

        # In a module within a package, TFDS would look for files beside it, with a library that need not be installed.
        __module__ = "tiny_books"
        VERSION = tfds.core.Version("1.0.0")
        BUILDER_CONFIGS = (tfds.core.BuilderConfig(name="en"), tfds.core.BuilderConfig(name="de"))

        def _info(self):
            features = {
                "text": tfds.features.Text(),
                "title": tfds.features.Text(),
                "id": np.int64,
                "image": tfds.features.Tensor(shape=(2,), dtype=np.float32),
            }
            features = tfds.features.FeaturesDict(features)
            return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

        def _split_generators(self, manager):
            return {split: self._generate_examples(split) for split in COUNTS}

        def _generate_examples(self, split):
            for i in range(COUNTS[split]):
                title = f"{self.builder_config.name} {i}"
                yield i, {"text": text(split, i), "title": title, "id": i, "image": [0.0, 1.0]}

    folder = tmp_path_factory.mktemp(request.param)
    for config in ("en", "de"):
        builder = TinyBooks(config=config, data_dir=folder, file_format=request.param)
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=3))
    return str(folder)


def find(name, folder, field="text", split="train"):
    return find_units(f"tfds:{name}", field, split, folder, "blank")


def documents_of(found):
    return [document for unit in found for document in unit.documents()]


def error_message(*arguments, **named):
    with pytest.raises(InputError) as error:
        documents_of(find(*arguments, **named))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("size, fewest, most", [(1, 24, 24), (10_000, 4, 20), (1 << 22, 1, 1)])
def test_units_of_any_size_yield_each_record_once_in_order(size, fewest, most, data_dir, monkeypatch):
    monkeypatch.setattr(units, "MIN_UNIT_BYTES", size)
    found = find("tiny_books/en", data_dir)
    assert documents_of(found) == expected("train")
    assert found == find("tiny_books/en:1.0.0", data_dir) == pickle.loads(pickle.dumps(found))
    assert fewest <= len(found) <= most and len(found) == len({unit.fingerprint for unit in found})
    assert found[0].held_out is None and "train[0:" in found[0].name


def test_splits_and_features(data_dir):
    assert documents_of(find("tiny_books/en", data_dir, split="test")) == expected("test")
    assert documents_of(find("tiny_books/en", data_dir, split="train[:1%]")) == expected("train", 0, 10)
    found = documents_of(find("tiny_books/en", data_dir, split="train[330:340]+test[-2:]"))
    assert found == expected("train", 330, 340) + expected("test", 5, 7)
    assert documents_of(find("tiny_books/de", data_dir, "title", "train[7:9]")) == [["de 7"], ["de 8"]]


def test_records_without_text_are_counted(data_dir):
    skipped = Skipped()
    found = [document for unit in find("tiny_books/en", data_dir) for document in unit.documents(skipped)]
    assert found == expected("train") and skipped.counts == {"blank": 10}
    assert skipped.first["blank"][0].message().endswith("1.0.0, record 5 of train: field 'text' is blank")


def test_a_record_that_is_not_utf8_is_a_problem():
    from spanbert_jax.data.sources.tfds import document_of_bytes

    assert document_of_bytes(b"a\n\nb", "text", "here") == ["a", "b"]
    problem = document_of_bytes(b"caf\xe9", "text", "here")
    assert problem.kind == "encoding" and problem.message() == "here: byte 3 is 0xe9, not UTF-8"


def test_missing_data_sets_splits_and_features_are_refused(data_dir, tmp_path):
    message = error_message("no_such_set", data_dir)
    assert "tfds:no_such_set is not prepared in" in message and "TFDS has none" in message
    message = error_message("wikipedia/20230601.en", str(tmp_path))
    assert f"tfds:wikipedia/20230601.en is not prepared in {tmp_path}" in message
    assert "tfds build wikipedia/20230601.en --data_dir" in message
    assert list(tmp_path.iterdir()) == []  # nothing was downloaded
    assert "tfds:tiny_books/fr is not prepared" in error_message("tiny_books/fr", data_dir)
    assert "cannot be read" in error_message("two words", data_dir)
    assert "no feature of text 'id'" in error_message("tiny_books/en", data_dir, "id")
    assert error_message("tiny_books/en", data_dir, "body").endswith(": 'text', 'title'")
    assert "train (1,000 records), test (7 records)" in error_message("tiny_books/en", data_dir, split="valid")
    assert "split 'train[a:]'" in error_message("tiny_books/en", data_dir, split="train[a:]")
    assert "has no records" in error_message("tiny_books/en", data_dir, split="train[3:3]")


def test_damaged_files_are_refused(data_dir, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(data_dir, folder)
    for file in (folder / "tiny_books/en/1.0.0").glob("*-train.*-00001-*"):
        file.write_bytes(b"\xff" * 1000)
    assert "prepare the data set again" in error_message("tiny_books/en", str(folder))
    for file in (folder / "tiny_books/en/1.0.0").glob("*-train.*-00001-*"):
        file.unlink()
    assert "prepare the data set again" in error_message("tiny_books/en", str(folder))
