"""The time loop of a large run, whose samples are cut into parts that several threads share out.

Each thread holds a copy of everything but H. At each step it takes its parts, one after the other, and then those of
others that nobody has begun, for a processor that does something else for a while holds up everybody. Then it meets
the others, adds up all parts' gradients by the weights, in the order of the parts, and takes the same step of the
weights as everybody. So no bit depends on how many threads there are or on who took which part, and a part is small
enough for most of it to stay in the second cache from one product to the next.
"""

from __future__ import annotations

import numpy as np

from ufm.kernels.chain import backward, forward, logits_offset
from ufm.kernels.contract import NOT_FINITE, helper
from ufm.kernels.loop import AT, KEPT, WHY
from ufm.kernels.meeting import meet, take
from ufm.kernels.tiled_product import product_of_thread

# what each part says at a meeting
FLAG, FIT, PENALTY = 0, 1, 2


@helper
def penalty_of_weights(step, theta, weights):
    """Coupled penalty of the trained blocks but H."""
    total = 0.0
    if step.has_coupled == 1:
        for j in range(weights):
            number = np.float64(theta[j])
            total += 0.5 * np.float64(step.coupled[j]) * (number * number)
    return total


@helper
def penalty_of_features(step, columns, start, stop):
    """Coupled penalty of some numbers of H."""
    total = 0.0
    if step.has_coupled == 1:
        for j in range(start, stop):
            number = np.float64(columns.H[j])
            total += 0.5 * np.float64(columns.coupled[0]) * (number * number)
    return total


@helper
def keep_weights(state, share, theta, weights):
    """Put the trained blocks but H into a record."""
    for block in range(share.blocks.shape[0]):
        there, here, size = share.blocks[block, 0], share.blocks[block, 1], share.blocks[block, 2]
        if here < weights:
            for j in range(size):
                state[there + j] = theta[here + j]


@helper
def keep_features(state, columns, d, begin, end):
    """Put the columns begin ... end - 1 of H into a record."""
    B = end - begin
    for j in range(d):
        there, here = columns.offset + j * columns.samples + begin, d * begin + j * B
        for i in range(B):
            state[np.uintp(there + i)] = columns.H[np.uintp(here + i)]


@helper
def add_up(gradients, grad):
    """The gradient by the weights: the sum over all parts, in their order."""
    for j in range(gradients.shape[1]):
        grad[np.uintp(j)] = gradients[0, np.uintp(j)]
    for part in range(1, gradients.shape[0]):
        of_part = gradients[part]
        for j in range(of_part.size):
            grad[np.uintp(j)] += of_part[np.uintp(j)]


def run(
    head, value, update, chain, step, records, columns, share, meeting,
    theta, grad, m, v, rates, start, stop, cursor,
):  # fmt: skip
    """As `loop.run`, of one thread; all of them return at the same step, for the same reason.

    A part takes its step of H at once: if it turns out that some logits are not finite, the state is that of another
    step, and the caller has to repeat the steps up to this one. What is said at one meeting is read until the next
    one, so that there is room for two.
    """
    K, d, X, D = chain.table[-1, 1], chain.table[0, 1], share.X, share.D
    trains, classes = chain.trained[0], chain.targets.shape[0]
    scale = theta.dtype.type(chain.scale)
    kept = cursor[KEPT]
    for t in range(start, stop + 1):
        cursor[AT] = t
        recorded = kept < records.when.size and records.when[kept] == t
        said, gradients = meeting.said[t % 2], meeting.gradients[t % 2]
        for which in range(share.order.size):
            part = share.order[which]
            if not take(meeting.taken, part, t - start):
                continue
            begin, end = columns.ends[part], columns.ends[part + 1]
            B, here = end - begin, d * begin
            logits, last = logits_offset(chain, B), d * end
            Z, R = X[logits : logits + K * B].reshape((K, B)), D[logits : logits + K * B].reshape((K, B))
            targets = columns.targets[classes * begin : classes * end].reshape((classes, B))
            mine = said[part]
            forward(product_of_thread, chain, theta, columns.H, here, X, B)
            mine[FLAG] = head(Z, columns.spans[part], targets, chain.parameters, scale, R, share.work)
            if recorded:
                mine[FIT] = value(Z, columns.spans[part], targets, chain.parameters, scale)
                if trains == 1:
                    mine[PENALTY] = penalty_of_features(step, columns, here, last)
                    keep_features(records.states[0, kept], columns, d, begin, end)
            if t < stop:
                backward(
                    product_of_thread, chain, theta, gradients[part], columns.H, here, share.G, 0, X, D, B
                )
                if trains == 1:
                    update(
                        columns.H[here:last],
                        share.G[: d * B],
                        columns.m[here:last],
                        columns.v[here:last],
                        rates,
                        t - start,
                        t + 1,
                        step.hyper,
                        columns.decay,
                        columns.tables[part],
                    )
        meet(meeting.arrived, (t - start + 1) * meeting.threads)
        fit, penalty = 0.0, penalty_of_weights(step, theta, gradients.shape[1]) if recorded else 0.0
        for part in range(said.shape[0]):
            if said[part, FLAG] == NOT_FINITE:
                cursor[WHY] = NOT_FINITE
                return
            if recorded:
                fit += said[part, FIT]
                penalty += said[part, PENALTY]
        if recorded:
            if not (abs(fit) < np.inf):
                cursor[WHY] = NOT_FINITE
                return
            if share.first == 1:
                keep_weights(records.states[0, kept], share, theta, gradients.shape[1])
                records.fit[0, kept], records.penalty[0, kept] = fit, penalty
            kept += 1
            cursor[KEPT] = kept
        if t == stop:
            return
        add_up(gradients, grad)
        update(theta, grad, m, v, rates, t - start, t + 1, step.hyper, step.decay, step.table)
