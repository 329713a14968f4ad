"""Levels of weights of a small network that is trained here."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memplan import MemplanError
from memplan.passes.levels import CompressedProgram, compress
from memplan.passes.levels.bonds import bond_sizes
from memplan.passes.levels.codebooks import CodebookWeight, codebook_sizes
from memplan.passes.levels.distortion import Distortion
from memplan.passes.levels.encodings import PackedWeight, bit_widths, low_ranks
from memplan.passes.levels.program import bytes_of, dense, with_encoded
from memplan.planners.levels import verify_levels

WIDTH, DEPTH = 16, 3


def forward(params: Any, x: jax.Array) -> jax.Array:
    for layer in params["hidden"]:
        x = x + jnp.tanh(x @ layer["w"] + layer["b"])
    return x @ params["out"].T


def loss(params: Any, x: jax.Array, wanted: jax.Array) -> jax.Array:
    return jnp.square(forward(params, x) - wanted).mean()


@pytest.fixture(scope="module")
def trained() -> tuple[Any, jax.Array, jax.Array]:
    """Parameters after some hundred steps towards a function that needs a few directions, and the data."""
    keys = iter(jax.random.split(jax.random.key(0), 32))
    x = jax.random.normal(next(keys), (128, WIDTH))
    wanted = jnp.sin(x[:, :4] @ jax.random.normal(next(keys), (4, 8)))
    hidden = [{"w": 0.1 * jax.random.normal(next(keys), (WIDTH, WIDTH)), "b": jnp.zeros(WIDTH)} for _ in range(DEPTH)]
    params = {"hidden": hidden, "out": 0.1 * jax.random.normal(next(keys), (8, WIDTH))}

    @jax.jit
    def train(params: Any) -> Any:
        def step(params: Any, _: Any) -> Any:
            return jax.tree.map(lambda p, g: p - 0.1 * g, params, jax.grad(loss)(params, x, wanted)), None

        return jax.lax.scan(step, params, None, 400)[0]

    return train(params), x, wanted


@pytest.mark.parametrize(
    ("method", "share"), [("low-rank", 0.4), ("mixed-precision", 0.2), ("codebooks", 0.16), ("bonds", 0.5)]
)
def test_the_mix_beats_the_uniform_choice(method: str, share: float, trained: tuple[Any, Any, Any]) -> None:
    params, x, _ = trained
    budget = int(share * bytes_of(params))
    found = compress(forward, params, x, method=method, budget=budget)
    check(found, budget)
    assert found.uniform is not None
    assert found.uniform_measured is not None
    assert found.plan.error < found.uniform.error
    assert found.measured < found.uniform_measured
    # The model's sum is of the size of what is measured.
    assert 0.2 * found.measured < found.plan.error < 5 * found.measured
    after = jax.jit(found.fun)(found.params, x)
    np.testing.assert_allclose(after, forward(dense(found.params), x), atol=2e-5)


def test_the_uniform_choice_is_taken_where_it_measures_less(
    trained: tuple[Any, Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    params, x, _ = trained
    # A model by which each weight matters an eighth of the one before.
    monkeypatch.setattr(Distortion, "model", lambda _, place, change: 8.0**-place * float(jnp.abs(change).max()))
    found = compress(forward, params, x, method="mixed-precision", budget=int(0.25 * bytes_of(params)))
    assert found.uniform is not None
    assert found.is_uniform
    assert found.uniform_measured < found.measured
    assert found.after == found.uniform.cost <= found.problem.budget


def check(found: CompressedProgram, budget: int) -> None:
    assert not found.is_uniform
    assert verify_levels(found.problem, found.plan) == []
    assert found.plan.is_optimal
    assert found.after == bytes_of(found.params) == found.plan.cost <= budget < found.before


def test_the_hessian_of_a_loss(trained: tuple[Any, Any, Any]) -> None:
    """The model of one level is what a second difference of the loss says."""
    params, x, wanted = trained
    found = compress(loss, params, x, wanted, method="mixed-precision", budget=bytes_of(params) // 4)
    check(found, bytes_of(params) // 4)
    names = [layer.name for layer in found.problem.layers]
    place = names.index("['out']")
    weight, (_, encoded) = params["out"], list(bit_widths(params["out"]))[3]
    change = encoded.dense() - weight
    with jax.enable_x64(True):
        values = [
            float(loss({**jax.tree.map(jnp.float64, params), "out": jnp.float64(weight) + s * change}, x, wanted))
            for s in (-1e-2, 0.0, 1e-2)
        ]
    curvature = (values[0] - 2 * values[1] + values[2]) / 1e-4
    assert found.problem.layers[place].levels[3].error == pytest.approx(abs(curvature) / 2, rel=1e-2)


@pytest.mark.parametrize("shape", [(7, 5), (3, 2, 5), (1, 1)])
def test_packed_weights_come_back_within_half_a_step(shape: tuple[int, ...]) -> None:
    weight = jax.random.normal(jax.random.key(1), shape)
    for name, encoded in list(bit_widths(weight))[1:]:
        assert isinstance(encoded, PackedWeight)
        bits = int(name.split()[0])
        assert encoded.codes.nbytes == -(-weight.size * bits // 8)
        inside = jnp.abs(weight) <= encoded.scale * (2 ** (bits - 1) - 1)
        assert bool(jnp.where(inside, jnp.abs(encoded.dense() - weight) <= 0.501 * encoded.scale, True).all())


def test_ranks_drop_the_last_singular_values() -> None:
    weight = jax.random.normal(jax.random.key(2), (16, 24))
    spectrum = np.linalg.svd(np.asarray(weight), compute_uv=False)
    for name, encoded in list(low_ranks(weight))[1:]:
        rank = int(name.removeprefix("rank ").removesuffix("/16"))
        dropped = np.linalg.norm(np.asarray(encoded.dense() - weight))
        assert float(dropped) == pytest.approx(float(np.sqrt(np.square(spectrum[rank:]).sum())), rel=1e-4)
        assert bytes_of(encoded) == 4 * rank * 40 < weight.nbytes


def test_a_product_with_a_low_rank_has_no_product_of_the_factors() -> None:
    encoded = list(low_ranks(jax.random.normal(jax.random.key(3), (16, 24))))[-1][1]
    x = jnp.ones((5, 16))
    jaxpr = jax.make_jaxpr(with_encoded(lambda w, x: x @ w))(encoded, x)
    shapes = [equation.outvars[0].aval.shape for equation in jaxpr.eqns if equation.primitive.name == "dot_general"]
    assert shapes == [(5, 1), (5, 24)]


def test_codebooks_hold_the_means_of_clusters() -> None:
    weight = jnp.asarray(np.repeat([0.0, 1.0, 5.0], [40, 30, 30]).reshape(10, 10), jnp.float32)
    for name, encoded in list(codebook_sizes(weight))[1:]:
        assert isinstance(encoded, CodebookWeight)
        count = int(name.split()[0])
        assert encoded.codes.nbytes == -(-100 * (count.bit_length() - 1) // 8)
        if count == 2:
            assert sorted(encoded.codebook.tolist()) == pytest.approx([3 / 7, 5.0])
        if count >= 4:
            np.testing.assert_array_equal(encoded.dense(), weight)
        if count == 8:
            np.testing.assert_array_equal(jax.tree.map(jnp.asarray, encoded).dense(), weight)


@pytest.mark.parametrize("shape", [(6, 20), (64, 72)])
def test_chains_come_nearer_with_their_bond(shape: tuple[int, int]) -> None:
    weight = np.random.default_rng(4).normal(size=shape).astype(np.float32)
    # A matrix that is a Kronecker product, and little else.
    rows, columns = (4, 8) if shape == (64, 72) else (1, 1)
    weight = np.kron(np.ones((rows, columns), np.float32), weight[: shape[0] // rows, : shape[1] // columns])
    x = np.random.default_rng(5).normal(size=(3, *shape)).astype(np.float32)
    errors = []
    for _, encoded in list(bond_sizes(jnp.asarray(weight)))[1:]:
        assert bytes_of(encoded) < weight.nbytes
        dense = np.asarray(encoded.dense())
        errors.append(float(np.square(dense - weight).sum()))
        if len(errors) == 1:
            for side in (0, 1):
                rows_of_x = np.swapaxes(x, 1, 2) if side == 0 else x
                found = encoded.product(jnp.asarray(rows_of_x), side, None)
                np.testing.assert_allclose(found, rows_of_x @ (dense if side == 0 else dense.T), rtol=1e-4, atol=1e-3)
    assert errors == sorted(errors)
    assert len(errors) > 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "wavelets"}, "no method is called 'wavelets'; known: low-rank, mixed-precision"),
        ({"budget": 10}, "no choice has a total cost within 10: the least is"),
        ({"fun": lambda p, x: jnp.int32(1)}, "returns no floating-point numbers"),
        ({"fun": lambda p, x: x * jnp.nan}, "not finite"),
        ({"args": ()}, "takes no parameters"),
        ({"args": ({"w": jax.ShapeDtypeStruct((4, 4), "float32")}, 0.0)}, "give arrays"),
        ({"args": ({"b": jnp.ones(4)}, jnp.ones(4)), "fun": lambda p, x: p["b"] * x}, "finds no weight to compress"),
    ],
)
def test_bad_input_is_named(change: dict[str, Any], message: str) -> None:
    weights = {"w": jnp.ones((8, 8))}
    given = {"fun": lambda p, x: x @ p["w"], "args": (weights, jnp.ones((2, 8))), "method": "low-rank", "budget": 100}
    given |= change
    with pytest.raises(MemplanError, match=message):
        compress(given["fun"], *given["args"], method=given["method"], budget=given["budget"])
