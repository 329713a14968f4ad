from test_protobuf import field

from memplan.compiler.frontends.hlo_lexical import unescape
from memplan.compiler.frontends.proto_common import (
    common_attributes,
    escaped,
    frontend_attributes,
    late_attributes,
    metadata_text,
)
from memplan.compiler.frontends.protobuf import read_message


def test_escaping() -> None:
    assert escaped('a "b"\n\t\\') == '"a \\"b\\"\\n\\t\\\\"'
    assert escaped("é") == '"\\303\\251"'
    assert unescape(escaped("é 'x' \0 \"")[1:-1]) == "é 'x' \0 \""


def test_metadata() -> None:
    assert metadata_text(b"") == ""
    assert metadata_text(field(2, b"") + field(4, 0)) == ""
    data = field(15, 4) + field(2, b"jit(f)/add") + field(1, b"add") + field(3, b"f.py") + field(4, 7) + field(99, 1)
    assert (
        metadata_text(data) == '{op_type="add" op_name="jit(f)/add" source_file="f.py" source_line=7 stack_frame_id=4}'
    )


def test_frontend_attributes() -> None:
    def entry(key: bytes, value: bytes) -> bytes:
        return field(1, field(1, key) + field(2, value))

    assert frontend_attributes({}) == ""
    message = read_message(entry(b"b", b'say "x"') + entry(b"a", b"{m = 1}"))
    assert frontend_attributes(message) == '{a={m = 1},b="say \\"x\\""}'


def test_common_and_late_attributes() -> None:
    message = read_message(field(40, b"") + field(43, b'{"cycles":"5"}') + field(7, field(2, b"x")))
    assert common_attributes(message) == [("sharding", "{replicated}")]
    assert late_attributes(message) == [("metadata", '{op_name="x"}'), ("backend_config", '{"cycles":"5"}')]
    assert late_attributes(read_message(field(43, b"a\xffb"))) == [("backend_config", '"a\\377b"')]
