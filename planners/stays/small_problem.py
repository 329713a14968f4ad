"""A small problem that needs every kernel: planners answer it so that these are compiled before a budget counts."""

from __future__ import annotations

from functools import cache

from memplan.compiler.analysis.program import AccessKind, RegionKind
from memplan.compiler.mapping.problem import Access, Buffer, Link, MappingProblem, MemorySpace, Operation, Region


@cache
def small_problem(layers: int = 12) -> MappingProblem:
    """Returns a chain of layers with a loop, whose weights and activations do not fit the fast memory together.

    Layer `t` reads weight `t` and activation `t`, and writes activation `t + 1`.

    Args:
      layers: at least 3. The second third of them repeats.
    """
    n, loop = layers, (layers // 3, 2 * layers // 3)
    weights = [Buffer(f"w{t}", 8 + t % 3, 0, n + 1, (0, 1), initial_space=0, persistent=True) for t in range(n)]
    activations = [
        Buffer(f"x{t}", 4 + t % 4, max(t - 1, 0), t + 1 if t != loop[0] else loop[1], (0, 1), None if t else 0)
        for t in range(n)
    ]
    result = Buffer(f"x{n}", 4, n - 1, n + 1, (0, 1), final_space=0)
    buffers = sorted([*weights, *activations, result], key=lambda buffer: buffer.start)
    index = {buffer.name: number for number, buffer in enumerate(buffers)}

    def access(name: str, kind: AccessKind) -> Access:
        size = buffers[index[name]].size
        return Access(index[name], kind, size, (float(size), size / 8.0))

    operations = tuple(
        Operation(
            name=f"layer{t}",
            opcode="layer",
            floor=2.0,
            overhead=0.5,
            reserved=(0, t % 2),
            region=int(loop[0] <= t < loop[1]),
            accesses=(
                access(f"w{t}", AccessKind.READ),
                access(f"x{t}", AccessKind.READ),
                access(f"x{t + 1}", AccessKind.WRITE),
            ),
        )
        for t in range(n)
    )
    return MappingProblem(
        name="small",
        target="small",
        spaces=(MemorySpace("slow", 1000, 1, 1.0, 0), MemorySpace("fast", 24, 1, 8.0)),
        links=(Link(0, 1, 1.0, 0.1, 0, 0), Link(1, 0, 1.0, 0.1, 1, 0)),
        regions=(Region(RegionKind.PROGRAM, 0, n, -1, 1.0), Region(RegionKind.LOOP, *loop, 0, 3.0)),
        operations=operations,
        buffers=tuple(buffers),
        cross_program_prefetches=1,
    )
