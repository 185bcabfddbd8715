"""A WordPiece vocabulary for a text of any language and script, by the trainer of Hugging Face `tokenizers`.

Words are counted here and only their counts are handed to the trainer, for two reasons. Memory is bounded: `MOST_WORDS` different words and
`MOST_WAITING` characters still uncut, about 1 GB at the very most, whatever the length of the text. And the outcome is the same each time: the
trainer numbers the tokens "##a", "##b", ... in the order of a hash table and breaks ties between equally frequent pairs by these numbers
(huggingface/tokenizers#1794), so they are given to it in sorted order beforehand, with an alphabet that was chosen here.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator

from tokenizers import Tokenizer as HFTokenizer
from tokenizers import models, normalizers, pre_tokenizers, trainers

from spanbert_jax.data.tokenizer import CONTINUATION, MAX_WORD_LENGTH, SPECIAL_TOKENS
from spanbert_jax.errors import InputError

SMALLEST = 100  # tokens
MOST_WAITING = (
    1 << 26
)  # characters of text, of whose strings between spaces each different one waits to be cut into words
MOST_WORDS = 1 << 22  # different words kept; beyond that the rarest are forgotten
MOST_FED = 50_000_000  # words told to the trainer, which wants each as often as it occurs
COVERAGE = 0.99995  # of all characters; those of the alphabet. The rest, a few of other scripts, are [UNK]
LEAST_PAIR = 2  # occurrences of what becomes a token


def train(texts: Iterator[str], size: int, lowercase: bool) -> list[str]:
    """At most `size` tokens for `load_tokenizer`, ids in order: special tokens, characters, "##" characters, then the most useful first.

    Fewer than `size` when the text has no more tokens that occur twice: the caller may tell. Depends on the texts and the arguments alone
    (and, beyond MOST_WORDS, on the texts' order). Raises InputError for a text without words and a size under SMALLEST.
    """
    return tokens_of(count_words(texts, lowercase), size)


def count_words(texts: Iterable[str], lowercase: bool) -> Counter:
    """How often each word occurs, cut as `Tokenizer` cuts: word -> count."""
    normalizer, cutter = normalizers.BertNormalizer(lowercase=lowercase), pre_tokenizers.BertPreTokenizer()
    words, chunks, waiting = Counter(), Counter(), 0

    def cut_chunks():
        for chunk, count in chunks.items():
            for word, _ in cutter.pre_tokenize_str(normalizer.normalize_str(chunk)):
                words[word] += count
        chunks.clear()

    for text in texts:
        chunks.update(text.split(" "))  # most are known already: cutting each but once is many times faster
        waiting += len(text)
        if waiting > MOST_WAITING:
            cut_chunks()
            forget_rarest(words)
            waiting = 0
    cut_chunks()
    return words


def forget_rarest(words: Counter) -> None:
    """Drops the rarest words, as many counts of them as it takes to have at most MOST_WORDS."""
    for least in itertools.count(2):
        if len(words) <= MOST_WORDS:
            return
        for word in [word for word, count in words.items() if count < least]:
            del words[word]


def tokens_of(words: Counter, size: int) -> list[str]:
    """As `train`, of counted words; counts of several texts may be added up before."""
    if size < SMALLEST:
        raise InputError(f"a vocabulary of {size} tokens is too small to train; give at least {SMALLEST}")
    letters = alphabet(words, size)
    known = set(letters)
    kept = {
        word: count for word, count in sorted(words.items()) if len(word) <= MAX_WORD_LENGTH and known.issuperset(word)
    }
    if not kept:
        raise InputError("there is no word in the text to train a vocabulary on; check the source")
    endings = [CONTINUATION + letter for letter in sorted({letter for word in kept for letter in word[1:]})]
    model = HFTokenizer(models.WordPiece(unk_token="[UNK]"))
    model.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        special_tokens=[*SPECIAL_TOKENS, *endings],
        initial_alphabet=letters,
        limit_alphabet=len(letters),
        min_frequency=LEAST_PAIR,
        show_progress=False,
    )
    model.train_from_iterator(repeated(kept), trainer)
    ids = model.get_vocab()
    first = [*SPECIAL_TOKENS, *letters, *endings]
    return first + sorted(set(ids) - set(first), key=ids.get)


def alphabet(words: Counter, size: int) -> list[str]:
    """Sorted characters that become tokens: the most frequent that make up COVERAGE of the text, fewer than half as many as `size`."""
    letters = Counter()
    for word, count in words.items():
        for letter in word:
            letters[letter] += count
    ranked = sorted(letters, key=lambda letter: (-letters[letter], letter))
    enough = letters.total() * COVERAGE
    before = itertools.accumulate((letters[letter] for letter in ranked), initial=0)
    covering = [letter for letter, sum_before in zip(ranked, before) if sum_before < enough]
    return sorted(covering[: size // 2 - len(SPECIAL_TOKENS)])


def repeated(words: dict[str, int]) -> Iterator[str]:
    """Each word as often as it occurs, many at once; all of them more rarely, in proportion, when there are more than MOST_FED."""
    scale = min(1.0, MOST_FED / sum(words.values()))
    for word, count in words.items():
        copies = round(count * scale)
        for begin in range(0, copies, 10_000):
            yield " ".join([word] * min(10_000, copies - begin))
