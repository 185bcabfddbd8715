"""Classification of the rows of a table: --config=configs/tasks/classification.py, or :sentiment of two files of texts.

Columns are named by classification.text (one or two) and classification.label.
"""

from spanbert_jax.configs.tasks import base


def get_config(variant: str = "table"):
    formats = {"table": "table", "sentiment": "labels"}
    if variant not in formats:
        raise ValueError(f"configs/tasks/classification.py has no variant {variant!r}; it has {', '.join(formats)}")
    config = base.get_config("classification", format=formats[variant])
    config.seq_len = 128
    return config
