"""From JAX to a Graph: values that are given, the program's interface, names, sources, aliases, errors.

Primitives are tested in `test_jaxpr_rules.py`, control flow in `test_jaxpr_control.py`; that the programs compute the
same is tested in `emulator/test_interpreter.py`.
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
from traced_graphs import opcodes, shaped

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
from memplan.compiler.ir import Alias, Source
from memplan.compiler.ir.printer import print_graph
from memplan.compiler.ir.shape import BITS_PER_ELEMENT
from memplan.compiler.ir.validate import check_graph

jax.config.update("jax_platforms", "cpu")


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


@settings(max_examples=40)
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
