"""What the checks of a plan share: the Violation, and a plan whose references are known to name something."""

from __future__ import annotations

from dataclasses import dataclass

from memplan.compiler.analysis.program import RegionKind
from memplan.compiler.mapping.plan import Copy, Plan
from memplan.compiler.mapping.problem import MappingProblem


@dataclass(frozen=True, slots=True)
class Violation:
    """One breach of one rule.

    Attributes:
      rule: its name, as listed in `verify.py`.
      message: what is wrong, with names and times.
      buffer: index of the buffer that it is about; -1 where it is about none.
      time: of the operation, or the start of the residency or copy, that it is about; -1 where it is about none.
    """

    rule: str
    message: str
    buffer: int = -1
    time: int = -1


class CheckedPlan:
    """A plan beside its problem, with the references that name something, and words for messages.

    Attributes:
      problem, plan: as given.
      is_known: `[num_residencies]` whether the residency's buffer and space exist.
      copies: numbers of the copies whose residencies are known and of one buffer, in order of issue.
      region: `[n + 1]` innermost region of each time that can run other than once: calls are looked through.
      parent: per region, the nearest region around it that is no call.
    """

    def __init__(self, problem: MappingProblem, plan: Plan):
        self.problem, self.plan = problem, plan
        num_buffers, num_spaces = len(problem.buffers), len(problem.spaces)
        self.is_known = [0 <= r.buffer < num_buffers and 0 <= r.space < num_spaces for r in plan.residencies]
        self.copies = sorted(
            (number for number, copy in enumerate(plan.copies) if self._is_sound(copy)),
            key=lambda number: plan.copies[number].start,
        )
        transparent: list[int] = []
        for number, region in enumerate(problem.regions):
            is_call = region.kind is RegionKind.CALL and region.parent >= 0
            transparent.append(transparent[region.parent] if is_call else number)
        self.parent = [transparent[region.parent] if region.parent >= 0 else -1 for region in problem.regions]
        self.region = [transparent[operation.region] for operation in problem.operations]
        self.region.append(0)

    def knows(self, residency: int) -> bool:
        """Whether a number is that of a residency whose buffer and space exist."""
        return 0 <= residency < len(self.is_known) and self.is_known[residency]

    def _is_sound(self, copy: Copy) -> bool:
        return (
            self.knows(copy.source)
            and self.knows(copy.destination)
            and self.plan.residencies[copy.source].buffer == self.plan.residencies[copy.destination].buffer
        )

    def buffer(self, number: int) -> str:
        """Names a buffer."""
        return self.problem.buffers[number].name

    def operation(self, time: int) -> str:
        """Names a moment."""
        if 0 <= time < self.problem.end:
            return f"{self.problem.operations[time].name} (t={time})"
        return f"the end of the program (t={time})" if time == self.problem.end else f"t={time}"

    def residency(self, number: int) -> str:
        """Names a residency that is known."""
        r = self.plan.residencies[number]
        name, space = self.problem.buffers[r.buffer].name, self.problem.spaces[r.space].name
        return f"residency {number} of {name} in {space} [{r.start}, {r.end})"

    def copy(self, number: int) -> str:
        """Names a copy whose residencies are known."""
        copy = self.plan.copies[number]
        source, destination = self.plan.residencies[copy.source], self.plan.residencies[copy.destination]
        names = [self.problem.spaces[r.space].name for r in (source, destination)]
        name = self.problem.buffers[source.buffer].name
        return f"copy {number} of {name} from {names[0]} to {names[1]} [{copy.start}, {copy.done}]"
