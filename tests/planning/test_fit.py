"""--fit: what it chooses for a machine fits it, is what the run trains with, and stays with the run."""

import dataclasses
import json
import sys
from types import SimpleNamespace

import jax
import pytest

from spanbert_jax.commands import pretrain
from spanbert_jax.errors import InputError
from spanbert_jax.planning import fit
from spanbert_jax.planning.plan import make_plan
from spanbert_jax.planning.search import applied
from spanbert_jax.training.workdir import read_config
from tests.small import TOKENIZER, small_config, small_store

FILE = """
from tests.small import small_config

def get_config():
    config = small_config(data__store={store!r}, eval__every=0, total_steps=3, model__attention_dropout=0.0)
    config.update(dict(batch_size=64, seq_len=128))
    return config
"""


@pytest.mark.slow
def test_a_run_keeps_what_was_chosen_for_its_machine(tmp_path, monkeypatch, capsys):
    """The devices are too small for the config as it stands."""
    small_store(tmp_path / "store")
    (tmp_path / "small.py").write_text(FILE.format(store=str(tmp_path / "store")))
    machine = fit.this_machine()
    assert machine.devices == tuple(jax.devices()) and machine.slices == 1
    config = small_config(batch_size=64, seq_len=128, model__attention_dropout=0.0)
    count = len(machine.devices)
    whole, least = (
        make_plan(applied(config, (count, 1, 1), 1, remat), machine, TOKENIZER.vocab_size).peak_bytes
        for remat in ("none", "full")
    )
    tight = dataclasses.replace(machine.device, memory_bytes=(whole + least) // 2)
    monkeypatch.setattr(fit, "this_machine", lambda: dataclasses.replace(machine, device=tight))

    def run():
        flags = [f"--config={tmp_path / 'small.py'}", f"--workdir={tmp_path / 'run'}", "--fit"]
        monkeypatch.setattr(sys, "argv", ["pretrain", *flags])
        assert pretrain.main() == 0
        return capsys.readouterr().out

    assert "accumulation=1 --config.model.remat=none: does not fit" in run()
    saved = json.loads((tmp_path / "run" / "fit.json").read_text())
    assert saved["machine"] == f"{count} x {jax.devices()[0].device_kind}"
    trained = read_config(tmp_path / "run")
    assert fit.changes_of(trained) == saved["changes"]
    assert (trained.accumulation, trained.model.remat) != (1, "none")
    assert make_plan(trained, machine, TOKENIZER.vocab_size).peak_bytes <= tight.memory_bytes

    monkeypatch.setattr(fit, "search", None)  # it is not searched for again
    assert f"--fit on {saved['machine']}: mesh.data=" in run()


def test_what_cannot_be_fitted_is_refused(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="--fit: finds one plan, and the phases"):
        fit.fitted(small_config(phases=("3: batch_size=8",)), tmp_path, print)
    unknown = SimpleNamespace(platform="gpu", device_kind="Voodoo 2", process_index=0)
    monkeypatch.setattr(jax, "devices", lambda *_: [unknown])
    with pytest.raises(InputError, match="no figures of Voodoo 2; give accumulation and model.remat yourself"):
        fit.fitted(small_config(), tmp_path, print)
    assert not list(tmp_path.iterdir())
