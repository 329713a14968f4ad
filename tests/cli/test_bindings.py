"""What a user states about a program: how often its loops run, and how large its dimensions are."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import memplan
from memplan.cli.bindings import Bindings, bound
from memplan.cli.main import main
from memplan.cli.train import read_problem
from memplan.compiler.errors import GraphError, MemplanError
from memplan.compiler.mapping.problem import MappingProblem

Run = Callable[..., Any]

LOOPS = """HloModule loops
body { p = (s32[], f32[1024,1024]) parameter(0) i = s32[] get-tuple-element(p), index=0 x = f32[1024,1024] get-tuple-element(p), index=1
  one = s32[] constant(1) j = s32[] add(i, one) y = f32[1024,1024] cosine(x) ROOT r = (s32[], f32[1024,1024]) tuple(j, y) }
condition { p = (s32[], f32[1024,1024]) parameter(0) i = s32[] get-tuple-element(p), index=0 n = s32[] constant(4)
  ROOT go = pred[] compare(i, n), direction=LT }
endless { p = (s32[], f32[1024,1024]) parameter(0) ROOT go = pred[] constant(true) }
never { p = (s32[], f32[1024,1024]) parameter(0) ROOT go = pred[] constant(false) }
ENTRY e {
  x = f32[1024,1024] parameter(0)
  start = s32[] parameter(1)
  zero = s32[] constant(0)
  a = (s32[], f32[1024,1024]) tuple(start, x)
  unknown = (s32[], f32[1024,1024]) while(a), condition=condition, body=body
  b = f32[1024,1024] get-tuple-element(unknown), index=1
  c = (s32[], f32[1024,1024]) tuple(zero, b)
  known = (s32[], f32[1024,1024]) while(c), condition=condition, body=body
  forever = (s32[], f32[1024,1024]) while(known), condition=endless, body=body
  none = (s32[], f32[1024,1024]) while(forever), condition=never, body=body
  ROOT d = f32[1024,1024] get-tuple-element(none), index=1
}
"""
REASON = "its condition depends on start (parameter), which is known only when the program runs"


@pytest.fixture
def loops(tmp_path: Path) -> Path:
    path = tmp_path / "loops.hlo"
    path.write_text(LOOPS)
    return path


def test_a_problem_states_what_it_assumes(loops: Path) -> None:
    problem = memplan.problem(memplan.read(loops), "tpu-v5e")
    stated = [(assumption.loop, assumption.trip_count, assumption.reason) for assumption in problem.assumptions]
    assert stated == [("e/unknown", 5.0, REASON), ("e/forever", 5.0, "its condition is always true")]
    assert [region.trip_count for region in problem.regions[1:]] == [5.0, 4.0, 5.0, 0.0]
    assert MappingProblem.from_json(problem.to_json()).assumptions == problem.assumptions
    older = json.loads(problem.to_json())
    del older["assumptions"]
    assert MappingProblem.from_json(json.dumps(older)) == problem


def test_a_loop_that_never_runs_costs_nothing(loops: Path) -> None:
    """Its condition alone is computed, once, and that is a constant."""
    graph = memplan.read(loops, trip_counts={"unknown": 0, "known": 0, "forever": 0})
    for planner in ("slow", "greedy", "bestfit", "search"):
        plan = memplan.plan(graph, "tpu-v5e", planner=planner, effort="fast")
        assert memplan.verify(graph, plan) == []
    assert memplan.problem(graph, "tpu-v5e").assumptions == ()


def test_counts_are_given_to_read_trace_and_problem(loops: Path) -> None:
    import jax
    import jax.numpy as jnp

    def trips(problem: MappingProblem) -> list[float]:
        return [region.trip_count for region in problem.regions[1:]]

    assert trips(memplan.problem(memplan.read(loops, trip_counts={"unknown": 7}), "tpu-v5e"))[0] == 7.0
    assert trips(memplan.problem(memplan.read(loops), "tpu-v5e", trip_counts={"e/unknown": 8}))[0] == 8.0

    def until_small(x: jax.Array) -> jax.Array:
        return jax.lax.while_loop(lambda x: jnp.max(x) > 1.0, lambda x: x * 0.5, x)

    x = jax.ShapeDtypeStruct((1024, 1024), "float32")
    (assumption,) = memplan.problem(memplan.trace(until_small, x), "tpu-v5e").assumptions
    name = assumption.loop.rpartition("/")[2]
    traced = memplan.problem(memplan.trace(until_small, x, trip_counts={name: 9}), "tpu-v5e")
    assert (trips(traced), traced.assumptions) == ([9.0], ())
    with pytest.raises(GraphError, match="no loop is called nowhere: the loops are "):
        memplan.trace(until_small, x, trip_counts={"nowhere": 9})


def test_the_report_states_assumptions(run: Run, loops: Path, tmp_path: Path) -> None:
    arguments = ("plan", loops, "--target", "tpu-v5e", "--planner", "greedy")
    done = run(*arguments, "--report", tmp_path / "report")
    assert done.status == 0
    for text in (done.out, (tmp_path / "report" / "report.txt").read_text()):
        assert "Assumed, because the program does not say it (--trip-count NAME=N does):" in text
        assert f"  - e/unknown runs 5 times: {REASON}" in text
    assumptions = json.loads((tmp_path / "report" / "report.json").read_text())["assumptions"]
    assert assumptions[0] == {"loop": "e/unknown", "trip_count": 5.0, "reason": REASON}
    done = run(*arguments, "--trip-count", "unknown=7", "--trip-count", "e/forever=3", "--json")
    assert json.loads(done.out)["assumptions"] == []


def test_a_plan_belongs_to_the_counts_that_it_was_made_for(run: Run, loops: Path, tmp_path: Path) -> None:
    file, given = tmp_path / "plan.json", ("--trip-count", "unknown=7")
    planned = run("plan", loops, "--target", "tpu-v5e", "--planner", "greedy", "--out", file, *given)
    assert planned.status == 0
    assert run("verify", file, loops, *given).status == 0
    assert run("show", file, loops, *given).out == planned.out
    other = run("verify", file, loops)
    assert other.status == 2
    assert other.errors


def test_a_loop_that_is_not_there_is_an_error(run: Run, loops: Path) -> None:
    done = run("plan", loops, "--target", "tpu-v5e", "--trip-count", "nowhere=7")
    assert done.status == 2
    (error,) = done.errors
    assert error.endswith("no loop is called nowhere: the loops are e/unknown, e/known, e/forever, e/none")


@pytest.mark.parametrize("value", ["", "w", "=3", "w=", "w=x", "w=-1", "w=1.5", "w=²", "w=" + "9" * 30])
def test_malformed_bindings(value: str) -> None:
    with pytest.raises(MemplanError, match="must be NAME=N, with a whole number N"):
        bound("--trip-count", [value])


def test_bindings_agree_with_each_other() -> None:
    assert bound("--dim", ["b=1", "b=1", "a=b=2"]) == {"b": 1, "a=b": 2}
    with pytest.raises(MemplanError, match="--dim b=2: b is 1 already"):
        bound("--dim", ["b=1", "b=2"])


@pytest.mark.slow
def test_sizes_of_open_dimensions(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "open.hlo"
    path.write_text("HloModule m ENTRY e { a = f32[?,1024] parameter(0) ROOT c = f32[?,1024] cosine(a) }")
    arguments = ("plan", path, "--target", "tpu-v5e", "--planner", "greedy", "--json")
    done = run(*arguments)
    assert done.status == 2
    assert "--dim arg0.0=N" in done.errors[0]
    done = run(*arguments, "--dim", "arg0.0=2048")
    assert done.status == 0
    assert json.loads(done.out)["program"]["buffers"] == 2


def test_the_agent_trains_on_what_is_stated(loops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problem = read_problem(loops, "tpu-v5e", Bindings.of(["unknown=7", "forever=2"], []))
    assert [region.trip_count for region in problem.regions[1:]] == [7.0, 4.0, 2.0, 0.0]
    assert not problem.assumptions
    assert main(["train", str(loops), "--out", str(tmp_path / "run"), "--trip-count", "other=7"]) == 2
    assert "no loop is called other" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
