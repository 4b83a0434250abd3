"""Accuracy under attack: exact for linear classifiers, within the ball and the pixels for all."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from groklab.errors import SpecError
from groklab.measures.robustness import Robustness, attack, ball, pixel_range
from groklab.methods.losses import cross_entropy, deficits
from groklab.models.convnet import ConvNetSpec
from groklab.models.mlp import MLPSpec
from groklab.models.perceptron import Perceptron, PerceptronSpec
from groklab.network import Network
from groklab.tasks.digits import Digits
from groklab.tasks.modular import ModularArithmetic
from groklab.tasks.perceptron import PerceptronTeacher

TASK = PerceptronTeacher(dimension=20, test_size=200)


@pytest.mark.parametrize(("norm", "dual"), [("linf", 1), ("l2", 2)])
@pytest.mark.parametrize("random_start", [True, False])
def test_a_linear_classifier_keeps_the_examples_whose_margin_exceeds_the_radius_times_its_dual_norm(
    norm: Any, dual: int, random_start: bool
):
    split = TASK.split(0)
    assert split.teacher is not None
    w = split.teacher["weights"] + 0.5 * np.random.default_rng(0).normal(size=20)
    network = Network.of(TASK, PerceptronSpec(), Perceptron(jnp.asarray(w, np.float32)[None], PerceptronSpec()))
    radii = (0.0, 0.1, 0.25)
    measure = Robustness(norm=norm, radii=radii, step="relative", random_start=random_start)
    columns = jax.jit(lambda parameters: measure.measure(network.changed(parameters)))(network.parameters)
    rows = np.asarray(split.held_out)
    margins = (2 * split.targets[rows] - 1.0) * (np.asarray(network.inputs)[rows] @ w)
    expected = [(margins > radius * np.linalg.norm(w, dual)).mean() for radius in radii]
    assert list(columns) == [f"robust_accuracy.{norm}.{name}" for name in ("0", "0_1", "0_25")]
    np.testing.assert_allclose(list(columns.values()), expected, atol=0.006)  # one example may lie on the boundary
    assert expected[0] > expected[1] > expected[2] > 0


def test_the_attack_goes_the_way_of_the_cross_entropy_and_does_not_stop_where_that_is_rounded_to_zero():
    z, targets = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32), jnp.array([0, 1, 2, 3, 0])
    sure = z + 200 * np.eye(4, dtype=np.float32)[targets]
    slopes = jax.jit(lambda z: [jax.grad(lambda z, f=f: jnp.sum(f(z, targets)))(z) for f in (deficits, cross_entropy)])
    ours, theirs = map(np.asarray, slopes(z))
    share = theirs[:, :1] / ours[:, :1]
    assert (share > 0).all()
    np.testing.assert_allclose(theirs, share * ours, rtol=1e-5)
    ours, theirs = map(np.asarray, slopes(sure))
    assert not theirs.any()
    assert (np.linalg.norm(ours, axis=1) > 1).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_attacked_images_stay_in_the_ball_and_are_images(norm: Any):
    task, spec = Digits(train_size=48, test_size=20, normalisation="standard"), ConvNetSpec(channels=(3,), dense=(6,))
    parameters = jax.jit(lambda key: spec.init(key, task.table()))(jax.random.key(0))
    table, limits, radius = task.table(), pixel_range(task), 0.5
    assert limits is not None
    ends = float(table.inputs.min()), float(table.inputs.max())
    assert [float(end[0]) for end in limits] == pytest.approx(ends)
    x, targets = jnp.asarray(table.inputs[:20]), jnp.asarray(table.targets[:20])

    @jax.jit
    def attacked(parameters: Any) -> Any:
        start = ball(x, norm, jnp.asarray(radius), jax.random.key(1))

        def with_limits(limits: Any) -> Any:
            return attack(lambda x: spec.apply(parameters, x), x, start, targets, norm, radius, 0.2, 5, limits)

        return start, with_limits(None), with_limits(limits)

    start, free, within = map(np.asarray, attacked(parameters))
    for moved in (start, free, within):
        offset = (moved - np.asarray(x)).reshape(20, -1)
        lengths = np.linalg.norm(offset, np.inf if norm == "linf" else 2, axis=1)
        assert (lengths > 0).all()
        assert (lengths <= radius * (1 + 1e-5)).all()
    assert (within >= np.float32(limits[0])).all()
    assert (within <= np.float32(limits[1])).all()
    assert (free < np.float32(limits[0])).any()


def test_black_and_white_are_where_the_task_shows_them():
    assert pixel_range(TASK) is None
    for messiness in (1.0, 0.25):
        table, limits = Digits(messiness=messiness).table(), pixel_range(Digits(messiness=messiness))
        assert limits is not None
        assert limits[0] <= table.inputs.min()
        assert limits[1] == pytest.approx(messiness + (1 - messiness) / 2)


def test_tokens_are_refused():
    task, spec = ModularArithmetic(modulus=5, layout="a b"), MLPSpec(width=4, embedding_width=2)
    with pytest.raises(SpecError, match="task 'modular' has tokens"):
        Robustness().measure(Network.of(task, spec, spec.init(jax.random.key(0), task.table())))
