"""Weights that Flax, Keras and TensorFlow wrote for BERT, in the layouts of transformers and of Google's BERT."""

import json

import numpy as np
import pytest
from flax.serialization import msgpack_serialize
from flax.traverse_util import unflatten_dict

from spanbert_jax.errors import InputError
from spanbert_jax.interop.weights import load_weights, to_params
from tests.interop.models import assert_same
from tests.interop.test_weights import PARAMS, SHAPES, THEIRS

BERT = {name: array for name, array in THEIRS.items() if not name.startswith("cls.pair_target_predictions.")}
NEXT = {
    "cls.seq_relationship.weight": np.ones((2, 24), np.float32),
    "cls.seq_relationship.bias": np.ones(2, np.float32),
}
EXPECTED = {path: array for path, array in PARAMS.items() if not path.startswith("sbo/")}


def parts(name: str, array: np.ndarray, norm: tuple[str, str], table: str) -> tuple[list[str], np.ndarray]:
    """The parts of a name, and the array as other frameworks lay it out."""
    *module, leaf = name.split(".")
    if "LayerNorm" in module:
        return [*module, norm[leaf == "bias"]], array
    if leaf == "weight" and "embeddings" in module[-1]:
        return [*module, table], array
    return ([*module, "kernel"], array.T) if leaf == "weight" else ([*module, leaf], array)


def check(path, folder):
    for source in (path, folder):
        weights = load_weights(source).weights
        params, missing = to_params(weights, SHAPES)
        assert missing == ["sbo"]
        assert_same(params, EXPECTED)


def test_flax(tmp_path):
    tree = unflatten_dict(
        {tuple(at): array for at, array in (parts(*item, ("scale", "bias"), "embedding") for item in BERT.items())}
    )
    path = tmp_path / "flax_model.msgpack"
    path.write_bytes(msgpack_serialize(tree))
    check(path, tmp_path)
    encoder = tmp_path / "encoder.msgpack"
    encoder.write_bytes(msgpack_serialize({"params": tree["bert"]}))  # a FlaxBertModel
    assert to_params(load_weights(encoder).weights, SHAPES)[1] == ["mlm", "sbo"]
    for data in (path.read_bytes()[:-9], b"", msgpack_serialize([1])):
        encoder.write_bytes(data)
        with pytest.raises(InputError, match="not a complete file of Flax"):
            load_weights(encoder)


def test_keras(tmp_path):
    h5py = pytest.importorskip("h5py", reason="writes HDF5")
    path = tmp_path / "tf_model.h5"
    flat = {}
    for name, array in (BERT | NEXT).items():
        at, value = parts(name, array, ("gamma", "beta"), "weight" if "word_embeddings" in name else "embeddings")
        inner = (
            "/".join(at)
            .replace("/layer/", "/layer_._")
            .replace("cls/seq", "nsp___cls/seq")
            .replace("cls/pre", "mlm___cls/pre")
        )
        flat[f"tf_bert_for_pre_training/{inner}:0"] = value
    with h5py.File(path, "w") as file:
        layers = ("bert", "mlm___cls", "nsp___cls")
        file.attrs["layer_names"] = [layer.encode() for layer in layers]
        for layer in layers:
            group = file.create_group(layer)
            own = {name: array for name, array in flat.items() if name.split("/")[1] == layer}
            group.attrs["weight_names"] = [name.encode() for name in own]
            for name, array in own.items():
                group.create_dataset(name, data=array)
    np.testing.assert_array_equal(
        load_weights(path).weights["cls.seq_relationship.weight"], NEXT["cls.seq_relationship.weight"]
    )
    check(path, tmp_path)
    for data in (path.read_bytes()[:-4000], path.read_bytes()[:8]):
        path.write_bytes(data)
        with pytest.raises(InputError, match="not a whole tf_model.h5"):
            load_weights(path)


def google_name(name: str, array: np.ndarray) -> tuple[str, np.ndarray]:
    heads = {
        "cls.predictions.bias": "cls/predictions/output_bias",
        "cls.seq_relationship.bias": "cls/seq_relationship/output_bias",
    }
    heads |= {"cls.seq_relationship.weight": "cls/seq_relationship/output_weights"}
    if name in heads:
        return heads[name], array
    at, value = parts(name, array, ("gamma", "beta"), "")
    return "/".join(filter(None, at)).replace("/layer/", "/layer_"), value


def save_checkpoint(path, tensors):
    import tensorflow as tf

    tf.raw_ops.SaveV2(
        prefix=str(path),
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=list(tensors.values()),
    )


def test_googles_checkpoint(tmp_path):
    path = tmp_path / "bert_model.ckpt"
    tensors = dict(google_name(*item) for item in (BERT | NEXT).items())
    assert tensors.keys() >= {"bert/embeddings/word_embeddings", "bert/encoder/layer_2/output/LayerNorm/gamma"}
    moments = {f"{name}/adam_{moment}": array for name, array in tensors.items() for moment in "mv"}
    save_checkpoint(path, tensors | moments | {"global_step": np.int64(3)})
    (tmp_path / "bert_config.json").write_text(json.dumps({"hidden_size": 24}))
    check(path, tmp_path)
    loaded = load_weights(tmp_path / "bert_model.ckpt.index")
    assert loaded.config == {"hidden_size": 24} and loaded.weights.keys() == (BERT | NEXT).keys()
    np.testing.assert_array_equal(loaded.weights["cls.seq_relationship.weight"], NEXT["cls.seq_relationship.weight"])
    next(tmp_path.glob("*.data-*")).unlink()
    with pytest.raises(InputError, match="not a whole checkpoint of TensorFlow"):
        load_weights(path)
    save_checkpoint(tmp_path / "other", {"model/layer/kernel/.ATTRIBUTES/VARIABLE_VALUE": np.ones(1)})
    with pytest.raises(InputError, match="a checkpoint of TensorFlow objects"):
        load_weights(tmp_path / "other")
