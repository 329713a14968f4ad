"""Costs that agree with the compiler's estimates, case by case, by property, and on real modules."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memplan.compiler.analysis.flatten import flatten
from memplan.compiler.frontends import parse_hlo, read
from memplan.compiler.hardware.calibration import (
    HIDDEN_BELOW,
    MOST_INEFFICIENT,
    InstructionCosts,
    instruction_cost,
    kind_of,
)
from memplan.compiler.hardware.estimates import estimated_cycles
from memplan.compiler.hardware.matrix_work import MatrixWork
from memplan.compiler.hardware.target import KINDS, Target, load_target
from memplan.compiler.hardware.work import Work

SLOW, FAST = 0, 1
DUMPS = Path(__file__).parents[3] / "workloads" / "dumps"


@pytest.fixture
def machine() -> Target:
    """A slow memory of 1000 bytes per second and a fast one of 10000; no time to launch; a million operations per second."""
    target = load_target("generic")
    slow, fast = (
        replace(space, bandwidth=rate, exposed_bandwidth=dict.fromkeys(KINDS, rate))
        for space, rate in zip(target.spaces, (1000.0, 10000.0), strict=True)
    )
    compute = replace(
        target.compute, vector_flops=1e6, transcendental_rate=1e6, matrix_flops={"f32": 1e6}, launch_seconds=0.0
    )
    return replace(target, spaces=(slow, fast), compute=compute, clock=1.0)


PRODUCT = Work(matrix=(MatrixWork("f32", "default", 2e6, 1000, 1000, 1),))  # 2 seconds
ARITHMETIC = Work(flops=2e6)  # 2 seconds


def duration(cost: tuple[float, float, tuple[tuple[float, ...], ...]], *spaces: int) -> float:
    floor, overhead, rows = cost
    return max(floor, overhead + sum(row[space] for row, space in zip(rows, spaces, strict=True)))


def test_kinds() -> None:
    assert kind_of("fusion", PRODUCT) == kind_of("copy", PRODUCT) == "matrix"
    assert kind_of("copy", Work()) == kind_of("broadcast", Work()) == "move"
    assert kind_of("fusion", Work()) == kind_of("slice", Work()) == "vector"


class TestWithoutEstimate:
    def test_roofline(self, machine: Target) -> None:
        cost = instruction_cost(machine, "fusion", ARITHMETIC, [(1000, SLOW), (5000, SLOW)], None)
        assert cost == (2.0, 0.0, ((1.0, 0.1), (5.0, 0.5)))
        assert duration(cost, SLOW, SLOW) == 6.0
        assert duration(cost, FAST, FAST) == 2.0

    def test_launch_is_added_to_both(self, machine: Target) -> None:
        machine = replace(machine, compute=replace(machine.compute, launch_seconds=0.5))
        cost = instruction_cost(machine, "fusion", ARITHMETIC, [(5000, SLOW)], None)
        assert (duration(cost, SLOW), duration(cost, FAST)) == (5.5, 2.5)

    def test_scalars_launch_nothing(self, machine: Target) -> None:
        machine = replace(machine, compute=replace(machine.compute, launch_seconds=0.5))
        assert duration(instruction_cost(machine, "add", Work(flops=1.0), [(512, FAST)], None), FAST) < 0.1


class TestMatrix:
    def test_bound_by_memory(self, machine: Target) -> None:
        """5 seconds of data, 2 of product, 6 estimated: a second of overhead."""
        cost = instruction_cost(machine, "fusion", PRODUCT, [(5000, SLOW)], 6.0)
        assert cost == (2.0, 1.0, ((5.0, 0.5),))

    def test_the_floor_is_the_product(self, machine: Target) -> None:
        cost = instruction_cost(machine, "fusion", PRODUCT, [(5000, SLOW)], 5.0)
        assert duration(cost, FAST) == 2.0

    def test_bound_by_compute(self, machine: Target) -> None:
        """The units alone need longer than is estimated: no placement changes it."""
        cost = instruction_cost(machine, "fusion", PRODUCT, [(500, SLOW)], 1.5)
        assert duration(cost, SLOW) == duration(cost, FAST) == 1.5

    def test_faster_than_thought(self, machine: Target) -> None:
        cost = instruction_cost(machine, "fusion", PRODUCT, [(8000, SLOW)], 4.0)
        assert cost == (2.0, 0.0, ((4.0, 0.4),))

    def test_exposed_bandwidth_is_what_counts(self, machine: Target) -> None:
        slow, fast = machine.spaces
        slow = replace(slow, exposed_bandwidth={**slow.exposed_bandwidth, "matrix": 500.0})
        cost = instruction_cost(replace(machine, spaces=(slow, fast)), "fusion", PRODUCT, [(5000, SLOW)], 12.0)
        assert cost == (2.0, 2.0, ((10.0, 0.5),))


class TestVector:
    def test_data_matters(self, machine: Target) -> None:
        cost = instruction_cost(machine, "fusion", ARITHMETIC, [(4000, SLOW)], 6.0)
        assert (duration(cost, SLOW), duration(cost, FAST)) == (6.0, pytest.approx(2.4))

    def test_data_is_hidden(self, machine: Target) -> None:
        """It needs less than the critical part of the estimate, be it in the fast memory now or not."""
        estimate = 2.0 / HIDDEN_BELOW
        for space in (SLOW, FAST):
            hidden = instruction_cost(machine, "fusion", Work(flops=1.0), [(1999, space)], estimate)
            assert duration(hidden, SLOW) == duration(hidden, FAST) == estimate
            shown = instruction_cost(machine, "fusion", Work(flops=1.0), [(2001, space)], estimate)
            assert duration(shown, SLOW) > duration(shown, FAST)


class TestMove:
    def test_the_estimate_is_all_data(self, machine: Target) -> None:
        """Twice the time of its data: in the fast memory it takes twice of that, too."""
        cost = instruction_cost(machine, "copy", Work(), [(1000, SLOW), (1000, SLOW)], 4.0)
        assert cost == (0.0, 0.0, ((2.0, 0.2), (2.0, 0.2)))

    def test_what_is_too_slow_for_data_is_overhead(self, machine: Target) -> None:
        floor, overhead, rows = instruction_cost(machine, "copy", Work(), [(1000, SLOW)], 10.0)
        assert (floor, rows[0][SLOW]) == (0.0, MOST_INEFFICIENT)
        assert overhead == 10.0 - MOST_INEFFICIENT

    def test_nothing_is_moved(self, machine: Target) -> None:
        assert instruction_cost(machine, "copy", Work(), [], 3.0) == (0.0, 3.0, ())


works = st.builds(
    Work,
    st.floats(0, 1e7),
    st.floats(0, 1e7),
    st.lists(
        st.builds(
            MatrixWork, st.just("f32"), st.just("default"), st.floats(0, 1e7), st.just(8), st.just(8), st.just(8)
        ),
        max_size=1,
    ).map(tuple),
)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["tpu-v5e", "tpu-v4", "tpu-v6e", "generic"]),
    st.sampled_from(["copy", "fusion", "add"]),
    works,
    st.lists(st.tuples(st.integers(0, 10**8), st.sampled_from([SLOW, FAST])), max_size=5),
    st.floats(1e-9, 1.0),
)
def test_the_sum_is_the_estimate_where_the_dump_has_the_data(
    name: str, opcode: str, work: Work, accesses: list[tuple[int, int]], estimate: float
) -> None:
    cost = instruction_cost(load_target(name), opcode, work, accesses, estimate)
    assert duration(cost, *(space for _, space in accesses)) == pytest.approx(estimate, rel=1e-9)
    for row in cost[2]:
        assert row[FAST] <= row[SLOW] * (1 + 1e-9)
        assert min(row) >= 0.0
    assert min(cost[0], cost[1]) >= 0.0
    # All in slow memory is never faster.
    assert duration(cost, *([SLOW] * len(accesses))) >= duration(cost, *([FAST] * len(accesses))) * (1 - 1e-9)


MODULE = """HloModule m
ENTRY %main {{
  %a = f32[4096,1024]{{1,0:T(8,128)}} parameter(0)
  %c = f32[4096,1024]{{1,0:T(8,128)S(1)}} negate(%a){config}
  ROOT %d = f32[4096,1024]{{1,0:T(8,128)}} negate(%c)
}}
"""


class TestReserved:
    def cost(self, config: str, target: str = "tpu-v5e") -> tuple[int, ...]:
        graph = parse_hlo(MODULE.format(config=config))
        computation = graph.entry_computation
        accesses = [(2**24, SLOW), (2**24, FAST)]
        return (
            InstructionCosts(graph, load_target(target)).of(computation, computation.instructions[1], accesses).reserved
        )

    def test_stated(self) -> None:
        scoped = '{"used_scoped_memory_configs":[{"memory_space":"1","offset":"0","size":"4096"}]}'
        assert self.cost(f", backend_config={scoped}") == (0, 4096)

    def test_stated_of_a_memory_that_is_not_modelled(self) -> None:
        scoped = '{"used_scoped_memory_configs":[{"memory_space":"1","offset":"0","size":"4096"}]}'
        assert self.cost(f", backend_config={scoped}", "tpu-v4") == (0, 0)

    def test_a_program_that_was_not_compiled_gets_the_usual_limit(self) -> None:
        assert self.cost("") == (0, 16 * 2**20)
        assert self.cost("", "generic") == (0, 0)


@pytest.mark.parametrize("name", ["lstm.tpu-v5e.default", "decode_kv.tpu-v4.default", "moe.tpu-v5e.slow"])
def test_real_modules(name: str) -> None:
    """In its own placement, every instruction with an estimate takes exactly that, and none takes no time by mistake."""
    path = DUMPS / f"{name}.hlo.txt.gz"
    graph, target = read(path), load_target(name.split(".")[1])
    program = flatten(graph)
    costs = InstructionCosts(graph, target)
    accesses: dict[int, list[tuple[int, int]]] = {}
    for access in program.accesses:
        space = target.space_of_xla(program.storages[access.storage].memory_space)
        if space >= 0:
            accesses.setdefault(access.time, []).append((access.bytes, space))
    checked = 0
    for t, step in enumerate(program.steps):
        cycles = estimated_cycles(step.instruction)
        if cycles is None:
            continue
        here = accesses.get(t, [])
        cost = costs.of(graph.computations[step.computation], step.instruction, here)
        assert cost.seconds([space for _, space in here]) == pytest.approx(cycles / target.clock, rel=1e-9)
        checked += 1
    assert checked > 10
