"""Plans and problems as JSON: what is wrong with a text is said with its place."""

from __future__ import annotations

import json

import pytest
from literal_problems import plan, problem

from memplan.compiler.errors import PlanError
from memplan.compiler.mapping.documents import document_of, parse_json
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem

KINDS = pytest.mark.parametrize("kind", [Plan, MappingProblem])


def test_a_document_is_known_by_its_schema() -> None:
    data = parse_json('{"schema": "x/1", "n": [1]}', "x.json")
    assert document_of(data, "thing", "x/1", "x.json") == {"schema": "x/1", "n": [1]}
    for other in ({"schema": "x/2"}, {}, [], None, "x/1"):
        with pytest.raises(PlanError, match=r"^x\.json: not a thing of schema x/1$"):
            document_of(other, "thing", "x/1", "x.json")


@KINDS
def test_what_is_not_json_is_refused_with_its_place(kind: type[Plan] | type[MappingProblem]) -> None:
    with pytest.raises(PlanError, match=r"^x\.json:2:1: not JSON: "):
        kind.from_json('{"schema":\n', "x.json")


@KINDS
def test_json_that_is_nested_too_deeply_is_one_clear_error(kind: type[Plan] | type[MappingProblem]) -> None:
    with pytest.raises(PlanError, match=r"deep\.json: .*nested too deeply"):
        kind.from_json("[" * 200_000, "deep.json")


@KINDS
def test_a_number_without_end_is_one_clear_error(kind: type[Plan] | type[MappingProblem]) -> None:
    with pytest.raises(PlanError, match=r"^long\.json: not JSON that can be read: "):
        kind.from_json("1" * 10_000, "long.json")


def test_a_plan_is_no_problem_and_a_problem_no_plan() -> None:
    chain = problem("w a", "r a")
    made = plan(chain, [("a", 0, 0, 0, 2)])
    with pytest.raises(PlanError, match=r"x\.json: not a mapping problem of schema memplan\.problem/1"):
        MappingProblem.from_json(made.to_json(), "x.json")
    with pytest.raises(PlanError, match=r"x\.json: not a plan of schema memplan\.plan/1"):
        Plan.from_json(chain.to_json(), "x.json")


def test_the_plan_in_a_problem_is_looked_at_as_any_other() -> None:
    chain = problem("w a", "r a")
    data = json.loads(chain.with_given(plan(chain, [("a", 0, 0, 0, 2)])).to_json())
    for given, message in (
        ([], "not a plan of schema"),
        ({**data["given"], "residencies": [[0]]}, r"residencies\[0\] must be a list of 5 integers"),
        ({**data["given"], "name": None}, "field 'name' must be a string"),
    ):
        with pytest.raises(PlanError, match=rf"^x\.json: {message}"):
            MappingProblem.from_json(json.dumps({**data, "given": given}), "x.json")
    del data["given"]
    with pytest.raises(PlanError, match=r"x\.json: malformed mapping problem: KeyError\('given'\)"):
        MappingProblem.from_json(json.dumps(data), "x.json")
