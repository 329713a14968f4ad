"""The rules that methods share: when a run's value must be evicted, and what stays from run to run of a program."""

from __future__ import annotations

from typing import Any

from literal_problems import loop, problem

from memplan.planners.stays.frame import Frame
from memplan.planners.stays.rules import Rules, until_next_run, writer_to_evict


def evicted(*operations: str, first: int, last: int, **described: Any) -> int:
    """The item of a run of buffer 0's outermost chain that must be evicted."""
    tables = Frame(problem(*operations, **described), 1).tables
    begin = int(tables.chains[0]["first"])
    found = int(writer_to_evict(tables.items, tables.chains, begin + first, begin + last))
    return found if found < 0 else found - begin


def test_a_value_that_is_read_after_the_run_is_evicted() -> None:
    program = ("w a", "r a", "u a", "r a")
    assert evicted(*program, first=0, last=0) == 0
    assert evicted(*program, first=0, last=1) == 0
    assert evicted(*program, first=0, last=2) == 2


def test_a_value_that_is_not_read_or_not_written_in_the_run_is_not_evicted() -> None:
    program = ("w a", "r a", "u a", "r a")
    assert evicted(*program, first=0, last=3) == -1
    assert evicted(*program, first=1, last=1) == -1
    assert evicted("w a", "r a", "w a", "r a", first=0, last=1) == -1


def test_a_result_is_evicted_at_the_end() -> None:
    assert evicted("w a", "r a", first=0, last=1, results="a") == 0
    assert evicted("w a", "r a", first=0, last=1) == -1


def test_a_loop_writes_as_one_item() -> None:
    assert evicted("w a", "u a", "r a", first=0, last=1, regions=[loop(1, 2)]) == 1


def test_a_stay_that_reaches_the_copy_for_the_next_run_lasts_until_the_end() -> None:
    assert until_next_run(end=4, again=4, after=9) == (9, 9)
    assert until_next_run(end=3, again=4, after=9) == (3, 4)


def test_the_default_rules_allow_everything() -> None:
    rules = Rules()
    assert rules.prefetch
    assert rules.evict
    assert rules.wait
