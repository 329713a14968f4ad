"""Inferred shapes, layouts included, against those that XLA's parser infers."""

from __future__ import annotations

import re

import pytest
from jaxlib import _hlo

from memplan.compiler.errors import ParseError
from memplan.compiler.frontends.hlo_text import parse
from memplan.compiler.ir import Graph, Layout, Shape
from memplan.compiler.ir.inference import infer
from memplan.compiler.ir.inference.infer import SHAPES_IMPLIED, implied_shape, infer_shape
from memplan.compiler.ir.inference.operation import ShapeUnknown, higher_precision
from memplan.compiler.ir.shape import BITS_PER_ELEMENT, print_shape

CALLEES = """
sum { a = f32[] parameter(0) b = f32[] parameter(1) ROOT s = f32[] add(a, b) }
sum_bf16 { a = bf16[] parameter(0) b = bf16[] parameter(1) ROOT s = bf16[] add(a, b) }
two { a = f32[] parameter(0) i = s32[] parameter(1) b = f32[] parameter(2) j = s32[] parameter(3)
  ROOT t = (f32[], s32[]) tuple(a, i) }
less { a = f32[] parameter(0) b = f32[] parameter(1) ROOT s = pred[] compare(a, b), direction=LT }
less2 { a = f32[] parameter(0) b = f32[] parameter(1) c = s32[] parameter(2) d = s32[] parameter(3)
  ROOT s = pred[] compare(a, b), direction=LT }
ge { a = f32[] parameter(0) b = f32[] parameter(1) ROOT s = pred[] compare(a, b), direction=GE }
twice { a = f32[4,6]{0,1} parameter(0) ROOT s = f32[4,6]{0,1:T(2,128)} add(a, a) }
bounded { a = f32[<=4,6] parameter(0) ROOT s = f32[<=4,6] add(a, a) }
same { a = f32[4,6] parameter(0) ROOT s = f32[4,6] negate(a) }
body { p = (s32[], f32[4,6]) parameter(0) i = s32[] get-tuple-element(p), index=0
  x = f32[4,6] get-tuple-element(p), index=1 ROOT t = (s32[], f32[4,6]) tuple(i, x) }
condition { p = (s32[], f32[4,6]) parameter(0) ROOT c = pred[] constant(false) }
scanned { x = f32[6] parameter(0) c = f32[6] parameter(1) s = f32[6] add(x, c) ROOT t = (f32[6], f32[6]) tuple(s, s) }
to_int { a = f32[] parameter(0) ROOT i = s32[] convert(a) }
"""

PARAMETERS = """
f = f32[4,6] parameter(0)
t = f32[4,6]{0,1:T(8,128)S(5)} parameter(1)
h = bf16[4,6]{0,1} parameter(2)
i = s32[4,6] parameter(3)
c = c64[4,6]{0,1} parameter(4)
p = pred[4,6] parameter(5)
z = f32[] parameter(6)
zh = bf16[] parameter(7)
zi = s32[] parameter(8)
zp = pred[] parameter(9)
d = f32[<=4,6] parameter(10)
one = f32[1,6] parameter(11)
b = f32[2,4,6] parameter(12)
bt = f32[2,6,5]{0,1,2} parameter(13)
packed = s4[4,6]{1,0:E(4)} parameter(14)
image = f32[2,8,9,4] parameter(15)
kernel = bf16[3,3,2,16] parameter(16)
square = f32[2,6,6] parameter(17)
vec = f32[6] parameter(18)
carried = (s32[], f32[4,6]{0,1}) parameter(19)
tok = token[] parameter(20)
groups = s32[3] parameter(21)
index = s32[5,1] parameter(22)
updates = f32[5,6] parameter(23)
pool = f32[2,4,4,4] parameter(24)
bi = s32[2,7] parameter(25)
sizes = s64[2,5,3] parameter(26)
w = f32[3,6,5] parameter(27)
u = u8[4,6] parameter(28)
half = f32[4,4] parameter(29)
value = f32[3] parameter(30)
deep = f32[3,3,4,16] parameter(32)
big = f64[4,6] parameter(31)
"""

# What stands right of the name: one of each opcode whose shape XLA infers, more where the rule has several cases.
INFERRED = """
abs(c) abs(i) abs(t) real(c) imag(t) real(f) not(p) not(packed) negate(t) sign(i) is-finite(t) is-finite(h)
acos(f) acosh(f) asin(f) asinh(f) atanh(f) ceil(t) cosine(t) cosh(f) erf(f) exponential(t) exponential-minus-one(f)
floor(h) log(f) log-plus-one(f) logistic(f) round-nearest-afz(f) round-nearest-even(f) rsqrt(f) sine(f) sinh(f)
sqrt(f) cbrt(f) tan(f) tanh(h) count-leading-zeros(i) popcnt(i) copy(t) copy(carried) opt-barrier(f)
cholesky(square) cholesky(square),lower=true
add(f,t) add(t,f) add(f,h) add(h,f) add(d,f) add(f,d) add(f,one) add(one,f) add(z,z) add(packed,packed)
and(p,p) or(i,i) xor(i,i) atan2(f,f) divide(f,f) maximum(f,f) minimum(t,h) mulhi(i,i) multiply(c,c) power(f,f)
remainder(f,f) shift-left(i,i) shift-right-arithmetic(i,i) shift-right-logical(i,i) subtract(f,f) complex(f,t)
complex(big,big)
compare(f,t),direction=LT compare(t,f),direction=LT compare(packed,packed),direction=EQ
clamp(z,t,z) clamp(f,h,f) select(p,t,f) select(p,f,h) select(zp,t,f) select(p,d,f) select(zp,packed,packed) select(p,packed,packed)
transpose(f),dimensions={1,0} transpose(t),dimensions={1,0} transpose(bt),dimensions={2,0,1} transpose(d),dimensions={1,0}
transpose(z),dimensions={} transpose(f),dimensions={0,1} transpose(packed),dimensions={1,0}
broadcast(f),dimensions={2,3} broadcast(z),dimensions={} broadcast(d),dimensions={7} broadcast(z)
concatenate(f,f),dimensions={0} concatenate(t,h,f),dimensions={1} concatenate(d,f),dimensions={0}
concatenate(f,d),dimensions={1} concatenate(h),dimensions={0}
reverse(t),dimensions={0} domain(t),domain={kind="sharding",entry={},exit={}}
pad(f,z),padding=1_2x0_0 pad(f,z),padding=-1_2_3x0_0_1 pad(h,z),padding=0_0x1_1 pad(d,z),padding=1_1x0_0
get-dimension-size(d),dimensions={0} set-dimension-size(t,zi),dimensions={1}
topk(f),k=3,largest=true topk(d),k=2 fft(c),fft_type=FFT,fft_length={6} fft(c),fft_type=IFFT,fft_length={4,6}
fft(t),fft_type=RFFT,fft_length={6} fft(big),fft_type=RFFT,fft_length={4,6} fft(c),fft_type=IRFFT,fft_length={10}
gather(f,index),offset_dims={1},collapsed_slice_dims={0},start_index_map={0},index_vector_dim=1,slice_sizes={1,6}
gather(f,index),offset_dims={0},collapsed_slice_dims={0},start_index_map={0},index_vector_dim=1,slice_sizes={1,2}
gather(f,index),offset_dims={2},collapsed_slice_dims={0},start_index_map={0},index_vector_dim=2,slice_sizes={1,2}
gather(b,bi),offset_dims={2},collapsed_slice_dims={1},start_index_map={1},operand_batching_dims={0},start_indices_batching_dims={0},index_vector_dim=2,slice_sizes={1,1,6}
gather(d,index),offset_dims={1},collapsed_slice_dims={0},start_index_map={0},index_vector_dim=1,slice_sizes={1,6}
scatter(f,index,updates),update_window_dims={1},inserted_window_dims={0},scatter_dims_to_operand_dims={0},index_vector_dim=1,to_apply=sum
dot(f,f),lhs_contracting_dims={1},rhs_contracting_dims={1} dot(t,h),lhs_contracting_dims={0},rhs_contracting_dims={0}
dot(b,bt),lhs_batch_dims={0},rhs_batch_dims={0},lhs_contracting_dims={2},rhs_contracting_dims={1}
dot(f,f),lhs_contracting_dims={},rhs_contracting_dims={} dot(d,f),lhs_contracting_dims={1},rhs_contracting_dims={1}
dot(f,vec),lhs_contracting_dims={1},rhs_contracting_dims={0} dot(u,packed),lhs_contracting_dims={0},rhs_contracting_dims={0}
scaled-dot(f,h,f,h),lhs_contracting_dims={1},rhs_contracting_dims={1}
ragged-dot(f,w,groups),lhs_contracting_dims={1},rhs_contracting_dims={1},lhs_ragged_dims={0},rhs_group_dims={0}
ragged-dot(f,f,groups),lhs_contracting_dims={0},rhs_contracting_dims={0},lhs_ragged_dims={0}
ragged-dot(b,bt,groups),lhs_batch_dims={0},rhs_batch_dims={0},lhs_contracting_dims={2},rhs_contracting_dims={1},lhs_ragged_dims={0}
convolution(image,kernel),window={size=3x3},dim_labels=b01f_01io->b01f,feature_group_count=2
convolution(image,kernel),window={size=3x3 stride=2x1 pad=1_1x-1_2 lhs_dilate=1x2 rhs_dilate=2x1},dim_labels=b01f_01io->f0b1,feature_group_count=2
convolution(image,deep),window={size=3x3 rhs_reversal=1x1},dim_labels=b01f_01io->01bf,batch_group_count=2
convolution(f,f),dim_labels=bf_oi->bf
reduce-window(image,z),window={size=1x2x3x1 stride=1x2x2x1 pad=0_0x1_1x0_0x0_0},to_apply=sum
reduce-window(f,z),window={size=9x1},to_apply=sum
select-and-scatter(image,pool,z),window={size=1x2x3x1 stride=1x2x2x1},select=ge,scatter=sum
reduce(t,z),dimensions={0},to_apply=sum reduce(f,z),dimensions={0,1},to_apply=sum reduce(d,z),dimensions={1},to_apply=sum
reduce(f,i,z,zi),dimensions={1},to_apply=two reduce(f,zh),dimensions={1},to_apply=sum_bf16
sort(t),dimensions={0},to_apply=less sort(f,i),dimensions={1},to_apply=less2
map(f,t),dimensions={0,1},to_apply=sum map(t),dimensions={0,1},to_apply=to_int map(z,t),dimensions={0,1},to_apply=sum
tuple(t,carried,z) tuple() get-tuple-element(carried),index=1
call(t),to_apply=twice while(carried),condition=condition,body=body
conditional(zp,f,f),true_computation=same,false_computation=twice conditional(zi,f,t),branch_computations={twice,same}
conditional(zp,d,f),true_computation=bounded,false_computation=same
conditional(zp,f,d),true_computation=same,false_computation=bounded
scan(f,vec),dimensions={0},num_carries=1,to_apply=scanned
batch-norm-training(t,vec,vec),epsilon=0.1,feature_index=1 batch-norm-inference(t,vec,vec,vec,vec),epsilon=0.1,feature_index=1
batch-norm-grad(t,vec,vec,vec,f),epsilon=0.1,feature_index=1
triangular-solve(square,bt),left_side=true,transpose_a=NO_TRANSPOSE
partition-id() replica-id() after-all() after-all(tok) add-dependency(t,tok)
"""

CASES = re.split(r"\s+(?=[a-z][\w\-]*\()", INFERRED.strip())


def module(case: str) -> str:
    used = set(re.findall(r"\w+", case.partition("(")[2].partition(")")[0]))
    lines = [line for line in PARAMETERS.splitlines() if line and line.split()[0] in used]
    renumbered = [re.sub(r"parameter\(\d+\)", f"parameter({n})", line) for n, line in enumerate(lines)]
    return "HloModule m\n" + CALLEES + "ENTRY e {\n" + "\n".join([*renumbered, f"ROOT result = {case}"]) + "\n}\n"


def default_layouts(shape: Shape) -> Shape:
    """Returns a shape as XLA prints it, with the default layout where there is none."""
    if shape.is_tuple:
        return Shape("tuple", elements=tuple(default_layouts(element) for element in shape.elements))
    if shape.layout is None and shape.dims:
        return Shape(shape.dtype, shape.dims, Layout(tuple(reversed(range(len(shape.dims))))), shape.dynamic)
    return shape


def result(graph: Graph) -> str:
    return print_shape(default_layouts(graph.entry_computation.root_instruction.shape))


@pytest.mark.parametrize("case", CASES)
def test_as_xla_infers(case: str) -> None:
    text = module(case)
    try:
        printed = _hlo.hlo_module_from_text(text).to_string()
    except Exception as error:
        if not case.startswith("opt-barrier"):  # which XLA's parser means to infer, and cannot
            pytest.fail(str(error))
        assert result(parse(text)) == "f32[4,6]{1,0}"
        return
    assert result(parse(text)) == result(parse(printed))


def test_every_rule_is_compared() -> None:
    assert {re.split(r"\(", case)[0] for case in CASES} == set(infer._RULES)


@pytest.mark.parametrize("opcode", ["bitcast", "reshape", "slice", "iota", "convert", "custom-call", "fusion", "rng"])
def test_what_does_not_follow(opcode: str) -> None:
    text = module("negate(f)").replace("result = negate(f)", f"result = {opcode}(f)")
    with pytest.raises(ParseError, match=rf"its shape is left out, and that of '{opcode}' does not follow from its"):
        parse(text)
    with pytest.raises(Exception, match="cannot infer shape"):
        _hlo.hlo_module_from_text(text)


FLOATS = [dtype for dtype in BITS_PER_ELEMENT if re.match(r"b?f\d", dtype)]
INTEGERS = [dtype for dtype in BITS_PER_ELEMENT if re.match(r"[su]\d|pred", dtype)]


def test_the_type_that_holds_more() -> None:
    """For any two types, as XLA infers it for the results of products."""
    types = [*FLOATS, *INTEGERS, "c64", "c128"]
    lines = [f"{dtype} = {dtype}[2] parameter({n})" for n, dtype in enumerate(types)]
    # XLA aborts where two types hold as much as each other, but are not the same.
    ties = ({"f8e4m3", "f8e4m3fnuz"}, {"f8e5m2", "f8e5m2fnuz"}, {"pred", "u1"})
    pairs = [(a, b) for a in types for b in types if {a, b} not in ties]
    attributes = "lhs_contracting_dims={0}, rhs_contracting_dims={0}"
    lines += [f"d_{a}_{b} = dot(p_{a}, p_{b}), {attributes}" for a, b in pairs]
    text = "ENTRY e {\n" + "\n".join([*lines, "ROOT r = tuple()"]) + "\n}\n"
    text = re.sub(r"^(\w+) = (\w+\[2\])", r"p_\1 = \2", text, flags=re.MULTILINE)
    graph = parse(_hlo.hlo_module_from_text(text).to_string())
    entry = graph.entry_computation
    for a, b in pairs:
        assert higher_precision(a, b) == entry.instructions[entry.index[f"d_{a}_{b}"]].shape.dtype, (a, b)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("add(f,vec)", "its operands are of 2 and 1 dimensions"),
        ("add(f,image)", "its operands are of 2 and 4 dimensions"),
        ("add(f,half)", "dimensions of size 6 and 4 do not agree"),
        ("add(f,carried)", "operand 1 is (s32[], f32[4,6]{0,1}), which is no array"),
        ("add(f)", "'add' does not take 1 operands"),
        ("transpose(f),dimensions={1}", "it does not say where each dimension goes"),
        ("transpose(f),dimensions={1,1}", "dimensions={1,1} names no dimensions of its operand"),
        ("reduce(f,z),dimensions={7},to_apply=sum", "dimensions={7} names no dimensions of its operand"),
        ("reduce(f,z),dimensions={1}", "the attributes of 'reduce' do not agree with its operands"),
        ("broadcast(f),dimensions={-1}", "a dimension has a negative size"),
        ("pad(f,z),padding=-9_1x0_0", "the padding takes away more than there is"),
        ("pad(f,z),padding=x", "the attributes of 'pad' do not agree with its operands"),
        ("get-tuple-element(carried),index=7", "which has no element 7"),
        ("reduce-window(f,z),window={size=2},to_apply=sum", "its window has 1 dimensions, its operand 2"),
        ("concatenate(f,half),dimensions={0}", "dimensions of size 6 and 4 do not agree"),
        ("fft(i),fft_type=RFFT,fft_length={6}", "the attributes of 'fft' do not agree with its operands"),
    ],
)
def test_operands_that_do_not_agree(case: str, message: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse(module(case))
    assert "its shape is left out, and" in str(caught.value)
    assert message in str(caught.value)
    if not case.startswith("get-tuple-element"):  # on which XLA aborts
        with pytest.raises(Exception, match=r"infer|expects|attribute"):
            _hlo.hlo_module_from_text(module(case))


def test_what_stands_later_tells_nothing() -> None:
    with pytest.raises(ParseError, match="and an operand stands after it"):
        parse("ENTRY e { ROOT a = negate(b) b = f32[8] parameter(0) }")
    with pytest.raises(ParseError, match="and a computation that it calls stands after it"):
        parse("ENTRY e { a = f32[8] parameter(0) ROOT b = call(a), to_apply=f } f { a = f32[8] parameter(0) }")


def test_results_of_absurd_size() -> None:
    with pytest.raises(ParseError, match=r"its result takes more than 2\^63 - 1 bytes"):
        parse("ENTRY e { a = u8[4611686018427387904] parameter(0) ROOT b = broadcast(a), dimensions={2,2} }")


@pytest.mark.parametrize(
    ("stated", "case"),
    [
        ("(f32[4,6], token[])", "send(f, tok), channel_id=1"),
        ("f32[]", "after-all(tok)"),
        ("f32[]", "add-dependency(f, tok)"),
        ("()", "outfeed(f, tok)"),
        ("(f32[4,6], token[], token[])", "infeed(tok)"),
        ("(f32[4,6]{0,1}, s8[2])", "recv(tok), channel_id=1"),
    ],
)
def test_what_xla_derives_whatever_is_stated(stated: str, case: str) -> None:
    text = module(case).replace("result = ", f"result = {stated} ")
    assert result(parse(text)) == result(parse(_hlo.hlo_module_from_text(text).to_string()))


def test_a_stated_shape_remains_where_it_differs_in_layouts_alone() -> None:
    operand = Shape("f32", (4, 6))
    for opcode in ("send-done", "recv-done", "recv"):
        assert opcode in SHAPES_IMPLIED
    moved = Shape("f32", (4, 6), Layout((1, 0), memory_space=1))
    stated = Shape("tuple", elements=(moved, Shape("u32"), Shape("token")))
    assert implied_shape("send", stated, [operand, Shape("token")]) is stated
    assert implied_shape("recv-done", Shape("f32"), [stated]).elements == (moved, Shape("token"))
    assert implied_shape("recv", Shape("tuple"), [operand]) == Shape("tuple")
    with pytest.raises(ShapeUnknown):
        infer_shape("custom-call", [operand], {}, [])
