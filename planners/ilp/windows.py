"""Long programs are solved window by window: each window is an integer program, and the rest stays as it is.

This is large neighbourhood search (Shaw, "Using constraint programming and local search methods to solve vehicle
routing problems", 1998). The decisions within a window are given up, those of the integer program's solution are tried
instead, and the result is kept if the emulator finds it better. The windows that lose most time against their bounds
come first; in a second round the borders lie elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from memplan.compiler.effort import Guard
from memplan.compiler.emulator.timing import TimingEmulator
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.planners.bound import no_capacity, windows
from memplan.planners.ilp.integer_solver import SolverTask
from memplan.planners.ilp.model import Precision, Span
from memplan.planners.ilp.polish import Packed, Polish, PolishWork
from memplan.planners.ilp.relaxation import relax
from memplan.planners.ilp.runs import Realization
from memplan.planners.planner import Budget
from memplan.planners.stays.assembly import Stay, assemble
from memplan.planners.stays.booking_kernel import refresh
from memplan.planners.stays.decisions import Decisions, Order
from memplan.planners.stays.frame import Frame, fast_spaces
from memplan.planners.stays.rules import Rules
from memplan.planners.stays.runs_kernel import try_all

# The operations of a window in each round.
_ROUNDS = (64, 96)

# The windows that are solved in each round at most, and the nodes of each integer program's tree, by effort.
_MOST_WINDOWS, _NODES = (2, 8, 100), (1, 20, 500)

# The relative gap to which a window's integer program is solved.
_GAP = 1e-3

# Solutions are to become plans.
_PRECISION = Precision(whole=True, strict=True)

# Changes tried by a polish before the windows and after each round, by effort.
_POLISH_ROUNDS = (100, 300, 3000)


def improve_windows(problem: MappingProblem, budget: Budget, emulator: TimingEmulator) -> Iterator[Plan]:
    """Yields plans, each better than the one before."""
    stays: list[Stay] = []
    home_offsets: dict[int, int] = {}
    spaces = fast_spaces(problem)
    for space in spaces:
        frame = Frame(problem, space, stays)
        made, offsets = stays, home_offsets
        for packed in _improved(frame, emulator, budget):
            offsets = home_offsets | dict(zip(frame.homes, packed.offsets.tolist(), strict=False))
            made = [*stays, *packed.decisions.stays(packed.offsets)]
            if space == spaces[-1]:
                yield assemble(problem, made, "ilp", home_offsets=offsets).plan
        stays, home_offsets = made, offsets


def _improved(frame: Frame, emulator: TimingEmulator, budget: Budget) -> Iterator[Packed]:
    """Yields better and better decisions that have offsets."""
    generator, guard = np.random.default_rng(budget.seed), budget.guard
    work = PolishWork(budget.effort.of(*_POLISH_ROUNDS))
    polish = Polish(frame, emulator, generator, 0.0, guard)
    decisions = Decisions(frame, Rules())
    decisions.run(Order("density", channel_weight=1.0), generator)
    decisions = polish.improved(decisions, work)
    yield from polish.packed(decisions, PolishWork(0))
    for operations in _ROUNDS:
        changed = False
        for span in _by_loss(frame, emulator, decisions, operations)[: budget.effort.of(*_MOST_WINDOWS)]:
            if guard.reached():
                break
            solution = _solved(frame, span, budget.effort.of(*_NODES), guard)
            trial = _replaced(decisions, solution, span) if solution is not None else decisions
            if polish.latency(trial) < polish.latency(decisions):
                decisions, changed = trial, True
        if changed:
            yield from polish.packed(decisions, work)


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


def _solved(frame: Frame, span: Span, nodes: int, guard: Guard) -> Realization | None:
    """Returns the solution of a window's integer program; None if none was found."""
    model = relax(frame.problem, span, _PRECISION)
    solution = SolverTask(model.program.finished(), nodes, guard, _GAP).result()
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
