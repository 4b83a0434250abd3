"""Taking turns: variants measured alternately in one process, and the ratios of their medians.

A *variant* is a function that works for at least so many seconds and returns the seconds that one unit of it took.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median

Variant = Callable[[float], float]


@dataclass(frozen=True)
class Ratio:
    """A ratio of medians, with the least and the greatest of its rounds' own ratios."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Timings:
    """Seconds per unit of each variant, round by round."""

    seconds: dict[str, list[float]]

    def median(self, name: str) -> float:
        """The median over rounds of one variant."""
        return median(self.seconds[name])

    def ratio(self, over: str, under: str) -> Ratio:
        """Time of variant `over` by time of variant `under`."""
        rounds = [a / b for a, b in zip(self.seconds[over], self.seconds[under], strict=True)]
        return Ratio(self.median(over) / self.median(under), min(rounds), max(rounds))


def alternate(variants: Mapping[str, Variant], rounds: int, seconds: float) -> Timings:
    """Let each variant work for `seconds` in turn, round after round."""
    measured: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, variant in variants.items():
            measured[name].append(variant(seconds))
    return Timings(measured)


def at_once(workers: Sequence[Variant], seconds: float) -> float:
    """Seconds per unit of workers that work side by side, one thread each: their rates add up."""
    with ThreadPoolExecutor(len(workers)) as pool:
        return 1 / sum(1 / each for each in pool.map(lambda worker: worker(seconds), workers))
