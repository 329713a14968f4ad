import pytest

from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.report.report import Report, make_report


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
