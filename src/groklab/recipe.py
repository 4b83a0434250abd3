"""A recipe says how a network is trained: loss, optimiser, schedule, an ordered list of methods, and curricula.

    update = around(chain(*methods before the optimiser, optimiser, *methods after it))

Every method is an Optax transformation that sees gradients, parameters, the online `Signals` and what can be computed
from the training batch, and nothing else: test labels cannot reach it. Because a method may carry a trigger (`when`),
any of them can be switched on during training. Besides, a method may change the parameters that training starts from,
and a curriculum decides how much each training example counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import Field, model_validator

from groklab.spec import Family, Spec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import jax
    import numpy as np
    import optax
    from jaxtyping import Array, Bool, Float, Int, PyTree

    from groklab.experiment import Split, Task


class Signals(NamedTuple):
    """What a method may know of the running training: nothing in it depends on held-out labels or on evaluations.

    An epoch is the last complete pass through the training set; on a stream, the last batch.
    """

    step: Int[Array, ""]  # updates done before this one
    train_loss: Float[Array, ""] | float  # of this step's batch, before the update
    train_accuracy: Float[Array, ""] | float  # of this step's batch, before the update
    epoch_accuracy: Float[Array, ""]  # 0 before the first epoch ends
    epoch_loss: Float[Array, ""] | float = float("inf")  # likewise, each batch's before its update
    weight_norm: Float[Array, ""] | float = 0.0  # L2 norm of all parameters, before the update


Moment = Literal["memorised", "grokked", "stable", "end"] | Annotated[int, Field(ge=0)]


class Source(NamedTuple):
    """The parameters of another arm's run with the same seed, as they were at a moment (a time, or a step)."""

    arm: str
    moment: Moment

    @property
    def name(self) -> str:
        return f"{self.arm} at {self.moment}"


class Start(NamedTuple):
    """What a method may use to change the parameters that training starts from."""

    key: Array  # of the run's batch seed
    outputs: Callable[[PyTree], Float[Array, "B C"]]  # parameters -> outputs for the first training examples
    loss: Callable[..., Float[Array, ""]]  # (parameters, temperature=1) -> mean loss of outputs / temperature on them
    given: Mapping[str, PyTree]  # parameters of other runs, by the names of the method's sources


class Trigger(Family):
    """When a method acts. `update` is pure; its state is whatever must be remembered (a latch, say), in arrays."""

    package: ClassVar[str] = "groklab.methods"

    def init(self) -> PyTree:
        """The trigger's state before the first step."""
        raise NotImplementedError

    def update(self, state: PyTree, signals: Signals) -> tuple[Bool[Array, ""], PyTree]:
        """Return (whether the method acts at this step, new state)."""
        raise NotImplementedError


class Schedule(Family):
    """A factor on the learning rate as a function of the updates done so far."""

    package: ClassVar[str] = "groklab.methods"

    def factor(self, count: Int[Array, ""]) -> Float[Array, ""]:
        """The factor for the update that follows `count` earlier ones."""
        raise NotImplementedError


class Optimizer(Family):
    """The rule that turns gradients into updates, a wrapped Optax optimiser."""

    package: ClassVar[str] = "groklab.methods"

    def build(self, schedule: Schedule) -> optax.GradientTransformation:
        """The transformation, with its learning rate multiplied by `schedule.factor`."""
        raise NotImplementedError

    def evaluated(self, state: PyTree, parameters: PyTree) -> PyTree:
        """The parameters to evaluate and to keep, where they are not those trained; `state` is the whole recipe's."""
        return parameters


class Loss(Family):
    """The training objective, example by example.

    Targets are classes [B] for which outputs are logits [B, C], signs [B] (0 for -1, 1 for +1) for which there is one
    output [B, 1], or values [B, K] for as many outputs; `takes` says which of them the loss is for.
    """

    package: ClassVar[str] = "groklab.methods"
    takes: ClassVar[tuple[str, ...]] = ("classes",)

    def per_example(self, outputs: Float[Array, "B C"], targets: Array) -> Float[Array, " B"]:
        """The loss of each example."""
        raise NotImplementedError

    def collapsed(self, losses: Float[Array, " B"]) -> Bool[Array, " B"]:
        """Which examples are in softmax collapse, given their losses; none where there is no softmax."""
        import jax.numpy as jnp

        return jnp.zeros(losses.shape, bool)


class Method(Family):
    """One published way to change training, as an Optax transformation placed before, after or around the optimiser.

    `update` is called with the extra arguments `signals` (Signals), `key` (a random key for this step and run), and
    `gradient` (parameters -> gradient of this batch's loss there). Two methods with a claim in common are refused.
    """

    package: ClassVar[str] = "groklab.methods"
    place: ClassVar[Literal["before", "after", "around"]] = "before"
    claims: ClassVar[tuple[str, ...]] = ()  # what this method alone decides, such as "the norm of the weights"
    takes_gradient: ClassVar[bool] = False  # anew, elsewhere: what methods listed before it made of it would be lost

    def build(self) -> optax.GradientTransformation:
        """The transformation: filters and penalties act on gradients, projections on the optimiser's updates."""
        import optax

        return optax.identity()

    def around(self, inner: optax.GradientTransformationExtraArgs) -> optax.GradientTransformation:
        """For place "around": the update rule made from that of everything else in the recipe."""
        raise NotImplementedError

    def start(self, parameters: PyTree, start: Start) -> PyTree:
        """The parameters that training starts from, given freshly drawn ones."""
        return parameters

    @property
    def sources(self) -> tuple[Source, ...]:
        """The runs whose parameters `start` is given."""
        return ()


class Curriculum(Family):
    """How much each training example counts, as training goes on; a function of examples, seed and signals only."""

    package: ClassVar[str] = "groklab.methods"

    def scores(self, task: Task, split: Split) -> np.ndarray:
        """A number for each row [N] float32, such as its difficulty; 0 if the rows are alike to it."""
        import numpy as np

        return np.zeros(len(split.targets), np.float32)

    def weights(self, scores: Float[Array, " B"], losses: Float[Array, " B"], signals: Signals) -> Float[Array, " B"]:
        """The weights of a batch's examples, at least 0; their losses are averaged with them.

        Each goes by its own score and loss: examples may be there several times, or for padding. The signals of this
        batch itself, train_loss and train_accuracy, are not known yet.
        """
        raise NotImplementedError

    def altered(self, task: Task, step: Int[Array, ""]) -> Task:
        """The task from which a stream draws this step's batch; its fields may be tracers."""
        return task


def _default(kind: str) -> Any:
    return {"kind": kind}


class Recipe(Spec):
    """Loss + optimiser + schedule + methods; one arm of an experiment."""

    loss: Loss = _default("cross_entropy")
    optimizer: Optimizer = _default("adamw")
    schedule: Schedule = _default("constant")
    methods: tuple[Method, ...] = ()
    curricula: tuple[Curriculum, ...] = ()

    @model_validator(mode="after")
    def _methods_agree(self) -> Recipe:
        for claim in dict.fromkeys(claim for method in self.methods for claim in method.claims):
            rivals = [getattr(method, "kind", "") for method in self.methods if claim in method.claims]
            if len(rivals) > 1:
                raise ValueError(f"methods {' and '.join(rivals)} each decide {claim}: keep one of them")
        acting = [method for method in self.methods if method.place == "before"]
        for method in acting[1:]:
            if method.takes_gradient:
                kind = getattr(method, "kind", "")
                raise ValueError(
                    f"method {kind} takes the gradient anew, so it has to be the first of those before the optimiser"
                )
        return self

    @property
    def sources(self) -> tuple[Source, ...]:
        """The runs of other arms that a run starts from."""
        return tuple(dict.fromkeys(source for method in self.methods for source in method.sources))

    def build(self) -> optax.GradientTransformationExtraArgs:
        """The whole update rule; the first of several methods around it is the outermost.

        Call `update(gradients, state, parameters, signals=Signals(...), key=..., gradient=...)`.
        """
        import optax

        built = [_with_key_of_its_own(method.build(), i) for i, method in enumerate(self.methods)]
        before = [rule for rule, method in zip(built, self.methods, strict=True) if method.place == "before"]
        after = [rule for rule, method in zip(built, self.methods, strict=True) if method.place == "after"]
        rule = optax.with_extra_args_support(optax.chain(*before, self.optimizer.build(self.schedule), *after))
        for method in reversed(self.methods):
            if method.place == "around":
                rule = optax.with_extra_args_support(method.around(rule))
        return rule

    def start(self, parameters: PyTree, start: Start) -> PyTree:
        """The parameters that training starts from, changed by one method after the other."""
        import jax

        for i, method in enumerate(self.methods):
            parameters = method.start(parameters, start._replace(key=jax.random.fold_in(start.key, i)))
        return parameters


def _with_key_of_its_own(rule: optax.GradientTransformation, i: int) -> optax.GradientTransformation:
    """The rule, its random key made from that of the step and its place in the list."""
    import jax
    import optax

    inner = optax.with_extra_args_support(rule)

    def update(updates: Any, state: Any, params: Any = None, *, key: Any = None, **extra: Any) -> tuple[Any, Any]:
        own = None if key is None else jax.random.fold_in(key, i)
        return inner.update(updates, state, params, key=own, **extra)

    return transformation(rule.init, update)


def transformation(init: Callable[..., Any], update: Callable[..., Any]) -> optax.GradientTransformationExtraArgs:
    """An Optax transformation whose `update` takes extra arguments."""
    import optax

    # The constructor's type, inherited by optax from GradientTransformation, does not know of extra arguments.
    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]


def path_name(path: tuple[jax.tree_util.KeyEntry, ...]) -> str:
    """The dotted name of one leaf, such as `blocks.0.mlp.inner.weight`."""
    import jax

    return jax.tree_util.keystr(path, simple=True, separator=".")
