"""Coreference: which mentions of a document stand for the same thing. OntoNotes, OntoGUM, GAP, raw text.

A row is a document, divided into segments [CLS] ... [SEP] of at most seq_len tokens, which are encoded each by itself
and hold whole sentences where these fit. coref_model.py has the model. Source: Joshi et al. 2019 ("independent").
"""

import dataclasses
import itertools
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from spanbert_jax.data.tokenizer import Tokenizer
from spanbert_jax.errors import InputError
from spanbert_jax.finetuning.task import Arrays, Output, Row, Task, weighted_mean_count
from spanbert_jax.labelled.coreference import read_documents, sorted_clusters, write_conll2012
from spanbert_jax.labelled.documents import Clusters, Document, Mention
from spanbert_jax.labelled.gap import Gap, read_gap
from spanbert_jax.labelled.raw_text import document_of_text, read_raw_text
from spanbert_jax.model.layout import Layout
from spanbert_jax.model.spec import ModelSpec
from spanbert_jax.objectives.objective import Field
from spanbert_jax.scorers import coreference as scorers
from spanbert_jax.scorers import gap as gap_scorers
from spanbert_jax.tasks.coref_model import NAME, CoreferenceModel, HeadSpec, marginal_loss
from spanbert_jax.tasks.coref_spans import span_clusters

SPECIAL = 2  # [CLS], [SEP]
GAP_FILES, TEXT_FILES = ".tsv", ".txt"
BY_TOKEN = ("tokens", "segments", "positions", "token_types", "words", "sentences", "speakers")


@dataclasses.dataclass(frozen=True)
class Pronoun(Document):
    """An example of GAP: a document without clusters, of which only one pronoun is asked for."""

    gap: Gap | None = None


class Coreference(Task):
    """Finds the mentions of a document, and which of them stand for the same thing."""

    name = NAME
    metric = "conll_f1"
    bucketed = "S"
    multiple = 1
    fields: Mapping[str, Field] = {
        **{name: Field("BSL", "int32") for name in BY_TOKEN},
        "mentions": Field("BSL3", "int32"),  # first and last position in the segment, cluster from 1; 0: no mention
        "genre": Field("B", "int32"),
    }

    def __init__(self, config, tokenizer: Tokenizer, labels):
        super().__init__(config, tokenizer, labels)
        self.genres = {genre: number for number, genre in enumerate(labels["genres"], 1)}  # 0: another one

    @classmethod
    def problems(cls, config):
        """Returns what is wrong with the config, one line each."""
        problems = [
            f"task.{split} {config.task[split]}: GAP has no clusters to train on or to choose by; give it as task.test"
            for split in ("train", "valid")
            if config.task[split].endswith(GAP_FILES)
        ]
        if config.seq_len <= SPECIAL:
            problems.append(f"seq_len {config.seq_len} has no space for text beside [CLS] and [SEP]")
        return problems

    # Data

    @classmethod
    def read(cls, config, source):
        """Reads CoNLL-2012, OntoGUM, JSON Lines or a folder of these; GAP's .tsv; raw text in .txt."""
        if source.endswith(GAP_FILES):
            return [pronoun_of(gap, config.coref.language) for gap in read_gap(source)], []
        if source.endswith(TEXT_FILES):
            return read_raw_text(source, config.coref.language), []
        documents, repeated = without_repeats(read_documents(source))
        linked = sum(any(len(cluster) > 1 for cluster in document.clusters) for document in documents)
        notes = [f"{source}: {len(documents):,} documents, {linked:,} of them with clusters"]
        if repeated:
            notes.append(f"{source}: {repeated:,} mentions are in several clusters; each is kept in the first one")
        return documents, notes

    @classmethod
    def parse(cls, config, inputs: Sequence[Any]):
        """Takes a text, a Document, or a list of sentences, which are lists of words, each."""
        return [document_of(given, config.coref.language, str(number)) for number, given in enumerate(inputs)]

    @classmethod
    def labels_of(cls, config, examples: list[Document]):
        """Returns {"genres": those of the documents}.

        Raises:
          InputError: no document has a cluster.
        """
        if not any(len(cluster) > 1 for document in examples for cluster in document.clusters):
            raise InputError(f"task.train {config.task.train}: no document has a cluster, so nothing can be trained on")
        return {"genres": sorted({document.genre for document in examples} - {""})}

    @classmethod
    def belonging(cls, examples: list[Document]):
        """Parts of one document stay together; folds have about the same share of each genre."""
        return [(document.id, document.genre) for document in examples]

    def features(self, examples: list[Document], training: bool) -> list[Row]:
        """Returns a row for each document that has a token; `more` is how many segments a batch takes of it."""
        rows = []
        for number, document in enumerate(examples):
            arrays = self._arrays(document)
            if arrays is not None:
                segments = len(arrays["tokens"])
                rows.append(Row(number, arrays, min(segments, self.options.max_segments) if training else segments))
        return rows

    def _arrays(self, document: Document) -> Arrays | None:
        """Returns the arrays of a document [S, L], or None if it has no tokens."""
        length = self.config.seq_len
        words = list(itertools.chain.from_iterable(document.words))
        speakers = list(itertools.chain.from_iterable(document.speakers))
        names = {name: number for number, name in enumerate(dict.fromkeys(["", *speakers]))}
        sentence_of = [number for number, sentence in enumerate(document.words, 1) for _ in sentence]
        tokens = [ids[: length - SPECIAL] for ids in self.tokenizer.encode(words)]
        segments = list(segments_of([len(ids) for ids in tokens], sentence_of, length - SPECIAL))
        if not segments:
            return None
        arrays = {name: np.zeros((len(segments), length), np.int32) for name in BY_TOKEN}
        arrays["tokens"][:] = self.tokenizer.pad_id
        place: dict[int, tuple[int, int, int]] = {}  # word -> segment, first and last position
        for segment, (begin, stop) in enumerate(segments):
            position = 1
            for word in range(begin, stop):
                inside = (segment, slice(position, position + len(tokens[word])))
                arrays["tokens"][inside] = tokens[word]
                arrays["words"][inside] = word + 1
                arrays["sentences"][inside] = sentence_of[word]
                arrays["speakers"][inside] = names[speakers[word]]
                if tokens[word]:
                    place[word] = (segment, position, position + len(tokens[word]) - 1)
                position += len(tokens[word])
            arrays["tokens"][segment, [0, position]] = self.tokenizer.cls_id, self.tokenizer.sep_id
            arrays["segments"][segment, : position + 1] = 1
            arrays["positions"][segment, : position + 1] = np.arange(position + 1)
        arrays["mentions"] = mention_slots(document.clusters, place, len(segments), length)
        return arrays | {"genre": np.asarray(self.genres.get(document.genre, 0))}

    def sizes(self, size: int):
        """Returns L."""
        return {"L": self.config.seq_len}

    def size(self, row: Row) -> int:
        """Returns the number of segments that a batch takes of a document."""
        return row.more

    def varied(self, row: Row, random: np.random.Generator) -> Row:
        """Returns a document of at most coref.max_segments segments that follow each other."""
        first = int(random.integers(len(row.arrays["tokens"]) - row.more + 1))
        window = slice(first, first + row.more)
        return row._replace(arrays={name: array[window] if array.ndim else array for name, array in row.arrays.items()})

    # Model

    def model(self, spec: ModelSpec, layout: Layout) -> nn.Module:
        """Returns the model of coref_model.py."""
        sizes = {
            field.name: self.options[field.name] for field in dataclasses.fields(HeadSpec) if field.name != "genres"
        }
        return CoreferenceModel(spec, layout, HeadSpec(**sizes, genres=1 + len(self.genres)))

    def counts(self, batch):
        """Returns the number of documents: the original's steps have one each, and the sum over its spans as loss."""
        return {NAME: weighted_mean_count(jnp.any(batch["words"] > 0, axis=(1, 2)).astype(jnp.float32))}

    def loss(self, outputs: Mapping[str, jax.Array], batch, counts):
        """Returns the marginal log-likelihood of right antecedents."""
        total = marginal_loss(outputs, span_clusters(outputs["starts"], outputs["ends"], batch["mentions"]))
        return total / counts[NAME], {NAME: {"loss": total}}

    def predictions(self, outputs: Mapping[str, jax.Array], batch):
        """Returns "starts", "ends" of the spans kept, -1 for none, and the number of each one's "antecedent" or -1."""
        best = jnp.argmax(outputs["scores"], axis=-1)  # [B, U]; 0 for none
        chosen = jnp.take_along_axis(outputs["antecedents"], jnp.maximum(best - 1, 0)[..., None], axis=-1)[..., 0]
        return {name: outputs[name] for name in ("starts", "ends")} | {"antecedent": jnp.where(best > 0, chosen, -1)}

    # Predictions

    def decode(self, examples: list[Document], outputs: list[Output]):
        """Returns {"clusters": [[[first, last word], ...], ...]}, and for GAP also whether "a" and "b" are meant."""
        found: list[dict[str, Any]] = [{"clusters": []} for _ in examples]
        for row, arrays in outputs:
            words = row.arrays["words"].reshape(-1) - 1  # of each position
            spans = [
                (int(words[start]), int(words[end]))
                for start, end in zip(arrays["starts"], arrays["ends"])
                if start >= 0
            ]
            linked = clusters_of(spans, arrays["antecedent"][: len(spans)].tolist())
            found[row.example]["clusters"] = [[list(mention) for mention in cluster] for cluster in linked]
        for document, prediction in zip(examples, found):
            if isinstance(document, Pronoun):
                prediction["a"], prediction["b"] = decisions(document, prediction["clusters"])
        return found

    def score(self, examples: list[Document], predictions):
        """Returns the scores of the CoNLL scorer as fractions, or those of GAP in percent; "muc/recall" and such."""
        if any(isinstance(document, Pronoun) for document in examples):
            gold = [
                {"id": gap.id, "pronoun": gap.pronoun[0], "a_coref": gap.is_a, "b_coref": gap.is_b}
                for gap in (document.gap for document in examples if isinstance(document, Pronoun))
                if gap
            ]
            given = {document.id: (found["a"], found["b"]) for document, found in zip(examples, predictions)}
            return flattened(gap_scorers.score(gold, given))
        by_number = {str(number): document.clusters for number, document in enumerate(examples)}
        found = {str(number): prediction["clusters"] for number, prediction in enumerate(predictions)}
        scores = scorers.score(by_number, found)
        del scores["per_document"]
        return flattened(scores)

    def write(self, path: Path, examples: list[Document], predictions):
        """Writes CoNLL-2012; to a .jsonl, clusters with the text of mentions; to a .tsv, the labels of GAP."""
        clusters = [sorted_clusters(prediction["clusters"]) for prediction in predictions]
        if path.suffix not in (".jsonl", GAP_FILES):
            write_conll2012(path, examples, clusters)
            return
        with path.open("w", encoding="utf-8") as file:
            for document, prediction, found in zip(examples, predictions, clusters):
                if path.suffix == GAP_FILES:
                    labels = [str(prediction.get(name, False)).upper() for name in ("a", "b")]
                    file.write("\t".join([document.id, *labels]) + "\n")
                    continue
                described = [[described_mention(document, mention) for mention in cluster] for cluster in found]
                line = {"id": document.id, "part": document.part} | prediction | {"clusters": described}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")


def without_repeats(documents: Sequence[Document]) -> tuple[list[Document], int]:
    """Returns documents whose mentions are in one cluster each, the first that has them, and how many were in more."""
    cleaned, repeated = [], 0
    for document in documents:
        seen: set[Mention] = set()
        clusters = []
        for cluster in document.clusters:
            new = tuple(mention for mention in cluster if mention not in seen)
            repeated += len(cluster) - len(new)
            seen |= set(new)
            clusters.append(new)
        kept = tuple(cluster for cluster in clusters if cluster)
        cleaned.append(dataclasses.replace(document, clusters=kept) if kept != document.clusters else document)
    return cleaned, repeated


def document_of(given: Any, language: str, id: str) -> Document:
    """Returns the document of a text, or of sentences of words."""
    if isinstance(given, Document):
        return given
    if isinstance(given, str):
        return document_of_text(given, language, id)
    words = tuple(tuple(sentence) for sentence in given)
    return Document(id, 0, "", words, tuple(("",) * len(sentence) for sentence in words), ())


def pronoun_of(gap: Gap, language: str) -> Pronoun:
    """Returns the document of an example of GAP."""
    document = document_of_text(gap.text, language, gap.id)
    values = {field.name: getattr(document, field.name) for field in dataclasses.fields(document)}
    return Pronoun(**values, gap=gap)


def segments_of(sizes: Sequence[int], sentences: Sequence[int], space: int) -> Iterator[tuple[int, int]]:
    """Yields the words (first, last + 1) of each segment of a document.

    A segment ends with a sentence if that leaves it any words, else where no more words fit.

    Args:
      sizes: tokens of each word, at most `space`.
      sentences: the number of each word's sentence.
      space: tokens of a segment.
    """
    total, begin = np.cumsum([0, *sizes]), 0  # tokens before each word, and at the end
    while total[begin] < total[-1]:
        stop = int(np.searchsorted(total, total[begin] + space, side="right")) - 1
        whole = stop
        while begin < whole < len(sizes) and sentences[whole - 1] == sentences[whole]:
            whole -= 1
        yield begin, whole if whole > begin else stop
        begin = whole if whole > begin else stop


def mention_slots(
    clusters: Clusters, place: Mapping[int, tuple[int, int, int]], segments: int, length: int
) -> np.ndarray:
    """Returns the mentions of each segment, int32 [S, L, 3] as the field "mentions" has them.

    Words without tokens do not count. Mentions without any token, or in two segments, are left out; so are those beyond
    the first L of a segment.

    Args:
      clusters: of the document.
      place: of each word that has tokens: segment, first and last position.
      segments, length: S and L.
    """
    slots, used = np.zeros((segments, length, 3), np.int32), [0] * segments
    for number, cluster in enumerate(clusters, 1):
        for first, last in cluster:
            inside = [place[word] for word in range(first, last + 1) if word in place]
            if inside and inside[0][0] == inside[-1][0] and used[inside[0][0]] < length:
                segment = inside[0][0]
                slots[segment, used[segment]] = inside[0][1], inside[-1][2], number
                used[segment] += 1
    return slots


def clusters_of(spans: Sequence[Mention], antecedents: Sequence[int]) -> Clusters:
    """Returns the clusters of spans in the order of the document; a span that is linked to no other one is in none.

    Args:
      spans: first and last word of each.
      antecedents: the number of an earlier span that each is linked to, or -1.
    """
    first: list[int] = []  # span of each one's cluster
    for number, antecedent in enumerate(antecedents):
        first.append(number if antecedent < 0 else first[antecedent])
    members = defaultdict(list)
    for span, cluster in zip(spans, first):
        members[cluster].append(span)
    return sorted_clusters(cluster for cluster in members.values() if len(cluster) > 1)


def decisions(document: Pronoun, clusters: Sequence[Sequence[Sequence[int]]]) -> tuple[bool, bool]:
    """Returns whether GAP's pronoun stands for the names A and B.

    It does if it is in a cluster with a mention that contains the name, or that the name contains, as in the original.
    """
    assert document.gap is not None
    offsets = np.array(document.offsets)  # [words, 2]

    def words_of(text: str, start: int) -> tuple[int, int]:
        first = np.searchsorted(offsets[:, 1], start, side="right")
        return int(first), int(np.searchsorted(offsets[:, 0], start + len(text), side="left")) - 1

    pronoun, *names = (words_of(*given) for given in (document.gap.pronoun, document.gap.a, document.gap.b))
    mentions = next((cluster for cluster in clusters if list(pronoun) in [list(mention) for mention in cluster]), [])

    def is_named(first: int, last: int, name: tuple[int, int]) -> bool:
        return (first <= name[0] and name[1] <= last) or (name[0] <= first and last <= name[1])

    a, b = (any(is_named(first, last, name) for first, last in mentions) for name in names)
    return a, b


def described_mention(document: Document, mention: Mention) -> dict[str, Any]:
    """Returns the text of a mention, its words, and its characters if the document is a text."""
    first, last = mention
    described = {"text": document.mention_text(mention), "first": first, "last": last}
    if document.offsets:
        described |= {"start": document.offsets[first][0], "end": document.offsets[last][1]}
    return described


def flattened(scores: Mapping[str, Any]) -> dict[str, float]:
    """Returns {"muc/recall": ...} of {"muc": {"recall": ...}}; a value that is undefined is left out."""
    flat: dict[str, float] = {}
    for name, value in scores.items():
        parts = {f"{name}/{part}": of for part, of in value.items()} if isinstance(value, Mapping) else {name: value}
        flat |= {key: float(of) for key, of in parts.items() if of is not None}
    return flat
