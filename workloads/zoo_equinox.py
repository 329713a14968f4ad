"""Networks of equinox (Kidger and Garcia, arXiv 2111.00254) and differential equations of diffrax (arXiv 2202.02435).

A model of equinox is a pytree with functions among its leaves, which `eqx.partition` takes out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from memplan.workloads._weights import floats, ints
from memplan.workloads._zoo import KEY, optax_step
from memplan.workloads.registry import Built, workload

SOURCE = "equinox, arXiv 2111.00254"
NEEDS = ("equinox", "optax")


def _parted(make: Callable[[jax.Array], Any]) -> tuple[Any, Callable[[Any], Any]]:
    """Returns the abstract arrays of a model, and a function that puts them, or arrays, into the model again."""
    import equinox as eqx

    params, rest = eqx.partition(eqx.filter_eval_shape(make, KEY), lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))
    return params, lambda params: eqx.combine(params, rest)


@workload(
    "eqx.nn.MLP of eight layers, one step of optax.lion, batch 4096, float32",
    family="perceptron",
    source=f"{SOURCE}, and optax",
    kind="training",
    donate_argnums=(0, 1),
    needs=NEEDS,
)
def equinox_mlp_train(tiny: bool = False, batch: int = 4096) -> Built:
    import equinox as eqx
    import optax

    width, depth = (8, 2) if tiny else (1024, 8)
    params, model = _parted(lambda key: eqx.nn.MLP(width, 10, width, depth, key=key))

    def loss(params: Any, x: jax.Array, labels: jax.Array) -> jax.Array:
        logits = jax.vmap(model(params))(x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    return optax_step(loss, params, optax.lion(1e-4), floats(batch, width), ints(batch))


@workload(
    "six blocks of eqx.nn.MultiheadAttention and eqx.nn.MLP, 8 × 256 tokens, float32",
    family="encoder",
    source=SOURCE,
    needs=NEEDS,
)
def equinox_encoder_infer(tiny: bool = False, batch: int = 8) -> Built:
    import equinox as eqx

    layers, width, heads, length = (1, 8, 2, 6) if tiny else (6, 512, 8, 256)

    def make(key: jax.Array) -> list[Any]:
        return [
            (
                eqx.nn.LayerNorm(width),
                eqx.nn.MultiheadAttention(heads, width, key=key),
                eqx.nn.LayerNorm(width),
                eqx.nn.MLP(width, width, 4 * width, 1, jax.nn.gelu, key=key),
            )
            for key in jax.random.split(key, layers)
        ]

    params, model = _parted(make)

    def fun(params: Any, tokens: jax.Array) -> jax.Array:
        def encoded(x: jax.Array) -> jax.Array:
            for first, attention, second, mlp in model(params):
                y = jax.vmap(first)(x)
                x = x + attention(y, y, y)
                x = x + jax.vmap(mlp)(jax.vmap(second)(x))
            return x

        return jax.vmap(encoded)(tokens)

    return fun, (params, floats(batch, length, width))


@workload(
    "classifier with eqx.nn.GRUCell in a loop, one step of optax.rmsprop, 128 × 100 steps, float32",
    family="recurrent",
    source=f"{SOURCE}, and optax",
    kind="training",
    donate_argnums=(0, 1),
    needs=NEEDS,
)
def equinox_gru_train(tiny: bool = False, batch: int = 128) -> Built:
    import equinox as eqx
    import optax

    width, length = (8, 5) if tiny else (256, 100)
    params, model = _parted(
        lambda key: (eqx.nn.GRUCell(width, width, key=key), eqx.nn.Linear(width, "scalar", key=key))
    )

    def loss(params: Any, sequences: jax.Array, labels: jax.Array) -> jax.Array:
        cell, head = model(params)

        def classified(sequence: jax.Array) -> jax.Array:
            last, _ = jax.lax.scan(lambda hidden, x: (cell(x, hidden), None), jnp.zeros(width), sequence)
            logit: jax.Array = head(last)
            return logit

        return optax.sigmoid_binary_cross_entropy(jax.vmap(classified)(sequences), labels).mean()

    return optax_step(loss, params, optax.rmsprop(1e-3), floats(batch, length, width), floats(batch))


@workload(
    "U-Net of eqx.nn.Conv2d and eqx.nn.GroupNorm, 64 × 64 images, float32",
    family="diffusion",
    source=f"{SOURCE}; arXiv 1505.04597",
    needs=NEEDS,
)
def equinox_unet_infer(tiny: bool = False, batch: int = 16) -> Built:
    import equinox as eqx

    channels, size = (8, 8) if tiny else (64, 64)

    def make(key: jax.Array) -> list[Any]:
        keys = iter(jax.random.split(key, 6))
        sizes = ((3, 1, 1), (channels, 2, 2), (2 * channels, 4, 2))
        down = [eqx.nn.Conv2d(n, channels * m, 3, stride, 1, key=next(keys)) for n, m, stride in sizes]
        up = [eqx.nn.ConvTranspose2d(n * channels, n // 2 * channels, 4, 2, padding=1, key=next(keys)) for n in (4, 2)]
        last = eqx.nn.Conv2d(channels, 3, 1, key=next(keys))
        return [down, [eqx.nn.GroupNorm(4, n * channels) for n in (1, 2, 4)], up, last]

    params, model = _parted(make)

    def fun(params: Any, images: jax.Array) -> jax.Array:
        down, norms, up, last = model(params)

        def denoised(x: jax.Array) -> jax.Array:
            seen = []
            for convolution, norm in zip(down, norms, strict=True):
                x = jax.nn.silu(norm(convolution(x)))
                seen.append(x)
            for convolution, skipped in zip(up, seen[1::-1], strict=True):
                x = jax.nn.silu(convolution(x)) + skipped
            noise: jax.Array = last(x)
            return noise

        return jax.vmap(denoised)(images)

    return fun, (params, floats(batch, 3, size, size))


@workload(
    "neural differential equation by diffrax.Tsit5 with checkpoints, one step of optax.adabelief, batch 256, float32",
    family="differential-equation",
    source="diffrax, arXiv 2202.02435; equinox and optax",
    kind="training",
    donate_argnums=(0, 1),
    needs=(*NEEDS, "diffrax"),
)
def diffrax_ode_train(tiny: bool = False, batch: int = 256) -> Built:
    import diffrax
    import equinox as eqx
    import optax

    width, steps = (4, 4) if tiny else (128, 64)
    params, model = _parted(lambda key: eqx.nn.MLP(width, width, 2 * width, 2, jnp.tanh, key=key))

    def loss(params: Any, starts: jax.Array, ends: jax.Array) -> jax.Array:
        net = model(params)
        term = diffrax.ODETerm(lambda t, y, args: net(y))

        def end(start: jax.Array) -> jax.Array:
            solution = diffrax.diffeqsolve(term, diffrax.Tsit5(), 0.0, 1.0, 1.0 / steps, start, max_steps=steps + 1)
            last: jax.Array = solution.ys[-1]
            return last

        return optax.l2_loss(jax.vmap(end)(starts), ends).mean()

    return optax_step(loss, params, optax.adabelief(1e-3), floats(batch, width), floats(batch, width))
