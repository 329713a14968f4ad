"""Operations that XLA has no good form of: `memplan.ops.fft_conv`, and `memplan.ops.einsum` of many tensors."""

from memplan.passes.contraction import einsum
from memplan.passes.fft.convolution import fft_conv

__all__ = ["einsum", "fft_conv"]
