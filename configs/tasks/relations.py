"""Relations between two entities of a sentence: --config=configs/tasks/relations.py:tacred | semeval.

tacred   TACRED, and whatever has its fields: an entity is replaced by a token of its type
semeval  SemEval-2010 task 8, which has no types: entities stand between markers

The paper's recipe for TACRED (section 4.2): 128 tokens, rates of 5e-6, 1e-5, 2e-5, 3e-5 and 5e-5, batches of 16 or 32,
10 epochs. The released scripts take 2e-5 and 32. SemEval is not in the paper; it gets the same, but its classifier
reads the markers instead of [CLS].
"""

from spanbert_jax.configs.tasks import base


def get_config(variant: str = "tacred"):
    variants = {
        "tacred": dict(scorer="tacred", mode="ner"),
        "semeval": dict(scorer="semeval", mode="text", pooling="entities"),
    }
    if variant not in variants:
        raise ValueError(f"configs/tasks/relations.py has no variant {variant!r}; it has {', '.join(variants)}")
    config = base.get_config("relations", **variants[variant])
    config.name = variant
    config.seq_len = 128
    config.batch_size = 32
    config.optimizer.learning_rate = 2e-5
    config.task.epochs = 10
    return config
