"""Modules as XLA dumps them: the text that it compiled a program to, and the memory that it assigned to it.

With `xla_dump_to` set, XLA writes both beside each other, for a CPU and for a TPU. XLA:TPU writes them also for a
program that it then refuses because the memory is too small.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from memplan.compiler import limits
from memplan.compiler.analysis.buffer_assignment import BufferAssignment, read_buffer_assignment
from memplan.compiler.errors import MemplanError
from memplan.compiler.files import read_bytes
from memplan.compiler.frontends.reader import read
from memplan.compiler.ir import Graph

# How the names of files end: the final text of a module, the report on that text, and both as an HloProto.
TEXT, REPORT, PROTO = ".txt", "-buffer-assignment.txt", ".hlo.pb"


@dataclass(frozen=True)
class DumpedModule:
    """A compiled program.

    Attributes:
      graph: its module, scheduled.
      assignment: the memory that XLA gives to it.
      proto: both as a serialized HloProto; b"" if it was not asked for.
      refused: why the compiler refused it after that; "" if it did not.
    """

    graph: Graph
    assignment: BufferAssignment
    proto: bytes
    refused: str = ""


def dump_options(folder: str, with_proto: bool) -> dict[str, str | bool]:
    """Returns the options of XLA that make it write the text and the report, and the proto if it is asked for."""
    return {"xla_dump_to": folder, "xla_dump_hlo_as_text": True, "xla_dump_hlo_as_proto": with_proto}


def read_dumped(folder: Path, refused: str = "") -> DumpedModule:
    """Returns the largest module in a folder of dumps: others that JAX compiles on the way, for constants, are smaller.

    Raises:
      MemplanError: there is none.
    """
    reports = sorted(folder.glob(f"*after_optimizations{REPORT}"), key=lambda file: file.stat().st_size)
    if not reports:
        raise MemplanError("XLA left no report on its memory")
    report = reports[-1]
    both = report.with_name(report.name.removesuffix(REPORT) + PROTO)
    proto = read_bytes(both, limits.PROGRAM) if both.exists() else b""
    return DumpedModule(read(module_of_report(report)), read_buffer_assignment(report), proto, refused)


def module_of_report(report: Path) -> Path:
    """Returns where the module is that a report of XLA's buffer assignment is about."""
    return report.with_name(report.name.removesuffix(REPORT) + TEXT)


def report_of_module(module: Path) -> Path:
    """Returns where XLA would put the report of its buffer assignment for a module."""
    return module.with_name(module.name.removesuffix(TEXT) + REPORT)
