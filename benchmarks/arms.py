"""The arms of one experiment beside each other: what a method, or a precision, adds to the time of a step."""

from __future__ import annotations

from benchmarks import ours
from benchmarks.measure import Timings, Variant, alternate
from benchmarks.report import Table, milliseconds
from groklab.experiment import Experiment

EVALUATE_EVERY = 100  # so rarely that it dilutes a ratio little: it is two to three percent of a plain update
METHOD = (
    "Seconds per update, one run on each core or device, the held-out half evaluated every {every} updates. "
    "Variants in turn within one process, {seconds:g} s each, rounds: {rounds}."
)


def experiment_with(arms: dict[str, dict], quick: bool) -> Experiment:
    """The reference transformer's experiment with these arms, each `{}` or `{"methods": [...]}`, under plain Adam."""
    data = Experiment.load("two-phase").model_dump(mode="json")
    data["arms"] = {name: {"optimizer": {"kind": "adam", "learning_rate": 1e-3}, **arm} for name, arm in arms.items()}
    data["budget"]["evaluate_every"] = 2 if quick else EVALUATE_EVERY
    return Experiment.from_data(data)


def time_arms(arms: dict[str, tuple[Experiment, str]], quick: bool) -> tuple[Timings, str]:
    """Seconds per update of each (experiment, its arm), and how they were measured."""
    rounds, seconds = (1, 0.2) if quick else (5, 2.0)
    variants: dict[str, Variant] = {name: ours.Throughput(*arm).seconds_per_update for name, arm in arms.items()}
    every = next(iter(arms.values()))[0].budget.evaluate_every
    return alternate(variants, rounds, seconds), METHOD.format(every=every, seconds=seconds, rounds=rounds)


def arms_table(timings: Timings, plain: str) -> Table:
    """Every arm with its time per update, and that over the plain one's."""
    seconds = {name: timings.median(name) for name in timings.seconds}
    rows = [[name, milliseconds(each), f"{each / seconds[plain]:.3g}"] for name, each in seconds.items()]
    return Table(["", "ms per update", f"over {plain}"], rows)
