"""A trace of the plan's timeline for ui.perfetto.dev and chrome://tracing.

The format is the Trace Event Format that Chrome's tracing reads ("JSON object format", complete events `X`, counters
`C`, metadata `M`): timestamps are microseconds of emulated time. One track has the operations, one the waits, one each
link's copies; counters show what is occupied. A loop is shown by its first iteration, and one slice for the rest:

    loops        |          while.3 × 512                     |
    operations   | a | b | c |       511 more iterations      | d |
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from memplan.compiler.analysis.program import RegionKind
from memplan.compiler.mapping.plan import BEFORE
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.report.report import Contender, Report

_MICRO = 1e6
_LOOPS, _OPERATIONS, _WAITS, _LINKS, _BRANCHES = 1, 2, 3, 10, 1000


def trace_json(report: Report) -> dict[str, Any]:
    """Returns the trace of every mapping of the report, one process each, the report's own plan first."""
    events: list[dict[str, Any]] = []
    for process, contender in enumerate(reversed(report.contenders), 1):
        name = f"{contender.label}: {report.problem.name} on {report.problem.target}"
        events.append(_metadata("process_name", process, 0, name=name))
        events.append(_metadata("process_sort_index", process, 0, sort_index=process))
        events.extend(_tracks(report.problem, process))
        for event in _events(report, contender):
            event["pid"] = process
            events.append(event)
    return {"traceEvents": events, "displayTimeUnit": "ns"}


def _metadata(kind: str, process: int, thread: int, **arguments: Any) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": process, "tid": thread, "args": arguments}


def _tracks(problem: MappingProblem, process: int) -> Iterator[dict[str, Any]]:
    tracks = {_LOOPS: "loops", _OPERATIONS: "operations", _WAITS: "waits"}
    for number, link in enumerate(problem.links):
        tracks[_LINKS + number] = f"copies {problem.spaces[link.source].name} → {problem.spaces[link.destination].name}"
    for region in _other_branches(problem):
        tracks[_BRANCHES + region] = f"operations of another branch ({region})"
    for thread, name in tracks.items():
        yield _metadata("thread_name", process, thread, name=name)
        yield _metadata("thread_sort_index", process, thread, sort_index=thread)


def _other_branches(problem: MappingProblem) -> list[int]:
    """Returns the branches that are not the first of their conditional: they begin when the first one does."""
    seen: set[int] = set()
    others = []
    for index, region in enumerate(problem.regions):
        if region.kind is RegionKind.BRANCH:
            if region.group in seen:
                others.append(index)
            seen.add(region.group)
    return others


def _events(report: Report, contender: Contender) -> Iterator[dict[str, Any]]:
    problem = report.problem
    yield from _operations(report, contender)
    yield from _loops(problem, contender)
    yield from _copies(report, contender)
    yield from _counters(problem, contender)


def _slice(thread: int, name: str, start: float, duration: float, **arguments: Any) -> dict[str, Any]:
    return {
        "ph": "X",
        "tid": thread,
        "name": name,
        "ts": start * _MICRO,
        "dur": duration * _MICRO,
        "args": arguments,
    }


def _origin(op_name: str, place: str) -> dict[str, str]:
    """Returns the arguments that say where something comes from, as far as it is known."""
    return {key: text for key, text in (("op_name", op_name), ("source", place)) if text}


def _operations(report: Report, contender: Contender) -> Iterator[dict[str, Any]]:
    problem = report.problem
    timeline = contender.timeline
    others = set(_other_branches(problem))
    track = [_OPERATIONS]
    for index, region in enumerate(problem.regions[1:], 1):
        track.append(_BRANCHES + index if index in others else track[region.parent])
    served = [problem.spaces[contender.plan.residencies[residency].space].name for residency in contender.plan.served]
    for t, operation in enumerate(problem.operations):
        start, duration, stall = float(timeline.start[t]), float(timeline.duration[t]), float(timeline.stall[t])
        if math.isnan(start):
            continue
        if stall > 0:
            yield _slice(_WAITS, f"wait before {operation.name}", start - stall, stall, t=t)
        if duration > 0:
            first = problem.access_start[t]
            buffers = {
                f"{access.kind.value} {problem.buffers[access.buffer].name}": f"{access.bytes} B, {served[first + i]}"
                for i, access in enumerate(operation.accesses)
            }
            runs = problem.runs_at(t)
            yield _slice(
                track[operation.region], operation.name, start, duration,
                t=t, opcode=operation.opcode, runs=runs,
                **_origin(report.sources[t].op_name, report.sources[t].place), **buffers,
            )  # fmt: skip


def _loops(problem: MappingProblem, contender: Contender) -> Iterator[dict[str, Any]]:
    timeline = contender.timeline
    for region in problem.regions:
        if region.kind is not RegionKind.LOOP or region.start == region.end or math.isnan(timeline.start[region.start]):
            continue
        start = float(timeline.start[region.start] - timeline.stall[region.start])
        last = float(timeline.start[region.end - 1] + timeline.duration[region.end - 1])
        end = timeline.latency
        if region.end < problem.end:
            end = float(timeline.start[region.end] - timeline.stall[region.end])
        name = problem.operations[region.end].name if region.end < problem.end else "loop"
        yield _slice(_LOOPS, f"{name} × {region.trip_count:g}", start, end - start, trip_count=region.trip_count)
        if region.trip_count > 1 and end > last:
            yield _slice(_OPERATIONS, f"{region.trip_count - 1:g} more iterations of {name}", last, end - last)


def _copies(report: Report, contender: Contender) -> Iterator[dict[str, Any]]:
    problem = report.problem
    plan, timeline = contender.plan, contender.timeline
    for i, copy in enumerate(plan.copies):
        source, destination = plan.residencies[copy.source], plan.residencies[copy.destination]
        link = problem.link_between.get((source.space, destination.space))
        if copy.start == BEFORE or link is None or math.isnan(timeline.end[i]):
            continue
        buffer, described = problem.buffers[source.buffer], report.buffers[source.buffer]
        begin, end = float(timeline.begin[i]), float(timeline.end[i])
        awaited_by = problem.operations[copy.done].name if copy.done < problem.end else "the end"
        yield _slice(
            _LINKS + link, buffer.name, begin, end - begin,
            bytes=buffer.size, issued=float(timeline.issue[i]), awaited_by=awaited_by, offset=destination.offset,
            **_origin(described.op_name, described.source),
        )  # fmt: skip


def _counters(problem: MappingProblem, contender: Contender) -> Iterator[dict[str, Any]]:
    timeline = contender.timeline
    for space, used in zip(problem.spaces, contender.usage, strict=True):
        shown = None
        for t in range(problem.end + 1):
            moment = float(timeline.start[t]) if t < problem.end else timeline.latency
            value = (int(used.live[t]), int(used.reserved[t]))
            if value != shown and not math.isnan(moment):
                shown = value
                counts = {"buffers": value[0], "kept by operations": value[1]}
                yield {"ph": "C", "tid": 0, "name": f"{space.name} bytes", "ts": moment * _MICRO, "args": counts}
