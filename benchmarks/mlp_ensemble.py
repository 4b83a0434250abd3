"""64 seeds of an MLP with embeddings, p = 97, beside eager PyTorch run by run."""

from __future__ import annotations

from benchmarks import ours
from benchmarks.comparison import EAGER, OURS, compare
from benchmarks.report import Claim, Report, Table, main, milliseconds
from groklab.experiment import Experiment

SPEC = {
    "name": "mlp",
    "task": {"kind": "modular", "operation": "a+b", "modulus": 97, "layout": "a b", "train_fraction": 0.5},
    "model": {
        "kind": "mlp",
        "embedding": "concatenated",
        "embedding_width": 128,
        "layers": 1,
        "width": 256,
        "activation": "relu",
    },
    "budget": {"batch_size": "full", "evaluate_every": 10},
    "arms": {"adamw": {"optimizer": {"kind": "adamw", "learning_rate": 1e-3, "weight_decay": 1.0}}},
}


def measure(quick: bool) -> Report:
    """groklab's runs x updates per second with 64 seeds, and eager PyTorch's run by run."""
    runs, steps = (4, 20) if quick else (64, 128)
    full = Experiment.from_data(SPEC)
    batches = full.with_settings(["budget.batch_size=512"])
    found, found_in_batches = (compare(experiment, "mlp", quick, runs) for experiment in (full, batches))
    whole = full.with_settings([f"seeds.count={runs}", f"budget.steps={steps}", "budget.stop='never'"])
    seconds = ours.seconds_to_train(whole) / (runs * steps)
    from_start_to_end = found.timings.median(EAGER) / seconds
    claims = [
        Claim.of(f"runs x updates per second with {runs} seeds, times eager PyTorch", found.over_eager, at_least=5),
        Claim.of("the same with batches of 512", found_in_batches.over_eager, at_least=5),
    ]
    rows = [
        ["full batch, all runs resident", milliseconds(found.timings.median(OURS)), f"{found.over_eager.value:.3g}"],
        [f"full batch, {steps} updates from start to end, stored", milliseconds(seconds), f"{from_start_to_end:.3g}"],
    ]
    ends = Table([f"groklab with {runs} seeds", "ms per update of a run", "times eager PyTorch"], rows)
    notes = [
        "Two embeddings of width 128 side by side, one hidden layer of 256, the size of the concatenating network of "
        "Zhong et al. 2023 (arXiv 2306.17844).",
        found.meaning,
    ]
    tables = [found.table("full batch"), found_in_batches.table("batches of 512"), ends]
    return Report("MLP ensemble", found.method, claims, tables, notes)


if __name__ == "__main__":
    main(measure)
