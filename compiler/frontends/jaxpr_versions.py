"""What differs between versions of JAX, and what is not quite public: every such use is in this file.

`ClosedJaxpr` became `Jaxpr`, and scan's parameters changed, with JAX 0.11; where an equation was written and how keys
are implemented is not documented for either.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
from jax.extend import source_info_util

_PLACE = re.compile(r"(?P<file>.*?):(?P<line>\d+)(?::\d+)? \(.*\)")


def opened(jaxpr: Any) -> tuple[Any, list[Any]]:
    """Returns a jaxpr and the values of its constants, from a ClosedJaxpr or a Jaxpr."""
    inner = getattr(jaxpr, "jaxpr", jaxpr)
    return inner, list(getattr(jaxpr, "consts", ()))


def is_jaxpr(value: Any) -> bool:
    """Whether a parameter of an equation is a jaxpr, closed or not."""
    return hasattr(value, "jaxpr") or hasattr(value, "eqns")


def stated_shardings(traced: Any) -> list[Any]:
    """Returns the shardings that `jax.jit` was given for what its `trace` returned; there is no public way."""
    params = getattr(traced, "_params", {})
    return [*params.get("in_shardings", ()), *params.get("out_shardings", ())]


def scan_counts(params: dict[str, Any]) -> tuple[int, int]:
    """Returns how many operands of a `scan` are constants and how many are carried from one iteration to the next."""
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    constants, carried, _ = params["ft_in"].unpack()
    return len(constants), len(carried)


def place(source_info: Any) -> tuple[str, int]:
    """Returns file and line of the innermost frame of the user's code that made an equation; ("", 0) if unknown."""
    match = _PLACE.fullmatch(source_info_util.summarize(source_info))
    return (match["file"], int(match["line"])) if match else ("", 0)


def origin(equation: Any) -> str:
    """Returns `file:line` of the user's code that made an equation; "" if it is not known."""
    file, line = place(equation.source_info)
    return f"{file}:{line}" if file else ""


def scope(source_info: Any) -> str:
    """Returns the path of transformations and named scopes around an equation, within its jaxpr."""
    return str(source_info.name_stack)


@contextmanager
def at_place_of(equation: Any) -> Iterator[None]:
    """Within the block, equations are traced with the place in the user's program of another equation."""
    from jax._src import source_info_util as internal

    stack = internal.current_name_stack() + equation.source_info.name_stack
    with internal.user_context(equation.source_info.traceback, name_stack=stack):
        yield


def context_with_attribute(context: Any, name: str, value: str) -> Any:
    """Returns the context of an equation with an attribute for the compiler added."""
    from jax.experimental.xla_metadata import set_xla_metadata

    with context.manager, set_xla_metadata(**{name: value}):
        # An equation has the context that it is traced in.
        return jax.make_jaxpr(lambda x: jax.lax.sin(x))(0.0).jaxpr.eqns[0].ctx


def is_key_dtype(dtype: Any) -> bool:
    """Whether an array of this type holds random keys."""
    return bool(jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key))


def key_implementation(dtype: Any) -> str:
    """Returns the name of the generator that an array of keys is for, as `jax.random.wrap_key_data` takes it."""
    return str(dtype._impl.name)


def binder(equation: Any) -> Callable[..., Any]:
    """Returns a function that computes an equation's results from the values of its operands."""
    primitive, context = equation.primitive, equation.ctx
    params: dict[str, Any] | None = None

    def bind(*values: Any) -> Any:
        nonlocal params
        with context.manager:
            if params is None:
                params = primitive.get_bind_params(equation.params)
            return primitive.bind(*values, **params)

    return bind


def argument_names(jaxpr: Any) -> list[str]:
    """Returns the names of the arguments that a traced function's jaxpr is of, such as `params['w']`."""
    count = len(jaxpr.invars)
    names = getattr(getattr(jaxpr, "debug_info", None), "arg_names", None)
    if names is None or len(names) != count:
        return ["parameter"] * count
    return [name or "parameter" for name in names]
