"""The layers of a JAX program as a chain for the planner of pipelines (planners/pipeline/).

The program is cut where one value alone leads on from what was computed of parameters and data. What follows from data
alone, such as a mask, or from parameters alone, such as a copy in fewer bits, is computed by each layer that reads it.
Times are those of the cost model with everything in main memory, after memplan's own fusion; bytes that a layer keeps
are the residuals of `jax.vjp`, without parameters and what follows from parameters alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal

from memplan.compiler.errors import MemplanError, one_line
from memplan.compiler.frontends.jaxpr import trace
from memplan.compiler.hardware.target import Target
from memplan.compiler.ir.memory_order import scheduled
from memplan.compiler.mapping.build import build_problem
from memplan.passes.base import GraphContext
from memplan.passes.fit.inline_calls import in_one_piece
from memplan.passes.graph_manager import DEFAULT, chosen_graph_passes, run_graph_passes
from memplan.passes.jaxprs import struct
from memplan.passes.levels.program import bound
from memplan.planners.pipeline.problem import PipelineLayer

# Bytes of the optimizer for each parameter: two float32 of Adam, and a float32 copy of parameters in fewer bits.
_ADAM, _COPY = 8, 4


@dataclass(frozen=True)
class _Segment:
    """Part of a program, as a function of its own.

    Attributes:
      fun: takes parameters, data, and what the segment before computed; returns what leads on.
      params, data, entering: abstract arguments.
    """

    fun: Callable[[list[Any], list[Any], list[Any]], list[Any]]
    params: list[Any]
    data: list[Any]
    entering: list[Any]


def pipeline_layers(
    fun: Callable[..., Any], *args: Any, target: Target, most_layers: int = 64
) -> tuple[PipelineLayer, ...]:
    """Returns the layers of a program, which is traced and not run.

    Args:
      fun: a forward pass or a loss, of the size of one microbatch.
      args: its arguments, abstract or not, of which the first holds the parameters.
      target: the device.
      most_layers: as many as this; neighbours that do least become one.

    Raises:
      MemplanError: the program cannot be traced, or there is no place to cut it.
    """
    try:
        closed = in_one_piece(jax.make_jaxpr(fun)(*args))
    except Exception as error:
        raise MemplanError(f"the program does not trace: {one_line(error)}") from error
    program = _ChainProgram(closed, len(jax.tree.leaves(args[0])) if args else 0)
    cuts = program.cuts(most_layers)
    if not cuts:
        raise MemplanError(
            "the program has no place where one value alone leads on: give a forward pass or a loss whose layers are "
            "not in a loop, and not a whole training step"
        )
    known: dict[str, tuple[float, float, int]] = {}
    layers = []
    for number, (start, end) in enumerate(zip((0, *cuts), (*cuts, len(closed.jaxpr.eqns)), strict=True)):
        segment = program.segment(start, end)
        passed = jax.eval_shape(segment.fun, segment.params, segment.data, segment.entering)
        text = str(jax.make_jaxpr(segment.fun)(segment.params, segment.data, segment.entering))
        if text not in known:
            known[text] = _costs(segment, target)
        forward, backward, kept = known[text]
        state = sum(_state(value) for value in segment.params)
        layers.append(PipelineLayer(f"layer {number}", forward, backward, state, kept, _bytes(passed)))
    return tuple(layers)


class _ChainProgram:
    """A program, and what of it depends on what.

    Args:
      closed: in one piece.
      params: how many of its arguments are parameters.
    """

    def __init__(self, closed: Any, params: int):
        self._jaxpr, self._consts = closed.jaxpr, closed.consts
        self._params, self._data = self._jaxpr.invars[:params], self._jaxpr.invars[params:]
        of_params, of_data = set(self._params), set(self._data)
        self._makers: dict[Any, int] = {}
        for number, equation in enumerate(self._jaxpr.eqns):
            read = {atom for atom in equation.invars if not isinstance(atom, Literal)}
            for variable in equation.outvars:
                self._makers[variable] = number
                if read & of_params:
                    of_params.add(variable)
                if read & of_data:
                    of_data.add(variable)
        self._stream = of_params & of_data

    def cuts(self, most_layers: int) -> list[int]:
        """Returns the equations before which the program is cut."""
        equations = self._jaxpr.eqns
        last = dict.fromkeys(self._stream, -1)
        for number, equation in enumerate(equations):
            for atom in equation.invars:
                if not isinstance(atom, Literal) and atom in last:
                    last[atom] = number
        for atom in self._jaxpr.outvars:
            if not isinstance(atom, Literal) and atom in last:
                last[atom] = len(equations)
        live: set[Any] = set()
        weights, cuts, weight = [], [], 0
        for number, equation in enumerate(equations):
            live = {variable for variable in live if last[variable] >= number}
            if len(live) == 1 and weight:
                cuts.append(number)
                weights.append(weight)
                weight = 0
            made = [variable for variable in equation.outvars if variable in self._stream]
            live.update(made)
            if made:
                weight += _bytes([atom.aval for atom in (*equation.invars, *equation.outvars)])
        weights.append(weight)
        while len(cuts) + 1 > most_layers:
            place = min(range(len(cuts)), key=lambda each: (weights[each] + weights[each + 1], each))
            weights[place : place + 2] = [weights[place] + weights[place + 1]]
            del cuts[place]
        return cuts

    def segment(self, start: int, end: int) -> _Segment:
        """Returns equations as a function, with those before them that do not belong to the chain."""
        equations = self._jaxpr.eqns
        inside = set(range(start, end))
        if end == len(equations):
            results = [atom for atom in self._jaxpr.outvars if not isinstance(atom, Literal)]
        else:
            # One value leads on.
            later = [atom for equation in equations[end:] for atom in equation.invars]
            later += self._jaxpr.outvars
            results = [
                atom
                for atom in dict.fromkeys(each for each in later if not isinstance(each, Literal))
                if atom in self._stream and self._makers[atom] < end
            ]
        needed: set[int] = set()
        entering: dict[Any, None] = {}
        todo = list(results)
        while todo:
            atom = todo.pop()
            maker = self._makers.get(atom)
            if atom in self._stream and maker not in inside:
                entering[atom] = None
            elif maker is not None and maker not in needed:
                needed.add(maker)
                todo += [each for each in equations[maker].invars if not isinstance(each, Literal)]
        read = {atom for number in needed for atom in equations[number].invars if not isinstance(atom, Literal)}
        params = [variable for variable in self._params if variable in read or variable in results]
        data = [variable for variable in self._data if variable in read or variable in results]
        order = sorted(needed)

        def fun(some: list[Any], others: list[Any], before: list[Any]) -> list[Any]:
            values = dict(zip(self._jaxpr.constvars, self._consts, strict=True))
            values |= dict(zip([*params, *data, *entering], [*some, *others, *before], strict=True))
            for number in order:
                equation = equations[number]
                operands = [atom.val if isinstance(atom, Literal) else values[atom] for atom in equation.invars]
                made = bound(equation, operands)
                values.update(
                    zip(equation.outvars, made if equation.primitive.multiple_results else [made], strict=True)
                )
            return [values[atom] for atom in results]

        abstract = [[struct(variable.aval) for variable in each] for each in (params, data, entering)]
        return _Segment(fun, *abstract)


def _costs(segment: _Segment, target: Target) -> tuple[float, float, int]:
    """Returns the seconds of the forward and of the backward pass of a segment, and the bytes that it keeps."""
    learned = [number for number, value in enumerate(segment.params) if jnp.issubdtype(value.dtype, jnp.inexact)]

    def keeping(params: list[Any], data: list[Any], entering: list[Any]) -> tuple[Any, Any]:
        def of(some: list[Any], before: list[Any]) -> list[Any]:
            whole = list(params)
            for number, value in zip(learned, some, strict=True):
                whole[number] = value
            return [value for value in segment.fun(whole, data, before) if jnp.issubdtype(value.dtype, jnp.inexact)]

        return jax.vjp(of, [params[number] for number in learned], entering)

    closed, (results, pull) = jax.make_jaxpr(keeping, return_shape=True)(segment.params, segment.data, segment.entering)
    forward = _seconds(trace(segment.fun, segment.params, segment.data, segment.entering), target)
    backward = _seconds(trace(lambda pull, slopes: pull(slopes), pull, results), target)
    return forward, backward, _kept(closed.jaxpr, len(segment.params), len(segment.data), len(results))


def _kept(jaxpr: Any, params: int, data: int, results: int) -> int:
    """Returns the bytes of the residuals that a microbatch has of its own."""
    chain = set(jaxpr.invars[params + data :])
    own = chain | set(jaxpr.invars[params : params + data])
    for equation in jaxpr.eqns:
        if any(atom in own for atom in equation.invars if not isinstance(atom, Literal)):
            own.update(equation.outvars)
    # Data stand anyway, and the results are the next layer's.
    own -= set(jaxpr.invars[params : params + data])
    kept = {atom for atom in jaxpr.outvars[results:] if not isinstance(atom, Literal) and atom in own}
    kept -= {atom for atom in jaxpr.outvars[:results] if not isinstance(atom, Literal)}
    return _bytes([atom.aval for atom in kept])


def _seconds(graph: Any, target: Target) -> float:
    """Returns the seconds of a program by the cost model, with everything in main memory."""
    fused = run_graph_passes(graph, chosen_graph_passes(DEFAULT), GraphContext(target)).graph
    problem = build_problem(scheduled(fused), target)
    trips: list[float] = []
    for region in problem.regions:
        trips.append(region.trip_count * (trips[region.parent] if region.parent >= 0 else 1))
    return float(
        sum(
            operation.duration([0] * len(operation.accesses)) * trips[operation.region]
            for operation in problem.operations
        )
    )


def _state(value: Any) -> int:
    """Returns the bytes of a parameter, its gradient, and what Adam has of it."""
    own = _bytes([value])
    if not jnp.issubdtype(value.dtype, jnp.inexact):
        return own
    return 2 * own + int(value.size) * (_ADAM + (_COPY if value.dtype.itemsize < 4 else 0))


def _bytes(values: Sequence[Any]) -> int:
    return sum(int(value.size) * value.dtype.itemsize for value in values if hasattr(value, "dtype"))
