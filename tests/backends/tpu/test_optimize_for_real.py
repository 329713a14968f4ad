"""The real compiler obeys plans, and refuses what cannot be, in the words that are understood here."""

from __future__ import annotations

import io
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import pytest

from memplan.backends.tpu.compile import CompileError, TpuCompiler
from memplan.backends.tpu.decisions import Placement
from memplan.backends.tpu.optimize import optimize
from memplan.backends.tpu.refusals import named_by
from memplan.backends.tpu.steering import SORT_ORDER, TENSORS, sites, sort_order
from memplan.compiler.effort import Effort
from memplan.compiler.emulator.score import score
from memplan.compiler.frontends import parse_hlo
from memplan.compiler.hardware.target import load_target
from memplan.compiler.mapping.build import build
from memplan.compiler.mapping.verify import verify

pytestmark = pytest.mark.tpu

V5E = load_target("tpu-v5e")
TOPOLOGY = "v5e:2x2"


def _program(x: jax.Array, w: jax.Array) -> jax.Array:
    """Arrays of 56 MiB compete for 112 MiB, and an argument stays from run to run."""
    first = jnp.tanh(x @ w)
    second = jnp.tanh(first @ w)
    return jnp.tanh(second @ w) + first * second


@pytest.fixture(scope="module")
def module() -> bytes:
    arguments = [jax.ShapeDtypeStruct((8192, 1792), jnp.float32), jax.ShapeDtypeStruct((1792, 1792), jnp.float32)]
    lowered = jax.jit(_program).trace(*arguments).lower(lowering_platforms=("tpu",))
    stream = io.BytesIO()
    lowered.compiler_ir("stablehlo").operation.write_bytecode(stream)
    return stream.getvalue()


@pytest.fixture(scope="module")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TpuCompiler]:
    with TpuCompiler(tmp_path_factory.mktemp("cache")) as compiler:
        yield compiler


def test_is_never_worse_and_what_it_returns_is_true(compiler: TpuCompiler, module: bytes) -> None:
    outcome = optimize(module, V5E, compile_budget=2, effort=Effort.FAST, compiler=compiler)
    assert [candidate.error for candidate in outcome.candidates] == [""] * len(outcome.candidates)
    assert outcome.ratio <= 1.0
    best = outcome.best
    again = compiler.compile(module, TOPOLOGY, best.options)
    assert again.cached
    assert again.text == best.text
    assert best.score == score(parse_hlo(best.text), V5E)
    assert verify(outcome.problem, outcome.plan) == []


def test_who_is_first_in_line_is_in_fast_memory(compiler: TpuCompiler, module: bytes) -> None:
    """Of the large values that compete, the order decides who gets in."""
    default = parse_hlo(compiler.compile(module, TOPOLOGY).text)
    built = build(default, V5E)
    problem = built.problem
    large = [
        number
        for number, buffer in enumerate(problem.buffers)
        if buffer.size == 56 * 2**20 and buffer.initial_space is None and buffer.final_space is None
    ]
    results = {
        problem.accesses[number][1].buffer: site
        for number, site in enumerate(sites(built))
        if site.operand == -1 and problem.accesses[number][1].buffer in large
    }

    def fast(first: int) -> set[int]:
        options = {SORT_ORDER: sort_order(problem, [first])}
        placement = Placement(parse_hlo(compiler.compile(module, TOPOLOGY, options).text), V5E)
        found = {buffer: placement.of(site) for buffer, site in results.items()}
        return {buffer for buffer, place in found.items() if place and place.space == 1}

    assert len(large) == 2
    for first in large:
        assert fast(first) == {first}


def test_a_demand_that_cannot_be_met_is_refused_by_name(compiler: TpuCompiler, module: bytes) -> None:
    graph = parse_hlo(compiler.compile(module, TOPOLOGY).text)
    problem = build(graph, V5E).problem
    pins = " ".join(
        f'overrides {{ hlo_position_matcher {{ instruction_name_regex: "^{operation.name}$" size_gte: 50000000 }} '
        "pin_in_alternate_memory {} }"
        for operation in problem.operations
        if operation.opcode != "point"
    )
    with pytest.raises(CompileError) as refused:
        compiler.compile(module, TOPOLOGY, {TENSORS: pins})
    assert refused.value.reason == "refused"
    operand, defined = named_by(str(refused.value))
    names = {instruction.name for _, instruction in graph.instructions()}
    assert defined in names or (operand is not None and operand[0] in names)
