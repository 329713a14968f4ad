"""Estimates where a Fourier transform is faster as matrix products than as XLA's own transform.

For TPUs this is measured: `memplan bench fft` compiles both forms with the production compiler and compares the
cycles that it estimates. Large transforms of real signals gain 1.3 to 3 times; in small ones, reading the matrices
takes longer than the transform. Lengths that are no power of two, for which XLA's method is slow, gain up to 8 times.
Complex transforms of a power of two do not gain: putting their spectrum in order costs what the matrix unit saves. On
CPUs and GPUs, which have good libraries of transforms by butterflies, no gain was measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from memplan.passes.base import Context
from memplan.passes.fft.choice import TPU, decompose

# The least real numbers of a transform that gains on a TPU; smaller ones read more of matrices than of signals.
_LEAST_ELEMENTS = 1 << 16


def is_faster(lengths: Sequence[int], rows: int, real: bool, context: Context) -> bool:
    """Returns whether matrix products are estimated to be faster.

    Args:
      lengths: of the transform.
      rows: how many there are.
      real: whether one side is real.
      context: says for which platform.
    """
    if context.platform != "tpu" or rows * math.prod(lengths) < _LEAST_ELEMENTS:
        return False
    if any(decompose(length, rows, TPU, real=False) is None for length in lengths):
        return False
    is_power = all(length & (length - 1) == 0 for length in lengths)
    return real if is_power else True


def convolution_is_faster(context: Context) -> bool:
    """Returns whether a convolution by transforms is estimated to be faster when no spectrum is put in order."""
    return context.platform == "tpu"
