"""Accuracy on held-out examples that an adversary may change a little, by projected gradient descent (PGD).

    x <- P(x + a d),     d = sign(g)  (linf)   or   g / |g|  (l2),     g = gradient at x of the cross-entropy

P brings x back into the ball of the radius around the example, in the same norm, and then into the range of the pixels.
Reference: Madry et al. 2017 (arXiv 1706.06083); with delayed robustness ("deep networks always grok") Humayun et al.
2024 (arXiv 2402.15555), whose settings are the defaults: linf with radii 0.03 to 0.20, 10 steps (100 for MNIST) of
a = 0.0156, and attacks made anew at each evaluation. Their repository takes a random start as an option of the attack,
but the version read here does not use it: `random_start = false` is what it does.

Radii and steps are in units of the inputs as the network sees them, with normalisation "standard" in standard
deviations. Images stay within the values of black and white pixels; vectors have no range, so that bits -1 and +1 may
become other numbers. Theirs are clipped to the least and greatest value in the batch unless told otherwise.

The gradient is that of log sum_{c != t} exp(z_c) - z_t (for signs, of -y f): it has the direction of the
cross-entropy's for each example, but does not vanish by rounding where the network is sure of its answer.

Cost: (steps + 1) forward and steps backward passes of the sample for each radius. It is an upper bound of the accuracy
under the worst attack, and a loose one with few steps: a network that hides its gradients is not robust. Not for
tokens, which cannot be changed a little, and not for answers that are values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from pydantic import Field

from groklab.errors import SpecError
from groklab.experiment import Measure, Positive, Task
from groklab.methods.losses import deficits
from groklab.network import Network
from groklab.tasks.images import ImageTask

Outputs = Callable[[Float[Array, "B ..."]], Float[Array, "B outputs"]]
Norm = Literal["linf", "l2"]
Range = tuple[np.ndarray, np.ndarray]  # the least and the greatest value, of each channel or of all


class Robustness(Measure):
    """Accuracy on held-out images or vectors under PGD attacks of several radii; at radius 0 it is the accuracy.

    Columns: robust_accuracy.<norm>.<radius>, the radius with an underscore for its point: robust_accuracy.linf.0_03.
    `samples` bounds the examples; `step` is a, or relative: 2.5 radii over `steps`; with `random_start` the attack
    starts anywhere in the ball. Raises SpecError for tokens, for values, and where it is not known what was held out.
    """

    kind: Literal["robustness"] = "robustness"
    samples: Positive = 1000
    norm: Norm = "linf"
    radii: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)] = (
        0.03,
        0.06,
        0.1,
        0.13,
        0.16,
        0.2,
    )
    steps: Positive = 10
    step: Annotated[float, Field(gt=0)] | Literal["relative"] = 0.0156
    random_start: bool = True

    def measure(self, network: Network) -> dict[str, Float[Array, ""]]:
        task, model, parameters = network.task, network.model, network.parameters
        if jnp.issubdtype(network.inputs.dtype, jnp.integer) or task.answers == "values":
            given = "values to predict" if task.answers == "values" else "tokens"
            raise SpecError(
                f"measure 'robustness' attacks vectors and images with classes or signs, but task "
                f"'{getattr(task, 'kind', '')}' has {given}"
            )
        if "test" not in network.parts:
            raise SpecError("measure 'robustness' is of held-out examples, but it is not known what was held out")
        rows = network.sample(network.parts["test"], self.samples)
        x = network.inputs[rows].astype(jnp.result_type(*jax.tree.leaves(parameters)))
        targets, limits = network.targets[rows], pixel_range(task)

        def outputs_of(x: Float[Array, "B ..."]) -> Float[Array, "B outputs"]:
            return model.apply(parameters, x)

        def accuracy(radius: Float[Array, ""]) -> Float[Array, ""]:
            step = 2.5 * radius / self.steps if self.step == "relative" else self.step
            start = ball(x, self.norm, radius, network.key) if self.random_start else x
            attacked = attack(outputs_of, x, start, targets, self.norm, radius, step, self.steps, limits)
            return jnp.mean(task.right(outputs_of(attacked), targets), dtype=x.dtype)

        accuracies = jax.lax.map(accuracy, jnp.asarray(self.radii, x.dtype))
        names = (f"{radius:g}".replace(".", "_") for radius in self.radii)
        return {f"robust_accuracy.{self.norm}.{name}": accuracies[i] for i, name in enumerate(names)}


def pixel_range(task: Task) -> Range | None:
    """The least and the greatest value of a pixel as the network sees it, None where examples are no images."""
    if not isinstance(task, ImageTask):
        return None
    low, high = np.zeros(1), np.ones(1)
    if task.normalisation == "standard":
        low, high = (((end - np.array(task.mean)) / np.array(task.std)) for end in (0.0, 1.0))
    grey = (1 - task.messiness) / 2  # the constants that messiness mixes in go from minus this to this
    return task.messiness * low - grey, task.messiness * high + grey


def attack(
    outputs_of: Outputs,
    x: Float[Array, "B ..."],
    start: Float[Array, "B ..."],
    targets: Array,
    norm: Norm,
    radius: Float[Array, ""] | float,
    step: Float[Array, ""] | float,
    steps: int,
    limits: Range | None,
) -> Float[Array, "B ..."]:
    """The examples after so many steps of PGD from `start`, inside the ball and the limits."""

    def inside(moved: Array) -> Array:
        offset = moved - x
        if norm == "linf":
            offset = jnp.clip(offset, -radius, radius)
        else:
            offset = offset * jnp.minimum(1, radius / jnp.maximum(_lengths(offset), jnp.finfo(x.dtype).tiny))
        return x + offset if limits is None else jnp.clip(x + offset, *(jnp.asarray(end, x.dtype) for end in limits))

    def climb(moved: Array, _: None) -> tuple[Array, None]:
        g = jax.grad(lambda moved: jnp.sum(deficits(outputs_of(moved), targets)))(moved)
        d = jnp.sign(g) if norm == "linf" else g / jnp.maximum(_lengths(g), jnp.finfo(x.dtype).tiny)
        return inside(moved + step * d), None

    return jax.lax.scan(climb, inside(start), length=steps)[0]


def ball(x: Float[Array, "B ..."], norm: Norm, radius: Float[Array, ""], key: Array) -> Float[Array, "B ..."]:
    """A point drawn uniformly from each example's ball."""
    if norm == "linf":
        return x + radius * jax.random.uniform(key, x.shape, x.dtype, minval=-1)
    for_direction, for_length = jax.random.split(key)
    direction = jax.random.normal(for_direction, x.shape, x.dtype)
    share = jax.random.uniform(for_length, _lengths(x).shape, x.dtype) ** (1 / x[0].size)
    return x + radius * share * direction / _lengths(direction)


def _lengths(x: Float[Array, "B ..."]) -> Float[Array, "B ..."]:
    """The L2 norm of each example, with as many axes as x."""
    return jnp.sqrt(jnp.sum(x**2, axis=tuple(range(1, x.ndim)), keepdims=True))
