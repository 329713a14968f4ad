from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.report.usage import buffer_kind, usage


def test_live_bytes_and_peaks_by_hand(problem: MappingProblem, plan: Plan) -> None:
    slow, fast = usage(problem, plan)
    assert slow.live.tolist() == [120, 120, 140, 140, 140, 140, 140, 340, 320]
    assert slow.reserved.tolist() == [0] * 9
    assert (slow.peak, slow.height) == (340, 340)
    assert fast.live.tolist() == [60, 60, 60, 80, 80, 80, 80, 0, 0]
    assert fast.reserved.tolist() == [0, 30, 0, 0, 10, 0, 0, 0, 0]
    assert (fast.peak, fast.height) == (90, 100)


def test_reserved_memory_alone_is_use(problem: MappingProblem, slow_plan: Plan) -> None:
    fast = usage(problem, slow_plan)[1]
    assert (fast.peak, fast.height) == (30, 30)


def test_kinds(problem: MappingProblem) -> None:
    assert [buffer_kind(problem, b) for b in range(5)] == ["argument", "argument", "temporary", "temporary", "result"]
