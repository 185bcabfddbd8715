"""Lines of a text file, plain or compressed, from any byte on. A line that is no text is a Problem."""

from collections.abc import Iterator

from spanbert_jax.data.sources.compression import CHUNK_BYTES, open_decompressed
from spanbert_jax.data.sources.problems import Problem, refuse

MAX_LINE_BYTES = 1 << 24  # a longer line is a problem: a whole corpus on one line would not fit in memory


def lines(path: str, begin: int = 0) -> Iterator[tuple[int, str | Problem]]:
    """Yields (offset, stripped text) of each line that begins at byte `begin` of the decompressed file or later.

    In place of its text, a line that is too long or not UTF-8 has the Problem.

    Raises:
      InputError: the file cannot be read, or the archive is damaged.
    """
    with open_decompressed(path) as file:
        offset = begin
        if begin:  # skip the rest of the line that contains byte begin - 1
            file.seek(begin - 1)
            offset += skip_line(file) - 1
        while data := file.readline(MAX_LINE_BYTES):
            length = len(data)
            if length == MAX_LINE_BYTES and not data.endswith(b"\n") and (rest := skip_line(file)):
                length += rest
                what = f"longer than {MAX_LINE_BYTES >> 20} MiB"
                advice = "put one sentence, paragraph or record on each line"
                yield offset, Problem("long", path, offset, what, advice)
            else:
                yield offset, decoded(data, path, offset)
            offset += length


def text_lines(path: str) -> Iterator[str]:
    """Yields the stripped text of each line of a file. Raises InputError at the first that is no text."""
    for _, line in lines(path):
        if isinstance(line, Problem):
            refuse(line)
        else:
            yield line


def skip_line(file) -> int:
    """Reads to the end of a line. Returns the number of bytes read."""
    length = 0
    while data := file.readline(CHUNK_BYTES):
        length += len(data)
        if data.endswith(b"\n"):
            break
    return length


def decoded(data: bytes, path: str, offset: int) -> str | Problem:
    """Returns the stripped text of a line that begins at byte `offset` of a file, or the problem that it is none."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = error.start
        what, advice = f"byte {offset + byte} is 0x{data[byte]:02x}, not UTF-8", "convert the file (iconv -t UTF-8)"
        return Problem("encoding", path, offset, what, advice)
    if "\0" in text:
        what = f"byte {offset + data.index(0)} is zero, so this is not UTF-8 text"
        return Problem("encoding", path, offset, what, "convert or remove the file")
    return (text.removeprefix("\ufeff") if offset == 0 else text).strip()
