"""Orders and layouts of small programs, beside all orders and a check of every byte."""

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from memplan.compiler.effort import Effort
from memplan.compiler.embedded import EmbeddedBuffer, EmbeddedProgram, InPlaceWay, LoopNest
from memplan.compiler.embedded.affine import variable
from memplan.compiler.embedded.expressions import Builder, Expression
from memplan.compiler.embedded.plan import check_plan
from memplan.compiler.embedded.program import ElementStore, StorageKind
from memplan.compiler.errors import PlanError
from memplan.passes.schedule import schedule


def program(sizes: list[int], reads: list[list[int]], in_place: bool = True) -> EmbeddedProgram:
    """Step k sums the first elements of what it reads, into a buffer of `sizes[k]` words; the last one is the result."""
    kinds = [StorageKind.TEMPORARY] * (len(sizes) - 1) + [StorageKind.RESULT]
    buffers = [EmbeddedBuffer(f"b{k}", (size,), "int32", kinds[k]) for k, size in enumerate(sizes)]
    steps = []
    for k, size in enumerate(sizes):
        builder, index = Builder(), variable(0, size)
        value: Expression = builder.constant(k, "int32")
        for b in reads[k]:
            load = builder.load(b, variable(0, min(size, sizes[b])) if size <= sizes[b] else variable(0, 1), "int32")
            value = builder.operation("add", (value, load), "int32")
        ways = tuple(InPlaceWay(0, b, 1) for b in reads[k] if in_place and sizes[b] == size)
        steps.append(LoopNest(f"s{k}", (size,), (ElementStore(k, index, value),), ways))
    return EmbeddedProgram("p", tuple(buffers), tuple(steps), (), (), (len(sizes) - 1,))


def random_program(seed: int) -> EmbeddedProgram:
    random = np.random.default_rng(seed)
    n = int(random.integers(4, 8))
    reads: list[list[int]] = [
        sorted(random.choice(k, size=min(k, int(random.integers(0, 3))), replace=False).tolist()) for k in range(n)
    ]
    unread = set(range(n - 1)) - {b for each in reads for b in each}
    reads[-1] = sorted({*reads[-1], *unread})
    return program(random.integers(1, 5, n).tolist(), reads, bool(seed % 2))


def orders(made: EmbeddedProgram) -> Iterator[tuple[int, ...]]:
    for order in itertools.permutations(range(len(made.steps))):
        position = {k: t for t, k in enumerate(order)}
        if all(position[b] < position[k] for k, before in enumerate(made.predecessors) for b in before):
            yield order


def peak_of(made: EmbeddedProgram, order: tuple[int, ...]) -> int:
    """The bytes of an order, by looking at each buffer at each time."""
    last = {b: max((t for t, k in enumerate(order) if b in made.steps[k].reads), default=-1) for b in range(len(order))}
    last[len(order) - 1] = len(order)
    first = {k: t for t, k in enumerate(order)}
    peak = 0
    for t, k in enumerate(order):
        live = [b for b in range(len(order)) if first[b] <= t <= max(last[b], first[b])]
        shared = max((made.buffers[w.buffer].size for w in made.steps[k].in_place if last[w.buffer] == t), default=0)
        peak = max(peak, sum(made.buffers[b].size for b in live) - shared)
    return peak


@pytest.mark.parametrize("seed", range(24))
def test_the_peak_is_the_least_of_all_orders(seed: int) -> None:
    made = random_program(seed)
    least = min(peak_of(made, order) for order in orders(made))
    plan = schedule(made)
    assert (plan.peak, plan.bound) == (least, least)
    assert plan.arena >= plan.arena_bound == plan.peak
    assert schedule(made, reorder=False).peak == peak_of(made, tuple(range(len(made.steps))))


def random_network(seed: int, n: int, reach: int) -> EmbeddedProgram:
    """Returns n steps, each of which reads one or two of the `reach` before it; what none reads, a later one does too."""
    random = np.random.default_rng(seed)
    reads: list[set[int]] = [set()]
    for k in range(1, n):
        reads.append({k - 1 - int(j) for j in random.integers(0, min(k, reach), random.integers(1, 3))})
    for b in sorted(set(range(n - 1)) - set().union(*reads)):
        reads[min(n - 1, b + 1 + int(random.integers(0, reach)))].add(b)
    return program(random.integers(1, 65, n).tolist(), [sorted(each) for each in reads], bool(seed % 2))


@pytest.mark.parametrize(
    ("reach", "seed"),
    [
        (8, 2),
        (16, 1),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in itertools.product((8, 16), range(3, 20))),
    ],
)
def test_the_order_of_sixty_steps_is_proven(reach: int, seed: int) -> None:
    plan = schedule(random_network(seed, 60, reach))
    assert plan.peak == plan.bound


def test_beam_and_local_search_find_orders_where_the_exact_search_is_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memplan.passes.schedule._TRIES", (3, 3, 3))
    monkeypatch.setattr("memplan.passes.schedule._BEAM", ((4, 3), (16, 3), (64, 3)))
    for seed in range(6):
        made = random_program(seed)
        plan = schedule(made, effort=Effort.FAST)
        least = min(peak_of(made, order) for order in orders(made))
        assert plan.bound <= least <= plan.peak <= peak_of(made, tuple(range(len(made.steps))))


def test_two_branches_run_one_after_the_other() -> None:
    # Two large buffers that shrink: the program makes both before it shrinks either.
    made = program([10, 10, 1, 1, 1], [[], [], [0], [1], [2, 3]], in_place=False)
    assert schedule(made, reorder=False).peak == 4 * 21
    plan = schedule(made)
    assert (plan.peak, plan.arena, plan.is_proven) == (4 * 12, 4 * 12, True)


def test_the_check_finds_what_is_wrong() -> None:
    made = program([4, 4, 4, 4], [[], [0], [0], [1, 2]])
    plan = schedule(made)
    check_plan(plan)
    at_zero = replace(plan, blocks=tuple(replace(block, offset=0) for block in plan.blocks))
    with pytest.raises(PlanError, match="overlap"):
        check_plan(at_zero)
    with pytest.raises(PlanError, match="waits for"):
        check_plan(replace(plan, order=plan.order[::-1]))
    with pytest.raises(PlanError, match="too short"):
        check_plan(replace(plan, blocks=tuple(replace(block, end=block.start + 1) for block in plan.blocks)))
