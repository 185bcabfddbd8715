"""The exported program: equal to the model for any batch and length, in one file for three platforms, and runs without
our code.
"""

import json
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from tokenizers import Tokenizer as HFTokenizer

from spanbert_jax.errors import InputError
from spanbert_jax.interop.stablehlo import PROGRAM_FILE, WEIGHTS_FILE, export_stablehlo, load, usage
from spanbert_jax.model.encoder import FIELDS, Encoder
from spanbert_jax.model.layout import ONE_DEVICE
from spanbert_jax.objectives import MLM, pretraining
from tests.interop.models import random_params, shapes_of, small_config, spec_of, tokenizer_of

CONFIG = small_config()
SPEC, TOKENIZER = spec_of(CONFIG), tokenizer_of(CONFIG)
PARAMS = random_params(shapes_of(SPEC))
TREE = unflatten_dict(PARAMS, sep="/")
# A process that has only jax and safetensors of what we need, the loader's module aside.
ALONE = """
import sys
for name in ("flax", "tensorflow", "tokenizers", "orbax", "spanbert_jax.model", "spanbert_jax.data"):
    sys.modules[name] = None
import numpy as np
from spanbert_jax.interop.stablehlo import load
program = load(sys.argv[1])
for path in sys.argv[2:]:
    np.savez(path + ".out", **program(**np.load(path)))
"""
# The code of the card, in a process that cannot even import us.
CARD = "import sys\nsys.modules['spanbert_jax'] = None\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "hlo"
    assert export_stablehlo(folder, PARAMS, CONFIG, SPEC, TOKENIZER, usage(SPEC, CONFIG.seq_len)) == ["sbo"]
    return folder


def inputs(batch: int, length: int) -> dict[str, np.ndarray]:
    """Random rows, each with some padding behind its text but the first."""
    draw = np.random.default_rng(batch * 100 + length)
    used = np.array([length, *draw.integers(1, length + 1, batch - 1)])
    mask = (np.arange(length) < used[:, None]).astype(np.int64)
    return dict(
        input_ids=draw.integers(0, TOKENIZER.vocab_size, (batch, length)),
        attention_mask=mask,
        token_type_ids=draw.integers(0, 2, (batch, length)),
    )


def expected(rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the model itself says: hidden states of the encoder, MLM logits of the pretraining model with a slot at
    every position.
    """
    positions = np.tile(np.arange(rows["input_ids"].shape[1]), (len(rows["input_ids"]), 1))
    batch = dict(
        tokens=rows["input_ids"],
        segments=rows["attention_mask"],
        positions=positions,
        token_types=rows["token_type_ids"],
        mlm_positions=positions,
    )
    fields = (batch[name] for name in FIELDS)
    hidden = jax.jit(Encoder(SPEC, ONE_DEVICE).apply)({"params": TREE["encoder"]}, *fields)
    apply = jax.jit(pretraining.apply, static_argnums=(0, 1, 2))
    logits = apply(SPEC, ONE_DEVICE, (MLM,), TREE, batch)["mlm"]
    return {"last_hidden_state": np.asarray(hidden), "logits": np.asarray(logits)}


def assert_close(outputs, rows):
    wanted = expected(rows)
    assert outputs.keys() == wanted.keys()
    for name, array in wanted.items():
        assert outputs[name].dtype == np.float32 and np.abs(array).max() > 1
        np.testing.assert_allclose(outputs[name], array, atol=1e-6, rtol=1e-6)


def test_another_process_without_our_model_gives_the_same(folder, tmp_path):
    batches = {
        str(tmp_path / f"{batch}x{length}.npz"): inputs(batch, length) for batch, length in ((1, 7), (3, 64), (2, 1))
    }
    for path, rows in batches.items():
        np.savez(path, **rows)
    subprocess.run([sys.executable, "-c", ALONE, folder, *batches], check=True)
    for path, rows in batches.items():
        with np.load(f"{path}.out.npz") as outputs:
            assert_close(dict(outputs), rows)


def test_the_cards_code_runs_as_it_stands(folder):
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.S)
    code = CARD + code.replace("THIS_FOLDER", str(folder))
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    tokens = max(len(ids) for ids in TOKENIZER.encode(["A text with a ? in it.", "Another one."])) + 2
    assert out == f"(2, {tokens}, 24) (2, {tokens}, 4096)\n"


def test_left_out_inputs_are_one_segment_of_text(folder):
    rows = inputs(1, 9) | {"token_type_ids": np.zeros((1, 9), np.int64)}
    assert_close(load(folder)(rows["input_ids"].tolist()), rows)


def test_one_file_is_for_three_platforms(folder):
    program = jax.export.deserialize(bytearray((folder / PROGRAM_FILE).read_bytes()))
    assert program.platforms == ("cpu", "cuda", "tpu") and program.nr_devices == 1
    rows = [np.zeros((2, 5), np.int32)] * 3
    weights = {path: array for path, array in PARAMS.items() if not path.startswith("sbo/")}
    traced = jax.jit(program.call).trace(weights, *rows)
    for platform in program.platforms:
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        products = [line for line in text.splitlines() if "dot_general" in line]
        assert products and all("precision = [HIGHEST, HIGHEST]" in line for line in products)
    with pytest.raises(ValueError, match="rocm"):
        traced.lower(lowering_platforms=("rocm",))


def test_what_is_in_it(folder):
    assert {path.name for path in folder.iterdir()} == {
        "README.md",
        "config.json",
        "program.stablehlo",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
        "weights.safetensors",
    }
    assert (folder / PROGRAM_FILE).stat().st_size < 200_000  # the weights are not in it
    assert json.loads((folder / "config.json").read_text())["max_position_embeddings"] == 64
    theirs = HFTokenizer.from_file(str(folder / "tokenizer.json"))
    assert theirs.encode("[MASK]").ids == [TOKENIZER.cls_id, TOKENIZER.mask_id, TOKENIZER.sep_id]


def test_an_output_that_nobody_uses_costs_nothing(folder):
    program, ids = load(folder), np.zeros((2, 16), np.int32)
    flops = [
        jax.jit(function).lower(ids).compile().cost_analysis()["flops"]
        for function in (program, lambda ids: program(ids)["last_hidden_state"])
    ]
    assert flops[1] < flops[0] / 4


def test_inputs_that_do_not_fit_are_told(folder):
    program = load(folder)
    ids = np.zeros((2, 65), np.int32)
    for arguments in [(ids,), (ids[:, :0],), (ids[0],), (ids[:, :5], ids[:, :4]), (ids[:, :5], None, ids[:1, :5])]:
        with pytest.raises(InputError, match="with 1 to 64 tokens"):
            program(*arguments)


def test_folders_that_are_refused(folder, tmp_path):
    def fails(words):
        with pytest.raises(InputError, match=words) as caught:
            load(tmp_path)
        assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)

    fails("program.stablehlo: cannot read it .No such file")
    data = (folder / PROGRAM_FILE).read_bytes()
    for damaged in (b"", b"no program", data[:100], data[: len(data) // 2]):
        (tmp_path / PROGRAM_FILE).write_bytes(damaged)
        fails("program.stablehlo: not a whole program")
    (tmp_path / PROGRAM_FILE).write_bytes(data)
    fails("weights.safetensors: cannot read it .No such file")
    weights = (folder / WEIGHTS_FILE).read_bytes()
    (tmp_path / WEIGHTS_FILE).write_bytes(weights[:-1])
    fails("weights.safetensors: not a whole file")
    (tmp_path / WEIGHTS_FILE).write_bytes(
        weights.replace(b'"encoder/embeddings/word"', b'"encoder/embeddings/sword"'[:25])
    )
    fails("weights.safetensors is not of program.stablehlo|not a whole file")


def test_a_taken_or_full_folder_is_left_as_it_was(folder, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="something at this path already"):
        export_stablehlo(folder, PARAMS, CONFIG, SPEC, TOKENIZER, "other")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(TOKENIZER), "save", full)
    with pytest.raises(InputError, match="cannot write it .No space left on device"):
        export_stablehlo(tmp_path / "a" / "hlo", PARAMS, CONFIG, SPEC, TOKENIZER, "")
    assert not any(tmp_path.iterdir())
