"""Pictures of scenes: a radiance field, and a ray tracer of spheres without any network.

Mildenhall et al., "NeRF", arXiv 2003.08934: colour and density along rays by a perceptron, blended front to back. The
other marches rays to a surface by its distance: Hart, "Sphere tracing", The Visual Computer 12, 1996.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from memplan.workloads._weights import Weights, floats, infer, squared, train, waves
from memplan.workloads.registry import Built, workload

NERF = "Mildenhall et al., arXiv 2003.08934"


def blend(density: jax.Array, colour: jax.Array, step: jax.Array) -> jax.Array:
    """Colours [rays, samples, 3] front to back, each hidden by the densities [rays, samples] before it: [rays, 3]."""
    passed = jnp.exp(-jnp.cumsum(density * step, axis=-1))
    before = jnp.concatenate([jnp.ones_like(passed[:, :1]), passed[:, :-1]], axis=-1)
    return jnp.einsum("rs,rsc->rc", before - passed, colour)


def nerf(tiny: bool, p: Weights, origins: jax.Array, directions: jax.Array) -> jax.Array:
    """Rays [R, 3] float32, twice, to their colours [R, 3]; 8 layers of 256 with a skip unless `tiny`."""
    samples, width, layers = (4, 8, 3) if tiny else (128, 256, 8)
    depths = jnp.linspace(2.0, 6.0, samples)
    points = origins[:, None] + depths[:, None] * directions[:, None]
    encoded = waves(points, 10).astype(jnp.bfloat16)
    x = encoded
    for layer in range(layers):
        x = jnp.concatenate([x, encoded], axis=-1) if layer == layers // 2 + 1 else x
        x = jax.nn.relu(p.dense(f"layer{layer}", x, width))
    density = jax.nn.softplus(p.dense("density", x, 1)[..., 0].astype(jnp.float32))
    seen = jnp.broadcast_to(waves(directions, 4).astype(x.dtype)[:, None], (*x.shape[:2], 24))
    x = jnp.concatenate([p.dense("features", x, width), seen], axis=-1)
    colour = jax.nn.sigmoid(p.mlp("colour", x, width // 2, 3, act=jax.nn.relu).astype(jnp.float32))
    return blend(density, colour, jnp.float32(4.0 / samples))


@workload("NeRF, 8 layers of 256 at 4096 rays × 128 samples, bfloat16", family="rendering", source=NERF)
def nerf_infer(tiny: bool = False, batch: int = 4096) -> Built:
    rays = floats(batch, 3)
    return infer(partial(nerf, tiny), rays, rays)


@workload(
    "NeRF, 8 layers of 256, one Adam step on 1024 rays × 128 samples, mixed precision",
    family="rendering",
    source=NERF,
    kind="training",
    donate_argnums=(0, 1),
)
def nerf_train(tiny: bool = False, batch: int = 1024) -> Built:
    rays = floats(batch, 3)
    return train(squared(partial(nerf, tiny)), rays, rays, rays)


def distance(points: jax.Array, spheres: jax.Array) -> jax.Array:
    """Distance of points […, 3] to the nearest of spheres [S, 4], centre and radius each, smoothly joined."""
    apart = points[..., None, :] - spheres[:, :3]
    each = jnp.sqrt(jnp.square(apart).sum(-1) + 1e-12) - spheres[:, 3]
    return -jax.nn.logsumexp(-16.0 * each, axis=-1) / 16.0


def march(spheres: jax.Array, origins: jax.Array, directions: jax.Array, steps: int) -> jax.Array:
    """Rays [R, 3] to the shade of the surface that each meets, [R] float32: zero where it meets none."""

    def unfinished(state: tuple[jax.Array, jax.Array]) -> jax.Array:
        depth, step = state
        return (step < steps) & (distance(origins + depth[:, None] * directions, spheres) > 1e-3).any()

    def forward(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        depth, step = state
        return depth + distance(origins + depth[:, None] * directions, spheres), step + 1

    depth, _ = lax.while_loop(unfinished, forward, (jnp.zeros(origins.shape[:1]), jnp.int32(0)))
    points = origins + depth[:, None] * directions
    normals = jax.vmap(jax.grad(distance), (0, None))(points, spheres)
    hit = distance(points, spheres) < 1e-2
    return jnp.where(hit, jnp.maximum(normals @ jnp.array([0.6, 0.8, 0.0]), 0.0), 0.0)


@workload(
    "sphere tracing of 256 × 256 rays to 64 joined spheres, at most 64 steps, float32",
    family="rendering",
    source="Hart, The Visual Computer 12, 1996",
)
def sphere_tracing(tiny: bool = False) -> Built:
    rays, count, steps = (8, 2, 4) if tiny else (256 * 256, 64, 64)
    return partial(march, steps=steps), (floats(count, 4), floats(rays, 3), floats(rays, 3))
