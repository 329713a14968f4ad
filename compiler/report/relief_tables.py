"""What would relieve a peak as rows of a table, for terminals and for notebooks."""

from __future__ import annotations

from collections.abc import Sequence

from memplan.compiler.report.relief import Relief, Way
from memplan.compiler.report.standing import StandingGroup
from memplan.compiler.report.units import print_bytes, print_seconds

_CHEAPEST = "cheapest way to lower it"
_VERBS = {"donate": "donate", "recompute": "compute again", "host": "move to the host"}


def relief_columns(reliefs: Sequence[Relief], peak: int, with_all: bool = True) -> dict[str, str]:
    """Returns the titles of the columns, and whether they are aligned "left" or "right".

    Args:
      reliefs: of the largest groups.
      peak: bytes.
      with_all: whether the ways are told as well that are not the cheapest ones.
    """
    columns = {f"the peak of {print_bytes(peak)} would be": "left", "without it": "right", _CHEAPEST: "left"}
    if with_all:
        columns |= {"if computed again": "left"}
        if any(relief.host.buffers for relief in reliefs):
            columns |= {"if on the host meanwhile": "left"}
    return columns


def relief_rows(
    reliefs: Sequence[Relief], groups: Sequence[StandingGroup], peak: int, with_all: bool = True
) -> list[list[str]]:
    """Returns a row of texts for each relief.

    Args:
      reliefs: of the largest groups.
      groups: these, and smaller ones.
      peak: bytes.
      with_all: as for `relief_columns`.
    """
    rows = []
    with_host = any(relief.host.buffers for relief in reliefs)
    for relief, group in zip(reliefs, groups, strict=False):
        count = len(group.buffers)
        row = [relief.label, print_bytes(relief.without), _cheapest(relief, count, peak)]
        if with_all:
            row.append(_way(relief.recompute, count, peak, _cost_of_recomputation(relief.recompute)))
            if with_host:
                row.append(_way(relief.host, count, peak, _cost_of_copies(relief.host)))
        rows.append(row)
    return rows


def _cheapest(relief: Relief, count: int, peak: int) -> str:
    found = relief.cheapest(peak)
    if found is None:
        return "none"
    name, way = found
    cost = f"{print_bytes(peak - way.peak)} less for {print_seconds(way.added_seconds)}"
    return f"{_VERBS[name]}: {_way(way, count, peak, cost)}"


def _cost_of_recomputation(way: Way) -> str:
    return f"+{print_seconds(way.seconds)} for {way.operations:,} operation{'s' if way.operations > 1 else ''}"


def _cost_of_copies(way: Way) -> str:
    return f"{print_seconds(way.seconds)} of copies in {print_seconds(way.passing)}"


def _way(way: Way, count: int, before: int, cost: str) -> str:
    if way.buffers == 0:
        return f"– {way.obstacle}"
    if way.peak >= before:
        return "no lower"
    some = "" if way.buffers == count else f" ({way.buffers} of {count}; others: {way.obstacle})"
    return f"{print_bytes(way.peak)}, {cost}{some}"
