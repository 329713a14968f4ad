"""What a problem's JSON must hold: every rule of its parts is broken once, and the message names the place."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from literal_problems import branch, loop, problem
from random_problems import problems

from memplan.compiler.errors import PlanError
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.mapping.problem_document import MAX_NESTING, MAX_PARTS

NESTED = problem(
    "w a", "r a, w b", "u b", "r b", "r b, w c", "r c",
    arguments="p", results="c",
    regions=[loop(1, 4, trips=5), loop(2, 3, trips=3, parent=1), branch(4, 5)],
)  # fmt: skip

Change = Callable[[dict[str, Any]], Any]


def setting(*path: str | int, to: Any) -> Change:
    """Returns a change of one value of a document."""

    def change(data: dict[str, Any]) -> None:
        place: Any = data
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = to

    return change


WRONG: dict[str, tuple[Change, str]] = {
    "no spaces": (setting("spaces", to=[]), "spaces: expected a list of 1 to 64 entries"),
    "too many spaces": (setting("spaces", to=[["s", 1, 1, 1.0, 0]] * (MAX_PARTS + 1)), "spaces: expected a list of 1 to"),
    "a name that is no text": (setting("spaces", 1, 0, to=5), r"spaces\[1\]\.name: expected a string, found 5"),
    "a negative capacity": (setting("spaces", 1, 1, to=-1), r"spaces\[1\]\.capacity: expected an integer from 0 to"),
    "a capacity beyond 64 bits": (setting("spaces", 1, 1, to=2**64), r"spaces\[1\]\.capacity: .*an integer beyond 64 bits"),
    "a boolean alignment": (setting("spaces", 1, 2, to=True), r"spaces\[1\]\.alignment: .*found true"),
    "no alignment": (setting("spaces", 1, 2, to=0), r"spaces\[1\]\.alignment: expected an integer from 1"),
    "no bandwidth": (setting("spaces", 1, 3, to=0.0), r"spaces\[1\]\.bandwidth: expected a finite number above 0"),
    "a bandwidth beyond floats": (setting("spaces", 1, 3, to=10**400), r"spaces\[1\]\.bandwidth: .*beyond 64 bits"),
    "a channel that is huge": (setting("spaces", 0, 4, to=10**9), r"spaces\[0\]\.channel: expected an integer from -1 to"),
    "a link to nowhere": (setting("links", 0, 1, to=2), r"links\[0\]\.destination: expected an integer from 0 to 1"),
    "a link to itself": (setting("links", 0, 1, to=0), r"links\[0\]: it leads from a memory to itself"),
    "two links": (setting("links", 1, to=[0, 1, 1.0, 0.0, 0, 0]), r"links\[1\]: another link joins the same memories"),
    "a queue that is huge": (setting("links", 0, 4, to=10**9), r"links\[0\]\.queue: "),
    "a latency that is negative": (setting("links", 0, 3, to=-1.0), r"links\[0\]\.latency: "),
    "no regions": (setting("regions", to=[]), "regions: expected a list of at least 1 entries"),
    "an unknown kind of region": (setting("regions", 1, 0, to="while"), r"regions\[1\]\.kind: expected one of branch, "),
    "a kind that is a list": (setting("regions", 1, 0, to=["loop"]), r"regions\[1\]\.kind: "),
    "a first region that is a loop": (setting("regions", 0, 0, to="loop"), r"regions\[0\]: it must be the program"),
    "a program that is short": (setting("regions", 0, 2, to=5), r"regions\[0\]: it must be the program: .* end 6"),
    "two programs": (setting("regions", 1, 0, to="program"), r"regions\[1\]: only the first region"),
    "a parent that comes later": (setting("regions", 1, 3, to=2), r"regions\[1\]: its parent, 2, is no region before it"),
    "its own parent": (setting("regions", 1, 3, to=1), r"regions\[1\]: its parent, 1, is no region before it"),
    "no parent": (setting("regions", 1, 3, to=-1), r"regions\[1\]: its parent, -1, is no region before it"),
    "a region beyond its parent": (setting("regions", 2, 2, to=5), r"regions\[2\]: \[2, 5\) is not within its parent, 1"),
    "a region that runs backwards": (setting("regions", 2, 1, to=4), r"regions\[2\]: \[4, 3\) is not within"),
    "regions that overlap": (setting("regions", 3, 1, to=3), r"regions\[3\]: it overlaps another region of its parent"),
    "a trip count that is negative": (setting("regions", 1, 4, to=-1), r"regions\[1\]\.trip_count: "),
    "a trip count that is huge": (setting("regions", 2, 4, to=9e29), r"regions\[2\]: it runs more than"),
    "a probability above 1": (setting("regions", 3, 4, to=2), r"regions\[3\]: the probability of a branch is 2"),
    "a branch without a group": (setting("regions", 3, 5, to=-1), r"regions\[3\]: a branch needs the group"),
    "an operation's region": (setting("operations", 2, 5, to=1), r"operations\[2\]\.region: .* is 2, not 1"),
    "an operation in no region": (setting("operations", 2, 5, to=9), r"operations\[2\]\.region: expected an integer from"),
    "a floor that is a text": (setting("operations", 0, 2, to="1"), r"operations\[0\]\.floor: expected a finite number"),
    "a time beyond floats": (setting("operations", 2, 2, to=1e30), r"operations\[2\]: the program takes more than"),
    "nothing reserved": (setting("operations", 0, 4, to=[]), r"operations\[0\]\.reserved: expected a list of 2 entries"),
    "too much reserved": (setting("operations", 0, 4, to=[0, 17]), r"operations\[0\]\.reserved\[1\]: 17 bytes are more than"),
    "a buffer that is not": (setting("operations", 0, 6, 0, 0, to=9), r"operations\[0\]\.accesses\[0\]\.buffer: "),
    "an unknown access": (setting("operations", 0, 6, 0, 1, to="peek"), r"operations\[0\]\.accesses\[0\]\.kind: "),
    "a cost too few": (setting("operations", 0, 6, 0, 3, to=[1.0]), r"operations\[0\]\.accesses\[0\]\.cost: "),
    "a cost that is null": (setting("operations", 0, 6, 0, 3, 1, to=None), r"operations\[0\]\.accesses\[0\]\.cost\[1\]: "),
    "an access of a dead buffer": (setting("operations", 5, 6, 0, 0, to=1), r"operations\[5\]\.accesses\[0\]: time 5 is not"),
    "a size that is negative": (setting("buffers", 0, 1, to=-4), r"buffers\[0\]\.size: expected an integer from 0"),
    "sizes that overflow": (lambda data: [setting("buffers", i, 1, to=2**62 - 1)(data) for i in (0, 1)], r"buffers\[1\]\.size: "),
    "a live range beyond the end": (setting("buffers", 0, 3, to=9), r"buffers\[0\]\.end: expected an integer from 0 to 7"),
    "a live range that is empty": (setting("buffers", 0, 3, to=0), r"buffers\[0\]: its live range"),
    "an order that is none": (setting("buffers", 3, 2, to=0), r"buffers\[3\]\.start: 0 is before the start of"),
    "nowhere to lie": (setting("buffers", 0, 4, to=[]), r"buffers\[0\]\.spaces: expected a list of at least 1"),
    "a memory twice": (setting("buffers", 0, 4, to=[0, 0]), r"buffers\[0\]\.spaces: a memory is listed twice"),
    "a start where it may not lie": (setting("buffers", 0, 4, to=[1]), r"buffers\[0\]\.initial_space: 0 is not among"),
    "an argument that comes later": (setting("buffers", 2, 5, to=0), r"buffers\[2\]\.start: it lies in memory when"),
    "a result that is lost": (setting("buffers", 1, 6, to=0), r"buffers\[1\]\.end: it is a result"),
    "a persistence of 1": (setting("buffers", 0, 7, to=1), r"buffers\[0\]\.persistent: expected true or false, found 1"),
    "a temporary that persists": (setting("buffers", 1, 7, to=True), r"buffers\[1\]\.persistent: only arguments"),
    "a value that is no name": (setting("buffers", 0, 8, to=[None]), r"buffers\[0\]\.values\[0\]: expected a string"),
    "a clock that is null": (setting("clock", to=None), "clock: expected a finite number"),
    "a name with half a character": (setting("name", to="\ud800"), "name: expected a string without lone surrogates"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said_with_its_place(what: str) -> None:
    change, message = WRONG[what]
    data = json.loads(NESTED.to_json())
    change(data)
    with pytest.raises(PlanError, match=rf"^x\.json: {message}"):
        MappingProblem.from_json(json.dumps(data), "x.json")


@pytest.mark.parametrize("field", json.loads(NESTED.to_json()))
def test_every_field_is_needed(field: str) -> None:
    data = json.loads(NESTED.to_json())
    del data[field]
    with pytest.raises(PlanError, match=r"^x\.json: "):
        MappingProblem.from_json(json.dumps(data), "x.json")


@pytest.mark.parametrize("value", [None, True, -1, 0.5, "x", [], {}, 10**30, [[[]]], 1e308])
def test_any_value_in_any_place_is_accepted_or_refused_with_its_place(value: object) -> None:
    """What is accepted reads back as it is; nothing but PlanError is ever raised."""
    original = json.loads(NESTED.to_json())

    def places(node: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
        children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        return [path, *(place for key, child in children for place in places(child, (*path, key)))]

    refused = 0
    for path in places(original)[1:]:
        data = copy.deepcopy(original)
        setting(*path, to=value)(data)
        try:
            made = MappingProblem.from_json(json.dumps(data), "x.json")
        except PlanError as error:
            assert str(error).startswith("x.json: ")
            refused += 1
        else:
            assert MappingProblem.from_json(made.to_json()) == made
    assert refused > 100


def test_regions_nest_to_a_limit() -> None:
    def nested(depth: int) -> MappingProblem:
        return problem("", regions=[loop(0, 1, trips=1, parent=i) for i in range(depth)])

    deepest = nested(MAX_NESTING)
    assert MappingProblem.from_json(deepest.to_json()) == deepest
    with pytest.raises(PlanError, match=rf"regions\[{MAX_NESTING + 1}\]: regions nest more than {MAX_NESTING} deep"):
        MappingProblem.from_json(nested(MAX_NESTING + 1).to_json())


@settings(max_examples=60)
@given(problems())
def test_problems_that_make_sense_are_accepted(made: MappingProblem) -> None:
    assert MappingProblem.from_json(made.to_json()) == made
