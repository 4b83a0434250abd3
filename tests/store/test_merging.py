"""Laws of merging: what was trained elsewhere comes with every bit, and nothing that has begun here is touched."""

import numpy as np
import pytest

from groklab.store.merging import Taken, merge
from groklab.store.workspace import Progress, RunRow, Workspace

E = "a1b2c3"
DONE, CUT, FRESH, HERE = (f"{E}/plain/{seed}" for seed in range(4))


def progress(run: str, steps: int, status: str, evaluated: list[int], checkpoint: bool = True) -> Progress:
    at = np.array(evaluated, np.int32)
    return Progress(
        run=run, status=status, steps=steps, t_memorised=10, t_grokked=steps, t_stable=None, t_collapsed=None,
        diverged_at=None, seconds=steps / 10, flops=steps * 1e9, curves={"step": at, "loss": at.astype(np.float32) / 3},
        checkpoint={"w": np.full((3, 2), steps, np.float32)} if checkpoint else None, message=f"of {run}",
    )  # fmt: skip


def opened(folder, *runs: Progress) -> Workspace:
    workspace = Workspace.open(folder, create=True)
    workspace.add_experiment(
        E, "first", {"lr": 1e-3}, "lr = 0.001\n", {"jax": "0.10"}, [("plain", s) for s in range(4)]
    )
    for run in runs:
        workspace.save([run])
    return workspace


def row(workspace: Workspace, run: str) -> RunRow:
    return next(each for each in workspace.runs(E) if each.id == run)


@pytest.fixture
def there(tmp_path):
    runs = [progress(DONE, 40, "grokked", [0, 20, 40]), progress(HERE, 40, "grokked", [0, 20, 40])]
    with opened(tmp_path / "there", *runs, progress(CUT, 20, "running", [0, 10])) as workspace:
        workspace.save([progress(CUT, 30, "running", [20, 25], checkpoint=False)])
        yield workspace


@pytest.mark.parametrize("known", [True, False])
def test_finished_runs_come_with_every_bit_and_others_as_they_were_at_their_checkpoint(tmp_path, there, known):
    with opened(tmp_path / "here") if known else Workspace.open(tmp_path / "here", create=True) as here:
        assert merge(here, there) == [Taken(E, 3, 0)]
        assert here.experiment(E).spec == there.experiment(E).spec
        for run in (DONE, HERE):
            assert row(here, run) == row(there, run)
            for name, values in there.curves(run).items():
                np.testing.assert_array_equal(here.curves(run)[name], values)
        for run in (DONE, CUT):
            (step, arrays), (then, theirs) = here.checkpoint(run) or (0, {}), there.checkpoint(run) or (1, {})
            assert step == then
            np.testing.assert_array_equal(arrays["w"], theirs["w"])
        cut = row(here, CUT)
        assert (cut.status, cut.steps, cut.t_memorised, cut.t_grokked) == ("running", 20, 10, None)
        assert here.curves(CUT)["step"].tolist() == [0, 10]
        assert row(here, FRESH).status == "pending"
        assert here.experiment(E).status == "interrupted"
        assert [event.kind for event in here.events(E)] == ["merged"]
        there.rewind(CUT)
        assert row(here, CUT) == row(there, CUT)


def test_what_has_begun_here_stays(tmp_path, there):
    with opened(tmp_path / "here", progress(HERE, 10, "running", [0, 5]), progress(CUT, 5, "diverged", [0])) as here:
        before = [row(here, HERE), row(here, CUT)]
        assert merge(here, there) == [Taken(E, 1, 2)]
        assert [row(here, HERE), row(here, CUT)] == before
        assert merge(here, there) == [Taken(E, 0, 3)]


def test_an_experiment_all_of_whose_runs_have_come_is_finished(tmp_path):
    runs = [progress(run, 40, "exhausted", [0, 40]) for run in (DONE, CUT)]
    rest = [progress(run, 40, "exhausted", [0, 40]) for run in (FRESH, HERE)]
    with opened(tmp_path / "one", *runs) as one, opened(tmp_path / "two", *rest) as two:
        merge(one, two)
        assert one.experiment(E).status == "finished"
