import dataclasses

import numpy as np
import pytest

from memplan.compiler.emulator.timing import emulate
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.report.axis import time_axis


def test_operations_are_as_wide_as_all_their_runs(problem: MappingProblem, plan: Plan) -> None:
    timeline = emulate(problem, plan)
    axis = time_axis(problem, timeline)
    # mul, add, exp, the wait for w, four times body, out.
    assert np.diff(axis.edges) == pytest.approx([0.46, 0.86, 0.26, 0.8, 4 * 0.28, 0, 0, 2.2, 0])
    assert axis.stalls == pytest.approx([0, 0, 0, 0.8, 0, 0, 0, 0, 0])
    assert axis.edges[-1] == pytest.approx(timeline.latency)


def test_moments_of_the_clock(problem: MappingProblem, plan: Plan) -> None:
    axis = time_axis(problem, emulate(problem, plan))
    moments = np.array([0.0, 0.46, 1.58, 2.38, 2.38 + 0.14, 2.66, 3.0, 3.5, 5.7])
    # Half of body's first run is half of what all its runs take; its later runs lie at its end.
    places = [0.0, 0.46, 1.58, 2.38, 2.38 + 0.56, 3.5, 3.5, 3.5, 5.7]
    assert axis.at(moments) == pytest.approx(places)


def test_a_wait_at_the_end_has_its_width(problem: MappingProblem, plan: Plan) -> None:
    late = dataclasses.replace(plan, copies=(dataclasses.replace(plan.copies[0], start=7, done=8),))
    timeline = emulate(problem, late)
    axis = time_axis(problem, timeline)
    assert timeline.stalled > 0
    assert axis.edges[9] - axis.edges[8] == pytest.approx(timeline.stalled)
    assert axis.edges[-1] == pytest.approx(timeline.latency)


def test_no_operations() -> None:
    from memplan.compiler.analysis.program import RegionKind
    from memplan.compiler.mapping.problem import MemorySpace, Region

    empty = MappingProblem(
        "p", "t", (MemorySpace("hbm", 8, 1, 1.0),), (), (Region(RegionKind.PROGRAM, 0, 0, -1, 1.0),), (), ()
    )
    axis = time_axis(empty, emulate(empty, Plan(empty.fingerprint, "p", "t", "none", (), (), ())))
    assert axis.edges.tolist() == [0.0, 0.0]
