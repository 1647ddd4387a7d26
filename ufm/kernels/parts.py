"""The time loop of a large run, whose samples are cut into parts that several threads share out.

A thread holds the columns of H in its parts and a copy of everything else. At each step it takes the gradient of its
parts, one after the other, meets the others, adds up all parts' gradients by the weights, in the order of the parts,
and takes the same step of the weights as everybody. So no bit depends on how many threads there are, and what is
done to a part is done while it is in the second cache.
"""

from __future__ import annotations

import numpy as np

from ufm.kernels.chain import backward, forward, logits_offset
from ufm.kernels.contract import NOT_FINITE, helper
from ufm.kernels.loop import AT, KEPT, WHY
from ufm.kernels.meeting import meet
from ufm.kernels.tiled_product import product_of_thread

# what each part says at a meeting
FLAG, FIT, PENALTY = 0, 1, 2


@helper
def penalty_of(step, theta, start, stop):
    """Coupled penalty of some numbers of the state."""
    total = 0.0
    if step.has_coupled == 1:
        for j in range(start, stop):
            number = np.float64(theta[j])
            total += 0.5 * np.float64(step.coupled[j]) * (number * number)
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
def keep_features(state, share, theta, here, d, begin, end):
    """Put the columns begin ... end - 1 of H, which stand at theta[here:], into a record."""
    B = end - begin
    for j in range(d):
        there = share.features + j * share.samples + begin
        for i in range(B):
            state[np.uintp(there + i)] = theta[np.uintp(here + j * B + i)]


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
    head, value, update, chain, step, records, share, meeting,
    theta, grad, m, v, rates, start, stop, cursor,
):  # fmt: skip
    """As `loop.run`, of one thread; all of them return at the same step, for the same reason.

    A part takes its step of H at once: if it turns out that some logits are not finite, the state is that of another
    step, and the caller has to repeat the steps up to this one. What is said at one meeting is read until the next
    one, so that there is room for two.
    """
    K, d, X, D = chain.table[-1, 1], chain.table[0, 1], share.X, share.D
    H, trains, classes = chain.table[0, 0], chain.trained[0], chain.targets.shape[0]
    scale = theta.dtype.type(chain.scale)
    kept = cursor[KEPT]
    for t in range(start, stop + 1):
        cursor[AT] = t
        recorded = kept < records.when.size and records.when[kept] == t
        said, gradients = meeting.said[t % 2], meeting.gradients[t % 2]
        for part in range(share.spans.shape[0]):
            begin, end = share.ends[part], share.ends[part + 1]
            before, B = begin - share.ends[0], end - begin
            here, logits = H + d * before, logits_offset(chain, B)
            Z, R = X[logits : logits + K * B].reshape((K, B)), D[logits : logits + K * B].reshape((K, B))
            targets = share.targets[classes * before : classes * (before + B)].reshape((classes, B))
            mine = said[share.first + part]
            forward(product_of_thread, chain, theta, theta, here, X, B)
            mine[FLAG] = head(Z, share.spans[part], targets, chain.parameters, scale, R, share.work)
            if recorded:
                mine[FIT] = value(Z, share.spans[part], targets, chain.parameters, scale)
                mine[PENALTY] = penalty_of(step, theta, here, here + trains * d * B)
                if trains == 1:
                    keep_features(records.states[0, kept], share, theta, here, d, begin, end)
            if t < stop:
                of_weights = gradients[share.first + part]
                backward(product_of_thread, chain, theta, of_weights, theta, here, grad, here, X, D, B)
                if trains == 1:
                    update(
                        theta,
                        grad,
                        m,
                        v,
                        rates,
                        t - start,
                        t + 1,
                        step.hyper,
                        share.decay,
                        share.tables[part],
                    )
        meet(meeting.arrived, (t - start + 1) * meeting.threads)
        fit, penalty = 0.0, penalty_of(step, theta, 0, gradients.shape[1]) if recorded else 0.0
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
            if share.first == 0:
                keep_weights(records.states[0, kept], share, theta, gradients.shape[1])
                records.fit[0, kept], records.penalty[0, kept] = fit, penalty
            kept += 1
            cursor[KEPT] = kept
        if t == stop:
            return
        add_up(gradients, grad)
        update(theta, grad, m, v, rates, t - start, t + 1, step.hyper, step.decay, step.table)
