"""The time loop over all samples: gradient, record, decay, update, until the end of the chunk or an objection."""

from __future__ import annotations

import numpy as np

from ufm.kernels.chain import backward, forward
from ufm.kernels.contract import DOUBT, EXPONENTS, NOT_FINITE, helper, inline

# entries of the cursor; from MARKS on, if it is that long, how often each coordinate's sign was undecided
AT, KEPT, WHY, UNDECIDED, FIRST_UNDECIDED, MARKS = 0, 1, 2, 3, 4, 5


@inline
def scale_of(chain, theta, columns):
    """Factor of the sum over the columns of a batch, in the precision of the run."""
    return theta.dtype.type(chain.scale if chain.scale > 0.0 else 1.0 / columns)


@helper
def keep(step, records, kept, theta, fit, cursor):
    """Write one record and return how many there are, or note in the cursor that the fit is not finite."""
    if not (abs(fit) < np.inf):
        cursor[WHY] = NOT_FINITE
        return kept
    penalty = 0.0
    for j in range(records.states.shape[1]):
        records.states[kept, j] = theta[j]
        if step.has_coupled == 1:
            penalty += 0.5 * np.float64(step.coupled[j]) * np.float64(theta[j]) ** 2
    records.fit[kept] = fit
    records.penalty[kept] = penalty
    cursor[KEPT] = kept + 1
    return kept + 1


@inline
def shrink(step, theta, lr):
    """Decoupled decay."""
    for j in range(step.decoupled.size):
        theta[j] *= 1.0 - lr * step.decoupled[j]


@inline
def take_step(update, step, theta, grad, m, v, lr, t):
    """One update with its decoupled decay; the gradient belongs to the unshrunk state and holds coupled decay."""
    if step.has_decoupled == 1 and step.shrink_after == 0:
        shrink(step, theta, lr)
    update(theta, grad, m, v, lr, t, step.hyper, step.table)
    if step.has_decoupled == 1 and step.shrink_after == 1:
        shrink(step, theta, lr)


@inline
def add_decay(step, theta, grad):
    """Coupled decay."""
    if step.has_coupled == 1:
        for j in range(grad.size):
            grad[j] += step.coupled[j] * theta[j]


@inline
def takes_signs(step):
    """Whether a step hangs on the signs of single coordinates, so that undecided ones are counted."""
    return step.scale_free == 1 and step.elementwise == 1


@inline
def note(found, cursor):
    """Write into the cursor how many signs of this step are undecided; False if that has to be asked again."""
    if found < 0:
        cursor[WHY] = DOUBT
        return False
    if found > 0:
        if cursor[UNDECIDED] == 0:
            cursor[FIRST_UNDECIDED] = cursor[AT]
        cursor[UNDECIDED] += found
    return True


def run(
    head, value, update, watch, chain, step, records, buffers,
    theta, grad, m, v, unit, rates, batches, start, stop, cursor,
):  # fmt: skip
    """Steps start ... stop - 1, with records at start ... stop; `cursor` says how far it came and why."""
    N, H = chain.table[0, 2], chain.table[0, 0]
    X, D, Z, R, work, bounds, everything = buffers
    scale, signs = scale_of(chain, theta, N), takes_signs(step)
    kept = cursor[KEPT]
    for t in range(start, stop + 1):
        cursor[AT] = t
        forward(chain, theta, theta, H, X, N)
        flag = head(Z, chain.segments, chain.targets, chain.parameters, scale, R, work)
        if flag == NOT_FINITE or (flag == EXPONENTS and step.scale_free == 1 and t < stop):
            cursor[WHY] = flag
            return
        if kept < records.when.size and records.when[kept] == t:
            fit = value(Z, chain.segments, chain.targets, chain.parameters, scale)
            kept = keep(step, records, kept, theta, fit, cursor)
            if cursor[WHY] == NOT_FINITE:
                return
        if t == stop:
            return
        backward(chain, theta, grad, theta, H, grad, H, X, D, N)
        add_decay(step, theta, grad)
        if signs:
            found = watch(chain, step, theta, grad, theta, H, X, D, everything, N, bounds, cursor)
            if not note(found, cursor):
                return
        take_step(update, step, theta, grad, m, v, rates[t - start], t + 1)


def evaluate(head, value, chain, buffers, theta, grad):
    """Fit over all samples, and its gradient by the trained blocks."""
    N, H = chain.table[0, 2], chain.table[0, 0]
    X, D, Z, R, work, _, _ = buffers
    scale = scale_of(chain, theta, N)
    forward(chain, theta, theta, H, X, N)
    head(Z, chain.segments, chain.targets, chain.parameters, scale, R, work)
    backward(chain, theta, grad, theta, H, grad, H, X, D, N)
    return value(Z, chain.segments, chain.targets, chain.parameters, scale)
