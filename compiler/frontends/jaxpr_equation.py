"""One equation of a jaxpr on its way into the Graph, and how the equations of a jaxpr follow one another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from jax.extend.core import Literal

from memplan.compiler.errors import GraphError
from memplan.compiler.frontends import jaxpr_versions as versions
from memplan.compiler.frontends.jaxpr_arrays import logical, physical, shape_of, tuple_shape
from memplan.compiler.frontends.jaxpr_builder import Attributes, ComputationBuilder
from memplan.compiler.ir import Shape, Source


@dataclass(frozen=True, slots=True)
class Scope:
    """Where a jaxpr stands in the program.

    Attributes:
      path: of the jaxpr, such as `jit(step)/while/body`.
      file, line: of the user's code that brought it there, for equations that JAX's own code made.
    """

    path: str
    file: str = ""
    line: int = 0

    def inside(self, *parts: str) -> Scope:
        """Returns the scope of something further in; empty parts leave no trace."""
        return replace(self, path="/".join(part for part in (self.path, *parts) if part))

    def source(self, name: str) -> Source:
        """Returns the source of an operation directly in this scope."""
        return Source(self.inside(name).path, self.file, self.line)


@dataclass(frozen=True)
class EquationContext:
    """An equation, and where its instructions go.

    Attributes:
      builder: of the computation.
      equation: of JAX.
      operands: values of its inputs.
      outer: scope of the jaxpr that holds it.
      rules: how equations become instructions, by name of the primitive.
    """

    builder: ComputationBuilder
    equation: Any
    operands: Sequence[int]
    outer: Scope
    rules: Rules

    @property
    def name(self) -> str:
        """Name of the primitive."""
        return str(self.equation.primitive.name)

    @property
    def params(self) -> dict[str, Any]:
        return dict(self.equation.params)

    @cached_property
    def scope(self) -> Scope:
        """Where the equation stands: its line, and the transformations around it."""
        path = self.outer.inside(versions.scope(self.equation.source_info)).path
        file, line = versions.place(self.equation.source_info)
        return Scope(path, file, line) if file else replace(self.outer, path=path)

    @property
    def source(self) -> Source:
        return self.scope.source(self.name)

    @cached_property
    def in_shapes(self) -> list[Shape]:
        return [shape_of(v.aval) for v in self.equation.invars]

    @cached_property
    def out_shapes(self) -> list[Shape]:
        return [shape_of(v.aval) for v in self.equation.outvars]

    @cached_property
    def evaluate(self) -> Callable[..., Any]:
        """Computes the results by JAX's own implementation of the primitive, on physical arrays."""
        bind = versions.binder(self.equation)
        convert = [logical(v.aval) for v in self.equation.invars]
        if not any(convert):
            convert = []
        is_multiple = self.equation.primitive.multiple_results
        as_tuple = len(self.equation.outvars) != 1

        def evaluate(*operands: Any) -> Any:
            values = operands
            if convert:
                values = tuple(c(v) if c else v for c, v in zip(convert, operands, strict=True))
            results = bind(*values)
            if not is_multiple:
                return physical(results)
            results = tuple(physical(result) for result in results)
            return results if as_tuple else results[0]

        return evaluate

    def emit(
        self,
        opcode: str,
        attributes: Attributes = (),
        *,
        operands: Sequence[int] | None = None,
        called: Sequence[str] = (),
        evaluate: Callable[..., Any] | None = None,
    ) -> list[int]:
        """Appends the equation as one instruction; returns its results.

        Args:
          opcode: of HLO, or the primitive's name.
          attributes: as HLO prints them.
          operands: where they differ from the equation's; `evaluate` must then take them.
          called: names of the computations that the attributes name.
          evaluate: computes the results; by default as JAX does.
        """
        shapes = self.out_shapes
        value = self.builder.emit(
            opcode,
            shapes[0] if len(shapes) == 1 else tuple_shape(shapes),
            self.operands if operands is None else operands,
            name=self.name,
            attributes=(*attributes, ("primitive", self.name)),
            called=called,
            source=self.source,
            evaluate=evaluate or self.evaluate,
        )
        return [value] if len(shapes) == 1 else self.builder.elements(value)

    def view(self, attributes: Attributes = ()) -> list[int]:
        """Appends the equation as views of its operands: it has as many results, of the same bytes."""
        attributes = (*attributes, ("primitive", self.name))
        return [
            self.builder.view(operand, shape, self.source, attributes)
            for operand, shape in zip(self.operands, self.out_shapes, strict=True)
        ]

    def lower(self, jaxpr: Any, arguments: Sequence[int], *path: str) -> list[int]:
        """Appends the equations of a nested jaxpr in place; see `lower_jaxpr`."""
        return lower_jaxpr(self.builder, jaxpr, arguments, self.scope.inside(*path), self.rules)

    def computation(self, jaxpr: Any, name: str, *path: str) -> str:
        """Makes a computation of a nested jaxpr, one parameter per argument; returns its name."""
        inner, _ = versions.opened(jaxpr)
        builder = ComputationBuilder(self.builder.module, name)
        names = versions.argument_names(inner)
        arguments = [builder.parameter(shape_of(v.aval), n) for v, n in zip(inner.invars, names, strict=True)]
        return builder.finish_with(lower_jaxpr(builder, jaxpr, arguments, self.scope.inside(*path), self.rules))


Rules = Mapping[str, Callable[[EquationContext], list[int]]]


def lower_jaxpr(
    builder: ComputationBuilder, jaxpr: Any, arguments: Sequence[int], scope: Scope, rules: Rules
) -> list[int]:
    """Appends the equations of a jaxpr, without those whose results are not used; returns its results.

    Raises:
      GraphError: a value has no counterpart in HLO; names the place in the user's program.
    """
    inner, constants = versions.opened(jaxpr)
    values: dict[Any, int] = {}
    needed = _needed_equations(inner)
    used = {id(v) for equation in needed for v in equation.invars} | {id(v) for v in inner.outvars}
    for variable, constant in zip(inner.constvars, constants, strict=True):
        if id(variable) in used:
            values[variable] = builder.constant(constant, shape_of(variable.aval))
    values.update(zip(inner.invars, arguments, strict=True))

    def read(atom: Any) -> int:
        if isinstance(atom, Literal):
            return builder.constant(atom.val, shape_of(atom.aval))
        return values[atom]

    for equation in needed:
        operands = [read(atom) for atom in equation.invars]
        context = EquationContext(builder, equation, operands, scope, rules)
        try:
            results = rules.get(context.name, opaque)(context)
        except GraphError as error:
            place = context.scope
            if not place.file or str(error).startswith(f"{place.file}:"):
                raise
            raise GraphError(f"{place.file}:{place.line}: {context.name}: {error}") from None
        values.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in inner.outvars]


def opaque(context: EquationContext) -> list[int]:
    """An instruction under the primitive's own name, with those of its parameters that are plain."""
    nested = [key for key, value in context.params.items() if _holds_jaxpr(value)]
    if nested:
        warning = f"{context.name} is kept as one opaque instruction; what its {nested[0]} does inside is not planned"
        context.builder.module.warnings[warning] = None
    return context.emit(context.name, plain_attributes(context.params))


def plain_attributes(params: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns the parameters that are numbers, truth values, strings or lists of integers as HLO would print them."""
    attributes = []
    for key, value in params.items():
        if isinstance(value, bool):
            attributes.append((key, "true" if value else "false"))
        elif isinstance(value, int | float):
            attributes.append((key, str(value)))
        elif isinstance(value, str):
            attributes.append((key, quoted(value)))
        elif isinstance(value, tuple) and value and all(isinstance(entry, int) for entry in value):
            attributes.append((key, braced(value)))
    return attributes


def braced(numbers: Sequence[Any]) -> str:
    """Returns integers as HLO lists them.

    >>> braced((0, 2))
    '{0,2}'
    """
    return "{" + ",".join(str(int(number)) for number in numbers) + "}"


def quoted(text: str) -> str:
    """Returns a string as HLO quotes it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _holds_jaxpr(value: Any) -> bool:
    values = value if isinstance(value, tuple | list) else (value,)
    return any(versions.is_jaxpr(entry) for entry in values)


def _needed_equations(jaxpr: Any) -> list[Any]:
    """Returns the equations that have an effect, or a result that is used, in order: what XLA would keep."""
    used = {id(v) for v in jaxpr.outvars}
    needed = []
    for equation in reversed(jaxpr.eqns):
        if equation.effects or any(id(v) in used for v in equation.outvars):
            needed.append(equation)
            used.update(id(v) for v in equation.invars)
    return needed[::-1]
