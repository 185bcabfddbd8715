"""Long texts in windows: rows, the encoder's states, pooling, and runs on what stands beyond the position table."""

import json
import random

import jax
import numpy as np
import pytest

from spanbert_jax.configs.tasks import classification, seq2seq
from spanbert_jax.errors import InputError
from spanbert_jax.finetuning.task import collate, encoder_fields, single_sequence
from spanbert_jax.labelled.table import Row
from spanbert_jax.labelled.texts import SourceText
from spanbert_jax.model.encoder import Encoder
from spanbert_jax.model.layout import ONE_DEVICE
from spanbert_jax.model.spec import model_spec
from spanbert_jax.tasks import load
from spanbert_jax.tasks.classification import Classification, mean_at
from spanbert_jax.tasks.seq2seq import SequenceToSequence
from spanbert_jax.tasks.windows import in_windows
from tests.finetuning.conftest import FILLERS, run_on
from tests.small import MODEL, TOKENIZER

LONG = [*FILLERS, "king", "house"]  # a token each


def config_of(**changes):
    config = classification.get_config("table")
    config.update(dict(seq_len=16, batch_size=16, log_every=1))
    config.data.vocab = "tiny"
    config.model.update(MODEL | dict(max_positions=16, dropout=0.0, attention_dropout=0.0))
    config.eval.batch_size = 16
    config.classification.update(dict(windows=4, overlap=4) | changes)
    return config


def test_windows_overlap_and_are_blocks_of_their_own():
    [tokens] = TOKENIZER.encode([" ".join(LONG)])
    arrays, index = in_windows(TOKENIZER, tokens, 16, 9, 4)
    begins = [number for number, position in enumerate(arrays["positions"]) if position == 0]
    assert begins == [0, 16] and len(tokens) == 24
    assert arrays["segments"].tolist() == [1] * 16 + [2] * 16
    assert index.tolist() == [-1, *range(14), -1, -1, *range(10, 24), -1]
    for begin, part in ((0, tokens[:14]), (16, tokens[10:])):
        expected = single_sequence(TOKENIZER, part)
        for name in ("tokens", "positions", "token_types"):
            assert arrays[name][begin : begin + 16].tolist() == expected[name].tolist()
    cut, _ = in_windows(TOKENIZER, tokens, 16, 1, 4)
    assert all((cut[name] == single_sequence(TOKENIZER, tokens[:14])[name]).all() for name in cut)


def test_each_window_is_encoded_as_if_it_were_alone():
    config = config_of()
    task = Classification(config, TOKENIZER, {"labels": ["a", "b"]})
    spec = model_spec(config, TOKENIZER.vocab_size, "cpu")
    texts = [" ".join(LONG), "the king"]
    rows = task.features([Row(str(n), (text,), "a") for n, text in enumerate(texts)], training=True)
    batch = collate(task, rows, 40)
    encoder = Encoder(spec, ONE_DEVICE)
    names = list(encoder_fields(task))
    params = encoder.init(jax.random.key(0), *(batch[name] for name in names))
    apply = jax.jit(encoder.apply)
    together = apply(params, *(batch[name] for name in names))
    [tokens] = TOKENIZER.encode(texts[:1])
    firsts = []
    for begin, part in ((0, tokens[:14]), (16, tokens[10:])):
        alone = apply(params, *(single_sequence(TOKENIZER, part)[name][None] for name in names))
        np.testing.assert_allclose(together[0, begin : begin + 16], alone[0], atol=2e-5)
        firsts.append(alone[0, 0])
    chosen = (batch["segments"] > 0) & (batch["positions"] == 0)
    pooled = mean_at(together, chosen)
    np.testing.assert_allclose(pooled[0], np.mean(firsts, axis=0), atol=2e-5)
    np.testing.assert_array_equal(pooled[1], together[1, 0])
    assert task.pooling == "windows" and task.longest() == 64
    assert Classification(config_of(windows=1), TOKENIZER, {"labels": ["a", "b"]}).pooling == "cls"


def write_long(path, number: int, seed: int, targets: dict[str, str], header: str = "") -> None:
    """Texts of 18 to 24 words, of which one after the 15th decides."""
    draw, lines = random.Random(seed), [header] if header else []
    for _ in range(number):
        words = draw.choices(FILLERS, k=draw.randint(18, 24))
        word = draw.choice(list(targets))
        words[draw.randrange(15, len(words))] = word
        lines.append(" ".join(words) + "\t" + targets[word])
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.slow
def test_what_stands_beyond_the_position_table_is_learned(tmp_path):
    for seed, (name, number) in enumerate((("train", 160), ("valid", 40))):
        write_long(tmp_path / f"{name}.tsv", number, seed, {"king": "good", "house": "bad"}, "text\tlabel")
    accuracy = {}
    for windows in (1, 4):
        config = config_of(windows=windows)
        config.optimizer.learning_rate = 1e-2
        config.task.update({name: str(tmp_path / f"{name}.tsv") for name in ("train", "valid")})
        config.task.update(dict(epochs=10, sizes=1))
        assert run_on(config, tmp_path / f"run{windows}") == 0
        results = json.loads((tmp_path / f"run{windows}" / "results.json").read_text())
        accuracy[windows] = results["valid"]["accuracy"]
    assert accuracy[4] > 0.85 > 0.75 > accuracy[1]
    text = " ".join([*FILLERS[:16], "king", *FILLERS[:3]])
    assert load(tmp_path / "run4").predict([text])[0]["label"] == "good"


def test_a_decoder_reads_all_windows():
    config = seq2seq.get_config("summarisation")
    config.update(dict(seq_len=16))
    config.data.vocab = "tiny"
    config.model.update(MODEL | dict(max_positions=16, dropout=0.0, attention_dropout=0.0))
    config.seq2seq.update(dict(max_target_length=8, windows=3, overlap=4))
    task = SequenceToSequence(config, TOKENIZER, {})
    changed = [*LONG[:-1], "her"]
    rows = task.features([SourceText("0", (" ".join(words),), ("he was",)) for words in (LONG, changed)], True)
    assert len(rows[0].arrays["tokens"]) == 32 and task.longest() == 48
    model = task.model(model_spec(config, TOKENIZER.vocab_size, "cpu"), ONE_DEVICE)
    batch = collate(task, rows, 32)
    params = jax.jit(lambda key: model.init(key, batch, None))(jax.random.key(0))
    first, other = jax.jit(model.apply)(params, batch, None)
    assert np.abs(first - other).max() > 1e-4  # by a word of the last window


@pytest.mark.parametrize(
    "changes, said",
    [
        (dict(overlap=14), "classification.overlap 14 leaves no step between windows of seq_len 16"),
        (dict(text=("a", "b")), "divide one text, not a pair"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, changes, said):
    assert said in "\n".join(Classification.problems(config_of(**changes)))
    config = config_of(**changes)
    config.task.train = "absent.tsv"
    with pytest.raises(InputError, match=said):
        run_on(config, tmp_path / "run")
