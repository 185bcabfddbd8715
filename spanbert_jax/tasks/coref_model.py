"""The model of end-to-end coreference: it chooses mentions among all spans, and an antecedent for each of them.

Letters: S segments of a document, A = S * L positions of it, W widths of spans, U spans kept, C antecedents of a span,
Z width of a span's embedding, F of hidden layers, P of the embeddings of features.

Parameters of the head: mentions/{start, end, head, width}/kernel, which are the rows of one kernel [Z, F] for the parts
of a span's embedding, start/bias, attention, kernel [F], bias; widths [W, P]; prior/{hidden, output}, prior_widths
[W, P]; coarse/{source, distance}, coarse/distances [10, P]; fine/{span, antecedent, product, features}, again rows of
one kernel, fine/{speakers, genres, distances, segments} [., P], fine/output; gate.

Sources: Lee et al. 2018 (coarse-to-fine, higher-order); Joshi et al. 2019, whose code decides where the papers are
silent. The first layer of each two-layer perceptron is linear in the parts of its input, so that it is computed for
each token or span once, not for each of the overlapping spans or of the pairs.
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from spanbert_jax.finetuning.task import encoder_states
from spanbert_jax.model.dropout import dropout, fold_in
from spanbert_jax.model.encoder import FIELDS, NEVER
from spanbert_jax.model.layout import Layout
from spanbert_jax.model.linear import Linear, product
from spanbert_jax.model.spec import ModelSpec
from spanbert_jax.tasks.coref_spans import candidates, select_spans

NAME = "coref"
DISTANCES = np.array([1, 2, 3, 4, 5, 8, 16, 32, 64])  # least distance of each bucket but the first


@dataclasses.dataclass(frozen=True)
class HeadSpec:
    """The knobs of config.coref under the same names (see configs/tasks/base.py), and the number of genres."""

    max_segments: int
    max_width: int
    top_spans_ratio: float
    max_top_spans: int
    max_antecedents: int
    depth: int
    ffnn_width: int
    feature_width: int
    dropout: float
    genres: int  # with that of unknown genre


class CoreferenceModel(nn.Module):
    """An encoder of segments with the head for documents."""

    spec: ModelSpec
    layout: Layout
    head: HeadSpec

    @nn.compact
    def __call__(self, batch, seeds):
        """Returns the output of CoreferenceHead for a batch of documents [B, S, L]."""
        rows, segments, length = batch["tokens"].shape
        flat = {name: batch[name].reshape(-1, length) for name in FIELDS}  # [B * S, L]
        if seeds is None:
            of_segments = of_head = None
        else:
            numbers = jnp.tile(jnp.arange(segments), rows)
            of_segments, of_head = fold_in(jnp.repeat(seeds, segments), numbers + 1), fold_in(seeds, 0)
        states = encoder_states(self.spec, self.layout, flat, of_segments)  # [B * S, L, D]
        states = states.reshape(rows, segments * length, -1).astype(jnp.float32)  # [B, A, D]
        return CoreferenceHead(self.spec, self.layout, self.head, name=NAME)(states, batch, of_head)


class CoreferenceHead(nn.Module):
    """Keeps the spans that are most likely mentions, and scores their antecedents."""

    spec: ModelSpec
    layout: Layout
    head: HeadSpec

    @nn.compact
    def __call__(self, states, batch, seeds):
        """Returns scores of antecedents, from states float32 [B, A, D].

        Returns:
          "starts", "ends" int32 [B, U]: first and last position of the spans kept, in the order of the document; -1
            for none.
          "antecedents" int32 [B, U, C]: numbers of spans among the U.
          "scores" float32 [B, U, 1 + C]: 0 for no antecedent, then those of the antecedents; NEVER for none.
        """
        head, table = self.head, functools.partial(_table, self)
        rows, segments, length = batch["words"].shape
        words, speakers = (batch[name].reshape(rows, -1) for name in ("words", "speakers"))  # [B, A]
        widths = dropped(table("widths", head.max_width, rows), head, seeds, 0)  # [B, W, P]; one mask for a document
        scores, attention = MentionScorer(self.spec, head, name="mentions")(states, widths, sites(seeds, 1))
        prior = WidthPrior(self.spec, head, name="prior")(table("prior_widths", head.max_width, rows), sites(seeds, 2))
        scores += prior[:, None]
        allowed = candidates(batch["words"], batch["sentences"], head.max_width)
        scores = jnp.where(allowed, scores, NEVER)  # [B, A, W]
        chosen = self._selected(jax.lax.stop_gradient(scores), jnp.sum(words > 0, axis=1), segments, length)  # [B, U]
        exists = chosen < scores[0].size
        chosen = jnp.where(exists, chosen, 0)
        starts, ends = chosen // head.max_width, chosen // head.max_width + chosen % head.max_width
        inside = attended(states, attention, starts, ends)
        parts = [at(states, starts), at(states, ends), at(widths, ends - starts), inside]
        spans = jnp.concatenate(parts, axis=-1)  # [B, U, Z], Z = 3 D + P
        mention_scores = jnp.where(exists, at(scores.reshape(rows, -1), chosen), NEVER)  # [B, U]
        coarse, antecedents = CoarseScorer(self.spec, head, name="coarse")(spans, mention_scores, sites(seeds, 3))
        fine = FineScorer(self.spec, head, name="fine")
        gate = Linear(self.spec, "BUZ,ZY->BUY", (2 * spans.shape[-1], spans.shape[-1]), dtype=jnp.float32, name="gate")
        features = (at(speakers, starts), batch["genre"], starts // length)
        for number in range(head.depth):
            pairs = coarse + fine(spans, antecedents, *features, sites(seeds, 4 + number))  # [B, U, C]
            pairs = jnp.where(coarse > NEVER / 2, pairs, NEVER)
            scores = jnp.concatenate([jnp.zeros_like(pairs[..., :1]), pairs], axis=-1)  # [B, U, 1 + C]
            if number < head.depth - 1:
                spans = refined(spans, antecedents, scores, gate)
        starts, ends = (jnp.where(exists, positions, -1) for positions in (starts, ends))
        return {"starts": starts, "ends": ends, "antecedents": antecedents, "scores": scores}

    def _selected(self, scores, tokens, segments: int, length: int):
        """Returns the spans kept, int32 [B, U], from scores [B, A, W] and the number of tokens of text, int [B]."""
        head = self.head
        slots = max(min(head.max_top_spans, int(head.top_spans_ratio * segments * (length - 2))), 1)
        limits = jnp.clip(jnp.floor(head.top_spans_ratio * tokens).astype(jnp.int32), 1, slots)
        select = jax.vmap(functools.partial(select_spans, slots=slots))
        # Each device runs the loop on its own documents, since their numbers of steps differ.
        of_devices = self.layout.shard_map(select, (("batch", None, None), ("batch",)), ("batch", None))
        return of_devices(scores, limits)


class MentionScorer(nn.Module):
    """Scores every span as a mention by its ends, its width, and the attended mean of its tokens."""

    spec: ModelSpec
    head: HeadSpec

    @nn.compact
    def __call__(self, states, widths, seeds):
        """Returns scores float32 [B, A, W], and attention logits [B, A], of states [B, A, D] and widths [B, W, P].

        Spans that end beyond the document have some finite score. The attended means of a start's spans are computed
        from width to width, as in an online softmax, after the linear map.
        """
        spec, head = self.spec, self.head
        size = (spec.width, head.ffnn_width)
        start = Linear(spec, "BAD,DF->BAF", size, dtype=jnp.float32, name="start")(states)
        end, inside = (
            Linear(spec, "BAD,DF->BAF", size, bias=False, dtype=jnp.float32, name=name)(states)
            for name in ("end", "head")
        )
        size = (head.feature_width, head.ffnn_width)
        by_width = Linear(spec, "BWP,PF->WBF", size, bias=False, dtype=jnp.float32, name="width")(widths)
        attention = Linear(spec, "BAD,DC->BAC", (spec.width, 1), dtype=jnp.float32, name="attention")(states)[..., 0]
        kernel = self.param("kernel", nn.initializers.normal(spec.init_std), (head.ffnn_width,))
        bias = self.param("bias", nn.initializers.zeros, ())

        @jax.checkpoint
        def step(sums, of_width):
            highest, total, mixed = sums  # [B, A], [B, A], [B, A, F] of the spans that are one token shorter
            more, width = of_width
            logit, value = (jnp.roll(array, -more, axis=1) for array in (attention, inside))
            raised = jnp.maximum(highest, jax.lax.stop_gradient(logit))
            kept, added = jnp.exp(highest - raised), jnp.exp(logit - raised)
            total, mixed = total * kept + added, mixed * kept[..., None] + value * added[..., None]
            hidden = start + jnp.roll(end, -more, axis=1) + width[:, None] + mixed / total[..., None]
            hidden = dropped(nn.relu(hidden), head, seeds, more)
            scores = product("BAF,F->BA", hidden.astype(spec.dtype), kernel, jnp.float32)
            return (raised, total, mixed), scores

        nothing = (jnp.full_like(attention, NEVER), jnp.zeros_like(attention), jnp.zeros_like(inside))
        _, scores = jax.lax.scan(step, nothing, (jnp.arange(head.max_width), by_width))  # [W, B, A]
        return jnp.moveaxis(scores, 0, 2) + bias, attention


class WidthPrior(nn.Module):
    """Scores the width of a mention."""

    spec: ModelSpec
    head: HeadSpec

    @nn.compact
    def __call__(self, widths, seeds):
        """Returns float32 [B, W] from embeddings [B, W, P]."""
        spec, hidden = self.spec, self.head.ffnn_width
        size = (self.head.feature_width, hidden)
        x = nn.relu(Linear(spec, "BWP,PF->BWF", size, dtype=jnp.float32, name="hidden")(widths))
        x = dropped(x, self.head, seeds, 0)
        return Linear(spec, "BWF,FC->BWC", (hidden, 1), dtype=jnp.float32, name="output")(x)[..., 0]


class CoarseScorer(nn.Module):
    """Chooses the antecedents that are scored closely, by a bilinear form and the distance in spans."""

    spec: ModelSpec
    head: HeadSpec

    @nn.compact
    def __call__(self, spans, mention_scores, seeds):
        """Returns scores float32 [B, U, C], NEVER for none, and antecedents int32 [B, U, C], the best first.

        Args:
          spans: float32 [B, U, Z].
          mention_scores: float32 [B, U]; NEVER where there is no span.
          seeds: of dropout, or None.
        """
        spec, head = self.spec, self.head
        rows, slots, width = spans.shape
        source = Linear(spec, "BUZ,ZY->BUY", (width, width), dtype=jnp.float32, name="source")(spans)
        source, target = dropped(source, head, seeds, 0), dropped(spans, head, seeds, 1)
        bilinear = jnp.einsum(
            "BUZ,BVZ->BUV", source.astype(spec.dtype), target.astype(spec.dtype), preferred_element_type=jnp.float32
        )
        distances = dropped(_table(self, "distances", len(DISTANCES) + 1, rows), head, seeds, 2)  # [B, 10, P]
        size = (head.feature_width, 1)
        prior = Linear(spec, "BVP,PC->BVC", size, dtype=jnp.float32, name="distance")(distances)[..., 0]  # [B, 10]
        distance = np.arange(slots)[:, None] - np.arange(slots)  # [U, U]
        scores = mention_scores[:, :, None] + mention_scores[:, None] + bilinear + prior[:, bucket(distance)]
        exists = mention_scores > NEVER / 2
        allowed = exists[:, :, None] & exists[:, None] & (distance > 0)
        return jax.lax.top_k(jnp.where(allowed, scores, NEVER), min(head.max_antecedents, slots))


class FineScorer(nn.Module):
    """Scores pairs of spans by their embeddings, the product of these, and features."""

    spec: ModelSpec
    head: HeadSpec

    @nn.compact
    def __call__(self, spans, antecedents, speakers, genre, segments, seeds):
        """Returns float32 [B, U, C].

        Args:
          spans: float32 [B, U, Z].
          antecedents: int [B, U, C].
          speakers, segments: int [B, U], numbers of those of each span.
          genre: int [B].
          seeds: of dropout, or None.
        """
        spec, head = self.spec, self.head
        (rows, slots, width), shape = spans.shape, antecedents.shape
        size = (width, head.ffnn_width)
        of_span = Linear(spec, "BUZ,ZF->BUF", size, dtype=jnp.float32, name="span")(spans)
        of_antecedent = Linear(spec, "BUZ,ZF->BUF", size, bias=False, dtype=jnp.float32, name="antecedent")(spans)
        similarity = spans[:, :, None] * at(spans, antecedents)  # [B, U, C, Z]
        hidden = Linear(spec, "BUCZ,ZF->BUCF", size, bias=False, dtype=jnp.float32, name="product")(similarity)
        hidden += of_span[:, :, None] + at(of_antecedent, antecedents)
        apart = jnp.clip(segments[:, :, None] - at(segments, antecedents), 0, head.max_segments - 1)
        indices = {  # name -> number of entries, and int [B, U, C]
            "speakers": (2, (speakers[:, :, None] == at(speakers, antecedents)).astype(jnp.int32)),
            "genres": (head.genres, jnp.broadcast_to(genre[:, None, None], shape)),
            "distances": (len(DISTANCES) + 1, bucket(jnp.arange(slots)[:, None] - antecedents)),
            "segments": (head.max_segments, apart),
        }
        tables = [at(_table(self, name, entries, rows), index) for name, (entries, index) in indices.items()]
        features = dropped(jnp.concatenate(tables, axis=-1), head, seeds, 0)  # [B, U, C, 4 P]
        size = (features.shape[-1], head.ffnn_width)
        hidden += Linear(spec, "BUCP,PF->BUCF", size, bias=False, dtype=jnp.float32, name="features")(features)
        hidden = dropped(nn.relu(hidden), head, seeds, 1)
        return Linear(spec, "BUCF,FO->BUCO", (head.ffnn_width, 1), dtype=jnp.float32, name="output")(hidden)[..., 0]


def refined(spans, antecedents, scores, gate: nn.Module):
    """Returns embeddings [B, U, Z] mixed with those of the antecedents that scores [B, U, 1 + C] expect.

    The span itself stands for no antecedent.
    """
    weights = jax.nn.softmax(scores)  # [B, U, 1 + C]
    expected = weights[..., :1] * spans + jnp.einsum("BUC,BUCZ->BUZ", weights[..., 1:], at(spans, antecedents))
    share = jax.nn.sigmoid(gate(jnp.concatenate([spans, expected], axis=-1)))
    return share * expected + (1 - share) * spans


def _table(module: nn.Module, name: str, entries: int, rows: int):
    """Returns a table of embeddings of features [rows, entries, P], a parameter [entries, P] of the module."""
    size = (entries, module.head.feature_width)
    table = module.param(name, nn.initializers.normal(module.spec.init_std), size)
    return jnp.broadcast_to(table, (rows, *size))


def sites(seeds, number: int):
    """Returns the seeds [B] of a part of the head."""
    return None if seeds is None else fold_in(seeds, number)


def dropped(x, head: HeadSpec, seeds, site):
    """Returns x [B, ...] after dropout at a site."""
    return dropout(x, head.dropout, None if seeds is None else fold_in(seeds, site))


def at(x, index):
    """Returns x [B, n, ...] at index int [B, ...]: [B, ..., ...]."""
    return jax.vmap(lambda values, places: values[places])(x, index)


def bucket(distance):
    """Returns the bucket of distances: 0, 1, 2, 3, 4, 5-7, 8-15, 16-31, 32-63, 64 and more."""
    return jnp.searchsorted(jnp.asarray(DISTANCES), distance, side="right")


def attended(states, attention, starts, ends):
    """Returns the mean of the states of each span, weighted by the softmax of their attention logits.

    Args:
      states: [B, A, D].
      attention: [B, A].
      starts, ends: int [B, U], first and last position of spans.

    Returns:
      [B, U, D].
    """
    positions = jnp.arange(states.shape[1])
    inside = (starts[..., None] <= positions) & (positions <= ends[..., None])  # [B, U, A]
    weights = jax.nn.softmax(jnp.where(inside, attention[:, None], NEVER))
    return jnp.einsum("BUA,BAD->BUD", weights, states)


def marginal_loss(outputs, clusters):
    """Returns the negative logarithm of the probability of all right antecedents, summed over spans and documents.

    Args:
      outputs: of CoreferenceHead.
      clusters: int [B, U], see span_clusters.

    Returns:
      Float32 scalar, in nats.
    """
    scores = outputs["scores"]
    same = (at(clusters, outputs["antecedents"]) == clusters[..., None]) & (clusters[..., None] > 0)
    same &= scores[..., 1:] > NEVER / 2  # [B, U, C]
    right = jnp.concatenate([~jnp.any(same, axis=-1, keepdims=True), same], axis=-1)  # [B, U, 1 + C]
    losses = jax.nn.logsumexp(scores, axis=-1) - jax.nn.logsumexp(jnp.where(right, scores, NEVER), axis=-1)
    return jnp.sum(jnp.where(outputs["starts"] >= 0, losses, 0.0))
