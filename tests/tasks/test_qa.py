"""Question answering: windows and targets beside transformers, the loss, the best spans, thresholds, a run."""

import dataclasses
import json
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spanbert_jax.configs.tasks import squad
from spanbert_jax.errors import InputError
from spanbert_jax.finetuning.evaluation import BEST
from spanbert_jax.finetuning.predictor import write_predictions
from spanbert_jax.finetuning.task import Output, Row, collate
from spanbert_jax.labelled import tfds as labelled_tfds
from spanbert_jax.labelled.questions import NOWHERE, Question
from spanbert_jax.tasks import load
from spanbert_jax.tasks.qa import QuestionAnswering, Window, no_answer_probability, tokens_of
from spanbert_jax.training.checkpoint import Checkpoints
from spanbert_jax.training.metrics import read_metrics
from tests.finetuning.conftest import FILLERS, run_on
from tests.small import MODEL, TOKENIZER

HARD = "Émile's café (in ZÜRICH) cost $1,234.5 — 中文和English, a\u200bzero\u00a0width\tTAB e\u0301 한국어 " + "x" * 101


def config_of(variant="v1", **changes):
    config = squad.get_config(variant)
    config.update(dict(seq_len=32, batch_size=16, log_every=1))
    config.data.vocab = "tiny"
    config.model.update(MODEL | dict(max_positions=64, dropout=0.0, attention_dropout=0.0))  # compiles faster
    config.qa.update(dict(stride=8, max_query_length=8, max_answer_length=5, n_best=4) | changes)
    return config


def task_of(variant="v1", **changes) -> QuestionAnswering:
    return QuestionAnswering(config_of(variant, **changes), TOKENIZER, {})


def question_on(context, *answers, id="q", question="who?", impossible=False) -> Question:
    found = tuple((text, context.find(text)) for text in answers)
    return Question(id, "", context, question, found, impossible)


# Windows


@pytest.mark.parametrize("stride", [0, 8])
def test_windows_and_targets_equal_those_of_transformers(tmp_path, stride):
    transformers = pytest.importorskip("transformers", reason="compares with transformers")
    TOKENIZER.save(tmp_path)
    theirs = transformers.BertTokenizerFast.from_pretrained(tmp_path, do_lower_case=TOKENIZER.lowercase)
    contexts = [HARD, "It was he. " * 30 + HARD, HARD + " the people" * 20, "short", "", "\u200b "]
    examples = [question_on(context, question=text) for context in contexts[3:] for text in ("", "Qui, où?")]
    for context in contexts[:3]:
        for words in ("Émile", "café (in ZÜRICH)", "1,234", "中文", "文和English", "zero\u00a0width", "TAB e", "x" * 9):
            examples.append(question_on(context, words, question="Qui, où?"))
        start = len(context) // 2  # cut by windows
        examples += [question_on(context, context[start : start + size].strip()) for size in (20, 60)]
    rows = task_of(stride=stride, max_query_length=16).features(examples, training=False)
    encoded = theirs(
        [example.question for example in examples],
        [example.context for example in examples],
        truncation="only_second",
        max_length=32,
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    assert [row.example for row in rows] == encoded["overflow_to_sample_mapping"]
    cut = 0
    for number, row in enumerate(rows):
        assert row.arrays["tokens"].tolist() == encoded["input_ids"][number]
        assert row.arrays["token_types"].tolist() == encoded["token_type_ids"][number]
        first, offsets = row.more
        in_context = [position for position, part in enumerate(encoded.sequence_ids(number)) if part == 1]
        assert in_context == list(range(first, first + len(offsets)))
        assert [tuple(pair) for pair in offsets.tolist()] == encoded["offset_mapping"][number][first:-1]
        expected = (None, None)
        if examples[row.example].answers:
            [(text, start)] = examples[row.example].answers
            edges = (start, start + len(text) - 1)
            expected = tuple(encoded.char_to_token(number, edge, sequence_index=1) for edge in edges)
        cut += (expected[0] is None) != (expected[1] is None)
        target = (int(row.arrays["start"]), int(row.arrays["end"]))
        assert target == ((0, 0) if None in expected else expected), text
    assert cut >= 4 and sum(row.arrays["end"] > 0 for row in rows) > 20


def test_an_answer_is_the_tokens_that_have_some_of_its_characters():
    [tokens], [offsets] = TOKENIZER.encode_with_offsets(["Kings \u200bof 한 land"])
    offsets = np.array(offsets)
    texts = [TOKENIZER.tokens[token] for token in tokens]
    of = texts.index("of")
    assert tokens_of(offsets, 6, 9) == (of, of)  # with a character that the tokenizer removes
    assert tokens_of(offsets, 6, 7) is None
    assert tokens_of(offsets, 5, 6) is None
    first, last = tokens_of(offsets, 1, 8)  # parts of words
    assert (first, last) == (0, of)
    syllable = tokens_of(offsets, 10, 11)
    assert syllable == (of + 1, texts.index("land") - 1)  # all its letters


def test_questions_are_cut_and_what_is_unknown_is_not_trained_on():
    context = "the king of the land and the king of the sea"
    long = question_on(context, "king", question="one two three four five six seven eight nine ten")
    examples = [
        long,
        question_on(context),  # unknown
        Question("nowhere", "", context, "who?", (("queen", NOWHERE),)),
        question_on(context, impossible=True),
        Question("two", "", context, "who?", (("sea", 41), ("queen", NOWHERE), ("land", 16), ("land and", 16))),
        Question("no token", "", "a \u200b b", "who?", (("\u200b", 2),)),
    ]
    task = task_of("v2")
    rows = task.features(examples, training=True)
    assert [row.example for row in rows] == [0, 3, 4]
    tokens = [TOKENIZER.tokens[token] for token in rows[0].arrays["tokens"]]
    assert tokens.index("[SEP]") == 9
    targets = [(int(row.arrays["start"]), int(row.arrays["end"])) for row in rows]
    first = rows[2].more.first
    assert targets == [(rows[0].more.first + 1,) * 2, (0, 0), (first + 4, first + 4)]
    every = task.features(examples, training=False)
    assert [row.example for row in every] == [0, 1, 2, 3, 4, 5]
    assert [float(row.arrays["weight"]) for row in every] == [1, 0, 0, 1, 1, 0]


# Loss


def test_the_loss_is_the_mean_over_rows_whatever_their_padding_and_division():
    task, random_state = task_of(), np.random.default_rng(0)
    context = (
        "the king of the land and the queen of the sea met in the house of the people of the north, and one saw it"
    )
    examples = [question_on(context, "queen"), question_on("a king", "king"), question_on(context, "king of the land")]
    rows = task.features(examples, training=True)
    assert len(rows) == 5 and sum(row.arrays["end"] > 0 for row in rows) == 3
    scores = [random_state.normal(size=(len(row.arrays["tokens"]), 2)) for row in rows]  # [L, 2] each

    @jax.jit
    def compute(outputs, batch, counts):
        (loss, sums), gradient = jax.value_and_grad(task.loss, has_aux=True)(outputs, batch, counts)
        return loss, sums, task.predictions(outputs, batch), gradient

    def results(numbers, size, counts=None):
        chosen = [None if number is None else rows[number] for number in numbers]
        batch = {name: jnp.asarray(array) for name, array in collate(task, chosen, size).items()}
        outputs = random_state.normal(size=(len(numbers), size, 2)) + 100  # what padding has matters nowhere
        for output, number in zip(outputs, numbers):
            if number is not None:
                output[: len(scores[number])] = scores[number]
        counts = counts or task.counts(batch)
        return *compute(jnp.asarray(outputs, jnp.float32), batch, counts), counts

    loss, sums, predictions, _, counts = results(range(5), 32)
    expected = [
        np.log(np.exp(of_end).sum()) - of_end[row.arrays[name]]
        for row, both in zip(rows, scores)
        for name, of_end in zip(("start", "end"), both.T)
    ]
    np.testing.assert_allclose(loss, np.mean(expected), rtol=1e-5)
    np.testing.assert_allclose(sums["qa"]["loss"], np.sum(expected) / 2, rtol=1e-5)
    assert counts["qa"] == 5
    wider = results([*range(5), None, None], 48)
    np.testing.assert_allclose(wider[0], loss, rtol=1e-5)
    for name in predictions:
        np.testing.assert_allclose(wider[2][name][:5], predictions[name], rtol=1e-5)
    padding = collate(task, rows, 48)["segments"] == 0
    assert not wider[3][:5][padding].any() and not wider[3][5:].any() and np.isfinite(wider[3]).all()
    parts = [results(part, 32, counts) for part in ([0, 3, 1, None, None], [2, 4, None, None, None])]
    np.testing.assert_allclose(sum(part[0] for part in parts), loss, rtol=1e-5)
    empty = results([None] * 5, 32)
    assert empty[0] == 0 and empty[4]["qa"] == 1


# Predictions


def test_the_best_spans_are_those_of_all_allowed_ones():
    task = task_of(n_best=6, max_answer_length=3)
    rows = task.features([question_on("the king of the land"), question_on("sea"), question_on("")], training=False)
    batch = {name: jnp.asarray(array) for name, array in collate(task, [*rows, None], 16).items()}
    outputs = np.random.default_rng(1).normal(size=(4, 16, 2)).astype(np.float32)
    found = jax.tree.map(np.asarray, task.predictions(jnp.asarray(outputs), batch))
    assert found["starts"].shape == found["ends"].shape == found["scores"].shape == (4, 6)
    np.testing.assert_allclose(found["null"], outputs[:, 0].sum(-1))
    for row, scores, number in zip(rows, outputs, range(4)):
        first, count = row.more.first, len(row.more.offsets)
        spans = {
            (start, end): scores[start, 0] + scores[end, 1]
            for start in range(first, first + count)
            for end in range(start, min(start + 3, first + count))
        }
        best = sorted(spans, key=lambda span: -spans[span])[:6]
        given = [
            span
            for *span, score in zip(found["starts"][number], found["ends"][number], found["scores"][number])
            if score > -1e8
        ]
        assert [tuple(span) for span in given] == best


def output_of(number, offsets, spans, null, first=2) -> Output:
    """An output with spans (start, end, score), of the window with these offsets."""
    starts, ends, scores = map(np.array, zip(*spans))
    arrays = dict(starts=starts, ends=ends, scores=np.float32(scores), null=np.float32(null))
    return Output(Row(number, {}, Window(first, np.array(offsets).reshape(-1, 2))), arrays)


CONTEXT = "Émile, a king,  lives in Zürich"
OFFSETS = [(0, 5), (5, 6), (7, 8), (9, 13), (13, 14), (16, 21), (22, 24), (25, 31)]
EMPTY = (0, 0, -1e9)
OUTPUTS = [
    output_of(0, OFFSETS[:6], [(5, 7, 3.0), (2, 2, 2.0), (0, 0, -1e9)], 4.0),
    output_of(0, OFFSETS[3:], [(6, 6, 2.5), (2, 2, 1.0), (0, 0, -2e9)], 1.0),
    output_of(1, [], [EMPTY, EMPTY, EMPTY], 1.0),
]
QUESTIONS = [question_on(CONTEXT, "Zürich", id="a"), question_on("", id="b", impossible=True)]


def test_answers_of_all_windows_are_compared():
    first, second = task_of().decode(QUESTIONS, OUTPUTS)
    texts = ["king,  lives", "Zürich", "Émile", "king"]
    assert [answer["text"] for answer in first["nbest"]] == texts
    assert [CONTEXT[answer["start"] : answer["end"]] for answer in first["nbest"]] == texts
    weights = np.exp([3.0, 2.5, 2.0, 1.0])
    np.testing.assert_allclose([answer["probability"] for answer in first["nbest"]], weights / weights.sum())
    assert first == first["nbest"][0] | {"nbest": first["nbest"]}
    assert second["text"] == "" and second["nbest"][0]["probability"] == 1
    json.dumps([first, second], allow_nan=False)


def test_no_answer_is_the_least_score_of_cls_over_windows_against_the_best_answer():
    task = task_of("v2")
    first, second = task.decode(QUESTIONS, OUTPUTS)
    assert first["null_score_diff"] == 1.0 - 3.0 and first["text"] == "king,  lives"
    assert [answer["text"] for answer in first["nbest"]] == ["king,  lives", "Zürich", "Émile", "king", ""]
    np.testing.assert_allclose(sum(answer["probability"] for answer in first["nbest"]), 1)
    assert second["text"] == "" and second["null_score_diff"] == 0
    task.tuned = {"best_f1_thresh": 0.1}  # less than 1 / (1 + e^2)
    first, _ = task.decode(QUESTIONS, OUTPUTS)
    assert first["text"] == "" and first["probability"] == first["nbest"][4]["probability"]
    np.testing.assert_allclose(no_answer_probability(-2.0), 1 / (1 + np.exp(2.0)))
    assert no_answer_probability(0.0) == 0.5
    assert no_answer_probability(-5_000.0) == 0 and no_answer_probability(5_000.0) == 1


def scored(diffs, right, impossible):
    """Questions with answers that are right or wrong, and their outputs."""
    examples = [
        question_on("the king of the land", *(() if none else ("king",)), id=str(number), impossible=bool(none))
        for number, none in enumerate(impossible)
    ]
    offsets = [(0, 3), (4, 8), (9, 11), (12, 15), (16, 20)]
    outputs = [
        output_of(number, offsets, [(3, 3, 5.0) if is_right else (6, 6, 5.0), EMPTY], 5.0 + diff)
        for number, (diff, is_right) in enumerate(zip(diffs, right))
    ]
    return examples, outputs


def test_the_best_threshold_is_found_whatever_the_range_of_scores():
    task = task_of("v2")
    # Up to a difference of 3, both answers are right; then comes one to an impossible question.
    examples, outputs = scored([2, 3, 4, 5, 9], [1, 1, 0, 1, 0], [0, 0, 1, 0, 1])
    found = task.score(examples, task.decode(examples, outputs))
    assert found["best_f1"] == found["best_exact"] == 80
    middle = (no_answer_probability(3.0) + no_answer_probability(4.0)) / 2
    assert found["best_f1_thresh"] == found["best_exact_thresh"] == middle
    assert found["f1"] == found["exact"] == found["NoAns_f1"] * 2 / 5 == 40  # nothing is answered
    assert not any(name.endswith("total") for name in found)
    task.tuned = found
    decided = task.decode(examples, outputs)
    assert [given["text"] for given in decided] == ["king", "king", "", "", ""]
    assert task.score(examples, decided)["f1"] == found["best_f1"]

    # Nothing answered is best, and all differences are negative: the threshold must not be a difference of 0.
    task.tuned = {}
    examples, outputs = scored([-9, -8, -7], [0, 0, 0], [0, 1, 1])
    found = task.score(examples, task.decode(examples, outputs))
    assert found["best_f1"] == pytest.approx(200 / 3) and found["f1"] == 0
    task.tuned = found
    decided = task.decode(examples, outputs)
    assert [given["text"] for given in decided] == [""] * 3
    assert task.score(examples, decided)["f1"] == found["best_f1"]


def test_predictions_are_written_as_scripts_of_squad_read_them(tmp_path):
    for variant, extra in (("v1", []), ("v2", ["out.null_odds.json"])):
        task, folder = task_of(variant), tmp_path / variant
        predictions = task.decode(QUESTIONS, OUTPUTS)
        write_predictions(folder / "out.json", task, QUESTIONS, predictions)
        read = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in folder.iterdir()}
        assert sorted(read) == sorted(["out.json", "out.nbest.json", *extra])
        assert read["out.json"] == {"a": "king,  lives", "b": ""}
        assert read["out.nbest.json"]["a"] == predictions[0]["nbest"]
        if extra:
            assert read["out.null_odds.json"] == {"a": no_answer_probability(-2.0), "b": 0.5}
        write_predictions(folder / "out.jsonl", task, QUESTIONS, predictions)
        lines = [json.loads(line) for line in (folder / "out.jsonl").read_text(encoding="utf-8").splitlines()]
        assert lines == [{"id": "a"} | predictions[0], {"id": "b"} | predictions[1]]


# Problems


def test_what_does_not_fit_is_refused(tmp_path, monkeypatch):
    config = config_of(stride=21)
    [problem] = QuestionAnswering.problems(config)
    assert "seq_len 32 leaves windows of 21 tokens" in problem and "qa.stride 21" in problem
    assert not QuestionAnswering.problems(config_of(stride=20))

    def source(*examples):
        records = [
            {"id": e.id, "context": e.context, "question": e.question, "is_impossible": e.impossible}
            | ({"answers": dict(zip(("text", "answer_start"), map(list, zip(*e.answers))))} if e.answers else {})
            for e in examples
        ]
        path = tmp_path / "in.jsonl"
        path.write_text("\n".join(map(json.dumps, records)))
        return str(path)

    known, impossible = question_on("the king", "king"), question_on("the king", id="no", impossible=True)
    unknown = question_on("the king", id="unknown")
    read = QuestionAnswering.read
    assert read(config, source(known, unknown))[0] == [known, unknown]
    assert read(config_of("v2"), source(impossible))[0] == [impossible]
    with pytest.raises(
        InputError, match=r"in.jsonl: 1 questions have no answer \(the first is no\).*qa.no_answer=true"
    ):
        read(config, source(known, impossible))
    with pytest.raises(InputError, match="in.jsonl: none of its 1 questions has an answer"):
        read(config, source(unknown))
    assert QuestionAnswering.read_unlabelled(config, source(unknown, impossible))[0] == [unknown, impossible]
    nowhere = dataclasses.replace(known, answers=(("queen", NOWHERE),))
    with pytest.raises(InputError, match="no answer stands in its text"):
        QuestionAnswering.labels_of(config, [nowhere, unknown])
    with pytest.raises(InputError, match="tfds:squad names no split; give one as in tfds:squad/train"):
        read(config, "tfds:squad")
    for given in ("a question", ("one",), ("q", None), {"question": "q"}):
        with pytest.raises(InputError, match=r"input 1: .* is not a pair of texts, \(question, context\)"):
            QuestionAnswering.parse(config, [("q", "c"), given])
    asked = []
    monkeypatch.setattr(labelled_tfds, "read_tfds", lambda name, split, data_dir="": asked.append((name, split)) or [])
    QuestionAnswering.read_unlabelled(config, "tfds:squad/v2.0:3.0.0/validation[:10%]")
    assert asked == [("tfds:squad/v2.0:3.0.0", "validation[:10%]")]


# A run


def write_squad(path, number: int, seed: int) -> None:
    """Questions on which of two words is in a text; some have neither."""
    draw, questions = random.Random(seed), []
    for index in range(number):
        words = draw.choices(FILLERS, k=draw.randint(4, 30))
        answer = draw.choice(("king", "house", None))
        if answer:
            words[draw.randrange(len(words))] = answer
        context = " ".join(words)
        answers = [{"text": answer, "answer_start": f" {context} ".index(f" {answer} ")}] if answer else []
        qa = {"id": f"{seed}-{index}", "question": "who", "answers": answers, "is_impossible": not answer}
        questions.append({"context": context, "qas": [qa]})
    path.write_text(json.dumps({"version": "v2.0", "data": [{"title": "t", "paragraphs": questions}]}))


def test_a_run_learns_to_answer_and_to_give_no_answer(tmp_path):
    for seed, (name, number) in enumerate((("train", 120), ("valid", 40), ("test", 30))):
        write_squad(tmp_path / f"{name}.json", number, seed)
    config = config_of("v2", stride=4)
    config.update(dict(seq_len=24))
    config.optimizer.learning_rate = 1e-2
    config.eval.batch_size = 16
    config.task.update({name: str(tmp_path / f"{name}.json") for name in ("train", "valid", "test")})
    config.task.update(dict(epochs=6, sizes=1))
    workdir = tmp_path / "run"
    assert run_on(config, workdir) == 0
    losses = [line["loss"] for line in read_metrics(workdir) if "loss" in line]
    assert losses[-1] < losses[0] / 3
    results = json.loads((workdir / "results.json").read_text())
    assert results["metric"] == "best_f1" and results["valid"]["best_f1"] > 90 and results["test"]["f1"] > 80
    best = Checkpoints(workdir / BEST, read_only=True)
    assert best.record(results["step"])["metrics"]["best_f1_thresh"] == results["valid"]["best_f1_thresh"]
    head = best.read_params(results["step"])["qa"]["output"]
    assert head["kernel"].shape == (32, 2) and head["bias"].shape == (2,)

    predictor = load(workdir)
    assert predictor.task.tuned["best_f1_thresh"] == results["valid"]["best_f1_thresh"]
    found, none = predictor.predict(
        [("who", "the king of as it is"), {"question": "who", "context": "as it is of the by on at you had"}]
    )
    assert found["text"] == "king" and (found["start"], found["end"]) == (4, 8) and none["text"] == ""
