"""A modern span encoder, in four sizes: --config=configs/modern.py:tiny | mini | base | large.

SpanBERT's masking and objectives with the encoder of ModernBERT (Warner et al. 2024): pre-norm, rotary positions, gated
feed-forward, no biases. Muon trains its matrices.

tiny   trains in minutes on two CPU cores, with its own vocabulary of 4,096 tokens; for the quickstart and tests
mini   trains in about an hour on a CPU or minutes on a GPU, with the vocabulary of BERT; for first experiments
base   22 layers x 768 as ModernBERT-base, every third one reads whole rows, the others windows of 128 tokens
large  28 layers x 1024 as ModernBERT-large

Of base and large, the encoder and the learning rates are as published; the optimiser is Muon, rows have 1,024 tokens,
and mask rate and number of steps are those of SpanBERT's kind: 15 % and 100 k steps of a million tokens. Tiny and mini
mask 30 %.
"""

from spanbert_jax.configs import base, spanbert


def get_config(variant: str = "base"):
    config = base.get_config()
    sizes = {"tiny": _tiny, "mini": _mini, "base": _base, "large": _large}
    if variant not in sizes:
        raise ValueError(f"configs/modern.py has no variant {variant!r}; it has {', '.join(sizes)}")
    sizes[variant](config)
    config.optimizer.name = "muon"
    config.name = f"modern-{variant}"
    return config


def modernise(config):
    """Gives a config the encoder's parts; the sizes stay, but for the feed-forward sublayer's."""
    config.model.update(
        dict(
            norm_bias=False,
            norm_placement="pre",
            first_norm=False,
            positions="rotary",
            token_types=False,
            feed_forward="geglu",
            bias=False,
            norm_eps=1e-5,
            depth_scaled_init=True,
            dropout=0.0,
            attention_dropout=0.0,
        )
    )


def _tiny(config):
    config.update(spanbert.get_config("tiny"))
    _short_run(config)
    config.model.update(dict(mlp_width=384))


def _mini(config):
    config.update(spanbert.get_config("mini"))
    _short_run(config)
    config.model.update(dict(mlp_width=768))


def _short_run(config):
    """What the tiny model learns most with in its 1,000 steps; it is evaluated on the masks of other recipes."""
    modernise(config)
    config.masking.rate = 0.3
    config.eval.masking = ("rate=0.15",)
    config.optimizer.update(dict(beta2=0.98, matrix_rate=3.0))


def _base(config):
    modernise(config)
    _long_rows(config)
    config.model.update(dict(layers=22, width=768, heads=12, mlp_width=1152))
    config.optimizer.learning_rate = 8e-4


def _large(config):
    modernise(config)
    _long_rows(config)
    config.model.update(dict(layers=28, width=1024, heads=16, mlp_width=2624))
    config.optimizer.learning_rate = 5e-4


def _long_rows(config):
    config.seq_len = 1024
    config.data.max_blocks_per_row = 8
    config.batch_size = 1024
    config.total_steps = 100_000
    config.model.update(
        dict(max_positions=8192, attention_pattern="local", window=128, global_every=3, rope_base=160_000.0)
    )
    config.optimizer.update(dict(warmup_steps=3_000, beta2=0.98, eps=1e-6, weight_decay=1e-5, matrix_dtype="bfloat16"))
