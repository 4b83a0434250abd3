"""What is kept of a judged study: a small JSON file, a page with tables and charts, a row in the table of verdicts.

    results/<study>.json        evidence, specs, date, machine, and the findings as they were
    docs/studies/<study>.md     the page, made of that file
    docs/studies/index.md       the table of verdicts, made of all of them

Nothing on the pages is typed by hand: a finding is what its claim says to the evidence in the file.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from groklab.report import charts
from groklab.report.curves import Curves
from groklab.report.summary import format_duration, format_flops
from groklab.store.checkpoint_files import written_whole
from groklab.studies.claims import VERDICTS, Arm, Evidence, Finding, Trial
from groklab.studies.study import Judged, Study, results_of, studies, study_of

CHARTED = 10  # runs of an arm that are drawn
TOGETHER = 8  # arms that share a panel at most
LEGEND = (
    "Medians in steps with 95 % intervals, *860 or more* where the upper end is not known; time and compute are those "
    "of all runs of the arm together. An accuracy is the share of right answers; where the answer is a number, of "
    "those within the task's tolerance. In ratios, *bounds in 3* says that in three pairs one of the two did not get "
    f"there and counts with the budget. Charts show the first {CHARTED} runs of an arm at most."
)


def to_json(judged: Judged) -> dict[str, Any]:
    """A judged study as plain data."""
    arms = {
        experiment: {
            name: {"budget": arm.budget, "trials": [asdict(t) for t in arm.trials]} for name, arm in of.items()
        }
        for experiment, of in judged.evidence.arms.items()
    }
    return {
        "study": judged.study.name,
        **judged.about,
        "findings": {name: asdict(finding) for name, finding in judged.findings.items()},
        "specs": judged.specs,
        "calculated": judged.evidence.calculated,
        "arms": arms,
    }


def from_json(data: Mapping[str, Any]) -> tuple[Judged, dict[str, Finding]]:
    """The study judged anew from recorded evidence, and the findings as they were recorded."""
    arms = {
        experiment: {
            name: Arm(name, tuple(Trial(**trial) for trial in arm["trials"]), arm["budget"]) for name, arm in of.items()
        }
        for experiment, of in data["arms"].items()
    }
    about = {key: data[key] for key in ("date", "quick", "settings", "versions")}
    judged = Judged.of(study_of(data["study"]), Evidence(arms, data["calculated"]), data["specs"], about)
    return judged, {name: Finding(**finding) for name, finding in data["findings"].items()}


def recorded(name: str) -> Judged | None:
    """The recorded results of a study, judged anew; None if there are none."""
    data = results_of(name)
    return None if data is None else from_json(data)[0]


def write_results(judged: Judged, folder: Path) -> Path:
    """Keep a judged study in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{judged.study.name}.json"
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(to_json(judged), separators=(",", ":"), allow_nan=False), encoding="utf-8")
    return path


def write_pages(folder: Path) -> list[Path]:
    """The pages of all recorded studies, their charts, and the table of verdicts."""
    folder.mkdir(parents=True, exist_ok=True)
    written, rows, counts = [], [], []
    for listed in studies():
        study, judged = study_of(listed.name), recorded(listed.name)
        rows += list(_rows(study, judged))
        counts.append(_counts(study, judged))
        if judged is not None:
            written += [charts.save(chart, folder / f"{study.name}-{name}.svg") for name, chart in _charts(judged)]
            page = folder / f"{study.name}.md"
            page.write_text(_page(judged), encoding="utf-8")
            written.append(page)
    index = folder / "index.md"
    index.write_text(_index(counts, rows), encoding="utf-8")
    return [*written, index]


def verdict_table(judged: Judged) -> Any:
    """The claims with what was published, what was measured, and the verdict, for a terminal."""
    from rich.table import Table

    quick = " (quick run: a hint, no verdict)" if judged.about["quick"] else ""
    table = Table(title=f"{judged.study.title}{quick}", title_justify="left", box=None, padding=(0, 2, 1, 0))
    for heading in ("claim", "published", "measured", "verdict"):
        table.add_column(heading, overflow="fold")
    for claim in judged.study.claims:
        finding = judged.findings[claim.name]
        table.add_row(claim.statement, claim.published, _measured(finding), finding.verdict)
    return table


# --- pages -----------------------------------------------------------------------------------------------------------


def _index(counts: list[list[str]], rows: list[list[str]]) -> str:
    intro = (
        "# Verdicts\n\nWhat the field has claimed, and what our own runs and calculations say to it. Made by `make "
        "study-pages` from recorded results. What counts as reproduced was fixed before the runs; where a rule was "
        "made stricter afterwards, the study's page says so under *Deviations*. Quick runs have few seeds, and runs "
        "with changed settings are not of the size that the study asks for; both are marked."
    )
    columns = ["study", "about", "run", *VERDICTS]
    return "\n\n".join(
        [
            intro,
            "## Studies",
            _table(columns, counts),
            "## Claims",
            _table(["study", "claim", "published", "measured", "verdict"], rows) + "\n",
        ]
    )


def _counts(study: Study, judged: Judged | None) -> list[str]:
    """A study's row: when it was run, and how many of its claims got each verdict."""
    if judged is None:
        return [study.name, study.title, "not run yet", *[""] * len(VERDICTS)]
    found = [finding.verdict for finding in judged.findings.values()]
    counts = [str(found.count(verdict) or "") for verdict in VERDICTS]
    return [f"[{study.name}]({study.name}.md)", study.title, f"{judged.about['date']}{_size(judged)}", *counts]


def _size(judged: Judged) -> str:
    """What sets a run apart from a full one."""
    if judged.about["quick"]:
        return " (quick run)"
    return " (changed settings)" if judged.about["settings"] else ""


def _rows(study: Study, judged: Judged | None) -> Iterator[list[str]]:
    for claim in study.claims:
        if judged is None:
            yield [study.name, claim.statement, claim.published, "", "not run yet"]
            continue
        finding = judged.findings[claim.name]
        verdict = f"**{finding.verdict}**{_size(judged)}"
        yield [f"[{study.name}]({study.name}.md)", claim.statement, claim.published, _measured(finding), verdict]


def _measured(finding: Finding) -> str:
    """What was measured, and why that is no more, in sentences without the last full stop."""
    if not finding.reason:
        return finding.measured
    reason = f"{finding.reason[0].upper()}{finding.reason[1:]}"
    return f"{finding.measured}. {reason}" if finding.measured else reason


def _page(judged: Judged) -> str:
    study, about = judged.study, judged.about
    quick = " This was a quick run: few seeds, so that no verdict is more than a hint." if about["quick"] else ""
    versions = about["versions"]
    changes = "".join(f" --set {shlex.quote(setting)}" for setting in about["settings"])
    command = f"groklab reproduce {study.name}{' --quick' if about['quick'] else ''}{changes}"
    parts = [
        f"# {study.title}",
        "; ".join(study.papers) + ".",
        f"Run on {about['date']}, {versions['machine']}, {versions['device']}, groklab {versions['groklab']}, jax "
        f"{versions['jax']}.{quick} To repeat it: `{command}`.",
        "## Claims",
    ]
    for claim in study.claims:
        finding = judged.findings[claim.name]
        parts.append(
            f"**{claim.statement}** ({claim.source})\n\n"
            f"- published: {claim.published}\n- measured as: {claim.measured_as}\n- what counts: {claim.counts}\n"
            f"- measured: {_measured(finding)}.\n- verdict: **{finding.verdict}**"
        )
    for title, (header, *rows) in (study.tables(judged.evidence) if study.tables else {}).items():
        parts += [f"## {title}", _table(header, rows)]
    parts += ["## Runs", LEGEND]
    for name, arms in judged.evidence.arms.items():
        seeds = sorted({trial.seed for arm in arms.values() for trial in arm.trials})
        spec = judged.specs[name]
        budget, means = spec["budget"], spec["definitions"]
        parts += [
            f"### {name}",
            f"Seeds {seeds[0]} to {seeds[-1]}; {budget['steps']:,} steps at most, evaluated every "
            f"{budget['evaluate_every']:,}. Memorised: train accuracy {means['memorised']:g}; grokked: held-out "
            f"accuracy {means['grokked']:g}.",
            _table(["arm", "memorised", "grokked", "time", "compute"], [_arm_row(arm) for arm in arms.values()]),
        ]
        if _has_curves(judged, name):
            parts.append(f"![Accuracies of {name}]({study.name}-{name}.svg)")
            parts += [f"![{column} of {name}]({study.name}-{name}-{column}.svg)" for column in _columns(judged, name)]
    if study.deviations:
        parts += ["## Deviations", "\n".join(f"- {deviation}" for deviation in study.deviations)]
    return "\n\n".join(parts) + "\n"


def _arm_row(arm: Arm) -> list[str]:
    seconds, flops = sum(trial.seconds for trial in arm.trials), sum(trial.flops for trial in arm.trials)
    return [arm.name, arm.said("t_memorised"), arm.said("t_grokked"), format_duration(seconds), format_flops(flops)]


def _has_curves(judged: Judged, name: str) -> bool:
    """Experiments that only tune have none."""
    return any(trial.curves for arm in judged.evidence.arms[name].values() for trial in arm.trials)


def _columns(judged: Judged, name: str) -> list[str]:
    """What is drawn of an experiment beside its accuracies."""
    return [
        column
        for column in judged.study.figures.get(name, ())
        if any(column in trial.curves for arm in judged.evidence.arms[name].values() for trial in arm.trials)
    ]


def _charts(judged: Judged) -> Iterator[tuple[str, Any]]:
    """Train and held-out accuracy by experiment, and what else its study shows, with the ends of the files' names."""
    for name, arms in judged.evidence.arms.items():
        if _has_curves(judged, name):
            curves = _drawn(judged, name)
            yield name, charts.accuracy(curves) if len(arms) <= TOGETHER else charts.accuracy_by_arm(curves)
            for column in _columns(judged, name):
                both = column == "held_out_loss"  # with that of training beside it
                yield f"{name}-{column}", charts.loss(curves) if both else charts.measure(curves, column, column)


def _drawn(judged: Judged, name: str) -> Curves:
    """The runs of an experiment, the first ones where an arm has many."""
    arms, spec = judged.evidence.arms[name], judged.specs[name]
    rows = [
        {
            **{fact: getattr(trial, fact) for fact in ("seed", "status", "t_memorised", "t_grokked")},
            "arm": arm.name,
            **trial.curves,
        }
        for arm in arms.values()
        for trial in arm.trials[:CHARTED]
        if trial.curves
    ]
    last = max((trial.steps for arm in arms.values() for trial in arm.trials[:CHARTED]), default=2)
    first = int(spec["budget"]["evaluate_every"])
    return Curves(tuple(arms), tuple(rows), spec["definitions"], min(first, last - 1), max(last, 2))


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
