"""Coreference: --config=configs/tasks/coref.py:base | large | small, with task.train and task.valid of documents.

base, large  the recipe of SpanBERT (Joshi et al. 2019; section 4.2 of the paper): one document a step, 20 epochs,
             segments of 384 or 512 tokens, of which 3 are trained on at once. The original clips the gradients of
             encoder and head apart from each other, and its head has no warm-up.
small        for small models and a CPU: shorter segments and mentions, fewer spans, a narrow head

Of GAP, give a .tsv as task.test. Raw text, in .txt, can be predicted on.
"""

from spanbert_jax.configs.tasks import base

SIZES = {
    "base": (384, 2e-5, 5),
    "large": (512, 1e-5, 30),
    "small": (128, 5e-5, 20),
}  # seq_len, rate of the encoder, of the head as a multiple of it
SMALL = dict(max_segments=4, max_width=15, top_spans_ratio=0.3, max_top_spans=400, max_antecedents=30, ffnn_width=200)


def get_config(variant: str = "base"):
    if variant not in SIZES:
        raise ValueError(f"configs/tasks/coref.py has no variant {variant!r}; it has {', '.join(SIZES)}")
    seq_len, learning_rate, times = SIZES[variant]
    config = base.get_config("coref", **(SMALL if variant == "small" else {}))
    config.name = f"coref-{variant}"
    config.seq_len = seq_len
    config.batch_size = 1
    config.eval.batch_size = 1
    config.task.epochs = 20
    config.optimizer.learning_rate = learning_rate
    config.optimizer.groups = (f"coref/.* rate={times} decay=0",)
    return config
