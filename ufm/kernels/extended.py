"""The time loop where residuals underflow: exponents are carried, so that signs stay right.

Only scale-free methods need it. Derivatives by logits are held as (sign, log magnitude); a weight gradient gets
one exponent per row, the derivative by the inputs one per column, and the optimizer's buffers one per
coordinate. Sums whose terms nearly cancel cannot be decided in floating point; they are counted.
"""

from __future__ import annotations

import math

import numpy as np

from ufm.kernels.batches import record
from ufm.kernels.chain import forward, gather, logits_offset
from ufm.kernels.contract import NOT_FINITE, helper
from ufm.kernels.loop import AT, FIRST_UNDECIDED, KEPT, UNDECIDED, WHY, take_step
from ufm.kernels.product import product

NOTHING = -np.inf  # logarithm of zero


@helper
def logarithm(x):
    """log |x|, with log 0 = -inf."""
    return math.log(abs(x)) if x != 0.0 else NOTHING


@helper
def log_residual(Z, segments, sign, size):
    """Sign and log magnitude of softmax - onehot; False if a logit is not finite."""
    K = Z.shape[0]
    for k in range(K):
        for i in range(segments[k], segments[k + 1]):
            top, wrong_top = Z[k, i], NOTHING
            for j in range(K):
                if not (abs(Z[j, i]) < np.inf):
                    return False
                top = max(top, Z[j, i])
                if j != k:
                    wrong_top = max(wrong_top, Z[j, i])
            total, wrong = 0.0, 0.0
            for j in range(K):
                total += math.exp(Z[j, i] - top)
                if j != k:
                    wrong += math.exp(Z[j, i] - wrong_top)
            normaliser = top + math.log(total)
            for j in range(K):
                sign[j, i] = 1.0
                size[j, i] = Z[j, i] - normaliser
            sign[k, i] = -1.0
            size[k, i] = wrong_top + math.log(wrong) - normaliser
    return True


@helper
def scaled(sign, size, by_rows, out, exponents):
    """Fill `out` with sign exp(size), each row or each column in units exp(exponent) of its largest entry."""
    rows, B = size.shape
    lines = rows if by_rows else B
    for line in range(lines):
        exponents[line] = NOTHING
    for k in range(rows):
        for i in range(B):
            line = k if by_rows else i
            exponents[line] = max(exponents[line], size[k, i])
    for line in range(lines):
        if exponents[line] == NOTHING:
            exponents[line] = 0.0
    for k in range(rows):
        for i in range(B):
            if size[k, i] > NOTHING:
                relative = math.exp(size[k, i] - exponents[k if by_rows else i])
                out[k * B + i] = sign[k, i] * max(relative, np.finfo(out.dtype).tiny)
            else:
                out[k * B + i] = 0.0


@helper
def uncertainty(slack, terms, tiny):
    """How much of a sum may be round-off: all of it if its terms lie at the floor `tiny` that `scaled` puts in."""
    return terms if terms < tiny else slack * terms


@helper
def magnitudes(x, start, stop):
    """Absolute values of a part of a vector."""
    out = np.empty(stop - start, x.dtype)
    for j in range(out.size):
        out[j] = abs(x[start + j])
    return out


@helper
def gradient(chain, theta, X, columns, sign, size, slack, grad, exponent, doubt):
    """Gradient in units exp(exponent), one per coordinate, and how much of it round-off may be.

    `sign`, `size` hold the derivative by the logits of these columns; `slack` is the relative error of an entry.
    """
    depth, B, N = chain.table.shape[0] - 1, columns.size, chain.table[0, 2]
    here = logits_offset(chain, B)
    tiny = np.finfo(X.dtype).tiny / np.finfo(X.dtype).eps ** 2
    for layer in range(depth, 0, -1):
        start, rows, inner = chain.table[layer, 0], chain.table[layer, 1], chain.table[layer, 2]
        below = here - inner * B
        out, exponents = np.empty(rows * B, X.dtype), np.empty(max(rows, B))
        scaled(sign, size, True, out, exponents)
        if layer == depth and chain.bias >= 0 and chain.trained[depth + 1] == 1:
            for k in range(rows):
                total, terms = 0.0, 0.0
                for i in range(B):
                    total += out[k * B + i]
                    terms += abs(out[k * B + i])
                j = chain.bias + k
                grad[j], exponent[j], doubt[j] = total, exponents[k], uncertainty(slack, terms, tiny)
        if chain.trained[layer] == 1:
            terms_w = np.empty(rows * inner, X.dtype)
            product(out, 0, 0, X, below, 1, grad, start, rows, B, inner)
            product(
                magnitudes(out, 0, out.size),
                0,
                0,
                magnitudes(X, below, here),
                0,
                1,
                terms_w,
                0,
                rows,
                B,
                inner,
            )
            for j in range(rows * inner):
                exponent[start + j] = exponents[j // inner]
                doubt[start + j] = uncertainty(slack, terms_w[j], tiny)
        # derivative by the inputs of this layer, before its ReLU
        scaled(sign, size, False, out, exponents)
        back, terms_x = np.empty(inner * B, X.dtype), np.empty(inner * B, X.dtype)
        product(theta, start, 1, out, 0, 0, back, 0, inner, rows, B)
        weights = magnitudes(theta, start, start + rows * inner)
        product(weights, 0, 1, magnitudes(out, 0, out.size), 0, 0, terms_x, 0, inner, rows, B)
        if layer == 1 and chain.trained[0] == 1:
            for j in range(chain.table[0, 0], chain.table[0, 0] + inner * N):
                grad[j], exponent[j], doubt[j] = 0.0, 0.0, 0.0
            for c in range(inner):
                for i in range(B):
                    j, s = chain.table[0, 0] + c * N + columns[i], c * B + i
                    grad[j], exponent[j] = back[s], exponents[i]
                    doubt[j] = uncertainty(slack, terms_x[s], tiny)
        sign, size = np.ones((inner, B)), np.empty((inner, B))
        for c in range(inner):
            for i in range(B):
                x = back[c * B + i]
                dead = chain.relu == 1 and layer > 1 and not (X[below + c * B + i] > 0.0)
                size[c, i] = NOTHING if dead else logarithm(x) + exponents[i]
                if x < 0.0:
                    sign[c, i] = -1.0
        here = below


@helper
def common_units(step, theta, grad, exponent, doubt, m, v, unit):
    """Bring gradient, coupled decay and buffers of each coordinate to one unit; return the undecided entries."""
    undecided = 0
    top_of_all = NOTHING
    for j in range(grad.size):
        decay = step.coupled[j] * theta[j]
        top = max(logarithm(grad[j]) + exponent[j], logarithm(decay))
        top = max(top, max(logarithm(m[j]) + unit[j], 0.5 * logarithm(v[j]) + unit[j]))
        new = top if top > NOTHING else 0.0
        relative = math.exp(exponent[j] - new) if exponent[j] - new < 700.0 else np.inf
        uncertain = doubt[j] * relative if doubt[j] > 0.0 else 0.0
        total = 0.0
        if grad[j] != 0.0:
            total += math.copysign(math.exp(logarithm(grad[j]) + exponent[j] - new), grad[j])
        if decay != 0.0:
            total += math.copysign(math.exp(logarithm(decay) - new), decay)
        if abs(total) <= uncertain and uncertain > 0.0:
            undecided += 1
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


def run(
    head, value, update, chain, step, records, buffers,
    theta, grad, m, v, unit, rates, batches, start, stop, cursor,
):  # fmt: skip
    """As the other loops, for cross-entropy with one-hot targets, with exponents carried."""
    K, N, size = chain.table[-1, 1], chain.table[0, 2], batches.shape[1]
    X = buffers.X
    everything = np.arange(N)
    segments = np.zeros_like(chain.segments)
    targets = np.zeros((0, 0), theta.dtype)
    exponent, doubt = np.zeros(grad.size), np.zeros(grad.size)
    epsilon = np.finfo(theta.dtype).eps
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
        forward(chain, theta, X, 0, X, B)
        begin = logits_offset(chain, B)
        Z = X[begin : begin + K * B].reshape((K, B))
        sign, magnitude = np.empty((K, B)), np.empty((K, B))
        if not log_residual(Z, segments, sign, magnitude):
            cursor[WHY] = NOT_FINITE
            return
        largest = 0.0
        for k in range(K):
            for i in range(B):
                largest = max(largest, abs(Z[k, i]))
                if chain.scale == 0.0:
                    magnitude[k, i] -= math.log(B)
        # an entry of the residual carries the absolute error of its logits as a relative one
        slack = epsilon * (B + 16.0 + 4.0 * largest)
        gradient(chain, theta, X, columns, sign, magnitude, slack, grad, exponent, doubt)
        found = common_units(step, theta, grad, exponent, doubt, m, v, unit)
        if found > 0:
            if cursor[UNDECIDED] == 0:
                cursor[FIRST_UNDECIDED] = t
            cursor[UNDECIDED] += found
        take_step(update, step, theta, grad, m, v, rates[t - start], t + 1)
