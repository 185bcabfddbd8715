"""Made-up documents for the tests of blocks, pairs and rows, and the original's blocks of some documents."""

import json
from pathlib import Path

import numpy as np

from spanbert_jax.data.store import open_store, write_store
from spanbert_jax.data.tokenizer import SPECIAL_TOKENS, Tokenizer

GOLDEN_BLOCKS = json.loads((Path(__file__).parents[1] / "goldens" / "golden_blocks.json").read_text())
TOKENIZER = Tokenizer([*SPECIAL_TOKENS, "a", "b", "##c", "."], True, "test")
SEQ_LEN = 16


def made_up_split(folder):
    """Returns a split of documents with short sentences, sentences and words longer than a block, and very short
    ones.
    """
    draw = np.random.default_rng(0)
    words = ["a", "b.", "ac", "bccc", "a" + "c" * 40]
    probabilities = [0.4, 0.3, 0.2, 0.09, 0.01]
    texts = [
        [" ".join(draw.choice(words, draw.integers(1, 20), p=probabilities)) for _ in range(draw.integers(1, 12))]
        for _ in range(60)
    ]
    texts += [["a b"] * draw.integers(1, 4) for _ in range(40)]
    write_store(folder, TOKENIZER, {"train": texts, "valid": []})
    return open_store(folder).split("train")


def golden_text(case):
    """Returns the edges of the sentences and of the documents of a case, whose sizes are those of lines; 0 is a blank
    one.

    The original ignores a last document without a blank line after it in "doc" mode (docs/original.md, quirk 14). Here
    the end of a file ends its document, whatever blocks are made of it, so such a document is left out of the case.
    """
    sentences, documents = [0], [0]
    for size in [*case["sizes"], *([0] if case["break_mode"] == "sentence" else [])]:
        if size:
            sentences.append(sentences[-1] + size)
        elif sentences[-1] > documents[-1]:
            documents.append(sentences[-1])
    sentences, documents = np.array(sentences), np.array(documents)
    return sentences[sentences <= documents[-1]], documents
