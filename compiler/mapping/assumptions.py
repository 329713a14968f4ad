"""What a problem takes for granted because the program does not say it: how often some loops run."""

from __future__ import annotations

from dataclasses import dataclass

from memplan.compiler.analysis.program import FlatProgram, RegionKind
from memplan.compiler.ir.trip_count import why_unknown


@dataclass(frozen=True, slots=True)
class Assumption:
    """A loop whose trip count is not known.

    Attributes:
      loop: name of the `while`, with its computation: `computation/name`.
      trip_count: how often it is taken to run.
      reason: why the count is not known.
    """

    loop: str
    trip_count: float
    reason: str

    def __str__(self) -> str:
        return f"{self.loop} runs {self.trip_count:g} times: {self.reason}"


def assumptions_of(program: FlatProgram) -> tuple[Assumption, ...]:
    """Returns the loops of a program whose trip counts are assumed, each once, in order of execution."""
    found: dict[str, Assumption] = {}
    for region in program.regions:
        if region.kind is not RegionKind.LOOP or region.known:
            continue
        owner = program.steps[region.owner]
        name = f"{owner.computation}/{owner.instruction.name}"
        if name not in found:
            computation = program.graph.computations[owner.computation]
            reason = why_unknown(program.graph, owner.instruction, computation)
            found[name] = Assumption(name, region.trip_count, reason)
    return tuple(found.values())
