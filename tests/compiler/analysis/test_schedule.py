"""The order of execution: what is laid out, where, and how often it runs."""

from __future__ import annotations

import pytest

from memplan.compiler.analysis import schedule as schedule_module
from memplan.compiler.analysis.program import RegionKind
from memplan.compiler.analysis.schedule import lay_out
from memplan.compiler.errors import GraphError
from memplan.compiler.frontends import parse_hlo
from memplan.compiler.ir import Computation, Graph, Instruction, Shape

NESTED = """
HloModule nested

add { x = f32[] parameter(0) y = f32[] parameter(1) ROOT s = f32[] add(x, y) }

twice { a = f32[8] parameter(0) ROOT b = f32[8] add(a, a) }

body {
  p = (s32[], f32[8]) parameter(0)
  i = s32[] get-tuple-element(p), index=0
  v = f32[8] get-tuple-element(p), index=1
  one = s32[] constant(1)
  n = s32[] add(i, one)
  w = f32[8] call(v), to_apply=twice
  ROOT r = (s32[], f32[8]) tuple(n, w)
}

condition {
  q = (s32[], f32[8]) parameter(0)
  j = s32[] get-tuple-element(q), index=0
  limit = s32[] constant(12)
  ROOT less = pred[] compare(j, limit), direction=LT
}

left { l = f32[8] parameter(0) ROOT ln = f32[8] negate(l) }
right { g = f32[8] parameter(0) ROOT gn = f32[8] abs(g) }

ENTRY main {
  x = f32[8] parameter(0)
  k = s32[] parameter(1)
  zero = s32[] constant(0)
  init = (s32[], f32[8]) tuple(zero, x)
  loop = (s32[], f32[8]) while(init), condition=condition, body=body
  y = f32[8] get-tuple-element(loop), index=1
  z = f32[8] conditional(k, y, y), branch_computations={left, right}
  f = f32[] constant(0)
  ROOT sum = f32[] reduce(z, f), dimensions={0}, to_apply=add
}
"""


def test_callees_stand_before_their_caller() -> None:
    schedule = lay_out(parse_hlo(NESTED))
    assert [step.instruction.name for step in schedule.steps] == [
        "x", "k", "zero", "init",
        "q", "j", "limit", "less",
        "p", "i", "v", "one", "n", "a", "b", "w", "r",
        "loop", "y",
        "l", "ln",
        "g", "gn",
        "z", "f", "sum",
    ]  # fmt: skip


def test_regions_nest_and_know_their_owner_and_how_often_they_run() -> None:
    schedule = lay_out(parse_hlo(NESTED))
    names = [step.instruction.name for step in schedule.steps]
    found = [
        (
            region.kind,
            names[region.start],
            names[region.end - 1],
            region.parent,
            region.trip_count,
            region.known,
            names[region.owner] if region.owner >= 0 else "",
        )
        for region in schedule.regions
    ]
    assert found == [
        (RegionKind.PROGRAM, "x", "sum", -1, 1.0, True, ""),
        (RegionKind.LOOP, "q", "r", 0, 12.0, True, "loop"),
        (RegionKind.CALL, "a", "b", 1, 1.0, True, "w"),
        (RegionKind.BRANCH, "l", "ln", 0, 0.5, False, "z"),
        (RegionKind.BRANCH, "g", "gn", 0, 0.5, False, "z"),
    ]
    assert [schedule.regions[step.region].kind for step in schedule.steps if step.instruction.name in ("b", "w")] == [
        RegionKind.CALL,
        RegionKind.LOOP,
    ]


def test_operands_are_found_by_time() -> None:
    schedule = lay_out(parse_hlo(NESTED))
    names = [step.instruction.name for step in schedule.steps]
    for time, step in enumerate(schedule.steps):
        instructions = schedule.graph.computations[step.computation].instructions
        expected = [instructions[operand].name for operand in step.instruction.operands]
        assert [names[t] for t in schedule.operand_times(time)] == expected


def test_a_computation_that_is_called_twice_is_laid_out_twice() -> None:
    schedule = lay_out(
        parse_hlo(
            "f { a = f32[8] parameter(0) ROOT b = f32[8] negate(a) }"
            "ENTRY e { x = f32[8] parameter(0) y = f32[8] call(x), to_apply=f ROOT z = f32[8] call(y), to_apply=f }"
        )
    )
    assert [step.instruction.name for step in schedule.steps] == ["x", "a", "b", "y", "a", "b", "z"]
    assert [len(frame.computation.instructions) for frame in schedule.frames] == [3, 2, 2]


def chain(depth: int) -> Graph:
    """Computation `k` calls computation `k - 1` twice."""
    shape = Shape("f32", (8,))
    x = Instruction("x", "parameter", shape, payload="0")
    computations = {"c0": Computation("c0", (x,), 0)}
    for k in range(1, depth + 1):
        calls = [Instruction(f"y{i}", "call", shape, (i,), called=(f"c{k - 1}",)) for i in (0, 1)]
        computations[f"c{k}"] = Computation(f"c{k}", (x, *calls), 2)
    return Graph("chain", computations, f"c{depth}")


def test_calls_that_multiply_without_end_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(lay_out(chain(5)).steps) == 2**5 + 3 * (2**5 - 1)
    with pytest.raises(GraphError, match=r"'c\d+' runs \d+ instructions once its calls are expanded"):
        lay_out(chain(64))
    monkeypatch.setattr(schedule_module, "MAX_STEPS", 10)
    with pytest.raises(GraphError, match="programs of up to 10"):
        lay_out(parse_hlo(NESTED))


def test_deep_nesting_needs_no_deep_stack() -> None:
    shape = Shape("f32", (8,))
    x = Instruction("x", "parameter", shape, payload="0")
    computations = {"c0": Computation("c0", (x,), 0)}
    for k in range(1, 3001):
        call = Instruction("y", "call", shape, (0,), called=(f"c{k - 1}",))
        computations[f"c{k}"] = Computation(f"c{k}", (x, call), 1)
    assert len(lay_out(Graph("deep", computations, "c3000")).steps) == 6001


def test_computations_that_call_each_other_are_refused() -> None:
    shape = Shape("f32", (8,))
    x = Instruction("x", "parameter", shape, payload="0")
    computations = {
        name: Computation(name, (x, Instruction("y", "call", shape, (0,), called=(other,))), 1)
        for name, other in (("a", "b"), ("b", "a"))
    }
    with pytest.raises(GraphError, match="'b' calls 'a', which calls it in turn"):
        lay_out(Graph("circle", computations, "a"))
