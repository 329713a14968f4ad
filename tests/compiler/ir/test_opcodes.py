import pytest

from memplan.compiler.ir.opcodes import OPERANDS, is_known, operand_limits


@pytest.mark.parametrize(
    ("opcode", "limits"),
    [
        ("add", (2, 2)),
        ("select", (3, 3)),
        ("parameter", (0, 0)),
        ("concatenate", (1, None)),
        ("tuple", (0, None)),
        ("slice-done", (1, 1)),
        ("fusion-start", (0, None)),
        ("frobnicate", (0, None)),
    ],
)
def test_operand_limits(opcode: str, limits: tuple[int, int | None]) -> None:
    assert operand_limits(opcode) == limits


def test_asynchronous_forms_of_unknown_opcodes_are_unknown() -> None:
    assert is_known("dynamic-update-slice-update")
    assert not is_known("frobnicate-start")
    assert not is_known("-start")


def test_every_opcode_of_jaxlib_is_known() -> None:
    """jaxlib names them as `kReduceScatter`; a few differ from the text, which has `exponential` for `kExp`."""
    import re

    from jaxlib import _hlo

    different = {
        "exp": "exponential", "expm1": "exponential-minus-one", "log1p": "log-plus-one", "cos": "cosine", "sin": "sine",
        "clz": "count-leading-zeros", "round-nearest-afz": "round-nearest-afz", "optimization-barrier": "opt-barrier",
        "shift-right-logical": "shift-right-logical", "top-k": "topk", "population-count": "popcnt",
    }  # fmt: skip
    names = [name for name in dir(_hlo.HloOpcode) if re.fullmatch(r"k[A-Z]\w*", name)]
    assert len(names) > 100
    unknown = []
    for name in names:
        text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name[1:]).lower()
        if different.get(text, text) not in OPERANDS:
            unknown.append(text)
    assert unknown == []
