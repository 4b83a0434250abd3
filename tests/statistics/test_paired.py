"""Laws of the paired comparison: worked examples with censoring, invariances, exact small-sample values."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groklab.statistics.paired import holm, paired_ratio

ALL = [True] * 3


def test_three_pairs_all_faster_give_a_quarter():
    # Of the 8 flips only +++ and --- reach the observed sum; the extremes cover the median with 1 - 2/8.
    result = paired_ratio([10, 20, 40], ALL, [100, 100, 100], ALL, horizon=1000)
    assert result.p_value == 0.25
    assert (result.low, result.median, result.high) == pytest.approx((0.1, 0.2, 0.4))
    assert (result.confidence, result.pairs, result.censored_pairs) == (0.75, 3, 0)


def test_worked_example_with_censoring():
    # Horizon 100. Pairs (arm / baseline), c = censored there:
    #   50/80 = 0.625 | 20/100c -> below every number | 100c/40 -> above every number | 100c/100c -> no order | 30/40
    # Ranked: below, 0.625, 0.75, above. Median sqrt(0.625 * 0.75); extremes are only bounds, so None.
    # d = log(.625), log(.2), log(2.5), 0, log(.75): sum = log(0.234375); sizes .470 1.609 .916 .288.
    # |sum| = 1.451. With +1.609 fixed the signs of (.470, .916, .288) whose sum stays below that are +-- (.875),
    # --+ (.511) and --- (-.065): 3 of 8 fall short, so p = 5/8.
    result = paired_ratio(
        [50, 20, 100, 100, 30],
        [True, True, False, False, True],
        [80, 100, 40, 100, 40],
        [True, False, True, False, True],
        horizon=100,
    )
    assert result.median == pytest.approx(math.sqrt(0.625 * 0.75))
    assert (result.low, result.high) == (None, None)
    assert result.confidence == 1 - 2 / 16
    assert (result.pairs, result.censored_pairs) == (5, 3)
    assert result.p_value == 5 / 8


def test_median_on_a_bounded_pair_is_none():
    # Two of three arm runs never grok: the middle ratio is known only to be large.
    result = paired_ratio([50, 100, 100], [True, False, False], [50, 50, 50], ALL, horizon=100)
    assert result.median is None
    assert (result.low, result.high) == (1.0, None)


def test_no_ordered_pair_gives_no_ratio_and_no_evidence():
    result = paired_ratio([9, 9], [False, False], [9, 9], [False, False], horizon=9)
    assert (result.median, result.low, result.high, result.confidence) == (None, None, None, 0.0)
    assert (result.p_value, result.pairs, result.censored_pairs) == (1.0, 2, 2)


def test_a_censored_run_is_counted_never_dropped():
    # Three seeds five times faster, one that never grokked: with any fourth success p would be 2/16.
    result = paired_ratio([10, 10, 10, 100], [*ALL, False], [50] * 4, [True] * 4, horizon=100)
    assert (result.pairs, result.censored_pairs) == (4, 1)
    assert (result.low, result.high) == (0.2, None)
    assert result.p_value == 4 / 16


def test_a_run_that_diverged_early_is_not_a_fast_run():
    early = paired_ratio([5, 5, 5], [False] * 3, [50] * 3, ALL, horizon=100)
    late = paired_ratio([100] * 3, [False] * 3, [50] * 3, ALL, horizon=100)
    assert early == late


def test_interval_is_the_textbook_order_statistics():
    # n = 10: r_(2)..r_(9) covers 1 - 2 * 11/1024 = 0.9785 >= 0.95, r_(3)..r_(8) only 0.8906.
    times = np.arange(1, 11) * 10.0
    result = paired_ratio(times, [True] * 10, [10.0] * 10, [True] * 10, horizon=1000)
    assert (result.low, result.high) == (2, 9)
    assert result.confidence == pytest.approx(1 - 22 / 1024)
    assert result.median == pytest.approx(math.sqrt(5 * 6))


def test_interval_covers_the_median_as_often_as_it_says():
    random = np.random.default_rng(0)
    ratios = np.exp(random.normal(size=(2000, 9)))  # median 1
    hits, attained = 0, 0.0
    for row in ratios:
        result = paired_ratio(row * 100, [True] * 9, [100] * 9, [True] * 9, horizon=10**6)
        assert result.low is not None
        assert result.high is not None
        hits += result.low <= 1 <= result.high
        attained = result.confidence
    assert hits / len(ratios) == pytest.approx(attained, abs=0.02)


def test_exact_p_value_equals_brute_force():
    random = np.random.default_rng(1)
    arm, base = random.integers(1, 200, 8), random.integers(1, 200, 8)
    differences = np.log(np.minimum(arm, 150) / np.minimum(base, 150))
    sums = [abs(np.dot(signs, differences)) for signs in itertools.product((-1, 1), repeat=8)]
    expected = np.mean(np.array(sums) >= abs(differences.sum()) - 1e-12)
    assert paired_ratio(arm, [True] * 8, base, [True] * 8, horizon=150).p_value == expected


def test_drawn_flips_continue_the_exact_ones():
    random = np.random.default_rng(2)
    arm, base = random.integers(50, 150, 16), random.integers(60, 170, 16)
    exact = paired_ratio(arm, [True] * 16, base, [True] * 16, horizon=1000).p_value
    # The same data against 20,000 drawn flips: one more pair with a negligible difference crosses the limit of 16.
    drawn = paired_ratio([*arm, 1e6], [True] * 17, [*base, 1e6 + 1], [True] * 17, horizon=1e7).p_value
    assert drawn == pytest.approx(exact, abs=0.02)
    fast = paired_ratio([1] * 30, [True] * 30, [100] * 30, [True] * 30, horizon=1000)
    assert fast.p_value == pytest.approx(1 / 20_001)  # never 0


def test_start_above_the_threshold_counts_as_one_step():
    assert paired_ratio([0] * 3, ALL, [0] * 3, ALL, horizon=10).median == 1
    assert paired_ratio([0] * 3, ALL, [10] * 3, ALL, horizon=10).median == pytest.approx(0.1)


@st.composite
def arms(draw):
    n = draw(st.integers(1, 20))
    times = st.lists(st.integers(0, 100), min_size=n, max_size=n)
    flags = st.lists(st.booleans(), min_size=n, max_size=n)
    return draw(times), draw(flags), draw(times), draw(flags)


@settings(max_examples=60, deadline=None)
@given(arms(), st.randoms(use_true_random=False))
def test_order_of_pairs_does_not_matter(data, random):
    shuffled = list(zip(*data, strict=True))
    random.shuffle(shuffled)
    a = paired_ratio(*data, horizon=100)
    b = paired_ratio(*(list(column) for column in zip(*shuffled, strict=True)), horizon=100)
    assert a == b


@settings(max_examples=60, deadline=None)
@given(arms())
def test_swapping_the_arms_inverts(data):
    arm, arm_seen, base, base_seen = data
    there = paired_ratio(arm, arm_seen, base, base_seen, horizon=100)
    back = paired_ratio(base, base_seen, arm, arm_seen, horizon=100)
    for ours, theirs in ((there.median, back.median), (there.low, back.high), (there.high, back.low)):
        assert (ours is None) == (theirs is None)
        if ours is not None and theirs is not None:
            assert ours * theirs == pytest.approx(1)
    assert there.p_value == back.p_value
    assert (there.confidence, there.censored_pairs) == (back.confidence, back.censored_pairs)


@settings(max_examples=40, deadline=None)
@given(arms())
def test_an_arm_against_itself_is_no_difference(data):
    times, observed, _, _ = data
    result = paired_ratio(times, observed, times, observed, horizon=100)
    assert result.median == (1 if any(observed) else None)
    assert result.p_value == 1


def test_wrong_input_is_a_sentence():
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_ratio([1, 2], [True, True], [1], [True], horizon=9)
    with pytest.raises(ValueError, match="horizon"):
        paired_ratio([1], [True], [1], [True], horizon=0)
    with pytest.raises(ValueError, match="confidence"):
        paired_ratio([1], [True], [1], [True], horizon=9, confidence=95)
    with pytest.raises(ValueError, match="no times"):
        paired_ratio([], [], [], [], horizon=9)


def test_holm_worked_example():
    # Sorted: .005*4 = .02, .01*3 = .03, .03*2 = .06, .04*1 -> max so far .06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_rejects_what_is_no_probability():
    with pytest.raises(ValueError, match="p-values"):
        holm([0.1, float("nan")])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_never_lowers_and_lies_between_single_test_and_bonferroni(p_values):
    adjusted = holm(p_values)
    for p, q in zip(p_values, adjusted, strict=True):
        assert p <= q <= min(1.0, p * len(p_values))
    assert [adjusted[i] for i in np.argsort(p_values, kind="stable")] == sorted(adjusted)
