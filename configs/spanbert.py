"""SpanBERT, in four sizes: --config=configs/spanbert.py:tiny | mini | base | large.

tiny   trains in minutes on two CPU cores, with its own vocabulary of 4,096 tokens; for the quickstart and tests
mini   trains in about an hour on a CPU or minutes on a GPU, with the vocabulary of BERT; for first experiments
base   the recipe of the released base model, which the paper does not give: batch 2048, 300 k steps, rate 5e-4
       (docs/original.md 4.3)
large  the paper's model (section 4.2)
"""

from spanbert_jax.configs import base


def get_config(variant: str = "base"):
    config = base.get_config()
    config.name = f"spanbert-{variant}"
    sizes = {"tiny": _tiny, "mini": _mini, "base": _base, "large": lambda config: None}
    if variant not in sizes:
        raise ValueError(f"configs/spanbert.py has no variant {variant!r}; it has {', '.join(sizes)}")
    sizes[variant](config)
    return config


def _base(config):
    config.batch_size = 2048
    config.total_steps = 300_000
    config.optimizer.learning_rate = 5e-4
    config.model.update(dict(layers=12, width=768, heads=12, mlp_width=3072))


def _mini(config):
    config.seq_len = 128
    config.batch_size = 64
    config.total_steps = 20_000
    config.log_every = 50
    config.data.max_blocks_per_row = 4
    config.model.update(dict(layers=4, width=256, heads=4, mlp_width=1024, max_positions=512, output_bias="unigram"))
    config.optimizer.update(dict(learning_rate=1e-3, warmup_steps=500, weight_decay=0.01))
    config.eval.update(dict(every=1_000, batch_size=64, max_rows=1_024))
    config.checkpoint.update(dict(every=1_000))


def _tiny(config):
    _mini(config)
    config.batch_size = 16
    config.total_steps = 1_000
    config.log_every = 10
    config.data.vocab = "tiny"
    config.model.update(
        dict(layers=2, width=128, heads=2, mlp_width=512, max_positions=128, dropout=0.0, attention_dropout=0.0)
    )
    config.optimizer.update(dict(learning_rate=3e-3, warmup_steps=100))
    config.eval.update(dict(every=250, max_rows=0))
    config.checkpoint.update(dict(every=250))
