"""The sweep: copies start where the emulator finds it best, what is in memory fits, and it is the same every time."""

from __future__ import annotations

import numpy as np
from random_problems import REAL, seeded_problem

from memplan.compiler.effort import Guard
from memplan.compiler.emulator.timing import TimingEmulator
from memplan.compiler.mapping.verify import verify
from memplan.planners.ilp.sweep import earliest_start, move_start, sweep
from memplan.planners.stays.assembly import assemble
from memplan.planners.stays.decisions import Decisions, Order
from memplan.planners.stays.frame import Frame
from memplan.planners.stays.rules import Rules
from memplan.planners.stays.tables import NONE


def late_decisions(seed: int) -> tuple[Decisions, TimingEmulator]:
    """Returns decisions whose copies all start when they are awaited."""
    mapped = seeded_problem(seed, 40, REAL, 1)
    decisions = Decisions(Frame(mapped, 1), Rules())
    decisions.run(Order("density", channel_weight=1.0), np.random.default_rng(0))
    items = decisions.tables.items
    for run in decisions.runs().tolist():
        if items["prefetch_start"][run] != NONE:
            assert move_start(decisions, run, int(items["prefetch_done"][run]))
    return decisions, TimingEmulator(mapped)


def test_late_copies_start_earlier() -> None:
    gained = 0
    for seed in range(8):
        decisions, emulator = late_decisions(seed)
        before = emulator.latency_of(*decisions.arrays())
        swept = sweep(decisions, emulator, 5000, Guard())
        after = emulator.latency_of(*swept.arrays())
        assert after <= before
        assert emulator.latency_of(*decisions.arrays()) == before
        gained += after < before * (1.0 - 1e-6)
        assert (swept.tables.free >= 0).all()
        items = swept.tables.items
        for run in swept.runs().tolist():
            if items["prefetch_start"][run] != NONE:
                assert earliest_start(swept, run) <= items["prefetch_start"][run] <= items["prefetch_done"][run]
        plan = assemble(emulator.problem, swept.stays(), "ilp").plan
        assert verify(emulator.problem, plan) == []
        assert np.array_equal(sweep(decisions, emulator, 5000, Guard()).tables.items, items)
    assert gained >= 3


def test_no_trials_change_nothing() -> None:
    decisions, emulator = late_decisions(0)
    assert np.array_equal(sweep(decisions, emulator, 0, Guard()).tables.items, decisions.tables.items)
    assert np.array_equal(sweep(decisions, emulator, 5000, Guard(0.0)).tables.items, decisions.tables.items)
