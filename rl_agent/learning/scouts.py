"""Scouts: players of many games around the champion that change it where the policy would, without asking it again.

A network costs as much as a hundred moves of the game. Beside the windows, which the agent searches choice by choice,
scouts therefore draw changes from what the policy says along the champion, and play on from games that are not much
worse: simulated annealing (Kirkpatrick et al., 1983) with the policy as its proposal. Each exploration cools down to
almost nothing, so that it ends at a game that no small change improves.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from memplan.rl_agent.game.host import INSTEAD, Host, in_threads
from memplan.rl_agent.learning import scout_kernel

# Moves between marks, at least, and how many marks there are, at most.
_EVERY, _MOST_MARKS = 16, 96

# The policy is raised to this power, and every action has at least this probability: games of scouts are many and
# cheap.
_POWER, _LEAST = 1.0 / 3.0, 0.05

# The last scout begins at so much of the first one's temperature. Which temperature is best depends on the program.
_COLDEST = 0.03


class Scouted(NamedTuple):
    """What a scout found.

    Attributes:
      history, total: `[moves]` the game that they would go on from, and the seconds that it saves.
      best_history, best_total: the best game.
      games: how many were played.
    """

    history: NDArray[np.int8]
    total: float
    best_history: NDArray[np.int8]
    best_total: float
    games: int


class Scouts:
    """The scouts of one game.

    Args:
      host: the game.
      count: how many there are, each with a chain of games of its own.
    """

    def __init__(self, host: Host, count: int):
        self._host = host
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
        blank = host.starts(np.zeros((1, len(host.moves)), np.int8))
        self._marks = [np.repeat(blank, num_marks + 1) for _ in range(count)]
        self._trials = [np.repeat(blank, num_marks + 1) for _ in range(count)]
        self._blank = blank

    def explore(
        self,
        history: NDArray[np.int8],
        policy: NDArray[np.floating[Any]],
        urge: NDArray[np.floating[Any]],
        heat: float,
        budget: int,
        seed: int,
    ) -> list[Scouted]:
        """Returns what each scout found, of those that played any game.

        Args:
          history: `[moves]` of the champion.
          policy: `[moves, 3]` along it.
          urge: `[moves]` how likely a change begins at each.
          heat: seconds, the temperature at which the first scout begins; the others begin colder.
          budget: moves that each may make.
          seed: of what is drawn.
        """
        policy = np.asarray(policy, np.float64) ** _POWER
        policy = np.maximum(policy / np.maximum(policy.sum(axis=1, keepdims=True), 1e-9), _LEAST)
        cumulated = np.cumsum(np.asarray(urge, np.float64))
        if not len(cumulated) or not cumulated[-1] > 0:
            return []

        def scout(number: int) -> Scouted:
            marks = self._marks[number]
            warmth = heat * _COLDEST ** (number / max(len(self._marks) - 1, 1))
            marks[0] = self._blank[0]
            present, best = history.copy(), history.copy()
            total, best_total, games = scout_kernel.anneal(
                self._host.board, self._host.moves, marks, self._trials[number], self._every, self._rows, self._parents,
                self._least_done, present, np.zeros(len(history), np.bool_), best, policy, cumulated, INSTEAD, warmth,
                budget, (seed + number) % 2**32,
            )  # fmt: skip
            return Scouted(present, total, best, best_total, games)

        return [found for found in in_threads(scout, range(len(self._marks))) if found.games]


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
