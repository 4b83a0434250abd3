"""The chart grammar: every figure is one Altair (Vega-Lite) definition, drawn by the report, the dashboard and papers.

The data of a chart is one row per run whose curves are arrays; Vega-Lite's `flatten` and `fold` spread them. All curve
charts of an experiment carry the same rows, so a page embeds them once. Steps lie on a log axis, because memorising and
grokking are often a factor of ten apart; step 0 has no place on it, so curves begin at the first evaluation after it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import vl_convert

from groklab.errors import GroklabError
from groklab.report.curves import Curves, step_range, survival_rows
from groklab.report.summary import time_to
from groklab.store.workspace import ExperimentRow, RunRow

FONT = "Liberation Sans, Arial, Helvetica, sans-serif"

# The baseline is grey, the arms follow Okabe and Ito's colour-blind-safe palette without black and yellow, then Tol's
# muted one: each has contrast on white and on a dark page.
COLOURS = (
    *("#767676", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"),
    *("#AA4499", "#999933", "#44AA99", "#CC6677", "#6E66C4"),
)
KNOWN = "isValid(datum.value)"
POSITIVE = f"{KNOWN} && datum.value > 0"  # a loss of exactly zero has no place on a logarithmic axis


def accuracy(curves: Curves) -> alt.LayerChart:
    """Train and held-out accuracy of every run; a dot marks where its held-out accuracy reached the threshold."""
    threshold = curves.definitions["grokked"]
    rule = (
        alt.Chart(alt.InlineData(values=[{"threshold": threshold}]))
        .mark_rule(strokeDash=[2, 3], color="#888888")
        .encode(y="threshold:Q")
    )
    y = alt.Y("value:Q", title="accuracy", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%", tickCount=5))
    lines = _train_and_held_out(curves, "accuracy", y)
    grokked = (
        alt.Chart()
        .transform_filter("isValid(datum.t_grokked) && datum.t_grokked > 0")
        .mark_point(filled=True, size=45, opacity=1)
        .encode(
            x=alt.X("t_grokked:Q"),
            y=alt.datum(threshold),
            color=_colour(curves.arms),
            opacity=_highlight(1.0),
            tooltip=_run_facts(),
        )
    )
    return finish(alt.LayerChart(layer=[rule, lines, grokked], data=_data(curves)), f"Accuracy of {_count(curves)}")


def accuracy_by_arm(curves: Curves) -> alt.FacetChart:
    """Train and held-out accuracy of every run, a panel for each arm: for more arms than can be told by colour."""
    y = alt.Y("value:Q", title=None, scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%", tickCount=3))
    lines = _train_and_held_out(curves, "accuracy", y).encode(
        color=alt.value(COLOURS[1]), opacity=alt.value(_line_opacity(curves))
    )
    lines.params = alt.Undefined
    header = alt.Header(labelColor="#444444", labelFontSize=11)
    facet = alt.Facet("arm:N", sort=list(curves.arms), title=None, header=header)
    panels = alt.LayerChart(layer=[lines]).properties(width=150, height=80)
    return panels.facet(facet=facet, data=_data(curves), columns=4)


def loss(curves: Curves) -> alt.LayerChart:
    """Train and held-out loss of every run, both axes logarithmic; a loss of exactly zero has no place on it."""
    y = _loss_axis(curves.rows, "loss", ("train_loss", "held_out_loss"))
    lines = _train_and_held_out(curves, "loss", y, POSITIVE)
    return finish(alt.LayerChart(layer=[lines], data=_data(curves)), f"Loss of {_count(curves)}")


def weight_norm(curves: Curves) -> alt.LayerChart:
    """The Euclidean norm of all parameters of every run."""
    return measure(curves, "weight_norm", "weight norm")


def measure(curves: Curves, column: str, title: str) -> alt.LayerChart:
    """One recorded column of every run against the step; `title` names the vertical axis, logarithmic for a loss."""
    value = alt.Y("value:Q", title=title, scale=alt.Scale(zero=False))
    shown = KNOWN
    if "loss" in column.replace(".", "_").split("_"):
        value, shown = _loss_axis(curves.rows, title, (column,)), POSITIVE
    lines = (
        alt.Chart()
        .transform_flatten(["step", _field(column)], as_=["step", "value"])
        .transform_filter(shown)
        .mark_line(strokeWidth=1.6)
        .encode(
            x=step_axis(curves.first, curves.last),
            y=value,
            color=_colour(curves.arms),
            detail="seed:N",
            opacity=_highlight(_line_opacity(curves)),
            tooltip=_run_facts(),
        )
        .add_params(_arm_selection())
    )
    return finish(alt.LayerChart(layer=[lines], data=_data(curves)), f"{title.capitalize()} of {_count(curves)}")


def progress(curves: Curves, arm: str) -> alt.LayerChart:
    """What goes on in one arm before it groks: its losses, those of its trigonometric circuit, and accuracy.

    Losses on the left axis (log), the held-out accuracy in grey on the right one. For runs with a measure `fourier`.
    """
    losses: dict[str, str] = {
        "train_loss": "train",
        "held_out_loss": "held-out",
        "restricted_loss.heldout": "restricted, fitted on held-out pairs",
        "excluded_loss.train": "excluded, train",
    }
    titles: list[Any] = list(losses.values())
    legend = alt.Legend(title=None, orient="top", columns=2, labelLimit=300, symbolType="stroke", symbolStrokeWidth=3)
    x, rows = step_axis(curves.first, curves.last), [row for row in curves.rows if row["arm"] == arm]
    y = _loss_axis(rows, "loss", tuple(losses))
    lines = (
        alt.Chart()
        .transform_flatten(["step", *map(_field, losses)], as_=["step", *titles])
        .transform_fold(titles, as_=["loss", "value"])
        .transform_filter(POSITIVE)
        .mark_line(strokeWidth=1.5)
        .encode(
            x=x,
            y=y,
            color=alt.Color("loss:N", scale=alt.Scale(domain=titles, range=list(COLOURS[1:5])), legend=legend),
            detail="seed:N",
            opacity=alt.value(0.7),
            tooltip=[*_run_facts(), alt.Tooltip("loss:N")],
        )
    )
    share = alt.Axis(format="%", grid=False, tickCount=5)
    accuracies = (
        alt.Chart()
        .transform_flatten(["step", "held_out_accuracy"], as_=["step", "accuracy"])
        .mark_line(strokeWidth=1.2, strokeDash=[3, 2], color="#888888")
        .encode(
            x=x,
            y=alt.Y("accuracy:Q", title="held-out accuracy", scale=alt.Scale(domain=[0, 1]), axis=share),
            detail="seed:N",
        )
    )
    chart = alt.LayerChart(layer=[lines, accuracies], data=alt.InlineData(values=rows))
    return finish(chart.resolve_scale(y="independent"), f"Losses and held-out accuracy of {arm}")


def survival(experiment: ExperimentRow, runs: Sequence[RunRow]) -> alt.LayerChart:
    """Kaplan-Meier estimate per arm of the share of runs not yet grokked, with 95 % bands.

    A tick on a curve is a censored run: it left without having grokked. Runs that have not started are left out.
    """
    budget = int(experiment.spec["budget"]["steps"])
    times = {
        arm: [time_to(run, "t_grokked", budget) for run in runs if run.arm == arm and run.status != "pending"]
        for arm in experiment.spec["arms"]
    }
    first, last = step_range(experiment, runs)
    share, description = "runs not yet grokked", "Kaplan-Meier curves: share of runs not yet grokked"
    return _kaplan_meier(times, step_axis(first, last), first, share, description)


def survival_of(groups: Mapping[str, Sequence[tuple[float, bool]]], group: str, time: str) -> alt.LayerChart:
    """Kaplan-Meier estimates of groups of (time, whether the event was seen), with 95 % bands, from time 0 on.

    `group` and `time` say what the groups and the times are.
    """
    last = max(at for times in groups.values() for at, _ in times) or 1
    x = alt.X("step:Q", title=time, scale=alt.Scale(domain=[0, last], nice=False), axis=alt.Axis(tickCount=8))
    description = f"Kaplan-Meier curves: share without the event by {time}"
    return _kaplan_meier(groups, x, 0, "share without the event", description, (group, time))


def _kaplan_meier(
    groups: Mapping[str, Sequence[tuple[float, bool]]],
    x: alt.X,
    first: float,
    share: str,
    description: str,
    titles: tuple[str, str] = ("arm", "step"),
) -> alt.LayerChart:
    """Curves from `first` on, with bands and censor ticks; `share` names the vertical axis."""
    steps: list[dict[str, Any]] = []
    ticks: list[dict[str, Any]] = []
    for arm, times in groups.items():
        if times:
            arm_steps, arm_ticks = survival_rows(arm, times, first)
            steps += arm_steps
            ticks += arm_ticks
    arms = tuple(groups)
    scale, axis = alt.Scale(domain=[0, 1]), alt.Axis(format="%", tickCount=5)
    y = alt.Y("survival:Q", title=share, scale=scale, axis=axis)
    tooltip = [
        alt.Tooltip("arm:N", title=titles[0]),
        alt.Tooltip("step:Q", title=titles[1], format=","),
        alt.Tooltip("survival:Q", format=".0%"),
    ]
    base = alt.Chart().encode(x=x, color=_colour(arms))
    band = base.mark_area(interpolate="step-after").encode(
        y=alt.Y("low:Q", title=share), y2="high:Q", opacity=_highlight(0.13)
    )
    line = base.mark_line(interpolate="step-after", strokeWidth=2).encode(y=y, opacity=_highlight(1.0), tooltip=tooltip)
    censored = (
        alt.Chart(alt.InlineData(values=ticks))
        .mark_tick(orient="vertical", thickness=2, size=11)
        .encode(x=x, y=y, color=_colour(arms), opacity=_highlight(1.0), tooltip=[*tooltip, "runs:Q"])
    )
    layers = alt.LayerChart(
        layer=[band, line.add_params(_arm_selection()), censored], data=alt.InlineData(values=steps)
    )
    return finish(layers, description)


def save(chart: alt.TopLevelMixin, path: Path | str) -> Path:
    """Write `chart` to `path` as .svg, .png (double scale), .pdf or .json (Vega-Lite), without a browser.

    Raises:
        GroklabError: the ending is none of these.
    """
    path = Path(path)
    spec = chart.to_dict()
    match path.suffix.lower():
        case ".svg":
            path.write_text(vl_convert.vegalite_to_svg(spec), encoding="utf-8")
        case ".png":
            path.write_bytes(vl_convert.vegalite_to_png(spec, scale=2))
        case ".pdf":
            path.write_bytes(vl_convert.vegalite_to_pdf(spec))
        case ".json":
            path.write_text(chart.to_json(indent=1), encoding="utf-8")
        case other:
            raise GroklabError(f"cannot save a chart as '{other}': allowed are .json, .pdf, .png, .svg")
    return path


def _train_and_held_out(curves: Curves, kind: str, y: alt.Y, keep: str = KNOWN) -> alt.Chart:
    columns: list[str | alt.FieldName] = [f"train_{kind}", f"held_out_{kind}"]
    splits = ["train", "held-out"]
    legend = alt.Legend(title=None, symbolStrokeColor="#888888", symbolType="stroke", orient="bottom")
    return (
        alt.Chart()
        .transform_flatten(["step", *columns])
        .transform_fold(columns, as_=["column", "value"])
        .transform_calculate(split=f"datum.column == '{columns[0]}' ? 'train' : 'held-out'")
        .transform_filter(keep)
        .mark_line()
        .encode(
            x=step_axis(curves.first, curves.last),
            y=y,
            color=_colour(curves.arms),
            detail="seed:N",
            strokeDash=alt.StrokeDash("split:O", scale=alt.Scale(domain=splits, range=[[4, 3], [1, 0]]), legend=legend),
            strokeWidth=alt.StrokeWidth("split:O", scale=alt.Scale(domain=splits, range=[1.1, 1.9]), legend=legend),
            opacity=_highlight(_line_opacity(curves)),
            tooltip=[*_run_facts(), alt.Tooltip("split:N")],
        )
        .add_params(_arm_selection())
    )


def _data(curves: Curves) -> alt.InlineData:
    return alt.InlineData(values=list(curves.rows))


def _arm_selection() -> alt.Parameter:
    return alt.selection_point(name="arm_selection", fields=["arm"], bind="legend")


def _highlight(opacity: float) -> Any:
    """Full opacity for the arms clicked in the legend (all of them at first), faint for the others."""
    return alt.when(_arm_selection()).then(alt.value(opacity)).otherwise(alt.value(opacity / 8))


def _colour(arms: tuple[str, ...]) -> alt.Color:
    colours = [COLOURS[i % len(COLOURS)] for i in range(len(arms))]
    columns, limit = (1, 260) if len(arms) <= 4 else (2, 140)
    legend = alt.Legend(title=None, columns=columns, labelLimit=limit, symbolType="stroke", symbolStrokeWidth=3)
    return alt.Color("arm:N", scale=alt.Scale(domain=list(arms), range=colours), legend=legend)


def step_axis(first: int, last: int) -> alt.X:
    decades = range(int(math.log10(first)), int(math.log10(last)) + 1)
    leading = (1,) if last / first > 3000 else (1, 3) if last / first > 100 else (1, 2, 5)
    ticks = [digit * 10**power for power in decades for digit in leading if first <= digit * 10**power <= last]
    return alt.X(
        "step:Q",
        title="step (log scale)",
        scale=alt.Scale(type="log", domain=[first, last], nice=False),
        axis=alt.Axis(values=ticks, format="~s") if len(ticks) > 1 else alt.Axis(format="~s"),
    )


def _loss_axis(rows: Sequence[Mapping[str, Any]], title: str, columns: Sequence[str]) -> alt.Y:
    """Ticks at powers of ten only; left to itself a log axis draws nine grid lines per decade."""
    axis = alt.Axis()
    if losses := [x for row in rows for name in columns for x in row.get(name, ()) if x and x > 0]:
        low, high = math.floor(math.log10(min(losses))), math.ceil(math.log10(max(losses)))
        axis = alt.Axis(values=[10.0**power for power in range(low, high + 1, 1 + (high - low) // 8)], format="~g")
    return alt.Y("value:Q", title=f"{title} (log scale)", scale=alt.Scale(type="log"), axis=axis)


def _run_facts() -> list[alt.Tooltip]:
    return [
        alt.Tooltip("arm:N"),
        alt.Tooltip("seed:N"),
        alt.Tooltip("status:N"),
        alt.Tooltip("t_memorised:Q", title="memorised at", format=","),
        alt.Tooltip("t_grokked:Q", title="grokked at", format=","),
    ]


def _line_opacity(curves: Curves) -> float:
    return 0.85 if len(curves.rows) <= 12 else 0.55


def _count(curves: Curves) -> str:
    return "1 run" if len(curves.rows) == 1 else f"{len(curves.rows)} runs"


def _field(name: str) -> str:
    """A column name as a Vega-Lite field: dots and brackets are not paths into the datum."""
    return name.replace("\\", "\\\\").replace(".", "\\.").replace("[", "\\[").replace("]", "\\]")


def finish(chart: alt.LayerChart, description: str) -> alt.LayerChart:
    axis = alt.AxisConfig(
        labelColor="#444444",
        titleColor="#444444",
        gridColor="#e4e4e4",
        domainColor="#888888",
        tickColor="#888888",
        titleFontWeight="normal",
        labelFontSize=11,
        titleFontSize=12,
    )
    return chart.properties(width=640, height=300, description=description).configure(
        font=FONT,
        background="white",
        view=alt.ViewConfig(stroke=None),
        axis=axis,
        legend=alt.LegendConfig(orient="top", symbolOpacity=1, labelFontSize=12, labelColor="#444444"),
    )
