"""BERT (Devlin et al. 2019), and so SpanBERT; its names are the common form."""

from spanbert_jax.interop.families.family import Family, missing_sizes, unlike

# Key of config.model -> key of config.json, and its default where a file may leave it out.
MODEL_KEYS = {
    "layers": ("num_hidden_layers", None),
    "width": ("hidden_size", None),
    "heads": ("num_attention_heads", None),
    "mlp_width": ("intermediate_size", None),
    "max_positions": ("max_position_embeddings", 512),
    "dropout": ("hidden_dropout_prob", 0.1),
    "attention_dropout": ("attention_probs_dropout_prob", 0.1),
    "init_std": ("initializer_range", 0.02),
    "norm_eps": ("layer_norm_eps", 1e-12),
}
# Keys of a config.json that identify a BERT encoder such as ours.
KIND = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute", "is_decoder": False}
# The values of config.model that make an encoder BERT's.
PARTS = {
    "norm": "layer",
    "norm_bias": True,
    "norm_placement": "post",
    "embedding_norm": True,
    "qk_norm": False,
    "positions": "learned",
    "token_types": True,
    "tied_output": True,
    "feed_forward": "gelu",
    "attention_pattern": "global",
    "bias": True,
    "extensions": (),
}


def settings(config) -> dict:
    """Returns the keys of config.json that describe a config's encoder."""
    values = {theirs: config.model[ours] for ours, (theirs, _) in MODEL_KEYS.items()}
    return KIND | values | {"type_vocab_size": 2, "tie_word_embeddings": True}


def fields(hf_config: dict) -> tuple[dict, list[str]]:
    """Returns the keys of config.model that a config.json determines, and what is wrong with it."""
    problems = [
        f"{key} is {hf_config[key]!r}, must be {value!r}"
        for key, value in KIND.items()
        if hf_config.get(key, value) != value
    ]
    problems += missing_sizes(hf_config, [theirs for theirs, default in MODEL_KEYS.values() if default is None])
    return PARTS | {ours: hf_config.get(theirs, default) for ours, (theirs, default) in MODEL_KEYS.items()}, problems


BERT = Family(
    title="BERT",
    model_type="bert",
    classes={
        name: name
        for name in (
            "BertModel",
            "BertForMaskedLM",
            "BertForPreTraining",
            "BertForQuestionAnswering",
            "BertForSequenceClassification",
            "BertForTokenClassification",
        )
    },
    inputs=("input_ids", "token_type_ids", "attention_mask"),
    has_pooler=True,
    differences=lambda config: unlike(config, PARTS),
    tensors=dict,
    common=dict,
    settings=settings,
    fields=fields,
)
