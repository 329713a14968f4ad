"""What all tests share."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck
from thorough import examples

# How long an example takes is the machine's affair.
hypothesis.settings.register_profile(
    "memplan", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=examples(40, 100)
)
hypothesis.settings.load_profile("memplan")

# Programs of tests run for an instant and are compiled for much longer, so JAX compiles fast rather than well, in the
# processes that tests start, too. That is read when JAX is imported.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

# What one process of a run has compiled, the others and their children load. The first process makes the folder.
COMPILED = None
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    COMPILED = tempfile.mkdtemp(prefix="memplan-tests-jax-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = COMPILED
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"


def pytest_unconfigure() -> None:
    if COMPILED is not None:
        shutil.rmtree(COMPILED, ignore_errors=True)


# What takes longest is begun first, so that no core is left with it at the end.
# The first file compiles the planners' kernels, and transforms need none meanwhile.
LONGEST = (
    "tests/test_docs.py",
    "tests/passes/fft/",
    "tests/rl_agent/learning/",
    "tests/planners/search/",
    "tests/planners/evolution/",
    "tests/compiler/emulator/test_values.py",
    "tests/test_style.py",
    "tests/rl_agent/",
    "tests/planners/",
    "tests/backends/",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        return next((place for place, start in enumerate(LONGEST) if item.nodeid.startswith(start)), len(LONGEST))

    items.sort(key=place)


# Folders whose tests stay in one process: JAX traces and compiles the same programs for all of their files.
TOGETHER = ("tests/rl_agent/learning/",)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            whole: str = super()._split_scope(nodeid)
            return next((folder for folder in TOGETHER if nodeid.startswith(folder)), whole)

    return Scheduling(config, log)


@pytest.fixture(autouse=True)
def written_modules_are_forgotten(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Takes the modules that a test wrote and imported out of `sys.modules`: the next test may write others so named."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        places = getattr(sys.modules[name], "__path__", None) or [getattr(sys.modules[name], "__file__", None) or ""]
        if any(Path(place).is_relative_to(tmp_path_factory.getbasetemp()) for place in places):
            del sys.modules[name]


@pytest.fixture(scope="session")
def prepared() -> None:
    """Compiles the planners' kernels, so that commands do not say that they do; one process does it for all."""
    from memplan import planners
    from memplan.compiler.kernels import alone
    from memplan.planners.fit import preparation

    with alone():
        planners.get("auto").prepare()
        preparation.prepare()


@pytest.fixture
def little_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives the solvers of the planner ilp much less work than an effort affords, which small problems use up as well."""
    from memplan.planners.ilp import solve

    monkeypatch.setattr(solve, "_WORK", (50_000_000,) * 3)
    monkeypatch.setattr(solve, "_JOINT_EFFORT", (0.05,) * 3)


@pytest.fixture
def registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forgets after the test what it registers: planners, workloads, targets."""
    from memplan.compiler.hardware import target
    from memplan.planners import planner
    from memplan.workloads import registry as workloads

    for registry in (planner._registry, workloads._registry):
        registry.names()  # so that what is discovered stays
        monkeypatch.setattr(registry, "_items", dict(registry._items))
    monkeypatch.setattr(target, "_registered", dict(target._registered))
