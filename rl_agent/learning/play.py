"""Self-play: many games at once, in each of which the agent decides a *window* of moves.

    moves    0 ─────────────── start ════ window ════ ───────────────────── end
             as in the champion      searched, kept      as in the champion,
             (once for all lanes)    for learning        as far as is legal

Games in odd lanes are *eager* behind their window: what the champion had to drop they take, if it is legal now. So room
that a window makes is used, wherever that is.

The champion is a finished game, the best so far as a rule. So a game costs few searches, and what a window is worth is
known exactly and at once, which no value network tells early on. A window as long as the game is MuZero's ordinary
self-play. So that games differ, all but the first lane of a window must leave the champion at its first choice: there,
the champion's action is barred. `survey` says where the policy would leave it by itself. Starting where earlier games
have been is known from Go-Explore (Ecoffet et al., 2021), improving a part of a solution from large neighbourhood
search (Shaw, 1998).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from memplan.rl_agent.game.arrays import GameArrays
from memplan.rl_agent.game.environment import ACTIONS, State, init, init_to_choice, step, step_to_choice
from memplan.rl_agent.game.reference import COPY, DROP, NO_COPY
from memplan.rl_agent.learning.network import Networks, Params
from memplan.rl_agent.learning.search import SearchOptions, World, choose
from memplan.rl_agent.learning.sight import LEGAL, Champion, Sight, look, packed, unpacked

# A game that is given up counts as a loss of so much of the latency with everything at home.
_GIVEN_UP = -0.05

# What is played where the champion's action is not legal: the first of these that is.
_INSTEAD = (NO_COPY, COPY, DROP)


class Trajectories(NamedTuple):
    """The windows of some games, `[games, window, ...]` unless said otherwise.

    Attributes:
      sight: packed.
      legal: `[games, window, 3]` bool; without what was barred.
      action: int8.
      policy: `[games, window, 3]` float16, of the search.
      value: float32, of the search.
      lead: `[games, window + 1]` float32, before each choice and after the last: saved more than the champion so far.
      is_made: bool, whether the choice was made: the window, or the game, may have ended before.
      end: `[games]` float32, the lead when the game was over, a loss if it was given up.
    """

    sight: Sight
    legal: jax.Array
    action: jax.Array
    policy: jax.Array
    value: jax.Array
    lead: jax.Array
    is_made: jax.Array
    end: jax.Array


class Played(NamedTuple):
    """Games that were played to the end.

    Attributes:
      trajectories: of the windows.
      history: `[games, moves]` int8.
      total: `[games]` float32, seconds saved; minus infinity for games that were given up.
      first, last: `[games]` moves `[first, last)` that the window decided.
      backups: `[games]`.
    """

    trajectories: Trajectories
    history: jax.Array
    total: jax.Array
    first: jax.Array
    last: jax.Array
    backups: jax.Array


def _followed(history: jax.Array, state: State) -> jax.Array:
    """Returns the action of a history at a state, or what is played in its place."""
    wanted = (history[jnp.minimum(state.move, history.shape[0] - 1)] & ACTIONS).astype(jnp.int32)
    order = jnp.stack([wanted, *(jnp.int32(action) for action in _INSTEAD)])
    return order[jnp.argmax(state.legal[order])]


def _until(arrays: GameArrays, state: State, move: jax.Array) -> State:
    """Follows a game's own history up to the first choice from a move on."""

    def is_before(state: State) -> jax.Array:
        return ~state.done & ((state.move < move) | (jnp.sum(state.legal) == 1))

    return lax.while_loop(is_before, lambda s: step(arrays, s, _followed(s.history, s)), state)


def _is_on(state: State, patience: int) -> jax.Array:
    """Whether a game is neither over nor given up."""
    return ~state.done & (state.backups <= patience)


def _to_choice(arrays: GameArrays, patience: int, state: State, action: jax.Array) -> State:
    """Returns the state after a move and all forced ones behind it, unless the game is given up."""

    # The first move and those behind it are one loop, so that `step` is compiled once.
    def is_on(carry: tuple[State, jax.Array]) -> jax.Array:
        state, action = carry
        return (action >= 0) | (_is_on(state, patience) & (jnp.sum(state.legal) == 1))

    def move(carry: tuple[State, jax.Array]) -> tuple[State, jax.Array]:
        state, action = carry
        return step(arrays, state, jnp.where(action >= 0, action, jnp.argmax(state.legal))), jnp.int32(-1)

    return lax.while_loop(is_on, move, (state, jnp.asarray(action, jnp.int32)))[0]


def _to_end(arrays: GameArrays, patience: int, state: State, had_to_drop: jax.Array, is_eager: jax.Array) -> State:
    """Plays a game to its end as its own history says, that of the champion from its last choice on.

    Args:
      arrays: the problem's game.
      patience: see `SearchOptions`.
      state: of the game.
      had_to_drop: `[moves]`, of the champion.
      is_eager: whether to take what the champion had to drop, if it can be had without waiting.
    """

    def move(state: State) -> State:
        number = jnp.minimum(state.move, had_to_drop.shape[0] - 1)
        can_copy = state.legal[COPY] & ~state.is_late
        taken = jnp.where(state.legal[NO_COPY], NO_COPY, jnp.where(can_copy, COPY, DROP))
        takes = is_eager & had_to_drop[number] & (state.move >= state.replay_until) & (taken != DROP)
        return step(arrays, state, jnp.where(takes, taken, _followed(state.history, state)))

    return lax.while_loop(lambda state: _is_on(state, patience), move, state)


def follow(arrays: GameArrays, history: jax.Array, patience: int = 0) -> State:
    """Returns the game that follows a history as far as that is legal, at its end; total minus infinity if given up."""
    never = jnp.zeros(history.shape[0], jnp.bool_)
    state = _to_end(arrays, patience, init(arrays)._replace(history=history & ACTIONS), never, jnp.bool_(False))
    return state._replace(total=jnp.where(state.done, state.total, -jnp.inf))


def play_windows(
    networks: Networks,
    options: SearchOptions,
    window: int,
    lanes: int,
    params: Params,
    key: jax.Array,
    arrays: GameArrays,
    champion: Champion,
    start: jax.Array,
    length: jax.Array,
) -> Played:
    """Plays `lanes` games in each of several windows of one problem.

    Args:
      networks, params, options: the agent, and how it searches.
      window: choices of the longest window.
      lanes: games of each window.
      key: for noise.
      arrays: the problem's game.
      champion: the base, which the games are to beat.
      start: `[windows]` their first moves.
      length: `[windows]` how many choices they have, at most `window`.

    Returns: `windows * lanes` games, those of one window beside each other.
    """
    base = init(arrays)._replace(history=jnp.asarray(champion.history) & ACTIONS)
    states = jax.vmap(lambda move: _until(arrays, base, move))(start)
    states, length = jax.tree.map(lambda x: jnp.repeat(x, lanes, axis=0), (states, length))
    first = states.move
    lane = lax.iota(jnp.int32, first.shape[0]) % lanes
    must_leave, is_eager = lane > 0, lane % 2 == 1
    had_to_drop = jnp.asarray(champion.had_to_drop)

    def move(states: State, now: tuple[jax.Array, jax.Array]) -> tuple[State, tuple[Any, ...]]:
        key, number = now
        world = World(arrays, champion, states)
        sight = packed(world.look())
        others = states.legal & (sight.guided == 0)
        is_left = must_leave & (number == 0) & jnp.any(others, axis=-1)
        legal = jnp.where(is_left[:, None], others, states.legal)
        choice = choose(networks, options, params, key, unpacked(sight), legal, world=world)
        is_made = (number < length) & _is_on(states, options.patience)
        after = jax.vmap(lambda state, action: _to_choice(arrays, options.patience, state, action))(
            states, choice.action
        )
        after = jax.tree.map(lambda new, old: jnp.where(_like(is_made, new), new, old), after, states)
        return after, (sight, legal, choice, world.lead(), is_made)

    steps = (jax.random.split(key, window), jnp.arange(window))
    states, (sight, legal, choice, lead, is_made) = lax.scan(move, states, steps)
    last = states.move
    behind = World(arrays, champion, states).lead()
    states = jax.vmap(lambda state, eager: _to_end(arrays, options.patience, state, had_to_drop, eager))(
        states, is_eager
    )
    sight, legal, choice, lead, is_made = jax.tree.map(
        lambda x: jnp.moveaxis(x, 0, 1), (sight, legal, choice, lead, is_made)
    )
    trajectories = Trajectories(
        sight=sight,
        legal=legal,
        action=choice.action.astype(jnp.int8),
        policy=choice.policy.astype(jnp.float16),
        value=choice.value,
        lead=jnp.concatenate([lead, behind[:, None]], axis=1),
        is_made=is_made,
        end=jnp.where(states.done, World(arrays, champion, states).lead(), _GIVEN_UP),
    )
    total = jnp.where(states.done, states.total, -jnp.inf)
    return Played(trajectories, states.history & ACTIONS, total, first, last, states.backups)


def _like(condition: jax.Array, x: jax.Array) -> jax.Array:
    return condition.reshape(condition.shape + (1,) * (x.ndim - condition.ndim))


def survey(networks: Networks, params: Params, arrays: GameArrays, champion: Champion) -> tuple[jax.Array, jax.Array]:
    """Returns what the policy says at each of the champion's moves.

    Returns: `[moves, 3]` the policy, 0 where there is no choice; `[moves]` how likely it leaves the champion there.
    """

    def move(state: State, _: None) -> tuple[State, tuple[Sight, jax.Array]]:
        is_choice = ~state.done & (jnp.sum(state.legal) > 1)
        seen = look(arrays, state, champion)
        return step(arrays, state, _followed(jnp.asarray(champion.history), state)), (seen, is_choice)

    _, (sights, is_choice) = lax.scan(move, init(arrays), length=champion.history.shape[0])
    _, said = networks.initial(params, sights)
    legal = sights.facts[:, LEGAL] > 0
    policy = jax.nn.softmax(jnp.where(legal, said.policy, -1e9)) * is_choice[:, None]
    return policy, jnp.where(is_choice, 1.0 - jnp.sum(policy * sights.guided, axis=-1), 0.0)


def play_out(
    networks: Networks,
    options: SearchOptions,
    games: int,
    params: Params,
    key: jax.Array,
    arrays: GameArrays,
    champion: Champion,
    heat: jax.Array,
) -> State:
    """Plays whole games of one problem, every choice by the agent; returns them at their ends, `[games, ...]`.

    Args:
      networks, params, options: the agent, and how it searches.
      games: how many.
      key: for noise.
      arrays: the problem's game.
      champion: the game that is to be beaten.
      heat: `[games]` of the noise that makes choices differ: 0 for the best actions.
    """
    start = init_to_choice(arrays)
    states = jax.tree.map(lambda x: jnp.repeat(x[None], games, axis=0), start)

    def is_on(carry: tuple[State, jax.Array]) -> jax.Array:
        return ~jnp.all(carry[0].done)

    def move(carry: tuple[State, jax.Array]) -> tuple[State, jax.Array]:
        states, key = carry
        key, own = jax.random.split(key)
        world = World(arrays, champion, states)
        sight = unpacked(packed(world.look()))
        choice = choose(networks, options, params, own, sight, states.legal, world, heat[:, None])
        return jax.vmap(step_to_choice, (None, 0, 0))(arrays, states, choice.action), key

    states, _ = lax.while_loop(is_on, move, (states, key))
    return states
