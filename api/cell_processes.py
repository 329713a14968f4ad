"""Workers for cells (cells.py) that are processes of this machine; one that is lost is replaced."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

from memplan.cells import LostWorkerError, answer
from memplan.compiler import child_process
from memplan.planners.planner import CORES, num_cores


class ProcessWorkers:
    """Processes, each of which does one cell at a time.

    Args:
      work: of the cells, `package.module:function`.
      number: of processes.
      environment: variables of theirs besides those of this process.
    """

    def __init__(self, work: str, number: int, environment: Mapping[str, str] | None = None):
        self._work, self._number, self._environment = work, number, dict(environment or {})
        self._idle: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._threads = ThreadPoolExecutor(number)
        self._is_closed = False

    def __enter__(self) -> ProcessWorkers:
        try:
            for _ in range(self._number):
                self._idle.put(self._started())
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pids(self) -> list[int]:
        """Process numbers of the workers."""
        return [process.pid for process in self._processes]

    def capacity(self) -> int:
        """Returns the number of processes."""
        return self._number

    def submit(self, request: Any) -> Future[tuple[Any, str]]:
        """Hands a request to the next process that is idle."""
        return self._threads.submit(self._ask, request)

    def close(self) -> None:
        """Ends the processes, also those that work."""
        self._is_closed = True
        for process in list(self._processes):
            process.kill()
        self._threads.shutdown(cancel_futures=True)
        for process in self._processes:
            process.kill()  # again, for one that replaced another meanwhile
            process.wait()

    def _started(self) -> subprocess.Popen[bytes]:
        process = child_process.start(__name__, self._work, environment=self._environment)
        self._processes.add(process)
        return process

    def _ask(self, request: Any) -> tuple[Any, str]:
        process = self._idle.get()
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            pickle.dump(request, process.stdin)
            process.stdin.flush()
            told: tuple[Any, str] = pickle.load(process.stdout)
        except (OSError, EOFError, pickle.UnpicklingError):
            process.kill()
            ended = process.wait()
            self._processes.discard(process)
            if not self._is_closed:
                process = self._started()
            raise LostWorkerError(f"its process ended with {_name_of(ended)}") from None
        finally:
            self._idle.put(process)
        return told


def sharing_cores(work: str, cells: int, number: int | None = None) -> ProcessWorkers:
    """Returns workers for so many cells, `number` of them or one for each core, whose planners share the cores."""
    chosen = min(number or num_cores(), cells)
    return ProcessWorkers(work, chosen, {CORES: str(max(1, num_cores() // chosen))})


def _name_of(ended: int) -> str:
    """Returns the words for how a process ended, a signal's number being negative."""
    with suppress(ValueError):
        if ended < 0:
            return signal.Signals(-ended).name
    return f"status {ended}"


def main(arguments: Sequence[str]) -> None:
    """Does the work that the first argument names, for each request on standard input."""
    (work,) = arguments
    # What a library prints shall not stand among the answers.
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)
        while True:
            try:
                request = pickle.load(sys.stdin.buffer)
            except EOFError:
                return
            pickle.dump(answer(work, request), answers)
            answers.flush()
