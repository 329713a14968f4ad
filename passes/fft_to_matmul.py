"""The pass `fft_to_matmul`: Fourier transforms become matrix products.

On a chip with matrix units, a transform by the Monarch decomposition (Fu et al., "FlashFFTConv", arXiv 2311.05908) is
faster than one by butterflies, although it does more arithmetic. Where it is slower by the estimates of
`fft/estimates.py`, the transform is left unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr

from memplan.passes.base import Context, Finding, Pass, Rewritten
from memplan.passes.fft.choice import FFT_TARGETS
from memplan.passes.fft.estimates import is_faster
from memplan.passes.fft.steps import Arithmetic
from memplan.passes.fft.transform import fft
from memplan.passes.jaxprs import Existing, Replacement, edited, everywhere, where


def rewrite(closed: Any, context: Context) -> Rewritten:
    """Replaces transforms everywhere, also within loops and branches."""
    findings: list[Finding] = []
    return Rewritten(everywhere(closed, lambda inner: _replaced(inner, context, findings)), tuple(findings))


def _replaced(closed: ClosedJaxpr, context: Context, findings: list[Finding]) -> ClosedJaxpr:
    def rule(equation: Any) -> Existing | Replacement | None:
        if equation.primitive.name != "fft":
            return None
        kind, lengths = lax.FftType(equation.params["fft_type"]), tuple(equation.params["fft_lengths"])
        what = f"{kind.name} of {' × '.join(f'{length:,}' for length in lengths)}"
        declined = _declined(equation, kind, lengths, context)
        findings.append(Finding(what, where(equation), declined))
        if declined:
            return None
        target = FFT_TARGETS[context.platform]
        arithmetic = _arithmetic(equation.outvars[0].aval.dtype, context)
        return Replacement(lambda x: fft(x, kind, lengths, arithmetic, target), equation.invars)

    return edited(closed, rule)


def _declined(equation: Any, kind: lax.FftType, lengths: Sequence[int], context: Context) -> str:
    """Returns why a transform is left unchanged; "" if it is replaced."""
    shape = equation.outvars[0].aval.shape
    if 0 in shape or 0 in equation.invars[0].aval.shape:
        return "it has no elements"
    rows = math.prod(shape[: len(shape) - len(lengths)])
    faster = is_faster(lengths, rows, kind in (lax.FftType.RFFT, lax.FftType.IRFFT), context)
    return "" if faster else f"the {context.platform} is estimated to be faster with its own"


def _arithmetic(dtype: Any, context: Context) -> Arithmetic:
    real = jnp.finfo(dtype).dtype
    if context.fft_precision == "highest":
        return Arithmetic.highest(real)
    return Arithmetic.narrow() if context.platform == "tpu" else Arithmetic.fast(real)


PASS = Pass("fft_to_matmul", "Fourier transforms as matrix products, where that is faster.", rewrite)
