"""The order of an EmbeddedProgram's steps that needs the least memory, and the layout of the arena for it.

The bytes in use between two steps depend on which steps have run, not on their order, so the least peak is a path of
least greatest cost through the sets of steps that have run (dynamic programming over ideals; Ahn et al., "Ordering
chaos: memory-aware scheduling of irregularly wired neural networks for edge devices", 2020). The search takes the sets
by their peak, least first, so the peak that it has reached when it ends early is a bound that no order is below. A step
that raises no peak and leaves no more in use than before may run at once, in every best order; this is what keeps the
sets few. Programs for which they are still too many are ordered by beam search and by the local search of
`planners/fit/order.py`.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from memplan.compiler.effort import Effort
from memplan.compiler.embedded.plan import ArenaBlock, EmbeddedPlan, check_plan
from memplan.compiler.embedded.program import EmbeddedProgram, InPlaceWay, LoopNest, StorageKind
from memplan.passes.embedded.layout import ArenaChain, Piece, load_of, low_layout
from memplan.passes.embedded.wider_parts import with_wider_parts
from memplan.planners.offsets import Instance, pack

# Steps that the exact search tries, by effort; three million take some five seconds.
_TRIES = (30_000, 3_000_000, 10_000_000)

# Sets of steps of one size that the beam keeps, and steps that it tries, by effort.
_BEAM = ((4, 30_000), (16, 300_000), (64, 3_000_000))

# Orders in which blocks are placed, by effort.
_LAYOUTS = (50, 400, 4_000)

# Nodes that the local search looks at, by effort.
_LOOKS = (100_000, 1_000_000, 10_000_000)


def schedule(
    program: EmbeddedProgram, reorder: bool = True, effort: Effort = Effort.NORMAL, seed: int = 0
) -> EmbeddedPlan:
    """Returns a checked plan of the least peak found.

    Args:
      program: what is planned.
      reorder: whether the steps may run in another order than that of the program.
      effort: how much work to do. A program of at most 60 steps is meant to be solved exactly at the default.
      seed: of what is drawn at random.
    """
    model = _Model.of(program)
    order, method = list(range(len(program.steps))), "program order"
    bound = model.local_bound()
    if reorder and order:
        order, method, bound = _least_peak(model, effort, seed)
    plan = with_wider_parts(_packed(model, order, method, bound, effort, seed))
    check_plan(plan)
    return plan


@dataclass(eq=False)
class _Model:
    """Sizes and dependences of a program, steps as bits of integers.

    Attributes:
      program: what is ordered.
      size: `[buffers]` bytes.
      readers: `[buffers]` bits of the steps that read it.
      ends: `[buffers]` whether it ends with its last reader.
      made: `[steps]` the buffers that begin with it.
      read: `[steps]` the buffers that it reads and that may end with it.
      before: `[steps]` bits of the steps that must run before it.
      after: `[steps]` the steps that wait for it.
      made_bytes, gone_bytes: `[steps]` bytes that begin with it, and of these, bytes that nothing reads.
      ways: `[steps]` the bytes that writing in place saves, and how, most first.
      start: bytes in use before the first step.
      tries: how often a step was tried.
    """

    program: EmbeddedProgram
    size: list[int]
    readers: list[int]
    ends: list[bool]
    made: list[list[int]]
    read: list[list[int]]
    before: list[int]
    after: list[list[int]]
    made_bytes: list[int]
    gone_bytes: list[int]
    ways: list[list[tuple[int, InPlaceWay]]]
    start: int
    tries: int = 0

    @staticmethod
    def of(program: EmbeddedProgram) -> _Model:
        size = [buffer.size for buffer in program.buffers]
        readers = [0] * len(size)
        for k, step in enumerate(program.steps):
            for b in step.reads:
                readers[b] |= 1 << k
        in_arena = [b for b, each in enumerate(program.buffers) if each.kind in (StorageKind.INPUT, StorageKind.STATE)]
        ends = [each.kind in (StorageKind.INPUT, StorageKind.TEMPORARY) for each in program.buffers]
        begin = [each.kind in (StorageKind.TEMPORARY, StorageKind.RESULT) for each in program.buffers]
        after: list[list[int]] = [[] for _ in program.steps]
        before = [0] * len(program.steps)
        for k, earlier in enumerate(program.predecessors):
            for other in earlier:
                before[k] |= 1 << other
                after[other].append(k)
        made = [[b for b in step.writes if begin[b]] for step in program.steps]
        return _Model(
            program,
            size,
            readers,
            ends,
            made,
            [[b for b in step.reads if ends[b]] for step in program.steps],
            before,
            after,
            [sum(size[b] for b in buffers) for buffers in made],
            [sum(size[b] for b in buffers if ends[b] and not readers[b]) for buffers in made],
            [_saving(program, step) for step in program.steps],
            sum(size[b] for b in in_arena),
        )

    def cost(self, done: int, k: int, used: int) -> tuple[int, int, InPlaceWay | None]:
        """Returns the bytes in use while a step runs and after it, and how it writes in place.

        Args:
          done: bits of the steps that have run.
          k: the step.
          used: bytes in use before it.
        """
        self.tries += 1
        left = ~(done | 1 << k)
        freed = 0
        for b in self.read[k]:
            if not self.readers[b] & left:
                freed += self.size[b]
        need = used + self.made_bytes[k]
        after = need - freed - self.gone_bytes[k]
        for saved, way in self.ways[k]:
            if not self.readers[way.buffer] & left:
                return need - saved, after, way
        return need, after, None

    def replay(self, order: Sequence[int]) -> tuple[int, list[InPlaceWay | None]]:
        """Returns the peak of an order, and how its steps write in place."""
        done, used, peak = 0, self.start, self.start
        ways: list[InPlaceWay | None] = [None] * len(order)
        for k in order:
            need, used, ways[k] = self.cost(done, k, used)
            peak = max(peak, need)
            done |= 1 << k
        return peak, ways

    def local_bound(self) -> int:
        """Returns bytes that some step needs in every order: what it reads and writes, and the states."""
        states = sum(self.size[b] for b, each in enumerate(self.program.buffers) if each.kind is StorageKind.STATE)
        least = max(self.start, states)
        for k in range(len(self.program.steps)):
            local = states + sum(self.size[b] for b in {*self.read[k], *self.made[k]})
            least = max(least, local - max((saved for saved, _ in self.ways[k]), default=0))
        return least

    def ready(self, done: int, among: Sequence[int]) -> Iterator[int]:
        return (k for k in among if not done >> k & 1 and not self.before[k] & ~done)


def _saving(program: EmbeddedProgram, step: LoopNest) -> list[tuple[int, InPlaceWay]]:
    """Returns the bytes that each way of a step to write in place saves, most first."""
    size = [buffer.size for buffer in program.buffers]
    saved = [(min(size[w.buffer], size[step.stores[w.store].buffer]) - w.workspace, w) for w in step.in_place]
    return sorted((each for each in saved if each[0] > 0), key=lambda each: -each[0])


def _least_peak(model: _Model, effort: Effort, seed: int) -> tuple[list[int], str, int]:
    """Returns the best order found, how it was found, and a proven bound on the peak."""
    order, bound = _exact(model, effort.of(*_TRIES))
    if order is not None:
        return order, "exact search", bound
    candidates = [
        (list(range(len(model.before))), "program order"),
        (_beam(model, *effort.of(*_BEAM)), "beam search"),
    ]
    best = min(candidates, key=lambda each: model.replay(each[0])[0])
    found = [best, (_local(model, best[0], bound, effort.of(*_LOOKS), seed), f"{best[1]} and local search")]
    order, method = min(found, key=lambda each: model.replay(each[0])[0])
    return order, method, max(bound, model.local_bound())


@dataclass(frozen=True, eq=False, slots=True)
class _State:
    """A set of steps that have run.

    Attributes:
      done: their bits.
      used: bytes in use after them.
      ready: steps that may run next.
      last: the steps that were added last; None at the start.
      earlier: the state before them.
    """

    done: int
    used: int
    ready: tuple[int, ...]
    last: tuple[int, ...]
    earlier: _State | None

    def order(self) -> list[int]:
        found: list[int] = []
        state: _State | None = self
        while state is not None:
            found += reversed(state.last)
            state = state.earlier
        return found[::-1]


def _start(model: _Model) -> _State:
    return _State(0, model.start, tuple(model.ready(0, range(len(model.before)))), (), None)


def _after(model: _Model, state: _State, k: int, limit: int) -> tuple[_State, int]:
    """Returns the state after a step and all that may follow at once, and the peak of these.

    Args:
      model: the program.
      state: before the step.
      k: the step.
      limit: bytes; a step within it that leaves no more in use than before follows at once.
    """
    need, used, _ = model.cost(state.done, k, state.used)
    limit = max(limit, need)
    done, ready, last = state.done, [j for j in state.ready if j != k], [k]
    done |= 1 << k
    ready += model.ready(done, [j for j in model.after[k] if j not in ready])
    position = 0
    while position < len(ready):
        j = ready[position]
        cost, left, _ = model.cost(done, j, used)
        if cost <= limit and left <= used:
            done, used = done | 1 << j, left
            last.append(j)
            ready.pop(position)
            ready += model.ready(done, [i for i in model.after[j] if i not in ready])
            position = 0
        else:
            position += 1
    return _State(done, used, tuple(sorted(ready)), tuple(last), state), need


def _exact(model: _Model, most: int) -> tuple[list[int] | None, int]:
    """Returns an order of the least peak and that peak; None and a bound if that takes more tries than allowed."""
    floor = model.local_bound()
    start = _start(model)
    number = 0
    heap: list[tuple[int, int, int, _State]] = [(floor, 0, 0, start)]
    seen: set[int] = set()
    full = (1 << len(model.before)) - 1
    while heap:
        peak, _, _, state = heapq.heappop(heap)
        if state.done == full:
            return state.order(), peak
        if state.done in seen:
            continue
        seen.add(state.done)
        if model.tries > most:
            return None, peak
        for k in state.ready:
            following, need = _after(model, state, k, peak)
            if following.done not in seen:
                number += 1
                # Of equal peaks the furthest state first: it may end the search.
                heapq.heappush(heap, (max(peak, need), -following.done.bit_count(), number, following))
    raise AssertionError("a step waits for itself")


def _beam(model: _Model, width: int, most: int) -> list[int]:
    """Returns an order by beam search: of the states of about one size, those of the least peak and use are kept.

    Args:
      model: the program.
      width: states of one size that are kept, and steps that each of them tries.
      most: tries after which only the best state goes on.
    """
    full = (1 << len(model.before)) - 1
    levels: dict[int, dict[int, tuple[int, _State]]] = {0: {0: (model.start, _start(model))}}
    best: tuple[int, _State] | None = None
    most += model.tries
    for count in range(len(model.before) + 1):
        states = sorted(levels.pop(count, {}).values(), key=lambda each: (each[0], each[1].used, each[1].done))
        for peak, state in states[: width if model.tries < most else 1]:
            if state.done == full:
                if best is None or peak < best[0]:
                    best = (peak, state)
                continue
            ranked = sorted(state.ready, key=lambda k: model.cost(state.done, k, state.used)[:2])
            for k in ranked[: width if model.tries < most else 1]:
                following, need = _after(model, state, k, peak)
                level = levels.setdefault(following.done.bit_count(), {})
                known = level.get(following.done)
                if known is None or max(peak, need) < known[0]:
                    level[following.done] = (max(peak, need), following)
    assert best is not None
    return best[1].order()


def _local(model: _Model, order: list[int], limit: int, looks: int, seed: int) -> list[int]:
    """Returns an order by local search over a FitProblem that stands for the program."""
    from memplan.planners.fit.order import Orderer
    from memplan.planners.fit.problem import FitNode, FitProblem, FitValue

    program = model.program
    position = {k: t for t, k in enumerate(order)}
    producer = {b: k for k, made in enumerate(model.made) for b in made}
    values: list[FitValue] = []
    number: dict[int, int] = {}
    for b, buffer in enumerate(program.buffers):
        if buffer.size:
            maker = position[producer[b]] if b in producer else None
            number[b] = len(values)
            values.append(
                FitValue(buffer.name, buffer.size, maker, not model.ends[b], maker is None and model.ends[b], False)
            )
    inputs: list[list[int]] = [[number[b] for b in step.reads if b in number] for step in program.steps]
    outputs: list[list[int]] = [[number[b] for b in made] for made in model.made]
    for k, earlier in enumerate(program.predecessors):
        for other in earlier:  # A value without bytes makes one step wait for another.
            values.append(FitValue("order", 0, position[other], False, False, False))
            inputs[k].append(len(values) - 1)
            outputs[other].append(len(values) - 1)
    nodes = []
    for k in order:
        step = program.steps[k]
        pairs = tuple((number[step.stores[w.store].buffer], number[w.buffer]) for w in step.in_place)
        workspace = min((w.workspace for w in step.in_place), default=0)
        nodes.append(FitNode(step.name, tuple(inputs[k]), tuple(outputs[k]), 0.0, True, workspace, pairs))
    problem = FitProblem(tuple(values), tuple(nodes), None, program.name)
    problem.check()
    found = Orderer(problem, limit).improved(list(range(len(order))), looks, seed)
    return [order[i] for i in found.tolist()]


def _packed(model: _Model, order: Sequence[int], method: str, bound: int, effort: Effort, seed: int) -> EmbeddedPlan:
    """Returns the plan of an order, with the blocks packed.

    What is written in place has the address of what it is written over, so the fewer steps do it, the freer the layout
    is. Steps that would raise the peak do it in any case. Both are tried: these only, and all that can.
    """
    peak, ways = model.replay(order)
    needed, done, used = list(ways), 0, model.start
    for k in order:
        _, after, way = model.cost(done, k, used)
        if way is not None and used + model.made_bytes[k] <= peak:
            needed[k] = None
        done, used = done | 1 << k, after
    plans = [_laid_out(model, order, ways, method, bound, effort, seed)]
    if plans[0].arena > peak:
        plans.append(_laid_out(model, order, needed, method, bound, effort, seed))
    return min(plans, key=lambda plan: plan.arena)


def _laid_out(
    model: _Model,
    order: Sequence[int],
    ways: Sequence[InPlaceWay | None],
    method: str,
    bound: int,
    effort: Effort,
    seed: int,
) -> EmbeddedPlan:
    """Returns the plan of an order and of what is written in place.

    Buffers that are written over one another are one block, which takes the bytes of each while it lives.
    """
    program = model.program
    position = {k: t for t, k in enumerate(order)}
    lives = _lives(model, position)
    over = {w.buffer: program.steps[k].stores[w.store].buffer for k, w in enumerate(ways) if w is not None}
    follows = set(over.values())
    chains = []
    for b in lives:
        if b not in follows:
            chain = [b]
            while chain[-1] in over:
                chain.append(over[chain[-1]])
            chains.append(chain)
    workspaces = [(position[k], w.workspace) for k, w in enumerate(ways) if w is not None and w.workspace]
    placed = [ArenaChain(_pieces([(*lives[b], model.size[b]) for b in chain])) for chain in chains]
    placed += [ArenaChain(((time, time + 1, workspace),)) for time, workspace in workspaces]
    offsets = _offsets(placed, effort, seed)
    blocks = [ArenaBlock(b, offsets[i], model.size[b], *lives[b]) for i, chain in enumerate(chains) for b in chain]
    blocks += [
        ArenaBlock(None, offset, workspace, time, time + 1)
        for (time, workspace), offset in zip(workspaces, offsets[len(chains) :], strict=True)
    ]
    return EmbeddedPlan(program, tuple(order), tuple(ways), tuple(blocks), bound, load_of(placed), method)


def _offsets(chains: Sequence[ArenaChain], effort: Effort, seed: int) -> list[int]:
    """Returns offsets of all blocks; those that are there all the time, as states are, lie at the bottom."""
    end = max((chain.pieces[-1][1] for chain in chains), default=0)
    stays = [k for k, c in enumerate(chains) if len(c.pieces) == 1 and c.pieces[0][:2] == (0, end)]
    others = sorted(set(range(len(chains))) - set(stays))
    moving = [chains[k] for k in others]
    offsets, base = [0] * len(chains), 0
    for k in stays:
        offsets[k], base = base, base + chains[k].size
    found = low_layout(moving, effort.of(*_LAYOUTS), seed)
    top = max((offset + chain.size for offset, chain in zip(found, moving, strict=True)), default=0)
    if top > load_of(moving) and all(len(chain.pieces) == 1 for chain in moving):
        lower, upper, size = zip(*(chain.pieces[0] for chain in moving), strict=True)
        packing = pack(Instance.of(lower, upper, size), effort=effort, seed=seed)
        found = packing.offsets.tolist() if packing.height < top else found
    for k, offset in zip(others, found, strict=True):
        offsets[k] = base + offset
    return offsets


def _lives(model: _Model, position: dict[int, int]) -> dict[int, tuple[int, int]]:
    """Returns the half-open times of all buffers in the arena."""
    end = max(len(position), 1)
    found = {}
    begun = {b: position[k] for k, made in enumerate(model.made) for b in made}
    for b, buffer in enumerate(model.program.buffers):
        if buffer.kind is not StorageKind.CONSTANT:
            first = begun.get(b, 0)
            times = [position[k] for k in position if model.readers[b] >> k & 1]
            found[b] = (first, (max([first, *times]) + 1) if model.ends[b] else end)
    return found


def _pieces(lives: Sequence[tuple[int, int, int]]) -> tuple[Piece, ...]:
    """Returns the bytes in time of buffers that are written over one another, given as `(start, end, size)`."""
    found: list[Piece] = []
    for number, (start, end, size) in enumerate(lives):
        # The last time of a buffer is the first time of the one written over it: both are there then.
        first = start + (number > 0)
        if number + 1 == len(lives):
            found.append((first, end, size))
        else:
            found.append((first, end - 1, size))
            found.append((end - 1, end, max(size, lives[number + 1][2])))
    joined: list[Piece] = []
    for start, end, size in found:
        if joined and joined[-1][2] == size:
            start = joined.pop()[0]
        if start < end:
            joined.append((start, end, size))
    return tuple(joined)
