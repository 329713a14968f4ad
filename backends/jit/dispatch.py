"""Calls that cost as little as those of `jax.jit`, although a jitted function is chosen once for each signature.

`jax.jit` returns an object of jaxlib that finds the executable of a signature in a table and runs it, all in C++. If
the table has none, it asks a Python function, the object's `_cache_miss`, and keeps the answer. Our dispatcher is
another object of the same type and state with a `_cache_miss` of ours, which chooses the jitted function and passes on
the answer of that function. A warm call never comes here, and JAX alone decides what a signature is.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any

from memplan.backends.jit.messages import say_once

# Given the arguments of a call, returns the function made by `jax.jit` that is to serve it.
Choose = Callable[[tuple[Any, ...], Mapping[str, Any]], Any]


def make_dispatcher(plain: Any, fun: Callable[..., Any], choose: Choose) -> Callable[..., Any]:
    """Returns a function that serves each call with the jitted function that `choose` returns for it.

    Args:
      plain: a function made by `jax.jit`; all results of `choose` are made of the same function and arguments.
      fun: the key under which jaxlib keeps the executables. It must not be the function of `plain`, which may run in
        `choose`, and each set of answers of `choose` needs its own.
      choose: is asked when jaxlib does not know a signature.
    """
    try:
        return _native_dispatcher(plain, fun, choose)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError):  # a jaxlib with other insides
        say_once(logging.WARNING, "memplan.jit: this jaxlib is new to memplan: every call costs 3 us more per argument")
        return _python_dispatcher(choose)


def _native_dispatcher(plain: Any, fun: Callable[..., Any], choose: Choose) -> Callable[..., Any]:
    state = plain.__getstate__()
    if state["version"] != 1 or not callable(plain._cache_miss):
        raise ValueError("a jaxlib that keeps another state")

    def cache_miss(*args: Any, **kwargs: Any) -> Any:
        return choose(args, kwargs)._cache_miss(*args, **kwargs)

    kind: Any = type(plain)
    dispatcher = kind.__new__(kind)
    dispatcher.__setstate__({**state, "fun": fun, "cache_miss": cache_miss})
    made: Callable[..., Any] = dispatcher
    return made


def _python_dispatcher(choose: Choose) -> Callable[..., Any]:
    """Asks at every call, which costs about 10 microseconds, and 3 more for each array among the arguments."""

    def dispatcher(*args: Any, **kwargs: Any) -> Any:
        return choose(args, kwargs)(*args, **kwargs)

    return dispatcher


class Twin(functools.partial[Any]):
    """A function that does the same as another but is a different object, so nothing is shared with `jax.jit(fun)`.

    JAX keeps traces and executables by the identity of a function, and those that are compiled with a plan must be ours
    alone. JAX looks through a `functools.partial` for names, arguments and source lines.
    """

    def __repr__(self) -> str:
        return repr(self.func)
