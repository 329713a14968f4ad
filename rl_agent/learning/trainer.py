"""The loop of learning: explore around the best games, learn from every one, and go on from the better ones.

Everything that an iteration draws at random follows from the seed and the iteration's number, and `Trainer.state` holds
everything else that it depends on. So a run that was cut off and restored goes on as if nothing had happened.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from memplan.compiler.errors import PlannerError
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.rl_agent.learning.contest import Contest
from memplan.rl_agent.learning.options import TrainOptions
from memplan.rl_agent.learning.values import Floats


@dataclass(frozen=True)
class IterationReport:
    """What an iteration of training brought.

    Attributes:
      iteration: its number.
      problem: that was played.
      improved: whether its best game got better.
      games: how many were played.
    """

    iteration: int
    problem: int
    improved: bool
    games: int


class Trainer:
    """What is learned, and the problems that it is learned from: one in each iteration.

    Args:
      problems: to be played.
      options: how.
      weights: of features, to start from, see `values.py`; None for zeros.
      starts: plans to go on from; None to begin with rules of thumb.

    Attributes:
      iteration: number of the next one.
      weights: of features, as the last problem left them; the next one goes on with them.
      contests: the problems, and what was reached.

    Raises:
      PlannerError: no problem is given, one has no fast memory, or the weights are of other features.
    """

    def __init__(
        self,
        problems: Sequence[MappingProblem],
        options: TrainOptions,
        weights: Floats | None = None,
        starts: Sequence[Plan] | None = None,
    ):
        if not problems:
            raise PlannerError("there is no problem to play")
        self.options = options
        plans: Sequence[Plan | None] = starts if starts is not None else [None] * len(problems)
        self.contests = [
            Contest(problem, start=plan, weights=weights) for problem, plan in zip(problems, plans, strict=True)
        ]
        self.iteration = 0
        self.weights: Floats = self.contests[0].champion.values.weights.copy()

    def step(self) -> IterationReport:
        """Plays one problem, and learns."""
        number = self.iteration
        generator = np.random.default_rng([self.options.seed, number])
        problem = int(generator.integers(len(self.contests)))
        contest = self.contests[problem]
        contest.champion.values.weights = self.weights
        games, improved = contest.play(self.options, generator)
        self.weights = contest.champion.values.weights.copy()
        self.iteration += 1
        return IterationReport(number, problem, improved, games)

    def policy(self, problem: int = 0) -> Floats:
        """Returns how likely the policy takes each action of a problem, as if all were legal, `[moves, 3]`."""
        champion = self.contests[problem].champion
        return champion.values.policy(champion.features)

    # To stop, and to go on.

    def state(self) -> dict[str, Any]:
        """Returns everything that the next iterations depend on, as a tree of arrays."""
        return {
            "iteration": np.array(self.iteration),
            "weights": self.weights,
            "contests": {str(number): contest.state() for number, contest in enumerate(self.contests)},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Takes what `state` returned; raises PlannerError if it is of other problems."""
        self.iteration = int(state["iteration"])
        if state["weights"].shape != self.weights.shape:
            raise PlannerError("the weights are of other features")
        self.weights = np.array(state["weights"], np.float64)
        for number, contest in enumerate(self.contests):
            contest.restore(state["contests"][str(number)])
