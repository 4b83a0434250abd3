"""Laws of the Python API: a notebook gets the same result as the command line, as arrays, tables and charts."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import groklab
from groklab.errors import GroklabError, SpecError, WorkspaceError

TINY: dict[str, Any] = {
    "name": "tiny",
    "task": {"kind": "modular", "modulus": 7},
    "model": {"kind": "transformer", "layers": 1, "width": 16, "heads": 2, "mlp_width": 32},
    "budget": {"steps": 40, "evaluate_every": 10, "batch_size": 16},
    "seeds": {"count": 2},
    "arms": {"weak": {"optimizer": {"kind": "adamw", "weight_decay": 0.1}}, "strong": {}},
}


def quiet() -> Console:
    return Console(file=io.StringIO())


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("api") / "w"


@pytest.fixture(scope="module")
def result(workspace) -> groklab.Result:
    return groklab.run(TINY, workspace=workspace, console=quiet())


# --- what a result holds ---------------------------------------------------------------------------------------------


def test_a_result_has_a_run_for_each_arm_and_seed(result):
    assert [(run.arm, run.seed) for run in result.runs] == [("weak", 0), ("weak", 1), ("strong", 0), ("strong", 1)]
    for run in result.runs:
        assert (run.status, run.steps, run.t_grokked) == ("exhausted", 40, None)
        assert run.seconds > 0
        assert repr(run) == f"Run({run.arm}, seed {run.seed}: exhausted after 40 steps, t_grokked None)"


def test_curves_are_arrays_over_the_evaluations(result):
    for run in result.runs:
        np.testing.assert_array_equal(run.curves["step"], [0, 10, 20, 30, 40])
        assert {"train_loss", "train_accuracy", "held_out_loss", "held_out_accuracy", "weight_norm"} <= set(run.curves)
        for curve in run.curves.values():
            assert isinstance(curve, np.ndarray)
            assert curve.shape == (5,)
        assert np.all(np.isfinite(run.curves["held_out_loss"]))


def test_parameters_are_those_whose_norm_was_measured_last(result):
    for run in result.runs:
        assert run.parameters
        squares = sum(float(np.sum(np.square(array, dtype=np.float64))) for array in run.parameters.values())
        assert run.curves["weight_norm"][-1] == pytest.approx(squares**0.5, rel=1e-5)


def test_arms_share_split_and_initialisation_seed_by_seed(result):
    weak, strong = ({run.seed: run for run in result.runs if run.arm == arm} for arm in ("weak", "strong"))
    for seed in (0, 1):
        for name in ("held_out_loss", "weight_norm"):
            assert weak[seed].curves[name][0] == strong[seed].curves[name][0]
        assert weak[seed].curves["weight_norm"][-1] > strong[seed].curves["weight_norm"][-1]  # less decay
    assert weak[0].curves["weight_norm"][0] != weak[1].curves["weight_norm"][0]


def test_an_arm_is_found_by_name_and_a_typo_told_the_nearest(result):
    assert result.arm("strong") is next(arm for arm in result.summary["arms"] if arm["name"] == "strong")
    with pytest.raises(
        GroklabError, match=r"^there is no arm 'strng': allowed are strong, weak \(did you mean 'strong'\?\)$"
    ):
        result.arm("strng")


def test_a_result_prints_as_a_table_of_its_arms(result):
    printed = str(result)
    assert "tiny" in printed
    for arm in ("weak", "strong"):
        assert any(arm in line and "0 of 2" in line for line in printed.splitlines())
    assert repr(result) == f"<Result of {result.id}: 4 runs, finished>"


@pytest.mark.parametrize("name", ["accuracy", "loss", "weight_norm", "survival"])
def test_charts_are_complete_vega_lite_specifications(result, name):
    specification = getattr(result.charts, name)().to_dict()
    assert "vega-lite" in specification["$schema"]
    values = next(iter(specification["datasets"].values()))
    assert values


def test_a_report_goes_where_it_is_told(result, tmp_path):
    path = result.report(tmp_path / "new" / "r.html")
    assert path == tmp_path / "new" / "r.html"
    assert result.id in path.read_text(encoding="utf-8")


# --- running and loading ---------------------------------------------------------------------------------------------


def same(one: groklab.Result, other: groklab.Result) -> bool:
    return one.summary == other.summary and all(
        a.row == b.row
        and a.curves.keys() == b.curves.keys()
        and all(a.curves[name].tobytes() == b.curves[name].tobytes() for name in a.curves)
        for a, b in zip(one.runs, other.runs, strict=True)
    )


@pytest.mark.parametrize("which", ["tiny", "id", "tiny-"])
def test_load_gives_the_stored_result(result, workspace, which):
    assert same(groklab.load(result.id if which == "id" else which, workspace=workspace), result)


@pytest.mark.parametrize("form", ["data", "experiment", "path", "settings"])
def test_the_same_experiment_in_any_form_is_found_not_trained(result, workspace, tmp_path, form):
    experiment = groklab.Experiment.from_data(TINY)
    (tmp_path / "t.toml").write_text(experiment.to_toml())
    other = experiment.with_settings(["seeds.count=5", "task.modulus=11"])
    console = quiet()
    if form == "settings":
        found = groklab.run(other, settings=["task.modulus=7"], seeds=2, workspace=workspace, console=console)
    else:
        given: Any = {"data": TINY, "experiment": experiment, "path": str(tmp_path / "t.toml")}[form]
        found = groklab.run(given, workspace=workspace, console=console)
    assert same(found, result)  # `seconds` included
    assert "already in the workspace" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_finished_experiment_resumes_to_its_result(result, workspace):
    assert same(groklab.resume(result.id, workspace=workspace, console=quiet()), result)


def test_the_spec_in_the_store_is_the_experiment(result):
    assert groklab.Experiment.from_data(result.experiment.spec).id == result.id
    assert groklab.Experiment.from_toml(result.experiment.spec_toml).id == result.id


def test_the_environment_names_the_workspace(result, workspace, monkeypatch):
    monkeypatch.setenv("GROKLAB_WORKSPACE", str(workspace))
    assert same(groklab.load("tiny"), result)


def test_a_spec_that_is_wrong_makes_no_workspace(tmp_path):
    with pytest.raises(SpecError, match=r"^unknown key 'arm'"):
        groklab.run(TINY | {"arm": {}}, workspace=tmp_path / "w")
    with pytest.raises(SpecError, match=r"^seeds\.count is 0"):
        groklab.run(TINY, seeds=0, workspace=tmp_path / "w")
    with pytest.raises(SpecError, match=r"^width is 0"):
        groklab.run(TINY, width=0, workspace=tmp_path / "w")
    with pytest.raises(WorkspaceError, match=r"^there is no workspace"):
        groklab.load("tiny", workspace=tmp_path / "w")
    assert not list(tmp_path.iterdir())


def test_the_package_names_what_it_exports_and_nothing_else():
    for name in groklab.__all__:
        assert getattr(groklab, name).__module__.startswith("groklab.")
    with pytest.raises(AttributeError, match=r"^module 'groklab' has no attribute 'rum'$"):
        groklab.rum  # type: ignore[attr-defined]  # noqa: B018
