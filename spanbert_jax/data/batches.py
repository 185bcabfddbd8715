"""From a config to batches: opens the corpus that config.data names, makes rows of it and masks them as config.masking says.

The rest of this room takes explicit arguments; here they are taken from a config.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from spanbert_jax.data.blocks import KINDS, LONG_SENTENCES, BlockSettings
from spanbert_jax.data.masking import mask_slots
from spanbert_jax.data.mixture import MixedRows, Mixture, weights_of
from spanbert_jax.data.order import Order
from spanbert_jax.data.pipeline import Batch, Masker, make_batches, make_eval_batches
from spanbert_jax.data.preparation.prepare import prepare
from spanbert_jax.data.preparation.settings import Means, as_it_stands
from spanbert_jax.data.rows import Rows, build_rows
from spanbert_jax.data.schemes import TAGS, settings_from_config, tags_of
from spanbert_jax.data.sources import EMBEDDED
from spanbert_jax.data.store import Store, open_store
from spanbert_jax.data.tokenizer import Tokenizer, load_tokenizer
from spanbert_jax.errors import InputError

OF_STORE = "store"  # config.data.vocab: the one that config.data.store was made with


def validate(config) -> list[str]:
    """What of a config this room cannot work with, one line each; it looks at no data."""
    problems = []
    try:
        settings_from_config(config)
    except InputError as error:
        problems += str(error).splitlines()
    data = config.data
    for key, choices in (("blocks", tuple(KINDS)), ("long_sentences", LONG_SENTENCES)):
        if data[key] not in choices:
            problems.append(f"data.{key} must be one of {', '.join(choices)}, not {data[key]!r}")
    if not 0 <= data.short_seq_prob <= 1 or (data.short_seq_prob and data.blocks != "pair"):
        problems.append(
            f"data.short_seq_prob {data.short_seq_prob} must be in [0, 1], and 0 unless data.blocks is pair"
        )
    if data.vocab == OF_STORE and not store_names(config):
        problems.append("data.vocab = store takes the vocabulary of data.store: name one there")
    if min(data.weights) < 0 or (len(data.weights) > 1 and min(data.weights) == 0) or data.temperature <= 0:
        problems.append(
            "data.weights must be positive, one for each store, or (0,) for odds by size; data.temperature must be positive"
        )
    if len(store_names(config)) < 2 and tuple(data.weights) != (0.0,):
        problems.append("data.weights is for several stores: name them all in data.store, separated by commas")
    if data.blocks == "pair" and data.max_blocks_per_row != 1:
        problems.append(
            "data.max_blocks_per_row must be 1 with data.blocks = pair: pairs fill their rows, and are not packed"
        )
    if config.objectives.nsp_weight and data.blocks != "pair":
        problems.append(
            "objectives.nsp_weight needs data.blocks = pair: next sentence prediction is about two segments"
        )
    if (
        config.eval.every
        and not config.data.valid_fraction
        and not config.data.store
        and config.data.source != EMBEDDED
    ):
        problems.append("data.valid_fraction 0 holds out no text to evaluate on: raise it, or give eval.every = 0")
    return problems


def store_names(config) -> list[str]:
    """The stores that config.data.store names, none if it names text."""
    return [name.strip() for name in config.data.store.split(",") if name.strip()]


def tokenizer_of(config) -> Tokenizer:
    """The tokenizer that config.data names.

    Raises:
      InputError: it cannot be read.
    """
    if config.data.vocab == OF_STORE:
        return open_store(store_names(config)[0]).tokenizer()
    return load_tokenizer(config.data.vocab, config.data.lowercase)


def open_corpus(config, tokenizer: Tokenizer, workdir: Path, tell: Callable[[str], None]) -> Mixture:
    """The stores that config.data names: if it names text, workdir/store, made from the text if it is not there; `tell` hears of that.

    Raises:
      InputError: a corpus or store that cannot be used.
    """
    folder = workdir / "store"
    if not config.data.store and tags_of(settings_from_config(config)):
        raise InputError(
            f"masking.schemes {', '.join(config.masking.schemes)}: some need tags, which data.source has not; make a store with"
            " scripts/prepare_data.py --tags (or --ngrams), and name it in data.store"
        )
    if not config.data.store and not folder.exists():
        tell(f"tokenising {config.data.source} into {folder}")
        data = config.data
        settings = as_it_stands(data.source, "text", data.vocab, data.lowercase, data.valid_fraction, config.seq_len)
        prepare(settings, folder, Means(workers=0, runner="", beam_options=()), lambda steps, what, number: steps)
    stores = [open_store(name) for name in store_names(config) or [folder]]
    for store in stores:
        store.require(tokenizer)
    if len(config.data.weights) not in (1, len(stores)):
        raise InputError(
            f"data.weights: {len(config.data.weights)} of them for the {len(stores)} stores of data.store; give one each"
        )
    return Mixture(stores)


def block_settings(config, split: str) -> BlockSettings:
    """What rows of a split are made by. Pairs of held-out text are the same in every run, so that runs can be compared."""
    data = config.data
    return BlockSettings(
        config.seq_len,
        data.max_blocks_per_row,
        data.blocks,
        data.long_sentences,
        data.short_seq_prob,
        config.seed if split == "train" and data.blocks == "pair" else 0,
    )


def rows_of(config, store: Store, tokenizer: Tokenizer, split: str) -> Rows:
    """The rows of one split.

    Raises:
      InputError: too few for what the config wants of them, or without the tags that its masking schemes look at.
    """
    tags = tags_of(settings_from_config(config))
    missing = [kind for kind in tags if kind not in store.split(split).tag_kinds]
    if missing:
        schemes = ", ".join(name for name in config.masking.schemes if TAGS.get(name) in missing)
        raise InputError(
            f"store {store.where}: no tags of kind {', '.join(missing)} in it, which masking.schemes = {schemes} needs;"
            " make it with scripts/prepare_data.py --tags (or --ngrams)"
        )
    rows = build_rows(store.split(split), block_settings(config, split), tokenizer.starts_word, tags)
    if split == "valid" and config.eval.every and not rows.num_rows:
        raise InputError(
            f"store {store.where}: no document is held out; raise data.valid_fraction, or give eval.every = 0"
        )
    return rows


def slots_of(config) -> int:
    """M: slots of a row."""
    return mask_slots(config.masking.rate, block_settings(config, "train").layouts())


class Feed:
    """The batches of a config: rows of both splits, their order, and one masker for all of them.

    Attributes: `names` of the stores; `train`, MixedRows; `order` of these; `valid`, Rows by name.
    """

    def __init__(self, config, mixture: Mixture, tokenizer: Tokenizer):
        self.config = config
        self.names = mixture.names
        self.train = MixedRows([rows_of(config, store, tokenizer, "train") for store in mixture.stores])
        self.valid = {
            name: rows_of(config, store, tokenizer, "valid") for name, store in zip(mixture.names, mixture.stores)
        }
        empty = [name for name, size in zip(self.names, self.train.sizes) if not size]
        if empty:
            raise InputError(f"store {empty[0]}: its training split has no rows")
        self.order = Order(
            self.train.sizes, weights_of(self.train.sizes, config.data.weights, config.data.temperature), config.seed
        )
        self.masker = Masker(settings_from_config(config), slots_of(config), tokenizer, mixture.token_counts("train"))

    def training(self, start: int, part: np.ndarray | None = None) -> Iterator[Batch]:
        """The batches of update `start` (from 0) and of those after it, for ever; of each the rows numbered `part` (None: all)."""
        config = self.config
        return make_batches(
            self.train,
            self.order,
            self.masker,
            batch_size=config.batch_size,
            start_step=start,
            part=part,
            threads=config.data.threads,
        )

    def rows_drawn(self, steps: int) -> dict[str, int]:
        """How many rows of each store the first `steps` updates read, by name."""
        return dict(zip(self.names, self.order.drawn(steps * self.config.batch_size).tolist()))

    def held_out(self, name: str, part: np.ndarray | None = None) -> Iterator[Batch]:
        """The evaluation batches of a store, the same ones each time, of each the rows numbered `part`. Stores have equal parts of eval.max_rows."""
        evaluation = self.config.eval
        return make_eval_batches(
            self.valid[name],
            self.masker,
            batch_size=evaluation.batch_size,
            threads=self.config.data.threads,
            max_rows=-(-evaluation.max_rows // len(self.names)),
            part=part,
        )
