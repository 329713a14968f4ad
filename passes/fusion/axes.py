"""The axes of an instruction's loop nest: which dimensions of its operands and of its result belong together.

    multiply(a, b)             a.0 = b.0 = r.0, a.1 = b.1 = r.1          an element of r needs one element of each
    dot(a, b), a.1 x b.0       a.0 = r.0, b.1 = r.1, a.1 = b.0 summed    an element of r needs all of a summed axis
    reshape [8,16] -> [128]    a.0 = r.0, in as many parts               the outermost of the dimensions split or merged
    slice, pad, window         r.d needs a range of a.d: "whole"         the axis cannot be cut

An axis that several instructions share can be cut into tiles for all of them at once. The polyhedral model calls this a
tilable band (Bondhugula et al., PLDI 2008), Halide a compute_at level. Windows overlap, so tiles of a convolution's
image would be computed twice at their borders; such axes are taken whole, and there is no halo.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from memplan.compiler.analysis.elementwise import ELEMENTWISE
from memplan.compiler.ir import Instruction, Shape
from memplan.compiler.ir.window import Window

RESULT = -1

Place = tuple[int, int]  # number of the operand, or RESULT, and its dimension


@dataclass(frozen=True, slots=True)
class Axes:
    """How an instruction's dimensions belong together.

    Attributes:
      same: pairs of places that are one axis.
      summed: places of operands, of axes over which the result is a sum, a maximum or the like.
      whole: places of axes that cannot be cut, because an element of the result needs several elements of them.
      columns, rows, depth: of a matrix product, the places of its matrix dimensions.
    """

    same: tuple[tuple[Place, Place], ...] = ()
    summed: tuple[Place, ...] = ()
    whole: tuple[Place, ...] = ()
    rows: tuple[Place, ...] = ()
    columns: tuple[Place, ...] = ()
    depth: tuple[Place, ...] = ()


def axes_of(instruction: Instruction, operands: Sequence[Shape]) -> Axes | None:
    """Returns how an instruction's dimensions belong together; None for an instruction that cannot be fused.

    >>> axes_of(Instruction("t", "transpose", Shape("f32", (3, 2)), (0,), attributes=(("dimensions", "{1,0}"),)),
    ...         [Shape("f32", (2, 3))]).same
    (((0, 1), (-1, 0)), ((0, 0), (-1, 1)))
    """
    if any(leaf.dynamic for shape in (instruction.shape, *operands) for _, leaf in shape.leaves()):
        return None
    if instruction.opcode in ELEMENTWISE:
        return _elementwise(instruction, operands)
    rule = _RULES.get(instruction.opcode)
    if rule is None:
        return None
    try:
        return rule(instruction, operands)
    except (ValueError, LookupError):  # attributes that contradict the shapes
        return None


def dims_of(shape: Shape) -> tuple[int, ...]:
    """Returns the dimensions of an array, or of all arrays of a tuple if they have the same; () otherwise."""
    if not shape.is_tuple:
        return shape.dims
    found = {leaf.dims for _, leaf in shape.leaves()}
    return found.pop() if len(found) == 1 else ()


def _numbers(instruction: Instruction, key: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", instruction.attribute(key)))


def _through(operand: int, rank: int) -> tuple[tuple[Place, Place], ...]:
    return tuple(((operand, d), (RESULT, d)) for d in range(rank))


def _elementwise(instruction: Instruction, operands: Sequence[Shape]) -> Axes | None:
    """A scalar among arrays has no axis, and neither has a dimension whose one element is broadcast."""
    dims = instruction.shape.dims
    same: list[tuple[Place, Place]] = []
    for n, shape in enumerate(operands):
        if not shape.dims:
            continue
        if len(shape.dims) != len(dims) or any(a not in (1, b) for a, b in zip(shape.dims, dims, strict=True)):
            return None
        same += [((n, d), (RESULT, d)) for d in range(len(dims)) if shape.dims[d] == dims[d]]
    return None if any(shape.is_tuple for shape in operands) else Axes(tuple(same))


def _broadcast(instruction: Instruction, operands: Sequence[Shape]) -> Axes:
    return Axes(tuple(((0, d), (RESULT, place)) for d, place in enumerate(_numbers(instruction, "dimensions"))))


def _transpose(instruction: Instruction, operands: Sequence[Shape]) -> Axes:
    order = _numbers(instruction, "dimensions")
    return Axes(tuple(((0, source), (RESULT, d)) for d, source in enumerate(order)))


def _reshape(instruction: Instruction, operands: Sequence[Shape]) -> Axes | None:
    if instruction.opcode == "bitcast" and not (_is_plain(operands[0]) and _is_plain(instruction.shape)):
        return None
    same, whole = [], []
    for inner, outer in _segments(operands[0].dims, instruction.shape.dims):
        if inner and outer:
            same.append(((0, inner[0]), (RESULT, outer[0])))
        whole += [(0, d) for d in inner[1:]] + [(RESULT, d) for d in outer[1:]]
    return Axes(tuple(same), whole=tuple(whole))


def _is_plain(shape: Shape) -> bool:
    layout = shape.layout
    row_major = tuple(reversed(range(len(shape.dims))))
    return shape.is_array and (layout is None or (not layout.tiles and layout.minor_to_major in (row_major, ())))


@lru_cache(maxsize=1024)
def _segments(before: tuple[int, ...], after: tuple[int, ...]) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
    """Returns the smallest runs of dimensions, without those of size 1, that hold the same elements before and after.

    >>> _segments((2, 3, 4), (6, 1, 4))
    (((0, 1), (0,)), ((2,), (2,)))
    """
    left = [d for d, size in enumerate(before) if size != 1]
    right = [d for d, size in enumerate(after) if size != 1]
    found = []
    while left and right:
        inner, outer = [left.pop(0)], [right.pop(0)]
        a, b = before[inner[0]], after[outer[0]]
        while a != b:
            if a < b:
                inner.append(left.pop(0))
                a *= before[inner[-1]]
            else:
                outer.append(right.pop(0))
                b *= after[outer[-1]]
        found.append((tuple(inner), tuple(outer)))
    return tuple(found)


def _reduce(instruction: Instruction, operands: Sequence[Shape]) -> Axes | None:
    summed = _numbers(instruction, "dimensions")
    arrays = len(operands) // 2
    kept = [d for d in range(len(operands[0].dims)) if d not in summed]
    if dims_of(instruction.shape) != tuple(operands[0].dims[d] for d in kept):
        return None
    return Axes(
        tuple(((n, d), (RESULT, place)) for n in range(arrays) for place, d in enumerate(kept))
        + tuple(((0, d), (n, d)) for n in range(1, arrays) for d in summed),
        summed=tuple((n, d) for n in range(arrays) for d in summed),
    )


def _dot(instruction: Instruction, operands: Sequence[Shape]) -> Axes | None:
    if len(operands) != 2:
        return None
    ranks = [len(shape.dims) for shape in operands]
    batch = [_numbers(instruction, f"{side}_batch_dims") for side in ("lhs", "rhs")]
    depth = [_numbers(instruction, f"{side}_contracting_dims") for side in ("lhs", "rhs")]
    free = [[d for d in range(ranks[n]) if d not in (*batch[n], *depth[n])] for n in (0, 1)]
    same: list[tuple[Place, Place]] = []
    for place, (a, b) in enumerate(zip(*batch, strict=True)):
        same += [((0, a), (RESULT, place)), ((1, b), (RESULT, place))]
    same += [((0, d), (RESULT, len(batch[0]) + k)) for k, d in enumerate(free[0])]
    same += [((1, d), (RESULT, len(batch[0]) + len(free[0]) + k)) for k, d in enumerate(free[1])]
    same += [((0, a), (1, b)) for a, b in zip(*depth, strict=True)]
    return Axes(
        tuple(same),
        summed=tuple((0, d) for d in depth[0]),
        rows=tuple((0, d) for d in free[0]),
        columns=tuple((1, d) for d in free[1]),
        depth=tuple((0, d) for d in depth[0]),
    )


def _convolution(instruction: Instruction, operands: Sequence[Shape]) -> Axes | None:
    """Images can be cut, and so can features that are not grouped or are each a group of its own."""
    labels = re.fullmatch(r"([^_]*)_([^-]*)->(.*)", instruction.attribute("dim_labels"))
    if labels is None or int(instruction.attribute("batch_group_count") or 1) > 1:
        return None
    inputs, kernel, outputs = labels.groups()
    groups = int(instruction.attribute("feature_group_count") or 1)
    batch: tuple[Place, Place] = ((0, inputs.index("b")), (RESULT, outputs.index("b")))
    features, produced = (0, inputs.index("f")), (RESULT, outputs.index("f"))
    kernel_in, kernel_out = (1, kernel.index("i")), (1, kernel.index("o"))
    window = Window.parse(instruction.attribute("window"))
    whole: list[Place] = []
    points: list[tuple[Place, Place]] = []
    for d in range(len(window.size)):
        label = str(d)
        ends: tuple[Place, Place] = ((0, inputs.index(label)), (RESULT, outputs.index(label)))
        if _is_point(window, d):
            points.append(ends)
        else:
            whole += [*ends, (1, kernel.index(label))]
    batch_and_points = (batch, *points)
    if groups == 1:
        return Axes(
            (*batch_and_points, (kernel_out, produced), (features, kernel_in)),
            summed=(features,),
            whole=tuple(whole),
            rows=tuple(source for source, _ in batch_and_points),
            columns=(kernel_out,),
            depth=(features,),
        )
    rows = tuple(source for source, _ in batch_and_points)
    if groups == operands[0].dims[features[1]] == instruction.shape.dims[produced[1]]:
        return Axes((*batch_and_points, (kernel_out, produced), (features, produced)), whole=tuple(whole), rows=rows)
    return Axes(batch_and_points, whole=(*whole, features, produced, kernel_in, kernel_out), rows=rows)


def _is_point(window: Window, d: int) -> bool:
    """Whether a window covers only the element at its own place."""
    return (window.size[d], window.stride[d], window.pad_low[d], window.pad_high[d]) == (1, 1, 0, 0) and (
        window.input_dilation[d] == 1
    )


def _same_size(instruction: Instruction, operands: Sequence[Shape], changed: Sequence[int] = ()) -> Axes | None:
    """Dimensions that keep their size are axes; the others, and those in `changed`, are taken whole."""
    source, result = operands[0].dims, instruction.shape.dims
    if len(source) != len(result):
        return None
    kept = [d for d in range(len(source)) if source[d] == result[d] and d not in changed]
    others = [d for d in range(len(source)) if d not in kept]
    return Axes(
        tuple(((0, d), (RESULT, d)) for d in kept),
        whole=tuple((n, d) for n in (0, RESULT) for d in others),
    )


def _pad(instruction: Instruction, operands: Sequence[Shape]) -> Axes | None:
    """A dimension may keep its size although it moves: padded on one side, cut on the other."""
    parts = instruction.attribute("padding").split("x")
    moved = [d for d, part in enumerate(parts) if any(int(number) for number in part.split("_"))]
    return _same_size(instruction, operands, moved)


def _reverse(instruction: Instruction, operands: Sequence[Shape]) -> Axes | None:
    return _same_size(instruction, operands, _numbers(instruction, "dimensions"))


def _last_dimensions(instruction: Instruction, operands: Sequence[Shape]) -> Axes | None:
    """A Fourier transform."""
    rank = len(operands[0].dims)
    return _same_size(instruction, operands, range(rank - len(_numbers(instruction, "fft_length")), rank))


def _sort(instruction: Instruction, operands: Sequence[Shape]) -> Axes | None:
    sorted_dimension, dims = _numbers(instruction, "dimensions"), operands[0].dims
    if dims_of(instruction.shape) != dims or any(shape.dims != dims for shape in operands):
        return None
    same = tuple(
        ((n, d), (RESULT, d)) for n in range(len(operands)) for d in range(len(dims)) if d not in sorted_dimension
    )
    return Axes(same, whole=tuple((n, d) for n in (RESULT, *range(len(operands))) for d in sorted_dimension))


def _dynamic_slice(instruction: Instruction, operands: Sequence[Shape]) -> Axes | None:
    return _same_size(instruction, operands)


def _concatenate(instruction: Instruction, operands: Sequence[Shape]) -> Axes:
    (joined,) = _numbers(instruction, "dimensions")
    rank = len(instruction.shape.dims)
    same = tuple(((n, d), (RESULT, d)) for n in range(len(operands)) for d in range(rank) if d != joined)
    return Axes(same, whole=tuple((n, joined) for n in (RESULT, *range(len(operands)))))


def _reduce_window(instruction: Instruction, operands: Sequence[Shape]) -> Axes | None:
    if instruction.shape.is_tuple:
        return None
    window = Window.parse(instruction.attribute("window"))
    moved = [d for d in range(len(window.size)) if not _is_point(window, d)]
    return _same_size(instruction, operands, moved)


def _gather(instruction: Instruction, operands: Sequence[Shape]) -> Axes | None:
    """The axes are those of the indices: each index selects rows of the table."""
    offsets, vector = _numbers(instruction, "offset_dims"), _numbers(instruction, "index_vector_dim")
    if instruction.attribute("operand_batching_dims"):
        return None
    batch = [d for d in range(len(instruction.shape.dims)) if d not in offsets]
    indices = [d for d in range(len(operands[1].dims)) if d not in vector]
    return Axes(
        tuple(((1, index), (RESULT, place)) for index, place in zip(indices, batch, strict=True)),
        whole=(*((0, d) for d in range(len(operands[0].dims))), *((RESULT, d) for d in offsets)),
    )


def _cumulative(instruction: Instruction, operands: Sequence[Shape]) -> Axes | None:
    """JAX's own sums and maxima of all that came before."""
    return _same_size(instruction, operands, _numbers(instruction, "axis"))


def _index_of_extremum(instruction: Instruction, operands: Sequence[Shape]) -> Axes | None:
    """JAX's own `argmax`; unlike those of a sum, results of parts cannot be combined."""
    taken = _numbers(instruction, "axes")
    kept = [d for d in range(len(operands[0].dims)) if d not in taken]
    return Axes(tuple(((0, d), (RESULT, place)) for place, d in enumerate(kept)), whole=tuple((0, d) for d in taken))


def _element(instruction: Instruction, operands: Sequence[Shape]) -> Axes | None:
    """One of several results that were computed together, over the same axes."""
    dims = dims_of(operands[0])
    return Axes(_through(0, len(dims))) if dims == instruction.shape.dims else None


_RULES: dict[str, Callable[[Instruction, Sequence[Shape]], Axes | None]] = {
    **dict.fromkeys(("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"), _cumulative),
    **dict.fromkeys(("argmax", "argmin"), _index_of_extremum),
    "bitcast": _reshape,
    "broadcast": _broadcast,
    "concatenate": _concatenate,
    "constant": lambda instruction, operands: Axes(),
    "convolution": _convolution,
    "dot": _dot,
    "dynamic-slice": _dynamic_slice,
    "fft": _last_dimensions,
    "gather": _gather,
    "get-tuple-element": _element,
    "iota": lambda instruction, operands: Axes(),
    "pad": _pad,
    "reduce": _reduce,
    "reduce-window": _reduce_window,
    "reshape": _reshape,
    "reverse": _reverse,
    "slice": lambda instruction, operands: _same_size(instruction, operands),
    "sort": _sort,
    "transpose": _transpose,
}
