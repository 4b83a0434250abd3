"""An analysis in a terminal, and as one HTML file that opens offline: facts, events, every measure, a few charts.

The page loads nothing: style, policy and chart library are those of the report of an experiment. A measure's table has
its numbers, short lists and texts; what is longer (each matrix's singular values, fits) is in the JSON object only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import altair as alt
import numpy as np
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from groklab.errors import GroklabError
from groklab.report import charts
from groklab.report.html import embedded, library, table
from groklab.report.page import CSS, SCRIPT, page
from groklab.store.checkpoint_files import written_whole

if TYPE_CHECKING:
    from groklab.analysis import Analysis
    from groklab.interop.checkpoints import Curve

_LONGEST_LIST, _LONGEST_TEXT = 16, 160
_POINTS = 400
_SPECTRA = {"spectrum.embedding": "Embedding spectrum", "spectrum.logit_map": "Logit-map spectrum"}

PAGE = page(
    "analysis",
    """
<header><p class="kicker">groklab analysis</p><h1>$title</h1><p class="facts">$facts</p></header>
<main>
<section class="verdict" aria-label="Verdict"><p class="lead">$lead</p><p>$sentences</p></section>
<section><h2>Charts</h2><noscript><p>The charts need JavaScript; the tables do not.</p></noscript>
<div class="figures">$figures</div></section>
$events
$measures
<section><h2>Not for this network</h2>$refused</section>
<section><h2>Network and task</h2>$settings</section>
</main>
""",
    style=" td.text { white-space:normal; overflow-wrap:anywhere; }",
)


def write(analysis: Analysis, path: Path) -> Path:
    """Write the page into `path`, whole or not at all. Raises GroklabError if that cannot be."""
    page = render(analysis)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as temporary:
            temporary.write_text(page, encoding="utf-8")
    except OSError as error:
        raise GroklabError(f"cannot write the report {path}: {error.strerror}") from None
    return path


def render(analysis: Analysis) -> str:
    """The page as text."""
    lead, *sentences = summary_sentences(analysis)
    figures, payload = embedded((title, chart, "") for title, chart in figures_of(analysis).items())
    refused = [[escape(kind), escape(reason)] for kind, reason in analysis.not_applicable.items()]
    settings = [[escape(name), escape(_short(value) or "…")] for name, value in _facts(analysis)]
    return Template(PAGE).substitute(
        title=escape(Path(analysis.source).name),
        facts=escape(f"{analysis.source} · layout {analysis.layout}"),
        lead=escape(lead),
        sentences=" ".join(map(escape, (*sentences, *(f"{_sentence(note)}" for note in analysis.notes)))),
        figures=figures or "<p>There is nothing to draw.</p>",
        events=_events_section(analysis),
        measures="".join(map(_measure_section(analysis), analysis.definitions)),
        refused=table(["Measure", "Reason"], refused, (0, 1)) if refused else "<p>Every measure applied.</p>",
        settings=table(["Setting", "Value"], settings, (0, 1)),
        css=CSS,
        library=library(),
        payload=payload,
        script=SCRIPT,
    )


def terminal(analysis: Analysis) -> Group:
    """The same for a terminal: sentences, events, a table for each measure, and what did not apply."""
    parts: list[Any] = [Text(sentence) for sentence in (*summary_sentences(analysis), *map(_sentence, analysis.notes))]
    if rows := list(_event_rows(analysis)):
        parts.append(_rich_table("events", ("curve", "threshold", "first", "sustained", "for good"), rows))
    for kind, definition in analysis.definitions.items():
        rows = list(_rows(analysis, definition["columns"]))
        parts += [_rich_table(kind, ("name", "value"), rows), Text(f"{definition['summary']}\n", style="dim")]
    if analysis.not_applicable:
        parts.append(_rich_table("not for this network", ("measure", "reason"), list(analysis.not_applicable.items())))
    return Group(*parts)


def summary_sentences(analysis: Analysis) -> list[str]:
    """What it is, how well it does, and which algorithm it was found to use, if any."""
    columns = analysis.columns
    if not analysis.model:
        return ["Curves of a training run, without a network."]
    size = [f"{analysis.model[name]} {name}" for name in ("layers", "width", "heads") if name in analysis.model]
    kind = str(analysis.model.get("kind", "network"))
    sentences = [f"A {kind} ({', '.join(size)}) for {analysis.task.get('name', 'its task')}."]
    if "accuracy.all" in columns:
        known = [
            f"{part} {100 * columns[f'accuracy.{part}']:.2f} %"
            for part in ("train", "test", "all")
            if f"accuracy.{part}" in columns
        ]
        sentences.append(f"Accuracy: {', '.join(known)}.")
    if "algorithm" in columns:
        sentences.append(f"Algorithm: {columns['algorithm']} ({columns.get('clock_pizza.reason', '')}).")
    if "key_frequencies.used" in columns:
        numbers = ", ".join(map(str, columns["key_frequencies.used"])) or "none"
        sentences.append(f"Key frequencies: {numbers} (rule: {columns['key_frequencies.rule']}).")
    return sentences


# --- tables ----------------------------------------------------------------------------------------------------------


def _rows(analysis: Analysis, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    for name in names:
        if (text := _short(analysis.columns[name])) is not None:
            yield name, text


def _short(value: Any) -> str | None:
    """A number, text or short list as text; None for what is too long for a table."""
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, float | np.floating):
        return "not defined" if np.isnan(value) else f"{value:.6g}"
    if isinstance(value, int | np.integer):
        return f"{value}"
    if isinstance(value, str):
        return value if len(value) <= _LONGEST_TEXT else f"{value[:_LONGEST_TEXT]}…"
    if isinstance(value, Mapping):
        parts = {key: _short(part) for key, part in value.items() if not isinstance(part, Mapping | list | tuple)}
        fits = len(parts) == len(value) <= _LONGEST_LIST
        return ", ".join(f"{key}: {part}" for key, part in parts.items()) if fits else None
    if (
        isinstance(value, list | tuple)
        and len(value) <= _LONGEST_LIST
        and not any(isinstance(part, Mapping | list | tuple) for part in value)
    ):
        return ", ".join(str(_short(part)) for part in value) or "none"
    return None


def _facts(analysis: Analysis) -> Iterator[tuple[str, Any]]:
    for part, facts in (("task", analysis.task), ("model", analysis.model)):
        for name, value in facts.items():
            yield f"{part}.{name}", value


def _event_rows(analysis: Analysis) -> Iterator[tuple[str, ...]]:
    """For each curve its threshold, and its crossings as (evaluation before, evaluation]."""
    for name in analysis.curves:
        if f"events.{name}.threshold" in analysis.columns:
            at = [analysis.columns[f"events.{name}.{which}"] for which in ("first", "sustained", "for_good")]
            intervals = ("never" if x is None else f"({x['after']}, {x['step']}]" for x in at)
            yield name, f"{analysis.columns[f'events.{name}.threshold']:g}", *intervals
    if "events.slingshots" in analysis.columns:
        yield "slingshots", "", f"{analysis.columns['events.slingshots']['count']} spikes", "", ""


def _events_section(analysis: Analysis) -> str:
    rows = [[escape(cell) for cell in row] for row in _event_rows(analysis)]
    if not rows:
        return ""
    note = (
        '<p class="note">Each crossing lies between two evaluations, the second one included. Sustained: the next five '
        "evaluations stay beyond the threshold. For good: all that follow do.</p>"
    )
    header = ["Curve", "Threshold", "First", "Sustained", "For good"]
    return f"<section><h2>Events</h2>{table(header, rows)}{note}</section>"


def _measure_section(analysis: Analysis) -> Any:
    def section(kind: str) -> str:
        definition = analysis.definitions[kind]
        rows = [[escape(name), escape(text)] for name, text in _rows(analysis, definition["columns"])]
        text = f"<details><summary>Definition</summary><pre>{escape(definition['definition'])}</pre></details>"
        summary = f'<p class="note">{escape(definition["summary"])}</p>'
        return f"<section><h2>{escape(kind)}</h2>{table(['Name', 'Value'], rows, (0, 1))}{summary}{text}</section>"

    return section


def _rich_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _sentence(note: str) -> str:
    return f"{note[:1].upper()}{note[1:]}."


# --- charts ----------------------------------------------------------------------------------------------------------


def figures_of(analysis: Analysis) -> dict[str, alt.LayerChart]:
    """The charts that there are data for, by title."""
    columns, found = analysis.columns, {}
    for name, title in _SPECTRA.items():
        if name in columns:
            values = dict(enumerate(columns[name]))
            found[title] = _bars(values, "frequency", "norm", columns.get("key_frequencies.used", ()))
    if columns.get("neurons.clusters"):
        found["Neuron clusters"] = _bars(columns["neurons.clusters"], "frequency", "neurons")
    if "trace_similarity" in columns and len(columns["trace_similarity"]) > 1:
        keys = columns.get("key_representations", ())
        found["Trace similarity"] = _bars(columns["trace_similarity"], "representation", "similarity", keys)
    for kind, scale in (("loss", "log"), ("accuracy", "linear")):
        chosen = {name: curve for name, curve in analysis.curves.items() if name.endswith(f"_{kind}")}
        if chosen:
            found[kind.capitalize()] = _lines(chosen, kind, scale)
    return found


def _bars(values: Mapping[Any, float], x: str, y: str, marked: Sequence[Any] = ()) -> alt.LayerChart:
    """A bar for each entry, those in `marked` in the colour of key frequencies."""
    rows = [{x: name, y: float(f"{value:.5g}"), "key": name in marked} for name, value in values.items()]
    colour = alt.Color(
        "key:N", scale=alt.Scale(domain=[False, True], range=[charts.COLOURS[0], charts.COLOURS[2]]), legend=None
    )
    axis = alt.Axis(labelOverlap=True, labelAngle=0 if len(rows) < 20 or x == "frequency" else -60)
    bars = (
        alt.Chart()
        .mark_bar()
        .encode(x=alt.X(f"{x}:O", sort=None, axis=axis), y=alt.Y(f"{y}:Q"), color=colour, tooltip=[f"{x}:N", f"{y}:Q"])
    )
    return charts.finish(alt.LayerChart(layer=[bars], data=alt.InlineData(values=rows)), f"{y} by {x}")


def _lines(curves: Mapping[str, Curve], kind: str, scale: str) -> alt.LayerChart:
    """Curves against the epoch, thinned evenly on its log axis; what is not positive has no place on a log axis."""
    rows = []
    for name, curve in curves.items():
        rows += [
            {"curve": name.removesuffix(f"_{kind}"), "step": step, "value": float(f"{value:.5g}")}
            for step, value in zip(*_thinned(curve), strict=True)
            if np.isfinite(value) and (scale != "log" or value > 0)
        ]
    steps = [row["step"] for row in rows] or [1]
    first, last = min(steps), max(max(steps), min(steps) + 1)
    colour = alt.Color(
        "curve:N", scale=alt.Scale(range=list(charts.COLOURS[1:3])), legend=alt.Legend(title=None, symbolType="stroke")
    )
    y = alt.Y("value:Q", title=kind, scale=alt.Scale(type=scale))  # pyright: ignore[reportArgumentType]
    lines = alt.Chart().mark_line(strokeWidth=1.6).encode(x=charts.step_axis(first, last), y=y, color=colour)
    return charts.finish(alt.LayerChart(layer=[lines], data=alt.InlineData(values=rows)), f"{kind} by step")


def _thinned(curve: Curve) -> tuple[list[int], list[float]]:
    positive = np.flatnonzero(np.asarray(curve.steps) > 0)
    if not len(positive):
        return [], []
    grid = np.geomspace(1, len(positive), min(_POINTS, len(positive)))
    keep = positive[np.unique(np.round(grid).astype(int)) - 1]
    return np.asarray(curve.steps)[keep].tolist(), np.asarray(curve.values, float)[keep].tolist()
