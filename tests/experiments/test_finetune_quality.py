"""The comparison with transformers: made files, what is done again after an end, the table; the other side learns."""

import json
import sys

import numpy as np
import pytest

from spanbert_jax import commands
from spanbert_jax.configs.tasks import classification, glue, squad, tagging
from spanbert_jax.experiments import finetune_quality as quality
from spanbert_jax.experiments.finetune_quality import OURS, THEIRS, Case, finetune_quality, make_files
from spanbert_jax.labelled.questions import Question
from spanbert_jax.labelled.table import Row as TextRow
from spanbert_jax.labelled.tagged import Tagged
from spanbert_jax.tasks import TASKS
from tests.finetuning.conftest import task_config, write_examples
from tests.small import MODEL, TOKENIZER


@pytest.fixture
def data(tmp_path):
    """A folder in the layout of the data sets, with little in it."""
    folder = tmp_path / "input"
    for name in ("sentiment_polarity", "squad", "pairs_glue/RTE"):
        (folder / name).mkdir(parents=True)
    for label in ("neg", "pos"):
        text = "".join(f"{label} caf\u00e9 {number}\n" for number in range(25))
        (folder / "sentiment_polarity" / f"rt-polarity.{label}").write_text(text, encoding="latin-1")
    for split in ("train", "dev"):
        (folder / "pairs_glue" / "RTE" / f"{split}.tsv").write_text("")
    questions = [[{"id": f"{i}-{j}"} for j in range(3)] for i in range(9)]
    articles = [{"paragraphs": [{"context": "c", "qas": three} for three in questions]}]
    (folder / "squad" / "dev-v1.1.json").write_text(json.dumps({"data": articles}))
    return folder


def test_made_files_divide_the_reviews_and_take_a_part_of_the_questions(data, tmp_path):
    make_files(data, tmp_path / "made")
    for label in ("neg", "pos"):
        train, valid = (
            (tmp_path / "made" / "polarity" / f"{split}.{label}").read_text(encoding="utf-8").splitlines()
            for split in ("train", "valid")
        )
        assert len(valid) == 3 and len(train) == 22 and not set(train) & set(valid)
        assert valid[0] == f"{label} caf\u00e9 0"
    [article] = json.loads((tmp_path / "made" / "squad" / "dev.json").read_text())["data"]
    assert [[qa["id"] for qa in of["qas"]] for of in article["paragraphs"]] == [["0-0"], ["3-1"], ["6-2"]]


def test_only_what_is_missing_is_done_and_shown_with_its_spread(data, tmp_path, monkeypatch, capsys):
    case = Case("RTE", glue.get_config("rte"), "accuracy", 1, "pairs_glue/RTE/train", "pairs_glue/RTE/dev")
    monkeypatch.setattr(quality, "CASES", {"rte": Case(**{**vars(case), "is_fraction": True})})
    done: list[tuple[str, int]] = []
    ended: list[str] = []

    def scores(side, of):
        def found(config, workdir=None):
            assert config.task.train == str(data / "pairs_glue" / "RTE" / "train") and config.init.path == "bert"
            if len(done) == 2 and not ended:
                return None
            done.append((side, config.seed))
            return {"valid": {"accuracy": of + config.seed / 10}}

        return found

    monkeypatch.setattr(quality, "our_scores", scores(OURS, 0.6))
    monkeypatch.setattr(quality, "their_scores", scores(THEIRS, 0.5))
    figures = finetune_quality(data, tmp_path / "out", "bert")
    assert done == [(OURS, 0), (THEIRS, 0)] and figures["rte_ours_seeds"] == 1
    ended.append("by a signal")
    figures = finetune_quality(data, tmp_path / "out", "bert", ["rte"])
    assert done[2:] == [(OURS, 1), (THEIRS, 1), (OURS, 2), (THEIRS, 2)]
    assert figures == pytest.approx(
        {
            "rte_ours_mean": 70,
            "rte_ours_std": 10,
            "rte_ours_seeds": 3,
            "rte_transformers_mean": 60,
            "rte_transformers_std": 10,
            "rte_transformers_seeds": 3,
        }
    )
    assert "| RTE | accuracy, valid | 1 | 3 | 70.00 ± 10.00 | 60.00 ± 10.00 |" in capsys.readouterr().out


@pytest.mark.parametrize("flags, said", [([], "needs --input"), (["--tasks=rte,xyz"], "--tasks: there is no xyz")])
def test_what_cannot_be_compared_is_refused(data, tmp_path, monkeypatch, capsys, flags, said):
    places = [f"--input={data}", f"--workdir={tmp_path}", "--init=bert"] if flags else []
    monkeypatch.setattr(sys, "argv", ["spanbert", "benchmark", "finetune_quality", *places, *flags])
    with pytest.raises(SystemExit) as end:
        commands.main()
    assert end.value.code == 2 and said in capsys.readouterr().err


@pytest.mark.parametrize("name", ["classification", "tagging", "qa"])
def test_transformers_has_the_same_rows_and_scores_the_right_outputs_in_full(tmp_path, name):
    """Its tokens are those of ours, and logits that are right everywhere get the highest score."""
    pytest.importorskip("torch", reason="compares with torch")
    transformers = pytest.importorskip("transformers", reason="compares with transformers")
    from spanbert_jax.experiments.transformers_finetuning import KINDS

    TOKENIZER.save(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    examples = {
        "classification": [TextRow("a", ("the king of it", "in the house"), "1"), TextRow("b", ("her", "was"), "0")],
        "tagging": [Tagged(("the", "king", "of", "Zürich"), (("PER", 1, 1), ("LOC", 3, 3))), Tagged(("her",), ())],
        "qa": [
            Question("a", "", "the king was in the house of it", "where was he?", (("the house", 16),)),
            Question("b", "", "it was her king", "who?", (("her king", 7),)),
        ],
    }[name]
    config = {"classification": classification, "tagging": tagging, "qa": squad}[name].get_config(
        {"classification": "table", "tagging": "tokens", "qa": "v1"}[name]
    )
    config.seq_len = 20 if name == "qa" else 32
    if name == "qa":
        config.qa.update(dict(stride=4, max_query_length=8))
    labels = TASKS[name].labels_of(config, examples)
    task, kind = TASKS[name](config, TOKENIZER, labels), KINDS[name]
    features = kind.features(task, tokenizer, examples)
    rows = task.features(examples, training=True)
    assert [feature["input_ids"] for feature in features] == [row.arrays["tokens"].tolist() for row in rows]

    def right(feature):
        if name == "classification":
            return np.eye(2)[feature["labels"]]
        if name == "tagging":
            return np.eye(len(task.classes))[np.maximum(feature["labels"], 0)]
        length = len(feature["input_ids"])
        places = feature["start_positions"], feature["end_positions"]
        return np.stack([np.eye(length)[place] * (place > 0) for place in places], axis=-1)

    scores = task.score(examples, kind.decoded(task, examples, features, list(map(right, features))))
    assert scores[task.metric] == (1 if name == "classification" else 100)


def test_transformers_learns_from_the_same_config(tmp_path):
    pytest.importorskip("torch", reason="compares with torch")
    transformers = pytest.importorskip("transformers", reason="compares with transformers")
    from spanbert_jax.experiments.transformers_finetuning import finetune_transformers

    for seed, (name, number) in enumerate((("train", 90), ("valid", 30), ("test", 20))):
        write_examples(tmp_path / f"{name}.tsv", number, seed)
    sizes = dict(hidden_size=MODEL["width"], num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)
    config = transformers.BertConfig(vocab_size=TOKENIZER.vocab_size, max_position_embeddings=64, **sizes)
    transformers.BertModel(config).save_pretrained(tmp_path / "bert")
    TOKENIZER.save(tmp_path / "bert")
    changes = dict(optimizer__learning_rate=3e-3, task__epochs=16, model__dropout=0.0, model__attention_dropout=0.0)
    ours = task_config(tmp_path, init__path=str(tmp_path / "bert"), classification__pooling="cls", **changes)
    scores = finetune_transformers(ours)
    assert scores["valid"]["accuracy"] > 0.8 and scores["test"]["accuracy"] > 0.7
