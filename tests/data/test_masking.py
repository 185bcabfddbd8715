"""Masking: the plain reference against the original's goldens, numpy against the reference, and statistics."""

import dataclasses
import json

import numpy as np
import pytest

from spanbert_jax.configs import base
from spanbert_jax.data import masking, targets
from spanbert_jax.data.schemes import settings_from_config
from spanbert_jax.errors import InputError
from tests.data import masking_reference, synthetic

SETTINGS = settings_from_config(base.get_config())
GOLDEN = json.loads((synthetic.GOLDENS / "golden_masking.json").read_text())
STATISTICS = json.loads((synthetic.GOLDENS / "original_masking_stats.json").read_text())["runs"]


# ----------------------------------------------------------------------------------------------------------------------
# The reference against the original.


class LegacyDraws:
    """The original's order of draws from numpy's global generator (docs/original.md 1.4)."""

    def __init__(self, args, seed):
        self.args, self.numbers = args, np.random.RandomState(seed)

    def candidates(self, length):
        lengths = np.arange(self.args["span_lower"], self.args["span_upper"] + 1)
        weights = self.args["geometric_p"] * (1 - self.args["geometric_p"]) ** (lengths - lengths[0])
        while True:
            words = self.numbers.choice(lengths, p=weights / weights.sum())
            self.numbers.rand()  # whether to take a tagged anchor: never
            yield self.numbers.choice(length), words

    def replacement(self, position):
        return self.numbers.random_sample()

    def random_token(self, position):
        return self.numbers.choice(GOLDEN["corpus"])


def case_name(case):
    return f"{case['scheme']}-{len(case['sentence'])}-{case['seed']}"


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=case_name)
def test_reference_reproduces_the_original(case):
    sentence, args = case["sentence"], case["args"]
    draws = LegacyDraws(args, case["seed"])
    replacement = "token" if args["replacement_method"] == "word_piece" else "span"
    if case["scheme"] == "random":
        count = -(-len(sentence) * 15 // 100)
        masked = set(draws.numbers.choice(len(sentence), count, replace=False))
        spans = [(index, index) for index in sorted(masked)]  # not merged: every token has its own replacement
        pairs = None
    else:
        starts_word = [token < 1000 for token in sentence]
        masked = masking_reference.masked_tokens(starts_word, args["mask_ratio"], draws.candidates(len(sentence)))
        spans = masking_reference.merge(masked)
        pairs = masking_reference.pair_rows(sentence, spans, args["endpoints"], args["max_pair_targets"])
    shown = masking_reference.replace(sentence, spans, replacement, 0.8, 0.1, 103, draws)
    assert shown == case["out"]
    assert [token if index in masked else 0 for index, token in enumerate(sentence)] == case["target"]
    assert (None if args["return_only_spans"] else pairs) == case["pairs"]


# ----------------------------------------------------------------------------------------------------------------------
# Numpy against the reference.


def slots_of(rows, settings):
    length, most = rows.fields["tokens"].shape[1], rows.fields["block_start"].shape[1]
    return masking.mask_slots(settings.rate, [(blocks, length - 2 * blocks) for blocks in range(1, most + 1)])


def mask(rows, settings, epoch=3, seed=11, ids=None):
    """Returns targets.mask of all rows (or those of `ids`) as numpy arrays."""
    ids = np.arange(rows.num_rows) if ids is None else np.array(ids, np.int64)
    fields = rows.read(ids)
    slots = slots_of(rows, settings)
    key = masking.row_key(seed, 0, np.full(ids.shape, epoch), ids)
    counts_upto = np.cumsum(synthetic.token_counts())
    constants = synthetic.Tokenizer.starts_word, counts_upto, synthetic.MASK
    return targets.mask(fields, key, settings, slots, *constants, ("mlm", "sbo"))


def reference(rows, settings, epoch=3, seed=11):
    slots = slots_of(rows, settings)
    out = []
    for row in range(rows.num_rows):
        key = masking_reference.threefry(masking_reference.threefry((seed, 0), (epoch, 0)), (row, 0))
        fields = {name: field[row] for name, field in rows.fields.items()}
        blocks = zip(fields["block_start"].tolist(), fields["block_length"].tolist())
        blocks = [(start, length) for start, length in blocks if length]
        vocabulary = synthetic.Tokenizer.starts_word, synthetic.token_counts(), synthetic.MASK
        tokens, tags = fields["tokens"].tolist(), fields["tags"].tolist()
        out.append(masking_reference.mask_row(tokens, tags, blocks, key, settings, slots, *vocabulary))
    return {name: np.array([row[name] for row in out]) for name in out[0]}


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


def change(**changes):
    return dataclasses.replace(SETTINGS, **changes)


ALL_TAGGED = ("noun_phrase", "geometric_span", "pmi", "named_entity")
CASES = {
    "paper": SETTINGS,
    "internal": change(boundaries="internal", replacement="token", max_targets=4),
    "whole_word": change(schemes=("whole_word",), max_targets=2),
    "fixed": change(schemes=("fixed_span",), fixed_span=4),
    "subword": change(schemes=("subword",), replacement="token", mask_fraction=0.5, random_fraction=0.5),
    "mixed": change(schemes=("geometric_span", "subword", "whole_word", "fixed_span"), weights=(2.0, 1.0, 0.0, 3.0)),
    "rate40": change(rate=0.4, min_span=2, max_span=5, geometric_p=0.5),
    "rate90": change(rate=0.9),
    "named_entity": change(schemes=("named_entity",)),
    "pmi": change(schemes=("pmi",)),
    "pmi_fused": change(schemes=("pmi",), touching_tags="fused"),
    "tags_mixed": change(schemes=ALL_TAGGED, weights=(1.0,) * 4, tagged_fraction=0.9),
}


@pytest.mark.parametrize("settings", CASES.values(), ids=CASES)
@pytest.mark.parametrize("seq_len, most", [(512, 1), (512, 6), (64, 1), (64, 9), (3, 1)])
def test_ops_equal_the_reference(settings, seq_len, most):
    numbers = np.random.default_rng(seq_len + most)
    blocks = synthetic.random_blocks(numbers, 3 if seq_len == 512 else 16, seq_len, most)
    rows = synthetic.Rows(seq_len, blocks, seed=most)
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


def test_tagged_intervals_are_masked_as_a_whole_and_half_of_the_draws_take_one():
    rows = synthetic.Rows(512, [[510]] * 200)
    tagged = np.zeros((200, 512), bool)
    for start in range(5, 500, 25):  # 20 intervals of 3 tokens, an eighth of the text
        tagged[:, start : start + 3] = True
    rows.fields["tags"][:] = tagged
    shares = {}
    for fraction in (0.0, 0.5, 0.95):
        out = mask(rows, change(schemes=("named_entity",), tagged_fraction=fraction))
        masked = np.zeros((200, 512), bool)
        np.put_along_axis(masked, out["mlm_positions"], out["mlm_weights"] > 0, 1)
        assert (masked[:, 1:].sum(1) == 77).all()
        masked_of_interval = masked[tagged].reshape(200, 20, 3).sum(2)
        shares[fraction] = np.mean(masked_of_interval == 3)
    # 77 tokens are masked and 60 are tagged: with half of the draws, every interval is drawn at least once on average;
    # at 0.95, nearly all of them are.
    assert shares[0.0] < 0.1 < 0.7 < shares[0.5] < shares[0.95] and shares[0.95] > 0.95


def test_rows_without_blocks_are_unchanged():
    rows = synthetic.Rows(32, [[20], [], [7, 8]])
    out = mask(rows, SETTINGS)
    assert not any(out[name][1].any() for name in out)
    assert out["mlm_weights"].sum(1).tolist() == [3, 0, 4]
    empty = mask(synthetic.Rows(32, [[20]]), SETTINGS, ids=[])
    assert all(len(field) == 0 for field in empty.values())
    nothing = synthetic.Rows(32, [[20]])
    nothing.fields["block_length"][:] = 0
    assert not mask(nothing, SETTINGS)["mlm_weights"].any()


def test_masks_do_not_depend_on_batch_or_number_of_candidates_drawn_at_once(monkeypatch):
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


# ----------------------------------------------------------------------------------------------------------------------
# Slots.


def most_masked(remaining, blocks, rate):
    """Tries all ways to fill `remaining` tokens, [CLS] and [SEP] included, with up to `blocks` blocks."""
    if not blocks or remaining < 3:
        return 0
    return max(
        masking.budgets(remaining, rate)[length] + most_masked(remaining - length - 2, blocks - 1, rate)
        for length in range(1, remaining - 1)
    )


@pytest.mark.parametrize("rate", [0.15, 0.4, 1.0])
def test_mask_slots_is_the_exact_bound(rate):
    for seq_len in (3, 4, 5, 9, 16, 21):
        for blocks in (1, 2, 3, 4):
            layouts = [(number, seq_len - 2 * number) for number in range(1, min(blocks, seq_len // 3) + 1)]
            assert masking.mask_slots(rate, layouts) == most_masked(seq_len, blocks, rate), (seq_len, blocks)
    assert masking.mask_slots(0.15, [(1, 510)]) == 77  # docs/original.md 1.3.1
    assert masking.mask_slots(0.15, [(2, 509)]) == 78  # a pair rounds up twice


# ----------------------------------------------------------------------------------------------------------------------
# The original's statistics.


REPLACEMENTS = ("mask", "random", "keep", "mixed")


def statistics(length, blocks, single, settings):
    """Measures what original_masking_stats.json has, for blocks of one length: arrays for means and deviations."""
    rows = synthetic.Rows(length + 2, [[length]] * blocks, seed=length, single=single)
    out = mask(rows, settings, seed=12345)
    tokens, shown = rows.fields["tokens"], out["tokens"]
    masked = np.zeros(tokens.shape, bool)
    np.put_along_axis(masked, out["mlm_positions"], out["mlm_weights"] > 0, 1)
    masked[:, 0] = False  # unused slots have position 0
    first, last = masked & ~np.roll(masked, 1, 1), masked & ~np.roll(masked, -1, 1)
    (row, begin), end = np.nonzero(first), np.nonzero(last)[1]
    starts = synthetic.Tokenizer.starts_word[tokens]
    words = np.cumsum(starts, 1)
    spans = [(r, slice(b, e + 1)) for r, b, e in zip(row, begin, end)]
    replacements = np.array([replacement_of(shown[span], tokens[span]) for span in spans])
    return {
        "masked": masked[:, 1:-1],
        "spans": np.bincount(row, minlength=blocks),
        "tokens": end - begin + 1,
        "words": np.maximum(words[row, end] - words[row, begin - 1], 1),  # counted as tokens that start a word
        "starts": starts[row, begin],
        "ends": starts[row, end + 1],
        "edges": (begin == 1) | (end == length),
        "replacements": replacements,
        "sbo": out["sbo_weights"].sum(1),
        "bounded": out["sbo_left"][out["sbo_weights"] > 0] > 0,
    }


def replacement_of(shown, tokens):
    """Returns the index in REPLACEMENTS of the replacement of one merged span."""
    if (shown == synthetic.MASK).all():
        return 0
    if (shown == tokens).all():
        return 2
    return 3 if (shown == tokens).any() or (shown == synthetic.MASK).any() else 1


def assert_close(name, ours, theirs, deviation, count, their_count, sigmas=3.0):
    sigma = deviation * np.sqrt(1 / count + 1 / their_count)
    message = f"{name}: {ours:.5f}, the original {theirs:.5f}, sigma {sigma:.5f}"
    assert abs(ours - theirs) <= sigmas * sigma + 6e-5, message


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

    def assert_share(name, mine, share, count, their_count, sigmas=3.0):
        deviation = np.sqrt(share * (1 - share))
        assert_close(name, mine, share, deviation, count, their_count, sigmas)

    assert (ours["masked"].sum(1) == theirs["expected_mask_count"]).all()
    mean = theirs["merged_spans_per_block_mean"]
    assert_close("merged spans", ours["spans"].mean(), mean, ours["spans"].std(), blocks, many)
    for what in ("tokens", "words"):
        mean = theirs[f"merged_span_len_{what}_mean"]
        assert_close(f"merged {what}", ours[what].mean(), mean, ours[what].std(), spans, their_spans)
        for size, share in theirs[f"merged_span_len_{what}_hist"].items():  # dozens of shares, so 4 sigmas
            assert_share(f"{what} == {size}", (ours[what] == int(size)).mean(), share, spans, their_spans, sigmas=4)
    for what, name in (("starts", "merged_spans_starting_at_word_start"), ("ends", "merged_spans_ending_at_word_end")):
        assert_close(what, ours[what].mean(), theirs[name], ours[what].std(), spans, their_spans)
    for index, name in enumerate(REPLACEMENTS):
        share = theirs["replacement_by_merged_span"].get(name, 0.0)
        mine = (ours["replacements"] == index).mean()
        assert_close(name, mine, share, np.sqrt(max(share, mine) * (1 - share)), spans, their_spans)
    for position, rate in enumerate(theirs["mask_rate_first_20_positions"][:length]):
        mine = ours["masked"][:, position].mean()
        assert_share(f"position {position}", mine, rate, blocks, many, sigmas=4)
    if "sbo_targets_per_block" in theirs:
        mean = theirs["sbo_targets_per_block"]
        assert_close("SBO targets", ours["sbo"].mean(), mean, ours["sbo"].std(), blocks, many)
        dropped = theirs["merged_spans_dropped_from_pairs_at_block_edge"]
        assert_share("edges", ours["edges"].mean(), dropped, spans, their_spans)
        assert ours["bounded"].all()


def test_random_tokens_follow_the_counts():
    rows = synthetic.Rows(512, [[510]] * 400)
    out = mask(rows, change(mask_fraction=0.0, random_fraction=1.0))
    drawn = np.take_along_axis(out["tokens"], out["mlm_positions"], 1)[out["mlm_weights"] > 0]
    probability = synthetic.token_counts() / synthetic.token_counts().sum()
    seen = np.bincount(drawn, minlength=len(probability))
    assert not seen[probability == 0].any()
    expected = probability[probability > 0] * len(drawn)
    chi_square = ((seen[probability > 0] - expected) ** 2 / expected).sum()
    freedom = len(expected) - 1
    assert abs(chi_square - freedom) < 4 * np.sqrt(2 * freedom)


# ----------------------------------------------------------------------------------------------------------------------
# Settings.


def test_invalid_settings_are_refused():
    for name, value, words in (
        ("schemes", ("geometric_spam",), "unknown scheme 'geometric_spam'; known: subword"),
        ("weights", (0.5, 0.5), "masking.weights"),
        ("replacement", "word", "masking.replacement"),
        ("boundaries", "both", "masking.boundaries"),
        ("rate", 0.0, "masking.rate"),
        ("min_span", 11, "min_span 11 is more than masking.max_span 10"),
        ("tagged_fraction", 1.0, "masking.tagged_fraction"),
    ):
        config = base.get_config()
        with config.unlocked():
            config.masking[name] = value
        with pytest.raises(InputError, match=words):
            settings_from_config(config)
