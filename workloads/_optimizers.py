"""The optimizers of the training steps: each a pair of pure functions over pytrees."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

Tree = Any


def sgd(params: Tree, grads: Tree, rate: float) -> Tree:
    """Returns `params` after one step of gradient descent."""
    return jax.tree.map(lambda p, g: p - rate * g.astype(p.dtype), params, grads)


def momentum_init(params: Tree) -> Tree:
    """Returns the velocity of `momentum`: zeros like `params`."""
    return jax.tree.map(jnp.zeros_like, params)


def momentum(params: Tree, velocity: Tree, grads: Tree, rate: float, decay: float = 0.9) -> tuple[Tree, Tree]:
    """One step of gradient descent with heavy-ball momentum; returns `(params, velocity)`."""
    velocity = jax.tree.map(lambda v, g: decay * v + g.astype(v.dtype), velocity, grads)
    return sgd(params, velocity, rate), velocity


def adam_init(params: Tree) -> Tree:
    """Returns the state of `adam`: both moments, like `params`, and the number of steps done, int32."""
    return {
        "mean": jax.tree.map(jnp.zeros_like, params),
        "square": jax.tree.map(jnp.zeros_like, params),
        "step": jnp.zeros((), jnp.int32),
    }


def adam(
    params: Tree, state: Tree, grads: Tree, rate: float, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8
) -> tuple[Tree, Tree]:
    """One step of Adam with bias correction (Kingma and Ba, arXiv 1412.6980); returns `(params, state)`."""
    step = state["step"] + 1
    mean = jax.tree.map(lambda m, g: beta1 * m + (1 - beta1) * g, state["mean"], grads)
    square = jax.tree.map(lambda s, g: beta2 * s + (1 - beta2) * g * g, state["square"], grads)
    count = step.astype(jnp.float32)
    mean_scale, square_scale = 1 / (1 - beta1**count), 1 / (1 - beta2**count)

    def update(p: jax.Array, m: jax.Array, s: jax.Array) -> jax.Array:
        return p - rate * (m * mean_scale) / (jnp.sqrt(s * square_scale) + eps)

    return jax.tree.map(update, params, mean, square), {"mean": mean, "square": square, "step": step}
