"""The game as a Gymnasium environment, `memplan/MallocGame-v0`, for agents of any library.

    import gymnasium, memplan.rl_agent
    env = gymnasium.make("memplan/MallocGame-v0", problem=problem)
    observation, info = env.reset()
    observation, reward, terminated, truncated, info = env.step(env.unwrapped.action_masks().argmax())

Moves that are forced are made within `step` (see `game/environment.py`): a player decides only where there is a choice.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import jax
import numpy as np
from numpy.typing import NDArray

from memplan.compiler.errors import PlannerError
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.rl_agent.game.arrays import make_arrays
from memplan.rl_agent.game.environment import init_to_choice, step_to_choice
from memplan.rl_agent.game.game import Game
from memplan.rl_agent.game.moves import ACTIONS, NUM_ACTIONS
from memplan.rl_agent.game.observation import FACTS, ITEM_FEATURES, View, observe
from memplan.rl_agent.game.plan import make_plan, replay
from memplan.rl_agent.game.reference import Reference
from memplan.rl_agent.game.state import State
from memplan.rl_agent.rendering import draw

NAME = "memplan/MallocGame-v0"

# Compiled once for all environments whose games have arrays of the same sizes.
_init, _step, _observe = jax.jit(init_to_choice), jax.jit(step_to_choice), jax.jit(observe, static_argnames="view")

ObservationArrays = dict[str, NDArray[np.float32]]


class MallocGame(gymnasium.Env[Any, np.int64]):
    """One problem, played from its first decision to its last.

    Args:
      problem: a MappingProblem, or the file of a saved one.
      units: into how many parts the fast memory is divided, at most.
      reach: over how many slots a copy may stretch, and be looked for.
      view: how much is observed.
      normalize: whether rewards are shares of the latency with everything at home, rather than seconds.
      render_mode: `rgb_array` or None.
      guide: a plan whose offsets are preferred, or the name of the planner that makes it; None for no preference.

    An action that is not legal is replaced by the first legal one, and `info["is_legal"]` says so. Other keys of
    `info`: `latency`, seconds of the plan as far as it is decided, all else at home; `moves`, how many are made;
    `backups`.

    Raises:
      PlannerError: the problem has nothing to decide.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012  # the interface's own type

    def __init__(
        self,
        problem: MappingProblem | str | Path,
        units: int = 512,
        reach: int = 128,
        view: View | None = None,
        normalize: bool = True,
        render_mode: str | None = None,
        guide: Plan | str | None = "greedy",
    ):
        if not isinstance(problem, MappingProblem):
            problem = MappingProblem.load(problem)
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise PlannerError(f"render_mode={render_mode!r}: the game can be rendered as rgb_array only")
        view = view or View()
        self.game = Game(problem, units, reach, guide)
        if not self.game.moves:
            raise PlannerError(f"no buffer of {problem.name} may move: there is nothing to decide")
        self.normalize, self.render_mode = normalize, render_mode
        self._arrays = make_arrays(self.game)
        self._view = view
        self._state: State | None = None
        shapes = {
            "board": (view.before + view.after, view.columns),
            "supply": (view.slots, 2),
            "items": (view.items, len(ITEM_FEATURES)),
            "facts": (len(FACTS),),
        }
        self.observation_space = gymnasium.spaces.Dict(
            {name: gymnasium.spaces.Box(-1.0, 1.0, shape, np.float32) for name, shape in shapes.items()}
        )
        self.action_space = gymnasium.spaces.Discrete(NUM_ACTIONS)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[ObservationArrays, dict[str, Any]]:
        """Starts the game; nothing in it is random."""
        super().reset(seed=seed)
        self._state = _init(self._arrays)
        return self._observation(), self._info()

    def step(self, action: np.int64) -> tuple[ObservationArrays, float, bool, bool, dict[str, Any]]:
        """Makes a decision, and what follows from it."""
        state = self.state
        is_legal = bool(self.action_masks()[int(action)])
        self._state = _step(self._arrays, state, int(action))
        reward = float(self._state.reward)
        if self.normalize:
            reward /= max(self.game.home_latency, 1e-30)
        return self._observation(), reward, bool(self._state.done), False, self._info() | {"is_legal": is_legal}

    def action_masks(self) -> NDArray[np.bool_]:
        """Returns which actions are legal, `[3]`: COPY, NO_COPY, DROP."""
        return np.asarray(self.state.legal)

    def render(self) -> NDArray[np.uint8] | None:
        """Returns a picture of the board, `[height, width, 3]`; None without a render mode."""
        return draw(self._reference()) if self.render_mode is not None else None

    def plan(self) -> Plan:
        """Returns the plan of the finished game; raises PlannerError if it is not over."""
        return make_plan(self._reference())

    @property
    def state(self) -> State:
        """The state of the game; raises PlannerError before the first `reset`."""
        if self._state is None:
            raise PlannerError("call reset() before playing")
        return self._state

    def _reference(self) -> Reference:
        return replay(self.game, np.asarray(self.state.history) & ACTIONS, int(self.state.move))

    def _observation(self) -> ObservationArrays:
        seen = _observe(self._arrays, self.state, view=self._view)
        return {name: np.asarray(value) for name, value in seen._asdict().items()}

    def _info(self) -> dict[str, Any]:
        state = self.state
        return {
            "latency": self.game.home_latency - float(state.total),
            "moves": int(state.move),
            "backups": int(state.backups),
        }
