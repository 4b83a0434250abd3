"""An experiment: task + model + arms + seeds + budget + measures.

    experiment = Experiment.load("two-phase")          # or from_toml(text), or Experiment(task=..., arms={...})
    experiment = experiment.with_settings(["task.operation='*'", "seeds.count=5"])
    experiment.id                                      # "two-phase-1f0c9a3b"

It is a frozen value whose content hash is its identity.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field, field_validator, model_validator

from groklab.errors import SpecError, nearest
from groklab.recipe import Recipe
from groklab.settings import apply_setting
from groklab.spec import Family, Spec, parse

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Array, Float, Int, PyTree

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(gt=0, lt=1)]
Precision = Literal["float32", "float64"]


@dataclass(frozen=True)
class Table:
    """Every example of a finite task. Held by host and device once, whatever the number of runs."""

    inputs: np.ndarray  # [N, T] int32 tokens
    targets: np.ndarray  # [N] int32 class of each example, without noise
    vocabulary: int  # number of distinct tokens
    classes: int  # number of possible answers; answers are the tokens 0 .. classes-1

    @property
    def chance(self) -> float:
        """Accuracy of always giving the most frequent answer."""
        return float(np.bincount(self.targets).max() / len(self.targets))


@dataclass(frozen=True)
class Split:
    """Which examples of a Table one run trains on."""

    train: np.ndarray  # [n] int32 rows of the table
    held_out: np.ndarray  # [m] int32 rows of the table
    targets: np.ndarray  # [N] int32 targets, label noise applied to training rows


class Task(Family):
    """A finite data set with its own split."""

    package: ClassVar[str] = "groklab.tasks"

    def table(self) -> Table:
        """All examples, in an order that depends on the spec only."""
        raise NotImplementedError

    def split(self, seed: int) -> Split:
        """Disjoint training and held-out rows, a pure function of spec and seed."""
        raise NotImplementedError


class Model(Family):
    """An architecture with its initialisation."""

    package: ClassVar[str] = "groklab.models"

    def init(self, key: Array, table: Table) -> PyTree:
        """Fresh parameters."""
        raise NotImplementedError

    def forward(self, table: Table) -> Callable[[PyTree, Int[Array, " B"]], Float[Array, "B C"]]:
        """A function (parameters, rows of the table) -> logits; it may share work between rows.

        It outlives the compilation that first asks for it, so it must not hold JAX arrays.
        """
        raise NotImplementedError


class Measure(Family):
    """A number read off a network at every evaluation."""

    package: ClassVar[str] = "groklab.measures"

    def measure(self, parameters: PyTree) -> dict[str, Float[Array, ""]]:
        """Named scalars; each becomes a column of the run's curves."""
        raise NotImplementedError


class Budget(Spec):
    """How long a run may train and how often it is looked at. Steps are optimiser updates.

    `last_batch` says what becomes of the examples left at the end of an epoch: a smaller batch, the start of the next
    epoch's first batch, or nothing. `train_metrics` are those of the examples trained on since the previous evaluation,
    each before its update (running: free, and what the field's code logs), or of the whole training set at the
    evaluation.
    """

    steps: Annotated[int, Field(gt=0, lt=2**31)] = 3000
    batch_size: Positive | Literal["full"] = 512
    last_batch: Literal["ragged", "wrap", "drop"] = "ragged"
    evaluate_every: Positive = 10
    train_metrics: Literal["running", "evaluated"] = "running"
    stop: Literal["stable", "never"] = "stable"


class Definitions(Spec):
    """The thresholds behind t_memorised, t_grokked, t_stable and t_collapsed.

    `collapsed` is the share of training examples in softmax collapse (Prieto et al. 2025, arXiv 2501.04697): with a
    loss that has been rounded to 0, so that they teach nothing more.
    """

    memorised: Share = 0.99
    grokked: Share = 0.95
    stable_evaluations: Positive = 5
    collapsed: Share = 0.5


class StreamSeeds(NamedTuple):
    """The three independent random streams of one run."""

    split: int
    init: int
    batch: int


class Seeds(Spec):
    """Run seeds first, first+1, ...; a stream set here is the same for every run, others follow the run's seed."""

    count: Positive = 3
    first: Annotated[int, Field(ge=0, lt=2**31)] = 0
    split: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    init: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    batch: Annotated[int, Field(ge=0, lt=2**31)] | None = None

    @model_validator(mode="after")
    def _fits_32_bits(self) -> Seeds:
        if self.first + self.count > 2**31:
            raise ValueError(f"the last seed would be {self.first + self.count - 1}, but seeds end at {2**31 - 1}")
        return self

    def __iter__(self):  # type: ignore[override]
        return iter(range(self.first, self.first + self.count))

    def streams(self, seed: int) -> StreamSeeds:
        """The seeds of the three streams of the run with this seed."""
        return StreamSeeds(*(seed if fixed is None else fixed for fixed in (self.split, self.init, self.batch)))


class Experiment(Spec):
    """Arms that share task, model, seeds and budget; the first arm is the baseline of every comparison.

    `precision` is that of parameters, gradients and losses. Initial parameters, split and batches do not depend on it.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,60}$")] = "experiment"
    description: str = ""
    task: Task
    model: Model
    budget: Budget = Budget()
    definitions: Definitions = Definitions()
    seeds: Seeds = Seeds()
    precision: Precision = "float32"
    measures: tuple[Measure, ...] = Field(default=({"kind": "weight_norm"},))  # type: ignore[assignment]
    arms: dict[str, Recipe]

    @field_validator("arms")
    @classmethod
    def _has_arms(cls, arms: dict[str, Recipe]) -> dict[str, Recipe]:
        if not arms:
            raise ValueError("an experiment needs at least one arm, such as [arms.adamw]")
        for name in arms:
            if not name or "/" in name or not name.isprintable():
                raise ValueError(f"arm name {name!r} must be printable, not empty and without '/'")
        return arms

    @model_validator(mode="after")
    def _evaluates_within_budget(self) -> Experiment:
        if self.budget.evaluate_every > self.budget.steps:
            every, steps = self.budget.evaluate_every, self.budget.steps
            raise ValueError(f"budget.evaluate_every is {every}, but the budget ends after {steps} steps")
        return self

    @property
    def id(self) -> str:
        """Name and content hash: equal specs have equal ids, on every machine."""
        content = json.dumps(self.model_dump(mode="json"), sort_keys=False, separators=(",", ":"))
        return f"{self.name}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"

    def to_toml(self) -> str:
        """The whole spec with every default written out; `from_toml` gives the same value back."""
        import tomli_w

        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))

    @classmethod
    def from_toml(cls, text: str, source: str = "the spec") -> Experiment:
        """Parse a TOML spec. Raises SpecError naming `source` if it is not TOML or not a valid experiment."""
        try:
            data = tomllib.loads(text)
        except ValueError as error:
            raise SpecError(f"{source} is not valid TOML: {error}") from None
        return parse(cls, data)

    @classmethod
    def load(cls, name_or_path: str) -> Experiment:
        """A built-in experiment by name, or a TOML file by path."""
        if name_or_path in builtin_names():
            text = resources.files("groklab").joinpath("experiments", f"{name_or_path}.toml").read_text()
            return cls.from_toml(text, name_or_path)
        path = Path(name_or_path)
        if path.suffix != ".toml" and not path.exists():
            allowed = nearest(name_or_path, builtin_names())
            raise SpecError(f"unknown experiment '{name_or_path}': {allowed}, or the path of a TOML file")
        try:
            return cls.from_toml(path.read_text(encoding="utf-8"), str(path))
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise SpecError(f"cannot read the spec {path}: {reason}") from None

    def with_settings(self, settings: Iterable[str]) -> Experiment:
        """A new experiment with `path=value` settings applied in order, validated like a file."""
        data = self.model_dump(mode="json")
        for setting in settings:
            apply_setting(data, setting)
        return parse(type(self), data)

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Experiment:
        """From plain data, such as the stored spec of an earlier run."""
        return parse(cls, data)


def builtin_names() -> list[str]:
    """Names of the experiments that come with groklab."""
    folder = resources.files("groklab").joinpath("experiments")
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))
