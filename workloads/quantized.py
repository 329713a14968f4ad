"""Layers of int8 networks, each with its backward pass, for training where every byte counts.

Weights are int8 with a float32 scale for each output channel, activations int8 with one scale and one zero point,
biases and sums int32. A sum becomes an activation by

    clip(round(float32(sum) · multiplier[channel]) + zero, −128, 127),    multiplier = x scale · weight scale ÷ y scale

(Jacob et al., arXiv 1712.05877, with a float32 multiplier, as the public code of "On-Device Training Under 256KB
Memory" has it, arXiv 2206.15472). The product is rounded once and the sum is whole, so that every compiler that keeps
to IEEE arithmetic finds the same bits.

JAX gives integers no gradients. A layer therefore returns, beside its output, a `pullback` that takes the float32
gradient of the output (in units of the output's steps), and returns that of its input and the updated parameters. What
a pullback keeps from the forward pass is int8: inputs of weights and, where an output was cut off at an end of its
range, one bit each or the output itself. Equations that no chosen result needs are dead code.

In the shapes, `B` is the batch, `H` and `W` the sides of an image, `C` and `O` channels in and out, `K` the side of a
kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Params = dict[str, Any]
LOW, HIGH = -128, 127

# Fixed-point bits of the two factors of a residual sum.
_ADD_BITS = 16
# No step of a bias is larger, so that it can be an int32.
_MOST_STEP = np.float32(2**30)
_NAMES = ("NHWC", "HWIO", "NHWC")


@dataclass(frozen=True)
class Steps:
    """How int8 numbers stand for real ones: `real = scale · (number − zero)`."""

    scale: float
    zero: int = 0


# Real numbers from 0 to 6, the range of ReLU6, on all 256 numbers: cutting off at the ends is the activation.
RELU6_STEPS = Steps(6.0 / 255.0, LOW)


@dataclass(frozen=True)
class QuantizedConv:
    """A convolution with its activation.

    Attributes:
      name: of the layer.
      in_channels, out_channels: C and O.
      kernel, stride: of both sides; the padding is half the kernel.
      depthwise: whether each channel has a kernel of its own, so that C = O.
      side: of its input, in pixels.
      x, y: steps of input and output.
    """

    name: str
    in_channels: int
    out_channels: int
    kernel: int
    stride: int
    depthwise: bool
    side: int
    x: Steps
    y: Steps

    @property
    def out_side(self) -> int:
        """The side of its output, in pixels."""
        return (self.side - 1) // self.stride + 1

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """[K, K, C, O], or [K, K, 1, C] of a depthwise convolution."""
        return (self.kernel, self.kernel, 1 if self.depthwise else self.in_channels, self.out_channels)

    @property
    def channel_axis(self) -> int:
        """The axis of the weights that counts input channels."""
        return 3 if self.depthwise else 2

    def abstract(self) -> Params:
        """Returns the shapes of its parameters."""
        return {
            "w": jax.ShapeDtypeStruct(self.weight_shape, jnp.int8),
            "b": jax.ShapeDtypeStruct((self.out_channels,), jnp.int32),
            "multiplier": jax.ShapeDtypeStruct((self.out_channels,), jnp.float32),
        }


Pullback = Callable[[jax.Array], tuple[jax.Array, Params]]
# Channels from, to.
Range = tuple[int, int]


def pieces(w: Any) -> tuple[jax.Array, ...]:
    """Returns the parts of weights that are cut along input channels; one part if they are not cut."""
    return tuple(w) if isinstance(w, tuple | list) else (w,)


def whole(w: Any, axis: int) -> jax.Array:
    """Returns weights that are cut along an axis in one array."""
    parts = pieces(w)
    return parts[0] if len(parts) == 1 else lax.concatenate(parts, axis)


def requantize(total: jax.Array, multiplier: Any, zero: int) -> jax.Array:
    """int32 sums […, O] to int8 activations; `multiplier` is float32 [O] or a number."""
    scaled = lax.round(total.astype(jnp.float32) * multiplier, lax.RoundingMethod.TO_NEAREST_EVEN)
    return lax.clamp(np.float32(LOW), scaled + np.float32(zero), np.float32(HIGH)).astype(jnp.int8)


def convolve(
    layer: QuantizedConv, x: jax.Array, w: jax.Array, rows: tuple[int, int] | None = None, channels: int | None = None
) -> jax.Array:
    """[B, H, W, C] and [K, K, C, O] to [B, H', W', O], all of one dtype.

    Args:
      layer: says stride and padding.
      x, w: input, zero where the real number is, and weights.
      rows: padding above and below, if it is not half the kernel.
      channels: of a depthwise convolution, if these are not all.
    """
    half = layer.kernel // 2
    groups = (channels or layer.in_channels) if layer.depthwise else 1
    strides, padding = (layer.stride,) * 2, [rows or (half, half), (half, half)]
    return lax.conv_general_dilated(x, w, strides, padding, dimension_numbers=_NAMES, feature_group_count=groups)


def conv_forward(layer: QuantizedConv, p: Params, x: jax.Array, rows: tuple[int, int] | None = None) -> jax.Array:
    """int8 [B, H, W, C] to int8 [B, H', W', O]; `rows` as in `convolve`."""
    centred = x.astype(jnp.int32) - np.int32(layer.x.zero)
    total = convolve(layer, centred, whole(p["w"], layer.channel_axis).astype(jnp.int32), rows)
    return requantize(total + p["b"], p["multiplier"], layer.y.zero)


@dataclass(frozen=True, eq=False)
class ConvPullback:
    """The backward pass of a convolution, of all channels or of some.

    Attributes:
      layer, p, rate: as in `conv`.
      mask: of the output.
      kept: the input channels that each part of the weights needs.
    """

    layer: QuantizedConv
    p: Params
    rate: float
    mask: Mask
    kept: tuple[jax.Array, ...]

    def __call__(self, g: jax.Array) -> tuple[jax.Array, Params]:
        """Returns the gradient of the input, and new parameters, for the gradient [B, H', W', O] of the output."""
        g_total = self.total(g)
        return self.input(g_total), self.parameters(g_total)

    def total(self, g: jax.Array, out: Range | None = None) -> jax.Array:
        """Returns the gradient of the int32 sums, for that of the output; `out` says which channels these are."""
        multiplier = self.p["multiplier"] if out is None else _channels(self.p["multiplier"], *out)
        return self.mask(g, out) * multiplier

    def input(self, g_total: jax.Array, out: Range | None = None, inputs: Range | None = None) -> jax.Array:
        """Returns the gradient of input channels, as far as it comes from some output channels.

        Args:
          g_total: as `total` returns it, of the output channels `out`.
          out: of a depthwise convolution, these are the input channels too.
          inputs: of another convolution.
        """
        layer, w = self.layer, whole(self.p["w"], self.layer.channel_axis)
        if out is not None:
            w = _channels(w, *out)
        if inputs is not None:
            w = lax.slice_in_dim(w, *inputs, axis=2)
        count = w.shape[layer.channel_axis]
        shape = (g_total.shape[0], layer.side, layer.side, count)
        w = w.astype(jnp.float32)
        (gx,) = jax.linear_transpose(
            lambda x: convolve(layer, x, w, channels=count), jax.ShapeDtypeStruct(shape, jnp.float32)
        )(g_total)
        return gx

    def parameters(self, g_total: jax.Array, out: Range | None = None) -> Params:
        """Returns new parameters of the output channels `out`; "w" is cut as it was, into parts that may be empty."""
        layer, (first, end) = self.layer, out or (0, self.layer.out_channels)
        multiplier = _channels(self.p["multiplier"], first, end)
        total_scale, scale = (
            multiplier * np.float32(layer.y.scale),
            multiplier * np.float32(layer.y.scale / layer.x.scale),
        )
        b = new_bias(_channels(self.p["b"], first, end), g_total.sum((0, 1, 2)), total_scale, self.rate)
        parts, start = [], 0
        for part, x in zip(pieces(self.p["w"]), self.kept, strict=True):
            if not layer.depthwise:
                parts.append(self._weights(_channels(part, first, end), x, g_total, scale))
                continue
            # An output channel reads one input channel: those are updated here that are in this part of the weights.
            low, high = max(first, start), min(end, start + part.shape[3])
            if low < high:
                w, x = _channels(part, low - start, high - start), _channels(x, low - start, high - start)
                of_part = [_channels(each, low - first, high - first) for each in (g_total, scale)]
                parts.append(self._weights(w, x, *of_part))
            else:
                parts.append(_channels(part, 0, 0))
            start += part.shape[3]
        return {
            "w": tuple(parts) if isinstance(self.p["w"], tuple | list) else parts[0],
            "b": b,
            "multiplier": multiplier,
        }

    def _weights(self, w: jax.Array, x: jax.Array, g_total: jax.Array, scale: jax.Array) -> jax.Array:
        layer = self.layer
        centred = x.astype(jnp.float32) - np.float32(layer.x.zero)
        (gw,) = jax.linear_transpose(
            lambda w: convolve(layer, centred, w, channels=centred.shape[3]), jax.ShapeDtypeStruct(w.shape, jnp.float32)
        )(g_total)
        return new_weights(w, gw, scale, self.rate)


def conv(
    layer: QuantizedConv, p: Params, x: jax.Array, rate: float, output_kept: bool
) -> tuple[jax.Array, ConvPullback]:
    """A convolution and its pullback.

    Args:
      layer: the layer.
      p: its parameters; "w" may be cut along input channels. Each part has a gradient of its own, which needs no other
        channels of the input than its own.
      x: int8 [B, H, W, C].
      rate: of gradient descent.
      output_kept: whether the output is kept for another layer, so that it costs nothing to keep it for the mask.
    """
    y = conv_forward(layer, p, x)
    sizes = [part.shape[layer.channel_axis] for part in pieces(p["w"])]
    starts = np.cumsum([0, *sizes]).tolist()
    kept = tuple(_channels(x, start, start + size) for start, size in zip(starts, sizes, strict=False))
    return y, ConvPullback(layer, p, rate, Mask(y, output_kept), kept)


def join_channels(parts: Sequence[Params]) -> Params:
    """Returns the parameters whose output channels are in parts, as `ConvPullback.parameters` returns them."""
    cuts = [pieces(part["w"]) for part in parts]
    w = tuple(whole([piece for piece in each if piece.size], 3) for each in zip(*cuts, strict=True))
    is_cut = isinstance(parts[0]["w"], tuple)
    return {
        "w": w if is_cut else w[0],
        "b": whole([part["b"] for part in parts], 0),
        "multiplier": whole([part["multiplier"] for part in parts], 0),
    }


def _channels(x: jax.Array, start: int, end: int) -> jax.Array:
    """Returns some channels of [..., C]."""
    return x if end - start == x.shape[-1] else lax.slice_in_dim(x, start, end, axis=x.ndim - 1)


def new_weights(w: jax.Array, gradient: jax.Array, scale: jax.Array, rate: float) -> jax.Array:
    """One step of gradient descent on int8 weights with quantization-aware scaling.

    The gradient by the stored number is `scale` times that by the real weight, and a step of the stored number is
    `scale` of the real one, so that the gradient is divided by `scale²` (arXiv 2206.15472, section 2.1): the real
    weight moves as it would without quantization.

    Args:
      w: int8 […, O].
      gradient: float32, by the stored numbers.
      scale: of the weights, float32 [O].
      rate: of the descent.
    """
    moved = w.astype(jnp.float32) - np.float32(rate) * (gradient / (scale * scale))
    rounded = lax.round(moved, lax.RoundingMethod.TO_NEAREST_EVEN)
    return lax.clamp(np.float32(LOW), rounded, np.float32(HIGH)).astype(jnp.int8)


def new_bias(b: jax.Array, gradient: jax.Array, scale: jax.Array, rate: float) -> jax.Array:
    """The same for int32 biases [O], whose scale is that of the sums."""
    step = lax.round(np.float32(rate) * (gradient / (scale * scale)), lax.RoundingMethod.TO_NEAREST_EVEN)
    return b - lax.clamp(-_MOST_STEP, step, _MOST_STEP).astype(jnp.int32)


class Mask:
    """Where an int8 output lies strictly within its range, so that a gradient passes.

    Args:
      y: int8 […, C].
      output_kept: whether the output is kept anyway, so that the mask is computed from it when it is wanted. Otherwise
        the mask itself is kept, which takes a bit for each number in an embedded program.
    """

    def __init__(self, y: jax.Array, output_kept: bool):
        self.kept = y if output_kept else _within(y)

    def __call__(self, g: jax.Array, channels: Range | None = None) -> jax.Array:
        """Returns the gradient […, C] float32 with zeros where the output was cut off; of some channels, if not all."""
        kept = self.kept if channels is None else _channels(self.kept, *channels)
        return _only_where(kept if kept.dtype == bool else _within(kept), g)


def _only_where(flags: jax.Array, x: jax.Array) -> jax.Array:
    return lax.select(flags, x, lax.full_like(x, 0))


def _within(y: jax.Array) -> jax.Array:
    return (y > np.int8(LOW)) & (y < np.int8(HIGH))


@dataclass(frozen=True)
class ResidualAdd:
    """The sum of a block's input and its last layer's output, in steps of its own.

    Attributes:
      skip, block: steps of the two.
      y: steps of the sum.
    """

    skip: Steps
    block: Steps
    y: Steps


def add_forward(add: ResidualAdd, skip: jax.Array, block: jax.Array) -> jax.Array:
    """int8 [B, H, W, C] twice to int8 of the same shape.

    The two factors are fixed-point integers. In floating point, a compiler may round a product that is added to another
    one, or not.
    """
    total = np.int32(0)
    for x, steps in ((skip, add.skip), (block, add.block)):
        factor = round(steps.scale / add.y.scale * 2**_ADD_BITS)
        total = total + (x.astype(jnp.int32) - np.int32(steps.zero)) * np.int32(factor)
    return requantize(total, np.float32(2.0**-_ADD_BITS), add.y.zero)


def residual_add(
    add: ResidualAdd, skip: jax.Array, block: jax.Array, output_kept: bool
) -> tuple[jax.Array, Callable[[jax.Array], tuple[jax.Array, jax.Array]]]:
    """The sum, and a function from its gradient to those of `skip` and `block`; see `conv` for `output_kept`."""
    y = add_forward(add, skip, block)
    mask = Mask(y, output_kept)

    def pullback(g: jax.Array) -> tuple[jax.Array, jax.Array]:
        g = mask(g)
        return g * np.float32(add.skip.scale / add.y.scale), g * np.float32(add.block.scale / add.y.scale)

    return y, pullback


def mean_pool(x: jax.Array) -> tuple[jax.Array, Callable[[jax.Array], jax.Array]]:
    """int8 [B, H, W, C] to its rounded means, int8 [B, C] in the same steps, and the pullback."""
    shape = x.shape
    share = np.float32(1.0 / (shape[1] * shape[2]))
    total = lax.reduce(x.astype(jnp.int32), np.int32(0), lax.add, (1, 2))

    def pullback(g: jax.Array) -> jax.Array:
        return lax.broadcast_in_dim(g * share, shape, (0, 3))

    return requantize(total, share, 0), pullback


@dataclass(frozen=True)
class QuantizedHead:
    """The classifier: int8 features [B, C] to float32 logits [B, classes], which are not rounded.

    Attributes:
      in_channels, classes: its sizes.
      x: steps of the features.
    """

    in_channels: int
    classes: int
    x: Steps

    def abstract(self) -> Params:
        """Returns the shapes of its parameters; `multiplier` is x scale · weight scale."""
        return {
            "w": jax.ShapeDtypeStruct((self.in_channels, self.classes), jnp.int8),
            "b": jax.ShapeDtypeStruct((self.classes,), jnp.int32),
            "multiplier": jax.ShapeDtypeStruct((self.classes,), jnp.float32),
        }


def head_forward(layer: QuantizedHead, p: Params, x: jax.Array) -> jax.Array:
    """int8 [B, C] to float32 [B, classes]."""
    total = lax.dot(x.astype(jnp.int32) - np.int32(layer.x.zero), p["w"].astype(jnp.int32)) + p["b"]
    return total.astype(jnp.float32) * p["multiplier"]


def head(layer: QuantizedHead, p: Params, x: jax.Array, rate: float) -> tuple[jax.Array, Pullback]:
    """The classifier and its pullback, which takes the gradient of the logits."""

    def pullback(g: jax.Array) -> tuple[jax.Array, Params]:
        g_total = g * p["multiplier"]
        gx = lax.dot_general(g_total, p["w"].astype(jnp.float32), (((1,), (1,)), ((), ())))
        centred = x.astype(jnp.float32) - np.float32(layer.x.zero)
        gw = lax.dot_general(centred, g_total, (((0,), (0,)), ((), ())))
        weight_scale = p["multiplier"] * np.float32(1.0 / layer.x.scale)
        b = new_bias(p["b"], g_total.sum(0), p["multiplier"], rate)
        return gx, dict(p, w=new_weights(p["w"], gw, weight_scale, rate), b=b)

    return head_forward(layer, p, x), pullback


def cross_entropy(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Logits [B, classes] and int32 labels [B] to the mean loss and its gradient by the logits."""
    shifted = logits - logits.max(-1, keepdims=True)
    exponentials = jnp.exp(shifted)
    total = exponentials.sum(-1, keepdims=True)
    is_label = lax.broadcasted_iota(jnp.int32, logits.shape, 1) == labels[:, None]
    share = np.float32(1.0 / logits.shape[0])
    loss = (jnp.log(total[:, 0]) - _only_where(is_label, shifted).sum(-1)).sum() * share
    return loss, (exponentials / total - is_label.astype(jnp.float32)) * share
