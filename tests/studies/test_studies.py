"""Studies are sound before they are run, and what is recorded of them is judged the same whenever it is."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest

from groklab.cli import main
from groklab.errors import DataError, SpecError
from groklab.experiment import Experiment
from groklab.studies import record
from groklab.studies.claims import Claim, Evidence, Finding
from groklab.studies.study import (
    TUNING,
    TUNING_SEEDS,
    Judged,
    Study,
    arms_of,
    reproduce,
    run_only,
    stand_in,
    studies,
    study_of,
)

NAMES = [listed.name for listed in studies()]


def experiments_of(study: Study, quick: bool) -> dict[str, Experiment]:
    """Those whose data is here."""
    found = {}
    for name in study.experiments:
        try:
            found[name] = study.experiment(name, stand_in(), quick)
        except DataError:
            continue
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_study_is_complete_and_its_reporting_seeds_are_not_those_of_tuning(name: str):
    study = study_of(name)
    assert study.name == name
    assert study.title
    assert study.papers
    claims = [claim.name for claim in study.claims]
    assert claims
    assert len(set(claims)) == len(claims)
    for claim in study.claims:
        assert all([claim.statement, claim.source, claim.published, claim.measured_as, claim.counts]), claim.name
    assert set(study.quick) <= {*study.experiments, "*"}
    assert set(study.alone) <= set(study.experiments)
    assert set(study.figures) <= set(study.experiments)
    assert {column for columns in study.figures.values() for column in columns} <= set(study.curves)
    full, quick = experiments_of(study, quick=False), experiments_of(study, quick=True)
    for each, experiment in full.items():
        tuning = each.startswith(TUNING)
        assert all((seed < TUNING_SEEDS) == tuning for seed in experiment.seeds), each
        assert set(quick[each].arms) <= set(experiment.arms)
        assert quick[each].seeds.count <= experiment.seeds.count


@pytest.mark.parametrize("name", NAMES)
def test_recorded_evidence_is_judged_the_same_again(name: str):
    file = resources.files("groklab").joinpath("studies", "results", f"{name}.json")
    if not file.is_file():
        pytest.skip("not run yet")
    judged, then = record.from_json(json.loads(file.read_text("utf-8")))
    assert judged.findings == then
    assert set(then) == {claim.name for claim in judged.study.claims}


def tiny() -> Study:
    arms = {"slow": {"optimizer": {"kind": "adamw", "weight_decay": 0.0}}, "fast": {}}
    spec = {
        "task": {"kind": "modular", "modulus": 7, "layout": "a b"},
        "model": {"kind": "mlp", "width": 8},
        "budget": {"steps": 40, "evaluate_every": 2},
        "seeds": {"count": 3, "first": TUNING_SEEDS},
        "arms": arms,
    }

    def judge(evidence: Evidence) -> Finding:
        return Finding("partly", f"{evidence.arm('one', 'fast').reached('t_memorised')} of 3", "a | pipe")

    claim = Claim("all", "All is well.", "nowhere", "all", "by counting", "any", judge)

    def tables(evidence: Evidence) -> dict[str, list[list[str]]]:
        return {
            "Times": [
                ["arm", "memorised"],
                *([name, arm.said("t_memorised")] for name, arm in evidence.arms["one"].items()),
            ]
        }

    experiments = {"tuning": spec | {"seeds": {"count": 1}}, "one": spec}
    return Study(
        "tiny", "A tiny study", ("Nobody 2026",), experiments, (claim,), quick={"*": ["seeds.count=1"]}, tables=tables
    )


def test_a_study_is_run_judged_recorded_and_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    study = tiny()
    monkeypatch.setattr("groklab.studies.study.study_of", lambda name: study)
    monkeypatch.setattr("groklab.studies.record.study_of", lambda name: study)
    judged = reproduce("tiny", quick=True, workspace=tmp_path)
    assert judged.about["quick"]
    assert [len(arm) for arm in judged.evidence.arms["one"].values()] == [1, 1]
    file = record.write_results(judged, tmp_path / "results")
    again, then = record.from_json(json.loads(file.read_text()))
    assert again.findings == then == judged.findings
    assert again.evidence == judged.evidence
    page = record._page(again)
    assert "A tiny study" in page
    assert "quick run" in page
    assert "of 3. A | pipe" in page
    assert "Memorised: train accuracy 0.99" in page
    assert "## Times\n\n| arm | memorised |" in page
    monkeypatch.setattr("groklab.studies.record.studies", lambda: [type("L", (), {"name": "tiny"})])
    monkeypatch.setattr("groklab.studies.record.recorded", lambda name: again)
    written = record.write_pages(tmp_path / "docs")
    assert {path.name for path in written} == {"tiny.md", "tiny-one.svg", "index.md"}
    index = (tmp_path / "docs" / "index.md").read_text()
    assert "of 3. A \\| pipe | **partly** (quick run)" in index


def test_a_study_split_over_two_workspaces_is_judged_in_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    first = tiny()
    study = replace(first, experiments={**first.experiments, "two": first.experiments["one"]})
    monkeypatch.setattr("groklab.studies.study.study_of", lambda name: study)
    here, there = tmp_path / "here", tmp_path / "there"
    assert run_only("tiny", ["two"], quick=True, workspace=here) == ["two"]
    assert run_only("tiny", ["one", "tuning"], quick=True, workspace=there) == ["tuning", "one"]
    assert main(["merge", str(there), "--workspace", str(here)]) == 0
    assert "2 runs taken over" in capsys.readouterr().out
    monkeypatch.setattr("groklab.engine.driver.train", lambda *_: pytest.fail("all of it is in the workspace"))
    judged = reproduce("tiny", quick=True, workspace=here)
    assert [trial.steps for trial in judged.evidence.arms["one"]["fast"].trials] == [40]
    assert main(["merge", str(there), "--workspace", str(here)]) == 0
    assert "0 runs taken over, 2 had begun here and stay" in capsys.readouterr().out
    assert main(["merge", str(here), "--workspace", str(here)]) == 2
    assert "is the workspace to merge into" in capsys.readouterr().err


def test_an_experiment_made_of_others_is_run_with_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = tiny()

    def made(found: Evidence) -> dict:
        return {**first.experiments["one"], "budget": {"steps": found.arm("tuning", "fast").budget}}  # pyright: ignore

    experiments = {**first.experiments, "two": made}
    monkeypatch.setattr("groklab.studies.study.study_of", lambda name: replace(first, experiments=experiments))
    assert run_only("tiny", ["two"], quick=True, workspace=tmp_path) == ["tuning", "two"]
    with pytest.raises(SpecError, match=r"no experiment 'tow': .*two"):
        run_only("tiny", ["tow"], workspace=tmp_path)


def test_a_wrong_setting_of_an_experiment_that_depends_on_others_is_refused_before_any_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    first = tiny()
    study = replace(first, experiments={**first.experiments, "two": lambda found: first.experiments["one"]})
    monkeypatch.setattr("groklab.studies.study.study_of", lambda name: study)
    with pytest.raises(SpecError, match="'step' in budget"):
        reproduce("tiny", settings=["two:budget.step=3"], workspace=tmp_path)
    assert not list(tmp_path.iterdir())


def test_curves_are_thinned_to_evaluations_at_which_all_was_measured(tmp_path: Path):
    import groklab

    experiment = Experiment.from_data(
        {
            **tiny().experiments["one"],  # pyright: ignore
            "seeds": {"count": 1},
            "measures": [{"kind": "weight_norm", "every": 8}],
        }
    )
    arms = arms_of(groklab.run(experiment, workspace=tmp_path), ("weight_norm",))
    curves = arms["fast"].trials[0].curves
    assert curves["step"][:3] == [0, 8, 16]
    assert all(value is not None for value in curves["weight_norm"][:-1])


def test_an_unknown_study_is_one_sentence(capsys: pytest.CaptureFixture[str]):
    assert main(["reproduce", "two_phase"]) == 2
    assert "unknown study 'two_phase'" in capsys.readouterr().err
    assert main(["list", "studies"]) == 0
    assert "two_phase2025" in capsys.readouterr().out


def test_verdicts_fit_a_terminal():
    study = tiny()
    judged = Judged(study, Evidence({}), {"all": Finding("partly", "much", "why")}, {}, {"quick": True})
    assert record.verdict_table(judged).row_count == 1
