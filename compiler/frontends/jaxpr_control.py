"""Control flow of JAX as XLA has it: loops with everything that they touch in one tuple, branches, calls.

scan over xs [n, …]                        while (i, constants…, carried…, ys…, xs…)
  carried, y = f(constants, carried, x)      condition: i < n
                                             body: x  = dynamic-slice(xs, i)
                                                   carried', y = f(constants, carried, x)
                                                   ys' = dynamic-update-slice(ys, y, i)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from memplan.compiler.frontends import jaxpr_versions as versions
from memplan.compiler.frontends.jaxpr_arrays import numpy_dtype, prepended, shape_of, squeezed, tuple_shape
from memplan.compiler.frontends.jaxpr_builder import Attributes, ComputationBuilder
from memplan.compiler.frontends.jaxpr_equation import EquationContext, braced, lower_jaxpr
from memplan.compiler.frontends.jaxpr_rules import Rule
from memplan.compiler.ir import Shape

_COUNTER = Shape("s32")


def _emit_control(
    context: EquationContext,
    opcode: str,
    shape: Shape,
    operands: Sequence[int],
    attributes: Attributes,
    called: Sequence[str],
    name: str = "",
    label: str = "",
) -> int:
    """Emits an instruction that calls computations, named after the primitive unless `name` says otherwise.

    `label` is its name in the path of what it calls, where that is not the primitive's.
    """
    return context.builder.emit(
        opcode,
        shape,
        operands,
        name=name or context.name,
        attributes=(*attributes, ("primitive", context.name)),
        called=called,
        source=context.scope.source(label or context.name),
    )


# Calls


def _call(context: EquationContext, jaxpr: Any, operands: Sequence[int], name: str, label: str = "") -> list[int]:
    """A call: of a computation with a parameter per operand, whose result is a tuple unless it is one value.

    Args:
      name: wish for the names of the computation and the instruction.
      label: of the call in paths; `name` by default.
    """
    inner, _ = versions.opened(jaxpr)
    label = label or name
    if not inner.eqns:
        return context.lower(jaxpr, operands, label)
    callee = context.computation(jaxpr, name, label)
    shapes = context.out_shapes
    shape = shapes[0] if len(shapes) == 1 else tuple_shape(shapes)
    value = _emit_control(context, "call", shape, operands, [("to_apply", f"%{callee}")], [callee], name, label)
    return [value] if len(shapes) == 1 else context.builder.elements(value)


def _call_of(key: str) -> Rule:
    """Returns the rule for a primitive that runs the jaxpr of this parameter on its operands."""

    def rule(context: EquationContext) -> list[int]:
        params = context.params
        if context.name in ("jit", "pjit"):
            return _call(context, params[key], context.operands, params["name"], f"jit({params['name']})")
        return _call(context, params[key], context.operands, context.name)

    return rule


def _composite(context: EquationContext) -> list[int]:
    params = context.params
    jaxpr = params["call_jaxpr"] if "call_jaxpr" in params else params["jaxpr"]
    return _call(context, jaxpr, context.operands, str(params["name"]))


def _linear_call(context: EquationContext) -> list[int]:
    """A function with a transpose of its own; what only the transpose would read is not an operand here."""
    callee = context.params["callee"]
    return _call(context, callee, context.operands[: len(versions.opened(callee)[0].invars)], context.name)


def _custom_linear_solve(context: EquationContext) -> list[int]:
    """Runs `solve`; the other functions are for derivatives. Operands: the constants of all, then the right side."""
    lengths, jaxprs = context.params["const_lengths"], context.params["jaxprs"]
    start = lengths.matvec + lengths.vecmat
    constants = context.operands[start : start + lengths.solve]
    right_side = context.operands[sum(lengths) :]
    return _call(context, jaxprs.solve, [*constants, *right_side], "solve")


# Branches


def _cond(context: EquationContext) -> list[int]:
    """A conditional: each branch takes the same tuple, and the index chooses among them."""
    builder = context.builder
    index, operands = context.operands[0], context.operands[1:]
    arguments = builder.tuple(operands, context.source)
    names = []
    for i, branch in enumerate(context.params["branches"]):
        inside = ComputationBuilder(builder.module, f"branch_{i}")
        values = inside.elements(inside.parameter(builder.shape(arguments)))
        scope = context.scope.inside(context.name, f"branch_{i}_fun")
        results = lower_jaxpr(inside, branch, values, scope, context.rules)
        names.append(inside.finish(inside.tuple(results)))
    value = _emit_control(
        context,
        "conditional",
        tuple_shape(context.out_shapes),
        [index] + [arguments] * len(names),
        [("branch_computations", "{" + ", ".join(f"%{name}" for name in names) + "}")],
        names,
    )
    return builder.elements(value)


# Loops


def _loop(
    context: EquationContext,
    initial: Sequence[int],
    condition: Callable[[ComputationBuilder, list[int]], int],
    body: Callable[[ComputationBuilder, list[int]], list[int]],
    attributes: Attributes = (),
) -> list[int]:
    """Emits a `while` over a tuple; returns its elements.

    Args:
      initial: the elements of the tuple before the first iteration.
      condition: emits the truth value of going on, given the elements.
      body: emits the elements after an iteration, given those before it.
      attributes: of the instruction, besides its computations.
    """
    builder = context.builder
    state = builder.tuple(initial, context.source)
    shape = builder.shape(state)
    inside = ComputationBuilder(builder.module, f"{context.name}_condition")
    condition_name = inside.finish(condition(inside, inside.elements(inside.parameter(shape))))
    inside = ComputationBuilder(builder.module, f"{context.name}_body")
    body_name = inside.finish(inside.tuple(body(inside, inside.elements(inside.parameter(shape)))))
    value = _emit_control(
        context,
        "while",
        shape,
        [state],
        [("condition", f"%{condition_name}"), ("body", f"%{body_name}"), *attributes],
        [condition_name, body_name],
        label="while",
    )
    return builder.elements(value)


def _while(context: EquationContext) -> list[int]:
    params = context.params
    num_condition, num_body = params["cond_nconsts"], params["body_nconsts"]
    fixed = num_condition + num_body
    predicate_shape = shape_of(versions.opened(params["cond_jaxpr"])[0].outvars[0].aval)
    scope = context.scope.inside("while")

    def decide(builder: ComputationBuilder, state: list[int]) -> int:
        arguments = [*state[:num_condition], *state[fixed:]]
        (value,) = lower_jaxpr(builder, params["cond_jaxpr"], arguments, scope.inside("cond"), context.rules)
        return value

    def condition(builder: ComputationBuilder, state: list[int]) -> int:
        value = decide(builder, state)
        return _any(builder, value) if predicate_shape.dims else value

    def body(builder: ComputationBuilder, state: list[int]) -> list[int]:
        carried = state[fixed:]
        arguments = [*state[num_condition:fixed], *carried]
        results = lower_jaxpr(builder, params["body_jaxpr"], arguments, scope.inside("body"), context.rules)
        if predicate_shape.dims:  # a batch of loops: those that are done keep their state
            goes_on = decide(builder, state)
            results = [_where(builder, goes_on, new, old) for new, old in zip(results, carried, strict=True)]
        return [*state[:fixed], *results]

    return _loop(context, context.operands, condition, body)[fixed:]


def _any(builder: ComputationBuilder, predicate: int) -> int:
    """Emits whether any element of an array of truth values is true."""

    def build() -> str:
        inside = ComputationBuilder(builder.module, "or_pred")
        operands = [inside.parameter(Shape("pred"), name) for name in ("accumulated", "element")]
        return inside.finish(inside.emit("or", Shape("pred"), operands, evaluate=np.logical_or))

    to_apply = builder.module.shared(("or", "pred"), build)
    dimensions = braced(range(len(builder.shape(predicate).dims)))
    return builder.emit(
        "reduce",
        Shape("pred"),
        (predicate, builder.constant(np.asarray(False), Shape("pred"))),
        attributes=(("dimensions", dimensions), ("to_apply", f"%{to_apply}")),
        called=(to_apply,),
        evaluate=lambda array, _: np.any(np.asarray(array)),
    )


def _where(builder: ComputationBuilder, predicate: int, on_true: int, on_false: int) -> int:
    """Emits a select whose predicate has the leading dimensions of its operands."""
    shape = builder.shape(on_true)
    if not shape.is_array:
        return on_true
    dims = builder.shape(predicate).dims
    if dims != shape.dims:
        predicate = builder.emit(
            "broadcast",
            Shape("pred", shape.dims),
            (predicate,),
            attributes=(("dimensions", braced(range(len(dims)))),),
            evaluate=lambda array: _stretched(np.asarray(array), shape.dims),
        )
    return builder.emit(
        "select", shape, (predicate, on_true, on_false), evaluate=lambda p, t, f: np.where(p, np.asarray(t), f)
    )


def _stretched(array: np.ndarray[Any, Any], dims: tuple[int, ...]) -> np.ndarray[Any, Any]:
    return np.broadcast_to(array.reshape(array.shape + (1,) * (len(dims) - array.ndim)), dims)


def _scan(context: EquationContext) -> list[int]:
    """A scan; `unroll` iterations are one of the `while`, and what is left over follows it."""
    scan = _Scan(context)
    unroll = max(1, min(scan.unroll, scan.length))
    trips = scan.length // unroll
    state = list(scan.initial())
    if trips > 1 or (trips == 1 and unroll == 1):
        counter = context.builder.index_constant(0)

        def condition(builder: ComputationBuilder, state: list[int]) -> int:
            limit = builder.index_constant(trips * unroll)
            return builder.emit(
                "compare",
                Shape("pred"),
                (state[0], limit),
                attributes=(("direction", "LT"),),
                evaluate=lambda i, n: np.less(np.asarray(i), n),
            )

        def body(builder: ComputationBuilder, state: list[int]) -> list[int]:
            counter, inner = state[0], state[1:]
            for step in range(unroll):
                inner = scan.iteration(builder, inner, _plus(builder, counter, step))
            return [_plus(builder, counter, unroll), *inner]

        backend_config = json.dumps({"known_trip_count": {"n": str(trips)}}, separators=(",", ":"))
        state = _loop(context, [counter, *state], condition, body, [("backend_config", backend_config)])[1:]
        done = trips * unroll
    else:
        done = 0
    for step in range(done, scan.length):
        state = scan.iteration(context.builder, state, context.builder.index_constant(step))
    return scan.results(state)


class _Scan:
    """One scan: the tuple that its loop carries is the constants, the carried values, the ys and the xs."""

    def __init__(self, context: EquationContext):
        params = context.params
        self.context = context
        self.jaxpr = params["jaxpr"]
        self.length = int(params["length"])
        self.unroll = int(params["unroll"])
        self.reverse = params["reverse"]
        self.num_constants, self.num_carried = versions.scan_counts(params)
        self.num_ys = len(context.out_shapes) - self.num_carried
        self.scope = context.scope.inside("while", "body")

    def initial(self) -> list[int]:
        """Emits the state before the first iteration: the ys are memory that is not written yet."""
        context = self.context
        builder, operands = context.builder, context.operands
        fixed = self.num_constants + self.num_carried
        ys = [
            builder.emit(
                "custom-call",
                shape,
                attributes=(("custom_call_target", '"AllocateBuffer"'),),
                name="allocate",
                source=context.scope.source("while"),
                evaluate=_zeros(shape),
            )
            for shape in context.out_shapes[self.num_carried :]
        ]
        return [*operands[:fixed], *ys, *operands[fixed:]]

    def iteration(self, builder: ComputationBuilder, state: list[int], step: int) -> list[int]:
        """Emits one iteration, the `step`-th to run; returns the state after it."""
        fixed = self.num_constants + self.num_carried
        ys, xs = state[fixed : fixed + self.num_ys], state[fixed + self.num_ys :]
        index = self._index(builder, step) if self.num_ys or xs else step
        elements = [self._load(builder, array, index) for array in xs]
        arguments = [*state[:fixed], *elements]
        results = lower_jaxpr(builder, self.jaxpr, arguments, self.scope, self.context.rules)
        carried, new = results[: self.num_carried], results[self.num_carried :]
        stored = [self._store(builder, array, y, index) for array, y in zip(ys, new, strict=True)]
        return [*state[: self.num_constants], *carried, *stored, *xs]

    def results(self, state: list[int]) -> list[int]:
        return state[self.num_constants : self.num_constants + self.num_carried + self.num_ys]

    def _index(self, builder: ComputationBuilder, step: int) -> int:
        if not self.reverse:
            return step
        last = builder.index_constant(self.length - 1)
        return builder.emit(
            "subtract",
            _COUNTER,
            (last, step),
            source=self.scope.source("sub"),
            evaluate=lambda last, i: np.int32(last - i),
        )

    def _load(self, builder: ComputationBuilder, array: int, index: int) -> int:
        """Emits the row of an array at an index."""
        shape = builder.shape(array)
        if not shape.is_array:
            return array
        row = prepended(squeezed(shape), 1)
        zeros = [builder.index_constant(0)] * (len(shape.dims) - 1)
        source = self.scope.source("dynamic_slice")
        value = builder.emit(
            "dynamic-slice",
            row,
            (array, index, *zeros),
            attributes=(("dynamic_slice_sizes", braced(row.dims)),),
            source=source,
            evaluate=_row,
        )
        return builder.view(value, squeezed(shape), source)

    def _store(self, builder: ComputationBuilder, array: int, value: int, index: int) -> int:
        """Emits the array with its row at an index replaced."""
        shape = builder.shape(array)
        source = self.scope.source("dynamic_update_slice")
        row = builder.view(value, prepended(builder.shape(value), 1), source)
        zeros = [builder.index_constant(0)] * (len(shape.dims) - 1)
        return builder.emit(
            "dynamic-update-slice", shape, (array, row, index, *zeros), source=source, evaluate=_updated
        )


def _zeros(shape: Shape) -> Callable[[], Any]:
    dims, dtype = shape.dims, numpy_dtype(shape.dtype)
    return lambda: np.zeros(dims, dtype)


def _plus(builder: ComputationBuilder, counter: int, addend: int) -> int:
    if addend == 0:
        return counter
    return builder.emit(
        "add", _COUNTER, (counter, builder.index_constant(addend)), evaluate=lambda i, n: np.int32(i + n)
    )


def _row(array: Any, index: Any, *_: Any) -> Any:
    """The row at an index, which is clamped as HLO's dynamic-slice does."""
    array = np.asarray(array)
    start = min(max(int(index), 0), len(array) - 1)
    return array[start : start + 1]


def _updated(array: Any, row: Any, index: Any, *_: Any) -> Any:
    result = np.array(array)
    result[min(max(int(index), 0), len(result) - 1)] = np.asarray(row)[0]
    return result


CONTROL_RULES: dict[str, Rule] = {
    **dict.fromkeys(
        ("jit", "pjit", "remat2", "remat", "checkpoint", "xla_metadata_call"),
        _call_of("jaxpr"),
    ),
    **dict.fromkeys(
        ("closed_call", "core_closed_call", "core_call", "call", "custom_jvp_call", "custom_vjp_call"),
        _call_of("call_jaxpr"),
    ),
    "composite": _composite,
    "cond": _cond,
    "custom_linear_solve": _custom_linear_solve,
    "linear_call": _linear_call,
    "scan": _scan,
    "while": _while,
}
