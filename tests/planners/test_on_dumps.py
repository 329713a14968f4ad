"""What the planners make of real modules: valid plans, and none worse than what the compiler decided itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from thorough import dumps

from memplan import planners
from memplan.compiler.emulator.timing import emulate
from memplan.compiler.frontends import read
from memplan.compiler.hardware.target import load_target
from memplan.compiler.mapping.build import build_problem
from memplan.compiler.mapping.verify import check_belongs, verify
from memplan.planners.planner import Budget
from memplan.workloads import dumps_folder

DUMPS = sorted(dumps_folder().glob("*.hlo.txt.gz"))

# Each target and both variants, of programs with loops, with many and with few buffers.
QUICK = (
    "lstm.tpu-v5e.default", "mamba.tpu-v5e.default", "decode_kv.tpu-v5p.default", "mlp_mixer.tpu-v6e.slow",
    "alexnet_train.tpu-7x.default", "moe.tpu-v5e.default", "neural_ode.tpu-7x.slow", "hyena.tpu-v4.default", "alphatensor.tpu-v5e.slow", "lstm_train.tpu-v4.default",
)  # fmt: skip


@pytest.mark.parametrize("path", dumps(DUMPS, QUICK))
def test_plans_are_valid_and_greedy_keeps_up_with_the_compiler(path: Path) -> None:
    problem = build_problem(read(path), load_target(path.name.split(".")[1]))
    latency = {}
    for name in ("slow", "bestfit", "xla", "greedy"):
        plan = planners.get(name).solve(problem, Budget(seconds=60.0))
        check_belongs(problem, plan)
        assert verify(problem, plan) == []
        latency[name] = emulate(problem, plan).latency
    assert problem.given is not None
    assert latency["greedy"] <= latency["slow"]
    assert latency["greedy"] <= 1.05 * latency["xla"]
    assert latency["greedy"] <= 1.05 * emulate(problem, problem.given).latency


def test_the_same_problem_and_seed_give_the_same_plan() -> None:
    path = next(path for path in DUMPS if path.name.startswith("lstm_train.tpu-v5e.default"))
    problem = build_problem(read(path), load_target("tpu-v5e"))
    for name in ("slow", "bestfit", "xla", "greedy"):
        assert planners.get(name).solve(problem, Budget()) == planners.get(name).solve(problem, Budget())
