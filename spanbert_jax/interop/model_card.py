"""The model card of an exported run: its use, training data, config and metrics."""

import math
from collections.abc import Mapping
from types import MappingProxyType

from ml_collections import ConfigDict

from spanbert_jax import config as config_lib
from spanbert_jax.data.tokenizer import Tokenizer
from spanbert_jax.interop.families import family_of
from spanbert_jax.interop.names import Shapes
from spanbert_jax.phases import config_at, tokens_until
from spanbert_jax.provenance import in_words

CARD = """---
library_name: {library}
pipeline_tag: fill-mask
tags:
- {tag}
- spanbert
- span-boundary-objective
---

# {name}

{title} pretrained by the method of SpanBERT (Joshi et al., TACL 2020) with spanbert_jax: {layers} layers
of width {width} with {heads} heads, {number:,} parameters, {vocabulary:,} {casing} WordPiece tokens,
sequences of up to {positions} tokens. Weights after step {step:,} of {total:,}.

## Use

{use}
## Data

{data}

To be added before publication: the language of the text and its licence, which are not recorded in the run.

## Training

{tokens:,} positions per step, padding included; {seen:,} in total.{made}
The config, whose keys `configs/base.py` explains:

```json
{config}
```

## Metrics

Losses are in nats per target; `eval/` is held-out text with masks that are always the same.

| metric | step | value |
|---|---|---|
{metrics}
"""


CONVERTED = """---
library_name: {library}
pipeline_tag: fill-mask
tags:
- {tag}
---

# {name}

Converted by spanbert_jax: {kind} of {layers} layers of width {width} with {heads} heads, {number:,} parameters,
{vocabulary:,} {casing} WordPiece tokens, sequences of up to {positions} tokens. The card of the model that it was made
of says how it was trained.

## Use

{use}"""


FINE_TUNED = """---
library_name: {library}
pipeline_tag: {pipeline}
tags:
- {tag}
---

# {name}

{title} with a head for the task `{task}`, fine-tuned with spanbert_jax: {layers} layers of width {width} with
{heads} heads, {number:,} parameters, {vocabulary:,} {casing} WordPiece tokens, sequences of up to {positions} tokens.
It started from `{start}`. Weights after step {step:,} of {total:,}.

## Use

{use}
## Data

Trained on `{train}`. To be added before publication: the language of the text and its licence.

## Training
{made}
The config, whose keys `configs/base.py` and `configs/tasks/base.py` explain:

```json
{config}
```

## Metrics

On `{valid}`, by which the step was chosen:

| metric | value |
|---|---|
{metrics}
"""


def sizes_for_card(config: ConfigDict, shapes: Shapes, tokenizer: Tokenizer) -> dict:
    """Returns what all kinds of cards say of a model."""
    family = family_of(config)
    kind = f"a {family.title} encoder" if family else "an encoder"
    return dict(
        tag=family.model_type if family else "encoder",
        kind=kind,
        title=kind[0].upper() + kind[1:],
        name=config.name,
        layers=config.model.layers,
        width=config.model.width,
        heads=config.model.heads,
        number=sum(map(math.prod, shapes.values())),
        vocabulary=tokenizer.vocab_size,
        casing=tokenizer.rules,
        positions=config.seq_len,
    )


def converted_card(config: ConfigDict, shapes: Shapes, tokenizer: Tokenizer, library: str, use: str) -> str:
    """Returns the README.md of an export of a model that was not trained by a run here; see model_card."""
    return CONVERTED.format(library=library, use=use, **sizes_for_card(config, shapes, tokenizer))


def made_with(made: Mapping) -> str:
    """Returns a sentence on a provenance, "" if nothing is known."""
    return f" Made with {', '.join(in_words(made))}." if made else ""


def model_card(
    config: ConfigDict,
    shapes: Shapes,
    tokenizer: Tokenizer,
    step: int,
    splits: dict | None,
    metrics: list[dict],
    library: str,
    use: str,
    made: Mapping = MappingProxyType({}),
) -> str:
    """Returns the README.md of an export.

    Args:
      config: the complete config of the run.
      shapes: of the parameters, by path.
      tokenizer: of the run.
      step: number of train steps done.
      splits: {"train": {"num_tokens", "num_documents"}, ...} of the store; None if the store is missing.
      metrics: lines of metrics.jsonl to show, each with its "step".
      library: name, on the Hugging Face hub, of the library that reads the format.
      use: how to load the export, in Markdown.
      made: provenance of the run; empty: not known.
    """
    source = config.data.store or config.data.source
    data = [f"Source: `{source}`{', the corpus included in spanbert_jax' if source == 'embedded' else ''}."]
    data += [
        f"- {name}: {split['num_tokens']:,} WordPiece tokens in {split['num_documents']:,} documents"
        for name, split in (splits or {}).items()
    ]
    rows = [
        f"| {name} | {line['step']:,} | {value:.6g} |"
        for line in metrics
        for name, value in line.items()
        if name != "step" and value is not None and name.count("/") < 3  # without those of groups of examples
    ]
    now = config_at(config, step)
    return CARD.format(
        library=library,
        use=use,
        step=step,
        total=config.total_steps,
        data="\n".join(data),
        tokens=config_lib.tokens_per_step(now),
        seen=tokens_until(config, step),
        made=made_with(made),
        config=config_lib.to_json(config),
        metrics="\n".join(rows),
        **sizes_for_card(now, shapes, tokenizer),
    )


def fine_tuned_card(
    config: ConfigDict,
    shapes: Shapes,
    tokenizer: Tokenizer,
    step: int,
    metrics: Mapping[str, float],
    pipeline: str,
    library: str,
    use: str,
    made: Mapping = MappingProxyType({}),
) -> str:
    """Returns the README.md of an export of a fine-tuned model.

    Args:
      config: the complete config of the run.
      shapes: of the parameters, by path.
      tokenizer: of the run.
      step: of the checkpoint.
      metrics: on the validation data, by name; none if there were none.
      pipeline: name of the task on the Hugging Face hub.
      library: see model_card.
      use: see model_card.
      made: see model_card.
    """
    task = config.task
    fold = f"fold {task.fold} of {task.folds} of it" if task.folds else ""
    return FINE_TUNED.format(
        library=library,
        pipeline=pipeline,
        use=use,
        task=task.name,
        start=config.init.path or "random parameters",
        step=step,
        total=config.total_steps,
        train=task.train,
        valid=task.valid or fold or "no data",
        made=made_with(made),
        config=config_lib.to_json(config),
        metrics="\n".join(f"| {name} | {value:.6g} |" for name, value in metrics.items()),
        **sizes_for_card(config, shapes, tokenizer),
    )
