"""A contest: one problem, its champion, and the rival that may take its place.

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
from memplan.rl_agent.game.arrays import Padding, make_arrays
from memplan.rl_agent.game.game import Game
from memplan.rl_agent.game.guide import Wish
from memplan.rl_agent.game.host import Host, in_threads
from memplan.rl_agent.game.moves import ACTIONS, COPY, DROP, NO_COPY, NONE
from memplan.rl_agent.game.plan import assembled
from memplan.rl_agent.learning.explorer import Explorer
from memplan.rl_agent.learning.options import TrainOptions
from memplan.rl_agent.learning.scripted import scripted
from memplan.rl_agent.learning.values import Floats, MoveValues, features_of

History = NDArray[np.int8]

# Shares of what the best game has at home that are packed with the rest, one of them drawn in each iteration.
_WISHED = (0.0, 0.2, 0.5, 1.0)

# Rounds after which another rival begins.
_ROUNDS_OF_RIVAL = 12


class PlayLine:
    """A line of play: the game that it goes on from, the best game that it came to, and the values that it learned.

    Args:
      game: the problem's, under any guide.
      padding: of its arrays; None for the smallest.
      start: plan to go on from, and whose offsets guide the game; None to begin with rules of thumb.
      weights: of features, to begin with; see `values.py`.

    Attributes:
      game, host: as they are guided now.
      history: `[padded moves]` of the game that play goes on from.
      total, best_total: seconds that it saves, and that the best game ever saved.
      values: that were learned.
    """

    def __init__(self, game: Game, padding: Padding, start: Plan | None = None, weights: Floats | None = None):
        self.game, self.padding = game, padding
        self.features = features_of(game)
        self.values = MoveValues.new(len(game.moves), weights)
        self.best_total = -np.inf
        self._best_history: History | None = None
        self._best_plan: Plan | None = None
        self._guided_by(start)
        if start is None:
            self.go_on_from(scripted(self.host))
            self.repack()
        else:
            self.go_on_from(history_of(self.game, self.host, start))

    def _guided_by(self, guide: Plan | None, wishes: Sequence[Wish] = ()) -> None:
        self._guide, self._wishes = guide, tuple(wishes)
        self.game = self.game.guided(guide, wishes)
        self.host = Host(make_arrays(self.game, self.padding))
        self._explorer: Explorer | None = None

    def go_on_from(self, history: History) -> bool:
        """Goes on from a finished game; returns whether it is the best one ever.

        Args:
          history: its actions; if there are fewer than moves in the padding, the others do not matter.
        """
        padded = np.full(self.padding.moves, DROP, np.int8)
        padded[: len(history)] = history & ACTIONS
        self._show(padded)
        if not self.is_beaten_by(self.total):
            return False
        self.best_total, self._best_history = self.total, padded
        return True

    def _show(self, history: History) -> None:
        self.history = history
        self.total = float(self.host.trace(history)[0][-1])

    def is_beaten_by(self, total: float) -> bool:
        """Whether a game that saves so many seconds is better than the best one, by more than rounding."""
        return total > self.best_total + 1e-7 * self.game.home_latency

    def explore(self, options: TrainOptions, seed: int, frozen: int = 0) -> int:
        """Plays windows around the present game and learns from them; returns how many.

        Args:
          options: how.
          seed: of what is drawn.
          frozen: the first move that may be changed.
        """
        if self._explorer is None:
            self._explorer = Explorer(self.host, self.features)
        found = self._explorer.explore(
            self.history, self.values, options.heat, options.budget, seed, options.learns, frozen
        )
        if found.games:
            self.go_on_from(found.best_history)
        return found.games

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
        self._guided_by(plan, wishes)
        if history is None:
            return self.go_on_from(history_of(self.game, self.host, plan))
        # Under other offsets some of its actions may not be legal.
        games = self.host.starts(history[None])
        self.host.follow(games)
        # If it is set back, play goes on from what the plan decides.
        is_over = bool(games["done"][0])
        return self.go_on_from(games["history"][0] if is_over else history_of(self.game, self.host, plan))

    @property
    def stays(self) -> NDArray[np.int64]:
        """Moves of the arguments that may stay from run to run."""
        return np.array([number for number, move in enumerate(self.game.moves) if move.is_stay], np.int64)

    def variant(self, stay: int) -> PlayLine:
        """Returns a line that begins at this one's game with no values, and keeps some argument; `NONE` for none.

        What does not fit beside that argument is served at home.
        """
        other = copy.copy(self)
        other.values = MoveValues.new(len(self.game.moves))
        other._explorer = None  # It has states of its own.
        history = self.history.copy()
        history[self.stays] = DROP
        if stay != NONE:
            history[stay] = NO_COPY
        games = self.host.starts(history[None])
        self.host.follow(games, patience=len(self.game.moves))
        other.best_total, other._best_plan = -np.inf, None
        other.go_on_from(games["history"][0])
        return other

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
            "history": self.history,
            "best_history": self._best_history if self._best_history is not None else np.full(1, -1, np.int8),
            "best_plan": _as_bytes(_described(self._best_plan)),
            "best_total": np.array(self.best_total),
            **self.values.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Takes what `state` returned."""
        wishes = [
            Wish(buffer, start, end, tuple(accesses)) for buffer, start, end, accesses in _from_bytes(state["wishes"])
        ]
        self._guided_by(_as_plan(state["guide"]), wishes)
        history = np.array(state["best_history"], np.int8)
        self._best_history = None if history[0] < 0 else history
        self._best_plan = _as_plan(state["best_plan"])
        self.best_total = float(state["best_total"])
        self.values.restore(state)
        self._show(np.array(state["history"], np.int8))


class Contest:
    """A problem that is played along two lines.

    The argument that stays in fast memory from run to run decides what else has room, and no sequence of small changes
    leads from one such argument to another: each alone looks bad. Beside the champion's line there is therefore that of
    a *rival*, which keeps any of these arguments, or none, and decides everything else around it. It has learned
    nothing and learns nothing, so that it goes where the champion's policy no longer does. Its game becomes the
    champion when it is better, and another rival begins after some rounds.

    Args:
      problem: to be played.
      padding: of its arrays; None for sizes that many problems share.
      start: plan to go on from; None to begin with rules of thumb.
      weights: of features, to begin with.

    Attributes:
      champion, rival: the lines.

    Raises:
      PlannerError: there is no fast memory, or the game does not fit the padding.
    """

    def __init__(
        self,
        problem: MappingProblem,
        padding: Padding | None = None,
        start: Plan | None = None,
        weights: Floats | None = None,
    ):
        self.problem = problem
        game = Game(problem, guide=None)
        self.champion = PlayLine(game, padding or Padding.rounded(game), start, weights)
        self.rival: PlayLine | None = None
        self._rounds = 0

    @property
    def game(self) -> Game:
        """The champion's."""
        return self.champion.game

    @property
    def latency(self) -> float:
        """Latency of the best game, in seconds."""
        return self.champion.latency

    def plan(self, planner: str = "agent", info: dict[str, Any] | None = None) -> Plan:
        """Returns the plan of the best game."""
        return self.champion.plan(planner, info)

    def play(self, options: TrainOptions, generator: np.random.Generator) -> tuple[int, bool]:
        """Explores both lines, beside each other; returns how many games were played, and whether the best got better.

        Args:
          options: how.
          generator: draws whatever is drawn.
        """
        before = self.champion.best_total
        if self.rival is None or self._rounds == _ROUNDS_OF_RIVAL:
            self.rival, self._rounds = self._another(generator), 0
        lines = [self.champion, self.rival]
        seeds = generator.integers(2**31, size=2).tolist()
        # The arguments that stay are what makes a rival.
        frozen = [0, len(self.champion.stays)]

        def explore(number: int) -> int:
            how = options if number == 0 else replace(options, learns=False)
            return lines[number].explore(how, seeds[number], frozen[number])

        games = in_threads(explore, range(len(lines)))
        for line in lines:
            line.repack(generator, float(generator.choice(_WISHED)))
        self._rounds += 1
        if self.champion.is_beaten_by(self.rival.best_total):
            self.rival.values = self.champion.values
            self.champion, self.rival = self.rival, None
        return sum(games), self.champion.best_total > before

    def _another(self, generator: np.random.Generator) -> PlayLine:
        """Returns a rival of the champion."""
        return self.champion.variant(int(generator.choice([NONE, *self.champion.stays.tolist()])))

    def state(self) -> dict[str, Any]:
        """Returns everything that play depends on, as arrays."""
        rival = {} if self.rival is None else {"rival": self.rival.state()}
        return {"champion": self.champion.state(), "rounds": np.array(self._rounds), **rival}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes what `state` returned."""
        self.champion.restore(state["champion"])
        self._rounds = int(state["rounds"])
        self.rival = None
        if "rival" in state:
            self.rival = copy.copy(self.champion)
            self.rival.values = self.champion.values.copy()
            self.rival.restore(state["rival"])


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
