"""Extractive question answering: the answer is a span of a text, or there is none. SQuAD 1.1 and 2.0, MRQA.

A row is [CLS] question [SEP] window [SEP], where windows of at most the rest of seq_len divide the text and overlap by
qa.stride tokens. Its target is the first and the last token of the answer, and [CLS] for both in a window that does not
contain the whole answer. Parameters of the head: output/{kernel [D, 2], bias [2]}, scores of start and end.
Source: Devlin et al. 2019, sections 4.2 and 4.3; docs of transformers, examples/pytorch/question-answering.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from spanbert_jax.data.tokenizer import Tokenizer
from spanbert_jax.errors import InputError
from spanbert_jax.finetuning.task import Output, Row, Task, encoder_states, single_sequence, weighted_mean_count
from spanbert_jax.labelled.questions import NOWHERE, Question, read_questions
from spanbert_jax.labelled.tfds import PREFIX, name_and_split, read_tfds_questions
from spanbert_jax.model.layout import Layout
from spanbert_jax.model.linear import Linear
from spanbert_jax.model.spec import ModelSpec
from spanbert_jax.objectives.objective import Field, cross_entropy_sum
from spanbert_jax.scorers.squad import score_v1, score_v2
from spanbert_jax.tasks.windows import windows

NAME = "qa"
EXCLUDED = -1e9  # score of a position that cannot be chosen; finite, so that a row of them has a finite loss
SPECIAL = 3  # [CLS], [SEP], [SEP]
CONTEXTS_PER_CALL = 1_000  # texts that are divided into tokens at once; the tokenizer's own offsets are large
UNTUNED = 0.5  # probability of no answer above which none is given, if no validation data say better


class Window(NamedTuple):
    """What a row shows of a context of C tokens."""

    first: int  # position in the row of its first token
    offsets: np.ndarray  # int32 [W, 2]: of each token, first and last + 1 character in the context


class Answerer(nn.Module):
    """An encoder with a head that scores each token as the first and as the last one of the answer."""

    spec: ModelSpec
    layout: Layout

    @nn.compact
    def __call__(self, batch, seeds):
        """Returns float32 [B, L, 2]."""
        return AnswerHead(self.spec, name=NAME)(encoder_states(self.spec, self.layout, batch, seeds))


class AnswerHead(nn.Module):
    """Scores of start and end."""

    spec: ModelSpec

    @nn.compact
    def __call__(self, states):
        """Returns float32 [B, L, 2] from states [B, L, D]."""
        return Linear(self.spec, "BLD,DC->BLC", (self.spec.width, 2), dtype=jnp.float32, name="output")(states)


class QuestionAnswering(Task):
    """Finds the answer to a question in a text."""

    name = NAME
    fields: Mapping[str, Field] = {
        "start": Field("B", "int32"),
        "end": Field("B", "int32"),
        "weight": Field("B", "float32"),
    }
    transformers_class = "BertForQuestionAnswering"
    exported: Mapping[str, str] = {"output": "qa_outputs"}
    pipeline = "question-answering"
    program_outputs = "for each token, as the first and as the last of the answer"
    takes_pairs = True

    def __init__(self, config, tokenizer: Tokenizer, labels):
        super().__init__(config, tokenizer, labels)
        self.metric = "best_f1" if self.options.no_answer else "f1"

    @classmethod
    def problems(cls, config):
        """Returns what is wrong with config.qa, one line each."""
        options = config[NAME]
        size = config.seq_len - SPECIAL - options.max_query_length
        if size <= options.stride:
            return [
                f"seq_len {config.seq_len} leaves windows of {size} tokens beside a question of qa.max_query_length"
                f" {options.max_query_length}, which cannot overlap by qa.stride {options.stride}: make one smaller"
            ]
        return []

    # Data

    @classmethod
    def read(cls, config, source):
        """Reads files of SQuAD, MRQA or flat records, or tfds:NAME/SPLIT."""
        examples, notes = cls.read_unlabelled(config, source)
        impossible = [example.id for example in examples if example.impossible]
        if impossible and not config[NAME].no_answer:
            raise InputError(
                f"{source}: {len(impossible):,} questions have no answer (the first is {impossible[0]}), as in SQuAD"
                " 2.0; allow it with --config.qa.no_answer=true"
            )
        if not any(map(is_labelled, examples)):
            raise InputError(f"{source}: none of its {len(examples):,} questions has an answer; give labelled examples")
        return examples, notes

    @classmethod
    def read_unlabelled(cls, config, source):
        """Reads the same without looking for answers."""
        return read_tfds_questions(*name_and_split(source)) if source.startswith(PREFIX) else read_questions(source)

    @classmethod
    def parse(cls, config, inputs: Sequence[Any]):
        """Takes a pair (question, context) each, or {"question": ..., "context": ...}."""
        examples = []
        for number, given in enumerate(inputs):
            pair: Any = [given.get(key) for key in ("question", "context")] if isinstance(given, Mapping) else given
            if isinstance(pair, str) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
                raise InputError(f"input {number}: {given!r} is not a pair of texts, (question, context)")
            examples.append(Question(str(number), "", pair[1], pair[0], ()))
        return examples

    @classmethod
    def labels_of(cls, config, examples: list[Question]):
        """Returns {}; there are no labels besides positions."""
        if not any(example.impossible or first_answer(example) for example in examples):
            raise InputError(
                f"task.train {config.task.train}: no answer stands in its text, so nothing can be trained on"
            )
        return {}

    @classmethod
    def belonging(cls, examples: list[Question]):
        """Questions on one article stay together; where articles have no titles, those on one text."""
        return [(example.title or example.context, "") for example in examples]

    def features(self, examples: list[Question], training: bool) -> list[Row]:
        """Returns a row for each window of the context of each example.

        Those of training leave out questions whose answer is unknown or has no token. Of several answers, the first in
        the context is trained on.
        """
        questions = self.tokenizer.encode([example.question for example in examples])
        contexts = self._encoded({example.context for example in examples})
        rows = []
        for number, (example, question) in enumerate(zip(examples, questions)):
            tokens, offsets = contexts[example.context]
            answer = first_answer(example)
            span = None if answer is None else tokens_of(offsets, *answer)
            is_known = span is not None or example.impossible
            if training and not is_known:
                continue
            question = question[: self.options.max_query_length]
            first = len(question) + 2  # position of the first token of a window
            for begin, stop in windows(len(tokens), self.config.seq_len - SPECIAL - len(question), self.options.stride):
                start = end = 0
                if span is not None and begin <= span[0] and span[1] < stop:
                    start, end = (position - begin + first for position in span)
                arrays = single_sequence(self.tokenizer, question, tokens[begin:stop])
                arrays |= dict(start=np.asarray(start), end=np.asarray(end), weight=np.asarray(is_known))
                rows.append(Row(number, arrays, Window(first, offsets[begin:stop])))
        return rows

    def _encoded(self, contexts: set[str]) -> dict[str, tuple[list[int], np.ndarray]]:
        """Returns the C tokens of each context, and their offsets, int32 [C, 2]."""
        encoded, every = {}, sorted(contexts)
        for begin in range(0, len(every), CONTEXTS_PER_CALL):
            some = every[begin : begin + CONTEXTS_PER_CALL]
            for context, tokens, offsets in zip(some, *self.tokenizer.encode_with_offsets(some)):
                encoded[context] = tokens, np.array(offsets, np.int32).reshape(-1, 2)
        return encoded

    # Model

    def model(self, spec: ModelSpec, layout: Layout) -> nn.Module:
        """Returns the answerer."""
        return Answerer(spec, layout)

    def counts(self, batch):
        """Returns the number of rows."""
        return {NAME: weighted_mean_count(batch["weight"])}

    def loss(self, outputs: jax.Array, batch, counts):
        """Returns the mean of the cross-entropies of start and end, over all positions of a row but padding.

        For a row without padding it is the loss of transformers' BertForQuestionAnswering, whose softmax has padding.
        """
        scores = jnp.where(batch["segments"][..., None] > 0, outputs, EXCLUDED).swapaxes(1, 2)  # [B, 2, L]
        targets = jnp.stack([batch["start"], batch["end"]], axis=1)  # [B, 2]
        weights = jnp.broadcast_to(batch["weight"][:, None] / 2, targets.shape)  # [B, 2]
        total, correct = cross_entropy_sum(scores, targets, weights)
        return total / counts[NAME], {NAME: {"loss": total, "accuracy": correct}}

    def predictions(self, outputs: jax.Array, batch):
        """Returns the K best spans of each window, by the sum of the scores of their ends, and the score of none.

        All spans of up to qa.max_answer_length tokens are compared, not only those of the best starts and ends. K is
        qa.n_best, or the number of spans in a row if there are fewer.

        Returns:
          "starts", "ends" int32 [B, K]: positions of the first and last token; "scores" float32 [B, K]: descending,
          about EXCLUDED or below for what is no span of the context; "null" float32 [B]: of [CLS] for start and end.
        """
        # Text never yields [SEP].
        in_context = (batch["token_types"] == 1) & (batch["tokens"] != self.tokenizer.sep_id)  # [B, L]
        start, end = jnp.moveaxis(jnp.where(in_context[..., None], outputs, EXCLUDED), 2, 0)  # [B, L] each
        length, longest = end.shape[1], min(self.options.max_answer_length, end.shape[1])
        end = jnp.pad(end, ((0, 0), (0, longest - 1)), constant_values=EXCLUDED)
        ends = jnp.stack([end[:, more : more + length] for more in range(longest)], axis=2)  # [B, L, longest]
        spans = (start[:, :, None] + ends).reshape(len(start), -1)  # [B, L * longest]
        scores, chosen = jax.lax.top_k(spans, min(self.options.n_best, spans.shape[1]))  # [B, K]
        starts = chosen // longest
        return {
            "starts": starts,
            "ends": starts + chosen % longest,
            "scores": scores,
            "null": jnp.sum(outputs[:, 0], axis=-1),
        }

    # Predictions

    def decode(self, examples: list[Question], outputs: list[Output]):
        """Returns the best answer of all windows, with the n best ones.

        {"text", "start", "end" (first and last + 1 character), "score", "probability" (among the n best), "nbest": [the
        same of each]}; with qa.no_answer also "null_score_diff", the score of no answer (the least of all windows, text
        "") minus that of the best answer, and the text is "" if this is above the threshold.
        """
        found: list[dict[str, dict]] = [{} for _ in examples]  # text -> its best occurrence
        null = [math.inf] * len(examples)
        for (number, _, window), arrays in outputs:
            null[number] = min(null[number], float(arrays["null"]))
            for start, end, score in zip(*(arrays[name].tolist() for name in ("starts", "ends", "scores"))):
                if score <= EXCLUDED / 2:
                    break
                first, last = int(window.offsets[start - window.first, 0]), int(window.offsets[end - window.first, 1])
                text = examples[number].context[first:last]
                if text not in found[number] or score > found[number][text]["score"]:
                    found[number][text] = {"text": text, "start": first, "end": last, "score": score}
        return [self._chosen(list(answers.values()), score) for answers, score in zip(found, null)]

    def _chosen(self, answers: list[dict], null: float) -> dict[str, Any]:
        """Returns the prediction for an example with these answers."""
        answers = sorted(answers, key=lambda answer: -answer["score"])[: self.options.n_best]
        none: dict[str, Any] = {"text": "", "start": NOWHERE, "end": NOWHERE, "score": null}
        chosen = answers[0] if answers else none  # there is nothing to choose from in an empty context
        more = {}
        if self.options.no_answer:
            more["null_score_diff"] = null - chosen["score"]
            if no_answer_probability(more["null_score_diff"]) > self.tuned.get("best_f1_thresh", UNTUNED):
                chosen = none
        if self.options.no_answer or not answers:
            answers = sorted([*answers, none], key=lambda answer: -answer["score"])
        weights = [math.exp(answer["score"] - answers[0]["score"]) for answer in answers]
        for answer, weight in zip(answers, weights):
            answer["probability"] = weight / sum(weights)
        return chosen | {"nbest": answers} | more

    def score(self, examples: list[Question], predictions):
        """Returns exact match and F1 in percent; for SQuAD 2.0 those of evaluate-v2.0.py, with the best thresholds.

        Thresholds are probabilities of no answer: the search for the best one starts from 0, to answer nothing. What is
        found is the probability of the last question to be answered; it is moved away from that, lest another order of
        sums change its answer.
        """
        labelled = [(example, given) for example, given in zip(examples, predictions) if is_labelled(example)]
        gold = {example.id: [text for text, _ in example.answers] for example, _ in labelled}
        texts = {example.id: best_answer(given) for example, given in labelled}
        if self.options.no_answer:
            numbers = {example.id: no_answer_probability(given["null_score_diff"]) for example, given in labelled}
            scores = score_v2(gold, texts, numbers, self.tuned.get("best_f1_thresh", UNTUNED))
            for name in ("best_exact_thresh", "best_f1_thresh"):
                scores[name] = halfway(scores[name], numbers.values())
        else:
            scores = score_v1(gold, texts)
        return {name: value for name, value in scores.items() if name != "count" and not name.endswith("total")}

    def write(self, path: Path, examples: list[Question], predictions):
        """Writes SQuAD's {id: text}, or, to a .jsonl, whole predictions.

        Beside FILE.json: FILE.nbest.json, the answers listed for each question; for SQuAD 2.0 FILE.null_odds.json, the
        probabilities of no answer, which its script reads as --na-prob-file.
        """
        given = {example.id: prediction for example, prediction in zip(examples, predictions)}
        if path.suffix == ".jsonl":
            lines = (json.dumps({"id": id, **prediction}, ensure_ascii=False) for id, prediction in given.items())
            path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
            return
        files = {path: {id: prediction["text"] for id, prediction in given.items()}}
        files[path.with_suffix(".nbest.json")] = {id: prediction["nbest"] for id, prediction in given.items()}
        if self.options.no_answer:
            numbers = {id: no_answer_probability(prediction["null_score_diff"]) for id, prediction in given.items()}
            files[path.with_suffix(".null_odds.json")] = numbers
        for file, content in files.items():
            file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def is_labelled(example: Question) -> bool:
    """Returns whether the answer is known, or that there is none."""
    return example.impossible or bool(example.answers)


def first_answer(example: Question) -> tuple[int, int] | None:
    """Returns first and last + 1 character of the answer that is first in the context; None if none stands in it."""
    return min(((start, start + len(text)) for text, start in example.answers if start != NOWHERE), default=None)


def tokens_of(offsets: np.ndarray, start: int, end: int) -> tuple[int, int] | None:
    """Returns the first and the last token that has some of the characters from `start` to before `end`, or None.

    Args:
      offsets: int [C, 2], as in Window.
      start, end: the characters.
    """
    first = int(np.searchsorted(offsets[:, 1], start, side="right"))
    last = int(np.searchsorted(offsets[:, 0], end, side="left")) - 1
    return (first, last) if first <= last else None


def best_answer(prediction: Mapping[str, Any]) -> str:
    """Returns the best text in a prediction, even if no answer was more probable; "" for an empty context."""
    return next((answer["text"] for answer in prediction["nbest"] if answer["start"] != NOWHERE), "")


def halfway(threshold: float, numbers: Iterable[float]) -> float:
    """Returns the middle between a threshold and the least number above it, or 1 if all are below."""
    return (threshold + min((number for number in numbers if number > threshold), default=1.0)) / 2


def no_answer_probability(null_score_diff: float) -> float:
    """Returns the probability of no answer, against the best answer alone: the logistic function of the difference."""
    small = math.exp(-abs(null_score_diff))
    return (1.0 if null_score_diff > 0 else small) / (1 + small)
