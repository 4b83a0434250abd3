"""How much of a network's logits is a sum of characters of the group whose product it learns (Chughtai et al. 2023).

With chi_rho the character of the irreducible representation rho, L the logits centred over c for each pair (a, b), and
both read as flat vectors over all (a, b, c), arXiv 2302.03025 and its code have

    trace similarity   sim_rho = <L, chi_rho(a b c^-1)> / (|L| |chi_rho|)
    key representations   K = the rho with sim_rho > 0.005
    logits explained   sum_rho sim_rho^2, characters being orthogonal
    restricted loss    cross-entropy of R = sum_(rho in K) sim_rho |L| chi_rho / |chi_rho|
    excluded loss      cross-entropy of L - R on the training pairs
    embedding share    the part of |E|^2 in the functions spanned by the matrix entries of rho, by the projector
                       d/n chi_rho(g h^-1); E is the embedding, for an MLP times the operand's part of the first layer

chi(a b c^-1) only depends on x = a b c^-1, so that R is a function of x, and the restricted loss is the same for every
pair: -log softmax(R)(e) over the n values of x. It is therefore 0 or 1 in accuracy, and easily misleads: fitted on all
pairs it is small for networks that only memorise. `group.restricted_loss.heldout` has the coefficients of the same K
fitted on the held-out pairs alone, and is the one to watch; `.random_set` is the same for sets of as many
representations drawn at random (mean of 10), and says what it is worth.

Addition mod n is the cyclic case: complex conjugates go together, each pair is a frequency k with the character
2 cos(2 pi k x / n), and sim_k is the coefficient of cos(w_k (a + b - c)) (Nanda et al. 2023, arXiv 2301.05217) in units
of |L|. Their restricted loss keeps both cos(w_k (a + b)) and sin(w_k (a + b)) for every answer: another quantity.

Deviates from the authors' code: characters come from the multiplication table, not from matrices, so that all
representations are known and not those they list; their shares of cyclic embeddings count two of the columns only.
They choose K by the final network and keep it; here it is that of the moment unless `representations` says which.
Answers are without label noise, but for the excluded loss, which has those trained on. Loss is always cross-entropy.

Cost: the logits of all n^2 pairs and a few sums over them; n^3 numbers, 7 MB for S5 in float32, 1.5 GB for S6. It does
not show how a network computes the characters: coset circuits (Stander et al. 2023, arXiv 2312.06581) also have such
logits.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from pydantic import Field

from groklab.characters import Irrep, combined, irreducible_characters, quotients
from groklab.errors import DataError, SpecError, nearest
from groklab.experiment import Measure, Table
from groklab.groups import Group, group_from_table, named_group
from groklab.methods.losses import unrounded_cross_entropy
from groklab.models.mlp import MLP
from groklab.network import Network
from groklab.tasks.groups import GroupComposition

RANDOM_SETS = 10


class GroupCharacters(Measure):
    """Similarity of the logits to the characters of the group, and what the most similar ones make of the loss.

    `threshold` is the similarity above which a representation is key; `representations` names them instead. Names are
    those of `groklab.characters`, such as standard or frequency_14, a pair of complex conjugates having one.

    Columns: `group.trace_similarity.max`, `group.logits_explained`, `group.key_representations.count`,
    `group.restricted_loss` `.all`, `.heldout` and `.random_set`, `group.restricted_accuracy.heldout` (0 or 1),
    `group.excluded_loss`, `group.embedding_share` `.a` and `.b` (in the key representations together). NaN where the
    split is not known, and for the share of a model without embeddings.

    Raises SpecError if the answers of the task are not the product of a group for every pair of its elements, in
    lexicographic order, or if a name is unknown.
    """

    kind: Literal["characters"] = "characters"
    threshold: Annotated[float, Field(ge=0, lt=1)] = 0.005
    representations: tuple[str, ...] | None = None

    def measure(self, network: Network) -> dict[str, Float[Array, ""]]:
        return self._taken(network)[0]

    def details(self, network: Network) -> dict[str, Any]:
        """Similarity and embedding shares by representation, the key ones, and the rule that made them so."""
        irreps = _irreps(network)
        _, known = jax.jit(lambda parameters: self._taken(network.changed(parameters)))(network.parameters)
        key, names = np.asarray(known.key), [irrep.name for irrep in irreps]
        similarity = np.asarray(known.similarity, float).tolist()
        rule = f"trace similarity > {self.threshold} (Chughtai et al. 2023: 0.005, on the final network)"
        return {
            "group.trace_similarity.by_representation": dict(zip(names[1:], similarity, strict=True)),
            "group.key_representations.names": [name for name, is_key in zip(names[1:], key, strict=True) if is_key],
            "group.key_representations.rule": "set by hand" if self.representations is not None else rule,
            "group.dimensions": {irrep.name: irrep.dimension for irrep in irreps},
        } | {
            f"group.embedding_share.{operand}_by_representation": dict(
                zip(names, np.asarray(shares, float).tolist(), strict=True)
            )
            for operand, shares in known.shares.items()
        }

    def _taken(self, network: Network) -> tuple[dict[str, Float[Array, ""]], _Known]:
        group = group_of(network, "characters")
        n, products = group.order, group.table.ravel()
        irreps = _irreps(network)
        outputs = network.outputs[:, :n]
        logits = outputs - outputs.mean(axis=1, keepdims=True)
        characters = jnp.asarray(np.stack([irrep.character for irrep in irreps[1:]]), logits.dtype)
        sizes = jnp.sum(characters**2, axis=1)  # [irreps]: |chi|^2 over the group
        quotient = quotients(group)

        def coefficients(rows: Array) -> Float[Array, " irreps"]:
            """Of the characters in these rows: they are orthogonal within each row, so in any set of rows."""
            return characters @ _profile(logits[rows], jnp.asarray(products)[rows], group) / sizes

        fitted = coefficients(jnp.arange(n * n))
        length = jnp.sqrt(jnp.sum(logits**2))
        similarity = fitted * jnp.sqrt(sizes * n**2) / jnp.where(length > 0, length, 1)
        key = self._key(irreps[1:], similarity)
        restricted = (fitted * key) @ characters
        shares = _embedding_shares(network, irreps, group)
        columns = {
            "group.trace_similarity.max": jnp.max(similarity, initial=-1.0),
            "group.logits_explained": jnp.sum(similarity**2),
            "group.key_representations.count": jnp.sum(key, dtype=logits.dtype),
            "group.restricted_loss.all": unrounded_cross_entropy(restricted, group.identity),
        }
        nan = jnp.asarray(jnp.nan, logits.dtype)
        held_out = random = accuracy = excluded = nan
        if network.split_is_known:
            train = network.parts["train"]
            refitted = coefficients(network.parts["test"])
            honest = (refitted * key) @ characters
            held_out = unrounded_cross_entropy(honest, group.identity)
            accuracy = (honest[group.identity] > jnp.max(jnp.delete(honest, group.identity))).astype(logits.dtype)
            order = jnp.argsort(jax.random.uniform(network.key, (RANDOM_SETS, len(sizes))), axis=1)
            sets = jnp.argsort(order, axis=1) < jnp.sum(key)
            random = jnp.mean(unrounded_cross_entropy((sets * refitted) @ characters, group.identity))
            left = logits[train] - restricted[quotient][jnp.asarray(products)[train]]
            excluded = jnp.mean(unrounded_cross_entropy(left, network.targets[train]))
        columns |= {
            "group.restricted_loss.heldout": held_out,
            "group.restricted_loss.random_set": random,
            "group.restricted_accuracy.heldout": accuracy,
            "group.excluded_loss": excluded,
        }
        for operand, share in shares.items():
            columns[f"group.embedding_share.{operand}"] = jnp.sum(jnp.where(key, share[1:], 0.0))
        return columns, _Known(similarity, key, shares)

    def _key(self, irreps: tuple[Irrep, ...], similarity: Float[Array, " irreps"]) -> Bool[Array, " irreps"]:
        if self.representations is None:
            return similarity > self.threshold
        names = [irrep.name for irrep in irreps]
        for name in self.representations:
            if name not in names:
                raise SpecError(f"measure 'characters': no representation '{name}': {nearest(name, names)}")
        return jnp.asarray([name in self.representations for name in names])


class _Known(NamedTuple):
    """What the columns are made of; only the shares have the trivial representation, as the first."""

    similarity: Float[Array, " irreps-1"]
    key: Bool[Array, " irreps-1"]
    shares: dict[str, Float[Array, " irreps"]]  # of each operand


def group_of(network: Network, measure: str) -> Group:
    """The group whose product a * b is the answer to row a n + b of n^2. Raises SpecError if there is none."""
    answers = np.asarray(network.table.targets)
    n = round(len(answers) ** 0.5)
    needs = f"measure '{measure}' needs the product of a group, as in task 'group' with operation a*b or 'modular' a+b"
    if network.table.answers != "classes" or answers.ndim != 1 or not len(answers) or n * n != len(answers):
        raise SpecError(f"{needs}; the {len(answers)} answers of this task are no table of classes, n by n")
    try:
        group = group_from_table(answers.reshape(n, n), "the table of its answers")
        operand_positions(network.table)
    except (DataError, ValueError) as error:
        raise SpecError(f"{needs}; {error}") from None
    task = network.task
    if isinstance(task, GroupComposition) and not task.checksum:  # permutations have characters with names
        named = named_group(task.group, task.elements, task.composition)
        return named if np.array_equal(named.table, group.table) else group
    return group


def _irreps(network: Network) -> tuple[Irrep, ...]:
    """Of the task's group, complex conjugates combined; the trivial one is the first."""
    return combined(irreducible_characters(group_of(network, "characters")))


def operand_positions(table: Table) -> tuple[int, int]:
    """Where in the sequence a and b stand, of n^2 rows with (a, b) in lexicographic order. Raises ValueError if not."""
    inputs = np.asarray(table.inputs)
    n = round(len(inputs) ** 0.5)
    places = []
    for name, operand in zip("ab", np.divmod(np.arange(n * n), n), strict=True):
        same = [t for t in range(inputs.shape[1]) if inputs.ndim == 2 and np.array_equal(inputs[:, t], operand)]
        if not same:
            raise ValueError(f"operand {name} of row a n + b stands in none of its positions")
        places.append(same[0])
    return places[0], places[1]


def _profile(logits: Float[Array, "B n"], products: Array, group: Group) -> Float[Array, " n"]:
    """The mean logit by x = a b c^-1."""
    n = group.order
    summed = jax.ops.segment_sum(logits, products, n)  # [m, c] over all pairs with a b = m
    answer = group.table[group.inverses].T  # [m, x]: c = x^-1 m
    return jnp.sum(summed[np.arange(n)[:, None], answer], axis=0) / len(products)


def _embedding_shares(network: Network, irreps: tuple[Irrep, ...], group: Group) -> dict[str, Float[Array, " irreps"]]:
    """Of each operand, how much of its embedding is in each representation: they add up to 1."""
    n, shares = group.order, {}
    characters = np.stack([irrep.dimension * irrep.character for irrep in irreps]) / n
    rows = {"a": np.arange(n) * n, "b": np.arange(n)}
    for (operand, row), place in zip(rows.items(), operand_positions(network.table), strict=True):
        embedded = network.model.embed(network.parameters, network.inputs[row])
        if embedded.ndim != 3:
            shares[operand] = jnp.full(len(irreps), jnp.nan, embedded.dtype)
            continue
        vectors = embedded[:, place]
        if isinstance(network.parameters, MLP):
            weight, D = network.parameters.hidden[0].weight, vectors.shape[1]
            vectors = vectors @ (weight if weight.shape[1] == D else weight[:, place * D : (place + 1) * D]).T
        inner = (vectors @ vectors.T).ravel()  # [g, h]; summed by g h^-1, of which the projectors are functions
        summed = jax.ops.segment_sum(inner, jnp.asarray(quotients(group).ravel()), n)
        energy = summed[group.identity]
        shares[operand] = jnp.asarray(characters, inner.dtype) @ summed / jnp.where(energy > 0, energy, 1)
    return shares
