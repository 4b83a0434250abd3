"""Triggers: when a method acts.

A trigger reads the online signals of the current step and says whether its method acts at that step. Signals come from
the training batch alone, so neither held-out labels nor the evaluation cadence can change a run.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool
from pydantic import Field

from groklab.recipe import Signals, Trigger
from groklab.spec import Number


class Always(Trigger):
    """Acts at every step."""

    kind: Literal["always"] = "always"

    def init(self) -> Bool[Array, ""]:
        return jnp.array(True)

    def update(self, state: Bool[Array, ""], signals: Signals) -> tuple[Bool[Array, ""], Bool[Array, ""]]:
        return state, state


class AfterStep(Trigger):
    """Acts once `step` updates are done (and, with `before`, only until that many are)."""

    kind: Literal["after_step"] = "after_step"
    step: Annotated[int, Field(ge=0)]
    before: Annotated[int, Field(gt=0)] | None = None

    def init(self) -> Bool[Array, ""]:
        return jnp.array(False)

    def update(self, state: Bool[Array, ""], signals: Signals) -> tuple[Bool[Array, ""], Bool[Array, ""]]:
        acts = signals.step >= self.step
        if self.before is not None:
            acts &= signals.step < self.before
        return acts, acts


class TrainAccuracy(Trigger):
    """Acts once train accuracy reaches `at_least`: of this batch, or of the last complete epoch.

    With `latch` it stays on from then; without, it follows the accuracy up and down. The public code behind delayed
    compression leaves both choices open, so both are here.
    """

    kind: Literal["train_accuracy"] = "train_accuracy"
    at_least: Annotated[Number, Field(gt=0, le=1)] = 0.99
    of: Literal["batch", "epoch"] = "batch"
    latch: bool = True

    def init(self) -> Bool[Array, ""]:
        return jnp.array(False)

    def update(self, state: Bool[Array, ""], signals: Signals) -> tuple[Bool[Array, ""], Bool[Array, ""]]:
        accuracy = signals.train_accuracy if self.of == "batch" else signals.epoch_accuracy
        acts = accuracy >= self.at_least
        if self.latch:
            acts |= state
        return acts, acts


def triggered(transform: optax.GradientTransformation, trigger: Trigger) -> optax.GradientTransformationExtraArgs:
    """`transform` while `trigger` is on; gradients pass unchanged, and its state stands still, while it is off.

    What is off is not computed, except where many runs are advanced in one operation (vmap).
    `optax.transforms.conditionally_transform` counts its own steps; this one is told by the signals.
    """
    inner = optax.with_extra_args_support(transform)

    def init(params: Any) -> tuple[Any, Any]:
        return trigger.init(), inner.init(params)

    def update(updates: Any, state: Any, params: Any = None, *, signals: Signals, **extra: Any) -> tuple[Any, Any]:
        trigger_state, inner_state = state
        acts, trigger_state = trigger.update(trigger_state, signals)
        updates, inner_state = jax.lax.cond(
            acts,
            lambda: inner.update(updates, inner_state, params, signals=signals, **extra),
            lambda: (updates, inner_state),
        )
        return updates, (trigger_state, inner_state)

    if isinstance(trigger, Always):
        return inner
    # The constructor's type, inherited by optax from GradientTransformation, does not know of extra arguments.
    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]
