"""The same module by both routes, as text and as proto, is the same Graph."""

import ast
import pickle
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from io import BytesIO
from pathlib import Path

import pytest
from sample_modules import DATA, ROOT, text_of

from memplan.compiler.errors import MemplanError
from memplan.compiler.frontends import hlo_proto, hlo_text
from memplan.compiler.ir import Graph

# What a text states in its header and a HloModuleProto does not: it belongs to the HloModuleConfig beside the module.
CONFIGURATION = frozenset(
    {
        "alias_passthrough_params", "allow_spmd_sharding_propagation_to_output",
        "allow_spmd_sharding_propagation_to_parameters", "num_partitions", "replica_count",
    }
)  # fmt: skip

# An instruction of each kind whose attributes lie in the proto in a form of their own, with the parameters before it.
INSTRUCTIONS = {
    "block-scaled dot": """a = f8e4m3fn[2,16,32] parameter(0)
  b = f8e4m3fn[2,16,32] parameter(1)
  sa = f8e8m0fnu[2,16,1] parameter(2)
  sb = f8e8m0fnu[2,16,1] parameter(3)
  ROOT c = bf16[2,16,16] scaled-dot(a, b, sa, sb), lhs_batch_dims={0}, lhs_contracting_dims={2}, rhs_batch_dims={0}, rhs_contracting_dims={2}""",
    "vectorized convolution": """a = s8[8,28,28,16,4] parameter(0)
  k = s8[3,3,16,4,64] parameter(1)
  ROOT c = (s8[8,28,28,16,4], u8[0]) custom-call(a, k), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f?_01i?o->b01f?, custom_call_target="conv\"""",
    "sparse convolution": """a = f32[128,256] parameter(0)
  v = f32[64,64] parameter(1)
  i = s32[64,64] parameter(2)
  k = (f32[64,64], s32[64,64]) tuple(v, i)
  ROOT c = f32[128,64] convolution(a, k), dim_labels=bf_io->bf, sparsity_config={rhs={sparsity=1x4 dimension=0 stride=1}}""",
    "kind of a convolution": """a = f32[1,8,8,4] parameter(0)
  k = f32[3,3,4,8] parameter(1)
  ROOT c = f32[1,6,6,8] convolution(a, k), window={size=3x3}, dim_labels=b01f_01io->b01f, convolution_kind=wgrad, operand_precision={high,default}""",
    "custom call with all attributes": """a = f32[1,8,8,4] parameter(0)
  k = f32[3,3,4,8] parameter(1)
  ROOT c = f32[1,6,6,8] custom-call(a, k), window={size=3x3}, dim_labels=b01f_01io->b01f, operand_precision={high,default}, padding_type=PADDING_VALID, custom_call_target="f", operand_layout_constraints={f32[1,8,8,4]{3,2,1,0}, f32[3,3,4,8]{3,2,1,0}}, custom_call_has_side_effect=true, schedule=SCHEDULE_LATEST, api_version=API_VERSION_TYPED_FFI""",
    "aliases of a custom call": """a = f32[8] parameter(0)
  ROOT c = ((f32[8]), f32[4]) custom-call(a), custom_call_target="f", output_to_operand_aliasing={{0,0}: (0, {})}""",
    "empty window": """a = f32[8] parameter(0)
  ROOT c = f32[8] custom-call(a), window={}, custom_call_target="f\"""",
    "literal of a custom call": """ROOT c = f32[] custom-call(), custom_call_target="f", literal=s32[2]{0} {1, 2}""",
    "scalar as a literal": """ROOT c = f32[] custom-call(), custom_call_target="f", literal=f32[] 0.1""",
    "tuple as a literal": """ROOT c = f32[] custom-call(), custom_call_target="f", literal=(s32[2]{0} {1, 2}, pred[] true)""",
    "channel of 0": """t = token[] after-all()
  ROOT r = (f32[4], u32[], token[]) recv(t), channel_id=0, is_host_transfer=true""",
    "all-gather over channel 0": """a = f32[4] parameter(0)
  ROOT r = f32[8] all-gather(a), channel_id=0, replica_groups={{0,1}}, dimensions={0}, use_global_device_ids=true""",
    "permutation of slices": """a = f32[4,8] parameter(0)
  b = f32[4,8] parameter(1)
  z = s32[] constant(0)
  i = (s32[], s32[]) tuple(z, z)
  ROOT r = f32[4,8] collective-permute(a, b, i, i), source_target_pairs={{0,1}}, slice_sizes={{2,8}}""",
    "permutation of several slices": """a = f32[4,8] parameter(0)
  b = f32[4,8] parameter(1)
  z = s32[] constant(0)
  i = (s32[], s32[]) tuple(z, z)
  j = ((s32[], s32[]), (s32[], s32[])) tuple(i, i)
  ROOT r = f32[4,8] collective-permute(a, b, j, j), source_target_pairs={{0,1},{1,0}}, slice_sizes={{2,8},{1,8}}""",
    "metadata of a sharding": """a = f32[8,4] parameter(0), sharding={devices=[2,1]0,1 metadata={op_name="x" source_line=3}}
  ROOT b = f32[8,4] copy(a), sharding={replicated metadata={{op_name="x"}, {op_type="y"}}}""",
    "sharding of many elements": """a = f32[8] parameter(0)
  ROOT b = (f32[8], f32[8], f32[8], f32[8], f32[8], f32[8]) tuple(a, a, a, a, a, a), sharding={{replicated}, {replicated}, {replicated}, {replicated}, {replicated}, {devices=[2]0,1}}""",
    "sharding over a mesh": """a = f32[8,2] parameter(0), sharding={mesh['x'=2,'y'=2], [], unreduced={'x'}}
  b = f32[8,2] copy(a), sharding={mesh['x'=2,'y'=2], device_ids=(3,2,1,0), [{'x'}, {}], replicated={'y'}}
  c = f32[8,2] copy(b), sharding={mesh['x'=2], unreduced}
  d = f32[8,2] copy(c), sharding={mesh['x'=2], manual, metadata={{op_name="x"}}}
  e = f32[8,2] copy(d), sharding={mesh['x'=2,'y'=2], device_ids=([2,2]T(1,0)), [{?}, {'y'}], manual={'x'}, metadata={{op_name="x"}}}
  ROOT f = f32[8,2] copy(e), sharding={maximal_mesh[device_id=3]}""",
    "origin": """a = f32[8] parameter(0), origin={{"x" {1}}}
  b = (f32[8], f32[8]) tuple(a, a), origin={({"y"}, {})}
  ROOT c = (f32[8], (f32[8], f32[8])) tuple(a, b), origin={({"y"}, ({"y"}, {"z" {0}}))}""",
    "statistics": """a = f32[8] parameter(0)
  ROOT b = f32[8] add(a, a), statistics={visualizing_index=1,first=33,second=0.5}""",
    "accuracy after sharding": """a = f32[8] parameter(0)
  ROOT b = f32[8] exponential(a), sharding={replicated}, frontend_attributes={k="v"}, result_accuracy={mode=highest}""",
    "profile and payload in metadata": """a = f32[8] parameter(0), metadata={op_type="t" op_name="n" profile_type={1} deduplicated_name="d"}
  ROOT b = f32[8] add(a, a), metadata={metadata_payload="p"}""",
    "frontend attributes that are almost JSON": """a = f32[8] parameter(0), frontend_attributes={x={"k": {1}},y="{1}x{2}",z="{"}
  ROOT b = f32[8] add(a, a)""",
    "constants": """a = f32[1,1,2] constant({ { {1, 2} } })
  b = s32[3,1] constant({ {1}, {2}, {3} })
  c = s32[2,1,1,2] constant({ { /*i0=0*/ { /*i1=0*/ {1, 2} } }, { /*i0=1*/ { /*i1=0*/ {3, 4} } } })
  d = f32[2,0] constant({ {}, {} })
  e = s32[0,200] constant({ })
  f = bf16[2] constant({-nan(0x7f), nan})
  g = f8e4m3b11fnuz[2] constant({nan, 7})
  h = f16[2] constant({nan(0x1), -inf})
  ROOT i = f32[] constant(nan(0x3))""",
}  # fmt: skip

MODULES = {
    "scan": """HloModule m
f { x = f32[4] parameter(0) y = f32[4] parameter(1) z = f32[4] add(x, y) ROOT t = (f32[4], f32[4]) tuple(z, z) }
ENTRY e {
  x = f32[8,4] parameter(0)
  i = f32[4] parameter(1)
  ROOT s = (f32[8,4], f32[4]) scan(x, i), dimensions={0}, num_carries=1, is_reverse=true, is_associative=true, to_apply=f
}""",
    "aliases of an asynchronous call": """HloModule m
f { x = f32[8] parameter(0) ROOT y = (f32[8]) custom-call(x), custom_call_target="f" }
ENTRY e {
  x = f32[8] parameter(0)
  s = ((f32[8]), (f32[8]), s32[]) async-start(x), calls=f, output_to_operand_aliasing={{1,0}: (0, {})}
  u = ((f32[8]), (f32[8]), s32[]) async-update(s)
  ROOT d = (f32[8]) async-done(u)
}""",
    "aliases of an asynchronous computation": """HloModule m
f { x = f32[8] parameter(0) y = f32[8] add(x, x) ROOT z = f32[8] add(y, x) }, execution_thread="host"
ENTRY e {
  x = f32[8] parameter(0)
  s = ((f32[8]), f32[8], s32[]) async-start(x), async_execution_thread="host", calls=f, output_to_operand_aliasing={{1}: (0, {})}
  ROOT d = f32[8] async-done(s)
}""",
    "frontend attributes of what is asynchronous": """HloModule m
f { x = f32[8] parameter(0) ROOT y = f32[8] negate(x), sharding={replicated}, frontend_attributes={k="v"} }
ENTRY e {
  x = f32[8] parameter(0)
  s = ((f32[8]), f32[8], s32[]) async-start(x), calls=f
  ROOT d = f32[8] async-done(s)
}""",
    "asynchronous permutation of slices": """HloModule m
ENTRY e {
  a = f32[4,8] parameter(0)
  b = f32[4,8] parameter(1)
  z = s32[] constant(0)
  i = (s32[], s32[]) tuple(z, z)
  s = (f32[4,8], f32[4,8], u32[], u32[]) collective-permute-start(a, b, i, i), source_target_pairs={{0,1}}, slice_sizes={{2,8}}
  ROOT d = f32[4,8] collective-permute-done(s)
}""",
    "donors within tuples": """HloModule m, buffer_donor={ (0, {1,1}) }
ENTRY e { x = (f32[4], (f32[4], f32[4])) parameter(0) ROOT y = f32[4] get-tuple-element(x), index=0 }""",
    "dynamic dimensions": """HloModule m
ENTRY e { x = f32[<=16,4] parameter(0) ROOT y = f32[<=16,4] add(x, x) }""",
}  # fmt: skip

TEXTS = {name: f"HloModule m\nENTRY e {{\n  {body}\n}}" for name, body in INSTRUCTIONS.items()} | MODULES

# Reads pickled texts, and writes of each the proto and the text that XLA makes of it, or None where it refuses it.
_XLA = """
import pickle, sys
from jaxlib import _hlo
for text in pickle.load(sys.stdin.buffer):
    try:
        module = _hlo.hlo_module_from_text(text)
        made = module.as_serialized_hlo_module_proto(), module.to_string()
    except Exception:
        made = None
    pickle.dump(made, sys.stdout.buffer)
    sys.stdout.buffer.flush()
"""


def made_by_xla(texts: list[str]) -> list[tuple[bytes, str] | None]:
    """Returns XLA's proto and text of each module; None where it refuses it or, on a few, aborts its process."""
    found: list[tuple[bytes, str] | None] = []
    while len(found) < len(texts):
        rest = pickle.dumps(texts[len(found) :])
        child = subprocess.run([sys.executable, "-P", "-c", _XLA], input=rest, capture_output=True, check=False)
        written = BytesIO(child.stdout)
        while written.tell() < len(child.stdout):
            found.append(pickle.load(written))
        if child.returncode != 0:
            assert child.returncode < 0, child.stderr.decode()
            found.append(None)
    return found


def without_configuration(graph: Graph) -> Graph:
    return replace(graph, attributes=tuple(pair for pair in graph.attributes if pair[0] not in CONFIGURATION))


def without_tuple_constants(graph: Graph) -> Graph:
    """XLA prints a constant that is a tuple as `{...}`, however short it is; a proto holds it."""
    computations = {}
    for name, computation in graph.computations.items():
        instructions = tuple(
            replace(i, payload="{...}") if i.opcode == "constant" and i.shape.is_tuple else i
            for i in computation.instructions
        )
        computations[name] = replace(computation, instructions=instructions)
    return replace(graph, computations=computations)


def assert_same(proto: bytes, text: str) -> None:
    graph = without_tuple_constants(hlo_proto.parse(proto))
    assert graph == without_tuple_constants(without_configuration(hlo_text.parse(text)))


@cache
def xla_of_kinds() -> dict[str, tuple[bytes, str] | None]:
    return dict(zip(TEXTS, made_by_xla(list(TEXTS.values())), strict=True))


@pytest.mark.parametrize("name", TEXTS)
def test_each_kind_of_attribute(name: str) -> None:
    made = xla_of_kinds()[name]
    assert made is not None, "XLA's parser refuses the module"
    assert_same(*made)


def texts_in_tests() -> Iterator[str]:
    """Yields every string of the tests that may be a module, and the small modules beside them."""
    for file in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and "parameter(" in node.value:
                yield node.value
    data = [*DATA.iterdir(), *(ROOT / "tests/data/hlo").iterdir()]
    for path in sorted(path for path in data if path.name.endswith((".hlo", ".txt", ".txt.gz"))):
        if _is_small(path):
            yield text_of(path)


def _is_small(path: Path) -> bool:
    return len(text_of(path)) < 200_000


@pytest.mark.slow
def test_every_module_in_the_tests() -> None:
    texts = list(dict.fromkeys(texts_in_tests()))
    agreed = 0
    for made in made_by_xla(texts):
        if made is None:
            continue
        proto, text = made
        try:
            hlo_proto.parse(proto)
        except MemplanError as error:
            # Rules that XLA's parser does not check, such as the shapes of what a loop carries: both routes see to them.
            with pytest.raises(type(error)):
                hlo_text.parse(text)
            continue
        assert_same(proto, text)
        agreed += 1
    assert agreed >= 75
