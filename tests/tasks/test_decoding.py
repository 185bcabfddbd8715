"""Searches: greedy beside a loop, beam search beside brute force and a plain program, rows that do not wait."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spanbert_jax.tasks.decoding import beam_search, greedy, lengths

V, END = 4, 0


def table_of(seed: int, rows: int, size: int) -> np.ndarray:
    """Log-probabilities [rows, size, V, V] of a token by row, position and the token before; a hard to search one."""
    logits = 2 * np.random.default_rng(seed).normal(size=(rows, size, V, V))
    return (logits - np.log(np.exp(logits).sum(-1, keepdims=True))).astype(np.float32)


def model_of(table):
    """The step and the start of a search; the cache knows its row, so a wrong reordering is seen."""
    table = jnp.asarray(table)
    rows = len(table)

    def step(tokens, index, cache):
        [row, before] = cache[0], cache[1]
        # The cache holds the token chosen before; with the last one it must continue the same hypothesis.
        return table[row[0], index, tokens], (row, before.at[0].set(tokens))

    cache = (jnp.arange(rows)[None], jnp.zeros((1, rows), jnp.int32))
    return step, table[:, 0, END], cache


def score_of(table, text, alpha) -> float:
    before = (END, *text)
    total = sum(table[index, before[index], token] for index, token in enumerate(text))
    return total / ((5 + len(text)) / 6) ** alpha


def text_of(tokens) -> tuple:
    return tuple(int(token) for token in tokens[: int(lengths(jnp.asarray(tokens), END))])


def every_text(size: int):
    for length in range(1, size + 1):
        for start in itertools.product(range(1, V), repeat=length - 1):
            yield (*start, END)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_beam_that_holds_all_texts_finds_the_best_one(seed, alpha):
    table = table_of(seed, 3, 4)
    texts, scores = jax.jit(lambda: beam_search(*model_of(table), 4, END, alpha, V**4))()
    for row in range(3):
        best = max(every_text(4), key=lambda text: score_of(table[row], text, alpha))
        assert text_of(texts[row]) == best
        np.testing.assert_allclose(scores[row], score_of(table[row], best, alpha), rtol=1e-5)


def plain_beam_search(table, size, alpha, beams):
    going, ended = [((), 0.0)], []
    for index in range(size):
        every = [
            ((*text, token), logp + table[index, ((END, *text))[-1], token])
            for text, logp in going
            for token in range(V)
        ]
        every.sort(key=lambda pair: -pair[1])
        ended += [text for text, _ in every[:beams] if text[-1] == END]
        going = [pair for pair in every if pair[0][-1] != END][:beams]
        if len(ended) >= beams:
            break
    return max(ended, key=lambda text: score_of(table, text, alpha)) if ended else going[0][0]


@pytest.mark.parametrize("beams", [1, 2, 3, 5])
def test_beam_search_equals_a_plain_program(beams):
    table = table_of(7, 40, 6)
    table[:5, :, :, END] -= 20.0  # texts that are cut
    texts, scores = jax.jit(lambda: beam_search(*model_of(table), 6, END, 0.6, beams))()
    found = [text_of(text) for text in texts]
    assert found == [plain_beam_search(of_row, 6, 0.6, beams) for of_row in table]
    np.testing.assert_allclose(scores, [score_of(of_row, text, 0.6) for of_row, text in zip(table, found)], rtol=1e-5)
    assert len({len(text) for text in found}) > 3 and (beams > 3 or {len(text) for text in found[:5]} == {6})


def test_greedy_takes_the_best_token_and_equals_a_beam_of_one():
    table = table_of(11, 40, 6)
    texts, scores = jax.jit(lambda: greedy(*model_of(table), 6, END, 0.6))()
    for of_row, given in zip(table, texts):
        text = [END]
        while len(text) == 1 or (text[-1] != END and len(text) <= 6):
            text.append(int(of_row[len(text) - 1, text[-1]].argmax()))
        assert text_of(given) == tuple(text[1:])
    same, same_scores = jax.jit(lambda: beam_search(*model_of(table), 6, END, 0.6, 1))()
    assert [text_of(text) for text in same] == [text_of(text) for text in texts]
    np.testing.assert_allclose(same_scores, scores, rtol=1e-5)
    assert all(math.isfinite(score) for score in scores)


def test_what_a_row_finds_does_not_depend_on_others():
    table = table_of(3, 12, 5)
    search = jax.jit(lambda table: beam_search(*model_of(table), 5, END, 1.0, 3))
    together, _ = search(table)
    for row in range(12):
        alone, _ = search(table[row : row + 1])
        assert text_of(alone[0]) == text_of(together[row])
