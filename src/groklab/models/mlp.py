"""The multi-layer perceptron over token sequences, with the options in which its published variants differ.

    x      = [e_1; ...; e_T]  (concatenated)   or   e_1 + ... + e_T  (summed),   e_t = E[token_t] or one-hot
    logits = W_head phi(W_L ... phi(W_1 x + b_1) ... + b_L) + b_head

    plain():            one example, as one would write it on a blackboard; for reading and checking
    shared_forward():   the same function for many rows of a finite table at once

The shared forward pass splits the first layer over the positions, W_1 [e_1; ...; e_T] = sum_t (E W_1t^T)[token_t], so
that each product of a token and its part of W_1 is computed once per distinct token instead of once per row; what is
left to do for a row is to gather and add. With one-hot inputs the products are the columns of W_1 themselves. Values
and gradients are those of `plain`; only the order of floating-point sums differs.

Published variants as settings, all with layout "a b" and biases false:

    Chughtai et al. 2023 (2302.03025)   shared_embedding false, embedding_width 256
    Prieto et al. 2025 (2501.04697)     embedding one_hot, layers 2, width 200
    Grokking Tickets (2310.19470)       embedding summed, embedding_width 500, width 48, initialisation normal

The last only nearly: its head is a product of two matrices, 48 -> 500 -> 67, trained and pruned each; here it is one.

Initialisations: `pytorch` is nn.Embedding and nn.Linear; `normal` draws N(0, 1/fan_in), the fan-in of an embedding
being its vocabulary, and zero biases.

Not for sequences of raw numbers or long ones such as pixels: the first layer is written out position by position.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Annotated, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from pydantic import Field

from groklab.experiment import Model, Table
from groklab.models.layers import ACTIVATIONS, Embedding, Linear
from groklab.models.transformer import rows_of

Positive = Annotated[int, Field(gt=0)]


class MLP(eqx.Module):
    """Parameters of the network. Every array is trained; everything else is in `spec`."""

    tokens: Embedding | tuple[Embedding, ...] | None  # one for all positions, one for each, or one-hot inputs
    hidden: tuple[Linear, ...]
    head: Linear
    spec: MLPSpec = eqx.field(static=True)


class MLPSpec(Model):
    """Multi-layer perceptron over the embedded tokens of all positions.

    `layers` counts the hidden layers, each of `width` neurons. `embedding_width` and `shared_embedding` (one table for
    every position, or one for each) say nothing where the tokens are one-hot. `biases` is for all layers, the head
    included. `init_scale` multiplies every parameter after initialisation, biases included (Omnigrok's alpha).
    """

    kind: Literal["mlp"] = "mlp"
    embedding: Literal["concatenated", "summed", "one_hot"] = "concatenated"
    embedding_width: Positive = 128
    shared_embedding: bool = True
    layers: Positive = 1
    width: Positive = 128
    activation: Literal["relu", "gelu", "gelu_tanh", "silu", "tanh", "square", "identity"] = "relu"
    biases: bool = True
    initialisation: Literal["pytorch", "normal"] = "pytorch"
    init_scale: Annotated[float, Field(gt=0)] = 1.0
    forward_pass: Literal["shared", "plain"] = "shared"

    def init(self, key: Array, table: Table) -> MLP:
        """Fresh parameters for the table's vocabulary, sequence length and classes."""
        draw = _Initialiser(self, key)
        T, V, D = table.inputs.shape[1], table.vocabulary, self.embedding_width
        if self.embedding == "one_hot":
            tokens, fan_in = None, T * V
        else:
            tokens = draw.embedding(V, D) if self.shared_embedding else tuple(draw.embedding(V, D) for _ in range(T))
            fan_in = D if self.embedding == "summed" else T * D
        widths = [fan_in, *[self.width] * self.layers]
        model = MLP(
            tokens=tokens,
            hidden=tuple(draw.linear(n, m) for n, m in itertools.pairwise(widths)),
            head=draw.linear(self.width, table.classes),
            spec=self,
        )
        return jax.tree.map(lambda leaf: leaf * self.init_scale, model)

    def forward(self, table: Table) -> Callable[[MLP, Int[Array, " B"]], Float[Array, "B C"]]:
        """(parameters, rows of the table) -> logits."""
        if self.forward_pass == "shared":
            return lambda model, rows: shared_forward(model, table.inputs, rows)
        return lambda model, rows: jax.vmap(plain, (None, 0))(model, jnp.asarray(table.inputs)[rows])


def plain(model: MLP, tokens: Int[Array, " T"]) -> Float[Array, " C"]:
    """Logits of one sequence."""
    spec, T = model.spec, len(tokens)
    if model.tokens is None:
        V = model.hidden[0].weight.shape[1] // T
        x = jax.nn.one_hot(tokens, V, dtype=model.head.weight.dtype)  # [T, V]
    else:
        x = jnp.stack([_embedding_at(model.tokens, t).weight[tokens[t]] for t in range(T)])  # [T, D]
    x = x.sum(axis=0) if spec.embedding == "summed" else x.reshape(-1)
    for layer in model.hidden:
        x = ACTIVATIONS[spec.activation](_affine(layer, x))
    return _affine(model.head, x)


def _affine(layer: Linear, x: Float[Array, " in"]) -> Float[Array, " out"]:
    """W x + b, of which JAX derives the gradient: Linear's own, under vmap, is one matrix for each example."""
    return layer.weight @ x if layer.bias is None else layer.weight @ x + layer.bias


def shared_forward(model: MLP, inputs: np.ndarray, rows: Int[Array, " B"]) -> Float[Array, "B C"]:
    """Logits for these rows of the table whose inputs [N, T] are known before compilation."""
    first, T = model.hidden[0], inputs.shape[1]
    if model.tokens is None:
        V = first.weight.shape[1] // T
        x = _sum_of_rows(first.weight.T, inputs + V * np.arange(T), rows)
    elif model.spec.embedding == "concatenated":
        parts = enumerate(jnp.split(first.weight, T, axis=1))  # each [width, D]
        x = sum(_product(part, _embedding_at(model.tokens, t).weight, inputs[:, [t]], rows) for t, part in parts)
    elif isinstance(model.tokens, Embedding):
        x = _product(first.weight, model.tokens.weight, inputs, rows)
    else:  # one table after the other, as if each position had tokens of its own
        V = len(model.tokens[0].weight)
        weight = jnp.concatenate([embedding.weight for embedding in model.tokens])
        x = _product(first.weight, weight, inputs + V * np.arange(T), rows)
    x = jnp.broadcast_to(x if first.bias is None else x + first.bias, (len(rows), model.spec.width))
    activation = ACTIVATIONS[model.spec.activation]
    for layer in model.hidden[1:]:
        x = layer(activation(x))
    return model.head(activation(x))


def _embedding_at(tokens: Embedding | tuple[Embedding, ...], t: int) -> Embedding:
    return tokens if isinstance(tokens, Embedding) else tokens[t]


def _product(
    weight: Float[Array, "width D"], embedding: Float[Array, "V D"], tokens: np.ndarray, rows: Int[Array, " B"]
) -> Float[Array, "b width"]:
    """weight times the sum of the embeddings of tokens[row], tokens being [N, S]; b is B, or 1 for all rows.

    The product is taken once per distinct token where these are fewer than the rows, and once per row otherwise.
    """
    linear = Linear(weight, None)
    distinct, place = np.unique(tokens, return_inverse=True)
    if len(distinct) < len(rows):
        return _sum_of_rows(linear(rows_of(embedding, distinct)), place.reshape(tokens.shape), rows)
    return linear(_sum_of_rows(embedding, tokens, rows))


def _sum_of_rows(values: Float[Array, "n F"], index: np.ndarray, rows: Int[Array, " B"]) -> Float[Array, "b F"]:
    """Sum over s of values[index[row, s]], index being [N, S]; b is B, or 1 where no column of the index varies."""
    columns = [column[:1] if (column == column[0]).all() else jnp.asarray(column)[rows] for column in index.T]
    return sum(values[column] for column in columns)  # pyright: ignore[reportReturnType]


class _Initialiser:
    """Draws the parameters in a fixed order, each from a key of its own."""

    def __init__(self, spec: MLPSpec, key: Array):
        self.spec, self.keys = spec, (jax.random.fold_in(key, drawn) for drawn in itertools.count(1))

    def embedding(self, rows: int, D: int) -> Embedding:
        std = rows**-0.5 if self.spec.initialisation == "normal" else 1.0
        return Embedding(std * jax.random.normal(next(self.keys), (rows, D)))

    def linear(self, fan_in: int, fan_out: int) -> Linear:
        bound = fan_in**-0.5
        if self.spec.initialisation == "normal":
            weight = bound * jax.random.normal(next(self.keys), (fan_out, fan_in))
            return Linear(weight, jnp.zeros(fan_out) if self.spec.biases else None)
        weight = jax.random.uniform(next(self.keys), (fan_out, fan_in), minval=-bound, maxval=bound)
        bias = jax.random.uniform(next(self.keys), (fan_out,), minval=-bound, maxval=bound)
        return Linear(weight, bias if self.spec.biases else None)
