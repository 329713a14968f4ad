import pytest
from test_protobuf import field, varint

from memplan.compiler.frontends.proto_collective import channel, collective
from memplan.compiler.frontends.protobuf import read_message
from memplan.compiler.ir import Shape


def numbers(number: int, *values: int) -> bytes:
    return field(number, b"".join(map(varint, values)))


MATRIX, VECTOR = Shape("f32", (4, 8)), Shape("f32", (8,))


@pytest.mark.parametrize(
    ("sizes", "source", "slices"),
    [
        ((), MATRIX, None),
        ((2, 8), MATRIX, "{{2,8}}"),
        ((2, 8, 1, 8), MATRIX, "{{2,8},{1,8}}"),
        ((2, 8, 1, 8), Shape("tuple", elements=(MATRIX, MATRIX)), "{{2,8},{1,8}}"),
        ((2, 8, 1), Shape("tuple", elements=(MATRIX, VECTOR)), "{{2,8},{1}}"),
        ((2, 8, 1, 8, 1, 2), Shape("tuple", elements=(MATRIX, VECTOR)), "{{2,8},{1,8},{1},{2}}"),
        ((2, 8, 1), MATRIX, "{{2,8,1}}"),
        ((2,), Shape("f32"), "{{2}}"),
    ],
)
def test_sizes_of_slices(sizes: tuple[int, ...], source: Shape, slices: str | None) -> None:
    """A proto holds them one after another; XLA's text puts those of one slice between braces."""
    message = read_message(field(52, field(2, 1)) + (numbers(20, *sizes) if sizes else b""))
    found = dict(collective(message, "collective-permute", [source]))
    assert found["source_target_pairs"] == "{{0,1}}"
    assert found.get("slice_sizes") == slices


def test_a_channel_of_0_is_none() -> None:
    assert channel(read_message(field(26, 0))) == channel({}) == []
    assert channel(read_message(field(26, 3))) == [("channel_id", "3")]
