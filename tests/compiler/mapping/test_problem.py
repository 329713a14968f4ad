"""What a problem tells beyond its fields."""

from __future__ import annotations

import dataclasses

from literal_problems import branch, loop, plan, problem

from memplan.compiler.mapping.problem import MappingProblem

CHAIN = problem("r a, w b", "r a, u b", "r b", arguments="a", results="b")
SLOW = plan(CHAIN, [("a", 0, 0, 0, 4), ("b", 0, 4, 0, 4)])
# Filled by the properties that a problem caches.
CACHED = ("access_start", "accesses", "accesses_of", "repetitions", "link_between", "fingerprint")


def test_another_given_plan_makes_the_same_problem() -> None:
    mapped = CHAIN.with_given(SLOW)
    assert mapped.given == SLOW
    assert CHAIN.given is None
    assert mapped == CHAIN
    assert mapped == dataclasses.replace(CHAIN, given=SLOW)
    assert mapped.with_given(None).given is None


def test_what_is_cached_does_not_depend_on_the_given_plan_and_is_kept() -> None:
    original = dataclasses.replace(CHAIN)
    known = {name: getattr(original, name) for name in CACHED}
    fields = {field.name for field in dataclasses.fields(MappingProblem)}
    assert set(vars(original)) - fields == set(CACHED), "a property that is cached and not looked at here"
    mapped = original.with_given(SLOW)
    for name in CACHED:
        assert vars(mapped)[name] is known[name]
    fresh = dataclasses.replace(CHAIN, given=SLOW)
    assert {name: getattr(fresh, name) for name in CACHED} == known


def test_a_problem_round_trips_with_its_given_plan() -> None:
    for original in (CHAIN, CHAIN.with_given(SLOW)):
        again = MappingProblem.from_json(original.to_json())
        assert again == original
        assert again.given == original.given
        assert again.fingerprint == original.fingerprint


def test_how_often_a_moment_comes() -> None:
    made = problem(
        "w a", "r a", "r a", "", "r a", "",
        regions=[loop(1, 4, trips=5), loop(2, 3, trips=3, parent=1), branch(4, 5)],
    )  # fmt: skip
    assert [made.runs_at(t) for t in range(made.end + 1)] == [1, 5, 15, 5, 0.5, 1, 1]
