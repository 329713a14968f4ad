"""Splits of chains into pipelines, against enumeration and closed forms."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path

import pytest
from chains import drawn_chain, enumerated
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from memplan import MemplanError, PlannerError
from memplan.compiler.effort import Effort
from memplan.planners.pipeline import (
    PipelineLayer,
    PipelinePlan,
    PipelineProblem,
    equal_layers,
    equal_parameters,
    solve_pipeline,
    verify_pipeline,
)
from memplan.planners.pipeline.bounds import SplitBounds
from memplan.planners.pipeline.costs import SplitCosts
from memplan.planners.pipeline.layers_file import layers_text, read_layers
from memplan.planners.pipeline.schedule import device_orders
from memplan.planners.pipeline.verifier import simulate


@st.composite
def problems(draw: st.DrawFn) -> PipelineProblem:
    stages = draw(st.integers(1, 3))
    chunks = draw(st.integers(1, 2)) if stages > 1 else 1
    return drawn_chain(
        draw(st.integers(stages * chunks, 7)),
        draw(st.integers(0, 1000)),
        stages=stages,
        chunks=chunks,
        microbatches=draw(st.integers(1, 2)) * stages if chunks > 1 else draw(st.integers(1, 6)),
        schedule=draw(st.sampled_from(["1f1b", "gpipe"])),
        bandwidth=draw(st.sampled_from([math.inf, 8.0])),
        latency=draw(st.sampled_from([0.0, 0.5])),
    )


@settings(max_examples=60, deadline=None)
@given(problems(), st.floats(0.5, 1.0), st.booleans())
def test_the_split_is_that_of_enumeration(problem: PipelineProblem, share: float, recompute: bool) -> None:
    best = enumerated(problem)
    assert best is not None
    plan = solve_pipeline(problem)
    assert verify_pipeline(problem, plan) == []
    assert plan.is_optimal
    assert plan.time == pytest.approx(best[0])
    limited = replace(problem, limit=max(1, int(share * best[1])), recompute=recompute)
    within = enumerated(limited)
    if within is None:
        with pytest.raises(PlannerError, match="no split fits"):
            solve_pipeline(limited)
        return
    plan = solve_pipeline(limited)
    assert verify_pipeline(limited, plan) == []
    assert plan.is_optimal
    assert plan.time == pytest.approx(within[0])


@settings(max_examples=60, deadline=None)
@given(problems(), st.data())
def test_a_bound_of_first_pieces_is_below_every_split_with_them(problem: PipelineProblem, data: st.DataObject) -> None:
    assume(problem.pieces > 1)
    count = len(problem.layers)
    cuts = data.draw(
        st.lists(st.integers(1, count - 1), min_size=problem.pieces - 1, max_size=problem.pieces - 1, unique=True)
    )
    ends = (*sorted(cuts), count)
    costs = SplitCosts(problem)
    time = costs.time(ends, (False,) * problem.pieces)
    bounds = SplitBounds(costs)
    for known in range(problem.pieces + 1):
        assert bounds.bound(ends[:known], (False,) * known) <= time * (1 + 1e-12)


@pytest.mark.parametrize(("schedule", "chunks"), [("1f1b", 1), ("gpipe", 1), ("1f1b", 2), ("1f1b", 4)])
def test_equal_pieces_have_the_bubble_of_megatron(schedule: str, chunks: int) -> None:
    """The share (p - 1) / (v m) of the work, arXiv 2104.04473, section 2.2."""
    stages, microbatches = 4, 8
    layer = PipelineLayer("layer", 1.0, 2.0, 1, 1, 1)
    problem = PipelineProblem((layer,) * 16, stages, microbatches, chunks, schedule)  # type: ignore[arg-type]
    plan = solve_pipeline(problem)
    work = microbatches * 4 * 3.0
    assert plan.time == pytest.approx(work * (1 + (stages - 1) / (chunks * microbatches)))
    assert plan.is_optimal or chunks > 1


def test_microbatches_in_flight_are_those_of_the_schedule() -> None:
    layer = PipelineLayer("layer", 1.0, 1.0, 100, 10, 1)
    for schedule, memory in (("1f1b", (140, 130, 120, 110)), ("gpipe", (180, 180, 180, 180))):
        problem = PipelineProblem((layer,) * 4, 4, 8, 1, schedule)  # type: ignore[arg-type]
        assert equal_layers(problem).memory == memory
    # All microbatches of the first pass through both chunks before the first backward pass (figure 4).
    problem = PipelineProblem((layer,) * 8, 4, 8, 2)
    assert [sum(step.forward for step in order[:11]) for order in device_orders(problem)] == [11, 10, 9, 8]


def test_recomputation_is_for_what_does_not_fit() -> None:
    layer = PipelineLayer("layer", 1.0, 2.0, 10, 20, 2)
    problem = PipelineProblem((layer,) * 4, 2, 4, limit=80, recompute=True, first=2)
    plan = solve_pipeline(problem)
    # Two microbatches of two layers are 80 bytes beside 20 of state; the second device keeps one.
    assert plan.recompute == (True, False)
    assert plan.memory == (20 + 2 * 4 + 18, 60)
    with pytest.raises(PlannerError, match=r"no split fits 2 devices of 80 bytes.*recomputation may help"):
        solve_pipeline(replace(problem, recompute=False))


def test_baselines_and_a_long_chain() -> None:
    problem = drawn_chain(60, 2, stages=6, microbatches=24, bandwidth=20.0)
    plan = solve_pipeline(problem, Effort.FAST)
    assert verify_pipeline(problem, plan) == []
    assert plan.gap < 0.02
    for other in (equal_layers(problem), equal_parameters(problem)):
        assert verify_pipeline(problem, other) == []
        assert plan.time < other.time
    taken = SplitCosts(problem).timeline(plan.ends, plan.recompute)
    assert max(end for device in taken for _, _, end in device) == plan.time
    for device in taken:
        assert all(before[2] <= after[1] for before, after in itertools.pairwise(device))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ends": (2, 4)}, "the plan has 2 pieces on 3 devices"),
        ({"ends": (4, 2, 6)}, "they must ascend from 1 to 6"),
        ({"ends": (1, 2, 6)}, "a step takes"),
        ({"time": 1.0}, "and the plan states 1.0 s"),
        ({"memory": (1, 2, 3)}, "and the plan states 1"),
        ({"recompute": (True, False, False)}, "the problem does not allow it"),
        ({"bound": 1e9}, "the bound 1000000000.0 s is above"),
    ],
)
def test_a_changed_plan_is_refused(change: dict[str, object], message: str) -> None:
    problem = drawn_chain(6, 4, stages=3, microbatches=4)
    plan = solve_pipeline(problem)
    assert verify_pipeline(problem, plan) == []
    assert any(message in each for each in verify_pipeline(problem, replace(plan, **change)))  # type: ignore[arg-type]
    limited = replace(problem, limit=max(plan.memory) - 1)
    assert any("bytes, and has" in each for each in verify_pipeline(limited, plan))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stages": 0}, "stages is 0"),
        ({"stages": 7}, "6 layers cannot be cut into 7 × 1 pieces"),
        ({"microbatches": 10**6}, "more than 1,000,000 steps"),
        ({"schedule": "zero"}, "the schedule is 'zero'"),
        ({"chunks": 2, "microbatches": 5}, "needs a multiple of 3 microbatches"),
        ({"stages": 1, "chunks": 2}, "nothing to interleave"),
        ({"limit": 0}, "the limit is 0"),
        ({"bandwidth": 0.0}, "the bandwidth is 0.0"),
        ({"latency": math.nan}, "the latency is nan"),
        ({"first": -1}, "first is -1"),
    ],
)
def test_bad_input_is_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(PlannerError) as raised:
        solve_pipeline(replace(drawn_chain(6, 4, stages=3, microbatches=3), **change))  # type: ignore[arg-type]
    assert message in str(raised.value)


def test_layers_are_read_as_they_are_written(tmp_path: Path) -> None:
    problem = drawn_chain(3, 1, stages=1, microbatches=1)
    file = tmp_path / "layers.json"
    file.write_text(layers_text(problem.layers, problem.first))
    assert read_layers(file) == (problem.layers, 3)
    for text, message in (
        ("[", "is no JSON"),
        ("[]", 'an object with a list "layers"'),
        ('{"layers": [], "x": 1}', "'x' is not known"),
        ('{"layers": [3]}', "layer 0: must be an object"),
        ('{"layers": [{"forward": 1}]}', "layer 0: has no 'backward'"),
        (file.read_text().replace('"kept": ', '"kept": "a", "kept2": '), "kept is 'a': it must be a number"),
        (file.read_text().replace('"kept": ', '"more": 1, "kept": '), "'more' is not known"),
    ):
        file.with_suffix(".bad").write_text(text)
        with pytest.raises(MemplanError) as raised:
            read_layers(file.with_suffix(".bad"))
        assert message in str(raised.value)


def test_the_simulation_of_one_device_is_its_work() -> None:
    problem = drawn_chain(4, 3, stages=1, microbatches=5, latency=9.0)
    time, memory = simulate(problem, PipelinePlan((4,), (False,), 0.0, (0,), 0.0, ""))
    assert time == 5 * sum(layer.forward + layer.backward for layer in problem.layers)
    assert memory == [sum(layer.state + layer.kept for layer in problem.layers)]
