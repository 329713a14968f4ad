import pytest
from test_protobuf import field, varint

from memplan.compiler.frontends.proto_attributes import attributes_of
from memplan.compiler.frontends.protobuf import MalformedMessage, read_message
from memplan.compiler.ir import Shape


def numbers(number: int, *values: int) -> bytes:
    return field(number, b"".join(map(varint, values)))


def printed(opcode: str, data: bytes, dtype: str = "f32", called: tuple[str, ...] = ()) -> str:
    attributes = attributes_of(read_message(data), opcode, [Shape(dtype, (8,))], called)
    return ", ".join(f"{key}={value}" for key, value in attributes)


# What `every_opcode.hlo` has is compared with XLA's text in test_hlo_proto.py; here is the rest.
@pytest.mark.parametrize(
    ("opcode", "data", "text"),
    [
        ("compare", field(63, b"LT") + field(72, b"TOTALORDER"), "direction=LT, type=TOTALORDER"),
        ("compare", field(63, b"LT") + field(72, b"FLOAT") + field(102, b"TOTAL"), "direction=LT, order=TOTAL"),
        ("compare", field(63, b"LT") + field(72, b"FLOAT") + field(102, b"PARTIAL"), "direction=LT"),
        ("topk", field(81, 5) + field(60, 1), "k=5, largest=false, is_stable=true"),
        ("fusion", field(11, b"kLoop") + field(74, numbers(1, 0) + field(2, 1)), "kind=kLoop, output_to_operand_aliasing={{0}: (1, {})}"),
        ("reshape", numbers(14, 1), "inferred_dimension=1"),
        ("custom-call", field(28, b"f") + field(77, 2) + field(76, 1), 'custom_call_target="f", schedule=SCHEDULE_LATEST, api_version=API_VERSION_STATUS_RETURNING'),
        ("triangular-solve", field(59, field(3, 1)), "unit_diagonal=true"),
        ("scan", numbers(14, 1) + field(95, 2) + field(96, 2), "dimensions={1}, num_carries=2, is_associative=false"),
        ("scan", numbers(14, 0), "dimensions={0}, num_carries=0"),
        ("scaled-dot", field(30, numbers(1, 1) + numbers(2, 0)), "lhs_contracting_dims={1}, rhs_contracting_dims={0}"),
        ("ragged-dot", field(90, field(1, numbers(1, 1) + numbers(2, 0)) + numbers(2, 0)), "lhs_contracting_dims={1}, rhs_contracting_dims={0}, lhs_ragged_dims={0}"),
        ("all-reduce", field(56, 1) + field(49, numbers(1, 0)), "replica_groups={{0}}, constrain_layout=true"),
        ("gather", field(33, numbers(5, 0) + numbers(6, 0)), "offset_dims={}, collapsed_slice_dims={}, start_index_map={}, operand_batching_dims={0}, start_indices_batching_dims={0}, index_vector_dim=0, slice_sizes={}"),
        ("dot", field(30, numbers(3, 0) + numbers(4, 0) + numbers(1, 2) + numbers(2, 1)) + field(51, numbers(1, 7, 2) + field(2, 99)),
         "lhs_batch_dims={0}, lhs_contracting_dims={2}, rhs_batch_dims={0}, rhs_contracting_dims={1}, operand_precision={7,highest}, algorithm=algorithm_99"),
        ("an-opcode-of-tomorrow", numbers(14, 1), ""),
    ],
)  # fmt: skip
def test_attributes(opcode: str, data: bytes, text: str) -> None:
    assert printed(opcode, data) == text


@pytest.mark.parametrize(
    ("opcode", "dtype", "called", "text"),
    [
        ("conditional", "pred", ("a", "b"), "true_computation=%a, false_computation=%b"),
        ("conditional", "s32", ("a", "b"), "branch_computations={%a, %b}"),
        ("call", "f32", ("a",), "to_apply=%a"),
        ("an-opcode-of-tomorrow", "f32", ("a",), "calls=%a"),
        ("an-opcode-of-tomorrow", "f32", ("a", "b"), "calls={%a, %b}"),
    ],
)
def test_called_computations(opcode: str, dtype: str, called: tuple[str, ...], text: str) -> None:
    assert printed(opcode, b"", dtype, called) == text


def test_integers_compare_in_total_order_by_default() -> None:
    data = field(63, b"EQ") + field(72, b"SIGNED") + field(102, b"TOTAL")
    assert printed("compare", data, "s32") == "direction=EQ"
    assert printed("compare", field(63, b"EQ") + field(72, b"UNSIGNED"), "pred") == "direction=EQ"


@pytest.mark.parametrize(
    ("opcode", "data", "message"),
    [
        ("fft", field(31, 9), "field 31 has the value 9, which is not known"),
        ("rng", field(23, -1), "field 23 has the value -1"),
        ("convolution", field(16, numbers(11, 5)), "do not number its dimensions"),
    ],
)
def test_nonsense(opcode: str, data: bytes, message: str) -> None:
    with pytest.raises(MalformedMessage, match=message):
        printed(opcode, data)
