"""The planners `agent` and `hybrid`: valid plans, never worse than greedy's, from a checkpoint or without."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest
from learning_problems import SMALL, padding_of, problem_of

from memplan.compiler.emulator.timing import TimingEmulator
from memplan.compiler.errors import MemplanError
from memplan.compiler.mapping.verify import verify
from memplan.planners import greedy
from memplan.planners.planner import Budget, Effort
from memplan.rl_agent import hybrid, planner
from memplan.rl_agent.learning import checkpoint
from memplan.rl_agent.learning.trainer import Trainer
from memplan.rl_agent.planner import AgentOptions, solve_with


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of networks that learned nothing yet."""
    folder = tmp_path_factory.mktemp("agent")
    problem = problem_of(2)
    trainer = Trainer([problem], SMALL, padding_of(problem))
    checkpoint.save(folder, {"iteration": np.array(0), "params": trainer.params}, SMALL, {"played": []})
    return folder


def test_agent(trained: Path) -> None:
    problem = problem_of(8)
    told = []
    budget = Budget(seed=1, on_plan=told.append)
    plan = solve_with(problem, budget, AgentOptions(trained, iterations=1, games=4))
    emulator = TimingEmulator(problem)
    assert verify(problem, plan) == []
    assert plan.planner == "agent"
    assert plan.info["iterations"] == 1
    assert plan.info["whole_games"] > 0
    assert emulator.latency(plan) <= emulator.latency(greedy.solve(problem, Budget()))
    latencies = [emulator.latency(each) for each in told]
    assert latencies == sorted(latencies, reverse=True)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_plan(trained: Path) -> None:
    problem, options = problem_of(8), AgentOptions(trained, iterations=2, games=4)
    assert solve_with(problem, Budget(seed=1), options) == solve_with(problem, Budget(seed=1), options)


def test_no_time_gives_what_it_starts_from(trained: Path) -> None:
    problem = problem_of(8)
    plan = solve_with(problem, Budget(time_limit=1e-3), AgentOptions(trained))
    assert verify(problem, plan) == []
    assert plan.info["iterations"] == 0


@pytest.mark.slow
def test_hybrid(trained: Path) -> None:
    problem = problem_of(8)
    start = greedy.solve(problem, Budget())
    prior = hybrid.prior_of(problem, start, trained)
    assert ((prior >= 0.5) & (prior <= 2.0)).all()
    assert len(set(prior.tolist())) > 1, "the policy says something"
    plan = hybrid.solve_with(problem, Budget(Effort.FAST), trained)
    emulator = TimingEmulator(problem)
    assert verify(problem, plan) == []
    assert plan.planner == "hybrid"
    assert emulator.latency(plan) <= emulator.latency(start) * (1 + 1e-9)


def test_what_comes_with_the_package() -> None:
    """The generalist that is shipped can be read, and belongs to this version."""
    saved = checkpoint.load(planner.PRETRAINED)
    assert saved.meta["played"]
    size = sum(path.stat().st_size for path in planner.PRETRAINED.rglob("*") if path.is_file())
    assert size < 4 * 2**20


def test_they_are_registered_as_those_of_users() -> None:
    names = {point.name for point in entry_points(group="memplan.planners")}
    assert {"agent", "hybrid"} <= names


def test_no_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memplan.compiler.registry.find_spec", lambda name: None if name == "mctx" else object())
    with pytest.raises(MemplanError, match=r"needs mctx: pip install 'memplan\[rl\]'"):
        solve_with(problem_of(2), Budget(), AgentOptions())
