"""Prefix sharing: the exact forward pass of a causal transformer over rows of a finite table, without repeated work.

In a causal transformer the activations at position t depend on the tokens 0..t only. A table of all sequences has few
distinct prefixes at small t (97 at the first position of `[a, op, b, =]`, and still 97 at the second), so

1. each position is computed once per distinct prefix where the table has fewer prefixes than the batch has rows,
   and once per row otherwise;
2. what comes before the first attention depends on the single token at each position: it is computed per distinct token;
3. in the last layer only the answer position asks, so queries, attention output, MLP and head run there alone.

Values and gradients are those of `transformer.plain`; only the order of floating-point sums differs.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from groklab.models.transformer import Block, Transformer, TransformerSpec, embed, enter, feed_forward, leave, read_out


@dataclass(frozen=True, eq=False)
class Prefixes:
    """The distinct prefixes of a table of N sequences of length T."""

    last_token: tuple[np.ndarray, ...]  # per position t: [n_t] token at t of each distinct prefix of length t+1
    of_row: tuple[np.ndarray, ...]  # per position t: [N] which distinct prefix a row has
    ancestor: tuple[tuple[np.ndarray, ...], ...]  # per t and s <= t: [n_t] which prefix of length s+1 it extends
    tokens: tuple[np.ndarray, ...]  # per position t: [u_t] the distinct tokens found there

    @classmethod
    def of(cls, inputs: np.ndarray) -> Prefixes:
        """Find the distinct prefixes of `inputs` [N, T]."""
        T = inputs.shape[1]
        last_token, of_row, ancestor = [], [], []
        for t in range(T):
            distinct, first, row = np.unique(inputs[:, : t + 1], axis=0, return_index=True, return_inverse=True)
            last_token.append(distinct[:, -1].astype(np.int32))
            of_row.append(row.reshape(-1).astype(np.int32))
            ancestor.append(tuple(of_row[s][first] for s in range(t + 1)))
        tokens = tuple(np.unique(inputs[:, t]).astype(np.int32) for t in range(T))
        return cls(tuple(last_token), tuple(of_row), tuple(ancestor), tokens)


def shared_forward(model: Transformer, prefixes: Prefixes, rows: Int[Array, " B"]) -> Float[Array, "B V"]:
    """Logits at the last position for these rows of the table."""
    spec, T = model.spec, len(prefixes.tokens)
    shared = [len(prefixes.last_token[t]) < len(rows) for t in range(T)]  # per position: by prefix, or by row
    index = _Index(prefixes, rows, shared)

    x = [embed(model, jnp.asarray(prefixes.tokens[t]), jnp.asarray(t)) for t in range(T)]  # per position [u_t, D]
    for layer, block in enumerate(model.blocks):
        asking = range(T - 1, T) if layer == spec.layers - 1 else range(T)
        h = [enter(spec, block.attention_norm, x[t]) for t in range(T)]
        k, v = _project(block.attention.key, h), _project(block.attention.value, h)
        q = dict(zip(asking, _project(block.attention.query, [h[t] for t in asking]), strict=True))
        place = index.of_token if layer == 0 else index.of_prefix
        mixed = [
            _attend(spec, place(t, t, q[t]), [place(t, s, k[s]) for s in range(t + 1)], [place(t, s, v[s]) for s in range(t + 1)])
            for t in asking
        ]
        stream = [place(t, t, x[t]) for t in asking]
        x = _rest_of_block(spec, block, stream, mixed)
    return read_out(model, x[-1][jnp.asarray(prefixes.of_row[-1])[rows]] if shared[-1] else x[-1])


class _Index:
    """Moves activations kept per token or per prefix to where position t needs them: [m_t, ...]."""

    def __init__(self, prefixes: Prefixes, rows: Int[Array, " B"], shared: list[bool]):
        self.prefixes, self.rows, self.shared = prefixes, rows, shared

    def of_prefix(self, t: int, s: int, values: Float[Array, "m_s D"]) -> Float[Array, "m_t D"]:
        if self.shared[t]:
            return values if s == t else values[self.prefixes.ancestor[t][s]]
        return values[jnp.asarray(self.prefixes.of_row[s])[self.rows]] if self.shared[s] else values

    def of_token(self, t: int, s: int, values: Float[Array, "u_s D"]) -> Float[Array, "m_t D"]:
        if len(values) == 1:
            return values  # one token for all: broadcasts
        token = np.searchsorted(self.prefixes.tokens[s], self.prefixes.last_token[s])  # [n_s] place among the tokens
        if self.shared[t]:
            return values[token[self.prefixes.ancestor[t][s]]]
        return values[jnp.asarray(token[self.prefixes.of_row[s]])[self.rows]]


def _project(linear, parts: list[Float[Array, "m D"]]) -> list[Float[Array, "m D"]]:
    """One matrix product over all parts, split again."""
    return jnp.split(linear(jnp.concatenate(parts)), np.cumsum([len(part) for part in parts])[:-1])


def _attend(
    spec: TransformerSpec, q: Float[Array, "m D"], k: list[Float[Array, "m D"]], v: list[Float[Array, "m D"]]
) -> Float[Array, "m D"]:
    """Softmax attention of one query per row over a short list of keys, as elementwise work."""
    H, d = spec.heads, spec.width // spec.heads
    q = q.reshape(-1, H, d)
    scores = [jnp.sum(q * key.reshape(-1, H, d), axis=-1) / np.sqrt(d) for key in k]  # each [m, H]
    m = max(part.shape[0] for part in [*scores, *(value for value in v)])
    weights = jax.nn.softmax(jnp.stack([jnp.broadcast_to(score, (m, H)) for score in scores]), axis=0)  # [S, m, H]
    mixed = sum(w[..., None] * value.reshape(-1, H, d) for w, value in zip(weights, v, strict=True))
    return mixed.reshape(m, spec.width)


def _rest_of_block(
    spec: TransformerSpec, block: Block, stream: list[Float[Array, "m D"]], mixed: list[Float[Array, "m D"]]
) -> list[Float[Array, "m D"]]:
    """Attention output and MLP on the residual stream, over all positions in one go."""
    sizes = [len(part) for part in mixed]
    x = jnp.concatenate([jnp.broadcast_to(part, (m, spec.width)) for part, m in zip(stream, sizes, strict=True)])
    x = leave(spec, block.attention_norm, x + block.attention.out(jnp.concatenate(mixed)))
    x = leave(spec, block.mlp_norm, x + feed_forward(block, spec, enter(spec, block.mlp_norm, x)))
    return jnp.split(x, np.cumsum(sizes)[:-1])
