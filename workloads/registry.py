"""What a workload is, and where it is registered."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from memplan.compiler.errors import MemplanError
from memplan.compiler.registry import Registry, missing_libraries

Built = tuple[Callable[..., Any], tuple[Any, ...]]
Kind = Literal["inference", "training"]

# Families that methods are judged on and never tuned on. A family is held out as a whole, so that no sibling of a
# held-out program was seen. Families with shipped dumps are not among them: heuristics were tuned on those dumps.
HELD_OUT = frozenset(
    {"audio", "equivariant", "graph", "protein", "recommender", "rendering", "sampling", "vision-transformer"}
    | {"random-graph", "random-long-convolution", "random-recommender"}
)


@dataclass(frozen=True)
class Workload:
    """A program that is measured.

    Attributes:
      name: as in `memplan.workloads.get(name)` and in the names of its dumps.
      description: one line: architecture, sizes, dtype.
      build: returns `(fun, args)`: a function that `jax.jit` accepts and its arguments as pytrees of
        `jax.ShapeDtypeStruct`. It must not allocate the arrays: real sizes do not fit a laptop. `build(tiny=True)`
        gives the same program at a size for tests. Where it has a `batch` as an argument of that name,
        `memplan fit --max-batch` tries others.
      donate_argnums: arguments whose memory the results may reuse, as for `jax.jit`.
      family: of related programs, such as "convnet".
      kind: "training" if it computes gradients and updates parameters, else "inference".
      source: the paper or public model, with its arXiv number if it has one.
      needs: libraries that memplan itself does without, by the names that they are imported by. They are imported when
        the program is built, and not before.
    """

    name: str
    description: str
    build: Callable[..., Built]
    donate_argnums: tuple[int, ...] = ()
    family: str = "other"
    kind: Kind = "inference"
    source: str = ""
    needs: tuple[str, ...] = ()

    def missing(self) -> list[str]:
        """Returns the libraries that it needs and that are not installed."""
        return missing_libraries(self.needs)

    @property
    def split(self) -> str:
        """Whether methods may be tuned on it, "development", or only judged on it, "held-out"."""
        return "held-out" if self.family in HELD_OUT else "development"


_registry: Registry[Workload] = Registry("workload", "memplan.workloads", Workload, MemplanError)
register = _registry.register


def names() -> list[str]:
    """Returns the names of the workloads whose libraries are installed, sorted."""
    return [each.name for each in _registry if not each.missing()]


def left_out() -> list[str]:
    """Returns the names of the workloads that need libraries which are not installed, sorted."""
    return [each.name for each in _registry if each.missing()]


def get(name: str) -> Workload:
    """Returns a workload; raises MemplanError if there is none, or a library that it needs is not installed."""
    found = _registry.get(name)
    if missing := found.missing():
        raise MemplanError(f"the workload {name} needs {', '.join(missing)}: pip install 'memplan[zoo]'")
    return found


def workload(
    description: str,
    *,
    family: str,
    source: str,
    kind: Kind = "inference",
    donate_argnums: tuple[int, ...] = (),
    needs: tuple[str, ...] = (),
) -> Callable[[Callable[..., Built]], Workload]:
    """Makes a function that builds a program a registered workload of the function's name; see `Workload`.

    The function that it builds is given that name too, so that a compiled module is named after the workload.
    """

    def decorate(build: Callable[..., Built]) -> Workload:
        name = build.__name__

        @functools.wraps(build)
        def named(*sizes: Any, **by_name: Any) -> Built:
            fun, args = build(*sizes, **by_name)
            if isinstance(fun, functools.partial):  # JAX calls it by what it is of.
                fun = functools.update_wrapper(lambda *given, of=fun: of(*given), fun, assigned=(), updated=())
            fun.__name__ = name
            return fun, args

        return register(Workload(name, description, named, donate_argnums, family, kind, source, needs))

    return decorate


Config = TypeVar("Config")


def sized(real: Config, small: Config, tiny: bool, batch: int | None) -> Config:
    """Returns `small` if `tiny`, else `real`, both dataclasses; with another `batch` if one is given."""
    config = small if tiny else real
    return config if batch is None else replace(config, batch=batch)  # type: ignore[type-var]


def num_parameters(built: Built) -> int:
    """Returns the elements of a built program's first argument if that is called `params`, else 0."""
    import jax

    fun, args = built
    first = next(iter(inspect.signature(fun).parameters), "")
    return sum(leaf.size for leaf in jax.tree.leaves(args[0])) if first == "params" else 0


def dumps_folder() -> Path:
    """Returns the folder of shipped dumps, `NAME.TARGET.VARIANT.hlo.txt.gz` each."""
    return Path(__file__).parent / "dumps"


def dumped_names() -> list[str]:
    """Returns the names of the workloads that have a shipped dump, sorted."""
    return sorted({path.name.partition(".")[0] for path in dumps_folder().glob("*.gz")})
