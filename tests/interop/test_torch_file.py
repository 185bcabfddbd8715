"""Files of torch.save: real ones are read, hostile and damaged ones are refused, and no pickled code is run.

tests/goldens/torch_zip.pt and torch_legacy.pt were written by torch 2.13. Both contain the tensors of TENSORS in an
OrderedDict with _metadata. The second is in the format before torch 1.6 and like the original's training checkpoints:
the OrderedDict is "model" of a dict with "args" (argparse.Namespace), "extra_state" (with an object of the class
fairseq.meters.AverageMeter) and more.
"""

import builtins
import contextlib
import io
import pickle
import shutil
import zipfile
from collections import OrderedDict
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from spanbert_jax.errors import InputError
from spanbert_jax.interop import torch_file
from spanbert_jax.interop.torch_file import Inert, read_torch_file

GOLDENS = Path(__file__).parents[1] / "goldens"
BASE = np.arange(24, dtype=np.float32).reshape(4, 6) / 8 - 1
TENSORS = dict(
    plain=BASE,
    transposed=BASE.T,
    row=BASE[2],
    half=BASE.astype(np.float16),
    bfloat16=BASE.astype(ml_dtypes.bfloat16),
    double=BASE.astype(np.float64),
    long=np.arange(5)[None],
    empty=np.empty((0, 3), np.float32),
    scalar=np.float32(3.5),
)


def zip_file(
    path: Path, content: bytes, storages: dict[str, bytes] | None = None, compression=zipfile.ZIP_STORED
) -> Path:
    """Writes an archive in the zip format of torch.save."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", content)
        for key, data in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", data)
    return path


def legacy_file(path: Path, content: bytes) -> Path:
    """Writes a file in the older format, without storages."""
    head = (torch_file.LEGACY_MAGIC, torch_file.LEGACY_PROTOCOL, {"little_endian": True})
    path.write_bytes(b"".join(pickle.dumps(value, 2) for value in head) + content + pickle.dumps([], 2))
    return path


def tensor(offset="I0\n", shape="I2\n", strides="I1\n", size=2) -> bytes:
    """Returns a pickle, of protocol 0, of a float32 tensor on storage 0."""
    storage = f"(Vstorage\nctorch\nFloatStorage\nV0\nVcpu\nI{size}\ntQ"
    return f"ctorch._utils\n_rebuild_tensor_v2\n({storage}{offset}({shape}t({strides}tI00\nNtR.".encode()


@pytest.mark.parametrize("name", ["zip", "legacy"])
def test_real_files_are_read(name):
    tree = read_torch_file(GOLDENS / f"torch_{name}.pt")
    tensors = tree if name == "zip" else tree["model"]
    assert tensors.keys() == TENSORS.keys()
    for key, expected in TENSORS.items():
        assert tensors[key].dtype == expected.dtype and tensors[key].shape == expected.shape, key
        np.testing.assert_array_equal(tensors[key], expected)
        assert not tensors[key].flags.writeable


def test_settings_of_a_training_checkpoint_are_inert():
    tree = read_torch_file(GOLDENS / "torch_legacy.pt")
    meter = tree["extra_state"]["train_meters"]["loss"]
    assert type(tree["args"]) is type(meter) is Inert
    assert tree["args"].state == {"arch": "cased_bert_pair_large", "lr": [1e-4]}
    np.testing.assert_array_equal(tree["last_optimizer_state"]["state"][0]["exp_avg"], BASE * 2)


class Runs:
    """An object whose unpickling calls a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def dotted(module: str, name: str) -> bytes:
    """Returns a pickle of protocol 4, in which a dotted name reads attributes of what its first part names."""
    return b"\x80\x04" + b"".join(b"\x8c" + bytes([len(s)]) + s.encode() for s in (module, name)) + b"\x93."


@pytest.mark.parametrize("make", [zip_file, legacy_file], ids=["zip", "legacy"])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_would_run_code_is_refused(make, protocol, tmp_path):
    ran = tmp_path / "ran"
    for call in (
        Runs(shutil.copy, __file__, str(ran)),
        Runs(builtins.open, str(ran), "w"),
        Runs(builtins.exec, f"open({str(ran)!r}, 'w')"),
        Runs(builtins.getattr, OrderedDict, "__init__"),
    ):
        trap = make(tmp_path / "trap.bin", pickle.dumps({"model": call}, protocol))
        message = rf"trap\.bin: refused, nothing of it was run: it asks for \S+\.{call.call[0].__name__}, which"
        with pytest.raises(InputError, match=message) as caught:
            read_torch_file(trap)
        assert "\n" not in str(caught.value)
        assert not ran.exists()


@pytest.mark.parametrize(
    "module, name",
    [
        ("collections", "OrderedDict.fromkeys"),
        ("torch._utils", "_rebuild_tensor_v2.__class__"),
        ("argparse", "Namespace.__init__"),
        ("torch", "load"),
        ("torch", "FloatStorage.__init__"),
        ("spanbert_jax.interop.torch_file", "Inert"),
        ("fairseq.meters", "__builtins__"),
    ],
)
def test_names_near_the_allowed_ones_are_refused(module, name, tmp_path):
    with pytest.raises(InputError, match="refused"):
        read_torch_file(zip_file(tmp_path / "trap.bin", dotted(module, name)))


@pytest.mark.parametrize(
    "target",
    [
        b"ccollections\nOrderedDict\n",
        b"ctorch._utils\n_rebuild_tensor_v2\n",
        b"cargparse\nNamespace\n",
        b"ctorch\nFloatStorage\n",
    ],
)
@pytest.mark.parametrize("state", [b"(dVread\nI1\ns", b"(N(dVread\nI1\nst"], ids=["state", "attributes"])
def test_a_pickle_cannot_change_the_allowed_names(target, state, tmp_path):
    before = dict(vars(Inert))
    with pytest.raises(InputError, match="not a complete file"):
        read_torch_file(zip_file(tmp_path / "trap.bin", target + state + b"b."))
    assert vars(Inert) == before


@pytest.mark.parametrize(
    "wrong",
    [
        dict(offset="I1\n"),
        dict(shape="I3\n"),
        dict(shape="I3\n", strides="I0\n"),
        dict(strides="I-1\n"),
        dict(strides="I2\n"),
        dict(shape="I2\nI2\n"),
        dict(offset="I-1\n"),
        dict(shape="F2.0\n"),
        dict(shape="I1000000000000\n", strides="I0\n"),
        dict(shape="Vtwo\n"),
        dict(size=3),
        dict(size=-1),
        dict(size=1 << 40),
    ],
    ids=str,
)
def test_a_tensor_that_does_not_fit_its_storage_is_refused(wrong, tmp_path):
    storages = {"0": BASE[0, :2].tobytes()}
    good = zip_file(tmp_path / "good.bin", tensor(), storages)
    np.testing.assert_array_equal(read_torch_file(good), BASE[0, :2])
    with pytest.raises(InputError, match="a tensor|a storage|not a complete file"):
        read_torch_file(zip_file(tmp_path / "bad.bin", tensor(**wrong), storages))


def test_compressed_and_big_endian_archives_are_refused(tmp_path):
    with pytest.raises(InputError, match="compressed"):
        storages = {"0": bytes(4 << 20)}
        read_torch_file(zip_file(tmp_path / "bomb.bin", tensor(size=1 << 20), storages, zipfile.ZIP_DEFLATED))
    path = zip_file(tmp_path / "big.bin", tensor(), {"0": bytes(8)})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/byteorder", "big")
    with pytest.raises(InputError, match="big-endian"):
        read_torch_file(path)


@pytest.mark.parametrize("name", ["zip", "legacy"])
def test_a_truncated_file_is_reported_in_one_line(name, tmp_path):
    data = (GOLDENS / f"torch_{name}.pt").read_bytes()
    path = tmp_path / "truncated.bin"
    for length in [*range(0, len(data), 41), len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(InputError, match=r"truncated\.bin: ") as caught:
            read_torch_file(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["zip", "legacy"])
def test_flipped_bits_cause_no_error_other_than_inputerror(name, tmp_path):
    data, rng = bytearray((GOLDENS / f"torch_{name}.pt").read_bytes()), np.random.default_rng(0)
    path = tmp_path / "flipped.bin"
    for address in rng.integers(0, len(data), 200):
        flipped = data.copy()
        flipped[address] ^= 1 << rng.integers(8)
        path.write_bytes(flipped)
        with contextlib.suppress(InputError):
            read_torch_file(path)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "x.bin"
    with pytest.raises(InputError, match="No such file"):
        read_torch_file(path)
    path.write_bytes(pickle.dumps({"model": 1}))
    with pytest.raises(InputError, match="does not begin as a file of torch.save"):
        read_torch_file(path)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("word/document.xml", "<x/>")
    path.write_bytes(buffer.getvalue())
    with pytest.raises(InputError, match="zip archive, but not of torch.save"):
        read_torch_file(path)
