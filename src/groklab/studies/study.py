"""A study: the experiments of a paper with their exact settings, and the claims that they are to judge.

    judged = reproduce("grokfast2024", quick=True)
    judged.findings["accelerates"].verdict

A file of this package is a study: its docstring says what it is about, its `STUDY` what is run and judged. Experiments
run in their order, each through `groklab.run`, so that an interrupted study goes on where it stopped. One may depend on
what the earlier ones found (a tuned baseline): then it is a function of the evidence so far.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from importlib import import_module, resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from groklab.errors import SpecError, nearest
from groklab.experiment import Experiment
from groklab.studies.claims import VERDICTS, Arm, Claim, Evidence, Finding, Trial

if TYPE_CHECKING:
    from rich.console import Console

    from groklab.result import Result

PARTS = ("baselines", "claims", "networks", "study", "record")  # files of this package that are no studies
CURVE_POINTS, FEWEST_POINTS = 40, 10  # of a curve; fewer than the former where an arm has more than ten runs
CURVES = ("train_accuracy", "held_out_accuracy")
TUNING_SEEDS = 100  # seeds below are for tuning, those from here on for reporting
TUNING = "tuning"  # what names of experiments begin with that choose settings and report nothing

Spec = Mapping[str, Any]


@dataclass(frozen=True)
class Study:
    """What is run, and what it is to tell.

    `quick` has the settings that make an experiment ("*": every one) small enough for all to take less than ten minutes
    on two cores; without any, each gets two seeds. The runs of experiments in `alone` get no neighbours, since it is
    their seconds that matter. `curves` are columns to keep beside the accuracies, `figures` those of them that its page
    shows, by experiment. `calculate` adds what is not read off curves: it gets the results by experiment. `tables` are
    made of the evidence, each with its header first.
    """

    name: str
    title: str
    papers: tuple[str, ...]
    experiments: Mapping[str, Spec | Callable[[Evidence], Spec]]
    claims: tuple[Claim, ...]
    quick: Mapping[str, Sequence[str]] = field(default_factory=dict)
    alone: tuple[str, ...] = ()
    curves: tuple[str, ...] = ()
    figures: Mapping[str, Sequence[str]] = field(default_factory=dict)
    deviations: tuple[str, ...] = ()
    calculate: Callable[[Mapping[str, Result]], Mapping[str, Any]] | None = None
    tables: Callable[[Evidence], Mapping[str, list[list[str]]]] | None = None  # more of them for its page, by title

    def experiment(self, name: str, found: Evidence, quick: bool, settings: Sequence[str] = ()) -> Experiment:
        """One experiment, named after study and experiment; `settings` are EXPERIMENT:PATH=VALUE, * for every one."""
        spec = self.experiments[name]
        data = dict(spec(found) if callable(spec) else spec) | {"name": f"{self.name}-{name}"}
        changes = [*self.quick.get("*", ()), *self.quick.get(name, ())] or ["seeds.count=2"] if quick else []
        for setting in settings:
            where, _, change = setting.partition(":")
            if where not in ("*", *self.experiments) or not change:
                allowed = nearest(where, ["*", *self.experiments])
                raise SpecError(
                    f"'{setting}' is no change of an experiment of this study, as EXPERIMENT:PATH=VALUE: {allowed}"
                )
            changes += [change] if where in ("*", name) else []
        experiment = Experiment.from_data(data)
        return experiment.with_settings(changes) if changes else experiment


@dataclass(frozen=True)
class Judged:
    """A study with its evidence, and what that says to each claim."""

    study: Study
    evidence: Evidence
    findings: Mapping[str, Finding]
    specs: Mapping[str, Spec]
    about: Mapping[str, Any]  # date, machine, versions, quick

    @classmethod
    def of(cls, study: Study, evidence: Evidence, specs: Mapping[str, Spec], about: Mapping[str, Any]) -> Judged:
        """Judge every claim."""
        return cls(study, evidence, {claim.name: claim.judge(evidence) for claim in study.claims}, specs, about)


class _Anything(dict[str, Any]):
    """Has whatever it is asked for."""

    def __init__(self, make: Callable[[str], Any]):
        self.make = make

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> Any:
        return self.make(name)


def stand_in(asked: list[str] | None = None) -> Evidence:
    """For evidence to come: what experiments made of earlier ones are checked with, before any run.

    The names of those earlier ones are added to `asked`.
    """

    def arms(experiment: str) -> _Anything:
        if asked is not None:
            asked.append(experiment)
        return _Anything(lambda name: Arm(name, (Trial(0, "grokked", 20, 1.0, 1.0, 5, 9, 9),), 100))

    return Evidence(_Anything(arms))


class Listed(NamedTuple):
    """A study as a list shows it."""

    name: str
    summary: str


def studies() -> list[Listed]:
    """Every study and the first sentence of its file, without importing it."""
    files = resources.files("groklab").joinpath("studies").iterdir()
    names = sorted(file.name.removesuffix(".py") for file in files if file.name.endswith(".py"))
    found = []
    for name in names:
        if name not in PARTS and not name.startswith("_"):
            text = resources.files("groklab").joinpath("studies", f"{name}.py").read_text("utf-8")
            summary = (ast.get_docstring(ast.parse(text)) or "").partition("\n\n")[0].replace("\n", " ")
            found.append(Listed(name, summary))
    return found


def results_of(name: str) -> dict[str, Any] | None:
    """What is recorded of a study, as plain data; None if nothing is."""
    file = resources.files("groklab").joinpath("studies", "results", f"{name}.json")
    return json.loads(file.read_text("utf-8")) if file.is_file() else None


def state_of(name: str) -> str:
    """One phrase on where a study stands."""
    if (data := results_of(name)) is None:
        return "not run yet"
    found = [finding["verdict"] for finding in data["findings"].values()]
    counts = [f"{found.count(verdict)} {verdict}" for verdict in VERDICTS if verdict in found]
    size = "quick run" if data["quick"] else "run with changed settings" if data["settings"] else "run"
    return f"{size} of {data['date']}: {', '.join(counts)}"


def study_of(name: str) -> Study:
    """A study by name. Raises SpecError, with the nearest name, if there is none."""
    names = [listed.name for listed in studies()]
    if name not in names:
        raise SpecError(f"unknown study '{name}': {nearest(name, names)}")
    return import_module(f"groklab.studies.{name}").STUDY


def reproduce(
    name: str,
    *,
    quick: bool = False,
    settings: Sequence[str] = (),
    workspace: str | Path | None = None,
    console: Console | None = None,
) -> Judged:
    """Run what a study asks for, as far as the workspace does not hold it already, and judge its claims.

    `settings` change single experiments, as "baseline:budget.steps=300000". Raises SpecError for an unknown study or a
    wrong setting, DataError naming the file where data is missing, before anything is run, and Interrupted.
    """
    from groklab import api

    study = study_of(name)
    evidence, results, specs = _run(study, list(study.experiments), quick, settings, workspace, console)
    if study.calculate is not None:
        evidence = Evidence(evidence.arms, study.calculate(results))
    about = {"date": date.today().isoformat(), "quick": quick, "settings": list(settings), "versions": api.versions()}
    return Judged.of(study, evidence, specs, about)


def run_only(
    name: str,
    only: Sequence[str],
    *,
    quick: bool = False,
    settings: Sequence[str] = (),
    workspace: str | Path | None = None,
    console: Console | None = None,
) -> list[str]:
    """Run these experiments of a study, and those that they are made of, as `reproduce` does; returns their names.

    So that a study can be split over machines, whose workspaces `groklab merge` puts together.
    """
    study = study_of(name)
    for each in only:
        if each not in study.experiments:
            raise SpecError(f"study {name} has no experiment '{each}': {nearest(each, study.experiments)}")
    wanted = {needed for each in only for needed in _sources(study, each)}
    names = [each for each in study.experiments if each in wanted]
    _run(study, names, quick, settings, workspace, console)
    return names


def _sources(study: Study, name: str) -> set[str]:
    """An experiment of a study, and those whose evidence its setting is made of."""
    asked: list[str] = []
    spec = study.experiments[name]
    if callable(spec):
        spec(stand_in(asked))
    return {name}.union(*(_sources(study, each) for each in asked))


def _run(
    study: Study,
    names: Sequence[str],
    quick: bool,
    settings: Sequence[str],
    workspace: str | Path | None,
    console: Console | None,
) -> tuple[Evidence, dict[str, Result], dict[str, Spec]]:
    """Run these experiments of a study, once all of them have been found sound."""
    from groklab import api
    from groklab.engine.loop import table_of

    for each in names:
        table_of(study.experiment(each, stand_in(), quick, settings).task)  # pyright: ignore[reportArgumentType]
    evidence, results, specs = Evidence({}), {}, {}
    for each in names:
        experiment = study.experiment(each, evidence, quick, settings)
        results[each] = api.run(
            experiment, workspace=workspace, console=console, workers=1 if each in study.alone else None
        )
        specs[each] = experiment.model_dump(mode="json", exclude_none=True)
        columns = () if each.startswith(TUNING) else (*CURVES, *study.curves)
        evidence = Evidence({**evidence.arms, each: arms_of(results[each], columns)})
    return evidence, results, specs


def arms_of(result: Result, columns: Sequence[str] = CURVES) -> dict[str, Arm]:
    """The evidence of one experiment, with some points of the curves of these columns, if any."""
    spec = result.experiment.spec
    points = max(FEWEST_POINTS, CURVE_POINTS * 10 // max(10, spec["seeds"]["count"]))
    arms: dict[str, list[Trial]] = {name: [] for name in spec["arms"]}
    for run in result.runs:
        row, curves = run.row, run.curves
        kept = _thinned(curves, columns, points) if columns and len(curves.get("step", ())) else {}
        times = (row.t_memorised, row.t_grokked, row.t_stable)
        spent = (row.steps or 0, round(row.seconds or 0.0, 2), float(row.flops or 0.0))
        arms[row.arm].append(Trial(row.seed, row.status, *spent, *times, kept))
    return {name: Arm(name, tuple(trials), int(spec["budget"]["steps"])) for name, trials in arms.items()}


def _thinned(curves: Mapping[str, np.ndarray], columns: Sequence[str], points: int) -> dict[str, list[float | None]]:
    """About so many of the evaluations that have all columns, evenly spread over the logarithm of the step."""
    columns = [column for column in columns if column in curves]
    measured = np.flatnonzero(np.all([np.isfinite(curves[column]) for column in columns], axis=0))
    rows = measured if len(measured) > 1 else np.arange(len(curves["step"]))  # some measures are taken more seldom
    chosen = np.unique(np.geomspace(1, len(rows), points).round().astype(int) - 1)
    keep = np.unique([*rows[chosen], len(curves["step"]) - 1])
    found: dict[str, list[float | None]] = {"step": [int(step) for step in curves["step"][keep]]}
    for column in columns:
        values = curves[column][keep].tolist()
        found[column] = [float(f"{value:.4g}") if np.isfinite(value) else None for value in values]
    return found
