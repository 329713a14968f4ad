"""OpSharding and the device lists of collectives (xla/xla_data.proto) to the text that XLA prints."""

from __future__ import annotations

from collections.abc import Sequence

from memplan.compiler.frontends import protobuf
from memplan.compiler.frontends.protobuf import MalformedMessage, Message, integer, integers

_REPLICATED, _MAXIMAL, _TUPLE, _OTHER, _MANUAL, _UNKNOWN, _UNREDUCED = range(7)
_SIMPLE = {_REPLICATED: "replicated", _MANUAL: "manual", _UNKNOWN: "unknown", _UNREDUCED: "unreduced"}
_MAX_NESTING = 64


def sharding_text(message: Message, depth: int = 0) -> str:
    """Returns the text of an OpSharding message, such as `{devices=[2,1]<=[2]}`; "" for a form that is not known."""
    if depth > _MAX_NESTING:
        raise MalformedMessage("a sharding nests too deep")
    if 14 in message:  # shardings over named meshes came later, with a form of their own
        return ""
    kind = integer(message, 1)
    if kind == _TUPLE:
        return "{" + ", ".join(sharding_text(part, depth + 1) for part in protobuf.submessages(message, 5)) + "}"
    group = _shard_group(message)
    if kind in _SIMPLE:
        return f"{{{_SIMPLE[kind]}{group}}}"
    if kind == _MAXIMAL:
        return f"{{maximal device={(integers(message, 4) or [0])[0]}{group}}}"
    if kind != _OTHER:
        return ""
    devices = _commas(integers(message, 4))
    if not devices:
        devices = _iota(integers(message, 9), integers(message, 10))
    text = f"devices=[{_commas(integers(message, 3))}]{devices}"
    if integer(message, 6):
        text += " last_tile_dim_replicate"
    if last := integers(message, 8):
        text += " last_tile_dims={" + ", ".join(_SIMPLE.get(k, str(k)) for k in last) + "}"
    return f"{{{text}{group}}}"


def _shard_group(message: Message) -> str:
    if not integer(message, 11):
        return ""
    return f" shard_{'like' if integer(message, 13) else 'as'} {integer(message, 12)}"


def device_list_text(message: Message) -> str:
    """Returns the `replica_groups` of a HloInstructionProto, which has three fields for them, the newest first."""
    for iota in (protobuf.submessage(message, 92), protobuf.submessage(protobuf.submessage(message, 87), 2)):
        if iota:
            shape = _iota(integers(iota, 3), integers(iota, 4))
            return f"[{integer(iota, 1)},{integer(iota, 2)}]{shape}"
    groups = protobuf.submessages(protobuf.submessage(message, 87), 1) or protobuf.submessages(message, 49)
    return "{" + ",".join(f"{{{_commas(integers(group, 1))}}}" for group in groups) + "}"


def _iota(dims: Sequence[int], permutation: Sequence[int]) -> str:
    text = f"<=[{_commas(dims)}]"
    is_identity = list(permutation) == list(range(len(permutation)))
    return text if is_identity else f"{text}T({_commas(permutation)})"


def _commas(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))
