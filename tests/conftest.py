"""What all tests share."""

from __future__ import annotations

import pytest


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
