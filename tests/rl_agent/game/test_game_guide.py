"""Places of a guide, and games that prefer them."""

from __future__ import annotations

import numpy as np
import pytest
from game_problems import PADDING, arrays_of, seeded_game

from memplan.compiler.emulator.timing import TimingEmulator
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.mapping.verify import verify
from memplan.planners.greedy import solve
from memplan.planners.planner import Budget
from memplan.rl_agent.game.game import Game
from memplan.rl_agent.game.host import Host
from memplan.rl_agent.game.moves import NOWHERE
from memplan.rl_agent.game.plan import make_plan, replay
from memplan.rl_agent.game.reference import Reference
from memplan.rl_agent.learning.contest import history_of

SEEDS = range(1, 40, 3)


def imitated(game: Game, plan: Plan) -> Reference:
    """Returns a game in which each decision is that of a plan, where it is legal."""
    return replay(game, history_of(game, Host(arrays_of(game)), plan))


def games(problem: MappingProblem) -> tuple[Plan, Game, Game]:
    """Returns a plan, the game that it guides, and the one without a guide."""
    plan = solve(problem, Budget())
    guided, alone = (Game(problem, PADDING.units, PADDING.reach, guide) for guide in (plan, None))
    return plan, guided, alone


def test_places_lie_beside_each_other() -> None:
    placed = 0
    for seed in SEEDS:
        game = seeded_game(seed)
        times, units = game.places.times, game.places.units
        for i in range(len(times)):
            start, end = times[i]
            assert (game.reserved[start:end] <= units[i, 0]).all()
            assert units[i, 1] <= game.num_units
            meets = (
                (times[:, 0] < end) & (start < times[:, 1]) & (units[:, 0] < units[i, 1]) & (units[i, 0] < units[:, 1])
            )
            assert meets.sum() == 1
        placed += len(times)
    assert placed > 10


def test_when_a_unit_is_wanted_next() -> None:
    for seed in SEEDS:
        game = seeded_game(seed)
        n, places = game.problem.end, game.places
        for time in range(n + 1):
            starts = np.full(game.num_units, n + 1)
            for (start, _), (low, high) in zip(places.times, places.units, strict=True):
                if start >= time:
                    starts[low:high] = np.minimum(starts[low:high], start)
            np.testing.assert_array_equal(game.wanted_from[time], starts)


@pytest.mark.slow
def test_what_a_guide_has_there_lies_in_its_place() -> None:
    for seed in SEEDS:
        plan, guided, _ = games(seeded_game(seed).problem)
        reference = imitated(guided, plan)
        assert verify(guided.problem, make_plan(reference)) == []
        opened = [guided.moves[number] for number in reference.residencies]
        in_place = sum(reference.residencies[n].offset == guided.moves[n].place for n in reference.residencies)
        assert in_place >= 0.5 * sum(move.place >= 0 for move in opened)


@pytest.mark.slow
def test_a_guide_helps_to_play_like_it() -> None:
    guided_loss, lonely_loss = [], []
    for seed in SEEDS:
        plan, guided, alone = games(seeded_game(seed).problem)
        latency = TimingEmulator(guided.problem).latency(plan)
        for game, loss in ((guided, guided_loss), (alone, lonely_loss)):
            loss.append((game.home_latency - imitated(game, plan).total) / max(latency, 1e-30) - 1.0)
    assert np.mean(guided_loss) < np.mean(lonely_loss)


def test_a_place_is_for_what_lasts_as_long() -> None:
    shorter = 0
    for seed in SEEDS:
        plan, guided, _ = games(seeded_game(seed).problem)
        for move in guided.moves:
            if move.accesses and guided.places.of_access[move.accesses[0]] >= 0:
                residency = plan.residencies[plan.served[move.accesses[0]]]
                lasts = residency.start <= move.start and move.end <= residency.end
                assert (move.place >= 0) == lasts
                shorter += not lasts
    assert shorter > 3


def test_without_a_guide_nothing_has_a_place() -> None:
    _, _, alone = games(seeded_game(7).problem)
    assert {move.place for move in alone.moves} == {NOWHERE}
    assert (alone.wanted_from == alone.problem.end + 1).all()
