from memplan.compiler.frontends import parse_hlo

GRAPH = parse_hlo("""
double { a = f32[8] parameter(0) ROOT b = f32[8] add(a, a) }
ENTRY e {
  y = f32[8] parameter(1)
  x = f32[8] parameter(0)
  ROOT z = f32[8] call(x), to_apply=double, metadata={op_name="z"}
}
""")


def test_computation_indices() -> None:
    entry = GRAPH.entry_computation
    assert entry.parameters == (1, 0)
    assert entry.users == ((), (2,), ())
    assert entry.index == {"y": 0, "x": 1, "z": 2}
    assert entry.root_instruction.name == "z"
    assert GRAPH.computations["double"].users == ((1,), ())  # each user once


def test_attributes_and_callees() -> None:
    call = GRAPH.entry_computation.root_instruction
    assert call.attribute("to_apply") == "double"
    assert call.attribute("body", "none") == "none"
    assert GRAPH.called(call, "to_apply").name == "double"
    assert [instruction.name for _, instruction in GRAPH.instructions()] == ["a", "b", "y", "x", "z"]
