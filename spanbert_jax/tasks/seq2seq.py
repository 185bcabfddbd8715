"""From a text to another one, by a decoder on the encoder: translation, summarisation.

A row is [CLS] source [SEP], or several windows of a long source (windows.py), all of which the decoder reads; its
target is the tokens of the first reference and [SEP]. The model is that of seq2seq_model.py, and texts are found by the
searches of decoding.py. Source: Vaswani et al. 2017; label smoothing: Szegedy et al. 2016, section 7.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from spanbert_jax.data.tokenizer import Tokenizer
from spanbert_jax.errors import InputError
from spanbert_jax.finetuning.task import Output, Row, Task, weighted_mean_count
from spanbert_jax.labelled.texts import SourceText, read_texts, read_tfds_texts
from spanbert_jax.labelled.tfds import PREFIX, name_and_split
from spanbert_jax.model.encoder import NEVER
from spanbert_jax.model.layout import Layout
from spanbert_jax.model.spec import ModelSpec
from spanbert_jax.objectives.objective import Field, cross_entropy_sum
from spanbert_jax.scorers import generation as scorers
from spanbert_jax.tasks.classification import columns_of, write_records
from spanbert_jax.tasks.decoding import beam_search, greedy
from spanbert_jax.tasks.seq2seq_model import EncoderDecoder, decoder_layouts
from spanbert_jax.tasks.windows import in_windows, window_problems

NAME = "seq2seq"


class SequenceToSequence(Task):
    """Writes a text for a text."""

    name = NAME
    fields: Mapping[str, Field] = {"targets": Field("BO", "int32"), "target_weights": Field("BO", "float32")}
    pipeline = "text2text-generation"

    def __init__(self, config, tokenizer: Tokenizer, labels):
        super().__init__(config, tokenizer, labels)
        self.metric = self.options.metrics[0]
        self.layouts = decoder_layouts(config.model.feed_forward)
        self.layers = self.options.layers or config.model.layers
        if self.options.decoder_start == "encoder":
            same = {f"layers/{name}": f"encoder/layers/{name}" for name in ("attention", "mlp")}
            self.starts_from = same | {"norm": "encoder/norm"}
        # Never written; a target may have [UNK].
        self.excluded = [tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.mask_id]

    @classmethod
    def problems(cls, config):
        """Returns what is wrong with config.seq2seq, one line each."""
        options, model = config[NAME], config.model
        problems = [f"seq2seq.metrics: {problem}" for problem in scorers.problems(options.metrics)]
        problems += window_problems(NAME, options, config.seq_len)
        if not options.metrics:
            problems.append(f"seq2seq.metrics names none of {', '.join(scorers.METRICS)}")
        if model.positions == "learned" and options.max_target_length > model.max_positions:
            problems.append(
                f"seq2seq.max_target_length {options.max_target_length} is longer than the position table of the model,"
                f" model.max_positions {model.max_positions}: make it smaller"
            )
        if options.decoder_start == "encoder" and options.layers not in (0, model.layers):
            problems.append(
                f"seq2seq.decoder_start 'encoder' needs a decoder of as many layers as the encoder, {model.layers}, not"
                f" {options.layers}: give seq2seq.layers 0"
            )
        return problems

    # Data

    @classmethod
    def read(cls, config, source):
        """Reads tables, records with texts or lists of texts, or tfds:NAME/SPLIT."""
        return cls._read(config, source, columns_of(config[NAME].target)[0])

    @classmethod
    def read_unlabelled(cls, config, source):
        """Reads the same without the target."""
        return cls._read(config, source, None)

    @classmethod
    def _read(cls, config, source, target):
        [column] = columns_of(config[NAME].source)
        if source.startswith(PREFIX):
            return read_tfds_texts(*name_and_split(source), column, target), []
        return read_texts(source, column, target), []

    @classmethod
    def parse(cls, config, inputs: Sequence[Any]):
        """Takes a text, or a list of its sentences, each."""
        examples = []
        for number, given in enumerate(inputs):
            sentences = (given,) if isinstance(given, str) else tuple(given)
            if not all(isinstance(sentence, str) for sentence in sentences):
                raise InputError(f"input {number}: {given!r} is neither a text nor a list of sentences")
            examples.append(SourceText(str(number), sentences))
        return examples

    @classmethod
    def belonging(cls, examples: list[SourceText]):
        """Examples of one source stay together."""
        return [(example.text, "") for example in examples]

    def features(self, examples: list[SourceText], training: bool) -> list[Row]:
        """Returns a row for each example; those of inference have no targets, so that these change nothing."""
        sources = self.tokenizer.encode([example.text for example in examples])
        targets: list[list[int]] = [[] for _ in examples]
        if training:
            most = self.options.max_target_length - 1
            encoded = self.tokenizer.encode([example.targets[0] for example in examples])
            targets = [[*tokens[:most], self.tokenizer.sep_id] for tokens in encoded]
        rows = []
        for number, (source, target) in enumerate(zip(sources, targets)):
            arrays, _ = in_windows(
                self.tokenizer, source, self.config.seq_len, self.options.windows, self.options.overlap
            )
            arrays |= {"targets": np.array(target, np.int32), "target_weights": np.ones(len(target), np.float32)}
            rows.append(Row(number, arrays))
        return rows

    def sizes(self, size: int):
        """Returns O: targets are about as long as sources, up to the longest."""
        return {"O": min(size, self.options.max_target_length)}

    def size(self, row: Row) -> int:
        """Returns the tokens of the source or of the target, whichever are more."""
        return max(len(row.arrays["tokens"]), len(row.arrays["targets"]))

    def longest(self):
        """Returns the tokens of all windows."""
        return self.options.windows * self.config.seq_len

    # Model

    def model(self, spec: ModelSpec, layout: Layout) -> EncoderDecoder:
        """Returns encoder and decoder."""
        return EncoderDecoder(spec, layout, self.layers, self.tokenizer.cls_id)

    def counts(self, batch):
        """Returns the number of tokens of all targets."""
        return {NAME: weighted_mean_count(jnp.sum(batch["target_weights"]))}

    def loss(self, outputs: jax.Array, batch, counts):
        """Returns the cross-entropy with smoothed targets; reports that with the targets themselves too, as "nll"."""
        targets, weights = batch["targets"], batch["target_weights"]
        nll, correct = cross_entropy_sum(outputs, targets, weights)
        smoothing, total = self.options.label_smoothing, nll
        if smoothing:
            uniform = uniform_cross_entropy_sum(outputs, weights, self.tokenizer.vocab_size)
            total = (1 - smoothing) * nll + smoothing * uniform
        return total / counts[NAME], {NAME: {"loss": total, "nll": nll, "accuracy": correct}}

    def inference(self, model: nn.Module, params, batch):
        """Returns the texts that are found, "tokens" int32 [B, O] with [SEP] at the end, and their "score" [B]."""
        options, variables = self.options, {"params": params}
        size, end = options.max_target_length, self.tokenizer.sep_id

        def log_probabilities(logits):
            excluded = jnp.zeros(logits.shape[-1], bool).at[jnp.array(self.excluded)].set(True)
            return jax.nn.log_softmax(jnp.where(excluded, NEVER, logits))

        begun: Any = model.apply(variables, batch, size, method="begin")
        logits, memory, cache = begun

        def step(tokens, index, cache):
            logits, cache = model.apply(variables, tokens, index, memory, cache, method="step")
            return log_probabilities(logits), cache

        first, alpha = log_probabilities(logits), options.length_penalty
        if options.beams == 1:
            tokens, score = greedy(step, first, cache, size, end, alpha)
        else:
            tokens, score = beam_search(step, first, cache, size, end, alpha, options.beams)
        return {"tokens": tokens, "score": score}

    # Predictions

    def decode(self, examples: list[SourceText], outputs: list[Output]):
        """Returns {"text", "score" (log-probability / length penalty)} for each example."""
        return [
            {"text": self.text_of(arrays["tokens"].tolist()), "score": float(arrays["score"])} for _, arrays in outputs
        ]

    def text_of(self, tokens: list[int]) -> str:
        """Returns the text of the tokens before the first [SEP]."""
        end = self.tokenizer.sep_id
        return self.tokenizer.decode(tokens[: tokens.index(end)] if end in tokens else tokens)

    def score(self, examples: list[SourceText], predictions):
        """Returns seq2seq.metrics in percent, of whole references as they are written."""
        references, texts = [example.targets for example in examples], [given["text"] for given in predictions]
        return scorers.score(references, texts, self.options.metrics, self.options.bleu_tokenizer)

    def signatures(self, examples: list[SourceText]):
        """Returns those of sacrebleu, and what rouge-score was given."""
        references = [example.targets for example in examples]
        return scorers.signatures(references, self.options.metrics, self.options.bleu_tokenizer)

    def write(self, path: Path, examples: list[SourceText], predictions):
        """Writes a text a line; to a .jsonl, records with the scores too."""
        if path.suffix == ".jsonl":
            write_records(path, examples, predictions)
        else:
            path.write_text("".join(given["text"] + "\n" for given in predictions), encoding="utf-8")


def uniform_cross_entropy_sum(logits: jax.Array, weights: jax.Array, vocabulary: int) -> jax.Array:
    """Returns the sum over positions of weight * the mean over the vocabulary of -log softmax(logits).

    Args:
      logits: float32 [B, O, V], with V rounded up from `vocabulary`.
      weights: float32 [B, O].
      vocabulary: the number of tokens.
    """
    inside = jax.lax.broadcasted_iota(jnp.int32, logits.shape, 2) < vocabulary
    mean = jnp.sum(jnp.where(inside, logits, 0.0), axis=-1) / vocabulary
    return jnp.sum(weights * (jax.nn.logsumexp(logits, axis=-1) - mean))
