"""The report of an experiment as one HTML file that opens offline: verdict, tables, charts, and how to repeat it.

Everything is inside the file: the chart library comes out of `vl-convert-python` and a content-security policy forbids
the page to load anything. Each curve is embedded once, thinned (see `Curves`); the full data stay in the
workspace. Charts are drawn as SVG in `currentColor`, so that they follow light and dark pages and print sharply.
"""

from __future__ import annotations

import functools
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import altair as alt
import vl_convert

from groklab.errors import GroklabError
from groklab.report import charts
from groklab.report.curves import Curves
from groklab.report.page import CSS, GLOSSARY, PAGE, SCRIPT
from groklab.report.summary import (
    TIMES,
    definition_sentences,
    format_duration,
    format_flops,
    format_p_value,
    format_ratio,
    format_steps,
    summarise,
    verdict_sentences,
)
from groklab.report.timeline import Timeline, phase_sentence, timelines
from groklab.store.checkpoint_files import written_whole
from groklab.store.workspace import ExperimentRow, RunRow, Workspace

if TYPE_CHECKING:
    import numpy as np

T_HEADERS = tuple(f"t<sub>{name.removeprefix('t_')}</sub>" for name in TIMES)


def write(workspace: Workspace, experiment_id: str, path: Path | str) -> Path:
    """Render the experiment `experiment_id` of `workspace` into the file `path`, which appears whole or not at all.

    Raises:
        GroklabError: the file cannot be written; whatever the workspace raises for an unknown experiment.
    """
    path = Path(path)
    experiment = workspace.experiment(experiment_id)
    runs = workspace.runs(experiment.id)
    page = render(experiment, runs, {run.id: workspace.curves(run.id) for run in runs})
    try:
        with written_whole(path) as temporary:
            temporary.write_text(page, encoding="utf-8")
    except OSError as error:
        raise GroklabError(f"cannot write the report {path}: {error.strerror}") from None
    return path


def render(experiment: ExperimentRow, runs: Sequence[RunRow], curves: Mapping[str, Mapping[str, np.ndarray]]) -> str:
    """The page as text.

    Args:
        experiment, runs: as stored; runs in any state.
        curves: run id to columns of one length (`step` and what was measured there); a run may have none.
    """
    summary = summarise(experiment, runs)
    spec = experiment.spec
    figures, payload = _figures(experiment, runs, curves)
    happened = timelines(experiment, runs, curves)
    lead, *sentences = verdict_sentences(summary)
    ended = len(runs) - summary["unfinished"]
    state = f"{ended} of {len(runs)} runs ended" if summary["unfinished"] else f"all {len(runs)} runs ended"
    network = f"{_kind(spec['task'])} task, {_kind(spec['model'])} model"
    description = spec.get("description", "")
    return Template(PAGE).substitute(
        title=escape(experiment.name),
        description=f"<p>{escape(description)}</p>" if description else "",
        facts=escape(" · ".join((experiment.id, f"created {experiment.created}", network, state))),
        lead=escape(lead),
        sentences=" ".join(map(escape, sentences)),
        arms=_arms_table(summary),
        comparisons=_comparisons_table(summary),
        figures=figures,
        runs=_runs_table(summary, {(found.run.arm, found.run.seed): found for found in happened}),
        definitions=_definitions(experiment, summary, happened),
        reproduce=_reproduce(experiment),
        versions=table(["Package", "Version"], [[escape(k), escape(str(v))] for k, v in experiment.versions.items()]),
        glossary="".join(f"<dt>{term}</dt><dd>{meaning}</dd>" for term, meaning in GLOSSARY.items()),
        css=CSS,
        library=library(),
        payload=payload,
        script=SCRIPT,
    )


def _figures(
    experiment: ExperimentRow, runs: Sequence[RunRow], curves: Mapping[str, Mapping[str, np.ndarray]]
) -> tuple[str, str]:
    """The figures' HTML, and the JSON of their specs with the data shared between them."""
    drawn: list[tuple[str, alt.LayerChart, str]] = []
    data = Curves.of(experiment, runs, curves)
    if data.rows:
        threshold = f"{experiment.spec['definitions']['grokked']:g}"
        caption = "Thin dashed: training set. Solid: held-out set. "
        drawn.append(("Accuracy", charts.accuracy(data), f"{caption}Dots: held-out accuracy reached {threshold}."))
        drawn.append(("Loss", charts.loss(data), f"{caption}Both axes logarithmic."))
    if any(run.status != "pending" for run in runs):
        caption = (
            "Kaplan-Meier estimate with 95 % bands. A curve falls whenever a run groks; a tick is a run that left "
            "without having grokked."
        )
        drawn.append(("Share of runs not yet grokked", charts.survival(experiment, runs), caption))
    if {"restricted_loss.heldout", "excluded_loss.train"} <= set(data.measures):
        caption = "Dashed grey: held-out accuracy. The losses of the circuit come from the measure fourier."
        arms = [arm for arm in data.arms if any(row["arm"] == arm for row in data.rows)]
        drawn += [(f"Progress of {arm}", charts.progress(data, arm), caption) for arm in arms]
    for column in data.measures:
        title = column.replace("_", " ")
        caption = "Euclidean norm of all parameters." if column == "weight_norm" else "As recorded at each evaluation."
        drawn.append((title.capitalize(), charts.measure(data, column, title), caption))
    figures, payload = embedded(drawn)
    return figures or "<p>No run has started yet: there is nothing to draw.</p>", payload


def embedded(drawn: Iterable[tuple[str, alt.LayerChart, str]]) -> tuple[str, str]:
    """The HTML of charts with title and caption (none if empty), and the JSON of their specs with their common data."""
    specs: list[dict[str, Any]] = []
    datasets: dict[str, Any] = {}
    figures = ""
    for i, (title, chart, caption) in enumerate(drawn):
        spec = chart.to_dict()
        datasets |= spec.pop("datasets", {})
        specs.append(_for_page(spec))
        below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
        figures += f'<figure><h3>{escape(title)}</h3><div class="chart" id="chart-{i}"></div>{below}</figure>'
    # "<" as \u003c keeps any name from closing the script element; JSON reads it back as the same character.
    payload = json.dumps({"specs": specs, "datasets": datasets}, allow_nan=False, separators=(",", ":"))
    return figures, payload.replace("<", "\\u003c")


def _for_page(spec: dict[str, Any]) -> dict[str, Any]:
    """A chart's spec in the width and colours of the page, without the address of its schema."""
    del spec["$schema"]
    spec["width"] = "container"
    spec["autosize"] = {"type": "fit-x", "contains": "padding"}
    config = spec["config"]
    ink = dict.fromkeys(("labelColor", "titleColor", "domainColor", "tickColor", "gridColor"), "currentColor")
    config["background"] = "transparent"
    config["axis"] |= ink | {"gridOpacity": 0.13, "domainOpacity": 0.5, "tickOpacity": 0.5}
    config["legend"] |= {"labelColor": "currentColor"}
    return spec


def _arms_table(summary: Mapping[str, Any]) -> str:
    header = ["Arm", "Runs", "Memorised", "Grokked", "Diverged", *T_HEADERS, "Mean*", "Time", "Compute"]
    rows = []
    for i, arm in enumerate(summary["arms"]):
        swatch = f'<span class="swatch" style="background:{charts.COLOURS[i % len(charts.COLOURS)]}"></span>'
        mean = arm["t_grokked_restricted_mean"]
        rows.append(
            [
                swatch + escape(arm["name"]),
                f"{arm['started']} of {arm['count']}",
                *(str(arm[count]) for count in ("memorised", "grokked", "diverged")),
                *(_median_cell(arm[measure]) if arm["started"] else "–" for measure in TIMES),
                "–" if mean is None else f"{mean:,.0f}",
                format_duration(arm["seconds"]),
                format_flops(arm["flops"]),
            ]
        )
    note = (
        '<p class="note">Times in steps: median over seeds, with its 95 % interval below. *Restricted mean of '
        f"{T_HEADERS[1]}: counted up to {summary['steps']:,} steps at most. Time and compute: summed over the runs.</p>"
    )
    return table(header, rows) + note


def _median_cell(estimate: Mapping[str, float | None]) -> str:
    median, _, interval = format_steps(estimate).partition(" (")
    return f"{median}<br><small>{interval.rstrip(')')}</small>" if interval else median


def _comparisons_table(summary: Mapping[str, Any]) -> str:
    if not summary["comparisons"]:
        return "<p>No comparison yet: it takes a baseline and a further arm with ended runs on a common seed.</p>"
    header = ["Arm", "Against", f"Ratio of {T_HEADERS[1]}", "Confidence", "Pairs", "Of them censored", "p", "p (Holm)"]
    rows = [
        [
            escape(comparison["arm"]),
            escape(comparison["baseline"]),
            format_ratio(comparison),
            f"{100 * comparison['confidence']:.3g} %",
            str(comparison["pairs"]),
            str(comparison["censored_pairs"]),
            escape(format_p_value(comparison["p_value"])),
            escape(format_p_value(comparison["p_value_holm"])),
        ]
        for comparison in summary["comparisons"]
    ]
    note = (
        '<p class="note">Below 1 the arm groks sooner than the baseline. Median ratio over the seeds shared by both '
        "arms, with the interval the number of pairs allows and the confidence it attains; p from flipping the arms "
        "within pairs, two-sided; Holm's correction over the rows.</p>"
    )
    return table(header, rows, text_columns=(0, 1)) + note


def _runs_table(summary: Mapping[str, Any], happened: Mapping[tuple[str, int], Timeline]) -> str:
    rows = [
        [escape(arm["name"]), str(run["seed"]), _status(run), f"{run['steps'] or 0:,}"]
        + ["–" if run[measure] is None else f"{run[measure]:,}" for measure in TIMES]
        + _phase_cells(happened.get((arm["name"], run["seed"])))
        for arm in summary["arms"]
        for run in arm["runs"]
    ]
    if not rows:
        return "<p>No run has started yet.</p>"
    header = ["Arm", "Seed", "Status", "Steps", *T_HEADERS, "Circuit formation", "Cleanup", "Outcome"]
    of_runs = table(header, rows, text_columns=(0, 2, len(header) - 1))
    return f"<details{' open' if len(rows) <= 30 else ''}><summary>{len(rows)} runs</summary>{of_runs}</details>"


def _phase_cells(found: Timeline | None) -> list[str]:
    """Where circuit formation and cleanup begin (or, on pointing at the cell, why they do not), and how it ended."""
    if found is None:
        return ["–"] * 3
    cells = []
    for name in ("circuit", "cleanup"):
        begin, why = getattr(found.phases, name), escape(found.phases.reasons.get(name, ""))
        cells.append(f'<span title="{why}">–</span>' if begin is None else f"{begin.step:,}")
    lost = found.phases.regressed
    return [*cells, found.events.outcome + ("" if lost is None else f" at step {lost:,}")]


def _definitions(experiment: ExperimentRow, summary: Mapping[str, Any], happened: Sequence[Timeline]) -> str:
    budget, terms = experiment.spec["budget"], definition_sentences(summary["definitions"])
    every = budget.get("evaluate_every", 1)
    entries = {
        T_HEADERS[0]: f"first evaluation with {terms['memorised']}.",
        T_HEADERS[1]: f"first evaluation with {terms['grokked']}.",
        T_HEADERS[2]: f"first evaluation with {terms['grokked']} from which {terms['stable']}.",
        **({"Accuracy": f"{terms['accuracy']}."} if "accuracy" in terms else {}),
        **({"Phases": phase_sentence(happened)} if happened else {}),
        "Evaluation": f"every {every:,} steps, so each time may be up to {every:,} steps late. A step is one optimiser "
        "update.",
        "Budget": f"{budget['steps']:,} steps. A run that has not grokked by then, or diverged, is censored there: it "
        "counts as taking longer, it is neither dropped nor given a made-up time.",
    }
    return "<dl>" + "".join(f"<dt>{term}</dt><dd>{escape(text)}</dd>" for term, text in entries.items()) + "</dl>"


def _reproduce(experiment: ExperimentRow) -> str:
    file = shlex.quote(f"{experiment.name}.toml")
    version = experiment.versions.get("groklab", "")
    return (
        f"<p>Save the specification below as <code>{escape(file)}</code>. Then, with groklab {escape(version)}:</p>"
        f"<pre>{escape(f'groklab run {file}')}</pre>"
        f"<details><summary>Specification</summary><pre>{escape(experiment.spec_toml)}</pre></details>"
    )


def table(header: Sequence[str], rows: Iterable[Sequence[str]], text_columns: Sequence[int] = (0,)) -> str:
    """Cells are HTML already; those of `text_columns` are aligned left, the others right as numbers."""

    def row(cells: Sequence[str], scope: str) -> str:
        """In the head every cell is a header, in the body the first one."""
        html = ""
        for i, text in enumerate(cells):
            tag, attribute = ("th", f' scope="{scope}"') if i == 0 or scope == "col" else ("td", "")
            html += f"<{tag}{attribute}{' class=text' if i in text_columns else ''}>{text}</{tag}>"
        return f"<tr>{html}</tr>"

    body = "".join(row(cells, "row") for cells in rows)
    return f'<div class="scroll"><table><thead>{row(header, "col")}</thead><tbody>{body}</tbody></table></div>'


def _status(run: Mapping[str, Any]) -> str:
    status, when = escape(run["status"]), "" if run["diverged_at"] is None else f" at step {run['diverged_at']:,}"
    message = f"<br><small>{escape(run['message'])}</small>" if run["message"] else ""
    return f'<span class="status {status}">{status}</span>{when}{message}'


def _kind(part: Mapping[str, Any]) -> str:
    return str(part.get("kind", "unnamed"))


@functools.cache
def library() -> str:
    """Vega-Lite with vegaEmbed as one script; takes about a second to put together, hence once per process."""
    bundle = vl_convert.javascript_bundle()  # pyright: ignore[reportCallIssue]  (the snippet is optional, its stub errs)
    return bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")
