"""What a pass is, and where passes are registered.

A pass is one module of this package with a `PASS` at its top, an entry point of the group `memplan.passes`, or
whatever `register` is called with. It rewrites a program as JAX traces it (a jaxpr); the values of the program's
results stay the same, up to rounding.

>>> import memplan.passes.base as passes
>>> passes.get("dead_code").description
'Equations whose results nobody reads.'
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from memplan.compiler.errors import MemplanError
from memplan.compiler.registry import Registry

Platform = Literal["tpu", "gpu", "cpu"]


class PassError(MemplanError):
    """A pass that is not known, or that broke the program."""


@dataclass(frozen=True)
class Context:
    """What a pass may know.

    Attributes:
      platform: that the program is going to run on.
      fft_precision: of Fourier transforms that become matrix products, "highest" or "default".
    """

    platform: Platform = "cpu"
    fft_precision: Literal["highest", "default"] = "highest"


@dataclass(frozen=True)
class Finding:
    """A place that a pass looked at.

    Attributes:
      what: it found, in a few words.
      where: file, line and function of the user's program.
      declined: why it was left as it was; "" if it was changed.
    """

    what: str
    where: str
    declined: str = ""


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
