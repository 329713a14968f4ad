from memplan.compiler.frontends import parse_hlo
from memplan.compiler.hardware.target import load_target
from memplan.compiler.mapping.build import build
from memplan.compiler.report.description import describe, describe_problem
from memplan.compiler.report.report import make_report
from memplan.compiler.report.trace import trace_json
from memplan.planners import planner as planners
from memplan.planners.planner import Budget

TEXT = """HloModule m, is_scheduled=true
%f (p: f32[4096]) -> f32[4096] {
  %p = f32[4096]{0} parameter(0)
  ROOT %g = f32[4096]{0} sine(%p), metadata={op_name="jit(f)/sin" source_file="model.py" source_line=7}
}
ENTRY %e (x: f32[4096]) -> f32[4096] {
  %x = f32[4096]{0} parameter(0)
  %y = f32[4096]{0} fusion(%x), kind=kLoop, calls=%f
  ROOT %r = f32[4096]{0} cosine(%y), metadata={op_name="jit(f)/cos" source_file="model.py" source_line=8}
}
"""


def test_operations_have_the_line_of_what_they_compute() -> None:
    built = build(parse_hlo(TEXT), load_target("tpu-v5e"))
    description = describe(built)
    assert [(source.op_name, source.place) for source in description.sources] == [
        ("jit(f)/sin", "model.py:7"),
        ("jit(f)/cos", "model.py:8"),
    ]
    assert [buffer.source for buffer in description.buffers][1:] == ["model.py:7", "model.py:8"]
    report = make_report(built.problem, planners.get("slow").plan(built.problem, Budget()), description=description)
    slices = [event for event in trace_json(report)["traceEvents"] if event["ph"] == "X"]
    assert [(event["args"]["op_name"], event["args"]["source"]) for event in slices] == [
        ("jit(f)/sin", "model.py:7"),
        ("jit(f)/cos", "model.py:8"),
    ]


def test_a_problem_alone_tells_no_lines() -> None:
    problem = build(parse_hlo(TEXT), load_target("tpu-v5e")).problem
    assert [source.place for source in describe_problem(problem).sources] == ["", ""]
