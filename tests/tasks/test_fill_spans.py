"""Guesses are the model's own distributions."""

import sys

import numpy as np
import pytest

from spanbert_jax.commands import fill_spans as fill_spans_command
from spanbert_jax.errors import InputError
from spanbert_jax.model.layout import ONE_DEVICE
from spanbert_jax.objectives import MLM, NSP, SBO, pretraining
from spanbert_jax.tasks.fill_spans import SpanFiller
from spanbert_jax.tasks.held_out import held_out_texts
from spanbert_jax.training.export import export_model
from tests.small import TOKENIZER

MAX_TARGETS = 15  # masking.max_targets


def fill(filler, *texts, top_k=4, batch_size=1):
    """Fills texts, by default one at a time, so that tests share compiled programs."""
    parsed = filler.parse({f"text {number}": text for number, text in enumerate(texts, 1)})
    return list(filler.fill(parsed, top_k, batch_size))


def reference_logits(filler, ids, hidden, left, right):
    """The logits [n, V] of one span at positions `hidden` [n] of ids [L] with [CLS] and [SEP]."""
    tokens = np.array([ids], np.int32)
    tokens[0, hidden] = filler.tokenizer.mask_id
    zeros = np.zeros_like(tokens)
    slots = np.array([hidden], np.int32)
    batch = {
        "tokens": tokens,
        "segments": zeros + 1,
        "positions": np.arange(len(ids), dtype=np.int32)[None],
        "token_types": zeros,
        "mlm_positions": slots,
        "sbo_left": np.full_like(slots, left),
        "sbo_right": np.full_like(slots, right),
        "sbo_offset": np.arange(len(hidden), dtype=np.int32)[None],
    }
    logits = pretraining.apply(filler.spec, ONE_DEVICE, (MLM, SBO), filler.params, batch)
    return {head: np.asarray(of_head[0], np.float64) for head, of_head in logits.items()}


def softmax(logits):
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


@pytest.mark.parametrize("boundaries", ["external", "internal"])
def test_guesses_are_the_softmax_of_the_logits(filler, boundaries):
    config = filler.config.copy_and_resolve_references()
    config.masking.boundaries = boundaries
    filler = SpanFiller(filler.model._replace(config=config.lock()))
    before, true, after = TOKENIZER.encode(["The people of the", "United States of America", "were at peace."])
    [filled] = fill(filler, "The people of the [[United States of America]] were at peace.", top_k=7)
    ids = [TOKENIZER.cls_id, *before, *true, *after, TOKENIZER.sep_id]
    hidden = np.arange(1 + len(before), 1 + len(before) + len(true))
    outside = boundaries == "external"
    logits = reference_logits(filler, ids, hidden, hidden[0] - outside, hidden[-1] + outside)
    expected = {head: softmax(logits[head]) for head in ("mlm", "sbo")}
    mean = np.sqrt(expected["mlm"] * expected["sbo"])
    expected["both"] = mean / mean.sum(-1, keepdims=True)
    [span] = filled.spans
    for head, probabilities in expected.items():
        guess = getattr(span, head)
        order = np.argsort(-probabilities, kind="stable")[:, :7]
        np.testing.assert_allclose(guess.probabilities, np.take_along_axis(probabilities, order, 1), rtol=2e-4)
        np.testing.assert_allclose(guess.probabilities, np.take_along_axis(probabilities, guess.ids, 1), rtol=2e-4)
        np.testing.assert_allclose(guess.true_probabilities, probabilities[np.arange(len(true)), true], rtol=2e-4)
    assert np.abs(expected["mlm"] - expected["sbo"]).max() > 1e-4  # the heads differ, so none can pass for another


def test_hidden_words_do_not_reach_the_model(filler):
    texts = (f"all the {hidden} of this land" for hidden in ("[[people]]", "[[government]]", "[MASK]"))
    known, other, unknown = fill(filler, *texts)
    assert len(TOKENIZER.encode(["people"])[0]) == len(TOKENIZER.encode(["government"])[0]) == 1
    for head in ("mlm", "sbo", "both"):
        guesses = [getattr(text.spans[0], head) for text in (known, other, unknown)]
        for guess in guesses[1:]:
            np.testing.assert_array_equal(guess.probabilities, guesses[0].probabilities)
        assert guesses[0].true_probabilities != guesses[1].true_probabilities
        assert guesses[2].true_probabilities is None


def test_guesses_do_not_depend_on_the_batch(filler):
    texts = [
        "We the [MASK] of the United States",
        "It is [[a truth universally]] acknowledged, that a [[single man]] must be in want of a wife.",
        "The [[end]] of " + "all things " * 20,
        "[MASK:3] of [MASK:17] in a row",
        "I [MASK] you",
    ]
    together = fill(filler, *texts, batch_size=8)
    by_two = fill(filler, *texts, batch_size=2)
    alone = [fill(filler, text, batch_size=1)[0] for text in texts[:2]]  # also in a shorter row
    for text, other in [*zip(together, by_two, strict=True), *zip(together, alone)]:
        assert other.text == text.text
        for span, other_span in zip(text.spans, other.spans, strict=True):
            assert (span.sbo is None) == (other_span.sbo is None)
            for head in ("mlm", "sbo", "both") if span.sbo else ("mlm", "both"):
                expected, actual = getattr(span, head).probabilities, getattr(other_span, head).probabilities
                np.testing.assert_allclose(actual, expected, rtol=1e-4)


def test_top_k_tokens_are_sorted_and_distinct_up_to_the_whole_vocabulary(filler):
    text = "Four score and [[seven years]] ago our [MASK:2] brought forth"
    top_5, top_all = (fill(filler, text, top_k=k)[0] for k in (5, TOKENIZER.vocab_size))
    for span, complete_span in zip(top_5.spans, top_all.spans, strict=True):
        for head in ("mlm", "sbo", "both"):
            guess, complete = getattr(span, head), getattr(complete_span, head)
            assert guess.ids.shape == guess.probabilities.shape == (2, 5)
            assert (np.diff(guess.probabilities) <= 0).all() and (guess.probabilities.sum(1) <= 1 + 1e-5).all()
            assert all(len(set(ids)) == 5 for ids in guess.ids.tolist())
            np.testing.assert_allclose(complete.probabilities.sum(1), 1, rtol=1e-4)
            np.testing.assert_array_equal(complete.probabilities[:, :5], guess.probabilities)


def test_sbo_predicts_only_spans_like_those_of_training(filler):
    text = f"[[The President]] met [MASK:{MAX_TARGETS}] and [MASK:{MAX_TARGETS + 1}] in [[Congress]]"
    [filled] = fill(filler, text)
    at_start, longest, too_long, at_end = filled.spans
    assert longest.sbo and not longest.no_sbo_reason and longest.both is not longest.mlm
    reasons = (at_start, "touches an end"), (too_long, f"longer than {MAX_TARGETS}"), (at_end, "touches an end")
    for span, reason in reasons:
        assert span.sbo is None and reason in span.no_sbo_reason
        np.testing.assert_array_equal(span.both.probabilities, span.mlm.probabilities)


def test_a_run_without_an_sbo_head_is_filled_by_mlm_and_one_without_mlm_is_refused(filler):
    config = filler.config.copy_and_resolve_references()
    text = "all the [[people]] of this land"
    [reference] = fill(filler, text)[0].spans

    params = {name: value for name, value in filler.params.items() if name != "sbo"}
    [span] = fill(SpanFiller(filler.model._replace(objectives=(MLM,), params=params)), text)[0].spans
    assert span.sbo is None and "no SBO head" in span.no_sbo_reason
    np.testing.assert_allclose(span.mlm.probabilities, reference.mlm.probabilities, rtol=1e-5)

    nsp = {
        "pooler": {"kernel": np.zeros((32, 32)), "bias": np.zeros(32)},
        "output": {"kernel": np.zeros((32, 2)), "bias": np.zeros(2)},
    }
    with_nsp = filler.model._replace(objectives=(MLM, NSP), params=params | {"nsp": nsp})
    [span_with_nsp] = fill(SpanFiller(with_nsp), text)[0].spans
    np.testing.assert_allclose(span_with_nsp.mlm.probabilities, span.mlm.probabilities, rtol=1e-5)

    config.objectives.mlm_weight = 0.0
    with pytest.raises(InputError, match="mlm_weight"):
        SpanFiller(filler.model._replace(config=config))


def test_a_text_as_long_as_a_row_fits(filler):
    capacity = filler.config.seq_len - 2
    assert len(fill(filler, "the " * (capacity - 2) + "[MASK] end")[0].text.tokens) == capacity
    with pytest.raises(InputError, match="shorten"):
        fill(filler, "the " * (capacity - 1) + "[MASK] end")


@pytest.mark.parametrize("options", [dict(top_k=0), dict(top_k=TOKENIZER.vocab_size + 1), dict(batch_size=0)])
def test_numbers_out_of_range_are_refused(filler, options):
    with pytest.raises(InputError, match=next(iter(options))):
        fill(filler, "a [MASK] here", **options)


def test_an_export_is_filled_as_its_run_is_and_without_sbo_by_mlm(filler, workdir, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "hf"
    export_model(workdir, folder, "huggingface", None)
    text = "Four score and [[seven years]] ago our [MASK:2] brought forth"
    [exported], [expected] = fill(SpanFiller.restored(folder, None), text), fill(filler, text)
    for span, reference in zip(exported.spans, expected.spans, strict=True):
        for head in ("mlm", "sbo", "both"):
            np.testing.assert_array_equal(getattr(span, head).ids, getattr(reference, head).ids)
    (folder / "sbo_head.safetensors").unlink()
    monkeypatch.setattr(sys, "argv", ["fill_spans.py", f"--workdir={folder}", f"--text={text}"])
    assert fill_spans_command.main() == 0
    printed = capsys.readouterr().out
    assert f"{folder}: it has no head of: span boundary objective" in printed
    assert "the model has no SBO head" in printed
    with pytest.raises(InputError, match="is not the folder of a run, so it has no held-out text"):
        held_out_texts(filler.config, TOKENIZER, folder, 1)
