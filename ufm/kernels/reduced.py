"""The time loop of two-valued weights, W = (diagonal - off_diagonal) I + off_diagonal J, at a frozen simplex ETF.

Two scalars stand for a K x K matrix. Several copies of them may run side by side, the diagonals in the first half
of the flat state, the off-diagonals in the second: copy 0 is the run, the others are disturbed at every operation
by what round-off may be, and show how far that carries.

To first order the deviations of a K x K matrix from a two-valued one fall into independent parts by what the
permutations of the classes make of them. Copies of one kind follow one part:

    ALIKE           two-valued: the copy is a run of its own;
    ROWS, COLUMNS   alpha a_j on the diagonal, beta a_j + gamma a_k off it, sum a = 0: two copies side by side, the
                    first with alpha and beta, the second with gamma;
    ENTRIES         off the diagonal alone, without row or column sums.

How the gradient answers to each is proved in the room `symmetric_path` (its Hessian); it is applied to log|grad|.
"""

from __future__ import annotations

import math

import numpy as np

from ufm.kernels.contract import NOT_FINITE, allocates, helper, inline
from ufm.kernels.loop import AT, FIRST_UNDECIDED, KEPT, UNDECIDED, WHY

CARRIED = 5  # entry of the cursor: whether exponents are carried
SCALE, FACTOR, OTHERS, EPSILON = 0, 1, 2, 3  # entries of the setting
THETA, GRADIENT, FIRST, SECOND = 0, 1, 2, 3  # what is disturbed: state, gradient, both buffers
ALIKE, ROWS, COLUMNS, ENTRIES = 0, 1, 2, 3  # kinds of copies, see `run`
EXPONENTS_FROM = 300.0  # logit gap above which squares of gradients could underflow
LARGEST = 1e300


@inline
def wrong_share(gap, others):
    """Probability 1/(exp(gap) + others) of one wrong class."""
    if gap > 0.0:
        small = math.exp(-gap)
        return small / (1.0 + others * small)
    return 1.0 / (math.exp(gap) + others)


@inline
def log_wrong_share(gap, others):
    """Logarithm of `wrong_share`, at any gap."""
    if gap > 0.0:
        return -gap - math.log1p(others * math.exp(-gap))
    return -math.log(math.exp(gap) + others)


@helper
def logarithm(x):
    """log |x|, with log 0 = -inf."""
    return math.log(abs(x)) if x != 0.0 else -np.inf


@helper
def to_one_unit(j, exponent, decay, slack, grad, m, v, unit):
    """Bring gradient, coupled decay and buffers of a coordinate to one unit exp(unit[j]); True if undecided.

    The gradient comes in units exp(exponent) and with the relative error `slack`.
    """
    top = max(exponent, logarithm(decay))
    top = max(top, max(logarithm(m[j]), 0.5 * logarithm(v[j])) + unit[j])
    of_gradient = grad[j] * math.exp(exponent - top)
    of_decay = math.copysign(math.exp(logarithm(decay) - top), decay) if decay != 0.0 else 0.0
    factor = math.exp(unit[j] - top) if m[j] != 0.0 or v[j] != 0.0 else 0.0
    grad[j], unit[j] = of_gradient + of_decay, top
    m[j] *= factor
    v[j] *= factor * factor
    return is_undecided(of_gradient, of_decay, slack)


@inline
def is_undecided(gradient, decay, slack):
    """Whether round-off may have turned the sign of a gradient with coupled decay."""
    return decay != 0.0 and abs(gradient + decay) <= slack * (abs(gradient) + abs(decay))


@inline
def clipped(x):
    """An exponent that neither overflows nor undoes all of a gradient."""
    return min(max(x, -300.0), 300.0)


@inline
def answer(theta, kinds, j, scale, gap, share, others):
    """Logit gap of a copy, and what its deviation adds to log|grad| on the diagonal and off it."""
    copies = kinds.size
    d, o = scale * (theta[j] - theta[0]), scale * (theta[copies + j] - theta[copies])
    if kinds[j] == ALIKE:
        return gap + d - o, 0.0, 0.0
    if kinds[j] == ENTRIES:
        return gap, 0.0, clipped(o)
    first = j if kinds[j] == ROWS else j - 1
    d = scale * (theta[first] - theta[0])
    o = scale * (theta[copies + first] + theta[copies + first + 1] - 2.0 * theta[copies])
    right = share * math.exp(gap) if gap < 0.0 else 1.0 / (1.0 + others * math.exp(-gap))
    of_other = clipped((others * right + share) / (others + 1.0) * (o - d))
    return gap, of_other * (others - 1.0) / others, of_other


@helper
def store(records, kept, theta, cursor):
    """Write one record."""
    for j in range(theta.size):
        records.states[0, kept, j] = theta[j]
    cursor[KEPT] = kept + 1


@helper
def disturb(values, before, noise, row, kind, size):
    """Move each entry by its noise times `size` times the magnitudes before and after the operation."""
    for j in range(values.size):
        values[j] += noise[row, kind * values.size + j] * size * (abs(before[j]) + abs(values[j]))


@helper
def disturb_gradient(grad, noise, row, size, floor):
    """Move each gradient by its noise, relative to itself and by the smallest number."""
    for j in range(grad.size):
        grad[j] += noise[row, GRADIENT * grad.size + j] * (size * abs(grad[j]) + floor)


@allocates
def run(
    update, step, records, setting, kinds, noise,
    theta, grad, m, v, unit, rates, start, stop, cursor,
):  # fmt: skip
    """Steps start ... stop - 1, with records at start ... stop; `cursor` says how far it came and why.

    `setting` holds the norm c of the frame, H = c (I - J/K), the factor c/K of the gradient, K - 1, and the unit
    round-off of the disturbances. Row t of `noise` (repeated) holds the signs of the disturbances of state, gradient
    and buffers of every copy.
    """
    copies = kinds.size
    scale, factor, others = setting[SCALE], setting[FACTOR], setting[OTHERS]
    exponent = np.zeros(theta.size)
    disturbed = noise.shape[0] > 0
    # taken out of the tuple once: each access counts references, which costs more than the step
    hyper, decay, table, when = step.hyper, step.decay, step.table, records.when
    coupled, decoupled = step.coupled[0], step.decoupled[0]
    scale_free, shrink_after = step.scale_free == 1, step.shrink_after == 1
    carried = cursor[CARRIED] == 1
    before_theta, before_m, before_v = theta.copy(), m.copy(), v.copy()
    kept = cursor[KEPT]
    for t in range(start, stop + 1):
        cursor[AT] = t
        gap = scale * (theta[0] - theta[copies])
        if not (abs(gap) < LARGEST and abs(theta[0]) < LARGEST):
            cursor[WHY] = NOT_FINITE
            return
        if kept < when.size and when[kept] == t:
            store(records, kept, theta, cursor)
            kept += 1
        if t == stop:
            return
        if scale_free and gap > EXPONENTS_FROM:
            carried = True
            cursor[CARRIED] = 1
        share = wrong_share(gap, others)
        for j in range(copies):
            own, of_diagonal, of_other = gap, 0.0, 0.0
            if j > 0:
                own, of_diagonal, of_other = answer(theta, kinds, j, scale, gap, share, others)
            if carried:
                log_psi = math.log(factor) + log_wrong_share(own, others)
                grad[j], exponent[j] = -1.0, log_psi + math.log(others) + of_diagonal
                grad[copies + j], exponent[copies + j] = 1.0, log_psi + of_other
            else:
                psi = factor * (share if own == gap else wrong_share(own, others))
                grad[j], grad[copies + j] = -others * psi, psi
                if of_other != 0.0:
                    grad[j] *= math.exp(of_diagonal)
                    grad[copies + j] *= math.exp(of_other)
        if disturbed:
            logits = scale * (abs(theta[0]) + abs(theta[copies]))
            size = setting[EPSILON] * (others + 17.0 + 8.0 * logits)
            floor = 0.0 if carried else (others + 1.0) * np.finfo(np.float64).tiny
            disturb_gradient(grad, noise, t % noise.shape[0], size, floor)
            before_theta[:], before_m[:], before_v[:] = theta, m, v
        slack = np.finfo(np.float64).eps * (16.0 + 4.0 * abs(gap))
        found = 0
        if carried:
            for j in range(theta.size):
                doubtful = to_one_unit(j, exponent[j], coupled * theta[j], slack, grad, m, v, unit)
                found += doubtful and (j == 0 or j == copies)
            if disturbed:
                before_m[:], before_v[:] = m, v  # in the units of this step
        elif coupled > 0.0:
            if scale_free:
                found += is_undecided(grad[0], coupled * theta[0], slack)
                found += is_undecided(grad[copies], coupled * theta[copies], slack)
            for j in range(theta.size):
                grad[j] += coupled * theta[j]
        if found > 0:
            if cursor[UNDECIDED] == 0:
                cursor[FIRST_UNDECIDED] = t
            cursor[UNDECIDED] += found
        lr = rates[t - start]
        kept_share = 1.0 - lr * decoupled
        if decoupled > 0.0 and not shrink_after:
            for j in range(theta.size):
                theta[j] *= kept_share
        update(theta, grad, m, v, rates, t - start, t + 1, hyper, decay, table)
        if decoupled > 0.0 and shrink_after:
            for j in range(theta.size):
                theta[j] *= kept_share
        if disturbed:
            row = t % noise.shape[0]
            disturb(theta, before_theta, noise, row, THETA, setting[EPSILON])
            disturb(m, before_m, noise, row, FIRST, setting[EPSILON])
            disturb(v, before_v, noise, row, SECOND, setting[EPSILON])
