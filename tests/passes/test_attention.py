"""The pass `attention`: programs keep their values and gradients, and only what is attention is changed."""

from __future__ import annotations

import dataclasses
from importlib.util import find_spec
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax import lax
from jax.extend.core import jaxpr_as_fun
from thorough import examples

from memplan.passes import attention, attention_blocks
from memplan.passes.attention_blocks import Sizes, blocks
from memplan.passes.base import Context
from memplan.passes.fft.choice import TPU
from memplan.passes.manager import chosen, run

PASSES = (
    *chosen("inline,constant_folding,shape_cleanup,common_subexpressions"),
    attention.PASS,
    *chosen("dead_code"),
)
ON_TPU = Context("tpu")


def drawn(seed: int, *shape: int, dtype: Any = jnp.float32) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def rewritten(fun: Any, *args: Any) -> tuple[Any, Any]:
    """Returns the function after the passes, and what the pass found."""
    closed, shape = jax.make_jaxpr(fun, return_shape=True)(*args)
    outcome = run(closed, PASSES, ON_TPU)
    tree = jax.tree.structure(shape)
    made = jaxpr_as_fun(outcome.jaxpr)
    return lambda *args: jax.tree.unflatten(tree, made(*jax.tree.leaves(args))), outcome.reports[-2]


@pytest.fixture(autouse=True)
def always_in_blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small scores fit every memory: here they are done in blocks all the same, unless a test is of the model."""
    if request.function.__name__ not in MODEL:
        monkeypatch.setattr(attention, "reason_against", lambda found, context: "")
        monkeypatch.setattr(attention_blocks, "blocks", lambda found, machine: smallest(found))


def smallest(found: Any) -> Sizes:
    """Blocks that leave nothing whole."""

    def part(size: int) -> int:
        return max(divisor for divisor in (1, 2, 3, 4, 5) if size % divisor == 0 and (divisor < size or size == 1))

    whole = found.sizes
    return Sizes(part(whole.rows), part(whole.queries), part(whole.keys))


# Tests of the model of what pays, and of what it chooses.
MODEL = ("test_the_model", "test_blocks_divide_and_fit", "test_a_compiled_program_has_no_scores_in_slow_memory")

ORDERS = {"bthd": "bthd,bshd->bhts|bhts,bshd->bthd", "bhtd": "bhtd,bhsd->bhts|bhts,bhsd->bhtd"}
MASKS = ("none", "causal", "given", "added", "window")


def made(order: str, mask: str, dtype: Any, softmax_dtype: Any) -> Any:
    """Returns attention with an order of axes and a kind of mask; the last argument is a mask for `given` and `added`."""
    first, second = ORDERS[order].split("|")

    def fun(q: jax.Array, k: jax.Array, v: jax.Array, extra: jax.Array) -> jax.Array:
        scores = jnp.einsum(first, q, k) / jnp.sqrt(q.shape[-1]).astype(dtype)
        t, s = scores.shape[-2:]
        if mask == "causal":
            scores = jnp.where(jnp.tril(jnp.ones((t, s), bool)), scores, -jnp.inf)
        elif mask == "given":
            scores = jnp.where(extra > -1, scores, jnp.finfo(dtype).min)
        elif mask == "added":
            scores = scores + extra.astype(dtype)
        elif mask == "window":
            distance = jnp.arange(t)[:, None] - jnp.arange(s)[None, :]
            scores = scores + jnp.where((distance >= 0) & (distance < 5), 0.0, -1e9).astype(dtype)
        weights = jax.nn.softmax(scores.astype(softmax_dtype), axis=-1).astype(dtype)
        return jnp.einsum(second, weights, v)

    return fun


def arguments(order: str, sizes: tuple[int, int, int, int], dtype: Any, seed: int) -> tuple[jax.Array, ...]:
    b, h, t, s = sizes
    q, k, v = (
        drawn(seed + number, *((b, n, h, 4) if order == "bthd" else (b, h, n, 4)), dtype=dtype)
        for number, n in enumerate((t, s, s))
    )
    return q, k, v, drawn(seed + 3, b, 1, t, s)


def tolerance(dtype: Any) -> dict[str, float]:
    return {"rtol": 2e-5, "atol": 2e-6} if dtype == jnp.float32 else {"rtol": 3e-2, "atol": 2e-2}


@settings(max_examples=examples(4, 8), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(sorted(ORDERS)),
    st.sampled_from(MASKS),
    st.sampled_from([(jnp.float32, jnp.float32), (jnp.bfloat16, jnp.float32), (jnp.bfloat16, jnp.bfloat16)]),
    st.tuples(st.integers(1, 3), st.integers(1, 3), st.sampled_from([1, 6, 8]), st.sampled_from([5, 8, 12])),
    st.integers(0, 99),
)
@pytest.mark.slow
def test_values(order: str, mask: str, dtypes: tuple[Any, Any], sizes: tuple[int, int, int, int], seed: int) -> None:
    dtype = dtypes[0]
    fun, args = made(order, mask, *dtypes), arguments(order, sizes, dtype, seed)
    changed, report = rewritten(fun, *args)
    assert [finding.declined for finding in report.findings] == [""]
    found, wanted = changed(*args), fun(*args)
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
    np.testing.assert_allclose(np.asarray(found, np.float32), np.asarray(wanted, np.float32), **tolerance(dtype))


@pytest.mark.parametrize(("order", "mask"), [("bthd", "causal"), ("bhtd", "added")])
def test_gradients(order: str, mask: str) -> None:
    fun, args = made(order, mask, jnp.float32, jnp.float32), arguments(order, (2, 2, 6, 9), jnp.float32, 0)
    changed, _ = rewritten(fun, *args)

    def gradients(each: Any) -> Any:
        return jax.jit(jax.grad(lambda *args: jnp.sum(jnp.sin(each(*args))), (0, 1, 2, 3)))(*args)

    for ours, theirs in zip(gradients(changed), gradients(fun), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_no_scores_are_left_as_a_whole() -> None:
    fun, args = made("bthd", "causal", jnp.float32, jnp.float32), arguments("bthd", (2, 3, 8, 12), jnp.float32, 0)
    changed, report = rewritten(fun, *args)
    assert [finding.what for finding in report.findings] == ["attention of 8 queries by 12 keys"]
    assert "float32[2,3,8,12]" in str(jax.make_jaxpr(fun)(*args)).replace("f32", "float32")
    text = str(jax.make_jaxpr(changed)(*args)).replace("f32", "float32")
    assert "float32[2,3,8,12]" not in text
    assert "bool[8,12]" not in text


def test_rows_that_are_masked_altogether() -> None:
    """By -inf they are no numbers, and a large number leaves the mean of the values: as before."""
    q, k, v, _ = arguments("bhtd", (1, 2, 4, 8), jnp.float32, 0)
    mask = jnp.ones((4, 8), bool).at[1].set(False).at[2, :6].set(False)
    for least in (-jnp.inf, -1e30):

        def fun(q: Any, k: Any, v: Any, least: float = least) -> Any:
            scores = jnp.where(mask, q @ k.swapaxes(-1, -2), least)
            return jax.nn.softmax(scores) @ v

        changed, report = rewritten(fun, q, k, v)
        assert len(report.changed) == 1
        np.testing.assert_allclose(changed(q, k, v), fun(q, k, v), rtol=2e-5, atol=1e-6)


def softmax_by_hand(x: jax.Array) -> jax.Array:
    powers = jnp.exp(x - lax.stop_gradient(x.max(-1, keepdims=True)))
    return powers / powers.sum(-1, keepdims=True)


@pytest.mark.parametrize(
    "fun",
    [
        lambda q, k, v: softmax_by_hand(q @ k.swapaxes(-1, -2)) @ v,
        lambda q, k, v: jax.nn.softmax(30 * jnp.tanh(q @ k.swapaxes(-1, -2) / 30)) @ v,
        lambda q, k, v: jnp.swapaxes(jnp.swapaxes(v, -1, -2) @ jax.nn.softmax(k @ q.swapaxes(-1, -2), -2), -1, -2),
        lambda q, k, v: jax.nn.dot_product_attention(*(x.swapaxes(1, 2) for x in (q, k, v)), is_causal=True),
        lambda q, k, v: jax.vmap(lambda q, k, v: jax.nn.softmax(q @ k.T) @ v)(q[0], k[0], v[0]),
        lambda q, k, v: lax.scan(lambda c, x: (c, jax.nn.softmax(x[0] @ x[1].swapaxes(-1, -2)) @ x[2]), 0.0, (q, k, v))[
            1
        ],
    ],
    ids=["by hand", "capped", "transposed", "dot_product_attention", "mapped", "in a loop"],
)
def test_other_ways_to_write_it(fun: Any) -> None:
    q, k, v, _ = arguments("bhtd", (2, 2, 8, 12), jnp.float32, 0)
    changed, report = rewritten(fun, q, k, v)
    assert len(report.changed) == 1
    np.testing.assert_allclose(changed(q, k, v), fun(q, k, v), rtol=2e-5, atol=2e-6)


@pytest.mark.slow
def test_grouped_queries() -> None:
    q, k, v = drawn(0, 2, 6, 4, 4), drawn(1, 2, 6, 2, 4), drawn(2, 2, 6, 2, 4)

    def fun(q: Any, k: Any, v: Any) -> Any:
        return jax.nn.dot_product_attention(q, k, v, is_causal=True)

    changed, report = rewritten(fun, q, k, v)
    assert len(report.changed) == 1
    np.testing.assert_allclose(changed(q, k, v), fun(q, k, v), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(
    ("fun", "reason"),
    [
        (lambda q, k, v: (jax.nn.softmax(q @ k.T) @ v, jax.nn.softmax(q @ k.T)), "read elsewhere too"),
        (jax.grad(lambda q, k, v: jnp.sum(jax.nn.softmax(q @ k.T) @ v)), "read elsewhere too"),
        (lambda q, k, v: jax.nn.softmax(jnp.cumsum(q @ k.T, -1)) @ v, "no products of queries and keys"),
        (lambda q, k, v: jax.nn.softmax(q @ k.T + k @ q.T) @ v, "2 products of queries and keys"),
    ],
    ids=["probabilities wanted", "backward pass", "not by itself", "two products"],
)
def test_what_is_left(fun: Any, reason: str) -> None:
    args = [drawn(number, 8, 8) for number in range(3)]
    changed, report = rewritten(fun, *args)
    assert not report.changed
    assert any(reason in finding.declined for finding in report.findings)
    for ours, theirs in zip(jax.tree.leaves(changed(*args)), jax.tree.leaves(fun(*args)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "fun",
    [
        lambda q, k, v: (q @ k.T) @ v,
        lambda q, k, v: jax.nn.softmax(q @ k.T, axis=0) @ v,
        lambda q, k, v: jnp.exp(q @ k.T) @ v,
        lambda q, k, v: jax.nn.softmax(q @ k.T) * v,
    ],
    ids=["no softmax", "along the queries", "not divided", "no second product"],
)
def test_what_is_no_attention(fun: Any) -> None:
    _, report = rewritten(fun, *(drawn(number, 8, 8) for number in range(3)))
    assert report.findings == ()


@pytest.mark.parametrize(
    ("sizes", "platform", "declined"),
    [
        ((8, 12, 512, 512), "tpu", "its scores, 100,663,296 bytes, fit the fast memory"),
        ((8, 12, 1024, 1024), "tpu", ""),
        ((1, 8, 4096, 4096), "tpu", ""),
        ((1, 8, 4099, 4099), "tpu", "no divisors that would be good sizes"),
        ((1, 8, 4096, 4096), "cpu", "on a cpu, blocks were not measured to be faster"),
    ],
)
def test_the_model(sizes: tuple[int, int, int, int], platform: Any, declined: str) -> None:
    b, h, t, n = sizes
    shapes = (b, h, t, 4), (b, h, n, 4), (b, h, n, 4), (b, 1, t, n)
    args = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    closed = jax.make_jaxpr(made("bhtd", "causal", jnp.float32, jnp.float32))(*args)
    report = run(closed, PASSES, dataclasses.replace(ON_TPU, platform=platform)).reports[-2]
    assert len(report.findings) == 1
    assert declined in report.findings[0].declined
    assert bool(declined) == bool(report.findings[0].declined)


@settings(max_examples=60)
@given(st.tuples(st.integers(1, 64), st.integers(1, 16), st.integers(1, 9000), st.integers(1, 9000)))
def test_blocks_divide_and_fit(sizes: tuple[int, int, int, int]) -> None:
    b, h, t, s = sizes

    @dataclasses.dataclass
    class Found:
        """The sizes of an attention, and nothing else of it."""

        scores: Any
        sizes: Sizes

    aval = jax.ShapeDtypeStruct((b, h, t, s), jnp.float32)
    atom = type("Atom", (), {"aval": aval})
    chosen_sizes = blocks(Found(type("Scores", (), {"atom": atom}), Sizes(b, t, s)), TPU)  # type: ignore[arg-type]
    if chosen_sizes is not None:
        rows, queries, keys = dataclasses.astuple(chosen_sizes)
        assert (b % rows, t % queries, s % keys) == (0, 0, 0)
        assert 4 * rows * h * queries * keys <= TPU.fast_bytes


@pytest.mark.tpu
@pytest.mark.skipif(find_spec("libtpu") is None, reason="needs libtpu")
@pytest.mark.slow
def test_a_compiled_program_has_no_scores_in_slow_memory() -> None:
    from memplan.backends.tpu.compile import TpuCompiler
    from memplan.backends.tpu.devices import TOPOLOGY_OF_TARGET
    from memplan.cli.programs import Program, lower_for_tpu

    shapes = (1, 8, 4096, 64), (1, 8, 4096, 64), (1, 8, 4096, 64), (1, 1, 1, 1)
    args = tuple(jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in shapes)
    fun = made("bhtd", "causal", jnp.bfloat16, jnp.float32)
    changed, _ = rewritten(fun, *args)
    temporary = []
    with TpuCompiler() as compiler:
        for each in (fun, changed):
            module = lower_for_tpu(Program("attention", each, args))
            memory = compiler.compile(module, TOPOLOGY_OF_TARGET["tpu-v5e"]).memory
            assert memory is not None
            temporary.append(memory["temp_size_in_bytes"])
    scores = 2 * 8 * 4096 * 4096
    assert temporary[0] >= scores > 10 * temporary[1]
