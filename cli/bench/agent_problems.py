"""The problems of `memplan bench agent`: programs and made-up problems with something left to improve, by name.

decode_kv.tpu-7x           a dump that is shipped, or the path of any dump or problem
decode_kv.tpu-7x@0.5       on half of the fast memory
placement:600, prefetch:600   contended problems of so many operations, whose optimum is known
generated:17               the problem of a seed of `memplan generate`
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from memplan import workloads
from memplan.cli.bindings import Bindings
from memplan.cli.train import read_problem
from memplan.compiler.errors import MemplanError
from memplan.compiler.mapping.contended import placement_problem, prefetch_problem
from memplan.compiler.mapping.problem import MappingProblem
from memplan.planners.stays.frame import fast_spaces
from memplan.random_problems import random_problem

_CONTENDED = {"placement": placement_problem, "prefetch": prefetch_problem}
_GENERATED = "generated"


@dataclass(frozen=True)
class NamedProblem:
    """A problem, and the latency of its best plan in seconds if that is known."""

    problem: MappingProblem
    optimum: float | None = None


def named_problem(name: str) -> NamedProblem:
    """Returns the problem of a name; see above.

    Raises:
      MemplanError: there is none.
    """
    kind, _, number = name.partition(":")
    if kind in (*_CONTENDED, _GENERATED):
        if not (number.isascii() and number.isdecimal() and len(number) < 7):
            raise MemplanError(f"problem {name!r:.60}: a number of at most six digits is missing behind {kind}:")
        if kind == _GENERATED:
            return NamedProblem(random_problem(int(number)).problem)
        made = _CONTENDED[kind](int(number))
        return NamedProblem(made.problem, made.optimum)
    base, _, share = name.rpartition("@") if "@" in name else (name, "", "1")
    try:
        part = float(share)
    except ValueError:
        part = 0.0
    if not 0.0 < part <= 1.0:
        raise MemplanError(f"problem {name!r:.60}: behind @ stands a part of the fast memory, above 0 and at most 1")
    shipped = workloads.dumps_folder() / f"{base}.default.hlo.txt.gz"
    problem = read_problem(shipped if shipped.is_file() else Path(base), None, Bindings())
    return NamedProblem(problem if part == 1.0 else _with_less_memory(problem, part))


def _with_less_memory(problem: MappingProblem, part: float) -> MappingProblem:
    """Returns a problem whose fast memory is a part of what it was."""
    spaces = list(problem.spaces)
    for fast in fast_spaces(problem)[:1]:
        spaces[fast] = replace(spaces[fast], capacity=int(part * spaces[fast].capacity))
    smaller = replace(problem, spaces=tuple(spaces))
    smaller.check()
    return smaller
