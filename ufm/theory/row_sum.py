r"""The row sum of the last layer under the SGD family: one linear recursion, in closed form.

Notation (Zhao et al., arXiv 2602.16642v3): W is K x p, m = W^T 1 its row sum, q = V^T 1 the row sum of the
momentum buffer V, eta = ``lr`` the learning rate, lam_c and lam_d the coupled and decoupled decay rates,
alpha = ||m||^2/K the NC0 of this package. A loss that does not change when a constant is added to all logits
of a sample has 1^T grad_W = 0 (lemma E.5), so that m sees momentum and decay only. With V_0 = 0 and the
decoupled shrink applied before the step,

    q' = beta q + lam_c m,    m' = (1 - eta lam_d) m - eta q'                     (heavy ball)
                              m' = (1 - eta lam_d) m - eta (lam_c m + beta q')    (Nesterov, as in PyTorch)

hence m_t = g_t m_0 and alpha_t = g_t^2 alpha_0 for every data set, depth, batch order and loss value. The
paper's lam is a rate on the whole matrix, lam/2 ||W||_F^2, as here.

Two forms stand beside each other. `growth_closed_form` is what is proved (``python -m proofs_check``):
generic in its number type. `growth` and `log_growth` are what is evaluated: powers of the 2 x 2 matrix in
double-double arithmetic with a carried exponent, one code for all regimes and schedules; tests hold them
against the closed form at 60 digits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ufm.claims import Claim, Prediction, Source
from ufm.double_double import DoubleDouble
from ufm.errors import invalid

if TYPE_CHECKING:
    from ufm.run import Run

PAPER = "Zhao, Cheng, Masarczyk, Lucchi, arXiv 2602.16642v3"
LARGEST = 1e100  # rates beyond this would overflow the error-free products
# relative error in the decay that a control carries: what a run of that precision must still see
PERTURBATION = {"float64": 1e-6, "float32": 1e-2}


# ------------------------------------------------------------------ formulas, generic in their number type


def recursion_entries(lr: Any, beta: Any, coupled: Any, decoupled: Any, nesterov: bool) -> Any:
    """Entries ((M11, M12), (M21, M22)) of the one-step matrix on (m, q), for any number type."""
    if nesterov:
        return (1 - lr * decoupled - lr * coupled * (1 + beta), -(lr * beta * beta)), (coupled, beta)
    return (1 - lr * (decoupled + coupled), -(lr * beta)), (coupled, beta)


def recursion_matrix(
    lr: Any, beta: Any = 0.0, coupled: Any = 0.0, decoupled: Any = 0.0, nesterov: bool = False, xp: Any = np
) -> Any:
    """One step of the row-sum recursion as a matrix on (m, q).

    Parameters
    ----------
    lr, beta, coupled, decoupled : array_like, shape (...)
        Learning rate, momentum, coupled and decoupled decay rate of the last layer.
    nesterov : bool
        Look-ahead form.
    xp : module
        ``numpy`` or ``sympy``.

    Returns
    -------
    ndarray, shape (..., 2, 2), or sympy.Matrix

    Examples
    --------
    >>> recursion_matrix(0.5, 0.5, coupled=0.25)
    array([[ 0.875, -0.25 ],
           [ 0.25 ,  0.5  ]])
    """
    rows = recursion_entries(lr, beta, coupled, decoupled, nesterov)
    if xp is not np:
        return xp.Matrix(rows)
    entries = np.broadcast_arrays(*rows[0], *rows[1])
    return np.stack(entries, axis=-1).reshape(*entries[0].shape, 2, 2)


def trace_determinant(
    lr: Any, beta: Any = 0.0, coupled: Any = 0.0, decoupled: Any = 0.0, nesterov: bool = False
) -> tuple[Any, Any]:
    """Trace and determinant of `recursion_matrix`, simplified; for any number type.

    Heavy ball: tr = 1 + beta - eta (lam_d + lam_c), D = beta (1 - eta lam_d). Nesterov:
    tr = 1 + beta - eta lam_d - eta lam_c (1 + beta), D = beta (1 - eta lam_d - eta lam_c).
    """
    if nesterov:
        tr = 1 + beta - lr * decoupled - lr * coupled * (1 + beta)
        return tr, beta * (1 - lr * decoupled - lr * coupled)
    return 1 + beta - lr * (decoupled + coupled), beta * (1 - lr * decoupled)


def roots(tr: Any, D: Any, xp: Any = np) -> tuple[Any, Any]:
    """Roots r_+, r_- of r^2 - tr r + D; complex where the discriminant is negative."""
    discriminant = tr * tr - 4 * D
    s = xp.sqrt(discriminant + 0j) if xp is np else xp.sqrt(discriminant)
    return (tr + s) / 2, (tr - s) / 2


def growth_from_roots(t: Any, r_plus: Any, r_minus: Any, beta: Any) -> Any:
    """g_t = p_t - beta p_{t-1} with p_t = (r_+^{t+1} - r_-^{t+1})/(r_+ - r_-), for distinct roots."""
    p_now = (r_plus ** (t + 1) - r_minus ** (t + 1)) / (r_plus - r_minus)
    p_before = (r_plus**t - r_minus**t) / (r_plus - r_minus)
    return p_now - beta * p_before


def growth_from_double_root(t: Any, r: Any, beta: Any) -> Any:
    """g_t = p_t - beta p_{t-1} with p_t = (t + 1) r^t, at a double root r != 0."""
    return (t + 1) * r**t - beta * t * r ** (t - 1)


def growth_closed_form(
    t: Any,
    lr: Any,
    beta: Any = 0.0,
    coupled: Any = 0.0,
    decoupled: Any = 0.0,
    nesterov: bool = False,
    xp: Any = np,
) -> Any:
    """g_t through the roots, as it is proved; `growth` is the stable evaluator.

    Loses digits beside the double root (4e-8 relative at t = 1e5) and is 0/0 at it; there
    `growth_double_root` holds.

    Parameters
    ----------
    t : array_like, shape (...)
        Number of steps.
    lr, beta, coupled, decoupled, nesterov
        As in `recursion_matrix`.
    xp : module
        ``numpy`` (real part returned), ``sympy`` or ``mpmath``.

    Examples
    --------
    >>> float(growth_closed_form(2, 0.5, decoupled=0.5).round(12))
    0.5625
    """
    r_plus, r_minus = roots(*trace_determinant(lr, beta, coupled, decoupled, nesterov), xp=xp)
    g = growth_from_roots(t, r_plus, r_minus, beta)
    return g.real if xp is np else g


def growth_double_root(
    t: Any, lr: Any, beta: Any, coupled: Any = 0.0, decoupled: Any = 0.0, nesterov: bool = False
) -> Any:
    """g_t at the double root r = tr/2 (where tr^2 = 4 D, r != 0), for any number type."""
    tr, _ = trace_determinant(lr, beta, coupled, decoupled, nesterov)
    return growth_from_double_root(t, tr / 2, beta)


def theorem_3_1(t: Any, lr: Any, lam: Any) -> Any:
    """g_t = (1 - eta lam)^t for decoupled decay alone, at every momentum (theorem 3.1)."""
    return (1 - lr * lam) ** t


def theorem_3_2(t: Any, lr: Any, beta: Any, lam: Any, xp: Any = np) -> Any:
    """g_t of heavy ball with coupled decay alone (theorem 3.2), through the roots."""
    return growth_closed_form(t, lr, beta, coupled=lam, xp=xp)


def theorem_3_2_envelope(t: Any, rho: Any) -> Any:
    """Corrected form of theorem 3.2: |g_t| <= rho^t (1 + t (1 + rho)), rho = max |r|, for all roots."""
    return rho**t * (1 + t * (1 + rho))


def slow_rate(lr: Any, lam: Any, beta: Any = 0.0) -> Any:
    """First-order decay of m per step, eta lam/(1 - beta); the slow root is 1 - this + O((eta lam)^2)."""
    return lr * lam / (1 - beta)


def critical_momentum_formula(x: Any, nesterov: bool = False, xp: Any = np) -> Any:
    """Momentum of the double root at x = eta lam, for any number type; see `critical_momentum`."""
    s = xp.sqrt(x)
    return (1 - s) / (1 + s) if nesterov else (1 - s) ** 2


def critical_momentum(lr: Any, lam: Any, nesterov: bool = False) -> Any:
    """Momentum at which NC0 decays fastest; beyond it alpha oscillates through zero and slows down.

    beta* = (1 - sqrt x)^2 for heavy ball, (1 - sqrt x)/(1 + sqrt x) for Nesterov, x = eta lam_c; the spectral
    radius there is |1 - sqrt x|.

    Parameters
    ----------
    lr, lam : array_like, shape (...)
        Learning rate and coupled decay rate, with 0 < lr lam < 4 (heavy ball) or 0 < lr lam <= 1 (Nesterov:
        beyond 1 both roots are real and there is no double root).

    Returns
    -------
    ndarray or float, shape (...)

    Raises
    ------
    InvalidProblemError
        For lr lam outside that range.

    Examples
    --------
    >>> round(float(critical_momentum(0.1, 0.1)), 12)
    0.81
    """
    x = np.asarray(lr, dtype=float) * np.asarray(lam, dtype=float)
    inside = (x > 0) & ((x <= 1) if nesterov else (x < 4))
    if not np.all(inside):
        allowed = "0 < lr*lam <= 1 for Nesterov" if nesterov else "0 < lr*lam < 4"
        raise invalid("critical_momentum.lr*lam", x.tolist(), allowed)
    return critical_momentum_formula(x, nesterov)


def stability_range(beta: Any = 0.0, nesterov: bool = False, decay: str = "coupled") -> Any:
    """Upper end of the open interval of eta lam in which alpha -> 0, one kind of decay alone.

    2 for decoupled decay at every beta (theorem 3.1); 2 (1 + beta) for coupled decay and heavy ball (theorem
    3.2); 2 (1 + beta)/(1 + 2 beta) for Nesterov. The lower end is 0.

    Raises
    ------
    InvalidProblemError
        For a `decay` other than "coupled" or "decoupled".

    Examples
    --------
    >>> stability_range(0.5), stability_range(0.5, nesterov=True), stability_range(0.5, decay="decoupled")
    (3.0, 1.5, 2)
    """
    if decay == "decoupled":
        return 2
    if decay != "coupled":
        raise invalid("stability_range.decay", decay, "'coupled' or 'decoupled'")
    return 2 * (1 + beta) / (1 + 2 * beta) if nesterov else 2 * (1 + beta)


# ------------------------------------------------------------------------------------- the evaluator


def growth(
    t: Any,
    lr: Any = None,
    beta: Any = 0.0,
    coupled: Any = 0.0,
    decoupled: Any = 0.0,
    nesterov: bool = False,
    schedule: Any = None,
    xp: Any = np,
) -> Any:
    """Signed factor g_t of the row sum: m_t = g_t m_0.

    Error at a constant rate: at most eps |g_t| + 2^-92 (1 + kappa t)^2 E_t, eps = 2^-52. E_t is the largest
    entry of the t-step matrix (q in units of m/eta), the amplitude of an oscillation; kappa >= 1 is the
    largest entry of the one-step matrix over its spectral radius. The square is the price of a double root,
    where errors grow like those of a Jordan block. So all digits are right up to about t = 1e6, beside a zero
    crossing relative to E_t. Products of entries below 1e-290 of the largest one are lost; results below the
    smallest float64 are 0, above the largest inf.

    Parameters
    ----------
    t : array_like of int, shape (...)
        Number of steps, broadcast against the other parameters.
    lr : array_like, shape (...)
        Constant learning rate; may be left out if a schedule is given, which overrides it.
    beta, coupled, decoupled : array_like, shape (...)
        Momentum, coupled and decoupled decay rate of the last layer.
    nesterov : bool
        Look-ahead form.
    schedule : array_like, shape (steps,), optional
        Learning rate of each step; the momentum buffer is carried from step to step.
    xp : module
        ``numpy``; any other number module leads to `growth_closed_form`.

    Returns
    -------
    ndarray or float, shape (...)

    Raises
    ------
    InvalidProblemError
        For a momentum outside [0, 1), a negative or non-finite rate, a step that is no whole number >= 0, or
        a schedule shorter than the largest t.

    Examples
    --------
    >>> float(growth(2, 0.5, decoupled=0.5))
    0.5625
    >>> float(growth(2, schedule=[0.5, 0.25], decoupled=0.5))
    0.65625
    """
    if xp is not np:
        if schedule is not None:
            raise invalid("growth.xp", xp, "numpy for a schedule")
        return growth_closed_form(t, lr, beta, coupled, decoupled, nesterov, xp=xp)
    mantissa, exponent = _evaluate(t, lr, beta, coupled, decoupled, nesterov, schedule)
    return _scaled(mantissa.high, exponent)


def log_growth(
    t: Any,
    lr: Any = None,
    beta: Any = 0.0,
    coupled: Any = 0.0,
    decoupled: Any = 0.0,
    nesterov: bool = False,
    schedule: Any = None,
) -> tuple[Any, Any]:
    """Sign and log|g_t|, far beyond the range of float64.

    Parameters are those of `growth`. Error of the logarithm: at most 2 eps |log|g_t|| plus
    2^-92 (1 + kappa t)^2 E_t/|g_t|; see `growth` for kappa and E_t.

    Returns
    -------
    sign, log : ndarray or float, shape (...)
        Sign in {-1, 0, 1}; the logarithm is -inf where g_t = 0.

    Examples
    --------
    >>> sign, log = log_growth(10**7, 0.1, 0.9, coupled=0.01)
    >>> float(sign), round(float(log), 3)
    (1.0, -111891.394)
    """
    mantissa, exponent = _evaluate(t, lr, beta, coupled, decoupled, nesterov, schedule)
    sign = np.sign(mantissa.high)
    shift = np.frexp(mantissa.high)[1]
    mantissa, exponent = mantissa.scaled(-shift), exponent + shift
    near_one = (exponent == 0) | (exponent == 1)  # 1/2 <= |g| < 2
    close = mantissa.scaled(np.where(near_one, exponent, 0))
    with np.errstate(divide="ignore"):
        far = np.log(np.abs(mantissa.high)) + exponent * np.log(2.0)
        # log1p keeps the digits of a factor next to 1, the low half those below eps
        log = np.where(near_one, np.log1p((np.abs(close.high) - 1) + sign * close.low), far)
    return sign[()], log[()]


def nc0(
    t: Any,
    lr: Any = None,
    beta: Any = 0.0,
    coupled: Any = 0.0,
    decoupled: Any = 0.0,
    nesterov: bool = False,
    schedule: Any = None,
    nc0_0: Any = 1.0,
) -> Any:
    """alpha_t = g_t^2 alpha_0, the NC0 after t steps; parameters as in `growth`, `nc0_0` = alpha_0 >= 0.

    Examples
    --------
    >>> float(nc0(1, 0.5, decoupled=1.0, nc0_0=8.0))
    2.0
    """
    mantissa, exponent = _evaluate(t, lr, beta, coupled, decoupled, nesterov, schedule)
    start, unit = np.frexp(_nonnegative("nc0.nc0_0", nc0_0, np.inf))
    return _scaled(mantissa.high**2 * start, 2 * exponent + unit)


def log_nc0(
    t: Any,
    lr: Any = None,
    beta: Any = 0.0,
    coupled: Any = 0.0,
    decoupled: Any = 0.0,
    nesterov: bool = False,
    schedule: Any = None,
    nc0_0: Any = 1.0,
) -> Any:
    """Natural logarithm of `nc0`, also where alpha_t is below the smallest float64; -inf where it is 0.

    Examples
    --------
    >>> round(float(log_nc0(10**6, 0.1, decoupled=0.05)), 3)
    -10025.084
    """
    _, log = log_growth(t, lr, beta, coupled, decoupled, nesterov, schedule)
    with np.errstate(divide="ignore"):
        return 2 * log + np.log(_nonnegative("log_nc0.nc0_0", nc0_0, np.inf))


def _scaled(mantissa: np.ndarray, exponent: np.ndarray) -> Any:
    with np.errstate(over="ignore"):
        return np.ldexp(mantissa, np.clip(exponent, -5000, 5000))[()]


def _nonnegative(where: str, value: Any, largest: float = LARGEST) -> np.ndarray:
    allowed = "finite numbers >= 0" if largest == np.inf else f"finite numbers in [0, {largest:g}]"
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise invalid(where, value, allowed) from None
    if not np.all(np.isfinite(array) & (array >= 0) & (array <= largest)):
        raise invalid(where, value, allowed)
    return array


def _steps(where: str, t: Any) -> np.ndarray:
    allowed = "whole numbers in [0, 2^53]"
    try:
        array = np.asarray(t, dtype=np.float64)
    except (TypeError, ValueError):
        raise invalid(where, t, allowed) from None
    if not np.all((array >= 0) & (array <= 2**53) & (array == np.floor(array))):
        raise invalid(where, t, allowed)
    return array.astype(np.int64)


def _momentum(where: str, beta: Any) -> np.ndarray:
    array = _nonnegative(where, beta, np.inf)
    if not np.all(array < 1):
        raise invalid(where, beta, "numbers in [0, 1)")
    return array


def _rates(schedule: Any, largest_t: int) -> np.ndarray:
    rates = _nonnegative("growth.schedule", schedule)
    if rates.ndim != 1:
        raise invalid("growth.schedule.shape", rates.shape, "(steps,), one rate per step")
    if len(rates) < largest_t:
        raise invalid("len(growth.schedule)", len(rates), f"at least the largest t, {largest_t}")
    return rates


def _evaluate(
    t: Any, lr: Any, beta: Any, coupled: Any, decoupled: Any, nesterov: bool, schedule: Any
) -> tuple[DoubleDouble, np.ndarray]:
    """g_t as mantissa times 2^exponent, both of the broadcast shape."""
    t = _steps("growth.t", t)
    beta = _momentum("growth.beta", beta)
    coupled, decoupled = _nonnegative("growth.coupled", coupled), _nonnegative("growth.decoupled", decoupled)
    if schedule is None:
        if lr is None:
            raise invalid("growth.lr", lr, "a learning rate, or a schedule")
        lr, beta, coupled, decoupled = np.broadcast_arrays(
            _nonnegative("growth.lr", lr), beta, coupled, decoupled
        )
        segments, starts, counts = lr.reshape(-1, 1), np.zeros(1, np.int64), np.full(1, 2**62)
    else:
        rates = _rates(schedule, int(t.max(initial=0)))[: int(t.max(initial=0))]
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
                flat_t[mine], flat_owner[mine] - first, rate, parameters[:, part], starts, counts, nesterov
            )
            high[mine], low[mine], exponent[mine] = found.high, found.low, e
    return DoubleDouble(high.reshape(t.shape), low.reshape(t.shape)), exponent.reshape(t.shape)


def _growth_of_segments(
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
    (m11, m12), (m21, m22) = recursion_entries(
        exact(rates), exact(beta), exact(coupled), exact(decoupled), nesterov
    )
    # q in units of 1/rate: a similarity by an exact power of two that makes the entries comparable
    entries = [m11, m12 * (1 / unit), m21 * unit, m22]
    shape = np.broadcast_shapes(beta.shape, rates.shape)
    step = DoubleDouble(
        *(
            np.stack([np.broadcast_to(getattr(entry, half), shape) for entry in entries]).reshape(
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


# ------------------------------------------------------------------------------ round-off of a simulation


def round_off_bound(
    t: Any,
    lr: Any = None,
    beta: float = 0.0,
    coupled: float = 0.0,
    decoupled: float = 0.0,
    nesterov: bool = False,
    schedule: Any = None,
    *,
    classes: int,
    scale: Any,
    eps: float = 2.0**-52,
    gradient_scale: Any = 0.0,
) -> np.ndarray:
    """How far round-off may carry a simulated row sum from the law, largest entry.

    |m_t - g_t m_0|_inf <= (K/2) eps (max|W| + [eta > 1] eta max|grad W|) sum_{s <= t} |Phi(t, s)_11|, where
    Phi(t, s) is the product of the one-step matrices s ... t - 1 (its entry is g_{t-s} at a constant rate):
    an error of half a unit per entry of W in each step, carried on by the recursion. An error model, not a
    theorem: it takes rounding in the gradient to be below that in W, which at eta > 1 needs the second term.

    Parameters
    ----------
    t : array_like of int, shape (records,)
        Recorded steps.
    lr, beta, coupled, decoupled, nesterov, schedule
        As in `growth`, one parameter set.
    classes : int
        Number K of rows of W.
    scale : array_like, shape () or (records,)
        max|W| up to each record.
    eps : float
        Unit round-off spacing: 2^-52 for float64, 2^-23 for float32.
    gradient_scale : array_like, shape () or (records,)
        max|grad W| up to each record; counts only where a rate exceeds 1.

    Returns
    -------
    ndarray, shape (records,)

    Examples
    --------
    >>> round_off_bound([0, 9], 0.1, classes=4, scale=1.0, eps=2.0**-10).tolist()
    [0.001953125, 0.01953125]
    """
    t = _steps("round_off_bound.t", t)
    _momentum("round_off_bound.beta", beta)
    for name, value in {"coupled": coupled, "decoupled": decoupled}.items():
        _nonnegative(f"round_off_bound.{name}", value)
    if schedule is None and lr is None:
        raise invalid("round_off_bound.lr", lr, "a learning rate, or a schedule")
    longest = int(t.max(initial=0))
    rates = _nonnegative("round_off_bound.lr", lr)[None] if schedule is None else _rates(schedule, longest)
    if len(rates) == 0:
        rates = np.zeros(1)
    matrices = recursion_matrix(rates, beta if coupled else 0.0, coupled, decoupled, nesterov)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        if np.all(rates[:longest] == rates[0]):
            total = _sums_of_powers(matrices[0], longest)[t]
        else:
            total = _sums_of_products(matrices[:longest], t)
        total = np.where(np.isnan(total), np.inf, total)
    fastest = float(rates[: max(longest, 1)].max())
    size = np.asarray(scale, float) + (fastest * np.asarray(gradient_scale, float) if fastest > 1 else 0.0)
    return 0.5 * classes * eps * size * total


def _sums_of_powers(M: np.ndarray, longest: int) -> np.ndarray:
    """sum_{s <= t} |(M^s)_11| for t = 0 ... longest."""
    width = int(np.ceil(np.sqrt(longest + 1)))
    columns = np.empty((2, width))
    column = np.array([1.0, 0.0])
    for j in range(width):
        columns[:, j] = column
        column = M @ column
    jump = np.linalg.matrix_power(M, width)
    rows = np.empty((width, 2))
    row = np.array([1.0, 0.0])
    for i in range(width):
        rows[i] = row
        row = row @ jump
    return np.cumsum(np.abs(rows @ columns).ravel()[: longest + 1])


def _sums_of_products(M: np.ndarray, t: np.ndarray) -> np.ndarray:
    """sum_{s <= t} |(M_{t-1} ... M_s)_11| at each record t; M has shape (steps, 2, 2).

    Steps are cut into blocks; the part of a sum inside the record's own block is stepped backwards for all
    records at once, the other blocks are one matrix product each.
    """
    steps = len(M)
    width = int(np.ceil(np.sqrt(steps)))
    blocks = -(-steps // width)
    padded = np.broadcast_to(np.eye(2), (blocks * width, 2, 2)).copy()
    padded[:steps] = M
    grid = padded.reshape(blocks, width, 2, 2)
    # columns[b, j] = first column of the product of block b from its step j to its end
    columns = np.empty((blocks, width, 2))
    product = np.broadcast_to(np.eye(2), (blocks, 2, 2))
    for j in reversed(range(width)):
        product = product @ grid[:, j]
        columns[:, j] = product[:, :, 0]
    own = t // width  # the block that a record stands in; its steps before the record come first
    row = np.zeros((len(t), 2))
    row[:, 0] = 1.0
    total = np.ones(len(t))  # s = t: nothing has happened since
    for back in range(1, width):
        active = np.flatnonzero(t % width >= back)
        if active.size:
            row[active] = np.einsum("ri,rij->rj", row[active], padded[t[active] - back])
            total[active] += np.abs(row[active, 0])
    for b in reversed(range(blocks)):
        later = np.flatnonzero(own > b)
        if later.size:
            total[later] += np.abs(row[later] @ columns[b].T).sum(axis=1)
            row[later] = row[later] @ product[b]
    return total


# ------------------------------------------------------------------------------------- claims about runs


def _outside_the_family(run: Run) -> str | None:
    """Why the row-sum recursion says nothing about a run, or None."""
    from ufm.decay import shrinks_after
    from ufm.optimizers import GD, Momentum

    lemma = _no_lemma(run)
    if lemma is not None:
        return lemma
    if type(run.optimizer) not in (GD, Momentum):
        name = type(run.optimizer).__name__
        return f"{name} steps are not linear in the gradients, as the recursion needs (GD and Momentum are)"
    last = run.problem.last
    if shrinks_after(run.decay) and run.coupled[last] and run.decoupled[last]:
        return (
            "the decoupled shrink comes after the step while coupled decay acts too; the recursion is for "
            "the shrink before the step"
        )
    return None


def _no_lemma(run: Run) -> str | None:
    problem = run.problem
    if problem.last not in problem.trained:
        return f"the last layer {problem.last} is frozen: its row sum does not move"
    if not problem.loss.shift_invariant:
        return f"the loss is not shift-invariant, so 1^T grad_W need not vanish: {problem.loss.why}"
    return None


def _theorem_3_1_hypotheses(run: Run) -> str | None:
    reason = _outside_the_family(run)
    if reason is None and run.coupled[run.problem.last]:
        reason = (
            f"coupled decay {run.coupled[run.problem.last]:g} acts on {run.problem.last}; "
            "theorem 3.1 is for decoupled decay alone"
        )
    return reason


def _theorem_3_2_hypotheses(run: Run) -> str | None:
    reason = _outside_the_family(run)
    if reason is not None:
        return reason
    last = run.problem.last
    if not run.coupled[last]:
        return f"no coupled decay acts on {last}; theorem 3.2 is for coupled decay alone"
    if run.decoupled[last]:
        rate = run.decoupled[last]
        return f"decoupled decay {rate:g} acts on {last} too; theorem 3.2 is for coupled decay alone"
    if getattr(run.optimizer, "nesterov", False):
        return "the momentum is Nesterov's; theorem 3.2 is for heavy ball"
    if not isinstance(run.optimizer.lr, float | int):
        return "the learning rate changes over the run; theorem 3.2 is for a constant one"
    return None


def _parameters(run: Run) -> dict[str, Any]:
    """Arguments of `growth` for a run; a constant rate is passed as one, a changing one as a schedule."""
    last = run.problem.last
    rates = run.rates
    constant = bool(len(rates) == 0 or np.all(rates == rates[0]))
    return {
        "lr": (float(rates[0]) if len(rates) else 0.0) if constant else None,
        "schedule": None if constant else rates,
        "beta": getattr(run.optimizer, "beta", 0.0),
        "nesterov": getattr(run.optimizer, "nesterov", False),
        "coupled": run.coupled[last],
        "decoupled": run.decoupled[last],
    }


def _running_maximum(values: np.ndarray) -> np.ndarray:
    """Largest |entry| up to and including the next record, shape (records,): covers what lies between."""
    largest = np.maximum.accumulate(np.abs(values).reshape(len(values), -1).max(axis=1))
    return np.append(largest[1:], largest[-1])


def _finite_records(run: Run) -> np.ndarray:
    """Records before the run left the finite numbers."""
    if run.trajectory is None:
        raise invalid("Run.trajectory", None, "a simulated run; predictions are held against its records")
    return np.flatnonzero(np.isfinite(run.trajectory.states).all(axis=1))


def _row_sum_prediction(run: Run, error: float = 0.0) -> Prediction:
    """m_t against g_t m_0, with all decay rates of the last layer multiplied by 1 + error.

    Without decay the error is a decay that takes this share of m in all; without a row sum to decay it is a
    start wrong by this share of max|W|.
    """
    kept = _finite_records(run)
    assert run.trajectory is not None
    W = run.trajectory["W"][kept].astype(np.float64)
    t = np.asarray(run.trajectory.steps)[kept]
    settings = _parameters(run)
    observed = W.sum(axis=1)
    problem, eps = run.problem, float(np.finfo(run.dtype).eps)
    gradient_scale: Any = 0.0
    if run.rates.max(initial=0.0) > 1:
        states = (run.trajectory.state(int(i)) for i in kept)
        gradients = [problem.gradient(_trained(problem, s))[problem.last] for s in states]
        gradient_scale = _running_maximum(np.stack(gradients))
    bound = round_off_bound(
        t,
        **settings,
        classes=problem.classes,
        scale=_running_maximum(W),
        eps=eps,
        gradient_scale=gradient_scale,
    )
    start = observed[0]
    if error:
        total = float(run.rates.sum())
        if np.abs(start).max() <= bound[0]:
            start = start + error * np.abs(W).max()
        elif not settings["coupled"] and not settings["decoupled"] and total:
            settings["decoupled"] = error / total
        settings["coupled"] *= 1 + error
        settings["decoupled"] *= 1 + error
    g = growth(t, **settings)
    with np.errstate(invalid="ignore", over="ignore"):
        predicted = g[:, None] * start
        headline = float(nc0(t[-1], **settings, nc0_0=start @ start / problem.classes))
    return Prediction("m_t = W_t^T 1, against g_t m_0", predicted, observed, bound, headline)


def _perturbed_row_sum(run: Run) -> Prediction:
    return _row_sum_prediction(run, PERTURBATION[run.dtype])


def _trained(problem: Any, state: Any) -> dict[str, np.ndarray]:
    return {name: state[name] for name in problem.trained}


def _lemma_prediction(run: Run, weight: float = 1.0) -> Prediction:
    """Column sums of grad_W at the recorded states, the last class counted with `weight`, against 0."""
    kept = _finite_records(run)
    traj, problem = run.trajectory, run.problem
    assert traj is not None
    rows = []
    for i in kept:
        rows.append(problem.gradient(_trained(problem, traj.state(int(i))))[problem.last])
    gradients = np.stack(rows)
    observed = gradients[:, :-1].sum(axis=1) + weight * gradients[:, -1]
    # |R| sums to at most 2 sum(y) over a column; each of its entries and of R H^T is rounded a few times
    H = traj.features()[kept].astype(np.float64)
    heaviest = 1.0 if problem.targets is None else max(1.0, float(np.abs(problem.targets).sum(axis=0).max()))
    share = problem.samples if getattr(problem.loss, "reduction", "mean") == "sum" else 1
    size = 2 * heaviest * share * np.abs(H).reshape(len(kept), -1).max(axis=1)
    largest = np.abs(gradients).reshape(len(kept), -1).max(axis=1)
    bound = float(np.finfo(np.float64).eps) * (problem.classes + problem.samples) * np.maximum(size, largest)
    return Prediction("1^T grad_W", np.zeros_like(observed), observed, bound)


def _perturbed_lemma(run: Run) -> Prediction:
    return _lemma_prediction(run, 1.0 + PERTURBATION["float64"])  # gradients are evaluated in float64


_ROW_SUM_LAYERS = {
    "symbolic": "proved for symbolic t, eta, beta, lam (python -m proofs_check)",
    "simulation": "each run is judged against (K/2) eps max|W| sum |g_s|",
}

CLAIMS = (
    Claim(
        name="zhao2026.lemE.5",
        statement="1^T grad_W = 0 if the loss does not change when a constant is added to all logits.",
        source=Source(PAPER, "lemma E.5", "read in full"),
        room="row_sum",
        figure="row_sum_regimes",
        layers={
            "symbolic": "proved: cross-entropy and its smoothed and soft targets, any shift-invariant loss",
            "simulation": "at recorded states, within eps (K + N) 2 max|H|",
        },
        applies=_no_lemma,
        predict=_lemma_prediction,
        control=_perturbed_lemma,
        rank=0,
    ),
    Claim(
        name="zhao2026.thm3.1",
        statement=(
            "Decoupled decay alone: m_t = prod (1 - eta_s lam) m_0 at every momentum; at a constant rate "
            "alpha -> 0 iff 0 < eta lam < 2 or m_0 = 0. The closed form holds in the unstable range too."
        ),
        source=Source(PAPER, "theorem 3.1", "read in full"),
        room="row_sum",
        figure="row_sum_regimes",
        layers=_ROW_SUM_LAYERS,
        applies=_theorem_3_1_hypotheses,
        predict=_row_sum_prediction,
        control=_perturbed_row_sum,
        rank=20,
    ),
    Claim(
        name="zhao2026.thm3.2",
        statement=(
            "Heavy ball or GD with coupled decay alone at a constant rate: m_t = g_t m_0 with "
            "g_t = p_t - beta p_{t-1} over the roots of r^2 - (1 + beta - eta lam) r + beta; alpha -> 0 iff "
            "0 < eta lam < 2 (1 + beta) or m_0 = 0. The closed form holds in the unstable range too."
        ),
        source=Source(PAPER, "theorem 3.2, rate in closed form and necessity derived here", "read in full"),
        room="row_sum",
        figure="row_sum_regimes",
        layers=_ROW_SUM_LAYERS,
        applies=_theorem_3_2_hypotheses,
        predict=_row_sum_prediction,
        control=_perturbed_row_sum,
        rank=20,
    ),
    Claim(
        name="ufm.row_sum_law",
        statement=(
            "SGD family with coupled and decoupled decay, heavy ball or Nesterov, any schedule: "
            "m_t = g_t m_0 and alpha_t = g_t^2 alpha_0, g_t the (1,1) entry of a product of 2 x 2 matrices."
        ),
        source=Source("this package", "contains theorems 3.1 and 3.2 of Zhao et al.", "derived here"),
        room="row_sum",
        figure="row_sum_regimes",
        layers=_ROW_SUM_LAYERS,
        applies=_outside_the_family,
        predict=_row_sum_prediction,
        control=_perturbed_row_sum,
        rank=10,
    ),
    Claim(
        name="ufm.critical_momentum",
        statement=(
            "NC0 decays fastest at beta* = (1 - sqrt x)^2 (heavy ball, 0 < x < 4) and "
            "(1 - sqrt x)/(1 + sqrt x) (Nesterov, 0 < x < 1), x = eta lam_c, with spectral radius "
            "|1 - sqrt x|; below, the slow root is 1 - x/(1 - beta) + O(x^2)."
        ),
        source=Source("this package", "double root of the row-sum recursion", "derived here"),
        room="row_sum",
        layers={"symbolic": "proved: double root, and a larger spectral radius at every other momentum"},
    ),
    Claim(
        name="ufm.stability_range",
        statement=(
            "alpha -> 0 for every start iff 0 < eta lam < 2 (decoupled), 2 (1 + beta) (coupled, heavy ball), "
            "2 (1 + beta)/(1 + 2 beta) (coupled, Nesterov)."
        ),
        source=Source("this package", "Schur-Cohn conditions of the row-sum recursion", "derived here"),
        room="row_sum",
        layers={"symbolic": "proved: necessary and sufficient"},
    ),
    Claim(
        name="zhao2026.thm3.2.erratum",
        statement=(
            "Theorem 3.2's alpha_t <= C rho^(2t) alpha_0 with a constant C fails at the double root "
            "beta = (1 - sqrt(eta lam))^2, where alpha_t = (1 + t (1 - r))^2 rho^(2t) alpha_0; at every root "
            "pattern alpha_t <= (1 + t (1 + rho))^2 rho^(2t) alpha_0."
        ),
        source=Source(PAPER, "theorem 3.2, corrected here", "read in full"),
        room="row_sum",
        layers={"symbolic": "printed form refuted at the double root; corrected form proved"},
    ),
)
