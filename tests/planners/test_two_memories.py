"""A network that does not fit into the fast memory of a microcontroller is planned over two memories."""

from pathlib import Path

import pytest

from memplan.compiler.effort import Effort
from memplan.compiler.emulator.timing import TimingEmulator
from memplan.compiler.errors import PlannerError
from memplan.compiler.frontends.reader import read
from memplan.compiler.hardware.target import load_target
from memplan.compiler.mapping.build import build_problem
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.mapping.verify import verify
from memplan.planners import planner as planners
from memplan.planners.planner import Budget

MODEL = Path(__file__).parents[2] / "workloads/tflite/mobilenet.tflite.gz"


def problem_on(target: str) -> MappingProblem:
    return build_problem(read(MODEL), load_target(target))


def test_it_does_not_fit_the_fast_memory_alone() -> None:
    with pytest.raises(PlannerError, match="do not fit sram, which has 262,144"):
        planners.get("greedy").solve(problem_on("mcu-256kb"), Budget(Effort.FAST))


def test_over_both_memories_it_is_faster_than_in_the_slow_one(little_work: None) -> None:
    problem = problem_on("mcu-256kb-sdram")
    names = [space.name for space in problem.spaces]
    assert names == ["sdram", "sram", "flash"]
    plans = {name: planners.get(name).solve(problem, Budget(Effort.FAST)) for name in ("slow", "greedy")}
    emulator = TimingEmulator(problem)
    latencies = {name: emulator.latency(plan) for name, plan in plans.items()}
    assert latencies["greedy"] < 0.97 * latencies["slow"]
    plan = plans["greedy"]
    assert verify(problem, plan) == []
    spaces = {
        name: {r.space for r in plan.residencies if problem.buffers[r.buffer].name == name} for name in ("conv_0", "w1")
    }
    assert spaces == {"conv_0": {1}, "w1": {2}}
    assert {residency.space for residency in plan.residencies} == {0, 1, 2}
    for residency in plan.residencies:
        is_constant = not any(
            problem.accesses[n][1].kind.value != "read" for n in problem.accesses_of[residency.buffer]
        )
        if problem.buffers[residency.buffer].name != "image":
            assert (residency.space == 2) == is_constant


def test_a_processor_that_waits_takes_the_sum() -> None:
    """In the order of the network, each operation: launch, arithmetic, and the bytes at the rate of where they are."""
    problem = problem_on("mcu-256kb-sdram")
    first = problem.operations[0]
    assert first.floor == first.overhead
    image, *_, result = first.accesses
    assert image.cost == pytest.approx((192 * 192 * 3 / 160e6, 192 * 192 * 3 / 800e6, 192 * 192 * 3 / 800e6))
    assert result.bytes == 96 * 96 * 16
    assert first.duration([0, 2, 2, 1]) == pytest.approx(
        first.overhead + sum(a.cost[s] for a, s in zip(first.accesses, [0, 2, 2, 1], strict=True))
    )
