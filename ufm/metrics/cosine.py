"""Cosines of features within and between classes, with the worst class and pair and their averages."""

from __future__ import annotations

from typing import Any

import numpy as np

from ufm.checks import choice
from ufm.metrics.classes import Classes
from ufm.metrics.inputs import over_records, read_features
from ufm.metrics.means import COLUMN, scaled

OVER = ("worst", "mean", "each")


def intra_class_cosine(H: Any, labels: Any = None, over: str = "worst", *, layer: int | None = None) -> Any:
    """Mean cosine of two features of one class, (1/n^2) sum_(i, j) cos(h_i, h_j) over all ordered pairs, i = j too.

    With u_c the mean of the features of class c at unit norm it is ||u_c||^2, 1 at collapse.

    Parameters
    ----------
    H : Trajectory, or ndarray of shape (..., width, N)
        Features, not centred; for a trajectory the input of the last layer.
    labels : ndarray of int, shape (N,)
        Class of each sample.
    over : {"worst", "mean", "each"}
        The smallest of all classes, their mean, or all of them.
    layer : int, optional
        For a trajectory: the input of this layer, after normalisation and activation.

    Returns
    -------
    ndarray or float, shape (...)
        (..., K) for "each"; between 0 and 1, at least 1/n; nan where a feature is 0.

    Raises
    ------
    InvalidProblemError
        For another `over`, or arrays that do not fit.

    Notes
    -----
    Pan and Cao, arXiv 2309.04644 (recalled; known from referee reports), who report the worst class.

    Examples
    --------
    >>> H, labels = np.array([[1.0, 0.0, 2.0], [0.0, 3.0, 0.0]]), np.array([0, 0, 1])
    >>> intra_class_cosine(H, labels, over="each").tolist(), float(intra_class_cosine(H, labels))
    ([0.5, 1.0], 0.5)
    """
    choice("intra_class_cosine.over", over, OVER)
    features, classes = read_features("intra_class_cosine", H, labels, layer)

    def cosines(H: np.ndarray) -> np.ndarray:
        found: np.ndarray = (_unit_means(H, classes) ** 2).sum(axis=COLUMN)
        if over != "each":
            found = found.min(axis=-1) if over == "worst" else found.mean(axis=-1)
        return found

    return over_records(cosines, features)


def inter_class_cosine(H: Any, labels: Any = None, over: str = "worst", *, layer: int | None = None) -> Any:
    """Mean cosine of a feature of one class with one of another, <u_c, u_c'>, -1/(K - 1) at a simplex ETF.

    Parameters
    ----------
    H, labels, layer
        As for `intra_class_cosine`.
    over : {"worst", "mean", "each"}
        The largest of all pairs of classes, their mean, or all of them.

    Returns
    -------
    ndarray or float, shape (...)
        (..., K, K) for "each", with nan on the diagonal; nan where a feature is 0, and of one class.

    Raises
    ------
    InvalidProblemError
        For another `over`, or arrays that do not fit.

    Notes
    -----
    Pan and Cao, arXiv 2309.04644 (recalled; known from referee reports), who report the worst pair.

    Examples
    --------
    >>> H, labels = np.array([[1.0, 1.0, -2.0], [0.0, 3.0, 0.0]]), np.array([0, 1, 2])
    >>> inter_class_cosine(H, labels, over="each").round(3).tolist()
    [[nan, 0.316, -1.0], [0.316, nan, -0.316], [-1.0, -0.316, nan]]
    """
    choice("inter_class_cosine.over", over, OVER)
    features, classes = read_features("inter_class_cosine", H, labels, layer)
    K = classes.count
    i, j = np.triu_indices(K, 1)

    def cosines(H: np.ndarray) -> np.ndarray:
        u = _unit_means(H, classes)
        gram: np.ndarray = np.swapaxes(u, -1, -2) @ u
        if over == "each":
            gram[..., range(K), range(K)] = np.nan
            return gram
        pairs = gram[..., i, j]
        if K == 1:
            return np.full(pairs.shape[:-1], np.nan)
        found: np.ndarray = pairs.max(axis=-1) if over == "worst" else pairs.mean(axis=-1)
        return found

    return over_records(cosines, features, largest=(K, K))


def _unit_means(H: np.ndarray, classes: Classes) -> np.ndarray:
    """Mean of the features of each class at unit norm, shape (..., width, K)."""
    H = scaled(H, COLUMN)  # so that no square over- or underflows
    return classes.means(classes.sorted(H / np.linalg.norm(H, axis=COLUMN, keepdims=True)))
