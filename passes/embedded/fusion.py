"""Which variables of a program are stored, and which are computed where they are read.

Three kinds of fusion come from one decision for each variable, made from the last equation to the first, so that the
readers of a variable are decided before it:

- *prologue*: what a convolution or a reduction reads is computed as it reads, such as dequantization;
- *epilogue*: what follows a convolution or a reduction is computed as it stores, such as requantization, or the update
  of weights after their gradient; several results that start from one accumulator are stored by one step;
- *element-wise chains* are one step.

A variable is not stored where that lengthens no longer what must live (`_kept_bytes`), and where computing it again for
each reader is cheap.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from jax.extend.core import Literal

from memplan.compiler.embedded.expressions import ITEM_SIZES
from memplan.passes.embedded.rules import BIJECTIVE, CONTRACTIONS, HEAVY, VIEWS, dtype_of, is_reduction

# Operations that may be repeated for each reader of an element, and how many a heavy one counts for.
_MOST_REPEATED, _HEAVY_COST = 6, 8
_MOST_COST = 1000


class _Where(Enum):
    """Where in a step an expression is read."""

    TOP = 0
    ONCE = 1  # in a reduction that reads each element once
    OFTEN = 2  # in a convolution or a contraction


@dataclass(frozen=True)
class _Use:
    """One way in which a stored variable's step reads another variable.

    Attributes:
      root: the variable that is stored.
      where: see `_Where`.
      views: positions of the views on the way, the innermost first; uses with other views read other elements.
      is_bijective: whether each element is read once.
    """

    root: Any
    where: _Where
    views: tuple[int, ...]
    is_bijective: bool


@dataclass
class Fusion:
    """What is stored.

    Attributes:
      stored: variables that a step stores.
      groups: stored variables that one step stores together, by each of them.
    """

    stored: set[Any] = field(default_factory=set)
    groups: dict[Any, tuple[Any, ...]] = field(default_factory=dict)


def bits_of(variable: Any) -> int:
    """Returns bits that a stored variable takes; a bool takes one."""
    dtype = dtype_of(variable)
    return math.prod(variable.aval.shape) * (1 if dtype == "bool" else 8 * ITEM_SIZES[dtype])


def variables(atoms: Sequence[Any]) -> Iterator[Any]:
    """Yields the atoms that are variables."""
    return (atom for atom in atoms if not isinstance(atom, Literal))


def fused(jaxpr: Any, kept: Sequence[Any], states: Collection[Any] = ()) -> Fusion:
    """Decides what is stored.

    Args:
      jaxpr: without calls.
      kept: variables that must be stored: results and new states.
      states: arguments that live all the time.
    """
    return _Decisions(jaxpr, kept, states).run()


def unfused(jaxpr: Any, kept: Sequence[Any]) -> Fusion:
    """Returns that everything is stored but what lies in memory as its operand does."""
    fusion = Fusion()
    for equation in jaxpr.eqns:
        for variable in equation.outvars:
            if variable in kept or not _lies_as_operand(equation):
                fusion.stored.add(variable)
    return fusion


def _lies_as_operand(equation: Any) -> bool:
    name = equation.primitive.name
    is_plain = name == "reshape" and equation.params.get("dimensions") is None
    return is_plain or name in ("expand_dims", "squeeze")


class _Decisions:
    def __init__(self, jaxpr: Any, kept: Sequence[Any], states: Collection[Any]):
        self.jaxpr, self.kept, self.fusion = jaxpr, set(kept), Fusion()
        self.inputs = set(jaxpr.invars) - set(states)
        self.position: dict[Any, int] = {}
        self.level: dict[Any, int] = {}  # the last reduction that a variable depends on, or is
        self.cost: dict[Any, int] = {}  # operations for an element, as if nothing before it were stored
        self.uses: dict[Any, dict[_Use, None]] = {}
        self.reduced: set[Any] = set()  # roots whose steps have a reduction at their top
        for k, equation in enumerate(jaxpr.eqns):
            self._measure(k, equation)

    def _measure(self, k: int, equation: Any) -> None:
        name = equation.primitive.name
        read = list(variables(equation.invars))
        own = 0 if name in VIEWS else _HEAVY_COST if name in HEAVY else 1
        for variable in equation.outvars:
            self.position[variable] = k
            self.level[variable] = k if is_reduction(name) else max((self._level(v) for v in read), default=-1)
            before = 0 if is_reduction(name) else sum(self.cost.get(v, 0) for v in read)
            if name == "convert_element_type" and bits_of(variable) > sum(map(bits_of, read)):
                before = 0  # What is made wider is better stored before that.
            self.cost[variable] = min(own + before, _MOST_COST)

    def _level(self, variable: Any) -> int:
        return self.level.get(variable, -1)

    def run(self) -> Fusion:
        for equation in reversed(self.jaxpr.eqns):
            name = equation.primitive.name
            for variable in equation.outvars:
                uses = self.uses.setdefault(variable, {})
                if variable in self.kept or not self._is_inlined(equation, variable, uses):
                    self.fusion.stored.add(variable)
                    if is_reduction(name):
                        self.reduced.add(variable)
                    self._spread(equation, variable, [_Use(variable, _Where.TOP, (), True)])
                else:
                    self._spread(equation, variable, list(uses))
        return self.fusion

    def _spread(self, equation: Any, variable: Any, uses: Sequence[_Use]) -> None:
        """Notes how the operands of an equation are read, given how its result is."""
        name, k, shape = equation.primitive.name, self.position[variable], variable.aval.shape
        for operand in variables(equation.invars):
            for use in uses:
                where, views, bijective = use.where, use.views, use.is_bijective
                if is_reduction(name):
                    where = max(where, _Where.OFTEN if name in CONTRACTIONS else _Where.ONCE, key=lambda w: w.value)
                    views, bijective = (*views, k), False
                elif name in VIEWS or name in ("pad", "concatenate") or operand.aval.shape != shape:
                    same = math.prod(operand.aval.shape) == math.prod(shape)
                    views = (*views, k)
                    bijective &= name in BIJECTIVE or (name == "broadcast_in_dim" and same)
                self.uses.setdefault(operand, {})[_Use(use.root, where, views, bijective)] = None

    def _is_inlined(self, equation: Any, variable: Any, uses: dict[_Use, None]) -> bool:
        name = equation.primitive.name
        if not uses:
            return True
        if name in VIEWS:
            return True
        if is_reduction(name):
            return self._is_epilogue(variable, list(uses)) or self._is_shared(variable, list(uses))
        if len(uses) == 1:
            (use,) = uses
            if self._is_repeated(use) and self.cost[variable] > _MOST_REPEATED:
                return False
            if use.where is _Where.TOP and self.level[use.root] == self.level[variable]:
                return True
            return self._kept_bits(equation, list(uses)) <= bits_of(variable)
        if self.cost[variable] <= _MOST_REPEATED and self._kept_bits(equation, list(uses)) < bits_of(variable):
            return True
        return self._is_shared(variable, list(uses))

    def _is_repeated(self, use: _Use) -> bool:
        return use.where is _Where.OFTEN or (use.where is _Where.TOP and not use.is_bijective)

    def _is_epilogue(self, variable: Any, uses: Sequence[_Use]) -> bool:
        """Whether a reduction becomes part of the only step that reads it."""
        if len(uses) != 1 or uses[0].where is not _Where.TOP or not uses[0].is_bijective:
            return False
        root = uses[0].root
        if root in self.reduced:
            return False
        equation = self.jaxpr.eqns[self.position[variable]]
        if self.level[root] != self.level[variable] and self._kept_bits(equation, uses) > bits_of(variable):
            return False
        self.reduced.add(root)
        return True

    def _is_shared(self, variable: Any, uses: Sequence[_Use]) -> bool:
        """Whether all steps that read a variable become one, which computes it and does not store it."""
        roots = {use.root for use in uses}
        if len(roots) < len(uses) or any(use.where is not _Where.TOP or use.views for use in uses):
            return False
        if any(root in self.fusion.groups or root in self.reduced for root in roots):
            return False
        if any(self.level[root] != self.level[variable] for root in roots):
            return False
        if any(root.aval.shape != variable.aval.shape for root in roots) or self._is_between(variable, roots):
            return False
        group = tuple(sorted(roots, key=lambda root: self.position[root]))
        self.fusion.groups.update(dict.fromkeys(group, group))
        if is_reduction(self.jaxpr.eqns[self.position[variable]].primitive.name):
            self.reduced |= roots
        return True

    def _is_between(self, variable: Any, roots: set[Any]) -> bool:
        """Whether one of the roots depends on another."""
        first, stack, seen = self.position[variable], list(roots), set(roots)
        while stack:
            for operand in variables(self.jaxpr.eqns[self.position[stack.pop()]].invars):
                if operand in roots:
                    return True
                if self.position.get(operand, -1) > first and operand not in seen:
                    seen.add(operand)
                    stack.append(operand)
        return False

    def _kept_bits(self, equation: Any, uses: Sequence[_Use]) -> int:
        """Returns bits that live until the readers have run, if an equation's result is not stored.

        These are what it is computed from, unless that lives so long anyway.
        """
        last = max(self.position[use.root] for use in uses)
        return sum(self._bits(operand, last) for operand in dict.fromkeys(variables(equation.invars)))

    def _bits(self, variable: Any, last: int, depth: int = 8) -> int:
        if variable not in self.position:
            # Constants and states are always there; an input of the program may end earlier.
            return bits_of(variable) if variable in self.inputs and not self._lives(variable, last) else 0
        equation = self.jaxpr.eqns[self.position[variable]]
        if self._lives(variable, last):
            return 0
        if is_reduction(equation.primitive.name) or not depth:
            return bits_of(variable)
        through = sum(self._bits(v, last, depth - 1) for v in dict.fromkeys(variables(equation.invars)))
        return min(bits_of(variable), through) if equation.primitive.name not in VIEWS else through

    def _lives(self, variable: Any, last: int) -> bool:
        return any(self.position[use.root] > last for use in self.uses.get(variable, ()))
