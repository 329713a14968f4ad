"""The constraint program of small problems: valid with the offsets that it finds, and optimal where sums mislead."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from literal_problems import problem
from random_problems import problems
from starts import without_moves

from memplan.compiler.effort import Guard
from memplan.compiler.emulator.timing import TimingEmulator, latency
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.mapping.verify import verify
from memplan.planners import greedy
from memplan.planners.ilp import solve as ilp
from memplan.planners.ilp.joint import Joint, kept_in
from memplan.planners.offsets.instance import FREE, Instance
from memplan.planners.offsets.limited import fit_within
from memplan.planners.planner import Budget
from memplan.planners.stays.assembly import assemble
from memplan.planners.stays.frame import Frame
from memplan.planners.stays.reserved import reserved_runs

# Seeds of `fragmented` where the best set of stays fits by the sums of sizes, and finds no offsets.
MISLEADING = (6, 20, 24)


def fragmented(seed: int) -> MappingProblem:
    """Returns a problem whose memory is cut up by what operations reserve, and in which nothing can be copied."""
    draw = random.Random(seed)
    operations: list[list[str]] = [[] for _ in range(9)]
    sizes = {}
    for name in "abcdefg":
        first = draw.randrange(8)
        last = draw.randrange(first + 1, min(9, first + 6))
        operations[first].append(f"w {name}")
        operations[last].append(f"r {name}")
        sizes[name] = draw.randrange(2, 7)
    reserved = {t: draw.randrange(2, 6) for t in range(9) if draw.random() < 0.35}
    return problem(*map(", ".join, operations), sizes=sizes, capacity=10, links="", reserved=reserved)


def least_latency(mapped: MappingProblem, with_offsets: bool) -> float:
    """Returns the least latency over all choices of which buffers lie in the fast memory, each for all its life."""
    reserved = reserved_runs(mapped, 1)
    best = float("inf")
    for spaces in itertools.product((0, 1), repeat=len(mapped.buffers)):
        seconds = sum(
            sum(access.cost[spaces[access.buffer]] for access in operation.accesses) for operation in mapped.operations
        )
        chosen = [buffer for buffer, space in zip(mapped.buffers, spaces, strict=True) if space]
        loads = [
            operation.reserved[1] + sum(buffer.size for buffer in chosen if buffer.start <= t < buffer.end)
            for t, operation in enumerate(mapped.operations)
        ]
        if seconds >= best or max(loads) > mapped.spaces[1].capacity:
            continue
        blocks = Instance.of(
            lower=[*(buffer.start for buffer in chosen), *(start for start, _, _ in reserved)],
            upper=[*(buffer.end for buffer in chosen), *(end for _, end, _ in reserved)],
            size=[*(buffer.size for buffer in chosen), *(size for _, _, size in reserved)],
            fixed=[FREE] * len(chosen) + [0] * len(reserved),
            gaps=[[]] * (len(chosen) + len(reserved)),
        )
        if not with_offsets or fit_within(blocks, mapped.spaces[1].capacity, 100_000) is not None:
            best = seconds
    return best


@pytest.mark.parametrize("seed", MISLEADING)
def test_it_finds_the_best_stays_that_have_offsets(seed: int) -> None:
    mapped = fragmented(seed)
    best, budget = least_latency(mapped, with_offsets=True), without_moves(mapped, Budget())
    assert least_latency(mapped, with_offsets=False) < best < latency(mapped, greedy.solve(mapped, budget))
    made = ilp.solve(mapped, budget)
    assert verify(mapped, made) == []
    assert latency(mapped, made) == pytest.approx(best)
    assert made.info["bound"] <= best
    assert made.info["method"] == "constraint program"


@pytest.mark.parametrize("seed", MISLEADING)
def test_cuts_lead_the_integer_program_there_too(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Joint, "is_small", lambda _: False)
    mapped = fragmented(seed)
    made = ilp.solve(mapped, without_moves(mapped, Budget()))
    assert verify(mapped, made) == []
    assert latency(mapped, made) == pytest.approx(least_latency(mapped, with_offsets=True))
    assert made.info["method"] == "integer program with cuts"
    assert made.info["bound"] <= latency(mapped, made)


@settings(max_examples=15)
@given(mapped=problems(max_length=8, depth=2))
@pytest.mark.slow
def test_what_it_decides_is_valid_with_its_offsets(mapped: MappingProblem) -> None:
    plan = greedy.solve(mapped, Budget())
    frame = Frame(mapped, 1)
    if not Joint.is_small(frame):
        return
    emulator = TimingEmulator(mapped)
    found = Joint(frame, kept_in(plan)).solve(plan, emulator, 0.02, Guard())
    if found is None:
        return
    offsets = dict(zip(frame.homes, found.offsets.tolist(), strict=False))
    made = assemble(mapped, found.decisions.stays(found.offsets), "ilp", home_offsets=offsets)
    assert made.left_out == ()
    assert verify(mapped, made.plan) == []
    assert latency(mapped, made.plan) == pytest.approx(found.latency)


def test_it_reproduces_its_result_and_copies_what_pays() -> None:
    mapped = problem("", "", "r a", "r a", arguments="a", floors=(4.0, 4.0), sizes={"a": 8})
    emulator, plan = TimingEmulator(mapped), greedy.solve(mapped, Budget())
    found = [Joint(Frame(mapped, 1), -1).solve(plan, emulator, 0.05, Guard()) for _ in range(2)]
    assert found[0] is not None
    assert found[1] is not None
    assert found[0].latency == found[1].latency == pytest.approx(8.0 + 2.0)
    assert len(found[0].decisions.runs()) == 1


def test_large_problems_are_left_to_others() -> None:
    assert Joint.is_small(Frame(fragmented(6), 1))
    assert not Joint.is_small(Frame(problem(*(f"w a{t}, r a{t}" for t in range(200))), 1))


def test_an_argument_that_a_plan_keeps_between_runs_is_found() -> None:
    mapped = problem("r a", arguments="a", sizes={"a": 8}, cross_program_prefetches=1)
    plan = greedy.solve(mapped, Budget())
    assert kept_in(plan) == 0
    assert kept_in(replace(plan, copies=())) == -1
