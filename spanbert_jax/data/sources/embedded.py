"""The corpus in the package: one text file per split."""

import dataclasses
import hashlib
import importlib.resources
from collections.abc import Iterator
from pathlib import Path

from spanbert_jax.data.sources import text
from spanbert_jax.data.sources.problems import Report, refuse
from spanbert_jax.data.sources.units import Document, digest

SPLITS = ("train", "valid")


@dataclasses.dataclass(frozen=True)
class EmbeddedUnit:
    """One split of the embedded corpus."""

    split: str
    sha256: str  # of the split's file

    @property
    def name(self) -> str:
        """See `Unit`."""
        return f"embedded {self.split}"

    @property
    def size(self) -> int:
        """See `Unit`."""
        return embedded_file(self.split).stat().st_size

    @property
    def fingerprint(self) -> str:
        """See `Unit`."""
        return digest(self)

    @property
    def held_out(self) -> bool:
        """See `Unit`."""
        return self.split == "valid"

    def documents(self, report: Report = refuse) -> Iterator[Document]:
        """See `Unit`; there is no problem to report."""
        return embedded_documents(self.split)


def embedded_documents(split: str) -> Iterator[Document]:
    """Yields the documents of one split ("train", "valid") of the embedded corpus."""
    return text.documents_between_blank_lines(str(embedded_file(split)), 0, None, "", refuse)


def embedded_units() -> list[EmbeddedUnit]:
    """Returns one unit per split, "train" first."""
    return [EmbeddedUnit(split, hashlib.sha256(embedded_file(split).read_bytes()).hexdigest()) for split in SPLITS]


def embedded_file(split: str) -> Path:
    """Returns the path of a split's text."""
    return Path(str(importlib.resources.files("spanbert_jax.data").joinpath("assets", "corpus", f"{split}.txt.xz")))
