"""Problems and plans that fit in the head, written as text.

    problem("w a", "r a, w b", "r b", results="b")

Each argument is an operation: `r`, `w` or `u` (read, write, update) and the name of a buffer. Space 0 is slow and moves
1 byte a second, space 1 is fast and moves 8. Links move 1 byte a second on the slow memory's channel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from memplan.compiler.analysis.program import AccessKind, RegionKind
from memplan.compiler.mapping.plan import Copy, Plan, Residency
from memplan.compiler.mapping.problem import Access, Buffer, Link, MappingProblem, MemorySpace, Operation, Region

KINDS = {"r": AccessKind.READ, "w": AccessKind.WRITE, "u": AccessKind.UPDATE}
ORDER = {AccessKind.READ: 0, AccessKind.UPDATE: 1, AccessKind.WRITE: 2}


def problem(
    *operations: str,
    arguments: str = "",
    donated: str = "",
    results: str = "",
    sizes: Mapping[str, int] | None = None,
    live: Mapping[str, tuple[int, int]] | None = None,
    regions: Sequence[Region] = (),
    capacity: int = 16,
    alignment: int = 1,
    reserved: Mapping[int, int] | None = None,
    floors: Sequence[float] = (),
    latency: float = 0.0,
    links: str = "in out",
    cross_program_prefetches: int = 0,
) -> MappingProblem:
    """Returns the problem of a program.

    Args:
      operations: such as `"r a, w b"`.
      arguments, donated, results: names, separated by blanks. Arguments that are not donated stay as they are.
      sizes: bytes, by default 4.
      live: live ranges that do not follow from the accesses.
      regions: inside of the program, parents before children.
      capacity, alignment: of both memories; the slow one has a hundred times the capacity.
      reserved: bytes of the fast memory, by operation.
      floors: seconds of each operation at least.
      latency: of the links.
      links: which there are.
      cross_program_prefetches: how many arguments may stay between runs.
    """
    n = len(operations)
    parsed = [
        [(KINDS[part.split()[0]], part.split()[1]) for part in operation.split(",") if part.strip()]
        for operation in operations
    ]
    names = list(dict.fromkeys([*arguments.split(), *donated.split(), *(name for row in parsed for _, name in row)]))
    buffers = [
        _buffer(name, parsed, arguments.split(), donated.split(), results.split(), sizes or {}, live or {})
        for name in names
    ]
    program = Region(RegionKind.PROGRAM, 0, n, -1, 1.0)
    every = (program, *regions)
    made = []
    for t, row in enumerate(parsed):
        inside = max(
            (i for i, region in enumerate(every) if region.start <= t < region.end), key=lambda i: (_depth(every, i), i)
        )
        accesses = [
            Access(names.index(name), kind, _size(buffers, names, name), _cost(buffers, names, name))
            for kind, name in row
        ]
        made.append(
            Operation(
                name=f"op{t}",
                opcode="op",
                floor=floors[t] if t < len(floors) else 0.0,
                overhead=0.0,
                reserved=(0, (reserved or {}).get(t, 0)),
                region=inside,
                accesses=tuple(sorted(accesses, key=lambda access: ORDER[access.kind])),
            )
        )
    both = {"in": Link(0, 1, 1.0, latency, 0, 0), "out": Link(1, 0, 1.0, latency, 1, 0)}
    return MappingProblem(
        name="literal",
        target="literal",
        spaces=(
            MemorySpace("slow", 100 * capacity, alignment, 1.0, 0),
            MemorySpace("fast", capacity, alignment, 8.0),
        ),
        links=tuple(both[name] for name in links.split()),
        regions=every,
        operations=tuple(made),
        buffers=tuple(buffers),
        cross_program_prefetches=cross_program_prefetches,
    )


def _buffer(
    name: str,
    parsed: Sequence[Sequence[tuple[AccessKind, str]]],
    arguments: Sequence[str],
    donated: Sequence[str],
    results: Sequence[str],
    sizes: Mapping[str, int],
    live: Mapping[str, tuple[int, int]],
) -> Buffer:
    n = len(parsed)
    times = [t for t, row in enumerate(parsed) for _, used in row if used == name]
    is_argument, stays, is_result = name in arguments or name in donated, name in arguments, name in results
    start = 0 if is_argument else times[0]
    end = n + 1 if stays or is_result else max(times, default=0) + 1
    start, end = live.get(name, (start, end))
    return Buffer(
        name=name,
        size=sizes.get(name, 4),
        start=start,
        end=end,
        spaces=(0, 1),
        initial_space=0 if is_argument else None,
        final_space=0 if is_result else None,
        persistent=stays or (is_argument and is_result),
    )


def _size(buffers: Sequence[Buffer], names: Sequence[str], name: str) -> int:
    return buffers[names.index(name)].size


def _cost(buffers: Sequence[Buffer], names: Sequence[str], name: str) -> tuple[float, float]:
    size = _size(buffers, names, name)
    return (size / 1.0, size / 8.0)


def _depth(regions: Sequence[Region], number: int) -> int:
    depth = 0
    while regions[number].parent >= 0:
        number, depth = regions[number].parent, depth + 1
    return depth


def loop(start: int, end: int, trips: float = 4.0, parent: int = 0) -> Region:
    return Region(RegionKind.LOOP, start, end, parent, trips)


def branch(start: int, end: int, group: int = 0, parent: int = 0) -> Region:
    return Region(RegionKind.BRANCH, start, end, parent, 0.5, group)


def plan(
    problem: MappingProblem,
    residencies: Sequence[tuple[str, int, int, int, int]],
    copies: Sequence[tuple[int, int, int, int]] = (),
    served: Sequence[int] | None = None,
) -> Plan:
    """Returns a plan.

    Args:
      problem: that it answers.
      residencies: `(buffer, space, offset, start, end)`.
      copies: `(source, destination, start, done)`.
      served: residency of each access; by default the last one of its buffer that exists then.
    """
    names = [buffer.name for buffer in problem.buffers]
    made = [Residency(names.index(name), *rest) for name, *rest in residencies]
    if served is None:
        served = [
            max((i for i, r in enumerate(made) if r.buffer == access.buffer and r.start <= time < r.end), default=-1)
            for time, access in problem.accesses
        ]
    return problem.answer("test", made, (Copy(*copy) for copy in copies), served)
