"""OpSharding and the device lists of collectives (xla/xla_data.proto) to the text that XLA prints."""

from __future__ import annotations

from collections.abc import Sequence

from memplan.compiler.frontends import protobuf
from memplan.compiler.frontends.proto_metadata import metadata_text
from memplan.compiler.frontends.protobuf import MalformedMessage, Message, integer, integers, raws

_REPLICATED, _MAXIMAL, _TUPLE, _OTHER, _MANUAL, _UNKNOWN, _UNREDUCED = range(7)
_SIMPLE = {_REPLICATED: "replicated", _MANUAL: "manual", _UNKNOWN: "unknown", _UNREDUCED: "unreduced"}
_MAX_NESTING = 64


def sharding_text(message: Message, depth: int = 0) -> str:
    """Returns the text of an OpSharding message, such as `{devices=[2,1]<=[2]}`; "" for a form that is not known."""
    if depth > _MAX_NESTING:
        raise MalformedMessage("a sharding nests too deep")
    if 14 in message:
        return _named(protobuf.submessage(message, 14), depth)
    kind = integer(message, 1)
    if kind == _TUPLE:
        parts = [sharding_text(part, depth + 1) for part in protobuf.submessages(message, 5)]
        return (
            "{" + ", ".join(f"/*index={i}*/{text}" if i and i % 5 == 0 else text for i, text in enumerate(parts)) + "}"
        )
    group = _shard_group(message) + _metadata(raws(message, 7))
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


def _named(message: Message, depth: int) -> str:
    """Returns the text of a NamedShardingProto, such as `{mesh['a'=2,'b'=4], [{'a'}, {?}], replicated={'b'}}`."""
    if depth > _MAX_NESTING:
        raise MalformedMessage("a sharding nests too deep")
    if 1 in message:
        return "{" + ", ".join(_named(part, depth + 1) for part in protobuf.submessages(message, 1)) + "}"
    mesh = protobuf.submessage(message, 2)
    names, devices = _axis_names(mesh), integers(mesh, 2)
    metadata = [f"metadata={{{', '.join(_texts_between_braces(raws(message, 6)))}}}"] if 6 in message else []
    if not names and len(devices) == 1:
        return "{" + ", ".join([f"maximal_mesh[device_id={devices[0]}]", *metadata]) + "}"
    dims = []
    for dim in protobuf.submessages(message, 3):
        axes = [_axis(axis, names) for axis in protobuf.submessages(dim, 1)]
        dims.append("{" + ", ".join(axes if integer(dim, 2) else [*axes, "?"]) + "}")
    rest = {}
    for key, number in (("replicated", 4), ("unreduced", 5), ("manual", 7)):
        if axes := [_axis(axis, names) for axis in protobuf.submessages(message, number)]:
            rest[key] = axes
    if not dims and not rest:
        parts = ["replicated"]
    elif not dims and len(rest) == 1 and "replicated" not in rest and len(*rest.values()) == len(names):
        parts = [*rest]  # all axes of the mesh
    else:
        parts = ["[" + ", ".join(dims) + "]", *(f"{key}={{{', '.join(axes)}}}" for key, axes in rest.items())]
    return "{" + ", ".join([_mesh(mesh), *parts, *metadata]) + "}"


def _metadata(entries: Sequence[bytes]) -> str:
    """Returns where the user stated a sharding; several places stand between braces of their own."""
    if not entries:
        return ""
    if len(entries) == 1:
        return f" metadata={{{metadata_text(entries[0], is_shardings=True)}}}"
    return f" metadata={{{', '.join(_texts_between_braces(entries))}}}"


def _texts_between_braces(entries: Sequence[bytes]) -> list[str]:
    return [f"{{{metadata_text(entry, is_shardings=True)}}}" for entry in entries]


def _mesh(mesh: Message) -> str:
    axes = [f"'{protobuf.string(axis, 1)}'={integer(axis, 2)}" for axis in protobuf.submessages(mesh, 1)]
    devices = integers(mesh, 2)
    if iota := protobuf.submessage(mesh, 3):
        dims, permutation = integers(iota, 1), integers(iota, 2)
        return f"mesh[{','.join(axes)}], device_ids=({_iota(dims, permutation).removeprefix('<=')})"
    return f"mesh[{','.join(axes)}]" + (f", device_ids=({_commas(devices)})" if devices else "")


def _axis_names(mesh: Message) -> list[str]:
    return [protobuf.string(axis, 1) for axis in protobuf.submessages(mesh, 1)]


def _axis(reference: Message, names: Sequence[str]) -> str:
    """Returns an axis, such as `'a'`, or a part of one, such as `'a':(1)2`."""
    number = integer(reference, 1)
    name = names[number] if 0 <= number < len(names) else str(number)
    if 2 not in reference:
        return f"'{name}'"
    part = protobuf.submessage(reference, 2)
    return f"'{name}':({integer(part, 1)}){integer(part, 2)}"


def _shard_group(message: Message) -> str:
    if not integer(message, 11):
        return ""
    return f" shard_{'like' if integer(message, 13) else 'as'} {integer(message, 12)}"


def device_list_text(message: Message) -> str:
    """Returns the `replica_groups` of a HloInstructionProto, which has four fields for them, the newest first."""
    if 93 in message:
        over_mesh = protobuf.submessage(message, 93)
        mesh = protobuf.submessage(over_mesh, 1)
        axes = [_axis(axis, _axis_names(mesh)) for axis in protobuf.submessages(over_mesh, 2)]
        return f"{_mesh(mesh)} {{{','.join(axes)}}}"
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
