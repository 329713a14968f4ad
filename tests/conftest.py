"""What all tests share."""

from __future__ import annotations

import pytest

# What takes longest is begun first, so that no core is left with it at the end.
LONGEST = (
    "tests/rl_agent/learning/",
    "tests/test_docs.py",
    "tests/passes/fft/",
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


@pytest.fixture(scope="session")
def prepared() -> None:
    """Compiles the planners' kernels, so that commands do not say that they do."""
    from memplan import planners

    planners.get("auto").prepare()


@pytest.fixture
def registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forgets after the test what it registers: planners, workloads, targets."""
    from memplan.compiler.hardware import target
    from memplan.planners import planner
    from memplan.workloads import workload

    for registry in (planner._registry, workload._registry):
        registry.names()  # so that what is discovered stays
        monkeypatch.setattr(registry, "_items", dict(registry._items))
    monkeypatch.setattr(target, "_registered", dict(target._registered))
