"""The embedded corpus and vocabularies are the files that the notice describes."""

import hashlib
import importlib.resources
import lzma

from spanbert_jax.data.sources.embedded import embedded_documents
from spanbert_jax.data.tokenizer import SPECIAL_TOKENS, load_tokenizer

ASSETS = importlib.resources.files("spanbert_jax.data") / "assets"


def files_below(folder, prefix=""):
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from files_below(entry, f"{prefix}{entry.name}/")
        else:
            yield prefix + entry.name


def test_checksums_of_every_file():
    expected = dict(reversed(line.split()) for line in (ASSETS / "SHA256SUMS").read_text().splitlines())
    assert set(files_below(ASSETS)) == set(expected) | {"NOTICE", "SHA256SUMS"}
    for name, checksum in expected.items():
        assert hashlib.sha256((ASSETS / name).read_bytes()).hexdigest() == checksum, name


def test_notice_names_every_file():
    notice = (ASSETS / "NOTICE").read_text()
    assert all(name in notice for name in files_below(ASSETS) if name != "NOTICE")


def test_assets_stay_small():
    assert sum(len((ASSETS / name).read_bytes()) for name in files_below(ASSETS)) < 3_000_000


def test_corpus_agrees_with_the_notice():
    texts = {
        split: lzma.decompress((ASSETS / "corpus" / f"{split}.txt.xz").read_bytes()) for split in ("train", "valid")
    }
    assert len(texts["train"]) == 3_123_576 + 1 + 1_273_792  # two files and the blank line between them
    assert len(texts["valid"]) == 406_782
    train, valid = (list(embedded_documents(split)) for split in ("train", "valid"))
    assert len(train) + len(valid) == 254
    assert not {tuple(document) for document in train} & {tuple(document) for document in valid}


def test_vocabularies():
    cased, uncased, tiny = (load_tokenizer(name, "auto") for name in ("cased", "uncased", "tiny"))
    assert (cased.vocab_size, uncased.vocab_size, tiny.vocab_size) == (28_996, 30_522, 4_096)
    assert (cased.lowercase, uncased.lowercase, tiny.lowercase) == (False, True, False)
    for tokenizer in (cased, uncased):
        special = (tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id)
        assert special == (0, 100, 101, 102, 103)
    assert tuple(tiny.tokens[:5]) == SPECIAL_TOKENS
    assert cased.vocab_size - cased.starts_word.sum() == 6_477  # continuation tokens, docs/original.md 3


def test_tiny_vocabulary_covers_its_corpus():
    tiny = load_tokenizer("tiny", "auto")
    for document in embedded_documents("train"):
        assert not any(tiny.unk_id in ids for ids in tiny.encode(document))
