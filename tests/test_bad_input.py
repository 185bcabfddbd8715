"""Every mistake a user can make, through the scripts: exit code 2, one clear line a problem, no traceback, and nothing
written.
"""

import importlib.util
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from spanbert_jax import config as config_lib
from spanbert_jax.data.store import open_store
from spanbert_jax.training.checkpoint import Checkpoints
from spanbert_jax.training.workdir import write_config

ROOT = Path(__file__).parents[1]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["the", "cat", "##s", "sat", "on", "mat", "."]
TEXT = "\n\n".join(f"the cats sat on the mat . {'the cat sat . ' * number}" for number in range(40))
SMALL = {
    "seq_len": 16,
    "batch_size": 8,
    "total_steps": 2,
    "log_every": 1,
    "data.vocab": "vocab.txt",
    "data.source": "text.txt",
    "data.valid_fraction": 0.0,
    "eval.every": 0,
    "optimizer.warmup_steps": 1,
    "model.layers": 1,
    "model.width": 8,
    "model.heads": 2,
    "model.mlp_width": 16,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with texts, vocabularies, and stores."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "text.txt").write_text(TEXT)
    (folder / "vocab.txt").write_text("\n".join(SPECIAL + WORDS))
    (folder / "other.txt").write_text("\n".join(SPECIAL + WORDS[::-1]))
    (folder / "maskless.txt").write_text("\n".join(SPECIAL[:-1] + WORDS))
    (folder / "empty.txt").write_text("")
    (folder / "blank.txt").write_text(" \n\n\t\n")
    (folder / "latin.txt").write_bytes("the cat sat .\nthe café sat .\n".encode("latin-1"))
    (folder / "records.jsonl").write_text('{"body": "the cat sat ."}\n')
    (folder / "records.txt").write_text('{"text": "the cat sat ."}\n')
    (folder / "table.csv").write_text("text\nthe cat sat .\n")
    (folder / "folder").mkdir()
    (folder / "folder" / "thesis.tex").write_text("precious")
    (folder / "half.txt").write_text(TEXT[: len(TEXT) // 2])
    for text, store in (("text.txt", "store"), ("half.txt", "store_of_half")):
        assert (
            run(
                folder,
                "prepare_data",
                f"--input={text}",
                f"--output={store}",
                "--vocab=vocab.txt",
                "--valid_fraction=0",
            )
            == 0
        )
    return folder


@pytest.fixture
def workdir(world):
    """A run's folder, "run" in the world, with a checkpoint that says it is of that run, but whose state is of no model
    at all.
    """
    folder = world / "run"
    config = config_lib.load_config(
        flags()[0].removeprefix("--config="), [flag.removeprefix("--config.") for flag in flags()[1:]]
    )
    shutil.copytree(world / "store", folder / "store")
    write_config(folder, config)
    store = open_store(folder / "store")
    checkpoints = Checkpoints(folder / "checkpoints")
    record = {
        "config": config_lib.to_json(config),
        "vocabulary": store.tokenizer_fingerprint,
        "store": store.fingerprint,
    }
    checkpoints.save(2, {"params": {"w": np.zeros(3)}}, record)
    checkpoints.close()
    (folder / ".lock").touch()
    yield folder
    shutil.rmtree(folder)


def flags(**changes) -> list[str]:
    """The flags of a small run; double underscores stand for dots."""
    settings = SMALL | {key.replace("__", "."): value for key, value in changes.items()}
    return [
        f"--config={ROOT}/configs/spanbert.py:tiny",
        *(f"--config.{key}={value}" for key, value in settings.items()),
    ]


def run(folder: Path, script: str, *arguments: str) -> int:
    """Exit code of a script that a user runs in the folder, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", [f"{script}.py", *arguments])
        with pytest.raises(SystemExit) as exited:
            runpy.run_path(str(ROOT / "scripts" / f"{script}.py"), run_name="__main__")
    return exited.value.code or 0


def contents(folder: Path) -> dict[str, bytes | None]:
    """Everything in a folder, by path."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.fixture
def refused(world, capfd):
    """Runs a script that must refuse, and gives the lines that it said."""

    def check(script: str, *arguments: str) -> list[str]:
        before = contents(world)
        capfd.readouterr()
        code = run(world, script, *arguments)
        said = capfd.readouterr().err
        assert code == 2, said
        assert said.startswith(f"{script}.py: ") and "Traceback" not in said
        after = contents(world)
        assert after.keys() == before.keys()
        assert after == before
        return said.removeprefix(f"{script}.py: ").splitlines()

    return check


def one(lines: list[str]) -> str:
    assert len(lines) == 1, lines
    return lines[0]


# Config: (overrides, what the line says). These are told by every script that takes a config.
CONFIGS = {
    "unknown key": (
        dict(optimizer__learning_rat=1),
        ["'optimizer.learning_rat'", "did you mean 'optimizer.learning_rate'?"],
    ),
    "wrong type": (dict(batch_size="many"), ["'batch_size'", "int", "'many'"]),
    "warm-up longer than training": (dict(optimizer__warmup_steps=7), ["optimizer.warmup_steps 7", "total_steps 2"]),
    "sequence longer than the position table": (
        dict(seq_len=129),
        ["seq_len 129", "position table", "model.max_positions = 128"],
    ),
    "unknown scheme": (dict(masking__schemes="stars"), ["masking.schemes", "'stars'", "geometric_span"]),
    "no length law": (dict(masking__geometric_p=1.0), ["masking.geometric_p", "1.0"]),
    "fates above 1": (
        dict(masking__mask_fraction=0.8, masking__random_fraction=0.3),
        ["mask_fraction", "random_fraction"],
    ),
    "nothing held out": (dict(eval__every=5), ["data.valid_fraction 0", "eval.every = 0"]),
}
# What only the script that trains can tell.
TRAINING = {
    "batch not divisible by the mesh": (dict(batch_size=12), ["batch_size", "12 rows", "mesh data x fsdp = 8"]),
    "evaluation not divisible by the mesh": (dict(eval__batch_size=12), ["eval.batch_size 12", "mesh data x fsdp = 8"]),
    "mesh of other devices": (dict(mesh__data=3), ["data=3", "3 devices", "there are 8"]),
    "heads not divisible by the mesh": (dict(mesh__tensor=4, mesh__data=2), ["model.heads 2", "mesh tensor = 4"]),
    "unknown attention": (dict(model__attention="psychic"), ["model.attention", "'psychic'", "xla"]),
    "attention for another platform": (
        dict(model__attention="cudnn", model__width=16),
        ["'cudnn'", "GPU", "'cpu'", "'auto'"],
    ),
    "attention that cannot drop": (
        dict(model__attention="splash", model__attention_dropout=0.1, seq_len=128),
        ["'splash'", "model.attention_dropout is 0.1", "make that 0", "'xla'"],
    ),
    "rows too short for an attention": (dict(model__attention="splash"), ["'splash'", "seq_len 16", "multiple of 128"]),
}
# What a plan can tell besides: (topology, overrides, what the line says).
PLANS = {
    "unknown topology": ("v9:4x4", {}, ["'v9:4x4'", "is unknown", "v5e:16x16", "h100:4x8", "cpu:8"]),
    "no such slice": ("v5e:3x5", {}, ["v5e:3x5", "4x4, 4x8, 8x8"]),
    "missing compiler for TPUs": ("v5e:4x4", {}, ["v5e", "not installed", "pip install 'spanbert_jax[plan]'"]),
    "missing compiler for GPUs": ("h100:8", {}, ["h100", "not installed", "pip install 'spanbert_jax[plan-gpu]'"]),
    **{
        name: ("cpu:8", *TRAINING[name])
        for name in (
            "batch not divisible by the mesh",
            "mesh of other devices",
            "heads not divisible by the mesh",
            "attention for another platform",
            "rows too short for an attention",
        )
    },
}
# Text, vocabulary and store.
DATA = {
    "missing corpus": (dict(data__source="absent/*.txt"), ["absent/*.txt", "no file"]),
    "empty corpus": (dict(data__source="empty.txt"), ["empty.txt holds no text", "is empty"]),
    "blank corpus": (dict(data__source="empty.txt,blank.txt"), ["empty.txt,blank.txt holds no text", "2 problems"]),
    "no UTF-8": (dict(data__source="latin.txt"), ["latin.txt", "line 2", "0xe9", "UTF-8"]),
    "no field of text": (dict(data__source="records.jsonl"), ["records.jsonl, line 1", "no field 'text'", "--field"]),
    "records in a text file": (dict(data__source="records.txt"), ["records.txt", "JSON Lines", "jsonl", "format)"]),
    "a table": (dict(data__source="table.csv"), ["table.csv", "a table", "JSON Lines", "format)"]),
    "folder as a corpus": (dict(data__source="folder"), ["folder is a folder", "folder/*.txt"]),
    "vocabulary without [MASK]": (dict(data__vocab="maskless.txt"), ["maskless.txt", "no [MASK]"]),
    "missing vocabulary": (dict(data__vocab="absent.txt"), ["absent.txt", "vocab.txt"]),
    "store made with another vocabulary": (
        dict(data__store="store", data__vocab="other.txt"),
        ["store store", "another vocabulary", "data.vocab"],
    ),
    "store made with other casing": (
        dict(data__store="store", data__lowercase="no"),
        ["another vocabulary", "uncased", "data.lowercase"],
    ),
    "missing store": (dict(data__store="absent"), ["store absent", "scripts/prepare_data.py"]),
}


@pytest.mark.parametrize("workdir", ["new", "deep/er/new"])
@pytest.mark.parametrize(
    "changes, said", [*CONFIGS.values(), *TRAINING.values(), *DATA.values()], ids=[*CONFIGS, *TRAINING, *DATA]
)
def test_pretrain(changes, said, workdir, refused):
    line = one(refused("pretrain", *flags(**changes), f"--workdir={workdir}"))
    assert all(part in line for part in said), line


@pytest.mark.parametrize("topology, changes, said", PLANS.values(), ids=PLANS)
def test_plan(topology, changes, said, refused, monkeypatch):
    monkeypatch.setattr(os, "environ", dict(os.environ))  # the script sets variables
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)  # no compiler is installed
    line = one(refused("plan", *flags(**changes), f"--topology={topology}", "--json=plan.json"))
    assert all(part in line for part in said), line


def test_a_plan_that_cannot_be_written_is_told_before_it_is_made(refused, monkeypatch):
    monkeypatch.setattr(os, "environ", dict(os.environ))
    assert "cannot write absent/plan.json" in one(
        refused("plan", *flags(), "--topology=cpu:8", "--json=absent/plan.json")
    )


@pytest.mark.parametrize("changes, said", [*CONFIGS.values(), *DATA.values()], ids=[*CONFIGS, *DATA])
def test_show_batch(changes, said, refused):
    line = one(refused("show_batch", *flags(**changes)))
    assert all(part in line for part in said), line


TEXTS = {name: case for name, case in DATA.items() if "data__store" not in case[0]}


@pytest.mark.parametrize("changes, said", TEXTS.values(), ids=TEXTS)
def test_prepare_data(changes, said, refused):
    settings = dict(data__source="text.txt", data__vocab="vocab.txt") | changes
    line = one(
        refused(
            "prepare_data",
            f"--input={settings['data__source']}",
            f"--vocab={settings['data__vocab']}",
            "--output=deep/er/new",
        )
    )
    assert all(part in line for part in said), line


def test_all_problems_are_told_at_once(refused):
    lines = refused(
        "pretrain",
        *flags(
            batch_size=12,
            optimizer__warmup_steps=9,
            seq_len=500,
            masking__schemes="stars",
            model__attention="psychic",
            masking__rate=0.0,
        ),
        "--workdir=new",
    )
    assert len(lines) == 6
    for part in ("batch_size", "warmup_steps", "position table", "'stars'", "'psychic'", "masking.rate"):
        assert sum(part in line for line in lines) == 1, part


def test_all_that_is_in_an_attentions_way_is_told_at_once(refused):
    lines = refused(
        "pretrain",
        *flags(model__attention="cudnn", model__attention_dropout=0.1, model__dtype="float32", seq_len=17),
        "--workdir=new",
    )
    assert len(lines) == 5 and all(line.startswith("model.attention 'cudnn' ") for line in lines)
    for part in ("make that 0", "'cpu'", "model.width / model.heads = 4", "not 17", "model.dtype 'float32'"):
        assert sum(part in line for line in lines) == 1, part


def test_all_wrong_overrides_are_told_at_once(refused):
    lines = refused("pretrain", *flags(modle__width=3, seed="x"), "--workdir=new")
    assert len(lines) == 2 and "'model.width'" in lines[0] and "'seed'" in lines[1]


def test_a_folder_that_is_not_of_a_run(refused):
    assert "holds other files" in one(refused("pretrain", *flags(), "--workdir=folder"))
    assert "is a file" in one(refused("pretrain", *flags(), "--workdir=text.txt"))
    assert "folder" in one(refused("show_batch", *flags(), "--workdir=folder"))


def test_a_folder_that_is_taken_is_not_overwritten(refused):
    for output in ("store", "folder", "text.txt"):
        line = one(
            refused("prepare_data", "--input=half.txt", "--vocab=vocab.txt", f"--output={output}", "--valid_fraction=0")
        )
        assert output in line and "already" in line


def test_a_workdir_of_another_config(workdir, refused):
    headline, *lines = refused("pretrain", *flags(model__width=16, seed=4), "--workdir=run")
    assert "workdir run" in headline and "another config" in headline
    assert lines == ["  model.width: 8 in the run, 16 now", "  seed: 0 in the run, 4 now"]


def test_a_damaged_config_of_a_run(workdir, refused):
    for text in ("{", "[]", "3"):
        (workdir / "config.json").write_text(text)
        assert "run/config.json" in one(refused("pretrain", *flags(), "--workdir=run"))


def test_a_checkpoint_of_another_run(workdir, refused):
    config = config_lib.from_json((workdir / "config.json").read_text()).copy_and_resolve_references()
    config.model.width = 16
    write_config(workdir, config)
    headline, *lines = refused("pretrain", *flags(model__width=16), "--workdir=run")
    assert "checkpoint of step 2" in headline
    assert lines == ["  model.width: 8 in the run, 16 now"]


def test_a_checkpoint_of_another_text(workdir, refused):
    half = flags(data__store="store_of_half", data__source="half.txt")
    headline, *lines = refused("pretrain", *half, "--workdir=run", "--allow=data.source")
    assert "checkpoint of step 2" in headline and "--allow=data.store" in headline
    assert [line.split(":")[0] for line in lines] == ["  data.store"]


def test_a_checkpoint_of_a_different_model(workdir, refused):
    line = one(refused("pretrain", *flags(), "--workdir=run"))
    assert "run/checkpoints/step_2" in line and "different model" in line and "more differ" in line


@pytest.mark.parametrize(
    "arguments, said",
    [
        ([], "--config"),
        (["--config=absent.py", "--workdir=new"], "absent.py"),
        ([f"--config={ROOT}/configs/spanbert.py:huge", "--workdir=new"], "huge"),
        ([*flags(), "--workdir=new", "--config.seed"], "--config.seed=VALUE"),
        ([*flags(), "--workdir=new", "--wordkir=x"], "--wordkir"),
    ],
)
def test_flags(arguments, said, world, capfd):
    before = contents(world)
    assert run(world, "pretrain", *arguments) == 2
    error = capfd.readouterr().err.splitlines()
    assert said in error[-1] and error[-1].startswith("pretrain.py: ")
    assert contents(world) == before


@pytest.mark.parametrize(
    "changes, said",
    [(dict(optimizer__learning_rat=1), "did you mean"), (dict(data__source="latin.txt"), "line 2")],
    ids=["config", "text"],
)
def test_in_a_process_of_its_own(changes, said, world):
    """That nothing else reaches the user's terminal: no log of TensorFlow or JAX, no warning."""
    before = contents(world)
    command = [sys.executable, str(ROOT / "scripts" / "pretrain.py"), *flags(**changes), "--workdir=new"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TF_")} | {
        "PYTHONPATH": str(ROOT)
    }
    process = subprocess.run(command, cwd=world, env=environment, capture_output=True, text=True, timeout=300)
    assert process.returncode == 2
    line = one(process.stderr.splitlines())
    assert line.startswith("pretrain.py: ") and said in line
    assert contents(world) == before


@pytest.mark.parametrize(
    "script, arguments",
    [
        ("pretrain", [*flags(), "--workdir=gs://bucket/run"]),
        ("show_batch", [*flags(), "--workdir=s3://bucket/run"]),
        ("plot_metrics", ["run", "--output=gs://bucket/loss.png"]),
        ("export_checkpoint", ["--workdir=run", "--output=gs://bucket/export"]),
        ("fill_spans", ["--workdir=gs://bucket/run", "--text=a"]),
        ("plan", [*flags(), "--topology=cpu:1", "--json=gs://bucket/plan.json"]),
    ],
)
def test_a_remote_path_is_refused_where_only_local_ones_work(script, arguments, refused):
    assert "bucket" in (line := one(refused(script, *arguments))) and "give a local or mounted one" in line


def test_an_allowed_key_that_does_not_exist(refused):
    line = one(refused("pretrain", *flags(), "--workdir=new", "--allow=seed,learning_rate"))
    assert "--allow: config has no key 'learning_rate'; did you mean 'optimizer.learning_rate'?" in line
