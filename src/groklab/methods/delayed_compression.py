"""Delayed compression: overfit first, then press the weights together with a Frobenius penalty.

    L = cross-entropy + [train accuracy >= 0.99] * strength * sum ||W||_F^2      gradient: g + 2 * strength * W

The penalty goes through the optimiser, so under Adam it is coupled L2 with coefficient 2 * strength, switched on late;
it is not decoupled weight decay. Source: "A Simple Method for Accelerating Grokking" (LessWrong, 2025) and its Grokfast
fork, which penalises every parameter whose name contains "weight", embeddings and norm gains included
(`scope = "weights"`).

Whether the authors measured accuracy per batch or per epoch, and whether the penalty may switch off again, is not on
record; the trigger offers each. When not to use it: never reaching the trigger means training
without any regularisation.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import jax
import optax
from pydantic import Field

from groklab.methods.triggers import TrainAccuracy, triggered
from groklab.recipe import Method, Trigger, path_name
from groklab.spec import Number


class DelayedCompression(Method):
    """Add the gradient of `strength * sum of squared weights` once train accuracy has reached 0.99."""

    kind: Literal["delayed_compression"] = "delayed_compression"
    strength: Annotated[Number, Field(ge=0)] = 0.01
    scope: Literal["weights", "matrices", "all"] = "weights"
    when: Trigger = TrainAccuracy()

    def build(self) -> optax.GradientTransformation:
        return triggered(_frobenius(self.strength, self.scope), self.when)


def _frobenius(strength: float, scope: str) -> optax.GradientTransformation:
    def penalised(path: Any, weight: jax.Array) -> bool:
        return scope == "all" or ("weight" in path_name(path) and (scope == "weights" or weight.ndim == 2))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        def add(path: Any, g: jax.Array, w: jax.Array) -> jax.Array:
            return g + 2 * strength * w if penalised(path, w) else g

        return jax.tree_util.tree_map_with_path(add, updates, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
