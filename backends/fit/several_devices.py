"""Programs of several devices under one limit each: what every device holds of each value.

A program whose arguments have shardings is partitioned by XLA, and the sizes in its jaxpr are those of all devices
together. XLA is asked once which sharding it gives to every value, and the problem gets the sizes of one device. The
rewritten program is one of all devices again, with the shardings of arguments and results that the program as given
has. Barriers keep the shardings of what passes through them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
from jax.extend.core import Literal
from jax.sharding import AbstractMesh, AxisType, Mesh, Sharding

from memplan.compiler.errors import MemplanError
from memplan.compiler.frontends import jaxpr_versions as versions
from memplan.compiler.frontends.jaxpr_arrays import shape_of
from memplan.compiler.ir.shape import print_shape
from memplan.passes.fit.kinds import bytes_of
from memplan.passes.fit.program import FitProgram
from memplan.passes.jaxprs import inner_jaxprs, struct
from memplan.planners.fit.problem import FitNode, FitValue

# Equations whose bodies are for one device each.
_MANUAL = frozenset({"custom_partitioning", "shard_map", "xla_pmap"})


def argument_shardings(traced: Any, leaves: Sequence[Any]) -> list[Sharding | None]:
    """Returns the sharding of each argument: what `jax.jit` was given, or the argument's own; None for neither."""
    stated = versions.stated_shardings(traced)
    found: list[Sharding | None] = []
    for number, leaf in enumerate(leaves):
        given = stated[number] if number < len(stated) else None
        own = getattr(leaf, "sharding", None) if getattr(leaf, "committed", True) else None
        found.append(next((each for each in (given, own) if isinstance(each, Sharding)), None))
    return found


def result_shardings(traced: Any, closed: Any, partition: Mapping[Any, Sharding]) -> list[Sharding | None]:
    """Returns the sharding of each result: what `jax.jit` was given, or what XLA chooses; None if neither is known.

    Args:
      traced: what `jax.jit(…).trace(…)` returned.
      closed: the program in one piece.
      partition: the shardings of its variables, see `value_shardings`.
    """
    results = closed.jaxpr.outvars
    stated = versions.stated_shardings(traced)[-len(results) :] if results else []
    return [
        given if isinstance(given, Sharding) else None if isinstance(result, Literal) else partition.get(result)
        for given, result in zip(stated, results, strict=True)
    ]


def check_partitioned_by_xla(closed: Any, name: str) -> None:
    """Raises MemplanError if a program says itself what each device does, or if its types hold shardings."""
    for equation in versions.opened(closed)[0].eqns:
        primitive = equation.primitive.name
        meshes = [getattr(value, "mesh", value) for value in equation.params.values()]
        named = [mesh for mesh in meshes if isinstance(mesh, Mesh | AbstractMesh)]
        if primitive in _MANUAL or any(AxisType.Explicit in mesh.axis_types for mesh in named):
            raise MemplanError(
                f"{name} is for several devices, and its {primitive} says what each does: memplan fits programs that "
                "jax.jit partitions by the shardings of their arguments"
            )
        for _, _, inner in inner_jaxprs(equation):
            check_partitioned_by_xla(inner, name)


def value_shardings(closed: Any, arguments: Sequence[Sharding | None]) -> dict[Any, Sharding]:
    """Returns the sharding that XLA gives to each variable of a program, as far as it is an array.

    Args:
      closed: the program in one piece.
      arguments: their shardings, see `argument_shardings`.
    """
    jaxpr, constants = versions.opened(closed)
    found: dict[Any, Sharding] = {}

    def note(variable: Any, value: Any) -> None:
        if getattr(value, "ndim", 0) and not versions.is_key_dtype(value.dtype):
            jax.debug.inspect_array_sharding(value, callback=lambda sharding: found.__setitem__(variable, sharding))

    def program(*values: Any) -> list[Any]:
        known = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*constants, *values), strict=True))
        for variable, value in known.items():
            note(variable, value)
        for equation in jaxpr.eqns:
            read = [atom.val if isinstance(atom, Literal) else known[atom] for atom in equation.invars]
            made = versions.binder(equation)(*read)
            for variable, value in zip(
                equation.outvars, made if equation.primitive.multiple_results else [made], strict=True
            ):
                known[variable] = value
                note(variable, value)
        return [atom.val if isinstance(atom, Literal) else known[atom] for atom in jaxpr.outvars]

    jax.jit(program, keep_unused=True).lower(*sharded_structs(jaxpr, arguments)).compile()
    return found


def sharded_structs(jaxpr: Any, arguments: Sequence[Sharding | None]) -> list[Any]:
    """Returns shapes of the arguments of a jaxpr with their shardings, to trace with."""
    return [
        struct(variable.aval).update(sharding=sharding)
        for variable, sharding in zip(jaxpr.invars, arguments, strict=True)
    ]


def on_one_device(program: FitProgram, shardings: dict[Any, Sharding]) -> FitProgram:
    """Returns a program whose problem has the sizes and times of one device.

    A node takes the part of its time that one device has of the bytes that it touches. What devices tell each other
    takes no time.

    Args:
      program: of all devices.
      shardings: of its variables, see `value_shardings`; what is not there is whole on every device.
    """
    problem = program.problem
    values: list[FitValue] = []
    for variable, value in zip(program.variables, problem.values, strict=True):
        sharding = shardings.get(variable)
        if sharding is not None:
            local = variable.aval.update(shape=sharding.shard_shape(variable.aval.shape), sharding=None)
            value = replace(value, size=bytes_of(local), shape=print_shape(shape_of(local)))
        values.append(value)
    nodes = tuple(_on_one_device(node, problem.values, values) for node in problem.nodes)
    return replace(program, problem=replace(problem, values=tuple(values), nodes=nodes))


def _on_one_device(node: FitNode, whole: Sequence[FitValue], local: Sequence[FitValue]) -> FitNode:
    touched = (*node.inputs, *node.outputs)
    total = sum(whole[value].size for value in touched)
    share = sum(local[value].size for value in touched) / total if total else 1.0
    pairs = tuple((made, read) for made, read in node.in_place if local[made].size == local[read].size)
    return replace(node, seconds=node.seconds * share, workspace=round(node.workspace * share), in_place=pairs)
