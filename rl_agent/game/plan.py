"""A finished game as a Plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.errors import PlannerError
from memplan.compiler.mapping.plan import BEFORE, Plan
from memplan.planners.stays.assembly import Stay, assemble
from memplan.rl_agent.game.game import Game
from memplan.rl_agent.game.reference import Reference
from memplan.rl_agent.game.residencies import BookedCopy, GameResidency


def replay(game: Game, history: Sequence[int] | NDArray[np.integer], until: int | None = None) -> Reference:
    """Returns the reference after the actions of a history, as it stood after a game's last backup.

    Args:
      game: that was played.
      history: an action for each move.
      until: how many moves are made; None for all.

    Raises:
      PlannerError: an action is missing or not legal.
    """
    until = len(game.moves) if until is None else until
    if len(history) < until:
        raise PlannerError(f"{len(history)} actions are given, but {until} moves of {game.problem.name} are to be made")
    reference = Reference(game)
    while reference.move < until:
        action = int(history[reference.move])
        if reference.is_dead or not 0 <= action < len(reference.legal) or not reference.legal[action]:
            buffer = game.problem.buffers[game.moves[reference.move].buffer].name
            raise PlannerError(f"action {action} at move {reference.move}, of {buffer}, is not legal")
        reference.step(action)
    return reference


def make_plan(reference: Reference, planner: str = "game", info: dict[str, Any] | None = None) -> Plan:
    """Returns the plan that a finished game makes, valid and as fast as the game says.

    Its latency is the latency with everything at home minus the game's `total`.

    Raises:
      PlannerError: the game is not over, or the buffers do not fit their homes.
    """
    if not reference.done:
        raise PlannerError(
            f"the game stands at move {reference.move} of {len(reference.game.moves)}: it must be over to be a plan"
        )
    return assembled(reference.game, reference.residencies, planner, info)


def assembled(
    game: Game, residencies: Mapping[int, GameResidency], planner: str = "game", info: dict[str, Any] | None = None
) -> Plan:
    """Returns the plan of a finished game.

    Args:
      game: that was played.
      residencies: in fast memory, by the move that opened them.
      planner, info: of the plan.

    Raises:
      PlannerError: the buffers do not fit their homes.
    """
    stays = [_stay(game, residency) for _, residency in sorted(residencies.items())]
    n = game.problem.end
    for buffer in game.late:
        stays.append(Stay(buffer, game.space, n, n + 1, (), prefetches=((n, n),), offset=game.homes[buffer]))
    return assemble(game.problem, stays, planner, info, home_offsets=game.homes).plan


def _stay(game: Game, residency: GameResidency) -> Stay:
    moves = [game.moves[number] for number in residency.moves]
    is_kept = moves[0].is_stay
    return Stay(
        buffer=moves[0].buffer,
        space=game.space,
        start=residency.start,
        end=residency.end,
        accesses=tuple(access for move in moves for access in move.accesses),
        prefetches=((BEFORE, 0),) if is_kept else _times(game, residency.prefetch),
        evictions=_times(game, residency.eviction),
        offset=residency.offset * game.unit,
    )


def _times(game: Game, booked: BookedCopy | None) -> tuple[tuple[int, int], ...]:
    if booked is None:
        return ()
    times = game.slots.time
    done = times[booked.last + 1] if booked.is_late else game.supply.awaited[booked.last]
    return ((int(times[booked.first]), int(done)),)
