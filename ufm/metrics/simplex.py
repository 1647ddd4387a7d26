"""NC2: how far class means, or the rows of W, are from a simplex equiangular tight frame (ETF)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ufm.checks import choice
from ufm.metrics.inputs import over_records, read_class_weights, read_features
from ufm.metrics.means import ROW, geometry, scaled, unit

CONVENTIONS = ("code", "paper")


def prefactor(convention: str, size: int) -> float:
    """1/size, as the paper prints, or 1, as its public code has it."""
    return 1.0 / size if convention == "paper" else 1.0


def distance_to_simplex(G: np.ndarray) -> np.ndarray:
    """|| G/||G||_F - M* ||_F with M* = (I - J/K)/sqrt(K - 1); nan where G = 0, and for K = 1."""
    K = G.shape[-1]
    simplex = (np.eye(K) - 1.0 / K) / np.sqrt(np.float64(K - 1))
    distance: np.ndarray = np.linalg.norm(unit(G) - simplex, axis=(-2, -1))
    return distance


def gram_distance(rows: np.ndarray, convention: str) -> np.ndarray:
    """Distance of the Gram matrix of K rows from a simplex ETF."""
    rows = scaled(rows)
    gram = rows @ np.swapaxes(rows, -1, -2)
    return prefactor(convention, rows.shape[-2] ** 2) * distance_to_simplex(gram)


def norm_variation(rows: np.ndarray, convention: str) -> np.ndarray:
    """Standard deviation of the norms of K rows over their mean; nan where all rows are 0."""
    ddof = 0 if convention == "paper" else 1
    norms = np.linalg.norm(scaled(rows), axis=-1)
    mean = norms.mean(axis=-1, keepdims=True)
    variance = ((norms - mean) ** 2).sum(axis=-1) / np.float64(norms.shape[-1] - ddof)
    variation: np.ndarray = np.sqrt(variance) / mean[..., 0]
    return variation


def angle_deviation(rows: np.ndarray, convention: str) -> np.ndarray:
    """Mean over pairs of K rows of cos + 1/(K - 1), or of its absolute value; nan where a row is 0."""
    K = rows.shape[-2]
    rows = scaled(rows, ROW)
    rows = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    cosines = (rows @ np.swapaxes(rows, -1, -2))[..., ~np.eye(K, dtype=bool)]
    # in C order, so that the order of a record's sum does not depend on how many records there are
    deviation = np.ascontiguousarray(cosines) + 1.0 / max(K - 1, 1)
    terms = deviation if convention == "paper" else np.abs(deviation)
    mean: np.ndarray = terms.sum(axis=-1) / np.float64(K * (K - 1))
    return mean


Structure = Callable[[np.ndarray, str], np.ndarray]


def of_means(
    structure: Structure, where: str, H: Any, labels: Any, convention: str, layer: int | None
) -> Any:
    """Structure of the centred class means, one row for each class."""
    choice(f"{where}.convention", convention, CONVENTIONS)
    features, classes = read_features("class_means", H, labels, layer)

    def rows(H: np.ndarray) -> np.ndarray:
        return structure(np.swapaxes(geometry(H, classes).means, -1, -2), convention)

    return over_records(rows, features, largest=(classes.count, classes.count))


def of_weights(structure: Structure, where: str, W: Any, convention: str, layer: int | None) -> Any:
    """Structure of the rows of W, which are not centred."""
    choice(f"{where}.convention", convention, CONVENTIONS)
    weights = read_class_weights(where, W, layer)
    rows = weights.shape[-2]
    return over_records(lambda W: structure(W, convention), weights, largest=(rows, rows))


def nc2(H: Any, labels: Any = None, convention: str = "code", *, layer: int | None = None) -> Any:
    """Distance of the Gram matrix of centred class means from a simplex ETF.

    NC2 = || M^T M/||M^T M||_F - M* ||_F (times 1/K^2 in the paper's print).

    Parameters
    ----------
    H : Trajectory, or ndarray of shape (..., width, N)
        Features; for a trajectory the input of the last layer.
    labels : ndarray of int, shape (N,)
        Class of each sample.
    convention : {"code", "paper"}
        Without or with the prefactor 1/K^2.
    layer : int, optional
        For a trajectory: the input of this layer, after the activation.

    Returns
    -------
    ndarray or float, shape (...)
        Without the prefactor 0 to sqrt(2 - 2/sqrt(K - 1)), the value of collinear means, so 0 for two classes; nan
        where all class means coincide.

    Notes
    -----
    Zhao et al., arXiv 2602.16642v3, appendix B (read in full), and its public code (read).

    Examples
    --------
    >>> float(nc2(np.eye(3), np.arange(3)).round(12))
    0.0
    """
    return of_means(gram_distance, "nc2", H, labels, convention, layer)


def nc2n(H: Any, labels: Any = None, convention: str = "code", *, layer: int | None = None) -> Any:
    """How unequal the norms of centred class means are: their standard deviation over their mean.

    NC2n = std_k ||mubar_k|| / mean_k ||mubar_k||.

    Parameters
    ----------
    H : Trajectory, or ndarray of shape (..., width, N)
        Features; for a trajectory the input of the last layer.
    labels : ndarray of int, shape (N,)
        Class of each sample.
    convention : {"code", "paper"}
        Denominator K - 1 (ddof = 1) or K under the square root; the print names none, and 0 is taken for it.
    layer : int, optional
        For a trajectory: the input of this layer, after the activation.

    Returns
    -------
    ndarray or float, shape (...)
        0 for two classes; nan where all class means coincide.

    Notes
    -----
    Zhao et al., arXiv 2602.16642v3, appendix B (read in full), and its public code (read).

    Examples
    --------
    >>> float(nc2n(np.array([[0.0, 1.0, 5.0]]), np.arange(3), "paper").round(12))
    0.408248290464
    """
    return of_means(norm_variation, "nc2n", H, labels, convention, layer)


def nc2a(H: Any, labels: Any = None, convention: str = "code", *, layer: int | None = None) -> Any:
    """How far the angles between centred class means are from those of a simplex ETF.

    NC2a = mean_(k != k') | cos(mubar_k, mubar_k') + 1/(K - 1) | (without the absolute value in the
    paper's print).

    Parameters
    ----------
    H : Trajectory, or ndarray of shape (..., width, N)
        Features; for a trajectory the input of the last layer.
    labels : ndarray of int, shape (N,)
        Class of each sample.
    convention : {"code", "paper"}
        With or without the absolute value.
    layer : int, optional
        For a trajectory: the input of this layer, after the activation.

    Returns
    -------
    ndarray or float, shape (...)
        0 for two classes; nan where a centred class mean is 0.

    Notes
    -----
    Zhao et al., arXiv 2602.16642v3, appendix B (read in full), and its public code (read), which adds
    1e-9 to the norms; nothing is added here.

    Examples
    --------
    >>> float(nc2a(np.eye(3), np.arange(3)).round(12))
    0.0
    """
    return of_means(angle_deviation, "nc2a", H, labels, convention, layer)


def nc2w(W: Any, convention: str = "code", *, layer: int | None = None) -> Any:
    """Distance of the Gram matrix of the rows of W from a simplex ETF.

    NC2W = || W W^T/||W W^T||_F - M* ||_F (times 1/K^2 in the paper's print). Rows are not centred.

    Parameters
    ----------
    W : Trajectory, or ndarray of shape (..., classes, width)
        Last-layer weights.
    convention : {"code", "paper"}
        Without or with the prefactor 1/K^2.
    layer : int, optional
        For a trajectory: these weights instead, whose rows then stand for classes.

    Returns
    -------
    ndarray or float, shape (...)
        0 to sqrt(2) without the prefactor; nan at W = 0.

    Notes
    -----
    Zhao et al., arXiv 2602.16642v3, appendix B (read in full), and its public code (read).

    Examples
    --------
    >>> float(nc2w(np.eye(3) - 1 / 3).round(12))
    0.0
    """
    return of_weights(gram_distance, "nc2w", W, convention, layer)


def nc2wn(W: Any, convention: str = "code", *, layer: int | None = None) -> Any:
    """How unequal the norms of the rows of W are: their standard deviation over their mean.

    NC2Wn = std_k ||w_k|| / mean_k ||w_k||. Rows are not centred.

    Parameters
    ----------
    W : Trajectory, or ndarray of shape (..., classes, width)
        Last-layer weights.
    convention : {"code", "paper"}
        Denominator K - 1 (ddof = 1) or K under the square root; the print names none, and 0 is taken for it.
    layer : int, optional
        For a trajectory: these weights instead, whose rows then stand for classes.

    Returns
    -------
    ndarray or float, shape (...)
        nan at W = 0.

    Notes
    -----
    Zhao et al., arXiv 2602.16642v3, appendix B (read in full), and its public code (read).

    Examples
    --------
    >>> float(nc2wn(np.diag([1.0, 3.0]), "paper"))
    0.5
    """
    return of_weights(norm_variation, "nc2wn", W, convention, layer)


def nc2wa(W: Any, convention: str = "code", *, layer: int | None = None) -> Any:
    """How far the angles between the rows of W are from those of a simplex ETF.

    NC2Wa = mean_(k != k') | cos(w_k, w_k') + 1/(K - 1) | (without the absolute value in the paper's
    print). Rows are not centred.

    Parameters
    ----------
    W : Trajectory, or ndarray of shape (..., classes, width)
        Last-layer weights.
    convention : {"code", "paper"}
        With or without the absolute value.
    layer : int, optional
        For a trajectory: these weights instead, whose rows then stand for classes.

    Returns
    -------
    ndarray or float, shape (...)
        nan where a row of W is 0.

    Notes
    -----
    Zhao et al., arXiv 2602.16642v3, appendix B (read in full), and its public code (read), which adds
    1e-9 to the norms; nothing is added here.

    Examples
    --------
    >>> float(nc2wa(np.eye(2)))
    1.0
    """
    return of_weights(angle_deviation, "nc2wa", W, convention, layer)
