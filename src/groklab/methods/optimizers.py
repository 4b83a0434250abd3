"""Optimisers, by Optax, with PyTorch's conventions so that published settings mean the same here.

    adam    g + l2 * w through Adam: the coupled L2 that `torch.optim.Adam(weight_decay=...)` applies
    adamw   w - lr * (adam(g) + weight_decay * w): decay decoupled from the gradient but scaled by the learning rate
    sgd     heavy-ball momentum, optionally Nesterov, with coupled L2

Betas default to the (0.9, 0.98) of Power et al.; epsilon is a visible setting because slingshots depend on it.
"""

from __future__ import annotations

from typing import Annotated, Literal

import jax.numpy as jnp
import optax
from pydantic import Field

from groklab.recipe import Optimizer, Schedule
from groklab.spec import Number

Rate = Annotated[Number, Field(ge=0)]
Beta = Annotated[float, Field(ge=0, lt=1)]  # not traced: float32 would round 0.999 while bias correction needs it exact


class Adam(Optimizer):
    """Adam with optional coupled L2 (Kingma & Ba 2014, arXiv 1412.6980)."""

    kind: Literal["adam"] = "adam"
    learning_rate: Rate = 1e-3
    l2: Rate = 0.0
    beta1: Beta = 0.9
    beta2: Beta = 0.98
    epsilon: Annotated[float, Field(gt=0)] = 1e-8

    def build(self, schedule: Schedule) -> optax.GradientTransformation:
        return optax.chain(
            optax.add_decayed_weights(self.l2),
            optax.scale_by_adam(self.beta1, self.beta2, self.epsilon),
            _descend(self.learning_rate, schedule),
        )


class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2017, arXiv 1711.05101)."""

    kind: Literal["adamw"] = "adamw"
    learning_rate: Rate = 1e-3
    weight_decay: Rate = 1.0
    beta1: Beta = 0.9
    beta2: Beta = 0.98
    epsilon: Annotated[float, Field(gt=0)] = 1e-8

    def build(self, schedule: Schedule) -> optax.GradientTransformation:
        return optax.chain(
            optax.scale_by_adam(self.beta1, self.beta2, self.epsilon),
            optax.add_decayed_weights(self.weight_decay),
            _descend(self.learning_rate, schedule),
        )


class SGD(Optimizer):
    """Stochastic gradient descent with momentum and optional coupled L2."""

    kind: Literal["sgd"] = "sgd"
    learning_rate: Rate = 1e-2
    l2: Rate = 0.0
    momentum: Beta = 0.0
    nesterov: bool = False

    def build(self, schedule: Schedule) -> optax.GradientTransformation:
        return optax.chain(
            optax.add_decayed_weights(self.l2),
            optax.trace(self.momentum, self.nesterov) if self.momentum else optax.identity(),
            _descend(self.learning_rate, schedule),
        )


def _descend(learning_rate: float, schedule: Schedule) -> optax.GradientTransformation:
    return optax.scale_by_schedule(lambda count: -learning_rate * schedule.factor(jnp.asarray(count)))
