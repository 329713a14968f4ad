"""Results that may lie where an operand ends."""

from __future__ import annotations

import pytest

from memplan.compiler.analysis.program import FlatProgram
from memplan.compiler.analysis.takeover import aliasing_operands, takeovers

from .helpers import flat


def found(program: FlatProgram) -> list[tuple[str, str, bool]]:
    return [
        (program.storages[takeover.operand].name, program.storages[takeover.result].name, takeover.stated)
        for takeover in takeovers(program)
    ]


HEAD = "ENTRY e { a = f32[8]{0} parameter(0) x = f32[8]{0} negate(a) "


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("y = f32[8]{0} abs(x) ROOT r = f32[2]{0} slice(y), slice={[0:2]} }", [("x", "y", False)]),
        ("y = f32[8]{0} reverse(x), dimensions={0} ROOT r = f32[2]{0} slice(y), slice={[0:2]} }", []),
        ("y = f32[8]{0} abs(x) ROOT r = f32[8]{0} add(y, x) }", [("y", "r", False)]),
        ("y = f32[8]{0:S(1)} abs(x) ROOT r = f32[2]{0} slice(y), slice={[0:2]} }", []),
        ("y = s32[8]{0} convert(x) ROOT r = s32[2]{0} slice(y), slice={[0:2]} }", []),
        ("ROOT r = f32[8]{0} add(a, a) }", []),
    ],
    ids=["elementwise", "out of order", "the last use counts", "another memory", "another type", "an argument"],
)
def test_a_result_takes_over_an_operand_that_dies(body: str, expected: list[tuple[str, str, bool]]) -> None:
    assert found(flat(HEAD + body)) == expected


def test_one_operand_is_taken_over_once() -> None:
    program = flat(
        "f { p = f32[8] parameter(0) n = f32[8] negate(p) m = f32[8] abs(p) ROOT t = (f32[8], f32[8]) tuple(n, m) }"
        "ENTRY e { a = f32[8] parameter(0) x = f32[8] negate(a) ROOT r = (f32[8], f32[8]) fusion(x), kind=kLoop, calls=f }"
    )
    assert found(program) == [("x", "r{0}", False)]


def test_a_sort_sorts_each_operand_where_it_is() -> None:
    program = flat(
        "less { p = f32[] parameter(0) q = f32[] parameter(1) s = s32[] parameter(2) t = s32[] parameter(3)"
        " ROOT c = pred[] compare(p, q), direction=LT }"
        "ENTRY e { a = f32[8] parameter(0) x = f32[8] negate(a) i = s32[8] iota(), iota_dimension=0"
        " ROOT r = (f32[8], s32[8]) sort(x, i), dimensions={0}, to_apply=less }"
    )
    assert found(program) == [("x", "r{0}", False), ("i", "r{1}", False)]


STATED = 'backend_config={"aliasing_operands":{"lists":[{"indices":["0","2"]},{"indices":["1","3"]}]}}'


def test_what_the_compiler_states_is_taken_first_and_needs_no_proof() -> None:
    program = flat(
        "f { p = f32[8] parameter(0) q = f32[8] parameter(1) n = f32[8] reverse(p), dimensions={0} m = f32[8] add(p, q)"
        " ROOT t = (f32[8], f32[8]) tuple(n, m) }"
        "ENTRY e { a = f32[8] parameter(0) x = f32[8] negate(a) y = f32[8] abs(a)"
        f" ROOT r = (f32[8], f32[8]) fusion(x, y), kind=kLoop, calls=f, {STATED} }}"
    )
    assert found(program) == [("x", "r{0}", True), ("y", "r{1}", True)]


def test_aliasing_operands_are_read_wherever_they_stand() -> None:
    config = (
        '{"window_config":{"output_window_bounds":["4","8"]},"used_scoped_memory_configs":[{"memory_space":"1"}],'
        '"aliasing_operands":{"lists":[{"indices":["0","6"]},{"indices":["2","4","5"]}]},"more":[{"x":["7"]}]}'
    )
    assert aliasing_operands(config) == [[0, 6], [2, 4, 5]]
    assert aliasing_operands('{"aliasing_operands":{"lists":[]}}') == []
    assert aliasing_operands("") == []
