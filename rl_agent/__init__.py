"""The mallocGame: planning of memory as a single-player game, and an agent that learns to win it.

`game/` has the rules, `learning/` the agent; `planner.py` and `hybrid.py` plan with it. `gymnasium_env.py` wraps the
game for agents of any library: importing this package registers that environment, where Gymnasium is installed.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from memplan.compiler.lazy import lazy_names

if TYPE_CHECKING:
    from memplan.rl_agent.planner import AgentOptions as AgentOptions
    from memplan.rl_agent.planner import solve_with as solve_with

_PLACES = {
    "AgentOptions": "memplan.rl_agent.planner:AgentOptions",
    "solve_with": "memplan.rl_agent.planner:solve_with",
}

__all__ = sorted(_PLACES)

__getattr__, __dir__ = lazy_names(__name__, _PLACES)

if find_spec("gymnasium") is not None:
    import gymnasium

    # By its name, so that JAX is not loaded before somebody plays.
    gymnasium.register("memplan/MallocGame-v0", entry_point="memplan.rl_agent.gymnasium_env:MallocGame")
