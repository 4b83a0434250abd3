"""Fourier measures of networks that add or multiply residues: is there a trigonometric circuit, and does it decide?

    restricted logits   P_K L + mean of L        what the circuit alone says; P_K as in `groklab.fourier`
    excluded logits     L - P_K L                what the network says without it
    loss                cross-entropy, whatever the network was trained with, over all of its outputs

Nanda et al. 2023 (arXiv 2301.05217). K are the key frequencies, by one of three rules of the sources, which disagree:

    logit_map   where the norm of W_L = W_U W_out over neurons exceeds the share `threshold` (1/4) of the greatest; the
                paper's appendix C.2 takes "nontrivial" ones of W_L without a number, the 1/4 is TransformerLens's
    neurons     where the greatest share of a neuron's energy lies, a block of {1, cos, sin}^2 of the activations of the
                last layer of neurons over all pairs, if it exceeds `threshold` (0): the released code
    embedding   as logit_map of the embeddings of both operands (1/4): TransformerLens's demonstration

By default it is the first of these that the network has the parts for: logit_map needs a linear readout of the last
neurons. `frequencies` instead gives K itself: the authors take K from the final network for all earlier ones.

Only `restricted_loss.heldout` and `restricted_accuracy.heldout` are progress measures: their projection is fitted on
held-out pairs alone and tried on these. Fitted on all pairs, as published (.train, .test, .all), it averages the right
logits of training pairs into the cell of every answer, and a network that only memorises may have a loss near 0. An
answer without held-out pairs has the mean of the other answers in that fit. `restricted_loss.null` is the held-out loss
with as many frequencies as K drawn at random, its mean over 16 draws that are always the same.

`excluded_loss` (train, test) leaves out all of K at once, without the mean as a correction; `excluded_loss.single` is
the greatest train loss without a single frequency, of all there are, which needs no K.

Other columns: `gini.*` of the norms of all n components, constant included; `trig_fit.variance_explained` of the
logits, centred for each pair, by sum_k alpha_k cos w_k (a + b - c), k in K; `neurons.specific`, the share of neurons
with more than 0.85 of their energy in one block; `inverse_participation_ratio` (Doshi et al. 2023, arXiv 2310.13061)
averaged over what either operand puts into a neuron of the first layer and what a neuron of the last adds to the
logits, for MLPs; `fourier_entropy.*` (see `groklab.fourier.fourier_entropy`) of the same vectors.

Embeddings are those of the two operands side by side, or with one-hot tokens the columns of the first layer.

Deviations: frequencies are judged by the root of the sum of squares of cos and sin, not by either, and the constant is
not among those judged. The inverse participation ratio counts a frequency once and is 1 for a wave of any phase, where
the complex transform of the formula has two equal entries and 1/2. Which transform the authors use, and whether their
entropies are of W_in W_E in transformers, we could not verify; transformers have no column of the first layer here.

Cost: a forward pass over all pairs with its activations, one product of [n, n] with [n, n m], and n/2 losses of the
training set. It says nothing about other algorithms than this circuit, nor about why a network has it. Not for tasks
whose answers are those of no cyclic group: S5 and a^2+b^2 are refused. Under multiplication pairs with a 0 are left out
of all columns.
"""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from pydantic import Field, model_validator

from groklab.errors import SpecError
from groklab.experiment import Measure, Positive
from groklab.fourier import (
    answer_means,
    band_pass,
    block_shares,
    by_frequency,
    coefficients,
    component_norms,
    fourier_entropy,
    gini,
    group_pairs,
    inverse_participation_ratio,
    trig_coefficients,
    trig_energy,
)
from groklab.methods.losses import unrounded_cross_entropy
from groklab.models.lazy import LazySpec
from groklab.models.mlp import MLPSpec
from groklab.network import Network

Rule = Literal["logit_map", "embedding", "neurons"]
PREFERENCE: tuple[Rule, ...] = ("logit_map", "neurons", "embedding")  # the paper, its code, others
THRESHOLDS: dict[Rule, float] = {"logit_map": 0.25, "embedding": 0.25, "neurons": 0.0}
RULES: dict[Rule, str] = {
    "logit_map": "norm of W_L by frequency over the greatest >",
    "embedding": "norm of W_E by frequency over the greatest >",
    "neurons": "a neuron's greatest share of energy >",
}
SPECIFIC = 0.85  # share of its energy that a neuron of one frequency has there
RANDOM_SETS = 16

DEFINITIONS = {
    "restricted_loss": "cross-entropy of P_K L + mean L; train, test, all: fitted on all pairs; heldout: on held-out "
    "pairs only; null: heldout with random frequencies",
    "excluded_loss": "cross-entropy of L - P_K L, fitted on all pairs, no correction by the mean; single: the greatest "
    "on training pairs without one frequency",
    "gini": "of the norms of all components, constant included",
    "trig_fit": "share of the sum of squares of logits centred per pair, by cos w_k (a + b - c) with k in K",
    "neurons": f"specific: more than {SPECIFIC} of the energy, less the mean, in one block of {{1, cos, sin}}^2",
    "spectrum": "norm over columns, by frequency from 0",
}


class Fourier(Measure):
    """Key frequencies, restricted and excluded loss, and how concentrated the spectra are, for modular arithmetic.

    `rule` finds the key frequencies, with its `threshold`; `frequencies` gives them instead.

    Raises SpecError for tasks that are no addition, subtraction, multiplication or division of two residues, for a rule
    of whose parts the network has none, and for frequencies that there are not.
    """

    kind: Literal["fourier"] = "fourier"
    rule: Rule | None = None
    threshold: Annotated[float, Field(ge=0, lt=1)] | None = None
    frequencies: Annotated[tuple[Positive, ...], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _finds_or_is_told(self) -> Fourier:
        if self.frequencies and (self.rule is not None or self.threshold is not None):
            raise ValueError("key frequencies come from rule and threshold or from frequencies, but both were given")
        return self

    def measure(self, network: Network) -> dict[str, Float[Array, ""]]:
        panel = Panel(self, network)
        columns = {f"restricted_loss.{name}": loss for name, loss in panel.restricted_losses(panel.key).items()}
        columns["restricted_accuracy.all"] = panel.restricted_accuracy(panel.means, "all")
        if network.split_is_known:
            columns["restricted_accuracy.heldout"] = panel.restricted_accuracy(panel.heldout_means, "test")
            columns["restricted_loss.null"] = panel.null_loss()
            for name in ("train", "test"):
                columns[f"excluded_loss.{name}"] = panel.excluded_loss(name, panel.key)
            columns["excluded_loss.single"] = jnp.max(panel.excluded_by_frequency())
        columns |= {f"gini.{name}": gini(norms) for name, norms in panel.norms.items()}
        for name, spectra in panel.vectors.items():
            columns[f"fourier_entropy.{name}"] = _mean(fourier_entropy(spectra[:, 1:]))
            columns[f"fourier_entropy.{name}_released"] = _mean(fourier_entropy(spectra[:, 1:], "released"))
        if len(panel.vectors) == 2:
            inputs, outputs = (_mean(inverse_participation_ratio(spectra)) for spectra in panel.vectors.values())
            columns["inverse_participation_ratio"] = (2 * inputs + outputs) / 3  # there are two operands
        columns["key_frequencies.count"] = jnp.sum(panel.key)
        columns["trig_fit.variance_explained"] = panel.variance_explained()
        if panel.shares is not None:
            columns["neurons.specific"] = jnp.mean(jnp.max(panel.shares, axis=1) > SPECIFIC)
        return columns

    def details(self, network: Network) -> dict[str, Any]:
        panel = Panel(self, network)
        rule = panel.rule
        found: dict[str, Any] = {
            "key_frequencies.rule": f"{rule}: {RULES[rule]} {self._threshold(rule)}" if rule else "given",
            "key_frequencies.used": _numbers(panel.key),
            "restricted_loss_by_rule": {
                name: {part: float(loss) for part, loss in panel.restricted_losses(key).items()}
                for name, key in panel.by_rule.items()
            },
            "trig_fit.coefficients": np.asarray(panel.alpha).tolist(),
            "definitions": DEFINITIONS,
        }
        found |= {f"key_frequencies.{name}": _numbers(key) for name, key in panel.by_rule.items()}
        found |= {f"spectrum.{name}": np.asarray(by_frequency(norms)).tolist() for name, norms in panel.norms.items()}
        if network.split_is_known:
            found["excluded_loss_by_frequency"] = np.asarray(panel.excluded_by_frequency()).tolist()
        if panel.shares is not None:
            shares = np.asarray(panel.shares)
            best = shares.argmax(axis=1)[shares.max(axis=1) > SPECIFIC] + 1
            found["neurons.clusters"] = {k: int(np.sum(best == k)) for k in np.unique(best).tolist()}
        return found

    def _threshold(self, rule: Rule) -> float:
        return THRESHOLDS[rule] if self.threshold is None else self.threshold


class Panel:
    """What the columns and the details have in common, of one network, each part computed when it is asked for."""

    def __init__(self, measure: Fourier, network: Network) -> None:
        pairs = group_pairs(network.table)
        if pairs is None:
            raise SpecError(
                "measure 'fourier' is for pairs of residues whose answer is a+b or a-b, or a*b or a/b modulo a prime, "
                f"but those of task '{getattr(network.task, 'kind', '')}' are no such thing"
            )
        self.spec, self.network, self.pairs = measure, network, pairs
        self.n = len(pairs.elements)
        self.targets = network.targets[pairs.by_answer]  # [n, n]
        self.cube = network.outputs[pairs.by_answer]  # [n, n, C], pairs with the same answer in a row
        self.means = answer_means(self.cube)

    # --- key frequencies, and the spectra and shares by which they are found -----------------------------------------

    @cached_property
    def rule(self) -> Rule | None:
        if self.spec.frequencies:
            return None
        for rule in (self.spec.rule,) if self.spec.rule else PREFERENCE:
            if rule in self.by_rule:
                return rule
        others = [f"rule = '{rule}'" for rule in self.by_rule]
        raise SpecError(
            f"measure 'fourier' finds no key frequencies by {self.spec.rule or 'any rule'}, as the network has not the "
            f"parts for it: set {' or '.join([*others, 'frequencies'])}"
        )

    @cached_property
    def key(self) -> Bool[Array, " n//2"]:
        if self.rule is not None:
            return self.by_rule[self.rule]
        given = self.spec.frequencies or ()
        if max(given) > self.n // 2:
            raise SpecError(f"there are frequencies 1 to {self.n // 2} of {self.n} residues, but {max(given)} is given")
        return jnp.zeros(self.n // 2, bool).at[np.array(given) - 1].set(True)

    @cached_property
    def by_rule(self) -> dict[Rule, Bool[Array, " n//2"]]:
        """The key frequencies by each rule that the network has the parts for."""
        found: dict[Rule, Array] = {}
        for rule in ("logit_map", "embedding"):
            if rule in self.norms:
                amplitudes = by_frequency(self.norms[rule])[1:]
                found[rule] = amplitudes > self._threshold(rule) * jnp.max(amplitudes)
        if self.shares is not None:
            best = jnp.argmax(self.shares, axis=1)[:, None] == np.arange(self.n // 2)
            exceeds = jnp.max(self.shares, axis=1) > self._threshold("neurons")
            found["neurons"] = jnp.any(best & exceeds[:, None], axis=0)
        return found

    def _threshold(self, rule: Rule) -> float:
        return self.spec._threshold(rule)

    @cached_property
    def shares(self) -> Float[Array, "m n//2"] | None:
        """Of each neuron of the last layer, the share of its energy in the block of each frequency."""
        activations = self.network.trace_of(jnp.asarray(self.pairs.rows.reshape(-1))).activations
        return block_shares(activations[-1].reshape(self.n, self.n, -1)) if activations else None

    @cached_property
    def logit_map(self) -> Float[Array, "n m"] | None:
        readout = self.network.model.readout(self.network.parameters)
        return None if readout is None else readout[self.pairs.elements]

    @cached_property
    def norms(self) -> dict[str, Float[Array, " n"]]:
        """Of the components of the logit map and of the embedding, those that there are."""
        matrices = {"logit_map": self.logit_map, "embedding": self._embedding()}
        return {name: component_norms(matrix) for name, matrix in matrices.items() if matrix is not None}

    @cached_property
    def vectors(self) -> dict[str, Float[Array, "m n//2+1"]]:
        """Of single neurons, by frequency, what operands put into the first layer and what the last adds to logits."""
        matrices = {"first_layer": self._first_layer(), "logit_map": self.logit_map}
        return {name: by_frequency(coefficients(m.T)) for name, m in matrices.items() if m is not None}

    def _trained(self) -> tuple[Any, Any]:
        """Model and parameters, without what makes a network lazy."""
        model, parameters = self.network.model, self.network.parameters
        return (model.network, parameters.network) if isinstance(model, LazySpec) else (model, parameters)

    def _operands(self) -> list[Float[Array, "n D"]] | None:
        """The embeddings of either operand."""
        model, parameters = self._trained()
        rows = (self.pairs.rows[:, 0], self.pairs.rows[0])
        embedded = [model.embed(parameters, self.network.inputs[r]) for r in rows]
        if embedded[0].ndim != 3:
            return None
        return [e[:, position] for e, position in zip(embedded, self.pairs.positions, strict=True)]

    def _first_layer(self) -> Float[Array, "n 2*width"] | None:
        """What either operand adds to each neuron of an MLP's first layer."""
        model, parameters = self._trained()
        operands = self._operands()
        if not isinstance(model, MLPSpec) or operands is None:
            return None
        weight = parameters.hidden[0].multiplier * parameters.hidden[0].weight
        parts = weight.reshape(len(weight), -1, operands[0].shape[-1])  # [width, T, D]; T is 1 for a sum
        at = [position % parts.shape[1] for position in self.pairs.positions]
        return jnp.concatenate([e @ parts[:, t].T for e, t in zip(operands, at, strict=True)], axis=1)

    def _embedding(self) -> Float[Array, "n D"] | None:
        model, parameters = self._trained()
        if isinstance(model, MLPSpec) and parameters.tokens is None:
            return self._first_layer()
        operands = self._operands()
        return None if operands is None else jnp.concatenate(operands, axis=1)

    # --- restricted: what the sum directions alone say ---------------------------------------------------------------

    @cached_property
    def heldout_means(self) -> Float[Array, "n C"]:
        return answer_means(self.cube, self._counted("test"))

    def restricted_losses(self, key: Bool[Array, " n//2"]) -> dict[str, Float[Array, ""]]:
        losses = {name: self._restricted_loss(self.means, key, name) for name in self.network.parts}
        if self.network.split_is_known:
            losses["heldout"] = self._restricted_loss(self.heldout_means, key, "test")
        return losses

    def null_loss(self) -> Float[Array, ""]:
        """The mean held-out loss of random sets of as many frequencies as there are key frequencies."""
        random = np.random.default_rng(0)
        ranks = np.stack([random.permutation(self.n // 2) for _ in range(RANDOM_SETS)])
        sets = jnp.asarray(ranks) < jnp.sum(self.key)
        return jnp.mean(jax.vmap(lambda key: self._restricted_loss(self.heldout_means, key, "test"))(sets))

    def restricted_accuracy(self, means: Float[Array, "n C"], part: str) -> Float[Array, ""]:
        """Of answers whose logit alone is the greatest."""
        logits = band_pass(means, self.key, constant=True)
        alone = jnp.sum(logits >= jnp.max(logits, axis=1, keepdims=True), axis=1) == 1
        right = alone[:, None] & (jnp.argmax(logits, axis=1)[:, None] == self.targets)
        return _weighted(right.astype(logits.dtype), self._counted(part))

    def _restricted_loss(self, means: Float[Array, "n C"], key: Bool[Array, " n//2"], part: str) -> Float[Array, ""]:
        return _restricted_loss(means, key, self.targets, self._counted(part))

    def _counted(self, part: str) -> Float[Array, "n n"]:
        """1 for each pair of this part."""
        rows = self.network.parts[part]
        return jnp.zeros(len(self.pairs.answers), self.means.dtype).at[rows].set(1)[self.pairs.by_answer]

    # --- excluded: what is said without them -------------------------------------------------------------------------

    def excluded_loss(self, part: str, key: Bool[Array, " n//2"]) -> Float[Array, ""]:
        return _excluded_losses(*self._to_exclude_from(part), key[None])[0]

    def excluded_by_frequency(self) -> Float[Array, " n//2"]:
        """The train loss without each frequency alone."""
        return _excluded_losses(*self._to_exclude_from("train"), jnp.eye(self.n // 2, dtype=bool))

    def _to_exclude_from(self, part: str) -> tuple[Array, ...]:
        rows = self.network.parts[part]
        answers = jnp.asarray(self.pairs.answers)[rows]
        return self.network.outputs[rows], self.network.targets[rows], answers, self.means

    # --- the logits as waves -----------------------------------------------------------------------------------------

    @cached_property
    def alpha(self) -> Float[Array, " n//2"]:
        return trig_coefficients(self.means[:, self.pairs.elements])

    def variance_explained(self) -> Float[Array, ""]:
        logits = self.cube[..., self.pairs.elements]
        total = jnp.sum((logits - jnp.mean(logits, axis=-1, keepdims=True)) ** 2)
        return jnp.sum(jnp.where(self.key, trig_energy(self.alpha, self.n), 0)) / total


# --- losses; compiled by themselves for networks that are not training -----------------------------------------------


@jax.jit
def _restricted_loss(
    means: Float[Array, "n C"], key: Bool[Array, " n//2"], targets: Int[Array, "n n"], counted: Float[Array, "n n"]
) -> Float[Array, ""]:
    losses = _every_loss(band_pass(means, key, constant=True))  # the same for all pairs with the same answer
    return _weighted(jnp.take_along_axis(losses, targets, axis=1), counted)


@jax.jit
def _excluded_losses(
    logits: Float[Array, "B C"],
    targets: Int[Array, " B"],
    answers: Int[Array, " B"],
    means: Float[Array, "n C"],
    keys: Bool[Array, "sets n//2"],
) -> Float[Array, " sets"]:
    """The loss without the key frequencies of each set; pairs outside of the group have answer -1 and do not count."""
    counted = (answers >= 0).astype(logits.dtype)

    def loss(key: Bool[Array, " n//2"]) -> Float[Array, ""]:
        return _weighted(unrounded_cross_entropy(logits - band_pass(means, key)[answers], targets), counted)

    return jax.lax.map(loss, keys)


def _every_loss(logits: Float[Array, "n C"]) -> Float[Array, "n C"]:
    """The cross-entropy of every class; that of the likeliest in the form that keeps the smallest losses."""
    best = jnp.argmax(logits, axis=1)
    is_best = jnp.arange(logits.shape[1]) == best[:, None]
    total = jax.nn.logsumexp(logits, axis=1, keepdims=True)
    return jnp.where(is_best, unrounded_cross_entropy(logits, best)[:, None], total - logits)


def _weighted(values: Array, weights: Array) -> Float[Array, ""]:
    return jnp.sum(values * weights) / jnp.sum(weights)


def _mean(values: Float[Array, " m"]) -> Float[Array, ""]:
    """Over the neurons that have a spectrum at all."""
    return jnp.nanmean(values)


def _numbers(key: Bool[Array, " n//2"]) -> list[int]:
    return (np.flatnonzero(np.asarray(key)) + 1).tolist()
