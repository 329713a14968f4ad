"""From a float network to an int8 one: parameters drawn at random or given, ranges measured on images.

A layer's float parameters are scaled so that its outputs on the images have mean 0 and variance 1 in each channel
(Mishkin and Matas, arXiv 1511.06422), as batch normalisation that is folded into the weights would leave them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import NDArray

from memplan.workloads import quantized as q
from memplan.workloads.quantized_network import InvertedResidual, QuantizedNetwork

FloatParams = dict[str, Any]
Floats = NDArray[np.floating[Any]]


def float_conv(layer: q.QuantizedConv, p: FloatParams, x: jax.Array) -> jax.Array:
    """float32 [B, H, W, C] to [B, H', W', O], with ReLU6 where the int8 layer has its range."""
    y = q.convolve(layer, x, p["w"]) + p["b"]
    return jnp.clip(y, 0.0, 6.0) if layer.y == q.RELU6_STEPS else y


def float_forward(network: QuantizedNetwork, params: FloatParams, image: jax.Array) -> jax.Array:
    """The network in float32: [B, side, side, 3] to logits [B, classes]."""
    convs = iter(params["convs"])
    x = float_conv(network.stem, next(convs), image)
    for block in network.blocks:
        skip = x
        for layer in block.layers:
            x = float_conv(layer, next(convs), x)
        x = x if block.add is None else x + skip
    return x.mean((1, 2)) @ params["head"]["w"] + params["head"]["b"]


def float_step(
    network: QuantizedNetwork, params: FloatParams, image: jax.Array, label: jax.Array, rate: float
) -> tuple[FloatParams, jax.Array]:
    """One step of gradient descent in float32: returns new parameters, and the loss before."""

    def loss(params: FloatParams) -> jax.Array:
        return q.cross_entropy(float_forward(network, params, image), label)[0]

    value, gradients = jax.value_and_grad(loss)(params)
    return jax.tree.map(lambda p, g: p - rate * g, params, gradients), value


def float_shapes(network: QuantizedNetwork) -> FloatParams:
    """Returns the shapes of the float parameters."""

    def floats(shapes: q.Params) -> FloatParams:
        return {name: jax.ShapeDtypeStruct(shapes[name].shape, jnp.float32) for name in ("w", "b")}

    shapes = network.abstract()
    return {"convs": [floats(p) for p in shapes["convs"]], "head": floats(shapes["head"])}


def calibrated(network: QuantizedNetwork, images: Any, seed: int = 0) -> tuple[QuantizedNetwork, q.Params]:
    """Returns the network with steps measured on images, and int8 parameters drawn at random.

    It computes in NumPy: JAX would compile every layer for itself.

    Args:
      network: its steps of activations are replaced, but for those of ReLU6.
      images: float32 [N, side, side, 3].
      seed: of the weights.
    """
    draw = np.random.default_rng(seed)
    x = np.asarray(images)
    convs: list[q.Params] = []

    def run(layer: q.QuantizedConv, x: Floats, steps: q.Steps) -> tuple[q.QuantizedConv, Floats]:
        w = draw.standard_normal(layer.weight_shape).astype(np.float32)
        y = _convolved(layer, x, w)
        spread, mean = np.maximum(y.std((0, 1, 2)), 1e-3), y.mean((0, 1, 2))
        y = (y - mean) / spread
        is_linear = layer.y != q.RELU6_STEPS
        y = y if is_linear else y.clip(0.0, 6.0)
        layer = replace(layer, x=steps, y=q.Steps(_symmetric(y)) if is_linear else layer.y)
        convs.append(_quantized(w / spread, -mean / spread, steps.scale, layer.y.scale))
        return layer, y

    steps = q.Steps(_symmetric(x))
    stem, x = run(network.stem, x, steps)
    steps, blocks = stem.y, []
    for block in network.blocks:
        skip, of_skip, layers = x, steps, []
        for layer in block.layers:
            made, x = run(layer, x, steps)
            layers.append(made)
            steps = made.y
        add = block.add
        if add is not None:
            x = x + skip
            add = q.ResidualAdd(of_skip, steps, q.Steps(_symmetric(x)))
            steps = add.y
        blocks.append(InvertedResidual(tuple(layers), add))
    head = replace(network.head, x=steps)
    w = draw.standard_normal((head.in_channels, head.classes)).astype(np.float32) / head.in_channels
    of_head = _quantized(w, np.zeros(head.classes, np.float32), steps.scale, 1.0)
    return QuantizedNetwork(stem, tuple(blocks), head), {"convs": convs, "head": of_head}


def _convolved(layer: q.QuantizedConv, x: Floats, w: Floats) -> Floats:
    """As `q.convolve`, in NumPy."""
    half, k = layer.kernel // 2, layer.kernel
    padded = np.pad(x, ((0, 0), (half, half), (half, half), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (k, k), (1, 2))[:, :: layer.stride, :: layer.stride]
    if layer.depthwise:
        return np.einsum("bhwcij,ijc->bhwc", windows, w[:, :, 0])
    return np.tensordot(windows, w, ((4, 5, 3), (0, 1, 2)))


def quantized_image(network: QuantizedNetwork, images: jax.Array) -> jax.Array:
    """float32 images to int8 in the network's steps."""
    steps = network.stem.x
    rounded = lax.round(images / np.float32(steps.scale), lax.RoundingMethod.TO_NEAREST_EVEN) + np.float32(steps.zero)
    return lax.clamp(np.float32(q.LOW), rounded, np.float32(q.HIGH)).astype(jnp.int8)


def _symmetric(x: Floats) -> float:
    """Returns the scale by which the largest number is 127."""
    return max(float(np.abs(x).max()), 1e-6) / q.HIGH


def _quantized(w: Floats, b: Floats, x_scale: float, y_scale: float) -> q.Params:
    """Returns int8 parameters of float ones, the weights [..., O] with a scale for each output channel."""
    scale = np.maximum(np.abs(w).max(tuple(range(w.ndim - 1))), 1e-6) / q.HIGH
    return {
        "w": jnp.asarray(np.rint(w / scale), jnp.int8),
        "b": jnp.asarray(np.rint(b / (scale * x_scale)), jnp.int32),
        "multiplier": jnp.asarray(scale * (x_scale / y_scale), jnp.float32),
    }
