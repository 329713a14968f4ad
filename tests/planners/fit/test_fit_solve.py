"""The planner of fit: valid plans within the limit, known optima, bounds that are never above, and errors."""

from __future__ import annotations

import functools
import heapq
import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest
from fit_problems import chain, in_order, random_problem
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import examples

from memplan.compiler.effort import Effort, Guard
from memplan.compiler.errors import PlanError, PlannerError
from memplan.planners.fit.bound import StageProgram, choose_cuts, cost_bound
from memplan.planners.fit.least_peak import Across, Relations, least_peak
from memplan.planners.fit.plan import FitError, FitPlan, Load, Loaded, Run, Store, Stored
from memplan.planners.fit.problem import FitNode, FitProblem, FitValue, HostLink
from memplan.planners.fit.searcher import FitSearcher
from memplan.planners.fit.solve import cost_floor, solve_fit
from memplan.planners.fit.verifier import verify_fit
from memplan.planners.ilp.simplex import Simplex
from memplan.planners.planner import Budget

FAST = Budget(effort=Effort.FAST)


def cheapest(problem: FitProblem, limit: int) -> float | None:
    """Returns the least seconds that any plan without transfers adds, by enumeration; None if no plan fits.

    A state is what is resident and which nodes have run. Values may be dropped at any time.
    """
    nodes, values = problem.nodes, problem.values
    always = frozenset(v for v, value in enumerate(values) if value.producer is None and not value.is_donated)
    results = frozenset(v for v, value in enumerate(values) if value.is_result)
    start = (frozenset(v for v, value in enumerate(values) if value.producer is None), frozenset[int]())
    size = functools.cache(lambda held: sum(values[v].size for v in held))
    queue = [(0.0, 0, start)]
    best, count = {start: 0.0}, 0
    while queue:
        cost, _, state = heapq.heappop(queue)
        held, ran = state
        if cost > best[state]:
            continue
        if len(ran) == len(nodes) and results <= held:
            return cost
        for follower, added in _followers(problem, held, ran, always, limit, size):
            if cost + added < best.get(follower, float("inf")):
                best[follower] = cost + added
                count += 1
                heapq.heappush(queue, (cost + added, count, follower))
    return None


def _followers(problem, held, ran, always, limit, size) -> Iterator[tuple[tuple[frozenset, frozenset], float]]:
    for v in held - always:
        yield (held - {v}, ran), 0.0
    for k, node in enumerate(problem.nodes):
        if not set(node.inputs) <= held or (k in ran and not node.can_repeat):
            continue
        after = (held - set(node.outputs)) | set(node.outputs)
        needed = size(after) + node.workspace
        # Dropping is free, so the inputs that die are those that in-place outputs replace; a pair is used or not.
        yield from _runs(problem, node, k, after, needed, ran, always, limit)


def _runs(problem, node, k, after, needed, ran, always, limit):
    added = node.seconds if k in ran else 0.0
    if needed <= limit:
        yield (after, ran | {k}), added
    for output, read in node.in_place[:1]:
        saved = min(problem.values[output].size, problem.values[read].size)
        if read not in always and needed - saved <= limit:
            yield (after - {read}, ran | {k}), added


def bound_of(problem: FitProblem, limit: int, work: float, nodes: int, guard: Guard) -> float:
    """Returns `cost_bound` of a problem whose relations are known."""
    return cost_bound(problem, Across(problem, Relations(problem)), limit, work, nodes, guard)


def limits(problem: FitProblem) -> range:
    peak = verify_fit(problem, in_order(problem)).peak
    return range(peak - 1, max(peak // 2, 1), -max(1, peak // 8))


@pytest.mark.parametrize("seed", range(10))
def test_tiny_problems_are_solved_to_optimality(seed: int) -> None:
    problem = random_problem(seed, 5)
    for limit in limits(problem):
        optimum = cheapest(problem, limit)
        if optimum is None:
            with pytest.raises(FitError) as caught:
                solve_fit(problem, limit, FAST)
            assert caught.value.proven <= caught.value.found
            assert cheapest(problem, caught.value.proven - 1) is None
            continue
        plan = solve_fit(problem, limit, FAST)
        assert verify_fit(problem, plan, limit).violations == ()
        assert plan.cost == pytest.approx(optimum)
        assert plan.bound <= optimum + 1e-9


@pytest.mark.parametrize("seed", range(12))
def test_bounds_are_never_above_the_optimum(seed: int) -> None:
    problem = chain(3) if seed == 0 else random_problem(100 + seed, 6)
    for limit in limits(problem):
        optimum = cheapest(problem, limit)
        if optimum is not None:
            assert bound_of(problem, limit, 1e8, 100, FAST.guard) <= optimum + 1e-9


def test_the_bound_is_not_trivial() -> None:
    assert bound_of(chain(10), 60, 1e8, 0, FAST.guard) >= 6.0 * (1.0 - 1e-4)


@functools.cache
def reversal(length: int, slots: int) -> float:
    """Returns the fewest steps forward that reverse a chain of so many steps with so many snapshots besides its start.

    The dynamic program of Griewank and Walther, "Algorithm 799: revolve", 2000: advance to step i, keep it, reverse
    what follows with one snapshot less, then what comes before.
    """
    if length <= 1:
        return 0.0
    if slots == 0:
        return length * (length - 1) / 2
    return min(i + reversal(length - i, slots - 1) + reversal(i, slots) for i in range(1, length))


@pytest.mark.parametrize(("layers", "room"), [(4, 40), (6, 50), (7, 50)])
def test_cuts_everywhere_prove_the_optimum_of_chains(layers: int, room: int) -> None:
    optimum = reversal(layers, room // 10 - 4) - (layers - 1)
    assert bound_of(chain(layers), room, 1e8, 100, FAST.guard) == pytest.approx(optimum, rel=1e-3)


@pytest.mark.parametrize("seed", range(6))
def test_one_more_cut_never_lowers_the_bound(seed: int) -> None:
    problem = chain(8) if seed == 0 else random_problem(seed, 40, host=seed % 2 == 1, reach=8)
    limit = max(int(0.7 * verify_fit(problem, in_order(problem)).peak), least_peak(problem, Across(problem, None)))
    across = Across(problem, Relations(problem))
    cuts = choose_cuts(problem, across, limit, 6)
    bounds = []
    for count in range(1, len(cuts) + 1):
        stages = StageProgram(problem, across, cuts[:count], limit)
        bounds.append(Simplex(stages.program.finished(), 1e9, FAST.guard).solve().bound)
    assert all(more >= less - 1e-6 for less, more in itertools.pairwise(bounds)), bounds


@pytest.mark.parametrize(("layers", "room"), [
    (6, 60), (10, 80), *(pytest.param(*each, marks=pytest.mark.slow) for each in ((10, 60), (16, 70), (30, 100), (64, 160)))
])  # fmt: skip
def test_chains_cost_what_the_dynamic_program_says(layers: int, room: int) -> None:
    """A limit of s activations leaves s - 4 snapshots beside x, the activation at hand and two gradients.

    The program's own forward pass costs nothing, and the last activation of the loss is read where it is made.
    """
    problem = chain(layers)
    snapshots = room // 10 - 4
    optimum = reversal(layers, snapshots) - (layers - 1)
    for effort, relaxes in ((Effort.NORMAL, False), (Effort.FAST, True)):
        plan = solve_fit(problem, room, Budget(effort=effort), relaxes=relaxes)
        assert verify_fit(problem, plan, room).violations == ()
        assert plan.cost <= 1.05 * optimum + 1e-9
        assert plan.bound <= optimum + 1e-9


def test_equal_layers_fit_into_segments_of_their_square_root() -> None:
    problem = chain(49)
    for relaxes in (False, True):
        assert solve_fit(problem, 10 * (2 * 7 + 3), FAST, proves=False, relaxes=relaxes).cost <= 49.0


def test_a_bound_can_be_had_alone_and_left_out() -> None:
    problem = chain(10)
    plan, bare = (solve_fit(problem, 70, FAST, proves=proves, relaxes=False) for proves in (True, False))
    assert (bare.steps, bare.cost, bare.bound) == (plan.steps, plan.cost, 0.0)
    assert 0 < cost_floor(problem, 70, FAST) == plan.bound
    assert cost_floor(problem, 1, FAST) == float("inf")


def test_an_order_that_needs_less_costs_nothing() -> None:
    """Sums of gradients run as soon as both are there, although the program has them at its end."""
    values, nodes, last = [FitValue("x", 1)], [], []
    for i in range(10):
        values.append(FitValue(f"big{i}", 100, i))
        nodes.append(FitNode(f"make{i}", (0,), (i + 1,), 1.0, can_repeat=False))
    for i in range(10):
        values.append(FitValue(f"small{i}", 1, 10 + i, is_result=True))
        last.append(FitNode(f"reduce{i}", (i + 1,), (11 + i,), 1.0))
    problem = FitProblem(tuple(values), (*nodes, *last))
    plan = solve_fit(problem, 120, FAST)
    assert (plan.cost, plan.info["is_optimal"]) == (0.0, True)
    assert plan.peak <= 120
    assert plan.info["program_peak"] == 1002


def test_what_cannot_be_recomputed_moves_to_the_host() -> None:
    problem = chain(12, host=HostLink(40.0, 40.0, 0.01))
    frozen = replace(problem, nodes=tuple(replace(node, can_repeat=False) for node in problem.nodes))
    plan = solve_fit(frozen, 100, FAST)
    check = verify_fit(frozen, plan, 100)
    assert check.violations == ()
    assert plan.cost == check.stall_seconds <= 0.5


def test_transfers_of_the_search_never_stall() -> None:
    """The search books the link first in, first out, so that its cost is that of the verifier."""
    loads = 0
    for seed in range(6):
        problem = random_problem(200 + seed, 40, host=True, reach=12)
        limit = int(0.7 * verify_fit(problem, in_order(problem)).peak)
        searcher = FitSearcher(problem, range(len(problem.nodes)), limit, seed)
        searcher.start()
        searcher.go_on(50_000, 0.0)
        plan = searcher.plan()
        check = verify_fit(problem, plan)
        assert check.violations == ()
        assert check.stall_seconds == pytest.approx(0.0, abs=1e-6), seed
        assert check.added_seconds == pytest.approx(searcher.cost, abs=1e-6), seed
        loads += sum(isinstance(step, Load) for step in plan.steps)
    assert loads > 10


@pytest.mark.parametrize("seed", range(12))
def test_bounds_with_a_host_are_never_above_a_plan(seed: int) -> None:
    problem = random_problem(300 + seed, 8, host=True)
    for limit in limits(problem):
        try:
            plan = solve_fit(problem, limit, FAST)
        except FitError:
            break
        assert bound_of(problem, limit, 1e8, 20, FAST.guard) <= plan.cost + 1e-6


def test_unavoidable_waits_are_in_the_bound() -> None:
    """Two of the activations must be stored within the 7 s up to the first gradient, and loaded in the 5 s after it."""
    slow = chain(6, host=HostLink(1.0, 1.0))
    frozen = replace(slow, nodes=tuple(replace(node, can_repeat=False) for node in slow.nodes))
    first = (Run(0), Store(1), Run(1), Store(2), Run(2), Run(3), Run(4), Stored(1), Run(5), Stored(2), Run(6), Load(2))
    then = (Run(7), Load(1), Run(8), Loaded(2), Run(9), Loaded(1), Run(10), Run(11))
    check = verify_fit(frozen, FitPlan((*first, *then)), 60)
    assert (check.violations, check.added_seconds) == ((), 32.0)
    assert (20.0 - 7.0 + 20.0 - 5.0) * (1.0 - 1e-4) <= bound_of(frozen, 60, 1e8, 20, FAST.guard) <= 32.0
    assert 0.0 < bound_of(slow, 60, 1e8, 20, FAST.guard) <= 32.0


def test_results_do_not_depend_on_chance() -> None:
    problem = random_problem(7, 40)
    limit = int(0.7 * verify_fit(problem, in_order(problem)).peak)
    assert solve_fit(problem, limit, Budget(effort=Effort.FAST)) == solve_fit(
        problem, limit, Budget(effort=Effort.FAST)
    )


@given(st.integers(0, 10**6), st.integers(2, 40), st.booleans(), st.floats(0.3, 1.0))
@settings(max_examples=examples(15, 60))
def test_plans_are_valid_or_refused_with_a_plan(seed: int, num_nodes: int, host: bool, share: float) -> None:
    problem = random_problem(seed, num_nodes, host, reach=seed % 3 * 6)
    limit = int(share * verify_fit(problem, in_order(problem)).peak)
    try:
        plan = solve_fit(problem, limit, Budget(effort=Effort.FAST, seed=seed))
    except FitError as error:
        check = verify_fit(problem, error.plan)
        assert check.violations == ()
        assert error.proven <= error.found == check.peak > limit
        assert error.is_impossible == (error.proven > limit)
        return
    check = verify_fit(problem, plan, limit)
    assert check.violations == ()
    assert (plan.peak, plan.cost) == (check.peak, pytest.approx(check.added_seconds))
    assert 0.0 <= plan.bound <= plan.cost
    assert plan.peak >= plan.info["least_peak"]


def test_the_error_names_what_stands_at_the_peak() -> None:
    problem = chain(5)
    named = replace(
        problem, values=(replace(problem.values[0], shape="f32[10]", origin="model.py:3"), *problem.values[1:])
    )
    with pytest.raises(FitError) as caught:
        solve_fit(named, 39, FAST)
    assert (caught.value.proven, caught.value.found, caught.value.is_impossible) == (40, 40, True)
    assert str(caught.value).startswith(
        "no plan fits into 39 bytes: any plan needs at least 40; the least peak found is 40"
    )
    assert "x (f32[10], model.py:3, 10 bytes)" in str(caught.value)


@pytest.mark.parametrize("limit", [-1, 1.5, True, "12GiB", 2**63])
def test_limits_of_nonsense_are_refused(limit: object) -> None:
    with pytest.raises(PlannerError, match="the memory limit must be an integer from 0 to"):
        solve_fit(chain(2), limit, FAST)  # type: ignore[arg-type]


def test_faults_of_the_problem_are_named() -> None:
    broken = replace(chain(2), nodes=(FitNode("f", (0,), (1,), 1.0),))
    with pytest.raises(PlanError, match=r"chain: values\[2\].producer: expected an integer from 0 to 0"):
        solve_fit(broken, 10, FAST)


def test_a_program_without_nodes_is_planned() -> None:
    assert solve_fit(FitProblem((), ()), 0, FAST) == FitPlan(
        (), info={"program_peak": 0, "least_peak": 0, "is_optimal": True}
    )
