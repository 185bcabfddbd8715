"""Named entities and labels of words: --config=configs/tasks/tagging.py:tokens | spans, with task.train and task.valid.

tokens  a tag for each word (BERT's way); also for parts of speech, whose labels have no prefixes
spans   a type for each span of up to tagging.max_width words, from its boundaries

The recipe of BERT (Devlin et al. 2019, sections 4.1 and 5.3): rates of 2e-5, 3e-5 and 5e-5, batches of 16 or 32, 3 or 4
epochs; tagging.context gives each sentence its neighbours, as there. The head of spans, which starts from scratch, has
ten times the rate: few of all candidate spans are entities, and at the encoder's rate it has not learned to find them
when the epochs are over.
"""

from spanbert_jax.configs.tasks import base


def get_config(variant: str = "tokens"):
    if variant not in ("tokens", "spans"):
        raise ValueError(f"configs/tasks/tagging.py has no variant {variant!r}; it has tokens, spans")
    config = base.get_config("tagging", decoder=variant)
    config.seq_len = 128
    config.optimizer.learning_rate = 5e-5
    if variant == "spans":
        config.optimizer.groups = ("tagging/.* rate=10",)
    config.eval.batch_size = 32
    return config
