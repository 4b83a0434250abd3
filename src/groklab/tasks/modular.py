"""Modular arithmetic on two operands, the task on which grokking was found.

Every pair of residues (a, b) mod p is one example; the answer c is one of p classes. The operations are those of Power
et al. 2022 (arXiv 2201.02177) and of their code (openai/grok), which also lets the operation depend on the parity of an
operand. Division asks for c with b*c = a and leaves out b = 0.

Deviates from the authors' code: their split is the same for every seed (fixed shuffle seed 0); here it follows the
run's split seed, and `seeds.split` fixes it. Their sequences end in an end-of-text token that is also predicted; ours
do not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from groklab.experiment import Split, Table, Task
from groklab.tasks.splits import mirrored_split, noisy_targets, random_split

Operation = Callable[[np.ndarray, np.ndarray, int], np.ndarray]


def _divide(a: np.ndarray, b: np.ndarray, p: int) -> np.ndarray:
    inverse = np.array([pow(int(x), -1, p) if x else 0 for x in range(p)])
    return a * inverse[b]


OPERATIONS: dict[str, Operation] = {
    "a+b": lambda a, b, p: a + b,
    "a-b": lambda a, b, p: a - b,
    "a*b": lambda a, b, p: a * b,
    "a/b": _divide,
    "a^2+b^2": lambda a, b, p: a**2 + b**2,
    "a^2+ab+b^2": lambda a, b, p: a**2 + a * b + b**2,
    "a^2+ab+b^2+a": lambda a, b, p: a**2 + a * b + b**2 + a,
    "a^3+ab": lambda a, b, p: a**3 + a * b,
    "a^3+ab^2+b": lambda a, b, p: a**3 + a * b**2 + b,
    "a/b if b odd else a-b": lambda a, b, p: np.where(b % 2 == 1, _divide(a, b, p), a - b),
    "a+b if a even else a*b": lambda a, b, p: np.where(a % 2 == 0, a + b, a * b),
    "a+b if a even else a-b": lambda a, b, p: np.where(a % 2 == 0, a + b, a - b),
}
_SHORT = {"+": "a+b", "-": "a-b", "*": "a*b", "/": "a/b"}


class ModularArithmetic(Task):
    """Binary operations mod p, split at random into training and held-out pairs.

    Tokens are the residues 0..p-1, then `=` (p) and the operation sign (p+1) where the layout has them.

    Example:
        >>> task = ModularArithmetic(operation="a*b", modulus=5, layout="a b =")
        >>> task.table().inputs[7], task.table().targets[7]
        (array([1, 2, 5], dtype=int32), np.int32(2))
    """

    kind: Literal["modular"] = "modular"
    operation: Literal[
        "a+b",
        "a-b",
        "a*b",
        "a/b",
        "a^2+b^2",
        "a^2+ab+b^2",
        "a^2+ab+b^2+a",
        "a^3+ab",
        "a^3+ab^2+b",
        "a/b if b odd else a-b",
        "a+b if a even else a*b",
        "a+b if a even else a-b",
    ] = "a+b"
    modulus: Annotated[int, Field(ge=2, le=2000)] = 97
    layout: Literal["a op b =", "a b =", "a b"] = "a op b ="
    train_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.5
    label_noise: Annotated[float, Field(ge=0, lt=1)] = 0.0
    commuted_pairs: Literal["independent", "together", "apart"] = "independent"

    @field_validator("operation", mode="before")
    @classmethod
    def _canonical(cls, operation: object) -> object:
        """Accept `+`, `x^2 + x*y + y^2` or `a**2+b**2` for the canonical names."""
        if not isinstance(operation, str) or operation in OPERATIONS:
            return operation
        compact = operation.replace("**", "^").replace(" ", "").replace("x", "a").replace("y", "b")
        named = {name.replace(" ", ""): name for name in OPERATIONS} | _SHORT
        return named.get(compact, named.get(compact.replace("a*b", "ab"), operation))

    @model_validator(mode="after")
    def _is_well_posed(self) -> ModularArithmetic:
        if "/" in self.operation and (factor := _smallest_factor(self.modulus)) != self.modulus:
            raise ValueError(
                f"operation '{self.operation}' divides, which needs a prime modulus; "
                f"{self.modulus} is divisible by {factor}"
            )
        if self.commuted_pairs == "apart" and self.train_fraction > 0.5:
            raise ValueError(
                f"commuted_pairs = 'apart' keeps (b, a) out of training when (a, b) is in it, "
                f"so train_fraction can be at most 0.5, not {self.train_fraction}"
            )
        rows = len(self._operands()[0])
        if not 0 < round(rows * self.train_fraction) < rows:
            raise ValueError(
                f"train_fraction {self.train_fraction} of {rows} pairs leaves nothing to train on or to hold out"
            )
        return self

    def table(self) -> Table:
        """All pairs in lexicographic order."""
        a, b = self._operands()
        p = self.modulus
        columns = {"a": a, "b": b, "=": np.full_like(a, p), "op": np.full_like(a, p + 1)}
        symbols = self.layout.split()
        return Table(
            inputs=np.stack([columns[symbol] for symbol in symbols], axis=1).astype(np.int32),
            targets=(OPERATIONS[self.operation](a, b, p) % p).astype(np.int32),
            vocabulary=p + ("=" in symbols) + ("op" in symbols),
            classes=p,
        )

    def split(self, seed: int) -> Split:
        """`round(N * train_fraction)` training pairs; label noise corrupts training labels only."""
        a, b = self._operands()
        count = round(len(a) * self.train_fraction)
        random = np.random.default_rng([seed, 0x5917])
        if self.commuted_pairs == "independent":
            train, held_out = random_split(len(a), count, random)
        else:
            pair = np.minimum(a, b) * self.modulus + np.maximum(a, b)
            train, held_out = mirrored_split(pair, count, random, together=self.commuted_pairs == "together")
        targets = noisy_targets(self.table().targets, train, self.label_noise, self.modulus, random)
        return Split(train, held_out, targets)

    def _operands(self) -> tuple[np.ndarray, np.ndarray]:
        a, b = np.divmod(np.arange(self.modulus**2), self.modulus)
        if self.operation == "a/b":
            a, b = a[b > 0], b[b > 0]
        return a, b


def _smallest_factor(n: int) -> int:
    return next((d for d in range(2, int(n**0.5) + 1) if n % d == 0), n)
