"""The rules of the game as loops over one game's arrays, compiled by numba: what `environment.py` computes for a batch.

A move of `environment.step` costs the whole board, whatever it changes, as array operations must. Here it costs what it
looks at. Names and fields are those of `environment.State`; rules are explained in `reference.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from memplan.compiler.kernels import entry, inlined
from memplan.rl_agent.game.environment import ACTIONS, FORCED
from memplan.rl_agent.game.guide import LOST
from memplan.rl_agent.game.moves import CLOSED, NEVER, NONE, PASSED
from memplan.rl_agent.game.reference import COPY, DROP, EVICTION, LEADING, NO_COPY, NUM_ACTIONS, PREFETCH


@inlined
def _find_prefetch(b: Any, s: Any, low: int, high: int, ticks: int) -> tuple[int, int, int]:
    """Returns the first and last slot of the copy within `[low, high)` that starts latest, and its ticks of the last.

    `supply` is that of all slots from one on, `lost` what the copies that start before it cannot have of that, as a
    slot stops them.
    """
    left, owner, queue, supply, lost = s.left, s.owner, b.queue[PREFETCH], 0, 0
    for slot in range(high - 1, low - 1, -1):
        if left[slot] == PASSED:
            continue
        is_shared = owner[slot] == queue
        if left[slot] == CLOSED or not (is_shared or owner[slot] == NONE):
            lost = supply
            continue
        behind = supply
        supply += left[slot]
        needed = _needed(b, s, PREFETCH, slot, ticks)
        if left[slot] > 0 and supply - lost >= needed:
            return _ending(left, slot, needed)
        if is_shared:
            lost = max(lost, behind)
    return NONE, NONE, 0


@inlined
def _find_eviction(b: Any, s: Any, low: int, high: int, ticks: int) -> tuple[int, int, int]:
    """Returns the copy within slots `[low, high)` that starts earliest.

    A copy that starts between another's start and what stopped that one has no more than that one.
    """
    left, owner, queue = s.left, s.owner, b.queue[EVICTION]
    first, found, needed = low, 0, ticks
    for slot in range(low, high):
        if left[slot] == PASSED:
            continue
        is_shared = owner[slot] == queue
        if left[slot] == CLOSED or not (is_shared or owner[slot] == NONE):
            first, found = slot + 1, 0
            continue
        if found == 0:
            first, needed = slot, _needed(b, s, EVICTION, slot, ticks)
        found += left[slot]
        if found >= needed and found > 0:
            return _ending(left, first, needed)
        if is_shared and slot > first:
            first, found, needed = slot, left[slot], _needed(b, s, EVICTION, slot, ticks)
            if found >= needed and found > 0:
                return _ending(left, first, needed)
    return NONE, NONE, 0


@inlined
def _needed(b: Any, s: Any, way: int, first: int, ticks: int) -> int:
    """Returns the ticks that a copy takes which is issued before a slot: with another one, none for its latency."""
    return ticks - b.latency[way] if s.issued[first] == way else ticks


@inlined
def _find_late_eviction(left: Any, owner: Any, low: int, high: int, ticks: int) -> tuple[int, int]:
    """Returns the first and last of the slots of `[low, high)` that a late copy home has to itself; -1 for none."""
    start, supply, most = low, 0, ticks // 2
    first = last = NONE
    for slot in range(low, high):
        if left[slot] < 0 or owner[slot] != NONE or left[slot + 1] == PASSED:
            start, supply = slot + 1, 0
            continue
        supply += left[slot]
        if supply > most:
            most, first, last = supply, start, slot
    return first, last


@inlined
def _ending(left: Any, first: int, ticks: int) -> tuple[int, int, int]:
    """Returns a copy from a slot on that has as much as it takes."""
    slot, missing = first, ticks
    while left[slot] < missing:
        missing -= max(left[slot], 0)
        slot += 1
    return first, slot, missing


@inlined
def _most_kept(bottom: Any, start: int, end: int) -> int:
    """Returns the units that the operations of times `[start, end)` keep for themselves."""
    if start >= end:
        return 0
    level = 0
    while (2 << level) <= end - start:
        level += 1
    return max(bottom[level, start], bottom[level, end - (1 << level)])


@inlined
def _is_free(busy: Any, low: int, high: int, start: int) -> bool:
    for unit in range(low, high):  # noqa: SIM110
        if busy[unit] > start:
            return False
    return True


@inlined
def _run(
    busy: Any, held: Any, wanted_from: Any, low: int, size: int, start: int, end: int, is_good: bool, is_highest: bool
) -> int:
    """Returns the lowest or highest offset from `low` on of so many free units in a row; -1 if there is none.

    Of units that will not do, the one that rules out most offsets is looked for first.
    """
    units = len(busy)
    offset = units - size if is_highest else low
    while low <= offset <= units - size:
        taken = NONE
        for i in range(size):
            unit = offset + i if is_highest else offset + size - 1 - i
            if busy[unit] > start or (is_good and (held[unit] > start or wanted_from[start, unit] < end)):
                taken = unit
                break
        if taken == NONE:
            return offset
        offset = taken - size if is_highest else taken + 1
    return NONE


@inlined
def _fit(b: Any, busy: Any, held: Any, start: int, move: Any) -> int:
    """Returns the offset of a new residency that starts at some time; -1 if there is no room."""
    low, size, units = _most_kept(b.bottom, start, move.end), move.size, len(busy)
    place = move.place
    if place >= low and place >= 0 and place + size <= units and _is_free(busy, place, place + size, start):
        return place
    lasting = max(low, _most_kept(b.bottom, start, move.lasting))
    offset = _run(busy, held, b.wanted_from, lasting, size, start, move.end, True, move.is_long != 0)
    if offset == NONE and place != LOST:
        offset = _run(busy, held, b.wanted_from, low, size, start, move.end, False, move.is_long != 0)
    return offset


@inlined
def _wait(left: Any, duration: Any, latency: int, first: int, done: int, moving: float) -> float:
    """Returns the ticks that a copy is late which has slots `[first, done)` to itself and moves for so many."""
    moved = 0.0
    for slot in range(first, done):
        lasts = duration[slot]
        passed = min(latency, lasts)
        latency -= passed
        moved += left[slot] * (1.0 - passed / max(lasts, 1))
    return latency + max(0.0, moving - moved)


@inlined
def _is_covered(s: Any, move: Any) -> bool:
    """Whether an item around is in fast memory as a whole."""
    return move.parent != NONE and (s.history[move.parent] & ACTIONS) != DROP


@inlined
def look(b: Any, moves: Any, s: Any) -> None:
    """Writes what is possible at a game's move."""
    s.is_dead = False
    s.is_late = s.leads = False
    s.wait = s.eviction_wait = 0.0
    legal = s.legal
    legal[:] = False
    if s.done:
        return
    number = s.move
    move = moves[number]
    past = s.history[number]
    if _is_covered(s, move):
        legal[NO_COPY if number >= s.replay_until else past & ACTIONS] = True
        return
    row = move.row
    opened, written, ready = NONE, NONE, move.ready
    end = limit = offset = 0
    if not move.is_first:
        opened, written, ready = int(s.chain_opened[row]), int(s.chain_written[row]), int(s.chain_ready[row])
        end, limit, offset = int(s.chain_end[row]), int(s.chain_limit[row]), int(s.chain_offset[row])
    left, owner = s.left, s.owner
    s.eviction_first = s.eviction_last = NONE
    s.eviction_rest = 0
    can_drop = True
    if move.reads and opened != NONE and written != NONE:
        can_drop = False
        low = written + 1
        if move.eviction < NEVER:
            high = min(move.done, low + b.reach)
            first, last, rest = _find_eviction(b, s, low, high, move.eviction)
            if first == NONE and b.can_wait:
                first, last = _find_late_eviction(left, owner, low, high, move.eviction)
                if first != NONE:
                    rest, moving = left[last], b.seconds[number, 6] / b.tick
                    s.eviction_wait = _wait(left, s.duration, b.latency[EVICTION], first, last + 1, moving) * b.tick
            if first != NONE:
                until = b.awaited[last]
                can_drop = until <= end or (until <= limit and _most_kept(b.bottom, end, until) <= offset)
                s.eviction_first, s.eviction_last, s.eviction_rest = first, last, rest
                ready = last + 1
    can_copy = can_stay = False
    s.start, s.offset = move.start, NONE
    s.prefetch_first = s.prefetch_last = NONE
    s.prefetch_rest = 0
    if move.reads and not move.is_last:
        if opened != NONE and limit == b.forever:
            can_stay = move.end <= end or _most_kept(b.bottom, end, move.end) <= offset
        if can_drop:
            can_copy = _look_for_prefetch(b, s, move, ready)
    elif not move.is_last and (not move.is_stay or s.stays < b.most_stays):
        s.offset = _fit(b, s.busy_until, s.held_until, move.start, move)
        can_stay = s.offset != NONE
    only = NONE
    if number < s.replay_until:
        only = past & ACTIONS
    elif (past & FORCED) != 0 and can_drop:
        only = DROP
    elif not (can_copy or can_stay or can_drop):
        s.is_dead = True
        only = DROP
    if only != NONE:
        legal[only] = True
    else:
        legal[COPY], legal[NO_COPY], legal[DROP] = can_copy, can_stay, can_drop


@inlined
def _look_for_prefetch(b: Any, s: Any, move: Any, ready: int) -> bool:
    """Writes the copy that COPY makes, in time or late; returns whether there is one."""
    left, busy, held = s.left, s.busy_until, s.held_until
    times, done = b.slot_time, move.done
    low = max(ready, done - b.reach)
    if move.prefetch >= NEVER:
        return False
    first, last, rest = _find_prefetch(b, s, low, done, move.prefetch)
    if first != NONE:
        offset = _fit(b, busy, held, times[first], move)
        if offset != NONE:
            s.prefetch_first, s.prefetch_last, s.prefetch_rest = first, last, rest
            s.start, s.offset = times[first], offset
            return True
    if not b.can_wait or low > done:
        return False
    # A late copy: with that which it follows, or from when its place and all slots before the use are free; or from the
    # use itself.
    can_follow = s.lead_done == done and s.lead_first >= low
    earliest = s.lead_first if can_follow else _earliest(b, s, move, low)
    for attempt in range(2):
        follows = can_follow and attempt == 0
        first = earliest if attempt == 0 else done
        lacking = move.prefetch
        if follows:
            lacking -= b.latency[PREFETCH]
        else:
            for slot in range(first, done):
                lacking -= left[slot]
        if lacking >= move.worth:
            continue
        offset = _fit(b, busy, held, times[first], move)
        if offset != NONE:
            s.prefetch_first, s.prefetch_last, s.prefetch_rest = first, done - 1, 0
            s.start, s.offset = times[first], offset
            s.is_late = True
            s.leads = follows or (first < done and lacking > LEADING * b.reach)
            s.wait = moving = b.seconds[s.move, 5]
            if not follows:
                s.wait = _wait(left, s.duration, b.latency[PREFETCH], first, done, moving / b.tick) * b.tick
            return True
    return False


@inlined
def _earliest(b: Any, s: Any, move: Any, low: int) -> int:
    """Returns the slot, from one on, from which a move's place and all slots before the use are free."""
    until = 0
    if move.place >= 0:
        for unit in range(move.place, min(move.place + move.size, len(s.busy_until))):
            until = max(until, s.busy_until[unit])
    first = move.done
    while first > low and s.left[first - 1] >= 0 and s.owner[first - 1] == NONE:
        if b.slot_time[first - 1] < until:
            break
        first -= 1
    return first


@inlined
def _book(b: Any, s: Any, first: int, last: int, rest: int, way: int) -> None:
    left, owner, queue = s.left, s.owner, b.queue[way]
    s.issued[first] = way
    for slot in range(first, last):
        if left[slot] != PASSED:
            left[slot], owner[slot] = 0, queue
    left[last] -= rest
    owner[last] = queue


@inlined
def _set_back(b: Any, s: Any, culprit: int) -> None:
    """Starts a game again, with a move forced to DROP and all moves before it as they were."""
    s.history[culprit] |= FORCED
    s.reward = -s.total
    s.replay_until = culprit
    s.backups += 1
    _start(b, s)


@inlined
def _start(b: Any, s: Any) -> None:
    """Writes the state before the first move, but for what is possible there, and what backups left."""
    s.move = 0
    s.done = b.num_moves == 0
    s.total = 0.0
    s.left[:] = b.idle
    s.owner[:] = NONE
    s.issued[:] = NONE
    s.busy_until[:] = b.busy_until
    s.held_until[:] = b.busy_until
    s.duration[:] = b.duration
    s.stays = 0
    s.lead_done = s.lead_first = NONE


@inlined
def advance(b: Any, moves: Any, s: Any, action: int) -> None:
    """Writes the state after a legal move or a backup, but for what is possible next."""
    number = s.move
    move = moves[number]
    if s.is_dead:
        _set_back(b, s, s.chain_opened[move.row])
        return
    waited = np.float32(0.0)
    if not _is_covered(s, move):
        waited = _place(b, s, number, move, action)
    s.history[number] = action | (s.history[number] & FORCED)
    saved = np.float32(0.0)
    if move.is_operation:
        saved = _serve(b, s, number, move, action != DROP)
    s.reward = saved - waited
    s.total += s.reward
    s.move = number + 1
    s.done = number + 1 >= b.num_moves


@inlined
def _serve(b: Any, s: Any, number: int, move: Any, is_fast: bool) -> float:
    """Serves the accesses of a move at an operation, and sets its supply; returns the seconds that are saved."""
    seconds, slot = b.seconds[number], move.slot
    if move.is_first_access:
        s.demand, s.taken, s.demand_seconds = move.demand, move.taken, seconds[1]
    before = max(seconds[0], s.demand_seconds)
    idle_before = max(0, max(move.floor, s.demand) - s.taken)
    if is_fast:
        s.demand -= move.saving
        s.taken -= move.traffic
        s.demand_seconds -= seconds[2]
    s.duration[slot] = max(move.floor, s.demand)
    idle = max(0, s.duration[slot] - s.taken)
    if s.left[slot] != CLOSED:
        s.left[slot] = idle + move.carried
    if move.carrier != NONE and s.left[move.carrier] != CLOSED:
        s.left[move.carrier] += move.trips * (idle - idle_before)
    return (before - max(seconds[0], s.demand_seconds)) * seconds[3]


@inlined
def _limit(limits: Any, offsets: Any, tops: Any, low: int, high: int, start: int) -> None:
    """Notes that something is placed on units `[low, high)`."""
    for row in range(len(limits)):
        if offsets[row] < high and low < tops[row]:
            limits[row] = min(limits[row], start)


@inlined
def _place(b: Any, s: Any, number: int, move: Any, action: int) -> Any:
    """Makes the copies and the residency of a decision; returns the seconds that the program waits for them."""
    row = move.row
    busy, held = s.busy_until, s.held_until
    if move.is_first:
        s.chain_opened[row], s.chain_offset[row], s.chain_top[row], s.chain_end[row] = NONE, 0, 0, 0
        s.chain_limit[row], s.chain_written[row], s.chain_ready[row] = b.forever, NONE, move.ready
    is_open = s.chain_opened[row] != NONE
    low, high = s.chain_offset[row], s.chain_top[row]
    evictions = is_open and s.chain_written[row] != NONE and move.reads != 0 and action != NO_COPY
    # Nothing is in flight over a loop that has copies of its own.
    if move.carrier != NONE and (evictions or action == COPY):
        s.left[move.carrier] = CLOSED
    waited = np.float32(0.0)
    if is_open and (action != NO_COPY or not move.reads):
        end = s.chain_end[row]
        for unit in range(low, high):
            if busy[unit] <= end:
                held[unit] = 0
    if evictions:
        last = s.eviction_last
        until = b.awaited[last]
        for unit in range(low, high):
            busy[unit] = max(busy[unit], until)
        _book(b, s, s.eviction_first, last, s.eviction_rest, EVICTION)
        s.chain_ready[row] = last + 1
        s.chain_written[row] = NONE
        waited += s.eviction_wait * b.seconds[number, 4]
    if action == NO_COPY and move.reads:
        s.chain_end[row] = move.end
        for unit in range(low, high):
            busy[unit], held[unit] = move.end, move.held
    elif action != DROP:
        if action == COPY and s.is_late:
            # It has its slots to itself, and nothing may be in flight where the program waits for it.
            left, owner, queue = s.left, s.owner, b.queue[PREFETCH]
            for slot in range(min(s.prefetch_first, move.before), move.done):
                if left[slot] >= 0:
                    left[slot], owner[slot] = 0, queue
            if s.leads:
                s.lead_done, s.lead_first = move.done, s.prefetch_first
            waited += s.wait * b.seconds[number, 4]
        elif action == COPY:
            _book(b, s, s.prefetch_first, s.prefetch_last, s.prefetch_rest, PREFETCH)
        s.stays += move.is_stay
        low, high = s.offset, s.offset + move.size
        _limit(s.chain_limit, s.chain_offset, s.chain_top, low, high, s.start)
        s.chain_opened[row], s.chain_offset[row], s.chain_top[row], s.chain_end[row] = number, low, high, move.end
        s.chain_limit[row], s.chain_written[row] = b.forever, NONE
        for unit in range(low, high):
            busy[unit], held[unit] = move.end, move.held
    else:
        s.chain_opened[row] = s.chain_written[row] = NONE
    if move.writes:
        s.chain_written[row] = move.slot if action != DROP else NONE
        if action == DROP:
            s.chain_ready[row] = move.slot + 1
    return waited


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
      moves: `[moves]` of it.
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
    """Plays a game to its end, every legal action as likely.

    Args:
      boards: `[1]` the game.
      moves: `[moves]` of it.
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
        _start(boards[0], states[game])
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
      moves: `[moves]` of it.
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
