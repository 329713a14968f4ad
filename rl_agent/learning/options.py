"""The options of training."""

from __future__ import annotations

from dataclasses import dataclass, field

from memplan.rl_agent.learning.network import NetworkSizes
from memplan.rl_agent.learning.tree_search import TreeSearchOptions
from memplan.rl_agent.learning.update import UpdateOptions


@dataclass(frozen=True)
class TrainOptions:
    """How to play and learn.

    Attributes:
      seed: of everything that is drawn at random.
      windows: how many are played at once, see `self_play.py`.
      lanes: games in each of them.
      window: choices of the longest window.
      capacity: windows that are remembered.
      updates: steps of gradient descent in an iteration.
      reanalysed: windows whose searches are repeated in an iteration.
      loyalty: logit by which the champion's action is preferred at first.
      scouts: how many explore a game at once, each on a core, see `scouts.py`.
      scouted: moves that each of them may make in an iteration; 0 for no scouts.
      heat: temperature at which the hottest scout begins, of the latency with everything at home. Scouts may also
        begin at a game of the windows that is worse than the champion by a small share of it.
      learns: whether the networks learn at all.
      sizes: of the networks.
      search: how moves are chosen.
      update: how to learn.
    """

    seed: int = 0
    windows: int = 16
    lanes: int = 8
    window: int = 16
    capacity: int = 4096
    updates: int = 4
    reanalysed: int = 16
    loyalty: float = 3.0
    scouts: int = 2
    scouted: int = 1_500_000
    heat: float = 3e-4
    learns: bool = True
    sizes: NetworkSizes = field(default_factory=NetworkSizes)
    search: TreeSearchOptions = field(default_factory=TreeSearchOptions)
    update: UpdateOptions = field(default_factory=UpdateOptions)
