"""A planner in a process of its own, and what runs in that process.

A portfolio runs its members beside each other, one to a core. They are processes rather than threads because planners
are written in Python. They are started by name rather than forked, because the caller may have threads, as JAX does,
and a script without a main guard must not run twice.

The process reads two lines of JSON, the request and the problem. It answers with a line for each better plan, and with
one at the end that has the error, empty if there was none:

    {"plan": {…}}     {"plan": {…}}     {"done": ""}

It ends when its standard input is closed.
"""

from __future__ import annotations

import gc
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any

from memplan.compiler import child_process
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.planners import planner as planners
from memplan.planners.planner import Budget, Effort


@dataclass(frozen=True)
class News:
    """A message of a member.

    Attributes:
      member: that sent it.
      plan: a better plan; None if the member has ended.
      error: why it ended, if it failed.
    """

    member: Member
    plan: Plan | None
    error: str = ""


class Member:
    """A planner that runs in a process of its own, until it is done or stopped.

    Args:
      planner: name of the planner.
      problem: to be answered.
      budget: effort, seed, time limit, and what is known; starting the process is part of the time.
      news: queue for its plans as they come, and for the message that it has ended.
    """

    def __init__(self, planner: str, problem: MappingProblem, budget: Budget, news: queue.SimpleQueue[News]):
        self.planner, self.entry = planner, (planner, budget.seed)
        self._news = news
        self._process = child_process.start(__name__)
        request = {
            "planner": planner,
            "effort": budget.effort.value,
            "seed": budget.seed,
            # All processes of a machine read the same monotonic clock: starting up takes about a second.
            "until": None if budget.time_limit is None else time.monotonic() + budget.time_limit,
            "known": None if budget.known is None else budget.known.to_dict(),
        }
        threading.Thread(target=self._talk, args=(json.dumps(request), problem), daemon=True).start()

    def _talk(self, request: str, problem: MappingProblem) -> None:
        error = "its process ended without a word"
        try:
            stdin, stdout = self._process.stdin, self._process.stdout
            assert stdin is not None
            assert stdout is not None
            stdin.write(f"{request}\n{problem.to_json()}\n".encode())
            stdin.flush()
            for line in stdout:
                told = json.loads(line)
                if "done" in told:
                    error = told["done"]
                else:
                    self._news.put(News(self, Plan.from_dict(told["plan"], self.planner)))
        except (OSError, ValueError):
            pass  # It was stopped, in the middle of a line perhaps.
        self._news.put(News(self, None, error))

    def stop(self) -> None:
        """Ends the process, if it has not ended."""
        self._process.kill()
        self._process.wait()


def _end_with(stream: IO[str]) -> None:
    """Ends this process when its standard input is closed."""
    stream.read()
    os._exit(1)


def main(arguments: Sequence[str]) -> None:
    """Answers one request."""
    request = json.loads(sys.stdin.readline())
    problem = MappingProblem.from_json(sys.stdin.readline())
    threading.Thread(target=_end_with, args=(sys.stdin,), daemon=True).start()

    def tell(message: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()

    def tell_plan(plan: Plan) -> None:
        tell({"plan": plan.to_dict()})

    try:
        chosen = planners.get(request["planner"])
        chosen.prepare()
        known = None if request["known"] is None else Plan.from_dict(request["known"], "what is known")
        limit = None if request["until"] is None else max(0.0, request["until"] - time.monotonic())
        gc.freeze()  # The problem stays, and collections need not walk it.
        budget = Budget(Effort(request["effort"]), request["seed"], limit, tell_plan, known)
        tell_plan(chosen.unverified(problem, budget))
    except Exception as error:
        tell({"done": f"{type(error).__name__}: {error}"})
    else:
        tell({"done": ""})
