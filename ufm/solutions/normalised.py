"""The optimum behind batch normalisation: a simplex whose rows have the norms that the scales ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ufm.decay import per_block
from ufm.errors import IncompatibleError, invalid
from ufm.losses import CrossEntropy
from ufm.solutions.chain import LARGEST_RATE
from ufm.solutions.solution import Solution, check_problem, solution
from ufm.theory.batch_normalisation import fits, least, rotation_tangent, scale_decay, squared_norms
from ufm.theory.cross_entropy_optimum import fixed_classifier_optimum, optimum

if TYPE_CHECKING:
    from ufm.decay import Decay
    from ufm.problems import Problem

RESOLVED = 2.0**-48  # up to which a row has the squared norm it is wanted to have


def normalised_simplex(problem: Problem, decay: Decay | None) -> Solution:
    """Global optimum of the cross-entropy UFM behind batch normalisation, with trained or fixed scales.

    Trained scales are equal here, ||gamma||/sqrt(d) each; every other orientation of the simplex is as good.

    Parameters
    ----------
    problem : UFM
        With `BatchNorm(eps=0)`, class labels, equal classes, width >= classes - 1; H and W trained, gamma trained or
        frozen. A bias is 0 at the optimum.
    decay : Coupled
        A rate > 0 for W and a trained gamma, none for H, whose scale does not matter.

    Returns
    -------
    Solution

    Raises
    ------
    InvalidProblemError, IncompatibleError
        For a problem without this solution, in one sentence.

    Examples
    --------
    >>> import ufm
    >>> problem = ufm.UFM(classes=4, width=6, per_class=3, normalisation=ufm.BatchNorm())
    >>> found = normalised_simplex(problem, ufm.Coupled(W=1e-2, gamma=1e-2))
    >>> round(found.loss, 8), round(float((found["gamma"] ** 2).sum()), 5)
    (0.09436169, 7.92481)
    """
    check_problem("normalised_simplex", problem)
    coupled = _rates_of(problem, decay)
    C, d = problem.classes, problem.widths[0]
    lam_W = coupled["W1"]
    if "gamma" in problem.trained:
        margin = optimum(C, float(scale_decay(C, coupled["gamma"], lam_W))).margin
        of_gamma, of_W = squared_norms(margin, C, coupled["gamma"], lam_W)
        gamma = np.full(d, np.sqrt(of_gamma / d))
    else:
        gamma = problem.frozen_values["gamma"]
        of_gamma = float((gamma**2).sum())
        margin = fixed_classifier_optimum(C, 1, lam_W, np.sqrt(of_gamma)).margin
        of_W = (margin * (C - 1)) ** 2 / (C * of_gamma)
    shares = (C - 1) * gamma**2 / of_gamma if margin else np.full(d, (C - 1) / d)
    directions = frame(shares, C - 1) @ _contrasts(C)
    H = np.where(gamma < 0, -1.0, 1.0)[:, None] * directions
    # a row of scale 0 counts nothing, but must not be constant
    H[~H.any(axis=1)] = _contrasts(C)[0]
    arrays = {
        "H": H[:, problem.labels],
        "W1": np.sqrt(of_W / (C - 1)) * directions.T,
        "gamma": gamma,
        "b": np.zeros(C),
    }
    return solution(
        "normalised simplex", problem, arrays, least(problem, coupled), C - 1 if margin else 0, optimum=True
    )


def frame(squares: np.ndarray, rank: int) -> np.ndarray:
    """Orthonormal columns whose rows have given squared norms.

    Parameters
    ----------
    squares : ndarray, shape (rows,)
        At most 1 each, with sum `rank`.
    rank : int
        Number of columns.

    Returns
    -------
    ndarray, shape (rows, rank)

    Examples
    --------
    >>> R = frame(np.array([0.5, 0.5, 1.0]), 2)
    >>> bool(np.abs(R.T @ R - np.eye(2)).max() < 1e-15), (R**2).sum(axis=1).round(12).tolist()
    (True, [0.5, 0.5, 1.0])
    """
    order = np.argsort(-squares, kind="stable")
    wanted, rows = squares[order], np.eye(len(squares), rank)
    for _ in squares[1:]:
        # the last row that is too long, and the first after it that is too short: rows between them are done
        norms = (rows**2).sum(axis=1)
        excess = np.where(np.abs(norms - wanted) > RESOLVED, norms - wanted, 0.0)
        if not (excess > 0).any() or not (excess < 0).any():
            break
        long = int(np.flatnonzero(excess > 0)[-1])
        short = long + int(np.flatnonzero(excess[long:] < 0)[0])
        done, other = (long, short) if excess[long] <= -excess[short] else (short, long)
        tangent = rotation_tangent(norms[done], norms[other], rows[done] @ rows[other], wanted[done])
        cos = 1 / np.hypot(1.0, tangent)
        sin = tangent * cos
        rows[done], rows[other] = cos * rows[done] + sin * rows[other], cos * rows[other] - sin * rows[done]
    return rows[np.argsort(order)]


def _contrasts(classes: int) -> np.ndarray:
    """Orthonormal rows orthogonal to the ones, shape (classes - 1, classes)."""
    from scipy.linalg import helmert

    contrasts: np.ndarray = helmert(classes)
    return contrasts


def _rates_of(problem: Problem, decay: Decay | None) -> dict[str, float]:
    """Coupled rates of a problem that has this solution, or the hypothesis that fails."""
    where, C = "normalised_simplex", problem.classes
    if problem.normalisation is None or problem.depth > 1 or problem.normalisation.eps > 0:
        raise IncompatibleError(
            f"{where}: problem.normalisation is {problem.normalisation!r} with depth {problem.depth}; allowed: a UFM "
            "with BatchNorm(), eps = 0."
        )
    if problem.loss != CrossEntropy():
        raise IncompatibleError(f"{where}: problem.loss is {problem.loss!r}; allowed: {CrossEntropy()!r}.")
    for block in ("H", "W1", "b"):
        if block in problem.frozen_values:
            raise IncompatibleError(f"{where}: block {block} is frozen; allowed: no frozen block but gamma.")
    if len(set(problem.class_sizes)) > 1:
        raise invalid(f"{where}: problem.per_class", problem.per_class, "classes of equal size")
    if problem.widths[0] < C - 1:
        raise invalid(f"{where}.problem.width", problem.widths[0], f"at least classes - 1 = {C - 1}")
    coupled, decoupled = per_block(decay, problem)
    for block in problem.trained:
        if decoupled[block]:
            raise invalid(f"{where}: decoupled decay of {block}", decoupled[block], "coupled decay alone")
    if coupled["H"]:
        raise invalid(
            f"{where}: coupled decay of H", coupled["H"], "0: the objective falls as H shrinks to 0"
        )
    for block in ("W1", "gamma"):
        if block in problem.trained and not 1 / LARGEST_RATE <= coupled[block] <= LARGEST_RATE:
            raise invalid(f"{where}: coupled decay of {block}", coupled[block], "a number > 0")
    if "gamma" in problem.frozen_values:
        squares = problem.frozen_values["gamma"] ** 2
        if not (squares.any() and fits(squares.max() * (1 - 2.0**-50), squares.sum(), C)):
            allowed = (
                f"scales with {C - 1} gamma_j^2 <= ||gamma||^2 for all j, not all 0: others carry no simplex"
            )
            raise invalid(
                f"{where}: problem.frozen['gamma']", problem.frozen_values["gamma"].tolist(), allowed
            )
    return dict(coupled)
