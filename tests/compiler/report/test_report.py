from dataclasses import replace

import pytest

from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.report.report import Report, make_report
from memplan.compiler.report.tables import report_text


def test_contenders_by_hand(report: Report) -> None:
    slow, subject = report.contenders
    assert report.subject is subject
    assert (slow.label, subject.label) == ("all in hbm", "by-hand")
    # All in slow memory: mul 1.0, add 1.4, exp 0.8, body 4 * 1.0, out 2.2.
    assert slow.latency == pytest.approx(9.4)
    assert subject.latency == pytest.approx(5.7)
    # Everything allowed in fast memory: 0.1 floors but add 0.14, exp 0.1, four times body 0.1, out 2.02 (r is too large).
    assert report.bound == pytest.approx(0.1 + 0.14 + 0.1 + 4 * 0.1 + 2.02)
    assert subject.gap == pytest.approx(5.7 / 2.76 - 1)
    assert (slow.copies, slow.copied_bytes) == (0, 0)
    assert (subject.copies, subject.copied_bytes) == (1, 80)
    assert [story.name for story in report.stories] == ["r", "w", "s", "x"]


def test_a_copy_in_a_loop_counts_each_time(problem: MappingProblem, plan: Plan) -> None:
    from memplan.compiler.mapping.plan import Copy, Residency

    inside = Plan(
        problem=plan.problem, name=plan.name, target=plan.target, planner="inside",
        residencies=(*plan.residencies[:5], Residency(1, 1, 20, 4, 6)), copies=(Copy(1, 5, 4, 4),), served=plan.served,
    )  # fmt: skip
    subject = make_report(problem, inside).subject
    assert (subject.copies, subject.copied_bytes) == (4, 320)


def test_contender_by_planner(report: Report) -> None:
    found = report.contender("slow")
    assert found is report.contenders[0]
    assert report.contender("nobody") is None


def test_the_best_bound_that_a_plan_states_counts(report: Report) -> None:
    problem, plan = report.problem, report.subject.plan
    assert report.bound_by is None
    higher = 0.5 * (report.bound + report.subject.latency)
    proven = make_report(problem, replace(plan, info={"bound": higher, "bound_by": "ilp"}))
    assert (proven.bound, proven.bound_by) == (higher, "ilp")
    assert proven.subject.gap == pytest.approx(report.subject.latency / higher - 1)
    assert "proven by ilp" in report_text(proven)
    of_another = make_report(problem, plan, [("other", replace(plan, planner="solver", info={"bound": higher}))])
    assert (of_another.bound, of_another.bound_by) == (higher, "solver")


def test_what_of_a_bound_was_checked_is_told(report: Report) -> None:
    problem, plan = report.problem, report.subject.plan
    higher, latency = 0.5 * (report.bound + report.subject.latency), report.subject.latency
    for stated, checked, told in (
        (None, report.bound, "the rest is the word of an integer solver"),
        (0.5 * (report.bound + higher), 0.5 * (report.bound + higher), "the rest is the word of an integer solver"),
        (higher, higher, "the proof was checked exactly"),
        (10 * latency, higher, "the proof was checked exactly"),
    ):
        made = make_report(problem, replace(plan, info={"bound": higher, "bound_by": "ilp", "bound_checked": stated}))
        assert made.bound_checked == checked
        assert told in made.bound_origin


@pytest.mark.parametrize("stated", [1e9, float("nan"), float("inf"), "much", -1.0, None, [1.0]])
def test_a_bound_that_cannot_be_is_not_believed(report: Report, stated: object) -> None:
    plan = replace(report.subject.plan, info={"bound": stated})
    assert make_report(report.problem, plan).bound == report.bound


def test_a_plan_that_was_cut_short_says_so(report: Report) -> None:
    assert report.stopped is None
    plan = replace(report.subject.plan, info={"stopped": "stopped by its time limit: a slower machine may differ"})
    cut = make_report(report.problem, plan)
    assert "The planner was stopped by its time limit: a slower machine may differ." in report_text(cut)
