"""Is everything that a program reads written before? Follows the content of one buffer at a time on every path.

A buffer's content is *written* from a WRITE or an UPDATE on, and that of an argument or a constant from the start of
the program on. It is lost where execution leaves the buffer's live range: one that is dead before a loop ends begins
the next iteration with nothing. An UPDATE may be the first to touch a buffer, since programs allocate memory and fill
it part by part. A READ may not.

    loop        begins with what is written before it and, in every later iteration, also at the end of the one before
    branches    begin alike; written afterwards is what each of them leaves written

Each region is summarized once for both states in which it can begin, so the work is linear in the accesses however
deeply loops nest. This is the definite assignment of a language's compiler (Gosling et al., *The Java Language
Specification*, chapter 16).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from memplan.compiler.analysis.program import AccessKind, RegionKind

NEVER = -1


class _Region(Protocol):
    @property
    def kind(self) -> RegionKind: ...
    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...
    @property
    def parent(self) -> int: ...


@dataclass(slots=True)
class _Effect:
    """What a part of the program does to a buffer that is unwritten (`[0]`) or written (`[1]`) when the part begins.

    Attributes:
      written: whether it is written when the part ends.
      lacking: time of the first READ that may find nothing; NEVER if there is none.
    """

    written: tuple[bool, bool] = (False, True)
    lacking: tuple[int, int] = (NEVER, NEVER)

    def then(self, other: _Effect) -> _Effect:
        """Returns the effect of this part and another one after it."""
        return _Effect(
            (other.written[self.written[0]], other.written[self.written[1]]),
            (
                _first(self.lacking[0], other.lacking[self.written[0]]),
                _first(self.lacking[1], other.lacking[self.written[1]]),
            ),
        )

    def either(self, other: _Effect) -> _Effect:
        """Returns the effect of a conditional that runs this part or another one."""
        return _Effect(
            (self.written[0] and other.written[0], self.written[1] and other.written[1]),
            (_first(self.lacking[0], other.lacking[0]), _first(self.lacking[1], other.lacking[1])),
        )

    def repeated(self, is_carried: bool) -> _Effect:
        """Returns the effect of a loop around this part; `is_carried` tells whether content survives an iteration."""
        if is_carried and self.written[1]:
            return self
        return _Effect((self.written[0], self.written[0]), (self.lacking[0], _first(*self.lacking)))


_WRITES = _Effect((True, True))


def _first(a: int, b: int) -> int:
    return a if b == NEVER else b if a == NEVER else min(a, b)


@dataclass(slots=True)
class _Open:
    """A region that the walk is in: its effect so far, and that of the conditional in it whose branches are walked."""

    region: int
    effect: _Effect
    group: tuple[int, int] | None = None
    branches: int = 0
    either: _Effect | None = None


class Contents:
    """Follows the contents of buffers.

    Args:
      regions: of a FlatProgram or of a MappingProblem, parents before children.
      groups: per region, the number of the conditional of a branch.
      region_of: innermost region of each time.
    """

    def __init__(self, regions: Sequence[_Region], groups: Sequence[int], region_of: Sequence[int]):
        self._regions, self._groups = regions, groups
        # A call runs once, where it stands.
        self._scope: list[int] = []
        for number, region in enumerate(regions):
            is_call = region.kind is RegionKind.CALL and region.parent >= 0
            self._scope.append(self._scope[region.parent] if is_call else number)
        self._region_of = [self._scope[region] for region in region_of]
        self._alternatives: dict[tuple[int, int], int] = {}
        for number, region in enumerate(regions):
            if region.kind is RegionKind.BRANCH:
                group = self._group(number)
                self._alternatives[group] = self._alternatives.get(group, 0) + 1

    def follow(
        self, accesses: Iterable[tuple[int, AccessKind]], live: tuple[int, int], is_written: bool
    ) -> tuple[int, bool]:
        """Returns the time of the first READ of a buffer that may find nothing, and whether it is written at the end.

        Args:
          accesses: `(time, kind)` of its accesses, ascending; of one time, reads before writes.
          live: its live range.
          is_written: whether it has content when the program starts.
        """
        stack = [_Open(0, _Effect())]
        for time, kind in accesses:
            self._enter(stack, self._region_of[time], live)
            top = stack[-1]
            self._close_conditional(top)
            if kind is AccessKind.READ:
                top.effect = top.effect.then(_Effect(lacking=(time, NEVER)))
            else:
                top.effect = top.effect.then(_WRITES)
        while len(stack) > 1:
            self._leave(stack, live)
        self._close_conditional(stack[0])
        effect = stack[0].effect
        return effect.lacking[is_written], effect.written[is_written]

    def _enter(self, stack: list[_Open], region: int, live: tuple[int, int]) -> None:
        """Leaves and enters regions until `region` is the innermost one."""
        if stack[-1].region == region:
            return
        around = {entry.region for entry in stack}
        inner = []
        while region not in around:
            inner.append(region)
            region = self._parent(region)
        while stack[-1].region != region:
            self._leave(stack, live)
        for number in reversed(inner):
            top = stack[-1]
            is_branch = self._regions[number].kind is RegionKind.BRANCH
            if not is_branch or top.group != self._group(number):
                self._close_conditional(top)
                top.group = self._group(number) if is_branch else None
            stack.append(_Open(number, _Effect()))

    def _leave(self, stack: list[_Open], live: tuple[int, int]) -> None:
        """Closes the innermost region, and adds its effect to the one around it."""
        inner, around = stack.pop(), stack[-1]
        self._close_conditional(inner)
        region = self._regions[inner.region]
        if region.kind is RegionKind.BRANCH:
            around.branches += 1
            around.either = inner.effect if around.either is None else around.either.either(inner.effect)
            return
        effect = inner.effect
        if region.kind is RegionKind.LOOP:
            effect = effect.repeated(live[0] <= region.start and region.end <= live[1])
        around.effect = around.effect.then(effect)

    def _close_conditional(self, entry: _Open) -> None:
        """Adds the effect of a conditional whose branches have all been walked; the others leave the buffer alone."""
        if entry.either is not None and entry.group is not None:
            either = entry.either
            if entry.branches < self._alternatives[entry.group]:
                either = either.either(_Effect())
            entry.effect = entry.effect.then(either)
        entry.group, entry.branches, entry.either = None, 0, None

    def _parent(self, region: int) -> int:
        return self._scope[self._regions[region].parent]

    def _group(self, number: int) -> tuple[int, int]:
        return self._parent(number), self._groups[number]
