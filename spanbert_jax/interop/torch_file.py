"""Reading files of torch.save without torch, and without running code that is pickled in them.

There are two formats: the zip archive of torch >= 1.6, and the older stream of pickles, in which SpanBERT was released.
In both, a pickle describes objects, in which a tensor is a call of torch._utils._rebuild_tensor_v2 on a storage; the
storages are stored as raw bytes outside the pickle.

A pickle can call only what it can name. The unpickler below knows the few names that tensors, dicts and the settings of
a training checkpoint need, binds each to something inert, and refuses every other name. Tensors are views of the
memory-mapped file: only those that are used are read.
"""

import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple

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
# Classes of the settings and averages that training checkpoints also contain: those of the original (docs/original.md
# 7.3), and of Lightning.
INERT_CLASSES = {
    ("argparse", "Namespace"),
    ("fairseq.meters", "AverageMeter"),
    ("fairseq.meters", "TimeMeter"),
    ("fairseq.meters", "StopwatchMeter"),
    ("pytorch_lightning.utilities.parsing", "AttributeDict"),
    ("lightning.pytorch.utilities.parsing", "AttributeDict"),
    ("lightning_fabric.utilities.data", "AttributeDict"),
    ("lightning.fabric.utilities.data", "AttributeDict"),
    ("pathlib", "PosixPath"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("_codecs", "encode"),  # by which protocol 2 writes the bytes of a scalar
}
# What to run where the file's own program is, and the file is trusted.
CONVERSION = 'import torch; torch.save(torch.load("{name}", "cpu", weights_only=False)["state_dict"], "weights.pt")'
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001


class Storage(NamedTuple):
    """A pickle's reference to a storage."""

    dtype: np.dtype
    key: str
    size: int  # in elements


class Inert:
    """Replaces an object whose class is not loaded. It keeps its state and does nothing."""

    __slots__ = ("state",)

    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)

    def __setstate__(self, state):
        self.state = state

    def __setitem__(self, key, value):
        """Drops an item of a dict of another class."""


class Refused(Exception):
    """A file contains something other than tensors in a format of torch.save; the message says what."""


class RebuildTensor(NamedTuple):
    """Replaces torch._utils._rebuild_tensor_v2: returns a view of a storage.

    This is a tuple because a pickle cannot set attributes of one.
    """

    # Returns the elements [size] of a storage, or None in the pass that only collects the storages.
    read: Callable[[Storage], np.ndarray | None]

    def __call__(self, storage, offset, shape, strides, requires_grad=False, hooks=None, metadata=None):
        if not isinstance(storage, Storage):
            raise Refused("a tensor without a storage")
        if len(shape) != len(strides) or not all(
            isinstance(number, int) and number >= 0 for number in (offset, *shape, *strides)
        ):
            raise Refused("a tensor of an invalid shape")
        count = math.prod(shape)
        last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides)) if count else offset - 1
        if max(last + 1, count) > storage.size:
            raise Refused(f"a tensor of shape {tuple(shape)} is larger than its storage of {storage.size} elements")
        elements = self.read(storage)
        if elements is None:
            return None
        steps = [stride * elements.itemsize for stride in strides]
        return np.lib.stride_tricks.as_strided(elements[offset:], shape, steps, writeable=False)


class RestrictedUnpickler(pickle.Unpickler):
    """Unpickles dicts, lists, strings, numbers and tensors. `read`: as in RebuildTensor."""

    def __init__(self, file: IO[bytes], read: Callable[[Storage], np.ndarray | None]):
        super().__init__(file, encoding="utf-8")
        self._names = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): RebuildTensor(read),
        }
        # The class of a storage is replaced by the name of its type: a pickle cannot call or change a string.
        self._names |= {("torch", name): dtype for name, dtype in STORAGES.items()}
        self._names |= dict.fromkeys(INERT_CLASSES, Inert)

    def find_class(self, module, name):
        if (module, name) not in self._names:
            raise Refused(f"it asks for {module}.{name}, which tensors do not need")
        return self._names[module, name]

    def persistent_load(self, pid):
        kind, dtype, key, _, size, *views = pid
        if kind != "storage" or dtype not in STORAGES.values() or any(view is not None for view in views):
            raise Refused("a storage of an unknown kind")
        if not isinstance(size, int) or size < 0:
            raise Refused("a storage of an invalid size")
        return Storage(np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype), str(key), size)


def read_torch_file(path: Path) -> Any:
    """Returns the object that torch.save wrote.

    Tensors are read-only numpy arrays over the memory-mapped file, of bfloat16 with ml_dtypes.bfloat16. Objects of
    INERT_CLASSES are instances of Inert.

    Raises:
      InputError: the file is not of torch.save, is damaged, or asks for something that tensors do not need.
    """
    try:
        data = np.memmap(path, np.uint8, mode="r")
        with open(path, "rb") as file:
            return _read_zip(file, data) if zipfile.is_zipfile(file) else _read_legacy(file, data)
    except OSError as error:
        raise InputError(f"{path}: cannot read it ({error.strerror or error})") from error
    except Refused as error:
        advice = f"if you trust the file, keep its tensors alone: {CONVERSION.format(name=path.name)}"
        raise InputError(f"{path}: refused, nothing of it was run: {error}; {advice}") from error
    except Exception as error:  # a damaged pickle can raise errors of nearly any type
        message = f"{path}: not a complete file of torch.save ({type(error).__name__}: {error})"
        raise InputError(message.replace("\n", " ")) from error


def _elements(data: np.ndarray, start: int, storage: Storage) -> np.ndarray:
    """Returns the elements of a storage that begins at byte `start`."""
    size = storage.size * storage.dtype.itemsize
    if start + size > data.size:
        raise EOFError(f"the file ends inside storage {storage.key}")
    return data[start : start + size].view(storage.dtype)


def _read_zip(file: IO[bytes], data: np.ndarray) -> Any:
    """Reads an archive of PREFIX/data.pkl and one entry PREFIX/data/KEY per storage, none of them compressed."""
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
        # The bytes follow a local header of 30 bytes, a name and an extra field, whose lengths end the header.
        header_end = entry.header_offset + 30
        name_length, extra_length = struct.unpack("<HH", data[header_end - 4 : header_end].tobytes())
        return _elements(data, header_end + name_length + extra_length, storage)

    with archive.open(pickles[0]) as stream:
        return RestrictedUnpickler(stream, read).load()


def _read_legacy(file: IO[bytes], data: np.ndarray) -> Any:
    """Reads a stream of pickles: magic number, protocol, machine, the object, keys of the storages.

    Then comes each storage: its size as int64, and its bytes. The byte at which a storage begins is known only after
    the object that refers to it, so the object is unpickled twice: to collect the storages, then to build the tensors.
    """
    storages: dict[str, Storage] = {}
    starts: dict[str, int] = {}

    def collect(storage: Storage) -> None:
        storages[storage.key] = storage

    def load(read: Callable[[Storage], np.ndarray | None] = collect) -> Any:
        return RestrictedUnpickler(file, read).load()

    file.seek(0)
    if load() != LEGACY_MAGIC or load() != LEGACY_PROTOCOL:
        raise Refused("it does not begin as a file of torch.save")
    if load().get("little_endian") is not True:
        raise Refused("its numbers are big-endian")
    object_start = file.tell()
    load()
    keys = load()
    position = file.tell()
    for key in keys:
        (size,) = struct.unpack("<q", data[position : position + 8].tobytes())
        if size != storages[key].size:
            raise EOFError(f"storage {key} has {size} elements")
        starts[key] = position + 8
        position += 8 + size * storages[key].dtype.itemsize
    file.seek(object_start)
    return load(lambda storage: _elements(data, starts[storage.key], storage))
