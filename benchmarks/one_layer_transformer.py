"""The network of Nanda et al. 2023: one layer without norm, p = 113, full batch of 30 %."""

from __future__ import annotations

from benchmarks.comparison import compare, times_eager
from benchmarks.report import Claim, Report, main
from groklab.experiment import Experiment

SPEC = {
    "name": "one-layer",
    "task": {"kind": "modular", "operation": "a+b", "modulus": 113, "layout": "a b =", "train_fraction": 0.3},
    "model": {
        "kind": "transformer",
        "layers": 1,
        "width": 128,
        "heads": 4,
        "norm": "none",
        "activation": "relu",
        "biases": "mlp",
        "initialisation": "nanda",
        "answers_only": True,
    },
    "budget": {"batch_size": "full", "evaluate_every": 10},
    "arms": {"adamw": {"optimizer": {"kind": "adamw", "learning_rate": 1e-3, "weight_decay": 1.0}}},
}


def measure(quick: bool) -> Report:
    """groklab, eager PyTorch and the bare matrix products on the one-layer transformer."""
    experiment = Experiment.from_data(SPEC)
    found = compare(experiment, "one_layer_transformer", quick)
    at_each_update = experiment.with_settings(["budget.evaluate_every=1"])
    each_update = times_eager(at_each_update, "one_layer_transformer", quick)
    claims = [
        Claim.of("updates per second, times eager PyTorch", found.over_eager, at_least=8),
        Claim.of("the same, both sides evaluating at every update as the authors' code does", each_update),
        Claim.of("time, over its matrix products alone", found.over_products),
    ]
    return Report("One-layer transformer", found.method, claims, [found.table()], [found.meaning])


if __name__ == "__main__":
    main(measure)
