"""How often a loop runs, where the program says it.

XLA on CPU and GPU states `known_trip_count` in the loop's `backend_config`. A module compiled for TPU does not, so it
is inferred from what the loop does to its induction variable:

    init = constant(0)                     body:  i' = i + 1            condition:  i < limit
    while(tuple(init, x, limit))                  tuple(i', x', limit)

A count is never a guess. Where a counter would overflow before the loop ends, or a value is only known when the program
runs, `ASSUMED_TRIP_COUNT` takes its place and `why_unknown` says why.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from memplan.compiler.errors import GraphError
from memplan.compiler.ir.counted_loop import MAX_TRIP_COUNT, CountedLoop, Loops
from memplan.compiler.ir.graph import Computation, Graph, Instruction

# What XLA's memory space assignment assumes of a loop whose trip count is unknown
# (memory_space_assignment/cost_analysis.h, `xla_tpu_memory_space_assignment_while_execution_count`).
ASSUMED_TRIP_COUNT = 5.0

# JSON, JSON in a quoted string, and text proto: {"known_trip_count":{"n":"12"}}, {"n":12}, known_trip_count { n: 12 }.
_KNOWN = re.compile(r"known_trip_count[\\\"]*\s*+:?\s*+\{\s*[\\\"]*n[\\\"]*\s*:\s*[\\\"]*(\d{1,18})(?!\d)")
# What `with_trip_counts` states, among a loop's frontend attributes.
_KEY = "memplan_trip_count"
_GIVEN = re.compile(rf'[{{,]{_KEY}="(\d{{1,18}})"')


def trip_count(graph: Graph, instruction: Instruction, caller: Computation) -> tuple[float, bool]:
    """Returns how often the body of a `while` in `caller` runs, and whether the program says so.

    Where it does not, the count is `ASSUMED_TRIP_COUNT`.
    """
    count, _ = _counted(graph, instruction, caller)
    return (ASSUMED_TRIP_COUNT, False) if count is None else (float(count), True)


def why_unknown(graph: Graph, instruction: Instruction, caller: Computation) -> str:
    """Returns why the program does not say how often the body of a `while` in `caller` runs; "" where it does."""
    return _counted(graph, instruction, caller)[1]


def loops_of(graph: Graph) -> Iterator[tuple[Computation, Instruction]]:
    """Yields every `while` of a Graph with the computation that it stands in."""
    for computation, instruction in graph.instructions():
        if instruction.opcode == "while":
            yield computation, instruction


def with_trip_counts(graph: Graph, counts: Mapping[str, int]) -> Graph:
    """Returns the Graph with loops that run as often as the user says.

    The count overrules what the program says. It is stated in the loop's frontend attributes, so it stays with a Graph
    that is printed.

    Args:
      counts: name of a `while` to how often its body runs. `computation/name` tells loops of one name apart; a name
        alone means all of them.

    Raises:
      GraphError: no loop has such a name (the message lists the loops), or a count is no number of iterations.
    """
    if not counts:
        return graph
    for name, count in counts.items():
        if not 0 <= count <= MAX_TRIP_COUNT:
            raise GraphError(f"the trip count of {name!r} must be between 0 and 2^53, not {count}")
    unused = set(counts)
    computations = dict(graph.computations)
    for computation, instruction in loops_of(graph):
        full_name = f"{computation.name}/{instruction.name}"
        key = next((name for name in (full_name, instruction.name) if name in counts), None)
        if key is None:
            continue
        unused.discard(key)
        instructions = list(computations[computation.name].instructions)
        instructions[computation.index[instruction.name]] = _with_count(instruction, counts[key])
        computations[computation.name] = replace(computations[computation.name], instructions=tuple(instructions))
    if unused:
        loops = [f"{computation.name}/{instruction.name}" for computation, instruction in loops_of(graph)]
        known = f"the loops are {', '.join(loops)}" if loops else "the program has no loop"
        raise GraphError(f"no loop is called {', '.join(sorted(unused))}: {known}")
    return replace(graph, computations=computations)


def _with_count(instruction: Instruction, count: int) -> Instruction:
    text = instruction.attribute("frontend_attributes", "{}")
    others = re.sub(rf'({_KEY}="\d+",?)', "", text[1:-1]).rstrip(",")
    stated = f'{{{others}{"," if others else ""}{_KEY}="{count}"}}'
    if instruction.attribute("frontend_attributes"):
        attributes = [(k, stated if k == "frontend_attributes" else v) for k, v in instruction.attributes]
    else:
        late = next((i for i, (k, _) in enumerate(instruction.attributes) if k in _LATE), len(instruction.attributes))
        attributes = list(instruction.attributes)
        attributes.insert(late, ("frontend_attributes", stated))
    return replace(instruction, attributes=tuple(attributes))


# Attributes that XLA prints after the frontend attributes.
_LATE = frozenset({"statistics", "result_accuracy", "origin", "metadata", "backend_config"})


def _counted(graph: Graph, instruction: Instruction, caller: Computation) -> tuple[int | None, str]:
    """Returns the count, or None and the reason."""
    given = _GIVEN.search(instruction.attribute("frontend_attributes"))
    stated = given or _KNOWN.search(instruction.attribute("backend_config"))
    if stated:
        return int(stated.group(1)), ""
    loops = Loops(graph)
    loop = CountedLoop(loops, instruction, caller, loops.environment(caller.name))
    count = loop.count()
    return count, "" if count is not None else loop.reason
