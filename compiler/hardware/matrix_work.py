"""The multiply-adds of matrix products and convolutions, counted exactly from their attributes."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache

from memplan.compiler.ir import Instruction, Shape

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
    """Returns the work of a `dot`; dimensions that are not named are contracted as XLA does, last with first."""
    contracting = _dimensions(instruction.attribute("lhs_contracting_dims"))
    batch = _dimensions(instruction.attribute("lhs_batch_dims"))
    right_contracting = _dimensions(instruction.attribute("rhs_contracting_dims"))
    contracted = math.prod(left.dims[d] for d in contracting)
    batches = math.prod(left.dims[d] for d in batch)
    rows = left.num_elements // max(1, contracted * batches)
    columns = right.num_elements // max(1, math.prod(right.dims[d] for d in right_contracting) * batches)
    return _matrix_work(instruction, left.dtype, instruction.shape.num_elements * contracted, contracted, rows, columns)


def convolution_work(instruction: Instruction, left: Shape, right: Shape) -> MatrixWork:
    """Returns the work of a `convolution`, without the multiplications by padding and by the zeros of dilation.

    Every output element sums over the kernel's input features and over those window positions that hit an element of
    the input. Groups need no extra care: the kernel's input features are those of one group.
    """
    labels = re.fullmatch(r"([^_]*)_([^-]*)->(.*)", instruction.attribute("dim_labels"))
    result = instruction.shape
    if labels is None:
        raise ValueError(f"dim_labels={instruction.attribute('dim_labels')!r} are no labels of a convolution")
    inputs, kernel, outputs = labels.groups()
    window = Window.parse(instruction.attribute("window"))
    hits, positions = 1, 1
    for d in range(len(window.size)):
        label = str(d) if d < 10 else chr(ord("a") + d - 10)
        size = left.dims[inputs.index(label)], result.dims[outputs.index(label)]
        hits *= window.hits(d, *size)
        positions *= size[1]
    features = right.dims[kernel.index("i")]
    batch_groups = int(instruction.attribute("batch_group_count") or 1)
    feature_groups = int(instruction.attribute("feature_group_count") or 1)
    output_features = result.dims[outputs.index("f")]
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


@dataclass(frozen=True, slots=True)
class Window:
    """A window that slides over an array, per spatial dimension.

    Attributes:
      size, stride: of the window and of its moves.
      pad_low, pad_high: elements added around the input, negative where some are cut off.
      input_dilation, window_dilation: 1 + the gaps between neighbouring elements of the input, and of the window.
    """

    size: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    pad_low: tuple[int, ...] = ()
    pad_high: tuple[int, ...] = ()
    input_dilation: tuple[int, ...] = ()
    window_dilation: tuple[int, ...] = ()

    @staticmethod
    def parse(text: str) -> Window:
        """Reads XLA's `{size=3x3 stride=2x2 pad=0_1x0_1 lhs_dilate=1x1 rhs_dilate=1x1}`, any of them left out.

        >>> Window.parse("{size=3 stride=2 pad=0_1}").hits(0, 8, 4)
        11
        """
        fields = dict(part.split("=", 1) for part in text.strip("{}").split())
        size = _sizes(fields.get("size", ""))
        ones, zeros = (1,) * len(size), (0,) * len(size)
        pads = [pad.split("_") for pad in fields["pad"].split("x")] if "pad" in fields else []
        return Window(
            size,
            _sizes(fields.get("stride", "")) or ones,
            tuple(int(low) for low, _ in pads) or zeros,
            tuple(int(high) for _, high in pads) or zeros,
            _sizes(fields.get("lhs_dilate", "")) or ones,
            _sizes(fields.get("rhs_dilate", "")) or ones,
        )

    def hits(self, dimension: int, input_size: int, output_size: int) -> int:
        """Returns how many pairs of an output element and a window position meet an element of the input."""
        return _hits(
            input_size,
            output_size,
            self.size[dimension],
            self.stride[dimension],
            self.pad_low[dimension],
            self.input_dilation[dimension],
            self.window_dilation[dimension],
        )

    def covers(self, dimension: int, input_size: int, output_size: int) -> bool:
        """Tells whether the window sees all of the input at each of its places.

        >>> window = Window.parse("{size=7 pad=3_3}")
        >>> window.covers(0, 4, 4), window.covers(0, 5, 5)
        (True, False)
        """
        low, last = self.pad_low[dimension], (output_size - 1) * self.stride[dimension]
        dilated = max(self.input_dilation[dimension], self.window_dilation[dimension]) > 1
        return not dilated and last <= low and self.size[dimension] - low >= input_size


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(int(size) for size in text.split("x")) if text else ()


# At most this many positions of a window are counted one by one. Larger windows, which real programs do not have, are
# sampled.
_MOST_POSITIONS = 2**16


@lru_cache(maxsize=4096)
def _hits(inputs: int, outputs: int, size: int, stride: int, pad_low: int, dilation: int, window_dilation: int) -> int:
    """Output `o` and position `k` meet input `(o * stride + k * window_dilation - pad_low) / dilation`, if whole."""
    if outputs < size:
        # Outputs and positions are interchangeable: the loop runs over the fewer.
        outputs, size, stride, window_dilation = size, outputs, window_dilation, stride
    common = math.gcd(stride, dilation)
    period = dilation // common
    inverse = pow(stride // common, -1, period) if period > 1 else 0
    total = 0
    step = -(-size // _MOST_POSITIONS)
    for k in range(0, size, max(1, step)):
        offset = k * window_dilation - pad_low
        # 0 <= o * stride + offset <= (inputs - 1) * dilation
        first = max(0, -(offset // stride))
        last = min(outputs - 1, ((inputs - 1) * dilation - offset) // stride)
        if first > last or offset % common:
            continue
        residue = (-offset // common) * inverse % period if period > 1 else 0
        total += (last - residue) // period - (first - 1 - residue) // period
    return total * max(1, step)
