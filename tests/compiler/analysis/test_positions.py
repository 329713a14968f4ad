"""Numbers of positions: every shape inside every result."""

from __future__ import annotations

from memplan.compiler.analysis.positions import NodeCache, Positions
from memplan.compiler.analysis.schedule import lay_out
from memplan.compiler.frontends import parse_hlo
from memplan.compiler.ir import Shape

NESTED = Shape("tuple", elements=(
    Shape("s32"), Shape("tuple", elements=(Shape("f32", (8,)), Shape("token"))), Shape("f32", (9,)),
))  # fmt: skip


def test_nodes_of_a_nested_tuple() -> None:
    nodes = NodeCache().of(NESTED)
    assert nodes.paths == ((), (0,), (1,), (1, 0), (1, 1), (2,))
    assert nodes.arrays == (1, 3, 5)
    assert nodes.elements == (1, 2, 5)
    assert [nodes.element(i) for i in range(3)] == [range(1, 2), range(2, 5), range(5, 6)]
    assert nodes.below((1,)) == range(2, 5)
    assert nodes.below(()) == range(6)
    assert nodes.number[1, 0] == 3


def test_nodes_are_computed_once_per_shape() -> None:
    cache = NodeCache()
    assert cache.of(NESTED) is cache.of(NESTED)


def test_positions_know_their_instruction_shape_and_name() -> None:
    graph = parse_hlo("ENTRY e { a = (f32[8], s32[]) parameter(0) ROOT b = s32[] get-tuple-element(a), index=1 }")
    positions = Positions(lay_out(graph))
    assert len(positions) == 4
    assert [positions.name(i) for i in range(4)] == ["a", "a{0}", "a{1}", "b"]
    assert [positions.time(i) for i in range(4)] == [0, 0, 0, 1]
    assert [positions.path(i) for i in range(4)] == [(), (0,), (1,), ()]
    assert str(positions.shape(1)) == "f32[8]"
