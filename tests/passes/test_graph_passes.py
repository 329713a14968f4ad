"""Passes over Graphs: programs keep their values and lose what they do not need; a pass that breaks one is named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from graph_interpreter import interpret
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from memplan.compiler.frontends import parse_hlo
from memplan.compiler.frontends.jaxpr import trace
from memplan.compiler.ir import Graph
from memplan.passes import base
from memplan.passes.base import Finding, GraphContext, GraphPass, PassError, RewrittenGraph
from memplan.passes.graph.shape_cleanup import keeps_values
from memplan.passes.graph_edit import Names
from memplan.passes.graph_manager import (
    CLEAN_UPS,
    DEFAULT,
    GraphOutcome,
    chosen_graph_passes,
    count_instructions,
    run_graph_passes,
)

X = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)


def cleaned(graph: Graph, passes: Any = CLEAN_UPS) -> GraphOutcome:
    return run_graph_passes(graph, chosen_graph_passes(passes))


def made(fun: Any, *args: Any, passes: Any = CLEAN_UPS) -> GraphOutcome:
    """Runs passes over a function, checks that its values stay to the bit, and returns the outcome."""
    graph = trace(fun, *args)
    outcome = cleaned(graph, passes)
    for ours, theirs in zip(interpret(outcome.graph, *args), interpret(graph, *args), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    return outcome


def opcodes(graph: Graph) -> list[str]:
    return [i.opcode for i in graph.entry_computation.instructions if i.opcode not in ("parameter", "constant")]


def hlo(body: str, before: str = "") -> Graph:
    return parse_hlo(f"HloModule m\n\n{before}\nENTRY e {{\n  {body}\n}}\n")


def test_calls_are_inlined_at_every_depth() -> None:
    inner = jax.jit(lambda x: jnp.where(x > 0, x, 0.0))

    def fun(x: Any) -> Any:
        return lax.fori_loop(0, 3, lambda i, carry: inner(carry) + jax.jit(lambda y: inner(y) * 2)(carry), inner(x))

    outcome = made(fun, X, passes="inline")
    assert not any(i.opcode == "call" for _, i in outcome.graph.instructions())
    assert outcome.reports[0].after == count_instructions(outcome.graph)
    assert outcome.reports[0].changed


def test_a_call_that_waits_for_others_is_left() -> None:
    graph = hlo(
        "x = f32[8] parameter(0)\n  a = f32[8] abs(x)\n  ROOT y = f32[8] call(x), to_apply=f, control-predecessors={a}",
        "f {\n  p = f32[8] parameter(0)\n  ROOT n = f32[8] negate(p)\n}\n",
    )
    assert cleaned(graph, "inline").graph is graph


def test_dead_code_goes_and_effects_stay() -> None:
    graph = hlo(
        "x = f32[8] parameter(0)\n  dead = f32[8] abs(x)\n  deader = f32[8] negate(dead)\n"
        '  c = f32[8] custom-call(x), custom_call_target="print", custom_call_has_side_effect=true\n'
        '  d = f32[8] custom-call(x), custom_call_target="pure"\n  ROOT y = f32[8] exponential(x)',
        "unused {\n  p = f32[8] parameter(0)\n  ROOT n = f32[8] negate(p)\n}\n",
    )
    outcome = cleaned(graph, "dead_code")
    assert opcodes(outcome.graph) == ["custom-call", "exponential"]
    assert set(outcome.graph.computations) == {"e"}
    assert len(outcome.reports[0].changed) == 4


def test_a_loop_that_nobody_reads_goes() -> None:
    graph = trace(lambda x: (lax.fori_loop(0, 3, lambda i, y: y * 2, x), x + 1), X)
    entry = graph.entry_computation
    root = entry.root_instruction
    second = replace(root, operands=root.operands[1:], shape=replace(root.shape, elements=root.shape.elements[1:]))
    changed = replace(entry, instructions=(*entry.instructions[:-1], second))
    outcome = cleaned(replace(graph, computations={**graph.computations, graph.entry: changed}), "dead_code")
    assert "while" not in opcodes(outcome.graph)
    assert len(outcome.graph.computations) < len(graph.computations)


def test_common_subexpressions() -> None:
    outcome = made(lambda x: jnp.tanh(x * 2.0) + jnp.tanh(x * 2.0) + jnp.tanh(x * 3.0), X)
    assert opcodes(outcome.graph).count("tanh") == 2


def test_reductions_by_equal_computations_are_common_and_by_others_not() -> None:
    reducers = "".join(
        f"r{n} {{\n  a = f32[] parameter(0)\n  b = f32[] parameter(1)\n  ROOT c = f32[] {opcode}(a, b)\n}}\n"
        for n, opcode in enumerate(["add", "add", "maximum"])
    )
    reduces = "\n".join(f"  y{n} = f32[4] reduce(x, z), dimensions={{1}}, to_apply=r{n}" for n in range(3))
    graph = hlo(
        f"x = f32[4,8] parameter(0)\n  z = f32[] constant(0)\n{reduces}\n  s = f32[4] add(y0, y1)\n"
        "  ROOT t = f32[4] add(s, y2)",
        reducers,
    )
    outcome = cleaned(graph, "common_subexpressions")
    assert opcodes(outcome.graph).count("reduce") == 2
    (finding,) = outcome.reports[0].changed
    assert finding.what == "reduce"


def test_random_bits_are_never_common() -> None:
    draw = "rng(z, o), distribution=rng_uniform"
    graph = hlo(
        f"z = f32[] constant(0)\n  o = f32[] constant(1)\n  a = f32[8] {draw}\n  b = f32[8] {draw}\n"
        "  ROOT c = f32[8] subtract(a, b)"
    )
    assert cleaned(graph).graph is graph


def test_scalars_are_folded() -> None:
    graph = hlo(
        "x = f32[8] parameter(0)\n  a = s32[] constant(3)\n  b = s32[] constant(2147483647)\n  c = s32[] add(a, b)\n"
        "  d = s32[] constant(0)\n  l = pred[] compare(c, d), direction=LT\n  y = f32[8] negate(x)\n"
        "  ROOT r = f32[8] select(l, x, y)"
    )
    outcome = cleaned(graph, "constant_folding,dead_code")
    assert [i.opcode for i in outcome.graph.entry_computation.instructions] == ["parameter"]


@pytest.mark.parametrize(
    ("expression", "folds"),
    [
        ("multiply(x, one)", True),
        ("multiply(one, x)", True),
        ("divide(x, one)", True),
        ("subtract(x, zero)", True),
        ("divide(one, x)", False),
        ("subtract(zero, x)", False),
        ("add(x, zero)", False),  # -0 + 0 is 0
        ("subtract(x, minus)", False),  # -0 - -0 is 0
        ("multiply(x, zero)", False),  # inf * 0 is nan
    ],
)
def test_what_a_constant_does_not_change(expression: str, folds: bool) -> None:
    spread = "\n".join(
        f"  c{name} = f32[] constant({value})\n  {name} = f32[8] broadcast(c{name}), dimensions={{}}"
        for name, value in (("one", "1"), ("zero", "0"), ("minus", "-0"))
    )
    graph = hlo(f"x = f32[8] parameter(0)\n{spread}\n  y = f32[8] {expression}\n  ROOT z = f32[8] exponential(y)")
    outcome = cleaned(graph, "constant_folding,dead_code")
    assert (opcodes(outcome.graph) == ["exponential"]) == folds


@given(
    st.sampled_from(["add", "subtract", "multiply", "maximum", "minimum"]),
    st.sampled_from(["int32", "uint8", "float32"]),
    st.integers(0, 255),
    st.integers(0, 255),
)
@settings(max_examples=40)
def test_folding_computes_what_jax_does(opcode: str, dtype: str, a: int, b: int) -> None:
    functions = {"add": lax.add, "subtract": lax.sub, "multiply": lax.mul, "maximum": lax.max, "minimum": lax.min}
    left, right = np.asarray(a * 16843009 // 3).astype(dtype), np.asarray(b).astype(dtype)
    name = {"int32": "s32", "uint8": "u8", "float32": "f32"}[dtype]
    graph = hlo(f"a = {name}[] constant({left})\n  b = {name}[] constant({right})\n  ROOT c = {name}[] {opcode}(a, b)")
    folded = cleaned(graph, "constant_folding").graph.entry_computation.root_instruction
    assert folded.opcode == "constant"
    expected = np.asarray(functions[opcode](left, right))
    assert np.asarray(float(folded.payload)).astype(dtype) == expected


def test_shapes_are_cleaned() -> None:
    def fun(x: Any) -> Any:
        y = x.reshape(2, 16).reshape(8, 4).T.T.reshape(4, 8)
        z = x.astype(jnp.bfloat16).astype(jnp.float32).astype(jnp.bfloat16)
        w = jnp.transpose(jnp.transpose(x[None], (1, 2, 0)), (2, 1, 0))
        return y + 1, z, w + 1, lax.pad(x, 0.0, [(0, 0, 0), (0, 0, 0)]) + 1, jnp.broadcast_to(x[0][None], (3, 8))

    outcome = made(fun, X, passes="shape_cleanup,dead_code")
    found = opcodes(outcome.graph)
    # One bfloat16 is enough, but what was lost on the way to it stays lost.
    assert found.count("convert") == 1
    assert found.count("transpose") == 1
    assert "pad" not in found


def test_a_narrow_type_in_between_is_kept() -> None:
    outcome = made(lambda x: x.astype(jnp.bfloat16).astype(jnp.float32), X)
    assert opcodes(outcome.graph) == ["convert", "convert"]


@given(st.sampled_from(["bool", "int8", "uint8", "int16", "uint16", "int32", "float16", "float32", "float64"]).flatmap(
    lambda narrow: st.tuples(st.just(narrow), st.sampled_from(["int8", "uint8", "int16", "int32", "float16", "float32"]))
))  # fmt: skip
def test_kept_values_are_those_numpy_keeps(types: tuple[str, str]) -> None:
    names = {"bool": "pred", "float16": "f16", "float32": "f32", "float64": "f64"}
    narrow, wide = (names.get(t, t.replace("uint", "u").replace("int", "s")) for t in types)
    assert keeps_values(narrow, wide) == np.can_cast(types[0], types[1], "safe")


def test_elements_of_tuples_that_are_made_here() -> None:
    graph = hlo(
        "x = f32[8] parameter(0)\n  y = f32[8] abs(x)\n  t = (f32[8], f32[8]) tuple(x, y)\n"
        "  g = f32[8] get-tuple-element(t), index=1\n  ROOT z = f32[8] exponential(g)"
    )
    assert opcodes(cleaned(graph).graph) == ["abs", "exponential"]


UNARY = [jnp.tanh, jnp.negative, lambda x: x * 1.0, lambda x: x.T.T, lambda x: x.reshape(-1).reshape(x.shape)]
BINARY = [jnp.add, jnp.multiply, jnp.maximum, lambda x, y: jax.jit(jnp.subtract)(x, y)]


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=14))
@settings(max_examples=25)
def test_values_of_random_programs_stay(steps: list[tuple[int, int, int]]) -> None:
    def fun(x: Any, y: Any) -> Any:
        values = [x, y]
        for kind, first, second in steps:
            a, b = values[first % len(values)], values[second % len(values)]
            values.append(UNARY[kind](a) if kind < len(UNARY) else BINARY[kind - len(UNARY)](a, b))
        return values[-1], values[len(values) // 2]

    once = made(fun, X, X[::-1].copy())
    # A second round finds little: what inlining and folding laid open was found in the first.
    twice = cleaned(once.graph)
    assert count_instructions(twice.graph) <= count_instructions(once.graph)


def test_reports_count_instructions_and_bytes() -> None:
    outcome = made(lambda x: jnp.tanh(x) + jnp.tanh(x), X, passes="common_subexpressions,dead_code")
    first = outcome.reports[0]
    assert (first.before, first.after, first.bytes_before - first.bytes_after) == (4, 3, 2 * X.nbytes)
    assert "test_graph_passes.py" in first.changed[0].where


def test_unknown_passes_are_answered_with_the_known_ones() -> None:
    with pytest.raises(PassError, match=r"no pass over Graphs is called 'frobnicate'; known: .*dead_code.*fusion"):
        chosen_graph_passes("dead_code,frobnicate")


def test_names_of_passes() -> None:
    assert [each.name for each in chosen_graph_passes("auto")] == list(DEFAULT)
    assert chosen_graph_passes("none") == ()
    assert set(DEFAULT) <= set(base.graph_pass_names())
    assert all(base.get_graph_pass(name).description for name in DEFAULT)


def broken(rewrite: Any) -> PassError:
    graph = trace(lambda x: jnp.tanh(x), X)
    with pytest.raises(PassError) as caught:
        run_graph_passes(graph, [GraphPass("careless", "", rewrite)])
    return caught.value


def test_a_pass_that_raises_is_named() -> None:
    def rewrite(graph: Graph, context: GraphContext) -> RewrittenGraph:
        raise ValueError("oh\nno")

    assert str(broken(rewrite)) == "pass careless broke the program: ValueError: oh"


def test_a_pass_that_breaks_a_rule_is_named() -> None:
    def rewrite(graph: Graph, context: GraphContext) -> RewrittenGraph:
        entry = graph.entry_computation
        instructions = (*entry.instructions[:-1], replace(entry.instructions[-1], operands=(7,)))
        return RewrittenGraph(replace(graph, computations={entry.name: replace(entry, instructions=instructions)}))

    assert "careless broke the program: InstructionError" in str(broken(rewrite))


def test_a_pass_that_changes_the_result_is_named() -> None:
    def rewrite(graph: Graph, context: GraphContext) -> RewrittenGraph:
        entry = graph.entry_computation
        last = entry.instructions[-1]
        changed = replace(last, shape=replace(last.shape, dtype="bf16"))
        instructions = (*entry.instructions[:-1], changed)
        return RewrittenGraph(replace(graph, computations={entry.name: replace(entry, instructions=instructions)}))

    assert "its results were f32[4,8] and are bf16[4,8]" in str(broken(rewrite))


def test_passes_of_ones_own_are_run_and_what_they_leave_is_no_change() -> None:
    def rewrite(graph: Graph, context: GraphContext) -> RewrittenGraph:
        return RewrittenGraph(graph, (Finding("tanh", "there", "not today"),))

    seen = []
    outcome = run_graph_passes(
        trace(jnp.tanh, X), [GraphPass("shy", "", rewrite)], after=lambda each, graph: seen.append(each.name)
    )
    assert seen == ["shy"]
    assert outcome.reports[0].changed == ()


def test_fresh_names() -> None:
    graph = trace(lambda x: jnp.tanh(x) + jnp.tanh(x * 2), X)
    names = Names(graph)
    taken = {i.name for _, i in graph.instructions()} | set(graph.computations)
    given_out = [names.fresh("tanh.1") for _ in range(3)]
    assert len(set(given_out)) == 3
    assert not taken & set(given_out)
