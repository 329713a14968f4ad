"""Convolutional networks: normalisation, classifiers, kernels that are sums or orthogonal, and attacks on them."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from memplan.workloads import _layers as nn
from memplan.workloads._weights import Weights, classified, floats, images, infer, ints, max_pool2, train, upsample2
from memplan.workloads.registry import Built, workload

FAMILY = "convnet"


def evo_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, rate: jax.Array, groups: int) -> jax.Array:
    """EvoNorm-S0 of [B, height, width, C]: `x sigmoid(rate x)` over the standard deviation of groups of channels."""
    wide = x.astype(jnp.float32)
    grouped = wide.reshape(*x.shape[:-1], groups, -1)
    variance = jnp.broadcast_to(grouped.var((1, 2, 4), keepdims=True), grouped.shape).reshape(x.shape)
    y = wide * jax.nn.sigmoid(rate * wide) * lax.rsqrt(variance + 1e-5)
    return (y * scale + bias).astype(x.dtype)


def evo_block(p: Weights, x: jax.Array, width: int, stride: int = 1) -> jax.Array:
    """A residual block with EvoNorm-S0 in place of normalisation and activation."""

    def norm(name: str, y: jax.Array) -> jax.Array:
        part, c = p / name, y.shape[-1]
        return evo_norm(y, part("scale", c), part("bias", c), part("rate", c), math.gcd(c, 8))

    y = norm("norm2", p.conv("conv2", norm("norm1", p.conv("conv1", x, width, stride=stride)), width))
    return y + (x if stride == 1 and x.shape[-1] == width else p.conv("skip", x, width, 1, stride))


def small_resnet(p: Weights, x: jax.Array, widths: tuple[int, ...], depth: int) -> jax.Array:
    """Images, or volumes, [B, …, C] to pooled features [B, the last width]; basic blocks with batch normalisation."""

    def block(p: Weights, x: jax.Array, width: int, stride: int) -> jax.Array:
        y = jax.nn.relu(p.batch_norm("norm1", p.conv("conv1", x, width, stride=stride)))
        y = p.batch_norm("norm2", p.conv("conv2", y, width))
        skip = x if stride == 1 and x.shape[-1] == width else p.conv("skip", x, width, 1, stride)
        return jax.nn.relu(y + skip)

    x = jax.nn.relu(p.batch_norm("norm", p.conv("stem", x, widths[0])))
    for stage, width in enumerate(widths):
        for index in range(depth):
            x = block(p / f"block{stage}_{index}", x, width, 2 if stage and not index else 1)
    return x.astype(jnp.float32).mean(tuple(range(1, x.ndim - 1)))


@workload(
    "ResNet-18 with EvoNorm-S0, one Adam step on 32 images of 128 × 128, mixed precision",
    family=FAMILY,
    source="Liu et al., arXiv 2004.02967 (EvoNorm)",
    kind="training",
    donate_argnums=(0, 1),
)
def evonorm_train(tiny: bool = False, batch: int = 32) -> Built:
    widths, depth, side = ((4, 8), 1, 8) if tiny else ((64, 128, 256, 512), 2, 128)

    def apply(p: Weights, x: jax.Array) -> jax.Array:
        x = p.conv("stem", x, widths[0])
        for stage, width in enumerate(widths):
            for index in range(depth):
                x = evo_block(p / f"block{stage}_{index}", x, width, 2 if stage and not index else 1)
        return p.dense("classes", x.astype(jnp.float32).mean((1, 2)), 10)

    return train(classified(apply), images(batch, side), ints(batch))


def cosines(x: jax.Array, y: jax.Array) -> jax.Array:
    """Cosines between rows [N, C] and rows [M, C]: [N, M] float32."""
    x, y = (z.astype(jnp.float32) for z in (x, y))
    x, y = (z * lax.rsqrt(jnp.square(z).sum(-1, keepdims=True) + 1e-12) for z in (x, y))
    return x @ y.T


@workload(
    "ResNet-18 whose classes are 1000 fixed vectors of equal angles, one SGD step on 64 images of 64 × 64",
    family=FAMILY,
    source="Shen et al., arXiv 2303.11637 (equiangular basis vectors)",
    kind="training",
    donate_argnums=(0,),
)
def ebv_train(tiny: bool = False, batch: int = 64) -> Built:
    widths, depth, side, classes, width = ((4, 8), 1, 8, 5, 4) if tiny else ((64, 128, 256, 512), 2, 64, 1000, 1000)

    def loss(p: Weights, x: jax.Array, labels: jax.Array, vectors: jax.Array) -> jax.Array:
        features = p.dense("project", small_resnet(p, x, widths, depth), width)
        return nn.cross_entropy(cosines(features, vectors) / 0.07, labels)

    return train(loss, images(batch, side), ints(batch), floats(classes, width), optimizer="sgd")


def weighted_contrast(similarity: jax.Array, weights: jax.Array) -> jax.Array:
    """Contrastive loss of [B, B] similarities whose pairs are alike by weights [B, B], of rows that sum to 1."""
    others = similarity - 1e30 * jnp.eye(len(similarity))
    return -(weights * (similarity - jax.nn.logsumexp(others, axis=1, keepdims=True))).sum(1).mean()


@workload(
    "3-D ResNet-18 on 4 volumes of 121³, contrast weighted by anatomy, one SGD step, mixed precision",
    family=FAMILY,
    source="Barbano et al., arXiv 2408.07079 (AnatCL)",
    kind="training",
    donate_argnums=(0,),
)
def anatcl_train(tiny: bool = False, batch: int = 4) -> Built:
    widths, depth, side = ((4, 8), 1, 5) if tiny else ((32, 64, 128, 256), 2, 121)

    def loss(p: Weights, x: jax.Array, anatomy: jax.Array) -> jax.Array:
        features = p.dense("project", small_resnet(p, x, widths, depth), 8 if tiny else 128)
        apart = jnp.square(anatomy[:, None] - anatomy[None]).sum(-1)
        weights = jax.nn.softmax(-apart - 1e30 * jnp.eye(len(apart)))
        return weighted_contrast(cosines(features, features) / 0.1, weights)

    volumes = floats(batch, side, side, side, 1, dtype=jnp.bfloat16)
    return train(loss, volumes, floats(batch, 7), optimizer="sgd")


def kronecker_sum(left: jax.Array, right: jax.Array) -> jax.Array:
    """Kernel [k, k, n a, n b]: the sum of Kronecker products of `left` [n, n, n] and `right` [n, k, k, a, b]."""
    n, k, a, b = left.shape[1], right.shape[1], right.shape[-2], right.shape[-1]
    return jnp.einsum("ixy,ihwab->hwxayb", left, right).reshape(k, k, n * a, n * b)


@workload(
    "8 convolutions of 256 channels whose kernels are sums of 4 Kronecker products, on 16 images of 64 × 64, bfloat16",
    family=FAMILY,
    source="Grassucci et al., arXiv 2110.04176 (PHNN)",
)
def phnn(tiny: bool = False, batch: int = 16) -> Built:
    width, n, layers, side = (8, 2, 2, 8) if tiny else (256, 4, 8, 64)

    def apply(p: Weights, x: jax.Array) -> jax.Array:
        x = p.conv("first", x, width)
        for layer in range(layers):
            left, right = p(f"left{layer}", n, n, n), p(f"right{layer}", n, 3, 3, width // n, width // n)
            x = x + jax.nn.relu(nn.conv2d(kronecker_sum(left, right), x))
        return x.mean((1, 2))

    return infer(apply, images(batch, side))


def preconditioned(x: jax.Array, gradient: jax.Array, damping: float) -> jax.Array:
    """Gradient [C, O] of a dense layer, divided by the damped second moment of its inputs [N, C]."""
    moment = x.T @ x / x.shape[0] + damping * jnp.eye(x.shape[1])
    return jnp.linalg.solve(moment, gradient)


@workload(
    "patches of 64 images of 224 × 224 into 768, the first layer's SGD step divided by its inputs' moment, float32",
    family=FAMILY,
    source="Petersen et al., arXiv 2410.23970 (TrAct)",
    kind="training",
    donate_argnums=(0,),
)
def tract_train(tiny: bool = False, batch: int = 64) -> Built:
    side, patch, width, classes = (8, 4, 6, 3) if tiny else (224, 16, 768, 1000)

    def cut(x: jax.Array) -> jax.Array:
        n = side // patch
        return x.reshape(batch, n, patch, n, patch, 3).swapaxes(2, 3).reshape(batch, n * n, -1)

    def loss(p: Weights, x: jax.Array, labels: jax.Array) -> jax.Array:
        y = jax.nn.gelu(p.dense("patch", cut(x), width))
        return nn.cross_entropy(p.mlp("head", y.mean(1), width, classes), labels)

    _, (params, *inputs) = train(loss, images(batch, side, dtype=jnp.float32), ints(batch), optimizer="sgd")

    def step(params: nn.Params, x: jax.Array, labels: jax.Array) -> tuple[nn.Params, jax.Array]:
        value, grads = jax.value_and_grad(lambda params: loss(Weights(params, train=True), x, labels))(params)
        rows = cut(x).reshape(-1, patch * patch * 3)
        grads["patch"]["w"] = preconditioned(rows, grads["patch"]["w"], 0.1)
        return jax.tree.map(lambda p, g: p - 1e-2 * g, params, grads), value

    return step, (params, *inputs)


def info_nce(a: jax.Array, b: jax.Array, temperature: float = 0.5) -> jax.Array:
    """Contrastive loss of two views [B, C] of the same rows: each is to find its partner among all others."""
    both = jnp.concatenate([a, b])
    similarity = cosines(both, both) / temperature - 1e30 * jnp.eye(len(both))
    partners = (jnp.arange(len(both)) + len(a)) % len(both)
    return nn.cross_entropy(similarity, partners)


@workload(
    "ResNet-18 with a projection head, InfoNCE of 2 × 128 images of 32 × 32, one Adam step, mixed precision",
    family=FAMILY,
    source="Xue et al., arXiv 2403.11391 (projection head)",
    kind="training",
    donate_argnums=(0, 1),
)
def projection_head_train(tiny: bool = False, batch: int = 128) -> Built:
    widths, depth, side = ((4, 8), 1, 8) if tiny else ((64, 128, 256, 512), 2, 32)

    def loss(p: Weights, one: jax.Array, other: jax.Array) -> jax.Array:
        both = small_resnet(p, jnp.concatenate([one, other]), widths, depth)
        heads = p.mlp("head", both, widths[-1], 8 if tiny else 128, act=jax.nn.relu)
        return info_nce(*jnp.split(heads, 2))

    return train(loss, images(batch, side), images(batch, side))


def self_overlap(kernel: jax.Array) -> jax.Array:
    """Squared distance of a kernel's [k, k, C_in, C_out] overlaps with its shifts from those of an orthogonal one."""
    k, outputs = kernel.shape[0], kernel.shape[-1]
    filters = kernel.transpose(3, 0, 1, 2)
    overlaps = lax.conv_general_dilated(
        filters, kernel, (1, 1), [(k - 1, k - 1)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    wanted = jnp.zeros_like(overlaps).at[:, k - 1, k - 1, :].set(jnp.eye(outputs))
    return jnp.square(overlaps - wanted).sum()


@workload(
    "ResNet-18 with a penalty on overlapping filters, one SGD step on 64 images of 32 × 32, mixed precision",
    family=FAMILY,
    source="Wang et al., arXiv 1911.12207 (orthogonal convolutions)",
    kind="training",
    donate_argnums=(0,),
)
def orthoconv_train(tiny: bool = False, batch: int = 64) -> Built:
    widths, depth, side = ((4, 8), 1, 8) if tiny else ((64, 128, 256, 512), 2, 32)

    def loss(p: Weights, x: jax.Array, labels: jax.Array) -> jax.Array:
        logits = p.dense("classes", small_resnet(p, x, widths, depth), 10)
        kernels = [w for w in jax.tree.leaves(p.values) if w.ndim == 4 and w.shape[0] > 1]
        penalty = 0.0 if p.recording else sum(self_overlap(w) for w in kernels)
        return nn.cross_entropy(logits, labels) + 1e-2 * penalty

    return train(loss, images(batch, side), ints(batch), optimizer="sgd")


def mixed_loss(logits: jax.Array, labels: jax.Array, partners: jax.Array, share: jax.Array) -> jax.Array:
    """Cross-entropy of labels [B] and of their partners', weighted by `share` and the rest of it."""
    return share * nn.cross_entropy(logits, labels) + (1 - share) * nn.cross_entropy(logits, labels[partners])


@workload(
    "WideResNet on MixUp of 128 images of 32 × 32, one SGD step, and the geometry of its last features",
    family=FAMILY,
    source="Fisher et al., arXiv 2402.06171 (mixup and neural collapse)",
    kind="training",
    donate_argnums=(0,),
)
def mixup_train(tiny: bool = False, batch: int = 128) -> Built:
    widths, depth, side = ((4, 8), 1, 8) if tiny else ((160, 320, 640), 2, 32)

    def loss(p: Weights, x: jax.Array, labels: jax.Array, partners: jax.Array, share: jax.Array) -> jax.Array:
        mixed = share * x.astype(jnp.float32) + (1 - share) * x[partners].astype(jnp.float32)
        features = small_resnet(p, mixed.astype(x.dtype), widths, depth)
        return mixed_loss(p.dense("classes", features, 10), labels, partners, share)

    return train(loss, images(batch, side), ints(batch), ints(batch), floats(), optimizer="sgd")


def filled(x: jax.Array, known: jax.Array, levels: int) -> jax.Array:
    """Fills unknown pixels of [B, height, width, C] from means of larger windows; `known` [B, height, width, 1]."""
    weighted, weights, steps = x * known, known, []
    for _ in range(levels):
        steps.append((weighted, weights))
        weighted, weights = (
            lax.reduce_window(y, jnp.zeros((), y.dtype), lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
            for y in (weighted, weights)
        )
    found = weighted / jnp.maximum(weights, 1)
    for weighted, weights in reversed(steps):
        found = jnp.where(weights > 0, weighted / jnp.maximum(weights, 1), upsample2(found))
    return found


@workload(
    "two U-Net branches on 4 images of 256 × 256 that fill each other's holes at 4 scales, bfloat16",
    family=FAMILY,
    source="Liu et al., arXiv 2007.06929 (mutual encoder-decoder inpainting)",
)
def mutual_inpainting(tiny: bool = False, batch: int = 4) -> Built:
    widths, side = ((4, 8), 8) if tiny else ((64, 128, 256, 512), 256)

    def branch(p: Weights, x: jax.Array) -> list[jax.Array]:
        left = []
        for level, width in enumerate(widths):
            x = jax.nn.silu(p.conv(f"down{level}", x, width))
            left.append(x)
            x = max_pool2(x) if level + 1 < len(widths) else x
        return left

    def apply(p: Weights, x: jax.Array, known: jax.Array) -> jax.Array:
        x = filled(x, known, 2)
        structure, texture = branch(p / "structure", x), branch(p / "texture", x * known)
        y = structure[-1] + texture[-1]
        for level in reversed(range(len(widths) - 1)):
            y = jnp.concatenate([upsample2(y), structure[level], texture[level]], axis=-1)
            y = jax.nn.silu(p.conv(f"up{level}", y, widths[level]))
        return known * x + (1 - known) * p.conv("last", y, 3)

    return infer(apply, images(batch, side), images(batch, side, 1))


def attacked(loss: Callable[[jax.Array], jax.Array], x: jax.Array, reach: float, step: float, steps: int) -> jax.Array:
    """Moves `x` so that `loss(x)` grows, by the signs of its gradients, to at most `reach` away (PGD, 1706.06083)."""

    def move(y: jax.Array, _: None) -> tuple[jax.Array, None]:
        y = y + step * jnp.sign(jax.grad(loss)(y))
        return jnp.clip(y, x - reach, x + reach), None

    return lax.scan(move, x, None, length=steps)[0]


@workload(
    "3 ResNet-20 against each other's weaknesses, 10 steps of attack in a loop, one SGD step on 128 images of 32 × 32",
    family=FAMILY,
    source="Yang et al., arXiv 2009.14720 (DVERGE)",
    kind="training",
    donate_argnums=(0,),
)
def dverge_train(tiny: bool = False, batch: int = 128) -> Built:
    widths, depth, side, models, steps = ((4,), 1, 8, 2, 2) if tiny else ((16, 32, 64), 3, 32, 3, 10)

    def features(p: Weights, model: int, x: jax.Array) -> jax.Array:
        return small_resnet(p / f"model{model}", x, widths, depth)

    def likeness(p: Weights, model: int, wanted: jax.Array, x: jax.Array) -> jax.Array:
        return -jnp.square(features(p, model, x) - wanted).sum()

    def loss(p: Weights, x: jax.Array, other: jax.Array, labels: jax.Array) -> jax.Array:
        total = jnp.zeros(())
        for model in range(models):
            if p.recording:
                (p / f"model{model}").dense("classes", features(p, model, x), 10)
                continue
            towards = partial(likeness, p, model, features(p, model, other))
            distilled = attacked(towards, x, 0.07, 0.01, steps)
            distilled = lax.stop_gradient(distilled)
            for rival in range(models):
                if rival != model:
                    logits = (p / f"model{rival}").dense("classes", features(p, rival, distilled), 10)
                    total += nn.cross_entropy(logits, labels)
        return total

    x = images(batch, side, dtype=jnp.float32)
    return train(loss, x, x, ints(batch), optimizer="sgd")


def square_distances(x: jax.Array, y: jax.Array) -> jax.Array:
    """Squared distances of rows [N, C] from rows [M, C], by one matrix product: [N, M]."""
    return jnp.square(x).sum(-1)[:, None] - 2 * x @ y.T + jnp.square(y).sum(-1)


def nearest(x: jax.Array, centres: jax.Array) -> jax.Array:
    """Numbers of the nearest centres [K, C] of rows [N, C], int32 [N]."""
    return jnp.argmin(square_distances(x, centres), axis=-1)


def k_means(x: jax.Array, centres: jax.Array, steps: int) -> jax.Array:
    """Moves centres [K, C] to the means of the rows [N, C] nearest to them; one without rows stays (Lloyd 1982)."""

    def step(_: int, centres: jax.Array) -> jax.Array:
        owner = nearest(x, centres)
        sums = jax.ops.segment_sum(x, owner, len(centres))
        counts = jax.ops.segment_sum(jnp.ones(len(x)), owner, len(centres))[:, None]
        return jnp.where(counts > 0, sums / jnp.maximum(counts, 1), centres)

    return lax.fori_loop(0, steps, step, centres)


@workload(
    "stacked autoencoder of 10⁶ pixels of 12 bands, and 20 steps of k-means of their codes, float32",
    family="representation",
    source="Nagar et al., arXiv 2404.02180 (geological mapping by stacked autoencoders)",
)
def geological_sae(tiny: bool = False) -> Built:
    pixels, bands, hidden, code, clusters, steps = (8, 4, 6, 2, 2, 2) if tiny else (1_000_000, 12, 64, 3, 10, 20)

    def apply(p: Weights, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        codes = p.mlp("encoder", x, hidden, code, act=jax.nn.relu)
        again = p.mlp("decoder", codes, hidden, bands, act=jax.nn.relu)
        centres = k_means(codes, codes[:clusters], steps)
        return centres, nearest(codes, centres), jnp.square(again - x).mean()

    return infer(apply, floats(pixels, bands), dtype=jnp.float32)


@workload(
    "convolutional autoencoder with prototypes, distances of 256 images of 28 × 28 to 50, one Adam step, float32",
    family="representation",
    source="Li et al., arXiv 1710.04806 (case-based reasoning by prototypes)",
    kind="training",
    donate_argnums=(0, 1),
)
def prototypes_train(tiny: bool = False, batch: int = 256) -> Built:
    width, side, count, classes = (4, 8, 3, 2) if tiny else (32, 28, 50, 10)

    def loss(p: Weights, x: jax.Array, labels: jax.Array) -> jax.Array:
        y = jax.nn.sigmoid(p.conv("down2", jax.nn.sigmoid(p.conv("down1", x, width, stride=2)), 10, stride=2))
        code = y.reshape(x.shape[0], -1)
        apart = square_distances(code, p("prototypes", count, code.shape[1]))
        again = p.conv("up2", upsample2(jax.nn.sigmoid(p.conv("up1", upsample2(y), width))), 1)
        error = nn.cross_entropy(p.dense("classes", apart, classes), labels) + jnp.square(again - x).mean()
        return error + 0.05 * (apart.min(0).mean() + apart.min(1).mean())

    return train(loss, images(batch, side, 1, jnp.float32), ints(batch))
