"""Finds the fastest of several compiled programs by running them."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import jax

# Runs something to its end and returns the seconds that it took.
Timer = Callable[[Callable[[], Any]], float]

REPETITIONS = 7


def wall_clock(run: Callable[[], Any]) -> float:
    """Seconds until everything that `run` returns has been computed."""
    begin = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - begin


def median_seconds(
    programs: Sequence[Callable[..., Any]],
    arguments: Callable[[], tuple[tuple[Any, ...], dict[str, Any]]],
    timer: Timer = wall_clock,
    repetitions: int = REPETITIONS,
) -> list[float]:
    """Returns for each program the median seconds of a run.

    The programs take turns, so that a machine that becomes slower or faster does so for all of them. The first turn is
    not counted.

    Args:
      programs: compiled already.
      arguments: makes `(args, kwargs)` for one run, which the run may consume.
      timer: times one run.
      repetitions: counted runs of each program.
    """
    seconds: list[list[float]] = [[] for _ in programs]
    for turn in range(repetitions + 1):
        for number, program in enumerate(programs):
            args, kwargs = jax.block_until_ready(arguments())
            measured = timer(functools.partial(program, *args, **kwargs))
            if turn > 0:
                seconds[number].append(measured)
    return [median(measured) for measured in seconds]
