"""A game as arrays of fixed sizes, so that games of different problems are compiled once and stand in one batch."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from memplan.compiler.errors import PlannerError
from memplan.compiler.hardware.roofline import durations
from memplan.rl_agent.game.game import Game
from memplan.rl_agent.game.moves import CLOSED, EVICTION, NONE, PREFETCH

Array = NDArray[np.generic]


class MoveRow(NamedTuple):
    """A row of `GameArrays.moves`, int32: fields of `moves.Move`, and these.

    Attributes:
      row: of the move's chain.
      is_first: whether it is the first move of its chain.
      floor, demand, taken: ticks of the move's operation: that it takes at least, of memory time, and of the link's
        channel, everything at home.
    """

    row: jax.Array
    is_first: jax.Array
    parent: jax.Array
    slot: jax.Array
    start: jax.Array
    end: jax.Array
    held: jax.Array
    lasting: jax.Array
    size: jax.Array
    reads: jax.Array
    writes: jax.Array
    is_operation: jax.Array
    is_last: jax.Array
    is_stay: jax.Array
    is_long: jax.Array
    is_first_access: jax.Array
    done: jax.Array
    before: jax.Array
    carrier: jax.Array
    trips: jax.Array
    carried: jax.Array
    worth: jax.Array
    place: jax.Array
    prefetch: jax.Array
    eviction: jax.Array
    saving: jax.Array
    traffic: jax.Array
    buffer: jax.Array
    floor: jax.Array
    demand: jax.Array
    taken: jax.Array
    ready: jax.Array


class MoveSeconds(NamedTuple):
    """A row of `GameArrays.seconds`, float32.

    Attributes:
      floor_seconds, demand_seconds: of the move's operation, what it takes at least, and its memory time with
        everything at home.
      saved_seconds: of that memory time, what the move saves in fast memory.
      repetitions: how often the operation runs.
      awaited_repetitions: how often the operation of `done` runs, which waits for the move's copies.
      prefetch_seconds, eviction_seconds: how long the link moves its bytes into fast memory, and home.
    """

    floor_seconds: jax.Array
    demand_seconds: jax.Array
    saved_seconds: jax.Array
    repetitions: jax.Array
    awaited_repetitions: jax.Array
    prefetch_seconds: jax.Array
    eviction_seconds: jax.Array


# What sizes are rounded up to, so that few are compiled; the reach must be the game's.
_MULTIPLES = {"moves": 512, "rows": 128, "slots": 512, "times": 512, "units": 64}


@dataclass(frozen=True)
class Padding:
    """The sizes of arrays: games of one padding can be stacked.

    Attributes:
      moves, slots: at least as many as the game has.
      rows: at least as many as chains that are being decided at once.
      times: at least one more than the problem has operations.
      units: at least as many as the game has.
      reach: the game's.
    """

    moves: int
    rows: int
    slots: int
    times: int
    units: int
    reach: int

    @staticmethod
    def of(*games: Game, multiple: int = 64) -> Padding:
        """Returns the least sizes, multiples of some number, that suit all of some games."""
        return Padding._of(games, dict.fromkeys(_MULTIPLES, multiple))

    @staticmethod
    def rounded(*games: Game) -> Padding:
        """Returns sizes that suit all of some games, and many others: what is compiled for them is likely there."""
        return Padding._of(games, _MULTIPLES)

    @staticmethod
    def _of(games: Sequence[Game], multiples: Mapping[str, int]) -> Padding:
        sizes = [_sizes(game) for game in games]
        least = {field.name: max(getattr(size, field.name) for size in sizes) for field in fields(Padding)}
        return Padding(
            **{name: -(-size // multiples.get(name, 1)) * multiples.get(name, 1) for name, size in least.items()}
        )


class GameArrays(NamedTuple):
    """What does not change while a game is played. A batch has one more axis in front of all.

    Attributes:
      num_moves: int32.
      moves: `[moves, len(MoveRow._fields)]` int32.
      seconds: `[moves, len(MoveSeconds._fields)]` float32.
      idle: `[slots]` int32, ticks left to copies with everything at home, or `CLOSED`, or `PASSED`.
      duration: `[slots]` int32, ticks that an operation takes with everything at home.
      slot_time, awaited: `[slots]` int32, its time, and that at which a copy up to it is awaited.
      busy_until: `[units]`, before the first move: 0, or `forever` for what cannot be used.
      no_rows: `[rows]` zeros. Its type, and that of `busy_until`, is int16 where all sizes of the padding allow that,
        otherwise int32; `forever` is its largest number.
      bottom: `[levels, times]` int32: units that are kept by the operations of `2**level` times.
      wanted_from: `[times, units]` when the guide next wants a unit, of the type of `busy_until`.
      queue: `[2]` int32, by `PREFETCH` and `EVICTION`.
      latency: `[2]` int32, ticks of latency of a copy, rounded down, by `PREFETCH` and `EVICTION`.
      window: `[reach]` int32: 0, 1, ….
      can_wait: int32, whether operations may wait for a copy.
      most_stays: int32, how many arguments may stay from run to run.
      home_latency: float32, seconds of everything at home.
      tick: float32, seconds.
      num_units, num_operations: float32.
    """

    num_moves: Array
    moves: Array
    seconds: Array
    idle: Array
    duration: Array
    slot_time: Array
    awaited: Array
    busy_until: Array
    no_rows: Array
    bottom: Array
    wanted_from: Array
    queue: Array
    latency: Array
    window: Array
    can_wait: Array
    most_stays: Array
    home_latency: Array
    tick: Array
    num_units: Array
    num_operations: Array


def _sizes(game: Game) -> Padding:
    """Returns the sizes of a game."""
    return Padding(
        moves=max(1, len(game.moves)),
        rows=1 + max(_rows(game), default=0),
        slots=max(len(game.slots.time), game.reach),
        times=game.problem.end + 1,
        units=game.num_units,
        reach=game.reach,
    )


def make_arrays(game: Game, padding: Padding | None = None) -> GameArrays:
    """Returns a game as arrays.

    Raises:
      PlannerError: the game is larger than the padding, or has another reach.
    """
    padding = padding or Padding.of(game)
    needed = _sizes(game)
    for field in fields(Padding):
        need, have = getattr(needed, field.name), getattr(padding, field.name)
        if need > have or (field.name == "reach" and need != have):
            raise PlannerError(f"{game.problem.name} needs {field.name}={need} in the game's padding, which has {have}")
    sizes = (getattr(padding, field.name) for field in fields(Padding))
    small = np.dtype(np.int16 if max(sizes) < forever(np.dtype(np.int16)) else np.int32)
    supply = game.supply
    wanted_from = np.full((padding.times, padding.units), forever(small), small)
    wanted_from[: game.wanted_from.shape[0], : game.num_units] = game.wanted_from
    return GameArrays(
        num_moves=np.array(len(game.moves), np.int32),
        moves=_move_rows(game, padding),
        seconds=_move_seconds(game, padding),
        idle=_padded(supply.idle, padding.slots, CLOSED),
        duration=_padded(durations(supply.floor, supply.demand), padding.slots, 0),
        slot_time=_padded(game.slots.time, padding.slots, game.problem.end),
        awaited=_padded(supply.awaited, padding.slots, game.problem.end),
        busy_until=_padded(np.where(game.blocked, forever(small), 0), padding.units, forever(small)).astype(small),
        no_rows=np.zeros(padding.rows, small),
        bottom=_most_reserved(game, padding),
        wanted_from=wanted_from,
        queue=np.array(supply.queue, np.int32),
        latency=np.array(supply.latency, np.int32),
        window=np.arange(padding.reach, dtype=np.int32),
        can_wait=np.array(supply.can_wait, np.int32),
        most_stays=np.array(game.most_stays, np.int32),
        home_latency=np.array(game.home_latency, np.float32),
        tick=np.array(supply.tick, np.float32),
        num_units=np.array(game.num_units, np.float32),
        num_operations=np.array(game.problem.end, np.float32),
    )


def _move_rows(game: Game, padding: Padding) -> NDArray[np.int32]:
    """Returns `GameArrays.moves`."""
    rows = _rows(game)
    seen: set[int] = set()
    is_first = []
    for move in game.moves:
        is_first.append(move.chain not in seen)
        seen.add(move.chain)
    slot = np.array([move.slot for move in game.moves], np.int64)
    columns = np.zeros((padding.moves, len(MoveRow._fields)), np.int32)
    for number, name in enumerate(MoveRow._fields):
        if name in ("floor", "demand", "taken"):
            column = getattr(game.supply, name)[slot]
        elif name == "row":
            column = np.array([rows[move.chain] for move in game.moves], np.int64)
        elif name == "is_first":
            column = np.array(is_first, np.int64)
        else:
            column = np.array([getattr(move, name) for move in game.moves], np.int64)
        columns[: len(game.moves), number] = column
    return columns


def _move_seconds(game: Game, padding: Padding) -> NDArray[np.float32]:
    """Returns `GameArrays.seconds`."""
    supply = game.supply
    slot, done, buffer = (
        np.array([getattr(move, name) for move in game.moves], np.int64) for name in ("slot", "done", "buffer")
    )
    columns = MoveSeconds(
        floor_seconds=supply.floor_seconds[slot],
        demand_seconds=supply.demand_seconds[slot],
        saved_seconds=np.array([move.seconds for move in game.moves], np.float64),
        repetitions=supply.repetitions[slot],
        awaited_repetitions=np.where(done == NONE, 0.0, supply.repetitions[done]),
        prefetch_seconds=supply.copy_seconds[PREFETCH][buffer],
        eviction_seconds=supply.copy_seconds[EVICTION][buffer],
    )
    seconds = np.zeros((padding.moves, len(columns)), np.float32)
    seconds[: len(game.moves)] = np.column_stack(columns)
    return seconds


def _most_reserved(game: Game, padding: Padding) -> NDArray[np.int32]:
    """Returns `GameArrays.bottom`."""
    levels = [_padded(game.reserved, padding.times, 0)]
    for level in range(max(padding.times - 1, 1).bit_length()):
        shifted = np.minimum(np.arange(padding.times) + (1 << level), padding.times - 1)
        levels.append(np.maximum(levels[-1], levels[-1][shifted]))
    return np.stack(levels)


def forever(dtype: np.dtype[Any]) -> int:
    """Returns a number that is later than all times, in arrays of some type."""
    return int(np.iinfo(dtype).max)


def _rows(game: Game) -> list[int]:
    """Returns a row for each chain: no two that are being decided at once have the same, and there are few."""
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for number, move in enumerate(game.moves):
        first.setdefault(move.chain, number)
        last[move.chain] = number
    rows = [0] * game.num_chains
    free: list[int] = []
    ended: list[tuple[int, int]] = []
    count = 0
    for chain in sorted(first, key=first.__getitem__):
        while ended and ended[0][0] < first[chain]:
            heapq.heappush(free, heapq.heappop(ended)[1])
        if free:
            rows[chain] = heapq.heappop(free)
        else:
            rows[chain], count = count, count + 1
        heapq.heappush(ended, (last[chain], rows[chain]))
    return rows


def _padded(values: NDArray[np.generic], size: int, filler: int) -> NDArray[np.int32]:
    result = np.full(size, filler, np.int32)
    result[: len(values)] = values
    return result
