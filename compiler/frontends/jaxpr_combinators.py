"""Primitives that apply a small computation to many elements: reductions, windows, sorts, scatters.

HLO names the computation under `to_apply` (of a select-and-scatter, `select` and `scatter`), and a reduction starts
from a value that is an operand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from memplan.compiler.frontends import jaxpr_versions as versions
from memplan.compiler.frontends.jaxpr_arrays import numpy_dtype
from memplan.compiler.frontends.jaxpr_builder import ComputationBuilder, ModuleBuilder
from memplan.compiler.frontends.jaxpr_equation import EquationContext, braced
from memplan.compiler.frontends.jaxpr_rules import Rule, window_text
from memplan.compiler.ir import Shape

# What a primitive's name ends with, to the opcode that combines two elements.
_COMBINED_BY = {
    "add": "add", "sum": "add", "sub": "subtract", "mul": "multiply", "prod": "multiply", "max": "maximum",
    "min": "minimum", "and": "and", "or": "or", "xor": "xor",
}  # fmt: skip

_NUMPY: dict[str, Callable[[Any, Any], Any]] = {
    "add": np.add, "subtract": np.subtract, "multiply": np.multiply, "maximum": np.maximum, "minimum": np.minimum,
    "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor,
}  # fmt: skip


def _combiner(module: ModuleBuilder, opcode: str, dtype: str) -> str:
    """Returns the name of the computation that combines two scalars by an opcode."""

    def build() -> str:
        builder = ComputationBuilder(module, f"{opcode}_{dtype}")
        scalar = Shape(dtype)
        operands = [builder.parameter(scalar, name) for name in ("accumulated", "element")]
        return builder.finish(builder.emit(opcode, scalar, operands, evaluate=_NUMPY[opcode]))

    return module.shared((opcode, dtype), build)


def _replacer(module: ModuleBuilder, dtype: str) -> str:
    """Returns the name of the computation that gives its second operand."""

    def build() -> str:
        builder = ComputationBuilder(module, f"replace_{dtype}")
        builder.parameter(Shape(dtype), "old")
        return builder.finish(builder.parameter(Shape(dtype), "new"))

    return module.shared(("replace", dtype), build)


def _neutral(opcode: str, dtype: str) -> np.ndarray[Any, Any]:
    """Returns the value that changes nothing when it is combined with another."""
    kind = numpy_dtype(dtype)
    if opcode in ("add", "or", "xor"):
        return np.zeros((), kind)
    if opcode == "multiply":
        return np.ones((), kind)
    if opcode == "and":
        return np.asarray(True) if kind == np.bool_ else np.bitwise_not(np.zeros((), kind))
    if kind == np.bool_:
        return np.asarray(opcode == "minimum")
    if dtype[0] in "su":
        import jax.numpy as jnp

        limits = jnp.iinfo(kind)
        return np.asarray(limits.min if opcode == "maximum" else limits.max).astype(kind)
    return np.asarray(-np.inf if opcode == "maximum" else np.inf).astype(kind)


def _reduce(context: EquationContext) -> list[int]:
    """`reduce_sum` and its like: the axes of one array, from a neutral element."""
    opcode = _COMBINED_BY[context.name.removeprefix("reduce_")]
    dtype = context.in_shapes[0].dtype
    if not context.params["axes"]:
        return list(context.operands)
    to_apply = _combiner(context.builder.module, opcode, dtype)
    start = context.builder.constant(_neutral(opcode, dtype), Shape(dtype))
    evaluate = context.evaluate
    return context.emit(
        "reduce",
        [("dimensions", braced(context.params["axes"])), ("to_apply", f"%{to_apply}")],
        operands=(*context.operands, start),
        called=(to_apply,),
        evaluate=lambda array, _: evaluate(array),
    )


def _reduce_any(context: EquationContext) -> list[int]:
    """`reduce`: any number of arrays with their starting values, combined by a jaxpr."""
    to_apply = context.computation(context.params["jaxpr"], "reducer", context.name)
    return context.emit(
        "reduce",
        [("dimensions", braced(context.params["dimensions"])), ("to_apply", f"%{to_apply}")],
        called=(to_apply,),
    )


def _window(params: dict[str, Any]) -> str:
    ones = (1,) * len(params["window_dimensions"])
    return window_text(
        size=params["window_dimensions"],
        stride=params["window_strides"],
        padding=params["padding"],
        lhs_dilation=params.get("base_dilation") or ones,
        rhs_dilation=params.get("window_dilation") or ones,
    )


def _reduce_window(context: EquationContext) -> list[int]:
    """`reduce_window_sum` and its like."""
    opcode = _COMBINED_BY[context.name.removeprefix("reduce_window_")]
    dtype = context.in_shapes[0].dtype
    to_apply = _combiner(context.builder.module, opcode, dtype)
    start = context.builder.constant(_neutral(opcode, dtype), Shape(dtype))
    evaluate = context.evaluate
    return context.emit(
        "reduce-window",
        [("window", _window(context.params)), ("to_apply", f"%{to_apply}")],
        operands=(*context.operands, start),
        called=(to_apply,),
        evaluate=lambda array, _: evaluate(array),
    )


def _reduce_window_any(context: EquationContext) -> list[int]:
    to_apply = context.computation(context.params["jaxpr"], "reducer", context.name)
    return context.emit(
        "reduce-window", [("window", _window(context.params)), ("to_apply", f"%{to_apply}")], called=(to_apply,)
    )


def _select_and_scatter_add(context: EquationContext) -> list[int]:
    """The gradient of a maximum over windows: JAX names the updates first, HLO the operand."""
    module, dtype = context.builder.module, context.in_shapes[0].dtype
    direction = "GE" if context.params["select_prim"].name == "ge" else "LE"
    select = _comparison(module, direction, dtype)
    scatter = _combiner(module, "add", dtype)
    start = context.builder.constant(_neutral("add", dtype), Shape(dtype))
    updates, operand = context.operands
    evaluate = context.evaluate
    return context.emit(
        "select-and-scatter",
        [("window", _window(context.params)), ("select", f"%{select}"), ("scatter", f"%{scatter}")],
        operands=(operand, updates, start),
        called=(select, scatter),
        evaluate=lambda operand, updates, _: evaluate(updates, operand),
    )


_COMPARE: dict[str, Callable[[Any, Any], Any]] = {"GE": np.greater_equal, "LE": np.less_equal}


def _comparison(module: ModuleBuilder, direction: str, dtype: str) -> str:
    def build() -> str:
        builder = ComputationBuilder(module, f"compare_{direction.lower()}_{dtype}")
        operands = [builder.parameter(Shape(dtype), name) for name in ("left", "right")]
        return builder.finish(
            builder.emit(
                "compare",
                Shape("pred"),
                operands,
                attributes=(("direction", direction),),
                evaluate=_COMPARE[direction],
            )
        )

    return module.shared(("compare", direction, dtype), build)


def _scatter(context: EquationContext) -> list[int]:
    params, module = context.params, context.builder.module
    dtype = context.in_shapes[0].dtype
    kind = context.name.removeprefix("scatter").lstrip("-_")
    update = params.get("update_jaxpr")
    if kind in _COMBINED_BY:
        to_apply = _combiner(module, _COMBINED_BY[kind], dtype)
    elif update is not None and versions.opened(update)[0].eqns:
        to_apply = context.computation(update, "updater", context.name)
    else:
        to_apply = _replacer(module, dtype)
    numbers = params["dimension_numbers"]
    attributes = [
        ("update_window_dims", braced(numbers.update_window_dims)),
        ("inserted_window_dims", braced(numbers.inserted_window_dims)),
        ("scatter_dims_to_operand_dims", braced(numbers.scatter_dims_to_operand_dims)),
    ]
    if numbers.operand_batching_dims:
        attributes += [
            ("input_batching_dims", braced(numbers.operand_batching_dims)),
            ("scatter_indices_batching_dims", braced(numbers.scatter_indices_batching_dims)),
        ]
    attributes.append(("index_vector_dim", str(len(context.in_shapes[1].dims) - 1)))
    attributes += [(key, "true") for key in ("indices_are_sorted", "unique_indices") if params[key]]
    return context.emit("scatter", [*attributes, ("to_apply", f"%{to_apply}")], called=(to_apply,))


def _sort(context: EquationContext) -> list[int]:
    params = context.params
    dtypes = [shape.dtype for shape in context.in_shapes]
    num_keys = params["num_keys"]
    to_apply = context.builder.module.shared(
        ("sort", tuple(dtypes), num_keys), lambda: _lexicographic(context.builder.module, dtypes, num_keys)
    )
    attributes = [("dimensions", braced([params["dimension"]]))]
    if params["is_stable"]:
        attributes.append(("is_stable", "true"))
    return context.emit("sort", [*attributes, ("to_apply", f"%{to_apply}")], called=(to_apply,))


def _lexicographic(module: ModuleBuilder, dtypes: Sequence[str], num_keys: int) -> str:
    """Builds the comparison of two rows by their first `num_keys` entries; returns its name.

    Operands are the left and right entry of each array in turn: less = a0 < b0 or (a0 == b0 and (a1 < b1 or …)).
    """
    builder = ComputationBuilder(module, "compare")
    pairs = [
        (builder.parameter(Shape(dtype), f"left_{i}"), builder.parameter(Shape(dtype), f"right_{i}"))
        for i, dtype in enumerate(dtypes)
    ]

    def compare(direction: str, pair: tuple[int, int], dtype: str) -> int:
        attributes = [("direction", direction)]
        if dtype[0] in "fbc":
            attributes.append(("type", "TOTALORDER"))
        return builder.emit("compare", Shape("pred"), pair, attributes=attributes)

    less: int | None = None
    for pair, dtype in reversed(list(zip(pairs[:num_keys], dtypes, strict=False))):
        here = compare("LT", pair, dtype)
        if less is not None:
            tied = builder.emit("and", Shape("pred"), (compare("EQ", pair, dtype), less))
            here = builder.emit("or", Shape("pred"), (here, tied))
        less = here
    assert less is not None, "a sort has a key"
    return builder.finish(less)


COMBINATOR_RULES: dict[str, Rule] = {
    **{f"reduce_{kind}": _reduce for kind in ("sum", "prod", "max", "min", "and", "or", "xor")},
    **{f"reduce_window_{kind}": _reduce_window for kind in ("sum", "max", "min")},
    **{f"scatter-{kind}": _scatter for kind in ("add", "sub", "mul", "min", "max")},
    **{f"scatter_{kind}": _scatter for kind in ("add", "sub", "mul", "min", "max")},
    "scatter": _scatter,
    "reduce": _reduce_any,
    "reduce_window": _reduce_window_any,
    "select_and_scatter_add": _select_and_scatter_add,
    "sort": _sort,
}
