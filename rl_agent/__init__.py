"""The mallocGame: planning of memory as a single-player game, to be learned.

`game/` has the rules, `gymnasium_env.py` wraps them for agents of any library. Importing this package registers that
environment, where Gymnasium is installed.
"""

from importlib.util import find_spec

if find_spec("gymnasium") is not None:
    from memplan.rl_agent.gymnasium_env import register

    register()
