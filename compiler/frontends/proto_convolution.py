"""Windows, dimension numbers and sparsity of convolutions and of custom calls that convolve, as XLA prints them."""

from __future__ import annotations

from collections.abc import Sequence

from memplan.compiler.frontends import protobuf
from memplan.compiler.frontends.proto_common import Attributes
from memplan.compiler.frontends.protobuf import MalformedMessage, Message, integer, integers

_KINDS = ("unset", "fprop", "dgrad", "wgrad")
_MAX_RANK = 64


def window(message: Message) -> Attributes:
    """Returns the `window` of an instruction; none where it has no dimensions."""
    dims = protobuf.submessages(protobuf.submessage(message, 15), 1)
    return [("window", _window(dims))] if dims else []


def window_even_if_empty(message: Message) -> Attributes:
    """Returns the `window` of a custom call, which XLA prints as `{}` where it has no dimensions."""
    return [("window", _window(protobuf.submessages(protobuf.submessage(message, 15), 1)))] if 15 in message else []


def _window(dims: Sequence[Message]) -> str:
    def joined(numbers: Sequence[object]) -> str:
        return "x".join(map(str, numbers))

    if not dims:
        return "{}"
    sizes, strides = [integer(d, 1) for d in dims], [integer(d, 2) for d in dims]
    lows, highs = [integer(d, 3) for d in dims], [integer(d, 4) for d in dims]
    base, kernel = [integer(d, 6, 1) for d in dims], [integer(d, 5, 1) for d in dims]
    parts = [f"size={joined(sizes)}"]
    if any(stride != 1 for stride in strides):
        parts.append(f"stride={joined(strides)}")
    if any(lows) or any(highs):
        parts.append("pad=" + joined([f"{low}_{high}" for low, high in zip(lows, highs, strict=True)]))
    if any(dilation != 1 for dilation in base):
        parts.append(f"lhs_dilate={joined(base)}")
    if any(dilation != 1 for dilation in kernel):
        parts.append(f"rhs_dilate={joined(kernel)}")
    if any(integer(d, 7) for d in dims):
        parts.append("rhs_reversal=" + joined([int(bool(integer(d, 7))) for d in dims]))
    return "{" + " ".join(parts) + "}"


def dim_labels(message: Message) -> Attributes:
    """Returns the `dim_labels` of an instruction; none where it states no dimension numbers.

    A dimension that has no role, such as the one of a vectorized convolution, is labelled `?`.
    """
    if 16 not in message:
        return []
    numbers = protobuf.submessage(message, 16)

    def labels(letters: str, first: int, second: int, spatial: Sequence[int]) -> str:
        dims = (first, second, *spatial)
        if len(set(dims)) < len(dims) or not all(0 <= dim < _MAX_RANK for dim in dims):
            raise MalformedMessage("the dimension numbers of a convolution do not number its dimensions")
        text = {first: letters[0], second: letters[1]}
        text.update({dim: str(i) for i, dim in enumerate(spatial)})
        return "".join(text.get(dim, "?") for dim in range(max(dims) + 1))

    left = labels("bf", integer(numbers, 7), integer(numbers, 8), integers(numbers, 11))
    kernel = labels("io", integer(numbers, 3), integer(numbers, 4), integers(numbers, 6))
    output = labels("bf", integer(numbers, 9), integer(numbers, 10), integers(numbers, 12))
    return [("dim_labels", f"{left}_{kernel}->{output}")]


def groups(message: Message) -> Attributes:
    """Returns the numbers of groups that differ from 1."""
    found: Attributes = []
    for key, number in (("feature_group_count", 50), ("batch_group_count", 58)):
        if integer(message, number, 1) not in (0, 1):
            found.append((key, str(integer(message, number))))
    return found


def kind(message: Message) -> Attributes:
    """Returns whether a convolution goes forward or computes one of its two gradients, where that is stated."""
    number = integer(message, 97)
    if number == 0:
        return []
    if not 0 < number < len(_KINDS):
        raise MalformedMessage(f"a convolution is of the kind {number}, which is not known")
    return [("convolution_kind", _KINDS[number])]


def sparsity(message: Message) -> Attributes:
    """Returns which operands store only some elements of each block, such as `{rhs={sparsity=2x4 …}}`."""
    config = protobuf.submessage(message, 98)
    parts = []
    for side, number in (("lhs", 1), ("rhs", 2)):
        if number in config:
            of_side = protobuf.submessage(config, number)
            ratio = f"{integer(of_side, 1)}x{integer(of_side, 2)}"
            place = f"dimension={integer(of_side, 3)} stride={integer(of_side, 4)}"
            index = integer(of_side, 5)
            parts.append(f"{side}={{sparsity={ratio} {place}{f' idx={index}' if index else ''}}}")
    return [("sparsity_config", "{" + " ".join(parts) + "}")] if parts else []
