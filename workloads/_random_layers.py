"""The layers that random programs are made of: each kind of mixer and feed, and the networks that hold them.

In the shapes, `B` is the batch, `T` a length, `C` a number of features, `N` of nodes, `E` of edges.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from memplan.workloads import _layers as nn
from memplan.workloads._weights import Weights, max_pool2, upsample2
from memplan.workloads.moe import mixture

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": jax.nn.relu,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "tanh": jnp.tanh,
}

# Steps of a fixed-point iteration at most, and the change at which it ends.
_MOST_STEPS, _CHANGE = 6, 1e-3

_EXPERTS = 4


@dataclass(frozen=True)
class Architecture:
    """What is drawn for a program.

    Attributes:
      family: as of `Workload`.
      pattern: mixer and feed of each layer, which repeat.
      repeats: how often the pattern occurs.
      width: features of the stream; channels of the first stage on images.
      heads: of attention; they divide `width`.
      expansion: features inside a feed, over `width`.
      batch: samples at once.
      length: of a sequence, or side of an image.
      vocab: number of tokens; 0 where the input is features.
      norm: "layer" or "rms".
      norm_first: whether a block's norm is before it, or after its residual.
      activation: one of `ACTIVATIONS`.
      causal: whether attention sees the past alone.
      layout: whether repeats are "unrolled", "scanned" in one loop, or "shared": unrolled with the same weights.
      skips: whether later layers take the results of early ones: "none", "added" or "concatenated".
      dtype: of activations.
      optimizer: of a training step, "sgd" or "adam"; None for inference.
      clipped: whether Adam's gradients are clipped.
      variant: chooses among small differences of blocks.
    """

    family: str
    pattern: tuple[tuple[str, str], ...]
    repeats: int
    width: int
    heads: int
    expansion: int
    batch: int
    length: int
    vocab: int
    norm: str
    norm_first: bool
    activation: str
    causal: bool
    layout: str
    skips: str
    dtype: str
    optimizer: str | None
    clipped: bool
    variant: int

    @property
    def act(self) -> Callable[[jax.Array], jax.Array]:
        """The activation."""
        return ACTIVATIONS[self.activation]

    def is_variant(self, bit: int) -> bool:
        """Returns one of 16 independent choices."""
        return bool(self.variant >> bit & 1)


# ---- mixers: [B, T, C] to [B, T, C], across positions


def attention(a: Architecture, p: Weights, x: jax.Array) -> jax.Array:
    """Softmax attention, perhaps causal."""
    mask = nn.causal_mask(x.shape[1]) if a.causal else None
    return p.attention("attention", x, a.heads, mask, bias=a.is_variant(0))


def convolution(a: Architecture, p: Weights, x: jax.Array) -> jax.Array:
    """A short convolution, of each channel alone or of all, with a gate in one variant."""
    y = p.conv("conv", x, x.shape[-1], 3 if a.is_variant(1) else 7, groups=x.shape[-1] if a.is_variant(2) else 1)
    return y * jax.nn.sigmoid(p.dense("gate", x, x.shape[-1])) if a.is_variant(3) else a.act(y)


def fft(a: Architecture, p: Weights, x: jax.Array) -> jax.Array:
    """Fourier mixing (FNet, arXiv 2105.03824), or a convolution as long as the sequence (Hyena, arXiv 2302.10866)."""
    wide, length = x.astype(jnp.float32), x.shape[1]
    if a.is_variant(4):
        return jnp.fft.fft2(wide, axes=(1, 2)).real.astype(x.dtype)
    spectrum = jnp.fft.rfft(p("filter", length, x.shape[-1]).astype(jnp.float32), 2 * length, axis=0)
    mixed = jnp.fft.irfft(jnp.fft.rfft(wide, 2 * length, axis=1) * spectrum, axis=1)[:, :length]
    return mixed.astype(x.dtype) * jax.nn.sigmoid(p.dense("gate", x, x.shape[-1]))


def recurrence(a: Architecture, p: Weights, x: jax.Array) -> jax.Array:
    """A loop over time: a gated linear state, or one with a product by a matrix."""
    width = x.shape[-1]
    keep, new = jax.nn.sigmoid(p.dense("keep", x, width)), p.dense("new", x, width)
    w = p("state", width, width).astype(x.dtype) if a.is_variant(5) else None

    def step(h: jax.Array, at: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        keep, new = at
        h = keep * h + (1 - keep) * (new if w is None else jnp.tanh(new + h @ w))
        return h, h

    steps = (jnp.swapaxes(keep, 0, 1), jnp.swapaxes(new, 0, 1))
    return jnp.swapaxes(lax.scan(step, jnp.zeros_like(x[:, 0]), steps)[1], 0, 1)


def tokens(a: Architecture, p: Weights, x: jax.Array) -> jax.Array:
    """Dense layers along positions (MLP-Mixer, arXiv 2105.01601)."""
    mixed = p.mlp("tokens", jnp.swapaxes(x, 1, 2), x.shape[1] // 2, x.shape[1], act=a.act)
    return jnp.swapaxes(mixed, 1, 2)


def gather(a: Architecture, p: Weights, x: jax.Array) -> jax.Array:
    """The half of the positions with the highest scores through a layer (mixture of depths, arXiv 2404.02258)."""
    scores = p.dense("score", x, 1)[..., 0].astype(jnp.float32)
    chosen = jnp.argsort(-lax.stop_gradient(scores), axis=1)[:, : x.shape[1] // 2]
    picked = jnp.take_along_axis(x, chosen[..., None], axis=1)
    weights = jax.nn.sigmoid(jnp.take_along_axis(scores, chosen, axis=1))[..., None].astype(x.dtype)
    done = p.mlp("mlp", picked, x.shape[-1], x.shape[-1], act=a.act) * weights
    return jnp.zeros_like(x).at[jnp.arange(len(x))[:, None], chosen].add(done)


def refine(a: Architecture, p: Weights, x: jax.Array) -> jax.Array:
    """A fixed point by a loop that ends when little changes; its gradient is that of one step (arXiv 2103.12803)."""
    w = p("w", x.shape[-1], x.shape[-1]).astype(x.dtype)

    def step(w: jax.Array, x: jax.Array, z: jax.Array) -> jax.Array:
        return jnp.tanh(0.5 * (z @ w) + x)

    def goes_on(state: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        return (state[0] < _MOST_STEPS) & (state[2] > _CHANGE)

    fixed_w, fixed_x = lax.stop_gradient(w), lax.stop_gradient(x)

    def body(state: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        new = step(fixed_w, fixed_x, state[1])
        return state[0] + 1, new, jnp.abs(new - state[1]).max().astype(jnp.float32)

    start = (jnp.int32(0), jnp.zeros_like(fixed_x), jnp.float32(jnp.inf))
    return step(w, x, lax.while_loop(goes_on, body, start)[1])


# ---- feeds: [B, T, C] to [B, T, C], position by position


def mlp(a: Architecture, p: Weights, x: jax.Array) -> jax.Array:
    """Two dense layers."""
    return p.mlp("mlp", x, a.expansion * x.shape[-1], x.shape[-1], act=a.act)


def gated(a: Architecture, p: Weights, x: jax.Array) -> jax.Array:
    """A gated feed-forward block (arXiv 2002.05202)."""
    hidden = a.expansion * x.shape[-1]
    gate, up = (p.dense(name, x, hidden, bias=False) for name in ("gate", "up"))
    return p.dense("down", a.act(gate) * up, x.shape[-1], bias=False)


def experts(a: Architecture, p: Weights, x: jax.Array) -> jax.Array:
    """Each position through two of several experts, see `moe.mixture`."""
    width, hidden = x.shape[-1], a.expansion * x.shape[-1] // 2
    params = {
        "gate": p("gate", width, _EXPERTS),
        "up": p("up", _EXPERTS, width, hidden),
        "down": p("down", _EXPERTS, hidden, width),
    }
    return mixture(params, x, max(1, 2 * x.shape[1] // _EXPERTS))[0]


def cond(a: Architecture, p: Weights, x: jax.Array) -> jax.Array:
    """One of two blocks, which the mean of the input chooses: the full one, or a cheap one."""
    w = p("cheap", x.shape[-1], x.shape[-1]).astype(x.dtype)
    return lax.cond(x.mean() > 0, partial(gated, a, p), lambda x: x @ w, x)


MIXERS: dict[str, Callable[[Architecture, Weights, jax.Array], jax.Array]] = {
    "attention": attention,
    "convolution": convolution,
    "fft": fft,
    "recurrence": recurrence,
    "tokens": tokens,
    "gather": gather,
    "refine": refine,
}
FEEDS: dict[str, Callable[[Architecture, Weights, jax.Array], jax.Array]] = {
    "mlp": mlp,
    "gated": gated,
    "experts": experts,
    "cond": cond,
    "none": lambda a, p, x: jnp.zeros_like(x),
}


# ---- networks


def norm(a: Architecture, p: Weights, name: str, x: jax.Array) -> jax.Array:
    """The norm of this architecture over the last axis."""
    return p.layer_norm(name, x) if a.norm == "layer" else p.rms_norm(name, x)


def beside(a: Architecture, p: Weights, name: str, block: Callable[..., jax.Array], x: jax.Array) -> jax.Array:
    """A block with its norm and residual."""
    part = p / name
    if a.norm_first:
        return x + block(a, part, norm(a, part, "norm", x))
    return norm(a, part, "norm", x + block(a, part, x))


def group(a: Architecture, p: Weights, x: jax.Array) -> jax.Array:
    """The layers of a pattern, once."""
    for number, (mixer, feed) in enumerate(a.pattern):
        x = beside(a, p, f"mix{number}", MIXERS[mixer], x)
        if feed != "none":
            x = beside(a, p, f"feed{number}", FEEDS[feed], x)
    return x


def repeated(a: Architecture, p: Weights, block: Callable[..., jax.Array], x: jax.Array) -> jax.Array:
    """All repeats of a block on the stream, in the layout of the architecture, with skips if it is unrolled."""
    if a.layout == "scanned":
        return p.layers("layers", partial(block, a), x, a.repeats, scanned=True)
    kept: list[jax.Array] = []
    for number in range(a.repeats):
        if a.skips != "none" and number > a.repeats // 2 and kept:
            early = kept.pop()
            joined = jnp.concatenate([x, early], axis=-1)
            x = x + early if a.skips == "added" else p.dense(f"join{number}", joined, x.shape[-1])
        elif number < a.repeats // 2:
            kept.append(x)
        x = block(a, p / ("shared" if a.layout == "shared" else f"layer{number}"), x)
    return x


def sequence(a: Architecture, p: Weights, x: jax.Array) -> jax.Array:
    """Ids [B, T] to float32 logits [B, T, vocab], or features [B, T, C] to [B, T, C]."""
    dtype = jnp.dtype(a.dtype)
    if a.vocab:
        x = p.embed("embed", x, a.vocab, a.width, dtype)
    x = norm(a, p, "last", repeated(a, p, group, x))
    if not a.vocab:
        return p.dense("out", x, a.width)
    return p.dense("logits", x, a.vocab, bias=False).astype(jnp.float32)


def image_block(a: Architecture, p: Weights, x: jax.Array) -> jax.Array:
    """Convolutions beside [B, H, W, C]: two plain ones, a bottleneck, or an inverted one of each channel."""
    width = x.shape[-1]

    def normed(name: str, y: jax.Array) -> jax.Array:
        return p.batch_norm(name, y) if a.is_variant(0) else p.group_norm(name, y, 4)

    kind = a.variant >> 1 & 3
    if kind == 1:
        y = a.act(normed("norm1", p.conv("narrow", x, width // 2, 1)))
        y = a.act(normed("norm2", p.conv("inner", y, width // 2)))
        y = normed("norm3", p.conv("widen", y, width, 1))
    elif kind == 2:
        inner = width * a.expansion
        y = a.act(normed("norm1", p.conv("widen", x, inner, 1)))
        y = a.act(normed("norm2", p.conv("each", y, inner, groups=inner)))
        y = normed("norm3", p.conv("narrow", y, width, 1))
    else:
        y = a.act(normed("norm1", p.conv("conv1", x, width)))
        y = normed("norm2", p.conv("conv2", y, width))
    if a.is_variant(4):  # squeeze and excitation
        y = y * jax.nn.sigmoid(p.mlp("squeeze", y.mean((1, 2)), max(1, width // 4), width, act=a.act))[:, None, None]
    return a.act(x + y)


def stage_of(a: Architecture, p: Weights, x: jax.Array) -> jax.Array:
    """The blocks of a stage."""
    for number in range(1 + a.repeats // 2):
        x = image_block(a, p / ("shared" if a.layout == "shared" else f"block{number}"), x)
    return x


def convnet(a: Architecture, p: Weights, x: jax.Array) -> jax.Array:
    """Images [B, H, W, 3] to float32 logits [B, 10]."""
    x = p.conv("stem", x, a.width)
    for stage in range(2 + a.is_variant(5)):
        if stage:
            x = p.conv(f"down{stage}", x, 2 * x.shape[-1], stride=2) if a.is_variant(6) else max_pool2(x)
        x = stage_of(a, p / f"stage{stage}", x)
    return p.dense("logits", x.mean((1, 2)), 10).astype(jnp.float32)


def unet(a: Architecture, p: Weights, x: jax.Array) -> jax.Array:
    """Images [B, H, W, 3] to as many: stages that halve the image, and as many back with skips between."""
    kept: list[jax.Array] = []
    x = p.conv("stem", x, a.width)
    for stage in range(2):
        x = stage_of(a, p / f"down{stage}", x)
        kept.append(x)
        x = p.conv(f"halve{stage}", x, 2 * x.shape[-1], stride=2)
    x = stage_of(a, p / "middle", x)
    if a.is_variant(5):
        b, h, w, c = x.shape
        x = x + p.attention("attention", x.reshape(b, h * w, c), a.heads).reshape(x.shape)
    for stage in (1, 0):
        early = kept.pop()
        x = p.conv(f"double{stage}", upsample2(x), early.shape[-1])
        joined = x + early if a.skips == "added" else jnp.concatenate([x, early], axis=-1)
        x = stage_of(a, p / f"up{stage}", p.conv(f"join{stage}", joined, early.shape[-1], 1))
    return p.conv("out", x, 3)


def graph(a: Architecture, p: Weights, x: jax.Array, senders: jax.Array, receivers: jax.Array) -> jax.Array:
    """Nodes [N, C] and edges [E] between them to nodes: messages are gathered, made, and summed where they go."""

    def step(a: Architecture, p: Weights, x: jax.Array) -> jax.Array:
        y = norm(a, p, "norm", x)
        message = y[senders]
        if a.is_variant(0):
            message = a.act(p.dense("message", jnp.concatenate([message, y[receivers]], axis=-1), x.shape[-1]))
        if a.is_variant(1):
            message = message * jax.nn.sigmoid(p.dense("weight", message, 1))
        summed = jnp.zeros_like(x).at[receivers].add(message)
        return x + p.mlp("update", jnp.concatenate([y, summed], axis=-1), a.expansion * a.width, a.width, act=a.act)

    return p.dense("out", repeated(a, p, step, x), a.width)


def num_tables(a: Architecture) -> int:
    """Returns the number of a recommender's tables of embeddings."""
    return 4 + a.variant % 9


def recommender(a: Architecture, p: Weights, x: jax.Array, ids: jax.Array) -> jax.Array:
    """Features [B, 16] and ids [B, tables] to scores [B, 1]: lookups, products of pairs or cross layers, an MLP."""
    dtype, width = jnp.dtype(a.dtype), max(8, a.width // 8)
    found = [p.embed(f"table{i}", ids[:, i], a.vocab or 4000, width, dtype) for i in range(ids.shape[1])]
    found.append(p.mlp("bottom", x, a.width, width, act=a.act))
    stacked = jnp.stack(found, axis=1)
    flat = stacked.reshape(len(x), -1)
    if a.is_variant(4):  # DLRM, arXiv 1906.00091
        pairs = jnp.einsum("bic,bjc->bij", stacked, stacked).reshape(len(x), -1)
        flat = jnp.concatenate([flat, pairs], axis=-1)
    else:  # DCN, arXiv 2008.13535
        first = flat
        for number in range(a.repeats):
            flat = first * p.dense(f"cross{number}", flat, first.shape[-1]) + flat
    hidden = [a.width * a.expansion // 2] * a.repeats
    return p.mlp("top", flat, *hidden, 1, act=a.act)
