"""The paper's own baselines beside SpanBERT (section 4.3; reference 4.5): --config=configs/baselines.py:NAME or NAME-SIZE.

bert       "Our BERT": two segments and next sentence prediction, random tokens masked; new masks each epoch, no short sequences
bert_1seq  "Our BERT-1seq": the same on full-length single segments, without next sentence prediction
spanbert   single segments, geometric spans, and the span boundary objective

Sizes are those of configs/spanbert.py, "base" unless given: bert_1seq-large is the paper's. All else is the recipe of that size.
"""

from configs import spanbert

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
    """BERT's masking: single tokens, each with a fate of its own."""
    config.masking.schemes = ("subword",)
    config.masking.replacement = "token"


def two_segments(config) -> None:
    """BERT's input: pairs of segments, half of them from two documents, and the objective to tell."""
    config.data.blocks = "pair"
    config.data.max_blocks_per_row = 1
    config.objectives.nsp_weight = 1.0
