"""Named entities and other typed spans of words, and labels of words such as parts of speech.

A row is [CLS] (words before) sentence (words after) [SEP]; a sentence that does not fit is divided into several rows.
Two decoders:

tokens  the first token of each word is classified: as the label of the word, or as a tag of tagging.scheme
        (Devlin et al. 2019, section 5.3).
spans   each span of up to tagging.max_width words is classified as one of the types or as none, from the states of its
        first and last token, and, as the head of the span boundary objective (Joshi et al. 2020, section 3.2), from
        those of the tokens just before and just after it and an embedding of its width. Spans may be nested. Where the
        ends of an entity are in doubt, several spans share its probability; so a span is predicted from a probability
        on that gives the best F1 on the validation data.
"""

import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from spanbert_jax.data.tokenizer import Tokenizer
from spanbert_jax.errors import InputError
from spanbert_jax.finetuning.task import Output, Row, Task, class_names, single_sequence, weighted_mean_count
from spanbert_jax.labelled.conll import OUTSIDE, PLAIN, PREFIXES, Sentence, Span, from_spans, to_spans, write_conll
from spanbert_jax.labelled.tagged import Tagged, inner_spans, read_tagged, tagged_text
from spanbert_jax.model.layout import Layout
from spanbert_jax.model.spec import ModelSpec
from spanbert_jax.objectives.objective import Field, cross_entropy_sum
from spanbert_jax.scorers.conlleval import span_f1
from spanbert_jax.tasks.tagged_spans import LEAST, UNTUNED, best_threshold, compatible, described, spans_of
from spanbert_jax.tasks.tagger import Tagger, shifted

NAME = "tagging"


class Window(NamedTuple):
    """What a row shows of a sentence: N words that have tokens."""

    words: np.ndarray  # int32 [N], their numbers
    first: np.ndarray  # int32 [N], the position of the first token of each


class Tagging(Task):
    """Finds typed spans of words, or labels words."""

    name = NAME
    pipeline = "token-classification"

    def __init__(self, config, tokenizer: Tokenizer, labels):
        super().__init__(config, tokenizer, labels)
        self.plain = labels["plain"]
        self.width = self.options.max_width if self.options.decoder == "spans" else 0
        self.metric = "accuracy" if self.plain else "best_f1" if self.width else "f1"
        types = labels["types"]
        if self.width:
            self.classes = ["", *types]  # "": of no type
            self.fields: Mapping[str, Field] = {
                "first": Field("BL", "int32"),
                "last": Field("BL", "int32"),
                "is_word": Field("BL", "float32"),
                "types": Field("BLW", "int32"),
            }
        else:
            prefixes = dict.fromkeys(PREFIXES[self.options.scheme])
            self.classes = (
                types if self.plain else [OUTSIDE, *(f"{a}-{b}" if b else a for b in types for a in prefixes)]
            )
            self.fields = {"label": Field("BL", "int32"), "weight": Field("BL", "float32")}
            self.transformers_class = "BertForTokenClassification"
            self.exported = {"output": "classifier"}
            self.transformers_config = class_names(self.classes)
            self.program_outputs = f"for each token {', '.join(self.classes)}"
        self.numbers = {name: number for number, name in enumerate(self.classes)}

    @classmethod
    def problems(cls, config):
        """Returns what is wrong with config.tagging, one line each."""
        if config.seq_len < 3:
            return [f"seq_len {config.seq_len} has no place for a word beside [CLS] and [SEP]; give 3 or more"]
        return []

    # Data

    @classmethod
    def read(cls, config, source):
        """Reads files of columns, JSON Lines or Parquet, or tfds:NAME/SPLIT."""
        options = config[NAME]
        examples, notes = read_tagged(source, options.words, options.tags), []
        spans = [span for example in examples for span in example.spans or ()]
        if not any(example.spans is not None for example in examples):
            raise InputError(f"{source}: its {len(examples):,} sentences have no tags; give labelled ones")
        wide = sum(last - first >= options.max_width for _, first, last in spans)
        if wide and options.decoder == "spans":
            notes.append(
                f"{source}: {wide:,} of {len(spans):,} spans have more than tagging.max_width {options.max_width} words"
                " and cannot be found"
            )
        return examples, notes

    @classmethod
    def read_unlabelled(cls, config, source):
        """Reads the same; tags may be missing, and a record may be {"text": ...}."""
        return read_tagged(source, config[NAME].words, config[NAME].tags), []

    @classmethod
    def parse(cls, config, inputs: Sequence[Any]):
        """Takes a text or a list of words each."""
        examples = []
        for number, given in enumerate(inputs):
            if isinstance(given, str):
                examples.append(tagged_text(given, number))
            elif isinstance(given, Sequence) and all(isinstance(word, str) for word in given):
                examples.append(Tagged(tuple(given), None, number))
            else:
                raise InputError(f"input {number}: {given!r} is neither a text nor a list of words")
        return examples

    @classmethod
    def labels_of(cls, config, examples: list[Tagged]):
        """Returns what is known of labels.

        {"plain": whether words have labels, "types": of spans, or the labels, "usual": that of most words, and for the
        decoder spans "share": the fraction of spans of up to tagging.max_width words that are of a type}

        Raises:
          InputError: the decoder cannot be trained on these.
        """
        options, where = config[NAME], f"task.train {config.task.train}"
        plain = any(example.plain for example in examples)
        types = Counter(kind for example in examples for kind, *_ in example.spans or ())
        if not types:
            raise InputError(f"{where}: no sentence has a span, so nothing can be trained on")
        if options.decoder == "spans" and plain:
            raise InputError(
                f"{where}: its tags are labels of words, not of spans; give --config.tagging.decoder=tokens"
            )
        if options.decoder == "tokens" and any(inner_spans(example.spans or ()) for example in examples):
            raise InputError(f"{where}: spans overlap, which tags cannot say; give --config.tagging.decoder=spans")
        known = {"plain": plain, "types": sorted(types), "usual": types.most_common(1)[0][0] if plain else OUTSIDE}
        if options.decoder == "spans":
            lengths = [len(example.words) for example in examples if example.spans is not None]
            candidates = sum(max(length - more, 0) for length in lengths for more in range(options.max_width))
            known["share"] = min(types.total() / candidates, 0.5)
        return known

    @classmethod
    def belonging(cls, examples: list[Tagged]):
        """Sentences of one document stay together, where the files mark documents."""
        marked = len({example.document for example in examples}) > 1
        return [(example.document if marked else number, "") for number, example in enumerate(examples)]

    def features(self, examples: list[Tagged], training: bool) -> list[Row]:
        """Returns a row for each sentence, or several if it does not fit; those of training have tags."""
        tokens = self.tokenizer.encode([word for example in examples for word in example.words])
        rows, end = [], 0
        for _, document in itertools.groupby(enumerate(examples), lambda numbered: numbered[1].document):
            of_document = list(document)
            begin, end = end, end + sum(len(example.words) for _, example in of_document)
            outer, first = (begin, end), begin  # words that may be context, and the first of the sentence
            for number, example in of_document:
                if training and example.spans is None:
                    raise InputError(
                        f"task.train: sentence {number + 1} ({' '.join(example.words[:5])} ...) has no tags"
                    )
                end_of_sentence = first + len(example.words)
                for window in self._windows(tokens, first, end_of_sentence):
                    rows.append(self._row(number, example, tokens, window, first, outer))
                first = end_of_sentence
        return rows

    def _windows(self, tokens: list[list[int]], begin: int, end: int) -> Iterator[tuple[int, int]]:
        """Yields the words (first, last + 1) of each row for the words of a sentence; at least one word a row."""
        space, first, used = self.config.seq_len - 2, begin, 0
        for word in range(begin, end):
            size = min(len(tokens[word]), space)
            if used + size > space:
                yield first, word
                first, used = word, 0
            used += size
        if used:
            yield first, end

    def _row(self, number: int, example: Tagged, tokens, window: tuple[int, int], begin: int, outer) -> Row:
        """Returns the row of words `window` of a sentence.

        Args:
          number: of the example.
          example: the sentence.
          tokens: of each word of all examples, by which words are numbered here.
          window: first word, and the one after the last.
          begin: first word of the sentence.
          outer: first word of its document, and the one after the last.
        """
        space = self.config.seq_len - 2
        sizes = [min(len(tokens[word]), space) for word in range(*window)]
        before, after = self._context(tokens, window, outer, space - sum(sizes))
        inside = [token for word, size in zip(range(*window), sizes) for token in tokens[word][:size]]
        arrays = single_sequence(self.tokenizer, [*before, *inside, *after])
        last = len(before) + np.cumsum(sizes, dtype=np.int32)  # with [CLS] before
        kept = np.flatnonzero(sizes)
        shown = Window((kept + window[0] - begin).astype(np.int32), (last - sizes + 1)[kept].astype(np.int32))
        return Row(number, arrays | self._targets(example, shown, last[kept], len(arrays["tokens"])), shown)

    def _context(self, tokens, window: tuple[int, int], outer, space: int) -> tuple[list[int], list[int]]:
        """Returns up to tagging.context tokens of whole words before and after a window, in `space` tokens together."""
        found: list[list[list[int]]] = []
        for words in (range(window[0] - 1, outer[0] - 1, -1), range(window[1], outer[1])):
            side: list[list[int]] = []
            left = min(self.options.context, space // (2 - len(found)))
            for word in words:
                if len(tokens[word]) > left:
                    break
                left -= len(tokens[word])
                side.append(tokens[word])
            space -= sum(map(len, side))
            found.append(side)
        before, after = found
        return [token for word in reversed(before) for token in word], [token for word in after for token in word]

    def _targets(self, example: Tagged, window: Window, last: np.ndarray, length: int) -> dict[str, np.ndarray]:
        """Returns the arrays of Task.fields of a row of `length` tokens, of which `last` [N] are the last of words."""
        spans = example.spans or ()
        if not self.width:
            label, weight = np.zeros(length, np.int32), np.zeros(length, np.float32)
            if example.spans is not None and not inner_spans(spans):
                tags = from_spans(spans, len(example.words), PLAIN if self.plain else self.options.scheme)
                numbers = [self.numbers.get(tags[word], -1) for word in window.words]
                label[window.first] = np.maximum(numbers, 0)
                weight[window.first] = np.array(numbers) >= 0
            return {"label": label, "weight": weight}
        count = len(window.words)
        arrays = {name: np.zeros(length, np.int32) for name in ("first", "last")}
        arrays["first"][:count], arrays["last"][:count] = window.first, last
        types = np.zeros((length, self.width), np.int32)
        place = {word: index for index, word in enumerate(window.words.tolist())}
        for kind, start, stop in spans:
            index, more = place.get(start, -1), place.get(stop, -1) - place.get(start, -1)
            if index >= 0 <= more < self.width:
                types[index, more] = self.numbers.get(kind, 0)
        return arrays | {"is_word": (np.arange(length) < count).astype(np.float32), "types": types}

    def sizes(self, size: int):
        """Returns W, the words of the longest span."""
        return {"W": self.width} if self.width else {}

    # Model

    def model(self, spec: ModelSpec, layout: Layout) -> nn.Module:
        """Returns the tagger."""
        return Tagger(spec, layout, NAME, len(self.classes), self.width, self.labels.get("share", 0.5))

    def counts(self, batch):
        """Returns the number of words that are trained on; the loss of spans is a sum over the widths at each word."""
        return {NAME: weighted_mean_count(batch["is_word" if self.width else "weight"])}

    def _weights(self, batch) -> jax.Array:
        """Returns what is classified: float32 [B, L] of tokens, or [B, L, W] of spans whose last word is in the row."""
        if not self.width:
            return batch["weight"]
        return batch["is_word"][:, :, None] * shifted(batch["is_word"], self.width)

    def loss(self, outputs: jax.Array, batch, counts):
        """Returns the cross-entropy."""
        weights, targets = self._weights(batch), batch["types" if self.width else "label"]
        rows = len(outputs)
        total, correct = cross_entropy_sum(
            outputs.reshape(rows, -1, len(self.classes)), targets.reshape(rows, -1), weights.reshape(rows, -1)
        )
        return total / counts[NAME], {NAME: {"loss": total, "accuracy": correct}}

    def predictions(self, outputs: jax.Array, batch):
        """Returns class and its probability, int32 and float32 [B, L] of tokens or [B, L, W] of spans.

        For spans it is the best one of the types, and 0 where there is no span.
        """
        probabilities = jax.nn.softmax(outputs)
        if not self.width:
            classes, chosen = jnp.argmax(outputs, axis=-1), jnp.max(probabilities, axis=-1)
        else:
            of_types, is_span = probabilities[..., 1:], self._weights(batch) > 0
            classes, chosen = jnp.where(is_span, jnp.argmax(of_types, axis=-1) + 1, 0), jnp.max(of_types, axis=-1)
        return {"class": classes.astype(jnp.int32), "probability": chosen}

    # Predictions

    def decode(self, examples: list[Tagged], outputs: list[Output]):
        """Returns {"spans": [{"type", "first", "last" (words), "score", and of a text "start", "end", "text"}]}.

        Scores are probabilities; of several tags, the least one. For labels of words it is {"tags": [one for each]}.
        The decoder of spans adds "unlikely": those that fit beside the spans, but are less probable than the best
        threshold on the validation data.
        """
        tags = [[self.labels["usual"]] * len(example.words) for example in examples]
        scores = [np.zeros(len(example.words)) for example in examples]
        scored: list[list[tuple[float, Span]]] = [[] for _ in examples]
        for (number, _, window), arrays in outputs:
            if self.width:
                for start, more in zip(*np.nonzero((arrays["class"] > 0) & (arrays["probability"] >= LEAST))):
                    kind = self.classes[arrays["class"][start, more]]
                    span = (kind, int(window.words[start]), int(window.words[start + more]))
                    scored[number].append((float(arrays["probability"][start, more]), span))
                continue
            for word, position in zip(window.words, window.first):
                tags[number][word] = self.classes[arrays["class"][position]]
                scores[number][word] = arrays["probability"][position]
        if self.plain:
            return [{"tags": of} for of in tags]
        if not self.width:
            for number, of in enumerate(tags):
                spans = to_spans(of, self.options.scheme)
                scored[number] = [(float(scores[number][span[1] : span[2] + 1].min()), span) for span in spans]
        found = [
            [described(example, *one) for one in compatible(of, self.options.nested)]
            for example, of in zip(examples, scored)
        ]
        if not self.width:
            return [{"spans": of} for of in found]
        threshold = self.tuned.get("best_f1_thresh", UNTUNED)
        return [
            {
                "spans": [span for span in of if span["score"] >= threshold],
                "unlikely": [span for span in of if span["score"] < threshold],
            }
            for of in found
        ]

    def score(self, examples: list[Tagged], predictions):
        """Returns conlleval's precision, recall and F1 of spans in percent, and F1 by type; or accuracy in percent.

        Of the decoder of spans also "best_f1" and "best_f1_thresh", its threshold; see best_threshold.
        """
        known = [(example, given) for example, given in zip(examples, predictions) if example.spans is not None]
        if self.plain:
            pairs = [
                (kind, tag) for example, given in known for (kind, *_), tag in zip(example.spans or (), given["tags"])
            ]
            return {"accuracy": 100 * sum(gold == tag for gold, tag in pairs) / max(len(pairs), 1)}
        gold = [set(example.spans or ()) for example, _ in known]
        scores = span_f1(gold, [set(spans_of(given)) for _, given in known])
        found = {name: scores[name] for name in ("f1", "precision", "recall")}
        if self.width:
            every = [[*given["spans"], *given.get("unlikely", ())] for _, given in known]
            found |= dict(zip(("best_f1", "best_f1_thresh"), best_threshold(gold, every)))
        return found | {f"f1_{kind}": of["f1"] for kind, of in scores["per_type"].items()}

    def write(self, path: Path, examples: list[Tagged], predictions):
        """Writes columns of word, tag and predicted tag (IOB2) for conlleval, or, to a .jsonl, records with spans.

        Of spans that overlap, columns have the outer ones.
        """
        if path.suffix == ".jsonl":
            with path.open("w", encoding="utf-8") as file:
                for example, given in zip(examples, predictions):
                    record = {"text": example.text} if example.text else {"words": example.words}
                    file.write(json.dumps(record | given, ensure_ascii=False) + "\n")
            return
        scheme = PLAIN if self.plain else "IOB2"

        def tags_of(spans, length):
            inner = inner_spans(spans)
            return from_spans([span for span in spans if span not in inner], length, scheme)

        sentences = [
            Sentence(example.words, () if example.spans is None else tags_of(example.spans, len(example.words)))
            for example in examples
        ]
        found = [
            given["tags"] if self.plain else tags_of(spans_of(given), len(example.words))
            for example, given in zip(examples, predictions)
        ]
        write_conll(path, sentences, found)
