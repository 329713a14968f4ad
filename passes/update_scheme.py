"""Update schemes: which biases and which weights of a convolutional network are trained, and what that keeps in memory.

The schemes, the order of the convolutions and the model of memory are those of "On-Device Training Under 256KB Memory"
(Lin et al., arXiv 2206.15472, section 2.2, and its code, mit-han-lab/tiny-training: `compilation/mcu_ir_gen.py` and
`algorithm/core/utils/partial_backward.py`). The classifier is always trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from memplan.compiler.errors import MemplanError

__all__ = ["PUBLISHED", "ConvolutionShape", "UpdateMemory", "UpdateScheme", "layer_memory", "update_memory"]

_BIAS_BYTES = 4


class ConvolutionShape(Protocol):
    """What a scheme knows of an int8 convolution: channels, the side of the kernel, and pixels along a side."""

    @property
    def in_channels(self) -> int: ...
    @property
    def out_channels(self) -> int: ...
    @property
    def kernel(self) -> int: ...
    @property
    def depthwise(self) -> bool: ...
    @property
    def side(self) -> int: ...
    @property
    def out_side(self) -> int: ...


@dataclass(frozen=True)
class UpdateScheme:
    """Which parameters of a network's convolutions are trained.

    Attributes:
      bias_layers: biases of so many last convolutions.
      weights: of convolution number `i`, the share of its input channels whose weights are trained, as `(i, share)`,
        ascending. The first channels are trained.
    """

    bias_layers: int
    weights: tuple[tuple[int, float], ...] = ()

    def check(self, layers: Sequence[ConvolutionShape]) -> None:
        """Raises MemplanError, naming the place, if it does not fit a network."""
        count = len(layers)
        if not 0 <= self.bias_layers <= count:
            raise MemplanError(f"the scheme trains {self.bias_layers} biases: the network has {count} convolutions")
        for layer, share in self.weights:
            if not count - self.bias_layers <= layer < count:
                raise MemplanError(
                    f"the scheme trains weights of convolution {layer}, which is none of the last {self.bias_layers} "
                    f"of {count}, whose biases are trained"
                )
            if not 0.0 <= share <= 1.0:
                raise MemplanError(
                    f"the share of trained channels of convolution {layer} is {share}: it must be 0 to 1"
                )
        numbers = [layer for layer, _ in self.weights]
        if numbers != sorted(set(numbers)):
            raise MemplanError(f"the scheme names convolutions {numbers}: it must name each once, ascending")

    def channels(self, layers: Sequence[ConvolutionShape]) -> list[int]:
        """Returns of each convolution how many input channels have trained weights."""
        shares = dict(self.weights)
        return [int(layer.in_channels * shares.get(number, 0.0)) for number, layer in enumerate(layers)]

    def kept_inputs(self, layers: Sequence[ConvolutionShape]) -> list[bool]:
        """Returns of each convolution whether all of its input is kept for the gradient of its weights."""
        return [count == layer.in_channels for count, layer in zip(self.channels(layers), layers, strict=True)]


@dataclass(frozen=True)
class UpdateMemory:
    """What a scheme adds to inference, by the analytic model of the paper.

    Attributes:
      parameters: bytes of the trained weights and biases; those of the classifier do not count.
      inputs: bytes of the inputs that gradients of weights need.
      masks: bytes of one bit for each output of a convolution whose bias is trained.
    """

    parameters: float
    inputs: float
    masks: float

    @property
    def total(self) -> float:
        """All of it, in bytes."""
        return self.parameters + self.inputs + self.masks


def layer_memory(layer: ConvolutionShape, channels: int) -> UpdateMemory:
    """Returns what training the bias of one convolution, and weights of so many input channels, adds."""
    outputs = 1 if layer.depthwise else layer.out_channels
    return UpdateMemory(
        layer.out_channels * _BIAS_BYTES + channels * outputs * layer.kernel**2,
        layer.side**2 * channels,
        layer.out_side**2 * layer.out_channels / 8,
    )


def update_memory(scheme: UpdateScheme, layers: Sequence[ConvolutionShape]) -> UpdateMemory:
    """Returns what a scheme adds, by the paper's model: the input of the classifier, and each convolution for itself.

    Raises:
      MemplanError: the scheme does not fit the network.
    """
    scheme.check(layers)
    first = len(layers) - scheme.bias_layers
    channels = scheme.channels(layers)
    each = [layer_memory(layers[number], channels[number]) for number in range(first, len(layers))]
    return UpdateMemory(
        sum(memory.parameters for memory in each),
        layers[-1].out_channels + sum(memory.inputs for memory in each),
        sum(memory.masks for memory in each),
    )


def _scheme(bias_layers: int, layers: Sequence[int], shares: Sequence[float]) -> UpdateScheme:
    return UpdateScheme(bias_layers, tuple(zip(layers, shares, strict=True)))


_MBV2, _PROXYLESS = (27, 30, 33, 36, 39, 42, 45, 48), (36, 39, 42, 45, 48, 51, 54, 57)

# By network and by the kB that the public code names them by.
PUBLISHED: dict[str, dict[int, UpdateScheme]] = {
    "mbv2": {
        49: _scheme(16, (36, 39, 40, 41, 42, 45, 48, 49), (1, 1, 0, 0.25, 0.125, 0.125, 0.125, 0.125)),
        73: _scheme(20, (32, 33, 36, 39, 41, 42, 45, 48), (0.125, 0.5, 0.5, 1, 0.25, 0.125, 0.125, 1)),
        99: _scheme(25, _MBV2, (1, 1, 1, 1, 1, 0.125, 0.5, 1)),
        123: _scheme(31, _MBV2, (1, 1, 1, 1, 1, 0.5, 1, 1)),
        138: _scheme(34, _MBV2, (1, 1, 1, 1, 1, 1, 1, 1)),
    },
    "mcunet": {
        49: _scheme(20, (23, 24, 27, 30, 33, 39), (0, 0.25, 0.5, 0.5, 0, 0)),
        74: _scheme(21, (21, 23, 24, 26, 27, 30), (1, 0, 1, 0, 0.5, 1)),
        99: _scheme(22, (21, 24, 27, 30, 36, 39), (1, 1, 1, 1, 0.125, 0.25)),
        124: _scheme(24, (21, 24, 27, 30, 33, 39), (0.25, 1, 1, 1, 0.5, 0.5)),
        148: _scheme(23, (21, 24, 27, 30, 36, 39), (1, 1, 1, 1, 1, 0.5)),
    },
    "proxyless": {
        49: _scheme(21, (39, 42, 44, 45, 50, 51, 54, 57), (0.25, 1, 0, 1, 0, 0.125, 0.25, 0.25)),
        74: _scheme(28, (33, 36, 39, 42, 45, 51, 54, 57), (0.5, 0.25, 1, 1, 1, 0.5, 0.25, 0.5)),
        98: _scheme(25, _PROXYLESS, (1, 0.5, 1, 1, 0.25, 0.5, 1, 1)),
        120: _scheme(32, _PROXYLESS, (1, 1, 1, 1, 0.5, 1, 1, 1)),
        148: _scheme(45, _PROXYLESS, (1, 1, 1, 1, 1, 1, 1, 1)),
    },
}
