"""Scenes and avatars: radiance fields of three kinds, Gaussians and their splatting, layers that are blended."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from memplan.workloads._weights import Weights, floats, images, infer, ints, squared, train, upsample2, waves
from memplan.workloads.autoencoders import residual
from memplan.workloads.registry import Built, workload
from memplan.workloads.rendering import blend, nerf
from memplan.workloads.seed_attention import at_points

FAMILY = "rendering"
PRIMES = np.array([1, 2_654_435_761, 805_459_861], np.uint32)


def hash_grid(table: jax.Array, points: jax.Array, sides: tuple[int, ...]) -> jax.Array:
    """Trilinear features of points in grids of several sizes whose corners share one table (arXiv 2201.05989).

    Args:
      table: [levels, entries, C], `entries` a power of two.
      points: [N, 3] in the unit cube.
      sides: cells along a side at each level.

    Returns:
      [N, levels × C].
    """
    found = []
    for level, side in enumerate(sides):
        places = points * side
        low = jnp.floor(places).astype(jnp.uint32)
        share = places - low
        total = jnp.zeros((points.shape[0], table.shape[-1]), table.dtype)
        for corner in np.ndindex(2, 2, 2):
            offset = np.array(corner, np.uint32)
            hashed = (low + offset) * PRIMES
            number = (hashed[:, 0] ^ hashed[:, 1] ^ hashed[:, 2]) & np.uint32(table.shape[1] - 1)
            weight = jnp.where(offset.astype(bool), share, 1 - share).prod(-1)
            total = total + weight[:, None].astype(table.dtype) * table[level, number]
        found.append(total)
    return jnp.concatenate(found, axis=-1)


def vector_matrix(vectors: jax.Array, planes: jax.Array, points: jax.Array) -> jax.Array:
    """Features of points [N, 3] by factors: along each axis [3, R, C], times a plane of the others [3, R, R, C]."""
    found = []
    for axis, others in enumerate(((1, 2), (0, 2), (0, 1))):
        line = jnp.stack([points[:, axis], jnp.zeros_like(points[:, axis])], axis=-1)
        along = at_points(vectors[axis][:, None].repeat(2, axis=1), line[:, [0, 1]])
        found.append(along * at_points(planes[axis], points[:, list(others)]))
    return jnp.concatenate(found, axis=-1)


def distilled(tiny: bool, kind: str, p: Weights, origins: jax.Array, directions: jax.Array) -> jax.Array:
    """Colours [R, 3] of rays [R, 3] in the unit cube, by a field of this kind with a small perceptron after it."""
    samples, width = (3, 8) if tiny else (128, 64)
    depths = jnp.linspace(0.0, 1.0, samples)
    points = jnp.clip(origins[:, None] + depths[:, None] * directions[:, None], 0, 1 - 1e-6).reshape(-1, 3)
    if kind == "hash":
        levels, entries = (2, 16) if tiny else (16, 1 << 19)
        sides = tuple(int(4 * (4 if tiny else 1.4) ** level) for level in range(levels))
        features = hash_grid(p("table", levels, entries, 2), points, sides)
    else:
        side, channels = (4, 2) if tiny else (128, 16)
        features = vector_matrix(p("vectors", 3, side, channels), p("planes", 3, side, side, channels), points)
    y = p.mlp("field", features.astype(jnp.float32), width, 4, act=jax.nn.relu).reshape(*origins.shape[:1], samples, 4)
    return blend(jax.nn.softplus(y[..., 3]), jax.nn.sigmoid(y[..., :3]), jnp.float32(1 / samples))


def _distillation(tiny: bool, kind: str, batch: int) -> Built:
    """A step in which one field learns from another, a NeRF that is given."""
    rays = floats(batch, 3)

    def loss(p: Weights, origins: jax.Array, directions: jax.Array) -> jax.Array:
        taught = distilled(tiny, kind, p / "student", origins, directions)
        wanted = lax.stop_gradient(nerf(tiny, p / "teacher", origins, directions))
        return jnp.square(taught - wanted).mean()

    return train(loss, rays, rays)


@workload(
    "a hash grid of 16 levels learns from a NeRF, one Adam step on 512 rays × 128 samples, mixed precision",
    family=FAMILY,
    source="Fang et al., arXiv 2211.15977 (PVD)",
    kind="training",
    donate_argnums=(0, 1),
)
def pvd_train(tiny: bool = False, batch: int = 512) -> Built:
    return _distillation(tiny, "hash", batch)


@workload(
    "vector-matrix factors of 128³ learn from a NeRF, one Adam step on 512 rays × 128 samples, mixed precision",
    family=FAMILY,
    source="Fang et al., arXiv 2304.04012 (PVD-AL)",
    kind="training",
    donate_argnums=(0, 1),
)
def pvd_al_train(tiny: bool = False, batch: int = 512) -> Built:
    return _distillation(tiny, "factors", batch)


def splat(
    means: jax.Array, depths: jax.Array, sizes: jax.Array, colours: jax.Array, side: int, block: int
) -> jax.Array:
    """Draws round Gaussians onto a picture, nearest first, a block of pixels at a time.

    Args:
      means: [N, 2] in the unit square.
      depths: [N], which decides the order.
      sizes: [N] standard deviations, positive.
      colours: [N, 4]: red, green, blue and opacity, each from 0 to 1.
      side: pixels of a side.
      block: pixels at once; it divides side².

    Returns:
      [side, side, 3].
    """
    order = jnp.argsort(depths)
    means, sizes, colours = means[order], sizes[order], colours[order]
    places = (jnp.arange(side) + 0.5) / side
    pixels = jnp.stack(jnp.meshgrid(places, places, indexing="ij"), axis=-1).reshape(-1, block, 2)

    def draw(pixels: jax.Array) -> jax.Array:
        square = jnp.square(pixels[:, None] - means).sum(-1)
        opacity = colours[:, 3] * jnp.exp(-square / (2 * sizes**2))
        passed = jnp.cumprod(1 - jnp.minimum(opacity, 0.99), axis=1)
        before = jnp.concatenate([jnp.ones_like(passed[:, :1]), passed[:, :-1]], axis=1)
        return (before * opacity) @ colours[:, :3]

    return lax.map(draw, pixels).reshape(side, side, 3)


def gaussians_of(y: jax.Array, means: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Raw features [N, 8] at points [N, 2] to what `splat` takes."""
    return means + 0.05 * jnp.tanh(y[:, :2]), y[:, 2], 0.005 + 0.02 * jax.nn.sigmoid(y[:, 3]), jax.nn.sigmoid(y[:, 4:])


@workload(
    "style U-Net of 512 × 512 maps to Gaussians, and 4096 of them splatted on 128 × 128 pixels, mixed precision",
    family=FAMILY,
    source="Lin et al., arXiv 2405.07319 (LayGA)",
)
def layga(tiny: bool = False) -> Built:
    widths, side, count, pixels = ((4, 8), 8, 5, 4) if tiny else ((32, 64, 128, 256, 512), 512, 4096, 128)

    def apply(p: Weights, positions: jax.Array, style: jax.Array, points: jax.Array) -> jax.Array:
        told, left, x = p.mlp("style", style, widths[-1], widths[-1]), [], positions
        for level, width in enumerate(widths):
            x = jax.nn.leaky_relu(p.conv(f"down{level}", x, width, stride=2 if level else 1))
            left.append(x)
        for level in reversed(range(len(widths) - 1)):
            scale = p.dense(f"modulate{level}", told, x.shape[-1])[:, None, None]
            x = p.conv(f"up{level}", upsample2(x * (1 + scale)), widths[level])
            x = jax.nn.leaky_relu(jnp.concatenate([x, left[level]], axis=-1))
        maps = p.conv("last", x, 16, 1)[0].astype(jnp.float32)
        layers = [at_points(maps[..., start : start + 8], points) for start in (0, 8)]  # body and clothes
        means, depths, sizes, colours = (
            jnp.concatenate(parts) for parts in zip(*(gaussians_of(y, points) for y in layers), strict=True)
        )
        return splat(means, depths, sizes, colours, pixels, pixels)

    return infer(apply, images(1, side), floats(1, 64, dtype=jnp.bfloat16), floats(count, 2))


@workload(
    "features of a vision model at 8192 points to Gaussians by a perceptron, sorted, splatted, one SGD step",
    family=FAMILY,
    source="Chen et al., arXiv 2412.09606 (Feat2GS)",
    kind="training",
    donate_argnums=(0,),
)
def feat2gs_train(tiny: bool = False) -> Built:
    count, width, hidden, pixels = (5, 8, 8, 4) if tiny else (8192, 256, 256, 128)

    def apply(p: Weights, features: jax.Array, points: jax.Array) -> jax.Array:
        y = p.mlp("readout", features, hidden, hidden, 8, act=jax.nn.relu)
        means, depths, sizes, colours = gaussians_of(y, points)
        return splat(means, depths, sizes, colours, pixels, pixels)

    inputs = floats(count, width), floats(count, 2)
    return train(squared(apply), *inputs, floats(pixels, pixels, 3), optimizer="sgd")


def composite(layers: jax.Array) -> jax.Array:
    """Blends layers [L, …, 4], the nearest first, colours not yet multiplied by their opacity: […, 3]."""

    def over(state: tuple[jax.Array, jax.Array], layer: jax.Array) -> tuple[tuple[jax.Array, jax.Array], None]:
        colour, passed = state
        opacity = layer[..., 3:]
        return (colour + passed * opacity * layer[..., :3], passed * (1 - opacity)), None

    start = (jnp.zeros_like(layers[0, ..., :3]), jnp.ones_like(layers[0, ..., :1]))
    return lax.scan(over, start, layers)[0][0]


@workload(
    "2-D generator of 16 layers of colour and opacity at 256 × 256, warped and blended in a loop, 4 pictures, bfloat16",
    family=FAMILY,
    source="Xu et al., arXiv 2307.05462 (LSV-GAN)",
)
def lsv_gan(tiny: bool = False, batch: int = 4) -> Built:
    widths, layers, latent = ((8, 4), 2, 4) if tiny else ((512, 512, 256, 128, 64, 32, 32), 16, 512)

    def apply(p: Weights, z: jax.Array, shift: jax.Array) -> jax.Array:
        w = p.mlp("map", z, latent, latent)
        x = p("constant", 4, 4, widths[0]).astype(z.dtype)[None] * jnp.ones((z.shape[0], 1, 1, 1), z.dtype)
        for level, width in enumerate(widths):
            x = x * (1 + p.dense(f"style{level}", w, x.shape[-1]))[:, None, None]
            x = jax.nn.leaky_relu(p.conv(f"conv{level}", x, width))
            x = upsample2(x) if level + 1 < len(widths) else x
        y = jax.nn.sigmoid(p.conv("layers", x, 4 * layers, 1)).astype(jnp.float32)
        planes = jnp.moveaxis(y.reshape(*y.shape[:3], layers, 4), 3, 0)
        moved = jax.vmap(lambda plane, depth: jax.vmap(jnp.roll, (0, 0, None))(plane, shift * depth, 1))
        return composite(moved(planes, jnp.arange(layers)))

    return infer(apply, floats(batch, latent, dtype=jnp.bfloat16), ints(batch))


@workload(
    "score distillation of Gaussians through a diffusion U-Net, 2048 Gaussians, 64 × 64 pixels, one SGD step",
    family=FAMILY,
    source="Kim et al., arXiv 2401.12979 (GALA)",
    kind="training",
    donate_argnums=(0,),
)
def gala_train(tiny: bool = False) -> Built:
    widths, count, pixels, groups = ((4, 8), 5, 4, 2) if tiny else ((64, 128, 256), 2048, 64, 32)

    def noise_of(p: Weights, x: jax.Array) -> jax.Array:
        left, y = [], p.conv("first", x, widths[0])
        for level, width in enumerate(widths):
            y = residual(p / f"down{level}", y, width, groups)
            left.append(y)
            y = p.conv(f"shrink{level}", y, width, stride=2) if level + 1 < len(widths) else y
        for level in reversed(range(len(widths) - 1)):
            y = jnp.concatenate([upsample2(y), left[level]], axis=-1)
            y = residual(p / f"up{level}", y, widths[level], groups)
        return p.conv("last", y, 3)

    def loss(p: Weights, points: jax.Array, seed: jax.Array) -> jax.Array:
        raw = p("gaussians", count, 8)
        picture = splat(*gaussians_of(raw, points), pixels, pixels)[None]
        noise = jax.random.normal(jax.random.key(seed), picture.shape)
        guess = noise_of(p / "unet", (0.8 * picture + 0.6 * noise).astype(jnp.bfloat16))
        # The gradient of the picture is the error of the guess; the U-Net's own Jacobian is left out.
        return (lax.stop_gradient(guess.astype(jnp.float32) - noise) * picture).mean()

    return train(loss, floats(count, 2), ints(), optimizer="sgd")


@workload(
    "implicit surface of clothes, features of a picture at 65,536 points, then a graph of 4096 vertices, bfloat16",
    family=FAMILY,
    source="Luo et al., arXiv 2411.03047 (GarVerseLOD)",
)
def garverselod(tiny: bool = False) -> Built:
    widths, side, points, nodes, edges = ((4, 8), 8, 6, 5, 8) if tiny else ((32, 64, 128), 256, 65_536, 4096, 24_576)

    def apply(
        p: Weights, x: jax.Array, places: jax.Array, mesh: jax.Array, pairs: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        for level, width in enumerate(widths):
            x = jax.nn.relu(p.conv(f"conv{level}", x, width, stride=2))
        features = at_points(x[0].astype(jnp.float32), places[:, :2])
        encoded = waves(places, 4)
        inside = p.mlp("implicit", jnp.concatenate([features, encoded], axis=-1), 64, 64, 1)
        y = jnp.concatenate([at_points(x[0].astype(jnp.float32), mesh[:, :2]), mesh], axis=-1)
        for layer in range(3):
            received = jax.ops.segment_sum(y[pairs[0]], pairs[1], y.shape[0])
            y = jax.nn.relu(p.dense(f"graph{layer}", jnp.concatenate([y, received], axis=-1), 64))
        return jax.nn.sigmoid(inside[:, 0]), mesh + p.dense("offset", y, 3)

    return infer(apply, images(1, side), floats(points, 3), floats(nodes, 3), ints(2, edges))
