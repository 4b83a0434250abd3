"""The matrix products inside a program: which they are, what they cost, and how fast this machine does them alone.

A program's *useful* floating-point operations are those of its matrix products, 2 m n k each, read off its jaxpr. No
program is faster than its products alone, which is what `ProductsAlone` times.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple, cast

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr

from benchmarks.measure import Variant, at_once
from groklab.engine.ensemble import Device, prepare_jax

NARROW = 16  # a product with a side below this spreads or sums over heads: elementwise work in disguise, not counted


class Product(NamedTuple):
    """One `dot_general`: the shapes of its operands and how they are contracted."""

    left: tuple[int, ...]
    right: tuple[int, ...]
    dimensions: Any  # ((contracted left, contracted right), (batched left, batched right))

    @property
    def sides(self) -> tuple[int, int, int]:
        """m, n and k of the product of an m x k and a k x n matrix; m holds the batch, if there is one."""
        (contracted, contracted_right), (_, batched_right) = self.dimensions
        k = prod(self.left[i] for i in contracted)
        shared = prod(self.right[i] for i in (*contracted_right, *batched_right))
        return prod(self.left) // k, prod(self.right) // shared, k

    @property
    def flops(self) -> int:
        """Multiplications and additions."""
        return 2 * prod(self.sides)


def products_of(function: Callable[..., Any], *arguments: Any, iterations: int = 1) -> Counter[Product]:
    """The matrix products that a call performs, with multiplicity; arguments may be arrays or shapes.

    The body of a scan counts as often as it runs, that of a while loop `iterations` times, and of a condition the
    costliest branch.
    """
    return _inside(jax.make_jaxpr(function)(*arguments).jaxpr, iterations)


def flops_of(products: Counter[Product]) -> int:
    """Floating-point operations of all these products together."""
    return sum(count * product.flops for product, count in products.items())


def _inside(jaxpr: Jaxpr, iterations: int) -> Counter[Product]:
    found: Counter[Product] = Counter()
    for equation in jaxpr.eqns:
        name, parameters = equation.primitive.name, equation.params
        if name == "dot_general":
            left, right = (cast(Any, operand.aval) for operand in equation.invars)
            product = Product(left.shape, right.shape, parameters["dimension_numbers"])
            if min(product.sides) >= NARROW:
                found[product] += 1
        elif name == "cond":
            found += max((_inside(branch.jaxpr, iterations) for branch in parameters["branches"]), key=flops_of)
        else:
            times = {"scan": parameters.get("length", 1), "while": iterations}.get(name, 1)
            for inner in _jaxprs(parameters.values()):
                found += Counter({product: times * count for product, count in _inside(inner, iterations).items()})
    return found


def _jaxprs(values: Iterable[Any]) -> list[Jaxpr]:
    """The programs among an operation's parameters."""
    return [value.jaxpr if isinstance(value, ClosedJaxpr) else value for value in values if hasattr(value, "eqns")]


@dataclass(frozen=True)
class Part:
    """What a training loop does `per_update` times per update: a step on a full batch, say, 0.9 times."""

    name: str
    per_update: float
    products: Counter[Product]


def flops_per_update(parts: Iterable[Part]) -> float:
    """Useful floating-point operations of an update, with its share of the evaluations."""
    return sum(part.per_update * flops_of(part.products) for part in parts)


class ProductsAlone:
    """The products of a training loop, on random operands and with nothing else, on every device at once."""

    def __init__(self, parts: Sequence[Part]):
        prepare_jax()
        self._workers = [_products_on(device, parts) for device in jax.local_devices()]
        self.seconds_per_update(0.0)  # compiles

    def seconds_per_update(self, seconds: float) -> float:
        """Of all devices together, measured for at least `seconds`."""
        return at_once(self._workers, seconds)


def _products_on(device: Device, parts: Sequence[Part]) -> Variant:
    programs = [_Repeated(device, part.products) for part in parts]

    def seconds_per_update(seconds: float) -> float:
        shares = [part.per_update * flops_of(part.products) for part in parts]
        spans = [seconds * share / sum(shares) for share in shares]
        timed = zip(parts, programs, spans, strict=True)
        return sum(part.per_update * program.seconds_each(span) for part, program, span in timed)

    return seconds_per_update


class _Repeated:
    """One compiled program that performs all these products REPEATS times over.

    Operands and results stay where they are from repeat to repeat and from call to call, so no time goes into fresh
    memory. One number of each left operand changes each time, or the compiler would see that once is enough.
    """

    REPEATS = 10

    def __init__(self, device: Device, products: Counter[Product]):
        self.kinds = list(products.elements())
        random = np.random.default_rng(0)
        operands = [tuple(random.standard_normal(side, np.float32) for side in (p.left, p.right)) for p in self.kinds]
        results = [np.zeros(shape.shape, shape.dtype) for shape in jax.eval_shape(self._all, operands)]
        self.arrays = jax.device_put((operands, results), device)
        self.program = jax.jit(self._repeated, donate_argnums=0)

    def _all(self, operands: Any) -> list[jax.Array]:
        pairs = zip(self.kinds, operands, strict=True)
        return [jax.lax.dot_general(left, right, kind.dimensions) for kind, (left, right) in pairs]

    def _repeated(self, arrays: Any) -> Any:
        def once(i: jax.Array, arrays: Any) -> Any:
            operands = [(left.at[(0,) * left.ndim].set(i.astype(left.dtype)), right) for left, right in arrays[0]]
            return operands, self._all(operands)

        return jax.lax.fori_loop(0, self.REPEATS, once, arrays)

    def seconds_each(self, seconds: float) -> float:
        """Seconds that all products take once, measured for at least `seconds`."""
        started, calls = time.perf_counter(), 0
        while calls == 0 or time.perf_counter() - started < seconds:
            self.arrays = jax.block_until_ready(self.program(self.arrays))
            calls += 1
        return (time.perf_counter() - started) / (calls * self.REPEATS)


class SquareProducts:
    """Large square float32 products on every device at once: the full rate, of which shares are given."""

    def __init__(self, side: int | None = None):
        prepare_jax()
        side = side or self.usual_side()
        kind = Product((side, side), (side, side), (((1,), (0,)), ((), ())))
        part = Part("square", 1 / kind.flops, Counter([kind]))
        self._workers = [_products_on(device, [part]) for device in jax.local_devices()]
        self.seconds_per_flop(0.0)  # compiles

    @staticmethod
    def usual_side() -> int:
        """Large enough that a larger one is not faster."""
        return 2048 if jax.local_devices()[0].platform == "cpu" else 8192

    def seconds_per_flop(self, seconds: float) -> float:
        """Of all devices together, measured for at least `seconds`."""
        return at_once(self._workers, seconds)


def matrix_product_rate(side: int, seconds: float) -> float:
    """Floating-point operations per second in square products, all cores or devices: the median of five."""
    square = SquareProducts(side)
    return 1 / float(np.median([square.seconds_per_flop(seconds) for _ in range(5)]))
