"""Memory of what was played, to learn from it: a ring of windows, in arrays of NumPy.

Windows are drawn with a probability that grows with what they gained on their base (prioritized replay, Schaul et al.,
2016, with the gain in place of the error): most windows gain nothing, and those that do show how.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from memplan.rl_agent.learning.self_play import Trajectories
from memplan.rl_agent.learning.sight import Sight

# By how much a window that gained is likelier to be drawn than one that lost.
_FAVOUR = 3.0


class Replay:
    """The latest windows.

    Args:
      capacity: how many are kept.
      example: trajectories, `[games, ...]`, that give shapes and types.

    Attributes:
      size: how many there are.
      place: where the next one goes.
      windows: `Trajectories` of `[capacity, ...]` arrays.
    """

    def __init__(self, capacity: int, example: Trajectories):
        self.capacity, self.size, self.place = capacity, 0, 0
        self.windows: Trajectories = jax.tree.map(lambda x: np.zeros((capacity, *x.shape[1:]), x.dtype), example)

    def add(self, trajectories: Trajectories) -> None:
        """Puts windows in, over the oldest."""
        count = len(trajectories.end)
        if count > self.capacity:
            trajectories = jax.tree.map(lambda x: x[-self.capacity :], trajectories)
            count = self.capacity
        rows = (self.place + np.arange(count)) % self.capacity

        def put(into: NDArray[Any], values: Any) -> None:
            into[rows] = np.asarray(values)

        jax.tree.map(put, self.windows, trajectories)
        self.place = (self.place + count) % self.capacity
        self.size = min(self.capacity, self.size + count)

    def draw(self, generator: np.random.Generator, count: int) -> NDArray[np.int64]:
        """Returns the numbers of windows, drawn with replacement."""
        weight = np.where(self.windows.end[: self.size] > 0, _FAVOUR, 1.0) * self.windows.is_made[: self.size, 0]
        total = weight.sum()
        if total <= 0:
            return generator.integers(self.size, size=count)
        return generator.choice(self.size, count, p=weight / total)

    def take(self, rows: NDArray[np.int64]) -> Trajectories:
        """Returns windows by their numbers."""
        taken: Trajectories = jax.tree.map(lambda x: x[rows], self.windows)
        return taken

    def renew(self, rows: NDArray[np.int64], policy: NDArray[Any], value: NDArray[Any]) -> None:
        """Replaces what searches said of windows by what they say now: reanalysis (Schrittwieser et al., 2021)."""
        self.windows.policy[rows] = policy
        self.windows.value[rows] = value

    def state(self) -> dict[str, Any]:
        """Returns everything in it as a tree of arrays, to be saved."""
        windows = {**self.windows._asdict(), "sight": self.windows.sight._asdict()}
        return {"size": np.array(self.size), "place": np.array(self.place), "windows": windows}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes what `state` returned."""
        self.size, self.place = int(state["size"]), int(state["place"])
        windows = jax.tree.map(np.array, state["windows"])
        self.windows = Trajectories(**{**windows, "sight": Sight(**windows["sight"])})
