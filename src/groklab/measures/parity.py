"""The Fourier gap of parities: whether the gradient already tells the bits that count from the others.

    g_ki = E_x[dl/dw_ki],   x uniform on {-1, +1}^n,   gap_k = min_{i in S} |g_ki| - max_{i not in S} |g_ki|

for the weights w_k of each neuron of the first layer, S the k bits that count. Barak et al. 2022 (arXiv 2207.08799):
with the loss l = -y f, which is the hinge loss wherever y f < 1, and f = u relu(w x + b), g_i is -u times the Fourier
coefficient of the step function [w x + b > 0] at S without i for bits that count, and at S with i for others, which is
of two degrees more and smaller. For w = (1, ..., 1) and odd n, and so for the signs of their Bernoulli initialisation,
the step is half of 1 + majority, and for even k the gap is of the order n^(-(k-1)/2). Where it is positive, a step
along the gradient moves the weights of S the farthest. Without biases the step is odd but for its mean, so that for
odd k > 1 all coefficients are 0, and what is shown is rounding.

The paper defines the gap for the activation's derivative, here it is for the gradient: with the factor |u|, and of
deeper networks. Its constants are not verified. `loss = "network"` takes the network's own loss at the present outputs
instead, with which the gap goes to 0 as the task is solved.

Exact for n <= 14, by all 2^n inputs. For greater n it is a mean over at least `sample` inputs, drawn once and for all,
with an error of about |u| / sqrt(sample) in every g_ki, 1e-2 by default: gaps below that cannot be seen.

Cost: a forward and a backward pass over these inputs, in blocks of 1024. Not a predictor for tasks other than parities,
nor a sign of generalisation by itself: a finite sample's gradient differs from this one of all inputs.
"""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from groklab.errors import SpecError
from groklab.experiment import Measure, Positive
from groklab.models.mlp import MLP
from groklab.models.parity_networks import PolyNet, SingleNeuron
from groklab.network import Network
from groklab.tasks.parity import Parity

ENUMERATED = 14  # bits, of which all inputs are taken
BLOCK = 1024  # inputs at a time


class FourierGap(Measure):
    """Gap between the population gradient of a neuron's weights on the bits that count and on the others.

    Columns: `fourier_gap.greatest` and `.mean` of the neurons of the first layer, `.share` of them whose gap is
    positive beyond rounding, and `.relevant` and `.irrelevant`, the mean of |g| over neurons and those bits (NaN if
    there are none). Details: the gap of every neuron. Raises SpecError for any task but parity of sign vectors with
    sign answers, and for models other than mlp, single_neuron and polynet that is not disjoint.
    """

    kind: Literal["fourier_gap"] = "fourier_gap"
    loss: Literal["correlation", "network"] = "correlation"
    sample: Positive = 8192

    def measure(self, network: Network) -> dict[str, Float[Array, ""]]:
        relevant, size = self._sizes(network)
        gaps, rounding = _gaps(relevant, size), 100 * jnp.finfo(size.dtype).eps * jnp.max(size)
        return {
            "fourier_gap.greatest": jnp.max(gaps),
            "fourier_gap.mean": jnp.mean(gaps),
            "fourier_gap.share": jnp.mean((gaps > rounding).astype(gaps.dtype)),
            "fourier_gap.relevant": jnp.mean(size, where=relevant),
            "fourier_gap.irrelevant": jnp.mean(size, where=~relevant),
        }

    def details(self, network: Network) -> dict[str, Any]:
        return {"fourier_gap.neurons": np.asarray(_gaps(*self._sizes(network)))}

    def _sizes(self, network: Network) -> tuple[Array, Float[Array, "width n"]]:
        """Which bits count [1, n], and |g|."""
        task = network.task
        if not isinstance(task, Parity) or (task.encoding, task.labels) != ("vectors", "signs"):
            given = f"encoding '{task.encoding}', labels '{task.labels}'" if isinstance(task, Parity) else task.kind  # pyright: ignore
            raise SpecError(
                f"measure 'fourier_gap' is for task 'parity' with encoding 'vectors' and labels 'signs', but was given "
                f"{given}"
            )
        weight = first_weight(network.parameters, task.n)
        teacher = network.split.teacher
        assert teacher is not None
        relevant = jnp.zeros(task.n, bool).at[jnp.asarray(teacher["support"])].set(True)
        blocks = max(2**task.n // BLOCK, 1) if task.n <= ENUMERATED else -(-self.sample // BLOCK)

        def loss(parameters: PyTree, x: Float[Array, "B n"]) -> Float[Array, ""]:
            y = jnp.prod(jnp.where(relevant, x, 1), axis=-1)
            f = network.model.apply(parameters, x)
            if self.loss == "correlation":
                return -jnp.mean(y * f[:, 0])
            return jnp.mean(network.loss.per_example(f, (y > 0).astype(jnp.int32)))

        def add(i: Int[Array, ""], total: Array) -> Array:
            gradient = jax.grad(loss)(network.parameters, _inputs(i, task.n).astype(weight.dtype))
            return total + first_weight(gradient, task.n)

        return relevant[None], jnp.abs(jax.lax.fori_loop(0, blocks, add, jnp.zeros_like(weight))) / blocks


def first_weight(parameters: PyTree, n: int, measure: str = "fourier_gap") -> Float[Array, "width n"]:
    """The weights between the n inputs and the first layer. Raises SpecError for models without one."""
    if isinstance(parameters, MLP) and parameters.tokens is None:
        return parameters.hidden[0].weight
    if isinstance(parameters, SingleNeuron):
        return parameters.weight[None]
    if isinstance(parameters, PolyNet) and parameters.weight.shape[-1] == n:
        return parameters.weight
    raise SpecError(
        f"measure '{measure}' reads a first layer of weights, which models mlp (without tokens), single_neuron and "
        f"polynet (not disjoint) have, but was given a {type(parameters).__name__}"
    )


def _inputs(block: Int[Array, ""], n: int) -> Int[Array, "B n"]:
    """The inputs of a block: all of them in turn if n is small, and otherwise random ones, the same at every call."""
    if n <= ENUMERATED:
        bits = (block * BLOCK + jnp.arange(min(BLOCK, 2**n)))[:, None] >> jnp.arange(n)
    else:
        bits = jax.random.bits(jax.random.fold_in(jax.random.key(0), block), (BLOCK, n), jnp.uint8)
    return 2 * (bits & 1).astype(jnp.int32) - 1


def _gaps(relevant: Array, size: Float[Array, "width n"]) -> Float[Array, " width"]:
    least = jnp.min(jnp.where(relevant, size, jnp.inf), axis=-1)
    return least - jnp.max(jnp.where(relevant, 0, size), axis=-1)
