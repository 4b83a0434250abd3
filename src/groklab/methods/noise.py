"""Gaussian noise: on the gradient, on the update, or on the weights under which the gradient is taken.

    gaussian_gradient   g + sigma (1 + t)^(-decay / 2) xi                                               xi ~ N(0, 1)
    update_noise        update + sigma s(t) xi                       s the schedule's factor
    weight_noise        the gradient at w + sigma xi, applied to w

The first is that of Neelakantan et al. 2015 (arXiv 1511.06807; their decay is 0.55). The others are two interventions
of Power et al. 2022 (arXiv 2201.02177), on every parameter: W <- W + lr (dW + eps), eps ~ N(0, 1), and Gaussian noise
of 0.01 on the weights in the forward pass. Noise is drawn anew for each number, step and run; the same run draws the
same.

Deviations from Power et al.'s code. (1) A method does not know the learning rate, so `sigma` of update_noise is their
lr times noise_factor, and `schedule` (to be set to the recipe's) their warm-up; they also divide by Adam's bias
correction 1 - beta1^t, which is near 1 after some twenty updates. (2) Their training loss and accuracy are those with
weight noise; here the signals, and so triggers, are of the weights without.

Cost: a random number per parameter and step, no memory. Weight noise takes a second forward pass besides, for the loss
at the weights without noise, a third more time per step; with a `when` a second gradient, twice the time. Not for the
fastest way to grok: noise helped with few examples in Power et al., but weight decay did much more.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree
from pydantic import Field

from groklab.methods.schedules import Constant, scheduled
from groklab.methods.triggers import Always, triggered
from groklab.recipe import Method, Schedule, Signals, Trigger, transformation
from groklab.spec import Number

Sigma = Annotated[Number, Field(ge=0)]


class GaussianGradient(Method):
    """Add Gaussian noise to every gradient, of standard deviation `sigma` at first.

    Its variance falls as (1 + steps)^-decay: 0 keeps it, 0.55 is that of Neelakantan et al.
    """

    kind: Literal["gaussian_gradient"] = "gaussian_gradient"
    sigma: Sigma = 0.01
    decay: Annotated[Number, Field(ge=0)] = 0.0
    when: Trigger = Always()

    def build(self) -> optax.GradientTransformation:
        return triggered(_added(lambda step: self.sigma * (1.0 + step) ** (-self.decay / 2), stream=0), self.when)


class UpdateNoise(Method):
    """Add Gaussian noise of standard deviation `sigma` times the schedule's factor to every update.

    `sigma` is the learning rate times that of the noise on the optimiser's step, which is 1 in Power et al.
    """

    kind: Literal["update_noise"] = "update_noise"
    place = "after"
    sigma: Sigma = 1e-3
    schedule: Schedule = Constant()
    when: Trigger = Always()

    def build(self) -> optax.GradientTransformation:
        return scheduled(lambda factor: _added(lambda _: self.sigma * factor, stream=1), self.schedule, self.when)


class WeightNoise(Method):
    """Take the gradient under weights with Gaussian noise of standard deviation `sigma`.

    Everything else in the recipe sees this gradient as the batch's, and what asks for the gradient elsewhere (SAM) gets
    it with the same noise.
    """

    kind: Literal["weight_noise"] = "weight_noise"
    place = "around"
    sigma: Sigma = 0.01
    when: Trigger = Always()

    def around(self, inner: optax.GradientTransformationExtraArgs) -> optax.GradientTransformation:
        def init(params: PyTree) -> tuple[Any, Any]:
            return self.when.init(), inner.init(params)

        def update(
            updates: PyTree, state: Any, params: PyTree, *, signals: Signals, key: Array, gradient: Any, **extra: Any
        ) -> tuple[PyTree, Any]:
            trigger_state, inner_state = state
            acts, trigger_state = self.when.update(trigger_state, signals)
            noise = _drawn(key, 2, params, jnp.where(acts, self.sigma, 0.0))

            def noisy(parameters: PyTree) -> PyTree:
                return gradient(jax.tree.map(jnp.add, parameters, noise))

            updates = jax.lax.cond(acts, lambda: noisy(params), lambda: updates)
            updates, inner_state = inner.update(
                updates, inner_state, params, signals=signals, key=key, gradient=noisy, **extra
            )
            return updates, (trigger_state, inner_state)

        return transformation(init, update)


def _added(sigma: Any, stream: int) -> optax.GradientTransformationExtraArgs:
    """Noise of standard deviation sigma(step) on whatever comes along."""

    def update(
        updates: PyTree, state: Any, params: Any = None, *, signals: Signals, key: Array, **extra: Any
    ) -> tuple[PyTree, Any]:
        return jax.tree.map(jnp.add, updates, _drawn(key, stream, updates, sigma(signals.step))), state

    return transformation(lambda params: optax.EmptyState(), update)


def _drawn(key: Array, stream: int, like: PyTree, sigma: Any) -> PyTree:
    """Gaussian noise shaped as `like`; methods of different streams draw independently from the step's one key."""
    noise = optax.tree.random_like(jax.random.fold_in(key, stream), like)
    return jax.tree.map(lambda xi: jnp.asarray(sigma, xi.dtype) * xi, noise)
