"""Windows that slide over arrays: what convolutions and windowed reductions see of their input."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class Window:
    """A window that slides over an array, per spatial dimension.

    Attributes:
      size, stride: of the window and of its moves.
      pad_low, pad_high: elements added around the input, negative where some are cut off.
      input_dilation, window_dilation: 1 + the gaps between neighbouring elements of the input, and of the window.
    """

    size: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    pad_low: tuple[int, ...] = ()
    pad_high: tuple[int, ...] = ()
    input_dilation: tuple[int, ...] = ()
    window_dilation: tuple[int, ...] = ()

    @staticmethod
    def parse(text: str) -> Window:
        """Reads XLA's `{size=3x3 stride=2x2 pad=0_1x0_1 lhs_dilate=1x1 rhs_dilate=1x1}`, any of them left out.

        >>> Window.parse("{size=3 stride=2 pad=0_1}").hits(0, 8, 4)
        11
        """
        fields = dict(part.split("=", 1) for part in text.strip("{}").split())
        size = _sizes(fields.get("size", ""))
        ones, zeros = (1,) * len(size), (0,) * len(size)
        pads = [pad.split("_") for pad in fields["pad"].split("x")] if "pad" in fields else []
        return Window(
            size,
            _sizes(fields.get("stride", "")) or ones,
            tuple(int(low) for low, _ in pads) or zeros,
            tuple(int(high) for _, high in pads) or zeros,
            _sizes(fields.get("lhs_dilate", "")) or ones,
            _sizes(fields.get("rhs_dilate", "")) or ones,
        )

    def hits(self, dimension: int, input_size: int, output_size: int) -> int:
        """Returns how many pairs of an output element and a window position meet an element of the input."""
        return _hits(
            input_size,
            output_size,
            self.size[dimension],
            self.stride[dimension],
            self.pad_low[dimension],
            self.input_dilation[dimension],
            self.window_dilation[dimension],
        )

    def covers(self, dimension: int, input_size: int, output_size: int) -> bool:
        """Tells whether the window sees all of the input at each of its places.

        >>> window = Window.parse("{size=7 pad=3_3}")
        >>> window.covers(0, 4, 4), window.covers(0, 5, 5)
        (True, False)
        """
        low, last = self.pad_low[dimension], (output_size - 1) * self.stride[dimension]
        dilated = max(self.input_dilation[dimension], self.window_dilation[dimension]) > 1
        return not dilated and last <= low and self.size[dimension] - low >= input_size


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(int(size) for size in text.split("x")) if text else ()


# At most this many positions of a window are counted one by one. Larger windows, which real programs do not have, are
# sampled.
_MOST_POSITIONS = 2**16


@lru_cache(maxsize=4096)
def _hits(inputs: int, outputs: int, size: int, stride: int, pad_low: int, dilation: int, window_dilation: int) -> int:
    """Output `o` and position `k` meet input `(o * stride + k * window_dilation - pad_low) / dilation`, if whole."""
    if outputs < size:
        # Outputs and positions are interchangeable: the loop runs over the fewer.
        outputs, size, stride, window_dilation = size, outputs, window_dilation, stride
    common = math.gcd(stride, dilation)
    period = dilation // common
    inverse = pow(stride // common, -1, period) if period > 1 else 0
    total = 0
    step = -(-size // _MOST_POSITIONS)
    for k in range(0, size, max(1, step)):
        offset = k * window_dilation - pad_low
        # 0 <= o * stride + offset <= (inputs - 1) * dilation
        first = max(0, -(offset // stride))
        last = min(outputs - 1, ((inputs - 1) * dilation - offset) // stride)
        if first > last or offset % common:
            continue
        residue = (-offset // common) * inverse % period if period > 1 else 0
        total += (last - residue) // period - (first - 1 - residue) // period
    return total * max(1, step)
