"""New states take the place of old ones, and the steps get an order in which each reads what it is meant to read."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import replace

from memplan.compiler.embedded.expressions import Builder, Element, Reduction, rebuilt, walk
from memplan.compiler.embedded.program import ElementStore, LoopNest


def updated_in_place(steps: Sequence[LoopNest], targets: Mapping[int, int]) -> tuple[list[LoopNest], dict[int, int]]:
    """Returns the steps with new states written over old ones where that is possible, and which these are.

    It is possible where each element is read, if at all, by the iteration that writes it, and where all other readers
    of the old state may run before that.

    Args:
      steps: each after those that compute what it reads; no buffer is written twice.
      targets: the old state that each buffer with a new one may be written over.
    """
    moved: dict[int, int] = {}
    order = list(range(len(steps)))
    for new, state in targets.items():
        if _is_pointwise(steps, new, state):
            tried = _sorted(steps, {**moved, new: state})
            if tried is not None:
                moved[new] = state
                order = tried
    return [with_buffers(steps[k], moved) for k in order], moved


def with_buffers(step: LoopNest, buffers: Mapping[int, int]) -> LoopNest:
    """Returns a step with other buffers in the place of some."""
    if not any(b in buffers for b in (*step.reads, *step.writes)):
        return step
    builder = Builder()
    stores = tuple(
        ElementStore(
            buffers.get(store.buffer, store.buffer), store.index, rebuilt(store.value, builder, buffers=buffers)
        )
        for store in step.stores
    )
    return replace(step, stores=stores)


def _is_pointwise(steps: Sequence[LoopNest], new: int, state: int) -> bool:
    """Whether the step that makes a new state reads of the old one only the element that it writes."""
    writer = next(step for step in steps if new in step.writes)
    index = next(store.index for store in writer.stores if store.buffer == new)
    for each in writer.expressions:
        if isinstance(each, Element) and each.buffer == state and each.index != index:
            return False
        if isinstance(each, Reduction):
            if any(isinstance(inner, Element) and inner.buffer == state for inner in walk(each)):
                return False
    return True


def _sorted(steps: Sequence[LoopNest], moved: Mapping[int, int]) -> list[int] | None:
    """Returns an order of the steps, as close to the given one as possible; None if there is none.

    Args:
      steps: that write each buffer once.
      moved: new states that are written over old ones.
    """
    writer = {b: k for k, step in enumerate(steps) for b in step.writes}
    after: list[set[int]] = [set() for _ in steps]
    for k, step in enumerate(steps):
        for b in step.reads:
            if b in writer:
                after[writer[b]].add(k)
    readers: dict[int, list[int]] = {}
    for k, step in enumerate(steps):
        for b in step.reads:
            readers.setdefault(b, []).append(k)
    for new, state in moved.items():
        for k in readers.get(state, ()):
            if k != writer[new]:
                after[k].add(writer[new])
    waits = [0] * len(steps)
    for followers in after:
        for k in followers:
            waits[k] += 1
    ready = [k for k, count in enumerate(waits) if count == 0]
    order: list[int] = []
    while ready:
        k = heapq.heappop(ready)
        order.append(k)
        for follower in after[k]:
            waits[follower] -= 1
            if waits[follower] == 0:
                heapq.heappush(ready, follower)
    return order if len(order) == len(steps) else None
