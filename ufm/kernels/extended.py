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
from ufm.kernels.contract import NOT_FINITE, ZERO, allocates, apart, helper, inline
from ufm.kernels.doubt import (
    BITS,
    BY_COLUMNS,
    BY_ROWS,
    LINEAR,
    NOTHING,
    OVERFLOWN,
    STRIDE,
    add_magnitudes,
    gradient,
    in_units,
    input_errors,
    is_decided,
    larger,
    largest,
    line_units,
    lost_decay,
    slack_of,
    smallest_normal,
    total,
    unit_round_off,
    whole_strides,
)  # fmt: skip
from ufm.kernels.exponential import exp
from ufm.kernels.loop import AT, KEPT, MARKS, WHY, note, take_step, takes_signs
from ufm.kernels.tiled_product import product
from ufm.kernels.vectors import (
    SHIFTED,
    WIDTH,
    anywhere,
    below,
    first,
    load,
    power_of_two,
    store,
    where,
    zeros,
)

DOUBLE = 2.0**-53  # unit round-off of logarithms and exponentials, whatever the precision of the run
LOWEST = np.iinfo(np.int64).min  # no unit at all
FAR = 15  # strides beyond which a power of two is no normal number
TINY = np.finfo(np.float64).smallest_subnormal  # what is below is 0
POWERS = 2.0 ** (BITS * np.arange(-FAR, FAR + 1.0))


@apart
def log_residual(X, begin, B, segments, shift, sign, size, room):
    """Fill `sign`, `size` with sign and log magnitude of (softmax - onehot) exp(shift); `room` is for 4 B numbers."""
    K, wrong_at, top_at, sum_at = segments.size - 1, B, 2 * B, 3 * B
    for j in range(K * B):
        sign[j], size[j] = 1.0, X[begin + j]
    for k in range(K):
        for i in range(segments[k], segments[k + 1]):
            j = k * B + i
            room[i], sign[j], size[j] = size[j], -1.0, NOTHING
    for i in range(0, B, WIDTH):
        there, wrong_top, wrong = first(B - i), zeros() + NOTHING, zeros()
        for k in range(K):
            wrong_top = larger(wrong_top, load(size, k * B + i, there))
        for k in range(K):
            wrong = wrong + exp(load(size, k * B + i, there) - wrong_top)
        true = load(room, i, there)
        top = larger(true, wrong_top)
        store(room, i, there, wrong_top)
        store(room, wrong_at + i, there, wrong)
        store(room, top_at + i, there, top)
        store(room, sum_at + i, there, exp(true - top) + wrong * exp(wrong_top - top))
    for i in range(B):
        normaliser = room[top_at + i] + math.log(room[sum_at + i])
        room[i] = room[i] + math.log(room[wrong_at + i]) - normaliser + shift
        room[top_at + i] = normaliser
    for i in range(0, B, WIDTH):
        there = first(B - i)
        normaliser = load(room, top_at + i, there)
        for k in range(K):
            store(size, k * B + i, there, load(size, k * B + i, there) - normaliser + shift)
    for k in range(K):
        for i in range(segments[k], segments[k + 1]):
            size[k * B + i] = room[i]


@apart
def log_doubt(E, begin, B, slack, shift, size, unsure):
    """Fill `unsure` with the logarithm of what round-off may be in exp(size), from that of the logits."""
    rows = size.size // B
    for i in range(B):
        error = 0.0
        for k in range(rows):
            error = max(error, E[begin + k * B + i])
        share = 2.0 * error + slack
        doubt = min(math.log(share), OVERFLOWN)
        for j in range(i, rows * B, B):
            unsure[j] = size[j] + doubt if share <= LINEAR else max(size[j] + doubt, shift)


@inline
def smaller(a, b):
    """The smaller number."""
    return where(below(a, b), a, b)


@inline
def ratio(down):
    """exp(down) for a whole number of strides <= 0; 0 for more than FAR of them."""
    near = below(-(FAR + 0.5) * STRIDE, down)
    return where(near, power_of_two(where(near, down, 0.0) * (BITS / STRIDE) + SHIFTED), 0.0)


@apart
def join(grad, m, unit, start, count, lines, bounds, line, factor, low):
    """Bring the gradients of `count` coordinates and their buffers to one unit each; True if a sign may be undecided.

    Gradients are in units exp(lines[line]), or a line each if that is -1, and as doubtful as `factor` times the bounds,
    and by what underflow may be. The unit is that of the larger, made smaller by a stride where both have fallen below
    `low`. Where a gradient is not above its bound, buffer and unit say the same as before: the caller has the gradients
    worked out anew.
    """
    doubtful, underflow = zeros(), 2.0 * smallest_normal(grad)
    for i in range(0, count, WIDTH):
        there, j = first(count - i), start + i
        own = load(lines, i, there) if line < 0 else zeros() + lines[line]
        bound = factor * (load(bounds, i, there) if line < 0 else zeros() + bounds[line]) + underflow
        g, x, held = load(grad, j, there), load(m, j, there), load(unit, j, there)
        size, of_buffer = larger(g, 0.0 - g), larger(x, 0.0 - x)
        clear = below(bound, where(below(size, np.inf), size, 0.0))
        doubtful = where(there, where(clear, doubtful, 1.0), doubtful)
        own = where(clear, own, held)  # beside another gradient the buffer may decide, and must not move
        down = own - held
        empty = below(of_buffer, TINY)
        new, g = where(empty, own, held), where(empty, g, g * ratio(smaller(down, 0.0)))
        # nearly always: there is no buffer, or its unit stays
        larger_unit = where(empty, 0.0, where(below(of_buffer, low), 1.0, down))
        if anywhere(below(0.0, where(there, larger_unit, 0.0))):
            x = x * ratio(0.0 - larger(down, 0.0))
            new = where(empty, own, larger(own, held))
            small = below(larger(larger(g, 0.0 - g), larger(x, 0.0 - x)), low)
            step = where(small, 2.0**BITS, 1.0)
            g, x, new = g * step, x * step, whole_strides(where(small, new - STRIDE, new))
            store(m, j, there, x)
        store(grad, j, there, g)
        store(unit, j, there, new)
    return anywhere(below(0.0, doubtful))


@apart
def decided_gradient(chain, theta, X, B, sign, size, logit, slack, out, lines, bounds, grad, m, unit):
    """Gradient and buffers in one unit per coordinate; False where a sign may be undecided.

    For all samples of a chain of one layer without coupled decay, and a rule without averages of squares. To what
    `gradient` adds up entry by entry this is a bound line by line: maxima of |W|, |H| and the logits stand for their
    entries.
    """
    start, K, d, place = chain.table[1, 0], chain.table[1, 1], chain.table[1, 2], chain.table[0, 0]
    x, w, u = largest(X, 0, d * B), largest(theta, start, start + K * d), unit_round_off(X)
    error, low = d * w * (d + 2.0) * u * x, math.sqrt(math.sqrt(smallest_normal(grad)))
    if chain.bias >= 0:
        error += 2.0 * u * (largest(theta, chain.bias, chain.bias + K) + logit)
    share, doubtful = 2.0 * error + slack, False
    if share > LINEAR:
        return False
    bias = chain.bias >= 0 and chain.trained[2] == 1
    if bias or chain.trained[1] == 1:
        line_units(size, size, B, BY_ROWS, lines)
        in_units(sign, size, B, BY_ROWS, lines, out)
        for k in range(K):
            bounds[k] = 2.0 * (share + (B + 4.0) * u * (1.0 + share)) * total(out, k * B, (k + 1) * B)
    if bias:
        for k in range(K):
            grad[chain.bias + k] = 0.0
            for i in range(k * B, (k + 1) * B):
                grad[chain.bias + k] += out[i]
        doubtful = join(grad, m, unit, chain.bias, K, lines, bounds, -1, 1.0, low)
    if chain.trained[1] == 1:
        product(out, 0, 0, X, 0, 1, grad, start, K, B, d)
        for k in range(K):
            doubtful |= join(grad, m, unit, start + k * d, d, lines, bounds, k, x, low)
    if chain.lowest == 0:
        line_units(size, size, B, BY_COLUMNS, lines)
        in_units(sign, size, B, BY_COLUMNS, lines, out)
        for i in range(B):
            bounds[i] = 0.0
        for k in range(K):
            add_magnitudes(out, k * B, bounds, 0, B)
        for i in range(B):
            bounds[i] *= 2.0 * w * (share + (K + 4.0) * u + slack)
        product(theta, start, 1, out, 0, 0, grad, place, d, K, B)
        for c in range(d):
            doubtful |= join(grad, m, unit, place + c * B, B, lines, bounds, -1, 1.0, low)
    return not doubtful


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
    while count < -FAR and x != 0.0:
        x, count = x * POWERS[0], count + FAR
    return x * POWERS[FAR + count] if x != 0.0 else x


@helper
def settle_units(m, v, unit):
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
    undecided, signs, u, tiny = 0, takes_signs(step), unit_round_off(theta), smallest_normal(theta)
    low, top = math.sqrt(math.sqrt(tiny)), LOWEST
    for j in range(grad.size):
        g, decay = np.float64(grad[j]), np.float64(step.coupled[j] * theta[j])
        first, second, off = np.float64(m[j]), np.float64(v[j]), doubt[j]
        # asked before buffers far larger make it vanish
        doubtful, lost = not is_decided(g, off), lost_decay(step.coupled[j], theta[j], tiny)
        if first != 0.0 and second == 0.0 and decay == 0.0 and lost == 0.0 and abs(first) >= low:
            # nearly always: the unit stays, and the gradient either has it or vanishes in it
            vanishes = exponent[j] - unit[j] < -FAR * STRIDE
            if vanishes or exponent[j] == unit[j]:
                if signs and doubtful:
                    undecided += mark(cursor, j)
                if vanishes:
                    grad[j] = 0.0
                top = max(top, strides(unit[j]))
                continue
        own, held, new = strides(exponent[j]), strides(unit[j]), LOWEST
        # beside a decay that underflows no gradient as small decides
        small = lost > 0.0 and moved(abs(g) - off, min(own, 0)) <= 2.0 * lost
        if g != 0.0 or off > 0.0:
            new = own
        if decay != 0.0:
            new = max(new, 0)
        if first != 0.0 or second != 0.0:
            new = max(new, held)
        if new == LOWEST:
            unit[j] = 0.0
            if signs and (doubtful or small):
                undecided += mark(cursor, j)
            continue
        g, off, decay = moved(g, own - new), moved(off, own - new), moved(decay, -new)
        first, second = moved(first, held - new), moved(second, 2 * (held - new))
        if decay != 0.0:
            doubtful = is_undecided(g, off, decay, STRIDE * new, u)
        if signs and (doubtful or small):
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
    segments = chain.segments.copy()
    exponent, doubt = np.empty(grad.size), np.empty(grad.size)
    sign, magnitude, unsure = np.empty(K * N), np.empty(K * N), np.empty(K * N)
    out, lines, room = np.empty(K * N, theta.dtype), np.empty(max(K, N) + WIDTH), np.empty(4 * N)
    bounds = np.empty(max(K, N))
    quick = chain.table.shape[0] == 2 and size == 0 and takes_signs(step) and step.has_coupled == 0
    quick = quick and step.buffers < 2
    kept = cursor[KEPT]
    settle_units(m, v, unit)
    for t in range(start, stop + 1):
        cursor[AT] = t
        if kept < records.when.size and records.when[kept] == t:
            kept = record(value, chain, step, records, buffers, kept, theta, cursor)
            if cursor[WHY] == NOT_FINITE:
                return
        if t == stop:
            return
        columns, B = buffers.columns, N
        if size > 0:
            columns = batches[t - start]
            columns = columns if columns[size - 1] >= 0 else columns[: N % size]
            B = columns.size
            gather(chain, theta, columns, B, X, segments, chain.targets)
        else:
            for j in range(chain.table[0, 1] * N):
                X[j] = theta[chain.table[0, 0] + j]
        forward(product, chain, theta, X, ZERO, X, B)
        begin = logits_offset(chain, B)
        logit = largest(X, begin, begin + K * B)
        if not logit < np.inf:
            cursor[WHY] = NOT_FINITE
            return
        slack, shift = slack_of(DOUBLE, K, logit), (-math.log(B) if chain.scale == 0.0 else 0.0)
        of_batch = sign[: K * B], magnitude[: K * B], unsure[: K * B]
        log_residual(X, begin, B, segments, shift, of_batch[0], of_batch[1], room)
        decided = quick and decided_gradient(
            chain, theta, X, N, sign, magnitude, logit, slack, out, lines, bounds, grad, m, unit
        )
        if not decided:
            input_errors(chain, theta, X, B, E)
            log_doubt(E, begin, B, slack, shift, of_batch[1], of_batch[2])
            gradient(chain, theta, X, E, columns, B, *of_batch, slack, NOTHING, grad, exponent, doubt)
            note(common_units(step, theta, grad, exponent, doubt, m, v, unit, cursor), cursor)
        take_step(update, step, theta, grad, m, v, rates, t - start, t + 1)
