"""A picture of a game: the fast memory over time, and the supply below.

offset ▲  residencies in the colours of their buffers, what operations keep for themselves in grey
       │  ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒│       a line at the move at hand
       └─────────────────┴────► time
supply    █ ▄   █▄▄ ▁            ticks that are left to copies, dark where copies move
"""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import NDArray

from memplan.rl_agent.game.moves import NONE
from memplan.rl_agent.game.reference import Reference

Picture = NDArray[np.uint8]

_BACKGROUND, _KEPT, _NOW = (250, 250, 250), (200, 200, 200), (220, 30, 30)
_LEFT, _BOOKED = (120, 170, 220), (40, 70, 110)


def draw(reference: Reference, width: int = 640, height: int = 400, supply_height: int = 80) -> Picture:
    """Returns the board as a picture, `[height + supply_height, width, 3]` uint8 RGB."""
    game = reference.game
    n, units = game.problem.end, game.num_units
    time = np.arange(width) * (n + 1) // width
    unit = (height - 1 - np.arange(height)) * units // height
    board = np.full((height, width, 3), _BACKGROUND, np.uint8)
    board[(unit[:, None] < game.reserved[time][None, :]) | game.blocked[unit][:, None]] = _KEPT
    for residency in reference.residencies.values():
        rows = (unit >= residency.offset) & (unit < residency.offset + residency.size)
        columns = (time >= residency.start) & (time < residency.end)
        board[np.ix_(rows, columns)] = _colour(game.moves[residency.moves[0]].buffer)
    supply = _supply(reference, time, supply_height)
    picture = np.concatenate([board, supply])
    now = game.moves[reference.move].start if not reference.done else n
    picture[:, min(int(np.searchsorted(time, now)), width - 1)] = _NOW
    return picture


def _supply(reference: Reference, time: NDArray[np.int64], height: int) -> Picture:
    """Returns the supply of each time as a bar, the highest as high as the picture; square roots, to see small ones."""
    slots = reference.game.slots.of_time[time]
    left = np.sqrt(np.maximum(np.array(reference.slot_supply.left, np.float64), 0.0))[slots]
    is_booked = np.array(reference.slot_supply.owner)[slots] != NONE
    bars = np.full((height, len(time), 3), _BACKGROUND, np.uint8)
    level = height - np.arange(height)[:, None]
    tall = left / max(float(left.max(initial=0.0)), 1e-30) * height
    bars[level <= tall[None, :]] = _LEFT
    bars[(level <= np.maximum(tall, 2.0)[None, :]) & is_booked[None, :]] = _BOOKED
    return bars


def _colour(buffer: int) -> tuple[int, int, int]:
    """Returns a colour for a buffer, unlike those of its neighbours: steps of the golden ratio round the hues."""
    red, green, blue = colorsys.hsv_to_rgb(buffer * 0.618033988749895 % 1.0, 0.55, 0.9)
    return int(red * 255), int(green * 255), int(blue * 255)
