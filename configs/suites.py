"""Suites of runs to compare, for scripts/sweep.py: --config=configs/suites.py:SUITE or SUITE-SIZE.

parts  today's recipe put together from BERT's, one part after another, and whole with each part taken out
masks  span boundary objective x mask rate x masking scheme, under today's recipe
table6 masking schemes, as in table 6 of the SpanBERT paper (configs/ablations.py); linguistic ones are left out
table7 auxiliary objectives, as in its table 7
extensions
       what the encoder can have beyond BERT, each alone over SpanBERT's recipe

SIZE is tiny (the default), mini, base or large, as in configs/modern.py and configs/spanbert.py. All arms have the same
data, number of steps and evaluation masks.
"""

from spanbert_jax.configs import ablations, modern, spanbert

# Parts of today's recipe -> the values that BERT's has in their place.
PARTS: dict[str, dict[str, object]] = {
    "pre-norm": {"model.norm_placement": "post", "model.first_norm": True},
    "rotary positions": {"model.positions": "learned"},
    "GeGLU": {"model.feed_forward": "gelu"},  # and BERT's width
    "no biases, scaled init": {
        "model.bias": True,
        "model.norm_bias": True,
        "model.token_types": True,
        "model.depth_scaled_init": False,
        "model.norm_eps": 1e-12,
    },
    "Muon": {"optimizer.name": "adamw", "optimizer.beta2": 0.999},
    "mask rate 30 %": {"masking.rate": 0.15},
}
# Arms of the suite "extensions": each changes the plain recipe. A span has model.span_length = 32 tokens.
EXTENSIONS: dict[str, dict[str, object]] = {
    "plain": {},
    "spans": {"model.attention_pattern": "spans"},
    "spans and global": {"model.attention_pattern": "spans_and_global", "model.global_every": 2},
    "dynamic heads": {"model.extensions": ("dynamic_heads",)},
}


def get_config(variant: str = "parts"):
    suite, _, size = variant.partition("-")
    size = size or "tiny"
    if suite not in SUITES:
        raise ValueError(f"configs/suites.py has no suite {suite!r}; it has {', '.join(SUITES)}")
    config = (spanbert if suite.startswith(("table", "extensions")) else modern).get_config(size)
    if suite == "parts":
        config.masking.rate = 0.3
    config.eval.masking = ("rate=0.15", "schemes=geometric_span", "replacement=span")
    config.eval.suites = ("cloze",)
    config.name = f"{suite}-{size}"
    return config


def sweep(add, variant):
    suite = (variant or "parts").partition("-")[0]
    SUITES[suite](add, get_config(variant or "parts"))


def _parts(add, config):
    without = {name: dict(changes) for name, changes in PARTS.items()}
    without["GeGLU"]["model.mlp_width"] = spanbert.get_config(config.name.partition("-")[2]).model.mlp_width
    names = list(without)
    for number in range(len(names) + 1):  # from BERT's recipe to today's
        changes = {key: value for name in names[number:] for key, value in without[name].items()}
        add(changes, name="BERT's recipe" if number == 0 else f"+ {names[number - 1]}")
    for name in names[:-1]:  # without the last part, it is the arm before the last
        add(without[name], name=f"without {name}")


def _masks(add, config):
    for scheme in ("subword", "geometric_span"):
        for rate in (0.15, 0.3):
            for weight in (0.0, 1.0):
                objective = "MLM and SBO" if weight else "MLM"
                changes = {"masking.schemes": (scheme,), "masking.rate": rate, "objectives.sbo_weight": weight}
                add(changes, name=f"{objective}, {scheme} {rate:.0%}")


def _extensions(add, config):
    for name, changes in EXTENSIONS.items():
        add(changes, name=name)


def _table6(add, config):
    _variants(add, config, ("subword", "whole_word", "geometric_span"))


def _table7(add, config):
    _variants(add, config, ("span_2seq_nsp", "span_1seq", "span_1seq_sbo"))


def _variants(add, config, names):
    """Adds variants of configs/ablations.py, by what differs from the suite's config."""
    size, common = config.name.partition("-")[2], _flat(config)
    for name in names:
        variant = _flat(ablations.get_config(f"{name}-{size}"))
        kept = ("name", "eval.masking")
        add({key: value for key, value in variant.items() if value != common[key] and key not in kept}, name=name)


def _flat(config, prefix=""):
    values: dict[str, object] = {}
    for key, value in config.items():
        values |= _flat(value, f"{prefix}{key}.") if hasattr(value, "items") else {prefix + key: value}
    return values


SUITES = {"parts": _parts, "masks": _masks, "table6": _table6, "table7": _table7, "extensions": _extensions}
