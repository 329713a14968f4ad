import json
from dataclasses import replace

import numpy as np
import pytest
from bench import packed_report

from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.report.axis import time_axis
from memplan.compiler.report.page.data import page_data
from memplan.compiler.report.report import Report, make_report


def test_every_column_has_one_value_for_each(report: Report) -> None:
    data = page_data(report)
    problem, (plan,) = report.problem, data["plans"]
    assert {len(column) for column in data["buffers"].values()} == {len(problem.buffers)}
    assert {len(column) for column in data["operations"].values()} == {problem.end}
    assert {len(plan["residencies"][key]) for key in plan["residencies"]} == {len(report.subject.plan.residencies)}
    assert {len(plan["copies"][key]) for key in plan["copies"]} == {len(report.subject.plan.copies)}
    assert len(data["accesses"]["buffer"]) == len(plan["served"]) == data["accesses"]["first"][-1] == 10
    json.dumps(data, allow_nan=False)


def test_the_axis_is_that_of_the_picture(report: Report) -> None:
    (plan,) = page_data(report)["plans"]
    axis = time_axis(report.problem, report.subject.timeline)
    assert np.cumsum([0.0, *plan["widths"]]) == pytest.approx(axis.edges, rel=1e-5)
    # w is copied from exp's end, 1.58, on; the loop waits for it.
    assert plan["copies"]["begin"] == [pytest.approx(1.58)]
    assert plan["copies"]["end"] == [pytest.approx(2.38)]
    assert plan["waits"][3] == pytest.approx(0.8)


def test_what_is_occupied_is_the_use(report: Report) -> None:
    (plan,) = page_data(report)["plans"]
    for used, sent in zip(report.subject.usage, plan["usage"], strict=True):
        occupied = np.cumsum(sent["occupied"])
        assert occupied.tolist() == (used.live + used.reserved).tolist()
        assert occupied[sent["peakTime"]] == sent["peak"] == used.peak
        assert np.cumsum(sent["reserved"]).tolist() == used.reserved.tolist()


def test_what_another_plan_serves_from_elsewhere_differs(problem: MappingProblem, plan: Plan, slow_plan: Plan) -> None:
    report = make_report(problem, plan, [("XLA's own plan", replace(slow_plan, planner="xla"))])
    xla, ours = page_data(report)["plans"]
    # a lives in fast memory, and w for the loop: add reads w where the other plan has it.
    assert ours["residencies"]["differs"] == [0, 0, 1, 0, 0, 1]
    assert xla["residencies"]["differs"] == [0, 1, 1, 0, 0]


def test_without_another_plan_nothing_differs(report: Report) -> None:
    (plan,) = page_data(report)["plans"]
    assert not any(plan["residencies"]["differs"])


def test_names_are_printable_and_cut(problem: MappingProblem, plan: Plan) -> None:
    name = "\x1b[2J\u202e" + "x" * 10_000
    buffers = (replace(problem.buffers[0], name=name), *problem.buffers[1:])
    hostile = replace(problem, buffers=buffers)
    (shown, *_) = page_data(make_report(hostile, replace(plan, problem=hostile.fingerprint)))["buffers"]["name"]
    assert shown.startswith("\\x1b[2J\\u202exxx")
    assert len(shown) < 500


def test_a_program_without_operations() -> None:
    report = packed_report(0)
    assert page_data(report)["plans"][0]["widths"] == [0.0]
