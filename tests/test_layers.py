"""The rules of the house, read off the source: which room may import which, who may name what, and how long things may be."""

import ast
import itertools
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(
    path.relative_to(ROOT)
    for folder in ("spanbert_jax", "scripts", "configs")
    for path in (ROOT / folder).rglob("*.py")
)

# Rooms from top to bottom: each may import itself and what is below, not its neighbours.
LEVELS = (
    ("scripts",),
    ("experiments", "planning", "tasks", "cli"),
    ("training",),
    ("interop", "objectives"),
    ("model", "data", "devices"),
    ("config", "folders"),
    ("errors",),
)
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}

TENSORFLOW = {"tensorflow", "tensorflow_datasets"}
JAX = {"jax", "jaxlib", "flax", "optax", "orbax"}
AXES = {"fsdp", "tensor"}  # "data" is an everyday word too
OVERRIDES = {"setup", "find_class", "persistent_load"}  # methods whose meaning a library's base class tells
MAX_FILE, MAX_SCRIPT, MAX_FUNCTION = 400, 50, 60  # lines


def imports(tree: ast.AST) -> set[str]:
    """Full names of all that is imported, anywhere in a file: of "from a import b" both "a" and "a.b"."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative import"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room_of(path: Path) -> str:
    """ "data" of spanbert_jax/data/store.py, "config" of spanbert_jax/config.py, "scripts" of scripts/pretrain.py."""
    return path.parts[0] if path.parts[0] != "spanbert_jax" else path.parts[1].removesuffix(".py")


def problems(path: Path, source: str) -> list[str]:
    """Every rule that the file breaks, in a few words; `path` from the root."""
    tree = ast.parse(source)
    return [
        *import_problems(path, imports(tree)),
        *naming_problems(path, tree),
        *size_problems(path, source, tree),
        *docstring_problems(path, tree),
    ]


def import_problems(path: Path, names: set[str]):
    """Arrows point down; TensorFlow and JAX do not meet; orbax has one door."""
    room, roots = room_of(path), {name.split(".")[0] for name in names}
    if room == "configs":
        if not roots <= {"configs", "ml_collections"}:
            yield f"a config imports {roots - {'configs', 'ml_collections'}}"
        return
    if path.parts[0] == "spanbert_jax" and room != "experiments" and "configs" in roots:
        yield "the package imports configs: defaults come in as arguments"
    others = {name.split(".")[1] for name in names if name.startswith("spanbert_jax.")} - {room}
    if path.name == "__init__.py" and len(path.parts) == 2:
        if others:
            yield "the package's __init__ imports rooms"
        return
    for other in sorted(others):
        if room not in LEVEL or other not in LEVEL:
            yield f"no level is given to room {room} or {other}: add it to LEVELS"
        elif LEVEL[other] <= LEVEL[room]:
            yield f"{room} imports {other}, which is not below it"
    if roots & TENSORFLOW and roots & JAX:
        yield "imports both TensorFlow and JAX"
    if room == "data" and roots & JAX:
        yield "data imports JAX"
    if room in ("model", "objectives", "interop") and roots & TENSORFLOW:
        yield f"{room} imports TensorFlow"
    if "orbax" in roots and path != Path("spanbert_jax/training/checkpoint.py"):
        yield "orbax outside training/checkpoint.py"


def naming_problems(path: Path, tree: ast.AST):
    """Only training/sharding.py names mesh axes (configs give their sizes)."""
    if path.parts[0] == "configs" or path == Path("spanbert_jax/training/sharding.py"):
        return
    for node in ast.walk(tree):
        if (isinstance(node, ast.Constant) and node.value in AXES) or (
            isinstance(node, ast.Attribute) and node.attr == "fsdp"
        ):
            yield f"line {node.lineno} names a mesh axis"
        if isinstance(node, ast.Call) and "PartitionSpec" in ast.unparse(node.func) and node.args:
            yield f"line {node.lineno} makes a PartitionSpec"


def size_problems(path: Path, source: str, tree: ast.AST):
    """Nothing long, and no file for what has no name."""
    lines = source.splitlines()
    limit = MAX_SCRIPT if path.parts[0] == "scripts" else MAX_FILE
    if len(lines) > limit:
        yield f"{len(lines)} lines, more than {limit}"
    if path.stem in ("utils", "util", "helpers", "misc", "common"):
        yield "a file is named for its one idea"
    if path.parts[0] == "configs":
        return  # a list of values is no logic
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= MAX_FUNCTION:
            yield f"{node.name} has {node.end_lineno - node.lineno + 1} lines, more than {MAX_FUNCTION}"


def docstring_problems(path: Path, tree: ast.AST):
    """A docstring for each file, and in the package for each public function, class and method."""
    if path.name != "__init__.py" and not ast.get_docstring(tree):
        yield "no docstring"
    if path.parts[0] != "spanbert_jax":
        return
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    public = [
        node
        for node in itertools.chain(tree.body, *(c.body for c in classes if not c.name.startswith("_")))
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_")
    ]
    yield from (
        f"{node.name} has no docstring" for node in public if not ast.get_docstring(node) and node.name not in OVERRIDES
    )


@pytest.mark.parametrize("path", FILES, ids=str)
def test_file_keeps_the_rules(path):
    assert problems(path, (ROOT / path).read_text(encoding="utf-8")) == []


def test_the_files_are_found():
    assert {"training", "data", "model", "interop", "scripts", "configs"} <= {room_of(path) for path in FILES}
    assert len(FILES) > 30


LONG = "\n".join(["def f():", '    """Doc."""', *["    pass"] * 59])


@pytest.mark.parametrize(
    "path, body, said",
    [
        ("spanbert_jax/data/x.py", "import jax.numpy as jnp", "data imports JAX"),
        ("spanbert_jax/data/x.py", "def _f():\n    from spanbert_jax.training import step", "data imports training"),
        ("spanbert_jax/data/x.py", "from spanbert_jax import model", "data imports model"),
        ("spanbert_jax/model/x.py", "import spanbert_jax.data.store", "model imports data"),
        ("spanbert_jax/model/x.py", "import tensorflow as tf", "model imports TensorFlow"),
        ("spanbert_jax/config.py", "from spanbert_jax.cli import parse", "config imports cli"),
        ("spanbert_jax/tasks/x.py", "from spanbert_jax.experiments import sweep", "tasks imports experiments"),
        ("spanbert_jax/novel/x.py", "from spanbert_jax import errors", "no level"),
        ("spanbert_jax/training/x.py", "import optax\nimport tensorflow", "both"),
        ("spanbert_jax/training/x.py", "import orbax.checkpoint", "orbax"),
        ("spanbert_jax/training/x.py", "from configs import base", "defaults"),
        ("spanbert_jax/training/x.py", "A = 'fsdp'", "mesh axis"),
        ("spanbert_jax/training/x.py", "def _f(mesh): return mesh.fsdp", "mesh axis"),
        ("spanbert_jax/training/x.py", "import jax.sharding\nA = jax.sharding.PartitionSpec('data')", "PartitionSpec"),
        ("spanbert_jax/__init__.py", "from spanbert_jax import training", "__init__"),
        ("configs/x.py", "from spanbert_jax import errors", "a config imports"),
        ("scripts/x.py", "\n" * 50, "more than 50"),
        ("spanbert_jax/data/x.py", "\n" * 400, "more than 400"),
        ("spanbert_jax/data/x.py", LONG, "f has 61 lines"),
        ("spanbert_jax/data/utils.py", "", "one idea"),
        ("spanbert_jax/data/x.py", "def f(): pass", "f has no docstring"),
        (
            "spanbert_jax/data/x.py",
            "class _C:\n    def f(self): pass\nclass D:\n    '''Doc.'''\n    def g(self): pass",
            "g has no docstring",
        ),
    ],
)
def test_a_broken_rule_is_seen(path, body, said):
    (problem,) = problems(Path(path), f'"""Doc."""\n{body}')
    assert said in problem


def test_a_missing_docstring_of_a_file_is_seen():
    assert problems(Path("scripts/x.py"), "import os") == ["no docstring"]


@pytest.mark.parametrize(
    "path, body",
    [
        (
            "spanbert_jax/training/x.py",
            "import jax\nfrom spanbert_jax import config, errors\nfrom spanbert_jax.data import store",
        ),
        ("spanbert_jax/training/x.py", "from spanbert_jax.training import step\nimport spanbert_jax.model.spec"),
        ("spanbert_jax/training/checkpoint.py", "import jax\nimport orbax.checkpoint"),
        ("spanbert_jax/training/sharding.py", "AXES = ('data', 'fsdp')"),
        ("scripts/x.py", "from configs import base\nfrom spanbert_jax import tasks, cli"),
        ("spanbert_jax/data/x.py", LONG.removesuffix("\n    pass")),
    ],
)
def test_a_kept_rule_is_not(path, body):
    assert problems(Path(path), f'"""Doc."""\n{body}') == []
