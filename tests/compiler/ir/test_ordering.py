import pytest
from hypothesis import given
from hypothesis import strategies as st

from memplan.compiler.ir import Computation, Instruction, Shape
from memplan.compiler.ir.ordering import reordered, topological_order
from memplan.compiler.ir.validate import InstructionError

F32 = Shape("f32", (8,))


def instructions(
    *operands: tuple[int, ...], waits: dict[int, tuple[int, ...]] | None = None
) -> tuple[Instruction, ...]:
    waits = waits or {}
    return tuple(
        Instruction(f"i{i}", "custom-call", F32, ops, control_predecessors=waits.get(i, ()))
        for i, ops in enumerate(operands)
    )


@pytest.mark.parametrize(
    ("given_order", "expected"),
    [
        (instructions((), (), (0, 1)), (0, 1, 2)),  # legal already
        (instructions((2,), (), ()), (1, 2, 0)),  # what may run and stands earliest comes first
        (instructions((1,), (2,), ()), (2, 1, 0)),
        (instructions((), (), waits={0: (1,)}), (1, 0)),  # by control dependence only
        (instructions((1, 1), ()), (1, 0)),
        ((), ()),
    ],
)
def test_topological_order(given_order: tuple[Instruction, ...], expected: tuple[int, ...]) -> None:
    assert topological_order(given_order) == expected


def test_cycle_is_named() -> None:
    looping = instructions((), (0, 3), (1,), (2,), (3,))
    with pytest.raises(
        InstructionError, match="f/i1: instructions wait for each other in a circle: i1 -> i2 -> i3 -> i1"
    ):
        topological_order(looping, "f")
    with pytest.raises(InstructionError, match="i0 -> i0"):
        topological_order(instructions((0,)))


@given(st.lists(st.sets(st.integers(0, 11)), max_size=12), st.randoms(use_true_random=False))
def test_order_is_legal_and_reordering_keeps_the_graph(rows: list[set[int]], random: object) -> None:
    """A random graph in random order becomes legal; each instruction still reads what it read."""
    edges = [tuple(sorted(o for o in row if o < i)) for i, row in enumerate(rows)]
    names = list(range(len(edges)))
    random.shuffle(names)  # type: ignore[attr-defined]
    place = {name: k for k, name in enumerate(names)}
    shuffled = tuple(
        Instruction(f"i{name}", "custom-call", F32, tuple(place[o] for o in edges[name])) for name in names
    )
    order = topological_order(shuffled)
    assert sorted(order) == list(range(len(edges)))
    if not edges:
        return
    computation = reordered(Computation("c", shuffled, place[0]), order)
    assert computation.root_instruction.name == "i0"
    for i, instruction in enumerate(computation.instructions):
        assert all(o < i for o in instruction.operands)
        read = {computation.instructions[o].name for o in instruction.operands}
        assert read == {f"i{o}" for o in edges[int(instruction.name[1:])]}


def test_reordered_moves_root_and_control_predecessors() -> None:
    computation = Computation("c", instructions((), (), (0,), waits={2: (1,)}), root=0)
    moved = reordered(computation, (1, 0, 2))
    assert [i.name for i in moved.instructions] == ["i1", "i0", "i2"]
    assert moved.root == 1
    assert moved.instructions[2].operands == (1,)
    assert moved.instructions[2].control_predecessors == (0,)
    assert reordered(moved, (1, 0, 2)) == computation


def test_reordered_refuses_what_is_no_order() -> None:
    computation = Computation("c", instructions((), ()), root=0)
    with pytest.raises(InstructionError, match="every instruction once"):
        reordered(computation, (0, 0))


def test_long_chains_do_not_recurse() -> None:
    chain = instructions(*((i + 1,) for i in range(5000)), ())
    assert topological_order(chain)[0] == 5000
