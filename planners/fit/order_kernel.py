"""Local search over the orders in which the nodes may run, for fewer bytes above a limit. Compiled by numba.

A move takes one node to another place between its inputs' producers and its outputs' readers. Only the stages between
the two places change, since the same nodes have run before and after them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.by_reference import by_reference
from memplan.compiler.kernels import entry, internal
from memplan.planners.stays.random_kernel import below

Integers = NDArray[np.int64]


class FitOrder(NamedTuple):
    """An order of the nodes, and the bytes of its stages.

    Attributes:
      size, producer, stays, is_result: `[values]` as in `FitTables`; sizes in bytes.
      workspace, input_start, inputs, output_start, outputs, use_start, uses, pair_start, pair_output, pair_input: as in
        `FitTables`.
      order, position: `[nodes]` the nodes in their order, and where each stands.
      need, left: `[nodes]` bytes of each stage, and bytes that are resident after it, by position.
      last: `[values]` position of the last reader; -1 for none.
      trial_need, trial_left, trial: `[nodes]` those of a move.
      reads: `[values]` scratch, 0 between calls.
      over: `[2]` bytes above the limit, and all bytes, both summed over the stages; doubles.
    """

    size: Integers
    producer: Integers
    stays: NDArray[np.bool_]
    is_result: NDArray[np.bool_]
    workspace: Integers
    input_start: Integers
    inputs: Integers
    output_start: Integers
    outputs: Integers
    use_start: Integers
    uses: Integers
    pair_start: Integers
    pair_output: Integers
    pair_input: Integers
    order: Integers
    position: Integers
    need: Integers
    left: Integers
    last: Integers
    trial_need: Integers
    trial_left: Integers
    trial: Integers
    reads: Integers
    over: NDArray[np.float64]


by_reference(FitOrder)


@internal
def _dies(o: FitOrder, v: int, low: int, high: int) -> bool:
    return not o.stays[v] and not o.is_result[v] and low <= o.last[v] <= high


@internal
def _simulate(o: FitOrder, low: int, high: int, before: int) -> None:
    """Fills the trial's stages of positions `low … high`, given the bytes that are resident before them."""
    for i in range(low, high + 1):
        r = o.trial[i]
        for k in range(o.input_start[r], o.input_start[r + 1]):
            o.reads[o.inputs[k]] += 1
    now = before
    for i in range(low, high + 1):
        r, freed, made = o.trial[i], 0, 0
        for k in range(o.input_start[r], o.input_start[r + 1]):
            v = o.inputs[k]
            o.reads[v] -= 1
            if o.reads[v] == 0 and _dies(o, v, low, high):
                freed += o.size[v]
        shared = 0
        for k in range(o.pair_start[r], o.pair_start[r + 1]):
            v = o.pair_input[k]
            if o.reads[v] == 0 and _dies(o, v, low, high):
                shared = max(shared, min(o.size[v], o.size[o.pair_output[k]]))
        gone = 0
        for k in range(o.output_start[r], o.output_start[r + 1]):
            w = o.outputs[k]
            made += o.size[w]
            if o.last[w] < 0 and not o.is_result[w]:
                gone += o.size[w]
        o.trial_need[i] = now + made + o.workspace[r] - shared
        now += made - gone - freed
        o.trial_left[i] = now


@internal
def _earliest(o: FitOrder, r: int) -> int:
    first = 0
    for k in range(o.input_start[r], o.input_start[r + 1]):
        p = o.producer[o.inputs[k]]
        if p >= 0:
            first = max(first, o.position[p] + 1)
    return first


@internal
def _latest(o: FitOrder, r: int) -> int:
    last = len(o.order) - 1
    for k in range(o.output_start[r], o.output_start[r + 1]):
        w = o.outputs[k]
        for j in range(o.use_start[w], o.use_start[w + 1]):
            last = min(last, o.position[o.uses[j]] - 1)
    return last


@internal
def _set_last(o: FitOrder, r: int) -> None:
    for k in range(o.input_start[r], o.input_start[r + 1]):
        v, last = o.inputs[k], -1
        for j in range(o.use_start[v], o.use_start[v + 1]):
            last = max(last, o.position[o.uses[j]])
        o.last[v] = last


@entry
def fill_order(o: FitOrder, start: int, limit: int) -> None:
    """Fills in all that follows from `order`; `start` bytes are resident before the first node."""
    n = len(o.order)
    for i in range(n):
        o.position[o.order[i]] = i
        o.trial[i] = o.order[i]
    for v in range(len(o.size)):
        o.last[v] = -1
        for j in range(o.use_start[v], o.use_start[v + 1]):
            o.last[v] = max(o.last[v], o.position[o.uses[j]])
    if n > 0:
        _simulate(o, 0, n - 1, start)
    o.over[0], o.over[1] = 0.0, 0.0
    for i in range(n):
        o.need[i], o.left[i] = o.trial_need[i], o.trial_left[i]
        o.over[0] += max(o.need[i] - limit, 0)
        o.over[1] += o.need[i]


@entry
def search_orders(o: FitOrder, start: int, limit: int, work: int, reach: int, random: np.ndarray) -> None:
    """Moves nodes, as long as bytes lie above the limit and there is work left, counted in nodes that are looked at.

    Args:
      o: the order, filled in.
      start: bytes that are resident before the first node.
      limit: bytes.
      work: the most nodes to look at.
      reach: the most places by which a move takes a node.
      random: `[1] uint64`.
    """
    n, done = len(o.order), 0
    while done < work and o.over[0] > 0.0 and n > 1:
        done += 1
        i = below(random, n)
        r = o.order[i]
        first, last = max(_earliest(o, r), i - reach), min(_latest(o, r), i + reach)
        if last <= first:
            continue
        j = first + below(random, last - first + 1)
        low, high = min(i, j), max(i, j)
        done += high - low
        if low == high:
            continue
        step = 1 if j > i else -1
        for k in range(low, high + 1):
            o.trial[k] = o.order[k]
        for k in range(i, j, step):
            o.trial[k] = o.order[k + step]
        o.trial[j] = r
        _simulate(o, low, high, o.left[low - 1] if low > 0 else start)
        over, total = 0.0, 0.0
        for k in range(low, high + 1):
            over += max(o.trial_need[k] - limit, 0) - max(o.need[k] - limit, 0)
            total += o.trial_need[k] - o.need[k]
        if over < 0.0 or (over == 0.0 and total <= 0.0):
            o.over[0] += over
            o.over[1] += total
            for k in range(low, high + 1):
                o.order[k], o.need[k], o.left[k] = o.trial[k], o.trial_need[k], o.trial_left[k]
                o.position[o.order[k]] = k
            for k in range(low, high + 1):
                _set_last(o, o.order[k])
