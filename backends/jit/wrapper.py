"""`memplan.jit` itself: its arguments, and the object that it returns."""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any, Literal, overload

import jax

from memplan.backends.fit.limit import limit_of
from memplan.backends.jit.dispatch import make_dispatcher
from memplan.backends.jit.function import Function
from memplan.backends.jit.planning import PlanResult, Settings
from memplan.compiler.effort import Effort, effort_of
from memplan.compiler.errors import MemplanError
from memplan.compiler.hardware.target import Target, load_target
from memplan.passes.base import Pass, PassReport
from memplan.passes.manager import chosen
from memplan.planners import planner as planners
from memplan.planners.planner import DEFAULT_PLANNER


class Jitted:
    """The result of `memplan.jit`: a callable with everything that `jax.jit` gives it, and `plan` and `passes`.

    The class of each function has the dispatcher itself as its `__call__`, so that no Python runs in between. Its other
    members are in the class as well, because wrappers, such as JAX's transformations, copy a function's `__dict__`.
    """

    __slots__ = ("__dict__", "__weakref__", "_dispatcher", "_function")

    def __init__(self, function: Function, dispatcher: Callable[..., Any]):
        functools.update_wrapper(self, function.fun)
        self.__dict__.pop(_KNOWN, None)
        self._function, self._dispatcher = function, dispatcher

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._dispatcher(*args, **kwargs)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else MethodType(self, instance)

    def __repr__(self) -> str:
        return f"<memplan.jit of {self._function.fun!r}>"

    def __reduce__(self) -> tuple[Callable[..., Jitted], tuple[Any, ...]]:
        """What is unpickled is the function jitted once more, without what was planned."""
        return remade, (self._function.fun, self._function.settings, self._function.jit_kwargs)

    def __copy__(self) -> Jitted:
        return remade(self._function.fun, self._function.settings, self._function.jit_kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Jitted:
        """A function is atomic to `copy`, and so are the devices among its arguments."""
        return self.__copy__()

    def __getattr__(self, name: str) -> Any:
        """What libraries ask of a jitted function and memplan does not answer itself is `jax.jit`'s answer."""
        if name in Jitted.__slots__:  # of an object in the making
            raise AttributeError(name)
        return getattr(self._function.plain, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *dir(self._function.plain)})

    def trace(self, *args: Any, **kwargs: Any) -> Any:
        """See `jax.stages.Wrapped.trace`."""
        return self._function.trace(*args, **kwargs)

    def lower(self, *args: Any, **kwargs: Any) -> Any:
        """See `jax.stages.Wrapped.lower`."""
        return self._function.trace(*args, **kwargs).lower()

    def eval_shape(self, *args: Any, **kwargs: Any) -> Any:
        """See `jax.eval_shape`."""
        return self._function.plain.eval_shape(*args, **kwargs)

    def plan(self, *args: Any, **kwargs: Any) -> PlanResult:
        """Returns the plan for arguments of these shapes and types, and what it is worth."""
        return self._function.plan(*args, **kwargs)

    def passes(self, *args: Any, **kwargs: Any) -> tuple[PassReport, ...]:
        """Returns what each pass finds in the program of arguments of these shapes and types."""
        return self._function.passes(*args, **kwargs)

    def clear_cache(self) -> None:
        """Forgets all signatures."""
        if clear := getattr(self._dispatcher, "_clear_cache", None):
            clear()
        self._function.clear_cache()

    _clear_cache = clear_cache

    def _cache_size(self) -> int:
        """Returns how many signatures were compiled, as `jax.jit` does."""
        counted = getattr(self._dispatcher, "_cache_size", self._function.plain._cache_size)
        return int(counted())

    @property
    def _fun(self) -> Callable[..., Any]:
        return self._function.fun


@overload
def jit(
    fun: Callable[..., Any],
    /,
    *,
    target: str | Path | Target | None = None,
    planner: str = DEFAULT_PLANNER,
    effort: str | Effort = Effort.NORMAL,
    compile_budget: int = 8,
    passes: str | Iterable[str | Pass] = "auto",
    fft_precision: Literal["highest", "default"] = "highest",
    memory_limit: int | str | None = None,
    **jit_kwargs: Any,
) -> Jitted: ...


@overload
def jit(
    *,
    target: str | Path | Target | None = None,
    planner: str = DEFAULT_PLANNER,
    effort: str | Effort = Effort.NORMAL,
    compile_budget: int = 8,
    passes: str | Iterable[str | Pass] = "auto",
    fft_precision: Literal["highest", "default"] = "highest",
    memory_limit: int | str | None = None,
    **jit_kwargs: Any,
) -> Callable[[Callable[..., Any]], Jitted]: ...


def jit(
    fun: Callable[..., Any] | None = None,
    /,
    *,
    target: str | Path | Target | None = None,
    planner: str = DEFAULT_PLANNER,
    effort: str | Effort = Effort.NORMAL,
    compile_budget: int = 8,
    passes: str | Iterable[str | Pass] = "auto",
    fft_precision: Literal["highest", "default"] = "highest",
    memory_limit: int | str | None = None,
    **jit_kwargs: Any,
) -> Jitted | Callable[[Callable[..., Any]], Jitted]:
    """Compiles a function as `jax.jit` does, with a plan of where its tensors live.

    On the target TPU, each signature is planned once, at its first call: the real compiler makes a few candidates, its
    own default among them, and the fastest is used from then on. On a CPU, programs run in the order that needs the
    least memory. Elsewhere they run as with `jax.jit`. The logger `memplan` says which case applies.

    >>> import jax.numpy as jnp
    >>> step = jit(lambda x, w: jnp.tanh(x @ w), target="generic", effort="fast")
    >>> step(jnp.ones((2, 3)), jnp.zeros((3, 2))).shape
    (2, 2)
    >>> step.plan(jnp.ones((2, 3)), jnp.zeros((3, 2))).plan.target
    'generic'

    Args:
      fun: as for `jax.jit`; without it, a decorator is returned.
      target: what to plan for: a target, its name, or a TOML file; by default the TPU of this machine, if there is one.
      planner: name of the planner.
      effort: how much work the planner does for each plan: `fast`, `normal` or `high`.
      compile_budget: how often the real compiler may be asked for each signature.
      passes: rewrites of the program before the compile: "auto" for those that are known to pay on the platform,
        "none", names with commas between, or a sequence of names and passes.
      fft_precision: of Fourier transforms that become matrix products: "highest" for that of the arguments' dtype,
        "default" for what the hardware does fastest (bfloat16 on a TPU).
      memory_limit: bytes for arguments, results and temporaries of each program together, as an integer or like
        "12GiB", without a target and on a CPU. Tensors are computed again or made in another order until the compiler
        states that the program fits, in calls and in `.lower().compile()`, which raise `CannotFitError` if none does.
      **jit_kwargs: everything that `jax.jit` takes. Compiler options given here are part of every candidate.

    Raises:
      MemplanError: the target, the planner, the effort or a pass is not known, or the memory limit is no size.
    """
    if fun is None:
        options: dict[str, Any] = {
            "target": target,
            "planner": planner,
            "effort": effort,
            "compile_budget": compile_budget,
            "memory_limit": memory_limit,
        }
        return functools.partial(jit, **options, passes=passes, fft_precision=fft_precision, **jit_kwargs)
    if not callable(fun):
        jax.jit(fun, **jit_kwargs)  # raises the error that JAX raises
    if isinstance(compile_budget, bool) or not isinstance(compile_budget, int) or compile_budget < 1:
        raise MemplanError(f"compile_budget must be a positive integer, not {compile_budget!r}")
    planners.get(planner)
    if target is not None and not isinstance(target, Target):
        target = load_target(target)
    if fft_precision not in ("highest", "default"):
        raise MemplanError(f"fft_precision must be highest or default, not {fft_precision!r}")
    chosen(passes)
    limit = None if memory_limit is None else limit_of(memory_limit)
    if limit is not None and target is not None:
        raise MemplanError("memory_limit is for the CPU of this machine: memplan.fit compiles for a target")
    settings = Settings(
        target,
        planner,
        compile_budget,
        dict(jit_kwargs.get("compiler_options") or {}),
        passes if isinstance(passes, str) else tuple(passes),
        fft_precision,
        effort_of(effort),
        limit,
    )
    return remade(fun, settings, jit_kwargs)


def handle_of(function: Function) -> Jitted:
    """Returns the object that users call."""
    dispatcher = make_dispatcher(function.plain, function.dispatched, function.choose)
    members = {"__slots__": (), "__call__": staticmethod(dispatcher), "__doc__": Jitted.__doc__}
    made: Jitted = type("Jitted", (Jitted,), members)(function, dispatcher)
    return made


def remade(fun: Callable[..., Any], settings: Settings, jit_kwargs: Mapping[str, Any]) -> Jitted:
    """Returns the object that users call for a function under settings that `jit` accepted before."""
    return handle_of(_function_of(fun, settings, jit_kwargs))


class _Known(list[tuple[Settings, dict[str, Any], Function]]):
    """The results of `memplan.jit` for a function so far. Its copies and pickles are empty."""

    def __init__(self, owner: Callable[..., Any] | None = None):
        super().__init__()
        self._owner = weakref.ref(owner) if owner is not None else lambda: None

    def belongs_to(self, fun: Callable[..., Any]) -> bool:
        return self._owner() is fun

    def __reduce__(self) -> tuple[type[_Known], tuple[()]]:
        return _Known, ()


_KNOWN = "__memplan_jit__"
_lock = threading.Lock()


def _function_of(fun: Callable[..., Any], settings: Settings, jit_kwargs: Mapping[str, Any]) -> Function:
    """Returns the `Function` of a function under these settings, so that `memplan.jit(f)(x)` in a loop is planned once.

    The function itself keeps it, so that both are freed together.
    """
    if not isinstance(fun, FunctionType):
        return Function(fun, settings, jit_kwargs)
    with _lock:
        known = fun.__dict__.get(_KNOWN)
        # A wrapper of a function copies its attributes, including this one.
        if known is None or not known.belongs_to(fun):
            known = fun.__dict__[_KNOWN] = _Known(fun)
        for its_settings, its_kwargs, function in known:
            if its_settings == settings and its_kwargs == jit_kwargs:
                return function
        function = Function(fun, settings, jit_kwargs)
        known.append((settings, dict(jit_kwargs), function))
        return function
