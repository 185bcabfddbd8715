"""Pseudo-log-likelihoods of minimal pairs, against each token hidden by itself; what files may hold."""

import json

import jax
import numpy as np
import pytest

from spanbert_jax.errors import InputError
from spanbert_jax.model.layout import ONE_DEVICE
from spanbert_jax.objectives import MLM, pretraining
from spanbert_jax.zeroshot import suite_problems
from spanbert_jax.zeroshot.pairs import Pairs, read_pairs
from spanbert_jax.zeroshot.suite import slot_scores
from tests.small import TOKENIZER, small_config, small_program

PAIRS = [
    ("The cats annoy Tim.", "The cats annoys Tim.", "agreement"),
    ("Who should Derek hug after shocking Richard?", "Who should Derek hug Richard after shocking?", "islands"),
    ("No man has ever proclaimed such undeniable lukewarmness.", "A man has ever proclaimed it.", "polarity"),
    ("Bread.", "Unbelievabilities.", "agreement"),
]


def write(path, records):
    path.write_text("\n".join(map(json.dumps, records)) + "\n")
    return str(path)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    records = [{"sentence_good": good, "sentence_bad": bad, "UID": uid} for good, bad, uid in PAIRS]
    return write(tmp_path_factory.mktemp("pairs") / "pairs.jsonl", records)


@pytest.fixture(scope="module")
def model():
    program = small_program(small_config(model__dropout=0.0), 1)
    return program.spec, jax.device_put(program.init(None).params, jax.devices()[0])


def scores_of(suite, model, rows):
    spec, params = model
    score = jax.jit(lambda batch: slot_scores(spec, ONE_DEVICE, suite.heads, params, batch))
    return [jax.device_get(score(batch)) for batch in suite.batches(rows)]


def log_likelihood(sentence, model, by_word):
    """One row a token, in a plain loop."""
    (tokens,) = TOKENIZER.encode([sentence])
    total = 0.0
    for index, token in enumerate(tokens):
        hidden, end = list(tokens), index + 1
        while by_word and end < len(tokens) and TOKENIZER.tokens[tokens[end]].startswith("##"):
            end += 1
        hidden[index:end] = [TOKENIZER.mask_id] * (end - index)
        row = np.array([[TOKENIZER.cls_id, *hidden, TOKENIZER.sep_id]], np.int32)
        batch = dict(tokens=row, segments=np.ones_like(row), token_types=np.zeros_like(row))
        batch |= dict(positions=np.arange(row.size, dtype=np.int32)[None], mlm_positions=np.array([[index + 1]]))
        logits = pretraining.apply(model[0], ONE_DEVICE, (MLM,), model[1], batch)[MLM.name]
        total += float(jax.nn.log_softmax(logits)[0, 0, token])
    return total


@pytest.mark.parametrize("by_word", [False, True])
def test_scores_are_those_of_a_plain_loop_whatever_the_batches(file, model, by_word):
    suite = Pairs("pairs", file, TOKENIZER, 64, by_word)
    expected = [log_likelihood(sentence, model, by_word) for pair in PAIRS for sentence in pair[:2]]
    for rows in (3, 64):
        scores = scores_of(suite, model, rows)
        assert len(scores) == suite.count(rows)
        np.testing.assert_allclose(suite.sentence_scores(scores, rows), expected, rtol=1e-5)
    metrics, sums = suite.metrics(suite.examples(scores, 64)), np.array(expected).reshape(-1, 2)
    right = (sums[:, 0] > sums[:, 1]).tolist()
    assert metrics["pairs_accuracy"] == np.mean(right)
    assert metrics["pairs/UID/agreement/accuracy"] == np.mean([right[0], right[3]])
    assert metrics["pairs/UID/islands/accuracy"] == right[1]


def test_words_hide_their_ends(file):
    plain, by_word = (Pairs("pairs", file, TOKENIZER, 64, by_word) for by_word in (False, True))
    counts = [
        sum(int((batch["tokens"] == TOKENIZER.mask_id).sum()) for batch in s.batches(8)) for s in (plain, by_word)
    ]
    tokens = sum(len(tokens) for tokens in TOKENIZER.encode([sentence for pair in PAIRS for sentence in pair[:2]]))
    assert counts[0] == tokens < counts[1]


@pytest.mark.parametrize(
    "line, said",
    [
        ('{"sentence_good": "a"}', "line 2: needs the texts 'sentence_good' and 'sentence_bad'"),
        ('{"good": "a", "bad": 3}', "line 2: needs the texts"),
        ("[1]", "line 2: needs the texts"),
        ("good bad", "line 2: is no JSON"),
        (json.dumps({"good": "a " * 100, "bad": "b"}), "line 2: a sentence of 100 tokens; 1 to 62 fit"),
        ('{"good": "a", "bad": " "}', "line 2: a sentence of 0 tokens"),
    ],
)
def test_lines_that_are_no_pairs_are_named(tmp_path, line, said):
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"good": "One is good.", "bad": "One are good."}\n' + line + "\n")
    with pytest.raises(InputError, match=said):
        Pairs("pairs", str(path), TOKENIZER, 64)


def test_groups_are_what_all_lines_name(tmp_path):
    records = [{"good": "a", "bad": "b", "UID": "x", "field": "y"}, {"good": "a", "bad": "b", "field": "z"}]
    sentences, groups, _ = read_pairs(write(tmp_path / "pairs.jsonl", records))
    assert sentences == ["a", "b"] * 2 and groups == {"field": ["y", "z"]}
    (tmp_path / "none.jsonl").write_text("\n")
    with pytest.raises(InputError, match="none.jsonl: has no pairs"):
        read_pairs(str(tmp_path / "none.jsonl"))


def test_what_no_suite_can_be(file, tmp_path):
    other = tmp_path / "pairs.jsonl.gz"
    other.write_text("")
    problems = suite_problems(("poem", "pairs", "pairs=absent.jsonl", f"pairs={file}", f"pairs={other}", "cloze"))
    assert [problem.partition(":")[2].strip().partition(";")[0] for problem in problems] == [
        "there is no kind 'poem'",
        "give a file of pairs, as in pairs=blimp.jsonl",
        "there is no file absent.jsonl",
        "two are named 'pairs'",
    ]
