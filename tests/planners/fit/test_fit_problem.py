"""The FitProblem and the FitPlan as data: checks, tables and JSON."""

import json
from dataclasses import replace

import pytest
from fit_problems import chain, random_problem

from memplan.compiler.errors import PlanError
from memplan.planners.fit.plan import FitPlan, Load, Loaded, Run, Store, Stored
from memplan.planners.fit.problem import FitNode, FitProblem, FitValue, HostLink

VALUES = (FitValue("x", 1), FitValue("a", 2, 0), FitValue("b", 3, 1, is_result=True))
NODES = (FitNode("f", (0,), (1,), 1.0), FitNode("g", (0, 1), (2,), 1.0, in_place=((2, 1),)))


def test_the_tables_list_uses_by_value() -> None:
    tables = FitProblem(VALUES, NODES).tables
    assert tables.use_start.tolist() == [0, 2, 3, 3]
    assert tables.uses.tolist() == [0, 1, 1]
    assert tables.stays.tolist() == [True, False, False]
    assert not tables.can_offload.any()
    assert FitProblem(VALUES, NODES, HostLink(1.0, 1.0)).tables.can_offload.tolist() == [False, True, True]


@pytest.mark.parametrize("seed", range(5))
def test_json_reads_back_what_was_written(seed: int) -> None:
    problem = random_problem(seed, 6, host=seed % 2 > 0)
    assert FitProblem.from_json(problem.to_json()) == problem
    plan = FitPlan((Run(0), Store(1), Stored(1), Load(1), Loaded(1)), 5, 1.5, 0.5, {"rounds": 3})
    assert FitPlan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize(
    ("values", "nodes", "message"),
    [
        (VALUES, (NODES[0],), "values[2].producer: expected an integer from 0 to 0"),
        (VALUES, (NODES[0], replace(NODES[1], inputs=(7,))), "nodes[1].inputs[0]: expected an integer from 0 to 2"),
        (VALUES, (NODES[0], replace(NODES[1], inputs=(0, 0))), "nodes[1] (g): it lists an input twice"),
        (VALUES, (NODES[0], replace(NODES[1], in_place=((2, 2),))), "nodes[1] (g): the in-place pair (2, 2) is no"),
        (VALUES, (NODES[0], replace(NODES[1], outputs=(1, 2))), "nodes[1] (g): it produces value 1 (a), which node 0"),
        (VALUES, (replace(NODES[0], inputs=(2,)), NODES[1]), "nodes[0] (f): it reads value 2 (b), which node 1 produces"),
        (VALUES, (replace(NODES[0], seconds=float("nan")), NODES[1]), "nodes[0].seconds: expected a finite number"),
        ((replace(VALUES[0], size=-1), *VALUES[1:]), NODES, "values[0].size: expected an integer from 0"),
        ((VALUES[0], replace(VALUES[1], is_donated=True), VALUES[2]), NODES, "values[1] (a): it is donated"),
        ((*VALUES, FitValue("c", 1, 1)), NODES, "values[3] (c): node 1 does not produce it"),
    ],
)  # fmt: skip
def test_faults_are_named_with_their_place(values: tuple, nodes: tuple, message: str) -> None:
    with pytest.raises(PlanError) as caught:
        FitProblem(values, nodes, name="step").check()
    assert str(caught.value).startswith("step: ")
    assert message in str(caught.value)


def test_malformed_files_are_refused_with_their_place() -> None:
    document = json.loads(chain(2).to_json())
    document["nodes"][1][1] = [99]
    with pytest.raises(PlanError, match=r"p.json: nodes\[1\].inputs\[0\]: expected an integer"):
        FitProblem.from_json(json.dumps(document), "p.json")
    with pytest.raises(PlanError, match=r"q.json: steps\[0\].kind: expected one of"):
        FitPlan.from_json(FitPlan((Run(0),)).to_json().replace('"run"', '"walk"'), "q.json")
