"""Networks of inverted residual blocks in int8: their layers, and a training step that states every layer's gradient.

MobileNetV2 (Sandler et al., arXiv 1801.04381), ProxylessNAS (arXiv 1812.00332) and MCUNet (arXiv 2007.10319) are such
networks: a convolution, blocks of an expanding, a depthwise and a projecting convolution, the mean over all pixels, and
a classifier. `layers` counts the convolutions in order, and the public update schemes count them likewise.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from memplan.workloads import quantized as q

RATE = 0.05


class InvertedResidualSpec(NamedTuple):
    """An inverted residual block. Its input is added to its output where the two have the same shape.

    Attributes:
      hidden: channels of the depthwise convolution; without an expanding one if they are those of the input.
      kernel, stride: of the depthwise convolution.
      out: channels out.
    """

    hidden: int
    kernel: int
    stride: int
    out: int


@dataclass(frozen=True)
class InvertedResidual:
    """The layers of an inverted residual block.

    Attributes:
      layers: expanding (unless the block has none), depthwise and projecting convolution.
      add: of the block's input, if there is one.
    """

    layers: tuple[q.QuantizedConv, ...]
    add: q.ResidualAdd | None


# Steps of activations whose range nobody has measured, after a projection.
_LINEAR_STEPS = q.Steps(0.05)
_IMAGE_STEPS = q.Steps(1.0 / 64.0)


@dataclass(frozen=True)
class QuantizedNetwork:
    """A network of int8 layers; `params` is `{"convs": [parameters of each layer], "head": those of the classifier}`.

    Attributes:
      stem: the first convolution.
      blocks: of the body.
      head: the classifier.
    """

    stem: q.QuantizedConv
    blocks: tuple[InvertedResidual, ...]
    head: q.QuantizedHead

    @property
    def layers(self) -> tuple[q.QuantizedConv, ...]:
        """All convolutions, in order."""
        return (self.stem, *(layer for block in self.blocks for layer in block.layers))

    def abstract(self) -> q.Params:
        """Returns the shapes of its parameters."""
        return {"convs": [layer.abstract() for layer in self.layers], "head": self.head.abstract()}

    def image(self, batch: int = 1) -> jax.ShapeDtypeStruct:
        """Returns the shape of its input, int8 [B, side, side, 3]."""
        return jax.ShapeDtypeStruct((batch, self.stem.side, self.stem.side, self.stem.in_channels), jnp.int8)

    def cut(self, params: q.Params, channels: Sequence[int]) -> q.Params:
        """Returns parameters whose weights are cut in two: those of so many input channels, and the others.

        Args:
          params: arrays or shapes.
          channels: of each convolution; weights stay whole where it is 0 or all.
        """
        convs = []
        for layer, p, count in zip(self.layers, params["convs"], channels, strict=True):
            if 0 < count < layer.in_channels:
                p = dict(p, w=_cut(p["w"], count, layer.channel_axis))
            convs.append(p)
        return {"convs": convs, "head": params["head"]}

    def updated(self, channels: Sequence[int], bias_layers: int) -> q.Params:
        """Returns which parameters are trained, a tree of bools like what `cut` returns; the classifier always is.

        Args:
          channels: of each convolution, of how many input channels.
          bias_layers: biases of so many last convolutions.
        """
        convs: list[q.Params] = []
        for number, (layer, count) in enumerate(zip(self.layers, channels, strict=True)):
            is_cut = 0 < count < layer.in_channels
            of_bias = number >= len(self.layers) - bias_layers
            convs.append({"w": (True, False) if is_cut else count > 0, "b": of_bias, "multiplier": False})
        return {"convs": convs, "head": {"w": True, "b": True, "multiplier": False}}

    def masks(self, channels: Sequence[int], bias_layers: int) -> q.Params:
        """Returns what is trained as arrays of bools that broadcast to whole parameters; arguments as in `updated`.

        With them one compiled step trains by any scheme: `where(mask, new, old)` of a step that trains everything has
        the numbers of the pruned step.
        """
        masks = self.updated([0] * len(channels), bias_layers)
        for layer, count, mask in zip(self.layers, channels, masks["convs"], strict=True):
            shape = [layer.in_channels if axis == layer.channel_axis else 1 for axis in range(4)]
            mask["w"] = (np.arange(layer.in_channels) < count).reshape(shape)
        return jax.tree.map(np.asarray, masks)

    def joined(self, params: q.Params) -> q.Params:
        """Returns parameters whose weights are whole again."""
        convs = [
            dict(p, w=q.whole(p["w"], layer.channel_axis))
            for layer, p in zip(self.layers, params["convs"], strict=True)
        ]
        return {"convs": convs, "head": params["head"]}

    def forward(self, params: q.Params, image: jax.Array, striped_blocks: int = 0, stripes: int = 1) -> jax.Array:
        """int8 [B, side, side, 3] to float32 logits [B, classes].

        Args:
          params: weights may be cut.
          image: in steps `stem.x`.
          striped_blocks: the stem and so many blocks run stripe by stripe (`stripe_by_stripe`).
          stripes: of their output.
        """
        x, place = self._start(params, image, striped_blocks, stripes)
        for block in self.blocks[striped_blocks:]:
            skip = x
            for layer in block.layers:
                x, place = q.conv_forward(layer, params["convs"][place], x), place + 1
            if block.add is not None:
                x = q.add_forward(block.add, skip, x)
        return q.head_forward(self.head, params["head"], q.mean_pool(x)[0])

    def _start(self, params: q.Params, image: jax.Array, striped_blocks: int, stripes: int) -> tuple[jax.Array, int]:
        """Returns the output of the striped layers, or of the stem, and how many layers that took."""
        blocks = self.blocks[:striped_blocks]
        layers = (self.stem, *(layer for block in blocks for layer in block.layers))
        if any(block.add is not None for block in blocks):
            raise ValueError("a block with a residual sum does not run in stripes")
        return stripe_by_stripe(layers, params["convs"][: len(layers)], image, stripes), len(layers)

    def train_step(
        self,
        params: q.Params,
        image: jax.Array,
        label: jax.Array,
        *,
        rate: float = RATE,
        kept_inputs: Sequence[bool] | None = None,
        striped_blocks: int | None = None,
        stripes: int = 1,
        most_gradient: int | None = None,
    ) -> tuple[q.Params, jax.Array]:
        """One step of gradient descent on all parameters: returns new ones, and the loss before.

        The step states the gradients of all layers. `memplan.passes.sparse_update` keeps those that are asked for.

        Args:
          params: weights may be cut.
          image: int8 [B, side, side, 3].
          label: int32 [B].
          rate: of the descent.
          kept_inputs: of each convolution, whether its weights will be updated for all input channels, so that its
            input is kept, and stands for the mask of the layer before; all, by default.
          striped_blocks: if given, the stem and so many blocks are not trained, and run as in `forward`.
          stripes: of their output.
          most_gradient: bytes that the gradient of a block's hidden channels may take. Where it takes more, the
            backward pass goes through groups of these channels, as each has its own way through the block.
        """
        kept = [*(kept_inputs or [True] * len(self.layers)), False]
        new: list[Any] = list(params["convs"])
        x, place, blocks = image, 0, self.blocks
        pullbacks: list[Callable[[jax.Array], jax.Array]] = []
        if striped_blocks is None:
            x, of_stem = q.conv(self.stem, params["convs"][0], image, rate, kept[1])
            pullbacks.append(_storing(of_stem, new, 0))
            place = 1
        else:
            x, place = self._start(params, image, striped_blocks, stripes)
            blocks = blocks[striped_blocks:]
        for block in blocks:
            skip, first, of_layers = x, place, []
            for layer in block.layers:
                is_last = layer is block.layers[-1]
                is_kept = kept[place + 1] and not (is_last and block.add is not None)
                x, of_layer = q.conv(layer, params["convs"][place], x, rate, is_kept)
                of_layers.append(of_layer)
                place += 1
            of_add = None
            if block.add is not None:
                x, of_add = q.residual_add(block.add, skip, x, kept[place])
            pullbacks.append(of_block(of_layers, of_add, new, first, most_gradient))
        features, of_pool = q.mean_pool(x)
        logits, of_head = q.head(self.head, params["head"], features, rate)
        loss, g = q.cross_entropy(logits, label)
        g, new_head = of_head(g)
        g = of_pool(g)
        for pullback in reversed(pullbacks):
            g = pullback(g)
        return {"convs": new, "head": new_head}, loss


def _storing(of_layer: q.ConvPullback, new: list[Any], place: int) -> Callable[[jax.Array], jax.Array]:
    """Returns a function of the output's gradient that returns the input's, and stores the new parameters."""

    def pullback(g: jax.Array) -> jax.Array:
        g, new[place] = of_layer(g)
        return g

    return pullback


def of_block(
    of_layers: Sequence[q.ConvPullback],
    of_add: Callable[[jax.Array], tuple[jax.Array, jax.Array]] | None,
    new: list[Any],
    first: int,
    most_gradient: int | None,
) -> Callable[[jax.Array], jax.Array]:
    """The same of a block; `first` is the place of its first layer in `new`."""

    def pullback(g: jax.Array) -> jax.Array:
        of_skip = None
        if of_add is not None:
            of_skip, g = of_add(g)
        groups = _groups(of_layers[0].layer, most_gradient, g.shape[0]) if len(of_layers) == 3 else 1
        if groups > 1:
            g = _by_groups(of_layers, g, groups, new, first)
        else:
            for place in reversed(range(len(of_layers))):
                g, new[first + place] = of_layers[place](g)
        return g if of_skip is None else g + of_skip

    return pullback


def _groups(expand: q.QuantizedConv, most_gradient: int | None, batch: int) -> int:
    """Returns into how many groups the hidden channels of a block are divided."""
    gradient = 4 * batch * expand.out_side**2 * expand.out_channels
    return 1 if most_gradient is None else min(-(-gradient // most_gradient), expand.out_channels // 8)


def _by_groups(of_layers: Sequence[q.ConvPullback], g: jax.Array, groups: int, new: list[Any], first: int) -> jax.Array:
    """The backward pass of a block, one group of hidden channels after another."""
    expand, depthwise, project = of_layers
    g_total = project.total(g)
    new[first + 2] = project.parameters(g_total)
    eighths = expand.layer.out_channels // 8
    ends = [eighths * number // groups * 8 for number in range(groups + 1)]
    of_expand, of_depthwise = [], []
    gx: Any = None
    for hidden in itertools.pairwise(ends):
        part = depthwise.total(project.input(g_total, inputs=hidden), hidden)
        of_depthwise.append(depthwise.parameters(part, hidden))
        part = expand.total(depthwise.input(part, hidden), hidden)
        of_expand.append(expand.parameters(part, hidden))
        part = expand.input(part, hidden)
        gx = part if gx is None else gx + part
    new[first], new[first + 1] = q.join_channels(of_expand), q.join_channels(of_depthwise)
    return gx


def _cut(w: Any, count: int, axis: int) -> tuple[Any, Any]:
    if isinstance(w, jax.ShapeDtypeStruct):
        shapes = [(*w.shape[:axis], size, *w.shape[axis + 1 :]) for size in (count, w.shape[axis] - count)]
        return jax.ShapeDtypeStruct(shapes[0], w.dtype), jax.ShapeDtypeStruct(shapes[1], w.dtype)
    return lax.slice_in_dim(w, 0, count, axis=axis), lax.slice_in_dim(w, count, w.shape[axis], axis=axis)


def stripe_by_stripe(
    layers: Sequence[q.QuantizedConv], params: Sequence[q.Params], x: jax.Array, stripes: int
) -> jax.Array:
    """Runs a chain of layers for one stripe of rows of the last one's output after another.

    No layer's whole output stands at once but the last one's. Rows at the edges of stripes are computed twice. These
    are the patches of MCUNetV2 (arXiv 2110.15352, section 3.1), as wide as the image. The result has the same bits.

    Args:
      layers: each takes the output of the one before.
      params: theirs.
      x: int8 [B, H, W, C].
      stripes: at most the rows of the output.
    """
    rows = layers[-1].out_side
    outputs = []
    for stripe in range(stripes):
        first, end = stripe * rows // stripes, (stripe + 1) * rows // stripes
        paddings = []
        for layer in reversed(layers):
            half = layer.kernel // 2
            low, high = first * layer.stride - half, (end - 1) * layer.stride + half + 1
            paddings.append((max(0, -low), max(0, high - layer.side)))
            first, end = max(0, low), min(layer.side, high)
        y = x if stripes == 1 else lax.slice_in_dim(x, first, end, axis=1)
        for layer, p, padding in zip(layers, params, reversed(paddings), strict=True):
            y = q.conv_forward(layer, p, y, padding)
        outputs.append(y)
    return outputs[0] if stripes == 1 else lax.concatenate(outputs, 1)


def network_of(stem: int, blocks: Sequence[InvertedResidualSpec], side: int, classes: int) -> QuantizedNetwork:
    """Returns the network of an architecture, with steps of activations that nobody has measured.

    Args:
      stem: channels out of the first convolution, 3 × 3 with stride 2.
      blocks: of the body.
      side: of the image, in pixels.
      classes: of the classifier.
    """
    number = 0

    def layer(
        x: q.Steps, channels: int, out: int, kernel: int, stride: int, side: int, y: q.Steps, depthwise: bool = False
    ) -> q.QuantizedConv:
        nonlocal number
        number += 1
        return q.QuantizedConv(f"conv{number - 1}", channels, out, kernel, stride, depthwise, side, x, y)

    first = layer(_IMAGE_STEPS, 3, stem, 3, 2, side, q.RELU6_STEPS)
    steps, channels, side = first.y, stem, first.out_side
    made = []
    for spec in blocks:
        layers = []
        if spec.hidden != channels:
            layers.append(layer(steps, channels, spec.hidden, 1, 1, side, q.RELU6_STEPS))
        middle = layers[-1].y if layers else steps
        layers.append(layer(middle, spec.hidden, spec.hidden, spec.kernel, spec.stride, side, q.RELU6_STEPS, True))
        layers.append(layer(q.RELU6_STEPS, spec.hidden, spec.out, 1, 1, layers[-1].out_side, _LINEAR_STEPS))
        is_residual = spec.stride == 1 and spec.out == channels
        add = q.ResidualAdd(steps, _LINEAR_STEPS, _LINEAR_STEPS) if is_residual else None
        made.append(InvertedResidual(tuple(layers), add))
        steps, channels, side = _LINEAR_STEPS, spec.out, layers[-1].out_side
    return QuantizedNetwork(first, tuple(made), q.QuantizedHead(channels, classes, steps))
