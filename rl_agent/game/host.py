"""Games that are followed on the host's cores: the part of play in which no network is asked.

A game here has the same state as in `state.py`, so that games can go from here to JAX and back. A batch is split among
the cores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.errors import PlannerError
from memplan.planners.planner import num_cores
from memplan.rl_agent.game import host_kernel
from memplan.rl_agent.game.arrays import GameArrays, MoveRow, MoveSeconds, forever
from memplan.rl_agent.game.game import Game
from memplan.rl_agent.game.moves import ACTIONS, COPY, DROP, NO_COPY, NONE, NUM_ACTIONS
from memplan.rl_agent.game.residencies import BookedCopy, GameResidency
from memplan.rl_agent.game.room import FoundCopy
from memplan.rl_agent.game.state import ChainStates, State

T = TypeVar("T")

Bools = NDArray[np.bool_]

# What is played where the action that is followed is not legal.
INSTEAD = np.array([NO_COPY, COPY, DROP])

# Games as records: the fields of `State`, in which the fields of its parts stand beside the others.
Games = NDArray[np.void]

_MOVE_ROW = np.dtype(
    [(name, np.int32) for name in MoveRow._fields] + [(name, np.float32) for name in MoveSeconds._fields]
)

# The fields of each part of a state.
_NAMES = {
    name: {
        "chains": [f"chain_{part}" for part in ChainStates._fields],
        "prefetch": [f"prefetch_{part}" for part in FoundCopy._fields],
        "eviction": [f"eviction_{part}" for part in FoundCopy._fields],
    }.get(name, [name])
    for name in State._fields
}

# Where nothing is to be written.
_NO_TOTALS, _NO_BOOLS = np.zeros(0, np.float32), np.zeros(0, np.bool_)

# Games that a core takes at once: games of a batch take very different times.
_CHUNK = 8


class Host:
    """One game, to be followed by many.

    Args:
      arrays: of the game.

    Attributes:
      moves, board: what does not change while it is played.
      home: seconds of everything at home.
    """

    def __init__(self, arrays: GameArrays):
        self.moves = _moves(arrays)
        self.board = _board(arrays)
        self.home = np.float32(arrays.home_latency)
        self._record = _record(arrays)
        self._nobody_had_to = np.zeros(len(self.moves), np.bool_)

    def starts(self, histories: NDArray[np.int8]) -> Games:
        """Returns games before their first moves.

        Args:
          histories: `[games, moves]` actions that they are to follow.
        """
        games = np.zeros(len(histories), self._record)
        games["history"] = histories & np.int8(ACTIONS)
        host_kernel.begin(self.board, self.moves, games)
        return games

    def follow(
        self,
        games: Games,
        until: NDArray[np.integer] | None = None,
        patience: int = 0,
        had_to_drop: Bools | None = None,
        is_eager: Bools | None = None,
        instead: NDArray[np.integer] = INSTEAD,
    ) -> None:
        """Follows games as their own histories say, where that is legal.

        Args:
          games: `[games]`, changed in place.
          until: `[games]` moves from which on the first choice ends it; None to go to the end.
          patience: so many backups a game may have; with more it is given up, and does not end.
          had_to_drop: `[moves]` where the champion could do nothing else.
          is_eager: `[games]` whether to keep or fetch, where possible without waiting, what the champion had to drop.
          instead: `[3]` actions, of which the first legal one replaces an action of the history that is not legal.
        """
        count = len(games)
        until = np.full(count, len(self.moves)) if until is None else np.asarray(until, np.int64)
        is_eager = np.zeros(count, np.bool_) if is_eager is None else is_eager
        had_to_drop = self._nobody_had_to if had_to_drop is None else had_to_drop

        def chunk(first: int) -> None:
            host_kernel.follow(
                self.board, self.moves, games, first, min(first + _CHUNK, count), until, patience, instead,
                had_to_drop, is_eager, _NO_TOTALS, _NO_BOOLS,
            )  # fmt: skip

        in_threads(chunk, range(0, count, _CHUNK))

    def step_to_choice(self, games: Games, actions: NDArray[np.integer], patience: int) -> None:
        """Makes a move in each of some games, and all forced moves behind it.

        Args:
          games: `[games]`, changed in place.
          actions: `[games]`, legal; -1 for no move.
          patience: backups after which no further move is made.
        """
        host_kernel.step_to_choice(self.board, self.moves, games, np.asarray(actions, np.int64), patience)

    def random_games(self, seeds: Sequence[int]) -> Games:
        """Plays whole games, all legal actions equally likely, and returns them."""
        starts = self.starts(np.zeros((1, len(self.moves)), np.int8))

        def play(number: int) -> Games:
            game = starts.copy()
            host_kernel.play_at_random(self.board, self.moves, game, seeds[number] % 2**32)
            return game

        return np.concatenate(in_threads(play, range(len(seeds))))

    def residencies(self, game: Game, history: NDArray[np.integer]) -> dict[int, GameResidency]:
        """Returns the residencies of a finished game as the reference does, but without seconds of waits.

        Args:
          game: of the arrays.
          history: `[moves]` actions, legal as they are.

        Raises:
          PlannerError: an action is not legal.
        """
        found: dict[int, GameResidency] = {}
        opened: dict[int, int] = {}  # by chain, the move that opened the residency that may go on
        dirty: set[int] = set()  # chains of which home does not have the value
        state = self.starts(np.zeros((1, len(self.moves)), np.int8))
        for number, (move, action) in enumerate(zip(game.moves, history.tolist(), strict=False)):
            now = state[0]
            if not now["legal"][action] or now["is_dead"]:
                raise PlannerError(f"action {action} at move {number} is not legal")
            if move.parent == NONE or history[move.parent] == DROP:
                if action == NO_COPY and move.reads:
                    goes_on = found[opened[move.chain]]
                    goes_on.end = move.end
                    goes_on.moves.append(number)
                else:
                    before = found.get(opened.pop(move.chain, NONE))
                    if before is not None and move.chain in dirty and move.reads:
                        before.eviction = _booked(now, "eviction", False)
                        before.end = max(before.end, int(game.supply.awaited[before.eviction.last]))
                    dirty.discard(move.chain)
                    if action != DROP:
                        new = GameResidency(
                            move.chain, int(now["start"]), move.end, int(now["offset"]), move.size, [number]
                        )
                        if action == COPY:
                            new.prefetch = _booked(now, "prefetch", bool(now["is_late"]))
                        found[number], opened[move.chain] = new, number
                if move.writes and action != DROP:
                    dirty.add(move.chain)
            host_kernel.step(self.board, self.moves, state, 0, action)
        return found

    def trace(self, history: NDArray[np.int8]) -> tuple[NDArray[np.float32], Bools]:
        """Follows one game to its end.

        Args:
          history: `[moves]`, legal as it is, but for what stands behind the last move.

        Returns: `[moves + 1]` the seconds saved before each move and at the end, and `[moves]` where DROP was all that
          was legal.
        """
        count = len(self.moves)
        totals, dropped = np.zeros(count + 1, np.float32), np.zeros(count, np.bool_)
        host_kernel.follow(
            self.board, self.moves, self.starts(history[None]), 0, 1, np.array([count]), count, INSTEAD,
            self._nobody_had_to, np.zeros(1, np.bool_), totals, dropped,
        )  # fmt: skip
        return totals, dropped


def _booked(game: Any, way: str, is_late: bool) -> BookedCopy:
    """Returns the copy that a game would make, `prefetch` or `eviction`."""
    first, last, rest = (int(game[f"{way}_{part}"]) for part in FoundCopy._fields)
    return BookedCopy(first, last, rest, is_late)


def in_threads(function: Callable[[int], T], numbers: range) -> list[T]:
    """Returns what a function returns for some numbers, computed on all cores; it should not hold Python's lock."""
    if len(numbers) <= 1 or num_cores() == 1:
        return [function(number) for number in numbers]
    return list(_threads().map(function, numbers))


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(num_cores(), "memplan-game")


def _moves(arrays: GameArrays) -> NDArray[np.void]:
    """Returns the rows of all moves, their seconds with them, `[moves]`."""
    rows = np.zeros(len(arrays.moves), _MOVE_ROW)
    for row_type, columns in ((MoveRow, arrays.moves), (MoveSeconds, arrays.seconds)):
        for number, name in enumerate(row_type._fields):
            rows[name] = np.asarray(columns)[:, number]
    return rows


def _board(arrays: GameArrays) -> NDArray[np.void]:
    """Returns what does not change while a game is played, `[1]`."""
    parts: dict[str, Any] = {
        name: np.asarray(getattr(arrays, name))
        for name in (
            "num_moves", "idle", "duration", "slot_time", "awaited", "busy_until", "bottom", "wanted_from", "queue",
            "latency", "can_wait", "most_stays",
        )
    }  # fmt: skip
    parts["reach"] = np.array(len(arrays.window), np.int32)
    parts["tick"] = np.array(arrays.tick, np.float64)
    parts["forever"] = np.array(forever(arrays.no_rows.dtype), np.int32)
    board = np.zeros(1, np.dtype([(name, part.dtype, part.shape) for name, part in parts.items()], align=True))
    for name, part in parts.items():
        board[0][name] = part
    return board


def _record(arrays: GameArrays) -> np.dtype[np.void]:
    """Returns the type of a game's record."""
    small = arrays.no_rows.dtype
    slots, units, rows = (len(arrays.idle),), (len(arrays.busy_until),), (len(arrays.no_rows),)
    shapes: dict[str, tuple[Any, tuple[int, ...]]] = {
        "legal": (np.uint8, (NUM_ACTIONS,)),  # numba knows no bool in records
        "history": (np.int8, (len(arrays.moves),)),
        "left": (np.int32, slots),
        "owner": (np.int8, slots),
        "issued": (np.int8, slots),
        "duration": (np.int32, slots),
        "busy_until": (small, units),
        "held_until": (small, units),
    }
    shapes |= dict.fromkeys(("done", "is_dead", "is_late", "leads"), (np.uint8, ()))
    shapes |= dict.fromkeys(("reward", "total", "demand_seconds", "eviction_wait", "wait"), (np.float32, ()))
    shapes |= {f"chain_{part}": (small, rows) for part in ChainStates._fields}
    names = [name for parts in _NAMES.values() for name in parts]
    return np.dtype([(name, *shapes.get(name, (np.int32, ()))) for name in names], align=True)


def as_states(games: Games) -> State:
    """Returns games as a batch of states of `environment.py`, `[games, …]`, copied."""

    types: dict[str, Any] = {"chains": ChainStates, "prefetch": FoundCopy, "eviction": FoundCopy}
    parts: dict[str, Any] = {}
    for part, names in _NAMES.items():
        flags = part in ("legal", "done", "is_dead", "is_late", "leads")
        columns = [games[name].astype(np.bool_) if flags else np.ascontiguousarray(games[name]) for name in names]
        parts[part] = types[part](*columns) if part in types else columns[0]
    return State(**parts)
