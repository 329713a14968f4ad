"""What XLA does with an equation when it fuses: which ones never have a buffer of their own.

The kinds follow XLA's instruction fusion (xla/service/instruction_fusion.cc, `IsExpensive` and
`ComputeGloballyUnfusible`): a cheap producer is computed within each of its consumers, an expensive one only if it has
a single consumer, and what runs as a loop or in a library is fused with nothing.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

from memplan.compiler.frontends.jaxpr_arrays import HOST_MEMORY_SPACE, shape_of
from memplan.passes.jaxprs import inner_jaxprs


class Kind(Enum):
    """How an equation is fused."""

    VIEW = "other dimensions of the same bytes"
    CHEAP = "computed within each consumer"
    EXPENSIVE = "computed within its consumer if that is the only one"
    REDUCTION = "computes its producers within, and has a buffer"
    OPAQUE = "fused with nothing"


_VIEWS = frozenset({"expand_dims", "reshape", "squeeze", "stop_gradient"})

# Equations whose results have one element for each element of their operands.
_CHEAP_ELEMENTWISE = frozenset(
    {
        "abs", "add", "add_any", "and", "bitcast_convert_type", "ceil", "clamp", "complex", "conj",
        "convert_element_type", "copy", "copy_p", "cos", "eq", "floor", "ge", "gt", "imag", "integer_pow", "is_finite",
        "le", "lt", "max", "min", "mul", "ne", "neg", "nextafter", "not", "one_minus_square", "or", "population_count",
        "real", "reduce_precision", "round", "select_n", "shift_left", "shift_right_arithmetic", "shift_right_logical",
        "sign", "sin", "sinh", "square", "sub", "tan", "xor",
    }
)  # fmt: skip
_EXPENSIVE = frozenset(
    {
        "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "cosh", "digamma", "div", "erf", "erf_inv",
        "erfc", "exp", "exp2", "expm1", "lgamma", "log", "log1p", "logistic", "pow", "rem", "rsqrt", "sqrt", "tanh",
    }
)  # fmt: skip
_MOVES = frozenset({"broadcast_in_dim", "dynamic_slice", "iota", "rev", "slice", "transpose"})
# What pads and concatenates has a buffer too: its readers would compute too much twice.
_REDUCTIONS = frozenset(
    {
        "argmax", "argmin", "concatenate", "dynamic_update_slice", "pad", "reduce_and", "reduce_max", "reduce_min",
        "reduce_or", "reduce_prod", "reduce_sum", "reduce_xor",
    }
)  # fmt: skip

# Equations that may be no function of their operands, so that no plan runs them twice, whether or not JAX lists an
# effect. Calls of libraries may write to memory that the program does not see.
_NOT_REPEATABLE = frozenset(
    {"custom_call", "debug_callback", "ffi_call", "infeed", "io_callback", "outfeed", "pure_callback", "rng_uniform"}
)


def kind_of(equation: Any) -> Kind:
    """Returns how an equation is fused."""
    name = equation.primitive.name
    # A product of matrices reads and writes them either way round.
    if name in _VIEWS or (name == "transpose" and len(equation.params["permutation"]) == 2):
        return Kind.VIEW
    if name in _EXPENSIVE:
        return Kind.EXPENSIVE
    if name in _CHEAP_ELEMENTWISE or name in _MOVES:
        return Kind.CHEAP
    return Kind.REDUCTION if name in _REDUCTIONS or is_product_of_vectors(equation) else Kind.OPAQUE


def is_product_of_vectors(equation: Any) -> bool:
    """Whether XLA makes a product of elements and their sum of an equation, such as the square of a norm."""
    return equation.primitive.name == "dot_general" and equation.outvars[0].aval.shape == ()


def is_elementwise(equation: Any) -> bool:
    """Whether each element of the result follows from the elements of the operands at the same place."""
    name = equation.primitive.name
    return name in _CHEAP_ELEMENTWISE or name in _EXPENSIVE


def can_repeat(equation: Any) -> bool:
    """Whether an equation has the same results whenever it runs, and does nothing else."""
    if equation.effects or equation.primitive.name in _NOT_REPEATABLE:
        return False
    return all(
        can_repeat(inner) for _, _, jaxpr in inner_jaxprs(equation) for inner in getattr(jaxpr, "jaxpr", jaxpr).eqns
    )


def bytes_of(aval: Any) -> int:
    """Returns the bytes that an abstract value takes on the device: none for a token, or for what the host holds."""
    shape = shape_of(aval)
    return 0 if shape.dtype == "token" or shape.memory_space == HOST_MEMORY_SPACE else shape.bytes
