"""Decorators that compile the search with numba, and the constants and the exponential that its functions share."""

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
    # Python holds all arrays during a call, so references need not be counted. Counting costs an atomic operation for
    # each array that a function reads: a fifth of the time in the steps.
    **UNCOUNTED,
}


# Numba's cache compiles a step again only if the step's own file changes. A hash of all files of the search in the name
# of the step makes it compile again after a change to its helpers, too.
_SOURCES = sorted(Path(__file__).parent.glob("*.py"))
_VERSION = f"_{zlib.crc32(b''.join(path.read_bytes() for path in _SOURCES)):08x}"


def step(function: _Function) -> _Function:
    """Compiles a function of the search that Python calls. Neither it nor its helpers may create an array."""
    function.__qualname__ += _VERSION
    compiled: _Function = njit(**_OPTIONS)(function)
    return compiled


def helper(function: _Function) -> _Function:
    """Compiles a part of steps, always inlined: passing a tree to a call costs as much as most parts do."""
    compiled: _Function = njit(inline="always", **_OPTIONS)(function)
    return compiled


def exact_helper(function: _Function) -> _Function:
    """As `helper`, for arithmetic on scalars whose order matters: LLVM inlines it, but may not reorder it."""
    compiled: _Function = njit(**_OPTIONS | {"fastmath": {"contract"}})(function)
    return compiled


@exact_helper
def fast_exp(x: np.float32) -> np.float32:
    """e^x for x <= 0, with a relative error of 1e-6; e^-87 for x < -87 and for NaN. Few operations, no call.

    2^n times the Cephes polynomial of r, where x = n log(2) + r and |r| <= log(2) / 2. The exponential of
    `inference.mlp_kernels` cannot be used here: it returns NaN for NaN, which would become a bad index in a search.
    """
    clamped = x if x > _LOWEST else _LOWEST
    # A float32 of this size has no fraction: adding _ROUNDING rounds to the integer n, held in the lowest bits.
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
