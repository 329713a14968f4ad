"""Costs that agree with what several modules state."""

from __future__ import annotations

import pytest
from fake_compiler import program

from memplan.backends.tpu.learning import Lesson, learned
from memplan.backends.tpu.steering import sites
from memplan.compiler.frontends import parse_hlo
from memplan.compiler.hardware.target import load_target
from memplan.compiler.mapping.build import build
from memplan.compiler.mapping.problem import MappingProblem

V5E = load_target("tpu-v5e")


def _problem() -> tuple[MappingProblem, MappingProblem]:
    """The chain with everything in slow memory, and what it becomes when a module with a and b in fast memory is seen."""
    built = build(parse_hlo(program()), V5E)
    lesson = Lesson.of(parse_hlo(program("ab")), V5E)
    return built.problem, learned(built.problem, sites(built), [lesson])


def _cycles(problem: MappingProblem, name: str, fast: str) -> float:
    operation = next(operation for operation in problem.operations if operation.name == name)
    spaces = [int(problem.buffers[access.buffer].name in fast) for access in operation.accesses]
    return operation.duration(spaces) * V5E.clock


def test_agrees_with_both_modules() -> None:
    _, known = _problem()
    for name, stated in (("a", 48_334), ("b", 36_667), ("c", 36_667), ("d", 60_000)):
        assert _cycles(known, name, "ab") == pytest.approx(stated, rel=1e-3)
        assert _cycles(known, name, "") == pytest.approx(60_000, rel=1e-3)


def test_the_model_alone_predicted_something_else() -> None:
    before, _ = _problem()
    assert _cycles(before, "b", "ab") != pytest.approx(36_667, rel=0.02)


def test_nothing_is_learned_of_what_did_not_move_and_from_what_is_not_there() -> None:
    before, known = _problem()
    assert known.operations[-1] == before.operations[-1]  # d reads c, which is slow in both
    built = build(parse_hlo(program()), V5E)
    stranger = Lesson.of(parse_hlo("ENTRY e { x = f32[8] parameter(0) ROOT y = f32[8] negate(x) }"), V5E)
    assert learned(built.problem, sites(built), [stranger]).operations == built.problem.operations


def test_costs_stay_what_a_problem_may_have() -> None:
    """No cost or overhead is negative, even where a fast memory makes an instruction slower, or faster than predicted."""
    built = build(parse_hlo(program()), V5E)
    for cycles in (3_000, 60_000, 200_000):
        lesson = Lesson.of(parse_hlo(program("abc", cycles + 35_000)), V5E)
        known = learned(built.problem, sites(built), [lesson])
        for operation in known.operations:
            assert operation.floor >= 0.0
            assert operation.overhead >= 0.0
            assert all(cost >= 0.0 for access in operation.accesses for cost in access.cost)
            slow = [0] * len(operation.accesses)
            assert operation.duration(slow) * V5E.clock == pytest.approx(60_000, rel=1e-3)


def test_a_later_lesson_is_heeded_most() -> None:
    built = build(parse_hlo(program()), V5E)
    lessons = [Lesson.of(parse_hlo(program("abc", cycles)), V5E) for cycles in (0, 50_000)]
    known = learned(built.problem, sites(built), lessons)
    assert _cycles(known, "c", "abc") == pytest.approx(15_000, rel=1e-3)
