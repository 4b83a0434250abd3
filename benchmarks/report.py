"""What a benchmark found: claims with their goals and figures, tables, and how both are written down."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import Ratio


@dataclass(frozen=True)
class Claim:
    """A figure beside its goal; `low` and `high` are the extremes over rounds."""

    text: str
    figure: float
    low: float
    high: float
    at_least: float | None = None
    at_most: float | None = None
    unit: str = ""

    @classmethod
    def of(cls, text: str, ratio: Ratio, *, at_least: float | None = None, at_most: float | None = None) -> Claim:
        """A claim about a ratio of times."""
        return cls(text, ratio.value, ratio.low, ratio.high, at_least, at_most)

    @property
    def goal(self) -> str:
        """In words; empty where there is none."""
        if self.at_least is not None:
            return f"at least {self.at_least:g}{self.unit}"
        return "" if self.at_most is None else f"at most {self.at_most:g}{self.unit}"

    @property
    def verdict(self) -> str:
        """Whether the figure, rounded as it is printed, meets the goal; empty where there is none."""
        if not self.goal:
            return ""
        figure = float(f"{self.figure:.3g}")
        too_little = self.at_least is not None and figure < self.at_least
        too_much = self.at_most is not None and figure > self.at_most
        return "goal missed" if too_little or too_much else "goal met"


@dataclass(frozen=True)
class Table:
    """Rows of text under headings."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Report:
    """One section of docs/performance.md."""

    title: str
    method: str  # how it was measured, in a sentence or two
    claims: Sequence[Claim] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()

    def to_json(self) -> str:
        """As `from_json` reads it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Report:
        """The report that `to_json` wrote."""
        data: dict[str, Any] = json.loads(text)
        claims = [Claim(**claim) for claim in data.pop("claims")]
        return cls(claims=claims, tables=[Table(**table) for table in data.pop("tables")], **data)

    def markdown(self, command: str) -> str:
        """The section, with the command that repeats it."""
        parts = [f"## {self.title}", f"{self.method}\n\n    {command}"]
        if self.claims:
            parts.append(_markdown_table(claims_table(self.claims)))
        parts += [_markdown_table(table) for table in self.tables]
        return "\n\n".join([*parts, *self.notes])


def claims_table(claims: Sequence[Claim]) -> Table:
    """Claim, goal, figure, its range over rounds and the verdict."""
    rows = []
    for claim in claims:
        low, figure, high = (three_digits(number) for number in (claim.low, claim.figure, claim.high))
        rows.append([claim.text, claim.goal, f"{figure}{claim.unit}", f"{low} to {high}", claim.verdict or "no goal"])
    return Table(["claim", "goal", "measured", "range over rounds", ""], rows)


def _markdown_table(table: Table) -> str:
    rows = [table.headings, ["---"] * len(table.headings), *table.rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main(measure: Callable[[bool], Report]) -> None:
    """Run one benchmark from the command line."""
    name = Path(measure.__code__.co_filename).stem
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=measure.__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny settings, only to see that it runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there as well")
    options = parser.parse_args()
    report = measure(options.quick)
    print(report.markdown(f"python -m benchmarks.{name}"), flush=True)
    if options.json:
        options.json.write_text(report.to_json())


def three_digits(number: float) -> str:
    """At least three significant digits, and never an exponent."""
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def milliseconds(seconds: float) -> str:
    """In milliseconds, without the unit."""
    return three_digits(1000 * seconds)
