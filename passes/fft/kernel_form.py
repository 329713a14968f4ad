"""How the fused kernel cuts a convolution up: its transform, its tables, its tiles and what they take.

A product of polynomials of degree below n, taken modulo `x^n = i`, has the product's first n coefficients as its real
part and the others as its imaginary part (the *right-angle* convolution of Nussbaumer, "Fast Fourier Transform and
Convolution Algorithms", 1981, section 6; Crandall and Fagin, "Discrete weighted transforms and large-integer
arithmetic", 1994). So a causal convolution of n real samples takes complex transforms of length n, at frequencies a
quarter off the usual ones,

    X[k] = sum over j of  u[j]·exp(-2πi·j·(k + 1/4)/n)

with no zeros added, no result thrown away, and no frequency that is its own conjugate: all sizes are powers of two
where n is. With j = j1·N2 + j2 and k = k1 + N1·k2 that is two products of a signal as a matrix `[N1, N2]` (Fu et al.,
"FlashFFTConv", arXiv 2311.05908, section 3.1):

    X = ((A · U) ∘ T) · B       A[k1, j1] = exp(-2πi·j1·(k1 + 1/4)/N1)
                                T[k1, j2] = exp(-2πi·j2·(k1 + 1/4)/n)       B[j2, k2] = exp(-2πi·j2·k2/N2)

and back by their conjugate transposes. The adjoint of a convolution is the same with the conjugate spectrum.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np

from memplan.passes.fft.decomposition import Complexes, roots
from memplan.passes.fft.steps import Arithmetic

KernelPlatform = Literal["tpu", "gpu"]

# Samples of the longest signal that the kernel takes. On a GPU a signal's spectrum has to fit a processor's registers
# and shared memory (about 300 KiB on an H100), complex and in float32.
LONGEST: dict[KernelPlatform, int] = {"tpu": 32 << 10, "gpu": 8 << 10}

# Columns of a signal as a matrix on a TPU: a register's lanes, and the matrix unit's width.
_LANES = 128

# Rows of a register: fewer are padded to as many.
SUBLANES = 8

# Bytes that the blocks of a grid step may have: with what lies between the products (3 to 4 MiB), all that compilers
# give a kernel by themselves, and all that there is on a TPU v4, 16 MiB.
_MOST_BLOCKS = 12 << 20

# The least side of a product that Triton takes.
_LEAST_SIDE = 16

# Samples of a tile: enough that a grid step's fixed cost (about 0.35 µs on a TPU, says the Pallas guide) is small
# beside its work, few enough that tiles, twice buffered, and what lies between the products stay a few MiB.
_TILE = 32 << 10

# Signals of a tile.
_MOST_SIGNALS = 32

# Rows of the second product, several signals' together: the kernel's code has each of these signals once, and loops
# over such groups.
_GROUP_ROWS = 128


@dataclass(frozen=True)
class KernelForm:
    """The form of one convolution.

    Attributes:
      rows, columns: N1 and N2; a signal has as many samples as their product, zeros at its end included.
      batch, channels: signals are `[batch, channels, N1, N2]`, filters `[channels, …]`.
      batch_tile, channel_tile: signals of a grid step.
      interleaved: whether eight channels lie between one another as they do in a TPU's memory, where the tiles of an
        array `[…, channels, samples]` are eight channels by 128 samples: signals are then
        `[batch, channels / 8, N1·8, N2]`, and nothing is moved to bring them into the kernel.
      arithmetic: of the products.
      platform: that it is made for.
      interpret: whether Pallas interprets the kernel, on any platform.
    """

    rows: int
    columns: int
    batch: int
    channels: int
    batch_tile: int
    channel_tile: int
    interleaved: bool
    arithmetic: Arithmetic
    platform: KernelPlatform
    interpret: bool = False

    @property
    def length(self) -> int:
        """Samples of a signal."""
        return self.rows * self.columns

    @property
    def grid(self) -> tuple[int, int]:
        """Tiles of channels and of the batch: a filter's spectrum stays while the batch goes by."""
        return self.channels // self.channel_tile, self.batch // self.batch_tile

    @property
    def group(self) -> int:
        """Signals that the second product takes at once."""
        return _divisor(self.batch_tile * self.channel_tile, _GROUP_ROWS // self.rows)

    @property
    def in_order(self) -> bool:
        """Whether grid steps run one after another, so that they can add to one result: on a TPU they do."""
        return self.platform == "tpu"

    @property
    def flops(self) -> int:
        """Of the products of one convolution forward, the filter's spectrum not included."""
        products = 2 * (2 * self.rows + 4 * self.columns) * self.length
        return 2 * products * self.batch * self.channels

    def blocks(self, signals: int, spectra: int) -> int:
        """Returns the bytes of a grid step's blocks in on-chip memory: each twice, so that copies and work overlap.

        Args:
          signals: arrays of signals and gates that the kernel reads or writes, in float32.
          spectra: of filters.
        """
        tile = 4 * self.length * self.channel_tile * (self.batch_tile * signals + 2 * spectra)
        return 2 * (tile + self.table_bytes)

    def fitted(self, signals: int, spectra: int) -> KernelForm:
        """Returns the form with tiles that fit the on-chip memory of every TPU; arguments are those of `blocks`."""
        if not self.interleaved or self.blocks(signals, spectra) <= _MOST_BLOCKS:
            return self
        channel_tile, batch_tile = _tile(self.length, self.channels, self.batch)
        return replace(self, interleaved=False, channel_tile=channel_tile, batch_tile=batch_tile)

    def traffic(self, gates: int = 0, item: int = 4) -> int:
        """Returns the bytes that one convolution forward moves to and from slow memory: each array once.

        Args:
          gates: how many there are, each as large as the signals.
          item: bytes of a sample.
        """
        signals = self.batch * self.channels * self.length * item
        return signals * (2 + gates) + 8 * self.channels * self.length + self.table_bytes

    @property
    def table_bytes(self) -> int:
        """Bytes of the tables."""
        item = np.dtype(self.arithmetic.storage).itemsize
        return (4 * self.rows**2 + 2 * self.columns**2) * item + 8 * self.length


def kernel_form(
    samples: int,
    batch: int,
    channels: int,
    arithmetic: Arithmetic,
    platform: KernelPlatform,
    wide: bool = True,
    interpret: bool = False,
) -> KernelForm:
    """Returns the form of a convolution.

    Args:
      samples: of a signal, at most `LONGEST[platform]`.
      batch, channels: signals are `[batch, channels, samples]`.
      arithmetic: of the products.
      platform: that it is made for.
      wide: whether signals and gates are all float32.
      interpret: whether Pallas interprets the kernel.
    """
    if platform == "gpu":
        exponent = max(samples - 1, _LEAST_SIDE**2 - 1).bit_length()
        rows, columns = 1 << -(-exponent // 2), 1 << exponent // 2
        return KernelForm(rows, columns, batch, channels, 1, 1, False, arithmetic, platform, interpret)
    rows = _rounded(-(-samples // _LANES), SUBLANES)
    interleaved = wide and channels % SUBLANES == 0
    channel_tile, batch_tile = _tile(rows * _LANES, SUBLANES if interleaved else channels, batch)
    if interleaved:
        channel_tile = SUBLANES
    return KernelForm(
        rows, _LANES, batch, channels, batch_tile, channel_tile, interleaved, arithmetic, platform, interpret
    )


@dataclass(frozen=True)
class Tables:
    """The matrices of a form, complex.

    Attributes:
      first: A, `[k1, j1]`.
      twiddle: T, `[k1, j2]`.
      second: B, `[j2, k2]`, its own transpose.
    """

    first: Complexes
    twiddle: Complexes
    second: Complexes


@lru_cache(maxsize=16)
def tables(rows: int, columns: int) -> Tables:
    """Returns the matrices for signals `[rows, columns]`."""
    quarters = 4 * np.arange(rows, dtype=np.int64) + 1  # of k1 + 1/4
    length = rows * columns
    return Tables(
        roots(4 * rows)[quarters[:, None] * np.arange(rows) % (4 * rows)],
        roots(4 * length)[quarters[:, None] * np.arange(columns) % (4 * length)],
        roots(columns)[np.outer(np.arange(columns), np.arange(columns)) % columns],
    )


def _tile(length: int, channels: int, batch: int) -> tuple[int, int]:
    """Returns how many channels and how much of the batch a tile has, for signals of a length."""
    most = min(_MOST_SIGNALS, max(1, _TILE // length))
    channel_tile = _divisor(channels, most)
    return channel_tile, _divisor(batch, most // channel_tile)


def _rounded(size: int, step: int) -> int:
    return -(-size // step) * step


def _divisor(size: int, most: int) -> int:
    """Returns the largest divisor of a size that is at most so large: a tile must not reach over the end."""
    return max(divisor for divisor in range(1, max(most, 1) + 1) if size % divisor == 0)
