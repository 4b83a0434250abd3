"""What the nuclear-norm penalty adds to a step of the reference transformer."""

from __future__ import annotations

from benchmarks import ours
from benchmarks.arms import arms_table, experiment_with, time_arms
from benchmarks.products import flops_per_update
from benchmarks.report import Claim, Report, main

PLAIN, EVERY, FOURTH = "plain Adam", "every step", "refreshed every fourth step"
SIX, SIX_FOURTH, SVD = "six steps of the iteration", "six, refreshed every fourth step", "by SVD, every step"
REPORTED = 258  # times the cost of a plain step: the SVD version in the document behind this project


def measure(quick: bool) -> Report:
    """A step with the penalty on all weight matrices, by iteration and by SVD, over a plain step."""

    def penalty(**options: object) -> dict:
        return {"methods": [{"kind": "nuclear_norm", "strength": 1e-3, "when": {"kind": "always"}, **options}]}

    arms = {
        PLAIN: {},
        EVERY: penalty(),
        FOURTH: penalty(refresh_every=4),
        SIX: penalty(steps=6),
        SIX_FOURTH: penalty(steps=6, refresh_every=4),
        SVD: penalty(polar="svd"),
    }
    experiment = experiment_with(arms, quick)
    briefly = experiment.with_settings([f"budget.evaluate_every={2 if quick else 10}"])  # so that a chunk takes seconds
    timings, method = time_arms({arm: (briefly if arm == SVD else experiment, arm) for arm in arms}, quick)
    claims = [
        Claim.of("step with the penalty over a plain step", timings.ratio(EVERY, PLAIN), at_most=1.5),
        Claim.of("refreshed every fourth step", timings.ratio(FOURTH, PLAIN), at_most=1.2),
        Claim.of("six steps of the iteration in place of eight", timings.ratio(SIX, PLAIN), at_most=1.5),
        Claim.of("six, refreshed every fourth step", timings.ratio(SIX_FOURTH, PLAIN), at_most=1.2),
        Claim.of(f"by SVD (reported elsewhere: {REPORTED})", timings.ratio(SVD, PLAIN)),
    ]
    plain, eight, six = (flops_per_update(ours.parts(experiment, arm)) for arm in (PLAIN, EVERY, SIX))
    note = (
        f"In floating-point operations of matrix products alone a step costs {eight / plain:.3g} times a plain one "
        f"({eight / 1e9:.3g} GFLOP, not {plain / 1e9:.3g}), with six steps of the iteration {six / plain:.3g} times."
    )
    return Report("Nuclear norm", method, claims, [arms_table(timings, PLAIN)], [note])


if __name__ == "__main__":
    main(measure)
