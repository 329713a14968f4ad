"""`memplan.jit`: `jax.jit` whose programs are compiled with a plan.

call ──► dispatcher ─── signature known ──► the executable, as jax.jit dispatches to it
         dispatch.py └─ a new one ──► function.py: trace, lower, plan by platform ──► the jitted function to use
                                                   on a TPU   optimize, then compiler options   planning.py
                                                   on a CPU   the order of execution            order_hook.py
                                                   elsewhere  jax.jit's own
.lower(…).compile()                   stages.py    for a target that is not here: planned in the worker process

`memplan.planned` does the same where JAX compiles, for what libraries jit by themselves (`block.py`).
"""

from memplan.backends.jit.block import PlannedPrograms as PlannedPrograms
from memplan.backends.jit.block import planned as planned
from memplan.backends.jit.function import PlanResult as PlanResult
from memplan.backends.jit.wrapper import Jitted as Jitted
from memplan.backends.jit.wrapper import jit as jit
