"""Rearrangement: what moves lead to is valid, its seconds are the emulator's, and nothing outside of a window changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from random_problems import REAL, TINY, problems, seeded_problem

from memplan.compiler.effort import Guard
from memplan.compiler.emulator.timing import TimingEmulator
from memplan.compiler.mapping.contended import placement_problem, prefetch_problem
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.mapping.verify import verify
from memplan.planners.stays.assembly import assemble
from memplan.planners.stays.decisions import Decisions, Order
from memplan.planners.stays.frame import Frame, fast_spaces
from memplan.planners.stays.kept import kept_choices
from memplan.planners.stays.packing import UNPLACED, pack
from memplan.planners.stays.rearrangement import Rearrangement
from memplan.planners.stays.rules import Rules
from memplan.planners.stays.tables import NONE


def decided(problem: MappingProblem, is_kept: bool = False) -> tuple[Decisions, np.ndarray]:
    """Returns decisions on the first fast space, and their offsets in bytes."""
    frame = Frame(problem, fast_spaces(problem)[0])
    choices = kept_choices(frame)
    decisions = Decisions(frame, Rules(), choices[-1] if is_kept else NONE)
    decisions.run(Order("density", 1.0), np.random.default_rng(0))
    offsets = pack(problem, frame.space, decisions.blocks())
    is_lost = offsets == UNPLACED
    left_out = decisions.runs()[is_lost[len(frame.homes) :]]
    return decisions.without(left_out.tolist()), offsets[~is_lost]


def check(problem: MappingProblem, made: Rearrangement) -> None:
    """Checks that what was made is a valid plan, and that its seconds are the emulator's."""
    frame, emulator = made.decisions.frame, TimingEmulator(problem)
    homes = dict(zip(frame.homes, made.offsets.tolist(), strict=False))
    plan = assemble(problem, made.decisions.stays(made.offsets), "test", home_offsets=homes).plan
    assert verify(problem, plan) == []
    assert emulator.latency(plan) == pytest.approx(made.latency, rel=1e-9)


def spans(made: Rearrangement) -> set[tuple[int, int, int, int]]:
    """Returns start, end, buffer and offset of all stays."""
    return {(stay.start, stay.end, stay.buffer, stay.offset) for stay in made.decisions.stays(made.offsets)}


def anneal(made: Rearrangement, rounds: int, heat: float, guard: Guard | None = None) -> None:
    """Makes moves in the whole program; `heat` is a part of its seconds."""
    after = made.decisions.frame.problem.end + 1
    made.anneal(made.pool(0, after), 0, after, rounds, heat * made.latency, guard or Guard())


@settings(max_examples=40)
@given(problem=problems(max_length=12))
def test_moves_lead_to_valid_plans_that_are_not_slower(problem: MappingProblem) -> None:
    decisions, offsets = decided(problem)
    made = Rearrangement(decisions, offsets, TimingEmulator(problem), 0)
    before = made.latency
    anneal(made, 300, 1e-2)
    assert made.latency <= before
    check(problem, made)


@pytest.mark.parametrize("is_kept", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_the_seconds_of_a_hot_walk_are_the_emulators(seed: int, is_kept: bool) -> None:
    problem = seeded_problem(seed, 80, REAL)
    decisions, offsets = decided(problem, is_kept)
    made = Rearrangement(decisions, offsets, TimingEmulator(problem), seed)
    anneal(made, 3_000, 10.0)
    check(problem, made)
    anneal(made, 3_000, 1e-3)
    check(problem, made)


@pytest.mark.parametrize("seed", range(8))
def test_an_argument_that_finds_no_place_from_run_to_run_gets_none(seed: int) -> None:
    problem = replace(seeded_problem(seed, 12, TINY), cross_program_prefetches=1)
    decisions, offsets = decided(problem, is_kept=True)
    runs, homes = decisions.runs(), len(decisions.frame.homes)
    is_kept = runs == decisions.kept_item
    offsets = offsets[np.concatenate([np.ones(homes, np.bool_), ~is_kept])]
    made = Rearrangement(decisions.without(runs[is_kept].tolist()), offsets, TimingEmulator(problem), seed)
    anneal(made, 400, 0.1)
    check(problem, made)


@pytest.mark.parametrize("problem", [prefetch_problem(600).problem, prefetch_problem(600, in_loops=True).problem])
def test_copies_are_moved_in_time(problem: MappingProblem) -> None:
    decisions, offsets = decided(problem)
    made = Rearrangement(decisions, offsets, TimingEmulator(problem), 0)
    before = made.latency
    anneal(made, 20_000, 1e-4)
    assert made.latency < before
    check(problem, made)


def test_what_is_alive_outside_of_a_window_stays_as_it_is() -> None:
    problem = placement_problem(400).problem
    decisions, offsets = decided(problem)
    made = Rearrangement(decisions, offsets, TimingEmulator(problem), 0)
    before, after = spans(made), 170
    made.anneal(made.pool(150, after), 150, after, 20_000, 1e-4 * made.latency, Guard())
    changed = before ^ spans(made)
    assert changed
    assert all(start >= 150 and end <= after for start, end, _, _ in changed)
    check(problem, made)


def test_a_guard_ends_the_moves() -> None:
    problem = placement_problem(200).problem
    decisions, offsets = decided(problem)
    made, guard = Rearrangement(decisions, offsets, TimingEmulator(problem), 0), Guard(0.0)
    anneal(made, 10**9, 1e-4, guard)
    assert guard.met
    check(problem, made)


def test_looks_at_the_guard_change_nothing() -> None:
    problem = prefetch_problem(600).problem
    decisions, offsets = decided(problem)
    latencies = []
    for guard in (Guard(), Guard(1e6)):
        made = Rearrangement(decisions, offsets, TimingEmulator(problem), 3)
        anneal(made, 12_000, 1e-4, guard)
        latencies.append(made.latency)
    assert latencies[0] == pytest.approx(latencies[1], rel=1e-12)


def test_a_program_without_buffers_is_left_as_it_is() -> None:
    problem = prefetch_problem(120).problem
    assert problem.buffers == ()
    decisions, offsets = decided(problem)
    made = Rearrangement(decisions, offsets, TimingEmulator(problem), 0)
    anneal(made, 100, 1e-4)
    check(problem, made)
