"""What a user calls a source, and its units."""

from spanbert_jax.data.sources.embedded import embedded_units
from spanbert_jax.data.sources.files import file_units
from spanbert_jax.data.sources.units import Unit

EMBEDDED = "embedded"
TFDS = "tfds:"


def find_units(source: str, field: str, split: str, data_dir: str, documents: str) -> list[Unit]:
    """Units of a source, in its order; the list follows from the source alone.

    `source`:
      "embedded": the corpus that comes with the package; the other arguments are not used.
      "tfds:name[/config][:version]": a data set of TFDS that was prepared in `data_dir` ("": where TFDS puts it), `split` of it as TFDS
        writes it ("train", "train[:10%]"), `field` the feature with the text. A record is a document.
      else paths and globs separated by commas, local or remote (gs://): .jsonl and .parquet, where a record is a document and `field` its
        text, and plain text, where `documents` says what is one: "blank", blank lines part them and a line is a sentence or paragraph;
        "line", each line; "file", each file, with wrapped paragraphs that blank lines part. Text and JSON Lines may be packed: .gz, .bz2, .xz, .zst.

    Raises InputError for what can be seen without reading it all: no such file or data set, an empty file, a missing library, no network.
    """
    if source == EMBEDDED:
        return embedded_units()
    if source.startswith(TFDS):
        from spanbert_jax.data.sources.tfds import tfds_units  # here: it imports TensorFlow

        return tfds_units(source.removeprefix(TFDS), field, split, data_dir)
    return file_units(source, field, documents)
