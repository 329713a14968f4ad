"""The mallocGame: planning of memory as a single-player game, and an agent that learns to win it.

`game/` has the rules, `learning/` the agent; `planner.py` and `hybrid.py` plan with it. `gymnasium_env.py` wraps the
game for agents of any library: importing this package registers that environment, where Gymnasium is installed.
"""

from importlib.util import find_spec

if find_spec("gymnasium") is not None:
    import gymnasium

    # By its name, so that JAX is not loaded before somebody plays.
    gymnasium.register("memplan/MallocGame-v0", entry_point="memplan.rl_agent.gymnasium_env:MallocGame")
