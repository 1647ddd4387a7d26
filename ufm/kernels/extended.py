"""The time loop where residuals underflow: exponents are carried, so that signs stay right.

Only scale-free methods need it. Derivatives by logits are held as (sign, log magnitude); a weight gradient gets
one exponent per row, the derivative by the inputs one per column, and the optimizer's buffers one per coordinate,
all of them whole strides from 0, so that moving between units is a shift of bits. What round-off may be is carried
along in the same units (`ufm.kernels.doubt`).
"""

from __future__ import annotations

import math

import numpy as np

from ufm.kernels.batches import record
from ufm.kernels.chain import forward, gather, logits_offset
from ufm.kernels.contract import NOT_FINITE, ZERO, allocates, apart, helper
from ufm.kernels.doubt import (
    BITS,
    LINEAR,
    NOTHING,
    STRIDE,
    gradient,
    input_errors,
    power,
    slack_of,
    smallest_normal,
    unit_round_off,
)  # fmt: skip
from ufm.kernels.loop import AT, KEPT, MARKS, WHY, note, take_step, takes_signs
from ufm.kernels.small_product import product

DOUBLE = 2.0**-53  # unit round-off of logarithms and exponentials, whatever the precision of the run
LOWEST = np.iinfo(np.int64).min  # no unit at all
FAR = 15  # strides beyond which a power of two is no normal number
POWERS = 2.0 ** (BITS * np.arange(-FAR, FAR + 1.0))


@apart
def log_residual(X, E, begin, K, B, segments, slack, shift, sign, size, unsure):
    """Sign, log magnitude and log doubt of (softmax - onehot) exp(shift); False if a logit is not finite."""
    for k in range(K):
        for i in range(segments[k], segments[k + 1]):
            top, wrong_top, error = X[begin + k * B + i], NOTHING, 0.0
            for j in range(K):
                z = X[begin + j * B + i]
                if not (abs(z) < np.inf):
                    return False
                top, error = max(top, z), max(error, E[begin + j * B + i])
                if j != k:
                    wrong_top = max(wrong_top, z)
            total, wrong = 0.0, 0.0
            for j in range(K):
                z = X[begin + j * B + i]
                total += power(z - top)
                if j != k:
                    wrong += power(z - wrong_top)
            normaliser, doubt = top + math.log(total), math.log(2.0 * error + slack)
            for j in range(K):
                s = j * B + i
                sign[s] = 1.0
                size[s] = X[begin + s] - normaliser
                if j == k:
                    sign[s] = -1.0
                    size[s] = wrong_top + math.log(wrong) - normaliser
                size[s] += shift
                unsure[s] = size[s] + doubt if 2.0 * error + slack <= LINEAR else max(size[s] + doubt, shift)
    return True


@helper
def is_undecided(g, doubt, decay, exponent, u):
    """Whether round-off may have turned the sign of g + decay, g in doubt by `doubt`, all in units exp(exponent)."""
    conversion = 4.0 * DOUBLE * (abs(exponent) + 750.0)
    return abs(g + decay) <= conversion * (abs(g) + abs(decay)) + u * abs(decay) + doubt


@helper
def mark(cursor, j):
    """Note that the sign of a coordinate is undecided, where that is kept, and return 1."""
    if cursor.size > MARKS:
        cursor[MARKS + j] += 1
    return 1


@helper
def strides(exponent):
    """How many strides from 1 the unit exp(exponent) is."""
    return np.int64(math.floor(exponent * (1.0 / STRIDE) + 0.5))


@helper
def moved(x, count):
    """x in a unit `count` strides smaller; exact unless it underflows."""
    if count == 0 or x == 0.0:
        return x
    return x * POWERS[FAR + count] if count >= -FAR else 0.0


@helper
def whole_strides(m, v, unit):
    """Bring buffers to units that are whole strides from 1; those of a stored run may be others."""
    for j in range(unit.size):
        nearest = STRIDE * strides(unit[j])
        if nearest != unit[j]:
            factor = math.exp(unit[j] - nearest)
            m[j], v[j], unit[j] = m[j] * factor, v[j] * factor * factor, nearest


@apart
def common_units(step, theta, grad, exponent, doubt, m, v, unit, cursor):
    """Bring gradient, coupled decay and buffers of each coordinate to one unit; return the undecided entries.

    The unit is that of the largest, made smaller only when all have fallen far below it.
    """
    undecided, signs, u = 0, takes_signs(step), unit_round_off(theta)
    low, top = math.sqrt(math.sqrt(smallest_normal(theta))), LOWEST
    for j in range(grad.size):
        g, decay = np.float64(grad[j]), np.float64(step.coupled[j] * theta[j])
        first, second, off = np.float64(m[j]), np.float64(v[j]), doubt[j]
        if first != 0.0 and second == 0.0 and decay == 0.0 and abs(first) >= low:
            # nearly always: the unit stays, and the gradient either has it or vanishes in it
            vanishes = exponent[j] - unit[j] < -FAR * STRIDE
            if vanishes or exponent[j] == unit[j]:
                if signs and off > 0.0 and abs(g) <= off:
                    undecided += mark(cursor, j)
                if vanishes:
                    grad[j] = 0.0
                top = max(top, strides(unit[j]))
                continue
        own, held, new = strides(exponent[j]), strides(unit[j]), LOWEST
        if g != 0.0 or off > 0.0:
            new = own
        if decay != 0.0:
            new = max(new, 0)
        if first != 0.0 or second != 0.0:
            new = max(new, held)
        if new == LOWEST:
            unit[j] = 0.0
            continue
        doubtful = off > 0.0 and abs(g) <= off  # asked before buffers far larger make it vanish
        g, off, decay = moved(g, own - new), moved(off, own - new), moved(decay, -new)
        first, second = moved(first, held - new), moved(second, 2 * (held - new))
        if decay != 0.0:
            doubtful = is_undecided(g, off, decay, STRIDE * new, u)
        if signs and doubtful:
            undecided += mark(cursor, j)
        g += decay
        while 0.0 < max(max(abs(g), abs(first)), math.sqrt(second)) < low:
            g, first, second, new = moved(g, 1), moved(first, 1), moved(second, 2), new - 1
        grad[j], m[j], v[j], unit[j] = g, first, second, STRIDE * new
        top = max(top, new)
    if step.elementwise == 0 and top > LOWEST:
        for j in range(grad.size):
            down = min(strides(unit[j]) - top, 0)  # where all is zero the unit says nothing
            grad[j], m[j], v[j] = moved(grad[j], down), moved(m[j], down), moved(v[j], 2 * down)
            unit[j] = STRIDE * top
    return undecided


@allocates
def run(
    head, value, update, watch, chain, step, records, buffers,
    theta, grad, m, v, unit, rates, batches, start, stop, cursor,
):  # fmt: skip
    """As the other loops, for cross-entropy with one-hot targets, with exponents carried."""
    K, N, size = chain.table[-1, 1], chain.table[0, 2], batches.shape[1]
    X, E = buffers.X, np.empty(buffers.X.size, theta.dtype)
    segments = np.empty(chain.segments.size, np.int64)
    exponent, doubt = np.empty(grad.size), np.empty(grad.size)
    sign, magnitude, unsure = np.empty(K * N), np.empty(K * N), np.empty(K * N)
    kept = cursor[KEPT]
    whole_strides(m, v, unit)
    for t in range(start, stop + 1):
        cursor[AT] = t
        if kept < records.when.size and records.when[kept] == t:
            kept = record(value, chain, step, records, buffers, kept, theta, cursor)
            if cursor[WHY] == NOT_FINITE:
                return
        if t == stop:
            return
        columns = buffers.columns
        if size > 0:
            columns = batches[t - start]
            columns = columns if columns[size - 1] >= 0 else columns[: N % size]
        B = columns.size
        gather(chain, theta, columns, B, X, segments, chain.targets)
        forward(product, chain, theta, X, ZERO, X, B)
        input_errors(chain, theta, X, B, E)
        begin, largest = logits_offset(chain, B), 0.0
        for j in range(begin, begin + K * B):
            largest = max(largest, abs(X[j]))
        slack, shift = slack_of(DOUBLE, K, largest), (-math.log(B) if chain.scale == 0.0 else 0.0)
        of_batch = sign[: K * B], magnitude[: K * B], unsure[: K * B]
        if not log_residual(X, E, begin, K, B, segments, slack, shift, *of_batch):
            cursor[WHY] = NOT_FINITE
            return
        gradient(chain, theta, X, E, columns, B, *of_batch, slack, grad, exponent, doubt)
        note(common_units(step, theta, grad, exponent, doubt, m, v, unit, cursor), cursor)
        take_step(update, step, theta, grad, m, v, rates, t - start, t + 1)
