"""Networks written once: a layer asks for its parameters by name and shape, and they follow from the forward pass.

A network is a function `apply(p, *inputs)` of a `Weights` and of arrays. `abstract_params` runs it on shapes alone and
notes which parameters it asks for; `Weights(params)` gives it those. A name that is asked for twice is shared.

>>> import jax.numpy as jnp
>>> def apply(p, x):
...     return p.dense("out", jnp.tanh(p.dense("in", x, 8)), 1)
>>> fun, (params, x) = infer(apply, floats(4, 2))
>>> params["in"]["w"].shape
(2, 8)

In the shapes, `B` is the batch, `T` a length, `C` a number of channels or features, `H` one of heads, `D` their width.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from memplan.workloads import _layers as nn
from memplan.workloads import train_blocks as blocks
from memplan.workloads.registry import Built
from memplan.workloads.train_step import adam_step, sgd_step

Apply = Callable[..., Any]


class Weights:
    """The parameters of a part of a network, and the layers that use them.

    Args:
      values: the parameters, a dictionary of arrays and of dictionaries like it.
      recording: whether `values` is to be filled with the shapes of the parameters that are asked for.
      train: whether batch normalisation uses the statistics of the batch.
    """

    def __init__(self, values: nn.Params, recording: bool = False, train: bool = False):
        self.values, self.recording, self.train = values, recording, train

    def __call__(self, name: str, *shape: int, dtype: Any = jnp.float32) -> jax.Array:
        """Returns the parameter of this name and shape."""
        if self.recording:
            self.values[name] = jax.ShapeDtypeStruct(shape, dtype)
            return jnp.zeros(shape, dtype)
        return self.values[name]

    def __truediv__(self, name: str) -> Weights:
        """Returns the part of this name."""
        if self.recording:
            self.values.setdefault(name, {})
        return Weights(self.values[name], self.recording, self.train)

    def layers(self, name: str, block: Callable[[Weights, Any], Any], x: Any, count: int, scanned: bool = False) -> Any:
        """Runs `block(p, x)` so many times, each with parameters of its own.

        Args:
          name: of the layers' parameters.
          block: of weights and a pytree of arrays; its result has the shapes of the latter if `scanned`.
          x: what the first layer takes.
          count: number of layers.
          scanned: whether they are one loop over stacked parameters instead of one program after another.
        """
        if not scanned:
            return blocks.chain([partial(block, self / f"{name}{layer}") for layer in range(count)], x)
        if self.recording:
            x = block(self / name, x)
            stacked = jax.tree.map(lambda s: jax.ShapeDtypeStruct((count, *s.shape), s.dtype), self.values[name])
            self.values[name] = stacked
            return x
        return blocks.scan(lambda x, p: (block(Weights(p, train=self.train), x), None), x, self.values[name])[0]

    def dense(self, name: str, x: jax.Array, width: int, bias: bool = True) -> jax.Array:
        """[…, C] to […, width]."""
        part = self / name
        y = x @ part("w", x.shape[-1], width).astype(x.dtype)
        return y + part("b", width).astype(x.dtype) if bias else y

    def mlp(self, name: str, x: jax.Array, *widths: int, act: Apply = jax.nn.gelu) -> jax.Array:
        """[…, C] to […, the last width], with an activation between dense layers."""
        part = self / name
        for layer, width in enumerate(widths):
            x = part.dense(f"{layer}", act(x) if layer else x, width)
        return x

    def conv(
        self,
        name: str,
        x: jax.Array,
        width: int,
        kernel: int = 3,
        stride: int = 1,
        groups: int = 1,
        dilation: int = 1,
        padding: Any = "SAME",
    ) -> jax.Array:
        """Convolution over all axes between the first and the last of [B, …, C], without bias."""
        rank = x.ndim - 2
        letters = "DHW"[3 - rank :]
        w = self(name, *(kernel,) * rank, x.shape[-1] // groups, width).astype(x.dtype)
        names = (f"N{letters}C", f"{letters}IO", f"N{letters}C")
        return lax.conv_general_dilated(
            x, w, (stride,) * rank, padding, None, (dilation,) * rank, names, feature_group_count=groups
        )

    def embed(self, name: str, ids: jax.Array, count: int, width: int, dtype: Any = jnp.bfloat16) -> jax.Array:
        """Ids […] int to […, width]."""
        return self(name, count, width).astype(dtype)[ids]

    def layer_norm(self, name: str, x: jax.Array) -> jax.Array:
        """As `_layers.layer_norm`."""
        part = self / name
        return nn.layer_norm({"scale": part("scale", x.shape[-1]), "bias": part("bias", x.shape[-1])}, x)

    def rms_norm(self, name: str, x: jax.Array) -> jax.Array:
        """As `_layers.rms_norm`."""
        return nn.rms_norm((self / name)("scale", x.shape[-1]), x)

    def group_norm(self, name: str, x: jax.Array, groups: int = 32) -> jax.Array:
        """As `_layers.group_norm`."""
        part = self / name
        return nn.group_norm({"scale": part("scale", x.shape[-1]), "bias": part("bias", x.shape[-1])}, x, groups)

    def batch_norm(self, name: str, x: jax.Array) -> jax.Array:
        """Normalises each channel of [B, …, C] (Ioffe and Szegedy, arXiv 1502.03167).

        Training uses the statistics of the batch, and leaves running ones to the caller. Inference has them as
        parameters.
        """
        part, channels = self / name, x.shape[-1]
        scale, bias = part("scale", channels), part("bias", channels)
        if self.train:
            wide = x.astype(jnp.float32)
            mean = wide.mean(tuple(range(x.ndim - 1)))
            variance = jnp.square(wide).mean(tuple(range(x.ndim - 1))) - jnp.square(mean)
        else:
            mean, variance = part("mean", channels), part("variance", channels)
        scale = scale * lax.rsqrt(jnp.maximum(variance, 0) + 1e-5)
        return x * scale.astype(x.dtype) + (bias - mean * scale).astype(x.dtype)

    def attention(
        self,
        name: str,
        x: jax.Array,
        heads: int,
        mask: jax.Array | None = None,
        context: jax.Array | None = None,
        bias: bool = True,
    ) -> jax.Array:
        """Attention of [B, T, C] to itself or to `context` [B, S, C'], and a projection back."""
        part, width, source = self / name, x.shape[-1], x if context is None else context
        q = nn.split_heads(part.dense("q", x, width, bias), heads)
        k, v = (nn.split_heads(part.dense(kind, source, width, bias), heads) for kind in "kv")
        return part.dense("out", nn.merge_heads(nn.attention(q, k, v, mask)), width, bias)

    def transformer(self, x: jax.Array, heads: int, hidden: int, mask: jax.Array | None = None) -> jax.Array:
        """Attention and a feed-forward block, each after a layer norm and beside the stream [B, T, C]."""
        x = x + self.attention("attention", self.layer_norm("norm1", x), heads, mask)
        return x + self.mlp("mlp", self.layer_norm("norm2", x), hidden, x.shape[-1])


def floats(*shape: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    """Returns an abstract array of floating-point numbers."""
    return jax.ShapeDtypeStruct(shape, dtype)


def ints(*shape: int) -> jax.ShapeDtypeStruct:
    """Returns an abstract array of int32."""
    return jax.ShapeDtypeStruct(shape, jnp.int32)


def images(batch: int, side: int, channels: int = 3, dtype: Any = jnp.bfloat16) -> jax.ShapeDtypeStruct:
    """Returns abstract square images [B, side, side, channels]."""
    return jax.ShapeDtypeStruct((batch, side, side, channels), dtype)


def abstract_params(apply: Apply, *inputs: Any, train: bool = False) -> nn.Params:
    """Returns the shapes of the parameters that `apply(p, *inputs)` asks for."""
    params: nn.Params = {}
    jax.eval_shape(partial(apply, Weights(params, recording=True, train=train)), *inputs)
    return params


def infer(apply: Apply, *inputs: Any, dtype: Any = jnp.bfloat16) -> Built:
    """Returns `(fun, args)` of `fun(params, *inputs)`, the floating-point parameters stored as `dtype`."""

    def fun(params: nn.Params, *inputs: Any) -> Any:
        return apply(Weights(params), *inputs)

    def stored(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, dtype if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf.dtype)

    return fun, (jax.tree.map(stored, abstract_params(apply, *inputs)), *inputs)


def train(loss: Apply, *inputs: Any, optimizer: str = "adam", clipped: bool = False) -> Built:
    """Returns `(fun, args)` of a training step on float32 parameters, whose results begin with the new ones.

    Args:
      loss: a function of `Weights` and `inputs`, with a scalar result.
      inputs: shapes of the batch.
      optimizer: "adam", whose state is the second argument and result, or "sgd".
      clipped: whether Adam's gradients are clipped by their norm.
    """
    params = abstract_params(loss, *inputs, train=True)

    def loss_of(params: nn.Params, *batch: Any) -> jax.Array:
        return loss(Weights(params, train=True), *batch)

    if optimizer == "sgd":
        return sgd_step(loss_of, params, *inputs)
    return adam_step(loss_of, params, *inputs, clipped=clipped)


def classified(apply: Apply) -> Apply:
    """Returns the loss `(p, x, labels)`: the mean cross-entropy of `labels` under the logits `apply(p, x)`."""
    return lambda p, x, labels: nn.cross_entropy(apply(p, x), labels)


def predicted(apply: Apply) -> Apply:
    """Returns the loss `(p, tokens [B, T + 1])`: the mean cross-entropy of each token given those before it."""
    return lambda p, tokens: nn.cross_entropy(apply(p, tokens[:, :-1]), tokens[:, 1:])


def squared(apply: Apply) -> Apply:
    """Returns the loss `(p, *inputs, wanted)`: the mean squared error of `apply(p, *inputs)`."""
    return lambda p, *inputs: jnp.square(apply(p, *inputs[:-1]).astype(jnp.float32) - inputs[-1]).mean()


def random_params(shapes: Any, seed: int = 0) -> Any:
    """Returns arrays of these shapes, for tests: weights of variance 1 ÷ fan-in, scales of one, biases of zero.

    What an optimizer keeps starts at zero. Mean squares of norms, masses of samplers and integers are one.
    """
    ones = {"scale", "variance", "inverse_mass_matrix", "mass_matrix_sqrt", "mass_matrix_sqrt_inv"}
    zeros = {"mean", "square", "mu", "nu", "v", "v_row", "v_col"}
    leaves, tree = jax.tree_util.tree_flatten_with_path(shapes)
    made = []
    for number, (path, leaf) in enumerate(leaves):
        names = [str(getattr(entry, "key", getattr(entry, "name", ""))) for entry in path]
        last = names[-1] if names else ""
        is_square = any(name.endswith("var_ema") for name in names)
        if ones & set(names[-2:]) or is_square or not jnp.issubdtype(leaf.dtype, jnp.inexact):
            made.append(jnp.ones(leaf.shape, leaf.dtype))
        elif last in ("b", "bias") or zeros & set(names):
            made.append(jnp.zeros(leaf.shape, leaf.dtype))
        else:
            key = jax.random.fold_in(jax.random.key(seed), number)
            fan_in = leaf.size // leaf.shape[-1] if leaf.ndim else 1
            made.append(jax.random.normal(key, leaf.shape, leaf.dtype) / max(fan_in, 1) ** 0.5)
    return jax.tree.unflatten(tree, made)


def max_pool2(x: jax.Array) -> jax.Array:
    """Maximum of 2 × 2 windows of [B, height, width, C], the sides even."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).max((2, 4))


def upsample2(x: jax.Array) -> jax.Array:
    """Repeats each pixel of [B, height, width, C] twice along both sides."""
    return x.repeat(2, axis=1).repeat(2, axis=2)


def waves(x: jax.Array, octaves: int) -> jax.Array:
    """[…, C] to its sines and cosines at rising frequencies, […, C × 2 × octaves] (NeRF, arXiv 2003.08934)."""
    angles = (x[..., None] * (2.0 ** jnp.arange(octaves) * jnp.pi)).reshape(*x.shape[:-1], -1)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
