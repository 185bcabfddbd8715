"""TFDS: a data set made on disk here, read back by name and folder."""

import pickle
import shutil

import numpy as np
import pytest

from spanbert_jax.data.sources import find_units, units
from spanbert_jax.errors import InputError

COUNTS = {"train": 1000, "test": 7}


def text(split, number):
    return "" if number % 100 == 5 else f"{split} {number}\n\n line é {number} "


def wanted(split, begin=0, end=None):
    numbers = range(*slice(begin, end).indices(COUNTS[split]))
    return [[f"{split} {number}", f"line é {number}"] for number in numbers if text(split, number)]


@pytest.fixture(scope="module", params=["tfrecord", "array_record"])
def data_dir(request, tmp_path_factory):
    """A folder with tiny_books/en and tiny_books/de, three files a split."""
    tfds = pytest.importorskip("tensorflow_datasets")
    if request.param == "array_record":
        pytest.importorskip("array_record", reason="reads one of TFDS's formats")

    class TinyBooks(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """Made up."""

        VERSION = tfds.core.Version("1.0.0")
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="en"), tfds.core.BuilderConfig(name="de")]

        def _info(self):
            features = {
                "text": tfds.features.Text(),
                "title": tfds.features.Text(),
                "id": np.int64,
                "image": tfds.features.Tensor(shape=(2,), dtype=np.float32),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
            )

        def _split_generators(self, manager):
            return {split: self._generate_examples(split) for split in COUNTS}

        def _generate_examples(self, split):
            for i in range(COUNTS[split]):
                yield (
                    i,
                    {"text": text(split, i), "title": f"{self.builder_config.name} {i}", "id": i, "image": [0.0, 1.0]},
                )

    folder = tmp_path_factory.mktemp(request.param)
    for config in ("en", "de"):
        builder = TinyBooks(config=config, data_dir=folder, file_format=request.param)
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=3))
    return str(folder)


def find(name, folder, field="text", split="train"):
    return find_units(f"tfds:{name}", field, split, folder, "blank")


def documents(found):
    return [document for unit in found for document in unit.documents()]


def refusal(*arguments, **named):
    with pytest.raises(InputError) as error:
        documents(find(*arguments, **named))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("size, fewest, most", [(1, 24, 24), (10_000, 4, 20), (1 << 22, 1, 1)])
def test_every_record_once_in_order_whatever_the_size_of_units(size, fewest, most, data_dir, monkeypatch):
    monkeypatch.setattr(units, "SMALLEST", size)
    found = find("tiny_books/en", data_dir)
    assert documents(found) == wanted("train")
    assert found == find("tiny_books/en:1.0.0", data_dir) == pickle.loads(pickle.dumps(found))
    assert fewest <= len(found) <= most and len(found) == len({unit.fingerprint for unit in found})
    assert found[0].held_out is None and "train[0:" in found[0].name


def test_splits_and_features(data_dir):
    assert documents(find("tiny_books/en", data_dir, split="test")) == wanted("test")
    assert documents(find("tiny_books/en", data_dir, split="train[:1%]")) == wanted("train", 0, 10)
    assert documents(find("tiny_books/en", data_dir, split="train[330:340]+test[-2:]")) == wanted(
        "train", 330, 340
    ) + wanted("test", 5, 7)
    assert documents(find("tiny_books/de", data_dir, "title", "train[7:9]")) == [["de 7"], ["de 8"]]


def test_refuses_names_splits_and_features_that_are_not_there(data_dir, tmp_path):
    assert "tfds:no_such_set is not prepared in" in refusal("no_such_set", data_dir) and "TFDS has none" in refusal(
        "no_such_set", data_dir
    )
    known = refusal("wikipedia/20230601.en", str(tmp_path))
    assert (
        f"tfds:wikipedia/20230601.en is not prepared in {tmp_path}" in known
        and "tfds build wikipedia/20230601.en --data_dir" in known
    )
    assert list(tmp_path.iterdir()) == []  # nothing was downloaded
    assert "tfds:tiny_books/fr is not prepared" in refusal("tiny_books/fr", data_dir)
    assert "cannot be read" in refusal("two words", data_dir)
    assert "no feature of text 'id'" in refusal("tiny_books/en", data_dir, "id")
    assert refusal("tiny_books/en", data_dir, "body").endswith(": 'text', 'title'")
    assert "train (1,000 records), test (7 records)" in refusal("tiny_books/en", data_dir, split="valid")
    assert "split 'train[a:]'" in refusal("tiny_books/en", data_dir, split="train[a:]")
    assert "has no records" in refusal("tiny_books/en", data_dir, split="train[3:3]")


def test_refuses_damaged_files(data_dir, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(data_dir, folder)
    for file in (folder / "tiny_books/en/1.0.0").glob("*-train.*-00001-*"):
        file.write_bytes(b"\xff" * 1000)
    assert "prepare the data set again" in refusal("tiny_books/en", str(folder))
    for file in (folder / "tiny_books/en/1.0.0").glob("*-train.*-00001-*"):
        file.unlink()
    assert "prepare the data set again" in refusal("tiny_books/en", str(folder))
