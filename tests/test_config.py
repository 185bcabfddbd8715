"""Configs: loading, overrides of every type, what is told of mistakes, and the way to JSON and back."""

import itertools
import json
from pathlib import Path

import jax
import pytest

from spanbert_jax import config as config_lib
from spanbert_jax.config import changed, config_problems, flat, from_json, load_config, to_json
from spanbert_jax.configs import ablations, base, baselines
from spanbert_jax.data.batches import data_problems
from spanbert_jax.errors import InputError
from spanbert_jax.training.pretraining import all_problems

TINY = "configs/spanbert.py:tiny"
VARIANTS = ("tiny", "mini", "base", "large")
SPECS = [f"spanbert.py:{variant}" for variant in VARIANTS] + ["original.py:base", "original.py:large"]
SPECS += [f"baselines.py:{name}{size}" for name in baselines.VARIANTS for size in ("", "-tiny", "-large")]
SPECS += [f"ablations.py:{name}{size}" for name in ablations.VARIANTS for size in ("", "-tiny")]


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)


def value_of(override: str):
    return dict(flat(load_config(TINY, [override])))[override.partition("=")[0]]


def refusal(spec: str, *overrides: str) -> list[str]:
    with pytest.raises(InputError) as error:
        load_config(spec, overrides)
    return str(error.value).splitlines()


@pytest.mark.parametrize("spec", SPECS)
def test_every_variant_is_valid_and_has_the_keys_of_base(spec):
    config = load_config(f"configs/{spec}")
    assert config_problems(config) + data_problems(config) == []
    types = {key: type(value) for key, value in flat(config)}
    assert types == {
        key: type(value) for key, value in flat(base.get_config())
    }  # no new key, no int where a float belongs


def test_every_experiment_has_a_name_of_its_own_and_differs_from_the_others():
    configs = {spec: load_config(f"configs/{spec}") for spec in SPECS}
    same = {
        "baselines.py:spanbert": "spanbert.py:base",
        "ablations.py:span_1seq_sbo": "spanbert.py:base",
        "ablations.py:span_2seq_nsp": "ablations.py:geometric_span",
        "ablations.py:subword": "baselines.py:bert",
    }
    for spec, other in same.items():
        assert not changed(configs.pop(spec), configs[other])  # the paper's tables share these
    kept = [config for spec, config in configs.items() if not spec.endswith(("-tiny", "-large"))]
    assert all(changed(a, b) for a, b in itertools.combinations(kept, 2))


def test_unknown_experiments_are_refused_with_the_known_ones():
    for file, known in (("baselines", baselines.VARIANTS), ("ablations", ablations.VARIANTS)):
        told = refusal(f"configs/{file}.py:span")[0]
        assert all(name in told for name in known)
    assert "huge" in refusal("configs/baselines.py:bert-huge")[0]


def test_a_loaded_config_is_locked():
    config = load_config(TINY)
    for part in (config, config.model):
        with pytest.raises(AttributeError):
            part.layer = 3


@pytest.mark.parametrize(
    "override, value",
    [
        ("seed=3", 3),
        ("batch_size=1_024", 1024),
        ("mesh.data=-1", -1),
        ("optimizer.learning_rate=2e-3", 2e-3),
        ("optimizer.learning_rate=1", 1.0),
        ("optimizer.decay_biases_and_norms=true", True),
        ("optimizer.decay_biases_and_norms=False", False),
        ("data.source=a b=c,*.txt", "a b=c,*.txt"),
        ("data.store=7", "7"),
        ("data.store=", ""),
        ("masking.schemes=subword,whole_word", ("subword", "whole_word")),
        ("masking.schemes=subword", ("subword",)),
        ("masking.schemes=('subword', 'whole_word')", ("subword", "whole_word")),
        ("masking.weights=1,0.5", (1.0, 0.5)),
        ("masking.weights=2", (2.0,)),
        ("masking.weights=2,", (2.0,)),
        ("masking.weights=[1, 2]", (1.0, 2.0)),
    ],
)
def test_overrides_take_the_type_of_what_they_replace(override, value):
    found = value_of(override)
    assert found == value
    assert type(found) is type(value)
    if isinstance(value, tuple):
        assert [type(item) for item in found] == [type(item) for item in value]


@pytest.mark.parametrize(
    "override, wanted",
    [
        ("seed=1.5", "int"),
        ("seed=True", "int"),
        ("seed=", "int"),
        ("seed=None", "int"),
        ("total_steps=1e3", "int"),
        ("optimizer.learning_rate=fast", "float"),
        ("optimizer.learning_rate=nan", "float"),
        ("optimizer.learning_rate=True", "float"),
        ("optimizer.decay_biases_and_norms=1", "bool"),
        ("masking.weights=a,b", "tuple"),
    ],
)
def test_a_value_of_another_type_is_refused(override, wanted):
    key, _, text = override.partition("=")
    (line,) = refusal(TINY, override)
    assert repr(key) in line and f"({wanted})" in line and repr(text) in line


@pytest.mark.parametrize(
    "override, meant",
    [
        ("optimizer.learning_rat=1", "optimizer.learning_rate"),
        ("learning_rate=1", "optimizer.learning_rate"),
        ("batchsize=2", "batch_size"),
        ("model.layer=2", "model.layers"),
        ("optimiser.warmup_steps=5", "optimizer.warmup_steps"),
    ],
)
def test_an_unknown_key_is_told_with_the_one_that_was_meant(override, meant):
    (line,) = refusal(TINY, override)
    assert repr(override.partition("=")[0]) in line and f"did you mean {meant!r}?" in line


def test_all_wrong_overrides_are_told_at_once():
    lines = refusal(TINY, "zzz=1", "seed=x", "seed", "model.layers=3")
    assert len(lines) == 3
    assert "no key 'zzz'" in lines[0] and "configs/base.py" in lines[0]  # nothing like it, so no guess
    assert "'seed'" in lines[1]
    assert "--config.seed=VALUE" in lines[2]


def test_what_is_no_config_is_refused(tmp_path):
    (tmp_path / "empty.py").write_text("")
    (tmp_path / "text.txt").write_text("def get_config(variant): pass")
    assert "does not exist" in refusal(f"{tmp_path}/absent.py:tiny")[0]
    for name in ("empty.py", "text.txt"):
        assert "get_config" in refusal(f"{tmp_path}/{name}")[0]
    assert all(variant in refusal("configs/spanbert.py:huge")[0] for variant in ("huge", *VARIANTS))
    assert "no variants" in refusal("configs/base.py:tiny")[0]


def test_json_gives_the_same_config_back():
    config = load_config(TINY, ["masking.schemes=subword,whole_word", "masking.weights=1,2", "data.source=ü*.txt"])
    back = from_json(to_json(config))
    assert dict(flat(back)) == dict(flat(config))
    assert {key: type(value) for key, value in flat(back)} == {key: type(value) for key, value in flat(config)}
    assert back.is_locked
    assert not changed(config, back)


@pytest.mark.parametrize(
    "override",
    [
        "log_every=7",
        "accumulation=2",
        "data.threads=3",
        "mesh.fsdp=2",
        "eval.every=0",
        "checkpoint.keep_last=9",
        "model.remat=full",
        "name=other",
        "data.store=x",
    ],
)
def test_where_and_how_it_runs_may_change_within_a_run(override):
    assert not changed(load_config(TINY), load_config(TINY, [override]))


@pytest.mark.parametrize(
    "override",
    [
        "seed=7",
        "batch_size=64",
        "data.source=x",
        "masking.rate=0.2",
        "model.width=64",
        "total_steps=2000",
        "optimizer.beta2=0.98",
        "objectives.sbo_weight=0.5",
    ],
)
def test_the_experiment_may_not(override):
    key = override.partition("=")[0]
    before, now = load_config(TINY), load_config(TINY, [override])
    assert changed(before, now) == {key: (dict(flat(before))[key], dict(flat(now))[key])}


def test_a_config_of_an_earlier_release_is_continued():
    """Release 0.1 wrote this file: new knobs take their defaults, renamed keys and values are translated."""
    path = Path(__file__).parent / "goldens" / "config_0.1.json"
    before = from_json(path.read_text(encoding="utf-8"))
    assert (
        before.optimizer.steps_per_epoch == 7 and before.masking.replacement == "token" and before.model.norm == "layer"
    )
    assert not changed(before, load_config("baselines:bert-tiny", ["optimizer.steps_per_epoch=7"]))
    assert changed(before, load_config("baselines:bert-tiny")) == {"optimizer.steps_per_epoch": (7, 0)}
    assert dict(flat(load_config(str(path)))) == dict(flat(before))
    fields = json.loads(path.read_text(encoding="utf-8"))
    fields["model"] |= {"skip_attention_dropout": True, "attention_dropout": 0.1}
    assert from_json(json.dumps(fields)).model.attention_dropout == 0


def test_a_config_of_a_later_release_or_with_unknown_keys_is_refused():
    fields = json.loads(to_json(load_config(TINY)))
    with pytest.raises(
        ValueError, match="of version 99, and this release of spanbert_jax reads up to 2: install a newer one"
    ):
        from_json(json.dumps(fields | {"version": 99}))
    with pytest.raises(ValueError, match="unknown key 'model.novelty': import the module that declares it first"):
        from_json(json.dumps(fields | {"model": fields["model"] | {"novelty": 1}}))
    for text in ("[]", "7", "{"):
        with pytest.raises(ValueError):
            from_json(text)


def test_configs_have_names_and_overrides_after_the_variant():
    named = load_config("spanbert:tiny,seq_len=64,masking.rate=0.2")
    assert named.seq_len == 64 and named.masking.rate == 0.2
    assert dict(flat(named)) == dict(flat(load_config(TINY, ["seq_len=64", "masking.rate=0.2"])))
    assert "does not exist: give a name such as spanbert:base" in refusal("spanbort:tiny")[0]


def test_a_config_file_is_checked_against_the_knobs(tmp_path):
    """Every wrong key and value of an own file is reported at once, before anything runs."""
    path = tmp_path / "mine.py"
    start = "from spanbert_jax.configs import spanbert\ndef get_config(variant):\n"
    start += "    config = spanbert.get_config('tiny')\n"
    path.write_text(f"{start}    config.optimizer.lr = 1e-4\n    del config.seed\n    return config\n")
    assert refusal(str(path)) == [
        "config has no key 'optimizer.lr'; did you mean 'optimizer.eps'?",
        "config has no value for 'seed': start from base.get_config()",
    ]
    path.write_text(f"{start}    config.model.width = '64'\n    return config\n")
    assert "mine.py', line 4: TypeError: Could not override field 'width'" in refusal(str(path))[0]
    path.write_text(f"{start}    config.masking = {{'schemes': ['subword']}}\n    return config\n")
    assert any(
        "masking.schemes" in line and "must be a value like ('geometric_span',) (tuple)" in line
        for line in refusal(str(path))
    )
    path.write_text(f"{start}    config.model.width = 64\n    return config\n")
    assert load_config(str(path)).model.width == 64


@pytest.mark.parametrize(
    "text, said",
    [
        ("def get_config(variant):\n    return None\n", "must return a ConfigDict, not NoneType"),
        ("def get_config(variant):\n    raise ValueError('no such variant')\n", "mine.py: no such variant"),
        ("def get_config(variant):\n    helper()\n\ndef helper():\n    unknown()\n", "mine.py', line 5: NameError: "),
        ("def get_config(a, b):\n    pass\n", "mine.py': TypeError: get_config() missing 1 required"),
        ("import absent_module\n", "mine.py', line 1: ModuleNotFoundError: "),
        ("def get_config(variant):\n    return (\n", "mine.py', line 2: SyntaxError: '(' was never closed"),
        ("from spanbert_jax.configs import spanbert\nspanbert.get_config('huge')\n", "mine.py: "),
    ],
)
def test_whatever_a_config_file_does_wrong_is_one_line_that_names_it(tmp_path, text, said):
    path = tmp_path / "mine.py"
    path.write_text(text)
    [problem] = refusal(str(path))
    assert said in problem


def test_a_config_without_a_variant_is_the_default_one():
    assert load_config("configs/tasks/classification.py") == load_config("configs/tasks/classification.py:table")
    assert load_config("spanbert") == load_config("spanbert:base")


def test_a_config_file_without_variants_takes_no_argument(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from spanbert_jax.configs import spanbert\ndef get_config():\n    return spanbert.get_config('tiny')\n"
    )
    assert load_config(str(path)) == load_config(TINY)
    assert "has no variants" in refusal(f"{path}:tiny")[0]


@pytest.mark.parametrize(
    "override, said",
    [
        ("seq_len=200", "position table"),
        ("seq_len=4", "at least 8"),
        ("optimizer.warmup_steps=99999", "less than total_steps"),
        ("model.heads=3", "heads 3"),
        ("accumulation=5", "accumulation 5"),
        ("accumulation=0", "at least 1"),
        ("seed=2147483648", "2^31"),
        ("seed=-1", "negative"),
        ("model.dropout=1.0", "[0, 1)"),
        ("data.valid_fraction=-0.1", "[0, 1)"),
        ("optimizer.learning_rate=0", "positive"),
        ("model.norm_eps=-1", "positive"),
        ("optimizer.schedule=step", "linear, cosine, constant"),
        ("data.lowercase=maybe", "auto, yes, no"),
    ],
)
def test_a_problem_names_the_key(override, said):
    (problem,) = all_problems(load_config(TINY, [override]), jax.devices()[0])
    assert override.partition("=")[0] in problem and said in problem


def test_all_problems_are_reported_at_once():
    assert config_problems(load_config(TINY)) == []
    wrong = {
        "seq_len": 1000,
        "batch_size": 33,
        "accumulation": 2,
        "optimizer.warmup_steps": 10**6,
        "model.heads": 3,
        "model.remat": "some",
        "checkpoint.every": 0,
        "objectives.mlm_weight": 0.0,
        "objectives.sbo_weight": 0.0,
    }
    problems = all_problems(load_config(TINY, [f"{key}={value}" for key, value in wrong.items()]), jax.devices()[0])
    for key in wrong:
        section = key.split(".")[0]
        assert any(key in problem or (section == "objectives" and section in problem) for problem in problems), key
    assert len(problems) == len(wrong) - 2  # batch_size and accumulation, and the two objectives, are one problem each
    assert all("\n" not in problem for problem in problems)
    zeros = load_config(TINY, ["model.heads=0", "model.width=0", "batch_size=0", "accumulation=0"])
    assert len(config_problems(zeros)) >= 4  # no ZeroDivisionError


def test_tokens_of_a_step():
    assert config_lib.tokens_per_step(load_config(TINY, ["batch_size=3", "seq_len=16"])) == 48
