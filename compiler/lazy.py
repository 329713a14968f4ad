"""Packages whose public names are loaded when they are first used, so that importing one costs next to nothing."""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(package: str, places: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Returns the functions `__getattr__` and `__dir__` of a package (PEP 562).

    Args:
      package: its `__name__`.
      places: where each public name is found, as `"module:name"`, or `"module"` for a module.

    >>> load, _ = lazy_names(__name__, {"square_root": "math:sqrt"})
    >>> load("square_root")(4.0)
    2.0
    """

    def load(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = pkgutil.resolve_name(places[name])
        setattr(sys.modules[package], name, value)
        return value

    return load, lambda: sorted({*vars(sys.modules[package]), *places})
