"""A program without calls, in which constants are apart from arguments, and small results of constants are computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.extend.core import Literal

from memplan.compiler.embedded.program import StorageKind
from memplan.compiler.frontends import jaxpr_versions as versions
from memplan.passes.embedded.rules import RULES, VIEWS
from memplan.passes.fit.inline_calls import in_one_piece

# Results of equations on constants alone are constants up to so many bytes.
_MOST_FOLDED = 4096


@dataclass(frozen=True)
class ArgumentRole:
    """What an array in the program's arguments is.

    Attributes:
      kind: INPUT, CONSTANT or STATE.
      name: for messages and identifiers.
      value: of a constant, or the first one of a state.
    """

    kind: StorageKind
    name: str
    value: Any = None


@dataclass(frozen=True)
class FlatEquations:
    """Equations and what they read.

    Attributes:
      constants: value and name of each constant, by its variable.
      invars, roles: the inputs and states.
      eqns: the equations.
      outvars: the new states and the results, variables or literals.
    """

    constants: dict[Any, tuple[Any, str]]
    invars: list[Any]
    roles: list[ArgumentRole]
    eqns: list[Any]
    outvars: list[Any]


def flat_program(closed: Any, roles: Sequence[ArgumentRole]) -> FlatEquations:
    """Returns a program in one piece; states that it returns as they are become constants."""
    closed = in_one_piece(closed)
    jaxpr = closed.jaxpr
    given = list(zip(jaxpr.invars, roles, strict=True))
    states = [v for v, role in given if role.kind is StorageKind.STATE]
    kept = {v for v, new in zip(states, jaxpr.outvars, strict=False) if v is new}
    constants = {
        v: (value, f"constant_{number}")
        for number, (v, value) in enumerate(zip(jaxpr.constvars, closed.consts, strict=True))
    }
    for v, role in given:
        if role.kind is StorageKind.CONSTANT or v in kept:
            constants[v] = (role.value, role.name)
    arguments = [(v, role) for v, role in given if v not in constants]
    outvars = [v for k, v in enumerate(jaxpr.outvars) if k >= len(states) or states[k] not in kept]
    equations = _without_folded(jaxpr.eqns, constants)
    return FlatEquations(constants, [v for v, _ in arguments], [role for _, role in arguments], equations, outvars)


def _without_folded(equations: Sequence[Any], constants: dict[Any, tuple[Any, str]]) -> list[Any]:
    """Returns the equations but those of constants with small results, and adds these results to the constants.

    A conversion to a wider type is folded only into other results: int8 weights stay int8 in flash.
    """
    left: list[Any] = []
    widened: dict[Any, Any] = {}
    for equation in equations:
        known = [isinstance(atom, Literal) or atom in constants for atom in equation.invars]
        foldable = equation.primitive.name in RULES and equation.primitive.name not in VIEWS and not equation.effects
        if not foldable or not all(known) or max(map(_num_bytes, equation.outvars)) > _MOST_FOLDED:
            for atom in equation.invars:
                if not isinstance(atom, Literal) and atom in widened:
                    left.append(widened.pop(atom))
                    del constants[atom]
            left.append(equation)
            continue
        operands = [atom.val if isinstance(atom, Literal) else constants[atom][0] for atom in equation.invars]
        with jax.ensure_compile_time_eval():
            results = versions.binder(equation)(*operands)
        results = results if equation.primitive.multiple_results else [results]
        for v, value in zip(equation.outvars, results, strict=True):
            constants[v] = (value, f"{equation.primitive.name} of constants")
        if equation.primitive.name == "convert_element_type" and _widens(equation):
            widened[equation.outvars[0]] = equation
    return left


def _widens(equation: Any) -> bool:
    (operand,), (result,) = equation.invars, equation.outvars
    return not isinstance(operand, Literal) and result.aval.size > 1 and _num_bytes(result) > _num_bytes(operand)


def _num_bytes(variable: Any) -> int:
    return math.prod(variable.aval.shape) * np.dtype(variable.aval.dtype).itemsize
