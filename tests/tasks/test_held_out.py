"""Held-out texts are blocks of the run's held-out split."""

import numpy as np
import pytest

from spanbert_jax.errors import InputError
from spanbert_jax.tasks.held_out import held_out_texts


def test_held_out_texts_are_blocks_of_the_held_out_split_with_its_masks(filler, workdir, store):
    texts = held_out_texts(filler.config, filler.tokenizer, workdir, 5)
    assert len(texts) == 5 and texts == held_out_texts(filler.config, filler.tokenizer, workdir, 5)
    split = store.split("valid")
    all_tokens = split.read(0, split.num_tokens).tolist()
    for text in texts:
        tokens = list(text.tokens)
        for span in text.spans:
            tokens[span.start : span.end] = span.true
        assert any(all_tokens[start : start + len(tokens)] == tokens for start in range(len(all_tokens)))
        budget = int(np.ceil(filler.config.masking.rate * len(tokens)))
        assert sum(span.length for span in text.spans) == budget
    assert len({text.tokens for text in texts}) == 5
    for count in (0, 10_000):
        with pytest.raises(InputError, match="give a number from 1 to"):
            held_out_texts(filler.config, filler.tokenizer, workdir, count)
