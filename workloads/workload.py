"""What a workload is, and where it is registered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memplan.compiler.errors import MemplanError
from memplan.compiler.registry import Registry


@dataclass(frozen=True)
class Workload:
    """A program that is measured.

    Attributes:
      name: as in `memplan.workloads.get(name)` and in the names of its dumps.
      description: one line: architecture, sizes, dtype.
      build: returns `(fun, args)`: a function that `jax.jit` accepts and its arguments as pytrees of
        `jax.ShapeDtypeStruct`. It must not allocate the arrays: real sizes do not fit a laptop. Where it has a `batch`
        as an argument of that name, `memplan fit --max-batch` tries others.
      donate_argnums: arguments whose memory the results may reuse, as for `jax.jit`.
    """

    name: str
    description: str
    build: Callable[..., tuple[Callable[..., Any], tuple[Any, ...]]]
    donate_argnums: tuple[int, ...] = ()


_registry: Registry[Workload] = Registry("workload", "memplan.workloads", Workload, MemplanError)
get = _registry.get
names = _registry.names
register = _registry.register


def dumps_folder() -> Path:
    """Returns the folder of shipped dumps, `NAME.TARGET.VARIANT.hlo.txt.gz` each."""
    return Path(__file__).parent / "dumps"
