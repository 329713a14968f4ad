"""Our peak memory of real modules against what XLA itself gives to them on the CPU.

Ours counts holes and takeovers as reuse, and the tables of tuples (see `peak_memory`). It is compared with

    used     the most bytes of XLA's assignment that hold live values at one time
    total    the bytes of all of XLA's allocations

    program               ours ÷ used   ours ÷ total   (jax 0.10.2; 0.12 differs by 0.0002 at most)
    mlp                        1.0000         1.0000
    mlp_step                   1.0000         1.0000
    convolutions               1.0000         1.0000
    attention                  0.9995         0.9995
    recurrent                  1.0000         0.9999
    recurrent_gradient         1.0000         1.0000
    until                      1.0000         0.9999
    switch                     1.0000         0.9998
    fft_convolution            1.0000         0.8889   at the peak the result's block is empty: no temporary fits into it
    indexing                   1.0000         1.0000
    updates                    1.0000         0.9999
    lstm                       1.0000         0.9888   at the peak the block of a carried state that is a result is empty
    nested_loops               1.0000         0.9995

XLA lets a result take over an operand only if no third value ever lies in their block; the comparison keeps to that rule.
Ours also takes over what a loop carried, which saves another 13 % of recurrent_gradient.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from memplan.compiler.analysis.buffer_assignment import (
    AssignedValue,
    BufferAssignment,
    occupied_peak,
    parse_buffer_assignment,
    parse_live_ranges,
    read_buffer_assignment,
)
from memplan.compiler.analysis.flatten import flatten
from memplan.compiler.analysis.liveness import peak_memory
from memplan.compiler.analysis.takeover import takeovers, takeovers_of_xla
from memplan.compiler.errors import ParseError
from memplan.compiler.frontends import read

from .buffer_assignment_programs import PROGRAMS

REPORT = """BufferAssignment:
allocation 0: size 64, page 0, output shape is |(f32[8], /*index=1*/f32[8])|, maybe-live-out:
 value: <3 while.6{1} (phi) @0> (size=32,offset=0): f32[8]{0}
allocation 1: size 32, color 1, parameter 2, shape |f32[8]| at ShapeIndex {1}, maybe-live-out:
 value: <4 p{} @1> (size=32,offset=0): f32[8]{0:S(1)}
allocation 2: size 4, constant:
 value: <5 c @0> (size=4,offset=0): f32[]
allocation 3: size 4, thread-local:
 value: <6 s @0> (size=4,offset=0): f32[]
allocation 4: size 96, preallocated-temp:
 value: <7 x @0> (size=32,offset=0): f32[8]{0}
 value: <8 y @0> (size=64,offset=32): (f32[8]{0}, f32[8]{0})
"""


def test_a_report_is_read() -> None:
    found = parse_buffer_assignment(REPORT)
    out, parameter, constant, local, temporary = found.allocations
    assert [a.size for a in found.allocations] == [64, 32, 4, 4, 96]
    assert (parameter.parameter, parameter.color, out.parameter, out.color) == (2, 1, -1, 0)
    assert [a.is_live_out for a in found.allocations] == [True, True, False, False, False]
    assert [a.is_constant for a in found.allocations] == [False, False, True, False, False]
    assert local.is_thread_local
    assert temporary.is_temporary
    assert not constant.is_temporary
    assert out.values == (AssignedValue("while.6{1}", 32, 0),)
    assert parameter.values == (AssignedValue("p", 32, 0),)
    assert temporary.values == (AssignedValue("x", 32, 0), AssignedValue("y", 64, 32))
    assert (found.total, found.temporary) == (196, 96)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ":1:1: expected BufferAssignment:"),
        ("HloModule m\n", ":1:1: expected BufferAssignment:"),
        ("BufferAssignment:\nallocation 0: size 8\n", ":2:1: expected an allocation or a value"),
        ("BufferAssignment:\n value: <7 x @0> (size=32,offset=0): f32[8]{0}\n", ":2:1: expected an allocation"),
    ],
)
def test_what_is_no_report_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ParseError, match=message):
        parse_buffer_assignment(text)
    with pytest.raises(ParseError, match=":1:1: expected HloLiveRange"):
        parse_live_ranges(text)


def test_bytes_in_use_are_counted_once_however_many_values_lie_on_them() -> None:
    assignment = parse_buffer_assignment(REPORT)
    always = 4  # the constant
    assert occupied_peak(assignment, {}) == always
    assert occupied_peak(assignment, {"x": (0, 3), "y": (4, 5)}) == always + 64
    assert occupied_peak(assignment, {"x": (0, 4), "y": (4, 5)}) == always + 96
    assert occupied_peak(assignment, {"x": (0, 9), "y": (4, 5), "p": (0, 9), "while.6{1}": (5, 6)}) == always + 160
    shared = BufferAssignment(
        parse_buffer_assignment(
            "BufferAssignment:\nallocation 0: size 64, preallocated-temp:\n"
            " value: <1 a @0> (size=64,offset=0): f32[16]{0}\n value: <2 b @0> (size=32,offset=16): f32[8]{0}\n"
        ).allocations
    )
    assert occupied_peak(shared, {"a": (0, 3), "b": (3, 9)}) == 64


@pytest.fixture(scope="module")
def dumps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dumps")
    script = Path(__file__).with_name("buffer_assignment_programs.py")
    done = subprocess.run([sys.executable, script, folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


# Programs whose total is further than 1 % from ours, with the least ratio: see the table above for the reasons.
FRAGMENTED = {"fft_convolution": 0.88, "lstm": 0.98}


@pytest.mark.parametrize("name", PROGRAMS)
def test_peak_memory_is_what_xla_uses(name: str, dumps: Path) -> None:
    (path,) = (dumps / name).glob("*.cpu_after_optimizations.txt")
    assignment = read_buffer_assignment(path.with_name(f"{path.stem}-buffer-assignment.txt"))
    used = occupied_peak(assignment, parse_live_ranges(path.with_name(f"{path.stem}-live-range.txt").read_text()))

    program = flatten(read(path), pointer_bytes=8)
    assert program.copies == ()
    possible = takeovers(program)
    ours = peak_memory(program, use_holes=True, takeovers=takeovers_of_xla(program))

    assert ours == pytest.approx(used, rel=0.001)
    assert ours / assignment.total <= 1.001
    assert ours / assignment.total >= FRAGMENTED.get(name, 0.99)
    # Without reuse the figure is an upper bound of what has to be in use, with all of it a lower one.
    assert peak_memory(program) >= ours >= peak_memory(program, use_holes=True, takeovers=possible)


def test_a_loop_carried_operand_is_taken_over_too(dumps: Path) -> None:
    (path,) = (dumps / "recurrent_gradient").glob("*.cpu_after_optimizations.txt")
    program = flatten(read(path), pointer_bytes=8)
    possible = takeovers(program)
    only_ours = set(possible) - set(takeovers_of_xla(program))
    assert 1048576 in [program.storages[takeover.result].size for takeover in only_ours]


@pytest.mark.parametrize("number", ["9" * 5000, "9" * 19, "\u0661", "1_0", "-1"])
def test_numbers_that_are_none_are_refused(number: str) -> None:
    value = " value: <0 x @0> (size={size},offset={offset}): f32[2]"
    for line in (
        f"allocation 0: size {number}, constant:",
        f"allocation {number}: size 8, constant:",
        "allocation 0: size 8, constant:\n" + value.format(size=number, offset=0),
        "allocation 0: size 8, constant:\n" + value.format(size=8, offset=number),
    ):
        with pytest.raises(ParseError, match="expected an allocation or a value"):
            parse_buffer_assignment(f"BufferAssignment:\n{line}\n")
