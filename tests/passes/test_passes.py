"""The pipeline and its clean-ups: programs keep their values, and lose what they do not need."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import jaxpr_as_fun

from memplan.passes import base, manager
from memplan.passes.base import Context, Pass, PassError, Rewritten
from memplan.passes.manager import DEFAULT, chosen, count, rewritten, run

X = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)


def made(fun: Any, *args: Any, passes: Any = "auto", platform: Any = "cpu") -> Any:
    """Runs passes over a function, checks that its values stay, and returns the outcome."""
    closed = jax.make_jaxpr(fun)(*args)
    outcome = run(closed, chosen(passes), Context(platform))
    leaves = jax.tree.leaves(args)
    for ours, theirs in zip(jaxpr_as_fun(outcome.jaxpr)(*leaves), jaxpr_as_fun(closed)(*leaves), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-5)
    return outcome


def primitives(outcome: Any) -> list[str]:
    return [equation.primitive.name for equation in outcome.jaxpr.jaxpr.eqns]


def test_calls_are_inlined_at_every_depth() -> None:
    inner = jax.jit(lambda x: jnp.where(x > 0, x, 0.0))

    def fun(x: Any) -> Any:
        return lax.scan(lambda carry, row: (carry + inner(row), inner(row)), jnp.zeros(8), inner(x))

    outcome = made(fun, X, passes="inline")
    assert "jit" not in str(outcome.jaxpr)
    assert count(outcome.jaxpr.jaxpr) == outcome.reports[0].after


def test_a_call_with_donated_arguments_or_options_is_left() -> None:
    donating = jax.jit(lambda x: x + 1, donate_argnums=0)
    assert primitives(made(lambda x: donating(x * 2), X, passes="inline")) in (["mul", "jit"], ["mul", "pjit"])


def test_a_function_called_twice_has_its_constants_once() -> None:
    table = np.arange(100, dtype=np.float32)
    inner = jax.jit(lambda x: x + jnp.asarray(table)[:8])
    outcome = made(lambda x: inner(inner(x)), X, passes="inline")
    assert sum(np.size(constant) == 100 for constant in outcome.jaxpr.consts) <= 1


def test_dead_code_goes_and_effects_stay() -> None:
    def fun(x: Any) -> Any:
        jnp.sin(x)
        jax.debug.print("{}", x[0, 0])
        return lax.scan(lambda carry, row: (carry + row, (jnp.cos(row), carry)[1]), jnp.zeros(8), x)[0]

    outcome = made(fun, X, passes="dead_code")
    assert "sin" not in primitives(outcome)
    assert any("debug" in name for name in primitives(outcome))
    assert "cos" not in str(outcome.jaxpr)


def test_common_subexpressions() -> None:
    def fun(x: Any) -> Any:
        return jnp.tanh(x * 2.0) + jnp.tanh(x * 2.0), jnp.tanh(x * 3.0), jnp.tanh(x * 2)

    outcome = made(fun, X, passes="inline,constant_folding,common_subexpressions")
    assert primitives(outcome).count("tanh") == 2


def test_equal_literals_of_other_types_are_not_the_same() -> None:
    outcome = made(lambda x: (x.astype(jnp.int32) + 1, x + 1), X, passes="common_subexpressions")
    assert primitives(outcome).count("add") == 2


def test_random_numbers_are_drawn_as_often_as_before() -> None:
    key = jax.random.key(0)

    def fun(x: Any) -> Any:
        return x + jax.random.normal(key, x.shape) + jax.random.normal(jax.random.fold_in(key, 1), x.shape)

    made(fun, X)


def test_constants_are_folded() -> None:
    def fun(x: Any) -> Any:
        return x * jnp.sqrt(jnp.sum(jnp.arange(8.0)))

    outcome = made(fun, X, passes="inline,constant_folding,dead_code")
    assert primitives(outcome) == ["mul"]


def test_shapes_are_cleaned_up() -> None:
    def fun(x: Any) -> Any:
        y = jnp.pad(x, 0).reshape(2, 16).reshape(8, 4).reshape(4, 8)[:, :8].astype(jnp.float32)
        return y.T.T, x.transpose(1, 0).transpose(1, 0) * 2, x.reshape(2, 2, 8).transpose(2, 0, 1).transpose(1, 2, 0)

    outcome = made(fun, X, passes="inline,constant_folding,shape_cleanup,shape_cleanup,dead_code")
    assert primitives(outcome) == ["mul", "reshape"]


def test_weak_types_stay_weak() -> None:
    def fun(x: Any) -> Any:
        return lax.fori_loop(0, 3, lambda i, y: y * 2, 1.0) + x.astype(jnp.bfloat16)

    outcome = made(fun, X)
    assert outcome.jaxpr.out_avals[0].dtype == jnp.bfloat16


def convolution(u: Any, k: Any, length: int, wanted: int) -> Any:
    return jnp.fft.irfft(jnp.fft.rfft(u, length) * jnp.fft.rfft(k, length), length)[..., :wanted]


U = np.random.default_rng(1).standard_normal((2, 3, 200)).astype(np.float32)
K = np.random.default_rng(2).standard_normal((3, 90)).astype(np.float32)


@pytest.mark.parametrize(
    ("fun", "what"),
    [
        (lambda u, k: convolution(u, k, 512, 200), "convolution of 200 samples with 90 taps"),
        (lambda u, k: convolution(k, u, 512, 200), "convolution of 200 samples with 90 taps"),
        (lambda u, k: convolution(u, k, 289, 289), "convolution of 200 samples with 90 taps"),
        (lambda u, k: convolution(u, k[0], 400, 150), "convolution of 200 samples with 90 taps"),
        (
            lambda u, k: jax.jit(convolution, static_argnums=(2, 3))(u * 2, k, 300, 200) * u,
            "convolution of 200 samples",
        ),
        (lambda u, k: lax.map(lambda v: convolution(v, k, 512, 200), u), "convolution of 200 samples with 90 taps"),
    ],
)
def test_convolutions_are_recognized(fun: Any, what: str) -> None:
    outcome = made(fun, U, K, platform="tpu")
    report = next(report for report in outcome.reports if report.name == "fft_convolution")
    assert [finding.what[: len(what)] for finding in report.changed] == [what]
    assert "test_passes.py" in report.changed[0].where
    assert " fft" not in str(outcome.jaxpr)
    assert "c64" not in str(outcome.jaxpr)


@pytest.mark.parametrize(
    ("fun", "declined"),
    [
        (lambda u, k: convolution(u, k, 256, 200), "it wraps around the 256 samples of its transform"),
        (lambda u, k: convolution(u, u, 200, 200), "it wraps around the 200 samples of its transform"),
    ],
)
def test_convolutions_that_wrap_around_are_left(fun: Any, declined: str) -> None:
    outcome = made(fun, U, K, platform="tpu")
    report = next(report for report in outcome.reports if report.name == "fft_convolution")
    assert [finding.declined for finding in report.findings] == [declined]


@pytest.mark.parametrize(
    "fun",
    [
        lambda u, k: jnp.fft.irfft(jnp.fft.rfft(u, 512) * 2.0, 512),
        lambda u, k: jnp.fft.irfft(jnp.fft.rfft(u, 512) + jnp.fft.rfft(k, 512), 512),
        lambda u, k: jnp.fft.irfft(jnp.fft.rfft(u, 512) * jnp.conj(jnp.fft.rfft(k, 512)), 512),
        lambda u, k: jnp.fft.irfft(jnp.fft.rfft(u, 510)[..., :129] * jnp.fft.rfft(k, 256), 256),
    ],
)
def test_what_is_no_convolution_is_left(fun: Any) -> None:
    outcome = made(fun, U, K, platform="tpu")
    assert next(report for report in outcome.reports if report.name == "fft_convolution").findings == ()


def test_convolutions_are_left_on_a_cpu() -> None:
    outcome = made(lambda u, k: convolution(u, k, 512, 200), U, K)
    report = next(report for report in outcome.reports if report.name == "fft_convolution")
    assert "the cpu is estimated to be faster" in report.findings[0].declined


def test_transforms_become_products_where_that_is_faster() -> None:
    x = np.random.default_rng(3).standard_normal((64, 1024)).astype(np.float32)
    outcome = made(lambda x: jnp.fft.rfft(x).real, x, platform="tpu")
    report = next(report for report in outcome.reports if report.name == "fft_to_matmul")
    assert [finding.what for finding in report.changed] == ["RFFT of 1,024"]
    assert "dot_general" in primitives(outcome)
    assert "fft" not in primitives(outcome)
    for declining in (x[:2], x + 0j):
        left = made(lambda x: jnp.abs(jnp.fft.fft(x)), declining, platform="tpu")
        assert "fft" in primitives(left)


def test_a_function_is_rewritten_as_it_is_traced() -> None:
    told: list[Any] = []

    def fun(arrays: dict[str, Any], power: int, name: str = "x") -> Any:
        return {name: arrays["a"] ** power + jnp.sum(arrays["b"])}

    new = rewritten(fun, "auto", told=told.append)
    arrays = {"a": X, "b": X[0]}
    found = jax.jit(new, static_argnums=1, static_argnames="name")(arrays, 2, name="y")
    np.testing.assert_allclose(found["y"], X**2 + X[0].sum(), rtol=1e-5)
    assert [report.name for report in told[0].reports] == list(DEFAULT)
    gradient = jax.grad(lambda a: jnp.sum(new({"a": a, "b": a[0]}, 3)["x"]))(X)
    np.testing.assert_allclose(gradient, jax.grad(lambda a: jnp.sum(fun({"a": a, "b": a[0]}, 3)["x"]))(X), rtol=1e-5)


def wrong_result(closed: Any, context: Context) -> Rewritten:
    return Rewritten(jax.make_jaxpr(lambda x: jnp.sum(x))(X))


def crash(closed: Any, context: Context) -> Rewritten:
    raise ValueError("no idea\nsecond line")


@pytest.mark.parametrize(
    ("rewrite", "message"),
    [
        (
            wrong_result,
            r"pass wrong broke the program: its results were \['float32\[4,8\]'\] and are \['float32\[\]'\]",
        ),
        (crash, "pass wrong broke the program: ValueError: no idea$"),
    ],
)
def test_a_pass_that_breaks_the_program_is_named(rewrite: Any, message: str) -> None:
    closed = jax.make_jaxpr(lambda x: x + 1)(X)
    with pytest.raises(PassError, match=message):
        run(closed, [Pass("wrong", "", rewrite)])


def test_names() -> None:
    assert [each.name for each in chosen("auto")] == list(DEFAULT)
    assert chosen("none") == ()
    assert [each.name for each in chosen(["inline", base.get("dead_code")])] == ["inline", "dead_code"]
    with pytest.raises(PassError, match="no pass is called 'nonsense'; known: attention, common_subexpressions,"):
        chosen("inline, nonsense")
    assert set(DEFAULT) <= set(base.names())


def test_after_is_called_with_each_program() -> None:
    seen: list[tuple[str, int]] = []
    closed = jax.make_jaxpr(lambda x: jnp.where(x > 0, x, 0.0))(X)
    run(closed, chosen("inline,dead_code"), after=lambda each, now: seen.append((each.name, manager.count(now.jaxpr))))
    assert [name for name, _ in seen] == ["inline", "dead_code"]


@pytest.mark.slow
def test_ten_thousand_equations_stay_manageable() -> None:
    def fun(x: Any) -> Any:
        for _ in range(2500):
            x = jnp.where(x > 0, jnp.sin(x), x * 2.0)
        return x

    outcome = made(fun, X[:1, :1])
    assert outcome.reports[0].after > 7500
