"""Text from where it lies: files of several formats, TFDS and the embedded corpus, cut into units that are read apart."""

from spanbert_jax.data.sources.find import EMBEDDED, find_units
from spanbert_jax.data.sources.units import Document, Unit

__all__ = ["EMBEDDED", "Document", "Unit", "find_units"]
