"""What is learned from."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from learning_problems import SMALL, padding_of, problem_of

from memplan.rl_agent.learning.trainer import Trainer
from memplan.rl_agent.learning.update import value_targets


def test_value_targets() -> None:
    """By hand: bootstrapped inside of the window, known at its end."""
    from test_replay import windows

    two = windows(0.5)._replace(
        lead=np.array([[0.0, 0.1, 0.3]], np.float32),
        value=np.array([[7.0, 0.05]], np.float32),
        is_made=np.array([[True, True]]),
    )
    np.testing.assert_allclose(value_targets(two, 1), [[0.1 + 0.05, 0.5 - 0.1]], rtol=1e-6)
    np.testing.assert_allclose(value_targets(two, 5), [[0.5, 0.4]], rtol=1e-6)
    short = two._replace(is_made=np.array([[True, False]]))
    np.testing.assert_allclose(value_targets(short, 1)[:, 0], [0.5], rtol=1e-6)


def test_losses_fall_on_what_is_learned_from() -> None:
    problem = problem_of(2)
    trainer = Trainer([problem], SMALL, padding_of(problem))
    for _ in range(3):
        trainer.step()
    rows = np.flatnonzero(trainer.replay.windows.is_made[: trainer.replay.size, 0])
    windows = jax.tree.map(jnp.asarray, trainer.replay.take(np.resize(rows, SMALL.update.batch)))
    place = jnp.zeros(SMALL.update.batch, jnp.int32)
    said = []  # before each step
    for _ in range(61):
        trainer.params, trainer.memory, losses = trainer.agent.learn(trainer.params, trainer.memory, windows, place)
        said.append(losses)
    before, after = said[0], said[-1]
    assert float(after.value) < float(before.value)
    assert float(after.reward) < float(before.reward)
    assert float(after.total) < 0.9 * float(before.total)
    assert all(bool(jnp.isfinite(x)) for x in after)
