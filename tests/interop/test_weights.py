"""Weights in: every kind of file is recognised, and what does not fit is one clear line."""

import dataclasses
import gzip
import itertools
import json
import pickle
import shutil

import numpy as np
import pytest
from safetensors.numpy import save_file

from spanbert_jax.errors import InputError
from spanbert_jax.interop import names
from spanbert_jax.interop.original import export_original, state_dict_of
from spanbert_jax.interop.weights import (
    fingerprint,
    fit_vocabulary,
    load_weights,
    sizes,
    to_params,
    without_other_parts,
)
from tests.interop.models import assert_same, random_params, shapes_of, small_config, spec_of, tokenizer_of
from tests.interop.test_torch_file import GOLDENS, Runs, zip_file

CONFIG = small_config()
SHAPES = shapes_of(spec_of(CONFIG))
PARAMS = random_params(SHAPES)
THEIRS = names.to_theirs(PARAMS)
WORD = "bert.embeddings.word_embeddings.weight"


def refused(weights, *words, shapes=SHAPES):
    """to_params refuses in one line with these words in it."""
    with pytest.raises(InputError) as caught:
        to_params(weights, shapes, "there")
    message = str(caught.value)
    assert message.startswith("there: ") and "\n" not in message
    assert all(word in message for word in words), message


def torch_bytes(tensors: dict[str, np.ndarray]) -> tuple[bytes, dict[str, bytes]]:
    """The pickle and the storages of a flat dict of float32 tensors in the format of torch.save, written by hand."""
    parts, storages = [b"("], {}
    for key, (name, array) in enumerate(tensors.items()):
        numbers = [
            "".join(f"I{number}\n" for number in some)
            for some in (array.shape, np.array(array.strides) // array.itemsize)
        ]
        parts.append(
            (
                f"V{name}\nctorch._utils\n_rebuild_tensor_v2\n((Vstorage\nctorch\nFloatStorage\nV{key}\nVcpu\nI{array.size}\ntQ"
                f"I0\n({numbers[0]}t({numbers[1]}tI00\nNtR"
            ).encode()
        )
        storages[str(key)] = np.ascontiguousarray(array).tobytes()
    return b"".join(parts) + b"d.", storages


def test_a_huggingface_folder(tmp_path):
    save_file(
        {name: array for name, array in THEIRS.items() if not name.startswith("cls.pair_target_predictions")},
        tmp_path / "model.safetensors",
    )
    assert load_weights(tmp_path)[1:] == (None, None)
    save_file(
        {name: array for name, array in THEIRS.items() if name.startswith("cls.pair_target_predictions")},
        tmp_path / "sbo_head.safetensors",
    )
    (tmp_path / "config.json").write_text('{"hidden_size": 24}')
    (tmp_path / "vocab.txt").write_text("[PAD]\n")
    weights, config, vocabulary = load_weights(tmp_path)
    assert (config, vocabulary) == ({"hidden_size": 24}, tmp_path / "vocab.txt")
    params, missing = to_params(weights, SHAPES)
    assert not missing
    assert_same(params, PARAMS)
    alone = load_weights(tmp_path / "model.safetensors")  # a file is that file, with what describes it
    assert to_params(alone.weights, SHAPES)[1] == ["sbo"] and alone[1:] == (config, vocabulary)


@pytest.mark.parametrize("wrapped", [False, True], ids=["flat", "training checkpoint"])
def test_the_originals_pickles(wrapped, tmp_path):
    """`large_with_head` is the flat one (reference 7.2)."""
    content, storages = torch_bytes(names.in_original_style(THEIRS))
    if wrapped:
        content = b"(Vargs\ncargparse\nNamespace\n)R(dVarch\nVbase\nsbVmodel\n" + content[:-1] + b"d."
    path = zip_file(tmp_path / "model.pt", content, storages)
    for source in (path, tmp_path):  # a folder with the name it is released under, too
        params, missing = to_params(load_weights(source).weights, SHAPES)
        assert not missing
        assert_same(params, PARAMS)


def test_pytorch_model_bin_whatever_its_name(tmp_path):
    content, storages = torch_bytes(
        {name.removeprefix("bert."): array for name, array in THEIRS.items() if name.startswith("bert.")}
    )
    for name in ("pytorch_model.bin", "encoder.ckpt"):
        params, missing = to_params(load_weights(zip_file(tmp_path / name, content, storages)).weights, SHAPES)
        assert missing == ["mlm", "sbo"]
        assert_same(params, {path: array for path, array in PARAMS.items() if path.startswith("encoder/")})


def test_ours_in_the_originals_names_and_back(tmp_path):
    export_original(tmp_path / "out", PARAMS, CONFIG, tokenizer_of(CONFIG))
    weights, config, vocabulary = load_weights(tmp_path / "out")
    assert config["num_attention_heads"] == 4 and vocabulary == tmp_path / "out" / "vocab.txt"
    assert (
        "cls.pair_target_predictions.decoder.weight" in weights
    )  # tied, and there under both names as in the original
    params, missing = to_params(weights, SHAPES)
    assert not missing
    assert_same(params, PARAMS)
    with pytest.raises(InputError, match="something at this path"):
        export_original(tmp_path / "out", PARAMS, CONFIG, tokenizer_of(CONFIG))


def test_duplicates_buffers_and_other_heads_are_checked_and_dropped():
    extra = {
        "cls.predictions.decoder.weight": THEIRS[WORD],
        "cls.predictions.decoder.bias": THEIRS["cls.predictions.bias"],
        "cls.pair_target_predictions.decoder.weight": THEIRS[WORD],
        "bert.embeddings.position_ids": np.arange(64)[None],
        "bert.embeddings.token_type_ids": np.zeros((1, 64), np.int64),
        "bert.pooler.dense.weight": np.zeros((24, 24), np.float32),
        "bert.pooler.dense.bias": np.zeros(24, np.float32),
        "cls.seq_relationship.weight": np.zeros((2, 24), np.float32),
        "cls.seq_relationship.bias": np.zeros(2, np.float32),
    }
    params, missing = to_params(THEIRS | extra, SHAPES)
    assert not missing
    assert_same(params, PARAMS)
    for name in (
        "cls.predictions.decoder.weight",
        "cls.predictions.decoder.bias",
        "cls.pair_target_predictions.decoder.weight",
    ):
        refused(THEIRS | extra | {name: extra[name] + 1}, name, "must be tied")
    refused(THEIRS | {"bert.embeddings.position_ids": np.arange(64)[None] + 2}, "bert.embeddings.position_ids")


def test_a_bias_under_its_tied_name_only():
    renamed = dict(THEIRS)
    renamed["cls.predictions.decoder.bias"] = renamed.pop("cls.predictions.bias")
    assert_same(to_params(renamed, SHAPES)[0], PARAMS)


def test_heads_that_the_model_has_not_are_dropped():
    encoder = {path: shape for path, shape in SHAPES.items() if path.startswith("encoder/")}
    params, missing = to_params(THEIRS, encoder)
    assert not missing
    assert_same(params, {path: PARAMS[path] for path in encoder})


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod.model.", "net.inner.", "module.decoder."]
)
def test_models_inside_others(prefix):
    theirs = {f"{prefix}{name}": array for name, array in THEIRS.items()}
    assert_same(to_params(names.normalised(theirs), SHAPES)[0], PARAMS)


@pytest.mark.parametrize("prefix", ["model.", "module.encoder.", "bert._orig_mod."])
def test_encoders_inside_others(prefix):
    theirs = {name.replace("bert.", prefix): array for name, array in THEIRS.items() if name.startswith("bert.")}
    assert to_params(names.normalised(theirs), SHAPES)[1] == ["mlm", "sbo"]


@pytest.mark.parametrize("model", ["roberta", "distilbert", "electra"])
def test_other_models_are_not_taken_for_berts(model):
    theirs = {name.replace("bert.", f"{model}."): array for name, array in THEIRS.items()}
    weights, others = without_other_parts(names.normalised(theirs))
    assert not others
    refused(weights, f"{model}.")


def test_parts_of_other_tasks_are_named_and_left_out():
    extra = {
        name: np.zeros(2, np.float32) for name in ("classifier.weight", "classifier.bias", "qa.out.weight", "scale")
    }
    kept, others = without_other_parts(THEIRS | extra | {"cls.predictions.decoder.weight": THEIRS[WORD]})
    assert others == ["classifier", "qa.out", "scale"]
    assert_same(to_params(kept, SHAPES)[0], PARAMS)
    refused(without_other_parts(THEIRS | {"bert.more": extra["scale"]})[0], "bert.more belongs to no parameter")


def table_of(rows: int) -> dict[str, np.ndarray]:
    """A vocabulary table whose row i is i, with its bias and copies of both."""
    numbers = np.arange(rows, dtype=np.float32)
    table, bias = np.repeat(numbers[:, None], 2, 1), numbers
    decoder = {"cls.predictions.decoder.weight": table, "cls.predictions.decoder.bias": bias}
    return {WORD: table, "cls.predictions.bias": bias} | decoder


def ones(*shape):
    return np.ones(shape, np.float32)


TOKENS = [str(number) for number in range(29_000)]
CASED = TOKENS[:28_996]


@pytest.mark.parametrize(
    "rows, theirs, ours, kept, notes",
    [
        (28_996, CASED, CASED, 28_996, []),
        (29_056, CASED, CASED, 28_996, ["of the 29,056 rows of its vocabulary table, 60 behind the first 28,996"]),
        (29_056, None, CASED, 28_996, ["60 behind the first 28,996"]),
        (29_000, TOKENS, CASED, 28_996, ["4 behind the first 28,996 are left out"]),
        (28_996, CASED, TOKENS, 28_996, ["tokens that it lacks, which start from scratch: 4"]),
        (29_056, CASED, TOKENS, 28_996, ["60 behind the first 28,996", "start from scratch: 4"]),
        (28_996, TOKENS, TOKENS, 28_996, ["start from scratch: 4"]),  # added without resizing the model
    ],
)
def test_the_vocabulary_table_is_fitted(rows, theirs, ours, kept, notes):
    fitted, said = fit_vocabulary(table_of(rows), theirs, ours, ones)
    assert len(said) == len(notes) and all(note in line for note, line in zip(notes, said))
    new = len(ours) - kept
    for name, array in fitted.items():
        assert len(array) == len(ours) and array.dtype == np.float32
        np.testing.assert_array_equal(array[:kept], table_of(kept)[name])
        np.testing.assert_array_equal(array[kept:], ones(new, 2) if array.ndim == 2 else np.zeros(new))


def test_a_table_of_an_unknown_vocabulary_is_not_cut_to_another_ones_size():
    weights = THEIRS | {WORD: np.zeros((30_522, 24), np.float32)}
    fitted, notes = fit_vocabulary(weights, None, TOKENS[:4096], ones)
    assert notes == []
    refused(fitted, "the vocabulary (data.vocab) is 30522 there, 4096 in this model")


def test_a_lightning_checkpoint(tmp_path):
    flat, storages = torch_bytes({f"model.{name}": array for name, array in THEIRS.items()})
    settings = "cpytorch_lightning.utilities.parsing\nAttributeDict\n)R(Vlr\nF1.0\nu"
    scalar = "cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(Vf8\nI00\nI01\ntRc_codecs\nencode\n(Vx\nVlatin1\ntRtR"
    content = f"(Vepoch\nI3\nVhyper_parameters\n{settings}Vbest\n{scalar}Vstate_dict\n".encode() + flat[:-1] + b"d."
    path = zip_file(tmp_path / "last.ckpt", content, storages)
    assert_same(to_params(load_weights(path).weights, SHAPES)[0], PARAMS)


def test_unexpected_tensors_are_named():
    refused(THEIRS | {"classifier.weight": np.zeros((2, 24), np.float32)}, "classifier.weight belongs to no parameter")
    refused(THEIRS | {"bert.encoder.relative_bias": np.zeros(3, np.float32)}, "bert.encoder.relative_bias")
    refused({"model.embed.weight": np.zeros((3, 3), np.float32)}, "model.embed.weight")
    many = {f"roberta.encoder.layer.{number}.x": np.zeros(1, np.float32) for number in range(9)}
    refused(THEIRS | many, "roberta.encoder.layer.0.x", "and 5 more")


def test_missing_tensors_are_named():
    for name, words in {
        "bert.encoder.layer.1.output.dense.bias": ("bert.encoder.layer.1.output.dense.bias is missing",),
        "bert.embeddings.LayerNorm.weight": ("encoder/embeddings/norm/scale",),
        "cls.predictions.transform.dense.weight": ("mlm/transform/kernel",),
    }.items():
        refused({key: array for key, array in THEIRS.items() if key != name}, *words)
    refused({name: array for name, array in THEIRS.items() if name.startswith("cls.")}, "encoder/")


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(vocab_size=5000), ["the vocabulary (data.vocab) is 4096 there, 5000 in this model"]),
        (dict(layers=2), ["model.layers is 3 there, 2 in this model"]),
        (dict(layers=4), ["model.layers is 3 there, 4 in this model"]),
        (dict(width=32), ["model.width is 24 there, 32"]),
        (dict(mlp_width=64), ["model.mlp_width is 40 there, 64"]),
        (dict(max_positions=128), ["model.max_positions is 64 there, 128"]),
        (
            dict(max_targets=7, sbo_position_width=11),
            ["masking.max_targets is 5 there, 7", "model.sbo_position_width is 10 there, 11"],
        ),
    ],
    ids=str,
)
def test_other_sizes_are_told_in_the_words_of_the_config(change, words):
    refused(THEIRS, *words, shapes=shapes_of(dataclasses.replace(spec_of(CONFIG), **change)))


def test_wrong_shapes_and_types():
    refused(
        THEIRS | {"cls.predictions.bias": np.zeros(7, np.float32)},
        "cls.predictions.bias has shape (7,), the model needs (4096,)",
    )
    refused(THEIRS | {WORD: np.zeros(4096, np.float32)}, f"{WORD} has shape (4096,)")
    refused(THEIRS | {"cls.predictions.bias": np.zeros(4096, np.int8)}, "cls.predictions.bias holds int8")


def test_files_that_are_refused(tmp_path):
    def fails(words: str, path=tmp_path / "x"):
        with pytest.raises(InputError, match=words) as caught:
            load_weights(path)
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)

    fails("No such file")
    fails("no weights there; a folder of them holds", tmp_path)
    save_file(THEIRS, tmp_path / "x")
    data = (tmp_path / "x").read_bytes()
    for length in (0, 1, 7, 8, 100, len(data) // 2, len(data) - 1):
        (tmp_path / "x").write_bytes(data[:length])
        fails("not a whole file of safetensors" if length > 8 else "not a whole file")
    (tmp_path / "x").write_bytes(gzip.compress(data[:100]))
    fails("unpack it first")
    ran = tmp_path / "ran"
    zip_file(tmp_path / "x", pickle.dumps({"model": Runs(shutil.copy, __file__, str(ran))}))
    fails(
        r"refused, nothing of it was run: .* if you trust the file, .*torch.load\(\"x\", \"cpu\", weights_only=False\)"
    )
    assert not ran.exists()
    zip_file(tmp_path / "x", pickle.dumps({"model": {"a": 1, "b": "text"}}))
    fails("a, b are no tensors")
    zip_file(tmp_path / "x", pickle.dumps([1]))
    fails("no dict of tensors")


def test_a_config_that_is_no_json(tmp_path):
    save_file(THEIRS, tmp_path / "model.safetensors")
    for text in ("{", "[]", "\xff"):
        (tmp_path / "config.json").write_text(text, encoding="latin-1")
        with pytest.raises(InputError, match="config.json: "):
            load_weights(tmp_path)


def write_shards(folder, kind: str) -> dict[str, str]:
    """The weights in three files and their index; gives the index."""
    folder.mkdir()
    parts = [dict(itertools.islice(THEIRS.items(), number, None, 3)) for number in range(3)]
    places = {}
    for number, part in enumerate(parts, start=1):
        name = f"{'model' if kind == 'safetensors' else 'pytorch_model'}-{number:05}-of-00003.{kind}"
        if kind == "safetensors":
            save_file(part, folder / name)
        else:
            zip_file(folder / name, *torch_bytes(part))
        places |= dict.fromkeys(part, name)
    return places


def write_index(folder, places, name="model.safetensors.index.json"):
    (folder / name).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    return folder / name


@pytest.mark.parametrize(
    "kind, index", [("safetensors", "model.safetensors.index.json"), ("bin", "pytorch_model.bin.index.json")]
)
def test_weights_in_several_files(kind, index, tmp_path):
    path = write_index(tmp_path / "in", write_shards(tmp_path / "in", kind), index)
    for source in (path.parent, path):
        params, missing = to_params(load_weights(source).weights, SHAPES)
        assert not missing
        assert_same(params, PARAMS)


def test_an_index_that_is_refused(tmp_path):
    folder = tmp_path / "in"
    places = write_shards(folder, "safetensors")

    def fails(places, *words):
        write_index(folder, places)
        with pytest.raises(InputError) as caught:
            load_weights(folder)
        assert "\n" not in str(caught.value) and all(word in str(caught.value) for word in (str(folder), *words)), str(
            caught.value
        )

    some, other = next(iter(places)), "model-00002-of-00003.safetensors"
    shutil.copy(folder / other, tmp_path / "outside.safetensors")
    for path in ("../outside.safetensors", str(tmp_path / "outside.safetensors"), "..", "", "in/../x", "..\\x", "x\0y"):
        fails(places | {some: path}, "index.json", "it may only name files beside it")
    fails(places | {some: other}, "is not the file that model.safetensors.index.json was made for", some)
    fails(places | {"bert.more": other}, other, "it lacks bert.more")
    fails({name: place for name, place in places.items() if name != some}, places[some], f"it holds {some}")
    for wrong in ({}, [], "x", None, {some: 3}, {some: None}):
        fails(wrong, "no index of weights")
    (folder / other).unlink()
    fails(places, f"{other}: cannot read it (No such file")
    save_file({}, folder / other)
    (folder / other).write_bytes((folder / other).read_bytes()[:-1])
    fails(places, f"{other}: not a whole file of safetensors")
    (folder / "model.safetensors.index.json").write_text("{")
    with pytest.raises(InputError, match="cannot read it as JSON"):
        load_weights(folder)


def test_a_tensor_in_two_files(tmp_path):
    for name in ("model.safetensors", "sbo_head.safetensors"):
        save_file({"cls.pair_target_predictions.bias": np.zeros(4, np.float32)}, tmp_path / name)
    with pytest.raises(InputError, match="cls.pair_target_predictions.bias is in model.safetensors too"):
        load_weights(tmp_path)


def test_one_tensor_under_two_names_of_a_file(tmp_path):
    save_file(
        {"embeddings.LayerNorm.gamma": np.zeros(4), "bert.embeddings.LayerNorm.weight": np.ones(4)}, tmp_path / "x"
    )
    with pytest.raises(InputError, match="1 tensors twice"):
        load_weights(tmp_path / "x")


def test_a_real_training_checkpoint_gives_its_model():
    assert set(load_weights(GOLDENS / "torch_legacy.pt").weights) == set(load_weights(GOLDENS / "torch_zip.pt").weights)
    with pytest.raises(InputError, match="no dict of tensors"):
        state_dict_of({}, "x")


def test_sizes_of_weights():
    assert sizes(names.their_shapes(SHAPES)) == {
        "the vocabulary (data.vocab)": 4096,
        "model.width": 24,
        "model.max_positions": 64,
        "model.mlp_width": 40,
        "masking.max_targets": 5,
        "model.sbo_position_width": 10,
        "model.layers": 3,
    }
    assert sizes({}) == {}


def test_fingerprint_is_of_content_and_place():
    print_of = fingerprint(PARAMS)
    assert fingerprint(dict(reversed(PARAMS.items()))) == print_of
    assert fingerprint({path: np.asfortranarray(array) for path, array in PARAMS.items()}) == print_of
    assert fingerprint(PARAMS | {"mlm/bias": np.nextafter(PARAMS["mlm/bias"], 9)}) != print_of
    assert fingerprint(PARAMS | {"mlm/bias": PARAMS["sbo/bias"], "sbo/bias": PARAMS["mlm/bias"]}) != print_of


def test_json_of_an_export_has_no_surprises(tmp_path):
    export_original(tmp_path / "out", PARAMS, CONFIG, tokenizer_of(CONFIG))
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["num_hidden_layers"], config["hidden_size"], config["intermediate_size"], config["vocab_size"]) == (
        3,
        24,
        40,
        4096,
    )
