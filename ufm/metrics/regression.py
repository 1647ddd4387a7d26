"""Neural regression collapse of Andriopoulos et al., arXiv 2409.04180: NRC1, NRC2, NRC3 and its shift gamma."""

from __future__ import annotations

from typing import Any

import numpy as np

from ufm.checks import flag, real, whole
from ufm.errors import IncompatibleError, invalid
from ufm.losses import Regression
from ufm.metrics.inputs import (
    ALONE,
    RecordedFeatures,
    Source,
    is_trajectory,
    numbers,
    over_records,
    read_weights,
)
from ufm.metrics.means import scaled, unit
from ufm.metrics.spectra import finite_part
from ufm.theory.regression import normalised_root, unnormalised_gamma


def nrc1(H: Any, outputs: int | None = None, *, centred: bool = False) -> Any:
    """Mean squared part of the unit features outside the span of the first n principal components of the features.

    Parameters
    ----------
    H : Trajectory, or ndarray of shape (..., width, M)
        Features; components are those of the features minus their mean over samples.
    outputs : int, optional
        Number n of outputs, needed with an array.
    centred : bool
        Unit features are h/||h|| as printed, or (h - mean)/||h - mean|| as in later work.

    Returns
    -------
    ndarray or float, shape (...)
        In [0, 1], 0 for width <= n; nan where the run diverged or a feature is 0. Rotations and the scale of H leave it
        unchanged, and with `centred` shifts too.

    Raises
    ------
    InvalidProblemError, IncompatibleError
        Without a number of outputs, or for a run of a classification.

    Examples
    --------
    >>> H = np.array([[1.0, -1.0, 1.0, -1.0], [0.5, 0.5, -0.5, -0.5]])
    >>> round(float(nrc1(H, outputs=1)), 12)
    0.2
    """
    features, count = _read_features("nrc1", H, outputs)
    centred = flag("nrc1.centred", centred)

    def outside(H: np.ndarray) -> np.ndarray:
        H = scaled(H)
        moved = H - H.mean(axis=-1, keepdims=True)
        finite, good = finite_part(moved)
        components = np.linalg.svd(finite, full_matrices=False)[0][..., :count]
        return np.where(good, _outside(moved if centred else H, components), np.nan)

    return over_records(outside, features)


def nrc2(W: Any, H: Any = None, *, centred: bool = False) -> Any:
    """Mean squared part of the unit features outside the span of the rows of W.

    Parameters
    ----------
    W : Trajectory, or ndarray of shape (..., n, width)
        Last-layer weights; singular values up to max(n, width) 2^-52 of the largest count as 0.
    H : ndarray of shape (..., width, M)
        Features, with arrays.
    centred : bool
        As in `nrc1`.

    Returns
    -------
    ndarray or float, shape (...)
        In [0, 1]; 1 at W = 0, nan where the run diverged or a feature is 0. Unchanged by rotations, the scales of W and
        H, and any change of basis of the outputs.

    Raises
    ------
    InvalidProblemError
        For arrays that do not fit, or beside a trajectory.

    Examples
    --------
    >>> round(float(nrc2([[2.0, 0.0]], [[3.0, 0.0], [4.0, 1.0]])), 12)
    0.82
    """
    if is_trajectory(W):
        if H is not None:
            raise invalid("nrc2", "trajectory and arrays", ALONE)
        features, _ = _read_features("nrc2", W, None)
    else:
        features = _matrix("nrc2.H", H, "(..., width, M)")
    weights = read_weights("nrc2", W)
    if weights.shape[-1] != features.shape[-2]:
        raise invalid("nrc2.W.shape", weights.shape, f"(..., outputs, {features.shape[-2]}), the width of H")
    centred = flag("nrc2.centred", centred)

    def outside(W: np.ndarray, H: np.ndarray) -> np.ndarray:
        finite, good = finite_part(scaled(W))
        _, values, rows = np.linalg.svd(finite, full_matrices=False)
        cutoff = max(W.shape[-2:]) * 2.0**-52 * values[..., :1]
        rows = np.where((values > cutoff)[..., None], rows, 0.0)
        H = scaled(H)
        H = H - H.mean(axis=-1, keepdims=True) if centred else H
        return np.where(good, _outside(H, rows.swapaxes(-1, -2)), np.nan)

    return over_records(outside, weights, features)


def nrc3(W: Any, targets: Any = None, gamma: float | None = None) -> Any:
    """||W W^T/||W W^T||_F - A/||A||_F||_F^2 with A = Sigma^{1/2} - sqrt(gamma) I, Sigma the covariance of the targets.

    Parameters
    ----------
    W : Trajectory, or ndarray of shape (..., n, width)
        Last-layer weights.
    targets : array_like, shape (n, M)
        With arrays; a trajectory has its own. Sigma is centred, but for a trajectory without bias, whose optimum
        follows Y Y^T/M.
    gamma : float, optional
        c = M lam_H lam_W for a UFM; by default the best one for the last of the matrices (for a trajectory, at the end
        of the run), see `nrc3_gamma`.

    Returns
    -------
    ndarray or float, shape (...)
        In [0, 4]. With one output 0 where gamma lies below the variance, whatever W; nan at W = 0 and for constant
        targets.

    Notes
    -----
    Zero at gamma = c at every optimum with c below the smallest eigenvalue, for any l_W and l_H.

    Examples
    --------
    >>> Y = np.array([[2.0, -2.0, 0.0, 0.0], [0.0, 0.0, 1.0, -1.0]])
    >>> W = np.diag(np.sqrt([2**0.5 - 0.1, 0.5**0.5 - 0.1]))
    >>> float(nrc3(W, Y, gamma=0.01).round(12)), float(nrc3(W, Y).round(12))
    (0.0, 0.0)
    """
    weights, root = _read_both("nrc3", W, targets)
    shift = float(np.sqrt(_gamma("nrc3.gamma", gamma, weights, root)))
    with np.errstate(all="ignore"):
        A = unit(root - shift * np.eye(len(root)))

    def distance(W: np.ndarray) -> np.ndarray:
        W = scaled(W)
        square: np.ndarray = ((unit(W @ W.swapaxes(-1, -2)) - A) ** 2).sum(axis=(-2, -1))
        return square

    return over_records(distance, weights, largest=root.shape)


def nrc3_gamma(W: Any, targets: Any = None, *, normalised: bool = True) -> float:
    """The gamma at which NRC3 of the last of the matrices is smallest, between 0 and the smallest eigenvalue.

    Parameters
    ----------
    W, targets
        As for `nrc3`.
    normalised : bool
        False takes ||W W^T - A||_F^2 without normalisation: ((tr Sigma^{1/2} - tr W W^T)/n)^2, or 0 where that trace
        difference is negative. At an optimum it is c only if l_W = l_H.

    Returns
    -------
    float
        nan where the normalised distance does not depend on gamma, as with one output and wherever Sigma is a multiple
        of I; at W = 0, or after divergence.

    Raises
    ------
    InvalidProblemError
        For arrays that do not fit, or a `normalised` that is not True or False.

    Examples
    --------
    >>> Y = np.array([[2.0, -2.0, 0.0, 0.0], [0.0, 0.0, 1.0, -1.0]])
    >>> W = np.diag(np.sqrt([2**0.5 - 0.1, 0.5**0.5 - 0.1]))
    >>> round(nrc3_gamma(W, Y), 12), round(nrc3_gamma(2 * W, Y), 12), nrc3_gamma(2 * W, Y, normalised=False)
    (0.01, 0.01, 0.0)
    """
    weights, root = _read_both("nrc3_gamma", W, targets)
    return _fitted(weights, root, flag("nrc3_gamma.normalised", normalised))


# --------------------------------------------------------------------------------------------------- reading


def _problem(where: str, trajectory: Any) -> Any:
    """The regression that a trajectory is of."""
    problem = trajectory.problem
    if not isinstance(problem.loss, Regression):
        raise IncompatibleError(f"{where}: the problem is {problem!r}; allowed: a RegressionUFM.")
    return problem


def _matrix(where: str, value: Any, shape: str) -> np.ndarray:
    array = numbers(where, value)
    if array.ndim < 2 or 0 in array.shape[-2:]:
        raise invalid(f"{where}.shape", array.shape, f"{shape}, both at least 1")
    return array


def _read_features(where: str, H: Any, outputs: Any) -> tuple[Source, int]:
    """Features and the number of outputs."""
    if is_trajectory(H):
        if outputs is not None:
            raise invalid(f"{where}.outputs", outputs, "None with a trajectory, which has its own")
        return RecordedFeatures(H, None), _problem(where, H).classes
    return _matrix(f"{where}.H", H, "(..., width, M)"), whole(f"{where}.outputs", outputs)


def _read_both(where: str, W: Any, targets: Any) -> tuple[np.ndarray, np.ndarray]:
    """Weights, and the root of the covariance of the targets, shape (n, n)."""
    centred = True
    if is_trajectory(W):
        if targets is not None:
            raise invalid(where, "trajectory and arrays", ALONE)
        problem = _problem(where, W)
        targets, centred = problem.targets, problem.bias
    weights = read_weights(where, W)
    Y = _matrix(f"{where}.targets", targets, "(outputs, samples)").astype(np.float64)
    if Y.ndim != 2 or not np.isfinite(Y).all():
        raise invalid(
            f"{where}.targets", f"an array of shape {Y.shape}", "a finite matrix of outputs x samples"
        )
    if weights.shape[-2] != len(Y):
        raise invalid(f"{where}.W.shape", weights.shape, f"(..., {len(Y)}, width), a row for each output")
    if centred:
        Y = Y - Y.mean(axis=1, keepdims=True)
    U, values, _ = np.linalg.svd(Y, full_matrices=False)
    return weights, (U * values / np.sqrt(Y.shape[1])) @ U.T


# ------------------------------------------------------------------------------------------------- computing


def _outside(H: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Mean over columns of the squared part of h/||h|| outside the span of an orthonormal basis."""
    H = H / np.linalg.norm(H, axis=-2, keepdims=True)
    rest = H - basis @ (basis.swapaxes(-1, -2) @ H)
    mean: np.ndarray = (rest**2).sum(axis=-2).mean(axis=-1)
    return mean


def _gamma(where: str, gamma: Any, weights: np.ndarray, root: np.ndarray) -> float:
    if gamma is not None:
        return real(where, gamma, 0.0)
    # the distance is then the same for every gamma below the smallest eigenvalue
    return 0.0 if _is_scalar(root) else _fitted(weights, root, True)


def _is_scalar(root: np.ndarray) -> bool:
    """Whether a symmetric matrix is a multiple of I to round-off, as it is with one output."""
    n = len(root)
    apart = root - np.trace(root) / n * np.eye(n)
    return bool(np.linalg.norm(apart) <= 8 * n * np.finfo(np.float64).eps * np.linalg.norm(root))


def _fitted(weights: np.ndarray, root: np.ndarray, normalised: bool) -> float:
    matrices = weights.reshape(-1, *weights.shape[-2:])
    if not len(matrices):
        return float("nan")
    W = matrices[-1].astype(np.float64)
    n, root_trace = len(root), float(np.trace(root))
    smallest = float(np.linalg.eigvalsh(root)[0])
    with np.errstate(all="ignore"):
        if not normalised:
            gram_trace = float(np.sum(W**2))
            if not np.isfinite(gram_trace):
                return float("nan")
            return unnormalised_gamma(root_trace, gram_trace, n) if gram_trace < root_trace else 0.0
        P = unit(scaled(W) @ scaled(W).T)
        if _is_scalar(root) or not np.isfinite(P).all():
            return float("nan")
        # numbers of numpy: at a P in the direction of I the quotient is infinite and no candidate
        stationary = normalised_root(np.sum(P * root), np.trace(P), np.sum(root**2), root_trace, n)

    def distance(shift: float) -> float:
        with np.errstate(all="ignore"):
            return float(((P - unit(root - shift * np.eye(n))) ** 2).sum())

    between = [shift for shift in (stationary,) if 0 < shift < smallest]
    return float(min((*between, 0.0, max(smallest, 0.0)), key=distance)) ** 2
