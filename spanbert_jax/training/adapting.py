"""Adapts the parameters of a model to another one: more layers or width, other positions, another vocabulary.

Parameters are float32 arrays by our paths. Nothing here is random.
"""

from collections.abc import Sequence

import numpy as np

from spanbert_jax.data.tokenizer import Tokenizer
from spanbert_jax.data.tokenizer_files import CONTINUATION
from spanbert_jax.errors import InputError
from spanbert_jax.interop.names import STACKED, Shapes, Weights

VOCABULARY = ("encoder/embeddings/word", "encoder/embeddings/output/table", "mlm/bias", "sbo/bias")
POSITIONS = "encoder/embeddings/position"
SPAN_INPUTS = "sbo/linear1/kernel"  # its inputs are two states and a position embedding, one after another
# The norms whose outputs are multiplied with the word embeddings.
PROJECTED = ("mlm/norm/", "sbo/norm2/")


def tiled(params: Weights, shapes: Shapes) -> Weights:
    """Returns the parameters of a larger model, made of copies of a smaller one's.

    A layer is made of the layer at the same relative depth. Along every other axis the copy lies in the centre, and
    what is left over is filled by wrapping around (ModernBERT, Warner et al. 2024, section 2.2.2, for its large model).
    Here what is summed over more copies is divided by their number, so that a model of a multiple of the width, with as
    many layers, computes the same function at first.

    Args:
      params: of the smaller model.
      shapes: of the larger model, by path; those of other paths are left out.

    Raises:
      InputError: an axis would have to shrink, or the width of heads differs.
    """
    return {path: _tiled(path, array, shapes[path]) for path, array in params.items() if path in shapes}


def _tiled(path: str, array: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    stacked = int(path.startswith(STACKED))
    head_width = array.ndim - 1 - path.endswith("output/kernel") if "/attention/" in path and array.ndim > 2 else None
    summed = range(stacked, stacked + (2 if path.endswith("attention/output/kernel") else 1))  # axes, of a kernel
    other_heads = head_width is not None and array.shape[head_width] != shape[head_width]
    if other_heads or any(new < old for old, new in zip(array.shape, shape)):
        what = "of another width of heads" if other_heads else "smaller"
        raise InputError(f"init.size 'tile': {path} is {array.shape} there, {tuple(shape)} in this model: {what}")
    result, scale = array, np.float32(1)
    for axis, (old, new) in enumerate(zip(array.shape, shape)):
        if old == new:
            continue
        if stacked and axis == 0:
            result = result[np.arange(new) * old // new]
        elif path == SPAN_INPUTS and axis == 0:
            d, wider = array.shape[1], shape[1]
            states = [part[_centred(d, wider)] * np.float32(d / wider) for part in (result[:d], result[d : 2 * d])]
            result = np.concatenate([*states, result[2 * d :]])
        else:
            result = np.take(result, _centred(old, new), axis)
            if (path.endswith("/kernel") and axis in summed) or path.startswith(PROJECTED):
                scale *= np.float32(old / new)
    return np.ascontiguousarray(result * scale)


def _centred(old: int, new: int) -> np.ndarray:
    """Returns int [new], which of `old` elements each of `new` is: all of them in the centre, wrapped around."""
    return (np.arange(new) - (new - old) // 2) % old


def longer_positions(params: Weights, length: int, how: str) -> Weights:
    """Returns the parameters with a table of `length` position embeddings instead of fewer; rotary ones have no table.

    Args:
      params: of a model.
      length: rows of the new table.
      how: "tile" repeats the table from its start; "interpolate" stretches it linearly.
    """
    table = params.get(POSITIONS)
    if table is None or len(table) == length:
        return params
    rows = np.arange(length)
    if how == "tile":
        return params | {POSITIONS: table[rows % len(table)]}
    place = rows * ((len(table) - 1) / (length - 1))
    lower = np.minimum(place.astype(int), len(table) - 2)
    share = (place - lower).astype(np.float32)[:, None]
    return params | {POSITIONS: (1 - share) * table[lower] + share * table[lower + 1]}


def other_vocabulary(params: Weights, theirs: Tokenizer, ours: Sequence[str], how: str) -> tuple[Weights, str]:
    """Returns the parameters with rows for our tokens instead of theirs, and a clause that counts what was done.

    Args:
      params: of a model with their vocabulary; rows beyond it, which are padding, are dropped.
      theirs: the tokenizer of the model.
      ours: our tokens.
      how: of a token that is not theirs, what its row is the mean of: "mean", all rows; "subwords", the rows of the
        tokens that theirs cuts it into (all rows if it cannot).
    """
    known = {token: number for number, token in enumerate(theirs.tokens)}
    every = list(range(len(known)))
    new = [token for token in ours if token not in known]
    subwords = dict(zip(new, theirs.encode([token.removeprefix(CONTINUATION) for token in new])))
    usable = {token for token in new if how == "subwords" and subwords[token] and theirs.unk_id not in subwords[token]}
    sources = [[known[token]] if token in known else subwords[token] if token in usable else [] for token in ours]
    adapted = dict(params)
    for path in set(VOCABULARY) & params.keys():
        rows = params[path][: len(every)]
        mean = rows.mean(axis=0)
        adapted[path] = np.stack([rows[numbers].mean(axis=0) if numbers else mean for numbers in sources])
    clause = f"of the {len(ours):,} tokens of the vocabulary, {len(ours) - len(new):,} are its own"
    return adapted, f"{clause}, {len(usable):,} means of subwords, {len(new) - len(usable):,} means of all rows"
