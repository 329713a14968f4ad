"""`memplan peak`: what stands at the peak of a program's memory, from which line, and what being rid of it is worth."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from memplan.cli.arguments import AsJson, Dims, TripCounts

if TYPE_CHECKING:
    from memplan.cli.bindings import Bindings
    from memplan.cli.console import Stages
    from memplan.compiler.analysis.buffer_assignment import BufferAssignment
    from memplan.compiler.hardware.target import Target
    from memplan.compiler.ir import Graph


class Grouping(StrEnum):
    """As `GroupBy` of compiler/report/buffers.py, which is too slow to import for a help text."""

    LINE = "line"
    OP = "op"
    SHAPE = "shape"
    LAYER = "layer"


_Name = Annotated[
    str,
    typer.Argument(
        metavar="DUMP|PROGRAM",
        show_default=False,
        help="A scheduled module (HLO as text or proto, also gzipped; - for standard input), XLA's report "
        "…-buffer-assignment.txt beside one, a workload, or module:function, which takes nothing and returns "
        "(fun, args), a JAX function and its arguments.",
    ),
]
_Target = Annotated[
    str | None,
    typer.Option(
        "--target",
        "-t",
        metavar="T",
        show_default=False,
        help="Name of a target, or a TOML file that describes one. A JAX program is compiled for it ahead of time if "
        "it is a TPU, else for the CPU of this machine.",
    ),
]
_Limit = Annotated[
    str | None,
    typer.Option(
        "--limit",
        metavar="SIZE",
        show_default=False,
        help="Bytes of the main memory, such as 16GiB; by default what the target has, if it is known.",
    ),
]
_Assignment = Annotated[
    Path | None,
    typer.Option(
        "--assignment",
        metavar="FILE",
        show_default=False,
        help="XLA's report …-buffer-assignment.txt on the module; by default the one beside it, if there is one.",
    ),
]
_XProf = Annotated[
    Path | None,
    typer.Option(
        "--xprof",
        metavar="DIR",
        show_default=False,
        help="Write a log folder whose memory viewer `xprof --logdir DIR` opens. A dump has to be XLA's "
        "…after_optimizations.hlo.pb, which holds the buffer assignment.",
    ),
]


def command(
    program: _Name,
    target: _Target = None,
    limit: _Limit = None,
    by: Annotated[Grouping, typer.Option("--by", help="What the buffers of a row have in common.")] = Grouping.LAYER,
    assignment: _Assignment = None,
    xprof: _XProf = None,
    json: AsJson = False,
    trip_count: TripCounts = None,
    dim: Dims = None,
) -> None:
    """Show what stands at the peak of each memory, and what being rid of it is worth.

    The exit status is 1 if the program does not fit into the limit: the report is the same.
    """
    import json as json_module

    from memplan.backends.fit.limit import limit_of
    from memplan.backends.xprof import read_hlo_proto, write_xprof
    from memplan.cli import console
    from memplan.cli.bindings import Bindings
    from memplan.cli.console import Stages, note
    from memplan.cli.exit_status import ExitStatus
    from memplan.cli.outputs import check_folder
    from memplan.compiler.errors import MemplanError
    from memplan.compiler.hardware.guess import ANY_TARGET
    from memplan.compiler.report.buffers import GroupBy
    from memplan.compiler.report.peak import find_peak
    from memplan.compiler.report.peak_schema import peak_json
    from memplan.compiler.report.peak_tables import print_peak
    from memplan.compiler.report.stated import statement_of

    wanted = None if limit is None else limit_of(limit)
    bindings = Bindings.of(trip_count, dim)
    check_folder(xprof)
    given = read_hlo_proto(Path(program)) if xprof is not None and is_file(program) else b""
    with Stages(total=2, quiet=json) as stages:
        graph, described, report, proto = module_of(
            program, target, assignment, bindings, stages, with_proto=xprof is not None
        )
        if wanted is None and (target is not None or described.name != ANY_TARGET):
            wanted = described.spaces[described.home].capacity
        with stages.stage("finding the peak"):
            peak = find_peak(
                graph,
                described,
                by=GroupBy(by.value),
                limit=wanted,
                statement=None if report is None else statement_of(report),
                # XLA has tables of tuples, except on TPUs.
                pointer_bytes=0 if report is None or described.name.startswith("tpu") else 8,
            )
        if xprof is not None:
            if not (proto := given or proto):
                raise MemplanError("XLA left no proto of the module, which XProf needs")
            write_xprof(xprof, proto)
    if json:
        console.write(json_module.dumps(peak_json(peak), indent=2))
    else:
        console.show(lambda terminal: print_peak(peak, terminal))
    if xprof is not None:
        note(f"`xprof --logdir {xprof}` shows what XLA assigned, in its memory viewer")
    if not peak.fits:
        how = "" if is_file(program) else ": `memplan fit` looks for the cheapest way to make it fit"
        note(f"{program} does not fit{how}")
        raise typer.Exit(ExitStatus.NO)


def is_file(program: str) -> bool:
    """Whether what a user names is a file rather than a JAX program: it is there, or has the name of one."""
    path = Path(program)
    return program == "-" or path.exists() or len(path.parts) > 1 or bool(path.suffix and ":" not in program)


def module_of(
    program: str,
    target: str | None,
    assignment: Path | None,
    bindings: Bindings,
    stages: Stages,
    with_proto: bool = False,
) -> tuple[Graph, Target, BufferAssignment | None, bytes]:
    """Returns the module of a dump, or of a JAX program, its target, and what XLA reports of its memory if it does.

    The last is the HloProto of a program that was compiled here; b"" for a dump, or if it is not asked for.

    Args:
      program: as the user named it.
      target: as the user named it; None for what the dump was compiled for, or for the CPU.
      assignment: XLA's report on a dump; None for the one beside it, if there is one.
      bindings: trip counts and dimensions.
      stages: of the command; this is one of them.
      with_proto: whether the HloProto is wanted.
    """
    if is_file(program):
        return _read(Path(program), target, assignment, bindings, stages)
    return _compiled(program, target, stages, with_proto)


def _read(
    path: Path, target: str | None, assignment: Path | None, bindings: Bindings, stages: Stages
) -> tuple[Graph, Target, BufferAssignment | None, bytes]:
    """Reads a module, and what XLA reports of its memory if that is there."""
    from memplan.backends.dumped import REPORT, module_of_report, report_of_module
    from memplan.cli.dumps import read_dump, target_for
    from memplan.compiler.analysis.buffer_assignment import read_buffer_assignment
    from memplan.compiler.errors import MemplanError

    if path.name.endswith(REPORT):
        path, assignment = module_of_report(path), path
        if not path.exists():
            raise MemplanError(f"{assignment}: the module {path.name}, which it is about, is not beside it")
    elif assignment is None and (beside := report_of_module(path)) != path and beside.exists():
        assignment = beside
    report = None if assignment is None else read_buffer_assignment(assignment)
    graph = read_dump(path, stages, bindings)
    return graph, target_for(graph, target), report, b""


def _compiled(
    program: str, target: str | None, stages: Stages, with_proto: bool
) -> tuple[Graph, Target, BufferAssignment, bytes]:
    """Compiles a JAX program for a TPU, or for the CPU of this machine; says so if the compiler refused it."""
    from memplan.cli.console import note
    from memplan.cli.programs import find_program, lower_for_tpu, prepare_jax
    from memplan.compiler.hardware.guess import ANY_TARGET, in_any_memory
    from memplan.compiler.hardware.target import load_target

    prepare_jax()
    described = load_target(ANY_TARGET if target is None else target)
    with stages.stage(f"compiling {program}"):
        found = find_program(program)
        if described.name.startswith("tpu"):
            from memplan.backends.tpu.dumped import compile_for_tpu

            module = compile_for_tpu(lower_for_tpu(found), described, with_proto)
        else:
            from memplan.backends.cpu import compile_for_cpu

            note(f"compiled by XLA for the CPU of this machine; times are those of {described.name}")
            if target is None:
                described = in_any_memory(described)
            module = compile_for_cpu(found.fun, found.args, found.donate_argnums, with_proto=with_proto)
    if module.refused:
        note(module.refused)
    return module.graph, described, module.assignment, module.proto
