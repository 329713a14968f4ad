"""A function under `memplan.jit` that counts how often it is asked for a choice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from memplan.backends.jit import wrapper
from memplan.backends.jit.function import Function


def choosing(fun: Callable[..., Any], **jit_kwargs: Any) -> tuple[Any, Function, list[int]]:
    """Returns a jitted function, what is behind it, and a list that grows when the dispatcher asks."""
    made = Function(fun, wrapper.Settings(None, "greedy", 8, {}), jit_kwargs)
    asked: list[int] = []
    choose = made.choose

    def asking(*given: Any) -> Any:
        asked.append(1)
        return choose(*given)

    made.choose = asking  # type: ignore[method-assign]
    return wrapper.handle_of(made), made, asked
