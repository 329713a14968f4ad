"""The multiply-adds of matrix products and convolutions, counted exactly from their attributes."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from memplan.compiler.ir import Instruction, Shape
from memplan.compiler.ir.window import Window

# Real multiply-adds in one complex multiply-add.
_COMPLEX = 4


@dataclass(frozen=True, slots=True)
class MatrixWork:
    """One kind of matrix product in an instruction.

    Attributes:
      dtype: of the inputs, the part's type where they are complex.
      precision: `default`, `high` or `highest`: how exactly wide types must be multiplied.
      flops: operations, two for a multiply-add.
      contracted: length of the sums.
      rows, columns: of the products: what is left of the first and of the second input.
    """

    dtype: str
    precision: str
    flops: float
    contracted: int
    rows: int
    columns: int


def dot_work(instruction: Instruction, left: Shape, right: Shape) -> MatrixWork:
    """Returns the work of a `dot` or a `scaled-dot`; without dimensions it contracts none, as in XLA."""
    contracting = _dimensions(instruction.attribute("lhs_contracting_dims"))
    batch = _dimensions(instruction.attribute("lhs_batch_dims"))
    right_contracting = _dimensions(instruction.attribute("rhs_contracting_dims"))
    contracted = math.prod(left.dims[d] for d in contracting)
    batches = math.prod(left.dims[d] for d in batch)
    rows = left.num_elements // max(1, contracted * batches)
    columns = right.num_elements // max(1, math.prod(right.dims[d] for d in right_contracting) * batches)
    return _matrix_work(instruction, left.dtype, instruction.shape.num_elements * contracted, contracted, rows, columns)


def ragged_dot_work(instruction: Instruction, left: Shape, right: Shape) -> MatrixWork:
    """Returns the work of a `ragged-dot`: each row of a group is multiplied by the matrix of that group alone.

    If the contracted dimension is the ragged one, each of its elements belongs to one of the results.
    """
    contracted = math.prod(left.dims[d] for d in _dimensions(instruction.attribute("lhs_contracting_dims")))
    batches = math.prod(left.dims[d] for d in _dimensions(instruction.attribute("lhs_batch_dims")))
    names = ("rhs_contracting_dims", "rhs_batch_dims", "rhs_group_dims")
    taken = {d for name in names for d in _dimensions(instruction.attribute(name))}
    columns = math.prod(size for d, size in enumerate(right.dims) if d not in taken)
    rows = left.num_elements // max(1, contracted * batches)
    return _matrix_work(instruction, left.dtype, left.num_elements * columns, contracted, rows, columns)


def product_work(instruction: Instruction, dtype: str, contracted: int, rows: int, columns: int) -> MatrixWork:
    """Returns the work of a product of which every element of the result sums over `contracted` products."""
    return _matrix_work(instruction, dtype, instruction.shape.num_elements * contracted, contracted, rows, columns)


def convolution_work(instruction: Instruction, left: Shape) -> MatrixWork:
    """Returns the work of a `convolution`, without the multiplications by padding and by the zeros of dilation.

    Every output element sums over the input features of one group, and over those window positions that hit an element
    of the input. A sparse kernel counts as a dense one. In a vectorized convolution, the dimension with the label `?`
    or with none holds a part of the features.
    """
    labels = re.fullmatch(r"([^_]*)_([^-]*)->(.*)", instruction.attribute("dim_labels"))
    result = instruction.shape
    if labels is None:
        raise ValueError(f"dim_labels={instruction.attribute('dim_labels')!r} are no labels of a convolution")
    inputs, _, outputs = labels.groups()
    window = Window.parse(instruction.attribute("window"))
    hits, positions = 1, 1
    for d in range(len(window.size)):
        label = str(d) if d < 10 else chr(ord("a") + d - 10)
        size = left.dims[inputs.index(label)], result.dims[outputs.index(label)]
        hits *= window.hits(d, *size)
        positions *= size[1]
    batch_groups = int(instruction.attribute("batch_group_count") or 1)
    feature_groups = int(instruction.attribute("feature_group_count") or 1)
    features = _features(left, inputs) // feature_groups
    output_features = _features(result, outputs)
    # With batch groups, each output feature sees one group of the batch, which is what the result's batch counts.
    multiply_adds = result.dims[outputs.index("b")] * output_features * features * hits
    contracted = max(1, round(features * hits / max(1, positions)))
    return _matrix_work(
        instruction,
        left.dtype,
        multiply_adds,
        contracted,
        max(1, result.dims[outputs.index("b")] * positions),
        max(1, output_features // (feature_groups * batch_groups)),
    )


def _features(shape: Shape, labels: str) -> int:
    return math.prod(size for d, size in enumerate(shape.dims) if labels[d : d + 1] in ("f", "?", ""))


def _matrix_work(
    instruction: Instruction, dtype: str, multiply_adds: int, contracted: int, rows: int, columns: int
) -> MatrixWork:
    precisions = re.findall("high(?:est)?", instruction.attribute("operand_precision"))
    precision = max(precisions, key=len, default="default")
    factor = 2 * (_COMPLEX if dtype in ("c64", "c128") else 1)
    part = {"c64": "f32", "c128": "f64"}.get(dtype, dtype)
    return MatrixWork(part, precision, float(factor * multiply_adds), contracted, rows, columns)


def _dimensions(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text))
