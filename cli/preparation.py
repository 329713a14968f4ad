"""What a command compiles before its work, and the line that says so."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from memplan.cli.console import Stages, note
from memplan.compiler.kernels import alone, telling_of_compiles


def prepare_with(prepare: Callable[[], None], stages: Stages) -> None:
    """Compiles what is not in the cache, as a stage; says so if there is something to compile.

    Of several commands that begin at once, one compiles, and the others wait for what it keeps.
    """
    with ExitStack() as others_wait:

        def begin() -> None:
            note("compiling inner loops: once after an installation, about a minute")
            others_wait.enter_context(alone())

        with stages.stage("compiling inner loops"), telling_of_compiles(begin):
            prepare()
