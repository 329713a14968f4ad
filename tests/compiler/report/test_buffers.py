"""What a person may know of a buffer, for programs whose answer is known."""

import pytest

from memplan.compiler.analysis.flatten import flatten
from memplan.compiler.frontends import parse_hlo
from memplan.compiler.hardware.target import load_target
from memplan.compiler.mapping.build import build
from memplan.compiler.report.buffers import (
    BufferDescription,
    BufferKind,
    GroupBy,
    describe_bare,
    describe_buffers,
    describe_storages,
    labels_of,
)

MODULE = """HloModule step, is_scheduled=true, input_output_alias={ {0}: (0, {}, may-alias) }

FileNames
1 "model.py"

FunctionNames
1 "f"

FileLocations
1 {file_name_id=1 function_name_id=1 line=7 end_line=7 column=1 end_column=2}
2 {file_name_id=1 function_name_id=1 line=9 end_line=9 column=1 end_column=2}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=1}

inner {
  p = f32[10,100]{1,0:T(8,128)} parameter(0)
  ROOT tanh.1 = f32[10,100]{1,0:T(8,128)} tanh(p), metadata={op_name="jit(f)/jvp(Model)/layer_0/tanh" stack_frame_id=1}
}

ENTRY main {
  w.1 = f32[10,100]{1,0:T(8,128)} parameter(0), metadata={op_name="params['layer_0']['w']"}
  x.1 = f32[10,100]{1,0:T(8,128)} parameter(1), metadata={op_name="params['layer_1']['w']"}
  one = f32[]{:T(128)} constant(1)
  copy.1 = f32[10,100]{0,1:T(8,128)} copy(x.1)
  fused = f32[10,100]{1,0:T(8,128)} fusion(x.1), kind=kLoop, calls=inner
  up = f32[10,100]{1,0:T(8,128)} add(fused, copy.1), metadata={op_name="jit(f)/jvp(Model)/layer_1/tanh" stack_frame_id=2}
  new = f32[10,100]{1,0:T(8,128)} multiply(w.1, up), metadata={op_name="jit(f)/mul" stack_frame_id=2}
  loss = f32[]{:T(128)} custom-call(up, one), custom_call_target="sum"
  ROOT out = (f32[10,100]{1,0:T(8,128)}, f32[]{:T(128)}) tuple(new, loss)
}
"""


@pytest.fixture(scope="module")
def described() -> dict[str, BufferDescription]:
    return {each.name: each for each in describe_storages(flatten(parse_hlo(MODULE)))}


def test_sizes_and_the_padding_of_the_layout(described: dict[str, BufferDescription]) -> None:
    assert described["up"].shape == "f32[10,100]"
    assert described["up"].size == 16 * 128 * 4
    assert described["up"].padding == (16 * 128 - 10 * 100) * 4
    assert described["copy.1"].size == 104 * 128 * 4
    assert described["loss"].padding == (128 - 1) * 4


def test_kinds_and_why_they_are_alive(described: dict[str, BufferDescription]) -> None:
    kinds = {name: each.kind for name, each in described.items()}
    assert kinds == {
        "w.1": BufferKind.UPDATED,
        "x.1": BufferKind.ARGUMENT,
        "one": BufferKind.CONSTANT,
        "copy.1": BufferKind.TEMPORARY,
        "fused": BufferKind.TEMPORARY,
        "up": BufferKind.TEMPORARY,
        "loss": BufferKind.RESULT,
    }
    assert described["w.1"].aliases == ("new",)
    assert described["w.1"].why_alive == "donated: a result takes its memory"
    assert described["x.1"].why_alive == "argument, not donated; last read by fused"
    assert described["up"].why_alive == "made by up, last read by loss"
    assert described["loss"].why_alive == "result, made by loss"


def test_lines_also_where_a_compiler_left_them_out(described: dict[str, BufferDescription]) -> None:
    assert described["up"].source == "model.py:9"
    assert described["fused"].source == "model.py:7"  # of what it computes
    assert described["copy.1"].op_name == "copy of params['layer_1']['w']"
    assert described["w.1"].source == ""


def test_labels(described: dict[str, BufferDescription]) -> None:
    names = ["w.1", "x.1", "one", "copy.1", "fused", "up"]

    def labels(by: GroupBy) -> list[str]:
        found = dict(zip(described, labels_of(tuple(described.values()), by), strict=True))
        return [found[name] for name in names]

    tanh = "jit(f)/jvp(Model)/layer_*/tanh"
    assert labels(GroupBy.LINE) == [
        "argument params", "argument params", "constants", "copy of argument params", "model.py:7", "model.py:9",
    ]  # fmt: skip
    assert labels(GroupBy.OP)[:2] == ["params['layer_*']['w']"] * 2
    assert labels(GroupBy.OP)[4:] == [tanh, tanh]
    assert labels(GroupBy.SHAPE) == ["f32[10,100]", "f32[10,100]", "f32[]", "f32[10,100]", "f32[10,100]", "f32[10,100]"]
    assert labels(GroupBy.LAYER)[:2] == ["params['layer_*']"] * 2
    assert labels(GroupBy.LAYER)[4:] == ["Model/layer_*"] * 2
    assert [described[name].group for name in names] == labels(GroupBy.LAYER)


def test_buffers_of_a_problem_are_described_in_its_order() -> None:
    built = build(parse_hlo(MODULE), load_target("tpu-v5e"))
    buffers = describe_buffers(built)
    assert [each.name for each in buffers] == [buffer.name for buffer in built.problem.buffers]
    assert [each.size for each in buffers] == [buffer.size for buffer in built.problem.buffers]
    bare = describe_bare(built.problem)
    for known, guessed in zip(buffers, bare, strict=True):
        assert (guessed.producer, guessed.last_use) == (known.producer, known.last_use)
        assert guessed.kind == known.kind or known.kind is BufferKind.CONSTANT
        assert guessed.group


LOOP = """HloModule loop
body {
  s = (s32[], f32[4,8]) parameter(0)
  i = s32[] get-tuple-element(s), index=0
  stack = f32[4,8] get-tuple-element(s), index=1
  row = f32[1,8] custom-call(i), custom_call_target="row", metadata={op_name="jit(f)/while/body/tanh" source_file="m.py" source_line=3}
  zero = s32[] constant(0)
  set = f32[4,8] dynamic-update-slice(stack, row, i, zero), metadata={op_name="jit(f)/while/body/dus" source_file="m.py" source_line=5}
  one = s32[] constant(1)
  next = s32[] add(i, one)
  ROOT r = (s32[], f32[4,8]) tuple(next, set)
}
condition {
  s = (s32[], f32[4,8]) parameter(0)
  i = s32[] get-tuple-element(s), index=0
  four = s32[] constant(4)
  ROOT less = pred[] compare(i, four), direction=LT
}
ENTRY main {
  x = f32[] parameter(0)
  zero = s32[] constant(0)
  empty = f32[4,8] broadcast(x), dimensions={}, metadata={op_name="jit(f)/zeros" source_file="m.py" source_line=1}
  t = (s32[], f32[4,8]) tuple(zero, empty)
  w = (s32[], f32[4,8]) while(t), condition=condition, body=body
  got = f32[4,8] get-tuple-element(w), index=1
  ROOT y = f32[4,8] tanh(got)
}
"""


def test_what_a_loop_fills_is_told_by_its_updates() -> None:
    described = {each.name: each for each in describe_storages(flatten(parse_hlo(LOOP)))}
    stack = described["empty"]
    assert stack.is_carried
    assert (stack.source, stack.op_name) == ("m.py:5", "jit(f)/while/body/dus")
    assert stack.why_alive == "made by empty, updated in place, last read by y"


def test_a_buffer_that_is_copied_in_slices_has_the_shape_of_the_whole() -> None:
    text = """HloModule m, is_scheduled=true
ENTRY e {
  w = f32[16,128]{1,0:T(8,128)} parameter(0), metadata={op_name="params['w']"}
  s0 = ((f32[16,128]{1,0:T(8,128)}), f32[8,128]{1,0:T(8,128)S(1)}, s32[]) slice-start(w), slice={[0:8], [0:128]}
  s1 = ((f32[16,128]{1,0:T(8,128)}), f32[8,128]{1,0:T(8,128)S(1)}, s32[]) slice-start(w), slice={[8:16], [0:128]}
  d0 = f32[8,128]{1,0:T(8,128)S(1)} slice-done(s0)
  d1 = f32[8,128]{1,0:T(8,128)S(1)} slice-done(s1)
  all = f32[16,128]{1,0:T(8,128)S(1)} custom-call(d0, d1), custom_call_target="ConcatBitcast"
  ROOT out = f32[16,128]{1,0:T(8,128)} negate(all)
}
"""
    program = flatten(parse_hlo(text))
    found = [
        each for each, storage in zip(describe_storages(program), program.storages, strict=True) if storage.memory_space
    ]
    assert [(each.shape, each.padding, each.op_name) for each in found] == [("f32[16,128]", 0, "copy of params['w']")]
