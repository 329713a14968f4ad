"""Traced programs of every kind of control flow and type, with arguments for them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from graph_interpreter import interpret
from jax import lax

from memplan.compiler.frontends.jaxpr import trace
from memplan.compiler.hardware.target import load_target
from memplan.compiler.mapping.build import BuiltProblem, build

jax.config.update("jax_platforms", "cpu")

Arrays = list[np.ndarray[Any, Any]]


def array(*dims: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=dims).astype(np.float32)


def built(fun: Callable[..., Any], *args: Any, target: str = "generic", **options: Any) -> BuiltProblem:
    return build(trace(fun, *args, **options), load_target(target))


def mlp(params: dict[str, Any], x: Any, y: Any) -> Any:
    return jnp.mean((jnp.tanh(x @ params["w1"] + params["b1"]) @ params["w2"] - y) ** 2)


def recurrent(w: Any, xs: Any) -> Any:
    def step(h: Any, x: Any) -> Any:
        h = jnp.tanh(h @ w + x)
        return h, h * 2

    h, ys = lax.scan(step, jnp.zeros(4), xs)
    return jnp.sum(ys * ys) + jnp.sum(h)


def sgd(params: Any, x: Any, y: Any) -> Any:
    loss, grads = jax.value_and_grad(mlp)(params, x, y)
    return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), loss


PARAMS = {"w1": array(4, 8), "b1": array(8), "w2": array(8, 2)}
X, Y = array(6, 4, seed=1), array(6, 2, seed=2)


def newton(x: Any) -> Any:
    return lax.while_loop(lambda s: jnp.abs(s * s - x) > 1e-3, lambda s: 0.5 * (s + x / s), x)


def swaps(x: Any) -> Any:
    return lax.scan(lambda c, v: ((c[1], c[0] + v), c[0]), (jnp.ones(3), jnp.zeros(3)), x)


def table(x: Any, n: Any) -> Any:
    def body(i: Any, t: Any) -> Any:
        row = lax.switch(i % 3, [lambda r: r, lambda r: r * 2, jnp.sin], lax.dynamic_slice(t, (i, 0), (1, 3)))
        return lax.dynamic_update_slice(t, row + 1, (i, 0))

    return lax.fori_loop(0, n, body, x)


def nested(x: Any) -> Any:
    return lax.scan(lambda c, row: lax.scan(lambda c, v: (c * 0.5 + v, c), c, row), 0.0, x)


def branches(p: Any, x: Any) -> Any:
    y = jnp.sin(x)
    z = lax.cond(p, lambda x, y: (x + y, y), lambda x, y: (jnp.exp(x), x * y), x, y)
    return z, y


def keys(seed: Any) -> Any:
    key, other = jax.random.split(jax.random.key(seed))
    return jax.random.normal(key, (3,)), lax.map(jax.random.uniform, jax.random.split(other, 3))


PROGRAMS: dict[str, tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = {
    "sgd": (sgd, (PARAMS, X, Y), {"donate_argnums": 0}),
    "recurrent": (jax.grad(recurrent, (0, 1)), (array(4, 4), array(3, 4)), {}),
    "newton": (newton, (2.0,), {}),
    "swaps": (swaps, (array(4, 3),), {"donate_argnums": 0}),
    "table": (table, (array(6, 3), 5), {"donate_argnums": 0}),
    "nested": (nested, (array(3, 4),), {}),
    "branches": (branches, (False, array(4)), {}),
    "keys": (keys, (3,), {}),
    "remat": (jax.grad(lambda x: jax.checkpoint(lambda x: jnp.sin(jnp.sin(x) * x))(x).sum()), (array(5),), {}),
    "passed": (lambda x, y: (y, x, x, y + 1, x.reshape(2, 2), jnp.zeros((0, 3))), (array(4), array(2)), {}),
    "types": (lambda x: (x.astype(jnp.bfloat16) * 2, x > 0, x + 1j, (x * 9).astype(jnp.int8), x.astype("int4")), (array(5),), {}),
}  # fmt: skip


@cache
def example(name: str) -> tuple[BuiltProblem, tuple[Any, ...], Arrays]:
    """Returns a program's problem, its arguments and what it gives without a memory."""
    fun, args, options = PROGRAMS[name]
    problem = built(fun, *args, **options)
    return problem, args, interpret(problem.program.graph, *args)
