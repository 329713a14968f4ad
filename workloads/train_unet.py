"""One Adam step of a diffusion U-Net, which draws noise and learns to predict it (Ho et al., arXiv 2006.11239)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from memplan.workloads import _layers as nn
from memplan.workloads import train_blocks as blocks
from memplan.workloads import unet as model
from memplan.workloads.registry import workload
from memplan.workloads.train_step import Built, TrainStep, adam_step
from memplan.workloads.unet import UNetConfig

_CONFIGS = {
    "tiny": UNetConfig(
        width=4, factors=(1, 2), blocks=1, attended=(4,), groups=2, heads=2, batch=2, image=8, dtype=jnp.float32
    ),
    "small": UNetConfig(
        width=32, factors=(1, 2, 2), blocks=1, attended=(8,), groups=8, heads=2, batch=4, image=32, dtype=jnp.float32
    ),
    "real": UNetConfig(batch=16),
}

# What the blocks hand on: the current value, and the outputs of the way down that the way up still takes.
_State = tuple[jax.Array, list[jax.Array]]


def predicted_noise(params: nn.Params, images: jax.Array, time: jax.Array, config: UNetConfig) -> jax.Array:
    """Noise in images [B, height, width, 3] at time steps [B], as `unet.apply`, with its blocks marked."""
    embedded = model.time_features(params["time"], time, config.width, config.dtype)

    def down(block: nn.Params) -> Callable[[_State], _State]:
        def run(state: _State) -> _State:
            x = model.unit(block, state[0], embedded, config)
            return x, [*state[1], x]

        return run

    def shrink(kernel: jax.Array) -> Callable[[_State], _State]:
        def run(state: _State) -> _State:
            x = nn.conv2d(kernel, state[0], stride=2)
            return x, [*state[1], x]

        return run

    def middle(block: nn.Params) -> Callable[[_State], _State]:
        return lambda state: (model.unit(block, state[0], embedded, config), state[1])

    def up(block: nn.Params) -> Callable[[_State], _State]:
        def run(state: _State) -> _State:
            x, left = state
            return model.unit(block, jnp.concatenate([x, left[-1]], axis=-1), embedded, config), left[:-1]

        return run

    def grow(kernel: jax.Array) -> Callable[[_State], _State]:
        return lambda state: (nn.conv2d(kernel, state[0].repeat(2, axis=1).repeat(2, axis=2)), state[1])

    parts: list[Callable[[_State], _State]] = []
    for level in params["down"]:
        parts += [down(block) for block in level["units"]]
        parts += [] if level["shrink"] is None else [shrink(level["shrink"])]
    parts += [middle(block) for block in params["middle"]]
    for level in params["up"]:
        parts += [up(block) for block in level["units"]]
        parts += [] if level["grow"] is None else [grow(level["grow"])]
    first = nn.conv2d(params["first"], images.astype(config.dtype))
    x, _ = blocks.chain(parts, (first, [first]))
    x = jax.nn.silu(nn.group_norm(params["norm"], x, config.groups))
    return nn.conv2d(params["last"], x).astype(jnp.float32)


def loss(config: UNetConfig, params: nn.Params, images: jax.Array, time: jax.Array, seed: jax.Array) -> jax.Array:
    """Mean squared error of the noise that is predicted, where `seed`, an int32 scalar, decides the noise."""
    noise = jax.random.normal(jax.random.key(seed), images.shape)
    share = model.signal_share(time)[:, None, None, None]
    noisy = jnp.sqrt(share) * images + jnp.sqrt(1 - share) * noise
    return jnp.square(predicted_noise(params, noisy, time, config) - noise).mean()


def _build(size: str) -> Built:
    config = _CONFIGS[size]

    images = jax.ShapeDtypeStruct((config.batch, config.image, config.image, 3), jnp.float32)
    time = jax.ShapeDtypeStruct((config.batch,), jnp.int32)
    seed = jax.ShapeDtypeStruct((), jnp.int32)
    return adam_step(partial(loss, config), nn.abstract(model.init, config), images, time, seed)


unet = TrainStep("unet", "diffusion U-Net that draws its noise, Adam", _build)


@workload(
    "diffusion U-Net, 128 to 512 channels, one Adam step on 16 images of 64 × 64, mixed precision",
    family="diffusion",
    source="Ho et al., arXiv 2006.11239",
    kind="training",
    donate_argnums=(0, 1),
)
def unet_train(tiny: bool = False) -> Built:
    return unet.build("tiny" if tiny else "real")
