"""Which dimensions are one axis: tiles of the operands give exactly the tiles of the result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from memplan.compiler.frontends.jaxpr import trace
from memplan.compiler.ir import Graph, Instruction, Shape
from memplan.passes.fusion.axes import RESULT, Axes, axes_of
from memplan.passes.graph_manager import chosen_graph_passes, run_graph_passes

F32 = jnp.float32


def array(*dims: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(len(dims)).standard_normal(dims).astype(np.float32)


def conv(stride: int, size: int, groups: int = 1) -> Callable[..., Any]:
    return lambda x, k: lax.conv_general_dilated(
        x, k, (stride, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
    )


CASES: dict[str, tuple[Callable[..., Any], list[Any]]] = {
    "add": (jnp.add, [array(4, 6), array(4, 6)]),
    "add a column": (lax.add, [array(4, 6), array(4, 6)[:, :1]]),
    "transpose": (lambda x: jnp.transpose(x, (2, 0, 1)), [array(4, 6, 8)]),
    "merge": (lambda x: x.reshape(24, 8), [array(4, 6, 8)]),
    "split": (lambda x: x.reshape(4, 2, 3, 8), [array(4, 6, 8)]),
    "both": (lambda x: x.reshape(6, 4, 8), [array(4, 6, 8)]),
    "broadcast": (lambda x: jnp.broadcast_to(x[:, None], (4, 6, 8)), [array(4, 8)]),
    "sum": (lambda x: jnp.sum(x, 1), [array(4, 6, 8)]),
    "argmax": (lambda x: jnp.argmax(x, 1), [array(4, 6, 8)]),
    "dot": (jnp.matmul, [array(4, 6), array(6, 8)]),
    "batched dot": (lambda x, y: jnp.einsum("bij,bkj->bik", x, y), [array(2, 4, 6), array(2, 8, 6)]),
    "convolution": (conv(1, 3), [array(4, 6, 6, 2), array(3, 3, 2, 8)]),
    "strided convolution": (conv(2, 3), [array(4, 6, 6, 2), array(3, 3, 2, 8)]),
    "pointwise convolution": (conv(1, 1), [array(4, 6, 6, 2), array(1, 1, 2, 8)]),
    "depthwise convolution": (conv(1, 3, 4), [array(2, 6, 6, 4), array(3, 3, 1, 4)]),
    "slice": (lambda x: x[:, 1:5], [array(4, 6)]),
    "pad": (lambda x: lax.pad(x, F32(0), [(0, 0, 0), (1, 1, 0)]), [array(4, 6)]),
    "shift": (lambda x: lax.pad(x, F32(0), [(0, 0, 0), (1, -1, 0)]), [array(4, 6)]),
    "reverse": (lambda x: x[:, ::-1], [array(4, 6)]),
    "concatenate": (lambda x, y: jnp.concatenate([x, y], 1), [array(4, 6), array(4, 2)]),
    "fft": (jnp.fft.rfft, [array(4, 8)]),
    "sort": (lambda x: jnp.sort(x, 1), [array(4, 6)]),
    "pool": (lambda x: lax.reduce_window(x, -np.inf, lax.max, (1, 2), (1, 2), "VALID"), [array(4, 6)]),
    "cumsum": (lambda x: jnp.cumsum(x, 1), [array(4, 6)]),
    "gather": (lambda t, i: t[i], [array(10, 6), np.arange(8, dtype=np.int32)]),
}  # fmt: skip


def inlined(fun: Callable[..., Any], *arguments: Any) -> Graph:
    return run_graph_passes(trace(fun, *arguments), chosen_graph_passes("inline")).graph


def axis_groups(axes: Axes, shapes: list[Shape], result: Shape) -> list[set[tuple[int, int]]]:
    """Returns the axes, each as all of its places, without those that are summed over or taken whole."""
    places = [(n, d) for n, shape in enumerate([*shapes, result]) for d in range(len(shape.dims))]
    places = [(RESULT if n == len(shapes) else n, d) for n, d in places]
    groups = {place: {place} for place in places}
    for a, b in axes.same:
        joined = groups[a] | groups[b]
        for place in joined:
            groups[place] = joined
    forbidden = {*axes.summed, *axes.whole}
    found = {id(group): group for group in groups.values()}
    return [group for group in found.values() if not group & forbidden]


@pytest.mark.parametrize("name", CASES)
def test_tiles_of_operands_give_tiles_of_the_result(name: str) -> None:
    fun, arguments = CASES[name]
    graph = inlined(fun, *arguments)
    values: dict[int, Any] = {}
    entry = graph.entry_computation
    checked = 0
    for i, instruction in enumerate(entry.instructions):
        if instruction.opcode == "parameter":
            values[i] = arguments[instruction.parameter_number]
            continue
        operands = [values[operand] for operand in instruction.operands]
        values[i] = instruction.evaluate(*operands) if instruction.evaluate else None
        checked += check_instruction(instruction, [entry.instructions[o].shape for o in instruction.operands], operands)
    assert checked > 0


def check_instruction(instruction: Instruction, shapes: list[Shape], operands: list[Any]) -> int:
    """Cuts each axis in two and computes the halves; returns how many axes there were."""
    axes = axes_of(instruction, shapes)
    if axes is None or instruction.opcode in ("constant", "iota", "get-tuple-element") or instruction.shape.is_tuple:
        return 0
    checked = 0
    for group in axis_groups(axes, shapes, instruction.shape):
        sizes = [(instruction.shape if n == RESULT else shapes[n]).dims[d] for n, d in group]
        if (instruction.opcode, RESULT) == ("broadcast", min(n for n, _ in group)) and len(group) == 1:
            continue  # an axis that the operand has not: any tile of it can be had
        if min(sizes) < 2 or any(size % 2 for size in sizes) or not any(n == RESULT for n, _ in group):
            continue
        whole = instruction.evaluate(*operands)  # type: ignore[misc]
        for half in (0, 1):
            parts = [
                cut(operand, [d for n, d in group if n == number], half) for number, operand in enumerate(operands)
            ]
            expected = cut(whole, [d for n, d in group if n == RESULT], half)
            found = instruction_on(instruction, parts, expected.shape)
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
        checked += 1
    return checked


def cut(operand: Any, dimensions: list[int], half: int) -> Any:
    operand = np.asarray(operand)
    for d in dimensions:
        size = operand.shape[d] // 2
        operand = np.take(operand, range(half * size, (half + 1) * size), axis=d)
    return operand


def instruction_on(instruction: Instruction, parts: list[Any], dims: tuple[int, ...]) -> Any:
    """Computes an instruction on smaller operands; those that state their result's shape, with that of the tile."""
    if instruction.opcode in ("reshape", "bitcast"):
        return parts[0].reshape(dims)
    if instruction.opcode == "broadcast":
        places = [int(d) for d in instruction.attribute("dimensions").strip("{}").split(",") if d]
        return np.asarray(lax.broadcast_in_dim(parts[0], dims, places))
    if instruction.opcode == "slice":
        texts = instruction.attribute("slice").strip("{}").split(", ")
        bounds = [tuple(int(n) for n in text.strip("[]").split(":")) for text in texts]
        for d, (low, high, *_) in enumerate(bounds):
            is_cut = (low, high) != (0, dims[d] * 2)
            parts[0] = np.take(parts[0], range(low, high), axis=d) if is_cut and dims[d] == high - low else parts[0]
        return parts[0]
    if instruction.opcode == "gather":
        return np.asarray(parts[0])[np.asarray(parts[1])[..., 0]]
    if instruction.opcode == "convolution" and parts[1].shape[2] == 1 and instruction.attribute("feature_group_count"):
        return np.asarray(conv(1, 3, parts[0].shape[-1])(parts[0], parts[1]))
    return np.asarray(instruction.evaluate(*parts))  # type: ignore[misc]


def of(fun: Callable[..., Any], *arguments: Any) -> tuple[Axes | None, ...]:
    entry = inlined(fun, *arguments).entry_computation
    return tuple(
        axes_of(i, [entry.instructions[o].shape for o in i.operands])
        for i in entry.instructions
        if i.opcode not in ("parameter", "constant")
    )


def test_what_a_window_sees_is_whole() -> None:
    (strided,) = of(conv(2, 3), array(4, 6, 6, 2), array(3, 3, 2, 8))
    assert strided is not None
    assert {(0, 1), (0, 2), (RESULT, 1), (RESULT, 2)} <= set(strided.whole)
    (point,) = of(conv(1, 1), array(4, 6, 6, 2), array(1, 1, 2, 8))
    assert point is not None
    assert not point.whole


def test_sums_are_named() -> None:
    (product,) = of(jnp.matmul, array(4, 6), array(6, 8))
    assert product is not None
    assert product.summed == ((0, 1),)
    assert (product.rows, product.columns, product.depth) == (((0, 0),), ((1, 1),), ((0, 1),))


def test_loops_and_calls_of_others_have_no_axes() -> None:
    def fun(x: Any) -> Any:
        return lax.while_loop(lambda y: jnp.sum(y) < 3.0, lambda y: y + 1, x), jnp.linalg.cholesky(x @ x.T)

    found = inlined(fun, array(4, 4)).entry_computation
    kinds = {
        i.opcode: axes_of(i, [found.instructions[o].shape for o in i.operands])
        for i in found.instructions
        if i.opcode in ("while", "cholesky")
    }
    assert kinds == {"while": None, "cholesky": None}


def test_attributes_that_contradict_the_shapes_make_no_axes() -> None:
    bad = Instruction("d", "dot", Shape("f32", (4, 8)), (0, 1), attributes=(("lhs_contracting_dims", "{0,1}"),))
    assert axes_of(bad, [Shape("f32", (4, 6)), Shape("f32", (6, 8))]) is None


def test_dynamic_dimensions_are_left_alone() -> None:
    shape = Shape("f32", (4,), dynamic=(True,))
    assert axes_of(Instruction("a", "abs", shape, (0,)), [shape]) is None


def test_jax_is_what_the_cases_are_made_of() -> None:
    assert all(jax.eval_shape(fun, *arguments) is not None for fun, arguments in CASES.values())
