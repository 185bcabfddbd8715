"""Extractive question answering: --config=configs/tasks/squad.py:v1 | v2 | mrqa, with task.train and task.valid.

v1    SQuAD 1.1, and whatever has an answer to each question
v2    SQuAD 2.0: a question may have no answer
mrqa  the data sets of MRQA 2019

The paper's recipe (section 4.2): 512 tokens, stride 128, rates of 5e-6, 1e-5, 2e-5, 3e-5 and 5e-5, batches of 16 or 32,
4 epochs. The released scripts take 2e-5 and 32. Their stride is the step from window to window; here windows overlap by
it, so there are fewer of them.
"""

from spanbert_jax.configs.tasks import base


def get_config(variant: str = "v1"):
    if variant not in ("v1", "v2", "mrqa"):
        raise ValueError(f"configs/tasks/squad.py has no variant {variant!r}; it has v1, v2, mrqa")
    config = base.get_config("qa", no_answer=variant == "v2")
    config.name = "mrqa" if variant == "mrqa" else f"squad-{variant}"
    config.seq_len = 512
    config.batch_size = 32
    config.optimizer.learning_rate = 2e-5
    config.task.epochs = 4
    return config
