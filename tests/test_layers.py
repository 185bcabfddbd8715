"""The rules of docs/design.md, checked in the source: who may import and name what, and how long things may be."""

import ast
import itertools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(
    path.relative_to(ROOT)
    for folder in ("spanbert_jax", "scripts", "configs")
    for path in (ROOT / folder).rglob("*.py")
)

# Packages and modules from top to bottom: each may import itself and what is below, not its neighbours.
LEVELS = (
    ("scripts",),
    ("commands",),
    ("experiments", "planning", "cli"),
    ("tasks",),
    ("finetuning",),
    ("training",),
    ("interop", "zeroshot"),
    ("objectives", "optimizers", "labelled"),
    ("model", "data", "devices", "scorers", "trackers"),
    ("phases",),
    ("config",),
    ("configs", "provenance", "render"),
    ("folders",),
    ("knobs", "errors", "memory"),
)
LEVEL = {module: level for level, modules in enumerate(LEVELS) for module in modules}

TENSORFLOW = {"tensorflow", "tensorflow_datasets"}
JAX = {"jax", "jaxlib", "flax", "optax", "orbax"}
AXES = {"fsdp", "tensor"}  # "data" is an everyday word too
# An objective is named in its own file and by the maker of its targets. Beyond these: the batch arrays of pairs, what
# is for one objective by its nature (filling and scoring spans with two heads, showing their targets, a collator for
# other loops), and the suite that compares with a model that has the MLM head alone.
OBJECTIVE = re.compile(r"(mlm|sbo|nsp)(_\w+)?")
NAMES_OBJECTIVES = (
    "spanbert_jax/objectives/",
    "spanbert_jax/data/targets.py",
    "spanbert_jax/data/rows.py",
    "spanbert_jax/data/collator.py",
    "spanbert_jax/data/show.py",
    "spanbert_jax/tasks/",
    "spanbert_jax/zeroshot/",
    "spanbert_jax/interop/stablehlo.py",
    "configs/",
)
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


def module_of(path: Path) -> str:
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
    """Arrows point down; TensorFlow and JAX do not meet; one file imports orbax."""
    module, roots = module_of(path), {name.split(".")[0] for name in names}
    others = {name.split(".")[1] for name in names if name.startswith("spanbert_jax.")} - {module}
    if "configs" in roots:
        yield "imports the folder configs: its installed name is spanbert_jax.configs"
    if path.name == "__init__.py" and len(path.parts) == 2 and path.parts[0] == "spanbert_jax":
        if others:
            yield "the package's __init__ imports modules"
        return
    if module == "configs" and roots - {"spanbert_jax", "ml_collections"}:
        yield f"a config imports {roots - {'spanbert_jax', 'ml_collections'}}"
    for other in sorted(others):
        if module not in LEVEL or other not in LEVEL:
            yield f"no level is given to module {module} or {other}: add it to LEVELS"
        elif LEVEL[other] <= LEVEL[module]:
            yield f"{module} imports {other}, which is not below it"
    if roots & TENSORFLOW and roots & JAX:
        yield "imports both TensorFlow and JAX"
    if module in ("data", "scorers") and roots & JAX:
        yield f"{module} imports JAX"
    reads_its_files = path == Path("spanbert_jax/interop/tensorflow_files.py")
    without_tensorflow = ("model", "objectives", "optimizers", "interop", "scorers")
    if module in without_tensorflow and roots & TENSORFLOW and not reads_its_files:
        yield f"{module} imports TensorFlow"
    if "orbax" in roots and path != Path("spanbert_jax/training/checkpoint.py"):
        yield "orbax outside training/checkpoint.py"


def naming_problems(path: Path, tree: ast.AST):
    """Only training/sharding.py names mesh axes (configs give their sizes); only NAMES_OBJECTIVES name objectives."""
    literals = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    if not str(path).startswith(NAMES_OBJECTIVES):
        yield from (f"line {node.lineno} names an objective" for node in literals if OBJECTIVE.fullmatch(node.value))
    if path.parts[0] == "configs" or path == Path("spanbert_jax/training/sharding.py"):
        return
    yield from (f"line {node.lineno} names a mesh axis" for node in literals if node.value in AXES)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == "fsdp":
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
    assert {"training", "data", "model", "interop", "scripts", "configs"} <= {module_of(path) for path in FILES}
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
        ("spanbert_jax/scorers/x.py", "import jax", "scorers imports JAX"),
        ("spanbert_jax/scorers/x.py", "import tensorflow as tf", "scorers imports TensorFlow"),
        ("spanbert_jax/scorers/x.py", "from spanbert_jax.data import store", "scorers imports data"),
        ("spanbert_jax/config.py", "from spanbert_jax.cli import parse", "config imports cli"),
        ("spanbert_jax/tasks/x.py", "from spanbert_jax.experiments import sweep", "tasks imports experiments"),
        ("spanbert_jax/novel/x.py", "from spanbert_jax import errors", "no level"),
        ("spanbert_jax/training/x.py", "import optax\nimport tensorflow", "both"),
        ("spanbert_jax/training/x.py", "import orbax.checkpoint", "orbax"),
        ("spanbert_jax/training/x.py", "from configs import base", "installed name"),
        ("spanbert_jax/optimizers/x.py", "from spanbert_jax.objectives import MLM", "optimizers imports objectives"),
        ("spanbert_jax/training/x.py", "A = 'mlm_loss'", "names an objective"),
        ("spanbert_jax/training/x.py", "A = 'fsdp'", "mesh axis"),
        ("spanbert_jax/training/x.py", "def _f(mesh): return mesh.fsdp", "mesh axis"),
        ("spanbert_jax/training/x.py", "import jax.sharding\nA = jax.sharding.PartitionSpec('data')", "PartitionSpec"),
        ("spanbert_jax/__init__.py", "from spanbert_jax import training", "__init__"),
        ("configs/x.py", "import numpy", "a config imports"),
        ("configs/x.py", "from spanbert_jax import config", "configs imports config"),
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
        ("scripts/x.py", "from spanbert_jax.configs import base\nfrom spanbert_jax import tasks, cli"),
        ("spanbert_jax/objectives/x.py", "A = 'mlm_loss'"),
        ("configs/x.py", "from spanbert_jax import knobs\nfrom ml_collections import ConfigDict"),
        ("spanbert_jax/data/x.py", LONG.removesuffix("\n    pass")),
    ],
)
def test_a_kept_rule_is_not(path, body):
    assert problems(Path(path), f'"""Doc."""\n{body}') == []
