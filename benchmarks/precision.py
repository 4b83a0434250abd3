"""What float64 costs on the reference transformer."""

from __future__ import annotations

from benchmarks.arms import arms_table, experiment_with, time_arms
from benchmarks.report import Claim, Report, main


def measure(quick: bool) -> Report:
    """A step in float64 over the same step in float32."""
    single = experiment_with({"plain": {}}, quick)
    double = single.with_settings(["precision=float64"])
    timings, method = time_arms({"float32": (single, "plain"), "float64": (double, "plain")}, quick)
    claims = [Claim.of("step in float64 over the same step in float32", timings.ratio("float64", "float32"))]
    return Report("Precision", method, claims, [arms_table(timings, "float32")])


if __name__ == "__main__":
    main(measure)
