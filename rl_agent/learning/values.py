"""What the agent learns of a program: the value of each action at each move, as an embedding and by features.

The value of action a at move i is in units of how much a game gains if it takes this action there and otherwise goes as
the champion goes:

    value(i, a) = item[i, a] + features[i] · weight[:, a]

The first part is the move's own. The second is shared by all moves and programs, so what is learned at one layer holds
for the next one, and for the next program, until their own parts say otherwise. A window that takes actions a₁, a₂, …
instead of those of the present game, c₁, c₂, …, is expected to gain the sum of value(iₖ, aₖ) - value(iₖ, cₖ). Its game
is played to the end, so its gain is known, and the difference corrects both parts: least mean squares (Widrow and Hoff,
1960). The policy draws an action with a probability proportional to the exponential of its value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.errors import PlannerError
from memplan.rl_agent.game.game import Game
from memplan.rl_agent.game.moves import NUM_ACTIONS

Floats = NDArray[np.float64]

# Names of the features, in the order of their columns.
FEATURES = (
    "bias", "reads", "writes", "is_operation", "is_last", "is_stay", "is_long", "size", "log_size", "log_saving",
    "log_density", "lasting", "copy_over_worth", "is_first",
)  # fmt: skip

# Moves that a window makes, before any was played.
_COST = 200.0

# The largest ratio of a copy's time to what its use can save that is told apart.
_MOST_RATIO = 3.0


@dataclass
class MoveValues:
    """The parameters of one program.

    Attributes:
      items: `[moves, 3]` the own part of each action.
      visits: `[moves, 3]` how often each was taken instead of the present game's.
      cost: `[moves]` moves that windows make which begin there, averaged.
      weights: `[features, 3]` of the shared part.
    """

    items: Floats
    visits: Floats
    cost: Floats
    weights: Floats

    @staticmethod
    def new(moves: int, weights: Floats | None = None) -> MoveValues:
        """Returns what is known of a program of so many moves: nothing but the weights of features.

        Raises:
          PlannerError: the weights are not of these features.
        """
        shape = (len(FEATURES), NUM_ACTIONS)
        if weights is not None and (weights.shape != shape or not np.isfinite(weights).all()):
            raise PlannerError(f"the weights of features are not finite numbers of shape {shape}")
        return MoveValues(
            items=np.zeros((moves, NUM_ACTIONS)),
            visits=np.zeros((moves, NUM_ACTIONS)),
            cost=np.full(moves, _COST),
            weights=np.zeros(shape) if weights is None else np.array(weights, np.float64),
        )

    def copy(self) -> MoveValues:
        """Returns the same values, to be learned from here in another way."""
        return MoveValues(*(part.copy() for part in vars(self).values()))

    def policy(self, features: Floats) -> Floats:
        """Returns how likely each action is, as if all were legal, `[moves, 3]`."""
        values = self.items + features @ self.weights
        weights = np.exp(values - values.max(axis=1, keepdims=True))
        shares: Floats = weights / weights.sum(axis=1, keepdims=True)
        return shares

    def state(self) -> dict[str, Any]:
        """Returns the parameters as arrays."""
        return dict(vars(self))

    def restore(self, state: dict[str, Any]) -> None:
        """Takes what `state` returned; raises PlannerError if it is of another program."""
        for name, own in vars(self).items():
            part = np.asarray(state[name], np.float64)
            if part.shape != own.shape or not np.isfinite(part).all():
                raise PlannerError(f"the values' {name} are not finite numbers of shape {own.shape}")
            setattr(self, name, part)


def features_of(game: Game) -> Floats:
    """Returns what is said of each move, `[moves, features]`: figures of about 1 that mean the same in all programs."""
    found = np.zeros((len(game.moves), len(FEATURES)))
    seen: set[int] = set()
    for number, move in enumerate(game.moves):
        saving = game.supply.access_saving[list(move.accesses)].sum() if move.accesses else 0.0
        often = game.supply.repetitions[move.slot]
        log_saving = np.log1p(max(saving * often / game.home_latency, 0.0) * 1e4) / 5.0
        log_size = np.log1p(move.size) / 6.0
        found[number] = (
            1.0,
            move.reads,
            move.writes,
            move.is_operation,
            move.is_last,
            move.is_stay,
            move.is_long,
            move.size / game.num_units,
            log_size,
            log_saving,
            log_saving - log_size,
            min(1.0, (move.lasting - move.start) / max(game.problem.end, 1)),
            min(_MOST_RATIO, move.prefetch / max(move.worth, 1)) if move.reads else 0.0,
            move.chain not in seen,
        )
        seen.add(move.chain)
    return found
