"""Compiles programs with JAX for the CPU and leaves XLA's dumps: run as a script, in a process of its own.

    python buffer_assignment_programs.py FOLDER

Each program gets a folder of its name. Arrays have a few hundred kilobytes, so that scalars do not count.
"""

from __future__ import annotations

import os
import sys
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
from jax import lax


def f32(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def s32(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.int32)


def mlp(weights, x):
    for w, b in weights:
        x = jnp.tanh(x @ w + b)
    return x


def mlp_step(weights, x, y):
    gradients = jax.grad(lambda weights: jnp.mean((mlp(weights, x) - y) ** 2))(weights)
    return jax.tree.map(lambda w, g: w - 0.1 * g, weights, gradients)


def convolutions(x, kernels):
    for kernel in kernels:
        x = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        x = lax.reduce_window(jax.nn.relu(x), -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return x


def attention(x, query, key, value, output):
    scores = jax.nn.softmax((x @ query) @ (x @ key).T / 16.0)
    return scores @ (x @ value) @ output + x


def recurrent(w, u, h, inputs):
    def step(h, x):
        h = jnp.tanh(h @ w + x @ u)
        return h, h

    return lax.scan(step, h, inputs)


def recurrent_gradient(w, u, h, inputs):
    return jax.grad(lambda w, u: jnp.sum(recurrent(w, u, h, inputs)[1] ** 2), (0, 1))(w, u)


def until(x, limit):
    def body(state):
        x, count = state
        return jnp.sin(x @ x) + x, count + 1

    return lax.while_loop(lambda state: (state[1] < limit) & (jnp.sum(state[0]) < 1e9), body, (x, 0))


def switch(which, x, y):
    branches = [
        lambda x, y: (x @ y) @ (x.T @ y),
        lambda x, y: jnp.sort(x, 0) + y,
        lambda x, y: jnp.cumsum(x, 0) * 2,
    ]
    return lax.switch(which, branches, x, y)


def fft_convolution(u, k):
    n = u.shape[-1]
    return jnp.fft.irfft(jnp.fft.rfft(u, 2 * n) * jnp.fft.rfft(k, 2 * n), 2 * n)[..., :n]


def indexing(x, rows):
    return jnp.cumsum(x, 1)[rows] + jnp.sort(x, 0)[rows], jnp.argsort(x, 1)


def updates(cache, inputs):
    def body(i, cache):
        row = inputs[i][None] * 2 + lax.dynamic_slice(cache, (i, 0), (1, cache.shape[1]))
        return lax.dynamic_update_slice(cache, row, (i, 0))

    return lax.fori_loop(0, inputs.shape[0], body, cache)


def lstm(w, inputs, h, c):
    def step(state, x):
        h, c = state
        i, f, g, o = jnp.split(jnp.concatenate([x, h], -1) @ w, 4, -1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    return lax.scan(step, (h, c), inputs)


def nested_loops(w, inputs):
    def outer(h, x):
        h, _ = lax.scan(lambda g, _: (jnp.tanh(g @ w), None), h + x, None, length=3)
        return h, h.sum(0)

    return lax.scan(outer, inputs[0], inputs)


_SQUARE = f32(256, 256)
_LAYERS = [(_SQUARE, f32(256)) for _ in range(4)]
_RECURRENT = (f32(128, 128), f32(128, 128), f32(64, 128), f32(32, 64, 128))

# Name to function, arguments, numbers of donated arguments.
PROGRAMS: dict[str, tuple[Any, tuple[Any, ...], tuple[int, ...]]] = {
    "mlp": (mlp, (_LAYERS, f32(512, 256)), ()),
    "mlp_step": (mlp_step, (_LAYERS, f32(512, 256), f32(512, 256)), (0,)),
    "convolutions": (convolutions, (f32(4, 32, 32, 16), [f32(3, 3, 16, 32), f32(3, 3, 32, 64)]), ()),
    "attention": (attention, (_SQUARE,) * 5, ()),
    "recurrent": (recurrent, _RECURRENT, ()),
    "recurrent_gradient": (recurrent_gradient, _RECURRENT, ()),
    "until": (until, (_SQUARE, s32()), ()),
    "switch": (switch, (s32(), _SQUARE, _SQUARE), ()),
    "fft_convolution": (fft_convolution, (f32(16, 4096), f32(16, 4096)), ()),
    "indexing": (indexing, (f32(256, 512), s32(128)), ()),
    "updates": (updates, (f32(256, 512), f32(256, 512)), (0,)),
    "lstm": (lstm, (f32(256, 512), f32(32, 64, 128), f32(64, 128), f32(64, 128)), ()),
    "nested_loops": (nested_loops, (f32(128, 128), f32(16, 64, 128)), ()),
}


def main(folder: str) -> None:
    for name, (function, arguments, donated) in PROGRAMS.items():
        options = {"xla_dump_to": os.path.join(folder, name), "xla_dump_hlo_as_text": True}
        jax.jit(function, donate_argnums=donated).lower(*arguments).compile(compiler_options=options)


if __name__ == "__main__":
    main(sys.argv[1])
