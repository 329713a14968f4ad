"""OpMetadata and OriginalValueProto (xla/xla_data.proto, xla/service/hlo.proto) to the text that XLA prints of them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from memplan.compiler.frontends import protobuf
from memplan.compiler.frontends.protobuf import MalformedMessage, Message, integer, integer32, integers, raw, string

_MAX_NESTING = 64


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


_JSON_TOKEN = re.compile(r'"[^"\\]*+(?:\\[^\n][^"\\]*+)*"|[{}"]')


def dictionary_or_escaped(value: bytes, number: int) -> str:
    """Returns the value of field `number` as it is where its braces match, as those of JSON do; else quoted.

    Raises MalformedMessage if it would stand as it is and is no UTF-8.

    >>> print(dictionary_or_escaped(b'{"a":{1}}', 43), dictionary_or_escaped(b"{1}x{2}", 43))
    {"a":{1}} "{1}x{2}"
    """
    if not value.startswith(b"{"):
        return escaped(value)
    text = protobuf.text(value, number)
    depth = 0
    for token in _JSON_TOKEN.finditer(text):
        if token.group() == '"':
            break
        depth += {"{": 1, "}": -1}.get(token.group(), 0)
        if depth == 0:
            return text if not text[token.end() :].strip() else escaped(value)
    return escaped(value)


def payload(message: Message, payloads: Sequence[bytes]) -> bytes:
    """Returns the bytes of a Payload, which stand in it or, by their number, in the module; raises MalformedMessage."""
    if 2 not in message:
        return raw(message, 1)
    number = integer(message, 2)
    if not 0 <= number < len(payloads):
        raise MalformedMessage(f"it names the payload {number}; the module has {len(payloads)}")
    return payloads[number]


_METADATA: tuple[tuple[str, int], ...] = (
    ("op_type", 1), ("op_name", 2), ("source_file", 3), ("source_line", 4), ("source_end_line", 17),
    ("source_column", 18), ("source_end_column", 19), ("profile_type", 5), ("deduplicated_name", 12),
    ("scheduling_name", 16), ("stack_frame_id", 15), ("metadata_payload", 20),
)  # fmt: skip
_STRINGS = frozenset({"op_type", "op_name", "source_file", "deduplicated_name", "scheduling_name"})
# Metadata that has none of these says nothing to XLA, which then prints none of it.
_REQUIRED = (1, 2, 3, 16, 15, 20)


def metadata_text(data: bytes, payloads: Sequence[bytes] = (), is_shardings: bool = False) -> str:
    """Returns the text of a serialized OpMetadata, "" where an instruction would print none.

    Args:
      payloads: what the module stores once for several instructions, by number.
      is_shardings: whether it belongs to a sharding, which prints whatever there is, without the braces.
    """
    if not data:
        return ""
    message = protobuf.read_message(data)
    parts = []
    for key, number in _METADATA:
        if number not in message:
            continue
        if key == "metadata_payload":
            value = escaped(payload(protobuf.submessage(message, number), payloads))
        elif key == "profile_type":
            value = "{" + ",".join(map(str, integers(message, number))) + "}"
        else:
            value = escaped(raw(message, number)) if key in _STRINGS else str(integer32(message, number))
        if value not in ('""', "0", "{}"):
            parts.append(f"{key}={value}")
    if is_shardings:
        return " ".join(parts)
    return "{" + " ".join(parts) + "}" if parts and any(number in message for number in _REQUIRED) else ""


def original_value_text(message: Message) -> str:
    """Returns where the arrays of a result stood before transformations, such as `{({"x"}, {"y" {1}})}`."""
    if integer(message, 2):
        return "{[synthetic_call]}"
    # A leaf is the text of an array; an inner node is a dictionary of its elements.
    root: dict[int, object] = {}
    whole = ""
    for element in protobuf.submessages(message, 1):
        text = _original_array(protobuf.submessage(element, 2)) if 2 in element else "{}"
        path = integers(element, 1)
        if len(path) > _MAX_NESTING:
            raise MalformedMessage("an original value nests too deep")
        if not path:
            whole = text
            continue
        node = root
        for i in path[:-1]:
            below = node.setdefault(i, {})
            if not isinstance(below, dict):
                raise MalformedMessage("an original value states an array and its elements")
            node = below
        node[path[-1]] = text
    return "{" + (whole or _original_tree(root)) + "}"


def _original_tree(node: object) -> str:
    if isinstance(node, dict):
        return "(" + ", ".join(_original_tree(node[i]) for i in sorted(node)) + ")"
    return str(node)


def _original_array(message: Message) -> str:
    index = integers(message, 2)
    place = " {" + ",".join(map(str, index)) + "}" if index else ""
    return f'{{"{string(message, 1)}"{place}}}'
