"""Deep networks always grok: robustness comes late, and regions of linearity leave the examples when it does.

Humayun, Balestriero and Baraniuk 2024 (arXiv 2402.15555, code AhmedImtiazPrio/grok-adversarial). An MLP of depth 4
(three hidden layers in the code) and width 200 on 1,000 MNIST images, of the usual initial size, becomes robust against
PGD only at about 10,000 steps, long after it fits them. The local complexity around training examples falls, rises
until they are fitted, and falls again before robustness comes; weights eight times too large leave out the first
descent. Batch norm removes or delays it. Their curves are single runs with Adam. CIFAR-10 is not run here: its files
are no part of this laboratory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from groklab.studies.claims import Claim, Evidence, Finding, all_hold, most, shorter, spread
from groklab.studies.study import Study

if TYPE_CHECKING:
    from groklab.result import Result, Run

RADIUS = "robust_accuracy.linf.0_06"
NEAR = "local_complexity.train"
CHANGE = 0.2  # the least relative change of the complexity that counts as a phase
STEPS, CONVOLVED_STEPS = 60_000, 10_000
NORMS = ("plain", "batch-norm")
FIRST_SEED = 200  # seed 100 was seen when the radius and CHANGE were chosen


def measures(every: int, robust: bool = True) -> list[dict[str, Any]]:
    """Complexity with the least radius of the code for MNIST, at a quarter of the points; three radii of attacks."""
    complexity = {"kind": "local_complexity", "samples": 256, "radius": 0.05, "every": every}
    attack = {"kind": "robustness", "samples": 500, "radii": [0.03, 0.06, 0.1], "random_start": False, "every": every}
    return [{"kind": "weight_norm", "every": every}, complexity, *([attack] if robust else [])]


def images(model: Mapping[str, Any], arms: Mapping[str, Any], steps: int, every: int, **more: Any) -> dict[str, Any]:
    """1,000 MNIST images, drawn with replacement as in the code."""
    return {
        "task": {"kind": "mnist", "train_size": 1000, "test_size": 2000, "order": "random_with_replacement"},
        "model": dict(model),
        "budget": {"steps": steps, "batch_size": 200, "evaluate_every": every, "stop": "never"},
        "definitions": {"grokked": 0.85},
        "seeds": {"count": 5, "first": FIRST_SEED},
        "checkpoints": [],
        "arms": {name: {"loss": "mean_squared_error"} | arm for name, arm in arms.items()},
    } | more


def adamw(decay: float, *methods: Any) -> dict[str, Any]:
    """PyTorch's defaults, without warm-up, as in the code."""
    return {
        "optimizer": {"kind": "adamw", "weight_decay": decay, "beta2": 0.999},
        "schedule": {"kind": "constant", "warmup_steps": 0},
        "methods": list(methods),
    }


MLP = {"kind": "mlp", "layers": 3, "width": 200}
ARMS = {"usual": adamw(0.01), "large": adamw(0.01, {"kind": "initial_scale", "scale": 8.0})}


def convolved(batch_norm: bool) -> dict[str, Any]:
    """Five convolutions and two linear layers, small and strided, on the same images; cross-entropy as in the code."""
    model = {
        "kind": "convnet",
        "channels": [8, 16, 16, 32, 32],
        "halving": "stride",
        "halve_every": 1,
        "dense": [64],
        "batch_norm": batch_norm,
    }
    measured = [each for each in measures(500) if each["kind"] == "robustness"]
    arms = {"adam": {"loss": "cross_entropy"} | adamw(0.0)}
    return images(model, arms, CONVOLVED_STEPS, 250, measures=measured)


def calculate(results: Mapping[str, Result]) -> dict[str, Any]:
    """What the whole curves say of each run: the phases of its complexity, and when robustness came."""
    early, late = results["early"], results["late"]
    begun = {(run.arm, run.seed): run for run in early.runs}
    complexity = {arm: [phases(begun.get((arm, run.seed)), run) for run in late.runs if run.arm == arm] for arm in ARMS}
    robust = {
        name: {arm: [robustness(run) for run in results[name].runs if run.arm == arm] for arm in arms}
        for name, arms in (("late", (*ARMS, "no decay")), *((name, ("adam",)) for name in NORMS))
    }
    return {"phases": complexity, "robustness": robust}


def known(run: Run, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values where the column was measured."""
    values = run.curves[column]
    seen = np.isfinite(values)
    return run.curves["step"][seen], values[seen]


def joined(early: Run | None, late: Run, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of a run, and of the same run's beginning where it was measured more often."""
    step, values = known(late, column)
    if early is None:
        return step, values
    first, dense = known(early, column)
    later = step > first[-1]
    return np.concatenate([first, step[later]]), np.concatenate([dense, values[later]])


def phases(early: Run | None, late: Run) -> dict[str, Any]:
    """Local complexity at the start, its dip before the peak, its peak, its end; and the half of its last descent."""
    step, values = joined(early, late, NEAR)
    at_random = joined(early, late, "local_complexity.random")
    rises = values - np.minimum.accumulate(values)
    peak = int(np.argmax(rises))  # of the greatest rise above what came before
    half = (values[peak] + values[peak:].min()) / 2
    return {
        "start": float(f"{values[0]:.4g}"),
        "dip": float(f"{values[: peak + 1].min():.4g}"),
        "peak": float(f"{values[peak]:.4g}"),
        "peak_step": int(step[peak]),
        "end": float(f"{values[-1]:.4g}"),
        "half_step": int(step[peak + np.argmax(values[peak:] <= half)]),
        "random_end_by_peak": float(f"{at_random[1][-1] / max(np.interp(step[peak], *at_random), 1e-9):.4g}"),
    }


def robustness(run: Run) -> dict[str, Any]:
    """The gain in accuracy under attack from its first measurement after fitting, and when half of it is there."""
    step, values = known(run, RADIUS)
    fitted, gain, half = run.t_memorised, None, None
    if fitted is not None and (step >= fitted).any():
        later, reached = step[step >= fitted], values[step >= fitted]
        at, best = float(reached[0]), float(reached.max())
        gain = float(f"{best - at:.4g}")
        half = int(later[np.argmax(reached >= (at + best) / 2)]) if best > at else None
    clean_step, clean = run.curves["step"], run.curves["held_out_accuracy"]
    return {
        "fitted": fitted,
        "gain": gain,
        "half_step": half,
        "last": float(f"{values[-1]:.4g}"),
        "clean": float(f"{clean[-1]:.4g}"),
        "clean_step": int(clean_step[np.argmax(clean >= 0.95 * clean.max())]),
    }


def dips(runs: list[dict[str, Any]]) -> np.ndarray:
    """[n] the first descent as a share of the initial complexity."""
    return np.array([1 - run["dip"] / max(run["start"], 1e-9) for run in runs])


def rises(runs: list[dict[str, Any]]) -> np.ndarray:
    """[n] the ascent as a share of the dip before it."""
    return np.array([run["peak"] / max(run["dip"], 1e-9) - 1 for run in runs])


def falls(runs: list[dict[str, Any]]) -> np.ndarray:
    """[n] the fall to the end as a share of the peak."""
    return np.array([1 - run["end"] / max(run["peak"], 1e-9) for run in runs])


def descended(runs: list[dict[str, Any]]) -> np.ndarray:
    """[n] whether there was a second descent, which is one after an ascent."""
    return (rises(runs) >= CHANGE) & (falls(runs) >= CHANGE)


def judge_phases(found: Evidence) -> Finding:
    if short := shorter(found, "late", STEPS):
        return short
    runs = found.calculated["phases"]["usual"]
    rise, fall = rises(runs), falls(runs)
    return all_hold(
        {
            "descent": most(dips(runs) >= CHANGE),
            "ascent": most(rise >= CHANGE),
            "second descent": most(descended(runs)),
        },
        f"first descent {spread(dips(runs))} of the start, ascent {spread(rise)} of the dip, second descent "
        f"{spread(fall)} of the peak, which is at step {spread([run['peak_step'] for run in runs], 0)}; images fitted "
        f"at {spread([run['fitted'] for run in found.calculated['robustness']['late']['usual']], 0)}",
    )


def judge_large(found: Evidence) -> Finding:
    if short := shorter(found, "late", STEPS):
        return short
    usual, large = (dips(found.calculated["phases"][name]) for name in ARMS)
    up = rises(found.calculated["phases"]["large"])
    return all_hold(
        {
            "none with large weights": most((large < CHANGE) & (up >= CHANGE)),
            "one with usual weights": most(usual >= CHANGE),
        },
        f"first descent {spread(large)} of the start with large weights, before an ascent of {spread(up)}; "
        f"{spread(usual)} with usual ones",
    )


def judge_random(found: Evidence) -> Finding:
    if short := shorter(found, "late", STEPS):
        return short
    runs = found.calculated["phases"]["usual"]
    left = np.array([run["random_end_by_peak"] for run in runs])
    said = f"{spread(left)} times that at the peak"
    if not most(descended(runs)):
        return Finding("not comparable", said, "around training images there is no second descent")
    return all_hold({"falls there too": most(left <= 1 - CHANGE)}, said)


def judge_robust(found: Evidence) -> Finding:
    if short := shorter(found, "late", STEPS):
        return short
    runs = found.calculated["robustness"]["late"]["usual"]
    late = [run for run in runs if run["gain"] is not None and run["gain"] >= 0.1]
    halves = [run["half_step"] for run in late]
    behind = [run["half_step"] >= 2 * run["fitted"] for run in late]
    return all_hold(
        {
            "a gain of 0.1 after fitting": len(late) >= 0.8 * len(runs),
            "half of it at twice the steps of fitting or later": sum(behind) >= 0.8 * len(runs),
            "half of it between 3,333 and 30,000 steps": bool(halves) and 10_000 / 3 <= np.median(halves) <= 30_000,
        },
        f"gain {spread([run['gain'] for run in runs])} after fitting at step "
        f"{spread([run['fitted'] for run in runs], 0)}, half of it at {spread(halves, 0)}; generalised at "
        f"{spread([run['clean_step'] for run in runs], 0)}; at the end {spread([run['last'] for run in runs])} under "
        f"attack, {spread([run['clean'] for run in runs])} without",
    )


def judge_before(found: Evidence) -> Finding:
    if short := shorter(found, "late", STEPS):
        return short
    runs, robust = found.calculated["phases"]["usual"], found.calculated["robustness"]["late"]["usual"]
    ratios = [
        p["half_step"] / r["half_step"]
        for p, r, fell in zip(runs, robust, descended(runs), strict=True)
        if fell and r["half_step"] and r["gain"] >= 0.1
    ]
    if len(ratios) < 3:
        said = f"{len(ratios)} runs had a second descent and became robust late"
        return Finding("not comparable", said, "it takes three runs that have both")
    ratio = float(np.median(ratios))
    verdict = "reproduced" if most(np.array(ratios) <= 1) else "partly" if ratio <= 1.5 else "not reproduced"
    return Finding(verdict, f"half of the second descent at {spread(ratios)} times the steps of half of the robustness")


def judge_decay(found: Evidence) -> Finding:
    if short := shorter(found, "late", STEPS):
        return short
    usual, none = (found.calculated["robustness"]["late"][name] for name in ("usual", "no decay"))
    gains = [run["gain"] for run in none]
    late = [gain is not None and gain >= 0.1 for gain in gains]
    verdict = "reproduced" if most(late) else "partly" if np.mean(late) >= 0.4 else "not reproduced"
    return Finding(verdict, f"gain {spread(gains)} without decay, {spread([run['gain'] for run in usual])} with 0.01")


def judge_batch_norm(found: Evidence) -> Finding:
    if short := shorter(found, "plain", CONVOLVED_STEPS):
        return short
    plain, normed = ([run["gain"] for run in found.calculated["robustness"][name]["adam"]] for name in NORMS)
    measured = f"gain after fitting {spread(plain)} without batch norm, {spread(normed)} with it"
    if None in (*plain, *normed):
        return Finding("not comparable", measured, "some networks never fitted the images")
    gains, left = np.array(plain), np.array(normed)
    if not most(gains >= 0.1):
        return Finding("not comparable", measured, "there is no late robustness without batch norm to remove")
    verdict = "reproduced" if most(left <= gains / 3) else "partly" if np.median(left) < 0.1 else "not reproduced"
    return Finding(verdict, measured)


def judge_cifar(found: Evidence) -> Finding:
    return Finding(
        "not comparable",
        "",
        "its files are not here and a run takes days on a CPU; with both, `groklab run FILE.toml` of task cifar10 "
        "(train_size 50000), model resnet18 (width 16, norm none) or convnet, adam at 1e-3, batch 256, 500,000 steps, "
        "measures local_complexity and robustness",
    )


STUDY = Study(
    name="always2024",
    title="Deep networks always grok: late robustness",
    papers=(
        "Humayun, Balestriero and Baraniuk 2024, Deep networks always grok and here is why (arXiv 2402.15555)",
        "code: AhmedImtiazPrio/grok-adversarial",
    ),
    experiments={
        "early": images(MLP, ARMS, 1000, 25, measures=measures(25, robust=False)),
        "late": images(MLP, ARMS | {"no decay": adamw(0.0)}, STEPS, 200, measures=measures(1000)),
        "plain": convolved(False),
        "batch-norm": convolved(True),
    },
    quick={
        "early": ("seeds.count=1",),
        "late": ("seeds.count=1",),
        "plain": ("seeds.count=1", "budget.steps=500"),
        "batch-norm": ("seeds.count=1", "budget.steps=500"),
    },
    curves=(NEAR, "local_complexity.test", "local_complexity.random", RADIUS, "weight_norm"),
    figures={"early": (NEAR,), "late": (NEAR, RADIUS), "plain": (RADIUS,), "batch-norm": (RADIUS,)},
    calculate=calculate,
    claims=(
        Claim(
            "phases",
            "Local complexity around training examples falls, rises until they are fitted, and falls again.",
            "section 3, figures 2 and 6",
            "three phases, one run each",
            "radius 0.05, 25 directions, 256 training images, every 25 steps up to 1,000, then every 1,000; 5 seeds",
            "reproduced: each of the three changes is at least 20 %, in 4 of 5 runs, where a second descent is one "
            "after such an ascent; partly: some; not: none",
            judge_phases,
        ),
        Claim(
            "large-weights",
            "The first descent is absent where weights start eight times too large.",
            "figure 7",
            "absent",
            "the first descent as a share of the initial complexity, both initial sizes, and the ascent after it",
            "reproduced: below 20 % with large weights, before an ascent of 20 % at least, and at least 20 % with "
            "usual ones, in 4 of 5 runs each; partly: one of them; otherwise not",
            judge_large,
        ),
        Claim(
            "random-points",
            "In the second descent the complexity falls at random points, too.",
            "section 3",
            "no number",
            "at uniformly random images, at the end by that when the complexity around training images has its peak",
            "reproduced: at most 0.8 in 4 of 5 runs; otherwise not; not comparable: no second descent around training "
            "images in 4 of 5",
            judge_random,
        ),
        Claim(
            "robustness",
            "Robustness comes long after the training images are fitted, at about 10,000 steps.",
            "figure 2",
            "about 10,000 steps; whether held-out accuracy comes before it or with it is not settled by what we have "
            "of the paper",
            "accuracy on 500 held-out images under PGD of radius 0.06, 10 steps; its gain from the first measurement "
            "after training images are fitted (0.99), and the step of half of it. Said, but not judged: when the "
            "network generalises, at 95 % of its best held-out accuracy",
            "three conditions: a gain of 0.1 in 4 of 5 runs; half of it at twice the steps of fitting or later in 4 of "
            "5; the median step, where there is such a gain, within a factor of 3 of 10,000. reproduced: all; partly: "
            "some; not: none",
            judge_robust,
        ),
        Claim(
            "before",
            "The second descent comes before robustness.",
            "section 3",
            "precedes",
            "step of half of the second descent by that of half of the gain in robustness, runs with a gain of 0.1 and "
            "an ascent and a second descent of 20 %",
            "reproduced: at most 1 in 4 of 5; partly: median at most 1.5; otherwise not; fewer than 3 such runs: not "
            "comparable",
            judge_before,
        ),
        Claim(
            "no-decay",
            "It comes without weight decay, too.",
            "section 4: CNN and ResNet have none; table 1",
            "late robustness with decay 0",
            "gain in robustness from the first measurement after fitting, every 1,000 steps, without decay, 5 seeds",
            "reproduced: at least 0.1 in 4 of 5 runs; partly: in 2 of 5; otherwise not",
            judge_decay,
        ),
        Claim(
            "batch-norm",
            "Batch norm removes late robustness, or delays it much.",
            "section 4 and table 1, ResNet18 and CNN",
            "none, or much delayed",
            "gain in robustness from the first measurement after fitting, every 500 steps, small CNN on 1,000 MNIST "
            "images, 10,000 steps, with and without, 5 seeds each",
            "reproduced: with batch norm at most a third in 4 of 5 runs; partly: median below 0.1; otherwise not; not "
            "comparable where there is no gain of 0.1 without it, or where a network has not fitted the images",
            judge_batch_norm,
        ),
        Claim(
            "cifar10",
            "ResNet18 without batch norm on CIFAR-10 becomes robust from 10,000 steps on, as far as it is accurate.",
            "figure 1",
            "rising after 10,000, equal to the clean accuracy by 200,000",
            "not measured",
            "not comparable without the data and a machine for it",
            judge_cifar,
        ),
    ),
    deviations=(
        "The radius is 0.05, the least of their script for MNIST: at the paper's 0.005 only 0.1 to 0.2 neurons "
        "change sign near a point, which 256 points cannot tell from noise.",
        "Radius and the least change that is a phase were chosen after 40 steps with seed 100: seeds start at 200.",
        f"MNIST runs have {STEPS:,} steps of 100,000: `--set late:budget.steps=100000`.",
        "256 points of each kind where theirs are 1,024 and more; attacks have 10 steps where theirs on MNIST have "
        "100, and radii 0.03, 0.06, 0.1 of six; the network is float32, where their code has float64, and its "
        "activation ReLU, as in the paper, where their code has GELU.",
        "Batch norm is judged on a small CNN with 1,000 MNIST images (channels 8 to 32, strides), since the channels "
        "of theirs are not given and CIFAR-10 is not here; 10,000 steps, cross-entropy as for the ResNet of the code.",
        "Effects of width, depth, batch and number of images (table 1), Imagenette and GPT are not repeated.",
    ),
)
