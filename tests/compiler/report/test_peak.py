"""What stands at a peak, and what being rid of it is worth, for programs that fit in the head."""

import json
import math
from dataclasses import replace

import pytest

from memplan.compiler.analysis.buffer_assignment import parse_buffer_assignment
from memplan.compiler.analysis.flatten import flatten
from memplan.compiler.analysis.occupancy import Occupancy
from memplan.compiler.frontends import parse_hlo
from memplan.compiler.hardware.host import host_links
from memplan.compiler.hardware.target import load_target
from memplan.compiler.mapping.build import build
from memplan.compiler.report.buffers import GroupBy
from memplan.compiler.report.gaps import Gaps
from memplan.compiler.report.peak import Peak, find_peak
from memplan.compiler.report.peak_schema import peak_json
from memplan.compiler.report.peak_tables import print_peak, remarks
from memplan.compiler.report.recomputing import recomputed
from memplan.compiler.report.relief import Relief, Way
from memplan.compiler.report.stated import StatedPart, statement_of
from memplan.compiler.report.terminal import PlainConsole

MB = 2**20

#   t        0 1 2    3    4    5    6     7        one MiB is 2^18 elements of f32
#            w x up   mid  big  sum  down  step
#   w    1   ├──────────────────────────────        argument, not donated; step has its shape
#   x    1   ├──────────────────────────────        argument
#   up   4       ├────────────────────┤             read by mid and by down
#   mid  1            ├─────┤
#   big 16                 ├────┤
#   sum  0                      ├──────────
#   down 1                           ├─────┤
#   step 1                                 ├─       result
STEP = """HloModule step, is_scheduled=true
ENTRY e {
  w = f32[262144] parameter(0), metadata={op_name="params['w']"}
  x = f32[262144] parameter(1), metadata={op_name="x"}
  up = f32[1048576] custom-call(x), custom_call_target="up", metadata={op_name="jit(f)/jvp(layer_0)/up" source_file="m.py" source_line=3}
  mid = f32[262144] custom-call(up), custom_call_target="mid", metadata={op_name="jit(f)/jvp(layer_0)/mid" source_file="m.py" source_line=3}
  big = f32[4194304] custom-call(mid), custom_call_target="big", metadata={op_name="jit(f)/jvp(layer_0)/big" source_file="m.py" source_line=4}
  sum = f32[] custom-call(big), custom_call_target="sum", metadata={op_name="jit(f)/sum" source_file="m.py" source_line=5}
  down = f32[262144] custom-call(up, sum), custom_call_target="down", metadata={op_name="jit(f)/down" source_file="m.py" source_line=6}
  step = f32[262144] custom-call(w, down), custom_call_target="step", metadata={op_name="jit(f)/sub" source_file="m.py" source_line=7}
  ROOT out = (f32[262144], f32[]) tuple(step, sum)
}
"""
TPU = load_target("tpu-v5e")


@pytest.fixture(scope="module")
def peak() -> Peak:
    return find_peak(parse_hlo(STEP), TPU, by=GroupBy.LINE, limit=16 * MB)


def relief(peak: Peak, label: str) -> Relief:
    return next(each for each in peak.reliefs if each.label == label)


def test_when_the_peak_is_and_what_stands_there(peak: Peak) -> None:
    main = peak.main
    assert (main.name, main.operation, main.source.line, main.reserved) == ("hbm", "big", 4, 0)
    assert main.bytes == 23 * MB
    assert {group.label: group.bytes for group in main.groups} == {
        "m.py:4": 16 * MB, "m.py:3": 5 * MB, "argument params": MB, "argument x": MB,
    }  # fmt: skip
    assert main.to_come == MB + 4
    assert (peak.needed, peak.fits) == (24 * MB + 4, False)


def test_what_being_rid_of_a_group_is_worth() -> None:
    peak = find_peak(parse_hlo(STEP), TPU, by=GroupBy.OP)
    assert relief(peak, "jit(f)/jvp(layer_0)/big").without == 7 * MB + 4  # w, x, up and down, while down is made
    assert relief(peak, "jit(f)/jvp(layer_0)/big").recompute.obstacle == "in use at the peak"
    up = relief(peak, "jit(f)/jvp(layer_0)/up")
    assert up.without == up.recompute.peak == up.host.peak == 19 * MB
    # It is read again by `down`, and made again for it of x, which is there anyway.
    assert (up.recompute.buffers, up.host.buffers) == (1, 1)
    (making,) = [each for each in build(parse_hlo(STEP), TPU).problem.operations if each.name == "up"]
    assert up.recompute.seconds == making.duration([0, 0])
    there, back = host_links(TPU) or ()
    assert up.host.seconds == pytest.approx(
        there.latency + back.latency + 4 * MB / there.bandwidth + 4 * MB / back.bandwidth
    )
    argument = relief(peak, "params['w']")
    assert argument.recompute.obstacle == "given by the caller"
    assert argument.host.peak == 22 * MB
    assert argument.host.seconds == pytest.approx(back.latency + MB / back.bandwidth)  # it begins on the host


def test_what_is_made_of_what_ends_keeps_that_alive() -> None:
    """`a` is made of `x2`, which nothing else needs after it: making `a` again holds `x2` in its place."""
    text = STEP.replace('custom-call(x), custom_call_target="up"', 'custom-call(x2), custom_call_target="up"').replace(
        "  up =", '  x2 = f32[524288] custom-call(x), custom_call_target="x2"\n  up ='
    )
    peak = find_peak(parse_hlo(text), TPU, by=GroupBy.OP)
    assert peak.main.bytes == 23 * MB
    assert relief(peak, "jit(f)/jvp(layer_0)/up").without == 19 * MB
    assert relief(peak, "jit(f)/jvp(layer_0)/up").recompute.peak == 21 * MB


CHAIN = STEP.replace(
    "  up = f32[1048576] custom-call(x)",
    '  low = f32[1572864] custom-call(x), custom_call_target="low"\n'
    '  half = f32[917504] custom-call(low), custom_call_target="half"\n'
    "  up = f32[1048576] custom-call(half)",
)


def after(text: str, place: str, *lines: str) -> str:
    """Puts instructions before another one."""
    return text.replace(f"  {place} =", "".join(f"  {line}\n" for line in lines) + f"  {place} =")


def test_what_a_chain_of_operations_makes_again_is_the_peak_of_the_program_that_does() -> None:
    """`up` is made of `half`, which is made of `low`, and both end before the peak."""
    peak = find_peak(parse_hlo(CHAIN), TPU, by=GroupBy.OP)
    up = relief(peak, "jit(f)/jvp(layer_0)/up")
    assert (up.bytes, up.without) == (4 * MB, 19 * MB)
    assert (up.recompute.operations, up.recompute.buffers) == (3, 1)
    again = after(
        CHAIN, "down",
        'low.2 = f32[1572864] custom-call(x), custom_call_target="low"',
        'half.2 = f32[917504] custom-call(low.2), custom_call_target="half"',
        'up.2 = f32[1048576] custom-call(half.2), custom_call_target="up"',
    ).replace("custom-call(up, sum)", "custom-call(up.2, sum)")  # fmt: skip
    rebuilt = find_peak(parse_hlo(again), TPU)
    assert rebuilt.main.bytes == up.recompute.peak == 19 * MB
    assert up.cheapest(peak.main.bytes) == ("recompute", up.recompute)


@pytest.mark.parametrize(("kept_share", "operations"), [(0.0, 3), (1.0, 1), (math.inf, 1)])
@pytest.mark.parametrize("low", [262144, 1441792, 2097152])
def test_the_peak_is_that_of_the_program_with_the_chain(kept_share: float, operations: int, low: int) -> None:
    """Where `low` is large, the peak is in the chain; what is kept is read where it is."""
    text = CHAIN.replace("4194304", "1310720").replace("1572864", str(low))
    program = flatten(parse_hlo(text))
    (up,) = (n for n, storage in enumerate(program.storages) if storage.name == "up")
    at_big = next(t for t, step in enumerate(program.steps) if step.instruction.name == "big")
    found = recomputed(Gaps(Occupancy(program), 0, at_big), [1.0] * len(program.steps), [up], kept_share)
    chain = [
        f'low.2 = f32[{low}] custom-call(x), custom_call_target="low"',
        'half.2 = f32[917504] custom-call(low.2), custom_call_target="half"',
        f'up.2 = f32[1048576] custom-call({"half.2" if operations == 3 else "half"}), custom_call_target="up"',
    ]
    again = after(text, "down", *chain[-operations:]).replace("custom-call(up, sum)", "custom-call(up.2, sum)")
    assert (found.buffers, found.operations, found.seconds) == (1, operations, operations)
    assert found.peak == find_peak(parse_hlo(again), TPU).main.bytes


def test_donation_lowers_the_peak_as_in_the_program_that_donates() -> None:
    """`w` is read early here, so that it holds nothing at the peak once it is donated."""
    text = STEP.replace("custom-call(w, down)", "custom-call(down)").replace(
        "custom-call(x), custom", "custom-call(x, w), custom"
    )
    peak = find_peak(parse_hlo(text), TPU, by=GroupBy.OP)
    given = relief(peak, "params['w']")
    donated = text.replace("is_scheduled=true", "is_scheduled=true, input_output_alias={ {0}: (0, {}, may-alias) }")
    assert given.donate.peak == find_peak(parse_hlo(donated), TPU).main.bytes == peak.main.bytes - MB
    assert given.cheapest(peak.main.bytes) == ("donate", given.donate)


def test_the_cheapest_way_is_not_one_that_hardly_lowers_the_peak() -> None:
    free, half, whole = Way(1, 99, 0.0), Way(1, 40, 1.0), Way(1, 0, 5.0)
    found = Relief("x", 100, 0, recompute=half, host=whole, donate=free).cheapest(100)
    assert found == ("recompute", half)
    hidden = replace(whole, passing=5.0)
    assert Relief("x", 100, 0, half, hidden, free).cheapest(100) == ("host", hidden)
    none = Way(0, 100, 0.0)
    hardly = Way(1, 99_950, 0.0)
    assert Relief("x", 100, 0, none, none, hardly).cheapest(100_000) is None
    assert Relief("x", 100, 0, none, none, none).cheapest(100) is None


def test_what_is_written_in_place_is_not_made_again() -> None:
    text = STEP.replace(
        "down = f32[262144] custom-call(up, sum)", "down = f32[1048576] dynamic-update-slice(up, part, at)"
    )
    text = text.replace("  sum =", "  at = s32[] constant(0)\n  part = f32[4] constant({1,2,3,4})\n  sum =")
    text = text.replace("custom-call(w, down), custom_call_target", "custom-call(w, down, sum), custom_call_target")
    peak = find_peak(parse_hlo(text), TPU, by=GroupBy.OP)
    group = next(group for group in peak.main.groups if group.bytes == 4 * MB)
    assert relief(peak, group.label).recompute.obstacle == "written more than once"


LOOP = """HloModule loop
body {
  s = (s32[], f32[1048576], f32[1048576]) parameter(0)
  i = s32[] get-tuple-element(s), index=0
  h = f32[1048576] get-tuple-element(s), index=1
  w = f32[1048576] get-tuple-element(s), index=2
  big = f32[4194304] custom-call(h), custom_call_target="big"
  new = f32[1048576] custom-call(big, w), custom_call_target="new"
  one = s32[] constant(1)
  next = s32[] add(i, one)
  ROOT r = (s32[], f32[1048576], f32[1048576]) tuple(next, new, w)
}
condition {
  s = (s32[], f32[1048576], f32[1048576]) parameter(0)
  i = s32[] get-tuple-element(s), index=0
  four = s32[] constant(4)
  ROOT less = pred[] compare(i, four), direction=LT
}
ENTRY main {
  x = f32[1048576] parameter(0)
  zero = s32[] constant(0)
  h0 = f32[1048576] exponential(x)
  w0 = f32[1048576] custom-call(x), custom_call_target="w0"
  kept = f32[1048576] custom-call(x), custom_call_target="kept"
  t = (s32[], f32[1048576], f32[1048576]) tuple(zero, h0, w0)
  w = (s32[], f32[1048576], f32[1048576]) while(t), condition=condition, body=body
  got = f32[1048576] get-tuple-element(w), index=1
  ROOT y = f32[1048576] custom-call(got, kept), custom_call_target="y"
}
"""


def test_within_a_loop_only_what_the_loop_does_not_use_can_be_away() -> None:
    peak = find_peak(parse_hlo(LOOP), TPU, by=GroupBy.OP)
    assert peak.main.operation in ("big", "new")
    obstacles = {each.label: each.recompute.obstacle for each in peak.reliefs}
    assert obstacles["kept"] == ""
    assert relief(peak, "kept").recompute.peak == peak.main.bytes - 4 * MB
    assert relief(peak, "w0").recompute.obstacle == "used in every iteration of the loop"


def test_an_argument_that_could_be_donated(peak: Peak) -> None:
    assert [(name, donation.size) for name, donation in peak.donations] == [("params['w']", MB)]
    assert peak.donated == peak.needed - MB
    assert any("1.00 MiB of params (1 array)" in remark for remark in remarks(peak))
    later = STEP.replace("custom-call(w, down)", "custom-call(down)").replace(
        "  ROOT out", '  late = f32[] custom-call(w, step), custom_call_target="late"\n  ROOT out'
    )
    # w is read after `step` is made; x, which has its shape as well, is not.
    assert [name for name, _ in find_peak(parse_hlo(later), TPU).donations] == ["x"]


@pytest.mark.parametrize("by", GroupBy)
def test_groups_add_up_whatever_they_have_in_common(by: GroupBy) -> None:
    found = find_peak(parse_hlo(STEP), TPU, by=by)
    for memory in found.memories:
        assert sum(group.bytes for group in memory.groups) + memory.reserved == memory.bytes
        for group in memory.groups:
            assert group.bytes == sum(buffer.bytes for buffer in group.buffers)


REPORT = f"""BufferAssignment:
allocation 0: size {MB}, parameter 0, shape |f32[262144]| at ShapeIndex {{}}:
 value: <0 w @0> (size={MB},offset=0): f32[262144]
allocation 1: size {MB}, parameter 1, shape |f32[262144]| at ShapeIndex {{}}:
 value: <1 x @0> (size={MB},offset=0): f32[262144]
allocation 2: size {MB}, maybe-live-out:
 value: <2 step @0> (size={MB},offset=0): f32[262144]
allocation 3: size 4, maybe-live-out:
 value: <3 sum @0> (size=4,offset=0): f32[]
allocation 4: size {22 * MB}, preallocated-temp:
 value: <4 up @0> (size={4 * MB},offset=0): f32[1048576]
 value: <5 mid @0> (size={MB},offset={4 * MB}): f32[262144]
 value: <6 big @0> (size={16 * MB},offset={6 * MB}): f32[4194304]
 value: <7 down @0> (size={MB},offset={4 * MB}): f32[262144]
"""


def test_what_a_compiler_states_is_our_peak_and_what_holds_nothing_then() -> None:
    peak = find_peak(parse_hlo(STEP), TPU, statement=statement_of(parse_buffer_assignment(REPORT)))
    statement = peak.statement
    assert statement is not None
    assert statement.parts == (
        StatedPart("arguments", 2 * MB, 0), StatedPart("results", MB + 4, MB + 4), StatedPart("temporaries", 22 * MB, MB),
    )  # fmt: skip
    assert statement.total == peak.needed == peak.main.bytes + (statement.idle or 0)
    assert statement.uncounted == 0
    assert any("2.00 MiB of that hold nothing" in remark for remark in remarks(peak))


@pytest.mark.parametrize("width", [40, 80, 140])
def test_tables_fit_the_terminal_and_hostile_names_are_escaped(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    graph = replace(
        parse_hlo(STEP.replace("m.py", "[red]m\\u001b[2J.py").replace("params", "p" * 5000)), name="a\x1b[2J"
    )
    print_peak(find_peak(graph, TPU, limit=16 * MB), PlainConsole(width=width, color_system=None))
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= width
    assert not any("\x1b" in line for line in lines)
    text = " ".join(" ".join(lines).split())
    assert "it does not fit, by 8.00 MiB" in text


def test_json_has_everything(peak: Peak) -> None:
    data = json.loads(json.dumps(peak_json(peak)))
    assert data["schema"] == "memplan.peak/1"
    assert (data["needed"], data["fits"], data["limit"]) == (24 * MB + 4, False, 16 * MB)
    main = data["memories"][0]
    assert sum(group["bytes"] for group in main["groups"]) == main["peak"] == 23 * MB
    assert main["groups"][0]["buffers"][0]["line"] == 4
    assert data["donations"] == [{"argument": "params['w']", "bytes": MB}]
