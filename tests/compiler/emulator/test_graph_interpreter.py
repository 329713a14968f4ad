"""Every construct of JAX, traced to a Graph, rule-checked, interpreted, and compared with JAX itself.

Bit for bit with JAX's own evaluation of one operation after the other (`jax.disable_jit`); to a few roundings with the
compiled function, which fuses multiplications and additions.
"""

from __future__ import annotations

import doctest
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import graph_interpreter
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from graph_interpreter import interpret
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas
from thorough import examples

from memplan.compiler.emulator.values import chosen_branch
from memplan.compiler.errors import GraphError
from memplan.compiler.frontends import parse_hlo
from memplan.compiler.frontends.jaxpr import trace
from memplan.compiler.frontends.jaxpr_arrays import physical
from memplan.compiler.ir import Shape
from memplan.compiler.ir.validate import check_graph

jax.config.update("jax_platforms", "cpu")

_rng = np.random.default_rng(0)


def a(*dims: int, dtype: Any = jnp.float32) -> jax.Array:
    return jnp.asarray(_rng.normal(size=dims), jnp.float32).astype(dtype)


def mlp(params: Any, x: Any, y: Any) -> Any:
    return jnp.mean((jnp.tanh(x @ params["w1"] + params["b1"]) @ params["w2"] - y) ** 2)


def recurrent(w: Any, xs: Any) -> Any:
    def step(h: Any, x: Any) -> Any:
        h = jnp.tanh(h @ w + x)
        return h, h

    h, ys = lax.scan(step, jnp.zeros(4), xs)
    return jnp.sum(ys * ys) + h.sum()


def attention(q: Any, k: Any, v: Any) -> Any:
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / 2.0
    return jax.nn.softmax(jnp.where(jnp.tril(jnp.ones((4, 4), bool)), scores, -1e9)) @ jnp.einsum("bkhd->bhkd", v)


def convolution(w: Any, x: Any) -> Any:
    y = lax.conv_general_dilated(x, w, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return (y**2).sum()


def pools(x: Any) -> Any:
    largest = lax.reduce_window(x, -jnp.inf, lax.max, (2, 2), (2, 2), "VALID")
    return largest.sum() + lax.reduce_window(x, 0.0, lax.add, (2, 2), (1, 1), "SAME").sum()


def root(x: Any) -> Any:
    def solve(f: Any, y: Any) -> Any:
        return lax.fori_loop(0, 8, lambda i, y: y - f(y) / (2 * y), y)

    return lax.custom_root(lambda y: y * y - x, jnp.ones(()), solve, lambda g, y: y / g(1.0))


@jax.custom_vjp
def clipped(x: Any) -> Any:
    return jnp.sin(x)


clipped.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (jnp.clip(g, -0.1, 0.1) * jnp.cos(x),))


def doubled(x_ref: Any, out_ref: Any) -> None:
    out_ref[...] = x_ref[...] * 2


def kernel(x: Any) -> Any:
    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    return pallas.pallas_call(doubled, out_shape=shape, interpret=True, name="doubled")(x) + 1


PARAMS = {"w1": a(4, 6), "b1": a(6), "w2": a(6, 2)}

PROGRAMS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    # models and derivatives
    "mlp_grad": (jax.value_and_grad(mlp), (PARAMS, a(5, 4), a(5, 2))),
    "recurrent_grad": (jax.grad(recurrent, (0, 1)), (a(4, 4), a(5, 4))),
    "attention": (attention, (a(2, 4, 3, 4), a(2, 4, 3, 4), a(2, 4, 3, 4))),
    "convolution_grad": (jax.grad(convolution, (0, 1)), (a(3, 3, 4, 6), a(2, 8, 8, 4))),
    "pools_grad": (jax.grad(pools), (a(6, 6),)),
    "embedding_grad": (jax.grad(lambda e, i: (e[i] ** 2).sum()), (a(10, 3), jnp.array([1, 3, 3]))),
    "hessian": (jax.hessian(lambda x: (jnp.sin(x) ** 2).sum()), (a(4),)),
    "jvp": (lambda x: jax.jvp(lambda x: jnp.sin(x) * x, (x,), (jnp.ones_like(x),)), (a(4),)),
    "activations_grad": (jax.grad(lambda x: (jax.nn.relu(x) * jax.nn.softplus(x) + jax.nn.gelu(x)).sum()), (a(8),)),
    "custom_vjp": (jax.value_and_grad(lambda x: clipped(x).sum()), (a(5),)),
    "custom_vjp_forward": (clipped, (a(5),)),
    "integer_grad": (jax.grad(lambda x, i: (x * i).sum()), (a(3), jnp.arange(3))),
    "remat_grad": (jax.grad(lambda x: jax.checkpoint(lambda x: jnp.sin(jnp.sin(x)))(x).sum()), (a(5),)),
    "solve_grad": (jax.grad(lambda x: jnp.linalg.solve(x @ x.T + jnp.eye(4), x).sum()), (a(4, 4),)),
    "custom_root": (root, (2.0,)),
    # loops
    "scan_reverse_unroll": (
        lambda x: lax.scan(lambda c, x: (c * 0.5 + x, jnp.sin(c)), jnp.zeros(3), x, reverse=True, unroll=2),
        (a(7, 3),),
    ),
    "scan_unroll_all": (lambda x: lax.scan(lambda c, x: (c * 0.5 + x, c), jnp.zeros(3), x, unroll=True), (a(3, 3),)),
    "scan_without_xs": (lambda x: lax.scan(lambda c, _: (c * 0.5 + 1, None), x, None, length=4), (a(3),)),
    "scan_never": (lambda x: lax.scan(lambda c, x: (c * 0.5 + x, c), jnp.ones(3), x[:0]), (a(2, 3),)),
    "scan_once": (lambda x: lax.scan(lambda c, x: (c * 0.5 + x, c), jnp.ones(3), x[:1]), (a(2, 3),)),
    "scan_swap": (lambda x: lax.scan(lambda c, x: (c[::-1], c[0] + x), (jnp.ones(3), jnp.zeros(3)), x), (a(5, 3),)),
    "scan_remat_grad": (
        jax.grad(lambda x: lax.scan(jax.checkpoint(lambda c, _: (jnp.sin(c), None)), x, None, length=3)[0].sum()),
        (a(5),),
    ),
    "scan_vmap": (jax.vmap(lambda x: lax.scan(lambda c, x: (c + x, c * x), 0.0, x)), (a(3, 5),)),
    "scan_scan": (lambda x: lax.scan(lambda c, r: lax.scan(lambda c, v: (c * 0.9 + v, c), c, r), 0.0, x), (a(3, 5),)),
    "scan_integers_grad": (
        jax.grad(lambda x: lax.scan(lambda c, i: (c * jnp.float32(i), i), x, jnp.arange(4))[0]),
        (2.0,),
    ),
    "while": (lambda n, x: lax.while_loop(lambda s: s[0] < n, lambda s: (s[0] + 1, s[1] * 1.5), (0, x)), (5, a(4))),
    "while_vmap": (
        jax.vmap(lambda x: lax.while_loop(lambda s: s[0] < 3.0, lambda s: (s[0] + s[1], s[1] * 1.5), (x, 1.0))),
        (jnp.array([0.0, 1.0, 2.5, 5.0]),),
    ),
    "while_vmap_rows": (jax.vmap(lambda x: lax.while_loop(lambda s: s.sum() < 3.0, lambda s: s + 1, x)), (a(3, 4),)),
    "fori_update": (
        lambda x: lax.fori_loop(0, 5, lambda i, c: lax.dynamic_update_slice(c, i * jnp.ones((1, 3)), (i, 0)), x),
        (a(6, 3),),
    ),
    # branches and calls
    "switch": (lambda i, x: lax.switch(i, [lambda x: x, lambda x: x * 2, jnp.sin], x), (2, a(4))),
    "cond": (lambda p, x: lax.cond(p, lambda x: x + 1, lambda x: x * 2, x), (True, a(4))),
    "cond_grad": (
        jax.grad(lambda x, p: lax.cond(p, lambda x: jnp.sin(x).sum(), lambda x: (x * 2).sum(), x)),
        (a(4), False),
    ),
    "composite": (lambda x: lax.composite(lambda x: x * 2 + 1, name="my.op")(x), (a(4),)),
    "linear_call": (
        lambda x: jax.custom_derivatives.linear_call(lambda r, x: x * r, lambda r, x: x * r, 2.0, x),
        (a(4),),
    ),
    "barrier": (lambda x: lax.optimization_barrier((x, x * 2)), (a(4),)),
    "checkpoint_name": (lambda x: checkpoint_name(jnp.sin(x), "s") * 2, (a(4),)),
    "pallas": (kernel, (a(8, 128),)),
    # arrays
    "fft": (lambda x: (jnp.fft.rfft(x), jnp.fft.irfft(jnp.fft.rfft(x)), jnp.fft.fft2(x)), (a(4, 8),)),
    "sort": (lambda x: (jnp.sort(x), jnp.argsort(x), lax.sort((jnp.round(x), x), num_keys=2)), (a(4, 6),)),
    "top_k": (lambda x: (lax.top_k(x, 3), lax.top_k(x, 2, axis=0), lax.approx_max_k(x, 2)), (a(4, 6),)),
    "gather_scatter": (
        lambda x, i: (
            x[i], x.at[i].add(1.0), x.at[i].set(2.0), x.at[i].mul(3.0), x.at[i].min(0.0), x.at[i].max(0.5),
            x.at[2].apply(jnp.sin), jnp.take(x, i, axis=1, mode="clip"),
        ),
        (a(5, 4), jnp.array([1, 3, 0])),
    ),
    "shapes": (
        lambda x: (
            jnp.pad(x, ((1, 2), (0, 0))), x[::-1], x[1:3, ::2], jnp.concatenate([x, x], 1), x.T, x[None],
            jnp.broadcast_to(x[:1], (3, 6)), jnp.squeeze(x[:1]), lax.pad(x, 0.0, ((0, 0, 1), (-1, 0, 0))),
            jnp.moveaxis(x[None], 0, 2), jnp.tile(x, (2, 1)),
        ),
        (a(4, 6),),
    ),
    "reductions": (
        lambda x: (
            lax.reduce((x, x), (0.0, 1.0), lambda a, b: (a[0] + b[0], a[1] * b[1]), (0,)), jnp.max(x), jnp.min(x, 0),
            lax.reduce_window(x, 1.0, lambda a, b: a * b, (2, 1), (1, 1), "VALID"), jnp.prod(x, 1), jnp.cumsum(x, 0),
            lax.cummax(x, reverse=True), jnp.argmax(x, 1),
        ),
        (a(4, 3),),
    ),
    "math": (
        lambda x: (
            x**3, x**2, x**-1, jnp.exp2(x), jnp.expm1(x), jnp.log1p(jnp.abs(x)), jnp.arctan2(x, 1 + x), jnp.sign(x),
            jnp.round(x, 1), jnp.cbrt(x), jnp.nextafter(x, 0.0), jnp.clip(x, -0.5, 0.5), lax.reduce_precision(x, 5, 3),
            jax.nn.sigmoid(x), jax.scipy.special.erf(x),
        ),
        (a(6),),
    ),
    "linear_algebra": (
        lambda x: (jnp.linalg.cholesky(x @ x.T + jnp.eye(3)), jnp.linalg.qr(x)[0], jnp.linalg.eigh(x + x.T)[0]),
        (a(3, 3),),
    ),
    "select_n": (lambda i, x: lax.select_n(i, x, x * 2, x * 3), (jnp.array([0, 1, 2]), a(3))),
    # types
    "bfloat16": (
        lambda x, y: jnp.dot(x, y, preferred_element_type=jnp.float32).astype(jnp.bfloat16) * x,
        (a(4, 4, dtype=jnp.bfloat16), a(4, 4, dtype=jnp.bfloat16)),
    ),
    "float8": (lambda x: x.astype(jnp.float8_e4m3fn).astype(jnp.float32), (a(4),)),
    "complex": (lambda x: (x * (1 + 2j), jnp.abs(x * 1j), jnp.conj(x + 1j), (x + 1j).imag), (a(4),)),
    "int8": (
        lambda x: (x * 2, x // 3, x % 3, x << 1, lax.population_count(x), x.astype(jnp.int4), x.sum(dtype=jnp.int32)),
        (jnp.arange(-8, 8, dtype=jnp.int8),),
    ),
    "bool": (lambda x: (x > 0, jnp.any(x > 1), jnp.all(x > -9, axis=0), (x > 0) & ~(x < 1)), (a(4, 3),)),
    "keys": (
        lambda k: (jax.random.normal(k, (3,)), jax.random.split(k, 3), jax.random.bits(jax.random.fold_in(k, 3), (2,))),
        (jax.random.key(1),),
    ),
    "keys_in_scan": (
        lambda k: lax.scan(lambda k, _: (jax.random.split(k)[0], jax.random.uniform(k)), k, None, length=3),
        (jax.random.key(1),),
    ),
    "keys_as_arrays": (
        lambda k: (
            lax.map(jax.random.uniform, jax.random.split(k, 4)), jax.random.split(k, 4)[::2], jnp.stack([k, k]),
            jax.random.split(k, 4).reshape(2, 2).T, jnp.broadcast_to(k, (2, 3)),
        ),
        (jax.random.key(1, impl="rbg"),),
    ),
    "keys_of_old": (lambda k: (jax.random.uniform(k, (3,)), jax.random.split(k, 3)), (jax.random.PRNGKey(1),)),
    "random_bits": (lambda k: lax.rng_bit_generator(k, (3,)), (jnp.arange(4, dtype=jnp.uint32),)),
    # the program's interface
    "pytrees": (lambda t: {"s": t["a"][0] + t["b"], "t": (t["a"][1], None)}, ({"a": (a(3), a(2)), "b": 2.0},)),
    "closed_over": (lambda x: x + np.arange(3, dtype=np.float32) + jnp.array([1.0, 2.0, 3.0]), (a(3),)),
    "passed_through": (lambda x, y: (y, x, x, y + 1, jnp.zeros(2), x.reshape(2, 2)), (a(4), a(2))),
    "no_arguments": (lambda: jnp.arange(5) * 2, ()),
    "no_results": (lambda x: (), (a(3),)),
    "host": (
        lambda x: jax.device_put(jax.device_put(x * 2, jax.memory.Space.Host), jax.memory.Space.Device) + 1,
        (a(4),),
    ),
}  # fmt: skip

# What JAX cannot evaluate without compiling.
_ONLY_COMPILED = {"scan_never"}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_traced_program_computes_what_jax_computes(name: str) -> None:
    fun, args = PROGRAMS[name]
    graph = trace(fun, *args)
    check_graph(replace(graph, origin="hlo"))  # the rules for parameters and results of what is called, too
    found = interpret(graph, *args)

    if name not in _ONLY_COMPILED:
        with jax.disable_jit():
            exact = [np.asarray(physical(leaf)) for leaf in jax.tree.leaves(fun(*args))]
        assert [(f.dtype, f.shape) for f in found] == [(e.dtype, e.shape) for e in exact]
        assert [f.tobytes() for f in found] == [e.tobytes() for e in exact]
    if name not in _ONLY_COMPILED and not examples(0, 1):
        return
    compiled = [np.asarray(physical(leaf)) for leaf in jax.tree.leaves(jax.jit(fun)(*args))]
    for f, c in zip(found, compiled, strict=True):
        scale = np.abs(np.nan_to_num(c.astype(np.complex64))).max(initial=0)
        np.testing.assert_allclose(f.astype(np.complex64), c.astype(np.complex64), rtol=0, atol=3e-6 * scale)


def test_the_program_is_that_of_the_traced_shapes_not_values() -> None:
    graph = trace(lambda n, x: lax.fori_loop(0, n, lambda i, c: c * 2, x), 0, jax.ShapeDtypeStruct((2,), "float32"))
    x = np.ones(2, np.float32)
    assert [interpret(graph, n, x)[0][0] for n in (0, 1, 5)] == [1, 2, 32]


def test_arguments_must_fit() -> None:
    graph = trace(lambda x, y: x + y["z"], a(2), {"z": a(2)})
    with pytest.raises(GraphError, match="jit__lambda takes 2 arrays, found 1"):
        interpret(graph, np.zeros(2, np.float32))
    with pytest.raises(GraphError, match=r"argument y_z of jit__lambda must be f32\[2\], found float64\[3\]"):
        interpret(graph, np.zeros(2, np.float32), np.zeros(3))


def test_what_was_not_traced_cannot_be_evaluated() -> None:
    graph = parse_hlo("HloModule m\nENTRY e { x = f32[2] parameter(0)\n ROOT y = f32[2] negate(x) }")
    with pytest.raises(GraphError, match="y: negate cannot be executed"):
        interpret(graph, np.zeros(2, np.float32))


def test_an_index_that_is_no_branch_takes_the_last() -> None:
    index, flag = Shape("s32"), Shape("pred")
    assert [chosen_branch(i, index, 3) for i in (-1, 0, 2, 3)] == [2, 0, 2, 2]
    assert [chosen_branch(p, flag, 2) for p in (True, False)] == [0, 1]


def test_examples() -> None:
    result = doctest.testmod(graph_interpreter)
    assert result.attempted > 0
    assert result.failed == 0
