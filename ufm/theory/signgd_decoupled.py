r"""SignGD with decoupled decay on features frozen at the simplex ETF: theorem 3.3, and what surrounds it.

Setting (Zhao et al., arXiv 2602.16642v3): H = c (I - J/K) with c = 1/sqrt(K-1), one sample per class, logits
Z = W H, cross-entropy, W' = (1 - eta lam) W - eta sign(grad). At W = x I + y J the softmax S of Z has two values,
grad is a positive multiple of J - K I and its sign is J - 2I, whatever x and y. From W_0 = 0 therefore

    W_t = w_t (J - 2I),   w_t = -(1 - prod (1 - eta_s lam))/lam,   alpha_t = ((K - 2) w_t)^2 -> ((K - 2)/lam)^2.

The same holds, for the same reason, for any c > 0; for rows of zeros below H; for several samples per class, of
unequal number as long as any two classes hold more than N/K of the N samples together; for the mean and the sum
over samples; for Signum at every momentum, whose buffer is a positive combination of gradients with the same signs;
and for Adam without averages and eps.

Elsewhere. W' = (1 - g) W + g V with g = eta lam and V = -sign(grad)/lam: Frank-Wolfe on the box |W_ij| <= 1/lam,
whose only minimiser of the (convex) cross-entropy is W* = (2I - J)/lam. The gradient is negative on the diagonal
at every W; off it, it is positive iff S_ij + 1/K > mean_k S_ik. That holds as soon as W is nearer than
`lock_radius` to some x I + y J, and then for ever. `convergence_margin` > 0 makes every start get there. Both are
sufficient. At K = 3 and eta above about 2 (`cycle_threshold`) some starts end on a cycle instead (`cycle_state`);
what happens in between is measured, not proved (claim ufm.signgd_basin).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ufm.checks import real
from ufm.claims import Claim, Prediction, Source
from ufm.decay import shrinks_after
from ufm.errors import invalid
from ufm.initial import draw
from ufm.optimizers import Adam, SignGD, Signum
from ufm.theory import symmetric_path
from ufm.theory._evaluator import LARGEST, nonnegative, rates_of, steps_of
from ufm.theory._recorded import (
    PERTURBATION,
    exact_row_sum,
    finite_records,
    known_rates,
    running_maximum,
)
from ufm.theory.row_sum import PAPER, growth, log_growth, round_off_bound, theorem_3_1
from ufm.theory.symmetric_path import (
    frame_norm,
    frame_of,
    gradient_entries,
    opposite_values,
    outside_the_setting,
)

if TYPE_CHECKING:
    from ufm.run import Run

ROOM = "signgd_decoupled"


# ------------------------------------------------------------------ formulas, generic in their number type


def weight_of_shrinkage(shrinkage: Any, lam: Any) -> Any:
    """w = -(1 - g)/lam, g the product of the 1 - eta_s lam so far, for any number type.

    Parameters
    ----------
    shrinkage : number or ndarray, shape (...)
        G.
    lam : number or ndarray, shape (...)
        Decoupled decay rate > 0.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> weight_of_shrinkage(0.75, 0.5)
    -0.5
    """
    return -(1 - shrinkage) / lam


def weight_closed_form(t: Any, lr: Any, lam: Any) -> Any:
    """w_t = -(1 - (1 - eta lam)^t)/lam as it is proved; `weight` evaluates it without cancellation.

    Parameters
    ----------
    t : number or ndarray, shape (...)
        Number of steps.
    lr, lam : number or ndarray, shape (...)
        Learning rate, decoupled decay rate > 0.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> weight_closed_form(2, 0.5, 0.5)
    -0.875
    """
    return weight_of_shrinkage(theorem_3_1(t, lr, lam), lam)


def weight(t: Any, lr: Any, lam: Any, xp: Any = np, schedule: Any = None) -> Any:
    """w_t of W_t = w_t (J - 2I), the state after t steps from W_0 = 0.

    Error in float64: a few units in the last place at every eta lam, also next to 1 and 2, and for eta lam t far
    below the spacing of numbers next to 1.

    Parameters
    ----------
    t : array_like of int, shape (...)
        Number of steps, broadcast against the other parameters.
    lr : array_like, shape (...)
        Constant learning rate eta; None if a schedule is given.
    lam : array_like, shape (...)
        Decoupled decay rate >= 0; at 0, w_t is minus the sum of the learning rates.
    xp : module
        ``numpy``; any other number module leads to `weight_closed_form`.
    schedule : array_like, shape (steps,), optional
        Learning rate of each step, instead of `lr`.

    Returns
    -------
    ndarray or float, shape (...)

    Raises
    ------
    InvalidProblemError
        For a negative or non-finite rate, a step that is no whole number >= 0, or a schedule shorter than t.

    Examples
    --------
    >>> float(weight(2, 0.5, 1.0)), float(weight(3, 0.5, 0.0))
    (-0.75, -1.5)
    >>> float(weight(2, None, 1.0, schedule=[0.5, 0.25]))
    -0.625
    """
    if xp is not np:
        if schedule is not None:
            raise invalid("weight.xp", xp, "numpy for a schedule")
        return weight_closed_form(t, lr, lam)
    t, lam = steps_of("weight.t", t), nonnegative("weight.lam", lam)
    if schedule is None:
        if lr is None:
            raise invalid("weight.lr", lr, "a learning rate, or a schedule")
        moved = nonnegative("weight.lr", lr) * t
    else:
        rates = rates_of(schedule, int(t.max(initial=0)))
        moved = np.concatenate([[0.0], np.cumsum(rates)])[t]
    sign, log = log_growth(t, lr, decoupled=lam, schedule=schedule)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        # 1 - g by expm1 where g > 0; where g < 0 nothing cancels
        lost = np.where(sign > 0, -np.expm1(log), 1 - sign * np.exp(log))
        # below 1e-20 the decay has not been felt: w_t is the way gone without it
        return np.where(lam * moved < 1e-20, -moved, -lost / lam)[()]


def nc0(t: Any, lr: Any, lam: Any, classes: Any, schedule: Any = None) -> Any:
    """alpha_t = ((K - 2) w_t)^2 after t steps from W_0 = 0; exactly 0 for K = 2. Parameters as in `weight`.

    Parameters
    ----------
    t, lr, lam, schedule
        As in `weight`.
    classes : array_like of int, shape (...)
        Number K of classes >= 2.

    Returns
    -------
    ndarray or float, shape (...)

    Examples
    --------
    >>> float(nc0(2, 0.5, 1.0, classes=4))
    2.25
    """
    return nc0_of_weight(weight(t, lr, lam, schedule=schedule), classes_of("nc0.classes", classes))


def nc0_of_weight(w: Any, classes: Any) -> Any:
    """alpha = ||W^T 1||^2/K of W = w (J - 2I), for any number type: W^T 1 = (K - 2) w 1.

    Parameters
    ----------
    w : number or ndarray, shape (...)
        Weight w of W = w (J - 2I).
    classes : int or symbol
        Number K of classes.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> nc0_of_weight(-2.0, 4)
    16.0
    """
    return ((classes - 2) * w) ** 2


def limit(lam: Any, classes: Any) -> Any:
    """((K - 2)/lam)^2, where alpha_t tends if 0 < eta lam < 2; for any number type.

    Parameters
    ----------
    lam : number or ndarray, shape (...)
        Decoupled decay rate > 0.
    classes : int or symbol
        Number K of classes.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> limit(0.5, 4)
    16.0
    """
    return nc0_of_weight(limit_weight(lam), classes)


def limit_weight(lam: Any) -> Any:
    """w_t -> -1/lam, for any number type.

    Parameters
    ----------
    lam : number or ndarray, shape (...)
        Decoupled decay rate > 0.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> limit_weight(0.5)
    -2.0
    """
    return -1 / lam


def logit_gap(w: Any, classes: Any, xp: Any = np) -> Any:
    """Logit of the true class minus that of any other at W = w (J - 2I): -2 w/sqrt(K - 1).

    It tends to 2/(lam sqrt(K - 1)); beyond 745 the probabilities of the wrong classes are 0 in float64.

    Parameters
    ----------
    w : array_like, shape (...)
        Weight as `weight` returns it.
    classes : array_like of int, shape (...)
        Number K of classes.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> float(logit_gap(-1 / 5e-4, 10).round(1))
    1333.3
    """
    return symmetric_path.logit_gap(*opposite_values(w), frame_norm(classes, xp=xp))


def class_size_margin(first: Any, second: Any, samples: Any, classes: Any) -> Any:
    """n_i + n_j - N/K, the sign of the gradient at (i, j), i != j, on the path with n_k samples per class.

    Parameters
    ----------
    first, second : int or symbol
        Samples n_i and n_j of the two classes.
    samples : int or symbol
        Number N of samples.
    classes : int or symbol
        Number K of classes.

    Returns
    -------
    number

    Examples
    --------
    >>> class_size_margin(3, 1, 12, 4)
    1.0
    """
    return first + second - samples / classes


def sign_pattern(classes: int) -> np.ndarray:
    """J - 2I, the signs of the gradient along the path, shape (classes, classes).

    Parameters
    ----------
    classes : int
        K.

    Returns
    -------
    ndarray, shape (classes, classes)

    Examples
    --------
    >>> sign_pattern(2).tolist()
    [[-1.0, 1.0], [1.0, -1.0]]
    """
    return symmetric_path.weights(*opposite_values(1.0), classes)


def minimiser(lam: float, classes: int) -> np.ndarray:
    """W* = (2I - J)/lam, where the runs of this room tend, shape (classes, classes).

    Parameters
    ----------
    lam : float
        Decoupled decay rate > 0.
    classes : int
        K.

    Returns
    -------
    ndarray, shape (classes, classes)

    Examples
    --------
    >>> minimiser(0.5, 2).tolist()
    [[2.0, -2.0], [-2.0, 2.0]]
    """
    limit: np.ndarray = limit_weight(lam) * sign_pattern(classes)
    return limit


# ------------------------------------------------------------------------------ away from the symmetric path


def decided_by(own: Any, total: Any, classes: Any) -> Any:
    """The number whose sign is that of grad_W at (i, j), i != j: S_ij + 1/K - mean_k S_ik; any number type.

    Parameters
    ----------
    own, total : number or ndarray, shape (...)
        S_ij, and the row sum of S over all columns.
    classes : int or symbol
        Number K of classes.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> decided_by(0.25, 1.0, 4)
    0.25
    """
    return own + (1 - total) / classes


def spread_that_locks(classes: Any) -> Any:
    """2 (K - 1)/(K - 2): all signs are right if wrong-class probabilities differ by less than this factor.

    Parameters
    ----------
    classes : int or symbol
        Number K of classes.

    Returns
    -------
    number

    Examples
    --------
    >>> spread_that_locks(4)
    3.0
    """
    return 2 * (classes - 1) / (classes - 2)


def logit_stretch(classes: Any) -> Any:
    """Largest change of a logit difference Z_lj - Z_ij per unit of c max|D| when W changes by D: 4 (K - 1)/K.

    Parameters
    ----------
    classes : int or symbol
        Number K of classes.

    Returns
    -------
    number

    Examples
    --------
    >>> logit_stretch(4)
    3.0
    """
    return 4 * (classes - 1) / classes


def lock_radius(classes: Any, scale: Any = None, xp: Any = np) -> Any:
    """Entrywise distance from the family x I + y J within which all signs are right, for ever.

    log(2 (K - 1)/(K - 2))/(8 c (1 - 1/K)): it depends neither on eta nor on lam; for K = 2 it is infinite.
    For 0 < eta lam < 2, W_t - w_t (J - 2I) then shrinks by 1 - eta lam at every step.

    Parameters
    ----------
    classes : int
        Number K of classes.
    scale : float, optional
        The c of H = c (I - J/K); 1/sqrt(K - 1) by default.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number

    Examples
    --------
    >>> float(lock_radius(10).round(4)), float(lock_radius(2))
    (0.3379, inf)
    """
    if classes == 2:
        return float("inf")
    c = frame_norm(classes, xp=xp) if scale is None else scale
    return xp.log(spread_that_locks(classes)) / (2 * logit_stretch(classes) * c)


def converged(W: Any, lam: float, tolerance: float = 1e-3) -> Any:
    """Whether all entries of W are within `tolerance`/lam of W* = (2I - J)/lam.

    Parameters
    ----------
    W : array_like, shape (..., K, K)
        Weights.
    lam : float
        Decoupled decay rate > 0.
    tolerance : float
        Relative to the entries of W*.

    Returns
    -------
    ndarray of bool or bool, shape (...)

    Examples
    --------
    >>> bool(converged(minimiser(0.1, 3), 0.1)), bool(converged(np.zeros((3, 3)), 0.1))
    (True, False)
    """
    W = np.asarray(W, dtype=np.float64)
    return (np.abs(W - minimiser(lam, W.shape[-1])).max(axis=(-2, -1)) <= tolerance / lam)[()]


def asymmetry(W: Any) -> Any:
    """Entrywise distance of W from the family x I + y J: half the larger range, on and off the diagonal.

    Parameters
    ----------
    W : array_like, shape (..., K, K)
        Weights.

    Returns
    -------
    ndarray or float, shape (...)

    Examples
    --------
    >>> float(asymmetry([[3.0, 1.0], [1.5, 3.2]]))
    0.25
    """
    W = np.asarray(W, dtype=np.float64)
    K = W.shape[-1]
    on, off = np.diagonal(W, axis1=-2, axis2=-1), W[..., ~np.eye(K, dtype=bool)]
    return np.maximum(np.ptp(on, axis=-1), np.ptp(off, axis=-1))[()] / 2


def growth_of_loss(lr: Any, classes: Any, xp: Any = np) -> Any:
    """kappa: a step inside the box adds at most kappa times the loss to what convexity gives.

    kappa = e^rho - 1 - rho with rho = 8 eta (K - 1)/(K sqrt(K - 1)), the largest change of a logit difference
    by a step of entries up to 2 eta.

    Parameters
    ----------
    lr : number or ndarray, shape (...)
        Learning rate.
    classes : int or symbol
        Number K of classes.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> round(float(growth_of_loss(0.1, 4)), 6)
    0.067572
    """
    rho = step_in_logits(lr, classes, xp)
    return rho * _growth_per_step(rho) if xp is np else xp.exp(rho) - 1 - rho


def _growth_per_step(rho: Any) -> Any:
    """kappa/rho in float64, where e^rho - 1 - rho would cancel and rho^2 underflow; infinite where e^rho overflows."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        series = rho / 2 * (1 + rho / 3 * (1 + rho / 4 * (1 + rho / 5)))
        return np.where(rho < 1e-3, series, (np.expm1(rho) - rho) / rho)[()]


def step_in_logits(lr: Any, classes: Any, xp: Any = np) -> Any:
    """rho, the largest change of a logit difference by a step of entries up to 2 eta.

    Parameters
    ----------
    lr : number or ndarray, shape (...)
        Learning rate.
    classes : int or symbol
        Number K of classes.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> round(float(step_in_logits(0.1, 4)), 6)
    0.34641
    """
    return logit_stretch(classes) * frame_norm(classes, xp=xp) * 2 * lr


def least_slope(lam: Any, classes: Any, xp: Any = np) -> Any:
    """q: the excess loss q f* is beyond what any W outside the lock radius of W* has at least.

    q = r psi/f* with r = `lock_radius`, psi the smallest |grad| at W* and f* = log(1 + (K - 1) e^-g) the loss
    there, g = 2 c/lam. The exponentials cancel: q stays between two multiples of 1/K^3 and 1/K^2 at every lam.

    Parameters
    ----------
    lam : number or ndarray, shape (...)
        Decoupled decay rate > 0.
    classes : int or symbol
        Number K of classes.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> round(float(least_slope(0.01, 4)), 6)
    0.015259
    """
    gap = logit_gap(limit_weight(lam), classes, xp)
    if xp is np:
        small = (classes - 1) * np.exp(-gap)
        slope = frame_norm(classes) / classes / (1 + small)
        with np.errstate(divide="ignore", invalid="ignore"):
            loss = np.where(small > 0, np.log1p(small) / np.exp(-gap), classes - 1)  # f* e^gap
        return lock_radius(classes) * slope / loss
    return (
        lock_radius(classes, xp=xp)
        * gradient_entries(gap, classes, xp=xp)[1]
        / xp.log(1 + (classes - 1) * xp.exp(-gap))
    )


def convergence_margin(lr: Any, lam: Any, classes: int, xp: Any = np) -> Any:
    """eta lam q - kappa (1 + q): above 0 (and eta lam <= 1) every start converges to W* = (2I - J)/lam.

    Sufficient and far from necessary; see `lr_that_converges` for the largest rate.

    Parameters
    ----------
    lr, lam : array_like, shape (...)
        Learning rate and decoupled decay rate > 0.
    classes : int
        Number K of classes >= 3; for K = 2 every start converges for 0 < eta lam < 2.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> bool(convergence_margin(1e-5, 0.01, 4) > 0), bool(convergence_margin(1.0, 0.01, 4) > 0)
    (True, False)
    """
    q = least_slope(lam, classes, xp)
    return lr * lam * q - growth_of_loss(lr, classes, xp) * (1 + q)


def lr_that_converges(lam: float, classes: int) -> float:
    """eta_0: below it every start converges; the smaller of 1/lam and about lam times a number of K alone.

    Parameters
    ----------
    lam : float
        Decoupled decay rate >= 1e-200 and < 1e200.
    classes : int
        Number K of classes, from 2 to 10^15.

    Returns
    -------
    float
        2/lam for K = 2.

    Raises
    ------
    InvalidProblemError
        For a decay rate or a number of classes outside.

    Examples
    --------
    >>> round(lr_that_converges(0.1, 3) / 0.1, 4), lr_that_converges(0.5, 2)
    (0.0058, 4.0)
    """
    from scipy.optimize import brentq

    lam = real("lr_that_converges.lam", lam, 1e-200, 1e200, allowed="a number >= 1e-200 and < 1e200")
    K = int(classes_of("lr_that_converges.classes", classes))
    if K > 10**15:
        raise invalid("lr_that_converges.classes", classes, "whole numbers from 2 to 10^15")
    if K == 2:
        return 2 / lam
    # margin = 0 is kappa/rho = slope, and kappa/rho grows with rho from 0
    q, unit = float(least_slope(lam, K)), float(step_in_logits(1.0, K))
    slope = lam / unit * q / (1 + q)
    if _growth_per_step(unit / lam) <= slope:
        return 1 / lam
    # rho in units of the slope: kappa/rho > rho/2 everywhere, and < 0.72 rho up to rho = 1
    low, top = min(1.0, 1 / slope), min(2.0, unit / lam / slope)
    root = brentq(lambda part: _growth_per_step(part * slope) / slope - 1, low, top, xtol=1e-14, rtol=1e-14)
    return float(root * slope / unit)


def cycle_entries(lr: Any, lam: Any) -> tuple[Any, Any, Any]:
    """Off-diagonal entries, high to low, of a cycle of period 3 for K = 3 classes, for any number type.

    Each pair of classes is driven up once and down twice in three steps; with g = 1 - eta lam the entries are
    (1 - g - g^2, g - 1 - g^2, g^2 - 1 - g)/(lam (1 + g + g^2)), the diagonal is 1/lam. They are about -1/(3 lam),
    so that alpha is about (1/(3 lam))^2, not (1/lam)^2.

    Parameters
    ----------
    lr, lam : number or ndarray, shape (...)
        Learning rate, decoupled decay rate > 0.

    Returns
    -------
    high, middle, low : number or ndarray, shape (...)

    Examples
    --------
    >>> [round(entry, 2) for entry in cycle_entries(3.0, 0.01)]
    [-31.29, -33.35, -35.35]
    """
    g = 1 - lr * lam
    s = lam * (1 + g + g**2)
    return (1 - g - g**2) / s, (g - 1 - g**2) / s, (g**2 - 1 - g) / s


def cycle_state(lr: float, lam: float) -> np.ndarray:
    """A state of the cycle of `cycle_entries`; the next one is W[p][:, p] with p = (2, 0, 1).

    It attracts: nearby starts end on it as well. As lam -> 0 it is a cycle iff eta is above `cycle_threshold`; at
    lam = 0.1 it is one for about 1.95 <= eta <= 9.5 only.

    Parameters
    ----------
    lr, lam : float
        Learning rate and decoupled decay rate.

    Returns
    -------
    ndarray, shape (3, 3)
        Weights W for features at the simplex ETF.

    Examples
    --------
    >>> cycle_state(3.0, 0.01).round(2).tolist()
    [[100.0, -31.29, -33.35], [-31.29, 100.0, -35.35], [-33.35, -35.35, 100.0]]
    """
    high, middle, low = cycle_entries(lr, lam)
    on = -limit_weight(lam)
    return np.array([[on, high, middle], [high, on, low], [middle, low, on]])


def cycle_threshold(xp: Any = np) -> Any:
    """(9 sqrt(2)/4) log(2 cos(pi/9)) = 2.0077: at K = 3 and as lam -> 0 the cycle exists iff eta is above it.

    Parameters
    ----------
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number

    Examples
    --------
    >>> round(float(cycle_threshold()), 4)
    2.0077
    """
    return 9 * xp.sqrt(2) / 4 * xp.log(2 * xp.cos(xp.pi / 9))


def classes_of(where: str, classes: Any) -> np.ndarray:
    """Numbers of classes >= 2 as an integer array, or one sentence.

    Parameters
    ----------
    where : str
        Who asks.
    classes : array_like of int, shape (...)
        Numbers of classes.

    Returns
    -------
    ndarray of int, shape (...)

    Raises
    ------
    InvalidProblemError
        For a number below 2, or none that is whole.

    Examples
    --------
    >>> classes_of("limit.classes", [2, 10]).tolist()
    [2, 10]
    """
    found = np.asarray(classes)
    if found.dtype.kind not in "iu" or (found < 2).any():
        raise invalid(where, classes, "whole numbers >= 2")
    return found


# -------------------------------------------------------------------------------- hypotheses about runs


def _other_run(run: Run) -> str | None:
    """Why problem, optimizer or decay are not those of theorem 3.3, or None; says nothing about the start."""
    reason = outside_the_setting(run, "theorem 3.3", equal_classes=False)
    return reason or _other_classes(run) or _other_optimizer(run) or _other_decay(run)


def _other_classes(run: Run) -> str | None:
    K, N = run.problem.classes, run.problem.samples
    smallest = sorted(run.problem.class_sizes)[:2]
    if class_size_margin(smallest[0], smallest[1], N, K) <= 0:
        return (
            f"the two smallest classes hold {sum(smallest)} of {N} samples; the signs of theorem 3.3 need more "
            f"than N/K = {N / K:g}"
        )
    return None


def _other_optimizer(run: Run) -> str | None:
    optimizer = run.optimizer
    if type(optimizer) in (SignGD, Signum):
        return None
    if type(optimizer) is not Adam:
        return (
            f"{type(optimizer).__name__} steps are not signs of the gradient; theorem 3.3 is for SignGD, and "
            "holds for Signum and for Adam with beta1 = beta2 = eps = 0"
        )
    given = {name: getattr(optimizer, name) for name in ("beta1", "beta2", "eps")}
    wrong = ", ".join(f"{name} = {value:g}" for name, value in given.items() if value)
    return (
        f"Adam has {wrong}; its steps are signs of the gradient for beta1 = beta2 = eps = 0"
        if wrong
        else None
    )


def _other_decay(run: Run) -> str | None:
    last, rates = run.problem.last, known_rates(run)
    coupled, lam = run.coupled[last], run.decoupled[last]
    fastest = 0.0 if rates is None else float(rates.max(initial=0.0))
    if coupled:
        return f"coupled decay {coupled:g} acts on {last}; theorem 3.3 is for decoupled decay alone"
    if not lam:
        return f"no decoupled decay acts on {last}; theorem 3.3 needs lam > 0"
    if shrinks_after(run.decay):
        return "the decoupled shrink comes after the step; theorem 3.3 is for the shrink before it"
    if fastest * lam >= 2:
        return f"lr * decay = {fastest * lam:g}; theorem 3.3 needs less than 2"
    if max(fastest, lam) > LARGEST / 2:
        return f"a learning or decay rate is above {LARGEST / 2:g}, where w_t is not evaluated"
    return None


def _start(run: Run) -> np.ndarray:
    """W_0 in the precision of the run, shape (K, width)."""
    problem = run.problem
    if run.trajectory is not None and run.trajectory.steps[0] == 0:
        return np.asarray(run.trajectory["W"][0])
    return draw(problem, run.init, run.seed)[problem.last].astype(run.dtype)


def _theorem_3_3_hypotheses(run: Run) -> str | None:
    reason = _other_run(run)
    if reason is not None:
        return reason
    largest = float(np.abs(_start(run)).max())
    return f"W_0 has entries up to {largest:g}; theorem 3.3 is for W_0 = 0" if largest else None


def _lock_hypotheses(run: Run) -> str | None:
    reason = _other_run(run)
    if reason is not None:
        return reason
    K, sizes = run.problem.classes, run.problem.class_sizes
    if len(set(sizes)) > 1:
        return f"classes have {min(sizes)} to {max(sizes)} samples; the lock is shown for equal numbers"
    distance, radius = asymmetry(_start(run)[:, :K]), lock_radius(K, frame_of(run.problem))
    if distance >= radius:
        return f"W_0 is {distance:.3g} away from every x I + y J; signs are shown to be locked below {radius:.3g}"
    return None


# ------------------------------------------------------------------------------- predictions about runs


def _path_prediction(run: Run, error: float = 0.0) -> Prediction:
    """W_t against prod (1 - eta_s lam) W_0 + w_t (J - 2I), lam times 1 + error, at the entry furthest off.

    Round-off: u = eps/2 times what a step loses (the shrink factor, its product, the subtraction), carried on by
    the factors of the later steps: `row_sum.round_off_bound` for one row. After a step at which a sign could not
    be decided in floating point nothing is predicted.
    """
    quantity = "W_t, against prod (1 - eta_s lam) W_0 + w_t (J - 2I)"
    kept = finite_records(run)
    assert run.trajectory is not None
    if not len(kept):
        return Prediction(quantity, np.zeros(0), np.zeros(0), np.zeros(0))
    dtype, K = np.dtype(run.dtype), run.problem.classes
    t, W = np.asarray(run.trajectory.steps)[kept], run.trajectory["W"]
    rates = run.rates.astype(dtype).astype(np.float64)
    lam = float(dtype.type(run.decoupled[run.problem.last]))
    constant = bool(len(rates) == 0 or np.all(rates == rates[0]))
    lr = (float(rates[0]) if len(rates) else 0.0) if constant else None
    schedule = None if constant else rates
    largest = running_maximum(W[kept].astype(np.float64))
    bound = round_off_bound(
        t, lr, decoupled=lam, schedule=schedule, classes=1, scale=largest, eps=float(np.finfo(dtype).eps)
    )
    bound = bound + 4 * np.finfo(np.float64).eps * largest  # the prediction is a float64 too
    undecided = run.trajectory.stats.get("first_undecided_step", -1)
    if undecided >= 0:
        bound = np.where(t > undecided, np.inf, bound)
    shrunk = growth(t, lr, decoupled=lam * (1 + error), schedule=schedule)
    w = weight(t, lr, lam * (1 + error), schedule=schedule)
    start, pattern = _start(run).astype(np.float64), np.zeros(W.shape[1:])
    pattern[:, :K] = sign_pattern(K)
    predicted, observed = np.empty(len(kept)), np.empty(len(kept))
    for i, record in enumerate(kept):
        expected, found = shrunk[i] * start + w[i] * pattern, W[record].astype(np.float64)
        worst = np.argmax(np.abs(found - expected))
        predicted[i], observed[i] = expected.ravel()[worst], found.ravel()[worst]
    m = exact_row_sum(start).high
    alpha = ((shrunk[:, None] * m + ((K - 2) * w)[:, None] * pattern.any(axis=0)) ** 2).sum(axis=1) / K
    return Prediction(quantity, predicted, observed, bound, alpha)


def _perturbed_path(run: Run) -> Prediction:
    return _path_prediction(run, PERTURBATION[run.dtype])


# ------------------------------------------------------------------------------------------------- claims

_SIMULATED = "each run is judged entry by entry against the half-units of every step, carried on"

CLAIMS = (
    Claim(
        name="zhao2026.thm3.3",
        statement=(
            "SignGD, decoupled decay, H frozen at the simplex ETF, W_0 = 0: W_t = w_t (J - 2I) with "
            "w_t = -(1 - prod (1 - eta_s lam))/lam and alpha_t = ((K - 2) w_t)^2, which tends to ((K - 2)/lam)^2 if "
            "0 < eta lam < 2 at a constant rate (or sum eta_s = oo with eta_s lam <= 1), monotonically up to 1; "
            "alpha = 0 for K = 2. Also at any scale of the ETF, for Signum, and for any two classes holding more "
            "than N/K samples."
        ),
        source=Source(PAPER, "theorem 3.3; any scale, Signum, class sizes derived here", "read in full"),
        room=ROOM,
        figure="underflow",
        layers={
            "symbolic": "proved for symbolic K, eta, lam, t: signs, closed form, limit, monotonicity",
            "simulation": _SIMULATED,
        },
        applies=_theorem_3_3_hypotheses,
        predict=_path_prediction,
        control=_perturbed_path,
        rank=30,
    ),
    Claim(
        name="zhao2026.thm3.3.erratum_limit",
        statement=(
            "Theorem 3.3 defines alpha = ||W^T 1||^2, but its limit ((K - 2)/lam)^2 is that of ||W^T 1||^2/K; as "
            "printed the limit is K times larger, and for K = 2 both are 0."
        ),
        source=Source(PAPER, "theorem 3.3, corrected here", "read in full"),
        room=ROOM,
        layers={
            "symbolic": "proved for symbolic K: the corrected limit, and that the printed one is another"
        },
    ),
    Claim(
        name="zhao2026.thm3.3.erratum_lemma",
        statement=(
            "The proof of theorem 3.3 uses (softmax(W H) - I) J = 0 for all W. False: J (softmax(W H) - I) = 0 "
            "holds for all W, row sums need not vanish. At K = 5, W = 0 but for row 0 = 20 with -20 at column 3, the "
            "gradient at (0, 3) is negative. On the path from W_0 = 0, all that is needed, row sums do vanish."
        ),
        source=Source(PAPER, "proof of theorem 3.3, corrected here", "read in full"),
        room=ROOM,
        layers={
            "symbolic": "counter-example by interval arithmetic; the corrected form proved for symbolic K"
        },
    ),
    Claim(
        name="ufm.signgd_lock",
        statement=(
            "H = c (I - J/K), balanced classes: if W_0 is nearer than log(2 (K - 1)/(K - 2))/(8 c (1 - 1/K)) to some "
            "x I + y J in every entry (for K = 2: always), the signs are J - 2I for ever and "
            "W_t = prod (1 - eta_s lam) W_0 + w_t (J - 2I), for 0 <= eta_s lam < 2 and whatever eta and lam."
        ),
        source=Source("this package", "small starts beyond theorem 3.3", "derived here"),
        room=ROOM,
        figure="signgd_basin",
        layers={"symbolic": "proved for symbolic K, eta, lam", "simulation": _SIMULATED},
        applies=_lock_hypotheses,
        predict=_path_prediction,
        control=_perturbed_path,
        rank=25,
    ),
    Claim(
        name="ufm.signgd_frank_wolfe",
        statement=(
            "H at the simplex ETF, balanced classes: SignGD with decoupled decay is Frank-Wolfe with step eta lam "
            "on the box |W_ij| <= 1/lam, where cross-entropy is convex with the only minimiser (2I - J)/lam. Its "
            "gradient is negative on the diagonal, and at (i, j) positive iff S_ij + 1/K > mean_k S_ik. Every start "
            "converges to (2I - J)/lam if eta is below eta_0(lam, K), the smaller of 1/lam and about lam times a "
            "number of K, or if eta_t -> 0 with sum eta_t = oo."
        ),
        source=Source(
            "this package", "Frank-Wolfe reading as in arXiv 2404.04454 (not read in full)", "derived here"
        ),
        room=ROOM,
        figure="signgd_basin",
        layers={
            "symbolic": (
                "identities, minimiser, sign rule, convexity proved for symbolic K; convergence: algebra proved by "
                "SymPy, inequalities argued in the docstring of its check"
            ),
        },
    ),
    Claim(
        name="ufm.signgd_cycle",
        statement=(
            "K = 3: not every start converges. At eta = 3, lam = 5e-5 (and at eta = 1.95, lam = 0.1) there is an "
            "attracting cycle of period 3 with off-diagonal entries about -1/(3 lam), where alpha is about "
            "(1/(3 lam))^2 instead of (1/lam)^2; as lam -> 0 it exists iff "
            "eta > (9 sqrt(2)/4) log(2 cos(pi/9)) = 2.0077."
        ),
        source=Source("this package", "counter-example to convergence from every start", "derived here"),
        room=ROOM,
        figure="signgd_basin",
        layers={"symbolic": "certified by interval arithmetic; the threshold proved as lam -> 0"},
    ),
    Claim(
        name="ufm.signgd_basin",
        statement=(
            "Conjecture: H at the simplex ETF, K >= 3: every start converges to (2I - J)/lam if eta <= 3/2 and "
            "eta lam <= 1. Certified at K = 3, eta lam = 1, eta = 1/2, 1, 3/2. Not for all eta: at K = 3 it fails at "
            "eta = 1.95, lam = 0.1, and at every eta > 2.0077 for small lam (ufm.signgd_cycle); nor for all "
            "eta lam < 2: at K = 3 it fails at eta = 1/4, eta lam = 1.95."
        ),
        source=Source(
            "this package",
            "measured; proved for eta < eta_0(lam, K), certified at 3 points",
            "derived here",
        ),
        room=ROOM,
        figure="signgd_basin",
        layers={
            "symbolic": "certified for every start at K = 3, eta lam = 1, eta = 1/2, 1, 3/2: all signs enumerated",
            "simulation": (
                "measured: 200 Gaussian starts each of scale 0.7, 2, 8, 40 converge at K = 3, 4, 5, 7, eta = 1, 3/2, "
                "lam = 0.01, 0.1, 0.3; ten each of scale 1, 20 at K = 3, 6, eta = 1/2, 3/2, lam = 1e-3; ten of scale "
                "20 at (K, eta, lam) = (6, 3/2, 5e-3), (3, 3/2, 0.1), (3, 1/4, 4), and ten of scale 0.1 at "
                "(3, 20, 5e-5); of ten of scale 20 none does at (3, 20, 5e-5), nor at (3, 1/4, 7.8)"
            ),
        },
    ),
)
