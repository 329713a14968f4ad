"""Operations that XLA has no good form of: `memplan.ops.fft_conv`."""

from memplan.passes.fft.convolution import fft_conv

__all__ = ["fft_conv"]
