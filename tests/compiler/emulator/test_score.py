"""The score of compiled modules: their own estimates, copies in queues, loops, and what nobody estimated."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from memplan import workloads
from memplan.compiler.emulator.score import Score, score
from memplan.compiler.emulator.timing import TimingEmulator
from memplan.compiler.errors import TargetError
from memplan.compiler.frontends import parse_hlo
from memplan.compiler.frontends.reader import read
from memplan.compiler.hardware.target import load_target
from memplan.compiler.mapping.build import build_problem

V5E = load_target("tpu-v5e")
LINK = next(link for link in V5E.links if link.source == 0)
MIB = 2**20


def _estimate(cycles: int) -> str:
    return f'backend_config={{"window_config":{{"estimated_cycles":"{cycles}"}}}}'


def _scored(body: str, before: str = "") -> Score:
    return score(parse_hlo(f"HloModule m, is_scheduled=true\n{before}\nENTRY e {{\n{body}\n}}"), V5E)


def test_estimates_add_up() -> None:
    scored = _scored(f"""
  x = f32[1024,1024] parameter(0)
  y = f32[1024,1024] negate(x), {_estimate(30_000)}
  ROOT z = f32[1024,1024] exponential(y), {_estimate(45_000)}""")
    assert scored.cycles == pytest.approx(75_000)
    assert scored.busy == pytest.approx(scored.latency)
    assert scored.stalled == 0.0
    assert scored.unestimated == ()


def _with_prefetch(cycles: int, attribute: str = "") -> Score:
    """A prefetch of 16 MiB behind an instruction that leaves the link alone."""
    return _scored(f"""
  x = f32[4096,1024] parameter(0)
  s = f32[] parameter(1)
  copy-start = (f32[4096,1024]{{1,0:S(1)}}, f32[4096,1024], u32[]) copy-start(x){attribute}
  busy = f32[8,8]{{1,0:S(1)}} broadcast(s), dimensions={{}}, {_estimate(cycles)}
  copy-done = f32[4096,1024]{{1,0:S(1)}} copy-done(copy-start)
  y = f32[4096,1024]{{1,0:S(1)}} negate(copy-done), {_estimate(1000)}
  ROOT t = (f32[8,8]{{1,0:S(1)}}, f32[4096,1024]{{1,0:S(1)}}) tuple(busy, y)""")


COPY_SECONDS = LINK.latency + 16 * MIB / LINK.bandwidth


def test_a_copy_that_is_late_makes_its_user_wait() -> None:
    scored = _with_prefetch(15_000)
    waited = COPY_SECONDS - 15_000 / V5E.clock
    assert waited > 0
    assert scored.stalled == pytest.approx(waited)
    assert scored.latency == pytest.approx(16_000 / V5E.clock + waited)


def test_a_copy_that_has_time_costs_nothing() -> None:
    scored = _with_prefetch(150_000)
    assert scored.stalled == 0.0
    assert scored.cycles == pytest.approx(151_000)


def test_a_prefetch_of_the_run_before_costs_nothing() -> None:
    assert _with_prefetch(15_000, ", cross_program_prefetch_index=0").cycles == pytest.approx(16_000)


def test_accesses_to_slow_memory_take_the_link_from_copies() -> None:
    def late(operand: str) -> float:
        return _scored(f"""
  x = f32[4096,1024] parameter(0)
  w = f32[4096,1024] parameter(1)
  v = f32[4096,1024]{{1,0:S(1)}} parameter(2)
  copy-start = (f32[4096,1024]{{1,0:S(1)}}, f32[4096,1024], u32[]) copy-start(x)
  busy = f32[4096,1024]{{1,0:S(1)}} negate({operand}), {_estimate(39_000)}
  copy-done = f32[4096,1024]{{1,0:S(1)}} copy-done(copy-start)
  y = f32[4096,1024]{{1,0:S(1)}} add(copy-done, busy), {_estimate(1000)}
  ROOT t = f32[4096,1024]{{1,0:S(1)}} negate(y), {_estimate(1000)}""").stalled

    assert late("v") == pytest.approx(max(0.0, COPY_SECONDS - 39_000 / V5E.clock))
    assert late("w") > late("v") + 0.5 * 16 * MIB / LINK.bandwidth


def test_a_loop_counts_by_its_trip_count() -> None:
    scored = _scored(
        f"""
  zero = s32[] constant(0)
  x = f32[1024,1024] parameter(0)
  first = f32[1024,1024] negate(x), {_estimate(9000)}
  start = (s32[], f32[1024,1024]) tuple(zero, first)
  loop = (s32[], f32[1024,1024]) while(start), condition=condition, body=body
  ROOT y = f32[1024,1024] get-tuple-element(loop), index=1""",
        f"""
body {{
  p = (s32[], f32[1024,1024]) parameter(0)
  i = s32[] get-tuple-element(p), index=0
  one = s32[] constant(1)
  next = s32[] add(i, one), {_estimate(10)}
  v = f32[1024,1024] get-tuple-element(p), index=1
  w = f32[1024,1024] negate(v), {_estimate(40_000)}
  ROOT t = (s32[], f32[1024,1024]) tuple(next, w)
}}
condition {{
  p = (s32[], f32[1024,1024]) parameter(0)
  i = s32[] get-tuple-element(p), index=0
  n = s32[] constant(7)
  ROOT less = pred[] compare(i, n), direction=LT, {_estimate(5)}
}}""",
    )
    assert scored.cycles == pytest.approx(9000 + 7 * 40_015)


def test_what_nobody_estimated_is_costed_and_listed() -> None:
    scored = _scored(f"""
  x = f32[4096,1024] parameter(0)
  kernel = f32[4096,1024] custom-call(x), custom_call_target="tpu_custom_call"
  ROOT y = f32[4096,1024] negate(kernel), {_estimate(1000)}""")
    (kernel,) = scored.unestimated
    assert (kernel.name, kernel.opcode, kernel.repetitions) == ("kernel", "custom-call", 1.0)
    assert kernel.seconds >= 32 * MIB / V5E.spaces[0].bandwidth
    assert scored.latency == pytest.approx(kernel.seconds + 1000 / V5E.clock)


def test_an_asynchronous_call_is_work_where_it_is_awaited() -> None:
    """A gather on the SparseCore: the operands come with the update, and no link stands for what it does."""
    scored = _scored(f"""
  table = bf16[16384,1024] parameter(0)
  rows = s32[4096] parameter(1)
  begun = ((), (), s32[]) custom-call-start(), async_execution_thread="sparsecore", custom_call_target="gather"
  going = ((bf16[16384,1024], s32[4096]), bf16[4096,1024], s32[]) custom-call-update(begun, table, rows)
  done = bf16[4096,1024] custom-call-done(going)
  ROOT y = bf16[4096,1024] negate(done), {_estimate(1000)}""")
    assert scored.cycles > 1000
    assert any(item.opcode.startswith("custom-call") for item in scored.unestimated)


def test_a_target_without_a_clock_scores_nothing() -> None:
    graph = parse_hlo("ENTRY e { x = f32[8] parameter(0) ROOT y = f32[8] negate(x) }")
    with pytest.raises(TargetError, match="tpu-v5e states no clock"):
        score(graph, replace(V5E, clock=0.0))


@pytest.mark.parametrize("name", ["lstm.tpu-v5e.default", "decode_kv.tpu-v4.default", "mlp_mixer.tpu-7x.default"])
def test_agrees_with_the_emulated_mapping_of_a_dump(name: str) -> None:
    """Two ways to the same time: the module as it is, and its mapping taken out and emulated. They share the rules of
    copies; where a copy is not recognized as a move, or is a slice, they may differ a little.
    """
    graph = read(workloads.dumps_folder() / f"{name}.hlo.txt.gz")
    problem = build_problem(graph, load_target(name.split(".")[1]))
    assert problem.given is not None
    emulated = TimingEmulator(problem).latency(problem.given)
    assert math.isclose(score(graph, load_target(problem.target)).latency, emulated, rel_tol=0.01)


def test_all_in_slow_memory_is_slower_and_never_waits() -> None:
    slow, default = (
        score(read(workloads.dumps_folder() / f"mamba.tpu-v5e.{variant}.hlo.txt.gz"), V5E)
        for variant in ("slow", "default")
    )
    assert slow.stalled == 0.0
    assert slow.latency > default.latency > 0.0
    assert default.busy + default.stalled == pytest.approx(default.latency)
