"""Int8 networks for microcontrollers: their arithmetic against NumPy's integers, their gradients against JAX's."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from memplan.workloads import mcu
from memplan.workloads import quantized as q
from memplan.workloads.calibration import calibrated, quantized_image
from memplan.workloads.quantized_network import (
    InvertedResidualSpec,
    QuantizedNetwork,
    network_of,
    of_block,
    stripe_by_stripe,
)

X, Y = q.Steps(0.04, 3), q.Steps(0.06, -7)
LAYERS = {
    "full": q.QuantizedConv("full", 8, 16, 3, 2, False, 6, X, Y),
    "pointwise": q.QuantizedConv("pointwise", 16, 8, 1, 1, False, 5, X, q.RELU6_STEPS),
    "depthwise": q.QuantizedConv("depthwise", 16, 16, 5, 2, True, 6, X, Y),
}


def drawn(layer: q.QuantizedConv, seed: int = 0) -> tuple[q.Params, jax.Array]:
    draw = np.random.default_rng(seed)
    shape = layer.weight_shape
    p = {
        "w": jnp.asarray(draw.integers(-127, 128, shape), jnp.int8),
        "b": jnp.asarray(draw.integers(-3000, 3000, layer.out_channels), jnp.int32),
        "multiplier": jnp.asarray(
            draw.uniform(0.5, 1.5, layer.out_channels) / np.prod(shape[:3]) ** 0.5 / 60, jnp.float32
        ),
    }
    return p, jnp.asarray(draw.integers(-128, 128, (2, layer.side, layer.side, layer.in_channels)), jnp.int8)


def by_hand(layer: q.QuantizedConv, p: q.Params, x: jax.Array) -> np.ndarray[Any, Any]:
    """The layer pixel by pixel, its sums in int64."""
    half, w = layer.kernel // 2, np.asarray(p["w"], np.int64)
    padded = np.pad(np.asarray(x, np.int64) - layer.x.zero, ((0, 0), (half, half), (half, half), (0, 0)))
    y = np.zeros((x.shape[0], layer.out_side, layer.out_side, layer.out_channels), np.int64)
    for row in range(layer.out_side):
        for column in range(layer.out_side):
            top, left = row * layer.stride, column * layer.stride
            window = padded[:, top : top + layer.kernel, left : left + layer.kernel]
            product = window[..., None, :] * w if layer.depthwise else window[..., None] * w
            y[:, row, column] = product.sum((1, 2, 3)) + np.asarray(p["b"])
    scaled = np.rint(y.astype(np.float32) * np.asarray(p["multiplier"])) + layer.y.zero
    return scaled.clip(-128, 127).astype(np.int8)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_has_the_bits_of_whole_numbers(name: str) -> None:
    layer = LAYERS[name]
    p, x = drawn(layer)
    y = jax.jit(partial(q.conv_forward, layer))(p, x)
    np.testing.assert_array_equal(y, by_hand(layer, p, x))
    assert {-128, 127} <= set(np.asarray(y).ravel().tolist()), "the range is cut off somewhere"


def by_differentiation(layer: q.QuantizedConv, p: q.Params, x: jax.Array, g: jax.Array) -> tuple[Any, Any, Any]:
    """Gradients by stored numbers as JAX finds them, rounding as if it were not there."""

    def total(x: jax.Array, w: jax.Array, b: jax.Array) -> jax.Array:
        y = (q.convolve(layer, x - layer.x.zero, w) + b) * p["multiplier"]
        y = y + lax.stop_gradient(jnp.rint(y) - y) + layer.y.zero
        return (jnp.where((y > -128) & (y < 127), y, 0.0) * g).sum()

    return jax.jit(jax.grad(total, (0, 1, 2)))(*(part.astype(jnp.float32) for part in (x, p["w"], p["b"])))


@pytest.mark.parametrize("name", LAYERS)
def test_a_pullback_agrees_with_differentiation(name: str) -> None:
    layer = LAYERS[name]
    p, x = drawn(layer)
    shape = (2, layer.out_side, layer.out_side, layer.out_channels)
    g = jnp.asarray(np.random.default_rng(1).standard_normal(shape), jnp.float32)
    wanted_x, wanted_w, wanted_b = by_differentiation(layer, p, x, g)
    w_scale = p["multiplier"] * np.float32(layer.y.scale / layer.x.scale)
    b_scale = w_scale * np.float32(layer.x.scale)
    rate = 50.0 / float(jnp.abs(wanted_w / w_scale**2).max())
    cut = dict(p, w=tuple(jnp.split(p["w"], [5], layer.channel_axis)))

    @jax.jit
    def found(p: q.Params, cut: q.Params, x: jax.Array) -> Any:
        return [q.conv(layer, p, x, rate, kept)[1](g) for p, kept in ((p, False), (p, True), (cut, False))]

    (gx, new), (gx_from_output, _), (gx_cut, new_cut) = found(p, cut, x)
    np.testing.assert_allclose(gx, wanted_x, rtol=1e-5, atol=1e-4)
    moved = np.asarray(p["w"]) - rate * np.asarray(wanted_w / w_scale**2)
    assert np.abs(np.asarray(new["w"]) - moved.clip(-128, 127)).max() < 0.51
    np.testing.assert_allclose(p["b"] - new["b"], rate * wanted_b / b_scale**2, rtol=1e-4, atol=0.51)
    # The mask is the same from the output as from the bits; weights in two parts move as the whole.
    np.testing.assert_array_equal(gx_from_output, gx)
    np.testing.assert_array_equal(gx_cut, gx)
    np.testing.assert_array_equal(np.concatenate(new_cut["w"], layer.channel_axis), new["w"])


@pytest.fixture(scope="module")
def network() -> tuple[QuantizedNetwork, q.Params, jax.Array]:
    images = np.random.default_rng(0).standard_normal((4, 12, 12, 3)).astype(np.float32)
    made, params = calibrated(
        network_of(
            8,
            [InvertedResidualSpec(8, 3, 1, 8), InvertedResidualSpec(16, 5, 2, 8), InvertedResidualSpec(16, 3, 1, 8)],
            12,
            3,
        ),
        images,
    )
    return made, params, quantized_image(made, images)


def test_stripes_have_the_same_bits(network: tuple[QuantizedNetwork, q.Params, jax.Array]) -> None:
    made, params, images = network
    layers = made.layers[:6]
    run = jax.jit(partial(stripe_by_stripe, layers), static_argnums=2)
    whole = run(params["convs"][:6], images, 1)
    assert len(np.unique(whole)) > 50
    np.testing.assert_array_equal(run(params["convs"][:6], images, 3), whole)


@pytest.mark.slow
def test_a_block_goes_back_by_groups_of_channels_as_a_whole(
    network: tuple[QuantizedNetwork, q.Params, jax.Array],
) -> None:
    made, params, _ = network
    params = made.cut(params, [0, 0, 0, 0, 0, 0, 3, 11, 0])
    block, first = made.blocks[2], 6
    draw = np.random.default_rng(0)
    x = jnp.asarray(draw.integers(-128, 128, (2, 3, 3, 8)), jnp.int8)
    g = jnp.asarray(draw.standard_normal((2, 3, 3, 8)), jnp.float32)

    @partial(jax.jit, static_argnums=2)
    def back(params: q.Params, x: jax.Array, most_gradient: int | None) -> tuple[jax.Array, list[Any]]:
        new: list[Any] = list(params["convs"])
        skip, of_layers = x, []
        for number, layer in enumerate(block.layers):
            x, of_layer = q.conv(layer, params["convs"][first + number], x, 1e-3, False)
            of_layers.append(of_layer)
        assert block.add is not None
        of_add = q.residual_add(block.add, skip, x, False)[1]
        return of_block(of_layers, of_add, new, first, most_gradient)(g), new[first:]

    gx, whole = back(params, x, None)
    found, parts = back(params, x, 4 * 2 * 9 * 8)
    np.testing.assert_allclose(found, gx, rtol=1e-4, atol=1e-5)
    assert jax.tree.structure(parts) == jax.tree.structure(whole)
    for one, other, old in zip(*map(jax.tree.leaves, (parts, whole, params["convs"][first:])), strict=True):
        # Sums in another order may round to the next number.
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1)
        assert old.dtype == jnp.float32 or np.abs(one.astype(int) - old.astype(int)).max() > 4


def test_a_sum_rounds_once() -> None:
    add = q.ResidualAdd(q.Steps(0.05, 4), q.Steps(0.03, -2), q.Steps(0.06, 1))
    skip, block = (np.arange(-128, 128, dtype=np.int8).reshape(1, 16, 16, 1)[:, ::order] for order in (1, -1))
    real = 0.05 * (np.asarray(skip, float) - 4) + 0.03 * (np.asarray(block, float) + 2)
    y = np.asarray(jax.jit(partial(q.add_forward, add))(skip, block), float)
    assert np.abs(y - (real / 0.06 + 1).clip(-128, 127)).max() < 0.51


def test_architectures_are_the_public_ones() -> None:
    """Layers, bytes of weights and features of the public checkpoints, counted in their files."""
    found = {}
    for name, make in mcu.NETWORKS.items():
        layers = make().layers
        weights = sum(int(np.prod(layer.weight_shape)) for layer in layers)
        found[name] = (len(layers), weights, layers[-1].out_channels)
    assert found == {"mbv2": (51, 238_688, 112), "proxyless": (60, 320_816, 96), "mcunet": (42, 463_216, 160)}


def test_the_mean_of_pixels_is_rounded() -> None:
    x = jnp.asarray(np.random.default_rng(0).integers(-128, 128, (2, 3, 3, 8)), jnp.int8)
    y, pullback = q.mean_pool(x)
    np.testing.assert_array_equal(y, np.rint(np.asarray(x, float).mean((1, 2))))
    np.testing.assert_allclose(pullback(jnp.ones((2, 8)))[:, 0, 0], 1 / 9)
