"""Compressed networks and gradients: ranks, bonds, codebooks, rounded weights, and parts of a larger network."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from memplan.workloads import _layers as nn
from memplan.workloads import resnet
from memplan.workloads._weights import Weights, abstract_params, classified, floats, images, infer, ints, squared, train
from memplan.workloads.convnets import mobilenet_v2
from memplan.workloads.registry import Built, workload

FAMILY = "compression"


def projected_attention(q: jax.Array, k: jax.Array, v: jax.Array, to_k: jax.Array, to_v: jax.Array) -> jax.Array:
    """Attention of one query for each sequence to keys and values of lower rank.

    Args:
      q: [B, H, D] queries.
      k: [B, H, S, R] keys, each stored as its product with `to_k`.
      v: [B, H, S, R] values, each stored as its product with `to_v`.
      to_k: [H, D, R] orthonormal columns, the first ones most important.
      to_v: [H, D, R] likewise.

    Returns:
      [B, H, D].
    """
    logits = jnp.einsum("bhd,hdr,bhsr->bhs", q, to_k, k) * q.shape[-1] ** -0.5
    weights = jax.nn.softmax(logits.astype(jnp.float32)).astype(q.dtype)
    return jnp.einsum("bhs,bhsr,hdr->bhd", weights, v, to_v)


@workload(
    "decode attention of 32 layers, caches of 32 heads × 2048 × 128 cut to ranks of 32 to 128, bfloat16",
    family=FAMILY,
    source="Lin et al., arXiv 2410.14731 (MatryoshkaKV)",
)
def matryoshka_kv(tiny: bool = False) -> Built:
    layers, heads, length, width = (2, 2, 4, 8) if tiny else (32, 32, 2048, 128)
    ranks = [width if layer % 4 == 0 else width >> (1 + layer % 2) for layer in range(layers)]

    def fun(params: list[Any], x: jax.Array, caches: list[Any]) -> jax.Array:
        for layer, cache in zip(params, caches, strict=True):
            q = jnp.einsum("bhd,hde->bhe", x, layer["q"])
            x = x + projected_attention(q, cache["k"], cache["v"], layer["to_k"], layer["to_v"])
        return x

    def abstract(*shape: int) -> jax.ShapeDtypeStruct:
        return floats(*shape, dtype=jnp.bfloat16)

    to_rank = [abstract(heads, width, rank) for rank in ranks]
    params = [{"q": abstract(heads, width, width), "to_k": a, "to_v": a} for a in to_rank]
    caches = [{name: abstract(1, heads, length, rank) for name in "kv"} for rank in ranks]
    return fun, (params, abstract(1, heads, width), caches)


def matrix_product_operator(cores: list[jax.Array], x: jax.Array) -> jax.Array:
    """Multiplies rows by a matrix that is a chain of cores, one after another.

    Args:
      cores: [bond, in, out, bond] each, the outermost bonds 1.
      x: [B, product of the cores' `in`].

    Returns:
      [B, product of the cores' `out`].
    """
    batch = x.shape[0]
    state = x.reshape(batch, 1, -1, 1)  # batch, bond, inputs to come, outputs so far
    for core in cores:
        left, inputs, outputs, right = core.shape
        state = state.reshape(batch, left, inputs, -1, state.shape[-1])
        state = jnp.einsum("bliro,limn->bnrom", state, core.astype(x.dtype))
        state = state.reshape(batch, right, -1, state.shape[-2] * outputs)
    return state.reshape(batch, -1)


@workload(
    "6 linear layers of 4096 as chains of 3 cores with bond 64, on 512 rows, bfloat16",
    family=FAMILY,
    source="Tomut et al., arXiv 2401.14109 (CompactifAI)",
)
def compactifai(tiny: bool = False) -> Built:
    sides, bond, rows, layers = ((2, 3, 2), 3, 4, 2) if tiny else ((16, 16, 16), 64, 512, 6)
    bonds = (1, *(bond,) * (len(sides) - 1), 1)

    def apply(p: Weights, x: jax.Array) -> jax.Array:
        for layer in range(layers):
            shapes = zip(bonds[:-1], sides, sides, bonds[1:], strict=True)
            cores = [p(f"core{layer}_{site}", *shape) for site, shape in enumerate(shapes)]
            x = jax.nn.silu(matrix_product_operator(cores, x))
        return x

    width = 1
    for side in sides:
        width *= side
    return infer(apply, floats(rows, width, dtype=jnp.bfloat16))


def from_codebook(codes: jax.Array, codebook: jax.Array) -> jax.Array:
    """Weights [rows, groups] uint8 of numbers into a codebook [entries, width] to [rows, groups × width]."""
    return codebook[codes.astype(jnp.int32)].reshape(codes.shape[0], -1)


@workload(
    "8 linear layers of 4096 whose weights are bytes into codebooks of 256 × 8, on 64 rows, bfloat16",
    family=FAMILY,
    source="Yvinec et al., arXiv 2309.17361 (JLCM)",
)
def jlcm(tiny: bool = False) -> Built:
    width, group, entries, rows, layers = (8, 2, 4, 3, 2) if tiny else (4096, 8, 256, 64, 8)

    def apply(p: Weights, x: jax.Array) -> jax.Array:
        for layer in range(layers):
            codes = p(f"codes{layer}", width, width // group, dtype=jnp.uint8)
            x = jax.nn.gelu(x @ from_codebook(codes, p(f"codebook{layer}", entries, group).astype(x.dtype)))
        return x

    return infer(apply, floats(rows, width, dtype=jnp.bfloat16))


def ordered_dropout(u: jax.Array, v: jax.Array, x: jax.Array, rank: jax.Array) -> jax.Array:
    """Rows [B, I] times `u [I, R] vᵀ`, `v` [O, R], all but the first `rank` columns of both dropped."""
    kept = (jnp.arange(u.shape[1]) < rank).astype(x.dtype)
    return ((x @ u.astype(x.dtype)) * kept) @ v.astype(x.dtype).T


@workload(
    "perceptron of 4 low-rank layers of 1024, ranks drawn by ordered dropout, one SGD step on 256 rows, float32",
    family=FAMILY,
    source="Horváth et al., arXiv 2308.14929 (Maestro)",
    kind="training",
    donate_argnums=(0,),
)
def maestro_train(tiny: bool = False) -> Built:
    width, rank, layers, rows = (8, 4, 2, 4) if tiny else (1024, 256, 4, 256)

    def loss(p: Weights, x: jax.Array, wanted: jax.Array, seed: jax.Array) -> jax.Array:
        ranks = jax.random.randint(jax.random.key(seed), (layers,), 1, rank + 1)
        penalty = jnp.zeros(())
        for layer in range(layers):
            u, v = p(f"u{layer}", width, rank), p(f"v{layer}", width, rank)
            x = jax.nn.relu(ordered_dropout(u, v, x, ranks[layer]))
            # A group lasso on columns of both, so that late ranks vanish (section 3).
            penalty += (jnp.sqrt(jnp.square(u).sum(0) + 1e-9) + jnp.sqrt(jnp.square(v).sum(0) + 1e-9)).sum()
        return jnp.square(x - wanted).mean() + 1e-4 * penalty

    return train(loss, floats(rows, width), floats(rows, width), ints(), optimizer="sgd")


def top_k(gradient: jax.Array, count: int) -> jax.Array:
    """Returns `gradient` with all but its `count` largest entries zero."""
    flat = gradient.ravel()
    _, places = lax.top_k(jnp.abs(flat), count)
    return jnp.zeros_like(flat).at[places].set(flat[places]).reshape(gradient.shape)


def quantized(gradient: jax.Array, levels: int, key: jax.Array) -> jax.Array:
    """Rounds each entry at random to a multiple of norm ÷ levels; without bias (QSGD, arXiv 1610.02132)."""
    norm = jnp.sqrt(jnp.square(gradient).sum()) + 1e-12
    scaled = jnp.abs(gradient) / norm * levels
    rounded = jnp.floor(scaled + jax.random.uniform(key, gradient.shape))
    return jnp.sign(gradient) * norm * rounded / levels


def power_sgd(gradient: jax.Array, guess: jax.Array) -> jax.Array:
    """Approximates a matrix [M, N] by one step of subspace iteration from `guess` [N, rank] (arXiv 1905.13727)."""
    basis, _ = jnp.linalg.qr(gradient @ guess)
    return basis @ (basis.T @ gradient)


@workload(
    "gradients of ResNet-50 compressed by top-k, QSGD and PowerSGD in turn, layer by layer, float32",
    family=FAMILY,
    source="Alimohammadi et al., arXiv 2210.17357 (L-GreCo)",
)
def l_greco(tiny: bool = False) -> Built:
    config = resnet.TINY if tiny else resnet.ResNetConfig()
    gradients, _ = nn.abstract(resnet.init, config)

    def fun(gradients: Any, seed: jax.Array) -> Any:
        leaves, tree = jax.tree.flatten(gradients)
        found = []
        for layer, leaf in enumerate(leaves):
            if leaf.ndim < 2:
                found.append(leaf)
                continue
            key, matrix = jax.random.fold_in(jax.random.key(seed), layer), leaf.reshape(-1, leaf.shape[-1])
            if layer % 3 == 0:
                found.append(top_k(leaf, max(1, leaf.size // 100)))
            elif layer % 3 == 1:
                found.append(quantized(leaf, 16, key))
            else:
                guess = jax.random.normal(key, (matrix.shape[1], min(4, *matrix.shape)))
                found.append(power_sgd(matrix, guess).reshape(leaf.shape))
        return jax.tree.unflatten(tree, found)

    return fun, (gradients, ints())


@jax.custom_jvp
def rounded(x: jax.Array) -> jax.Array:
    """Rounds to whole numbers; its derivative is one."""
    return jnp.round(x)


rounded.defjvp(lambda primals, tangents: (rounded(primals[0]), tangents[0]))


def fake_quantized(w: jax.Array, bits: int) -> jax.Array:
    """Rounds each output channel of `w` […, C] to so many bits."""
    scale = jnp.abs(w).max(tuple(range(w.ndim - 1))) / (2 ** (bits - 1) - 1) + 1e-9
    return rounded(w / scale) * scale


@workload(
    "MobileNetV2 with weights of 8 and 4 bits, a Hessian-vector product of its loss on 8 images, float32",
    family=FAMILY,
    source="Schaefer et al., arXiv 2306.04879 (Hessian post-training quantization)",
)
def hessian_ptq(tiny: bool = False) -> Built:
    loss = classified(partial(mobilenet_v2, tiny))
    batch = images(2, 16) if tiny else images(8, 224), ints(2 if tiny else 8)
    params = abstract_params(loss, *batch, train=True)

    def fun(params: Any, direction: Any, x: jax.Array, labels: jax.Array) -> Any:
        def value(params: Any) -> jax.Array:
            leaves, tree = jax.tree.flatten(params)
            bits = [4 if leaf.ndim == 4 and leaf.shape[0] == 1 else 8 for leaf in leaves]
            pairs = zip(leaves, bits, strict=True)
            small = [fake_quantized(leaf, b) if leaf.ndim > 1 else leaf for leaf, b in pairs]
            return loss(Weights(jax.tree.unflatten(tree, small), train=True), x, labels)

        product = jax.jvp(jax.grad(value), (params,), (direction,))[1]
        return jax.tree.map(jnp.vdot, direction, product)

    return fun, (params, params, *batch)


def separable(x: jax.Array, along: jax.Array, across: jax.Array) -> jax.Array:
    """Convolves [B, height, width, C] with kernels [taps, C] along the height, then the width, each channel alone."""
    channels = x.shape[-1]
    for taps, axis in ((along, 0), (across, 1)):
        kernel = jnp.expand_dims(taps, (1 - axis, 2)).astype(x.dtype)
        x = lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=channels
        )
    return x


@workload(
    "convolutions on 16 images of 256 × 256 as pairs of 1-D waves of 7 taps, 8 layers of 64, bfloat16",
    family=FAMILY,
    source="Boukraichi et al., arXiv 2304.04964 (a-priori CNN compression)",
)
def a_priori_cnn(tiny: bool = False) -> Built:
    layers, width, taps, batch, side = (2, 4, 3, 2, 8) if tiny else (8, 64, 7, 16, 256)

    def apply(p: Weights, x: jax.Array) -> jax.Array:
        x = p.conv("first", x, width)
        for layer in range(layers):
            y = separable(x, p(f"along{layer}", taps, width), p(f"across{layer}", taps, width))
            x = x + jax.nn.relu(p.dense(f"mix{layer}", y, width))
        return p.dense("last", x, 1)

    return infer(apply, images(batch, side))


def product_of(matrices: list[jax.Array]) -> jax.Array:
    """The product of a deep linear network's layers, the first one rightmost."""
    product = matrices[0]
    for matrix in matrices[1:]:
        product = matrix @ product
    return product


@workload(
    "deep linear network of 6 layers of 512, one SGD step, and the singular values of all products, float32",
    family=FAMILY,
    source="Dang et al., arXiv 2301.00437 (neural collapse in deep linear networks)",
    kind="training",
    donate_argnums=(0,),
)
def nc_deep_linear_train(tiny: bool = False) -> Built:
    width, layers, rows = (4, 2, 6) if tiny else (512, 6, 1024)

    def loss(p: Weights, x: jax.Array, wanted: jax.Array) -> jax.Array:
        matrices = [p(f"layer{layer}", width, width) for layer in range(layers)]
        decay = sum(jnp.square(matrix).sum() for matrix in matrices)
        return jnp.square(x @ product_of(matrices).T - wanted).mean() + 5e-4 * decay

    step, (params, *inputs) = train(loss, floats(rows, width), floats(rows, width), optimizer="sgd")

    def fun(params: Any, x: jax.Array, wanted: jax.Array) -> Any:
        params, value = step(params, x, wanted)
        matrices = [params[f"layer{layer}"] for layer in range(layers)]
        values = [jnp.linalg.svd(product_of(matrices[:end]), compute_uv=False) for end in range(1, layers + 1)]
        return params, values, value

    return fun, (params, *inputs)


def entangled_weight(weight: jax.Array, shares: jax.Array, widths: tuple[tuple[int, int], ...]) -> jax.Array:
    """Sums the leading blocks of one weight [I, O], each padded to its size and weighted by its share [choices]."""
    total = jnp.zeros_like(weight)
    for share, (rows, columns) in zip(shares, widths, strict=True):
        total += share * jnp.pad(weight[:rows, :columns], ((0, weight.shape[0] - rows), (0, weight.shape[1] - columns)))
    return total


@workload(
    "supernet of 6 layers of 1024 whose widths share one weight, one SGD step on 256 rows, float32",
    family=FAMILY,
    source="Sukthanker et al., arXiv 2312.10440 (weight entanglement)",
    kind="training",
    donate_argnums=(0,),
)
def weight_entanglement_train(tiny: bool = False) -> Built:
    width, layers, rows = (8, 2, 4) if tiny else (1024, 6, 256)
    widths = tuple((width // a, width // b) for a in (1, 2, 4) for b in (1, 2, 4))

    def apply(p: Weights, x: jax.Array) -> jax.Array:
        for layer in range(layers):
            shares = jax.nn.softmax(p(f"choice{layer}", len(widths)))
            x = x + jax.nn.relu(x @ entangled_weight(p(f"w{layer}", width, width), shares, widths))
        return x

    return train(squared(apply), floats(rows, width), floats(rows, width), optimizer="sgd")
