r"""NC0 is necessary for neural collapse, under one more hypothesis than printed, and never sufficient.

Proposition 2.1 of Zhao et al. (arXiv 2602.16642v3) says that NC2 and NC3 imply NC0. Its proof bounds
||W^T 1||^2/||W||_F^2. Here in quantitative form, metrics without the printed prefactors, M the centred means:

    W^T 1/||W||_F = E^T 1,  E = W/||W||_F - M^T/||M||_F,  since M 1 = 0;  hence  alpha/||W||_F^2 <= NC3^2,
    ||W^T 1||^2 = ||W W^T||_F 1^T (G - M*) 1,  G = W W^T/||W W^T||_F;  hence  alpha/||W||_F^2 <= NC2W.

alpha itself needs ||W||_F bounded: without weight decay the row sum of a shift-invariant loss stays where it
started while W grows. The converse fails at every state with merged classes: `merged_class_saddle` is a
critical point of the cross-entropy UFM with alpha = 0 and two groups of classes collapsed into two points.

The saddle, for groups A (sizes a) and B (b = K - a), n samples per class, objective
(1/N) sum CE + lam_W/2 ||W||_F^2 + lam_H/2 ||H||_F^2, N = K n: W = u e^T, H = e v^T with u, v constant on
groups and a u_A + b u_B = 0. With delta = u_A - u_B it is critical iff `saddle_residuals` vanish.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ufm.claims import Claim, Prediction, Source
from ufm.errors import invalid
from ufm.losses import Regression
from ufm.optimizers import GD, Momentum
from ufm.theory._recorded import exact_row_sum, finite_records, known_rates
from ufm.theory.cross_entropy_optimum import escape_curvature, escape_scales, merged_sigma
from ufm.theory.row_sum import PAPER, trace_determinant

if TYPE_CHECKING:
    from ufm.run import Run


# ------------------------------------------------------------------------------------------ formulas


def relative_nc0_bounds(nc2w: Any, nc3: Any) -> tuple[Any, Any]:
    """Upper bounds on alpha/||W||_F^2: from NC2W, and from NC3 (both without printed prefactors).

    Parameters
    ----------
    nc2w, nc3 : number or ndarray, shape (...)
        The two metrics without printed prefactors.

    Returns
    -------
    of_nc2w, of_nc3 : number or ndarray, shape (...)

    Examples
    --------
    >>> relative_nc0_bounds(0.5, 0.5)
    (0.5, 0.25)
    """
    return nc2w, nc3**2


def saddle_residuals(
    delta: Any, v_A: Any, v_B: Any, a: Any, b: Any, n: Any, lam_W: Any, lam_H: Any, xp: Any = np
) -> tuple[Any, Any, Any]:
    """Three numbers that vanish exactly at the merged-class critical points; for any number type.

    With eps_A = 1/(1 + (a/b) exp(delta v_A)), eps_B = 1/(1 + (b/a) exp(-delta v_B)) the probability that a
    sample gives to the other group:

        f_A = lam_H K n v_A - delta eps_A,   f_B = lam_H K n v_B + delta eps_B,
        f_W = lam_W a b delta - (a eps_A v_A - b eps_B v_B).

    Parameters
    ----------
    delta, v_A, v_B : number
        Difference of the values of u on the two groups, v on group A, v on group B.
    a, b, n : int or symbol
        Number of classes in A, in B, samples per class.
    lam_W, lam_H : number
        Decay of W, decay of H.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    f_A, f_B, f_W : number

    Examples
    --------
    >>> [float(f) for f in saddle_residuals(0.0, 0.0, 0.0, 2, 2, 1, 0.1, 0.1)]
    [0.0, 0.0, 0.0]
    """
    eps_A, eps_B = wrong_group_probability(delta, v_A, v_B, a, b, xp)
    N = (a + b) * n
    return (
        lam_H * N * v_A - delta * eps_A,
        lam_H * N * v_B + delta * eps_B,
        lam_W * a * b * delta - (a * eps_A * v_A - b * eps_B * v_B),
    )


def wrong_group_probability(delta: Any, v_A: Any, v_B: Any, a: Any, b: Any, xp: Any = np) -> tuple[Any, Any]:
    """Probability that a sample of A (of B) gives to all classes of the other group together.

    Parameters
    ----------
    delta, v_A, v_B : number
        Difference of the values of u on the two groups, v on group A, v on group B.
    a, b : int or symbol
        Number of classes in A, in B.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    of_A, of_B : number

    Examples
    --------
    >>> [float(p) for p in wrong_group_probability(0.0, 0.0, 0.0, 1, 3)]
    [0.75, 0.25]
    """
    return 1 / (1 + xp.exp(delta * v_A) * a / b), 1 / (1 + xp.exp(-delta * v_B) * b / a)


def saddle_rows(delta: Any, a: Any, b: Any) -> tuple[Any, Any]:
    """u_A and u_B with a u_A + b u_B = 0 and u_A - u_B = delta.

    Parameters
    ----------
    delta : number
        Difference of the values of u on the two groups.
    a, b : int or symbol
        Number of classes in A, in B.

    Returns
    -------
    u_A, u_B : number

    Examples
    --------
    >>> saddle_rows(1.0, 1, 3)
    (0.75, -0.25)
    """
    return b * delta / (a + b), -a * delta / (a + b)


def saddle_threshold(K: Any, n: Any) -> Any:
    """lam_W lam_H below which there is a merged-class saddle, 1/(K^2 n); for any number type.

    Parameters
    ----------
    K, n : int or symbol
        Number of classes, samples per class.

    Returns
    -------
    number

    Examples
    --------
    >>> saddle_threshold(4, 1)
    0.0625
    """
    return 1 / (K**2 * n)


def saddle_curvature(K: Any, n: Any, lam_W: Any, lam_H: Any, xp: Any = np) -> Any:
    """Value D^T Hess D <= 0 along the direction that separates two merged classes of one group.

    2 (sqrt(lam_W lam_H) - 1/(K sqrt n)); see `escape_direction`.

    Parameters
    ----------
    K, n : int or symbol
        Number of classes, samples per class.
    lam_W, lam_H : number
        Decay of W, decay of H.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number

    Examples
    --------
    >>> round(float(saddle_curvature(4, 1, 0.01, 0.01)), 12)
    -0.48
    """
    return escape_curvature(merged_sigma(K, n, xp=xp), lam_W, lam_H, xp)


# -------------------------------------------------------------------------------------- the explicit state


def merged_class_saddle(
    classes: int, width: int, per_class: int, lam_W: float, lam_H: float, first_group: int | None = None
) -> dict[str, np.ndarray]:
    """Critical point of the cross-entropy UFM with coupled decay at which two groups of classes are merged.

    Parameters
    ----------
    classes : int
        K >= 3, so that a group has at least two classes.
    width : int
        d >= 1; from d = 2 on it is a strict saddle.
    per_class : int
        n samples per class, sorted by class.
    lam_W, lam_H : float
        Coupled decay of W and H, > 0, with K^2 n lam_W lam_H < 1 (else there is no critical point of this form).
    first_group : int, optional
        Size of the group of classes 0 ... first_group - 1; K // 2 by default.

    Returns
    -------
    dict
        Blocks "H", shape (width, K n), and "W1", shape (K, width): alpha = 0 and gradient 0 to round-off,
        usable with ``ufm.Given``.

    Raises
    ------
    InvalidProblemError
        For sizes or rates outside the ranges above.

    Notes
    -----
    `ufm.solutions.merged` with two groups is this state, up to the sign of its direction, found in another way: as
    a minimum over the states in which the groups are merged, any number of them, with bias and smoothing, too. For
    groups of unequal size it refuses decays so small that Newton's method does not settle. The bracketed roots of
    `saddle_residuals`, the equations of the proof, settle at any decay.

    Examples
    --------
    >>> state = merged_class_saddle(4, 6, 2, 5e-3, 5e-3)
    >>> bool(abs(state["W1"].sum(axis=0)).max() < 1e-15)
    True
    """
    from scipy.optimize import brentq

    K, n = classes, per_class
    a = K // 2 if first_group is None else first_group
    if K < 3:
        raise invalid("merged_class_saddle.classes", K, "a whole number >= 3")
    if width < 1 or n < 1:
        raise invalid("merged_class_saddle.width, per_class", (width, n), "whole numbers >= 1")
    if not 1 <= a <= K - 1:
        raise invalid("merged_class_saddle.first_group", first_group, f"1 ... {K - 1}")
    if not (lam_W > 0 and lam_H > 0 and lam_W * lam_H < saddle_threshold(K, n)):
        raise invalid("merged_class_saddle.lam_W, lam_H", (lam_W, lam_H), "> 0 with K^2 n lam_W lam_H < 1")
    b, N = K - a, K * n

    def features(delta: float) -> tuple[float, float]:
        # f_A and f_B are monotone in v, with one root each: x (1 + (a/b) e^x) = c for x = delta v_A
        c = delta**2 / (lam_H * N)
        top_A, top_B = (min(c, 1.0 + np.log1p(c * ratio)) / delta for ratio in (b / a, a / b))
        v_A = brentq(
            lambda v: saddle_residuals(delta, v, 0.0, a, b, n, lam_W, lam_H)[0], 0.0, top_A, **_EXACT
        )
        v_B = brentq(
            lambda v: saddle_residuals(delta, 0.0, v, a, b, n, lam_W, lam_H)[1], -top_B, 0.0, **_EXACT
        )
        return v_A, v_B

    def balance(delta: float) -> float:
        by_weights: float = saddle_residuals(delta, *features(delta), a, b, n, lam_W, lam_H)[2]
        return by_weights / delta

    high = 1.0  # f_W/delta is below 0 for small delta (small decay) and above 0 for large delta
    while balance(high) < 0:
        high *= 2.0
    low = high
    while balance(low) > 0:
        low *= 0.5
        if low < 1e-150:
            raise invalid(
                "merged_class_saddle.lam_W, lam_H", (lam_W, lam_H), "K^2 n lam_W lam_H further below 1"
            )
    delta = brentq(balance, low, 2.0 * low if low < high else high, **_EXACT)
    v_A, v_B = features(delta)
    u = np.repeat(saddle_rows(delta, a, b), (a, b))
    v = np.repeat((v_A, v_B), (a * n, b * n))
    e = np.zeros(width)
    e[0] = 1.0
    return {"H": np.outer(e, v), "W1": np.outer(u, e)}


_EXACT = {"xtol": 1e-300, "rtol": 8.9e-16, "maxiter": 500}


def escape_direction(
    classes: int, width: int, per_class: int, lam_W: float, lam_H: float, pair: tuple[int, int]
) -> dict[str, np.ndarray]:
    """Direction of negative curvature at `merged_class_saddle`: it parts two classes of one group.

    D_W = (lam_H/lam_W)^(1/4) u c^T, D_H = -(lam_W/lam_H)^(1/4) c v^T with u and -v the unit contrasts of the
    two classes, singular vectors of the residuals, and c a unit vector orthogonal to the rank-1 state (needs
    width >= 2). The logits do not move at first order, and D^T Hess D = `saddle_curvature`. Every pair takes the
    same axis c, so that two directions added at once lead to a state of higher rank by one only, where another
    saddle waits.

    Parameters
    ----------
    classes, width, per_class : int
        K, the width >= 2, and n.
    lam_W, lam_H : float
        Decay of W, decay of H.
    pair : tuple of int
        Two classes of one group.

    Returns
    -------
    dict of str to ndarray
        ``W1`` of shape (classes, width) and ``H`` of shape (width, samples).

    Raises
    ------
    InvalidProblemError
        For width < 2 or a pair that is not two classes.

    Examples
    --------
    >>> escape_direction(4, 2, 1, 0.01, 0.01, (0, 1))["H"][1].round(6).tolist()[:2]
    [0.707107, -0.707107]
    """
    K, n = classes, per_class
    i, j = pair
    if width < 2:
        raise invalid("escape_direction.width", width, "a whole number >= 2")
    if i == j or not {i, j} <= set(range(K)):
        raise invalid("escape_direction.pair", pair, f"two different classes in 0 ... {K - 1}")
    u = np.zeros(K)
    u[i], u[j] = np.sqrt(0.5), -np.sqrt(0.5)
    v = -np.repeat(u, n) / np.sqrt(n)
    orthogonal = np.zeros(width)
    orthogonal[1] = 1.0
    of_W, of_H = escape_scales(lam_W, lam_H)
    return {"W1": of_W * np.outer(u, orthogonal), "H": of_H * np.outer(orthogonal, v)}


# ---------------------------------------------------------------------------------------- claims about runs


def _bounded_by_decay(run: Run) -> str | None:
    """Why ||W||_F need not stay bounded, or None."""
    problem, last = run.problem, run.problem.last
    if isinstance(problem.loss, Regression):
        return f"the loss is {problem.loss.name}; NC3 and NC2W are metrics of classes"
    if last not in problem.trained:
        return f"the last layer {last} is frozen"
    coupled, decoupled = run.coupled[last], run.decoupled[last]
    without = "; Proposition 2.1 then holds for alpha/||W||_F^2 only"
    if not coupled and not decoupled:
        return f"no weight decay acts on {last}, so ||W||_F may grow without bound{without}"
    rates = known_rates(run)
    fastest = 0.0 if rates is None else float(rates.max(initial=0.0))
    if type(run.optimizer) not in (GD, Momentum):
        coupled = 0.0  # what such a step makes of coupled decay has no range of its own
    beta, nesterov = getattr(run.optimizer, "beta", 0.0), getattr(run.optimizer, "nesterov", False)
    # both roots inside the unit circle: the Jury conditions on trace and determinant, for beta < 1
    tr, D = trace_determinant(fastest, beta if coupled else 0.0, coupled, decoupled, nesterov)
    if fastest and not (1 + tr + D > 0 and D < 1):
        rate = max(coupled, decoupled) * fastest
        return (
            f"lr * decay = {rate:g} is outside the range in which the decay shrinks {last}, so ||W||_F may "
            f"grow without bound{without}"
        )
    return None


def _relative_nc0(run: Run, convention: str = "code") -> Prediction:
    """alpha/||W||_F^2 against min(NC3^2, NC2W), predicted to be at most that.

    The perturbed statement takes NC2W and NC3 with the prefactors 1/K^2 and 1/(K p) that the paper prints.
    """
    from ufm.metrics import class_means, nc2w, nc3

    quantity = "alpha/||W||_F^2, which is at most min(NC3^2, NC2W),"
    finite, traj = finite_records(run), run.trajectory
    assert traj is not None
    W, H = traj["W"][finite].astype(np.float64), traj.features()[finite].astype(np.float64)
    labels, K = run.problem.labels, run.problem.classes
    # powers of two per record: every metric here is a ratio, and squares must not overflow
    W, H = (A / _power_of_two(A) for A in (W, H))
    raw = class_means(H, labels, centred=False)
    sizes = [np.linalg.norm(A, axis=(1, 2)) for A in (W, class_means(H, labels))]
    largest = np.abs(raw).max(axis=(1, 2), initial=0.0)
    # at W = 0 there is no direction to compare, nor at class means that differ by round-off alone
    kept = (sizes[0] > 0) & (sizes[1] > 4 * K * 2.0**-52 * largest)
    W, H, largest, norm_M = W[kept], H[kept], largest[kept], sizes[1][kept]
    if not kept.any():
        return Prediction(quantity, np.zeros(0), np.zeros(0), np.zeros(0))
    row_sum = exact_row_sum(W).high / sizes[0][kept][:, None]
    observed = (row_sum**2).sum(axis=1) / K
    from_nc2w, from_nc3 = relative_nc0_bounds(nc2w(W, convention), nc3(W, H, labels, convention))
    # centring leaves a rounding error of the uncentred means in NC3, seen through ||M||_F
    in_nc3 = 2.0**-52 * K * (4.0 + 2.0 * largest / norm_M)
    in_nc3_squared = in_nc3 * (2 * np.sqrt(from_nc3) + in_nc3)
    bound = np.where(from_nc3 < from_nc2w, in_nc3_squared, 2.0**-52 * 4 * K) + 2.0**-52 * 4 * observed
    return Prediction(quantity, np.minimum(observed, np.minimum(from_nc2w, from_nc3)), observed, bound)


def _power_of_two(A: np.ndarray) -> np.ndarray:
    """The power of two above max|A| of each record; 1 where A = 0."""
    largest = np.abs(A).max(axis=(1, 2), keepdims=True)
    power: np.ndarray = np.ldexp(1.0, np.frexp(largest)[1] - (largest >= 2.0**1023))
    return power


def _relative_nc0_as_printed(run: Run) -> Prediction:
    return _relative_nc0(run, "paper")


CLAIMS = (
    Claim(
        name="zhao2026.prop2.1",
        statement=(
            "NC3 -> 0 (or NC2W -> 0) implies alpha -> 0 if ||W||_F stays bounded: alpha <= ||W||_F^2 "
            "min(NC3^2, NC2W), metrics without the printed prefactors. The printed proposition lacks "
            "the hypothesis."
        ),
        source=Source(PAPER, "proposition 2.1, hypothesis added and made quantitative here", "read in full"),
        room="necessity",
        figure="nc0_not_sufficient",
        layers={
            "symbolic": "both inequalities for K = 2..5 at every width, and both are sharp",
            "simulation": "both inequalities at recorded states; with the printed prefactors they fail",
        },
        applies=_bounded_by_decay,
        predict=_relative_nc0,
        control=_relative_nc0_as_printed,
        rank=5,
    ),
    Claim(
        name="ufm.nc0_not_sufficient",
        statement=(
            "alpha = 0 does not imply neural collapse: for K >= 3 and K^2 n lam_W lam_H < 1 the "
            "cross-entropy UFM has a critical point with alpha = 0 at which the classes are merged into two "
            "given groups; for width >= 2 it is a strict saddle, with curvature "
            "2 (sqrt(lam_W lam_H) - 1/(K sqrt n)) < 0."
        ),
        source=Source("this package", "merged-class saddle", "derived here"),
        room="necessity",
        figure="nc0_not_sufficient",
        layers={
            "symbolic": (
                "the equations have one solution iff K^2 n lam_W lam_H < 1: proved; they are stationarity, and "
                "the curvature is negative: K = 3..6, all group sizes"
            )
        },
    ),
    Claim(
        name="ufm.prop2.1_needs_bounded_W",
        statement=(
            "Without a bound on ||W||_F Proposition 2.1 fails for alpha: W = s E + 1 c^T with E c = 0 and M = E^T "
            "has NC2W, NC3 -> 0 as s -> oo and alpha = K |c|^2. Normalised GD without decay on the cross-entropy "
            "UFM (K = 4, d = 6, n = 2, lr 0.01, 2000 steps) keeps alpha constant to round-off while NC2W and NC3 "
            "fall."
        ),
        source=Source("this package", "counter-example to proposition 2.1 as printed", "derived here"),
        room="necessity",
        figure="nc0_not_sufficient",
        layers={
            "symbolic": "the family W = s E + 1 c^T for K = 2..5; along a run alpha is constant by lemma E.5",
            "simulation": "one start: NC2W falls to 0.017, NC3 to 0.0084, alpha to 1 - 2e-14 of the start",
        },
    ),
)
