"""Marks are read as written, and the guesses are the model's own distributions."""

import dataclasses
import io
import json

import jax
import numpy as np
import pytest
from rich.console import Console

from spanbert_jax.errors import InputError
from spanbert_jax.model import spanbert
from spanbert_jax.tasks.fill_spans import SpanFiller
from spanbert_jax.tasks.filled_json import write_json_lines
from spanbert_jax.tasks.held_out import held_out_texts
from spanbert_jax.tasks.marks import hide, parse_marks, read_lines
from spanbert_jax.tasks.show_filled import sentence, show_all, show_filled
from spanbert_jax.training.pretrain import pretrain
from spanbert_jax.training.restore import restore_run
from tests.small import TOKENIZER, small_config

STEPS = 6
LONG = 15  # masking.max_targets


@pytest.fixture(scope="module")
def workdir(store, tmp_path_factory):
    """A very small run, trained a little at a high rate so that its distributions are not flat."""
    workdir = tmp_path_factory.mktemp("fill") / "run"
    config = small_config(
        total_steps=STEPS,
        data__store=str(store.folder),
        data__max_blocks_per_row=2,
        eval__every=STEPS,
        optimizer__learning_rate=0.05,
        checkpoint__every=STEPS // 2,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "devices", lambda devices=jax.devices()[:1]: devices)  # compiles in half the time
        assert pretrain(config.lock(), workdir) == 0
    return workdir


@pytest.fixture(scope="module")
def filler(workdir):
    return SpanFiller.from_run(workdir, None)


def fill(filler, *texts, top_k=4, batch_size=1):  # one at a time, to share compiled programs
    return list(
        filler.fill(filler.parse({f"text {number}": text for number, text in enumerate(texts, 1)}), top_k, batch_size)
    )


def logits_by_hand(filler, ids, hidden, left, right):
    """The model's logits for ids (with [CLS] and [SEP]) whose `hidden` places, the tokens of one span with these boundaries, are [MASK]."""
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
    return {
        name: np.asarray(of_head[0], np.float64)
        for name, of_head in spanbert.apply(filler.spec, filler.params, batch).items()
    }


def softmax(logits):
    return np.exp(logits - logits.max(-1, keepdims=True)) / np.exp(logits - logits.max(-1, keepdims=True)).sum(
        -1, keepdims=True
    )


@pytest.mark.parametrize("boundaries", ["external", "internal"])
def test_guesses_are_the_softmax_of_the_models_logits(filler, boundaries):
    config = filler.config.copy_and_resolve_references()
    config.masking.boundaries = boundaries
    filler = SpanFiller(config.lock(), filler.tokenizer, filler.spec, filler.params)
    before, true, after = TOKENIZER.encode(["The people of the", "United States of America", "were at peace."])
    [filled] = fill(filler, "The people of the [[United States of America]] were at peace.", top_k=7)
    ids = [TOKENIZER.cls_id, *before, *true, *after, TOKENIZER.sep_id]
    hidden = np.arange(1 + len(before), 1 + len(before) + len(true))
    outside = boundaries == "external"
    logits = logits_by_hand(filler, ids, hidden, hidden[0] - outside, hidden[-1] + outside)
    expected = {head: softmax(logits[head]) for head in ("mlm", "sbo")}
    mean = np.sqrt(expected["mlm"] * expected["sbo"])
    expected["both"] = mean / mean.sum(-1, keepdims=True)
    [span] = filled.spans
    for head, probabilities in expected.items():
        guess = getattr(span, head)
        order = np.argsort(-probabilities, kind="stable")[:, :7]
        np.testing.assert_allclose(guess.probabilities, np.take_along_axis(probabilities, order, 1), rtol=2e-4)
        np.testing.assert_allclose(guess.probabilities, np.take_along_axis(probabilities, guess.ids, 1), rtol=2e-4)
        np.testing.assert_allclose(guess.of_true, probabilities[np.arange(len(true)), true], rtol=2e-4)
    assert (
        np.abs(expected["mlm"] - expected["sbo"]).max() > 1e-4
    )  # the heads do differ, so the test can tell them apart


def test_hidden_words_do_not_reach_the_model(filler):
    known, other, unknown = fill(
        filler, *(f"all the {hidden} of this land" for hidden in ("[[people]]", "[[government]]", "[MASK]"))
    )
    assert len(TOKENIZER.encode(["people"])[0]) == len(TOKENIZER.encode(["government"])[0]) == 1
    for head in ("mlm", "sbo", "both"):
        guesses = [getattr(text.spans[0], head) for text in (known, other, unknown)]
        for guess in guesses[1:]:
            np.testing.assert_array_equal(guess.probabilities, guesses[0].probabilities)
        assert guesses[0].of_true != guesses[1].of_true
        assert guesses[2].of_true is None


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
    alone = [fill(filler, text, batch_size=1)[0] for text in texts[:2]]  # in a shorter row, too
    for text, other in [*zip(together, by_two, strict=True), *zip(together, alone)]:
        assert other.text == text.text
        for one, two in zip(text.spans, other.spans, strict=True):
            assert (one.sbo is None) == (two.sbo is None)
            for head in ("mlm", "sbo", "both") if one.sbo else ("mlm", "both"):
                np.testing.assert_allclose(
                    getattr(two, head).probabilities, getattr(one, head).probabilities, rtol=1e-4
                )


def test_top_k_is_sorted_distinct_and_at_most_everything(filler):
    text = "Four score and [[seven years]] ago our [MASK:2] brought forth"
    some, everything = (fill(filler, text, top_k=k)[0] for k in (5, TOKENIZER.vocab_size))
    for few, all_of_it in zip(some.spans, everything.spans, strict=True):
        for head in ("mlm", "sbo", "both"):
            guess, whole = getattr(few, head), getattr(all_of_it, head)
            assert guess.ids.shape == guess.probabilities.shape == (2, 5)
            assert (np.diff(guess.probabilities) <= 0).all() and (guess.probabilities.sum(1) <= 1 + 1e-5).all()
            assert all(len(set(ids)) == 5 for ids in guess.ids.tolist())
            np.testing.assert_allclose(whole.probabilities.sum(1), 1, rtol=1e-4)
            np.testing.assert_array_equal(whole.probabilities[:, :5], guess.probabilities)


def test_sbo_speaks_only_of_spans_it_was_trained_on(filler):
    [filled] = fill(filler, f"[[The President]] met [MASK:{LONG}] and [MASK:{LONG + 1}] in [[Congress]]")
    at_start, longest, too_long, at_end = filled.spans
    assert longest.sbo and not longest.without_sbo and longest.both is not longest.mlm
    for span, why in ((at_start, "touches an end"), (too_long, f"longer than {LONG}"), (at_end, "touches an end")):
        assert span.sbo is None and why in span.without_sbo
        np.testing.assert_array_equal(span.both.probabilities, span.mlm.probabilities)


def test_a_run_without_sbo_or_without_mlm(filler):
    config = filler.config.copy_and_resolve_references()
    without = {name: value for name, value in filler.params.items() if name != "sbo"}
    alone = SpanFiller(config, filler.tokenizer, dataclasses.replace(filler.spec, sbo=False), without)
    text = "all the [[people]] of this land"
    [span], [reference] = fill(alone, text)[0].spans, fill(filler, text)[0].spans
    assert span.sbo is None and "no SBO head" in span.without_sbo
    np.testing.assert_allclose(span.mlm.probabilities, reference.mlm.probabilities, rtol=1e-5)
    head = {
        "pooler": {"kernel": np.zeros((32, 32)), "bias": np.zeros(32)},
        "output": {"kernel": np.zeros((32, 2)), "bias": np.zeros(2)},
    }
    bert = SpanFiller(
        config, filler.tokenizer, dataclasses.replace(filler.spec, sbo=False, nsp=True), without | {"nsp": head}
    )
    np.testing.assert_allclose(fill(bert, text)[0].spans[0].mlm.probabilities, span.mlm.probabilities, rtol=1e-5)
    config.objectives.mlm_weight = 0.0
    with pytest.raises(InputError, match="mlm_weight"):
        SpanFiller(config, filler.tokenizer, filler.spec, filler.params)


@pytest.mark.parametrize(
    "text",
    [
        "Four score and [[seven years]] ago, our [MASK:2] brought forth [[liberty]]!",
        "[[Liberty]]",
        "[MASK] me",
        "the “[[only thing]]” we have to fear",
        "brackets [like these] and [[ spaces  inside ]] stay",
    ],
)
def test_marks_are_read_as_written(text):
    parsed = parse_marks(text, TOKENIZER, "here")
    assert parsed.marked == text.replace("[MASK]", "[MASK:1]")
    shown = list(parsed.tokens)
    for span in parsed.spans:
        assert shown[span.start : span.end] == [TOKENIZER.mask_id] * span.length
        assert (span.true is None) == (span.text is None)
    if "[MASK" not in text:
        for span in parsed.spans:
            shown[span.start : span.end] = span.true
        assert shown == TOKENIZER.encode([text.replace("[[", "").replace("]]", "")])[0]
        assert parsed.filled(span.text for span in parsed.spans) == text.replace("[[", "").replace("]]", "")


def test_a_guess_that_continues_a_word_is_joined_to_it():
    assert parse_marks("he walk [MASK] home", TOKENIZER, "here").filled(["##ed"]) == "he walked home"


@pytest.mark.parametrize(
    "text, what",
    [
        ("nothing here", "nothing is marked"),
        ("an [[open one", r"'\[\['"),
        ("a closed]] one", r"'\]\]'"),
        ("[[one [[in]] another]]", r"'\]\]'"),
        ("an empty [[]] one", "hides nothing"),
        ("a blank [[  ]] one", "hides nothing"),
        ("none [MASK:0] at all", "hides nothing"),
        ("how many [MASK:two]", r"'\[MASK'"),
        ("how many [MASK:-2]", r"'\[MASK'"),
        ("how many [MASK:123456789]", r"'\[MASK'"),
        ("[MASK][MASK] touch", "nothing between"),
        ("[[New]] [[York]] touch", "nothing between"),
        ("un[[believ]]able", "cuts a word"),
        ("[[walk]]ing", "cuts a word"),
    ],
)
def test_bad_marks_are_told_with_their_place(text, what):
    with pytest.raises(InputError, match=f"^line 7: .*{what}"):
        parse_marks(text, TOKENIZER, "line 7")


def test_all_bad_lines_of_a_file_are_told_at_once(filler, tmp_path):
    path = tmp_path / "in.txt"
    path.write_text("a good [MASK] line\n\nno mark\n" + "too long " * 60 + "[MASK]\n[[open\n")
    with pytest.raises(InputError) as error:
        filler.parse(read_lines(path))
    first, second, third = str(error.value).splitlines()
    assert first.startswith(f"{path}, line 3: nothing is marked")
    assert second.startswith(f"{path}, line 4: ") and f"at most {filler.config.seq_len - 2}" in second
    assert third.startswith(f"{path}, line 5: ")
    path.write_text("\n\n")
    with pytest.raises(InputError, match="no text"):
        read_lines(path)


def test_a_text_as_long_as_a_row_fits(filler):
    capacity = filler.config.seq_len - 2
    assert len(fill(filler, "the " * (capacity - 2) + "[MASK] end")[0].text.tokens) == capacity
    with pytest.raises(InputError, match="shorten"):
        fill(filler, "the " * (capacity - 1) + "[MASK] end")


@pytest.mark.parametrize("options", [dict(top_k=0), dict(top_k=TOKENIZER.vocab_size + 1), dict(batch_size=0)])
def test_numbers_out_of_range(filler, options):
    with pytest.raises(InputError, match=next(iter(options))):
        fill(filler, "a [MASK] here", **options)


def test_hide_is_what_parse_reads():
    [ids] = TOKENIZER.encode(["The people of the United States were at peace."])
    hidden = [False] * len(ids)
    hidden[1] = hidden[4] = hidden[5] = True
    ours = hide(ids, hidden, TOKENIZER)
    assert ours.marked == "The [[people]] of the [[United States]] were at peace."
    theirs = parse_marks(ours.marked, TOKENIZER, "here")
    assert (ours.tokens, ours.spans, ours.parts) == (theirs.tokens, theirs.spans, theirs.parts)
    everything = hide(ids, [True] * len(ids), TOKENIZER)
    assert len(everything.spans) == 1 and everything.parts == ("", "") and everything.spans[0].true == tuple(ids)


def test_held_out_texts_are_blocks_of_the_held_out_split_with_its_masks(filler, workdir, store):
    texts = held_out_texts(filler.config, filler.tokenizer, workdir, 5)
    assert len(texts) == 5 and texts == held_out_texts(filler.config, filler.tokenizer, workdir, 5)
    split = store.split("valid")
    everything = split.read(0, split.num_tokens).tolist()
    for text in texts:
        tokens = list(text.tokens)
        for span in text.spans:
            tokens[span.start : span.end] = span.true
        assert any(everything[start : start + len(tokens)] == tokens for start in range(len(everything)))
        budget = int(np.ceil(filler.config.masking.rate * len(tokens)))
        assert sum(span.length for span in text.spans) == budget
    assert len({text.tokens for text in texts}) == 5
    for count in (0, 10_000):
        with pytest.raises(InputError, match="give a number from 1 to"):
            held_out_texts(filler.config, filler.tokenizer, workdir, count)


def test_json_lines_hold_what_was_found(filler, tmp_path):
    path = tmp_path / "out.jsonl"
    texts = ["Four score and [[seven years]] ago", "our [MASK:2] brought “forth”"]
    filled = fill(filler, *texts)
    assert write_json_lines(path, iter(filled), TOKENIZER) == 2
    first, second = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    assert [first["text"], second["text"]] == texts
    [span], [known] = first["spans"], filled[0].spans
    start = len(TOKENIZER.encode(["Four score and"])[0])
    assert (span["true_text"], span["true_tokens"], span["start"], span["length"]) == (
        "seven years",
        ["seven", "years"],
        start,
        2,
    )
    assert span["without_sbo"] is None
    assert second["spans"][0]["true_text"] is None and second["spans"][0]["mlm"]["true_probabilities"] is None
    for head in ("mlm", "sbo", "both"):
        np.testing.assert_allclose(span[head]["true_probabilities"], getattr(known, head).of_true)
        assert [top["token"] for top in span[head]["top"][1]] == [
            TOKENIZER.tokens[i] for i in getattr(known, head).ids[1]
        ]
    assert first["filled"] == f"Four score and {span['both']['text']} ago"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.jsonl"]
    with pytest.raises(InputError, match="cannot write"):
        write_json_lines(tmp_path / "no" / "out.jsonl", iter(filled), TOKENIZER)


def printed(renderable) -> str:
    console = Console(file=io.StringIO(), width=140, highlight=False)
    console.print(renderable)
    return console.file.getvalue()


def test_what_a_person_sees_without_colour(filler):
    filled = fill(
        filler, "Four score and [[seven years]] ago our [MASK:2] [brought] forth", "[[We]] the people", top_k=2
    )
    text = printed(show_all(filled, TOKENIZER, excerpts=False))
    assert "\x1b" not in text
    both = filled[0].spans[0].both
    assert f"Four score and {{1 {TOKENIZER.decode(both.ids[:, 0])}}} ago our {{2 " in text and "[brought] forth" in text
    assert f"{TOKENIZER.tokens[both.ids[1, 1]]} {both.probabilities[1, 1]:.2f}" in text
    assert "no SBO guess at 1: the span touches an end of the text" in text
    assert "of 3 right" in text  # both heads' known tokens: seven, years and We
    known = fill(filler, "all the [[people]] of this land", top_k=TOKENIZER.vocab_size)
    assert (
        printed(show_all(known, TOKENIZER, excerpts=False)).count("✓") == 3
    )  # the true token is somewhere in each of the three columns


def test_an_excerpt_is_the_sentence_of_a_span_both_heads_know(filler):
    text = "[[Never]] mind. One thing [[is]] certain! We [[will]] win (or [[lose]]?) in the end. Good [[night]]"
    [filled] = fill(filler, text)
    first, last, lead, tail = sentence(filled)
    assert (first, last, lead, tail) == (1, 1, "One thing ", " certain!")
    shown = printed(show_filled(filled, TOKENIZER, excerpt=True))
    assert "One thing {1 " in shown and "mind" not in shown and "{2" not in shown
    [joined] = fill(filler, "He [[came]], he [[saw]], he [[conquered]]. That is [[all]]")
    assert sentence(joined)[:2] == (0, 2)


def test_a_run_is_restored_with_its_own_parameters_and_at_any_step(workdir, filler):
    config, tokenizer, spec, params = restore_run(workdir)
    assert (
        config == filler.config
        and tokenizer.fingerprint == TOKENIZER.fingerprint
        and spec.vocab_size == TOKENIZER.vocab_size
    )
    assert all(len(leaf.devices()) == 1 for leaf in jax.tree.leaves(params))
    earlier = restore_run(workdir, STEPS // 2)[3]
    shapes = jax.eval_shape(lambda: spanbert.init_params(spec, jax.random.key(0)))
    assert jax.tree.structure(earlier) == jax.tree.structure(params) == jax.tree.structure(shapes)
    assert not np.array_equal(earlier["mlm"]["bias"], params["mlm"]["bias"])
    with pytest.raises(InputError, match=f"no checkpoint of step 5; it has those of {STEPS // 2}, {STEPS}"):
        restore_run(workdir, 5)


def test_restoring_leaves_a_run_that_is_saving_alone(workdir):
    saving = workdir / "checkpoints" / "step_9.orbax-checkpoint-tmp"
    saving.mkdir()
    (saving / "half").write_text("")
    before = sorted(workdir.rglob("*"))
    restore_run(workdir)
    assert sorted(workdir.rglob("*")) == before
    (saving / "half").unlink()
    saving.rmdir()


def test_a_folder_without_a_run_or_with_another_vocabulary_is_refused(workdir, tmp_path):
    with pytest.raises(InputError, match="config.json"):
        restore_run(tmp_path)
    empty = tmp_path / "begun"
    empty.mkdir()
    (empty / "config.json").write_bytes((workdir / "config.json").read_bytes())
    with pytest.raises(InputError, match="no checkpoint yet"):
        restore_run(empty)
    assert [entry.name for entry in empty.iterdir()] == ["config.json"]
    (empty / "checkpoints").symlink_to(workdir / "checkpoints")
    lines = (workdir / "vocab.txt").read_text().splitlines()
    (empty / "vocab.txt").write_text("\n".join([*lines[:-2], lines[-1], lines[-2]]) + "\n")
    with pytest.raises(InputError, match="not the vocabulary"):
        restore_run(empty)
