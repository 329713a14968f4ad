"""From HLO to the MappingProblem: what is an operation, what is a buffer, what the dump's own mapping is."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from thorough import dumps

from memplan import planners
from memplan.compiler.analysis.program import AccessKind, RegionKind
from memplan.compiler.emulator.timing import latency
from memplan.compiler.frontends import parse_hlo, read
from memplan.compiler.hardware.target import load_target
from memplan.compiler.mapping.build import BuiltProblem, build
from memplan.compiler.mapping.plan import Copy, Residency
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.mapping.verify import verify
from memplan.compiler.mapping.violation import Violation
from memplan.planners.planner import Budget, Effort
from memplan.workloads import dumps_folder

CYCLES = 'backend_config={"window_config":{"estimated_cycles":"1000"}}'


def built(text: str) -> BuiltProblem:
    return build(parse_hlo(text), load_target("tpu-v5e"))


def violations_beside_offsets(problem: MappingProblem) -> list[Violation]:
    """Returns what is wrong with the given mapping, but for its offsets, which a dump does not state."""
    assert problem.given is not None
    about_offsets = ("offset", "capacity", "reserved", "overlap", "cross-program")
    return [violation for violation in verify(problem, problem.given) if violation.rule not in about_offsets]


PREFETCH = """
HloModule prefetch, is_scheduled=true, entry_computation_layout={(f32[8,128]{1,0:T(8,128)})->f32[8,128]{1,0:T(8,128)}}

ENTRY %main (a: f32[8,128]) -> f32[8,128] {
  %a = f32[8,128]{1,0:T(8,128)} parameter(0)
  %copy-start = (f32[8,128]{1,0:T(8,128)S(1)}, f32[8,128]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%a)
  %b = f32[8,128]{1,0:T(8,128)S(1)} negate(%a), CYCLES
  %copy-done = f32[8,128]{1,0:T(8,128)S(1)} copy-done(%copy-start)
  %c = f32[8,128]{1,0:T(8,128)S(1)} add(%copy-done, %b), CYCLES
  %copy-start.1 = (f32[8,128]{1,0:T(8,128)}, f32[8,128]{1,0:T(8,128)S(1)}, u32[]{:S(2)}) copy-start(%c)
  %d = f32[8,128]{1,0:T(8,128)S(1)} multiply(%c, %b), CYCLES
  %copy-done.1 = f32[8,128]{1,0:T(8,128)} copy-done(%copy-start.1)
  ROOT %e = f32[8,128]{1,0:T(8,128)} subtract(%copy-done.1, %d), CYCLES
}
""".replace("CYCLES", CYCLES)


def test_moves_are_taken_out_of_time_and_kept_as_the_given_mapping() -> None:
    problem = built(PREFETCH).problem
    assert [operation.name for operation in problem.operations] == ["b", "c", "d", "e"]
    a, b, c, _d, e = problem.buffers
    assert (a.name, a.start, a.end, a.initial_space, a.persistent) == ("a", 0, 5, 0, True)
    assert (b.start, b.end) == (0, 3)
    assert (c.start, c.end, c.size) == (1, 4, 4096)
    assert (e.name, e.final_space, e.end) == ("e", 0, 5)

    given = problem.given
    assert given is not None
    assert set(given.residencies) == {
        Residency(0, 0, -1, 0, 5), Residency(0, 1, -1, 0, 2),
        Residency(1, 1, -1, 0, 3),
        Residency(2, 1, -1, 1, 3), Residency(2, 0, -1, 2, 4),
        Residency(3, 1, -1, 2, 4),
        Residency(4, 0, -1, 3, 5),
    }  # fmt: skip
    assert [(c.start, c.done) for c in given.copies] == [(0, 1), (2, 3)]
    spaces = [given.residencies[r].space for r in given.served]
    assert spaces == [0, 1, 1, 1, 1, 1, 1, 1, 0, 1, 0]


def test_the_given_mapping_takes_the_time_that_the_compiler_estimated() -> None:
    problem = built(PREFETCH).problem
    assert problem.given is not None
    for t, operation in enumerate(problem.operations):
        numbers = range(problem.access_start[t], problem.access_start[t + 1])
        spaces = [problem.given.residencies[problem.given.served[number]].space for number in numbers]
        assert operation.duration(spaces) * problem.clock == pytest.approx(1000)


SLICED = """
HloModule sliced, is_scheduled=true, entry_computation_layout={(f32[16,128]{1,0:T(8,128)})->f32[16,128]{1,0:T(8,128)}}

ENTRY %main (a: f32[16,128]) -> f32[16,128] {
  %a = f32[16,128]{1,0:T(8,128)} parameter(0)
  %slice-start = ((f32[16,128]{1,0:T(8,128)}), f32[8,128]{1,0:T(8,128)S(1)}, s32[]{:S(2)}) slice-start(%a), slice={[0:8], [0:128]}
  %b = f32[16,128]{1,0:T(8,128)} negate(%a), CYCLES
  %slice-start.1 = ((f32[16,128]{1,0:T(8,128)}), f32[8,128]{1,0:T(8,128)S(1)}, s32[]{:S(2)}) slice-start(%a), slice={[8:16], [0:128]}
  %c = f32[16,128]{1,0:T(8,128)} negate(%b), CYCLES
  %slice-done = f32[8,128]{1,0:T(8,128)S(1)} slice-done(%slice-start)
  %slice-done.1 = f32[8,128]{1,0:T(8,128)S(1)} slice-done(%slice-start.1)
  %whole = f32[16,128]{1,0:T(8,128)S(1)} custom-call(%slice-done, %slice-done.1), custom_call_target="ConcatBitcast"
  ROOT %d = f32[16,128]{1,0:T(8,128)} add(%whole, %c), CYCLES
}
""".replace("CYCLES", CYCLES)


def test_a_sliced_prefetch_is_one_copy() -> None:
    problem = built(SLICED).problem
    assert [operation.name for operation in problem.operations] == ["b", "c", "d"]
    given = problem.given
    assert given is not None
    assert given.copies == (Copy(given.copies[0].source, given.copies[0].destination, 0, 2),)
    destination = given.residencies[given.copies[0].destination]
    assert (destination.buffer, destination.space, destination.start, destination.end) == (0, 1, 0, 3)
    assert problem.buffers[0].size == 16 * 128 * 4


OVERWRITTEN = """
HloModule overwritten, is_scheduled=true, entry_computation_layout={(f32[8,128]{1,0:T(8,128)}, s32[])->f32[8,128]{1,0:T(8,128)}}

ENTRY %main (a: f32[8,128], i: s32[]) -> f32[8,128] {
  %a = f32[8,128]{1,0:T(8,128)} parameter(0)
  %i = s32[]{:T(128)S(6)} parameter(1)
  %u = f32[1,128]{1,0:T(1,128)} constant({...})
  %copy = f32[8,128]{1,0:T(8,128)S(1)} copy(%a), CYCLES
  %b = f32[8,128]{1,0:T(8,128)S(1)} dynamic-update-slice(%copy, %u, %i, %i), CYCLES
  ROOT %c = f32[8,128]{1,0:T(8,128)} add(%a, %b), CYCLES
}
""".replace("CYCLES", CYCLES)


def test_a_copy_whose_source_is_needed_after_it_is_overwritten_is_no_move() -> None:
    problem = built(OVERWRITTEN).problem
    assert [operation.name for operation in problem.operations] == ["copy", "b", "c"]
    a, copied = problem.buffers[0], next(b for b in problem.buffers if b.name == "copy")
    assert a.values == ("a",)
    assert set(copied.values) >= {"copy", "b"}
    update = next(x for x in problem.operations[1].accesses if problem.buffers[x.buffer] is copied)
    assert update.kind is AccessKind.UPDATE
    assert update.bytes == 512


LOOP = """
HloModule loop, is_scheduled=true, entry_computation_layout={(f32[8,128]{1,0:T(8,128)})->f32[8,128]{1,0:T(8,128)}}

%body (p: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %p = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  %x = f32[8,128]{1,0:T(8,128)} get-tuple-element(%p), index=1
  %one = s32[]{:T(128)} constant(1)
  %next = s32[]{:T(128)} add(%i, %one)
  %y = f32[8,128]{1,0:T(8,128)S(1)} negate(%x), CYCLES
  %z = f32[8,128]{1,0:T(8,128)} negate(%y), CYCLES
  ROOT %result = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) tuple(%next, %z)
}

%condition (p: (s32[], f32[8,128])) -> pred[] {
  %p.1 = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %i.1 = s32[]{:T(128)} get-tuple-element(%p.1), index=0
  %limit = s32[]{:T(128)} constant(7)
  ROOT %less = pred[]{:T(512)} compare(%i.1, %limit), direction=LT
}

ENTRY %main (a: f32[8,128]) -> f32[8,128] {
  %a = f32[8,128]{1,0:T(8,128)} parameter(0)
  %b = f32[8,128]{1,0:T(8,128)} negate(%a), CYCLES
  %zero = s32[]{:T(128)} constant(0)
  %i0 = s32[]{:T(128)} copy(%zero)
  %init = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) tuple(%i0, %b)
  %while = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) while(%init), condition=%condition, body=%body
  ROOT %r = f32[8,128]{1,0:T(8,128)} get-tuple-element(%while), index=1
}
""".replace("CYCLES", CYCLES)


def test_a_loop_is_a_region_with_points_around_it() -> None:
    result = built(LOOP)
    problem = result.problem
    names = [operation.name for operation in problem.operations]
    loop = problem.regions[1]
    assert (loop.kind, loop.trip_count, loop.parent) == (RegionKind.LOOP, 7.0, 0)
    assert names[loop.start - 1] == "while.enter"
    assert names[loop.end] == "while"
    assert names[loop.end - 1] == "while.end"
    assert {problem.operations[t].region for t in range(loop.start, loop.end)} == {1}
    assert problem.operations[loop.start - 1].region == problem.operations[loop.end].region == 0
    carried = next(buffer for buffer in problem.buffers if "b" in buffer.values)
    assert "z" in carried.values
    assert carried.start < loop.start
    assert carried.end == len(problem.operations) + 1
    inner = next(buffer for buffer in problem.buffers if buffer.name == "y")
    assert loop.start <= inner.start < inner.end <= loop.end


def test_problem_round_trips_through_json() -> None:
    for text in (PREFETCH, SLICED, LOOP):
        problem = built(text).problem
        again = type(problem).from_json(problem.to_json())
        assert again == problem
        assert again.given == problem.given
        assert again.fingerprint == problem.fingerprint


SUCCESSOR = """
HloModule successor, is_scheduled=true, input_output_alias={ {}: (0, {}, may-alias) }, entry_computation_layout={(f32[8,128]{1,0:T(8,128)})->f32[8,128]{1,0:T(8,128)}}

ENTRY %main (a: f32[8,128]) -> f32[8,128] {
  %a = f32[8,128]{1,0:T(8,128)} parameter(0)
  %copy-start = (f32[8,128]{1,0:T(8,128)S(1)}, f32[8,128]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%a)
  %copy-done = f32[8,128]{1,0:T(8,128)S(1)} copy-done(%copy-start)
  %new = f32[8,128]{1,0:T(8,128)S(1)} negate(%copy-done), CYCLES
  %late = f32[8,128]{1,0:T(8,128)S(1)} negate(%copy-done), CYCLES
  %copy-start.1 = (f32[8,128]{1,0:T(8,128)}, f32[8,128]{1,0:T(8,128)S(1)}, u32[]{:S(2)}) copy-start(%new)
  %use = f32[8,128]{1,0:T(8,128)S(1)} negate(%late), CYCLES
  ROOT %copy-done.1 = f32[8,128]{1,0:T(8,128)} copy-done(%copy-start.1)
}
""".replace("CYCLES", CYCLES)


def test_an_old_value_that_is_read_after_its_successor_was_written_is_a_buffer_of_its_own() -> None:
    problem = built(SUCCESSOR).problem
    assert problem.given is not None
    assert not violations_beside_offsets(problem)
    late = next(operation for operation in problem.operations if operation.name == "late")
    new = next(operation for operation in problem.operations if operation.name == "new")
    assert late.accesses[0].buffer == new.accesses[0].buffer
    assert new.accesses[0].buffer != new.accesses[1].buffer


DUMPS = sorted(dumps_folder().glob("*.gz"))
QUICK = {path.name.removesuffix(".hlo.txt.gz") for path in DUMPS if ".tpu-v5e." in path.name}


@pytest.mark.parametrize("path", dumps(DUMPS, QUICK))
def test_the_mapping_of_every_dump_is_valid_but_for_its_offsets(path: Path) -> None:
    target = path.name.split(".")[1]
    problem = build(read(path), load_target(target)).problem
    assert problem.given is not None
    assert problem.given.copies or ".slow." in path.name
    assert not violations_beside_offsets(problem)


PLAIN = """
HloModule plain, is_scheduled=true

ENTRY %main (a: f32[64]) -> f32[64] {
  %a = f32[64]{0} parameter(0)
  %b = f32[64]{0} negate(%a)
  %c = f32[64]{0} negate(%b)
  ROOT %d = f32[64]{0} add(%c, %b)
}
"""


def test_what_is_written_is_never_in_a_memory_that_can_only_be_read(little_work: None) -> None:
    target = load_target("mcu-256kb")
    problem = build(parse_hlo(PLAIN), target).problem
    flash, sram = target.space_named("flash"), target.space_named("sram")
    argument, *others = problem.buffers
    assert (argument.name, argument.initial_space, argument.spaces) == ("a", flash, (flash, sram))
    assert [buffer.spaces for buffer in others] == [(sram,)] * 3
    assert others[-1].final_space == sram
    for planner in (each for each in planners.names() if not planners.get(each).needs):
        plan = planners.get(planner).solve(problem, Budget(Effort.FAST))
        assert verify(problem, plan) == []
        for (_, access), residency in zip(problem.accesses, plan.served, strict=True):
            if access.kind is not AccessKind.READ:
                assert target.spaces[plan.residencies[residency].space].writable


TWICE = """
HloModule twice, is_scheduled=true, entry_computation_layout={(f32[8,128]{1,0:T(8,128)})->f32[8,128]{1,0:T(8,128)}}

%callee (p: f32[8,128]) -> f32[8,128] {
  %p = f32[8,128]{1,0:T(8,128)} parameter(0)
  %copy-start = (f32[8,128]{1,0:T(8,128)S(1)}, f32[8,128]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%p)
  %x = f32[8,128]{1,0:T(8,128)S(1)} negate(%p), CYCLES
  %copy-done = f32[8,128]{1,0:T(8,128)S(1)} copy-done(%copy-start)
  ROOT %y = f32[8,128]{1,0:T(8,128)} add(%copy-done, %x), CYCLES
}

ENTRY %main (a: f32[8,128]) -> f32[8,128] {
  %a = f32[8,128]{1,0:T(8,128)} parameter(0)
  %first = f32[8,128]{1,0:T(8,128)} call(%a), to_apply=%callee
  ROOT %second = f32[8,128]{1,0:T(8,128)} call(%first), to_apply=%callee
}
""".replace("CYCLES", CYCLES)


def test_each_call_of_a_computation_makes_its_own_moves() -> None:
    problem = built(TWICE).problem
    assert [operation.name for operation in problem.operations] == ["x", "y", "x", "y"]
    assert problem.given is not None
    assert [(copy.start, copy.done) for copy in problem.given.copies] == [(0, 1), (2, 3)]
    assert not violations_beside_offsets(problem)


def test_two_results_are_two_buffers() -> None:
    """The caller looks at a value in fast memory and at its copy in slow memory."""
    text = PREFETCH.replace("ROOT %e", "%e").replace("->f32[8,128]{1,0:T(8,128)}}", "->(f32[8,128]{1,0:T(8,128)S(1)})}")
    text = text.replace(
        "\n}\n", "\n  ROOT %r = (f32[8,128]{1,0:T(8,128)S(1)}, f32[8,128]{1,0:T(8,128)}) tuple(%c, %copy-done.1)\n}\n"
    )
    problem = built(text).problem
    assert sorted((b.name, b.final_space) for b in problem.buffers if b.final_space is not None) == [
        ("c", 1),
        ("copy-start.1{0}", 0),
    ]
    assert "copy-start.1" in [operation.name for operation in problem.operations]


OFFLOADED = Path(__file__).parents[2] / "data/hlo/host_offload.tpu-v5e.hlo.txt.gz"


def test_what_a_program_puts_into_host_memory_is_there() -> None:
    """The copies there and back are operations that take the time of the host's link."""
    target = load_target("tpu-v5e")
    problem = build(read(OFFLOADED), target).problem
    assert [space.name for space in problem.spaces] == ["hbm", "vmem", "host"]
    host = problem.spaces[2]
    (held,) = [buffer for buffer in problem.buffers if 2 in buffer.spaces]
    assert (held.spaces, held.size) == ((2,), 4096 * 4096 * 4)
    moves = [o for o in problem.operations if o.opcode == "copy-start" and any(a.cost[2] > 1e-3 for a in o.accesses)]
    assert len(moves) == 2
    assert problem.given is not None
    assert not violations_beside_offsets(problem)
    for name in ("slow", "greedy", "bestfit", "xla", "search"):
        plan = planners.get(name).plan(problem, Budget(Effort.FAST))
        there = {r.space for r in plan.residencies if problem.buffers[r.buffer].name == held.name}
        assert there == {2}
        assert latency(problem, plan) > 2 * held.size / host.bandwidth


def test_programs_without_host_memory_do_not_see_it() -> None:
    target = load_target("tpu-v5e")
    assert [space.name for space in target.optional_spaces] == ["host"]
    without = dataclasses.replace(target, optional_spaces=(), optional_links=())
    assert build(parse_hlo(PREFETCH), target).problem == build(parse_hlo(PREFETCH), without).problem


def test_an_argument_in_host_memory_is_copied_from_there() -> None:
    text = PREFETCH.replace("(8,128)}, u32", "(8,128)S(5)}, u32").replace(
        "%a = f32[8,128]{1,0:T(8,128)}", "%a = f32[8,128]{1,0:T(8,128)S(5)}"
    )
    problem = built(text.replace("negate(%a)", "iota(), iota_dimension=0")).problem
    assert [(b.name, b.initial_space, b.spaces) for b in problem.buffers if b.initial_space is not None] == [
        ("a", 2, (2,))
    ]
    assert "copy-start" in [operation.name for operation in problem.operations]
    assert verify(problem, planners.get("greedy").plan(problem, Budget())) == []
