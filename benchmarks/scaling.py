"""How the cost of a step grows with the modulus and with the number of runs."""

from __future__ import annotations

import jax

from benchmarks import ours
from benchmarks.measure import Variant, alternate
from benchmarks.products import SquareProducts, flops_of, flops_per_update
from benchmarks.report import Claim, Report, Table, main, milliseconds
from groklab.engine.ensemble import prepare_jax
from groklab.experiment import Experiment

OFTEN, RARELY = 10, 100  # updates between evaluations; two cadences tell the update's cost from the evaluation's
FULL_RATE = "large square products"


def measure(quick: bool) -> Report:
    """The reference transformer with growing modulus, and with growing numbers of runs at modulus 97."""
    prepare_jax()
    accelerated = jax.local_devices()[0].platform != "cpu"
    rounds, seconds = (1, 0.2) if quick else (3, 2.0)
    counts = (1, 4) if quick else (1, 64, 1024) if accelerated else (1, 8, 64)
    by_runs, claim = _by_runs(counts, rounds, seconds)
    by_modulus = _by_modulus((53, 97) if quick else (53, 97, 193, 389), rounds, seconds)
    method = (
        f"Reference transformer, batches of 512. By runs: all of them resident, evaluated every {OFTEN} updates. By "
        f"modulus: one run on each core or device; evaluating every {OFTEN} and every {RARELY} updates tells the two "
        f"costs apart. Variants in turn within one process, {seconds:g} s each, rounds: {rounds}."
    )
    return Report("Scaling", method, [claim], [by_runs, by_modulus])


def _by_runs(counts: tuple[int, ...], rounds: int, seconds: float) -> tuple[Table, Claim]:
    reference = Experiment.load("two-phase")
    variants: dict[str, Variant] = {FULL_RATE: SquareProducts().seconds_per_flop}
    gigabytes = {}
    for count in counts:
        before = ours.memory("bytes_in_use")
        variants[str(count)] = ours.Throughput(reference, runs=count).seconds_per_update
        peak = ours.memory("peak_bytes_in_use")
        gigabytes[count] = "not told" if before is None or peak is None else f"{(peak - before) / 1e9:.3g}"
    timings = alternate(variants, rounds, seconds)
    flops = flops_per_update(ours.parts(reference))
    rows = []
    for count in counts:
        each = timings.median(str(count))
        share = flops * timings.median(FULL_RATE) / each
        times = [milliseconds(each * count), milliseconds(each), f"{1 / each:,.0f}"]
        rows.append([str(count), *times, f"{share:.0%}", gigabytes[count]])
    headings = ["runs", "ms per step of all", "ms per step of one", "runs x steps per second", "share of full rate"]
    ratio = timings.ratio(str(counts[-1]), str(counts[0]))
    claim = Claim.of(f"a step of {counts[-1]} runs, over as many times that of {counts[0]}", ratio, at_most=1)
    return Table([*headings, "GB on the device"], rows), claim


def _by_modulus(moduli: tuple[int, ...], rounds: int, seconds: float) -> Table:
    def experiment(p: int, every: int) -> Experiment:
        return Experiment.load("two-phase").with_settings([f"task.modulus={p}", f"budget.evaluate_every={every}"])

    variants: dict[str, Variant] = {
        f"{p} {every}": ours.Throughput(experiment(p, every)).seconds_per_update
        for p in moduli
        for every in (OFTEN, RARELY)
    }
    timings = alternate(variants | {FULL_RATE: SquareProducts().seconds_per_flop}, rounds, seconds)
    rows = []
    for p in moduli:
        often, rarely = timings.median(f"{p} {OFTEN}"), timings.median(f"{p} {RARELY}")
        evaluation = (often - rarely) / (1 / OFTEN - 1 / RARELY)
        update = rarely - evaluation / RARELY
        *steps, block = ours.parts(experiment(p, OFTEN))
        flops = flops_per_update(steps)
        share = flops * timings.median(FULL_RATE) / update
        columns = [milliseconds(update), f"{flops / 1e9:.3g}", f"{share:.0%}", milliseconds(evaluation)]
        evaluated = f"{block.per_update * OFTEN * flops_of(block.products) / 1e9:.3g}"
        rows.append([str(p), *columns, evaluated, milliseconds(often)])
    headings = ["p", "ms per update", "GFLOP", "share of full rate", "ms per evaluation", "GFLOP"]
    return Table([*headings, f"ms per update, evaluated every {OFTEN}"], rows)


if __name__ == "__main__":
    main(measure)
