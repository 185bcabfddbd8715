"""The collator masks as the pipeline does, in any training loop."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from spanbert_jax.data.collator import IGNORED, SpanCollator
from spanbert_jax.data.tokenizer import load_tokenizer
from spanbert_jax.errors import InputError
from tests.small import TOKENIZER, small_config

ROOT = Path(__file__).parents[2]
LINES = [
    "The House shall be composed of members chosen every second year .",
    "And the evening and the morning were the first day .",
] * 6
CONFIG = small_config(seq_len=48)
FIELDS = {"input_ids", "attention_mask", "token_type_ids", "labels"}
SBO_FIELDS = {f"sbo_{name}" for name in ("left", "right", "offset", "targets", "weights")}


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
    batch = SpanCollator(TOKENIZER, CONFIG, seed=3, padding="max_length", sbo=True)(inputs)
    assert batch.keys() == FIELDS | SBO_FIELDS
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


def test_masks_are_those_of_earlier_releases():
    labels = SpanCollator(TOKENIZER, CONFIG, seed=3)(examples()[:3], epoch=1)["labels"]
    assert [np.flatnonzero(row != IGNORED).tolist() for row in labels] == [[10, 11, 14], [8, 9], [3, 13, 15]]


def test_rows_are_padded_to_the_longest_to_a_multiple_or_to_seq_len():
    inputs = examples()[:3]  # the longest has 18 tokens
    whole = SpanCollator(TOKENIZER, CONFIG, seed=3, padding="max_length", sbo=True)(inputs, epoch=1)
    for arguments, length in (({}, 18), (dict(pad_to_multiple_of=8), 24), (dict(pad_to_multiple_of=48), 48)):
        batch = SpanCollator(TOKENIZER, CONFIG, seed=3, **arguments)(inputs, epoch=1)
        assert batch.keys() == FIELDS
        for name, field in batch.items():
            assert field.shape == (3, length) and np.array_equal(field, whole[name][:, :length])


def test_examples_are_lists_or_arrays_and_their_padding_is_not_masked():
    torch = pytest.importorskip("torch", reason="makes tensors of torch")
    inputs = examples(pairs=True)
    collate = SpanCollator(TOKENIZER, CONFIG, seed=3, padding="max_length", sbo=True)
    expected = collate(inputs, epoch=1)
    padded = [
        {name: [*values, *[0] * (48 - len(values))] for name, values in example.items()}
        | {"attention_mask": [1] * len(example["input_ids"]) + [0] * (48 - len(example["input_ids"]))}
        for example in inputs
    ]
    for kind in (list, np.array, torch.tensor):
        for some in (inputs, padded):
            batch = collate([{name: kind(values) for name, values in example.items()} for example in some], epoch=1)
            assert all(np.array_equal(batch[name], field) for name, field in expected.items())
    hidden = [{**example, "attention_mask": [1] * 4 + [0] * (len(example["input_ids"]) - 4)} for example in inputs]
    batch = collate(hidden)  # padding whose ids are ordinary tokens
    assert (batch["labels"][:, 4:] == IGNORED).all() and (batch["attention_mask"].sum(1) == 4).all()
    tensors = SpanCollator(TOKENIZER, CONFIG, seed=3, padding="max_length", return_tensors="pt", sbo=True)(inputs, 1)
    for name, field in expected.items():
        assert tensors[name].dtype == (torch.float32 if "weights" in name else torch.int64)
        assert np.array_equal(tensors[name].numpy(), field)


class Gaps:
    """A tokenizer of someone else, whose ids have gaps."""

    def get_vocab(self):
        return {"[PAD]": 7, "[UNK]": 10, "[CLS]": 20, "[SEP]": 21, "[MASK]": 30, "a": 41, "##b": 44, "c": 90}


def test_vocabularies_with_gaps_keep_their_ids():
    changes = dict(rate=1.0, mask_fraction=0.3, random_fraction=0.7, replacement="token")
    config = small_config(seq_len=48, **{f"masking__{name}": value for name, value in changes.items()})
    batch = SpanCollator(Gaps(), config, seed=3)([{"input_ids": [20, *[41, 44, 90] * 14, 21]}, {"input_ids": [20, 21]}])
    assert batch["labels"][0, 1:-1].tolist() == [41, 44, 90] * 14
    assert set(batch["input_ids"][0, 1:-1].tolist()) == {30, 41, 44, 90}
    assert batch["input_ids"][1].tolist() == [20, 21] + [7] * 42


def test_errors_name_the_problem():
    collate, (cls, sep) = SpanCollator(TOKENIZER, CONFIG, seed=3), (TOKENIZER.cls_id, TOKENIZER.sep_id)
    for example, problem in (
        ({"input_ids": [cls] + [200] * 58 + [sep]}, "60 tokens, more than seq_len 48"),
        ({"input_ids": [cls, 200, sep] * 3}, "more than 2 segments"),
        ({"text": "a"}, "no input_ids, only text"),
        ({"input_ids": [[cls, 200, sep]]}, r"its input_ids have the shape \(1, 3\)"),
        ({"input_ids": [cls, 200, sep], "attention_mask": [1]}, r"its attention_mask have the shape \(1,\)"),
        ({"input_ids": [cls, 99_999, sep]}, "one of its input_ids is not in the vocabulary, 0 to 4095"),
    ):
        with pytest.raises(InputError, match=f"example 1: {problem}"):
            collate([examples()[0], example])
    with pytest.raises(InputError, match="need tags"):
        SpanCollator(TOKENIZER, small_config(masking__schemes=("pmi",)), seed=3)
    wrong = dict(padding="longer", return_tensors="tf", pad_to_multiple_of=7, token_counts=np.ones(3, np.int64))
    with pytest.raises(InputError) as error:
        SpanCollator(TOKENIZER, CONFIG, seed=3, **wrong)
    assert all(name in line for name, line in zip(wrong, str(error.value).splitlines(), strict=True))


def test_it_needs_neither_tensorflow_nor_jax():
    code = "import sys, spanbert_jax.data.collator; print({'tensorflow', 'jax', 'torch'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "set()\n"


# ----------------------------------------------------------------------------------------------------------------------
# Tokenizers of transformers.


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers", reason="compares with transformers")


@pytest.fixture(scope="module")
def wordpiece(transformers, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wordpiece")
    load_tokenizer("cased", "no").save(folder)
    return transformers.BertTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))


@pytest.fixture(scope="module", params=["byte-level", "BERT's special tokens"])
def bpe(request, transformers):
    """A BPE tokenizer as RoBERTa's, or one with BERT's special tokens and entries that begin with ##."""
    import tokenizers

    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel()
    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    if request.param != "byte-level":
        names = ["[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400, special_tokens=[*names, "##"], initial_alphabet=model.pre_tokenizer.alphabet()
    )
    model.train_from_iterator([*LINES, "## ##"], trainer)
    model.post_processor = tokenizers.processors.BertProcessing((names[2], 2), (names[0], 0))
    special = dict(zip(("cls_token", "pad_token", "sep_token", "unk_token", "mask_token"), names))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=model, **special)


def test_words_of_other_tokenizers_are_those_that_they_report(bpe):
    texts = [f"{number} Unquestionably, {line}" for number, line in enumerate(LINES)]
    config = small_config(seq_len=256, masking__schemes=("whole_word",), masking__replacement="span")
    collate = SpanCollator(bpe, config, seed=3)
    encodings = [bpe(text) for text in texts]
    batch = collate(encodings, epoch=1)
    listed = [{"input_ids": encoding["input_ids"], "word_ids": encoding.word_ids()} for encoding in encodings]
    arrays = [
        {name: np.array([-1 if value is None else value for value in values]) for name, values in example.items()}
        for example in listed
    ]
    for examples in (listed, arrays):
        assert all(np.array_equal(field, batch[name]) for name, field in collate(examples, epoch=1).items())
    divided = 0
    for row, encoding in enumerate(encodings):
        masked = np.flatnonzero(batch["labels"][row] != IGNORED)
        words = np.array([-1 if word is None else word for word in encoding.word_ids()])
        assert len(masked) == -(-(len(words) - 2) * 15 // 100) and (words[masked] >= 0).all()
        # Every word is masked as a whole, but for the one that the budget cuts off.
        parts = [word for word in np.unique(words[masked]) if np.sum(words == word) > np.sum(words[masked] == word)]
        assert len(parts) <= 1
        divided += len(masked) > len(np.unique(words[masked])) + len(parts)
    assert divided  # some words have several tokens
    for example in ({"input_ids": encodings[0]["input_ids"]}, dict(encodings[0])):
        with pytest.raises(InputError, match="example 0: no word_ids, and its tokenizer is not WordPiece"):
            collate([example])


def test_words_of_wordpiece_are_the_same_with_word_ids(wordpiece):
    collate = SpanCollator(wordpiece, CONFIG, seed=3)
    encodings = [wordpiece(f"{number} unquestionably {line}") for number, line in enumerate(LINES)]
    batches = [collate(some, epoch=1) for some in (encodings, [dict(encoding) for encoding in encodings])]
    assert all(np.array_equal(field, batches[1][name]) for name, field in batches[0].items())


# ----------------------------------------------------------------------------------------------------------------------
# Loops of torch.


LOADER = """
import numpy as np, torch
from torch.utils.data import DataLoader
from spanbert_jax.config import load_config
from spanbert_jax.data.collator import SpanCollator
from spanbert_jax.data.tokenizer import load_tokenizer

tokenizer, config = load_tokenizer("tiny", "auto"), load_config("spanbert:tiny")
texts = np.random.default_rng(0).integers(200, 4000, (12, 100))
examples = [{"input_ids": [tokenizer.cls_id, *text, tokenizer.sep_id]} for text in texts]

def epochs(seed, persistent):
    torch.manual_seed(seed)
    collate = SpanCollator(tokenizer, config, seed=3, return_tensors="pt")
    settings = dict(batch_size=4, shuffle=True, num_workers=2, persistent_workers=persistent)
    loader, result = DataLoader(examples, collate_fn=collate, **settings), []
    for _ in range(3):
        labels = [row.numpy() for batch in loader for row in batch["labels"]]
        result.append({tuple(np.flatnonzero(row != -100)) for row in labels})
    return result

for persistent in (False, True):
    first = epochs(1, persistent)
    assert [len(masks) for masks in first] == [12] * 3 and len(set.union(*first)) == 36, first
    assert epochs(1, persistent) == first != epochs(2, persistent)
"""


def test_workers_of_a_loader_never_repeat_masks_and_follow_torchs_seed():
    """In a process of its own, since others of these tests start threads, which do not survive a fork."""
    pytest.importorskip("torch", reason="reads with torch")
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    subprocess.run([sys.executable, "-c", LOADER], env=os.environ | {"PYTHONPATH": paths}, check=True, timeout=120)


@pytest.fixture
def tiny_bert(transformers, wordpiece):
    torch = pytest.importorskip("torch", reason="trains with torch")
    torch.manual_seed(0)
    sizes = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    return transformers.BertForMaskedLM(transformers.BertConfig(vocab_size=len(wordpiece), **sizes))


def test_a_model_learns_in_a_plain_loop_of_torch(tiny_bert, wordpiece):
    import torch

    inputs = [dict(wordpiece(f"{number} {line}")) for number, line in enumerate(LINES)]
    collate = SpanCollator(wordpiece, CONFIG, seed=3, return_tensors="pt")
    optimizer, losses = torch.optim.AdamW(tiny_bert.parameters(), lr=1e-2), []
    for _ in range(5):
        for batch in torch.utils.data.DataLoader(inputs, batch_size=6, collate_fn=collate):
            losses.append(tiny_bert(**batch).loss)
            losses[-1].backward()
            optimizer.step()
            optimizer.zero_grad()
    assert losses[-1] < losses[0] - 1


def test_the_example_of_the_readme_trains_with_the_trainer_of_transformers(
    tiny_bert, wordpiece, tmp_path, monkeypatch, capsys
):
    pytest.importorskip("accelerate", reason="their trainer needs it")
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    (program,) = [block for block in blocks if "SpanCollator(" in block]
    monkeypatch.chdir(tmp_path)
    tiny_bert.save_pretrained("exported")
    wordpiece.save_pretrained("exported")
    (tmp_path / "text.txt").write_text("\n".join(LINES))
    exec(program, {})
    assert "'train_loss'" in capsys.readouterr().out
    assert any((tmp_path / "runs/trainer").rglob("model.safetensors"))
