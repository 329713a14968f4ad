"""Names of any characters print as names that the readers take."""

import random
import string
from dataclasses import replace

import pytest
from jaxlib import _hlo

from memplan.compiler.frontends import parse_hlo
from memplan.compiler.frontends.reader import parse_bytes
from memplan.compiler.ir.graph import Computation, Graph
from memplan.compiler.ir.names import legal_name, with_legal_names, without_controls
from memplan.compiler.ir.printer import print_graph

# Names of one length, which are replaced in the bytes of the proto.
LENGTH = 24
NAMES = {name: name * LENGTH for name in "abcdefg"}
TEXT = """HloModule {a}, is_scheduled=true, frontend_attributes={{key="{g}"}}

%{b} (p: f32[64]) -> f32[64] {{
  %p = f32[64]{{0}} parameter(0)
  ROOT %{c} = f32[64]{{0}} negate(%p)
}}

ENTRY %{d} (x: f32[64]) -> f32[64] {{
  %{e} = f32[64]{{0}} parameter(0)
  %{f} = f32[64]{{0}} call(%{e}), to_apply=%{b}, metadata={{op_name="{g}"}}
  ROOT %r = f32[64]{{0}} add(%{f}, %{e}), control-predecessors={{%{e}}}
}}
""".format(**NAMES)


def proto_with(names: dict[str, str]) -> bytes:
    """Returns the proto of TEXT with other names: exactly as many bytes are taken, filled up with `-`."""
    proto: bytes = _hlo.hlo_module_from_text(TEXT).as_serialized_hlo_module_proto()
    for letter, name in names.items():
        new = name.encode()
        while len(new) > LENGTH:
            name = name[:-1]
            new = name.encode()
        proto = proto.replace((letter * LENGTH).encode(), new.ljust(LENGTH, b"-"))
    return proto


HOSTILE = (
    "<script>x()</script>&\"'", "\x1b[2J\x1b]0;t\x07]]>", "\u202egnp.exe\u2066", "line\nline\r\n", "a, b={c}(d)[e]%f",
    "ENTRY %x (y) -> z {", "\0\x01\x7f\x80", "0digit", " ", "naïve", "日本語", "#1", "a:b", "/*", "*/ //", '"', "\\", "ROOT",
    "[red]bold[/red]", "$x^2$", "-", ".", "\u2028\u2029", "true", "f32", "=", "%", "|a|b|",
)  # fmt: skip


def check_round_trip(graph: Graph) -> None:
    text = print_graph(graph)
    again = parse_hlo(text)
    assert print_graph(again) == text
    assert again == replace(with_legal_names(graph), attributes=again.attributes, tables=again.tables)
    assert _hlo.hlo_module_from_text(text).to_string()
    assert not any(character < " " and character != "\n" for character in text)
    assert "\u202e" not in text


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("letter", NAMES)
def test_one_hostile_name(letter: str, name: str) -> None:
    graph = parse_bytes(proto_with({letter: name}))
    assert len(graph.entry_computation.instructions) == 3
    check_round_trip(graph)


def test_names_that_become_alike_stay_apart() -> None:
    graph = parse_bytes(proto_with({"d": "x y", "b": "x/y", "c": "z w", "e": "z(w", "f": "z)w", "a": "", "g": ""}))
    printed = with_legal_names(graph)
    assert len(printed.computations) == 2
    names = [instruction.name for instruction in printed.entry_computation.instructions]
    assert len(set(names)) == 3
    check_round_trip(graph)


def test_random_names() -> None:
    generator = random.Random(0)
    alphabet = string.printable + "\0\x1b\x7f\x85\u202e\u2066\u200f\ufeffäß€𝄞"
    for _ in range(300):
        names = {letter: "".join(generator.choices(alphabet, k=generator.randint(1, LENGTH))) for letter in NAMES}
        names["a"] = names["a"].lstrip("\n")  # With that, the bytes look like those of a message around the module.
        if names["b"] == names["d"]:
            continue
        check_round_trip(parse_bytes(proto_with(names)))


def test_opcodes_that_are_none() -> None:
    graph = parse_hlo("HloModule m\nENTRY e { x = f32[8] parameter(0)\n ROOT y = f32[8] negate(x) }")
    entry = graph.entry_computation
    for opcode in ("my op", "(", "5x", "", "é"):
        root = replace(entry.instructions[1], opcode=opcode)
        odd = Computation("e", (entry.instructions[0], root), 1)
        text = print_graph(replace(graph, computations={"e": odd}))
        assert print_graph(parse_hlo(text)) == text


def test_a_graph_of_legal_names_is_left_alone() -> None:
    graph = parse_hlo(TEXT)
    assert with_legal_names(graph) is graph
    assert legal_name("") == "_"


def test_controls_are_octal() -> None:
    assert without_controls('a\t"\x1b\u202e\ud800"\n') == 'a\t"\\033\\342\\200\\256\\355\\240\\200"\n'
