"""Heads: the residual R = d fit / d Z of each loss, and its value at recorded steps.

A head gets logits Z (classes, columns), the segment of columns of each class, targets, parameters and the
factor `scale` of the sum over columns; it fills R and says whether Z was finite and whether an exponent must be
carried. No residual is computed by subtracting one from a probability.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numba
import numpy as np

from ufm.kernels.contract import EXPONENTS, FINE, NOT_FINITE, ZERO, compiled, helper, inline, user_compiled
from ufm.kernels.exponential import exp
from ufm.kernels.vectors import WIDTH, anywhere, below, equal, first, load, store, where, zeros

HUGE = 1e300
ONE_HOT, SMOOTHED, SOFT, SQUARED, OWN = (
    0.0,
    1.0,
    2.0,
    3.0,
    4.0,
)  # kinds of residual, for the bound of its error


@inline
def _exponentials(Z, R, i, m):
    """Fill columns i, i + 1, ... of R with exp(z - max); return the largest and smallest z and the sum of each."""
    K, B = Z.shape
    top = load(Z, i, m)
    low = top
    for k in range(1, K):
        z = load(Z, k * B + i, m)
        top, low = where(below(top, z), z, top), where(below(z, low), z, low)
    total = zeros()
    for k in range(K):
        e = exp(load(Z, k * B + i, m) - top)
        store(R, k * B + i, m, e)
        total = total + e
    return top, low, total


@helper
def _softmax_unscaled(Z, R, work):
    """Fill R with exp(z - max) by columns, `work` with max(z), then min(z), then the sum of R of every column."""
    B = Z.shape[1]
    for i in range(0, B, WIDTH):
        m = first(B - i)
        top, low, total = _exponentials(Z, R, i, m)
        store(work, i, m, top)
        store(work, B + i, m, low)
        store(work, 2 * B + i, m, total)


@helper
def _state_of_logits(work, B, threshold):
    """What `_softmax_unscaled` leaves in `work` says of the logits."""
    flag = FINE
    for i in range(B):
        gap = work[B + i] - work[i]
        if not (gap > -HUGE and work[2 * B + i] < HUGE):
            return NOT_FINITE
        if gap < threshold:
            flag = EXPONENTS
    return flag


@inline
def _classes(segments, k, begin, end):
    """Class of each of the columns begin ... end - 1, none of them below k, as numbers; the first and last of them."""
    while segments[k + 1] <= begin:
        k += 1
    classes, last = zeros() + k, k
    while segments[last + 1] < end:
        last += 1
        classes = where(first(segments[last] - begin), classes, 1.0 * last)
    return where(first(end - begin), classes, -1.0), k, last


@inline
def _vanishes(numbers):
    """Whether all are 0; nan is not."""
    return not anywhere(below(0.0, where(equal(numbers, 0.0), 0.0, 1.0)))


def cross_entropy_head(Z, segments, targets, parameters, scale, R, work):
    """Residual softmax - onehot, its true entry as minus the sum of the others."""
    K, B = Z.shape
    widest, strange = zeros(), zeros()  # the widest gap as a negative number; 1 if a column is not finite
    begin = ZERO
    for i in range(0, B, WIDTH):  # all that is done to a column is done while it is in the first cache
        m = first(B - i)
        top, low, total = _exponentials(Z, R, i, m)
        gap = low - top
        widest = where(below(gap, widest), gap, widest)
        strange = where(below(-HUGE, gap), where(below(total, HUGE), strange, 1.0), 1.0)
        classes, begin, last = _classes(segments, begin, i, i + WIDTH if i + WIDTH < B else B)
        factor, true, number = scale / total, zeros(), zeros()
        for k in range(K):
            r = where(equal(classes, number), 0.0, load(R, k * B + i, m) * factor)
            store(R, k * B + i, m, r)
            true, number = true - r, number + 1.0
        for k in range(begin, last + 1):
            store(R, k * B + i, equal(classes, 1.0 * k), true)
    if anywhere(below(0.0, strange)):
        return NOT_FINITE
    return EXPONENTS if anywhere(below(widest, parameters[1])) else FINE


def smoothed_head(Z, segments, targets, parameters, scale, R, work):
    """Residual softmax - (1 - s) onehot - s/K, its true entry as minus the sum of the others."""
    K, B = Z.shape
    _softmax_unscaled(Z, R, work)
    flag = _state_of_logits(work, B, parameters[1])
    top, total = work[:B], work[2 * B : 3 * B]
    floor = scale * parameters[0] / K
    for i in range(B):
        total[i] = scale / total[i]
        top[i] = 0.0
    for k in range(K):
        for i in range(B):
            R[k, i] = R[k, i] * total[i] - floor
        for i in range(segments[k], segments[k + 1]):
            R[k, i] = 0.0
    for k in range(K):
        for i in range(B):
            top[i] -= R[k, i]
    for k in range(K):
        for i in range(segments[k], segments[k + 1]):
            R[k, i] = top[i]
    return FINE if flag == EXPONENTS else flag  # smoothed residuals do not vanish with the probabilities


def soft_head(Z, segments, targets, parameters, scale, R, work):
    """Residual softmax(z) sum(y) - y for soft targets."""
    K, B = Z.shape
    _softmax_unscaled(Z, R, work)
    flag = _state_of_logits(work, B, parameters[1])
    total = work[2 * B : 3 * B]
    for i in range(B):
        mass = 0.0
        for k in range(K):
            mass += targets[k, i]
        total[i] = mass * scale / total[i]
    for k in range(K):
        for i in range(B):
            R[k, i] = R[k, i] * total[i] - scale * targets[k, i]
    return FINE if flag == EXPONENTS else flag


def mse_head(Z, segments, targets, parameters, scale, R, work):
    """Residual Z - onehot."""
    K, B = Z.shape
    strange, begin = zeros(), ZERO  # the first stays 0 unless a logit is not finite
    for i in range(0, B, WIDTH):
        m = first(B - i)
        classes, begin, _ = _classes(segments, begin, i, i + WIDTH if i + WIDTH < B else B)
        for k in range(K):
            z = load(Z, k * B + i, m)
            store(R, k * B + i, m, scale * where(equal(classes, 1.0 * k), z - 1.0, z))
            strange = strange + 0.0 * z
    return FINE if _vanishes(strange) else NOT_FINITE


def regression_head(Z, segments, targets, parameters, scale, R, work):
    """Residual Z - Y for real targets."""
    K, B = Z.shape
    strange = zeros()  # stays 0 unless an output is not finite
    for i in range(0, B, WIDTH):
        m = first(B - i)
        for k in range(K):
            z = load(Z, k * B + i, m)
            store(R, k * B + i, m, scale * (z - load(targets, k * B + i, m)))
            strange = strange + 0.0 * z
    return FINE if _vanishes(strange) else NOT_FINITE


@helper
def _log_sum_exp_above(Z, i, k):
    """log(sum_j exp(z_j)) - z_k of column i, without cancellation where z_k is the largest."""
    top = Z[0, i]
    for j in range(Z.shape[0]):
        top = max(top, Z[j, i])
    others = 0.0
    for j in range(Z.shape[0]):
        if j != k:
            others += math.exp(Z[j, i] - top)
    own = math.exp(Z[k, i] - top)
    if own == 1.0:
        return math.log1p(others)
    return (top - Z[k, i]) + math.log(own + others)


def cross_entropy_value(Z, segments, targets, parameters, scale):
    """Sum of (1 - s) (lse - z_true) + (s/K) sum_k (lse - z_k), times scale."""
    K = Z.shape[0]
    s = parameters[0]
    total = 0.0
    for k in range(K):
        for i in range(segments[k], segments[k + 1]):
            total += (1.0 - s) * _log_sum_exp_above(Z, i, k)
            if s > 0.0:
                for j in range(K):
                    total += s / K * _log_sum_exp_above(Z, i, j)
    return scale * total


def soft_value(Z, segments, targets, parameters, scale):
    """Sum of y_k (lse - z_k), times scale."""
    total = 0.0
    for i in range(Z.shape[1]):
        for k in range(Z.shape[0]):
            if targets[k, i] > 0.0:
                total += targets[k, i] * _log_sum_exp_above(Z, i, k)
    return scale * total


def mse_value(Z, segments, targets, parameters, scale):
    """Half the squared distance to onehot, times scale."""
    total = 0.0
    for k in range(Z.shape[0]):
        for i in range(Z.shape[1]):
            target = 1.0 if segments[k] <= i < segments[k + 1] else 0.0
            total += (Z[k, i] - target) ** 2
    return 0.5 * scale * total


def regression_value(Z, segments, targets, parameters, scale):
    """Half the squared distance to real targets, times scale."""
    total = 0.0
    for k in range(Z.shape[0]):
        for i in range(Z.shape[1]):
            total += (Z[k, i] - targets[k, i]) ** 2
    return 0.5 * scale * total


@lru_cache(maxsize=64)
def _user_pair(function: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Head and value of a user's ``residual(Z, targets, R) -> value``; the same objects at every call."""
    residual = function if hasattr(function, "py_func") else numba.njit(function)

    def head(Z, segments, targets, parameters, scale, R, work):
        value = residual(Z, targets, R)
        if not (abs(value) < HUGE):
            return NOT_FINITE
        return FINE

    def value(Z, segments, targets, parameters, scale):
        return residual(Z, targets, np.empty_like(Z))

    return head, value


def pair(loss: Any, dtype: str) -> tuple[Any, Any]:
    """Compiled head and value of a loss."""
    from ufm.losses import MSE, CrossEntropy, Regression

    if isinstance(loss, MSE):
        head, value = mse_head, mse_value
    elif isinstance(loss, Regression):
        head, value = regression_head, regression_value
    elif isinstance(loss, CrossEntropy) and loss.targets is not None:
        head, value = soft_head, soft_value
    elif isinstance(loss, CrossEntropy):
        head = smoothed_head if loss.smoothing else cross_entropy_head
        value = cross_entropy_value
    else:
        head, value = _user_pair(loss.residual)
        name = f"UserLoss.residual {getattr(loss.residual, '__name__', '')}".strip()
        return user_compiled(head, "head", dtype, name), user_compiled(value, "value", dtype, name)
    return compiled(head, "head", dtype), compiled(value, "value", dtype)


def _kind(loss: Any) -> float:
    from ufm.losses import MSE, CrossEntropy, Regression

    if isinstance(loss, MSE | Regression):
        return SQUARED
    if not isinstance(loss, CrossEntropy):
        return OWN
    if loss.targets is not None:
        return SOFT
    return SMOOTHED if loss.smoothing else ONE_HOT


def parameters(loss: Any, dtype: str) -> np.ndarray:
    """What the head reads: smoothing, the logit gap below which exponents are carried, the kind of residual."""
    # squares of the residuals (Adam) must stay normal: e^-300 in float64, e^-30 in float32
    threshold = -300.0 if dtype == "float64" else -30.0
    return np.array([getattr(loss, "smoothing", 0.0), threshold, _kind(loss)], dtype)
