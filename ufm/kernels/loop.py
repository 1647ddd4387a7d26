"""The time loop over all samples: gradient, record, decay, update, until the end of the chunk or an objection.

The same loop serves one run and an ensemble, whose runs are lanes; an objection by one of them stops all.
"""

from __future__ import annotations

from types import FunctionType

import numpy as np

from ufm.kernels import lanes
from ufm.kernels.chain import backward, forward
from ufm.kernels.contract import DOUBT, EXPONENTS, NOT_FINITE, helper, inline
from ufm.kernels.tiled_product import product

# entries of the cursor; from MARKS on, if it is that long, how often each coordinate's sign was undecided
AT, KEPT, WHY, UNDECIDED, FIRST_UNDECIDED, MARKS = 0, 1, 2, 3, 4, 5


@inline
def scale_of(chain, theta, columns):
    """Factor of the sum over the columns of a batch, in the precision of the run."""
    return theta.dtype.type(chain.scale if chain.scale > 0.0 else 1.0 / columns)


@helper
def fit_of(value, chain, Z, one, lane, scale):
    """Fit of one run."""
    if chain.lanes == 1:
        return value(Z, chain.segments, chain.targets, chain.parameters, scale)
    for k in range(one.shape[0]):
        for i in range(one.shape[1]):
            one[k, i] = Z[k, i * chain.lanes + lane]
    return value(one, chain.segments, chain.targets, chain.parameters, scale)


@helper
def keep(value, chain, step, records, buffers, kept, theta, cursor):
    """Write one record of every run and return how many there are, or note in the cursor that a fit is not finite."""
    scale, runs = scale_of(chain, theta, chain.table[0, 2]), chain.lanes
    for run in range(records.states.shape[0]):
        fit = fit_of(value, chain, buffers.Z, buffers.one, run, scale)
        if not (abs(fit) < np.inf):
            cursor[WHY] = NOT_FINITE
            return kept
        penalty = 0.0
        for j in range(records.states.shape[2]):
            number = np.float64(theta[j * runs + run])
            records.states[run, kept, j] = number
            if step.has_coupled == 1:
                penalty += 0.5 * np.float64(step.coupled[j * runs + run]) * (number * number)
        records.fit[run, kept] = fit
        records.penalty[run, kept] = penalty
    cursor[KEPT] = kept + 1
    return kept + 1


@inline
def shrink(step, theta, lr):
    """Decoupled decay, unless the rule applies it."""
    for j in range(step.decoupled.size):
        theta[j] *= 1.0 - lr * step.decoupled[j]


@inline
def take_step(update, step, theta, grad, m, v, rates, row, t):
    """One update with its decoupled decay, at the rates from rates[row] on; `grad` belongs to the unshrunk state."""
    if step.shrinks == 1 and step.shrink_after == 0:
        shrink(step, theta, rates[row])
    update(theta, grad, m, v, rates, row, t, step.hyper, step.decay, step.table)
    if step.shrinks == 1 and step.shrink_after == 1:
        shrink(step, theta, rates[row])


@inline
def add_decay(step, theta, grad):
    """Coupled decay, unless the rule adds it."""
    if step.adds_coupled == 1:
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
    """Steps start ... stop - 1, with records at start ... stop; `cursor` says how far it came and why.

    `rates` holds a row of one number for each lane, or such a row for each step.
    """
    N, H = chain.table[0, 2], chain.table[0, 0]
    X, D, Z, R, _, work, bounds, everything = buffers
    scale, signs = scale_of(chain, theta, N), takes_signs(step)
    kept = cursor[KEPT]
    for t in range(start, stop + 1):
        cursor[AT] = t
        forward(product, chain, theta, theta, H, X, N)
        flag = head(Z, chain.spans, chain.goals, chain.parameters, scale, R, work)
        if flag == NOT_FINITE or (flag == EXPONENTS and step.scale_free == 1 and t < stop):
            cursor[WHY] = flag
            return
        if kept < records.when.size and records.when[kept] == t:
            kept = keep(value, chain, step, records, buffers, kept, theta, cursor)
            if cursor[WHY] == NOT_FINITE:
                return
        if t == stop:
            return
        backward(product, chain, theta, grad, theta, H, grad, H, X, D, N)
        add_decay(step, theta, grad)
        if signs:
            found = watch(chain, step, theta, grad, theta, H, X, D, everything, N, bounds, cursor)
            if not note(found, cursor):
                return
        row = (t - start) * chain.lanes if rates.size > chain.lanes else 0
        take_step(update, step, theta, grad, m, v, rates, row, t + 1)


def evaluate(head, value, chain, buffers, theta, grad):
    """Fit over all samples, and its gradient by the trained blocks, of one run."""
    N, H = chain.table[0, 2], chain.table[0, 0]
    scale = scale_of(chain, theta, N)
    forward(product, chain, theta, theta, H, buffers.X, N)
    head(buffers.Z, chain.segments, chain.targets, chain.parameters, scale, buffers.R, buffers.work)
    backward(product, chain, theta, grad, theta, H, grad, H, buffers.X, buffers.D, N)
    return value(buffers.Z, chain.segments, chain.targets, chain.parameters, scale)


# The same source with the product of lanes. As an argument the product would cost a small run a tenth of its time, and
# a function inside that both are made from would be compiled twice.
run_lanes = FunctionType(run.__code__, {**globals(), "product": lanes.product}, "run_lanes")
run_lanes.__qualname__ = "run_lanes"
