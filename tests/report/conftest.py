"""A made-up experiment with the shape of real grokking curves: memorise early, generalise late, sooner in one arm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from groklab.store.workspace import ExperimentRow, RunRow


@dataclass
class Results:
    """What a workspace would hold about one experiment."""

    experiment: ExperimentRow
    runs: list[RunRow]
    curves: dict[str, dict[str, np.ndarray]]


@pytest.fixture
def run() -> Callable[..., RunRow]:
    """Builds one run; whatever is not given is that of a run that memorised at 100 and grokked at 1000."""

    def build(arm: str = "plain", seed: int = 0, **facts: Any) -> RunRow:
        defaults: dict[str, Any] = {
            "id": f"{arm}-{seed}",
            "experiment": "made-up-0123abcd",
            "arm": arm,
            "seed": seed,
            "status": "grokked",
            "steps": 1050,
            "t_memorised": 100,
            "t_grokked": 1000,
            "t_stable": 1000,
            "t_collapsed": None,
            "diverged_at": None,
            "seconds": 12.5,
            "flops": 3.0e12,
            "message": "",
        }
        return RunRow(**defaults | facts)

    return build


@pytest.fixture
def experiment() -> Callable[..., ExperimentRow]:
    """Builds an experiment with the given arms."""

    def build(*arms: str, steps: int = 3000, name: str = "made-up", toml: str = 'name = "made-up"\n') -> ExperimentRow:
        spec = {
            "name": name,
            "task": {"kind": "modular", "operation": "+", "modulus": 97},
            "model": {"kind": "transformer", "layers": 2},
            "budget": {"steps": steps, "batch_size": 512, "evaluate_every": 10},
            "definitions": {"memorised": 0.99, "grokked": 0.95, "stable_evaluations": 5},
            "seeds": {"count": 3, "first": 0},
            "arms": {arm: {} for arm in arms},
        }
        versions = {"groklab": "0.1.0", "jax": "0.10.2"}
        return ExperimentRow("made-up-0123abcd", name, spec, toml, versions, "2026-11-21T23:00:00+00:00", "finished")

    return build


@pytest.fixture
def curve() -> Callable[..., dict[str, np.ndarray]]:
    """Builds the curves of a run up to `steps` that memorises and groks at the given steps (None: never)."""

    def build(steps: int, t_memorised: float | None, t_grokked: float | None, seed: int = 0) -> dict[str, np.ndarray]:
        step = np.arange(0, steps + 1, 10, dtype=np.int32)
        noise = np.random.default_rng(seed).normal(0, 0.004, (2, len(step)))

        def rise(middle: float | None, threshold: float) -> np.ndarray:
            """A logistic curve in log step, from 1 % upwards, that crosses `threshold` at `middle`."""
            if middle is None:
                return np.full(len(step), 0.01)
            slope = 9.0
            at = np.log(np.maximum(step, 1) / middle) * slope + np.log(threshold / (1 - threshold))
            return 0.01 + 0.99 / (1 + np.exp(-at))

        train, held_out = rise(t_memorised, 0.99), rise(t_grokked, 0.95)
        columns = {
            "train_accuracy": np.clip(train + noise[0] * (train < 0.99), 0, 1),
            "held_out_accuracy": np.clip(held_out + noise[1] * (held_out < 0.95), 0, 1),
            "train_loss": 4.6 * (1.0 - train) + 4.0 / (1 + step),
            "held_out_loss": 4.6 * (1.0 - held_out) * (1 + 2 * train) + 0.01,
            "weight_norm": 40 + 25 * train - 30 * held_out,
        }
        return {"step": step} | {name: column.astype(np.float32) for name, column in columns.items()}

    return build


@pytest.fixture
def results(experiment, run, curve) -> Results:
    """Two arms of three seeds; one plain run never groks within the budget."""
    runs, curves = [], {}
    for arm, delay in (("plain", (2100, 2450, None)), ("delayed-compression", (690, 610, 740))):
        for seed, t_grokked in enumerate(delay):
            steps = 3000 if t_grokked is None else t_grokked + 50
            status = "exhausted" if t_grokked is None else "grokked"
            times = {"t_memorised": 130 + 10 * seed, "t_grokked": t_grokked, "t_stable": t_grokked}
            runs.append(run(arm, seed, status=status, steps=steps, **times))
            curves[runs[-1].id] = curve(steps, 130 + 10 * seed, t_grokked, seed)
    return Results(experiment("plain", "delayed-compression"), runs, curves)
