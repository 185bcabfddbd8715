"""Documents in which several mentions stand for one thing."""

import dataclasses
import itertools

Mention = tuple[int, int]  # first and last word of the document
Clusters = tuple[tuple[Mention, ...], ...]


@dataclasses.dataclass(frozen=True)
class Document:
    """A text with its mentions.

    Attributes:
      id: as in the file, or the file's name.
      part: of a long document, whose parts are documents of their own.
      genre: the first part of OntoNotes' and GUM's ids: "bc", "fiction"; "" if unknown.
      words: of each sentence.
      speakers: of each word, in sentences; "" if unknown.
      clusters: sorted mentions, (first, last) word of the document, both inclusive; sorted by their first mention.
      text: of raw text; "" if the file has words alone.
      offsets: (first character, the one after the last) of each word of the document in `text`; () without text.
    """

    id: str
    part: int
    genre: str
    words: tuple[tuple[str, ...], ...]
    speakers: tuple[tuple[str, ...], ...]
    clusters: Clusters
    text: str = ""
    offsets: tuple[tuple[int, int], ...] = ()

    def mention_text(self, mention: Mention) -> str:
        """Returns a mention as it stands in the text, or its words with blanks between them."""
        first, last = mention
        if self.offsets:
            return self.text[self.offsets[first][0] : self.offsets[last][1]]
        return " ".join(itertools.islice(itertools.chain.from_iterable(self.words), first, last + 1))
