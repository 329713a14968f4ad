"""Costs that agree with the compiler's estimates, case by case, by property, and on real modules."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import examples

from memplan.compiler.analysis.flatten import flatten
from memplan.compiler.analysis.program import AccessKind
from memplan.compiler.frontends import parse_hlo, read
from memplan.compiler.hardware.calibration import (
    MOST_INEFFICIENT,
    SCALED,
    InstructionCosts,
    Touched,
    instruction_cost,
    kind_of,
)
from memplan.compiler.hardware.estimates import estimated_cycles
from memplan.compiler.hardware.target import KINDS, Exposure, Target, load_target
from memplan.compiler.hardware.work import WorkCounter

SLOW, FAST = 0, 1
DUMPS = Path(__file__).parents[3] / "workloads" / "dumps"


@pytest.fixture
def machine() -> Target:
    """A slow memory of 1000 bytes per second and a fast one of 10000; no time to launch; a million operations per second."""
    target = load_target("generic")
    slow, fast = (
        replace(space, bandwidth=rate, exposed=dict.fromkeys(KINDS, Exposure(rate, rate)))
        for space, rate in zip(target.spaces, (1000.0, 10000.0), strict=True)
    )
    compute = replace(
        target.compute, vector_flops=1e6, transcendental_rate=1e6, matrix_flops={"f32": 1e6}, launch_seconds=0.0
    )
    return replace(target, spaces=(slow, fast), compute=compute, clock=1.0)


def touched(*accesses: tuple[int, int]) -> list[Touched]:
    """Returns reads of some bytes in some spaces."""
    return [Touched(size, space) for size, space in accesses]


def duration(cost: tuple[float, float, tuple[tuple[float, ...], ...]], *spaces: int) -> float:
    floor, overhead, rows = cost
    return max(floor, overhead + sum(row[space] for row, space in zip(rows, spaces, strict=True)))


def with_exposure(machine: Target, kind: str, slow: Exposure, exposed: float = 1.0) -> Target:
    """Returns the machine with another exposure of its slow memory, and of its arithmetic."""
    first, second = machine.spaces
    compute = replace(machine.compute, exposed={**machine.compute.exposed, kind: exposed})
    return replace(machine, spaces=(replace(first, exposed={**first.exposed, kind: slow}), second), compute=compute)


KINDS_MODULE = """HloModule m
ENTRY %main {
  %p = bf16[256,256]{1,0:T(8,128)} parameter(0)
  %turned = bf16[256,256]{0,1:T(8,128)} copy(%p)
  %moved = bf16[256,256]{1,0:T(8,128)S(1)} copy(%p)
  %spread = bf16[256,256]{1,0} broadcast(%c), dimensions={}
  %c = bf16[] constant(1)
  %sum = bf16[256,256]{1,0} add(%p, %p)
  ROOT %product = bf16[256,256]{1,0} dot(%sum, %p), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}
"""


def test_kinds() -> None:
    computation = parse_hlo(KINDS_MODULE).entry_computation
    counter = WorkCounter(parse_hlo(KINDS_MODULE))
    found = {
        instruction.name: kind_of(computation, instruction, counter.of(computation, instruction))
        for instruction in computation.instructions
    }
    assert [found[name] for name in ("turned", "moved", "spread", "sum", "product")] == [
        "reorder", "move", "move", "vector", "matrix",
    ]  # fmt: skip


class TestWithoutEstimate:
    def test_roofline(self, machine: Target) -> None:
        cost = instruction_cost(machine, "vector", 2.0, touched((1000, SLOW), (5000, SLOW)), None)
        assert cost == (2.0, 0.0, ((1.0, 0.1), (5.0, 0.5)))
        assert duration(cost, SLOW, SLOW) == 6.0
        assert duration(cost, FAST, FAST) == 2.0

    def test_launch_is_added_to_both(self, machine: Target) -> None:
        machine = replace(machine, compute=replace(machine.compute, launch_seconds=0.5))
        cost = instruction_cost(machine, "vector", 2.0, touched((5000, SLOW)), None)
        assert (duration(cost, SLOW), duration(cost, FAST)) == (5.5, 2.5)

    def test_scalars_launch_nothing(self, machine: Target) -> None:
        machine = replace(machine, compute=replace(machine.compute, launch_seconds=0.5))
        assert duration(instruction_cost(machine, "vector", 0.0, touched((512, FAST)), None), FAST) < 0.1


class TestWithEstimate:
    def test_data_and_the_rest_take_turns(self, machine: Target) -> None:
        """5 seconds of data, 7 estimated: 2 are something else, wherever the data is."""
        cost = instruction_cost(machine, "matrix", 1.5, touched((5000, SLOW)), 7.0)
        assert cost == (2.0, 2.0, ((5.0, 0.5),))
        assert duration(cost, FAST) == 2.5

    def test_reads_and_writes_differ(self, machine: Target) -> None:
        machine = with_exposure(machine, "vector", Exposure(read=2000.0, write=500.0))
        cost = instruction_cost(machine, "vector", 0.0, [Touched(1000, SLOW), Touched(1000, SLOW, True)], 4.0)
        assert cost == (1.5, 1.5, ((0.5, 0.1), (2.0, 0.1)))

    def test_latency_is_saved_by_every_access_that_moves(self, machine: Target) -> None:
        """But tiny ones have none."""
        machine = with_exposure(machine, "matrix", Exposure(1e6, 1e6, read_latency=0.25, write_latency=0.5))
        accesses = [Touched(10000, SLOW), Touched(100, SLOW), Touched(10000, SLOW, True)]
        cost = instruction_cost(machine, "matrix", 0.1, accesses, 3.0)
        assert [row[SLOW] for row in cost[2]] == pytest.approx([0.26, 0.0001, 0.51])
        assert duration(cost, SLOW, SLOW, SLOW) == pytest.approx(3.0)

    def test_arithmetic_hides_data(self, machine: Target) -> None:
        """Half of the arithmetic is overlapped: 8 seconds here, of which 4 can hide 4 seconds of data."""
        machine = with_exposure(machine, "matrix", Exposure(1000.0, 1000.0), exposed=0.5)
        cost = instruction_cost(machine, "matrix", 6.0, touched((5000, FAST)), 8.0)
        assert (cost[0], cost[1]) == (8.0, 4.0)
        assert (duration(cost, FAST), duration(cost, SLOW)) == (8.0, 9.0)

    def test_data_hides_arithmetic(self, machine: Target) -> None:
        """9 seconds, 5 of them data: 4 are the exposed half of 8 seconds of arithmetic."""
        machine = with_exposure(machine, "matrix", Exposure(1000.0, 1000.0), exposed=0.5)
        cost = instruction_cost(machine, "matrix", 6.0, touched((5000, SLOW)), 9.0)
        assert (cost[0], cost[1]) == (8.0, 4.0)
        assert (duration(cost, FAST), duration(cost, SLOW)) == (8.0, 9.0)

    def test_there_is_arithmetic_at_least(self, machine: Target) -> None:
        """8 seconds of data in an estimate of 4, of which 1.5 are arithmetic: data is as fast as it must be."""
        cost = instruction_cost(machine, "matrix", 1.5, touched((8000, SLOW)), 4.0)
        assert cost == (1.5, 1.5, ((2.5, 0.25),))

    def test_bound_by_arithmetic(self, machine: Target) -> None:
        """The units alone need longer than is estimated: no placement changes it."""
        cost = instruction_cost(machine, "matrix", 2.0, touched((500, SLOW)), 1.5)
        assert duration(cost, SLOW) == duration(cost, FAST) == 1.5

    def test_without_data(self, machine: Target) -> None:
        assert instruction_cost(machine, "move", 0.0, [], 3.0) == (3.0, 3.0, ())


class TestMoves:
    def test_the_estimate_is_all_data(self, machine: Target) -> None:
        """Twice the time of its data: in the fast memory it takes twice of that, too."""
        for kind in sorted(SCALED):
            cost = instruction_cost(machine, kind, 0.0, touched((1000, SLOW), (1000, SLOW)), 4.0)
            assert cost == (0.0, 0.0, ((2.0, 0.2), (2.0, 0.2)))

    def test_what_is_too_slow_for_data_is_something_else(self, machine: Target) -> None:
        floor, overhead, rows = instruction_cost(machine, "move", 0.0, touched((1000, SLOW)), 10.0)
        assert (floor, overhead, rows[0][SLOW]) == (10.0 - MOST_INEFFICIENT, 10.0 - MOST_INEFFICIENT, MOST_INEFFICIENT)


@settings(max_examples=examples(100, 300))
@given(
    st.sampled_from(["tpu-v5e", "tpu-v4", "tpu-v6e", "tpu-7x", "generic"]),
    st.sampled_from(KINDS),
    st.floats(0, 1.0),
    st.lists(st.builds(Touched, st.integers(0, 10**8), st.sampled_from([SLOW, FAST]), st.booleans()), max_size=5),
    st.floats(1e-9, 1.0),
)
def test_the_sum_is_the_estimate_where_the_dump_has_the_data(
    name: str, kind: str, arithmetic: float, accesses: list[Touched], estimate: float
) -> None:
    cost = instruction_cost(load_target(name), kind, arithmetic, accesses, estimate)
    assert duration(cost, *(access.space for access in accesses)) == pytest.approx(estimate, rel=1e-9)
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
        accesses = [Touched(2**24, SLOW), Touched(2**24, FAST, is_written=True)]
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
    accesses: dict[int, list[Touched]] = {}
    for access in program.accesses:
        space = target.space_of_xla(program.storages[access.storage].memory_space)
        if space >= 0:
            is_written = access.kind is not AccessKind.READ
            accesses.setdefault(access.time, []).append(Touched(access.bytes, space, is_written))
    checked = 0
    for t, step in enumerate(program.steps):
        cycles = estimated_cycles(step.instruction)
        if cycles is None:
            continue
        here = accesses.get(t, [])
        cost = costs.of(graph.computations[step.computation], step.instruction, here)
        assert cost.seconds([access.space for access in here]) == pytest.approx(cycles / target.clock, rel=1e-9)
        checked += 1
    assert checked > 10
