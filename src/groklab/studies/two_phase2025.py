"""The two-phase method: overfit first, then switch on a Frobenius-norm penalty; half the steps of Grokfast?

"A Simple Method for Accelerating Grokking" (LessWrong 38RcAQezS2AEcaEGv, code vuciv/grokfast). Its comparison is one
seed, with Grokfast-EMA from a grid and without an AdamW baseline. Published steps to 95 %: Grokfast 1300 (+), 1190 (-),
710 (x), delayed compression 720, 1040, 710, 980 (/); an earlier version with the nuclear norm by singular value
decompositions cost 258 times as much a step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from groklab.studies.baselines import comparison, tuned, tuning
from groklab.studies.claims import (
    Claim,
    Evidence,
    Finding,
    above_one,
    all_hold,
    at_most_partly,
    below_one,
    compared,
    ratio_said,
    within,
)
from groklab.studies.study import Study

OPERATIONS = {"plus": "a+b", "minus": "a-b", "times": "a*b", "over": "a/b"}
PUBLISHED = {"plus": 720, "minus": 1040, "times": 710, "over": 980}
OF_GROKFAST = {"plus": 1300, "minus": 1190, "times": 710}
GROKFAST = {
    "optimizer": {"kind": "adam", "l2": 0.005},
    "methods": [{"kind": "grokfast_ema", "alpha": 0.95, "lamb": 2.0}],
}
DELAYED = {"optimizer": "adam", "methods": ["delayed_compression"]}


def side_by_side(operation: str) -> Any:
    """The published comparison on one operation, with a tuned AdamW besides."""
    return lambda found: comparison(
        operation, {"grokfast": GROKFAST, "delayed": DELAYED, "adamw-tuned": tuned(found)}, seeds=10
    )


def penalty(kind: str, when: Any, **numbers: Any) -> dict[str, Any]:
    return {"optimizer": "adam", "methods": [{"kind": kind, "when": when, **numbers}]}


AT_99 = {"kind": "train_accuracy", "at_least": 0.99}
ABLATIONS = {
    "delayed": DELAYED,
    "unlatched": penalty("delayed_compression", AT_99 | {"latch": False}, strength=0.01),
    "by epoch": penalty("delayed_compression", AT_99 | {"of": "epoch"}, strength=0.01),
    "at half": penalty("delayed_compression", AT_99 | {"at_least": 0.5}, strength=0.01),
    "always on": penalty("delayed_compression", "always", strength=0.01),
    "nuclear norm": penalty("nuclear_norm", AT_99, strength=0.01, refresh_every=4),
}


def judge_half(found: Evidence) -> Finding:
    ratios = {
        name: compared(found.arm(name, "delayed"), found.arm(name, "grokfast")) for name in ("plus", "minus", "times")
    }
    medians = {name: ratio.median for name, ratio in ratios.items()}
    halves = {
        f"at most 0.6 on {OPERATIONS[name]}": median is not None and median <= 0.6 for name, median in medians.items()
    }
    said = "; ".join(f"{OPERATIONS[name]}: {ratio_said(ratio)}" for name, ratio in ratios.items())
    return all_hold(halves, said)


def judge_faster(found: Evidence) -> Finding:
    ratios = {name: compared(found.arm(name, "delayed"), found.arm(name, "grokfast")) for name in OPERATIONS}
    times = ratios["times"].median
    conditions = {f"sooner on {OPERATIONS[name]}": below_one(ratios[name]) for name in ("plus", "minus", "over")}
    conditions["no later on a*b"] = times is not None and times <= 1.1
    return all_hold(conditions, "; ".join(f"{OPERATIONS[name]}: {ratio_said(ratio)}" for name, ratio in ratios.items()))


def judge_against_adamw(found: Evidence) -> Finding:
    ratios = {name: compared(found.arm(name, "delayed"), found.arm(name, "adamw-tuned")) for name in OPERATIONS}
    trials = {name: found.arm(name, "adamw-tuned").trials for name in OPERATIONS}
    learned = {
        name: sum(trial.t_memorised is not None or trial.t_grokked is not None for trial in of)
        for name, of in trials.items()
    }
    said = "; ".join(
        f"{OPERATIONS[name]}: {ratio_said(ratio)} (AdamW learns in {learned[name]} of {len(trials[name])})"
        for name, ratio in ratios.items()
    )
    below = {
        f"sooner on {OPERATIONS[name]}": below_one(ratio)
        for name, ratio in ratios.items()
        if 2 * learned[name] > len(trials[name])
    }
    if not below:
        return Finding("not comparable", said, "the tuned AdamW learns none of the operations")
    return all_hold(below, said)


def near(published: Mapping[str, int], arm: str) -> Callable[[Evidence], Finding]:
    """Whether the medians of an arm are within a quarter of the published steps."""

    def judge(found: Evidence) -> Finding:
        medians = {name: found.arm(name, arm).median().median for name in published}
        conditions = {
            f"{steps} on {OPERATIONS[name]}": (median := medians[name]) is not None
            and steps / 1.25 <= median <= steps * 1.25
            for name, steps in published.items()
        }
        return all_hold(
            conditions, "; ".join(f"{OPERATIONS[name]}: {found.arm(name, arm).said()}" for name in published)
        )

    return judge


def judge_delay(found: Evidence) -> Finding:
    delayed, early, always = (found.arm("ablation", name) for name in ("delayed", "at half", "always on"))
    to_always, of_early = compared(delayed, always), compared(early, delayed)
    if to_always.median is None:
        return Finding("not comparable", ratio_said(to_always), "neither gets there within the budget")
    return all_hold(
        {
            "sooner by a tenth than always on": to_always.median <= 0.9 and below_one(to_always),
            "no later than when switched on at half": not below_one(of_early),
        },
        f"to always on, which memorised in {always.reached('t_memorised')} of {len(always)}: {ratio_said(to_always)}; "
        f"switched on at a train accuracy of 0.5, to delayed: {ratio_said(of_early)}",
    )


def judge_latch(found: Evidence) -> Finding:
    """Whether what the post leaves open matters: a trigger that goes off again, or one that goes by whole epochs."""
    ratios = {
        name: compared(found.arm("ablation", name), found.arm("ablation", "delayed"))
        for name in ("unlatched", "by epoch")
    }
    alike = {f"{name} as fast": r.median is not None and 0.8 <= r.median <= 1.25 for name, r in ratios.items()}
    return all_hold(alike, "; ".join(f"{name}: {ratio_said(ratio)}" for name, ratio in ratios.items()))


def judge_norm(found: Evidence) -> Finding:
    ratio = compared(found.arm("ablation", "nuclear norm"), found.arm("ablation", "delayed"))
    found_within = within(ratio.median, 0.67, 1.5, ratio_said(ratio), nearly=4 / 3)
    return at_most_partly(found_within, "slower beyond chance") if above_one(ratio) else found_within


def judge_cost(found: Evidence) -> Finding:
    def per_step(name: str) -> float:
        trial = found.arm("cost", name).trials[0]
        return trial.seconds / trial.steps

    plain = per_step("frobenius")
    svd, iterated = per_step("nuclear norm by SVD") / plain, per_step("nuclear norm by iteration") / plain
    said = f"a step with SVD costs {svd:.1f}, with our iteration {iterated:.1f} steps with the Frobenius penalty"
    return within(svd, 258 / 1.5, 258 * 1.5, said)


STUDY = Study(
    name="two_phase2025",
    title="Two phases: overfit, then compress",
    papers=("A Simple Method for Accelerating Grokking, LessWrong 38RcAQezS2AEcaEGv (2025)", "code: vuciv/grokfast"),
    experiments={
        "tuning": tuning("a+b"),
        **{name: side_by_side(operation) for name, operation in OPERATIONS.items()},
        "ablation": comparison("a+b", ABLATIONS, seeds=5),
        "cost": comparison(
            "a+b",
            {
                "frobenius": penalty("delayed_compression", "always", strength=0.01),
                "nuclear norm by iteration": penalty("nuclear_norm", "always", strength=0.01),
                "nuclear norm by SVD": penalty("nuclear_norm", "always", strength=0.01, polar="svd"),
            },
            seeds=1,
            steps=300,
        )
        | {"budget": {"steps": 300, "batch_size": 512, "evaluate_every": 300}},
    },
    quick={
        "*": ("seeds.count=1", "budget.steps=1200"),
        "tuning": ("budget.steps=600",),
        "cost": ("budget.steps=100", "budget.evaluate_every=100"),
    },
    alone=("cost",),
    claims=(
        Claim(
            "half",
            "Delayed compression needs about half the steps of Grokfast.",
            "the post's abstract; the code's README",
            "half; from its table 720/1300 (+), 1040/1190 (-), 710/710 (x)",
            "paired ratio of t_grokked, 10 seeds, both with their published settings",
            "reproduced: median ratio at most 0.6 on all of +, -, x; partly: on some; not: on none",
            judge_half,
        ),
        Claim(
            "faster",
            "Delayed compression groks sooner than Grokfast.",
            "README table",
            "720 against 1300 (+), 1040 against 1190 (-), 710 against 710 (x), 980 against not available (/)",
            "paired ratio of t_grokked, 10 seeds",
            "reproduced: the whole interval lies below 1 on +, - and /, and the median is at most 1.1 on x, where the "
            "table has a tie; partly: some of it; otherwise not",
            judge_faster,
        ),
        Claim(
            "steps",
            "Delayed compression groks in 700 to 1,000 steps.",
            "README table",
            "720 (+), 1040 (-), 710 (x), 980 (/); one seed each",
            "median t_grokked over 10 seeds",
            "reproduced: within a quarter of the published value on all four; partly: on some; otherwise not",
            near(PUBLISHED, "delayed"),
        ),
        Claim(
            "grokfast",
            "Grokfast, its opponent, groks in 710 to 1,300 steps.",
            "README table",
            "1300 (+), 1190 (-), 710 (x); one seed each",
            "median t_grokked over 10 seeds",
            "reproduced: within a quarter of the published value on all three; partly: on some; otherwise not",
            near(OF_GROKFAST, "grokfast"),
        ),
        Claim(
            "against-adamw",
            "Its advantage holds against an AdamW tuned with nine settings.",
            "not claimed; the control that the post lacks",
            "none",
            "paired ratio of t_grokked to an AdamW of a 3 x 3 grid of rate and decay, tuned on + with seeds 0 and 1",
            "reproduced: the whole interval lies below 1 on all operations on which most AdamW runs memorise or "
            "generalise; partly: on some; not: on none",
            judge_against_adamw,
        ),
        Claim(
            "delay",
            "The delay is needed: the penalty helps because it is switched on after overfitting.",
            "the post's explanation",
            "two phases resolve a conflict between fitting and compressing (no ablation)",
            "paired ratios of t_grokked, a+b, 5 seeds: delayed to the same penalty from the first step; the same "
            "switched on at a train accuracy of 0.5 to delayed",
            "reproduced: the first at most 0.9 and its interval below 1, and the interval of the second not below 1; "
            "partly: one of them; otherwise not",
            judge_delay,
        ),
        Claim(
            "norm",
            "The Frobenius norm gives the same benefit as the nuclear norm.",
            "the post's history of the method",
            "the same acceleration",
            "paired ratio of t_grokked of the nuclear norm to the Frobenius norm, a+b, 5 seeds",
            "reproduced: median ratio between 0.67 and 1.5, and the interval not above 1; partly: between 0.5 and 2; "
            "otherwise not",
            judge_norm,
        ),
        Claim(
            "latch",
            "What the post leaves open makes no difference: whether the penalty goes off again below 0.99, and whether "
            "the accuracy is a batch's or an epoch's.",
            "not claimed; the code's README can be read both ways",
            "none",
            "paired ratio of t_grokked of the other readings to ours, a+b, 5 seeds",
            "reproduced: both median ratios between 0.8 and 1.25; partly: one of them; otherwise not",
            judge_latch,
        ),
        Claim(
            "cost",
            "The nuclear norm by singular value decompositions costs 258 times as much a step.",
            "README",
            "258 times",
            "seconds a step of both penalties, always on, one run each of 300 steps, one after the other",
            "reproduced: between 172 and 387; partly: within 1.5 times that range; otherwise not",
            judge_cost,
        ),
    ),
    deviations=(
        "The post's own grid ranges and its caveats could not be retrieved; its settings are those of its README.",
        "Once it has come on, the penalty stays on, by the accuracy of a batch; the ablation has the other readings.",
        "The strength of the nuclear norm, 0.01, is ours, chosen from four; its gradient is refreshed every 4 steps.",
        "The public code leaves out b = 0 for every operation, here it is left out for a/b only; it gives 2,000 steps, "
        "here there are 3,000.",
        "AdamW is tuned on + alone, with two seeds. An operation that it then hardly ever memorises says more of that "
        "than of the method, and is not compared.",
        "Three rules were made stricter after the run: 'delay' looked at the penalty from the first step only, 'norm' "
        "at the median only, and 'against-adamw' counted operations that AdamW does not learn. The first two went from "
        "reproduced to partly, the third from partly to not reproduced. The claim on Grokfast's own times was added "
        "then.",
        "What a singular value decomposition costs depends on machine and library; those of the post are not known.",
    ),
)
