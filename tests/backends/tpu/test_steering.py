"""From a plan to text protos: sites, rankings, orders, demands."""

from __future__ import annotations

import re

import pytest

from memplan import workloads
from memplan.backends.tpu.steering import (
    RANKINGS,
    demands,
    gain,
    nudged,
    ranked,
    sites,
    sort_order,
    split_value,
)
from memplan.compiler.analysis.program import AccessKind
from memplan.compiler.frontends import parse_hlo
from memplan.compiler.frontends.reader import read
from memplan.compiler.hardware.target import load_target
from memplan.compiler.mapping.build import BuiltProblem, build
from memplan.compiler.mapping.plan import Copy, Plan, Residency
from memplan.planners import planner as planners
from memplan.planners.planner import Budget

V5E = load_target("tpu-v5e")
MODULE = """HloModule m, is_scheduled=true
ENTRY e {
  w = f32[512,512] parameter(0)
  x.1 = f32[512,512] parameter(1)
  a = f32[512,512] negate(x.1)
  b = (f32[512,512], f32[256,512]) custom-call(a), custom_call_target="kernel"
  b.0 = f32[512,512] get-tuple-element(b), index=0
  b.1 = f32[256,512] get-tuple-element(b), index=1
  s = f32[512,512] slice(b.0), slice={[0:512],[0:512]}
  ROOT c = f32[512,512] custom-call(w, b.1, a, s), custom_call_target="kernel"
}"""


@pytest.fixture(scope="module")
def built() -> BuiltProblem:
    return build(parse_hlo(MODULE), V5E)


def _buffer(built: BuiltProblem, name: str) -> int:
    return next(i for i, buffer in enumerate(built.problem.buffers) if buffer.name == name)


def _plan(built: BuiltProblem, fast: dict[str, int]) -> Plan:
    """Buffers in fast memory at the given offsets for their whole life, w by a copy that starts before `b`."""
    problem = built.problem
    residencies, copies, served_by = [], [], {}
    for number, buffer in enumerate(problem.buffers):
        if buffer.name == "w" and "w" in fast:
            last = problem.end - 1
            residencies += [
                Residency(number, 0, 0, buffer.start, buffer.end),
                Residency(number, 1, fast["w"], 1, last + 1),
            ]
            copies.append(Copy(len(residencies) - 2, len(residencies) - 1, 1, last))
        else:
            space = int(buffer.name in fast)
            residencies.append(Residency(number, space, fast.get(buffer.name, 0), buffer.start, buffer.end))
        served_by[number] = len(residencies) - 1
    served = tuple(served_by[access.buffer] for _, access in problem.accesses)
    return Plan(problem.fingerprint, "m", "tpu-v5e", "test", tuple(residencies), tuple(copies), served)


def test_sites_follow_the_numbering_of_accesses(built: BuiltProblem) -> None:
    found = sites(built)
    assert len(found) == len(built.problem.accesses)
    of_c = {(site.operand, site.tuple_index) for site in found if site.instruction == "c"}
    assert of_c == {(0, ()), (1, ()), (2, ()), (3, ()), (-1, ())}
    results = {site.tuple_index for site in found if site.instruction == "b" and site.kind is AccessKind.WRITE}
    assert results == {(0,), (1,)}
    for site, (time, access) in zip(found, built.problem.accesses, strict=True):
        assert built.problem.operations[time].name == site.instruction
        assert access.kind is site.kind


@pytest.mark.parametrize("name", ["mamba.tpu-v5e.default", "lstm_train.tpu-v4.slow", "decode_kv.tpu-7x.default"])
def test_sites_of_dumps(name: str) -> None:
    graph = read(workloads.dumps_folder() / f"{name}.hlo.txt.gz")
    dump = build(graph, load_target(name.split(".")[1]))
    found = sites(dump)
    assert [site.kind for site in found] == [access.kind for _, access in dump.problem.accesses]


def test_rankings_put_what_they_name_first(built: BuiltProblem) -> None:
    plan = _plan(built, {"a": 4096, "b{1}": 0, "w": 2**21})
    problem = built.problem
    a, b, w = (_buffer(built, name) for name in ("a", "b{1}", "w"))
    assert set(RANKINGS) == {"size x time", "gain per size x time", "gain per size", "low offsets first", "gain"}
    for ranking in RANKINGS:
        assert set(ranked(problem, plan, ranking)) == {a, b, w}
    assert ranked(problem, plan, "size x time")[0] == a
    assert ranked(problem, plan, "low offsets first") == [b, a, w]
    assert ranked(problem, plan, "gain")[0] == max((a, b, w), key=lambda buffer: gain(problem, plan, buffer))


def test_gain_is_what_emulated_costs_say(built: BuiltProblem) -> None:
    plan = _plan(built, {"a": 0})
    a = _buffer(built, "a")
    expected = sum(
        access.cost[0] - access.cost[1]
        for time, access in built.problem.accesses
        if access.buffer == a
    )  # fmt: skip
    assert gain(built.problem, plan, a) == pytest.approx(expected)
    assert gain(built.problem, plan, _buffer(built, "w")) == 0.0


def test_the_order_counts_up_to_what_all_others_have(built: BuiltProblem) -> None:
    text = sort_order(built.problem, [_buffer(built, "b{1}"), _buffer(built, "x.1")])
    assert [int(value) for value in re.findall(r"assign_value: (-?\d+)", text)] == [-2, -1]
    assert 'instruction_name_regex: "^b$" tuple_index { index: 1 }' in text
    assert r'instruction_name_regex: "^x\\.1$"' in text


def test_losers_compete_after_all_others(built: BuiltProblem) -> None:
    text = sort_order(built.problem, [_buffer(built, "a")], [_buffer(built, "w"), _buffer(built, "s")])
    assert re.findall(r'"\^(\w+)\$" } override_options { assign_value: (-?\d+)', text) == [
        ("a", "-1"), ("w", "1"), ("s", "2"),
    ]  # fmt: skip


def test_a_nudge_is_what_changes(built: BuiltProblem) -> None:
    problem = built.problem
    a, b, w = (_buffer(built, name) for name in ("a", "b{1}", "w"))
    given, plan = _plan(built, {"a": 0, "w": 2**21}), _plan(built, {"a": 0, "b{1}": 2**22})
    assert nudged(problem, plan, given, 0.0) == ([b], [w])
    assert nudged(problem, plan, plan, 0.0) == ([], [])
    assert nudged(problem, plan, given, 1.0) == ([], [])
    assert all(a not in buffers for buffers in nudged(problem, given, plan, 0.0))


def test_demands_pin_results_and_prefetch_operands(built: BuiltProblem) -> None:
    plan = _plan(built, {"a": 0, "w": 2**21, "s": 2**22})
    names = [operation.name for operation in built.problem.operations]
    buffers = [_buffer(built, name) for name in ("a", "w", "s")]
    rules = demands(built.problem, plan, sites(built), buffers, names)
    # The result of a slice cannot be pinned: the compiler may turn it into a copy of its own.
    assert [(rule.buffer, rule.action) for rule in rules] == [(buffers[0], "pin"), (buffers[1], "prefetch")]
    assert rules[0].text == (
        'overrides { hlo_position_matcher { instruction_name_regex: "^a$" } pin_in_alternate_memory {} }'
    )
    assert rules[1].text == (
        'overrides { hlo_operand_filter { instruction_name_regex: "^c$" operand_number: 0 } '
        'prefetch { before_instruction { instruction_name_regex: "^b$" } } }'
    )


def test_names_of_values() -> None:
    assert split_value("fusion.3{1,0}") == ("fusion.3", (1, 0))
    assert split_value("a") == ("a", ())


@pytest.mark.slow
def test_every_buffer_of_a_real_plan_is_in_the_order() -> None:
    dump = build(read(workloads.dumps_folder() / "mamba.tpu-v5e.default.hlo.txt.gz"), V5E)
    plan = planners.get("greedy").solve(dump.problem, Budget(1.0))
    order = ranked(dump.problem, plan, "size x time")
    assert len(order) == len({r.buffer for r in plan.residencies if r.space == 1})
    assert sort_order(dump.problem, order).count("overrides {") == len(order)
