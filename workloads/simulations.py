"""Programs of physics, without a network: a fluid, heat, particles, and a sampler.

Shallow water by finite differences (Arakawa's C grid, Methods in Computational Physics 17, 1977); implicit heat
conduction by conjugate gradients (Hestenes and Stiefel 1952); molecular dynamics of a Lennard-Jones fluid by velocity
Verlet (Verlet, Physical Review 159, 1967); Hamiltonian Monte Carlo (Neal, arXiv 1206.1901).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from memplan.workloads._weights import floats, ints
from memplan.workloads.registry import Built, workload

Fields = tuple[jax.Array, jax.Array, jax.Array]


def shallow_water(fields: Fields, steps: int, dt: float = 0.1, gravity: float = 1.0) -> Fields:
    """Moves the height and both velocities of a thin layer of water, [N, N] each, on a grid without borders."""

    def ahead(x: jax.Array, axis: int) -> jax.Array:
        return jnp.roll(x, -1, axis) - x

    def behind(x: jax.Array, axis: int) -> jax.Array:
        return x - jnp.roll(x, 1, axis)

    def at_faces(x: jax.Array, axis: int) -> jax.Array:
        return (x + jnp.roll(x, -1, axis)) / 2

    def step(_: int, fields: Fields) -> Fields:
        height, u, v = fields
        u = u - dt * gravity * ahead(height, 0)
        v = v - dt * gravity * ahead(height, 1)
        flow = behind(u * at_faces(height, 0), 0) + behind(v * at_faces(height, 1), 1)
        return height - dt * flow, u, v

    return lax.fori_loop(0, steps, step, fields)


def conjugate_gradients(
    product: Callable[[jax.Array], jax.Array], wanted: jax.Array, tolerance: float, most: int
) -> tuple[jax.Array, jax.Array]:
    """Solves `product(x) = wanted` for a symmetric positive `product`; returns `x` and the number of steps."""

    def unfinished(state: Any) -> jax.Array:
        return (state[3] > tolerance**2 * jnp.vdot(wanted, wanted)) & (state[4] < most)

    def step(state: Any) -> Any:
        x, rest, direction, square, count = state
        image = product(direction)
        length = square / jnp.vdot(direction, image)
        x, rest = x + length * direction, rest - length * image
        new = jnp.vdot(rest, rest)
        return x, rest, rest + new / square * direction, new, count + 1

    start = (jnp.zeros_like(wanted), wanted, wanted, jnp.vdot(wanted, wanted), jnp.int32(0))
    x, _, _, _, count = lax.while_loop(unfinished, step, start)
    return x, count


def heat_matrix(x: jax.Array, rate: float) -> jax.Array:
    """`x - rate × Laplacian of x` on [N, …, N] with cold borders."""
    around = -2.0 * x.ndim * x
    for axis in range(x.ndim):
        wide = jnp.pad(x, [(1, 1) if a == axis else (0, 0) for a in range(x.ndim)])
        size = x.shape[axis]
        around = around + lax.slice_in_dim(wide, 0, size, axis=axis) + lax.slice_in_dim(wide, 2, size + 2, axis=axis)
    return x - rate * around


def heat_steps(heat: jax.Array, steps: int, rate: float = 1.0) -> tuple[jax.Array, jax.Array]:
    """Implicit Euler steps of heat [N, N, N]; returns it and the steps that each solve took."""

    def step(heat: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        return conjugate_gradients(partial(heat_matrix, rate=rate), heat, 1e-5, 100)

    return lax.scan(step, heat, None, length=steps)


def lennard_jones(positions: jax.Array, box: float) -> jax.Array:
    """Energy of particles [N, 3] in a periodic box, pairs nearer than 2.5 only."""
    apart = positions[:, None] - positions[None]
    apart = apart - box * jnp.round(apart / box)
    square = jnp.square(apart).sum(-1) + jnp.eye(len(positions)) * 1e6
    sixth = 1.0 / jnp.maximum(square, 0.5) ** 3
    return 2.0 * jnp.where(square < 6.25, sixth * sixth - sixth, 0.0).sum()


def verlet(positions: jax.Array, velocities: jax.Array, steps: int, box: float, dt: float = 1e-3) -> Any:
    """Moves particles [N, 3] by velocity Verlet; returns positions, velocities and the energies after each step."""
    slope = jax.grad(lennard_jones)

    def step(state: Any, _: None) -> Any:
        x, v, force = state
        v = v + dt / 2 * force
        x = x + dt * v
        force = -slope(x, box)
        v = v + dt / 2 * force
        return (x, v, force), lennard_jones(x, box) + jnp.square(v).sum() / 2

    (x, v, _), energies = lax.scan(step, (positions, velocities, -slope(positions, box)), None, length=steps)
    return x, v, energies


def hmc(
    log_density: Callable[[jax.Array], jax.Array],
    start: jax.Array,
    seed: jax.Array,
    samples: int,
    leaps: int,
    dt: float,
) -> tuple[jax.Array, jax.Array]:
    """Draws samples by Hamiltonian Monte Carlo.

    Args:
      log_density: of a point [D], up to a constant.
      start: [chains, D].
      seed: int32 scalar.
      samples: of each chain.
      leaps: leapfrog steps to a sample.
      dt: size of a leap.

    Returns:
      the samples [samples, chains, D] and the share of proposals that were accepted.
    """
    value, slope = jax.vmap(log_density), jax.vmap(jax.grad(log_density))

    def leap(state: tuple[jax.Array, jax.Array], _: None) -> tuple[tuple[jax.Array, jax.Array], None]:
        x, momentum = state
        momentum = momentum + dt / 2 * slope(x)
        x = x + dt * momentum
        return (x, momentum + dt / 2 * slope(x)), None

    def sample(x: jax.Array, key: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        momentum_key, accept_key = jax.random.split(key)
        momentum = jax.random.normal(momentum_key, x.shape)
        (proposed, end), _ = lax.scan(leap, (x, momentum), None, length=leaps)
        gain = value(proposed) - jnp.square(end).sum(-1) / 2 - value(x) + jnp.square(momentum).sum(-1) / 2
        accepted = jnp.log(jax.random.uniform(accept_key, gain.shape)) < gain
        x = jnp.where(accepted[:, None], proposed, x)
        return x, (x, accepted.mean())

    _, (drawn, accepted) = lax.scan(sample, start, jax.random.split(jax.random.key(seed), samples))
    return drawn, accepted.mean()


@workload(
    "shallow water on 1024 × 1024 points, 100 explicit steps in a loop, fields donated, float32",
    family="simulation",
    source="Arakawa and Lamb, Methods in Computational Physics 17, 1977",
    donate_argnums=(0,),
)
def shallow_water_steps(tiny: bool = False) -> Built:
    n, steps = (8, 2) if tiny else (1024, 100)
    return partial(shallow_water, steps=steps), ((floats(n, n),) * 3,)


@workload(
    "heat in 128³ cells, 10 implicit steps, each by conjugate gradients as long as they need, float32",
    family="simulation",
    source="Hestenes and Stiefel, J. Research NBS 49, 1952",
)
def implicit_heat(tiny: bool = False) -> Built:
    n, steps = (4, 2) if tiny else (128, 10)
    return partial(heat_steps, steps=steps), (floats(n, n, n),)


@workload(
    "Lennard-Jones fluid of 2048 particles, 20 steps of velocity Verlet, all pairs, float32",
    family="simulation",
    source="Verlet, Physical Review 159, 1967",
    donate_argnums=(0, 1),
)
def molecular_dynamics(tiny: bool = False) -> Built:
    n, steps = (4, 2) if tiny else (2048, 20)
    return partial(verlet, steps=steps, box=14.0), (floats(n, 3), floats(n, 3))


def regression_density(x: jax.Array, y: jax.Array, weights: jax.Array) -> jax.Array:
    """Log-density of a logistic regression's weights [D], given rows [N, D] and their labels [N], zeros and ones."""
    logits = x @ weights
    return (y * logits - jnp.logaddexp(0.0, logits)).sum() - jnp.square(weights).sum() / 2


@workload(
    "HMC of a logistic regression, 16 chains, 100 samples of 10 leaps, 10,000 rows of 128, float32",
    family="sampling",
    source="Neal, arXiv 1206.1901",
)
def hmc_logistic(tiny: bool = False) -> Built:
    rows, width, chains, samples, leaps = (6, 3, 2, 3, 2) if tiny else (10_000, 128, 16, 100, 10)

    def run(x: jax.Array, y: jax.Array, start: jax.Array, seed: jax.Array) -> tuple[jax.Array, jax.Array]:
        return hmc(partial(regression_density, x, y), start, seed, samples, leaps, dt=0.01)

    return run, (floats(rows, width), floats(rows), floats(chains, width), ints())
