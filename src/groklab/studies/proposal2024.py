"""The founding proposal: do curricula, regularisation, pruning, schedules, architecture shorten grokking, and together?

"Optimizing Grokking Efficiency" (M. Taj, November 2024) asks three questions: what structured learning dynamics do, how
regularisation and curricula can be combined, and whether changes of the architecture help; it expects Fourier analysis
to find what to prune, learning-rate schedules to stabilise, and a combination to reach generalisation with less
compute. It has no numbers. Here every lever is compared with a tuned AdamW by paired seeds, on addition mod 97
(Grokfast's transformer) and on the parity of 3 of 40 bits (Merrill's perceptron, 1,000 examples). Learning rate and
decay are tuned for every lever, changed architecture and combination: six settings on two seeds that report nothing.
So are they for AdamW on parities; on addition its best four have six seeds more, since the setting that two seeds had
chosen fails on most others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from groklab.statistics.paired import PairedRatio, holm
from groklab.studies.baselines import GRID, comparison
from groklab.studies.claims import Arm, Claim, Evidence, Finding, below_one, compared, ratio_said
from groklab.studies.study import Study

Recipe = dict[str, Any]

PAIRS = 8  # the fewest of which the best of five levers can be significant after Holm's correction
FIRST, FIRST_TOGETHER = 300, 400  # reporting seeds
STEPS = 1500  # on addition: nearly four times what the tuned AdamW takes on the seeds that it was tuned on
TUNING_STEPS = 1000  # settings that take longer would hardly be chosen
TRIED = {name: recipe for name, recipe in GRID.items() if "0.0003" not in name}
SIGNS = {"kind": "parity", "n": 40, "k": 3, "train_size": 1000, "test_size": 2000}
PERCEPTRON = {"kind": "mlp", "width": 1000, "biases": "hidden"}

Levers = dict[str, dict[str, Recipe]]  # by class and name: what each adds to AdamW, or puts in its place


def on_sums(time: int) -> Levers:
    """Levers on addition; lengths go by the steps that the tuned AdamW takes to grok."""
    half, later = {"steps": max(time // 2, 1)}, {"kind": "after_step", "step": max(time // 4, 1)}
    return {
        "curricula": {
            "operands growing": {"curricula": [{"kind": "operands_growing", **half}]},
            "easy first": {"curricula": [{"kind": "easy_first", "by": "carry", **half}]},
            "mirrored first": {"curricula": [{"kind": "commutative_pairs", **half}]},
            "self-paced": {"curricula": [{"kind": "self_paced", **half}]},
        },
        "regularisation": {
            "compression": {"methods": ["delayed_compression"]},
            "nuclear norm": {"methods": [{"kind": "nuclear_norm", "strength": 0.01, "refresh_every": 4}]},
            "norm cap": {"methods": [{"kind": "norm_cap", "multiple": 1.0}]},
        },
        "pruning": {
            "fourier pruning": {"methods": [{"kind": "fourier_pruning", "modulus": 97}]},
            "fourier pruning, later": {
                "methods": [{"kind": "fourier_pruning", "modulus": 97, "when": {"kind": "then", "second": later}}]
            },
            "gradual pruning": {"methods": [pruned(time)]},
        },
        "schedules": {
            "cosine": {"schedule": {"kind": "cosine", "steps": 2 * time}},
            "cyclic": {"schedule": {"kind": "cyclic", "period": time}},
            "rewarming": {"schedule": {"kind": "rewarming", "period": time, "warmup_steps": time // 5}},
        },
        "optimisers": {
            "muon": {"optimizer": "muon"},
            "muon, capped": {"optimizer": "muon", "methods": [{"kind": "norm_cap", "multiple": 1.0}]},
            "clip to grok": {
                "optimizer": {"kind": "lion", "beta2": 0.97, "weight_decay": 0.0},
                "methods": [{"kind": "row_norm_clip", "norm": 2.0}],
            },
        },
    }


def on_signs(time: int) -> dict[str, Recipe]:
    """Levers on parities, likewise."""
    return {
        "self-paced": {"curricula": [{"kind": "self_paced", "steps": max(time // 2, 1)}]},
        "compression": {"methods": ["delayed_compression"]},
        "l1": {"methods": [{"kind": "l1_penalty", "strength": 1e-4}]},
        "gradual pruning": {"methods": [pruned(time)]},
        "cosine": {"schedule": {"kind": "cosine", "steps": 2 * time}},
    }


def pruned(time: int) -> Recipe:
    return {"kind": "gradual_pruning", "final_sparsity": 0.6, "steps": time, "every": max(time // 20, 1)}


NAMES = {kind: tuple(of_class) for kind, of_class in on_sums(1).items()}
ON_PARITIES = tuple(on_signs(1))
COMBINED = ("curricula", "regularisation", "pruning", "schedules")
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "one-layer": {"layers": 1},
    "no-norm": {"norm": "none"},
    "spherical": {"norm": "spherical"},
    "uniform": {"attention": "uniform"},
}


def addition(arms: Mapping[str, Recipe], tuning: int = 0, first: int = FIRST, **model: Any) -> Recipe:
    """An experiment on addition, with a changed network if need be; on tuning seeds for `tuning` steps, if any."""
    spec = comparison("a+b", arms, 2 if tuning else PAIRS, 0 if tuning else first, tuning or STEPS)
    return spec | {"model": spec["model"] | model}


def parity(arms: Mapping[str, Recipe], tuning: bool = False) -> Recipe:
    """An experiment on parities, with the hinge loss."""
    return {
        "task": SIGNS,
        "model": PERCEPTRON,
        "budget": {"steps": 30_000, "batch_size": 32, "evaluate_every": 25},
        "seeds": {"count": 2, "first": 0} if tuning else {"count": PAIRS, "first": FIRST},
        "checkpoints": [],
        "arms": {name: arm | {"loss": "hinge"} for name, arm in arms.items()},
    }


def together(*levers: Recipe) -> Recipe:
    """One recipe of several: their methods and curricula one after the other."""
    recipe: Recipe = {}
    for lever in levers:
        for part, value in lever.items():
            recipe[part] = [*recipe.get(part, []), *value] if isinstance(value, list) else value
    return recipe


def tries(levers: Mapping[str, Recipe]) -> dict[str, Recipe]:
    """Every lever with every setting of AdamW that is tried."""
    return {
        f"{name}, {tried}": together(base, lever) for name, lever in levers.items() for tried, base in TRIED.items()
    }


def chosen(found: Evidence, tuning: str, levers: Mapping[str, Recipe]) -> dict[str, Recipe]:
    """Every lever with the setting that has the smallest restricted mean time to grok."""
    settings = {
        name: min(TRIED, key=lambda tried: found.arm(tuning, f"{name}, {tried}").restricted_mean()) for name in levers
    }
    return {name: together(TRIED[settings[name]], lever) for name, lever in levers.items()}


def four_best(found: Evidence) -> list[str]:
    """AdamW's best settings on two seeds."""
    return sorted(TRIED, key=lambda tried: found.arm("tuning-adamw", f"adamw, {tried}").restricted_mean())[:4]


def more_tuning(found: Evidence) -> Recipe:
    spec = addition({tried: TRIED[tried] for tried in four_best(found)}, tuning=STEPS)
    return spec | {"seeds": {"count": 6, "first": 2}}


def baseline(found: Evidence) -> dict[str, Recipe]:
    """The AdamW with the smallest restricted mean time over all eight seeds."""

    def mean(tried: str) -> float:
        two, six = found.arm("tuning-adamw", f"adamw, {tried}"), found.arm("tuning-adamw-more", tried)
        return replace(six, trials=two.trials + six.trials).restricted_mean()

    return {"adamw": TRIED[min(four_best(found), key=mean)]}


def typical_time(found: Evidence, tuning: str) -> int:
    """The mean steps that the tuned AdamW took to grok on the seeds it was tuned on."""
    return round(min(found.arm(tuning, f"adamw, {tried}").restricted_mean() for tried in TRIED))


def levers_on_sums(found: Evidence) -> Levers:
    return on_sums(typical_time(found, "tuning-adamw"))


def tuning_of(kind: str) -> Callable[[Evidence], Recipe]:
    steps = STEPS if kind == "curricula" else TUNING_STEPS
    return lambda found: addition(tries(levers_on_sums(found)[kind]), tuning=steps)


def sums(found: Evidence) -> Recipe:
    """Every lever on addition, beside the tuned AdamW; other optimisers as they are published."""
    levers = levers_on_sums(found)
    arms = chosen(found, "tuning-adamw", {"adamw": {}})
    for kind in COMBINED:
        arms |= chosen(found, f"tuning-{kind}", levers[kind])
    return addition(arms | levers["optimisers"])


def tuning_network(name: str) -> Recipe:
    return addition(tries({"adamw": {}}), TUNING_STEPS, **ARCHITECTURES[name])


def changed(name: str) -> Callable[[Evidence], Recipe]:
    """The experiment of a changed architecture."""
    return lambda found: addition(chosen(found, f"tuning-{name}", {"adamw": {}}), **ARCHITECTURES[name])


def levers_on_signs(found: Evidence) -> dict[str, Recipe]:
    return on_signs(typical_time(found, "tuning-signs"))


def parities(found: Evidence) -> Recipe:
    levers = chosen(found, "tuning-signs-levers", levers_on_signs(found))
    return parity(chosen(found, "tuning-signs", {"adamw": {}}) | levers)


def best(found: Evidence, kind: str) -> str:
    """The lever of a class with the smallest restricted mean time."""
    return found.fastest("sums", NAMES[kind])


def combinations(found: Evidence) -> dict[str, Recipe]:
    """The best lever of a class with that of regularisation, and the best of all classes."""
    levers = levers_on_sums(found)
    one = {kind: levers[kind][best(found, kind)] for kind in COMBINED}
    pairs = {
        f"with {kind}": together(one["regularisation"], one[kind]) for kind in COMBINED if kind != "regularisation"
    }
    return {**pairs, "all": together(*one.values())}


def combined(found: Evidence) -> Recipe:
    """Combinations, and the best lever of every class alone, on fresh seeds."""
    levers, arms = levers_on_sums(found), baseline(found)
    for kind in COMBINED:
        name = best(found, kind)
        arms[kind] = chosen(found, f"tuning-{kind}", {name: levers[kind][name]})[name]
    return addition(arms | chosen(found, "tuning-together", combinations(found)), first=FIRST_TOGETHER)


# --- judges ----------------------------------------------------------------------------------------------------------


def weighed(ratios: Mapping[str, PairedRatio]) -> Finding:
    """Whether any of several levers is faster beyond chance, by Holm's correction for their number."""
    said = "; ".join(f"{name}: {ratio_said(ratio)}" for name, ratio in ratios.items())
    if min(ratio.pairs for ratio in ratios.values()) < PAIRS:
        return Finding("not comparable", said, f"fewer than {PAIRS} pairs of runs")
    if all(ratio.median is None for ratio in ratios.values()):
        return Finding("not comparable", said, "no run generalises, with a lever or without")
    adjusted = holm(ratio.p_value for ratio in ratios.values())
    sure = [name for (name, ratio), p in zip(ratios.items(), adjusted, strict=True) if p <= 0.05 and below_one(ratio)]
    helped = [name for name in sure if (ratios[name].median or 0) <= 0.8]
    if helped:
        return Finding("reproduced", said, f"sooner by a fifth or more: {', '.join(helped)}")
    return Finding("partly" if sure else "not reproduced", said)


def judge_class(kind: str) -> Callable[[Evidence], Finding]:
    return lambda found: weighed(
        {name: compared(found.arm("sums", name), found.arm("baseline", "adamw")) for name in NAMES[kind]}
    )


def judge_fourier(found: Evidence) -> Finding:
    names = ("fourier pruning", "fourier pruning, later")
    return weighed({name: compared(found.arm("sums", name), found.arm("baseline", "adamw")) for name in names})


def judge_architecture(found: Evidence) -> Finding:
    unchanged = found.arm("baseline", "adamw")
    return weighed({name: compared(found.arm(name, "adamw"), unchanged) for name in ARCHITECTURES})


def judge_parity(found: Evidence) -> Finding:
    plain = found.arm("parities", "adamw")
    return weighed({name: compared(found.arm("parities", name), plain) for name in ON_PARITIES})


def best_alone(found: Evidence) -> str:
    """The class, or the plain AdamW, whose best lever did best on the seeds that chose it."""
    base = {"adamw": found.arm("baseline", "adamw").restricted_mean()}
    means = {kind: found.arm("sums", best(found, kind)).restricted_mean() for kind in COMBINED}
    return min(base | means, key=lambda name: (base | means)[name])


def judge_combination(found: Evidence) -> Finding:
    alone = best_alone(found)
    others = [*(f"with {kind}" for kind in COMBINED if kind != "regularisation"), "all"]
    judged = weighed({name: compared(found.arm("combined", name), found.arm("combined", alone)) for name in others})
    return replace(judged, measured=f"to '{alone}' alone: {judged.measured}")


def judge_compute(found: Evidence) -> Finding:
    """A run that has not generalised, for whatever reason, counts with all of its budget."""
    arms = {name: found.arm("combined", name) for name in ("adamw", "all")}
    if min(map(len, arms.values())) < PAIRS:
        return Finding("not comparable", "few seeds", f"fewer than {PAIRS} runs of each arm")
    spent, grokked = {}, {name: arm.reached() for name, arm in arms.items()}
    for name, arm in arms.items():
        each = max(trial.flops / max(trial.steps, 1) for trial in arm.trials)
        spent[name] = sum(each * (trial.steps if trial.t_grokked is not None else arm.budget) for trial in arm.trials)
    said = "; ".join(f"{name}: {spent[name]:.3g} FLOP, {grokked[name]} of {len(arms[name])}" for name in arms)
    if not grokked["all"] or grokked["all"] < grokked["adamw"]:
        return Finding("not reproduced", said, "fewer runs generalise, or none")
    share = spent["all"] / spent["adamw"]
    return Finding("reproduced" if share <= 0.8 else "partly" if share < 1 else "not reproduced", said)


def tables(found: Evidence) -> dict[str, list[list[str]]]:
    """Every lever against the tuned AdamW of the same seeds."""
    plain = found.arm("baseline", "adamw")
    classes = {"none": ("adamw",), **NAMES}
    alone = {(kind, name): (found.arm("sums", name), plain) for kind, of_class in classes.items() for name in of_class}
    networks = {("architecture", name): (found.arm(name, "adamw"), plain) for name in ARCHITECTURES}
    signs = {("parity", name): (found.arm("parities", name), found.arm("parities", "adamw")) for name in ON_PARITIES}
    several = {
        ("together", name): (arm, found.arm("combined", "adamw"))
        for name, arm in found.arms["combined"].items()
        if name != "adamw"
    }
    rows = [
        [kind, name, arm.said(), ratio_said(compared(arm, base)), f"{_per_step(arm) / _per_step(base):.2f}"]
        for (kind, name), (arm, base) in (alone | networks | signs | several).items()
    ]
    header = ["class", "lever", "steps to grok", "to the tuned AdamW", "seconds per step, to AdamW's"]
    return {"Levers": [header, *rows]}


def _per_step(arm: Arm) -> float:
    """Seconds, of all runs together: the machine did other work besides."""
    return sum(trial.seconds for trial in arm.trials) / max(sum(trial.steps for trial in arm.trials), 1)


RULE = (
    "reproduced: one of them at least has a median ratio of at most 0.8, an interval below 1 and p at most 0.05 after "
    "Holm's correction for their number; partly: all that without the 0.8; otherwise not"
)
PAIRED = f"paired ratios of t_grokked to the tuned AdamW, {PAIRS} seeds, {STEPS:,} steps at most on addition"

STUDY = Study(
    name="proposal2024",
    title="The founding proposal: levers alone and together",
    papers=("Optimizing Grokking Efficiency, research proposal (M. Taj 2024)",),
    experiments={
        "tuning-adamw": addition(tries({"adamw": {}}), tuning=STEPS),
        **{f"tuning-{kind}": tuning_of(kind) for kind in COMBINED},
        "sums": sums,
        "tuning-adamw-more": more_tuning,
        "baseline": lambda found: addition(baseline(found)),
        **{f"tuning-{name}": tuning_network(name) for name in ARCHITECTURES},
        **{name: changed(name) for name in ARCHITECTURES},
        "tuning-signs": parity(tries({"adamw": {}}), tuning=True),
        "tuning-signs-levers": lambda found: parity(tries(levers_on_signs(found)), tuning=True),
        "parities": parities,
        "tuning-together": lambda found: addition(tries(combinations(found)), TUNING_STEPS),
        "combined": combined,
    },
    quick={
        "*": ("seeds.count=1", "budget.steps=200"),
        **{
            f"tuning-{name}": ("budget.steps=50",)
            for name in ("adamw", "adamw-more", *COMBINED, *ARCHITECTURES, "together")
        },
        **dict.fromkeys(("tuning-signs", "tuning-signs-levers"), ("budget.steps=1000",)),
        "parities": ("budget.steps=6000",),
    },
    tables=tables,
    claims=(
        Claim(
            "curricula",
            "Structured learning dynamics (curricula) make networks grok sooner.",
            "research question 1",
            "expected",
            f"{PAIRED}, four curricula on addition",
            RULE,
            judge_class("curricula"),
        ),
        Claim(
            "regularisation",
            "Regularisation beyond tuned weight decay makes networks grok sooner.",
            "research question 2",
            "expected",
            f"{PAIRED}, three penalties and caps on addition",
            RULE,
            judge_class("regularisation"),
        ),
        Claim(
            "pruning",
            "Targeted pruning and sparsification during training make networks grok sooner.",
            "literature review, expected results",
            "expected",
            f"{PAIRED}, Fourier pruning at two moments and gradual magnitude pruning on addition",
            RULE,
            judge_class("pruning"),
        ),
        Claim(
            "fourier",
            "Pruning by Fourier analysis makes networks grok sooner.",
            "literature review",
            "expected",
            f"{PAIRED}, Fourier pruning when memorised and 100 steps later, on addition",
            RULE,
            judge_fourier,
        ),
        Claim(
            "schedules",
            "Learning-rate schedules reduce the time to grok.",
            "literature review",
            "expected",
            f"{PAIRED}, three schedules on addition",
            RULE,
            judge_class("schedules"),
        ),
        Claim(
            "optimisers",
            "Another optimiser makes networks grok sooner than a tuned AdamW.",
            "not in the proposal; for the guidelines",
            "none",
            f"{PAIRED}, three optimisers with their published settings, on addition",
            RULE,
            judge_class("optimisers"),
        ),
        Claim(
            "architecture",
            "Targeted changes of the architecture lead to early generalisation.",
            "research question 3",
            "expected",
            f"{PAIRED} of the unchanged network, four changes",
            RULE,
            judge_architecture,
        ),
        Claim(
            "parity",
            "Levers of these kinds help on sparse parity, too.",
            "problem statement",
            "expected",
            f"{PAIRED}, five levers on the parity of 3 of 40 bits",
            RULE,
            judge_parity,
        ),
        Claim(
            "combination",
            "Combining strategies is better than the best of them alone.",
            "research gap, research question 2",
            "expected",
            f"paired ratios of t_grokked to the best class alone, {PAIRS} seeds that chose nothing; combinations take "
            "the best lever of every class, one that harms included",
            RULE,
            judge_combination,
        ),
        Claim(
            "compute",
            "The combination of all reaches generalisation with less compute than the tuned AdamW.",
            "expected results",
            "expected",
            f"floating-point operations of {PAIRS} runs until they are stable; of runs that never generalise, to the "
            "end of the budget",
            "reproduced: at most 0.8 of it and no fewer runs generalise; partly: less than it; otherwise not",
            judge_compute,
        ),
    ),
    deviations=(
        "The proposal names neither networks nor settings: those here are the field's. Curricula last half as long as "
        "the tuned AdamW takes to grok on its tuning seeds, pruning and periods as long, cosines twice as long.",
        "Of a lever only AdamW's rate (0.001, 0.003) and decay (0.3, 1, 3) are tuned, not its own numbers. The "
        "strength of the nuclear norm was chosen from four before; growing operands, Muon and clip-to-grok had been "
        "seen to help on another operation; the latter two have their published settings.",
        "AdamW, on addition, is tuned on eight seeds, everything else on two. At first it had two as well; the setting "
        "that these had chosen then failed in five of eight reporting runs ('adamw' of class 'none' in the table), and "
        "any lever would have looked good beside it.",
        "A first design added the levers to the AdamW that had been tuned without them. It was stopped after some 40 "
        "runs, on seeds 100 to 107: next to a decay of 3 hardly any lever generalised.",
        "On addition, tuning runs have 1,500 steps for AdamW and the curricula, 1,000 for all else: shortened, to save "
        "time, while those of the curricula ran.",
        "Eight seeds, where other studies of this network have ten.",
        "On parities, too, the baseline is a tuned AdamW; Merrill has plain gradient descent.",
        "Operations are counted as the compiler counts a step, conditional work at every one; evaluations are left "
        "out.",
        "Its method, measures that follow memorisation, circuit formation and cleanup, is judged in nanda2023; whether "
        "schedules stabilise is not judged.",
    ),
)
