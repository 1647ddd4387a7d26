r"""The row sum of the last layer under the SGD family: one linear recursion, in closed form.

Notation (Zhao et al., arXiv 2602.16642v3): W is K x p, m = W^T 1 its row sum, q = V^T 1 the row sum of the
momentum buffer V, eta = ``lr`` the learning rate, lam_c and lam_d the coupled and decoupled decay rates,
alpha = ||m||^2/K the NC0 of this package. A loss that does not change when a constant is added to all logits
of a sample has 1^T grad_W = 0 (lemma E.5), so that m sees momentum and decay only. With V_0 = 0 and the
decoupled shrink applied before the step,

    q' = beta q + lam_c m,    m' = (1 - eta lam_d) m - eta q'                     (heavy ball)
                              m' = (1 - eta lam_d) m - eta (lam_c m + beta q')    (Nesterov, as in PyTorch)

A shrink after the step multiplies the whole new m instead (`entries_shrunk_after`), which is the same map at other
rates (`rates_before`). Hence m_t = g_t m_0 and alpha_t = g_t^2 alpha_0 for every data set, depth, batch order and
loss value. The paper's lam is a rate on the whole matrix, lam/2 ||W||_F^2, as here.

Two forms stand beside each other. `growth_closed_form` is what is proved (``python -m proofs_check``):
generic in its number type. `growth` and `log_growth` are what is evaluated: powers of the 2 x 2 matrix in
double-double arithmetic with a carried exponent, one code for all regimes and schedules; tests hold them
against the closed form at 60 digits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from ufm.claims import Claim, Prediction, Source
from ufm.decay import shrinks_after
from ufm.errors import invalid
from ufm.optimizers import GD, Momentum
from ufm.theory._double_double import DoubleDouble
from ufm.theory._evaluator import (
    LARGEST,
    evaluate,
    momentum_of,
    nonnegative,
    rates_of,
    scaled,
    steps_of,
    sums_of_powers,
    sums_of_products,
)
from ufm.theory._recorded import (
    PERTURBATION,
    exact_row_sum,
    finite_records,
    gradients,
    known_rates,
    running_maximum,
)
from ufm.theory._remembered import remembered

if TYPE_CHECKING:
    from ufm.run import Run

_evaluate_once, _sums_once = remembered(evaluate), remembered(sums_of_products)

PAPER = "Zhao, Cheng, Masarczyk, Lucchi, arXiv 2602.16642v3"


# ------------------------------------------------------------------ formulas, generic in their number type


def recursion_entries(lr: Any, beta: Any, coupled: Any, decoupled: Any, nesterov: bool) -> Any:
    """Entries ((M11, M12), (M21, M22)) of the one-step matrix on (m, q), for any number type.

    Parameters
    ----------
    lr, beta, coupled, decoupled : number or ndarray, shape (...)
        Learning rate, momentum, coupled decay rate, decoupled decay rate.
    nesterov : bool
        Look-ahead form.

    Returns
    -------
    pair of pairs of number

    Examples
    --------
    >>> recursion_entries(0.5, 0.5, 0.25, 0.0, nesterov=False)
    ((0.875, -0.25), (0.25, 0.5))
    """
    if nesterov:
        return (1 - lr * decoupled - lr * coupled * (1 + beta), -(lr * beta * beta)), (coupled, beta)
    return (1 - lr * (decoupled + coupled), -(lr * beta)), (coupled, beta)


def entries_shrunk_after(lr: Any, beta: Any, coupled: Any, decoupled: Any, nesterov: bool) -> Any:
    """`recursion_entries` where the decoupled shrink comes after the step: it multiplies all of the new m.

    Parameters
    ----------
    lr, beta, coupled, decoupled : number or ndarray, shape (...)
        Learning rate, momentum, coupled decay rate, decoupled decay rate.
    nesterov : bool
        Look-ahead form.

    Returns
    -------
    pair of pairs of number

    Examples
    --------
    >>> entries_shrunk_after(0.5, 0.5, 0.0, 0.25, nesterov=False)
    ((0.875, -0.21875), (0.0, 0.5))
    """
    (m11, m12), of_q = recursion_entries(lr, beta, coupled, 0, nesterov)
    kept = 1 - lr * decoupled
    return (kept * m11, kept * m12), of_q


def rates_before(lr: Any, decoupled: Any) -> tuple[Any, Any]:
    """Learning and decoupled rate at which a shrink before the step does what these do after it; any number type.

    (1 - eta lam)(W - eta u) = (1 - eta' lam') W - eta' u with eta' = eta (1 - eta lam), lam' = lam/(1 - eta lam), for
    every rule whose step u does not depend on eta: GD, momentum, signs and Adam. Both rates are >= 0 while
    eta lam < 1. Coupled decay is part of u and stays as it is.

    Parameters
    ----------
    lr, decoupled : number or ndarray, shape (...)
        Learning rate, momentum, coupled decay rate, decoupled decay rate.

    Returns
    -------
    lr, decoupled : number or ndarray, shape (...)

    Examples
    --------
    >>> rates_before(0.5, 1.0)
    (0.25, 2.0)
    """
    kept = 1 - lr * decoupled
    return lr * kept, decoupled / kept


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
    return matrix_of(recursion_entries(lr, beta, coupled, decoupled, nesterov), xp)


def matrix_of(rows: Any, xp: Any = np) -> Any:
    """Entries ((M11, M12), (M21, M22)), broadcast, as an array of shape (..., 2, 2) or a sympy.Matrix.

    Parameters
    ----------
    rows : pair of pairs of number or ndarray, shape (...)
        As `recursion_entries` returns them.
    xp : module
        ``numpy`` or ``sympy``.

    Returns
    -------
    ndarray, shape (..., 2, 2), or sympy.Matrix

    Examples
    --------
    >>> matrix_of(((1.0, 2.0), (3.0, 4.0))).tolist()
    [[1.0, 2.0], [3.0, 4.0]]
    """
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

    Parameters
    ----------
    lr, beta, coupled, decoupled : number or ndarray, shape (...)
        Learning rate, momentum, coupled decay rate, decoupled decay rate.
    nesterov : bool
        Look-ahead form.

    Returns
    -------
    trace, determinant : number or ndarray, shape (...)

    Examples
    --------
    >>> trace_determinant(0.5, 0.5, coupled=0.25)
    (1.375, 0.5)
    """
    if nesterov:
        tr = 1 + beta - lr * decoupled - lr * coupled * (1 + beta)
        return tr, beta * (1 - lr * decoupled - lr * coupled)
    return 1 + beta - lr * (decoupled + coupled), beta * (1 - lr * decoupled)


def roots(tr: Any, D: Any, xp: Any = np) -> tuple[Any, Any]:
    """Roots r_+, r_- of r^2 - tr r + D; complex where the discriminant is negative.

    Parameters
    ----------
    tr, D : number or ndarray, shape (...)
        Trace and determinant of the one-step matrix.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    r_plus, r_minus : number or ndarray, shape (...)

    Examples
    --------
    >>> [complex(r) for r in roots(0.0, 1.0)]
    [1j, -1j]
    """
    discriminant = tr * tr - 4 * D
    s = xp.sqrt(discriminant + 0j) if xp is np else xp.sqrt(discriminant)
    return (tr + s) / 2, (tr - s) / 2


def growth_from_roots(t: Any, r_plus: Any, r_minus: Any, beta: Any) -> Any:
    """g_t = p_t - beta p_{t-1} with p_t = (r_+^{t+1} - r_-^{t+1})/(r_+ - r_-), for distinct roots.

    Parameters
    ----------
    t : number or ndarray, shape (...)
        Number of steps.
    r_plus, r_minus : number or ndarray, shape (...)
        The two roots, which differ.
    beta : number or ndarray, shape (...)
        Learning rate, momentum, coupled decay rate, decoupled decay rate.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> growth_from_roots(2, 0.75, 0.5, 0.5)
    0.5625
    """
    p_now = (r_plus ** (t + 1) - r_minus ** (t + 1)) / (r_plus - r_minus)
    p_before = (r_plus**t - r_minus**t) / (r_plus - r_minus)
    return p_now - beta * p_before


def growth_from_double_root(t: Any, r: Any, beta: Any) -> Any:
    """g_t = p_t - beta p_{t-1} with p_t = (t + 1) r^t, at a double root r != 0.

    Parameters
    ----------
    t : number or ndarray, shape (...)
        Number of steps.
    r : number or ndarray, shape (...)
        The double root, not 0.
    beta : number or ndarray, shape (...)
        Learning rate, momentum, coupled decay rate, decoupled decay rate.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> growth_from_double_root(2, 0.5, 0.25)
    0.5
    """
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

    Returns
    -------
    number or ndarray, shape (...)

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
    """g_t at the double root r = tr/2 (where tr^2 = 4 D, r != 0), for any number type.

    Parameters
    ----------
    t, lr, beta, coupled, decoupled : number or ndarray, shape (...)
        Number of steps, learning rate, momentum, coupled decay rate, decoupled decay rate.
    nesterov : bool
        Look-ahead form.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> growth_double_root(2, 0.25, 0.25, coupled=1.0)
    0.5
    """
    tr, _ = trace_determinant(lr, beta, coupled, decoupled, nesterov)
    return growth_from_double_root(t, tr / 2, beta)


def theorem_3_1(t: Any, lr: Any, lam: Any) -> Any:
    """g_t = (1 - eta lam)^t for decoupled decay alone, at every momentum (theorem 3.1).

    Parameters
    ----------
    t, lr, lam : number or ndarray, shape (...)
        Number of steps, learning rate, decay rate.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> theorem_3_1(2, 0.5, 0.5)
    0.5625
    """
    return (1 - lr * lam) ** t


def theorem_3_2(t: Any, lr: Any, beta: Any, lam: Any, xp: Any = np) -> Any:
    """g_t of heavy ball with coupled decay alone (theorem 3.2), through the roots.

    Parameters
    ----------
    t, lr, beta, lam : number or ndarray, shape (...)
        Number of steps, learning rate, momentum, decay rate.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> round(float(theorem_3_2(1, 0.5, 0.5, 0.5)), 12)
    0.75
    """
    return growth_closed_form(t, lr, beta, coupled=lam, xp=xp)


def theorem_3_2_envelope(t: Any, rho: Any) -> Any:
    """Corrected form of theorem 3.2: |g_t| <= rho^t (1 + t (1 + rho)), rho = max |r|, for all roots.

    Parameters
    ----------
    t : number or ndarray, shape (...)
        Number of steps.
    rho : number or ndarray, shape (...)
        Spectral radius max |r|.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> theorem_3_2_envelope(2, 0.5)
    1.0
    """
    return rho**t * (1 + t * (1 + rho))


def slow_rate(lr: Any, lam: Any, beta: Any = 0.0) -> Any:
    """First-order decay of m per step, eta lam/(1 - beta); the slow root is 1 - this + O((eta lam)^2).

    Parameters
    ----------
    lr, lam, beta : number or ndarray, shape (...)
        Learning rate, decay rate, momentum.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> round(slow_rate(0.1, 0.01, 0.9), 12)
    0.01
    """
    return lr * lam / (1 - beta)


def critical_momentum_formula(x: Any, nesterov: bool = False, xp: Any = np) -> Any:
    """Momentum of the double root at x = eta lam, for any number type; see `critical_momentum`.

    Parameters
    ----------
    x : number or ndarray, shape (...)
        eta lam.
    nesterov : bool
        Look-ahead form.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> float(critical_momentum_formula(0.25))
    0.25
    """
    s = xp.sqrt(x)
    return (1 - s) / (1 + s) if nesterov else (1 - s) ** 2


def critical_momentum(lr: Any, lam: Any, nesterov: bool = False) -> Any:
    """Momentum at which NC0 decays fastest; beyond it alpha oscillates through zero and slows down.

    beta* = (1 - sqrt x)^2 for heavy ball, (1 - sqrt x)/(1 + sqrt x) for Nesterov, x = eta lam_c; the spectral
    radius there is |1 - sqrt x|. Nesterov at x = 1 has both roots 0 at every momentum, beyond it no double root.

    Parameters
    ----------
    lr, lam : array_like, shape (...)
        Learning rate and coupled decay rate, with 0 < lr lam < 4 (heavy ball) or 0 < lr lam < 1
        (Nesterov).
    nesterov : bool
        Look-ahead form.

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
    inside = (x > 0) & ((x < 1) if nesterov else (x < 4))
    if not np.all(inside):
        allowed = "0 < lr*lam < 1 for Nesterov" if nesterov else "0 < lr*lam < 4"
        raise invalid("critical_momentum.lr*lam", x.tolist(), allowed)
    return critical_momentum_formula(x, nesterov)


def stability_range(beta: Any = 0.0, nesterov: bool = False, decay: str = "coupled") -> Any:
    """Upper end of the open interval of eta lam in which alpha -> 0, one kind of decay alone.

    2 for decoupled decay at every beta (theorem 3.1); 2 (1 + beta) for coupled decay and heavy ball (theorem
    3.2); 2 (1 + beta)/(1 + 2 beta) for Nesterov. The lower end is 0.

    Parameters
    ----------
    beta : number or ndarray, shape (...)
        Momentum.
    nesterov : bool
        Look-ahead form.
    decay : {"coupled", "decoupled"}
        The kind of decay.

    Returns
    -------
    number or ndarray, shape (...)

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
    mantissa, exponent = evaluate(recursion_entries, t, lr, beta, coupled, decoupled, nesterov, schedule)
    return scaled(mantissa.high, exponent)


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

    Parameters
    ----------
    t, lr, beta, coupled, decoupled, nesterov, schedule
        As in `growth`.

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
    mantissa, exponent = evaluate(recursion_entries, t, lr, beta, coupled, decoupled, nesterov, schedule)
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

    Parameters
    ----------
    t, lr, beta, coupled, decoupled, nesterov, schedule
        As in `growth`.
    nc0_0 : array_like, shape (...)
        alpha_0 >= 0.

    Returns
    -------
    ndarray or float, shape (...)

    Examples
    --------
    >>> float(nc0(1, 0.5, decoupled=1.0, nc0_0=8.0))
    2.0
    """
    mantissa, exponent = evaluate(recursion_entries, t, lr, beta, coupled, decoupled, nesterov, schedule)
    start, unit = np.frexp(nonnegative("nc0.nc0_0", nc0_0, np.inf))
    return scaled(mantissa.high**2 * start, 2 * exponent + unit)


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

    Parameters
    ----------
    t, lr, beta, coupled, decoupled, nesterov, schedule
        As in `growth`.
    nc0_0 : array_like, shape (...)
        alpha_0 >= 0.

    Returns
    -------
    ndarray or float, shape (...)

    Examples
    --------
    >>> round(float(log_nc0(10**6, 0.1, decoupled=0.05)), 3)
    -10025.084
    """
    _, log = log_growth(t, lr, beta, coupled, decoupled, nesterov, schedule)
    with np.errstate(divide="ignore"):
        return 2 * log + np.log(nonnegative("log_nc0.nc0_0", nc0_0, np.inf))


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
    gradient_error: Any = 0.0,
    shrunk_after: bool = False,
) -> np.ndarray:
    """How far round-off may carry a simulated row sum from the law, largest entry.

    With S = max|W|, G = max|grad W|, x = eta lam_d, u = eps/2 and Phi(t, s) the product of the one-step matrices
    s ... t - 1, the model counts the half-units that one step can lose in each of the K rows:

        W:       S for the last subtraction; x + 2 |1 - x| times S for the shrink factor and its product;
                 P = min((1 + |1 - x|) S, eta (lam_c S + G)/(1 - beta)) for the product of rate and direction,
        decay:   2 lam_c S + G for the product lam_c W and its sum with the gradient,
        buffer:  2 P/eta for its product and sum.

    Errors of W and of the decay are taken to have one sign in all rows and steps. Those of the buffer and of the
    gradient's own column sum (`gradient_error` e) are taken to be independent and add in quadrature:

        u K (A S_1 + D S_2) + (u sqrt(K) B + e) S_3^(1/2),   S_1 = sum_{s <= t} |Phi(t, s)_11|,
        S_2 = sum_{s < t} |(Phi(t, s + 1) j_s)_1|,  S_3 the same of squares,  j = (-eta, 1), the way of an error
        of the buffer into m (Nesterov: (-eta (1 + beta), 1)); A, D, B the three lines above.

    Where the shrink comes after the step, it is that of a W up to T = min(S/|1 - x|, S + eta (lam_c S + G)/(1 - beta)),
    so that S becomes T in the shrink's own term; P and the way of the buffer's errors are multiplied by 1 - x.

    An error model, not a theorem. Rates are taken at their largest in A, D and B.

    Parameters
    ----------
    t : array_like of int, shape (records,)
        Recorded steps.
    lr, beta, coupled, decoupled, nesterov, schedule
        As in `growth`, one parameter set.
    classes : int
        Number K of rows of W.
    scale : array_like, shape () or (records,)
        S, max|W| up to each record.
    eps : float
        Unit round-off spacing: 2^-52 for float64, 2^-23 for float32.
    gradient_scale : array_like, shape () or (records,)
        G, max|grad W| up to each record.
    gradient_error : array_like, shape () or (records,)
        e, what round-off may leave in 1^T grad W, up to each record.
    shrunk_after : bool
        Whether the decoupled shrink comes after the step.

    Returns
    -------
    ndarray, shape (records,)

    Raises
    ------
    InvalidProblemError
        For rates or steps that `growth` refuses, or a scale below 0.

    Examples
    --------
    >>> round_off_bound([0, 9], 0.1, classes=4, scale=1.0, eps=2.0**-10).tolist()
    [0.001953125, 0.01953125]
    """
    t = steps_of("round_off_bound.t", t)
    momentum_of("round_off_bound.beta", beta)
    for name, value in {"coupled": coupled, "decoupled": decoupled}.items():
        nonnegative(f"round_off_bound.{name}", value)
    if schedule is None and lr is None:
        raise invalid("round_off_bound.lr", lr, "a learning rate, or a schedule")
    longest = int(t.max(initial=0))
    rates = nonnegative("round_off_bound.lr", lr)[None] if schedule is None else rates_of(schedule, longest)
    rates = rates[: max(longest, 1)] if len(rates) else np.zeros(1)
    entries = entries_shrunk_after if shrunk_after else recursion_entries
    M = matrix_of(entries(rates, beta, coupled, decoupled, nesterov))
    kept = np.abs(1 - rates * decoupled)
    way = rates * (1 - rates * decoupled) if shrunk_after else rates  # of an error of the direction into W
    inject = np.stack([-way * (1 + beta if nesterov else 1.0), np.ones(len(rates))], axis=1)
    S, G, e = (np.asarray(value, float) for value in (scale, gradient_scale, gradient_error))
    with np.errstate(over="ignore", invalid="ignore", under="ignore", divide="ignore"):
        if np.all(rates == rates[0]):
            carried, injected, squares = sums_of_powers(M[0], inject[0], longest)[:, t]
        else:
            carried, injected, squares = _sums_once(M, inject, t)
        fastest = float(np.abs(way).max())
        direction = (coupled * S + G) / (1 - beta)
        product = np.minimum((1 + float(kept.max())) * S, fastest * direction)
        shrunk = S
        if shrunk_after and decoupled:
            shrunk = np.minimum(S / float(kept.min()), S + float(rates.max()) * direction)
        shrink = float((rates * decoupled + 2 * kept).max()) if decoupled else 0.0
        decay = 2 * coupled * S + G if coupled else 0.0
        buffer = 2 * product / fastest if beta and fastest else 0.0
        # before the first step nothing has happened: one unit of the start, as it is
        moved = np.where(t > 0, shrink * shrunk + product, 0.0)
        total = 0.5 * eps * classes * (carried * (S + moved) + injected * decay) + np.sqrt(squares) * (
            0.5 * eps * np.sqrt(classes) * buffer + e
        )
    return np.where(np.isnan(total), np.inf, total)


# ------------------------------------------------------------------------------- hypotheses about runs


def _outside_the_family(run: Run) -> str | None:
    """Why the row-sum recursion says nothing about a run, or None."""
    lemma = _no_lemma(run)
    if lemma is not None:
        return lemma
    if type(run.optimizer) not in (GD, Momentum):
        name = type(run.optimizer).__name__
        return f"{name} steps are not linear in the gradients, as the recursion needs (GD and Momentum are)"
    last, rates = run.problem.last, known_rates(run)
    fastest = 0.0 if rates is None else float(rates.max(initial=0.0))
    if max(fastest, run.coupled[last], run.decoupled[last]) > LARGEST / 2:
        return f"a learning or decay rate is above {LARGEST / 2:g}, where the recursion is not evaluated"
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
    if getattr(run.optimizer, "nesterov", False) and run.optimizer.beta > 0:
        return "the momentum is Nesterov's; theorem 3.2 is for heavy ball"
    rates = known_rates(run)
    if rates is None:
        return "the learning rate is a schedule and the number of steps is not given; theorem 3.2 is for a constant one"
    if np.any(rates != rates[:1]):
        return "the learning rate changes over the run; theorem 3.2 is for a constant one"
    return None


# ------------------------------------------------------------------------------- predictions about runs


def _parameters(run: Run) -> dict[str, Any]:
    """Arguments of `growth` for a run, as its precision holds them.

    A constant rate is passed as one, a changing one as a schedule.
    """
    last, dtype = run.problem.last, np.dtype(run.dtype)
    rates = run.rates.astype(dtype).astype(np.float64)
    constant = bool(len(rates) == 0 or np.all(rates == rates[0]))
    return {
        "lr": (float(rates[0]) if len(rates) else 0.0) if constant else None,
        "schedule": None if constant else rates,
        "beta": float(dtype.type(getattr(run.optimizer, "beta", 0.0))),
        "nesterov": getattr(run.optimizer, "nesterov", False),
        "coupled": float(dtype.type(run.coupled[last])),
        "decoupled": float(dtype.type(run.decoupled[last])),
    }


def gradient_row_sum_error(terms: Any, classes: int, samples: int, eps: float = 2.0**-52) -> Any:
    """What round-off may leave in 1^T grad_W: eps sqrt(K + N) max_j sum_k sum_i |R_ki| |H_ji|.

    Rounding errors of n operations on numbers of one size are taken to be independent, so that they grow like
    sqrt(n); one eps is two half-units per operation.

    Parameters
    ----------
    terms : number or ndarray, shape (...)
        max_j sum_k sum_i |R_ki| |H_ji|.
    classes, samples : int
        K and N.
    eps : float
        Spacing of floating-point numbers at 1.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> float(gradient_row_sum_error(1.0, classes=1, samples=3, eps=0.5))
    1.0
    """
    return eps * np.sqrt(classes + samples) * terms


class _RowSums(NamedTuple):
    """Row sums at the finite records, and what round-off may have made of them, all over 2^unit."""

    values: DoubleDouble  # shape (records, width)
    bound: np.ndarray  # shape (records,)
    largest: float  # max|W|
    unit: int


_row_sums_of: WeakKeyDictionary[Any, tuple[Any, Any, _RowSums]] = WeakKeyDictionary()


def _row_sums(run: Run) -> _RowSums:
    """Row sums of a run; kept for as long as the trajectory lives, for the control asks too."""
    optimizer, decay, found = _row_sums_of.get(run.trajectory, (None, None, None))
    if found is None or optimizer is not run.optimizer or decay is not run.decay:
        found = _measured_row_sums(run)
        _row_sums_of[run.trajectory] = run.optimizer, run.decay, found
    return found


def _measured_row_sums(run: Run) -> _RowSums:
    kept, problem, precision = finite_records(run), run.problem, np.finfo(run.dtype)
    assert run.trajectory is not None
    W = run.trajectory["W"][kept].astype(np.float64)
    eps, tiny = float(precision.eps), float(precision.tiny)  # below tiny the spacing no longer shrinks
    # a common power of two keeps the error-free products away from overflow and underflow
    unit = int(np.frexp(max(np.abs(W).max(), np.finfo(float).tiny))[1])
    m, found = exact_row_sum(np.ldexp(W, -unit)), gradients(run)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        bound = round_off_bound(
            np.asarray(run.trajectory.steps)[kept],
            **_parameters(run),
            classes=problem.classes,
            scale=np.ldexp(np.maximum(running_maximum(W), tiny), -unit),
            eps=eps,
            gradient_scale=np.ldexp(running_maximum(found.largest), -unit),
            gradient_error=gradient_row_sum_error(
                np.ldexp(running_maximum(found.terms) + problem.classes * problem.samples * tiny, -unit),
                problem.classes,
                problem.samples,
                eps,
            ),
            shrunk_after=shrinks_after(run.decay),
        )
        # both numbers are rounded once more when they are written down
        bound = bound + np.finfo(np.float64).eps * np.abs(m.high).max(axis=1)
        largest = float(np.ldexp(np.abs(W).max(), -unit))
    return _RowSums(m, bound, largest, unit)


def _row_sum_prediction(run: Run, error: float = 0.0) -> Prediction:
    """m_t against g_t m_0, with all decay rates of the last layer multiplied by 1 + error.

    Without decay the error is a decay that takes this share of m in all; without a row sum to decay it is a
    start wrong by this share of max|W|.
    """
    quantity = "m_t = W_t^T 1, against g_t m_0"
    kept = finite_records(run)
    assert run.trajectory is not None
    if not len(kept):
        return Prediction(quantity, np.zeros((0, 1)), np.zeros((0, 1)), np.zeros(0))
    m, bound, largest, unit = _row_sums(run)
    settings, start = _parameters(run), m[0]
    if error:
        total = float(run.rates.sum())
        if np.abs(start.high).max() <= bound[0]:
            start = start + error * largest
        elif not settings["coupled"] and not settings["decoupled"] and total:
            settings["decoupled"] = min(error / total, LARGEST)
        settings["coupled"] *= 1 + error
        settings["decoupled"] *= 1 + error
    mantissa, exponent = _evaluate_once(
        entries_shrunk_after if shrinks_after(run.decay) else recursion_entries,
        np.asarray(run.trajectory.steps)[kept],
        settings["lr"],
        settings["beta"],
        settings["coupled"],
        settings["decoupled"],
        settings["nesterov"],
        settings["schedule"],
    )
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        predicted = scaled((mantissa[:, None] * start).high, exponent[:, None] + unit)
        alpha = scaled(
            mantissa.high**2 * (start.high @ start.high) / run.problem.classes, 2 * (exponent + unit)
        )
        observed, bound = np.ldexp(m.high, unit), np.ldexp(bound, unit)
    return Prediction(quantity, predicted, observed, bound, alpha if np.isfinite(alpha[-1]) else None)


def _perturbed_row_sum(run: Run) -> Prediction:
    return _row_sum_prediction(run, PERTURBATION[run.dtype])


def _lemma_prediction(run: Run, weight: float = 1.0) -> Prediction:
    """Column sums of grad_W at the recorded states, the last class counted with `weight`, against 0."""
    found = gradients(run) if len(finite_records(run)) else None
    if found is None:
        return Prediction("1^T grad_W", np.zeros((0, 1)), np.zeros((0, 1)), np.zeros(0))
    finite = np.isfinite(found.values).all(axis=(1, 2))
    values, problem = found.values[finite], run.problem
    values[:, -1] *= weight
    observed = exact_row_sum(values).high
    smallest = problem.classes * problem.samples * np.finfo(np.float64).tiny  # products that underflow
    bound = gradient_row_sum_error(found.terms[finite] + smallest, problem.classes, problem.samples)
    return Prediction("1^T grad_W", np.zeros_like(observed), observed, bound)


def _perturbed_lemma(run: Run) -> Prediction:
    return _lemma_prediction(run, 1.0 + PERTURBATION["float64"])  # gradients are evaluated in float64


# ------------------------------------------------------------------------------------------------- claims


_ROW_SUM_LAYERS = {
    "symbolic": "proved for symbolic t, eta, beta, lam (python -m proofs_check), constant rate",
    "simulation": "each run is judged against the half-units of every step, carried on (round_off_bound)",
}

CLAIMS = (
    Claim(
        name="zhao2026.lemE.5",
        statement="1^T grad_W = 0 if the loss does not change when a constant is added to all logits.",
        source=Source(PAPER, "lemma E.5", "read in full"),
        room="row_sum",
        figure="row_sum_regimes",
        layers={
            "symbolic": (
                "cross-entropy with any targets is shift-invariant: proved; 1^T grad_W = 0 for it and for any "
                "function of the logit differences: K = 2..5"
            ),
            "simulation": "at recorded states, within eps sqrt(K + N) max_j sum_ki |R_ki| |H_ji|",
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
            "SGD family with coupled and decoupled decay, heavy ball or Nesterov, any schedule, shrink before or after "
            "the step: m_t = g_t m_0 and alpha_t = g_t^2 alpha_0, g_t the (1,1) entry of a product of 2 x 2 matrices. "
            "After the step is before it at the rates eta (1 - eta lam_d), lam_d/(1 - eta lam_d)."
        ),
        source=Source("this package", "contains theorems 3.1 and 3.2 of Zhao et al.", "derived here"),
        room="row_sum",
        figure="row_sum_regimes",
        layers={
            **_ROW_SUM_LAYERS,
            "symbolic": (
                "proved: the one-step matrix is the update rule's, so that any schedule multiplies matrices; "
                "closed form at a constant rate for symbolic t; the change of rates, for Adam too"
            ),
        },
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
            "beta = (1 - sqrt(eta lam))^2 != 0, where alpha_t = (1 + t (1 - r))^2 rho^(2t) alpha_0; at every root "
            "pattern alpha_t <= (1 + t (1 + rho))^2 rho^(2t) alpha_0."
        ),
        source=Source(PAPER, "theorem 3.2, corrected here", "read in full"),
        room="row_sum",
        layers={"symbolic": "printed form refuted at the double root; corrected form proved"},
    ),
)
