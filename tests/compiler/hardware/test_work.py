"""Counts of arithmetic: by hand, and against XLA's own cost analysis of real programs."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from memplan.compiler.errors import GraphError
from memplan.compiler.frontends import parse_hlo
from memplan.compiler.hardware.work import Work, WorkCounter, add_work, total_work
from memplan.compiler.ir import Graph


def work_of(text: str, name: str) -> Work:
    """Returns the work of an instruction of the entry of a module."""
    graph = parse_hlo(text)
    computation = graph.entry_computation
    return WorkCounter(graph).of(computation, computation.instructions[computation.index[name]])


ADD = """
%add { %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b) }
%least { %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  %less = pred[] compare(%x, %y), direction=LT
  ROOT %chosen = f32[] select(%less, %x, %y) }
"""


def module(line: str, parameters: str = "%p = f32[8,16] parameter(0)") -> str:
    return f"HloModule m\n{ADD}\nENTRY %main {{\n  {parameters}\n  ROOT {line}\n}}\n"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("%r = f32[8,16] negate(%p)", Work(flops=128)),
        ("%r = f32[8,16] tanh(%p)", Work(transcendentals=128)),
        ("%r = f32[16,8] transpose(%p), dimensions={1,0}", Work()),
        ("%r = f32[8] reduce(%p, %p), dimensions={1}, to_apply=%add", Work(flops=8 * 15)),
        ("%r = f32[8] reduce(%p, %p), dimensions={1}, to_apply=%least", Work(flops=2 * 8 * 15)),
        ("%r = f32[7,16] reduce-window(%p, %p), window={size=2x3 pad=0_0x1_1}, to_apply=%add", Work(flops=7 * 16 * 5)),
        ("%r = f32[8,16] reduce-window(%p, %p), window={size=1x31 pad=0_0x15_15}, to_apply=%add", Work(flops=128)),
        ("%r = f32[8,16] reduce-window(%p, %p), window={size=2x31 pad=1_0x15_15}, to_apply=%add", Work(flops=256)),
        ("%r = f32[8,16] reduce-window(%p, %p), window={size=1x30 pad=0_0x15_14}, to_apply=%add", Work(flops=128 * 29)),
        ("%r = f32[8,16] sort(%p), dimensions={1}, to_apply=%least", Work(flops=2 * 128 * 4)),
        ("%r = f32[8,16] map(%p), dimensions={0,1}, to_apply=%least", Work(flops=2 * 128)),
        ("%r = f32[8,16] scatter(%p, %p, %q), to_apply=%add", Work(flops=32)),
        ("%r = f32[8,16] select-and-scatter(%p, %q, %p), window={size=1x4}, select=%least, scatter=%add", Work(flops=32 * 7)),
        ("%r = c64[8,16] fft(%c), fft_type=FFT, fft_length={16}", Work(flops=5 * 128 * 4)),
        ("%r = c64[8,9] fft(%p), fft_type=RFFT, fft_length={16}", Work(flops=2.5 * 128 * 4)),
        ("%r = f32[8,16] fft(%c), fft_type=IRFFT, fft_length={8,16}", Work(flops=2.5 * 128 * (3 + 4))),
        ("%r = f32[4,8] triangular-solve(%s, %q), lower=true", Work(flops=8 * 32)),
        ("%r = f32[8,8] cholesky(%s), lower=true", Work(flops=8 * 64 / 3)),
        ("%r = f32[8,16] rng(%p, %p), distribution=rng_normal", Work(transcendentals=128)),
        ("%r = (f32[8,2], s32[8,2]) topk(%p), k=2", Work(flops=128 * 4)),
        ("%r = f32[8,16] custom-call(%p), custom_call_target=\"x\"", Work()),
        ("%r = f32[8,16] an-unknown-operation(%p)", Work()),
    ],
    ids=lambda value: value.split("(")[0].split()[-1] if isinstance(value, str) else "",
)  # fmt: skip
def test_one_instruction(line: str, expected: Work) -> None:
    parameters = (
        "%p = f32[8,16] parameter(0)\n  %q = f32[4,8] parameter(1)\n  %c = c64[8,16] parameter(2)\n"
        "  %s = f32[8,8] parameter(3)"
    )
    assert work_of(module(line, parameters), "r") == expected


def test_random_bits_of_the_array_not_of_the_state() -> None:
    line = "%r = (u64[2], u32[100]) rng-bit-generator(%p), algorithm=rng_three_fry"
    assert work_of(module(line, "%p = u64[2] parameter(0)"), "r").flops == 5000


def test_a_kernel_that_states_its_cost() -> None:
    config = '{"custom_call_config": {"cost_estimate": {"flops": "500", "transcendentals": 7, "bytes_accessed": "1"}}}'
    line = f'%r = f32[8,16] custom-call(%p), custom_call_target="tpu_custom_call", backend_config={config}'
    assert work_of(module(line), "r") == Work(flops=500.0, transcendentals=7.0)


def test_a_fusion_is_its_body_and_a_loop_has_no_work_of_its_own() -> None:
    text = """HloModule m
%fused { %p = f32[4,8] parameter(0)
  %e = f32[4,8] exponential(%p)
  ROOT %d = f32[4,4] dot(%e, %e), lhs_contracting_dims={1}, rhs_contracting_dims={1} }
%body { ROOT %f = f32[4,4] parameter(0) }
%condition { %g = f32[4,4] parameter(0)
  ROOT %t = pred[] constant(true) }
ENTRY %main { %a = f32[4,8] parameter(0)
  %fusion = f32[4,4] fusion(%a), kind=kOutput, calls=%fused
  ROOT %while = f32[4,4] while(%fusion), condition=%condition, body=%body }
"""
    work = work_of(text, "fusion")
    assert (work.flops, work.transcendentals, work.total_flops) == (0, 32, 2 * 4 * 4 * 8)
    assert work_of(text, "while") == Work()


def test_sums_and_multiples() -> None:
    text = module("%r = f32[8,8] dot(%p, %p), lhs_contracting_dims={1}, rhs_contracting_dims={1}")
    product = work_of(text, "r")
    assert add_work([product, Work(flops=3.0)]).total_flops == product.total_flops + 3
    assert (product * 3).matrix[0].flops == 3 * product.matrix[0].flops
    assert product * 0 == Work()


@pytest.mark.parametrize(
    "line",
    [
        "%r = f32[8,8] dot(%p, %p), lhs_contracting_dims={7}, rhs_contracting_dims={1}",
        "%r = f32[8,8] convolution(%p, %p), window={size=3x}, dim_labels=bf_io->bf",
        "%r = f32[8,8] convolution(%p, %p), window={size=3 stride=0}, dim_labels=b0_i0->b0",
        "%r = f32[8,8] convolution(%p, %p), dim_labels=bf",
        "%r = f32[8,8] sort(%p), dimensions={5}, to_apply=%least",
    ],
)
def test_attributes_that_do_not_fit_are_named(line: str) -> None:
    with pytest.raises(GraphError, match=r"<string>: main: the attributes and shapes of \w+ 'r' do not fit"):
        work_of(module(line), "r")


def spec(*dims: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(dims, dtype)


def mlp(w1: jax.Array, w2: jax.Array, x: jax.Array) -> jax.Array:
    return jax.nn.gelu(x @ w1) @ w2


def attention(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k), -1)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, v)


def convolve(stride: int = 2, dilation: int = 1, groups: int = 1) -> Callable[..., jax.Array]:
    return lambda k, x: jax.lax.conv_general_dilated(
        x, k, (stride, stride), "SAME", rhs_dilation=(dilation, dilation), feature_group_count=groups,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip


def gradient(of: Callable[..., jax.Array], argument: int = 0) -> Callable[..., jax.Array]:
    return jax.grad(lambda *args: (of(*args) ** 2).sum(), argnums=argument)


def recurrent(w: jax.Array, x: jax.Array) -> Any:
    return jax.lax.scan(lambda c, x: (jnp.tanh(c @ w + x), c), jnp.zeros((4, 8)), x)


def pooled(x: jax.Array) -> jax.Array:
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")


def normalized(x: jax.Array) -> jax.Array:
    return (x - x.mean(-1, keepdims=True)) * jax.lax.rsqrt(x.var(-1, keepdims=True) + 1e-6)


def functions(x: jax.Array) -> jax.Array:
    smooth = jnp.exp(x) + jnp.sin(x) + jnp.log1p(x) + x**3.5 + jnp.arctan2(x, x) + jnp.cosh(x) + jnp.arcsinh(x)
    return smooth + jax.scipy.special.erf(x)


def training_step(w1: jax.Array, w2: jax.Array, x: jax.Array) -> Any:
    return jax.value_and_grad(lambda w, x: (mlp(*w, x) ** 2).mean())((w1, w2), x)


IMAGES, KERNEL = spec(2, 17, 17, 8), spec(3, 3, 8, 16)
SAME_COUNT = {
    "mlp": (mlp, (spec(64, 256), spec(256, 64), spec(32, 64))),
    "training step": (training_step, (spec(64, 256), spec(256, 64), spec(32, 64))),
    "attention": (attention, (spec(2, 16, 4, 8),) * 3),
    "convolution": (convolve(), (KERNEL, IMAGES)),
    "dilated convolution": (convolve(1, 2), (KERNEL, IMAGES)),
    "grouped convolution": (convolve(1, 1, 4), (spec(3, 3, 2, 16), IMAGES)),
    "gradient of a kernel": (gradient(convolve(2, 2)), (KERNEL, IMAGES)),
    "gradient of images": (gradient(convolve(2), 1), (KERNEL, IMAGES)),
    "gradient of a depthwise kernel": (gradient(convolve(1, 1, 8)), (spec(3, 3, 1, 8), IMAGES)),
    "scan": (recurrent, (spec(8, 8), spec(10, 4, 8))),
    "pooling": (pooled, (IMAGES,)),
    "gradient of pooling": (gradient(pooled), (IMAGES,)),
    "normalization": (normalized, (spec(8, 128),)),
    "functions": (functions, (spec(8, 128),)),
    "cumulative sum": (jnp.cumsum, (spec(64),)),
    "argmax": (lambda x: jnp.argmax(x, -1), (spec(8, 128),)),
    "scatter": (lambda x, i, u: x.at[i].add(u), (spec(100, 8), spec(10, dtype=jnp.int32), spec(10, 8))),
}  # fmt: skip


def analyses(
    function: Callable[..., Any], arguments: tuple[Any, ...], optimized: bool
) -> tuple[Graph, dict[str, float]]:
    """Returns the Graph of a program for the CPU, and what XLA's HloCostAnalysis says of the same text."""
    from jaxlib import _hlo, _jax

    lowered = jax.jit(function).lower(*arguments)
    text = lowered.compile().as_text() if optimized else lowered.compiler_ir("hlo").as_hlo_text()
    client = jax.devices("cpu")[0].client
    return parse_hlo(text), _jax.hlo_module_cost_analysis(client, _hlo.hlo_module_from_text(text))


@pytest.mark.parametrize("optimized", [False, True], ids=["as traced", "optimized"])
@pytest.mark.parametrize("name", SAME_COUNT)
def test_agrees_with_xla(name: str, optimized: bool) -> None:
    graph, theirs = analyses(*SAME_COUNT[name], optimized)
    ours = total_work(graph)
    assert ours.total_flops == pytest.approx(theirs.get("flops", 0.0), rel=0.002, abs=1.0)
    assert ours.transcendentals == theirs.get("transcendentals", 0.0)


def test_calls_of_libraries_differ_as_documented() -> None:
    """XLA counts -1 for the factorization itself, which LAPACK computes."""
    graph, theirs = analyses(jnp.linalg.cholesky, (spec(32, 32),), False)
    assert total_work(graph).total_flops == pytest.approx(theirs["flops"] + 1 + 32**3 / 3)


def test_fft_differs_as_documented() -> None:
    graph, theirs = analyses(lambda x: jnp.fft.fft(x), (spec(4, 256, dtype=jnp.complex64),), False)
    assert theirs["flops"] == 8 * 4 * 256 * 8
    assert total_work(graph).total_flops == 5 * 4 * 256 * 8


def test_sort_differs_as_documented() -> None:
    """JAX's comparator for floats has several operations, and each row of 128 is sorted for itself."""
    graph, theirs = analyses(lambda x: jnp.sort(x), (spec(8, 128),), False)
    assert theirs["flops"] == 1024 * math.log2(1024)
    comparator = total_work(graph).total_flops / (1024 * math.log2(128))
    assert comparator == int(comparator) > 1


def test_complex_products_differ_as_documented() -> None:
    graph, theirs = analyses(lambda a, b: a @ b, (spec(16, 16, dtype=jnp.complex64),) * 2, False)
    assert total_work(graph).total_flops == 4 * theirs["flops"]
