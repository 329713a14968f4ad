"""Everything that turns a program into a Graph. Each function loads its frontend when it is first called."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from memplan.compiler.ir.graph import Graph

__all__ = ["parse_hlo", "read"]


def read(path: str | Path) -> Graph:
    """Returns the program in a file: HLO text or proto, StableHLO, jax.export or .tflite, plain or gzipped."""
    from memplan.compiler.frontends.reader import read as read_file

    return read_file(path)


def parse_hlo(text: str, file: str = "<string>") -> Graph:
    """Returns the Graph of HLO text; instructions of a module that is not scheduled keep the order of the text."""
    from memplan.compiler.frontends.hlo_text import parse

    return parse(text, file)
