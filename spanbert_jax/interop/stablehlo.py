"""StableHLO: the encoder and a head as one program for cpu, cuda and tpu that runs without this package.

A folder contains the program (in jax.export's container), the weights that are its first argument, config.json, the
tokenizer and a README. Weights are an argument so that the program stays small and the weights can be replaced. The
other inputs are those that a tokenizer makes, by transformers' names:
`program(**tokenizer(texts, padding=True, return_tensors="np"))`.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from safetensors import SafetensorError
from safetensors.numpy import load_file

from spanbert_jax.errors import InputError

PROGRAM_FILE, WEIGHTS_FILE = "program.stablehlo", "weights.safetensors"
PLATFORMS = ("cpu", "cuda", "tpu")

USE = """`program.stablehlo` is the encoder with {head}, in StableHLO for cpu, cuda and tpu. The weights in
`weights.safetensors` are its first argument. It accepts any number of texts of any length up to {positions}
tokens{trained}, computes in float32, and runs without spanbert_jax:

```python
import numpy as np
from jax import export, jit
from safetensors.numpy import load_file
from tokenizers import Tokenizer

program = jit(export.deserialize(bytearray(open("THIS_FOLDER/program.stablehlo", "rb").read())).call)
weights = load_file("THIS_FOLDER/weights.safetensors")
tokenizer = Tokenizer.from_file("THIS_FOLDER/tokenizer.json")
tokenizer.enable_padding()

texts = tokenizer.encode_batch([{texts}])
fields = ("ids", "attention_mask", "type_ids")
tokens, mask, types = (np.array([getattr(text, name) for text in texts], np.int32) for name in fields)
outputs = program(weights, tokens, mask, types)
{outputs}
```

`spanbert_jax.interop.stablehlo.load("THIS_FOLDER")` is a shorter way. The module itself, for a runtime other than jax,
is `export.deserialize(...).mlir_module()`; its first argument is the number of the platform in the order above. jax
reads programs of jax {jax} for at least half a year after its release.
"""


Apply = Callable[[Any, dict[str, jax.Array]], dict[str, jax.Array]]


def export_stablehlo(folder: Path, params: dict[str, np.ndarray], config, spec, tokenizer, card: str) -> list[str]:
    """Writes a new folder that `load` reads: the encoder and its MLM head.

    Args:
      folder: to make.
      params: ours, by path.
      config: the whole config of the run.
      spec: ModelSpec of the model.
      tokenizer: spanbert_jax.data.tokenizer.Tokenizer.
      card: text of README.md.

    Returns:
      The names of the heads that are left out: all but the MLM head.

    Raises:
      InputError: the folder exists, or cannot be written.
    """
    # Imported here so that loading a program needs neither the model's code nor its libraries.
    from spanbert_jax.model.encoder import FIELDS, Encoder
    from spanbert_jax.model.layout import ONE_DEVICE
    from spanbert_jax.objectives.mlm import MLM

    exported = {path: array for path, array in params.items() if path.startswith(("encoder/", f"{MLM.name}/"))}
    spec = portable(spec)
    encoder, head = Encoder(spec, ONE_DEVICE), MLM.head(spec, ONE_DEVICE)

    def masked_model(tree, batch):
        variables = {"params": tree["encoder"]}
        hidden = encoder.apply(variables, **{name: batch[name] for name in FIELDS})
        states = SimpleNamespace(last=hidden)
        output = head.apply({"params": tree[MLM.name]}, states, {"mlm_positions": batch["positions"]})
        features, bias = cast(tuple[jax.Array, jax.Array], output)  # TokenFeatures
        logits = cast(jax.Array, encoder.apply(variables, features, method="logits"))
        return {"last_hidden_state": hidden, "logits": logits + bias}

    write_program(folder, export_program(spec, exported, masked_model), exported, config, tokenizer, card)
    return sorted({path.split("/")[0] for path in params.keys() - exported.keys()})


def write_program(
    folder: Path, program: export.Exported, params: dict[str, np.ndarray], config, tokenizer, card: str, **settings
) -> None:
    """Writes a new folder that `load` reads, of a program with its parameters; `settings` are added to config.json.

    Raises:
      InputError: the folder exists, or cannot be written.
    """
    from spanbert_jax.folders import atomic_folder
    from spanbert_jax.interop.huggingface import write_description, write_tensors

    with atomic_folder(folder) as temporary:
        (temporary / PROGRAM_FILE).write_bytes(program.serialize())
        write_tensors(temporary / WEIGHTS_FILE, params)
        shapes = {path: array.shape for path, array in params.items()}
        write_description(temporary, shapes, config, tokenizer, settings)
        (temporary / "README.md").write_text(card, encoding="utf-8")


def usage(spec, seq_len: int, head: str = "", outputs: str = "", pair: bool = False) -> str:
    """Returns the usage section of the README.md of a model that was trained on rows of `seq_len` tokens.

    Args:
      spec: of the model.
      seq_len: see above.
      head: what the model has besides the encoder; "": the MLM head.
      outputs: lines of code that use the outputs.
      pair: whether the model takes pairs of texts.
    """
    trained = f" (positions beyond {seq_len} are untrained)" if seq_len < spec.max_positions else ""
    texts = '("A text.", "Its pair."), ("Another one.", "And its.")' if pair else '"A text.", "Another one."'
    if not head:
        head, texts = "its masked language model head", '"A text with a [MASK] in it.", "Another one."'
        outputs = (
            f"# (texts, tokens, {spec.width}) (texts, tokens, {spec.vocab_size})\n"
            'print(outputs["last_hidden_state"].shape, outputs["logits"].shape)'
        )
    return USE.format(
        head=head, texts=texts, outputs=outputs, positions=spec.max_positions, trained=trained, jax=jax.__version__
    )


def portable(spec):
    """Returns the ModelSpec of a program that computes in float32 on any platform, whatever the run did."""
    return dataclasses.replace(spec, dtype=jnp.dtype("float32"), attention="xla", remat="none")


def export_program(spec, params: dict[str, np.ndarray], apply: Apply) -> export.Exported:
    """Returns the program (params, input_ids, attention_mask, token_type_ids) -> outputs.

    It accepts any batch and length. Inputs are int32 [B, L], 1 <= L <= max_positions, mask 1 for text and 0 for the
    padding behind it.

    Args:
      spec: as `portable` returns it.
      params: {path: float32}.
      apply: (tree of parameters, the encoder's arrays by name) -> outputs by name.
    """
    from flax.traverse_util import unflatten_dict

    @spec.exact_products()
    def program(params, input_ids, attention_mask, token_type_ids):
        positions = jnp.broadcast_to(jnp.arange(input_ids.shape[1], dtype=jnp.int32), input_ids.shape)
        batch = dict(tokens=input_ids, segments=attention_mask, positions=positions, token_types=token_type_ids)
        return apply(unflatten_dict(params, sep="/"), batch)

    shape = export.symbolic_shape("B, L", constraints=[f"L <= {spec.max_positions}"])
    ints = jax.ShapeDtypeStruct(shape, jnp.int32)
    shapes = {path: jax.ShapeDtypeStruct(array.shape, jnp.float32) for path, array in params.items()}
    return export.export(jax.jit(program), platforms=PLATFORMS)(shapes, ints, ints, ints)


def load(folder) -> Callable[..., dict[str, jax.Array]]:
    """Loads the program of a folder with its weights onto this process's first device. Needs only jax and safetensors.

    Returns:
      A function of input_ids, attention_mask (None: all 1) and token_type_ids (None: all 0), any integers [B, L], that
      returns the outputs: of a pretrained model {"last_hidden_state": float32 [B, L, D], "logits": float32 [B, L, V]},
      of a fine-tuned one {"logits": as its README says}. Each new shape is compiled once.
      Under jax.jit, an output that is not used costs nothing.

    Raises:
      InputError: the folder does not exist or cannot be read. The function raises it for inputs of other shapes.
    """
    exported, weights = read_program(Path(folder) / PROGRAM_FILE), read_weights(Path(folder) / WEIGHTS_FILE)
    shapes = {path: aval.shape for path, aval in jax.tree.unflatten(exported.in_tree, exported.in_avals)[0][0].items()}
    if shapes != {path: array.shape for path, array in weights.items()}:
        raise InputError(f"{folder}: {WEIGHTS_FILE} is not of {PROGRAM_FILE}; export them again")
    table = shapes.get("encoder/embeddings/position")  # without a table there is no limit of positions
    longest = table[0] if table else np.inf
    weights = jax.device_put(weights, jax.local_devices()[0])
    run = jax.jit(exported.call)

    def program(input_ids, attention_mask=None, token_type_ids=None):
        ids = jnp.asarray(input_ids, jnp.int32)
        mask = jnp.ones_like(ids) if attention_mask is None else jnp.asarray(attention_mask, jnp.int32)
        types = jnp.zeros_like(ids) if token_type_ids is None else jnp.asarray(token_type_ids, jnp.int32)
        if ids.ndim != 2 or not ids.shape == mask.shape == types.shape or not 1 <= ids.shape[1] <= longest:
            shapes = f"{ids.shape}, {mask.shape}, {types.shape}"
            raise InputError(f"inputs of shapes {shapes}: give [texts, tokens], with 1 to {longest} tokens")
        return run(weights, ids, mask, types)

    return program


def read_program(path: Path) -> export.Exported:
    """Returns the program in a file.

    Raises:
      InputError: it cannot be read.
    """
    try:
        return export.deserialize(bytearray(path.read_bytes()))
    except OSError as error:
        raise InputError(f"{path}: cannot read it ({error.strerror or error})") from error
    except Exception as error:  # the container has no checksum: a damaged one can raise errors of any type
        raise InputError(
            f"{path}: not a whole program of jax.export, or of a newer jax than {jax.__version__}; export it again"
        ) from error


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """Returns the tensors in a file of safetensors.

    Raises:
      InputError: it cannot be read.
    """
    try:
        return load_file(path)
    except OSError as error:
        raise InputError(f"{path}: cannot read it ({error.strerror or error})") from error
    except SafetensorError as error:
        raise InputError(f"{path}: not a whole file of safetensors ({error})") from error
