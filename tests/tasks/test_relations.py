"""Relations: rows of the four modes, special tokens fixed by the labels, long sentences, formats, a run."""

import dataclasses
import json
import random

import numpy as np
import pytest

from spanbert_jax.configs.tasks import relations
from spanbert_jax.data.tokenizer import Tokenizer
from spanbert_jax.errors import InputError
from spanbert_jax.finetuning.predictor import write_predictions
from spanbert_jax.labelled.relations import Relation, read_relations
from spanbert_jax.tasks import load
from spanbert_jax.tasks.relations import RelationExtraction, nearest
from tests.finetuning.conftest import FILLERS, run_on
from tests.small import MODEL, TOKENIZER

EXAMPLE = Relation(
    "a", ("the", "king", "of", "it", "was", "in", "the", "house"), (0, 1), (7, 7), "PERSON", "PLACE", "born_in"
)
OTHER = dataclasses.replace(EXAMPLE, subject=(7, 7), object=(0, 1), subject_type="CITY", label="no_relation")
UNUSED = Tokenizer([*TOKENIZER.tokens, *(f"[unused{n}]" for n in range(1, 31))], TOKENIZER.rules, "test")


def config_of(variant="tacred", **changes):
    config = relations.get_config(variant)
    config.update(dict(seq_len=32, batch_size=16, log_every=1))
    config.data.vocab = "tiny"
    config.model.update(MODEL | dict(max_positions=64, dropout=0.0, attention_dropout=0.0))  # compiles faster
    config.relations.update(changes)
    return config


def task_of(variant="tacred", examples=(EXAMPLE, OTHER), seq_len=32, **changes) -> RelationExtraction:
    config = config_of(variant, **changes)
    config.seq_len = seq_len
    return RelationExtraction(config, UNUSED, RelationExtraction.labels_of(config, list(examples)))


def shown(task, example) -> str:
    """The row of an example, with special tokens by their names."""
    names = {token: name for name, token in task.labels["tokens"].items()}
    [row] = task.features([example], training=False)
    return " ".join(names.get(UNUSED.tokens[token], UNUSED.tokens[token]) for token in row.arrays["tokens"])


@pytest.mark.parametrize(
    "mode, expected",
    [
        ("ner", "[CLS] SUBJ=PERSON of it was in the OBJ=PLACE [SEP]"),
        ("ner_text", "[CLS] SUBJ=PERSON of it was in the OBJ=PLACE [SEP] the king [SEP] house [SEP]"),
        ("text", "[CLS] SUBJ_START the king SUBJ_END of it was in the OBJ_START house OBJ_END [SEP]"),
        (
            "text_ner",
            "[CLS] SUBJ_START the king SUBJ_END of it was in the OBJ_START house OBJ_END [SEP] SUBJ=PERSON [SEP]"
            " OBJ=PLACE [SEP]",
        ),
    ],
)
def test_rows_are_those_of_the_originals_modes(mode, expected):
    assert shown(task_of(mode=mode), EXAMPLE) == expected


def test_special_tokens_follow_from_the_set_of_types_not_from_their_order():
    tokens = task_of(mode="text_ner").labels["tokens"]
    assert tokens == task_of(mode="text_ner", examples=(OTHER, OTHER, EXAMPLE)).labels["tokens"]
    assert list(tokens) == [
        *("SUBJ_START", "SUBJ_END", "OBJ_START", "OBJ_END"),
        *("OBJ=", "OBJ=PLACE", "SUBJ=", "SUBJ=CITY", "SUBJ=PERSON"),
    ]
    assert list(tokens.values()) == [f"[unused{number}]" for number in range(1, 10)]
    foreign = dataclasses.replace(EXAMPLE, subject_type="SHIP")
    assert shown(task_of(), foreign).startswith("[CLS] SUBJ= of it")


def test_positions_of_entities_are_those_of_their_first_special_token():
    task = task_of("semeval", mode="text")
    [row] = task.features([OTHER], training=True)
    names = {token: name for name, token in task.labels["tokens"].items()}
    at = {name: names[UNUSED.tokens[row.arrays["tokens"][row.arrays[name]]]] for name in ("subject", "object")}
    assert at == {"subject": "SUBJ_START", "object": "OBJ_START"}
    assert int(row.arrays["label"]) == task.labels["labels"].index("no_relation") and row.arrays["weight"]


def test_long_sentences_keep_what_is_next_to_the_entities():
    assert nearest(10, [[4, 5], [7, 7]], 6).tolist() == [3, 4, 5, 6, 7, 8]
    assert nearest(20, [[0, 1], [18, 19]], 6).tolist() == [0, 1, 2, 17, 18, 19]
    assert nearest(3, [[0, 0], [2, 2]], 9).tolist() == [0, 1, 2]
    words = ("of",) * 40 + ("king", *("it",) * 3, "house") + ("her",) * 40
    long = dataclasses.replace(EXAMPLE, words=words, subject=(40, 40), object=(44, 44))
    row = shown(task_of(seq_len=16), long).split()
    assert len(row) == 16 and row[0] == "[CLS]" and row[-1] == "[SEP]"
    assert [word for word in row if word not in ("of", "her")][1:-1] == ["SUBJ=PERSON", "it", "it", "it", "OBJ=PLACE"]
    far = dataclasses.replace(EXAMPLE, words=words, subject=(0, 0), object=(84, 84))
    assert {"SUBJ=PERSON", "OBJ=PLACE"} <= set(shown(task_of(seq_len=16), far).split())


def test_what_cannot_be_trained_or_shown_is_refused():
    untyped = [dataclasses.replace(example, subject_type="", object_type="") for example in (EXAMPLE, OTHER)]
    for changes, examples, said in (
        (dict(mode="ner"), untyped, "its entities have no types"),
        (dict(), [EXAMPLE], "two or more are needed"),
        (dict(no_relation="none"), [EXAMPLE, OTHER], "none of its labels is relations.no_relation 'none'"),
    ):
        with pytest.raises(InputError, match=said):
            RelationExtraction.labels_of(config_of(**changes), examples)
    with pytest.raises(InputError, match=r"has no \[unused1\]: relations.mode needs \[unused1\] to \[unused5\]"):
        RelationExtraction(config_of(), TOKENIZER, task_of().labels)
    for given, said in (
        ({"text": "a b", "subject": [0, 1]}, "'object' None is no range of its 3 characters"),
        ({"tokens": ["a"], "subject": [0, 1], "object": [1, 2]}, r"'object' \[1, 2\] is no range of its 1 tokens"),
        ("a b", "neither a text nor tokens"),
    ):
        with pytest.raises(InputError, match=f"input 0: .*{said}"):
            RelationExtraction.parse(config_of(), [given])


def test_ranges_of_characters_become_words():
    given = {"text": "The kings' house", "subject": [4, 8], "object": [11, 16], "object_type": "PLACE"}
    [example] = RelationExtraction.parse(config_of(), [given])
    assert (example.words, example.subject, example.object) == (("The", "king", "s", "'", "house"), (1, 1), (4, 4))
    assert (example.subject_type, example.object_type) == ("", "PLACE")


def test_predictions_are_written_for_both_official_scorers(tmp_path):
    predictions = [{"label": "born_in", "scores": {}}, {"label": "no_relation", "scores": {}}]
    examples = [EXAMPLE, dataclasses.replace(OTHER, id="b")]
    write_predictions(tmp_path / "a.txt", task_of(), examples, predictions)
    assert (tmp_path / "a.txt").read_text() == "born_in\nno_relation\n"
    write_predictions(tmp_path / "b.txt", task_of("semeval", mode="text"), examples, predictions)
    assert (tmp_path / "b.txt").read_text() == "a\tborn_in\nb\tno_relation\n"
    with pytest.raises(InputError, match="2 examples have the id a"):
        write_predictions(tmp_path / "c.txt", task_of("semeval", mode="text"), [EXAMPLE, EXAMPLE], predictions)
    scores = task_of().score(examples, predictions[:1] * 2)
    assert (scores["precision"], scores["recall"], scores["accuracy"]) == (0.5, 1.0, 0.5)


def semeval_lines(number: int, seed: int) -> str:
    """Sentences in which the relation is the order of two marked words."""
    draw, blocks = random.Random(seed), []
    for i in range(1, number + 1):
        words = draw.choices(FILLERS, k=draw.randint(6, 14))
        first, second = sorted(draw.sample(range(len(words)), 2))
        label = draw.choice(("Entity-Origin(e1,e2)", "Other"))
        words[first] = f"<e1>{'king' if label != 'Other' else 'people'}</e1>"
        words[second] = "<e2>house</e2>"
        blocks.append(f'{i}\t"{" ".join(words)}"\n{label}\nComment:\n')
    return "\n".join(blocks) + "\n"


def test_a_run_learns_relations(tmp_path):
    for seed, (name, number) in enumerate((("train", 100), ("valid", 30))):
        (tmp_path / f"{name}.txt").write_text(semeval_lines(number, seed))
    UNUSED.save(tmp_path / "vocab")
    config = config_of("semeval")
    config.data.vocab = str(tmp_path / "vocab")
    config.optimizer.learning_rate = 1e-2
    config.task.update(dict(train=str(tmp_path / "train.txt"), valid=str(tmp_path / "valid.txt"), epochs=6, sizes=1))
    assert run_on(config, tmp_path / "run") == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["metric"] == "macro_f1" and results["valid"]["accuracy"] > 80
    predictor, examples = load(tmp_path / "run"), read_relations(str(tmp_path / "valid.txt"))
    assert predictor.score(examples, predictor.predictions(examples)) == results["valid"]
    [given] = predictor.predict([{"text": "the king in it house", "subject": [4, 8], "object": [15, 20]}])
    assert given["label"] == "Entity-Origin(e1,e2)"
    np.testing.assert_allclose(sum(given["scores"].values()), 1, rtol=1e-5)


def tacred_records(number: int, seed: int) -> list[dict]:
    """Records as those of TACRED, in which the relation follows from the subject, its word or its type."""
    draw, records = random.Random(seed), []
    for i in range(number):
        words = draw.choices(FILLERS, k=draw.randint(6, 14))
        subject, place = draw.sample(range(len(words)), 2)
        is_born = draw.random() < 0.5
        words[subject], words[place] = "king" if is_born else "people", "house"
        spans = {"subj_start": subject, "subj_end": subject, "obj_start": place, "obj_end": place}
        types = {"subj_type": "PERSON" if is_born else "ORGANIZATION", "obj_type": "CITY"}
        label = "per:city_of_birth" if is_born else "no_relation"
        records.append({"id": f"e{i}", "docid": "d", "relation": label, "token": words, **spans, **types})
    return records


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["ner", "ner_text", "text", "text_ner"])
def test_a_run_of_each_mode_learns_from_a_file_of_tacred(tmp_path, mode):
    for seed, (name, number) in enumerate((("train", 100), ("dev", 30))):
        (tmp_path / f"{name}.json").write_text(json.dumps(tacred_records(number, seed)))
    UNUSED.save(tmp_path / "vocab")
    config = config_of(mode=mode)
    config.data.vocab = str(tmp_path / "vocab")
    config.optimizer.learning_rate = 1e-2
    config.task.update(dict(train=str(tmp_path / "train.json"), valid=str(tmp_path / "dev.json"), epochs=6, sizes=1))
    assert run_on(config, tmp_path / "run") == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["metric"] == "f1" and results["valid"]["f1"] > 0.8
    predictor, examples = load(tmp_path / "run"), read_relations(str(tmp_path / "dev.json"))
    assert predictor.score(examples, predictor.predictions(examples)) == results["valid"]
