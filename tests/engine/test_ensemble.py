"""Many runs: each equals the run alone, and one that ends or diverges does not disturb the others."""

from __future__ import annotations

import threading
from pathlib import Path

import jax
import numpy as np
import pytest

from groklab.engine import checkpoint, driver
from groklab.engine.ensemble import Ensemble, Plan, Sharing
from groklab.engine.loop import Program
from groklab.errors import WorkspaceError
from groklab.experiment import Experiment
from groklab.store.workspace import Workspace


class Deaf:
    """A listener that does not listen."""

    def start(self, runs):
        pass

    def update(self, run_id, **now):
        pass


def trained(experiment: Experiment, folder: Path, lowering=None, width=None, workers=None):
    """Per run: its row and its curves, after training the experiment in a workspace of its own."""
    with Workspace.open(folder, create=True) as store:
        runs = [(arm, seed) for arm in experiment.arms for seed in experiment.seeds]
        store.add_experiment(experiment.id, experiment.name, experiment.model_dump(mode="json"), "", {}, runs)
        sharing = Sharing(lowering, width, workers)
        assert driver.train(experiment, experiment.id, store, Deaf(), threading.Event(), sharing)
        found = {}
        for row in store.runs(experiment.id):
            saved = store.checkpoint(row.id)
            assert saved is not None
            found[row.arm, row.seed] = (row, store.curves(row.id), saved[1])
        return found


@pytest.mark.parametrize(("lowering", "width", "tolerance"), [("map", 3, 0), ("vmap", 4, 2e-2)])
def test_a_run_among_others_is_the_run_alone(small: Experiment, tmp_path: Path, lowering, width, tolerance):
    """Same bits for map; for vmap only the order of sums differs, which training amplifies."""
    alone = trained(small, tmp_path / "alone", "map", 1, workers=1)
    together = trained(small, tmp_path / "together", lowering, width)
    for key, (_, curves, parameters) in alone.items():
        row, other_curves, other_parameters = together[key]
        assert row.status in ("grokked", "exhausted")
        if tolerance == 0:
            jax.tree.map(np.testing.assert_array_equal, (curves, parameters), (other_curves, other_parameters))
        else:
            shared = min(len(curves["step"]), 6)
            for name in curves:
                np.testing.assert_allclose(
                    curves[name][:shared], other_curves[name][:shared], rtol=tolerance, atol=0.05
                )


def test_a_run_that_diverges_leaves_its_neighbours_alone(small: Experiment, tmp_path: Path):
    wild = small.with_settings(["arms.weak.optimizer.learning_rate=1e30"])
    calm, shaken = trained(small, tmp_path / "calm", "vmap", 4), trained(wild, tmp_path / "shaken", "vmap", 4)
    for seed in (0, 1):
        row, curves, _ = shaken["weak", seed]
        assert row.status == "diverged"
        assert "not finite at step" in row.message
        assert np.isfinite(curves["train_loss"]).all()
        jax.tree.map(np.testing.assert_array_equal, calm["adamw", seed][1], shaken["adamw", seed][1])


def test_arms_that_differ_in_numbers_share_one_program(small: Experiment):
    programs = [Program.of(small, recipe) for recipe in small.arms.values()]
    assert programs[0] == programs[1] != programs[2]


def test_a_run_that_never_groks_is_exhausted_and_kept(small: Experiment, tmp_path: Path):
    never = small.with_settings(["definitions.grokked=0.999", "budget.steps=20"])
    for row, curves, _ in trained(never, tmp_path / "w").values():
        assert (row.status, row.steps, row.t_grokked, row.t_stable) == ("exhausted", 20, None, None)
        assert curves["step"][-1] == 20


def test_flops_and_seconds_are_counted(small: Experiment, tmp_path: Path):
    """Useful work of one step lies between the matrix products of the forward pass and 20 times that."""
    result = trained(small, tmp_path / "w")
    row = result["adamw", 0][0]
    positions, D = 4, 32
    forward = 2 * 16 * positions * 12 * D**2
    assert 0.5 * forward < row.flops / row.steps < 20 * forward
    assert row.seconds > 0


def test_a_checkpoint_of_another_network_is_refused(small: Experiment):
    def ensemble(experiment):
        program = Program.of(experiment, experiment.arms["adamw"])
        inputs = program.inputs(experiment.arms["adamw"], experiment.seeds.streams(0))
        return Ensemble(program, Plan.choose(jax.devices()[0], runs=1)), inputs

    mine, inputs = ensemble(small)
    other, other_inputs = ensemble(small.with_settings(["model.width=8"]))
    arrays = checkpoint.to_arrays(other.fresh(other_inputs, 0))
    with pytest.raises(WorkspaceError, match=r"model\.tokens\.weight.*\[13, 8\].*\[13, 32\]"):
        checkpoint.from_arrays(arrays, mine.empty_state(inputs), "run x")
    with pytest.raises(WorkspaceError, match="has no array"):
        checkpoint.from_arrays({}, mine.empty_state(inputs), "run x")
