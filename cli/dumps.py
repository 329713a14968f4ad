"""Programs that a command reads from a file, and the target that they are planned for."""

from __future__ import annotations

from pathlib import Path

from memplan.cli.bindings import Bindings
from memplan.cli.console import Stages, note
from memplan.compiler.errors import MemplanError
from memplan.compiler.frontends.reader import read
from memplan.compiler.hardware.guess import guess_target, guessed_target
from memplan.compiler.hardware.target import Target, known_target, load_target
from memplan.compiler.ir import Graph
from memplan.compiler.mapping.build import BuiltProblem, build
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.verify import check_belongs


def read_dump(dump: Path, stages: Stages, bindings: Bindings) -> Graph:
    """Reads a program as the next stage of a command; see `read_program`."""
    with stages.stage(f"reading {dump.name}"):
        return read_program(dump, bindings)


def read_program(dump: Path, bindings: Bindings) -> Graph:
    """Returns the program of a file, and prints the warnings of its reader, each once."""
    graph = read(dump, dims=bindings.dims, trip_counts=bindings.trip_counts)
    for warning in dict.fromkeys(graph.warnings):
        note(f"warning: {warning}")
    return graph


def target_for(graph: Graph, target: str | None) -> Target:
    """Returns the target of a name; without one, that which the program was compiled for, and says so."""
    if target is None:
        guess = guess_target(graph)
        described = guessed_target(graph)
        note(f"planning for {guess.name}, since {guess.reason} (--target chooses another)")
        return described
    return load_target(target)


def built_of(
    plan: Plan, plan_file: Path, dump: Path, target: str | None, bindings: Bindings, stages: Stages
) -> BuiltProblem:
    """Returns the problem that a plan is for, made from the program's file.

    Raises:
      PlanError: the plan is for another program or target; the message names the plan's file.
    """
    graph = read_dump(dump, stages, bindings)
    described = load_target(target) if target is not None else known_target(plan.target)
    with stages.stage("building the problem"):
        built = build(graph, described)
    try:
        check_belongs(built.problem, plan)
    except MemplanError as error:
        raise type(error)(f"{plan_file}: {error}") from None
    return built
