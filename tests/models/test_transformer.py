"""The transformer: prefix sharing is the same function as the plain forward pass, and both are PyTorch's."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from groklab.experiment import Table
from groklab.models import prefix_sharing
from groklab.models.transformer import Transformer, TransformerSpec, plain
from groklab.tasks.modular import ModularArithmetic

REFERENCE = TransformerSpec()


def specs() -> st.SearchStrategy[TransformerSpec]:
    """Small transformers over all options."""
    return st.builds(
        TransformerSpec,
        layers=st.integers(1, 3),
        width=st.sampled_from([4, 8]),
        heads=st.sampled_from([1, 2]),
        mlp_width=st.sampled_from([None, 6]),
        norm=st.sampled_from(["pre", "post", "none"]),
        activation=st.sampled_from(["relu", "gelu", "gelu_tanh", "silu", "tanh", "square", "identity"]),
        biases=st.sampled_from(["all", "mlp", "none"]),
        positions=st.sampled_from(["learned", "sinusoidal", "none"]),
        tied=st.booleans(),
        answers_only=st.booleans(),
        initialisation=st.sampled_from(["pytorch", "power", "nanda"]),
    )


def tables() -> st.SearchStrategy[Table]:
    """Full tables of modular tasks in each layout, and arbitrary sets of sequences."""
    modular = st.builds(
        lambda p, layout: ModularArithmetic(modulus=p, layout=layout).table(),
        st.integers(2, 5),
        st.sampled_from(["a op b =", "a b =", "a b"]),
    )

    def arbitrary(seed: int, rows: int, length: int) -> Table:
        tokens = np.random.default_rng(seed).integers(0, 3, (rows, length)).astype(np.int32)
        return Table(tokens, tokens.sum(1) % 3, vocabulary=3, classes=3)

    return modular | st.builds(arbitrary, st.integers(0, 99), st.integers(1, 9), st.integers(1, 5))


def both_ways(spec: TransformerSpec, table: Table, rows: np.ndarray) -> list[tuple[jax.Array, Transformer]]:
    """Logits, and gradients of a random projection of them, by each forward pass."""

    def values_and_gradients(model: Transformer, forward_pass: str) -> tuple[jax.Array, Transformer]:
        forward = spec.model_copy(update={"forward_pass": forward_pass}).forward(table)

        def projected(model: Transformer) -> tuple[jax.Array, jax.Array]:
            logits = forward(model, jnp.asarray(rows))
            return jnp.sum(logits * jax.random.normal(jax.random.key(2), logits.shape, logits.dtype)), logits

        gradients, logits = jax.grad(projected, has_aux=True)(model)
        return logits, gradients

    def both(key: jax.Array) -> list[tuple[jax.Array, Transformer]]:
        model = spec.init(key, table)
        return [values_and_gradients(model, "plain"), values_and_gradients(model, "prefix_sharing")]

    return jax.jit(both)(jax.random.key(1))  # compiled whole: op by op takes minutes


@given(specs(), tables(), st.integers(0, 99), st.integers(1, 40), st.sampled_from([0, 32]))
@settings(max_examples=8, deadline=None, derandomize=True, phases=[Phase.generate])
def test_prefix_sharing_is_the_plain_forward_pass(
    spec: TransformerSpec, table: Table, seed: int, batch: int, pairs: int
):
    """With the first layer's scores from a table of token pairs, and row by row."""
    rows = np.random.default_rng(seed).integers(0, len(table.inputs), batch)
    with jax.enable_x64(True), pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefix_sharing, "PAIRS_PER_ROW", pairs)
        (plain_logits, plain_gradients), (shared_logits, shared_gradients) = both_ways(spec, table, rows)
        np.testing.assert_allclose(shared_logits, plain_logits, rtol=1e-10, atol=1e-10)
        for shared, expected in zip(jax.tree.leaves(shared_gradients), jax.tree.leaves(plain_gradients), strict=True):
            assert shared.dtype == np.float64
            np.testing.assert_allclose(shared, expected, rtol=1e-9, atol=1e-10)


def test_prefix_sharing_agrees_in_float32_at_the_reference_size():
    table = ModularArithmetic().table()
    rows = np.random.default_rng(0).permutation(len(table.inputs))[:512]
    (plain_logits, plain_gradients), (shared_logits, shared_gradients) = both_ways(REFERENCE, table, rows)
    np.testing.assert_allclose(shared_logits, plain_logits, atol=1e-5)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(plain_gradients))
    for shared, expected in zip(jax.tree.leaves(shared_gradients), jax.tree.leaves(plain_gradients), strict=True):
        np.testing.assert_allclose(shared, expected, atol=1e-5 * largest)


def test_an_answer_does_not_depend_on_the_other_rows_of_the_batch():
    table = ModularArithmetic(modulus=5).table()
    spec = TransformerSpec(width=8, heads=2)
    model, forward = spec.init(jax.random.key(0), table), spec.forward(table)
    together = jax.jit(forward)(model, jnp.arange(25))
    alone = jax.lax.map(lambda row: forward(model, row[None])[0], jnp.arange(25))
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_the_reference_network_has_the_size_of_grokfasts():
    """422,784 parameters there with a context of five positions; ours has four."""
    model = REFERENCE.init(jax.random.key(0), ModularArithmetic().table())
    assert sum(leaf.size for leaf in jax.tree.leaves(model)) == 422_784 - 128


def test_nandas_network_has_its_published_size():
    """226,816 parameters (arXiv 2301.05217's code), head bias aside."""
    spec = TransformerSpec(
        layers=1, norm="none", activation="relu", biases="mlp", initialisation="nanda", answers_only=True
    )
    table = ModularArithmetic(modulus=113, layout="a b =").table()
    model = spec.init(jax.random.key(0), table)
    assert sum(leaf.size for leaf in jax.tree.leaves(model)) == 226_816
    assert spec.forward(table)(model, jnp.arange(3)).shape == (3, 113)


@pytest.mark.parametrize(
    ("initialisation", "embedding_std", "mlp_std", "query_std"),
    [
        ("pytorch", 1.0, (1 / 128 / 3) ** 0.5, (6 / 512 / 3) ** 0.5),
        ("power", 1.0, (1 / 128 / 3) ** 0.5, (1 / 128 / 3) ** 0.5),
        ("nanda", 128**-0.5, 128**-0.5, 128**-0.5),
    ],
)
def test_initial_spread_is_that_of_the_scheme(initialisation, embedding_std, mlp_std, query_std):
    spec = TransformerSpec(initialisation=initialisation)
    model = spec.init(jax.random.key(3), ModularArithmetic().table())
    assert np.std(model.tokens.weight) == pytest.approx(embedding_std, rel=0.03)
    assert np.std(model.blocks[0].mlp.inner.weight) == pytest.approx(mlp_std, rel=0.03)
    assert np.std(model.blocks[1].attention.query.weight) == pytest.approx(query_std, rel=0.03)


def test_init_scale_multiplies_every_parameter():
    table = ModularArithmetic(modulus=5).table()
    one = TransformerSpec(width=8, heads=2).init(jax.random.key(0), table)
    three = TransformerSpec(width=8, heads=2, init_scale=3.0).init(jax.random.key(0), table)
    for small, large in zip(jax.tree.leaves(one), jax.tree.leaves(three), strict=True):
        np.testing.assert_allclose(large, 3 * small, rtol=1e-6)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_the_plain_forward_pass_is_pytorchs(norm: Literal["pre", "post"]):
    """Oracle: nn.TransformerEncoderLayer with a causal mask, given our parameters."""
    torch = pytest.importorskip("torch")
    table = ModularArithmetic(modulus=7).table()
    spec = TransformerSpec(width=16, heads=4, norm=norm)
    model = spec.init(jax.random.key(5), table)
    model = jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(leaf.size), leaf.shape), model)
    tokens = table.inputs[:20]

    def tensor(array):
        return torch.tensor(np.asarray(array))

    x = tensor(model.tokens.weight)[tokens] + tensor(model.positions.weight)
    for block in model.blocks:
        layer = torch.nn.TransformerEncoderLayer(
            16, 4, 64, dropout=0.0, activation="gelu", batch_first=True, norm_first=norm == "pre"
        )
        attention = block.attention
        layer.load_state_dict(
            {
                "self_attn.in_proj_weight": torch.cat(
                    [tensor(p.weight) for p in (attention.query, attention.key, attention.value)]
                ),
                "self_attn.in_proj_bias": torch.cat(
                    [tensor(p.bias) for p in (attention.query, attention.key, attention.value)]
                ),
                "self_attn.out_proj.weight": tensor(attention.out.weight),
                "self_attn.out_proj.bias": tensor(attention.out.bias),
                "linear1.weight": tensor(block.mlp.inner.weight),
                "linear1.bias": tensor(block.mlp.inner.bias),
                "linear2.weight": tensor(block.mlp.outer.weight),
                "linear2.bias": tensor(block.mlp.outer.bias),
                "norm1.weight": tensor(block.attention_norm.weight),
                "norm1.bias": tensor(block.attention_norm.bias),
                "norm2.weight": tensor(block.mlp_norm.weight),
                "norm2.bias": tensor(block.mlp_norm.bias),
            }
        )
        x = layer(x, src_mask=torch.nn.Transformer.generate_square_subsequent_mask(4), is_causal=True)
    x = x[:, -1]
    if model.final_norm is not None:
        x = torch.nn.functional.layer_norm(x, (16,), tensor(model.final_norm.weight), tensor(model.final_norm.bias))
    expected = (x @ tensor(model.head.weight).T).detach().numpy()
    np.testing.assert_allclose(jax.vmap(plain, (None, 0))(model, jnp.asarray(tokens)), expected, atol=2e-5)
