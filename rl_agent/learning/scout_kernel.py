"""Games around a champion, one after the other, each a step of simulated annealing. Compiled by numba.

A *mark* is a copy of the present game's state before a move. A new game begins at the mark before its first change. It
ends where it is the present game again: at a mark at which everything is equal that any later move looks at, and with
no change to come. So a change costs about as many moves as it has consequences.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from memplan.compiler.kernels import entry, internal
from memplan.rl_agent.game.host_kernel import advance, followed, has_to_drop, is_choice, look
from memplan.rl_agent.game.moves import ACTIONS, NONE

# How often a change has one choice more, and how many at most.
_LONGER, _MOST_CHOICES = 0.7, 24

# The temperature in the end, of that at the beginning.
_COLD = 0.003


@internal
def _are_same(b: Any, moves: Any, one: Any, other: Any, rows: Any, parents: Any, least_done: int) -> bool:
    """Whether two games at the same move go on in the same way.

    Args:
      b, moves: the game.
      one, other: states.
      rows: of the chains that are being decided.
      parents: moves made already that moves to come are inside of.
      least_done: the first slot at which any later copy can be awaited.
    """
    if one.stays != other.stays or one.backups != other.backups:
        return False
    if max(one.lead_done, other.lead_done) >= least_done and (
        one.lead_done != other.lead_done or one.lead_first != other.lead_first
    ):
        return False
    move = moves[one.move]
    if not move.is_first_access and (
        one.demand != other.demand or one.taken != other.taken or one.demand_seconds != other.demand_seconds
    ):
        return False
    for parent in parents:
        if (one.history[parent] ^ other.history[parent]) & ACTIONS != 0:
            return False
    slot = max(0, least_done - b.reach)
    time = int(b.slot_time[slot])
    for row in rows:
        if one.chain_opened[row] != other.chain_opened[row] or one.chain_ready[row] != other.chain_ready[row]:
            return False
        if one.chain_opened[row] == NONE:
            continue
        if (
            one.chain_offset[row] != other.chain_offset[row]
            or one.chain_end[row] != other.chain_end[row]
            or one.chain_limit[row] != other.chain_limit[row]
            or one.chain_written[row] != other.chain_written[row]
        ):
            return False
        time = min(time, int(one.chain_end[row]))
        if one.chain_written[row] != NONE:
            slot = min(slot, int(one.chain_written[row]) + 1)
    time = min(time, int(b.slot_time[slot]))
    for unit in range(len(one.busy_until)):
        if max(one.busy_until[unit], time) != max(other.busy_until[unit], time):
            return False
        if max(one.held_until[unit], time) != max(other.held_until[unit], time):
            return False
    for at in range(slot, len(one.left)):
        if one.left[at] != other.left[at] or one.owner[at] != other.owner[at] or one.issued[at] != other.issued[at]:
            return False
        if one.duration[at] != other.duration[at]:
            return False
    return True


@internal
def _drawn(policy: Any, legal: Any, barred: int) -> int:
    """Returns a legal action drawn from a policy, not the barred one if there is another."""
    weights = np.zeros(3)
    for action in range(3):
        if legal[action] and action != barred:
            weights[action] = policy[action]
    total = weights.sum()
    if total == 0.0:
        return barred
    at = np.random.random() * total
    for action in range(3):
        at -= weights[action]
        if weights[action] > 0.0 and at <= 0.0:
            return action
    return barred


@internal
def _follow_present(
    b: Any, moves: Any, marks: Any, trial_marks: Any, every: int, history: Any, dropped: Any, instead: Any
) -> float:
    """Follows the present game and writes its marks; see `anneal`.

    Returns: its total, in seconds; minus infinity if it is set back.
    """
    last = len(marks) - 1
    s = trial_marks[last]
    trial_marks[last] = marks[0]
    s.history[:] = history
    while not s.done and s.backups == 0:
        number = s.move
        if number % every == 0:
            marks[number // every] = trial_marks[last]
        dropped[number] = has_to_drop(s)
        history[number] = followed(s, instead, dropped, False)
        advance(b, moves, s, history[number])
        look(b, moves, s)
    return -math.inf if s.backups != 0 else float(s.total)


@internal
def _play_around(
    b: Any,
    moves: Any,
    marks: Any,
    trial_marks: Any,
    every: int,
    mark_rows: Any,
    mark_parents: Any,
    least_done: Any,
    history: Any,
    dropped: Any,
    trial_dropped: Any,
    policy: Any,
    instead: Any,
    begin: int,
) -> tuple[int, bool, int]:
    """Plays a game from the mark before its first change on; its state is the last of `trial_marks`.

    Args:
      trial_dropped: `[moves]` where DROP was all that was legal in it, out.
      begin: the first move that may be changed.
      b: the game; the others: see `anneal`.

    Returns: the mark at which it is the present game again, behind all marks if it never is; whether anything is
      changed; how many moves were made.
    """
    rows_from, rows = mark_rows
    parents_from, parents = mark_parents
    num_marks = len(marks) - 1
    mark = begin // every
    trial_marks[num_marks] = marks[mark]
    s = trial_marks[num_marks]
    s.history[:] = history
    is_eager = np.random.random() < 0.5
    # Choices of the change that are left, before its first one NONE.
    left, changed, made = NONE, False, 0
    while not s.done and s.backups == 0:
        number = s.move
        if number % every == 0 and number // every > mark:
            at = number // every
            if left == 0 and _are_same(
                b, moves, s, marks[at], rows[rows_from[at] : rows_from[at + 1]],
                parents[parents_from[at] : parents_from[at + 1]], least_done[at],
            ):  # fmt: skip
                return at, changed, made
            trial_marks[at] = trial_marks[num_marks]
        trial_dropped[number] = has_to_drop(s)
        action = followed(s, instead, dropped, is_eager and number >= begin and left <= 0)
        if number >= begin and left != 0 and is_choice(s):
            if left == NONE:
                action = _drawn(policy[number], s.legal, action)
                left = 1
                while left < _MOST_CHOICES and np.random.random() < _LONGER:
                    left += 1
            else:
                action = _drawn(policy[number], s.legal, NONE)
            left -= 1
        changed = changed or action != history[number]
        advance(b, moves, s, action)
        look(b, moves, s)
        made += 1
    return num_marks, changed, made


@internal
def _is_taken(gain: float, warmth: float) -> bool:
    """Whether play goes on from a game that saves so many seconds more than the present one (Metropolis et al., 1953).

    Args:
      gain: seconds.
      warmth: seconds, the temperature.
    """
    if gain >= 0.0:
        return True
    return warmth > 0.0 and gain >= warmth * math.log(np.random.random() + 1e-300)


@internal
def _go_on_from(
    marks: Any,
    trial_marks: Any,
    every: int,
    history: Any,
    dropped: Any,
    trial_dropped: Any,
    mark: int,
    same_from: int,
    gain: float,
) -> None:
    """Makes the game that was played the present one: from one mark on, until it is the former present game again."""
    num_marks = len(marks) - 1
    s = trial_marks[num_marks]
    for number in range(mark * every, s.move):
        history[number] = s.history[number] & ACTIONS
        dropped[number] = trial_dropped[number]
    for at in range(mark + 1, same_from):
        marks[at] = trial_marks[at]
    for at in range(same_from, num_marks):
        marks[at].total += np.float32(gain)


@entry
def anneal(
    boards: Any,
    moves: Any,
    marks: Any,
    trial_marks: Any,
    every: int,
    mark_rows: Any,
    mark_parents: Any,
    least_done: Any,
    history: Any,
    dropped: Any,
    best: Any,
    policy: Any,
    urge: Any,
    instead: Any,
    heat: float,
    budget: int,
    seed: int,
) -> tuple[float, float, int]:
    """Plays games around a present one and goes on from those that are not much worse.

    Args:
      boards, moves: the game.
      marks: `[marks + 1]` states; the first is the present game before its first move. The last is for the game.
      trial_marks: `[marks + 1]` room for the marks of the game being played.
      every: moves between marks.
      mark_rows, mark_parents: `rows` and `parents` of `_are_same`, each as `[marks + 1]` where those of each mark
        begin, and all of them.
      least_done: `[marks]`, see `_are_same`.
      history: `[moves]` of the present game, in and out; what is not legal at the beginning is replaced.
      dropped: `[moves]` where DROP was all that was legal in it, in and out.
      best: `[moves]` the best game, out.
      policy: `[moves, 3]`, more than 0.
      urge: `[moves]` sums of the probabilities that a change begins at each move.
      instead: see `Host.follow`.
      heat: seconds, the temperature at the beginning; it falls by the same share for each move that is made.
      budget: moves that may be made.
      seed: of what is drawn.

    Returns: the totals of the present and the best game, in seconds, and how many games were played; totals of minus
      infinity if the present game is set back.
    """
    np.random.seed(seed)
    b = boards[0]
    num_marks = len(marks) - 1
    trial_dropped = dropped.copy()
    present = _follow_present(b, moves, marks, trial_marks, every, history, dropped, instead)
    if present == -math.inf:
        return -math.inf, -math.inf, 0
    best_total = present
    best[:] = history
    made = games = 0
    while made < budget:
        games += 1
        begin = np.searchsorted(urge, np.random.random() * urge[-1], side="right")
        begin = min(begin, b.num_moves - 1)
        same_from, changed, moved = _play_around(
            b, moves, marks, trial_marks, every, mark_rows, mark_parents, least_done, history, dropped, trial_dropped,
            policy, instead, begin,
        )  # fmt: skip
        made += moved
        s = trial_marks[num_marks]
        if s.backups != 0 or not changed:
            made += 1
            continue
        total = float(s.total)
        if same_from < num_marks:
            total += present - float(marks[same_from].total)
        gain = total - present
        if not _is_taken(gain, heat * _COLD ** (made / budget)):
            continue
        _go_on_from(marks, trial_marks, every, history, dropped, trial_dropped, begin // every, same_from, gain)
        present = total
        if present > best_total:
            best_total = present
            best[:] = history
    return present, best_total, games
