"""What a pass is, and where passes are registered.

A pass rewrites a program; the values of the program's results stay the same, up to rounding. There are two kinds:

    Pass       a program as JAX traces it (a jaxpr)   modules of `memplan.passes`         group `memplan.passes`
    GraphPass  a Graph, wherever it was read          modules of `memplan.passes.graph`   group `memplan.passes.graph`

Each is a module of its package with a `PASS` at its top, an entry point of the group, or an argument of `register` or
`register_graph_pass`. Passes over jaxprs are run by `manager.py`, passes over Graphs by `graph_manager.py`.

>>> import memplan.passes.base as passes
>>> passes.get("dead_code").description
'Equations whose results nobody reads.'
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from memplan.compiler.errors import MemplanError, one_line
from memplan.compiler.registry import Registry

if TYPE_CHECKING:
    from memplan.compiler.hardware.target import Target
    from memplan.compiler.ir import Graph

Platform = Literal["tpu", "gpu", "cpu"]


class PassError(MemplanError):
    """A pass that is not known, or that broke the program."""


@dataclass(frozen=True)
class Context:
    """What a pass may know.

    Attributes:
      platform: where the program is going to run.
      fft_precision: of Fourier transforms that become matrix products, "highest" or "default".
    """

    platform: Platform = "cpu"
    fft_precision: Literal["highest", "default"] = "highest"


@dataclass(frozen=True)
class Finding:
    """A place that a pass looked at.

    Attributes:
      what: what it found, in a few words.
      where: file, line and function of the user's program.
      declined: why the place was left unchanged; "" if it was changed.
    """

    what: str
    where: str
    declined: str = ""


@dataclass(frozen=True)
class PassReport:
    """What one pass did.

    Attributes:
      name: of the pass.
      seconds: that it took, checks included.
      before, after: equations of the program, or instructions of the Graph that run one by one, those within loops and
        branches included.
      findings: what it changed, and what it looked at and left unchanged.
    """

    name: str
    seconds: float
    before: int
    after: int
    findings: tuple[Finding, ...]

    @property
    def changed(self) -> tuple[Finding, ...]:
        """The findings that were changed."""
        return tuple(finding for finding in self.findings if not finding.declined)


@dataclass(frozen=True)
class Rewritten:
    """What a pass made of a program.

    Attributes:
      jaxpr: a `jax.extend.core.ClosedJaxpr` with the same arguments and results.
      findings: what it changed, and what it looked at and left.
    """

    jaxpr: Any
    findings: tuple[Finding, ...] = field(default=())


@dataclass(frozen=True)
class Pass:
    """A rewrite of programs.

    Attributes:
      name: as in `memplan.jit(…, passes=[NAME])`.
      description: one line.
      rewrite: returns the rewritten program; it may return the one that it was given.
    """

    name: str
    description: str
    rewrite: Callable[[Any, Context], Rewritten]


_registry: Registry[Pass] = Registry("pass", "memplan.passes", Pass, PassError)
get = _registry.get
names = _registry.names
register = _registry.register


@dataclass(frozen=True)
class GraphContext:
    """What a pass over a Graph may know.

    Attributes:
      target: what the program is planned for; None where that is not known.
      fast_share: the share of the fast memory that one instruction may take for itself; the planner has the rest.
    """

    target: Target | None = None
    fast_share: float = 0.25


@dataclass(frozen=True)
class RewrittenGraph:
    """What a pass made of a Graph.

    Attributes:
      graph: with the same parameters and results; it may be the one that the pass was given.
      findings: what it changed, and what it looked at and left.
    """

    graph: Graph
    findings: tuple[Finding, ...] = field(default=())


@dataclass(frozen=True)
class GraphPass:
    """A rewrite of Graphs.

    Attributes:
      name: as in `memplan plan --passes NAME`.
      description: one line.
      rewrite: returns the rewritten Graph.
    """

    name: str
    description: str
    rewrite: Callable[[Graph, GraphContext], RewrittenGraph]


_graph_registry: Registry[GraphPass] = Registry("pass over Graphs", "memplan.passes.graph", GraphPass, PassError)
get_graph_pass = _graph_registry.get
graph_pass_names = _graph_registry.names
register_graph_pass = _graph_registry.register


AnyPass = TypeVar("AnyPass", Pass, GraphPass)


def chosen_from(
    names: str | Iterable[str | AnyPass], default: Sequence[str], find: Callable[[str], AnyPass]
) -> tuple[AnyPass, ...]:
    """Returns the passes of names: "auto", "none", names with commas between, or a sequence of names and passes.

    Args:
      names: which are wanted.
      default: names that "auto" stands for.
      find: returns a pass by its name.

    Raises:
      PassError: one is not known.
    """
    if isinstance(names, str):
        if names in ("auto", "none"):
            names = default if names == "auto" else ()
        else:
            names = [name.strip() for name in names.split(",")]
    return tuple(find(name) if isinstance(name, str) else name for name in names)


@contextmanager
def blamed(name: str) -> Iterator[None]:
    """Turns every exception within into a PassError that names the pass that broke the program."""
    try:
        yield
    except Exception as error:
        raise PassError(f"pass {name} broke the program: {one_line(error)}") from error
