"""Triggers: when a method acts.

    acts, state = trigger.update(state, signals)

A trigger reads the online signals of the current step and says whether its method acts at that step. Signals come from
the training batch alone, so neither held-out labels nor the evaluation cadence can change a run.

Phases defined on held-out data, such as "grokked" or the circuit formation of Nanda et al. 2023 (arXiv 2301.05217, by
their excluded and restricted loss), are unknowable to a method for the same reason; "cleanup" here goes by the fall of
the weight norm that they see at that time, and is a stand-in for it. Triggers combine: all_of, any_of, not, then.

Cost: a few numbers a step. Not for a decision that is to use what evaluations show.
"""

from __future__ import annotations

from functools import reduce
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool
from pydantic import Field, field_validator

from groklab.recipe import Signals, Trigger, transformation
from groklab.spec import Number


class Always(Trigger):
    """Acts at every step."""

    kind: Literal["always"] = "always"

    def init(self) -> Bool[Array, ""]:
        return jnp.array(True)

    def update(self, state: Bool[Array, ""], signals: Signals) -> tuple[Bool[Array, ""], Bool[Array, ""]]:
        return jnp.array(True), state  # a constant, so that what would happen otherwise is not compiled


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
        acts = jnp.asarray(accuracy) >= self.at_least
        if self.latch:
            acts |= state
        return acts, acts


class TrainLoss(Trigger):
    """Acts once the training loss has come down to `at_most`: of this batch, or of the last complete epoch.

    With `latch` it stays on from then; without, it follows the loss down and up.
    """

    kind: Literal["train_loss"] = "train_loss"
    at_most: Number = 0.01
    of: Literal["batch", "epoch"] = "batch"
    latch: bool = True

    def init(self) -> Bool[Array, ""]:
        return jnp.array(False)

    def update(self, state: Bool[Array, ""], signals: Signals) -> tuple[Bool[Array, ""], Bool[Array, ""]]:
        acts = jnp.asarray(signals.train_loss if self.of == "batch" else signals.epoch_loss) <= self.at_most
        if self.latch:
            acts |= state
        return acts, acts


class Phase(Trigger):
    """Acts in a phase of training, as told by the training set's accuracy and the weight norm.

    "memorising" lasts until the accuracy over an epoch first reaches `at_least`, "memorised" begins there and does not
    end. "cleanup" begins once the L2 norm of all parameters has fallen below `shrunk` times its maximum since then, and
    does not end either: the plateau between is all_of "memorised" and not "cleanup". On a stream an epoch is a batch.
    State: (memorised, maximum of the norm since, cleanup).
    """

    kind: Literal["phase"] = "phase"
    phase: Literal["memorising", "memorised", "cleanup"] = "memorised"
    at_least: Annotated[Number, Field(gt=0, le=1)] = 0.99
    shrunk: Annotated[Number, Field(gt=0, lt=1)] = 0.95

    def init(self) -> Any:
        return jnp.array(False), jnp.zeros(()), jnp.array(False)

    def update(self, state: Any, signals: Signals) -> tuple[Bool[Array, ""], Any]:
        memorised, most, cleanup = state
        memorised |= signals.epoch_accuracy >= self.at_least
        norm = jnp.asarray(signals.weight_norm, most.dtype)
        most = jnp.where(memorised, jnp.maximum(most, norm), most)
        cleanup |= memorised & (norm < self.shrunk * most)
        acts = {"memorising": ~memorised, "memorised": memorised, "cleanup": cleanup}[self.phase]
        return acts, (memorised, most, cleanup)


class _Combined(Trigger):
    """Several triggers, each of which hears every step; their states side by side."""

    triggers: tuple[Trigger, ...] = (TrainAccuracy(), TrainLoss())

    @field_validator("triggers")
    @classmethod
    def _has_some(cls, triggers: tuple[Trigger, ...]) -> tuple[Trigger, ...]:
        if not triggers:
            raise ValueError("there is no trigger to combine: give one or more")
        return triggers

    def init(self) -> Any:
        return tuple(trigger.init() for trigger in self.triggers)

    def _acts(self, state: Any, signals: Signals) -> tuple[tuple[Bool[Array, ""], ...], Any]:
        pairs = zip(self.triggers, state, strict=True)
        acts, states = zip(*(trigger.update(part, signals) for trigger, part in pairs), strict=True)
        return acts, states


class AllOf(_Combined):
    """Acts while all of `triggers` act."""

    kind: Literal["all_of"] = "all_of"

    def update(self, state: Any, signals: Signals) -> tuple[Bool[Array, ""], Any]:
        acts, state = self._acts(state, signals)
        return reduce(jnp.logical_and, acts), state


class AnyOf(_Combined):
    """Acts while at least one of `triggers` acts."""

    kind: Literal["any_of"] = "any_of"

    def update(self, state: Any, signals: Signals) -> tuple[Bool[Array, ""], Any]:
        acts, state = self._acts(state, signals)
        return reduce(jnp.logical_or, acts), state


class Not(Trigger):
    """Acts while the trigger `of` does not: by default, until train accuracy has reached 0.99."""

    kind: Literal["not"] = "not"
    of: Trigger = TrainAccuracy()

    def init(self) -> Any:
        return self.of.init()

    def update(self, state: Any, signals: Signals) -> tuple[Bool[Array, ""], Any]:
        acts, state = self.of.update(state, signals)
        return ~acts, state


class Then(Trigger):
    """Acts when `second` does, which is heard only from the step on at which `first` acts for the first time.

    For `second` steps count from there: first "train_accuracy", then "after_step" 1000 is 1000 updates later. State:
    (the step at which `first` first acted, -1 before; the states of both).
    """

    kind: Literal["then"] = "then"
    first: Trigger = TrainAccuracy()
    second: Trigger = AfterStep(step=1000)

    def init(self) -> Any:
        return jnp.array(-1), self.first.init(), self.second.init()

    def update(self, state: Any, signals: Signals) -> tuple[Bool[Array, ""], Any]:
        since, first, second = state
        fires, first = self.first.update(first, signals)
        since = jnp.where((since < 0) & fires, jnp.asarray(signals.step, since.dtype), since)
        heard = since >= 0
        acts, after = self.second.update(second, signals._replace(step=signals.step - since))
        second = jax.tree.map(lambda new, old: jnp.where(heard, new, old), after, second)
        return heard & acts, (since, first, second)


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
    return transformation(init, update)
