"""How well the cost model foretells the compiler's estimates, and the constants with which it does so best.

The same program compiled twice, with and without a fast memory, has the same instructions with other placements and
other estimates. The model is made to agree with one of the two modules, and must then foretell the other:

    module A: placement, estimate ──► instruction_cost ──► duration in B's placement ◄── compare ──► estimate in B
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from memplan.compiler.analysis.flatten import flatten
from memplan.compiler.analysis.program import repetitions
from memplan.compiler.hardware.calibration import instruction_cost, kind_of
from memplan.compiler.hardware.estimates import estimated_cycles
from memplan.compiler.hardware.target import KINDS, Target, TargetSpace
from memplan.compiler.hardware.work import Work, WorkCounter
from memplan.compiler.ir import Graph


@dataclass(frozen=True, slots=True)
class Observation:
    """An instruction in one module.

    Attributes:
      opcode, work: what it does.
      accesses: bytes and space of each of its accesses.
      estimate: seconds that the compiler states.
      repetitions: how often it is executed.
    """

    opcode: str
    work: Work
    accesses: tuple[tuple[int, int], ...]
    estimate: float
    repetitions: float

    def cost(self, target: Target) -> tuple[float, float, tuple[tuple[float, ...], ...]]:
        """Returns the model that agrees with this observation, see `calibration.instruction_cost`."""
        return instruction_cost(target, self.opcode, self.work, self.accesses, self.estimate)

    def foretell(self, other: Observation, target: Target) -> float:
        """Returns the seconds that the model which agrees with this observation gives for the placement of another."""
        floor, overhead, rows = self.cost(target)
        return max(floor, overhead + sum(row[space] for row, (_, space) in zip(rows, other.accesses, strict=True)))


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How far foretold durations are from the compiler's estimates.

    Attributes:
      count: instructions compared: those whose placement differs.
      median, high: relative error, at the middle and at 95 % of the instructions.
      total: sum of the durations over the sum of the estimates, repetitions included.
      rank_correlation: Spearman's, between the foretold and the estimated changes.
    """

    count: int
    median: float
    high: float
    total: float
    rank_correlation: float


def observe(graph: Graph, target: Target) -> dict[tuple[str, str], Observation]:
    """Returns what a module says of its instructions that carry an estimate, by computation and name.

    The entry's computation is called "", as two compilations may name it differently.
    """
    program = flatten(graph)
    runs = repetitions(program.regions)
    accesses: list[list[tuple[int, int]]] = [[] for _ in range(len(program.steps) + 1)]
    for access in program.accesses:
        space = target.space_of_xla(program.storages[access.storage].memory_space)
        if space >= 0:
            accesses[access.time].append((access.bytes, space))
    counter = WorkCounter(graph)
    found = {}
    for t, step in enumerate(program.steps):
        cycles = estimated_cycles(step.instruction)
        if cycles is not None:
            name = "" if step.computation == graph.entry else step.computation
            found[name, step.instruction.name] = Observation(
                step.instruction.opcode,
                counter.of(graph.computations[step.computation], step.instruction),
                tuple(accesses[t]),
                cycles / target.clock,
                runs[step.region],
            )
    return found


def pairs_of(
    first: Mapping[tuple[str, str], Observation], second: Mapping[tuple[str, str], Observation]
) -> list[tuple[Observation, Observation]]:
    """Returns the instructions that both modules have, with the same accesses in another placement."""
    found = []
    for key, one in first.items():
        other = second.get(key)
        if other is None or one.accesses == other.accesses:
            continue
        if [size for size, _ in one.accesses] == [size for size, _ in other.accesses]:
            found.append((one, other))
    return found


def fidelity(pairs: Sequence[tuple[Observation, Observation]], target: Target) -> Fidelity:
    """Compares what each pair's first observation foretells with its second."""
    if not pairs:
        return Fidelity(0, math.nan, math.nan, math.nan, math.nan)
    foretold = [one.foretell(other, target) for one, other in pairs]
    errors = sorted(abs(value / other.estimate - 1.0) for value, (_, other) in zip(foretold, pairs, strict=True))
    return Fidelity(
        count=len(pairs),
        median=errors[len(errors) // 2],
        high=errors[min(len(errors) - 1, len(errors) * 95 // 100)],
        total=sum(value * other.repetitions for value, (_, other) in zip(foretold, pairs, strict=True))
        / sum(other.estimate * other.repetitions for _, other in pairs),
        rank_correlation=_rank_correlation(
            [value - one.estimate for value, (one, _) in zip(foretold, pairs, strict=True)],
            [other.estimate - one.estimate for one, other in pairs],
        ),
    )


def of_kind(pairs: Iterable[tuple[Observation, Observation]], kind: str) -> list[tuple[Observation, Observation]]:
    """Returns the pairs of one of `target.KINDS`."""
    return [pair for pair in pairs if kind_of(pair[0].opcode, pair[0].work) == kind]


def fit(pairs: Sequence[tuple[Observation, Observation]], target: Target) -> Target:
    """Returns the target with the exposed bandwidths that foretell each of a pair from the other best.

    For each kind of instruction and space, one at a time, the bandwidth is multiplied or divided by a step as long as
    that helps; then the step is reduced (compass search, Kolda, Lewis and Torczon, SIAM Review 2003). What is minimized
    is the mean of |log(foretold / estimated)|, in both directions, weighted by the root of the time that an instruction
    takes: the median matters, but instructions that take no time do not. No fast memory is taken to be faster than its
    data sheet says; the slow one may seem so, where its time is hidden.
    """
    for kind in KINDS:
        chosen = of_kind(pairs, kind)
        if not chosen:
            continue
        least = _loss(chosen, target)
        step = 2.0
        while step > 1.02:
            is_better = False
            for index in range(len(target.spaces)):
                for factor in (step, 1.0 / step):
                    candidate = _scaled(target, index, kind, factor)
                    loss = _loss(chosen, candidate)
                    if loss < least - 1e-6:
                        least, target, is_better = loss, candidate, True
            if not is_better:
                step = math.sqrt(step)
    return target


def _scaled(target: Target, index: int, kind: str, factor: float) -> Target:
    def scaled(space: TargetSpace) -> TargetSpace:
        rate = space.exposed_bandwidth[kind] * factor
        exposed = {**space.exposed_bandwidth, kind: min(rate, space.peak_bandwidth) if index > 0 else rate}
        return replace(space, exposed_bandwidth=exposed)

    spaces = tuple(scaled(space) if i == index else space for i, space in enumerate(target.spaces))
    return replace(target, spaces=spaces)


def _loss(pairs: Sequence[tuple[Observation, Observation]], target: Target) -> float:
    total = weights = 0.0
    for one, other in pairs:
        weight = math.sqrt((one.estimate + other.estimate) * max(1.0, one.repetitions))
        weights += weight
        for first, second in ((one, other), (other, one)):
            total += weight * abs(math.log(first.foretell(second, target) / second.estimate))
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
