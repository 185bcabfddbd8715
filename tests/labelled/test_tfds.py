"""TFDS: data sets made on disk by the test, in the shapes of glue and squad."""

import functools

import numpy as np
import pytest

from spanbert_jax.errors import InputError
from spanbert_jax.labelled import relations
from spanbert_jax.labelled.questions import Question
from spanbert_jax.labelled.relations import Relation, read_relations
from spanbert_jax.labelled.table import Row
from spanbert_jax.labelled.tfds import read_tfds, read_tfds_questions, read_tfds_rows

SQUAD = [
    {
        "id": "q1",
        "title": "t",
        "context": "the hé",
        "question": "who?",
        "answers": {"text": ["hé"], "answer_start": [4]},
    },
    {"id": "q2", "title": "t", "context": "the hé", "question": "so?", "answers": {"text": [], "answer_start": []}},
]
SST2 = [{"sentence": f"s {i}", "label": label, "idx": i} for i, label in enumerate((1, 0, -1))]
MNLI = [{"premise": "a", "hypothesis": "b", "label": 2, "idx": 0}]
SPANS = {"subj_start": 0, "subj_end": 0, "obj_start": 2, "obj_end": 2}
TACRED = [{"id": "t1", "relation": "per:city_of_birth", "token": ["Ann", "of", "Bonn"], **SPANS}]


def builder_class(tfds, dataset, config, features, records):
    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """A data set of a few records."""

        # In a module within a package, TFDS would look for files beside it, with a library that need not be installed.
        __module__ = dataset
        name = dataset
        VERSION = tfds.core.Version("1.0.0")
        BUILDER_CONFIGS = (tfds.core.BuilderConfig(name=config),)

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
            )

        def _split_generators(self, manager):
            return {"train": enumerate(records)}

        def _generate_examples(self):
            raise NotImplementedError

    return Builder


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A folder with squad/v1.1, the default of squad, and glue/sst2 and glue/mnli."""
    tfds = pytest.importorskip("tensorflow_datasets", reason="reads TFDS")
    text, number = tfds.features.Text(), tfds.features.Tensor(shape=(), dtype=np.int32)

    def label(*names):
        return tfds.features.ClassLabel(names=names)

    answers = tfds.features.Sequence({"text": text, "answer_start": number})
    squad = {"id": text, "title": text, "context": text, "question": text, "answers": answers}
    sst2 = {"sentence": text, "label": label("negative", "positive"), "idx": number}
    classes = label("entailment", "neutral", "contradiction")
    mnli = {"premise": text, "hypothesis": text, "label": classes, "idx": number}
    tacred = {"id": text, "relation": text, "token": tfds.features.Sequence(text), **dict.fromkeys(SPANS, number)}
    folder = tmp_path_factory.mktemp("tfds")
    for name, config, features, records in (
        ("squad", "v1.1", squad, SQUAD),
        ("glue", "sst2", sst2, SST2),
        ("glue", "mnli", mnli, MNLI),
        ("relations", "v1", tacred, TACRED),
    ):
        builder = builder_class(tfds, name, config, features, records)(data_dir=folder, config=config)
        builder.download_and_prepare()
    return str(folder)


def test_records_are_plain(data_dir):
    assert list(read_tfds("tfds:squad", "train", data_dir)) == SQUAD
    names = [{**record, "label": name} for record, name in zip(SST2, ("positive", "negative", None))]
    assert list(read_tfds("glue/sst2:1.0.0", "train", data_dir)) == names
    assert list(read_tfds("tfds:glue/sst2", "train[1:2]", data_dir)) == names[1:2]


def test_examples(data_dir):
    rows = [Row("0", ("s 0",), "1"), Row("1", ("s 1",), "0"), Row("2", ("s 2",), None)]
    assert read_tfds_rows("tfds:glue/sst2", "train", data_dir) == rows
    assert read_tfds_rows("tfds:glue/mnli", "train", data_dir) == [Row("0", ("a", "b"), "contradiction")]
    found, notes = read_tfds_questions("tfds:squad", "train", data_dir)
    assert found == [
        Question("q1", "t", "the hé", "who?", (("hé", 4),)),
        Question("q2", "t", "the hé", "so?", (), True),
    ]
    assert notes == []


def test_relations_have_the_fields_of_tacred(data_dir, monkeypatch):
    monkeypatch.setattr(relations, "read_tfds", functools.partial(read_tfds, data_dir=data_dir))
    [example] = read_relations("tfds:relations/train")
    assert example == Relation("t1", ("Ann", "of", "Bonn"), (0, 0), (2, 2), "", "", "per:city_of_birth")
    with pytest.raises(InputError, match="tfds:squad, record 0|tfds:squad/train, record 0.*no field 'token'"):
        read_relations("tfds:squad/train")


def test_mistakes(data_dir):
    with pytest.raises(InputError, match=r"tfds:squad has no split 'dev' \(it has train\)"):
        read_tfds("tfds:squad", "dev", data_dir)
    with pytest.raises(InputError, match="^examples: tfds:no_such_set is not prepared"):
        read_tfds("tfds:no_such_set", "train", data_dir)
    with pytest.raises(InputError, match="none of tfds:glue/cola"):
        read_tfds_rows("tfds:squad", "train", data_dir)
