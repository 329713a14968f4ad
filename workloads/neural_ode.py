"""A neural differential equation, solved with adaptive steps between observations: loops in a loop.

Chen et al., "Neural ordinary differential equations", arXiv 1806.07366. A scan runs over the times of observation; in
it, a loop whose trip count only the data decides takes steps of the pair of Bogacki and Shampine, "A 3(2) pair of
Runge–Kutta formulas", 1989, as long or short as the error allows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax

from memplan.workloads import _layers as nn
from memplan.workloads.registry import Built, sized, workload


@dataclass(frozen=True)
class NeuralOdeConfig:
    """Sizes of the model and of its input.

    Attributes:
      width: features of the state.
      hidden: features of the two hidden layers of its derivative.
      batch: trajectories at once.
      times: observations.
      tolerance: error of a step that is accepted, root mean square.
    """

    width: int = 256
    hidden: int = 1024
    batch: int = 256
    times: int = 32
    tolerance: float = 1e-3


def init(key: jax.Array, config: NeuralOdeConfig) -> nn.Params:
    """Returns the parameters, float32."""
    keys = jax.random.split(key, 3)
    sizes = (config.width + 1, config.hidden, config.hidden, config.width)
    return {"layers": [nn.dense_init(k, i, o) for k, i, o in zip(keys, sizes[:-1], sizes[1:], strict=True)]}


def derivative(params: nn.Params, y: jax.Array, t: jax.Array) -> jax.Array:
    """The rate of change of states `y` [B, C] at time `t`."""
    first, second, last = params["layers"]
    x = jnp.concatenate([y, jnp.broadcast_to(t, (y.shape[0], 1))], axis=-1)
    return nn.dense(last, jnp.tanh(nn.dense(second, jnp.tanh(nn.dense(first, x)))))


def solve(
    rate: Callable[[jax.Array, jax.Array], jax.Array], y: jax.Array, times: jax.Array, tolerance: float
) -> tuple[jax.Array, jax.Array]:
    """Integrates `dy/dt = rate(y, t)` from `times[0]`.

    Args:
      rate: of states [B, C] at a scalar time.
      y: [B, C] state at `times[0]`.
      times: [N] increasing.
      tolerance: root-mean-square error allowed in a step.

    Returns:
      the states at `times[1:]`, [N − 1, B, C], and the number of steps tried for each, [N − 1] int32.
    """

    def advance(
        carry: tuple[jax.Array, ...], end: jax.Array
    ) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, jax.Array]]:
        y, t, step = carry

        def unfinished(state: tuple[jax.Array, ...]) -> jax.Array:
            return state[1] < end

        def attempt(state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            y, t, slope, step, tries = state
            h = jnp.minimum(step, end - t)
            slope2 = rate(y + h / 2 * slope, t + h / 2)
            slope3 = rate(y + 3 * h / 4 * slope2, t + 3 * h / 4)
            reached = y + h * (2 / 9 * slope + 1 / 3 * slope2 + 4 / 9 * slope3)
            slope4 = rate(reached, t + h)
            error = h * (-5 / 72 * slope + 1 / 12 * slope2 + 1 / 9 * slope3 - 1 / 8 * slope4)
            ratio = jnp.sqrt(jnp.square(error).mean()) / tolerance
            accepted = ratio <= 1
            next_t = jnp.where(h < step, end, t + h)
            # The floor keeps the steps from vanishing, and so the loop finite, where the error never is small enough.
            step = jnp.maximum(h * jnp.clip(0.9 * (ratio + 1e-10) ** (-1 / 3), 0.2, 5.0), 1e-5)
            accepted |= h <= 1e-5
            return (
                jnp.where(accepted, reached, y),
                jnp.where(accepted, next_t, t),
                jnp.where(accepted, slope4, slope),
                step,
                tries + 1,
            )

        start = (y, t, rate(y, t), step, jnp.int32(0))
        y, t, _, step, tries = lax.while_loop(unfinished, attempt, start)
        return (y, t, step), (y, tries)

    first_step = (times[1] - times[0]) / 4
    return lax.scan(advance, (y, times[0], first_step), times[1:])[1]


TINY = NeuralOdeConfig(width=4, hidden=8, batch=3, times=3)


@workload(
    "adaptive Runge–Kutta steps of a network of 1024, 256 trajectories, 32 times, float32",
    family="differential-equation",
    source="Chen et al., arXiv 1806.07366",
)
def neural_ode(tiny: bool = False, batch: int | None = None) -> Built:
    config = sized(NeuralOdeConfig(), TINY, tiny, batch)

    def neural_ode(params: nn.Params, y: jax.Array, times: jax.Array) -> tuple[jax.Array, jax.Array]:
        return solve(lambda y, t: derivative(params, y, t), y, times, config.tolerance)

    y = jax.ShapeDtypeStruct((config.batch, config.width), jnp.float32)
    return neural_ode, (nn.abstract(init, config), y, jax.ShapeDtypeStruct((config.times,), jnp.float32))
