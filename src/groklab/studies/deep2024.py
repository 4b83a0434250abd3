"""Deep grokking: do deeper networks grok MNIST more readily, in two stages, as the ranks of their features fall?

Fan, Pascanu & Jaggi 2024 (arXiv 2405.19454): perceptrons of width 400 and depth 4, 8 and 12 on 2,000, 5,000 and 7,000
images, weights eight times too large, squared error, "Adam" at 1e-3 with decay 0.01, 100,000 steps. Four pages without
code, seeds, batch size or spread. With 5,000 images deeper networks learn and generalise later; with 7,000 those of
depth 8 and 12 do so in two surges, that of depth 4 without grokking; feature ranks fall when accuracy rises, and the
norm of the weights tells nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from groklab.studies.claims import (
    Arm,
    Claim,
    Evidence,
    Finding,
    Time,
    Verdict,
    above_one,
    all_beyond_chance,
    all_hold,
    compared,
    ratio_said,
    too_short,
)
from groklab.studies.study import TUNING_SEEDS, Study

if TYPE_CHECKING:
    from groklab.result import Result, Run

DEPTHS, IMAGES = (4, 8, 12), (5000, 7000)
STEPS = 60_000
WINDOWS = 20  # into which a run is divided to look for surges
RISING, FLAT, SURGE = 0.03, 0.01, 0.1  # gain of accuracy in a window, in a window, in a surge
TUNNEL = {5000: {4: 1, 8: 3, 12: 6}, 7000: {4: 1, 8: 5, 12: 6}}
LOW_RANK = 300


def setting(depth: int, images: int) -> dict[str, Any]:
    """Its network, where a depth counts the weight matrices; batches of 200 as in Omnigrok, which it follows."""
    return {
        "task": {"kind": "mnist", "train_size": images, "test_size": 2000},
        "model": {"kind": "mlp", "layers": depth - 1, "width": 400, "init_scale": 8.0},
        "budget": {"steps": STEPS, "batch_size": 200, "evaluate_every": 500, "stop": "never"},
        "definitions": {"grokked": 0.85},
        "seeds": {"count": 5, "first": TUNING_SEEDS},
        "checkpoints": [],
        "measures": [
            {"kind": "weight_norm"},
            {"kind": "rank", "every": 2000, "examples": 1024},
            {"kind": "linear_probes", "every": 2000},
        ],
        "arms": {
            "adamw": {
                "loss": "mean_squared_error",
                "optimizer": {"kind": "adamw", "weight_decay": 0.01, "beta2": 0.999},
                "schedule": {"kind": "constant", "warmup_steps": 0},
            }
        },
    }


def name_of(depth: int, images: int) -> str:
    return f"depth-{depth}-{images}"


def calculate(results: Mapping[str, Result]) -> dict[str, Any]:
    """What is read off the ranks, probes and accuracies of each run, by experiment and seed."""
    return {
        name: {str(run.row.seed): facts(run) for run in result.runs if len(run.curves.get("step", ())) > 1}
        for name, result in results.items()
    }


def facts(run: Run) -> dict[str, Any]:
    curves = run.curves
    step, held_out = curves["step"], curves["held_out_accuracy"]
    ranks = layers(curves, "feature_rank.")
    probes = layers(curves, "linear_probes.")
    measured = np.isfinite(ranks[0]) & np.isfinite(probes[0])
    at, rank, probe = step[measured], ranks.mean(axis=0)[measured], probes.mean(axis=0)[measured]
    memorised = run.row.t_memorised
    found = {
        "when_memorised": None if memorised is None else held_out[step >= memorised][0],
        "half_risen": half_done(step, held_out),
        "half_fallen": half_done(at, -rank),
        "rank_start": rank.max(),
        "rank_end": rank[-1],
        "probe_start": probe[0],
        "probe_end": probe[-1],
        "probes_half_risen": half_done(at, probe),
        "surges": surges(step, held_out),
        "tunnel": int(np.sum(ranks[:, measured][:, -1] < LOW_RANK)),
        "rank_rises_again": rises_again(rank),
    }
    return {key: value if value is None else float(f"{float(value):.4g}") for key, value in found.items()}


def layers(curves: Mapping[str, np.ndarray], prefix: str) -> np.ndarray:
    """[L, E] the columns of the layers, which are numbered."""
    names = [name for name in curves if name.startswith(prefix) and name.removeprefix(prefix).isdigit()]
    return np.stack([curves[name] for name in names])


def half_done(step: np.ndarray, values: np.ndarray) -> float:
    """The first step from which on a rising quantity stays in the upper half between its least and its final value."""
    least = int(np.argmin(values))
    below = np.flatnonzero(values[least:] < (values[least] + values[-1]) / 2)
    return float(step[min(least + (below[-1] + 1 if len(below) else 0), len(step) - 1)])


def surges(step: np.ndarray, accuracy: np.ndarray) -> int:
    """How often accuracy rises by a tenth, with a flat window between one such rise and the next.

    Of 20 equal windows one is rising if it gains 0.03, and flat if it gains at most 0.01. What only makes up for an
    earlier loss is no gain.
    """
    smooth = np.median(np.lib.stride_tricks.sliding_window_view(np.pad(accuracy, 1, mode="edge"), 3), axis=1)
    ends = np.maximum.accumulate(np.interp(np.linspace(0, step[-1], WINDOWS + 1), step, smooth))
    count, gained, flat = 0, 0.0, True
    for gain in np.diff(ends):
        if gain <= FLAT:
            gained, flat = 0.0, True
        elif gain >= RISING:
            gained += gain
        if flat and gained >= SURGE:
            count, flat = count + 1, False
    return count


def rises_again(rank: np.ndarray) -> bool:
    """Whether a fall, a rise and another fall follow each other, each by 5 % at least."""
    wanted, turn = -1, rank[0]  # the direction of the movement waited for; the extreme since the last one
    done = 0
    for value in rank:
        if wanted * (value - turn) >= 0.05 * abs(turn):
            done, wanted, turn = done + 1, -wanted, value
        elif wanted * (value - turn) < 0:
            turn = value
    return done >= 3


# --- judges ----------------------------------------------------------------------------------------------------------


def arm_of(found: Evidence, depth: int, images: int) -> Arm:
    return found.arm(name_of(depth, images), "adamw")


def runs_of(found: Evidence, depth: int, images: int) -> list[Mapping[str, Any]]:
    return list(found.calculated.get(name_of(depth, images), {}).values())


def shorter(arms: list[Arm]) -> Finding | None:
    """A cut budget says nothing of what happens late."""
    return too_short(min(arms, key=lambda arm: arm.budget), STEPS, "; ".join(arm.said() for arm in arms))


def judge_later(found: Evidence) -> Finding:
    arms = {depth: arm_of(found, depth, 5000) for depth in DEPTHS}
    if nothing := shorter(list(arms.values())):
        return nothing
    conditions, said, unseen = {}, [], []
    times: dict[Time, str] = {"t_memorised": "memorises", "t_grokked": "generalises"}
    for time, word in times.items():
        for deep, shallow in ((8, 4), (12, 8)):
            ratio = compared(arms[deep], arms[shallow], time)
            conditions[f"depth {deep} {word} later than {shallow}"] = above_one, ratio
            said.append(f"depth {deep} to {shallow}, {word}: {ratio_said(ratio)}")
            if all(2 * arms[depth].reached(time) <= len(arms[depth]) for depth in (deep, shallow)):
                unseen.append(f"at neither depth {deep} nor {shallow} most runs have got there ({time})")
    if unseen:
        return Finding("not comparable", "; ".join(said), "; ".join(unseen))
    return all_beyond_chance(conditions, "; ".join(said))


def grokking_share(found: Evidence, depth: int, images: int) -> float:
    """Share of the runs that grok: when they memorise, they are less than halfway from chance to the threshold."""
    arm, about = arm_of(found, depth, images), found.calculated.get(name_of(depth, images), {})
    groks = [
        trial.t_grokked is not None
        and trial.t_memorised is not None
        and about[str(trial.seed)]["when_memorised"] < (0.1 + 0.85) / 2
        for trial in arm.trials
    ]
    return float(np.mean(groks))


def judge_readily(found: Evidence) -> Finding:
    arms = [arm_of(found, depth, 7000) for depth in DEPTHS]
    if nothing := shorter(arms):
        return nothing
    shares = {depth: grokking_share(found, depth, 7000) for depth in DEPTHS}
    said = "grokking: " + ", ".join(f"{share:.0%} at depth {depth}" for depth, share in shares.items())
    said += "; " + "; ".join(f"depth {depth}: {arm.said()}" for depth, arm in zip(DEPTHS, arms, strict=True))
    if min(shares[8], shares[12]) >= 0.8 and shares[4] <= 0.2:
        return Finding("reproduced", said)
    return Finding("partly" if min(shares[8], shares[12]) > shares[4] else "not reproduced", said)


def judge_rank(found: Evidence) -> Finding:
    arm, runs = arm_of(found, 12, 5000), runs_of(found, 12, 5000)
    if nothing := shorter([arm]):
        return nothing
    if 2 * arm.reached() <= len(arm):
        return Finding("not comparable", arm.said(), "most runs have not generalised within this budget")
    left = np.array([run["rank_end"] / run["rank_start"] for run in runs])
    when = np.array([run["half_fallen"] / max(run["half_risen"], 1) for run in runs])
    said = f"mean feature rank falls to {np.median(left):.2f} of its greatest (median of {len(runs)}); half of it at "
    said += f"{np.median(when):.2f} ({when.min():.2f} to {when.max():.2f}) of the steps to half the rise of accuracy"
    return all_hold(
        {
            "it falls by a fifth": float(np.mean(left <= 0.8)) >= 0.8,
            "when accuracy rises": float(np.mean((when >= 2 / 3) & (when <= 1.5))) >= 0.8,
        },
        said,
    )


def judge_probes(found: Evidence) -> Finding:
    arm, runs = arm_of(found, 12, 5000), runs_of(found, 12, 5000)
    if nothing := shorter([arm]):
        return nothing
    if 2 * arm.reached() <= len(arm):
        return Finding("not comparable", arm.said(), "most runs have not generalised within this budget")
    gain = np.array([run["probe_end"] - run["probe_start"] for run in runs])
    when = np.array([run["probes_half_risen"] / max(run["half_risen"], 1) for run in runs])
    said = f"mean probe accuracy gains {np.median(gain):.2f} (median of {len(runs)}); half of it at "
    said += f"{np.median(when):.2f} ({when.min():.2f} to {when.max():.2f}) of the steps to half the rise of accuracy"
    return all_hold(
        {
            "probes gain 0.1": float(np.mean(gain >= 0.1)) >= 0.8,
            "when accuracy rises": float(np.mean((when >= 2 / 3) & (when <= 1.5))) >= 0.8,
        },
        said,
    )


def judge_stages(found: Evidence) -> Finding:
    if nothing := shorter([arm_of(found, depth, 7000) for depth in DEPTHS]):
        return nothing
    counts = {depth: [int(run["surges"]) for run in runs_of(found, depth, 7000)] for depth in DEPTHS}
    said = "surges: " + "; ".join(f"depth {depth}: {', '.join(map(str, each))}" for depth, each in counts.items())
    shares = {depth: float(np.mean([count >= 2 for count in each])) for depth, each in counts.items()}
    return all_hold(
        {
            "two at depth 8": shares[8] >= 0.8,
            "two at depth 12": shares[12] >= 0.8,
            "not at depth 4": shares[4] <= 0.2 < max(shares.values()),
        },
        said,
    )


def judge_rank_stages(found: Evidence) -> Finding:
    if nothing := shorter([arm_of(found, depth, 7000) for depth in DEPTHS]):
        return nothing
    shares = {
        depth: float(
            np.mean([bool(run["rank_rises_again"]) and run["surges"] >= 2 for run in runs_of(found, depth, 7000)])
        )
        for depth in (8, 12)
    }
    said = "two surges, and fall, rise and fall of the mean rank: "
    said += ", ".join(f"{share:.0%} at depth {depth}" for depth, share in shares.items())
    return all_hold({f"80 % of runs at depth {depth}": share >= 0.8 for depth, share in shares.items()}, said)


def judge_norm(found: Evidence) -> Finding:
    few, many = arm_of(found, 12, 5000), arm_of(found, 12, 7000)
    if nothing := shorter([few, many]):
        return nothing
    if 2 * min(few.reached(), many.reached()) <= len(few):
        said = f"5,000: {few.said()}; 7,000: {many.said()}"
        return Finding("not comparable", said, "most runs have not generalised within this budget")
    pairs = [(a, b) for a in few.trials for b in many.trials if a.seed == b.seed and a.steps == b.steps]
    if not pairs:
        return Finding("not comparable", "", "of each pair a run diverged")
    apart = max(float(np.nanmax(np.abs(a.curve("weight_norm") / b.curve("weight_norm") - 1))) for a, b in pairs)
    ratio = compared(few, many)
    said = f"norms at most {apart:.1%} apart; steps to generalise, 5,000 to 7,000 images: {ratio_said(ratio)}"
    differ = ratio.median is not None and not 1 / 1.25 <= ratio.median <= 1.25
    nearly: Verdict = "partly" if apart <= 0.1 and differ else "not reproduced"
    return Finding("reproduced" if apart <= 0.05 and differ else nearly, said)


def judge_tunnel(found: Evidence) -> Finding:
    if nothing := shorter([arm_of(found, depth, images) for images in IMAGES for depth in DEPTHS]):
        return nothing
    middles = {
        (depth, images): float(np.median([run["tunnel"] for run in runs_of(found, depth, images)]))
        for images in IMAGES
        for depth in DEPTHS
    }
    said = "; ".join(f"depth {depth}, {images:,}: {middle:g}" for (depth, images), middle in middles.items())
    return all_hold(
        {
            f"{depth} with {images:,}: {TUNNEL[images][depth]} +- 1": abs(middle - TUNNEL[images][depth]) <= 1
            for (depth, images), middle in middles.items()
            if depth > 4
        },
        said,
    )


def judge_decay(found: Evidence) -> Finding:
    return Finding("not comparable", "not run", "the depth that this was found at is not known to us")


STUDY = Study(
    name="deep2024",
    title="Deep grokking: depth, ranks and stages",
    papers=("Fan, Pascanu & Jaggi 2024, Deep Grokking (arXiv 2405.19454)",),
    experiments={name_of(depth, images): setting(depth, images) for images in IMAGES for depth in DEPTHS},
    quick={"*": ("seeds.count=1", "budget.steps=6000")},
    curves=("weight_norm",),
    calculate=calculate,
    claims=(
        Claim(
            "later",
            "With 5,000 images, deeper networks memorise and generalise later.",
            "results on depth",
            "later at depth 12 than at 8, and at 8 than at 4; one run each",
            "paired ratios of the steps to train accuracy 0.99 and to held-out accuracy 0.85, 5 seeds; where only one "
            "of a pair gets there, the other counts with the budget",
            "reproduced: the whole interval above 1 for both times and both steps of depth; partly: for some, or with "
            "fewer than five pairs, which have no interval of 90 %, all pairs above 1; otherwise not; not comparable: "
            "at some step of depth, most runs of neither have got there",
            judge_later,
        ),
        Claim(
            "readily",
            "Deep networks grok where shallow ones do not.",
            "abstract; results with 7,000 images",
            "depth 8 and 12 grok, depth 4 does not; one run each",
            "share of 5 seeds that reach 0.85 held out and were below 0.475 when they memorised (0.99)",
            "reproduced: at least 80 % at depth 8 and 12, at most 20 % at depth 4; partly: more at both than at 4; "
            "otherwise not",
            judge_readily,
        ),
        Claim(
            "rank",
            "The ranks of the features fall when the network generalises.",
            "abstract; results on feature rank",
            "ranks drop exactly when test accuracy rises",
            "mean over layers of the rank of the features' covariance, every 2,000 steps, depth 12, 5,000 images, 5 "
            "seeds: its final share of its maximum, and when half the fall is done against half the rise of accuracy",
            "reproduced: in 80 % of runs at most 0.8, and in 80 % at 2/3 to 1.5 times the steps; partly: one; not: "
            "neither; not comparable: most runs have not generalised",
            judge_rank,
        ),
        Claim(
            "probes",
            "Linear probes of the layers improve with the network's generalisation.",
            "results on linear probes",
            "probes of all layers rise with test accuracy",
            "mean held-out accuracy of ridge regressions on each layer, likewise",
            "reproduced: in 80 % of runs 0.1 gained, and in 80 % half of it at 2/3 to 1.5 times the steps; partly: "
            "one; not: neither; not comparable: most runs have not generalised",
            judge_probes,
        ),
        Claim(
            "stages",
            "Deep networks generalise in two stages.",
            "abstract; results with 7,000 images",
            "two surges at depth 8 and 12, none such at depth 4; one run each",
            "surges of held-out accuracy, each a gain of 0.1, with a flat twentieth of the run between them, 5 seeds",
            "reproduced: two or more in 80 % of runs at depth 8 and at 12, in at most 20 % at depth 4; partly: some of "
            "it; not: none",
            judge_stages,
        ),
        Claim(
            "rank-stages",
            "In two-stage generalisation, ranks fall, rise with the first surge and fall again with the second.",
            "results with 7,000 images",
            "so at depth 8 and 12",
            "share of 5 seeds with two surges in which the mean rank falls, rises and falls again by 5 % each; whether "
            "each rise is at a surge is not looked at",
            "reproduced: 80 % at both depths; partly: at one; not: at none",
            judge_rank_stages,
        ),
        Claim(
            "norm",
            "The norm of the weights does not tell when a network generalises.",
            "results on weight norms",
            "trajectories for different numbers of images overlap",
            "greatest relative distance of the norms at about 40 steps, spread over the logarithm of the step, 5,000 "
            "to 7,000 images at depth 12, and the paired ratio of their steps to generalise",
            "reproduced: norms within 5 % at all of them, and median ratio outside 0.8 to 1.25; partly: within 10 %, "
            "and the ratio outside; otherwise not; not comparable: most runs of either have not generalised",
            judge_norm,
        ),
        Claim(
            "tunnel",
            "The last layers are a tunnel of low rank, the longer the deeper the network.",
            "table of tunnel lengths",
            "layers with rank below 300: 1, 3, 6 with 5,000 images, 1, 5, 6 with 7,000 at depth 4, 8, 12",
            "number of hidden layers whose features, of 1,024 examples (theirs is not said), have a rank below 300 in "
            "the end; the output layer is not counted. At depth 4, with three hidden layers, nearly any number is "
            "within 1 of the published one: it is said, but not judged",
            "reproduced: medians within 1 of all four at depth 8 and 12; partly: of some; not: of none",
            judge_tunnel,
        ),
        Claim(
            "decay",
            "More decay turns late into two-stage generalisation, less prevents it.",
            "results on weight decay",
            "2,000 images: none at 0.005, grokking at 0.01, two stages at 0.05; 5,000: prompt, grokking, two stages",
            "not run",
            "not comparable: the depth is not known to us",
            judge_decay,
        ),
    ),
    deviations=(
        "60,000 of 100,000 steps; surges later than that are missed: `--set '*:budget.steps=100000'`.",
        "Batches of 200, decoupled decay (AdamW), PyTorch's betas and no warm-up, as in Omnigrok, which the paper "
        "follows; it says none of it. Depth is taken to count weight matrices, which it does not say.",
        "Probes are ridge regressions; the paper trains them for a number of steps that it does not state.",
        "Held out are 2,000 images, to keep evaluations cheap. What counts as grokking and as a surge is ours: the "
        "paper shows curves.",
        "2,000 images are not repeated.",
        "What fewer than five pairs can say of times was written down after the first runs, of one or two pairs.",
    ),
)
