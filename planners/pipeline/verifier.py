"""The verifier of PipelinePlans: it simulates the schedule event by event, and shares no code with solvers."""

from __future__ import annotations

import heapq
import math

from memplan.planners.pipeline.plan import PipelinePlan
from memplan.planners.pipeline.problem import PipelineLayer, PipelineProblem

# Seconds may differ by the rounding of sums in another order.
_ROUNDING = 1e-9


def verify_pipeline(problem: PipelineProblem, plan: PipelinePlan) -> list[str]:
    """Returns what is wrong with a plan: nothing, if it is valid.

    The pieces must make up the chain, the time and the memory must be those of the simulation, the memory within the
    limit, and the bound must not be above the time.
    """
    pieces = problem.stages * problem.chunks
    if len(plan.ends) != pieces or len(plan.recompute) != pieces or len(plan.memory) != problem.stages:
        return [f"the plan has {len(plan.ends)} pieces on {len(plan.memory)} devices, and the problem {pieces} pieces"]
    if list(plan.ends) != sorted(set(plan.ends)) or plan.ends[0] < 1 or plan.ends[-1] != len(problem.layers):
        return [f"the pieces end at {plan.ends}: they must ascend from 1 to {len(problem.layers)}"]
    found = []
    if any(plan.recompute) and not problem.recompute:
        found.append("a piece recomputes, and the problem does not allow it")
    time, memory = simulate(problem, plan)
    if not math.isclose(time, plan.time, rel_tol=_ROUNDING):
        found.append(f"a step takes {time!r} s, and the plan states {plan.time!r} s")
    for device, (real, stated) in enumerate(zip(memory, plan.memory, strict=True)):
        if real != stated:
            found.append(f"device {device} needs {real:,} bytes, and the plan states {stated:,}")
        if problem.limit is not None and real > problem.limit:
            found.append(f"device {device} needs {real:,} bytes, and has {problem.limit:,}")
    if plan.bound > plan.time * (1 + _ROUNDING):
        found.append(f"the bound {plan.bound!r} s is above the {plan.time!r} s that the plan reaches")
    return found


def simulate(problem: PipelineProblem, plan: PipelinePlan) -> tuple[float, list[int]]:
    """Returns the seconds of a step and the most bytes on each device.

    Devices are idle until what they are to do next has arrived. A pass that ends sends its result on, which arrives
    later. Each event happens at its time.
    """
    stages, pieces = problem.stages, len(plan.ends)
    parts = [problem.layers[start:end] for start, end in zip((0, *plan.ends), plan.ends, strict=False)]
    todo = [_todo(problem, device) for device in range(stages)]
    arrived = {("F", 0, number) for number in range(problem.microbatches)}
    standing = [sum(layer.state for q in range(d, pieces, stages) for layer in parts[q]) for d in range(stages)]
    most, busy = list(standing), [False] * stages
    events: list[tuple[float, int, str, tuple[str, int, int]]] = [(0.0, 0, "start", ("", 0, 0))]
    now, count = 0.0, 0
    while events:
        now, _, kind, what = heapq.heappop(events)
        if kind == "arrival":
            arrived.add(what)
        elif kind == "end":
            way, piece, number = what
            device = piece % stages
            busy[device] = False
            if way == "B":
                standing[device] -= _kept(problem, plan, parts, piece)
            # The last piece turns round by itself.
            new = ("F", piece + 1, number) if way == "F" else ("B", piece - 1, number)
            if way == "F" and piece + 1 == pieces:
                arrived.add(("B", piece, number))
            elif new[1] >= 0:
                cut = plan.ends[min(piece, new[1])]
                send = problem.latency + problem.layers[cut - 1].passed / problem.bandwidth if stages > 1 else 0.0
                count += 1
                heapq.heappush(events, (now + send, count, "arrival", new))
        for device in range(stages):
            if busy[device] or not todo[device] or todo[device][0] not in arrived:
                continue
            way, piece, number = todo[device].pop(0)
            seconds = sum(layer.forward for layer in parts[piece])
            extra = 0
            if way == "F":
                standing[device] += _kept(problem, plan, parts, piece)
            else:
                again = seconds if plan.recompute[piece] else 0.0
                seconds = sum(layer.backward for layer in parts[piece]) + again
                extra = _again(problem, plan, parts, piece)
            most[device] = max(most[device], standing[device] + extra)
            busy[device] = True
            count += 1
            heapq.heappush(events, (now + seconds, count, "end", (way, piece, number)))
    if any(todo):
        raise AssertionError("the schedule waits for itself")
    return now, most


def _inputs(problem: PipelineProblem, parts: list[tuple[PipelineLayer, ...]], piece: int) -> list[int]:
    """Returns the bytes of the inputs of a piece's layers, no more than they keep."""
    start = sum(len(part) for part in parts[:piece])
    layers = problem.layers
    return [
        min(layers[i].kept, layers[i - 1].passed if i else problem.first)
        for i in range(start, start + len(parts[piece]))
    ]


def _kept(problem: PipelineProblem, plan: PipelinePlan, parts: list[tuple[PipelineLayer, ...]], piece: int) -> int:
    if plan.recompute[piece]:
        return sum(_inputs(problem, parts, piece))
    return sum(layer.kept for layer in parts[piece])


def _again(problem: PipelineProblem, plan: PipelinePlan, parts: list[tuple[PipelineLayer, ...]], piece: int) -> int:
    """Returns what the largest layer of a piece keeps when it is computed again, besides its input."""
    if not plan.recompute[piece]:
        return 0
    inputs = _inputs(problem, parts, piece)
    return max(layer.kept - own for layer, own in zip(parts[piece], inputs, strict=True))


def _todo(problem: PipelineProblem, device: int) -> list[tuple[str, int, int]]:
    """Returns the passes of a device in the order of the schedule."""
    stages, chunks, count = problem.stages, problem.chunks, problem.microbatches
    group = stages if problem.schedule == "1f1b" and chunks > 1 else count
    pieces = [device + stages * chunk for chunk in range(chunks)]
    forward, backward = [], []
    for first in range(0, count, group):
        numbers = range(first, first + group)
        forward += [("F", piece, number) for piece in pieces for number in numbers]
        backward += [("B", piece, number) for piece in reversed(pieces) for number in numbers]
    if problem.schedule == "gpipe":
        return forward + backward
    early = stages - 1 - device
    if chunks > 1:
        early = len(forward) if count == stages else 2 * early + (chunks - 1) * stages
    order = forward[:early]
    rest = iter(backward)
    for step in forward[early:]:
        order += [step, next(rest)]
    return order + list(rest)
