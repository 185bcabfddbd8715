"""Fine-tuning as it is written with transformers and torch: classification, regression, tagging, question answering.

Tokenizer, model class, loss and features are those of transformers. Files are read, and metrics computed, by the
task of ours, which is tested against the official ones.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from ml_collections import ConfigDict

from spanbert_jax.data.tokenizer import load_tokenizer
from spanbert_jax.finetuning.task import Task
from spanbert_jax.labelled.conll import PLAIN, from_spans, to_spans
from spanbert_jax.tasks import TASKS
from spanbert_jax.tasks.qa import first_answer
from spanbert_jax.tasks.tagged_spans import described
from spanbert_jax.training.pretrain import log

IGNORED = -100  # label of what has no loss
Features = list[dict[str, Any]]


class Kind(NamedTuple):
    """What transformers has for a kind of task."""

    model: Any  # class
    features: Callable[[Task, Any, list], Features]  # of examples; those of evaluation may have "more"
    decoded: Callable[[Task, list, Features, list], list]  # logits of each feature -> predictions as ours


def finetune_transformers(config: ConfigDict) -> dict:
    """Fine-tunes as a config of ours says, and returns the metrics by split at the best epoch on validation data."""
    torch.manual_seed(config.seed)
    random = np.random.default_rng(config.seed)
    task_class = TASKS[config.task.name]
    read = {split: task_class.read(config, config.task[split])[0] for split in splits(config)}
    task = task_class(config, load_tokenizer(f"{config.init.path}/vocab.txt", "auto"), labels(config, read["train"]))
    kind, tokenizer = KINDS[task.name], transformers.AutoTokenizer.from_pretrained(config.init.path)
    features = {split: kind.features(task, tokenizer, examples) for split, examples in read.items()}
    model = kind.model.from_pretrained(config.init.path, **sizes(task))

    def scores(split: str) -> dict[str, float]:
        predictions = kind.decoded(task, read[split], features[split], logits_of(model, features[split], tokenizer))
        return task.score(read[split], predictions)

    best: dict[str, dict] = {}
    for epoch, _ in enumerate(epochs(model, features["train"], tokenizer, config, random), 1):
        if "valid" in read:
            found = scores("valid")
            log(f"transformers, epoch {epoch}: {task.metric} {found[task.metric]:.4g}")
            if best and not found[task.metric] > best["valid"][task.metric]:
                continue
            best = {"valid": found}
        if "test" in read and ("valid" in read or epoch == config.task.epochs):
            best["test"] = scores("test")
    return best


def splits(config: ConfigDict) -> list[str]:
    """Returns the splits that a config names."""
    return [split for split in ("train", "valid", "test") if config.task[split]]


def labels(config: ConfigDict, examples: list) -> dict:
    """Returns the labels of a task."""
    return TASKS[config.task.name].labels_of(config, examples)


def sizes(task: Any) -> dict[str, Any]:
    """Returns the settings of a model: its number of labels and dropout."""
    model = task.config.model
    given = {"hidden_dropout_prob": model.dropout, "attention_probs_dropout_prob": model.attention_dropout}
    number = {"classification": lambda: max(len(task.labels["labels"]), 1), "tagging": lambda: len(task.classes)}
    return given | ({"num_labels": number[task.name]()} if task.name in number else {})


def epochs(model, features: Features, tokenizer, config: ConfigDict, random: np.random.Generator) -> Iterator[None]:
    """Trains, and yields after each epoch."""
    optimizer = config.optimizer
    plain = ("bias", "LayerNorm.weight")  # without weight decay
    groups = [
        {"params": [p for n, p in model.named_parameters() if n.endswith(plain) is without], "weight_decay": decay}
        for without, decay in ((False, optimizer.weight_decay), (True, 0.0))
    ]
    adam = torch.optim.AdamW(
        groups, lr=optimizer.learning_rate, betas=(optimizer.beta1, optimizer.beta2), eps=optimizer.eps, fused=True
    )
    steps = -(-len(features) // config.batch_size) * config.task.epochs
    warmup = int(config.task.warmup_fraction * steps)
    schedule = transformers.get_linear_schedule_with_warmup(adam, warmup, steps)
    for _ in range(config.task.epochs):
        model.train()
        for batch in shuffled(features, config.batch_size, random):
            model(**padded(batch, tokenizer)).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), optimizer.clip_norm)
            adam.step()
            schedule.step()
            adam.zero_grad()
        yield


def shuffled(features: Features, batch_size: int, random: np.random.Generator) -> list[Features]:
    """Returns the batches of an epoch; examples of about one length are put together."""
    lengths = np.array([len(feature["input_ids"]) for feature in features])
    order = random.permutation(len(features))
    near = [part[np.argsort(lengths[part])] for part in np.array_split(order, -(-len(order) // (8 * batch_size)))]
    order = np.concatenate(near)
    batches = [order[first : first + batch_size] for first in range(0, len(order), batch_size)]
    return [[features[number] for number in batches[batch]] for batch in random.permutation(len(batches))]


def padded(features: Features, tokenizer) -> dict[str, torch.Tensor]:
    """Returns the tensors of a batch, as long as its longest example."""
    inputs = [{name: feature[name] for name in tokenizer.model_input_names} for feature in features]
    batch = dict(tokenizer.pad(inputs, return_tensors="pt"))
    length = batch["input_ids"].shape[1]
    for name in ("labels", "start_positions", "end_positions"):
        if name in features[0]:
            values = [feature[name] for feature in features]
            if isinstance(values[0], list):
                values = [value + [IGNORED] * (length - len(value)) for value in values]
            batch[name] = torch.tensor(values)
    return batch


@torch.no_grad()
def logits_of(model, features: Features, tokenizer, batch_size: int = 64) -> list:
    """Returns the logits of each example, float32 [L, C] or [C]; for answers [L, 2]."""
    model.eval()
    found: list = [None] * len(features)
    order = sorted(range(len(features)), key=lambda number: len(features[number]["input_ids"]))
    for first in range(0, len(order), batch_size):
        numbers = order[first : first + batch_size]
        inputs = padded([features[n] for n in numbers], tokenizer)
        outputs = model(**{name: inputs[name] for name in tokenizer.model_input_names})
        logits = torch.stack([outputs.start_logits, outputs.end_logits], -1) if "end_logits" in outputs else None
        values = (outputs.logits if logits is None else logits).numpy()
        for number, value in zip(numbers, values):
            found[number] = value
    return found


# Classification and regression


def text_features(task: Any, tokenizer, examples: list) -> Features:
    """Returns the features of one or two texts."""
    numbers = {label: number for number, label in enumerate(task.labels["labels"])}
    texts = [[example.texts[part] for example in examples] for part in range(len(examples[0].texts))]
    encoded = tokenizer(*texts, truncation=True, max_length=task.config.seq_len)
    wanted = [float(example.label) if task.regression else numbers[str(example.label)] for example in examples]
    return [
        {name: encoded[name][n] for name in tokenizer.model_input_names} | {"labels": label}
        for n, label in enumerate(wanted)
    ]


def text_predictions(task: Any, examples: list, features: Features, logits: list) -> list:
    """Returns labels or numbers."""
    if task.regression:
        return [{"score": float(value[0])} for value in logits]
    return [{"label": task.labels["labels"][int(value.argmax())]} for value in logits]


# Tagging


def tag_features(task: Any, tokenizer, examples: list) -> Features:
    """Returns the features of sentences; the first token of a word has its tag."""
    encoded = tokenizer(
        [list(example.words) for example in examples],
        is_split_into_words=True,
        truncation=True,
        max_length=task.config.seq_len,
    )
    features = []
    for number, example in enumerate(examples):
        tags = from_spans(example.spans, len(example.words), PLAIN if task.plain else task.options.scheme)
        words = encoded.word_ids(number)
        first = [word is not None and word not in words[:at] for at, word in enumerate(words)]
        wanted = [
            task.numbers.get(tags[word], IGNORED) if is_first else IGNORED for word, is_first in zip(words, first)
        ]
        inputs = {name: encoded[name][number] for name in tokenizer.model_input_names}
        features.append(inputs | {"labels": wanted, "words": [word if f else None for word, f in zip(words, first)]})
    return features


def tag_predictions(task: Any, examples: list, features: Features, logits: list) -> list:
    """Returns the spans of the tags."""
    predictions = []
    for example, feature, value in zip(examples, features, logits):
        tags = ["O"] * len(example.words)
        for word, scores in zip(feature["words"], value):
            if word is not None:
                tags[word] = task.classes[int(scores.argmax())]
        spans = to_spans(tags, task.options.scheme)
        predictions.append({"spans": [described(example, 1.0, span) for span in spans]})
    return predictions


# Question answering


def answer_features(task: Any, tokenizer, examples: list) -> Features:
    """Returns the features of all windows."""
    encoded = tokenizer(
        [example.question for example in examples],
        [example.context for example in examples],
        truncation="only_second",
        max_length=task.config.seq_len,
        stride=task.options.stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    features = []
    for number, example in enumerate(encoded["overflow_to_sample_mapping"]):
        offsets: list[Any] = [
            pair if part == 1 else None
            for pair, part in zip(encoded["offset_mapping"][number], encoded.sequence_ids(number))
        ]
        answer, start, end = first_answer(examples[example]), 0, 0
        inside = [at for at, pair in enumerate(offsets) if pair]
        if answer and inside and offsets[inside[0]][0] <= answer[0] and answer[1] <= offsets[inside[-1]][1]:
            start = max(at for at in inside if offsets[at][0] <= answer[0])
            end = min(at for at in inside if offsets[at][1] >= answer[1])
        inputs = {name: encoded[name][number] for name in tokenizer.model_input_names}
        features.append(
            inputs | {"start_positions": start, "end_positions": end, "offsets": offsets, "example": example}
        )
    return features


def answer_predictions(task: Any, examples: list, features: Features, logits: list) -> list:
    """Returns the best span of all windows, of the n best starts and ends."""
    best = [(-np.inf, "")] * len(examples)
    for feature, value in zip(features, logits):
        starts, ends = (np.argsort(-value[:, column])[: task.options.n_best].tolist() for column in (0, 1))
        offsets, number = feature["offsets"], feature["example"]
        for start in starts:
            for end in ends:
                if end >= len(offsets) or start >= len(offsets) or not (offsets[start] and offsets[end]):
                    continue
                if not start <= end < start + task.options.max_answer_length:
                    continue
                score = float(value[start, 0] + value[end, 1])
                if score > best[number][0]:
                    best[number] = score, examples[number].context[offsets[start][0] : offsets[end][1]]
    return [{"nbest": [{"text": text, "start": 0}]} for _, text in best]


KINDS = {
    "classification": Kind(transformers.AutoModelForSequenceClassification, text_features, text_predictions),
    "tagging": Kind(transformers.AutoModelForTokenClassification, tag_features, tag_predictions),
    "qa": Kind(transformers.AutoModelForQuestionAnswering, answer_features, answer_predictions),
}
