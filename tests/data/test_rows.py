"""Rows have every block once, however they are packed, and the documented layout."""

import concurrent.futures
import dataclasses
import os
import tempfile

import numpy as np
import pytest

from spanbert_jax.data import rows as rows_module
from spanbert_jax.data.blocks import BlockSettings, sentence_and_document_edges, split_blocks
from spanbert_jax.data.pairs import draw_pairs
from spanbert_jax.data.rows import build_rows, ragged_range
from spanbert_jax.data.store import open_store, write_store
from spanbert_jax.errors import InputError
from tests.data.made_up import SEQ_LEN, TOKENIZER, made_up_split

SETTINGS = BlockSettings(
    seq_len=SEQ_LEN, max_blocks_per_row=1, blocks="document", long_sentences="cut", short_seq_prob=0.0, seed=0
)
PAIRS = dataclasses.replace(SETTINGS, blocks="pair", seed=3)


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return made_up_split(tmp_path_factory.mktemp("rows") / "store")


def rows_of(split, max_blocks_per_row, settings=SETTINGS, **changes):
    settings = dataclasses.replace(settings, max_blocks_per_row=max_blocks_per_row, **changes)
    return build_rows(split, settings, TOKENIZER.starts_word, ())


def all_blocks(rows):
    return np.sort(np.concatenate([rows.blocks(row) for row in range(rows.num_rows)]))


@pytest.mark.parametrize("max_blocks_per_row", [1, 2, 3, 8])
def test_packing_keeps_every_block_once(split, max_blocks_per_row):
    rows = rows_of(split, max_blocks_per_row)
    blocks = split_blocks(split, SETTINGS, TOKENIZER.starts_word)
    assert np.array_equal(all_blocks(rows), blocks) and rows.num_blocks == len(blocks)
    in_row = [rows.blocks(row) for row in range(rows.num_rows)]
    assert max(map(len, in_row)) <= max_blocks_per_row and min(map(len, in_row)) >= 1
    assert max((row["length"] + 2).sum() for row in in_row) <= SEQ_LEN
    firsts = [row["start"][0] for row in in_row]
    assert firsts == sorted(firsts) and all(np.all(np.diff(row["start"]) > 0) for row in in_row)


@pytest.mark.parametrize("max_blocks_per_row", [1, 3])
def test_rows_have_the_documented_layout(split, max_blocks_per_row):
    rows = rows_of(split, max_blocks_per_row)
    ids = np.random.default_rng(3).integers(0, rows.num_rows, 50)
    batch = rows.read(ids)
    assert all(array.dtype == np.int32 for array in batch.values())
    for n, row in enumerate(ids):
        tokens, segments, positions = [], [], []
        for number, (start, length) in enumerate(rows.blocks(row).tolist()):
            assert batch["block_start"][n, number] == len(tokens) + 1
            assert batch["block_length"][n, number] == length
            tokens += [TOKENIZER.cls_id, *split.read(start, length).tolist(), TOKENIZER.sep_id]
            segments += [number + 1] * (length + 2)
            positions += range(length + 2)
        padding = SEQ_LEN - len(tokens)
        assert batch["tokens"][n].tolist() == tokens + [TOKENIZER.pad_id] * padding
        assert batch["segments"][n].tolist() == segments + [0] * padding
        assert batch["positions"][n].tolist() == positions + [0] * padding
        assert not batch["block_start"][n, number + 1 :].any() and not batch["block_length"][n, number + 1 :].any()
    assert batch["token_types"].shape == (50, SEQ_LEN) and not batch["token_types"].any()
    assert batch["block_start"].shape == (50, max_blocks_per_row)


def test_pairs_have_the_documented_layout(split):
    rows = rows_of(split, 1, PAIRS)
    edges = sentence_and_document_edges(split, PAIRS, TOKENIZER.starts_word)
    pairs, labels = draw_pairs(*edges, SEQ_LEN - 3, 0.0, 3)
    batch = rows.read(np.arange(rows.num_rows))
    assert rows.num_rows == len(pairs) == rows.num_blocks // 2 and 0 < labels.sum() < len(labels)
    assert batch["nsp_targets"][:, 0].tolist() == labels.tolist() and np.all(batch["nsp_weights"] == 1)
    for row, ((a, a_end), (b, b_end)) in enumerate(pairs.tolist()):
        first, second = split.read(a, a_end - a).tolist(), split.read(b, b_end - b).tolist()
        tokens = [TOKENIZER.cls_id, *first, TOKENIZER.sep_id, *second, TOKENIZER.sep_id]
        token_types = [0] * (len(first) + 2) + [1] * (len(second) + 1)
        used, padding = len(tokens), SEQ_LEN - len(tokens)
        assert batch["tokens"][row].tolist() == tokens + [TOKENIZER.pad_id] * padding
        assert batch["segments"][row].tolist() == [1] * used + [0] * padding
        assert batch["positions"][row].tolist() == [*range(used)] + [0] * padding
        assert batch["token_types"][row].tolist() == token_types + [0] * padding
        assert batch["block_start"][row].tolist() == [1, len(first) + 2]
        assert batch["block_length"][row].tolist() == [len(first), len(second)]
    assert rows.padding_fraction == pytest.approx(np.mean(batch["segments"] == 0))


def test_pairs_need_two_documents(tmp_path):
    write_store(tmp_path / "store", TOKENIZER, {"train": [["a b", "b a"]]})
    with pytest.raises(InputError, match="text of another document"):
        rows_of(open_store(tmp_path / "store").split("train"), 1, PAIRS)


def test_tags_are_those_of_their_tokens(tmp_path):
    class Tagger:
        """Tags every "b" as one kind, as earlier releases did, and all but the first token of a sentence as another."""

        kinds = ("entities", "phrases", "phrases-begins")

        def describe(self):
            return dict.fromkeys(self.kinds, "test")

        def tags(self, sentences, offsets):
            letters = [[sentence[start] for start, _ in ranges] for sentence, ranges in zip(sentences, offsets)]
            return {
                "entities": [np.array(letters_of_sentence) == "b" for letters_of_sentence in letters],
                "phrases": [np.arange(len(ranges)) > 0 for ranges in offsets],
                "phrases-begins": [np.arange(len(ranges)) == 1 for ranges in offsets],
            }

    write_store(tmp_path / "store", TOKENIZER, {"train": [["a b.", "b a b"], ["bc a"] * 9]}, Tagger())
    split = open_store(tmp_path / "store").split("train")
    settings = dataclasses.replace(SETTINGS, max_blocks_per_row=2)
    rows = build_rows(split, settings, TOKENIZER.starts_word, ("phrases", "entities"))
    batch = rows.read(np.arange(rows.num_rows))
    b = TOKENIZER.tokens.index("b")
    assert np.array_equal(batch["tags"] >> 2 == 1, batch["tokens"] == b)
    first = batch["tags"][0][:8].tolist()
    assert [tag & 3 for tag in first] == [0, 0, 3, 1, 0, 3, 1, 0]  # [CLS] a b . b a b [SEP]


def test_padding_fraction_is_that_of_the_rows(split):
    for limit in (1, 3):
        rows = rows_of(split, limit)
        assert rows.padding_fraction == pytest.approx(np.mean(rows.read(np.arange(rows.num_rows))["segments"] == 0))


def test_no_rows(split):
    assert rows_of(split, 2).read(np.zeros(0, np.int64))["tokens"].shape == (0, SEQ_LEN)
    assert rows_of(split, 1, PAIRS).read(np.zeros(0, np.int64))["nsp_targets"].shape == (0, 1)
    for settings in (SETTINGS, PAIRS):
        empty = rows_of(split.store.split("valid"), 1, settings)
        assert (empty.num_rows, empty.num_blocks, empty.padding_fraction) == (0, 0, 0.0)
        with pytest.raises(IndexError):
            empty.read(np.array([0]))
    with pytest.raises(IndexError):
        rows_of(split, 2).read(np.array([-1]))
    for seq_len, limit in ((2, 1), (16, 0)):
        with pytest.raises(ValueError):
            rows_of(split, limit, seq_len=seq_len)


@pytest.mark.parametrize("settings", [SETTINGS, PAIRS], ids=["document", "pair"])
def test_plan_is_made_once_and_again_when_damaged(split, settings, monkeypatch):
    expected = all_blocks(rows_of(split, 1, settings))
    (path,) = (split.store.folder / "rows").glob(f"train-{settings.blocks}-{SEQ_LEN}x1-*.rows")
    whole = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.delattr(rows_module, "plan_rows")
        assert np.array_equal(all_blocks(rows_of(split, 1, settings)), expected)
    for damaged in (b"", whole[:100], whole[:-1], b"x" * len(whole)):
        path.write_bytes(damaged)
        assert np.array_equal(all_blocks(rows_of(split, 1, settings)), expected)
        assert path.read_bytes() == whole
    assert not list(path.parent.glob(".*"))


@pytest.fixture
def own_split(tmp_path):
    """Makes a store without a plan."""
    write_store(tmp_path / "store", TOKENIZER, {"train": [["a b. ac", "b b"] * 20] * 5})
    return open_store(tmp_path / "store").split("train")


def plans_of(split):
    return sorted((split.store.folder / "rows").glob("*"), key=lambda path: path.name)


@pytest.mark.parametrize("when", ["planning", "writing"])
def test_the_plan_of_the_process_that_was_faster_is_used(own_split, when, monkeypatch):
    """No process replaces a file that another one may have open."""
    made = []
    name = {"planning": "plan_rows", "writing": "keep_plan"}[when]
    original = getattr(rows_module, name)

    def slow(*arguments):
        monkeypatch.setattr(rows_module, name, original)
        made.append(rows_of(own_split, 2))  # another process
        made.append(plans_of(own_split)[0].stat())
        return original(*arguments)

    monkeypatch.setattr(rows_module, name, slow)
    rows = rows_of(own_split, 2)
    (path,) = plans_of(own_split)
    assert os.path.samestat(path.stat(), made[1]) and path.stat().st_mtime_ns == made[1].st_mtime_ns
    assert np.array_equal(all_blocks(rows), all_blocks(made[0]))


def test_processes_that_plan_at_once_keep_one_plan(own_split):
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        many = list(threads.map(lambda _: rows_of(own_split, 2), range(8)))
    (path,) = plans_of(own_split)
    for rows in many:
        assert np.array_equal(all_blocks(rows), all_blocks(many[0]))
        assert os.path.samestat(os.fstat(rows._file._opened().number), path.stat())


def test_what_a_killed_process_left_does_not_matter(own_split):
    folder = own_split.store.folder / "rows"
    folder.mkdir()
    left = folder / ".train-document-16x2-00000000.rows.0123456789abcdef"
    left.write_bytes(b"half a plan")
    rows = rows_of(own_split, 2)
    assert all_blocks(rows)["length"].sum() == own_split.num_tokens
    assert len(plans_of(own_split)) == 2  # the plan, and what was left


def test_a_file_system_without_hard_links_keeps_plans_too(own_split, monkeypatch):
    def refuse(*_):
        raise PermissionError("no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    rows_of(own_split, 2)
    assert len(plans_of(own_split)) == 1
    monkeypatch.delattr(rows_module, "plan_rows")
    assert all_blocks(rows_of(own_split, 2))["length"].sum() == own_split.num_tokens


def test_a_plan_that_fits_nowhere_is_an_error(own_split, tmp_path, monkeypatch):
    (own_split.store.folder / "rows").write_text("a file at the path of the folder of plans")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(InputError, match="missing: cannot write the plan of rows there .* set TMPDIR"):
        rows_of(own_split, 2)


def test_store_that_cannot_be_written_is_still_read(split, tmp_path):
    folder = tmp_path / "store"
    write_store(folder, TOKENIZER, {"train": [["a b. ac"] * 20]})
    (folder / "rows").write_text("a file at the path of the folder of plans")
    other = open_store(folder).split("train")
    rows = rows_of(other, 2)
    assert all_blocks(rows)["length"].sum() == other.num_tokens
    assert sorted(path.name for path in folder.glob("*rows*")) == ["rows"]


def test_ragged_range():
    assert ragged_range(np.array([3, 0, 2])).tolist() == [0, 1, 2, 0, 1]
