"""Grokfast: amplify the slow component of the gradient (Lee et al. 2024, arXiv 2405.20233).

    EMA   mu_0 = g_0,   mu_t = alpha mu_{t-1} + (1 - alpha) g_t,   filtered g_t + lamb mu_t
    MA    filtered g_t + lamb mean(g_{t-w+1} .. g_t)  once w gradients are seen, g_t before

The filtered gradient goes to any optimiser. Follows the authors' code; the paper's pseudo-code starts mu at the
parameters, which is a misprint. The window is kept as a ring with a running sum, so a step costs the same for every
window; the authors' code adds up the whole queue at each step. With Adam the factor 1 + lamb cancels, so what acts is
the longer memory.

When not to use it: where training shows no plateau the filter only slows it down (sparse parity with SGD, for one).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import optax
from pydantic import Field

from groklab.methods.triggers import Always, triggered
from groklab.recipe import Method, Trigger
from groklab.spec import Number


class GrokfastEMA(Method):
    """Add `lamb` times an exponential moving average of the gradient to the gradient.

    Defaults are those of the authors' function; their command line and README use alpha 0.99, lamb 5
    or alpha 0.98, lamb 2.
    """

    kind: Literal["grokfast_ema"] = "grokfast_ema"
    alpha: Annotated[Number, Field(ge=0, lt=1)] = 0.98
    lamb: Annotated[Number, Field(ge=0)] = 2.0
    when: Trigger = Always()

    def build(self) -> optax.GradientTransformation:
        return triggered(_ema(self.alpha, self.lamb), self.when)


class GrokfastMA(Method):
    """Add `lamb` times the mean of the last `window` gradients to the gradient.

    `filter = "sum"` adds the sum instead of the mean; `warmup = false` acts before the window is full,
    on what is there.
    """

    kind: Literal["grokfast_ma"] = "grokfast_ma"
    window: Annotated[int, Field(gt=0)] = 100
    lamb: Annotated[Number, Field(ge=0)] = 5.0
    filter: Literal["mean", "sum"] = "mean"
    warmup: bool = True
    when: Trigger = Always()

    def build(self) -> optax.GradientTransformation:
        return triggered(_ma(self.window, self.lamb, self.filter, self.warmup), self.when)


def _ema(alpha: float, lamb: float) -> optax.GradientTransformation:
    def init(params: Any) -> Any:
        return jnp.array(False), jax.tree.map(jnp.zeros_like, params)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        started, average = state
        average = jax.tree.map(lambda mu, g: jnp.where(started, alpha * mu + (1 - alpha) * g, g), average, updates)
        return jax.tree.map(lambda g, mu: g + lamb * mu, updates, average), (jnp.array(True), average)

    return optax.GradientTransformation(init, update)


def _ma(window: int, lamb: float, filter: str, warmup: bool) -> optax.GradientTransformation:
    def init(params: Any) -> Any:
        ring = jax.tree.map(lambda p: jnp.zeros((window, *p.shape), p.dtype), params)
        return jnp.array(0, jnp.int32), ring, jax.tree.map(jnp.zeros_like, params)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        count, ring, rest = state  # rest: the sum of all gradients in the ring but the one that is overwritten now
        slot = count % window
        ring = jax.tree.map(lambda r, g: jax.lax.dynamic_update_index_in_dim(r, g, slot, 0), ring, updates)
        total = jax.tree.map(jnp.add, rest, updates)
        # A running sum drifts by rounding; once around the ring it is summed afresh, which costs 1/window per step.
        total = jax.lax.cond(slot == window - 1, lambda: jax.tree.map(lambda r: r.sum(0), ring), lambda: total)
        # Read now what the next step will overwrite: read then, XLA would copy the ring to have both.
        leaving = jax.tree.map(lambda r: jax.lax.dynamic_index_in_dim(r, (count + 1) % window, keepdims=False), ring)
        seen = jnp.minimum(count + 1, window)
        share = 1.0 / seen if filter == "mean" else 1.0
        gain = jnp.where((seen == window) | (not warmup), lamb * share, 0.0)
        filtered = jax.tree.map(lambda g, s: g + gain * s, updates, total)
        return filtered, (count + 1, ring, jax.tree.map(jnp.subtract, total, leaving))

    return optax.GradientTransformation(init, update)
