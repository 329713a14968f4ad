import pytest
from test_protobuf import field, varint

from memplan.compiler.frontends import proto_convolution
from memplan.compiler.frontends.protobuf import MalformedMessage, read_message


def numbers(number: int, *values: int) -> bytes:
    return field(number, b"".join(map(varint, values)))


@pytest.mark.parametrize(
    ("data", "labels"),
    [
        (field(7, 0) + field(8, 1) + field(3, 0) + field(4, 1) + field(9, 1) + field(10, 0), "bf_io->fb"),
        (
            field(8, 3) + numbers(11, 1, 2) + field(3, 2) + field(4, 4) + numbers(6, 0, 1) + field(10, 3) + numbers(12, 1, 2),
            "b01f_01i?o->b01f",
        ),
    ],
)  # fmt: skip
def test_labels(data: bytes, labels: str) -> None:
    assert proto_convolution.dim_labels(read_message(field(16, data))) == [("dim_labels", labels)]


@pytest.mark.parametrize("data", [b"", field(7, 1) + field(8, 1), field(8, 2**62), field(8, -1)])
def test_labels_of_nonsense(data: bytes) -> None:
    with pytest.raises(MalformedMessage, match="do not number its dimensions"):
        proto_convolution.dim_labels(read_message(field(16, data)))


def test_windows() -> None:
    dim = field(1, 3) + field(2, 1) + field(3, 1) + field(4, 2) + field(5, 1) + field(6, 1)
    message = read_message(field(15, field(1, dim) * 2))
    assert proto_convolution.window(message) == [("window", "{size=3x3 pad=1_2x1_2}")]
    assert proto_convolution.window(read_message(field(15, b""))) == []
    assert proto_convolution.window_even_if_empty(read_message(field(15, b""))) == [("window", "{}")]
    assert proto_convolution.window_even_if_empty({}) == []


def test_kinds() -> None:
    kinds = [proto_convolution.kind(read_message(field(97, number))) for number in range(4)]
    assert kinds == [[], *([("convolution_kind", name)] for name in ("fprop", "dgrad", "wgrad"))]
    with pytest.raises(MalformedMessage, match="of the kind 4, which is not known"):
        proto_convolution.kind(read_message(field(97, 4)))


def test_sparsity() -> None:
    side = field(1, 2) + field(2, 4) + field(3, 1) + field(4, 1)
    both = read_message(field(98, field(1, side) + field(2, side)))
    text = "{sparsity=2x4 dimension=1 stride=1}"
    assert proto_convolution.sparsity(both) == [("sparsity_config", f"{{lhs={text} rhs={text}}}")]
    assert proto_convolution.sparsity(read_message(field(98, b""))) == []
