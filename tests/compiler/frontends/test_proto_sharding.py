import pytest
from test_protobuf import field, varint

from memplan.compiler.frontends.proto_sharding import device_list_text, sharding_text
from memplan.compiler.frontends.protobuf import MalformedMessage, read_message


def numbers(number: int, *values: int) -> bytes:
    return field(number, b"".join(map(varint, values)))


TILED = field(1, 3) + numbers(3, 2, 2)
MESH = field(1, field(1, b"a") + field(2, 4)) + field(1, field(1, b"b") + field(2, 8))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "{replicated}"),
        (field(1, 4), "{manual}"),
        (field(1, 6), "{unreduced}"),
        (field(1, 1) + numbers(4, 3), "{maximal device=3}"),
        (TILED + numbers(4, 0, 1, 3, 2), "{devices=[2,2]0,1,3,2}"),
        (TILED + numbers(9, 4) + numbers(10, 0), "{devices=[2,2]<=[4]}"),
        (TILED + numbers(9, 2, 2) + numbers(10, 1, 0), "{devices=[2,2]<=[2,2]T(1,0)}"),
        (TILED + numbers(9, 4) + field(6, 1), "{devices=[2,2]<=[4] last_tile_dim_replicate}"),
        (TILED + numbers(9, 4) + numbers(8, 4, 0), "{devices=[2,2]<=[4] last_tile_dims={manual, replicated}}"),
        (field(11, 1) + field(12, 7), "{replicated shard_as 7}"),
        (field(11, 1) + field(12, 7) + field(13, 1), "{replicated shard_like 7}"),
        (field(1, 2) + field(5, b"") + field(5, field(1, 4)), "{{replicated}, {manual}}"),
        (field(1, 77), ""),
        (field(14, field(2, b"")), "{mesh[], replicated}"),
        (
            field(14, field(2, MESH) + field(3, field(1, b"") + field(2, 1)) + field(3, field(1, field(1, 1) + field(2, field(1, 2) + field(2, 4))))),
            "{mesh['a'=4,'b'=8], [{'a'}, {'b':(2)4, ?}]}",
        ),
        (
            field(14, field(2, MESH) + field(3, field(2, 1)) + field(4, b"") + field(5, field(1, 1))),
            "{mesh['a'=4,'b'=8], [{}], replicated={'a'}, unreduced={'b'}}",
        ),
        (field(14, field(2, numbers(2, 3))), "{maximal_mesh[device_id=3]}"),
        (field(14, field(1, field(2, b"")) * 2), "{{mesh[], replicated}, {mesh[], replicated}}"),
    ],
)  # fmt: skip
def test_sharding(data: bytes, text: str) -> None:
    assert sharding_text(read_message(data)) == text


def test_deep_tuples() -> None:
    data = b""
    for _ in range(100):
        data = field(1, 2) + field(5, data)
    with pytest.raises(MalformedMessage, match="nests too deep"):
        sharding_text(read_message(data))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "{}"),
        (field(49, numbers(1, 0, 1)) + field(49, numbers(1, 2, 3)), "{{0,1},{2,3}}"),
        (field(87, field(1, numbers(1, 0, 1))), "{{0,1}}"),
        (field(87, field(2, field(1, 2) + field(2, 4) + numbers(3, 8) + numbers(4, 0))), "[2,4]<=[8]"),
        (field(92, field(1, 4) + field(2, 2) + numbers(3, 2, 4) + numbers(4, 1, 0)), "[4,2]<=[2,4]T(1,0)"),
        (field(93, field(1, MESH) + field(2, b"") + field(2, field(1, 1))), "mesh['a'=4,'b'=8] {'a','b'}"),
    ],
)
def test_device_lists(data: bytes, text: str) -> None:
    assert device_list_text(read_message(data)) == text
