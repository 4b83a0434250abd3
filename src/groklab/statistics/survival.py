"""Times to grok as right-censored data: Kaplan-Meier curves, medians with intervals, restricted means.

A run that did not grok within its budget says only that its time exceeds the budget. The survival function, here the
share of runs that have *not* grokked by step t, uses that and nothing more:

    S(t) = prod over event times t_i <= t of (1 - d_i / n_i)

with `d_i` runs grokking at `t_i` and `n_i` runs still at risk just before it (Kaplan and Meier 1958). A run censored at
the very step of an event still counts as at risk there: the event comes first. Bands are Greenwood's variance on the
log(-log S) scale (Kalbfleisch and Prentice 1980), so they stay inside [0, 1]; both come from `scipy.stats.ecdf`.

Do not use this where censoring tells something about the time that was cut off (a run stopped *because* it looked
hopeless): every estimate here assumes censoring independent of the time to grok.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import CensoredData, ecdf

# Products such as (1 - 1/4)(1 - 1/3) can miss 1/2 by one rounding; no true value of S lies this close without being it.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Estimate:
    """A median in steps with its interval.

    `median` is None when survival never falls to one half; `low` or `high` is None when the interval has no end on
    that side within the data.
    """

    median: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class KaplanMeier:
    """A survival curve as right-continuous steps: `survival[i]` holds from `times[i]` up to `times[i + 1]`.

    All arrays are float64 of one length; the first entry is time 0 with survival 1. `low` and `high` are the pointwise
    band: 1 as long as survival is 1, NaN where survival is 0 (Greenwood's variance is undefined there).
    """

    times: NDArray[np.float64]
    survival: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def kaplan_meier(times: ArrayLike, observed: ArrayLike, confidence: float = 0.95) -> KaplanMeier:
    """The Kaplan-Meier curve with its log-log Greenwood band.

    `times`: [R] in steps, the time to grok or the time of censoring; `observed`: [R] bool, False = censored then;
    `confidence`: pointwise coverage of the band. A run that grokked at step 0 puts a second entry at time 0.

    Raises ValueError for empty input, unequal lengths, negative or non-finite times, or a confidence outside (0, 1).
    """
    steps, events = as_censored(times, observed)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, not {confidence}")
    curve = ecdf(CensoredData(uncensored=steps[events], right=steps[~events])).sf
    with warnings.catch_warnings():  # scipy warns that the band is undefined where survival is 0 or 1
        warnings.simplefilter("ignore", RuntimeWarning)
        band = curve.confidence_interval(confidence, method="log-log")
    survival = np.asarray(curve.probabilities, dtype=np.float64)
    low, high = (np.where(survival == 1, 1.0, side.probabilities) for side in (band.low, band.high))
    return KaplanMeier(
        times=np.concatenate(([0.0], curve.quantiles)),
        survival=np.concatenate(([1.0], survival)),
        low=np.concatenate(([1.0], low)),
        high=np.concatenate(([1.0], high)),
    )


def median_time(times: ArrayLike, observed: ArrayLike, confidence: float = 0.95) -> Estimate:
    """The median time to grok in steps: the first time at which survival is at most one half.

    The interval is Brookmeyer and Crowley's (1982): it runs from the first time at which the lower band is at most one
    half to the first time at which the upper band is. Arguments and errors as for `kaplan_meier`.
    """
    curve = kaplan_meier(times, observed, confidence)
    return Estimate(*(_first_at_half(curve.times, side) for side in (curve.survival, curve.low, curve.high)))


def restricted_mean(times: ArrayLike, observed: ArrayLike, horizon: float) -> float:
    """The mean of min(time to grok, horizon) in steps: the area under the Kaplan-Meier curve from 0 to `horizon`.

    Past the last time in the data the curve is carried on level. Arguments and errors as for `kaplan_meier`, and
    ValueError for a negative or non-finite horizon.
    """
    if not (math.isfinite(horizon) and horizon >= 0):
        raise ValueError(f"the horizon must be a number of steps >= 0, not {horizon}")
    curve = kaplan_meier(times, observed)
    edges = np.minimum(np.append(curve.times, np.inf), horizon)
    return float(np.sum(curve.survival * np.diff(edges)))


def as_censored(times: ArrayLike, observed: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """`times` as float64 [R] and `observed` as bool [R], checked; raises ValueError with a sentence."""
    steps, events = np.asarray(times, dtype=np.float64), np.asarray(observed, dtype=bool)
    if steps.ndim != 1 or steps.shape != events.shape:
        raise ValueError(f"times and observed must be lists of one length, not of shapes {steps.shape}, {events.shape}")
    if steps.size == 0:
        raise ValueError("there are no times to estimate from: at least one run is needed")
    if not np.all(np.isfinite(steps) & (steps >= 0)):
        raise ValueError("times must be finite numbers of steps >= 0; give a censored run the step it was censored at")
    return steps, events


def _first_at_half(times: NDArray[np.float64], side: NDArray[np.float64]) -> float | None:
    reached = np.flatnonzero(side <= 0.5 + _ROUNDING)  # NaN compares false: an undefined band bounds nothing
    return float(times[reached[0]]) if reached.size else None
