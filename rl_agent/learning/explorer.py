"""Exploration of one game: windows around a present game, by the policy of values that are learned meanwhile.

Play goes on from games that are not much worse than the present one, as in simulated annealing (Kirkpatrick et al.,
1983) with the learned policy as its proposal. Each exploration cools down to almost nothing, so that it ends at a game
that no small change improves.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from memplan.rl_agent.game.host import INSTEAD, Host
from memplan.rl_agent.learning import window_kernel
from memplan.rl_agent.learning.values import Floats, MoveValues

# Moves between marks, at least, and how many marks there are, at most.
_EVERY, _MOST_MARKS = 16, 96

# The unit of values, of the latency with everything at home.
_SCALE = 3e-4


class Explored(NamedTuple):
    """What an exploration found.

    Attributes:
      history, total: `[moves]` the game that it ended at, and the seconds that it saves.
      best_history, best_total: the best game.
      games: how many were played; with none, the present game is set back, or nothing in it may be changed.
    """

    history: NDArray[np.int8]
    total: float
    best_history: NDArray[np.int8]
    best_total: float
    games: int


class Explorer:
    """What explorations of a game need besides values.

    Args:
      host: the game.
      features: `[moves, features]`, see `values.py`.
    """

    def __init__(self, host: Host, features: Floats):
        self._host, self._features = host, features
        moves = host.moves[: int(host.board["num_moves"][0])]
        self._every = max(_EVERY, -(-len(moves) // _MOST_MARKS))
        num_marks = -(-max(len(moves), 1) // self._every)
        at = np.arange(num_marks) * self._every
        number = np.arange(len(moves))
        self._rows = _listed(_active_rows(moves), at)
        last_child = np.full(len(moves), -1)
        inside = moves["parent"] >= 0
        np.maximum.at(last_child, moves["parent"][inside], number[inside])
        self._parents = _listed(
            [(first, last, first) for first, last in zip(number.tolist(), last_child.tolist(), strict=True)], at
        )
        done = np.where(moves["done"] >= 0, moves["done"], len(host.board["idle"][0]))
        self._least_done = np.minimum.accumulate(done[::-1])[::-1][at].astype(np.int64) if len(moves) else at
        self._blank = host.starts(np.zeros((1, len(host.moves)), np.int8))
        self._marks = np.repeat(self._blank, num_marks + 1)
        self._trials = np.repeat(self._blank, num_marks + 1)

    def explore(
        self,
        history: NDArray[np.int8],
        values: MoveValues,
        heat: float,
        budget: int,
        seed: int,
        learns: bool = True,
        frozen: int = 0,
    ) -> Explored:
        """Returns what was found around a game; the values are changed if it learns.

        Args:
          history: `[moves]` of the present game.
          values: of the game's moves.
          heat: temperature at which it begins, of the latency with everything at home.
          budget: moves that may be made.
          seed: of what is drawn.
          learns: whether the values learn.
          frozen: the first move that may be changed.
        """
        home = float(self._host.home)
        self._marks[0] = self._blank[0]
        present, best = history.copy(), history.copy()
        total, best_total, games = window_kernel.explore(
            self._host.board, self._host.moves, self._marks, self._trials, self._every, self._rows, self._parents,
            self._least_done, present, best, values.items, values.visits, values.cost, self._features, values.weights,
            learns, frozen, INSTEAD, heat * home, max(_SCALE * home, 1e-30), budget, seed % 2**32,
        )  # fmt: skip
        return Explored(present, total, best, best_total, games)


def _active_rows(moves: Any) -> list[tuple[int, int, int]]:
    """Returns the first and last move of each chain, and its row."""
    found = []
    open_rows: dict[int, list[int]] = {}
    for number, move in enumerate(moves):
        row = int(move["row"])
        if move["is_first"]:
            open_rows[row] = [number, number, row]
            found.append(open_rows[row])
        open_rows[row][1] = number
    return [(first, last, row) for first, last, row in found]


def _listed(
    spans: list[tuple[int, int, int]], at: NDArray[np.integer[Any]]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns what is in force at each of some moves.

    Args:
      spans: first and last move, and a value: in force after the first and up to the last.
      at: the moves.

    Returns: `[len(at) + 1]` where the values of each begin, and the values.
    """
    values = [[value for first, last, value in spans if first < number <= last] for number in at]
    begins = np.cumsum([0, *map(len, values)]).astype(np.int64)
    return begins, np.array([value for part in values for value in part], np.int64)
