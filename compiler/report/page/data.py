"""What the page shows of a report, as JSON values.

The values are columns: an array per attribute instead of an object per buffer, so that ten thousand buffers take little
room and are read at once. Names are made printable here; the page treats every one of them as plain text. Sizes are
bytes, times are seconds, and positions on the axis are those of `TimeAxis`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from memplan.compiler.analysis.program import RegionKind
from memplan.compiler.mapping.plan import BEFORE, Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.printable import printable
from memplan.compiler.report.axis import offset_ceiling, time_axis
from memplan.compiler.report.colors import KIND_COLORS, KIND_LABELS, LIGHT_KINDS
from memplan.compiler.report.reasons import StoryTeller
from memplan.compiler.report.report import Contender, Report
from memplan.compiler.report.usage import Usage

# Characters of a name that are shown; what is cut is its middle.
_LONGEST = 400


def page_data(report: Report) -> dict[str, Any]:
    """Returns what the page shows; the same report gives the same values."""
    problem = report.problem
    return {
        "program": _name(problem.name),
        "target": _name(problem.target),
        "clock": problem.clock,
        "bound": report.bound,
        "boundOrigin": _name(report.bound_origin),
        "stopped": None if report.stopped is None else _name(report.stopped),
        "notes": [_name(note) for note in problem.notes],
        "assumptions": [_name(str(assumption)) for assumption in problem.assumptions],
        "spaces": _spaces(report),
        "links": [[link.source, link.destination] for link in problem.links],
        "kinds": [
            {"label": KIND_LABELS[kind], "color": color, "isLight": kind in LIGHT_KINDS}
            for kind, color in KIND_COLORS.items()
        ],
        "loops": _loops(problem),
        "operations": _operations(report),
        "accesses": _accesses(problem),
        "buffers": _buffers(report),
        "plans": [_plan(problem, contender, report.shown) for contender in report.shown],
        "mappings": [
            {"label": _name(contender.label), "latency": contender.latency, "gap": contender.gap}
            for contender in report.contenders
        ],
    }


def _name(text: str) -> str:
    return printable(text, limit=_LONGEST)


def _seconds(values: Iterable[float]) -> list[float | None]:
    """Returns times to six digits, far more than a screen can show; None for what never happens."""
    return [None if value != value else float(f"{value:.6g}") for value in values]


def _differences(values: np.ndarray) -> list[int]:
    """Returns the first value and how each differs from the one before: mostly zeros, which pack well."""
    return np.diff(values, prepend=0).tolist()


def _spaces(report: Report) -> list[dict[str, Any]]:
    """Returns the memories, each as high in the picture of every plan."""
    spaces = []
    for number, space in enumerate(report.problem.spaces):
        height = max(contender.usage[number].height for contender in report.shown)
        ceiling = offset_ceiling(space.capacity, height)
        spaces.append({"name": _name(space.name), "capacity": space.capacity, "ceiling": ceiling})
    return spaces


def _loops(problem: MappingProblem) -> list[dict[str, Any]]:
    return [
        {"start": region.start, "end": region.end, "tripCount": region.trip_count}
        for region in problem.regions
        if region.kind is RegionKind.LOOP and region.start < region.end
    ]


def _operations(report: Report) -> dict[str, Any]:
    problem, operations = report.problem, report.problem.operations
    return {
        "name": [_name(operation.name) for operation in operations],
        "opcode": [_name(operation.opcode) for operation in operations],
        "opName": [_name(source.op_name) for source in report.sources],
        "source": [_name(source.place) for source in report.sources],
        "runs": [problem.runs_at(t) for t in range(problem.end)],
    }


def _accesses(problem: MappingProblem) -> dict[str, Any]:
    accesses = [access for _, access in problem.accesses]
    return {
        "first": list(problem.access_start),
        "buffer": [access.buffer for access in accesses],
        "kind": [access.kind.value for access in accesses],
        "bytes": [access.bytes for access in accesses],
    }


def _buffers(report: Report) -> dict[str, Any]:
    problem, costs, subject = report.problem, report.costs, report.subject
    number_of_kind = {kind: number for number, kind in enumerate(KIND_COLORS)}
    teller = StoryTeller(problem, subject.plan, subject.timeline, subject.usage, costs)
    return {
        "name": [_name(buffer.name) for buffer in problem.buffers],
        "size": [buffer.size for buffer in problem.buffers],
        "kind": [number_of_kind[described.kind] for described in report.buffers],
        "padding": [described.padding for described in report.buffers],
        "shape": [_name(described.shape) for described in report.buffers],
        "opName": [_name(described.op_name) for described in report.buffers],
        "source": [_name(described.source) for described in report.buffers],
        "group": [_name(described.group) for described in report.buffers],
        "why": [_name(described.why_alive) for described in report.buffers],
        "aliases": [[_name(alias) for alias in described.aliases] for described in report.buffers],
        "start": [buffer.start for buffer in problem.buffers],
        "end": [buffer.end for buffer in problem.buffers],
        "lost": _seconds(costs.lost),
        "waited": _seconds(costs.waited),
        "saved": _seconds(costs.saved),
        "reasons": [
            [printable(reason, limit=4 * _LONGEST) for reason in teller.tell(number).reasons]
            for number in range(len(problem.buffers))
        ],
    }


def _plan(problem: MappingProblem, contender: Contender, shown: Sequence[Contender]) -> dict[str, Any]:
    plan, timeline = contender.plan, contender.timeline
    axis = time_axis(problem, timeline)
    residencies, copies = plan.residencies, plan.copies
    others = [other.plan for other in shown if other is not contender]
    return {
        "label": _name(contender.label),
        "latency": contender.latency,
        "stalled": contender.timeline.stalled,
        "gap": contender.gap,
        "copyCount": contender.copies,
        "copiedBytes": contender.copied_bytes,
        "widths": _seconds(np.diff(axis.edges)),
        "waits": _seconds(axis.stalls),
        "residencies": {
            "buffer": [residency.buffer for residency in residencies],
            "space": [residency.space for residency in residencies],
            "offset": [residency.offset for residency in residencies],
            "start": [residency.start for residency in residencies],
            "end": [residency.end for residency in residencies],
            "differs": _differing(plan, others),
        },
        "copies": {
            "source": [copy.source for copy in copies],
            "destination": [copy.destination for copy in copies],
            "start": [copy.start for copy in copies],
            "done": [copy.done for copy in copies],
            "begin": _seconds(axis.at(timeline.begin)),
            "end": _seconds(axis.at(timeline.end)),
            "seconds": _seconds(timeline.end - timeline.begin),
            "link": [_link(problem, plan, number) for number in range(len(copies))],
        },
        "served": list(plan.served),
        "usage": [_usage(used) for used in contender.usage],
    }


def _differing(plan: Plan, others: Sequence[Plan]) -> list[int]:
    """Returns 1 for each residency that serves an access which another plan serves from another memory, else 0."""
    differs = np.zeros(len(plan.residencies), np.int64)
    served = np.array(plan.served, np.int64)
    space = np.array([residency.space for residency in plan.residencies], np.int64)[served]
    for other in others:
        elsewhere = np.array([other.residencies[number].space for number in other.served], np.int64)
        differs[served[space != elsewhere]] = 1
    return differs.tolist()


def _link(problem: MappingProblem, plan: Plan, number: int) -> int:
    """Returns the link that a copy takes; -1 for a copy of the program's previous run."""
    copy = plan.copies[number]
    if copy.start == BEFORE:
        return -1
    spaces = plan.residencies[copy.source].space, plan.residencies[copy.destination].space
    return problem.link_between[spaces]


def _usage(used: Usage) -> dict[str, Any]:
    occupied = used.live + used.reserved
    return {
        "occupied": _differences(occupied),
        "reserved": _differences(used.reserved),
        "peak": used.peak,
        "peakTime": int(np.argmax(occupied)),
        "height": used.height,
    }
