"""All that compiled code needs of numba beyond what it documents: no other module names it.

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
"""An option of `njit`: what is compiled counts no references to arrays. It then cannot create arrays."""


def _array_at(_typing: Any, address: Any, shape: Any, dtype: Any) -> Any:
    """The array of `dtype` and `shape` that begins at `address`: numba's `carray`, which does not work `UNCOUNTED`."""
    kind = types.Array(dtype.dtype, len(shape), "C")

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        made = _arrays.make_array(kind)(context, builder)
        size = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(dtype.dtype)))
        lengths = _codegen.unpack_tuple(builder, arguments[1])
        strides = [size]
        for length in lengths[:0:-1]:
            strides.insert(0, builder.mul(strides[0], length))
        data = builder.inttoptr(arguments[0], made.data.type)
        _arrays.populate_array(made, data=data, shape=lengths, strides=strides, itemsize=size, meminfo=None)
        return made._getvalue()

    return kind(address, shape, dtype), generate


array_at: Any = intrinsic(_array_at)


def _keep_scalar(_typing: Any) -> Any:
    def generate(context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        builder.asm(_llvm.FunctionType(_llvm.VoidType(), []), "", "", [], True)
        return context.get_dummy_value()

    return types.none(), generate


keep_scalar: Any = intrinsic(_keep_scalar)
"""Stands in a loop over the few visited children of a node, and is not an instruction. Without it LLVM prepares that
loop for 32 children at a time, which never come, and the registers it saves for them slow down everything around."""


def _prefetch(_typing: Any, _address: Any) -> Any:
    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        number, pointer = _llvm.IntType(32), _llvm.IntType(8).as_pointer()
        kind = _llvm.FunctionType(_llvm.VoidType(), [pointer, number, number, number])
        function = _codegen.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        builder.call(function, [builder.inttoptr(arguments[0], pointer), number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.none(types.int64), generate


prefetch: Any = intrinsic(_prefetch)
"""Asks for the cache line at an address, and does not wait for it."""
