"""What planners prepare is all that they compile: a budget pays for planning alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from memplan.compiler.mapping.verify import verify
from memplan.planners import slow
from memplan.planners.planner import Budget
from memplan.planners.stays.small_problem import small_problem

DUMPS = Path(__file__).parents[2] / "workloads" / "dumps"

# Prints the functions that numba compiled, or loaded from its cache, after the preparation.
PROGRAM = """
import json, sys
from numba.core.dispatcher import Dispatcher
import memplan
from memplan import planners

def compiled():
    modules = [module for name, module in list(sys.modules.items()) if name.startswith("memplan.")]
    return {
        f"{function.__module__}.{name} {signature}"
        for module in modules
        for name, function in vars(module).items()
        if isinstance(function, Dispatcher)
        for signature in function.signatures
    }

planner = planners.get(sys.argv[1])
problems = [memplan.problem(memplan.read(dump), dump.split(".")[1]) for dump in sys.argv[2:]]
for problem in problems:
    memplan.TimingEmulator(problem).latency(memplan.plan(problem, planner="slow"))
planner.prepare()
before = compiled()
for problem in problems:
    planner.solve(problem, memplan.Budget(memplan.Effort.FAST, time_limit=0.3))
print(json.dumps(sorted(compiled() - before)))
"""


@pytest.mark.parametrize(
    "planner",
    ["search", *(pytest.param(name, marks=pytest.mark.slow) for name in ("greedy", "bestfit", "ilp", "evolution"))],
)
def test_nothing_is_compiled_after_the_preparation(planner: str) -> None:
    names = ("lstm.tpu-v5e", "alexnet_train.tpu-v6e")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, planner, *(f"{name}.default.hlo.txt.gz" for name in names)],
        cwd=DUMPS, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


def test_the_small_problem_makes_sense() -> None:
    problem = small_problem()
    assert verify(problem, slow.solve(problem, Budget())) == []
