import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memplan.compiler.ir.integers import ARITHMETIC, computed, exactly, is_exact, is_integer, kept, range_of

TYPES = {"s8": np.int8, "u8": np.uint8, "s32": np.int32, "u32": np.uint32, "s64": np.int64, "u64": np.uint64}
NUMPY = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "negate": np.negative,
    "abs": np.abs,
    "not": np.invert,
    "sign": np.sign,
    "remainder": np.fmod,
}


@given(st.sampled_from(sorted(TYPES)), st.sampled_from(sorted(NUMPY)), st.data())
def test_arithmetic_is_that_of_numpy(dtype: str, opcode: str, data: st.DataObject) -> None:
    kind = TYPES[dtype]
    low, high = range_of(dtype)
    assert (low, high) == (np.iinfo(kind).min, np.iinfo(kind).max)
    numbers = st.one_of(st.integers(low, high), st.sampled_from([low, high, 0, 1]))
    operands = [data.draw(numbers) for _ in range(NUMPY[opcode].nin)]
    if opcode == "remainder" and operands[1] == 0:
        assert computed(opcode, dtype, operands) is None
        return
    with np.errstate(over="ignore"):
        assert computed(opcode, dtype, operands) == int(NUMPY[opcode](*map(kind, operands)))


@pytest.mark.parametrize(
    ("opcode", "dtype", "operands", "result"),
    [
        ("divide", "s32", (-7, 2), -3),
        ("divide", "s32", (7, -2), -3),
        ("divide", "s8", (-128, -1), -128),
        ("divide", "u8", (255, 2), 127),
        ("divide", "s32", (1, 0), None),
        ("divide", "f32", (6, 3), 2),
        ("divide", "f32", (7, 3), None),
        ("add", "f32", (2**24, 1), None),
        ("add", "f64", (2**24, 1), 2**24 + 1),
        ("and", "f32", (1, 1), None),
        ("not", "f32", (1,), None),
        ("shift-left", "s8", (64, 1), -128),
        ("shift-left", "s8", (1, 8), 0),
        ("shift-left", "f32", (1, 1), None),
        ("shift-right-arithmetic", "s8", (-128, 1), -64),
        ("shift-right-arithmetic", "s8", (-128, 9), -1),
        ("shift-right-arithmetic", "u8", (128, 1), 192),
        ("shift-right-logical", "s8", (-128, 1), 64),
        ("shift-right-logical", "s8", (-128, 8), 0),
        ("clamp", "s32", (0, 7, 5), 5),
        ("clamp", "s32", (0, -7, 5), 0),
        ("not", "pred", (1,), 0),
        ("and", "pred", (1, 0), 0),
        ("xor", "pred", (1, 1), 0),
        ("subtract", "pred", (0, 1), None),
        ("add", "s32", (1,), None),
    ],
)
def test_corners(opcode: str, dtype: str, operands: tuple[int, ...], result: int | None) -> None:
    assert opcode in ARITHMETIC
    assert computed(opcode, dtype, operands) == result


def test_types() -> None:
    assert [is_integer(dtype) for dtype in ("s4", "u64", "pred", "f32", "bf16", "c64", "token")] == [True] * 3 + [
        False
    ] * 4
    assert [is_exact(dtype) for dtype in ("s4", "f32", "bf16", "f8e5m2", "c64")] == [True, True, True, False, False]
    assert kept(-1, "u4") == 15
    assert kept(8, "s4") == -8
    assert kept(3, "pred") == 1
    assert exactly(256, "u8") is None
    assert exactly(2048, "f16") == kept(2048, "f16") == 2048
    assert kept(2049, "f16") is None
