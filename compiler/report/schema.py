"""The report for machines: JSON of the schema `memplan.report/1`, described in docs/formats.md.

Fields are added within a version, never renamed or taken away.
"""

from __future__ import annotations

from typing import Any

from memplan.compiler.report.report import Contender, Report

SCHEMA = "memplan.report/1"


def report_json(report: Report) -> dict[str, Any]:
    """Returns the report as JSON values. Sizes are bytes; times are seconds unless the field says cycles."""
    problem = report.problem
    return {
        "schema": SCHEMA,
        "program": {"name": problem.name, "operations": problem.end, "buffers": len(problem.buffers)},
        "target": {
            "name": problem.target,
            "clock": problem.clock,
            "spaces": [{"name": space.name, "capacity": space.capacity} for space in problem.spaces],
        },
        "assumptions": [
            {"loop": assumption.loop, "trip_count": assumption.trip_count, "reason": assumption.reason}
            for assumption in problem.assumptions
        ],
        "notes": list(problem.notes),
        "bound": report.bound,
        "bound_by": report.bound_by,
        "bound_checked": report.bound_checked,
        "mappings": [_mapping(report, contender) for contender in report.contenders],
        "plan": report.contenders.index(report.subject),
        "buffers": [
            {
                "name": story.name,
                "size": story.size,
                "kind": story.kind,
                "spaces": list(story.places),
                "lost": story.lost,
                "waited": story.waited,
                "saved": story.saved,
                "reasons": list(story.reasons),
                "shape": report.buffers[story.buffer].shape,
                "op_name": report.buffers[story.buffer].op_name,
                "file": report.buffers[story.buffer].file,
                "line": report.buffers[story.buffer].line,
                "group": report.buffers[story.buffer].group,
            }
            for story in report.stories
        ],
        "groups": [
            {
                "group": group.label,
                "buffers": [problem.buffers[number].name for number in group.buffers],
                "lost": group.lost,
                "waited": group.waited,
                "saved": group.saved,
                "most_costly": group.story.name,
                "reasons": list(group.story.reasons),
            }
            for group in report.groups
        ],
    }


def _mapping(report: Report, contender: Contender) -> dict[str, Any]:
    problem = report.problem
    return {
        "label": contender.label,
        "planner": contender.plan.planner,
        "latency": contender.latency,
        "latency_cycles": round(contender.latency * problem.clock) if problem.clock else None,
        "gap": contender.gap,
        "stalled": contender.timeline.stalled,
        "copies": contender.copies,
        "copied_bytes": contender.copied_bytes,
        "spaces": [
            {"name": space.name, "peak": used.peak, "height": used.height}
            for space, used in zip(problem.spaces, contender.usage, strict=True)
        ],
        "info": contender.plan.info,
    }
