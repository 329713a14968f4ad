"""Which reductions are sums of products, and of what."""

import pytest

from memplan.compiler.embedded.affine import AffineIndex, LoopIndex, variable
from memplan.compiler.embedded.expressions import Builder, Expression, Reduction, Within
from memplan.compiler.embedded.products import product_sums

_BUILDER = Builder()
_LOOP = LoopIndex(0, 9)


def _sum(first: Expression, second: Expression, loops: tuple[LoopIndex, ...] = (_LOOP,)) -> Reduction:
    return _BUILDER.reduction("sum", loops, _BUILDER.operation("mul", (first, second), first.dtype), first.dtype)


def _loaded(buffer: int, dtype: str = "int8", wide: str = "int32") -> Expression:
    return _BUILDER.operation("convert", (_BUILDER.load(buffer, variable(0, 9), dtype),), wide)


def _centred(value: Expression, zero: int) -> Expression:
    return _BUILDER.operation("sub", (value, _BUILDER.constant(zero, value.dtype)), value.dtype)


@pytest.mark.parametrize(("zero", "count"), [(-128, 1), (127, 1), (255, 1), (256, 0), (-129, 0)])
def test_a_zero_point_fits_into_sixteen_bits(zero: int, count: int) -> None:
    found = product_sums(_sum(_centred(_loaded(0), zero), _loaded(1)))
    assert [each.factors[0].zero for each in found] == [zero] * count


def test_floats_have_no_zero_point() -> None:
    one, other = _loaded(3, "float32", "float32"), _loaded(1, wide="float32")
    assert [f.element.dtype for each in product_sums(_sum(one, other)) for f in each.factors] == ["float32", "int8"]
    assert product_sums(_sum(_centred(one, 1), other)) == ()


def test_what_is_no_product_of_two_elements() -> None:
    square = _BUILDER.operation("mul", (_loaded(0), _loaded(0)), "int32")
    assert product_sums(_sum(square, _loaded(1))) == ()
    assert product_sums(_sum(_loaded(4, "uint8"), _loaded(1))) == ()
    assert product_sums(_BUILDER.reduction("max", (_LOOP,), _sum(_loaded(0), _loaded(1)).body, "int32")) == ()


def _from_two_buffers(wide: str) -> Expression:
    index = variable(0, 9)
    first, second = _BUILDER.load(1, index, "int8"), _BUILDER.load(2, index + -4, "int8")
    guarded = _BUILDER.guarded((Within(index, 0, 4),), first, second)
    return _BUILDER.operation("convert", (guarded,), wide)


@pytest.mark.parametrize("wide", ["int32", "float32"])
def test_a_factor_from_two_buffers_makes_two_sums_in_the_order_of_the_loop(wide: str) -> None:
    found = product_sums(_sum(_loaded(0, wide=wide), _from_two_buffers(wide)))
    assert [each.factors[1].element.buffer for each in found] == [1, 2]
    assert [each.conditions for each in found] == [
        (Within(variable(0, 9), 0, 4),),
        (Within(variable(0, 9), 4, 9),),
    ]
    assert found[1].factors[1].element.index == AffineIndex(-4, variable(0, 9).terms)


def test_floats_keep_their_order_over_two_loops() -> None:
    loops = (LoopIndex(1, 2), _LOOP)
    assert len(product_sums(_sum(_loaded(0), _from_two_buffers("int32"), loops))) == 2
    assert product_sums(_sum(_loaded(0, wide="float32"), _from_two_buffers("float32"), loops)) == ()
