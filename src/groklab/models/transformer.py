"""The decoder-only transformer of the grokking literature, with the options in which its published variants differ.

    plain():            one example, all positions, as one would write it on a blackboard; for reading and checking
    prefix_sharing:     the same function for many rows of a finite table at once (see models/prefix_sharing.py)

Published variants as settings:

    Power et al. 2022   norm post, relu, biases none, positions sinusoidal, initialisation power
    Grokfast 2024       the defaults: norm pre, gelu, biases all, positions learned, initialisation pytorch
    Nanda et al. 2023   layers 1, norm none, relu, biases mlp, layout "a b =", initialisation nanda, answers_only

Initialisations: `pytorch` is nn.Embedding, nn.MultiheadAttention and nn.Linear; `power` is nn.Linear throughout
(openai/grok has one per head, with the same bounds); `nanda` draws N(0, 1/width), the unembedding N(0, 1/vocabulary),
and zero biases.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from pydantic import Field, model_validator

from groklab.experiment import Model, Table
from groklab.models.layers import ACTIVATIONS, Embedding, LayerNorm, Linear

Positive = Annotated[int, Field(gt=0)]
Index = Int[Array, "..."] | np.ndarray  # a NumPy array is known before compilation


class Attention(eqx.Module):
    """The four maps of multi-head attention; heads are consecutive slices of the width."""

    query: Linear
    key: Linear
    value: Linear
    out: Linear


class MLP(eqx.Module):
    """Two linear maps around the activation."""

    inner: Linear
    outer: Linear


class Block(eqx.Module):
    """Attention and MLP, each on the residual stream; the norms are None with `norm = "none"`."""

    attention_norm: LayerNorm | None
    attention: Attention
    mlp_norm: LayerNorm | None
    mlp: MLP


class Transformer(eqx.Module):
    """Parameters of the network. Every array is trained; everything else is in `spec`."""

    tokens: Embedding
    positions: Embedding | None
    blocks: tuple[Block, ...]
    final_norm: LayerNorm | None
    head: Linear | None  # None: tied to the token embedding
    spec: TransformerSpec = eqx.field(static=True)


class TransformerSpec(Model):
    """Decoder-only transformer whose answer is read at the last position.

    `init_scale` multiplies every parameter after initialisation, norms and biases included (Omnigrok's alpha).
    `answers_only` drops the logits of tokens that are never an answer (`=`, the operation sign), as Nanda et al. do.
    """

    kind: Literal["transformer"] = "transformer"
    layers: Positive = 2
    width: Positive = 128
    heads: Positive = 4
    mlp_width: Positive | None = None
    norm: Literal["pre", "post", "none"] = "pre"
    activation: Literal["relu", "gelu", "gelu_tanh", "silu", "tanh", "square", "identity"] = "gelu"
    biases: Literal["all", "mlp", "none"] = "all"
    positions: Literal["learned", "sinusoidal", "none"] = "learned"
    tied: bool = False
    answers_only: bool = False
    initialisation: Literal["pytorch", "power", "nanda"] = "pytorch"
    init_scale: Annotated[float, Field(gt=0)] = 1.0
    forward_pass: Literal["prefix_sharing", "plain"] = "prefix_sharing"

    @model_validator(mode="after")
    def _heads_divide_width(self) -> TransformerSpec:
        if self.width % self.heads:
            divisors = [h for h in range(1, self.width + 1) if self.width % h == 0]
            closest = min(divisors, key=lambda h: abs(h - self.heads))
            raise ValueError(f"width {self.width} cannot be divided among {self.heads} heads; {closest} heads would do")
        return self

    def init(self, key: Array, table: Table) -> Transformer:
        """Fresh parameters for the table's vocabulary and sequence length."""
        draw = _Initialiser(self, key, table.vocabulary)
        D, M = self.width, self.mlp_width or 4 * self.width
        blocks = tuple(
            Block(
                attention_norm=draw.norm(),
                attention=Attention(draw.qkv(D), draw.qkv(D), draw.qkv(D), draw.attention_out(D)),
                mlp_norm=draw.norm(),
                mlp=MLP(draw.linear(D, M, self.biases != "none"), draw.linear(M, D, self.biases != "none")),
            )
            for _ in range(self.layers)
        )
        model = Transformer(
            tokens=draw.embedding(table.vocabulary, D),
            positions=draw.embedding(table.inputs.shape[1], D) if self.positions == "learned" else None,
            blocks=blocks,
            final_norm=draw.norm() if self.norm == "pre" else None,
            head=None if self.tied else draw.head(D, table.vocabulary),
            spec=self,
        )
        return jax.tree.map(lambda leaf: leaf * self.init_scale, model)

    def forward(self, table: Table) -> Callable[[Transformer, Int[Array, " B"]], Float[Array, "B C"]]:
        """(parameters, rows of the table) -> logits at the last position."""
        from groklab.models.prefix_sharing import Prefixes, shared_forward

        classes = table.classes if self.answers_only else table.vocabulary
        if self.forward_pass == "prefix_sharing":
            prefixes = Prefixes.of(table.inputs)
            return lambda model, rows: shared_forward(model, prefixes, rows)[:, :classes]
        return lambda model, rows: jax.vmap(plain, (None, 0))(model, jnp.asarray(table.inputs)[rows])[:, :classes]


def plain(model: Transformer, tokens: Int[Array, " T"]) -> Float[Array, " C"]:
    """Logits at the last position of one sequence."""
    spec, T = model.spec, len(tokens)
    x = embed(model, tokens, jnp.arange(T))  # [T, D]
    causal = jnp.tril(jnp.ones((T, T), bool))
    for block in model.blocks:
        h = enter(spec, block.attention_norm, x)
        q, k, v = (
            _split_heads(project(h), spec)
            for project in (block.attention.query, block.attention.key, block.attention.value)
        )
        scores = jnp.einsum("thd,shd->hts", q, k) / np.sqrt(spec.width // spec.heads)
        weights = jax.nn.softmax(jnp.where(causal, scores, -jnp.inf), axis=-1)
        mixed = jnp.einsum("hts,shd->thd", weights, v).reshape(T, spec.width)
        x = leave(spec, block.attention_norm, x + block.attention.out(mixed))
        x = leave(spec, block.mlp_norm, x + feed_forward(block, spec, enter(spec, block.mlp_norm, x)))
    return read_out(model, x[-1])


# --- the pieces that the plain and the prefix-sharing forward pass have in common; all act on the last axis ----------


def embed(model: Transformer, tokens: Index, positions: Index) -> Float[Array, "... D"]:
    """Token embedding plus position embedding."""
    x = rows_of(model.tokens.weight, tokens)
    if model.positions is not None:
        return x + rows_of(model.positions.weight, positions)
    return x + sinusoids(positions, model.spec.width) if model.spec.positions == "sinusoidal" else x


def rows_of(weight: Float[Array, "n D"], index: Index) -> Float[Array, "... D"]:
    """weight[index]; where the index is known beforehand and contiguous, as a slice, whose gradient is cheap."""
    if isinstance(index, np.ndarray) and index.size and (np.diff(index.reshape(-1)) == 1).all():
        return weight[int(index.min()) : int(index.max()) + 1].reshape(*index.shape, -1)
    return weight[index]


def sinusoids(positions: Index, width: int) -> Float[Array, "... D"]:
    """sin (even channels) and cos (odd channels) of position / 10000^(channel / width) (Vaswani et al. 2017)."""
    channel = jnp.arange(width)
    angle = positions[..., None] / 10_000 ** ((channel - channel % 2) / width)
    return jnp.where(channel % 2 == 0, jnp.sin(angle), jnp.cos(angle))


def enter(spec: TransformerSpec, norm: LayerNorm | None, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
    """What a sub-layer reads from the residual stream."""
    return norm(x) if norm is not None and spec.norm == "pre" else x


def leave(spec: TransformerSpec, norm: LayerNorm | None, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
    """The residual stream after a sub-layer has been added to it."""
    return norm(x) if norm is not None and spec.norm == "post" else x


def feed_forward(block: Block, spec: TransformerSpec, h: Float[Array, "... D"]) -> Float[Array, "... D"]:
    """The MLP of a block."""
    return block.mlp.outer(ACTIVATIONS[spec.activation](block.mlp.inner(h)))


def read_out(model: Transformer, x: Float[Array, "... D"]) -> Float[Array, "... V"]:
    """Logits over the vocabulary from the residual stream at the answer position."""
    x = x if model.final_norm is None else model.final_norm(x)
    return x @ model.tokens.weight.T if model.head is None else model.head(x)


def _split_heads(x: Float[Array, "T D"], spec: TransformerSpec) -> Float[Array, "T H d"]:
    return x.reshape(*x.shape[:-1], spec.heads, spec.width // spec.heads)


class _Initialiser:
    """Draws the parameters in a fixed order, each from a key of its own."""

    def __init__(self, spec: TransformerSpec, key: Array, vocabulary: int):
        self.spec, self.key, self.vocabulary, self.drawn = spec, key, vocabulary, 0

    def _next(self) -> Array:
        self.drawn += 1
        return jax.random.fold_in(self.key, self.drawn)

    def _uniform(self, shape: tuple[int, ...], bound: float) -> Array:
        return jax.random.uniform(self._next(), shape, minval=-bound, maxval=bound)

    def _normal(self, shape: tuple[int, ...], std: float) -> Array:
        return std * jax.random.normal(self._next(), shape)

    def linear(self, fan_in: int, fan_out: int, bias: bool) -> Linear:
        if self.spec.initialisation == "nanda":
            weight = self._normal((fan_out, fan_in), self.spec.width**-0.5)
            return Linear(weight, jnp.zeros(fan_out) if bias else None)
        weight = self._uniform((fan_out, fan_in), fan_in**-0.5)
        return Linear(weight, self._uniform((fan_out,), fan_in**-0.5) if bias else None)

    def qkv(self, D: int) -> Linear:
        if self.spec.initialisation != "pytorch":
            return self.linear(D, D, self.spec.biases == "all")
        # nn.MultiheadAttention draws query, key and value as one Xavier-uniform matrix of shape [3D, D], biases zero.
        weight = self._uniform((D, D), (6 / (3 * D + D)) ** 0.5)
        return Linear(weight, jnp.zeros(D) if self.spec.biases == "all" else None)

    def attention_out(self, D: int) -> Linear:
        out = self.linear(D, D, self.spec.biases == "all")
        if self.spec.initialisation == "pytorch" and out.bias is not None:
            out = eqx.tree_at(lambda linear: linear.bias, out, jnp.zeros(D))
        return out

    def head(self, D: int, vocabulary: int) -> Linear:
        if self.spec.initialisation == "nanda":
            return Linear(self._normal((vocabulary, D), vocabulary**-0.5), None)
        return self.linear(D, vocabulary, bias=False)

    def embedding(self, rows: int, D: int) -> Embedding:
        std = D**-0.5 if self.spec.initialisation == "nanda" else 1.0
        return Embedding(self._normal((rows, D), std))

    def norm(self) -> LayerNorm | None:
        D = self.spec.width
        return None if self.spec.norm == "none" else LayerNorm(jnp.ones(D), jnp.zeros(D))
