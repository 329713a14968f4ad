"""The attributes that any HloInstructionProto may have: sharding, frontend attributes, metadata, backend_config."""

from __future__ import annotations

from memplan.compiler.frontends import protobuf
from memplan.compiler.frontends.proto_sharding import sharding_text
from memplan.compiler.frontends.protobuf import Message, integer, string

Attributes = list[tuple[str, str]]


def escaped(value: bytes | str) -> str:
    """Returns a quoted string with C escapes.

    >>> print(escaped('a "b"'))
    "a \\"b\\""
    """
    data = value.encode() if isinstance(value, str) else value
    parts = []
    for byte in data:
        if byte in _SPECIAL:
            parts.append(_SPECIAL[byte])
        else:
            parts.append(chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}")
    return '"' + "".join(parts) + '"'


_SPECIAL = {10: "\\n", 13: "\\r", 9: "\\t", 34: '\\"', 39: "\\'", 92: "\\\\"}


def common_attributes(message: Message) -> Attributes:
    """Returns the attributes that any instruction may have before its metadata: sharding, frontend attributes."""
    found: Attributes = []
    if 40 in message:
        if sharding := sharding_text(protobuf.submessage(message, 40)):
            found.append(("sharding", sharding))
    if text := frontend_attributes(protobuf.submessage(message, 68)):
        found.append(("frontend_attributes", text))
    return found


def late_attributes(message: Message) -> Attributes:
    """Returns the metadata and the backend's configuration."""
    found: Attributes = []
    if text := metadata_text(protobuf.raw(message, 7)):
        found.append(("metadata", text))
    if config := protobuf.raw(message, 43):
        # JSON and MLIR's dictionaries stand as they are, other strings quoted.
        is_dictionary = config[:1] == b"{"
        found.append(("backend_config", protobuf.text(config, 43) if is_dictionary else escaped(config)))
    return found


def frontend_attributes(message: Message) -> str:
    """Returns the text of a FrontendAttributes message, "" where it is empty."""
    pairs = []
    for entry in protobuf.submessages(message, 1):
        value = string(entry, 2)
        pairs.append((string(entry, 1), value if value.startswith("{") else escaped(value)))
    return "{" + ",".join(f"{key}={value}" for key, value in sorted(pairs)) + "}" if pairs else ""


_METADATA: tuple[tuple[str, int, bool], ...] = (
    ("op_type", 1, True), ("op_name", 2, True), ("source_file", 3, True), ("source_line", 4, False),
    ("source_end_line", 17, False), ("source_column", 18, False), ("source_end_column", 19, False),
    ("deduplicated_name", 12, True), ("scheduling_name", 16, True), ("stack_frame_id", 15, False),
)  # fmt: skip


def metadata_text(data: bytes) -> str:
    """Returns the text of a serialized OpMetadata, "" where it says nothing."""
    if not data:
        return ""
    message = protobuf.read_message(data)
    parts = []
    for key, number, is_string in _METADATA:
        if number in message:
            value = escaped(protobuf.raw(message, number)) if is_string else str(integer(message, number))
            if value not in ('""', "0"):
                parts.append(f"{key}={value}")
    return "{" + " ".join(parts) + "}" if parts else ""
