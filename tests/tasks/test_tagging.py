"""Tagging: alignment beside transformers, windows and context, spans beside loops, decoding, files, runs of both."""

import json
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spanbert_jax.configs.tasks import tagging
from spanbert_jax.errors import InputError
from spanbert_jax.finetuning.predictor import write_predictions
from spanbert_jax.finetuning.task import Output, collate
from spanbert_jax.labelled.tagged import Tagged, read_tagged
from spanbert_jax.model.layout import ONE_DEVICE
from spanbert_jax.model.spec import model_spec
from spanbert_jax.scorers.conlleval import span_f1
from spanbert_jax.tasks import load
from spanbert_jax.tasks.tagged_spans import best_threshold, compatible, spans_of
from spanbert_jax.tasks.tagger import shifted
from spanbert_jax.tasks.tagging import Tagging, Window
from tests.finetuning.conftest import FILLERS, run_on
from tests.small import MODEL, TOKENIZER

LABELS = {"plain": False, "types": ["LOC", "PER"], "usual": "O"}
WORDS = ("Émile", "of", "ZÜRICH", ",", "paid", "1,234.5", "\u200b", "中文", "x\u00a0y", "the-king")
SPANS = (("PER", 0, 2), ("LOC", 2, 2), ("PER", 7, 9))


def config_of(variant="tokens", **changes):
    config = tagging.get_config(variant)
    config.update(dict(seq_len=32, batch_size=16, log_every=1))
    config.data.vocab = "tiny"
    config.model.update(MODEL | dict(max_positions=64, dropout=0.0, attention_dropout=0.0))  # compiles faster
    config.tagging.update(dict(max_width=3) | changes)
    return config


def task_of(variant="tokens", seq_len=32, labels=LABELS, **changes) -> Tagging:
    config = config_of(variant, **changes)
    config.seq_len = seq_len
    return Tagging(config, TOKENIZER, labels)


def texts_of(row) -> list[str]:
    return [TOKENIZER.tokens[token] for token in row.arrays["tokens"]]


def test_tokens_and_labels_equal_those_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers", reason="compares with transformers")
    TOKENIZER.save(tmp_path)
    theirs = transformers.BertTokenizerFast.from_pretrained(tmp_path, do_lower_case=TOKENIZER.lowercase)
    examples = [Tagged(WORDS, (("PER", 0, 2), ("LOC", 5, 6), ("LOC", 7, 7), ("LOC", 8, 8))), Tagged(("of",), ())]
    task = task_of(seq_len=128)
    encoded = theirs([list(example.words) for example in examples], is_split_into_words=True)
    tags = [["B-PER", "I-PER", "I-PER", "O", "O", "B-LOC", "I-LOC", "B-LOC", "B-LOC", "O"], ["O"]]
    for number, row in enumerate(task.features(examples, training=True)):
        assert row.arrays["tokens"].tolist() == encoded["input_ids"][number]
        words, expected = encoded.word_ids(number), []
        for position, word in enumerate(words):  # as in transformers' examples/pytorch/token-classification
            begins = word is not None and word != words[position - 1]
            expected.append(tags[number][word] if begins else None)
        labels = [task.classes[label] for label in row.arrays["label"]]
        assert [label if weight else None for label, weight in zip(labels, row.arrays["weight"])] == expected
    assert 6 not in words  # the word without tokens has no label


def test_a_long_sentence_is_divided_and_context_stays_within_its_document():
    sentences = [Tagged(("the", "king") * 9, ()), Tagged(("of", "her"), ()), Tagged(("sea",), (), document=1)]
    rows = task_of(seq_len=12).features(sentences, training=True)
    assert [(row.example, len(row.more.words)) for row in rows] == [(0, 10), (0, 8), (1, 2), (2, 1)]
    assert [word for row in rows[:2] for word in row.more.words] == list(range(18))
    rows = task_of(seq_len=12, context=3).features(sentences, training=True)
    assert texts_of(rows[1]) == ["[CLS]", "king", *["the", "king"] * 4, "of", "[SEP]"]
    assert texts_of(rows[2]) == ["[CLS]", "king", "the", "king", "of", "her", "[SEP]"]
    assert rows[2].arrays["weight"].tolist() == [0, 0, 0, 0, 1, 1, 0] and rows[2].more.first.tolist() == [4, 5]
    assert texts_of(rows[3]) == ["[CLS]", *texts_of(rows[3])[1:-1], "[SEP]"] and rows[3].more.first.tolist() == [1]


def test_spans_are_marked_by_the_words_that_have_tokens():
    [row] = task_of("spans", seq_len=64).features([Tagged(WORDS, SPANS)], training=True)
    words, arrays = row.more.words.tolist(), row.arrays
    assert words == [0, 1, 2, 3, 4, 5, 7, 8, 9] and arrays["is_word"].sum() == 9
    found = {
        (["", "LOC", "PER"][arrays["types"][i, w]], words[i], words[i + w])
        for i, w in zip(*np.nonzero(arrays["types"]))
    }
    assert found == set(SPANS)
    for index, word in enumerate(words):
        inside = texts_of(row)[arrays["first"][index] : arrays["last"][index] + 1]
        assert inside == [TOKENIZER.tokens[token] for token in TOKENIZER.encode([WORDS[word]])[0]]


def test_shifting_looks_ahead():
    x = jnp.arange(1, 6.0).reshape(1, 5, 1)
    assert shifted(x, 3)[0, :, :, 0].tolist() == [[1, 2, 3], [2, 3, 4], [3, 4, 5], [4, 5, 0], [5, 0, 0]]


@pytest.mark.parametrize("variant", ["tokens", "spans"])
def test_loss_and_predictions_do_not_depend_on_padding_and_division(variant):
    task = task_of(variant)
    examples = [Tagged(("the", "king", "of", "Spain"), SPANS[:1]), Tagged(("her",), ()), Tagged(("sea", "land"), None)]
    rows = task.features(examples, training=False)
    model = task.model(model_spec(task.config, TOKENIZER.vocab_size, "cpu"), ONE_DEVICE)
    batch = collate(task, rows, 8)
    params = model.init(jax.random.key(0), batch, None)["params"]

    @jax.jit
    def loss_of(batch, counts):
        outputs = model.apply({"params": params}, batch, None)
        return task.loss(outputs, batch, counts)[0], task.predictions(outputs, batch)

    counts = task.counts(batch)
    whole, predicted = loss_of(batch, counts)
    padded, longer = loss_of(collate(task, [*rows, None], 16), counts)
    parts = [loss_of(collate(task, [row], 8), counts)[0] for row in rows]
    np.testing.assert_allclose([padded, sum(parts)], [whole] * 2, rtol=1e-5)
    np.testing.assert_array_equal(longer["class"][:3, :8], predicted["class"])
    if variant == "tokens":
        assert float(counts["tagging"]) == 5  # words with known tags
    else:
        assert float(counts["tagging"]) == 4 + 1 + 2
        assert float(task._weights(batch).sum()) == 9 + 1 + 3  # spans of up to three words
        assert not longer["class"][:, 4:].any()


def outputs_for(task, row, spans) -> Output:
    """What a perfect decoder of spans would say."""
    classes, probability = (np.zeros((32, task.width), dtype) for dtype in (np.int32, np.float32))
    for kind, first, last, score in spans:
        classes[first, last - first], probability[first, last - first] = task.numbers[kind], score
    return Output(row, {"class": classes, "probability": probability})


@pytest.mark.parametrize("nested", [False, True])
def test_the_best_spans_are_taken_that_do_not_overlap_or_cross(nested):
    task, sentence = task_of("spans", nested=nested), Tagged(("a", "b", "c", "d"), ())
    [row] = task.features([sentence], training=False)
    given = [("PER", 0, 2, 0.9), ("LOC", 1, 1, 0.8), ("LOC", 2, 3, 0.95), ("PER", 3, 3, 0.5)]
    [prediction] = task.decode([sentence], [outputs_for(task, row, given)])
    found = [(span["type"], span["first"], span["last"]) for span in prediction["spans"]]
    assert found == ([("LOC", 1, 1), ("LOC", 2, 3), ("PER", 3, 3)] if nested else [("LOC", 1, 1), ("LOC", 2, 3)])
    assert compatible([(0.9, ("A", 0, 2)), (0.5, ("A", 0, 0))], nested=True)[0][1] == ("A", 0, 2)


def test_tags_against_the_scheme_are_spans_too_and_the_least_probability_counts():
    task, sentence = task_of(scheme="BIOES"), read_text("the king of Spain")
    [row] = task.features([sentence], training=False)
    classes, probability = np.zeros(8, np.int32), np.full(8, 0.9)
    for word, tag in ((1, "I-PER"), (2, "I-PER"), (3, "S-LOC")):
        classes[row.more.first[word]] = task.numbers[tag]
    probability[row.more.first[2]] = 0.25
    [prediction] = task.decode([sentence], [Output(row, {"class": classes, "probability": probability})])
    assert prediction["spans"] == [
        {"type": "PER", "first": 1, "last": 2, "score": 0.25, "start": 4, "end": 11, "text": "king of"},
        {"type": "LOC", "first": 3, "last": 3, "score": 0.9, "start": 12, "end": 17, "text": "Spain"},
    ]


def read_text(text: str) -> Tagged:
    [example] = Tagging.parse(config_of(), [text])
    return example


def test_scores_are_those_of_spans_by_type():
    task = task_of("spans")
    examples = [Tagged(WORDS, SPANS), Tagged(WORDS, None), Tagged(("a",), (("ORG", 0, 0),))]
    spans = [{"type": "PER", "first": 0, "last": 2, "score": 0.9}, {"type": "PER", "first": 2, "last": 2, "score": 0.8}]
    scores = task.score(examples, [{"spans": spans}, {"spans": spans}, {"spans": []}])
    assert (scores["precision"], scores["recall"]) == (50.0, 25.0) and scores["f1_LOC"] == 0 == scores["f1_ORG"]
    np.testing.assert_allclose([scores["f1"], scores["f1_PER"]], [100 / 3, 50])


def test_a_fresh_span_decoder_predicts_the_share_of_spans():
    examples = [Tagged(("a", "b", "c", "d"), (("PER", 0, 1),)), Tagged(("a", "b"), (("LOC", 0, 0), ("LOC", 1, 1)))]
    labels = Tagging.labels_of(config_of("spans"), examples)
    assert labels["share"] == 3 / (4 + 3 + 2 + 2 + 1)
    task = task_of("spans", labels=labels)
    batch = collate(task, task.features(examples, training=True), 8)
    model = task.model(model_spec(task.config, TOKENIZER.vocab_size, "cpu"), ONE_DEVICE)
    params = model.init(jax.random.key(0), batch, None)["params"]
    params["tagging"]["output"]["kernel"] *= 0
    expected = [1 - labels["share"], labels["share"] / 2, labels["share"] / 2]
    shares = jax.nn.softmax(model.apply({"params": params}, batch, None))
    np.testing.assert_allclose(shares, np.broadcast_to(expected, shares.shape), rtol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_the_threshold_of_spans_is_the_best_one(seed):
    random_numbers = np.random.default_rng(seed)
    gold, predicted = [], []
    for _ in range(20):
        gold.append({("PER", int(word), int(word)) for word in random_numbers.choice(8, 3)})
        predicted.append(
            [
                {"type": "PER", "first": word, "last": word, "score": float(random_numbers.integers(3, 60)) / 60}
                for word in range(0, 8, 2)
            ]
        )
    best, threshold = best_threshold(gold, predicted)

    def f1_from(least):
        kept = [
            {(span["type"], span["first"], span["last"]) for span in of if span["score"] >= least} for of in predicted
        ]
        return span_f1(gold, kept)["f1"]

    np.testing.assert_allclose([best, f1_from(threshold)], [max(f1_from(n / 240) for n in range(240))] * 2)
    assert best_threshold([{("PER", 0, 0)}], [[]]) == (0.0, 0.5)


def test_spans_whose_ends_are_in_doubt_are_found_by_the_threshold():
    """Each end of an entity has a probability below a half, so without a threshold none would be found."""
    task, sentence = task_of("spans"), Tagged(("a", "b", "c", "d"), (("PER", 0, 1), ("LOC", 3, 3)))
    [row] = task.features([sentence], training=False)
    outputs = [
        outputs_for(task, row, [("PER", 0, 1, 0.4), ("PER", 0, 2, 0.3), ("LOC", 3, 3, 0.35), ("LOC", 2, 2, 0.1)])
    ]
    before = task.score([sentence], task.decode([sentence], outputs))
    assert before["f1"] == 0 and before["best_f1"] == 100 and 0.1 < before["best_f1_thresh"] < 0.35
    task.tuned = before
    [prediction] = task.decode([sentence], outputs)
    assert spans_of(prediction) == [("PER", 0, 1), ("LOC", 3, 3)] and task.score([sentence], [prediction])["f1"] == 100
    assert [span["type"] for span in prediction["unlikely"]] == ["LOC"]


def test_predictions_are_written_for_conlleval_and_as_records_that_can_be_read_again(tmp_path):
    task = task_of("spans", nested=True)
    examples = [Tagged(("a", "b"), (("PER", 0, 1),)), Tagged(("c d", "e"), None), read_text("the king")]
    found = [{"type": "PER", "first": 0, "last": 1, "score": 0.5}, {"type": "LOC", "first": 0, "last": 0, "score": 1.0}]
    predictions = [{"spans": found}, {"spans": found[1:]}, {"spans": []}]
    write_predictions(tmp_path / "a.conll", task, examples, predictions)
    lines = ["a B-PER B-PER", "b I-PER I-PER", "", "c_d B-LOC", "e O", "", "the O", "king O", "", ""]
    assert (tmp_path / "a.conll").read_text() == "\n".join(lines)
    write_predictions(tmp_path / "a.jsonl", task, examples, predictions)
    records = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert records[0] == {"words": ["a", "b"], "spans": found} and records[2] == {"text": "the king", "spans": []}


def tagged_sentences(number: int, seed: int) -> list[str]:
    """Lines of columns: "king people" is a PER, and "house" a LOC."""
    draw, lines = random.Random(seed), []
    for _ in range(number):
        words = draw.choices(FILLERS, k=draw.randint(3, 12))
        tags = ["O"] * len(words)
        place = draw.randrange(len(words) - 1)
        words[place : place + 2], tags[place : place + 2] = ["king", "people"], ["I-PER", "I-PER"]
        if place > 1:
            words[0], tags[0] = "house", "I-LOC"
        lines += [f"{word} {tag}" for word, tag in zip(words, tags)] + [""]
    return lines


@pytest.mark.parametrize("variant", ["tokens", "spans"])
def test_a_run_learns_to_find_spans(tmp_path, variant):
    for seed, (name, number) in enumerate((("train", 120), ("valid", 30))):
        (tmp_path / name).write_text("\n".join(tagged_sentences(number, seed)) + "\n")
    config = config_of(variant)
    config.optimizer.learning_rate = 1e-2
    config.task.update(dict(train=str(tmp_path / "train"), valid=str(tmp_path / "valid"), epochs=8, sizes=1))
    config.task.evaluations_per_epoch = 1
    assert run_on(config, tmp_path / "run") == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    metric = {"tokens": "f1", "spans": "best_f1"}[variant]
    assert results["metric"] == metric and results["valid"][metric] > 80
    predictor = load(tmp_path / "run")
    examples = read_tagged(str(tmp_path / "valid"))
    scores = predictor.score(examples, predictor.predictions(examples))
    assert scores["f1"] == results["valid"][metric] == scores[metric]
    [given] = predictor.predict(["house of the king people in it"])
    assert [(span["type"], span["text"]) for span in given["spans"]] == [("LOC", "house"), ("PER", "king people")]
    assert [given["spans"] for given in predictor.predict([["the", "\u200b"], []])] == [[], []]


def test_the_recipe_of_spans_finds_entities_that_are_rare(tmp_path):
    """One candidate in 400 is an entity. With a head at the encoder's rate, none is found after twice the epochs."""
    for seed, (name, number) in enumerate((("train", 240), ("valid", 60))):
        draw, lines = random.Random(seed), []
        for _ in range(number):
            words = draw.choices([word for word in FILLERS if word != "king"], k=draw.randint(8, 20))
            tags = ["O"] * len(words)
            if draw.random() < 0.25:
                place = draw.randrange(len(words) - 1)
                words[place : place + 2], tags[place : place + 2] = ["king", "people"], ["I-PER", "I-PER"]
            lines += [f"{word} {tag}" for word, tag in zip(words, tags)] + [""]
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    config = config_of("spans", max_width=8)
    config.optimizer.learning_rate = 1e-3
    config.task.update(dict(train=str(tmp_path / "train"), valid=str(tmp_path / "valid"), epochs=2, sizes=1))
    assert run_on(config, tmp_path / "run") == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())["valid"]
    assert results["f1"] > 80 and results["best_f1"] > 80


def test_what_a_decoder_cannot_learn_is_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"words": WORDS, "spans": SPANS}) + "\n")
    for variant, source, said in (
        ("tokens", [Tagged(WORDS, SPANS)], "spans overlap"),
        ("spans", [Tagged(("a",), (("DET", 0, 0),), plain=True)], "labels of words"),
        ("tokens", [Tagged(("a",), ())], "no sentence has a span"),
    ):
        with pytest.raises(InputError, match=said):
            Tagging.labels_of(config_of(variant), source)
    with pytest.raises(InputError, match="neither a text nor a list of words"):
        Tagging.parse(config_of(), [["a", 1]])
    _, [note] = Tagging.read(config_of("spans", max_width=2), str(tmp_path / "a.jsonl"))
    assert "2 of 3 spans have more than tagging.max_width 2 words" in note


def test_labels_of_words_are_predicted_and_scored_by_accuracy():
    examples = [Tagged(("a", "b", "\u200b"), (("DET", 0, 0), ("X", 1, 1), ("X", 2, 2)), plain=True)]
    task = task_of(labels=Tagging.labels_of(config_of(), examples))
    [row] = task.features(examples, training=True)
    assert row.arrays["label"].tolist() == [0, 0, 1, 0] and row.arrays["weight"].tolist() == [0, 1, 1, 0]
    given = task.decode(examples, [Output(row, {"class": np.zeros(4, np.int32), "probability": np.ones(4)})])
    assert given == [{"tags": ["DET", "DET", "X"]}]  # a word without tokens has the usual label
    np.testing.assert_allclose(task.score(examples, given)["accuracy"], 200 / 3)
    assert isinstance(row.more, Window)
