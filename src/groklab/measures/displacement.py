"""How far a network has moved from where it started, and how much of its outputs the initial linear model explains.

    l2 = |theta - theta_0|,   relative = l2 / |theta_0|,   greatest = max_i |theta_i - theta_0i|
    cosine = <theta, theta_0> / (|theta| |theta_0|)
    laziness = 1 - sum |df - J_0 (theta - theta_0)|^2 / sum |df|^2,     df = f(theta) - f(theta_0),  J_0 = df/dtheta at
                                                                        theta_0, sums over examples and outputs

The relative displacement is that of Kumar et al. 2023 (arXiv 2310.06110) and Chizat et al. 2019 (arXiv 1812.07956), for
whom a network is lazy while it stays near its linear model in theta_0. `greatest` is the progress measure of Barak et
al. 2022 (arXiv 2207.08799), who take it over the first layer only, as does `greatest_of = "first"`. `laziness` is our
number for that nearness, not the papers': 1 for a network that is its linear model, 0 for one whose linear model
explains no more than no change at all would, and below 0, without a bound, where it goes astray. NaN before the first
step.

Cost: laziness, two forward passes and twice a backward one for `sample` examples; the rest is negligible. It needs the
initial parameters in memory. The displacement itself says little of the function where symmetries let weights move
without changing it, and weight decay moves all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from groklab.errors import SpecError
from groklab.experiment import Measure, Positive
from groklab.measures.parity import first_weight
from groklab.models.layers import trained
from groklab.network import Network


class Displacement(Measure):
    """Distance of the parameters from the initial ones, and the share of the outputs' change that is linear in it.

    `laziness` is taken on at most `sample` training examples, fixed ones; on as many of all where the split is not
    known. `displacement.greatest` is over all parameters, or over the weights of the first layer. Raises SpecError
    where nobody kept the initial network, and where there is no such layer.
    """

    kind: Literal["displacement"] = "displacement"
    needs_start: ClassVar[bool] = True
    sample: Positive = 128
    greatest_of: Literal["all", "first"] = "all"

    def measure(self, network: Network) -> dict[str, Float[Array, ""]]:
        if network.start is None:
            raise SpecError(
                "measure 'displacement' compares with the initial network, but nobody kept that of this one"
            )
        now, start = trained(network.parameters), trained(network.start)
        moved = jax.tree.map(jnp.subtract, now, start)
        watched = moved if self.greatest_of == "all" else first_weight(moved, network.inputs.shape[-1], self.kind)
        inputs = network.inputs[network.sample(next(iter(network.parts.values())), self.sample)]

        def outputs(parameters: PyTree) -> Float[Array, "B outputs"]:
            return network.model.apply(eqx.combine(parameters, network.start), inputs)

        before, linear = tangent(outputs, start, moved)
        change = network.model.apply(network.parameters, inputs) - before
        return {
            "displacement.l2": norm(moved),
            "displacement.relative": norm(moved) / norm(start),
            "displacement.greatest": jnp.max(jnp.stack([jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(watched)])),
            "displacement.cosine": product(now, start) / (norm(now) * norm(start)),
            "laziness": 1 - jnp.sum((change - linear) ** 2) / jnp.sum(change**2),
        }


def tangent(f: Callable[[PyTree], Array], at: PyTree, direction: PyTree) -> tuple[Array, Array]:
    """f(at) and its derivative along the direction, by two backward passes.

    jax.jvp would do it by one forward pass, but not through layers whose gradient is written by hand.
    """
    value, back = jax.vjp(f, at)
    return value, jax.vjp(back, jnp.zeros_like(value))[1]((direction,))[0]


def product(a: PyTree, b: PyTree) -> Float[Array, ""]:
    """The inner product of two sets of parameters."""
    return sum(jnp.sum(x * y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))  # pyright: ignore


def norm(a: PyTree) -> Float[Array, ""]:
    """The L2 norm of a set of parameters."""
    return jnp.sqrt(product(a, a))
