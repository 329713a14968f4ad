"""How well the cost model predicts the compiler's estimates, and the constants with which it predicts them best.

A program that is compiled several times, with its tensors in other places, has the same instructions with other
estimates. The model is made to agree with one module, and must then predict the others:

    module A: placement, estimate ──► instruction_cost ──► duration in B's placement ◄── compare ──► estimate in B
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from memplan.compiler.analysis.flatten import flatten
from memplan.compiler.analysis.program import AccessKind, repetitions
from memplan.compiler.hardware.calibration import Touched, instruction_cost, kind_of
from memplan.compiler.hardware.cost_model import compute_seconds
from memplan.compiler.hardware.estimates import estimated_cycles
from memplan.compiler.hardware.roofline import duration
from memplan.compiler.hardware.target import KINDS, Target
from memplan.compiler.hardware.work import WorkCounter
from memplan.compiler.ir import Graph


@dataclass(frozen=True, slots=True)
class EstimatedInstruction:
    """An instruction in one module.

    Attributes:
      kind: one of `target.KINDS`.
      arithmetic: seconds that its arithmetic takes by the data sheets.
      accesses: what it touches, and where.
      estimate: seconds that the compiler states.
      repetitions: how often it is executed.
    """

    kind: str
    arithmetic: float
    accesses: tuple[Touched, ...]
    estimate: float
    repetitions: float

    def predict(self, other: EstimatedInstruction, target: Target) -> float:
        """Returns the seconds that the model predicts for the placement of `other` when it agrees with this one."""
        floor, overhead, rows = instruction_cost(target, self.kind, self.arithmetic, self.accesses, self.estimate)
        costs = sum(row[access.space] for row, access in zip(rows, other.accesses, strict=True))
        return duration(floor, overhead + costs)


Pair = tuple[EstimatedInstruction, EstimatedInstruction]


@dataclass(frozen=True)
class CompilationPair:
    """Two compilations of one program.

    Attributes:
      pairs: the instructions that they have in different placements.
      seconds: that all instructions take, as one of them states.
    """

    pairs: list[Pair]
    seconds: float

    @staticmethod
    def of(
        first: Mapping[tuple[str, str], EstimatedInstruction], second: Mapping[tuple[str, str], EstimatedInstruction]
    ) -> CompilationPair:
        """Returns what there is to compare in two modules, from `observe`."""
        seconds = sum(one.estimate * one.repetitions for one in first.values())
        return CompilationPair(pairs_of(first, second), seconds)


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How far predicted durations are from the compiler's estimates.

    Attributes:
      count: instructions compared: those whose placement differs.
      median, high: relative error, at the middle and at 95 % of the instructions.
      total: sum of the durations over the sum of the estimates, repetitions included.
      rank_correlation: Spearman's, between the predicted and the estimated changes.
    """

    count: int
    median: float
    high: float
    total: float
    rank_correlation: float


def observe(graph: Graph, target: Target) -> dict[tuple[str, str], EstimatedInstruction]:
    """Returns what a module says of its instructions that carry an estimate, by computation and name.

    The entry's computation is called "", as two compilations may name it differently.
    """
    program = flatten(graph)
    runs = repetitions(program.regions)
    accesses: list[list[Touched]] = [[] for _ in range(len(program.steps) + 1)]
    for access in program.accesses:
        space = target.space_of_xla(program.storages[access.storage].memory_space)
        if space >= 0:
            accesses[access.time].append(Touched(access.bytes, space, access.kind is not AccessKind.READ))
    counter = WorkCounter(graph)
    found = {}
    for t, step in enumerate(program.steps):
        cycles = estimated_cycles(step.instruction)
        if cycles is not None:
            name = "" if step.computation == graph.entry else step.computation
            computation = graph.computations[step.computation]
            work = counter.of(computation, step.instruction)
            found[name, step.instruction.name] = EstimatedInstruction(
                kind_of(computation, step.instruction, work),
                compute_seconds(work, target),
                tuple(accesses[t]),
                cycles / target.clock,
                runs[step.region],
            )
    return found


def pairs_of(
    first: Mapping[tuple[str, str], EstimatedInstruction], second: Mapping[tuple[str, str], EstimatedInstruction]
) -> list[Pair]:
    """Returns the instructions that both modules have, with the same accesses in another placement."""
    found: list[Pair] = []
    for key, one in first.items():
        other = second.get(key)
        if other is None or one.accesses == other.accesses:
            continue
        if one.kind == other.kind and [a.bytes for a in one.accesses] == [a.bytes for a in other.accesses]:
            found.append((one, other))
    return found


def fidelity(pairs: Sequence[Pair], target: Target) -> Fidelity:
    """Compares what the first of each pair predicts with the second."""
    if not pairs:
        return Fidelity(0, math.nan, math.nan, math.nan, math.nan)
    predicted = [one.predict(other, target) for one, other in pairs]
    errors = sorted(abs(value / other.estimate - 1.0) for value, (_, other) in zip(predicted, pairs, strict=True))
    return Fidelity(
        count=len(pairs),
        median=errors[len(errors) // 2],
        high=errors[min(len(errors) - 1, len(errors) * 95 // 100)],
        total=sum(value * other.repetitions for value, (_, other) in zip(predicted, pairs, strict=True))
        / sum(other.estimate * other.repetitions for _, other in pairs),
        rank_correlation=_rank_correlation(
            [value - one.estimate for value, (one, _) in zip(predicted, pairs, strict=True)],
            [other.estimate - one.estimate for one, other in pairs],
        ),
    )


def of_kind(pairs: Iterable[Pair], kind: str) -> list[Pair]:
    """Returns the pairs of one of `target.KINDS`."""
    return [pair for pair in pairs if pair[0].kind == kind]


# ---- fitting


@dataclass(frozen=True)
class _Weighted:
    """An instruction in two placements, and its part of the time that its modules take."""

    pair: Pair
    weight: float


# What an error, |log(predicted / estimated)|, counts for at most; and how many instructions of a kind are looked at.
_MOST_WRONG = 1.5
_MOST_PAIRS = 500

# A move of the search: what changes together by one factor.
_RATES = ("read", "write")
_LATENCIES = ("read_latency", "write_latency")
_MOVES = (
    *(((0, name),) for name in (*_RATES, *_LATENCIES)),
    *(((1, name),) for name in _RATES),
    ((-1, "exposed"),),
    ((0, "read"), (0, "write")),
    ((1, "read"), (1, "write")),
    ((0, "read_latency"), (0, "write_latency")),
    ((0, "read"), (0, "read_latency")),
)
# Where the search starts: the exposed part of the arithmetic, and latencies as parts of the launch time.
_STARTS = ((0.3, 0.01), (0.6, 0.3), (1.0, 0.01), (1.0, 0.3))


def fit(modules: Sequence[CompilationPair], target: Target, note: Callable[[str], None] = lambda _: None) -> Target:
    """Returns the target with the constants that best predict each of a pair from the other.

    For each kind of instruction, a few constants at a time are multiplied or divided by a step as long as that helps;
    then the step is reduced (compass search, Kolda, Lewis and Torczon, SIAM Review 2003), from several starts. What is
    minimized is the mean of |log(predicted / estimated)|, in both directions, weighted by the part of a module's time
    that the instruction takes: every module counts the same.

    No fast memory is taken to be faster than its data sheet says, or slower than the slow one, which may seem faster
    than it is where its time is hidden; no latency exceeds what starting an instruction on slow memory costs.

    Args:
      modules: the pairs of compilations, each of one program.
      target: with two memories, the slow one first.
      note: told what is done.
    """
    for kind in KINDS:
        chosen = _weighted(modules, kind)
        if not chosen:
            continue
        best, least = target, math.inf
        for exposed, latency in _STARTS:
            for step in (3.0, 1.5):
                candidate, loss = _searched(chosen, _start(target, kind, exposed, latency), kind, step)
                if loss < least:
                    best, least = candidate, loss
        note(f"{target.name}: {kind}: {len(chosen)} instructions, loss {_loss(chosen, target):.4f} to {least:.4f}")
        target = best
    return target


def _weighted(modules: Sequence[CompilationPair], kind: str) -> list[_Weighted]:
    """Returns the pairs of a kind, those that are alike only once, the ones that take most time first."""
    weights: dict[Pair, float] = defaultdict(float)
    for module in modules:
        for one, other in of_kind(module.pairs, kind):
            key = replace(one, repetitions=1.0), replace(other, repetitions=1.0)
            weights[key] += (one.estimate + other.estimate) * one.repetitions / module.seconds
    found = [_Weighted(pair, weight) for pair, weight in weights.items()]
    return sorted(found, key=lambda each: -each.weight)[:_MOST_PAIRS]


def _start(target: Target, kind: str, exposed: float, latency: float) -> Target:
    slow, fast = target.spaces
    seconds = latency * target.compute.launch_seconds
    target = _changed(target, kind, 0, read=slow.bandwidth, write=slow.bandwidth)
    target = _changed(target, kind, 0, read_latency=seconds, write_latency=seconds)
    target = _changed(target, kind, 1, read=fast.peak_bandwidth / 2, write=fast.peak_bandwidth / 2)
    return _changed(target, kind, -1, exposed=exposed)


def _searched(chosen: Sequence[_Weighted], target: Target, kind: str, step: float) -> tuple[Target, float]:
    least = _loss(chosen, target)
    while step > 1.03:
        is_better = False
        for move in _MOVES:
            for factor in (step, 1.0 / step):
                candidate = target
                for space, name in move:
                    candidate = _changed(
                        candidate, kind, space, **{name: _value(candidate, kind, space, name) * factor}
                    )
                if candidate == target:
                    continue
                loss = _loss(chosen, candidate)
                if loss < least - 1e-6:
                    least, target, is_better = loss, candidate, True
        if not is_better:
            step = math.sqrt(step)
    return target, least


def _value(target: Target, kind: str, space: int, name: str) -> float:
    """Returns a constant: of a space's exposure, or with space -1 the part of the arithmetic that is exposed."""
    return target.compute.exposed[kind] if space < 0 else float(getattr(target.spaces[space].exposed[kind], name))


def _changed(target: Target, kind: str, space: int, **values: float) -> Target:
    """Returns the target with other constants, within what makes sense."""
    if space < 0:
        exposed = min(max(values["exposed"], 0.03), 1.0)
        compute = replace(target.compute, exposed={**target.compute.exposed, kind: exposed})
        return replace(target, compute=compute)
    changed = [part.exposed[kind] for part in target.spaces]
    changed[space] = replace(changed[space], **values)
    peak = target.spaces[1].peak_bandwidth
    limit = target.compute.launch_seconds
    slow, fast = changed
    slow = replace(
        slow,
        read=min(slow.read, peak),
        write=min(slow.write, peak),
        read_latency=min(slow.read_latency, limit),
        write_latency=min(slow.write_latency, limit),
    )
    fast = replace(fast, read=min(max(fast.read, slow.read), peak), write=min(max(fast.write, slow.write), peak))
    spaces = tuple(
        replace(part, exposed={**part.exposed, kind: exposure})
        for part, exposure in zip(target.spaces, (slow, fast), strict=True)
    )
    return replace(target, spaces=spaces)


def _loss(chosen: Sequence[_Weighted], target: Target) -> float:
    total = weights = 0.0
    for each in chosen:
        one, other = each.pair
        weights += each.weight
        for first, second in ((one, other), (other, one)):
            predicted = first.predict(second, target)
            error = abs(math.log(predicted / second.estimate)) if predicted > 0.0 else _MOST_WRONG
            total += each.weight * min(error, _MOST_WRONG) / 2
    return total / weights


def _rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Pearson's correlation of the ranks; ties share the mean of their ranks."""
    a, b = _ranks(first), _ranks(second)
    mean = (len(a) - 1) / 2
    product = sum((x - mean) * (y - mean) for x, y in zip(a, b, strict=True))
    norm = math.sqrt(sum((x - mean) ** 2 for x in a) * sum((y - mean) ** 2 for y in b))
    return product / norm if norm > 0.0 else math.nan


def _ranks(values: Sequence[float]) -> list[float]:
    order = sorted(range(len(values)), key=lambda i: values[i])
    ranks = [0.0] * len(values)
    at = 0
    while at < len(order):
        end = at
        while end < len(order) and values[order[end]] == values[order[at]]:
            end += 1
        for i in order[at:end]:
            ranks[i] = (at + end - 1) / 2
        at = end
    return ranks
