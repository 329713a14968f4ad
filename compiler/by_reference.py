"""Named tuples of arrays that compiled functions take by reference.

Numba takes a tuple of arrays apart at each call: seven values for each array. Where functions with dozens of arrays
call each other, most of what is compiled is that. Here a tuple is unpacked once, when Python calls, and functions hand
its address on. Nothing in the tuple can be replaced, so what is read of it is read once, and its arrays live at least
as long as the call, so nobody counts references.

    by_reference(Tables)          in the file of a kernel, before Python calls it

    @internal
    def total(tables: Tables) -> float: …        `tables.items[3].size` as ever
"""

from __future__ import annotations

import hashlib
import operator
from typing import Any

from llvmlite import ir
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, AttributeTemplate, infer_global, signature
from numba.extending import (
    NativeValue,
    infer_getattr,
    lower_builtin,
    lower_getattr_generic,
    models,
    register_model,
    typeof_impl,
    types,
    unbox,
)


class _ByReference(types.Type):
    """The type of the address of a named tuple of type `value`. Its name is short, since names of functions hold it."""

    def __init__(self, value: Any):
        self.value = value
        super().__init__(name=f"{value.instance_class.__name__}_{_short(value)}")


class _Line(types.Type):
    """The type of the address of a one-dimensional contiguous array within such a tuple.

    It has a length and entries that can be read and written, and no slices, views or methods.
    """

    def __init__(self, array: Any):
        self.array, self.dtype = array, array.dtype
        super().__init__(name=f"Line_{_short(array)}")


def _short(kind: Any) -> str:
    return hashlib.sha256(str(kind).encode()).hexdigest()[:12]


@register_model(_ByReference)
class _TupleModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: _ByReference):
        super().__init__(manager, kind, manager.lookup(kind.value).get_value_type().as_pointer())


@register_model(_Line)
class _LineModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: _Line):
        super().__init__(manager, kind, manager.lookup(kind.array).get_value_type().as_pointer())


@infer_getattr
class _Attributes(AttributeTemplate):
    key = _ByReference

    def generic_resolve(self, kind: _ByReference, name: str) -> Any:
        if name not in kind.value.fields:
            return None
        wanted = kind.value.types[kind.value.fields.index(name)]
        return _Line(wanted) if _is_line(wanted) else wanted


def _is_line(kind: Any) -> bool:
    return isinstance(kind, types.Array) and kind.ndim == 1 and kind.layout == "C"


@lower_getattr_generic(_ByReference)
def _attribute(context: Any, builder: Any, kind: _ByReference, address: Any, name: str) -> Any:
    number = kind.value.fields.index(name)
    wanted = kind.value.types[number]
    place = cgutils.gep_inbounds(builder, address, 0, number)
    if _is_line(wanted):
        return place
    value = _read(builder, place)
    if isinstance(wanted, types.Array):  # Nobody counts references to it.
        for owner in ("meminfo", "parent"):
            part = context.data_model_manager.lookup(wanted)._fields.index(owner)
            value = builder.insert_value(value, cgutils.get_null_value(cgutils.voidptr_t), part)
    return value


def _read(builder: Any, place: Any) -> Any:
    """Reads what never changes, part by part."""
    kind = place.type.pointee
    if isinstance(kind, ir.BaseStructType | ir.ArrayType):
        count = kind.count if isinstance(kind, ir.ArrayType) else len(kind.elements)
        value = ir.Constant(kind, ir.Undefined)
        for i in range(count):
            value = builder.insert_value(value, _read(builder, cgutils.gep_inbounds(builder, place, 0, i)), i)
        return value
    value = builder.load(place)
    value.set_metadata("invariant.load", builder.module.add_metadata([]))
    return value


@infer_global(len)
class _Length(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        return signature(types.intp, *args) if isinstance(args[0], _Line) else None


@infer_global(operator.getitem)
class _GetItem(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        if not isinstance(args[0], _Line) or not isinstance(args[1], types.Integer):
            return None
        return signature(args[0].dtype, args[0], types.intp)


@infer_global(operator.setitem)
class _SetItem(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        if not isinstance(args[0], _Line) or not isinstance(args[1], types.Integer):
            return None
        return signature(types.none, args[0], types.intp, args[0].dtype)


@lower_builtin(len, _Line)
def _length(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return _length_of(context, builder, sig.args[0], args[0])


def _length_of(context: Any, builder: Any, kind: _Line, line: Any) -> Any:
    part = context.data_model_manager.lookup(kind.array)._fields.index("shape")
    return _read(builder, cgutils.gep_inbounds(builder, line, 0, part, 0))


def _entry(context: Any, builder: Any, kind: _Line, line: Any, index: Any) -> Any:
    """Returns the address of an entry; negative numbers count from the end."""
    part = context.data_model_manager.lookup(kind.array)._fields.index("data")
    data = _read(builder, cgutils.gep_inbounds(builder, line, 0, part))
    is_negative = builder.icmp_signed("<", index, index.type(0))
    from_end = builder.add(index, _length_of(context, builder, kind, line))
    return builder.gep(data, [builder.select(is_negative, from_end, index)], inbounds=True)


@lower_builtin(operator.getitem, _Line, types.Integer)
def _get_item(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    kind = sig.args[0]
    return context.unpack_value(builder, kind.dtype, _entry(context, builder, kind, *args))


@lower_builtin(operator.setitem, _Line, types.Integer, types.Any)
def _set_item(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    line, index, value = args
    kind = sig.args[0]
    context.pack_value(builder, kind.dtype, value, _entry(context, builder, kind, line, index))
    return context.get_dummy_value()


@unbox(_ByReference)
def _unbox(kind: _ByReference, instance: Any, c: Any) -> NativeValue:
    """Unpacks a tuple into the frame of the function that Python calls."""
    native = c.unbox(kind.value, instance)

    def release() -> None:
        if native.cleanup is not None:
            native.cleanup()
        c.context.nrt.decref(c.builder, kind.value, native.value)

    address = cgutils.alloca_once_value(c.builder, native.value)
    return NativeValue(address, cleanup=release, is_error=native.is_error)


def by_reference(*classes: type) -> None:
    """Lets compiled functions take instances of classes of named tuples, whose fields are arrays, by reference."""
    for each in classes:

        @typeof_impl.register(each)
        def typeof(value: Any, context: Any, each: type = each) -> _ByReference:
            return _ByReference(types.NamedTuple([typeof_impl(field, context) for field in value], each))
