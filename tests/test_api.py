"""The public names."""

import importlib
import importlib.metadata
import re
from pathlib import Path

import pytest

import memplan

DUMP = memplan.workloads.dumps_folder() / "lstm.tpu-v5e.default.hlo.txt.gz"


# The packages whose `__all__` is public.
PUBLIC = (
    "memplan",
    "memplan.ops",
    "memplan.passes",
    "memplan.passes.levels",
    "memplan.passes.sparse_update",
    "memplan.passes.update_scheme",
    "memplan.passes.update_selection",
    "memplan.planners",
    "memplan.planners.contraction",
    "memplan.planners.fit",
    "memplan.planners.levels",
    "memplan.planners.offsets",
    "memplan.planners.pipeline",
    "memplan.planners.search",
    "memplan.random_problems",
    "memplan.rl_agent",
    "memplan.rl_agent.game",
    "memplan.workloads",
    "memplan.workloads.mcu",
    "memplan.workloads.random_programs",
)


@pytest.mark.parametrize("package", PUBLIC)
def test_every_public_name_of_a_package_is_there(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__all__
    assert set(module.__all__) <= set(dir(module))
    for name in module.__all__:
        assert getattr(module, name) is not None, name


def test_what_the_documentation_imports_is_public() -> None:
    root = Path(__file__).parent.parent
    for page in [root / "README.md", *sorted((root / "docs").glob("*.md"))]:
        for package, names in re.findall(
            r"^(?:>>> )?from (memplan[\w.]*) import (.+)$", page.read_text(), re.MULTILINE
        ):
            assert package in PUBLIC, f"{page.name}: {package}"
            assert set(re.split(r", *", names)) <= set(importlib.import_module(package).__all__), page.name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'palindrome'"):
        _ = memplan.palindrome
    assert not hasattr(memplan, "palindrome")


def test_version() -> None:
    assert memplan.__version__ == importlib.metadata.version("memplan")


def test_from_a_dump_to_a_scored_plan() -> None:
    graph = memplan.read(DUMP)
    plan = memplan.plan(graph, target="tpu-v5e", planner="greedy")
    assert isinstance(plan, memplan.Plan)
    assert memplan.verify(graph, plan) == []
    slow = memplan.plan(graph, planner="slow")
    assert slow.target == "tpu-v5e"
    assert memplan.emulate(graph, plan).latency <= memplan.emulate(graph, slow).latency


def test_a_problem_is_built_once() -> None:
    problem = memplan.problem(memplan.read(DUMP), "tpu-v5e")
    assert isinstance(problem, memplan.MappingProblem)
    plan = memplan.plan(problem, planner="slow")
    assert memplan.verify(problem, plan) == []
    assert memplan.emulate(problem, plan).latency > 0


def test_a_plan_for_another_target_is_refused() -> None:
    graph = memplan.read(DUMP)
    plan = memplan.plan(graph, "tpu-v5e", planner="slow")
    with pytest.raises(memplan.MemplanError):
        memplan.verify(graph, plan, target="tpu-v4")


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_a_time_limit_is_a_positive_number(seconds: float) -> None:
    with pytest.raises(memplan.MemplanError, match="time limit"):
        memplan.plan(memplan.read(DUMP), time_limit=seconds)


def test_a_traced_function_is_planned() -> None:
    import jax
    import jax.numpy as jnp

    x = jax.ShapeDtypeStruct((64, 64), jnp.float32)
    graph = memplan.trace(lambda x: jnp.tanh(x @ x).sum(), x)
    plan = memplan.plan(graph, "generic", effort="fast")
    assert memplan.verify(graph, plan) == []


def test_a_target_of_ones_own(tmp_path: Path) -> None:
    source = Path(memplan.__file__).parent
    assert source.exists()
    target = memplan.load_target("tpu-v5e")
    plan = memplan.plan(memplan.read(DUMP), target, planner="slow")
    assert plan.target == target.name
