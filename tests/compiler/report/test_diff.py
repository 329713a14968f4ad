"""What differs between two programs, or two plans of one."""

import json

import pytest

from memplan.compiler.frontends import parse_hlo
from memplan.compiler.hardware.target import load_target
from memplan.compiler.mapping.build import build
from memplan.compiler.mapping.plan import Plan, Residency
from memplan.compiler.report.buffers import GroupBy
from memplan.compiler.report.diff import GroupDifference, Side, compare, side_of_plan, side_of_program
from memplan.compiler.report.diff_tables import difference_json, print_difference
from memplan.compiler.report.terminal import PlainConsole

TARGET = load_target("generic")
KB = 1024


def layer(number: int, elements: int = 256) -> str:
    previous = "x" if number == 0 else f"up{number - 1}"
    return (
        f'  up{number} = f32[{elements}] custom-call({previous}), custom_call_target="up", '
        f'metadata={{op_name="jit(f)/jvp(M)/layer_{number}/up"}}\n'
    )


def module(layers: str, last: str) -> str:
    return f"""HloModule f, is_scheduled=true
ENTRY e {{
  x = f32[256] parameter(0), metadata={{op_name="x"}}
{layers}  ROOT out = f32[] custom-call({last}), custom_call_target="sum", metadata={{op_name="jit(f)/sum"}}
}}
"""


TWO = module(layer(0) + layer(1), "up0, up1")


def slow_plan(text: str) -> Plan:
    problem = build(parse_hlo(text), TARGET).problem
    residencies = [Residency(n, 0, 4096 * n, b.start, b.end) for n, b in enumerate(problem.buffers)]
    return problem.answer("slow", residencies, (), [access.buffer for _, access in problem.accesses])


def side(text: str) -> Side:
    return side_of_program("f", build(parse_hlo(text), TARGET), TARGET, slow_plan(text))


def group(label: str, before: str, after: str) -> GroupDifference:
    found = compare(side(before), side(after), GroupBy.OP)
    return next(each for each in found.groups if each.label == label)


def test_a_program_is_what_it_is() -> None:
    same = compare(side(TWO), side(TWO), GroupBy.OP)
    assert same.groups == ()
    assert same.growth == 0


def test_a_layer_more_is_a_row_that_grew() -> None:
    three = module(layer(0) + layer(1) + layer(2), "up0, up1, up2")
    found = compare(side(TWO), side(three), GroupBy.OP)
    assert found.growth == KB
    row = group("jit(f)/jvp(M)/layer_*/up", TWO, three)
    assert (row.what, row.before.buffers, row.after.buffers) == ("grew", 2, 3)
    assert (row.before.at_peak, row.after.at_peak) == (2 * KB, 3 * KB)
    assert row.after.seconds > row.before.seconds > 0
    assert sum(each.after.at_peak - each.before.at_peak for each in found.groups) == found.growth


def test_what_appears_goes_and_shrinks() -> None:
    renamed = TWO.replace("layer_1/up", "head/up")
    assert group("jit(f)/jvp(M)/head/up", TWO, renamed).what == "appeared"
    assert group("jit(f)/jvp(M)/head/up", renamed, TWO).what == "gone"
    # The number of a layer that stands alone has no star.
    assert group("x", TWO, TWO.replace("x = f32[256]", "x = f32[128]")).what == "shrank"


def test_what_a_plan_moves() -> None:
    built = build(parse_hlo(TWO), TARGET)
    slow = slow_plan(TWO)
    names = [buffer.name for buffer in built.problem.buffers]
    moved = names.index("up0")
    residencies = list(slow.residencies)
    residencies[moved] = Residency(moved, 1, 0, residencies[moved].start, residencies[moved].end)
    fast = built.problem.answer("fast", residencies, (), slow.served)
    found = compare(side_of_plan("slow", built, slow), side_of_plan("fast", built, fast), GroupBy.OP)
    assert found.growth == -KB
    assert found.after.latency < found.before.latency
    row = next(each for each in found.groups if "layer" in each.label)
    assert (row.what, row.before.places, row.after.places) == ("moved", ("slow",), ("fast", "slow"))
    assert row.after.seconds < row.before.seconds


@pytest.mark.parametrize("width", [60, 140])
def test_the_table_fits_and_the_json_has_everything(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    three = module(layer(0) + layer(1) + layer(2), "up0, up1, up2")
    found = compare(side(TWO), side(three), GroupBy.OP)
    print_difference(found, PlainConsole(width=width, color_system=None))
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= width
    assert any("grew" in line for line in lines)
    data = json.loads(json.dumps(difference_json(found)))
    assert data["schema"] == "memplan.diff/1"
    assert data["peak_growth"] == KB
    assert data["groups"][0]["what"] == "grew"
