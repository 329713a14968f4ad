"""The attributes that any HloInstructionProto may have: sharding, frontend attributes, metadata, backend_config."""

from __future__ import annotations

from collections.abc import Sequence

from memplan.compiler.frontends import protobuf
from memplan.compiler.frontends.proto_metadata import dictionary_or_escaped, metadata_text, original_value_text, payload
from memplan.compiler.frontends.proto_sharding import sharding_text
from memplan.compiler.frontends.protobuf import Message, integer, string

Attributes = list[tuple[str, str]]


def number_list(numbers: Sequence[int]) -> str:
    """Returns the text of a list.

    >>> number_list([1, 0])
    '{1,0}'
    """
    return "{" + ",".join(map(str, numbers)) + "}"


def true_attribute(message: Message, number: int, key: str) -> Attributes:
    """Returns the attribute of a flag that is printed only where it is set."""
    return [(key, "true")] if integer(message, number) else []


def common_attributes(message: Message) -> Attributes:
    """Returns the attributes that any instruction may have before its metadata, in XLA's order."""
    found: Attributes = []
    if 40 in message:
        if sharding := sharding_text(protobuf.submessage(message, 40)):
            found.append(("sharding", sharding))
    if text := frontend_attributes(protobuf.submessage(message, 68)):
        found.append(("frontend_attributes", text))
    if text := _statistics(protobuf.submessage(message, 82)):
        found.append(("statistics", text))
    if text := _result_accuracy(protobuf.submessage(message, 91)):
        found.append(("result_accuracy", text))
    return found


def late_attributes(message: Message, payloads: Sequence[bytes] = ()) -> Attributes:
    """Returns the original value, the metadata and the backend's configuration.

    Args:
      payloads: what the module stores once for several instructions, by number.
    """
    found: Attributes = []
    if 88 in message:
        found.append(("origin", original_value_text(protobuf.submessage(message, 88))))
    if text := metadata_text(protobuf.raw(message, 7), payloads):
        found.append(("metadata", text))
    config = payload(protobuf.submessage(message, 99), payloads) if 99 in message else protobuf.raw(message, 43)
    if config:
        found.append(("backend_config", dictionary_or_escaped(config, 43)))
    return found


def _statistics(message: Message) -> str:
    parts = [f"visualizing_index={integer(message, 1)}"]
    for item in protobuf.submessages(message, 2):
        parts.append(f"{string(item, 1)}={protobuf.fixed(item, 2, 'd'):g}")
    return "{" + ",".join(parts) + "}" if len(parts) > 1 else ""


def _result_accuracy(message: Message) -> str:
    if integer(message, 1) == 1:
        return "{mode=highest}"
    if 2 not in message:
        return ""
    tolerance = protobuf.submessage(message, 2)
    numbers = f"atol={protobuf.fixed(tolerance, 1, 'd'):g},rtol={protobuf.fixed(tolerance, 2, 'd'):g}"
    return f"{{tolerance={{{numbers},ulps={integer(tolerance, 3)}}}}}"


def frontend_attributes(message: Message) -> str:
    """Returns the text of a FrontendAttributes message, "" where it is empty."""
    pairs = []
    for entry in protobuf.submessages(message, 1):
        pairs.append((string(entry, 1), dictionary_or_escaped(protobuf.raw(entry, 2), 2)))
    return "{" + ",".join(f"{key}={value}" for key, value in sorted(pairs)) + "}" if pairs else ""
