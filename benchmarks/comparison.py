"""groklab beside eager PyTorch: the same network, start, data, batches and evaluation cadence on both sides."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import numpy as np

from benchmarks import ours
from benchmarks.eager import EagerProcesses, EagerTraining, Loop
from benchmarks.measure import Ratio, Timings, Variant, alternate
from benchmarks.products import ProductsAlone, SquareProducts, flops_per_update
from benchmarks.report import Table, milliseconds, three_digits
from groklab.experiment import Experiment

OURS, EAGER, PRODUCTS = "groklab", "eager PyTorch", "the same matrix products alone"
ONE_RUN, ONE_PER_CORE, FLOOR = "groklab, a single run", "eager PyTorch, a process per core", "useful FLOPs at full rate"
METHOD = (
    "Seconds per update of a run with all runs together, evaluation of the held-out examples every {every} updates "
    "included; variants in turn within one process, {seconds:g} s each, rounds: {rounds}."
)
MEANING = (
    "Goals are about *eager PyTorch*, the plain loop, one run on the whole machine. *A process per core*, one thread "
    "each, is the better way to use it. groklab trains one run per core at a time, on a GPU all at once. The matrix "
    "products alone are those of its training steps and evaluations, on random operands; *useful FLOPs at full rate* "
    "are their {gigaflops:.3g} GFLOP per update at the {rate:.3g} GFLOP/s of large square products."
)


@dataclass(frozen=True)
class Comparison:
    """The timings of both sides, and of the floors below them."""

    timings: Timings
    flops: float  # useful ones, per update
    method: str

    @property
    def over_eager(self) -> Ratio:
        """How many times the updates per second of eager PyTorch."""
        return self.timings.ratio(EAGER, OURS)

    @property
    def over_products(self) -> Ratio:
        """How many times the time of the matrix products alone."""
        return self.timings.ratio(OURS, PRODUCTS)

    def table(self, heading: str = "") -> Table:
        """Every variant with its time per update and its speed beside eager PyTorch."""
        seconds = {name: self.timings.median(name) for name in self.timings.seconds}
        seconds[FLOOR] *= self.flops
        rows = [
            [name, milliseconds(each), three_digits(1 / each), three_digits(seconds[EAGER] / each)]
            for name, each in sorted(seconds.items(), key=lambda item: -item[1])
        ]
        return Table([heading, "ms per update", "updates per second", "times eager PyTorch"], rows)

    @property
    def meaning(self) -> str:
        """What the table's lines are."""
        return MEANING.format(gigaflops=self.flops / 1e9, rate=1e-9 / self.timings.median(FLOOR))


def compare(experiment: Experiment, network: str, quick: bool, runs: int | None = None) -> Comparison:
    """Time the first arm of the experiment, `runs` runs of it, beside one eager run of `network`, and the floors.

    Raises AssertionError if the two sides do not start from the same function.
    """
    loop, variants = _both_sides(experiment, network, runs)
    parts = ours.parts(experiment)
    variants[PRODUCTS] = ProductsAlone(parts).seconds_per_update
    variants[FLOOR] = SquareProducts().seconds_per_flop
    devices = jax.local_devices()
    if len(devices) > 1:
        variants[ONE_RUN] = ours.Throughput(experiment, runs=1).seconds_per_update
    if devices[0].platform == "cpu" and len(devices) > 1:
        variants[ONE_PER_CORE] = EagerProcesses(loop, len(devices)).seconds_per_update
    rounds, seconds = _effort(quick)
    method = METHOD.format(every=experiment.budget.evaluate_every, seconds=seconds, rounds=rounds)
    return Comparison(alternate(variants, rounds, seconds), flops_per_update(parts), method)


def times_eager(experiment: Experiment, network: str, quick: bool) -> Ratio:
    """Only how many times the updates per second of eager PyTorch."""
    return alternate(_both_sides(experiment, network)[1], *_effort(quick)).ratio(EAGER, OURS)


def _effort(quick: bool) -> tuple[int, float]:
    """Rounds, and seconds of each variant."""
    return (1, 0.2) if quick else (5, 2.0)


def _both_sides(experiment: Experiment, network: str, runs: int | None = None) -> tuple[Loop, dict[str, Variant]]:
    loop = _loop(experiment, network)
    eager = EagerTraining(loop)
    _check_same_function(experiment, loop, eager)
    throughput = ours.Throughput(experiment, runs=runs)
    return loop, {OURS: throughput.seconds_per_update, EAGER: eager.seconds_per_update}


def _loop(experiment: Experiment, network: str) -> Loop:
    parameters, split = ours.start(experiment)
    table, size = experiment.task.table(), experiment.budget.batch_size
    return Loop(
        network=network,  # pyright: ignore[reportArgumentType]  # a wrong name ends in a KeyError
        parameters=parameters,
        tokens=table.inputs,
        targets=split.targets,
        train=split.train,
        held_out=split.held_out,
        classes=table.classes if network != "reference_transformer" else table.vocabulary,
        batch_size=len(split.train) if size == "full" else size,
        evaluate_every=experiment.budget.evaluate_every,
    )


def _check_same_function(experiment: Experiment, loop: Loop, eager: EagerTraining) -> None:
    """Equal parameter counts, and equal losses on the training set before any update."""
    count = sum(parameter.size for parameter in loop.parameters.values())
    assert eager.parameter_count() == count, f"{eager.parameter_count()} parameters beside {count}"
    losses = ours.loss(experiment, loop.train), eager.loss(loop.train)
    assert np.isclose(*losses, rtol=0, atol=1e-4), f"the two sides start at losses {losses}"
