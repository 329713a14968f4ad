"""The search in one order of the nodes, as Python sees it: how it starts, goes on, and becomes a schedule."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from memplan.planners.fit import state_kernel
from memplan.planners.fit.plan import FitPlan, FitStep, Load, Loaded, Run, Store, Stored
from memplan.planners.fit.problem import FitProblem
from memplan.planners.fit.search_kernel import FitSearch, fill_locals, go_on, runs_in_stage, start_search
from memplan.planners.fit.stage_kernel import StageScratch
from memplan.planners.fit.state_kernel import (
    BOOKED,
    FREE,
    HOST,
    KEEP,
    LOADED_FROM,
    MADE,
    MODE,
    NEED,
    NEXT,
    PREV,
    STAGE,
    STORED_AT,
    VALUE,
    WIDTH,
    FitState,
)

Integers = NDArray[np.int64]

# All seconds of the program together, in ticks, and the most units that sums over all stages may reach.
_TICKS, _MOST = 2.0**40, 2.0**61

# Rows for events, for each read of the program, and entries of the log.
_ROWS_PER_READ, _LOG = 6, 1 << 19

_CANDIDATES = 12


class FitSearcher:
    """A search for the cheapest decisions within a limit, with the first runs in a given order.

    Args:
      problem: that is sound.
      order: the nodes as they first run.
      limit: bytes.
      seed: of the random numbers.
    """

    def __init__(self, problem: FitProblem, order: Sequence[int] | Integers, limit: int, seed: int = 0):
        self.problem, self.order = problem, np.array(order, np.int64)
        t, n = problem.tables, len(problem.nodes)
        self.unit = max(1, int(np.ceil((float(t.size.sum()) + float(t.workspace.sum())) * (n + 1) / _MOST)))
        self.second = _TICKS / max(float(t.seconds.sum()), 1e-300)
        kept = int(t.size[t.stays].sum())
        self.state = self._state(limit // self.unit - -(-kept // self.unit))
        self.scratch = self._scratch()
        self._write_events()
        self.search = FitSearch(
            estimate=np.where(t.producer >= 0, self.state.ticks[self._position[t.producer]], 0).astype(np.float64)
            if n
            else np.zeros(len(t.size)),
            best=self.state.cells.copy(),
            score=np.zeros(4, np.int64),
            random=np.array([seed & (2**64 - 1)], np.uint64),
            candidate=np.zeros(_CANDIDATES, np.int64),
            key=np.zeros(_CANDIDATES),
            pool=np.zeros(self._num_rows, np.int64),
            temperature=np.zeros(1),
        )

    def start(self) -> None:
        """Drops values until it fits, or nothing helps."""
        start_search(self.state, self.scratch, self.search, 4 * len(self.problem.values) + 100)

    def go_on(self, work: int, temperature: float) -> None:
        """Searches on.

        Args:
          work: operations.
          temperature: seconds by which an accepted state may be worse, on average.
        """
        self.search.temperature[0] = temperature * self.second
        go_on(self.state, self.scratch, self.search, work)

    @property
    def is_feasible(self) -> bool:
        """Whether the best state lies within the limit."""
        return bool(self.search.score[2] == 0)

    @property
    def cost(self) -> float:
        """Seconds that the best state adds."""
        return float(self.search.score[3]) / self.second

    def plan(self) -> FitPlan:
        """Returns the schedule of the best state; its figures are those of the verifier."""
        self.state.cells[:] = self.search.best
        self.state.totals[state_kernel.LOGGED] = 0
        n = len(self.problem.nodes)
        before: list[list[tuple[int, int, FitStep]]] = [[] for _ in range(n + 1)]
        cells, offset = self.state.cells, self.state.offset
        rows = cells[: self._num_rows * WIDTH].reshape(-1, WIDTH)
        for e in np.flatnonzero(rows[:, MODE] == HOST).tolist():
            row = rows[e].tolist()
            value, stage, stored = row[VALUE], row[STAGE], row[STORED_AT]
            booked, first, last = row[BOOKED], stored, row[LOADED_FROM]
            while booked >= 0:
                at = int(rows[booked][STAGE])
                if at < offset[state_kernel.FROM_HOST]:
                    first = min(first, at - int(offset[state_kernel.TO_HOST]))
                else:
                    last = max(last, at - int(offset[state_kernel.FROM_HOST]))
                booked = int(rows[booked][NEXT])
            before[first].append((0, stored, Store(value)))
            before[stored + 1].append((-1, stored, Stored(value)))
            before[row[LOADED_FROM]].append((1, last, Load(value)))
            before[stage].append((2, stage, Loaded(value)))
        steps: list[FitStep] = []
        for t in range(n + 1):
            steps += [step for _, _, step in sorted(before[t], key=lambda entry: entry[:2])]
            count = runs_in_stage(self.state, self.scratch, t)
            steps += [Run(node) for node in self.order[self.scratch.spare[:count]].tolist()]
        return FitPlan(tuple(steps))

    def _state(self, limit: int) -> FitState:
        t, n = self.problem.tables, len(self.problem.nodes)
        order, num_values = self.order, len(t.size)
        self._position = np.zeros(n + 1, np.int64)
        self._position[order] = np.arange(n)
        reads = len(t.inputs) + 2 * num_values
        self._num_rows = _ROWS_PER_READ * reads + 6 * n + 1000
        ends = np.cumsum([0, self._num_rows * WIDTH, n + 1, n + 1, n + 1, n + 1, self._num_rows]).astype(np.int64)
        input_start, inputs = _permuted(t.input_start, t.inputs, order)
        output_start, outputs = _permuted(t.output_start, t.outputs, order)
        host = self.problem.host
        store, load = np.zeros(num_values), np.zeros(num_values)
        if host is not None:
            store, load = host.latency + t.size / host.to_host, host.latency + t.size / host.from_host
        siblings = np.append(np.diff(t.output_start), 1)[t.producer] > 1
        siblings &= np.append(t.can_repeat, False)[t.producer]
        ticks = np.rint(t.seconds * self.second).astype(np.int64)[order]
        return FitState(
            size=-(-t.size // self.unit),
            producer=np.where(t.producer >= 0, self._position[t.producer], -1),
            first=np.full(num_values, -1, np.int64),
            can_repeat=t.can_repeat[order],
            ticks=ticks,
            can_host=t.can_offload & ~siblings,
            store_ticks=np.ceil(np.minimum(store * self.second, 2.0**60)).astype(np.int64) + 1,
            load_ticks=np.ceil(np.minimum(load * self.second, 2.0**60)).astype(np.int64) + 1,
            input_start=input_start,
            inputs=inputs,
            output_start=output_start,
            outputs=outputs,
            cells=np.zeros(int(ends[-1]) + 2, np.int64),
            offset=ends[1:],
            need=np.zeros(n + 1, np.int64),
            limit=np.array([limit], np.int64),
            policy=np.zeros(2),
            totals=np.zeros(state_kernel.NUM_TOTALS, np.int64),
            log_at=np.zeros(_LOG + 8 * n, np.int64),
            log_low=np.zeros(_LOG + 8 * n, np.int64),
            log_value=np.zeros(_LOG + 8 * n, np.int64),
            waiting=np.zeros(3 * (len(t.inputs) + 1000), np.int64),
            dirty=np.zeros(n + 1, np.int64),
            dirty_stamp=np.full(n + 1, -1, np.int64),
            finger=np.zeros(num_values, np.int64),
        )

    def _scratch(self) -> StageScratch:
        t, n, s = self.problem.tables, len(self.problem.nodes), self.state
        pair_start, pair_output = _permuted(t.pair_start, t.pair_output, self.order)
        _, pair_input = _permuted(t.pair_start, t.pair_input, self.order)
        return StageScratch(
            size=s.size,
            producer=s.producer,
            is_result=t.is_result,
            workspace=-(-t.workspace[self.order] // self.unit),
            input_start=s.input_start,
            inputs=s.inputs,
            output_start=s.output_start,
            outputs=s.outputs,
            pair_start=pair_start,
            pair_output=pair_output,
            pair_input=pair_input,
            stamp=np.zeros(1, np.int64),
            here=np.zeros(len(t.size), np.int64),
            stays_on=np.zeros(len(t.size), np.int64),
            last_read=np.zeros(len(t.size), np.int64),
            claimed=np.zeros(len(pair_input), np.int64),
            chosen=np.zeros(n + 1, np.int64),
            mode_here=np.zeros(len(t.size), np.int64),
            runs=np.zeros(n + 1, np.int64),
            order=np.zeros(n + 1, np.int64),
            spare=np.zeros(n + 1, np.int64),
        )

    def _write_events(self) -> None:
        """Writes the events of the program as it is: all values are kept from their first run to their last use."""
        t, s, n = self.problem.tables, self.state, len(self.problem.nodes)
        rows = s.cells[: self._num_rows * WIDTH].reshape(-1, WIDTH)
        rows[:, MODE] = FREE
        rows[:, VALUE] = -1
        moving = ~t.stays
        made = np.flatnonzero(moving)
        readers = np.repeat(np.arange(n), np.diff(s.input_start))
        read = moving[s.inputs]
        results = np.flatnonzero(t.is_result & moving)
        value = np.concatenate([made, s.inputs[read], results])
        stage = np.concatenate([s.producer[made], readers[read], np.full(len(results), n)])
        mode = np.concatenate([np.full(len(made), MADE), np.full(len(value) - len(made), KEEP)])
        order = np.lexsort((stage, value))
        value, stage, mode = value[order], stage[order], mode[order]
        count = len(value)
        same = np.concatenate([value[1:] == value[:-1], [False]]) if count else np.zeros(0, np.bool_)
        following = np.where(same, np.arange(1, count + 1), -1)
        live = rows[:count]
        live[:, VALUE], live[:, STAGE], live[:, MODE], live[:, BOOKED] = value, stage, mode, -1
        live[:, NEED] = mode != MADE
        live[:, NEXT] = following
        live[:, PREV] = -1
        live[following[same], PREV] = np.flatnonzero(same)
        s.first[value[mode == MADE]] = np.flatnonzero(mode == MADE)
        s.finger[:] = np.maximum(s.first, 0)
        self._chain_stages(live, stage)
        s.cells[s.offset[state_kernel.TO_HOST] : s.offset[state_kernel.TO_HOST] + n] = s.ticks
        s.cells[s.offset[state_kernel.FROM_HOST] : s.offset[state_kernel.FROM_HOST] + n] = s.ticks
        left = self._num_rows - count
        s.cells[s.offset[state_kernel.FREED] : s.offset[state_kernel.FREED] + left] = np.arange(count, self._num_rows)[
            ::-1
        ]
        s.cells[s.offset[state_kernel.STATE] + state_kernel.NUM_FREE] = left
        self._sum_up(live[mode == KEEP], live)

    def _chain_stages(self, live: Integers, stage: Integers) -> None:
        s = self.state
        heads = s.cells[s.offset[state_kernel.HEADS] : s.offset[state_kernel.HEADS] + len(s.need)]
        heads[:] = -1
        live[:, state_kernel.BEFORE] = live[:, state_kernel.AFTER] = -1
        order = np.argsort(stage, kind="stable")
        order = order[stage[order] >= 0]
        if not len(order):
            return
        same = stage[order[1:]] == stage[order[:-1]]
        live[order[:-1][same], state_kernel.AFTER] = order[1:][same]
        live[order[1:][same], state_kernel.BEFORE] = order[:-1][same]
        first = np.concatenate([[True], ~same])
        heads[stage[order[first]]] = order[first]

    def _sum_up(self, kept: Integers, live: Integers) -> None:
        """Fills in the bytes of each stage."""
        s, n = self.state, len(self.problem.nodes)
        change = np.zeros(n + 3, np.int64)
        size = s.size[kept[:, VALUE]]
        np.add.at(change, live[kept[:, PREV], STAGE] + 1, size)
        np.add.at(change, kept[:, STAGE], -size)
        s.need[:] = np.cumsum(change)[: n + 1]
        locals_ = s.cells[s.offset[state_kernel.LOCALS] : s.offset[state_kernel.LOCALS] + n + 1]
        fill_locals(s, self.scratch)
        s.need[:] += locals_
        s.totals[state_kernel.OVER] = np.maximum(s.need - s.limit[0], 0).sum()


def _permuted(start: Integers, entries: Integers, order: Integers) -> tuple[Integers, Integers]:
    """Returns ranges in another order of their owners."""
    lengths = np.diff(start)[order]
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    at = np.arange(ends[-1], dtype=np.int64) - np.repeat(ends[:-1], lengths) + np.repeat(start[:-1][order], lengths)
    return ends, np.ascontiguousarray(entries[at])
