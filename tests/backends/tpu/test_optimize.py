"""The search over compiles: what is tried, what is kept, and what happens when the compiler refuses, fails or dies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from fake_compiler import FakeCompiler, program, refusal

from memplan.backends import order_hook
from memplan.backends.tpu import compile_search
from memplan.backends.tpu.compile import CompileError, TpuCompiler
from memplan.backends.tpu.optimize import optimize
from memplan.backends.tpu.outcome import Outcome
from memplan.backends.tpu.steering import COPY_SPEED, CROSS_PROGRAM, LONG_STAYS, SCOPED_LIMIT, SORT_ORDER, TENSORS
from memplan.compiler.effort import Effort
from memplan.compiler.errors import MemplanError
from memplan.compiler.hardware.target import load_target
from memplan.compiler.mapping.verify import verify

V5E = load_target("tpu-v5e")


def run(compiler: FakeCompiler, budget: int = 8, **more: Mapping[str, str]) -> Outcome:
    return optimize(b"module", V5E, compile_budget=budget, effort=Effort.FAST, compiler=compiler, **more)  # type: ignore[arg-type]


def obedient(options: Mapping[str, str]) -> str:
    """Everything is slow unless a plan says otherwise."""
    return program("abc" if SORT_ORDER in options else "")


def test_a_plan_that_takes_effect_wins() -> None:
    outcome = run(FakeCompiler(obedient))
    assert outcome.best.name.startswith("plan")
    assert outcome.ratio < 0.8
    assert outcome.best.options[SORT_ORDER].count("assign_value") == 3
    assert outcome.candidates[0] is outcome.default
    assert {decision.state for decision in outcome.decisions} == {"obeyed"}
    assert {(decision.instruction, decision.operand) for decision in outcome.decisions} == {
        ("a", -1), ("b", -1), ("b", 0), ("c", -1), ("c", 0), ("c", 1), ("d", 0),
    }  # fmt: skip


def test_the_plan_of_the_outcome_is_what_the_module_really_has() -> None:
    outcome = run(FakeCompiler(obedient))
    fast = {
        outcome.problem.buffers[residency.buffer].name for residency in outcome.plan.residencies if residency.space == 1
    }
    assert fast == {"a", "b", "c"}
    assert verify(outcome.problem, outcome.plan) == []


def test_planned_candidates_carry_a_prediction() -> None:
    outcome = run(FakeCompiler(obedient))
    assert outcome.default.predicted is None
    assert outcome.best.predicted is not None
    assert outcome.default.score is not None
    assert 0.0 < outcome.best.predicted < outcome.default.score.latency


def test_nothing_beats_a_default_that_is_best() -> None:
    outcome = run(FakeCompiler(lambda options: program(cycles=70_000 if options else 0)))
    assert outcome.best is outcome.default
    assert outcome.ratio == 1.0
    assert {decision.state for decision in outcome.decisions} == {"ignored"}


def test_the_budget_is_kept_and_nothing_is_compiled_twice() -> None:
    for budget in range(1, 9):
        compiler = FakeCompiler(obedient)
        outcome = run(compiler, budget)
        assert len(outcome.candidates) == len(compiler.requests) <= budget
        assert len({tuple(sorted(request.items())) for request in compiler.requests}) == len(compiler.requests)
        assert compiler.requests[0] == {}


def test_a_cross_program_prefetch_is_given_up_where_that_pays() -> None:
    def answer(options: Mapping[str, str]) -> str:
        return program(cycles=0 if options.get(CROSS_PROGRAM) == "0" else 66_000, cross_program=not options)

    assert run(FakeCompiler(answer), 4).best.name == "no cross-program prefetch"


def test_a_wider_scoped_limit_is_part_of_what_follows() -> None:
    def answer(options: Mapping[str, str]) -> str:
        return program("abc" if SORT_ORDER in options else "", 57_000 if options.get(SCOPED_LIMIT) == "32768" else 0)

    outcome = run(FakeCompiler(answer))
    assert outcome.best.options[SCOPED_LIMIT] == "32768"
    assert SORT_ORDER in outcome.best.options


def limits(compiler: FakeCompiler) -> list[str]:
    """The scoped limits that were tried without a plan, in order."""
    return [
        request[SCOPED_LIMIT]
        for request in compiler.requests
        if SCOPED_LIMIT in request and SORT_ORDER not in request and COPY_SPEED not in request
    ]


def test_scoped_limits_are_tried_both_ways_and_then_by_bisection() -> None:
    def answer(options: Mapping[str, str]) -> str:
        away = abs(int(options.get(SCOPED_LIMIT, "16384")) - 10_752)
        return program(cycles=61_000 + away)

    compiler = FakeCompiler(answer)
    outcome = run(compiler, 12)
    assert limits(compiler) == ["32768", "8192", "4096", "12288", "10240"]
    assert outcome.best.options[SCOPED_LIMIT] == "10240"


def test_at_no_budget_behind_a_sweep_of_scoped_limits_and_cross_program_prefetch() -> None:
    sweep: list[dict[str, str]] = [{}, {SCOPED_LIMIT: "32768"}, {SCOPED_LIMIT: "8192"}, {CROSS_PROGRAM: "0"}]
    for best in sweep:

        def answer(options: Mapping[str, str], best: Mapping[str, str] = best) -> str:
            return program(cycles=62_000 if dict(options) == best else 66_000, cross_program=not options)

        for budget in range(1, len(sweep) + 1):
            tried = run(FakeCompiler(answer), budget).best.score
            assert tried is not None
            assert (tried.cycles < 4 * 64_000) == (best in sweep[:budget])


def test_scoped_limits_are_tried_again_without_a_cross_program_prefetch() -> None:
    cycles = {("16384", None): 66_000, ("32768", None): 67_000, ("16384", "0"): 64_000, ("32768", "0"): 62_000}

    def answer(options: Mapping[str, str]) -> str:
        kind = options.get(SCOPED_LIMIT, "16384"), options.get(CROSS_PROGRAM)
        return program(cycles=cycles.get(kind, 65_500), cross_program=kind[1] is None)

    assert run(FakeCompiler(answer), 5).best.options == {SCOPED_LIMIT: "32768", CROSS_PROGRAM: "0"}


# Its arrays are small beside what its instructions take.
BUSY = """HloModule m, is_scheduled=true
ENTRY e {
  x = f32[8,128]{1,0} parameter(0)
  a = f32[8,128]{1,0} exponential(x), backend_config={"window_config":{"estimated_cycles":"4000000"}}
  ROOT b = f32[8,128]{1,0} negate(a), backend_config={"window_config":{"estimated_cycles":"4000000"}}
}"""


def test_a_default_at_its_bound_ends_the_search() -> None:
    compiler = FakeCompiler(lambda options: BUSY)
    outcome = run(compiler)
    assert len(compiler.requests) == 1
    assert outcome.default.score is not None
    assert 0.995 < outcome.bound / outcome.default.score.latency <= 1.0
    assert outcome.is_at_bound
    slower = run(FakeCompiler(lambda options: program()))
    assert slower.default.score is not None
    assert slower.bound < 0.9 * slower.default.score.latency
    assert not run(FakeCompiler(lambda options: program()), 1).is_at_bound


def test_another_process_compiles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that a search has compiled is on disk, and the same search asks for the same."""
    asked: list[dict[str, str]] = []

    def request(self: TpuCompiler, module: bytes, request: dict[str, Any]) -> tuple[dict[str, Any], str]:
        asked.append(request["options"])
        return {"memory": None}, obedient(request["options"])

    monkeypatch.setattr(TpuCompiler, "_request", request)
    outcomes = [
        optimize(b"module", V5E, effort=Effort.FAST, compiler=TpuCompiler(tmp_path), compile_budget=6) for _ in range(2)
    ]
    assert len(asked) == len(outcomes[0].candidates)
    first, second = ([(each.name, each.options, each.score) for each in done.candidates] for done in outcomes)
    assert first == second
    assert outcomes[0].best.options == outcomes[1].best.options


def test_faster_copies_are_part_of_what_follows_if_they_pay() -> None:
    def answer(options: Mapping[str, str]) -> str:
        return program("abc" if SORT_ORDER in options else "", 57_000 if COPY_SPEED in options else 0)

    compiler = FakeCompiler(answer)
    outcome = run(compiler)
    assert COPY_SPEED in outcome.best.options
    first = next(i for i, request in enumerate(compiler.requests) if COPY_SPEED in request)
    assert all(COPY_SPEED in request for request in compiler.requests[first:])
    compiler = FakeCompiler(obedient)
    run(compiler)
    assert sum(COPY_SPEED in request for request in compiler.requests) == 1


def test_a_plan_that_is_predicted_to_lose_is_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile_search, "WORTH_A_COMPILE", 0.0)
    compiler = FakeCompiler(obedient)
    assert run(compiler).best.name == "default"
    assert all(SORT_ORDER not in request for request in compiler.requests)


def test_what_the_user_sets_is_not_varied() -> None:
    compiler = FakeCompiler(obedient)
    given = {SCOPED_LIMIT: "20000", CROSS_PROGRAM: "1"}
    outcome = run(compiler, options=given)
    for request in compiler.requests:
        assert {name: request[name] for name in given} == given
    assert outcome.default.options == given


def test_a_demand_that_is_refused_is_dropped_and_said_so() -> None:
    """The compiler does nothing of itself; it obeys demands, but has no room for b."""

    def answer(options: Mapping[str, str]) -> str:
        demanded = options.get(TENSORS, "")
        if '"^b$"' in demanded:
            raise refusal(
                "MSA strict override failed for instruction 'c' operand 1, shape f32[1024,1024], defining "
                "instruction 'b': Out of alternate memory / spatial placement conflict"
            )
        return program("ac" if demanded else "")

    outcome = run(FakeCompiler(answer))
    assert outcome.best.name == "plan, demanded"
    states = {(d.instruction, d.operand): d for d in outcome.decisions}
    assert states["a", -1].state == "obeyed"
    assert states["b", -1].state == "dropped"
    assert states["b", -1].reason == "Out of alternate memory / spatial placement conflict"
    assert states["c", 1].state == "dropped"


def test_a_refusal_that_names_nothing_ends_the_demands() -> None:
    def answer(options: Mapping[str, str]) -> str:
        if TENSORS in options:
            raise refusal("something else")
        return program()

    compiler = FakeCompiler(answer)
    assert run(compiler).best.name == "default"
    assert sum(TENSORS in request for request in compiler.requests) == 1


@pytest.mark.parametrize("reason", ["crashed", "timeout", "refused"])
def test_a_candidate_that_fails_is_recorded_and_the_search_goes_on(reason: str) -> None:
    def answer(options: Mapping[str, str]) -> str:
        if SCOPED_LIMIT in options and SORT_ORDER not in options:
            raise CompileError("the TPU compiler died", reason)
        return obedient(options)

    outcome = run(FakeCompiler(answer))
    failed = [candidate for candidate in outcome.candidates if candidate.error]
    assert failed
    assert all(candidate.score is None and candidate.text == "" for candidate in failed)
    assert outcome.best.name.startswith("plan")


def test_a_default_that_fails_is_an_error() -> None:
    def answer(options: Mapping[str, str]) -> str:
        raise CompileError("the TPU compiler did not answer within 600 s", "timeout")

    with pytest.raises(CompileError, match="did not answer"):
        run(FakeCompiler(answer))


def test_bad_arguments() -> None:
    compiler = FakeCompiler(obedient)
    with pytest.raises(MemplanError, match=r"no compiler carries out plans for h200, only for tpu-7x, tpu-v4,"):
        optimize(b"", load_target("h200"), compiler=compiler)
    with pytest.raises(MemplanError, match="a compile budget must be at least 1, not 0"):
        optimize(b"", V5E, compile_budget=0, compiler=compiler)
    with pytest.raises(MemplanError, match="no planner is called 'best'"):
        optimize(b"", V5E, planner="best", compiler=compiler)
    assert compiler.requests == []


def test_long_stays_are_allowed_only_with_a_plan() -> None:
    compiler = FakeCompiler(obedient)
    run(compiler)
    assert any(LONG_STAYS in request for request in compiler.requests)
    assert all(SORT_ORDER in request for request in compiler.requests if LONG_STAYS in request)


# Which of the two large values is made first decides whether both are alive at once.
WASTEFUL = """HloModule m, is_scheduled=true
ENTRY e {
  x = f32[8] parameter(0)
  a = f32[1024,1024] broadcast(x), dimensions={}
  b = f32[1024,1024] broadcast(x), dimensions={}
  c = f32[8] custom-call(a), custom_call_target="k"
  d = f32[8] custom-call(b), custom_call_target="k"
  ROOT t = f32[8] add(c, d)
}"""


def test_an_order_that_needs_less_memory_is_tried_where_one_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_hook, "is_supported", lambda platform: platform == "tpu")
    compiler = FakeCompiler(lambda options: program())
    compiler.scheduled = WASTEFUL
    ordered = [candidate for candidate in run(compiler, 8).candidates if candidate.order is not None]
    assert [candidate.name for candidate in ordered][:1] == ["least memory order"]
    order = list(ordered[0].order["e"])  # type: ignore[index]
    assert order.index("c") < order.index("b") or order.index("d") < order.index("a")
    assert ordered[0].order in compiler.orders

    monkeypatch.setattr(order_hook, "is_supported", lambda platform: False)
    assert all(candidate.order is None for candidate in run(compiler, 8).candidates)


def test_an_interrupt_ends_the_search_and_the_best_so_far_is_the_answer() -> None:
    def interrupt(options: Mapping[str, str]) -> str:
        if options:
            raise KeyboardInterrupt
        return program()

    compiler = FakeCompiler(interrupt)
    outcome = run(compiler, interrupted=lambda: False)  # type: ignore[arg-type]
    assert outcome.best is outcome.default
    assert len(compiler.requests) == 2
    with pytest.raises(KeyboardInterrupt):
        run(FakeCompiler(interrupt))


def test_an_interrupt_that_a_planner_heard_ends_the_search_too() -> None:
    """The planner returns its best plan then, and raises nothing."""
    compiler = FakeCompiler(obedient)
    outcome = run(compiler, interrupted=lambda: len(compiler.requests) == 3)  # type: ignore[arg-type]
    assert len(compiler.requests) == len(outcome.candidates) == 3


def test_an_interrupt_before_the_default_is_compiled_has_no_answer() -> None:
    def interrupt(options: Mapping[str, str]) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(FakeCompiler(interrupt), interrupted=lambda: True)  # type: ignore[arg-type]
