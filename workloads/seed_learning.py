"""Ways to learn: representations that are compared, gradients of single samples, steps within steps, mixed weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from memplan.workloads import _layers as nn
from memplan.workloads._weights import Weights, abstract_params, floats, images, infer, ints, train
from memplan.workloads.registry import Built, workload
from memplan.workloads.seed_vision import cosines, square_distances
from memplan.workloads.vision_transformers import vit

Loss = Callable[..., jax.Array]


def sparse_layer(weights: jax.Array, sources: jax.Array, x: jax.Array) -> jax.Array:
    """Sums, for each output of [B, O], a few inputs of [B, I] that `sources` [O, K] names, times weights [O, K]."""
    return jnp.einsum("bok,ok->bo", x[:, sources], weights)


@workload(
    "perceptron of 4 sparse layers of 4096, 32 inputs each, per-sample gradients of 64 rows clipped, float32",
    family="representation",
    source="DAIN; per-sample gradients as in Abadi et al., arXiv 1607.00133",
    kind="training",
    donate_argnums=(0,),
)
def dain_train(tiny: bool = False) -> Built:
    width, fan, layers, rows = (6, 2, 2, 3) if tiny else (4096, 32, 4, 64)

    def loss(params: list[jax.Array], sources: list[jax.Array], x: jax.Array, wanted: jax.Array) -> jax.Array:
        x = x[None]
        for weights, places in zip(params, sources, strict=True):
            x = jax.nn.relu(sparse_layer(weights, places, x))
        return jnp.square(x[0] - wanted).mean()

    def step(params: Any, sources: Any, x: jax.Array, wanted: jax.Array) -> tuple[Any, jax.Array]:
        values, grads = jax.vmap(jax.value_and_grad(loss), (None, None, 0, 0))(params, sources, x, wanted)
        return jax.tree.map(lambda p, g: p - 1e-2 * g, params, clipped_mean(grads, 1.0)), values.mean()

    params, places = [floats(width, fan)] * layers, [ints(width, fan)] * layers
    return step, (params, places, floats(rows, width), floats(rows, width))


def clipped_mean(grads: Any, most: float) -> Any:
    """Averages gradients of samples, [B, …] each, after each sample's are scaled to a norm of at most `most`."""
    square = sum(jnp.square(g).reshape(len(g), -1).sum(1) for g in jax.tree.leaves(grads))
    scale = jnp.minimum(1.0, most / jnp.sqrt(square + 1e-12))
    return jax.tree.map(lambda g: jnp.tensordot(scale, g, 1) / len(g), grads)


def mutual_information(x: jax.Array, y: jax.Array, bins: int) -> jax.Array:
    """Bits that numbers of cells `x` and `y` [N] int32, below `bins`, tell of one another, by their histogram."""
    counts = jnp.zeros(bins * bins).at[x * bins + y].add(1.0).reshape(bins, bins)
    joint = counts / counts.sum()
    apart = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    return jnp.where(joint > 0, joint * jnp.log2(jnp.where(joint > 0, joint / jnp.maximum(apart, 1e-30), 1)), 0).sum()


@workload(
    "perceptron 12-10-7-5-4-3-2 on 4096 rows, one SGD step, and what each layer tells of the label, by histograms",
    family="representation",
    source="Shwartz-Ziv and Tishby, arXiv 1703.00810 (information plane)",
    kind="training",
    donate_argnums=(0,),
)
def information_plane_train(tiny: bool = False) -> Built:
    sizes, rows, cells = ((3, 2), 6, 2) if tiny else ((10, 7, 5, 4, 3, 2), 4096, 30)

    def layers_of(p: Weights, x: jax.Array) -> list[jax.Array]:
        found = []
        for layer, size in enumerate(sizes):
            x = jnp.tanh(p.dense(f"layer{layer}", x, size))
            found.append(x)
        return found

    def loss(p: Weights, x: jax.Array, labels: jax.Array) -> jax.Array:
        return nn.cross_entropy(layers_of(p, x)[-1], labels)

    inputs = floats(rows, 12), ints(rows)
    step, _ = train(loss, *inputs, optimizer="sgd")
    params = abstract_params(loss, *inputs, train=True)

    def fun(params: nn.Params, x: jax.Array, labels: jax.Array) -> tuple[nn.Params, jax.Array, jax.Array]:
        told = []
        for layer in layers_of(Weights(params), x):
            cell = jnp.clip(((layer + 1) / 2 * cells).astype(jnp.int32), 0, cells - 1)
            number = (cell * jnp.array([31**k % 1009 for k in range(cell.shape[1])])).sum(1) % 1009
            told.append(mutual_information(number, labels, 1009))
        params, value = step(params, x, labels)
        return params, jnp.stack(told), value

    return fun, (params, *inputs)


@workload(
    "relative representations of 50,000 embeddings of 768 by their cosines to 512 anchors, then a classifier, bfloat16",
    family="representation",
    source="Moschella et al., arXiv 2209.15430 (relative representations)",
)
def relative_representations(tiny: bool = False) -> Built:
    rows, anchors, width, classes = (4, 3, 4, 2) if tiny else (50_000, 512, 768, 20)

    def apply(p: Weights, x: jax.Array, anchors: jax.Array) -> jax.Array:
        return p.mlp("head", cosines(x, anchors).astype(x.dtype), 2 * width, classes)

    return infer(apply, floats(rows, width, dtype=jnp.bfloat16), floats(anchors, width, dtype=jnp.bfloat16))


def forward_with_masks(layers: list[jax.Array], x: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
    """Rows through matrices with rectifiers between them; returns the result and which features each one let pass."""
    masks = []
    for layer in layers[:-1]:
        x = x @ layer
        masks.append(x > 0)
        x = jnp.where(masks[-1], x, 0)
    return x @ layers[-1], masks


def replayed(layers: list[jax.Array], masks: list[jax.Array], x: jax.Array) -> jax.Array:
    """The same with the masks given: a linear function of `x`."""
    for layer, mask in zip(layers[:-1], masks, strict=True):
        x = jnp.where(mask, x @ layer, 0)
    return x @ layers[-1]


@workload(
    "perceptron of 6 layers of 2048 on 1024 rows, its masks replayed for the linear map of each row's class, bfloat16",
    family="representation",
    source="LinearScope",
)
def linear_scope(tiny: bool = False) -> Built:
    width, depth, rows, classes = (4, 3, 2, 3) if tiny else (2048, 6, 1024, 1000)

    def apply(p: Weights, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        layers = [p(f"w{layer}", width, width).astype(x.dtype) for layer in range(depth - 1)]
        layers.append(p("classes", width, classes).astype(x.dtype))
        logits, masks = forward_with_masks(layers, x)
        best = jax.nn.one_hot(logits.argmax(-1), classes, dtype=x.dtype)
        (slopes,) = jax.linear_transpose(lambda x: replayed(layers, masks, x), x)(best)
        return logits, slopes

    return infer(apply, floats(rows, width, dtype=jnp.bfloat16))


def adapted(loss: Loss, params: Any, batch: tuple[jax.Array, ...], rate: float, steps: int) -> Any:
    """Returns parameters after some steps of gradient descent on one task; differentiable."""

    def step(params: Any, _: None) -> tuple[Any, None]:
        grads = jax.grad(loss)(params, *batch)
        return jax.tree.map(lambda p, g: p - rate * g, params, grads), None

    return lax.scan(step, params, None, length=steps)[0]


@workload(
    "MAML of a very wide perceptron, 8192 features, 5 inner steps on each of 16 tasks, one outer SGD step, float32",
    family="meta-learning",
    source="Yang and Hu, arXiv 2011.14522 (feature learning in infinite-width networks)",
    kind="training",
    donate_argnums=(0,),
)
def infinite_width_maml_train(tiny: bool = False) -> Built:
    width, shots, tasks, steps = (6, 3, 2, 2) if tiny else (8192, 20, 16, 5)

    def loss(params: nn.Params, x: jax.Array, wanted: jax.Array) -> jax.Array:
        y = jax.nn.relu(x @ params["in"] * width**0.5) @ params["out"] / width**0.5  # maximal update
        return jnp.square(y - wanted).mean()

    def outer(params: nn.Params, x: jax.Array, y: jax.Array) -> jax.Array:
        def task(x: jax.Array, y: jax.Array) -> jax.Array:
            return loss(adapted(loss, params, (x[0], y[0]), 0.05, steps), x[1], y[1])

        return jax.vmap(task)(x, y).mean()

    def step(params: nn.Params, x: jax.Array, y: jax.Array) -> tuple[nn.Params, jax.Array]:
        value, grads = jax.value_and_grad(outer)(params, x, y)
        return jax.tree.map(lambda p, g: p - 1e-2 * g, params, grads), value

    params = {"in": floats(64 if not tiny else 4, width), "out": floats(width, 1)}
    features = params["in"].shape[0]
    return step, (params, floats(tasks, 2, shots, features), floats(tasks, 2, shots, 1))


@workload(
    "word2vec of 65,536 words × 8192 features, 4096 pairs with 16 negatives, one SGD step, float32",
    family="meta-learning",
    source="Yang and Hu, arXiv 2011.14522 (feature learning in infinite-width networks)",
    kind="training",
    donate_argnums=(0,),
)
def infinite_width_word2vec_train(tiny: bool = False) -> Built:
    words, width, pairs, negatives = (6, 3, 4, 2) if tiny else (65_536, 8192, 4096, 16)

    def loss(p: Weights, centre: jax.Array, context: jax.Array, others: jax.Array) -> jax.Array:
        x = p("in", words, width)[centre]
        table = p("out", words, width)
        good = jnp.einsum("bc,bc->b", x, table[context])
        bad = jnp.einsum("bc,bkc->bk", x, table[others])
        return -(jax.nn.log_sigmoid(good).mean() + jax.nn.log_sigmoid(-bad).sum(1).mean())

    return train(loss, ints(pairs), ints(pairs), ints(pairs, negatives), optimizer="sgd")


def composed(base: Any, vectors: list[Any], shares: jax.Array) -> Any:
    """Adds task vectors to the `base` parameters, each block of each by its own share [tasks, blocks]."""
    leaves, tree = jax.tree.flatten(base)
    for task, vector in enumerate(vectors):
        moved = zip(leaves, jax.tree.leaves(vector), strict=True)
        leaves = [leaf + shares[task, block] * more for block, (leaf, more) in enumerate(moved)]
    return jax.tree.unflatten(tree, leaves)


@workload(
    "ViT-B/16 as the sum of 3 task vectors scaled block by block, one SGD step on the scales, 16 images",
    family="meta-learning",
    source="Zhang et al., arXiv 2407.02880 (aTLAS)",
    kind="training",
    donate_argnums=(0,),
)
def atlas_train(tiny: bool = False, batch: int = 16) -> Built:
    tasks, side = (2, 8) if tiny else (3, 224)

    def apply(p: Weights, x: jax.Array) -> jax.Array:
        return vit(tiny, False, p, x)

    x = images(batch, side)
    base = abstract_params(apply, x)
    blocks = len(jax.tree.leaves(base))

    def loss(shares: jax.Array, base: Any, vectors: list[Any], x: jax.Array, labels: jax.Array) -> jax.Array:
        return nn.cross_entropy(apply(Weights(composed(base, vectors, shares)), x), labels)

    def step(shares: jax.Array, base: Any, vectors: Any, x: jax.Array, labels: jax.Array) -> Any:
        value, slope = jax.value_and_grad(loss)(shares, base, vectors, x, labels)
        return shares - 1e-2 * slope, value

    stored = jax.tree.map(lambda leaf: floats(*leaf.shape, dtype=jnp.bfloat16), base)
    return step, (floats(tasks, blocks), base, [stored] * tasks, x, ints(batch))


def along_line(loss: Loss, start: Any, end: Any, places: jax.Array, *batch: jax.Array) -> jax.Array:
    """Losses [places] of the weights between `start` and `end`, all at once."""

    def at(place: jax.Array) -> jax.Array:
        return loss(jax.tree.map(lambda a, b: (1 - place) * a + place * b, start, end), *batch)

    return jax.vmap(at)(places)


@workload(
    "loss of a perceptron of 3 layers of 1024 at 25 places between two solutions at once, 512 rows, float32",
    family="meta-learning",
    source="Garipov et al., arXiv 1802.10026 (mode connectivity)",
)
def mode_connectivity(tiny: bool = False) -> Built:
    width, rows, places, layers = (4, 3, 3, 2) if tiny else (1024, 512, 25, 3)

    def loss(params: list[jax.Array], x: jax.Array, labels: jax.Array) -> jax.Array:
        for layer in params[:-1]:
            x = jax.nn.relu(x @ layer)
        return nn.cross_entropy(x @ params[-1], labels)

    def fun(params: Any, end: Any, x: jax.Array, labels: jax.Array) -> jax.Array:
        return along_line(loss, params, end, jnp.linspace(0, 1, places), x, labels)

    params = [floats(width, width)] * layers
    return fun, (params, params, floats(rows, width), ints(rows))


def centroid_triplet(x: jax.Array, labels: jax.Array, classes: int, margin: float) -> jax.Array:
    """Hinge of how much nearer rows [B, C] are to the centre of their class than to the nearest other one."""
    sums = jax.ops.segment_sum(x, labels, classes)
    counts = jax.ops.segment_sum(jnp.ones(len(x)), labels, classes)
    centres = sums / jnp.maximum(counts, 1)[:, None]
    apart = square_distances(x, centres)
    own = jnp.take_along_axis(apart, labels[:, None], axis=1)[:, 0]
    is_other = (jnp.arange(classes) != labels[:, None]) & (counts > 0)
    return jax.nn.relu(own - jnp.where(is_other, apart, 1e9).min(1) + margin).mean()


@workload(
    "ViT-B/16 embeddings of 32 images told apart by the centres of 8 classes, one SGD step, mixed precision",
    family="meta-learning",
    source="Wieczorek et al., arXiv 2104.13643 (centroid triplet loss)",
    kind="training",
    donate_argnums=(0,),
)
def centroid_triplet_train(tiny: bool = False, batch: int = 32) -> Built:
    side, classes = (8, 2) if tiny else (224, 8)

    def loss(p: Weights, x: jax.Array, labels: jax.Array) -> jax.Array:
        return centroid_triplet(vit(tiny, False, p, x), labels, classes, 0.3)

    return train(loss, images(batch, side), ints(batch), optimizer="sgd")
