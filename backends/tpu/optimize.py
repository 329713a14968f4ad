"""Planning on the real compiler: several candidates are compiled and scored by one emulator, and the best is taken.

What may be decided for a module, in the order in which it is tried:

    default              the compiler's own choice; it is always a candidate, so the result is never worse
    scoped limit         the fast memory that an instruction may keep for itself; a larger window makes some
                         instructions faster and leaves less room to tensors, so both ways are tried, then by bisection
                         (`scoped_limit.py`)
    no cross-program     no argument stays in fast memory from run to run, which frees its place for others
    faster copies        the bandwidth that the compiler assumes for copies; with a higher one it prefetches more, and
                         the score says whether an operation has to wait
    plan                 a planner's mapping of the best module so far; the compiler is steered by it (`steering.py`)
                         through the order in which values compete for the fast memory: either all values that the plan
                         has there, ranked in several ways, or only those that gain or lose by it
    demands              what the compiler still does differently from the plan is demanded; a demand that it refuses is
                         dropped, and the buffer is barred from fast memory when the rest is planned again
    order                the order of execution that keeps the least memory alive, where the installed JAX can set one
                         and the compiler's own order keeps more

A compile takes long: a default that is at its bound ends the search, and a plan that is predicted to gain next to
nothing is not compiled. Each compile teaches something: the next plan is made from the estimates of all modules so far
that have the same instructions (`learning.py`). The search itself is `compile_search.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext

from memplan.backends.tpu.compile import TpuCompiler, no_compiler
from memplan.backends.tpu.compile_search import CompileSearch
from memplan.backends.tpu.devices import TOPOLOGY_OF_TARGET, TpuSlice
from memplan.backends.tpu.outcome import Outcome
from memplan.compiler.effort import Effort, check_time_limit
from memplan.compiler.errors import MemplanError
from memplan.compiler.hardware.target import Target
from memplan.planners import planner as planners
from memplan.planners.planner import DEFAULT_PLANNER, Budget


def optimize(
    module: bytes,
    target: Target,
    *,
    planner: str = DEFAULT_PLANNER,
    compile_budget: int = 8,
    effort: Effort = Effort.NORMAL,
    time_limit: float | None = None,
    compiler: TpuCompiler | None = None,
    options: Mapping[str, str] | None = None,
    interrupted: Callable[[], bool] | None = None,
    on: TpuSlice | None = None,
) -> Outcome:
    """Returns the best of several compiles of a module, the compiler's default among them.

    Args:
      module: StableHLO as MLIR bytecode.
      target: a TPU for which there is a compiler.
      planner: name of the planner.
      compile_budget: how many compiles may be made; refused ones, which end early, do not count.
      effort: how much work the planner does for each plan.
      time_limit: seconds that the planner may take for each plan; None for no limit.
      compiler: keeps its worker for other calls; if None, a compiler for this call only.
      options: the user's own compiler options, which are part of every candidate; what they set is not varied.
      interrupted: tells whether the user has interrupted; the best so far is the answer then, if the default was
        compiled. If None, KeyboardInterrupt is raised.
      on: the devices that run the program; None for one of the target.

    Raises:
      MemplanError: there is no compiler for the target, the planner is not known, or the budget is below 1.
      CompileError: not even the default can be compiled.
    """
    check(target, planner, compile_budget, time_limit)
    budget = Budget(effort, time_limit=time_limit)
    with TpuCompiler() if compiler is None else nullcontext(compiler) as used:
        return CompileSearch(
            module, target, planner, compile_budget, budget, used, dict(options or {}), interrupted, on
        ).run()


def check(target: Target, planner: str, compile_budget: int, time_limit: float | None) -> None:
    """Raises MemplanError if `optimize` cannot be called with these arguments."""
    if target.name not in TOPOLOGY_OF_TARGET:
        raise MemplanError(no_compiler(target.name))
    if compile_budget < 1:
        raise MemplanError(f"a compile budget must be at least 1, not {compile_budget}")
    check_time_limit(time_limit)
    planners.get(planner)
