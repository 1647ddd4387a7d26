r"""Which signs of a gradient round-off cannot decide.

A sign is undecided where the computed entry is no larger than a bound of its own error. To first order in the unit
round-off u of the run's precision (2^-53 or 2^-24), with |.| taken entrywise:

    inputs and logits   dX_1 = 0,  dX_{l+1} = |W_l| dX_l + (n_l + 2) u |W_l| |X_l|,  the last of them is dZ
    residual            dR_ki = rho_i (|R_ki| + r_ki),   rho_i = 2 max_k dZ_ki + u (12 max|Z| + 2 K + 32)
    gradient by W_l     dG = dD |X|^T + (|D| + dD) dX^T + (B + 4) u |D| |X|^T
    derivative by X_l   dD_l = |W_l|^T (dD + ((rows + 4) u + s) |D|),   s the second term of rho
    coupled decay       u lam |theta| for the product; the last sum has the sign of its two terms' exact sum
    underflow           to dX, dG, dD and the product of the decay comes `tiny`, the smallest normal number, unless
                        each of their terms has a factor that is exactly 0

The first term of rho is what the logits' errors do to a softmax entry (and, as minus the sum of the others, to the
entry of the true class), the second what exponentials, logarithms and sums of the residual add. For cross-entropy
with one-hot targets r = 0. Smoothed and soft targets, squared error: r is what is subtracted from the probability,
or 1/B, the slope of the residual; beside a target, tiny/u too, for probabilities that underflow. Of a user's loss,
whose round-off is not known, r is the sum of |R| over the sample.
Where rho > 1/2 the softmax no longer answers in proportion, and a probability may be anything between 0 and 1.

A ReLU unit whose pre-activation is nearer to 0 than its error may be alive or dead: the derivative behind it is in
doubt as a whole. A unit that is dead beyond doubt has no error, and entries that are 0 for that reason are decided,
like the derivatives of a sample whose units are all dead.
An entry whose terms cancel exactly is undecided: arithmetic of this precision cannot tell it from a small one.
A product that underflows is off by u tiny at most, so that one `tiny` is enough for the products of a sum of up to
1/(4u) terms and for those of its bound. A factor is exactly 0 where both the number and its error are: an input or
a weight that is given as 0, a unit that is dead beyond doubt, and what such factors alone lead to.
A gradient that overflows is undecided too.

Signum and Adam take the sign of an average of gradients. What is counted for them are the entries of the gradient
that enter the average undecided, at the step at which they enter; how long the average remembers them, and whether
decided entries of opposite signs cancel in it, is not followed.

`gradient` works all this out with exponents carried, where underflow comes in a second time: that of a run adds
`tiny` to the derivatives, that in the units of a line `tiny` of this unit. `alarm` bounds it from above by maxima and
sums of |W|, |X| and |D| in O(KN + Kd + dN), first by one number for each block, then row by row and column by column,
so that a step whose signs are beyond doubt, which is nearly every one, is known as such without the matrix products of
`gradient`.
`alarm_of_lanes` has the one number for each block alone, for each run of an ensemble by itself. Where exponents are
carried, `ufm.kernels.extended.decided_gradient` has one for each row or column, in its own unit.
"""

from __future__ import annotations

import math

import numba
import numpy as np
from llvmlite import ir
from numba import config, types
from numba.core.errors import TypingError
from numba.extending import intrinsic
from numba.np.numpy_support import as_dtype

from ufm.kernels.chain import logits_offset
from ufm.kernels.contract import APART, OPTIONS, ZERO, allocates, allocating_apart, apart, helper, inline
from ufm.kernels.exponential import exp
from ufm.kernels.loop import MARKS, scale_of
from ufm.kernels.losses import ONE_HOT, SMOOTHED, SOFT, SQUARED
from ufm.kernels.product import product
from ufm.kernels.vectors import WIDTH, below, first, load, store, where, zeros

NOTHING = -np.inf  # logarithm of zero
OVERFLOWN = 1e6  # logarithm of the doubt of what overflows: larger than all others
BY_ROWS, BY_COLUMNS, ONE = np.bool_(True), np.bool_(False), np.int64(1)  # not literals, as ZERO
SUSPECTED = -1  # what `alarm` answers instead of a count
LARGEST = 709.0  # exp above this is not finite
BITS = 64  # exponents of lines are whole multiples of log 2^64, so that units differ by powers of two
STRIDE = BITS * math.log(2.0)
ROUND = 1.5 * 2.0**52  # adding and subtracting it rounds to the nearest integer
MAGNITUDE = 2**63 - 1  # all bits of a float64 but that of its sign
ABOVE = 1.0 + 1e-12  # what goes through a logarithm and back may lose a few units in its last places
LINEAR = 0.5  # largest rho at which a probability's error is taken in proportion to it
REACH = (
    2.0**33
)  # between the unit of a line and its largest size or doubt lies a factor below this: half a stride

# bounds may sum and compare in any order: that, and indices that cannot be negative, lets LLVM vectorise them
bounding = numba.njit(fastmath={"nnan", "nsz", "reassoc"}, **APART, **OPTIONS)


@intrinsic
def bits_to_float(typingctx, bits):
    """Reinterpret the 64 bits of an integer as a float64."""
    if bits != types.int64:
        raise TypingError("int64 expected")

    def codegen(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(types.int64), codegen


@intrinsic
def float_to_bits(typingctx, number):
    """Reinterpret a float64 as the integer of its 64 bits."""
    if number != types.float64:
        raise TypingError("float64 expected")

    def codegen(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.IntType(64))

    return types.int64(types.float64), codegen


def _of_precision(number):
    """A number that belongs to the precision of an array, a constant in compiled code."""

    @intrinsic
    def constant(typingctx, array):
        value = float(number(np.finfo(as_dtype(array.dtype))))
        return types.float64(array), lambda context, *_: context.get_constant(types.float64, value)

    return (lambda array: float(number(np.finfo(array.dtype)))) if config.DISABLE_JIT else constant


# `np.finfo` in a kernel would be compiled for each of its uses
unit_round_off = _of_precision(lambda info: 0.5 * info.eps)
smallest_normal = _of_precision(lambda info: info.tiny)
largest_finite = _of_precision(lambda info: info.max)
# the part of r for a probability that underflows beside a target: rho is 500 u at least where logits are that far apart
vanished_probability = _of_precision(lambda info: 2.0 * info.tiny / info.eps)
# smallest size in units of a line: its products with usual inputs and weights are normal numbers, others being slow
floor_of_units = _of_precision(lambda info: info.tiny / info.eps**2)


def _largest_interpreted(x, start, stop):
    return float(np.max(np.abs(x[start:stop]), initial=0.0))


def _largest_bits(x, start, stop):
    """Largest |x| of a part of a vector, nan and inf the largest; as integers, whose maximum LLVM vectorises."""
    top = 0
    for i in range(stop - start):
        bits = float_to_bits(np.float64(x[np.uintp(start + i)])) & MAGNITUDE
        top = bits if bits > top else top
    return bits_to_float(top)


largest = _largest_interpreted if config.DISABLE_JIT else bounding(_largest_bits)


@bounding
def total(x, start, stop):
    """Sum of |x| over a part of a vector."""
    found = 0.0
    for i in range(stop - start):
        found += abs(x[np.uintp(start + i)])
    return found


@bounding
def any_below(x, start, stop, bound):
    """Whether any |x| of a part of a vector is smaller than the bound."""
    found = 0
    for i in range(stop - start):
        found += abs(x[np.uintp(start + i)]) < bound
    return found > 0


@bounding
def any_below_each(x, start, bounds, at, count, more):
    """Whether any of `count` |x| from start on is smaller than its own bound, from `at` on, plus more."""
    found = 0
    for i in range(count):
        found += abs(x[np.uintp(start + i)]) < bounds[np.uintp(at + i)] + more
    return found > 0


@bounding
def add_magnitudes(x, start, out, at, count):
    """Add `count` |x| from start on to `out` from `at` on."""
    for i in range(count):
        out[np.uintp(at + i)] += abs(x[np.uintp(start + i)])


@bounding
def meet(X, one, other, count):
    """Whether two units are alive in one of `count` samples."""
    found = 0
    for i in range(count):
        found += (X[np.uintp(one + i)] > 0.0) & (X[np.uintp(other + i)] > 0.0)
    return found > 0


@helper
def is_decided(g, doubt):
    """Whether a number is exactly 0 or further from it than its doubt; what overflows is not known to be."""
    return doubt < abs(g) < np.inf or (g == 0.0 and doubt == 0.0)


@helper
def lost_decay(rate, number, tiny):
    """What underflow may be in rate * number: nothing, or `tiny`."""
    return tiny if abs(rate * number) < tiny and rate != 0.0 and number != 0.0 else 0.0


@apart
def any_lost_decay(coupled, theta, grad, tiny):
    """Whether a decay underflows, if any gradient with decay is as small as it would be."""
    lost = 0.0
    if any_below(grad, ZERO, grad.size, 2.0 * tiny):
        for j in range(grad.size):
            lost = max(lost, lost_decay(coupled[j], theta[j], tiny))
    return lost > 0.0


@helper
def logarithm(x):
    """log |x|, with log 0 = -inf."""
    return math.log(abs(x)) if x != 0.0 else NOTHING


@allocating_apart
def magnitudes(x, start, stop):
    """Absolute values of a part of a vector; of what is no normal number the smallest, whose share u is not lost."""
    out, tiny = np.empty(stop - start, x.dtype), smallest_normal(x)
    for j in range(out.size):
        out[j] = max(abs(x[start + j]), tiny) if x[start + j] != 0.0 else 0.0
    return out


@helper
def has_term(x, at, step, y, there, stride, count):
    """Whether one of `count` products x[at + p step] y[there + p stride] has no factor that is exactly 0."""
    found = 0
    for p in range(count):
        found += (x[at + p * step] != 0.0) & (y[there + p * stride] != 0.0)
    return found > 0


@apart
def add_underflow(x, ox, tx, y, oy, ty, out, oo, rows, inner, cols):
    """Add to bounds at out[oo:] what underflow may be in a product of matrices, whose arguments these are.

    Of x and y it counts only which entries are exactly 0. The bounds are 0 where a product has no other terms.
    """
    tiny = smallest_normal(out)
    row, step = (1, rows) if tx else (inner, 1)
    column, stride = (inner, 1) if ty else (1, cols)
    for i in range(rows):
        for j in range(cols):
            at = oo + i * cols + j
            # nearly always the first: a bound may be 0 where it has itself underflowed
            if out[at] != 0.0 or has_term(x, ox + i * row, step, y, oy + j * column, stride, inner):
                out[at] = out[at] + tiny if out[at] < np.inf else np.inf


@helper
def slack_of(u, classes, largest_logit):
    """Relative error that the residual adds to what its logits carry: exponentials, logarithms and sums."""
    return u * (12.0 * largest_logit + 2.0 * classes + 32.0)


# --------------------------------------------------------------------------- the doubt of every entry


@allocating_apart
def input_errors(chain, theta, X, B, E):
    """Fill E, laid out as X, with bounds of the round-off in the inputs of all layers and in the logits.

    Above the first layer E is 0 only where an input is exactly 0.
    """
    depth = chain.table.shape[0] - 1
    u = unit_round_off(X)
    below, here = ZERO, chain.table[0, 1] * B
    for j in range(here):
        E[j] = 0.0
    for layer in range(1, depth + 1):
        start, rows, inner = chain.table[layer, 0], chain.table[layer, 1], chain.table[layer, 2]
        terms = magnitudes(X, below, here)
        for j in range(inner * B):
            terms[j] = E[below + j] + (inner + 2.0) * u * terms[j]
        product(magnitudes(theta, start, start + rows * inner), 0, 0, terms, 0, 0, E, here, rows, inner, B)
        add_underflow(theta, start, ZERO, terms, ZERO, ZERO, E, here, rows, inner, B)
        if chain.relu == 1 and layer < depth:
            before = np.empty(rows * B, X.dtype)
            product(theta, start, 0, X, below, 0, before, 0, rows, inner, B)
            for j in range(rows * B):
                if before[j] < -E[here + j]:
                    E[here + j] = 0.0
        below, here = here, here + rows * B
    if chain.bias >= 0:
        for k in range(chain.table[depth, 1]):
            for j in range(below + k * B, below + (k + 1) * B):
                E[j] += 2.0 * u * (abs(theta[chain.bias + k]) + abs(X[j]))


@inline
def larger(a, b):
    """The larger number."""
    return where(below(a, b), b, a)


@inline
def whole_strides(x):
    """The multiple of STRIDE next to each number, 0 for -inf."""
    number = (x * (1.0 / STRIDE) + ROUND) - ROUND
    return where(below(NOTHING, x), STRIDE * number, 0.0)


@apart
def line_units(size, unsure, B, by_rows, exponents):
    """Fill `exponents` with the units of each row or column: whole strides next to its largest size or doubt.

    The last WIDTH entries of `exponents` are room for the maximum of a row.
    """
    rows, every, room = size.size // B, first(WIDTH), exponents.size - WIDTH
    if by_rows:
        for k in range(rows):
            top = zeros() + NOTHING
            for i in range(0, B, WIDTH):
                there = first(B - i)
                both = larger(load(size, k * B + i, there), load(unsure, k * B + i, there))
                top = larger(top, where(there, both, NOTHING))
            store(exponents, room, every, top)
            for i in range(room, exponents.size):
                exponents[k] = exponents[i] if i == room else max(exponents[k], exponents[i])
        for k in range(0, rows, WIDTH):
            there = first(rows - k)
            store(exponents, k, there, whole_strides(load(exponents, k, there)))
        return
    for i in range(0, B, WIDTH):
        there, top = first(B - i), zeros() + NOTHING
        for k in range(rows):
            top = larger(top, larger(load(size, k * B + i, there), load(unsure, k * B + i, there)))
        store(exponents, i, there, whole_strides(top))


@apart
def in_units(sign, size, B, by_rows, exponents, out):
    """Fill `out` with sign exp(size), each row or column in its unit exp(exponent).

    What is smaller than the floor of these units is put there.
    """
    floor = floor_of_units(out)
    for k in range(size.size // B):
        for i in range(0, B, WIDTH):
            there, j = first(B - i), k * B + i
            unit = zeros() + exponents[k] if by_rows else load(exponents, i, there)
            log = load(size, j, there)
            number = larger(exp(where(there, log - unit, 0.0)), floor)
            store(out, j, there, where(below(NOTHING, log), number * load(sign, j, there), 0.0))


@allocating_apart
def gradient(chain, theta, X, E, columns, B, sign, size, unsure, slack, least, grad, exponent, doubt):
    """Gradient and a bound of its error, both in units exp(exponent), one per coordinate.

    `sign`, `size` hold the derivative by the logits of these columns, sign exp(size), and `unsure` the logarithm of
    its doubt; E is from `input_errors`; `slack` is the relative error of taking logarithms and exponentials, `least`
    the logarithm of what underflow may be in derivatives that are held without exponents.
    """
    depth, N = chain.table.shape[0] - 1, chain.table[0, 2]
    here = logits_offset(chain, B)
    u = unit_round_off(X)
    for layer in range(depth, 0, -1):
        start, rows, inner = chain.table[layer, 0], chain.table[layer, 1], chain.table[layer, 2]
        below = here - inner * B
        out, off = np.empty(rows * B, X.dtype), np.empty(rows * B, X.dtype)
        exponents = np.empty(max(rows, B) + WIDTH)
        bias = layer == depth and chain.bias >= 0 and chain.trained[depth + 1] == 1
        if bias or chain.trained[layer] == 1:
            line_units(size, unsure, B, BY_ROWS, exponents)
            in_units(sign, size, B, BY_ROWS, exponents, out)
            in_units(sign, unsure, B, BY_ROWS, exponents, off)
        if bias:
            for k in range(rows):
                j = chain.bias + k
                grad[j], exponent[j], doubt[j] = 0.0, exponents[k], 0.0
                for i in range(k * B, (k + 1) * B):
                    grad[j] += out[i]
                    doubt[j] += abs(off[i]) + (B + 4.0) * u * abs(out[i])
        if chain.trained[layer] == 1:
            product(out, 0, 0, X, below, 1, grad, start, rows, B, inner)
            terms, of_inputs = np.empty(rows * inner, X.dtype), np.empty(rows * inner, X.dtype)
            for j in range(rows * B):
                out[j] = abs(out[j]) + abs(off[j])
                off[j] = abs(off[j]) + (B + 4.0) * u * out[j]
            product(off, 0, 0, magnitudes(X, below, here), 0, 1, terms, 0, rows, B, inner)
            if layer > 1:
                product(out, 0, 0, E, below, 1, of_inputs, 0, rows, B, inner)
                for j in range(rows * inner):
                    terms[j] += of_inputs[j]
                add_underflow(off, ZERO, ZERO, E, below, ONE, terms, ZERO, rows, B, inner)
            else:
                add_underflow(off, ZERO, ZERO, X, below, ONE, terms, ZERO, rows, B, inner)
            for k in range(rows):
                for j in range(k * inner, (k + 1) * inner):
                    exponent[start + j], doubt[start + j] = exponents[k], terms[j]
        if layer <= chain.lowest:
            break
        # derivative by the inputs of this layer, before its ReLU
        line_units(size, unsure, B, BY_COLUMNS, exponents)
        in_units(sign, size, B, BY_COLUMNS, exponents, out)
        in_units(sign, unsure, B, BY_COLUMNS, exponents, off)
        back, terms = np.empty(inner * B, X.dtype), np.empty(inner * B, X.dtype)
        product(theta, start, 1, out, 0, 0, back, 0, inner, rows, B)
        for j in range(rows * B):
            off[j] = abs(off[j]) + ((rows + 4.0) * u + slack) * abs(out[j])
        weights = magnitudes(theta, start, start + rows * inner)
        product(weights, 0, 1, off, 0, 0, terms, 0, inner, rows, B)
        add_underflow(theta, start, ONE, off, ZERO, ZERO, terms, ZERO, inner, rows, B)
        if layer == 1:
            for j in range(chain.table[0, 0], chain.table[0, 0] + inner * N):
                grad[j], exponent[j], doubt[j] = 0.0, 0.0, 0.0
            for c in range(inner):
                for i in range(B):
                    j, s = chain.table[0, 0] + c * N + columns[i], c * B + i
                    grad[j], exponent[j], doubt[j] = back[s], exponents[i], terms[s]
            break
        sign, size, unsure = np.empty(inner * B), np.empty(inner * B), np.empty(inner * B)
        for j in range(inner * B):
            alive = chain.relu == 0 or X[below + j] > 0.0
            at_kink = chain.relu == 1 and X[below + j] <= E[below + j] and E[below + j] > 0.0
            sign[j], size[j], unsure[j] = -1.0 if back[j] < 0.0 else 1.0, NOTHING, NOTHING
            if terms[j] == 0.0 or not (alive or at_kink):
                continue
            bound = terms[j] + (ABOVE * abs(back[j]) if at_kink else 0.0)
            if not bound + abs(back[j]) < np.inf:
                unsure[j] = OVERFLOWN
                continue
            if alive:
                size[j] = logarithm(back[j]) + exponents[j % B]
            # the larger of both bounds is enough: what underflow is in `tiny` is a share u of it
            unsure[j] = max(logarithm(bound) + exponents[j % B], least)
        here = below


@apart
def residual_doubt(chain, D, here, B, columns, scale, rho, unsure):
    """Fill `unsure` with the logarithm of dR, from the residual at D[here:] and rho of each column."""
    K = chain.table[-1, 1]
    kind, floor = chain.parameters[2], scale * chain.parameters[0] / K
    vanished = vanished_probability(D)
    for i in range(B):
        column, reach = 0.0, 0.0
        for k in range(K):
            column += abs(D[here + k * B + i])
        if rho[i] > LINEAR and kind in (ONE_HOT, SMOOTHED):
            reach = scale
        elif rho[i] > LINEAR and kind == SOFT:
            for k in range(K):
                reach += scale * abs(chain.targets[k, columns[i]])
        mass = 0.0
        if kind == SOFT:
            for k in range(K):
                mass += abs(chain.targets[k, columns[i]])
        for k in range(K):
            more = 0.0
            if kind == SMOOTHED:
                more = 2.0 * floor + vanished
                if chain.labels[columns[i]] == k:
                    more = column + 2.0 * K * floor + vanished
            elif kind == SOFT:
                # a sample without targets has residuals that are exactly 0
                more = 2.0 * scale * abs(chain.targets[k, columns[i]]) + (vanished if mass > 0.0 else 0.0)
            elif kind == SQUARED:
                more = scale
            elif kind != ONE_HOT:
                more = column
            doubt = max(rho[i] * (abs(D[here + k * B + i]) + more), reach)
            unsure[k * B + i] = min(logarithm(doubt), OVERFLOWN)


@allocating_apart
def doubts(chain, step, theta, X, D, columns, B, doubt):
    """Fill `doubt` with bounds of the error of each entry of the gradient with coupled decay."""
    K, here = chain.table[-1, 1], logits_offset(chain, B)
    u, tiny = unit_round_off(X), smallest_normal(X)
    E = np.empty(here + K * B, X.dtype)
    input_errors(chain, theta, X, B, E)
    sign, size, unsure = np.empty(K * B), np.empty(K * B), np.empty(K * B)
    slack, rho = slack_of(u, K, largest(X, here, here + K * B)), np.empty(B)
    for i in range(B):
        rho[i] = 0.0
        for k in range(K):
            rho[i] = max(rho[i], 2.0 * E[here + k * B + i])
        rho[i] += slack
    residual_doubt(chain, D, here, B, columns, scale_of(chain, theta, B), rho, unsure)
    for j in range(K * B):
        sign[j] = -1.0 if D[here + j] < 0.0 else 1.0
        size[j] = logarithm(D[here + j])
    found, exponent, least = np.empty(doubt.size, X.dtype), np.empty(doubt.size), math.log(tiny)
    gradient(chain, theta, X, E, columns, B, sign, size, unsure, slack, least, found, exponent, doubt)
    for j in range(doubt.size):
        rate, number = step.coupled[j], theta[j]
        if doubt[j] > 0.0:
            doubt[j] = doubt[j] * math.exp(min(exponent[j], LARGEST)) + tiny
        else:
            doubt[j] = lost_decay(rate, number, tiny)
        doubt[j] += u * abs(rate * number)


@allocating_apart
def undecided(chain, step, theta, grad, X, D, columns, B, cursor):
    """Number of coordinates whose sign of `grad`, with coupled decay, is undecided; `cursor` is told which."""
    doubt, count = np.empty(grad.size), 0
    doubts(chain, step, theta, X, D, columns, B, doubt)
    for j in range(grad.size):
        if not is_decided(grad[j], doubt[j]):
            count += 1
            if cursor.size > MARKS:
                cursor[MARKS + j] += 1
    return count


# -------------------------------------------------------------------------- the bound that is cheap


@apart
def entry_bound(chain, layer, k, c, H, start, X, D, here, B, scratch, off, rho, spread, error, floor):
    """As the row's bound in `alarm`, for one entry of a weight gradient, from its own terms.

    `floor` is at least what the floor of the row's unit is, in which `gradient` holds its derivatives.
    """
    top, hidden = layer == chain.table.shape[0] - 1, layer > 1
    inputs, place = (X, here - chain.table[layer, 2] * B) if hidden else (H, start)
    u, found, terms = unit_round_off(X), 0.0, 0
    for i in range(B):
        x, r = abs(inputs[place + c * B + i]), abs(D[here + k * B + i])
        if chain.relu == 1 and ((hidden and x == 0.0) or (not top and not (X[here + k * B + i] > 0.0))):
            continue
        doubt = rho * r if top and not spread else scratch[off + i]
        if (r > 0.0 or doubt > 0.0) and (x > 0.0 or error > 0.0):
            found += (doubt + floor) * (x + error) + r * ((B + 4.0) * u * x + error)
            terms += 1
    return found + u * floor + smallest_normal(X) if terms > 0 else 0.0


@apart
def dead(chain, layer, k, c, X, here, B):
    """Whether an entry of a weight gradient sums nothing but zeros, for units that are dead beyond doubt."""
    depth = chain.table.shape[0] - 1
    if chain.relu == 0 or depth == 1:
        return False
    unit, below = here + k * B, here - (chain.table[layer, 2] - c) * B
    return not meet(X, unit if layer < depth else below, below if layer > 1 else unit, B)


@apart
def all_dead(X, start, stop, B):
    """Whether all units of a layer are dead in one sample, whose first stands at start."""
    alive = 0
    for j in range(start, stop, B):
        alive += X[j] > 0.0
    return alive == 0


@apart
def any_live_below(chain, layer, grad, bound, least, X, here, B):
    """Whether any entry of a weight gradient is smaller than the bound, or if it is dead than the least."""
    weights, rows, inner = chain.table[layer, 0], chain.table[layer, 1], chain.table[layer, 2]
    for k in range(rows):
        row = weights + k * inner
        if any_below(grad, row, row + inner, bound):
            for c in range(inner):
                size = abs(grad[row + c])
                if size < least or (size < bound and not dead(chain, layer, k, c, X, here, B)):
                    return True
    return False


@apart
def beside_probability(chain, scale):
    """Bound of r, what a residual subtracts from a probability, for any entry."""
    kind, more, vanished = chain.parameters[2], 0.0, vanished_probability(chain.parameters)
    if kind == SMOOTHED:
        more = 2.0 * scale * chain.parameters[0] + vanished
    elif kind == SQUARED:
        more = np.float64(scale)
    elif kind == SOFT:
        for k in range(chain.targets.shape[0]):
            for i in range(chain.targets.shape[1]):
                more = max(more, 2.0 * scale * abs(chain.targets[k, i]) + vanished)
    return more


@apart
def beyond_doubt(chain, coupled, grad, X, D, B, scratch, rho, slack, more, spread, b):
    """Whether one bound for all entries of a block shows every sign to be decided, as at nearly every step it does.

    What `alarm` knows of each row and column is replaced by the sum over all of them.
    """
    table, trained, tiny = chain.table, chain.trained, smallest_normal(D)
    depth, u = table.shape[0] - 1, unit_round_off(D)
    here, off = logits_offset(chain, B), 0.0  # off: of dD in any column
    for layer in range(depth, 0, -1):
        weights, rows, inner = table[layer, 0], table[layer, 1], table[layer, 2]
        w, x, error = scratch[3 * layer], scratch[3 * layer + 1], scratch[3 * layer + 2]
        r = total(D, here, here + rows * B)
        if not r * max(1.0, max(w, x)) < largest_finite(D):  # a gradient may overflow
            return False
        doubt = B * off
        if layer == depth:
            doubt = rho * (r + B * more)
            if chain.bias >= 0 and trained[depth + 1] == 1:
                bound = 2.0 * (doubt + (B + 4.0) * u * r + u * coupled[chain.bias] * b + tiny)
                if any_below(grad, chain.bias, chain.bias + rows, bound):
                    return False
        if trained[layer] == 1:
            bound = doubt * (x + error) + r * ((B + 4.0) * u * x + error) + u * coupled[weights] * w + tiny
            least = 2.0 * tiny if coupled[weights] > 0.0 else 0.0  # of what is dead the decay may underflow
            if any_live_below(chain, layer, grad, 2.0 * bound, least, X, here, B):
                return False
        if layer <= chain.lowest:
            return True
        entries = rows * off
        if layer == depth:
            entries = rho * (r + more) * (rows if spread else 1)
        off = w * (entries + ((rows + 4.0) * u + slack) * r) + tiny
        here -= inner * B
    place = table[0, 0]
    bound = 2.0 * (off + u * coupled[place] * scratch[4])
    return not any_below(grad, place, place + table[0, 1] * table[0, 2], bound)


def alarm(chain, step, theta, grad, H, start, X, D, columns, B, room, cursor):
    """Watch that compiles fast: `SUSPECTED` where a sign may be undecided, 0 only where `undecided` would find none.

    From `off` on the scratch holds a bound of dD by columns. Maxima of |W| and |X| are raised by `edge`, for what
    underflows in the units of `gradient`.
    """
    scratch, before = room
    table, trained, coupled = chain.table, chain.trained, step.coupled
    depth, K, N = table.shape[0] - 1, table[-1, 1], table[0, 2]
    u, tiny, most, floor = unit_round_off(X), smallest_normal(X), largest_finite(X), REACH * floor_of_units(X)
    edge = 4.0 * u * floor
    # maxima of |W| and |X| by layer, and the error of its inputs
    below, here, error, logit, b = ZERO, table[0, 1] * B, 0.0, 0.0, 0.0
    for layer in range(1, depth + 1):
        weights, rows, inner = table[layer, 0], table[layer, 1], table[layer, 2]
        w = largest(theta, weights, weights + rows * inner) + edge
        x = (largest(X, below, here) if layer > 1 else largest(H, start, start + inner * B)) + edge
        scratch[3 * layer], scratch[3 * layer + 1], scratch[3 * layer + 2] = w, x, error
        error = inner * w * (error + (inner + 2.0) * u * x) + tiny
        logit = inner * w * x
        if chain.relu == 1 and layer < depth:
            if layer > 1:
                product(theta, weights, 0, X, below, 0, before, 0, rows, inner, B)
            else:
                product(theta, weights, 0, H, start, 0, before, 0, rows, inner, B)
            for j in range(rows * B):
                if abs(before[j]) <= 2.0 * error and not (
                    layer > 1 and before[j] == 0.0 and all_dead(X, below + j % B, here, B)
                ):
                    return SUSPECTED
        if not REACH * (rows + B) * max(max(w, x), error) < most:  # a bound of `gradient` may overflow
            return SUSPECTED
        below, here = here, here + rows * B
    if chain.bias >= 0:
        b = largest(theta, chain.bias, chain.bias + K)
        logit += b
        error += 2.0 * u * (b + logit)
    slack = slack_of(u, K, logit)
    rho = 2.0 * error + slack
    here = logits_offset(chain, B)
    at = 3 * (depth + 1)
    column, off = at, at + B
    # for other losses than cross-entropy with one-hot targets an entry's doubt is spread over its column
    kind, scale = chain.parameters[2], scale_of(chain, theta, B)
    spread = kind != ONE_HOT
    if not rho < (np.inf if kind == SQUARED else LINEAR):
        return SUSPECTED
    more = beside_probability(chain, scale)
    if beyond_doubt(chain, coupled, grad, X, D, B, scratch, rho, slack, more, spread, b):
        return 0
    if not largest(grad, ZERO, grad.size) < np.inf or any_lost_decay(coupled, theta, grad, tiny):
        return SUSPECTED
    for layer in range(depth, 0, -1):
        weights, rows, inner = table[layer, 0], table[layer, 1], table[layer, 2]
        w, x, error = scratch[3 * layer], scratch[3 * layer + 1], scratch[3 * layer + 2]
        decay = 2.0 * u * coupled[weights] * w if trained[layer] == 1 else 0.0
        top = layer == depth
        if not top or spread or layer > chain.lowest:
            for i in range(B):
                scratch[column + i] = 0.0
            for k in range(rows):
                add_magnitudes(D, here + k * B, scratch, column, B)
        if top:
            for i in range(B):
                scratch[off + i] = rho * (scratch[column + i] + more) if spread else 0.0
        spread_total = 0.0 if top and not spread else total(scratch, off, off + B)
        # weights and bias, row by row
        bias = top and chain.bias >= 0 and trained[depth + 1] == 1
        if bias or trained[layer] == 1:
            for k in range(rows):
                r = total(D, here + k * B, here + (k + 1) * B)
                doubt = rho * r if top and not spread else spread_total
                if bias:
                    j = chain.bias + k
                    bound = 2.0 * (doubt + (B + 4.0) * u * r + u * abs(coupled[j] * theta[j]) + tiny)
                    if abs(grad[j]) < bound:
                        return SUSPECTED
                if trained[layer] == 0:
                    continue
                bound = 2.0 * (doubt * (x + error) + r * ((B + 4.0) * u * x + error) + tiny)
                j = weights + k * inner
                if not any_below(grad, j, j + inner, bound + decay):
                    continue
                for c in range(inner):
                    if abs(grad[j + c]) < bound + decay and not dead(chain, layer, k, c, X, here, B):
                        own = entry_bound(
                            chain, layer, k, c, H, start, X, D, here, B, scratch, off, rho, spread, error,
                            floor * (r + doubt),
                        )  # fmt: skip
                        if abs(grad[j + c]) < 2.0 * (own + u * abs(coupled[j + c] * theta[j + c])):
                            return SUSPECTED
        if layer <= chain.lowest:
            break
        # derivative by the inputs of this layer, column by column
        below = here - inner * B
        for i in range(B):
            if top:
                doubt = rows * scratch[off + i] if spread else rho * scratch[column + i]
            else:
                alive = rows
                if chain.relu == 1:
                    alive = 0
                    for k in range(rows):
                        alive += X[here + k * B + i] > 0.0
                doubt = alive * scratch[off + i]
            scratch[off + i] = w * (doubt + ((rows + 4.0) * u + slack) * scratch[column + i])
            if doubt > 0.0 or scratch[column + i] > 0.0:
                scratch[off + i] += tiny
        if layer == 1:
            place = table[0, 0]
            decay = 2.0 * u * coupled[place] * x
            for i in range(B):
                scratch[off + i] *= 2.0
            for c in range(inner):
                found = False
                if B == N:
                    found = any_below_each(grad, place + c * N, scratch, off, B, decay)
                else:
                    for i in range(B):
                        found = found or abs(grad[place + c * N + columns[i]]) < scratch[off + i] + decay
                if not found:
                    continue
                for i in range(B):
                    j = place + c * N + (i if B == N else columns[i])
                    if abs(grad[j]) < scratch[off + i] + 2.0 * u * abs(coupled[j] * theta[j]):
                        return SUSPECTED
        here = below
    return 0


@inline
def extremes(x, at, count, stride):
    """Largest and smallest |x| of `count` entries, of which WIDTH lanes stand from `at` on."""
    every, most, least = first(WIDTH), zeros(), zeros() + np.inf
    for j in range(at, at + count * stride, stride):
        number = load(x, j, every)
        size = larger(number, 0.0 - number)
        most, least = larger(most, size), where(below(size, least), size, least)
    return most, least


@inline
def sums(x, at, rows, cols, stride):
    """Sum of |x| over a matrix, and the largest over one of its columns, of WIDTH lanes."""
    every, whole, most = first(WIDTH), zeros(), zeros()
    for i in range(cols):
        column = zeros()
        for k in range(rows):
            number = load(x, at + (k * cols + i) * stride, every)
            column = column + larger(number, 0.0 - number)
        whole, most = whole + column, larger(most, column)
    return whole, most


@inline
def doubtful_lanes(chain, coupled, theta, grad, H, start, X, D, B, lines, lane):
    """1 in each of the WIDTH lanes from `lane` on of which a sign may be undecided, else 0: as `beyond_doubt`.

    Rows of `lines`, one number for each lane, hold maxima of |W| and |X| by layer and the error of its inputs.
    """
    table, trained, lanes, every = chain.table, chain.trained, chain.lanes, first(WIDTH)
    depth, K = table.shape[0] - 1, table[-1, 1]
    u, tiny = unit_round_off(X), smallest_normal(X)
    most, edge = largest_finite(X), 4.0 * u * REACH * floor_of_units(X)
    here, error, logit, b, found = table[0, 1] * B * lanes, zeros(), zeros(), zeros(), zeros()
    for layer in range(1, depth + 1):
        rows, inner, row = table[layer, 1], table[layer, 2], 3 * layer * lanes + lane
        w, _ = extremes(theta, table[layer, 0] + lane, rows * inner, lanes)
        if layer > 1:
            x, _ = extremes(X, here - inner * B * lanes + lane, inner * B, lanes)
        else:
            x, _ = extremes(H, start + lane, inner * B, lanes)
        w, x = w + edge, x + edge
        store(lines, row, every, w)
        store(lines, row + lanes, every, x)
        store(lines, row + 2 * lanes, every, error)
        error = inner * w * (error + (inner + 2.0) * u * x) + tiny
        logit = inner * w * x
        found = where(below(REACH * (rows + B) * larger(larger(w, x), error), most), found, 1.0)
        here += rows * B * lanes
    if chain.bias >= 0:
        b, _ = extremes(theta, chain.bias + lane, K, lanes)
        logit = logit + b
        error = error + 2.0 * u * (b + logit)
    slack = slack_of(u, K, logit)
    rho = 2.0 * error + slack
    kind, scale = chain.parameters[2], scale_of(chain, theta, B)
    more, spread = beside_probability(chain, scale), kind != ONE_HOT
    found = where(below(rho, np.inf if kind == SQUARED else LINEAR), found, 1.0)
    here, off = logits_offset(chain, B) + lane, zeros()  # off: of dD in any column
    for layer in range(depth, 0, -1):
        weights, rows, inner = table[layer, 0], table[layer, 1], table[layer, 2]
        row = 3 * layer * lanes + lane
        w, x = load(lines, row, every), load(lines, row + lanes, every)
        error = load(lines, row + 2 * lanes, every)
        r, column = sums(D, here, rows, B, lanes)
        found = where(below(r * larger(1.0, larger(w, x)), most), found, 1.0)
        doubt = B * off
        if layer == depth:
            doubt = rho * (r + B * more)
            if chain.bias >= 0 and trained[depth + 1] == 1:
                bound = doubt + (B + 4.0) * u * r + u * load(coupled, chain.bias + lane, every) * b + tiny
                _, least = extremes(grad, chain.bias + lane, rows, lanes)
                found = where(below(2.0 * bound, least), found, 1.0)
        if trained[layer] == 1:
            bound = doubt * (x + error) + r * ((B + 4.0) * u * x + error)
            bound = bound + u * load(coupled, weights + lane, every) * w + tiny
            _, least = extremes(grad, weights + lane, rows * inner, lanes)
            found = where(below(2.0 * bound, least), found, 1.0)
        if layer <= chain.lowest:
            return found
        entries = rows * off
        if layer == depth:
            entries = rho * (column + more) * (rows if spread else 1)
        off = w * (entries + ((rows + 4.0) * u + slack) * column) + tiny
        here -= inner * B * lanes
    place = table[0, 0] + lane
    bound = off + u * load(coupled, place, every) * load(lines, 4 * lanes + lane, every)
    _, least = extremes(grad, place, table[0, 1] * table[0, 2], lanes)
    return where(below(2.0 * bound, least), found, 1.0)


def alarm_of_lanes(chain, step, theta, grad, H, start, X, D, columns, B, room, cursor):
    """Watch of an ensemble of chains without ReLU: `SUSPECTED` where a sign of a lane may be undecided.

    The first row of the scratch says of each lane whether it is so, in which no other lane has a part.
    """
    lines, found = room.lines, 0
    for lane in range(0, chain.lanes, WIDTH):
        doubtful = doubtful_lanes(chain, step.coupled, theta, grad, H, start, X, D, B, lines, lane)
        store(lines, lane, first(WIDTH), doubtful)
    for lane in range(chain.lanes):
        found += lines[lane] > 0.0
    return SUSPECTED if found > 0 else 0


def nothing(chain, step, theta, grad, H, start, X, D, columns, B, room, cursor):
    """Watch of the methods that do not take signs."""
    return 0


@allocates
def count(chain, step, theta, grad, H, start, X, D, columns, B, room, cursor):
    """Watch that counts the undecided signs of a step; the inputs of the first layer are copied to X."""
    for j in range(chain.table[0, 1] * B):
        X[j] = H[start + j]
    return undecided(chain, step, theta, grad, X, D, columns, B, cursor)
