"""The loop of learning: it finds what is best, it repeats exactly, and it goes on exactly."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from learning_problems import SMALL, WITHOUT_SEARCH, padding_of, problem_of, proven
from random_problems import TINY, seeded_problem

from memplan.compiler.emulator.timing import TimingEmulator
from memplan.compiler.errors import PlannerError
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.mapping.verify import verify
from memplan.planners import greedy
from memplan.planners.planner import Budget
from memplan.rl_agent.game.arrays import Padding, make_arrays
from memplan.rl_agent.game.game import Game
from memplan.rl_agent.game.host import Host
from memplan.rl_agent.game.moves import NO_COPY
from memplan.rl_agent.learning.contest import Contest, history_of
from memplan.rl_agent.learning.trainer import Trainer

TESTS = Path(__file__).parents[1]


def with_stays(problem: MappingProblem) -> MappingProblem:
    """Returns a problem in which an argument may stay from run to run."""
    return dataclasses.replace(problem, cross_program_prefetches=1)


def test_it_finds_the_proven_optimum() -> None:
    problem = seeded_problem(26, 8, TINY)
    best = proven(problem)
    assert best is not None
    trainer = Trainer([problem], SMALL, padding_of(problem))
    begin = trainer.contests[0].latency
    for _ in range(120):
        trainer.step()
        if trainer.contests[0].latency <= best * (1 + 1e-4):
            break
    plan = trainer.contests[0].plan()
    assert verify(problem, plan) == []
    latency = TimingEmulator(problem).latency(plan)
    assert latency == pytest.approx(trainer.contests[0].latency, rel=1e-5)
    assert latency <= best * (1 + 1e-4)
    assert begin > best * (1 + 1e-3), "rules of thumb would have been enough: the test shows nothing"


def test_the_same_seed_learns_the_same_and_goes_on_the_same() -> None:
    problems = [problem_of(2), with_stays(problem_of(6))]
    padding = padding_of(*problems)
    whole = Trainer(problems, SMALL, padding)
    first = Trainer(problems, SMALL, padding)
    for _ in range(10):
        whole.step()
    for _ in range(5):
        first.step()
    assert any(rival is not None for rival, _ in first._rivals)
    resumed = Trainer(problems, SMALL, padding)
    resumed.restore(jax.tree.map(np.array, jax.device_get(first.state())))
    for _ in range(5):
        resumed.step()
    expected, found = (jax.tree.leaves(jax.device_get(trainer.state())) for trainer in (whole, resumed))
    assert len(expected) == len(found)
    for mine, theirs in zip(expected, found, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_contest_starts_from_a_plan() -> None:
    problem = problem_of(8)
    plan = greedy.solve(problem, Budget())
    contest = Contest(problem, padding_of(problem), start=plan)
    latency = TimingEmulator(problem).latency(plan)
    assert contest.latency <= TimingEmulator(problem).latency(contest.plan()) * (1 + 1e-5)
    assert verify(problem, contest.plan()) == []
    game = Game(problem, guide=plan)
    history = history_of(game, Host(make_arrays(game, padding_of(problem))), plan)
    assert len(history) == len(contest.game.moves)
    before = contest.latency
    contest.repack()
    assert contest.latency <= before * (1 + 1e-7), "the best is never forgotten"
    assert latency > 0


def test_a_rival_keeps_another_argument() -> None:
    problem = with_stays(problem_of(12))
    contest = Contest(problem, padding_of(problem))
    stays = [number for number, move in enumerate(contest.game.moves) if move.is_stay]
    assert len(stays) > 1

    def kept(one: Contest) -> list[bool]:
        return [bool(one.champion.history[stay] == NO_COPY) for stay in stays]

    generator = np.random.default_rng(0)
    before, seen = kept(contest), set()
    for _ in range(20):
        rival = contest.rival(generator)
        assert rival is not None
        assert kept(rival) != before
        assert verify(problem, rival.plan()) == []
        assert TimingEmulator(problem).latency(rival.plan()) == pytest.approx(rival.latency, rel=1e-5)
        seen.add(tuple(kept(rival)))
    assert len(seen) == len(stays) - sum(before) + any(before)
    assert kept(contest) == before
    contest.give_way_to(rival)
    assert kept(contest) != before
    nothing_to_keep = dataclasses.replace(problem, cross_program_prefetches=0)
    assert Contest(nothing_to_keep, padding_of(problem)).rival(generator) is None


def test_a_problem_that_is_too_large_is_refused() -> None:
    small, large = problem_of(2), problem_of(7)
    tight = Padding.of(Game(small, guide=None), multiple=1)
    with pytest.raises(PlannerError, match="in the game's padding"):
        Trainer([large], SMALL, tight)
    with pytest.raises(PlannerError, match="no problem"):
        Trainer([], SMALL)


_ON_TWO_DEVICES = """
import sys
sys.path[:0] = [{tests!r}, {planners!r}]
import jax
from learning_problems import SMALL, WITHOUT_SEARCH, padding_of, problem_of
from memplan.rl_agent.learning.trainer import Trainer
assert len(jax.devices()) == 2
problem = problem_of(4)
trainer = Trainer([problem], WITHOUT_SEARCH, padding_of(problem))
reports = [trainer.step() for _ in range(3)]
assert trainer.agent.num_devices == 2
assert all(report.games > SMALL.windows * SMALL.lanes for report in reports)
print("latency", trainer.contests[0].latency)
"""


@pytest.mark.slow
def test_on_two_devices() -> None:
    """Windows and batches are shared by the devices there are."""
    code = _ON_TWO_DEVICES.format(tests=str(TESTS), planners=str(TESTS.parent / "planners"))
    environment = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "latency" in done.stdout


def test_heat_lets_scouts_begin_at_worse_games(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = problem_of(4)
    options = dataclasses.replace(WITHOUT_SEARCH, scouted=0, heat=5.0, learns=False)
    trainer = Trainer([problem], options, padding_of(problem))
    # Repacking would go back to the best game after each iteration.
    monkeypatch.setattr(Contest, "repack", lambda *_: False)
    totals = []
    for _ in range(6):
        trainer.step()
        totals.append(trainer.contests[0].total)
    assert min(np.diff(totals)) < 0
    assert trainer.contests[0].best_total >= max(totals) - 1e-12
