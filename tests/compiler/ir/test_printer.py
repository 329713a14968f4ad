import gzip
from pathlib import Path

import pytest

from memplan.compiler.frontends import parse_hlo
from memplan.compiler.ir.printer import print_graph, print_instruction

ROOT = Path(__file__).parents[3]
DUMPS = [ROOT / f"workloads/dumps/{name}.hlo.txt.gz" for name in (
    "lstm_train.tpu-v5e.default", "transformer_infer.tpu-v5e.default", "transformer_infer.tpu-v4.slow", "decode_kv.tpu-v4.default",
)]  # fmt: skip

SMALL = """HloModule small, is_scheduled=true, input_output_alias={ {0}: (1, {}, must-alias), {1}: (0, {2, 0}, may-alias) }, replica_count=2

FileNames
1 "a.py"

FunctionNames
1 "f"

FileLocations
1 {file_name_id=1 function_name_id=1 line=3 end_line=3 column=1 end_column=2}

StackFrames
1 {file_location_id=1 parent_frame_id=1}


%f (a: f32[]) -> f32[] {
  ROOT %a = f32[] parameter(0)
}, execution_thread="host"

ENTRY %main (p: (f32[], f32[], (f32[8])), q: f32[8]) -> (f32[8], f32[8], f32[8], f32[8], f32[8], /*index=5*/f32[8]) {
  %p = (f32[], f32[], (f32[8]{0})) parameter(0), sharding={{replicated}, {replicated}, {replicated}}
  %q = f32[8]{0} parameter(1)
  %c = f32[2,2]{1,0} constant({
    { 1, 2 },
    { 3, 4 }
  })
  %n = f32[8]{0:T(256)} negate(%q), control-predecessors={%c, %p}, metadata={op_name="jit(f)/neg" stack_frame_id=1}, backend_config={"a":{"b":"}"}}
  ROOT %r = (f32[8]{0}, f32[8]{0}, f32[8]{0}, f32[8]{0}, f32[8]{0}, /*index=5*/f32[8]{0}) tuple(%q, %n, %q, %q, %q, /*index=5*/%q)
}

"""


def test_a_module_prints_as_it_was() -> None:
    graph = parse_hlo(SMALL)
    assert print_graph(graph) == SMALL
    assert parse_hlo(print_graph(graph)) == graph


def test_instruction() -> None:
    entry = parse_hlo(SMALL).entry_computation
    assert print_instruction(entry.instructions[1], entry) == "%q = f32[8]{0} parameter(1)"


@pytest.mark.parametrize("file", DUMPS, ids=lambda file: file.name)
def test_modules_of_the_tpu_compiler_print_byte_for_byte(file: Path) -> None:
    text = gzip.decompress(file.read_bytes()).decode()
    printed = print_graph(parse_hlo(text))
    assert printed == text


@pytest.mark.parametrize(
    "text",
    [
        "ENTRY e { x = f32[8] parameter(0) ROOT y = f32[8] add(x, x) z = f32[8] negate(x) }",
        "f { a = f32[] parameter(0) } ENTRY g { ROOT c = f32[] call(b), to_apply=f b = f32[] constant(nan) }",
        'HloModule m, z={1}, a="x\\"y"\nENTRY e { x = token[] after-all() ROOT y = b(f32[8]{0:S(1)}) custom-call(x), t="a}b" }',
        "ENTRY e { p = ((f32[<=8], s4[3]{0:E(4)}), f32[?,2]) parameter(0) ROOT q = s4[3]{0:E(4)} negate(p#0#1) }",
    ],
)
def test_print_then_parse_is_the_identity(text: str) -> None:
    graph = parse_hlo(text)
    assert parse_hlo(print_graph(graph)) == graph
    assert print_graph(parse_hlo(print_graph(graph))) == print_graph(graph)


@pytest.mark.parametrize(
    "file", [DUMPS[0], ROOT / "tests/compiler/frontends/data/every_opcode.hlo"], ids=lambda f: f.name
)
def test_the_parser_of_xla_takes_what_is_printed(file: Path) -> None:
    from jaxlib import _hlo

    content = file.read_bytes()
    text = gzip.decompress(content).decode() if file.suffix == ".gz" else content.decode()
    printed = print_graph(parse_hlo(text))
    assert _hlo.hlo_module_from_text(printed).to_string() == _hlo.hlo_module_from_text(text).to_string()
