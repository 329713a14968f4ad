"""memplan.jit in the place of jax.jit, on the CPU: the same results, the same errors, and an order that needs less memory."""

from __future__ import annotations

import copy
import functools
import gc
import inspect
import logging
import os
import pickle
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compile_counter import compiles
from jax import export
from jax.sharding import SingleDeviceSharding
from jit_choices import choosing

import memplan
from memplan.backends.jit import wrapper
from memplan.backends.jit.function import Function
from memplan.compiler.errors import MemplanError, PlannerError, TargetError

pytestmark = pytest.mark.usefixtures("nothing_said")

X = jnp.arange(12.0).reshape(3, 4)


def counted() -> tuple[Callable[..., jax.Array], list[int]]:
    """Returns a function and a list that grows when it is traced."""
    traces: list[int] = []

    def scaled(x: jax.Array, factor: Any = 2, *, flag: bool = False) -> jax.Array:
        traces.append(1)
        return x * factor + (1 if flag else 0)

    return scaled, traces


def test_each_signature_is_traced_and_compiled_once(dispatcher: str) -> None:
    fun, traces = counted()
    jitted = memplan.jit(fun, static_argnames=("factor", "flag"))
    signatures: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((X,), {}),
        ((X, 3), {}),
        ((X,), {"flag": True}),
        ((X[:2],), {}),
        ((X.astype(jnp.int32),), {}),
        ((1.0,), {}),  # weakly typed
        ((jnp.float32(1.0),), {}),
        ((np.ones((3, 4, 1), np.float32),), {}),
    ]
    with compiles() as seen:
        for _ in range(3):
            for args, kwargs in signatures:
                np.testing.assert_array_equal(jitted(*args, **kwargs), fun(*args, **kwargs))
                traces.pop()  # that was the plain call
            if len(traces) == len(signatures):
                counted_once = len(seen)
    assert len(traces) == len(signatures)
    assert len(seen) == counted_once


def test_a_warm_call_asks_nobody() -> None:
    jitted, _, asked = choosing(lambda tree: jax.tree.map(jnp.sin, tree))
    tree = {"a": X, "b": [X, X[0]]}
    for _ in range(5):
        jitted(tree)
    assert len(asked) == 1
    jitted({"a": X, "b": [X, X[1:2]]})
    jitted(tree)
    assert len(asked) == 2


def test_arguments_of_jit(dispatcher: str) -> None:
    def fun(n: int, x: jax.Array, unused: jax.Array, *, name: str) -> jax.Array:
        assert isinstance(n, int)
        assert isinstance(name, str)
        return x + n

    device = SingleDeviceSharding(jax.devices()[0])
    jitted = memplan.jit(
        fun, static_argnums=0, static_argnames="name", donate_argnums=1, out_shardings=device, keep_unused=True, inline=True
    )  # fmt: skip
    given = jnp.ones(3)
    assert jitted(2, given, X, name="a").tolist() == [3.0, 3.0, 3.0]
    assert given.is_deleted()
    given = jnp.ones(3)
    assert jitted(2, given, X, name="a").committed
    assert given.is_deleted()
    assert memplan.jit(lambda x: x, donate_argnames="x")(jnp.ones(3)).shape == (3,)
    assert memplan.jit(lambda x: x + 1, in_shardings=device)(X).shape == X.shape


def test_compiler_options_of_the_caller_reach_the_compiler() -> None:
    options = {"xla_cpu_enable_fast_math": True}
    assert memplan.jit(jnp.tanh, compiler_options=options)(X).shape == X.shape
    wrong = {"xla_no_such_option": "1"}
    with pytest.raises(jax.errors.JaxRuntimeError) as theirs:
        jax.jit(jnp.tanh, compiler_options=wrong)(X)
    with pytest.raises(jax.errors.JaxRuntimeError) as ours:
        memplan.jit(jnp.tanh, compiler_options=wrong)(X)
    assert str(ours.value) == str(theirs.value)


def test_under_transformations(dispatcher: str) -> None:
    @memplan.jit
    def loss(x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.tanh(x) ** 2)

    def plain(x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.tanh(x) ** 2)

    np.testing.assert_allclose(jax.grad(loss)(X), jax.grad(plain)(X), rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(loss)(X), jax.vmap(plain)(X), rtol=1e-6)
    np.testing.assert_allclose(jax.jit(loss)(X), plain(X), rtol=1e-6)
    np.testing.assert_allclose(jax.hessian(loss)(X[0]), jax.hessian(plain)(X[0]), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(memplan.jit(jax.grad(loss))(X), jax.grad(plain)(X), rtol=1e-6, atol=1e-6)
    carried, _ = jax.lax.scan(lambda carry, row: (carry + loss(row), None), 0.0, X)
    np.testing.assert_allclose(carried, plain(X), rtol=1e-6)
    # A call with values that are known, in a program that is being traced.
    np.testing.assert_allclose(jax.jit(lambda x: loss(jnp.ones(3)) + x)(1.0), plain(jnp.ones(3)) + 1, rtol=1e-6)
    assert "name=loss" in str(jax.make_jaxpr(lambda x: loss(x))(X))
    with jax.disable_jit():
        np.testing.assert_allclose(loss(X), plain(X), rtol=1e-6)


def test_what_is_part_of_a_larger_program_is_not_decided_for_itself() -> None:
    jitted, made, asked = choosing(jnp.tanh)
    jax.grad(lambda x: jitted(x).sum())(X)
    jax.jit(lambda: jitted(jnp.ones(3)))()
    assert asked
    assert not list(made._choices.values())
    jitted(X)
    assert len(list(made._choices.values())) == 1


def test_as_a_decorator_it_looks_like_the_function(dispatcher: str) -> None:
    def step(x: jax.Array, *, scale: float = 2.0) -> jax.Array:
        """Scales."""
        return x * scale

    for jitted in (memplan.jit(step), memplan.jit(static_argnames="scale")(step)):
        assert jitted.__name__ == "step"
        assert jitted.__doc__ == "Scales."
        assert jitted.__wrapped__ is step
        assert inspect.signature(jitted) == inspect.signature(step)
        assert isinstance(jitted, jax.stages.Wrapped)
        assert jitted.trace(X).fun_name == "step"
        np.testing.assert_array_equal(jitted(X), X * 2)
    partial = memplan.jit(functools.partial(step, scale=3.0))
    assert partial.trace(X).fun_name == "step"
    np.testing.assert_array_equal(partial(X), X * 3)
    np.testing.assert_array_equal(memplan.jit(memplan.jit(step))(X), X * 2)


def test_what_wraps_it_is_not_taken_for_it() -> None:
    """JAX's transformations give their result the attributes of the function that they transform."""
    jitted = memplan.jit(lambda x: jnp.sum(x**2))
    gradient = jax.grad(jitted)
    assert jax.make_jaxpr(gradient)(X).out_avals[0].shape == X.shape
    np.testing.assert_array_equal(memplan.jit(gradient)(X), 2 * X)
    assert not hasattr(functools.wraps(jitted)(lambda x: x), "lower")


def test_on_methods(dispatcher: str) -> None:
    @jax.tree_util.register_static
    class Scaler:
        factor = 3

        @memplan.jit
        def scaled(self, x: jax.Array) -> jax.Array:
            return x * self.factor

    np.testing.assert_array_equal(Scaler().scaled(X), X * 3)
    np.testing.assert_array_equal(memplan.jit(Scaler().scaled)(X), X * 3)


def test_stages(dispatcher: str) -> None:
    fun, traces = counted()
    jitted = memplan.jit(fun, static_argnames="factor")
    traced = jitted.trace(X, factor=5)
    assert traced.jaxpr.out_avals[0].shape == X.shape
    assert traced.out_info.shape == X.shape
    lowered = traced.lower()
    assert "stablehlo.multiply" in lowered.as_text()
    assert lowered.in_tree.num_leaves == 1
    compiled = lowered.compile()
    np.testing.assert_array_equal(compiled(X), X * 5)
    assert compiled.memory_analysis() is not None
    np.testing.assert_array_equal(jitted.lower(X, factor=5).compile({"xla_cpu_enable_fast_math": True})(X), X * 5)
    assert jitted.eval_shape(X, factor=5) == jax.eval_shape(fun, X)
    np.testing.assert_array_equal(traced(X), X * 5)
    assert "tpu" in export.export(jitted, platforms=["tpu"])(X).platforms
    before = len(traces)
    jitted.trace(X, factor=5)
    assert len(traces) == before
    jitted.clear_cache()
    np.testing.assert_array_equal(jitted(X, factor=5), X * 5)
    assert len(traces) == before + 1


def both_errors(fun: Callable[..., Any], *args: Any, **jit_kwargs: Any) -> tuple[BaseException, BaseException]:
    found = []
    for make in (jax.jit, memplan.jit):
        with pytest.raises(Exception) as caught:  # noqa: PT011  (which one is for jax.jit to say)
            make(fun, **jit_kwargs)(*args)  # type: ignore[operator]
        found.append(caught.value)
    return found[0], found[1]


def untraceable(x: jax.Array) -> jax.Array:
    return x if x.sum() > 0 else -x


def failing(x: jax.Array) -> jax.Array:
    raise KeyError("mine")


@pytest.mark.parametrize(
    ("fun", "args", "jit_kwargs"),
    [
        (untraceable, (X,), {}),
        (failing, (X,), {}),
        (jnp.tanh, ("text",), {}),
        (lambda x, y: x + y, (X,), {}),
        (lambda x: x, (X,), {"no_such_argument": 1}),
        (lambda x, n: x, (X, [1]), {"static_argnums": 1}),
        (3, (X,), {}),
    ],
)
def test_errors_are_those_of_jax(fun: Any, args: tuple[Any, ...], jit_kwargs: dict[str, Any], dispatcher: str) -> None:
    theirs, ours = both_errors(fun, *args, **jit_kwargs)
    assert type(ours) is type(theirs)
    assert str(ours) == str(theirs)


def test_a_function_that_cannot_be_lowered_raises_what_jax_raises() -> None:
    rule = jax.extend.core.Primitive("no_rule_for_this")
    rule.def_abstract_eval(lambda x: x)
    theirs, ours = both_errors(lambda x: rule.bind(x), X)
    assert type(ours) is type(theirs)
    assert str(ours) == str(theirs)


def test_what_memplan_does_not_know_is_an_error_at_once() -> None:
    with pytest.raises(TargetError, match="no target is called 'tpu-v9'"):
        memplan.jit(jnp.tanh, target="tpu-v9")
    with pytest.raises(PlannerError, match="no planner is called 'best'"):
        memplan.jit(jnp.tanh, planner="best")
    for budget in (0, -1, 1.5, True):
        with pytest.raises(MemplanError, match="compile_budget must be a positive integer"):
            memplan.jit(jnp.tanh, compile_budget=budget)  # type: ignore[call-overload]


def test_effects_happen_at_every_call(dispatcher: str) -> None:
    happened: list[float] = []

    @memplan.jit
    def noisy(x: jax.Array) -> jax.Array:
        jax.debug.callback(lambda value: happened.append(float(value)), x)
        return x + 1

    for _ in range(3):
        noisy(2.0)
    jax.effects_barrier()
    assert happened == [2.0, 2.0, 2.0]


# What is kept, and for whom.


def test_threads_that_call_at_the_same_time_decide_once(monkeypatch: pytest.MonkeyPatch) -> None:
    decided: list[int] = []
    first = Function._choose_first

    def counting(self: Function, *given: Any) -> Any:
        decided.append(1)
        return first(self, *given)

    monkeypatch.setattr(Function, "_choose_first", counting)
    jitted = memplan.jit(lambda x: jnp.tanh(x) + 1)
    start, results = threading.Barrier(4), []

    def call() -> None:
        start.wait()
        results.append(jitted(X))

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert len(decided) == 1


def test_one_function_is_compiled_once_however_often_it_is_jitted() -> None:
    fun, traces = counted()
    for _ in range(3):
        memplan.jit(fun)(X)
    assert len(traces) == 1
    memplan.jit(fun, static_argnames="flag")(X)
    memplan.jit(fun, planner="slow")(X)
    assert len(traces) == 3

    @functools.wraps(fun)
    def other(x: jax.Array) -> jax.Array:
        return x - 1

    np.testing.assert_array_equal(memplan.jit(other)(X), X - 1)


def test_what_is_known_of_a_function_goes_with_it_and_not_with_copies() -> None:
    def made() -> weakref.ref[Any]:
        def fun(x: jax.Array) -> jax.Array:
            return x + 1

        memplan.jit(fun)(X)
        assert pickle.loads(pickle.dumps(fun.__dict__))[wrapper._KNOWN] == []
        assert copy.deepcopy(fun.__dict__)[wrapper._KNOWN] == []
        return weakref.ref(fun)

    reference = made()
    gc.collect()
    assert reference() is None


@pytest.mark.slow
def test_nothing_loads_libtpu_where_no_tpu_is_asked_for() -> None:
    program = (
        "import sys, memplan, jax.numpy as jnp\n"
        "f = memplan.jit(lambda x: x + 1, effort='fast')\n"
        "f(jnp.ones(3)); f.lower(jnp.ones(3)).compile(); f.plan(jnp.ones(3))\n"
        "assert 'libtpu' not in sys.modules\n"
        "assert 'memplan.backends.tpu.optimize' not in sys.modules\n"
    )
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}  # JAX itself would look for a TPU
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


# Plans by our own model.


@pytest.mark.parametrize("target", [None, "generic", "mcu-256kb", "h200", "tpu-v4i"])
def test_plan_for_a_target_without_a_compiler(target: str | None) -> None:
    jitted = memplan.jit(lambda x, w: jnp.tanh(x @ w), target=target, effort="fast", donate_argnums=0)
    found = jitted.plan(jnp.ones((16, 16)), w=jax.ShapeDtypeStruct((16, 16), jnp.float32))
    assert found.plan.target == found.problem.target == (target or "generic")
    assert found.plan.planner == "auto"
    assert found.outcome is None
    assert found.report.subject.plan is found.plan
    assert found.report.contender("slow") is not None
    assert memplan.verify(found.problem, found.plan) == []


def test_plan_with_another_planner() -> None:
    found = memplan.jit(jnp.tanh, planner="slow").plan(X)
    assert found.plan.planner == "slow"
    assert [contender.label for contender in found.report.contenders] == ["slow"]


def test_compiling_for_a_target_without_a_compiler_is_an_error() -> None:
    lowered = memplan.jit(jnp.tanh, target="tpu-v4i").lower(X)
    with pytest.raises(MemplanError, match="no compiler carries out plans for tpu-v4i, only for tpu-7x"):
        lowered.compile()


def test_calls_for_a_target_that_is_not_here_run_here(caplog: pytest.LogCaptureFixture, dispatcher: str) -> None:
    with caplog.at_level(logging.WARNING, "memplan"):
        for _ in range(2):
            np.testing.assert_array_equal(memplan.jit(lambda x: x * 2, target="tpu-v5e")(X), X * 2)
    record = caplog.records[-1]
    assert len(caplog.records) == (1 if dispatcher == "native" else 2)  # the second says that calls are slow
    assert record.message == "memplan.jit: tpu-v5e is not on this machine: functions run on cpu"
