"""Games around a champion, one after the other, and the values that are learned from them. Compiled by numba.

A *window* begins at some move of the present game: the policy decides a few choices there, and the rest of the game
follows the present one as far as that is legal. What the whole game gains is therefore known exactly, and it is the
target of the values (`values.py`).

A *mark* is a copy of the present game's state before a move. A window begins at the mark before its first choice. It
ends where it is the present game again: at a mark at which everything is equal that any later move looks at, and with
no change to come. So a change costs about as many moves as it has consequences.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from memplan.compiler.kernels import entry, internal
from memplan.rl_agent.game.host_kernel import advance, followed, has_to_drop, is_choice, look
from memplan.rl_agent.game.moves import ACTIONS, NONE, NUM_ACTIONS

# How often a window has one choice more, and how many at most.
_LONGER, _MOST_CHOICES = 0.7, 24

# The temperature in the end, of that at the beginning.
_COLD = 0.003

# Values, gains and their differences count up to this much: what is worse than that is not tried more often by being
# told apart from what is worse still. It is also how much less likely than the best action the others are drawn.
_MOST = 4.0

# Windows between two looks at where to begin them.
_EVERY_WINDOWS = 200

# Steps of learning: of the value of one move, at least, and of the weights of features.
_STEP, _LEAST_STEP, _FEATURE_STEP = 0.5, 0.1, 0.01

# How fast the cost of windows that begin at a move is learned.
_COST_STEP = 0.1


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
def _drawn(values: Any, legal: Any, barred: int) -> int:
    """Returns a legal action drawn by the values of a move, `[3]`; not the barred one if there is another."""
    weights = np.zeros(NUM_ACTIONS)
    most = -math.inf
    for action in range(NUM_ACTIONS):
        if legal[action] and action != barred:
            most = max(most, values[action])
    if most == -math.inf:
        return barred
    for action in range(NUM_ACTIONS):
        if legal[action] and action != barred:
            weights[action] = math.exp(max(values[action] - most, -_MOST))
    at = np.random.random() * weights.sum()
    for action in range(NUM_ACTIONS):
        at -= weights[action]
        if weights[action] > 0.0 and at <= 0.0:
            return action
    return barred


@internal
def _legal_bits(s: Any) -> int:
    """Returns the legal actions of a choice as bits; 0 where there is no choice."""
    return s.legal[0] + 2 * s.legal[1] + 4 * s.legal[2] if is_choice(s) else 0


@internal
def _follow_present(
    b: Any, moves: Any, marks: Any, trial_marks: Any, every: int, history: Any, dropped: Any, legal: Any, instead: Any
) -> float:
    """Follows the present game and writes its marks and choices; see `explore`.

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
        legal[number] = _legal_bits(s)
        history[number] = followed(s, instead, dropped, False)
        advance(b, moves, s, history[number])
        look(b, moves, s)
    return -math.inf if s.backups != 0 else float(s.total)


@internal
def _play_window(
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
    values: Any,
    legal: Any,
    instead: Any,
    begin: int,
    chosen: Any,
) -> tuple[int, bool, int, int]:
    """Plays a game from the mark before its window on; its state is the last of `trial_marks`.

    Args:
      trial_dropped: `[moves]` where DROP was all that was legal in it, out.
      begin: the first move that may be changed.
      chosen: `[2, choices]` the moves at which the window decides otherwise than the present game, and how, out.
      b: the game; the others: see `explore`.

    Returns: the mark at which it is the present game again, behind all marks if it never is; whether anything is
      changed; how many moves were made; how many are in `chosen`.
    """
    rows_from, rows = mark_rows
    parents_from, parents = mark_parents
    num_marks = len(marks) - 1
    mark = begin // every
    trial_marks[num_marks] = marks[mark]
    s = trial_marks[num_marks]
    s.history[:] = history
    is_eager = np.random.random() < 0.5
    # Choices of the window that are left, before its first one NONE.
    left, changed, made, count = NONE, False, 0, 0
    while not s.done and s.backups == 0:
        number = s.move
        if number % every == 0 and number // every > mark:
            at = number // every
            if left == 0 and _are_same(
                b, moves, s, marks[at], rows[rows_from[at] : rows_from[at + 1]],
                parents[parents_from[at] : parents_from[at + 1]], least_done[at],
            ):  # fmt: skip
                return at, changed, made, count
            trial_marks[at] = trial_marks[num_marks]
        trial_dropped[number] = has_to_drop(s)
        action = followed(s, instead, dropped, is_eager and number >= begin and left <= 0)
        if number >= begin and left != 0 and is_choice(s):
            legal[number] = _legal_bits(s)
            if left == NONE:
                action = _drawn(values[number], s.legal, action)
                left = 1
                while left < _MOST_CHOICES and np.random.random() < _LONGER:
                    left += 1
            else:
                action = _drawn(values[number], s.legal, NONE)
            left -= 1
            if action != history[number]:
                chosen[0, count], chosen[1, count] = number, action
                count += 1
        changed = changed or action != history[number]
        advance(b, moves, s, action)
        look(b, moves, s)
        made += 1
    return num_marks, changed, made, count


@internal
def _look_where(
    items: Any, features: Any, weights: Any, history: Any, legal: Any, frozen: int, cost: Any, values: Any, urge: Any
) -> None:
    """Writes the values of all moves, and sums of how likely a window begins at each.

    It begins where another action than that of the present game promises most for the moves that such windows make.
    """
    total = 0.0
    for number in range(len(urge)):
        for action in range(NUM_ACTIONS):
            value = items[number, action]
            for feature in range(features.shape[1]):
                value += features[number, feature] * weights[feature, action]
            values[number, action] = value
        promise = 0.0
        present = history[number]
        if legal[number] != 0 and number >= frozen:
            for action in range(NUM_ACTIONS):
                if action != present and (legal[number] >> action) & 1:
                    gain = values[number, action] - values[number, present]
                    promise += math.exp(min(max(gain, -_MOST), 1.0))
        total += promise / cost[number]
        urge[number] = total


@internal
def _learn(
    items: Any,
    visits: Any,
    features: Any,
    weights: Any,
    values: Any,
    history: Any,
    chosen: Any,
    count: int,
    gain: float,
) -> None:
    """Corrects the values of what a window chose by what its game gained, see `values.py`."""
    expected = 0.0
    for k in range(count):
        number = chosen[0, k]
        expected += values[number, chosen[1, k]] - values[number, history[number]]
    error = min(max(gain, -_MOST), _MOST) - min(max(expected, -_MOST), _MOST)
    for k in range(count):
        number, action = chosen[0, k], chosen[1, k]
        present = history[number]
        visits[number, action] += 1
        step = _STEP * max(1.0 / (1.0 + visits[number, action]), _LEAST_STEP) * error / count
        items[number, action] += step
        items[number, present] -= step
        values[number, action] += step
        values[number, present] -= step
        step = _FEATURE_STEP * error / count
        for feature in range(features.shape[1]):
            weights[feature, action] += step * features[number, feature]
            weights[feature, present] -= step * features[number, feature]


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
def explore(
    boards: Any, moves: Any, marks: Any, trial_marks: Any, every: int, mark_rows: Any, mark_parents: Any,
    least_done: Any, history: Any, best: Any, items: Any, visits: Any, cost: Any, features: Any, weights: Any,
    learns: bool, frozen: int, instead: Any, heat: float, scale: float, budget: int, seed: int,
) -> tuple[float, float, int]:  # fmt: skip
    """Plays windows around a present game, learns from each, and goes on from those that are not much worse.

    Args:
      boards, moves: the game.
      marks: `[marks + 1]` states; the first is the present game before its first move. The last is for the game.
      trial_marks: `[marks + 1]` room for the marks of the game being played.
      every: moves between marks.
      mark_rows, mark_parents: `rows` and `parents` of `_are_same`, each as `[marks + 1]` where those of each mark
        begin, and all of them.
      least_done: `[marks]`, see `_are_same`.
      history: `[moves]` of the present game, in and out; what is not legal at the beginning is replaced.
      best: `[moves]` the best game, out.
      items, visits, cost, features, weights: see `MoveValues`; all but the features are changed if it `learns`.
      learns: whether it learns.
      frozen: the first move that may be changed.
      instead: see `Host.follow`.
      heat: seconds, the temperature at the beginning; it falls by the same share for each move that is made.
      scale: seconds, the unit of values.
      budget: moves that may be made.
      seed: of what is drawn.

    Returns: the totals of the present and the best game, in seconds, and how many games were played; totals of minus
      infinity if the present game is set back.
    """
    np.random.seed(seed)
    b = boards[0]
    num_marks, num_moves = len(marks) - 1, b.num_moves
    dropped, legal = np.zeros(len(history), np.bool_), np.zeros(len(history), np.int8)
    trial_dropped = dropped.copy()
    values, urge = np.zeros((num_moves, NUM_ACTIONS)), np.zeros(num_moves)
    chosen = np.zeros((2, _MOST_CHOICES + 1), np.int64)
    present = _follow_present(b, moves, marks, trial_marks, every, history, dropped, legal, instead)
    if present == -math.inf:
        return -math.inf, -math.inf, 0
    best_total = present
    best[:] = history
    made = games = 0
    while made < budget:
        if games % _EVERY_WINDOWS == 0:
            _look_where(items, features, weights, history, legal, frozen, cost, values, urge)
            if num_moves == 0 or not urge[-1] > 0.0:
                break
        games += 1
        begin = min(np.searchsorted(urge, np.random.random() * urge[-1], side="right"), num_moves - 1)
        same_from, changed, moved, count = _play_window(
            b, moves, marks, trial_marks, every, mark_rows, mark_parents, least_done, history, dropped, trial_dropped,
            values, legal, instead, begin, chosen,
        )  # fmt: skip
        made += moved + 1
        cost[begin] += learns * _COST_STEP * (moved - cost[begin])
        s = trial_marks[num_marks]
        if s.backups != 0 or not changed:
            continue
        total = float(s.total)
        if same_from < num_marks:
            total += present - float(marks[same_from].total)
        gain = total - present
        if learns and count > 0:
            _learn(items, visits, features, weights, values, history, chosen, count, gain / scale)
        if not _is_taken(gain, heat * _COLD ** (made / budget)):
            continue
        _go_on_from(marks, trial_marks, every, history, dropped, trial_dropped, begin // every, same_from, gain)
        present = total
        if present > best_total:
            best_total = present
            best[:] = history
    return present, best_total, games
