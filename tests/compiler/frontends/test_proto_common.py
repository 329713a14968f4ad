import struct

import pytest
from test_protobuf import field

from memplan.compiler.frontends.proto_common import common_attributes, frontend_attributes, late_attributes
from memplan.compiler.frontends.protobuf import MalformedMessage, read_message


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


def test_statistics_and_accuracy() -> None:
    def statistic(name: bytes, value: float) -> bytes:
        return field(2, field(1, name) + b"\x11" + struct.pack("<d", value))

    def accuracy(data: bytes) -> list[tuple[str, str]]:
        return common_attributes(read_message(field(91, data)))

    data = field(82, field(1, 1) + statistic(b"a", 33.0) + statistic(b"b", 0.5))
    assert common_attributes(read_message(data)) == [("statistics", "{visualizing_index=1,a=33,b=0.5}")]
    assert accuracy(b"") == []
    assert accuracy(field(1, 1)) == [("result_accuracy", "{mode=highest}")]
    tolerance = field(2, b"\x09" + struct.pack("<d", 0.25))
    assert accuracy(tolerance) == [("result_accuracy", "{tolerance={atol=0.25,rtol=0,ulps=0}}")]


def test_payloads_that_the_module_stores_once() -> None:
    message = read_message(field(99, field(2, 1)) + field(7, field(20, field(2, 0))))
    assert late_attributes(message, [b"p", b"{}"]) == [
        ("metadata", '{metadata_payload="p"}'),
        ("backend_config", "{}"),
    ]
    assert late_attributes(read_message(field(99, field(1, b"{1}")))) == [("backend_config", "{1}")]
    with pytest.raises(MalformedMessage, match="names the payload 1; the module has 1"):
        late_attributes(message, [b"p"])
