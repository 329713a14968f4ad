"""Every operation and view in C computes what JAX computes; one program holds many of them, so that one compile does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exported import needs, run
from jax import lax

from memplan.backends.c.export import export_c

pytestmark = needs("gcc")


def _arrays() -> tuple[Any, ...]:
    random = np.random.default_rng(1)
    floats = random.normal(size=(4, 6)).astype(np.float32)
    floats[0, :4] = [0.0, -0.0, 0.5, 2.5]
    ints = random.integers(-(2**31), 2**31, (4, 6)).astype(np.int32)
    ints[0, :4] = [-(2**31), -1, 0, 2**31 - 1]
    small = random.integers(-5, 6, (4, 6)).astype(np.int32)
    bytes_ = random.integers(-128, 128, (4, 6)).astype(np.int8)
    return floats, ints, small, bytes_


def _unary(f: Any) -> list[Any]:
    positive = jnp.abs(f) + 0.1
    functions: list[Callable[[Any], Any]] = [
        lax.abs, lax.cbrt, lax.ceil, lax.cos, lax.erf, lax.exp, lax.exp2, lax.expm1, lax.floor, lax.is_finite, lax.logistic,
        lax.neg, lax.sign, lax.sin, lax.tan, lax.tanh, lax.square, jnp.round,
        lambda x: lax.round(x, lax.RoundingMethod.AWAY_FROM_ZERO), lambda x: lax.integer_pow(x, 5), lambda x: lax.integer_pow(x, -2),
    ]  # fmt: skip
    return [g(f) for g in functions] + [g(positive) for g in (lax.log, lax.log1p, lax.rsqrt, lax.sqrt)]


def _binary(f: Any, i: Any, s: Any, b: Any) -> list[Any]:
    g = f[::-1]
    j, c = i[::-1], b[::-1]
    whole = [
        lax.add,
        lax.sub,
        lax.mul,
        lax.div,
        lax.rem,
        lax.max,
        lax.min,
        lax.bitwise_and,
        lax.bitwise_or,
        lax.bitwise_xor,
    ]
    shifts = [lax.shift_left, lax.shift_right_arithmetic, lax.shift_right_logical]
    results = [op(f, g) for op in (lax.add, lax.sub, lax.mul, lax.div, lax.rem, lax.max, lax.min, lax.atan2)]
    results += [lax.pow(jnp.abs(f), g), lax.clamp(-0.5, f, 0.7), jnp.where(f > g, f, 2 * g)]
    results += [op(i, j) for op in whole] + [op(i, s) for op in (lax.div, lax.rem)] + [op(b, c) for op in whole]
    results += [op(i, s + 5) for op in shifts] + [op(b, jnp.full_like(b, 3)) for op in shifts]
    u, v = i.astype(jnp.uint32), j.astype(jnp.uint32)
    results += [op(u, v) for op in whole] + [op(u, (s + 5).astype(jnp.uint32)) for op in shifts]
    results += [lax.neg(i), lax.abs(i), lax.sign(i), lax.bitwise_not(i), lax.neg(b), lax.bitwise_not(b), lax.abs(b)]
    results += [op(i, j) for op in (lax.eq, lax.ne, lax.lt, lax.le, lax.gt, lax.ge)] + [~(f > 0), (f > 0) ^ (g > 0)]
    results += [(1000 * f).astype(t) for t in (jnp.int8, jnp.uint8, jnp.int16, jnp.int32, jnp.bool_)]
    results += [i.astype(t) for t in (jnp.int8, jnp.uint8, jnp.int16, jnp.uint16, jnp.uint32, jnp.float32, jnp.bool_)]
    return results


def _views(f: Any, i: Any) -> list[Any]:
    return [
        f.T * 1, f.reshape(3, 8) + 1, f.T.reshape(8, 3) * 2, f.T.reshape(2, 12)[:, ::5] * 1, jnp.flip(f, 1) + f, f[1:3, ::2] * 2,
        lax.pad(f, 1.5, ((1, 2, 0), (-1, 1, 1))) * 2, jnp.concatenate([f, i.astype(jnp.float32), f[:1]], 0), f[:, None] * f[None],
        jnp.broadcast_to(f[:, 2:3], (4, 6)) + f, lax.broadcasted_iota(jnp.int32, (4, 6), 1) * i, jnp.tile(f, (2, 2)) + 1, f,
        jnp.concatenate([f[:, :2].T, f[:2, :4] + 1], 1).reshape(-1), jnp.ones((3,)), *jnp.split(f, 2, 1),
    ]  # fmt: skip


def _reductions(f: Any, i: Any, b: Any) -> list[Any]:
    return [
        f.sum(), f.sum(0), f.sum(1) * 2, f.prod(1), f.max(0), f.min(1), (f > 0).all(0), (f > 0).any(1), i.sum(0), b.max(1),
        jnp.argmax(f, 1), jnp.argmin(i, 0), jnp.argmax(jnp.where(f > 1, jnp.nan, f), 1), f.T.sum(1), jax.nn.softmax(f),
        lax.reduce(b, np.int8(0), lax.bitwise_or, (1,)), lax.reduce_and(i, (1,)), i.max(), i.min(0),
        lax.dot_general(f, f, (((1,), (1,)), ((), ()))), lax.dot_general(b, b, (((1,), (1,)), ((0,), (0,))), preferred_element_type=jnp.int32),
        (f - f.mean(1, keepdims=True)) * lax.rsqrt(f.var(1, keepdims=True) + 1e-3),
    ]  # fmt: skip


@pytest.mark.slow
def test_operations_and_views(tmp_path: Path) -> None:
    def everything(f: Any, i: Any, s: Any, b: Any) -> list[Any]:
        return _unary(f) + _binary(f, i, s, b) + _views(f, i) + _reductions(f, i, b)

    made = export_c(everything, *_arrays(), reorder=False, effort="fast")
    found = run(made, tmp_path)
    assert len(found) == len(jax.eval_shape(everything, *_arrays()))


_NAMES = [("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW"), ("CNHW", "HWOI", "HWNC")]


def _convolutions() -> list[tuple[Any, Any, dict[str, Any]]]:
    """Returns operands and options of convolutions of random forms."""
    random = np.random.default_rng(5)
    found: list[tuple[Any, Any, dict[str, Any]]] = []
    while len(found) < 12:
        names = _NAMES[len(found) % 3]
        groups = int(random.choice([1, 1, 2, 4]))
        batch_groups = int(random.choice([1, 2])) if groups == 1 else 1
        sizes = {"N": 2 * batch_groups, "C": 2 * groups, "H": random.integers(4, 8), "W": random.integers(4, 8)}
        kernel = {"H": random.integers(1, 4), "W": random.integers(1, 4), "I": 2, "O": 2 * groups * batch_groups}
        is_int = len(found) % 4 == 0
        x = random.integers(-128, 128, [sizes[c] for c in names[0]])
        w = random.integers(-128, 128, [kernel[c] for c in names[1]])
        dtype = np.int8 if is_int else np.float32
        options = {
            "window_strides": random.integers(1, 3, 2).tolist(),
            "padding": random.integers(-1, 3, (2, 2)).tolist(),
            "lhs_dilation": random.integers(1, 3, 2).tolist(),
            "rhs_dilation": random.integers(1, 3, 2).tolist(),
            "dimension_numbers": names,
            "feature_group_count": groups,
            "batch_group_count": batch_groups,
            "preferred_element_type": jnp.int32 if is_int else None,
        }
        operands = (x.astype(dtype), w.astype(dtype))
        if 0 not in jax.eval_shape(lambda x, w, o=options: lax.conv_general_dilated(x, w, **o), *operands).shape:
            found.append((*operands, options))
    return found


@pytest.mark.slow
def test_convolutions_of_all_forms_and_their_gradients(tmp_path: Path) -> None:
    forms = _convolutions()

    def everything(*operands: Any) -> list[Any]:
        results = []
        for number, (_, _, options) in enumerate(forms):
            x, w = operands[2 * number : 2 * number + 2]
            if options["preferred_element_type"] is not None:
                results.append(lax.conv_general_dilated(x, w, **options))
            else:
                y, pullback = jax.vjp(lambda x, w, o=options: lax.conv_general_dilated(x, w, **o), x, w)
                results += [y, *pullback(jnp.cos(y))]
        return results

    operands = [operand for x, w, _ in forms for operand in (x, w)]
    kept = jax.eval_shape(everything, *operands)
    found = run(export_c(everything, *operands, reorder=False, effort="fast"), tmp_path)
    integers = [k for k, each in enumerate(kept) if each.dtype == jnp.int32]
    assert integers
    assert all(found[f"result_{k}"] == 0 for k in integers)
