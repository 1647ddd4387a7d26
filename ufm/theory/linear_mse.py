r"""The linear chain with squared error: its global optimum at every depth, any class sizes, with and without bias.

Notation as in `deep_collapse`, s the identity, n_k samples in class k, N = sum n_k. Let sigma_i be the singular values
of the targets Y, or of Y (I - 1 1^T/N) with a bias that does not decay. Two classical inequalities split the
problem into one scalar problem per singular direction:

    sum_i s_i(A_1 ... A_m)^p <= prod_j (sum_i s_i(A_j)^(mp))^(1/m)        (Horn, Hoelder)
    ||Z - Y||_F^2 >= sum_i (s_i(Z) - sigma_i)^2                           (von Neumann)

The first, with p = 2/(L+1) and the inequality of the means, makes the decay of all factors of Z at least
(L+1)/2 (lam_H prod lam_l)^(1/(L+1)) sum_i s_i(Z)^p. So direction i is the scalar problem of `deep_collapse` with
n = sigma_i^2 and D = N/sigma_i^2, weighted by sigma_i^2/N. Its gain gamma_i obeys

    gamma^(L-1) (1 - gamma)^(L+1) = (N/sigma_i^2)^L N lam_H prod lam_l,   kept iff gamma > (L-1)/L,   else 0.

Without bias sigma_k^2 = n_k: small classes are lost first (minority collapse). With a bias sigma_i^2 are the
eigenvalues of diag(n) - n n^T/N; for equal classes that is n, K - 1 times: a simplex ETF at the same gain.

Dang et al. (arXiv 2301.00437; read in its public code, not in the text of its theorems) write M for L, b for
M N (N lam_W^M lam_H)^(1/M) and x for (gamma/(1 - gamma))^(1/M). Tirer and Bruna (arXiv 2202.08087, L = 1) divide the
decays by K and by N.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ufm.claims import Claim, Prediction, Source
from ufm.theory._lower_bound import at_least
from ufm.theory._recorded import PERTURBATION
from ufm.theory.deep_collapse import (
    decays_of,
    exactly,
    geometric_decay,
    other_objective,
    shortfall,
    stationary_loss,
    zero_gain,
)

if TYPE_CHECKING:
    from ufm.run import Run

# ------------------------------------------------------------------ formulas, generic in their number type


def direction_strength(square: Any, samples: Any, features: Any, weights: Sequence[Any], xp: Any = np) -> Any:
    """Strength D Lam of a singular direction: D = N/sigma^2 and n = sigma^2 in Lam.

    Parameters
    ----------
    square : float
        Squared singular value sigma^2 of the targets; n_k for class k without bias.
    samples : float
        Number N of samples.
    features, weights : number, sequence of number
        Decay of H and of W_1 ... W_L.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number

    Examples
    --------
    >>> round(direction_strength(4, 12, 0.01, [0.01]), 12)
    0.06
    """
    return samples / square * geometric_decay(features, weights, square, xp)


def kept(gain: Any, depth: Any) -> Any:
    """Whether a direction at this gain beats zero, gamma > (L-1)/L.

    Parameters
    ----------
    gain : number or ndarray, shape (...)
        Gain of the direction.
    depth : int or symbol
        Number L of layers.

    Returns
    -------
    bool, or ndarray of bool, shape (...)

    Examples
    --------
    >>> kept(0.6, 2), kept(0.4, 2)
    (True, False)
    """
    return gain > zero_gain(depth)


def factor_share(gain: Any, shortfall: Any, spread: Any) -> Any:
    """Decay times squared singular value that each of the L + 1 factors spends on a direction, gamma (1 - gamma)/D.

    Parameters
    ----------
    gain, shortfall, spread : number or ndarray, shape (...)
        Gain of the direction, 1 - gain, D of the direction, N/sigma^2.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> factor_share(0.75, 0.25, 3.0)
    0.0625
    """
    return gain * shortfall / spread


def centred_gram(class_sizes: Sequence[Any] | np.ndarray, xp: Any = np) -> Any:
    """Gram matrix of the targets that a free bias leaves, diag(n) - n n^T/N, K x K.

    Parameters
    ----------
    class_sizes : sequence of int or symbol
        Samples in each class.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    ndarray, shape (classes, classes), or sympy.Matrix

    Examples
    --------
    >>> centred_gram([2, 2]).tolist()
    [[1.0, -1.0], [-1.0, 1.0]]
    """
    if xp is not np:
        sizes = xp.Matrix(class_sizes)
        return xp.diag(*class_sizes) - sizes * sizes.T / sum(class_sizes)
    sizes = np.asarray(class_sizes, dtype=float)
    return np.diag(sizes) - np.outer(sizes, sizes) / sizes.sum()


def dang_constant(depth: Any, samples: Any, features: Any, weights: Any, xp: Any = np) -> Any:
    """b = M N (N lam_W^M lam_H)^(1/M) of the public code, one decay for all weights.

    Parameters
    ----------
    depth, samples : int or symbol
        Number L of layers, number N of samples, samples n per class.
    features, weights : number
        Decay of H, and the one decay of all weights.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number

    Examples
    --------
    >>> float(dang_constant(1, 4, 0.25, 0.5))
    2.0
    """
    return depth * samples * (samples * weights**depth * features) ** (1 / exactly(depth, xp))


def dang_curve(x: Any, depth: Any) -> Any:
    """M x^(M-1)/(1 + x^M)^2, which the public code sets to b/n_k.

    Parameters
    ----------
    x : number or ndarray, shape (...)
        x >= 0 of the public code, see `dang_gain`.
    depth : int or symbol
        Number L of layers.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> dang_curve(1.0, 3)
    0.75
    """
    return depth * x ** (depth - 1) / (1 + x**depth) ** 2


def dang_gain(x: Any, depth: Any) -> Any:
    """gamma = x^M/(1 + x^M).

    Parameters
    ----------
    x : number or ndarray, shape (...)
        x >= 0 of the public code, see `dang_gain`.
    depth : int or symbol
        Number L of layers.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> dang_gain(1.0, 3)
    0.5
    """
    return x**depth / (1 + x**depth)


def tirer_bruna_decays(lam_W: Any, lam_H: Any, classes: Any, per_class: Any) -> tuple[Any, Any]:
    """Decay of W and of H in this package's objective: lam_W/K and lam_H/(K n).

    Parameters
    ----------
    lam_W, lam_H : number
        The paper's decay of W, and of H.
    classes, per_class : int or symbol
        Number K of classes, number N of samples, samples n per class.

    Returns
    -------
    of_W, of_H : number

    Examples
    --------
    >>> tirer_bruna_decays(0.4, 0.4, 4, 2)
    (0.1, 0.05)
    """
    return lam_W / classes, lam_H / (classes * per_class)


def tirer_bruna_gain(lam_W: Any, lam_H: Any, xp: Any = np) -> Any:
    """1 - c with c = sqrt(lam_W lam_H), for c < 1; zero beyond.

    Parameters
    ----------
    lam_W, lam_H : number
        The paper's decay of W, and of H.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number

    Examples
    --------
    >>> float(tirer_bruna_gain(0.5, 0.5))
    0.5
    """
    return 1 - xp.sqrt(lam_W * lam_H)


def tirer_bruna_square(lam_W: Any, lam_H: Any, xp: Any = np) -> Any:
    """rho = (1 - c) sqrt(lam_W/lam_H): H^T H on the class means is rho I, or rho (I - J/K) with a bias.

    Parameters
    ----------
    lam_W, lam_H : number
        The paper's decay of W, and of H.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number

    Examples
    --------
    >>> float(tirer_bruna_square(0.25, 0.25))
    0.75
    """
    return tirer_bruna_gain(lam_W, lam_H, xp) * xp.sqrt(lam_W / lam_H)


def tirer_bruna_loss(lam_W: Any, lam_H: Any, xp: Any = np) -> Any:
    """c - c^2/2; times (K-1)/K with a bias.

    Parameters
    ----------
    lam_W, lam_H : number
        The paper's decay of W, and of H.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number

    Examples
    --------
    >>> float(tirer_bruna_loss(0.5, 0.5))
    0.375
    """
    c = xp.sqrt(lam_W * lam_H)
    return c - c**2 / 2


# ------------------------------------------------------------------------------------- the optimum


class Directions(NamedTuple):
    """Singular directions of the targets, largest first.

    Parameters
    ----------
    squares : ndarray, shape (directions,)
        sigma_i^2.
    vectors : ndarray, shape (classes, directions)
        Left singular vectors by column.

    Examples
    --------
    >>> directions([4, 2, 2]).vectors.shape
    (3, 3)
    """

    squares: np.ndarray  # sigma_i^2, shape (directions,)
    vectors: np.ndarray  # left singular vectors by column, shape (classes, directions)


def directions(class_sizes: Sequence[int], bias: bool = False) -> Directions:
    """Singular directions of Y, or with a bias of Y (I - 1 1^T/N), which has one fewer.

    Parameters
    ----------
    class_sizes : sequence of int
        Samples in each class.
    bias : bool
        With a bias that does not decay.

    Returns
    -------
    Directions

    Examples
    --------
    >>> directions([4, 2, 2]).squares
    array([4., 2., 2.])
    >>> directions([3, 3, 3], bias=True).squares.round(12)
    array([3., 3.])
    """
    sizes = np.asarray(class_sizes, dtype=float)
    if not bias:
        order = np.argsort(-sizes, kind="stable")
        return Directions(sizes[order], np.eye(len(sizes))[:, order])
    squares, vectors = np.linalg.eigh(centred_gram(sizes))
    return Directions(squares[:0:-1], vectors[:, :0:-1])


class Optimum(NamedTuple):
    """Global optimum of a linear chain, direction by direction, largest singular value first.

    Parameters
    ----------
    gains : ndarray, shape (directions,)
        gamma_i, 0 where the direction is lost.
    shortfalls : ndarray, shape (directions,)
        1 - gamma_i without cancellation.
    loss : float
        Objective.

    Examples
    --------
    >>> optimum(np.array([4.0, 1.0]), 0.05, [0.05], samples=5).gains.round(6).tolist()
    [0.875, 0.75]
    """

    gains: np.ndarray  # gamma_i, 0 where the direction is lost, shape (directions,)
    shortfalls: np.ndarray  # 1 - gamma_i without cancellation
    loss: float


def optimum(
    squares: Sequence[float] | np.ndarray,
    features: float,
    weights: Sequence[float],
    *,
    samples: float | None = None,
    rank: int | None = None,
    tested: bool = True,
) -> Optimum:
    """Global optimum of the linear chain with squared error.

    Parameters
    ----------
    squares : array_like, shape (directions,)
        Squared singular values of the targets; the class sizes where there is no bias.
    features, weights : float, sequence of float
        Decay of H and of W_1 ... W_L, > 0.
    samples : float, optional
        Number N of samples, sum of `squares` by default; 1 for a squared error that is summed, not averaged.
    rank : int, optional
        Smallest width, which bounds the number of directions kept; none by default.
    tested : bool
        False leaves out the comparison with zero, as the public code of Dang et al. does.

    Returns
    -------
    Optimum

    Examples
    --------
    >>> found = optimum([40, 20, 10, 10], 1e-3, [1e-3] * 3)
    >>> found.gains.round(6).tolist(), round(found.loss, 12)
    ([0.994958, 0.991505, 0.985671, 0.985671], 0.016331532667)
    """
    squares = np.sort(np.asarray(squares, dtype=float))[::-1]
    total, depth = float(squares.sum() if samples is None else samples), len(weights)
    missing = np.array(
        [shortfall(direction_strength(square, total, features, weights), depth) for square in squares]
    )
    gains = 1 - missing
    lost = np.arange(len(squares)) >= (len(squares) if rank is None else rank)
    if tested:
        lost |= ~kept(gains, depth)
    gains, missing = np.where(lost, 0.0, gains), np.where(lost, 1.0, missing)
    loss = float(np.sum(squares / total * stationary_loss(gains, depth, missing)))
    return Optimum(gains, missing, loss)


# ---------------------------------------------------------------------------------------- claims about runs


def _another_optimum(run: Run) -> str | None:
    """Why the closed form is no bound for the objective of this run, or None."""
    reason = other_objective(run.problem, run.coupled)
    if reason is None and run.problem.activation != "identity":
        reason = f"the activation is {run.problem.activation}, and the chain must be linear"
    return reason


def _at_least_the_optimum(run: Run, error: float = 0.0) -> Prediction:
    """F >= the closed form, times 1 + error; decay of a bias can only add to it."""
    problem, terms = run.problem, decays_of(run.problem, run.coupled)
    best = optimum(
        directions(problem.class_sizes, problem.bias).squares,
        *terms[:2],
        samples=terms.samples,
        rank=min(problem.widths),
    )
    return at_least(run, best.loss * (1 + error), "global optimum of the linear chain")


def _above_the_optimum(run: Run) -> Prediction:
    return _at_least_the_optimum(run, PERTURBATION[run.dtype])


CLAIMS = (
    Claim(
        name="ufm.linear_mse_optimum",
        statement=(
            "Linear chain with squared error and decay on every block: the global optimum is one scalar problem per "
            "singular direction of the targets, gamma^(L-1) (1 - gamma)^(L+1) = (N/sigma^2)^L N lam_H prod lam_l, kept "
            "iff gamma > (L-1)/L, with loss sum sigma^2/N (1 - gamma)(1 + L gamma)/2 (1/2 where lost): no state lies "
            "below it. sigma_k^2 = n_k without bias: minority collapse."
        ),
        source=Source(
            "Dang et al., arXiv 2301.00437",
            "minimisers of deep linear networks; this form, unequal decays and smaller widths derived here",
            "read in its public code",
        ),
        room="linear_mse",
        layers={
            "symbolic": (
                "proved for symbolic L: the scalar problem of a direction, and that Dang's root is this gain; the "
                "inequalities of Horn and von Neumann that split the problem are cited, not proved"
            ),
            "simulation": "every recorded objective, within its round-off (a run that converges tells 1e-6)",
        },
        applies=_another_optimum,
        predict=_at_least_the_optimum,
        control=_above_the_optimum,
        rank=2,
    ),
    Claim(
        name="dang2023.code_window.erratum",
        statement=(
            "The public code of Dang et al. takes the largest root without comparing it with zero: for L >= 2 and a "
            "class whose gain lies in [(L-1)/(2L), (L-1)/L) its prediction has a larger objective than zero; the "
            "minimum is kept iff gamma > (L-1)/L."
        ),
        source=Source(
            "Dang et al., arXiv 2301.00437",
            "public code, Neural-Collapse-in-Deep-Linear-Networks; corrected here",
            "read in its public code",
        ),
        room="linear_mse",
        layers={
            "symbolic": "proved for symbolic L: the objective exceeds that of zero there, and nowhere above"
        },
    ),
    Claim(
        name="ufm.linear_mse_bias",
        statement=(
            "A bias without decay replaces the targets of a linear chain by Y (I - 1 1^T/N): sigma_i^2 become the "
            "eigenvalues of diag(n) - n n^T/N. For equal classes the gain stays, the K frame vectors become a simplex "
            "ETF and the objective is (K-1)/K times that without bias."
        ),
        source=Source("this package", "extends Dang et al. to unequal classes with a bias", "derived here"),
        room="linear_mse",
        layers={"symbolic": "proved for K = 2..5: best bias, Gram matrix of the targets, its eigenvalues"},
    ),
    Claim(
        name="tirer2022.collapse",
        statement=(
            "L = 1 with decays lam_W/K and lam_H/(K n), c = sqrt(lam_W lam_H) < 1: W H = (1 - c) Y, class means with "
            "Gram (1 - c) sqrt(lam_W/lam_H) I, objective c - c^2/2; with a free bias Gram (1 - c) sqrt(lam_W/lam_H) "
            "(I - J/K), objective (K-1)/K (c - c^2/2); zero for c >= 1."
        ),
        source=Source(
            "Tirer, Bruna, arXiv 2202.08087",
            "main theorem as restated in arXiv 2210.16658; objective and bias derived here",
            "read as restated",
        ),
        room="linear_mse",
        layers={
            "symbolic": (
                "proved for symbolic K, n, lam_W, lam_H: mapped to the scalar problem at L = 1; the bias is that of "
                "ufm.linear_mse_bias"
            )
        },
    ),
)
