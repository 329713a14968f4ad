"""Long programs are solved window by window: each window is an integer program, and the rest stays as it is.

This is large neighbourhood search (Shaw, "Using constraint programming and local search methods to solve vehicle
routing problems", 1998). The decisions within a window are given up, those of the integer program's solution are tried
instead, and the result is kept if the emulator finds it better. The windows that lose most time against their bounds
come first; in a second round the borders lie elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from memplan.compiler.emulator.timing import TimingEmulator
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.planners.bound import no_capacity, windows
from memplan.planners.ilp.linear_solver import SolverTask
from memplan.planners.ilp.model import Precision, Span
from memplan.planners.ilp.polish import Effort, Packed, Polish
from memplan.planners.ilp.relaxation import relax
from memplan.planners.ilp.runs import Realization
from memplan.planners.stays.assembly import Stay, assemble
from memplan.planners.stays.booking_kernel import refresh
from memplan.planners.stays.decisions import Decisions, Order
from memplan.planners.stays.frame import Frame, fast_spaces
from memplan.planners.stays.rules import Rules
from memplan.planners.stays.runs_kernel import try_all

# The operations of a window in each round, and the seconds of its integer program.
_ROUNDS, _SECONDS = (64, 96), 8.0

# The relative gap to which a window's integer program is solved.
_GAP = 1e-3

# Solutions are to become plans.
_PRECISION = Precision(whole=True, strict=True)

# Changes tried by a polish, before the windows and after each round.
_POLISH_ROUNDS = 300


def improve_windows(problem: MappingProblem, seed: int, emulator: TimingEmulator, deadline: float) -> Iterator[Plan]:
    """Yields plans, each better than the one before, until the deadline (of `time.monotonic()`)."""
    stays: list[Stay] = []
    home_offsets: dict[int, int] = {}
    spaces = fast_spaces(problem)
    for number, space in enumerate(spaces):
        frame = Frame(problem, space, stays)
        now = time.monotonic()
        until = now + (deadline - now) / (len(spaces) - number)
        made, offsets = stays, home_offsets
        for packed in _improved(frame, emulator, np.random.default_rng(seed), until):
            offsets = home_offsets | dict(zip(frame.homes, packed.offsets.tolist(), strict=False))
            made = [*stays, *packed.decisions.stays(packed.offsets)]
            if space == spaces[-1]:
                yield assemble(problem, made, "ilp", home_offsets=offsets).plan
        stays, home_offsets = made, offsets


def _improved(
    frame: Frame, emulator: TimingEmulator, generator: np.random.Generator, deadline: float
) -> Iterator[Packed]:
    """Yields better and better decisions that have offsets."""
    start = time.monotonic()
    polish = Polish(frame, emulator, generator, 0.0)
    decisions = Decisions(frame, Rules())
    decisions.run(Order("density", channel_weight=1.0), generator)
    share = 0.2 * (deadline - start)
    decisions = polish.improved(decisions, Effort(_POLISH_ROUNDS, start + share))
    yield from polish.packed(decisions, Effort(0, start + share))
    for operations in _ROUNDS:
        changed = False
        for span in _by_loss(frame, emulator, decisions, operations):
            if time.monotonic() > deadline - share:
                break
            solution = _solved(frame, span, min(_SECONDS, deadline - share - time.monotonic()))
            trial = _replaced(decisions, solution, span) if solution is not None else decisions
            if polish.latency(trial) < polish.latency(decisions):
                decisions, changed = trial, True
        if changed:
            yield from polish.packed(decisions, Effort(_POLISH_ROUNDS, deadline))


def _by_loss(frame: Frame, emulator: TimingEmulator, decisions: Decisions, operations: int) -> list[Span]:
    """Returns windows of the program; those that lose most time against the no-capacity bound come first."""
    problem = frame.problem
    timeline = emulator.emulate(decisions.sketch())
    repetitions = np.array([problem.runs_at(t) for t in range(problem.end)])
    seconds = repetitions * (timeline.duration + np.nan_to_num(timeline.stall[:-1]))
    spans = windows(problem, operations)
    lost = [float(seconds[span.first : span.last].sum()) - no_capacity(problem, span) for span in spans]
    order = sorted(range(len(spans)), key=lambda number: (-lost[number], number))
    return [spans[number] for number in order if lost[number] > 0.0]


def _solved(frame: Frame, span: Span, seconds: float) -> Realization | None:
    """Returns the solution of a window's integer program; None if none was found."""
    model = relax(frame.problem, span, _PRECISION)
    solution = SolverTask(model.program.finished(), True, seconds, _GAP).result()
    return Realization(frame, model, solution.values) if solution.values is not None else None


def _replaced(decisions: Decisions, solution: Realization, span: Span) -> Decisions:
    """Returns decisions in which those of a span are given up and those of a solution are tried."""
    trial = decisions.copy()
    runs, rules = trial.runs(), trial.rules
    items = trial.tables.items
    for run in runs.tolist():
        if span.first <= items["start"][run] and items["end"][items["run_last"][run]] <= span.last:
            trial.drop(run)
    proposed = solution.items()
    lows, highs = (np.array([item[end] for item in proposed], np.int64) for end in (0, 1))
    order = np.argsort(items["start"][lows], kind="stable")
    for _ in range(2):
        refresh(trial.tables)
        try_all(trial.tables, order, lows, highs, rules.channel_price, rules.tries, 1.0)
    refresh(trial.tables)
    frame = solution.frame
    rest = np.arange(len(frame.lows))
    try_all(trial.tables, rest, frame.lows, frame.highs, rules.channel_price, rules.tries, 1.0)
    return trial
