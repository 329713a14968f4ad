"""Arguments that may stay in fast memory from one run of the program to the next."""

from __future__ import annotations

import dataclasses

from literal_problems import loop, problem

from memplan.compiler.mapping.problem import MappingProblem
from memplan.planners.stays.frame import Frame
from memplan.planners.stays.kept import arguments_to_keep, kept_choices, kept_item, lasting_chains
from memplan.planners.stays.rules import MOST_KEPT

# `a` is read once, `b` is large, `c` is changed, `d` is given away, `e` is no argument, and nothing reads `f`.
MAPPED = problem(
    "r a, r b",
    "u c, r d, w e",
    "r e, r b",
    arguments="a b c f",
    donated="d",
    sizes={"b": 8},
    cross_program_prefetches=1,
)


def names(mapped: MappingProblem, buffers: list[int]) -> list[str]:
    return [mapped.buffers[buffer].name for buffer in buffers]


def test_arguments_that_are_read_and_not_changed_may_stay_the_most_useful_first() -> None:
    frame = Frame(MAPPED, 1)
    assert names(MAPPED, arguments_to_keep(frame)) == ["b", "a"]
    chains = lasting_chains(MAPPED, frame.chains)
    assert names(MAPPED, frame.chains.buffer[chains].tolist()) == ["a", "b"]


def test_nothing_is_kept_where_the_target_cannot() -> None:
    frame = Frame(MAPPED, 1)
    assert kept_choices(frame) == [-1, *arguments_to_keep(frame)]
    assert kept_choices(Frame(dataclasses.replace(MAPPED, cross_program_prefetches=0), 1)) == [-1]


def test_only_the_best_few_are_considered() -> None:
    many = [f"a{number}" for number in range(MOST_KEPT + 2)]
    mapped = problem(*(f"r {name}" for name in many), arguments=" ".join(many), cross_program_prefetches=1)
    frame = Frame(mapped, 1)
    assert len(arguments_to_keep(frame)) == MOST_KEPT + 2
    assert kept_choices(frame) == [-1, *arguments_to_keep(frame)[:MOST_KEPT]]


def test_the_run_that_keeps_a_buffer_begins_with_the_first_item_of_its_outermost_chain() -> None:
    mapped = problem("", "r a", "r a", arguments="a", regions=[loop(1, 2)])
    chains = Frame(mapped, 1).chains
    item = kept_item(chains, 0)
    assert (int(chains.parent[chains.chain[item]]), int(chains.start[item]), int(chains.end[item])) == (-1, 1, 2)
    assert kept_item(chains, 7) == -1
    assert kept_item(chains, -1) == -1
