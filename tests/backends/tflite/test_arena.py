"""What TFLM keeps in its arena, and where its own planner puts it."""

import pytest

pytest.importorskip("flatbuffers")

from hypothesis import given
from hypothesis import strategies as st
from tflite_writer import TfliteFile, mobilenet, small_network

from memplan.backends.tflite.arena import ArenaTensor, arena_size, arena_tensors, greedy_offsets
from memplan.compiler.errors import ParseError
from memplan.compiler.frontends.tflite_model import Subgraph, Tensor, TfliteModel, TfliteOperator, read_model


def blocks(*rows: tuple[int, int, int]) -> list[ArenaTensor]:
    """Tensors of `(size, first, last)`."""
    tensor = Tensor(0, "", "s8", (1,), 1, (0, 0), False, False, False)
    return [ArenaTensor(n, 0, tensor, size, first, last) for n, (size, first, last) in enumerate(rows)]


def test_scopes_of_a_network() -> None:
    """Operator n has scope n + 1; sizes are rounded up to 16; weights and biases are not there."""
    found = arena_tensors(read_model(small_network().content()))
    assert [(t.tensor.name, t.size, t.first, t.last) for t in found] == [
        ("image", 256, 0, 1),
        ("conv/Relu6", 512, 1, 3),
        ("depthwise", 512, 2, 3),
        ("residual", 512, 3, 4),
        ("pool", 128, 4, 5),
        ("flat", 128, 5, 6),
        ("logits", 16, 6, 7),
        ("classes", 16, 7, 7),
    ]


def test_the_largest_come_first_and_of_equal_ones_the_last() -> None:
    assert greedy_offsets(blocks((16, 0, 1), (32, 0, 1), (16, 0, 0))) == [48, 0, 32]


def test_the_lowest_gap_that_holds_it() -> None:
    """The 48 stand below the 32 at scope 1; at scope 2 the 16 find the place where the 48 were."""
    assert greedy_offsets(blocks((48, 0, 1), (32, 1, 2), (16, 2, 2), (16, 0, 0))) == [0, 48, 0, 48]


def test_gaps_below_what_is_planned_are_used() -> None:
    assert greedy_offsets(blocks((16, 0, 1), (32, 0, 1)), {1: 16}) == [0, 16]
    assert greedy_offsets(blocks((32, 0, 1), (32, 0, 1)), {1: 16}) == [48, 16]


def test_the_arenas_that_tflm_states() -> None:
    """`MicroInterpreter` of tflite_micro 0.dev20261023182759 states these heads of its arena for these files."""
    for file, head in ((small_network(), 1_536), (mobilenet(), 442_368)):
        tensors = arena_tensors(read_model(file.content()))
        assert arena_size(tensors, greedy_offsets(tensors)) == head


ROWS = st.lists(st.tuples(st.integers(1, 9).map(lambda n: 16 * n), st.integers(0, 9), st.integers(0, 5)), max_size=12)


@given(ROWS)
def test_what_is_live_at_once_does_not_overlap(rows: list[tuple[int, int, int]]) -> None:
    tensors = blocks(*((size, first, first + length) for size, first, length in rows))
    offsets = greedy_offsets(tensors)
    for n, a in enumerate(tensors):
        assert offsets[n] >= 0
        for m, b in enumerate(tensors[:n]):
            if a.first <= b.last and b.first <= a.last:
                assert offsets[n] >= offsets[m] + b.size or offsets[m] >= offsets[n] + a.size


def called(kind: str, *numbers: int) -> TfliteModel:
    """A model whose first subgraph runs others between two operators; each other one has one operator."""
    model = read_model(pair().content(), "m.tflite")
    (main,) = model.subgraphs

    class Options:
        def number(self, field: int, kind: str, default: int) -> int:
            return numbers[field] if field < len(numbers) else default

    first, last = main.operators
    call = TfliteOperator(1, kind, (1,), (), Options())  # type: ignore[arg-type]
    around = Subgraph("main", main.tensors, main.inputs, main.outputs, (first, call, last))
    return TfliteModel(model.content, "m.tflite", model.root, (around, main, main), ())


def pair() -> TfliteFile:
    file = TfliteFile()
    x, y, z = (file.tensor("s8", 16, name=name) for name in "xyz")
    file.inputs, file.outputs = [x], [z]
    file.operator("RELU", [x], y)
    file.operator("RELU", [y], z)
    return file


def test_scopes_of_called_subgraphs_lie_within_those_of_the_caller() -> None:
    found = arena_tensors(called("IF", 1, 2))
    assert [(t.index, t.subgraph, t.first, t.last) for t in found] == [
        (0, 0, 0, 1), (1, 0, 1, 9), (2, 0, 9, 9),
        (3, 1, 3, 4), (4, 1, 4, 5), (5, 1, 5, 5),
        (6, 2, 6, 7), (7, 2, 7, 8), (8, 2, 8, 8),
    ]  # fmt: skip


def test_subgraphs_that_are_not_there_or_call_themselves() -> None:
    with pytest.raises(ParseError, match=r"m.tflite: subgraph 7 is called; there are 3"):
        arena_tensors(called("CALL_ONCE", 7))
    with pytest.raises(ParseError, match=r"m.tflite: subgraph 0 calls itself"):
        arena_tensors(called("CALL_ONCE", 0))


def test_a_tensor_of_no_known_size_is_named() -> None:
    file = pair()
    file.tensors[1].dtype = "str"
    with pytest.raises(ParseError, match=r"m.tflite: subgraph 0: tensor 1 \('y'\) is of a type whose size"):
        arena_tensors(read_model(file.content(), "m.tflite"))
