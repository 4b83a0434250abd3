"""Training losses, example by example; the engine averages them over the batch."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from groklab.recipe import Loss


class CrossEntropy(Loss):
    """Softmax cross-entropy, log sum_j exp(z_j) - z_target, with all logits z taken relative to their maximum.

    It cannot overflow, but it can collapse (Prieto et al. 2025, arXiv 2501.04697): once the right answer's logit leads
    by so much that all other terms vanish beside its own (by about 17 in float32, 37 in float64), the loss is exactly
    0, and so is the gradient at that logit. Prieto et al. count wrong answers that lead by as much too.
    """

    kind: Literal["cross_entropy"] = "cross_entropy"

    def per_example(self, logits: Float[Array, "B C"], targets: Int[Array, " B"]) -> Float[Array, " B"]:
        # Relative to the maximum before anything is subtracted, or small losses drown in the rounding of large logits.
        logits = logits - jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
        # The target's logit by comparison, not by index, so that its gradient is elementwise and no scatter.
        chosen = jnp.sum(jnp.where(jnp.arange(logits.shape[-1]) == targets[:, None], logits, 0.0), axis=-1)
        return jnp.log(jnp.sum(jnp.exp(logits), axis=-1)) - chosen

    def collapsed(self, losses: Float[Array, " B"]) -> Bool[Array, " B"]:
        return losses == 0


class MeanSquaredError(Loss):
    """Squared distance between logits and the one-hot target, averaged over classes (Omnigrok's convention)."""

    kind: Literal["mean_squared_error"] = "mean_squared_error"

    def per_example(self, logits: Float[Array, "B C"], targets: Int[Array, " B"]) -> Float[Array, " B"]:
        one_hot = jnp.arange(logits.shape[-1]) == targets[:, None]
        return jnp.mean((logits - one_hot) ** 2, axis=-1)
