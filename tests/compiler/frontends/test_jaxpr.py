"""From JAX to a Graph: opcodes and attributes as XLA has them, control flow, names, sources, aliases, errors.

That the programs compute the same is tested in `emulator/test_interpreter.py`.
"""

from __future__ import annotations

import doctest
import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas

from memplan.compiler.analysis.flatten import flatten
from memplan.compiler.errors import GraphError
from memplan.compiler.frontends import jaxpr as jaxpr_frontend
from memplan.compiler.frontends import (
    jaxpr_arrays,
    jaxpr_combinators,
    jaxpr_control,
    jaxpr_equation,
    jaxpr_rules,
    jaxpr_versions,
    parse_hlo,
)
from memplan.compiler.frontends.jaxpr import graph_of_jaxpr, trace
from memplan.compiler.frontends.jaxpr_arrays import hlo_dtype, literal_text, numpy_dtype, physical, shape_of
from memplan.compiler.ir import Alias, Computation, Graph, Instruction, Source
from memplan.compiler.ir.printer import print_graph
from memplan.compiler.ir.shape import BITS_PER_ELEMENT
from memplan.compiler.ir.trip_count import trip_count
from memplan.compiler.ir.validate import check_graph

jax.config.update("jax_platforms", "cpu")


def shaped(*dims: int, dtype: Any = "float32") -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(dims, dtype)


def opcodes(graph: Graph) -> list[str]:
    return [instruction.opcode for instruction in graph.entry_computation.instructions]


def only(graph: Graph, opcode: str) -> Instruction:
    (found,) = (instruction for _, instruction in graph.instructions() if instruction.opcode == opcode)
    return found


def described(computation: Computation) -> list[str]:
    """Returns each instruction in one line: `name = opcode(operands)`."""
    names = [instruction.name for instruction in computation.instructions]
    return [
        f"{i.name} = {i.opcode}({', '.join(names[operand] for operand in i.operands) or i.payload})"
        for i in computation.instructions
    ]


# Primitives that are opcodes


def test_a_small_program() -> None:
    graph = trace(lambda x, y: jnp.tanh(x @ y) * 2, shaped(4, 8), shaped(8, 2))
    assert described(graph.entry_computation) == [
        "x = parameter(0)",
        "y = parameter(1)",
        "dot_general = dot(x, y)",
        "tanh = tanh(dot_general)",
        "constant = constant(2)",
        "mul = multiply(tanh, constant)",
    ]
    dot, tanh = graph.entry_computation.instructions[2:4]
    assert dot.attributes == (
        ("lhs_contracting_dims", "{1}"),
        ("rhs_contracting_dims", "{0}"),
        ("primitive", "dot_general"),
    )
    assert str(dot.shape) == "f32[4,2]"
    assert tanh.source.op_name == "jit(<lambda>)/tanh"
    assert (graph.name, graph.entry, graph.origin) == ("jit__lambda", "main", "jaxpr")


F = (4, 6)
UNUSED = {"primitive", "to_apply", "select", "scatter", "metadata", "origin", "frontend_attributes", "sharding"}
# Function, shapes of its arguments, and the opcodes whose attributes must be those of XLA.
AS_XLA: dict[str, tuple[Callable[..., Any], list[tuple[int, ...]], list[str]]] = {
    "dot": (lambda x, y: x @ y, [(4, 5), (5, 3)], ["dot"]),
    "dot_batch": (lambda x, y: jnp.einsum("bqhd,bkhd->bhqk", x, y), [(2, 3, 4, 5), (2, 6, 4, 5)], ["dot"]),
    "dot_precision": (lambda x, y: jnp.dot(x, y, precision="highest"), [(4, 5), (5, 3)], ["dot"]),
    "convolution": (
        lambda x, w: lax.conv_general_dilated(x, w, (2, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")),
        [(2, 8, 8, 4), (3, 3, 4, 6)],
        ["convolution"],
    ),
    "convolution_groups": (
        lambda x, w: lax.conv_general_dilated(
            x, w, (1,), [(1, 2)], lhs_dilation=(2,), rhs_dilation=(3,), feature_group_count=2
        ),
        [(2, 4, 9), (6, 2, 3)],
        ["convolution"],
    ),
    "convolution_grad": (
        jax.grad(lambda w, x: lax.conv(x, w, (2, 2), "SAME").sum(), (0, 1)),
        [(6, 4, 3, 3), (2, 4, 8, 8)],
        ["convolution"],
    ),
    "fft": (lambda x: (jnp.fft.rfft(x), jnp.fft.fft2(x), jnp.fft.irfft(jnp.fft.rfft(x))), [(4, 8)], ["fft"]),
    "slice": (lambda x: (x[1:3, ::2], x[1:, 2:5]), [F], ["slice"]),
    "dynamic_slice": (lambda x, i: lax.dynamic_slice(x, (i.astype(int), 2), (2, 3)), [F, ()], ["dynamic-slice"]),
    "pad": (lambda x: (jnp.pad(x, ((1, 2), (0, 3))), lax.pad(x, 0.0, ((0, 0, 1), (-1, 0, 0)))), [F], ["pad"]),
    "concatenate": (lambda x: jnp.concatenate([x, x + 1], axis=1), [F], ["concatenate"]),
    "reverse": (lambda x: x[::-1], [F], ["reverse"]),
    "transpose": (lambda x: jnp.transpose(x, (2, 0, 1)), [(2, 3, 4)], ["transpose"]),
    "broadcast": (lambda x: jnp.broadcast_to(x[:, None], (4, 3, 6)), [F], ["broadcast"]),
    "iota": (lambda x: x + lax.iota(jnp.float32, 6), [F], ["iota"]),
    "gather": (lambda x: (x[jnp.array([1, 3])], x[:, jnp.array([[0], [2]])]), [F], ["gather"]),
    "gather_batch": (lambda x, i: jnp.take_along_axis(x, i.astype(int), axis=1), [F, (4, 2)], ["gather"]),
    "scatter": (lambda x: (x.at[jnp.array([1, 3])].set(1.0), x.at[:, jnp.array([2])].add(1.0)), [F], ["scatter"]),
    "reduce": (lambda x: (x.sum(0), x.max(1), x.prod(), (x > 0).any(1), (x > 0).all()), [F], ["reduce"]),
    "reduce_window": (
        lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (2, 2), (2, 1), "SAME", window_dilation=(1, 2)),
        [F],
        ["reduce-window"],
    ),
    "select_and_scatter": (
        jax.grad(lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (2, 2), (2, 2), "VALID").sum()),
        [F],
        ["select-and-scatter"],
    ),
    "sort": (lambda x: (jnp.sort(x, axis=0), lax.sort((x, x), num_keys=2, is_stable=False)), [F], ["sort"]),
    "compare": (lambda x, y: (x < y, x >= y, x == y), [F, F], ["compare"]),
    "reduce_precision": (lambda x: lax.reduce_precision(x, 5, 3), [F], ["reduce-precision"]),
    "random_bits": (lambda k: lax.rng_bit_generator(k.view("uint32"), (3,)), [(4,)], ["rng-bit-generator"]),
}


@pytest.mark.parametrize("name", AS_XLA)
def test_attributes_are_those_of_xla(name: str) -> None:
    """The oracle is the module that JAX lowers the function to, read by the HLO frontend."""
    fun, dims, wanted = AS_XLA[name]
    args = [shaped(*d) for d in dims]
    ours = trace(fun, *args)
    theirs = parse_hlo(jax.jit(fun).lower(*args).compiler_ir("hlo").as_hlo_text())

    def forms(graph: Graph, opcode: str) -> set[tuple[Any, ...]]:
        return {
            (str(replace(i.shape, layout=None)) if i.shape.is_array else "", frozenset(_kept(i)))
            for _, i in graph.instructions()
            if i.opcode == opcode
        }

    for opcode in wanted:
        found = forms(ours, opcode)
        assert found
        assert found <= forms(theirs, opcode)


def _kept(instruction: Instruction) -> list[tuple[str, str]]:
    attributes = [(k, v) for k, v in instruction.attributes if k not in UNUSED]
    # XLA states that an order is total where it is not the default one, which depends on the type.
    return [pair for pair in attributes if pair[0] != "type"]


@pytest.mark.parametrize(
    ("fun", "expected"),
    [
        (lambda x: lax.square(x), "multiply(x, x)"),
        (lambda x: x**3, "power(x, constant)"),
        (lambda x: jnp.where(x > 0, x, -x), "select(gt, x, neg)"),
        (lambda x: lax.clamp(0.0, x, 1.0), "clamp(constant, x, constant.1)"),
        (lambda x: lax.round(x, lax.RoundingMethod.TO_NEAREST_EVEN), "round-nearest-even(x)"),
        (lambda x: lax.round(x, lax.RoundingMethod.AWAY_FROM_ZERO), "round-nearest-afz(x)"),
        (lambda x: jax.scipy.special.erf(x), "erf(x)"),
        (lambda x: lax.erf_inv(x), "erf_inv(x)"),
        (lambda x: x.astype("bfloat16"), "convert(x)"),
        (lambda x: x[None], "reshape(x)"),
        (lambda x: x.reshape(-1), "reshape(x)"),
        (lambda x: lax.bitcast_convert_type(x, "uint32"), "bitcast-convert(x)"),
        (lambda x: lax.cumsum(x), "cumsum(x)"),
        (lambda x: checkpoint_name(x, "x"), "bitcast(x)"),
        (lambda x: lax.argmax(x, 0, "int32"), "argmax(x)"),
        (lambda x: lax.top_k(x, 2), "topk(x)"),
    ],
)  # fmt: skip
def test_the_opcode_of_a_primitive(fun: Callable[..., Any], expected: str) -> None:
    graph = trace(fun, shaped(4, 6))
    texts = [text.partition(" = ")[2] for c in graph.computations.values() for text in described(c)]
    assert expected in [text.replace("jit__where/", "") for text in texts] or expected in _inlined(graph)


def _inlined(graph: Graph) -> list[str]:
    """Operations of callees with the names of their callers' values, one level deep."""
    result = []
    for instruction in graph.entry_computation.instructions:
        for name in instruction.called:
            callee = graph.computations[name]
            given_names = [graph.entry_computation.instructions[o].name for o in instruction.operands]
            formal = {callee.instructions[p].name: n for p, n in zip(callee.parameters, given_names, strict=True)}
            for text in described(callee):
                operation = text.partition(" = ")[2]
                opcode, _, rest = operation.partition("(")
                operands = [formal.get(o, o) for o in rest.rstrip(")").split(", ")]
                result.append(f"{opcode}({', '.join(operands)})")
    return result


def test_a_broadcast_does_not_stretch_ones() -> None:
    graph = trace(lambda x: jnp.broadcast_to(x, (5, 4, 6)), shaped(4, 1))
    entry = graph.entry_computation
    assert described(entry) == ["x = parameter(0)", "bitcast = bitcast(x)", "broadcast_in_dim = broadcast(bitcast)"]
    assert str(entry.instructions[1].shape) == "f32[4]"
    assert entry.root_instruction.attribute("dimensions") == "{1}"


def test_names_of_values_that_a_checkpoint_policy_asks_for_are_kept() -> None:
    graph = trace(lambda x: checkpoint_name(jnp.sin(x), "features") * 2, shaped(4))
    assert only(graph, "bitcast").attribute("name") == '"features"'


def test_host_memory_is_space_5() -> None:
    graph = trace(lambda x: jax.device_put(x * 2, jax.memory.Space.Host), shaped(4))
    assert str(graph.entry_computation.root_instruction.shape) == "f32[4]{0:S(5)}"
    assert graph.entry_computation.root_instruction.opcode == "copy"


def test_kernels_and_foreign_calls_name_what_they_call() -> None:
    def kernel(x_ref: Any, out_ref: Any) -> None:
        out_ref[...] = x_ref[...] * 2

    def call(x: Any) -> Any:
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return pallas.pallas_call(kernel, out_shape=shape, input_output_aliases={0: 0}, name="doubled")(x + 1)

    pallas_call = only(trace(call, shaped(8, 128)), "custom-call")
    assert pallas_call.attribute("custom_call_target") == '"pallas_call"'
    assert pallas_call.attribute("kernel_name") == '"doubled"'
    assert pallas_call.attribute("output_to_operand_aliasing") == "{{}: (0, {})}"

    shapes = [shaped(3), shaped(4)]
    ffi = trace(lambda x: jax.ffi.ffi_call("my_target", shapes, input_output_aliases={0: 1})(x), shaped(4))
    assert only(ffi, "custom-call").attribute("custom_call_target") == '"my_target"'
    assert only(ffi, "custom-call").attribute("output_to_operand_aliasing") == "{{1}: (0, {})}"


# Control flow


def test_a_scan_is_a_while_over_rows() -> None:
    def step(total: Any, x: Any) -> Any:
        return total + x, total * 2

    graph = trace(lambda xs: lax.scan(step, 0.0, xs), shaped(12))
    loop = only(graph, "while")
    assert str(loop.shape) == "(s32[], f32[], f32[12], f32[12])"
    assert loop.attribute("backend_config") == '{"known_trip_count":{"n":"12"}}'
    assert trip_count(graph, loop, graph.entry_computation) == (12.0, True)
    assert trip_count(graph, _without(loop, "backend_config"), graph.entry_computation) == (12.0, True)
    assert described(graph.called(loop, "condition")) == [
        "parameter = parameter(0)",
        "get_tuple_element = get-tuple-element(parameter)",
        "constant.2 = constant(12)",
        "compare = compare(get_tuple_element, constant.2)",
    ]
    assert [line.partition(" = ")[2] for line in described(graph.called(loop, "body"))] == [
        "parameter(0)",
        *["get-tuple-element(parameter.1)"] * 4,
        "dynamic-slice(get_tuple_element.7, get_tuple_element.4)",
        "bitcast(dynamic_slice)",
        "add(get_tuple_element.5, bitcast)",
        "constant(2)",
        "multiply(get_tuple_element.5, constant.4)",
        "bitcast(mul)",
        "dynamic-update-slice(get_tuple_element.6, bitcast.1, get_tuple_element.4)",
        "constant(1)",
        "add(get_tuple_element.4, constant.5)",
        "tuple(add.1, add, dynamic_update_slice, get_tuple_element.7)",
    ]
    allocation = only(graph, "custom-call")
    assert allocation.attribute("custom_call_target") == '"AllocateBuffer"'


def _without(instruction: Instruction, key: str) -> Instruction:
    return replace(instruction, attributes=tuple(pair for pair in instruction.attributes if pair[0] != key))


def test_a_reverse_scan_counts_down() -> None:
    graph = trace(lambda xs: lax.scan(lambda c, x: (c + x, None), 0.0, xs, reverse=True)[0], shaped(5))
    body = graph.called(only(graph, "while"), "body")
    index = only(replace(graph, computations={"body": body}), "subtract")
    last, counter = (body.instructions[operand] for operand in index.operands)
    assert (last.payload, counter.attribute("index")) == ("4", "0")


@pytest.mark.parametrize(
    ("length", "unroll", "trips", "left_over"),
    [(12, 4, 3, 0), (13, 4, 3, 1), (8, 8, 0, 8), (3, 5, 0, 3), (7, 4, 0, 7), (1, 1, 1, 0), (0, 1, 0, 0)],
)
def test_unrolled_iterations(length: int, unroll: int, trips: int, left_over: int) -> None:
    """What does not fill a turn of the loop comes after it; a loop of one turn that is unrolled is none."""
    graph = trace(lambda xs: lax.scan(lambda c, x: (jnp.sin(c) + x, None), 0.0, xs, unroll=unroll)[0], shaped(length))
    loops = [i for _, i in graph.instructions() if i.opcode == "while"]
    assert len(loops) == (trips > 0)
    assert sum(i.opcode == "sine" for i in graph.entry_computation.instructions) == left_over
    for loop in loops:
        assert trip_count(graph, loop, graph.entry_computation) == (trips, True)
        body = graph.called(loop, "body")
        assert sum(i.opcode == "sine" for i in body.instructions) == unroll


def test_a_while_carries_constants_state_and_nothing_else() -> None:
    graph = trace(
        lambda n, w, x: lax.while_loop(lambda s: s[0] < n, lambda s: (s[0] + 1, s[1] @ w), (0, x)),
        shaped(dtype="int32"), shaped(3, 3), shaped(3),
    )  # fmt: skip
    loop = only(graph, "while")
    assert str(loop.shape) == "(s32[], f32[3,3], s32[], f32[3])"
    assert not loop.attribute("backend_config")
    root = graph.called(loop, "condition").root_instruction
    assert (root.opcode, root.attribute("direction")) == ("compare", "LT")
    assert only(graph, "dot").source.op_name == "jit(<lambda>)/while/body/dot_general"


def test_a_loop_with_a_constant_number_of_turns_has_a_known_trip_count() -> None:
    graph = trace(lambda x: lax.while_loop(lambda s: s[0] < 7, lambda s: (s[0] + 1, s[1] * 2), (0, x)), shaped(3))
    assert trip_count(graph, only(graph, "while"), graph.entry_computation) == (7.0, True)


def test_a_batch_of_loops_goes_on_until_all_are_done() -> None:
    graph = trace(jax.vmap(lambda x: lax.while_loop(lambda s: s < 3.0, lambda s: s * 2, x)), shaped(5))
    loop = only(graph, "while")
    assert graph.called(loop, "condition").root_instruction.opcode == "reduce"
    assert [i.opcode for i in graph.called(loop, "body").instructions].count("select") == 1


def test_branches() -> None:
    graph = trace(lambda i, x: lax.switch(i, [jnp.sin, jnp.cos, lambda x: x], x), shaped(dtype="int32"), shaped(3))
    conditional = only(graph, "conditional")
    assert conditional.attribute("branch_computations") == "{%branch_0, %branch_1, %branch_2}"
    assert conditional.called == ("branch_0", "branch_1", "branch_2")
    assert [graph.computations[name].root_instruction.opcode for name in conditional.called] == ["tuple"] * 3
    index, *arguments = (graph.entry_computation.instructions[o] for o in conditional.operands)
    assert index.opcode == "clamp"
    assert {argument.opcode for argument in arguments} == {"tuple"}
    assert only(graph, "sine").source.op_name == "jit(<lambda>)/cond/branch_0_fun/sin"


def test_calls_keep_the_name_of_what_is_called() -> None:
    @jax.jit
    def layer(features: Any) -> Any:
        return jnp.sin(features), features + 1

    graph = trace(lambda x: layer(layer(x)[1]), shaped(3))
    first, second = (i for _, i in graph.instructions() if i.opcode == "call")
    assert (first.name, first.called, first.attribute("to_apply")) == ("layer.1", ("layer",), "%layer")
    assert second.called != first.called  # each place has its own, as XLA's flattened call graph has
    callee = graph.computations["layer"]
    assert callee.instructions[callee.parameters[0]].name == "features"
    assert str(first.shape) == "(f32[3], f32[3])"
    assert only(replace(graph, computations={"layer": callee}), "add").source.op_name == "jit(<lambda>)/jit(layer)/add"


@pytest.mark.parametrize(
    ("fun", "primitive"),
    [
        (lambda x: jax.checkpoint(lambda x: jnp.sin(jnp.cos(x)))(x), ("remat2", "checkpoint")),
        (lambda x: jax.nn.relu(x), ("custom_jvp_call",)),
        (jax.custom_vjp(lambda x: jnp.sin(x)), ("custom_vjp_call",)),
        (lambda x: lax.composite(jnp.sin, name="my.sine")(x), ("composite",)),
        (lambda x: jnp.linalg.solve(jnp.eye(3), x), ("custom_linear_solve",)),
        (lambda x: jax.custom_derivatives.linear_call(lambda r, x: x * r, lambda r, x: x * r, 2.0, x), ("linear_call",)),
    ],
)  # fmt: skip
def test_every_other_nested_function_is_a_call(fun: Any, primitive: tuple[str, ...]) -> None:
    if hasattr(fun, "defvjp"):
        fun.defvjp(lambda x: (fun(x), x), lambda x, g: (g,))
    graph = trace(fun, shaped(3))
    (call,) = (i for _, i in graph.instructions() if i.attribute("primitive") in primitive)
    assert call.opcode == "call"
    assert graph.warnings == ()


def test_what_is_inside_an_unknown_primitive_is_said_to_be_opaque() -> None:
    mesh = jax.make_mesh((1,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("x")
    graph = trace(jax.shard_map(lambda x: x * 2, mesh=mesh, in_specs=spec, out_specs=spec), shaped(4))
    assert graph.warnings == (
        "shard_map is kept as one opaque instruction; what its jaxpr does inside is not planned",
    )  # fmt: skip
    assert opcodes(graph) == ["parameter", "shard_map"]


def test_results_that_nobody_uses_are_not_computed() -> None:
    graph = trace(lambda x: (jnp.sin(x), jnp.cos(x))[0], shaped(3))
    assert opcodes(graph) == ["parameter", "sine"]
    printing = trace(lambda x: (jax.debug.print("{x}", x=x), x + 1)[1], shaped(3))
    assert len(opcodes(printing)) == 4, "what has an effect stays"


# Values that are given


def test_closed_over_arrays_are_constants_of_the_entry() -> None:
    small, large = np.arange(3, dtype=np.float32), np.zeros((100, 3), np.float32)
    graph = trace(lambda x: x + small + large, shaped(3))
    constants = [i for i in graph.entry_computation.instructions if i.opcode == "constant"]
    assert [(str(i.shape), i.payload) for i in constants] == [("f32[3]", "{0, 1, 2}"), ("f32[100,3]", "{...}")]
    assert constants[0].evaluate is not None
    np.testing.assert_array_equal(constants[0].evaluate(), small)


def test_a_scalar_is_one_constant_per_computation_and_type() -> None:
    graph = trace(lambda x, n: (x * 2 + 2, n * 2), shaped(3), shaped(3, dtype="int32"))
    constants = [i for i in graph.entry_computation.instructions if i.opcode == "constant"]
    assert sorted((str(i.shape), i.payload) for i in constants) == [("f32[]", "2"), ("s32[]", "2")]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.float32(1.5), "1.5"), (np.float32(2), "2"), (np.float32(-0.0), "-0"), (np.float32(np.inf), "inf"),
        (np.float32(-np.inf), "-inf"), (np.float32(np.nan), "nan"), (np.float32(1e20), "1e+20"), (np.int8(-3), "-3"),
        (np.bool_(True), "true"), (np.complex64(1 - 2j), "(1, -2)"), (ml_dtypes.bfloat16(0.1), "0.1001"), (np.float16(0.1), "0.099976"),
        (ml_dtypes.int4(-8), "-8"), (np.array([True, False]), "{true, false}"), (np.zeros(11), "{...}"),
        (np.array([[1, 2], [3, 4]]), "{ { 1, 2 }, { 3, 4 } }"), (np.zeros((0, 3)), "{  }"),
        (np.array([[1.5], [2]]), "{ {1.5}, {2} }"), (np.array([[[1, 2]]]), "{ { { 1, 2 } } }"), (np.array([]), "{}"),
    ],
)  # fmt: skip
def test_literals_are_printed_as_xla_prints_them(value: Any, text: str) -> None:
    assert literal_text(np.asarray(value)) == text


def test_types_have_xlas_names() -> None:
    arrays = (
        "pred",
        "s4",
        "s8",
        "s16",
        "s32",
        "s64",
        "u4",
        "u8",
        "u16",
        "u32",
        "u64",
        "bf16",
        "f16",
        "f32",
        "f64",
        "c64",
        "c128",
    )
    for name in arrays:
        assert name in BITS_PER_ELEMENT
        assert hlo_dtype(numpy_dtype(name)) == name
    assert hlo_dtype(jax.dtypes.float0) == "pred"
    assert str(shape_of(jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 3)))) == "u32[3,2]"
    assert str(shape_of(jax.eval_shape(lambda: jax.random.key(0, impl="rbg")))) == "u32[4]"
    assert physical(np.zeros(3, jax.dtypes.float0)).dtype == np.bool_
    with pytest.raises(GraphError, match="numpy has no type 'opaque'"):
        numpy_dtype("opaque")


# The program's interface


def test_pytrees_scalars_static_and_named_arguments() -> None:
    def fun(params: Any, n: int, scale: Any, *rest: Any) -> Any:
        return params["w"] * scale + sum(rest) * n

    graph = trace(fun, {"w": np.ones(3, np.float32)}, 4, 2.0, shaped(3), static_argnums=1)
    entry = graph.entry_computation
    parameters = [entry.instructions[i] for i in entry.parameters]
    assert [(i.name, str(i.shape), i.source.op_name) for i in parameters] == [
        ("params_w", "f32[3]", "params['w']"),
        ("scale", "f32[]", "scale"),
        ("rest_0", "f32[3]", "rest[0]"),
    ]
    constants = [i.payload for i in entry.instructions if i.opcode == "constant"]
    assert "4" in constants


def test_sources_are_lines_of_the_user() -> None:
    def inner(x: Any) -> Any:
        return jax.nn.relu(x)

    line = inspect.getsourcelines(inner)[1] + 1
    graph = trace(lambda x: inner(x), shaped(3))
    for _, instruction in graph.instructions():
        if instruction.opcode in ("call", "maximum"):
            assert (instruction.source.file, instruction.source.line) == (__file__, line)


def test_what_transforms_an_operation_is_in_its_path() -> None:
    graph = trace(jax.grad(lambda x: jnp.sum(jnp.sin(x))), shaped(3))
    paths = [i.source.op_name for _, i in graph.instructions() if i.opcode in ("cosine", "multiply")]
    assert paths == ["jit(<lambda>)/jvp()/cos", "jit(<lambda>)/transpose(jvp())/mul"]


def sgd(params: Any, momentum: Any, x: Any) -> Any:
    gradient = jax.grad(lambda p: jnp.sum(jnp.tanh(x @ p["w"] + p["b"])))(params)
    momentum = jax.tree.map(lambda m, g: 0.9 * m + g, momentum, gradient)
    return jax.tree.map(lambda p, m: p - m, params, momentum), momentum, jnp.sum(x)


@pytest.mark.parametrize("donated", [(), (0,), (1,), (0, 1), (0, 1, 2)])
def test_donated_arguments_are_reused_as_jax_does(donated: tuple[int, ...]) -> None:
    params = {"w": shaped(4, 3), "b": shaped(3)}
    args = (params, params, shaped(5, 4))
    graph = trace(sgd, *args, donate_argnums=donated)
    with pytest.warns() if 2 in donated else _no_warning():
        compiled = jax.jit(sgd, donate_argnums=donated).lower(*args).compile()
    expected = parse_hlo(compiled.as_text()).aliases
    assert sorted(graph.aliases, key=repr) == sorted(expected, key=repr)
    assert bool(graph.aliases) == bool(donated)


class _no_warning:
    def __enter__(self) -> None: ...
    def __exit__(self, *_: Any) -> None: ...


def test_a_jitted_function_keeps_what_it_donates() -> None:
    step = jax.jit(lambda x: x + 1, donate_argnums=0)
    assert trace(step, shaped(3)).aliases == (Alias((), 0, (), must=False),)
    assert opcodes(trace(step, shaped(3))) == ["parameter", "constant", "add"]


def test_results_in_memory_of_somebody_else_are_copied() -> None:
    """Of an argument, a constant, another result, or views of them."""
    graph = trace(lambda x: (x, jnp.sin(x), x.reshape(2, 2), 3.0), shaped(4))
    root = graph.entry_computation.root_instruction
    assert [graph.entry_computation.instructions[o].opcode for o in root.operands] == ["copy", "sine", "copy", "copy"]
    twice = trace(lambda x: (lambda y: (y, y))(jnp.sin(x)), shaped(4))
    entry = twice.entry_computation
    assert [entry.instructions[o].opcode for o in entry.root_instruction.operands] == ["sine", "copy"]
    donated = trace(lambda x: (x, x + 1), shaped(4), donate_argnums=0)
    assert opcodes(donated) == ["parameter", "constant", "add", "tuple"]


def test_memory_of_a_traced_program() -> None:
    """Nobody made it safe for a product to overwrite its operand, and a reshape leaves its bytes where they are."""
    product = flatten(trace(lambda x, w: x @ w, shaped(4, 4), shaped(4, 4), donate_argnums=0))
    assert [storage.values for storage in product.storages] == [("x",), ("w",), ("dot_general",)]
    elementwise = flatten(trace(lambda x, w: x * w, shaped(4, 4), shaped(4, 4), donate_argnums=0))
    assert [storage.values for storage in elementwise.storages] == [("x", "mul"), ("w",)]
    reshaped = flatten(trace(lambda x: jnp.sin(jnp.cos(x).reshape(-1)), shaped(4, 4)))
    assert [storage.values for storage in reshaped.storages] == [("x",), ("cos", "reshape"), ("sin",)]


def test_no_results_and_no_arguments() -> None:
    assert opcodes(trace(lambda x: None, shaped(3))) == ["parameter", "tuple"]
    assert opcodes(trace(lambda: jnp.zeros(3))) == ["constant", "broadcast"]


def test_a_jaxpr_can_be_given_itself() -> None:
    graph = graph_of_jaxpr(jax.make_jaxpr(lambda x: x + 1)(shaped(3)), "step", donated=[True])
    assert (graph.name, graph.aliases) == ("jit_step", (Alias((), 0, (), must=False),))


# Errors


def test_mutable_references_are_refused_with_the_place() -> None:
    def fun(x: Any) -> Any:
        ref = jax.new_ref(x)
        ref[0] = 1.0
        return ref[...]

    line = inspect.getsourcelines(fun)[1] + 1
    with pytest.raises(GraphError, match=rf"test_jaxpr\.py:{line}: .* mutable reference, which cannot be traced"):
        trace(fun, shaped(3))


def test_shapes_that_are_not_numbers_are_refused() -> None:
    (size,) = jax.export.symbolic_shape("n")
    with pytest.raises(GraphError, match="has a dimension that is not a number"):
        trace(lambda x: x + 1, jax.ShapeDtypeStruct((size,), "float32"))


# Properties


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["sin", "dot", "sum", "scan", "cond", "jit", "where", "sort", "set"]), max_size=8))
def test_random_compositions_keep_the_rules(steps: list[str]) -> None:
    """Names are unique in the module, the Graph keeps every rule of the IR, is the same each time, and can be printed."""
    parts: dict[str, Callable[[Any], Any]] = {
        "sin": jnp.sin,
        "dot": lambda x: x @ x.T @ x,
        "sum": lambda x: x + jnp.sum(x, axis=0),
        "scan": lambda x: lax.scan(lambda c, r: (c + r, c * r), x[0], x)[1],
        "cond": lambda x: lax.cond(x[0, 0] > 0, lambda x: x * 2, lambda x: x, x),
        "jit": jax.jit(lambda x: x + 1),
        "where": lambda x: jnp.where(x > 0, x, 0.0),
        "sort": lambda x: jnp.sort(x, axis=0),
        "set": lambda x: x.at[0].set(1.0),
    }

    def fun(x: Any) -> Any:
        for step in steps:
            x = parts[step](x)
        return x

    graph = trace(fun, shaped(3, 4))
    check_graph(replace(graph, origin="hlo"))
    names = [i.name for _, i in graph.instructions()] + list(graph.computations)
    assert len(set(names)) == len(names)
    assert list(graph.computations)[-1] == graph.entry
    assert trace(fun, shaped(3, 4)) == graph
    read = parse_hlo(print_graph(graph))
    assert read.computations == {
        name: replace(c, instructions=tuple(replace(i, source=Source()) for i in c.instructions))
        for name, c in graph.computations.items()
    }


@pytest.mark.parametrize(
    "module", [jaxpr_frontend, jaxpr_arrays, jaxpr_combinators, jaxpr_control, jaxpr_equation, jaxpr_rules, jaxpr_versions]
)  # fmt: skip
def test_examples(module: Any) -> None:
    assert doctest.testmod(module).failed == 0
