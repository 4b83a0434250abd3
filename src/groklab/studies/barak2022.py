"""Hidden progress: SGD finds k of n bits in about n^(c k) steps, and moves towards them while its errors show nothing?

Barak et al. 2022 (arXiv 2207.08799), parities of k of n random signs from a stream of fresh examples, n = 10, 20, 30,
k = 2, 3, 4: each of 15 networks learns each within 1e5 steps at some learning rate of 0.001 to 1, in at least 20 % of
25 trials. No early lucky runs in a million, initial weights decide rather than the order of examples, a thousandfold
width brings no thousandfold speed, and the weights' greatest displacement tells how far the run has come. The gradient
of a majority has a Fourier gap of the order n^(-(k-1)/2). With few examples a network groks, and weight decay helps
until it kills the optimisation; the paper computes no progress measure on those runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import comb
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import binomtest, spearmanr

from groklab.studies.claims import Claim, Evidence, Finding, Time, all_hold
from groklab.studies.study import TUNING_SEEDS, Study

if TYPE_CHECKING:
    from groklab.result import Result

SIZES = [(n, k) for k in (2, 3, 4) for n in (10, 20, 30)]
RATES = (0.001, 0.01, 0.1, 1.0)
RELU = {"kind": "mlp", "width": 100, "initialisation": "xavier_uniform"}
NETS: dict[str, dict[str, Any]] = {
    "relu-10": RELU | {"width": 10},
    "relu-1000": RELU | {"width": 1000},
    "cube-100": RELU | {"activation": "cube"},
    "sine": {"kind": "single_neuron", "activation": "sine"},
    "zigzag": {"kind": "single_neuron", "activation": "infinity_zigzag"},
    "polynet": {"kind": "polynet", "k": 3},
}
WIDTHS = (10, 100, 1000)
SAMPLES, DECAYS = (200, 400, 800), (0.0, 0.01, 0.1)
STEPS, NET_STEPS = 100_000, 30_000
CHANCE = 0.55
ROUNDING = 1e-6
SOLVED = {"memorised": 0.9999, "grokked": 0.9999}  # all of 8,192: the paper's criterion


def arm(rate: float, decay: float = 0.0) -> dict[str, Any]:
    return {"loss": "hinge", "optimizer": {"kind": "sgd", "learning_rate": rate, "l2": decay}}


def setting(
    n: int, k: int, model: Mapping[str, Any], arms: Mapping[str, Any], steps: int, every: int, **more: Any
) -> dict[str, Any]:
    """A stream in batches of 32, hinge loss; a run is over soon after all of 8,192 examples are right."""
    return {
        "task": {"kind": "parity", "n": n, "k": k, "train_size": "stream", "test_size": 8192},
        "model": dict(model),
        "budget": {"steps": steps, "batch_size": 32, "evaluate_every": every},
        "definitions": SOLVED | {"stable_evaluations": 1},
        "seeds": {"count": 25, "first": TUNING_SEEDS},
        "measures": [],
        "checkpoints": [],
        "arms": dict(arms),
        **more,
    }


def sample(size: int) -> dict[str, Any]:
    """Their grokking run: width 100, hinge, batches of 32 and rate 0.1, here with 3 of 20 bits."""
    spec = setting(20, 3, RELU, {f"decay {decay:g}": arm(0.1, decay) for decay in DECAYS}, NET_STEPS, 25)
    task = spec["task"] | {"train_size": size, "test_size": 2000}
    return spec | {"task": task, "definitions": {"stable_evaluations": 5}}


def seeds(count: int, **fixed: int) -> dict[str, Any]:
    return {"seeds": {"count": count, "first": TUNING_SEEDS, **fixed}}


HIDDEN = setting(
    30,
    3,
    RELU,
    {"sgd": arm(0.1)},
    40_000,
    50,
    measures=[{"kind": "displacement", "greatest_of": "first"}],
    **seeds(60),
)
GAP = setting(  # 14 bits: by all inputs, not a sample; an even number of them counts, or the gap would start at 0
    14,
    4,
    RELU,
    {"sgd": arm(0.01)},
    40_000,
    20,
    measures=["fourier_gap"],
    seeds={"count": 25, "first": 3 * TUNING_SEEDS},
)


def source(**fixed: int) -> dict[str, Any]:
    """Batches of 128 at rate 0.01, as in their experiment on what decides, with one of the seeds held fixed."""
    spec = setting(20, 3, RELU, {"sgd": arm(0.01)}, 60_000, 100, **seeds(20, **fixed))
    return spec | {"budget": spec["budget"] | {"batch_size": 128}}


def cell(n: int, k: int) -> str:
    return f"n{n}-k{k}"


# --- what is read off whole curves, and calculated -------------------------------------------------------------------


def calculate(results: Mapping[str, Result]) -> dict[str, Any]:
    """What the hidden progress of every run was, and the Fourier gap of majorities."""
    gaps = {str(k): {str(n): float(f"{majority_gap(n, k):.5g}") for n in range(9, 102, 4)} for k in (2, 4)}
    return {"hidden": _hidden(results["hidden"]), "gap": _gaps(results["gap"]), "majority": gaps}


def _last_at_chance(curves: Mapping[str, np.ndarray]) -> int:
    """The index of the last evaluation before the first that is better than chance."""
    risen = np.flatnonzero(curves["held_out_accuracy"] > CHANCE)
    return int(risen[0] if len(risen) else len(curves["step"])) - 1


def _gaps(result: Result) -> list[dict[str, float | None]]:
    """Of each run: time, and the greatest and the mean gap of a neuron at the start and at the end of the time at
    chance."""
    found = []
    for run in result.runs:
        gap, mean, last = (
            run.curves["fourier_gap.greatest"],
            run.curves["fourier_gap.mean"],
            _last_at_chance(run.curves),
        )
        ends = (_short(gap[last]), _short(mean[last])) if last >= 4 else (None, None)
        starts = {"first": _short(gap[0]), "mean_first": _short(mean[0])}
        found.append({"time": run.t_grokked, **starts, "last": ends[0], "mean": ends[1]})
    return found


def _hidden(result: Result) -> list[dict[str, float | None]]:
    """Of each run: time, displacement at a step common to all, and at a quarter and at the end of the time at
    chance."""
    times = [run.t_grokked for run in result.runs if run.t_grokked is not None]
    common = np.median(times) / 4 if times else 0
    found = []
    for run in result.runs:
        step, moved, last = run.curves["step"], run.curves["displacement.greatest"], _last_at_chance(run.curves)
        quarter, at = int(np.searchsorted(step, step[max(last, 0)] / 4)), int(np.searchsorted(step, common))
        usable = last >= 4
        found.append(
            {
                "time": run.t_grokked,
                "common": _short(moved[at]) if 0 < at <= last else None,
                "moved_quarter": _short(moved[quarter]) if usable else None,
                "moved_last": _short(moved[last]) if usable else None,
            }
        )
    return found


def _short(value: Any) -> float | None:
    return float(f"{float(value):.5g}") if np.isfinite(value) else None


def majority_gap(n: int, k: int) -> float:
    """|coefficient of degree k - 1| - |coefficient of degree k + 1| of the majority of n bits; n odd, k even."""
    return majority_coefficient(n, k - 1) - majority_coefficient(n, k + 1)


def majority_coefficient(n: int, degree: int) -> float:
    """Its size for any set of so many bits, an odd number: O'Donnell, Analysis of Boolean Functions, theorem 5.19."""
    half = (n - 1) // 2
    return comb(half, (degree - 1) // 2) / comb(n - 1, degree - 1) * comb(n - 1, half) / 2 ** (n - 1)


# --- judges ----------------------------------------------------------------------------------------------------------


def judge_solved(found: Evidence) -> Finding:
    arms = {cell(n, k): found.arm(cell(n, k), "sgd") for n, k in SIZES}
    said = "; ".join(f"{name}: {arm.said()}" for name, arm in arms.items())
    if any(arm.reached() < 0.2 * len(arm) and arm.budget < STEPS for arm in arms.values()):
        return Finding("not comparable", said, "the runs that learned nothing are shorter than theirs")
    return all_hold({name: arm.reached() >= 0.2 * len(arm) for name, arm in arms.items()}, said)


def judge_scaling(found: Evidence) -> Finding:
    """log t = log c + a k log n over all cells, and the slope in log n of every k."""
    medians = {(n, k): found.arm(cell(n, k), "sgd").median().median for n, k in SIZES}
    known = {size: time for size, time in medians.items() if time is not None}
    slopes: dict[int, float] = {}
    for k in (2, 3, 4):
        points = [(np.log(n), np.log(time)) for (n, other), time in known.items() if other == k]
        if len(points) == 3:
            logs = np.transpose(points)
            slopes[k] = float(np.polyfit(logs[0], logs[1], 1)[0])
    if len(known) < 7 or len(slopes) < 2:
        full = found.arm(cell(*SIZES[0]), "sgd").budget >= STEPS
        said = f"{len(known)} of {len(SIZES)} sizes learned by most"
        return Finding("not reproduced" if full else "not comparable", said, "too few for a fit")
    x, y = np.array([k * np.log(n) for n, k in known]), np.log(list(known.values()))
    a, b = np.polyfit(x, y, 1)
    explained = 1 - np.var(y - a * x - b) / np.var(y)
    said = f"steps as n^({a:.2f} k), R^2 = {explained:.2f}; by k: "
    said += ", ".join(f"n^{slope:.2f} ({k})" for k, slope in slopes.items())
    conditions = {
        "c between 0.1 and 1": 0.1 <= a <= 1.0,
        "R^2 at least 0.8": explained >= 0.8,
        "exponents grow with k, by a tenth each": bool(np.all(np.diff([slopes[k] for k in sorted(slopes)]) >= 0.1)),
    }
    return all_hold(conditions, said)


def judge_nets(found: Evidence) -> Finding:
    best = {}
    for net in NETS:
        shares = {rate: _share(found, f"net-{net}", f"rate {rate:g}") for rate in RATES}
        best[net] = max((share, rate) for rate, share in shares.items())
    said = "; ".join(f"{net}: {100 * share:.0f} % at rate {rate:g}" for net, (share, rate) in best.items())
    short = found.arm("net-sine", f"rate {RATES[0]:g}").budget < NET_STEPS
    if short and min(best.values())[0] < 0.2:
        return Finding("not comparable", said, f"shorter than {NET_STEPS:,} steps")
    return all_hold({net: share >= 0.2 for net, (share, _) in best.items()}, said)


def _share(found: Evidence, experiment: str, name: str) -> float:
    of = found.arm(experiment, name)
    return of.reached() / len(of)


def judge_lucky(found: Evidence) -> Finding:
    times = [run["time"] for run in found.calculated["hidden"] if run["time"] is not None]
    total = len(found.calculated["hidden"])
    if len(times) < max(10, total / 2):
        return Finding("not comparable", f"{len(times)} of {total} runs learned", "too few to see a shortest one")
    ratio = min(times) / float(np.median(times))
    chance = 1 / (len(times) * np.log(2))
    said = f"shortest over median {ratio:.2f} of {len(times)} runs; a lottery would have about {chance:.2f}"
    return Finding("reproduced" if ratio >= 0.3 else "partly" if ratio >= 3 * chance else "not reproduced", said)


def judge_source(found: Evidence) -> Finding:
    spread = {}
    for name in ("same-start", "same-stream"):
        times, observed = found.arm(name, "sgd").times()
        if sum(observed) < max(8, 0.8 * len(observed)):
            return Finding("not comparable", found.arm(name, "sgd").said(), "too few learned for a variance")
        spread[name] = float(np.var(np.log(np.array(times)[observed]), ddof=1))
    ratio = spread["same-stream"] / max(spread["same-start"], 1e-12)
    said = f"variance of log time over initial weights is {ratio:.1f} times that over examples"
    return Finding("reproduced" if ratio >= 2 else "partly" if ratio > 1 else "not reproduced", said)


def too_few(runs: Sequence[Any], of: Sequence[Any]) -> Finding | None:
    """Runs that learned, and were at chance for a while before, have to be half of all."""
    if runs and len(runs) >= len(of) / 2:
        return None
    return Finding(
        "not comparable", f"{len(runs)} runs", "most never learned, or were at chance for too few evaluations"
    )


def judge_moves(found: Evidence) -> Finding:
    runs = [run for run in found.calculated["hidden"] if run["time"] and run["moved_quarter"] and run["moved_last"]]
    if nothing := too_few(runs, found.calculated["hidden"]):
        return nothing
    ratios = [run["moved_last"] / run["moved_quarter"] for run in runs]
    share = float(np.mean(np.array(ratios) > 2))
    p = float(binomtest(sum(ratio > 2 for ratio in ratios), len(ratios), alternative="greater").pvalue)
    said = (
        f"{100 * share:.0f} % of {len(runs)} runs moved more than twice as far by the end of the plateau as by a "
        f"quarter of it, where a random walk would in half (p = {p:.2g}); median ratio {np.median(ratios):.2f}"
    )
    return Finding("reproduced" if share >= 0.8 else "partly" if p <= 0.05 else "not reproduced", said)


def judge_predicts(found: Evidence) -> Finding:
    pairs = [(r["common"], r["time"]) for r in found.calculated["hidden"] if r["common"] is not None and r["time"]]
    if len(pairs) < 15:
        return Finding("not comparable", f"{len(pairs)} runs at chance at that step", "too few for a correlation")
    correlation, p = (float(value) for value in spearmanr(*np.transpose(pairs)))  # pyright: ignore
    said = f"rank correlation {correlation:.2f} (p = {p:.2g}) over {len(pairs)} runs"
    if correlation <= -0.3 and p < 0.01:
        return Finding("reproduced", said)
    return Finding("partly" if correlation < 0 and p < 0.05 else "not reproduced", said)


def judge_gap(found: Evidence) -> Finding:
    all_runs = found.calculated["gap"]
    runs = [run for run in all_runs if run["time"] and run["last"] is not None]
    if nothing := too_few(runs, all_runs):
        return nothing
    share = float(np.mean([run["last"] >= 1.1 * max(run["first"], ROUNDING) for run in runs]))
    first, last, mean_first, mean = (
        np.median([run[name] for run in runs]) for name in ("first", "last", "mean_first", "mean")
    )
    said = f"grown by a tenth in {100 * share:.0f} % of {len(runs)} runs, median {first:.3g} to {last:.3g}; of the "
    said += f"mean neuron {mean_first:.3g} to {mean:.3g}"
    return Finding("reproduced" if share >= 0.8 else "partly" if share >= 0.5 else "not reproduced", said)


def judge_majority(found: Evidence) -> Finding:
    slopes = {}
    for k, gaps in found.calculated["majority"].items():
        late = {int(n): gap for n, gap in gaps.items() if int(n) >= 25}
        slopes[int(k)] = float(np.polyfit(np.log(list(late)), np.log(list(late.values())), 1)[0])
    said = ", ".join(f"n^{slope:.3f} for k = {k}" for k, slope in slopes.items())
    return all_hold({f"k = {k}": abs(slope + (k - 1) / 2) <= 0.1 for k, slope in slopes.items()}, said)


def judge_width(found: Evidence) -> Finding:
    arms = {width: found.arm(f"width-{width}", "sgd") for width in WIDTHS}
    said = "; ".join(f"width {width}: {arm.said()}" for width, arm in arms.items())
    small, large = arms[100].median().median, arms[1000].median().median
    if small is None or large is None:
        return Finding("not comparable", said, "not learned by most at width 100 or 1,000")
    verdict = "reproduced" if small / large < 3 else "partly" if small / large < 10 else "not reproduced"
    return Finding(verdict, f"{small / large:.2f} times sooner at ten times the width; {said}")


def judge_grokking(found: Evidence) -> Finding:
    delays, said = {}, []
    for size in SAMPLES:
        trials = found.arm(f"sample-{size}", "decay 0.01").trials
        both = [t.t_grokked / t.t_memorised for t in trials if t.t_grokked and t.t_memorised]
        if len(both) > len(trials) / 2:
            delays[size] = float(np.median(both))
            said.append(f"{size} examples: {delays[size]:.2f} times, {len(both)} of {len(trials)} runs")
    if not delays:
        return Finding("not reproduced", "none groks")
    verdict = "reproduced" if max(delays.values()) >= 1.5 else "partly" if max(delays.values()) > 1.1 else None
    return Finding(verdict or "not reproduced", "; ".join(said))


def judge_range(found: Evidence) -> Finding:
    shares = _shares(found, "t_grokked")
    with_decay, without = sum(shares["decay 0.01"].values()), sum(shares["decay 0"].values())
    more = [size for size in SAMPLES if shares["decay 0.01"][size] > 0.5 >= shares["decay 0"][size]]
    fewer = [size for size in SAMPLES if shares["decay 0"][size] > 0.5 >= shares["decay 0.01"][size]]
    said = f"share that groks at {SAMPLES}: decay 0.01 {_said(shares['decay 0.01'])}, none {_said(shares['decay 0'])}"
    if found.arm(f"sample-{SAMPLES[0]}", "decay 0").budget < NET_STEPS:
        return Finding("not comparable", said, f"shorter than {NET_STEPS:,} steps")
    if more and not fewer:
        return Finding("reproduced", said)
    return Finding("partly" if with_decay > without else "not reproduced", said)


def judge_kills(found: Evidence) -> Finding:
    shares = _shares(found, "t_memorised")
    said = (
        f"share that memorises at {SAMPLES}: decay 0.1 {_said(shares['decay 0.1'])}, 0.01 {_said(shares['decay 0.01'])}"
    )
    conditions = {
        f"{size} examples": shares["decay 0.1"][size] <= 0.2 and shares["decay 0.01"][size] > 0.5 for size in SAMPLES
    }
    return all_hold(conditions, said)


def _shares(found: Evidence, time: Time) -> dict[str, dict[int, float]]:
    names = [f"decay {decay:g}" for decay in DECAYS]
    arms = {name: {size: found.arm(f"sample-{size}", name) for size in SAMPLES} for name in names}
    return {name: {size: arm.reached(time) / len(arm) for size, arm in of.items()} for name, of in arms.items()}


def _said(shares: Mapping[int, float]) -> str:
    return " / ".join(f"{100 * share:.0f} %" for share in shares.values())


def judge_noise(found: Evidence) -> Finding:
    return Finding(
        "not comparable", "not run", "batch size, rate and steps of that run are not in our notes of the paper"
    )


STUDY = Study(
    name="barak2022",
    title="Hidden progress: SGD on sparse parities",
    papers=("Barak et al. 2022, Hidden progress in deep learning (arXiv 2207.08799)",),
    experiments={
        **{cell(n, k): setting(n, k, RELU, {"sgd": arm(0.1)}, STEPS, 5 if k == 2 else 50) for n, k in SIZES},
        **{
            f"net-{net}": setting(20, 3, model, {f"rate {rate:g}": arm(rate) for rate in RATES}, NET_STEPS, 200)
            for net, model in NETS.items()
        },
        **{
            f"width-{width}": setting(30, 3, RELU | {"width": width}, {"sgd": arm(0.1)}, STEPS, 100) for width in WIDTHS
        },
        "hidden": HIDDEN,
        "gap": GAP,
        "same-start": source(init=TUNING_SEEDS),
        "same-stream": source(batch=TUNING_SEEDS),
        **{f"sample-{size}": sample(size) for size in SAMPLES},
    },
    quick={
        **{cell(n, k): ("seeds.count=3", "budget.steps=20000") for n, k in SIZES},
        **{f"net-{net}": ("seeds.count=2", "budget.steps=6000") for net in NETS},
        **{f"width-{width}": ("seeds.count=2", "budget.steps=15000") for width in WIDTHS},
        "hidden": ("seeds.count=16", "budget.steps=10000"),
        "gap": ("seeds.count=3", "budget.steps=10000"),
        "same-start": ("seeds.count=4", "budget.steps=10000"),
        "same-stream": ("seeds.count=4", "budget.steps=10000"),
        **{f"sample-{size}": ("seeds.count=2", "budget.steps=5000") for size in SAMPLES},
    },
    calculate=calculate,
    claims=(
        Claim(
            "solved",
            "Every parity of 2 to 4 of 10 to 30 bits is learned within 1e5 steps.",
            "section 3, figure 1",
            "at least 20 % of 25 trials at some rate",
            "width 100, ReLU, hinge, batches of 32, rate 0.1: runs of 25 with all of 8,192 examples right",
            "reproduced: at least 20 % for all nine sizes; partly: for some; otherwise not",
            judge_solved,
        ),
        Claim(
            "scaling",
            "The steps it takes grow as n^(c k), near the computational limit n^k.",
            "section 3, figure 1; the lower bounds there",
            "t at most a multiple of n^(c k), with small c",
            "least squares of the logarithm of median steps over k log n, and slopes in log n for each k",
            "reproduced: c from 0.1 to 1, R^2 >= 0.8, exponents that grow with k by 0.1 each; partly: some; else not",
            judge_scaling,
        ),
        Claim(
            "networks",
            "Narrow, wide and other networks, down to a single neuron, learn it too.",
            "section 3, list of 15 networks",
            "each in at least 20 % of 25 trials for some rate of 0.001, 0.01, 0.1, 1",
            "six of them, 3 of 20 bits, 25 seeds at each rate, 30,000 steps",
            "reproduced: all six; partly: some; otherwise not",
            judge_nets,
        ),
        Claim(
            "no-lottery",
            "There are no early lucky runs: SGD does not stumble upon the bits.",
            "section 3, figure 2",
            "none in a million trials",
            "shortest over median time of 60 runs, 3 of 30 bits; for a lottery it would be 1 / (60 ln 2)",
            "reproduced: at least 0.3; partly: at least three times a lottery's; otherwise not",
            judge_lucky,
        ),
        Claim(
            "start-decides",
            "The initial weights decide when, more than the order of examples.",
            "section 3, figure 2",
            "by eye",
            "variance of the logarithm of the time over 20 starts with one stream, against 20 streams from one start; "
            "batches of 128, rate 0.01, 3 of 20 bits",
            "reproduced: at least twice; partly: more than once; otherwise not",
            judge_source,
        ),
        Claim(
            "moves",
            "Weights move on while accuracy is at chance.",
            "section 4, appendix C.3",
            "the greatest displacement grows steadily through the plateau",
            f"greatest displacement of the first layer at the last evaluation below {CHANCE} over that at a quarter of "
            "the time, 60 runs; a random walk would give 2",
            "reproduced: more than 2 in 80 % of runs; partly: in more than half, p at most 0.05; otherwise not",
            judge_moves,
        ),
        Claim(
            "predicts",
            "What has been moved tells how long it will take.",
            "appendix C.3",
            "a progress measure predicts the time to convergence (no number)",
            "rank correlation of the greatest displacement at a quarter of the median time with the time, over "
            "those of 60 runs that were at chance then",
            "reproduced: -0.3 or less with p below 0.01; partly: negative with p below 0.05; otherwise not",
            judge_predicts,
        ),
        Claim(
            "gap-grows",
            "The Fourier gap grows while accuracy is at chance.",
            "section 4 and appendix C",
            "SGD amplifies the gap (no number)",
            f"greatest gap of a neuron, by all inputs, at the last evaluation below {CHANCE}, against the first, 25 "
            "runs on 4 of 14 bits",
            "reproduced: greater by a tenth, and beyond rounding (1e-6), in 80 % of runs; partly: in half; otherwise "
            "not",
            judge_gap,
        ),
        Claim(
            "majority",
            "The Fourier gap of the majority is of the order n^(-(k-1)/2).",
            "section 4, lemma on majorities",
            "-1/2 for k = 2, -3/2 for k = 4",
            "slope of the logarithm of the exact gap over that of n, 25 to 101; no runs",
            "reproduced: both within 0.1; partly: one; otherwise not",
            judge_majority,
        ),
        Claim(
            "width",
            "A network r times as wide is not r times as fast.",
            "section 3, figure 4",
            "none up to a width of 3e6 (40 bits)",
            "median time at width 100 over that at width 1,000, 3 of 30 bits, 25 seeds",
            "reproduced: below 3; partly: below 10; otherwise not",
            judge_width,
        ),
        Claim(
            "grokking",
            "With few examples the network groks.",
            "appendix C.5",
            "delayed generalisation at some sample sizes (the sizes stand in a figure only)",
            f"median of t_grokked / t_memorised at {SAMPLES} examples, decay 0.01, 3 of 20 bits, 25 seeds",
            "reproduced: at least 1.5 at some size at which most grok; partly: over 1.1; otherwise not",
            judge_grokking,
        ),
        Claim(
            "decay-widens",
            "Weight decay lets it generalise from fewer examples.",
            "appendix C.5",
            "a wider range of sample sizes (by eye)",
            "sample sizes at which most of 25 seeds grok within 30,000 steps, decay 0.01 against none",
            "reproduced: more sizes with decay and none lost; partly: more runs in all; otherwise not",
            judge_range,
        ),
        Claim(
            "decay-kills",
            "Too much weight decay kills the optimisation.",
            "appendix C.5",
            "large decay fails (by eye)",
            "share of runs that memorise with decay 0.1 and 0.01",
            "reproduced: at most 20 % against more than half at every sample size; partly: at some; otherwise not",
            judge_kills,
        ),
        Claim(
            "noise",
            "It learns 3 of 50 bits even with 49 % of the labels flipped.",
            "section 3",
            "width 100 converges",
            "not measured",
            "not comparable",
            judge_noise,
        ),
    ),
    deviations=(
        "One rate for all sizes, where they choose among four; 60 runs for the lottery, where they have a million.",
        "Initialisation is uniform Xavier throughout, one of their three; scales follow our reading of it.",
        "The gap includes the neuron's outgoing weight; it is followed on 14 bits, where all inputs can be taken. Its "
        "claim is in its third version, each on seeds of its own. The first asked for 0.01, the error of a sampled "
        "gradient, and more than any gradient here. The second had 3 of the bits, for which the gap starts at 0 by "
        "symmetry, so that any movement made it grow (25 of 25 runs).",
        "After the run, 'scaling' asks for exponents that differ by a tenth, where any growth was enough, and 'moves' "
        "for more than a random walk in place of half the runs; neither verdict changed.",
        "Sample sizes and decays of the grokking runs are ours, with 3 of 20 bits; theirs stand in a figure only.",
        "Widths end at 1,000; `--set width-1000:model.width=100000` goes on.",
    ),
)
