"""What a command compiles before its work, and the line that says so."""

from __future__ import annotations

from collections.abc import Callable

from memplan.cli.console import Stages, note
from memplan.compiler.kernels import telling_of_compiles


def prepare_with(prepare: Callable[[], None], stages: Stages) -> None:
    """Compiles what is not in the cache, as a stage; says so if there is something to compile."""
    message = "compiling inner loops: once after an installation, about a minute"
    with stages.stage("compiling inner loops"), telling_of_compiles(lambda: note(message)):
        prepare()
