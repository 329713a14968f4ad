"""The bytes of a program's arguments and results, which are there whatever a plan decides."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import jax
from jax.extend.core import Literal

from memplan.backends.fit.result import CannotFitError
from memplan.backends.fit.standing import describe, peak_of_interface
from memplan.compiler.frontends import jaxpr_versions as versions
from memplan.compiler.frontends.jaxpr_arrays import shape_of
from memplan.compiler.ir.shape import BITS_PER_ELEMENT, print_shape
from memplan.compiler.report.buffers import BufferKind
from memplan.compiler.report.standing import StandingBuffer
from memplan.passes.fit.inline_calls import in_one_piece
from memplan.passes.fit.kinds import bytes_of


def check_interface(traced: Any, arguments: Iterable[Any], limit: int) -> None:
    """Raises CannotFitError if the arguments and results of a program are larger than a limit by themselves.

    Arguments that nothing uses do not count, and results may lie in the memory of donated arguments.

    Args:
      traced: what `jax.jit(…).trace(…)` returned.
      arguments: the leaves of what it was traced for.
      limit: bytes.
    """
    results = jax.tree.leaves(traced.out_info)
    given = jax.tree.leaves(traced.args_info)
    if sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in (*given, *results)) <= limit:
        return
    if any(map(_is_on_host, (*arguments, *results))):
        return  # what lies on the host takes nothing of the limit
    jaxpr, _ = versions.opened(in_one_piece(traced.jaxpr))
    outputs = dict.fromkeys(atom for atom in jaxpr.outvars if not isinstance(atom, Literal))
    used = {atom for equation in jaxpr.eqns for atom in equation.invars if not isinstance(atom, Literal)} | set(outputs)
    last_use = {atom: e.primitive.name for e in jaxpr.eqns for atom in e.invars if not isinstance(atom, Literal)}
    donated = {v for v, info in zip(jaxpr.invars, given, strict=True) if info.donated}
    names = dict(zip(jaxpr.invars, versions.argument_names(jaxpr), strict=True))
    taken = [variable for variable in jaxpr.invars if variable in used]
    made = [variable for variable in outputs if variable not in names]
    names |= {variable: f"result {number}" for number, variable in enumerate(outputs) if variable not in names}
    reusable = sum(map(_least_bytes, donated))
    standing = []
    for number, variable in enumerate((*taken, *made)):
        size, kind = _least_bytes(variable), BufferKind.UPDATED if variable in donated else BufferKind.ARGUMENT
        if number >= len(taken):
            kind = BufferKind.RESULT
            reused = min(size, reusable)
            size, reusable = size - reused, reusable - reused
        shape = print_shape(shape_of(variable.aval))
        described = describe(names[variable], shape, bytes_of(variable.aval), kind, last_use=last_use.get(variable, ""))
        standing.append(StandingBuffer(number, size, described))
    size = sum(buffer.bytes for buffer in standing)
    if size > limit:
        raise CannotFitError(limit, size, None, peak_of_interface(standing), (), is_interface=True)


def _is_on_host(leaf: Any) -> bool:
    """Whether an argument or a result lies in the memory of an accelerator's host."""
    sharding = getattr(leaf, "sharding", None)
    kind = getattr(sharding, "memory_kind", None)
    if sharding is not None and kind == "unpinned_host":
        # The main memory of a CPU has this name too.
        return any(device.platform != "cpu" for device in sharding.device_set)
    return bool(kind == "pinned_host")


def _least_bytes(variable: Any) -> int:
    """Returns the bytes that a value takes at least: compilers may pack elements of less than a byte."""
    shape = shape_of(variable.aval)
    return bytes_of(variable.aval) and math.prod(shape.dims) * BITS_PER_ELEMENT[shape.dtype] // 8
