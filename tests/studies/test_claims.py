"""Verdicts follow from the evidence by rules that were there before it."""

from __future__ import annotations

import math

import pytest

from groklab.errors import GroklabError
from groklab.statistics.paired import PairedRatio
from groklab.studies.claims import (
    Arm,
    Evidence,
    Finding,
    Trial,
    above_one,
    all_beyond_chance,
    all_hold,
    at_most_partly,
    below_one,
    compared,
    faster,
    ratio_said,
    too_short,
    within,
)


def arm(name: str, times: dict[int, int | None], budget: int = 1000) -> Arm:
    """Runs by their seed; None is one that never grokked."""
    trials = [
        Trial(seed, "exhausted" if t is None else "grokked", budget if t is None else t + 50, 1.0, 1e9, 10, t, t)
        for seed, t in times.items()
    ]
    return Arm(name, tuple(trials), budget)


def test_runs_that_never_grok_are_censored_at_the_budget_and_counted():
    found = arm("a", {0: 100, 1: 300, 2: None})
    assert found.times() == ([100, 300, 1000], [True, True, False])
    assert (found.reached(), found.median().median, found.restricted_mean()) == (2, 300, pytest.approx(1400 / 3))
    assert "2 of 3" in found.said()
    assert "not reached by most within 1,000 steps, 0 of 1" in arm("a", {0: None}).said()


def test_what_never_got_there_is_told_with_the_steps_it_had_and_whether_it_diverged():
    diverged = Trial(0, "diverged", 14, 1.0, 1e9, None, None, None)
    stopped = Trial(1, "grokked", 90, 1.0, 1e9, None, 40, 45)
    found = Arm("a", (diverged, stopped), 1000)
    assert found.said("t_memorised") == "not reached by most within 14 to 90 steps, 0 of 2, 1 diverged"
    assert "diverged" not in Arm("a", (stopped,), 1000).said("t_memorised")


def test_lateness_is_a_bound_where_a_time_was_not_reached():
    def trial(steps: int, memorised: int | None, grokked: int | None) -> Trial:
        return Trial(0, "exhausted", steps, 1.0, 1e9, memorised, grokked, grokked)

    late = Arm(
        "a", (trial(900, 100, 800), trial(1000, 100, None), trial(400, None, 200), trial(1000, None, None)), 1000
    )
    assert late.lateness()[:3].tolist() == [8, 10, 0.5]
    assert math.isnan(late.lateness()[3])


def test_runs_that_are_too_short_say_nothing_and_others_may_say_no_more_than_partly():
    short = arm("a", {0: 100})
    assert too_short(short, 1000) is None
    finding = too_short(short, 1001)
    assert finding is not None
    assert (finding.verdict, finding.measured) == ("not comparable", short.said())
    assert at_most_partly(Finding("reproduced", "much"), "why") == Finding("partly", "much", "why")
    assert at_most_partly(Finding("not reproduced", "much"), "why") == Finding("not reproduced", "much")


def test_the_fastest_arm_counts_runs_that_never_grok_with_the_budget():
    found = Evidence({"tuning": {"a": arm("a", {0: 10, 1: None}), "b": arm("b", {0: 400, 1: 500})}})
    assert found.fastest("tuning", ["a", "b"]) == "b"
    assert found.fastest("tuning", ["a"]) == "a"


def test_arms_are_paired_by_seed_whatever_their_order_and_number():
    one, other = arm("a", {3: 50, 1: 20, 7: 5}), arm("b", {1: 40, 2: 1, 3: 100})
    ratio = compared(one, other)
    assert (ratio.pairs, ratio.median) == (2, pytest.approx(0.5))
    with pytest.raises(GroklabError, match="no seed in common"):
        compared(arm("a", {0: 1}), arm("b", {1: 1}))


def ratio(median: float | None, low: float | None, high: float | None) -> PairedRatio:
    return PairedRatio(median, low, high, 0.95, 0.01, 5, 0)


def test_a_run_that_never_groks_counts_with_the_budget_so_that_no_difference_is_overstated():
    always, never = arm("a", dict.fromkeys(range(6), 500)), arm("b", dict.fromkeys(range(6)))
    found = compared(always, never)
    assert (found.median, found.low, found.high) == (0.5, 0.5, 0.5)
    assert faster(found, reproduced=0.5).verdict == "reproduced"
    assert faster(found, reproduced=0.4).verdict == "partly"
    assert "bounds in 6" in ratio_said(found)
    assert above_one(compared(never, always))
    neither = compared(never, never)
    assert faster(neither, reproduced=0.5).verdict == "not comparable"
    assert "no run got there" in ratio_said(neither)


def test_what_happens_beyond_the_smaller_budget_is_not_looked_at():
    short, long = arm("a", dict.fromkeys(range(6)), 1000), arm("b", dict.fromkeys(range(6), 5000), 9000)
    assert compared(short, long).median is None
    assert compared(arm("a", dict.fromkeys(range(6), 500)), long).median == 0.5


def test_one_run_that_groks_where_no_other_does_is_not_faster_beyond_chance():
    once, never = arm("a", dict.fromkeys(range(9)) | {9: 900}), arm("b", dict.fromkeys(range(10)))
    found = compared(once, never)
    assert not below_one(found)
    assert faster(found, reproduced=0.5).verdict == "not reproduced"


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (ratio(0.5, 0.4, 0.6), "reproduced"),
        (ratio(0.5, 0.4, 1.1), "partly"),  # as fast as claimed, but it may be chance
        (ratio(0.8, 0.7, 0.9), "partly"),  # faster, but less than claimed
        (ratio(0.95, 0.7, 1.2), "not reproduced"),
        (ratio(1.5, 1.2, 2.0), "not reproduced"),
        (ratio(None, None, None), "not comparable"),  # neither grokked
    ],
)
def test_so_many_times_faster(found: PairedRatio, verdict: str):
    assert faster(found, reproduced=0.6).verdict == verdict
    assert "5 pairs" in ratio_said(found)


@pytest.mark.parametrize(
    ("value", "verdict"),
    [(10.0, "reproduced"), (7.0, "partly"), (17.9, "partly"), (6.0, "not reproduced"), (None, "not reproduced")],
)
def test_a_value_within_its_range_or_near_it(value: float | None, verdict: str):
    assert within(value, 10, 12, "so much").verdict == verdict
    assert within(math.nan, 10, 12, "so much").verdict == "not reproduced"


def test_several_statements_hold_together_or_in_part():
    assert all_hold({"a": True, "b": True}, "x").verdict == "reproduced"
    found = all_hold({"a": True, "b": False}, "x")
    assert (found.verdict, found.reason) == ("partly", "does not hold: b")
    assert all_hold({"a": False}, "x").verdict == "not reproduced"


def test_pairs_too_few_for_an_interval_show_a_part_of_a_claim_where_all_are_on_its_side():
    slow, fast = arm("slow", dict.fromkeys(range(5), 800)), arm("fast", {seed: 400 + seed for seed in range(5)})
    one_slow, one_fast = arm("slow", {0: 800}), arm("fast", {0: 400})
    many = all_beyond_chance({"a": (above_one, compared(slow, fast)), "b": (below_one, compared(fast, slow))}, "")
    assert many.verdict == "reproduced"
    assert all_beyond_chance({"a": (above_one, compared(one_slow, one_fast))}, "").verdict == "partly"
    assert all_beyond_chance({"a": (below_one, compared(one_slow, one_fast))}, "").verdict == "not reproduced"
    assert all_beyond_chance({"a": (below_one, compared(slow, fast))}, "").verdict == "not reproduced"


def test_what_is_missing_from_the_evidence_is_said_with_the_nearest_name():
    evidence = Evidence({"plus": {"adamw": arm("adamw", {0: 1})}})
    with pytest.raises(GroklabError, match=r"no experiment 'pls': .*plus"):
        evidence.arm("pls", "adamw")
    with pytest.raises(GroklabError, match=r"no arm 'adam': .*adamw"):
        evidence.arm("plus", "adam")
    with pytest.raises(GroklabError, match="no curve 'x'"):
        evidence.arm("plus", "adamw").trials[0].curve("x")
