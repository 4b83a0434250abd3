"""Laws of the survival estimates: worked examples, edge cases, and agreement with lifelines."""

import warnings

import numpy as np
import pytest

from groklab.statistics.survival import Estimate, kaplan_meier, median_time, restricted_mean

# Six runs, budget 50: events at 10, 20, 20, 40; censored at 20 (with the event, so after it) and at 50.
#   t=10: 6 at risk, 1 event  -> S = 5/6
#   t=20: 5 at risk, 2 events -> S = 5/6 * 3/5 = 1/2   (the run censored at 20 is still at risk)
#   t=40: 2 at risk, 1 event  -> S = 1/4
#   t=50: censored            -> S = 1/4
TIMES = [10, 20, 20, 20, 40, 50]
OBSERVED = [True, True, False, True, True, False]


def test_worked_example_with_a_censored_time_tied_to_an_event():
    curve = kaplan_meier(TIMES, OBSERVED)
    np.testing.assert_array_equal(curve.times, [0, 10, 20, 40, 50])
    np.testing.assert_allclose(curve.survival, [1, 5 / 6, 1 / 2, 1 / 4, 1 / 4], rtol=1e-14)


def test_band_of_the_worked_example_is_log_log_greenwood():
    # At t=20: Greenwood's sum = 1/(6*5) + 2/(5*3) = 1/6; S^exp(+-z sqrt(1/6) / log S) with z = 1.959964.
    curve = kaplan_meier(TIMES, OBSERVED)
    width = 1.959963984540054 * np.sqrt(1 / 6) / abs(np.log(0.5))
    assert curve.low[2] == pytest.approx(0.5 ** np.exp(width), rel=1e-12)
    assert curve.high[2] == pytest.approx(0.5 ** np.exp(-width), rel=1e-12)


def test_restricted_mean_of_the_worked_example():
    # 10 * 1 + 10 * 5/6 + 20 * 1/2 + 10 * 1/4 = 185/6 up to 50; up to 30: 10 + 50/6 + 5; beyond 50 level at 1/4.
    assert restricted_mean(TIMES, OBSERVED, 50) == pytest.approx(185 / 6)
    assert restricted_mean(TIMES, OBSERVED, 30) == pytest.approx(15 + 50 / 6)
    assert restricted_mean(TIMES, OBSERVED, 90) == pytest.approx(185 / 6 + 10)
    assert restricted_mean(TIMES, OBSERVED, 0) == 0


def test_median_is_the_first_time_survival_is_at_most_one_half():
    assert median_time(TIMES, OBSERVED).median == 20
    # (1 - 1/4)(1 - 1/3) is one half on paper whatever the rounding, with and without a censored run behind it.
    assert median_time([1, 2, 3, 4], [True, True, False, False]).median == 2


@pytest.mark.parametrize("n", range(2, 60, 2))
def test_median_at_exactly_one_half_survives_rounding(n):
    times = np.arange(1, n + 1)
    assert median_time(times, times < n).median == n // 2


def test_all_censored_has_no_median_and_full_survival():
    assert median_time([50, 50, 50], [False] * 3) == Estimate(None, None, None)
    curve = kaplan_meier([50, 50, 50], [False] * 3)
    for values in (curve.survival, curve.low, curve.high):
        np.testing.assert_array_equal(values, [1, 1])
    assert restricted_mean([50, 50, 50], [False] * 3, 50) == 50


def test_a_single_run_has_a_median_but_no_interval():
    assert median_time([7], [True]) == Estimate(7.0, None, None)
    assert median_time([7], [False]) == Estimate(None, None, None)
    curve = kaplan_meier([7], [True])
    np.testing.assert_array_equal(curve.survival, [1, 0])
    assert np.isnan(curve.high[-1])


def test_censored_runs_are_counted_never_dropped():
    # Dropping the three failures would give a median of 20; with them the median is not reached.
    assert median_time([10, 20, 30, 90, 90, 90, 90], [True] * 3 + [False] * 4).median is None
    assert restricted_mean([10, 20, 30, 90], [True] * 3 + [False], 90) == pytest.approx((10 + 20 + 30 + 90) / 4)


def test_a_run_that_groks_at_step_zero_is_an_event_at_zero():
    curve = kaplan_meier([0, 10], [True, True])
    np.testing.assert_array_equal(curve.times, [0, 0, 10])
    np.testing.assert_array_equal(curve.survival, [1, 0.5, 0])
    assert restricted_mean([0, 10], [True, True], 10) == 5


def test_order_of_runs_does_not_matter():
    order = np.random.default_rng(3).permutation(6)
    shuffled = median_time(np.array(TIMES)[order], np.array(OBSERVED)[order])
    assert shuffled == median_time(TIMES, OBSERVED)


@pytest.mark.parametrize(
    ("times", "observed", "match"),
    [([], [], "no times"), ([1, 2], [True], "one length"), ([-1], [True], ">= 0"), ([np.inf], [False], "finite")],
)
def test_wrong_input_is_a_sentence(times, observed, match):
    with pytest.raises(ValueError, match=match):
        kaplan_meier(times, observed)


@pytest.mark.parametrize("confidence", [0, 1, 95])
def test_confidence_is_a_share(confidence):
    with pytest.raises(ValueError, match="confidence"):
        median_time(TIMES, OBSERVED, confidence)


def test_horizon_is_a_finite_number_of_steps():
    with pytest.raises(ValueError, match="horizon"):
        restricted_mean(TIMES, OBSERVED, float("inf"))


@pytest.fixture(scope="module")
def lifelines():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("lifelines.utils")
        return pytest.importorskip("lifelines")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(60))
def test_agrees_with_lifelines(lifelines, seed):
    random = np.random.default_rng(seed)
    n = int(random.integers(1, 40))
    budget = int(random.integers(5, 60))
    times = random.integers(1, 60, n)
    # Half of the seeds cut at a common budget, as an experiment does; the others censor anywhere, with ties.
    observed = times <= budget if seed % 2 else random.random(n) < 0.7
    times = np.minimum(times, budget) if seed % 2 else times

    fit = lifelines.KaplanMeierFitter(alpha=0.05).fit(times, observed)
    curve = kaplan_meier(times, observed)
    at = curve.times[1:]
    np.testing.assert_allclose(curve.survival[1:], fit.survival_function_at_times(at), rtol=1e-9, atol=1e-12)
    inner = (curve.survival[1:] < 1) & (curve.survival[1:] > 1e-12)
    band = fit.confidence_interval_.loc[at[inner]].to_numpy()
    np.testing.assert_allclose(np.stack([curve.low[1:], curve.high[1:]], 1)[inner], band, rtol=1e-6)

    ours = median_time(times, observed).median
    oracle = lifelines.utils.median_survival_times(fit.survival_function_ - 1e-12)  # its comparison is exact
    assert (np.inf if ours is None else ours) == oracle

    horizon = float(random.integers(1, 80))
    expected = lifelines.utils.restricted_mean_survival_time(fit, t=horizon)
    assert restricted_mean(times, observed, horizon) == pytest.approx(expected, rel=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(20))
def test_median_interval_agrees_with_lifelines(lifelines, seed):
    random = np.random.default_rng(100 + seed)
    times, observed = random.permutation(200)[:25] + 1, random.random(25) < 0.8
    fit = lifelines.KaplanMeierFitter(alpha=0.05).fit(times, observed)
    band = fit.confidence_interval_
    last = band.index[-1]
    ours = median_time(times, observed)
    for value, column in ((ours.low, 0), (ours.high, 1)):
        oracle = lifelines.utils.median_survival_times(band.iloc[:, [column]])
        # Where survival is 0 lifelines sets the band to 0, we call it undefined: then no bound there.
        reached_zero = oracle == last and fit.survival_function_.iloc[-1, 0] < 1e-12
        assert value == (None if np.isinf(oracle) or reached_zero else oracle)
