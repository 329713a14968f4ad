"""Workers for cells (cells.py) on a Ray cluster: one task a cell, each on one core."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Future
from functools import cache
from typing import Any

from memplan import __version__
from memplan.cells import LostWorkerError, answer
from memplan.compiler.cache import sources_digest
from memplan.compiler.errors import MemplanError, one_line

# The address that starts a cluster of this machine, for as long as the work takes.
LOCAL = "local"

# What all machines of a cluster must have alike.
PACKAGES = tuple(f"memplan.{name}" for name in ("compiler", "passes", "planners", "rl_agent"))


class ClusterWorkers:
    """Tasks of a Ray cluster. Ray itself repeats none: `cells.run` does, and counts.

    Args:
      work: of the cells, `package.module:function`.
      address: of the cluster as `ray.init` takes it, such as `auto` or `ray://HOST:10001`; `local` starts one.
      processes: that the cluster of this machine may have, one for each core by default.

    Raises:
      MemplanError: Ray is not installed, or there is no such cluster.
    """

    def __init__(self, work: str, address: str, processes: int | None = None):
        # A cluster that a command starts by itself shall tell nobody of it.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError:
            raise MemplanError("Ray is not installed: pip install 'memplan[ray]'") from None
        own = {"num_cpus": processes, "include_dashboard": False} if address == LOCAL else {}
        try:
            ray.init(address=address, log_to_driver=False, logging_level="error", configure_logging=True, **own)
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            raise MemplanError(f"--ray {address}: {one_line(error)}") from None
        self._ray, self._work = ray, work
        self._task = ray.remote(num_cpus=1, max_retries=0)(_work_here)

    def __enter__(self) -> ClusterWorkers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def capacity(self) -> int:
        """Returns twice the cores that the cluster has now: what waits lets a cluster grow that can."""
        return max(2, 2 * int(self._ray.cluster_resources().get("CPU", 0)))

    def submit(self, request: Any) -> Future[tuple[Any, str]]:
        """Hands a request to the next core that is idle."""
        told: Future[tuple[Any, str]] = Future()

        def tell(done: Future[tuple[Any, str]]) -> None:
            error = done.exception()
            if error is None:
                told.set_result(done.result())
            else:
                told.set_exception(LostWorkerError(one_line(error)))

        self._task.remote(self._work, _version(), request).future().add_done_callback(tell)
        return told

    def close(self) -> None:
        """Leaves the cluster; one that was started here ends."""
        self._ray.shutdown()


def _work_here(work: str, version: Sequence[str], request: Any) -> tuple[Any, str]:
    """Does the work of a cell in a process of the cluster."""
    os.environ.setdefault("MEMPLAN_CORES", "1")
    if _version() != version:
        return None, f"a machine of the cluster has another memplan, {__version__}: install the same on all"
    return answer(work, request)


@cache
def _version() -> tuple[str, str]:
    return __version__, sources_digest(PACKAGES)
