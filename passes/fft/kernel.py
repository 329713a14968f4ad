"""The fused kernel as a function of JAX: which convolutions it takes, and its gradients.

A convolution that the kernel does not take is left to the form that XLA compiles (`convolution.py`);
`reason_against` says why. The filters' spectra are made by XLA, once for all signals.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from memplan.passes.fft.kernel_body import run_backward, run_forward
from memplan.passes.fft.kernel_form import LONGEST, KernelForm, KernelPlatform, kernel_form, tables
from memplan.passes.fft.steps import Arithmetic


@dataclass(frozen=True)
class _Axes:
    """How the axes before the last one are seen by the kernel.

    Attributes:
      shape: of the result, without the last axis.
      shared: how many of them share filters; the others have one each.
    """

    shape: tuple[int, ...]
    shared: int

    @property
    def batch(self) -> int:
        """Signals that share a filter."""
        return math.prod(self.shape[: self.shared])

    @property
    def channels(self) -> int:
        """Filters."""
        return math.prod(self.shape[self.shared :])


def reason_against(u: Any, k: Any, before: Any, after: Any, has_transform: bool, platform: KernelPlatform) -> str:
    """Returns why the kernel cannot do a convolution, "" if it can.

    Args:
      u, k: signals `[..., n]` and filters `[..., taps]`: arrays, or what has their shape and dtype.
      before, after: gates or None.
      has_transform: whether the transform's length or frequencies were chosen.
      platform: that it is for.
    """
    given = [x for x in (u, k, before, after) if x is not None]
    if wide := [str(x.dtype) for x in given if not _is_narrow(x.dtype)]:
        return f"it takes floats of 16 and 32 bits, not {wide[0]}"
    if u.shape[-1] > LONGEST[platform]:
        return f"{u.shape[-1]:,} samples are more than {LONGEST[platform]:,}"
    if has_transform:
        return "its transform has a length of its own, and all frequencies"
    if _axes(u, k, before, after) is None:
        return "filters must be shared along leading axes only, and gates must not be larger than the result"
    if 0 in u.shape or 0 in k.shape:
        return "there is nothing to convolve"
    return ""


def fused(
    u: jax.Array,
    k: jax.Array,
    before: jax.Array | None,
    after: jax.Array | None,
    *,
    arithmetic: Arithmetic,
    platform: KernelPlatform,
    interpret: bool = False,
) -> jax.Array:
    """Returns `after * conv(u * before, k)` by the kernel; `reason_against` must find none.

    Args:
      u, k, before, after: as for `reason_against`, the last axes of gates n or 1 long.
      arithmetic: of the products.
      platform: that the kernel is made for.
      interpret: whether Pallas shall interpret it.

    Returns:
      `[..., n]`, in the dtype that `after * (u + k)` would have.
    """
    axes = _axes(u, k, before, after)
    assert axes is not None
    samples = u.shape[-1]
    wide = all(x.dtype == jnp.float32 for x in (u, k, before, after) if x is not None)
    form = kernel_form(samples, axes.batch, axes.channels, arithmetic, platform, wide, interpret)
    dtype = jnp.result_type(*(x for x in (u, k, after) if x is not None))
    signals = _matrices(jnp.broadcast_to(u, (*axes.shape, samples)), axes, form)
    gates = [None if gate is None else _matrices(_filled(gate, axes, samples), axes, form) for gate in (before, after)]
    spectrum = _spectrum(k[..., :samples].reshape(axes.channels, -1), form)
    y = _convolved(form, dtype, signals, spectrum, *gates)
    return y.reshape(*axes.shape, form.length)[..., :samples]


def _is_narrow(dtype: Any) -> bool:
    return bool(jnp.issubdtype(dtype, jnp.floating)) and dtype.itemsize in (2, 4)


def _axes(u: Any, k: Any, before: Any, after: Any) -> _Axes | None:
    """Returns how the kernel sees the axes; None if it cannot."""
    shape = np.broadcast_shapes(*(x.shape[:-1] for x in (u, k, before) if x is not None))
    if after is not None and np.broadcast_shapes(shape, after.shape[:-1]) != shape:
        return None
    taps = (1,) * (len(shape) - k.ndim + 1) + tuple(k.shape[:-1])
    shared = next(number for number in range(len(shape) + 1) if taps[number:] == shape[number:])
    return _Axes(shape, shared) if all(size == 1 for size in taps[:shared]) else None


def _filled(gate: jax.Array, axes: _Axes, samples: int) -> jax.Array:
    """Returns a gate in a shape that is shared by the whole batch, by all channels, by both, or by none."""
    shape = (1,) * (len(axes.shape) - gate.ndim + 1) + tuple(gate.shape[:-1])
    halves = (shape[: axes.shared], axes.shape[: axes.shared]), (shape[axes.shared :], axes.shape[axes.shared :])
    filled: list[int] = []
    for found, whole in halves:
        filled += found if all(size == 1 for size in found) else whole
    return jnp.broadcast_to(gate, (*filled, samples))


def _matrices(x: jax.Array, axes: _Axes, form: KernelForm) -> jax.Array:
    """Returns signals or gates `[..., n]` as `[batch or 1, channels or 1, N1, N2]`, zeros added."""
    padding = form.length - x.shape[-1]
    if padding:
        x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, padding)])
    batch = math.prod(x.shape[: axes.shared])
    return x.reshape(batch, -1, form.rows, form.columns)


def _spectrum(k: jax.Array, form: KernelForm) -> jax.Array:
    """Returns the spectra `[channels, 2, N1, N2]` of filters `[channels, taps]`, divided by the length."""
    found, arithmetic = tables(form.rows, form.columns), form.arithmetic
    padded = jnp.pad(k, [(0, 0), (0, form.length - k.shape[-1])]).astype(arithmetic.storage)
    matrices = padded.reshape(-1, form.rows, form.columns)

    def multiplied(spec: str, x: jax.Array, table: np.ndarray) -> jax.Array:
        factor = jnp.asarray(table.astype(arithmetic.storage))
        return jnp.einsum(
            spec,
            x.astype(arithmetic.storage),
            factor,
            precision=arithmetic.precision,
            preferred_element_type=jnp.float32,
        )

    first, second = (np.stack([table.real, table.imag]) for table in (found.first, found.second))
    turned = multiplied("cjn,pkj->cpkn", matrices, first / form.length)
    cosine, sine = (jnp.asarray(part.astype(np.float32)) for part in (found.twiddle.real, found.twiddle.imag))
    real, imaginary = turned[:, 0], turned[:, 1]
    real, imaginary = real * cosine - imaginary * sine, real * sine + imaginary * cosine
    by_real, by_imaginary = (multiplied("ckn,pnl->cpkl", part, second) for part in (real, imaginary))
    return jnp.stack(
        [by_real[:, 0] - by_imaginary[:, 1], by_real[:, 1] + by_imaginary[:, 0]],
        1,
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _convolved(
    form: KernelForm,
    dtype: Any,
    u: jax.Array,
    spectrum: jax.Array,
    before: jax.Array | None,
    after: jax.Array | None,
) -> jax.Array:
    return run_forward(form, u, spectrum, before, after, dtype)


def _kept(
    form: KernelForm,
    dtype: Any,
    u: jax.Array,
    spectrum: jax.Array,
    before: jax.Array | None,
    after: jax.Array | None,
) -> tuple[jax.Array, tuple[Any, ...]]:
    return run_forward(form, u, spectrum, before, after, dtype), (u, spectrum, before, after)


def _gradients(form: KernelForm, dtype: Any, kept: Sequence[Any], dy: jax.Array) -> tuple[Any, ...]:
    del dtype
    u, spectrum, before, after = kept
    du, d_spectrum, *d_gates = run_backward(form, dy, u, spectrum, before, after)
    summed = [
        None if gate is None else _summed(slope, gate) for slope, gate in zip(d_gates, (before, after), strict=True)
    ]
    return du, d_spectrum, *summed


def _summed(slope: Any, gate: jax.Array) -> jax.Array:
    """Returns the gradient of a gate from that of its copies."""
    axes = tuple(axis for axis in (0, 1) if gate.shape[axis] != slope.shape[axis])
    return jnp.sum(slope, axes, keepdims=True).astype(gate.dtype) if axes else slope


_convolved.defvjp(_kept, _gradients)
