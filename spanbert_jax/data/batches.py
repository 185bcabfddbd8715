"""From a config to batches: opens the corpus that config.data names, makes rows of it and masks them as config.masking says.

The rest of this room takes explicit arguments; here they are taken from a config.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from spanbert_jax.data.blocks import Rows, build_rows
from spanbert_jax.data.corpus import EMBEDDED, SPLITS, read_documents
from spanbert_jax.data.masking import mask_slots, settings_from_config
from spanbert_jax.data.pipeline import Batch, Masker, make_batches, make_eval_batches
from spanbert_jax.data.store import Store, open_store, write_store
from spanbert_jax.data.tokenizer import Tokenizer
from spanbert_jax.errors import InputError


def validate(config) -> list[str]:
    """What of a config this room cannot work with, one line each; it looks at no data."""
    problems = []
    try:
        settings_from_config(config)
    except InputError as error:
        problems += str(error).splitlines()
    if config.eval.every and not config.data.valid_fraction and not config.data.store and config.data.source != EMBEDDED:
        problems.append("data.valid_fraction 0 holds out no text to evaluate on: raise it, or give eval.every = 0")
    return problems


def open_corpus(config, tokenizer: Tokenizer, workdir: Path, tell: Callable[[str], None]) -> Store:
    """The store that config.data names: if it names text, workdir/store, made from the text if it is not there; `tell` hears of that.

    Raises:
      InputError: a corpus or store that cannot be used.
    """
    folder = Path(config.data.store) if config.data.store else workdir / "store"
    if not config.data.store and not folder.exists():
        tell(f"tokenising {config.data.source} into {folder}")
        write_store(folder, tokenizer, {split: read_documents(config.data.source, split, config.data.valid_fraction) for split in SPLITS})
    store = open_store(folder)
    store.require(tokenizer)
    return store


def rows_of(config, store: Store, tokenizer: Tokenizer, split: str) -> Rows:
    """The rows of one split.

    Raises:
      InputError: too few for what the config wants of them.
    """
    rows = build_rows(store.split(split), config.seq_len, config.data.max_blocks_per_row, tokenizer.starts_word)
    if split == "valid" and config.eval.every and not rows.num_rows:
        raise InputError(f"store {store.folder}: no document is held out; raise data.valid_fraction, or give eval.every = 0")
    return rows


def slots_of(config) -> int:
    """M: slots of a row."""
    return mask_slots(config.seq_len, config.masking.rate, config.data.max_blocks_per_row)


class Feed:
    """The batches of a config: rows of both splits, and one masker for all of them. Attributes: `rows` by split, `masker`."""

    def __init__(self, config, store: Store, tokenizer: Tokenizer):
        self.config = config
        self.rows = {split: rows_of(config, store, tokenizer, split) for split in SPLITS}
        self.masker = Masker(settings_from_config(config), tokenizer, store.split("train").piece_counts)

    def training(self, start: int, host: int = 0, hosts: int = 1) -> Iterator[Batch]:
        """This host's share of the batches of update `start` (from 0) and of those after it, for ever."""
        config = self.config
        return make_batches(self.rows["train"], self.masker, batch_size=config.batch_size, seed=config.seed, start_step=start, host=host,
                            hosts=hosts, threads=config.data.threads)

    def held_out(self, host: int = 0, hosts: int = 1) -> Iterator[Batch]:
        """This host's share of the evaluation batches, the same ones each time."""
        config = self.config
        return make_eval_batches(self.rows["valid"], self.masker, batch_size=config.eval.batch_size, max_rows=config.eval.max_rows, host=host,
                                 hosts=hosts, threads=config.data.threads)
