"""What a plan is compared with."""

from __future__ import annotations

from memplan.compiler.mapping.problem import MappingProblem


def reference_planners(program: MappingProblem) -> list[tuple[str, str]]:
    """Returns `(label, planner)` of what a plan is compared with: all in slow memory, and what the dump's compiler did.

    A module that says nothing about memories, such as one compiled for a CPU, has only the first.
    """
    references = [(f"all in {program.spaces[0].name}", "slow")]
    if program.has_given_places:
        references.append(("XLA's own plan", "xla"))
    return references
