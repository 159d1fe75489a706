"""How the steps are compiled, and what their arithmetic is made of."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numba import njit

from muzero_ray.search.numba_internals import UNCOUNTED

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
    **UNCOUNTED,
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

    2^n times the Cephes polynomial of r, where x = n log(2) + r and |r| <= log(2) / 2. Not the exponential of
    `inference.mlp_kernels`: that one hands NaN on, from which a search would make a bad index.
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
