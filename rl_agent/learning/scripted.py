"""Players without a network: rules of thumb, to start from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from memplan.rl_agent.game.host import Host
from memplan.rl_agent.game.moves import ACTIONS, COPY, DROP, NO_COPY

# Each always does the first of these that is legal.
RULES = ((DROP, NO_COPY, COPY), (NO_COPY, DROP, COPY), (NO_COPY, COPY, DROP), (COPY, NO_COPY, DROP))


def scripted(host: Host) -> NDArray[np.int8]:
    """Returns the history of the best game that the rules of thumb play, with and without an argument that stays.

    An argument that stays takes its room all the time: without it, other rules may be better.
    """
    stays = host.moves["is_stay"] != 0
    best: tuple[NDArray[np.int8], float] | None = None
    for rule in RULES:
        for keeps in (True, False) if stays.any() else (True,):
            history = np.full((1, len(host.moves)), rule[0], np.int8)
            if not keeps:
                history[0, stays] = DROP
            games = host.starts(history)
            host.follow(games, patience=len(host.moves), instead=np.array(rule))
            if best is None or games["total"][0] > best[1]:
                best = games["history"][0] & np.int8(ACTIONS), float(games["total"][0])
    assert best is not None
    return best[0]
