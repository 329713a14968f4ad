"""Seconds of collectives on the links between devices, by hand and in modules that the compiler made."""

from __future__ import annotations

from pathlib import Path

import pytest

import memplan
from memplan.compiler.emulator.score import score
from memplan.compiler.frontends import parse_hlo
from memplan.compiler.hardware.interconnect import (
    Interconnect,
    awaited_seconds,
    collective_seconds,
    group_size,
    transfers,
)
from memplan.compiler.hardware.target import load_target
from memplan.compiler.hardware.uncosted import uncosted
from memplan.compiler.ir import Graph, Instruction

DATA = Path(__file__).parent / "data"

# A byte takes a second on a link, and a link adds 1000.
LINKS = Interconnect(1.0, 1.0, 1000.0)


def module(call: str, partitions: int = 8) -> Graph:
    return parse_hlo(
        f"""HloModule m, is_scheduled=true, num_partitions={partitions}
        sum {{
          a = f32[] parameter(0)
          b = f32[] parameter(1)
          ROOT c = f32[] add(a, b)
        }}
        ENTRY e {{
          p = f32[12]{{0}} parameter(0)
          ROOT r = {call}
        }}"""
    )


def last(graph: Graph) -> Instruction:
    return graph.entry_computation.instructions[-1]


@pytest.mark.parametrize(
    ("groups", "size"),
    [
        ("{{0,1},{2,3}}", 2),
        ("{{0,1,2,3}}", 4),
        ("[2,2]<=[4]", 2),
        ("[1,4]<=[2,2]T(1,0)", 4),
        ("mesh['x'=2,'y'=4] {'y'}", 4),
        ("mesh['x'=2,'y'=4] {'x','y'}", 8),
        ("mesh['x'=8] {'x':(2)2}", 2),
        ("{}", 8),
    ],
)
def test_group_sizes(groups: str, size: int) -> None:
    graph = module(f"f32[24]{{0}} all-gather(p), replica_groups={groups}, dimensions={{0}}")
    assert group_size(graph, last(graph)) == size


PAIRS = "source_target_pairs={{0,1},{1,0}}"


@pytest.mark.parametrize(
    ("call", "carried", "links"),
    [
        ("f32[48]{0} all-gather(p), replica_groups={{0,1,2,3}}, dimensions={0}", 48 * 3, 3),
        ("f32[3]{0} reduce-scatter(p), replica_groups={{0,1,2,3}}, dimensions={0}, to_apply=sum", 36, 3),
        ("f32[12]{0} all-reduce(p), replica_groups={{0,1,2,3}}, to_apply=sum", 72, 6),
        ("f32[12]{0} all-reduce(p), replica_groups={{0,1},{2,3}}, to_apply=sum", 48, 2),
        ("f32[12]{0} all-to-all(p), replica_groups={{0,1,2,3}}, dimensions={0}", 48, 3),
        ("f32[12]{0} all-to-all(p), replica_groups={{0,1,2}}, dimensions={0}", 32, 2),
        (f"f32[12]{{0}} collective-permute(p), {PAIRS}", 48, 1),
        ("f32[12]{0} collective-broadcast(p), replica_groups={{0,1}}", 48, 1),
    ],
)
def test_seconds_by_hand(call: str, carried: int, links: int) -> None:
    graph = module(call)
    assert collective_seconds(graph, graph.entry_computation, last(graph), LINKS) == carried + 1000 * links
    assert awaited_seconds(graph, graph.entry_computation, last(graph), LINKS) == carried + 1000 * links


def test_all_devices_are_on_a_ring() -> None:
    call = "f32[12]{0} all-reduce(p), replica_groups={{0,1,2,3}}, to_apply=sum"
    line, ring = (module(call, partitions) for partitions in (8, 4))
    seconds = [collective_seconds(graph, graph.entry_computation, last(graph), LINKS) for graph in (line, ring)]
    assert seconds == [6072, 3036]


def test_a_group_of_one_says_nothing() -> None:
    graph = module("f32[12]{0} all-reduce(p), replica_groups={{0},{1},{2},{3},{4},{5},{6},{7}}, to_apply=sum")
    assert collective_seconds(graph, graph.entry_computation, last(graph), LINKS) == 0.0


def test_an_asynchronous_one_goes_on_beside_instructions() -> None:
    """Of 6 us on the links, only what instructions between start and done do not cover is waited for."""

    def latency(work: str, after: str) -> float:
        graph = parse_hlo(
            f"""HloModule m, is_scheduled=true, num_partitions=2
            ENTRY e {{
              p = f32[56250]{{0}} parameter(0)
              s = (f32[56250]{{0}}, f32[56250]{{0}}, u32[], u32[]) collective-permute-start(p), {PAIRS}
              {work}
              d = f32[56250]{{0}} collective-permute-done(s)
              {after}
              ROOT t = (f32[56250]{{0}}, f32[56250]{{0}}, f32[56250]{{0}}) tuple(d, a, b)
            }}"""
        )
        ((start, done, seconds),) = transfers(graph, graph.entry_computation, target.interconnect)
        assert (start.name, done.name, seconds) == ("s", "d", pytest.approx(6e-6, rel=1e-4))
        return score(graph, target).latency

    target = load_target("tpu-v5e")
    assert target.interconnect is not None

    def negations(cycles: int) -> str:
        config = f'backend_config={{"window_config":{{"estimated_cycles":"{cycles}"}}}}'
        return "\n".join(f"{name} = f32[56250]{{0}} negate(p), {config}" for name in "ab")

    assert latency(negations(1500), "") == pytest.approx(6e-6)
    assert latency(negations(4500), "") == pytest.approx(6e-6)
    assert latency(negations(6000), "") == pytest.approx(8e-6)
    assert latency("", negations(4500)) == pytest.approx(12e-6)


def dump(name: str) -> Graph:
    return memplan.read(DATA / f"{name}.tpu-v5e.hlo.txt.gz")


def test_a_mixture_of_experts_on_four_devices() -> None:
    graph = dump("moe")
    costed = {each.opcode: each.seconds for each in score(graph, load_target("tpu-v5e")).unestimated}
    assert costed.keys() == {"all-to-all", "all-gather", "reduce-scatter"}  # and a permutation that is asynchronous
    # 2 MiB of bfloat16 to the neighbour at 45 GB/s, and a microsecond
    assert costed["all-gather"] == pytest.approx(2**21 / 45e9 + 1e-6 + 1.22e-6)
    said = uncosted(graph, load_target("tpu-v5e"))
    assert {sentence.split()[0] for sentence in said} == {
        "all-to-all",
        "collective-permute",
        "all-gather",
        "reduce-scatter",
    }
    assert all("the links between devices in the target's file" in sentence for sentence in said)


def test_fusions_that_compute_while_data_goes_on() -> None:
    """The all-gather of each layer's weights is in three fusions, and counts once, beside what is between them."""
    graph, target = dump("fsdp"), load_target("tpu-v5e")
    assert target.interconnect is not None
    found = list(transfers(graph, graph.entry_computation, target.interconnect))
    fused = [(start, done, seconds) for start, done, seconds in found if start.opcode == "fusion"]
    assert [done.name.replace("done", "start") for _, done, _ in fused] == [start.name for start, _, _ in fused]
    assert len(fused) == 5
    # Each device sends its quarter of 16 MiB to three others, half of it each way around.
    assert all(seconds == pytest.approx((3 * 2**22 / 45e9 + 3e-6) / 2) for _, _, seconds in fused)
    scored = score(graph, target)
    unhidden = sum(seconds for _, _, seconds in found)
    assert 0.0 < scored.stalled < unhidden
    assert not {start.name for start, _, _ in fused} & {each.name for each in scored.unestimated}
    # Gradients are summed and scattered at once, which takes half as long as an all-reduce.
    (first, *_) = [each for each in scored.unestimated if each.opcode == "fusion"]
    assert first.seconds == pytest.approx((2240 * 4096 * 2 * 3 / 4 / 45e9 + 3e-6) / 2 + 1.22e-6, rel=1e-3)


def test_a_step_plans_as_one_partition() -> None:
    problem = memplan.problem(dump("tensor_parallel_step"), "tpu-v5e")
    assert problem.notes[0] == "the module is one of 4 partitions: sizes and times are those of one device"
    plan = memplan.plan(dump("tensor_parallel_step"), "tpu-v5e", planner="greedy", effort="fast")
    assert memplan.verify(problem, plan) == []


def test_a_target_without_links_says_that_they_are_unknown() -> None:
    (said,) = uncosted(dump("tensor_parallel_step"), load_target("h200"))
    assert said.startswith("all-reduce takes no time between devices, only in memory")
