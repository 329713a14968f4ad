"""Primitives that are opcodes: those that XLA has, with its attributes, and the others under their own name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas
from traced_graphs import described, only, shaped

from memplan.compiler.frontends import parse_hlo
from memplan.compiler.frontends.jaxpr import trace
from memplan.compiler.hardware.target import load_target
from memplan.compiler.hardware.uncosted import uncosted
from memplan.compiler.hardware.work import Work, WorkCounter, total_work
from memplan.compiler.ir import Graph, Instruction

jax.config.update("jax_platforms", "cpu")


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


def test_a_kernel_warns_once_and_states_its_estimate() -> None:
    def kernel(x_ref: Any, out_ref: Any) -> None:
        out_ref[...] = x_ref[...] * 2

    def call(x: Any, estimate: Any) -> Any:
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return pallas.pallas_call(kernel, out_shape=shape, name="doubled", cost_estimate=estimate)(x)

    silent = trace(lambda x: call(call(x, None), None), shaped(8, 128))
    (said,) = silent.warnings
    assert said == (
        "the Pallas kernel 'doubled' is kept as one custom call: its arithmetic counts as nothing without a "
        "cost_estimate, and what it does inside is not planned"
    )
    estimate = pallas.CostEstimate(flops=1024, transcendentals=7, bytes_accessed=8192)
    stated = trace(lambda x: call(x, estimate), shaped(8, 128))
    (said,) = stated.warnings
    assert said == "the Pallas kernel 'doubled' is kept as one custom call: what it does inside is not planned"
    kernel_call = only(stated, "custom-call")
    assert WorkCounter(stated).of(stated.entry_computation, kernel_call) == Work(1024.0, 7.0)


def test_products_of_groups_and_of_scaled_blocks() -> None:
    sizes = jnp.array([20, 44])
    ragged = trace(lambda x, w: lax.ragged_dot(x, w, sizes), shaped(64, 9), shaped(2, 9, 8))
    assert only(ragged, "ragged-dot").attribute("rhs_group_dims") == "{0}"
    assert total_work(ragged).total_flops == 2 * 64 * 9 * 8
    x, scales = shaped(1, 64, 128), shaped(1, 64, 4)
    scaled = trace(jax.nn.scaled_matmul, x, x, scales, scales)
    assert total_work(scaled).total_flops == 2 * 64 * 64 * 128


@pytest.mark.parametrize(
    "fun",
    [
        jnp.linalg.svd, jnp.linalg.eigh, jnp.linalg.qr, jnp.cumsum, jax.scipy.special.gammaln, lax.erf_inv,
        lambda x: lax.argmax(x, 0, jnp.int32), lambda x: jnp.linalg.solve(x, x),
        lambda x: x + jax.random.normal(jax.random.key(0), (16, 16)),
    ],
)  # fmt: skip
def test_no_primitive_counts_as_nothing(fun: Callable[..., Any]) -> None:
    graph = trace(fun, shaped(16, 16))
    assert uncosted(graph, load_target("generic")) == ()
    work = total_work(graph)
    assert work.total_flops + work.transcendentals >= 16
