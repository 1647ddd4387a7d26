"""The time loop where residuals underflow: exponents are carried, so that signs stay right.

Only scale-free methods need it. Derivatives by logits are held as (sign, log magnitude); a weight gradient gets
one exponent per row, the derivative by the inputs one per column, and the optimizer's buffers one per
coordinate. Sums whose terms nearly cancel cannot be decided in floating point; they are counted.
"""

from __future__ import annotations

import math

import numpy as np

from ufm.kernels.chain import forward, gather, layers, lowest_trained, views
from ufm.kernels.contract import NOT_FINITE, helper
from ufm.kernels.loop import AT, FIRST_UNDECIDED, KEPT, UNDECIDED, WHY, keep, shrink

NOTHING = -np.inf  # logarithm of zero


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
def scaled_by_rows(sign, size, out, exponents):
    """Each row in units of its largest entry; False entries (all zero) get exponent 0."""
    for k in range(size.shape[0]):
        top = NOTHING
        for i in range(size.shape[1]):
            top = max(top, size[k, i])
        exponents[k] = top if top > NOTHING else 0.0
        for i in range(size.shape[1]):
            out[k, i] = sign[k, i] * math.exp(size[k, i] - exponents[k])


@helper
def scaled_by_columns(sign, size, out, exponents):
    """Each column in units of its largest entry."""
    for i in range(size.shape[1]):
        top = NOTHING
        for k in range(size.shape[0]):
            top = max(top, size[k, i])
        exponents[i] = top if top > NOTHING else 0.0
        for k in range(size.shape[0]):
            out[k, i] = sign[k, i] * math.exp(size[k, i] - exponents[i])


@helper
def gradient(chain, weights, X, sign, size, slack, grad, exponent, doubt):
    """Gradient in units exp(exponent), one per coordinate, and how much of it round-off may be.

    `sign`, `size` hold the derivative by the logits and are consumed; `slack` is the relative error of an entry.
    """
    depth = len(weights) - 1
    B = size.shape[1]
    for layer in range(depth, -1, -1):
        rows = size.shape[0]
        scaled = np.empty((rows, B), X[0].dtype)
        exponents = np.empty(max(rows, B), X[0].dtype)
        if layer == depth and chain.bias >= 0 and chain.trained[depth + 1] == 1:
            scaled_by_rows(sign, size, scaled, exponents)
            for k in range(rows):
                total, terms = 0.0, 0.0
                for i in range(B):
                    total += scaled[k, i]
                    terms += abs(scaled[k, i])
                grad[chain.bias + k] = total
                exponent[chain.bias + k] = exponents[k]
                doubt[chain.bias + k] = slack * terms
        if layer == 0:
            break
        if chain.trained[layer] == 1:
            scaled_by_rows(sign, size, scaled, exponents)
            product = np.dot(scaled, X[layer - 1].T)
            terms = np.dot(np.abs(scaled), np.abs(X[layer - 1]).T)
            j = chain.table[layer, 0]
            for k in range(rows):
                for c in range(product.shape[1]):
                    grad[j], exponent[j], doubt[j] = product[k, c], exponents[k], slack * terms[k, c]
                    j += 1
        # derivative by the inputs of this layer, before its ReLU
        scaled_by_columns(sign, size, scaled, exponents)
        below = np.dot(weights[layer].T, scaled)
        terms = np.dot(np.abs(weights[layer]).T, np.abs(scaled))
        if layer == 1 and chain.trained[0] == 1:
            j = chain.table[0, 0]
            for c in range(below.shape[0]):
                for i in range(B):
                    grad[j], exponent[j], doubt[j] = below[c, i], exponents[i], slack * terms[c, i]
                    j += 1
        sign = np.sign(below)
        size = np.empty_like(below)
        for c in range(below.shape[0]):
            for i in range(B):
                dead = chain.relu == 1 and layer > 1 and not (X[layer - 1][c, i] > 0.0)
                if dead or below[c, i] == 0.0:
                    size[c, i] = NOTHING
                else:
                    size[c, i] = math.log(abs(below[c, i])) + exponents[i]


@helper
def logarithm(x):
    """log |x|, with log 0 = -inf."""
    return math.log(abs(x)) if x != 0.0 else NOTHING


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
            factor = math.exp(unit[j] - top_of_all)
            grad[j] *= factor
            m[j] *= factor
            v[j] *= factor * factor
            unit[j] = top_of_all
    return undecided


def run(
    head, value, update, chain, step, records, theta, grad, m, v, unit, rates, batches, start, stop, cursor
):
    """As `loop.run`, for cross-entropy with one-hot targets, with exponents carried."""
    N = chain.table[0, 2]
    weights = views(chain, theta, False)
    full = batches.shape[0] == 0
    whole = layers(chain, theta, N)
    whole[0] = weights[0]
    size = batches.shape[1]
    tail = N % size if size > 0 else 0
    batch_X, tail_X = layers(chain, theta, size), layers(chain, theta, tail)
    segments = chain.segments.copy()
    exponent, doubt = np.zeros(grad.size), np.zeros(grad.size)
    epsilon = np.finfo(theta.dtype).eps
    kept = cursor[KEPT]
    for t in range(start, stop + 1):
        cursor[AT] = t
        due = kept < records.when.size and records.when[kept] == t
        if full or due:
            forward(chain, theta, weights, whole)
        if due:
            scale = theta.dtype.type(chain.scale if chain.scale > 0.0 else 1.0 / N)
            fit = value(whole[-1], chain.segments, chain.targets, chain.parameters, scale)
            if not (abs(fit) < np.inf):
                cursor[WHY] = NOT_FINITE
                return
            keep(step, records, kept, theta, fit)
            kept += 1
            cursor[KEPT] = kept
        if t == stop:
            return
        X, count = whole, N
        if not full:
            columns = batches[t - start]
            count = size if columns[size - 1] >= 0 else tail
            X = batch_X if count == size else tail_X
            gather(weights[0], chain.labels, columns, count, X[0], segments)
            forward(chain, theta, weights, X)
        sign, magnitude = np.empty_like(X[-1]), np.empty_like(X[-1])
        if not log_residual(X[-1], segments, sign, magnitude):
            cursor[WHY] = NOT_FINITE
            return
        if chain.scale == 0.0:
            magnitude -= math.log(count)
        largest = np.max(np.abs(X[-1]))
        # an entry of the residual carries the absolute error of its logits as a relative one
        slack = epsilon * (count + 16.0 + 4.0 * largest)
        if full or chain.trained[0] == 0:
            gradient(chain, weights, X, sign, magnitude, slack, grad, exponent, doubt)
        else:
            scatter_gradient(chain, weights, X, sign, magnitude, slack, grad, exponent, doubt, columns, count)
        found = common_units(step, theta, grad, exponent, doubt, m, v, unit)
        if found > 0:
            if cursor[UNDECIDED] == 0:
                cursor[FIRST_UNDECIDED] = t
            cursor[UNDECIDED] += found
        lr = rates[t - start]
        if step.has_decoupled == 1 and step.shrink_after == 0:
            shrink(step, theta, lr)
        update(theta, grad, m, v, lr, t + 1, step.hyper, step.table)
        if step.has_decoupled == 1 and step.shrink_after == 1:
            shrink(step, theta, lr)


@helper
def scatter_gradient(chain, weights, X, sign, magnitude, slack, grad, exponent, doubt, columns, count):
    """Gradient of a batch: columns of H that are not in it get 0."""
    d, N = chain.table[0, 1], chain.table[0, 2]
    offset = chain.table[0, 0]
    room = grad.size - d * N + d * count
    small_grad, small_exponent, small_doubt = np.zeros(room), np.zeros(room), np.zeros(room)
    # H stands first among the trained blocks, so that a batch only shortens it
    table = chain.table.copy()
    for i in range(1, table.shape[0]):
        table[i, 0] -= d * (N - count)
    shorter = chain._replace(table=table, bias=chain.bias - d * (N - count) if chain.bias >= 0 else -1)
    gradient(shorter, weights, X, sign, magnitude, slack, small_grad, small_exponent, small_doubt)
    grad[:] = 0.0
    exponent[:] = 0.0
    doubt[:] = 0.0
    for c in range(d):
        for i in range(count):
            j, s = offset + c * N + columns[i], c * count + i
            grad[j], exponent[j], doubt[j] = small_grad[s], small_exponent[s], small_doubt[s]
    grad[d * N :] = small_grad[d * count :]
    exponent[d * N :] = small_exponent[d * count :]
    doubt[d * N :] = small_doubt[d * count :]
