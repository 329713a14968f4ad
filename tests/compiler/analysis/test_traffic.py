"""How much of an operand is read."""

from __future__ import annotations

from memplan.compiler.analysis.in_place import InPlace
from memplan.compiler.analysis.traffic import Traffic, moved_bytes
from memplan.compiler.frontends import parse_hlo

HEAD = "ENTRY e { x = f32[8,4] parameter(0) u = f32[1,4] parameter(1) i = s32[] parameter(2) z = s32[] constant(0)"


def reads(text: str, name: str = "r") -> list[int]:
    """Returns the bytes read of each operand."""
    graph = parse_hlo(text)
    entry = graph.entry_computation
    traffic = Traffic(graph, InPlace(graph))
    instruction = entry.instructions[entry.index[name]]
    return [
        traffic.read(instruction, number, entry.instructions[operand].shape)
        for number, operand in enumerate(instruction.operands)
    ]


def test_most_operands_are_read_whole() -> None:
    assert reads(HEAD + " ROOT r = f32[8,4] add(x, x) }") == [128, 128]


def test_slices_read_what_they_give() -> None:
    assert reads(HEAD + " ROOT r = f32[2,4] slice(x), slice={[0:2], [0:4]} }") == [32]
    assert reads(HEAD + " ROOT r = f32[1,4] dynamic-slice(x, i, z), dynamic_slice_sizes={1,4} }") == [16, 4, 4]


def test_a_gather_reads_as_much_as_it_gives_but_no_more_than_there_is() -> None:
    gather = (
        " ROOT r = f32[{n},4] gather(x, k), offset_dims={{1}}, collapsed_slice_dims={{0}}, start_index_map={{0}},"
        " index_vector_dim=1, slice_sizes={{1,4}} }}"
    )
    for n, expected in ((3, 48), (100, 128)):
        assert reads(HEAD + f" k = s32[{n},1] parameter(3)" + gather.format(n=n)) == [expected, 4 * n]


def test_an_asynchronous_slice_reads_what_it_moves() -> None:
    start = " s = ((f32[8,4]), f32[2,4], s32[]) slice-start(x), slice={[0:2], [0:4]} ROOT r = f32[2,4] slice-done(s) }"
    assert reads(HEAD + start, "s") == [32]


def fused(body: str, result: str) -> list[int]:
    parameters = "p = f32[8,4] parameter(0) q = f32[1,4] parameter(1) j = s32[] parameter(2) k = s32[] constant(0) "
    return reads(f"f {{ {parameters} {body} }} {HEAD} ROOT r = {result} fusion(x, u, i), kind=kLoop, calls=f }}")


SLICE = "s = f32[1,4] dynamic-slice(p, j, k), dynamic_slice_sizes={1,4}"


def test_a_fusion_that_only_slices_reads_the_slices() -> None:
    assert fused(f"{SLICE} ROOT o = f32[1,4] add(s, q)", "f32[1,4]") == [16, 16, 4]
    two = f"{SLICE} t = f32[2,4] slice(p), slice={{[0:2], [0:4]}} v = f32[1,4] slice(t), slice={{[0:1], [0:4]}}"
    assert fused(f"{two} ROOT o = f32[1,4] add(s, v)", "f32[1,4]")[0] == 16 + 32


def test_views_of_a_parameter_are_looked_through() -> None:
    body = "b = f32[32] bitcast(p) ROOT o = f32[2] slice(b), slice={[0:2]}"
    assert fused(body, "f32[2]") == [8, 0, 0]


def test_any_other_use_reads_it_whole() -> None:
    assert (
        fused(f"{SLICE} n = f32[8,4] negate(p) ROOT o = (f32[1,4], f32[8,4]) tuple(s, n)", "(f32[1,4], f32[8,4])")[0]
        == 128
    )
    assert fused("ROOT o = f32[32] bitcast(p)", "f32[32]")[0] == 128


def test_slices_of_a_nested_fusion_count() -> None:
    inner = f"g {{ p = f32[8,4] parameter(0) j = s32[] parameter(1) k = s32[] constant(0) ROOT {SLICE} }}"
    text = (
        inner
        + "f { p = f32[8,4] parameter(0) j = s32[] parameter(1) ROOT o = f32[1,4] fusion(p, j), kind=kLoop, calls=g }"
    )
    assert reads(text + HEAD + " ROOT r = f32[1,4] fusion(x, i), kind=kLoop, calls=f }") == [16, 4]


def test_what_a_nested_fusion_takes_over_whole_is_read_whole() -> None:
    """XLA:TPU changes a tiling so, in place, before a matrix product: the weights are read all the same."""
    inner = (
        "h { p = f32[8,4] parameter(0) ROOT c = f32[8,4] copy(p) }"
        "g { p = f32[8,4] parameter(0)"
        " c = f32[8,4] fusion(p), kind=kLoop, output_to_operand_aliasing={{}: (0, {})}, calls=h"
        " ROOT b = f32[8,4] bitcast(c) }"
    )
    outer = "f { p = f32[8,4] parameter(0) g = f32[8,4] fusion(p), kind=kLoop, calls=g ROOT o = f32[8,4] negate(g) }"
    assert reads(inner + outer + HEAD + " ROOT r = f32[8,4] fusion(x), kind=kOutput, calls=f }") == [128]


def test_what_is_updated_in_place_is_touched_in_the_updated_part() -> None:
    body = f"{SLICE} a = f32[1,4] add(s, q) ROOT d = f32[8,4] dynamic-update-slice(p, a, j, k)"
    text = (
        f"f {{ p = f32[8,4] parameter(0) q = f32[1,4] parameter(1) j = s32[] parameter(2) k = s32[] constant(0) {body} }}"
        f"{HEAD} ROOT r = f32[8,4] fusion(x, u, i), kind=kLoop, calls=f }}"
    )
    graph = parse_hlo(text)
    entry = graph.entry_computation
    fusion = entry.root_instruction
    in_place = InPlace(graph)
    (pair,) = in_place.pairs(entry, fusion)
    assert Traffic(graph, in_place).update(fusion, pair, entry.instructions[0].shape) == 16 + 16
    assert fused(body, "f32[8,4]") == [16, 16, 4]


def test_a_program_moves_operands_and_results_but_no_views() -> None:
    assert moved_bytes(parse_hlo(HEAD + " v = f32[32] reshape(x) ROOT r = f32[32] negate(v) }")) == 2 * 128
    # The row that is sliced is read and written, and so are two indices.
    assert moved_bytes(parse_hlo(HEAD + " ROOT r = f32[1,4] dynamic-slice(x, i, z), dynamic_slice_sizes={1,4} }")) == (
        16 + 16 + 4 + 4
    )
    # The new row is read and written where the old one was.
    assert moved_bytes(parse_hlo(HEAD + " ROOT r = f32[8,4] dynamic-update-slice(x, u, i, z) }")) == 16 + 16 + 4 + 4


def test_loops_move_as_often_as_they_run_and_conditionals_as_their_largest_branch() -> None:
    text = """
    condition { p = (s32[], f32[8]) parameter(0) i = s32[] get-tuple-element(p), index=0 n = s32[] constant(3)
      ROOT r = pred[] compare(i, n), direction=LT }
    body { p = (s32[], f32[8]) parameter(0) i = s32[] get-tuple-element(p), index=0 o = s32[] constant(1)
      j = s32[] add(i, o) x = f32[8] get-tuple-element(p), index=1 y = f32[8] negate(x)
      ROOT r = (s32[], f32[8]) tuple(j, y) }
    small { x = f32[8] parameter(0) ROOT y = f32[8] negate(x) }
    large { x = f32[8] parameter(0) ROOT y = f32[8] add(x, x) }
    ENTRY e { x = f32[8] parameter(0) k = pred[] parameter(1) z = s32[] constant(0) t = (s32[], f32[8]) tuple(z, x)
      w = (s32[], f32[8]) while(t), condition=condition, body=body
      y = f32[8] get-tuple-element(w), index=1
      ROOT c = f32[8] conditional(k, y, y), true_computation=small, false_computation=large }
    """
    counter, product, branch = 4 + 4 + 1 + 3 * 4, 2 * 32, 3 * 32
    assert moved_bytes(parse_hlo(text)) == 3 * (counter + product) + branch
