"""Class means, and deviations from them, in the form in which the metrics compare directions and ratios."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from ufm.metrics.classes import Classes
from ufm.metrics.inputs import over_records, read_features

Axes = int | tuple[int, ...]
MATRIX, ROW, COLUMN = (-2, -1), -1, -2  # the axes over which a largest entry is sought


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


def exponent(A: np.ndarray, of: Axes = MATRIX) -> np.ndarray:
    """Exponent of the power of two that divides max|A| of every matrix, row or column to [1, 2).

    Axes stay, with length 1; it is 0 for what is 0 or has inf or nan.
    """
    largest = np.maximum(A.max(axis=of, keepdims=True), -A.min(axis=of, keepdims=True))
    usable = np.isfinite(largest) & (largest > 0)
    _, above = np.frexp(np.where(usable, largest, 1.0))
    found: np.ndarray = np.maximum(above - 1, -1000)  # below that the inverse of the power would overflow
    return found


def scale(A: np.ndarray, of: Axes = MATRIX) -> np.ndarray:
    """Two to the power `exponent`."""
    power: np.ndarray = np.ldexp(1.0, exponent(A, of))
    return power


def scaled(A: np.ndarray, of: Axes = MATRIX) -> np.ndarray:
    """A over its `scale`: exact, so that ratios are right where their terms would over- or underflow."""
    return A * (1.0 / scale(A, of))


def unit(A: np.ndarray) -> np.ndarray:
    """Matrix over its Frobenius norm; nan where the matrix is 0."""
    A = scaled(A)
    direction: np.ndarray = A / np.linalg.norm(A, axis=(-2, -1), keepdims=True)
    return direction


def from_first_sample(H: np.ndarray) -> np.ndarray:
    """Features relative to those of the first sample, at unit scale: features that all coincide become 0."""
    H = 0.5 * H  # so that no difference overflows
    H -= H[..., :1].copy()
    H *= 1.0 / scale(H)
    return H


_shared = threading.local()


@contextmanager
def shared_geometry() -> Iterator[None]:
    """Metrics of one and the same array inside compute its geometry once; its labels and entries must not change."""
    _shared.found = {}
    try:
        yield
    finally:
        del _shared.found


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
    found: dict[tuple[int, str], tuple[np.ndarray, Geometry]] | None = getattr(_shared, "found", None)
    if found is None:
        return _geometry(H, classes, centre)
    key = id(H), centre
    if key not in found:
        found[key] = H, _geometry(H, classes, centre)  # H is kept, so that no other array gets its id
    return found[key][1]


def _geometry(H: np.ndarray, classes: Classes, centre: str) -> Geometry:
    features = classes.sorted(from_first_sample(H))
    means = classes.means(features)
    features -= classes.spread(means)
    return Geometry(minus_mean(means, None if centre == "classes" else classes.counts), features)


def minus_mean(means: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Class means (..., width, K) minus their mean with these weights, equal ones by default."""
    weights = np.ones(means.shape[-1]) if weights is None else weights
    # relative to the first class, so that means that all coincide become 0
    means = means - means[..., :1]
    centred: np.ndarray = means - (means * weights).sum(axis=-1, keepdims=True) / weights.sum()
    return centred


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
        if not centred:
            return classes.means(classes.sorted(H))
        # relative to the first sample: the round-off of a common offset would add to the rank
        return minus_mean(classes.means(classes.sorted(H - H[..., :1])))

    return over_records(means, features)
