"""The tokenizer: BERT's rules, the file formats, and invalid vocabularies."""

import random

import numpy as np
import pytest
from tokenizers import Tokenizer as HFTokenizer
from tokenizers.implementations import BertWordPieceTokenizer

from spanbert_jax.data.tokenizer import SPECIAL_TOKENS, Tokenizer, load_tokenizer
from spanbert_jax.errors import InputError

TOKENS = [*SPECIAL_TOKENS, "The", "the", "cat", "##s", "sat", ".", "[", "]", "é", "e", "MASK"]


def odd_lines(count: int) -> list[str]:
    """Returns lines of words, accents (composed and not), CJK, emoji, control characters, odd spaces and very long
    words.
    """
    words = ["The", "cats", "don't", "U.S.", "3.14", "$5", "—", "SpanBERT", "[MASK]", "##s"]
    words += ["x" * 99, "y" * 101, "e\u0301" * 60]
    words += ["naïve", "cafe\u0301", "İstanbul", "straße", "аб", "中文字", "日本", "한국어", "😀👍🏽"]
    words += ["\u200b", "\x07", "\u3000", "\xa0", "\u2028", "\ufffd", "\t"]
    draw = random.Random(0)
    return [draw.choice(["", " "]).join(draw.choices(words, k=draw.randint(0, 12))) for _ in range(count)]


def write(folder, tokens, name="vocab.txt"):
    path = folder / name
    path.write_bytes("".join(token + "\n" for token in tokens).encode())
    return str(path)


@pytest.mark.parametrize("name", ["cased", "uncased"])
def test_ids_equal_those_of_the_library_bert_tokenizer(name, tmp_path):
    ours = load_tokenizer(name, "auto")
    ours.save(tmp_path)
    theirs = BertWordPieceTokenizer(str(tmp_path / "vocab.txt"), lowercase=name == "uncased")
    lines = [line for line in odd_lines(2000) if "[MASK]" not in line]
    assert ours.encode(lines) == [encoding.ids for encoding in theirs.encode_batch(lines, add_special_tokens=False)]


@pytest.mark.parametrize("name", ["cased", "uncased", "tiny"])
def test_text_never_gives_a_special_token(name):
    tokenizer = load_tokenizer(name, "auto")
    ids = {i for line in tokenizer.encode(odd_lines(500) + ["[PAD] [CLS] [SEP] [MASK] [UNK]"]) for i in line}
    assert not ids & {tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id}


def test_ids_words_and_decoding(tmp_path):
    tokenizer = load_tokenizer(write(tmp_path, TOKENS), "no")
    lines = ["The cats sat.", "", "[MASK]", "\x07", "dog", "x" * 101]
    assert tokenizer.encode(lines) == [[5, 7, 8, 9, 10], [], [11, 15, 12], [], [1], [1]]
    assert tokenizer.decode(np.array([5, 7, 8, 4, 9, 10])) == "The cats [MASK] sat."
    assert tokenizer.starts_word.dtype == np.bool_
    assert [token for token, starts in zip(TOKENS, tokenizer.starts_word, strict=True) if not starts] == ["##s"]


def test_casing(tmp_path):
    capitals = write(tmp_path, TOKENS, "cased.txt")
    none = write(tmp_path, [token for token in TOKENS if token not in ("The", "MASK", "é")], "uncased.txt")
    assert [load_tokenizer(path, "auto").lowercase for path in (capitals, none)] == [False, True]
    assert [load_tokenizer(capitals, choice).lowercase for choice in ("yes", "no")] == [True, False]
    assert load_tokenizer(capitals, "yes").encode(["The É"]) == [[6, 14]]  # lower-cased, accent removed
    assert load_tokenizer(capitals, "no").encode(["The é"]) == [[5, 13]]
    with pytest.raises(InputError, match="maybe"):
        load_tokenizer(capitals, "maybe")


@pytest.mark.parametrize("name", ["cased", "uncased", "tiny"])
def test_saved_tokenizer_is_the_same(name, tmp_path):
    tokenizer = load_tokenizer(name, "auto")
    tokenizer.save(tmp_path / "folder")
    for path in (tmp_path / "folder", tmp_path / "folder" / "vocab.txt"):
        loaded = load_tokenizer(str(path), "auto")
        assert loaded.tokens == tokenizer.tokens
        assert loaded.fingerprint == tokenizer.fingerprint


def test_saved_json_adds_special_tokens(tmp_path):
    tokenizer = load_tokenizer(write(tmp_path, TOKENS), "no")
    tokenizer.save(tmp_path)
    theirs = HFTokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert theirs.encode("The [MASK] sat").tokens == ["[CLS]", "The", "[MASK]", "sat", "[SEP]"]
    assert tokenizer.encode(["[MASK]"]) == [[11, 15, 12]]  # saving did not change our own


@pytest.mark.parametrize(
    "name, fingerprint", [("cased", "24c723a8ee2fa669"), ("uncased", "964568dc36810590"), ("tiny", "f46014a89bbd0b4b")]
)
def test_fingerprints_are_those_of_existing_stores_and_checkpoints(name, fingerprint):
    assert load_tokenizer(name, "auto").fingerprint.startswith(fingerprint)


def test_fingerprint_depends_on_vocabulary_and_casing():
    swapped = TOKENS[:5] + TOKENS[6:4:-1] + TOKENS[7:]
    different = ((TOKENS, False), (TOKENS, True), (swapped, False))
    prints = [Tokenizer(tokens, lowercase, "a").fingerprint for tokens, lowercase in different]
    assert len(set(prints)) == 3
    assert prints[0] == Tokenizer(TOKENS, False, "another source").fingerprint


@pytest.mark.parametrize("token", SPECIAL_TOKENS)
def test_a_vocabulary_without_a_special_token_is_refused(token, tmp_path):
    path = write(tmp_path, [other for other in TOKENS if other != token])
    with pytest.raises(InputError) as error:
        load_tokenizer(path, "auto")
    assert path in str(error.value) and token in str(error.value)


def test_invalid_vocabularies_are_refused(tmp_path):
    with pytest.raises(InputError, match="'cat' is on line 8 and again on line 17"):
        load_tokenizer(write(tmp_path, [*TOKENS, "cat"]), "auto")
    with pytest.raises(InputError, match=r"line 17 is empty; give it a name .* as in \[unused17\]; without the line"):
        load_tokenizer(write(tmp_path, [*TOKENS, "", "dog"]), "auto")
    with pytest.raises(InputError, match="line 17 is empty; remove it$"):
        load_tokenizer(write(tmp_path, [*TOKENS, ""]), "auto")
    for broken in ("a\nb", "a\r"):
        with pytest.raises(InputError, match="contains a line break"):
            Tokenizer([*TOKENS, broken], False, "a")
    with pytest.raises(InputError, match="cannot read"):
        load_tokenizer(str(tmp_path / "nowhere.txt"), "auto")
    (tmp_path / "bad.txt").write_bytes(b"[PAD]\n\xff\n")
    with pytest.raises(InputError, match="byte 6"):
        load_tokenizer(str(tmp_path / "bad.txt"), "auto")


def test_windows_line_ends(tmp_path):
    (tmp_path / "vocab.txt").write_bytes("".join(token + "\r\n" for token in TOKENS).encode())
    assert load_tokenizer(str(tmp_path), "no").tokens == TOKENS
