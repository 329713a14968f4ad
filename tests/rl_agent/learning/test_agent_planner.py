"""The planners `agent` and `hybrid`: valid plans, never worse than greedy's, from a checkpoint or without."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest
from learning_problems import SMALL, problem_of

from memplan.compiler.emulator.timing import TimingEmulator
from memplan.compiler.mapping.verify import verify
from memplan.planners import greedy
from memplan.planners.planner import Budget, Effort
from memplan.rl_agent import hybrid
from memplan.rl_agent.learning import checkpoint, pretrained
from memplan.rl_agent.learning.training import Training
from memplan.rl_agent.planner import AgentOptions, make_trainer, solve_with


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of another problem than most tests plan."""
    folder = tmp_path_factory.mktemp("agent")
    Training([problem_of(2)], SMALL, folder).run(600.0, iterations=3)
    return folder


def test_agent(trained: Path) -> None:
    problem = problem_of(8)
    told = []
    budget = Budget(seed=1, on_plan=told.append)
    plan = solve_with(problem, budget, AgentOptions(trained, iterations=2))
    emulator = TimingEmulator(problem)
    assert verify(problem, plan) == []
    assert plan.planner == "agent"
    assert plan.info["iterations"] == 2
    assert plan.info["games"] > 2
    assert emulator.latency(plan) <= emulator.latency(greedy.solve(problem, Budget()))
    latencies = [emulator.latency(each) for each in told]
    assert latencies == sorted(latencies, reverse=True)
    assert solve_with(problem, Budget(seed=1), AgentOptions(trained, iterations=2)) == plan


def test_what_a_checkpoint_has_of_this_problem_is_gone_on_with(trained: Path) -> None:
    problem = problem_of(2)
    start = greedy.solve(problem, Budget())
    saved = checkpoint.load(trained)
    trainer = make_trainer(problem, start, AgentOptions(trained))
    np.testing.assert_array_equal(trainer.weights, saved.state["weights"])
    reached = trainer.contests[0].game.home_latency - float(saved.state["contests"]["0"]["champion"]["best_total"])
    assert trainer.contests[0].latency <= reached
    other = make_trainer(problem_of(8), greedy.solve(problem_of(8), Budget()), AgentOptions(trained))
    np.testing.assert_array_equal(other.weights, saved.state["weights"])
    assert not other.contests[0].champion.values.items.any(), "nothing is known of another problem's moves"


def test_no_time_gives_what_it_starts_from(trained: Path) -> None:
    problem = problem_of(8)
    plan = solve_with(problem, Budget(time_limit=1e-3), AgentOptions(trained))
    assert verify(problem, plan) == []
    assert plan.info["iterations"] == 0


def test_hybrid(trained: Path) -> None:
    problem = problem_of(8)
    start = greedy.solve(problem, Budget())
    trainer = make_trainer(problem, start, AgentOptions(trained))
    prior = hybrid.prior_of(trainer)
    assert ((prior >= 0.5) & (prior <= 2.0)).all()
    assert len(set(prior.tolist())) > 1, "the policy says something"
    plan = hybrid.solve_with(problem, Budget(Effort.FAST, time_limit=1.0), trained)
    emulator = TimingEmulator(problem)
    assert verify(problem, plan) == []
    assert plan.planner == "hybrid"
    assert emulator.latency(plan) <= emulator.latency(start) * (1 + 1e-9)


def test_what_comes_with_the_package() -> None:
    """The weights that are shipped belong to this version's features, and say which programs they are of."""
    weights = pretrained.weights()
    assert np.isfinite(weights).all()
    assert np.abs(weights).max() > 0.1
    assert pretrained.described()["played"]


def test_they_are_registered_as_those_of_users() -> None:
    names = {point.name for point in entry_points(group="memplan.planners")}
    assert {"agent", "hybrid"} <= names
