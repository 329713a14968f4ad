"""`memplan bench fidelity`: how well the cost model predicts the compiler's own estimates.

The dumps hold every program twice, with and without a fast memory: the same instructions in other placements, each with
the compiler's estimate; with `--compile` there are more variants of the programs that compile fast, as a planner makes
them (`backends/tpu/variants.py`). The model is made to agree with one module and must predict another, instruction by
instruction, and summed up over the module. What instructions wait for copies is no matter of the cost model, and left
out on both sides.

Of instructions each direction is told by itself: all that leaves a fast memory takes longer, all that enters one takes
less, so both at once would correlate well by their signs alone, and their errors in total would cancel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import permutations
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.table import Table

from memplan.backends.tpu.compile import CompileError, TpuCompiler
from memplan.backends.tpu.decisions import Placement
from memplan.backends.tpu.devices import TOPOLOGY_OF_TARGET
from memplan.backends.tpu.steering import sites
from memplan.backends.tpu.variants import CHEAP, variants
from memplan.cli.arguments import JsonFile, Markdown
from memplan.cli.bench.results import write_bench
from memplan.cli.bench.rows import markdown_of, table_of
from memplan.cli.console import Stages, note, show, write
from memplan.cli.outputs import check_file
from memplan.cli.programs import find_program, lower_for_tpu
from memplan.compiler.emulator.score import score
from memplan.compiler.errors import MemplanError
from memplan.compiler.frontends.reader import read
from memplan.compiler.hardware.fidelity import Pair, fidelity, observe, pairs_of
from memplan.compiler.hardware.target import Target, load_target
from memplan.compiler.ir import Graph
from memplan.compiler.ir.opcodes import ASYNCHRONOUS_COPIES
from memplan.compiler.mapping.build import build

VARIANTS = ("default", "slow")

# Copies that go on beside instructions: `emulator/score.py` has them on their links, not among what is busy.
_LEFT_OUT = frozenset(f"{copy}-{end}" for copy in ASYNCHRONOUS_COPIES for end in ("start", "done"))

# Of instructions, what is predicted from one compiled variant to another, unless it is one of the two above.
_OTHERS = "others"

Row = dict[str, Any]
Modules = dict[str, Graph]


def command(
    targets: Annotated[
        str | None, typer.Option(metavar="T,T,…", show_default=False, help="TPUs. By default all with dumps.")
    ] = None,
    compiles: Annotated[
        bool, typer.Option("--compile", help="Compile more variants of the programs that compile fast; needs libtpu.")
    ] = False,
    markdown: Markdown = False,
    json_file: JsonFile = None,
) -> None:
    """How well the cost model predicts the compiler's estimates.

    Made to agree with one of several modules of a program, it must predict the others, in other placements.
    """
    check_file(json_file)
    described = None if targets is None else [load_target(name.strip()) for name in targets.split(",")]
    programs = _dumps(described)
    rows: list[Row] = []
    pairs: dict[str, dict[str, list[Pair]]] = {}

    def compare(name: str, target: Target, found: Modules) -> None:
        seen = {variant: observe(graph, target) for variant, graph in found.items()}
        for first, second in permutations(seen, 2):
            direction = first if {first, second} == set(VARIANTS) else _OTHERS
            pairs.setdefault(target.name, {}).setdefault(direction, []).extend(pairs_of(seen[first], seen[second]))
        rows.extend(module_rows(name, target, found))

    with Stages(total=len(programs)) as stages:
        for name, target_name, files in programs:
            with stages.stage(f"{name} for {target_name}"):
                found = {variant: read(file) for variant, file in zip(VARIANTS, files, strict=True)}
                compare(name, load_target(target_name), found)
    if compiles:
        chosen = described or [load_target(name) for name in TOPOLOGY_OF_TARGET]
        for target in chosen:
            if target.name not in TOPOLOGY_OF_TARGET:
                raise MemplanError(f"no compiler is known for {target.name}")
        with Stages(total=len(CHEAP) * len(chosen)) as stages, TpuCompiler() as compiler:
            for name in CHEAP:
                module = lower_for_tpu(find_program(name))
                for target in chosen:
                    with stages.stage(f"{name} for {target.name}"):
                        try:
                            found = dict(variants(module, target, compiler, 1, note))
                        except CompileError as error:
                            note(f"{name} for {target.name}: {error}")
                        else:
                            compare(f"{name}, compiled", target, found)
    summary = {
        target: summarize([row for row in rows if row["target"] == target], pairs[target], load_target(target))
        for target in pairs
    }
    if markdown:
        write("\n\n".join(markdown_of(columns, lines, _TEXT_COLUMNS) for columns, lines in _tables(summary)))
    else:
        show(lambda terminal: terminal.print(Group(*_printed(summary))))
    write_bench(json_file, "fidelity", rows, summary)


def _dumps(targets: Sequence[Target] | None) -> list[tuple[str, str, tuple[Path, Path]]]:
    """Returns program, target and files of all pairs of dumps, for the targets asked for."""
    from memplan import workloads

    folder = workloads.dumps_folder()
    wanted = None if targets is None else [target.name for target in targets]
    found = []
    for file in sorted(folder.glob(f"*.{VARIANTS[0]}.hlo.txt.gz")):
        name, target, *_ = file.name.split(".")
        other = folder / file.name.replace(f".{VARIANTS[0]}.", f".{VARIANTS[1]}.")
        if other.exists() and (wanted is None or target in wanted):
            found.append((name, target, (file, other)))
    if not found:
        asked = "any target" if wanted is None else ",".join(wanted)
        raise MemplanError(f"no pair of dumps is shipped for {asked}")
    return found


def module_rows(name: str, target: Target, modules: Modules) -> Iterator[Row]:
    """Yields, for every two modules of a program, what one's model predicts for the placement of the other.

    In seconds. Modules in which nothing is placed otherwise are not compared.
    """
    stated = {variant: score(graph, target).busy for variant, graph in modules.items()}
    for first, second in permutations(modules, 2):
        if _placement(modules[first]) != _placement(modules[second]):
            yield {
                "program": name,
                "target": target.name,
                "from": first,
                "to": second,
                "stated": stated[second],
                "predicted": predicted_busy(modules[first], modules[second], target),
            }


def _placement(graph: Graph) -> dict[str, tuple[int, ...]]:
    """Returns in which memory each instruction's results are."""
    return {
        instruction.name: tuple(leaf.memory_space for _, leaf in instruction.shape.leaves())
        for _, instruction in graph.instructions()
    }


def predicted_busy(graph: Graph, other: Graph, target: Target) -> float:
    """Returns the seconds that instructions take by a module's model, in the placement of another of its program.

    An access that the other module has not stays where it is. Asynchronous copies that `build` could not take out of
    the program, such as a prefetch of a part of a buffer, are left out as `score` leaves them out: they are copies of
    the one module only.
    """
    built = build(graph, target)
    problem, given = built.problem, built.problem.given
    assert given is not None
    placement = Placement(other, target)
    spaces = []
    for site, residency in zip(sites(built), given.served, strict=True):
        found = placement.of(site)
        spaces.append(found.space if found and found.space >= 0 else given.residencies[residency].space)
    starts = problem.access_start
    return sum(
        operation.duration(spaces[starts[t] : starts[t + 1]]) * problem.runs_at(t)
        for t, operation in enumerate(problem.operations)
        if operation.opcode not in _LEFT_OUT
    )


def summarize(rows: Sequence[Row], pairs: Mapping[str, Sequence[Pair]], target: Target) -> Row:
    """Returns what `fidelity.Fidelity` has of the instructions in each direction, and the errors of modules.

    Args:
      rows: of one target, from `module_rows`.
      pairs: instructions of all its programs, by the variant that the model agrees with.
      target: itself.
    """
    errors = sorted(
        (abs(row["predicted"] / row["stated"] - 1.0), row["program"], row["from"], row["to"]) for row in rows
    )
    return {
        "instructions": {variant: asdict(fidelity(ordered, target)) for variant, ordered in pairs.items()},
        "modules": {
            "pairs": len({row["program"] for row in rows}),
            "median": errors[len(errors) // 2][0],
            "worst": errors[-1][0],
            "worst_program": errors[-1][1],
            "worst_from": errors[-1][2],
            "worst_to": errors[-1][3],
        },
    }


Cells = tuple[str, ...]

_INSTRUCTIONS = ("target", "predicted", "instructions", "median", "95 %", "total", "rank correlation")
_MODULES = ("target", "pairs", "median", "worst", "which is")


def _tables(summary: dict[str, Row]) -> Iterator[tuple[Cells, list[Cells]]]:
    """Yields columns and lines of the table of instructions and of that of modules."""
    yield (
        _INSTRUCTIONS,
        [
            (
                target,
                _direction(variant),
                f"{found['count']:,}",
                f"{found['median'] * 100:.1f} %",
                f"{found['high'] * 100:.0f} %",
                f"{found['total']:.3f}",
                f"{found['rank_correlation']:.3f}",
            )
            for target, values in summary.items()
            for variant, found in values["instructions"].items()
        ],
    )
    yield (
        _MODULES,
        [
            (
                target,
                str(found["pairs"]),
                f"{found['median'] * 100:.1f} %",
                f"{found['worst'] * 100:.1f} %",
                f"{found['worst_program']}, {found['worst_from']} to {found['worst_to']}",
            )
            for target, values in summary.items()
            for found in (values["modules"],)
        ],
    )


def _direction(variant: str) -> str:
    """Returns what is predicted from what.

    >>> _direction("slow")
    'slow to default'
    """
    if variant == _OTHERS:
        return "between others"
    return f"{variant} to {VARIANTS[1 - VARIANTS.index(variant)]}"


_TEXT_COLUMNS = frozenset({"target", "predicted", "which is"})


def _printed(summary: dict[str, Row]) -> Iterator[Table | str]:
    """Yields the tables, with an empty line between them."""
    for number, (columns, lines) in enumerate(_tables(summary)):
        if number:
            yield ""
        yield table_of(columns, lines, _TEXT_COLUMNS)
