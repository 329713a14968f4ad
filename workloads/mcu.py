"""Networks for microcontrollers, int8: inference, and training of all layers, one image at a time.

The architectures are those of the public code of "On-Device Training Under 256KB Memory" (Lin et al., arXiv
2206.15472; mit-han-lab/tiny-training, `algorithm/assets/mcu_models`), at 128 × 128 pixels and 10 classes. Its networks
have no last wide convolution before the classifier.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from memplan.workloads.quantized_network import InvertedResidualSpec, QuantizedNetwork, network_of
from memplan.workloads.registry import Built, workload

__all__ = ["NETWORKS", "mcunet", "mobilenet_v2", "proxyless", "tiny"]

_SOURCE = "Lin et al. 2022, arXiv 2206.15472"
SIDE, CLASSES = 128, 10

# MobileNetV2's blocks: expansion, channels, how often, stride of the first (arXiv 1801.04381, table 2).
_MOBILENET_V2 = (
    *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
    *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
)
# Hidden channels, kernel, stride, channels out.
_PROXYLESS = (
    *((16, 3, 1, 8), (24, 5, 2, 16), (48, 3, 1, 16), (48, 7, 2, 16), (48, 3, 1, 16), (48, 5, 1, 16), (48, 5, 1, 16)),
    *((96, 7, 2, 24), (72, 5, 1, 24), (72, 5, 1, 24), (72, 5, 1, 24)),
    *((144, 5, 1, 32), (96, 5, 1, 32), (96, 5, 1, 32), (96, 5, 1, 32)),
    *((192, 7, 2, 64), (384, 7, 1, 64), (192, 7, 1, 64), (192, 7, 1, 64), (384, 7, 1, 96)),
)
_MCUNET = (
    *((16, 3, 1, 8), (32, 3, 2, 16), (48, 3, 1, 16), (48, 7, 2, 24), (120, 3, 1, 24), (120, 3, 2, 40)),
    *((160, 7, 1, 40), (160, 5, 1, 48), (144, 3, 1, 48), (192, 3, 1, 48)),
    *((240, 7, 2, 96), (384, 5, 1, 96), (384, 5, 1, 96), (576, 3, 1, 160)),
)
_TINY = (
    InvertedResidualSpec(8, 3, 1, 8),
    InvertedResidualSpec(16, 3, 2, 8),
    InvertedResidualSpec(16, 3, 1, 8),
    InvertedResidualSpec(16, 5, 2, 16),
)


def _rounded(channels: float) -> int:
    """To a multiple of 8 that is not below nine tenths, as MobileNetV2's code rounds widths."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels else rounded + 8


def mobilenet_v2(width: float = 0.35, side: int = SIDE, classes: int = CLASSES) -> QuantizedNetwork:
    """Returns MobileNetV2, its channels multiplied by `width`."""
    stem = channels = _rounded(32 * width)
    blocks = []
    for expansion, out, count, stride in _MOBILENET_V2:
        for number in range(count):
            blocks.append(
                InvertedResidualSpec(channels * expansion, 3, stride if number == 0 else 1, _rounded(out * width))
            )
            channels = blocks[-1].out
    return network_of(stem, blocks, side, classes)


def proxyless(side: int = SIDE, classes: int = CLASSES) -> QuantizedNetwork:
    """Returns ProxylessNAS for phones at width 0.3 (arXiv 1812.00332)."""
    return network_of(16, [InvertedResidualSpec(*spec) for spec in _PROXYLESS], side, classes)


def mcunet(side: int = SIDE, classes: int = CLASSES) -> QuantizedNetwork:
    """Returns the MCUNet called `mcunet-5fps` (arXiv 2007.10319)."""
    return network_of(16, [InvertedResidualSpec(*spec) for spec in _MCUNET], side, classes)


def tiny(side: int = 16, classes: int = 4) -> QuantizedNetwork:
    """Returns a network of the same kinds of layers, for tests."""
    return network_of(8, _TINY, side, classes)


NETWORKS: dict[str, Callable[[], QuantizedNetwork]] = {"mbv2": mobilenet_v2, "proxyless": proxyless, "mcunet": mcunet}


def _inference(network: QuantizedNetwork, batch: int) -> Built:
    return partial(network.forward), (network.abstract(), network.image(batch))


def _training(network: QuantizedNetwork, batch: int) -> Built:
    labels = jax.ShapeDtypeStruct((batch,), jnp.int32)
    return partial(network.train_step), (network.abstract(), network.image(batch), labels)


@workload("MobileNetV2 at width 0.35, 128 × 128, int8", family="mcu", source=_SOURCE)
def mbv2_int8_infer(tiny: bool = False, batch: int = 1) -> Built:
    """Builds `forward(params, image)`."""
    return _inference(_tiny_or(tiny, mobilenet_v2()), batch)


@workload("ProxylessNAS at width 0.3, 128 × 128, int8", family="mcu", source=_SOURCE)
def proxyless_int8_infer(tiny: bool = False, batch: int = 1) -> Built:
    """Builds `forward(params, image)`."""
    return _inference(_tiny_or(tiny, proxyless()), batch)


@workload("MCUNet (5fps), 128 × 128, int8", family="mcu", source=_SOURCE)
def mcunet_int8_infer(tiny: bool = False, batch: int = 1) -> Built:
    """Builds `forward(params, image)`."""
    return _inference(_tiny_or(tiny, mcunet()), batch)


@workload(
    "one SGD step of MobileNetV2 at width 0.35, 128 × 128, int8",
    family="mcu",
    source=_SOURCE,
    kind="training",
    donate_argnums=(0,),
)
def mbv2_int8_train(tiny: bool = False, batch: int = 1) -> Built:
    """Builds `train_step(params, image, label)`."""
    return _training(_tiny_or(tiny, mobilenet_v2()), batch)


@workload(
    "one SGD step of ProxylessNAS at width 0.3, 128 × 128, int8",
    family="mcu",
    source=_SOURCE,
    kind="training",
    donate_argnums=(0,),
)
def proxyless_int8_train(tiny: bool = False, batch: int = 1) -> Built:
    """Builds `train_step(params, image, label)`."""
    return _training(_tiny_or(tiny, proxyless()), batch)


@workload(
    "one SGD step of MCUNet (5fps), 128 × 128, int8",
    family="mcu",
    source=_SOURCE,
    kind="training",
    donate_argnums=(0,),
)
def mcunet_int8_train(tiny: bool = False, batch: int = 1) -> Built:
    """Builds `train_step(params, image, label)`."""
    return _training(_tiny_or(tiny, mcunet()), batch)


def _tiny_or(is_tiny: bool, network: QuantizedNetwork) -> QuantizedNetwork:
    return tiny() if is_tiny else network
