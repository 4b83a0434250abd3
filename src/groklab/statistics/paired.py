"""Two arms compared over the seeds they share, with censored runs counted and never imputed.

Arms of one experiment share split, initialisation and batch order, so seed i of one arm pairs with seed i of the other:

    r_i = t_i / b_i                            time to grok over the baseline's; below 1 the arm is faster
    [r_(k), r_(n-k+1)]                         interval for the median ratio, coverage 1 - 2 BinomCDF(k-1; n, 1/2)
    p = share of sign flips s with |sum s_i d_i| >= |sum d_i|,    d_i = log(min(t_i, h) / min(b_i, h))

The interval is the inverted sign test (Hahn and Meeker, *Statistical Intervals*, 5.2): it needs only the order of the
ratios, hence tolerates values known merely as "longer than". The test is Fisher's randomisation test for pairs; it is
exact when under the null the two arms are exchangeable within a seed.

Not for arms that ran on different seeds (use a log-rank test), and not a substitute for seeds: with n pairs no p-value
can be below 2 / 2^n.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binom

from groklab.statistics.survival import as_censored

_EXACT_PAIRS = 16  # 2^16 flips take milliseconds; beyond it the flips are drawn
_DRAWN_FLIPS = 20_000
_ROUNDING = 1e-9  # relative to sum |d_i|: flips whose sums are equal on paper must count as ties


@dataclass(frozen=True)
class PairedRatio:
    """The median of time / baseline time over shared seeds.

    `median`, `low`, `high`: ratios without unit; None where the value falls on a pair whose ratio is only bounded, or
    where no pair has an order. `confidence`: the coverage the interval actually attains (n = 3: 0.75). `p_value`:
    two-sided. `pairs`: all pairs given; `censored_pairs`: those of them in which at least one run is censored.
    """

    median: float | None
    low: float | None
    high: float | None
    confidence: float
    p_value: float
    pairs: int
    censored_pairs: int


def paired_ratio(
    times: ArrayLike,
    observed: ArrayLike,
    baseline_times: ArrayLike,
    baseline_observed: ArrayLike,
    horizon: float,
    confidence: float = 0.95,
    bounds: bool = False,
) -> PairedRatio:
    """Compare an arm with a baseline over shared seeds.

    `times`, `baseline_times`: [n] in steps, the same seed at the same index; `observed`, `baseline_observed`: [n]
    bool, False = censored then; `horizon`: steps to which both arms were given the chance to grok; `confidence`: the
    coverage wanted; `bounds`: rank a pair of which one run only grokked by its nearest bound, that with the horizon in
    place of the other's time, so that there are numbers everywhere, and none of them overstates a difference.

    - A pair with only the arm censored has a ratio above every number, one with only the baseline censored a ratio
      below every number; one with both censored has no place in the order and is counted but not ranked.
    - The median of an even number of ratios is the geometric mean of the middle two, so that swapping the arms inverts
      it.
    - The interval is the shortest symmetric pair of order statistics that attains `confidence`, else the extremes.
    - The test uses times restricted to the horizon. A censored run counts there with the horizon itself even if it was
      censored before: one that diverged early must not look like one that grokked early.
    - Times below one step (a run that starts above its threshold) count as one step.

    Raises ValueError for empty input, unequal lengths, negative or non-finite times, a horizon below one step, or a
    confidence outside (0, 1).
    """
    (arm, arm_seen), (base, base_seen) = as_censored(times, observed), as_censored(baseline_times, baseline_observed)
    if arm.shape != base.shape:
        raise ValueError(f"an arm of {arm.size} runs cannot be paired with a baseline of {base.size}")
    if not (math.isfinite(horizon) and horizon >= 1):
        raise ValueError(f"the horizon must be a number of steps >= 1, not {horizon}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, not {confidence}")
    arm, base = np.maximum(arm, 1), np.maximum(base, 1)
    below, above = (arm / horizon, horizon / base) if bounds else (0.0, np.inf)
    ratios = np.where(arm_seen, np.where(base_seen, arm / base, below), above)[arm_seen | base_seen]
    ranked = np.sort(ratios)
    low, high, attained = _median_interval(ranked, confidence)
    restricted = (np.where(seen, np.minimum(t, horizon), horizon) for t, seen in ((arm, arm_seen), (base, base_seen)))
    return PairedRatio(
        median=_median(ranked),
        low=low,
        high=high,
        confidence=attained,
        p_value=_sign_flip_p(np.subtract(*map(np.log, restricted))),
        pairs=arm.size,
        censored_pairs=int(np.sum(~(arm_seen & base_seen))),
    )


def holm(p_values: Iterable[float]) -> list[float]:
    """Holm's (1979) step-down adjusted p-values, in the order given: they control the family-wise error rate.

    The j-th smallest of m becomes the largest of (m - i + 1) p_(i) over i <= j, at most 1. Raises ValueError for a
    value outside [0, 1].
    """
    p = np.asarray(list(p_values), dtype=np.float64)
    if not np.all((p >= 0) & (p <= 1)):
        raise ValueError(f"p-values must lie in [0, 1], not {p.tolist()}")
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted.tolist()


def _median(ranked: NDArray[np.float64]) -> float | None:
    if ranked.size == 0:
        return None
    lower, upper = _known(ranked[(ranked.size - 1) // 2]), _known(ranked[ranked.size // 2])
    return None if lower is None or upper is None else math.sqrt(lower * upper)


def _median_interval(ranked: NDArray[np.float64], confidence: float) -> tuple[float | None, float | None, float]:
    """Ends of the interval and the coverage attained; ranked: [n] ascending."""
    n = ranked.size
    if n == 0:
        return None, None, 0.0
    coverage = 1 - 2 * binom.cdf(np.arange((n + 1) // 2), n, 0.5)  # entry k-1: the interval from r_(k) to r_(n-k+1)
    # Coverage falls with k, so the shortest interval is the last that suffices; 1e-12 forgives rounding in the cdf.
    k = max(1, int(np.sum(coverage >= confidence - 1e-12)))
    return _known(ranked[k - 1]), _known(ranked[n - k]), float(coverage[k - 1])


def _known(ratio: float) -> float | None:
    return float(ratio) if 0 < ratio < math.inf else None


def _sign_flip_p(differences: NDArray[np.float64]) -> float:
    """Two-sided p-value of the sum of `differences` [n] under independent flips of their signs.

    Only the sizes matter for the null distribution; sorting them makes drawn flips independent of the order of pairs,
    and a zero flips into itself, so leaving it out changes nothing.
    """
    sizes = np.sort(np.abs(differences[differences != 0]))
    bar = abs(float(np.sum(differences))) - _ROUNDING * float(np.sum(sizes))
    if sizes.size <= _EXACT_PAIRS:
        sums = np.zeros(1)
        for size in sizes:
            sums = np.concatenate((sums + size, sums - size))
        return float(np.mean(np.abs(sums) >= bar))
    signs = np.random.default_rng(0).choice((-1.0, 1.0), size=(_DRAWN_FLIPS, sizes.size))
    # The +1 counts the observed signs among the flips: without it a drawn p could be 0 and the test would not be valid.
    return float((1 + np.sum(np.abs(signs @ sizes) >= bar)) / (1 + _DRAWN_FLIPS))
