"""memplan plans where every tensor of a machine-learning program lives, moment by moment, in a hierarchy of memories.

    graph = memplan.read("step.hlo.txt.gz")             # what a compiler dumped, or memplan.trace(fun, *args)
    plan = memplan.plan(graph, target="tpu-v5e")
    assert not memplan.verify(graph, plan)
    print(memplan.emulate(graph, plan).latency)

Names are loaded when they are first used: importing memplan imports neither JAX nor numpy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memplan import ops as ops
    from memplan import workloads as workloads
    from memplan.backends.jit import jit as jit
    from memplan.compiler.emulator.timing import Timeline as Timeline
    from memplan.compiler.errors import MemplanError as MemplanError
    from memplan.compiler.frontends.jaxpr import trace as trace
    from memplan.compiler.frontends.reader import read as read
    from memplan.compiler.hardware.target import Target as Target
    from memplan.compiler.hardware.target import load_target as load_target
    from memplan.compiler.hardware.target import register_target as register_target
    from memplan.compiler.ir.graph import Graph as Graph
    from memplan.compiler.mapping.plan import Plan as Plan
    from memplan.compiler.mapping.problem import MappingProblem as MappingProblem
    from memplan.compiler.mapping.verify import Violation as Violation
    from memplan.passes.base import register as register_pass  # noqa: F401
    from memplan.pipeline import emulate as emulate
    from memplan.pipeline import execute as execute
    from memplan.pipeline import plan as plan
    from memplan.pipeline import problem as problem
    from memplan.pipeline import verify as verify
    from memplan.planners.planner import Budget as Budget
    from memplan.planners.planner import Planner as Planner
    from memplan.planners.planner import register as register_planner  # noqa: F401

    __version__: str

# Public name: module that holds it, and its name there.
_PLACES = {
    "Budget": ("memplan.planners.planner", "Budget"),
    "Graph": ("memplan.compiler.ir.graph", "Graph"),
    "MappingProblem": ("memplan.compiler.mapping.problem", "MappingProblem"),
    "MemplanError": ("memplan.compiler.errors", "MemplanError"),
    "Plan": ("memplan.compiler.mapping.plan", "Plan"),
    "Planner": ("memplan.planners.planner", "Planner"),
    "Target": ("memplan.compiler.hardware.target", "Target"),
    "Timeline": ("memplan.compiler.emulator.timing", "Timeline"),
    "Violation": ("memplan.compiler.mapping.verify", "Violation"),
    "emulate": ("memplan.pipeline", "emulate"),
    "execute": ("memplan.pipeline", "execute"),
    "jit": ("memplan.backends.jit", "jit"),
    "load_target": ("memplan.compiler.hardware.target", "load_target"),
    "plan": ("memplan.pipeline", "plan"),
    "problem": ("memplan.pipeline", "problem"),
    "read": ("memplan.compiler.frontends.reader", "read"),
    "register_pass": ("memplan.passes.base", "register"),
    "register_planner": ("memplan.planners.planner", "register"),
    "register_target": ("memplan.compiler.hardware.target", "register_target"),
    "trace": ("memplan.compiler.frontends.jaxpr", "trace"),
    "verify": ("memplan.pipeline", "verify"),
}

# Public names that are modules.
_MODULES = {"ops": "memplan.ops", "workloads": "memplan.workloads"}

__all__ = ["__version__", *sorted(_MODULES), *sorted(_PLACES)]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("memplan")
    elif name in _MODULES:
        value = importlib.import_module(_MODULES[name])
    elif name in _PLACES:
        module, attribute = _PLACES[name]
        value = getattr(importlib.import_module(module), attribute)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
