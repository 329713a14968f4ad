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
from typing import Any

from llvmlite import ir
from numba.core import cgutils
from numba.core.typing.templates import AttributeTemplate
from numba.extending import (
    NativeValue,
    infer_getattr,
    lower_getattr_generic,
    models,
    register_model,
    types,
    typeof_impl,
    unbox,
)


class _ByReference(types.Type):
    """The type of the address of a named tuple of type `value`. Its name is short, since names of functions hold it."""

    def __init__(self, value: Any):
        self.value = value
        digest = hashlib.sha256(str(value).encode()).hexdigest()[:12]
        super().__init__(name=f"{value.instance_class.__name__}_{digest}")


@register_model(_ByReference)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: _ByReference):
        super().__init__(manager, kind, manager.lookup(kind.value).get_value_type().as_pointer())


@infer_getattr
class _Attributes(AttributeTemplate):
    key = _ByReference

    def generic_resolve(self, kind: _ByReference, name: str) -> Any:
        if name in kind.value.fields:
            return kind.value.types[kind.value.fields.index(name)]
        return None


@lower_getattr_generic(_ByReference)
def _attribute(context: Any, builder: Any, kind: _ByReference, address: Any, name: str) -> Any:
    number = kind.value.fields.index(name)
    wanted = kind.value.types[number]
    place = cgutils.gep_inbounds(builder, address, 0, number)
    if not isinstance(wanted, types.Array):
        return _read(builder, place)
    # The columns of a C-contiguous line of records are known, and no reference is counted.
    result = context.make_array(wanted)(context, builder)
    parts = {part: cgutils.gep_inbounds(builder, place, 0, i) for i, part in enumerate(result._datamodel._fields)}
    itemsize = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(wanted.dtype)))
    is_line = wanted.ndim == 1 and wanted.layout == "C"
    result.data, result.shape, result.itemsize = _read(builder, parts["data"]), _read(builder, parts["shape"]), itemsize
    result.nitems = builder.extract_value(result.shape, 0) if is_line else _read(builder, parts["nitems"])
    result.strides = cgutils.pack_array(builder, [itemsize]) if is_line else _read(builder, parts["strides"])
    result.meminfo = result.parent = cgutils.get_null_value(cgutils.voidptr_t)
    return result._getvalue()


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


@unbox(_ByReference)
def _unbox(kind: _ByReference, instance: Any, c: Any) -> NativeValue:
    """Unpacks a tuple into the frame of the function that Python calls."""
    native = c.unbox(kind.value, instance)
    address = cgutils.alloca_once_value(c.builder, native.value)
    return NativeValue(address, cleanup=native.cleanup, is_error=native.is_error)


def by_reference(*classes: type) -> None:
    """Lets compiled functions take instances of classes of named tuples, whose fields are arrays, by reference."""
    for each in classes:

        @typeof_impl.register(each)
        def typeof(value: Any, context: Any, each: type = each) -> _ByReference:
            return _ByReference(types.NamedTuple([typeof_impl(field, context) for field in value], each))
