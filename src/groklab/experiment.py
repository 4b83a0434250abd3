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
from groklab.recipe import Loss, Moment, Recipe
from groklab.settings import apply_setting
from groklab.spec import Family, Spec, parse

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Array, Bool, Float, Int, PyTree

    from groklab.network import Network, Trace

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(gt=0, lt=1)]
Precision = Literal["float32", "float64"]


ExampleKind = Literal["tokens", "vectors", "images"]
AnswerKind = Literal["classes", "signs", "values"]


@dataclass(frozen=True, eq=False)
class Table:
    """The examples that all runs of a task have in common, and what an example looks like.

    Where every run draws examples of its own (see Split.inputs) there are N = 0 of them here.
    """

    inputs: np.ndarray  # [N, T] int32 tokens, [N, D] float32 vectors or [N, H, W, channels] float32 images
    targets: np.ndarray  # [N] int32 class (of signs: 0 for -1, 1 for +1) or [N, K] float32 values; without noise
    vocabulary: int = 0  # number of distinct tokens; 0 where inputs are no tokens
    classes: int = 0  # number of possible answers, 0 .. classes-1; 0 where answers are values
    answers: AnswerKind = "classes"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one input."""
        return self.inputs.shape[1:]

    @property
    def outputs(self) -> int:
        """How many numbers a network gives for one example: a logit per class, one whose sign counts, or K values."""
        return {"classes": self.classes, "signs": 1, "values": self.targets.shape[-1]}[self.answers]

    @property
    def common(self) -> bool:
        """Whether all runs have these examples; otherwise each has its own."""
        return len(self.inputs) > 0


class Split(NamedTuple):
    """What one run trains on and is tested on; rows count in the table, or in the run's own inputs.

    Arrays are NumPy's where a task makes a split, and JAX's inside a program.
    """

    train: np.ndarray  # [n] int32 rows
    held_out: np.ndarray  # [m] int32 rows, none of them in train
    targets: np.ndarray  # [N] or [N, K] as in a Table; label noise applied to training rows
    inputs: np.ndarray | None = None  # [N, ...] the run's own examples; None where all runs have those of the table
    teacher: Mapping[str, np.ndarray] | None = None  # what gave the answers, where that differs from run to run


class Task(Family):
    """Examples with their answers, split for each run into those to train on and those held out.

    A finite task has a fixed number of training examples. A stream (`streams`) draws fresh ones for every batch; the
    training rows of its splits are then a sample that stands for the stream, and is never trained on.
    """

    package: ClassVar[str] = "groklab.tasks"

    @property
    def examples(self) -> ExampleKind:
        """What a network has to read."""
        return "tokens"

    @property
    def answers(self) -> AnswerKind:
        """What a network has to give."""
        return "classes"

    @property
    def streams(self) -> bool:
        """Whether training examples are drawn afresh for every batch, by `draw`."""
        return False

    def table(self) -> Table:
        """The common examples, in an order that depends on the spec only.

        Raises DataError if they come from files that are missing or wrong.
        """
        raise NotImplementedError

    def split(self, seed: int) -> Split:
        """Disjoint training and held-out rows, a pure function of spec and seed."""
        raise NotImplementedError

    def draw(self, key: Array, count: int, split: Split) -> tuple[Array, Array]:
        """`count` fresh training examples of a stream: inputs [count, ...] and targets as in a Split. Pure JAX."""
        raise NotImplementedError

    def right(self, outputs: Float[Array, "B outputs"], targets: Array) -> Bool[Array, " B"]:
        """Which outputs count as right answers: the metric, of which accuracy is the mean.

        A class is right if its logit alone is the greatest, a sign if the output has it; 0 has neither.
        """
        from groklab.tasks import metrics

        return metrics.same_sign(outputs, targets) if self.answers == "signs" else metrics.best(outputs, targets)

    def chance(self, split: Split) -> float:
        """Held-out accuracy of the best constant answer to the training set: its commonest class, or its mean."""
        train, held_out = split.targets[split.train], split.targets[split.held_out]
        if self.answers == "values":
            constant = train.mean(axis=0)
            return float(self.right(np.tile(constant, (len(held_out), 1)), held_out).mean())  # pyright: ignore
        return float((held_out == np.bincount(train).argmax()).mean())


class RegressionTask(Task):
    """A task whose answers are values; one counts as right within a tolerance of its mean squared error."""

    tolerance: Annotated[float, Field(gt=0)] = 1e-3

    @property
    def answers(self) -> AnswerKind:
        return "values"

    def right(self, outputs: Float[Array, "B outputs"], targets: Array) -> Bool[Array, " B"]:
        from groklab.tasks import metrics

        return metrics.within(outputs, targets, self.tolerance)


class Model(Family):
    """An architecture with its initialisation."""

    package: ClassVar[str] = "groklab.models"
    reads: ClassVar[tuple[ExampleKind, ...]] = ("tokens",)

    def init(self, key: Array, table: Table) -> PyTree:
        """Fresh parameters for examples that look like those of the table."""
        raise NotImplementedError

    def apply(self, parameters: PyTree, inputs: Array) -> Float[Array, "B outputs"]:
        """The network's outputs for any inputs [B, ...], none of which affects another's."""
        raise NotImplementedError

    def apply_training(
        self, parameters: PyTree, inputs: Array, weights: Float[Array, " B"]
    ) -> tuple[Float[Array, "B outputs"], PyTree]:
        """The outputs during training, and the parameters with what a batch changes in them other than by gradients.

        The same as `apply` but for networks that keep running statistics. `weights` is 0 for padding.
        """
        return self.apply(parameters, inputs), parameters

    def embed(self, parameters: PyTree, inputs: Array) -> Float[Array, "B ..."]:
        """The inputs as real numbers: each token's embedding [B, T, D], vectors and images as they are."""
        import jax
        import jax.numpy as jnp

        return jnp.asarray(inputs, jnp.result_type(*jax.tree.leaves(parameters)))

    def trace(self, parameters: PyTree, embedded: Float[Array, "B ..."]) -> Trace:
        """What the network computes from embedded inputs; its outputs are those of `apply`."""
        from groklab.network import Trace

        return Trace(self.apply(parameters, embedded))

    def readout(self, parameters: PyTree) -> Float[Array, "outputs n"] | None:
        """What the neurons of the last layer add to the outputs, one column each; None if that is no linear map."""
        return None

    def shared_forward(self, table: Table) -> Callable[[PyTree, Int[Array, " B"]], Float[Array, "B outputs"]] | None:
        """(parameters, rows of the table) -> outputs, sharing work between rows; None if there is no such way.

        It outlives the compilation that first asks for it, so it must not hold JAX arrays.
        """
        return None

    def forward(self, table: Table) -> Callable[[PyTree, Int[Array, " B"]], Float[Array, "B outputs"]]:
        """(parameters, rows of the table) -> outputs, by the shared forward pass if there is one."""
        import jax.numpy as jnp

        return self.shared_forward(table) or (lambda model, rows: self.apply(model, jnp.asarray(table.inputs)[rows]))


class Measure(Family):
    """What is read off a network: numbers while it trains, and whatever else there is to know of it afterwards.

    It is taken at every evaluation, or every so many steps (`every`, a multiple of the budget's `evaluate_every`).
    """

    package: ClassVar[str] = "groklab.measures"
    needs_start: ClassVar[bool] = False  # whether it compares with the network before the first step
    every: Positive | None = None

    def measure(self, network: Network) -> dict[str, Float[Array, ""]]:
        """Named scalars, in pure JAX; each becomes a column of the run's curves. Dots in names group what belongs.

        Raises SpecError, saying what is missing, for a network or a task that it is not for.
        """
        raise NotImplementedError

    def details(self, network: Network) -> dict[str, Any]:
        """What is no scalar, of a network that is not training: lists, arrays, names of rules; named likewise."""
        return {}


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
    """The thresholds behind t_memorised, t_grokked, t_stable and t_collapsed, and behind the phases of a run.

    `collapsed` is the share of training examples in softmax collapse (Prieto et al. 2025, arXiv 2501.04697): with a
    loss that has been rounded to 0, so that they teach nothing more. The others are read off the curves afterwards (see
    `groklab phases`): a run generalised promptly, without grokking, if its held-out accuracy was the share `prompt` of
    its way to `grokked` when it memorised; it regressed if it fell below `grokked` - `regressed`; circuit formation and
    cleanup begin once the share `circuit` or `cleanup` of the change that marks them is done.
    """

    memorised: Share = 0.99
    grokked: Share = 0.95
    stable_evaluations: Positive = 5
    collapsed: Share = 0.5
    prompt: Share = 0.5
    regressed: Share = 0.01
    circuit: Share = 0.1
    cleanup: Share = 0.1


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
    `checkpoints` are the moments, beside the last, at which networks are kept: times, or steps.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,60}$")] = "experiment"
    description: str = ""
    task: Task
    model: Model
    budget: Budget = Budget()
    definitions: Definitions = Definitions()
    seeds: Seeds = Seeds()
    precision: Precision = "float32"
    checkpoints: tuple[Moment, ...] = ("memorised", "grokked", "stable")
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
        every = self.budget.evaluate_every
        for measure in self.measures:
            if measure.every is not None and measure.every % every:
                raise ValueError(
                    f"measure '{_kind(measure)}' is to be taken every {measure.every} steps, but there are evaluations "
                    f"every {every}: {-(-measure.every // every) * every} would do"
                )
        return self

    @model_validator(mode="after")
    def _parts_fit(self) -> Experiment:
        """The model reads what the task shows, every loss takes what it asks for, and a stream has no full batch."""
        task, model = self.task, self.model
        if task.examples not in model.reads:
            reads = " or ".join(model.reads)
            raise ValueError(f"model '{_kind(model)}' reads {reads}, but task '{_kind(task)}' shows {task.examples}")
        for name, recipe in self.arms.items():
            if task.answers not in recipe.loss.takes:
                raise ValueError(
                    f"loss '{_kind(recipe.loss)}' of arm '{name}' is for {' or '.join(recipe.loss.takes)}, "
                    f"but the answers of task '{_kind(task)}' are {task.answers}; {_fitting_losses(task.answers)}"
                )
        self._sources_exist()
        if task.streams and self.budget.batch_size == "full":
            raise ValueError(f"task '{_kind(task)}' is a stream, which has no full batch: set budget.batch_size")
        return self

    def _sources_exist(self) -> None:
        """Arms may start from the networks of other arms, but not in a circle."""
        sources = {name: {source.arm for source in recipe.sources} for name, recipe in self.arms.items()}
        for name, arms in sources.items():
            for arm in arms - set(self.arms):
                raise ValueError(f"arm '{name}' starts from arm '{arm}', which there is not: {nearest(arm, self.arms)}")
        settled: set[str] = set()
        while left := [name for name in self.arms if name not in settled]:
            ready = [name for name in left if sources[name] <= settled]
            if not ready:
                raise ValueError(f"arms {', '.join(left)} start from one another in a circle")
            settled.update(ready)

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


def _kind(member: Family) -> str:
    return str(getattr(member, "kind", ""))


def _fitting_losses(answers: AnswerKind) -> str:
    fitting = [kind for kind, loss in Loss.members().items() if answers in loss.takes]  # pyright: ignore
    return f"{' or '.join(fitting)} would do"


def builtin_names() -> list[str]:
    """Names of the experiments that come with groklab."""
    folder = resources.files("groklab").joinpath("experiments")
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))
