"""The entry `lower`: from a JAX program to an EmbeddedProgram."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jax.extend.core import Literal

from memplan.compiler.embedded.affine import LoopIndex, flat_index, variable
from memplan.compiler.embedded.expressions import ITEM_SIZES, Builder, Expression
from memplan.compiler.embedded.program import ElementStore, EmbeddedBuffer, EmbeddedProgram, LoopNest, StorageKind
from memplan.compiler.errors import MemplanError
from memplan.compiler.frontends import jaxpr_versions as versions
from memplan.passes.embedded.constant_layout import with_contiguous_constants
from memplan.passes.embedded.flat import ArgumentRole, FlatEquations, flat_program
from memplan.passes.embedded.fusion import Fusion, fused, unfused, variables
from memplan.passes.embedded.in_place import with_in_place
from memplan.passes.embedded.ordering import updated_in_place, with_buffers
from memplan.passes.embedded.rules import RULES, Indices, dtype_of, is_reduction
from memplan.passes.embedded.simplify import simplified


def lower(
    closed: Any,
    roles: Sequence[ArgumentRole],
    name: str = "program",
    fuse: bool = True,
    in_place: bool = True,
) -> EmbeddedProgram:
    """Returns a program of steps.

    The first results are the new values of the states, in their order; the others are the program's results.

    Args:
      closed: a `jax.extend.core.ClosedJaxpr`.
      roles: of its arguments.
      name: of the program.
      fuse: whether equations may become part of other steps; otherwise each is a step.
      in_place: whether a step may write over what it reads, and new states over old ones.

    Raises:
      MemplanError: the program has an equation, a type, an effect or a shape that has no C code here; the message names
        all such equations with their source lines.
    """
    _check_interface(closed, roles)
    flat = flat_program(closed, roles)
    _check_equations(flat)
    return _Lowering(flat, name, fuse, in_place).program()


def _check_interface(closed: Any, roles: Sequence[ArgumentRole]) -> None:
    invars, outvars = closed.jaxpr.invars, closed.jaxpr.outvars
    states = [(v, role) for v, role in zip(invars, roles, strict=True) if role.kind is StorageKind.STATE]
    if len(states) > len(outvars):
        raise MemplanError(f"{len(states)} arrays are states, but the function returns {len(outvars)} arrays")
    for number, ((before, role), after) in enumerate(zip(states, outvars, strict=False)):
        if before.aval.shape != after.aval.shape or before.aval.dtype != after.aval.dtype:
            raise MemplanError(
                f"the state {role.name} is {before.aval.str_short()}, but the function's result {number}, which is to "
                f"be its new value, is {after.aval.str_short()}: new states are the first results, in order"
            )


def _check_equations(flat: FlatEquations) -> None:
    """Raises MemplanError for all that has no C code, with the source lines."""
    faults: dict[str, None] = {}
    for equation in flat.eqns:
        name, place = equation.primitive.name, versions.origin(equation)
        at = f" ({place})" if place else ""
        if equation.effects:
            faults[f"{name} has an effect{at}"] = None
        elif name not in RULES:
            faults[f"{name}{at}"] = None
        elif name == "select_n" and len(equation.invars) != 3:
            faults[f"select_n of {len(equation.invars) - 1} cases{at}"] = None
        for atom in (*equation.invars, *equation.outvars):
            if (fault := _type_fault(atom)) is not None:
                faults[f"{name} of {fault}{at}"] = None
                break
    for atom in (*flat.invars, *flat.constants, *flat.outvars):
        if (fault := _type_fault(atom)) is not None:
            faults[f"an argument, constant or result of {fault}"] = None
    if faults:
        raise MemplanError(f"no C code for {'; '.join(faults)}")


def _type_fault(atom: Any) -> str | None:
    """Returns what is wrong with the type of a variable or literal; None if nothing is."""
    aval = atom.aval
    dtype = getattr(aval, "dtype", None)
    if dtype is None or jax.dtypes.issubdtype(dtype, jax.dtypes.extended):
        return str(aval)
    if np.dtype(dtype).name not in ITEM_SIZES:
        return f"{aval.str_short()}, of a type that is none of {', '.join(ITEM_SIZES)}"
    if not all(isinstance(size, int) for size in aval.shape):
        return f"{aval.str_short()}, whose shape is not static"
    if 0 in aval.shape:
        return f"{aval.str_short()}, which has no elements"
    return None


class _StepScope:
    """The expressions of one step."""

    def __init__(self, lowering: _Lowering, loops: Sequence[int], own: Sequence[Any]):
        self.builder = Builder()
        self._lowering, self._own = lowering, set(own)
        self._next = len(loops)
        self.reductions: dict[str, None] = {}
        self._made: dict[tuple[Any, Indices], Expression] = {}

    def new_loop(self, extent: int) -> LoopIndex:
        self._next += 1
        return LoopIndex(self._next - 1, extent)

    def element(self, atom: Any, indices: Indices) -> Expression:
        if isinstance(atom, Literal):
            return self.builder.constant(np.asarray(atom.val).item(), dtype_of(atom))
        lowering = self._lowering
        scalar = lowering.scalars.get(atom)
        if scalar is not None:
            return self.builder.constant(scalar, dtype_of(atom))
        buffer = lowering.buffer_of.get(atom)
        if buffer is not None and atom not in self._own:
            return self.builder.load(buffer, flat_index(indices, atom.aval.shape), dtype_of(atom))
        key = (atom, indices)
        if key not in self._made:
            self._made[key] = self.defined(atom, indices)
        return self._made[key]

    def defined(self, atom: Any, indices: Indices) -> Expression:
        equation, result = self._lowering.maker[atom]
        if is_reduction(equation.primitive.name):
            self.reductions[equation.primitive.name] = None
        return RULES[equation.primitive.name](equation, self, indices, result)


class _Lowering:
    def __init__(self, flat: FlatEquations, name: str, fuse: bool, in_place: bool):
        self.flat, self.name, self.in_place = flat, name, in_place
        self.buffers: list[EmbeddedBuffer] = []
        self.buffer_of: dict[Any, int] = {}
        self.scalars: dict[Any, Any] = {}
        self.maker = {v: (e, k) for e in flat.eqns for k, v in enumerate(e.outvars)}
        for v, role in zip(flat.invars, flat.roles, strict=True):
            self._add(v, role.name, role.kind, value=None if role.value is None else np.array(role.value))
        for v, (value, label) in flat.constants.items():
            array = np.asarray(value)
            if array.size == 1:
                self.scalars[v] = array.item()
            else:
                self._add(v, label, StorageKind.CONSTANT, value=array)
        count = sum(role.kind is StorageKind.STATE for role in flat.roles)
        self.new_states, self.outputs = flat.outvars[:count], flat.outvars[count:]
        kept = [v for v in variables(flat.outvars) if v in self.maker]
        states = {v for v, role in zip(flat.invars, flat.roles, strict=True) if role.kind is StorageKind.STATE}
        self.fusion: Fusion = fused(flat, kept, states) if fuse else unfused(flat, kept)

    def _add(self, v: Any, name: str, kind: StorageKind, origin: str = "", value: Any = None) -> int:
        dtype = dtype_of(v)
        is_packed = dtype == "bool" and kind is StorageKind.TEMPORARY and math.prod(v.aval.shape) >= 8
        self.buffers.append(EmbeddedBuffer(name, tuple(v.aval.shape), dtype, kind, is_packed, value, origin))
        self.buffer_of[v] = len(self.buffers) - 1
        return len(self.buffers) - 1

    def program(self) -> EmbeddedProgram:
        states = [b for b, each in enumerate(self.buffers) if each.kind is StorageKind.STATE]
        inputs = [b for b, each in enumerate(self.buffers) if each.kind is StorageKind.INPUT]
        for k, equation in enumerate(self.flat.eqns):
            for v in equation.outvars:
                if v in self.fusion.stored:
                    name = f"{equation.primitive.name}_{k}"
                    self._add(v, name, StorageKind.TEMPORARY, versions.origin(equation))
        steps = self._steps()
        results = self._results(steps)
        steps = [simplified(step) for step in self._with_new_states(steps, states)]
        if self.in_place:
            steps = [with_in_place(step, self.buffers) for step in steps]
        whole = EmbeddedProgram(
            self.name, tuple(self.buffers), tuple(steps), tuple(inputs), tuple(states), tuple(results)
        )
        return with_contiguous_constants(_without_unused(whole))

    def _with_new_states(self, steps: list[LoopNest], states: Sequence[int]) -> list[LoopNest]:
        """Returns the steps with the states' new values written to the states, in place or by copies at the end."""
        targets: dict[int, int] = {}
        copied: list[tuple[int, Any]] = []
        for state, v in zip(states, self.new_states, strict=True):
            b = None if isinstance(v, Literal) else self.buffer_of.get(v)
            if b == state:
                continue  # It stays as it is.
            if self.in_place and v in self.maker and b is not None and b not in targets:
                targets[b] = state
            else:
                copied.append((state, v))
        # States may be one another's new values: all are read before the first is written.
        temporaries = []
        for state, v in copied:
            temporaries.append((self._new_buffer(state, f"{self.buffers[state].name}_new"), state))
            steps.append(self._copy(v, temporaries[-1][0]))
        steps, moved = updated_in_place(steps, targets)
        temporaries += [(b, state) for b, state in targets.items() if b not in moved]
        return steps + [self._copy_buffer(b, state) for b, state in temporaries]

    def _steps(self) -> list[LoopNest]:
        """Returns a step for each stored variable or group, at the place of the last one."""
        steps = []
        for equation in self.flat.eqns:
            for v in equation.outvars:
                group = self.fusion.groups.get(v, (v,))
                if v in self.fusion.stored and v == group[-1]:
                    steps.append(self._step(equation.primitive.name, group, versions.origin(equation)))
        return steps

    def _step(self, name: str, group: Sequence[Any], origin: str) -> LoopNest:
        shape = group[0].aval.shape
        scope = _StepScope(self, shape, group)
        indices = tuple(variable(k, extent) for k, extent in enumerate(shape))
        index = flat_index(indices, shape)
        stores = tuple(ElementStore(self.buffer_of[v], index, scope.defined(v, indices)) for v in group)
        name = next(iter(scope.reductions), name)
        return LoopNest(name, tuple(shape), stores, (), origin)

    def _copy(self, source: Any, target: int) -> LoopNest:
        """Returns a step that copies a variable or a literal to a buffer."""
        shape = self.buffers[target].shape
        scope = _StepScope(self, shape, ())
        indices = tuple(variable(k, extent) for k, extent in enumerate(shape))
        value = scope.element(source, indices)
        return LoopNest("copy", tuple(shape), (ElementStore(target, flat_index(indices, shape), value),))

    def _copy_buffer(self, source: int, target: int) -> LoopNest:
        shape = self.buffers[target].shape
        index = flat_index([variable(k, extent) for k, extent in enumerate(shape)], shape)
        value = Builder().load(source, index, self.buffers[source].dtype)
        return LoopNest("copy", shape, (ElementStore(target, index, value),))

    def _new_buffer(self, like: int, name: str) -> int:
        """Returns a new temporary buffer of the shape and dtype of another."""
        self.buffers.append(replace(self.buffers[like], name=name, kind=StorageKind.TEMPORARY, value=None))
        return len(self.buffers) - 1

    def _results(self, steps: list[LoopNest]) -> list[int]:
        """Returns the buffers of the results; what is not computed into a buffer of its own is copied."""
        results = []
        taken = set(variables(self.new_states))
        for number, v in enumerate(self.outputs):
            if not isinstance(v, Literal) and v in self.maker and v not in taken:
                taken.add(v)
                b = self.buffer_of[v]
                self.buffers[b] = replace(
                    self.buffers[b], kind=StorageKind.RESULT, is_packed=False, name=f"result_{number}"
                )
            else:
                self.buffers.append(
                    EmbeddedBuffer(f"result_{number}", tuple(v.aval.shape), dtype_of(v), StorageKind.RESULT)
                )
                b = len(self.buffers) - 1
                steps.append(self._copy(v, b))
            results.append(b)
        return results


def _without_unused(program: EmbeddedProgram) -> EmbeddedProgram:
    """Returns the program without buffers that no step reads or writes, unless they are its arguments."""
    used = {b for step in program.steps for b in (*step.reads, *step.writes)}
    used |= {*program.inputs, *program.states, *program.results}
    numbers = {old: new for new, old in enumerate(sorted(used))}
    steps = []
    for step in program.steps:
        renamed = with_buffers(step, numbers)
        ways = tuple(replace(way, buffer=numbers[way.buffer]) for way in step.in_place)
        steps.append(replace(renamed, in_place=ways))
    listed = [tuple(numbers[b] for b in group) for group in (program.inputs, program.states, program.results)]
    return EmbeddedProgram(program.name, tuple(program.buffers[b] for b in sorted(used)), tuple(steps), *listed)
