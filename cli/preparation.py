"""What a command compiles before its work, and the line that says so."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack

from memplan.cli.console import Stages, note
from memplan.compiler.kernels import alone, telling_of_compiles


def main() -> None:
    """Compiles all that the default planner needs, so that the first plan does not wait for it."""
    from memplan.planners import planner as planners

    with Stages(total=1) as stages:
        prepare_with(planners.get(planners.DEFAULT_PLANNER).prepare, stages)


def prepare_with(prepare: Callable[[], None], stages: Stages) -> float:
    """Compiles what is not in the cache, as a stage; says so if there is something to compile.

    Returns the seconds that this took if there was something to compile, which no time limit covers; 0 if not.

    Of several commands that begin at once, one compiles, and the others wait for what it keeps.
    """
    with ExitStack() as others_wait:
        started = time.monotonic()
        compiled = False

        def begin() -> None:
            nonlocal compiled
            compiled = True
            note("compiling inner loops: once after an installation, about a minute")
            others_wait.enter_context(alone())

        with stages.stage("compiling inner loops"), telling_of_compiles(begin):
            prepare()
        return time.monotonic() - started if compiled else 0.0


if __name__ == "__main__":
    main()
