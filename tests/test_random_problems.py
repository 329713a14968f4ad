"""Problems of random programs: contended as wanted, valid for planners, and a folder of them that goes on."""

from pathlib import Path
from typing import Any

import pytest

import memplan
from memplan import problem_folder
from memplan.cli.generate import table_of_families
from memplan.compiler.effort import Effort
from memplan.compiler.errors import MemplanError
from memplan.compiler.mapping.problem import MappingProblem
from memplan.planners.stays.small_problem import small_problem
from memplan.problem_folder import MANIFEST, fill, load_manifest, room_of, summarize
from memplan.random_problems import OPERATIONS, OVERSUBSCRIPTION, RandomProblem, oversubscription, random_problem

SEED, FAMILY = 22, "random-recommender"


@pytest.fixture(scope="module")
def made() -> RandomProblem:
    return random_problem(SEED, FAMILY)


def test_a_problem_is_that_of_its_target(made: RandomProblem) -> None:
    """The capacity is put in afterwards; what was costed before does not depend on it."""
    space = made.target.spaces[1]
    assert made.problem.spaces[1].capacity == space.capacity
    assert made.problem.spaces[1].bandwidth == space.bandwidth
    assert made.problem.links[0].bandwidth <= made.problem.spaces[0].bandwidth
    assert max(operation.reserved[1] for operation in made.problem.operations) < space.capacity


def test_it_is_the_same_again(made: RandomProblem) -> None:
    again = random_problem(SEED, FAMILY)
    assert again.problem == made.problem
    assert again.structure == made.structure
    other = random_problem(SEED + 1, FAMILY)
    assert other.structure != made.structure


def test_over_subscription(made: RandomProblem) -> None:
    """Counted anew, moment by moment."""
    problem = made.problem
    room = problem.spaces[1].capacity - max(operation.reserved[1] for operation in problem.operations)
    peak = 0
    for t in range(problem.end):
        wanted = 0
        for number, buffer in enumerate(problem.buffers):
            accesses = [problem.accesses[i] for i in problem.accesses_of[number]]
            gains = any(access.cost[1] < access.cost[0] for _, access in accesses)
            if gains and buffer.size <= room and accesses[0][0] <= t <= accesses[-1][0]:
                wanted += buffer.size
        peak = max(peak, wanted)
    assert made.oversubscription == oversubscription(problem) == peak / room
    assert OVERSUBSCRIPTION[0] * 0.95 <= made.oversubscription <= OVERSUBSCRIPTION[1] * 1.05


@pytest.mark.slow
def test_greedy_plans_it(made: RandomProblem) -> None:
    plan = memplan.plan(made.problem, planner="greedy", effort="fast")
    assert memplan.verify(made.problem, plan) == []
    slow = memplan.plan(made.problem, planner="slow")
    assert memplan.emulate(made.problem, plan).latency < memplan.emulate(made.problem, slow).latency


def untimed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns rows without what depends on the machine."""
    return [{key: value for key, value in row.items() if key != "cpu_seconds"} for row in rows]


@pytest.mark.slow
def test_a_folder_goes_on_where_it_was_cut_off(tmp_path: Path) -> None:
    whole = untimed(fill(tmp_path / "whole", 2, seed=3, processes=2))
    part = untimed(fill(tmp_path / "part", 1, seed=3))
    assert part == whole[:1]
    told: list[dict[str, Any]] = []
    assert untimed(fill(tmp_path / "part", 2, seed=3, on_row=told.append)) == whole == untimed(told)
    for row in load_manifest(tmp_path / "part"):
        problem = MappingProblem.load(tmp_path / "part" / row["file"])
        assert problem == MappingProblem.load(tmp_path / "whole" / row["file"])
        assert OPERATIONS[0] <= problem.end == row["operations"] <= OPERATIONS[1]
    with pytest.raises(MemplanError, match="was made with other seed: name another folder"):
        fill(tmp_path / "part", 2, seed=4)
    (tmp_path / "part" / whole[1]["file"]).unlink()
    (tmp_path / "part" / MANIFEST).write_text((tmp_path / "whole" / MANIFEST).read_text())
    assert untimed(fill(tmp_path / "part", 1, seed=3)) == whole[:1], "what has no file is not there"


@pytest.mark.parametrize("text", ["[]", "{}", "x", '{"schema": "memplan.problems/1", "made_with": {}, "rows": [1]}'])
def test_what_is_no_manifest(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(MemplanError, match=r"manifest.json: is no manifest of `memplan generate`"):
        fill(tmp_path, 1)


def test_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(problem_folder, "ROOM_EFFORT", Effort.FAST)
    problem = small_problem()
    row = room_of(problem)
    greedy = memplan.plan(problem, planner="greedy", effort="fast")
    assert row["greedy"] == memplan.emulate(problem, greedy).latency
    assert row["room"] == row["greedy"] / row["best"] - 1 >= 0


def test_summary() -> None:
    row = {"split": "development", "attempt": 1, "operations": 100, "buffers": 10, "oversubscription": 2.0}
    row |= {"cpu_seconds": 2.0, "room_cpu_seconds": 10.0}
    rows = [{**row, "family": "a", "room": 0.02}, {**row, "family": "b", "split": "held-out", "room": 0.0}]
    summary = summarize(rows)
    assert list(summary) == ["a", "b", "all"]
    assert (summary["all"]["with_room"], summary["all"]["split"], summary["all"]["rejected"]) == (0.5, "both", 2)
    assert summary["all"]["room_quartiles"] == pytest.approx([0.005, 0.01, 0.015])
    table = table_of_families(summary)
    assert [list(column.cells)[-1] for column in table.columns][-6:-1] == ["2.0", "50.0 %", "0.5 %", "1.0 %", "1.5 %"]
    without = summarize([{key: value for key, value in rows[0].items() if "room" not in key}])
    assert len(table_of_families(without).columns) == len(table.columns) - 5
