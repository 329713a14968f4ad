"""An order of execution that keeps little memory alive, for modules that no compiler scheduled.

Finding the best order is NP-hard (Sethi, "Complete register allocation problems", 1975), so several near-linear
heuristics run, each strong where others are weak, and the order with the lowest peak is taken:

  given      the order of the text, so that the result is never worse than that
  greedy     list scheduling: of what may run, that which frees most bytes, less those that it defines (XLA's
             ListMemoryScheduler, after Goodman and Hsu, "Code scheduling and register allocation", 1988)
  backward   the same from the end: of what may be last, that which adds the fewest live bytes before it
  subtrees   depth first from the root, the operand whose subtree needs most room before the others
             (Sethi and Ullman, "The generation of optimal code for arithmetic expressions", 1970; Liu 1987)

Sizes are those of `Shape.bytes`. Parameters and constants exist before the program starts, so they never count. Views
(bitcast, tuple, get-tuple-element) own no memory but keep alive what they show.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from memplan.compiler.ir.graph import Computation, Graph
from memplan.compiler.ir.ordering import reordered
from memplan.compiler.ir.shape import Shape
from memplan.compiler.ir.validate import same_structure

_VIEWS = frozenset({"bitcast", "opt-barrier", "optimization-barrier", "while", "add-dependency", "domain"})
_SEQUENTIAL_CALLERS = frozenset({"while", "conditional", "call", "async-start", "call-start"})
_ALWAYS_THERE = frozenset({"parameter", "constant"})


@dataclass(frozen=True)
class _Memory:
    """A computation as memory sees it.

    Attributes:
      size: per buffer, bytes.
      defined: per instruction, the buffers that it defines.
      used: per instruction, the buffers that it reads, directly or through views, each once.
      users: per buffer, the instructions that read it.
      kept: per buffer, whether it is part of the result.
      transient: per instruction, bytes needed only while it runs, by the computations that it calls.
      predecessors, successors: per instruction, by operands and control dependences.
    """

    size: list[int]
    defined: list[list[int]]
    used: list[list[int]]
    users: list[list[int]]
    kept: list[bool]
    transient: list[int]
    predecessors: list[list[int]]
    successors: list[list[int]]


def memory_minimizing_order(computation: Computation, inner_peaks: Mapping[str, int] | None = None) -> tuple[int, ...]:
    """Returns a legal order whose peak is the lowest that the heuristics find; near-linear in time.

    Args:
      computation: in any legal order, whose peak the result never exceeds.
      inner_peaks: bytes that each called computation needs while it runs; none where it is not stated.

    >>> big, small = Shape("f32", (1000,)), Shape("f32", (10,))
    >>> from memplan.compiler.ir.graph import Instruction
    >>> rows = [("a", big, ()), ("b", big, ()), ("c", small, (0,)), ("d", small, (1,)), ("e", small, (2, 3))]
    >>> program = Computation("c", tuple(Instruction(n, "custom-call", s, o) for n, s, o in rows), root=4)
    >>> memory_minimizing_order(program)
    (0, 2, 1, 3, 4)
    """
    return _best_order(computation, inner_peaks or {})[0]


def _best_order(computation: Computation, inner_peaks: Mapping[str, int]) -> tuple[tuple[int, ...], int]:
    """Returns the best order found, and its peak."""
    memory = _memory(computation, inner_peaks)
    best = tuple(range(len(computation.instructions)))
    lowest = _peak(memory, best)
    for heuristic in (_subtrees, _greedy, _backward):
        order = heuristic(memory, computation.root)
        peak = _peak(memory, order)
        if peak < lowest:
            best, lowest = order, peak
    return best, lowest


def scheduled(graph: Graph) -> Graph:
    """Returns the Graph with every computation that runs instruction by instruction in such an order.

    Bodies of fusions and of reductions keep theirs: their values never reach memory.
    """
    sequential = {graph.entry}
    for name in reversed(list(graph.computations)):  # callers before callees
        if name in sequential:
            for instruction in graph.computations[name].instructions:
                if instruction.opcode in _SEQUENTIAL_CALLERS:
                    sequential.update(instruction.called)
    peaks: dict[str, int] = {}
    computations: dict[str, Computation] = {}
    for name, computation in graph.computations.items():
        if name in sequential:
            order, peaks[name] = _best_order(computation, peaks)
            computation = reordered(computation, order)
        computations[name] = computation
    return replace(graph, computations=computations)


def peak_bytes(
    computation: Computation, order: Sequence[int] | None = None, inner_peaks: Mapping[str, int] | None = None
) -> int:
    """Returns the most bytes that are alive at once when the instructions run in `order` (default: as they stand)."""
    return _peak(_memory(computation, inner_peaks or {}), order or range(len(computation.instructions)))


def _peak(memory: _Memory, order: Iterable[int]) -> int:
    remaining = [len(users) for users in memory.users]
    live = peak = 0
    for i in order:
        live += sum(memory.size[b] for b in memory.defined[i])
        peak = max(peak, live + memory.transient[i])
        for b in memory.used[i]:
            remaining[b] -= 1
            if remaining[b] == 0 and not memory.kept[b]:
                live -= memory.size[b]
        for b in memory.defined[i]:
            if not memory.users[b] and not memory.kept[b]:
                live -= memory.size[b]
    return peak


def _memory(computation: Computation, inner_peaks: Mapping[str, int]) -> _Memory:
    size: list[int] = []
    defined: list[list[int]] = []
    used: list[list[int]] = []
    users: list[list[int]] = []
    values: list[Any] = []  # per instruction, what it shows: a buffer, or a list of such for a tuple
    predecessors: list[list[int]] = []
    successors: list[list[int]] = [[] for _ in computation.instructions]

    def define(shape: Shape, counts: bool, into: list[int]) -> Any:
        if shape.is_tuple:
            return [define(element, counts, into) for element in shape.elements]
        size.append(shape.bytes if counts else 0)
        users.append([])
        into.append(len(size) - 1)
        return len(size) - 1

    for i, instruction in enumerate(computation.instructions):
        opcode, operands = instruction.opcode, instruction.operands
        own: list[int] = []
        if opcode == "tuple":
            value = [values[o] for o in operands]
        elif opcode == "get-tuple-element":
            value = values[operands[0]][int(instruction.attribute("index"))]
        elif opcode in _VIEWS and same_structure(instruction.shape, computation.instructions[operands[0]].shape):
            value = values[operands[0]]
        else:
            value = define(instruction.shape, opcode not in _ALWAYS_THERE, own)
        values.append(value)
        defined.append(own)
        reads: list[int] = []
        if opcode not in ("tuple", "get-tuple-element"):
            reads = list(dict.fromkeys(b for o in dict.fromkeys(operands) for b in _buffers(values[o])))
        used.append(reads)
        for b in reads:
            users[b].append(i)
        predecessors.append(list(dict.fromkeys((*operands, *instruction.control_predecessors))))
        for p in predecessors[-1]:
            successors[p].append(i)
    kept = [False] * len(size)
    for b in _buffers(values[computation.root]):
        kept[b] = True
    transient = [
        max((inner_peaks.get(name, 0) for name in instruction.called), default=0)
        for instruction in computation.instructions
    ]
    return _Memory(size, defined, used, users, kept, transient, predecessors, successors)


def _buffers(value: Any) -> Iterable[int]:
    if isinstance(value, int):
        return (value,)
    found: list[int] = []
    pending = [value]
    while pending:
        top = pending.pop()
        if isinstance(top, int):
            found.append(top)
        else:
            pending.extend(reversed(top))
    return found


def _greedy(memory: _Memory, _: int) -> tuple[int, ...]:
    """List scheduling: of the ready instructions, the one that frees most bytes less what it defines."""
    count = len(memory.used)
    remaining = [len(users) for users in memory.users]
    last_user = [sum(users) for users in memory.users]  # of those that did not run; the user itself, once one is left
    gain = [-sum(memory.size[b] for b in own) for own in memory.defined]
    for b, number in enumerate(remaining):
        if number == 1 and not memory.kept[b]:
            gain[last_user[b]] += memory.size[b]
    missing = [len(p) for p in memory.predecessors]
    ready = [(-gain[i], i) for i in range(count) if missing[i] == 0]
    heapq.heapify(ready)
    done = [False] * count
    order: list[int] = []
    while ready:
        negative_gain, i = heapq.heappop(ready)
        if done[i] or -negative_gain != gain[i]:
            continue
        done[i] = True
        order.append(i)
        for b in memory.used[i]:
            remaining[b] -= 1
            last_user[b] -= i
            if remaining[b] == 1 and not memory.kept[b]:
                user = last_user[b]
                gain[user] += memory.size[b]
                if missing[user] == 0:
                    heapq.heappush(ready, (-gain[user], user))
        for successor in memory.successors[i]:
            missing[successor] -= 1
            if missing[successor] == 0:
                heapq.heappush(ready, (-gain[successor], successor))
    return tuple(order)


def _backward(memory: _Memory, _: int) -> tuple[int, ...]:
    """List scheduling from the end: of what may be last, the one with the fewest live bytes before it."""
    count = len(memory.used)
    alive = list(memory.kept)
    cost = [0] * count  # bytes alive before, less bytes alive after
    for i in range(count):
        cost[i] = sum(memory.size[b] for b in memory.used[i] if not alive[b])
        cost[i] -= sum(memory.size[b] for b in memory.defined[i])
    missing = [len(s) for s in memory.successors]
    ready = [(cost[i], -i) for i in range(count) if missing[i] == 0]
    heapq.heapify(ready)
    done = [False] * count
    order: list[int] = []
    while ready:
        expected, negative = heapq.heappop(ready)
        i = -negative
        if done[i] or expected != cost[i]:
            continue
        done[i] = True
        order.append(i)
        for b in memory.used[i]:
            if alive[b]:
                continue
            alive[b] = True
            for user in memory.users[b]:
                cost[user] -= memory.size[b]
                if missing[user] == 0 and not done[user]:
                    heapq.heappush(ready, (cost[user], -user))
        for predecessor in memory.predecessors[i]:
            missing[predecessor] -= 1
            if missing[predecessor] == 0:
                heapq.heappush(ready, (cost[predecessor], -predecessor))
    return tuple(reversed(order))


def _subtrees(memory: _Memory, root: int) -> tuple[int, ...]:
    """Depth first from the results, of an instruction's operands first the one that needs most room for itself."""
    count = len(memory.used)
    result = [sum(memory.size[b] for b in own) for own in memory.defined]
    need = [0] * count
    children: list[list[int]] = []
    for i in range(count):  # predecessors stand before i
        ordered = sorted(memory.predecessors[i], key=lambda p: (result[p] - need[p], p))
        held = room = 0
        for p in ordered:
            room = max(room, held + need[p])
            held += result[p]
        need[i] = max(room, held + result[i] + memory.transient[i])
        children.append(ordered)
    order: list[int] = []
    seen = [False] * count
    # What the result does not need comes where the text has it: before the next root of the walk.
    for start in [i for i in range(count) if not memory.successors[i] and i != root] + [root]:
        if seen[start]:
            continue
        seen[start] = True
        stack = [(start, iter(children[start]))]
        while stack:
            i, rest = stack[-1]
            for child in rest:
                if not seen[child]:
                    seen[child] = True
                    stack.append((child, iter(children[child])))
                    break
            else:
                order.append(i)
                stack.pop()
    return tuple(order)
