"""What all tests share."""

from __future__ import annotations

import os

import pytest

# Most of what tests run with JAX runs once: XLA shall compile for the CPU fast rather than well, here and in the
# processes that tests start. Read when JAX is first used.
_FAST_COMPILING = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
os.environ["XLA_FLAGS"] = f"{_FAST_COMPILING} {os.environ.get('XLA_FLAGS', '')}".strip()


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
