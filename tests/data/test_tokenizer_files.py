"""What the files of a vocabulary say is obeyed, what they leave open is decided, and other tokenizers are refused."""

import itertools
import json

import pytest
from tokenizers import Tokenizer as HFTokenizer
from tokenizers import models, normalizers, pre_tokenizers

from spanbert_jax.data.tokenizer import SPECIAL_TOKENS, Tokenizer, from_json, load_tokenizer, restored_tokenizer
from spanbert_jax.data.tokenizer_files import WordRules
from spanbert_jax.errors import InputError

TOKENS = [*SPECIAL_TOKENS, "The", "the", "cat", "##s", "é", "e", "中", "文", "中文", "."]
TEXT = ["The É 中文"]
ALL_RULES = [WordRules(*choices) for choices in itertools.product((False, True), repeat=3)]


def folder_of(folder, tokens=TOKENS, **files):
    """A folder with a vocab.txt and JSON files: `tokenizer` or `tokenizer_config`."""
    folder.mkdir(exist_ok=True)
    (folder / "vocab.txt").write_text("".join(token + "\n" for token in tokens), encoding="utf-8")
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return str(folder)


def json_of(folder, rules, tokens=TOKENS) -> dict:
    """The tokenizer.json of a tokenizer."""
    Tokenizer(list(tokens), rules, "").save(folder)
    return json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "tokens, text, lowercase, reason",
    [
        # Google's Chinese vocabulary has capitals in these only.
        (["[unused1]", "<S>", "<T>", "中", "文", "ai", "##a"], "中文AI", True, "changes no entry"),
        (["हिन्दी", "##ि"], "हिन्दी", False, "'हिन्दी'"),  # vowel signs are marks, as accents are
        (["が", "##ば"], "が", False, "'が'"),  # the same as か with a mark
        (["The", "the"], "The", False, "'The'"),
        (["the", "naïve"], "naïve", False, "'naïve'"),
    ],
    ids=["zh", "hi", "ja", "en", "accents"],
)
def test_a_vocabulary_is_uncased_if_that_changes_no_entry(tokens, text, lowercase, reason, tmp_path):
    tokenizer = load_tokenizer(folder_of(tmp_path, [*SPECIAL_TOKENS, *tokens]), "auto")
    assert tokenizer.lowercase is lowercase and reason in tokenizer.summary()
    assert tokenizer.unk_id not in tokenizer.encode([text])[0]


@pytest.mark.parametrize(
    "said, rules",
    [
        (dict(do_lower_case=True), WordRules(True)),
        (dict(do_lower_case=False), WordRules(False)),
        (dict(do_lower_case=True, strip_accents=False), WordRules(True, False)),
        (dict(do_lower_case=False, strip_accents=True), WordRules(False, True)),
        (dict(do_lower_case=False, strip_accents=None, tokenize_chinese_chars=False), WordRules(False, None, False)),
        (dict(tokenize_chinese_chars=False), WordRules(False, None, False)),
    ],
    ids=str,
)
def test_tokenizer_config_is_obeyed(said, rules, tmp_path):
    folder = folder_of(tmp_path, tokenizer_config=said)
    for path in (folder, f"{folder}/vocab.txt"):
        tokenizer = load_tokenizer(path, "auto")
        assert tokenizer.fingerprint == Tokenizer(TOKENS, rules, "").fingerprint
    assert ("tokenizer_config.json" in tokenizer.summary()) is ("do_lower_case" in said)


def test_the_user_has_the_last_word_and_is_reminded(tmp_path):
    folder = folder_of(tmp_path, tokenizer_config=dict(do_lower_case=True, strip_accents=False))
    assert load_tokenizer(folder, "no").rules == WordRules(False, False)
    assert "although tokenizer_config.json says otherwise" in load_tokenizer(folder, "no").summary()
    assert load_tokenizer(folder, "auto", "yes").rules == WordRules(True, True)
    assert load_tokenizer("uncased", "auto", "no").encode(["É"]) != load_tokenizer("uncased", "auto").encode(["É"])
    with pytest.raises(InputError, match="data.strip_accents is 'maybe'"):
        load_tokenizer(folder, "auto", "maybe")


@pytest.mark.parametrize("rules", ALL_RULES, ids=str)
def test_a_saved_tokenizer_is_restored_exactly(rules, tmp_path):
    tokenizer = Tokenizer(TOKENS, rules, "")
    tokenizer.save(tmp_path)
    assert load_tokenizer(str(tmp_path), "auto").fingerprint == tokenizer.fingerprint
    (tmp_path / "tokenizer.json").unlink()
    restored = restored_tokenizer(tmp_path / "vocab.txt", tokenizer.fingerprint)
    assert restored.fingerprint == tokenizer.fingerprint and restored.encode(TEXT) == tokenizer.encode(TEXT)
    assert restored_tokenizer(tmp_path / "vocab.txt", "another") is None


def test_rules_give_different_ids_and_fingerprints():
    tokenizers = [Tokenizer([*TOKENS, "É"], rules, "") for rules in ALL_RULES]
    assert len({str(tokenizer.encode(["The É é 中文"])) for tokenizer in tokenizers}) == 8
    assert len({tokenizer.fingerprint for tokenizer in tokenizers}) == 8


def test_tokenizer_json_is_obeyed_and_tokenizer_config_has_precedence(tmp_path):
    whole = json_of(tmp_path / "saved", WordRules(True, False))
    folder = folder_of(tmp_path / "a", tokenizer=whole)
    assert load_tokenizer(folder, "auto").rules == WordRules(True, False)
    (tmp_path / "a" / "vocab.txt").unlink()
    assert load_tokenizer(folder, "auto").tokens == TOKENS
    assert (
        load_tokenizer(f"{folder}/tokenizer.json", "auto").summary()
        == "15 tokens, uncased, accents kept (as tokenizer.json says)"
    )
    config = dict(do_lower_case=False)
    assert (
        load_tokenizer(folder_of(tmp_path / "b", tokenizer=whole, tokenizer_config=config), "auto").lowercase is False
    )
    generic = config | dict(tokenizer_class="PreTrainedTokenizerFast")
    assert (
        load_tokenizer(folder_of(tmp_path / "c", tokenizer=whole, tokenizer_config=generic), "auto").lowercase is True
    )


def test_files_that_contradict_each_other_or_say_nonsense_are_refused(tmp_path):
    other = json_of(tmp_path / "saved", WordRules(False), [*TOKENS[:-1], "!"])
    for words, files in {
        "vocab.txt and tokenizer.json have different entries": dict(tokenizer=other),
        "do_lower_case is 'no', not true or false": dict(tokenizer_config=dict(do_lower_case="no")),
        "holds no JSON object": dict(tokenizer_config=[]),
        "tokenizer_class is 'BertJapaneseTokenizer'": dict(
            tokenizer_config=dict(tokenizer_class="BertJapaneseTokenizer")
        ),
        "word_tokenizer_type is 'mecab'": dict(tokenizer_config=dict(word_tokenizer_type="mecab")),
    }.items():
        with pytest.raises(InputError, match=words):
            load_tokenizer(folder_of(tmp_path / "x", **files), "auto")
        for name in files:
            (tmp_path / "x" / f"{name}.json").unlink()
    (tmp_path / "x" / "tokenizer_config.json").write_text("{")
    with pytest.raises(InputError, match="tokenizer_config.json is not JSON"):
        load_tokenizer(str(tmp_path / "x"), "auto")


def test_a_bpe_with_berts_special_tokens_is_refused():
    letters = {token: number for number, token in enumerate([*SPECIAL_TOKENS, "a", "b"])}
    with pytest.raises(InputError, match="vocabulary mine: its tokenizer.json is of a BPE, not of a WordPiece"):
        from_json(HFTokenizer(models.BPE(letters, [])).to_str(), "mine")
    with pytest.raises(InputError, match="is of a WordLevel"):
        from_json(HFTokenizer(models.WordLevel(letters)).to_str(), "mine")
    for text, words in {"": "not JSON", "[]": "no JSON object", "{}": "no known kind"}.items():
        with pytest.raises(InputError, match=words):
            from_json(text, "mine")


def test_a_wordpiece_unlike_berts_is_refused_and_all_that_differs_is_named():
    ids = {token: number for number, token in enumerate(TOKENS)}
    tokenizer = HFTokenizer(models.WordPiece(ids, unk_token="<unk>", continuing_subword_prefix="@@"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.NFKC(), pre_tokenizers.Whitespace()
    with pytest.raises(InputError) as error:
        from_json(tokenizer.to_str(), "mine")
    for words in (
        "its model has unk_token '<unk>', not '[UNK]'",
        "its model has continuing_subword_prefix '@@', not '##'",
        "its normalizer has type 'NFKC', not 'BertNormalizer'",
        "its pre_tokenizer has type 'Whitespace', not 'BertPreTokenizer'",
        "in a folder of its own",
    ):
        assert words in str(error.value)
    gaps = HFTokenizer(models.WordPiece({"[UNK]": 0, "a": 2}, unk_token="[UNK]"))
    gaps.normalizer, gaps.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    with pytest.raises(InputError, match="its ids are not 0, 1, 2"):
        from_json(gaps.to_str(), "mine")


def test_berts_json_is_taken_with_its_rules_and_added_tokens():
    tokenizer = HFTokenizer(models.WordPiece({token: i for i, token in enumerate(TOKENS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.BertNormalizer(lowercase=True, strip_accents=False)])
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens([*SPECIAL_TOKENS, "[ENTITY]"])
    tokenizer.add_tokens(["covid"])
    ours = from_json(tokenizer.to_str(), "mine")
    assert ours.tokens == [*TOKENS, "[ENTITY]", "covid"] and ours.rules == WordRules(True, False)
    assert ours.encode(["the cats covid"]) == [tokenizer.encode("the cats covid").ids]
