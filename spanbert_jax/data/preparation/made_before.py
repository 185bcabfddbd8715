"""Whether the store that a preparation would make is there already."""

import contextlib
from pathlib import Path

from spanbert_jax.data.preparation.flags import DEFAULTS
from spanbert_jax.data.preparation.prepare import make_tagger, source_units
from spanbert_jax.data.preparation.report import REPORT_FILE, read_report
from spanbert_jax.data.preparation.settings import Settings
from spanbert_jax.data.preparation.work_folder import setting_differences, work_path
from spanbert_jax.data.sources.problems import HARMLESS, skipped_lines
from spanbert_jax.data.store import SPLITS, Store, open_store
from spanbert_jax.data.tokenizer import load_tokenizer
from spanbert_jax.errors import InputError


def made_before(settings: Settings, output: str, strict: bool) -> Store | None:
    """Returns the finished store at `output`, None if there is none.

    Raises:
      InputError: it was made with other settings or of other text; each difference that can be seen is named. Of text
        that is not there any more, and of files of the same size, none is seen. Or files of the store are missing.
    """
    if not (Path(output) / REPORT_FILE).is_file() or work_path(output).exists():
        return None
    store = open_store(output)
    differences = store_differences(settings, store, strict)
    if differences:
        raise InputError(
            f"{output}: there is a store at this path already, made otherwise: {'; '.join(differences)}; remove it or"
            " choose another folder"
        )
    for split in SPLITS:
        try:
            store.split(split)
        except InputError as error:
            raise InputError(f"{error}, after removing {output}") from error
    return store


def store_differences(settings: Settings, store: Store, strict: bool) -> list[str]:
    """Returns in what a store differs from what the settings would make."""
    report = read_report(store)
    # A setting that the store's release did not have was as its default is.
    differences = setting_differences(DEFAULTS | report["settings"], settings.to_json())
    if differences:
        return differences
    skipped = report.get("skipped", {})
    if strict:
        differences += skipped_lines({kind: entry for kind, entry in skipped.items() if kind != HARMLESS})
    if not settings.train_vocab:
        tokenizer = load_tokenizer(settings.vocab, settings.lowercase, settings.strip_accents)
        if tokenizer.fingerprint != store.tokenizer_fingerprint:
            differences.append(f"the vocabulary {settings.vocab} has changed")
    tagger = make_tagger(settings, store.tokenizer())
    if (tagger.describe() if tagger else {}) != store.index["tags"]:
        differences.append("the tagger has changed")
    if change := source_change(settings, store):
        differences.append(change)
    return differences


def source_change(settings: Settings, store: Store) -> str:
    """Returns how the text that a store was made of has changed; "" if it has not, or is not there any more."""
    with contextlib.suppress(InputError):
        before, now = read_report(store).get("source_bytes"), sum(unit.size for unit in source_units(settings))
        if before not in (None, now):
            return f"the input has changed ({before:,} bytes before, {now:,} now)"
    return ""
