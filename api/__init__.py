"""memplan plans where every tensor of a machine-learning program lives, moment by moment, in a hierarchy of memories.

    graph = memplan.read("step.hlo.txt.gz")             # what a compiler dumped, or memplan.trace(fun, *args)
    plan = memplan.plan(graph, target="tpu-v5e")
    assert not memplan.verify(graph, plan)
    print(memplan.emulate(graph, plan).latency)

Names are loaded when they are first used: importing memplan imports neither JAX nor numpy. Besides these names, the
packages `memplan.planners`, `memplan.passes`, `memplan.rl_agent`, `memplan.rl_agent.game` and `memplan.workloads` have
public ones of their own, listed in their `__all__`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memplan.compiler.lazy import lazy_names

if TYPE_CHECKING:
    from memplan import ops as ops
    from memplan import workloads as workloads
    from memplan.backends.fit.batch import BatchResult as BatchResult
    from memplan.backends.fit.batch import max_batch as max_batch
    from memplan.backends.fit.fit import fit as fit
    from memplan.backends.fit.result import CannotFitError as CannotFitError
    from memplan.backends.fit.result import FitResult as FitResult
    from memplan.backends.jit import PlannedPrograms as PlannedPrograms
    from memplan.backends.jit import jit as jit
    from memplan.backends.jit import planned as planned
    from memplan.compiler.effort import Effort as Effort
    from memplan.compiler.embedded.plan import EmbeddedPlan as EmbeddedPlan
    from memplan.compiler.emulator.timing import Timeline as Timeline
    from memplan.compiler.emulator.timing import TimingEmulator as TimingEmulator
    from memplan.compiler.errors import GraphError as GraphError
    from memplan.compiler.errors import MemplanError as MemplanError
    from memplan.compiler.errors import ParseError as ParseError
    from memplan.compiler.errors import PlanError as PlanError
    from memplan.compiler.errors import PlannerError as PlannerError
    from memplan.compiler.errors import TargetError as TargetError
    from memplan.compiler.frontends.jaxpr import trace as trace
    from memplan.compiler.frontends.reader import read as read
    from memplan.compiler.hardware.target import Target as Target
    from memplan.compiler.hardware.target import load_target as load_target
    from memplan.compiler.hardware.target import register_target as register_target
    from memplan.compiler.ir.graph import Graph as Graph
    from memplan.compiler.mapping.plan import Copy as Copy
    from memplan.compiler.mapping.plan import Plan as Plan
    from memplan.compiler.mapping.plan import Residency as Residency
    from memplan.compiler.mapping.problem import MappingProblem as MappingProblem
    from memplan.compiler.mapping.verify import RULES as PLAN_RULES  # noqa: F401
    from memplan.compiler.mapping.verify import Violation as Violation
    from memplan.compiler.report.peak import Peak as Peak
    from memplan.passes.base import register as register_pass  # noqa: F401
    from memplan.passes.embedded.entry import embedded as embedded
    from memplan.pipeline import emulate as emulate
    from memplan.pipeline import execute as execute
    from memplan.pipeline import peak as peak
    from memplan.pipeline import plan as plan
    from memplan.pipeline import problem as problem
    from memplan.pipeline import verify as verify
    from memplan.planners.bound import lower_bound as lower_bound
    from memplan.planners.offsets import Block as Block
    from memplan.planners.offsets import Instance as Instance
    from memplan.planners.offsets import Packing as Packing
    from memplan.planners.offsets import pack as pack
    from memplan.planners.planner import Budget as Budget
    from memplan.planners.planner import Planner as Planner
    from memplan.planners.planner import register as register_planner  # noqa: F401

    __version__: str

_PLACES = {
    "BatchResult": "memplan.backends.fit.batch:BatchResult",
    "Block": "memplan.planners.offsets:Block",
    "Budget": "memplan.planners.planner:Budget",
    "CannotFitError": "memplan.backends.fit.result:CannotFitError",
    "Copy": "memplan.compiler.mapping.plan:Copy",
    "Effort": "memplan.compiler.effort:Effort",
    "FitResult": "memplan.backends.fit.result:FitResult",
    "Graph": "memplan.compiler.ir.graph:Graph",
    "GraphError": "memplan.compiler.errors:GraphError",
    "Instance": "memplan.planners.offsets:Instance",
    "MappingProblem": "memplan.compiler.mapping.problem:MappingProblem",
    "MemplanError": "memplan.compiler.errors:MemplanError",
    "PLAN_RULES": "memplan.compiler.mapping.verify:RULES",
    "Packing": "memplan.planners.offsets:Packing",
    "ParseError": "memplan.compiler.errors:ParseError",
    "Peak": "memplan.compiler.report.peak:Peak",
    "Plan": "memplan.compiler.mapping.plan:Plan",
    "PlanError": "memplan.compiler.errors:PlanError",
    "PlannedPrograms": "memplan.backends.jit:PlannedPrograms",
    "Planner": "memplan.planners.planner:Planner",
    "PlannerError": "memplan.compiler.errors:PlannerError",
    "Residency": "memplan.compiler.mapping.plan:Residency",
    "Target": "memplan.compiler.hardware.target:Target",
    "TargetError": "memplan.compiler.errors:TargetError",
    "Timeline": "memplan.compiler.emulator.timing:Timeline",
    "TimingEmulator": "memplan.compiler.emulator.timing:TimingEmulator",
    "Violation": "memplan.compiler.mapping.verify:Violation",
    "EmbeddedPlan": "memplan.compiler.embedded.plan:EmbeddedPlan",
    "embedded": "memplan.passes.embedded.entry:embedded",
    "emulate": "memplan.pipeline:emulate",
    "execute": "memplan.pipeline:execute",
    "fit": "memplan.backends.fit.fit:fit",
    "jit": "memplan.backends.jit:jit",
    "load_target": "memplan.compiler.hardware.target:load_target",
    "lower_bound": "memplan.planners.bound:lower_bound",
    "max_batch": "memplan.backends.fit.batch:max_batch",
    "ops": "memplan.ops",
    "pack": "memplan.planners.offsets:pack",
    "peak": "memplan.pipeline:peak",
    "plan": "memplan.pipeline:plan",
    "planned": "memplan.backends.jit:planned",
    "problem": "memplan.pipeline:problem",
    "read": "memplan.compiler.frontends.reader:read",
    "register_pass": "memplan.passes.base:register",
    "register_planner": "memplan.planners.planner:register",
    "register_target": "memplan.compiler.hardware.target:register_target",
    "trace": "memplan.compiler.frontends.jaxpr:trace",
    "verify": "memplan.pipeline:verify",
    "workloads": "memplan.workloads",
}

__all__ = ["__version__", *sorted(_PLACES)]

_load, _ = lazy_names(__name__, _PLACES)


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("memplan")
    return _load(name)


def __dir__() -> list[str]:
    return sorted(__all__)
