"""What holds for every planner: registered by name, plans that verify, never slower than all at home, reproducible."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from literal_problems import plan, problem
from random_problems import REAL, problems, seeded_problem, with_ends_anywhere
from thorough import examples

from memplan import planners
from memplan.compiler.emulator.timing import latency
from memplan.compiler.errors import PlannerError
from memplan.compiler.frontends import parse_hlo
from memplan.compiler.hardware.target import load_target
from memplan.compiler.mapping.build import build_problem
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.mapping.verify import Violation, check_belongs, verify
from memplan.planners import Budget, Effort, Planner
from memplan.planners import planner as registry

SEARCHING = ["bestfit", "greedy", "slow"]


def test_planners_are_found_by_name() -> None:
    assert set(planners.names()) >= {
        "agent",
        "auto",
        "bestfit",
        "evolution",
        "greedy",
        "ilp",
        "neighbourhoods",
        "search",
        "slow",
        "xla",
    }
    assert all(planners.get(name).description.endswith(".") for name in planners.names())
    with pytest.raises(
        PlannerError,
        match="no planner is called 'quick'; known: agent, auto, bestfit, evolution, greedy, hybrid, ilp, neighbourhoods, search, slow, xla",
    ):
        planners.get("quick")


def test_a_user_registers_a_planner_of_their_own() -> None:
    """In a process of its own, so that no other test sees it."""
    program = (
        "from memplan import planners\n"
        "mine = planners.Planner('mine', 'As slow as it gets.', planners.get('slow').solve)\n"
        "planners.register(mine)\n"
        "assert planners.get('mine') is mine and 'greedy' in planners.names()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("name", SEARCHING)
@settings(max_examples=examples(10, 100))
@given(mapped=problems(max_length=25, depth=3))
def test_plans_are_valid_and_never_slower_than_all_at_home(name: str, mapped: MappingProblem) -> None:
    made = planners.get(name).solve(mapped, Budget())
    check_belongs(mapped, made)
    assert verify(mapped, made) == []
    assert latency(mapped, made) <= latency(mapped, planners.get("slow").solve(mapped, Budget()))


@pytest.mark.parametrize("name", SEARCHING)
@pytest.mark.parametrize("seed", range(examples(1, 2)))
def test_larger_plans_are_valid_and_reproducible(name: str, seed: int) -> None:
    mapped = seeded_problem(seed, 80, REAL, depth=3)
    made = planners.get(name).solve(mapped, Budget(seed=seed))
    assert verify(mapped, made) == []
    again = planners.get(name).solve(mapped, Budget(seed=seed))
    assert again == made


@st.composite
def problems_with_ends_anywhere(draw: st.DrawFn) -> MappingProblem:
    return with_ends_anywhere(draw(problems(max_length=12)), lambda low, high: draw(st.integers(low, high)))


@pytest.mark.parametrize("name", [*SEARCHING, "search", "ilp", "evolution"])
@settings(max_examples=examples(6, 100))
@given(mapped=problems_with_ends_anywhere())
def test_arguments_and_results_in_any_memory_are_planned_or_refused(name: str, mapped: MappingProblem) -> None:
    try:
        made = planners.get(name).solve(mapped, Budget(Effort.FAST, time_limit=2.0))
    except PlannerError as error:
        event("refused")
        assert re.search(r"do not fit (slow|fast), which has [\d,]+, where the program wants them", str(error))
        return
    event("planned")
    assert verify(mapped, made) == []


RETURNED = """
HloModule returned, is_scheduled=true
ENTRY e {
  a = f32[1024]{0} parameter(0)
  b = f32[1024]{0} parameter(1)
  s = (f32[1024]{0:S(1)}, f32[1024]{0}, u32[]) copy-start(a)
  n = f32[1024]{0} negate(b)
  ROOT d = f32[1024]{0:S(1)} copy-done(s)
}
"""


@pytest.mark.parametrize("name", [*SEARCHING, "search", "ilp", "evolution", "xla"])
def test_an_argument_that_is_returned_in_fast_memory(name: str) -> None:
    """It stays where the caller has it, and is in fast memory too when the program ends."""
    mapped = build_problem(parse_hlo(RETURNED), load_target("tpu-v5e"))
    made = planners.get(name).plan(mapped, Budget(Effort.FAST))
    argument = [(r.space, r.end) for r in made.residencies if mapped.buffers[r.buffer].name == "a"]
    assert sorted(argument) == [(0, mapped.end + 1), (1, mapped.end + 1)]


def test_a_plan_that_breaks_a_rule_is_not_returned() -> None:
    mapped = problem("w a", "r a")
    broken = Planner("broken", "Forgets.", lambda problem, budget: plan(problem, [("a", 0, 0, 0, 1)]))
    with pytest.raises(PlannerError, match=r"^the plan of 'broken' for literal is not valid; index: op1 \(t=1\)"):
        broken.plan(mapped, Budget())


@pytest.mark.parametrize("name", SEARCHING)
def test_a_program_without_operations(name: str) -> None:
    empty = problem()
    assert verify(empty, planners.get(name).solve(empty, Budget())) == []


@pytest.mark.parametrize("name", SEARCHING)
def test_a_program_that_does_not_fit_is_refused(name: str) -> None:
    huge = problem("w a", "r a", sizes={"a": 2000})
    with pytest.raises(PlannerError, match=r"a \(2,000 bytes\) and what is alive with it do not fit slow"):
        planners.get(name).solve(huge, Budget())


def test_a_plan_is_verified_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[Plan] = []

    def watched(problem: MappingProblem, plan: Plan) -> list[Violation]:
        looked_at.append(plan)
        return verify(problem, plan)

    monkeypatch.setattr(registry, "verify", watched)
    mapped, verifier = seeded_problem(1, 10), registry.Verifier()
    made = planners.get("slow").solve(mapped, Budget())
    broken = dataclasses.replace(made, served=made.served[1:])
    for _ in range(2):
        assert verifier.violations(mapped, made) == []
        assert verifier.violations(mapped.with_given(made), dataclasses.replace(made, planner="another")) == []
        assert verifier.violations(mapped, broken)
    assert looked_at == [made, broken, broken], "only what is valid is not looked at again"
    assert verifier.violations(seeded_problem(2, 10), made), "another problem"


def test_a_planner_is_a_value() -> None:
    one = Planner("one", "Does nothing.", lambda problem, budget: plan(problem, []))
    assert one.solve(problem(), Budget()).residencies == ()


def test_the_environment_says_how_many_cores_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(registry.CORES, "3")
    assert registry.num_cores() == 3
    for text in ("0", "-1", "two", "²", "9" * 30):
        monkeypatch.setenv(registry.CORES, text)
        with pytest.raises(PlannerError, match=r"^MEMPLAN_CORES=.*: is no number of cores$"):
            registry.num_cores()
