"""Slingshots: without decay, do Adam's late instabilities come in cycles, and does a network grok when one sets in?

Thilak et al. 2022 (arXiv 2206.04817): division mod 97 with the transformer of Power et al., Adam at rate 1e-3, betas
0.9 and 0.98, epsilon 1e-8, batches of 512, at most 500,000 updates. Memorised at about 300, held-out accuracy rises
after 1e5. A slingshot is a rapid growth of the last layer's norm, then a spike of the training loss, then a plateau of
the norm. With epsilon 1e-7 there are fewer, with 1e-5 none, and no generalisation. Decay generalises much sooner. The
paper gives no thresholds for any of this; those here are of groklab.statistics.events.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from groklab.statistics.events import LAST_LAYER, slingshots
from groklab.studies.claims import Claim, Evidence, Finding, Trial, all_hold, at_most_partly, most, shorter
from groklab.studies.networks import POWER
from groklab.studies.study import TUNING_SEEDS, Study

if TYPE_CHECKING:
    from groklab.result import Result, Run

STEPS, MUCH_STEPS = 10_000, 15_000  # with half of the pairs, as published, and with 80 %
MUCH = "share-80"
EPSILONS = {"1e-8": 1e-8, "1e-7": 1e-7, "1e-5": 1e-5}
BEFORE, AFTER = 100, 500  # steps around the peak of a loss that count as the onset
LEAST_RISE = 0.1  # of held-out accuracy, for which it makes sense to ask when it came


def setting(arms: dict[str, Any], steps: int, stop: str, fraction: float = 0.5) -> dict[str, Any]:
    return {
        "task": {"kind": "modular", "operation": "a/b", "modulus": 97, "train_fraction": fraction},
        "model": POWER,
        "budget": {"steps": steps, "batch_size": 512, "evaluate_every": 50, "stop": stop},
        "seeds": {"count": 5, "first": TUNING_SEEDS},
        "measures": [{"kind": "weight_norm"}, {"kind": "norms"}],
        "checkpoints": [],
        "arms": arms,
    }


def epsilons(steps: int, fraction: float) -> dict[str, Any]:
    arms = {name: {"optimizer": {"kind": "adam", "epsilon": epsilon}} for name, epsilon in EPSILONS.items()}
    return setting(arms, steps, "never", fraction)


def onset(step: ArrayLike, held_out: ArrayLike, spikes: ArrayLike) -> dict[str, float] | None:
    """How much of the rise of held-out accuracy came around spikes; None if it rose by less than LEAST_RISE.

        gain_i = max(held_out_0 .. held_out_i) - max(held_out_0 .. held_out_(i-1))
        near_i = some spike lies in [step_i - AFTER, step_i + BEFORE]

    `share` of all gains is near, `covered` is the share of evaluations that are, and `p` that of all circular shifts of
    `near` under which the share is at least as large.
    """
    at, series = np.asarray(step, float), np.asarray(held_out, float)
    peaks = np.asarray(spikes, float)
    gain = np.diff(np.maximum.accumulate(series), prepend=series[0])
    if gain.sum() < LEAST_RISE:
        return None
    distance = at[:, None] - peaks[None, :]  # [E, spikes]
    near = np.any((distance >= -BEFORE) & (distance <= AFTER), axis=1)
    shares = np.array([gain[np.roll(near, shift)].sum() for shift in range(len(near))]) / gain.sum()
    found = {"share": shares[0], "covered": near.mean(), "p": np.mean(shares >= shares[0] - 1e-9)}
    return {name: float(f"{value:.4g}") for name, value in found.items()}


def of_run(run: Run) -> dict[str, Any]:
    """What the whole curves tell of a run, from its memorising on: spikes, slingshots, and when it generalised."""
    curves = run.curves
    if run.t_memorised is None or LAST_LAYER not in curves:
        return {"seed": run.seed, "spikes": 0, "slingshots": [], "onset": None}
    since = np.asarray(curves["step"]) >= run.t_memorised
    step, loss, norm, held_out = (
        np.asarray(curves[name])[since] for name in ("step", "train_loss", LAST_LAYER, "held_out_accuracy")
    )
    full = slingshots(step, loss, norm).steps
    return {
        "seed": run.seed,
        "spikes": len(slingshots(step, loss).steps),
        "slingshots": [int(spike) for spike in full],
        "onset": onset(step, held_out, full),
    }


def calculate(results: Mapping[str, Result]) -> dict[str, Any]:
    return {
        experiment: {name: [of_run(run) for run in results[experiment].runs if run.arm == name] for name in EPSILONS}
        for experiment in ("epsilon", MUCH)
    }


def cut(found: Evidence) -> Finding | None:
    return shorter(found, "epsilon", STEPS)


def cut_at_all(found: Evidence) -> Finding | None:
    return cut(found) or shorter(found, MUCH, MUCH_STEPS)


def everywhere(found: Evidence) -> list[tuple[Mapping[str, Any], Trial]]:
    """What was read off each run without decay, beside the run, of every epsilon and share."""
    return [
        (run, trial)
        for experiment in ("epsilon", MUCH)
        for name in EPSILONS
        for run in found.calculated[experiment][name]
        for trial in found.arm(experiment, name).trials
        if trial.seed == run["seed"]
    ]


def counts(found: Evidence, name: str) -> list[int]:
    return [len(run["slingshots"]) for run in found.calculated["epsilon"][name]]


def judge_late(found: Evidence) -> Finding:
    if short := cut(found):
        return short
    arm = found.arm("epsilon", "1e-8")
    memorised, grokked = arm.median("t_memorised").median, arm.median().median
    seen_until = arm.budget if grokked is None else grokked
    conditions = {
        "memorised at about 300": memorised is not None and 200 <= memorised <= 450,
        "known to generalise at 1e5 or later": memorised is not None and seen_until >= 1e5 / 1.5,
    }
    finding = all_hold(conditions, f"memorised: {arm.said('t_memorised')}; generalised: {arm.said()}")
    return finding if grokked is not None else at_most_partly(finding, "only a bound of the second is known")


def judge_cycles(found: Evidence) -> Finding:
    if short := cut(found):
        return short
    number, spikes = counts(found, "1e-8"), [run["spikes"] for run in found.calculated["epsilon"]["1e-8"]]
    said = f"slingshots of each run {number}, spikes of the loss with or without growth of the norm {spikes}"
    if np.mean(np.array(number) >= 2) > 0.5:
        return Finding("reproduced", said)
    return Finding("partly" if np.mean(np.array(spikes) >= 1) > 0.5 else "not reproduced", said)


def judge_epsilon(found: Evidence) -> Finding:
    if short := cut(found):
        return short
    number = {name: counts(found, name) for name in EPSILONS}
    said = "; ".join(f"epsilon {name}: {each}" for name, each in number.items())
    if not any(map(any, number.values())):
        return Finding("not reproduced", said, "there are no slingshots at all")
    conditions = {
        "more at 1e-8 than at 1e-7": most(np.array(number["1e-8"]) > np.array(number["1e-7"])),
        "none at 1e-5": not any(number["1e-5"]),
    }
    return all_hold(conditions, said)


def judge_needed(found: Evidence) -> Finding:
    if short := cut_at_all(found):
        return short
    arms = {name: found.arm(MUCH, name) for name in EPSILONS}
    said = "; ".join(f"epsilon {name}: {arm.said()}" for name, arm in arms.items())
    small, large = arms["1e-8"], arms["1e-5"]
    if not any(arm.reached() for arm in arms.values()):
        return Finding("not comparable", said, f"no run generalises in {small.budget:,} of their 500,000 updates")
    means = {name: arm.restricted_mean() for name, arm in arms.items()}
    if small.reached() > len(small) / 2 and means["1e-8"] <= means["1e-7"] and not large.reached():
        return Finding("partly", said, f"seen with 80 % of the pairs, for {small.budget:,} of its 500,000 updates")
    return Finding("partly" if means["1e-8"] < means["1e-5"] else "not reproduced", said)


def judge_tandem(found: Evidence) -> Finding:
    if short := cut_at_all(found):
        return short
    runs = everywhere(found)
    generalised = [(run["slingshots"], trial.t_grokked) for run, trial in runs if trial.t_grokked is not None]
    grokked, without = len(generalised), sum(min(each, default=np.inf) > time for each, time in generalised)
    bare = sum(not run["slingshots"] for run, _ in runs)
    said = f"{grokked} of {len(runs)} runs generalise, {without} of them without a slingshot before; "
    said += f"{bare} runs have none at all"
    if grokked < 3:
        return Finding("not comparable", said, "too few runs generalise within the budget")
    if not without and not bare:
        return Finding("partly", said, "all runs have slingshots, so that none could contradict")
    if not without:
        return Finding("reproduced", said)
    return Finding("partly" if without <= grokked / 4 else "not reproduced", said)


def judge_onset(found: Evidence) -> Finding:
    if short := cut_at_all(found):
        return short
    asked = [run["onset"] for run, _ in everywhere(found) if run["onset"] is not None and run["slingshots"]]
    if len(asked) < 3:
        return Finding("not comparable", f"{len(asked)} runs with both", "too few have slingshots and a rise of 0.1")
    share, covered = (np.array([each[column] for each in asked]) for column in ("share", "covered"))
    if np.median(covered) > 0.5:
        said = f"onsets cover {np.median(covered):.2f} of the time"
        return Finding("not comparable", said, "slingshots are too frequent to tell onsets from the rest")
    held = [each["share"] >= 0.5 and each["share"] >= 2 * each["covered"] and each["p"] <= 0.05 for each in asked]
    said = (
        f"{np.median(share):.2f} of the rise ({share.min():.2f} to {share.max():.2f}) in {np.median(covered):.2f} of "
    )
    said += f"the time; in {sum(held)} of {len(held)} runs at onsets"
    if np.mean(held) > 0.5:
        return Finding("reproduced", said)
    return Finding("partly" if any(held) else "not reproduced", said)


def judge_decay(found: Evidence) -> Finding:
    if short := cut(found):
        return short
    decayed, plain = found.arm("decay", "adamw"), found.arm("epsilon", "1e-8")
    ratios = np.array(
        [
            np.inf if one.t_grokked is None else one.t_grokked / (other.t_grokked or plain.budget)
            for one, other in zip(decayed.trials, plain.trials, strict=True)
        ]
    )  # upper bounds where the run without decay has not generalised
    said = (
        f"at most {np.median(ratios):.3f} times the steps in the median, {ratios.max():.3f} in all; {decayed.said()} "
    )
    said += f"against {plain.said()}"
    if np.median(ratios) <= 0.1 and ratios.max() < 1:
        return Finding("reproduced", said)
    return Finding("partly" if np.median(ratios) <= 0.5 else "not reproduced", said)


STUDY = Study(
    name="thilak2022",
    title="The slingshot mechanism",
    papers=("Thilak et al. 2022, The Slingshot Mechanism (arXiv 2206.04817)",),
    experiments={
        "epsilon": epsilons(STEPS, 0.5),
        MUCH: epsilons(MUCH_STEPS, 0.8),
        "decay": setting({"adamw": {"optimizer": {"kind": "adamw", "weight_decay": 1.0}}}, 10_000, "stable"),
    },
    quick={
        "epsilon": ("seeds.count=1", "budget.steps=1000"),
        MUCH: ("seeds.count=1", "budget.steps=1000"),
        "decay": ("seeds.count=1", "budget.steps=1000"),
    },
    curves=("train_loss", LAST_LAYER),
    figures={"epsilon": (LAST_LAYER,), MUCH: (LAST_LAYER,)},
    calculate=calculate,
    claims=(
        Claim(
            "late",
            "Without decay, division is memorised at about step 300 and generalised after 1e5.",
            "section 3.1, figure 2",
            "about 300, and after 1e5",
            "median t_memorised (0.99) and t_grokked (0.95), 5 seeds, 10,000 updates",
            "reproduced: 200 to 450, and 66,667 or later; partly: one of them, or 200 to 450 and not generalised "
            "within the budget; not: neither",
            judge_late,
        ),
        Claim(
            "cycles",
            "After memorising, slingshots follow one another.",
            "section 3.1, figure 2",
            "several cycles in one run",
            "spikes of the training loss by a factor of 10 that follow a growth of the last layer's norm of three "
            "times the usual, after t_memorised, seen every 50 steps",
            "reproduced: at least two in most runs; partly: at least one spike in most, with or without growth; else "
            "not",
            judge_cycles,
        ),
        Claim(
            "epsilon",
            "There are fewer slingshots with a greater epsilon, and none with 1e-5.",
            "section 3.1, figure 4",
            "many at 1e-8, fewer at 1e-7, none at 1e-5",
            "number of slingshots in 10,000 updates, by seeds, 5 of them",
            "reproduced: more at 1e-8 than at 1e-7 on four seeds of five and none in any run at 1e-5; partly: one of "
            "them; otherwise not, and where there are none at all",
            judge_epsilon,
        ),
        Claim(
            "needed",
            "With the greatest epsilon, 1e-5, the network does not generalise; with the smallest it does so first.",
            "section 3.1, figure 4",
            "none in 500,000 updates at 1e-5",
            "runs that generalise in 15,000 updates with 80 % of the pairs, 5 seeds",
            "partly, which is the most that this share and these updates can show: most at 1e-8, with a restricted "
            "mean time no greater than at 1e-7, and none at 1e-5, or a smaller restricted mean time at 1e-8 than at "
            "1e-5; otherwise not; not comparable: none at any epsilon",
            judge_needed,
        ),
        Claim(
            "tandem",
            "Without decay, no network generalises that has had no slingshot.",
            "sections 1 and 3.1",
            "grokking is absent without slingshots",
            "slingshots before t_grokked, in all runs that generalise, whatever their epsilon and share of the pairs",
            "reproduced: all of them had one, and some run has none at all; partly: all runs have some, or at most a "
            "quarter had none before; otherwise not; not comparable: less than three runs generalise",
            judge_tandem,
        ),
        Claim(
            "onset",
            "Generalisation happens at the onset of slingshots.",
            "abstract, sections 1 and 3.2",
            "almost exclusively",
            "share of the rise of held-out accuracy from 100 steps before to 500 after the peak of a slingshot's loss, "
            "against the share of time, with its rank among all circular shifts, in all runs, with 50 and 80 % of the "
            "pairs",
            "reproduced: in most runs at least half of the rise, twice the share of time and p at most 0.05; partly: "
            "in some; not: in none; not comparable: less than three runs with slingshots and a rise of 0.1, or onsets "
            "cover more than half of the time",
            judge_onset,
        ),
        Claim(
            "decay",
            "Weight decay generalises as well, much more quickly.",
            "section 3.3 and appendix",
            "much more quickly, without a number",
            "t_grokked of AdamW with decay 1 over that of Adam without, or over its budget if it has none, by seeds, 5 "
            "of them",
            "reproduced: at most 0.1 in the median and below 1 with all seeds; partly: at most 0.5 in the median; "
            "otherwise not",
            judge_decay,
        ),
    ),
    deviations=(
        "10,000 updates on 5 seeds where it has 500,000 on one: `--set epsilon:budget.steps=500000`. What happens "
        "later is not seen.",
        "80,000 updates were planned, and nothing else. Before any of these runs had ended, the same setting in "
        "power2022 stood at 2 % held out after 60,000, with a spike of the loss about every 2,000. So these runs are "
        "shorter, and what is said of generalisation is asked of 80 % of the pairs, too, where a run with a tuning "
        "seed had half of the others right by 6,000.",
        "It gives no thresholds for a slingshot or an onset: those here are this project's, and spikes shorter than 50 "
        "steps are seen in the mean loss of these steps only.",
        "Its network has about 450,000 parameters; here it is that of Power et al., whose set-up it says it follows.",
        "Other optimisers, normalised features, images and MLPs are left out, their settings are in an appendix we "
        "lack.",
    ),
)
