"""How the steps are compiled, and what their arithmetic and their arrays are made of."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np import arrayobj

_arrays: Any = arrayobj  # none of numba's functions has types
_codegen: Any = cgutils
_llvm = _codegen.ir

ZERO, ONE, INF = np.float32(0.0), np.float32(1.0), np.float32(np.inf)
_LOWEST, _LOG_2, _LOG2_E = np.float32(-87.0), np.float32(0.69314718), np.float32(1.44269504)
_ROUNDING = np.float32(1.5 * 2**23)

_Function = TypeVar("_Function", bound=Callable[..., Any])
_OPTIONS: dict[str, Any] = {
    "cache": True,
    # Without `nnan` and `ninf`: infinities are used as sentinels, and a network's NaN must not become a bad index.
    "fastmath": {"reassoc", "arcp", "contract", "nsz"},
    "error_model": "numpy",
    # Arrays belong to Python and outlive the call. Counting references to them would cost an atomic operation whenever
    # a function reads one: a fifth of the time in the steps.
    "_nrt": False,
}


# Numba stores a step until the file of the step changes. The name of what it stores stands for the helpers' files.
_SOURCES = sorted(Path(__file__).parent.glob("*.py"))
_VERSION = f"_{zlib.crc32(b''.join(path.read_bytes() for path in _SOURCES)):08x}"


def step(function: _Function) -> _Function:
    """Compiles what Python calls. Allocates nothing: neither it nor its helpers may create an array."""
    function.__qualname__ += _VERSION
    compiled: _Function = njit(**_OPTIONS)(function)
    return compiled


def helper(function: _Function) -> _Function:
    """Compiles a part of steps, always inlined: a call that hands over a tree costs as much as most parts do."""
    compiled: _Function = njit(inline="always", **_OPTIONS)(function)
    return compiled


def exact_helper(function: _Function) -> _Function:
    """As `helper`, for arithmetic on scalars whose order matters: LLVM inlines it, and may not rearrange it."""
    compiled: _Function = njit(**_OPTIONS | {"fastmath": {"contract"}})(function)
    return compiled


@exact_helper
def fast_exp(x: np.float32) -> np.float32:
    """e^x of x <= 0 to a relative 1e-6, in few operations and no call; e^-87 below -87 and for NaN.

    2^n times the Cephes polynomial of r, where x = n log(2) + r and |r| <= log(2) / 2.
    """
    clamped = x if x > _LOWEST else _LOWEST
    # A float32 of this size has no fraction: the sum is rounded, and holds n in its lowest bits.
    shifted = np.float32(clamped * _LOG2_E + _ROUNDING)
    r = clamped - (shifted - _ROUNDING) * _LOG_2
    series = np.float32(1.9875691500e-4)
    series = series * r + np.float32(1.3981999507e-3)
    series = series * r + np.float32(8.3334519073e-3)
    series = series * r + np.float32(4.1665795894e-2)
    series = series * r + np.float32(1.6666665459e-1)
    series = series * r + np.float32(5.0000001201e-1)
    power = np.int32((shifted.view(np.int32) + 127) << 23).view(np.float32)  # 2^n, by its bits
    return np.float32((series * (r * r) + r + ONE) * power)


def _array_at(_typing: Any, address: Any, shape: Any, dtype: Any) -> Any:
    """The array of `dtype` and `shape` that begins at `address`: numba's `carray`, which needs `_nrt`."""
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
