"""The masking law: the plain reference against the original's goldens, the tf ops against the reference, and the original's statistics."""

import dataclasses
import json
import sys
from pathlib import Path

import masking_reference
import numpy as np
import pytest
import synthetic
import tensorflow as tf

from spanbert_jax.data import masking, schemes
from spanbert_jax.errors import InputError

sys.path.insert(0, str(Path(__file__).parents[2] / "configs"))
import base

SETTINGS = schemes.settings_from_config(base.get_config())
GOLDEN = json.loads((synthetic.GOLDENS / "golden_masking.json").read_text())
STATISTICS = json.loads((synthetic.GOLDENS / "original_masking_stats.json").read_text())["runs"]


# The reference against the original. ----------------------------------------------------------------------------------------------------


class LegacyDraws:
    """The original's order of draws from numpy's global generator (reference 1.4)."""

    def __init__(self, args, seed):
        self.args, self.numbers = args, np.random.RandomState(seed)

    def candidates(self, length):
        lengths = np.arange(self.args["span_lower"], self.args["span_upper"] + 1)
        odds = self.args["geometric_p"] * (1 - self.args["geometric_p"]) ** (lengths - lengths[0])
        while True:
            words = self.numbers.choice(lengths, p=odds / odds.sum())
            self.numbers.rand()  # whether to take a tagged anchor: never
            yield self.numbers.choice(length), words

    def fate(self, position):
        return self.numbers.random_sample()

    def random_token(self, position):
        return self.numbers.choice(GOLDEN["corpus"])


@pytest.mark.parametrize(
    "case", GOLDEN["cases"], ids=lambda case: f"{case['scheme']}-{len(case['sentence'])}-{case['seed']}"
)
def test_reference_reproduces_the_original(case):
    sentence, args = case["sentence"], case["args"]
    draws = LegacyDraws(args, case["seed"])
    replacement = "token" if args["replacement_method"] == "word_piece" else "span"
    if case["scheme"] == "random":
        count = -(-len(sentence) * 15 // 100)
        masked = set(draws.numbers.choice(len(sentence), count, replace=False))
        spans = [(index, index) for index in sorted(masked)]  # not merged: every token has its own fate
        pairs = None
    else:
        masked = masking_reference.place(
            [token < 1000 for token in sentence], args["mask_ratio"], draws.candidates(len(sentence))
        )
        spans = masking_reference.merge(masked)
        pairs = masking_reference.pair_rows(sentence, spans, args["endpoints"], args["max_pair_targets"])
    shown = masking_reference.replace(sentence, spans, replacement, 0.8, 0.1, 103, draws)
    assert shown == case["out"]
    assert [token if index in masked else 0 for index, token in enumerate(sentence)] == case["target"]
    assert (None if args["return_only_spans"] else pairs) == case["pairs"]


# The tf ops against the reference. ------------------------------------------------------------------------------------------------------


def slots_of(rows, settings):
    length, most = rows.fields["tokens"].shape[1], rows.fields["block_start"].shape[1]
    return masking.mask_slots(settings.rate, [(blocks, length - 2 * blocks) for blocks in range(1, most + 1)])


def mask(rows, settings, epoch=3, seed=11, ids=None):
    """masking.mask of all rows (or those of `ids`) as numpy."""
    ids = np.arange(rows.num_rows) if ids is None else np.array(ids, np.int64)
    fields = {name: tf.constant(field) for name, field in rows.read(ids).items()}
    slots = slots_of(rows, settings)
    key = masking.row_key(seed, 0, tf.fill(ids.shape, np.int64(epoch)), tf.constant(ids))
    counts_upto = np.cumsum(synthetic.token_counts())
    out = masking.mask(fields, key, settings, slots, synthetic.Tokenizer.starts_word, counts_upto, synthetic.MASK)
    return {name: value.numpy() for name, value in out.items()}


def reference(rows, settings, epoch=3, seed=11):
    slots = slots_of(rows, settings)
    out = []
    for row in range(rows.num_rows):
        key = masking_reference.threefry(masking_reference.threefry((seed, 0), (epoch, 0)), (row, 0))
        fields = {name: field[row] for name, field in rows.fields.items()}
        blocks = [
            (start, length)
            for start, length in zip(fields["block_start"].tolist(), fields["block_length"].tolist())
            if length
        ]
        out.append(
            masking_reference.mask_row(
                fields["tokens"].tolist(),
                fields["tags"].tolist(),
                blocks,
                key,
                settings,
                slots,
                synthetic.Tokenizer.starts_word,
                synthetic.token_counts(),
                synthetic.MASK,
            )
        )
    return {name: np.array([row[name] for row in out]) for name in out[0]}


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


def change(**changes):
    return dataclasses.replace(SETTINGS, **changes)


@pytest.mark.parametrize(
    "settings",
    [
        SETTINGS,
        change(boundaries="internal", replacement="token", max_targets=4),
        change(schemes=("whole_word",), max_targets=2),
        change(schemes=("fixed_span",), fixed_span=4),
        change(schemes=("subword",), replacement="token", mask_fraction=0.5, random_fraction=0.5),
        change(schemes=("geometric_span", "subword", "whole_word", "fixed_span"), weights=(2.0, 1.0, 0.0, 3.0)),
        change(rate=0.4, min_span=2, max_span=5, geometric_p=0.5),
        change(rate=0.9),
        change(schemes=("named_entity",)),
        change(schemes=("pmi",)),
        change(
            schemes=("noun_phrase", "geometric_span", "pmi", "named_entity"), weights=(1.0,) * 4, tagged_fraction=0.9
        ),
    ],
    ids=[
        "paper",
        "internal",
        "whole_word",
        "fixed",
        "subword",
        "mixed",
        "rate40",
        "rate90",
        "named_entity",
        "pmi",
        "tags_mixed",
    ],
)
@pytest.mark.parametrize("seq_len, most", [(512, 1), (512, 6), (64, 1), (64, 9), (3, 1)])
def test_ops_equal_the_reference(settings, seq_len, most):
    numbers = np.random.default_rng(seq_len + most)
    rows = synthetic.Rows(
        seq_len, synthetic.random_blocks(numbers, 3 if seq_len == 512 else 16, seq_len, most), seed=most
    )
    assert_same(mask(rows, settings), reference(rows, settings))


def test_ops_equal_the_reference_at_every_length():
    lengths = [1, 2, 3, 5, 6, 7, 8, 13, 14, 20, 33, 40, 126, 254, 400, 509, 510]
    rows = synthetic.Rows(512, [[length] for length in lengths])
    ours = mask(rows, SETTINGS)
    assert_same(ours, reference(rows, SETTINGS))
    assert ours["mlm_weights"].sum(1).tolist() == [-(-length * 15 // 100) for length in lengths]


def test_blocks_that_begin_inside_a_word_and_words_longer_than_a_block():
    rows = synthetic.Rows(64, [[40, 18], [60]])
    rows.fields["tokens"][0, 1:10] = 1500  # the first block begins with continuation tokens
    rows.fields["tokens"][1, 1:61] = 1600  # and this one is all one word
    assert_same(mask(rows, SETTINGS), reference(rows, SETTINGS))


def test_tagged_runs_are_masked_whole_and_half_of_the_draws_take_one():
    rows = synthetic.Rows(512, [[510]] * 200)
    tagged = np.zeros((200, 512), bool)
    for start in range(5, 500, 25):  # 20 runs of 3 tokens, an eighth of the text
        tagged[:, start : start + 3] = True
    rows.fields["tags"][:] = tagged
    shares = {}
    for fraction in (0.0, 0.5, 0.95):
        out = mask(rows, change(schemes=("named_entity",), tagged_fraction=fraction))
        masked = np.zeros((200, 512), bool)
        np.put_along_axis(masked, out["mlm_positions"], out["mlm_weights"] > 0, 1)
        assert (masked[:, 1:].sum(1) == 77).all()
        runs = masked[tagged].reshape(200, 20, 3).sum(2)
        shares[fraction] = np.mean(runs == 3)
    # 77 tokens at 60 that are tagged: half of the draws first take every run at least once on average, and nearly all of them at 0.95
    assert shares[0.0] < 0.1 < 0.7 < shares[0.5] < shares[0.95] and shares[0.95] > 0.95


def test_rows_without_blocks_stay_as_they_are():
    rows = synthetic.Rows(32, [[20], [], [7, 8]])
    out = mask(rows, SETTINGS)
    assert not any(out[name][1].any() for name in out)
    assert out["mlm_weights"].sum(1).tolist() == [3, 0, 4]
    empty = mask(synthetic.Rows(32, [[20]]), SETTINGS, ids=[])
    assert all(len(field) == 0 for field in empty.values())
    nothing = synthetic.Rows(32, [[20]])
    nothing.fields["block_length"][:] = 0
    assert not mask(nothing, SETTINGS)["mlm_weights"].any()


def test_masks_do_not_depend_on_the_batch_or_on_how_many_candidates_are_drawn_at_once(monkeypatch):
    rows = synthetic.Rows(128, synthetic.random_blocks(np.random.default_rng(0), 40, 128, 4))
    whole = mask(rows, SETTINGS)
    some = [31, 2, 17]
    assert_same(mask(rows, SETTINGS, ids=some), {name: field[some] for name, field in whole.items()})
    for candidates in ((1, 1), (3, 3), (50, 50)):
        monkeypatch.setattr(masking, "CANDIDATES", candidates)
        assert_same(mask(rows, SETTINGS), whole)


def test_masks_change_with_epoch_seed_and_row():
    rows = synthetic.Rows(128, [[126]] * 4)
    for name in rows.fields:
        rows.fields[name][:] = rows.fields[name][:1]
    first = mask(rows, SETTINGS)["mlm_positions"]
    assert len({tuple(row) for row in first}) == 4
    assert (mask(rows, SETTINGS, epoch=4)["mlm_positions"] != first).any(1).all()
    assert (mask(rows, SETTINGS, seed=12)["mlm_positions"] != first).any(1).all()
    assert (mask(rows, SETTINGS, seed=11 + 2**32)["mlm_positions"] != first).any(1).all()


# Slots. ---------------------------------------------------------------------------------------------------------------------------------


def most_masked(room, blocks, rate):
    """By trying all ways to fill `room` tokens, [CLS] and [SEP] counted, with up to `blocks` blocks."""
    if not blocks or room < 3:
        return 0
    return max(
        masking.budgets(room, rate)[length] + most_masked(room - length - 2, blocks - 1, rate)
        for length in range(1, room - 1)
    )


@pytest.mark.parametrize("rate", [0.15, 0.4, 1.0])
def test_mask_slots_is_the_exact_bound(rate):
    for seq_len in (3, 4, 5, 9, 16, 21):
        for blocks in (1, 2, 3, 4):
            layouts = [(number, seq_len - 2 * number) for number in range(1, min(blocks, seq_len // 3) + 1)]
            assert masking.mask_slots(rate, layouts) == most_masked(seq_len, blocks, rate), (seq_len, blocks)
    assert masking.mask_slots(0.15, [(1, 510)]) == 77  # reference 1.3.1
    assert masking.mask_slots(0.15, [(2, 509)]) == 78  # a pair rounds up twice


# The original's statistics. -------------------------------------------------------------------------------------------------------------


FATES = ("mask", "random", "keep", "mixed")


def statistics(length, blocks, single, settings):
    """What original_masking_stats.json measures, of blocks of one length: means, and arrays to take deviations from."""
    rows = synthetic.Rows(length + 2, [[length]] * blocks, seed=length, single=single)
    out = mask(rows, settings, seed=12345)
    tokens, shown = rows.fields["tokens"], out["tokens"]
    there = out["mlm_weights"] > 0
    masked = np.zeros(tokens.shape, bool)
    np.put_along_axis(masked, out["mlm_positions"], there, 1)
    masked[:, 0] = False  # empty slots point there
    first, last = masked & ~np.roll(masked, 1, 1), masked & ~np.roll(masked, -1, 1)
    (row, begin), end = np.nonzero(first), np.nonzero(last)[1]
    starts = synthetic.Tokenizer.starts_word[tokens]
    words = np.cumsum(starts, 1)
    parts = [(shown[r, b : e + 1], tokens[r, b : e + 1]) for r, b, e in zip(row, begin, end)]
    fates = np.array([fate(a, b) for a, b in parts])
    return {
        "masked": masked[:, 1:-1],
        "spans": np.bincount(row, minlength=blocks),
        "tokens": end - begin + 1,
        "words": np.maximum(
            words[row, end] - words[row, begin - 1], 1
        ),  # tokens that start a word, as the statistics count
        "starts": starts[row, begin],
        "ends": starts[row, end + 1],
        "edges": (begin == 1) | (end == length),
        "fates": fates,
        "sbo": out["sbo_weights"].sum(1),
        "bounded": out["sbo_left"][out["sbo_weights"] > 0] > 0,
    }


def fate(shown, tokens):
    """Index into FATES of what became of one merged span."""
    if (shown == synthetic.MASK).all():
        return 0
    if (shown == tokens).all():
        return 2
    return 3 if (shown == tokens).any() or (shown == synthetic.MASK).any() else 1


def assert_close(name, ours, theirs, deviation, count, their_count, sigmas=3.0):
    sigma = deviation * np.sqrt(1 / count + 1 / their_count)
    assert abs(ours - theirs) <= sigmas * sigma + 6e-5, (
        f"{name}: {ours:.5f}, the original {theirs:.5f}, sigma {sigma:.5f}"
    )


@pytest.mark.parametrize(
    "run, blocks, changes",
    [
        ("paper_pair_span_510", 4000, {}),
        ("pair_span_510_single_piece_words", 1000, {}),
        ("whole_words_510_upper1", 1000, {"schemes": ("whole_word",)}),
        ("pair_span_510_word_piece_repl", 1000, {"replacement": "token"}),
        ("random_510", 1000, {"schemes": ("subword",), "replacement": "token"}),
        ("pair_span_126", 4000, {}),
        ("pair_span_20", 4000, {}),
        ("pair_span_7", 4000, {}),
    ],
)
def test_statistics_of_the_original(run, blocks, changes):
    theirs = STATISTICS[run]
    length = theirs["block_len"]
    ours = statistics(length, blocks, "single" in run, change(**changes))
    many = theirs["n_blocks"]
    spans, their_spans = len(ours["tokens"]), theirs["merged_spans_per_block_mean"] * many

    assert (ours["masked"].sum(1) == theirs["expected_mask_count"]).all()
    assert_close(
        "merged spans", ours["spans"].mean(), theirs["merged_spans_per_block_mean"], ours["spans"].std(), blocks, many
    )
    for what, name in (("tokens", "tokens"), ("words", "words")):
        mean = theirs[f"merged_span_len_{name}_mean"]
        assert_close(f"merged {what}", ours[what].mean(), mean, ours[what].std(), spans, their_spans)
        for size, share in theirs[f"merged_span_len_{name}_hist"].items():
            mine = (ours[what] == int(size)).mean()
            assert_close(
                f"{what} == {size}", mine, share, np.sqrt(share * (1 - share)), spans, their_spans, sigmas=4
            )  # dozens of them
    for what, name in (("starts", "merged_spans_starting_at_word_start"), ("ends", "merged_spans_ending_at_word_end")):
        assert_close(what, ours[what].mean(), theirs[name], ours[what].std(), spans, their_spans)
    for index, name in enumerate(FATES):
        share = theirs["replacement_by_merged_span"].get(name, 0.0)
        mine = (ours["fates"] == index).mean()
        deviation = np.sqrt(max(share, mine) * (1 - share))
        assert_close(name, mine, share, deviation, spans, their_spans)
    for where, rate in enumerate(theirs["mask_rate_first_20_positions"][:length]):
        assert_close(
            f"position {where}",
            ours["masked"][:, where].mean(),
            rate,
            np.sqrt(rate * (1 - rate)),
            blocks,
            many,
            sigmas=4,
        )
    if "sbo_targets_per_block" in theirs:
        assert_close(
            "SBO targets", ours["sbo"].mean(), theirs["sbo_targets_per_block"], ours["sbo"].std(), blocks, many
        )
        dropped = theirs["merged_spans_dropped_from_pairs_at_block_edge"]
        assert_close("edges", ours["edges"].mean(), dropped, np.sqrt(dropped * (1 - dropped)), spans, their_spans)
        assert ours["bounded"].all()


def test_random_tokens_follow_the_counts():
    rows = synthetic.Rows(512, [[510]] * 400)
    out = mask(rows, change(mask_fraction=0.0, random_fraction=1.0))
    drawn = np.take_along_axis(out["tokens"], out["mlm_positions"], 1)[out["mlm_weights"] > 0]
    odds = synthetic.token_counts() / synthetic.token_counts().sum()
    seen = np.bincount(drawn, minlength=len(odds))
    assert not seen[odds == 0].any()
    expected = odds[odds > 0] * len(drawn)
    chi_square = ((seen[odds > 0] - expected) ** 2 / expected).sum()
    freedom = len(expected) - 1
    assert abs(chi_square - freedom) < 4 * np.sqrt(2 * freedom)


# Settings. ------------------------------------------------------------------------------------------------------------------------------


def test_settings_refuse_what_cannot_be_masked():
    for name, value, words in (
        ("schemes", ("geometric_spam",), "unknown scheme 'geometric_spam'; known: subword"),
        ("weights", (0.5, 0.5), "masking.weights"),
        ("replacement", "word", "masking.replacement"),
        ("boundaries", "both", "masking.boundaries"),
        ("rate", 0.0, "masking.rate"),
        ("min_span", 11, "min_span <= max_span"),
        ("tagged_fraction", 1.0, "masking.tagged_fraction"),
    ):
        config = base.get_config()
        with config.unlocked():
            config.masking[name] = value
        with pytest.raises(InputError, match=words):
            schemes.settings_from_config(config)
