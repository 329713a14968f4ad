"""The pass `fusion`: groups of instructions run as one, tile by tile, so that values between them stay in fast memory.

A dynamic program over the whole computation chooses the groups, each costed with its best tiling (`fusion/`). It uses
no patterns, so a layer norm, a gated product or all of attention are fused as far as they fit. A group is made only if
the cost model says that it takes less time than its members one by one.

Sources: Jangda and Bondhugula, "An effective fusion and tile size model for optimizing image processing pipelines",
PPoPP 2018; Mullapudi et al., "Automatically scheduling Halide image processing pipelines", SIGGRAPH 2016; Kao et al.,
"FLAT: an optimized dataflow for mitigating attention bottlenecks", ASPLOS 2023 (tiles of attention's rows).
"""

from __future__ import annotations

from dataclasses import replace

from memplan.compiler.hardware.estimates import states_reserved
from memplan.compiler.hardware.target import Target
from memplan.compiler.hardware.work import WorkCounter
from memplan.compiler.ir import Graph
from memplan.compiler.ir.validate import callees_first
from memplan.passes.base import Finding, GraphContext, GraphPass, RewrittenGraph
from memplan.passes.graph_edit import Names, executed


def rewrite(graph: Graph, context: GraphContext) -> RewrittenGraph:
    """Fuses groups that pay on the context's target, in each computation that runs instruction by instruction."""
    if context.target is None:
        return _declined(graph, "no target is known")
    if graph.is_scheduled:
        return _declined(graph, "a compiler scheduled the program, and fused it")
    memories = fusion_memories(context.target)
    if memories is None:
        return _declined(graph, f"{context.target.name} has no fast memory of which instructions may keep a part")
    slow, fast = memories
    # The kernels take time to load, and the registry of passes loads this module.
    from memplan.passes.fusion.partition import fusion_target, partition
    from memplan.passes.fusion.rewrite import with_fusions, with_stated_memory

    costs = fusion_target(context.target, slow, fast, context.fast_share)
    counter, names = WorkCounter(graph), Names(graph)
    found = [
        partition(graph, graph.computations[name], context.target, slow, counter, costs) for name in executed(graph)
    ]
    groups = [group for each in found for group in each.groups]
    # Where no instruction states what it keeps in fast memory, each is assumed to keep what the compiler usually
    # reserves. That is enough unless a group keeps more.
    was_stated = any(states_reserved(instruction) for _, instruction in graph.instructions())
    is_stated = was_stated or any(group.kept > costs.usual for group in groups)
    findings: list[Finding] = []
    computations = dict(graph.computations)
    for each in found:
        fused = with_fusions(each, names, context.target, fast, is_stated)
        if fused.bodies:
            findings += fused.findings
            computations.update({body.name: body for body in (*fused.bodies, fused.computation)})
    if not findings:
        return RewrittenGraph(graph)
    rewritten = replace(graph, computations={name: computations[name] for name in callees_first(computations)})
    if is_stated and not was_stated:
        rewritten = with_stated_memory(rewritten, context.target, fast)
    return RewrittenGraph(rewritten, tuple(findings))


def fusion_memories(target: Target) -> tuple[int, int] | None:
    """Returns the memory of a program and the faster one for tiles; None if the target has no faster one."""
    slow = target.space_of_xla(0)
    faster = [
        index
        for index, space in enumerate(target.spaces)
        if space.xla_number and space.writable and space.bandwidth > target.spaces[max(slow, 0)].bandwidth
    ]
    if slow < 0 or not faster:
        return None
    return slow, max(faster, key=lambda index: target.spaces[index].bandwidth)


def _declined(graph: Graph, reason: str) -> RewrittenGraph:
    return RewrittenGraph(graph, (Finding("fusion", graph.name, reason),))


PASS = GraphPass("fusion", "Groups of instructions that run as one, tile by tile, in fast memory.", rewrite)
