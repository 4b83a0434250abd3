"""Training losses, example by example; the engine averages them over the batch."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from groklab.recipe import Loss


class CrossEntropy(Loss):
    """Softmax cross-entropy, computed as log-sum-exp of the logits relative to their maximum."""

    kind: Literal["cross_entropy"] = "cross_entropy"

    def per_example(self, logits: Float[Array, "B C"], targets: Int[Array, " B"]) -> Float[Array, " B"]:
        # The target's logit by comparison, not by index, so that its gradient is elementwise and no scatter.
        chosen = jnp.sum(jnp.where(jnp.arange(logits.shape[-1]) == targets[:, None], logits, 0.0), axis=-1)
        return jax.nn.logsumexp(logits, axis=-1) - chosen


class MeanSquaredError(Loss):
    """Squared distance between logits and the one-hot target, averaged over classes (Omnigrok's convention)."""

    kind: Literal["mean_squared_error"] = "mean_squared_error"

    def per_example(self, logits: Float[Array, "B C"], targets: Int[Array, " B"]) -> Float[Array, " B"]:
        one_hot = jnp.arange(logits.shape[-1]) == targets[:, None]
        return jnp.mean((logits - one_hot) ** 2, axis=-1)
