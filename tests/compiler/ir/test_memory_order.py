import heapq
import random
from functools import reduce
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memplan.compiler import limits
from memplan.compiler.files import unpacked
from memplan.compiler.frontends import parse_hlo
from memplan.compiler.frontends.reader import parse_bytes
from memplan.compiler.ir import Computation, Instruction, Shape
from memplan.compiler.ir.memory_order import memory_minimizing_order, peak_bytes, scheduled

ROOT = Path(__file__).parents[3]


def program(*rows: tuple[int, tuple[int, ...]]) -> Computation:
    """Returns instructions of `(bytes, operands)`, the last of which is the root."""
    instructions = tuple(
        Instruction(f"i{i}", "custom-call", Shape("s8", (size,)), ops) for i, (size, ops) in enumerate(rows)
    )
    return Computation("c", instructions, len(rows) - 1)


def test_peak_by_hand() -> None:
    #   i0 ──► i2 ──► i4      alive: i0 100 | i0 i1 200 | i0 i1 i2 210 | i1 i2 i3 120 | i2 i3 i4 30
    #   i1 ──► i3 ──┘
    diamond = program((100, ()), (100, ()), (10, (0,)), (10, (1,)), (10, (2, 3)))
    assert peak_bytes(diamond) == 210
    assert peak_bytes(diamond, (0, 2, 1, 3, 4)) == 120
    assert memory_minimizing_order(diamond) == (0, 2, 1, 3, 4)


def test_arguments_and_constants_do_not_count_and_results_stay() -> None:
    text = """
    ENTRY e {
      p = s8[1000] parameter(0)
      c = s8[500] constant({...})
      a = s8[10] custom-call(p, c)
      unused = s8[70] custom-call(p)
      ROOT r = (s8[10], s8[1000]) tuple(a, p)
    }"""
    assert peak_bytes(parse_hlo(text).entry_computation) == 80


def test_views_keep_alive_what_they_show() -> None:
    text = """
    ENTRY e {
      a = (s8[100], s8[20]) custom-call()
      x = s8[100] get-tuple-element(a), index=0
      y = s8[20] get-tuple-element(a), index=1
      b = s8[20] bitcast(y)
      u = s8[1] custom-call(x)
      v = s8[50] custom-call(u)
      ROOT w = s8[1] custom-call(b, v)
    }"""
    entry = parse_hlo(text).entry_computation
    # The first element dies with `u`, the second lives on through its bitcast.
    assert peak_bytes(entry) == 121
    assert peak_bytes(entry, tuple(range(7))) == 121
    assert peak_bytes(parse_hlo(text.replace("u = s8[1] ", "u = s8[90] ")).entry_computation) == 210


def test_memory_of_callees_counts_while_they_run() -> None:
    text = """
    f { p = s8[8] parameter(0) t = s8[300] custom-call(p) ROOT r = s8[8] custom-call(t) }
    ENTRY e { x = s8[8] parameter(0) big = s8[200] custom-call(x) y = s8[8] call(x), to_apply=f ROOT z = s8[8] custom-call(big, y) }
    """
    graph = parse_hlo(text)
    peaks = {"f": peak_bytes(graph.computations["f"])}
    assert peaks == {"f": 308}
    assert peak_bytes(graph.entry_computation, None, peaks) == 200 + 8 + 308
    order = scheduled(graph).entry_computation
    assert [i.name for i in order.instructions] == ["x", "y", "big", "z"]
    assert peak_bytes(order, None, peaks) == 8 + 308


def test_control_dependences_hold() -> None:
    text = """
    ENTRY e {
      a = s8[100] custom-call()
      b = s8[100] custom-call()
      c = s8[10] custom-call(a), control-predecessors={b}
      d = s8[10] custom-call(b)
      ROOT r = s8[10] custom-call(c, d)
    }"""
    entry = scheduled(parse_hlo(text)).entry_computation
    assert entry.index["b"] < entry.index["c"]


def test_fusion_bodies_keep_their_order() -> None:
    text = """
    f { a = s8[100] iota(), iota_dimension=0 b = s8[100] iota(), iota_dimension=0 c = s8[10] custom-call(a) d = s8[10] custom-call(b) ROOT r = s8[10] add(c, d) }
    ENTRY e { ROOT x = s8[10] fusion(), kind=kLoop, calls=f }
    """
    graph = parse_hlo(text)
    assert scheduled(graph) == graph


def best_peak(computation: Computation) -> int:
    """The lowest peak of all orders: shortest path over the sets of instructions that have run."""
    count = len(computation.instructions)
    operands = [set(i.operands) for i in computation.instructions]
    size = [i.shape.bytes for i in computation.instructions]
    users = [{j for j in range(count) if i in operands[j]} for i in range(count)]

    def alive(done: frozenset[int]) -> int:
        return sum(size[i] for i in done if i == count - 1 or users[i] - done)

    queue: list[tuple[int, int, frozenset[int]]] = [(0, 0, frozenset())]
    best = {frozenset[int](): 0}
    while queue:
        peak, _, done = heapq.heappop(queue)
        if len(done) == count:
            return peak
        for i in set(range(count)) - done:
            if operands[i] <= done:
                after = done | {i}
                reached = max(peak, alive(done) + size[i])
                if reached < best.get(after, 1 << 60):
                    best[after] = reached
                    heapq.heappush(queue, (reached, len(queue), after))
    raise AssertionError("no order")


def random_program(rng: random.Random, count: int) -> Computation:
    rows: list[tuple[int, tuple[int, ...]]] = []
    for i in range(count - 1):
        operands = rng.sample(range(i), min(i, rng.choice([0, 1, 1, 2, 2, 3])))
        rows.append((rng.choice([1, 1, 2, 4, 8, 16]), tuple(operands)))
    used = reduce(set.union, (set(ops) for _, ops in rows), set())
    rows.append((1, tuple(i for i in range(count - 1) if i not in used)))
    return program(*rows)


def test_peak_is_near_the_optimum_of_small_programs() -> None:
    rng = random.Random(0)
    ratios = []
    for _ in range(150):
        computation = random_program(rng, rng.randint(3, 9))
        ratios.append(peak_bytes(computation, memory_minimizing_order(computation)) / best_peak(computation))
    assert min(ratios) == 1.0  # nothing beats the optimum, so both count alike
    assert sum(ratios) / len(ratios) < 1.01
    assert sum(ratio == 1.0 for ratio in ratios) > 0.9 * len(ratios)


@settings(max_examples=50)
@given(st.integers(2, 60), st.randoms(use_true_random=False))
def test_order_is_legal_and_never_worse_than_the_text(count: int, rng: random.Random) -> None:
    computation = random_program(rng, count)
    order = memory_minimizing_order(computation)
    assert sorted(order) == list(range(count))
    place = {i: k for k, i in enumerate(order)}
    for i, instruction in enumerate(computation.instructions):
        assert all(place[o] < place[i] for o in instruction.operands)
    assert peak_bytes(computation, order) <= peak_bytes(computation)


@pytest.mark.parametrize(
    "file", sorted((ROOT / "tests/data/hlo").glob("*before_optimizations.txt")), ids=lambda f: f.name
)
def test_peak_of_real_unscheduled_modules(file: Path) -> None:
    before = parse_bytes(file.read_bytes(), file.name)
    after = scheduled(before)
    assert not before.is_scheduled
    for name, computation in before.computations.items():
        assert peak_bytes(after.computations[name]) <= peak_bytes(computation)
        assert {i.name for i in after.computations[name].instructions} == {i.name for i in computation.instructions}


@pytest.mark.parametrize("name", ["transformer_train", "resnet50_train", "lstm_train"])
def test_peak_against_the_schedule_of_the_tpu_compiler(name: str) -> None:
    """XLA's schedule hides copies behind work, which costs memory: an order made for memory alone needs no more."""
    file = ROOT / f"workloads/dumps/{name}.tpu-v5e.slow.hlo.txt.gz"
    entry = parse_bytes(unpacked(file.read_bytes(), file.name, limits.PROGRAM), file.name).entry_computation
    order = memory_minimizing_order(entry)
    assert peak_bytes(entry, order) <= peak_bytes(entry)
