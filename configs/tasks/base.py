"""Every knob of fine-tuning beyond those of configs/base.py, and the recipe that the files of this folder start from.

A config has the section "task" and the section of its task. The recipe is that of the paper (Joshi et al., TACL 2020,
section 4.2 and appendix): Adam, warm-up over a tenth of the steps, linear decay, the best checkpoint by the metric on
the validation data.
"""

from ml_collections import ConfigDict

from spanbert_jax.configs import base
from spanbert_jax.knobs import Execution, Knob, Sections, at_least, defaults, fraction, one_of, positive

KNOBS: Sections = {
    "task": {
        "name": Knob("", "an entry of TASKS in spanbert_jax/tasks"),
        "train": Knob("", "labelled examples to train on: files, separated by commas, or tfds:NAME/SPLIT"),
        "valid": Knob("", "examples that choose the best checkpoint; empty: the last one is taken"),
        "folds": Knob(
            0, "parts of task.train for cross-validation, of which one is validated on; 0: none", at_least(0)
        ),
        "fold": Knob(1, "the part that is validated on, from 1", at_least(1)),
        "test": Execution("", "examples that the best checkpoint is scored on at the end; empty: none"),
        "epochs": Knob(4, "passes over the training examples; they set total_steps", at_least(1)),
        "warmup_fraction": Knob(0.1, "of the steps; sets optimizer.warmup_steps", fraction),
        "evaluations_per_epoch": Knob(1, "evaluations and checkpoints; they set eval.every", at_least(1)),
        "patience": Knob(0, "evaluations without improvement after which a run ends; 0: never", at_least(0)),
        "sizes": Knob(4, "sizes of batches, to which shorter examples are padded; each is compiled", at_least(1)),
        "reinitialised_layers": Knob(0, "last encoder layers that start from scratch", at_least(0)),
    },
    "classification": {
        "format": Knob(
            "table",
            "table; glue:NAME, of its folder and split, as in RTE/train; labels: a file of texts for each label",
        ),
        "text": Knob(("text",), "columns of the text, or of the two texts, by name or number from 0"),
        "label": Knob("label", "column of the label"),
        "regression": Knob(False, "labels are numbers, to be predicted as such"),
        "pooling": Knob(
            "cls", "cls: a tanh layer on the state of [CLS]; mean: the mean of all states", one_of("cls", "mean")
        ),
        "metric": Knob(
            "accuracy",
            "that chooses the best checkpoint",
            one_of("accuracy", "f1", "macro_f1", "matthews", "pearson", "spearman", "mean_correlation"),
        ),
        "positive": Knob("1", "label that f1 is of"),
        "windows": Knob(
            1,
            "windows of seq_len tokens that a long text is divided into, at most; they stand side by side in a row",
            at_least(1),
        ),
        "overlap": Knob(32, "tokens that neighbouring windows share", at_least(0)),
    },
    "qa": {
        "no_answer": Knob(False, "whether a question may have no answer, as in SQuAD 2.0"),
        "stride": Knob(
            128,
            "tokens by which neighbouring windows overlap, as in transformers; BERT's doc_stride is the step",
            at_least(0),
        ),
        "max_query_length": Knob(64, "tokens after which a question is cut", at_least(1)),
        "max_answer_length": Knob(30, "tokens of the longest answer that is predicted", at_least(1)),
        "n_best": Knob(20, "answers that are listed for a question", at_least(1)),
    },
    "coref": {
        "max_segments": Knob(3, "segments of seq_len tokens that are trained on of a document at once", at_least(1)),
        "max_width": Knob(30, "tokens of the longest mention", at_least(1)),
        "top_spans_ratio": Knob(0.4, "spans kept as mentions, as a fraction of the tokens of a document", positive),
        "max_top_spans": Knob(3900, "spans kept as mentions, at most", at_least(1)),
        "max_antecedents": Knob(50, "antecedents of a span that are scored closely", at_least(1)),
        "depth": Knob(2, "times that antecedents are scored; spans are refined in between", at_least(1)),
        "ffnn_width": Knob(3000, "width of the hidden layers of the head", at_least(1)),
        "feature_width": Knob(20, "width of the embeddings of widths, distances, speakers and genres", at_least(1)),
        "dropout": Knob(0.3, "in the head", fraction),
        "language": Knob("en", "of raw text, to divide it into sentences; none: one on each line"),
    },
    "tagging": {
        "words": Knob("", "field of the words, or their column from 0; empty: words or tokens, or the first column"),
        "tags": Knob("", "field of the tags or spans, or their column; empty: tags, ner_tags, ner or spans; the last"),
        "decoder": Knob(
            "tokens",
            "tokens: the first token of each word is classified; spans: each span is, and spans may be nested",
            one_of("tokens", "spans"),
        ),
        "scheme": Knob("IOB2", "of the tags that tokens get, whatever that of the files is", one_of("IOB2", "BIOES")),
        "context": Knob(0, "tokens of the same document that are shown before and after a sentence", at_least(0)),
        "max_width": Knob(10, "words of the longest span that the decoder spans finds", at_least(1)),
        "nested": Knob(False, "whether the decoder spans may predict spans within others"),
    },
    "seq2seq": {
        "source": Knob("source", "column or field of the source, by name or number from 0; a text, or its sentences"),
        "target": Knob(
            "target", "of the target; a field may have several references, the first of which is trained on"
        ),
        "windows": Knob(
            1,
            "windows of seq_len tokens that a long source is divided into, at most; they stand side by side in a row",
            at_least(1),
        ),
        "overlap": Knob(32, "tokens that neighbouring windows share", at_least(0)),
        "max_target_length": Knob(128, "tokens of the longest target; longer ones are cut", at_least(2)),
        "layers": Knob(0, "of the decoder; 0: as many as the encoder has", at_least(0)),
        "decoder_start": Knob(
            "random",
            "random; encoder: self-attention and feed-forward start from the encoder's (Rothe et al. 2020)",
            one_of("random", "encoder"),
        ),
        "label_smoothing": Knob(0.1, "probability that is spread over the vocabulary in training", fraction),
        "beams": Knob(4, "hypotheses of the search; 1: greedy", at_least(1)),
        "length_penalty": Knob(
            0.6,
            "a: scores are log-probabilities / ((5 + tokens) / 6)^a, so higher ones favour longer texts",
            at_least(0),
        ),
        "metrics": Knob(("bleu", "chrf"), "of bleu, chrf, rouge1, rouge2, rougeL; the first chooses the checkpoint"),
        "bleu_tokenizer": Knob(
            "13a",
            "of sacrebleu; zh and char for Chinese, intl beyond Latin scripts",
            one_of("13a", "intl", "zh", "char", "none"),
        ),
    },
    "relations": {
        "scorer": Knob(
            "tacred",
            "metric and format of predictions; tacred: micro F1 without relations.no_relation; semeval: macro F1",
            one_of("tacred", "semeval"),
        ),
        "mode": Knob(
            "ner",
            "how a row shows the two entities; ner: as a token of their type; ner_text: and their words after the"
            " sentence; text: between markers; text_ner: and their types after the sentence",
            one_of("ner", "ner_text", "text", "text_ner"),
        ),
        "pooling": Knob(
            "cls",
            "cls: a tanh layer on the state of [CLS]; entities: the states at the first special token of both entities",
            one_of("cls", "entities"),
        ),
        "no_relation": Knob("no_relation", "label that TACRED's F1 leaves out; empty: none"),
    },
}


def get_config(task: str = "", **changes) -> ConfigDict:
    """Returns the recipe for a task, with `changes` of its section."""
    if not task:
        raise ValueError("configs/tasks/base.py is no experiment: give a file of a task beside it")
    config = ConfigDict(defaults(base.KNOBS | {name: KNOBS[name] for name in ("task", task) if name in KNOBS}))
    config.name = task
    config.batch_size = 32
    config.log_every = 20
    config.task.name = task
    config.optimizer.update(dict(learning_rate=2e-5, weight_decay=0.01, eps=1e-6))
    config.model.update(dict(dropout=0.1, attention_dropout=0.1))
    config.eval.batch_size = 64
    config.checkpoint.keep_last = 1
    if task in KNOBS:
        config[task].update(changes)
    return config
