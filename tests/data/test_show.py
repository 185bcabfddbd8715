"""The printed text of a masked batch agrees with the batch, in colour and without."""

import io
import itertools
import re
import tempfile

import numpy as np
import pytest
from rich.console import Console

from spanbert_jax.data.batches import Feed
from spanbert_jax.data.mixture import Mixture
from spanbert_jax.data.show import REPLACEMENTS, batch_to_show, show_batch, spans_of
from spanbert_jax.data.tokenizer import SPECIAL_TOKENS, Tokenizer, load_tokenizer
from spanbert_jax.errors import InputError
from spanbert_jax.render import render
from tests.small import small_config

TINY = load_tokenizer("tiny", "auto")
WORDS = Tokenizer([*SPECIAL_TOKENS, "the", "cat", "##s", "sat", "on", "mat", ".", "dog", "we"], True, "test")
PAD, CLS, SEP, MASK, THE, CAT, S, SAT, ON, MAT, DOT, DOG, WE = (
    WORDS.tokens.index(token) for token in WORDS.tokens if token != "[UNK]"
)


def batch_of(tokens, segments, targets, sbo):
    """Returns a batch of one row. targets: {position: original id}; sbo: {position: (left, right, offset)}."""
    slots = len(targets) + 2
    batch = {"tokens": np.array([tokens], np.int32), "segments": np.array([segments], np.int32)}
    batch["positions"] = np.array(
        [[segments[:index].count(segment) * (segment > 0) for index, segment in enumerate(segments)]], np.int32
    )
    batch["token_types"] = np.zeros_like(batch["tokens"])
    batch |= {f"{kind}_weights": np.zeros((1, slots), np.float32) for kind in ("mlm", "sbo")}
    batch |= {
        name: np.zeros((1, slots), np.int32)
        for name in ("mlm_positions", "mlm_targets", "sbo_left", "sbo_right", "sbo_offset")
    }
    for slot, (position, original) in enumerate(targets.items()):
        batch["mlm_positions"][0, slot] = position
        batch["mlm_targets"][0, slot] = original
        batch["mlm_weights"][0, slot] = 1
        if position in sbo:
            batch["sbo_left"][0, slot], batch["sbo_right"][0, slot], batch["sbo_offset"][0, slot] = sbo[position]
            batch["sbo_weights"][0, slot] = 1
    return batch


# [CLS] the cats sat on the mat . [SEP] [CLS] we sat . the dog [SEP] [PAD]
BATCH = batch_of(
    [CLS, THE, MASK, MASK, SAT, ON, MAT, DOG, DOT, SEP, CLS, WE, SAT, DOT, MASK, S, SEP, PAD],
    [1] * 10 + [2] * 7 + [0],
    {2: CAT, 3: S, 6: THE, 7: MAT, 12: SAT, 14: THE, 15: DOG},
    {2: (1, 4, 0), 3: (1, 4, 1), 6: (5, 8, 0), 12: (11, 13, 0)},
)


def printed(batch, tokenizer, rows):
    return render(show_batch(batch, tokenizer, rows), width=200)


def test_the_text_of_a_small_row():
    lines = [line.strip() for line in printed(BATCH, WORDS, 1).splitlines()]
    assert "[CLS] the {1 cats => [MASK] x2} sat on {2 the mat => mat dog} . [SEP]" in lines
    assert "[CLS] we {3 sat = kept} . {4 the dog => [MASK] ##s} [SEP]" in lines
    assert "row 0, block 1 (segment 1): positions 0 to 9, 8 tokens, 4 masked" in lines
    assert "row 0, block 2 (segment 2): positions 10 to 16, 5 tokens, 3 masked" in lines
    assert "row 0: 1 positions of padding (segment 0) at its end" in lines
    table = [re.split(r"\s{2,}", line) for line in lines]
    assert ["1", "masked", "2-3", "1 the", "4 sat", "0:cat", "1:##s"] in table
    assert ["2", "random", "6-7", "5 on", "8 .", "0:the", "(and 1 beyond masking.max_targets)"] in table
    assert ["3", "kept", "12-12", "11 we", "13 .", "0:sat"] in table
    assert ["4", "mixed", "14-15", "-", "-", "none: it touches an end of its block"] in table
    counts = "7 of 13 tokens masked (53.8%), 4 spans (1 masked, 1 random, 1 kept, 1 mixed)"
    summary = f"{counts}, 4 of 9 SBO slots used, 5.6% padding"
    assert f"row 0: {summary}" in lines and f"all 1 rows: {summary}" in lines


def test_the_origin_of_the_second_segment_of_a_pair_is_shown():
    batch = batch_of([CLS, THE, MASK, SEP, WE, SAT, DOT, SEP, PAD], [1] * 8 + [0], {2: CAT}, {})
    batch["token_types"][0, 4:8] = 1
    for label, origin in ((1, "from elsewhere"), (0, "what follows A")):
        batch["nsp_targets"] = np.array([[label]], np.int32)
        text = printed(batch, WORDS, 1)
        block = "row 0, block 1 (segment 1): positions 0 to 7, 5 tokens, 1 masked"
        assert f"{block}; a pair, B ({origin}) from position 4 on" in text
        assert "1 of 5 tokens masked" in text


def test_a_span_that_splits_a_word_shows_the_continuation_mark():
    batch = batch_of([CLS, THE, MASK, S, SAT, SEP], [1] * 6, {2: CAT}, {2: (1, 3, 0)})
    assert "[CLS] the {1 cat => [MASK]} ##s sat [SEP]" in printed(batch, WORDS, 1)
    batch = batch_of([CLS, THE, CAT, MASK, SAT, SEP], [1] * 6, {3: S}, {3: (2, 4, 0)})
    assert "[CLS] the cat {1 ##s => [MASK]} sat [SEP]" in printed(batch, WORDS, 1)


def test_tagged_spans_that_touch_are_shown_apart():
    sbo = {position: (1, 6, position - 2) for position in range(2, 6)}
    batch = batch_of([CLS, THE, *[MASK] * 4, DOT, SEP], [1] * 8, {2: CAT, 3: S, 4: SAT, 5: ON}, sbo)
    for tags, text in (
        ([3, 1, 3, 1], "cats | sat on"),
        ([3, 1, 12, 4], "cats sat on"),  # spans of two kinds
        ([12, 4, 12, 12], "cats | sat | on"),
        ([1, 1, 1, 1], "cats sat on"),  # of an earlier release's store
        ([3, 0, 3, 0], "cats sat on"),
    ):
        batch["tags"] = np.array([[0, 0, *tags, 0, 0]], np.int32)
        assert f"[CLS] the {{1 {text} => [MASK] x4}} . [SEP]" in printed(batch, WORDS, 1)


def test_a_row_of_padding_is_shown():
    text = printed(batch_of([PAD] * 4, [0] * 4, {}, {}), WORDS, 1)
    assert "row 0: 0 of 0 tokens masked (0.0%), 0 spans (none), 0 of 2 SBO slots used, 100.0% padding" in text


def test_colour_distinguishes_replacements_and_adds_no_text():
    plain = printed(BATCH, WORDS, 1)
    assert "\x1b" not in plain
    colour = dict(force_terminal=True, color_system="standard", no_color=False)
    console = Console(file=io.StringIO(), width=200, **colour)
    console.print(show_batch(BATCH, WORDS, 1))
    coloured = console.file.getvalue().rstrip()
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == plain
    texts = ("{1 cats", "{2 the mat", "{3 sat", "{4 the dog", "[CLS]")
    assert len({re.search(rf"(\x1b\[[\d;]+m){re.escape(text)}", coloured)[1] for text in texts}) == len(texts)


def test_the_number_of_rows_is_as_requested_up_to_the_batch_size(store):
    config = small_config(data__store=str(store.folder))
    batch, tokenizer = batch_to_show(config, None, "train", 0, print)
    for rows in (0, 3, 99):
        text = printed(batch, tokenizer, rows)
        assert len(re.findall(r"^row \d+: \d+ of", text, re.M)) == min(rows, config.batch_size)
        assert text.splitlines()[-1].startswith(f"all {config.batch_size} rows: ")


@pytest.mark.parametrize("boundaries", ["external", "internal"])
@pytest.mark.parametrize("replacement", ["span", "token"])
def test_spans_restore_the_original_text(store, boundaries, replacement):
    config = small_config(
        masking__boundaries=boundaries,
        masking__replacement=replacement,
        masking__max_targets=4,
        eval__batch_size=64,
        eval__max_rows=0,
    )
    feed = Feed(config, Mixture([store]), TINY)
    batch = next(feed.held_out(feed.names[0]))
    original = feed.valid[feed.names[0]].read(np.arange(len(batch["tokens"])))["tokens"]
    replacements, without_sbo = set(), 0
    for row, tokens in enumerate(batch["tokens"]):
        spans, restored, covered = spans_of(batch, row, TINY.mask_id), tokens.copy(), np.zeros(len(tokens), bool)
        for span in spans:
            positions = slice(span.first, span.last + 1)
            assert not covered[positions].any() and len(set(batch["segments"][row][positions])) == 1
            covered[positions] = True
            assert tokens[positions].tolist() == span.seen
            restored[positions] = span.original
            expected = (span.first - 1, span.last + 1) if boundaries == "external" else (span.first, span.last)
            assert span.boundaries in (expected, None)
            assert span.offsets == (list(range(min(len(span.original), 4))) if span.boundaries else [])
            assert (span.replacement == "masked") == (set(span.seen) == {TINY.mask_id})
            assert (span.replacement == "kept") == (span.seen == span.original)
            replacements.add(span.replacement)
            without_sbo += span.boundaries is None
        assert restored.tolist() == original[row].tolist()
        assert covered.sum() == batch["mlm_weights"][row].sum()
        assert all(after.first > before.last + 1 for before, after in itertools.pairwise(spans))  # they are merged
    assert replacements <= set(REPLACEMENTS)
    assert replacements >= ({"masked", "random", "kept"} if replacement == "span" else {"masked", "mixed"})
    assert (without_sbo > 0) == (boundaries == "external")


def test_the_batch_is_the_one_of_training(store, tmp_path):
    config = small_config()
    expected = next(Feed(config, Mixture([store]), TINY).training(7))
    (tmp_path / "store").symlink_to(store.folder)
    with_store = small_config(data__store=str(store.folder))
    for arguments in (dict(config=config, workdir=tmp_path), dict(config=with_store, workdir=None)):
        batch, _ = batch_to_show(split="train", step=7, log=pytest.fail, **arguments)
        assert all((batch[name] == expected[name]).all() for name in expected)


def test_text_is_tokenised_into_a_temporary_folder(tmp_path, monkeypatch):
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"The cat number {i} sat on the mat." for i in range(50)))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    messages = []
    config = small_config(data__source=str(text), data__valid_fraction=0.5)
    batch, tokenizer = batch_to_show(config, None, "valid", 0, messages.append)
    assert "The cat number" in printed(batch, tokenizer, 4).replace("{1 ", "")
    assert len(messages) == 1 and str(text) in messages[0]
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(step=-1), "numbered from 0"),
        (dict(split="valid", step=99), "makes . batches"),
        (dict(workdir="empty"), "has no store"),
        (dict(changes=dict(seq_len=999, masking__schemes=("stars",))), "position table.*\n.*'stars'"),
    ],
)
def test_errors_are_reported(arguments, message, store, tmp_path):
    workdir = tmp_path / arguments["workdir"] if "workdir" in arguments else None
    config = small_config(**{"data__store": "" if workdir else str(store.folder)} | arguments.get("changes", {}))
    with pytest.raises(InputError, match=message):
        batch_to_show(config, workdir, arguments.get("split", "train"), arguments.get("step", 0), pytest.fail)
    assert list(tmp_path.iterdir()) == []
