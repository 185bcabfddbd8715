"""Text sources: files of several formats, TFDS and the embedded corpus, divided into independently read units."""

from collections.abc import Callable, Sequence

from spanbert_jax.data.sources.embedded import embedded_units
from spanbert_jax.data.sources.files import file_units
from spanbert_jax.data.sources.formats import AUTO
from spanbert_jax.data.sources.units import Document, Unit

__all__ = ["EMBEDDED", "Document", "Unit", "find_units"]

EMBEDDED = "embedded"


def _tfds(name: str, field: str, split: str, data_dir: str) -> Sequence[Unit]:
    from spanbert_jax.data.sources.tfds import tfds_units  # imported here because it imports TensorFlow

    return tfds_units(name, field, split, data_dir)


# Prefix of a source that is no path -> (the rest of it, field, split, data_dir) -> its units.
PREFIXES: dict[str, Callable[[str, str, str, str], Sequence[Unit]]] = {"tfds:": _tfds}


def find_units(
    source: str, field: str, split: str, data_dir: str, documents: str, format: str = AUTO
) -> Sequence[Unit]:
    """Returns the units of a source in its order; the list depends on the source alone.

    Args:
      source: "embedded", the corpus in the package (the other arguments are not used);
        "tfds:name[/config][:version]", a TFDS data set in which a record is a document;
        or comma-separated paths and globs of files, local or remote (gs://), of the formats in formats.py. Text and
        JSON may be compressed: .gz, .bz2, .xz, .zst. A file that is named several times is read once.
      field: the field, column or feature with the text, of JSON Lines, Parquet and TFDS.
      split: of TFDS: the split as TFDS writes it, "train" or "train[:10%]".
      data_dir: of TFDS: the folder in which the data set was prepared; "" for TFDS's default.
      documents: what a document of plain text is. "blank": what stands between blank lines, each line a sentence or
        paragraph; "line": each line; "file": each file, its wrapped paragraphs separated by blank lines.
      format: of the files: "text"; "jsonl", a record per line; "json", an array of records; "parquet"; "wiki", output
        of WikiExtractor; or "auto", by their suffixes and first bytes.

    Raises:
      InputError: an error that shows without reading all text: no such file or data set, a file that is no text, a
        missing library, no network.
    """
    if source == EMBEDDED:
        return embedded_units()
    for prefix, units_of in PREFIXES.items():
        if source.startswith(prefix):
            return units_of(source.removeprefix(prefix), field, split, data_dir)
    return file_units(source, field, documents, format)
