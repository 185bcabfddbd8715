"""The collator masks as the pipeline does, whatever loop it is used in."""

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
FIELDS = {
    "input_ids",
    "attention_mask",
    "token_type_ids",
    "labels",
    "sbo_left",
    "sbo_right",
    "sbo_offset",
    "sbo_targets",
    "sbo_weights",
}


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
def test_each_segment_is_masked_and_everything_can_be_put_back(pairs):
    given = examples(pairs)
    batch = SpanCollator(TOKENIZER, CONFIG, seed=3)(given)
    assert batch.keys() == FIELDS
    back = np.where(batch["labels"] == IGNORED, batch["input_ids"], batch["labels"])
    for row, example in enumerate(given):
        ids, length = np.array(example["input_ids"]), len(example["input_ids"])
        assert back[row].tolist() == [*ids, *[TOKENIZER.pad_id] * (48 - length)]
        assert batch["attention_mask"][row].tolist() == [1] * length + [0] * (48 - length)
        assert batch["token_type_ids"][row, :length].tolist() == example.get("token_type_ids", [0] * length)
        ends = np.flatnonzero(ids == TOKENIZER.sep_id)
        for first, last in zip([1, *ends[:-1] + 1], ends):
            assert np.sum(batch["labels"][row, first:last] != IGNORED) == -(-(last - first) * 15 // 100)
        for slot in np.flatnonzero(
            batch["sbo_weights"][row]
        ):  # what SBO sees is unmasked, and what it predicts is there
            left, right, offset = (batch[f"sbo_{name}"][row, slot] for name in ("left", "right", "offset"))
            assert batch["labels"][row, left] == batch["labels"][row, right] == IGNORED
            assert left < left + 1 + offset < right and back[row, left + 1 + offset] == batch["sbo_targets"][row, slot]


def test_masks_follow_from_seed_epoch_and_text():
    given = examples()
    collate = SpanCollator(TOKENIZER, CONFIG, seed=3)
    first, again, later = collate(given, epoch=1), collate(given[::-1], epoch=1), collate(given, epoch=2)
    assert all(np.array_equal(first[name], again[name][::-1]) for name in FIELDS)
    assert not np.array_equal(first["labels"], later["labels"])
    assert not np.array_equal(first["labels"], SpanCollator(TOKENIZER, CONFIG, seed=4)(given, epoch=1)["labels"])
    assert not np.array_equal(collate(given)["labels"], collate(given)["labels"])  # by default, new masks each time


def test_mistakes_are_named():
    collate = SpanCollator(TOKENIZER, CONFIG, seed=3)
    with pytest.raises(InputError, match="example 1: 60 tokens, more than seq_len 48"):
        collate([examples()[0], {"input_ids": [TOKENIZER.cls_id] + [200] * 58 + [TOKENIZER.sep_id]}])
    with pytest.raises(InputError, match="example 0: more than 2 segments"):
        collate([{"input_ids": [TOKENIZER.cls_id, 200, TOKENIZER.sep_id] * 3}])
    with pytest.raises(InputError, match="need tags"):
        SpanCollator(TOKENIZER, small_config(masking__schemes=("pmi",)), seed=3)


def test_a_tokenizer_of_transformers_and_a_loader_of_torch(tmp_path):
    transformers = pytest.importorskip("transformers", reason="compares with transformers")
    torch_data = pytest.importorskip("torch.utils.data", reason="reads with torch")
    load_tokenizer("cased", "no").save(tmp_path)
    theirs = transformers.BertTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    given = [dict(theirs(f"{number} {line}")) for number, line in enumerate(LINES)]
    collate = SpanCollator(theirs, CONFIG, seed=3)
    batches = list(
        torch_data.DataLoader(given, batch_size=4, num_workers=2, collate_fn=collate, multiprocessing_context="spawn")
    )
    assert len(batches) == 3 and all(batch.keys() == FIELDS for batch in batches)
    assert len({batch["labels"].tobytes() for batch in batches}) == 3
