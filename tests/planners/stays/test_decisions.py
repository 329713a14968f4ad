"""Single decisions of the search, on programs where the right one is plain to see."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from literal_problems import branch, loop, problem
from random_problems import problems

from memplan.compiler.emulator.timing import TimingEmulator
from memplan.compiler.mapping.plan import BEFORE, Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.mapping.verify import verify
from memplan.planners.stays.assembly import Stay, assemble
from memplan.planners.stays.booking_kernel import refresh
from memplan.planners.stays.decisions import Decisions, Order
from memplan.planners.stays.frame import Frame
from memplan.planners.stays.rules import Rules

ALL_RULES = Rules()
ORDERS = [Order("density", 1.0), Order("density"), Order("boundedness"), Order("saving"), Order("density", noise=0.5)]


def decided(mapped: MappingProblem, order: Order = ORDERS[0], rules: Rules = ALL_RULES, kept: int = -1) -> Decisions:
    decisions = Decisions(Frame(mapped, 1), rules, kept)
    decisions.run(order, np.random.default_rng(0))
    return decisions


def stays(mapped: MappingProblem, rules: Rules = ALL_RULES, kept: int = -1) -> dict[str, list[Stay]]:
    """Stays by buffer, those that decide nothing left out of sight."""
    found: dict[str, list[Stay]] = {}
    for stay in decided(mapped, rules=rules, kept=kept).stays():
        found.setdefault(mapped.buffers[stay.buffer].name, []).append(stay)
    return found


def plan_of(decisions: Decisions) -> Plan:
    return assemble(decisions.frame.problem, decisions.stays(), "test").plan


def test_a_temporary_stays_where_it_is_produced() -> None:
    ((stay,),) = stays(problem("w a", "r a", "r a")).values()
    assert (stay.start, stay.end, stay.prefetches, stay.evictions) == (0, 3, (), ())
    # Written once and read twice: 4 bytes take 4 s, or half a second.
    assert stay.value == pytest.approx(3 * (4.0 - 0.5))


def test_a_prefetch_starts_as_late_as_it_can() -> None:
    #   t              0     1     2     3     operations 0 to 2 take 3 s and leave the link alone
    mapped = problem("", "", "", "r a", arguments="a", floors=[3.0, 3.0, 3.0])
    (stay,) = stays(mapped)["a"]
    assert stay.prefetches == ((1, 3),)
    assert (stay.start, stay.end) == (1, 4)


def test_a_prefetch_waits_for_the_link() -> None:
    """Two copies of 4 s each in 9 s, one after the other."""
    mapped = problem("", "", "", "r a", "r b", arguments="a b", floors=[3.0, 3.0, 3.0], sizes={"a": 4, "b": 4})
    found = stays(mapped)
    assert sorted(stay.prefetches[0][0] for group in found.values() for stay in group) == [0, 1]
    made = plan_of(decided(mapped))
    assert verify(mapped, made) == []
    assert TimingEmulator(mapped).emulate(made).stalled == pytest.approx(0.0)


def test_an_operation_that_is_bound_by_memory_leaves_no_time_for_copies() -> None:
    mapped = problem("r x", "r a", arguments="a x", sizes={"x": 17, "a": 4})
    assert stays(mapped, Rules(wait=False)) == {}


def test_an_operation_waits_for_a_copy_that_pays() -> None:
    """A copy of 4 s saves 3.5 s three times."""
    mapped = problem("r a", "r a", "r a", arguments="a")
    (stay,) = stays(mapped)["a"]
    assert stay.prefetches == ((0, 0),)
    assert stays(mapped, Rules(wait=False)) == {}
    assert stays(problem("r a", arguments="a")) == {}


def test_a_result_is_evicted_while_others_compute() -> None:
    mapped = problem("w a", "", "", results="a", floors=[0.0, 3.0, 3.0])
    (stay,) = stays(mapped)["a"]
    assert stay.evictions == ((1, 3),)
    assert (stay.start, stay.end) == (0, 3)
    assert stays(mapped, Rules(evict=False)) == {}


def test_a_value_is_evicted_and_prefetched_when_there_is_no_room_between() -> None:
    #   t   0     1     2     3     4     5     6
    #   a   w     r ── evicted        prefetch r
    #   b                     w     r               fills the whole memory
    mapped = problem(
        "w a", "r a", "", "w b", "r b", "", "r a", sizes={"a": 4, "b": 16}, floors=[0, 0, 5.0, 0, 0, 5.0, 0]
    )
    found = stays(mapped)
    assert [(stay.start, stay.end) for stay in found["b"]] == [(3, 5)]
    first, second = sorted(found["a"], key=lambda stay: stay.start)
    assert (first.start, first.end, first.evictions) == (0, 3, ((1, 3),))
    assert (second.start, second.end, second.prefetches) == (5, 7, ((5, 6),))


def test_the_more_precious_buffer_gets_the_room() -> None:
    mapped = problem("w a, w b", "r a, r b", "r b", "r b", sizes={"a": 9, "b": 9})
    assert set(stays(mapped)) == {"b"}


def test_what_operations_reserve_is_not_given_away() -> None:
    mapped = problem("w a", "", "r a", sizes={"a": 10}, reserved={1: 7})
    assert stays(mapped) == {}


def test_a_stay_around_a_loop_is_filled_once() -> None:
    #   t               0      1 ┊ 2      3 ┊ 4
    mapped = problem("", "", "r a", "", "", arguments="a", floors=[5.0], regions=[loop(2, 4, trips=10.0)])
    (stay,) = stays(mapped)["a"]
    assert stay.prefetches == ((0, 1),)
    assert stay.start == 0
    assert stay.end >= 4
    assert stay.value == pytest.approx(10 * 3.5)


def test_a_carried_value_that_is_updated_in_fast_memory_stays_through_the_loop() -> None:
    #   t                0      1 ┊ 2      3 ┊ 4      5
    mapped = problem("w a", "", "u a", "", "", "r a", regions=[loop(2, 4, trips=10.0)])
    (stay,) = stays(mapped)["a"]
    assert (stay.start, stay.end, stay.prefetches, stay.evictions) == (0, 6, (), ())


def test_a_branch_brings_home_what_it_changes_only_if_somebody_wants_it() -> None:
    regions = [branch(1, 3), branch(3, 4)]
    wanted = problem("", "u a", "", "", "r a", donated="a", regions=regions, floors=[9.0, 0, 9.0, 0, 0])
    for mapped in (wanted, problem("", "u a", "", "", "", donated="a", regions=regions, floors=[9.0, 0, 9.0, 0, 0])):
        assert verify(mapped, plan_of(decided(mapped))) == []


def test_an_argument_that_stays_between_runs_needs_no_copy_at_the_start() -> None:
    mapped = problem("r a", "", "", arguments="a", floors=[0, 5.0, 5.0], cross_program_prefetches=1)
    assert stays(mapped) == {}
    first, again = sorted(stays(mapped, kept=0)["a"], key=lambda stay: stay.start)
    assert (first.start, first.end, first.prefetches) == (0, 1, ((BEFORE, 0),))
    assert (again.prefetches, again.end, again.place) == (((2, 3),), 4, first.place)
    assert verify(mapped, plan_of(decided(mapped, kept=0))) == []


def test_an_argument_that_is_kept_to_the_end_is_not_fetched_again() -> None:
    mapped = problem("r a", "r a", arguments="a", cross_program_prefetches=1)
    (stay,) = stays(mapped, kept=0)["a"]
    assert (stay.start, stay.end) == (0, 3)


def test_gains_that_are_taken_are_not_counted_again() -> None:
    """Once one operand is fast, the operation is bound by compute: the other would gain nothing."""
    mapped = problem("w a, w b", "r a, r b", floors=[8.0, 4.5])
    decisions = decided(mapped)
    assert sum(decisions.gains(decisions.runs())) == pytest.approx(0.0)
    assert TimingEmulator(mapped).latency_of(*decisions.arrays()) == pytest.approx(12.5)


def test_runs_compete_alone_together_or_whole() -> None:
    mapped = problem("w a", "r a", "r a")
    frame = Frame(mapped, 1)
    assert sorted(zip(frame.lows.tolist(), frame.highs.tolist(), strict=True)) == [
        (0, 0),
        (0, 1),
        (0, 2),
        (1, 1),
        (1, 2),
        (2, 2),
    ]
    whole = Frame(mapped, 1, runs="whole")
    assert list(zip(whole.lows.tolist(), whole.highs.tolist(), strict=True)) == [(0, 2)]
    single = Frame(mapped, 1, runs="single")
    assert single.lows.tolist() == single.highs.tolist() == [0, 1, 2]


def test_what_saves_nothing_is_dropped_one_by_one() -> None:
    """Either operand alone makes the operation bound by compute: one of the two stays must remain."""
    mapped = problem("w a, w b", "r a, r b", floors=[20.0, 5.0])
    decisions = decided(mapped)
    assert len(decisions.runs()) == 2
    assert decisions.drop_useless(only_copied=True) == 0
    assert decisions.drop_useless(only_copied=False) == 1
    assert TimingEmulator(mapped).latency_of(*decisions.arrays()) == pytest.approx(25.0)


def test_an_unknown_order_is_an_error() -> None:
    with pytest.raises(ValueError, match="no order is called 'size'"):
        decided(problem("w a", "r a"), Order("size"))


@settings(max_examples=100)
@given(problems(max_length=25, depth=3), st.sampled_from(ORDERS), st.data())
def test_books_balance(mapped: MappingProblem, order: Order, data: st.DataObject) -> None:
    """Room, time and link are what the runs that are left say, however they came and went; the plan is valid throughout."""
    decisions = decided(mapped, order)
    runs = decisions.runs().tolist()
    for run in data.draw(st.lists(st.sampled_from(runs), unique=True)) if runs else []:
        decisions.drop(run)
    tables, fresh = decisions.tables, Decisions(decisions.frame, Rules()).tables
    room = fresh.free.copy()
    for run in decisions.runs():
        item = tables.items[run]
        room[item["run_start"] : item["run_end"]] -= tables.buffers["size"][tables.chains["buffer"][item["chain"]]]
    assert (room == tables.free).all()
    assert (tables.free >= 0).all()
    served, start, *_ = decisions.arrays()
    cost = np.array([access.cost[space] for (_, access), space in zip(mapped.accesses, served, strict=True)])
    times = np.array([t for t, _ in mapped.accesses], np.int64)
    demand = np.bincount(times, cost, minlength=mapped.end)
    assert np.allclose(tables.operations["demand"], demand)
    refresh(tables)
    assert (
        len(start)
        == (tables.items["prefetch_start"][decisions.runs()] >= 0).sum()
        + (tables.items["eviction_start"][decisions.runs()] >= 0).sum()
    )
    assert verify(mapped, plan_of(decisions)) == []


@settings(max_examples=60)
@given(problems(max_length=25, depth=3), st.sampled_from(ORDERS))
def test_sketches_take_as_long_as_plans(mapped: MappingProblem, order: Order) -> None:
    decisions, emulator = decided(mapped, order), TimingEmulator(mapped)
    assembly = assemble(mapped, decisions.stays(), "test")
    if not assembly.left_out:
        assert emulator.latency(assembly.plan) == pytest.approx(emulator.latency_of(*decisions.arrays()))
        assert emulator.latency(decisions.sketch()) == pytest.approx(emulator.latency(assembly.plan))


def with_middle_space(mapped: MappingProblem) -> MappingProblem:
    """Returns a problem with a third memory, between the two in speed, and links to it."""
    slow, fast = mapped.spaces
    into, back = mapped.links
    return dataclasses.replace(
        mapped,
        spaces=(slow, fast, dataclasses.replace(fast, name="middle", bandwidth=fast.bandwidth / 2)),
        links=(into, back, dataclasses.replace(into, destination=2), dataclasses.replace(back, source=2)),
        operations=tuple(
            dataclasses.replace(
                operation,
                reserved=(*operation.reserved, 0),
                accesses=tuple(
                    dataclasses.replace(access, cost=(*access.cost, sum(access.cost) / 2))
                    for access in operation.accesses
                ),
            )
            for operation in mapped.operations
        ),
        buffers=tuple(dataclasses.replace(buffer, spaces=(*buffer.spaces, 2)) for buffer in mapped.buffers),
    )


@settings(max_examples=80)
@given(problems(max_length=25), st.sampled_from(ORDERS))
def test_what_one_fast_space_does_not_hold_the_next_may(two: MappingProblem, order: Order) -> None:
    mapped = with_middle_space(two)
    first = Decisions(Frame(mapped, 1), Rules())
    first.run(order, np.random.default_rng(0))
    kept = assemble(mapped, first.stays(), "test")
    elsewhere = [stay for number, stay in enumerate(first.stays()) if number not in kept.left_out]
    second = Decisions(Frame(mapped, 2, elsewhere), Rules())
    second.run(order, np.random.default_rng(0))
    assembly = assemble(mapped, [*elsewhere, *second.stays()], "test")
    assert verify(mapped, assembly.plan) == []
