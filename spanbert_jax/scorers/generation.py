"""BLEU and chrF by sacrebleu, ROUGE by rouge-score: the libraries' own numbers, with their signatures.

Source: Papineni et al. 2002, Popović 2015, Post 2018; Lin 2004.
"""

import importlib.metadata
from collections.abc import Sequence
from typing import Any

from spanbert_jax.errors import InputError

SACREBLEU, ROUGE = ("bleu", "chrf"), ("rouge1", "rouge2", "rougeL")
METRICS = (*SACREBLEU, *ROUGE)
References = Sequence[Sequence[str]]  # of each text, at least one


def score(references: References, texts: Sequence[str], metrics: Sequence[str], tokenizer: str) -> dict[str, float]:
    """Returns each metric in percent: BLEU and chrF of the corpus, mean F1 of ROUGE with stemming.

    Of several references ROUGE takes the best one for each text, as rouge-score does.

    Args:
      references: of each text.
      texts: as many.
      metrics: of METRICS.
      tokenizer: of BLEU, a name that sacrebleu knows.

    Raises:
      InputError: a library is missing.
    """
    scores = {}
    for name in metrics:
        if name in SACREBLEU:
            scores[name] = _sacrebleu(name, tokenizer).corpus_score(list(texts), _streams(references)).score
    if rouge := [name for name in metrics if name in ROUGE]:
        scorer = rouge_scorer(rouge)
        found = [scorer.score_multi(list(of_text), text) for of_text, text in zip(references, texts)]
        for name in rouge:
            scores[name] = 100 * sum(of_text[name].fmeasure for of_text in found) / len(found)
    return {name: float(scores[name]) for name in metrics}


def signatures(references: References, metrics: Sequence[str], tokenizer: str) -> dict[str, str]:
    """Returns what is to be reported with each metric; see score."""
    counts = {str(len(of_text)) for of_text in references}
    number = counts.pop() if len(counts) == 1 else "var"
    given: dict[str, str] = {}
    for name in metrics:
        if name in SACREBLEU:
            scorer = _sacrebleu(name, tokenizer)
            scorer.corpus_score([of_text[0] for of_text in references], _streams(references))  # counts references
            given[name] = str(scorer.get_signature())
        else:
            version = importlib.metadata.version("rouge-score")
            given[name] = f"nrefs:{number}|best:max|stem:porter|case:lc|mean:f1|rouge-score:{version}"
    return given


def problems(metrics: Sequence[str]) -> list[str]:
    """Returns what prevents the use of metrics, one line each."""
    if unknown := [name for name in metrics if name not in METRICS]:
        return [f"metrics {', '.join(unknown)} are none of {', '.join(METRICS)}"]
    try:
        if any(name in SACREBLEU for name in metrics):
            _sacrebleu(SACREBLEU[0], "13a")
        if any(name in ROUGE for name in metrics):
            rouge_scorer(ROUGE)
    except InputError as error:
        return [str(error)]
    return []


def rouge_scorer(names: Sequence[str]) -> Any:
    """Returns rouge-score's scorer of some of ROUGE, with Porter's stemmer. Raises InputError: it is missing."""
    try:
        from rouge_score import rouge_scorer
    except ImportError as error:
        raise InputError("ROUGE needs rouge-score; pip install 'spanbert_jax[generation]'") from error
    return rouge_scorer.RougeScorer(list(names), use_stemmer=True)


def _sacrebleu(name: str, tokenizer: str) -> Any:
    try:
        from sacrebleu.metrics import BLEU, CHRF
    except ImportError as error:
        raise InputError("BLEU and chrF need sacrebleu; pip install 'spanbert_jax[generation]'") from error
    return BLEU(tokenize=tokenizer) if name == "bleu" else CHRF()


def _streams(references: References) -> list[list[str | None]]:
    """Returns references as sacrebleu takes them: the first ones of all texts, the second ones, ...; None for none."""
    most = max(map(len, references))
    return [[of_text[n] if n < len(of_text) else None for of_text in references] for n in range(most)]
