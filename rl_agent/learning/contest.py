"""One problem that is played: the game that play goes on from, and the best game so far.

A game decides offsets in program order, which it does worse than anything else. So from time to time the best game is
*repacked*: its plan becomes the guide of the game's offsets (`game/guide.py`), and play goes on with those.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.rl_agent.game import host_kernel
from memplan.rl_agent.game.arrays import GameArrays, Padding, make_arrays
from memplan.rl_agent.game.game import Game
from memplan.rl_agent.game.guide import Wish
from memplan.rl_agent.game.host import Host
from memplan.rl_agent.game.moves import ACTIONS, COPY, DROP, NO_COPY, NONE
from memplan.rl_agent.game.plan import assembled
from memplan.rl_agent.learning.scouts import Scouts
from memplan.rl_agent.learning.scripted import scripted
from memplan.rl_agent.learning.sight import Champion, trace

History = NDArray[np.int8]


class Contest:
    """A contest: a problem, the game that others are to beat, and the best game so far.

    Args:
      problem: to be played.
      padding: of its arrays; None for the smallest.
      start: plan to go on from, and whose offsets guide the game; None to begin with rules of thumb.
      scouts: how many explore the game.

    Attributes:
      game, arrays, host: as they are guided now.
      champion: the game that play goes on from.
      total: seconds that it saves.
      best_total: seconds that the best game ever saved.

    Raises:
      PlannerError: there is no fast memory, or the game does not fit the padding.
    """

    def __init__(
        self, problem: MappingProblem, padding: Padding | None = None, start: Plan | None = None, scouts: int = 2
    ):
        self.problem = problem
        self.game = Game(problem, guide=None)
        self._num_scouts = scouts
        self._guided_by(start, padding)
        self.best_total = -np.inf
        self._best_history: History | None = None
        self._best_plan: Plan | None = None
        if start is None:
            self.go_on_from(scripted(self.host)[0])
            self.repack()
        else:
            self.go_on_from(history_of(self.game, self.host, start))

    def _guided_by(self, guide: Plan | None, padding: Padding | None, wishes: Sequence[Wish] = ()) -> None:
        self._guide, self._wishes = guide, tuple(wishes)
        self.game = self.game.guided(guide, wishes)
        self.padding = padding or Padding.of(self.game)
        self.arrays: GameArrays = make_arrays(self.game, self.padding)
        self.host = Host(self.arrays)
        self._scouts: Scouts | None = None

    def go_on_from(self, history: History) -> bool:
        """Makes a finished game the champion; returns whether it is the best one ever.

        Args:
          history: its actions; if there are fewer than moves in the padding, the others do not matter.
        """
        padded = np.full(self.padding.moves, DROP, np.int8)
        padded[: len(history)] = history & ACTIONS
        self._show(padded)
        return self._remember(np.asarray(self.champion.history), self.total)

    def _show(self, history: History) -> None:
        self.champion: Champion = trace(self.host, history)
        self.total = float(self.champion.totals[-1])

    def is_beaten_by(self, total: float) -> bool:
        """Whether a game that saves so many seconds is better than the best one, by more than rounding."""
        return total > self.best_total + 1e-7 * self.game.home_latency

    def _remember(self, history: History, total: float) -> bool:
        if not self.is_beaten_by(total):
            return False
        self.best_total, self._best_history = total, history.copy()
        return True

    def repack(self, generator: np.random.Generator | None = None, share: float = 0.0) -> bool:
        """Repacks the best game and goes on from it; returns whether that made it better.

        Args:
          generator: draws wishes.
          share: of the values that the best game has at home but could have in fast memory: so many are packed too.
        """
        plan = self.plan()
        history = self._best_history
        self._best_plan, self._best_history = plan, None
        wishes: list[Wish] = []
        if generator is not None and share > 0.0:
            wishes = wishes_of(self.game, plan)
            wishes = [wish for wish, drawn in zip(wishes, generator.random(len(wishes)), strict=True) if drawn < share]
        self._guided_by(plan, self.padding, wishes)
        if history is None:
            return self.go_on_from(history_of(self.game, self.host, plan))
        # Under other offsets some of its actions may not be legal.
        games = self.host.starts(history[None])
        self.host.follow(games)
        # If it is set back, play goes on from rules of thumb.
        return self.go_on_from(games["history"][0] if games["done"][0] else scripted(self.host)[0])

    def rival(self, generator: np.random.Generator) -> Contest | None:
        """Returns a rival: a contest that begins at the champion, but with another argument that stays, or with none.

        Everything else has to be decided again around that argument, so changing it alone looks bad at first.

        Returns: None if there is no choice.
        """
        stays, history = self.stays, self.champion.history.copy()
        is_kept = history[stays] == NO_COPY
        others = stays[~is_kept].tolist() + [NONE] * bool(is_kept.any())
        if not others:
            return None
        history[stays] = DROP
        chosen = int(generator.choice(others))
        if chosen != NONE:
            history[chosen] = NO_COPY
        games = self.host.starts(history[None])
        self.host.follow(games, patience=len(self.game.moves))
        rival = self.twin()
        rival.best_total, rival._best_plan = -np.inf, None
        rival.go_on_from(games["history"][0])
        return rival

    @property
    def stays(self) -> NDArray[np.int64]:
        """Moves of the arguments that may stay from run to run."""
        return np.array([number for number, move in enumerate(self.game.moves) if move.is_stay], np.int64)

    def twin(self) -> Contest:
        """Returns the same contest, to go on from here in another way."""
        twin = copy.copy(self)
        twin._scouts = None  # Scouts have states of their own.
        return twin

    def give_way_to(self, rival: Contest) -> None:
        """Becomes what another contest of the same problem is."""
        vars(self).update(vars(rival))

    @property
    def scouts(self) -> Scouts:
        """The scouts of the game as it is guided now; made when first asked for, since they have many states."""
        if self._scouts is None:
            self._scouts = Scouts(self.host, self._num_scouts)
        return self._scouts

    @property
    def latency(self) -> float:
        """Latency of the best game, in seconds."""
        return self.game.home_latency - self.best_total

    def plan(self, planner: str = "agent", info: dict[str, Any] | None = None) -> Plan:
        """Returns the plan of the best game."""
        if self._best_history is None:
            assert self._best_plan is not None
            return replace(self._best_plan, planner=planner, info=info or {})
        return assembled(self.game, self.host.residencies(self.game, self._best_history), planner, info)

    def state(self) -> dict[str, Any]:
        """Returns everything that play depends on, as arrays."""
        return {
            "guide": _as_bytes(_described(self._guide)),
            "wishes": _as_bytes([(w.buffer, w.start, w.end, w.accesses) for w in self._wishes]),
            "history": np.asarray(self.champion.history),
            "best_history": self._best_history if self._best_history is not None else np.full(1, -1, np.int8),
            "best_plan": _as_bytes(_described(self._best_plan)),
            "best_total": np.array(self.best_total),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Takes what `state` returned."""
        wishes = [
            Wish(buffer, start, end, tuple(accesses)) for buffer, start, end, accesses in _from_bytes(state["wishes"])
        ]
        self._guided_by(_as_plan(state["guide"]), self.padding, wishes)
        history = np.array(state["best_history"], np.int8)
        self._best_history = None if history[0] < 0 else history
        self._best_plan = _as_plan(state["best_plan"])
        self.best_total = float(state["best_total"])
        self._show(np.array(state["history"], np.int8))


def history_of(game: Game, host: Host, plan: Plan) -> History:
    """Returns the game that decides as a plan does, wherever that is legal.

    Args:
      game, host: of the plan's problem.
      plan: of any planner.
    """
    games = host.starts(np.zeros((1, len(host.moves)), np.int8))
    last: dict[int, int] = {}
    while not games["done"][0]:
        move, legal = game.moves[games["move"][0]], games["legal"][0]
        served = {plan.served[access] for access in move.accesses}
        here = [plan.residencies[number] for number in served]
        stays = (
            len(here) == 1 and here[0].space == game.space and here[0].start <= move.start <= move.end <= here[0].end
        )
        if not stays:
            order = (DROP, NO_COPY, COPY)
        elif move.reads and last.get(move.chain) not in served:
            order = (COPY, NO_COPY, DROP)
        else:
            order = (NO_COPY, COPY, DROP)
        if len(served) == 1:
            last[move.chain] = next(iter(served))
        host_kernel.step(host.board, host.moves, games, 0, next(action for action in order if legal[action]))
    return games["history"][0][: len(game.moves)] & np.int8(ACTIONS)


def wishes_of(game: Game, plan: Plan) -> list[Wish]:
    """Returns the values that a plan has at home and could have in fast memory, each for two uses in a row.

    Args:
      game: of the plan's problem.
      plan: of any planner.
    """
    found: list[Wish] = []
    open_wish: dict[int, int] = {}  # by chain, where in `found` it is
    for move in game.moves:
        if not move.is_operation:
            continue
        at_home = all(plan.residencies[plan.served[access]].space != game.space for access in move.accesses)
        before = open_wish.pop(move.chain, None)
        if not at_home:
            continue
        if before is not None and move.reads:
            wish = found[before]
            found[before] = replace(wish, end=max(wish.end, move.end), accesses=(*wish.accesses, *move.accesses))
            continue
        if move.writes or before is None:
            open_wish[move.chain] = len(found)
        found.append(Wish(move.buffer, move.start, move.end, move.accesses))
    return found


def _described(plan: Plan | None) -> dict[str, Any] | None:
    return None if plan is None else plan.to_dict()


def _as_bytes(described: Any) -> NDArray[np.uint8]:
    return np.frombuffer(json.dumps(described).encode(), np.uint8).copy()


def _from_bytes(text: NDArray[np.uint8]) -> Any:
    return json.loads(np.asarray(text, np.uint8).tobytes().decode())


def _as_plan(text: NDArray[np.uint8]) -> Plan | None:
    described = _from_bytes(text)
    return None if described is None else Plan.from_dict(described, "checkpoint")
