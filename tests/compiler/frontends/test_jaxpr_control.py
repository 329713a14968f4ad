"""Control flow: loops, branches and calls as XLA has them, and the primitives that contain a jaxpr of their own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from traced_graphs import described, only, opcodes, shaped

from memplan.compiler.frontends.jaxpr import trace
from memplan.compiler.ir import Instruction
from memplan.compiler.ir.trip_count import trip_count

jax.config.update("jax_platforms", "cpu")


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
