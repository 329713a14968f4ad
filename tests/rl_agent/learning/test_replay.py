"""The memory of windows."""

from __future__ import annotations

import numpy as np

from memplan.rl_agent.learning.replay import Replay
from memplan.rl_agent.learning.self_play import Trajectories
from memplan.rl_agent.learning.sight import Sight


def windows(*ends: float) -> Trajectories:
    """Returns windows of two choices that end so far ahead."""
    n = len(ends)
    return Trajectories(
        sight=Sight(*(np.zeros((n, 2, 1), np.float16) for _ in Sight._fields)),
        legal=np.ones((n, 2, 3), np.bool_),
        action=np.zeros((n, 2), np.int8),
        policy=np.zeros((n, 2, 3), np.float16),
        value=np.zeros((n, 2), np.float32),
        lead=np.zeros((n, 3), np.float32),
        is_made=np.ones((n, 2), np.bool_),
        end=np.array(ends, np.float32),
    )


def test_the_oldest_go_first() -> None:
    replay = Replay(3, windows(0.0))
    replay.add(windows(1.0, 2.0))
    assert replay.size == 2
    replay.add(windows(3.0, 4.0))
    assert replay.size == 3
    assert sorted(replay.windows.end.tolist()) == [2.0, 3.0, 4.0]
    replay.add(windows(5.0, 6.0, 7.0, 8.0))
    assert sorted(replay.windows.end.tolist()) == [6.0, 7.0, 8.0]


def test_what_gained_is_drawn_more_often_and_what_was_not_made_never() -> None:
    replay = Replay(3, windows(0.0))
    replay.add(windows(0.5, -0.5, -0.5)._replace(is_made=np.array([[1, 1], [1, 0], [0, 0]], np.bool_)))
    drawn = np.bincount(replay.draw(np.random.default_rng(0), 4000), minlength=3) / 4000
    np.testing.assert_allclose(drawn, [0.75, 0.25, 0.0], atol=0.03)


def test_restored_as_it_was() -> None:
    replay = Replay(3, windows(0.0))
    replay.add(windows(1.0, 2.0, 3.0, 4.0))
    rows = np.array([0, 2])
    replay.renew(rows, np.full((2, 2, 3), 0.5), np.full((2, 2), 9.0))
    other = Replay(3, windows(0.0))
    other.restore(replay.state())
    assert (other.size, other.place) == (replay.size, replay.place)
    for mine, theirs in zip(replay.windows[1:], other.windows[1:], strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert replay.take(rows).value.tolist() == [[9.0, 9.0], [9.0, 9.0]]
    generator = np.random.default_rng(1), np.random.default_rng(1)
    assert (replay.draw(generator[0], 9) == other.draw(generator[1], 9)).all()
