"""The time loop where residuals underflow: exponents are carried, so that signs stay right.

Only scale-free methods need it. Derivatives by logits are held as (sign, log magnitude); a weight gradient gets
one exponent per row, the derivative by the inputs one per column, and the optimizer's buffers one per
coordinate. What round-off may be is carried along in the same units (`ufm.kernels.doubt`).
"""

from __future__ import annotations

import math

import numpy as np

from ufm.kernels.batches import record
from ufm.kernels.chain import forward, gather, logits_offset
from ufm.kernels.contract import NOT_FINITE, allocates, helper
from ufm.kernels.doubt import LINEAR, NOTHING, ZERO, gradient, input_errors, logarithm, slack_of
from ufm.kernels.loop import AT, KEPT, MARKS, WHY, note, take_step, takes_signs
from ufm.kernels.small_product import product

DOUBLE = 2.0**-53  # unit round-off of logarithms and exponentials, whatever the precision of the run


@helper
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
                total += math.exp(z - top)
                if j != k:
                    wrong += math.exp(z - wrong_top)
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
def is_undecided(g, exponent, doubt, decay, u):
    """Whether round-off may have turned the sign of g exp(exponent) + decay, g in doubt by `doubt`."""
    if decay == 0.0:
        return doubt > 0.0 and abs(g) <= doubt
    peak = max(max(logarithm(g), logarithm(doubt)) + exponent, logarithm(decay))
    of_gradient = math.copysign(math.exp(logarithm(g) + exponent - peak), g)
    of_decay = math.copysign(math.exp(logarithm(decay) - peak), decay)
    conversion = 4.0 * DOUBLE * (abs(exponent) + abs(peak) + 750.0)
    allowed = (conversion * (abs(of_gradient) + abs(of_decay))) + u * abs(of_decay)
    allowed += math.exp(logarithm(doubt) + exponent - peak)
    return abs(of_gradient + of_decay) <= allowed


@helper
def common_units(step, theta, grad, exponent, doubt, m, v, unit, cursor):
    """Bring gradient, coupled decay and buffers of each coordinate to one unit; return the undecided entries."""
    undecided, signs, u = 0, takes_signs(step), 0.5 * np.finfo(theta.dtype).eps
    top_of_all = NOTHING
    for j in range(grad.size):
        decay = step.coupled[j] * theta[j]
        if signs and is_undecided(grad[j], exponent[j], doubt[j], decay, u):
            undecided += 1
            if cursor.size > MARKS:
                cursor[MARKS + j] += 1
        of_gradient = logarithm(grad[j]) + exponent[j]
        if decay == 0.0 and m[j] == 0.0 and v[j] == 0.0:
            # alone in its unit
            unit[j] = of_gradient if of_gradient > NOTHING else 0.0
            if grad[j] != 0.0:
                grad[j] = math.copysign(1.0, grad[j])
            top_of_all = max(top_of_all, of_gradient)
            continue
        top = max(of_gradient, logarithm(decay))
        top = max(top, max(logarithm(m[j]) + unit[j], 0.5 * logarithm(v[j]) + unit[j]))
        new = top if top > NOTHING else 0.0
        total = 0.0
        if grad[j] != 0.0:
            total += math.copysign(math.exp(of_gradient - new), grad[j])
        if decay != 0.0:
            total += math.copysign(math.exp(logarithm(decay) - new), decay)
        grad[j] = total
        factor = math.exp(unit[j] - new) if m[j] != 0.0 or v[j] != 0.0 else 0.0
        m[j] *= factor
        v[j] *= factor * factor
        unit[j] = new
        top_of_all = max(top_of_all, top)
    if step.elementwise == 0 and top_of_all > NOTHING:
        for j in range(grad.size):
            factor = math.exp(min(unit[j] - top_of_all, 0.0))  # where all is zero the unit says nothing
            grad[j] *= factor
            m[j] *= factor
            v[j] *= factor * factor
            unit[j] = top_of_all
    return undecided


@allocates
def run(
    head, value, update, watch, chain, step, records, buffers,
    theta, grad, m, v, unit, rates, batches, start, stop, cursor,
):  # fmt: skip
    """As the other loops, for cross-entropy with one-hot targets, with exponents carried."""
    K, N, size = chain.table[-1, 1], chain.table[0, 2], batches.shape[1]
    X, E = buffers.X, np.empty_like(buffers.X)
    everything = np.arange(N)
    segments = np.zeros_like(chain.segments)
    targets = np.zeros((0, 0), theta.dtype)
    exponent, doubt = np.zeros(grad.size), np.zeros(grad.size)
    sign, magnitude, unsure = np.empty(K * N), np.empty(K * N), np.empty(K * N)
    kept = cursor[KEPT]
    for t in range(start, stop + 1):
        cursor[AT] = t
        if kept < records.when.size and records.when[kept] == t:
            kept = record(value, chain, step, records, buffers, kept, theta, cursor)
            if cursor[WHY] == NOT_FINITE:
                return
        if t == stop:
            return
        columns = everything
        if size > 0:
            columns = batches[t - start]
            columns = columns if columns[size - 1] >= 0 else columns[: N % size]
        B = columns.size
        gather(chain, theta, columns, B, X, segments, targets)
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
