import math
import re
import struct

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxlib import _hlo
from test_protobuf import field, varint

from memplan.compiler.frontends import hlo_proto, hlo_text
from memplan.compiler.frontends.proto_literal import literal_text
from memplan.compiler.frontends.protobuf import MalformedMessage


def as_xla_prints(shape: str, value: str) -> tuple[str, str]:
    """Returns the text of a constant by XLA's printer, and by ours from the same proto."""
    module = _hlo.hlo_module_from_text(f"HloModule m\nENTRY e {{\n  ROOT c = {shape} constant({value})\n}}\n")
    theirs = hlo_text.parse(module.to_string()).entry_computation.root_instruction.payload
    ours = hlo_proto.parse(module.as_serialized_hlo_module_proto()).entry_computation.root_instruction.payload
    return theirs, ours


@pytest.mark.parametrize(
    ("shape", "value"),
    [
        ("f32[]", "0.1"),
        ("f32[]", "-0"),
        ("f32[]", "1e-45"),
        ("f32[]", "inf"),
        ("f32[]", "-nan"),
        ("f32[]", "nan(0x1)"),
        ("f32[2]", "{3.14159274, 1e+30}"),
        ("f64[3]", "{0.1, 0.30000000000000004, 1e-300}"),
        ("bf16[4]", "{0.1, 1, -inf, nan}"),
        ("f16[3]", "{0.1, 65504, -nan}"),
        ("pred[]", "false"),
        ("pred[2,2]", "{{true, false}, {false, true}}"),
        ("s8[2]", "{-128, 127}"),
        ("u64[1]", "{18446744073709551615}"),
        ("s64[2]", "{-9223372036854775808, 1}"),
        ("u16[2]", "{65535, 0}"),
        ("s4[3]", "{-8, 7, 0}"),
        ("u4[2]", "{15, 0}"),
        ("c64[]", "(1, -0.1)"),
        ("c128[2]", "{(0.1, nan), (-inf, 0)}"),
        ("s32[2,3]{0,1}", "{{1, 2, 3}, {4, 5, 6}}"),  # not in the order of memory
        ("s32[2,1,3]{1,0,2}", "{{{1, 2, 3}}, {{4, 5, 6}}}"),
        ("s32[11]", "{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}"),  # too many to be printed
        ("f32[0]", "{}"),
        ("f32[2,0]", "{{}, {}}"),
        ("f32[2,0,3]", "{{}, {}}"),
        ("f8e5m2[3]", "{1, -inf, 0.0001}"),
        ("f8e4m3fn[2]", "{448, 0.002}"),
    ],
)
def test_same_as_xla(shape: str, value: str) -> None:
    theirs, ours = as_xla_prints(shape, value)
    assert ours == theirs


@settings(max_examples=60)
@given(st.sampled_from(["f32", "f64", "bf16", "f16"]), st.lists(st.floats(width=64), min_size=1, max_size=10))
def test_floats_print_as_xla_prints_them(dtype: str, values: list[float]) -> None:
    text = ", ".join("nan" if math.isnan(value) else repr(value) for value in values)
    try:
        theirs, ours = as_xla_prints(f"{dtype}[{len(values)}]", "{" + text + "}")
    except RuntimeError:
        return  # XLA refuses values out of the type's range
    assert ours == theirs


NAMES = {
    "f8e3m4": "float8_e3m4",
    "f8e8m0fnu": "float8_e8m0fnu",
    "f4e2m1fn": "float4_e2m1fn",
    "f8e4m3fnuz": "float8_e4m3fnuz",
}
FIELDS = {"f8e3m4": (29, 29), "f8e8m0fnu": (33, 33), "f4e2m1fn": (32, 32), "f8e4m3fnuz": (25, 25)}


@pytest.mark.parametrize("dtype", NAMES)
def test_narrow_floats_keep_their_values(dtype: str) -> None:
    element = np.dtype(getattr(ml_dtypes, NAMES[dtype]))
    number, values_field = FIELDS[dtype]
    for byte in range(16 if dtype == "f4e2m1fn" else 256):
        value = float(np.frombuffer(bytes([byte]), element)[0])
        text = literal_text(field(1, field(2, number)) + field(values_field, bytes([byte])))
        if math.isnan(value):
            assert re.fullmatch(r"-?nan(\(0x[1-9a-f]\))?", text)  # with its mantissa, where a type has several
        else:
            assert float(text) == pytest.approx(value, rel=0.05)
            if dtype != "f8e8m0fnu":  # its range goes below that of what numpy converts
                assert float(np.asarray(float(text)).astype(element)) == value


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (field(1, field(2, 4) + field(3, varint(3))) + field(4, varint(1) + varint(2)), "3 elements has 2 values"),
        (field(1, field(2, 11) + field(3, varint(2))) + field(8, b"123"), "field 8 ends within a number"),
        (field(1, field(2, 10) + field(3, varint(1))) + field(11, b"1"), "field 11 ends within a number"),
        (b"", "the data type number 0"),
    ],
)
def test_damaged_literals(data: bytes, message: str) -> None:
    with pytest.raises(MalformedMessage, match=message):
        literal_text(data)


def test_tuples_and_depth() -> None:
    one = field(1, field(2, 11)) + b"\x45" + struct.pack("<f", 1.0)
    assert literal_text(field(1, field(2, 13))) == "()"
    assert literal_text(field(1, field(2, 13)) + field(10, one) + field(10, one)) == "( 1, 1 )"
    deep = one
    for _ in range(100):
        deep = field(1, field(2, 13)) + field(10, deep)
    with pytest.raises(MalformedMessage, match="nests deeper than 64"):
        literal_text(deep)
