"""Plans and problems as JSON: what is wrong with a text is said with its place."""

from __future__ import annotations

import json

import pytest
from literal_problems import plan, problem

from memplan.compiler.errors import PlanError
from memplan.compiler.mapping.documents import (
    MAX_DEPTH,
    Check,
    anything,
    boolean,
    check_fields,
    document_of,
    fields,
    integer,
    mapping,
    number,
    one_of,
    optional,
    parse_json,
    record,
    row,
    rows,
    text,
)
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
        (
            {**data["given"], "residencies": [[0]]},
            r"residencies\[0\]: expected a list of 5 entries \(buffer, space, offset, start, end\), found a list of 1",
        ),
        ({**data["given"], "name": None}, "name: expected a string, found null"),
        ({**data["given"], "served": [5]}, r"served: 1 entries for 2 accesses"),
        ({**data["given"], "served": [0, 5]}, r"served\[1\]: residency 5 does not exist"),
        ({**data["given"], "residencies": [[0, 7, 0, 0, 2]]}, r"residencies\[0\]: buffer 0 or space 7 does not exist"),
        ({**data["given"], "copies": [[0, -1, 0, 1]]}, r"copies\[0\]: residency 0 or -1 does not exist"),
    ):
        with pytest.raises(PlanError, match=rf"^x\.json: given: {message}"):
            MappingProblem.from_json(json.dumps({**data, "given": given}), "x.json")
    del data["given"]
    with pytest.raises(PlanError, match=r"^x\.json: the field 'given' is missing$"):
        MappingProblem.from_json(json.dumps(data), "x.json")


def complaint(check: Check, value: object) -> str:
    """Returns what a check says of a value, with the path to what is wrong; "" if it accepts the value."""
    try:
        check_fields({"it": value}, "f", it=check)
    except PlanError as error:
        return str(error).removeprefix("f: it")
    return ""


def test_a_check_says_where_and_what() -> None:
    check = rows(row(name=text, size=integer(0)), at_most=4)
    assert complaint(check, [["a", 0], ["b", 1]]) == ""
    assert complaint(check, [["a", 0], ["b", "x"]]) == '[1].size: expected an integer of at least 0, found "x"'
    assert (
        complaint(check, [["a", 0], ["b"]])
        == "[1]: expected a list of 2 entries (name, size), found a list of 1 entries"
    )
    assert complaint(mapping(record(a=boolean)), {"k": {"a": 0}}) == '["k"].a: expected true or false, found 0'
    assert complaint(check, {}) == ": expected a list of 0 to 4 entries, found an object of 0 entries"
    assert complaint(check, [["a", 0]] * 5) == ": expected a list of 0 to 4 entries, found a list of 5 entries"


@pytest.mark.parametrize(
    ("check", "right", "wrong"),
    [
        (text, ["", "a", "\u00e9"], [1, None, True, [], {}, "\ud800"]),
        (boolean, [True, False], [0, 1, "true", None]),
        (integer(), [0, -(2**63), 2**63 - 1], [2**63, -(2**63) - 1, 10**5000, True, 1.0, "1", None]),
        (integer(1, 3), [1, 2], [0, 3, False, True]),
        (number(), [0, 1.5, -1e300], [float("nan"), float("inf"), 10**400, True, "1", None]),
        (number(at_least=0.0, at_most=1.0), [0, 0.5, 1], [-0.1, 1.1, 2]),
        (number(above=0.0), [1e-300], [0, 0.0, -0.0, -1]),
        (one_of({"a", "b"}), ["a"], ["c", "", None, ["a"], {}]),
        (optional(integer(0)), [None, 0], [-1, False, "x"]),
        (rows(integer(0), 2), [[0, 1]], [[], [0], [0, 1, 2], (0, 1), "01", None]),
        (rows(anything, at_least=1), [[None]], [[]]),
        (mapping(integer(0)), [{}, {"a": 1, "b": 2}], [{"a": -1}, {"\ud800": 1}, [], None]),
        (
            record(a=integer(0), b=text),
            [{"a": 1, "b": ""}],
            [{}, {"a": 1}, {"a": 1, "b": "", "c": 1}, {"a": 1, "b": 2}],
        ),
        (fields, [{}, {"a": [{"b": 1}]}], [[], None, 3]),
    ],
)
def test_what_a_check_accepts(check: Check, right: list[object], wrong: list[object]) -> None:
    assert [complaint(check, value) for value in right] == [""] * len(right)
    assert all(": expected " in complaint(check, value) for value in wrong)


def test_fields_of_any_content_nest_to_a_limit() -> None:
    def nested(depth: int) -> object:
        return {"a": nested(depth - 1)} if depth else 1

    assert complaint(fields, nested(MAX_DEPTH)) == ""
    assert complaint(fields, nested(MAX_DEPTH + 1)).startswith(f": expected values that nest at most {MAX_DEPTH} deep")


@KINDS
@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_constants_that_are_no_json_are_refused(kind: type[Plan] | type[MappingProblem], constant: str) -> None:
    with pytest.raises(PlanError, match=rf"^x\.json: not JSON that can be read: {constant} is no JSON number$"):
        kind.from_json(f'{{"info": {constant}}}', "x.json")
