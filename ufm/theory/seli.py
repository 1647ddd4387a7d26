r"""SELI: where cross-entropy with unequal classes goes as the decay vanishes.

UF-SVM (Thrampoulidis et al., arXiv 2208.05512): min 1/2 ||W||^2 + 1/2 ||H||^2 with all margins
(w_y - w_c)^T h_i >= 1. With Zhat = Y - J/K (every margin exactly 1) and its SVD V L U^T, W H = Zhat,
W W^T = V L V^T and H^T H = U L U^T. By classes, P = I - J/K and D = diag(n_k), this is (derived here)

    W W^T = (P D P)^(1/2),     M = (W W^T)^+,

M the Gram matrix of the class means of H, ^+ the pseudo-inverse; equal classes give the simplex ETF.

Optimal for every choice of class sizes (derived here). (P D P)^+ = D^-1 - D^-1 J D^-1/tr(D^-1) is the Laplacian of a
complete graph: rows sum to 0, entries off the diagonal are -1/(n_i n_j sum 1/n) < 0. Its square root M is

    M = 1/(2 sqrt(pi)) int_0^oo (I - exp(-t (P D P)^+)) t^(-3/2) dt,

where exp(-t ...) > 0 entry by entry; so M has negative entries off the diagonal. The subgradient V U^T of the nuclear
norm has the off-label entries M_ck < 0 and columns that sum to 0, hence for every feasible W and H

    1/2 ||W||^2 + 1/2 ||H||^2 >= <V U^T, W H> = sum_i sum_c (-V U^T)_ci (z_yi - z_ci) >= ||Zhat||_*.

Along the regularisation path (derived here, given that Z/log(1/lam_Z) -> Zhat, which is recalled): stationarity says
that a sample of class k gives class c the probability -lam_Z N S_ck with S the subgradient, S -> M off the label, so
the margins are log(1/lam_Z) - log(-N M_ck) + o(1). The geometry is approached like 1/log(1/lam_Z) and no faster;
nothing merges in the limit, since merging takes a decay above a threshold (`minority_collapse`). With many samples,
sizes f n_k at lam_Z = c/N and f -> oo, the margins are log(f)/2 + constants: the same geometry of logits, again
logarithmically.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ufm.checks import whole
from ufm.claims import Claim, Source
from ufm.errors import invalid

PAPER = "Thrampoulidis, Kini, Vakilian, Behnia, arXiv 2208.05512"

# ------------------------------------------------------------------ formulas, generic in their number type


def centred_sizes(class_sizes: Sequence[Any], xp: Any = np) -> Any:
    """P D P with P = I - J/K, the square of W W^T, K x K.

    Parameters
    ----------
    class_sizes : sequence of int
        Samples n_k in each class.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    ndarray, shape (K, K), or sympy.Matrix

    Examples
    --------
    >>> centred_sizes([2, 2]).tolist()
    [[1.0, -1.0], [-1.0, 1.0]]
    """
    K = len(class_sizes)
    if xp is np:
        P = np.eye(K) - 1 / K
        return (P * np.asarray(class_sizes, dtype=float)) @ P
    P = xp.eye(K) - xp.ones(K, K) / K
    return P * xp.diag(*class_sizes) * P


def laplacian(class_sizes: Sequence[Any], xp: Any = np) -> Any:
    """(P D P)^+ = D^-1 - D^-1 J D^-1/tr(D^-1), the square of the Gram matrix of class-mean features, K x K.

    Parameters
    ----------
    class_sizes : sequence of int
        Samples n_k in each class.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    ndarray, shape (K, K), or sympy.Matrix

    Examples
    --------
    >>> laplacian([2, 2]).tolist()
    [[0.25, -0.25], [-0.25, 0.25]]
    """
    if xp is np:
        inverse = 1 / np.asarray(class_sizes, dtype=float)
        return np.diag(inverse) - np.outer(inverse, inverse) / inverse.sum()
    inverse = xp.Matrix([1 / xp.sympify(n) for n in class_sizes])
    return xp.diag(*inverse) - inverse * inverse.T / sum(inverse)


class Products(NamedTuple):
    """Gram matrix of K vectors in two groups of equals.

    Parameters
    ----------
    square_major, square_minor : number
        Squared norm in group A, in group B.
    inside_major, inside_minor : number
        Inner product of two of A, of two of B.
    across : number
        Inner product across the groups.

    Examples
    --------
    >>> [float(x) for x in Products(4.0, 1.0, -2.0, 0.5, 1.0).cosines()]
    [-0.5, 0.5, 0.5]
    """

    square_major: Any  # squared norm in group A
    square_minor: Any
    inside_major: Any  # inner product of two of A
    inside_minor: Any
    across: Any

    def cosines(self, xp: Any = np) -> tuple[Any, Any, Any]:
        """Cosines inside A, inside B, and across."""
        across = self.across / (xp.sqrt(self.square_major) * xp.sqrt(self.square_minor))
        return self.inside_major / self.square_major, self.inside_minor / self.square_minor, across


class Step(NamedTuple):
    """SELI geometry of K_A classes of R samples and K_B of one.

    Parameters
    ----------
    singular_values : tuple of three number
        sqrt(R) K_A - 1 times, 1 K_B - 1 times, sqrt(nu) once.
    classifiers, features : Products
        Gram matrix of classifiers and of class-mean features.

    Examples
    --------
    >>> [round(float(value), 6) for value in step(2, 2, 7.0).singular_values]
    [2.645751, 1.0, 2.0]
    """

    singular_values: tuple[Any, Any, Any]  # K_A - 1 times, K_B - 1 times, once
    classifiers: Products
    features: Products


def step(K_A: Any, K_B: Any, ratio: Any, xp: Any = np) -> Step:
    """SELI geometry of STEP imbalance; for any number type.

    With nu = (K_B R + K_A)/K the singular values are sqrt(R), 1 and sqrt(nu); classifiers have the squared norms
    sqrt(R)(1 - 1/K_A) + sqrt(nu) K_B/(K K_A) and 1 - 1/K_B + sqrt(nu) K_A/(K K_B), class-mean features the same with
    the square roots inverted. For n_B samples in the minority multiply classifiers by sqrt(n_B), divide features by it.

    Parameters
    ----------
    K_A, K_B : int or symbol
        Number of majority classes, of minority classes.
    ratio : number
        R >= 1.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    Step

    Examples
    --------
    >>> [round(float(x), 12) for x in step(2, 2, 7.0).classifiers.cosines()]
    [-0.451416229645, 0.0, -0.370332205714]
    """
    K = K_A + K_B
    major, coarse = xp.sqrt(ratio), xp.sqrt((K_B * ratio + K_A) / K)
    classifiers, features = (_products(x, y, K_A, K_B) for x, y in ((major, coarse), (1 / major, 1 / coarse)))
    return Step((major, 1, coarse), classifiers, features)


def _products(major: Any, coarse: Any, K_A: Any, K_B: Any) -> Products:
    """Entries of major (I_A - J_A/K_A) + I_B - J_B/K_B + coarse u u^T, u in the span of 1_A and 1_B, u^T 1 = 0."""
    K = K_A + K_B
    part_A, part_B = coarse * K_B / (K * K_A), coarse * K_A / (K * K_B)
    return Products(
        major * (K_A - 1) / K_A + part_A,
        (K_B - 1) / K_B + part_B,
        part_A - major / K_A,
        part_B - 1 / K_B,
        -coarse / K,
    )


def acute_ratio(K_A: Any, K_B: Any) -> Any:
    """Ratio beyond which minority classifiers stand at acute angles, (K^3/K_A^2 - K_A)/K_B; 7 for halves, every K.

    Parameters
    ----------
    K_A, K_B : int or symbol
        Number of majority classes, of minority classes.

    Returns
    -------
    number

    Examples
    --------
    >>> acute_ratio(2, 2), acute_ratio(5, 5)
    (7.0, 7.0)
    """
    K = K_A + K_B
    return (K**3 / K_A**2 - K_A) / K_B


def limit_cosines(K_A: Any, K_B: Any, xp: Any = np) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Cosines of classifiers and of features inside A and inside B as R -> oo, K_A, K_B >= 2.

    With g = (K_B/K)^(3/2): ((g - 1)/(K_A - 1 + g), 1) and (-(1 - h)/(K_A - 1 + h), -1/(K_B - 1)), h = sqrt(K_B/K).

    Parameters
    ----------
    K_A, K_B : int or symbol
        Number of majority classes, of minority classes.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    classifiers, features : pair of number

    Examples
    --------
    >>> [(round(float(a), 6), round(float(b), 6)) for a, b in limit_cosines(2, 2)]
    [(-0.477592, 1.0), (-0.171573, -1.0)]
    """
    share = K_B / (K_A + K_B)
    g, h = share * xp.sqrt(share), xp.sqrt(share)
    return ((g - 1) / (K_A - 1 + g), 1), ((h - 1) / (K_A - 1 + h), -1 / (K_B - 1))


def ray_loss(scale: Any, K: Any, decay: Any, norm: Any, xp: Any = np) -> Any:
    """Objective of the logits c Zhat with factors of least penalty: log(1 + (K-1) e^-c) + lam_Z c ||Zhat||_*.

    Parameters
    ----------
    scale : number or ndarray, shape (...)
        c > 0.
    K : int or symbol
        Number of classes.
    decay, norm : number
        lam_Z = sqrt(lam_W lam_H), ||Zhat||_*.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> round(float(ray_loss(0.0, 4, 0.01, 3.0)), 6)
    1.386294
    """
    return xp.log(1 + (K - 1) * xp.exp(-scale)) + decay * scale * norm


def ray_scale(K: Any, decay: Any, norm: Any, xp: Any = np) -> Any:
    """Best c on that ray, log((K-1)(1/(lam_Z ||Zhat||_*) - 1)) where this is > 0.

    Parameters
    ----------
    K : int or symbol
        Number of classes.
    decay, norm : number
        lam_Z = sqrt(lam_W lam_H), ||Zhat||_*.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number

    Examples
    --------
    >>> round(float(ray_scale(4, 0.01, 3.0)), 6)
    4.574711
    """
    return xp.log((K - 1) * (1 / (decay * norm) - 1))


# ----------------------------------------------------------------------------------------- any class sizes


class Geometry(NamedTuple):
    """SELI geometry by classes.

    Parameters
    ----------
    classifiers, features : ndarray, shape (K, K)
        W W^T, and Gram matrix of the class means of H.
    singular_values : ndarray, shape (K - 1,)
        Of Zhat, largest first.
    vectors : ndarray, shape (K, K - 1)
        Left singular vectors of Zhat by column.

    Examples
    --------
    >>> round(geometry([4, 4, 4]).norm, 12)
    4.0
    """

    classifiers: np.ndarray  # W W^T, K x K
    features: np.ndarray  # Gram matrix of the class means of H, K x K
    singular_values: np.ndarray  # of Zhat, largest first, shape (K - 1,)
    vectors: np.ndarray  # left singular vectors of Zhat by column, K x (K - 1)

    @property
    def norm(self) -> float:
        """||Zhat||_*, the minimum of the UF-SVM."""
        return float(self.singular_values.sum())


def geometry(class_sizes: Sequence[int]) -> Geometry:
    """SELI geometry of any class sizes, from the SVD of P D^(1/2).

    Parameters
    ----------
    class_sizes : sequence of int
        n_k >= 1 of two classes or more.

    Returns
    -------
    Geometry

    Raises
    ------
    InvalidProblemError
        For fewer classes or an empty one.

    Examples
    --------
    >>> found = geometry([3, 3, 3])
    >>> (found.classifiers / 3**0.5).round(12)[0].tolist()
    [0.666666666667, -0.333333333333, -0.333333333333]
    """
    sizes = [whole("seli.class_sizes", n) for n in class_sizes]
    if len(sizes) < 2:
        raise invalid("seli.class_sizes", class_sizes, "two classes or more, each with a sample")
    K = len(sizes)
    V, values, _ = np.linalg.svd((np.eye(K) - 1 / K) * np.sqrt(sizes))
    V, values = V[:, : K - 1], values[: K - 1]
    return Geometry((V * values) @ V.T, (V / values) @ V.T, values, V)


def certificate(class_sizes: Sequence[int]) -> float:
    """Largest off-label entry of V U^T for one sample of a class, < 0 where SELI is optimal: it always is.

    Parameters
    ----------
    class_sizes : sequence of int
        Samples n_k in each class.

    Returns
    -------
    float

    Examples
    --------
    >>> certificate([1000, 1, 1, 30]) < 0
    True
    """
    roots = np.sqrt(np.asarray(class_sizes, dtype=float))
    K = len(roots)
    V, _, U = np.linalg.svd((np.eye(K) - 1 / K) * roots)
    columns = V[:, : K - 1] @ U[: K - 1] / roots  # of one of the n_k equal samples of class k
    return float(columns[~np.eye(K, dtype=bool)].max())


def limit_margins(class_sizes: Sequence[int], decay: float) -> np.ndarray:
    """Margins z_k - z_c of a sample of class k for small lam_Z, log(1/lam_Z) - log(-N M_ck), shape (K, K): [c, k].

    The diagonal is 0. What is left out vanishes with lam_Z.

    Parameters
    ----------
    class_sizes : sequence of int
        Samples n_k in each class.
    decay : float
        lam_Z = sqrt(lam_W lam_H).

    Returns
    -------
    ndarray, shape (K, K)

    Examples
    --------
    >>> limit_margins([4, 4], 1e-3).round(3)[0].tolist()  # exact: log(1/(2 lam_Z) - 1) = 6.213
    [0.0, 6.215]
    """
    features = geometry(class_sizes).features
    off = ~np.eye(len(features), dtype=bool)
    found = np.zeros_like(features)
    found[off] = -np.log(decay) - np.log(-sum(class_sizes) * features[off])
    return found


def distance(means: np.ndarray) -> Any:
    """|| Z/||Z||_F - P/||P||_F ||_F of class means Z of the logits, K x K in the last two axes.

    Parameters
    ----------
    means : ndarray, shape (..., K, K)
        Class means of the logits by column.

    Returns
    -------
    ndarray or float, shape (...)

    Examples
    --------
    >>> round(float(distance(np.eye(3) - 1 / 3)), 12)
    0.0
    """
    K = means.shape[-1]
    P = (np.eye(K) - 1 / K) / np.sqrt(K - 1)
    return np.linalg.norm(means / np.linalg.norm(means, axis=(-2, -1), keepdims=True) - P, axis=(-2, -1))


ROOM, FIGURE = "seli", "seli"

CLAIMS = (
    Claim(
        name="thrampoulidis2022.seli",
        statement=(
            "UF-SVM, any class sizes: W H = Y - J/K, W W^T = (P D P)^(1/2), class-mean features with the Gram "
            "matrix M = (W W^T)^+ are globally optimal, for M has negative entries off the diagonal: it is the "
            "square root of the Laplacian of a complete graph."
        ),
        source=Source(PAPER, "SELI geometry; closed forms and proof for any sizes derived here", "recalled"),
        room=ROOM,
        figure=FIGURE,
        layers={
            "symbolic": (
                "pseudo-inverse and dual identity for K = 2..4, integral for every eigenvalue; argued from them"
            ),
            "simulation": "certificate of 5,000 random profiles, K = 3..14",
        },
    ),
    Claim(
        name="thrampoulidis2022.step",
        statement=(
            "STEP imbalance, K_A classes of R samples, K_B of one: norms and angles in closed form with singular "
            "values sqrt(R), 1, sqrt((K_B R + K_A)/K). Minority classifiers turn acute at R = (K^3/K_A^2 - "
            "K_A)/K_B, 7 for halves at every K; as R -> oo their cosine tends to 1, that of minority features to "
            "-1/(K_B - 1); R = 1 is the ETF."
        ),
        source=Source(PAPER, "STEP imbalance; general group sizes derived here", "recalled"),
        room=ROOM,
        figure=FIGURE,
        layers={
            "symbolic": "proved for symbolic K_A, K_B, R",
            "simulation": "singular value decomposition, to 1e-12",
        },
    ),
    Claim(
        name="ufm.seli_rate",
        statement=(
            "As lam_Z -> 0 the margins of the regularised optimum are log(1/lam_Z) - log(-N M_ck) + o(1), so that "
            "SELI is approached like 1/log(1/lam_Z); balanced classes have it at every decay."
        ),
        source=Source("this package", "next order of the regularisation path", "derived here"),
        room=ROOM,
        figure=FIGURE,
        layers={
            "symbolic": "best multiple of the geometry, margin of equal classes: symbolic K, n; the law is argued",
            "simulation": "certified optima at lam_Z = 1e-2 .. 1e-10: what is left out falls, like 1/log(1/lam_Z)",
        },
    ),
)
