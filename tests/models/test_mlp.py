"""The MLP: all its forward passes are the same function, and that is NumPy's and PyTorch's."""

from __future__ import annotations

from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from groklab.experiment import Table
from groklab.models.layers import ACTIVATIONS, Linear
from groklab.models.mlp import MLP, MLPSpec, _one_after_the_other, plain
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
        head_width=st.sampled_from([None, 3]),
        activation=st.sampled_from(list(ACTIVATIONS)),
        biases=st.sampled_from([True, False, "hidden"]),
        initialisation=st.sampled_from(["pytorch", "mup", "mean_field"]),
        base_width=st.just(2),
        output_scale=st.sampled_from([1.0, 3.0]),
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


def all_ways(spec: MLPSpec, table: Table, rows: np.ndarray) -> list[tuple[jax.Array, MLP]]:
    """Logits, and gradients of a random projection of them, by `plain`, by `apply` and by the shared forward pass."""
    inputs, shared = table.inputs[rows], spec.shared_forward(table)
    assert shared is not None
    forwards = [
        lambda model: jax.vmap(plain, (None, 0))(model, jnp.asarray(inputs)),
        lambda model: spec.apply(model, jnp.asarray(inputs)),
        lambda model: shared(model, jnp.asarray(rows)),
    ]
    projection = np.random.default_rng(2).normal(size=(len(rows), table.classes))

    def each(model: MLP, projection: jax.Array) -> list[tuple[jax.Array, MLP]]:
        found = [jax.vjp(forward, model) for forward in forwards]
        return [(logits, pull(projection)[0]) for logits, pull in found]

    model = parameters(spec, table)
    return jax.jit(each)(model, jnp.asarray(projection, model.head.weight.dtype))  # compiled whole: op by op is slow


PHI: dict[str, Any] = {
    "relu": lambda x: np.maximum(x, 0),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.2 * x),
    "gelu": lambda x: x * scipy.stats.norm.cdf(x),
    "gelu_tanh": lambda x: x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "erf": scipy.special.erf,
    "sine": np.sin,
    "identity": lambda x: x,
    "square": lambda x: x * x,
    "cube": lambda x: x * x * x,
    "fourth_power": lambda x: x * x * x * x,
}


def numpys(model: Any, spec: MLPSpec, table: Table) -> np.ndarray:
    """The outputs for all examples as a few lines of NumPy."""

    def linear(layer: Any, x: np.ndarray) -> np.ndarray:
        return layer.multiplier * np.einsum("ni,oi->no", x, layer.weight) + (0 if layer.bias is None else layer.bias)

    x = table.inputs
    if table.vocabulary:
        T = x.shape[1]
        if spec.embedding == "one_hot":
            embedded = np.eye(table.vocabulary)[x]  # [N, T, V]
        else:
            embeddings = [model.tokens] * T if spec.shared_embedding else model.tokens
            embedded = np.stack([np.asarray(e.weight)[x[:, t]] for t, e in enumerate(embeddings)], axis=1)
        x = embedded.sum(axis=1) if spec.embedding == "summed" else embedded
    x = x.reshape(len(x), -1)
    for layer in model.hidden:
        x = PHI[spec.activation](linear(layer, x))
    x = x if model.out is None else linear(model.out, x)
    return spec.output_scale * linear(model.head, x)


def vectors(*shape: int, outputs: int = 3) -> Table:
    """Seven random vectors or images."""
    inputs = np.random.default_rng(4).normal(size=(7, *shape)).astype(np.float32)
    return Table(inputs, np.zeros(7, np.int32), classes=outputs)


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
def test_apply_and_the_shared_forward_pass_are_plain(
    embedding: str, shared_embedding: bool, batch: int, spec: MLPSpec, table: Table, seed: int
):
    spec = spec.model_copy(update={"embedding": embedding, "shared_embedding": shared_embedding})
    rows = np.random.default_rng(seed).integers(0, len(table.inputs), batch)
    with jax.enable_x64(True):
        (expected_logits, expected_gradients), *others = all_ways(spec, table, rows)
        for logits, gradients in others:
            assert logits.shape == (batch, table.classes)
            np.testing.assert_allclose(logits, expected_logits, rtol=1e-10, atol=1e-10)
            for ours, expected in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected_gradients), strict=True):
                assert ours.dtype == np.float64
                np.testing.assert_allclose(ours, expected, rtol=1e-10, atol=1e-10 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize(
    ("embedding", "batch"), [("concatenated", 64), ("concatenated", 512), ("summed", 512), ("one_hot", 512)]
)
def test_all_forward_passes_agree_in_float32_at_the_reference_size(embedding: Any, batch: int):
    table = ModularArithmetic().table()
    rows = np.random.default_rng(0).permutation(len(table.inputs))[:batch]
    (expected_logits, expected_gradients), *others = all_ways(MLPSpec(embedding=embedding, layers=2), table, rows)
    for logits, gradients in others:
        np.testing.assert_allclose(logits, expected_logits, atol=1e-5 * float(jnp.abs(expected_logits).max()))
        for ours, expected in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected_gradients), strict=True):
            np.testing.assert_allclose(ours, expected, atol=1e-5 * float(jnp.abs(expected).max()))


TOKENS = ModularArithmetic(modulus=5).table()
VARIANTS = [
    (TOKENS, MLPSpec(embedding_width=6, width=8, layers=3)),
    (TOKENS, MLPSpec(embedding_width=6, width=8, shared_embedding=False, activation="tanh", biases="hidden")),
    (TOKENS, MLPSpec(embedding="summed", embedding_width=6, width=8, biases=False, head_width=9, activation="square")),
    (TOKENS, MLPSpec(embedding="summed", embedding_width=6, shared_embedding=False, width=8, layers=2)),
    (TOKENS, MLPSpec(embedding="one_hot", width=(8, 4, 6), activation="leaky_relu", output_scale=2.5)),
    (TOKENS, MLPSpec(embedding="one_hot", width=8, activation="square", initialisation="mean_field")),
    (vectors(6), MLPSpec(width=16, layers=3, initialisation="mup", base_width=4, activation="gelu", head_width=8)),
    (vectors(6, outputs=1), MLPSpec(width=8, biases="hidden", activation="erf")),
    (vectors(4, 3, 2), MLPSpec(width=8, layers=2, activation="sine", embedding="summed")),
    *((vectors(4), MLPSpec(width=5, activation=name)) for name in ("gelu_tanh", "silu", "cube", "fourth_power")),
    (vectors(4), MLPSpec(width=5, layers=12, activation="identity")),
]


@pytest.mark.parametrize(("table", "spec"), VARIANTS)
def test_apply_is_numpys_and_so_is_plain(table: Table, spec: MLPSpec):
    with jax.enable_x64(True):
        model = jax.tree.map(lambda leaf: leaf.astype(np.float64), parameters(spec, table))
        inputs = jnp.asarray(table.inputs)
        outputs, one_by_one = jax.jit(lambda m: (spec.apply(m, inputs), jax.vmap(plain, (None, 0))(m, inputs)))(model)
        expected = numpys(model, spec, table)
        assert (outputs.dtype, outputs.shape) == (np.float64, (len(table.inputs), table.classes))
        np.testing.assert_allclose(outputs, expected, rtol=1e-11, atol=1e-12 * np.abs(expected).max())
        np.testing.assert_allclose(one_by_one, expected, rtol=1e-11, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize(("rows", "merged"), [(2, False), (300, True)])
def test_two_layers_with_nothing_in_between_are_one_matrix_where_that_is_less_work(rows: int, merged: bool):
    random = np.random.default_rng(0)
    w, b, v, c, x = (random.normal(size=shape) for shape in ((50, 8), (50,), (7, 50), (7,), (rows, 8)))
    first = Linear(jnp.asarray(w, jnp.float32), jnp.asarray(b, jnp.float32), 0.5)
    second = Linear(jnp.asarray(v, jnp.float32), jnp.asarray(c, jnp.float32), 3.0)
    both = _one_after_the_other(first, second, rows)
    assert isinstance(both, Linear) == merged
    expected = 3 * (0.5 * x @ w.T + b) @ v.T + c
    np.testing.assert_allclose(both(jnp.asarray(x, jnp.float32)), expected, rtol=1e-4, atol=1e-3)


def test_outputs_have_the_type_of_the_parameters():
    with jax.enable_x64(True):
        spec, table = MLPSpec(width=4), vectors(3)
        model = parameters(spec, table)
        inputs = jnp.asarray(table.inputs, np.float64)
        for dtype in (np.float32, np.float64):
            cast = jax.tree.map(lambda leaf, dtype=dtype: leaf.astype(dtype), model)
            assert jax.eval_shape(spec.apply, cast, inputs).dtype == dtype


@pytest.mark.parametrize(
    ("spec", "table"),
    [
        (MLPSpec(), vectors(4)),
        (MLPSpec(), vectors(4, 4, 1)),
        (MLPSpec(), Table(np.zeros((2, 17), np.int32), np.zeros(2, np.int32), vocabulary=2, classes=2)),
        (MLPSpec(), Table(np.zeros((0, 3), np.int32), np.zeros(0, np.int32), vocabulary=2, classes=2)),
        (MLPSpec(forward_pass="plain"), TOKENS),
    ],
)
def test_nothing_is_shared_where_there_is_nothing_to_share(spec: MLPSpec, table: Table):
    assert spec.shared_forward(table) is None


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
        # Grokking Tickets: E [67, 500], W_in [500, 48], W_out [48, 500], W_unemb [500, 67]
        (
            67,
            MLPSpec(embedding="summed", embedding_width=500, width=48, head_width=500, biases=False),
            {
                "tokens.weight": (67, 500),
                "hidden.0.weight": (48, 500),
                "out.weight": (500, 48),
                "head.weight": (67, 500),
            },
        ),
        # Clock and Pizza, linear models of type B and D: embed [59, 256] or [59, 128], l1 and l2 with biases, unembed
        (
            59,
            MLPSpec(embedding="summed", embedding_width=256, layers=2, width=256, biases="hidden"),
            {
                "tokens.weight": (59, 256),
                "hidden.0.weight": (256, 256),
                "hidden.0.bias": (256,),
                "hidden.1.weight": (256, 256),
                "hidden.1.bias": (256,),
                "head.weight": (59, 256),
            },
        ),
        (
            59,
            MLPSpec(biases="hidden"),
            {
                "tokens.weight": (59, 128),
                "hidden.0.weight": (128, 256),
                "hidden.0.bias": (128,),
                "head.weight": (59, 128),
            },
        ),
        # EGD: two-hot 2p -> 512, a bias in the first layer only
        (
            97,
            MLPSpec(embedding="one_hot", width=512, biases="hidden", initialisation="kaiming_normal"),
            {"hidden.0.weight": (512, 194), "hidden.0.bias": (512,), "head.weight": (97, 512)},
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
    layout = "a op b =" if spec.biases is True else "a b"
    assert shapes(spec, ModularArithmetic(modulus=modulus, layout=layout).table()) == expected


@pytest.mark.parametrize(
    ("spec", "table", "expected"),
    [
        (MLPSpec(layers=2, width=200), vectors(28, 28, 1, outputs=10), 199_210),  # Omnigrok's MNIST network
        (MLPSpec(layers=2, width=100, activation="tanh"), vectors(5, outputs=5), 11_205),  # and its teacher
        (MLPSpec(width=1000, biases="hidden"), vectors(40, outputs=1), 42_000),  # Merrill: u, W and b
        (MLPSpec(layers=11, width=400), vectors(28, 28, 1, outputs=10), 1_922_010),  # Deep Grokking
        (MLPSpec(width=(512, 1024, 512, 64)), vectors(100, outputs=1), 1_134_721),  # Abbe et al.
        (MLPSpec(width=100, biases=False), vectors(2 * 23, outputs=23), 6_900),  # Kumar: 2p inputs, p = 23
    ],
)
def test_published_networks_have_their_published_sizes(spec: MLPSpec, table: Table, expected: int):
    assert sum(int(np.prod(shape)) for shape in shapes(spec, table).values()) == expected


def test_gromovs_network_is_his_formula():
    """f_c = 1/N sum_k W2_ck (sum_i W1_ki x_i / sqrt(2 p))^2 with standard normal weights."""
    p, N = 7, 500
    table = ModularArithmetic(modulus=p, layout="a b").table()
    spec = MLPSpec(embedding="one_hot", width=N, activation="square", biases=False, initialisation="mean_field")
    model = jax.jit(lambda key: spec.init(key, table))(jax.random.key(0))
    first, second = (np.asarray(w, np.float64) for w in (model.hidden[0].weight, model.head.weight))
    assert (np.std(first), np.std(second)) == (pytest.approx(1, rel=0.03), pytest.approx(1, rel=0.03))
    a, b = table.inputs.T
    expected = np.square((first[:, a] + first[:, p + b]).T / np.sqrt(2 * p)) @ second.T / N
    np.testing.assert_allclose(spec.apply(model, jnp.asarray(table.inputs)), expected, atol=1e-6)


def test_kappa_of_the_tickets_is_the_scale_of_every_matrix():
    """Standard deviations kappa / sqrt(fan-in), the fan-in of the embedding being the vocabulary."""
    table = ModularArithmetic(modulus=67, layout="a b").table()
    spec = MLPSpec(embedding="summed", embedding_width=500, width=48, head_width=500, biases=False, init_scale=8.0)
    spec = spec.model_copy(update={"initialisation": "normal"})
    model: Any = jax.jit(lambda key: spec.init(key, table))(jax.random.key(0))
    for matrix, fan_in in [(model.tokens, 67), (model.hidden[0], 500), (model.out, 48), (model.head, 500)]:
        assert np.std(matrix.weight) == pytest.approx(8 / fan_in**0.5, rel=0.03)


def test_a_list_of_equal_widths_is_that_many_layers():
    table = vectors(6)
    one, other = MLPSpec(layers=3, width=5), MLPSpec(width=(5, 5, 5))
    both = jax.jit(lambda key: (one.init(key, table), other.init(key, table)))(jax.random.key(0))
    for ours, theirs in zip(*(jax.tree.leaves(model) for model in both), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(("layers", "scale"), [(11, 1.0), (11, 8.0)])
def test_gradients_reach_every_layer_of_a_deep_network(layers: int, scale: float):
    """Each matrix takes part at the start: relative to itself, no gradient is a thousandth of another."""
    table = vectors(28, 28, 1, outputs=10)
    spec = MLPSpec(layers=layers, width=400, init_scale=scale)

    def gradients(key: jax.Array) -> MLP:
        model = spec.init(key, table)
        return jax.grad(lambda m: jnp.mean((spec.apply(m, jnp.asarray(table.inputs)) - 1) ** 2))(model)

    found: Any = jax.jit(gradients)(jax.random.key(0))
    norms = np.array([np.linalg.norm(np.asarray(layer.weight, np.float64)) for layer in (*found.hidden, found.head)])
    assert norms.min() > 1e-3 * norms.max()  # false of nan too


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
        np.testing.assert_allclose(large, 3 * small, rtol=1e-6, atol=1e-7)


def test_every_activation_can_be_named_and_has_an_oracle():
    assert set(get_args(MLPSpec.model_fields["activation"].annotation)) == set(ACTIVATIONS) == set(PHI)
