"""The metrics of Zhu et al., "A geometric analysis of neural collapse with unconstrained features".

arXiv 2105.02375; its print is recalled, its public code (tding1/Neural-Collapse, commit 0106f93) was read, and what it
computes is what stands here. Class means are centred at the mean of all samples, not at the mean of the class means,
which makes a difference for classes of unequal sizes only. Prefactors are as in the code: 1/K in NC1, none elsewhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ufm.checks import real
from ufm.metrics.duality import product_distance
from ufm.metrics.inputs import over_records, read_bias, read_both, read_features
from ufm.metrics.means import geometry
from ufm.metrics.simplex import gram_distance, of_weights
from ufm.metrics.variability import inverse_trace


def zhu_nc1(H: Any, labels: Any = None, *, cutoff: float | None = None, layer: int | None = None) -> Any:
    """tr(Sigma_W pinv(Sigma_B))/K with class means centred at mu_G, the mean of all samples.

    Sigma_B = (1/K) sum_k (mu_k - mu_G) (mu_k - mu_G)^T.

    Parameters
    ----------
    H, labels, cutoff, layer
        As for `ufm.metrics.nc1`, which it equals for classes of equal sizes.

    Returns
    -------
    ndarray or float, shape (...)
        nan where all class means coincide.

    Raises
    ------
    InvalidProblemError
        For arrays that do not fit.

    Examples
    --------
    >>> round(float(zhu_nc1(np.array([[-3.0, -1.0, 1.0, 3.0]]), np.array([0, 0, 1, 1]))), 12)
    0.125
    """
    features, classes = read_features("class_means", H, labels, layer)
    share = features.shape[-2] * 2.0**-52 if cutoff is None else real("zhu_nc1.cutoff", cutoff, 0.0, 1.0)
    return over_records(lambda H: inverse_trace(geometry(H, classes, "samples"), share), features)


def zhu_nc2(W: Any, *, layer: int | None = None) -> Any:
    """|| W W^T/||W W^T||_F - M* ||_F, which is NC2W of Zhao et al.

    Parameters
    ----------
    W, layer
        As for `ufm.metrics.nc2w`.

    Returns
    -------
    ndarray or float, shape (...)
        nan at W = 0.

    Examples
    --------
    >>> float(zhu_nc2(np.eye(3) - 1 / 3).round(12))
    0.0
    """
    return of_weights(gram_distance, "zhu_nc2", W, "code", layer)


def zhu_nc3(W: Any, H: Any = None, labels: Any = None, *, layer: int | None = None) -> Any:
    """|| W M/||W M||_F - M* ||_F with M = [mu_k - mu_G], mu_G the mean of all samples.

    Parameters
    ----------
    W, H, labels, layer
        As for `ufm.metrics.nc2m`, which it equals for classes of equal sizes.

    Returns
    -------
    ndarray or float, shape (...)
        nan where W M = 0.

    Examples
    --------
    >>> float(zhu_nc3(np.eye(3), np.eye(3), np.arange(3)).round(12))
    0.0
    """
    weights, features, classes = read_both("zhu_nc3", W, H, labels, layer)

    def distance(W: np.ndarray, H: np.ndarray) -> np.ndarray:
        return product_distance(W, geometry(H, classes, "samples").means)

    return over_records(distance, weights, features, largest=(classes.count, classes.count))


def zhu_nc4(W: Any, H: Any = None, labels: Any = None, b: Any = None, *, layer: int | None = None) -> Any:
    """|| W mu_G + b ||_2, mu_G the mean of all samples: what the bias leaves of the logits of the mean feature.

    Parameters
    ----------
    W, H, labels, b, layer
        As for `ufm.metrics.nc4`; the labels only say how many classes there are.

    Returns
    -------
    ndarray or float, shape (...)
        inf or nan where the run diverged.

    Examples
    --------
    >>> float(zhu_nc4(np.eye(2), np.array([[2.0, 0.0], [0.0, 2.0]]), np.arange(2), b=[-1.0, -1.0]))
    0.0
    """
    weights, features, classes = read_both("zhu_nc4", W, H, labels, layer)
    bias = read_bias("zhu_nc4", W, b, classes.count, layer)

    def residual(W: np.ndarray, H: np.ndarray, b: np.ndarray) -> np.ndarray:
        norm: np.ndarray = np.linalg.norm(W @ H.mean(axis=-1, keepdims=True) + b, axis=(-2, -1))
        return norm

    return over_records(residual, weights, features, bias)
