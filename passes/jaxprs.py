"""Tools for rewriting jaxprs: walking into calls and loops, replacing equations, and naming their sources."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Var


@dataclass(frozen=True)
class Replacement:
    """What takes the place of an equation.

    Attributes:
      function: of JAX; its results are those of the equation.
      operands: variables and literals that it is called with; any that the equation could read are allowed.
    """

    function: Callable[..., Any]
    operands: Sequence[Any]


@dataclass(frozen=True)
class Existing:
    """Variables or literals that exist already and have the values of the results of an equation."""

    atoms: Sequence[Any]


Rule = Callable[[Any], Replacement | Existing | None]


def where(equation: Any) -> str:
    """Returns file, line and function of the user's program that an equation came from."""
    from jax._src import source_info_util  # there is no public name for it

    return str(source_info_util.summarize(equation.source_info))


def producers(jaxpr: Jaxpr) -> dict[Any, Any]:
    """Returns the equation that each variable is a result of."""
    return {variable: equation for equation in jaxpr.eqns for variable in equation.outvars}


def consumers(jaxpr: Jaxpr) -> dict[Any, list[Any]]:
    """Returns the equations that read each variable; None stands for the results of the jaxpr."""
    found: dict[Any, list[Any]] = {}
    for equation in jaxpr.eqns:
        for atom in equation.invars:
            if not isinstance(atom, Literal):
                found.setdefault(atom, []).append(equation)
    for atom in jaxpr.outvars:
        if not isinstance(atom, Literal):
            found.setdefault(atom, []).append(None)
    return found


def inner_jaxprs(equation: Any) -> Iterator[tuple[str, int | None, Any]]:
    """Yields the jaxprs of an equation, closed or not, as `(parameter, place, jaxpr)`; place is None if no tuple."""
    for name, value in equation.params.items():
        if isinstance(value, (ClosedJaxpr, Jaxpr)):
            yield name, None, value
        elif isinstance(value, (tuple, list)):
            for number, part in enumerate(value):
                if isinstance(part, (ClosedJaxpr, Jaxpr)):
                    yield name, number, part


def with_inner(equation: Any, change: Callable[[ClosedJaxpr], ClosedJaxpr]) -> Any:
    """Returns an equation in which every jaxpr is changed.

    An open jaxpr (of `jax.checkpoint` and others) that would need constants of its own stays unchanged.
    """
    params = dict(equation.params)
    changed = False
    for name, number, inner in inner_jaxprs(equation):
        is_closed = isinstance(inner, ClosedJaxpr)
        if not is_closed and inner.constvars:
            continue
        new: Any = change(inner if is_closed else ClosedJaxpr(inner, ()))
        if not is_closed:
            if new.consts:
                continue
            new = new.jaxpr
        if new is inner or (is_closed and new.jaxpr is inner.jaxpr):
            continue
        changed = True
        if number is None:
            params[name] = new
        else:
            parts = list(params[name])
            parts[number] = new
            params[name] = type(params[name])(parts)
    return equation.replace(params=params) if changed else equation


def everywhere(closed: ClosedJaxpr, change: Callable[[ClosedJaxpr], ClosedJaxpr]) -> ClosedJaxpr:
    """Returns a jaxpr that a function of one level has changed on every level, the innermost first."""
    equations = [with_inner(equation, lambda inner: everywhere(inner, change)) for equation in closed.jaxpr.eqns]
    if any(new is not old for new, old in zip(equations, closed.jaxpr.eqns, strict=True)):
        closed = ClosedJaxpr(closed.jaxpr.replace(eqns=equations), closed.consts)
    return change(closed)


def substituted(atom: Any, names: Mapping[Any, Any]) -> Any:
    """Returns what stands for an atom."""
    return atom if isinstance(atom, Literal) else names.get(atom, atom)


def edited(closed: ClosedJaxpr, rule: Rule) -> ClosedJaxpr:
    """Returns a jaxpr in which a rule has replaced equations of the outermost level; the same one if it replaced none.

    Args:
      closed: the jaxpr.
      rule: called with each equation as it stands in the jaxpr, in order.
    """
    jaxpr = closed.jaxpr
    names: dict[Any, Any] = {}
    equations: list[Any] = []
    constvars, consts = list(jaxpr.constvars), list(closed.consts)
    changed = False
    for equation in jaxpr.eqns:
        found = rule(equation)
        if found is None:
            read = [substituted(atom, names) for atom in equation.invars]
            equations.append(equation.replace(invars=read) if read != list(equation.invars) else equation)
            continue
        changed = True
        if isinstance(found, Existing):
            results = [substituted(atom, names) for atom in found.atoms]
        else:
            operands = [substituted(atom, names) for atom in found.operands]
            new = jax.make_jaxpr(found.function)(*(struct(atom.aval) for atom in operands))
            arguments = dict(zip(new.jaxpr.invars, operands, strict=True))
            results = spliced(new.jaxpr, arguments, equation, equations)
            constvars += new.jaxpr.constvars
            consts += new.consts
        names.update(zip(equation.outvars, results, strict=True))
    if not changed:
        return closed
    results = [substituted(atom, names) for atom in jaxpr.outvars]
    return ClosedJaxpr(
        jaxpr.replace(constvars=constvars, eqns=equations, outvars=results, debug_info=jaxpr.debug_info), consts
    )


def struct(aval: Any) -> Any:
    """Returns the shape and dtype of an abstract value, to trace with."""
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype, weak_type=getattr(aval, "weak_type", False))


def spliced(new: Jaxpr, names: dict[Any, Any], origin: Any, equations: list[Any]) -> list[Any]:
    """Appends a jaxpr's equations; returns the names of its results in the jaxpr around it.

    Args:
      new: the jaxpr.
      names: there, of its arguments, and of its constants unless these keep their names.
      origin: the equation that is replaced; equations without a place in the user's program get that of it.
      equations: to append to.
    """
    names = dict(names)
    for equation in new.eqns:
        read = [substituted(atom, names) for atom in equation.invars]
        written = [fresh(variable) for variable in equation.outvars]
        names.update(zip(equation.outvars, written, strict=True))
        place = equation.source_info if where(equation) else origin.source_info
        equations.append(equation.replace(invars=read, outvars=written, source_info=place))
    return [substituted(atom, names) for atom in new.outvars]


def fresh(variable: Any) -> Any:
    """Returns a new variable of the same type; a variable that is never read stays one."""
    if type(variable) is not Var:
        return variable  # a DropVar
    return Var(variable.aval)
