"""Texts longer than the rows of a model: windows that overlap, side by side in one row.

Each window is [CLS] tokens [SEP] and a block of its own, with its segment and positions from 0, as blocks are in packed
rows of pretraining. So the encoder reads each as if it were alone, no position is beyond the position table, and what
reads the row as a whole (pooling, the vectors of sentences, the decoder's cross-attention) joins the windows.
"""

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

from spanbert_jax.data.tokenizer import Tokenizer
from spanbert_jax.finetuning.task import Arrays, single_sequence

SPECIAL = 2  # [CLS], [SEP]


def windows(length: int, size: int, overlap: int) -> Iterator[tuple[int, int]]:
    """Yields first and last + 1 token of each window of a text of `length` tokens, at least one window."""
    begin, stop = 0, min(size, length)
    yield begin, stop
    while stop < length:
        begin += size - overlap
        stop = min(begin + size, length)
        yield begin, stop


def in_windows(
    tokenizer: Tokenizer, tokens: Sequence[int], seq_len: int, most: int, overlap: int
) -> tuple[Arrays, np.ndarray]:
    """Returns the encoder's arrays of a text in windows, int32 [L], and the token that stands at each position.

    Args:
      tokenizer: of the tokens.
      tokens: of the text, any number.
      seq_len: positions of a window.
      most: windows; text beyond them is cut.
      overlap: tokens that neighbouring windows share, less than seq_len - 2.

    Returns:
      The arrays, and int32 [L]: the index of a token in the text, or -1 for [CLS] and [SEP].
    """
    parts, indices = [], []
    for number, (begin, stop) in enumerate(islice(windows(len(tokens), seq_len - SPECIAL, overlap), most), 1):
        part = single_sequence(tokenizer, tokens[begin:stop])
        parts.append(part | {"segments": part["segments"] * number})
        indices.append([-1, *range(begin, stop), -1])
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return arrays, np.concatenate(indices).astype(np.int32)


def window_problems(section: str, options, seq_len: int) -> list[str]:
    """Returns what is wrong with the knobs windows and overlap of a task, one line each."""
    if options.windows > 1 and options.overlap >= seq_len - SPECIAL:
        return [
            f"{section}.overlap {options.overlap} leaves no step between windows of seq_len {seq_len} - {SPECIAL}"
            " tokens: make it smaller"
        ]
    return []
