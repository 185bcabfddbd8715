"""Pseudo-log-likelihoods equal to those of minicons on the same weights."""

import json

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="minicons needs it")
transformers = pytest.importorskip("transformers", reason="minicons needs it")
scorer = pytest.importorskip("minicons.scorer", reason="compares with minicons")

from spanbert_jax.model.layout import ONE_DEVICE  # noqa: E402
from spanbert_jax.training.export import export_model  # noqa: E402
from spanbert_jax.training.pretrain import pretrain  # noqa: E402
from spanbert_jax.training.trained import restore  # noqa: E402
from spanbert_jax.zeroshot.pairs import Pairs  # noqa: E402
from spanbert_jax.zeroshot.suite import slot_scores  # noqa: E402
from tests.small import small_config  # noqa: E402
from tests.zeroshot.test_pairs import PAIRS  # noqa: E402


@pytest.fixture(scope="module")
def exported(store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("minicons")
    assert pretrain(small_config(data__store=str(store.folder), eval__every=0), folder / "run") == 0
    export_model(folder / "run", folder / "hf", "huggingface", None)
    return folder / "hf"


@pytest.mark.parametrize("by_word, metric", [(False, "original"), (True, "within_word_l2r")])
def test_scores_equal_those_of_minicons(exported, tmp_path, monkeypatch, by_word, metric):
    # minicons 0.3 calls it by its name of transformers 4.
    base = transformers.PreTrainedTokenizerBase
    monkeypatch.setattr(base, "batch_encode_plus", base.__call__, raising=False)
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(json.dumps({"good": good, "bad": bad}) for good, bad, _ in PAIRS))
    model, _ = restore(exported, None)
    suite = Pairs("pairs", str(file), model.tokenizer, 64, by_word)
    score = jax.jit(lambda batch: slot_scores(model.spec, ONE_DEVICE, suite.heads, model.params, batch))
    ours = suite.sentence_scores([jax.device_get(score(batch)) for batch in suite.batches(8)], 8)
    theirs = scorer.MaskedLMScorer(str(exported), "cpu")
    sentences = [sentence for pair in PAIRS for sentence in pair[:2]]
    expected = [float(theirs.sequence_score([text], reduction=torch.sum, PLL_metric=metric)[0]) for text in sentences]
    np.testing.assert_allclose(ours, expected, rtol=1e-5)
