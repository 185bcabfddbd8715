"""Every knob of a run: its default, its meaning and the values it allows. Execution knobs may change on resume.

The defaults are those of the paper where it states one (Joshi et al., TACL 2020, section 4.2: its large model), else
those of the original program. The other files of this folder set the sizes of models and runs. Values that name an
entry of a registry (masking schemes, objectives, encoder parts, optimisers, schedules) are checked by the module of
that registry.
"""

from ml_collections import ConfigDict

from spanbert_jax.knobs import (
    Execution,
    Knob,
    Sections,
    above,
    at_least,
    at_most,
    below,
    defaults,
    even,
    fraction,
    one_of,
    positive,
)

KNOBS: Sections = {
    "name": Execution("base", "name of the experiment, in titles and model cards"),
    "seed": Knob(
        0, "initial weights, row order, masks and dropout all follow from it", at_least(0), below(2**31, "2^31")
    ),
    "seq_len": Knob(512, "tokens in a row, with [CLS] and [SEP]", at_least(8)),
    "batch_size": Knob(256, "rows of one step, over all devices and hosts", at_least(1)),
    "total_steps": Knob(2_400_000, "train steps of the whole run, warm-up included", at_least(1)),
    "phases": Knob(
        (),
        'changes within the run: "90000: seq_len=512 batch_size=64" from the step after 90,000 on; see '
        "spanbert_jax/phases.py for what may change",
        item=str,
    ),
    "accumulation": Execution(1, "microbatches per step; loss and gradient do not depend on it", at_least(1)),
    "log_every": Execution(100, "steps between two training lines of metrics.jsonl", at_least(1)),
    "compile_cache": Execution("", "folder that keeps compiled programs for the next start (trusted); empty: none"),
    "init": {
        "path": Execution("", "weights to start from: a run, a Hugging Face folder or a file; empty: random"),
        "fingerprint": Knob("", "of those weights, others are refused; empty: any, and config.json records it"),
        "size": Knob(
            "same",
            'layers and width of those weights: the "same", or fewer: "tile" fills this model with copies',
            one_of("same", "tile"),
        ),
        "vocabulary": Knob(
            "same",
            '"same": one begins with the other; for any, tokens that it lacks are means of all rows ("mean") or of '
            'those of their "subwords"',
            one_of("same", "mean", "subwords"),
        ),
        "positions": Knob(
            "same",
            'rows of its position table: the "same", or "tile" (repeat) or "interpolate" it to model.max_positions',
            one_of("same", "tile", "interpolate"),
        ),
    },
    "data": {
        "source": Knob(
            "embedded", '"embedded", or files: paths or globs, separated by commas (.txt, .jsonl, .json, .parquet)'
        ),
        "format": Knob(
            "auto",
            'of these files: "text", "jsonl", "json" (an array), "parquet" or "wiki"; auto: by suffix and content',
        ),
        "store": Execution(
            "", "folders made by scripts/prepare_data.py, separated by commas; read instead of data.source"
        ),
        "weights": Knob(
            (0.0,), "probability of each of several stores, as in 0.7,0.3; (0.0,): by their number of rows ..."
        ),
        "temperature": Knob(1.0, "... to the power 1 / temperature: a higher one draws small stores more often"),
        "vocab": Knob(
            "cased", '"cased", "uncased", "tiny" (embedded), a vocab.txt or tokenizer.json, or "store": its own'
        ),
        "lowercase": Knob(
            "auto",
            "auto: as the files of the vocabulary say; else yes if lower-casing and removing accents changes no entry",
            one_of("auto", "yes", "no"),
        ),
        "strip_accents": Knob(
            "auto",
            "remove accents, also vowel signs of many scripts; auto: as the vocabulary's files say, else as lowercase",
            one_of("auto", "yes", "no"),
        ),
        "valid_fraction": Knob(
            0.005, "fraction of the documents held out, by a hash of their text (embedded: fixed ones)", fraction
        ),
        "blocks": Knob(
            "document", 'a block is whole sentences of a "document", a "sentence", or a "pair" of segments (for NSP)'
        ),
        "long_sentences": Knob(
            "cut", 'one that fits no block is "cut" at words; "lose": dropped as in docs/original.md, quirk 14'
        ),
        "short_seq_prob": Knob(
            0.0, 'with "pair": probability that the pairs of a document have a shorter, random length'
        ),
        "max_blocks_per_row": Knob(
            1, "1: one block per row, padded; more: packed rows, same loss with less padding", at_least(1)
        ),
        "threads": Execution(0, "threads of the input pipeline; 0: one per core. Never changes a batch", at_least(0)),
    },
    "masking": {
        "schemes": Knob(
            ("geometric_span",), "one is drawn for each block: entries of SCHEMES in spanbert_jax/data/schemes.py"
        ),
        "weights": Knob((1.0,), "relative frequency of each scheme"),
        "rate": Knob(0.15, "fraction of a block's tokens that are masked, rounded up", positive, at_most(1)),
        "geometric_p": Knob(
            0.2, "span length in words ~ Geometric(p), truncated to min_span..max_span and renormalised", fraction
        ),
        "min_span": Knob(1, "shortest span, in words", at_least(1)),
        "max_span": Knob(10, "longest span, in words", at_least(1)),
        "fixed_span": Knob(3, 'words in every span of the scheme "fixed_span"', at_least(1)),
        "tagged_fraction": Knob(
            0.5, 'fraction of draws of "named_entity" and "noun_phrase" that take a tagged span, else a word', fraction
        ),
        "touching_tags": Knob(
            "apart",
            'tagged spans that touch are "apart", or "fused": one, as in the original (docs/original.md, quirk 22)',
            one_of("apart", "fused"),
        ),
        "mask_fraction": Knob(0.8, "fraction of the masked spans that become [MASK] ..."),
        "random_fraction": Knob(0.1, "... and that become random tokens; the rest keep their text"),
        "replacement": Knob(
            "span", 'that choice is drawn once per "span" (the paper) or per "token" (BERT)', one_of("span", "token")
        ),
        "boundaries": Knob(
            "external",
            'SBO sees the tokens just outside a span ("external") or its first and last ("internal")',
            one_of("external", "internal"),
        ),
        "max_targets": Knob(
            15, "most tokens of a span that SBO predicts: the length of its position table", at_least(1)
        ),
    },
    "objectives": {
        "mlm_weight": Knob(1.0, "weight of the masked language model", at_least(0)),
        "sbo_weight": Knob(1.0, "weight of the span boundary objective; 0 leaves its head out", at_least(0)),
        "nsp_weight": Knob(
            0.0, 'weight of next sentence prediction (data.blocks = "pair"); 0 leaves its head out', at_least(0)
        ),
        "z_loss": Knob(
            0.0,
            "times the squared logarithm of the softmax's denominator is added to the loss of MLM and SBO",
            at_least(0),
        ),
        "sbo_count_offset": Knob(
            0, "1: the original's denominator, one more than the targets (docs/original.md, quirk 6)", at_least(0)
        ),
    },
    "model": {
        "layers": Knob(24, "encoder layers", at_least(1)),
        "width": Knob(1024, "D, of hidden states", at_least(1)),
        "heads": Knob(16, "H, attention heads", at_least(1)),
        "mlp_width": Knob(4096, "F, inner width of the feed-forward sublayer", at_least(1)),
        "max_positions": Knob(
            512, "rows of the position table: the longest sequence that the model can read", at_least(1)
        ),
        "sbo_position_width": Knob(200, "width of the SBO head's position embeddings", at_least(1)),
        "norm": Knob("layer", "normalisation, layer or rms: an entry of NORMS in spanbert_jax/model/parts.py"),
        "norm_bias": Knob(True, "whether LayerNorm adds a bias"),
        "norm_placement": Knob("post", "a sublayer is normalised after (post) or before it (pre): entry of PLACEMENTS"),
        "first_norm": Knob(True, "pre: whether the first attention is preceded by a norm too; ModernBERT: no"),
        "embedding_norm": Knob(True, "whether the embeddings are normalised"),
        "qk_norm": Knob(False, "whether queries and keys are normalised, each head by itself"),
        "positions": Knob("learned", "how the model knows positions, learned or rotary: an entry of POSITIONS"),
        "rope_base": Knob(10_000.0, "rotary: longest wavelength / 2 pi, in positions ...", above(1)),
        "local_rope_base": Knob(10_000.0, "... and that of layers with a window", above(1)),
        "token_types": Knob(True, "whether the two segments of a pair have embeddings"),
        "tied_output": Knob(True, "whether the vocabulary projection is the table of word embeddings"),
        "feed_forward": Knob("gelu", "feed-forward sublayer, gelu, geglu or swiglu: an entry of FEED_FORWARDS"),
        "attention_pattern": Knob(
            "global", "positions that layers read, global, local, spans or spans_and_global: an entry of PATTERNS"
        ),
        "window": Knob(128, "local: positions that a position reads around itself, half of them on each side", even),
        "global_every": Knob(
            3, "local, spans_and_global: every n-th layer, from the first, reads all positions", at_least(1)
        ),
        "span_length": Knob(32, "spans, spans_and_global: positions of a span, which read each other", at_least(1)),
        "extensions": Knob((), "what is added to the encoder: entries of EXTENSIONS in spanbert_jax/model", item=str),
        "bias": Knob(True, "whether linear maps of the encoder layers add a bias"),
        "dropout": Knob(0.1, "rate of dropout after embeddings, attention and feed-forward", fraction),
        "attention_dropout": Knob(0.1, "rate of dropout on attention probabilities; flash kernels need 0", fraction),
        "init_std": Knob(0.02, "standard deviation of initial kernels and embeddings", positive),
        "depth_scaled_init": Knob(
            False, "divide it by the root of 2 x layers in kernels that write to the residual stream (Megatron)"
        ),
        "norm_eps": Knob(1e-12, "epsilon of the normalisation", positive),
        "output_bias": Knob(
            "zeros", "initial vocabulary biases; unigram: log-frequencies of the corpus", one_of("zeros", "unigram")
        ),
        "dtype": Knob(
            "auto",
            "type of activations; auto: bfloat16 on TPUs and GPUs from Ampere on, else float32",
            one_of("auto", "float32", "bfloat16"),
        ),
        "attention": Execution(
            "auto", '"xla", flash kernel "cudnn" (GPU) or "splash" (TPU), or "auto": a kernel where possible'
        ),
        "remat": Execution(
            "none", "what the backward pass recomputes; dots: all but matrix products", one_of("none", "dots", "full")
        ),
        "scan_unroll": Execution(
            1, "layers per iteration of the scan over layers; more compile longer and can run faster", at_least(1)
        ),
    },
    "optimizer": {
        "name": Knob("adamw", "an entry of OPTIMIZERS in spanbert_jax/optimizers"),
        "learning_rate": Knob(1e-4, "peak learning rate", positive),
        "warmup_steps": Knob(10_000, "steps of linear warm-up from 0", at_least(0)),
        "schedule": Knob("linear", "after warm-up: an entry of SCHEDULES in spanbert_jax/optimizers"),
        "decay_steps": Knob(0, 'schedule "wsd": last steps, in which the rate falls to 0', at_least(0)),
        "decay_shape": Knob("1-sqrt", 'schedule "wsd": how it falls: an entry of DECAYS, linear or 1-sqrt'),
        "steps_per_epoch": Knob(
            0,
            'schedule "original" returns to the peak for one step after so many (docs/original.md, quirk 11); 0: never',
            at_least(0),
        ),
        "beta1": Knob(0.9, "decay of the first moment", fraction),
        "beta2": Knob(0.999, "decay of the second moment", fraction),
        "eps": Knob(1e-8, "added to the root of the second moment", positive),
        "weight_decay": Knob(0.1, "decoupled, multiplied by the learning rate", at_least(0)),
        "decay_biases_and_norms": Knob(
            False, "True: decay every parameter, as the original does (docs/original.md, quirk 12)"
        ),
        "matrix_rate": Knob(
            1.0, "muon: rate of matrices (kernels but for outputs), as a multiple of the others'", positive
        ),
        "matrix_momentum": Knob(0.95, "muon: decay of the moving average of their gradients", fraction),
        "matrix_dtype": Knob("float32", "muon: type in which they are made orthogonal", one_of("float32", "bfloat16")),
        "groups": Knob(
            (), '"REGEX rate=0.1 decay=0": factors for parameters whose path matches; the first match counts', item=str
        ),
        "layer_decay": Knob(
            1.0,
            "rate of each encoder layer, as a factor of the next one's; of the embeddings, of the first's",
            positive,
        ),
        "frozen_layers": Knob(
            0, "encoder layers, from the first, that keep their parameters, as do the embeddings then", at_least(0)
        ),
        "clip_norm": Knob(1.0, "largest global gradient norm; 0: no clipping", at_least(0)),
        "state_dtype": Knob(
            "float32",
            "type of the moments between steps; bfloat16 is rounded stochastically",
            one_of("float32", "bfloat16"),
        ),
        "average": Knob(
            "none",
            "of parameters, evaluated and exported in their place: ema or schedule_free (optimizers/averages.py)",
        ),
        "average_decay": Knob(0.999, "ema: decay of the average", fraction),
        "bad_steps": Knob(
            "stop",
            "one that is not finite, or spikes, stops the run; skip: changes nothing; rewind: restores the last "
            "checkpoint, and the run goes on with the batches after it",
            one_of("stop", "skip", "rewind"),
        ),
        "spike": Knob(0.0, "a gradient norm above so many times its average is bad too; 0: none", at_least(0)),
        "divide_by_targets": Knob(
            False, "True: divide gradients by the MLM targets again, as the original (docs/original.md, quirk 10)"
        ),
    },
    "mesh": {
        "data": Execution(-1, "replicas of the model; -1 on one axis: all remaining devices"),
        "fsdp": Execution(1, "shards of parameters and optimiser state, and of the batch"),
        "tensor": Execution(1, "shards of heads, feed-forward and vocabulary"),
        "slices": Execution(0, "TPU slices or GPU nodes on a slower network; 0: as the devices report", at_least(0)),
    },
    "tracking": {
        "trackers": Execution(
            (),
            'beside metrics.jsonl and TensorBoard: entries of TRACKERS in spanbert_jax/trackers, as in "mlflow", or '
            'with where they report to, as in "mlflow:http://HOST:5000"',
            item=str,
        ),
        "project": Execution("spanbert_jax", "of the runs there"),
    },
    "profile": {
        "first": Execution(0, "first step that jax.profiler records into workdir/profile ...", at_least(0)),
        "steps": Execution(0, "... and number of steps it records; 0: none", at_least(0)),
    },
    "eval": {
        "every": Execution(5_000, "steps between evaluations; also at the end. 0: never", at_least(0)),
        "batch_size": Execution(256, "rows of one evaluation batch", at_least(1)),
        "max_rows": Execution(
            4_096, "most rows of held-out text, evenly spread, always the same and masked the same; 0: all", at_least(0)
        ),
        "masking": Execution(
            (),
            'changes of config.masking for the masks of the evaluation, as in "rate=0.15"; compare runs by the same',
            item=str,
        ),
        "suites": Execution(
            (), 'evaluations beside the losses: "cloze", "pairs=FILE", ... (spanbert_jax/zeroshot)', item=str
        ),
    },
    "checkpoint": {
        "every": Execution(5_000, "steps between checkpoints; also at the end", at_least(1)),
        "keep_last": Execution(2, "newest checkpoints kept", at_least(1)),
        "keep_every": Execution(0, "also keeps those whose step is a multiple of this; 0: none", at_least(0)),
        "export_every": Execution(
            0,
            "steps between exports for Hugging Face to exports/step_N; a multiple of eval.every. 0: none",
            at_least(0),
        ),
    },
}


def get_config(variant: str = "") -> ConfigDict:
    """Returns the defaults of all knobs."""
    if variant:
        raise ValueError(f"configs/base.py has no variants, asked for {variant!r}; see configs/spanbert.py")
    return ConfigDict(defaults(KNOBS))
