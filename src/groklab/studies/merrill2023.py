"""A tale of two circuits: at the transition, does a sparse subnetwork of 6 to 8 neurons take over from a dense one?

Merrill, Tsilivis & Shukla 2023 (arXiv 2303.11873, code Tsili42/parity-nn): the product of 3 of 40 signs from 1,000
examples, one hidden layer of 1,000 neurons, hinge loss, gradient descent with rate 0.1, batches of 32 and decay 0.01,
300 epochs, 5 seeds. The active subnetwork is the smallest set of neurons of greatest incoming norm with the training
accuracy of the whole network: 6, 6, 6, 8 and 8 neurons in the end. Here are a run without decay and a test whether the
two subnetworks answer for the network, too; what the paper has of the latter is not known to us.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from groklab.studies.claims import Arm, Claim, Evidence, Finding, all_hold
from groklab.studies.study import TUNING_SEEDS, Study

if TYPE_CHECKING:
    from groklab.result import Result, Run

EPOCH = 32  # updates: 31 batches of 32 examples and one of 8
BITS = 40
NEURONS = "active_subnetwork.neurons"
PROBES = 4096  # fresh examples to compare subnetworks on


def setting(arms: dict[str, Any], k: int, epochs: int, every: int, seeds: int) -> dict[str, Any]:
    """Its network and task; moments are kept to follow the neurons' norms."""
    return {
        "task": {"kind": "parity", "n": BITS, "k": k, "train_size": 1000, "test_size": 2000},
        "model": {"kind": "mlp", "width": 1000, "biases": "hidden"},
        "budget": {
            "steps": epochs * EPOCH,
            "batch_size": 32,
            "evaluate_every": every * EPOCH,
            "train_metrics": "evaluated",
            "stop": "never",
        },
        "definitions": {"memorised": 0.98, "grokked": 0.95},
        "seeds": {"count": seeds, "first": TUNING_SEEDS},
        "checkpoints": [0, "memorised", "grokked"],
        "measures": [{"kind": "active_subnetwork"}, {"kind": "norms"}],
        "arms": arms,
    }


def sgd(decay: float) -> dict[str, Any]:
    return {"loss": "hinge", "optimizer": {"kind": "sgd", "learning_rate": 0.1, "l2": decay}}


def calculate(results: Mapping[str, Result]) -> dict[str, Any]:
    """Of every run that has grokked: when the active subnetwork shrank; in "main" also what its neurons did."""
    found: dict[str, Any] = {}
    for experiment, result in results.items():
        grokked = [run for run in result.runs if run.row.t_memorised is not None and run.row.t_grokked is not None]
        for run in grokked:
            about = found.setdefault(experiment, {}).setdefault(run.row.arm, {}).setdefault(str(run.row.seed), {})
            about |= shrinking(run)
            if experiment == "main":
                about |= circuits(networks(result, run), about["memorised"], about["end"])
    return found


def shrinking(run: Run) -> dict[str, Any]:
    """Size of the active subnetwork when memorised and in the end, and when it came to be nearer to the latter.

    Nearer in ratio: at most the geometric mean of both, to the end of the run.
    """
    step, size = run.curves["step"], run.curves[NEURONS]
    memorised, end = float(size[step >= run.row.t_memorised][0]), float(size[-1])
    above = np.flatnonzero(size > np.sqrt(memorised * end))
    small = int(step[min(above[-1] + 1, len(step) - 1)]) if len(above) else 0
    return {"memorised": int(memorised), "end": int(end), "shrunk": small, "t_grokked": run.row.t_grokked}


def networks(result: Result, run: Run) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Incoming weights [n, bits], biases [n] and outgoing weights [n] at each moment that was kept."""
    from groklab.engine.checkpoint import KEPT
    from groklab.store.workspace import Workspace

    with Workspace.open(result.workspace, writable=False) as store:
        kept = store.checkpoint(run.row.id)
    arrays = kept[1] if kept else {}
    moments = {moment: f"{KEPT}{moment}." for moment in ("0", "memorised", "grokked")} | {"end": "model."}
    return {
        moment: (
            arrays[f"{prefix}hidden.0.weight"],
            arrays[f"{prefix}hidden.0.bias"],
            arrays[f"{prefix}head.weight"][0],
        )
        for moment, prefix in moments.items()
    }


def circuits(at: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]], dense: int, sparse: int) -> dict[str, Any]:
    """Mean incoming norms of the sparse, dense and other neurons at each moment, and for whom each set answers.

    The sparse neurons are the active subnetwork of the end, the dense ones that of memorisation without these. Shares
    of fresh examples: `agrees` with the whole network at that moment, `right` in the end; `control` has as many neurons
    as the sparse one, drawn at random.
    """
    norms = {moment: np.linalg.norm(weights, axis=1) for moment, (weights, _, _) in at.items()}
    generator = np.random.default_rng(0)
    final = np.zeros(len(norms["end"]), bool)
    final[np.argsort(-norms["end"], kind="stable")[:sparse]] = True
    early = np.zeros_like(final)
    early[np.argsort(-norms["memorised"], kind="stable")[:dense]] = True
    early &= ~final
    control = generator.permutation(final)
    inputs = generator.choice([-1.0, 1.0], (PROBES, BITS))
    truth = inputs[:, :3].prod(axis=1) > 0

    def answers(moment: str, neurons: np.ndarray) -> np.ndarray:
        weights, biases, outgoing = at[moment]
        return np.maximum(inputs @ weights.T + biases, 0) @ (outgoing * neurons) > 0

    def mean(moment: str, neurons: np.ndarray) -> float | None:
        return float(f"{norms[moment][neurons].mean():.4g}") if neurons.any() else None

    everything = np.ones_like(final)
    sets = {"sparse": final, "rest": ~final}
    groups = {"sparse": final, "dense": early, "others": ~final}
    return {
        "norms": {name: {moment: mean(moment, neurons) for moment in at} for name, neurons in groups.items()},
        "agrees": {
            name: {
                moment: float(np.mean(answers(moment, neurons) == answers(moment, everything)))
                for moment in ("memorised", "end")
            }
            for name, neurons in sets.items()
        },
        "right": {
            name: float(np.mean(answers("end", neurons) == truth))
            for name, neurons in {**sets, "control": control}.items()
        },
    }


# --- judges ----------------------------------------------------------------------------------------------------------


def too_few(arm: Arm) -> Finding | None:
    """Nothing can be said of a transition that most runs have not made."""
    if 2 * arm.reached() > len(arm):
        return None
    return Finding("not comparable", arm.said(), "most runs have not grokked within this budget")


def runs_of(found: Evidence, experiment: str, arm: str) -> list[Mapping[str, Any]]:
    return list(found.calculated.get(experiment, {}).get(arm, {}).values())


def judge_grokked(found: Evidence) -> Finding:
    arm = found.arm("main", "published")
    early, late = arm.median("t_memorised").median, arm.median().median
    said = f"memorised: {arm.said('t_memorised')}; grokked: {arm.said()}"
    delayed = early is not None and late is not None and late >= 2 * early
    return all_hold({"80 % of runs grok": arm.reached() >= 0.8 * len(arm), "twice as late as memorised": delayed}, said)


def judge_sizes(found: Evidence) -> Finding:
    arm = found.arm("main", "published")
    if nothing := too_few(arm):
        return nothing
    sizes = sorted(run["end"] for run in runs_of(found, "main", "published"))
    said = f"sizes in the end {', '.join(map(str, sizes))}"
    share = float(np.mean([6 <= size <= 8 for size in sizes]))
    nearly = float(np.mean([4 <= size <= 16 for size in sizes]))
    if share >= 0.8:
        return Finding("reproduced", said)
    return Finding("partly" if share >= 0.5 or nearly >= 0.8 else "not reproduced", said)


def judge_collapse(experiment: str, arm: str, least: float) -> Any:
    """The subnetwork shrinks by that factor, and does so at the transition."""

    def judge(found: Evidence) -> Finding:
        if nothing := too_few(found.arm(experiment, arm)):
            return nothing
        runs = runs_of(found, experiment, arm)
        factors = [run["memorised"] / run["end"] for run in runs]
        when = [run["shrunk"] / run["t_grokked"] for run in runs]
        said = f"from {np.median([run['memorised'] for run in runs]):.0f} neurons when memorised to "
        said += f"{np.median([run['end'] for run in runs]):.0f} in the end (medians of {len(runs)}); shrunk at "
        said += f"{np.median(when):.2f} ({min(when):.2f} to {max(when):.2f}) of the steps to grok"
        return all_hold(
            {
                f"{least:g} times fewer neurons": float(np.mean(np.array(factors) >= least)) >= 0.8,
                "at the transition": float(np.mean([2 / 3 <= ratio <= 1.5 for ratio in when])) >= 0.8,
            },
            said,
        )

    return judge


def ratios(runs: list[Mapping[str, Any]], one: tuple[str, str], other: tuple[str, str]) -> list[float]:
    """Of two mean norms, each given by group and moment; runs in which a group is empty are left out."""
    pairs = [(run["norms"][one[0]][one[1]], run["norms"][other[0]][other[1]]) for run in runs]
    return [a / b for a, b in pairs if a is not None and b]


def judge_norms(found: Evidence) -> Finding:
    if nothing := too_few(found.arm("main", "published")):
        return nothing
    runs = runs_of(found, "main", "published")
    before = np.median(ratios(runs, ("sparse", "memorised"), ("others", "memorised")))
    growth = np.median(ratios(runs, ("sparse", "grokked"), ("sparse", "memorised")))
    after = np.median(ratios(runs, ("sparse", "end"), ("others", "end")))
    said = f"sparse to other neurons {before:.2f} when memorised, {after:.3g} in the end; sparse ones grew "
    said += f"{growth:.2f} times from memorised to grokked (medians of {len(runs)})"
    return all_hold(
        {
            "like the others when memorised": bool(before <= 1.5),
            "grown twofold at the transition": bool(growth >= 2),
            "ten times the others in the end": bool(after >= 10),
        },
        said,
    )


def judge_fades(found: Evidence) -> Finding:
    if nothing := too_few(found.arm("main", "published")):
        return nothing
    runs = runs_of(found, "main", "published")
    left = ratios(runs, ("dense", "end"), ("dense", "memorised"))
    if not left:
        return Finding("not comparable", "no run", "no neuron was active when memorised but not in the end")
    middle = float(np.median(left))
    said = f"mean norm in the end {middle:.3g} ({min(left):.3g} to {max(left):.3g}) of that when memorised"
    return Finding("reproduced" if middle <= 0.1 else "partly" if middle <= 0.5 else "not reproduced", said)


def judge_answers(found: Evidence) -> Finding:
    if nothing := too_few(found.arm("main", "published")):
        return nothing
    runs = runs_of(found, "main", "published")
    agrees = {
        (name, moment): float(np.median([run["agrees"][name][moment] for run in runs]))
        for name in ("sparse", "rest")
        for moment in ("memorised", "end")
    }
    said = "agreement with the network: " + "; ".join(
        f"{name}, {moment}: {value:.2f}" for (name, moment), value in agrees.items()
    )
    return all_hold(
        {
            "the rest answers when memorised": agrees["rest", "memorised"] >= 0.9,
            "the sparse one does not yet": agrees["sparse", "memorised"] <= 0.75,
            "the sparse one answers in the end": agrees["sparse", "end"] >= 0.95,
            "the rest no longer does": agrees["rest", "end"] <= 0.75,
        },
        said,
    )


def judge_right(found: Evidence) -> Finding:
    if nothing := too_few(found.arm("main", "published")):
        return nothing
    runs = runs_of(found, "main", "published")
    right = {name: float(np.median([run["right"][name] for run in runs])) for name in ("sparse", "rest", "control")}
    said = "right in the end: " + ", ".join(f"{name} {value:.2f}" for name, value in right.items())
    return all_hold(
        {
            "the sparse one 0.95": right["sparse"] >= 0.95,
            "the rest at chance": right["rest"] <= 0.6,
            "as many others at chance": right["control"] <= 0.6,
        },
        said,
    )


def judge_decay(found: Evidence) -> Finding:
    plain, decayed = found.arm("weak-decay", "no decay"), found.arm("main", "published")
    if nothing := too_few(decayed):
        return nothing
    with_decay, without = (np.median(arm.final(NEURONS)) for arm in (decayed, plain))
    said = f"without decay {plain.said()}, {without:.0f} active neurons in the end; with it {with_decay:.0f}"
    return all_hold(
        {
            "at most 20 % grok without decay": plain.reached() <= 0.2 * len(plain),
            "ten times as many active neurons": bool(without >= 10 * with_decay),
        },
        said,
    )


COLLAPSE_RULE = (
    "reproduced: in 80 % of the runs that grok so many times fewer, and in 80 % half of the fall (in ratio) is done "
    "for good between 2/3 and 1.5 of t_grokked; partly: one of them; not: neither; not comparable: most runs have not "
    "grokked"
)

STUDY = Study(
    name="merrill2023",
    title="Two circuits: sparse against dense",
    papers=("Merrill, Tsilivis & Shukla 2023, A Tale of Two Circuits (arXiv 2303.11873)", "code: Tsili42/parity-nn"),
    experiments={
        "main": setting({"published": sgd(0.01), "no decay": sgd(0.0)}, k=3, epochs=300, every=1, seeds=10),
        "weak-decay": setting({"published": sgd(0.001), "no decay": sgd(0.0)}, k=3, epochs=3000, every=10, seeds=5),
        "four-bits": setting({"published": sgd(0.01)}, k=4, epochs=3000, every=10, seeds=5),
    },
    quick={
        "main": ("seeds.count=3",),
        "weak-decay": ("seeds.count=1",),
        "four-bits": ("seeds.count=1", "budget.steps=32000"),
    },
    curves=(NEURONS, "active_subnetwork.faithfulness", "norms.l2"),
    figures={"main": (NEURONS, "norms.l2")},
    calculate=calculate,
    claims=(
        Claim(
            "groks",
            "A network of 1,000 neurons groks the parity of 3 of 40 signs.",
            "the paper's main experiment (place not checked)",
            "long after memorisation, within 300 epochs, 5 of 5 seeds",
            "t_memorised (0.98) and t_grokked (0.95) over 10 seeds, 300 epochs",
            "reproduced: 80 % of runs grok, at a median of at least twice t_memorised; partly: one; otherwise not",
            judge_grokked,
        ),
        Claim(
            "sizes",
            "The network that is left has 6 to 8 active neurons.",
            "the paper's main experiment (place not checked)",
            "6, 6, 6, 8, 8",
            "size of the active subnetwork (same training accuracy, as in the code) after 300 epochs, runs that grok",
            "reproduced: 6 to 8 in 80 % of runs; partly: in half, or 4 to 16 in 80 %; otherwise not",
            judge_sizes,
        ),
        Claim(
            "collapse",
            "The active subnetwork shrinks by orders of magnitude at the transition.",
            "the paper's main experiment (place not checked)",
            "from hundreds of neurons to less than ten",
            "size at t_memorised over that in the end, and when it shrank, 10 seeds; 20 is asked of two orders, 100",
            COLLAPSE_RULE + "; so many: 20",
            judge_collapse("main", "published", 20),
        ),
        Claim(
            "norms",
            "The neurons that are left were like all others, and grow only at the transition.",
            "the paper's main experiment (place not checked)",
            "equal norms until slightly before the transition, then fast growth",
            "mean incoming norm of the final active neurons and of all others when memorised, when grokked, in the end",
            "reproduced: medians at most 1.5 times the others when memorised, grown at least twofold by t_grokked, ten "
            "times the others in the end; partly: some of it; otherwise not",
            judge_norms,
        ),
        Claim(
            "fades",
            "The dense, memorising neurons die out.",
            "the paper's main experiment (place not checked)",
            "they grow slightly and then decay to nothing",
            "mean incoming norm, end over memorised, of neurons active then (0.98 accuracy) and not in the end",
            "reproduced: median at most 0.1; partly: at most 0.5; otherwise not",
            judge_fades,
        ),
        Claim(
            "competition",
            "Before the transition the dense subnetwork answers for the network, afterwards the sparse one.",
            "the paper's main experiment (place not checked)",
            "two circuits compete; values are not known to us",
            "share of 4,096 fresh examples on which the final active neurons, or all others, give the network's answer",
            "reproduced: others at least 0.9 and sparse at most 0.75 when memorised, sparse at least 0.95 and others "
            "at most 0.75 in the end (medians); partly: some of it; otherwise not",
            judge_answers,
        ),
        Claim(
            "sufficient",
            "The sparse subnetwork alone is right; all others, and as many random neurons, are not.",
            "the paper's main experiment (place not checked)",
            "such sets are compared; values are not known to us",
            "share of 4,096 fresh examples answered rightly in the end by each set of neurons (medians)",
            "reproduced: sparse at least 0.95, others and control at most 0.6; partly: some of it; otherwise not",
            judge_right,
        ),
        Claim(
            "decay",
            "The sparse subnetwork wins because of weight decay.",
            "the paper's explanation; it has no run without decay",
            "none",
            "runs without decay, 5 seeds, 3,000 epochs, which decay 0.001 needs, and runs with decay 0.01, 10 seeds, "
            "300 epochs",
            "reproduced: at most 20 % grok without decay, which leaves ten times as many active neurons; partly: one "
            "of them; otherwise not",
            judge_decay,
        ),
        Claim(
            "weak-decay",
            "The same happens with a tenth of the decay.",
            "the paper's further runs (place not checked)",
            "the same transition with decay 0.001",
            "as for collapse, decay 0.001, 3,000 epochs, 5 seeds",
            COLLAPSE_RULE + "; so many: 10",
            judge_collapse("weak-decay", "published", 10),
        ),
        Claim(
            "four-bits",
            "The same happens with the parity of four signs.",
            "the paper's further runs (place not checked)",
            "the same transition with k = 4",
            "as for collapse, k = 4, decay 0.01, 3,000 epochs, 5 seeds",
            COLLAPSE_RULE + "; so many: 10",
            judge_collapse("four-bits", "published", 10),
        ),
    ),
    deviations=(
        "Held-out examples are 2,000, and others for each seed, where the code has the same 100 for all.",
        "The code bisects for the size of the subnetwork after 20 epochs; here all sizes are tried.",
        "Epochs of the runs with four bits and with weak decay are not known; they are 3,000 here.",
        "Runs without decay had 300 epochs in a first run, too few for decay 0.001, too; their claim is about 3,000 "
        "since.",
        "The side check on modular addition and division with a transformer is not repeated.",
    ),
)
