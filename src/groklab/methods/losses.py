"""Training losses, example by example; the engine averages them over the batch."""

from __future__ import annotations

from typing import Literal

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from groklab.recipe import Loss


class CrossEntropy(Loss):
    """Softmax cross-entropy, computed as log-sum-exp of the logits relative to their maximum."""

    kind: Literal["cross_entropy"] = "cross_entropy"

    def per_example(self, logits: Float[Array, "B C"], targets: Int[Array, " B"]) -> Float[Array, " B"]:
        return optax.softmax_cross_entropy_with_integer_labels(logits, targets)


class MeanSquaredError(Loss):
    """Squared distance between logits and the one-hot target, averaged over classes (Omnigrok's convention)."""

    kind: Literal["mean_squared_error"] = "mean_squared_error"

    def per_example(self, logits: Float[Array, "B C"], targets: Int[Array, " B"]) -> Float[Array, " B"]:
        one_hot = jnp.arange(logits.shape[-1]) == targets[:, None]
        return jnp.mean((logits - one_hot) ** 2, axis=-1)
