"""A plan as JSON and as JSON values."""

from __future__ import annotations

import dataclasses
import json

from literal_problems import plan, problem

from memplan.compiler.mapping.plan import Plan

CHAIN = problem("r a, w b", "r a, u b", "r b", arguments="a", results="b")
PREFETCHED = dataclasses.replace(
    plan(CHAIN, [("a", 0, 0, 0, 4), ("b", 0, 4, 0, 4), ("a", 1, 0, 0, 2)], [(0, 2, 0, 1)], served=[0, 1, 2, 1, 1]),
    info={"seconds": 0.1, "tried": ["a", None]},
)


def test_a_plan_round_trips() -> None:
    data = PREFETCHED.to_dict()
    for again in (
        Plan.from_json(PREFETCHED.to_json()),
        Plan.from_dict(data),
        Plan.from_dict(json.loads(json.dumps(data))),
    ):
        assert again == PREFETCHED
        assert again.info == PREFETCHED.info


def test_the_json_is_that_of_the_values() -> None:
    assert PREFETCHED.copies
    assert json.loads(PREFETCHED.to_json()) == PREFETCHED.to_dict()
