"""From stays to plans: homes last as long as they are needed, and what does not fit is left out."""

from __future__ import annotations

import dataclasses

from literal_problems import loop, problem

from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.mapping.verify import verify
from memplan.planners.stays.assembly import Stay, assemble, home_of


def homes(mapped: MappingProblem, *stays: Stay) -> dict[str, tuple[int, int]]:
    """When each buffer is at home, in a plan that is valid."""
    made = assemble(mapped, stays, "test").plan
    assert verify(mapped, made) == []
    return {mapped.buffers[r.buffer].name: (r.start, r.end) for r in made.residencies if r.space == 0}


def test_the_home_of_a_buffer_is_where_the_program_wants_it() -> None:
    mapped = problem("r a, w b", "r b, w c", arguments="a", results="c")
    assert [home_of(mapped, buffer) for buffer in range(3)] == [0, 0, 0]
    elsewhere = [
        dataclasses.replace(mapped.buffers[0], initial_space=1),
        mapped.buffers[1],
        dataclasses.replace(mapped.buffers[2], final_space=1),
    ]
    assert [home_of(dataclasses.replace(mapped, buffers=tuple(elsewhere)), buffer) for buffer in range(3)] == [1, 0, 1]


def test_a_buffer_is_at_home_only_as_long_as_it_is_needed_there() -> None:
    mapped = problem("w a", "r a", "", "r a", "r a")
    assert homes(mapped) == {"a": (0, 5)}
    assert homes(mapped, Stay(0, 1, 0, 5, accesses=(0, 1, 2, 3))) == {}
    # Produced in fast memory and brought home while the second operation reads it.
    assert homes(mapped, Stay(0, 1, 0, 3, accesses=(0, 1), evictions=((1, 3),))) == {"a": (1, 5)}
    # Fetched back for the last use, from the operation before on.
    assert homes(mapped, Stay(0, 1, 3, 5, accesses=(3,), prefetches=((3, 4),))) == {"a": (0, 4)}


def test_a_home_lasts_through_the_loops_that_it_is_needed_in() -> None:
    #   t               0      1 ┊ 2      3      4 ┊ 5
    mapped = problem("w a", "", "r a", "u a", "", "", regions=[loop(2, 5)], live={"a": (0, 5)})
    stay = Stay(0, 1, 2, 5, accesses=(1, 2), prefetches=((2, 2),), evictions=((4, 4),))
    assert homes(mapped, stay) == {"a": (0, 5)}
    produced = Stay(0, 1, 0, 2, accesses=(0,), evictions=((1, 1),))
    assert homes(mapped, produced) == {"a": (1, 5)}


def test_what_an_iteration_uses_up_needs_no_home_beyond_it() -> None:
    mapped = problem("", "w a", "r a", "", regions=[loop(1, 4)])
    assert homes(mapped) == {"a": (1, 3)}


def test_arguments_and_results_are_at_home_when_the_caller_looks() -> None:
    mapped = problem("r a", "u b", "r c", arguments="a", donated="b c", results="b")
    assert homes(mapped) == {"a": (0, 4), "b": (0, 4), "c": (0, 3)}
    served = Stay(2, 1, 1, 3, accesses=(2,), prefetches=((1, 2),))
    assert homes(mapped, served)["c"] == (0, 2)


def test_stays_without_room_are_left_out() -> None:
    mapped = problem("w a, w b", "r a, r b", sizes={"a": 10, "b": 10})
    both = [Stay(0, 1, 0, 2, accesses=(0, 2), value=2.0), Stay(1, 1, 0, 2, accesses=(1, 3), value=1.0)]
    assembly = assemble(mapped, both, "test", {"note": "x"})
    assert assembly.left_out == (1,)
    assert verify(mapped, assembly.plan) == []
    assert assembly.plan.info == {"note": "x"}
    assert [(r.buffer, r.space) for r in assembly.plan.residencies] == [(0, 1), (1, 0)]


def test_offsets_that_are_known_are_kept() -> None:
    mapped = problem("w a, w b", "r a, r b")
    known = [Stay(0, 1, 0, 2, accesses=(0, 2), offset=8), Stay(1, 1, 0, 2, accesses=(1, 3), offset=3)]
    made = assemble(mapped, known, "test").plan
    assert verify(mapped, made) == []
    assert [r.offset for r in made.residencies] == [8, 3]
    found = assemble(mapped, [dataclasses.replace(stay, offset=-1) for stay in known], "test").plan
    assert sorted(r.offset for r in found.residencies) == [0, 4]


def test_copies_stand_in_the_order_in_which_they_are_awaited() -> None:
    mapped = problem("", "", "r b", "r a", arguments="a b")
    late = Stay(0, 1, 0, 4, accesses=(1,), prefetches=((0, 3),))
    early = Stay(1, 1, 0, 3, accesses=(0,), prefetches=((0, 2),))
    made = assemble(mapped, [late, early], "test").plan
    assert [(copy.start, copy.done) for copy in made.copies] == [(0, 2), (0, 3)]
