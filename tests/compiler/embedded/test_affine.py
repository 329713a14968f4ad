"""Affine indices, beside the same arithmetic on numbers."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memplan.compiler.embedded.affine import AffineIndex, LoopIndex, Quotient, flat_index, reshaped, variable


def value(index: AffineIndex, loops: tuple[int, ...]) -> int:
    """The index for values of the loops."""
    total = index.constant
    for atom, coefficient in index.terms:
        if isinstance(atom, LoopIndex):
            total += coefficient * loops[atom.number]
        else:
            inner = value(atom.dividend, loops)
            total += coefficient * (inner // atom.divisor if isinstance(atom, Quotient) else inner % atom.divisor)
    return total


_SHAPES = [(24,), (4, 6), (2, 3, 4), (6, 4), (3, 8), (1, 24), (2, 2, 6), (12, 1, 2), (8, 3)]


@given(st.sampled_from(_SHAPES), st.sampled_from(_SHAPES), st.permutations(range(3)))
def test_a_reshape_reads_the_elements_of_numpy(
    shape: tuple[int, ...], before: tuple[int, ...], order: list[int]
) -> None:
    # The array that is reshaped is itself a transposed view.
    axes = sorted(range(len(before)), key=lambda axis: order[axis])
    stored = [before[axes.index(axis)] for axis in range(len(before))]
    array = np.arange(24).reshape(stored)
    expected = array.transpose(axes).reshape(shape)
    indices = reshaped([variable(k, extent) for k, extent in enumerate(shape)], shape, before)
    places = [indices[axes.index(axis)] for axis in range(len(before))]
    index = flat_index(places, stored)
    for loops in itertools.product(*map(range, shape)):
        assert value(index, loops) == expected[loops]
        assert index.bounds[0] <= value(index, loops) <= index.bounds[1]


@given(st.integers(-3, 9), st.lists(st.integers(-6, 6), min_size=2, max_size=2), st.integers(1, 7))
def test_a_division_has_quotient_and_remainder(constant: int, factors: list[int], divisor: int) -> None:
    index = AffineIndex(constant) + variable(0, 4) * factors[0] + variable(1, 5) * factors[1]
    quotient, rest = index.divided(divisor)
    assert (quotient * divisor + rest) == index
    for loops in itertools.product(range(4), range(5)):
        assert (value(quotient, loops), value(rest, loops)) == divmod(value(index, loops), divisor)


@pytest.mark.parametrize(("factor", "text"), [(0, AffineIndex()), (3, AffineIndex(0, ((LoopIndex(0, 4), 3),)))])
def test_products_have_no_terms_of_nothing(factor: int, text: AffineIndex) -> None:
    assert variable(0, 4) * factor == text
