"""Singular values of weights, features or class means, and ranks made of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ufm.checks import choice, real
from ufm.errors import invalid
from ufm.metrics.inputs import (
    RecordedFeatures,
    Source,
    is_trajectory,
    numbers,
    over_records,
    read_layer,
    read_weights,
)
from ufm.metrics.means import class_means

MATRICES = ("weights", "features", "means")


def finite_part(A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A with 0 for matrices that are not finite, which LAPACK refuses, and which matrices are, shape (...)."""
    finite = np.isfinite(A).all(axis=(-2, -1))
    return np.where(finite[..., None, None], A, 0.0), finite


def singular_values_and_vectors(A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Left singular vectors (..., rows, r) and singular values (..., r) of A; nan where A is not finite."""
    A, finite = finite_part(A)
    u, s, _ = np.linalg.svd(A, full_matrices=False)
    return u, np.where(finite[..., None], s, np.nan)


def _singular_values(A: np.ndarray) -> np.ndarray:
    A, finite = finite_part(A)
    return np.where(finite[..., None], np.linalg.svd(A, compute_uv=False), np.nan)


def _matrix(where: str, A: Any, of: str | None, layer: int | None) -> Source:
    """The matrix whose spectrum is asked for."""
    if not is_trajectory(A):
        for name, value in (("of", of), ("layer", layer)):
            if value is not None:
                raise invalid(f"{where}.{name}", value, "None with plain arrays")
        matrix = numbers(f"{where}.A", A)
        if matrix.ndim < 2 or 0 in matrix.shape[-2:]:
            raise invalid(f"{where}.A.shape", matrix.shape, "(..., rows, columns), both at least 1")
        return matrix
    choice(f"{where}.of", "weights" if of is None else of, MATRICES)
    if of == "features":
        return RecordedFeatures(A, read_layer(where, A, layer))
    return class_means(A, layer=layer) if of == "means" else read_weights(where, A, layer)


def spectrum(A: Any, of: str | None = None, *, layer: int | None = None) -> Any:
    """Singular values, largest first.

    Parameters
    ----------
    A : Trajectory, or ndarray of shape (..., rows, columns)
        Any matrices.
    of : {"weights", "features", "means"}, optional
        For a trajectory: which matrix of the layer, its weights (default), its input over all samples, or the
        centred class means of its input.
    layer : int, optional
        For a trajectory: this layer instead of the last.

    Returns
    -------
    ndarray, shape (..., min(rows, columns))
        nan where the matrix is not finite.

    Examples
    --------
    >>> spectrum(np.diag([1.0, 3.0])).tolist()
    [3.0, 1.0]
    """
    return over_records(_singular_values, _matrix("spectrum", A, of, layer))


def rank(A: Any, of: str | None = None, *, tolerance: float | None = None, layer: int | None = None) -> Any:
    """Numerical rank: the number of singular values above `tolerance` times the largest.

    Parameters
    ----------
    A, of, layer
        As for `spectrum`.
    tolerance : float, optional
        Share of the largest singular value, in [0, 1); by default max(rows, columns) * 2^-52, the rule of
        ``numpy.linalg.matrix_rank``, which asks for rank up to round-off. For the rank that a trained network has
        for practical purposes give one, such as 1e-2.

    Returns
    -------
    ndarray or float, shape (...)
        A whole number as a float, 0 for a matrix of zeros; nan where it is not finite.

    Raises
    ------
    InvalidProblemError
        For a tolerance outside [0, 1), or what is no matrix.

    Examples
    --------
    >>> A = np.diag([1.0, 0.5, 1e-3])
    >>> float(rank(A)), float(rank(A, tolerance=1e-2))
    (3.0, 2.0)
    """
    matrix = _matrix("rank", A, of, layer)
    share = max(matrix.shape[-2:]) * 2.0**-52
    if tolerance is not None:
        share = real("rank.tolerance", tolerance, 0.0, 1.0)

    def count(A: np.ndarray) -> np.ndarray:
        s = _singular_values(A)
        return np.where(np.isnan(s[..., 0]), np.nan, (s > share * s[..., :1]).sum(axis=-1))

    return over_records(count, matrix)


def effective_rank(A: Any, of: str | None = None, *, layer: int | None = None) -> Any:
    """Effective rank exp(-sum_i p_i log p_i), p_i = s_i/sum_j s_j, with 0 log 0 = 0.

    The singular values s are normalised by their sum, not their squares by theirs; natural logarithm. It lies
    between 1 and the rank, and equals the rank if the singular values that are not 0 are equal.

    Parameters
    ----------
    A, of, layer
        As for `spectrum`.

    Returns
    -------
    ndarray or float, shape (...)
        nan for a matrix of zeros, and where it is not finite.

    Notes
    -----
    Roy and Vetterli, "The effective rank: a measure of effective dimensionality", EUSIPCO 2007 (recalled).

    Examples
    --------
    >>> round(float(effective_rank(np.diag([2.0, 2.0, 0.0]))), 12)
    2.0
    """

    def volume(A: np.ndarray) -> np.ndarray:
        s = _singular_values(A)
        shares = s / s[..., :1]  # first over the largest: the sum might overflow
        shares = shares / shares.sum(axis=-1, keepdims=True)
        entropy = -(shares * np.log(np.where(shares == 0, 1.0, shares))).sum(axis=-1)
        rank: np.ndarray = np.exp(entropy)
        return rank

    return over_records(volume, _matrix("effective_rank", A, of, layer))


def stable_rank(A: Any, of: str | None = None, *, layer: int | None = None) -> Any:
    """Stable rank ||A||_F^2/||A||_2^2, between 1 and the rank; blind to small singular values.

    Parameters
    ----------
    A, of, layer
        As for `spectrum`.

    Returns
    -------
    ndarray or float, shape (...)
        nan for a matrix of zeros, and where it is not finite.

    Examples
    --------
    >>> float(stable_rank(np.diag([2.0, 1.0])))
    1.25
    """

    def quotient(A: np.ndarray) -> np.ndarray:
        s = _singular_values(A)
        rank: np.ndarray = ((s / s[..., :1]) ** 2).sum(axis=-1)
        return rank

    return over_records(quotient, _matrix("stable_rank", A, of, layer))
