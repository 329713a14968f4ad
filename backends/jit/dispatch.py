"""Calls that cost what jax.jit's cost, while we decide once per signature which jitted function serves it.

`jax.jit` returns an object of jaxlib that finds the executable of a signature in a table and runs it, all in C++. What
is not in the table goes to a Python function, the object's `_cache_miss`, whose answer the table then keeps. So our
dispatcher is another object of the same type and state, with a `_cache_miss` of ours: it asks which jitted function to
use and passes on that one's answer. A warm call never comes here; what is a signature is for JAX to say.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any

from memplan.backends.jit.messages import say_once

# Given the arguments of a call, returns the function made by `jax.jit` that shall serve it.
Choose = Callable[[tuple[Any, ...], Mapping[str, Any]], Any]


def make_dispatcher(plain: Any, fun: Callable[..., Any], choose: Choose) -> Callable[..., Any]:
    """Returns a function that serves each call with the jitted function that `choose` returns for it.

    Args:
      plain: a function made by `jax.jit`; all that `choose` returns are made of the same function and arguments.
      fun: under which jaxlib keeps the executables: another object than that of `plain`, which may run within `choose`,
        and one for each set of answers that `choose` gives.
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
    """Asks at every call, which costs about 10 microseconds and 3 more for each array among the arguments."""

    def dispatcher(*args: Any, **kwargs: Any) -> Any:
        return choose(args, kwargs)(*args, **kwargs)

    return dispatcher


class Twin(functools.partial[Any]):
    """A function that does the same as another but is not identical, so that nothing is shared with `jax.jit(fun)`.

    JAX keeps traces and executables by the identity of a function; those that are compiled with a plan are ours alone.
    It sees through a `functools.partial` for names, arguments and source lines.
    """

    def __repr__(self) -> str:
        return repr(self.func)
