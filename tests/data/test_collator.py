"""The collator masks as the pipeline does, in any training loop."""

import numpy as np
import pytest

from spanbert_jax.data.collator import IGNORED, SpanCollator
from spanbert_jax.data.tokenizer import load_tokenizer
from spanbert_jax.errors import InputError
from tests.small import TOKENIZER, small_config

LINES = [
    "The House shall be composed of members chosen every second year .",
    "And the evening and the morning were the first day .",
] * 6
CONFIG = small_config(seq_len=48)
FIELDS = {"input_ids", "attention_mask", "token_type_ids", "labels"}
FIELDS |= {f"sbo_{name}" for name in ("left", "right", "offset", "targets", "weights")}


def examples(pairs=False):
    cls, sep = TOKENIZER.cls_id, TOKENIZER.sep_id
    ids = TOKENIZER.encode([f"{number} {line}" for number, line in enumerate(LINES)])
    if not pairs:
        return [{"input_ids": [cls, *text, sep]} for text in ids]
    return [
        {"input_ids": [cls, *a, sep, *b, sep], "token_type_ids": [0] * (len(a) + 2) + [1] * (len(b) + 1)}
        for a, b in zip(ids[::2], ids[1::2])
    ]


@pytest.mark.parametrize("pairs", [False, True])
def test_each_segment_is_masked_and_the_text_can_be_restored(pairs):
    inputs = examples(pairs)
    batch = SpanCollator(TOKENIZER, CONFIG, seed=3)(inputs)
    assert batch.keys() == FIELDS
    restored = np.where(batch["labels"] == IGNORED, batch["input_ids"], batch["labels"])
    for row, example in enumerate(inputs):
        ids, length = np.array(example["input_ids"]), len(example["input_ids"])
        assert restored[row].tolist() == [*ids, *[TOKENIZER.pad_id] * (48 - length)]
        assert batch["attention_mask"][row].tolist() == [1] * length + [0] * (48 - length)
        assert batch["token_type_ids"][row, :length].tolist() == example.get("token_type_ids", [0] * length)
        ends = np.flatnonzero(ids == TOKENIZER.sep_id)
        for first, last in zip([1, *ends[:-1] + 1], ends):
            assert np.sum(batch["labels"][row, first:last] != IGNORED) == -(-(last - first) * 15 // 100)
        for slot in np.flatnonzero(batch["sbo_weights"][row]):  # SBO sees unmasked tokens, and predicts masked ones
            left, right, offset = (batch[f"sbo_{name}"][row, slot] for name in ("left", "right", "offset"))
            assert batch["labels"][row, left] == batch["labels"][row, right] == IGNORED
            assert (
                left < left + 1 + offset < right and restored[row, left + 1 + offset] == batch["sbo_targets"][row, slot]
            )


def test_masks_follow_from_seed_epoch_and_text():
    inputs = examples()
    collate = SpanCollator(TOKENIZER, CONFIG, seed=3)
    first, reverse, later = collate(inputs, epoch=1), collate(inputs[::-1], epoch=1), collate(inputs, epoch=2)
    assert all(np.array_equal(first[name], reverse[name][::-1]) for name in FIELDS)
    assert not np.array_equal(first["labels"], later["labels"])
    assert not np.array_equal(first["labels"], SpanCollator(TOKENIZER, CONFIG, seed=4)(inputs, epoch=1)["labels"])
    assert not np.array_equal(collate(inputs)["labels"], collate(inputs)["labels"])  # by default, new masks each time


def test_errors_name_the_problem():
    collate = SpanCollator(TOKENIZER, CONFIG, seed=3)
    with pytest.raises(InputError, match="example 1: 60 tokens, more than seq_len 48"):
        collate([examples()[0], {"input_ids": [TOKENIZER.cls_id] + [200] * 58 + [TOKENIZER.sep_id]}])
    with pytest.raises(InputError, match="example 0: more than 2 segments"):
        collate([{"input_ids": [TOKENIZER.cls_id, 200, TOKENIZER.sep_id] * 3}])
    with pytest.raises(InputError, match="need tags"):
        SpanCollator(TOKENIZER, small_config(masking__schemes=("pmi",)), seed=3)


def test_works_with_a_tokenizer_of_transformers_and_a_loader_of_torch(tmp_path):
    transformers = pytest.importorskip("transformers", reason="compares with transformers")
    torch_data = pytest.importorskip("torch.utils.data", reason="reads with torch")
    load_tokenizer("cased", "no").save(tmp_path)
    theirs = transformers.BertTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    inputs = [dict(theirs(f"{number} {line}")) for number, line in enumerate(LINES)]
    collate = SpanCollator(theirs, CONFIG, seed=3)
    workers = dict(num_workers=2, multiprocessing_context="spawn")
    batches = list(torch_data.DataLoader(inputs, batch_size=4, collate_fn=collate, **workers))
    assert len(batches) == 3 and all(batch.keys() == FIELDS for batch in batches)
    assert len({batch["labels"].tobytes() for batch in batches}) == 3
