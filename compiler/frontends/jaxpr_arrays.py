"""Types and values of jaxprs as HLO has them: abstract values as Shapes, arrays of keys as the integers under them.

An array of random keys is an array of `uint32` with more dimensions once it is compiled, and `float0`, the tangent type
of integers, is `pred`. Everything that a Graph computes on is such a *physical* array; `Physical` carries values over
the border in both directions.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import jax
import ml_dtypes
import numpy as np

from memplan.compiler.errors import GraphError
from memplan.compiler.frontends import jaxpr_versions as versions
from memplan.compiler.ir import Layout, Shape
from memplan.compiler.ir.shape import BITS_PER_ELEMENT

# numpy's name of a type (ml_dtypes' ones included) to XLA's (xla_data.proto, PrimitiveType), where no rule gives it.
_IRREGULAR = {"bool": "pred", "bfloat16": "bf16", "complex64": "c64", "complex128": "c128"}
_PREFIXES = (("uint", "u"), ("int", "s"), ("float", "f"))

HOST_MEMORY_SPACE = 5  # XLA's `S(5)`, pinned memory of the host (xla/service/host_memory_offload_annotations.h)


def hlo_dtype(dtype: Any) -> str:
    """Returns XLA's name of a numpy type; raises GraphError if it has none.

    >>> hlo_dtype(np.dtype("int32")), hlo_dtype(ml_dtypes.float8_e4m3fn)
    ('s32', 'f8e4m3fn')
    """
    dtype = np.dtype(dtype)
    if dtype == jax.dtypes.float0:
        return "pred"
    name = _IRREGULAR.get(dtype.name, dtype.name)
    for prefix, short in _PREFIXES:
        if name.startswith(prefix):
            name = short + name.removeprefix(prefix).replace("_", "")
            break
    if name not in BITS_PER_ELEMENT:
        raise GraphError(f"arrays of type {dtype.name} have no counterpart in HLO")
    return name


def _numpy_dtypes() -> dict[str, np.dtype[Any]]:
    """Returns numpy's types by XLA's names; a new ml_dtypes has some that XLA does not know."""
    narrow = [
        value for name, value in vars(ml_dtypes).items() if name.startswith(("float8_", "float4_", "int", "uint"))
    ]
    found = {}
    for dtype in (
        bool,
        *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
        *("float16", "float32", "float64", "complex64", "complex128", ml_dtypes.bfloat16),
        *narrow,
    ):
        with suppress(GraphError):
            found[hlo_dtype(dtype)] = np.dtype(dtype)
    return found


_NUMPY_DTYPES = _numpy_dtypes()


def numpy_dtype(dtype: str) -> np.dtype[Any]:
    """Returns the numpy type of XLA's name of one; an element of less than a byte takes a byte. GraphError if none.

    >>> numpy_dtype("s32")
    dtype('int32')
    """
    try:
        return _NUMPY_DTYPES[dtype]
    except KeyError:
        raise GraphError(f"numpy has no type {dtype!r}") from None


_shapes: dict[tuple[Any, ...], Shape] = {}


def shape_of(aval: Any) -> Shape:
    """Returns the Shape of an abstract value, row-major; GraphError where a Graph cannot hold it."""
    dtype = getattr(aval, "dtype", None)
    if dtype is None:
        if type(aval).__name__ == "AbstractToken":
            return Shape("token")
        raise GraphError(f"a value of type {aval} has no shape")
    if hasattr(aval, "inner_aval"):
        raise GraphError(
            f"{aval} is a mutable reference, which cannot be traced; make the function pure, with the reference's "
            f"content as argument and result"
        )
    is_on_host = getattr(getattr(aval, "memory_space", None), "name", "") == "Host"
    key = (dtype, aval.shape, is_on_host)
    if key in _shapes:
        return _shapes[key]
    dims = aval.shape
    if versions.is_key_dtype(dtype):
        base = jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct(dims, dtype))
        dtype, dims = base.dtype, base.shape
    try:
        dims = tuple(int(d) for d in dims)
    except Exception:
        raise GraphError(f"{aval} has a dimension that is not a number; trace with shapes that are known") from None
    shape = Shape(hlo_dtype(dtype), dims)
    if is_on_host:
        shape = shape.with_memory_space(HOST_MEMORY_SPACE)
    _shapes[key] = shape
    return shape


def tuple_shape(elements: tuple[Shape, ...] | list[Shape]) -> Shape:
    """Returns the shape of a tuple of values."""
    return Shape("tuple", elements=tuple(elements))


def squeezed(shape: Shape, dimension: int = 0) -> Shape:
    """Returns `shape` without one of its dimensions."""
    return _plain(shape, shape.dims[:dimension] + shape.dims[dimension + 1 :])


def prepended(shape: Shape, size: int) -> Shape:
    """Returns `shape` with one more dimension in front."""
    return _plain(shape, (size, *shape.dims))


def _plain(shape: Shape, dims: tuple[int, ...]) -> Shape:
    changed = Shape(shape.dtype, dims)
    return changed.with_memory_space(shape.memory_space) if shape.memory_space else changed


def row_major(shape: Shape) -> bool:
    """Whether the elements lie in the order of their indices, without padding."""
    layout = shape.layout
    return layout is None or layout == Layout(tuple(reversed(range(len(shape.dims)))), memory_space=layout.memory_space)


def physical(value: Any) -> Any:
    """Returns the physical array of a value: the integers of keys, `pred` of `float0`, arrays as they are."""
    dtype = getattr(value, "dtype", None)
    if dtype is None or isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        return array.astype(bool) if array.dtype == jax.dtypes.float0 else array
    if versions.is_key_dtype(dtype):
        return jax.random.key_data(value)
    return value


def logical(aval: Any) -> Callable[[Any], Any] | None:
    """Returns what turns a physical array into the value that JAX has of this type; None where they are the same."""
    dtype = getattr(aval, "dtype", None)
    if dtype is None:
        return None
    if versions.is_key_dtype(dtype):
        implementation = versions.key_implementation(dtype)
        return lambda array: jax.random.wrap_key_data(array, impl=implementation)
    if dtype == jax.dtypes.float0:
        shape = aval.shape
        return lambda array: np.zeros(shape, jax.dtypes.float0)
    return None


def literal_text(value: np.ndarray[Any, Any]) -> str:
    """Returns an array as HLO text prints it; `{...}` for one of more than ten elements, as XLA elides it.

    >>> literal_text(np.float32(1.5)), literal_text(np.array([[1, 2], [3, 4]]))
    ('1.5', '{ { 1, 2 }, { 3, 4 } }')
    """
    if value.size > 10:
        return "{...}"
    return _nested_text(value, is_whole=True)


def _nested_text(value: np.ndarray[Any, Any], is_whole: bool = False) -> str:
    if value.ndim == 0:
        return _scalar_text(value[()], value.dtype)
    inside = ", ".join(_nested_text(np.asarray(part)) for part in value)
    is_tight = value.ndim == 1 and (is_whole or len(value) == 1)
    return f"{{{inside}}}" if is_tight else f"{{ {inside} }}"


def _scalar_text(scalar: Any, dtype: np.dtype[Any]) -> str:
    if dtype == np.bool_:
        return "true" if scalar else "false"
    if dtype.kind == "c":
        return f"({_number(scalar.real, dtype)}, {_number(scalar.imag, dtype)})"
    if "int" in dtype.name:
        return str(int(scalar))
    return _number(scalar, dtype)


def _number(scalar: Any, dtype: np.dtype[Any]) -> str:
    number = float(scalar)
    if number != number:
        return "nan"
    if number in (float("inf"), float("-inf")):
        return "inf" if number > 0 else "-inf"
    if number == int(number) and abs(number) < 1e15:
        return "-0" if number == 0 and str(number)[0] == "-" else str(int(number))
    digits = {"bfloat16": 4, "float16": 5}.get(dtype.name)
    return f"{number:.{digits}g}" if digits else str(scalar)
