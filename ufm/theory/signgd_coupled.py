r"""SignGD with coupled weight decay at a frozen simplex ETF, from W_0 = 0: two scalars instead of a matrix.

Setting of theorem 3.4 of Zhao et al. (arXiv 2602.16642v3): features H = c (I - J/K), c = 1/sqrt(K-1), J = 1 1^T,
n samples per class, cross-entropy, W' = W - eta sign(grad + lam W). Then W_t = (a + b) I - b J with

    a' = a + eta sign((K-1) psi(a+b) - lam a),    b' = b + eta sign(psi(a+b) - lam b),
    psi(x) = s c/(exp(c x) + K - 1),    alpha = ||W^T 1||^2/K = (a - (K-1) b)^2,

s = 1/K for the mean over samples and n for their sum. The same holds for features of any scale c > 0. Let
A(x) = (K-1) psi(x)/lam and B(x) = psi(x)/lam. Phases, for eta < x1:

1. a = b = eta t up to the first flip, at step ceil(x1/eta) with psi(2 x1) = lam x1;
2. a grows, b stays next to B(a+b), up to the step next to a*/eta, with a* = (K-1) b*, psi(K b*) = lam b*;
3. a limit cycle around (a*, b*).

Distances p = a - A(a+b) and q = b - B(a+b) from the two curves of no push give the limit. A and B fall with x, by
at most (K-1) beta and beta per unit, beta = s c^2/(4 (K-1) lam). A step moves p against its own sign, by at least
eta and at most eta (1 + 2 (K-1) beta), and q likewise by at most eta (1 + 2 beta). Hence

    |p'| <= max(|p| - eta, eta (1 + 2 (K-1) beta)),    |q'| <= max(|q| - eta, eta (1 + 2 beta)),

at every eta and from every symmetric start; and a - (K-1) b = p - (K-1) q. So |a - (K-1) b| <= C eta in the end,
C = K + 4 (K-1) beta = K + s c^2/lam, and alpha -> 0 for every schedule with eta_t -> 0 and sum eta_t = infinity.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ufm.checks import real, whole
from ufm.claims import Claim, Prediction, Source
from ufm.errors import invalid
from ufm.theory.row_sum import PAPER

if TYPE_CHECKING:
    from ufm.run import Run


# ------------------------------------------------------------------ formulas, generic in their number type


def feature_scale(classes: Any, xp: Any = np) -> Any:
    """c = 1/sqrt(K-1), the scale of the simplex ETF of theorems 3.3 and 3.4: H = c (I - J/K)."""
    return 1 / xp.sqrt(classes - 1)


def psi(x: Any, classes: Any, samples_factor: Any = None, scale: Any = None, xp: Any = np) -> Any:
    """Off-diagonal entry of grad_W at W = (a+b) I - b J, x = a + b; the diagonal is -(K-1) psi.

    psi(x) = s c/(exp(c x) + K - 1), written so that it does not overflow for large x.

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

    Examples
    --------
    >>> float(psi(0.0, 2))
    0.25
    """
    s = 1 / classes if samples_factor is None else samples_factor
    c = feature_scale(classes, xp) if scale is None else scale
    small = xp.exp(-c * x)
    return s * c * small / (1 + (classes - 1) * small)


def pushes(
    a: Any, b: Any, lam: Any, classes: Any, samples_factor: Any = None, scale: Any = None, xp: Any = np
) -> tuple[Any, Any]:
    """What a and b take the sign of: (K-1) psi(a+b) - lam a and psi(a+b) - lam b; for any number type."""
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

    Examples
    --------
    >>> a, b = reduced_step(0.0, 0.0, 0.5, 0.01, 10)
    >>> float(a), float(b)
    (0.5, 0.5)
    """
    push_a, push_b = pushes(a, b, lam, classes, samples_factor, scale, xp)
    return a + lr * xp.sign(push_a), b + lr * xp.sign(push_b)


def nc0(a: Any, b: Any, classes: Any) -> Any:
    """alpha = ||W^T 1||^2/K = (a - (K-1) b)^2 of W = (a+b) I - b J; for any number type."""
    return (a - (classes - 1) * b) ** 2


def steepest(lam: Any, classes: Any, samples_factor: Any = None, scale: Any = None, xp: Any = np) -> Any:
    """beta = s c^2/(4 (K-1) lam), the largest -psi'(x)/lam, which it takes where exp(c x) = K - 1."""
    s = 1 / classes if samples_factor is None else samples_factor
    c = feature_scale(classes, xp) if scale is None else scale
    return s * c**2 / (4 * (classes - 1) * lam)


def slope(x: Any, lam: Any, classes: Any, samples_factor: Any = None, scale: Any = None, xp: Any = np) -> Any:
    """-psi'(x)/lam = c psi(x)/(lam (1 + (K-1) exp(-c x))), between 0 and `steepest`; for any number type."""
    c = feature_scale(classes, xp) if scale is None else scale
    return c * psi(x, classes, samples_factor, c, xp) / lam / (1 + (classes - 1) * xp.exp(-c * x))


def reach(beta: Any, classes: Any) -> tuple[Any, Any]:
    """Largest move of p and of q in one step, in units of eta: 1 + 2 (K-1) beta and 1 + 2 beta."""
    return 1 + 2 * (classes - 1) * beta, 1 + 2 * beta


def width(beta: Any, classes: Any) -> Any:
    """C with |a - (K-1) b| <= C eta in the end: reach of p plus K-1 times the reach of q, K + 4 (K-1) beta."""
    of_p, of_q = reach(beta, classes)
    return of_p + (classes - 1) * of_q


# ------------------------------------------------------------------------------------ marks of the phases


def _settings(
    where: str, lam: Any, classes: Any, samples_factor: Any, scale: Any
) -> tuple[np.ndarray, Any, Any, Any]:
    """lam as an array, K, s and c as numbers; every one checked."""
    K = whole(f"{where}.classes", classes, 2)
    s = 1 / K if samples_factor is None else samples_factor
    c = float(feature_scale(K)) if scale is None else scale
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
    the upper bound x = psi(0)/lam to its root v = log x and cannot overshoot it.
    """
    target = np.log(s * c) - np.log(lam)
    v = target - np.log(K)
    for _ in range(200):
        argument = c * multiple * np.exp(v)
        excess = v + np.logaddexp(argument, np.log(K - 1)) - target
        step = excess / (1 + argument / (1 + (K - 1) * np.exp(-argument)))
        v = v - step
        if np.all(step <= 1e-9):
            break
    x = np.exp(v)
    # one more step in x itself: the logarithms above have lost a few digits
    argument = c * multiple * x
    ratio = psi(multiple * x, K, s, c) / (lam * x)
    return x * (1 + (ratio - 1) / (1 + argument / (1 + (K - 1) * np.exp(-argument))))


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
    """Step from which on b no longer grows: ceil(x1/eta). Before it, a = b = eta t.

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
    """a*/eta: the first step at which a no longer grows lies next to it; parameters of `first_flip`.

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

    Examples
    --------
    >>> round(float(limit_cycle_width(5e-3, 10)), 3), round(float(limit_cycle_width(5e-3, 10, small_eta=True)), 3)
    (12.222, 12.032)
    """
    checked = _settings("limit_cycle_width", lam, classes, samples_factor, scale)
    return width(_slopes(small_eta, checked)[1], checked[1])


def peak_is_global(lr: Any, lam: Any, classes: int, samples_factor: Any = None, scale: Any = None) -> Any:
    """Whether alpha provably never exceeds `peak`, at any step of a run at constant eta < x1 from W_0 = 0.

    Two conditions, t1 the first flip: (K-1) psi(2 eta t1) >= lam eta t1, so that a does not fall below eta t1, nor
    b rise above it; and C <= (K-2) t1. Both hold for K >= 3 and small eta. Parameters are those of `first_flip`.

    Examples
    --------
    >>> bool(peak_is_global(1e-2, 5e-3, 10)), bool(peak_is_global(0.6, 5e-3, 3))
    (True, False)
    """
    checked = _settings("peak_is_global", lam, classes, samples_factor, scale)
    t1 = first_flip(lr, *checked)
    height = t1 * _positive("peak_is_global.lr", lr)
    push_a, _ = pushes(height, height, *checked)
    return ((push_a >= 0) & (width(steepest(*checked), checked[1]) <= (checked[1] - 2) * t1))[()]


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

    Examples
    --------
    >>> envelope([2.0, 2.0, 1e-3], 0.25, 2).round(3).tolist()
    [2.0, 8.0, 8.0, 7.998]
    """
    from ufm.theory._evaluator import nonnegative

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
    """The marks of the three phases of one run; see `marks`."""

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


CLAIMS: tuple[Claim, ...] = ()
