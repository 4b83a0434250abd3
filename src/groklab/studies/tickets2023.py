"""Grokking tickets: does the sparse network that a grokked one has found grok sooner, and is that not its norm?

Minegishi et al. 2023 (arXiv 2310.19470, code gouki510/Grokking-Tickets): addition mod 67, 40 % of the unordered pairs,
an MLP of 48 neurons, AdamW at 1e-3 with decay 1, full batch; a ticket has 0.4 of the weights, those largest in the
dense run when it reached 0.95, all layers ranked together. The dense network reaches 0.95 at about 25,000 steps,
its ticket at about 2,000, a ticket from step 15,500 at about 30,000: one run each, read off a figure. A ticket needs
the dense run first, so that sooner is counted from its own start and says nothing of the cost.

In all ratios a run that has not grokked within the smaller of both budgets counts with that budget where its partner
has, which makes differences smaller, never greater; pairs of which neither has are not ranked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from groklab.statistics.paired import PairedRatio
from groklab.studies.claims import (
    Arm,
    Claim,
    Evidence,
    Finding,
    Verdict,
    above_one,
    all_hold,
    below_one,
    compared,
    ratio_said,
    within,
)
from groklab.studies.study import TUNING_SEEDS, Study

if TYPE_CHECKING:
    from groklab.result import Result

RATES, DECAYS = (3e-4, 1e-3, 3e-3), (0.3, 1.0, 3.0)
PUBLISHED_T = 15_500  # where the published ticket from the transition was taken, of 25,000
PRUNED = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9)
CRITERIA: dict[str, dict[str, Any]] = {
    "random": {},
    "snip": {},
    "grasp": {"temperature": 200.0},
    "synflow": {"iterations": 1},
}
ADDITION = {
    "kind": "modular",
    "operation": "a+b",
    "modulus": 67,
    "layout": "a b",
    "train_fraction": 0.4,
    "commuted_pairs": "together",
}
MLP = {
    "kind": "mlp",
    "embedding": "summed",
    "embedding_width": 500,
    "width": 48,
    "head_width": 500,
    "biases": False,
    "initialisation": "normal",
}
TRANSFORMER = {
    "kind": "transformer",
    "layers": 1,
    "width": 128,
    "mlp_width": 128,
    "heads": 1,
    "norm": "none",
    "activation": "relu",
    "biases": "none",
    "positions": "none",
    "answers_only": True,
    "initialisation": "normal",
}
FULL_BATCH = {"batch_size": "full", "evaluate_every": 100}
DIGITS = {"kind": "mnist", "train_size": 1000, "test_size": 10_000, "order": "first", "train_from": "test"}
PERCEPTRON = {
    "kind": "mlp",
    "layers": 2,
    "width": 200,
    "biases": False,
    "initialisation": "normal",
    "init_scale": 8.0,
}


def setting(
    arms: dict[str, Any],
    steps: int,
    seeds: int = 5,
    first: int = TUNING_SEEDS,
    budget: Mapping[str, Any] = FULL_BATCH,
    **other: Any,
) -> dict[str, Any]:
    """The task, the MLP and the threshold of the paper, unless `other` says otherwise."""
    return {
        "task": ADDITION,
        "model": MLP,
        "budget": {"steps": steps, **budget},
        "definitions": {"memorised": 0.95, "grokked": 0.95},
        "seeds": {"count": seeds, "first": first},
        "checkpoints": [],
        "arms": arms,
    } | other


def adamw(rate: float = 1e-3, decay: float = 1.0, *methods: dict[str, Any]) -> dict[str, Any]:
    """Without warm-up, which their code has commented out."""
    return {
        "optimizer": {"kind": "adamw", "learning_rate": rate, "weight_decay": decay},
        "schedule": {"kind": "constant", "warmup_steps": 0},
        "methods": list(methods),
    }


def ticket(at: Any = "grokked", pruned: float = 0.6, decay: float = 1.0) -> dict[str, Any]:
    return adamw(1e-3, decay, {"kind": "ticket", "of": "dense", "at": at, "keep": round(1 - pruned, 2)})


def equal_norm(norm: str, decay: float = 1.0) -> dict[str, Any]:
    return adamw(1e-3, decay, {"kind": "equal_norm", "of": "dense", "norm": norm})


GRID = {f"adamw-{rate:g}-{decay:g}": adamw(rate, decay) for rate in RATES for decay in DECAYS}


def transition(found: Evidence) -> int:
    """A step in the rise of held-out accuracy: as much of the dense network's time to grok as in the published figure.

    From the tuning seeds; the published step itself where these have not grokked.
    """
    median = found.arm("tuning", "adamw-0.001-1").median().median
    return PUBLISHED_T if median is None else max(100, round(PUBLISHED_T / 25_000 * median / 100) * 100)


def main_experiment(found: Evidence) -> dict[str, Any]:
    """The dense network, tickets of three moments, dense controls of the ticket's norms, and a tuned dense network."""
    best = found.fastest("tuning", GRID)
    arms = {
        "dense": adamw(),
        "ticket": ticket(),
        "memorised ticket": ticket("memorised"),
        "transition ticket": ticket(transition(found)),
        "equal l1": equal_norm("l1"),
        "equal l2": equal_norm("l2"),
        "dense, tuned": GRID[best],
    }
    return setting(arms, steps=40_000, budget=FULL_BATCH | {"stop": "never"})  # it matters where tickets end


AT_START = {
    name: adamw(1e-3, 1.0, {"kind": "prune_at_start", "criterion": name, "keep": 0.4, **extra})
    for name, extra in CRITERIA.items()
}
SWEEP = {
    "dense": adamw(),
    **{f"pruned {pruned:g}": ticket(pruned=pruned) for pruned in PRUNED},
}
WITHOUT_DECAY = {
    "dense": adamw(),
    "dense, no decay": adamw(1e-3, 0.0),
    "pruned 0.6, no decay": ticket(pruned=0.6, decay=0.0),
    "pruned 0.81, no decay": ticket(pruned=0.81, decay=0.0),
}
LEARNED = {"kind": "train_accuracy", "at_least": 0.95}
DECAY_BEFORE = {"kind": "decay", "form": "to_zero", "rate": 1e-3, "when": {"kind": "not", "of": LEARNED}}
POPUP = {"kind": "edge_popup", "keep": 0.4, "when": LEARNED}
EDGE_POPUP = {
    "decay": adamw(),
    "edge-popup": adamw(1e-3, 0.0, POPUP, DECAY_BEFORE),
    "edge-popup and decay": adamw(1e-3, 1.0, POPUP | {"train_weights": True}),
    "frozen": adamw(1e-3, 0.0, POPUP | {"keep": 1.0}, DECAY_BEFORE),
}
SMALL = {"dense": adamw(), "ticket": ticket(), "equal l2": equal_norm("l2")}
MNIST = {"dense": adamw(1e-3, 0.1), "ticket": ticket(decay=0.1), "equal l2": equal_norm("l2", decay=0.1)}


def calculate(results: Mapping[str, Result]) -> dict[str, Any]:
    """Per seed: held-out accuracy of the dense network when a ticket was taken, and where that ticket ended."""
    found: dict[str, dict[str, list[float]]] = {"memorised ticket": {}, "transition ticket": {}}
    runs = {(run.row.arm, run.row.seed): run for run in results["mlp"].runs}
    methods = results["mlp"].experiment.spec["arms"]["transition ticket"]["methods"]
    for (arm, seed), run in runs.items():
        if arm not in found or not len(run.curves.get("step", ())):
            continue
        dense = runs["dense", seed]
        at = dense.row.t_memorised if arm == "memorised ticket" else methods[0]["at"]
        then = np.flatnonzero(dense.curves["step"] <= at)[-1]
        ends = (dense.curves["held_out_accuracy"][then], run.curves["held_out_accuracy"][-1])
        found[arm][str(seed)] = [float(f"{end:.4g}") for end in ends]
    return found


# --- judges ----------------------------------------------------------------------------------------------------------


def of_seeds(arm: Arm, seeds: set[int]) -> Arm:
    return replace(arm, trials=tuple(trial for trial in arm.trials if trial.seed in seeds))


def grokked_seeds(arm: Arm) -> set[int]:
    """Seeds of which there is a ticket: those whose dense network has grokked."""
    return {trial.seed for trial in arm.trials if trial.t_grokked is not None}


def no_tickets(dense: Arm, within: int | None = None) -> Finding | None:
    """Where most dense networks have not grokked within so many steps, nothing can be said of tickets."""
    budget = dense.budget if within is None else within
    reached = sum(trial.t_grokked is not None and trial.t_grokked <= budget for trial in dense.trials)
    if 2 * reached > len(dense):
        return None
    reason = f"most dense networks have not grokked within {budget:,} steps, and without them there is no comparison"
    return Finding("not comparable", f"dense: {dense.said()}", reason)


def sooner(found: PairedRatio, at_most: float) -> bool:
    """Whether the median is at most that and the whole interval below 1."""
    return found.median is not None and found.median <= at_most and below_one(found)


def graded(found: PairedRatio, reproduced: float, partly: float, said: str = "") -> Finding:
    verdict: Verdict = "not reproduced"
    if sooner(found, partly):
        verdict = "reproduced" if sooner(found, reproduced) else "partly"
    return Finding(verdict, f"{ratio_said(found)}{said}")


def judge_dense(found: Evidence) -> Finding:
    dense = found.arm("mlp", "dense")
    if dense.budget < 40_000 and (nothing := no_tickets(dense)):
        return nothing
    return within(dense.median().median, 20_000, 31_250, dense.said())


def judge_accelerates(found: Evidence) -> Finding:
    dense, sparse = found.arm("mlp", "dense"), found.arm("mlp", "ticket")
    seeds = grokked_seeds(dense)
    return no_tickets(dense) or graded(
        compared(of_seeds(sparse, seeds), of_seeds(dense, seeds)), 1 / 3, 1.0, f"; dense {dense.said()}"
    )


def judge_tuned(found: Evidence) -> Finding:
    dense, sparse, tuned = (found.arm("mlp", name) for name in ("dense", "ticket", "dense, tuned"))
    seeds = grokked_seeds(dense)
    return no_tickets(dense) or graded(
        compared(of_seeds(sparse, seeds), of_seeds(tuned, seeds)), 0.9, 1.0, f"; tuned dense {tuned.said()}"
    )


def judge_early(name: str) -> Any:
    """For tickets of moments before the dense network has grokked."""

    def judge(found: Evidence) -> Finding:
        dense, early, late = (found.arm("mlp", arm) for arm in ("dense", name, "ticket"))
        if nothing := no_tickets(dense):
            return nothing
        taken = found.calculated.get(name, {})
        seeds = grokked_seeds(dense) & {int(seed) for seed, (then, _) in taken.items() if then < 0.95}
        if 2 * len(seeds) <= len(dense):
            said = f"{len(seeds)} of {len(dense)} were taken from a network that had not grokked"
            return Finding("not comparable", said, "the moment, fixed before, fell after grokking in most runs")
        dense, early, late = (of_seeds(arm, seeds) for arm in (dense, early, late))
        to_dense, of_late = compared(early, dense), compared(late, early)
        said = f"{early.said()}; to dense {ratio_said(to_dense)}; grokked ticket to it {ratio_said(of_late)}"
        if not sooner(of_late, 0.5):
            return Finding("not reproduced", said, "the grokked ticket is not twice as soon as this one")
        no_sooner = to_dense.median is not None and to_dense.median >= 0.9
        return Finding("reproduced" if no_sooner else "partly", said)

    return judge


def judge_limited(found: Evidence) -> Finding:
    dense = found.arm("mlp", "dense")
    if nothing := no_tickets(dense):
        return nothing
    conditions, said = {}, []
    for name in ("memorised ticket", "transition ticket"):
        pairs = [(then, end) for then, end in found.calculated.get(name, {}).values() if then < 0.95]
        if not pairs:
            return Finding("not comparable", f"no {name} was taken before grokking")
        middle = float(np.median([abs(end - then) for then, end in pairs]))
        conditions[f"{name} ends where the dense network was"] = middle <= 0.1
        then, end = np.median(pairs, axis=0)
        said.append(f"{name}: dense at {then:.2f} when taken, ended at {end:.2f} (medians of {len(pairs)})")
    return all_hold(conditions, "; ".join(said))


def judge_norm(found: Evidence) -> Finding:
    dense, sparse = found.arm("mlp", "dense"), found.arm("mlp", "ticket")
    seeds = grokked_seeds(dense)
    if nothing := no_tickets(dense):
        return nothing
    ratios = {
        name: compared(of_seeds(sparse, seeds), of_seeds(found.arm("mlp", name), seeds))
        for name in ("equal l1", "equal l2")
    }
    said = "; ".join(f"to {name}: {ratio_said(each)}" for name, each in ratios.items())
    return all_hold({f"half the steps of {name}": sooner(each, 0.5) for name, each in ratios.items()}, said)


def judge_at_start(found: Evidence) -> Finding:
    dense = found.arm("mlp", "dense")
    if nothing := no_tickets(dense, found.arm("at-start", "random").budget):
        return nothing
    ratios = {name: compared(found.arm("at-start", name), dense) for name in CRITERIA}
    said = "; ".join(f"{name}: {ratio_said(each)}" for name, each in ratios.items())
    later = {f"{name} later than dense": above_one(each) for name, each in ratios.items()}
    return all_hold(later, said)


def judge_structure(found: Evidence) -> Finding:
    dense, sparse = found.arm("mlp", "dense"), found.arm("mlp", "ticket")
    if nothing := no_tickets(dense):
        return nothing
    seeds = grokked_seeds(dense)
    ratios = {
        name: compared(of_seeds(sparse, seeds), of_seeds(found.arm("at-start", name), seeds)) for name in CRITERIA
    }
    said = "; ".join(f"to {name}: {ratio_said(each)}" for name, each in ratios.items())
    return all_hold({f"half the steps of {name}": sooner(each, 0.5) for name, each in ratios.items()}, said)


def delays(found: Evidence, pruned: float) -> list[float]:
    """t_grokked / t_memorised of each ticket; infinite where one of them was not reached."""
    arm, seeds = found.arm("rates", f"pruned {pruned:g}"), grokked_seeds(found.arm("rates", "dense"))
    return [
        trial.t_grokked / trial.t_memorised if trial.t_grokked and trial.t_memorised else np.inf
        for trial in of_seeds(arm, seeds).trials
    ]


def judge_rate(found: Evidence) -> Finding:
    if nothing := no_tickets(found.arm("rates", "dense")):
        return nothing
    medians = {pruned: float(np.median(delays(found, pruned))) for pruned in PRUNED}
    said = ", ".join(f"{pruned:g}: {value:.1f}" for pruned, value in medians.items())
    best = min(medians, key=lambda pruned: medians[pruned])
    if not np.isfinite(medians[best]):
        return Finding("not reproduced", f"median ratio by share pruned: {said}", "no rate makes most tickets grok")
    verdict: Verdict = "reproduced" if best == 0.7 else "partly" if best in (0.6, 0.8) else "not reproduced"
    return Finding(verdict, f"median ratio by share pruned: {said}; least at {best:g}")


def judge_too_much(found: Evidence) -> Finding:
    if nothing := no_tickets(found.arm("rates", "dense")):
        return nothing
    groks = {pruned: float(np.mean(np.isfinite(delays(found, pruned)))) for pruned in (0.6, 0.9)}
    said = f"grokked with 0.6 pruned {groks[0.6]:.0%}, with 0.9 pruned {groks[0.9]:.0%} of the tickets"
    if groks[0.6] < 0.8:
        return Finding("not reproduced", said, "tickets of the default rate do not grok either")
    return Finding("reproduced" if groks[0.9] <= 0.2 else "partly" if groks[0.9] <= 0.5 else "not reproduced", said)


def judge_no_decay(found: Evidence) -> Finding:
    if nothing := no_tickets(found.arm("no-decay", "dense")):
        return nothing
    seeds = grokked_seeds(found.arm("no-decay", "dense"))
    names = ("pruned 0.81, no decay", "pruned 0.6, no decay", "dense, no decay")
    best, other, dense = (of_seeds(found.arm("no-decay", name), seeds) for name in names)
    said = "; ".join(f"{arm.name}: {arm.said()}" for arm in (best, other, dense))
    share, control = best.reached() / len(best), dense.reached() / len(dense)
    if share >= 0.8 and control <= 0.2:
        return Finding("reproduced", said)
    return Finding("partly" if share >= 0.4 and share > control else "not reproduced", said)


def judge_critical(found: Evidence) -> Finding:
    if nothing := no_tickets(found.arm("no-decay", "dense")):
        return nothing
    seeds = grokked_seeds(found.arm("no-decay", "dense"))
    names = ("pruned 0.81, no decay", "pruned 0.6, no decay")
    best, other = (of_seeds(found.arm("no-decay", name), seeds) for name in names)
    said = f"{best.name}: {best.reached()} of {len(best)}; {other.name}: {other.reached()} of {len(other)}"
    ahead = (best.reached() - other.reached()) / len(best)
    return Finding("reproduced" if ahead >= 0.6 else "partly" if ahead >= 0.2 else "not reproduced", said)


def judge_edge_popup(found: Evidence) -> Finding:
    popup, frozen, decayed = (found.arm("edge-popup", name) for name in ("edge-popup", "frozen", "decay"))
    if 2 * frozen.reached("t_memorised") <= len(frozen):
        return Finding("not comparable", f"memorised: {frozen.said('t_memorised')}", "most runs have not memorised")
    ends, control = popup.final("held_out_accuracy"), frozen.final("held_out_accuracy")
    said = f"held-out accuracy ended at {np.median(ends):.2f} (median of {len(ends)}); with all weights kept, "
    said += f"frozen, at {np.median(control):.2f}"
    if 2 * decayed.reached() <= len(decayed):
        reason = f"with decay, too, most do not generalise within {decayed.budget:,} steps, where theirs take 1,000"
        return Finding("not comparable", said, reason)
    share = float(np.mean(ends >= 0.85))
    if popup.budget < 5000 and share < 0.8:
        return Finding("not comparable", said, "the budget was cut")
    if share >= 0.8 and np.median(control) <= 0.5:
        return Finding("reproduced", said)
    raised = float(np.median(ends) - np.median(control))
    return Finding("partly" if raised >= 0.2 else "not reproduced", said)


def judge_table(found: Evidence) -> Finding:
    said = "; ".join(f"{name}: {arm.said()}" for name, arm in found.arms["edge-popup"].items())
    reason = "which network and which settings the table belongs to is not said: with decay it groks in 1,000 steps"
    return Finding("not comparable", said, reason)


def judge_small(experiment: str) -> Any:
    """For the transformer and MNIST: the ticket sooner than dense, and than a dense one of its norm."""

    def judge(found: Evidence) -> Finding:
        dense = found.arm(experiment, "dense")
        if nothing := no_tickets(dense):
            return nothing
        seeds = grokked_seeds(dense)
        ratios = {
            name: compared(
                of_seeds(found.arm(experiment, "ticket"), seeds), of_seeds(found.arm(experiment, name), seeds)
            )
            for name in ("dense", "equal l2")
        }
        said = "; ".join(f"to {name}: {ratio_said(each)}" for name, each in ratios.items())
        return all_hold({f"two thirds of the steps of {n}": sooner(r, 2 / 3) for n, r in ratios.items()}, said)

    return judge


EARLY = (
    "reproduced: median ratio to dense at least 0.9, and the grokked ticket's to it at most 0.5, the interval below 1; "
    "partly: only the latter; otherwise not; not comparable: most dense runs not grokked, or grokked before that moment"
)
SMALL_RULE = (
    "reproduced: median ratio at most 2/3 and the interval below 1 to both; partly: to one; not: to none; not "
    "comparable: most dense runs not grokked"
)

STUDY = Study(
    name="tickets2023",
    title="Grokking tickets: structure, not norm",
    papers=(
        "Minegishi et al. 2023, Bridging Lottery Ticket and Grokking (arXiv 2310.19470)",
        "code: gouki510/Grokking-Tickets",
    ),
    experiments={
        "tuning": setting(GRID, steps=15_000, seeds=2, first=0),
        "mlp": main_experiment,
        "at-start": setting(AT_START, steps=40_000),
        "rates": setting(SWEEP, steps=30_000, budget=FULL_BATCH | {"evaluate_every": 20}),
        "no-decay": setting(WITHOUT_DECAY, steps=30_000, precision="float64"),
        "edge-popup": setting(EDGE_POPUP, steps=5000),
        "transformer": setting(SMALL, steps=15_000, model=TRANSFORMER),
        "mnist": setting(
            {name: {**arm, "loss": "mean_squared_error"} for name, arm in MNIST.items()},
            steps=30_000,
            task=DIGITS,
            model=PERCEPTRON,
            definitions={"memorised": 0.95, "grokked": 0.85},
            budget=FULL_BATCH | {"evaluate_every": 500},
        ),
    },
    quick={
        "*": ("seeds.count=1",),
        "tuning": ("budget.steps=1000",),
        "mlp": ("budget.steps=40000",),
        "at-start": ("budget.steps=3000",),
        "rates": ("budget.steps=1000",),
        "no-decay": ("budget.steps=1000",),
        "edge-popup": ("budget.steps=1500",),
        "transformer": ("budget.steps=5000",),
        "mnist": ("budget.steps=5000",),
    },
    calculate=calculate,
    claims=(
        Claim(
            "dense",
            "The dense network groks after about 25,000 steps.",
            "figure 1, repository assets/fig1.png",
            "held-out accuracy about 0.97 at 25,000, one run, read off",
            "median t_grokked over 5 seeds, 40,000 steps at most",
            "reproduced: 20,000 to 31,250; partly: from 13,333 on; otherwise not, or not reached within 40,000 steps",
            judge_dense,
        ),
        Claim(
            "accelerates",
            "A ticket of a grokked network groks far sooner than the dense network.",
            "figure 1",
            "at about 2,000 instead of 25,000 steps, one run, read off",
            "paired ratio of t_grokked to dense, 5 seeds, 0.6 pruned",
            "reproduced: median ratio at most 1/3 and the interval below 1; partly: the interval below 1; otherwise "
            "not; not comparable: most dense runs not grokked",
            judge_accelerates,
        ),
        Claim(
            "tuned",
            "Its advantage holds against a dense network tuned with nine settings.",
            "not claimed; the control that the paper lacks",
            "none",
            "paired ratio of t_grokked to a dense AdamW of a 3 x 3 grid of rate and decay, tuned on seeds 0 and 1; the "
            "ticket keeps the published rate and decay",
            "reproduced: median ratio at most 0.9 and the interval below 1; partly: the interval below 1; otherwise "
            "not",
            judge_tuned,
        ),
        Claim(
            "memorised",
            "A ticket of a network that has only memorised does not accelerate.",
            "figure 4a",
            "tickets from before 25,000 steps do not generalise fully",
            "t_grokked of tickets taken at train accuracy 0.95, paired with dense and with grokked tickets, 5 seeds",
            EARLY,
            judge_early("memorised ticket"),
        ),
        Claim(
            "transition",
            "A ticket from the middle of the transition does not accelerate either.",
            "figure 1 (0.95 at about 30,000 steps, later than dense); figure 4a",
            "about 30,000 instead of 25,000 steps, taken at 15,500, one run, read off",
            "likewise of tickets taken at 0.62 of the dense network's median t_grokked on seeds 0 and 1; at step "
            "15,500 where these have not grokked in 15,000",
            EARLY,
            judge_early("transition ticket"),
        ),
        Claim(
            "limited",
            "The final accuracy of a ticket is that of the dense network at the time when it was taken.",
            "figure 4a",
            "equal, for times before 25,000 (but the ticket of figure 1 goes on to 1.0)",
            "held-out accuracy of the dense network then, and of the ticket at its end, after 40,000 steps whether it "
            "groks or not, both kinds of tickets",
            "reproduced: median difference at most 0.1 for both; partly: for one; otherwise not",
            judge_limited,
        ),
        Claim(
            "norm",
            "Dense networks of the same initial norm are slower than the ticket.",
            "the section on dense networks of equal norm (figure not checked)",
            "both the L1 and the L2 control grok later",
            "paired ratio of t_grokked of the ticket to dense networks scaled to its L1 and to its L2 norm, 5 seeds",
            "reproduced: median ratio at most 0.5 and the interval below 1 for both; partly: for one; otherwise not",
            judge_norm,
        ),
        Claim(
            "at-start",
            "Pruning at initialisation is worse than not pruning.",
            "figure 5b, appendix D",
            "random, SNIP, GraSP and SynFlow are all slower than the dense network",
            "paired ratio of t_grokked to dense, 0.6 pruned, 5 seeds, 40,000 steps at most",
            "reproduced: the whole interval above 1 for all four; partly: for some; not: for none",
            judge_at_start,
        ),
        Claim(
            "structure",
            "The ticket groks sooner than networks pruned as much at initialisation.",
            "figure 5b",
            "all four are slower",
            "paired ratio of t_grokked of the ticket to each of them, 5 seeds",
            "reproduced: median ratio at most 0.5 and the interval below 1 for all four; partly: for some; else not",
            judge_structure,
        ),
        Claim(
            "rate",
            "The best share to prune is 0.7.",
            "figure 3a",
            "t_grokked / t_memorised is least at 0.7",
            "median of that ratio over 5 seeds for 0.3, 0.5, 0.6, 0.7, 0.8, 0.9 pruned, evaluated every 20 steps; "
            "infinite where not grokked",
            "reproduced: least at 0.7; partly: at 0.6 or 0.8; otherwise not",
            judge_rate,
        ),
        Claim(
            "too-much",
            "With 0.9 pruned, tickets do not generalise.",
            "figure 3 and the first version of the paper",
            "accuracy stays at about 0.4",
            "share of the tickets that grok within 30,000 steps, 5 seeds",
            "reproduced: at most 20 % with 0.9, at least 80 % with 0.6 pruned; partly: at most 50 %; otherwise not",
            judge_too_much,
        ),
        Claim(
            "no-decay",
            "A ticket of the right pruning rate, 0.81, groks without weight decay.",
            "appendix H",
            "full generalisation at 0.81, of rates 0.80 to 0.90, MLP only",
            "share of runs that grok within 30,000 steps without decay, from tickets of runs with decay, 5 seeds, in "
            "float64",
            "reproduced: at least 80 % of the tickets and at most 20 % of the dense networks without decay; partly: at "
            "least 40 % of the tickets and more than of the dense ones; otherwise not",
            judge_no_decay,
        ),
        Claim(
            "critical",
            "Without decay the pruning rate decides: 0.81 groks where the usual 0.6 does not.",
            "appendix H",
            "0.81 is critical (fitted in steps of 0.01)",
            "share of tickets that grok without decay with 0.81 and with 0.6 pruned, 5 seeds, in float64",
            "reproduced: 60 percentage points more with 0.81; partly: 20; otherwise not",
            judge_critical,
        ),
        Claim(
            "edge-popup",
            "Choosing weights alone, without training them, leads a memorising network to generalisation.",
            "table 1, appendix A",
            "held-out accuracy 0.92 +- 0.06 after 2,000 steps from the memorising network",
            "held-out accuracy at the end of 5,000 steps, weights frozen at train accuracy 0.95, 0.4 of them kept, "
            "and of frozen networks of which all are kept, 5 seeds",
            "reproduced: at least 0.85 in 80 % of runs, where frozen networks end below 0.5; partly: 0.2 above these; "
            "otherwise not; not comparable: most networks with decay do not generalise in that time either",
            judge_edge_popup,
        ),
        Claim(
            "edge-popup-numbers",
            "From the memorising network, decay reaches 0.95 in 1,000 steps, edge-popup 0.92 in 2,000.",
            "table 1",
            "decay 0.53, 0.95, 1.00, 1.00 at 600, 1,000, 1,400, 2,000; edge-popup 0.68, 0.80, 0.84, 0.92",
            "not judged",
            "not comparable: the network and its settings are unknown",
            judge_table,
        ),
        Claim(
            "transformer",
            "The same holds for a transformer: the ticket groks sooner than dense networks, of its norm, too.",
            "its other configurations (place not checked)",
            "sooner; no steps known to us",
            "paired ratio of t_grokked to dense and to the L2 control, one layer, 5 seeds",
            SMALL_RULE,
            judge_small("transformer"),
        ),
        Claim(
            "mnist",
            "The same holds for MNIST.",
            "its other configurations (place not checked)",
            "sooner; no steps known to us",
            "paired ratio of the steps to held-out accuracy 0.85, 1,000 images, weights eight times too large, 5 seeds",
            SMALL_RULE,
            judge_small("mnist"),
        ),
    ),
    deviations=(
        "The authors list every pair once (2,278 pairs; the paper says 2,211); here both orders of a pair are on the "
        "same side of the split, which for the MLP differs in the weight of the pairs (a, a) only. The transformer "
        "sees both.",
        "Five seeds, where the paper has three. Budgets are 30,000 or 40,000 steps where it shows up to 50,000: "
        "`--set mlp:budget.steps=50000` runs the main one in full.",
        "The transformer is that of the code (no positions, no biases), not that of the paper.",
        "MNIST has 30,000 steps where theirs has 100,000 (`--set mnist:budget.steps=100000`), the first 1,000 test "
        "images as in their code, and is evaluated on 10,000 of the training images; networks have no biases, as in "
        "their code.",
        "Networks and losses are float32, where their code has the cross-entropy in float64; only the runs without "
        "decay, where rounding may end training, are float64 here, all of it. The pruning rates were to be float64, "
        "too, and evaluated every 10 steps, which two runs showed to take hours.",
        "Norms of the dense controls are those of whole networks, where their code takes means over tensors. One "
        "stored version of their `prune.py` takes the mask off neurons of which all weights were pruned; here it "
        "stays.",
        "No decay beside the scores of edge-popup: theirs is not known. Before memorisation all arms have decay 1.",
        "Other operations, polynomial regression and parity are not repeated: no settings are given. Nor are its graph "
        "metrics, whose construction is not specified.",
    ),
)
