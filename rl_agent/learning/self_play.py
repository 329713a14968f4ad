"""Self-play: many games at once, in each of which the agent decides a *window* of moves.

    moves    0 ─────────────── start ════ window ════ ───────────────────── end
             as in the champion      searched, kept      as in the champion,
             (once for all lanes)    for learning        as far as is legal

The *lanes* of a window are the games that begin with it. Games in odd lanes are *eager* behind their window: where the
champion had to drop a value, they keep or fetch it if that is legal now. So room that a window makes is used, wherever
it is.

The champion is a finished game, usually the best one so far. So a game costs few searches, and its gain on the champion
is known exactly and at once, which no value network tells early on. A window as long as the game is MuZero's ordinary
self-play. All but the first lane of a window must leave the champion at its first choice, where the champion's action
is barred: this makes games differ. `survey` says where the policy would leave the champion by itself. Starting where
earlier games have been is known from Go-Explore (Ecoffet et al., 2021), improving a part of a solution from large
neighbourhood search (Shaw, 1998).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from memplan.rl_agent.game.arrays import GameArrays
from memplan.rl_agent.game.host import Games, Host, as_states
from memplan.rl_agent.game.moves import ACTIONS, NUM_ACTIONS
from memplan.rl_agent.game.state import State
from memplan.rl_agent.learning.network import Networks, Params
from memplan.rl_agent.learning.sight import LEGAL, Champion, Sight, packed, unpacked
from memplan.rl_agent.learning.tree_search import TreeSearchOptions, World, choose

# A game that is given up counts as a loss of so much of the latency with everything at home.
_GIVEN_UP = -0.05


class Trajectories(NamedTuple):
    """The windows of some games: the choices that the agent made there, `[games, window, ...]` unless said otherwise.

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


class AgentStep(NamedTuple):
    """What the agent sees and does in each of a batch of games, `[games, ...]`: see `Trajectories`."""

    sight: Sight
    legal: jax.Array
    action: jax.Array
    policy: jax.Array
    value: jax.Array


def decide(
    networks: Networks,
    options: TreeSearchOptions,
    params: Params,
    key: jax.Array,
    arrays: GameArrays,
    champion: Champion,
    states: State,
    must_leave: jax.Array,
    heat: jax.Array,
) -> AgentStep:
    """Chooses an action in each of a batch of games of one problem.

    Args:
      networks, params, options: the agent, and how it searches.
      key: for noise.
      arrays: the problem's game.
      champion: the game that is to be beaten.
      states: `[games, ...]`.
      must_leave: `[games]` whether the champion's action is barred, if there is another one.
      heat: `[games]` of the noise that makes choices differ: 0 for the best actions.
    """
    world = World(arrays, champion, states)
    sight = packed(world.look())
    others = states.legal & (sight.guided == 0)
    is_left = must_leave & jnp.any(others, axis=-1)
    legal = jnp.where(is_left[:, None], others, states.legal)
    choice = choose(networks, options, params, key, unpacked(sight), legal, world, heat[:, None])
    return AgentStep(sight, legal, choice.action.astype(jnp.int8), choice.policy.astype(jnp.float16), choice.value)


# `decide` of an agent and one problem: of keys, states, must_leave and heat.
Decide = Callable[[jax.Array, State, NDArray[np.bool_], NDArray[np.float32]], AgentStep]


def leads(host: Host, champion: Champion, games: Games) -> NDArray[np.float32]:
    """Returns how much more than the champion each game has saved so far, of the latency with everything at home."""
    there = np.asarray(champion.totals)[np.minimum(games["move"], len(champion.totals) - 1)]
    return (games["total"] - there) / np.maximum(host.home, np.float32(1e-30))


def _are_on(games: Games, patience: int) -> NDArray[np.bool_]:
    """Returns which games are neither over nor given up."""
    return (games["done"] == 0) & (games["backups"] <= patience)


def play_windows(
    agent: Decide,
    host: Host,
    champion: Champion,
    patience: int,
    window: int,
    lanes: int,
    key: jax.Array,
    start: NDArray[np.int32],
    length: NDArray[np.int32],
) -> Played:
    """Plays `lanes` games in each of several windows of one problem.

    Args:
      agent: what decides.
      host: the problem's game.
      champion: the base, which the games are to beat.
      patience: see `TreeSearchOptions`.
      window: choices of the longest window.
      lanes: games of each window.
      key: for noise.
      start: `[windows]` their first moves.
      length: `[windows]` how many choices they have, at most `window`.

    Returns: `windows * lanes` games, the lanes of one window beside each other.
    """
    bases = host.starts(np.repeat(np.asarray(champion.history)[None], len(start), axis=0))
    host.follow(bases, until=start)
    games, length = np.repeat(bases, lanes), np.repeat(length, lanes)
    first = games["move"].copy()
    lane = np.arange(len(games)) % lanes
    must_leave, heat = lane > 0, np.ones(len(games), np.float32)
    made: list[tuple[AgentStep, NDArray[np.float32], NDArray[np.bool_]]] = []
    keys = jax.random.split(key, window)
    for number in range(window):
        is_made = (number < length) & _are_on(games, patience)
        if not is_made.any() and made:
            break
        lead = leads(host, champion, games)
        said: AgentStep = jax.device_get(agent(keys[number], as_states(games), must_leave & (number == 0), heat))
        made.append((said, lead, is_made))
        host.step_to_choice(games, np.where(is_made, said.action, -1), patience)
    last, behind = games["move"].copy(), leads(host, champion, games)
    host.follow(games, patience=patience, had_to_drop=champion.had_to_drop, is_eager=lane % 2 == 1)
    # Choices that no game made are filled with zeros.
    missing = window - len(made)
    said, lead, is_made = jax.tree.map(lambda *parts: _filled(np.stack(parts, axis=1), missing), *made)
    lead[:, len(made) :] = behind[:, None]
    is_over = games["done"] != 0
    trajectories = Trajectories(
        sight=said.sight,
        legal=said.legal,
        action=said.action,
        policy=said.policy,
        value=said.value,
        lead=np.concatenate([lead, behind[:, None]], axis=1),
        is_made=is_made,
        end=np.where(is_over, leads(host, champion, games), np.float32(_GIVEN_UP)),
    )
    total = np.where(is_over, games["total"], -np.inf)
    return Played(trajectories, games["history"] & np.int8(ACTIONS), total, first, last, games["backups"].copy())


def _filled(values: NDArray[Any], missing: int) -> NDArray[Any]:
    """Returns values with so many zeros appended along the second axis."""
    return np.concatenate([values, np.zeros((len(values), missing, *values.shape[2:]), values.dtype)], axis=1)


def lesson(
    agent: Decide, host: Host, champion: Champion, history: NDArray[np.int8], window: int, games: int, key: jax.Array
) -> Trajectories:
    """Returns windows of a finished game where it differs from the champion, to learn what it does better.

    Args:
      agent: what would have decided.
      host: the game.
      champion: of the game.
      history: `[moves]` of the other game.
      window: choices of a window.
      games: so many states are looked at, at most.
      key: for noise.
    """
    count = games // window
    game = host.starts(history[None])
    differs = np.flatnonzero(history != champion.history)
    seen, is_made = np.repeat(game, games), np.zeros((count, window), np.bool_)
    after = np.zeros((count, window), np.float32)
    following = 0
    for row in range(count):
        behind = differs[np.searchsorted(differs, following) :]
        if not len(behind):
            break
        following = int(behind[0])
        for column in range(window):
            host.follow(game, until=np.array([following]))
            if game["done"][0]:
                break
            seen[row * window + column], is_made[row, column] = game[0], True
            following = int(game["move"][0]) + 1
            if column:
                after[row, column - 1] = leads(host, champion, game)[0]
        host.follow(game, until=np.array([following]))
        after[row, max(0, int(is_made[row].sum()) - 1) :] = leads(host, champion, game)[0]
    host.follow(game)
    free, heat = np.zeros(games, np.bool_), np.ones(games, np.float32)
    said: AgentStep = jax.device_get(agent(key, as_states(seen), free, heat))
    said = jax.tree.map(lambda x: x[: count * window].reshape(count, window, *x.shape[1:]), said)
    before = leads(host, champion, seen)[: count * window].reshape(count, window)
    action = history[np.minimum(seen["move"], len(history) - 1)][: count * window].reshape(count, window)
    return Trajectories(
        sight=said.sight,
        legal=said.legal,
        action=action,
        policy=np.eye(NUM_ACTIONS, dtype=np.float16)[action],
        value=said.value,
        lead=np.concatenate([before[:, :1], after], axis=1),
        is_made=is_made,
        end=np.full(count, leads(host, champion, game)[0], np.float32),
    )


def choices_of(host: Host, champion: Champion) -> tuple[Games, NDArray[np.bool_]]:
    """Returns the champion's game before each of its moves, `[moves]`, and which of them are choices."""
    game = host.starts(np.asarray(champion.history)[None])
    along, is_choice = np.repeat(game, len(host.moves)), np.zeros(len(host.moves), np.bool_)
    following = 0
    while True:
        host.follow(game, until=np.array([following]))
        if game["done"][0]:
            return along, is_choice
        number = int(game["move"][0])
        along[number], is_choice[number] = game[0], True
        following = number + 1


def survey(
    networks: Networks, params: Params, arrays: GameArrays, champion: Champion, states: State, is_choice: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns what the policy says at each of the champion's moves.

    Args:
      networks, params: the agent.
      arrays: the problem's game.
      champion: of the game.
      states, is_choice: see `choices_of`.

    Returns: `[moves, 3]` the policy, 0 where there is no choice; `[moves]` how likely it leaves the champion there.
    """
    sights = World(arrays, champion, states).look()
    _, said = networks.initial(params, sights)
    legal = sights.facts[:, LEGAL] > 0
    policy = jax.nn.softmax(jnp.where(legal, said.policy, -1e9)) * is_choice[:, None]
    return policy, jnp.where(is_choice, 1.0 - jnp.sum(policy * sights.guided, axis=-1), 0.0)


def play_out(agent: Decide, host: Host, champion: Champion, key: jax.Array, heat: NDArray[np.float32]) -> Games:
    """Plays whole games of one problem, and returns them at their ends.

    At each choice all actions are followed to the end, as the champion. The agent's is made, unless another one ends
    better. So none of these games is worse than the champion, whatever the agent has learned (rollouts: Tesauro and
    Galperin, "On-line policy improvement using Monte-Carlo search", 1996).

    Args:
      agent: what decides.
      host: the problem's game.
      champion: the game that is followed.
      key: for noise.
      heat: `[games]` of the noise that makes choices differ: 0 for the best actions.
    """
    games = host.starts(np.repeat(np.asarray(champion.history)[None], len(heat), axis=0))
    patience = len(host.moves)
    host.follow(games, until=np.zeros(len(heat), np.int64), patience=patience)
    stays, row = np.zeros(len(heat), np.bool_), np.arange(len(heat))
    while not games["done"].all():
        key, own = jax.random.split(key)
        said = np.asarray(agent(own, as_states(games), stays, heat).action)
        ends = np.full((len(heat), NUM_ACTIONS), -np.inf)
        for action in range(NUM_ACTIONS):
            is_tried = (games["legal"][:, action] != 0) & (games["done"] == 0)
            trial = games[is_tried]
            host.step_to_choice(trial, np.full(len(trial), action), patience)
            host.follow(trial, patience=patience)
            ends[is_tried, action] = trial["total"]
        best = ends.argmax(axis=1)
        made = np.where(ends[row, said] < ends[row, best], best, said)
        host.step_to_choice(games, np.where(games["done"] != 0, -1, made), patience)
    return games
