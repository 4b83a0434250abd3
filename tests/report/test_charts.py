"""Laws of the charts: each compiles to Vega, shows every run, and embeds no more points than can be seen."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import vl_convert

from groklab.errors import GroklabError
from groklab.report import charts
from groklab.report.curves import CURVES, POINTS_PER_RUN, Curves


@pytest.fixture
def curves(results) -> Curves:
    return Curves.of(results.experiment, results.runs, results.curves)


@pytest.mark.parametrize("draw", [charts.accuracy, charts.loss, charts.weight_norm])
def test_a_curve_chart_compiles_and_carries_every_run(draw, curves, results):
    spec = draw(curves).to_dict()
    vl_convert.vegalite_to_vega(spec)
    rows = spec["datasets"][spec["data"]["name"]]
    assert {(row["arm"], row["seed"]) for row in rows} == {(run.arm, run.seed) for run in results.runs}


def test_the_lines_of_all_runs_are_drawn(curves, results):
    """In the SVG every line is one path: train and held-out of each run."""
    svg = vl_convert.vegalite_to_svg(charts.accuracy(curves).to_dict())
    assert svg.count('aria-roledescription="line mark"') == 2 * len(results.runs)


def test_many_arms_get_a_panel_each_with_the_lines_of_all_their_runs(curves, results):
    svg = vl_convert.vegalite_to_svg(charts.accuracy_by_arm(curves).to_dict())
    assert svg.count('aria-roledescription="line mark"') == 2 * len(results.runs)
    assert all(f">{arm}</text>" in svg for arm in curves.arms)


def test_all_curve_charts_share_one_data_set(curves):
    specs = [draw(curves).to_dict() for draw in (charts.accuracy, charts.loss, charts.weight_norm)]
    assert len({spec["data"]["name"] for spec in specs}) == 1


def test_the_baseline_is_grey_and_the_arms_keep_their_order(curves):
    colour = charts.weight_norm(curves).to_dict()["layer"][0]["encoding"]["color"]["scale"]
    assert colour["domain"] == ["plain", "delayed-compression"]
    assert colour["range"] == list(charts.COLOURS[:2])


def test_the_kaplan_meier_chart_falls_to_the_share_that_never_grokked(results):
    chart = charts.survival(results.experiment, results.runs).to_dict()
    vl_convert.vegalite_to_vega(chart)
    rows = chart["datasets"][chart["data"]["name"]]
    last = {row["arm"]: row for row in rows}
    assert last["plain"]["survival"] == pytest.approx(1 / 3)
    assert last["delayed-compression"]["survival"] == 0
    assert all(0 <= row["low"] <= row["survival"] <= row["high"] <= 1 for row in rows)
    ticks = chart["datasets"][chart["layer"][2]["data"]["name"]]
    assert [(tick["arm"], tick["step"], tick["runs"]) for tick in ticks] == [("plain", 3000, 1)]


def test_the_step_axis_reaches_to_where_a_diverged_run_is_censored(experiment, run):
    diverged = run(seed=1, status="diverged", steps=40, t_memorised=None, t_grokked=None, t_stable=None, diverged_at=40)
    chart = charts.survival(experiment("plain"), [run(), diverged]).to_dict()
    assert chart["layer"][1]["encoding"]["x"]["scale"]["domain"] == [10, 3000]


def test_charts_of_an_experiment_that_has_just_begun_compile(experiment, run):
    going = run(status="running", steps=10, t_memorised=None, t_grokked=None, t_stable=None)
    vl_convert.vegalite_to_svg(charts.survival(experiment("plain"), [going]).to_dict())
    one = {
        name: np.array([10], np.int32 if name == "step" else np.float32) for name in ("step", *CURVES, "weight_norm")
    }
    curves = Curves.of(experiment("plain"), [going], {going.id: one})
    for draw in (charts.accuracy, charts.loss, charts.weight_norm):
        vl_convert.vegalite_to_svg(draw(curves).to_dict())


def test_thinning_keeps_the_ends_and_the_crossings(experiment, run, curve):
    long = curve(200_000, 430, 123_450)
    row = Curves.of(experiment("plain", steps=200_000), [run(steps=200_000)], {"plain-0": long}).rows[0]
    assert len(row["step"]) <= POINTS_PER_RUN + 6
    assert (row["step"][0], row["step"][-1]) == (10, 200_000)
    for column, threshold in (("train_accuracy", 0.99), ("held_out_accuracy", 0.95)):
        crossing = long["step"][np.argmax(long[column] >= threshold)]
        assert {crossing - 10, crossing, crossing + 10} <= set(row["step"])


def test_what_is_not_finite_is_embedded_as_null(experiment, run, curve):
    diverging = curve(100, 50, None)
    diverging["train_loss"][-1], diverging["weight_norm"][-1] = np.inf, np.nan
    curves = Curves.of(experiment("plain"), [run(status="diverged", steps=100)], {"plain-0": diverging})
    assert curves.rows[0]["train_loss"][-1] is None
    json.dumps(charts.loss(curves).to_dict(), allow_nan=False)
    vl_convert.vegalite_to_svg(charts.loss(curves).to_dict())


def test_a_run_without_evaluations_is_left_out(results):
    nothing = {results.runs[0].id: {"step": np.empty(0, np.int32)}}
    assert len(Curves.of(results.experiment, results.runs, results.curves | nothing).rows) == len(results.runs) - 1


def test_hostile_measure_and_arm_names_are_drawn(experiment, run, curve):
    name, column = 'a "quoted" [name] </script>', "norm.of[layer 0]'s \\ weights"
    values = curve(100, 50, None)
    values[column] = values.pop("weight_norm")
    curves = Curves.of(experiment(name), [replace(run(name), id="r", steps=100)], {"r": values})
    svg = vl_convert.vegalite_to_svg(charts.measure(curves, column, column).to_dict())
    assert svg.count('aria-roledescription="line mark"') == 1


def test_a_measured_loss_is_drawn_on_a_logarithmic_axis_and_nothing_else_is(experiment, run, curve):
    values = curve(100, 50, None)
    values["restricted_loss.test"] = np.where(values["step"] > 50, 0.0, values["held_out_loss"])  # 0 has no place on it
    curves = Curves.of(experiment("plain"), [replace(run(), id="r", steps=100)], {"r": values})
    scales = {}
    for column in ("restricted_loss.test", "weight_norm"):
        spec = charts.measure(curves, column, column).to_dict()
        vl_convert.vegalite_to_vega(spec)
        scales[column] = spec["layer"][0]["encoding"]["y"]["scale"].get("type", "linear")
    assert scales == {"restricted_loss.test": "log", "weight_norm": "linear"}


@pytest.mark.parametrize(
    ("ending", "begins"), [("svg", b"<svg"), ("png", b"\x89PNG"), ("pdf", b"%PDF"), ("json", b"{")]
)
def test_a_chart_saves_in_every_format(curves, tmp_path, ending, begins):
    assert charts.save(charts.weight_norm(curves), tmp_path / f"norm.{ending}").read_bytes().startswith(begins)


def test_measures_taken_seldom_keep_their_points(experiment, run, curve):
    values = curve(60_000, 500, None)
    rare = np.where(values["step"] % 7000 == 0, 1.0, np.nan)
    assert np.isfinite(rare[1:]).sum() == 8
    curves = Curves.of(
        experiment("rare"), [replace(run("plain"), id="r", steps=60_000)], {"r": values | {"rare": rare}}
    )
    kept = [value for value in curves.rows[0]["rare"] if value is not None]
    assert len(kept) == 8


def test_progress_draws_four_losses_and_the_accuracy_of_every_run_of_an_arm(experiment, run, curve):
    values = curve(300, 50, None)
    fourier = dict.fromkeys(("restricted_loss.heldout", "excluded_loss.train"), values["held_out_loss"])
    runs = [replace(run("plain", seed=seed), id=f"r{seed}", steps=300) for seed in range(2)]
    curves = Curves.of(experiment("plain"), runs, {r.id: values | fourier for r in runs})
    svg = vl_convert.vegalite_to_svg(charts.progress(curves, "plain").to_dict())
    assert svg.count('aria-roledescription="line mark"') == 2 * (4 + 1)


def test_an_unknown_format_is_refused_with_the_known_ones(curves, tmp_path):
    with pytest.raises(GroklabError, match=r"'\.jpeg': allowed are \.json, \.pdf, \.png, \.svg"):
        charts.save(charts.weight_norm(curves), tmp_path / "norm.jpeg")
