"""The readers that are fuzzed: what their inputs are made from, and what a try does with one.

A try reads an input. What is accepted is used as its owner would use it: printed and read again, and made a problem of.
A `MemplanError` is a refusal, any other exception a fault.
"""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import fuzzed_checkpoint
import fuzzed_stablehlo
from hlo_examination import difference
from hlo_splices import Pool, pool_of, spliced_module
from literal_problems import loop, plan, problem
from mutations import mutated_proto, mutated_text

from memplan.compiler.analysis.buffer_assignment import parse_buffer_assignment
from memplan.compiler.errors import MemplanError, ParseError
from memplan.compiler.frontends import hlo_proto, hlo_text, stablehlo
from memplan.compiler.hardware.target import Target, load_target, parse_target
from memplan.compiler.ir import Graph
from memplan.compiler.ir.memory_order import scheduled
from memplan.compiler.ir.names import with_legal_names
from memplan.compiler.ir.printer import print_graph
from memplan.compiler.mapping.build import build_problem
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.mapping.verify import verify
from memplan.planners.offsets.bounds import lower_bound
from memplan.planners.offsets.csv_file import parse_instance
from memplan.planners.planner import Budget
from memplan.planners.slow import PLANNER as SLOW

ROOT = Path(__file__).parents[2]
FRONTENDS = ROOT / "tests/compiler/frontends/data"
HLO = ROOT / "tests/data/hlo"
TARGETS = ROOT / "compiler/hardware/targets"
PACKING = ROOT / "workloads/packing"

Make = Callable[[random.Random], bytes]


class NotReadBack(Exception):
    """What is printed of an input that was accepted is refused, or is not the same."""


@dataclass(frozen=True)
class FuzzedReader:
    """A reader under test.

    Attributes:
      make: returns an input.
      read: reads it; raises MemplanError if it is refused.
    """

    make: Make
    read: Callable[[bytes], None]


def input_of(name: str, seed: int, number: int) -> bytes:
    """Returns the input of a try, by the name of the reader, the seed of the run and the number of the try."""
    return READERS[name].make(random.Random(f"{name}/{seed}/{number}"))


def _content(file: Path) -> bytes:
    content = file.read_bytes()
    return gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content


# ---- HLO


@cache
def _hlo_texts() -> list[str]:
    files = [FRONTENDS / "every_opcode.hlo", *HLO.glob("*optimizations.txt"), *FRONTENDS.glob("*.txt.gz")]
    own = sorted((Path(__file__).parent / "corpus").glob("*.hlo"))
    return [_content(file).decode() for file in [*sorted(files), *own]]


@cache
def _pools() -> list[Pool]:
    return [pool for pool in map(pool_of, _hlo_texts()) if pool is not None]


def _make_hlo_text(chance: random.Random) -> bytes:
    texts = _hlo_texts()
    if chance.random() < 0.6:
        text = spliced_module(chance, _pools())
        if chance.random() < 0.3:
            return text.encode()
    else:
        text = chance.choice(texts)
    return mutated_text(chance, text, texts).encode()


def _read_hlo_text(content: bytes) -> None:
    _use(hlo_text.parse(content.decode()))


@cache
def _protos() -> list[bytes]:
    from jaxlib import _hlo

    texts = [text for text in _hlo_texts() if len(text) < 12_000 and "jax012" not in text[:100]]
    made = [_content(file) for file in sorted(HLO.glob("*.hlo.pb*"))]
    for text in [*texts, *(spliced_module(random.Random(seed), _pools()) for seed in range(60))]:
        try:
            made.append(_hlo.hlo_module_from_text(text).as_serialized_hlo_module_proto())
        except Exception:  # a splice that XLA refuses
            continue
    return made


def _make_hlo_proto(chance: random.Random) -> bytes:
    return mutated_proto(chance, chance.choice(_protos()), _protos())


def _read_hlo_proto(content: bytes) -> None:
    _use(hlo_proto.parse(content))


def _read_stablehlo(content: bytes) -> None:
    if not stablehlo.is_stablehlo(content):
        raise ParseError("no StableHLO")
    _use(hlo_proto.parse(fuzzed_stablehlo.translated(content)))


def _use(graph: Graph) -> None:
    """Prints a program and reads that, and states its problem."""
    printed = print_graph(graph)
    try:
        again = hlo_text.parse(printed)
    except MemplanError as error:
        raise NotReadBack(f"{error}") from None
    if different := difference(with_legal_names(graph), again):
        raise NotReadBack(different)
    made = build_problem(graph if graph.is_scheduled else scheduled(graph), _target("tpu-v5e"))
    if len(made.operations) < 300:
        _plan(made)


@cache
def _target(name: str) -> Target:
    return load_target(name)


def _plan(made: MappingProblem) -> None:
    """States everything in the slow memory. The planner verifies its plan, and refuses a problem with faults."""
    SLOW.plan(made, Budget())


# ---- problems and plans

_PROBLEM = problem(
    "w a", "r a, w b", "u b", "r b", "r b, w c", "r p, r c",
    arguments="p", results="c", cross_program_prefetches=1, live={"a": (0, 4)},
    regions=[loop(1, 4, trips=5), loop(2, 3, trips=3, parent=1)],
)  # fmt: skip
_PLAN = plan(
    _PROBLEM,
    [("a", 0, 0, 0, 4), ("b", 0, 4, 1, 5), ("c", 0, 8, 4, 7), ("p", 0, 12, 0, 7), ("p", 1, 0, 1, 7)],
    [(3, 4, 1, 2)],
    served=[0, 0, 1, 1, 1, 1, 2, 4, 2],
)


@cache
def _problem_texts() -> list[str]:
    targets = ("tpu-v5e", "h200")
    texts = [text for text in _hlo_texts() if len(text) < 8000]
    graphs = [hlo_text.parse(text) for text in texts]
    made = [build_problem(g if g.is_scheduled else scheduled(g), load_target(t)) for g in graphs for t in targets]
    return [p.to_json() for p in [_PROBLEM, _PROBLEM.with_given(_PLAN), *made] if len(p.operations) < 40]


def _make_problem(chance: random.Random) -> bytes:
    return mutated_text(chance, chance.choice(_problem_texts()), _problem_texts()).encode()


def _read_problem(content: bytes) -> None:
    made = MappingProblem.from_json(content.decode())
    _plan(made)
    if MappingProblem.from_json(made.to_json()) != made:
        raise NotReadBack("the problem that is read again is another")


_PLAN_TEXTS = [_PLAN.to_json(), SLOW.plan(_PROBLEM, Budget()).to_json()]


def _make_plan(chance: random.Random) -> bytes:
    return mutated_text(chance, chance.choice(_PLAN_TEXTS), _PLAN_TEXTS).encode()


def _read_plan(content: bytes) -> None:
    made = Plan.from_json(content.decode())
    if Plan.from_json(made.to_json()) != made:
        raise NotReadBack("the plan that is read again is another")
    for violation in verify(_PROBLEM, made):
        assert violation.message


# ---- targets, CSV files, reports of XLA


@cache
def _target_texts() -> list[str]:
    return [file.read_text() for file in sorted(TARGETS.glob("*.toml"))]


def _make_target(chance: random.Random) -> bytes:
    return mutated_text(chance, chance.choice(_target_texts()), _target_texts()).encode()


@cache
def _small_graph() -> Graph:
    return scheduled(hlo_text.parse((Path(__file__).parent / "corpus/loop.hlo").read_text()))


def _read_target(content: bytes) -> None:
    _plan(build_problem(_small_graph(), parse_target(content.decode())))


_BLOCKS = (
    "id,lower,upper,size\nb1,0,3,4\nb2,3,9,4\nb3,0,9,4\nb4,9,21,4\nb5,0,21,4\n",
    "buffer_id,start,end,size,alignment,offset,gaps\na,0,9,64,32,,2-3 5-6\nb,2,3,16,16,32,\nc,0,0,8,1,,\n",
    "id,lower,upper,size,alignment,hint,gaps\na,0,10,2,1,0,0-5\nb,0,10,2,1,-1,5-10\n",
)


@cache
def _csv_texts() -> list[str]:
    return [*_BLOCKS, "\n".join((PACKING / "A.1048576.csv").read_text().splitlines()[:30]) + "\n"]


def _make_csv(chance: random.Random) -> bytes:
    return mutated_text(chance, chance.choice(_csv_texts()), _csv_texts()).encode()


def _read_csv(content: bytes) -> None:
    table = parse_instance(content.decode())
    assert lower_bound(table.instance) >= 0
    again = (
        parse_instance(table.with_offsets(table.instance.fixed.clip(0))) if (table.instance.fixed < 0).all() else table
    )
    if again.instance.ids != table.instance.ids:
        raise NotReadBack("the ids that are read again are others")


@cache
def _assignments() -> list[str]:
    return [file.read_text() for file in sorted(HLO.glob("*-buffer-assignment.txt"))]


def _make_assignment(chance: random.Random) -> bytes:
    return mutated_text(chance, chance.choice(_assignments()), _assignments()).encode()


def _read_assignment(content: bytes) -> None:
    parse_buffer_assignment(content.decode())


READERS = {
    "hlo-text": FuzzedReader(_make_hlo_text, _read_hlo_text),
    "hlo-proto": FuzzedReader(_make_hlo_proto, _read_hlo_proto),
    "stablehlo": FuzzedReader(fuzzed_stablehlo.make, _read_stablehlo),
    "problem": FuzzedReader(_make_problem, _read_problem),
    "plan": FuzzedReader(_make_plan, _read_plan),
    "target": FuzzedReader(_make_target, _read_target),
    "csv": FuzzedReader(_make_csv, _read_csv),
    "checkpoint": FuzzedReader(fuzzed_checkpoint.make, fuzzed_checkpoint.read),
    "buffer-assignment": FuzzedReader(_make_assignment, _read_assignment),
}
