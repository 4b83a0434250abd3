"""Displacement: lengths and angles of NumPy, and a laziness that is 1 exactly for networks that are linear."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from groklab.errors import SpecError
from groklab.experiment import Model
from groklab.measures.displacement import Displacement, tangent
from groklab.models.linear import LinearNetwork, LinearSpec
from groklab.models.mlp import MLPSpec
from groklab.network import Network
from groklab.tasks.linear_regression import LinearRegression

TASK = LinearRegression(input_width=3, output_width=2, train_size=6, test_size=5)
SPLIT = TASK.split(0)
assert SPLIT.inputs is not None
X = SPLIT.inputs[SPLIT.train].astype(float)


def measured(spec: Model, now: Any, start: Any, **settings: Any) -> dict[str, float]:
    columns = Displacement(**settings).measure(Network.of(TASK, spec, now, split=SPLIT, start=start))
    return {name: float(value) for name, value in columns.items()}


def test_lengths_and_angles_are_those_of_numpy_over_all_parameters():
    spec, random = LinearSpec(hidden_widths=(4,)), np.random.default_rng(1)
    a, b = ([random.normal(size=shape) for shape in ((3, 4), (4, 2))] for _ in range(2))
    start, now = (LinearNetwork(tuple(jnp.asarray(w, jnp.float32) for w in ws)) for ws in (a, b))
    u, v = (np.concatenate([w.ravel() for w in ws]) for ws in (a, b))
    found = measured(spec, now, start)
    assert found["displacement.l2"] == pytest.approx(np.linalg.norm(v - u), rel=1e-5)
    assert found["displacement.relative"] == pytest.approx(np.linalg.norm(v - u) / np.linalg.norm(u), rel=1e-5)
    assert found["displacement.greatest"] == pytest.approx(np.abs(v - u).max(), rel=1e-5)
    assert found["displacement.cosine"] == pytest.approx(u @ v / np.linalg.norm(u) / np.linalg.norm(v), rel=1e-4)
    (A, B), (dA, dB) = a, (b[0] - a[0], b[1] - a[1])
    df = X @ (b[0] @ b[1] - A @ B)
    expected = 1 - np.sum((df - X @ (dA @ B + A @ dB)) ** 2) / np.sum(df**2)
    assert found["laziness"] == pytest.approx(expected, rel=1e-3)


def test_the_greatest_is_of_the_first_layer_where_that_is_asked_for_and_there_is_one():
    spec = MLPSpec(width=4)
    start, now = (spec.init(jax.random.key(i), TASK.table()) for i in (0, 1))
    moved = np.abs(np.asarray(now.hidden[0].weight - start.hidden[0].weight)).max()
    assert measured(spec, now, start, greatest_of="first")["displacement.greatest"] == pytest.approx(moved, rel=1e-6)
    assert measured(spec, now, start)["displacement.greatest"] > moved
    linear = LinearSpec()
    with pytest.raises(SpecError, match="'displacement' reads a first layer"):
        measured(linear, *(linear.init(jax.random.key(i), TASK.table()) for i in (0, 1)), greatest_of="first")


def test_a_linear_model_is_lazy_however_far_it_goes_and_a_deep_one_the_less_the_farther():
    laziness = []
    for widths in ((), (4,)):
        spec = LinearSpec(hidden_widths=widths)
        start, away = (spec.init(jax.random.key(i), TASK.table()) for i in (0, 1))
        for far in (0.01, 3.0):
            moved = jax.tree.map(lambda w, x, far=far: w + far * x, start, away)
            laziness.append(measured(spec, moved, start)["laziness"])
    assert laziness[:2] == pytest.approx([1, 1], abs=1e-4)
    assert laziness[2] > 0.99 > 0.9 > laziness[3]


def test_where_nothing_has_moved_laziness_is_not_defined():
    spec = LinearSpec()
    start = spec.init(jax.random.key(0), TASK.table())
    found = measured(spec, start, start)
    assert (found["displacement.l2"], found["displacement.relative"]) == (0, 0)
    assert found["displacement.cosine"] == pytest.approx(1, abs=1e-6)
    assert np.isnan(found["laziness"])


def test_the_derivative_by_two_backward_passes_is_that_of_finite_differences():
    spec = MLPSpec(width=5, activation="tanh")
    at, along = (spec.init(jax.random.key(i), TASK.table()) for i in (0, 1))
    x = jnp.asarray(X, jnp.float32)
    value, derivative = tangent(lambda p: spec.apply(p, x), at, along)
    ahead, behind = (spec.apply(jax.tree.map(lambda w, d, s=s: w + s * d, at, along), x) for s in (0.01, -0.01))
    np.testing.assert_allclose(value, spec.apply(at, x), rtol=1e-6)
    np.testing.assert_allclose(derivative, (ahead - behind) / 0.02, rtol=1e-2, atol=1e-4)


def test_without_the_initial_network_there_is_nothing_to_compare_with():
    spec = LinearSpec()
    with pytest.raises(SpecError, match="nobody kept"):
        measured(spec, spec.init(jax.random.key(0), TASK.table()), None)
