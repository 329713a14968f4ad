"""The options of training."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainOptions:
    """How to play and learn.

    Attributes:
      seed: of everything that is drawn at random.
      budget: moves that are made around a game in an iteration.
      heat: temperature at which an exploration begins, of the latency with everything at home; 0 goes on from better
        games only.
      learns: whether the values learn; otherwise they stay as they are.
    """

    seed: int = 0
    budget: int = 800_000
    heat: float = 3e-4
    learns: bool = True
