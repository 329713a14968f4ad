"""Constants stored so that sums run through contiguous bytes.

JAX keeps the weights of convolutions and dense layers with the output channels last. A sum over input channels reads
them with a stride then, while four products at a time (`backends/c/sum_functions.py`) want them side by side. A
constant's place in flash is ours to choose, so its dimensions are permuted: those that are summed over come last, in
the order of the loops. Nothing but the order of bytes changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from memplan.compiler.embedded.affine import AffineIndex, flat_index, split_index
from memplan.compiler.embedded.expressions import Builder, Element, Reduction, rebuilt
from memplan.compiler.embedded.products import ProductSum, product_sums
from memplan.compiler.embedded.program import ElementStore, EmbeddedProgram, LoopNest, StorageKind


def with_contiguous_constants(program: EmbeddedProgram) -> EmbeddedProgram:
    """Returns the program with constants permuted where all int8 sums that read one want the same order.

    A constant of which some index mixes dimensions stays as it is. Sums of floats do not ask for an order: four of them
    at a time read a row of weights as fast in either.
    """
    wanted: dict[int, set[tuple[int, ...]]] = {}
    fixed: set[int] = set()
    for step in program.steps:
        for each in step.expressions:
            if isinstance(each, Element) and _digits(program, each) is None:
                fixed.add(each.buffer)
            for found in product_sums(each) if isinstance(each, Reduction) and each.dtype == "int32" else ():
                for buffer, order in _orders(program, found):
                    wanted.setdefault(buffer, set()).add(order)
    chosen = {b: next(iter(orders)) for b, orders in wanted.items() if len(orders) == 1 and b not in fixed}
    chosen = {b: order for b, order in chosen.items() if order != tuple(sorted(order))}
    buffers = list(program.buffers)
    for b, order in chosen.items():
        shape = tuple(buffers[b].shape[k] for k in order)
        buffers[b] = replace(buffers[b], shape=shape, value=np.ascontiguousarray(np.transpose(buffers[b].value, order)))
    layouts = {b: _layout(program.buffers[b].shape, order) for b, order in chosen.items()}
    steps = tuple(_relaid(step, layouts) if layouts.keys() & set(step.reads) else step for step in program.steps)
    return replace(program, buffers=tuple(buffers), steps=steps)


def _digits(program: EmbeddedProgram, element: Element) -> tuple[AffineIndex, ...] | None:
    """Returns the index of a constant's element in each dimension; None if dimensions are mixed in it."""
    buffer = program.buffers[element.buffer]
    if buffer.kind is not StorageKind.CONSTANT or not buffer.shape:
        return None
    digits = split_index(element.index, buffer.shape)
    for digit, size in zip(digits, buffer.shape, strict=True):
        if not digit.is_linear or digit.bounds[0] < 0 or digit.bounds[1] >= size:
            return None
    return digits


def _orders(program: EmbeddedProgram, found: ProductSum) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yields `(constant, order of its dimensions)` that a sum asks for."""
    rank = {loop.number: k for k, loop in enumerate(found.loops)}
    for own, other in (found.factors, found.factors[::-1]):
        digits = _digits(program, own.element)
        if digits is None or other.element.index.coefficient(found.loops[-1].number) != 1:
            continue
        places = []
        for k, digit in enumerate(digits):
            summed = {number for number in digit.loops if number in rank}
            if len(summed) > 1 or (summed and digit.loops - summed):
                break  # A dimension along which both the sum and the result go stays where it is.
            places.append((rank[next(iter(summed))] if summed else -1, k))
        else:
            yield own.element.buffer, tuple(k for _, k in sorted(places))


def _layout(shape: tuple[int, ...], order: tuple[int, ...]) -> Callable[[AffineIndex], AffineIndex]:
    def changed(index: AffineIndex) -> AffineIndex:
        digits = split_index(index, shape)
        return flat_index([digits[k] for k in order], [shape[k] for k in order])

    return changed


def _relaid(step: LoopNest, layouts: dict[int, Callable[[AffineIndex], AffineIndex]]) -> LoopNest:
    builder = Builder()
    stores = tuple(ElementStore(s.buffer, s.index, rebuilt(s.value, builder, layouts=layouts)) for s in step.stores)
    return replace(step, stores=stores)
