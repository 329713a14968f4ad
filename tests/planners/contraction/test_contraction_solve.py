"""The best order of contraction, against enumeration and opt_einsum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import opt_einsum
import pytest
from contraction_networks import cost_of, drawn_network, trees
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from memplan import PlannerError
from memplan.compiler.effort import Effort
from memplan.planners.contraction import (
    ContractionProblem,
    contraction_problem,
    left_to_right,
    plan_of_path,
    solve_contraction,
    verify_contraction,
)
from memplan.planners.contraction.problem import Quantity

INDICES = st.lists(st.sampled_from("abcdef"), max_size=3)
QUANTITY = st.sampled_from(["flops", "peak"])


@st.composite
def problems(draw: st.DrawFn) -> ContractionProblem:
    """Any four tensors: unconnected ones, diagonals, indices of several tensors, of one alone, and of size 1."""
    operands = tuple(tuple(draw(INDICES)) for _ in range(draw(st.integers(1, 4))))
    known = sorted({index for indices in operands for index in indices})
    output = tuple(index for index in known if draw(st.booleans()))
    sizes = {index: draw(st.integers(1, 5)) for index in known}
    return ContractionProblem(operands, output, sizes, 2, draw(QUANTITY))


@settings(max_examples=100, deadline=None)
@given(problems(), st.integers(0, 40))
@pytest.mark.slow
def test_the_order_is_that_of_enumeration(problem: ContractionProblem, place: int) -> None:
    assume(len(problem.operands) > 1)
    costs = sorted({cost_of(problem, tree) for tree in trees(tuple(range(len(problem.operands))))})
    values = [cost if problem.minimize == "flops" else cost[::-1] for cost in costs]
    free = solve_contraction(problem, Effort.FAST)
    assert verify_contraction(problem, free) == []
    assert free.minimized == min(values)[0]
    assert free.is_optimal
    limited = replace(problem, limit=values[place % len(values)][1])
    plan = solve_contraction(limited, Effort.FAST)
    assert verify_contraction(limited, plan) == []
    assert plan.minimized == min(value for value, other in values if other <= limited.limit)  # type: ignore[operator]
    assert plan.is_optimal
    least = min(other for _, other in values)
    if least > 0:
        with pytest.raises(PlannerError, match=f"the least is {least:,}$"):
            solve_contraction(replace(problem, limit=least - 1), Effort.FAST)


@pytest.mark.parametrize(("minimize", "least"), [("flops", 8), ("peak", 12)])
def test_the_sums_of_a_single_tensor_can_be_beyond_a_limit(minimize: Quantity, least: int) -> None:
    problem = contraction_problem("ij->i", {"i": 2, "j": 6}, minimize=minimize, limit=least)
    assert solve_contraction(problem).is_optimal
    with pytest.raises(PlannerError, match=f"the least is {least}$"):
        solve_contraction(replace(problem, limit=least - 1))


@pytest.mark.parametrize("seed", range(3))
def test_flops_are_those_of_opt_einsum(seed: int) -> None:
    problem = drawn_network(7, seed)
    shapes = [tuple(problem.sizes[index] for index in indices) for indices in problem.operands]
    path, info = opt_einsum.contract_path(problem.expression, *shapes, shapes=True, optimize="optimal")
    theirs = plan_of_path(problem, numbered(path, 7), "opt_einsum")
    assert theirs.flops == info.opt_cost
    plan = solve_contraction(problem)
    assert plan.is_optimal
    assert plan.flops <= theirs.flops
    _, info = opt_einsum.contract_path(problem.expression, *shapes, shapes=True, optimize=plan.linear_path)
    assert info.opt_cost == plan.flops


def numbered(path: Sequence[Sequence[int]], count: int) -> list[tuple[int, int]]:
    return [(int(a), int(b)) for a, b in opt_einsum.paths.linear_to_ssa(path)]


@pytest.mark.parametrize("minimize", ["flops", "peak"])
def test_many_tensors_get_an_order_and_a_bound(minimize: Quantity) -> None:
    problem = drawn_network(64, 5, minimize)
    plan = solve_contraction(problem, Effort.FAST)
    assert verify_contraction(problem, plan) == []
    assert 0 < plan.bound < plan.minimized
    assert plan.minimized < left_to_right(problem).minimized
    other = problem.limited
    limited = replace(problem, limit=2 * getattr(plan, other))
    assert verify_contraction(limited, solve_contraction(limited, Effort.FAST)) == []


def test_a_chain_of_fifty_matrices_is_proven() -> None:
    sizes = [10 + 7 * number % 23 for number in range(51)]
    operands = tuple((f"i{number}", f"i{number + 1}") for number in range(50))
    problem = ContractionProblem(operands, ("i0", "i50"), {f"i{number}": size for number, size in enumerate(sizes)})
    plan = solve_contraction(problem, Effort.FAST)
    assert plan.is_optimal
    # The matrix-chain order by its own dynamic program.
    least = [[0.0] * 50 for _ in range(50)]
    for width in range(1, 50):
        for first in range(50 - width):
            last = first + width
            least[first][last] = min(
                least[first][cut] + least[cut + 1][last] + 2 * sizes[first] * sizes[cut + 1] * sizes[last + 1]
                for cut in range(first, last)
            )
    assert plan.flops == least[0][49]


def test_work_that_runs_out_leaves_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    from memplan.planners.contraction import solve

    problem = drawn_network(14, 1)
    proven = solve_contraction(problem)
    assert proven.is_optimal
    monkeypatch.setattr(solve, "_NORMAL", replace(solve._NORMAL, pairs=3_000))
    plan = solve_contraction(problem)
    assert plan.method == "search"
    assert plan.bound <= proven.flops <= plan.flops


@pytest.mark.parametrize(
    ("expression", "sizes", "message"),
    [
        ("ij,jk->ik", {"i": 2, "j": 3}, "the index k has no size"),
        ("ij,jk->ik", {"i": 2, "j": 0, "k": 1}, "the size of the index j is 0"),
        ("ij,jk->iz", {"i": 2, "j": 3, "k": 1}, "the output has the index z, and no tensor has it"),
        ("ij,jk->ii", {"i": 2, "j": 3, "k": 1}, "the output has the index i 2 times"),
        ("...j,jk->k", {"j": 3, "k": 1}, "an ellipsis"),
        ("ij,jk->i->k", {"i": 2, "j": 3, "k": 1}, "a '-' in a wrong place"),
        ("ij,jk", [(2, 3), (4, 5)], "the index j has the sizes 3 and 4"),
        ("ij,jk", [(2, 3)], "has 2 tensors, and there are 1 shapes"),
        ("ij,jk", [(2, 3), (3,)], "tensor 1 (jk) has 1 axes, not 2"),
    ],
)
def test_bad_input_is_named(expression: str, sizes: dict[str, int], message: str) -> None:
    with pytest.raises(PlannerError) as raised:
        contraction_problem(expression, sizes)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": ((0, 1),)}, "the path has 1 pairs, and 3 tensors need 2"),
        ({"path": ((0, 1), (0, 3))}, "pair 1 is of 0 and 3"),
        ({"path": ((0, 0), (2, 3))}, "pair 0 is of 0 and 0"),
        ({"path": ((0, 2), (1, 3))}, "the flops are"),
        ({"flops": 1}, "the flops are 240, and the plan states 1"),
        ({"peak": 1}, "the peak are"),
        ({"bound": math.inf}, "the bound inf is above"),
        ({"minimize": "peak"}, "the plan minimizes peak"),
    ],
)
def test_a_changed_plan_is_refused(change: dict[str, object], message: str) -> None:
    problem = contraction_problem("ij,jk,k->i", {"i": 4, "j": 5, "k": 20})
    plan = solve_contraction(problem)
    assert verify_contraction(problem, plan) == []
    assert any(message in each for each in verify_contraction(problem, replace(plan, **change)))  # type: ignore[arg-type]
    limited = replace(problem, limit=10)
    assert any("exceed 10" in each for each in verify_contraction(limited, plan))
