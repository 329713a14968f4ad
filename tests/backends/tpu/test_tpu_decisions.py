"""What a compiled module has where a plan wanted it."""

from __future__ import annotations

from dataclasses import replace

from fake_compiler import program

from memplan.backends.tpu.decisions import Placement, decisions
from memplan.backends.tpu.steering import Site, sites
from memplan.compiler.analysis.program import AccessKind
from memplan.compiler.frontends import parse_hlo
from memplan.compiler.hardware.target import load_target
from memplan.compiler.mapping.build import build
from memplan.planners import planner as planners
from memplan.planners.planner import Budget

V5E = load_target("tpu-v5e")
MOVED = """HloModule m, is_scheduled=true
ENTRY e {
  w = f32[512,512] parameter(0)
  k = (f32[512,512]{1,0:S(1)}, f32[512,512], u32[]) copy-start(w)
  l = f32[512,512]{1,0:S(1)} copy-done(k)
  b = (f32[512,512]{1,0:S(1)}, f32[512,512]) custom-call(l, w), custom_call_target="kernel"
  b.0 = f32[512,512]{1,0:S(1)} get-tuple-element(b), index=0
  ROOT c = f32[512,512] negate(b.0)
}"""


def _site(instruction: str, operand: int, tuple_index: tuple[int, ...] = ()) -> Site:
    return Site(instruction, "", operand, tuple_index, AccessKind.WRITE if operand < 0 else AccessKind.READ)


def test_placement_of_operands_and_results() -> None:
    placement = Placement(parse_hlo(MOVED), V5E)
    found = {
        (name, operand, index): placement.of(_site(name, operand, index))
        for name, operand, index in (("b", 0, ()), ("b", 1, ()), ("b", -1, (0,)), ("b", -1, (1,)), ("c", 0, ()))
    }
    assert {key: (place.space, place.copied) for key, place in found.items() if place} == {
        ("b", 0, ()): (1, True),
        ("b", 1, ()): (0, False),
        ("b", -1, (0,)): (1, False),
        ("b", -1, (1,)): (0, False),
        ("c", 0, ()): (1, False),
    }


def test_what_is_not_there() -> None:
    placement = Placement(parse_hlo(MOVED), V5E)
    assert placement.of(_site("zzz", 0)) is None
    assert placement.of(_site("c", 3)) is None
    assert placement.of(_site("b", -1, (0, 0))) is None
    assert placement.of(_site("b", -1)) is None  # a tuple lies nowhere


def test_only_what_differs_from_the_default_is_a_decision() -> None:
    default, compiled = parse_hlo(program("a")), parse_hlo(program("ab"))
    built = build(default, V5E)
    problem = replace(built.problem, cross_program_prefetches=0)
    plan = planners.get("greedy").solve(problem, Budget(1.0))
    found = decisions(
        problem, plan, sites(built), Placement(default, V5E), Placement(compiled, V5E),
        {next(i for i, buffer in enumerate(problem.buffers) if buffer.name == "c"): "no room"},
    )  # fmt: skip
    assert {(d.instruction, d.operand, d.wanted, d.found, d.state, d.reason) for d in found} == {
        ("b", -1, "fast", "fast", "obeyed", ""),
        ("c", 1, "fast", "fast", "obeyed", ""),
        ("c", -1, "fast", "slow", "dropped", "no room"),
        ("d", 0, "fast", "slow", "dropped", "no room"),
    }
    assert all(decision.size == 4 * 2**20 for decision in found)
