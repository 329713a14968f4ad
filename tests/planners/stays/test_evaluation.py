"""The evaluation of changes: the emulator's latency after any sequence of candidates that are kept or undone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_problems import REAL, problems, seeded_problem
from thorough import examples

from memplan.compiler.emulator.timing import TimingEmulator
from memplan.compiler.kernels import entry
from memplan.compiler.mapping.problem import MappingProblem
from memplan.planners.search import neighbourhoods_kernel
from memplan.planners.search.annealing import Annealer
from memplan.planners.search.neighbourhoods_kernel import NUM_KINDS
from memplan.planners.stays import evaluation_kernel
from memplan.planners.stays.frame import Frame
from memplan.planners.stays.kept import arguments_to_keep

go_to_neighbour = entry(neighbourhoods_kernel.go_to_neighbour.py_func)
latency_after = entry(evaluation_kernel.latency_after.py_func)
latency_of_tables = entry(evaluation_kernel.latency_of_tables.py_func)
keep = entry(evaluation_kernel.keep.py_func)
undo = entry(evaluation_kernel.undo.py_func)


def annealer_for(mapped: MappingProblem, seed: int, kept: int = -1) -> Annealer:
    frame = Frame(mapped, 1)
    annealer = Annealer(frame, TimingEmulator(mapped), seed, np.ones(len(frame.chains.chain)), np.ones(NUM_KINDS))
    annealer.resume(annealer.solution(), kept)
    return annealer


def check_sequence(annealer: Annealer, generator: np.random.Generator, rounds: int) -> int:
    """Makes random moves, keeps half of them, compares each with the emulator; returns how many were compared."""
    decisions, evaluation, walk = annealer.decisions, annealer.evaluation, annealer.walk
    compared = 0
    for _ in range(rounds):
        is_possible = go_to_neighbour(decisions.tables, annealer.neighbourhoods, int(generator.integers(NUM_KINDS)))
        if is_possible:
            made = latency_after(decisions.tables, evaluation)
            assert made == pytest.approx(annealer.emulator.latency_of(*decisions.arrays()), rel=1e-12)
            compared += 1
        if is_possible and generator.random() < 0.5:
            keep(evaluation)
            walk.accepted[:] = walk.now
        else:
            if is_possible:
                undo(evaluation)
            walk.now[:] = walk.accepted
            # Nothing is changed now: it is what was kept before.
            seconds = annealer.emulator.latency_of(*decisions.arrays())
            assert latency_after(decisions.tables, evaluation) == pytest.approx(seconds, rel=1e-12)
            keep(evaluation)
    assert latency_of_tables(decisions.tables, evaluation) == pytest.approx(
        annealer.emulator.latency_of(*decisions.arrays()), rel=1e-12
    )
    return compared


@settings(max_examples=examples(20, 60))
@given(mapped=problems(max_length=25, depth=3), seed=st.integers(0, 99), data=st.data())
@pytest.mark.slow
def test_a_sequence_of_changes_takes_what_the_emulator_says(
    mapped: MappingProblem, seed: int, data: st.DataObject
) -> None:
    kept = data.draw(st.sampled_from([-1, *arguments_to_keep(Frame(mapped, 1))]))
    check_sequence(annealer_for(mapped, seed, kept), np.random.default_rng(seed), 25)


@pytest.mark.parametrize("depth", [0, 1, 3])
@pytest.mark.parametrize("latency", [0.0, 2e-6])
def test_long_programs_take_what_the_emulator_says(depth: int, latency: float) -> None:
    """Many copies in flight at once, with and without latencies, loops and conditionals."""
    for seed in range(3):
        mapped = seeded_problem(seed, 150, dataclasses.replace(REAL, capacity=8 << 20), depth)
        links = tuple(dataclasses.replace(link, latency=latency) for link in mapped.links)
        annealer = annealer_for(dataclasses.replace(mapped, links=links), seed)
        assert check_sequence(annealer, np.random.default_rng(seed), 80) > 40


def test_only_what_changes_is_walked() -> None:
    """Walks begin at marks, and end where nothing differs any more."""
    annealer = annealer_for(seeded_problem(1, 200, REAL, depth=0), 1)
    annealer.run(300, 1e-9, 1.0, is_placed=False)
    decisions, evaluation, walk = annealer.decisions, annealer.evaluation, annealer.walk
    shares = []
    for _ in range(100):
        if go_to_neighbour(decisions.tables, annealer.neighbourhoods, 4):
            latency_after(decisions.tables, evaluation)
            shares.append(evaluation.marks["is_walked"].any(axis=0).mean())
            undo(evaluation)
        walk.now[:] = walk.accepted
    assert 0.0 < np.mean(shares) < 0.5
