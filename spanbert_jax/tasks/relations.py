"""Relation extraction: the relation between two marked entities of a sentence. TACRED and SemEval-2010 task 8.

A row is, by relations.mode, the original's feature_mode, where S and O stand for subject and object:

    ner       [CLS] S=PERSON was born in O=CITY . [SEP]
    ner_text  [CLS] S=PERSON was born in O=CITY . [SEP] Ann Lee [SEP] Bonn [SEP]
    text      [CLS] <S> Ann Lee </S> was born in <O> Bonn </O> . [SEP]
    text_ner  [CLS] <S> Ann Lee </S> was born in <O> Bonn </O> . [SEP] S=PERSON [SEP] O=CITY [SEP]

The token of a type or marker is an [unusedN] of the vocabulary. The numbers are given to the markers and the sorted
types of the training data, and saved with the run; the original numbers them as it meets them, in whatever file is read
first, and saves nothing (docs/original.md, section 9). Types that training does not have share a token with those that
are not known. Data without types has the modes text, and ner_text, in which the token only shows the role.

Of a sentence that is too long, tokens next to the entities are kept; the original keeps its first tokens, with or
without entities, and loses the last [SEP].

Parameters of the head: those of classification. Sources: Joshi et al., TACL 2020, section 4.2, and run_tacred.py;
pooling "entities": Soares et al., ACL 2019, section 3.2, entity start.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spanbert_jax.data.tokenizer import Tokenizer
from spanbert_jax.errors import InputError
from spanbert_jax.finetuning.task import Row, single_sequence
from spanbert_jax.labelled.relations import Relation, read_relations, write_semeval, write_tacred
from spanbert_jax.labelled.words import word_ranges
from spanbert_jax.objectives.objective import Field
from spanbert_jax.scorers.classification import accuracy
from spanbert_jax.scorers.relations import LABEL, score_semeval, score_tacred
from spanbert_jax.tasks.classification import OneLabel, cut, write_records

NAME = "relations"
MARKERS = ("SUBJ_START", "SUBJ_END", "OBJ_START", "OBJ_END")
ROLES = ("SUBJ", "OBJ")
NEEDS_TYPES = ("ner", "text_ner")
SHORTEST = 16  # tokens of a row, so that markers, types and a few words fit
BRACKETS = {"-lrb-": "(", "-rrb-": ")", "-lsb-": "[", "-rsb-": "]", "-lcb-": "{", "-rcb-": "}"}  # of the Penn Treebank


class RelationExtraction(OneLabel):
    """Finds the relation of a subject to an object."""

    name = NAME

    def __init__(self, config, tokenizer: Tokenizer, labels):
        super().__init__(config, tokenizer, labels)
        self.metric = "macro_f1" if self.options.scorer == "semeval" else "f1"
        self.typed, self.marked = self.options.mode != "text", self.options.mode.startswith("text")
        self._ids = special_ids(tokenizer, labels["tokens"])
        if self.options.pooling == "entities":
            self.fields = {**OneLabel.fields, "subject": Field("B", "int32"), "object": Field("B", "int32")}
        self.transformers_config = {**self.transformers_config, "relation_tokens": labels["tokens"]}

    @classmethod
    def problems(cls, config):
        """Returns what is wrong with config.relations, one line each."""
        if config.seq_len < SHORTEST:
            return [f"seq_len {config.seq_len} is too short to show two entities: give at least {SHORTEST}"]
        return []

    # Data

    @classmethod
    def read(cls, config, source):
        """Reads TACRED's JSON, JSON Lines or Parquet, or SemEval's text; all examples must have labels."""
        examples, notes = cls.read_unlabelled(config, source)
        if unknown := [example.id for example in examples if not example.label]:
            raise InputError(
                f"{source}: {len(unknown):,} of its {len(examples):,} examples have no label (the first is"
                f" {unknown[0]}); give labelled examples"
            )
        foreign = [example for example in examples if not LABEL.fullmatch(example.label)]
        if foreign and config[NAME].scorer == "semeval":
            raise InputError(
                f"{source}: {foreign[0].label!r}, of example {foreign[0].id}, is no label of SemEval-2010 task 8;"
                " score other labels with --config.relations.scorer=tacred"
            )
        return examples, notes

    @classmethod
    def read_unlabelled(cls, config, source):
        """Reads the same, with or without labels."""
        return read_relations(source), []

    @classmethod
    def parse(cls, config, inputs: Sequence[Any]):
        """Takes {"text" or "tokens", "subject": [start, end], "object": [start, end]} each.

        Start and end count characters of the text, or tokens (words) of the list; the end is the one after the last, as
        in Python. "subject_type" and "object_type" are optional.
        """
        return [parsed(str(number), given) for number, given in enumerate(inputs)]

    @classmethod
    def labels_of(cls, config, examples: list[Relation]):
        """Returns {"labels": sorted, "tokens": {marker or role=type: [unusedN]}}."""
        options, source = config[NAME], config.task.train
        labels = sorted({example.label for example in examples})
        if len(labels) < 2:
            raise InputError(f"task.train {source}: its labels are {labels}; two or more are needed")
        if options.scorer == "tacred" and options.no_relation not in ("", *labels):
            raise InputError(
                f"task.train {source}: none of its labels is relations.no_relation {options.no_relation!r}, but"
                f" {', '.join(labels)}; give the one that F1 leaves out, or an empty one"
            )
        names = list(MARKERS) if options.mode.startswith("text") else []
        if options.mode != "text":
            types = {typed(role, example) for example in examples for role in ROLES}
            unknown = {typed(role, None) for role in ROLES}
            if types <= unknown and options.mode in NEEDS_TYPES:
                raise InputError(
                    f"task.train {source}: its entities have no types, which relations.mode {options.mode} shows; give"
                    " --config.relations.mode=text or ner_text"
                )
            names += sorted(types | unknown)
        return {"labels": labels, "tokens": {name: f"[unused{number}]" for number, name in enumerate(names, 1)}}

    @classmethod
    def belonging(cls, examples: list[Relation]):
        """Relations in one sentence stay together; folds have about the same share of each label."""
        return [(example.words, example.label) for example in examples]

    def features(self, examples: list[Relation], training: bool) -> list[Row]:
        """Returns a row for each example; arrays "subject" and "object" are the positions of their first special token.

        A sentence that is too long loses the tokens that are far from the entities: those outside of both if what is
        from one to the other fits, else also those that are far from either. In ner_text, the words of entities take at
        most half of a row.
        """
        encoded = self._encoded({word for example in examples for word in example.words})
        numbers = {label: number for number, label in enumerate(self.labels["labels"])}
        rows = []
        for number, example in enumerate(examples):
            body, spans = self._sentence(example, encoded)
            after = self._after(example, encoded)
            kept = nearest(len(body), spans, self.config.seq_len - 2 - len(after))
            arrays = single_sequence(self.tokenizer, [*(body[i] for i in kept), *after])
            for name, (first, _) in zip(("subject", "object"), spans):
                arrays[name] = np.asarray(1 + np.searchsorted(kept, first), np.int32)
            label = numbers.get(example.label)
            arrays |= {"label": np.asarray(label or 0), "weight": np.asarray(label is not None)}
            rows.append(Row(number, arrays))
        return rows

    def _encoded(self, words: set[str]) -> dict[str, list[int]]:
        """Returns the tokens of each word."""
        every = sorted(words)
        return dict(zip(every, self.tokenizer.encode([BRACKETS.get(word.lower(), word) for word in every])))

    def _sentence(self, example: Relation, encoded: Mapping[str, list[int]]) -> tuple[list[int], list[list[int]]]:
        """Returns the tokens of the sentence, and [first, last] of those that stand for subject and object.

        Words of both entities, where they overlap, are the subject's.
        """
        body: list[int] = []
        entities = list(zip(ROLES, (example.subject, example.object)))
        spans = [[0, 0], [0, 0]]
        for i, word in enumerate(example.words):
            for span, (role, (first, _)) in zip(spans, entities):
                if i == first:
                    span[0] = span[1] = len(body)
                    body.append(self._ids[f"{role}_START"] if self.marked else self._type(role, example))
            if self.marked or not any(first <= i <= last for _, (first, last) in entities):
                body += encoded[word]
            for span, (role, (_, last)) in zip(spans, entities):
                if i == last and self.marked:
                    span[1] = len(body)
                    body.append(self._ids[f"{role}_END"])
        return body, spans

    def _after(self, example: Relation, encoded: Mapping[str, list[int]]) -> list[int]:
        """Returns what stands behind the sentence, from [SEP] on, without the last [SEP]."""
        if self.options.mode == "text_ner":
            parts = [[self._type(role, example)] for role in ROLES]
        elif self.options.mode == "ner_text":
            spans = (example.subject, example.object)
            parts = [[token for word in example.words[a : b + 1] for token in encoded[word]] for a, b in spans]
            parts = cut(parts, self.config.seq_len // 2 - 2)
        else:
            parts = []
        return [token for part in parts for token in (self.tokenizer.sep_id, *part)]

    def _type(self, role: str, example: Relation) -> int:
        """Returns the token of the type of an entity."""
        return self._ids.get(typed(role, example), self._ids[typed(role, None)])

    # Predictions

    def score(self, examples: list[Relation], predictions):
        """Returns TACRED's micro precision, recall and F1 as fractions, or SemEval's macro F1 in percent; accuracy."""
        gold, found = [example.label for example in examples], [given["label"] for given in predictions]
        if self.options.scorer == "semeval":
            scores = score_semeval(*({str(i): label for i, label in enumerate(side)} for side in (gold, found)))
            return {name: scores[name] for name in ("macro_f1", "accuracy")}
        scores = score_tacred(gold, found, self.options.no_relation)
        return {name: scores[name] for name in ("f1", "precision", "recall")} | {"accuracy": accuracy(gold, found)}

    def write(self, path: Path, examples: list[Relation], predictions):
        """Writes a label a line for TACRED's scorer, "id TAB label" for SemEval's, or, to a .jsonl, all probabilities.

        Raises:
          InputError: SemEval's format cannot be written, as an id occurs twice.
        """
        if path.suffix == ".jsonl":
            write_records(path, examples, predictions)
        elif self.options.scorer == "tacred":
            write_tacred(path, [given["label"] for given in predictions])
        else:
            [(id, count)] = Counter(example.id for example in examples).most_common(1) or [("", 0)]
            if count > 1:
                raise InputError(
                    f"{path}: {count} examples have the id {id}, of which SemEval allows one; write a .jsonl"
                )
            write_semeval(path, {example.id: given["label"] for example, given in zip(examples, predictions)})


def typed(role: str, example: Relation | None) -> str:
    """Returns the name of the type of an entity, as in SUBJ=PERSON; SUBJ= without an example, or if it is not known."""
    kind = "" if example is None else example.subject_type if role == "SUBJ" else example.object_type
    return f"{role}={kind}"


def special_ids(tokenizer: Tokenizer, tokens: Mapping[str, str]) -> dict[str, int]:
    """Returns the ids of special tokens by their name.

    Raises:
      InputError: the vocabulary lacks some.
    """
    known = {token: i for i, token in enumerate(tokenizer.tokens)}
    if missing := [token for token in tokens.values() if token not in known]:
        raise InputError(
            f"the vocabulary has no {missing[0]}: relations.mode needs [unused1] to [unused{len(tokens)}] for markers"
            " and types of entities; start from a model that has them, as BERT's and SpanBERT's do, or give these names"
            " to entries of its vocab.txt that your text does not have"
        )
    return {name: known[token] for name, token in tokens.items()}


def nearest(length: int, spans: Sequence[Sequence[int]], size: int) -> np.ndarray:
    """Returns which of `length` tokens are kept, int64 [size] or fewer, ascending: those that are next to the spans.

    Args:
      length: of the sentence.
      spans: first and last token of each.
      size: tokens that are kept, at least the number of spans. First tokens of spans are among them.
    """
    first, last = min(span[0] for span in spans), max(span[1] for span in spans)
    around: Iterable[Sequence[int]] = [(first, last)] if last - first < size else spans
    i = np.arange(length)
    distance = np.min([np.maximum(np.maximum(begin - i, i - end), 0) for begin, end in around], axis=0)
    distance[[span[0] for span in spans]] = -1
    return np.sort(np.argsort(distance, kind="stable")[:size])


def parsed(id: str, given: Any) -> Relation:
    """Returns the example of an input of the Python API; see RelationExtraction.parse. Raises InputError."""
    wanted = 'give {"text": ..., "subject": [start, end], "object": [start, end]}, or "tokens" for "text"'
    given = given if isinstance(given, Mapping) else {}
    source = given.get("text", given.get("tokens"))
    is_text = isinstance(source, str)
    if not is_text and not (isinstance(source, list | tuple) and all(isinstance(word, str) for word in source)):
        raise InputError(f"input {id}: it has neither a text nor tokens; {wanted}")
    spans, types = [], []
    for name in ("subject", "object"):
        span = given.get(name)
        is_pair = isinstance(span, list | tuple) and len(span) == 2 and all(type(end) is int for end in span)
        if not is_pair or not 0 <= span[0] < span[1] <= len(source) or (is_text and not source[slice(*span)].strip()):
            unit = "characters" if is_text else "tokens"
            raise InputError(f"input {id}: '{name}' {span!r} is no range of its {len(source)} {unit}; {wanted}")
        spans.append(span)
        types.append(str(given.get(f"{name}_type", "")))
    words: Sequence[str] = source
    if is_text:
        words, spans = divided(source, spans)
    (a, b), (c, d) = spans
    return Relation(id, tuple(words), (a, b - 1), (c, d - 1), types[0], types[1], "")


def divided(text: str, spans: Sequence[Sequence[int]]) -> tuple[list[str], list[tuple[int, int]]]:
    """Returns the words of a text, and the spans in words; a word ends where a span begins or ends.

    Args:
      text: any.
      spans: first and last + 1 character of each; the result has words instead.
    """
    borders = sorted({0, len(text), *(border for span in spans for border in span)})
    words: list[str] = []
    before = {0: 0}  # words before each border
    for begin, end in itertools.pairwise(borders):
        part = text[begin:end]
        words += [part[a:b] for a, b in word_ranges(part)]
        before[end] = len(words)
    return words, [(before[begin], before[end]) for begin, end in spans]
