"""Every knob of a pretraining run, with its default: the one place where defaults stand.

The values are those of the paper where it states one (Joshi et al., TACL 2020, section 4.2: its large model), else those of the original
program. Sizes of models and runs are set by the other files of this folder.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    if variant:
        raise ValueError(f"configs/base.py has no variants, asked for {variant!r}; see configs/spanbert.py")
    config = ConfigDict()

    config.name = "base"  # what this experiment is called, in titles and model cards
    config.seed = 0  # initial weights, row order, masks and dropout all follow from it
    config.seq_len = 512  # tokens in a row, with [CLS] and [SEP]
    config.batch_size = 256  # rows of one update, over all devices and hosts
    config.total_steps = 2_400_000  # updates; warm-up counts among them
    config.accumulation = 1  # microbatches one update is cut into; the loss and gradient do not depend on it
    config.log_every = 100  # updates between two lines of metrics.jsonl
    config.compile_cache = (
        ""  # a folder that keeps compiled programs for the next start (of your own: it is trusted); "": none
    )

    config.init = init = ConfigDict()
    init.path = ""  # weights to start from: a run's workdir, a Hugging Face folder, or a file; "": random ones
    init.fingerprint = (
        ""  # of those weights: others are refused. "": whatever is there, and config.json says what it was
    )

    config.data = data = ConfigDict()
    data.source = "embedded"  # "embedded", or files (.txt, .jsonl, .parquet, also packed): a path or glob, several separated by commas
    data.store = (
        ""  # a folder made by scripts/prepare_data.py, or several separated by commas; read instead of `source`
    )
    data.weights = (0.0,)  # odds of each of several stores, as in 0.7,0.3; (0.0,): by their number of rows ...
    data.temperature = 1.0  # ... to the power 1 / temperature: higher ones draw more often from small stores
    data.vocab = (
        "cased"  # "cased" | "uncased" | "tiny" (embedded), a path to a vocab.txt or tokenizer.json, or "store": its own
    )
    data.lowercase = (
        "auto"  # "auto": known for embedded vocabularies, else lower-case when no token has a capital; "yes" | "no"
    )
    data.valid_fraction = (
        0.005  # share of the documents held out, chosen by a hash of their text (embedded corpus: fixed documents)
    )
    data.blocks = "document"  # a block is whole sentences of one "document", one "sentence", or a "pair" of segments (BERT's, for NSP)
    data.long_sentences = (
        "cut"  # sentences that no block can hold are "cut" at words; "lose": dropped, with what the original loses then
    )
    data.short_seq_prob = 0.0  # of "pair": share of the documents whose pairs are shorter, of a random length
    data.max_blocks_per_row = (
        1  # 1: one block a row, padded; more: packed rows, same loss and gradient with less padding
    )
    data.threads = 0  # of the input pipeline; 0: as many as cores. Never changes a batch

    config.masking = masking = ConfigDict()
    masking.schemes = ("geometric_span",)  # drawn for each block; see spanbert_jax/data/schemes.py for the registry
    masking.weights = (1.0,)  # odds of each scheme
    masking.rate = 0.15  # share of a block's tokens that are masked, rounded up
    masking.geometric_p = 0.2  # span length in words ~ Geometric(p), cut off to min_span..max_span and renormalised
    masking.min_span = 1  # words
    masking.max_span = 10  # words
    masking.fixed_span = 3  # words of every span of the scheme "fixed_span"
    masking.tagged_fraction = (
        0.5  # of the draws of "named_entity" and "noun_phrase" that take one; the others take a whole word
    )
    masking.mask_fraction = 0.8  # of the masked spans become [MASK] ...
    masking.random_fraction = 0.1  # ... and of them random tokens; the rest keep their text
    masking.replacement = "span"  # draw that fate once a "span" (the paper) or once a "token" (BERT)
    masking.boundaries = (
        "external"  # SBO sees the tokens just outside a span ("external") or its first and last ("internal")
    )
    masking.max_targets = 15  # SBO predicts at most so many tokens of a span: the length of its position table

    config.objectives = objectives = ConfigDict()
    objectives.mlm_weight = 1.0  # masked language model
    objectives.sbo_weight = 1.0  # span boundary objective; 0 leaves its head out
    objectives.nsp_weight = 0.0  # next sentence prediction, of data.blocks = "pair"; 0 leaves its head out
    objectives.sbo_count_offset = 0  # 1: the original's denominator, one more than the targets it sums over

    config.model = model = ConfigDict()
    model.layers = 24
    model.width = 1024
    model.heads = 16
    model.mlp_width = 4096
    model.max_positions = 512  # rows of the position table: the longest sequence the model can read
    model.sbo_position_width = 200  # width of the SBO head's position embeddings
    model.dropout = 0.1  # after embeddings, attention output and feed-forward
    model.attention_dropout = 0.1  # on attention probabilities
    model.skip_attention_dropout = (
        False  # flash kernels cannot drop attention probabilities; True: leave that dropout out instead of refusing
    )
    model.init_std = 0.02  # of every kernel and embedding
    model.norm_eps = 1e-12  # of LayerNorm
    model.output_bias = (
        "zeros"  # start of the heads' vocabulary biases: "zeros" (BERT) or "unigram" (log-frequencies of the corpus)
    )
    model.dtype = "auto"  # of activations: "auto" (bfloat16 on TPU and GPU, float32 on CPU) | "float32" | "bfloat16"
    model.attention = "auto"  # "xla" | flash kernels: "cudnn" (GPU), "splash" (TPU) | "auto": the platform's kernel where it can, else xla
    model.remat = "none"  # what the backward pass computes anew: "none" | "dots" (all but matmuls) | "full"
    model.scan_unroll = (
        1  # layers a trip of the scan over layers; `layers` unrolls it (slower to compile, can run faster)
    )

    config.optimizer = optimizer = ConfigDict()
    optimizer.learning_rate = 1e-4  # peak
    optimizer.warmup_steps = 10_000  # linear from 0
    optimizer.schedule = "linear"  # after warm-up: "linear" to 0 at total_steps | "cosine" to 0 | "constant" | "original", its quirks and all
    optimizer.updates_per_epoch = (
        0  # schedule "original" goes back to the peak for one update after so many (quirk 11); 0: never
    )
    optimizer.beta1 = 0.9
    optimizer.beta2 = 0.999
    optimizer.eps = 1e-8
    optimizer.weight_decay = 0.1  # decoupled, times the learning rate
    optimizer.decay_biases_and_norms = False  # True: decay every parameter, as the original does
    optimizer.clip_norm = 1.0  # global gradient norm; 0: no clipping
    optimizer.state_dtype = (
        "float32"  # of Adam's moments between updates; "bfloat16" takes half the memory, rounded at random
    )
    optimizer.divide_by_targets = False  # True: gradients are divided by the MLM targets once more before clipping, as the original does (quirk 10)

    config.mesh = mesh = ConfigDict()
    mesh.data = -1  # replicas of the model; -1 on one axis: all devices that are left
    mesh.fsdp = 1  # shards of parameters and optimiser state, and of the batch
    mesh.tensor = 1  # shards of heads, feed-forward and vocabulary
    mesh.slices = 0  # groups of devices (TPU slices, GPU nodes) on a slower network, crossed by `data` alone; 0: as the devices say

    config.profile = profile = ConfigDict()
    profile.first = 0  # update at which jax.profiler begins to record, into workdir/profile ...
    profile.steps = 0  # ... so many updates; 0: never

    config.eval = evaluation = ConfigDict()
    evaluation.every = 5_000  # updates; also at the end. 0: never
    evaluation.batch_size = 256  # rows
    evaluation.max_rows = 4_096  # of the held-out text, the same ones with the same masks each time; 0: all

    config.checkpoint = checkpoint = ConfigDict()
    checkpoint.every = 5_000  # updates; also at the end
    checkpoint.keep_last = 2  # newest ones kept
    checkpoint.keep_every = 0  # and each that is a multiple of this; 0: none besides

    return config
