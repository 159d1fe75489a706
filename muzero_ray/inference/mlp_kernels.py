"""The compiled loops of `mlp_engine`: a whole network in one call.

Weights are one packed vector, described by a table of integers, the plan `[P, 5]`, so that one compilation serves all
networks. Its first rows are the parts: first layer, layer after the last, offset of the support's bins, whether the
support is transformed, 0. Then come the layers: inputs, width, offset, number of biases (one, or one per action), and
whether LayerNorm and ReLU follow. At a layer's offset are weights `[O, I]`, biases, scale and shift of the LayerNorm.

Widths are padded with zeros to a multiple of `WIDTH_BLOCK` and batches to one of `ROW_BLOCK`: the inner loop is a block
of 4 rows times 4 outputs whose sums stay in registers. That reaches half of what a BLAS does with AVX-512 (130 ns a row
of 64x64 against 62; 190-280 for loops over one row at a time). The BLAS would make a search of 64 roots about a fifth
faster, and SciPy a dependency.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from muzero_ray.networks.supports import EPSILON
from muzero_ray.types import FloatArray, IntArray, LongArray

WIDTH_BLOCK, ROW_BLOCK = 8, 4

# Only `evaluate` is stored, and its parts are inlined into it. As functions of their own, they were linked differently
# after compiling than when read from numba's cache: the first run on a machine rounded differently from later ones.

# Without `nnan` and `ninf`: the NaN of a broken network must reach its outputs, where the search looks for it.
_FAST = {"reassoc", "arcp", "contract", "nsz"}
_ZERO, _ONE, _INF = np.float32(0.0), np.float32(1.0), np.float32(np.inf)
_LOWEST, _ROUNDER = np.float32(-87.0), np.float32(12582912.0)
_LOG2_E, _LN_2_HIGH, _LN_2_LOW = np.float32(math.log2(math.e)), np.float32(0.693359375), np.float32(-2.12194440e-4)
_C2, _C3, _C4, _C5, _C6 = (np.float32(1.0 / math.factorial(k)) for k in range(2, 7))

SHEETS = 7
"""Sheets of the scratch space `[SHEETS, rows, stride]`, one row per state."""
_IN, _A, _B, _RAW, _HIDDEN, _POLICY, _BINS = range(SHEETS)
PARTS = 5
"""Parts of a network, in the order of the plan."""
REPRESENT, DYNAMICS, REWARD_HEAD, POLICY_HEAD, VALUE_HEAD = range(PARTS)


@njit(forceinline=True, fastmath=_FAST)
def _padded(width: int) -> int:
    return (width + WIDTH_BLOCK - 1) // WIDTH_BLOCK * WIDTH_BLOCK


@njit(forceinline=True, fastmath=_FAST)
def _multiply(weights: FloatArray, x: FloatArray, y: FloatArray) -> None:
    """`y = x @ weights.T` for x `[R, >= I]`, y `[R, >= O]`, weights `[O, I]`; R and O multiples of 4."""
    for r in range(0, x.shape[0], 4):
        x0, x1, x2, x3 = x[r], x[r + 1], x[r + 2], x[r + 3]
        y0, y1, y2, y3 = y[r], y[r + 1], y[r + 2], y[r + 3]
        for o in range(0, weights.shape[0], 4):
            w0, w1, w2, w3 = weights[o], weights[o + 1], weights[o + 2], weights[o + 3]
            s00 = s01 = s02 = s03 = s10 = s11 = s12 = s13 = _ZERO
            s20 = s21 = s22 = s23 = s30 = s31 = s32 = s33 = _ZERO
            for i in range(weights.shape[1]):
                a0, a1, a2, a3 = w0[i], w1[i], w2[i], w3[i]
                b0, b1, b2, b3 = x0[i], x1[i], x2[i], x3[i]
                s00, s01, s02, s03 = s00 + a0 * b0, s01 + a1 * b0, s02 + a2 * b0, s03 + a3 * b0
                s10, s11, s12, s13 = s10 + a0 * b1, s11 + a1 * b1, s12 + a2 * b1, s13 + a3 * b1
                s20, s21, s22, s23 = s20 + a0 * b2, s21 + a1 * b2, s22 + a2 * b2, s23 + a3 * b2
                s30, s31, s32, s33 = s30 + a0 * b3, s31 + a1 * b3, s32 + a2 * b3, s33 + a3 * b3
            y0[o], y0[o + 1], y0[o + 2], y0[o + 3] = s00, s01, s02, s03
            y1[o], y1[o + 1], y1[o + 2], y1[o + 3] = s10, s11, s12, s13
            y2[o], y2[o + 1], y2[o + 2], y2[o + 3] = s20, s21, s22, s23
            y3[o], y3[o + 1], y3[o + 2], y3[o + 3] = s30, s31, s32, s33


@njit(forceinline=True, fastmath=_FAST)
def _normalise(y: FloatArray, scale: FloatArray, shift: FloatArray) -> None:
    """LayerNorm of y `[O]` in place, then ReLU."""
    total = _ZERO
    for j in range(len(y)):
        total += y[j]
    mean = total / np.float32(len(y))
    squares = _ZERO
    for j in range(len(y)):
        squares += (y[j] - mean) * (y[j] - mean)
    inverse = _ONE / np.sqrt(squares / np.float32(len(y)) + np.float32(1e-5))
    for j in range(len(y)):
        z = (y[j] - mean) * inverse * scale[j] + shift[j]
        y[j] = _ZERO if z < _ZERO else z  # so written, NaN stays NaN


@njit(forceinline=True, fastmath=_FAST)
def _run(
    weights: FloatArray, plan: LongArray, part: int, space: FloatArray, source: int, target: int, actions: IntArray
) -> None:
    """One part of the network on `len(actions)` rows, from sheet `source` to sheet `target`. actions: read by a layer
    with a bias per action only."""
    first, last = plan[part, 0], plan[part, 1]
    for k in range(first, last):
        inputs, width, offset, biases, normed = plan[k]
        wide, high = _padded(inputs), _padded(width)
        goal = target if k + 1 == last else (_A if source == _B else _B)
        x, y = space[source], space[goal]
        end = offset + high * wide
        _multiply(weights[offset:end].reshape(high, wide), x, y)
        norm = end + biases * high
        for b in range(len(actions)):
            start = end + (high * actions[b] if biases > 1 else 0)
            row, bias = y[b, :width], weights[start : start + width]
            for j in range(width):
                row[j] += bias[j]
            if normed > 0:
                _normalise(row, weights[norm : norm + width], weights[norm + high : norm + high + width])
        source = goal


@njit(forceinline=True, fastmath=_FAST)
def _scale(x: FloatArray, y: FloatArray) -> None:
    """`scale_to_unit` of one latent."""
    low, high = _INF, -_INF
    for j in range(len(x)):
        low, high = min(low, x[j]), max(high, x[j])
    span = max(high - low, np.float32(1e-5))
    for j in range(len(x)):
        y[j] = (x[j] - low) / span


@njit(forceinline=True, fastmath={"contract"})
def _exp(x: np.float32) -> np.float32:
    """exp of x <= 0 to 2 ulp, NaN of NaN: unlike the C library's, a loop over it becomes vector instructions.

    x = n ln 2 + r: the Taylor polynomial of exp(r), |r| < 0.35, times 2^n. Without `reassoc`, for adding and taking
    away 1.5 * 2^23 is what rounds n to an integer, and leaves it in the low bits. Not the exponential of
    `search.compiled`: that one makes a number of NaN, which would hide a broken network.
    """
    x = _LOWEST if x < _LOWEST else x
    shifted = x * _LOG2_E + _ROUNDER
    n = shifted - _ROUNDER
    r = x - n * _LN_2_HIGH - n * _LN_2_LOW
    y = (((((_C6 * r + _C5) * r + _C4) * r + _C3) * r + _C2) * r + _ONE) * r + _ONE
    power = np.int32((np.float32(shifted).view(np.int32) << np.int32(23)) + np.int32(0x3F800000))
    result: np.float32 = y * power.view(np.float32)
    return result


@njit(forceinline=True, fastmath=_FAST)
def _expect(logits: FloatArray, points: FloatArray, transform: int) -> np.float32:
    """`Support.decode` of one row, with `h_inverse` written for numba, whose `**` is a slow one."""
    high = -_INF
    for j in range(len(logits)):
        high = max(high, logits[j])
    mass = weighted = _ZERO
    for j in range(len(logits)):
        share = _exp(logits[j] - high)
        mass += share
        weighted += share * points[j]
    y: np.float32 = weighted / mass
    if transform == 0:
        return y
    b = 1.0 + 2.0 * EPSILON
    slope = 2.0 / (b + math.sqrt(b * b + 4.0 * EPSILON * abs(y)))
    return np.float32(y * slope * (abs(y) * slope + 2.0))


@njit(forceinline=True, fastmath=_FAST)
def _decode(
    weights: FloatArray, plan: LongArray, part: int, space: FloatArray, source: int, actions: IntArray, out: FloatArray
) -> None:
    """A value or reward head on sheet `source`: env-unit scalars `out` `[B]`."""
    _run(weights, plan, part, space, source, _BINS, actions)
    bins, points, transform = plan[plan[part, 1] - 1, 1], plan[part, 2], plan[part, 3]
    for b in range(len(actions)):
        out[b] = _expect(space[_BINS, b, :bins], weights[points : points + bins], transform)


@njit(forceinline=True, fastmath=_FAST)
def _copy_rows(sheet: FloatArray, out: FloatArray) -> None:
    for b in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[b, j] = sheet[b, j]


@njit(cache=True, fastmath=_FAST)
def evaluate(
    weights: FloatArray,
    plan: LongArray,
    space: FloatArray,
    inputs: FloatArray,
    actions: IntArray,
    hidden: FloatArray,
    reward: FloatArray,
    value: FloatArray,
    logits: FloatArray,
    part: int,
) -> None:
    """The whole of `initial` (part `REPRESENT`: inputs are observations) or `recurrent` (`DYNAMICS`: latents).

    Fills hidden `[B, H]`, reward `[B]` (`recurrent` only), value `[B]` and logits `[B, A]`. `space` has a row per
    action, or up to 3 more. ValueError, IndexError: see `CompiledMlpEngine`; nothing else keeps these loops inside
    their arrays.
    """
    state = plan[DYNAMICS, 0]
    width, num_actions = plan[state, 0], plan[state, 3]
    columns = plan[plan[part, 0], 0]
    if inputs.shape[0] != len(actions) or inputs.shape[1] != columns:
        raise ValueError("inputs are not of the network's shape, or not as many as actions")
    batch = len(actions)
    fits = hidden.shape == (batch, width) and logits.shape == (batch, num_actions)
    if not fits or len(reward) != batch or len(value) != batch:
        raise ValueError("there is not as much room for the answers as they take")
    for b in range(len(actions)):
        if not 0 <= actions[b] < num_actions:
            raise IndexError("an action is not one of the network's")
        x = space[_IN, b]
        for j in range(columns):
            x[j] = inputs[b, j]
        for j in range(columns, _padded(columns)):
            x[j] = _ZERO
        if part == REPRESENT:
            for j in range(columns):
                x[j] = math.copysign(math.log1p(abs(x[j])), x[j])
    _run(weights, plan, part, space, _IN, _RAW, actions)
    if part == DYNAMICS:
        for b in range(len(actions)):
            for j in range(width):
                space[_RAW, b, j] += space[_IN, b, j]
        _decode(weights, plan, REWARD_HEAD, space, _RAW, actions, reward)
    for b in range(len(actions)):
        _scale(space[_RAW, b, :width], space[_HIDDEN, b, :width])
    _copy_rows(space[_HIDDEN], hidden)
    _run(weights, plan, POLICY_HEAD, space, _HIDDEN, _POLICY, actions)
    _copy_rows(space[_POLICY], logits)
    _decode(weights, plan, VALUE_HEAD, space, _HIDDEN, actions, value)
