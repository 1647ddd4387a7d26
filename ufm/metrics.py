"""Numbers of a recorded state: the neural-collapse metrics, in batched numpy.

Every metric takes a trajectory (one value per record) or plain arrays with any leading batch axes:
W of shape (..., K, p), H of shape (..., p, N), labels of shape (N,). Notation of Zhao et al., arXiv
2602.16642v3, section 2 and appendix B: mu_k are the class means, mubar_k the class means minus their mean
over classes, M = [mubar_1 ... mubar_K], and M* = (I - 1 1^T/K)/sqrt(K - 1) is the Gram matrix of a simplex
ETF at unit norm.

Conventions. The paper's appendix prints prefactors 1/K^2 (NC2, NC2W, NC2M) and 1/(K p) (NC3) that its public
code, and so its figures and tables, do not have. ``convention="code"`` (the default) leaves them out, as does
everything that is plotted; ``convention="paper"`` puts them in.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ufm.checks import choice
from ufm.errors import invalid

NORMALISATIONS = ("alpha", "norm", "norm_per_width", "relative")
CONVENTIONS = ("code", "paper")


def _last_layer(W: Any) -> np.ndarray:
    """Last-layer weights of a trajectory, or the array itself, shape (..., K, p)."""
    array = _numbers("metrics.W", W["W"] if _is_trajectory(W) else W, "iuf").astype(np.float64)
    if array.ndim < 2 or 0 in array.shape[-2:]:
        raise invalid("metrics.W.shape", array.shape, "(..., classes, width), both at least 1")
    return array


def _numbers(where: str, value: Any, kinds: str) -> np.ndarray:
    """`value` as an array of one of these kinds of dtype; its entries need not be finite."""
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.empty(0, dtype=object)
    if array.dtype.kind not in kinds:
        raise invalid(
            where, value, "an array of real numbers" if "f" in kinds else "whole numbers 0 ... K - 1"
        )
    return array


def _features(where: str, first: Any, H: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Features (..., p, N) and labels (N,), from a trajectory in `first` or from the arrays."""
    if _is_trajectory(first):
        if H is not None or labels is not None:
            raise invalid(where, "trajectory and arrays", "a trajectory alone, or arrays alone")
        H, labels = first.features(), first.problem.labels
    if H is None or labels is None:
        raise invalid(where, "no features or labels", "a trajectory, or arrays with H and labels")
    H = _numbers(f"{where}.H", H, "iuf").astype(np.float64)
    labels = _numbers(f"{where}.labels", labels, "iu")
    if H.ndim < 2 or 0 in H.shape[-2:] or labels.shape != H.shape[-1:]:
        raise invalid(f"{where}: shapes of H, labels", (H.shape, labels.shape), "(..., width, N) and (N,)")
    # With a sample in every class there are no more classes than samples.
    if labels.min() < 0 or labels.max() >= labels.size:
        raise invalid(f"{where}.labels", labels, "whole numbers 0 ... K - 1, each at least once")
    return H, labels.astype(np.int64)


def _is_trajectory(value: Any) -> bool:
    return hasattr(value, "features") and hasattr(value, "problem")


def _prefactor(where: str, convention: str, size: int) -> float:
    choice(f"{where}.convention", convention, CONVENTIONS)
    return 1.0 / size if convention == "paper" else 1.0


def _same_shape(where: str, W: np.ndarray, M: np.ndarray) -> None:
    if W.shape[-2:] != M.shape[:-3:-1]:
        raise invalid(
            f"{where}.W.shape", W.shape, f"(..., {M.shape[-1]}, {M.shape[-2]}), classes x width of H"
        )


def _product(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """A B; nan or inf where the entries of a diverged run are."""
    with np.errstate(over="ignore", invalid="ignore"):
        return A @ B


def _unit(A: np.ndarray) -> np.ndarray:
    """Matrix over its Frobenius norm; nan where the matrix is 0."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        return A / np.linalg.norm(A, axis=(-2, -1), keepdims=True)


def _simplex_gram(K: int) -> np.ndarray:
    return (np.eye(K) - 1.0 / K) / np.sqrt(max(K - 1, 1))


def _distance_to_simplex(G: np.ndarray) -> np.ndarray:
    return np.linalg.norm(_unit(G) - _simplex_gram(G.shape[-1]), axis=(-2, -1))


def class_means(H: Any, labels: Any = None, centred: bool = True) -> np.ndarray:
    """Class means of the features, minus their mean over classes if `centred`.

    Parameters
    ----------
    H : Trajectory, or ndarray of shape (..., width, N)
        Features; for a trajectory the input of the last layer.
    labels : ndarray of int, shape (N,)
        Class of each sample, 0 ... K - 1, every class present.
    centred : bool
        Subtract the unweighted mean of the class means.

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
    features, labels = _features("class_means", H, None if _is_trajectory(H) else H, labels)
    counts = np.bincount(labels)
    if not counts.all():
        missing = np.flatnonzero(counts == 0).tolist()
        raise invalid("class_means: classes without a sample", missing, "none")
    average = (labels[:, None] == np.arange(len(counts))) / counts
    means = _product(features, average)
    with np.errstate(over="ignore", invalid="ignore"):
        return means - means.mean(axis=-1, keepdims=True) if centred else means


def nc0(W: Any, normalisation: str = "alpha") -> Any:
    """Size of the row sum of the last layer, W^T 1.

    Parameters
    ----------
    W : Trajectory, or ndarray of shape (..., classes, width)
        Last-layer weights.
    normalisation : {"alpha", "norm", "norm_per_width", "relative"}
        ``alpha`` = ||W^T 1||^2/K (theorems 3.1 to 3.4); ``norm`` = ||W^T 1|| (what the paper plots);
        ``norm_per_width`` = ||W^T 1||/p (its eq. 12); ``relative`` = ||W^T 1||/(p ||W||_F) (its eq. 14).

    Returns
    -------
    ndarray or float, shape (...)

    Raises
    ------
    InvalidProblemError
        For an unknown normalisation.

    Examples
    --------
    >>> W = np.array([[1.0, 0.0], [1.0, 0.0]])
    >>> float(nc0(W)), float(nc0(W, "norm"))
    (2.0, 2.0)
    """
    choice("nc0.normalisation", normalisation, NORMALISATIONS)
    W = _last_layer(W)
    K, p = W.shape[-2:]
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        norm = np.linalg.norm(W.sum(axis=-2), axis=-1)
        if normalisation == "alpha":
            return norm**2 / K
        if normalisation == "norm":
            return norm
        if normalisation == "norm_per_width":
            return norm / p
        return norm / (p * np.linalg.norm(W, axis=(-2, -1)))


def nc2(H: Any, labels: Any = None, convention: str = "code") -> Any:
    """Distance of the Gram matrix of centred class means from a simplex ETF.

    NC2 = || M^T M/||M^T M||_F - M* ||_F (times 1/K^2 in the paper's print); nan where all means coincide.

    Parameters
    ----------
    H : Trajectory, or ndarray of shape (..., width, N)
        Features.
    labels : ndarray of int, shape (N,)
        Class of each sample.
    convention : {"code", "paper"}
        Without or with the prefactor 1/K^2.

    Returns
    -------
    ndarray or float, shape (...)

    Examples
    --------
    >>> float(nc2(np.eye(3), np.arange(3)).round(12))
    0.0
    """
    M = class_means(H, labels)
    return _prefactor("nc2", convention, M.shape[-1] ** 2) * _distance_to_simplex(
        _product(np.swapaxes(M, -1, -2), M)
    )


def nc2w(W: Any, convention: str = "code") -> Any:
    """Distance of the Gram matrix of the rows of W from a simplex ETF.

    NC2W = || W W^T/||W W^T||_F - M* ||_F (times 1/K^2 in the paper's print). Rows are not centred.

    Parameters
    ----------
    W : Trajectory, or ndarray of shape (..., classes, width)
        Last-layer weights.
    convention : {"code", "paper"}
        Without or with the prefactor 1/K^2.

    Examples
    --------
    >>> float(nc2w(np.eye(3) - 1 / 3).round(12))
    0.0
    """
    W = _last_layer(W)
    return _prefactor("nc2w", convention, W.shape[-2] ** 2) * _distance_to_simplex(
        _product(W, np.swapaxes(W, -1, -2))
    )


def nc2m(W: Any, H: Any = None, labels: Any = None, convention: str = "code") -> Any:
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

    Examples
    --------
    >>> float(nc2m(np.eye(3), np.eye(3), np.arange(3)).round(12))
    0.0
    """
    H, labels = _features("nc2m", W, H, labels)
    W, M = _last_layer(W), class_means(H, labels)
    _same_shape("nc2m", W, M)
    return _prefactor("nc2m", convention, W.shape[-2] ** 2) * _distance_to_simplex(_product(W, M))


def nc3(W: Any, H: Any = None, labels: Any = None, convention: str = "code") -> Any:
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

    Examples
    --------
    >>> W = np.array([[1.0, 0.0], [-1.0, 0.0]])
    >>> float(nc3(W, 2 * W.T, np.array([0, 1])))
    0.0
    """
    H, labels = _features("nc3", W, H, labels)
    W, M = _last_layer(W), class_means(H, labels)
    _same_shape("nc3", W, M)
    difference = _unit(W) - np.swapaxes(_unit(M), -1, -2)
    return _prefactor("nc3", convention, W.shape[-2] * W.shape[-1]) * np.linalg.norm(
        difference, axis=(-2, -1)
    )
