"""Shapes of matrix products, and of what slides a window over an array."""

from __future__ import annotations

from collections.abc import Sequence

from memplan.compiler.ir.inference.operation import (
    Dimension,
    InferenceInput,
    ShapeUnknown,
    array_of,
    dimensions_of,
    higher_precision,
    tuple_of,
)
from memplan.compiler.ir.shape import Shape
from memplan.compiler.ir.window import Window


def dot(o: InferenceInput, other: int = 1, groups: Sequence[int] = ()) -> Shape:
    left, right = o.array(0), o.array(other)
    batch = o.dimensions("lhs_batch_dims", len(left.dims))
    left_gone = {*batch, *o.dimensions("lhs_contracting_dims", len(left.dims))}
    right_gone = {*groups, *o.dimensions("rhs_batch_dims", len(right.dims))}
    right_gone.update(o.dimensions("rhs_contracting_dims", len(right.dims)))
    left_dims, right_dims = dimensions_of(left), dimensions_of(right)
    found = [left_dims[d] for d in batch]
    found += [dimension for d, dimension in enumerate(left_dims) if d not in left_gone]
    found += [dimension for d, dimension in enumerate(right_dims) if d not in right_gone]
    return array_of(higher_precision(left.dtype, right.dtype), found)


def scaled_dot(o: InferenceInput) -> Shape:
    """From the first and the third operand, as XLA does, though the second is the other factor."""
    return dot(o, other=2)


def ragged_dot(o: InferenceInput) -> Shape:
    (ragged,) = o.dimensions("lhs_ragged_dims", len(o.array(0).dims))
    shape = dot(o, groups=o.numbers("rhs_group_dims"))
    if ragged not in o.numbers("lhs_contracting_dims"):
        return shape
    return array_of(shape.dtype, [dimensions_of(o.array(2))[-1], *dimensions_of(shape)])


def _windowed(dimensions: Sequence[Dimension], window: Window) -> list[Dimension]:
    """Returns how often the window fits along each dimension."""
    if len(window.size) != len(dimensions):
        raise ShapeUnknown(f"its window has {len(window.size)} dimensions, its operand {len(dimensions)}")
    found = []
    for d, (size, is_dynamic) in enumerate(dimensions):
        dilated = (size - 1) * window.input_dilation[d] + 1 if size else 0
        bound = window.pad_low[d] + dilated + window.pad_high[d]
        width = (window.size[d] - 1) * window.window_dilation[d] + 1 if window.size[d] else 0
        fits = (bound - width) // window.stride[d] + 1 if bound > 0 and width <= bound else 0
        found.append((size if size < 0 else fits, is_dynamic))
    return found


def convolution(o: InferenceInput) -> Shape:
    left = o.array(0)
    # A sparse kernel is a tuple of its values and their places.
    right = o.operands[1].elements[0] if o.operands[1].is_tuple else o.array(1)
    inputs, _, rest = o.attributes["dim_labels"].partition("_")
    kernel, _, outputs = rest.partition("->")
    window = Window.parse(o.attributes.get("window", ""))
    left_dims, right_dims = dimensions_of(left), dimensions_of(right)
    spatial = [left_dims[inputs.index(str(d))] for d in range(len(window.size))]
    found = dict(zip(map(str, range(len(spatial))), _windowed(spatial, window), strict=True))
    for d in list(found):
        found[d] = found[d][0], found[d][1] or right_dims[kernel.index(d)][1]
    batch, is_dynamic = left_dims[inputs.index("b")]
    groups = int(o.attributes.get("batch_group_count", "1"))
    found["b"] = batch if batch < 0 else batch // groups, is_dynamic
    found["f"] = right_dims[kernel.index("o")][0], False
    dtype = higher_precision(left.dtype, right.dtype)
    return array_of(dtype, [found[label] for label in outputs])


def reduce_window(o: InferenceInput) -> Shape:
    found = _windowed(dimensions_of(o.array(0)), Window.parse(o.attributes.get("window", "")))
    return array_of(o.array(1).dtype, found)


def reduce(o: InferenceInput) -> Shape:
    shape = o.array(0)
    gone = o.dimensions("dimensions", len(shape.dims))
    kept = [dimension for d, dimension in enumerate(dimensions_of(shape)) if d not in gone]
    result = o.callees[0].root_instruction.shape
    if result.is_tuple:
        return tuple_of([array_of(element.dtype, kept) for element in result.elements])
    return array_of(result.dtype, kept)
