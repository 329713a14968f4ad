"""What stands in a memory at its peak: buffers in groups, which add up to the peak to the byte.

`memplan peak` finds it in a module, and fit in a plan that is too large; both show it with the same words.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from memplan.compiler.html import html_table
from memplan.compiler.ir import Source
from memplan.compiler.printable import from_here
from memplan.compiler.report.buffers import BufferDescription
from memplan.compiler.report.units import print_bytes

# Groups of a memory that a notebook lists.
_MOST_LISTED = 16


@dataclass(frozen=True)
class StandingBuffer:
    """A buffer in use at a peak.

    Attributes:
      storage: index in the flattened program; of a value in the problem of fit.
      bytes: that it takes; 0 for a result in the memory of an operand that ends with the operation at the peak.
      description: what a person may know of it.
    """

    storage: int
    bytes: int
    description: BufferDescription


@dataclass(frozen=True)
class StandingGroup:
    """Buffers in use at a peak that have something in common.

    Attributes:
      label: what they have in common.
      bytes: of all.
      padding: bytes of these that hold no element.
      buffers: the largest first.
    """

    label: str
    bytes: int
    padding: int
    buffers: tuple[StandingBuffer, ...]


@dataclass(frozen=True)
class MemoryPeak:
    """The peak of one memory.

    Attributes:
      name: of the memory.
      number: XLA's number of it.
      capacity: bytes; None where the target does not model it.
      bytes: most that are in use at one time: of all buffers, and what the operation keeps for itself.
      time: the first step at which they are; the number of steps for the moment after the last.
      num_steps: of the program.
      operation: its name; "" if these bytes are there at no particular step.
      source: where it comes from.
      reserved: bytes that it keeps for itself.
      groups: what is in use then, the largest first.
      to_come: bytes of results that are not made yet; a runtime that allocates results beforehand holds these as well.
    """

    name: str
    number: int
    capacity: int | None
    bytes: int
    time: int
    num_steps: int
    operation: str
    source: Source
    reserved: int
    groups: tuple[StandingGroup, ...]
    to_come: int

    def _repr_html_(self) -> str:
        columns = {"bytes": "right", "share": "right", "group": "left", "": "right", "kind": "left", "shape": "left"}
        columns |= {"line": "left", "alive because": "left"}
        rows = []
        for group in self.groups[:_MOST_LISTED]:
            first = group.buffers[0].description
            count = f"×{len(group.buffers)}" if len(group.buffers) > 1 else ""
            facts = (first.kind.value, first.shape, from_here(first.source), first.why_alive)
            rows.append([*self._size(group.bytes), from_here(group.label), count, *facts])
        if rest := self.groups[_MOST_LISTED:]:
            size = self._size(sum(group.bytes for group in rest))
            rows.append([*size, f"{len(rest):,} smaller", f"×{sum(len(group.buffers) for group in rest)}", *[""] * 4])
        if self.reserved:
            rows.append([*self._size(self.reserved), f"scoped memory of {self.operation}", "", "scoped", *[""] * 3])
        rows.append([*self._size(self.bytes), "in all", *[""] * 5])
        when = f" at the peak, at {self.operation} (step {self.time:,} of {self.num_steps:,})" if self.operation else ""
        return html_table(f"{self.name}: {print_bytes(self.bytes)}{when}", columns, rows)

    def _size(self, size: int) -> tuple[str, str]:
        return print_bytes(size), f"{100 * size / max(self.bytes, 1):.1f} %"


def groups_of(buffers: Iterable[StandingBuffer], labels: Sequence[str]) -> tuple[StandingGroup, ...]:
    """Returns buffers with the same label as one group, the largest first.

    Args:
      buffers: all that stand at a peak.
      labels: one for each.
    """
    members: dict[str, list[StandingBuffer]] = defaultdict(list)
    for buffer, label in zip(buffers, labels, strict=True):
        members[label].append(buffer)
    groups = []
    for label, alike in members.items():
        alike.sort(key=lambda buffer: -buffer.bytes)
        padding = sum(min(buffer.description.padding, buffer.bytes) for buffer in alike)
        groups.append(StandingGroup(label, sum(buffer.bytes for buffer in alike), padding, tuple(alike)))
    return tuple(sorted(groups, key=lambda group: -group.bytes))
