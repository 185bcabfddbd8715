"""Training of a WordPiece vocabulary for text in any language and script, with the trainer of Hugging Face
`tokenizers`.

Words are counted here and only their counts are given to the trainer, for two reasons. Memory is bounded, whatever the
length of the text: to MAX_WORDS different words and MAX_PENDING characters that are not divided into words yet, at most
about 1 GB. And the result is the same each time: the trainer numbers the tokens "##a", "##b", ... in the order of a
hash table and breaks ties between equally frequent pairs by these numbers (huggingface/tokenizers#1794), so it is given
them in sorted order, with an alphabet that is chosen here.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator

from tokenizers import Tokenizer as HFTokenizer
from tokenizers import models, pre_tokenizers, trainers

from spanbert_jax.data.tokenizer import SPECIAL_TOKENS
from spanbert_jax.data.tokenizer_files import CONTINUATION, MAX_WORD_LENGTH, UNKNOWN, WordRules
from spanbert_jax.errors import InputError

MIN_SIZE = 100  # entries of a vocabulary
MAX_PENDING = 1 << 26  # characters of text whose distinct strings without blanks are divided into words at a time
MAX_WORDS = 1 << 22  # different words kept; beyond that the rarest are forgotten
MAX_TRAINER_WORDS = 50_000_000  # words given to the trainer, which reads each as often as it occurs
COVERAGE = 0.99995  # share of all characters that the alphabet covers; the rest, a few of other scripts, are [UNK]
MIN_PAIR_COUNT = 2  # occurrences of a pair that becomes a token
COPIES_AT_A_TIME = 10_000  # of a word, in one text for the trainer


def train(texts: Iterator[str], size: int, rules: WordRules) -> list[str]:
    """Returns at most `size` vocabulary entries in id order: special tokens, characters, "##" characters, longer
    tokens.

    Longer tokens are in the order of their usefulness. There are fewer than `size` entries if the text has no more
    tokens that occur twice. The result depends on the texts and the arguments alone (and, beyond MAX_WORDS, on the
    order of the texts).

    Raises:
      InputError: the text has no words, or `size` is below MIN_SIZE.
    """
    return train_on_counts(count_words(texts, rules), size)


def count_words(texts: Iterable[str], rules: WordRules) -> Counter[str]:
    """Returns how often each word occurs. Words are those of `Tokenizer`."""
    normalizer, pre_tokenizer = rules.normalizer(), pre_tokenizers.BertPreTokenizer()
    words: Counter[str] = Counter()
    pending: Counter[str] = Counter()  # strings without blanks
    pending_characters = 0

    def count_pending() -> None:
        for string, count in pending.items():
            for word, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(string)):
                words[word] += count
        pending.clear()

    for text in texts:
        pending.update(text.split(" "))  # most strings occur often: handling each only once is many times faster
        pending_characters += len(text)
        if pending_characters > MAX_PENDING:
            count_pending()
            forget_rarest(words)
            pending_characters = 0
    count_pending()
    return words


def forget_rarest(words: Counter[str]) -> None:
    """Drops the words of the lowest counts, so that at most MAX_WORDS are left."""
    for min_count in itertools.count(2):
        if len(words) <= MAX_WORDS:
            return
        for word in [word for word, count in words.items() if count < min_count]:
            del words[word]


def train_on_counts(words: Counter[str], size: int) -> list[str]:
    """Does what `train` does, for counted words. Counts of several texts may be added up before."""
    if size < MIN_SIZE:
        raise InputError(f"a vocabulary of {size} tokens is too small to train; give at least {MIN_SIZE}")
    letters = alphabet(words, size)
    known = set(letters)
    kept = {word: words[word] for word in sorted(words) if len(word) <= MAX_WORD_LENGTH and known.issuperset(word)}
    if not kept:
        raise InputError("there is no word in the text to train a vocabulary on; check the source")
    continuations = [CONTINUATION + letter for letter in sorted({letter for word in kept for letter in word[1:]})]
    model = HFTokenizer(models.WordPiece(unk_token=UNKNOWN))
    model.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        special_tokens=[*SPECIAL_TOKENS, *continuations],
        initial_alphabet=letters,
        limit_alphabet=len(letters),
        min_frequency=MIN_PAIR_COUNT,
        show_progress=False,
    )
    model.train_from_iterator(repeated(kept), trainer)
    ids = model.get_vocab()
    first = [*SPECIAL_TOKENS, *letters, *continuations]
    return first + sorted(set(ids) - set(first), key=lambda token: ids[token])


def alphabet(words: Counter[str], size: int) -> list[str]:
    """Returns the characters that become tokens, sorted.

    They are the most frequent ones that cover the share COVERAGE of the text, but fewer than half of `size`.
    """
    letters: Counter[str] = Counter()
    for word, count in words.items():
        for letter in word:
            letters[letter] += count
    ranked = sorted(letters, key=lambda letter: (-letters[letter], letter))
    enough = letters.total() * COVERAGE
    covered_before = itertools.accumulate((letters[letter] for letter in ranked), initial=0)
    covering = [letter for letter, covered in zip(ranked, covered_before) if covered < enough]
    return sorted(covering[: size // 2 - len(SPECIAL_TOKENS)])


def repeated(words: dict[str, int]) -> Iterator[str]:
    """Yields each word as often as it occurs, in texts of many copies.

    If there are more than MAX_TRAINER_WORDS, all counts are reduced in proportion.
    """
    scale = min(1.0, MAX_TRAINER_WORDS / sum(words.values()))
    for word, count in words.items():
        copies = round(count * scale)
        for begin in range(0, copies, COPIES_AT_A_TIME):
            yield " ".join([word] * min(COPIES_AT_A_TIME, copies - begin))
