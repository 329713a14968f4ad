"""A program in JAX that runs as a FitPlan says: what is computed again, what is moved to the host, and in which order.

Two equations that are equal are one to XLA, and it may run what is ready whenever it wants to. What a plan computes
again therefore reads its operands through an `optimization_barrier`, together with an *anchor*, a value that the plan
makes just before:

    h = tanh(x @ w)               first run
    …
    g = …                         the latest value when `h` is needed again
    x', g' = barrier(x, g)
    h' = tanh(x' @ w)             neither equal to `h` nor able to run before `g`
    …                             reads g' where it would read g

What is loaded from the host waits in the same way, and so does a first run that the plan moves behind others. What runs
after a value has arrived on the host waits for that, as its room is free only then. The
barriers are those of `jax.checkpoint(prevent_cse=True)`. XLA's CPU compiler drops them unless it is told otherwise, and
merges equal instructions afterwards, except those with a certain attribute, which equations that run again have there.

A compiler without a better idea of the order than the plan can be given all of it: every step waits for the one before.
Donated arguments then keep their memory, as everything that reads them runs before what overwrites them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax import lax
from jax.extend.core import ClosedJaxpr, Literal, check_jaxpr

from memplan.compiler.errors import PlanError
from memplan.compiler.frontends import jaxpr_versions as versions
from memplan.passes.base import blamed
from memplan.passes.fit.groups import EquationGroup
from memplan.passes.fit.kinds import bytes_of
from memplan.passes.fit.program import FitProgram
from memplan.passes.jaxprs import fresh, spliced, substituted
from memplan.planners.fit.plan import FitPlan, Load, Loaded, Run, Store, Stored
from memplan.planners.fit.verifier import verify_fit

# The attribute of instructions that XLA merges with no equal ones (xla/service/hlo_cse.cc, `kMustFuseAttr`). Nothing
# else looks at it on the CPU.
_NOT_MERGED = "MUST_FUSE"

# A value made within so many steps keeps an equation that reads it from running early.
_RECENT = 8

# What this many times fits into the largest value is not worth a barrier.
_SMALL = 256


@dataclass
class _Instance:
    """A value that a step made.

    Attributes:
      atom: the variable that stands for it.
      step: that made it; -1 for an argument.
      is_new: whether XLA can take it for no other value: it follows from a barrier.
    """

    atom: Any
    step: int = -1
    is_new: bool = False


def rematerialized(program: FitProgram, plan: FitPlan, platform: str = "cpu", in_order: bool = False) -> Any:
    """Returns the `ClosedJaxpr` of a program that runs as a plan says; its results and effects are those of before.

    Args:
      program: as `program_of` made it.
      plan: for its problem.
      platform: that it will be compiled for: "cpu", "tpu" or "gpu".
      in_order: whether every step waits for the one before it, behind a barrier where it does not read it.

    Raises:
      PlanError: the plan breaks a rule (see `planners/fit/verifier.py`).
      PassError: the rewritten program is not well formed, which is an error of this pass.
    """
    if violations := verify_fit(program.problem, plan).violations:
        raise PlanError(f"the plan of {program.problem.name} is not valid: {violations[0].message}")
    with blamed("rematerialize"):
        new = _Emission(program, plan, platform, in_order).emitted()
        check_jaxpr(new.jaxpr)
        old = program.closed
        for before, after in ((old.jaxpr.invars, new.jaxpr.invars), (old.jaxpr.outvars, new.jaxpr.outvars)):
            types = [[atom.aval.str_short() for atom in atoms] for atoms in (before, after)]
            if types[0] != types[1]:
                raise ValueError(f"{types[0]} became {types[1]}")
        if new.jaxpr.effects != old.jaxpr.effects:
            raise ValueError(f"its effects were {old.jaxpr.effects} and are {new.jaxpr.effects}")
    return new


class _Emission:
    """A program in the making, step by step."""

    def __init__(self, program: FitProgram, plan: FitPlan, platform: str, in_order: bool):
        self.program, self.plan, self.platform, self.in_order = program, plan, platform, in_order
        self.contexts: dict[Any, Any] = {}
        self.jaxpr, _ = versions.opened(program.closed)
        self.equations: list[Any] = []
        self.now: dict[int, _Instance] = {}
        self.on_host: dict[int, Any] = {}
        self.ran: set[int] = set()
        self.furthest = -1  # the last node of the program that ran
        self.made: list[int] = []  # values in the order in which they were made
        self.latest: int | None = None  # a value of the latest step that read anything
        self.written: dict[int, int] = {}  # the last step that computed each equation
        self.small = max((value.size for value in program.problem.values), default=0) // _SMALL
        self.last_use = self._last_uses()
        self.barrier = jax.make_jaxpr(lambda x: lax.optimization_barrier(x))(0.0).jaxpr.eqns[0]
        for value, variable in enumerate(program.variables):
            if program.problem.values[value].producer is None:
                self.now[value] = _Instance(variable)

    def _last_uses(self) -> dict[int, int]:
        """Returns the last step that needs each value; results are needed after the last step."""
        found: dict[int, int] = {}
        for step, action in enumerate(self.plan.steps):
            for value in self._uses(action):
                found[value] = step
        for number, each in enumerate(self.program.problem.values):
            if each.is_result:
                found[number] = len(self.plan.steps)
        return found

    def _uses(self, action: Any) -> Sequence[int]:
        return self.program.problem.nodes[action.node].inputs if isinstance(action, Run) else (action.value,)

    def emitted(self) -> Any:
        """Returns the whole program."""
        for step, action in enumerate(self.plan.steps):
            if isinstance(action, Run):
                self._run(step, action.node)
            elif isinstance(action, Store):
                instance = self.now[action.value]
                self.on_host[action.value] = self._traced(_to_host, instance.atom)
            elif isinstance(action, Stored):
                self._await_store(step, action.value)
            elif isinstance(action, Load):
                (stored,) = self._tied(step, [self.on_host[action.value]], ())
                atom = self._traced(_from_host, stored)
                self.now[action.value] = _Instance(atom, step, True)
            elif isinstance(action, Loaded):
                self.made.append(action.value)
        number = {variable: value for value, variable in enumerate(self.program.variables)}
        results = [atom if isinstance(atom, Literal) else self.now[number[atom]].atom for atom in self.jaxpr.outvars]
        jaxpr = self.jaxpr.replace(eqns=self.equations, outvars=results, debug_info=self.jaxpr.debug_info)
        return ClosedJaxpr(jaxpr, self.program.closed.consts)

    def _await_store(self, step: int, value: int) -> None:
        """Makes the next run wait until a value is on the host: the compiler frees its room here only then."""
        following = next((a.node for a in self.plan.steps[step:] if isinstance(a, Run)), None)
        if following is None:
            return
        reads = [read for read in self.program.problem.nodes[following].inputs if self._is_array(read)]
        if reads:
            read = min(reads, key=lambda v: (self.program.problem.values[v].size, v))
            self.on_host[value], there = self._behind_barrier([self.on_host[value], self.now[read].atom])
            self.now[read].atom = there

    def _is_array(self, value: int) -> bool:
        """Whether a value is one of the program, and is there: what only keeps effects in order is not."""
        return value in self.now and self.program.variables[value] is not None

    def _run(self, step: int, node: int) -> None:
        group, reads = self.program.groups[node], self.program.problem.nodes[node].inputs
        is_repeated = node in self.ran
        values = reads[: len(group.reads)]
        atoms, is_new = self._read(step, group, values, is_repeated, node < self.furthest)
        if self.in_order:
            atoms = self._in_order(step, group, values, atoms)
        names = dict(zip(group.reads, atoms, strict=True))
        for place in group.members:
            equation = self.jaxpr.eqns[place]
            read = [substituted(atom, names) for atom in equation.invars]
            written = [fresh(variable) for variable in equation.outvars]
            names.update(zip(equation.outvars, written, strict=True))
            equation = equation.replace(invars=read, outvars=written)
            if is_repeated and self.platform == "cpu":
                equation = equation.replace(ctx=self._not_merged(equation.ctx))
            self.equations.append(equation)
            self.written[place] = step
        for value in self.program.problem.nodes[node].outputs:
            variable = self.program.variables[value]
            if variable is not None:
                self.now[value] = _Instance(names[variable], step, is_new)
                self.made.append(value)
        self.ran.add(node)
        self._remember(step, node)
        self.furthest = max(self.furthest, node)

    def _read(
        self, step: int, group: EquationGroup, values: Sequence[int], is_repeated: bool, is_late: bool
    ) -> tuple[list[Any], bool]:
        """Returns what a group reads, and whether XLA can merge it with nothing that is far away.

        Args:
          step: at which it runs.
          group: of equations.
          values: that it reads.
          is_repeated, is_late: whether it ran before, and whether what follows it in the program did.
        """
        atoms = [self.now[value].atom for value in values]
        old = [k for k, value in enumerate(values) if not self._is_recent_and_new(value, step)]
        if (is_repeated or is_late) and len(old) == len(atoms):
            return (self._tied(step, atoms, values) if atoms else []), bool(atoms)
        if not is_repeated and not self._echoes(step, group):
            return atoms, len(old) < len(atoms)
        # What is new waits already. Without a barrier before the others, what follows from them alone would be merged.
        for k, atom in zip(old, self._behind_barrier([atoms[k] for k in old]) if old else [], strict=True):
            atoms[k] = atom
        return atoms, True

    def _in_order(self, step: int, group: EquationGroup, values: Sequence[int], atoms: list[Any]) -> list[Any]:
        """Returns what a group reads, the smallest of it behind a barrier with a value of the step before.

        What the group may overwrite is tied last: the compiler looks for it right at the operands.
        """
        if self.latest is None or self.latest in values or not atoms:
            return atoms
        overwritten = {read for _, read in group.in_place}
        sizes = self.program.problem.values
        tied = min(range(len(atoms)), key=lambda k: (group.reads[k] in overwritten, sizes[values[k]].size, values[k]))
        behind, _ = self._behind_barrier([atoms[tied], self.now[self.latest].atom])
        return [behind if k == tied else atom for k, atom in enumerate(atoms)]

    def _remember(self, step: int, node: int) -> None:
        """Takes a value that a step made as what the next one waits for: one that is needed, the smallest of these."""
        entry, values = self.program.problem.nodes[node], self.program.problem.values
        made = [value for value in entry.outputs if self.program.variables[value] is not None]
        if made and self.program.groups[node].reads:
            self.latest = min(made, key=lambda v: (self.last_use.get(v, -1) <= step, values[v].size, v))

    def _echoes(self, step: int, group: EquationGroup) -> bool:
        """Whether a group computes for itself what another one did long before, so that XLA might keep it."""
        return any(
            self.written.get(place, step) < step - _RECENT
            and sum(bytes_of(variable.aval) for variable in self.jaxpr.eqns[place].outvars) > self.small
            for place in group.members[:-1]
        )

    def _is_recent_and_new(self, value: int, step: int) -> bool:
        instance = self.now[value]
        return instance.is_new and instance.step >= step - _RECENT

    def _tied(self, step: int, atoms: list[Any], values: Sequence[int]) -> list[Any]:
        """Returns atoms that stand for the same values, but not before the latest value that is there at a step."""
        anchor = next(self._anchors(step), None)
        if anchor is None or anchor in values:
            return self._behind_barrier(atoms)
        *tied, there = self._behind_barrier([*atoms, self.now[anchor].atom])
        self.now[anchor].atom = there
        return tied

    def _anchors(self, step: int) -> Iterator[int]:
        """Yields values that were made just before a step: first those that are needed later on."""
        latest = list(dict.fromkeys(reversed(self.made[-_RECENT:])))
        for value in latest:
            if self.last_use.get(value, -1) >= step:
                yield value
        yield from latest

    def _behind_barrier(self, atoms: list[Any]) -> list[Any]:
        written = [fresh(atom) for atom in atoms]
        self.equations.append(self.barrier.replace(invars=atoms, outvars=written))
        return written

    def _traced(self, fun: Callable[[Any], Any], atom: Any) -> Any:
        """Returns what a function of one array makes of an atom."""
        tracing = jax.make_jaxpr(fun)(atom.aval)  # its memory included
        equations: list[Any] = []
        (made,) = spliced(tracing.jaxpr, {tracing.jaxpr.invars[0]: atom}, self.jaxpr.eqns[0], equations)
        self.equations += equations
        return made

    def _not_merged(self, context: Any) -> Any:
        """Returns the context of an equation with the attribute that keeps it apart from equal ones."""
        if context not in self.contexts:
            self.contexts[context] = versions.context_with_attribute(context, _NOT_MERGED, "1")
        return self.contexts[context]


def _to_host(x: jax.Array) -> jax.Array:
    """Moves an array to the host, with one dimension more.

    XLA:TPU takes a transfer back to where its operand left for the host, through all barriers between. It starts it
    there, and the array is never away. It takes none through a change of dimensions.
    """
    return jax.device_put(x[None], jax.memory.Space.Host)


def _from_host(stored: jax.Array) -> jax.Array:
    """Moves back what `_to_host` moved."""
    return jax.device_put(stored.reshape(stored.shape[1:]), jax.memory.Space.Device)
