"""The garbage collector, while many objects are made that all stay."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collection_paused() -> Iterator[None]:
    """Keeps the garbage collector from walking, again and again, the many objects of a large program.

    It is also a decorator:

    >>> @collection_paused()
    ... def is_collecting():
    ...     return gc.isenabled()
    >>> is_collecting(), gc.isenabled()
    (False, True)
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
