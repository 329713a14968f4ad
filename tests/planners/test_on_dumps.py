"""What the planners make of real modules: valid plans, and none worse than what the compiler decided itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from thorough import dumps

from memplan import planners
from memplan.compiler.emulator.timing import TimingEmulator, emulate
from memplan.compiler.frontends import read
from memplan.compiler.hardware.target import load_target
from memplan.compiler.mapping.build import build_problem
from memplan.compiler.mapping.verify import check_belongs, verify
from memplan.planners.planner import Budget, Effort
from memplan.workloads import dumps_folder

FAST = Budget(Effort.FAST)
DUMPS = sorted(dumps_folder().glob("*.hlo.txt.gz"))

# Each target and both variants, of programs with loops, with many and with few buffers.
QUICK = (
    "lstm.tpu-v5e.default", "decode_kv.tpu-v5p.default", "mlp_mixer.tpu-v6e.slow", "neural_ode.tpu-7x.slow",
    "lstm_train.tpu-v4.default",
)  # fmt: skip


@pytest.mark.parametrize("path", dumps(DUMPS, QUICK))
def test_plans_are_valid_and_greedy_keeps_up_with_the_compiler(path: Path) -> None:
    problem = build_problem(read(path), load_target(path.name.split(".")[1]))
    latency = {}
    for name in ("slow", "bestfit", "xla", "greedy"):
        plan = planners.get(name).solve(problem, Budget())
        check_belongs(problem, plan)
        assert verify(problem, plan) == []
        latency[name] = emulate(problem, plan).latency
    assert problem.given is not None
    assert latency["greedy"] <= latency["slow"]
    assert latency["greedy"] <= 1.05 * latency["xla"]
    assert latency["greedy"] <= 1.05 * emulate(problem, problem.given).latency


@pytest.mark.slow
def test_the_same_problem_and_seed_give_the_same_plan() -> None:
    path = next(path for path in DUMPS if path.name.startswith("lstm_train.tpu-v5e.default"))
    problem = build_problem(read(path), load_target("tpu-v5e"))
    for name in ("slow", "bestfit", "xla", "greedy"):
        assert planners.get(name).solve(problem, Budget()) == planners.get(name).solve(problem, Budget())


@pytest.mark.parametrize("path", dumps(DUMPS, (QUICK[0], QUICK[3])))
def test_auto_is_no_worse_than_its_members_and_the_compiler(path: Path) -> None:
    problem = build_problem(read(path), load_target(path.name.split(".")[1]))
    emulator = TimingEmulator(problem)
    best = emulator.latency(planners.get("auto").plan(problem, FAST))
    for name in ("greedy", "search", "xla"):
        assert best <= emulator.latency(planners.get(name).solve(problem, FAST)), name
    assert problem.given is not None


@pytest.mark.slow
@pytest.mark.parametrize("path", dumps(DUMPS, ()))
def test_so_it_is_at_the_normal_effort(path: Path) -> None:
    problem = build_problem(read(path), load_target(path.name.split(".")[1]))
    emulator = TimingEmulator(problem)
    best = emulator.latency(planners.get("auto").plan(problem, Budget()))
    for name in ("greedy", "search", "ilp", "xla"):
        assert best <= emulator.latency(planners.get(name).solve(problem, Budget())), name


@pytest.mark.slow
def test_the_plan_of_a_dump_does_not_depend_on_processes_or_hash_seed() -> None:
    program = (
        "import sys, memplan\n"
        "from memplan.planners.auto.solve import AutoOptions, solve_with\n"
        "dump, target, processes = sys.argv[1:]\n"
        "problem = memplan.problem(memplan.read(dump), target)\n"
        "options = AutoOptions(members=('search', 'bestfit'), processes=int(processes))\n"
        "plan = solve_with(problem, memplan.Budget(memplan.Effort.FAST), options)\n"
        "print(plan)\n"
    )
    path = next(path for path in DUMPS if path.name.startswith("lstm.tpu-v5e.default"))
    assert _printed(program, path, processes=2, hash_seed=1) == _printed(program, path, processes=1, hash_seed=2)


def _printed(program: str, path: Path, processes: int, hash_seed: int) -> str:
    return subprocess.run(
        [sys.executable, "-c", program, path, "tpu-v5e", str(processes)],
        env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
