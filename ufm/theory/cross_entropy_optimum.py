r"""What the cross-entropy UFM with equal classes collapses to: one scalar problem, its optimum, and what is no optimum.

Objective, K classes of n samples, N = K n, targets (1 - eps) onehot + eps/K:

    F = (1/N) sum CE(W h + b, y) + lam_W/2 ||W||_F^2 + lam_H/2 ||H||_F^2 + lam_b/2 ||b||^2

1. *One scalar.* The least decay of all W, H with product Z is sqrt(lam_W lam_H) ||Z||_*, so F is bounded below by a
   convex function of (Z, b), which is F itself for d >= K - 1. Its value does not rise when Z is averaged over the
   permutations of classes and of samples within a class, nor when Z is centred. What is left is b = 0 and
   Z = m (I - J/K) (x) 1_n^T, with nuclear norm (K-1) sqrt(n) m, and with the margin m = z_y - z_other

       F(m) = log(1 + (K-1) e^-m) + (K-1) kappa m,   kappa = sqrt(n lam_W lam_H) + eps/K,
       m* = log(1/kappa - (K-1)) if K kappa < 1, else 0.

   At m* every wrong class has probability kappa. A sum instead of a mean over samples is the mean with all decays over
   N, times N. The origin is optimal iff K kappa >= 1: with smoothing iff K sqrt(n lam_W lam_H) >= 1 - eps.
2. *Certificate.* G = d fit/dZ. A critical point with ||G||_op <= sqrt(lam_W lam_H) is a global minimiser, at every
   width and for any class sizes. For d >= K - 1 the converse holds; below it does not.
3. *Escape.* At a critical point lam_W W = -G H^T and lam_H H = -W^T G. With the top singular triplet (sigma, u, v) of
   G, sigma > sqrt(lam_W lam_H), and a unit vector a with W a = 0, hence H^T a = 0 (it exists for d > rank W),

       D_W = (lam_H/lam_W)^(1/4) u a^T,   D_H = -(lam_W/lam_H)^(1/4) a v^T

   moves no logit at first order, and the second derivative of F along it is exactly -2 (sigma - sqrt(lam_W lam_H)).
4. *Gap.* For t = min(1, sqrt(lam_W lam_H)/||G||_op) the matrix t G is feasible for the dual of the convex problem, so
   that at any state, critical or not, global minimum >= -fit*(t G) (- t^2 ||G 1||^2/(2 lam_b) with a bias).
5. *Merged classes.* States in which the classes of a group share one row of W and one mean are the fixed points of the
   permutations within groups, so that the best of them is critical. For K/a groups of a classes

       F_a(m) = log(a + (K-a) e^-m) + (K-a) kappa m,   m = log(1/kappa - (K-a)) - log a  iff K kappa < 1,

   and sigma = (1 - eps)/(K sqrt n), that of every merged group, is the largest singular value of G.
6. *Fixed simplex classifier* with rows of norm s: h = t w/s, m = s t K/(K-1), and F is convex in H, with

       m (e^m + K - 1) = K s^2/(lam_H n (K-1))   (without smoothing).

7. *Width below K - 1.* For K kappa < 1 the only minimiser of the convex bound has rank K - 1, so the optimum is higher
   there; beyond, zero is optimal at every width. At d = 2
   the regular polygon Z_kl = c cos(2 pi (k-l)/K) is critical at the minimum of
   log sum_j exp(c (cos(2 pi j/K) - 1)) + K kappa c.

The simplex as global minimiser and strict saddles for d > K are theorems of Zhu et al. (arXiv 2105.02375, recalled);
the formulas above were derived here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from ufm.claims import Claim, Prediction, Source
from ufm.errors import invalid
from ufm.losses import CrossEntropy
from ufm.normalisation import other_features
from ufm.theory._lower_bound import at_least, objective_error
from ufm.theory._recorded import PERTURBATION, finite_records, spread_evenly

if TYPE_CHECKING:
    from ufm.run import Run

PAPER = "Zhu et al., arXiv 2105.02375"
HERE = "this package"
RECALLED, DERIVED = "recalled", "derived here"

# ------------------------------------------------------------------ formulas, generic in their number type


def log1p(x: Any, xp: Any = np) -> Any:
    """log(1 + x), without cancellation where the number type has a function for it.

    Parameters
    ----------
    x : number or ndarray, shape (...)
        > -1.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> float(log1p(1e-20))
    1e-20
    """
    return (getattr(xp, "log1p", None) or (lambda y: xp.log(1 + y)))(x)


def nuclear_decay(per_class: Any, lam_W: Any, lam_H: Any, xp: Any = np) -> Any:
    """sqrt(n lam_W lam_H), the price of one unit of margin and class; any number type.

    Parameters
    ----------
    per_class : int or symbol
        Samples n per class.
    lam_W, lam_H : number or ndarray, shape (...)
        Decay of W, decay of H.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> round(float(nuclear_decay(5, 5e-3, 1e-3)), 12)
    0.005
    """
    return xp.sqrt(per_class) * xp.sqrt(lam_W) * xp.sqrt(lam_H)


def smoothed(decay: Any, classes: Any, smoothing: Any) -> Any:
    """kappa = sqrt(n lam_W lam_H) + eps/K; any number type.

    Parameters
    ----------
    decay : number or ndarray, shape (...)
        See `nuclear_decay`.
    classes : int or symbol
        Number K of classes.
    smoothing : number
        Label smoothing eps.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> round(smoothed(0.005, 4, 0.1), 12)
    0.03
    """
    return decay + smoothing / classes


def objective(margin: Any, classes: Any, kappa: Any, group: Any = 1, xp: Any = np) -> Any:
    """F_a(m) = log(a + (K-a) e^-m) + (K-a) kappa m; a = 1 for the simplex of all classes; any number type.

    Parameters
    ----------
    margin : number or ndarray, shape (...)
        m >= 0, the logit of the own group minus that of another.
    classes : int or symbol
        K.
    kappa : number or ndarray, shape (...)
        See `smoothed`.
    group : int or symbol
        Size a of the groups of merged classes, a divisor of K.
    xp : module
        ``numpy``, ``mpmath`` or ``sympy``.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> float(objective(0.0, 4, 0.1) == np.log(4))
    1.0
    """
    others = classes - group
    return xp.log(group) + log1p(others / group * xp.exp(-margin), xp) + others * kappa * margin


def critical_margin(classes: Any, kappa: Any, group: Any = 1, xp: Any = np) -> Any:
    """m = log(1/kappa - (K-a)) - log a, which is >= 0 for K kappa <= 1; any number type.

    Parameters
    ----------
    classes : int or symbol
        Number K of classes.
    kappa : number or ndarray, shape (...)
        See `smoothed`.
    group : int or symbol
        Size a of the groups of merged classes.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> round(float(critical_margin(4, 0.005)), 6), float(critical_margin(4, 0.25))
    (5.283204, 0.0)
    """
    return log1p((1 - classes * kappa) / (group * kappa), xp)


def critical_loss(classes: Any, kappa: Any, group: Any = 1, xp: Any = np) -> Any:
    """F_a at its minimum, log a - log(1 - (K-a) kappa) + (K-a) kappa m, for K kappa <= 1; any number type.

    Parameters
    ----------
    classes : int or symbol
        Number K of classes.
    kappa : number or ndarray, shape (...)
        See `smoothed`.
    group : int or symbol
        Size a of the groups of merged classes.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> round(float(critical_loss(4, 0.005)), 10)
    0.0943616937
    """
    others = classes - group
    margin = critical_margin(classes, kappa, group, xp)
    return xp.log(group) - log1p(-others * kappa, xp) + others * kappa * margin


def origin_threshold(classes: Any, smoothing: Any = 0) -> Any:
    """sqrt(n lam_W lam_H) from which on the origin is optimal, (1 - eps)/K; any number type.

    Parameters
    ----------
    classes : int or symbol
        Number K of classes.
    smoothing : number
        Label smoothing eps.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> origin_threshold(4), origin_threshold(4, smoothing=0.5)
    (0.25, 0.125)
    """
    return (1 - smoothing) / classes


def squared_norms(
    margin: Any, classes: Any, per_class: Any, lam_W: Any, lam_H: Any, xp: Any = np
) -> tuple[Any, Any]:
    """||w_k||^2 = (K-1)/K m sqrt(n lam_H/lam_W) and ||h||^2 = (K-1)/K m sqrt(lam_W/(n lam_H)); any number type.

    Parameters
    ----------
    margin : number or ndarray, shape (...)
        Margin m.
    classes, per_class : int or symbol
        Number K of classes, samples n per class.
    lam_W, lam_H : number or ndarray, shape (...)
        Decay of W, decay of H.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    row, feature : number or ndarray, shape (...)

    Examples
    --------
    >>> [round(float(x), 6) for x in squared_norms(critical_margin(4, 0.005), 4, 5, 5e-3, 1e-3)]
    [3.962403, 3.962403]
    """
    ratio = xp.sqrt(per_class) * xp.sqrt(lam_H) / xp.sqrt(lam_W)
    square = margin * (classes - 1) / classes
    return square * ratio, square / ratio


def escape_curvature(sigma: Any, lam_W: Any, lam_H: Any, xp: Any = np) -> Any:
    """Second derivative of F along the escape direction, -2 (sigma - sqrt(lam_W lam_H)); any number type.

    Parameters
    ----------
    sigma : number or ndarray, shape (...)
        Largest singular value of G.
    lam_W, lam_H : number or ndarray, shape (...)
        Decay of W, decay of H.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> round(float(escape_curvature(0.25, 0.01, 0.01)), 12)
    -0.48
    """
    return -2 * (sigma - xp.sqrt(lam_W) * xp.sqrt(lam_H))


def escape_scales(lam_W: Any, lam_H: Any, xp: Any = np) -> tuple[Any, Any]:
    """Factors (lam_H/lam_W)^(1/4) of u a^T in W and -(lam_W/lam_H)^(1/4) of a v^T in H; any number type.

    Parameters
    ----------
    lam_W, lam_H : number or ndarray, shape (...)
        Decay of W, decay of H.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    of_W, of_H : number or ndarray, shape (...)

    Examples
    --------
    >>> [float(scale) for scale in escape_scales(1.0, 16.0)]
    [2.0, -0.5]
    """
    ratio = xp.sqrt(xp.sqrt(lam_H / lam_W))
    return ratio, -1 / ratio


def merged_sigma(classes: Any, per_class: Any, smoothing: Any = 0, xp: Any = np) -> Any:
    """Largest singular value of G where classes are merged, (1 - eps)/(K sqrt n), mean over samples; any number type.

    At the origin, where all classes are, it is that too.

    Parameters
    ----------
    classes, per_class : int or symbol
        Number K of classes, samples n per class.
    smoothing : number
        Label smoothing eps.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> float(merged_sigma(5, 4))
    0.1
    """
    return (1 - smoothing) / (classes * xp.sqrt(per_class))


def fixed_classifier_residual(
    margin: Any, classes: Any, per_class: Any, lam_H: Any, row_norm: Any = 1, smoothing: Any = 0, xp: Any = np
) -> Any:
    """lam_H n (K-1)/(K s^2) m - (1/(e^m + K - 1) - eps/K), 0 at the optimum of a fixed simplex; any number type.

    Parameters
    ----------
    margin : number or ndarray, shape (...)
        Margin m.
    classes, per_class : int or symbol
        Number K of classes, samples n per class.
    lam_H : number or ndarray, shape (...)
        Decay of W, decay of H.
    row_norm, smoothing : number
        Norm s of the classifier's rows, label smoothing eps.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> round(float(fixed_classifier_residual(0.0, 4, 3, 2e-3)), 12)
    -0.25
    """
    pull = 1 / (xp.exp(margin) + classes - 1) - smoothing / classes
    return lam_H * per_class * (classes - 1) / (classes * row_norm**2) * margin - pull


def fixed_classifier_objective(
    margin: Any, classes: Any, per_class: Any, lam_H: Any, row_norm: Any = 1, smoothing: Any = 0, xp: Any = np
) -> Any:
    """log(1 + (K-1) e^-m) + eps (K-1)/K m + lam_H/2 K n t^2, t = m (K-1)/(K s); any number type.

    Parameters
    ----------
    margin : number or ndarray, shape (...)
        Margin m.
    classes, per_class : int or symbol
        Number K of classes, samples n per class.
    lam_H : number or ndarray, shape (...)
        Decay of W, decay of H.
    row_norm, smoothing : number
        Norm s of the classifier's rows, label smoothing eps.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> round(float(fixed_classifier_objective(3.0, 4, 3, 2e-3)), 6)
    0.199956
    """
    length = margin * (classes - 1) / (classes * row_norm)
    return (
        log1p((classes - 1) * xp.exp(-margin), xp)
        + smoothing * (classes - 1) / classes * margin
        + lam_H * classes * per_class * length**2 / 2
    )


def polygon_objective(scale: Any, classes: int, kappa: Any, xp: Any = np) -> Any:
    """log sum_j exp(c (cos(2 pi j/K) - 1)) + K kappa c of the regular polygon; any number type, K a number.

    Parameters
    ----------
    scale : float
        c >= 0; both singular values of the class means of the logits are c K/2.
    classes : int
        K >= 4; 2 and 3 corners are the simplex.
    kappa : float
        See `smoothed`.
    xp : module
        ``numpy``, ``mpmath`` or ``sympy``.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> round(float(polygon_objective(0.0, 5, 0.01)), 6), round(float(np.log(5)), 6)
    (1.609438, 1.609438)
    """
    angles = [2 * xp.pi * j / classes for j in range(1, classes)]
    return log1p(sum(xp.exp(scale * (xp.cos(x) - 1)) for x in angles), xp) + classes * kappa * scale


def polygon_slope(scale: Any, classes: int, kappa: Any, xp: Any = np) -> Any:
    """Derivative of `polygon_objective` by c: K kappa - 1 + sum_j p_j cos(2 pi j/K), p_j ~ exp(c cos(2 pi j/K)).

    Parameters
    ----------
    scale : number or ndarray, shape (...)
        c >= 0, as in `polygon_objective`.
    classes : int
        K.
    kappa : number or ndarray, shape (...)
        See `smoothed`.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> round(float(polygon_slope(0.0, 5, 0.01)), 12)
    -0.95
    """
    cosines = [xp.cos(2 * xp.pi * j / classes) for j in range(classes)]
    weights = [xp.exp(scale * (x - 1)) for x in cosines]
    return classes * kappa - 1 + sum(w * x for w, x in zip(weights, cosines, strict=True)) / sum(weights)


# ------------------------------------------------------------------------------------- the evaluators


class Optimum(NamedTuple):
    """Margin and objective at the optimum.

    Parameters
    ----------
    margin : float
        m >= 0, 0 at the origin.
    loss : float
        Objective, mean over samples.

    Examples
    --------
    >>> optimum(4, 0.25).margin
    0.0
    """

    margin: float
    loss: float


def optimum(classes: int, kappa: float, group: int = 1) -> Optimum:
    """Minimum of `objective` over m >= 0: m = 0 and log K where K kappa >= 1.

    Parameters
    ----------
    classes : int
        K >= 2.
    kappa : float
        > 0.
    group : int
        Size a of the groups of merged classes, a divisor of K below K.

    Returns
    -------
    Optimum

    Raises
    ------
    InvalidProblemError
        For a kappa that is not > 0.

    Examples
    --------
    >>> round(optimum(4, 0.005).loss, 10), optimum(4, 0.25).margin
    (0.0943616937, 0.0)
    """
    if not kappa > 0:
        raise invalid("optimum.kappa", kappa, "a number > 0: without decay there is no minimum")
    if classes * kappa >= 1:
        return Optimum(0.0, float(np.log(classes)))
    return Optimum(float(critical_margin(classes, kappa, group)), float(critical_loss(classes, kappa, group)))


def fixed_classifier_optimum(
    classes: int, per_class: int, lam_H: float, row_norm: float = 1.0, smoothing: float = 0.0
) -> Optimum:
    """Optimum of the features under a fixed simplex classifier with rows of norm s.

    Parameters
    ----------
    classes, per_class : int
        K, n.
    lam_H : float
        Decay of H, > 0.
    row_norm, smoothing : float
        s > 0, and eps.

    Returns
    -------
    Optimum

    Examples
    --------
    >>> found = fixed_classifier_optimum(5, 3, 2e-3)
    >>> round(found.margin * 4 / 5, 7), round(found.loss, 10)
    (3.1202073, 0.2238726053)
    """
    from scipy.optimize import brentq

    terms = (classes, per_class, lam_H, row_norm, smoothing)
    with np.errstate(over="ignore"):
        high = 1.0
        while fixed_classifier_residual(high, *terms) < 0:
            high *= 2.0
        margin = brentq(fixed_classifier_residual, 0.0, high, terms, xtol=1e-300, rtol=8.9e-16, maxiter=500)
    return Optimum(margin, float(fixed_classifier_objective(margin, *terms)))


def polygon_optimum(classes: int, kappa: float) -> Optimum:
    """Scale c and objective of the regular polygon; `margin` is c, 0 where K kappa >= 1.

    Parameters
    ----------
    classes : int
        K >= 4.
    kappa : float
        See `smoothed`.

    Returns
    -------
    Optimum

    Examples
    --------
    >>> round(polygon_optimum(5, nuclear_decay(3, 4e-3, 2e-3)).loss, 7)
    0.1778283
    """
    from scipy.optimize import brentq

    if classes * kappa >= 1:
        return Optimum(0.0, float(np.log(classes)))
    high = 1.0
    while polygon_slope(high, classes, kappa) < 0:
        high *= 2.0
    scale = brentq(polygon_slope, 0.0, high, (classes, kappa), xtol=1e-300, rtol=8.9e-16, maxiter=500)
    return Optimum(scale, float(polygon_objective(scale, classes, kappa)))


NEWTON = 12  # steps that polish a merged state of unequal groups
SETTLED = 1e-5  # largest gradient of one, in units of that of its decay


class Merged(NamedTuple):
    """Best state with merged classes, in the orthonormal basis 1_group/sqrt(size) of the groups.

    Parameters
    ----------
    rows, columns : ndarray, shape (groups, rank)
        U and V: W = B U up to the balance of the two decays, class means of H = V^T B^T.
    bias : ndarray, shape (groups,)
        One entry for each group.
    loss : float
        Objective, mean over samples.

    Examples
    --------
    >>> found = merged_optimum((2, 2), 0.01)
    >>> found.rows.shape, round(found.loss, 6)
    ((2, 1), 0.791186)
    """

    rows: np.ndarray  # U, shape (groups, rank): W = B U up to the balance of the two decays
    columns: np.ndarray  # V, shape (groups, rank): class means of H = V^T B^T, U^T U = V^T V
    bias: np.ndarray  # shape (groups,)
    loss: float


def merged_optimum(
    sizes: Sequence[int], decay: float, smoothing: float = 0.0, bias_decay: float | None = None
) -> Merged:
    """Best state in which the classes of each group are merged, objective averaged over samples.

    In closed form for groups of one size; else by Newton's method on the factors U, V of the (groups x groups) block
    of class means, a convex problem in their product.

    Parameters
    ----------
    sizes : sequence of int
        Classes in each group.
    decay : float
        sqrt(n lam_W lam_H) > 0, with K times it below 1 - eps.
    smoothing : float
        eps.
    bias_decay : float, optional
        lam_b >= 0 of a bias; None: no bias.

    Returns
    -------
    Merged

    Examples
    --------
    >>> round(merged_optimum((2, 2), np.sqrt(3 * 5e-3 * 1e-3)).loss, 7)
    0.738513
    """
    counts = np.asarray(sizes, dtype=float)
    K, groups = float(counts.sum()), len(counts)
    kappa = smoothed(decay, K, smoothing)
    if len(set(sizes)) == 1:
        from scipy.linalg import helmert

        best = optimum(int(K), kappa, int(counts[0]))
        frame = np.sqrt(best.margin * counts[0]) * helmert(groups).T if groups > 1 else np.zeros((1, 0))
        return Merged(frame, frame, np.zeros(groups), best.loss)
    return _Reduced(counts, decay, smoothing, bias_decay).minimum()


class _Reduced:
    """The objective over groups: zeta = U V^T is the class means of the logits in the basis 1_group/sqrt(size)."""

    def __init__(self, counts: np.ndarray, decay: float, smoothing: float, bias_decay: float | None) -> None:
        self.counts, self.decay, self.bias_decay = counts, decay, bias_decay
        self.K, self.groups = counts.sum(), len(counts)
        self.rank = self.groups - 1
        # logits of a class of group h at a sample of group g: zeta_hg/sqrt(a_h a_g) + b_h
        self.unit = 1 / np.sqrt(np.outer(counts, counts))
        # targets, summed over the classes of both groups, over K
        self.pull = (1 - smoothing) / self.K * np.diag(counts) + smoothing / self.K**2 * np.outer(
            counts, counts
        )

    def split(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        size = self.groups * self.rank
        U, V = theta[: 2 * size].reshape(2, self.groups, self.rank)
        return U, V, theta[2 * size :] if self.bias_decay is not None else np.zeros(self.groups)

    def fit(self, theta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Value, its derivative by the logits z_hg, and the probabilities of the groups."""
        U, V, b = self.split(theta)
        z = (U @ V.T) * self.unit + b[:, None]
        top = z.max(axis=0)
        weights = self.counts[:, None] * np.exp(z - top)
        total = weights.sum(axis=0)
        value = self.counts / self.K @ (np.log(total) + top) - np.sum(self.pull * z)
        p = weights / total
        return float(value), p * (self.counts / self.K) - self.pull, p

    def __call__(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        U, V, b = self.split(theta)
        value, by_z, _ = self.fit(theta)
        M = by_z * self.unit
        value += self.decay / 2 * (np.sum(U**2) + np.sum(V**2))
        parts = [M @ V + self.decay * U, M.T @ U + self.decay * V]
        gradient = np.concatenate([part.ravel() for part in parts])
        if self.bias_decay is not None:
            value += self.bias_decay / 2 * float(self.counts @ b**2)
            gradient = np.append(gradient, by_z.sum(axis=1) + self.bias_decay * self.counts * b)
        return value, gradient

    def hessian(self, theta: np.ndarray) -> np.ndarray:
        U, V, _ = self.split(theta)
        _, by_z, p = self.fit(theta)
        M, columns = by_z * self.unit, []
        for direction in np.eye(len(theta)):
            dU, dV, db = self.split(direction)
            dz = (dU @ V.T + U @ dV.T) * self.unit + db[:, None]
            moved = p * (dz - np.sum(p * dz, axis=0)) * (self.counts / self.K)
            dM = moved * self.unit
            parts = [dM @ V + M @ dV + self.decay * dU, dM.T @ U + M.T @ dU + self.decay * dV]
            column = np.concatenate([part.ravel() for part in parts])
            if self.bias_decay is not None:
                column = np.append(column, moved.sum(axis=1) + self.bias_decay * self.counts * db)
            columns.append(column)
        return np.array(columns)

    def minimum(self) -> Merged:
        """L-BFGS from a simplex of the groups, then Newton's method; rotations are flat directions."""
        from scipy.linalg import helmert
        from scipy.optimize import minimize

        # the part along sqrt(sizes) shifts all logits of a sample: it is 0
        mean = np.sqrt(self.counts / self.K)
        frame = helmert(self.groups).T
        frame = frame - np.outer(mean, mean @ frame)
        start = np.concatenate(
            [frame.ravel(), frame.ravel(), np.zeros(self.groups * (self.bias_decay is not None))]
        )
        options = {"maxiter": 5000, "ftol": 1e-16, "gtol": 1e-9}
        theta = minimize(self, start, jac=True, method="L-BFGS-B", options=options).x
        found = [(float(np.linalg.norm(self(theta)[1])), theta)]
        for _ in range(NEWTON):
            theta = theta - np.linalg.lstsq(self.hessian(theta), self(theta)[1], rcond=1e-12)[0]
            found.append((float(np.linalg.norm(self(theta)[1])), theta))
        size, theta = min(found, key=lambda one: one[0])
        if not size <= SETTLED * self.decay * np.linalg.norm(theta):
            raise invalid("merged_optimum.decay", self.decay, "a rate at which Newton's method settles")
        U, V, b = self.split(theta)
        if self.bias_decay == 0:
            b = b - self.counts @ b / self.K  # a constant in b changes nothing
        return Merged(U, V, b, self(theta)[0])


def dual_value(probabilities: Any, weights: Any, xp: Any = np) -> Any:
    """-fit*(G) of cross-entropy: the weighted sum of the entropies of the columns of Y + G N; any number type.

    Parameters
    ----------
    probabilities : array_like, shape (classes, samples)
        Columns that sum to 1.
    weights : array_like, shape (samples,)
        Weight of each sample in the fit, 1/N for the mean.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number

    Examples
    --------
    >>> round(dual_value([[0.5, 1.0], [0.5, 0.0]], [0.5, 0.5]), 6)
    0.346574
    """
    if xp is not np:
        return -sum(
            w * sum(p * xp.log(p) for p in column if p != 0)
            for w, column in zip(weights, zip(*probabilities, strict=True), strict=True)
        )
    P = np.asarray(probabilities)
    return float(
        -np.sum(np.asarray(weights) * np.sum(np.where(P > 0, P * np.log(np.where(P > 0, P, 1)), 0), axis=0))
    )


# ---------------------------------------------------------------------------------------- claims about runs

MOST_RECORDS = 32  # for which the bound from duality is computed, spread evenly over a run, the last included
NORM_PERTURBATION = (
    1e-3  # a squared norm moves like the square root of the objective's distance from its optimum
)


class Terms(NamedTuple):
    """What the closed forms read off a problem, with the objective averaged over samples.

    Parameters
    ----------
    per_class : int
        Samples n in each class.
    classifier, features : float
        lam_W and lam_H.
    bias : float or None
        lam_b; None: no bias.
    smoothing : float
        eps.
    scale : float
        Objective over that of the mean: 1, or N for a sum.

    Examples
    --------
    >>> round(Terms(4, 0.01, 0.01, None, 0.2, 1.0).kappa(5), 12)
    0.06
    """

    per_class: int
    classifier: float  # lam_W
    features: float  # lam_H
    bias: float | None  # lam_b; None: no bias
    smoothing: float
    scale: float  # objective over that of the mean: 1, or N for a sum

    @property
    def decay(self) -> float:
        """sqrt(n lam_W lam_H)."""
        return float(nuclear_decay(self.per_class, self.classifier, self.features))

    def kappa(self, classes: int) -> float:
        """sqrt(n lam_W lam_H) + eps/K."""
        return float(smoothed(self.decay, classes, self.smoothing))


def terms_of(problem: Any, coupled: Any) -> Terms:
    """Rates of a problem with coupled decay, of `other_model` None.

    Parameters
    ----------
    problem : UFM
        One that `other_model` accepts.
    coupled : mapping of str to float
        Coupled decay rate of each block.

    Returns
    -------
    Terms

    Examples
    --------
    >>> import ufm
    >>> round(terms_of(ufm.UFM(3, 4, per_class=2), {"W1": 0.1, "H": 0.2}).decay, 12)
    0.2
    """
    scale = 1 if problem.loss.reduction == "mean" else problem.samples
    return Terms(
        per_class=problem.class_sizes[0],
        classifier=coupled.get(problem.last, 0.0) / scale,
        features=coupled["H"] / scale,
        bias=coupled["b"] / scale if "b" in coupled else None,
        smoothing=problem.loss.smoothing,
        scale=float(scale),
    )


def other_model(problem: Any, coupled: Any) -> str | None:
    """Why the closed forms are none for this problem, or None.

    Parameters
    ----------
    problem : UFM
        The problem.
    coupled : mapping of str to float
        Coupled decay rate of each block.

    Returns
    -------
    str or None

    Examples
    --------
    >>> import ufm
    >>> other_model(ufm.UFM(3, 4), {"W1": 0.1, "H": 0.0})
    'no coupled decay acts on H, so the objective has no minimum'
    """
    loss, reason = problem.loss, other_features(problem)
    if reason is not None:
        return reason
    if problem.depth != 1:
        return f"the model has {problem.depth} layers; the closed form is that of one"
    if not isinstance(loss, CrossEntropy) or loss.targets is not None:
        return f"the loss is {loss!r}, not cross-entropy against class labels"
    if problem.frozen_values:
        return f"{', '.join(problem.frozen_values)} is frozen"
    if len(set(problem.class_sizes)) > 1:
        return f"classes have {problem.class_sizes} samples, not one number"
    for block in ("H", problem.last):
        if not coupled[block] > 0:
            return f"no coupled decay acts on {block}, so the objective has no minimum"
    return None


def _another_objective(run: Run) -> str | None:
    return other_model(run.problem, run.coupled)


def _no_certificate(run: Run) -> str | None:
    """Why the bound from duality need not close at the optimum, or None."""
    reason = other_model(run.problem, run.coupled)
    if reason is None and any(run.decoupled.values()):
        reason = "decoupled decay acts, which belongs to the step and to no objective"
    K, width = run.problem.classes, min(run.problem.widths)
    # from K kappa = 1 on zero is optimal at every width
    if reason is None and width < K - 1 and K * terms_of(run.problem, run.coupled).kappa(K) < 1:
        reason = f"width {width} < classes - 1: the optimum lies above the convex bound"
    return reason


def _minimum(run: Run) -> float:
    terms, K = terms_of(run.problem, run.coupled), run.problem.classes
    return terms.scale * optimum(K, terms.kappa(K)).loss


def _at_least_the_minimum(run: Run, error: float = 0.0) -> Prediction:
    return at_least(run, _minimum(run) * (1 + error), "global minimum of the cross-entropy UFM")


def _above_the_minimum(run: Run) -> Prediction:
    return _at_least_the_minimum(run, PERTURBATION[run.dtype])


class _Gaps(NamedTuple):
    """Records that are judged, up to 32, and by how much each can exceed the global minimum, round-off included."""

    records: np.ndarray
    sizes: np.ndarray


_gaps_of: WeakKeyDictionary[Any, _Gaps] = WeakKeyDictionary()


def _gaps(run: Run) -> _Gaps:
    """Objective minus its bound from duality; kept for as long as the trajectory lives, for several claims ask."""
    from ufm.fenchel import lower_bound

    traj = run.trajectory
    found = _gaps_of.get(traj)
    if found is None:
        kept = finite_records(run)
        assert traj is not None
        kept = spread_evenly(kept, MOST_RECORDS)
        bounds = np.array([lower_bound(run.problem, run.decay, traj.state(int(record))) for record in kept])
        sizes = np.maximum(traj.loss[kept] - bounds, 0.0) + objective_error(run, kept)
        found = _gaps_of[traj] = _Gaps(kept, sizes)
    return found


def _collapse(run: Run, error: float = 0.0) -> Prediction:
    """F at the records against the global minimum; off by at most the gap of duality, which knows no closed form."""
    (kept, gaps), least = _gaps(run), _minimum(run)
    assert run.trajectory is not None
    observed = run.trajectory.loss[kept]
    above = f"{observed[-1] - least:.2e} above" if len(kept) else "nowhere recorded near"
    quantity = f"F, which ended {above} the global minimum {least:.8g},"
    predicted = np.full(len(kept), least * (1 + error))
    return Prediction(quantity, predicted, observed, gaps, allowance="the gap that duality leaves")


def _collapse_off(run: Run) -> Prediction:
    return _collapse(run, PERTURBATION[run.dtype])


def penalty_bounds(share: Any, excess: np.ndarray, least: Any) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bound on one block's decay term D at a state whose objective exceeds the minimum by `excess`.

    With that block's rate times x the state's objective is F + (x - 1) D, and at least the minimum f(x) there:
    D >= (f(x) - F)/(x - 1) for x > 1, D <= (F - f(x))/(1 - x) for x < 1. Every x gives a bound; the best of many is
    taken. f is concave, so that the bounds close like the square root of the excess.

    Parameters
    ----------
    share : ndarray, shape (tried,)
        Distances |x - 1| that are tried, in (0, 1).
    excess : ndarray, shape (records,)
        F - f(1) >= 0, or a bound on it.
    least : callable
        f, elementwise.

    Returns
    -------
    lower, upper : ndarray, shape (records,)

    Examples
    --------
    >>> lower, upper = penalty_bounds(np.array([0.1, 0.01]), np.array([0.0]), np.sqrt)
    >>> lower.round(2).tolist(), upper.round(2).tolist()  # the derivative 1/2 lies between
    ([0.5], [0.5])
    """
    here, eps = least(np.ones(1)), 16 * np.finfo(float).eps
    with np.errstate(over="ignore"):  # infinite where a run diverges: no bound
        lower = (least(1 + share) - here * (1 + eps) - excess[:, None]) / share
        upper = (here * (1 + eps) + excess[:, None] - least(1 - share)) / share
    return lower.max(axis=1), upper.min(axis=1)


@np.errstate(over="ignore", invalid="ignore")  # squares of a run that diverges: no bound
def _norms(run: Run, error: float = 0.0) -> Prediction:
    """lam_W/2 ||W||^2 and lam_H/2 ||H||^2 against (K-1) sqrt(n lam_W lam_H) m/2, within `penalty_bounds` of the gap."""
    (kept, gaps), terms, K = _gaps(run), terms_of(run.problem, run.coupled), run.problem.classes
    traj, last = run.trajectory, run.problem.last
    assert traj is not None
    best = optimum(K, terms.kappa(K))
    expected = terms.scale * (K - 1) * terms.decay * best.margin / 2
    states = [np.asarray(traj[block][kept], dtype=np.float64) for block in (last, "H")]
    observed = np.stack(
        [
            run.coupled[block] / 2 * (B**2).sum(axis=(1, 2))
            for block, B in zip((last, "H"), states, strict=True)
        ],
        axis=1,
    )

    def least(x: np.ndarray) -> np.ndarray:
        losses = [
            optimum(K, float(smoothed(terms.decay * np.sqrt(one), K, terms.smoothing))).loss for one in x
        ]
        return terms.scale * np.array(losses)

    lower, upper = penalty_bounds(np.logspace(-9, -0.01, 150), gaps, least)
    rounding = np.finfo(run.dtype).eps * run.problem.size * observed.max(axis=1, initial=0.0)
    bound = np.maximum(upper - expected, expected - lower) + rounding
    bound = np.where(np.isnan(bound), np.inf, bound)
    quantity = f"lam_W/2 ||W||^2 and lam_H/2 ||H||^2, both {expected:.8g} at the global minimum,"
    predicted = np.full((len(kept), 2), expected * (1 + error))
    return Prediction(quantity, predicted, observed, bound, allowance="what the gap of duality leaves open")


def _norms_off(run: Run) -> Prediction:
    return _norms(run, NORM_PERTURBATION)


CLAIMS = (
    Claim(
        name="zhu2021.global_optimum",
        statement=(
            "Cross-entropy UFM with equal classes and decay of W and H: with kappa = sqrt(n lam_W lam_H) + eps/K the "
            "global minimum is log(1 + (K-1) e^-m) + (K-1) kappa m at m = log(1/kappa - (K-1)), reached by a simplex "
            "ETF (d >= K - 1) with ||w||^2 = (K-1)/K m sqrt(n lam_H/lam_W), self-dual features and bias 0; it is log K "
            "at zero iff K kappa >= 1. No state of any width lies below it."
        ),
        source=Source(
            PAPER, "theorem on global minimisers; margin, norms, loss and threshold derived here", RECALLED
        ),
        room="cross_entropy_optimum",
        figure="cross_entropy_optimum",
        layers={
            "symbolic": (
                "proved for symbolic K, n, lam_W, lam_H, eps: critical, certificate with equality, value, threshold; "
                "von Neumann's inequality and ||W H||_* <= ||W||_F ||H||_F, which the certificate rests on, are cited"
            ),
            "simulation": "every recorded objective, within its round-off (a run that converges tells 1e-6)",
        },
        applies=_another_objective,
        predict=_at_least_the_minimum,
        control=_above_the_minimum,
        rank=2,
    ),
    Claim(
        name="ufm.cross_entropy_gap",
        statement=(
            "At every state, critical or not, any class sizes, the global minimum is at least -fit*(t G) with "
            "G = d fit/dZ and t = min(1, sqrt(lam_W lam_H)/||G||_op). So a run's objective exceeds the closed form of "
            "zhu2021.global_optimum by at most the gap F + fit*(t G), which closes where a run converges to it."
        ),
        source=Source(HERE, "Fenchel's dual of the convex problem in Z", DERIVED),
        room="cross_entropy_optimum",
        figure="cross_entropy_optimum",
        layers={
            "symbolic": "proved for K = 2..4: Fenchel's equality at softmax probabilities, and t G stays feasible",
            "simulation": "at up to 32 records of a run; a run that converges tells 1e-6",
        },
        applies=_no_certificate,
        predict=_collapse,
        control=_collapse_off,
        rank=2,
    ),
    Claim(
        name="ufm.cross_entropy_norms",
        statement=(
            "lam_W/2 ||W||_F^2 = lam_H/2 ||H||_F^2 = (K-1)/2 sqrt(n lam_W lam_H) m at the global minimum. A state of "
            "objective F has either term D between (f(x) - F)/(x - 1) for every x > 1 and (F - f(x))/(1 - x) for "
            "every x < 1, f(x) the global minimum with that block's rate times x."
        ),
        source=Source(HERE, "concavity of the minimum in the decay", DERIVED),
        room="cross_entropy_optimum",
        figure="cross_entropy_optimum",
        layers={
            "symbolic": "proved for symbolic K, n and rates: the norms, and the slope of f at x = 1",
            "simulation": "at up to 32 records of a run; a run that converges tells 1e-3",
        },
        applies=_no_certificate,
        predict=_norms,
        control=_norms_off,
        rank=2,
    ),
    Claim(
        name="zhu2021.strict_saddles",
        statement=(
            "A critical point is a global minimiser if ||G||_op <= sqrt(lam_W lam_H) at any width, and only if for "
            "d >= K - 1. Else, with the top singular triplet (sigma, u, v) of G and a unit a, W a = 0 (d > rank W), "
            "D_W = (lam_H/lam_W)^(1/4) u a^T, D_H = -(lam_W/lam_H)^(1/4) a v^T has second derivative exactly "
            "-2 (sigma - sqrt(lam_W lam_H)) < 0: a strict saddle."
        ),
        source=Source(
            PAPER,
            "theorem on strict saddles for d > K; d = K by Gu and Shen, arXiv 2407.10702; certificate, direction and "
            "curvature derived here",
            RECALLED,
        ),
        room="cross_entropy_optimum",
        figure="cross_entropy_optimum",
        layers={
            "symbolic": (
                "proved for K = 2, 3 with symbolic matrices: F(other) - F >= 0 from the certificate, second derivative "
                "along the direction; at any size the terms are the same. The converse for d >= K - 1 is argued, from "
                "the convex problem having the same minimum"
            ),
            "simulation": "all merged-class saddles for K <= 6: curvature to 1e-6, and a descent reaches the optimum",
        },
    ),
    Claim(
        name="ufm.merged_class_saddles",
        statement=(
            "For every partition of the classes into groups and K sqrt(n lam_W lam_H) < 1 - eps there is a critical "
            "point with each group merged, and ||G||_op = (1 - eps)/(K sqrt n): with d > rank W a strict saddle of "
            "curvature -2 ((1 - eps)/(K sqrt n) - sqrt(lam_W lam_H)). For groups of a classes each its margin is "
            "log(1/kappa - (K-a)) - log a, its loss log a - log(1 - (K-a) kappa) + (K-a) kappa m."
        ),
        source=Source(HERE, "merged-class saddles of any partition", DERIVED),
        room="cross_entropy_optimum",
        figure="cross_entropy_optimum",
        layers={
            "symbolic": (
                "equal groups: proved for symbolic K, a, n, rates, eps. Any partition: contrasts within groups are "
                "singular vectors of G with (1 - eps)/(K sqrt n), proved for K = 3..6; the others, those of the convex "
                "problem of the groups at its minimum, are at most sqrt(lam_W lam_H): argued, and measured"
            )
        },
    ),
    Claim(
        name="ufm.narrow_cross_entropy",
        statement=(
            "For d < K - 1 and K kappa < 1 the minimum lies above that of zhu2021.global_optimum, whose convex bound "
            "only a state of rank K - 1 attains. At d = 2 the regular polygon Z_kl = c cos(2 pi (k-l)/K) at the "
            "minimum of log sum_j exp(c (cos(2 pi j/K) - 1)) + K kappa c is critical: the best found for K = 4, 5, "
            "not for K = 7."
        ),
        source=Source(HERE, "widths below K - 1", DERIVED),
        room="cross_entropy_optimum",
        figure="cross_entropy_optimum",
        layers={
            "symbolic": "proved for K = 4..6: the polygon is critical, with a positive scale iff K kappa < 1",
            "simulation": "d = 2, one decay: L-BFGS finds nothing lower for K = 4, 5, and a lower state for K = 7",
        },
    ),
    Claim(
        name="zhu2021.fixed_etf",
        statement=(
            "W frozen at a simplex ETF with rows of norm s (d = K, or padded with zeros): F is convex in H, and its "
            "minimum has h = t w/s with m = s t K/(K-1), m (e^m + K - 1) = K s^2/(lam_H n (K-1)), bias 0, loss "
            "log(1 + (K-1) e^-m) + lam_H/2 K n t^2; smoothing takes eps/K from 1/(e^m + K - 1)."
        ),
        source=Source(
            PAPER, "fixed classifier of the public code; its optimum derived here", "known from the code"
        ),
        room="cross_entropy_optimum",
        layers={"symbolic": "proved for symbolic K, n, lam_H, s, eps: stationary, and the only root"},
    ),
)
