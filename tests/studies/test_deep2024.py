"""What is read off curves of deep networks, on curves whose shape is known."""

from __future__ import annotations

import numpy as np
import pytest

from groklab.studies.deep2024 import half_done, rises_again, surges

STEP = np.arange(0, 60_001, 500)


def rise(at: float, width: float = 1500) -> np.ndarray:
    return 1 / (1 + np.exp(-(STEP - at) / width))


@pytest.mark.parametrize(
    ("accuracy", "expected"),
    [
        (0.1 + 0.8 * rise(30_000), 1),
        (0.1 + 0.8 * rise(30_000, 5000), 1),
        (0.1 + 0.4 * rise(10_000) + 0.4 * rise(40_000), 2),
        (0.1 + 0.07 * rise(10_000) + 0.7 * rise(40_000), 1),
        (0.1 + 0.8 * rise(10_000) - 0.4 * rise(25_000) + 0.4 * rise(40_000), 1),
        (np.full(len(STEP), 0.1), 0),
    ],
)
def test_surges_are_rises_above_all_before_with_a_plateau_between_them(accuracy: np.ndarray, expected: int):
    noise = np.random.default_rng(0).normal(0, 0.002, len(STEP))
    assert surges(STEP, accuracy + noise) == expected


def test_half_of_a_rise_is_done_at_its_middle_and_a_fall_is_the_rise_of_its_negative():
    assert half_done(STEP, 0.1 + 0.8 * rise(30_000)) == pytest.approx(30_000, abs=500)
    assert half_done(STEP, -(350 - 200 * rise(20_000))) == pytest.approx(20_000, abs=500)


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [
        ([400, 300, 350, 250], True),
        ([400, 300, 310, 250], False),
        ([400, 300, 350, 349], False),
        ([300, 400, 300], False),
    ],
)
def test_a_rank_rises_again_if_it_falls_before_and_after(ranks: list[float], expected: bool):
    assert rises_again(np.array(ranks, float)) is expected
