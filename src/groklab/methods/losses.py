"""Training losses, example by example; the engine averages them over the batch.

For signs there is one output f and the target y is -1 or +1; for classes there is one logit z_c each; for values, as
many outputs as values. The conventions of the field (a mean or a sum over outputs, a half or none, a temperature, a
margin) are options, since learning rates depend on them. Cost: nothing beside the network, in time and memory. Not for
comparing the values of the loss between arms that differ in them.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
from pydantic import Field

from groklab.recipe import Loss
from groklab.spec import Number

Temperature = Annotated[Number, Field(gt=0)]


class CrossEntropy(Loss):
    """Softmax cross-entropy, log sum_j exp(z_j) - z_target; for signs the logistic loss, log(1 + exp(-y f)).

    Outputs are divided by `temperature` first; greater than 1, it makes confidence dearer (arXiv 2606.18465).

    Logits are taken relative to their maximum, so it cannot overflow, but it can collapse (Prieto et al. 2025, arXiv
    2501.04697): once the right answer's logit leads by so much that all other terms vanish beside its own (by about 17
    in float32, 37 in float64), the loss is exactly 0, and so is the gradient at that logit. Prieto et al. count wrong
    answers that lead by as much too.
    """

    kind: Literal["cross_entropy"] = "cross_entropy"
    takes: ClassVar[tuple[str, ...]] = ("classes", "signs")
    temperature: Temperature = 1.0

    def per_example(self, outputs: Float[Array, "B C"], targets: Int[Array, " B"]) -> Float[Array, " B"]:
        return cross_entropy(outputs / self.temperature, targets)

    def collapsed(self, losses: Float[Array, " B"]) -> Bool[Array, " B"]:
        return losses == 0


class MeanSquaredError(Loss):
    """Squared distance from the value, the sign or the one-hot class, averaged over outputs (Omnigrok's convention).

    `reduction = "sum"` adds over the outputs instead, which is C times as much, and `half` takes half of either, the
    convention of theory and of the learning rates that go with it.
    """

    kind: Literal["mean_squared_error"] = "mean_squared_error"
    takes: ClassVar[tuple[str, ...]] = ("classes", "signs", "values")
    reduction: Literal["mean", "sum"] = "mean"
    half: bool = False

    def per_example(self, outputs: Float[Array, "B C"], targets: Array) -> Float[Array, " B"]:
        squares = (outputs - _aims(outputs, targets)) ** 2
        loss = jnp.mean(squares, axis=-1) if self.reduction == "mean" else jnp.sum(squares, axis=-1)
        return loss / 2 if self.half else loss


class Hinge(Loss):
    """max(0, margin - y f) for signs; for classes max(0, margin - (z_target - the greatest other logit)).

    The latter is the multi-class form of Crammer and Singer (2001).
    """

    kind: Literal["hinge"] = "hinge"
    takes: ClassVar[tuple[str, ...]] = ("classes", "signs")
    margin: Annotated[Number, Field(ge=0)] = 1.0

    def per_example(self, outputs: Float[Array, "B C"], targets: Int[Array, " B"]) -> Float[Array, " B"]:
        return jax.nn.relu(self.margin - margins(outputs, targets))


class Correlation(Loss):
    """Minus the correlation of sign and output, -(y - mean) f, for signs.

    With `mean` that of y over the distribution of inputs, its expectation is minus the covariance of y and f, whatever
    the mean of f; for parities of k bits that are each -1 with probability p, the mean is (1 - 2 p)^k. With 0 it is the
    loss `hebb`. It has no minimum: it is for analyses of a few steps (as in Cornacchia & Mossel 2023, arXiv 2301.13833,
    whose covariance loss is the like) and for networks of bounded output.
    """

    kind: Literal["correlation"] = "correlation"
    takes: ClassVar[tuple[str, ...]] = ("signs",)
    mean: Annotated[Number, Field(ge=-1, le=1)] = 0.0

    def per_example(self, outputs: Float[Array, "B 1"], targets: Int[Array, " B"]) -> Float[Array, " B"]:
        return -(signs(outputs, targets) - self.mean) * outputs[:, 0]


def cross_entropy(outputs: Float[Array, "B C"], targets: Int[Array, " B"]) -> Float[Array, " B"]:
    """log sum_j exp(z_j) - z_target of each example; with one output, the other class has logit 0."""
    if outputs.shape[-1] == 1:
        outputs = jnp.concatenate([jnp.zeros_like(outputs), outputs], axis=-1)  # the sigmoid as a softmax
    # Relative to the maximum before anything is subtracted, or small losses drown in the rounding of large logits.
    logits = outputs - jax.lax.stop_gradient(jnp.max(outputs, axis=-1, keepdims=True))
    # The target's logit by comparison, not by index, so that its gradient is elementwise and no scatter.
    chosen = jnp.sum(jnp.where(jnp.arange(logits.shape[-1]) == targets[:, None], logits, 0.0), axis=-1)
    return jnp.log(jnp.sum(jnp.exp(logits), axis=-1)) - chosen


def margins(outputs: Float[Array, "B C"], targets: Int[Array, " B"]) -> Float[Array, " B"]:
    """By how much each answer is right: y f for signs, the target's logit minus the greatest other one for classes."""
    if outputs.shape[-1] == 1:
        return outputs[:, 0] * signs(outputs, targets)
    is_target = jnp.arange(outputs.shape[-1]) == targets[:, None]
    chosen = jnp.sum(jnp.where(is_target, outputs, 0.0), axis=-1)
    return chosen - jnp.max(jnp.where(is_target, -jnp.inf, outputs), axis=-1)


def deficits(outputs: Float[Array, "*B C"], targets: Array | int) -> Float[Array, "*B"]:
    """log sum exp of the other classes' logits minus the right one's; minus the output that has the right sign."""
    if outputs.shape[-1] == 1:
        return -outputs[..., 0] * signs(outputs, targets)
    is_target = jnp.arange(outputs.shape[-1]) == jnp.asarray(targets)[..., None]
    others = jax.nn.logsumexp(jnp.where(is_target, -jnp.inf, outputs), axis=-1)
    return others - jnp.sum(jnp.where(is_target, outputs, 0), axis=-1)


def unrounded_cross_entropy(outputs: Float[Array, "*B C"], targets: Array | int) -> Float[Array, "*B"]:
    """log(1 + sum of exp(z_j - z_target) over j != target): keeps losses that `cross_entropy` rounds to 0.

    Such rounding is the softmax collapse of Prieto et al. 2025; what only measures has no reason to repeat it.
    """
    return jax.nn.softplus(deficits(outputs, targets))


def signs(outputs: Float[Array, "*B 1"], targets: Array | int) -> Float[Array, "*B"]:
    """Targets 0 and 1 as -1 and +1, in the type of the outputs."""
    return jnp.asarray(2 * targets - 1, outputs.dtype)


def _aims(outputs: Float[Array, "B C"], targets: Array) -> Array:
    """What the outputs would ideally be."""
    if targets.ndim == 2:
        return targets
    if outputs.shape[-1] == 1:
        return signs(outputs, targets)[:, None]
    return jnp.arange(outputs.shape[-1]) == targets[:, None]
