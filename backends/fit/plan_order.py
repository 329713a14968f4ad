"""The order of a FitPlan in a compiled module: each instruction runs at the step that its equations belong to.

The names of the steps survive the compiler as the outermost scope of `op_name` (see `passes/rematerialize.py`).
"""

from __future__ import annotations

import re

from memplan.backends.order_hook import Orders, memory_order
from memplan.compiler.ir.graph import Computation, Graph
from memplan.compiler.ir.memory_order import peak_bytes
from memplan.passes.rematerialize import SCOPE

_STEP = re.compile(rf"(?:^|/){SCOPE}(\d{{1,9}})(?:/|$)")


def plan_order(graph: Graph) -> Orders:
    """A rule for `ordering`: the entry runs in the order of the plan, or in that of `memory_order` if it needs less."""
    orders = dict(memory_order(graph))
    entry = graph.entry_computation
    planned = in_order_of_steps(entry)
    given = orders.get(entry.name)
    other = [entry.index[name] for name in given] if given else None
    if peak_bytes(entry, planned) <= peak_bytes(entry, other):
        orders[entry.name] = [entry.instructions[place].name for place in planned]
    return orders


def in_order_of_steps(computation: Computation) -> list[int]:
    """Returns a legal order in which instructions run at their steps, and those without a step just before a reader."""
    instructions = computation.instructions
    steps = [_step(instruction.source.op_name) for instruction in instructions]
    order: list[int] = []
    done = [False] * len(instructions)
    with_step = sorted((step, place) for place, step in enumerate(steps) if step is not None)
    others = [place for place, step in enumerate(steps) if step is None]
    for start in (*(place for _, place in with_step), *others):
        pending = [start]
        while pending:
            place = pending[-1]
            if done[place]:
                pending.pop()
                continue
            instruction = instructions[place]
            missing = [p for p in (*instruction.operands, *instruction.control_predecessors) if not done[p]]
            if missing:
                pending.extend(reversed(missing))
            else:
                done[place] = True
                order.append(place)
                pending.pop()
    return order


def _step(op_name: str) -> int | None:
    found = _STEP.search(op_name)
    return int(found[1]) if found else None
