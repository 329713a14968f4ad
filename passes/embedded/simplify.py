"""Loops of a step made few: neighbouring loops that run through memory as one are one loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from memplan.compiler.embedded.affine import AffineIndex, LoopIndex, variable
from memplan.compiler.embedded.expressions import Builder, Expression, Reduction, indices, rebuilt
from memplan.compiler.embedded.program import ElementStore, LoopNest


def simplified(step: LoopNest) -> LoopNest:
    """Returns a step without loops that run once, and with loops joined where every index allows it."""
    step = _renamed(step)
    while (joined := _joined(step)) is not None:
        step = joined
    return step


def _all_indices(step: LoopNest) -> list[AffineIndex]:
    return [store.index for store in step.stores] + [i for each in step.expressions for i in indices(each)]


def _reductions(step: LoopNest) -> Iterator[Reduction]:
    return (each for each in step.expressions if isinstance(each, Reduction))


def _renamed(step: LoopNest) -> LoopNest:
    """Returns a step without loops that run once; all loops get consecutive numbers."""
    outer = [k for k, extent in enumerate(step.loops) if extent > 1]
    numbers = {old: new for new, old in enumerate(outer)}
    for each in _reductions(step):
        for loop in each.loops:
            numbers.setdefault(loop.number, len(numbers))
    loops = tuple(step.loops[k] for k in outer)
    if all(old == new for old, new in numbers.items()):
        return replace(step, loops=loops)
    return _replaced(step, loops, lambda loop: variable(numbers[loop.number], loop.extent), _number_of(numbers))


def _number_of(numbers: dict[int, int]) -> Callable[[tuple[LoopIndex, ...]], tuple[LoopIndex, ...]]:
    return lambda loops: tuple(LoopIndex(numbers[loop.number], loop.extent) for loop in loops)


def _replaced(
    step: LoopNest,
    loops: tuple[int, ...],
    value: Callable[[LoopIndex], AffineIndex],
    inner: Callable[[tuple[LoopIndex, ...]], tuple[LoopIndex, ...]] = lambda loops: loops,
) -> LoopNest:
    builder = Builder()
    known: dict[AffineIndex, AffineIndex] = {}

    def changed(index: AffineIndex) -> AffineIndex:
        if index not in known:
            known[index] = index.replaced(value)
        return known[index]

    def rebuilt_one(expression: Expression) -> Expression:
        return rebuilt(expression, builder, changed, inner)

    stores = tuple(ElementStore(s.buffer, changed(s.index), rebuilt_one(s.value)) for s in step.stores)
    return replace(step, loops=loops, stores=stores)


def _joined(step: LoopNest) -> LoopNest | None:
    """Returns the step with two loops made one; None if no two can be."""
    found = _all_indices(step)
    for k in range(len(step.loops) - 1):
        if _can_join(found, k, k + 1, step.loops[k + 1]):
            joined = variable(k, step.loops[k] * step.loops[k + 1])
            quotient, rest = joined.divided(step.loops[k + 1])
            loops = (*step.loops[:k], step.loops[k] * step.loops[k + 1], *step.loops[k + 2 :])
            values = {k: quotient, k + 1: rest}
            return _renamed_gap(_replaced(step, loops, _value(values)), k + 1)
    for each in _reductions(step):
        for outer, inner in zip(each.loops, each.loops[1:], strict=False):
            if each.combine not in ("argmax", "argmin") and _can_join(found, outer.number, inner.number, inner.extent):
                joined_loop = LoopIndex(outer.number, outer.extent * inner.extent)
                quotient, rest = AffineIndex(0, ((joined_loop, 1),)).divided(inner.extent)
                values = {outer.number: quotient, inner.number: rest}
                return _replaced(step, step.loops, _value(values), _without(outer, inner, joined_loop))
    return None


def _value(values: dict[int, AffineIndex]) -> Callable[[LoopIndex], AffineIndex]:
    return lambda loop: values[loop.number] if loop.number in values else variable(loop.number, loop.extent)


def _without(
    outer: LoopIndex, inner: LoopIndex, joined: LoopIndex
) -> Callable[[tuple[LoopIndex, ...]], tuple[LoopIndex, ...]]:
    return lambda loops: tuple(joined if loop == outer else loop for loop in loops if loop != inner)


def _renamed_gap(step: LoopNest, gone: int) -> LoopNest:
    """Returns a step in which loops above a number that is gone move down by one."""
    numbers = {}
    for number in [*range(len(step.loops) + 1), *(loop.number for each in _reductions(step) for loop in each.loops)]:
        numbers[number] = number - 1 if number > gone else number
    return _replaced(step, step.loops, lambda loop: variable(numbers[loop.number], loop.extent), _number_of(numbers))


def _can_join(found: Sequence[AffineIndex], outer: int, inner: int, extent: int) -> bool:
    """Whether each index has the outer loop times `extent` wherever it has the inner one, and no part of it alone."""
    return all(_has_both(index, outer, inner, extent) for index in set(found))


def _has_both(index: AffineIndex, outer: int, inner: int, extent: int) -> bool:
    if index.coefficient(outer) != index.coefficient(inner) * extent:
        return False
    return all(isinstance(atom, LoopIndex) or _has_both(atom.dividend, outer, inner, extent) for atom, _ in index.terms)
