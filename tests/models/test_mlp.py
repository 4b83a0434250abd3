"""The MLP: the shared forward pass is the plain one, and both are NumPy's and PyTorch's."""

from __future__ import annotations

from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from groklab.experiment import Table
from groklab.models.layers import ACTIVATIONS
from groklab.models.mlp import MLP, MLPSpec, plain
from groklab.recipe import path_name
from groklab.tasks.modular import ModularArithmetic

EMBEDDINGS = [("concatenated", True), ("concatenated", False), ("summed", True), ("summed", False), ("one_hot", True)]


def specs() -> st.SearchStrategy[MLPSpec]:
    """Small MLPs over all options, but for the embedding."""
    return st.builds(
        MLPSpec,
        embedding_width=st.sampled_from([3, 5]),
        layers=st.integers(1, 2),
        width=st.sampled_from([4, 7]),
        activation=st.sampled_from(list(ACTIVATIONS)),
        biases=st.booleans(),
        initialisation=st.sampled_from(["pytorch", "normal"]),
    )


def tables() -> st.SearchStrategy[Table]:
    """Full tables of modular tasks in each layout, and arbitrary sets of sequences, with or without gaps."""
    modular = st.builds(
        lambda p, layout: ModularArithmetic(modulus=p, layout=layout).table(),
        st.integers(3, 6),
        st.sampled_from(["a op b =", "a b =", "a b"]),
    )

    def arbitrary(seed: int, rows: int, length: int, step: int) -> Table:
        tokens = step * np.random.default_rng(seed).integers(0, 4, (rows, length)).astype(np.int32)
        return Table(tokens, tokens.sum(1) % 3, vocabulary=4 * step, classes=3)

    return modular | st.builds(arbitrary, st.integers(0, 99), st.integers(1, 9), st.integers(1, 5), st.integers(1, 2))


def parameters(spec: MLPSpec, table: Table, seed: int = 0) -> Any:
    """Parameters of the right shapes, biases not zero, drawn by NumPy: cheaper to compile than `init`."""
    random = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda key: spec.init(key, table), jax.random.key(0))
    return jax.tree.map(lambda s: jnp.asarray(random.normal(size=s.shape) / s.shape[-1] ** 0.5, s.dtype), shapes)


def both_ways(spec: MLPSpec, table: Table, rows: np.ndarray) -> list[tuple[jax.Array, MLP]]:
    """Logits, and gradients of a random projection of them, by the plain and by the shared forward pass."""
    forwards = [spec.model_copy(update={"forward_pass": way}).forward(table) for way in ("plain", "shared")]
    projection = np.random.default_rng(2).normal(size=(len(rows), table.classes))

    def both(model: MLP, projection: jax.Array) -> list[tuple[jax.Array, MLP]]:
        found = [jax.vjp(lambda model, f=forward: f(model, jnp.asarray(rows)), model) for forward in forwards]
        return [(logits, pull(projection)[0]) for logits, pull in found]

    model = parameters(spec, table)
    return jax.jit(both)(model, jnp.asarray(projection, model.head.weight.dtype))  # compiled whole: op by op is slow


def numpys(model: Any, spec: MLPSpec, table: Table) -> np.ndarray:
    """Logits of all rows as a few lines of NumPy."""
    activation = {"relu": lambda x: np.maximum(x, 0), "tanh": np.tanh, "square": np.square}[spec.activation]
    T = table.inputs.shape[1]
    if spec.embedding == "one_hot":
        embedded = np.eye(table.vocabulary)[table.inputs]  # [N, T, V]
    else:
        embeddings = [model.tokens] * T if spec.shared_embedding else model.tokens
        embedded = np.stack([np.asarray(e.weight)[table.inputs[:, t]] for t, e in enumerate(embeddings)], axis=1)
    x = embedded.sum(axis=1) if spec.embedding == "summed" else embedded.reshape(len(table.inputs), -1)
    for layer in model.hidden:
        x = activation(np.einsum("ni,oi->no", x, layer.weight) + (0 if layer.bias is None else layer.bias))
    return np.einsum("ni,oi->no", x, model.head.weight) + (0 if model.head.bias is None else model.head.bias)


def shapes(spec: MLPSpec, table: Table) -> dict[str, tuple[int, ...]]:
    """Shape of each parameter by the name it has in checkpoints."""
    model = jax.eval_shape(lambda key: spec.init(key, table), jax.random.key(0))
    return {path_name(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(model)}


@pytest.mark.parametrize(  # fewer rows than distinct tokens, and more, where that makes a difference
    ("embedding", "shared_embedding", "batch"),
    [*((*way, 40) for way in EMBEDDINGS), ("concatenated", True, 2), ("summed", False, 2)],
)
@given(specs(), tables(), st.integers(0, 99))
@settings(max_examples=2, deadline=None, derandomize=True, phases=[Phase.generate])
def test_the_shared_forward_pass_is_the_plain_one(
    embedding: str, shared_embedding: bool, batch: int, spec: MLPSpec, table: Table, seed: int
):
    spec = spec.model_copy(update={"embedding": embedding, "shared_embedding": shared_embedding})
    rows = np.random.default_rng(seed).integers(0, len(table.inputs), batch)
    with jax.enable_x64(True):
        (plain_logits, plain_gradients), (shared_logits, shared_gradients) = both_ways(spec, table, rows)
        assert shared_logits.shape == (batch, table.classes)
        np.testing.assert_allclose(shared_logits, plain_logits, rtol=1e-10, atol=1e-10)
        for shared, expected in zip(jax.tree.leaves(shared_gradients), jax.tree.leaves(plain_gradients), strict=True):
            assert shared.dtype == np.float64
            np.testing.assert_allclose(shared, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("embedding", "batch"), [("concatenated", 64), ("concatenated", 512), ("summed", 512), ("one_hot", 512)]
)
def test_the_shared_forward_pass_agrees_in_float32_at_the_reference_size(embedding: Any, batch: int):
    table = ModularArithmetic().table()
    rows = np.random.default_rng(0).permutation(len(table.inputs))[:batch]
    (plain_logits, plain_gradients), (shared_logits, shared_gradients) = both_ways(
        MLPSpec(embedding=embedding, layers=2), table, rows
    )
    np.testing.assert_allclose(shared_logits, plain_logits, atol=1e-5 * float(jnp.abs(plain_logits).max()))
    for shared, expected in zip(jax.tree.leaves(shared_gradients), jax.tree.leaves(plain_gradients), strict=True):
        np.testing.assert_allclose(shared, expected, atol=1e-5 * float(jnp.abs(expected).max()))


@pytest.mark.parametrize(
    ("embedding", "shared_embedding", "activation"),
    [
        (*way, activation)
        for way, activation in zip(EMBEDDINGS, ["relu", "tanh", "square", "relu", "tanh"], strict=True)
    ],
)
def test_the_plain_forward_pass_is_numpys(embedding: Any, shared_embedding: bool, activation: Any):
    table = ModularArithmetic(modulus=5).table()
    spec = MLPSpec(
        embedding=embedding,
        shared_embedding=shared_embedding,
        embedding_width=6,
        width=8,
        layers=3,
        biases=embedding != "summed",
        activation=activation,
    )
    model = parameters(spec, table)
    logits = jax.jit(jax.vmap(plain, (None, 0)))(model, jnp.asarray(table.inputs))
    expected = numpys(model, spec, table)
    np.testing.assert_allclose(logits, expected, atol=1e-5 * np.abs(expected).max())


def test_the_plain_forward_pass_is_pytorchs():
    """Oracle: nn.Sequential, which takes our parameters by their names."""
    torch = pytest.importorskip("torch")
    table = ModularArithmetic(modulus=7, layout="a b =").table()
    model = parameters(MLPSpec(embedding_width=5, width=9, layers=2), table)
    parts = {
        "tokens": torch.nn.Embedding(8, 5),
        "flatten": torch.nn.Flatten(),
        "hidden": torch.nn.Sequential(torch.nn.Linear(15, 9), torch.nn.ReLU(), torch.nn.Linear(9, 9), torch.nn.ReLU()),
        "head": torch.nn.Linear(9, 7),
    }
    network = torch.nn.Sequential(*parts.values())
    ours = {
        path_name(path).replace("hidden.1", "hidden.2"): torch.tensor(np.asarray(leaf))
        for path, leaf in jax.tree_util.tree_leaves_with_path(model)
    }
    number = {name: str(i) for i, name in enumerate(parts)}
    state = {".".join([number[key.split(".")[0]], *key.split(".")[1:]]): leaf for key, leaf in ours.items()}
    network.load_state_dict(state, strict=True)
    expected = network(torch.tensor(table.inputs)).detach().numpy()
    logits = jax.jit(jax.vmap(plain, (None, 0)))(model, jnp.asarray(table.inputs))
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_an_answer_does_not_depend_on_the_other_rows_of_the_batch():
    table = ModularArithmetic(modulus=5).table()
    spec = MLPSpec(width=8)
    model, forward = parameters(spec, table), spec.forward(table)
    together = jax.jit(forward)(model, jnp.arange(25))
    alone = jax.lax.map(lambda row: forward(model, row[None])[0], jnp.arange(25))
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_positions_that_never_vary_still_answer_for_every_row():
    table = Table(np.full((4, 2), 1, np.int32), np.zeros(4, np.int32), vocabulary=2, classes=3)
    spec = MLPSpec(embedding_width=3, width=4)
    model = parameters(spec, table)
    answers = jax.jit(spec.forward(table))(model, jnp.arange(4))
    np.testing.assert_allclose(answers, np.tile(plain(model, jnp.array([1, 1])), (4, 1)), atol=1e-6)


@pytest.mark.parametrize(
    ("modulus", "spec", "expected"),
    [
        # Chughtai et al. 2023: W_x and W_y [n, 256], W [512, 128], W_U [128, n]
        (
            113,
            MLPSpec(shared_embedding=False, embedding_width=256, biases=False),
            {
                "tokens.0.weight": (113, 256),
                "tokens.1.weight": (113, 256),
                "hidden.0.weight": (128, 512),
                "head.weight": (113, 128),
            },
        ),
        # Prieto et al. 2025: 226 inputs, 200-200, 113 answers, no biases
        (
            113,
            MLPSpec(embedding="one_hot", layers=2, width=200, biases=False),
            {"hidden.0.weight": (200, 226), "hidden.1.weight": (200, 200), "head.weight": (113, 200)},
        ),
        # Grokking Tickets: E [67, 500], W_in [500, 48], and one matrix in place of W_out [48, 500] W_unemb [500, 67]
        (
            67,
            MLPSpec(embedding="summed", embedding_width=500, width=48, biases=False),
            {"tokens.weight": (67, 500), "hidden.0.weight": (48, 500), "head.weight": (67, 48)},
        ),
        # With biases, and constant tokens after the residues
        (
            5,
            MLPSpec(embedding_width=2, width=3),
            {
                "tokens.weight": (7, 2),
                "hidden.0.weight": (3, 8),
                "hidden.0.bias": (3,),
                "head.weight": (5, 3),
                "head.bias": (5,),
            },
        ),
    ],
)
def test_published_networks_have_their_published_matrices(modulus, spec, expected):
    layout = "a op b =" if spec.biases else "a b"
    assert shapes(spec, ModularArithmetic(modulus=modulus, layout=layout).table()) == expected


@pytest.mark.parametrize(
    ("initialisation", "embedding_std", "hidden_std", "head_std"),
    [("pytorch", 1.0, (1 / 512 / 3) ** 0.5, (1 / 128 / 3) ** 0.5), ("normal", 99**-0.5, 512**-0.5, 128**-0.5)],
)
def test_initial_spread_is_that_of_the_scheme(initialisation, embedding_std, hidden_std, head_std):
    model: Any = MLPSpec(initialisation=initialisation).init(jax.random.key(3), ModularArithmetic().table())
    assert np.std(model.tokens.weight) == pytest.approx(embedding_std, rel=0.03)
    assert np.std(model.hidden[0].weight) == pytest.approx(hidden_std, rel=0.03)
    assert np.std(model.head.weight) == pytest.approx(head_std, rel=0.03)
    if initialisation == "normal":
        assert not model.hidden[0].bias.any()
    else:
        assert np.abs(model.hidden[0].bias).max() == pytest.approx(512**-0.5, rel=0.1)


def test_every_parameter_is_drawn_on_its_own():
    """No two draws share a key; without biases the matrices stay the same."""
    table = ModularArithmetic(modulus=6, layout="a b").table()
    spec = MLPSpec(shared_embedding=False, embedding_width=3, layers=2, width=6)
    both = [spec, spec.model_copy(update={"biases": False})]
    with_biases, without = jax.jit(lambda key: [spec.init(key, table) for spec in both])(jax.random.key(0))
    leaves = [np.asarray(leaf).ravel() for leaf in jax.tree.leaves(with_biases)]
    standard = [np.round(leaf[:3] / np.abs(leaf[0]), 4).tolist() for leaf in leaves]
    assert len({tuple(start) for start in standard}) == len(leaves)
    np.testing.assert_array_equal(with_biases.head.weight, without.head.weight)


def test_init_scale_multiplies_every_parameter():
    table = ModularArithmetic(modulus=5).table()
    spec = MLPSpec(width=8)
    tripled = spec.model_copy(update={"init_scale": 3.0})
    one, three = jax.jit(lambda key: (spec.init(key, table), tripled.init(key, table)))(jax.random.key(0))
    for small, large in zip(jax.tree.leaves(one), jax.tree.leaves(three), strict=True):
        np.testing.assert_allclose(large, 3 * small, rtol=1e-6)


def test_every_activation_can_be_named():
    assert set(get_args(MLPSpec.model_fields["activation"].annotation)) == set(ACTIVATIONS)
