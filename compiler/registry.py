"""How planners, workloads and passes are found: one new file, or one entry point, and no edit elsewhere.

A built-in is an object of the registry's type at the top of a module of the registry's package, or of the module that
`entry` names in a package within it. A user's own comes from an entry point of the registry's group, or from a call of
`register`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Iterator
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Generic, Protocol, TypeVar

from memplan.compiler.errors import MemplanError


def missing_libraries(names: Iterable[str]) -> list[str]:
    """Returns the libraries, by the names that they are imported by, that are not installed."""
    return [name for name in names if find_spec(name) is None]


class Named(Protocol):
    """An item of a registry: it has a name and a one-line description."""

    @property
    def name(self) -> str: ...

    @property
    def description(self) -> str: ...


T = TypeVar("T", bound=Named)


class Registry(Generic[T]):
    """Named objects of one kind, discovered when first asked for.

    Args:
      kind: what is held, in the singular, for messages ("planner").
      package: import name of the package whose modules define built-ins.
      item_type: class of the objects.
      error: exception raised for an unknown name.
      entry: name of the module that holds the built-in of a package within the package; "" if there is none.
      group: of entry points; "" for the name of the package.
    """

    def __init__(
        self,
        kind: str,
        package: str,
        item_type: type[T],
        error: type[MemplanError] = MemplanError,
        entry: str = "",
        group: str = "",
    ):
        self.kind, self.package, self.item_type, self.error, self.entry = kind, package, item_type, error, entry
        self.group = group or package  # "memplan.planners"
        self._items: dict[str, T] = {}
        self._discovered = False

    def register(self, item: T) -> T:
        """Adds `item`; a later one of the same name replaces an earlier one. Returns it."""
        self._items[item.name] = item
        return item

    def get(self, name: str) -> T:
        """Returns the item called `name`; raises `error` with the known names otherwise."""
        self._discover()
        if name not in self._items:
            raise self.error(f"no {self.kind} is called {name!r}; known: {', '.join(sorted(self._items))}")
        return self._items[name]

    def names(self) -> list[str]:
        """Returns all names, sorted."""
        self._discover()
        return sorted(self._items)

    def __iter__(self) -> Iterator[T]:
        return iter([self.get(name) for name in self.names()])

    def _discover(self) -> None:
        if self._discovered:
            return
        self._discovered = True
        user_items = dict(self._items)
        for module in self._modules():
            for value in vars(importlib.import_module(module)).values():
                if isinstance(value, self.item_type):
                    self._items[value.name] = value
        for point in entry_points(group=self.group):
            item = point.load()
            if not isinstance(item, self.item_type):
                raise self.error(f"entry point {point.name!r} of {self.group} is not a {self.item_type.__name__}")
            self._items[item.name] = item
        self._items.update(user_items)

    def _modules(self) -> Iterator[str]:
        """Yields the names of the modules that may hold built-ins."""
        for info in pkgutil.iter_modules(importlib.import_module(self.package).__path__):
            name = f"{self.package}.{info.name}"
            if info.ispkg:
                if self.entry and find_spec(f"{name}.{self.entry}") is not None:
                    yield f"{name}.{self.entry}"
            elif not info.name.startswith("_"):
                yield name
