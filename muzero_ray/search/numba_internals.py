"""All that is used of numba beyond what it documents: no other module names it.

`pyproject.toml` says up to which version of numba this is known to work; `tests/test_private_names.py` checks it.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np import arrayobj

_arrays: Any = arrayobj  # none of numba's functions has types
_codegen: Any = cgutils
_llvm = _codegen.ir

UNCOUNTED: dict[str, Any] = {"_nrt": False}
"""An option of `njit`: the function counts no references to arrays, and so cannot create arrays."""


def _array_at(_typing: Any, address: Any, shape: Any, dtype: Any) -> Any:
    """The array of `dtype` and `shape` (a tuple) at `address`, an integer. Unlike `carray`, it works `UNCOUNTED`."""
    array_type = types.Array(dtype.dtype, len(shape), "C")

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        array = _arrays.make_array(array_type)(context, builder)
        itemsize = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(dtype.dtype)))
        lengths = _codegen.unpack_tuple(builder, arguments[1])
        strides = [itemsize]
        for length in lengths[:0:-1]:  # C order: from the last axis to the second
            strides.insert(0, builder.mul(strides[0], length))
        data = builder.inttoptr(arguments[0], array.data.type)
        _arrays.populate_array(array, data=data, shape=lengths, strides=strides, itemsize=itemsize, meminfo=None)
        return array._getvalue()

    return array_type(address, shape, dtype), generate


array_at: Any = intrinsic(_array_at)


def _keep_scalar(_typing: Any) -> Any:
    def generate(context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        builder.asm(_llvm.FunctionType(_llvm.VoidType(), []), "", "", [], True)
        return context.get_dummy_value()

    return types.none(), generate


keep_scalar: Any = intrinsic(_keep_scalar)
"""Called in a loop, keeps LLVM from vectorizing it; adds no instruction. A node has few visited children. LLVM would
prepare loops over them for 32 at a time, and saving registers for that slows down the code around."""


def _prefetch(_typing: Any, _address: Any) -> Any:
    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        integer, pointer = _llvm.IntType(32), _llvm.IntType(8).as_pointer()
        function_type = _llvm.FunctionType(_llvm.VoidType(), [pointer, integer, integer, integer])
        function = _codegen.get_or_insert_function(builder.module, function_type, "llvm.prefetch.p0i8")
        read, keep_in_all_levels, data = integer(0), integer(3), integer(1)
        builder.call(function, [builder.inttoptr(arguments[0], pointer), read, keep_in_all_levels, data])
        return context.get_dummy_value()

    return types.none(types.int64), generate


prefetch: Any = intrinsic(_prefetch)
"""Loads the cache line at an address (an integer) into the cache, without waiting for it."""
