"""What a plan is compared with."""

from __future__ import annotations

from memplan.compiler.mapping.problem import MappingProblem


def reference_planners(program: MappingProblem) -> list[tuple[str, str]]:
    """Returns `(label, planner)` of what a plan is compared with: all in slow memory, and what the dump's compiler did.

    A module that says nothing about memories, such as one compiled for a CPU, has only the first. Where the slow memory
    can only be read, what the program writes is in another one.
    """
    homes = {0} | {buffer.spaces[0] for buffer in program.buffers if buffer.initial_space is None}
    references = [(f"all in {' and '.join(program.spaces[space].name for space in sorted(homes))}", "slow")]
    if program.has_given_places:
        references.append(("XLA's own plan", "xla"))
    return references
