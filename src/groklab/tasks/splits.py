"""Ways to divide the rows of a table into training and held-out rows, and to corrupt training labels."""

from __future__ import annotations

import numpy as np


def random_split(rows: int, count: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Exactly `count` of the rows 0..rows-1 for training, all others held out; both sorted, int32."""
    return _both_sides(random.permutation(rows)[:count], rows)


def mirrored_split(
    pair: np.ndarray, count: int, random: np.random.Generator, together: bool
) -> tuple[np.ndarray, np.ndarray]:
    """A split that respects mirror images: rows with the same `pair` number [N] are (a, b) and (b, a).

    Together: mirror images share a side. Apart: no two training rows are mirror images of each other. Rows are taken
    pair by pair in random order, skipping what does not fit, so that exactly `count` rows are trained on wherever the
    rows without a mirror image (a = b) allow it.
    """
    order = random.permutation(len(pair))
    if together:
        first_seen = np.full(pair.max() + 1, len(pair))
        np.minimum.at(first_seen, pair[order], np.arange(len(pair)))
        order = order[np.argsort(first_seen[pair[order]], kind="stable")]
        sizes = np.bincount(pair)
        train: list[int] = []
        i = 0
        while i < len(order) and len(train) < count:
            size = sizes[pair[order[i]]]
            if len(train) + size <= count:
                train.extend(order[i : i + size])
            i += size
        if len(train) < count:  # one short, and only pairs are left: trade a row without a mirror image for a pair
            lone = next(row for row in train if sizes[pair[row]] == 1)
            taken = set(train)
            spare = next(row for row in order if row not in taken)
            train = [row for row in train if row != lone] + np.flatnonzero(pair == pair[spare]).tolist()
    else:
        _, first = np.unique(pair[order], return_index=True)
        train = list(order[np.sort(first)][:count])
    return _both_sides(np.array(train, dtype=np.int64), len(pair))


def _both_sides(train: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    in_training = np.zeros(rows, dtype=bool)
    in_training[train] = True
    return np.flatnonzero(in_training).astype(np.int32), np.flatnonzero(~in_training).astype(np.int32)


def noisy_targets(
    targets: np.ndarray, train: np.ndarray, share: float, classes: int, random: np.random.Generator
) -> np.ndarray:
    """`targets` with `round(share * len(train))` training labels replaced by another class, drawn uniformly."""
    noisy = targets.copy()
    chosen = random.choice(train, size=round(share * len(train)), replace=False)
    noisy[chosen] = (targets[chosen] + random.integers(1, classes, size=len(chosen))) % classes
    return noisy
