"""From text to text: --config=configs/tasks/seq2seq.py:translation | summarisation, with task.train and task.valid.

translation    BLEU and chrF; column 0 of TSV is the source and column 1 the target, unless seq2seq.source, target say
summarisation  ROUGE; fields source and target of JSON Lines

A decoder with cross-attention on the pretrained encoder (Vaswani et al. 2017; Rothe et al. 2020), beam search, label
smoothing 0.1. The decoder is new, so its rate is ten times that of the encoder, as Liu and Lapata (2019) use two rates.
"""

from spanbert_jax.configs.tasks import base

LENGTHS = {"translation": 128, "summarisation": 512}  # of sources
CHANGES: dict[str, dict] = {
    "translation": dict(source="0", target="1", metrics=("bleu", "chrf")),
    "summarisation": dict(metrics=("rouge1", "rouge2", "rougeL"), length_penalty=1.0),
}


def get_config(variant: str = "translation"):
    if variant not in CHANGES:
        raise ValueError(f"configs/tasks/seq2seq.py has no variant {variant!r}; it has {', '.join(CHANGES)}")
    config = base.get_config("seq2seq", **CHANGES[variant])
    config.name = variant
    config.seq_len = LENGTHS[variant]
    config.batch_size = 64
    config.optimizer.learning_rate = 5e-5
    config.optimizer.groups = ("seq2seq/.* rate=10",)
    config.task.epochs = 10
    return config
