"""What `memplan bench agent` compares: methods that improve a start for some CPU seconds. A new one is one class."""

from __future__ import annotations

import time
from typing import Any, Protocol

import numpy as np

from memplan.compiler.effort import Guard
from memplan.compiler.emulator.timing import TimingEmulator
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.mapping.verify import verify
from memplan.planners.planner import Budget, Effort
from memplan.planners.planner import get as planner_called
from memplan.rl_agent.game.arrays import Padding, make_arrays
from memplan.rl_agent.game.game import Game
from memplan.rl_agent.game.host import Host
from memplan.rl_agent.game.moves import ACTIONS
from memplan.rl_agent.game.plan import assembled
from memplan.rl_agent.learning import pretrained
from memplan.rl_agent.learning.options import TrainOptions
from memplan.rl_agent.learning.trainer import Trainer

# Random games that are played at once.
_BATCH = 64


class Clock(Guard):
    """The CPU seconds that an arm has, of all threads of this process, and the best latency at each moment.

    Args:
      problem: that is planned.
      seconds: of CPU time.

    Attributes:
      points: CPU seconds and latency of each plan that was better than those before.
      violations: of the rules, in all plans that were told.
    """

    def __init__(self, problem: MappingProblem, seconds: float):
        super().__init__(None)
        self._problem, self._emulator = problem, TimingEmulator(problem)
        self.points: list[tuple[float, float]] = []
        self.violations = 0
        self._began = time.process_time()
        self._seconds = seconds

    def left(self) -> float:
        """Returns the CPU seconds that are left."""
        return self._began + self._seconds - time.process_time()

    @property
    def is_limited(self) -> bool:
        """Always true."""
        return True

    def tell(self, plan: Plan) -> None:
        """Notes a plan, if it is the best one so far."""
        latency = self._emulator.latency(plan)
        if not self.points or latency < self.points[-1][1]:
            self.points.append((time.process_time() - self._began, latency))
            self.violations += len(verify(self._problem, plan))


class Arm(Protocol):
    """A method.

    Attributes:
      name: in tables and after `--arms`.
      description: one line.
    """

    name: str
    description: str

    def run(self, problem: MappingProblem, start: Plan, seed: int, clock: Clock) -> None:
        """Improves a plan until the clock is over, and tells the clock of each better one. Runs in one thread."""
        ...


class PlannerArm:
    """A planner of the registry at its highest effort."""

    def __init__(self, name: str):
        self.name, self.description = name, f"the planner `{name}`"

    def run(self, problem: MappingProblem, start: Plan, seed: int, clock: Clock) -> None:
        """See `Arm.run`; a planner that begins from nothing makes no use of the start."""
        planner = planner_called(self.name)
        planner.solve(problem, Budget(Effort.HIGH, seed, on_plan=clock.tell, known=start, guard=clock))


class RandomArm:
    """Games whose legal actions are all equally likely."""

    name, description = "random", "games of random legal moves"

    def run(self, problem: MappingProblem, start: Plan, seed: int, clock: Clock) -> None:
        """See `Arm.run`."""
        game = Game(problem, guide=start)
        host = Host(make_arrays(game, Padding.rounded(game)))
        best, played = -np.inf, 0
        while not clock.reached():
            games = host.random_games(range(seed * 2**20 + played, seed * 2**20 + played + _BATCH))
            played += _BATCH
            number = int(games["total"].argmax())
            if games["total"][number] > best:
                best = games["total"][number]
                clock.tell(assembled(game, host.residencies(game, games["history"][number] & ACTIONS)))


class AgentArm:
    """The agent under some options; from nothing, or from the weights that come with the package."""

    def __init__(self, name: str, description: str, is_pretrained: bool = False, **options: Any):
        self.name, self.description = name, description
        self._is_pretrained, self._options = is_pretrained, options

    def run(self, problem: MappingProblem, start: Plan, seed: int, clock: Clock) -> None:
        """See `Arm.run`."""
        weights = pretrained.weights() if self._is_pretrained else None
        trainer = Trainer([problem], TrainOptions(seed=seed, **self._options), weights, [start])
        clock.tell(trainer.contests[0].plan())
        while not clock.reached():
            if trainer.step().improved:
                clock.tell(trainer.contests[0].plan())


_ALL: tuple[Arm, ...] = (
    AgentArm("agent", "the agent, from nothing"),
    AgentArm("pretrained", "the agent, from the weights that come with the package", is_pretrained=True),
    AgentArm("frozen", "the same agent that does not learn", learns=False),
    AgentArm("cold", "the agent without temperature: it goes on from better games only", heat=0.0),
    AgentArm("ascent", "neither learning nor temperature: the better one of exact labels", learns=False, heat=0.0),
    PlannerArm("search"),
    PlannerArm("evolution"),
    RandomArm(),
)

ARMS = {arm.name: arm for arm in _ALL}
