"""Shapes of elementwise operations, and of those that move, add and take away dimensions."""

from __future__ import annotations

from dataclasses import replace

from memplan.compiler.ir.inference.operation import (
    COMPLEX_OF,
    COMPONENT_OF,
    Dimension,
    InferenceInput,
    ShapeUnknown,
    array_of,
    dimensions_of,
    higher_precision,
    marked_dynamic,
    tuple_of,
    with_type,
)
from memplan.compiler.ir.shape import Layout, Shape


def same(o: InferenceInput) -> Shape:
    return o.first


def same_array(o: InferenceInput) -> Shape:
    return o.array(0)


def real_part(o: InferenceInput) -> Shape:
    return with_type(o.array(0), COMPONENT_OF.get(o.first.dtype, o.first.dtype))


def predicate(o: InferenceInput) -> Shape:
    return with_type(o.array(0), "pred")


def binary(o: InferenceInput) -> Shape:
    """Arrays of equal dimensions, or of one rank where those of size 1 are repeated, or an array and a scalar."""
    a, b = o.array(0), o.array(1)
    dtype = higher_precision(a.dtype, b.dtype)
    if a.dims == b.dims and -1 not in a.dims:
        return marked_dynamic(with_type(a, dtype), [is_dynamic for _, is_dynamic in dimensions_of(b)])
    if len(a.dims) != len(b.dims):
        if a.dims and b.dims:
            raise ShapeUnknown(f"its operands are of {len(a.dims)} and {len(b.dims)} dimensions")
        return array_of(dtype, dimensions_of(a if a.dims else b))
    return array_of(dtype, [_repeated(x, y) for x, y in zip(dimensions_of(a), dimensions_of(b), strict=True)])


def _repeated(a: Dimension, b: Dimension) -> Dimension:
    if a[0] == 1:
        return b
    if b[0] == 1:
        return a
    if a[0] == b[0]:
        return a[0], a[1] or b[1]
    if a[0] < 0:
        return b
    if b[0] < 0:
        return a
    raise ShapeUnknown(f"dimensions of size {a[0]} and {b[0]} do not agree")


def compare(o: InferenceInput) -> Shape:
    return with_type(binary(o), "pred")


def complex_of_parts(o: InferenceInput) -> Shape:
    shape = binary(o)
    return with_type(shape, COMPLEX_OF[shape.dtype])


def clamp(o: InferenceInput) -> Shape:
    return o.array(1)


def select(o: InferenceInput) -> Shape:
    predicate, a, b = o.array(0), o.array(1), o.array(2)
    whole = predicate if predicate.dims else a
    shape = with_type(whole, higher_precision(a.dtype, b.dtype))
    marks = [any(flags) for flags in zip(*(m.dynamic or (False,) * len(a.dims) for m in (a, b)), strict=True)]
    bits = a.layout.element_bits if a.layout is not None else 0
    layout = shape.layout or Layout(tuple(reversed(range(len(shape.dims)))))
    if layout.element_bits != bits:
        shape = replace(shape, layout=replace(layout, element_bits=bits))
    return marked_dynamic(shape, marks)


def transpose(o: InferenceInput) -> Shape:
    shape = o.array(0)
    order = o.dimensions("dimensions", len(shape.dims))
    if len(order) != len(shape.dims):
        raise ShapeUnknown("it does not say where each dimension goes")
    moved = array_of(shape.dtype, [dimensions_of(shape)[d] for d in order])
    layout = shape.layout or Layout(tuple(reversed(range(len(order)))))
    place = {old: new for new, old in enumerate(order)}
    layout = replace(layout, minor_to_major=tuple(place[d] for d in layout.minor_to_major))
    return moved if shape.layout is None and layout == Layout() else replace(moved, layout=layout)


def broadcast(o: InferenceInput) -> Shape:
    """The numbers are sizes of new dimensions in front, as the parser of XLA reads them."""
    shape = o.array(0)
    sizes = o.numbers("dimensions")
    if any(size < 0 for size in sizes):
        raise ShapeUnknown("a dimension has a negative size")
    return array_of(shape.dtype, [*((size, False) for size in sizes), *dimensions_of(shape)])


def concatenate(o: InferenceInput) -> Shape:
    (along,) = o.dimensions("dimensions", len(o.array(0).dims))
    shapes = [o.array(i) for i in range(len(o.operands))]
    dtype, found = shapes[0].dtype, dimensions_of(shapes[0])
    for shape in shapes[1:]:
        dtype = higher_precision(shape.dtype, dtype)
        for d, (size, is_dynamic) in enumerate(dimensions_of(shape)):
            known, was_dynamic = found[d]
            if d == along:
                total = -1 if min(size, known) < 0 else size + known
                found[d] = total, is_dynamic or was_dynamic
            else:
                found[d] = _most_specific((known, was_dynamic), (size, is_dynamic))
    return array_of(dtype, found)


def _most_specific(a: Dimension, b: Dimension) -> Dimension:
    if a[0] < 0:
        return b
    if b[0] < 0:
        return a
    if a[0] != b[0]:
        raise ShapeUnknown(f"dimensions of size {a[0]} and {b[0]} do not agree")
    return a[0], a[1] or b[1]


def pad(o: InferenceInput) -> Shape:
    shape, value = o.array(0), o.array(1)
    text = o.attributes.get("padding", "")
    parts = [tuple(map(int, part.split("_"))) for part in text.split("x")] if text else []
    found: list[Dimension] = []
    for (size, is_dynamic), part in zip(dimensions_of(shape), parts, strict=True):
        low, high, interior = part if len(part) == 3 else (*part, 0)
        padded = size + low + high + max(size - 1, 0) * interior
        found.append((size, True) if size < 0 else (padded, is_dynamic))
        if size >= 0 > padded:
            raise ShapeUnknown("the padding takes away more than there is")
    return array_of(higher_precision(shape.dtype, value.dtype), found)


def get_dimension_size(o: InferenceInput) -> Shape:
    o.dimensions("dimensions", len(o.array(0).dims))
    return Shape("s32")


def set_dimension_size(o: InferenceInput) -> Shape:
    shape = o.array(0)
    (dimension,) = o.dimensions("dimensions", len(shape.dims))
    return marked_dynamic(shape, [d == dimension for d in range(len(shape.dims))])


def top_k(o: InferenceInput) -> Shape:
    shape = o.array(0)
    found = array_of(shape.dtype, [*dimensions_of(shape)[:-1], (int(o.attributes["k"]), False)])
    return tuple_of([found, replace(found, dtype="s32")])


def fft(o: InferenceInput) -> Shape:
    shape = o.array(0)
    kind, lengths = o.attributes["fft_type"], o.numbers("fft_length")
    if kind in ("FFT", "IFFT"):
        return shape
    last, is_dynamic = dimensions_of(shape)[-1]
    is_dynamic = is_dynamic and last >= 0
    if kind == "RFFT":
        size = lengths[-1] // 2 + 1 if lengths[-1] else last
        shape = with_type(shape, COMPLEX_OF[shape.dtype])
    else:
        size = lengths[-1]
        shape = with_type(shape, COMPONENT_OF[shape.dtype])
    resized = array_of(shape.dtype, [*dimensions_of(shape)[:-1], (size, is_dynamic)])
    return replace(resized, layout=shape.layout)


def gather(o: InferenceInput) -> Shape:
    operand, indices = o.array(0), o.array(1)
    slices = o.numbers("slice_sizes")
    absent = {*o.numbers("collapsed_slice_dims"), *o.numbers("operand_batching_dims")}
    dims = dimensions_of(operand)
    window = [
        (size, dims[d][1] and dims[d][0] == size) if size >= 0 else (size, True)
        for d, size in enumerate(slices)
        if d not in absent
    ]
    vector = int(o.attributes["index_vector_dim"])
    batch = [dimension for d, dimension in enumerate(dimensions_of(indices)) if d != vector]
    offsets = o.numbers("offset_dims")
    found = []
    for d in range(len(window) + len(batch)):
        found.append((window if d in offsets else batch).pop(0))
    return array_of(operand.dtype, found)
