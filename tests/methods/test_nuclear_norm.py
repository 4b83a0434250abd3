"""The polar factor against NumPy's singular value decomposition in float64, and the laws of the penalty built on it."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from groklab.methods.losses import CrossEntropy
from groklab.methods.nuclear_norm import (
    MARGIN,
    TOLERANCE,
    NuclearNorm,
    composition,
    minimax_quintic,
    polar_express,
    polar_factor,
)
from groklab.methods.optimizers import Adam
from groklab.methods.triggers import AfterStep, Always, TrainAccuracy
from groklab.models.transformer import TransformerSpec
from groklab.recipe import Recipe, Signals, path_name
from groklab.tasks.modular import ModularArithmetic

RNG = np.random.default_rng(0)
I = np.arange(128)  # noqa: E741
factor_of = jax.jit(polar_factor, static_argnums=1)


def singular_values(w) -> np.ndarray:
    return np.linalg.svd(np.asarray(w, np.float64), compute_uv=False)


def with_spectrum(s, m: int, n: int) -> np.ndarray:
    u, v = (np.linalg.qr(RNG.normal(size=(rows, len(s))))[0] for rows in (m, n))
    return u * s @ v.T


def low_rank(rank: int, m: int, n: int, noise: float = 0.0) -> np.ndarray:
    return RNG.normal(size=(m, rank)) @ RNG.normal(size=(rank, n)) + noise * RNG.normal(size=(m, n))


def spectra(m: int, n: int) -> dict[str, np.ndarray]:
    return {
        **{f"rank {r}": low_rank(r, m, n) for r in (1, 5, 20)},
        **{f"rank {r} and noise": low_rank(r, m, n, 1e-6) for r in (1, 5, 20)},
        **{f"{q}^i": with_spectrum(q**I, m, n) for q in (0.9, 0.8, 0.7)},
        "1/i": with_spectrum(1 / (I + 1), m, n),
        "1/i^2": with_spectrum(1.0 / (I + 1) ** 2, m, n),
        "orthogonal": with_spectrum(np.ones(128), m, n),
        **{f"1 and 127 of {e:g}": with_spectrum(np.r_[1, np.full(127, e)], m, n) for e in (1e-2, 1e-3, 1e-4, 1e-5)},
    }


MATRICES = {
    **{f"Gaussian, {m}x{n}": RNG.normal(size=(m, n)) for m, n in ((128, 128), (512, 128), (99, 128), (4, 128))},
    **{f"{name}, {m}x{n}": w for m, n in ((128, 128), (128, 512)) for name, w in spectra(m, n).items()},
    "ones, 256x1024": np.ones((256, 1024)),
    **{f"Gaussian times {scale:g}": scale * RNG.normal(size=(128, 128)) for scale in (1e-8, 1e8)},
}
# What six steps lack at most, as a share of the norm, where it is more than 1e-3.
SIX_STEPS_LACK = {"1/i^2": 7e-3, "1 and 127 of 0.0001": 1.2e-2}


# --- the polynomials --------------------------------------------------------------------------------------------------


def test_published_coefficients_follow():
    """Amsel et al. 2025 (arXiv 2505.16932), Algorithm 1: lower bound 1e-3, "cushion" 0.02407327424182761 (appendix G).

    A cushion takes the polynomial of a shorter interval and scales it to be centred on the whole one.
    """
    published = [
        (8.28721201814563, -23.595886519098837, 17.300387312530933),
        (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
        (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
        (3.3184196573706015, -2.488488024314874, 0.51004894012372),
        (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
        (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
        (1.8750014808534479, -1.2500016453999487, 0.3750001645474248),
    ]
    lower, upper = 1e-3, 1.0
    for expected in published:
        cushion = 0.02407327424182761 * upper
        found = np.array(minimax_quintic(max(lower, cushion), upper))
        if cushion > lower:
            found *= 2 / (value([found], lower) + value([found], upper))
        np.testing.assert_allclose(found, expected, rtol=1e-8)
        lower = value([expected], lower)
        upper = 2 - lower


def value(quintics, x):
    for a, b, c in quintics:
        x = a * x + b * x**3 + c * x**5
    return x


@pytest.mark.parametrize("steps", range(1, 9))
def test_the_composition_is_the_sign_function_on_its_interval_and_never_overshoots(steps):
    lower, quintics = polar_express(steps)
    x = np.geomspace(lower, 1 + MARGIN, 100_000)
    np.testing.assert_allclose(value(quintics, x), 1, atol=1.01 * TOLERANCE)
    below = value(quintics, np.linspace(0, lower, 1000))
    assert below.min() >= 0
    assert (np.diff(below) > 0).all()


def test_each_step_widens_the_interval_fourfold():
    bounds = [polar_express(steps)[0] for steps in range(1, 9)]
    assert bounds == sorted(bounds, reverse=True)
    np.testing.assert_allclose(bounds[5:8], [1.09e-3, 2.55e-4, 6.00e-5], rtol=0.01)


def test_without_the_margin_rounding_would_grow():
    """A singular value 1e-6 above the interval: nothing with the margin, everything without, after eight steps."""
    lower, quintics = polar_express(8)
    assert abs(value(quintics, 1 + 1e-6) - 1) < 1.01 * TOLERANCE
    bare, error = composition(lower, 8, margin=0.0)
    assert error < TOLERANCE
    assert value(bare, 1 + 1e-6) > 10


# --- the polar factor -------------------------------------------------------------------------------------------------


def norm_error(w: np.ndarray, x: jax.Array, s: np.ndarray) -> float:
    """How far <x, w> is from the sum of the singular values s of w, as a share of it."""
    assert np.isfinite(x).all()
    return float(np.sum(np.asarray(x, np.float64) * w) / np.sum(s) - 1)


@pytest.mark.parametrize("name", MATRICES)
def test_the_factor_gives_the_nuclear_norm(name):
    """Eight steps always do, six but for a tail of small singular values; what is guaranteed of them holds."""
    w = MATRICES[name].astype(np.float32)
    s, x = singular_values(w), factor_of(w, 6)
    six, eight = norm_error(w, x, s), norm_error(w, factor_of(w, 8), s)
    assert abs(eight) <= 1e-3
    lacks = SIX_STEPS_LACK.get(name.partition(",")[0])
    assert abs(six) <= 1e-3 if lacks is None else -lacks < six < -1e-3
    bound = polar_express(6)[0] * np.sum(s**8) ** (1 / 8)
    assert abs(six) <= TOLERANCE + s[s < bound].sum() / s.sum() + 1e-5
    assert singular_values(x)[0] <= 1 + TOLERANCE + 1e-5


@pytest.mark.parametrize("shape", [(128, 128), (128, 512), (99, 128)])
def test_singular_vectors_stay_and_singular_values_go_through_the_polynomials(shape):
    w = with_spectrum(np.geomspace(1, 1e-4, 90), *shape)
    u, s, vt = np.linalg.svd(w, full_matrices=False)
    s = np.where(I[: len(s)] < 90, s, 0)
    expected = u * value(polar_express(6)[1], s / np.sum(s**8) ** (1 / 8)) @ vt
    np.testing.assert_allclose(factor_of(w.astype(np.float32), 6), expected, atol=3e-4)


def test_scale_does_not_matter():
    w = MATRICES["Gaussian, 128x128"].astype(np.float32)
    for scale in (2.0**-100, 2.0**-27, 2.0**27, 2.0**100):
        np.testing.assert_array_equal(factor_of(scale * w, 6), factor_of(w, 6))


@pytest.mark.parametrize("shape", [(5, 5), (3, 9), (1, 1)])
def test_zero_has_the_factor_zero(shape):
    np.testing.assert_array_equal(factor_of(jnp.zeros(shape), 6), np.zeros(shape))


@pytest.mark.parametrize("shape", [(7, 7), (6, 20)])
def test_matrices_may_be_transposed_and_batched(shape):
    w = jnp.asarray(RNG.normal(size=(3, *shape)), jnp.float32)
    together = factor_of(w, 6)
    for one, x in zip(w, together, strict=True):
        np.testing.assert_allclose(x, factor_of(one, 6), atol=2e-5)
        np.testing.assert_allclose(x.T, factor_of(one.T, 6), atol=2e-5)


@pytest.mark.parametrize("steps", [0, 9])
def test_steps_that_make_no_sense_are_an_error(steps):
    with pytest.raises(ValueError, match=f"{steps} steps"):
        polar_factor(jnp.eye(2), steps)


# --- the method -------------------------------------------------------------------------------------------------------


def matrix(*shape: int) -> jax.Array:
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


PARAMETERS = {
    "tokens": {"weight": matrix(20, 6)},
    "norm": {"weight": matrix(6)},
    "inner": {"weight": matrix(20, 6), "bias": matrix(20)},
    "outer": {"weight": matrix(6, 20), "table": matrix(4, 4)},
}
PENALISED = {("tokens", "weight"), ("inner", "weight"), ("outer", "weight")}
GRADIENTS = jax.tree.map(lambda w: 0.1 * jnp.cos(w), PARAMETERS)
TASK = ModularArithmetic(modulus=11, train_fraction=0.8)
MODEL = TransformerSpec(layers=1, width=32, heads=2, norm="none", activation="relu", initialisation="nanda")
KINDS = pytest.mark.parametrize("polar", ["iteration", "svd"])


def signals(step: Any = 0, accuracy: Any = 1.0) -> Signals:
    return Signals(jnp.array(step), jnp.array(1.0), jnp.array(accuracy), jnp.array(accuracy))


def updates(method: NuclearNorm, weights: list[Any], accuracies: list[float] | None = None) -> list[Any]:
    """What the method makes of GRADIENTS at these parameters, one after the other."""
    transform = optax.with_extra_args_support(method.build())
    state, found = transform.init(weights[0]), []
    update = jax.jit(transform.update)
    for step, (w, accuracy) in enumerate(zip(weights, accuracies or [1.0] * len(weights), strict=True)):
        changed, state = update(GRADIENTS, state, w, signals=signals(step, accuracy))
        found.append(changed)
    return found


def moving(n: int) -> list:
    return [jax.tree.map(lambda w, t=t: w + 0.3 * t * jnp.sin(w), PARAMETERS) for t in range(n)]


@KINDS
def test_the_gradient_of_the_penalty_is_added_to_every_matrix_called_weight_and_to_nothing_else(polar):
    """Against U V^T by NumPy, which is the gradient of the sum of singular values."""
    (update,) = updates(NuclearNorm(strength=0.3, polar=polar), [PARAMETERS])
    for layer, parameters in PARAMETERS.items():
        for name, w in parameters.items():
            expected, atol = np.asarray(GRADIENTS[layer][name]), 0.0
            if (layer, name) in PENALISED:
                u, _, vt = np.linalg.svd(np.asarray(w, np.float64), full_matrices=False)
                expected, atol = expected + 0.3 * u @ vt, 0.3 * 2 * TOLERANCE
            np.testing.assert_allclose(update[layer][name], expected, rtol=0, atol=atol)


def test_svd_and_iteration_agree_where_no_singular_value_is_small():
    exact, iterated = (updates(NuclearNorm(strength=1.0, polar=p, steps=8), moving(1))[0] for p in ("svd", "iteration"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2 * TOLERANCE), exact, iterated)


def test_svd_takes_the_smallest_subgradient():
    """U V^T over the singular values that are not zero to rounding, and zero for zero."""
    u, v = np.linalg.qr(RNG.normal(size=(30, 3)))[0], np.linalg.qr(RNG.normal(size=(20, 3)))[0]
    weights = {"a": {"weight": jnp.asarray(u * [3, 1, 1e-3] @ v.T, jnp.float32)}, "b": {"weight": jnp.zeros((4, 5))}}
    transform = NuclearNorm(strength=1.0, polar="svd", when=Always()).build()
    update: Any = transform.update(jax.tree.map(jnp.zeros_like, weights), transform.init(weights), weights)[0]
    np.testing.assert_allclose(update["a"]["weight"], u @ v.T, atol=1e-3)
    np.testing.assert_array_equal(update["b"]["weight"], np.zeros((4, 5)))


def test_the_iteration_needs_no_lapack():
    """Batched LAPACK calls side by side can hang a program on a CPU."""
    method = NuclearNorm(when=Always()).build()
    text = jax.jit(method.update).lower(GRADIENTS, method.init(PARAMETERS), PARAMETERS).as_text()
    assert "dot_general" in text
    assert "custom_call" not in text


@KINDS
def test_every_nth_update_is_fresh_and_those_between_use_its_factor(polar):
    weights = moving(8)
    always = updates(NuclearNorm(polar=polar, steps=3), weights)
    third = updates(NuclearNorm(polar=polar, steps=3, refresh_every=3), weights)
    for t in range(8):
        fresh = 3 * (t // 3)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), third[t], always[fresh])
    assert float(jnp.max(jnp.abs(always[0]["inner"]["weight"] - always[3]["inner"]["weight"]))) > 1e-4


def test_updates_are_counted_while_the_method_acts_and_the_first_of_them_is_fresh():
    weights, accuracies = moving(6), [0.5, 0.5, 1.0, 0.5, 1.0, 1.0]
    method = NuclearNorm(steps=3, refresh_every=2, when=TrainAccuracy(latch=False))
    found, fresh = updates(method, weights, accuracies), updates(NuclearNorm(steps=3, when=Always()), weights)
    for t, source in enumerate([None, None, 2, None, 2, 5]):
        expected = GRADIENTS if source is None else fresh[source]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found[t], expected)


@pytest.mark.parametrize(
    "method",
    [
        NuclearNorm(strength=0.0, steps=3),
        NuclearNorm(strength=0.0, steps=3, refresh_every=2),
        NuclearNorm(steps=3, when=AfterStep(step=100)),
    ],
)
def test_zero_strength_or_a_trigger_that_is_off_is_absence(method):
    for update in updates(method, moving(3)):
        jax.tree.map(np.testing.assert_array_equal, update, GRADIENTS)


@pytest.mark.parametrize(("shape", "rank"), [((12, 12), 12), ((12, 40), 12), ((40, 5), 5)])
def test_descent_on_the_penalty_takes_strength_times_rank_off_the_norm(shape, rank):
    """||W||_* falls by lr * strength * ||U V^T||^2, which is the rank, at every step."""
    w = {"weight": jnp.asarray(with_spectrum(np.linspace(2, 1, rank), *shape), jnp.float32)}
    transform = NuclearNorm(strength=0.1, steps=6, when=Always()).build()

    def step(carry, _):
        w, state = carry
        update, state = transform.update(jax.tree.map(jnp.zeros_like, w), state, w)
        return (jax.tree.map(lambda w, g: w - 0.5 * g, w, update), state), w["weight"]

    _, path = jax.lax.scan(step, (w, transform.init(w)), length=10)
    norms = [singular_values(w).sum() for w in np.asarray(path)]
    np.testing.assert_allclose(np.diff(norms), -0.5 * 0.1 * rank, rtol=2e-3)


@pytest.mark.parametrize(("polar", "refresh_every"), [("iteration", 1), ("iteration", 2), ("svd", 1)])
def test_many_runs_at_once_are_the_same(polar, refresh_every):
    method = NuclearNorm(strength=1.0, polar=polar, steps=3, refresh_every=refresh_every)
    transform = optax.with_extra_args_support(method.build())

    def three_updates(weights):
        def step(carry, i):
            weights, state = carry
            update, state = transform.update(GRADIENTS, state, weights, signals=signals(i))
            return (jax.tree.map(lambda w, g: w - 0.1 * g, weights, update), state), None

        return jax.lax.scan(step, (weights, transform.init(weights)), jnp.arange(3))[0][0]

    runs = jax.tree.map(lambda *leaves: jnp.stack(leaves), *moving(3))
    one_by_one = jax.jit(lambda runs: jax.lax.map(three_updates, runs))(runs)
    at_once = jax.jit(jax.vmap(three_updates))(runs)
    alone = jax.jit(three_updates)
    for i, weights in enumerate(moving(3)):
        expected = alone(weights)
        for found in (one_by_one, at_once):
            jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, atol=1e-5), found, expected)


@jax.jit
def trained(strength: jax.Array) -> Any:
    """A small transformer after 300 full-batch steps on addition modulo 11, penalised once it fits 30 %."""
    table, rows = TASK.table(), jnp.asarray(TASK.split(0).train)
    forward, targets = MODEL.forward(table), jnp.asarray(table.targets)[rows]
    penalty = NuclearNorm(when=TrainAccuracy(at_least=0.3)).model_copy(update={"strength": strength})
    transform = Recipe(optimizer=Adam(learning_rate=5e-3)).model_copy(update={"methods": (penalty,)}).build()

    def objective(model):
        logits = forward(model, rows)
        return jnp.mean(CrossEntropy().per_example(logits, targets)), jnp.mean(jnp.argmax(logits, -1) == targets)

    def step(carry, _):
        model, state = carry
        (_, accuracy), gradients = jax.value_and_grad(objective, has_aux=True)(model)
        update, state = transform.update(gradients, state, model, signals=signals(0, accuracy))
        return (optax.apply_updates(model, update), state), None

    model: Any = MODEL.init(jax.random.key(0), table)
    return jax.lax.scan(step, (model, transform.init(model)), length=300)[0][0]


def test_trained_networks_have_the_norm_found_and_less_of_it_with_the_penalty():
    norms = []
    for strength in (0.0, 0.01):
        leaves = jax.tree_util.tree_leaves_with_path(trained(jnp.float32(strength)))
        matrices = {path_name(path): np.asarray(w) for path, w in leaves if w.ndim == 2}
        assert len(matrices) == 9
        s = {name: singular_values(w) for name, w in matrices.items()}
        six, eight = (factors(matrices, steps) for steps in (6, 8))
        norms.append(sum(values.sum() for values in s.values()))
        assert sum(np.sum(six[name] * w) for name, w in matrices.items()) == pytest.approx(norms[-1], rel=1e-3)
        assert max(abs(norm_error(w, eight[name], s[name])) for name, w in matrices.items()) <= 1e-3
    assert norms[1] < 0.8 * norms[0]


@partial(jax.jit, static_argnums=1)
def factors(matrices: dict[str, jax.Array], steps: int) -> Any:
    """What the penalty alone makes of nothing."""
    transform = NuclearNorm(strength=1.0, steps=steps, when=Always()).build()
    return transform.update(jax.tree.map(jnp.zeros_like, matrices), transform.init(matrices), matrices)[0]
