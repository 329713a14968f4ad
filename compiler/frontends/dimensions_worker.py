"""Binds the open dimensions of a program on standard input, and writes it as a HloModuleProto to standard output.

Run in a process of its own, because jaxlib's C++ code may abort on damaged programs. StableHLO is given a function
around its main one that takes arguments of known sizes, and jaxlib refines the sizes of all that follows from them; HLO
is translated to StableHLO first. Exits with `REFUSED` and one line on standard error where the sizes that are given do
not fit the program, and with 1 and jaxlib's messages where jaxlib cannot read it.
"""

from __future__ import annotations

import ast
import io
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

REFUSED = 3

# What jax.export writes into its checks of shapes: `args[0].shape = (b, 2*n),args[1].shape = (2*n, 8)`.
_SPECIFICATIONS = re.compile(r"polymorphic shapes specifications: (.*?)\. Obtained dimension variables", re.DOTALL)
_SPECIFICATION = re.compile(r"\.shape = \(((?:[^()]|\([^()]*\))*)\)")
_MAX_SIZE = 2**62


class SizesRefusal(Exception):
    """Sizes that do not fit the program."""


@dataclass(frozen=True)
class OpenDimension:
    """A dimension of an argument whose size the program leaves open.

    Attributes:
      argument, dimension: numbers.
      type: of the argument, such as `tensor<?x8xf32>`.
      name: `argN.D`, dimension D of argument N.
      expression: its size in the dimension variables of jax.export; "" where it has none.
    """

    argument: int
    dimension: int
    type: str
    expression: str = ""

    @property
    def name(self) -> str:
        return f"arg{self.argument}.{self.dimension}"

    @property
    def variables(self) -> list[str]:
        return [name for name in _names(self.expression) if name not in _FUNCTIONS]


def bound_sizes(dimensions: Sequence[OpenDimension], sizes: Mapping[str, int]) -> dict[OpenDimension, int]:
    """Returns the size of every open dimension; raises SizesRefusal if one is missing, or a name is none of theirs."""
    names: dict[str, None] = {}
    for dimension in dimensions:
        names.update(dict.fromkeys(dimension.variables or [dimension.name]))
    known = {*names, *(dimension.name for dimension in dimensions)}
    listed = ", ".join(names) or "none"
    if unknown := [name for name in sizes if name not in known]:
        raise SizesRefusal(f"no dimension of unknown size is called {', '.join(unknown)}: there are {listed}")
    found: dict[OpenDimension, int] = {}
    missing: dict[str, None] = {}
    for dimension in dimensions:
        if dimension.name in sizes:
            found[dimension] = sizes[dimension.name]
        elif dimension.variables and all(name in sizes for name in dimension.variables):
            found[dimension] = _evaluated(dimension.expression, sizes)
        else:
            missing.update(dict.fromkeys([n for n in dimension.variables if n not in sizes] or [dimension.name]))
    if missing:
        first = next(d for d in dimensions if d not in found)
        what = f" ({first.expression})" if first.expression else ""
        options = " ".join(f"--dim {name}=N" for name in missing)
        python = ", ".join(f"{name!r}: N" for name in missing)
        raise SizesRefusal(
            f"dimension {first.dimension}{what} of argument {first.argument}, {first.type}, has an unknown size: "
            f"state it by {options}, or in Python by dims={{{python}}}"
        )
    for dimension, size in found.items():
        if not 0 <= size <= _MAX_SIZE:
            raise SizesRefusal(f"dimension {dimension.name} has the size {size}: it must be between 0 and 2^62")
    return found


def specifications(text: str) -> list[list[str]]:
    """Returns the sizes of each argument with open dimensions, as jax.export states them in a module's checks.

    >>> specifications("… polymorphic shapes specifications: args[0].shape = (b, 2*n),args[1].shape = (mod(b, 2),). "
    ...                "Obtained dimension variables: …")
    [['b', '2*n'], ['mod(b, 2)']]
    """
    stated = _SPECIFICATIONS.search(text)
    if stated is None:
        return []
    found = []
    for inside in _SPECIFICATION.findall(stated.group(1)):
        parts = re.split(r",(?![^(]*\))", inside)
        found.append([part.strip() for part in parts if part.strip()])
    return found


_FUNCTIONS: dict[str, Callable[[int, int], int]] = {
    "floordiv": lambda a, b: a // b,
    "mod": lambda a, b: a % b,
    "max": max,
    "min": min,
}
_OPERATORS: dict[type, Any] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
}


def _names(expression: str) -> list[str]:
    return list(dict.fromkeys(re.findall(r"[A-Za-z_]\w*", expression)))


def _evaluated(expression: str, sizes: Mapping[str, int]) -> int:
    """Returns the value of a size such as `2*n + floordiv(b, 2)`; raises SizesRefusal for what is none."""

    def value(node: ast.AST) -> int:
        if isinstance(node, ast.Constant) and type(node.value) is int:
            return node.value
        if isinstance(node, ast.Name) and node.id in sizes:
            return sizes[node.id]
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -value(node.operand)
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            result: int = _OPERATORS[type(node.op)](value(node.left), value(node.right))
            return result
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
            base, exponent = value(node.left), value(node.right)
            if 0 <= exponent <= 64 and abs(base) <= _MAX_SIZE:
                return int(base**exponent)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS:
            operands = [value(argument) for argument in node.args]
            if len(operands) == 2 and (operands[1] != 0 or node.func.id in ("max", "min")):
                return int(_FUNCTIONS[node.func.id](*operands))
        raise SizesRefusal(f"the size {expression!r} cannot be computed: state the dimension itself")

    try:
        return value(ast.parse(expression.replace("^", "**"), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise SizesRefusal(f"the size {expression!r} cannot be computed: state the dimension itself") from None


def bound_proto(content: bytes, kind: str, sizes: Mapping[str, int]) -> bytes:
    """Returns the HloModuleProto of a program whose open dimensions have these sizes.

    Args:
      content: MLIR as text, as bytecode or as a portable artifact; HLO as text; or a HloModuleProto.
      kind: of the content: `stablehlo`, `text` or `proto`.

    Raises:
      SizesRefusal: the sizes do not fit the program.
    """
    from jax._src.interpreters import mlir
    from jaxlib import _hlo, _jax
    from jaxlib.mlir import ir
    from jaxlib.mlir.dialects import func, stablehlo

    if kind == "text":
        content = _hlo.hlo_module_from_text(content.decode()).as_serialized_hlo_module_proto()
    if kind != "stablehlo":
        content = _jax.mlir.hlo_to_stablehlo(content)
    with mlir.make_ir_context(), ir.Location.unknown():
        module = ir.Module.parse(content)
        if any(op.operation.name.startswith("vhlo.") for op in module.body.operations):
            module = _jax.mlir.deserialize_portable_artifact(content)
        main = next((op for op in module.body.operations if _name(op, ir) == "main"), None)
        if main is None:
            raise SizesRefusal("the program has no function called main")
        inputs = main.type.inputs
        sizes_of = bound_sizes(_open_dimensions(module, inputs, ir), sizes)
        main.attributes["sym_name"] = ir.StringAttr.get("main_of_unknown_sizes")
        main.attributes["sym_visibility"] = ir.StringAttr.get("private")
        types = list(inputs)
        for number, old in enumerate(inputs):
            own = {d.dimension: size for d, size in sizes_of.items() if d.argument == number}
            if own:
                tensor = ir.RankedTensorType(old)
                shape = [own.get(i, None if tensor.is_dynamic_dim(i) else tensor.shape[i]) for i in range(tensor.rank)]
                types[number] = ir.RankedTensorType.get(shape, tensor.element_type)
        with ir.InsertionPoint(module.body):
            outer = func.FuncOp("main", (types, main.type.results))
            if "arg_attrs" in main.attributes:
                outer.attributes["arg_attrs"] = main.attributes["arg_attrs"]
            with ir.InsertionPoint(outer.add_entry_block()):
                given = [
                    argument if argument.type == old else stablehlo.convert(old, argument)
                    for argument, old in zip(outer.entry_block.arguments, inputs, strict=True)
                ]
                func.ReturnOp(func.CallOp(main, given).results)
        written = io.BytesIO()
        module.operation.write_bytecode(written)
    try:
        refined = _jax.mlir.refine_polymorphic_shapes(written.getvalue(), validate_static_shapes=True)
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if "error" in line]
        detail = lines[0].rpartition("error:")[2].strip() if lines else str(error)
        raise SizesRefusal(f"the sizes of all values do not follow from these sizes: {detail[:300]}") from None
    computation = _jax.mlir.mlir_module_to_xla_computation(refined, use_tuple_args=False, return_tuple=False)
    proto: bytes = computation.as_serialized_hlo_module_proto()
    return proto


def _name(operation: Any, ir: Any) -> str:
    attributes = operation.attributes
    return str(ir.StringAttr(attributes["sym_name"]).value) if "sym_name" in attributes else ""


def _open_dimensions(module: Any, inputs: Sequence[Any], ir: Any) -> list[OpenDimension]:
    """Returns the dimensions of main's arguments that have neither a size nor a bound."""
    found: list[list[OpenDimension]] = []
    ranks: list[int] = []
    for number, kind in enumerate(inputs):
        try:
            tensor = ir.RankedTensorType(kind)
        except ValueError:  # a token
            continue
        bounds = str(tensor.encoding) if tensor.encoding is not None else ""
        stated = re.search(r"bounds\s*+=?\s*+[<\[]([^>\]]*)", bounds)
        bounded = [part.strip() != "?" for part in stated.group(1).split(",")] if stated else [False] * tensor.rank
        own = [
            OpenDimension(number, i, str(kind))
            for i in range(tensor.rank)
            if tensor.is_dynamic_dim(i) and not bounded[i]
        ]
        if own:
            found.append(own)
            ranks.append(tensor.rank)
    stated_sizes = specifications(module.operation.get_asm(large_elements_limit=8)) if found else []
    if [len(sizes) for sizes in stated_sizes] == ranks:
        return [
            replace(dimension, expression=sizes[dimension.dimension])
            for own, sizes in zip(found, stated_sizes, strict=True)
            for dimension in own
        ]
    return [dimension for own in found for dimension in own]


def main(arguments: Sequence[str]) -> int:
    """Answers one request, and returns the exit status."""
    kind, sizes = arguments
    try:
        proto = bound_proto(sys.stdin.buffer.read(), kind, json.loads(sizes))
    except SizesRefusal as error:
        print(error, file=sys.stderr)
        return REFUSED
    except Exception as error:
        print(error, file=sys.stderr)
        return 1
    sys.stdout.buffer.write(proto)
    return 0
