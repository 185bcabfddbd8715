"""The paper's ablations: --config=configs/ablations.py:NAME or NAME-SIZE, with the sizes of configs/baselines.py.

Masking schemes (section 6.1, table 6), all with two segments and next sentence prediction, without SBO:
  subword, whole_word, named_entity, noun_phrase, geometric_span
Auxiliary objectives (section 6.2, table 7), all with geometric spans:
  span_2seq_nsp (table 6's geometric_span), span_1seq, span_1seq_sbo (SpanBERT)
Beyond the paper, on single segments:
  pmi_1seq: n-grams of a list (docs/original.md 8)

The paper trains each model for 1.2 M steps and does not state their size. named_entity and noun_phrase need a store
with tags (scripts/prepare_data.py --tags=entities,phrases), pmi_1seq one made with --ngrams.
"""

from spanbert_jax.configs import baselines, spanbert

SCHEMES = ("subword", "whole_word", "named_entity", "noun_phrase", "geometric_span")
VARIANTS = (*SCHEMES, "span_2seq_nsp", "span_1seq", "span_1seq_sbo", "pmi_1seq")


def get_config(variant: str = "geometric_span"):
    name, _, size = variant.partition("-")
    if name not in VARIANTS:
        raise ValueError(
            f"configs/ablations.py has no variant {variant!r}; it has {', '.join(VARIANTS)}, each also as NAME-SIZE"
        )
    config = spanbert.get_config(size or "base")
    config.name = f"{name}-{size or 'base'}"
    scheme = {"pmi_1seq": "pmi"}.get(name, name if name in SCHEMES else "geometric_span")
    config.masking.schemes = (scheme,)
    if scheme == "subword":
        baselines.subword(config)
    if name in SCHEMES or name == "span_2seq_nsp":
        baselines.two_segments(config)
    if name != "span_1seq_sbo":
        config.objectives.sbo_weight = 0.0
    return config
