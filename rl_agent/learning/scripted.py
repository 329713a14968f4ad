"""Players without a network: rules of thumb, to start from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from memplan.rl_agent.game.host import Host
from memplan.rl_agent.game.moves import ACTIONS, COPY, DROP, NO_COPY

# Each always does the first of these that is legal.
RULES = ((DROP, NO_COPY, COPY), (NO_COPY, DROP, COPY), (NO_COPY, COPY, DROP), (COPY, NO_COPY, DROP))


def scripted(host: Host) -> tuple[NDArray[np.int8], float]:
    """Returns the history and the total of the best game that the rules of thumb play."""
    best: tuple[NDArray[np.int8], float] | None = None
    for rule in RULES:
        games = host.starts(np.full((1, len(host.moves)), rule[0], np.int8))
        host.follow(games, patience=len(host.moves), instead=np.array(rule))
        if best is None or games["total"][0] > best[1]:
            best = games["history"][0] & np.int8(ACTIONS), float(games["total"][0])
    assert best is not None
    return best
