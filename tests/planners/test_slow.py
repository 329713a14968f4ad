"""Everything at home."""

from __future__ import annotations

import dataclasses

import pytest
from literal_problems import problem

from memplan.compiler.errors import PlannerError
from memplan.compiler.mapping.problem import Buffer, MappingProblem
from memplan.compiler.mapping.verify import verify
from memplan.planners.planner import Budget
from memplan.planners.slow import solve


def with_spaces(mapped: MappingProblem, name: str, initial: int | None, final: int | None) -> MappingProblem:
    """Returns a problem in which the program wants a buffer in certain spaces."""

    def changed(buffer: Buffer) -> Buffer:
        return dataclasses.replace(buffer, initial_space=initial, final_space=final) if buffer.name == name else buffer

    return dataclasses.replace(mapped, buffers=tuple(changed(buffer) for buffer in mapped.buffers))


def test_everything_is_in_slow_memory() -> None:
    mapped = problem("r a, w b", "r b, w c", arguments="a", results="c")
    made = solve(mapped, Budget())
    assert verify(mapped, made) == []
    assert {r.space for r in made.residencies} == {0}
    assert made.copies == ()
    assert made.planner == "slow"


def test_slow_memory_is_packed() -> None:
    """Temporaries that are not alive together share bytes: `a` and `c`, `b` and `d`."""
    chain = problem("w a", "r a, w b", "r b, w c", "r c, w d", "r d")
    made = solve(chain, Budget())
    assert max(r.offset for r in made.residencies) == 4


def test_what_the_program_wants_in_fast_memory_is_there() -> None:
    mapped = with_spaces(problem("r a, w b", "r b", arguments="a", results="b"), "a", 1, None)
    made = solve(mapped, Budget())
    assert verify(mapped, made) == []
    assert {(r.buffer, r.space) for r in made.residencies} == {(0, 1), (1, 0)}


def test_an_argument_that_must_end_elsewhere_is_copied_at_the_end() -> None:
    mapped = with_spaces(problem("u a", "r a", donated="a", results="a"), "a", 1, 0)
    mapped = dataclasses.replace(mapped, buffers=(dataclasses.replace(mapped.buffers[0], persistent=False),))
    made = solve(mapped, Budget())
    assert verify(mapped, made) == []
    assert [(copy.start, copy.done) for copy in made.copies] == [(2, 2)]
    one_way = dataclasses.replace(mapped, links=mapped.links[:1])
    with pytest.raises(PlannerError, match="starts in fast and must end in slow, but the target has no link"):
        solve(one_way, Budget())


def test_what_does_not_fit_the_memory_that_the_program_wants_is_refused() -> None:
    mapped = with_spaces(problem("r a", arguments="a", sizes={"a": 17}), "a", 1, None)
    with pytest.raises(PlannerError, match="do not fit fast, which has 16, where the program wants them"):
        solve(mapped, Budget())
