"""The mapping that a dump carries, with offsets."""

from __future__ import annotations

import dataclasses

import pytest
from literal_problems import plan, problem

from memplan.compiler.errors import PlannerError
from memplan.compiler.mapping.plan import BEFORE, Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.mapping.verify import verify
from memplan.planners.planner import Budget
from memplan.planners.xla import given_stays, solve


def given(mapped: MappingProblem, residencies: list, copies: list, served: list[int] | None = None) -> MappingProblem:
    """Returns a problem that carries a mapping; offsets are left open."""
    stated = [(name, space, -1, start, end) for name, space, start, end in residencies]
    return dataclasses.replace(mapped, given=plan(mapped, stated, copies, served))


def moves(made: Plan) -> list[tuple[int, int, int, int]]:
    """Spaces and times of the copies."""
    spaces = [r.space for r in made.residencies]
    return [(spaces[copy.source], spaces[copy.destination], copy.start, copy.done) for copy in made.copies]


def test_a_program_without_a_mapping_is_refused() -> None:
    with pytest.raises(PlannerError, match="carries no mapping of its own"):
        solve(problem("w a"), Budget())


def test_the_mapping_is_kept() -> None:
    mapped = problem("", "r a, w b", "", "r b", arguments="a", results="b")
    carried = given(
        mapped,
        [("a", 0, 0, 5), ("a", 1, 0, 2), ("b", 1, 1, 4), ("b", 0, 2, 5)],
        [(0, 1, 0, 1), (2, 3, 2, 3)],
        [1, 2, 2],
    )
    made = solve(carried, Budget())
    assert verify(carried, made) == []
    assert moves(made) == [(0, 1, 0, 1), (1, 0, 2, 3)]
    assert made.info == {"left_out": 0, "started_later": 0}
    assert {made.residencies[r].space for r in made.served} == {1}


def test_an_operand_whose_place_its_result_takes_is_one_stay() -> None:
    """16 bytes fill the memory: operand and result can only lie there together if they share it."""
    mapped = problem("w a", "r a, w a", "r a", sizes={"a": 16})
    carried = given(mapped, [("a", 1, 0, 2), ("a", 1, 1, 3)], [], [0, 0, 1, 1])
    made = solve(carried, Budget())
    assert verify(carried, made) == []
    assert [(r.space, r.start, r.end) for r in made.residencies] == [(1, 0, 3)]


def test_two_stays_that_only_overlap_are_not_joined() -> None:
    mapped = problem("w a", "", "r a", "r a")
    carried = given(mapped, [("a", 1, 0, 2), ("a", 0, 0, 4), ("a", 1, 1, 4)], [(0, 1, 1, 1), (1, 2, 1, 2)], [0, 2, 2])
    assert carried.given is not None
    assert len(given_stays(carried, carried.given)) == 2


def test_a_copy_starts_later_where_memory_is_too_full() -> None:
    """As when a large prefetch comes in slices: not all of it can be there from its start."""
    mapped = problem("w a", "r a", "", "r b", arguments="b", sizes={"a": 10, "b": 10})
    carried = given(mapped, [("a", 1, 0, 2), ("b", 0, 0, 5), ("b", 1, 1, 4)], [(1, 2, 1, 3)], [0, 0, 2])
    made = solve(carried, Budget())
    assert verify(carried, made) == []
    assert moves(made) == [(0, 1, 2, 3)]
    assert made.info == {"left_out": 0, "started_later": 1}


def test_what_does_not_fit_at_all_is_left_out() -> None:
    mapped = problem("w a, w b", "r a, r b", "r b", sizes={"a": 10, "b": 10})
    carried = given(mapped, [("a", 1, 0, 2), ("b", 1, 0, 3)], [], None)
    made = solve(carried, Budget())
    assert verify(carried, made) == []
    assert made.info == {"left_out": 1, "started_later": 0}
    assert {mapped.buffers[r.buffer].name for r in made.residencies if r.space == 1} == {"b"}


def test_an_argument_from_the_run_before_is_left_for_the_next() -> None:
    mapped = problem("r a", "", "", arguments="a", cross_program_prefetches=1)
    carried = given(mapped, [("a", 0, 0, 4), ("a", 1, 0, 1), ("a", 1, 2, 4)], [(0, 1, BEFORE, 0), (0, 2, 2, 3)], [1])
    made = solve(carried, Budget())
    assert verify(carried, made) == []
    assert moves(made) == [(0, 1, BEFORE, 0), (0, 1, 2, 3)]
