"""Runs passes over Graphs, one after another, and checks the result of each.

If a pass raises, or returns a Graph that breaks a rule of the IR or has other parameters or results, the error names it
and the Graph is unchanged.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from memplan.compiler.analysis.in_place import InPlace
from memplan.compiler.analysis.traffic import Traffic
from memplan.compiler.ir import Graph, Shape
from memplan.compiler.ir.validate import check_graph
from memplan.passes import base
from memplan.passes.base import GraphContext, GraphPass, PassError, PassReport
from memplan.passes.graph_edit import FLOW, executed

CLEAN_UPS = ("inline", "constant_folding", "shape_cleanup", "common_subexpressions", "dead_code")

# The passes of `--passes auto`.
DEFAULT = (*CLEAN_UPS, "fusion", "dead_code")

# Opcodes that move no bytes.
_STILL = FLOW | {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "opt-barrier", "after-all"}


@dataclass(frozen=True)
class GraphPassReport(PassReport):
    """What one pass over a Graph did.

    Attributes:
      bytes_before, bytes_after: that its instructions touch, each run once.
    """

    bytes_before: int
    bytes_after: int


@dataclass(frozen=True)
class GraphOutcome:
    """A Graph after all passes.

    Attributes:
      graph: the rewritten one.
      reports: one for each pass, in order.
    """

    graph: Graph
    reports: tuple[GraphPassReport, ...]


def chosen_graph_passes(names: str | Iterable[str | GraphPass]) -> tuple[GraphPass, ...]:
    """Returns the passes of names: "auto", "none", names with commas between, or a sequence of names and passes.

    >>> [each.name for each in chosen_graph_passes("inline,dead_code")]
    ['inline', 'dead_code']

    Raises:
      PassError: one is not known.
    """
    return base.chosen_from(names, DEFAULT, base.get_graph_pass)


def run_graph_passes(
    graph: Graph,
    passes: Sequence[GraphPass],
    context: GraphContext | None = None,
    after: Callable[[GraphPass, Graph], None] | None = None,
) -> GraphOutcome:
    """Returns the Graph that passes make of a Graph.

    Args:
      graph: any that keeps the rules of the IR.
      passes: in the order in which they run.
      context: what they may know.
      after: called after each pass with it and the Graph, to print it for instance.

    Raises:
      PassError: a pass broke the Graph.
    """
    reports = []
    count, touched = count_instructions(graph), touched_bytes(graph)
    for each in passes:
        started = time.perf_counter()
        with base.blamed(each.name):
            rewritten = each.rewrite(graph, context or GraphContext())
            if rewritten.graph is not graph:
                check_graph(rewritten.graph)
        for what, old, new in zip(
            ("parameters", "results"), _interface(graph), _interface(rewritten.graph), strict=True
        ):
            if old != new:
                raise PassError(
                    f"pass {each.name} broke the program: its {what} were {_listed(old)} and are {_listed(new)}"
                )
        if rewritten.graph is not graph:
            graph = rewritten.graph
            new_count, new_touched = count_instructions(graph), touched_bytes(graph)
        else:
            new_count, new_touched = count, touched
        seconds = time.perf_counter() - started
        reports.append(GraphPassReport(each.name, seconds, count, new_count, rewritten.findings, touched, new_touched))
        count, touched = new_count, new_touched
        if after is not None:
            after(each, graph)
    return GraphOutcome(graph, tuple(reports))


def count_instructions(graph: Graph) -> int:
    """Returns how many instructions run one by one."""
    return sum(len(graph.computations[name].instructions) for name in executed(graph))


def touched_bytes(graph: Graph) -> int:
    """Returns the bytes of operands and results of all instructions that run one by one, each run once."""
    traffic = Traffic(graph, InPlace(graph))
    total = 0
    for name in executed(graph):
        instructions = graph.computations[name].instructions
        for instruction in instructions:
            if instruction.opcode in _STILL or instruction.opcode == "reshape":
                continue
            total += instruction.shape.bytes
            for number, operand in enumerate(instruction.operands):
                shape = instructions[operand].shape
                total += shape.bytes if shape.is_tuple else traffic.read(instruction, number, shape)
    return total


def _interface(graph: Graph) -> tuple[list[Shape], list[Shape]]:
    entry = graph.entry_computation
    return [entry.instructions[i].shape for i in entry.parameters], [entry.root_instruction.shape]


def _listed(shapes: Sequence[Shape]) -> str:
    return ", ".join(map(str, shapes))
