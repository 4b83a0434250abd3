"""The comparison of Grokfast's paper on arithmetic mod 97, and the AdamW that its speed-ups have to be held against.

The network has two layers, the training set half of the pairs. The AdamW is the best of nine, tuned on seeds that
report nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from groklab.studies.claims import Evidence
from groklab.studies.study import TUNING_SEEDS


def adamw(rate: float, decay: float) -> dict[str, Any]:
    return {"optimizer": {"kind": "adamw", "learning_rate": rate, "weight_decay": decay}}


GRID = {f"adamw-{rate:g}-{decay:g}": adamw(rate, decay) for rate in (3e-4, 1e-3, 3e-3) for decay in (0.3, 1.0, 3.0)}


def comparison(
    operation: str, arms: Mapping[str, Any], seeds: int, first: int = TUNING_SEEDS, steps: int = 3000
) -> dict[str, Any]:
    """An experiment of that paper's kind."""
    return {
        "task": {"kind": "modular", "operation": operation, "modulus": 97, "train_fraction": 0.5},
        "model": {"kind": "transformer"},
        "budget": {"steps": steps, "batch_size": 512, "evaluate_every": 10},
        "seeds": {"count": seeds, "first": first},
        "checkpoints": [],
        "arms": dict(arms),
    }


def tuning(operation: str) -> dict[str, Any]:
    """All of the grid, on seeds 0 and 1."""
    return comparison(operation, GRID, seeds=2, first=0)


def tuned(found: Evidence, experiment: str = "tuning") -> dict[str, Any]:
    """The recipe of the grid with the smallest restricted mean time to grok."""
    return GRID[found.fastest(experiment, GRID)]
