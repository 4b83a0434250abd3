"""The field's reference network: two layers, width 128, addition mod 97, batches of 512."""

from __future__ import annotations

from benchmarks.comparison import compare
from benchmarks.report import Claim, Report, main
from groklab.experiment import Experiment


def measure(quick: bool) -> Report:
    """groklab, eager PyTorch and the bare matrix products on the reference transformer."""
    found = compare(Experiment.load("two-phase"), "reference_transformer", quick)
    claims = [
        Claim.of("updates per second, times eager PyTorch", found.over_eager, at_least=6.5),
        Claim.of("time, over its matrix products alone", found.over_products, at_most=1.5),
    ]
    return Report("Reference transformer", found.method, claims, [found.table()], [found.meaning])


if __name__ == "__main__":
    main(measure)
