"""Long convolutions by Fourier transforms that are matrix products, without permutations and without wasted products.

    y[…, i] = sum over j of k[…, j] · u[…, i - j]          0 ≤ i < n        (causal: u is zero before its start)

Fu et al., "FlashFFTConv", arXiv 2311.05908: the spectra of signal and filter are both in the order of the
decomposition, in which they are multiplied (section 3.1); zero padding is implicit; gates before and after are part
of the operation; *partial* convolutions have filters shorter than the signal, and *frequency-sparse* ones filters
without high frequencies (section 3.3). A filter that is much shorter than the signal slides over it in blocks
(overlap-save: Stockham, "High-speed convolution and correlation", 1966).
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax

from memplan.compiler.errors import MemplanError
from memplan.passes.fft.choice import CPU, TPU, FftTarget, decompose, decompose_at_least, seconds
from memplan.passes.fft.decomposition import Decomposition
from memplan.passes.fft.steps import Arithmetic, backward, complex_product, digits_of, forward, samples_of

Precision = Literal["highest", "default"]
PRECISIONS = ("highest", "default")
Kernel = Literal["auto", "pallas", "xla"]
KERNELS = ("auto", "pallas", "xla")


def fft_conv(
    u: jax.Array,
    k: jax.Array,
    *,
    pre_gate: jax.Array | None = None,
    post_gate: jax.Array | None = None,
    precision: Precision = "highest",
    max_frequency: float | None = None,
    fft_length: int | None = None,
    kernel: Kernel = "auto",
) -> jax.Array:
    """Returns the causal convolution of signals with filters, times gates.

    `post_gate * conv(u * pre_gate, k)`, as with `jnp.fft.irfft(rfft(u, m) * rfft(k, m), m)[..., :n]` for m of at least
    n + len(k) - 1. It is differentiable in all arrays (only they are kept for the backward pass), and can be mapped.

    Args:
      u: `[..., n]` real signals.
      k: `[..., taps]` real filters; what is before the last axis broadcasts against that of `u`.
      pre_gate, post_gate: `[..., n]`, broadcast against `u`.
      precision: "highest" for products in the dtype of the arguments, float32 at least; "default" for those that the
        hardware does fastest: bfloat16 summed in float32 on a TPU, TF32 on a GPU that has it.
      max_frequency: frequencies of the filter above this part of the highest (0 to 1] are taken for zero, and not
        computed. What they are depends on the length of the transform, so that has to be stated too. None for all
        frequencies.
      fft_length: of the transform, at least n + taps - 1; None for the one that costs least.
      kernel: "pallas" for one fused kernel on a TPU (up to 32,768 samples) and on a GPU (up to 8,192), differentiable
        once and backwards only; what it does not take, and other platforms, get "xla": products that XLA compiles. If
        neither platform's kernel takes it, a warning says why. "auto" is "xla" as long as the kernel was not measured
        to be faster on hardware.

    Returns:
      `[..., n]`, in the dtype of the arguments.

    Raises:
      MemplanError: shapes, dtypes or options that do not fit.
    """
    dtype = jnp.result_type(u, k)
    _check(u, k, dtype, precision, max_frequency, fft_length)
    if kernel not in KERNELS:
        raise MemplanError(f"fft_conv: kernel is {kernel!r}, not one of {', '.join(KERNELS)}")
    if max_frequency is None:
        k = k[..., : u.shape[-1]]  # Later samples of the filter reach no result.
    options: dict[str, Any] = {"max_frequency": max_frequency, "fft_length": fft_length, "dtype": dtype}
    partial = functools.partial(convolve, precision=precision, **options)
    on_tpu, elsewhere = (jax.checkpoint(functools.partial(partial, target=target)) for target in (TPU, CPU))
    if kernel == "pallas":
        taken = _kernels(u, k, pre_gate, post_gate, precision, max_frequency is not None or fft_length is not None)
        if taken:
            products = functools.partial(_gated, elsewhere), functools.partial(_gated, on_tpu)
            branches = {"tpu": products[1], **taken}
            return lax.platform_dependent(u, k, pre_gate, post_gate, default=products[0], **branches)
    y = lax.platform_dependent(_times(u, pre_gate), k, tpu=on_tpu, default=elsewhere)
    return _times(y, post_gate)


def _times(x: jax.Array, gate: jax.Array | None) -> jax.Array:
    return x if gate is None else x * gate


def _gated(
    form: Callable[..., jax.Array], u: jax.Array, k: jax.Array, before: jax.Array | None, after: jax.Array | None
) -> jax.Array:
    return _times(form(_times(u, before), k), after)


def _kernels(
    u: jax.Array, k: jax.Array, before: jax.Array | None, after: jax.Array | None, precision: str, has_transform: bool
) -> dict[str, Callable[..., jax.Array]]:
    """Returns the kernels that take a convolution, by JAX's names of platforms; warns if there are none."""
    from memplan.passes.fft.kernel import fused, reason_against
    from memplan.passes.fft.kernel_form import KernelPlatform

    wide = Arithmetic.highest(jnp.float32)
    is_exact = precision == "highest"
    platforms: tuple[tuple[str, KernelPlatform, Arithmetic], ...] = (
        ("tpu", "tpu", wide if is_exact else Arithmetic.narrow()),
        ("cuda", "gpu", wide if is_exact else Arithmetic.fast(jnp.float32)),
    )
    found: dict[str, Callable[..., jax.Array]] = {}
    reasons = []
    for name, platform, arithmetic in platforms:
        if reason := reason_against(u, k, before, after, has_transform, platform):
            reasons.append(reason)
        else:
            # Only the arguments are kept for the backward pass.
            found[name] = jax.checkpoint(functools.partial(fused, arithmetic=arithmetic, platform=platform))
    if not found:
        warnings.warn(f"fft_conv has no kernel for this, and leaves it to XLA: {reasons[0]}", stacklevel=3)
    return found


def _check(
    u: jax.Array, k: jax.Array, dtype: Any, precision: str, max_frequency: float | None, fft_length: int | None
) -> None:
    if precision not in PRECISIONS:
        raise MemplanError(f"fft_conv: precision is {precision!r}, not one of {', '.join(PRECISIONS)}")
    if not jnp.issubdtype(dtype, jnp.floating):
        raise MemplanError(f"fft_conv takes real floating-point arrays, not {u.dtype} and {k.dtype}")
    if u.ndim < 1 or k.ndim < 1 or 0 in (u.shape[-1], k.shape[-1]):
        raise MemplanError(
            f"fft_conv: u is {list(u.shape)} and k is {list(k.shape)}; each needs a last axis that is not empty"
        )
    try:
        jnp.broadcast_shapes(u.shape[:-1], k.shape[:-1])
    except ValueError:
        raise MemplanError(
            f"fft_conv: u is {list(u.shape)} and k is {list(k.shape)}: what is before the last axis does not broadcast"
        ) from None
    if fft_length is not None and fft_length < u.shape[-1] + k.shape[-1] - 1:
        raise MemplanError(
            f"fft_conv: a transform of {fft_length:,} is too short for {u.shape[-1]:,} samples and {k.shape[-1]:,} taps"
        )
    if max_frequency is not None:
        if fft_length is None:
            raise MemplanError("fft_conv: max_frequency needs fft_length: it is a part of that transform's frequencies")
        if not 0.0 < max_frequency <= 1.0:
            raise MemplanError(f"fft_conv: max_frequency is {max_frequency}, not above 0 and up to 1")


@dataclass(frozen=True)
class _Form:
    """How a convolution is carried out.

    Attributes:
      decomposition: of the transform.
      blocks: how many blocks the signal is cut into; 1 for none.
      block: how many results each gives.
    """

    decomposition: Decomposition
    blocks: int
    block: int


def _form(n: int, taps: int, rows: int, target: FftTarget, fft_length: int | None, terms: float = math.inf) -> _Form:
    """Returns the cheapest form; raises MemplanError if a length that the user chose has no decomposition."""
    if fft_length is not None:
        chosen = decompose(fft_length, rows, target, samples=n, terms=terms)
        if chosen is None:
            raise MemplanError(f"fft_conv: {fft_length:,} is no product of small factors; leave fft_length out")
        return _Form(chosen, 1, n)
    forms: list[tuple[float, _Form]] = []
    try:
        whole = decompose_at_least(n + taps - 1, rows, target, n, terms)
        forms.append((seconds(whole, rows, target, True, n), _Form(whole, 1, n)))
    except ValueError:
        pass  # The transform is too long in one piece.
    length = 1 << (2 * taps - 1).bit_length()
    while length < n or not forms:
        block = length - taps + 1
        blocks = -(-n // block)
        inside = decompose(length, rows * blocks, target, terms=terms)
        if inside is None:
            break
        forms.append((seconds(inside, rows * blocks, target, True, None), _Form(inside, blocks, block)))
        length *= 2
    if not forms:
        raise MemplanError(f"fft_conv: {n:,} samples with {taps:,} taps are too long for it")
    return min(forms, key=lambda scored: scored[0])[1]


def convolve(
    u: jax.Array,
    k: jax.Array,
    *,
    precision: str,
    target: FftTarget,
    max_frequency: float | None = None,
    fft_length: int | None = None,
    dtype: Any = None,
) -> jax.Array:
    """Returns `fft_conv` of arguments that were checked, in the form and the arithmetic of a target.

    Args:
      target: TPU or CPU, of `choice.py`.
      dtype: of the result; that of the arguments by default.
      u, k, precision, max_frequency, fft_length: as for `fft_conv`.
    """
    dtype = jnp.result_type(u, k) if dtype is None else dtype
    n, taps = u.shape[-1], k.shape[-1]
    if precision == "highest":
        arithmetic = Arithmetic.highest(dtype)
    else:
        arithmetic = Arithmetic.narrow() if target is TPU else Arithmetic.fast(dtype)
    rows = math.prod(jnp.broadcast_shapes(u.shape[:-1], k.shape[:-1]))
    form = _form(n, taps, rows, target, fft_length, arithmetic.terms)
    decomposition = form.decomposition
    order = len(decomposition.factors)
    if form.blocks > 1:
        u = _blocks(u, form, taps)
        # Rotated, so that the results that count are the first ones.
        k = jnp.concatenate(
            [k[..., -1:], jnp.zeros((*k.shape[:-1], decomposition.length - taps), k.dtype), k[..., :-1]], -1
        )[..., None, :]
    kept = None if max_frequency is None else _kept(decomposition, max_frequency)
    signal, taps_spectrum = (
        forward(
            jnp.expand_dims(digits_of(x, decomposition, decomposition.rows(x.shape[-1])), -order - 1),
            decomposition,
            arithmetic,
            real=True,
            half=True,
            kept=kept,
        )
        for x in (u, k)
    )
    if max_frequency is not None and kept is not None:
        taps_spectrum = taps_spectrum * jnp.asarray(_mask(decomposition, kept, max_frequency), taps_spectrum.dtype)
    product = complex_product(signal, taps_spectrum, max(signal.ndim, taps_spectrum.ndim) - order - 1)
    wanted = decomposition.rows(form.block)
    y = backward(product, decomposition, arithmetic, wanted, real=True, half=True, dtype=dtype, kept=kept)
    y = samples_of(jnp.squeeze(y, -order - 1), order, form.block)
    if form.blocks > 1:
        y = y.reshape(*y.shape[:-2], form.blocks * form.block)[..., :n]
    return y


def _blocks(u: jax.Array, form: _Form, taps: int) -> jax.Array:
    """Returns `[…, blocks, length]`: each block's samples, after those that its first results need."""
    length = form.decomposition.length
    padding = form.blocks * form.block - u.shape[-1]
    cut = jnp.pad(u, [(0, 0)] * (u.ndim - 1) + [(0, padding)]).reshape(*u.shape[:-1], form.blocks, form.block)
    # Several blocks may be needed for what comes before, but not with blocks as long as here: block ≥ taps - 1.
    ends = cut[..., form.block - (taps - 1) :]
    before = jnp.concatenate([jnp.zeros_like(ends[..., :1, :]), ends[..., :-1, :]], -2)
    blocks = jnp.concatenate([before, cut], -1)
    assert blocks.shape[-1] == length
    return blocks


def _kept(decomposition: Decomposition, max_frequency: float) -> tuple[int, ...]:
    """Returns the values of the last digit of frequency with any frequency that is kept."""
    last, length = decomposition.factors[-1], decomposition.length
    block = length // last
    highest = math.floor(max_frequency * (length // 2))
    return tuple(
        digit
        for digit in range(last)
        # The frequencies of a digit are a block; those above the half are negative ones.
        if digit * block <= highest or length - ((digit + 1) * block - 1) <= highest
    )


def _mask(decomposition: Decomposition, kept: tuple[int, ...], max_frequency: float) -> Any:
    """Returns 1 for the frequencies that are kept and 0 for the others, `[1, k1, …, kp]`."""
    frequency = decomposition.frequencies(half=True)[..., list(kept)]
    length = decomposition.length
    return (abs((frequency + length // 2) % length - length // 2) <= math.floor(max_frequency * (length // 2)))[None]
