"""The corpus that comes with the package: a text file for each split."""

import dataclasses
import hashlib
import importlib.resources
from collections.abc import Iterator
from pathlib import Path

from spanbert_jax.data.sources import text
from spanbert_jax.data.sources.units import Document, digest

SPLITS = ("train", "valid")


@dataclasses.dataclass(frozen=True)
class EmbeddedUnit:
    """A split of the embedded corpus."""

    split: str
    sha256: str  # of its file

    @property
    def name(self) -> str:
        """As of `Unit`."""
        return f"embedded {self.split}"

    @property
    def size(self) -> int:
        """As of `Unit`."""
        return embedded_file(self.split).stat().st_size

    @property
    def fingerprint(self) -> str:
        """As of `Unit`."""
        return digest(self)

    @property
    def held_out(self) -> bool:
        """As of `Unit`."""
        return self.split == "valid"

    def documents(self) -> Iterator[Document]:
        """As of `Unit`."""
        return embedded_documents(self.split)


def embedded_documents(split: str) -> Iterator[Document]:
    """Documents of a split of the embedded corpus."""
    return text.documents(str(embedded_file(split)), 0, None, "")


def embedded_units() -> list[EmbeddedUnit]:
    """One unit a split, train first."""
    return [EmbeddedUnit(split, hashlib.sha256(embedded_file(split).read_bytes()).hexdigest()) for split in SPLITS]


def embedded_file(split: str) -> Path:
    """Path of the text of a split."""
    return Path(str(importlib.resources.files("spanbert_jax.data").joinpath("assets", "corpus", f"{split}.txt.xz")))
