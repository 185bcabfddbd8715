"""StableHLO: the encoder and its MLM head as one program for cpu, cuda and tpu that runs without our code, with jax or another runtime.

A folder holds the program (in jax.export's container), the weights that are its first argument, config.json, the tokenizer and a README.
Weights are an argument because a program with those of a large model inside would be as large itself, and they could not be replaced. The
other inputs are a tokenizer's, by transformers' names: `program(**tokenizer(texts, padding=True, return_tensors="np"))`.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from safetensors import SafetensorError
from safetensors.numpy import load_file

from spanbert_jax.errors import InputError

PROGRAM_FILE, WEIGHTS_FILE = "program.stablehlo", "weights.safetensors"
PLATFORMS = ("cpu", "cuda", "tpu")

USE = """`program.stablehlo` is the encoder with its masked language model head, in StableHLO for cpu, cuda and tpu. The weights in
`weights.safetensors` are its first argument. Any number of texts, any length up to {positions} tokens; all in float32. It runs without
spanbert_jax:

```python
import numpy as np
from jax import export, jit
from safetensors.numpy import load_file
from tokenizers import Tokenizer

program = jit(export.deserialize(bytearray(open("THIS_FOLDER/program.stablehlo", "rb").read())).call)
weights = load_file("THIS_FOLDER/weights.safetensors")
tokenizer = Tokenizer.from_file("THIS_FOLDER/tokenizer.json")
tokenizer.enable_padding()

texts = tokenizer.encode_batch(["A text with a [MASK] in it.", "Another one."])
tokens, mask, types = (np.array([getattr(text, name) for text in texts], np.int32) for name in ("ids", "attention_mask", "type_ids"))
outputs = program(weights, tokens, mask, types)
print(outputs["last_hidden_state"].shape, outputs["logits"].shape)  # (texts, tokens, {width}) (texts, tokens, {vocabulary})
```

`spanbert_jax.interop.stablehlo.load("THIS_FOLDER")` is a shorter way. The module itself, for a runtime other than jax, is
`export.deserialize(...).mlir_module()`; its first argument is the number of the platform in the order above. jax reads programs of
jax {jax} for at least half a year after its release.
"""


def export_stablehlo(folder: Path, params: dict[str, np.ndarray], config, spec, tokenizer, card: str) -> None:
    """Writes a new folder that `load` reads.

    Args:
      params: ours, by path; the heads other than MLM's stay out.
      config: the whole config of the run.
      spec: ModelSpec of the model.
      tokenizer: spanbert_jax.data.tokenizer.Tokenizer.
      card: text of README.md.

    Raises:
      InputError: the folder exists, or cannot be written.
    """
    # here: who only loads a program does without the model's code and its libraries
    from spanbert_jax.folders import new_folder
    from spanbert_jax.interop.huggingface import write_description, write_tensors

    params = {path: array for path, array in params.items() if path.startswith(("encoder/", "mlm/"))}
    data = export_program(spec, params).serialize()
    with new_folder(folder) as temporary:
        (temporary / PROGRAM_FILE).write_bytes(data)
        write_tensors(temporary / WEIGHTS_FILE, params)
        write_description(temporary, {path: array.shape for path, array in params.items()}, config, tokenizer)
        (temporary / "README.md").write_text(card, encoding="utf-8")


def usage(shapes: dict[str, tuple[int, ...]]) -> str:
    """How to use the folder, for its README.md."""
    vocabulary, width = shapes["encoder/embeddings/word"]
    return USE.format(
        positions=shapes["encoder/embeddings/position"][0], width=width, vocabulary=vocabulary, jax=jax.__version__
    )


def export_program(spec, params: dict[str, np.ndarray]) -> export.Exported:
    """The program (params, input_ids, attention_mask, token_type_ids) -> {"last_hidden_state", "logits"}, for any batch and length.

    params {path: float32}; the inputs int32 [B, L], 1 <= L <= max_positions, mask 1 for text and 0 for padding behind it. Outputs float32
    [B, L, D] and [B, L, V], computed in float32 whatever the run's type was: what was exported is what comes back, on any platform.
    """
    from flax.traverse_util import unflatten_dict

    from spanbert_jax.model.encoder import Encoder
    from spanbert_jax.model.heads import MaskedLanguageHead
    from spanbert_jax.model.spec import unconstrained

    spec = dataclasses.replace(spec, dtype=jnp.dtype("float32"), attention="xla", remat="none", constrain=unconstrained)
    encoder, head = Encoder(spec), MaskedLanguageHead(spec)

    def program(params, input_ids, attention_mask, token_type_ids):
        tree = unflatten_dict(params, sep="/")
        of_encoder = {"params": tree["encoder"]}
        positions = jnp.broadcast_to(jnp.arange(input_ids.shape[1], dtype=jnp.int32), input_ids.shape)
        hidden = encoder.apply(of_encoder, input_ids, attention_mask, positions, token_type_ids)
        features, bias = head.apply({"params": tree["mlm"]}, hidden, positions)
        return {"last_hidden_state": hidden, "logits": encoder.apply(of_encoder, features, method="logits") + bias}

    shape = export.symbolic_shape("B, L", constraints=[f"L <= {spec.max_positions}"])
    ints = jax.ShapeDtypeStruct(shape, jnp.int32)
    shapes = {path: jax.ShapeDtypeStruct(array.shape, jnp.float32) for path, array in params.items()}
    return export.export(jax.jit(program), platforms=PLATFORMS)(shapes, ints, ints, ints)


def load(folder) -> Callable[..., dict[str, jax.Array]]:
    """The program of a folder with its weights, on this process's first device. Needs jax and safetensors, nothing else.

    Returns:
      A function of input_ids, attention_mask (none: all 1) and token_type_ids (none: all 0), any integers [B, L], that gives
      {"last_hidden_state": float32 [B, L, D], "logits": float32 [B, L, V]}. Each new shape is compiled once. Under jax.jit, an output
      that nobody uses costs nothing.

    Raises:
      InputError: there is no such folder or something in it cannot be read; from the function, for inputs of shapes that do not fit.
    """
    exported, weights = read_program(Path(folder) / PROGRAM_FILE), read_weights(Path(folder) / WEIGHTS_FILE)
    shapes = {path: aval.shape for path, aval in jax.tree.unflatten(exported.in_tree, exported.in_avals)[0][0].items()}
    if shapes != {path: array.shape for path, array in weights.items()}:
        raise InputError(f"{folder}: {WEIGHTS_FILE} is not of {PROGRAM_FILE}; export them again")
    longest = shapes["encoder/embeddings/position"][0]
    weights = jax.device_put(weights, jax.local_devices()[0])
    run = jax.jit(exported.call)

    def program(input_ids, attention_mask=None, token_type_ids=None):
        ids = jnp.asarray(input_ids, jnp.int32)
        mask = jnp.ones_like(ids) if attention_mask is None else jnp.asarray(attention_mask, jnp.int32)
        types = jnp.zeros_like(ids) if token_type_ids is None else jnp.asarray(token_type_ids, jnp.int32)
        if ids.ndim != 2 or not ids.shape == mask.shape == types.shape or not 1 <= ids.shape[1] <= longest:
            raise InputError(
                f"inputs of shapes {ids.shape}, {mask.shape}, {types.shape}: give [texts, tokens], with 1 to {longest} tokens"
            )
        return run(weights, ids, mask, types)

    return program


def read_program(path: Path) -> export.Exported:
    """The program of a file. Raises InputError when it cannot be read."""
    try:
        return export.deserialize(bytearray(path.read_bytes()))
    except OSError as error:
        raise InputError(f"{path}: cannot read it ({error.strerror or error})") from error
    except (
        Exception
    ) as error:  # the container has no check of its own: damage surfaces as whatever its parser meets first
        raise InputError(
            f"{path}: not a whole program of jax.export, or of a newer jax than {jax.__version__}; export it again"
        ) from error


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file of safetensors. Raises InputError when it cannot be read."""
    try:
        return load_file(path)
    except OSError as error:
        raise InputError(f"{path}: cannot read it ({error.strerror or error})") from error
    except SafetensorError as error:
        raise InputError(f"{path}: not a whole file of safetensors ({error})") from error
