r"""The two-valued path: over a frozen simplex ETF every elementwise optimizer keeps W_t = x_t I + y_t J.

Notation: H = c (I - J/K) frozen (c = 1/sqrt(K - 1) in theorems 3.3 and 3.4 of Zhao et al., arXiv 2602.16642v3;
``norm``), d = x + y the diagonal and o = y the off-diagonal entry of W, gap = c (d - o) the logit of the true class
minus that of any other. The factor of the sum over classes in the fit is ``samples_factor``: 1/K for the mean over
samples, whatever their equal number in each class, and that number for the sum. Then

    grad W = psi (J - K I):   psi off the diagonal, -(K - 1) psi on it,   psi = c samples_factor/(exp(gap) + K - 1).
"""

from __future__ import annotations

from typing import Any

import numpy as np

PAPER = "Zhao, Cheng, Masarczyk, Lucchi, arXiv 2602.16642v3"


# ------------------------------------------------------------------ formulas, generic in their number type


def frame_norm(classes: Any, norm: str = "frobenius", xp: Any = np) -> Any:
    """c of the simplex ETF c (I - J/K): 1/sqrt(K - 1), or sqrt(K/(K - 1)) for unit columns.

    Examples
    --------
    >>> float(frame_norm(5))
    0.5
    """
    return (xp.sqrt(classes) if norm == "columns" else 1) / xp.sqrt(classes - 1)


def logit_gap(diagonal: Any, off_diagonal: Any, norm: Any) -> Any:
    """Logit of the true class minus that of any other, c (d - o)."""
    return norm * (diagonal - off_diagonal)


def wrong_share(gap: Any, classes: Any, xp: Any = np) -> Any:
    """Probability of one wrong class, 1/(exp(gap) + K - 1).

    Examples
    --------
    >>> float(wrong_share(0.0, 4))
    0.25
    """
    if xp is not np:
        return 1 / (xp.exp(gap) + classes - 1)
    small = np.exp(-np.abs(gap))
    return np.where(np.asarray(gap) > 0, small / (1 + (classes - 1) * small), 1 / (small + classes - 1))[()]


def gradient_entries(gap: Any, classes: Any, norm: Any, samples_factor: Any, xp: Any = np) -> tuple[Any, Any]:
    """Diagonal and off-diagonal entry of grad W on the path.

    Examples
    --------
    >>> [float(x) for x in gradient_entries(0.0, 2, 1.0, 0.5)]
    [-0.25, 0.25]
    """
    psi = norm * samples_factor * wrong_share(gap, classes, xp)
    return -(classes - 1) * psi, psi


def cross_entropy(gap: Any, classes: Any) -> Any:
    """Cross-entropy of one sample, log(1 + (K - 1) exp(-gap)).

    Examples
    --------
    >>> float(cross_entropy(0.0, 2)) == np.log(2)
    True
    """
    gap = np.asarray(gap, dtype=float)
    small = np.exp(-np.abs(gap))
    above = np.log1p((classes - 1) * small)
    return np.where(gap > 0, above, np.log(small + classes - 1) - gap)[()]


def squared_norm(diagonal: Any, off_diagonal: Any, classes: Any) -> Any:
    """||W||_F^2 = K d^2 + K (K - 1) o^2."""
    return classes * diagonal**2 + classes * (classes - 1) * off_diagonal**2


def nc0(diagonal: Any, off_diagonal: Any, classes: Any, xp: Any = np) -> Any:
    """alpha = ||W^T 1||^2/K = (d + (K - 1) o)^2; with numpy the sum is rounded once.

    Parameters
    ----------
    diagonal, off_diagonal : array_like, shape (...)
        The two values of W.
    classes : int
        Number K of classes.
    xp : module
        ``numpy``, or any other for the formula as it stands.

    Examples
    --------
    >>> float(nc0(3.0, -1.0, 3))
    1.0
    """
    if xp is not np:
        return (diagonal + (classes - 1) * off_diagonal) ** 2
    from ufm.theory._double_double import DoubleDouble

    with np.errstate(over="ignore", invalid="ignore"):
        return ((DoubleDouble.of(off_diagonal) * float(classes - 1)) + diagonal).high ** 2


def weights(diagonal: Any, off_diagonal: Any, classes: int) -> np.ndarray:
    """W = (d - o) I + o J as a matrix, shape (..., classes, classes).

    Examples
    --------
    >>> weights(2.0, -1.0, 2).tolist()
    [[2.0, -1.0], [-1.0, 2.0]]
    """
    d, o = (np.asarray(value, dtype=float)[..., None, None] for value in (diagonal, off_diagonal))
    return np.where(np.eye(classes, dtype=bool), d, o)


CLAIMS: tuple[Any, ...] = ()
