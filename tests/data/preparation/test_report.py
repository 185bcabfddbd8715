"""The report on a store agrees with its content."""

import io
import re

import numpy as np
import pytest
from rich.console import Console

from spanbert_jax.data.blocks import BlockSettings
from spanbert_jax.data.preparation import report as report_module
from spanbert_jax.data.preparation.report import BLOCKS_PER_ROW, read_report, show_report
from spanbert_jax.data.rows import build_rows
from spanbert_jax.data.sources import units as units_module
from spanbert_jax.data.tokenizer import load_tokenizer
from tests.data.preparation.settings_for_tests import prepared

EMPTY = "\u200b\x07"  # not blank, but without a token


@pytest.fixture
def text(tmp_path, monkeypatch):
    """A file with 64 documents: two exact duplicates, one of a single word, and one without a token."""
    monkeypatch.setattr(units_module, "MIN_UNIT_BYTES", 1500)
    draw = np.random.default_rng(0)
    words = ["the", "cats", "sat", "on", "mats", ".", "\N{SNOWMAN}"]  # the last is in no embedded vocabulary
    documents = [
        "\n".join(" ".join(draw.choice(words, draw.integers(1, 60))) for _ in range(draw.integers(1, 5)))
        for _ in range(60)
    ]
    path = tmp_path / "text.txt"
    path.write_text("\n\n".join([*documents, EMPTY, "mat", documents[7], documents[9]]), encoding="utf-8")
    return path


def cells_of(report) -> list[list[str]]:
    """Cells of each line of the printed report."""
    console = Console(file=io.StringIO(), width=250)
    console.print(show_report(report, "folder"))
    return [re.split(r"\s{2,}", line.strip()) for line in console.file.getvalue().splitlines()]


def test_figures(text, tmp_path):
    store = prepared(text, tmp_path / "store", dedup="exact", min_words=2, seq_len=64)
    report, tokenizer = read_report(store), load_tokenizer("tiny", "auto")
    assert report["documents_read"] == 64
    dropped = {"short": 2, "exact": 2, "near": 0, "empty": 0}  # EMPTY has fewer than two words
    assert report["documents_dropped"] == dropped
    assert report["units"] > 4
    cells = cells_of(report)
    headline = "64 documents read, dropped: 2 too short, 2 exact duplicates"
    assert any(headline in cell for line in cells for cell in line)
    for name in ("train", "valid"):
        split, figures = store.split(name), report["splits"][name]
        ids = split.read(0, split.num_tokens)
        unknown = int((ids == tokenizer.unk_id).sum())
        assert unknown / split.num_tokens > 0.05
        expected = {
            "documents": split.num_documents,
            "sentences": split.num_sentences,
            "words": int(tokenizer.starts_word[ids].sum()),
            "tokens": split.num_tokens,
            "unknown_tokens": unknown,
        }
        assert {key: figures[key] for key in expected} == expected
        sentences = np.diff(split.sentence_offsets())
        documents = np.diff(split.sentence_offsets()[split.document_offsets()])
        for kind, lengths in (("sentence", sentences), ("document", documents)):
            bins = figures[f"{kind}_lengths_in_tokens"]
            low = 0
            for high, count in bins.items():
                assert count == ((lengths > low) & (lengths <= int(high))).sum()
                low = int(high)
            assert sum(bins.values()) == len(lengths)
        sizes = [f"{figures[key]:,}" for key in ("documents", "sentences", "words", "tokens")]
        line = [name, *sizes, f"{unknown / split.num_tokens:.3%}", f"{figures['tokens_per_epoch']:,}"]
        assert line in cells
        for blocks in BLOCKS_PER_ROW:
            rows = build_rows(split, BlockSettings(64, blocks, "document", "cut", 0.0, 0), tokenizer.starts_word, ())
            assert figures["rows_by_max_blocks_per_row"][str(blocks)] == rows.num_rows
            padding = figures["padding_by_max_blocks_per_row"][str(blocks)]
            assert padding == pytest.approx(rows.padding_fraction, abs=1e-4)
            assert figures["tokens_per_epoch"] == round(rows.num_rows * 64 * (1 - rows.padding_fraction))
    padding = report["splits"]["train"]["padding_by_max_blocks_per_row"]
    assert padding["1"] > padding["8"] + 0.1


def test_rows_of_large_splits_are_estimated(text, tmp_path, monkeypatch):
    exact = read_report(prepared(text, tmp_path / "exact"))["splits"]["train"]
    monkeypatch.setattr(report_module, "MEASURED_TOKENS", 1500)
    report = read_report(prepared(text, tmp_path / "estimated"))
    estimated = report["splits"]["train"]
    assert 1500 <= estimated["measured_tokens"] < exact["tokens"] == exact["measured_tokens"]
    for key in ("tokens_per_epoch", "rows_by_max_blocks_per_row"):
        assert exact[key] == pytest.approx(estimated[key], rel=0.2)
    assert any("train rows (about)" in line for line in cells_of(report))


def test_a_split_without_text_is_not_reported(text, tmp_path):
    report = read_report(prepared(text, tmp_path / "store", valid_fraction=0.0))
    assert list(report["splits"]) == ["train"]
    assert not any("valid" in cell for line in cells_of(report) for cell in line)


def test_text_without_a_token_is_counted(text, tmp_path):
    dropped = read_report(prepared(text, tmp_path / "store"))["documents_dropped"]
    assert dropped == {"short": 0, "exact": 0, "near": 0, "empty": 1}
