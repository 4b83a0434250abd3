"""The one training step and the one loop around it, for one run; `ensemble` lifts it to many.

    chunk    = as many intervals as the host asks for: one call of the compiled program, without the host
    interval = an evaluation, then `evaluate_every` steps unless that evaluation ended the run
    step     = loss and gradients on a batch, the recipe's transformation, new parameters

A run is a pure function of its spec and seed: the order of examples depends on (batch seed, epoch), what a stream
draws on (batch seed, step), everything else on the state. So chunk lengths, interruptions and neighbours in a batch of
runs do not change it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree, Shaped, UInt32

from groklab.engine.randomness import batch_key, epoch_order, measure_key, method_key, step_key
from groklab.experiment import Budget, Definitions, Measure, Model, Precision, Split, StreamSeeds, Table, Task
from groklab.models.layers import trained
from groklab.network import Network
from groklab.recipe import Loss, Method, Moment, Recipe, Signals, Source, Start
from groklab.spec import structure, traced_numbers, with_numbers

EVALUATION_ROWS = 640  # rows per forward pass of an evaluation: bounds memory, and stays in cache
LEAST_WEIGHT = 1e-6  # of a batch, of whose examples a curriculum may count none
START_ROWS = 512  # training examples that methods may use to change the initial parameters
MOST_INTERVALS = 256  # of one chunk: the room for its curves


class Sums(NamedTuple):
    """Added up over examples with their weights; divide by `weight` for means."""

    loss: Float[Array, ""]
    correct: Float[Array, ""]
    collapsed: Float[Array, ""]  # examples in softmax collapse, see Loss.collapsed
    weight: Float[Array, ""]

    @classmethod
    def nothing(cls) -> Sums:
        """Sums over no example."""
        return cls(*(jnp.zeros(()),) * len(cls._fields))


class State(NamedTuple):
    """Everything a run carries from step to step; saved whole in checkpoints. Times are steps, -1 while not reached."""

    model: PyTree
    optimizer: PyTree
    kept: dict[str, PyTree]  # the model at each of the program's moments, as soon as it is there
    step: Int[Array, ""]
    epoch: Sums  # over the training examples seen so far in this epoch, each before its update
    epoch_accuracy: Float[Array, ""]
    epoch_loss: Float[Array, ""]
    t_memorised: Int[Array, ""]
    t_grokked: Int[Array, ""]
    t_stable: Int[Array, ""]
    t_collapsed: Int[Array, ""]
    streak: Int[Array, ""]  # evaluations in a row at or above the grokked threshold
    diverged_at: Int[Array, ""]
    seen: Sums  # over the training examples since the last evaluation, each before its update
    finished: Bool[Array, ""]


class Inputs(NamedTuple):
    """What distinguishes one run of a program from another."""

    numbers: dict[str, Float[Array, ""]]  # the recipe's traced numbers
    batch_key: UInt32[Array, " 2"]  # raw key data, so that inputs are plain arrays on host and device alike
    split: Split
    scores: tuple[Float[Array, " N"], ...]  # of every curriculum of the recipe


class Batch(NamedTuple):
    """What a network answers at once."""

    examples: Shaped[Array, " B ..."]  # inputs, or where the network shares work between them their rows in the table
    targets: Shaped[Array, " B ..."]
    weights: Float[Array, " B"]  # 0 for padding
    scores: tuple[Float[Array, " B"], ...] = ()  # of every curriculum


class Curves(NamedTuple):
    """One evaluation; stacked along a leading axis [E] by a chunk. Rows with valid False were never reached."""

    valid: Bool[Array, ""]
    step: Int[Array, ""]
    train_loss: Float[Array, ""]
    train_accuracy: Float[Array, ""]
    softmax_collapse: Float[Array, ""]  # share of the training examples, 0 to 1
    held_out_loss: Float[Array, ""]
    held_out_accuracy: Float[Array, ""]
    measures: dict[str, Float[Array, ""]]


@dataclass(frozen=True)
class Program:
    """What is compiled: all of a run but its seeds and its recipe's traced numbers. Equal programs compile once."""

    task: Task
    model: Model
    recipe: Recipe  # its structure only; numbers come with the inputs
    budget: Budget
    definitions: Definitions
    measures: tuple[Measure, ...]
    precision: Precision
    moments: tuple[Moment, ...]  # at which the model is kept, for other runs or for later

    @classmethod
    def of(cls, experiment: Any, recipe: Recipe) -> Program:
        """The program behind one arm of an experiment."""
        e = experiment
        wanted = [*e.checkpoints, *(source.moment for arm in e.arms.values() for source in arm.sources)]
        wanted += [0] if any(measure.needs_start for measure in e.measures) else []
        moments = tuple(moment for moment in dict.fromkeys(wanted) if moment != "end")
        return cls(e.task, e.model, structure(recipe), e.budget, e.definitions, e.measures, e.precision, moments)

    @property
    def table(self) -> Table:
        return table_of(self.task)  # pyright: ignore[reportArgumentType]  # frozen specs are hashable

    @cached_property
    def _shared(self) -> Callable[[PyTree, Int[Array, " B"]], Float[Array, "B outputs"]] | None:
        return self.model.shared_forward(self.table) if self.table.common else None

    @property
    def common(self) -> np.ndarray | None:
        """The inputs [N, ...] that all runs read and `chunk` wants to be given.

        None where each run has its own, and where the network's shared forward pass holds them.
        """
        return self.table.inputs if self.table.common and self._shared is None else None

    @property
    def forward(self) -> Callable[[PyTree, Shaped[Array, " B ..."]], Float[Array, "B outputs"]]:
        """(parameters, examples as in a Batch) -> outputs."""
        return self._shared or self.model.apply

    @property
    def changes_start(self) -> bool:
        """Whether methods change the initial parameters."""
        return any(type(method).start is not Method.start for method in self.recipe.methods)

    @property
    def sources(self) -> tuple[Source, ...]:
        """The runs of other arms that this one starts from."""
        return self.recipe.sources

    def inputs(self, recipe: Recipe, seeds: StreamSeeds) -> Inputs:
        """The inputs of one run, on the host."""
        numbers = {path: np.dtype(self.precision).type(value) for path, value in traced_numbers(recipe).items()}
        split = self.task.split(seeds.split)
        scores = tuple(curriculum.scores(self.task, split) for curriculum in recipe.curricula)
        # NumPy's arrays, where the annotations name JAX's.
        return Inputs._make((numbers, np.asarray(batch_key(seeds.batch)), split, scores))

    def init(self, inputs: Inputs, model: PyTree, given: Mapping[str, PyTree], common: Any = None) -> State:
        """The state before the first step, from freshly drawn parameters.

        `given` has the models of other runs that the recipe's methods start from, by the names of their sources.
        """
        zero, never = jnp.zeros(()), jnp.array(-1)
        model = jax.tree.map(lambda leaf: leaf.astype(self.precision), model)
        if self.changes_start:
            model = self._started(self.completed(inputs, common), model, given)
        return State(
            model=model,
            optimizer=self._transform(inputs).init(trained(model)),
            kept={str(moment): model for moment in self.moments},
            step=jnp.array(0),
            epoch=Sums.nothing(),
            epoch_accuracy=zero,
            epoch_loss=jnp.array(jnp.inf),
            t_memorised=never,
            t_grokked=never,
            t_stable=never,
            t_collapsed=never,
            streak=jnp.array(0),
            diverged_at=never,
            seen=Sums.nothing(),
            finished=jnp.array(False),
        )

    def _started(self, inputs: Inputs, model: PyTree, given: Mapping[str, PyTree]) -> PyTree:
        """The model with the parameters that the recipe's methods would start from."""
        recipe = with_numbers(self.recipe, inputs.numbers)
        batch = self.batch_of(inputs, jnp.asarray(inputs.split.train)[:START_ROWS])

        def outputs(parameters: PyTree) -> Float[Array, "B outputs"]:
            return self.forward(eqx.combine(parameters, model), batch.examples)

        def loss(parameters: PyTree, temperature: Float[Array, ""] | float = 1.0) -> Float[Array, ""]:
            return jnp.mean(recipe.loss.per_example(outputs(parameters) / temperature, batch.targets))

        others = {name: trained(other) for name, other in given.items()}
        start = Start(method_key(inputs.batch_key, 0), outputs, loss, others)
        return eqx.combine(recipe.start(trained(model), start), model)

    def chunk(
        self, inputs: Inputs, state: State, intervals: Int[Array, ""], common: Shaped[Array, "N ..."] | None = None
    ) -> tuple[State, Curves]:
        """Advance by `intervals` intervals (at most MOST_INTERVALS), or until the run is finished.

        `common` is the program's, on the device: one for all runs.
        """
        inputs = self.completed(inputs, common)

        def interval(carry: tuple[Array, State, Curves]) -> tuple[Array, State, Curves]:
            i, state, curves = carry
            state, evaluated = self._evaluated(inputs, state)
            curves = jax.tree.map(lambda column, value: column.at[i].set(value), curves, evaluated)
            return i + 1, self._trained(inputs, state), curves

        shapes = jax.eval_shape(self._evaluated, inputs, state)[1]
        empty = jax.tree.map(lambda value: jnp.zeros((MOST_INTERVALS, *value.shape), value.dtype), shapes)
        _, state, curves = jax.lax.while_loop(
            lambda carry: (carry[0] < intervals) & ~carry[1].finished, interval, (jnp.array(0), state, empty)
        )
        return state, curves

    # --- training ------------------------------------------------------------------------------------------------

    def step(self, inputs: Inputs, state: State, batch: Batch) -> State:
        """One optimiser update on a batch, each example's loss counted with its weight."""
        recipe, parameters = with_numbers(self.recipe, inputs.numbers), trained(state.model)
        before = Signals(state.step, jnp.inf, 0.0, state.epoch_accuracy, state.epoch_loss, optax.tree.norm(parameters))

        def objective(parameters: PyTree) -> tuple[Float[Array, ""], tuple[Sums, PyTree]]:
            model = eqx.combine(parameters, state.model)
            if self._shared is None:
                outputs, model = self.model.apply_training(model, batch.examples, batch.weights)
            else:
                outputs = self._shared(model, batch.examples)
            losses, weights = recipe.loss.per_example(outputs, batch.targets), batch.weights
            for curriculum, scores in zip(recipe.curricula, batch.scores, strict=True):
                weights = weights * curriculum.weights(scores, jax.lax.stop_gradient(losses), before)
            loss = jnp.sum(weights * losses) / jnp.maximum(jnp.sum(weights), LEAST_WEIGHT)
            return loss, (self._sums(recipe.loss, outputs, losses, batch), model)

        (_, (sums, model)), gradients = jax.value_and_grad(objective, has_aux=True)(parameters)
        loss = sums.loss / sums.weight
        signals = before._replace(train_loss=loss, train_accuracy=_share(sums.correct, sums.weight))
        updates, optimizer = recipe.build().update(
            gradients,
            state.optimizer,
            parameters,
            signals=signals,
            key=method_key(inputs.batch_key, state.step + 1),
            gradient=jax.grad(lambda parameters: objective(parameters)[0]),
        )

        epoch = jax.tree.map(jnp.add, state.epoch, sums)
        epoch_ends = (state.step + 1) % self._steps_per_epoch(inputs) == 0
        return state._replace(
            model=eqx.combine(optax.apply_updates(parameters, updates), model),
            optimizer=optimizer,
            step=state.step + 1,
            epoch=jax.tree.map(lambda total: jnp.where(epoch_ends, 0.0, total), epoch),
            epoch_accuracy=jnp.where(epoch_ends, _share(epoch.correct, epoch.weight), state.epoch_accuracy),
            epoch_loss=jnp.where(epoch_ends, epoch.loss / epoch.weight, state.epoch_loss),
            diverged_at=jnp.where(jnp.isfinite(loss), state.diverged_at, state.step + 1),
            seen=jax.tree.map(jnp.add, state.seen, sums),
        )

    def _trained(self, inputs: Inputs, state: State) -> State:
        """Steps until the next evaluation or divergence."""
        target = jnp.minimum(state.step + self.budget.evaluate_every, self.budget.steps)
        target = jnp.where(state.finished, state.step, target)
        batch = self._batches(inputs, state.step)
        return jax.lax.while_loop(
            lambda state: (state.step < target) & (state.diverged_at < 0),
            lambda state: self.step(inputs, state, batch(state.step)),
            state,
        )

    def _transform(self, inputs: Inputs) -> optax.GradientTransformationExtraArgs:
        return with_numbers(self.recipe, inputs.numbers).build()

    # --- the order of examples -----------------------------------------------------------------------------------

    def batch_size(self, inputs: Inputs) -> int:
        """Examples of a full batch; of a finite task never more than there are to train on."""
        n, B = len(inputs.split.train), self.budget.batch_size
        if B == "full":
            return n
        return B if self.task.streams else min(B, n)

    def _steps_per_epoch(self, inputs: Inputs) -> int:
        if self.task.streams:
            return 1
        whole, rest = divmod(len(inputs.split.train), self.batch_size(inputs))
        return whole + (self.budget.last_batch == "ragged" and rest > 0)

    def _batches(self, inputs: Inputs, start: Int[Array, ""]) -> Callable[[Int[Array, ""]], Batch]:
        """The batch of a step, as a function good for the `evaluate_every` steps from `start` on."""
        split = inputs.split
        if self.task.streams:
            ones = jnp.ones(self.batch_size(inputs))

            def fresh(step: Int[Array, ""]) -> Batch:
                task = self.task
                for curriculum in with_numbers(self.recipe, inputs.numbers).curricula:
                    task = curriculum.altered(task, step)
                drawn = task.draw(step_key(inputs.batch_key, step), len(ones), split)
                return Batch(*drawn, ones, tuple(jnp.zeros_like(ones) for _ in inputs.scores))

            return fresh
        if len(split.train) == self.batch_size(inputs):
            whole = self.batch_of(inputs, jnp.asarray(split.train))
            return lambda step: whole
        rows = self._rows(inputs, start)
        return lambda step: self.batch_of(inputs, *rows(step))

    def _rows(
        self, inputs: Inputs, start: Int[Array, ""]
    ) -> Callable[[Int[Array, ""]], tuple[Int[Array, " B"], Float[Array, " B"]]]:
        """A function step -> (rows, weights), good for the `evaluate_every` steps from `start` on.

        An epoch visits every training example once, in an order of its own. What is left at its end makes a smaller
        batch (ragged: padded with weight 0), is skipped until the next epoch (drop), or is joined by the next epoch's
        first examples (wrap).
        """
        train = inputs.split.train
        n, B = len(train), self.batch_size(inputs)
        slots = n if self.budget.last_batch == "wrap" else self._steps_per_epoch(inputs) * B  # of one epoch
        drawn = self.budget.evaluate_every * B
        epochs = drawn // slots if drawn % slots == 0 else (drawn - 1) // slots + 2
        steps_per_order = slots // B  # exact but for wrap
        first = start * B // slots if self.budget.last_batch == "wrap" else start // steps_per_order
        orders = jax.vmap(lambda i: epoch_order(inputs.batch_key, first + i, n))(jnp.arange(epochs))
        rows = train[orders][:, :slots]  # [epochs, min(n, slots)]
        padding = ((0, 0), (0, max(slots - n, 0)))
        stream = jnp.pad(rows, padding, mode="edge").reshape(-1)
        weights = jnp.pad(jnp.ones(rows.shape), padding).reshape(-1)

        def rows_of(step: Int[Array, ""]) -> tuple[Int[Array, " B"], Float[Array, " B"]]:
            offset = step * B - first * slots
            return jax.lax.dynamic_slice(stream, (offset,), (B,)), jax.lax.dynamic_slice(weights, (offset,), (B,))

        return rows_of

    def completed(self, inputs: Inputs, common: Any) -> Inputs:
        """Inputs with the examples that all runs have in common, if there are such."""
        return inputs if common is None else inputs._replace(split=inputs.split._replace(inputs=common))

    def batch_of(self, inputs: Inputs, rows: Int[Array, " B"], weights: Float[Array, " B"] | None = None) -> Batch:
        """The examples in these rows, of weight 1 by default."""
        split = inputs.split
        examples = rows if self._shared is not None else jnp.asarray(split.inputs)[rows]
        weights = jnp.ones(len(rows)) if weights is None else weights
        scores = tuple(jnp.asarray(score)[rows] for score in inputs.scores)
        return Batch(examples, jnp.asarray(split.targets)[rows], weights, scores)

    # --- evaluation ----------------------------------------------------------------------------------------------

    def _evaluated(self, inputs: Inputs, state: State) -> tuple[State, Curves]:
        """Evaluate, bring the times up to date, and decide whether the run is over."""
        limits = self.definitions
        model = self._evaluated_model(state)
        evaluated, held_out = self._metrics(inputs, state.step, model)
        if self.budget.train_metrics == "evaluated":
            train = evaluated
        else:
            train = jax.tree.map(lambda e, s: jnp.where(state.step == 0, e, s), evaluated, state.seen)
        train_loss, held_out_loss = train.loss / train.weight, held_out.loss / held_out.weight
        train_accuracy, collapse = _share(train.correct, train.weight), _share(train.collapsed, train.weight)
        held_out_accuracy = _share(held_out.correct, held_out.weight)

        diverged_at = jnp.where((state.diverged_at < 0) & ~jnp.isfinite(train_loss), state.step, state.diverged_at)
        valid = diverged_at < 0
        grokked = valid & (held_out_accuracy >= limits.grokked)
        streak = jnp.where(grokked, state.streak + 1, 0)
        stable = streak == limits.stable_evaluations + 1
        stable_since = state.step - limits.stable_evaluations * self.budget.evaluate_every
        t_stable = _first(state.t_stable, stable, stable_since)
        before = state
        state = state._replace(
            t_memorised=_first(state.t_memorised, valid & (train_accuracy >= limits.memorised), state.step),
            t_grokked=_first(state.t_grokked, grokked, state.step),
            t_stable=t_stable,
            t_collapsed=_first(state.t_collapsed, valid & (collapse >= limits.collapsed), state.step),
            streak=streak,
            diverged_at=diverged_at,
            seen=Sums.nothing(),
            finished=~valid | (state.step >= self.budget.steps) | ((t_stable >= 0) & (self.budget.stop == "stable")),
        )
        state = state._replace(kept=self._kept(before, state, model))
        columns = (train_loss, train_accuracy, collapse, held_out_loss, held_out_accuracy)
        return state, Curves(valid, state.step, *columns, self.measured(inputs, state, model))

    def measured(self, inputs: Inputs, state: State, model: PyTree) -> dict[str, Array]:
        """The columns of all measures, NaN at the evaluations at which they are not taken. Inputs are `completed`."""
        columns: dict[str, Array] = {}
        for every in dict.fromkeys(measure.every for measure in self.measures):

            def taken(every: int | None = every) -> dict[str, Array]:
                network = self.network(inputs, state, model)  # one for all that are taken together, as it remembers
                found: dict[str, Array] = {}
                for measure in self.measures:
                    found |= measure.measure(network) if measure.every == every else {}
                return jax.tree.map(lambda value: jnp.asarray(value, self.precision), found)

            if every is None:
                columns |= taken()
            else:
                nothing = jax.tree.map(lambda value: jnp.full(value.shape, jnp.nan, value.dtype), jax.eval_shape(taken))
                columns |= jax.lax.cond(state.step % every == 0, taken, lambda nothing=nothing: nothing)
        return columns

    def network(self, inputs: Inputs, state: State, model: PyTree) -> Network:
        """The network as measures read it. Inputs are `completed`."""
        loss = with_numbers(self.recipe, inputs.numbers).loss
        key = measure_key(inputs.batch_key, state.step)
        return Network(self.model, model, self.task, self.table, inputs.split, loss, key, state.kept.get("0"))

    def _evaluated_model(self, state: State) -> PyTree:
        parameters = self.recipe.optimizer.evaluated(state.optimizer, trained(state.model))
        return eqx.combine(parameters, state.model)

    def _kept(self, before: State, state: State, model: PyTree) -> dict[str, PyTree]:
        """What is kept for other runs, with the model in it at each moment that has come with this evaluation."""
        kept = dict(state.kept)
        for moment in self.moments:
            if isinstance(moment, int):
                came = (state.step >= moment) & (state.step < moment + self.budget.evaluate_every)
            else:
                came = (getattr(before, f"t_{moment}") < 0) & (getattr(state, f"t_{moment}") >= 0)
            earlier = kept[str(moment)]
            kept[str(moment)] = jax.tree.map(lambda old, new, came=came: jnp.where(came, new, old), earlier, model)
        return kept

    def _metrics(self, inputs: Inputs, step: Int[Array, ""], model: PyTree) -> tuple[Sums, Sums]:
        """Sums over all training and all held-out examples, block by block.

        Training blocks are visited only where they are asked for.
        """
        train, held_out = jnp.asarray(inputs.split.train), jnp.asarray(inputs.split.held_out)
        n, m = len(train), len(held_out)
        size = -(-max(n, m) // -(-max(n, m) // EVALUATION_ROWS))
        rows, weights = zip(*(_in_blocks(rows, size) for rows in (train, held_out)), strict=True)
        training_blocks = len(rows[0])
        loss = with_numbers(self.recipe, inputs.numbers).loss
        rows, weights = jnp.concatenate(rows), jnp.concatenate(weights)

        def add_block(i: Int[Array, ""], sums: Sums) -> Sums:
            batch = self.batch_of(inputs, rows[i], weights[i])
            outputs = self.forward(model, batch.examples)
            block = self._sums(loss, outputs, loss.per_example(outputs, batch.targets), batch)
            part = (i >= training_blocks).astype(int)
            return jax.tree.map(lambda s, x: s.at[part].add(x), sums, block)

        skips_training = (self.budget.train_metrics == "running") & (step > 0)
        start = jnp.where(skips_training, training_blocks, 0)
        sums = jax.lax.fori_loop(start, len(rows), add_block, jax.tree.map(lambda s: jnp.zeros(2), Sums.nothing()))
        return jax.tree.map(lambda s: s[0], sums), jax.tree.map(lambda s: s[1], sums)

    def _sums(self, loss: Loss, outputs: Float[Array, "B outputs"], losses: Float[Array, " B"], batch: Batch) -> Sums:
        weights = batch.weights
        return Sums(
            loss=jnp.sum(weights * losses),
            correct=jnp.sum(weights * self.task.right(outputs, batch.targets)),
            collapsed=jnp.sum(weights * loss.collapsed(losses)),
            weight=jnp.sum(weights),
        )


@lru_cache(maxsize=4)
def table_of(task: Task) -> Table:
    """The table of a task, read or made once."""
    return task.table()


def _in_blocks(rows: Int[Array, " n"], size: int) -> tuple[Int[Array, "k size"], Float[Array, "k size"]]:
    """Rows in blocks of `size`, the last one padded; and their weights, 0 for padding."""
    blocks = -(-len(rows) // size)
    padding = (0, blocks * size - len(rows))
    return jnp.pad(rows, padding).reshape(blocks, size), jnp.pad(jnp.ones(len(rows)), padding).reshape(blocks, size)


def _share(part: Float[Array, ""], whole: Float[Array, ""] | int) -> Float[Array, ""]:
    """part / whole, exactly 1 where they are equal: not so where the compiler multiplies by a known reciprocal."""
    return part / jax.lax.optimization_barrier(jnp.asarray(whole, part.dtype))


def _first(known: Int[Array, ""], reached: Bool[Array, ""], step: Int[Array, ""]) -> Int[Array, ""]:
    return jnp.where((known < 0) & reached, step, known)
