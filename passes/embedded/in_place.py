"""Ways in which a step may write over what it reads for the last time.

A step's iterations are cut into parts. A part may be written when all that it reads has been read, and when it does not
touch what later parts read:

- *rows*: parts are the iterations of some outer loops. In memory, the parts of the result and of what is read lie one
  after another. Going up, a part ends before the next part to be read begins; going down, where the result is larger,
  it begins behind what is left to read. Element-wise steps and pointwise convolutions are of this kind.
- *slices*: parts are the iterations of a loop whose elements lie at the same places modulo its extent in both buffers,
  as the channels of a depthwise convolution do in an image with channels last (Lin et al., "On-device training under
  256KB memory", 2022, and its TinyEngine, where it is called in-place depthwise convolution). A part may be several
  such iterations: that takes as many times the workspace, and less time, as several results are computed at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from memplan.compiler.embedded.affine import AffineIndex
from memplan.compiler.embedded.expressions import Element, Reduction
from memplan.compiler.embedded.products import RESULTS_AT_ONCE, product_sums
from memplan.compiler.embedded.program import ALIGNMENT, EmbeddedBuffer, InPlaceWay, LoopNest, StorageKind


def with_in_place(step: LoopNest, buffers: Sequence[EmbeddedBuffer]) -> LoopNest:
    """Returns the step with the ways in which it may write over what it reads; those of least workspace first."""
    found = []
    for number, store in enumerate(step.stores):
        result = buffers[store.buffer]
        if result.kind not in (StorageKind.TEMPORARY, StorageKind.RESULT) or result.is_packed:
            continue
        for read in step.reads:
            buffer = buffers[read]
            if buffer.kind in (StorageKind.TEMPORARY, StorageKind.INPUT) and not buffer.is_packed:
                way = next(_ways(step, number, read, buffers), None)
                ways = [] if way is None else [way, *_wider(step, way)]
                found += [each for each in ways if each.workspace < min(buffer.size, result.size)]
    found.sort(
        key=lambda way: way.workspace - min(buffers[way.buffer].size, buffers[step.stores[way.store].buffer].size)
    )
    return replace(step, in_place=tuple(found))


def saved_bytes(way: InPlaceWay, step: LoopNest, buffers: Sequence[EmbeddedBuffer]) -> int:
    """Returns the bytes that a step needs less if it writes in place."""
    return min(buffers[way.buffer].size, buffers[step.stores[way.store].buffer].size) - way.workspace


def _ways(step: LoopNest, number: int, read: int, buffers: Sequence[EmbeddedBuffer]) -> Iterator[InPlaceWay]:
    store = step.stores[number]
    loads = {each.index for each in step.expressions if isinstance(each, Element) and each.buffer == read}
    sizes = buffers[store.buffer].item_size, buffers[read].item_size
    for num_outer in range(len(step.loops), -1, -1):
        part = math.prod(step.loops[num_outer:])
        for is_descending in (False, True):
            if _is_by_rows(step, store.index, loads, sizes, num_outer, is_descending):
                yield InPlaceWay(number, read, num_outer, is_descending, workspace=_workspace(part, sizes[0]))
    if sizes[0] == sizes[1]:
        for k, extent in enumerate(step.loops):
            if _is_by_slices([store.index, *loads], k, extent):
                part = math.prod(step.loops) // extent
                yield InPlaceWay(number, read, 1, slices=k, workspace=_workspace(part, sizes[0]))


def _wider(step: LoopNest, way: InPlaceWay) -> Iterator[InPlaceWay]:
    """Yields a way by wider slices, if the step sums products that several results have side by side."""
    if way.slices is None or step.loops[way.slices] < RESULTS_AT_ONCE:
        return
    for each in step.expressions:
        found = product_sums(each) if isinstance(each, Reduction) else ()
        factors = [factor for one in found for factor in one.factors]
        if factors and all(factor.element.index.coefficient(way.slices) == 1 for factor in factors):
            yield replace(way, width=RESULTS_AT_ONCE, workspace=RESULTS_AT_ONCE * way.workspace)
            return


def _workspace(part: int, item_size: int) -> int:
    return 0 if part == 1 else -(-part * item_size // ALIGNMENT) * ALIGNMENT


def _is_by_rows(
    step: LoopNest,
    stored: AffineIndex,
    loads: set[AffineIndex],
    sizes: tuple[int, int],
    num_outer: int,
    is_descending: bool,
) -> bool:
    """Whether a part can be written without touching what later parts read, for every pair of parts."""
    if num_outer == 0:
        return False  # All of the result would be a workspace.
    outer = set(range(num_outer))
    for index in (stored, *loads):
        if not index.is_linear or any(index.coefficient(k) < 0 for k in outer):
            return False
    # Outer loops are compared in their order: those inside one must not run past the next value of it. Index is
    # nested if the parts follow one another in memory in the order of the loops.
    if not all(_is_nested(index, step.loops, num_outer) for index in (stored, *loads)):
        return False
    return all(_is_clear(stored, index, step.loops[:num_outer], sizes, is_descending) for index in loads)


def _rest(index: AffineIndex, outer: set[int]) -> tuple[int, int]:
    """Returns the least and greatest value of an index without its outer loops."""
    return index.without(outer).bounds


def _is_nested(index: AffineIndex, loops: Sequence[int], num_outer: int) -> bool:
    """Whether a later iteration of the outer loops never has a smaller value than an earlier one."""
    inside = 0
    for k in range(num_outer - 1, -1, -1):
        coefficient = index.coefficient(k)
        if coefficient < inside:
            return False
        inside += coefficient * (loops[k] - 1)
    return True


def _is_clear(
    stored: AffineIndex, index: AffineIndex, extents: Sequence[int], sizes: tuple[int, int], is_descending: bool
) -> bool:
    """Whether what is stored for each part is clear of what is loaded for all later ones.

    Both grow with the parts, so the next part is the nearest one. The step from a part to the next adds the coefficient
    of one loop and takes back the whole range of the loops inside it. The difference between the addresses is linear in
    the loops, so it is least at their ends.
    """
    outer = set(range(len(extents)))
    store_low, store_high = _rest(stored, outer)
    load_low, load_high = _rest(index, outer)
    for k in range(len(extents)):
        # From a part to the next one: loop k goes up by one, the loops inside it from their ends to their starts.
        ends = [(0, extents[j] - 1) for j in range(k)] + [(0, extents[k] - 2)]
        for corner in _corners(ends):
            first = [*corner, *(extents[j] - 1 for j in range(k + 1, len(extents)))]
            second = [*corner[:-1], corner[-1] + 1, *(0 for _ in range(k + 1, len(extents)))]
            here, there = (second, first) if is_descending else (first, second)
            store = sum(stored.coefficient(j) * i for j, i in enumerate(here))
            load = sum(index.coefficient(j) * i for j, i in enumerate(there))
            if is_descending:
                if (store + store_low) * sizes[0] < (load + load_high + 1) * sizes[1]:
                    return False
            elif (store + store_high + 1) * sizes[0] > (load + load_low) * sizes[1]:
                return False
    return True


def _corners(ends: Sequence[tuple[int, int]]) -> Iterator[list[int]]:
    if not ends:
        yield []
        return
    for first in sorted(set(ends[0])):
        for rest in _corners(ends[1:]):
            yield [first, *rest]


def _is_by_slices(found: Sequence[AffineIndex], k: int, extent: int) -> bool:
    """Whether iterations of loop k have elements of their own, at the same places modulo a number in all indices."""
    stride = found[0].coefficient(k)
    modulus = stride * extent
    if stride < 1 or extent < 2:
        return False
    for index in found:
        if index.coefficient(k) != stride or index.constant % modulus:
            return False
        for atom, coefficient in index.terms:
            if getattr(atom, "number", None) == k:
                continue
            if coefficient % modulus or (hasattr(atom, "dividend") and k in atom.dividend.loops):
                return False
    return True
