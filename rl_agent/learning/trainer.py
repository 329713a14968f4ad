"""The loop of learning: play windows, keep the better games, learn from all of them.

Everything that an iteration draws at random follows from the seed and the iteration's number, and `Trainer.state` holds
everything else that it depends on. So a run that was cut off and restored goes on as if nothing had happened.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from memplan.compiler.errors import PlannerError
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.rl_agent.game.arrays import Padding
from memplan.rl_agent.game.game import Game
from memplan.rl_agent.game.host import as_states
from memplan.rl_agent.game.moves import ACTIONS
from memplan.rl_agent.game.state import State
from memplan.rl_agent.learning import self_play
from memplan.rl_agent.learning.agent import agent_of
from memplan.rl_agent.learning.contest import Contest
from memplan.rl_agent.learning.network import Params
from memplan.rl_agent.learning.options import TrainOptions
from memplan.rl_agent.learning.replay import Replay
from memplan.rl_agent.learning.self_play import AgentStep, Played, Trajectories
from memplan.rl_agent.learning.sight import Sight
from memplan.rl_agent.learning.tree_search import World
from memplan.rl_agent.learning.update import Losses

# The share of windows that begin anywhere, rather than where the policy would leave the champion.
_ANYWHERE = 0.3

# Shares of what the best game has at home that are packed with the rest, one of them drawn in each iteration.
_WISHED = (0.0, 0.2, 0.5, 1.0)

# How much worse than the champion a game of windows may be for scouts to begin there, of the hottest scout's heat.
_OF_HEAT = 0.1

# How often scouts explore a rival of the champion instead, and how often the same one.
_CHALLENGED, _ROUNDS_OF_RIVAL = 0.25, 12

# How far from each other windows of an iteration begin, of the moves, at most.
_BAND = 0.06


@dataclass(frozen=True)
class IterationReport:
    """What an iteration of training brought.

    Attributes:
      iteration: its number.
      problem: that was played.
      improved: whether its best game got better.
      gained: share of the games that gained on the champion.
      changed: share of them that differ from it.
      losses: means of the iteration's steps.
      games, choices: how many were played and made.
      backups: of all these games.
    """

    iteration: int
    problem: int
    improved: bool
    gained: float
    changed: float
    losses: Losses | None
    games: int
    choices: int
    backups: int


def check_alike(params: Params, wanted: Params) -> None:
    """Raises PlannerError unless two trees of parameters have the same structure, shapes and types."""
    if jax.tree.structure(params) != jax.tree.structure(wanted):
        raise PlannerError("the parameters are not those of these networks")
    expected = jax.tree.leaves(wanted)
    for (path, leaf), other in zip(jax.tree_util.tree_leaves_with_path(params), expected, strict=True):
        if (leaf.shape, leaf.dtype) != (other.shape, other.dtype):
            name = jax.tree_util.keystr(path)
            raise PlannerError(f"parameters {name} are {leaf.dtype}{leaf.shape}, not {other.dtype}{other.shape}")


class Trainer:
    """An agent, what it remembers, and the problems that it plays: one in each iteration, learning from all of them.

    Args:
      problems: to be played, all in one padding.
      options: how.
      padding: sizes that all games fit; None for `Padding.rounded`.
      params: of the networks to start from; None for new ones.
      starts: plans to go on from; None to begin with rules of thumb.

    Attributes:
      agent: its networks, and what is compiled for it.
      iteration: number of the next one.
      params, memory: of the networks, and of the optimizer.
      contests: the problems, and what was reached.

    Raises:
      PlannerError: no problem is given, one has no fast memory, a game does not fit the padding, or the parameters are
        not those of the options' networks.
    """

    def __init__(
        self,
        problems: Sequence[MappingProblem],
        options: TrainOptions,
        padding: Padding | None = None,
        params: Params | None = None,
        starts: Sequence[Plan] | None = None,
    ):
        if not problems:
            raise PlannerError("there is no problem to play")
        self.options = options
        padding = padding or Padding.rounded(*(Game(problem, guide=None) for problem in problems))
        plans: Sequence[Plan | None] = starts if starts is not None else [None] * len(problems)
        self.contests = [
            Contest(problem, padding, plan, options.scouts) for problem, plan in zip(problems, plans, strict=True)
        ]
        # The rival of each problem's champion, and how often it was explored.
        self._rivals: list[tuple[Contest | None, int]] = [(None, 0)] * len(problems)
        self.agent = agent_of(options)
        self.iteration = 0
        key = jax.random.fold_in(jax.random.key(options.seed), 2**31 - 1)
        if params is None:
            params = self.agent.networks.init(key, self._example())
        else:
            check_alike(params, jax.eval_shape(self.agent.networks.init, key, self._example()))
        self.params = self.agent.shared(params)
        self.memory = self.agent.shared(self.agent.optimizer.init(params))
        self.replay = Replay(options.capacity, self._shapes())

    def _example(self) -> Sight:
        """Returns a sight of zeros, as a batch of one: only its shapes mean anything."""
        contest = self.contests[0]
        states = as_states(contest.host.starts(contest.champion.history[None]))
        shapes = jax.eval_shape(World(contest.arrays, contest.champion, states).look)
        return Sight(*(jnp.zeros(part.shape, jnp.float32) for part in shapes))

    def _shapes(self) -> Trajectories:
        """Returns trajectories of one window, of which only shapes and types mean anything."""
        contest, window = self.contests[0], self.options.window
        games = contest.host.starts(contest.champion.history[None])
        said: AgentStep = jax.eval_shape(
            self.agent.decide_alone, self.params, jax.random.key(0), contest.arrays, contest.champion, as_states(games),
            np.zeros(1, np.bool_), np.zeros(1, np.float32),
        )  # fmt: skip
        said = jax.tree.map(lambda x: np.zeros((1, window, *x.shape[1:]), x.dtype), said)
        numbers = np.zeros((1, window + 1), np.float32)
        return Trajectories(**said._asdict(), lead=numbers, is_made=np.zeros((1, window), np.bool_), end=numbers[:, 0])

    # One iteration.

    def step(self) -> IterationReport:
        """Plays one problem, and learns."""
        options, number = self.options, self.iteration
        generator = np.random.default_rng([options.seed, number])
        key = jax.random.fold_in(jax.random.key(options.seed), number)
        problem = int(generator.integers(len(self.contests)))
        contest = self.contests[problem]
        policy, urge = self._surveyed(contest)
        start = self._starts(generator, contest, urge)
        length = np.exp(generator.uniform(0.0, np.log(options.window + 1), options.windows)).astype(np.int32)
        played = self_play.play_windows(
            self._decider(contest), contest.host, contest.champion, options.search.patience, options.window,
            options.lanes, key, start, length,
        )  # fmt: skip
        self.replay.add(played.trajectories)
        gains = played.total.astype(np.float64) - contest.total
        changed = (played.history != contest.champion.history).any(axis=1)
        improved = self._go_on(problem, played, np.where(changed, gains, -np.inf))
        scouted, is_better = self._scout(generator, problem, policy, urge, jax.random.fold_in(key, 2))
        improved |= is_better
        improved |= contest.repack(generator, float(generator.choice(_WISHED)))
        losses = self._learned(generator, key) if options.learns else None
        self.iteration += 1
        return IterationReport(
            iteration=number,
            problem=problem,
            improved=improved,
            gained=float((gains > 1e-7 * contest.game.home_latency).mean()),
            changed=float(changed.mean()),
            losses=losses,
            games=len(gains) + scouted,
            choices=int(played.trajectories.is_made.sum()),
            backups=int(played.backups.sum()),
        )

    def _decider(self, contest: Contest, is_alone: bool = False) -> self_play.Decide:
        """Returns what decides in games of a problem, on all devices, or on one for any number of games."""
        decide = self.agent.decide_alone if is_alone else self.agent.decide

        def agent(key: jax.Array, *rest: Any) -> AgentStep:
            keys = key if is_alone else jax.random.split(key, self.agent.num_devices)
            said: AgentStep = decide(self.params, keys, contest.arrays, contest.champion, *rest)
            return said

        return agent

    def _surveyed(self, contest: Contest) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Returns the policy along the champion, `[padded moves, 3]`, and how likely a change begins at each move."""
        moves = len(contest.game.moves)
        said, leaves = self.agent.survey(self.params, contest.arrays, contest.champion, *self._along(contest))
        urge = np.asarray(leaves)[:moves].astype(np.float64)
        return np.asarray(said), _ANYWHERE / max(moves, 1) + (1.0 - _ANYWHERE) * urge / max(urge.sum(), 1e-9)

    def _starts(self, generator: np.random.Generator, contest: Contest, urge: NDArray[np.float64]) -> NDArray[np.int32]:
        """Returns where windows begin: where the policy would leave the champion, or anywhere, but near each other.

        Games of a batch wait for each other, so they are to be at about the same place.
        """
        options, moves = self.options, len(contest.game.moves)
        if not moves:
            return np.zeros(options.windows, np.int32)
        middle = generator.choice(moves, p=urge / urge.sum())
        reach = max(1, int(_BAND * moves))
        low, high = max(0, middle - reach), min(moves, middle + reach + 1)
        near = urge[low:high]
        return (low + generator.choice(high - low, options.windows, p=near / near.sum())).astype(np.int32)

    def _go_on(self, problem: int, played: Played, gains: NDArray[np.float64]) -> bool:
        """Chooses the game that play goes on from; returns whether the best one got better.

        Args:
          problem: that was played.
          played: its games.
          gains: `[games]` seconds that they save more than the champion; minus infinity for those that are the same.
        """
        options, contest = self.options, self.contests[problem]
        best = np.argmax(gains.reshape(options.windows, options.lanes), axis=1)
        best += np.arange(options.windows) * options.lanes
        best = best[np.argsort(-gains[best], kind="stable")]
        merged = self._merged(contest, played, gains, best)
        ends = contest.host.starts(merged)
        contest.host.follow(ends, patience=options.search.patience)
        histories = np.concatenate([played.history[best[:1]], ends["history"] & np.int8(ACTIONS)])
        merged_totals = np.where(ends["done"] != 0, ends["total"].astype(np.float64), -np.inf)
        totals = np.concatenate([contest.total + gains[best[:1]], merged_totals])
        totals[(histories == contest.champion.history).all(axis=1)] = -np.inf
        chosen = int(np.argmax(totals))
        if totals[chosen] >= contest.total - _OF_HEAT * self._heat(problem):
            return contest.go_on_from(histories[chosen])
        return False

    def _heat(self, problem: int) -> float:
        """Returns the temperature at which the hottest scout of a problem begins, in seconds."""
        return self.options.heat * self.contests[problem].game.home_latency

    def _scout(
        self,
        generator: np.random.Generator,
        problem: int,
        policy: NDArray[np.float32],
        urge: NDArray[np.float64],
        key: jax.Array,
    ) -> tuple[int, bool]:
        """Lets scouts explore; returns how many games they played, and whether the best one got better."""
        options, contest = self.options, self.contests[problem]
        seed = int(generator.integers(2**31))
        if not options.scouted:
            return 0, False
        if generator.random() < _CHALLENGED and (rival := self._rival(generator, problem)) is not None:
            return self._challenge(generator, problem, rival, policy, urge, seed)
        heat = self._heat(problem)
        found = contest.scouts.explore(contest.champion.history, policy, urge, heat, options.scouted, seed)
        if not found:
            return 0, False
        best = max(found, key=lambda scouted: scouted.best_total)
        if options.learns and best.best_total > contest.total + 1e-6 * contest.game.home_latency:
            games = options.windows * options.lanes
            self.replay.add(
                self_play.lesson(
                    self._decider(contest),
                    contest.host,
                    contest.champion,
                    best.best_history,
                    options.window,
                    games,
                    key,
                )
            )
        improved = contest.go_on_from(best.best_history)
        last = max(found, key=lambda scouted: scouted.total)
        improved |= contest.go_on_from(last.history)
        return sum(scouted.games for scouted in found), improved

    def _rival(self, generator: np.random.Generator, problem: int) -> Contest | None:
        """Returns the rival of a problem's champion, another one now and then; None if there can be none."""
        rival, rounds = self._rivals[problem]
        if rival is None or rounds == _ROUNDS_OF_RIVAL:
            rival = self.contests[problem].rival(generator)
            self._rivals[problem] = rival, 0
        return rival

    def _challenge(
        self,
        generator: np.random.Generator,
        problem: int,
        rival: Contest,
        policy: NDArray[np.float32],
        urge: NDArray[np.float64],
        seed: int,
    ) -> tuple[int, bool]:
        """Lets scouts explore the rival, which takes the champion's place once it is better; returns as `_scout`."""
        contest, rounds = self.contests[problem], self._rivals[problem][1]
        urge = urge.copy()
        urge[rival.stays] = 0.0  # The arguments that stay are what makes it a rival.
        found = rival.scouts.explore(
            rival.champion.history, policy, urge, self._heat(problem), self.options.scouted, seed
        )
        if found:
            rival.go_on_from(max(found, key=lambda scouted: scouted.best_total).best_history)
        rival.repack(generator, float(generator.choice(_WISHED)))
        is_better = contest.is_beaten_by(rival.best_total)
        if is_better:
            contest.give_way_to(rival)
        self._rivals[problem] = (None, 0) if is_better else (rival, rounds + 1)
        return sum(scouted.games for scouted in found), is_better

    @staticmethod
    def _merged(
        contest: Contest, played: Played, gains: NDArray[np.float64], best: NDArray[np.int64]
    ) -> NDArray[np.int8]:
        """Returns `[windows, moves]`: the champion with the changes of the best window, of the best two, and so on.

        What two windows gain often adds up.
        """
        merged = np.repeat(contest.champion.history[None], len(best), axis=0)
        for number, game in enumerate(best):
            if gains[game] > 0:
                differs = played.history[game] != contest.champion.history
                merged[number:, differs] = played.history[game][differs]
        return merged

    def _learned(self, generator: np.random.Generator, key: jax.Array) -> Losses:
        options = self.options
        if options.reanalysed and options.search.model == "learned" and options.search.method != "none":
            rows = self.replay.draw(generator, options.reanalysed)
            windows = self.replay.take(rows)
            sight, legal = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), (windows.sight, windows.legal))
            policy, value = jax.device_get(self.agent.review(self.params, jax.random.fold_in(key, 1), sight, legal))
            shape = windows.value.shape
            self.replay.renew(rows, policy.reshape(*shape, -1), value.reshape(shape))
        said = []
        for _ in range(options.updates):
            windows = self.replay.take(self.replay.draw(generator, options.update.batch))
            made = windows.is_made.sum(axis=1)
            place = (generator.random(len(made)) * np.maximum(made, 1)).astype(np.int32)
            self.params, self.memory, losses = self.agent.learn(self.params, self.memory, windows, place)
            said.append(losses)
        return Losses(*(float(np.mean([getattr(losses, name) for losses in said])) for name in Losses._fields))

    def play_whole_games(self, games: int, problem: int = 0) -> float:
        """Plays whole games of a problem, every choice by the agent, the first of them without noise.

        Returns: the latency of the first, in seconds. The best of them counts as any other game.
        """
        contest = self.contests[problem]
        heat = np.minimum(np.arange(games, dtype=np.float32), 1.0)
        key = jax.random.fold_in(jax.random.key(self.options.seed), 2**31 - 2)
        ends = self_play.play_out(self._decider(contest, is_alone=True), contest.host, contest.champion, key, heat)
        best = int(np.argmax(ends["total"]))
        if ends["total"][best] > contest.total:
            contest.go_on_from(ends["history"][best])
        return contest.game.home_latency - float(ends["total"][0])

    def policy(self, problem: int = 0) -> NDArray[np.float32]:
        """Returns what the policy says at each move of a champion, `[moves, 3]`; 0 where there is no choice."""
        contest = self.contests[problem]
        said, _ = self.agent.survey(self.params, contest.arrays, contest.champion, *self._along(contest))
        return np.asarray(said)[: len(contest.game.moves)]

    @staticmethod
    def _along(contest: Contest) -> tuple[State, NDArray[np.bool_]]:
        games, is_choice = self_play.choices_of(contest.host, contest.champion)
        return as_states(games), is_choice

    # To stop, and to go on.

    def state(self) -> dict[str, Any]:
        """Returns everything that the next iterations depend on, as a tree of arrays."""
        return {
            "iteration": np.array(self.iteration),
            "params": self.params,
            "optimizer": jax.tree.leaves(self.memory),
            "replay": self.replay.state(),
            "contests": [contest.state() for contest in self.contests],
            "rivals": [
                {"rounds": np.array(rounds), **({} if rival is None else rival.state())}
                for rival, rounds in self._rivals
            ],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Takes what `state` returned; raises PlannerError if its parameters are those of other networks."""
        check_alike(state["params"], self.params)
        self.iteration = int(state["iteration"])
        self.params = self.agent.shared(state["params"])
        self.memory = self.agent.shared(jax.tree.unflatten(jax.tree.structure(self.memory), state["optimizer"]))
        self.replay.restore(state["replay"])
        for contest, saved in zip(self.contests, state["contests"], strict=True):
            contest.restore(saved)
        for problem, (contest, described) in enumerate(zip(self.contests, state["rivals"], strict=True)):
            rival = contest.twin() if "history" in described else None
            if rival is not None:
                rival.restore(described)
            self._rivals[problem] = rival, int(described["rounds"])
