"""Powers and products of 2 x 2 matrices in double-double arithmetic: how `ufm.theory.row_sum` is evaluated.

One code for all regimes and schedules: entries are pairs of float64 with a binary exponent carried beside them,
so that nothing under- or overflows, and no branch decides between real, complex and double roots.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ufm.errors import invalid
from ufm.theory._double_double import DoubleDouble

LARGEST = 1e100  # rates beyond this would overflow the error-free products
Entries = Callable[[Any, Any, Any, Any, bool], Any]  # (lr, beta, coupled, decoupled, nesterov) -> ((,), (,))


def scaled(mantissa: np.ndarray, exponent: np.ndarray) -> Any:
    """mantissa 2^exponent, inf or 0 beyond the range of float64."""
    with np.errstate(over="ignore"):
        return np.ldexp(mantissa, np.clip(exponent, -5000, 5000))[()]


def nonnegative(where: str, value: Any, largest: float = LARGEST) -> np.ndarray:
    """The value as a float64 array, if it holds finite numbers in [0, largest] alone."""
    allowed = "finite numbers >= 0" if largest == np.inf else f"finite numbers in [0, {largest:g}]"
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise invalid(where, value, allowed) from None
    if not np.all(np.isfinite(array) & (array >= 0) & (array <= largest)):
        raise invalid(where, value, allowed)
    return array


def steps_of(where: str, t: Any) -> np.ndarray:
    """Numbers of steps as int64."""
    allowed = "whole numbers in [0, 2^53]"
    try:
        array = np.asarray(t, dtype=np.float64)
    except (TypeError, ValueError):
        raise invalid(where, t, allowed) from None
    if not np.all((array >= 0) & (array <= 2**53) & (array == np.floor(array))):
        raise invalid(where, t, allowed)
    return array.astype(np.int64)


def momentum_of(where: str, beta: Any) -> np.ndarray:
    """Momenta in [0, 1) as float64."""
    array = nonnegative(where, beta, np.inf)
    if not np.all(array < 1):
        raise invalid(where, beta, "numbers in [0, 1)")
    return array


def rates_of(schedule: Any, largest_t: int) -> np.ndarray:
    """A schedule that is long enough for the largest t."""
    rates = nonnegative("growth.schedule", schedule)
    if rates.ndim != 1:
        raise invalid("growth.schedule.shape", rates.shape, "(steps,), one rate per step")
    if len(rates) < largest_t:
        raise invalid("len(growth.schedule)", len(rates), f"at least the largest t, {largest_t}")
    return rates


def evaluate(
    entries: Entries, t: Any, lr: Any, beta: Any, coupled: Any, decoupled: Any, nesterov: bool, schedule: Any
) -> tuple[DoubleDouble, np.ndarray]:
    """g_t as mantissa times 2^exponent, both of the broadcast shape; `entries` gives the one-step matrix."""
    t = steps_of("growth.t", t)
    beta = momentum_of("growth.beta", beta)
    coupled, decoupled = nonnegative("growth.coupled", coupled), nonnegative("growth.decoupled", decoupled)
    if schedule is None:
        if lr is None:
            raise invalid("growth.lr", lr, "a learning rate, or a schedule")
        lr, beta, coupled, decoupled = np.broadcast_arrays(
            nonnegative("growth.lr", lr), beta, coupled, decoupled
        )
        segments, starts, counts = lr.reshape(-1, 1), np.zeros(1, np.int64), np.full(1, 2**62)
    else:
        rates = rates_of(schedule, int(t.max(initial=0)))[: int(t.max(initial=0))]
        if len(rates) == 0:
            rates = np.zeros(1)
        starts = np.flatnonzero(np.concatenate([[True], np.diff(rates) != 0])).astype(np.int64)
        counts = np.diff(np.append(starts, len(rates)))
        segments = rates[starts][None, :]
        beta, coupled, decoupled = np.broadcast_arrays(beta, coupled, decoupled)
    owner, t = np.broadcast_arrays(np.arange(beta.size).reshape(beta.shape), t)
    parameters = np.stack([beta.ravel(), coupled.ravel(), decoupled.ravel()])
    high, low, exponent = np.empty(t.size), np.empty(t.size), np.empty(t.size, np.int64)
    flat_owner, flat_t = owner.ravel(), t.ravel()
    pieces = segments.shape[1]
    at_once = max(1, (4096 if pieces == 1 else 10**6) // pieces)  # parameter sets per pass: bounds the memory
    for first in range(0, beta.size, at_once):
        part = slice(first, first + at_once)
        all_mine = np.flatnonzero((flat_owner >= first) & (flat_owner < first + at_once))
        # at a constant rate passes that fit the cache are several times faster; a schedule is multiplied once
        for mine in np.array_split(all_mine, max(1, len(all_mine) // 4096) if pieces == 1 else 1):
            rate = segments[part] if schedule is None else segments
            found, e = _growth_of_segments(
                entries, flat_t[mine], flat_owner[mine] - first, rate, parameters[:, part], starts, counts, nesterov
            )  # fmt: skip
            high[mine], low[mine], exponent[mine] = found.high, found.low, e
    return DoubleDouble(high.reshape(t.shape), low.reshape(t.shape)), exponent.reshape(t.shape)


def _growth_of_segments(
    entries: Entries,
    t: np.ndarray,
    owner: np.ndarray,
    rates: np.ndarray,
    parameters: np.ndarray,
    starts: np.ndarray,
    counts: np.ndarray,
    nesterov: bool,
) -> tuple[DoubleDouble, np.ndarray]:
    """(1,1) entries of the product of matrix powers, for steps t of parameter sets `owner`, shape (n,)."""
    beta, coupled, decoupled = parameters[:, :, None]
    beta = np.where(coupled == 0, 0.0, beta)  # then q = 0 for ever (theorem 3.1), and M22^t cannot hide M11^t
    unit = 2.0 ** np.round(np.log2(np.maximum(rates.max(axis=1, keepdims=True), 1 / LARGEST)))
    exact = DoubleDouble.of
    (m11, m12), (m21, m22) = entries(exact(rates), exact(beta), exact(coupled), exact(decoupled), nesterov)
    # q in units of 1/rate: a similarity by an exact power of two that makes the entries comparable
    scaled_entries = [m11, m12 * (1 / unit), m21 * unit, m22]
    shape = np.broadcast_shapes(beta.shape, rates.shape)
    step = DoubleDouble(
        *(
            np.stack([np.broadcast_to(getattr(entry, half), shape) for entry in scaled_entries]).reshape(
                2, 2, *shape
            )
            for half in ("high", "low")
        )
    )
    sets, pieces = shape
    last = np.maximum(np.searchsorted(starts, t, side="right") - 1, 0)
    flat = DoubleDouble(step.high.reshape(2, 2, -1), step.low.reshape(2, 2, -1))
    tail, e = _power(flat, owner * pieces + last, t - starts[last])
    if pieces == 1:
        return tail[0, 0], e
    whole, whole_e = _power(flat, np.arange(sets * pieces), np.tile(counts, sets))
    grid = DoubleDouble(whole.high.reshape(2, 2, sets, pieces), whole.low.reshape(2, 2, sets, pieces))
    before, before_e = _products_before(grid, whole_e.reshape(sets, pieces), owner, last)
    total, total_e = _normalised(_multiply(tail, before), e + before_e)
    return total[0, 0], total_e


def _multiply(x: DoubleDouble, y: DoubleDouble) -> DoubleDouble:
    """Matrix product over the two leading axes, shape (2, 2, ...)."""
    terms = x[:, :, None] * y[None, :, :]
    return terms[:, 0] + terms[:, 1]


def _normalised(x: DoubleDouble, exponent: np.ndarray) -> tuple[DoubleDouble, np.ndarray]:
    """Move the binary exponent of the largest entry into `exponent`."""
    shift = np.frexp(np.abs(x.high).max(axis=(0, 1)))[1]
    return x.scaled(-shift), exponent + shift


def _identity(shape: tuple[int, ...]) -> DoubleDouble:
    one = np.zeros((2, 2, *shape))
    one[0, 0] = one[1, 1] = 1.0
    return DoubleDouble(one, np.zeros_like(one))


def _power(base: DoubleDouble, which: np.ndarray, count: np.ndarray) -> tuple[DoubleDouble, np.ndarray]:
    """base[..., which]**count by repeated squaring, with the exponents carried beside it; count >= 0."""
    base, base_e = _normalised(base, np.zeros(base.high.shape[2:], np.int64))
    result, result_e = _identity(which.shape), np.zeros(which.shape, np.int64)
    count = count.copy()
    while True:
        odd = np.flatnonzero(count & 1)
        if odd.size:
            factor = base[:, :, which[odd]]
            product, e = _normalised(_multiply(factor, result[:, :, odd]), base_e[which[odd]] + result_e[odd])
            result.high[:, :, odd], result.low[:, :, odd], result_e[odd] = product.high, product.low, e
        count >>= 1
        if not count.any():
            return result, result_e
        base, base_e = _normalised(_multiply(base, base), 2 * base_e)


def _products_before(
    pieces: DoubleDouble, exponent: np.ndarray, owner: np.ndarray, index: np.ndarray
) -> tuple[DoubleDouble, np.ndarray]:
    """Product of the pieces 0 ... index - 1 (later ones on the left) of each owner, shape (2, 2, n).

    Pieces are cut into about sqrt(S) blocks whose inner products are formed side by side: 2 sqrt(S)
    sequential products instead of S.
    """
    sets, count = exponent.shape
    width = int(np.ceil(np.sqrt(count)))
    blocks = -(-count // width)
    one = _identity((sets, blocks * width))
    one.high[..., :count], one.low[..., :count] = pieces.high, pieces.low
    e = np.zeros((sets, blocks * width), np.int64)
    e[:, :count] = exponent
    shape = (2, 2, sets, blocks, width)
    inner, inner_e = DoubleDouble(one.high.reshape(shape), one.low.reshape(shape)), e.reshape(shape[2:])
    for j in range(1, width):
        product, product_e = _normalised(
            _multiply(inner[..., j], inner[..., j - 1]), inner_e[..., j] + inner_e[..., j - 1]
        )
        inner.high[..., j], inner.low[..., j], inner_e[..., j] = product.high, product.low, product_e
    outer, outer_e = _identity((sets, blocks + 1)), np.zeros((sets, blocks + 1), np.int64)
    for b in range(blocks):
        product, product_e = _normalised(
            _multiply(inner[..., b, width - 1], outer[..., b]), inner_e[:, b, width - 1] + outer_e[:, b]
        )
        outer.high[..., b + 1], outer.low[..., b + 1], outer_e[:, b + 1] = (
            product.high,
            product.low,
            product_e,
        )
    block, within = np.divmod(index, width)
    head = _identity(index.shape)
    head_e = np.zeros(index.shape, np.int64)
    partial = np.flatnonzero(within)  # an index at a block boundary needs no inner product
    at = (owner[partial], block[partial], within[partial] - 1)
    chosen = inner[:, :, *at]
    head.high[:, :, partial], head.low[:, :, partial], head_e[partial] = chosen.high, chosen.low, inner_e[at]
    return _normalised(_multiply(head, outer[:, :, owner, block]), head_e + outer_e[owner, block])


# ------------------------------------------------- what one step's error adds up to over the steps to come


def sums_of_powers(M: np.ndarray, inject: np.ndarray, longest: int) -> np.ndarray:
    """Three sums for t = 0 ... longest at one matrix M and one vector `inject`, shape (3, longest + 1).

    sum_{s <= t} |(M^s)_11|, then sum_{s < t} |(M^s inject)_1| and the same of squares.
    """
    width = int(np.ceil(np.sqrt(longest + 1)))
    columns = np.empty((2, 2, width))
    start = np.array([[1.0, inject[0]], [0.0, inject[1]]])
    for j in range(width):
        columns[:, :, j] = start
        start = M @ start
    jump = np.linalg.matrix_power(M, width)
    rows = np.empty((width, 2))
    row = np.array([1.0, 0.0])
    for i in range(width):
        rows[i] = row
        row = row @ jump
    carried, injected = (np.abs(rows @ columns[:, c]).ravel()[: longest + 1] for c in (0, 1))
    earlier = np.concatenate([[0.0], injected[:-1]])
    return np.cumsum(np.stack([carried, earlier, earlier**2]), axis=1)


def sums_of_products(M: np.ndarray, inject: np.ndarray, t: np.ndarray) -> np.ndarray:
    """The sums of `sums_of_powers` where every step has its own matrix and vector, shape (3, records).

    sum_{s <= t} |Phi(t, s)_11|, then sum_{s < t} |(Phi(t, s + 1) inject_s)_1| and the same of squares, with
    Phi(t, s) = M_{t-1} ... M_s, at the records t; shapes (steps, 2, 2) and (steps, 2). Steps are cut into
    blocks; the part of a sum inside the record's own block is stepped backwards for all records at once, the
    other blocks are one matrix product each.
    """
    count = len(M)
    width = int(np.ceil(np.sqrt(count)))
    blocks = -(-count // width)
    padded = np.broadcast_to(np.eye(2), (blocks * width, 2, 2)).copy()
    padded[:count] = M
    given = np.zeros((blocks * width, 2))
    given[:count] = inject
    grid, vectors = padded.reshape(blocks, width, 2, 2), given.reshape(blocks, width, 2)
    # columns[b, j, 0] = first column of the product of block b from its step j to its end
    # columns[b, j, 1] = what is injected at step j, carried to the end of the block
    columns = np.empty((blocks, width, 2, 2))
    product = np.broadcast_to(np.eye(2), (blocks, 2, 2))
    for j in reversed(range(width)):
        columns[:, j, 1] = np.einsum("bij,bj->bi", product, vectors[:, j])
        product = product @ grid[:, j]
        columns[:, j, 0] = product[:, :, 0]
    own = t // width  # the block that a record stands in; its steps before the record come first
    row = np.zeros((len(t), 2))
    row[:, 0] = 1.0
    total = np.zeros((3, len(t)))
    total[0] = 1.0  # s = t: nothing has happened since

    def add(which: np.ndarray, carried: np.ndarray, injected: np.ndarray) -> None:
        for k, value in enumerate((np.abs(carried), np.abs(injected), injected**2)):
            total[k, which] += value.reshape(len(which), -1).sum(axis=1)

    for back in range(1, width):
        active = np.flatnonzero(t % width >= back)
        if active.size:
            step = t[active] - back
            injected = np.einsum("ri,ri->r", row[active], given[step])
            row[active] = np.einsum("ri,rij->rj", row[active], padded[step])
            add(active, row[active, 0], injected)
    for b in reversed(range(blocks)):
        later = np.flatnonzero(own > b)
        if later.size:
            add(later, row[later] @ columns[b, :, 0].T, row[later] @ columns[b, :, 1].T)
            row[later] = row[later] @ product[b]
    return total
