"""The paper's own baselines and SpanBERT: --config=configs/baselines.py:NAME or NAME-SIZE.

bert       "Our BERT": two segments and next sentence prediction, random tokens masked, new masks in each epoch, no
           short sequences
bert_1seq  "Our BERT-1seq": the same on full-length single segments, without next sentence prediction
spanbert   single segments, geometric spans, and the span boundary objective

Sizes are those of configs/spanbert.py, "base" by default; the paper's is bert_1seq-large. Everything else follows the
recipe of that size. Source: section 4.3 of the paper; docs/original.md 4.5.
"""

from spanbert_jax.configs import spanbert

VARIANTS = ("bert", "bert_1seq", "spanbert")


def get_config(variant: str = "spanbert"):
    name, _, size = variant.partition("-")
    if name not in VARIANTS:
        raise ValueError(
            f"configs/baselines.py has no variant {variant!r}; it has {', '.join(VARIANTS)}, each also as NAME-SIZE"
        )
    config = spanbert.get_config(size or "base")
    config.name = f"{name}-{size or 'base'}"
    if name != "spanbert":
        subword(config)
        config.objectives.sbo_weight = 0.0
    if name == "bert":
        two_segments(config)
    return config


def subword(config) -> None:
    """Sets BERT's masking: single tokens, each with its own draw of the replacement."""
    config.masking.schemes = ("subword",)
    config.masking.replacement = "token"


def two_segments(config) -> None:
    """Sets BERT's input: pairs of segments, half of them from two documents, and the objective that predicts which."""
    config.data.blocks = "pair"
    config.data.max_blocks_per_row = 1
    config.objectives.nsp_weight = 1.0
