"""Class means, and deviations from them, in the form in which the metrics compare directions and ratios."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ufm.metrics.classes import Classes
from ufm.metrics.inputs import over_records, read_features


class Geometry(NamedTuple):
    """Features of a block of records, up to one positive factor per record.

    Parameters
    ----------
    means : ndarray, shape (..., width, K)
        Class means minus the centre, M = [mubar_1 ... mubar_K].
    deviations : ndarray, shape (..., width, N)
        Features minus the mean of their class, columns by class.
    """

    means: np.ndarray
    deviations: np.ndarray


def scale(A: np.ndarray) -> np.ndarray:
    """The power of two that divides max|A| to [1, 2), shape (..., 1, 1); 1 for matrices of 0 or with inf or nan."""
    largest = np.maximum(A.max(axis=(-2, -1), keepdims=True), -A.min(axis=(-2, -1), keepdims=True))
    usable = np.isfinite(largest) & (largest > 0)
    exponent = np.frexp(np.where(usable, largest, 1.0))[1] - 1
    return np.ldexp(1.0, np.maximum(exponent, -1000))  # below that its inverse would overflow


def scaled(A: np.ndarray) -> np.ndarray:
    """A over its `scale`: exact, so that ratios are right where their terms would over- or underflow."""
    return A * (1.0 / scale(A))


def unit(A: np.ndarray) -> np.ndarray:
    """Matrix over its Frobenius norm; nan where the matrix is 0."""
    A = scaled(A)
    return A / np.linalg.norm(A, axis=(-2, -1), keepdims=True)


def from_first_sample(H: np.ndarray) -> np.ndarray:
    """Features relative to those of the first sample, at unit scale: features that all coincide become 0."""
    H = 0.5 * H  # so that no difference overflows
    H -= H[..., :1].copy()
    H *= 1.0 / scale(H)
    return H


def geometry(H: np.ndarray, classes: Classes, centre: str = "classes") -> Geometry:
    """Centred class means and deviations of features (..., width, N), at unit scale.

    Parameters
    ----------
    H : ndarray, shape (..., width, N)
        Features of a block of records.
    classes : Classes
        Class of each column.
    centre : {"classes", "samples"}
        What is subtracted from the class means: their unweighted mean, or the mean of all samples.
    """
    features = classes.sorted(from_first_sample(H))
    means = classes.means(features)
    features -= classes.spread(means)
    weights = np.full(classes.count, 1.0) if centre == "classes" else classes.counts
    # relative to the first class, so that means that all coincide become 0
    means = means - means[..., :1]
    return Geometry(means - (means * weights).sum(axis=-1, keepdims=True) / weights.sum(), features)


def class_means(H: Any, labels: Any = None, centred: bool = True, *, layer: int | None = None) -> Any:
    """Class means of the features, minus their mean over classes if `centred`.

    Parameters
    ----------
    H : Trajectory, or ndarray of shape (..., width, N)
        Features; for a trajectory the input of the last layer.
    labels : ndarray of int, shape (N,)
        Class of each sample, 0 ... K - 1, every class present.
    centred : bool
        Subtract the unweighted mean of the class means, whatever the sizes of the classes.
    layer : int, optional
        For a trajectory: the input of this layer, after the activation.

    Returns
    -------
    ndarray, shape (..., width, K)

    Raises
    ------
    InvalidProblemError
        If shapes do not fit or a class has no sample.

    Examples
    --------
    >>> class_means(np.array([[1.0, 3.0, 8.0]]), np.array([0, 0, 1])).tolist()
    [[-3.0, 3.0]]
    """
    features, classes = read_features("class_means", H, labels, layer)

    def means(H: np.ndarray) -> np.ndarray:
        found = classes.means(classes.sorted(H))
        return found - found.mean(axis=-1, keepdims=True) if centred else found

    return over_records(means, features)
