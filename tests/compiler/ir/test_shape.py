import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memplan.compiler.ir.shape import BITS_PER_ELEMENT, Layout, Shape, print_shape

BF16_TILES = ((8, 128), (2, 1))


def array(dtype: str, dims: tuple[int, ...], *tiles: tuple[int, ...], **layout: int) -> Shape:
    return Shape(dtype, dims, Layout(tuple(reversed(range(len(dims)))), tiles, **layout))


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        (Shape("f32", (8, 4)), 128),
        (Shape("f32"), 4),
        (Shape("f32", (0, 4)), 0),
        (Shape("pred", (3,)), 3),
        (Shape("c128", (3,)), 48),
        (Shape("token"), 0),
        (Shape("opaque"), 0),
        (Shape("tuple"), 0),
        (Shape("tuple", elements=(Shape("f32", (2,)), Shape("tuple", elements=(Shape("s8", (3,)),)))), 11),
        (array("f32", (5, 100), (8, 128)), 8 * 128 * 4),
        (array("bf16", (5, 100), *BF16_TILES), 8 * 128 * 2),
        (array("f32", (), (128,)), 512),  # a tile of a higher rank than its array
        (array("f32", (1, 1, 9, 129), (8, 128)), 16 * 256 * 4),
        (array("f32", (3, 5, 7), (-1, 8, 128)), 16 * 128 * 4),  # XLA's `*`: stored as [15, 7]
        (array("s32", (1000,), tail_padding=1024), 4096),
        (Shape("f32", (8, 4), dynamic=(True, False)), 128),  # a bounded dimension counts at its bound
        (Shape("f32", (-1, 4), dynamic=(True, False)), 0),  # nobody knows
        (Shape("f32", (8,), is_buffer=True), 32),
        (array("s4", (3,), element_bits=4), 2),
        (array("u2", (5,), element_bits=2), 2),
        (array("s1", (9,), element_bits=1), 2),
        (Shape("s4", (3,)), 3),  # not packed: a byte each
        (array("s4", (256, 512), (64, 128), (8, 1), element_bits=4), 256 * 512 // 2),
    ],
)
def test_bytes(shape: Shape, size: int) -> None:
    assert shape.bytes == size


@pytest.mark.parametrize(
    ("arguments", "results", "argument_bytes", "result_bytes"),
    [
        # Programs compiled for v4 and v5e: entry layouts, and `memory_analysis()`'s sizes of arguments and outputs (of
        # these, less the 512 bytes of the table that points to the results).
        (
            [
                array("s4", (256, 512), (64, 128), (8, 1), element_bits=4),
                array("bf16", (512, 256), (8, 128), (2, 1)),
                array("f8e4m3fn", (128, 256), (32, 128), (4, 1)),
            ],
            [
                array("bf16", (256, 256), (8, 128), (2, 1)),
                array("f8e5m2", (128, 256), (32, 128), (4, 1)),
                array("s4", (256, 512), (64, 128), (8, 1), element_bits=4),
            ],
            360448,
            229888 - 512,
        ),
        (
            [
                Shape("bf16", (4, 32, 32, 8), Layout((2, 3, 1, 0), BF16_TILES)),
                Shape("bf16", (3, 3, 8, 16), Layout((3, 2, 1, 0), BF16_TILES)),
            ],
            [],
            280576,
            0,
        ),
        (
            [
                Shape("f32", (33, 17), Layout((0, 1), ((8, 128),))),
                Shape("s8", (33, 17), Layout((0, 1), ((8, 128), (4, 1)))),
                Shape("pred", (4,), Layout((0,), ((512,), (128,), (4, 1)))),
                Shape("c64", (3, 5, 7), Layout((2, 0, 1), ((4, 128),))),
            ],
            [],
            36352,
            0,
        ),
        ([array("f32", (64, 128), (8, 128)), array("s32", (64,), (128,))], [], 33280, 0),
        ([array("f32", (8, 8), (8, 128)), array("s32", (), (128,))], [], 4608, 0),
    ],
)
def test_bytes_are_what_the_tpu_compiler_reports(
    arguments: list[Shape], results: list[Shape], argument_bytes: int, result_bytes: int
) -> None:
    assert sum(shape.bytes for shape in arguments) == argument_bytes
    assert sum(shape.bytes for shape in results) == result_bytes


def test_element_sizes_are_those_of_numpy_and_ml_dtypes() -> None:
    names = {
        "f6e2m3fn": "float6_e2m3fn",
        "f6e3m2fn": "float6_e3m2fn",
        "pred": "bool",
        "bf16": "bfloat16",
        "c64": "complex64",
        "c128": "complex128",
        "f4e2m1fn": "float4_e2m1fn",
    }
    prefixes = {"s": "int", "u": "uint", "f": "float"}
    for dtype, bits in BITS_PER_ELEMENT.items():
        if dtype in ("token", "opaque"):
            continue
        name = names.get(dtype) or prefixes[dtype[0]] + dtype[1:].replace("8e", "8_e", 1)
        element = getattr(ml_dtypes, name, None) or name
        assert Shape(dtype, (7,)).bytes == 7 * np.dtype(element).itemsize, dtype
        if bits < 8:
            finfo = ml_dtypes.finfo(element).bits if dtype[0] == "f" else ml_dtypes.iinfo(element).bits
            assert finfo == bits
        else:
            assert bits == 8 * np.dtype(element).itemsize


def stored_elements(dims: list[int], order: list[int], tiles: list[tuple[int, ...]]) -> int:
    """The same by really padding and cutting an array, as openxla.org/xla/tiled_layout describes it."""
    stored = np.zeros([dims[d] for d in reversed(order)], np.int8)
    for tile in tiles:
        if stored.ndim < len(tile):
            stored = stored.reshape([1] * (len(tile) - stored.ndim) + list(stored.shape))
        rank = stored.ndim - len(tile)
        merged = list(stored.shape[:rank])
        sizes = []
        carried = 1
        for dim, size in zip(stored.shape[rank:], tile, strict=True):
            carried *= dim
            if size != -1:
                merged.append(carried)
                sizes.append(size)
                carried = 1
        stored = stored.reshape(merged)
        widths = [(0, 0)] * rank + [(0, -dim % size) for dim, size in zip(stored.shape[rank:], sizes, strict=True)]
        stored = np.pad(stored, widths)
        cut = [n for dim, size in zip(stored.shape[rank:], sizes, strict=True) for n in (dim // size, size)]
        stored = stored.reshape([*stored.shape[:rank], *cut])
        outer = [rank + 2 * k for k in range(len(sizes))]
        inner = [rank + 2 * k + 1 for k in range(len(sizes))]
        stored = stored.transpose([*range(rank), *outer, *inner])
    return stored.size


@st.composite
def tiled_arrays(draw: st.DrawFn) -> tuple[list[int], list[int], list[tuple[int, ...]]]:
    dims = draw(st.lists(st.integers(0, 9), max_size=4))
    order = draw(st.permutations(range(len(dims))))
    tiles = []
    for _ in range(draw(st.integers(0, 3))):
        tile = draw(st.lists(st.sampled_from([1, 2, 3, 4, -1]), min_size=1, max_size=3))
        tile[-1] = abs(tile[-1])
        tiles.append(tuple(tile))
    return dims, list(order), tiles


@given(tiled_arrays())
def test_padding_is_that_of_a_really_padded_array(drawn: tuple[list[int], list[int], list[tuple[int, ...]]]) -> None:
    dims, order, tiles = drawn
    assert Shape("s8", tuple(dims), Layout(tuple(order), tuple(tiles))).bytes == stored_elements(dims, order, tiles)


def test_tuple_navigation() -> None:
    inner = Shape("tuple", elements=(Shape("s32"), Shape("f32", (2,))))
    shape = Shape("tuple", elements=(Shape("bf16", (4,)), inner))
    assert [path for path, _ in shape.leaves()] == [(0,), (1, 0), (1, 1)]
    assert shape.at((1, 1)) == Shape("f32", (2,))
    assert shape.at(()) is shape
    assert list(Shape("f32").leaves()) == [((), Shape("f32"))]


def test_memory_space() -> None:
    shape = array("bf16", (8, 4), *BF16_TILES)
    moved = shape.with_memory_space(1)
    assert (shape.memory_space, moved.memory_space) == (0, 1)
    assert moved.with_memory_space(0) == shape
    assert moved.bytes == shape.bytes
    assert Shape("f32", (2, 3)).with_memory_space(1).layout == Layout((1, 0), memory_space=1)


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        (Shape("f32"), "f32[]"),
        (Shape("f32", (2, 3), Layout((0, 1))), "f32[2,3]{0,1}"),
        (array("f32", (), (128,), memory_space=6), "f32[]{:T(128)S(6)}"),
        (Shape("u32", (), Layout(memory_space=2)), "u32[]{:S(2)}"),
        (array("s4", (9,), (-1, 4), element_bits=4, tail_padding=32), "s4[9]{0:T(*,4)L(32)E(4)}"),
        (Shape("f32", (8, -1), None, (True, True)), "f32[<=8,?]"),
        (Shape("f32", (8,), Layout((0,)), is_buffer=True), "b(f32[8]{0})"),
        (Shape("token"), "token[]"),
        (Shape("f32", (4,), Layout((0,), (), 1, 0, "D(C+~)SC(0:2)P(f32[4]{0})")), "f32[4]{0:D(C+~)S(1)SC(0:2)P(f32[4]{0})}"),
        (
            Shape("tuple", elements=(Shape("f32"),) * 6),
            "(f32[], f32[], f32[], f32[], f32[], /*index=5*/f32[])",
        ),
    ],
)  # fmt: skip
def test_print(shape: Shape, text: str) -> None:
    assert print_shape(shape) == str(shape) == text
