"""NC2M, NC3 and NC4: how well the classifier fits the class means."""

from __future__ import annotations

from typing import Any

import numpy as np

from ufm.checks import choice
from ufm.metrics.inputs import over_records, read_bias, read_both
from ufm.metrics.means import COLUMN, exponent, geometry, scaled, unit
from ufm.metrics.simplex import CONVENTIONS, distance_to_simplex, prefactor


def product_distance(W: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Distance of W M from a simplex ETF."""
    return distance_to_simplex(scaled(W) @ scaled(means))


def nc2m(
    W: Any, H: Any = None, labels: Any = None, convention: str = "code", *, layer: int | None = None
) -> Any:
    """Distance of W M from a simplex ETF: || W M/||W M||_F - M* ||_F (times 1/K^2 in the paper's print).

    Parameters
    ----------
    W : Trajectory, or ndarray of shape (..., classes, width)
        Last-layer weights; with a trajectory leave out H and labels.
    H : ndarray, shape (..., width, N)
        Features.
    labels : ndarray of int, shape (N,)
        Class of each sample.
    convention : {"code", "paper"}
        Without or with the prefactor 1/K^2.
    layer : int, optional
        For a trajectory: this layer's weights and input, if it has as many rows as there are classes.

    Returns
    -------
    ndarray or float, shape (...)
        0 to 2 without the prefactor; nan where W M = 0.

    Raises
    ------
    InvalidProblemError
        For another convention, or arrays that do not fit.

    Notes
    -----
    Zhao et al., arXiv 2602.16642v3, appendix B (read in full), and its public code (read).

    Examples
    --------
    >>> float(nc2m(np.eye(3), np.eye(3), np.arange(3)).round(12))
    0.0
    """
    choice("nc2m.convention", convention, CONVENTIONS)
    weights, features, classes = read_both("nc2m", W, H, labels, layer)

    def distance(W: np.ndarray, H: np.ndarray) -> np.ndarray:
        return prefactor(convention, classes.count**2) * product_distance(W, geometry(H, classes).means)

    return over_records(distance, weights, features, largest=(classes.count, classes.count))


def nc3(
    W: Any, H: Any = None, labels: Any = None, convention: str = "code", *, layer: int | None = None
) -> Any:
    """Distance between classifier and class means: || W/||W||_F - M^T/||M||_F ||_F.

    Times 1/(K p) in the paper's print.

    Parameters
    ----------
    W : Trajectory, or ndarray of shape (..., classes, width)
        Last-layer weights; with a trajectory leave out H and labels.
    H : ndarray, shape (..., width, N)
        Features.
    labels : ndarray of int, shape (N,)
        Class of each sample.
    convention : {"code", "paper"}
        Without or with the prefactor 1/(K p).
    layer : int, optional
        For a trajectory: this layer's weights and input, if it has as many rows as there are classes.

    Returns
    -------
    ndarray or float, shape (...)
        0 to 2 without the prefactor; nan where W = 0 or all class means coincide.

    Raises
    ------
    InvalidProblemError
        For another convention, or arrays that do not fit.

    Notes
    -----
    Zhao et al., arXiv 2602.16642v3, appendix B (read in full), and its public code (read).

    Examples
    --------
    >>> W = np.array([[1.0, 0.0], [-1.0, 0.0]])
    >>> float(nc3(W, 2 * W.T, np.array([0, 1])))
    0.0
    """
    choice("nc3.convention", convention, CONVENTIONS)
    weights, features, classes = read_both("nc3", W, H, labels, layer)

    def distance(W: np.ndarray, H: np.ndarray) -> np.ndarray:
        difference = unit(W) - np.swapaxes(unit(geometry(H, classes).means), -1, -2)
        norm: np.ndarray = np.linalg.norm(difference, axis=(-2, -1))
        return prefactor(convention, W.shape[-2] * W.shape[-1]) * norm

    return over_records(distance, weights, features)


def scaled_logits(W: np.ndarray, H: np.ndarray, b: np.ndarray) -> np.ndarray:
    """W H + b, every sample's over one power of two, so that neither a product nor a bias over- or underflows.

    Parameters
    ----------
    W, H : ndarray, shapes (..., K, width) and (..., width, N)
        Weights and features.
    b : ndarray, shape (..., K, 1)
        Bias.

    Returns
    -------
    ndarray, shape (..., K, N)
        Not finite where W, H or b is not.
    """
    product: np.ndarray = scaled(W) @ scaled(H, COLUMN)
    if not b.any():
        return product
    terms = ((product, exponent(W) + exponent(H, COLUMN)), (scaled(b), exponent(b)))
    # what is 0 is smaller than all else, whatever its factors
    sizes = [np.where(term.any(axis=-2, keepdims=True), size, -9999) for term, size in terms]
    largest = np.maximum(*sizes)
    first, second = (
        np.ldexp(1.0, size - largest) * term for (term, _), size in zip(terms, sizes, strict=True)
    )
    logits: np.ndarray = first + second
    return logits


def nc4(W: Any, H: Any = None, labels: Any = None, b: Any = None, *, layer: int | None = None) -> Any:
    """Share of samples to which the classifier gives the class of the nearest class mean.

    argmax_k <w_k, h> + b_k = argmin_k ||h - mu_k||; whether that class is the true one does not matter.

    Parameters
    ----------
    W : Trajectory, or ndarray of shape (..., classes, width)
        Last-layer weights; with a trajectory leave out H, labels and b: a bias that the model has is used.
    H : ndarray, shape (..., width, N)
        Features.
    labels : ndarray of int, shape (N,)
        Class of each sample.
    b : ndarray, shape (..., classes), optional
        Bias; none by default.
    layer : int, optional
        For a trajectory: this layer's weights and input, if it has as many rows as there are classes; only the last
        layer has a bias.

    Returns
    -------
    ndarray or float, shape (...)
        In [0, 1], every sample weighing the same. A tie goes to the class of lowest number, on either side, so that
        W = 0 without bias agrees where the first class mean is nearest; ties are decided by round-off where rows of W
        or means coincide only up to it. Of weights, the features of a sample, and its logits, what is below 2^-1000 of
        the largest may count as 0. nan where W, b or H is not finite.

    Notes
    -----
    Zhao et al., arXiv 2602.16642v3 (read in full). Its public code (read) leaves the bias out and takes the samples
    from the test set.

    Examples
    --------
    >>> W, H, labels = np.eye(2), np.array([[2.0, 0.0], [0.0, 1.0]]), np.array([0, 1])
    >>> float(nc4(W, H, labels)), float(nc4(W, H, labels, b=[0.0, 3.0]))
    (1.0, 0.5)
    """
    weights, features, classes = read_both("nc4", W, H, labels, layer)
    bias = read_bias("nc4", W, b, classes.count, layer)

    def agreement(W: np.ndarray, H: np.ndarray, b: np.ndarray) -> np.ndarray:
        logits = scaled_logits(W, classes.sorted(H), b)
        means, deviations = geometry(H, classes)
        # ||h - mu_k||^2 = ||h||^2 - 2 score_k, and only the score depends on k
        scores = np.swapaxes(means, -1, -2) @ (deviations + classes.spread(means))
        scores -= 0.5 * (means**2).sum(axis=-2)[..., None]
        share = (logits.argmax(axis=-2) == scores.argmax(axis=-2)).mean(axis=-1)
        return np.where(np.isfinite(logits).all(axis=(-2, -1)), share, np.nan)

    largest = (classes.count, features.shape[-1])
    return over_records(agreement, weights, features, bias, largest=largest)
