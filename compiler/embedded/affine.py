"""Affine indices: sums of loop variables times constants, and of quotients and remainders of such sums.

A view of a buffer is an index like this into its elements, so a transpose, a slice, a reversal or a broadcast costs
nothing. Where a reshape splits or joins dimensions unevenly, a quotient or a remainder is left.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class LoopIndex:
    """A loop variable that runs from 0 to below its extent.

    Attributes:
      number: place in the step's loops.
      extent: at least 1.
    """

    number: int
    extent: int

    @property
    def bounds(self) -> tuple[int, int]:
        """The least and the greatest value."""
        return 0, self.extent - 1


@dataclass(frozen=True)
class Quotient:
    """`floor(dividend / divisor)`; the divisor is positive, and the dividend is not negative wherever it is used."""

    dividend: AffineIndex
    divisor: int

    @cached_property
    def bounds(self) -> tuple[int, int]:
        """The least and the greatest value."""
        low, high = self.dividend.bounds
        return low // self.divisor, high // self.divisor


@dataclass(frozen=True)
class Remainder:
    """`dividend mod divisor`, from 0 to below the divisor, which is positive."""

    dividend: AffineIndex
    divisor: int

    @property
    def bounds(self) -> tuple[int, int]:
        """The least and the greatest value."""
        return 0, self.divisor - 1


Atom = LoopIndex | Quotient | Remainder


@dataclass(frozen=True)
class AffineIndex:
    """`constant + sum of coefficient · atom`.

    Attributes:
      constant: an integer.
      terms: `(atom, coefficient)`, each atom once, no coefficient 0, loops first and in their order.
    """

    constant: int = 0
    terms: tuple[tuple[Atom, int], ...] = ()

    @cached_property
    def bounds(self) -> tuple[int, int]:
        """The least and the greatest value that the ranges of the atoms allow."""
        low = high = self.constant
        for atom, coefficient in self.terms:
            ends = [coefficient * end for end in atom.bounds]
            low, high = low + min(ends), high + max(ends)
        return low, high

    @cached_property
    def loops(self) -> frozenset[int]:
        """The numbers of the loops that the value depends on."""
        found: set[int] = set()
        for atom, _ in self.terms:
            found |= {atom.number} if isinstance(atom, LoopIndex) else atom.dividend.loops
        return frozenset(found)

    @property
    def is_linear(self) -> bool:
        """Whether there is no quotient and no remainder."""
        return all(isinstance(atom, LoopIndex) for atom, _ in self.terms)

    def coefficient(self, number: int) -> int:
        """Returns what a loop variable is multiplied by outside of quotients and remainders."""
        return next((c for atom, c in self.terms if isinstance(atom, LoopIndex) and atom.number == number), 0)

    def without(self, numbers: Collection[int]) -> AffineIndex:
        """Returns the index at the start of some loops; quotients and remainders stay as they are."""
        kept = [(a, c) for a, c in self.terms if not isinstance(a, LoopIndex) or a.number not in numbers]
        return AffineIndex(self.constant, tuple(kept))

    def __add__(self, other: AffineIndex | int) -> AffineIndex:
        if not isinstance(other, AffineIndex):
            return AffineIndex(self.constant + operator.index(other), self.terms)
        return _sum(self.constant + other.constant, (*self.terms, *other.terms))

    def __mul__(self, factor: int) -> AffineIndex:
        factor = operator.index(factor)
        if factor == 0:
            return AffineIndex()
        return AffineIndex(self.constant * factor, tuple((atom, c * factor) for atom, c in self.terms))

    def __sub__(self, other: AffineIndex | int) -> AffineIndex:
        return self + other * -1

    def divided(self, divisor: int) -> tuple[AffineIndex, AffineIndex]:
        """Returns quotient and remainder of a value that is not negative, by a positive divisor."""
        if divisor == 1:
            return self, AffineIndex()
        whole = _sum(self.constant // divisor, [(a, c // divisor) for a, c in self.terms if c % divisor == 0])
        rest = AffineIndex(self.constant % divisor, tuple((a, c) for a, c in self.terms if c % divisor))
        low, high = rest.bounds
        if low >= 0 and high < divisor:
            return whole, rest
        if low < 0:  # Its parts are not to be negative.
            whole, rest = AffineIndex(), self
        quotient = Quotient(rest, divisor)
        first, last = quotient.bounds
        part = AffineIndex(first) if first == last else AffineIndex(0, ((quotient, 1),))
        return whole + part, AffineIndex(
            0, ((Remainder(rest, divisor), 1),)
        ) if first != last else rest - first * divisor

    def replaced(self, value: Callable[[LoopIndex], AffineIndex]) -> AffineIndex:
        """Returns the index with a value for each loop."""
        result = AffineIndex(self.constant)
        for atom, coefficient in self.terms:
            if isinstance(atom, LoopIndex):
                result += value(atom) * coefficient
            else:
                parts = atom.dividend.replaced(value).divided(atom.divisor)
                result += parts[isinstance(atom, Remainder)] * coefficient
        return result


def variable(number: int, extent: int) -> AffineIndex:
    """Returns a loop variable as an index; 0 if the loop runs once."""
    return AffineIndex(0, ((LoopIndex(number, extent), 1),)) if extent > 1 else AffineIndex()


def _sum(constant: int, terms: Iterable[tuple[Atom, int]]) -> AffineIndex:
    total: dict[Atom, int] = {}
    for atom, coefficient in terms:
        total[atom] = total.get(atom, 0) + coefficient
    total = {atom: c for atom, c in total.items() if c}
    # The parts of a division are joined: m·(x // m) + x % m = x.
    for atom, c in list(total.items()):
        if isinstance(atom, Remainder):
            quotient = Quotient(atom.dividend, atom.divisor)
            if total.get(quotient) == c * atom.divisor:
                del total[atom], total[quotient]
                return _sum(constant, total.items()) + atom.dividend * c
    return AffineIndex(constant, tuple(sorted(total.items(), key=_rank)))


def _rank(term: tuple[Atom, int]) -> tuple[int, int, str]:
    atom = term[0]
    return (0, atom.number, "") if isinstance(atom, LoopIndex) else (1, 0, repr(atom))


def flat_index(indices: Sequence[AffineIndex], shape: Sequence[int]) -> AffineIndex:
    """Returns the number of an element of a row-major array."""
    result = AffineIndex()
    for index, size in zip(indices, shape, strict=True):
        result = result * size + index
    return result


def split_index(number: AffineIndex, shape: Sequence[int]) -> tuple[AffineIndex, ...]:
    """Returns the indices of an element of a row-major array, by its number."""
    found: list[AffineIndex] = []
    for size in reversed(shape[1:]):
        number, rest = number.divided(size) if size > 1 else (number, AffineIndex())
        found.append(rest)
    return (*([number] if shape else ()), *reversed(found))


def reshaped(indices: Sequence[AffineIndex], shape: Sequence[int], before: Sequence[int]) -> tuple[AffineIndex, ...]:
    """Returns the indices into an array, given those into another shape of it; dimensions are matched where they can.

    Args:
      indices: into `shape`.
      shape: after the reshape.
      before: the shape of the array that is read.
    """
    found: list[AffineIndex] = []
    for own, other in _groups(shape, before):
        number = flat_index([indices[k] for k in own], [shape[k] for k in own])
        found += split_index(number, [before[k] for k in other])
    return tuple(found)


def _groups(shape: Sequence[int], before: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """Yields the smallest ranges of dimensions of both shapes that hold as many elements."""
    i = j = 0
    while i < len(shape) or j < len(before):
        own, other = [i] if i < len(shape) else [], [j] if j < len(before) else []
        left = shape[i] if own else 1
        right = before[j] if other else 1
        i, j = i + len(own), j + len(other)
        while left != right:
            if left < right:
                left, i = left * shape[i], i + 1
                own.append(i - 1)
            else:
                right, j = right * before[j], j + 1
                other.append(j - 1)
        yield own, other
