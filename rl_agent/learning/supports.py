"""Numbers as categorical distributions: how the networks state rewards and values.

A number is squeezed by a signed logarithm and then shared by the two atoms next to it. A network predicts the shares,
and their mean is mapped back (Schrittwieser et al., "Mastering Atari, Go, chess and shogi by planning with a learned
model", 2020, appendix F; Bellemare et al., "A distributional perspective on reinforcement learning", 2017). The
logarithm rather than the square root of that paper, since decisions that save a thousandth of a program's time matter
as well as decisions that save half of it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

ATOMS = 51

# Differences below this are told apart linearly, those above by their order of magnitude.
_SMALL = 3e-4


def squeezed(x: jax.Array) -> jax.Array:
    """Maps [-1, 1] to [-1, 1], small numbers spread out."""
    return jnp.sign(x) * jnp.log1p(jnp.abs(x) / _SMALL) / jnp.log1p(1.0 / _SMALL)


def spread(y: jax.Array) -> jax.Array:
    """The inverse of `squeezed`."""
    return jnp.sign(y) * _SMALL * jnp.expm1(jnp.abs(y) * jnp.log1p(1.0 / _SMALL))


def to_categories(x: jax.Array) -> jax.Array:
    """Returns the distributions that stand for numbers, `[..., ATOMS]`; beyond ±1 they are cut off."""
    place = (jnp.clip(squeezed(x), -1.0, 1.0) + 1.0) * ((ATOMS - 1) / 2)
    low = jnp.clip(jnp.floor(place), 0, ATOMS - 2)
    share = place - low
    low = low.astype(jnp.int32)
    return jax.nn.one_hot(low, ATOMS) * (1.0 - share)[..., None] + jax.nn.one_hot(low + 1, ATOMS) * share[..., None]


def from_logits(logits: jax.Array) -> jax.Array:
    """Returns the numbers that distributions mean; `[..., ATOMS]` to `[...]`."""
    atoms = jnp.linspace(-1.0, 1.0, ATOMS)
    return spread(jax.nn.softmax(logits) @ atoms)
