"""From text to text: the decoder beside numpy, the cache, label smoothing, rows, meshes, resuming, a run."""

import json
import random
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spanbert_jax.commands import predict
from spanbert_jax.configs.tasks import seq2seq
from spanbert_jax.errors import InputError
from spanbert_jax.finetuning.evaluation import BEST
from spanbert_jax.finetuning.feed import TaskFeed
from spanbert_jax.finetuning.task import collate
from spanbert_jax.labelled.texts import SourceText
from spanbert_jax.model.layout import ONE_DEVICE
from spanbert_jax.model.spec import model_spec
from spanbert_jax.scorers import generation
from spanbert_jax.tasks import load
from spanbert_jax.tasks.seq2seq import SequenceToSequence, uniform_cross_entropy_sum
from spanbert_jax.training.checkpoint import Checkpoints
from spanbert_jax.training.metrics import read_metrics
from tests.finetuning.conftest import FILLERS, run_on
from tests.small import MODEL, TOKENIZER

pytest.importorskip("sacrebleu", reason="extra generation")
pytest.importorskip("rouge_score", reason="extra generation")

CLOCK = ("tokens_per_second", "steps_per_second", "host_memory_bytes")
PRE = dict(norm_placement="pre", positions="rotary", feed_forward="geglu", bias=False, norm_bias=False, qk_norm=True)


def config_of(model=(), **changes):
    config = seq2seq.get_config("translation")
    config.update(dict(seq_len=32, batch_size=16, log_every=1))
    config.data.vocab = "tiny"
    config.model.update(MODEL | dict(max_positions=64, dropout=0.0, attention_dropout=0.0) | dict(model))
    config.eval.batch_size = 16
    config.seq2seq.update(dict(max_target_length=12, beams=2) | changes)
    return config


def task_of(**changes) -> SequenceToSequence:
    return SequenceToSequence(config_of(**changes), TOKENIZER, {})


PAIRS = [("the king of the land", "he was in the house"), ("it is her", "king"), ("as on by at be had", "the " * 30)]
EXAMPLES = [SourceText(str(number), (source,), (target,)) for number, (source, target) in enumerate(PAIRS)]


def model_and_params(task):
    """The model, and parameters of which none is 0 or 1."""
    model = task.model(model_spec(task.config, TOKENIZER.vocab_size, "cpu"), ONE_DEVICE)
    batch = collate(task, task.features(EXAMPLES, training=True), 16)
    params = jax.jit(lambda key: model.init(key, batch, None))(jax.random.key(0))["params"]
    leaves, structure = jax.tree.flatten(params)
    draw = np.random.default_rng(0)
    return model, structure.unflatten([leaf + 0.1 * draw.normal(size=leaf.shape).astype(np.float32) for leaf in leaves])


def test_rows_are_the_source_and_the_first_reference():
    example = SourceText("0", ("the king.", "It is."), ("he was", "other"))
    [row], [other] = (task_of().features([example], training) for training in (True, False))
    assert TOKENIZER.decode(row.arrays["tokens"]) == "[CLS] the king. it is. [SEP]".replace("it", "It")
    assert TOKENIZER.decode(row.arrays["targets"]) == "he was [SEP]" and row.arrays["target_weights"].sum() == 3
    assert len(other.arrays["targets"]) == 0 and (other.arrays["tokens"] == row.arrays["tokens"]).all()
    long = task_of().features([SourceText("0", ("the " * 50,), ("his " * 50,))], training=True)[0]
    assert len(long.arrays["tokens"]) == 32 and len(long.arrays["targets"]) == 12
    assert long.arrays["targets"][-1] == TOKENIZER.sep_id
    assert task_of().sizes(8) == {"O": 8} and task_of().sizes(32) == {"O": 12}


def softmax(x):
    weights = np.exp(x - x.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def plain_decoder(params, encoded, tokens, eps):
    """Logits [O, V] of one target from the encoder's output [L, D], in numpy: post-norm, learned positions, GeLU."""
    table, head = params["encoder"]["embeddings"], params["seq2seq"]

    def norm(x, p):
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps) * p["scale"] + p["bias"]

    def attention(x, read, p, mask):
        q, k, v = (
            np.einsum("ld,dhk->lhk", y, p[name]["kernel"]) + p[name]["bias"]
            for name, y in (("query", x), ("key", read), ("value", read))
        )
        scores = np.einsum("lhk,rhk->hlr", q, k) / np.sqrt(q.shape[-1])
        y = np.einsum("hlr,rhk->lhk", softmax(np.where(mask, scores, -1e30)), v)
        return norm(x + np.einsum("lhk,hkd->ld", y, p["output"]["kernel"]) + p["output"]["bias"], p["norm"])

    x = table["word"][tokens] + table["position"][: len(tokens)] + table["token_type"][1]
    x = norm(x, table["norm"])
    causal = np.tril(np.ones((len(x), len(x)), bool))
    for number in range(len(head["layers"]["mlp"]["norm"]["scale"])):
        p = jax.tree.map(lambda leaf, number=number: leaf[number], head["layers"])
        x = attention(x, x, p["attention"], causal)
        x = attention(x, encoded, p["cross"], True)
        y = x @ p["mlp"]["hidden"]["kernel"] + p["mlp"]["hidden"]["bias"]
        y = np.asarray(jax.nn.gelu(y, approximate=False)) @ p["mlp"]["output"]["kernel"] + p["mlp"]["output"]["bias"]
        x = norm(x + y, p["mlp"]["norm"])
    return x @ table["word"].T + head["bias"]


def test_the_decoder_equals_a_plain_one():
    task = task_of(layers=3)
    model, params = model_and_params(task)
    rows = task.features(EXAMPLES, training=True)
    batch = collate(task, rows, 16)
    found = jax.jit(model.apply)({"params": params}, batch, None)
    states = jax.jit(lambda: model.apply({"params": params}, batch, None, method="_states"))()
    assert found.shape == (3, 12, TOKENIZER.vocab_size)
    for row, logits, encoded in zip(rows, found, np.asarray(states)):
        inputs = [TOKENIZER.cls_id, *row.arrays["targets"][:-1]]
        expected = plain_decoder(
            jax.tree.map(np.asarray, params), encoded[: len(row.arrays["tokens"])], inputs, task.config.model.norm_eps
        )
        np.testing.assert_allclose(logits[: len(inputs)], expected, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("model", [{}, PRE], ids=["bert", "modern"])
def test_steps_with_a_cache_equal_one_pass_over_the_target(model):
    task = task_of(model=model)
    module, params = model_and_params(task)
    batch = collate(task, task.features(EXAMPLES, training=True), 16)
    batch["targets"] = np.random.default_rng(1).integers(5, 900, batch["targets"].shape, np.int32)
    apply = jax.jit(lambda batch: module.apply({"params": params}, batch, None))
    whole = apply(batch)
    twice = np.repeat(np.arange(3), 2)  # two hypotheses of each row, which differ from position 3 on
    tokens = batch["targets"][twice] + (np.arange(12) > 2) * (np.arange(6) % 2)[:, None]
    other = apply(batch | {"targets": tokens[1::2].astype(np.int32)})
    logits, memory, cache = jax.jit(lambda: module.apply({"params": params}, batch, 12, method="begin"))()
    np.testing.assert_allclose(logits, whole[:, 0], rtol=1e-4, atol=1e-4)
    cache = jax.tree.map(lambda array: array[:, twice], cache)
    step = jax.jit(lambda *arguments: module.apply({"params": params}, *arguments, method="step"))
    for index in range(1, 12):
        logits, cache = step(tokens[:, index - 1], index, memory, cache)
        np.testing.assert_allclose(logits[::2], whole[:, index], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(logits[1::2], other[:, index], rtol=1e-4, atol=1e-4)


def test_the_loss_is_smoothed_and_does_not_depend_on_padding_and_division():
    task, draw = task_of(label_smoothing=0.2), np.random.default_rng(0)
    rows = task.features(EXAMPLES, training=True)
    vocabulary = TOKENIZER.vocab_size
    scores = draw.normal(size=(3, 12, vocabulary)).astype(np.float32)

    def results(numbers, size, counts=None):
        batch = {
            name: jnp.asarray(x)
            for name, x in collate(task, [rows[n] if n >= 0 else None for n in numbers], size).items()
        }
        logits = np.full((len(numbers), task.sizes(size)["O"], vocabulary + 3), -1e30, np.float32)
        logits[..., :vocabulary] = scores[list(numbers), : logits.shape[1]]
        counts = counts or task.counts(batch)
        return *task.loss(jnp.asarray(logits), batch, counts), counts

    loss, sums, counts = results([0, 1, 2], 16)
    logp = np.log(softmax(scores.astype(np.float64)))
    nll, smooth, number = 0.0, 0.0, 0
    for row, of_row in zip(rows, logp):
        for of_position, target in zip(of_row, row.arrays["targets"]):
            nll, smooth, number = nll - of_position[target], smooth - of_position.mean(), number + 1
    assert counts["seq2seq"] == number == 6 + 2 + 12
    np.testing.assert_allclose(loss, (0.8 * nll + 0.2 * smooth) / number, rtol=1e-5)
    np.testing.assert_allclose(sums["seq2seq"]["nll"], nll, rtol=1e-5)
    wider, _, _ = results([0, 1, 2, -1], 24)
    parts = [results(part, 16, counts)[0] for part in ([0, -1], [2, 1])]
    np.testing.assert_allclose([wider, sum(parts)], [loss, loss], rtol=1e-5)
    assert uniform_cross_entropy_sum(jnp.zeros((1, 1, 8)), jnp.ones((1, 1)), 8) == pytest.approx(np.log(8))


@pytest.mark.parametrize("beams", [1, 3])
def test_texts_are_those_that_teacher_forcing_scores_so_whatever_the_padding(beams):
    task = task_of(beams=beams)
    model, params = model_and_params(task)
    batches = {size: collate(task, task.features(EXAMPLES, training=False), size) for size in (8, 16)}
    found = {
        size: jax.jit(lambda batch: task.inference(model, params, batch))(batch) for size, batch in batches.items()
    }
    np.testing.assert_array_equal(found[8]["tokens"], found[16]["tokens"])
    tokens = np.asarray(found[16]["tokens"])
    logits = jax.jit(model.apply)({"params": params}, batches[16] | {"targets": tokens}, None)
    logp = np.asarray(jax.nn.log_softmax(logits.at[..., np.array(task.excluded)].set(-1e30)))
    for text, score, of_row in zip(tokens, found[16]["score"], logp):
        length = [*text, TOKENIZER.sep_id].index(TOKENIZER.sep_id) + 1
        length = min(length, 12)
        total = sum(of_row[position, text[position]] for position in range(length))
        np.testing.assert_allclose(score, total / ((5 + length) / 6) ** 0.6, rtol=1e-4)
        if beams == 1:
            assert (text[:length] == of_row.argmax(-1)[:length]).all()
    assert not np.isin(tokens, task.excluded).any()


@pytest.mark.parametrize(
    "changes, said",
    [
        (dict(metrics=("rouge9",)), "seq2seq.metrics: metrics rouge9"),
        (dict(metrics=()), "seq2seq.metrics names none"),
        (dict(max_target_length=65), "longer than the position table"),
        (dict(decoder_start="encoder", layers=1), "as many layers as the encoder, 2, not 1"),
    ],
)
def test_what_does_not_fit_is_a_problem(changes, said):
    assert said in SequenceToSequence.problems(config_of(**changes))[0]


# A run


def write_examples(path, number: int, seed: int) -> None:
    """Sources with one of two words, of which the target depends."""
    draw, lines = random.Random(seed), []
    for _ in range(number):
        words = draw.choices(FILLERS, k=draw.randint(3, 16))
        word = draw.choice(("king", "house"))
        words[draw.randrange(len(words))] = word
        target = {"king": "he was the king of the land", "house": "it is in her house by the sea now"}[word]
        lines.append(" ".join(words) + "\t" + target + "\n")
    path.write_text("".join(lines))


def run_config(folder, **changes):
    config = config_of(beams=2, max_target_length=16)
    config.optimizer.learning_rate = 1e-2
    config.optimizer.groups = ()
    config.model.dropout = 0.1
    config.task.update({name: str(folder / f"{name}.tsv") for name in ("train", "valid", "test")})
    config.task.update(dict(epochs=10, sizes=1))
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
    return config


def lines_of(workdir) -> list[dict]:
    return [{key: value for key, value in line.items() if key not in CLOCK} for line in read_metrics(workdir)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    for seed, (name, number) in enumerate((("train", 90), ("valid", 20), ("test", 20))):
        write_examples(folder / f"{name}.tsv", number, seed)
    return folder


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("seq2seq") / "run"
    assert run_on(run_config(folder), workdir) == 0
    return workdir


def test_a_run_learns_and_its_results_have_signatures(folder, finished, tmp_path, monkeypatch, capsys):
    results = json.loads((finished / "results.json").read_text())
    assert results["metric"] == "bleu" and results["valid"]["bleu"] > 60 and results["test"]["chrf"] > 60
    assert results["signatures"]["bleu"].startswith("nrefs:1|case:mixed|eff:no|tok:13a")
    assert Checkpoints(finished / BEST, read_only=True).steps() == [results["step"]]
    losses = [line["seq2seq_nll"] for line in lines_of(finished) if "seq2seq_nll" in line]
    assert losses[-1] < 0.4 * losses[0]
    source, target = (folder / "train.tsv").read_text().splitlines()[0].split("\t")
    [given, same] = load(finished).predict([source, [source[:20], source[20:].strip()]])
    assert given["text"] == target and given["score"] < 0 and set(same) == {"text", "score"}
    with pytest.raises(InputError, match=r"input 0: \[3\] is neither"):
        load(finished).predict([[3]])
    output = tmp_path / "out.txt"
    flags = [f"--workdir={finished}", f"--input={folder / 'test.tsv'}", f"--output={output}", "--score"]
    monkeypatch.setattr(sys, "argv", ["predict", *flags])
    assert predict.main() == 0
    said = capsys.readouterr().out
    assert f"chrf {results['test']['chrf']:.4g}" in said and "chrf: nrefs:1|" in said
    references = [(line.split("\t")[1],) for line in (folder / "test.tsv").read_text().splitlines()]
    assert generation.score(references, output.read_text().splitlines(), ("bleu",), "13a")["bleu"] == pytest.approx(
        results["test"]["bleu"]
    )


class Killed(BaseException):
    """The end of a process, as far as files are concerned."""


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_bits(folder, finished, tmp_path, monkeypatch):
    training, save = TaskFeed.training, Checkpoints.save

    def saved(self, *arguments):
        save(self, *arguments)
        self.wait()

    def killed(self, start, part=None):
        for number, batch in enumerate(training(self, start, part), start):
            if number == 15 and start == 0:
                raise Killed
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(TaskFeed, "training", killed)
        patch.setattr(Checkpoints, "save", saved)
        with pytest.raises(Killed):
            run_on(run_config(folder), tmp_path / "run")
    assert run_on(run_config(folder), tmp_path / "run") == 0
    assert lines_of(tmp_path / "run") == lines_of(finished)
    assert (tmp_path / "run" / "results.json").read_text() == (finished / "results.json").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes", [dict(mesh__data=2, mesh__fsdp=2, mesh__tensor=2), dict(accumulation=2)], ids=["mesh", "accumulation"]
)
def test_loss_does_not_depend_on_how_a_step_is_divided(folder, finished, tmp_path, changes):
    devices = 8 if "mesh__data" in changes else 1
    changes = changes | dict(task__epochs=1, optimizer__warmup_steps=0)
    alone = tmp_path / "alone"
    assert run_on(run_config(folder, task__epochs=1), alone) == 0
    assert run_on(run_config(folder, **changes), tmp_path / "run", devices) == 0
    lines, others = lines_of(tmp_path / "run"), lines_of(alone)
    assert len(lines) == len(others)
    for line, expected in zip(lines, others):
        for key in expected.keys() - {"mfu"}:
            np.testing.assert_allclose(line[key], expected[key], rtol=5e-4, atol=5e-5)


def test_a_decoder_can_start_from_the_encoder(folder, finished, tmp_path):
    config = run_config(
        folder,
        init__path=str(finished),
        task__epochs=1,
        seq2seq__decoder_start="encoder",
        task__valid="",
        task__test="",
    )
    config.optimizer.learning_rate = 1e-12
    assert run_on(config, tmp_path / "run") == 0
    params = Checkpoints(tmp_path / "run" / "checkpoints", read_only=True).read_params(6)
    ours, theirs = params["seq2seq"]["layers"], params["encoder"]["layers"]
    for name in ("attention", "mlp"):
        jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=1e-7), ours[name], theirs[name])
    assert np.abs(ours["cross"]["query"]["kernel"] - theirs["attention"]["query"]["kernel"]).max() > 1e-3
