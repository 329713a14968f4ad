from dataclasses import replace

import pytest

from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.report.buffers import BufferKind
from memplan.compiler.report.description import describe_problem
from memplan.compiler.report.report import Report, make_report
from memplan.compiler.report.tables import report_text


def test_the_whole_text(report: Report) -> None:
    assert report_text(report).splitlines()[:9] == [
        "tiny on test-chip, 1.00 kHz: 8 operations, 5 buffers",
        "",
        "                          latency  cycles  gap to bound  waiting  copies  copied  peak hbm  peak vmem",
        "all in hbm                 9.40 s   9,400      +240.6 %      0 s       0     0 B     340 B       30 B",
        "by-hand                    5.70 s   5,700      +106.5 %   800 ms       1    80 B     340 B       90 B",
        "bound that no plan beats   2.76 s   2,760",
        "The bound is the latency with all memories large enough.",
        "",
        "The 4 groups of buffers that cost most, and why they are where they are",
    ]


def test_the_most_costly_buffer(report: Report) -> None:
    text = report_text(report)
    assert (
        " 1. r\n    200 B result in hbm: costs 1.80 s (31.6 % of the latency)\n     - its 200 B do not fit vmem" in text
    )


def test_layers_that_repeat_are_one_entry(problem: MappingProblem, plan: Plan) -> None:
    known = describe_problem(problem)
    described = [
        replace(
            each, op_name=f"jit(f)/layer_{number}/mul", file="m.py", line=7, shape="f32[10]", kind=BufferKind.TEMPORARY
        )
        for number, each in enumerate(known.buffers)
    ]
    report = make_report(problem, plan, description=replace(known, buffers=tuple(described)))
    (group,) = report.groups
    assert [problem.buffers[number].name for number in group.buffers] == ["r", "w", "s", "x"]
    assert group.lost == pytest.approx(report.costs.lost.sum())
    text = report_text(report)
    assert " 1. jit(f)/layer_*/mul  f32[10]  m.py:7\n    200 B result ×4 in hbm, vmem: costs" in text
    assert "     - r: its 200 B do not fit vmem" in text


def test_a_long_reason_hangs_under_its_beginning(report: Report) -> None:
    lines = report_text(report).splitlines()
    wrapped = [line for line in lines if line.startswith("       ") and not line.lstrip().startswith("-")]
    assert wrapped, "no reason is long enough to be wrapped: make one longer"
    assert all(len(line) <= 140 for line in lines)
