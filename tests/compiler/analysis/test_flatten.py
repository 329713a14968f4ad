"""Whole programs: storages, accesses, and whether running a program on its storages computes what the Graph says."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from strategies import graphs
from thorough import some

from memplan.compiler.analysis import aliasing, dataflow
from memplan.compiler.analysis.flatten import flatten
from memplan.compiler.analysis.liveness import live_bytes
from memplan.compiler.analysis.program import AccessKind, FlatProgram, Storage, StorageAccess
from memplan.compiler.analysis.takeover import aliasing_operands, takeovers
from memplan.compiler.hardware.target import load_target
from memplan.compiler.ir import Graph

from .helpers import DUMPS, accesses, copies, flat, read_dump, storage
from .machine import Machine

# -- Storages ------------------------------------------------------------------------------------------------------------


def test_a_storage_knows_its_values_arguments_results_and_size() -> None:
    program = flat(
        "HloModule m, input_output_alias={ {1}: (0, {1}, may-alias) }\n"
        "ENTRY e { p = (f32[8], f32[4]) parameter(0) a = f32[8] get-tuple-element(p), index=0"
        " b = f32[4] get-tuple-element(p), index=1 c = f32[4] negate(b) d = f32[2,2] bitcast(c)"
        " ROOT r = (f32[2,2], f32[2,2]) tuple(e, d) e = f32[2,2] abs(d) }"
    )
    donated = storage(program, "c")
    assert donated.values == ("p{1}", "b", "c", "d")
    assert donated.parameters == ((0, (1,)),)
    assert donated.result_indices == ((1,),)
    assert (donated.size, donated.memory_space) == (16, 0)
    assert storage(program, "a").parameters == ((0, (0,)),)
    assert storage(program, "e").result_indices == ((0,),)


def test_the_largest_view_decides_the_size() -> None:
    program = flat(
        "ENTRY e { a = f32[8]{0:T(128)} parameter(0) b = f32[8]{0:T(128)} negate(a)"
        " c = f32[2,4]{1,0:T(8,128)} bitcast(b) ROOT d = f32[2,4]{1,0:T(8,128)} negate(c) }"
    )
    assert storage(program, "b").size == 8 * 128 * 4


def test_tables_of_pointers_have_a_size() -> None:
    text = "ENTRY e { a = f32[8] parameter(0) b = f32[8] negate(a) ROOT t = (f32[8], f32[8]) tuple(a, b) }"
    assert storage(flat(text, pointer_bytes=8), "t").size == 16
    assert all("t" not in s.values for s in flat(text).storages)


def test_storages_are_in_order_of_their_start() -> None:
    program = flat(
        "ENTRY e { a = f32[8] parameter(0) b = f32[8] negate(a) k = f32[8] constant({...}) ROOT c = f32[8] add(b, k) }"
    )
    assert [s.name for s in program.storages] == ["a", "k", "b", "c"]


# -- Accesses ------------------------------------------------------------------------------------------------------------

HEAD = "ENTRY e { a = f32[8,4] parameter(0) i = s32[] parameter(1) z = s32[] constant(0) x = f32[8,4] negate(a) "


def test_each_operand_is_read_and_each_result_written() -> None:
    program = flat(HEAD + "ROOT y = f32[8,4] add(x, x) }")
    assert accesses(program, "y") == [("read", "x", 128), ("read", "x", 128), ("write", "y", 128)]
    end = len(program.steps)
    assert [(a.kind, program.storages[a.storage].name) for a in program.accesses if a.time == end] == [
        (AccessKind.READ, "y")
    ]


def test_a_slice_touches_what_it_takes() -> None:
    program = flat(HEAD + "ROOT y = f32[1,4] dynamic-slice(x, i, z), dynamic_slice_sizes={1,4} }")
    assert accesses(program, "y") == [("read", "x", 16), ("read", "i", 4), ("read", "z", 4), ("write", "y", 16)]


UPDATE = "u = f32[1,4] slice(a), slice={[0:1], [0:4]} d = f32[8,4] dynamic-update-slice(x, u, i, z) "


def test_an_update_in_place_touches_what_it_changes() -> None:
    program = flat(HEAD + UPDATE + "ROOT y = f32[8,4] negate(d) }")
    assert accesses(program, "d") == [("read", "u", 16), ("read", "i", 4), ("read", "z", 4), ("update", "x", 16)]


def test_an_update_that_cannot_be_in_place_writes_a_new_array() -> None:
    program = flat(HEAD + UPDATE + "ROOT y = f32[8,4] add(d, x) }")
    assert accesses(program, "d") == [
        ("read", "x", 128), ("read", "u", 16), ("read", "i", 4), ("read", "z", 4), ("write", "d", 128),
    ]  # fmt: skip


def test_what_only_rearranges_names_touches_nothing() -> None:
    program = flat(
        HEAD + "t = (f32[8,4], s32[]) tuple(x, i) g = f32[8,4] get-tuple-element(t), index=0"
        " b = f32[32] bitcast(g) ROOT r = f32[32] negate(b) }"
    )
    for name in ("a", "z", "t", "g", "b"):
        assert accesses(program, name) == []


def test_an_asynchronous_copy_reads_and_writes_when_it_starts_and_waits_when_it_is_done() -> None:
    program = flat(
        """HloModule m, is_scheduled=true
        ENTRY e {
          a = f32[8]{0} parameter(0)
          s = (f32[8]{0:S(1)}, f32[8]{0}, u32[]{:S(2)}) copy-start(a)
          b = f32[8]{0} negate(a)
          d = f32[8]{0:S(1)} copy-done(s)
          ROOT n = f32[8]{0} add(d, b)
        }"""
    )
    assert accesses(program, "s") == [("read", "a", 32), ("write", "s{0}", 32), ("write", "s{2}", 4)]
    assert accesses(program, "d") == [("read", "s{0}", 0), ("read", "a", 0), ("read", "s{2}", 0)]
    semaphore = storage(program, "s{2}")
    assert (semaphore.memory_space, semaphore.start, semaphore.end) == (2, 1, 4)


def test_a_buffer_that_is_only_allocated_is_not_written() -> None:
    program = flat(
        "HloModule m, is_scheduled=true\n"
        'ENTRY e { u = f32[1] parameter(0) i = s32[] parameter(1) x = f32[8] custom-call(), custom_call_target="AllocateBuffer"'
        " ROOT d = f32[8] dynamic-update-slice(x, u, i) }"
    )
    assert accesses(program, "x") == []
    assert storage(program, "x").start == 2


def test_an_implicit_copy_is_a_read_and_a_write_of_its_step() -> None:
    program = flat("ENTRY e { a = f32[8] parameter(0) b = f32[8] negate(a) ROOT t = (f32[8], f32[8]) tuple(b, a) }")
    (copy,) = program.copies
    assert (copy.time, copy.bytes, copy.reason) == (2, 32, "t{1}")
    assert [program.storages[s].name for s in (copy.source, copy.destination)] == ["a", "t{1}"]
    assert accesses(program, "t") == [("read", "a", 32), ("write", "t{1}", 32)]


def test_a_step_whose_result_is_needed_in_two_places_is_followed_by_a_copy() -> None:
    """The copy reads the result, as the instruction does that a compiler inserts."""
    program = flat(
        """
        body { p = (f32[8]) parameter(0) x = f32[8] get-tuple-element(p), index=0
          n = f32[8] negate(x) ROOT r = (f32[8]) tuple(n) }
        check { q = (f32[8]) parameter(0) ROOT c = pred[] custom-call(q), custom_call_target="k" }
        ENTRY e { a = f32[8] parameter(0) i = (f32[8]) custom-call(a), custom_call_target="k"
          w = (f32[8]) while(i), condition=check, body=body
          y = f32[8] get-tuple-element(w), index=0 z = f32[8] get-tuple-element(i), index=0 ROOT s = f32[8] add(y, z) }
        """
    )
    assert [(copy.reason, program.storages[copy.source].name) for copy in program.copies] == [("w{0}", "i{0}")]
    assert accesses(program, "i") == [
        ("read", "a", 32), ("read", "i{0}", 32), ("write", "i{0}", 32), ("write", "q{0}", 32),
    ]  # fmt: skip


def test_a_value_that_is_handed_over_at_once_is_computed_where_it_is_needed() -> None:
    program = flat(
        """
        inner { p = (f32[8]) parameter(0) x = f32[8] get-tuple-element(p), index=0
          n = f32[8] negate(x) ROOT r = (f32[8]) tuple(n) }
        check { q = (f32[8]) parameter(0) ROOT c = pred[] custom-call(q), custom_call_target="k" }
        outer { p = (f32[8]) parameter(0) y = f32[8] get-tuple-element(p), index=0
          i = (f32[8]) custom-call(y), custom_call_target="k" ROOT w = (f32[8]) while(i), condition=check, body=inner }
        check.1 { q = (f32[8]) parameter(0) ROOT c = pred[] custom-call(q), custom_call_target="k" }
        ENTRY e { a = f32[8] parameter(0) m = f32[8] negate(a) t = (f32[8]) tuple(m)
          ROOT v = (f32[8]) while(t), condition=check.1, body=outer }
        """
    )
    # The custom call reads its operand while it writes its result, so the outer and the inner loop need two places.
    assert copies(program) == [("w", "i{0}", "v{0}")]


def test_accesses_are_in_order() -> None:
    program = flat(HEAD + UPDATE + "ROOT y = f32[8,4] negate(d) }")
    order = {AccessKind.READ: 0, AccessKind.UPDATE: 1, AccessKind.WRITE: 2}
    keys = [(access.time, order[access.kind]) for access in program.accesses]
    assert keys == sorted(keys)


# -- Any program ---------------------------------------------------------------------------------------------------------


def run(graph: Graph, seed: int) -> None:
    choices = random.Random(seed)
    Machine(flatten(graph), lambda: choices.randint(0, 3), choices.randrange).run()


few_examples = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@settings(few_examples, max_examples=100)
@given(graphs(), st.integers(0, 2**32))
@pytest.mark.slow
def test_a_program_computes_the_same_on_its_storages(graph: Graph, seed: int) -> None:
    run(graph, seed)


MISTAKES = {
    "values share memory while both are needed": (aliasing, "_overlaps", lambda intervals, interval: False),
    "values are handed over without a copy": (aliasing, "_hand_over", lambda sets, handovers: None),
    "operands are overwritten while they are read": (dataflow._Builder, "may_overwrite", lambda *arguments: True),
}


@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_machine_notices_mistakes(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without this, nobody knows that the property above can fail."""
    monkeypatch.setattr(*MISTAKES[mistake])

    @settings(few_examples, max_examples=200, database=None, derandomize=True, phases=[Phase.generate])
    @given(graphs(), st.integers(0, 2**32))
    def attempt(graph: Graph, seed: int) -> None:
        run(graph, seed)

    with pytest.raises(AssertionError):
        attempt()


# -- What compilers wrote ------------------------------------------------------------------------------------------------


def late(program: FlatProgram) -> FlatProgram:
    """Returns the program with arrays that arrive in slices counted from their last slice on.

    A storage is one block from the first slice on; the compiler lets earlier arrays live where later slices will be.
    """
    time = {step.instruction.name: t for t, step in enumerate(program.steps)}

    def start(content: Storage) -> int:
        slices = [time[value.split("{")[0]] for value in content.values if value.startswith("slice-start")]
        return max([content.start, *slices]) if len(slices) > 1 else content.start

    return replace(program, storages=tuple(replace(content, start=start(content)) for content in program.storages))


@pytest.mark.parametrize("path", some(DUMPS, 5), ids=lambda path: path.name.removesuffix(".hlo.txt.gz"))
def test_modules_of_the_tpu_compiler(path: Path) -> None:
    """The compiler left witnesses of its own analysis in each module."""
    program = flatten(read_dump(path))

    # It inserted all copies that are needed.
    assert program.copies == ()

    # It lists, per instruction, which operands and results may lie at one place. All in-place updates must be there. What
    # it lists is one storage, or a takeover, or the result lies in a hole, or else somebody reads the operand afterwards.
    history: list[list[StorageAccess]] = [[] for _ in program.storages]
    by_time: dict[int, list[tuple[int, AccessKind, int, tuple[int, ...]]]] = {}
    for access in program.accesses:
        by_time.setdefault(access.time, []).append((access.operand, access.kind, access.storage, access.tuple_index))
        history[access.storage].append(access)
    taken = {(takeover.time, takeover.operand, takeover.result) for takeover in takeovers(program)}
    for t, step in enumerate(program.steps):
        instruction = step.instruction
        lists = aliasing_operands(instruction.attribute("backend_config"))
        count = len(instruction.operands)
        read = {operand: where for operand, _, where, _ in by_time.get(t, []) if operand >= 0}
        written = {path: where for operand, _, where, path in by_time.get(t, []) if operand < 0}
        leaves = [path for path, _ in instruction.shape.leaves()]
        for operand, kind, _, _ in by_time.get(t, []):
            if kind is AccessKind.UPDATE:
                assert any(operand in one and max(one) >= count for one in lists), instruction.name
        for one in lists:
            operands = {read[i] for i in one if i in read}
            assert len(operands) <= 1, instruction.name
            for result in (leaves[i - count] for i in one if i >= count):
                if operands and result in written:
                    (operand,) = operands
                    if operand != written[result] and (t, operand, written[result]) not in taken:
                        later = [access for access in history[operand] if access.time > t]
                        is_hole = any(start == t + 1 for start, _ in program.storages[operand].holes)
                        assert is_hole or later[0].kind is AccessKind.READ, instruction.name

    # What it put into the fast memory fits there.
    target = load_target(path.name.split(".")[1])
    for number in {content.memory_space for content in program.storages}:
        if target.space_of_xla(number) == 1:
            used = live_bytes(late(program), number, use_holes=True, takeovers=takeovers(program)).max()
            assert used <= target.spaces[1].capacity
