"""A forward scan and the backward scan that reads what it stacks, and how both are made to stack something else.

`jax.grad` of a `lax.scan` makes two scans. The first one stacks *residuals*, values of each iteration that the second
one reads:

    forward, iteration i:    carry ── equations ──► carry'        stacks h[i], g[i], …
    backward, iteration i:   reads h[i], g[i], …

The backward body can compute a residual again from what it has: constants of the forward body, the stacks that the
forward scan reads, the carry of iteration i if the forward scan stacks that, and other values that it stacks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax import lax
from jax.extend.core import ClosedJaxpr, Literal

from memplan.compiler.frontends import jaxpr_versions as versions
from memplan.passes.jaxprs import consumers, producers, spliced, struct, substituted


@dataclass(frozen=True)
class Scan:
    """A `scan` equation taken apart.

    Attributes:
      equation: of JAX.
      body: its jaxpr, open.
      body_consts: values of the body's constants.
      num_consts, num_carry: how many of its operands are constants, and are carried.
    """

    equation: Any
    body: Any
    body_consts: list[Any]
    num_consts: int
    num_carry: int

    @staticmethod
    def of(equation: Any) -> Scan:
        """Takes an equation apart."""
        return Scan(equation, *versions.opened(equation.params["jaxpr"]), *versions.scan_counts(equation.params))

    @property
    def first_stack(self) -> int:
        """The number of the first operand that is a stack."""
        return self.num_consts + self.num_carry

    @property
    def parts(self) -> tuple[Any, Any, Any]:
        """The operands: constants, initial carry, stacks."""
        read, end = self.equation.invars, self.first_stack
        return read[: self.num_consts], read[self.num_consts : end], read[end:]

    def run(self, body: Any, carry: Sequence[Any], stacks: Sequence[Any]) -> Any:
        """Traces a scan of the same length and direction with another body."""
        params = self.equation.params
        return lax.scan(
            body, tuple(carry), tuple(stacks), params["length"], reverse=params["reverse"], unroll=params["unroll"]
        )


@dataclass(frozen=True)
class ScanPair:
    """A forward scan and a backward scan that reads what it stacks.

    Attributes:
      forward, backward: the two.
      residuals: pairs of the number of a result that the forward scan stacks and of the backward scan's stack that it
        is. Nothing else reads it.
    """

    forward: Scan
    backward: Scan
    residuals: tuple[tuple[int, int], ...]

    def atom(self, number: int) -> Any:
        """Returns what the forward body gives as its stacked result of a number."""
        return self.forward.body.outvars[self.forward.num_carry + number]

    @property
    def carried(self) -> list[Any]:
        """The variables of the forward body that are carried in."""
        return list(self.forward.body.invars[self.forward.num_consts : self.forward.first_stack])


@dataclass(frozen=True)
class Stacked:
    """What is decided for a pair.

    Attributes:
      kept: variables of the forward body that are stacked for the backward scan.
      again: places of the equations of the forward body that the backward body computes again.
      residuals: what the backward body reads, and whether each is stacked.
    """

    kept: tuple[Any, ...]
    again: tuple[int, ...]
    residuals: tuple[Residual, ...] = ()


@dataclass(frozen=True)
class Residual:
    """A value of each iteration of a forward scan that the backward scan reads.

    Attributes:
      name: the primitive that computes it, or "argument".
      origin: line of the user's program.
      shape: of the stack.
      size: bytes of the stack.
      is_stacked: whether it is stacked for the backward scan; otherwise it is computed again there, or read from a
        stack that is there anyway.
    """

    name: str
    origin: str
    shape: str
    size: int
    is_stacked: bool


def scan_pairs(jaxpr: Any) -> list[ScanPair]:
    """Returns the pairs of one level of a jaxpr, in the order of the backward scans."""
    made, read = producers(jaxpr), consumers(jaxpr)
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name != "scan":
            continue
        backward = Scan.of(equation)
        residuals: dict[int, list[tuple[int, int]]] = {}
        for number, atom in enumerate(backward.parts[2]):
            source = None if isinstance(atom, Literal) else made.get(atom)
            if source is None or source.primitive.name != "scan":
                continue
            if source.params["length"] != equation.params["length"]:
                continue
            place = source.outvars.index(atom) - versions.scan_counts(source.params)[1]
            if place >= 0 and len(read[atom]) == 1 and equation.invars.count(atom) == 1:
                residuals.setdefault(id(source), []).append((place, number))
        by_id = {id(source): source for source in jaxpr.eqns}
        if residuals:
            # Of several forward scans, the one that stacks most for this one; the others stay as they are.
            most = max(residuals, key=lambda source: len(residuals[source]))
            found.append(ScanPair(Scan.of(by_id[most]), backward, tuple(residuals[most])))
    return found


def restacked(closed: Any, pair: ScanPair, chosen: Stacked) -> tuple[Any, Any]:
    """Returns a program in which one pair stacks what is decided, and the new backward scan."""
    jaxpr = closed.jaxpr
    forward, backward = pair.forward, pair.backward
    removed = {place for place, _ in pair.residuals}
    stays = [k for k in range(len(forward.body.outvars) - forward.num_carry) if k not in removed]
    names: dict[Any, Any] = {}
    equations: list[Any] = []
    stacks: list[Any] = []
    constvars, consts = list(jaxpr.constvars), list(closed.consts)
    latest: Any = None
    for equation in jaxpr.eqns:
        read = [substituted(atom, names) for atom in equation.invars]
        if equation is forward.equation:
            results = _spliced(
                lambda *v: _forward(pair, chosen, stays, v), read, equation, equations, constvars, consts
            )
            carry, count = forward.num_carry, len(stays)
            names.update(zip(equation.outvars[:carry], results[:carry], strict=True))
            kept = [equation.outvars[carry + k] for k in stays]
            names.update(zip(kept, results[carry : carry + count], strict=True))
            stacks = results[carry + count :]
        elif equation is backward.equation:
            given = [substituted(atom, names) for atom in forward.equation.invars]
            dropped = {backward.first_stack + number for _, number in pair.residuals}
            own = [atom for number, atom in enumerate(read) if number not in dropped]
            results = _spliced(
                lambda *v: _backward(pair, chosen, v), [*own, *given, *stacks], equation, equations, constvars, consts
            )
            names.update(zip(equation.outvars, results, strict=True))
            latest = next(e for e in reversed(equations) if e.primitive.name == "scan")
        else:
            equations.append(equation.replace(invars=read))
    results = [substituted(atom, names) for atom in jaxpr.outvars]
    new = jaxpr.replace(constvars=constvars, eqns=equations, outvars=results, debug_info=jaxpr.debug_info)
    return ClosedJaxpr(new, consts), latest


def _spliced(
    function: Any, read: list[Any], origin: Any, equations: list[Any], constvars: list[Any], consts: list[Any]
) -> list[Any]:
    """Appends what a function traces to; returns the names of its results."""

    def traced(*values: Any) -> Any:
        with versions.at_place_of(origin):
            return function(*values)

    new = jax.make_jaxpr(traced)(*(struct(atom.aval) for atom in read))
    constvars += new.jaxpr.constvars
    consts += new.consts
    return spliced(new.jaxpr, dict(zip(new.jaxpr.invars, read, strict=True)), origin, equations)


def _forward(pair: ScanPair, chosen: Stacked, stays: list[int], operands: Sequence[Any]) -> list[Any]:
    """The forward scan: carry, the stacks that others read, and those of the values that are kept."""
    scan = pair.forward
    constants, carry, stacks = _parted(scan, operands)

    def body(carry: Any, slices: Any) -> Any:
        env = dict(zip(scan.body.invars, (*constants, *carry, *slices), strict=True))
        env.update(zip(scan.body.constvars, scan.body_consts, strict=True))
        _evaluate(scan.body, range(len(scan.body.eqns)), env)
        results = [_value(atom, env) for atom in scan.body.outvars]
        own = [results[scan.num_carry + k] for k in stays]
        return tuple(results[: scan.num_carry]), (*own, *(env[variable] for variable in chosen.kept))

    carry, stacked = scan.run(body, carry, stacks)
    return [*carry, *stacked]


def _backward(pair: ScanPair, chosen: Stacked, operands: Sequence[Any]) -> list[Any]:
    """The backward scan, whose body computes the residuals that are not stacked."""
    scan, source = pair.backward, pair.forward
    count = len(scan.equation.invars) - len(pair.residuals)
    own, given = operands[:count], operands[count : count + len(source.equation.invars)]
    kept = operands[count + len(source.equation.invars) :]
    constants, carry, stacks = _parted(scan, own)
    source_constants, _, source_stacks = _parted(source, given)
    slice_names = source.body.invars[source.first_stack :]
    missing = {number: place for place, number in pair.residuals}

    def body(carry: Any, slices: Any) -> Any:
        mine, theirs, values = slices
        env = dict(zip(source.body.invars[: source.num_consts], source_constants, strict=True))
        env.update(zip(source.body.constvars, source.body_consts, strict=True))
        env.update(zip(slice_names, theirs, strict=True))
        env.update(zip(chosen.kept, values, strict=True))
        _evaluate(source.body, chosen.again, env)
        rest = iter(mine)
        read = [
            _value(pair.atom(missing[number]), env) if number in missing else next(rest)
            for number in range(len(scan.equation.invars) - scan.first_stack)
        ]
        inside = dict(zip(scan.body.invars, (*constants, *carry, *read), strict=True))
        inside.update(zip(scan.body.constvars, scan.body_consts, strict=True))
        _evaluate(scan.body, range(len(scan.body.eqns)), inside)
        results = [_value(atom, inside) for atom in scan.body.outvars]
        return tuple(results[: scan.num_carry]), tuple(results[scan.num_carry :])

    carry, stacked = scan.run(body, carry, (tuple(stacks), tuple(source_stacks), tuple(kept)))
    return [*carry, *stacked]


def _parted(scan: Scan, operands: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any], Sequence[Any]]:
    return operands[: scan.num_consts], operands[scan.num_consts : scan.first_stack], operands[scan.first_stack :]


def _value(atom: Any, env: dict[Any, Any]) -> Any:
    return atom.val if isinstance(atom, Literal) else env[atom]


def _evaluate(jaxpr: Any, places: Sequence[int], env: dict[Any, Any]) -> None:
    """Computes equations of a jaxpr, in their order, from the values in `env`, and adds their results to it."""
    for place in places:
        equation = jaxpr.eqns[place]
        with versions.at_place_of(equation):
            results = versions.binder(equation)(*(_value(atom, env) for atom in equation.invars))
        results = results if equation.primitive.multiple_results else [results]
        env.update(zip(equation.outvars, results, strict=True))
