r"""SignGD with coupled weight decay at a frozen simplex ETF, from W_0 = 0: two scalars instead of a matrix.

Setting of theorem 3.4 of Zhao et al. (arXiv 2602.16642v3): features H = c (I - J/K), c = 1/sqrt(K-1), J = 1 1^T,
n samples per class, cross-entropy, W' = W - eta sign(grad + lam W). Then W_t = (a + b) I - b J with

    a' = a + eta sign((K-1) psi(a+b) - lam a),    b' = b + eta sign(psi(a+b) - lam b),
    psi(x) = s c/(exp(c x) + K - 1),    alpha = ||W^T 1||^2/K = (a - (K-1) b)^2,

s = 1/K for the mean over samples and n for their sum. The same holds for features of any scale c > 0. Let
A(x) = (K-1) psi(x)/lam and B(x) = psi(x)/lam. Phases, for eta < x1:

1. a = b = eta t up to the first flip, at step ceil(x1/eta) with psi(2 x1) = lam x1;
2. a grows, b stays next to B(a+b), up to a step whose distance from a*/eta is bounded for all eta (`phase_2_slack`),
   with a* = (K-1) b*, psi(K b*) = lam b*;
3. a limit cycle around (a*, b*).

Distances p = a - A(a+b) and q = b - B(a+b) from the two curves of no push give the limit. A and B fall with x, by
at most (K-1) beta and beta per unit, beta = s c^2/(4 (K-1) lam). A step moves p against its own sign, by at least
eta and at most eta (1 + 2 (K-1) beta), and q likewise by at most eta (1 + 2 beta). Hence

    |p'| <= max(|p| - eta, eta (1 + 2 (K-1) beta)),    |q'| <= max(|q| - eta, eta (1 + 2 beta)),

at every eta and from every symmetric start; and a - (K-1) b = p - (K-1) q. So |a - (K-1) b| <= C eta in the end,
C = K + 4 (K-1) beta = K + s c^2/lam, and alpha -> 0 for every schedule with eta_t -> 0 and sum eta_t = infinity,
monotone or not. For eta -> 0 the slope at a* + b* takes the place of beta, for |a + b - a* - b*| <= |p + q|.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ufm.checks import real, whole
from ufm.claims import Claim, Prediction, Source
from ufm.errors import invalid
from ufm.initial import draw
from ufm.optimizers import SignGD
from ufm.theory import symmetric_path
from ufm.theory._evaluator import nonnegative
from ufm.theory._recorded import PERTURBATION, finite_records, known_rates
from ufm.theory.row_sum import PAPER
from ufm.theory.symmetric_path import (
    frame_norm,
    frame_of,
    gradient_entries,
    outside_the_setting,
    samples_factor_of,
)

if TYPE_CHECKING:
    from ufm.run import Run


# ------------------------------------------------------------------ formulas, generic in their number type


def psi(x: Any, classes: Any, samples_factor: Any = None, scale: Any = None, xp: Any = np) -> Any:
    """Off-diagonal entry of grad_W at W = (a+b) I - b J, x = a + b; the diagonal is -(K-1) psi.

    psi(x) = s c/(exp(c x) + K - 1), the entry of `symmetric_path.gradient_entries` at the logit gap c x.

    Parameters
    ----------
    x : array_like, shape (...)
        Sum a + b >= 0.
    classes : int
        K >= 2.
    samples_factor : float, optional
        s: 1/K for the mean over samples (the default), n for the sum over n samples per class.
    scale : float, optional
        c of the features c (I - J/K); 1/sqrt(K-1) by default.
    xp : module
        ``numpy``, ``math``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> float(psi(0.0, 2))
    0.25
    """
    c = frame_norm(classes, xp=xp) if scale is None else scale
    return gradient_entries(c * x, classes, c, samples_factor, xp)[1]


def pushes(
    a: Any, b: Any, lam: Any, classes: Any, samples_factor: Any = None, scale: Any = None, xp: Any = np
) -> tuple[Any, Any]:
    """What a and b take the sign of: (K-1) psi(a+b) - lam a and psi(a+b) - lam b; for any number type.

    Parameters
    ----------
    a, b, lam : number or ndarray, shape (...)
        Scalar a of W = (a+b) I - b J, scalar b, coupled decay rate > 0.
    classes : int or symbol
        Number K of classes.
    samples_factor, scale : number, optional
        s, as in `psi`, c, as in `psi`.
    xp : module
        ``numpy``, ``math``, ``sympy`` or ``mpmath``.

    Returns
    -------
    of_a, of_b : number or ndarray, shape (...)

    Examples
    --------
    >>> [round(float(push), 12) for push in pushes(0.0, 0.0, 0.01, 2)]
    [0.25, 0.25]
    """
    pull = psi(a + b, classes, samples_factor, scale, xp)
    return (classes - 1) * pull - lam * a, pull - lam * b


def reduced_step(
    a: Any,
    b: Any,
    lr: Any,
    lam: Any,
    classes: Any,
    samples_factor: Any = None,
    scale: Any = None,
    xp: Any = np,
) -> tuple[Any, Any]:
    """One step of SignGD with coupled decay on (a, b); for any number type that has a sign.

    Parameters
    ----------
    a, b, lr, lam : number or ndarray, shape (...)
        Scalar a of W = (a+b) I - b J, scalar b, learning rate, coupled decay rate > 0.
    classes : int or symbol
        Number K of classes.
    samples_factor, scale : number, optional
        s, as in `psi`, c, as in `psi`.
    xp : module
        ``numpy``, ``math``, ``sympy`` or ``mpmath``.

    Returns
    -------
    a, b : number or ndarray, shape (...)

    Examples
    --------
    >>> a, b = reduced_step(0.0, 0.0, 0.5, 0.01, 10)
    >>> float(a), float(b)
    (0.5, 0.5)
    """
    push_a, push_b = pushes(a, b, lam, classes, samples_factor, scale, xp)
    return a + lr * xp.sign(push_a), b + lr * xp.sign(push_b)


def nc0(a: Any, b: Any, classes: Any, xp: Any = np) -> Any:
    """alpha = ||W^T 1||^2/K = (a - (K-1) b)^2 of W = (a+b) I - b J; for any number type.

    Parameters
    ----------
    a, b : number or ndarray, shape (...)
        Scalar a of W = (a+b) I - b J, scalar b.
    classes : int or symbol
        Number K of classes.
    xp : module
        ``numpy``, ``math``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> float(nc0(3.0, 1.0, 3))
    1.0
    """
    return symmetric_path.nc0(a, -b, classes, xp)


def steepest(lam: Any, classes: Any, samples_factor: Any = None, scale: Any = None, xp: Any = np) -> Any:
    """beta = s c^2/(4 (K-1) lam), the largest -psi'(x)/lam, which it takes where exp(c x) = K - 1.

    Parameters
    ----------
    lam : number or ndarray, shape (...)
        Coupled decay rate > 0.
    classes : int or symbol
        Number K of classes.
    samples_factor, scale : number, optional
        s, as in `psi`, c, as in `psi`.
    xp : module
        ``numpy``, ``math``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> round(float(steepest(0.01, 2)), 12)
    12.5
    """
    s = 1 / classes if samples_factor is None else samples_factor
    c = frame_norm(classes, xp=xp) if scale is None else scale
    return s * c**2 / (4 * (classes - 1) * lam)


def slope(x: Any, lam: Any, classes: Any, samples_factor: Any = None, scale: Any = None, xp: Any = np) -> Any:
    """-psi'(x)/lam = c psi(x)/(lam (1 + (K-1) exp(-c x))), between 0 and `steepest`; for any number type.

    Parameters
    ----------
    x, lam : number or ndarray, shape (...)
        Sum a + b >= 0, coupled decay rate > 0.
    classes : int or symbol
        Number K of classes.
    samples_factor, scale : number, optional
        s, as in `psi`, c, as in `psi`.
    xp : module
        ``numpy``, ``math``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> round(float(slope(0.0, 0.01, 2)), 12)
    12.5
    """
    c = frame_norm(classes, xp=xp) if scale is None else scale
    return c * psi(x, classes, samples_factor, c, xp) / lam / (1 + (classes - 1) * xp.exp(-c * x))


def reach(beta: Any, classes: Any) -> tuple[Any, Any]:
    """Largest move of p and of q in one step, in units of eta: 1 + 2 (K-1) beta and 1 + 2 beta.

    Parameters
    ----------
    beta : number or ndarray, shape (...)
        Slope, see `steepest`.
    classes : int or symbol
        Number K of classes.

    Returns
    -------
    of_p, of_q : number or ndarray, shape (...)

    Examples
    --------
    >>> reach(0.5, 3)
    (3.0, 2.0)
    """
    return 1 + 2 * (classes - 1) * beta, 1 + 2 * beta


def width(beta: Any, classes: Any) -> Any:
    """C with |a - (K-1) b| <= C eta in the end: reach of p plus K-1 times the reach of q, K + 4 (K-1) beta.

    Parameters
    ----------
    beta : number or ndarray, shape (...)
        Slope, see `steepest`.
    classes : int or symbol
        Number K of classes.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> width(0.5, 3)
    7.0
    """
    of_p, of_q = reach(beta, classes)
    return of_p + (classes - 1) * of_q


# ------------------------------------------------------------------------------------ marks of the phases


def _settings(
    where: str, lam: Any, classes: Any, samples_factor: Any, scale: Any
) -> tuple[np.ndarray, Any, Any, Any]:
    """lam as an array, K, s and c as numbers; every one checked."""
    K = whole(f"{where}.classes", classes, 2)
    s = 1 / K if samples_factor is None else samples_factor
    c = float(frame_norm(K)) if scale is None else scale
    for name, value in {"samples_factor": s, "scale": c}.items():
        if not real(f"{where}.{name}", value) > 0:
            raise invalid(f"{where}.{name}", value, "a finite number > 0")
    return _positive(f"{where}.lam", lam), K, s, c


def _positive(where: str, value: Any) -> np.ndarray:
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise invalid(where, value, "finite numbers > 0") from None
    if not (np.isfinite(array).all() and (array > 0).all()):
        raise invalid(where, value, "finite numbers > 0")
    return array


def _balance(multiple: float, lam: np.ndarray, K: int, s: float, c: float) -> np.ndarray:
    """The x > 0 with psi(multiple x) = lam x, to a few eps.

    F(v) = v + log(exp(c multiple e^v) + K - 1) - log(s c/lam) rises and is convex, so that Newton's steps fall from
    an upper bound to its root v = log x and cannot overshoot it. One bound is x = psi(0)/lam, the other follows from
    exp(c multiple x) x <= s c/lam.
    """
    target, rate = np.log(s * c) - np.log(lam), c * multiple
    v = np.minimum(target - np.log(K), np.log(np.maximum(1.0, target + np.log(rate)) / rate))
    for _ in range(100):
        argument = rate * np.exp(v)
        excess = v + np.logaddexp(argument, np.log(K - 1)) - target
        step = excess / (1 + argument / (1 + (K - 1) * np.exp(-argument)))
        v = v - step
        if np.all(step <= 1e-9):
            break
    x = np.exp(v)
    # one more step in x itself: the logarithms above have lost a few digits
    argument = rate * x
    ratio = psi(multiple * x, K, s, c) / (lam * x)
    root: np.ndarray = x * (1 + (ratio - 1) / (1 + argument / (1 + (K - 1) * np.exp(-argument))))
    return root


def first_balance(lam: Any, classes: int, samples_factor: Any = None, scale: Any = None) -> Any:
    """x1, where a = b = x1 stops growing: psi(2 x1) = lam x1.

    Parameters
    ----------
    lam : array_like, shape (...)
        Coupled decay rate > 0.
    classes, samples_factor, scale
        As in `psi`.

    Returns
    -------
    float or ndarray, shape (...)
        Relative error below 1e-14.

    Raises
    ------
    InvalidProblemError
        For a rate that is not > 0 or fewer than two classes.

    Examples
    --------
    >>> round(float(first_balance(5e-3, 10)), 5)
    0.63339
    """
    return _balance(2.0, *_settings("first_balance", lam, classes, samples_factor, scale))[()]


def first_flip(lr: Any, lam: Any, classes: int, samples_factor: Any = None, scale: Any = None) -> Any:
    """First step at which b does not grow: ceil(x1/eta). Up to it, a = b = eta t.

    Parameters
    ----------
    lr, lam : array_like, shape (...)
        Constant learning rate and coupled decay rate, > 0.
    classes, samples_factor, scale
        As in `psi`.

    Returns
    -------
    int or ndarray of int, shape (...)

    Examples
    --------
    >>> int(first_flip(1e-2, 5e-3, 10))
    64
    """
    x1 = _balance(2.0, *_settings("first_flip", lam, classes, samples_factor, scale))
    return np.ceil(x1 / _positive("first_flip.lr", lr)).astype(np.int64)[()]


def peak(lr: Any, lam: Any, classes: int, samples_factor: Any = None, scale: Any = None) -> Any:
    """alpha at the end of phase 1, its largest value there: ((K-2) eta ceil(x1/eta))^2; parameters of `first_flip`.

    It is the largest alpha of the whole run if `peak_is_global`.

    Parameters
    ----------
    lr, lam, classes, samples_factor, scale
        As in `first_flip`.

    Returns
    -------
    ndarray or float, shape (...)

    Examples
    --------
    >>> round(float(peak(1e-2, 5e-3, 10)), 4)
    26.2144
    """
    step = _positive("peak.lr", lr) * first_flip(lr, lam, classes, samples_factor, scale)
    return (((classes - 2) * step) ** 2)[()]


def end_point(lam: Any, classes: int, samples_factor: Any = None, scale: Any = None) -> tuple[Any, Any]:
    """Centre (a*, b*) of the limit cycle: a* = (K-1) b*, psi(K b*) = lam b*; parameters of `first_balance`.

    W = (a* + b*) I - b* J is the minimiser of the objective among all W: it is critical and the objective is convex.

    Parameters
    ----------
    lam, classes, samples_factor, scale
        As in `first_balance`.

    Returns
    -------
    a, b : ndarray or float, shape (...)

    Examples
    --------
    >>> a, b = end_point(5e-3, 10)
    >>> round(float(a), 5), round(float(b), 6)
    (4.30731, 0.47859)
    """
    settings = _settings("end_point", lam, classes, samples_factor, scale)
    b = _balance(float(settings[1]), *settings)[()]
    return (classes - 1) * b, b


def phase_2_end(lr: Any, lam: Any, classes: int, samples_factor: Any = None, scale: Any = None) -> Any:
    """a*/eta, which the first step at which a does not grow is near, within `phase_2_slack`; as `first_flip`.

    Parameters
    ----------
    lr, lam, classes, samples_factor, scale
        As in `first_flip`.

    Returns
    -------
    ndarray or float, shape (...)

    Examples
    --------
    >>> round(float(phase_2_end(1e-2, 5e-3, 10)), 3)
    430.731
    """
    return end_point(lam, classes, samples_factor, scale)[0] / _positive("phase_2_end.lr", lr)


def phase_2_range(lowest: Any, highest: Any, classes: Any) -> tuple[Any, Any]:
    """Smallest and largest (end of phase 2) - a*/eta, for slopes -psi'/lam in [lowest, highest]; any number type.

    There a = A(x) + p and b = B(x) + q with 0 <= p <= eta (reach of p), |q| <= eta (reach of q), and so
    a - a* = ((1 + g) p - (K-1) g q)/(1 + K g), g the mean slope between x and x*.

    Parameters
    ----------
    lowest, highest : number or ndarray, shape (...)
        Least and largest -psi'/lam on the way.
    classes : int or symbol
        Number K of classes.

    Returns
    -------
    before, after : number or ndarray, shape (...)

    Examples
    --------
    >>> phase_2_range(0.0, 0.5, 3)
    (-0.8, 3.0)
    """
    of_p, of_q = reach(highest, classes)
    above = ((1 + lowest) * of_p + (classes - 1) * lowest * of_q) / (1 + classes * lowest)
    return -(classes - 1) * highest * of_q / (1 + classes * highest), above


def _slopes(small_eta: bool, checked: tuple[np.ndarray, Any, Any, Any]) -> tuple[Any, Any]:
    """Range of -psi'/lam that a run can meet in the end: anything, or for eta -> 0 that at a* + b*."""
    if not small_eta:
        return 0.0, steepest(*checked)
    K = checked[1]
    here = slope(K * _balance(float(K), *checked), *checked)
    return here, here


def phase_2_slack(
    lam: Any, classes: int, samples_factor: Any = None, scale: Any = None, small_eta: bool = False
) -> tuple[Any, Any]:
    """How many steps the end of phase 2 may lie before and after a*/eta, at every eta < x1 or for eta -> 0.

    Parameters are those of `limit_cycle_width`.

    Parameters
    ----------
    lam, classes, samples_factor, scale, small_eta
        As in `limit_cycle_width`.

    Returns
    -------
    before, after : ndarray or float, shape (...)

    Examples
    --------
    >>> before, after = phase_2_slack(5e-3, 10, small_eta=True)
    >>> round(float(before), 2), round(float(after), 2)
    (-0.36, 1.72)
    """
    checked = _settings("phase_2_slack", lam, classes, samples_factor, scale)
    return phase_2_range(*_slopes(small_eta, checked), checked[1])


def limit_cycle_width(
    lam: Any, classes: int, samples_factor: Any = None, scale: Any = None, small_eta: bool = False
) -> Any:
    """C = K + s c^2/lam: |a - (K-1) b| <= C eta in the end, at every eta and from every symmetric start.

    Parameters
    ----------
    lam : array_like, shape (...)
        Coupled decay rate > 0.
    classes, samples_factor, scale
        As in `psi`.
    small_eta : bool
        The smaller C = K + 4 (K-1) beta*, beta* = -psi'(a* + b*)/lam, which bounds the limit of the largest
        |a - (K-1) b|/eta for eta -> 0.

    Returns
    -------
    ndarray or float, shape (...)

    Examples
    --------
    >>> round(float(limit_cycle_width(5e-3, 10)), 3), round(float(limit_cycle_width(5e-3, 10, small_eta=True)), 3)
    (12.222, 12.032)
    """
    checked = _settings("limit_cycle_width", lam, classes, samples_factor, scale)
    return width(_slopes(small_eta, checked)[1], checked[1])


def peak_margin(flip: Any, beta: Any, classes: Any) -> Any:
    """(K-2) t1 - C, t1 the first flip: if >= 0, no later alpha exceeds ((K-2) eta t1)^2; for any number type.

    Parameters
    ----------
    flip : number or ndarray, shape (...)
        Step t1 of the first flip.
    beta : number or ndarray, shape (...)
        Slope, see `steepest`.
    classes : int or symbol
        Number K of classes.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> peak_margin(20, 0.5, 3)
    13.0
    """
    return (classes - 2) * flip - width(beta, classes)


def peak_is_global(lr: Any, lam: Any, classes: int, samples_factor: Any = None, scale: Any = None) -> Any:
    """Whether alpha provably never exceeds `peak`, at any step of a run at constant eta < x1 from W_0 = 0.

    The condition is C <= (K-2) t1, t1 the first flip. It holds for K >= 3 and small eta, and implies that the push
    of a is positive at a = b = eta t1, so that a does not fall below eta t1, nor b rise above it. Parameters are those
    of `first_flip`.

    Parameters
    ----------
    lr, lam, classes, samples_factor, scale
        As in `first_flip`.

    Returns
    -------
    bool, or ndarray of bool, shape (...)

    Examples
    --------
    >>> bool(peak_is_global(1e-2, 5e-3, 10)), bool(peak_is_global(0.6, 5e-3, 3))
    (True, False)
    """
    checked = _settings("peak_is_global", lam, classes, samples_factor, scale)
    return (peak_margin(first_flip(lr, *checked), steepest(*checked), checked[1]) >= 0)[()]


def envelope(
    rates: Any, lam: float, classes: int, samples_factor: Any = None, scale: Any = None
) -> np.ndarray:
    """Bound on |a_t - (K-1) b_t| after each step of any schedule, from W_0 = 0: P_t + (K-1) Q_t.

    P_{t+1} = max(P_t - eta_t, (1 + 2 (K-1) beta) eta_t) from P_0 = (K-1) psi(0)/lam, and Q likewise without K-1. It
    tends to 0 if eta_t -> 0 and sum eta_t = infinity, and also, with a finite sum, for stages of rate eta_0/f^j
    that last (f - 1) (1 + 2 (K-1) beta) steps or more each, once the first has brought P and Q down.

    Parameters
    ----------
    rates : array_like, shape (steps,)
        Learning rate of each step, >= 0.
    lam : float
        Coupled decay rate > 0.
    classes, samples_factor, scale
        As in `psi`.

    Returns
    -------
    ndarray, shape (steps + 1,)

    Raises
    ------
    InvalidProblemError
        For a negative rate, or a lam that is not one number > 0.

    Examples
    --------
    >>> envelope([2.0, 2.0, 1e-3], 0.25, 2).round(3).tolist()
    [2.0, 8.0, 8.0, 7.998]
    """
    checked = _settings("envelope", lam, classes, samples_factor, scale)
    if checked[0].ndim:
        raise invalid("envelope.lam", lam, "one finite number > 0")
    eta = np.atleast_1d(nonnegative("envelope.rates", rates, np.inf))
    factors = [float(factor) for factor in reach(steepest(*checked), checked[1])]
    _, start = pushes(0.0, 0.0, *checked)
    totals = [float(start / checked[0]) * weight for weight in (checked[1] - 1, 1)]
    bound = np.empty(len(eta) + 1)
    bound[0] = totals[0] + (checked[1] - 1) * totals[1]
    for t, rate in enumerate(eta.tolist()):
        totals = [max(value - rate, factor * rate) for value, factor in zip(totals, factors, strict=True)]
        bound[t + 1] = totals[0] + (checked[1] - 1) * totals[1]
    return bound


@dataclass(frozen=True)
class Marks:
    """The marks of the three phases of one run; see `marks`.

    Parameters
    ----------
    x1 : float
        a = b = x1 at the end of phase 1, before rounding to the grid.
    first_flip : int
        Step, ceil(x1/eta).
    peak, peak_continuous : float
        alpha there, on the grid, and ((K-2) x1)^2, its limit for eta -> 0.
    a_end, b_end : float
        Centre of the limit cycle.
    phase_2_end : float
        a*/eta, a number of steps.
    width : float
        C of |a - (K-1) b| <= C eta in the end.

    Examples
    --------
    >>> found = marks(1e-2, 5e-3, 10)
    >>> found.first_flip, round(found.x1, 6), round(found.width, 3)
    (64, 0.633388, 12.222)
    """

    x1: float  # a = b = x1 at the end of phase 1, before rounding to the grid
    first_flip: int  # step, ceil(x1/eta)
    peak: float  # alpha there, on the grid
    peak_continuous: float  # ((K-2) x1)^2, its limit for eta -> 0
    a_end: float
    b_end: float
    phase_2_end: float  # a*/eta, a number of steps
    width: float  # C of |a - (K-1) b| <= C eta in the end


def marks(lr: float, lam: float, classes: int, samples_factor: Any = None, scale: Any = None) -> Marks:
    """All marks of a run at a constant rate.

    Parameters
    ----------
    lr, lam : float
        Learning rate in (0, x1) and coupled decay rate > 0.
    classes, samples_factor, scale
        As in `psi`.

    Returns
    -------
    Marks

    Raises
    ------
    InvalidProblemError
        For lr >= x1: the first step already overshoots, and there are no phases.

    Examples
    --------
    >>> found = marks(1e-2, 5e-3, 10)
    >>> found.first_flip, round(found.peak, 4), round(found.a_end, 5)
    (64, 26.2144, 4.30731)
    """
    settings = (float(lam), classes, samples_factor, scale)
    x1 = float(first_balance(*settings))
    if not 0 < real("marks.lr", lr) < x1:
        raise invalid("marks.lr", lr, f"a number in (0, x1), x1 = {x1:.6g}")
    a_end, b_end = end_point(*settings)
    return Marks(
        x1,
        int(first_flip(lr, *settings)),
        float(peak(lr, *settings)),
        ((classes - 2) * x1) ** 2,
        float(a_end),
        float(b_end),
        float(phase_2_end(lr, *settings)),
        float(limit_cycle_width(*settings)),
    )


# ---------------------------------------------------------------------------------- hypotheses about runs


def _other_run(run: Run) -> str | None:
    """Why W_t is not known to follow the two-scalar recursion, or None."""
    reason, last = outside_the_setting(run, "theorem 3.4"), run.problem.last
    if reason is not None:
        return reason
    if type(run.optimizer) is not SignGD:
        return f"the optimizer is {type(run.optimizer).__name__}; theorem 3.4 is for SignGD"
    if run.decoupled[last]:
        return f"decoupled decay {run.decoupled[last]:g} acts on W; theorem 3.4 is for coupled decay alone"
    if not run.coupled[last]:
        return "no coupled decay acts on W; theorem 3.4 needs lam > 0"
    return None


def _hypotheses(run: Run) -> str | None:
    reason = _other_run(run)
    if reason is not None:
        return reason
    largest = max(float(np.abs(block).max()) for block in draw(run.problem, run.init, run.seed).values())
    if largest > 0:
        return f"the largest entry of W_0 is {largest:g}; theorem 3.4 starts at W_0 = 0"
    rates = known_rates(run)
    if rates is None:
        return (
            "the learning rate is a schedule and the number of steps is not given; theorem 3.4 needs eta < x1"
        )
    K, s, c = _parameters(run)
    x1, fastest = float(first_balance(run.coupled[run.problem.last], K, s, c)), float(rates.max(initial=0.0))
    if fastest >= x1:
        return (
            f"the largest learning rate {fastest:g} is not below x1 = {x1:.6g}, where psi(2 x1) = lam x1; the phases "
            "of theorem 3.4 need eta < x1"
        )
    return None


# ---------------------------------------------------------------------------------- predictions about runs


def _parameters(run: Run) -> tuple[int, float, float]:
    """K, s and c of a run in the setting of the theorem."""
    scale = frame_of(run.problem)
    assert scale is not None
    return run.problem.classes, samples_factor_of(run.problem), scale


def sign_slack(a: float, b: float, pull: float, lam: float, classes: int, scale: float, samples: int) -> Any:
    """What round-off may add to the two entries of grad + lam W at W = (a+b) I - b J, in units of eps = 2 u.

    With Z0 = c (|a| + 2 |b|), the largest sum of |W_kj| |H_jy| behind a logit, the error model counts the roundings
    behind one entry: K + 4 of a logit, twice (it is compared with the largest), twice again (softmax divides two
    exponentials), each worth u Z0; 2 K in two sums of probabilities; N in the product with H; 48 in the
    exponentials, scales and features. They are worth u times the sum of the absolute terms of the entry: (K-1) psi on
    the diagonal, where nothing cancels, and at most 3 psi off it. The decay adds two eps lam |W|.

    Parameters
    ----------
    a, b : float
        The two scalars of W.
    pull : float
        psi(a + b).
    lam : float
        Coupled decay rate.
    classes, samples : int
        K and N.
    scale : float
        C.

    Returns
    -------
    diagonal, off_diagonal : float

    Examples
    --------
    >>> sign_slack(0.0, 0.0, 0.25, 0.01, 2, 1.0, 2)
    (6.75, 20.25)
    """
    logits = scale * (abs(a) + 2 * abs(b))
    relative = (2 * classes + 10) * logits + classes + samples / 2 + 24
    return (
        relative * (classes - 1) * pull + 2 * lam * abs(a),
        relative * 3 * pull + 2 * lam * abs(b),
    )


def gradient_lipschitz(classes: Any, samples_factor: Any, scale: Any) -> Any:
    """L with |grad_W(V) - grad_W(W)| <= L |V - W| in the largest entry: 2 s c^2 ((K-1)/K)^2.

    A logit moves by at most |V - W| sum_j |H_jy|, a probability p by 2 p (1 - p) <= 1/2 of that, and an entry of the
    gradient by s sum_y |H_jy| of that; both sums of |H| are 2 c (K-1)/K.

    Parameters
    ----------
    classes : int or symbol
        Number K of classes.
    samples_factor, scale : number
        s and c.

    Returns
    -------
    number

    Examples
    --------
    >>> gradient_lipschitz(2, 0.5, 1.0)
    0.25
    """
    return 2 * samples_factor * (scale * (classes - 1) / classes) ** 2


@dataclass(frozen=True)
class Path:
    """The two-scalar recursion of one run, and how far the matrix may have left it.

    Parameters
    ----------
    a, b : ndarray, shape (steps + 1,)
        The two scalars.
    radius : ndarray, shape (steps + 1,)
        Largest |W_ij - prediction|.
    undecided : int
        Steps at which a sign was nearer to a tie than round-off and the radius.

    Examples
    --------
    >>> path(np.full(3, 0.5), 0.01, 10, 0.1, 1 / 3, 10).undecided
    0
    """

    a: np.ndarray  # shape (steps + 1,)
    b: np.ndarray  # shape (steps + 1,)
    radius: np.ndarray  # largest |W_ij - prediction|, shape (steps + 1,)
    undecided: int  # steps at which a sign was nearer to a tie than round-off and the radius


def path(
    rates: np.ndarray,
    lam: float,
    classes: int,
    samples_factor: float,
    scale: float,
    samples: int,
    dtype: str = "float64",
) -> Path:
    """(a_t, b_t) from W_0 = 0 at any schedule, rounded as a run of this precision rounds them.

    As long as every sign is decided the matrix takes the same steps as (a, b), rounded alike, so that both are equal
    bit for bit. A sign is decided if |push| exceeds what round-off (`sign_slack`) and the distance already there
    (`gradient_lipschitz`) can do; where it is not, an entry may go the other way and the distance grows by 2 eta.

    Parameters
    ----------
    rates : ndarray, shape (steps,)
        Learning rates.
    lam : float
        Coupled decay rate.
    classes, samples : int
        K and N.
    samples_factor, scale : float
        s and c.
    dtype : {"float64", "float32"}
        Precision of the run.

    Returns
    -------
    Path

    Examples
    --------
    >>> path(np.full(3, 0.5), 0.01, 10, 0.1, 1 / 3, 10).a.tolist()
    [0.0, 0.5, 1.0, 1.5]
    """
    eps, single = float(np.finfo(dtype).eps), dtype == "float32"
    lam, scale = float(lam), float(scale)  # numpy's scalars would slow the loop down
    stiffness = lam + gradient_lipschitz(classes, samples_factor, scale)
    a = b = radius = 0.0
    undecided, found = 0, np.zeros((len(rates) + 1, 3))
    for t, rate in enumerate(rates.tolist()):
        push_a, push_b = pushes(a, b, lam, classes, samples_factor, scale, math)
        slack_a, slack_b = sign_slack(a, b, push_b + lam * b, lam, classes, scale, samples)
        reachable = stiffness * radius
        near_a, near_b = abs(push_a) <= eps * slack_a + reachable, abs(push_b) <= eps * slack_b + reachable
        a += rate * ((push_a > 0) - (push_a < 0))
        b += rate * ((push_b > 0) - (push_b < 0))
        if single:
            a, b = float(np.float32(a)), float(np.float32(b))
        if near_a or near_b:
            undecided += 1
            radius += 2 * rate
        if radius:  # roundings are no longer alike
            radius += eps * max(abs(a), abs(b))
        found[t + 1] = a, b, radius
    return Path(found[:, 0], found[:, 1], found[:, 2], undecided)


def _prediction(run: Run, lam_error: float = 0.0, printed: bool = False) -> Prediction:
    """W_t against the recursion, with lam off by a relative error or with the softmax exponent printed in the paper.

    Records are judged as long as the radius of `path` is below the relative error of the control; past a tie at a
    constant rate it soon exceeds the weights themselves, and would allow anything.
    """

    kept, traj, problem = finite_records(run), run.trajectory, run.problem
    assert traj is not None
    quantity = "W_t, against (a + b) I - b J of the two-scalar recursion,"
    if not len(kept):
        return Prediction(quantity, np.zeros((0, 1)), np.zeros((0, 1)), np.zeros(0))
    K, s, c = _parameters(run)
    dtype = np.dtype(run.dtype)
    steps = np.asarray(traj.steps)[kept]
    rates = run.rates[: steps[-1]].astype(dtype).astype(np.float64)
    lam = float(dtype.type(run.coupled[problem.last])) * (1 + lam_error)
    # s c/(exp(c^2 x) + K - 1), the printed form, is psi at other constants
    found = path(rates, lam, K, *((s / c, c**2) if printed else (s, c)), problem.samples, run.dtype)
    a, b, radius = found.a[steps], found.b[steps], found.radius[steps]
    size = np.maximum(np.abs(a), np.abs(b))
    judged = np.logical_and.accumulate(radius <= PERTURBATION[run.dtype] * size)
    W = traj["W"][kept].astype(np.float64)
    square, rest = W[:, :, :K], np.abs(W[:, :, K:]).reshape(len(kept), -1).max(axis=1, initial=0.0)
    diagonal = np.diagonal(square, axis1=1, axis2=2)
    off = square[:, ~np.eye(K, dtype=bool)]
    observed = [f(values, axis=1) for values in (diagonal, off) for f in (np.min, np.max)]
    if found.undecided:
        quantity += f" with {found.undecided} steps whose signs round-off can turn,"
    if not judged.all():
        quantity += f" judged up to step {steps[judged].max(initial=0)},"
    return Prediction(
        quantity,
        np.stack([a, a, -b, -b, np.zeros_like(a)], axis=1),
        np.stack([*observed, rest], axis=1),
        np.where(judged, radius + np.finfo(dtype).eps * size, np.inf),
        nc0(a, b, K),
    )


def _earlier_flip(run: Run) -> float:
    """Relative error of lam that takes a little more than the largest rate off x1: b stops growing a step earlier.

    At the step before the first flip a = b > x1 - eta, so that every run which flips shows it, at every K.
    """
    (K, s, c), lam = _parameters(run), run.coupled[run.problem.last]
    earlier = float(first_balance(lam, K, s, c)) - float(run.rates.max(initial=0.0))
    earlier *= 1 - PERTURBATION[run.dtype]
    return float(psi(2 * earlier, K, s, c, math)) / (lam * earlier) - 1


def _perturbed(run: Run) -> Prediction:
    """lam wrong by 1e-6 where some sign of the run shows it, else the printed exponent, else a flip one step early.

    Each is held against the claim's bound too, for a bound that the claim needs must not be too wide for the control.
    """
    bound = _prediction(run).bound
    statements: tuple[Callable[[], Prediction], ...] = (
        lambda: _prediction(run, PERTURBATION[run.dtype]),
        lambda: _prediction(run, printed=True),
        lambda: _prediction(run, _earlier_flip(run)),
    )
    for statement in statements:
        wrong = statement()
        wrong = replace(wrong, bound=np.maximum(wrong.bound, bound))
        if wrong.ratio > 1:
            break
    return wrong


# ------------------------------------------------------------------------------------------------- claims


CLAIMS = (
    Claim(
        name="zhao2026.thm3.4",
        statement=(
            "SignGD with coupled decay on W alone, H frozen at the simplex ETF, W_0 = 0: W_t = (a + b) I - b J with "
            "a' = a + eta sign((K-1) psi - lam a), b' = b + eta sign(psi - lam b), "
            "psi = s c/(exp(c (a + b)) + K - 1), alpha_t = (a - (K-1) b)^2. For eta < x1, psi(2 x1) = lam x1, alpha "
            "rises to ((K-2) eta ceil(x1/eta))^2 at step ceil(x1/eta), phase 2 ends within a number of steps of a*/eta "
            "that does not depend on eta, a* = (K-1) b*, psi(K b*) = lam b*; alpha -> 0 if eta_t -> 0 and "
            "sum eta_t = infinity."
        ),
        source=Source(PAPER, "theorem 3.4, marks and constants derived here", "read in full"),
        room="signgd_coupled",
        figure="signgd_phases",
        layers={
            "symbolic": (
                "reduction, psi, phases and limit proved for symbolic K, eta, lam; marks certified by interval "
                "arithmetic at a table of (K, lam, eta)"
            ),
            "simulation": (
                "bit for bit while every sign is clear of round-off; then within 2 eta per step that is not, judged "
                "while this stays below 1e-6 of the weights (1e-2 in float32)"
            ),
        },
        applies=_hypotheses,
        predict=_prediction,
        control=_perturbed,
        rank=20,
    ),
    Claim(
        name="ufm.signgd_limit_cycle",
        statement=(
            "SignGD with coupled decay in the setting of theorem 3.4, from every symmetric start and at every "
            "eta: in the end |a - (K-1) b| <= (K + s c^2/lam) eta; for eta -> 0 with K + 4 (K-1) beta*, "
            "beta* = -psi'(a* + b*)/lam. Hence alpha -> 0 if eta_t -> 0 and sum eta_t = infinity, monotone or not; "
            "rates eta_0/f^j in stages of (f - 1) (1 + s c^2/(2 lam)) steps or more suffice too, after a first one "
            "that reaches the cycle."
        ),
        source=Source("this package", "limit cycle of theorem 3.4 of Zhao et al.", "derived here"),
        room="signgd_coupled",
        figure="signgd_phases",
        layers={
            "symbolic": "proved for symbolic K, eta, lam, s, c",
            "simulation": "never exceeded in random cases, reached to 0.98",
        },
    ),
    Claim(
        name="zhao2026.thm3.4.erratum_exponent",
        statement=(
            "The proof of theorem 3.4 prints the softmax exponent (a+b)/(K-1); the gradient has (a+b)/sqrt(K-1). "
            "Equal at K = 2 alone. The conclusions stand, with other marks."
        ),
        source=Source(PAPER, "proof of theorem 3.4, corrected here", "read in full"),
        room="signgd_coupled",
        layers={"symbolic": "printed form refuted for every K >= 3 by the gradient; corrected form proved"},
    ),
    Claim(
        name="zhao2026.thm3.4.erratum_alpha",
        statement=(
            "The proof of theorem 3.4 prints alpha = (1/N) (a - (K-1) b)^2 once; ||W^T 1||^2/K = (a - (K-1) b)^2."
        ),
        source=Source(PAPER, "proof of theorem 3.4, corrected here", "read in full"),
        room="signgd_coupled",
        layers={"symbolic": "printed form refuted, corrected form proved, symbolic K"},
    ),
    Claim(
        name="zhao2026.table1.erratum",
        statement=(
            "Table 1 swaps the rows of SignGD: whether NC0 vanishes is 'no' for decoupled decay (K >= 3, "
            "0 < eta lam < 1, theorem 3.3) and 'yes' for coupled decay with a step-wise decay of the learning rate "
            "whose stages are long enough for the limit cycle (theorem 3.4)."
        ),
        source=Source(PAPER, "table 1, corrected here", "read in full"),
        room="signgd_coupled",
        layers={"symbolic": "both limits of alpha proved; printed rows refuted"},
    ),
)
