"""Files of torch.save, read without torch and without running what is pickled in them.

Two formats: the zip archive (torch >= 1.6) and the stream of pickles before it, in which SpanBERT was released. Either way a pickle
describes objects, in which a tensor is a call of torch._utils._rebuild_tensor_v2 on a storage, and the storages lie beside it as raw bytes.

The unpickler below knows the few names that tensors, dicts and a training checkpoint's settings need, each bound to something inert, and
refuses every other: a pickle can call only what it can name. Tensors are views of the mapped file: what nobody looks at is not read.
"""

import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from spanbert_jax.errors import InputError

STORAGES = {
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "DoubleStorage": "float64",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
# Settings and averages of a run, which the original's training checkpoints hold beside the weights (reference 7.3).
INERT = {("argparse", "Namespace")} | {
    ("fairseq.meters", name) for name in ("AverageMeter", "TimeMeter", "StopwatchMeter")
}
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001


class Storage(NamedTuple):
    """A storage as a pickle speaks of it: so many elements of a type, under a key."""

    dtype: np.dtype
    key: str
    size: int


class Inert:
    """Stands for an object of a class that is not loaded; keeps its state and does nothing."""

    __slots__ = ("state",)

    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)

    def __setstate__(self, state):
        self.state = state


class Refused(Exception):
    """The reason why a file is not read."""


class RebuildTensor(NamedTuple):
    """What torch._utils._rebuild_tensor_v2 means here: a view of a storage. A tuple, because no pickle can set anything on one.

    `read`: Storage -> its elements [size], or None while no more than names is asked for.
    """

    read: Callable[[Storage], np.ndarray | None]

    def __call__(self, storage, offset, shape, strides, requires_grad=False, hooks=None, metadata=None):
        if not isinstance(storage, Storage):
            raise Refused("a tensor without a storage")
        if len(shape) != len(strides) or not all(
            isinstance(number, int) and number >= 0 for number in (offset, *shape, *strides)
        ):
            raise Refused("a tensor of a senseless shape")
        count = math.prod(shape)
        last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides)) if count else offset - 1
        if max(last + 1, count) > storage.size:
            raise Refused(f"a tensor of shape {tuple(shape)} that its storage of {storage.size} elements cannot hold")
        elements = self.read(storage)
        if elements is None:
            return None
        steps = [stride * elements.itemsize for stride in strides]
        return np.lib.stride_tricks.as_strided(elements[offset:], shape, steps, writeable=False)


class RestrictedUnpickler(pickle.Unpickler):
    """Unpickles dicts, lists, strings, numbers and tensors. `read`: Storage -> its elements."""

    def __init__(self, file: BinaryIO, read):
        super().__init__(file, encoding="utf-8")
        self._names = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): RebuildTensor(read),
        }
        # A storage's class is but its type's name: a string has nothing that a pickle could call or change.
        self._names |= {("torch", name): dtype for name, dtype in STORAGES.items()}
        self._names |= dict.fromkeys(INERT, Inert)

    def find_class(self, module, name):
        if (module, name) not in self._names:
            raise Refused(f"it asks for {module}.{name}, which is no part of a tensor")
        return self._names[module, name]

    def persistent_load(self, pid):
        kind, dtype, key, _, size, *views = pid
        if kind != "storage" or dtype not in STORAGES.values() or any(view is not None for view in views):
            raise Refused("a storage of an unknown kind")
        if not isinstance(size, int) or size < 0:
            raise Refused("a storage of a senseless size")
        return Storage(np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype), str(key), size)


def read_torch_file(path: Path) -> Any:
    """The object that torch.save wrote, tensors as read-only numpy arrays over the mapped file, bfloat16 as ml_dtypes.bfloat16.

    Objects of INERT classes become Inert ones.

    Raises:
      InputError: it is no such file, it is damaged, or it asks for anything but tensors.
    """
    try:
        data = np.memmap(path, np.uint8, mode="r")
        with open(path, "rb") as file:
            return _read_zip(file, data) if zipfile.is_zipfile(file) else _read_legacy(file, data)
    except OSError as error:
        raise InputError(f"{path}: cannot read it ({error.strerror or error})") from error
    except Refused as error:
        raise InputError(f"{path}: refused, nothing of it was run: {error}") from error
    except Exception as error:  # a damaged pickle raises nearly anything
        raise InputError(
            f"{path}: not a whole file of torch.save ({type(error).__name__}: {error})".replace("\n", " ")
        ) from error


def _elements(data: np.ndarray, start: int, storage: Storage) -> np.ndarray:
    size = storage.size * storage.dtype.itemsize
    if start + size > data.size:
        raise EOFError(f"it ends before storage {storage.key} does")
    return data[start : start + size].view(storage.dtype)


def _read_zip(file: BinaryIO, data: np.ndarray) -> Any:
    """The archive holds PREFIX/data.pkl, and storages as PREFIX/data/KEY, never compressed."""
    archive = zipfile.ZipFile(file)
    entries = {entry.filename: entry for entry in archive.infolist()}
    pickles = [name for name in entries if name.endswith("data.pkl")]
    if len(pickles) != 1:
        raise Refused("it is a zip archive, but not of torch.save")
    prefix = pickles[0].removesuffix("data.pkl")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
        raise Refused("it is compressed, which torch.save never does")
    if f"{prefix}byteorder" in entries and archive.read(f"{prefix}byteorder") != b"little":
        raise Refused("its numbers are big-endian")

    def read(storage: Storage) -> np.ndarray:
        entry = entries[f"{prefix}data/{storage.key}"]
        if entry.file_size != storage.size * storage.dtype.itemsize:
            raise EOFError(f"storage {storage.key} has {entry.file_size} bytes")
        # The bytes follow a local header of 30 bytes, a name and an extra field, whose lengths its last 4 bytes tell.
        header = data[entry.header_offset : entry.header_offset + 30].tobytes()
        return _elements(data, entry.header_offset + 30 + sum(struct.unpack("<HH", header[26:])), storage)

    with archive.open(pickles[0]) as stream:
        return RestrictedUnpickler(stream, read).load()


def _read_legacy(file: BinaryIO, data: np.ndarray) -> Any:
    """Pickles one after another: magic number, protocol, facts of the machine, the object, keys of the storages. Then each storage: int64
    of its size, and its bytes.

    Where a storage lies is known only after the object that speaks of it, so that object is unpickled twice.
    """
    storages: dict[str, Storage] = {}
    starts: dict[str, int] = {}

    def note(storage: Storage) -> None:
        storages[storage.key] = storage

    def load(read=note) -> Any:
        return RestrictedUnpickler(file, read).load()

    file.seek(0)
    if load() != LEGACY_MAGIC or load() != LEGACY_PROTOCOL:
        raise Refused("it does not begin as a file of torch.save")
    if load().get("little_endian") is not True:
        raise Refused("its numbers are big-endian")
    start_of_object = file.tell()
    load()
    keys, position = load(), file.tell()
    for key in keys:
        (size,) = struct.unpack("<q", data[position : position + 8].tobytes())
        if size != storages[key].size:
            raise EOFError(f"storage {key} has {size} elements")
        starts[key] = position + 8
        position += 8 + size * storages[key].dtype.itemsize
    file.seek(start_of_object)
    return load(lambda storage: _elements(data, starts[storage.key], storage))
