"""The time loop: gradient, record, decay, update, until the end of the chunk or until a head objects."""

from __future__ import annotations

import numpy as np

from ufm.kernels.chain import (
    backward,
    forward,
    gather,
    gather_targets,
    layers,
    lowest_trained,
    scatter,
    views,
)
from ufm.kernels.contract import EXPONENTS, NOT_FINITE, helper, inline

AT, KEPT, WHY, UNDECIDED, FIRST_UNDECIDED = 0, 1, 2, 3, 4  # entries of the cursor


@inline
def scale_of(chain, theta, columns):
    """Factor of the sum over the columns of a batch, in the precision of the run."""
    return theta.dtype.type(chain.scale if chain.scale > 0.0 else 1.0 / columns)


@helper
def keep(step, records, kept, theta, fit):
    """Write one record."""
    state = records.states[kept]
    penalty = 0.0
    for j in range(state.size):
        state[j] = theta[j]
        if step.has_coupled == 1:
            penalty += 0.5 * np.float64(step.coupled[j]) * np.float64(theta[j]) ** 2
    records.fit[kept] = fit
    records.penalty[kept] = penalty


@inline
def shrink(step, theta, lr):
    """Decoupled decay."""
    for j in range(step.decoupled.size):
        theta[j] *= 1.0 - lr * step.decoupled[j]


@inline
def advance(update, step, theta, grad, m, v, lr, t):
    """One update with its decays; the gradient belongs to the unshrunk state."""
    if step.has_coupled == 1:
        for j in range(grad.size):
            grad[j] += step.coupled[j] * theta[j]
    if step.has_decoupled == 1 and step.shrink_after == 0:
        shrink(step, theta, lr)
    update(theta, grad, m, v, lr, t, step.hyper, step.table)
    if step.has_decoupled == 1 and step.shrink_after == 1:
        shrink(step, theta, lr)


def run(
    head, value, update, chain, step, records, theta, grad, m, v, unit, rates, batches, start, stop, cursor
):
    """Steps start ... stop - 1, with records at start ... stop; `cursor` says how far it came and why."""
    N = chain.table[0, 2]
    weights = views(chain, theta, False)
    gradients = views(chain, grad, True)
    lowest = lowest_trained(chain)
    full = batches.shape[0] == 0

    whole = layers(chain, theta, N)
    whole[0] = weights[0]
    D = layers(chain, theta, N)
    if full and chain.trained[0] == 1:
        D[0] = gradients[0]
    R = D[len(D) - 1]
    work = np.empty(3 * N, theta.dtype)
    scale = scale_of(chain, theta, N)

    size = batches.shape[1]
    tail = N % size if size > 0 else 0
    batch_X, batch_D = layers(chain, theta, size), layers(chain, theta, size)
    tail_X, tail_D = layers(chain, theta, tail), layers(chain, theta, tail)
    segments = np.zeros_like(chain.segments)
    batch_targets = np.zeros((chain.targets.shape[0], size), theta.dtype)
    tail_targets = np.zeros((chain.targets.shape[0], tail), theta.dtype)

    kept = cursor[KEPT]
    for t in range(start, stop + 1):
        cursor[AT] = t
        due = kept < records.when.size and records.when[kept] == t
        if full:
            forward(chain, theta, weights, whole)
            flag = head(whole[-1], chain.segments, chain.targets, chain.parameters, scale, R, work)
            if flag == NOT_FINITE:
                cursor[WHY] = NOT_FINITE
                return
            if flag == EXPONENTS and step.scale_free == 1 and t < stop:
                cursor[WHY] = EXPONENTS
                return
        if due:
            if not full:
                forward(chain, theta, weights, whole)
            fit = value(whole[-1], chain.segments, chain.targets, chain.parameters, scale)
            if not (abs(fit) < np.inf):
                cursor[WHY] = NOT_FINITE
                return
            keep(step, records, kept, theta, fit)
            kept += 1
            cursor[KEPT] = kept
        if t == stop:
            return
        if full:
            backward(chain, grad, weights, gradients, whole, D, lowest)
        else:
            columns = batches[t - start]
            count = size if columns[size - 1] >= 0 else tail
            X, B = (batch_X, batch_D) if count == size else (tail_X, tail_D)
            targets = batch_targets if count == size else tail_targets
            gather(weights[0], chain.labels, columns, count, X[0], segments)
            gather_targets(chain.targets, columns, count, targets)
            forward(chain, theta, weights, X)
            flag = head(X[-1], segments, targets, chain.parameters, scale_of(chain, theta, count), B[-1], work)
            if flag == NOT_FINITE or (flag == EXPONENTS and step.scale_free == 1):
                cursor[WHY] = flag
                return
            backward(chain, grad, weights, gradients, X, B, lowest)
            if chain.trained[0] == 1:
                scatter(B[0], columns, count, gradients[0])
        advance(update, step, theta, grad, m, v, rates[t - start], t + 1)


def evaluate(head, value, chain, theta, grad):
    """Fit over all samples, and its gradient by the trained blocks."""
    N = chain.table[0, 2]
    weights = views(chain, theta, False)
    gradients = views(chain, grad, True)
    X, D = layers(chain, theta, N), layers(chain, theta, N)
    X[0] = weights[0]
    if chain.trained[0] == 1:
        D[0] = gradients[0]
    work = np.empty(3 * N, theta.dtype)
    scale = scale_of(chain, theta, N)
    forward(chain, theta, weights, X)
    head(X[-1], chain.segments, chain.targets, chain.parameters, scale, D[-1], work)
    backward(chain, grad, weights, gradients, X, D, lowest_trained(chain))
    return value(X[-1], chain.segments, chain.targets, chain.parameters, scale)
