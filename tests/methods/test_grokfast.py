"""Grokfast against the authors' recurrences, written out here in NumPy."""

from __future__ import annotations

from collections import deque

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from groklab.methods.grokfast import GrokfastEMA, GrokfastMA
from groklab.recipe import Method

CONSTANT = np.ones((12, 3))
ALTERNATING = np.ones((12, 3)) * (-1.0) ** np.arange(12)[:, None]
RANDOM = np.random.default_rng(0).normal(size=(40, 3))
SEQUENCES = pytest.mark.parametrize(
    "gradients", [CONSTANT, ALTERNATING, RANDOM], ids=["constant", "alternating", "random"]
)


def filtered(method: Method, gradients: np.ndarray) -> np.ndarray:
    transform = optax.with_extra_args_support(method.build())

    def step(state, g):
        updates, state = transform.update({"w": g}, state, None, signals=None)
        return state, jax.tree.leaves(updates)[0]

    start = transform.init({"w": jnp.zeros(3)})
    return np.asarray(jax.lax.scan(step, start, jnp.asarray(gradients, jnp.float32))[1])


@SEQUENCES
@pytest.mark.parametrize(("alpha", "lamb"), [(0.98, 2.0), (0.8, 0.1), (0.0, 1.0)])
def test_ema_is_the_authors_recurrence(gradients, alpha, lamb):
    expected, average = [], None
    for g in gradients:
        average = g if average is None else alpha * average + (1 - alpha) * g
        expected.append(g + lamb * average)
    np.testing.assert_allclose(filtered(GrokfastEMA(alpha=alpha, lamb=lamb), gradients), expected, rtol=1e-5, atol=1e-6)


@SEQUENCES
@pytest.mark.parametrize("window", [1, 3, 10])
@pytest.mark.parametrize("kind", ["mean", "sum"])
@pytest.mark.parametrize("warmup", [True, False])
def test_ma_is_the_authors_queue(gradients, window, kind, warmup):
    queue: deque[np.ndarray] = deque(maxlen=window)
    expected = []
    for g in gradients:
        queue.append(g)
        acts = not warmup or len(queue) == window
        expected.append(g + 5.0 * (np.mean if kind == "mean" else np.sum)(queue, axis=0) if acts else g)
    method = GrokfastMA(window=window, lamb=5.0, filter=kind, warmup=warmup)
    np.testing.assert_allclose(filtered(method, gradients), expected, rtol=1e-5, atol=1e-5)


def test_ma_on_constant_gradients_gives_the_published_values():
    """1, 1, 6, 6, ... for window 3 and lamb 5; a port that stores filtered gradients diverges instead."""
    np.testing.assert_allclose(filtered(GrokfastMA(window=3), CONSTANT[:6])[:, 0], [1, 1, 6, 6, 6, 6])


def test_the_running_sum_does_not_drift():
    """After 5,000 gradients of very different sizes the sum over the window is still exact to rounding."""
    gradients = np.random.default_rng(1).normal(size=(5000, 3)) * 10.0 ** np.random.default_rng(2).integers(
        -3, 3, (5000, 1)
    )
    gradients[-10:] = 1e-3
    np.testing.assert_allclose(filtered(GrokfastMA(window=10, lamb=1.0), gradients)[-1], 2e-3, rtol=1e-5)
