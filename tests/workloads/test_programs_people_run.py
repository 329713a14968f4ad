"""The larger models: parameters of their public sizes, and layers against what they stand for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memplan.workloads import encoders, get, graphs, proteins, rendering, sequences, simulations, vision_transformers
from memplan.workloads._weights import Weights, floats, random_params
from memplan.workloads.registry import num_parameters

# As counted by the authors' own code or torchvision; batch normalisation has its running statistics as parameters here.
PARAMETERS = {
    "vgg16_infer": 138_357_544,
    "vit_b16_infer": 86_566_120,  # without the class token and its position
    "convnext_tiny_infer": 28_589_128,
    "swin_tiny_infer": 28_288_354,
}


def normal(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


@pytest.mark.slow
def test_parameters() -> None:
    found = {name: num_parameters(get(name).build()) for name in PARAMETERS}
    for name, wanted in PARAMETERS.items():
        assert found[name] == pytest.approx(wanted, rel=1e-3), name


def test_windows_and_back() -> None:
    x = normal(2, 4, 6, 3)
    cut = vision_transformers.windows(x, 2)
    np.testing.assert_array_equal(cut[0], x[0, :2, :2].reshape(4, 3))
    np.testing.assert_array_equal(vision_transformers.from_windows(cut, 2, x.shape), x)
    # After a shift, only the last window of a row or column holds tokens that were no neighbours.
    assert vision_transformers.shift_mask(4, 6, 2)[0].all()
    assert not vision_transformers.shift_mask(4, 6, 2)[-1].all()


@pytest.mark.slow
def test_buckets_of_t5_are_one_by_one_and_then_logarithmic() -> None:
    found = encoders.bucket(jnp.array([0, -1, -7, -8, -200, 1, 7, 200]))
    np.testing.assert_array_equal(found, [0, 1, 7, 8, 15, 17, 23, 31])


@pytest.mark.slow
def test_rwkv_sums_are_weighted_means_of_the_past() -> None:
    rate, bonus = jnp.array([0.5, 1.0]), jnp.array([0.3, -0.2])
    keys, values = normal(1, 4, 2), normal(1, 4, 2, seed=1)
    found = sequences.weighted_sums(rate, bonus, keys, values)[0]
    for t in range(4):
        ages = np.arange(t - 1, -1, -1)[:, None]
        logs = np.concatenate([keys[0, :t] - ages * rate, bonus + keys[0, t : t + 1]])
        weights = np.exp(logs)
        np.testing.assert_allclose(found[t], (weights * values[0, : t + 1]).sum(0) / weights.sum(0), rtol=1e-4)


@pytest.mark.slow
def test_wavenet_sees_only_the_past() -> None:
    fun, (shapes, samples) = get("wavenet_infer").build(tiny=True)
    params, run = random_params(shapes), jax.jit(fun)
    ones = jnp.ones(samples.shape, samples.dtype)
    changed = run(params, ones.at[:, 9].set(7)) - run(params, ones)
    assert not changed[:, :9].any()
    assert changed[:, 9:].any()


@pytest.mark.slow
def test_an_edge_update_of_a_triangle_multiplies_third_sides() -> None:
    x, width = normal(3, 3, 2), 2
    shapes: dict[str, jax.ShapeDtypeStruct] = {}
    jax.eval_shape(lambda x: proteins.triangle_update(Weights(shapes, recording=True), x, width, True), floats(3, 3, 2))
    params = random_params(shapes)
    found = proteins.triangle_update(Weights(params), x, width, True)
    y = Weights(params).layer_norm("norm", x)
    a, b = (
        jax.nn.sigmoid(Weights(params).dense(f"gate_{n}", y, width)) * Weights(params).dense(n, y, width) for n in "ab"
    )
    product = sum(a[:, None, k] * b[None, :, k] for k in range(3))
    out = Weights(params).dense("out", Weights(params).layer_norm("norm_out", product), width)
    np.testing.assert_allclose(
        found, jax.nn.sigmoid(Weights(params).dense("gate", y, width)) * out, rtol=1e-4, atol=1e-5
    )


@pytest.mark.slow
def test_graph_convolution_is_the_normalised_adjacency() -> None:
    x, edges = normal(3, 4), jnp.array([[0, 1, 2], [1, 2, 1]])
    shapes: dict[str, jax.ShapeDtypeStruct] = {}
    jax.eval_shape(lambda x, e: graphs.gcn(True, Weights(shapes, recording=True), x, e), x, edges)
    params = random_params(shapes)
    adjacency = np.eye(3)
    np.add.at(adjacency, (np.asarray(edges[1]), np.asarray(edges[0])), 1)
    scale = 1 / np.sqrt(adjacency.sum(1))
    adjacency = scale[:, None] * adjacency * scale
    y = np.maximum(adjacency @ np.asarray(x) @ params["layer0"]["w"], 0)
    expected = adjacency @ y @ params["layer1"]["w"]
    np.testing.assert_allclose(graphs.gcn(True, Weights(params), x, edges), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_ray_meets_a_sphere_where_geometry_says() -> None:
    spheres = jnp.array([[0.0, 0.0, 5.0, 1.0]])
    origins, directions = jnp.zeros((2, 3)), jnp.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    np.testing.assert_allclose(rendering.distance(jnp.array([[0.0, 3.0, 5.0]]), spheres), 2.0, rtol=1e-5)
    march = jax.jit(rendering.march, static_argnums=3)
    shades = march(spheres, origins, jnp.array([[0.0, 0.6, 0.8]]).repeat(2, 0).at[0].set(directions[0]), 32)
    assert shades.shape == (2,)
    np.testing.assert_allclose(shades, 0.0, atol=1e-3)  # the front of the sphere faces away from the light


@pytest.mark.slow
def test_conjugate_gradients_against_a_dense_solve() -> None:
    x = normal(3, 3)
    dense = jax.jacobian(lambda x: simulations.heat_matrix(x, 0.7).ravel())(x).reshape(9, 9)
    np.testing.assert_allclose(dense, dense.T, atol=1e-6)
    found, steps = simulations.conjugate_gradients(lambda x: simulations.heat_matrix(x, 0.7), x, 1e-6, 20)
    np.testing.assert_allclose(found.ravel(), np.linalg.solve(dense, np.asarray(x).ravel()), rtol=1e-3, atol=1e-5)
    assert 0 < int(steps) <= 9


@pytest.mark.slow
def test_water_and_energy_are_kept() -> None:
    fields = (1 + 0.1 * normal(8, 8), jnp.zeros((8, 8)), jnp.zeros((8, 8)))
    height, _, _ = simulations.shallow_water(fields, 5)
    np.testing.assert_allclose(height.sum(), fields[0].sum(), rtol=1e-5)
    places = 1.2 * jnp.asarray(np.indices((2, 2, 2)).reshape(3, 8).T, jnp.float32)
    run = jax.jit(lambda x, v: simulations.verlet(x, v, 30, 14.0))
    _, _, energies = run(places, 0.1 * normal(8, 3))
    np.testing.assert_allclose(energies, energies[0], rtol=1e-3)


@pytest.mark.slow
def test_hamiltonian_samples_of_a_normal_distribution() -> None:
    run = jax.jit(lambda x, seed: simulations.hmc(lambda x: -jnp.square(x / 2).sum() / 2, x, seed, 200, 8, 0.5))
    drawn, accepted = run(jnp.zeros((16, 1)), jnp.int32(0))
    assert float(accepted) > 0.8
    np.testing.assert_allclose(drawn[20:].std(), 2.0, rtol=0.1)  # 2,880 samples, nearly independent
    np.testing.assert_allclose(drawn[20:].mean(), 0.0, atol=0.2)
