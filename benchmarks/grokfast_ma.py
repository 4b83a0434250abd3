"""What Grokfast's moving-average filter adds to a step of the reference transformer."""

from __future__ import annotations

from benchmarks.arms import arms_table, experiment_with, time_arms
from benchmarks.report import Claim, Report, main

PLAIN, WINDOW_100, WINDOW_10, EMA = "plain Adam", "MA, window 100", "MA, window 10", "EMA"


def measure(quick: bool) -> Report:
    """A step with the filter over a plain step, for two windows and for the exponential average."""
    arms = {
        PLAIN: {},
        WINDOW_100: {"methods": [{"kind": "grokfast_ma", "window": 100}]},
        WINDOW_10: {"methods": [{"kind": "grokfast_ma", "window": 10}]},
        EMA: {"methods": [{"kind": "grokfast_ema"}]},
    }
    experiment = experiment_with(arms, quick)
    timings, method = time_arms({arm: (experiment, arm) for arm in arms}, quick)
    ratio = timings.ratio(WINDOW_100, PLAIN)
    claims = [Claim.of("step with the filter, window 100, over a plain step", ratio, at_most=1.15)]
    return Report("Grokfast-MA", method, claims, [arms_table(timings, PLAIN)])


if __name__ == "__main__":
    main(measure)
