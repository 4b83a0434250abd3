"""Exploring grokking: encodings, shares of data, networks and optimisers on addition mod 97; what decides?

"Exploring Grokking" (Hu et al. 2024, arXiv 2412.10898): full batches, AdamW at rate 1e-3 with decay 1, betas 0.9 and
0.98, warm-up of 10; no seeds are given. As equations in a vocabulary, 45 and 60 % of the pairs are generalised at about
6,000 steps, 75 and 90 % without delay. As classification of (a, b), 15 % fail in 25,000 steps, 30 % are memorised by
200 and generalised between 6,000 and 9,100. MLP and LSTM do not grok because they never memorise. Of eight optimisers,
within 1,800 steps, those with weight decay generalise best. Its networks are given in a few words only.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from groklab.studies.claims import Arm, Claim, Evidence, Finding, Verdict, all_hold, too_short, within
from groklab.studies.networks import POWER
from groklab.studies.study import TUNING_SEEDS, Study

EQUATIONS = POWER
PAIRS = {  # "a simplified transformer": one layer without norm
    "kind": "transformer",
    "layers": 1,
    "norm": "none",
    "activation": "relu",
    "biases": "mlp",
    "answers_only": True,
    "initialisation": "nanda",
}
DECAY = {"optimizer": {"kind": "adamw", "weight_decay": 1.0}}
LSTM_STEPS, MLP_STEPS, DEEPER_STEPS, OPTIMISER_STEPS = 20_000, 20_000, 4000, 1800
BASE = "adamw"


def setting(
    share: int,
    arms: dict[str, Any],
    seeds: int,
    steps: int,
    model: dict[str, Any] = PAIRS,
    batch: int | str = "full",
    stop: str = "stable",
) -> dict[str, Any]:
    """Addition mod 97 with so many per cent of the pairs; as equations where the model is for them."""
    layout = "a op b =" if model is EQUATIONS else "a b"
    return {
        "task": {"kind": "modular", "operation": "a+b", "modulus": 97, "layout": layout, "train_fraction": share / 100},
        "model": model,
        "budget": {"steps": steps, "batch_size": batch, "evaluate_every": 20, "stop": stop},
        "seeds": {"count": seeds, "first": TUNING_SEEDS},
        "checkpoints": [],
        "arms": arms,
    }


def adam(rate: float = 1e-3, *methods: dict[str, Any]) -> dict[str, Any]:
    return {"optimizer": {"kind": "adam", "learning_rate": rate}, "methods": list(methods)}


FULL_BATCH = {
    BASE: DECAY,
    "adam": adam(),
    "adam, rate 3e-4": adam(3e-4),
    "adam, rate 3e-3": adam(3e-3),
    "adam, update noise": adam(1e-3, {"kind": "update_noise", "sigma": 1e-3}),
    "adam, weight noise": adam(1e-3, {"kind": "weight_noise", "sigma": 0.01}),
}
MINIBATCH = {"adamw, batch 128": DECAY, "adam, batch 128": adam()}
DECAYED = (BASE, "adamw, batch 128")
STEPS = {  # of each experiment with the base settings, longer than where it is said to generalise
    "pairs-15": 25_000,
    "pairs-30": 15_000,
    "pairs-45": 8000,
    "equations-30": 9000,
    "equations-45": 9000,
    "equations-60": 9000,
    "equations-75": 3000,
    "equations-90": 3000,
}


def delays(arm: Arm) -> list[float]:
    """Steps from memorised to generalised; 0 where the latter came first, infinite where one was not reached."""
    return [
        np.inf if trial.t_grokked is None or trial.t_memorised is None else max(0, trial.t_grokked - trial.t_memorised)
        for trial in arm.trials
    ]


def share_with_delay(arm: Arm) -> float:
    """The share of runs that took at least as long again from memorising to generalising as to memorise."""
    late = [
        trial.t_grokked is not None and trial.t_memorised is not None and trial.t_grokked >= 2 * trial.t_memorised
        for trial in arm.trials
    ]
    return float(np.mean(late))


def said_twice(arm: Arm) -> str:
    return f"memorised {arm.said('t_memorised')}; generalised {arm.said()}"


def judge_least_share(found: Evidence) -> Finding:
    short, enough = found.arm("equations-30", BASE), found.arm("equations-45", BASE)
    if early := too_short(short, STEPS["equations-30"]) or too_short(enough, STEPS["equations-45"]):
        return early
    said = f"30 %: {short.said()}; 45 %: {enough.said()}"
    if short.reached() > len(short) / 2:
        return Finding("not reproduced", said)
    return Finding("reproduced" if enough.reached() > len(enough) / 2 else "partly", said)


def judge_equations(found: Evidence) -> Finding:
    arms = {share: found.arm(f"equations-{share}", BASE) for share in (45, 60)}
    said = "; ".join(f"{share} %: {said_twice(arm)}" for share, arm in arms.items())
    for share, arm in arms.items():
        if early := too_short(arm, STEPS[f"equations-{share}"]):
            return Finding("not comparable", said, early.reason)
    one, other = (within(arm.median().median, 6000 / 1.5, 6000 * 1.5, said, nearly=2) for arm in arms.values())
    return one if one.verdict == other.verdict else Finding("partly", said)


def judge_no_delay(found: Evidence) -> Finding:
    arms = {f"equations-{share}": found.arm(f"equations-{share}", BASE) for share in (75, 90)}
    said = "; ".join(f"{name}: {said_twice(arm)}" for name, arm in arms.items())
    conditions = {
        f"{name} generalised as soon as memorised": arm.reached() == len(arm) and share_with_delay(arm) < 0.5
        for name, arm in arms.items()
    }
    for name, arm in arms.items():
        if arm.reached() < len(arm) and (early := too_short(arm, STEPS[name])):
            return Finding("not comparable", said, early.reason)
    return all_hold(conditions, said)


def judge_fails(found: Evidence) -> Finding:
    arm = found.arm("pairs-15", BASE)
    if early := too_short(arm, STEPS["pairs-15"]):
        return early
    said = said_twice(arm)
    if arm.reached():
        return Finding("not reproduced" if arm.reached() > len(arm) / 2 else "partly", said)
    return Finding("reproduced", said)


def judge_memorised(found: Evidence) -> Finding:
    arm = found.arm("pairs-30", BASE)
    return within(arm.median("t_memorised").median, 0, 200 * 1.5, arm.said("t_memorised"))


def judge_surge(found: Evidence) -> Finding:
    arm = found.arm("pairs-30", BASE)
    if early := too_short(arm, STEPS["pairs-30"]):
        return early
    return within(arm.median().median, 6000, 9100, arm.said())


def judge_shares(found: Evidence) -> Finding:
    arms = {share: found.arm(f"pairs-{share}", BASE) for share in (30, 45)}
    said = "; ".join(f"{share} %: {said_twice(arm)}" for share, arm in arms.items())
    for share, arm in arms.items():
        if early := too_short(arm, STEPS[f"pairs-{share}"]):
            return Finding("not comparable", said, early.reason)
    medians = {share: float(np.median(delays(arm))) for share, arm in arms.items()}
    conditions = {
        "the delay at 45 % is less than half of that at 30 %": medians[45] < 0.5 * medians[30],
        "there still is one at 45 %": share_with_delay(arms[45]) > 0.5,
    }
    return all_hold(conditions, said)


def never_memorises(arm: Arm, published: int) -> Finding:
    """No run of the published length knows its training set."""
    accuracy = arm.final("train_accuracy")
    said = f"memorised {arm.said('t_memorised')}; generalised {arm.said()}; train accuracy at the end "
    said += f"{np.median(accuracy):.2f} ({accuracy.min():.2f} to {accuracy.max():.2f})"
    if arm.reached("t_memorised") > len(arm) / 2:
        return Finding("not reproduced", said)
    if arm.reached("t_memorised"):
        return Finding("partly", said)
    if arm.budget < published:
        verdict: Verdict = "partly" if 5 * arm.budget >= published else "not comparable"
        return Finding(verdict, said, f"seen for {arm.budget:,} of {published:,} steps")
    return Finding("reproduced", said)


def judge_lstm(found: Evidence) -> Finding:
    return never_memorises(found.arm("lstm", BASE), 100_000)


def judge_mlp(found: Evidence) -> Finding:
    return never_memorises(found.arm("mlp", BASE), 20_000)


def judge_mlp_deeper(found: Evidence) -> Finding:
    return never_memorises(found.arm("mlp-deeper", BASE), 20_000)


def judge_transformer_only(found: Evidence) -> Finding:
    others = {name: found.arm(name, BASE) for name in ("lstm", "mlp")}
    transformer = found.arm("pairs-45", BASE)
    said = "; ".join(f"{name}: {arm.said()}" for name, arm in {"transformer": transformer, **others}.items())
    if early := too_short(transformer, STEPS["pairs-45"]):
        return Finding("not comparable", said, early.reason)
    if share_with_delay(transformer) <= 0.5:
        return Finding("not reproduced", said, "most transformers do not grok")
    return all_hold({f"{name} does not": share_with_delay(arm) < 0.5 for name, arm in others.items()}, said)


def optimisers(found: Evidence) -> dict[str, Arm]:
    return {
        **{name: found.arm("optimisers", name) for name in FULL_BATCH},
        **{name: found.arm("optimisers-128", name) for name in MINIBATCH},
    }


def judge_memorise_alike(found: Evidence) -> Finding:
    medians = {name: arm.median("t_memorised").median for name, arm in optimisers(found).items()}
    said = ", ".join(f"{name} {'never' if m is None else f'{m:,.0f}'}" for name, m in medians.items())
    conditions = {name: m is not None and 100 / 1.5 <= m <= 200 * 1.5 for name, m in medians.items()}
    return all_hold(conditions, f"median steps to memorise: {said}")


def judge_decay_best(found: Evidence) -> Finding:
    arms = optimisers(found)
    if early := too_short(arms[BASE], OPTIMISER_STEPS):
        return early
    best = {name: np.array([np.nanmax(t.curve("held_out_accuracy")) for t in arm.trials]) for name, arm in arms.items()}
    ranked = sorted(best, key=lambda name: -float(np.median(best[name])))
    said = ", ".join(f"{name} {np.median(best[name]):.2f}" for name in ranked)

    def better(name: str, other: str) -> bool:
        by = best[name] - best[other]  # of equal seeds
        return bool(np.median(by) >= 0.02 and np.mean(by > 0) >= 0.8)

    conditions = {
        f"{name} is better than {other}": better(name, other)
        for name in DECAYED
        for other in arms
        if other not in DECAYED
    }
    finding = all_hold(conditions, said)
    if 2 * sum(conditions.values()) < len(conditions):
        return replace(finding, verdict="not reproduced")
    return finding


def network(model: dict[str, Any], steps: int) -> dict[str, Any]:
    return setting(45, {BASE: DECAY}, 5, steps, model)


STUDY = Study(
    name="exploring2024",
    title="Exploring grokking: encodings, shares, networks, optimisers",
    papers=("Hu et al. 2024, Exploring Grokking (arXiv 2412.10898)",),
    experiments={
        **{
            name: setting(
                int(name[-2:]),
                {BASE: DECAY},
                10 if name in ("pairs-30", "pairs-45") else 5,
                steps,
                PAIRS if name.startswith("pairs") else EQUATIONS,
            )
            for name, steps in STEPS.items()
        },
        "lstm": network({"kind": "lstm", "width": 20}, LSTM_STEPS),
        "mlp": network({"kind": "mlp", "width": 512}, MLP_STEPS),
        "mlp-deeper": network({"kind": "mlp", "layers": 2, "width": 512}, DEEPER_STEPS),
        "optimisers": setting(50, FULL_BATCH, 10, OPTIMISER_STEPS, stop="never"),
        "optimisers-128": setting(50, MINIBATCH, 10, OPTIMISER_STEPS, batch=128, stop="never"),
    },
    quick={
        "*": ("seeds.count=1",),
        "pairs-15": ("budget.steps=200",),
        "pairs-30": ("budget.steps=1000",),
        "pairs-45": ("budget.steps=500",),
        "equations-30": ("budget.steps=60",),
        "equations-45": ("budget.steps=60",),
        "equations-60": ("budget.steps=60",),
        "equations-75": ("budget.steps=400",),
        "equations-90": ("budget.steps=400",),
        "lstm": ("budget.steps=1000",),
        "mlp": ("budget.steps=2000",),
        "mlp-deeper": ("budget.steps=300",),
        "optimisers": ("budget.steps=400",),
        "optimisers-128": ("budget.steps=400",),
    },
    claims=(
        Claim(
            "least-share",
            "As equations, at least about 40 % of the pairs are needed.",
            "section on the share of data",
            "40 %, about",
            "runs that generalise within 9,000 steps with 30 and with 45 %, 5 seeds each",
            "reproduced: at most half of them with 30 %, more than half with 45 %; partly: at most half "
            "of either; otherwise not",
            judge_least_share,
        ),
        Claim(
            "equations",
            "As equations, 45 and 60 % are generalised at about 6,000 steps.",
            "section on the share of data",
            "around 6,000 epochs, of full batches",
            "median t_grokked with 45 and with 60 %, 5 seeds each, 9,000 steps at most",
            "reproduced: both from 4,000 on; partly: both from 2,000, or only one; otherwise not, or not reached "
            "within 9,000 steps",
            judge_equations,
        ),
        Claim(
            "no-delay",
            "As equations, 75 and 90 % are generalised as soon as they are memorised.",
            "section on the share of data",
            "no delay",
            "runs with t_grokked at least twice t_memorised, 5 seeds each",
            "reproduced: with both shares all runs generalise and less than half do so late; partly: with one of them",
            judge_no_delay,
        ),
        Claim(
            "fails",
            "As classification, 15 % of the pairs are not generalised.",
            "section on the second encoding",
            "not within 25,000 epochs",
            "runs that generalise within 25,000 steps, 5 seeds",
            "reproduced: none; partly: at most half; otherwise not",
            judge_fails,
        ),
        Claim(
            "memorised",
            "As classification, 30 % are memorised by step 200.",
            "section on the second encoding",
            "200 steps",
            "median t_memorised (0.99), 10 seeds",
            "reproduced: by step 300; partly: by step 450; otherwise not",
            judge_memorised,
        ),
        Claim(
            "surge",
            "They are generalised between steps 6,000 and 9,100.",
            "section on the second encoding",
            "rising from about 6,000, perfect at 9,100 in the text and at about 8,300 in the figure",
            "median t_grokked (0.95), 10 seeds",
            "reproduced: between 6,000 and 9,100; partly: within 1.5 times that range; otherwise not",
            judge_surge,
        ),
        Claim(
            "shares",
            "As classification, the delay shrinks with more data: it is shorter at 45 %.",
            "section on the second encoding",
            "a short delay at 45 %",
            "t_grokked - t_memorised with 30 and 45 % of the pairs, 10 seeds each, infinite where not reached; a "
            "delay: generalised at twice t_memorised or later",
            "reproduced: the median delay at 45 % is less than half of that at 30 %, and most runs have one there; "
            "partly: one of them; not: neither",
            judge_shares,
        ),
        Claim(
            "lstm",
            "An LSTM never memorises.",
            "section on networks",
            "train accuracy about 0.9 after 100,000 steps",
            "t_memorised (0.99) within 20,000 steps, two layers of width 20, 45 % of the pairs, 5 seeds",
            "reproduced: no run memorises in 100,000 steps; partly: none in a fifth of them, or at most half; "
            "otherwise not; not comparable: none in less than a fifth",
            judge_lstm,
        ),
        Claim(
            "mlp",
            "An MLP never memorises.",
            "section on networks",
            "train accuracy below 1 after 20,000 steps",
            "t_memorised (0.99) within 20,000 steps, two layers of weights on top of a trained embedding of width 128, "
            "512 neurons, 45 % of the pairs, 5 seeds",
            "reproduced: no run memorises; partly: none in a fifth of the steps, or at most half; otherwise not; not "
            "comparable: none in less than a fifth",
            judge_mlp,
        ),
        Claim(
            "mlp-deeper",
            "Nor does it if two layers means two hidden layers.",
            "section on networks",
            "as before",
            "as before, with two hidden layers of 512 neurons, within 4,000 steps",
            "as before",
            judge_mlp_deeper,
        ),
        Claim(
            "transformer",
            "Transformers grok; MLP and LSTM do not.",
            "section on networks",
            "transformer yes, LSTM no, MLP no",
            "runs with t_grokked at least twice t_memorised, 45 % of the pairs; transformer (8,000 steps) 10 seeds, "
            "the others (20,000 steps, one hidden layer in the MLP) 5",
            "reproduced: more than half of the transformers, less than half of either other network; partly: of one "
            "of them; otherwise not",
            judge_transformer_only,
        ),
        Claim(
            "alike",
            "With every optimiser the training set is memorised in 100 to 200 steps.",
            "figure of eight settings",
            "100 to 200 steps",
            "median t_memorised of each, 50 % of the pairs, 10 seeds",
            "reproduced: all between 67 and 300; partly: some; not: none",
            judge_memorise_alike,
        ),
        Claim(
            "decay",
            "Within 1,800 steps, AdamW with weight decay generalises better than Adam with or without noise.",
            "figure of eight settings",
            "an order of curves",
            "best held-out accuracy of about 40 evaluations within 1,800 steps, denser in the beginning, paired by "
            "seeds; better: by 0.02 in the median and with four seeds in five, each of the two AdamW against each of "
            "the six others",
            "reproduced: all twelve comparisons hold; partly: six at least; otherwise not",
            judge_decay_best,
        ),
    ),
    deviations=(
        "The paper's text could not be retrieved: statements and settings are those of a summary and a reading card.",
        "Its networks are known by type, layers and width only (its parameter count is given as 4e5 and as 1e5). For "
        "equations, the network of Power et al. is taken; for pairs, one layer without norm, as in Nanda et al.",
        "Unknown, too, are the task of the networks (here pairs, 45 %) and of the optimisers (pairs, 50 %), and "
        "whether an MLP of two layers has one hidden layer or two: both are here, the latter with 4,000 steps.",
        "The LSTM has two layers, an embedding of width 64 and 20,000 steps where the paper has 100,000 (`--set "
        "lstm:budget.steps=100000`); the MLP reads a trained embedding of width 128 for each number. The summary says "
        "nothing of either embedding.",
        "Equations end with the answer; in openai/grok an end token follows, which is predicted and counted, too.",
        "Equations have 5 seeds, since a step costs up to 0.15 s; those with 5 % of the pairs are left out, as it "
        "gives them 30 epochs only.",
    ),
)
