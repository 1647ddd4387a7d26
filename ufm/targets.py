"""Real targets for a regression: draws whose sample covariance is the one asked for."""

from __future__ import annotations

from typing import Any

import numpy as np

from ufm.checks import finite_array, whole
from ufm.errors import invalid
from ufm.initial import block_rng


def correlated_targets(covariance: Any, samples: int, seed: int = 0) -> np.ndarray:
    """Centred targets whose sample covariance Y Y^T/M is this one to round-off, whatever the seed.

    Parameters
    ----------
    covariance : array_like, shape (outputs, outputs)
        Symmetric and positive definite.
    samples : int
        Number M of samples, more than outputs.
    seed : int
        Of the normal numbers that are centred and whitened.

    Returns
    -------
    ndarray, shape (outputs, samples)

    Raises
    ------
    InvalidProblemError
        For a covariance that is not symmetric and positive definite, or too few samples.

    Examples
    --------
    >>> Y = correlated_targets([[1.0, -0.5], [-0.5, 2.0]], samples=10)
    >>> (Y @ Y.T / 10).round(12).tolist(), bool(abs(Y.sum(axis=1)).max() < 1e-13)
    ([[1.0, -0.5], [-0.5, 2.0]], True)
    """
    where = "correlated_targets.covariance"
    given = finite_array(where, covariance, 2)
    if given.shape[0] != given.shape[1] or not given.size:
        raise invalid(where, f"an array of shape {given.shape}", "a square matrix")
    values, vectors = np.linalg.eigh(given)
    rounding = len(values) * np.finfo(np.float64).eps * np.abs(values).max()
    if np.abs(given - given.T).max() > rounding or values[0] <= rounding:
        raise invalid(where, given.tolist(), "a symmetric and positive definite matrix")
    samples = whole("correlated_targets.samples", samples, len(values) + 1)
    drawn = block_rng(whole("correlated_targets.seed", seed, 0), 3, 0).standard_normal((len(values), samples))
    white = np.linalg.qr((drawn - drawn.mean(axis=1, keepdims=True)).T)[0].T
    targets: np.ndarray = vectors @ (np.sqrt(samples * values)[:, None] * (vectors.T @ white))
    return targets
