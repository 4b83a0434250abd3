"""The multi-layer perceptron over tokens, vectors or images, with the options in which its published variants differ.

    x       = [e_1; ...; e_T]  (concatenated)   or   e_1 + ... + e_T  (summed),   e_t = E[token_t] or one-hot;
              a vector as it is, an image as the vector of its pixels
    outputs = alpha (W_head phi(W_L ... phi(W_1 x + b_1) ... + b_L) + b_head),   or   W_head W_out in place of W_head

    plain():            one example, as one would write it on a blackboard; for reading and checking
    MLPSpec.apply():    the same function for a batch
    shared_forward():   the same function for many rows of a finite table at once

The shared forward pass splits the first layer over the positions, W_1 [e_1; ...; e_T] = sum_t (E W_1t^T)[token_t], so
that each product of a token and its part of W_1 is computed once per distinct token instead of once per row; what is
left to do for a row is to gather and add. With one-hot inputs the products are the columns of W_1 themselves. Values
and gradients are those of `plain`; only the order of floating-point sums differs. For vectors, images and sequences of
more than 16 tokens there is nothing to share, and `apply` it is.

Published variants as settings. On pairs of tokens (layout "a b"), with biases false unless said otherwise:

    Chughtai et al. 2023 (2302.03025)      shared_embedding false, embedding_width 256
    Prieto et al. 2025 (2501.04697)        embedding one_hot, layers 2, width 200
    Grokking Tickets (2310.19470)          embedding summed, embedding_width 500, width 48, head_width 500,
                                           initialisation normal, init_scale kappa
    Clock and Pizza (2306.17844), type B   embedding summed, embedding_width 256, layers 2, width 256, biases hidden
                                  type D   biases hidden
    Gromov (2301.02679)                    embedding one_hot, width 500, activation square, initialisation mean_field
    Kumar et al. 2024 (2310.06110)         as Gromov with width 100
    EGD (2510.04930)                       embedding one_hot, width 512, biases hidden, initialisation kaiming_normal

On vectors and images:

    Merrill et al. 2023 (2303.11873)       width 1000, biases hidden
    Abbe et al. 2023 (2306.16921)          width [512, 1024, 512, 64]
    Barak et al. 2022 (2207.08799)         activation relu, sine, square, cube or fourth_power; initialisation
                                           xavier_uniform, kaiming_normal or bernoulli
    Omnigrok (2210.01117)                  MNIST: layers 2, width 200, init_scale 8; teacher-student: layers 2,
                                           width 100, activation tanh, init_scale 2
    Deep Grokking (2405.19454)             layers 3, 7 or 11 (if its depths count weight matrices), width 400,
                                           init_scale 8

Gromov's network, sum_k W_2ck (sum_i W_1ki x_i / sqrt(2P))^2 / N, is written from memory, and two replications agree
with it. Kumar et al. (gradient descent at rate 100, squared error, P = 23, 90 % of the pairs) give no formula, but a
training loss of about 0.06 where accuracy is 1 says that theirs is a sum over the P outputs: with the mean, which is
less than that even where all outputs are 0, the rate has to be 2300. Clock and Pizza's networks here have a matrix of
their own as the unembedding, as the released files do.

`output_scale` is the alpha of lazy training (Chizat et al. 2019, 1812.07956; Kumar et al.): the greater, the less
features have to move. The outputs are not centred by those of the initial network, and the learning rate is not
divided by alpha^2: set it so in the recipe to compare equal speeds of the outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from pydantic import Field

from groklab.experiment import ExampleKind, Model, Positive, Table
from groklab.models.initialisation import Initialiser, Role
from groklab.models.layers import ACTIVATIONS, Activation, Embedding, Linear, rows_of
from groklab.network import Trace

LONGEST_SHARED = 16  # positions, beyond which writing the first layer out one by one is not worth compiling


class MLP(eqx.Module):
    """Parameters of the network. Every array is trained; everything else is in `spec`."""

    tokens: Embedding | tuple[Embedding, ...] | None  # one for all positions, one for each, or no embedding
    hidden: tuple[Linear, ...]
    out: Linear | None  # the first factor of a head that is a product of two matrices
    head: Linear
    spec: MLPSpec = eqx.field(static=True)


class MLPSpec(Model):
    """Multi-layer perceptron over the embedded tokens of all positions, over vectors or over pixels.

    `layers` counts the hidden layers, each of `width` neurons; a list of widths counts for itself. `embedding`,
    `embedding_width` and `shared_embedding` (one table for every position, or one for each) are for tokens, the latter
    two for tokens that are not one-hot. `biases` is for all layers, for all but the head, or for none. With a
    `head_width` the head is a product of two matrices, trained each. `init_scale` multiplies every parameter after
    initialisation, biases included (Omnigrok's alpha), `output_scale` the outputs. `base_width` is for initialisation
    mup: the width at which it is the standard one.
    """

    kind: Literal["mlp"] = "mlp"
    reads: ClassVar[tuple[ExampleKind, ...]] = ("tokens", "vectors", "images")
    embedding: Literal["concatenated", "summed", "one_hot"] = "concatenated"
    embedding_width: Positive = 128
    shared_embedding: bool = True
    layers: Positive = 1
    width: Positive | Annotated[tuple[Positive, ...], Field(min_length=1)] = 128
    head_width: Positive | None = None
    activation: Activation = "relu"
    biases: bool | Literal["hidden"] = True
    initialisation: Literal[
        "pytorch", "normal", "xavier_uniform", "kaiming_normal", "bernoulli", "standard", "mup", "mean_field"
    ] = "pytorch"
    base_width: Positive = 128
    init_scale: Annotated[float, Field(gt=0)] = 1.0
    output_scale: Annotated[float, Field(gt=0)] = 1.0
    forward_pass: Literal["shared", "plain"] = "shared"

    @property
    def widths(self) -> tuple[int, ...]:
        """Of the hidden layers."""
        return self.width if isinstance(self.width, tuple) else (self.width,) * self.layers

    def init(self, key: Array, table: Table) -> MLP:
        """Fresh parameters for examples of the table's shape and vocabulary, and for as many outputs."""
        draw = Initialiser(self.initialisation, key)
        tokens, fan_in = self._embedded(draw, table)
        hidden = []
        for i, width in enumerate(self.widths):
            hidden.append(self._linear(draw, fan_in, width, "hidden" if i else "input", self.biases is not False))
            fan_in = width
        out = None
        if self.head_width:
            out = self._linear(draw, fan_in, self.head_width, "hidden", False)
            fan_in = self.head_width
        head = self._linear(draw, fan_in, table.outputs, "head", self.biases is True)
        model = MLP(tokens=tokens, hidden=tuple(hidden), out=out, head=head, spec=self)
        return jax.tree.map(lambda leaf: leaf * self.init_scale, model)

    def _embedded(self, draw: Initialiser, table: Table) -> tuple[Embedding | tuple[Embedding, ...] | None, int]:
        """The embedding, and how many numbers the first layer reads."""
        V, D = table.vocabulary, self.embedding_width
        if not V:
            return None, math.prod(table.shape)
        (T,) = table.shape
        if self.embedding == "one_hot":
            return None, T * V
        tokens = draw.embedding(V, D) if self.shared_embedding else tuple(draw.embedding(V, D) for _ in range(T))
        return tokens, D if self.embedding == "summed" else T * D

    def _linear(self, draw: Initialiser, fan_in: int, fan_out: int, role: Role, bias: bool) -> Linear:
        # With a bias even where there is none, so that the matrices are the same without biases.
        linear = draw.linear(fan_in, fan_out, True, role, ratio=fan_in / self.base_width)
        return linear if bias else Linear(linear.weight, None, linear.multiplier)

    def apply(self, parameters: MLP, inputs: Array) -> Float[Array, "B outputs"]:
        return self.trace(parameters, self.embed(parameters, inputs)).outputs

    def embed(self, parameters: MLP, inputs: Array) -> Float[Array, "B ..."]:
        """One-hot tokens are [B, T, V]."""
        dtype = parameters.head.weight.dtype
        if not jnp.issubdtype(inputs.dtype, jnp.integer):
            return inputs.astype(dtype)
        if parameters.tokens is None:
            vocabulary = parameters.hidden[0].weight.shape[1] // inputs.shape[1]
            return jax.nn.one_hot(inputs, vocabulary, dtype=dtype)
        if isinstance(parameters.tokens, Embedding):
            return parameters.tokens.weight[inputs]
        return jnp.stack([table.weight[inputs[:, t]] for t, table in enumerate(parameters.tokens)], axis=1)

    def trace(self, parameters: MLP, embedded: Float[Array, "B ..."]) -> Trace:
        x = embedded.sum(axis=1) if _summed(parameters) else embedded.reshape(len(embedded), -1)
        return _above(parameters, parameters.hidden[0](x))

    def readout(self, parameters: MLP) -> Float[Array, "outputs n"]:
        head, out = parameters.head, parameters.out
        weight = self.output_scale * head.multiplier * head.weight
        return weight if out is None else out.multiplier * (weight @ out.weight)

    def shared_forward(self, table: Table) -> Callable[[MLP, Int[Array, " B"]], Float[Array, "B outputs"]] | None:
        few_tokens = table.vocabulary > 0 and table.shape[0] <= LONGEST_SHARED
        if self.forward_pass == "plain" or not few_tokens or not table.common:
            return None
        return lambda model, rows: shared_forward(model, table.inputs, rows)


def plain(model: MLP, example: Array) -> Float[Array, " outputs"]:
    """The outputs for one sequence, vector or image."""
    spec, T = model.spec, len(example)
    if not jnp.issubdtype(example.dtype, jnp.integer):
        x = example
    elif model.tokens is None:
        V = model.hidden[0].weight.shape[1] // T
        x = jax.nn.one_hot(example, V, dtype=model.head.weight.dtype)  # [T, V]
    else:
        x = jnp.stack([_embedding_at(model.tokens, t).weight[example[t]] for t in range(T)])  # [T, D]
    x = x.sum(axis=0) if _summed(model) else x.reshape(-1)
    for layer in model.hidden:
        x = ACTIVATIONS[spec.activation](_affine(layer, x))
    x = x if model.out is None else _affine(model.out, x)
    return spec.output_scale * _affine(model.head, x)


def _affine(layer: Linear, x: Float[Array, " in"]) -> Float[Array, " out"]:
    """c W x + b, of which JAX derives the gradient: Linear's own, under vmap, is one matrix for each example."""
    y = layer.multiplier * (layer.weight @ x)
    return y if layer.bias is None else y + layer.bias


def _summed(model: MLP) -> bool:
    return model.tokens is not None and model.spec.embedding == "summed"


def _above(model: MLP, x: Float[Array, "B width"]) -> Trace:
    """All from what goes into the first activation on."""
    activation = ACTIVATIONS[model.spec.activation]
    before, after = [x], [activation(x)]
    for layer in model.hidden[1:]:
        before.append(layer(after[-1]))
        after.append(activation(before[-1]))
    head = model.head if model.out is None else _one_after_the_other(model.out, model.head, rows=len(x))
    outputs = model.spec.output_scale * head(after[-1])
    return Trace(outputs, tuple(before), tuple(after), tuple(after))


def _one_after_the_other(first: Linear, second: Linear, rows: int) -> Callable[[Array], Array]:
    """Two layers with nothing in between; as a single matrix where that is less work for so many rows."""
    (middle, n), outputs = first.weight.shape, len(second.weight)
    if rows * middle * (n + outputs) <= n * outputs * (rows + middle):
        return lambda x: second(first(x))
    bias = second.bias if first.bias is None else second(first.bias)
    return Linear(first.multiplier * second.multiplier * (second.weight @ first.weight), bias)


def shared_forward(model: MLP, inputs: np.ndarray, rows: Int[Array, " B"]) -> Float[Array, "B outputs"]:
    """The outputs for these rows of the table whose inputs [N, T] are known before compilation."""
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
    x = first.multiplier * x
    x = x if first.bias is None else x + first.bias
    return _above(model, jnp.broadcast_to(x, (len(rows), len(first.weight)))).outputs


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
