"""The pass `fft_convolution`: convolutions by Fourier transforms become matrix products as a whole.

    irfft(rfft(u, m) * rfft(k, m), m)[..., :n]          u and k shorter than m, zeros added or not

Both spectra stay in the order of the decomposition, zeros at the end of the signals are not multiplied, and results
that are cut off are not computed (see `fft/convolution.py`; Fu et al., "FlashFFTConv", arXiv 2311.05908, sections 3
and 4). This is exact up to rounding where the convolution does not wrap around, len(u) + len(k) - 1 ≤ m; others are
left to `fft_to_matmul`. The passes `inline` and `shape_cleanup` run before, so that the pattern is in one piece.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, Literal

from memplan.passes.base import Context, Finding, Pass, Rewritten
from memplan.passes.fft.convolution import fft_conv
from memplan.passes.fft.estimates import convolution_is_faster
from memplan.passes.jaxprs import Existing, Replacement, consumers, edited, everywhere, producers, where


def rewrite(closed: Any, context: Context) -> Rewritten:
    """Replaces convolutions everywhere, also within loops and branches."""
    findings: list[Finding] = []
    return Rewritten(everywhere(closed, lambda inner: _replaced(inner, context, findings)), tuple(findings))


@dataclass(frozen=True)
class _Signal:
    """One of the two operands.

    Attributes:
      atom: the variable before zeros were added.
      length: of its last axis.
      axes: the axes of the product that its axes before the last one are, ascending.
    """

    atom: Any
    length: int
    axes: tuple[int, ...]


def _replaced(closed: ClosedJaxpr, context: Context, findings: list[Finding]) -> ClosedJaxpr:
    made_by, read_by = producers(closed.jaxpr), consumers(closed.jaxpr)

    def rule(equation: Any) -> Existing | Replacement | None:
        if not _is_transform(equation, lax.FftType.IRFFT):
            return None
        length = equation.params["fft_lengths"][0]
        signals = _operands(equation, length, made_by)
        if signals is None:
            return None
        signal, taps = sorted(signals, key=lambda found: -found.length)
        what = f"convolution of {signal.length:,} samples with {taps.length:,} taps"
        declined = ""
        if signal.length + taps.length - 1 > length:
            declined = f"it wraps around the {length:,} samples of its transform"
        elif not convolution_is_faster(context):
            declined = f"the {context.platform} is estimated to be faster with its own transforms"
        findings.append(Finding(what, where(equation), declined))
        if declined:
            return None
        shape = equation.outvars[0].aval.shape
        wanted = _wanted(equation.outvars[0], read_by)
        precision = context.fft_precision

        def convolve(u: Any, k: Any) -> Any:
            u, k = (_spread(x, found, len(shape)) for x, found in ((u, signal), (k, taps)))
            cut = u[..., :wanted]
            longer = jnp.pad(cut, [(0, 0)] * (cut.ndim - 1) + [(0, wanted - cut.shape[-1])])
            y = fft_conv(longer, k, precision=precision)
            # The slice that follows cuts these zeros off again; XLA sees that.
            return jnp.pad(y, [(0, 0)] * (y.ndim - 1) + [(0, length - wanted)])

        return Replacement(convolve, (signal.atom, taps.atom))

    return edited(closed, rule)


def _is_transform(equation: Any, kind: lax.FftType) -> bool:
    return (
        equation is not None
        and equation.primitive.name == "fft"
        and equation.params["fft_type"] == kind
        and len(equation.params["fft_lengths"]) == 1
    )


def _operands(equation: Any, length: int, made_by: Mapping[Any, Any]) -> tuple[_Signal, _Signal] | None:
    """Returns the two operands of a convolution if an inverse transform is taken of a product of spectra."""
    product = _maker(equation.invars[0], made_by)
    if product is None or product.primitive.name != "mul":
        return None
    rank = len(product.outvars[0].aval.shape)
    signals = [_signal(atom, length, rank, made_by) for atom in product.invars]
    if signals[0] is None or signals[1] is None:
        return None
    return signals[0], signals[1]


def _maker(atom: Any, made_by: Mapping[Any, Any]) -> Any:
    return None if isinstance(atom, Literal) else made_by.get(atom)


def _signal(atom: Any, length: int, rank: int, made_by: Mapping[Any, Any]) -> _Signal | None:
    """Returns the real signal that a factor of the product is the spectrum of; None if it is anything else."""
    equation = _maker(atom, made_by)
    axes = tuple(range(rank))
    if equation is not None and equation.primitive.name == "broadcast_in_dim":
        axes = tuple(equation.params["broadcast_dimensions"])
        before, after = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
        if not axes or axes[-1] != rank - 1 or before[-1] != after[-1]:
            return None
        equation = _maker(equation.invars[0], made_by)
    if not _is_transform(equation, lax.FftType.RFFT) or equation.params["fft_lengths"][0] != length:
        return None
    source = equation.invars[0]
    samples = length
    padding = _maker(source, made_by)
    if padding is not None and padding.primitive.name == "pad" and _adds_zeros_at_the_end(padding):
        source = padding.invars[0]
        samples = source.aval.shape[-1]
    return None if samples == 0 else _Signal(source, samples, axes[:-1])


def _adds_zeros_at_the_end(equation: Any) -> bool:
    *others, last = equation.params["padding_config"]
    value = equation.invars[1]
    return (
        all(tuple(config) == (0, 0, 0) for config in others)
        and last[0] == 0
        and last[1] >= 0
        and last[2] == 0
        and isinstance(value, Literal)
        and float(value.val) == 0.0
    )


def _wanted(variable: Any, read_by: Mapping[Any, list[Any]]) -> int:
    """Returns how many of the first results are read."""
    length: int = variable.aval.shape[-1]
    wanted = 0
    for reader in read_by.get(variable, ()):
        if reader is None or reader.primitive.name != "slice":
            return length
        wanted = max(wanted, reader.params["limit_indices"][-1])
    return wanted or length


def _spread(x: Any, found: _Signal, rank: int) -> Any:
    """Returns a signal with its axes in their places in the product, and axes of length one for the others."""
    shape = [1] * (rank - 1)
    for axis, size in zip(found.axes, x.shape[:-1], strict=True):
        shape[axis] = size
    return x.reshape(*shape, x.shape[-1])


PASS = Pass("fft_convolution", "Convolutions by Fourier transforms as matrix products throughout.", rewrite)
