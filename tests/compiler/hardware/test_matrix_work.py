"""Multiply-adds of products and convolutions, against counting them one by one."""

import pytest

from memplan.compiler.hardware.matrix_work import MatrixWork, convolution_work, dot_work, ragged_dot_work
from memplan.compiler.ir import Instruction, Shape


def dot(result: Shape, **attributes: str) -> Instruction:
    return Instruction("d", "dot", result, attributes=tuple(attributes.items()))


def test_a_matrix_product() -> None:
    instruction = dot(Shape("bf16", (8, 32)), lhs_contracting_dims="{1}", rhs_contracting_dims="{0}")
    work = dot_work(instruction, Shape("bf16", (8, 16)), Shape("bf16", (16, 32)))
    assert work == MatrixWork("bf16", "default", 2.0 * 8 * 16 * 32, contracted=16, rows=8, columns=32)


def test_a_batched_product_that_contracts_two_dimensions() -> None:
    instruction = dot(
        Shape("f32", (3, 5, 7)),
        lhs_batch_dims="{0}", lhs_contracting_dims="{1,3}", rhs_batch_dims="{2}", rhs_contracting_dims="{0,1}",
        operand_precision="{highest,default}",
    )  # fmt: skip
    work = dot_work(instruction, Shape("f32", (3, 2, 5, 4)), Shape("f32", (2, 4, 3, 7)))
    assert work == MatrixWork("f32", "highest", 2.0 * 3 * 5 * 7 * 8, contracted=8, rows=5, columns=7)


def test_complex_products_are_four_real_ones() -> None:
    instruction = dot(Shape("c64", (2, 2)), lhs_contracting_dims="{1}", rhs_contracting_dims="{0}")
    work = dot_work(instruction, Shape("c64", (2, 4)), Shape("c64", (4, 2)))
    assert (work.dtype, work.flops) == ("f32", 8.0 * 2 * 2 * 4)


def convolution(left: Shape, result: Shape, labels: str, window: str, **more: str) -> MatrixWork:
    attributes = (("window", window), ("dim_labels", labels), *more.items())
    return convolution_work(Instruction("c", "convolution", result, attributes=attributes), left)


def test_a_convolution_with_padding() -> None:
    """3 x 3 on 4 x 4 with a border of zeros: of 16 x 9 positions per dimension pair, 10 x 10 hit the image."""
    work = convolution(
        Shape("bf16", (2, 4, 4, 8)), Shape("bf16", (2, 4, 4, 16)),
        "b01f_01io->b01f", "{size=3x3 pad=1_1x1_1}",
    )  # fmt: skip
    assert work.flops == 2.0 * 2 * 16 * 8 * 10 * 10
    assert (work.rows, work.columns) == (2 * 16, 16)
    assert work.contracted == round(8 * 100 / 16)


def test_groups() -> None:
    """4 groups: the kernel has the 2 input features of one, and 16 output features in all."""
    work = convolution(
        Shape("f32", (2, 6, 8)), Shape("f32", (2, 4, 16)),
        "b0f_0io->b0f", "{size=3}", feature_group_count="4",
    )  # fmt: skip
    assert (work.flops, work.contracted, work.columns) == (2.0 * 2 * 4 * 16 * 3 * 2, 6, 4)


def test_batch_groups() -> None:
    """A depthwise filter's gradient: the batch of 8 is 4 groups of 2, each seen by a quarter of the output features."""
    work = convolution(
        Shape("f32", (8, 6, 3)), Shape("f32", (2, 3, 4)),
        "b0f_0io->b0f", "{size=4}", batch_group_count="4",
    )  # fmt: skip
    assert (work.flops, work.columns) == (2.0 * 2 * 3 * 4 * 4 * 3, 1)


def test_a_batched_product_as_tpus_write_it() -> None:
    """A convolution whose window covers the batch, dilated so far that each output meets one element of it."""
    work = convolution(
        Shape("bf16", (8, 12, 512, 64)), Shape("f32", (8, 12, 512, 512)),
        "01bf_0o1i->01bf", "{size=8x12 stride=7x11 lhs_dilate=8x12}",
    )  # fmt: skip
    assert work.flops == 2.0 * 8 * 12 * 512 * 512 * 64
    assert (work.contracted, work.columns) == (64, 512)


def test_a_convolution_without_spatial_dimensions() -> None:
    work = convolution(Shape("bf16", (8, 16)), Shape("bf16", (8, 4)), "bf_io->bf", "")
    assert work == MatrixWork("bf16", "default", 2.0 * 8 * 16 * 4, 16, 8, 4)


def test_labels_that_are_not_understood() -> None:
    with pytest.raises(ValueError, match="dim_labels='nonsense' are no labels"):
        convolution(Shape("f32", (8, 16)), Shape("f32", (8, 4)), "nonsense", "")


def test_a_vectorized_convolution_has_features_in_two_dimensions() -> None:
    work = convolution(
        Shape("s8", (2, 4, 4, 2, 4)), Shape("s8", (2, 4, 4, 4, 4)), "b01f?_01i?o->b01f?", "{size=3x3 pad=1_1x1_1}"
    )
    assert work.flops == 2.0 * 2 * 16 * 8 * 10 * 10


@pytest.mark.parametrize(
    ("left", "right", "result", "attributes", "flops"),
    [
        # Each of 64 rows is multiplied by the matrix of its group.
        ((64, 9), (2, 9, 8), (64, 8), {"lhs_contracting_dims": "{1}", "rhs_contracting_dims": "{1}",
         "lhs_ragged_dims": "{0}", "rhs_group_dims": "{0}"}, 2 * 64 * 9 * 8),
        # Each of 9 terms belongs to the sum of one group.
        ((64, 9), (9, 8), (2, 64, 8), {"lhs_contracting_dims": "{1}", "rhs_contracting_dims": "{0}",
         "lhs_ragged_dims": "{1}"}, 2 * 64 * 9 * 8),
        ((3, 16, 9), (3, 2, 9, 8), (3, 16, 8), {"lhs_contracting_dims": "{2}", "rhs_contracting_dims": "{2}",
         "lhs_batch_dims": "{0}", "rhs_batch_dims": "{0}", "lhs_ragged_dims": "{1}", "rhs_group_dims": "{1}"},
         2 * 3 * 16 * 9 * 8),
    ],
)  # fmt: skip
def test_a_ragged_product(
    left: tuple[int, ...], right: tuple[int, ...], result: tuple[int, ...], attributes: dict[str, str], flops: float
) -> None:
    instruction = Instruction("r", "ragged-dot", Shape("f16", result), attributes=tuple(attributes.items()))
    work = ragged_dot_work(instruction, Shape("f16", left), Shape("f16", right))
    assert (work.flops, work.contracted, work.columns) == (flops, 9, 8)
