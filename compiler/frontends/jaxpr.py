"""Tracing a JAX function to a Graph.

    trace(fun, *args) ──► jaxpr ──► lower_jaxpr, equation by equation ──► Graph
                                      rules: jaxpr_rules        primitives that are opcodes of HLO
                                             jaxpr_combinators  reductions, sorts, scatters
                                             jaxpr_control      loops, branches, calls

The order of the equations is the program's order. Every instruction but parameters and control flow can `evaluate`
itself with JAX's own implementation of the primitive, so that a Graph can be executed (see `emulator.values`).
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax

from memplan.compiler.frontends import jaxpr_versions as versions
from memplan.compiler.frontends.jaxpr_arrays import shape_of
from memplan.compiler.frontends.jaxpr_builder import ComputationBuilder, ModuleBuilder
from memplan.compiler.frontends.jaxpr_combinators import COMBINATOR_RULES
from memplan.compiler.frontends.jaxpr_control import CONTROL_RULES
from memplan.compiler.frontends.jaxpr_devices import demand_one_device
from memplan.compiler.frontends.jaxpr_equation import Rules, Scope, lower_jaxpr
from memplan.compiler.frontends.jaxpr_rules import SIMPLE_RULES
from memplan.compiler.ir import Alias, Graph, Shape, Source
from memplan.compiler.ir.trip_count import with_trip_counts

RULES: Rules = {**SIMPLE_RULES, **COMBINATOR_RULES, **CONTROL_RULES}


def trace(
    fun: Callable[..., Any],
    *args: Any,
    donate_argnums: int | Sequence[int] = (),
    static_argnums: int | Sequence[int] = (),
    trip_counts: Mapping[str, int] | None = None,
) -> Graph:
    """Returns the program that a function is for arguments of these shapes and types.

    >>> import jax.numpy as jnp
    >>> graph = trace(lambda x, y: jnp.tanh(x @ y), jax.ShapeDtypeStruct((4, 8), "float32"), jnp.ones((8, 2)))
    >>> [instruction.opcode for instruction in graph.entry_computation.instructions]
    ['parameter', 'parameter', 'dot', 'tanh']

    Args:
      fun: a function of pytrees of arrays. One that is wrapped by `jax.jit` keeps what it was given there; the other
        arguments of `trace` must then be left out.
      *args: arrays, `jax.ShapeDtypeStruct`s or Python numbers, in any pytrees; values of static arguments.
      donate_argnums: numbers of the arguments whose memory the results may reuse, as for `jax.jit`.
      static_argnums: numbers of the arguments that are Python values, as for `jax.jit`.
      trip_counts: name of a loop of the Graph to how often it runs, where the program does not say it.

    Raises:
      GraphError: the function computes on what a Graph cannot hold, such as mutable references, or has no loop of such
        a name.
      SeveralDevicesError: the program is for several devices, by the shardings of its arguments or by its own.
    """
    if not (hasattr(fun, "trace") and hasattr(fun, "lower")) or donate_argnums or static_argnums:
        fun = jax.jit(fun, donate_argnums=donate_argnums, static_argnums=static_argnums)
    traced = fun.trace(*args)  # type: ignore[attr-defined]
    return with_trip_counts(graph_of_traced(traced, jax.tree.leaves(args)), trip_counts or {})


def graph_of_traced(traced: Any, arguments: Iterable[Any]) -> Graph:
    """Returns the Graph of what `jax.jit(…).trace(…)` returned.

    Args:
      traced: JAX's stage.
      arguments: the leaves of what it was traced for.

    Raises:
      GraphError, SeveralDevicesError: see `trace`.
    """
    demand_one_device(traced, arguments)
    donated = [info.donated for info in jax.tree.leaves(traced.args_info)]
    graph = graph_of_jaxpr(traced.jaxpr, traced.fun_name, donated)
    return replace(graph, result_tree=jax.tree.structure(traced.out_info))


def graph_of_jaxpr(jaxpr: Any, name: str = "jaxpr", donated: Sequence[bool] = ()) -> Graph:
    """Returns the Graph of a closed jaxpr, in the order of its equations.

    Args:
      jaxpr: as `jax.make_jaxpr` gives it.
      name: of the function.
      donated: per argument, whether results may reuse its memory; none by default.

    Raises:
      GraphError: see `trace`.
    """
    inner, _ = versions.opened(jaxpr)
    donated = list(donated) or [False] * len(inner.invars)
    scope = Scope(f"jit({name})")
    module = ModuleBuilder()
    builder = ComputationBuilder(module, "main")
    arguments = [
        builder.parameter(shape_of(variable.aval), name, Source(op_name=name))
        for variable, name in zip(inner.invars, versions.argument_names(inner), strict=True)
    ]
    results = lower_jaxpr(builder, jaxpr, arguments, scope, RULES)
    aliases = _aliases(inner, donated)
    reused = {output: parameter for parameter, output in aliases.items()}
    results = _own_memory(builder, results, reused)
    entry = builder.finish_with(results)
    is_tuple = len(results) != 1
    return Graph(
        name=module.unique_name(f"jit_{name}"),
        computations=module.computations,
        entry=entry,
        # The order is the program's own; no compiler has seen to it that results may overwrite what they are made of.
        is_scheduled=False,
        aliases=tuple(
            Alias((output,) if is_tuple else (), parameter, (), must=False)
            for output, parameter in sorted(reused.items())
        ),
        origin="jaxpr",
        warnings=tuple(module.warnings),
    )


def _aliases(jaxpr: Any, donated: Sequence[bool]) -> dict[int, int]:
    """Returns per donated argument the result that reuses its memory.

    As `jax.jit` decides: results in turn take the first donated argument of their shape and type that is left.
    """
    free: dict[Shape, deque[int]] = defaultdict(deque)
    for parameter, (variable, is_donated) in enumerate(zip(jaxpr.invars, donated, strict=True)):
        if is_donated:
            free[shape_of(variable.aval)].append(parameter)
    aliases = {}
    for output, atom in enumerate(jaxpr.outvars):
        available = free.get(shape_of(atom.aval))
        if available:
            aliases[available.popleft()] = output
    return aliases


def _own_memory(builder: ComputationBuilder, results: Sequence[int], reused: dict[int, int]) -> list[int]:
    """Copies results that would lie in memory that is not theirs: of an argument, a constant or another result.

    As XLA's copy insertion does (xla/service/copy_insertion.h, "special case copies"): the caller may hold all of them.

    Args:
      reused: per result, the number of the argument whose memory it reuses.
    """
    taken: set[str] = set()
    owned = []
    for output, value in enumerate(results):
        owner = builder.source_of(value)
        shape = builder.shape(value)
        is_given = owner.opcode == "constant" or (
            owner.opcode == "parameter" and reused.get(output) != owner.parameter_number
        )
        if shape.is_array and (is_given or owner.name in taken):
            value = builder.emit("copy", shape, (value,), evaluate=lambda array: array)
        else:
            taken.add(owner.name)
        owned.append(value)
    return owned
