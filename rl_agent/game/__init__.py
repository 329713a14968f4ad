"""The game itself: what is decided, its rules in Python and in JAX, and the plan that a finished game makes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memplan.compiler.lazy import lazy_names

if TYPE_CHECKING:
    from memplan.rl_agent.game.arrays import make_arrays as make_arrays
    from memplan.rl_agent.game.environment import init_to_choice as init_to_choice
    from memplan.rl_agent.game.environment import step_to_choice as step_to_choice
    from memplan.rl_agent.game.game import Game as Game
    from memplan.rl_agent.game.moves import COPY as COPY
    from memplan.rl_agent.game.moves import DROP as DROP
    from memplan.rl_agent.game.moves import NO_COPY as NO_COPY
    from memplan.rl_agent.game.observation import View as View
    from memplan.rl_agent.game.observation import observe as observe
    from memplan.rl_agent.game.plan import make_plan as make_plan
    from memplan.rl_agent.game.reference import Reference as Reference

_PLACES = {
    "COPY": "memplan.rl_agent.game.moves:COPY",
    "DROP": "memplan.rl_agent.game.moves:DROP",
    "Game": "memplan.rl_agent.game.game:Game",
    "NO_COPY": "memplan.rl_agent.game.moves:NO_COPY",
    "Reference": "memplan.rl_agent.game.reference:Reference",
    "View": "memplan.rl_agent.game.observation:View",
    "init_to_choice": "memplan.rl_agent.game.environment:init_to_choice",
    "make_arrays": "memplan.rl_agent.game.arrays:make_arrays",
    "make_plan": "memplan.rl_agent.game.plan:make_plan",
    "observe": "memplan.rl_agent.game.observation:observe",
    "step_to_choice": "memplan.rl_agent.game.environment:step_to_choice",
}

__all__ = sorted(_PLACES)

__getattr__, __dir__ = lazy_names(__name__, _PLACES)
