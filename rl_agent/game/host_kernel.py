"""Games as loops over one game's arrays, compiled by numba: what `environment.py` computes for a batch.

A move of `environment.step` costs the whole board, whatever it changes, as array operations must. A move here costs
what it looks at. Names and fields are those of `state.State`; `reference.py` explains the rules.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from memplan.compiler.kernels import entry, inlined
from memplan.rl_agent.game.host_advance_kernel import advance, start
from memplan.rl_agent.game.host_choices_kernel import look
from memplan.rl_agent.game.moves import ACTIONS, COPY, DROP, NO_COPY, NONE, NUM_ACTIONS


@inlined
def is_choice(s: Any) -> bool:
    """Whether more than one action is legal."""
    return s.legal[0] + s.legal[1] + s.legal[2] > 1


@inlined
def has_to_drop(s: Any) -> bool:
    """Whether DROP is all that is legal."""
    return s.legal[DROP] and not is_choice(s)


@inlined
def _first_legal(legal: Any) -> int:
    action = 0
    while not legal[action]:
        action += 1
    return action


@inlined
def followed(s: Any, instead: Any, had_to_drop: Any, is_eager: bool) -> int:
    """Returns the action of a game's own history, or what is played in its place."""
    number, legal = s.move, s.legal
    if is_eager and had_to_drop[number] and number >= s.replay_until:
        if legal[NO_COPY]:
            return NO_COPY
        if legal[COPY] and not s.is_late:
            return COPY
    wanted = s.history[number] & ACTIONS
    if legal[wanted]:
        return wanted
    for action in instead:
        if legal[action]:
            return action
    return DROP


@entry
def follow(
    boards: Any,
    moves: Any,
    states: Any,
    first: int,
    last: int,
    until: Any,
    patience: int,
    instead: Any,
    had_to_drop: Any,
    is_eager: Any,
    totals: Any,
    dropped: Any,
) -> None:
    """Follows games as their own histories say.

    Args:
      boards: `[1]` the game.
      moves: `[moves]` of the game.
      states: `[games]`, changed in place.
      first, last: numbers `[first, last)` of those to follow.
      until, is_eager: `[games]`.
      patience, instead, had_to_drop: see `Host.follow`.
      totals, dropped: `[moves + 1]` seconds saved before each move, and `[moves]` whether DROP was all that was legal;
        written unless they are empty.
    """
    b = boards[0]
    for game in range(first, last):
        s = states[game]
        while not s.done and s.backups <= patience:
            number = s.move
            if number >= until[game] and is_choice(s):
                break
            if len(dropped):
                totals[number], dropped[number] = s.total, has_to_drop(s)
            advance(b, moves, s, followed(s, instead, had_to_drop, is_eager[game]))
            look(b, moves, s)
        if len(dropped):
            totals[s.move :] = s.total


@entry
def play_at_random(boards: Any, moves: Any, states: Any, seed: int) -> None:
    """Plays a game to its end, all legal actions equally likely.

    Args:
      boards: `[1]` the game.
      moves: `[moves]` of the game.
      states: `[1]`, changed in place.
      seed: of what is drawn.
    """
    np.random.seed(seed)
    s = states[0]
    while not s.done:
        action = np.random.randint(NUM_ACTIONS)
        while not s.legal[action]:
            action = np.random.randint(NUM_ACTIONS)
        advance(boards[0], moves, s, action)
        look(boards[0], moves, s)


@entry
def begin(boards: Any, moves: Any, states: Any) -> None:
    """Writes the states before the first move, with what is possible there."""
    for game in range(len(states)):
        start(boards[0], states[game])
        look(boards[0], moves, states[game])


@entry
def step(boards: Any, moves: Any, states: Any, game: int, action: int) -> None:
    """Makes a move of a game, or the first legal one instead of one that is not; see `environment.step`."""
    s = states[game]
    if s.done:
        s.reward = 0.0
        return
    if action < 0 or action >= NUM_ACTIONS or not s.legal[action]:
        action = _first_legal(s.legal)
    advance(boards[0], moves, s, action)
    look(boards[0], moves, s)


@entry
def step_to_choice(boards: Any, moves: Any, states: Any, actions: Any, patience: int) -> None:
    """Makes a move in each game, and all forced moves behind it; nothing where the action is -1.

    Args:
      boards: `[1]` the game.
      moves: `[moves]` of the game.
      states: `[games]`, changed in place.
      actions: `[games]`, legal ones.
      patience: see `Host.follow`.
    """
    for game in range(len(states)):
        s = states[game]
        action = actions[game]
        while action >= 0:
            advance(boards[0], moves, s, action)
            look(boards[0], moves, s)
            action = NONE
            if not s.done and s.backups <= patience and not is_choice(s):
                action = _first_legal(s.legal)
