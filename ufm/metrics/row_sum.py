"""NC0: the size of the row sum of the weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from ufm.checks import choice
from ufm.metrics.inputs import over_records, read_class_weights
from ufm.metrics.means import scale

NORMALISATIONS = ("alpha", "norm", "norm_per_width", "relative")


def nc0(W: Any, normalisation: str = "alpha", *, layer: int | None = None) -> Any:
    """Size of the row sum of the last layer, W^T 1.

    Parameters
    ----------
    W : Trajectory, or ndarray of shape (..., classes, width)
        Last-layer weights.
    normalisation : {"alpha", "norm", "norm_per_width", "relative"}
        ``alpha`` = ||W^T 1||^2/K (theorems 3.1 to 3.4); ``norm`` = ||W^T 1|| (what the paper plots);
        ``norm_per_width`` = ||W^T 1||/p (its eq. 12); ``relative`` = ||W^T 1||/(p ||W||_F) (its eq. 14).
    layer : int, optional
        For a trajectory: these weights instead; K and p are then their rows and columns.

    Returns
    -------
    ndarray or float, shape (...)
        0 at W = 0, but nan for ``relative``; inf or nan where the run diverged.

    Raises
    ------
    InvalidProblemError
        For an unknown normalisation.

    Notes
    -----
    Zhao et al., arXiv 2602.16642v3, read in full.

    Examples
    --------
    >>> W = np.array([[1.0, 0.0], [1.0, 0.0]])
    >>> float(nc0(W)), float(nc0(W, "norm"))
    (2.0, 2.0)
    """
    choice("nc0.normalisation", normalisation, NORMALISATIONS)

    def size(W: np.ndarray) -> np.ndarray:
        K, p = W.shape[-2:]
        factor = scale(W)
        W = W * (1.0 / factor)
        row_sum = np.linalg.norm(W.sum(axis=-2), axis=-1)
        if normalisation == "relative":
            relative: np.ndarray = row_sum / (p * np.linalg.norm(W, axis=(-2, -1)))
            return relative
        norm: np.ndarray = factor[..., 0, 0] * row_sum
        if normalisation == "alpha":
            norm = norm**2 / K
        elif normalisation == "norm_per_width":
            norm = norm / p
        return norm

    return over_records(size, read_class_weights("nc0", W, layer))
