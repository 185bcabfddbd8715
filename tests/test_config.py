"""Configs: loading, overrides of every type, what is told of mistakes, and the way to JSON and back."""

import itertools

import pytest

from configs import ablations, base, baselines, spanbert
from spanbert_jax import config as config_lib
from spanbert_jax.config import differences, flat, from_json, load, to_json, validate
from spanbert_jax.data import batches
from spanbert_jax.errors import InputError

TINY = "configs/spanbert.py:tiny"
VARIANTS = ("tiny", "mini", "base", "large")
SPECS = [f"spanbert.py:{variant}" for variant in VARIANTS] + ["original.py:base", "original.py:large"]
SPECS += [f"baselines.py:{name}{size}" for name in baselines.VARIANTS for size in ("", "-tiny", "-large")]
SPECS += [f"ablations.py:{name}{size}" for name in ablations.VARIANTS for size in ("", "-tiny")]


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)


def value_of(override: str):
    return dict(flat(load(TINY, [override])))[override.partition("=")[0]]


def refusal(spec: str, *overrides: str) -> list[str]:
    with pytest.raises(InputError) as error:
        load(spec, overrides)
    return str(error.value).splitlines()


@pytest.mark.parametrize("spec", SPECS)
def test_every_variant_is_valid_and_has_the_keys_of_base(spec):
    config = load(f"configs/{spec}")
    assert validate(config) + batches.validate(config) == []
    types = {key: type(value) for key, value in flat(config)}
    assert types == {
        key: type(value) for key, value in flat(base.get_config())
    }  # no new key, no int where a float belongs


def test_every_experiment_has_a_name_of_its_own_and_differs_from_the_others():
    configs = {spec: load(f"configs/{spec}") for spec in SPECS}
    same = {
        "baselines.py:spanbert": "spanbert.py:base",
        "ablations.py:span_1seq_sbo": "spanbert.py:base",
        "ablations.py:span_2seq_nsp": "ablations.py:geometric_span",
        "ablations.py:subword": "baselines.py:bert",
    }
    for spec, other in same.items():
        assert not differences(configs.pop(spec), configs[other])  # the paper's tables share these
    kept = [config for spec, config in configs.items() if not spec.endswith(("-tiny", "-large"))]
    assert all(differences(a, b) for a, b in itertools.combinations(kept, 2))


def test_unknown_experiments_are_refused_with_the_known_ones():
    for file, known in (("baselines", baselines.VARIANTS), ("ablations", ablations.VARIANTS)):
        told = refusal(f"configs/{file}.py:span")[0]
        assert all(name in told for name in known)
    assert "huge" in refusal("configs/baselines.py:bert-huge")[0]


def test_a_loaded_config_is_locked():
    config = load(TINY)
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
    config = load(TINY, ["masking.schemes=subword,whole_word", "masking.weights=1,2", "data.source=ü*.txt"])
    back = from_json(to_json(config))
    assert dict(flat(back)) == dict(flat(config))
    assert {key: type(value) for key, value in flat(back)} == {key: type(value) for key, value in flat(config)}
    assert back.is_locked
    assert differences(config, back) == []


@pytest.mark.parametrize(
    "override",
    [
        "log_every=7",
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
    assert differences(load(TINY), load(TINY, [override])) == []


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
        "accumulation=2",
    ],
)
def test_the_experiment_may_not(override):
    key, _, value = override.partition("=")
    before, now = load(TINY), load(TINY, [override])
    (line,) = differences(before, now)
    assert line.startswith(f"{key}: {dict(flat(before))[key]!r} ") and f"{dict(flat(now))[key]!r} now" in line


def test_a_key_that_came_or_went_is_a_difference():
    before = spanbert.get_config("tiny")
    now = before.copy_and_resolve_references()
    del now.model["heads"]
    now.model.experts = 4
    assert differences(before, now) == [
        "model.experts: 'absent' in the run, 4 now",
        "model.heads: 2 in the run, 'absent' now",
    ]


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
def test_validate_names_the_key(override, said):
    (problem,) = validate(load(TINY, [override]))
    assert override.partition("=")[0] in problem and said in problem


def test_validate_tells_everything_and_does_not_stop():
    assert validate(load(TINY)) == []
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
    problems = validate(load(TINY, [f"{key}={value}" for key, value in wrong.items()]))
    for key in wrong:
        section = key.split(".")[0]
        assert any(key in problem or (section == "objectives" and section in problem) for problem in problems), key
    assert len(problems) == len(wrong) - 2  # batch_size and accumulation, and the two objectives, are one problem each
    assert all("\n" not in problem for problem in problems)
    zeros = load(TINY, ["model.heads=0", "model.width=0", "batch_size=0", "accumulation=0"])
    assert len(validate(zeros)) >= 4  # no ZeroDivisionError


def test_tokens_of_an_update():
    assert config_lib.tokens_per_step(load(TINY, ["batch_size=3", "seq_len=16"])) == 48
