"""GLUE: --config=configs/tasks/glue.py:rte, with task.train=RTE/train and task.valid=RTE/dev.

The paper's recipe (section 4.2): rates of 5e-6 to 5e-5, batches of 16 or 32, 10 epochs (CoLA: 4), 128 tokens.
"""

from spanbert_jax.configs.tasks import base

METRICS = {"cola": "matthews", "stsb": "mean_correlation", "mrpc": "f1", "qqp": "f1"}
NAMES = ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli")


def get_config(variant: str = "rte"):
    if variant not in NAMES:
        raise ValueError(f"configs/tasks/glue.py has no variant {variant!r}; it has {', '.join(NAMES)}")
    changes = dict(format=f"glue:{variant}", metric=METRICS.get(variant, "accuracy"), regression=variant == "stsb")
    config = base.get_config("classification", **changes)
    config.name = variant
    config.seq_len = 128
    config.task.epochs = 4 if variant == "cola" else 10
    return config
