"""Groups of equations that XLA compiles to one instruction, so that only values between groups have buffers.

    e = exp(x)          ┐ one group with the result `s`: `e` and `y` never have a buffer
    y = e * 2           │
    s = reduce_sum(y)   ┘

A group is one equation, its *root*, with the cheap equations that it computes for itself; a cheap equation may be part
of several groups. Views belong to the groups that read them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jax.extend.core import Literal

from memplan.compiler.frontends.jaxpr_versions import scan_counts
from memplan.passes.fit.kinds import Kind, bytes_of, is_elementwise, kind_of

# Equations of one group at most; XLA stops as well where fusions compute the same too often.
_LARGEST = 64

# Equations that overwrite their first operands where these are not needed any more.
_OVERWRITE = frozenset({"dynamic_update_slice", "scatter", "scatter-add", "sort"})


@dataclass(frozen=True)
class EquationGroup:
    """Equations that run as one.

    Attributes:
      members: places of the equations in the jaxpr, ascending, the root last.
      reads: variables that it reads: arguments, constants, and what other groups write.
      writes: variables that it writes into buffers.
      in_place: pairs `(written, read)` of variables that may share a buffer.
    """

    members: tuple[int, ...]
    reads: tuple[Any, ...]
    writes: tuple[Any, ...]
    in_place: tuple[tuple[Any, Any], ...]

    @property
    def root(self) -> int:
        """The place of the equation that the group is there for."""
        return self.members[-1]


def groups_of(jaxpr: Any) -> list[EquationGroup]:
    """Returns the groups of a jaxpr in the order of their roots; every equation is in one of them at least.

    The jaxpr must have no dead equations.
    """
    equations = jaxpr.eqns
    kinds = [kind_of(equation) for equation in equations]
    producer = {variable: place for place, equation in enumerate(equations) for variable in equation.outvars}
    buffered = _buffered(jaxpr, kinds)
    groups = []
    for place, equation in enumerate(equations):
        writes = tuple(variable for variable in equation.outvars if variable in buffered)
        if not writes and not _is_root(equation, kinds[place]):
            continue
        members, reads = _closure(place, equations, producer, buffered)
        groups.append(EquationGroup(members, reads, writes, _in_place(equations, members, reads, writes)))
    return groups


def _is_root(equation: Any, kind: Kind) -> bool:
    return bool(equation.effects) or kind in (Kind.OPAQUE, Kind.REDUCTION)


def _buffered(jaxpr: Any, kinds: list[Kind]) -> set[Any]:
    """Returns the variables that are written into buffers, without arguments and constants."""
    equations = jaxpr.eqns
    results = {atom for atom in jaxpr.outvars if not isinstance(atom, Literal)}
    # Of each variable, how many equations read it, those that read it through views included, and how many of these
    # fuse with nothing.
    readers: dict[Any, int] = {}
    rigid: dict[Any, int] = {}
    for place in reversed(range(len(equations))):
        equation, kind = equations[place], kinds[place]
        for variable in {atom for atom in equation.invars if not isinstance(atom, Literal)}:
            if kind is Kind.VIEW and equation.outvars[0] not in results:
                seen, stiff = readers.get(equation.outvars[0], 0), rigid.get(equation.outvars[0], 0)
            else:
                seen, stiff = 1, int(kind is Kind.OPAQUE)
            readers[variable] = readers.get(variable, 0) + seen
            rigid[variable] = rigid.get(variable, 0) + stiff
    buffered: set[Any] = set()
    weight: dict[Any, int] = {}  # equations that a reader of the variable would compute for itself
    for equation, kind in zip(equations, kinds, strict=True):
        inner = 1 + sum(weight.get(atom, 0) for atom in equation.invars if not isinstance(atom, Literal))
        for variable in equation.outvars:
            if variable in results or kind in (Kind.OPAQUE, Kind.REDUCTION):
                needed = type(variable).__name__ != "DropVar"
            elif kind is Kind.VIEW:
                needed = False
            else:
                shared = readers.get(variable, 0) > 1
                needed = rigid.get(variable, 0) > 0 or (shared and kind is Kind.EXPENSIVE) or inner > _LARGEST
            if needed:
                buffered.add(variable)
            else:
                weight[variable] = inner
    return buffered


def _closure(
    root: int, equations: list[Any], producer: dict[Any, int], buffered: set[Any]
) -> tuple[tuple[int, ...], tuple[Any, ...]]:
    """Returns the equations that a root computes for itself, and the variables that they read."""
    members, pending = {root}, [root]
    reads: dict[Any, None] = {}
    while pending:
        for atom in equations[pending.pop()].invars:
            if isinstance(atom, Literal):
                continue
            place = producer.get(atom)
            if place is None or atom in buffered:
                reads[atom] = None
            elif place not in members:
                members.add(place)
                pending.append(place)
    return tuple(sorted(members)), tuple(reads)


def _in_place(
    equations: list[Any], members: tuple[int, ...], reads: tuple[Any, ...], writes: tuple[Any, ...]
) -> tuple[tuple[Any, Any], ...]:
    """Returns what may be overwritten by what: operands that are read element by element, and the state of loops."""
    root = equations[members[-1]]
    name, count = root.primitive.name, len(root.outvars)
    carried: list[Any] = []
    if name == "scan":
        constants, states = scan_counts(root.params)
        carried = root.invars[constants : constants + states]
    elif name == "while":
        carried = root.invars[root.params["cond_nconsts"] + root.params["body_nconsts"] :]
    elif name in _OVERWRITE or kind_of(root) is Kind.VIEW:
        carried = root.invars[:count]
    elif len(writes) == 1 and is_elementwise(root):
        shared = _read_elementwise(equations, members, writes[0])
        return tuple((writes[0], read) for read in reads if read in shared and _same_bytes(writes[0], read))
    pairs = zip(root.outvars, carried, strict=False)
    known = set(reads)
    return tuple(
        (written, read)
        for written, read in pairs
        if not isinstance(read, Literal) and written in writes and read in known and _same_bytes(written, read)
    )


def _read_elementwise(equations: list[Any], members: tuple[int, ...], written: Any) -> set[Any]:
    """Returns the variables of whose elements each is read only for the element of the result at its place."""
    good: set[Any] = {written}
    bad: set[Any] = set()
    for place in reversed(members):
        equation = equations[place]
        is_aligned = is_elementwise(equation) and all(v in good and v not in bad for v in equation.outvars)
        for atom in equation.invars:
            if not isinstance(atom, Literal):
                (good if is_aligned and atom.aval.shape == written.aval.shape else bad).add(atom)
    return good - bad


def _same_bytes(written: Any, read: Any) -> bool:
    return bytes_of(written.aval) == bytes_of(read.aval)
