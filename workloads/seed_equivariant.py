"""Layers that keep a symmetry: products of spherical harmonics, polynomials of graphs, diffusion on a sheaf."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from memplan.workloads._weights import Weights, floats, infer, ints
from memplan.workloads.registry import Built, workload

FAMILY = "equivariant"


def spherical_harmonics(
    degree: int, polar: np.ndarray[Any, Any], azimuth: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """Real orthonormal spherical harmonics up to `degree` at angles […]: […, (degree + 1)²], by degree, then order.

    Sines and cosines of the polar angle are taken as they are, so that the functions go on smoothly beyond π.
    """
    x, s = np.cos(polar), np.sin(polar)
    legendre = {(0, 0): np.ones_like(x)}
    for m in range(degree + 1):
        if m:
            legendre[m, m] = (2 * m - 1) * s * legendre[m - 1, m - 1]
        for n in range(m + 1, degree + 1):
            older = legendre.get((n - 2, m), np.zeros_like(x))
            legendre[n, m] = ((2 * n - 1) * x * legendre[n - 1, m] - (n + m - 1) * older) / (n - m)
    found = []
    for n in range(degree + 1):
        for m in range(-n, n + 1):
            k = abs(m)
            size = math.sqrt((2 * n + 1) / (4 * math.pi) * math.factorial(n - k) / math.factorial(n + k))
            wave = np.cos(k * azimuth) if m >= 0 else np.sin(k * azimuth)
            found.append((size if m == 0 else math.sqrt(2) * size) * legendre[n, k] * wave)
    return np.stack(found, axis=-1)


@cache
def to_fourier(degree: int, side: int) -> np.ndarray[Any, Any]:
    """Coefficients [side, side, (degree + 1)²] complex64 of the harmonics as waves over both angles from 0 to 2π."""
    angles = 2 * np.pi * np.arange(side) / side
    polar, azimuth = np.meshgrid(angles, angles, indexing="ij")
    values = spherical_harmonics(degree, polar, azimuth)
    return (np.fft.fft2(values, axes=(0, 1)) / side**2).astype(np.complex64)


@cache
def from_fourier(degree: int, side: int) -> np.ndarray[Any, Any]:
    """Harmonics' coefficients [(degree + 1)², side × side] complex64 of a function by those of its waves."""
    return np.linalg.pinv(to_fourier(degree, side).reshape(side * side, -1)).astype(np.complex64)


def gaunt_product(x: jax.Array, y: jax.Array, degree: int, out_degree: int) -> jax.Array:
    """Coefficients of the product of two functions on the sphere, by FFT instead of by Clebsch–Gordan sums.

    Args:
      x: […, (degree + 1)²] coefficients of real spherical harmonics.
      y: likewise.
      degree: of both.
      out_degree: at most twice that; what is above is cut off.

    Returns:
      […, (out_degree + 1)²].
    """
    side = 4 * degree + 1
    forward, inverse = to_fourier(degree, side), from_fourier(2 * degree, side)[: (out_degree + 1) ** 2]
    grids = [jnp.fft.ifft2(jnp.einsum("uvk,...k->...uv", forward, z.astype(jnp.complex64))) for z in (x, y)]
    product = jnp.fft.fft2(grids[0] * grids[1]) * side**2
    return jnp.einsum("kn,...n->...k", inverse, product.reshape(*x.shape[:-1], -1)).real


@workload(
    "3 layers of Gaunt tensor products, degree 6, on 4096 atoms × 64 channels of 49 coefficients, float32",
    family=FAMILY,
    source="Luo et al., arXiv 2401.10216 (Gaunt tensor products)",
)
def gaunt_tensor_product(tiny: bool = False) -> Built:
    degree, atoms, channels, layers = (1, 2, 2, 1) if tiny else (6, 4096, 64, 3)
    orders = np.repeat(np.arange(degree + 1), 2 * np.arange(degree + 1) + 1)

    def apply(p: Weights, x: jax.Array) -> jax.Array:
        for layer in range(layers):
            # One matrix of channels for each degree, which commutes with rotations.
            left, right = (p(f"{side}{layer}", degree + 1, channels, channels)[orders] for side in ("a", "b"))
            a, b = (jnp.einsum("nck,kcd->ndk", x, w) for w in (left, right))
            x = x + gaunt_product(a, b, degree, degree)
        return x

    return infer(apply, floats(atoms, channels, (degree + 1) ** 2), dtype=jnp.float32)


# Contractions of one or two graphs' tensors [B, n, n, C] that commute with any order of the nodes.
CONTRACTIONS = (
    "bijc,bjkc->bikc",
    "bijc,bijc->bijc",
    "bijc,bjic->bijc",
    "bijc,bjjc->bijc",
    "bijc,bklc->bijc",
    "bijc,bikc->bijc",
    "bijc,bkjc->bijc",
    "bijc,bjkc->bijc",
)


@workload(
    "equivariant polynomials of 64 graphs of 32 nodes, 4 layers of 64 channels, 8 contractions each, float32",
    family=FAMILY,
    source="Puny et al., arXiv 2302.11556 (equivariant polynomials)",
)
def equivariant_polynomials(tiny: bool = False) -> Built:
    graphs, nodes, width, layers = (2, 3, 2, 1) if tiny else (64, 32, 64, 4)

    def apply(p: Weights, x: jax.Array) -> jax.Array:
        x = p.dense("embed", x, width)
        for layer in range(layers):
            y, z = p.dense(f"a{layer}", x, width), p.dense(f"b{layer}", x, width) / nodes
            made = [jnp.einsum(rule, y, z) for rule in CONTRACTIONS]
            x = x + p.mlp(f"mix{layer}", jnp.concatenate(made, axis=-1), width, width, act=jax.nn.relu)
        return p.dense("out", x.mean((1, 2)), 1)

    return infer(apply, floats(graphs, nodes, nodes, 4), dtype=jnp.float32)


def sheaf_laplacian(maps: jax.Array, edges: jax.Array, x: jax.Array) -> jax.Array:
    """Applies the Laplacian of a sheaf: what the ends of each edge disagree on, sent back to both.

    Args:
      maps: [2, E, d, d] from the stalks of both ends of each edge to that of the edge.
      edges: [2, E] int32, the ends.
      x: [N, d, C].

    Returns:
      [N, d, C].
    """
    apart = jnp.einsum("eij,ejc->eic", maps[0], x[edges[0]]) - jnp.einsum("eij,ejc->eic", maps[1], x[edges[1]])
    back = [jnp.einsum("eij,eic->ejc", maps[end], apart) for end in (0, 1)]
    total = jax.ops.segment_sum(back[0], edges[0], len(x)) - jax.ops.segment_sum(back[1], edges[1], len(x))
    return total


@workload(
    "neural sheaf diffusion, 4 layers with stalks of 4 × 64 on 20,000 nodes and 100,000 edges, float32",
    family="graph",
    source="Bodnar et al., arXiv 2202.04579 (neural sheaf diffusion)",
)
def sheaf_diffusion(tiny: bool = False) -> Built:
    nodes, edges, stalk, width, layers = (4, 5, 2, 3, 1) if tiny else (20_000, 100_000, 4, 64, 4)

    def apply(p: Weights, x: jax.Array, pairs: jax.Array) -> jax.Array:
        for layer in range(layers):
            part = p / f"layer{layer}"
            flat = x.reshape(nodes, -1)
            ends = jnp.concatenate([flat[pairs[0]], flat[pairs[1]]], axis=-1)
            maps = jnp.tanh(part.dense("maps", ends, 2 * stalk * stalk))
            maps = jnp.moveaxis(maps.reshape(edges, 2, stalk, stalk), 1, 0)
            y = jnp.einsum("ij,njc->nic", part("stalk", stalk, stalk), part.dense("mix", x, width, False))
            degree = jax.ops.segment_sum(jnp.ones(2 * edges), pairs.ravel(), nodes)[:, None, None] + 1
            x = x - jax.nn.elu(sheaf_laplacian(maps, pairs, y) / degree)
        return x

    return infer(apply, floats(nodes, stalk, width), ints(2, edges), dtype=jnp.float32)
