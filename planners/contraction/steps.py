"""The pairs of a path one by one: what each contracts, costs and leaves in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from memplan.planners.contraction.problem import ContractionProblem, elements

Indices = tuple[str, ...]


@dataclass(frozen=True)
class ContractionStep:
    """One pair, or the sums and diagonals of one tensor that come before its pair.

    Attributes:
      numbers: of the two sides in the path; of the one tensor.
      sides: their indices.
      result: indices of the result.
      flops: that it takes.
      bytes: of the result.
      standing: bytes of intermediates that stand when it is done, with what it has read.
    """

    numbers: tuple[int, ...]
    sides: tuple[Indices, ...]
    result: Indices
    flops: int
    bytes: int
    standing: int


def steps_of(problem: ContractionProblem, path: tuple[tuple[int, int], ...]) -> Iterator[ContractionStep]:
    """Yields the steps of a path.

    Args:
      problem: that is sound.
      path: of a plan of it.
    """
    there: dict[int, Indices] = dict(enumerate(problem.operands))
    # How many tensors, and the output, have an index.
    uses = Counter(index for indices in (*problem.operands, problem.output) for index in set(indices))
    held: dict[int, int] = {}

    def done(numbers: tuple[int, ...], result: Indices, flops: int) -> ContractionStep:
        sides = tuple(there.pop(number) for number in numbers)
        for side in sides:
            uses.subtract(set(side))
        uses.update(set(result))
        size = problem.itemsize * elements(problem, set(result))
        step = ContractionStep(numbers, sides, result, flops, size, size + sum(held.values()))
        for number in numbers:
            held.pop(number, None)
        return step

    def own(number: int) -> Iterator[ContractionStep]:
        """Yields the step of a tensor that is not used as it is."""
        indices = there[number]
        kept = tuple(index for index in dict.fromkeys(indices) if uses[index] > 1)
        before, after = (elements(problem, set(each)) for each in (indices, kept))
        if before > after or any(problem.sizes[index] > 1 for index, count in Counter(indices).items() if count > 1):
            step = done((number,), kept, before if before > after else 0)
            there[number], held[number] = kept, step.bytes
            yield step

    for place, (first, second) in enumerate(path):
        yield from own(first)
        yield from own(second)
        one, other = there[first], there[second]
        union = tuple(dict.fromkeys((*one, *other)))
        left = Counter(uses)
        left.subtract(set(one))
        left.subtract(set(other))
        result = tuple(index for index in union if left[index] > 0)
        if place == len(path) - 1:
            result = problem.output
        count = elements(problem, set(union))
        step = done((first, second), result, count * (1 if elements(problem, set(result)) == count else 2))
        number = len(problem.operands) + place
        there[number], held[number] = result, step.bytes
        yield step
    if not path and problem.operands[0] != problem.output:
        before, after = (elements(problem, set(each)) for each in (problem.operands[0], problem.output))
        yield done((0,), problem.output, before if before > after else 0)
