r"""Regression with real targets: the optimum in every regime of the decay, its geometry, and the dynamics by mode.

Andriopoulos et al. (arXiv 2409.04180) train Z = W H + b 1^T on targets Y (n outputs, M samples) with

    L = ||Z - Y||_F^2/(2M) + l_H/(2M) ||H||_F^2 + l_W/2 ||W||_F^2,     c = l_H l_W,

so l_H = M lam_H and l_W = lam_W in this package. Sigma = U diag(l_i) U^T is the covariance of the targets with a free
bias, and Y Y^T/M without one. Once the features are at their best for a given G = W W^T, what is left is

    L(G) = l_H/2 tr(Sigma (G + l_H I)^{-1}) + l_W/2 tr G,

convex in G >= 0. So G is a minimum iff the gradient D = l_W/2 I - l_H/2 (G + l_H)^{-1} Sigma (G + l_H)^{-1} is >= 0
and D G = 0, which the eigenbasis of Sigma solves mode by mode: a mode is kept iff l_i > c,

    W W^T = sqrt(l_H/l_W) U diag((sqrt l_i - sqrt c)_+) U^T,   E E^T/M = U diag(min(l_i, c)) U^T,
    L* = 1/2 sum_i min(l_i, c) + sqrt c sum_i (sqrt l_i - sqrt c)_+.

Every mode is the scalar problem of `linear_mse` at L = 1 with gain 1 - sqrt(c/l). Widths d < n keep the d largest
modes at most: convexity is lost, and the inequalities of `linear_mse` (cited there) say so.

Critical points. D W = 0 makes every eigenvector p of G with g > 0 one of Sigma, l_W (g + l_H)^2 = l_H l: the critical
points keep some of the modes with l_i > c at the values above. Where one is missing and W has a free column, the
Hessian along u_i has the block ((l_W, -sqrt l_i), (-sqrt l_i, l_H)) of determinant c - l_i < 0; where all columns are
in use and a smaller mode is kept in its place, turning one into the other lowers the objective: strict saddles.

Modes. From W = U diag(a) R^T, H = sqrt(M) R diag(q) V^T (Y = sqrt(M) U diag(sqrt l) V^T) the flow stays so:

    a' = (sqrt l - a q) q - l_W a,   q' = ((sqrt l - a q) a - l_H q)/M,

and gradient descent is this map with finite steps, exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ufm.checks import finite_array
from ufm.claims import Claim, Prediction, Source
from ufm.errors import UfmError, invalid
from ufm.initial import draw
from ufm.losses import Regression
from ufm.optimizers import GD
from ufm.theory._lower_bound import at_least
from ufm.theory._recorded import PERTURBATION, finite_records
from ufm.theory.linear_mse import optimum

if TYPE_CHECKING:
    from ufm.problems import Problem
    from ufm.run import Run

# ------------------------------------------------------------------ formulas, generic in their number type


def published_rates(weights: Any, features: Any, samples: Any) -> tuple[Any, Any]:
    """Rates l_W, l_H of the paper, from the decays lam_W and lam_H of this package: lam_W and M lam_H.

    Parameters
    ----------
    weights, features : number or ndarray, shape (...)
        lam_W and lam_H.
    samples : int or symbol
        Number M of samples.

    Returns
    -------
    l_W, l_H : number or ndarray, shape (...)

    Examples
    --------
    >>> published_rates(0.5, 0.25, 8)
    (0.5, 2.0)
    """
    return weights, samples * features


def _positive_part(x: Any, xp: Any) -> Any:
    return xp.maximum(x, 0) if xp is np else xp.Max(x, 0)


def excess(eigenvalue: Any, l_W: Any, l_H: Any, xp: Any = np) -> Any:
    """What the decay leaves of a mode, (sqrt l - sqrt c)_+.

    Parameters
    ----------
    eigenvalue : number or ndarray, shape (...)
        l of the mode, >= 0.
    l_W, l_H : number
        Rate of W of the paper, rate of H.
    xp : module
        ``numpy`` or ``sympy``.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> float(excess(4.0, 0.5, 0.5)), float(excess(0.1, 0.5, 0.5))
    (1.5, 0.0)
    """
    return _positive_part(xp.sqrt(eigenvalue) - xp.sqrt(l_W * l_H), xp)


def weight_square(eigenvalue: Any, l_W: Any, l_H: Any, xp: Any = np) -> Any:
    """Eigenvalue of W W^T in a mode at the optimum, sqrt(l_H/l_W) (sqrt l - sqrt c)_+.

    Parameters
    ----------
    eigenvalue : number or ndarray, shape (...)
        l of the mode, >= 0.
    l_W, l_H : number
        Rate of W of the paper, rate of H.
    xp : module
        ``numpy`` or ``sympy``.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> weight_square(np.array([4.0, 1.0, 0.25]), 0.5, 0.5).tolist()
    [1.5, 0.5, 0.0]
    """
    return xp.sqrt(l_H / l_W) * excess(eigenvalue, l_W, l_H, xp)


def feature_square(eigenvalue: Any, l_W: Any, l_H: Any, xp: Any = np) -> Any:
    """Eigenvalue of H^T H/M in a mode at the optimum, sqrt(l_W/l_H) (sqrt l - sqrt c)_+.

    Parameters
    ----------
    eigenvalue : number or ndarray, shape (...)
        l of the mode, >= 0.
    l_W, l_H : number
        Rate of W of the paper, rate of H.
    xp : module
        ``numpy`` or ``sympy``.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> float(feature_square(4.0, 0.25, 1.0))
    0.75
    """
    return xp.sqrt(l_W / l_H) * excess(eigenvalue, l_W, l_H, xp)


def residual_square(eigenvalue: Any, l_W: Any, l_H: Any, xp: Any = np) -> Any:
    """Eigenvalue of E E^T/M in a mode at the optimum, min(l, c): the residual is white where modes are kept.

    Parameters
    ----------
    eigenvalue : number or ndarray, shape (...)
        l of the mode, >= 0.
    l_W, l_H : number
        Rate of W of the paper, rate of H.
    xp : module
        ``numpy`` or ``sympy``.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> residual_square(np.array([4.0, 0.1]), 0.5, 0.5).tolist()
    [0.25, 0.1]
    """
    return xp.minimum(eigenvalue, l_W * l_H) if xp is np else xp.Min(eigenvalue, l_W * l_H)


def mode_loss(eigenvalue: Any, l_W: Any, l_H: Any, xp: Any = np) -> Any:
    """Share of a mode in the least objective, min(l, c)/2 + sqrt c (sqrt l - sqrt c)_+.

    Parameters
    ----------
    eigenvalue : number or ndarray, shape (...)
        l of the mode, >= 0.
    l_W, l_H : number
        Rate of W of the paper, rate of H.
    xp : module
        ``numpy`` or ``sympy``.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> float(mode_loss(np.array([4.0, 1.0, 0.25]), 0.5, 0.5).sum())
    1.375
    """
    kept = xp.sqrt(l_W * l_H) * excess(eigenvalue, l_W, l_H, xp)
    return residual_square(eigenvalue, l_W, l_H, xp) / 2 + kept


def profile(square: Any, eigenvalue: Any, l_W: Any, l_H: Any) -> Any:
    """Objective of a mode with W W^T at g = `square` and the best features, l_H l/(2 (g + l_H)) + l_W g/2.

    Parameters
    ----------
    square, eigenvalue : number or ndarray, shape (...)
        g >= 0, l of the mode, >= 0.
    l_W, l_H : number
        Rate of W of the paper, rate of H.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> profile(1.5, 4.0, 0.5, 0.5), float(mode_loss(4.0, 0.5, 0.5))
    (0.875, 0.875)
    """
    return l_H * eigenvalue / (2 * (square + l_H)) + l_W * square / 2


def optimal_gram(covariance: Any, l_W: float, l_H: float) -> np.ndarray:
    """W W^T at the optimum for any width d >= n, truncated in the eigenbasis of the covariance.

    Parameters
    ----------
    covariance : ndarray, shape (n, n)
        Symmetric and >= 0.
    l_W, l_H : float
        Rates of the paper, > 0.

    Returns
    -------
    ndarray, shape (n, n)

    Examples
    --------
    >>> optimal_gram([[2.5, 1.5], [1.5, 2.5]], 1.0, 1.0).round(12).tolist()
    [[0.5, 0.5], [0.5, 0.5]]
    """
    values, vectors = _eigenbasis(covariance)
    gram: np.ndarray = (vectors * weight_square(values, l_W, l_H)) @ vectors.T
    return gram


def printed_gram(covariance: Any, l_W: float, l_H: float) -> np.ndarray:
    """W W^T by the first j* columns of A^{1/2}, A = Sigma^{1/2} - sqrt c I, j* = number of l_i > c, as printed.

    A^{1/2} is not real where j* < n; its real part is the root of the positive part of A.

    Parameters
    ----------
    covariance : array_like, shape (n, n)
        Symmetric and >= 0.
    l_W, l_H : float
        Rates of the paper, > 0.

    Returns
    -------
    ndarray, shape (n, n)

    Examples
    --------
    >>> printed_gram([[2.5, 1.5], [1.5, 2.5]], 1.0, 1.0).round(12).tolist()  # half of `optimal_gram`
    [[0.25, 0.25], [0.25, 0.25]]
    """
    values, vectors = _eigenbasis(covariance)
    columns = (vectors * np.sqrt(excess(values, l_W, l_H))) @ vectors.T
    kept = columns[:, : int(np.sum(values > l_W * l_H))]
    gram: np.ndarray = np.sqrt(l_H / l_W) * kept @ kept.T
    return gram


def gram_loss(gram: Any, covariance: Any, l_W: Any, l_H: Any, xp: Any = np) -> Any:
    """Objective at W W^T = `gram` with the best features and bias, l_H/2 tr(Sigma (G + l_H I)^{-1}) + l_W/2 tr G.

    Parameters
    ----------
    gram, covariance : ndarray, shape (n, n), or sympy.Matrix
        W W^T, of the targets.
    l_W, l_H : number
        Rate of W of the paper, rate of H.
    xp : module
        ``numpy`` or ``sympy``.

    Returns
    -------
    number

    Examples
    --------
    >>> round(gram_loss(1.5 * np.eye(1), 4.0 * np.eye(1), 0.5, 0.5), 12)
    0.875
    """
    if xp is not np:
        inverse = (gram + l_H * xp.eye(gram.rows)).inv()
        return l_H * (covariance * inverse).trace() / 2 + l_W * gram.trace() / 2
    gram, covariance = np.asarray(gram, dtype=float), np.asarray(covariance, dtype=float)
    shrunk = np.linalg.solve(gram + l_H * np.eye(len(gram)), covariance)
    return float(l_H * np.trace(shrunk) / 2 + l_W * np.trace(gram) / 2)


def unnormalised_gamma(root_trace: Any, gram_trace: Any, outputs: Any) -> Any:
    """gamma nearest to W W^T = Sigma^{1/2} - sqrt(gamma) I without normalisation, ((tr Sigma^{1/2} - tr W W^T)/n)^2.

    It is the best one where tr Sigma^{1/2} > tr W W^T, and c at the optimum only if l_H = l_W or Sigma^{1/2} is
    sqrt(c) I.

    Parameters
    ----------
    root_trace, gram_trace : number
        tr Sigma^{1/2} and tr W W^T.
    outputs : int or symbol
        N.

    Returns
    -------
    number

    Examples
    --------
    >>> unnormalised_gamma(3.0, 1.0, 2)
    1.0
    """
    return ((root_trace - gram_trace) / outputs) ** 2


def normalised_root(inner: Any, gram_trace: Any, square_trace: Any, root_trace: Any, outputs: Any) -> Any:
    """sqrt(gamma) at which the normalised distance NRC3(gamma) is stationary; derived here.

    With P = W W^T and S = Sigma^{1/2}, NRC3 = 2 - 2 <P, S - g I>/(||P|| ||S - g I||) is stationary in g at
    (tr P tr S^2 - <P, S> tr S)/(tr P tr S - n <P, S>).

    Parameters
    ----------
    inner, gram_trace, square_trace, root_trace : float
        <P, S>, tr P, tr S^2 and tr S.
    outputs : int
        n; P must not have the direction of I and S not be a multiple of it.

    Returns
    -------
    number

    Examples
    --------
    >>> normalised_root(5.0, 4.0, 5.0, 3.0, 2)  # P = diag(3, 1), S = diag(1, 2)
    2.5
    """
    above = gram_trace * square_trace - inner * root_trace
    return above / (gram_trace * root_trace - outputs * inner)


def flow(a: Any, q: Any, root: Any, l_W: Any, l_H: Any, samples: Any) -> tuple[Any, Any]:
    """Velocity (a', q') of the amplitudes of a mode under gradient flow.

    Parameters
    ----------
    a, q : number or ndarray, shape (...)
        Amplitude of W, and of H over sqrt(M).
    root : number or ndarray, shape (...)
        sqrt(l) of the mode.
    l_W, l_H : number
        Rates of the paper.
    samples : int or symbol
        M: plain gradient flow moves H so many times slower.

    Returns
    -------
    of_a, of_q : number or ndarray, shape (...)

    Examples
    --------
    >>> flow(1.0, 0.5, 2.0, 0.0, 0.0, 10)
    (0.75, 0.15)
    """
    missing = root - a * q
    return missing * q - l_W * a, (missing * a - l_H * q) / samples


def step(a: Any, q: Any, root: Any, l_W: Any, l_H: Any, samples: Any, lr: Any) -> tuple[Any, Any]:
    """Amplitudes of a mode after one step of gradient descent.

    Parameters
    ----------
    a, q, root : number or ndarray, shape (...)
        Amplitude of W, amplitude of H over sqrt(M), sqrt(l) of the mode.
    l_W, l_H : number
        Rate of W of the paper, rate of H.
    samples : int or symbol
        Number M of samples.
    lr : number
        Learning rate.

    Returns
    -------
    a, q : number or ndarray, shape (...)

    Examples
    --------
    >>> step(1.0, 0.5, 2.0, 0.0, 0.0, 10, 0.1)
    (1.075, 0.515)
    """
    of_a, of_q = flow(a, q, root, l_W, l_H, samples)
    return a + lr * of_a, q + lr * of_q


def invariant(a: Any, q: Any, samples: Any) -> Any:
    """a^2 - M q^2, conserved by the flow without decay.

    Parameters
    ----------
    a, q : number or ndarray, shape (...)
        Amplitude of W, amplitude of H over sqrt(M).
    samples : int or symbol
        Number M of samples.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> invariant(1.0, 0.5, 10)
    -1.5
    """
    return a**2 - samples * q**2


def escape_rate(eigenvalue: Any, l_W: Any, l_H: Any, samples: Any, xp: Any = np) -> Any:
    """Largest rate at which a small mode grows under the flow, > 0 iff l > c: 2 (l - c)/(M (x + l_W + l_H/M)).

    It is the larger eigenvalue of ((-l_W, sqrt l), (sqrt l/M, -l_H/M)), x the difference of the two.

    Parameters
    ----------
    eigenvalue : number or ndarray, shape (...)
        l of the mode, >= 0.
    l_W, l_H : number
        Rate of W of the paper, rate of H.
    samples : int or symbol
        Number M of samples.
    xp : module
        ``numpy`` or ``sympy``.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> float(escape_rate(1.0, 1.0, 1.0, 10)), bool(escape_rate(1.01, 1.0, 1.0, 10) > 0)
    (0.0, True)
    """
    own = l_H / samples
    apart = xp.sqrt((l_W - own) ** 2 + 4 * eigenvalue / samples)
    return 2 * (eigenvalue - l_W * l_H) / (samples * (apart + l_W + own))


def _eigenbasis(covariance: Any) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues, largest first and none below 0, and eigenvectors by column."""
    given = finite_array("regression.covariance", covariance, 2)
    if given.shape[0] != given.shape[1] or not np.allclose(given, given.T, rtol=1e-12, atol=0.0):
        raise invalid("regression.covariance", given.tolist(), "a symmetric matrix")
    values, vectors = np.linalg.eigh(given)
    return np.maximum(values, 0.0)[::-1], vectors[:, ::-1]


# ------------------------------------------------------------------------------------- modes of a problem


class Modes(NamedTuple):
    """Singular directions of the targets, Y = mean 1^T + sqrt(M) U diag(roots) V^T, largest first.

    Parameters
    ----------
    roots : ndarray, shape (modes,)
        sqrt l_i > 0.
    outputs : ndarray, shape (n, modes)
        U.
    samples : ndarray, shape (modes, M)
        V^T.
    mean : ndarray, shape (n,)
        What a bias takes away, 0 without one.

    Examples
    --------
    >>> import ufm
    >>> modes_of(ufm.RegressionUFM([[3.0, 0.0], [0.0, 1.0]], width=2)).eigenvalues.round(12).tolist()
    [4.5, 0.5]
    """

    roots: np.ndarray  # sqrt l_i > 0, shape (modes,)
    outputs: np.ndarray  # U, shape (n, modes)
    samples: np.ndarray  # V^T, shape (modes, M)
    mean: np.ndarray  # what a bias takes away, 0 without one, shape (n,)

    @property
    def eigenvalues(self) -> np.ndarray:
        """l_i, shape (modes,)."""
        return self.roots**2


def modes_of(problem: Problem) -> Modes:
    """Modes of the targets of a `RegressionUFM`; singular values that are round-off are left out.

    Parameters
    ----------
    problem : RegressionUFM
        The problem.

    Returns
    -------
    Modes

    Examples
    --------
    >>> from ufm.problems import RegressionUFM
    >>> modes_of(RegressionUFM([[1.0, 3.0]], width=1)).eigenvalues.round(12).tolist()
    [5.0]
    >>> modes_of(RegressionUFM([[1.0, 3.0]], width=1, bias=True)).eigenvalues.round(12).tolist()
    [1.0]
    """
    Y = np.asarray(problem.targets)
    mean = Y.mean(axis=1) if problem.bias else np.zeros(len(Y))
    U, values, V = np.linalg.svd(Y - mean[:, None], full_matrices=False)
    size = np.linalg.norm(Y)
    kept = values > max(Y.shape) * np.finfo(np.float64).eps * size
    # the sign of a singular pair is free: the largest entry of each output direction is positive
    signs = np.sign(U[np.abs(U).argmax(axis=0), np.arange(U.shape[1])])
    U, V = U * signs, signs[:, None] * V
    return Modes(values[kept] / np.sqrt(problem.samples), U[:, kept], V[kept], mean)


# --------------------------------------------------------------------------------------- published numbers


@dataclass(frozen=True)
class PublishedCovariance:
    """What is printed of the targets of one data set.

    Parameters
    ----------
    name : str
        Data set.
    outputs : int
        n.
    smallest : float
        Smallest eigenvalue of the covariance.
    correlations : tuple of float
        Of the pairs of outputs; none for n = 1.
    best_share : float or None
        gamma/lambda_min at which NRC3 of the trained network is smallest, where printed.

    Examples
    --------
    >>> PublishedCovariance("two outputs", 2, 0.5, (0.5,), None).assumed.round(12).tolist()
    [[1.0, 0.5], [0.5, 1.0]]
    """

    name: str
    outputs: int
    smallest: float
    correlations: tuple[float, ...]
    best_share: float | None

    @property
    def correlation_matrix(self) -> np.ndarray:
        """Printed correlations around ones, shape (n, n)."""
        found = np.eye(self.outputs)
        found[np.triu_indices(self.outputs, 1)] = self.correlations
        return np.triu(found) + np.triu(found, 1).T

    @property
    def assumed(self) -> np.ndarray:
        """A covariance with the printed correlations and smallest eigenvalue, all variances ASSUMED equal.

        The paper prints no variances. For three outputs the order of the pairs does not matter: every order is that of
        outputs renumbered.
        """
        matrix = self.correlation_matrix
        covariance: np.ndarray = matrix * (self.smallest / np.linalg.eigvalsh(matrix)[0])
        return covariance


@cache
def published_covariances() -> tuple[PublishedCovariance, ...]:
    """Covariances of the targets of Swimmer, Reacher, Hopper, CARLA and UTKFace, as far as they are printed.

    Examples
    --------
    >>> found = {entry.name: entry for entry in published_covariances()}
    >>> found["Hopper"].correlations, float(np.linalg.eigvalsh(found["Hopper"].assumed)[0].round(12))
    ((-0.215, -0.09, 0.059), 0.215)
    """
    text = files("ufm.published").joinpath("regression_covariances.csv").read_text(encoding="utf-8")
    rows = [line.split(",") for line in text.splitlines() if line and not line.startswith("#")][1:]
    return tuple(
        PublishedCovariance(
            name,
            int(outputs),
            float(smallest),
            tuple(float(value) for value in correlations.split(";")) if correlations != "-" else (),
            float(share) if share != "-" else None,
        )
        for name, outputs, smallest, correlations, share in rows
    )


# ---------------------------------------------------------------------------------------- claims about runs


def other_objective(problem: Problem, coupled: Any) -> str | None:
    """Why a problem with these coupled rates has not the objective above, or None.

    Parameters
    ----------
    problem : RegressionUFM
        The problem.
    coupled : mapping of str to float
        Coupled decay rate of each block.

    Returns
    -------
    str or None

    Examples
    --------
    >>> import ufm
    >>> other_objective(ufm.RegressionUFM([[1.0, 3.0]], width=1), {"W1": 0.1, "H": 0.0})
    'no coupled decay acts on H; the closed form is for decay of both W and H'
    """
    if not isinstance(problem.loss, Regression):
        return f"the loss is {problem.loss.name}; the closed form is that of a regression with real targets"
    if problem.frozen_values:
        return f"{', '.join(problem.frozen_values)} is frozen, and every block must be trained"
    for block in ("H", problem.last):
        if not coupled[block]:
            return f"no coupled decay acts on {block}; the closed form is for decay of both W and H"
    return None


def least_objective(problem: Problem, coupled: Any) -> float:
    """Least objective of a problem that `other_objective` accepts, at any width.

    Parameters
    ----------
    problem : RegressionUFM
        One that `other_objective` accepts.
    coupled : mapping of str to float
        Coupled decay rate of each block.

    Returns
    -------
    float

    Examples
    --------
    >>> import ufm
    >>> round(least_objective(ufm.RegressionUFM([[1.0, 3.0]], width=1), {"W1": 0.5, "H": 0.25}), 6)
    0.993034
    >>> round(float(mode_loss(5.0, 0.5, 2 * 0.25)), 6)
    0.993034
    """
    squares = problem.samples * modes_of(problem).eigenvalues
    rates = coupled["H"], [coupled[problem.last]]
    return optimum(squares, *rates, samples=problem.samples, rank=problem.widths[0]).loss


def _no_regression(run: Run) -> str | None:
    return other_objective(run.problem, run.coupled)


def _at_least_the_optimum(run: Run, error: float = 0.0) -> Prediction:
    """F >= the closed form, times 1 + error; decay of a bias can only add to it."""
    least = least_objective(run.problem, run.coupled)
    return at_least(run, least * (1 + error), "optimum of the regression")


def _above_the_optimum(run: Run) -> Prediction:
    return _at_least_the_optimum(run, PERTURBATION[run.dtype])


class _Aligned(NamedTuple):
    """A start in the modes of the targets."""

    modes: Modes
    a: np.ndarray  # amplitudes of W, shape (min(modes, d),)
    q: np.ndarray  # amplitudes of H over sqrt(M)
    distance: float  # of the start from the aligned one, in the norm of the whole state


def aligned_blocks(problem: Problem, modes: Modes, a: np.ndarray, q: np.ndarray) -> dict[str, np.ndarray]:
    """State with W = U diag(a) and H = sqrt(M) diag(q) V^T in the first coordinates of the features, b at the mean.

    Parameters
    ----------
    problem : RegressionUFM
    modes : Modes
        Of its targets.
    a, q : ndarray, shape (..., k)
        Amplitudes of the first k modes.

    Returns
    -------
    dict of str to ndarray
        Blocks of shape (..., rows, columns); the bias does not depend on the amplitudes.

    Examples
    --------
    >>> import ufm
    >>> problem = ufm.RegressionUFM([[1.0, 3.0]], width=1)
    >>> blocks = aligned_blocks(problem, modes_of(problem), np.array([2.0]), np.array([0.5]))
    >>> blocks["W1"].tolist(), blocks["H"].round(6).tolist()
    ([[2.0]], [[0.223607, 0.67082]])
    """
    k, (n, d), M = np.shape(a)[-1], problem.shapes["W1"], problem.samples
    W, H = np.zeros((*np.shape(a)[:-1], n, d)), np.zeros((*np.shape(q)[:-1], d, M))
    W[..., :k] = modes.outputs[:, :k] * np.asarray(a)[..., None, :]
    H[..., :k, :] = np.sqrt(M) * np.asarray(q)[..., :, None] * modes.samples[:k]
    return {"H": H, "W1": W} | ({"b": modes.mean} if problem.bias else {})


def _aligned_start(run: Run) -> _Aligned:
    """The amplitudes of the start of a run, and how far it is from being aligned."""
    problem = run.problem
    start = draw(problem, run.init, run.seed)
    modes = modes_of(problem)
    k = min(len(modes.roots), problem.widths[0])
    a = np.einsum("ni,ni->i", modes.outputs[:, :k], start["W1"][:, :k])
    q = np.einsum("im,im->i", modes.samples[:k], start["H"][:k]) / np.sqrt(problem.samples)
    aligned = aligned_blocks(problem, modes, a, q)
    off = sum(float(np.sum((start[name] - value) ** 2)) for name, value in aligned.items())
    return _Aligned(modes, a, q, float(np.sqrt(off)))


ALIGNED = 1e-10  # share of the norm of the start that may lie outside the modes


def _no_aligned_descent(run: Run) -> str | None:
    """Why a run is not two scalars for each mode, or None."""
    problem = run.problem
    if not isinstance(problem.loss, Regression):
        return f"the loss is {problem.loss.name}; the modes are those of real targets"
    if problem.frozen_values:
        return f"{', '.join(problem.frozen_values)} is frozen; the modes are those of a problem trained in all blocks"
    if type(run.optimizer) is not GD:
        return f"{type(run.optimizer).__name__} steps; the recursion by mode is that of GD"
    if run.in_batches:
        return f"batches hold {run.batch} of {problem.samples} samples; modes stay apart under the whole gradient"
    if any(run.decoupled.values()):
        return f"the decay is {run.decay!r}; the recursion by mode is for coupled decay"
    if problem.bias and run.coupled["b"]:
        return f"the bias decays at rate {run.coupled['b']:g}; it stays at the mean only without decay"
    if run.dtype != "float64":
        return f"the run is in {run.dtype}; the recursion is evaluated in float64"
    try:
        start = _aligned_start(run)
    except UfmError as error:
        return f"the start cannot be drawn: {error}"
    size = float(np.hypot(np.linalg.norm(start.a), np.sqrt(problem.samples) * np.linalg.norm(start.q)))
    if not start.distance <= ALIGNED * max(size, float(np.linalg.norm(start.modes.mean))):
        return (
            f"the start is {start.distance:.3g} away from one in the modes of the targets; "
            "`ufm.solutions.aligned_modes` builds such starts"
        )
    return None


def mode_path(run: Run, lr_factor: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Amplitudes a and q of an aligned run of gradient descent by the recursion, shape (steps + 1, modes).

    Parameters
    ----------
    run : Run
        Of gradient descent from an aligned start.
    lr_factor : float
        on the learning rate, to be wrong on purpose.

    Returns
    -------
    a, q : ndarray, shape (steps + 1, modes)

    Examples
    --------
    >>> import ufm
    >>> from ufm.run import Run
    >>> problem = ufm.RegressionUFM([[1.0, 3.0]], width=1)
    >>> start = aligned_blocks(problem, modes_of(problem), np.array([1.0]), np.array([1.0]))
    >>> a, q = mode_path(Run(problem, ufm.GD(0.1), None, ufm.Given(**start), steps=1))
    >>> a.round(6)[:, 0].tolist(), q.round(6)[:, 0].tolist()
    ([1.0, 1.123607], [1.0, 1.061803])
    """
    start, problem = _aligned_start(run), run.problem
    M = problem.samples
    rates = published_rates(run.coupled["W1"], run.coupled["H"], M)
    a, q = start.a, start.q
    path = [(a, q)]
    with np.errstate(over="ignore", invalid="ignore"):
        for lr in run.rates:
            a, q = step(a, q, start.modes.roots[: len(a)], *rates, M, lr * lr_factor)
            path.append((a, q))
    found = np.array(path)
    return found[:, 0], found[:, 1]


def _growth(run: Run, start: _Aligned, a: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Largest factor by which a small deviation grows in each step, to first order, shape (steps,).

    The Hessian at an aligned state is a square, at most max q^2 + max a^2/M + 1 with a bias, plus the decay, plus
    the residual's coupling of dW with dH, at most r = max |sqrt l - a q|/sqrt(M): its lowest eigenvalue is at least
    that of ((lam_W, -r), (-r, lam_H)), or 0 along the bias.
    """
    problem, M = run.problem, run.problem.samples
    k = a.shape[1]
    gap = np.abs(start.modes.roots[:k] - a * q).max(axis=1, initial=0.0)
    r = np.maximum(gap, start.modes.roots[k:].max(initial=0.0)) / np.sqrt(M)
    W, H = run.coupled["W1"], run.coupled["H"]
    spread = np.sqrt((W - H) ** 2 / 4 + r**2)
    square = (q**2).max(axis=1, initial=0.0) + (a**2).max(axis=1, initial=0.0) / M + float(problem.bias)
    lowest, highest = np.minimum((W + H) / 2 - spread, 0.0), (W + H) / 2 + spread + square
    growth: np.ndarray = np.maximum(1 - run.rates * lowest[:-1], run.rates * highest[:-1] - 1)
    return growth


def _path_bound(run: Run, start: _Aligned, a: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Distance of run and recursion that round-off allows at every step, shape (steps + 1,).

    e <- growth e + error of one step: products of inner sizes n, d and M are off by as many eps times the product of
    the norms of their factors, the update by eps times the state; twice, once for the run and once for the recursion.
    """
    problem, eps = run.problem, np.finfo(np.float64).eps
    (n, d), M = problem.shapes["W1"], problem.samples
    W, H = np.linalg.norm(a, axis=1), np.sqrt(M) * np.linalg.norm(q, axis=1)
    mean, Y = np.linalg.norm(start.modes.mean), np.linalg.norm(np.asarray(problem.targets))
    residual = W * H + Y + np.sqrt(M) * mean
    size = W + H + mean
    gradient = residual * (W + H + np.sqrt(M)) / M + run.coupled["W1"] * W + run.coupled["H"] * H
    once = eps * ((n + d + M + 8) * run.rates * gradient[:-1] + 4 * size[:-1])
    growth = _growth(run, start, a, q)
    error = np.empty(len(a))
    error[0] = start.distance + 4 * eps * size[0]
    for t, factor in enumerate(growth):
        error[t + 1] = factor * error[t] + 2 * once[t]
    return error


LOST = 1e-3  # share of the state beyond which a deviation counts no longer as small


def _descends_by_modes(run: Run, lr_factor: float = 1.0) -> Prediction:
    """W and H at the records against the recursion by mode."""
    quantity = "W and H by the modes of the targets"
    traj, kept = run.trajectory, finite_records(run)
    assert traj is not None
    if not len(kept):
        return Prediction(quantity, np.zeros(0), np.zeros(0), np.zeros(0))
    start, when = _aligned_start(run), traj.steps[kept]
    with np.errstate(over="ignore", invalid="ignore"):  # the recursion of a run that diverges
        a, q = mode_path(run)
        bound = _path_bound(run, start, a, q)
        size = np.hypot(np.linalg.norm(a, axis=1), np.sqrt(run.problem.samples) * np.linalg.norm(q, axis=1))
        small = bound <= LOST * np.maximum(size, 1e-300)
        bound = np.where(np.logical_and.accumulate(small), bound, np.inf)
        if lr_factor != 1.0:
            a, q = mode_path(run, lr_factor)
        blocks = aligned_blocks(run.problem, start.modes, a[when], q[when])
    predicted, observed = (
        np.concatenate([named[block].reshape(len(when), -1) for block in ("W1", "H")], axis=1)
        for named in (blocks, {block: traj[block][kept] for block in ("W1", "H")})
    )
    return Prediction(quantity, predicted, observed, bound[when])


def _descends_at_another_rate(run: Run) -> Prediction:
    return _descends_by_modes(run, 1 + 1e-6)


PAPER = "Andriopoulos et al., arXiv 2409.04180"

CLAIMS = (
    Claim(
        name="andriopoulos2024.minimum",
        statement=(
            "Regression with free features, l_H = M lam_H, l_W = lam_W, c = l_H l_W: the minimisers have W W^T = "
            "sqrt(l_H/l_W) U diag((sqrt l_i - sqrt c)_+) U^T in the eigenbasis of the targets' covariance (Y Y^T/M "
            "without bias), residual covariance U diag(min(l_i, c)) U^T, objective 1/2 sum min(l_i, c) + sqrt c sum "
            "(sqrt l_i - sqrt c)_+; mode i is lost iff l_i <= c, all iff c >= l_1. No state lies below it."
        ),
        source=Source(
            PAPER,
            "minimisers for c < lambda_min; all other c, widths d < n and no bias derived here",
            "read in full",
        ),
        room="regression",
        figure="regression",
        layers={
            "symbolic": (
                "proved for symbolic l_i, l_W, l_H and d >= n: minimum of a convex function of W W^T (convexity for "
                "n = 2, 3), stationarity of all blocks for n = 2; d < n by the cited inequalities of linear_mse"
            ),
            "simulation": "every recorded objective, within its round-off; L-BFGS reaches it to 1e-8 in four regimes",
        },
        applies=_no_regression,
        predict=_at_least_the_optimum,
        control=_above_the_optimum,
        rank=3,
    ),
    Claim(
        name="andriopoulos2024.truncation.erratum",
        statement=(
            "For l_n < c < l_1 the paper prints W from the first j* columns of (Sigma^{1/2} - sqrt c I)^{1/2}: right "
            "only where Sigma is diagonal with decreasing entries, and not real otherwise. For covariance eigenvalues "
            "4, 1, 1/4 in the basis (2,-2,1; 1,2,2; 2,1,-2)/3 and l_W = l_H = 3/4 its real part lies 77/800 above the "
            "minimum; the truncation belongs into the eigenbasis."
        ),
        source=Source(PAPER, "minimiser for intermediate c; corrected here", "read in full"),
        room="regression",
        figure="regression",
        layers={
            "symbolic": "proved: an exact counter-example; the eigenbasis truncation satisfies the conditions"
        },
    ),
    Claim(
        name="andriopoulos2024.saddles",
        statement=(
            "Every critical point keeps some modes with l_i > c at their optimal values. One that misses such a mode "
            "is a strict saddle: along it the Hessian has a block of determinant c - l_i < 0 where W has a free "
            "column; where it has none, turning a kept mode j with l_j < l_i into it has the second derivative "
            "-2 (sqrt l_j - sqrt c) (sqrt l_i - sqrt l_j) < 0."
        ),
        source=Source(PAPER, "landscape; the blocks derived here", "read in full"),
        room="regression",
        layers={"symbolic": "proved for symbolic l_i, l_j, l_W, l_H"},
    ),
    Claim(
        name="andriopoulos2024.gamma",
        statement=(
            "At the optimum with c < l_n the normalised NRC3 is 0 at gamma = c for all l_W, l_H, and, unless Sigma is "
            "a multiple of I, stationary nowhere else; the unnormalised "
            "gamma ((tr Sigma^{1/2} - tr W W^T)/n)^2 is c only if l_H = l_W."
        ),
        source=Source(PAPER, "NRC3 and its fit of gamma; the limitation derived here", "read in full"),
        room="regression",
        figure="regression",
        layers={"symbolic": "proved for symbolic l_W, l_H and n = 2, 3"},
    ),
    Claim(
        name="andriopoulos2024.no_decay",
        statement=(
            "Without decay the minimisers are all W of rank n with H = W^+ Y + (I - W^+ W) Q: no collapse; the limit "
            "l_W = l_H -> 0 has W W^T -> Sigma^{1/2}, so the minimisers are discontinuous at zero decay."
        ),
        source=Source(PAPER, "no regularisation", "read in full"),
        room="regression",
        layers={
            "symbolic": "proved for n = 2, d = 3, M = 3 with symbolic entries; the limit for symbolic l_i"
        },
    ),
    Claim(
        name="ufm.regression_modes",
        statement=(
            "From W = U diag(a) R^T, H = sqrt(M) R diag(q) V^T gradient descent is a <- a + lr ((sqrt l - a q) q - "
            "l_W a), q <- q + (lr/M) ((sqrt l - a q) a - l_H q) in every mode, exactly. Under the flow a^2 - M q^2 is "
            "conserved without decay, and a small mode grows iff l > c, the threshold of the optimum."
        ),
        source=Source("this package", "dynamics of the regression UFM", "derived here"),
        room="regression",
        figure="regression",
        layers={
            "symbolic": "proved for symbolic l, l_W, l_H, M (alignment for n = d = 2, M = 4)",
            "simulation": "W and H of aligned runs, within round-off carried through the Hessian's lowest eigenvalue",
        },
        applies=_no_aligned_descent,
        predict=_descends_by_modes,
        control=_descends_at_another_rate,
        rank=4,
    ),
)
