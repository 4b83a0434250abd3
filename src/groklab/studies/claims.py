"""Claims and verdicts: a published statement made checkable, and what our own runs say to it.

    claim.judge(evidence) -> Finding("not reproduced", "1.3 (1.1 to 1.6) times the steps", "...")

What counts as reproduced stands in the claim before anything is run. A claim is judged from the evidence alone: what is
kept of runs is small and plain, so that anybody can judge again what is recorded, without training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from groklab.errors import GroklabError, nearest
from groklab.report.summary import format_steps
from groklab.statistics.paired import PairedRatio, paired_ratio
from groklab.statistics.survival import Estimate, median_time, restricted_mean

Verdict = Literal["reproduced", "partly", "not reproduced", "not comparable"]
VERDICTS: tuple[Verdict, ...] = ("reproduced", "partly", "not reproduced", "not comparable")
Time = Literal["t_memorised", "t_grokked", "t_stable"]


@dataclass(frozen=True)
class Finding:
    """What was found about one claim."""

    verdict: Verdict
    measured: str  # in one phrase, with intervals and counts
    reason: str = ""  # what a referee should know besides


@dataclass(frozen=True)
class Claim:
    """A published statement, and how it is judged."""

    name: str  # within its study
    statement: str
    source: str  # paper, and the place in it
    published: str  # the value or the finding as published
    measured_as: str  # what is measured here
    counts: str  # what counts as reproduced, partly, not: fixed before the run
    judge: Callable[[Evidence], Finding]


@dataclass(frozen=True)
class Trial:
    """What is kept of one run: its times in steps (None while not reached) and a few points of its curves."""

    seed: int
    status: str
    steps: int
    seconds: float
    flops: float
    t_memorised: int | None
    t_grokked: int | None
    t_stable: int | None
    curves: Mapping[str, Sequence[float | None]] = field(default_factory=dict)

    def last(self, column: str) -> float:
        """The last value of a curve; NaN if there is none."""
        known = [value for value in self.curves.get(column, ()) if value is not None]
        return float(known[-1]) if known else float("nan")

    def curve(self, column: str) -> np.ndarray:
        """The points of a curve, NaN where not measured; "step" has their steps."""
        if column not in self.curves:
            raise GroklabError(f"the evidence has no curve '{column}': {nearest(column, self.curves)}")
        return np.array([np.nan if value is None else value for value in self.curves[column]], float)


@dataclass(frozen=True)
class Arm:
    """The runs of one arm, in the order of their seeds."""

    name: str
    trials: tuple[Trial, ...]
    budget: int  # steps

    def __len__(self) -> int:
        return len(self.trials)

    def reached(self, time: Time = "t_grokked") -> int:
        """How many runs got there within the budget."""
        return sum(getattr(trial, time) is not None for trial in self.trials)

    def times(self, time: Time = "t_grokked") -> tuple[list[int], list[bool]]:
        """Steps, and whether each was observed; a run that never got there is censored."""
        observed = [getattr(trial, time) is not None for trial in self.trials]
        return [
            getattr(trial, time) if seen else self._censored_at(trial)
            for trial, seen in zip(self.trials, observed, strict=True)
        ], observed

    def median(self, time: Time = "t_grokked") -> Estimate:
        """The Kaplan-Meier median with its 95 % interval."""
        return median_time(*self.times(time))

    def restricted_mean(self, time: Time = "t_grokked") -> float:
        """The mean time up to the budget."""
        return restricted_mean(*self.times(time), self.budget)

    def lateness(self) -> np.ndarray:
        """[n] steps to generalise over steps to memorise; at least so much where the former was not reached.

        A run that ended generalised without having memorised counts as if it had memorised at its end, so that what is
        below 1 stays so. NaN where neither was reached.
        """
        ends = [np.nan if trial.t_grokked is None else trial.steps for trial in self.trials]
        fitted = [t.t_memorised if t.t_memorised is not None else end for t, end in zip(self.trials, ends, strict=True)]
        return np.array(self.times()[0]) / np.maximum(fitted, 1)

    def final(self, column: str) -> np.ndarray:
        """[n] the last value of a curve of each run."""
        return np.array([trial.last(column) for trial in self.trials])

    def said(self, time: Time = "t_grokked") -> str:
        """Such as "median 910 (880 to 1,010), 5 of 5"; where most never got there, how long they had."""
        median, count = self.median(time), f"{self.reached(time)} of {len(self)}"
        if median.median is None:
            missing = [trial for trial in self.trials if getattr(trial, time) is None]
            shortest, longest = (bound(trial.steps for trial in missing) for bound in (min, max))
            had = f"{longest:,}" if shortest == longest else f"{shortest:,} to {longest:,}"
            diverged = sum(trial.status == "diverged" for trial in missing)
            return f"not reached by most within {had} steps, {count}" + (f", {diverged} diverged" if diverged else "")
        estimate = format_steps({"median": median.median, "low": median.low, "high": median.high})
        return f"median {estimate}, {count}"

    def _censored_at(self, trial: Trial) -> int:
        return self.budget if trial.status in ("exhausted", "diverged") else trial.steps


@dataclass(frozen=True)
class Evidence:
    """What the experiments of a study have shown, and what was calculated besides."""

    arms: Mapping[str, Mapping[str, Arm]]  # by experiment and name
    calculated: Mapping[str, Any] = field(default_factory=dict)  # plain data, of whatever is not a run

    def arm(self, experiment: str, name: str) -> Arm:
        """Raises GroklabError, with the nearest name, if there is none."""
        if experiment not in self.arms:
            raise GroklabError(f"the evidence has no experiment '{experiment}': {nearest(experiment, self.arms)}")
        if name not in self.arms[experiment]:
            raise GroklabError(f"experiment '{experiment}' has no arm '{name}': {nearest(name, self.arms[experiment])}")
        return self.arms[experiment][name]

    def fastest(self, experiment: str, names: Iterable[str]) -> str:
        """The arm with the smallest restricted mean time to grok; the first of equal ones."""
        return min(names, key=lambda name: self.arm(experiment, name).restricted_mean())


# --- what judges are made of -----------------------------------------------------------------------------------------


def too_short(arm: Arm, steps: int, said: str | None = None) -> Finding | None:
    """Runs with fewer steps than a claim needs are no evidence for or against it."""
    if arm.budget >= steps:
        return None
    reason = f"{steps:,} steps are needed, more than these runs have"
    return Finding("not comparable", arm.said() if said is None else said, reason)


def shorter(found: Evidence, experiment: str, steps: int) -> Finding | None:
    """Likewise of a whole experiment, of which nothing else is said."""
    return too_short(next(iter(found.arms[experiment].values())), steps, said="")


def compared(arm: Arm, baseline: Arm, time: Time = "t_grokked") -> PairedRatio:
    """The time of an arm over that of another, by the seeds that they share. Raises GroklabError if there are none.

    What happens beyond the smaller of both budgets is not looked at. A run that has not got there by then counts with
    that budget where its partner has, so that no difference is overstated; pairs of which neither has are not ranked.
    """
    seeds = [trial.seed for trial in baseline.trials]
    paired = [seed for seed in (trial.seed for trial in arm.trials) if seed in seeds]
    if not paired:
        raise GroklabError(f"arms '{arm.name}' and '{baseline.name}' have no seed in common")
    horizon = min(arm.budget, baseline.budget)
    sides = (replace(a, trials=tuple(t for t in a.trials if t.seed in paired)).times(time) for a in (arm, baseline))
    (times, seen), (base_times, base_seen) = (
        (steps, [was and step <= horizon for step, was in zip(steps, observed, strict=True)])
        for steps, observed in sides
    )
    return paired_ratio(times, seen, base_times, base_seen, horizon, bounds=True)


def ratio_said(ratio: PairedRatio) -> str:
    """Such as "0.52 (0.47 to 0.60; 93.8 % interval of 5 pairs, p = 0.062) times the steps"."""
    if ratio.median is None:
        return f"not known: of {ratio.pairs} pairs no run got there"
    certainty = f"{100 * ratio.confidence:.3g} % interval of {ratio.pairs} pairs, p = {ratio.p_value:.2g}"
    if ratio.censored_pairs:
        certainty += f", bounds in {ratio.censored_pairs}"
    return f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f}; {certainty}) times the steps"


COVERAGE = 0.9  # of an interval that says what is beyond chance; five pairs are the fewest with such a one


def below_one(ratio: PairedRatio, coverage: float = COVERAGE) -> bool:
    """Whether the arm is faster beyond chance: the whole interval below 1, with that coverage at least."""
    return ratio.high is not None and ratio.high < 1 and ratio.confidence >= coverage


def above_one(ratio: PairedRatio, coverage: float = COVERAGE) -> bool:
    """Whether the arm is slower beyond chance."""
    return ratio.low is not None and ratio.low > 1 and ratio.confidence >= coverage


def faster(ratio: PairedRatio, reproduced: float, partly: float = 1.0) -> Finding:
    """A claim of so many times fewer steps.

    Reproduced where the median ratio is at most `reproduced` and the interval lies below 1; partly where the median is
    at most `partly` and the interval lies below 1, or the former without the latter; otherwise not. Not comparable
    where neither of them ever got there.
    """
    if ratio.median is None:
        return Finding("not comparable", ratio_said(ratio), "neither gets there within the budget")
    if ratio.median <= reproduced and below_one(ratio):
        verdict: Verdict = "reproduced"
    elif ratio.median <= reproduced or (ratio.median <= partly and below_one(ratio)):
        verdict = "partly"
    else:
        verdict = "not reproduced"
    return Finding(verdict, ratio_said(ratio))


def within(value: float | None, low: float, high: float, measured: str, nearly: float = 1.5) -> Finding:
    """A claim of a value: reproduced inside [low, high], partly up to a factor `nearly` beyond it, otherwise not."""
    if value is None or not np.isfinite(value):
        return Finding("not reproduced", measured, "there is no such value here")
    if low <= value <= high:
        return Finding("reproduced", measured)
    return Finding("partly" if low / nearly <= value <= high * nearly else "not reproduced", measured)


def all_hold(conditions: Mapping[str, bool], measured: str) -> Finding:
    """A claim of several statements: reproduced where all hold, partly where some do."""
    failing = [name for name, holds in conditions.items() if not holds]
    if not failing:
        return Finding("reproduced", measured)
    verdict: Verdict = "partly" if len(failing) < len(conditions) else "not reproduced"
    return Finding(verdict, measured, f"does not hold: {'; '.join(failing)}")


def all_beyond_chance(
    conditions: Mapping[str, tuple[Callable[[PairedRatio, float], bool], PairedRatio]], measured: str
) -> Finding:
    """A claim of several ratios, each `below_one` or `above_one`.

    Where pairs are too few for an interval it is enough that all of them are on that side, for a part of the claim.
    """
    few = any(ratio.confidence < COVERAGE for _, ratio in conditions.values())
    coverage = 0.0 if few else COVERAGE
    finding = all_hold({name: beyond(ratio, coverage) for name, (beyond, ratio) in conditions.items()}, measured)
    return at_most_partly(finding, "the pairs are too few for an interval") if few else finding


def at_most_partly(finding: Finding, reason: str) -> Finding:
    """What was found, but no more than partly: for runs that could not have shown the contrary."""
    return replace(finding, verdict="partly", reason=reason) if finding.verdict == "reproduced" else finding


def most(holds: Any) -> bool:
    """At least four runs of five."""
    return float(np.mean(holds)) >= 0.8


def spread(values: Any, digits: int = 2) -> str:
    """Median and range of what is known, such as "4.9 (4.1 to 6.0)"."""
    numbers = np.array([np.nan if value is None else value for value in values], float)
    known = numbers[np.isfinite(numbers)]
    if not len(known):
        return "none"
    middle, low, high = (f"{value:,.{digits}f}" for value in (np.median(known), known.min(), known.max()))
    return f"{middle} ({low} to {high})"
