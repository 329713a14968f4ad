"""Live ranges, against a flow analysis of the accesses that knows no values, and the bytes that they add up to."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from strategies import graphs

from memplan.compiler.analysis.flatten import flatten
from memplan.compiler.analysis.liveness import live_bytes, peak_memory
from memplan.compiler.analysis.program import AccessKind, FlatProgram, RegionKind
from memplan.compiler.analysis.schedule import lay_out
from memplan.compiler.analysis.takeover import takeovers

from .helpers import flat, lifetimes, storage


def test_a_value_lives_from_its_definition_to_its_last_use() -> None:
    program = flat(
        "ENTRY e { a = f32[8] parameter(0) b = f32[8] negate(a) c = f32[8] abs(b) d = f32[8] add(b, c)"
        " ROOT r = f32[8] reverse(d), dimensions={0} }"
    )
    # The argument and the result are the caller's: they are there until after the last step.
    assert lifetimes(program) == {"a": (0, 6), "b": (1, 4), "c": (2, 4), "d": (3, 5), "r": (4, 6)}


def test_what_nobody_reads_lives_for_its_step() -> None:
    program = flat("ENTRY e { a = f32[8] parameter(0) b = f32[8] negate(a) ROOT c = f32[8] abs(a) }")
    assert lifetimes(program)["b"] == (1, 2)


def test_constants_live_as_long_as_the_program() -> None:
    program = flat(
        "ENTRY e { a = f32[8] parameter(0) b = f32[8] negate(a) c = f32[8] constant({...}) ROOT d = f32[8] add(b, c) }"
    )
    assert lifetimes(program)["c"] == (0, 5)
    assert storage(program, "c").is_constant


LOOP = """
body {{
  p = (s32[], f32[8]) parameter(0)
  i = s32[] get-tuple-element(p), index=0
  x = f32[8] get-tuple-element(p), index=1
  {body}
  ROOT r = (s32[], f32[8]) tuple(j, y)
}}
check {{ q = (s32[], f32[8]) parameter(0) ROOT c = pred[] custom-call(q), custom_call_target="k" }}
ENTRY e {{
  a = f32[8] parameter(0)
  k = s32[] parameter(1)
  b = f32[8] negate(a)
  t = (s32[], f32[8]) tuple(k, b)
  w = (s32[], f32[8]) while(t), condition=check, body=body
  v = f32[8] get-tuple-element(w), index=1
  ROOT o = f32[8] add(v, b)
}}"""


def test_what_a_loop_changes_is_one_place_from_before_it_until_after_it() -> None:
    program = flat(LOOP.replace("add(v, b)", "negate(v)").format(body="j = s32[] add(i, i) y = f32[8] negate(x)"))
    start, end = next((r.start, r.end) for r in program.regions if r.kind is RegionKind.LOOP)
    carried = storage(program, "b")
    assert {"b", "x", "y", "v"} <= set(carried.values)
    assert carried.start < start < end < carried.end


def test_what_a_loop_only_reads_lives_until_the_loop_ends() -> None:
    # Element 1 is handed on unchanged and read early in the body: the next iteration reads it again.
    program = flat(
        LOOP.replace("add(v, b)", "negate(a)").format(
            body="n = f32[8] negate(x) j = s32[] add(i, i) y = f32[8] bitcast(x)"
        )
    )
    end = next(r.end for r in program.regions if r.kind is RegionKind.LOOP)
    assert storage(program, "b").end == end


BRANCHES = """
left {{ l = f32[8] parameter(0) ln = f32[8] negate(l) ROOT lr = f32[8] {left} }}
right {{ g = f32[8] parameter(0) gn = f32[8] abs(g) ROOT gr = f32[8] {right} }}
ENTRY e {{ i = s32[] parameter(0) a = f32[8] parameter(1) b = f32[8] negate(a)
  c = f32[8] conditional(i, b, b), branch_computations={{left, right}} ROOT o = f32[8] {last} }}
"""


def test_a_value_that_one_branch_needs_longer_than_the_other() -> None:
    program = flat(BRANCHES.format(left="reverse(ln), dimensions={0}", right="add(gn, g)", last="negate(c)"))
    (first, second) = (r for r in program.regions if r.kind is RegionKind.BRANCH)
    b = storage(program, "b")
    assert b.holes == ((first.start + 2, second.start),)  # after `negate(l)` until the other branch begins
    assert b.end >= second.start + 3


def test_a_value_that_is_read_after_the_branches_has_no_hole() -> None:
    program = flat(BRANCHES.format(left="reverse(ln), dimensions={0}", right="add(gn, g)", last="add(c, b)"))
    b = storage(program, "b")
    assert b.holes == ()
    assert b.end == len(program.steps)


def test_a_donated_argument_is_free_between_its_last_use_and_the_result() -> None:
    program = flat(
        "HloModule m, input_output_alias={ {}: (0, {}, may-alias) }\n"
        "ENTRY e { a = f32[8] parameter(0) b = f32[8] negate(a) c = f32[8] abs(b) d = f32[8] reverse(c), dimensions={0}"
        " ROOT r = f32[8] negate(d) }"
    )
    assert set(storage(program, "a").values) == {"a", "r"}
    assert storage(program, "a").holes == ((2, 4),)


def test_live_bytes_of_a_small_program() -> None:
    program = flat(
        "ENTRY e { a = f32[8] parameter(0) b = f32[100] broadcast(a), dimensions={} c = f32[100] negate(b)"
        " ROOT r = f32[8] slice(c), slice={[0:8]} }"
    )
    assert list(live_bytes(program)) == [32, 432, 832, 464, 64]
    assert peak_memory(program) == 832
    assert peak_memory(program, takeovers=takeovers(program)) == 464


def test_bytes_are_told_by_memory() -> None:
    program = flat(
        "HloModule m, is_scheduled=true\n"
        "ENTRY e { a = f32[8]{0} parameter(0) b = f32[16]{0:S(1)} concatenate(a, a), dimensions={0}"
        " ROOT r = f32[8]{0} slice(b), slice={[0:8]} }"
    )
    assert [peak_memory(program, space) for space in (0, 1, 2)] == [64, 64, 0]
    assert peak_memory(program) == 128


def successors(program: FlatProgram) -> list[set[int]]:
    """Returns for each step the steps that may run next; the last one is the moment after the program."""
    following = [{t + 1} for t in range(len(program.steps))]
    schedule = lay_out(program.graph)
    for frame in schedule.frames:
        for owner, callees in frame.callees.items():
            opcode = program.steps[owner].instruction.opcode
            ranges = [(schedule.frames[c].times[0], schedule.frames[c].times[-1]) for c in callees]
            ranges = [(first_step(schedule, c), last) for c, (_, last) in zip(callees, ranges, strict=True)]
            if opcode == "while":
                (check, decided), (body, done) = ranges
                following[decided] = {body, owner}
                following[done] = {check}
            elif opcode == "conditional":
                following[ranges[0][0] - 1] = {start for start, _ in ranges}
                for _, last in ranges:
                    following[last] = {owner}
    return following


def first_step(schedule, frame: int) -> int:  # type: ignore[no-untyped-def]
    """Returns the first step of a frame; of one that begins with a loop, the loop's first step."""
    while True:
        time = schedule.frames[frame].times[0]
        if time not in schedule.frames[frame].callees:
            return int(time)
        frame = schedule.frames[frame].callees[time][0]


def needed(program: FlatProgram) -> list[set[int]]:
    """Returns for each storage the times at which it is accessed, or holds what is still to be read."""
    end = len(program.steps)
    following = [*successors(program), set()]
    reads: list[set[int]] = [set() for _ in range(end + 1)]
    writes: list[set[int]] = [set() for _ in range(end + 1)]
    for access in program.accesses:
        (writes if access.kind is AccessKind.WRITE else reads)[access.time].add(access.storage)
    live: list[set[int]] = [set() for _ in range(end + 1)]
    changed = True
    while changed:
        changed = False
        for t in reversed(range(end + 1)):
            after = set().union(*(live[s] for s in following[t]))
            before = reads[t] | (after - writes[t])
            changed |= before != live[t]
            live[t] = before
    return [
        {t for t in range(end + 1) if s in live[t] or s in reads[t] or s in writes[t]}
        for s in range(len(program.storages))
    ]


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(graphs())
def test_live_ranges_are_what_a_flow_analysis_of_the_accesses_finds(graph) -> None:  # type: ignore[no-untyped-def]
    program = flatten(graph)
    opcodes = {step.instruction.name: step.instruction.opcode for step in program.steps}
    for content, times in zip(program.storages, needed(program), strict=True):
        live = set(range(content.start, content.end)) - {t for a, b in content.holes for t in range(a, b)}
        assert times <= live, content
        # Places of loops, branches and the caller are kept for a moment longer than the accesses show.
        is_place = content.result_indices or content.parameters or content.is_constant
        is_place = is_place or any(
            opcodes[value.split("{")[0]] in ("while", "conditional", "parameter") for value in content.values
        )
        if not is_place:
            assert times == live, content


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(graphs())
def test_live_bytes_add_up_the_live_storages(graph) -> None:  # type: ignore[no-untyped-def]
    program = flatten(graph, pointer_bytes=8)
    found = live_bytes(program, use_holes=True)
    for t in range(len(program.steps) + 1):
        expected = sum(
            content.size
            for content in program.storages
            if content.start <= t < content.end and not any(a <= t < b for a, b in content.holes)
        )
        assert found[t] == expected


@pytest.mark.parametrize("use_holes", [False, True])
def test_holes_are_only_used_if_asked(use_holes: bool) -> None:
    program = flat(
        "HloModule m, input_output_alias={ {}: (0, {}, may-alias) }\n"
        "ENTRY e { a = f32[8] parameter(0) b = f32[2] slice(a), slice={[0:2]} c = f32[2] negate(b)"
        " ROOT r = f32[8] pad(c, c), padding=0_6 }"
    )
    assert list(live_bytes(program, use_holes=use_holes)) == [32, 40, 16 if use_holes else 48, 40, 32]
