"""Trained vocabularies: any script, the same in every process, valid for the tokenizer."""

import hashlib
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from spanbert_jax.data import vocabulary
from spanbert_jax.data.sources import find_units
from spanbert_jax.data.tokenizer import SPECIAL_TOKENS, Tokenizer, check_vocabulary, load_tokenizer
from spanbert_jax.data.tokenizer_files import WordRules
from spanbert_jax.errors import InputError

CASED, UNCASED = WordRules(False), WordRules(True)
GERMAN = [
    "Der alte Müller saß am Abend vor seiner Mühle und hörte dem Bach zu, der über die Steine lief.",
    "Früher hatte hier ein großes Rad gestanden, und aus allen Dörfern der Gegend kamen die Bauern mit ihrem Korn.",
    "Heute kam niemand mehr. „Das Wasser läuft noch“, sagte er zu seiner Enkelin, „aber es hat nichts mehr zu tun.“",
    "Das Mädchen lachte und warf ein Stück Rinde in den Bach. "
    "„Es trägt doch mein Schiff“, rief sie, „und wer weiß, wohin!“",
    "Am nächsten Morgen gingen sie zusammen flussabwärts, um nach dem Schiff zu sehen. "
    "Sie fanden es zwei Kilometer weiter,",
    "zwischen den Wurzeln einer Weide, und darauf saß eine kleine graue Spinne, die schon ihr Netz gesponnen hatte.",
]
CHINESE = [
    "从前，山脚下有一条小河，河边住着一位老人和他的孙女。老人年轻的时候是村里的木匠，做过许多桌子、椅子和小船。",
    "现在他的眼睛不好了，每天只坐在门前听河水的声音。孙女问他：“爷爷，河水在说什么？”老人说：“河水在说它要去很远的地方。”",
    "第二天早上，孙女用树皮做了一只小船，放在河里。小船慢慢地走了，绕过石头，绕过柳树，最后看不见了。",
    "老人笑着说：“它会替我们去看大海。”2024年，村里来了一个年轻人，他带来一只旧的小船，上面写着孙女的名字。",
]


def unknown(lines, tokens, lowercase):
    """Returns the share of [UNK] among the tokens of the lines."""
    tokenizer = Tokenizer(tokens, lowercase, "trained")
    counts = Counter(token for ids in tokenizer.encode(lines) for token in ids)
    return counts[tokenizer.unk_id] / counts.total()


@pytest.mark.parametrize(
    "lines, lowercase", [(GERMAN, False), (GERMAN, True), (CHINESE, False)], ids=["de", "de uncased", "zh"]
)
def test_a_text_has_no_unknown_words_in_its_own_vocabulary(lines, lowercase, tmp_path):
    tokens = vocabulary.train(iter(lines), 800, WordRules(lowercase))
    check_vocabulary(tokens, "trained")
    assert tuple(tokens[:5]) == SPECIAL_TOKENS and len(tokens) <= 800
    assert unknown(lines, tokens, lowercase) == 0
    trained = Tokenizer(tokens, lowercase, "trained")
    trained.save(tmp_path)
    assert load_tokenizer(str(tmp_path), "yes" if lowercase else "no").fingerprint == trained.fingerprint


def test_tokens_follow_the_language():
    german = vocabulary.train(iter(GERMAN), 400, CASED)
    assert {"der", "und", "##en", "##te"} <= set(german) and not {"schi", "müll"} & set(german)
    assert not any(token != token.lower() for token in vocabulary.train(iter(GERMAN), 400, UNCASED)[5:])
    chinese = vocabulary.train(iter(CHINESE), 400, CASED)
    assert {"河", "水", "。"} <= set(chinese) and "河水" not in chinese
    assert not any(token.startswith("##") and not token[2:].isascii() for token in chinese)  # Han characters are words


def embedded(count):
    train, _ = find_units("embedded", "", "", "", "blank")
    return [line for _, document in zip(range(count), train.documents()) for line in document]


def test_words_are_those_of_the_tokenizer(monkeypatch):
    hard = ["a\u0000b c\u200bd e\u3000f", "don't [MASK] ##x _y_ ﬁ Ǆ", " two  spaces ", ""]
    lines = [*GERMAN, *CHINESE, *embedded(3), *hard]
    for lowercase in (False, True):
        words = vocabulary.count_words(lines, WordRules(lowercase))
        hf = Tokenizer([*SPECIAL_TOKENS, "x"], lowercase, "")._hf
        normalized = [hf.normalizer.normalize_str(line) for line in lines]
        assert words == Counter(word for line in normalized for word, _ in hf.pre_tokenizer.pre_tokenize_str(line))
        monkeypatch.setattr(vocabulary, "MAX_PENDING", 100)
        assert vocabulary.count_words(lines, WordRules(lowercase)) == words


DIGEST = """
from tests.data import test_vocabulary
print(test_vocabulary.digest())
"""


def digest():
    """Returns a checksum of a vocabulary."""
    tokens = vocabulary.train(iter(embedded(30) + GERMAN), 2000, CASED)
    return hashlib.sha256("\n".join(tokens).encode()).hexdigest()


def test_the_same_in_every_process_and_with_any_number_of_threads():
    """Uses new processes, since the seed of the library's hash tables, which can change its vocabularies, is drawn in
    each.
    """
    expected = digest()
    root = Path(__file__).parents[2]
    for threads in ("1", "2", "7"):
        environment = {**os.environ, "RAYON_NUM_THREADS": threads, "PYTHONPATH": str(root), "PYTHONHASHSEED": threads}
        command = [sys.executable, "-c", DIGEST]
        process = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=True)
        assert process.stdout.strip() == expected


def test_ties_are_broken_the_same_way():
    lines = ["abcd bcda cdab dabc abdc acbd " * 2]  # every pair equally often
    assert len({tuple(vocabulary.train(iter(lines), 100, CASED)) for _ in range(30)}) == 1


def test_a_smaller_vocabulary_is_the_beginning_of_a_larger():
    lines = embedded(10)
    small, large = vocabulary.train(iter(lines), 300, CASED), vocabulary.train(iter(lines), 600, CASED)
    assert len(small) == 300 and len(large) == 600 and large[:300] == small


def test_little_text_gives_fewer_tokens():
    tokens = vocabulary.train(iter(["so few words, so few"]), 1000, CASED)
    assert 10 < len(tokens) < 40 and {"so", "few"} <= set(tokens) and "words" not in tokens


def test_rare_characters_are_left_out():
    lines = ["the same words again and again " * 200] * 20 + ["\u16a0\u16a1 \u16a2"]
    tokens = vocabulary.train(iter(lines), 200, CASED)
    assert "again" in tokens and not any("\u16a0" <= letter <= "\u16a2" for token in tokens for letter in token)


def test_memory_is_bounded_by_forgetting_the_rarest(monkeypatch):
    monkeypatch.setattr(vocabulary, "MAX_PENDING", 500)
    monkeypatch.setattr(vocabulary, "MAX_WORDS", 50)
    lines = [f"often seldom{i} often" for i in range(1000)]
    words = vocabulary.count_words(lines, CASED)
    assert words["often"] == 2000 and len(words) < 100


def test_trainer_reads_frequent_words_in_proportion(monkeypatch):
    monkeypatch.setattr(vocabulary, "MAX_TRAINER_WORDS", 1000)

    def read_by_trainer(words):
        return Counter(word for text in vocabulary.repeated(words) for word in text.split())

    assert read_by_trainer({"a": 60_000, "b": 40_000, "c": 1}) == {"a": 600, "b": 400}
    monkeypatch.setattr(vocabulary, "MAX_TRAINER_WORDS", 1_000_000)
    assert read_by_trainer({"a": 60_000, "c": 1}) == {"a": 60_000, "c": 1}


REFUSED = [([], 1000, "no word"), ([" \t ", ""], 1000, "no word"), (["text"], 50, "too small")]


@pytest.mark.parametrize("lines, size, message", REFUSED)
def test_empty_text_and_small_sizes_are_refused(lines, size, message):
    with pytest.raises(InputError, match=message):
        vocabulary.train(iter(lines), size, CASED)
