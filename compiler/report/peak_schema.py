"""The peaks of a program for machines: JSON of the schema `memplan.peak/1`, described in docs/formats.md.

Fields are added within a version, never renamed or taken away.
"""

from __future__ import annotations

from typing import Any

from memplan.compiler.report.peak import Peak
from memplan.compiler.report.relief import Way
from memplan.compiler.report.standing import MemoryPeak, StandingGroup

SCHEMA = "memplan.peak/1"


def peak_json(peak: Peak) -> dict[str, Any]:
    """Returns the peaks as JSON values. Sizes are bytes, times seconds."""
    return {
        "schema": SCHEMA,
        "program": peak.program,
        "target": peak.target,
        "by": peak.by.value,
        "steps": peak.num_steps,
        "limit": peak.limit,
        "needed": peak.needed,
        "fits": peak.fits,
        "notes": list(peak.notes),
        "memories": [memory_json(memory) for memory in peak.memories],
        "reliefs": [
            {
                "group": relief.label,
                "bytes": relief.bytes,
                "without": relief.without,
                "recompute": {**_way(relief.recompute), "operations": relief.recompute.operations},
                "host": {**_way(relief.host), "passing": relief.host.passing},
                "donate": _way(relief.donate),
                "cheapest": None if (found := relief.cheapest(peak.main.bytes)) is None else found[0],
            }
            for relief in peak.reliefs
        ],
        "donations": [{"argument": name, "bytes": donation.size} for name, donation in peak.donations],
        "needed_if_donated": peak.donated,
        "peak_if_reordered": peak.reordered,
        "stated": None
        if peak.statement is None
        else {
            "by": peak.statement.by,
            "total": peak.statement.total,
            "idle": peak.statement.idle,
            "uncounted": peak.statement.uncounted,
            "parts": [{"kind": part.kind, "bytes": part.bytes, "idle": part.idle} for part in peak.statement.parts],
        },
    }


def memory_json(memory: MemoryPeak) -> dict[str, Any]:
    """Returns what stands at the peak of a memory as JSON values."""
    return {
        "name": memory.name,
        "capacity": memory.capacity,
        "peak": memory.bytes,
        "step": memory.time,
        "operation": memory.operation,
        "op_name": memory.source.op_name,
        "file": memory.source.file,
        "line": memory.source.line,
        "reserved": memory.reserved,
        "results_to_come": memory.to_come,
        "groups": [_group(group) for group in memory.groups],
    }


def _group(group: StandingGroup) -> dict[str, Any]:
    return {
        "group": group.label,
        "bytes": group.bytes,
        "padding": group.padding,
        "buffers": [
            {
                "name": buffer.description.name,
                "bytes": buffer.bytes,
                "size": buffer.description.size,
                "padding": buffer.description.padding,
                "shape": buffer.description.shape,
                "kind": buffer.description.kind.value,
                "op_name": buffer.description.op_name,
                "file": buffer.description.file,
                "line": buffer.description.line,
                "producer": buffer.description.producer,
                "last_use": buffer.description.last_use,
                "aliases": list(buffer.description.aliases),
            }
            for buffer in group.buffers
        ],
    }


def _way(way: Way) -> dict[str, Any]:
    return {"buffers": way.buffers, "peak": way.peak, "seconds": way.seconds, "obstacle": way.obstacle}
