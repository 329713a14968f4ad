"""The timing emulator against hand-worked programs, XLA's published cases, and an exact reference."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from thorough import examples
from timeline_oracle import verify_timeline
from timing_reference import Reference, problems_and_plans

from memplan.compiler.analysis.program import AccessKind, RegionKind
from memplan.compiler.emulator.timing import TimingEmulator, emulate, latency, lower_bound_all_fast
from memplan.compiler.errors import PlanError
from memplan.compiler.frontends import read
from memplan.compiler.hardware.target import load_target
from memplan.compiler.mapping.build import build_problem
from memplan.compiler.mapping.plan import BEFORE, Copy, Plan, Residency
from memplan.compiler.mapping.problem import Access, Buffer, Link, MappingProblem, MemorySpace, Operation, Region

SLOW, FAST = 0, 1
DUMPS = Path(__file__).parents[3] / "workloads" / "dumps"


def problem_of(
    operations: list[Operation],
    buffers: dict[str, int],
    regions: tuple[Region, ...] = (),
    slow: float = 1.0,
    fast: float = 2.0,
    link_latency: float = 0.0,
) -> MappingProblem:
    """A machine with a slow memory whose bus copies share, and a fast one; times in seconds, bandwidths in bytes per second."""
    n = len(operations)
    return MappingProblem(
        name="test",
        target="test",
        spaces=(MemorySpace("slow", 1 << 40, 1, slow, 0), MemorySpace("fast", 1 << 40, 1, fast)),
        links=(Link(SLOW, FAST, slow, link_latency, 0, 0), Link(FAST, SLOW, slow, link_latency, 1, 0)),
        regions=(Region(RegionKind.PROGRAM, 0, n, -1, 1.0), *regions),
        operations=tuple(operations),
        buffers=tuple(Buffer(name, size, 0, n + 1, (SLOW, FAST), SLOW) for name, size in buffers.items()),
    )


def plan_of(problem: MappingProblem, copies: list[tuple[int, int, int, int, int]], fast: tuple[int, ...] = ()) -> Plan:
    """A plan with copies `(buffer, from, to, start, done)`; accesses with the numbers in `fast` are served there."""
    n = len(problem.operations)
    spaces = range(len(problem.spaces))
    residencies = tuple(Residency(b, s, 0, 0, n + 1) for b in range(len(problem.buffers)) for s in spaces)
    at = len(problem.spaces)
    served = tuple(at * a.buffer + (FAST if i in fast else SLOW) for i, (_, a) in enumerate(problem.accesses))
    made = tuple(
        Copy(at * b + source, at * b + destination, start, done) for b, source, destination, start, done in copies
    )
    return Plan(problem.fingerprint, "test", "test", "hand", residencies, made, served)


def operation(name: str, seconds: float = 0.0, region: int = 0, accesses: tuple[Access, ...] = ()) -> Operation:
    return Operation(name, "op", seconds, 0.0, (0, 0), region, accesses)


def reads(buffer: int, size: int) -> Access:
    """An access at 1 byte per second in the slow memory and 2 in the fast one."""
    return Access(buffer, AccessKind.READ, size, (float(size), size / 2))


class TestPublishedCases:
    """`simulator_test.cc` of XLA's memory space assignment: 1 operation and 1 byte of HBM per second, 2 bytes of the other.

    An elementwise operation on n elements takes max(n, bytes at the bandwidth of where they are).
    """

    def test_copy_over_a_memory_bound_operation(self) -> None:
        """A copy of f32[8] cannot use the bus while the negation of f32[2] does: 16 + 32 seconds."""
        negate = operation("negate", 2.0, accesses=(reads(1, 8), reads(2, 8)))
        problem = problem_of([negate], {"copied": 32, "x": 8, "y": 8})
        assert latency(problem, plan_of(problem, [(0, SLOW, FAST, 0, 1)])) == 48.0

    def test_copy_without_computation(self) -> None:
        problem = problem_of([operation("point")], {"x": 1024 * 2048 * 4})
        assert latency(problem, plan_of(problem, [(0, SLOW, FAST, 0, 1)])) == 8388608.0

    def test_copies_before_and_during_an_addition(self) -> None:
        """Two copies of 256 bytes are awaited; one of 512 bytes goes on for 384 seconds of addition in fast memory."""
        add = operation("add", 64.0, accesses=(reads(0, 256), reads(1, 256), reads(3, 256)))
        problem = problem_of([add], {"slice": 256, "x": 256, "overlap": 512, "sum": 256})
        copies = [(0, SLOW, FAST, 0, 0), (1, SLOW, FAST, 0, 0), (2, SLOW, FAST, 0, 1)]
        timeline = emulate(problem, plan_of(problem, copies, fast=(0, 1, 2)))
        assert timeline.latency == 1024.0
        assert timeline.stalled == 256.0 + 256.0 + 128.0
        assert list(timeline.stall) == [512.0, 128.0]

    @staticmethod
    def body(region: int, buffer: int = 0) -> list[Operation]:
        """compare(s32, s32) reads 8 bytes and writes 1; add(s32, s32) moves 12; tuple(s32) writes a pointer, 8."""
        return [
            operation("compare", 1.0, region, (reads(buffer, 8), reads(buffer, 1))),
            operation("add", 1.0, region, (reads(buffer, 8), reads(buffer, 4))),
            operation("tuple", 0.0, region, (reads(buffer, 8),)),
        ]

    def test_loop(self) -> None:
        """(12 + 9 + 8) x 42 iterations, and 8 for the initial tuple."""
        operations = [operation("init", accesses=(reads(0, 8),)), *self.body(1)]
        problem = problem_of(operations, {"counter": 8}, (Region(RegionKind.LOOP, 1, 4, 0, 42.0),))
        assert latency(problem, plan_of(problem, [])) == 1226.0

    def test_nested_loops(self) -> None:
        """The loop above in one of 27 iterations with a counter of its own: 1226 x 27 + 29 x 27 + 8."""
        compare, add, result = self.body(1)
        inner = [operation("init", region=1, accesses=(reads(0, 8),)), *self.body(2)]
        operations = [operation("init", accesses=(reads(0, 8),)), compare, *inner, add, result]
        regions = (Region(RegionKind.LOOP, 1, 8, 0, 27.0), Region(RegionKind.LOOP, 3, 6, 1, 42.0))
        problem = problem_of(operations, {"counter": 8}, regions)
        timeline = emulate(problem, plan_of(problem, []))
        assert timeline.latency == 33893.0
        assert timeline.stalled == 0.0


class TestTime:
    def test_operations_follow_one_another(self) -> None:
        problem = problem_of([operation("a", 2.0), operation("b", 3.0)], {"x": 4})
        timeline = emulate(problem, plan_of(problem, []))
        assert list(timeline.start) == [0.0, 2.0]
        assert list(timeline.duration) == [2.0, 3.0]
        assert timeline.latency == 5.0

    def test_duration_depends_on_where_the_data_is(self) -> None:
        one = Operation("a", "op", 3.0, 1.0, (0, 0), 0, (reads(0, 8), reads(1, 4)))
        problem = problem_of([one], {"x": 8, "y": 4})
        assert latency(problem, plan_of(problem, [])) == 13.0
        assert latency(problem, plan_of(problem, [], fast=(0,))) == 9.0
        assert latency(problem, plan_of(problem, [], fast=(0, 1))) == 7.0

    def test_a_copy_hides_behind_compute(self) -> None:
        problem = problem_of([operation("a", 10.0), operation("b", 1.0)], {"x": 8})
        timeline = emulate(problem, plan_of(problem, [(0, SLOW, FAST, 0, 1)]))
        assert timeline.latency == 11.0
        assert (timeline.issue[0], timeline.begin[0], timeline.end[0]) == (0.0, 0.0, 8.0)

    def test_a_copy_gets_what_an_operation_leaves_of_the_bus(self) -> None:
        """8 bytes in 10 seconds leave a fifth of the bus: 2 bytes are moved meanwhile."""
        one = Operation("a", "op", 10.0, 0.0, (0, 0), 0, (reads(0, 8),))
        problem = problem_of([one, operation("b")], {"x": 8, "y": 6})
        timeline = emulate(problem, plan_of(problem, [(1, SLOW, FAST, 0, 1)]))
        assert timeline.latency == pytest.approx(14.0)
        assert timeline.stall[1] == pytest.approx(4.0)

    def test_accesses_beyond_the_bus_leave_nothing(self) -> None:
        """The operation is shorter than its bytes say: the bus is full, and never more than full."""
        one = Operation("a", "op", 4.0, 0.0, (0, 0), 0, (Access(0, AccessKind.READ, 8, (1.0, 1.0)),))
        problem = problem_of([one], {"x": 8})
        assert latency(problem, plan_of(problem, [(0, SLOW, FAST, 0, 1)])) == 12.0

    def test_queues_share_a_bus_evenly(self) -> None:
        """In and out get half each until the shorter copy is done: 4 bytes each in 8 seconds, then 4 more in 4."""
        problem = problem_of([operation("a", 1.0), operation("b")], {"x": 8, "y": 4})
        timeline = emulate(problem, plan_of(problem, [(0, SLOW, FAST, 0, 1), (1, FAST, SLOW, 0, 1)]))
        assert list(timeline.end) == [12.0, 8.0]
        assert timeline.latency == 12.0

    def test_a_queue_is_first_in_first_out(self) -> None:
        """What is awaited first was issued last, and waits for the other."""
        problem = problem_of([operation("a"), operation("b", 5.0), operation("c")], {"x": 4, "y": 2})
        timeline = emulate(problem, plan_of(problem, [(0, SLOW, FAST, 0, 2), (1, SLOW, FAST, 0, 1)]))
        assert list(timeline.end) == [4.0, 6.0]
        assert list(timeline.stall) == [0.0, 6.0, 0.0, 0.0]

    def test_latency_of_a_link_passes_while_others_move(self) -> None:
        problem = problem_of([operation("a"), operation("b")], {"x": 8, "y": 8}, link_latency=3.0)
        timeline = emulate(problem, plan_of(problem, [(0, SLOW, FAST, 0, 1), (1, SLOW, FAST, 0, 1)]))
        assert list(timeline.begin) == [3.0, 11.0]
        assert timeline.latency == 19.0

    def test_a_copy_before_the_program_costs_nothing(self) -> None:
        problem = problem_of([operation("a", 1.0)], {"x": 8})
        timeline = emulate(problem, plan_of(problem, [(0, SLOW, FAST, BEFORE, 0)]))
        assert timeline.latency == 1.0
        assert np.isnan(timeline.issue[0])
        assert timeline.bytes_moved[0] == 0.0

    def test_older_copies_are_awaited_before_new_ones_are_issued(self) -> None:
        """The second may move into what the first leaves."""
        problem = problem_of([operation("a"), operation("b"), operation("c")], {"x": 4, "y": 4})
        timeline = emulate(problem, plan_of(problem, [(0, FAST, SLOW, 0, 1), (1, SLOW, FAST, 1, 2)]))
        assert list(timeline.issue) == [0.0, 4.0]
        assert timeline.latency == 8.0

    def test_a_program_without_operations(self) -> None:
        problem = problem_of([], {"x": 4})
        assert latency(problem, plan_of(problem, [])) == 0.0
        assert latency(problem, plan_of(problem, [(0, SLOW, FAST, 0, 0)])) == 4.0


class TestLoops:
    def looped(self, trips: float, seconds: float = 2.0, size: int = 10) -> tuple[MappingProblem, Plan]:
        """before | body × trips | after, with a copy over all of it."""
        operations = [operation("before"), operation("body", seconds, 1), operation("after")]
        problem = problem_of(operations, {"x": size}, (Region(RegionKind.LOOP, 1, 2, 0, trips),))
        return problem, plan_of(problem, [(0, SLOW, FAST, 0, 2)])

    @pytest.mark.parametrize(("trips", "expected"), [(0, 10.0), (1, 10.0), (4, 10.0), (5, 10.0), (6, 12.0), (7, 14.0)])
    def test_a_copy_across_a_loop(self, trips: int, expected: float) -> None:
        assert latency(*self.looped(trips)) == expected

    def test_huge_trip_counts_are_exact(self) -> None:
        problem, plan = self.looped(1e13, 2.0**-20, 2**20 + 3)
        timeline = emulate(problem, plan)
        assert timeline.latency == 1e13 * 2.0**-20
        assert timeline.end[0] == 2**20 + 3
        assert timeline.stalled == 0.0

    def test_the_copy_is_awaited_if_the_loop_is_too_short(self) -> None:
        timeline = emulate(*self.looped(1e6, 1e-6))
        assert timeline.latency == pytest.approx(10.0, rel=1e-9)
        assert timeline.stall[2] == pytest.approx(9.0, rel=1e-8)

    def test_a_copy_in_the_body_is_made_in_every_iteration(self) -> None:
        operations = [operation("a", 1.0, 1), operation("b", 1.0, 1), operation("after")]
        problem = problem_of(operations, {"x": 3}, (Region(RegionKind.LOOP, 0, 2, 0, 1000.0),))
        timeline = emulate(problem, plan_of(problem, [(0, SLOW, FAST, 0, 1)]))
        assert timeline.latency == 4000.0
        assert timeline.stalled == 2000.0
        assert list(timeline.bytes_moved) == [3000.0, 0.0]
        assert timeline.stall[1] == 2.0
        assert timeline.busy[0] == 3000.0

    def test_a_copy_across_the_loop_slows_those_of_the_body_until_it_is_done(self) -> None:
        """The copy of the body, 1 byte in, shares the bus with 4 bytes on their way out: it takes 2 seconds at first."""
        operations = [operation("before"), operation("a", 0.0, 1), operation("b", 0.0, 1), operation("after")]
        problem = problem_of(operations, {"x": 1, "y": 4}, (Region(RegionKind.LOOP, 1, 3, 0, 10.0),))
        timeline = emulate(problem, plan_of(problem, [(1, FAST, SLOW, 0, 3), (0, SLOW, FAST, 1, 2)]))
        assert timeline.latency == 4 * 2.0 + 6 * 1.0
        assert timeline.end[0] == 8.0

    def test_fractions_are_probabilities(self) -> None:
        problem, plan = self.looped(2.5, 4.0, 0)
        assert latency(problem, plan) == 10.0

    def test_what_is_left_of_a_copy_after_half_an_iteration_is_expected(self) -> None:
        """After 2.5 iterations of 2 seconds, 5 of 8 bytes are moved on average."""
        problem, plan = self.looped(2.5, 2.0, 8)
        assert latency(problem, plan) == 8.0

    def test_nothing_of_a_loop_that_never_runs_has_a_time(self) -> None:
        operations = [operation("before", 1.0), operation("body", 2.0, 1), operation("after", 1.0)]
        problem = problem_of(operations, {"x": 8}, (Region(RegionKind.LOOP, 1, 2, 0, 0.0),))
        plan = plan_of(problem, [(0, SLOW, FAST, 1, 1)])
        timeline = emulate(problem, plan)
        assert timeline.latency == 2.0
        assert np.isnan(timeline.start[1])
        assert np.isnan(timeline.issue[0])
        assert not verify_timeline(problem, plan, timeline)

    def test_a_loop_that_ends_with_the_program(self) -> None:
        problem = problem_of([operation("a", 2.0, 1)], {"x": 3}, (Region(RegionKind.LOOP, 0, 1, 0, 5.0),))
        assert latency(problem, plan_of(problem, [])) == 10.0


class TestBranches:
    def conditional(self, first: float, second: float, size: int = 0) -> tuple[MappingProblem, Plan]:
        """enter | 8 seconds, or 2 | after, with a copy over all of it."""
        operations = [operation("enter"), operation("then", 8.0, 1), operation("else", 2.0, 2), operation("after")]
        regions = (Region(RegionKind.BRANCH, 1, 2, 0, first, 1), Region(RegionKind.BRANCH, 2, 3, 0, second, 1))
        problem = problem_of(operations, {"x": size}, regions)
        return problem, plan_of(problem, [(0, SLOW, FAST, 0, 3)])

    def test_time_is_expected(self) -> None:
        problem, plan = self.conditional(0.25, 0.75)
        timeline = emulate(problem, plan)
        assert timeline.latency == 0.25 * 8 + 0.75 * 2
        assert list(timeline.start) == [0.0, 0.0, 0.0, 3.5]

    def test_what_is_left_of_a_copy_is_expected(self) -> None:
        """Of 10 bytes 2 are left after the one branch, and 8 after the other."""
        problem, plan = self.conditional(0.5, 0.5, 10)
        timeline = emulate(problem, plan)
        assert timeline.latency == 5.0 + 5.0
        assert timeline.end[0] == 10.0

    def test_a_branch_that_is_never_taken(self) -> None:
        problem, plan = self.conditional(0.0, 1.0, 4)
        timeline = emulate(problem, plan)
        assert timeline.latency == 4.0
        assert np.isnan(timeline.start[1])

    def test_an_empty_branch_is_the_missing_probability(self) -> None:
        problem, plan = self.conditional(0.25, 0.25, 0)
        assert latency(problem, plan) == 2.5

    def test_the_first_execution_is_recorded_though_later_ones_are_uncertain_too(self) -> None:
        """In each of 3 iterations a copy of 4 bytes is under way during 8 seconds or none, and awaited after 2 of stall."""
        operations = [
            operation("start", 0.0, 1),
            operation("then", 8.0, 2),
            operation("else", 0.0, 3),
            operation("end", 1.0, 1),
        ]
        regions = (
            Region(RegionKind.LOOP, 0, 4, 0, 3.0),
            Region(RegionKind.BRANCH, 1, 2, 1, 0.5, 1),
            Region(RegionKind.BRANCH, 2, 3, 1, 0.5, 1),
        )
        problem = problem_of(operations, {"x": 4}, regions)
        plan = plan_of(problem, [(0, SLOW, FAST, 0, 3)])
        timeline = emulate(problem, plan)
        assert timeline.latency == 3 * (4.0 + 2.0 + 1.0)
        assert timeline.end[0] == timeline.start[3] == 6.0
        assert verify_timeline(problem, plan, timeline) == []

    def test_what_is_left_shrinks_forever(self) -> None:
        """Of 10 bytes, one is moved in every second iteration on average, and of the last one always half of the rest."""
        operations = [operation("before"), operation("then", 1.0, 2), operation("else", 0.0, 3), operation("after")]
        regions = (
            Region(RegionKind.LOOP, 1, 3, 0, 1e9),
            Region(RegionKind.BRANCH, 1, 2, 1, 0.5, 1),
            Region(RegionKind.BRANCH, 2, 3, 1, 0.5, 1),
        )
        problem = problem_of(operations, {"x": 10}, regions)
        assert latency(problem, plan_of(problem, [(0, SLOW, FAST, 0, 3)])) == 0.5e9


@settings(max_examples=examples(80, 150), suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(problems_and_plans())
def test_agrees_with_the_exact_reference(case: tuple[MappingProblem, Plan]) -> None:
    problem, plan = case
    expected, stalled = Reference(problem, plan).run()
    timeline = emulate(problem, plan)
    scale = max(1.0, float(expected))
    assert abs(timeline.latency - expected) <= 1e-9 * scale
    assert abs(timeline.stalled - stalled) <= 1e-9 * scale
    assert latency(problem, plan) == timeline.latency


@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(problems_and_plans(branches=False, max_trips=40))
def test_skipped_iterations_are_exact(case: tuple[MappingProblem, Plan]) -> None:
    problem, plan = case
    expected, _ = Reference(problem, plan).run()
    assert abs(latency(problem, plan) - expected) <= 1e-9 * max(1.0, float(expected))


@settings(max_examples=examples(80, 150), suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(problems_and_plans())
def test_every_timeline_is_possible(case: tuple[MappingProblem, Plan]) -> None:
    problem, plan = case
    assert verify_timeline(problem, plan, emulate(problem, plan)) == []


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(problems_and_plans())
def test_no_plan_beats_the_bound(case: tuple[MappingProblem, Plan]) -> None:
    problem, plan = case
    timeline = emulate(problem, plan)
    bound = lower_bound_all_fast(problem)
    assert bound <= timeline.latency * (1 + 1e-12)
    # The bound is the latency of the plan that it describes, where there is one.
    served = tuple(3 * a.buffer + min(range(3), key=lambda s: a.cost[s]) for _, a in problem.accesses)
    assert latency(problem, replace(plan, copies=(), served=served)) == pytest.approx(bound, rel=1e-12, abs=1e-12)


def test_the_bound_respects_where_a_buffer_may_lie() -> None:
    one = Operation("a", "op", 0.0, 0.0, (0, 0), 0, (reads(0, 8),))
    problem = problem_of([one], {"x": 8})
    assert lower_bound_all_fast(problem) == 4.0
    pinned = replace(problem, buffers=(replace(problem.buffers[0], spaces=(SLOW,)),))
    assert lower_bound_all_fast(pinned) == 8.0


def test_many_plans_of_one_problem_as_arrays() -> None:
    one = Operation("a", "op", 1.0, 0.0, (0, 0), 0, (reads(0, 8),))
    problem = problem_of([one, operation("b")], {"x": 8})
    emulator = TimingEmulator(problem)
    for copies, fast in ([[], ()], [[(0, SLOW, FAST, 0, 0)], (0,)], [[(0, SLOW, FAST, 0, 1)], ()]):
        plan = plan_of(problem, copies, fast)
        arrays = [np.array([c[k] for c in copies], np.int64) for k in (3, 4, 1, 2)]
        size = np.array([problem.buffers[c[0]].size for c in copies], np.float64)
        served = np.array([FAST if i in fast else SLOW for i in range(1)])
        assert emulator.latency_of(served, *arrays, size) == emulator.latency(plan) == emulate(problem, plan).latency


class TestBadPlans:
    problem = problem_of(
        [operation("before"), operation("body", 1.0, 1, (reads(0, 4),)), operation("after")],
        {"x": 4},
        (Region(RegionKind.LOOP, 1, 2, 0, 3.0),),
    )

    @pytest.mark.parametrize(
        ("copy", "message"),
        [
            ((0, SLOW, FAST, 0, 1), "crosses the border of a loop"),
            ((0, SLOW, FAST, 1, 2), "crosses the border of a loop"),
            ((0, SLOW, FAST, 2, 0), "done before it starts"),
            ((0, SLOW, FAST, 0, 4), "does not run within the program"),
            ((0, SLOW, FAST, -2, 0), "does not run within the program"),
            ((0, SLOW, FAST, BEFORE, 2), "must be done at 0"),
            ((0, SLOW, SLOW, 0, 2), "has no link"),
        ],
    )
    def test_impossible_copies(self, copy: tuple[int, int, int, int, int], message: str) -> None:
        with pytest.raises(PlanError, match=message):
            emulate(self.problem, plan_of(self.problem, [copy]))

    def test_an_index_out_of_range(self) -> None:
        plan = plan_of(self.problem, [])
        with pytest.raises(PlanError, match="served number 0 is 9, not below 2"):
            emulate(self.problem, replace(plan, served=(9,)))
        with pytest.raises(PlanError, match="source number 0 is -1"):
            emulate(self.problem, replace(plan, copies=(Copy(-1, 1, 0, 2),)))
        with pytest.raises(PlanError, match="serves 0 accesses, but its problem has 1"):
            emulate(self.problem, replace(plan, served=()))


@pytest.mark.parametrize("name", ["transformer_train.tpu-v5e", "lstm_train.tpu-v4", "resnet50_train.tpu-v5e"])
def test_what_the_compiler_planned(name: str) -> None:
    """A real mapping has a possible timeline, beats slow memory alone, and is beaten by the bound."""
    problem = build_problem(read(DUMPS / f"{name}.default.hlo.txt.gz"), load_target(name.split(".")[1]))
    assert problem.given is not None
    assert len(problem.given.copies) > 10
    emulator = TimingEmulator(problem)
    timeline = emulator.emulate(problem.given)
    assert verify_timeline(problem, problem.given, timeline) == []
    none = np.zeros(0, np.int64)
    in_slow_memory = emulator.latency_of(np.zeros(len(problem.accesses), np.int64), none, none, none, none, np.zeros(0))
    assert emulator.lower_bound() < timeline.latency < in_slow_memory


def test_the_reference_itself() -> None:
    """A picture that fits in the head: 3 bytes over 2 seconds of compute, then half a second of latency and 1 byte."""
    problem = problem_of([operation("a", 2.0), operation("b")], {"x": 3, "y": 1}, link_latency=0.5)
    plan = plan_of(problem, [(0, SLOW, FAST, 0, 1), (1, SLOW, FAST, 1, 2)])
    assert Reference(problem, plan).run() == (Fraction(5), Fraction(3))
