r"""Gradient flow of one layer with squared error: logistic growth from aligned starts, and the two central-path laws.

**Aligned starts.** Mixon, Parshall and Pi (arXiv 2011.11619) take L = ||W H + b 1^T - Y||_F^2/2, which is ``MSE("sum")``
here, for C classes of n samples and no decay; with the average over C n samples their time t is C n times ours. They
call *strong neural collapse*

    W W^T = sqrt(n) (I - J/C),    H = n^(-1/2) W^T x 1_n^T,    b = 1/C,                                     (end)

a minimum with L = 0. On the invariant set {1^T W = 0, H as above, b = 1/C}, dW/dt = sqrt(n) W - W W^T W: eigenvectors of
W W^T stay, and its eigenvalues grow by

    g(t) = sqrt(n)/(1 + (sqrt(n)/g(0) - 1) exp(-2 sqrt(n) t)),   log(g/(sqrt(n) - g)) linear in t.           (flow)

At 0 (b = 1/C) directions with W = Hbar^T, class sums over sqrt(n), grow at the rate sqrt(n), W = -Hbar^T fall at it, b
falls at C n, and the rest is neutral at first order: deviations within a class do not decay, they are outgrown. Gradient
descent keeps the set too: a singular value a of W obeys a' = a (1 + eta (sqrt(n) - a^2)) exactly. With h = eta sqrt(n)
and p = g/sqrt(n) one step moves the log-odds by 2 h + delta,

    delta = 2 log(1 + h (1 - p)) - log(1 - 2 h p - h^2 p (1 - p)),  -2 h     -h^2 <= delta <= 2 h^2/(1 - 2 h)

for 0 < h < 1/2 and 0 < p < 1: defects add up and nothing amplifies them, so after time T the log-odds are within
2 h sqrt(n) T/(1 - 2 h) of the flow's. The end state is known from a summary of the paper; the rest was derived here.

**Central path.** Han, Papyan and Donoho (arXiv 2106.02073) take the average, L = mean ||W h + b - y||^2/2, keep W and b
at the least-squares solution for the features, and these at within-class covariance I. With omega_j the C - 1 singular
values of the centred class means, W_LS has omega/(C + omega^2) in their singular vectors and L = sum_j
1/(C + omega_j^2)/2. Two flows share this path:

    projected on the tangent space of {covariance = I}:  n C^2 log omega + n C omega^2 + n omega^4/4 = a_j + t
    the whole gradient, features whitened again:         n C (C log omega + omega^2/2)              = a_j + t

The published law is c1 log omega + c2 omega^2 + c3 omega^4 = a_j + t, known from a summary, without the constants: it
has the form of the first, omega ~ (4 t/n)^(1/4); the second has no omega^4, and omega ~ (2 t/(n C))^(1/2). Constants
of both were derived here. max omega/min omega -> 1 in either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ufm.checks import choice
from ufm.claims import Claim, Prediction, Source
from ufm.errors import UfmError
from ufm.initial import draw
from ufm.theory._recorded import finite_records

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ufm.run import Run

MIXON = "Mixon, Parshall, Pi, arXiv 2011.11619"
HAN = "Han, Papyan, Donoho, arXiv 2106.02073"

# ------------------------------------------------------------------ aligned starts, generic in their number type


def logistic(start: Any, time: Any, per_class: Any, xp: Any = np, shift: Any = 0) -> Any:
    """Eigenvalue g(t) of W W^T from g(0), in the time of the summed squared error.

    Parameters
    ----------
    start : float or ndarray
        g(0) > 0.
    time : float or ndarray
        t; C n times that of the averaged squared error.
    per_class : int
        n.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.
    shift : float or ndarray
        Added to the log-odds.

    Examples
    --------
    >>> logistic(1.0, 0.0, 4), round(logistic(1e-3, 4.0, 4), 6)
    (1.0, 1.999549)
    """
    full = xp.sqrt(per_class)
    return full / (1 + (full / start - 1) * xp.exp(-2 * full * time - shift))


def aligned_speed(g: Any, per_class: Any, xp: Any = np) -> Any:
    """dg/dt = 2 g (sqrt(n) - g); any number type."""
    return 2 * g * (xp.sqrt(per_class) - g)


def aligned_step(a: Any, lr: Any, per_class: Any, xp: Any = np) -> Any:
    """A singular value of W after one step of GD on the summed squared error, a (1 + eta (sqrt(n) - a^2)).

    Examples
    --------
    >>> aligned_step(1.0, 0.1, 4)
    1.1
    """
    return a * (1 + lr * (xp.sqrt(per_class) - a**2))


def log_odds(g: Any, per_class: Any, xp: Any = np) -> Any:
    """log(g/(sqrt(n) - g)), which the flow moves at the rate 2 sqrt(n)."""
    return xp.log(g / (xp.sqrt(per_class) - g))


def step_defect(h: Any, p: Any, xp: Any = np) -> Any:
    """What one step of GD moves the log-odds by beyond the flow's 2 h, at h = eta sqrt(n) and p = g/sqrt(n)."""
    return 2 * xp.log(1 + h * (1 - p)) - xp.log(1 - 2 * h * p - h**2 * p * (1 - p)) - 2 * h


def defect_limits(h: Any) -> tuple[Any, Any]:
    """Least and largest defect of a step for 0 < p < 1: -h^2 and 2 h^2/(1 - 2 h), 0 < h < 1/2; any number type.

    Examples
    --------
    >>> defect_limits(0.25)
    (-0.0625, 0.25)
    """
    return -(h**2), 2 * h**2 / (1 - 2 * h)


def rates_at_zero(classes: Any, per_class: Any, xp: Any = np) -> tuple[Any, Any, Any]:
    """Rates of the flow at W = 0, H = 0, b = 1/C: of growth, of decay, and of the bias, sqrt(n), -sqrt(n), -C n.

    Examples
    --------
    >>> [float(rate) for rate in rates_at_zero(3, 4)]
    [2.0, -2.0, -12.0]
    """
    return xp.sqrt(per_class), -xp.sqrt(per_class), -classes * per_class


def aligned_blocks(W: Any, per_class: int) -> dict[str, np.ndarray]:
    """W with the H and the b that make an aligned start, as arrays by block name.

    Parameters
    ----------
    W : array_like, shape (classes, width)
        Its row sum is taken out.
    per_class : int
        n.

    Examples
    --------
    >>> found = aligned_blocks([[1.0], [-1.0]], 4)
    >>> found["H"].tolist(), found["b"].tolist()
    ([[0.5, 0.5, 0.5, 0.5, -0.5, -0.5, -0.5, -0.5]], [0.5, 0.5])
    """
    W = np.asarray(W, dtype=float)
    W = W - W.mean(axis=0)
    return {
        "W": W,
        "H": np.repeat(W.T, per_class, axis=1) / np.sqrt(per_class),
        "b": np.full(len(W), 1 / len(W)),
    }


def recursion(start: np.ndarray, rates: np.ndarray, per_class: int) -> np.ndarray:
    """Singular values of W after every step of GD on the summed squared error, shape (steps + 1, modes)."""
    path = np.empty((len(rates) + 1, len(start)))
    path[0] = start
    with np.errstate(over="ignore", invalid="ignore"):
        for t, lr in enumerate(rates):
            path[t + 1] = aligned_step(path[t], lr, per_class)
    return path


# --------------------------------------------------------------------- central path, generic in their number type


def central_loss(omega: Any, classes: Any) -> Any:
    """Part of L on the central path that belongs to a singular value, 1/(C + omega^2)/2; any number type."""
    return 1 / (classes + omega**2) / 2


def least_squares_gain(omega: Any, classes: Any) -> Any:
    """Singular value omega/(C + omega^2) of the least-squares W; any number type."""
    return omega / (classes + omega**2)


def projected_constants(classes: Any, per_class: Any) -> tuple[Any, Any, Any]:
    """c1, c2, c3 = n C^2, n C, n/4 of the law of the projected gradient; any number type.

    Examples
    --------
    >>> projected_constants(4, 6)
    (96, 24, 1.5)
    """
    return per_class * classes**2, per_class * classes, per_class / 4


def projected_law(omega: Any, classes: Any, per_class: Any, xp: Any = np) -> Any:
    """c1 log omega + c2 omega^2 + c3 omega^4, which grows at the rate 1 under the projected gradient."""
    c1, c2, c3 = projected_constants(classes, per_class)
    return c1 * xp.log(omega) + c2 * omega**2 + c3 * omega**4


def rewhitened_law(omega: Any, classes: Any, per_class: Any, xp: Any = np) -> Any:
    """n C (C log omega + omega^2/2), which grows at the rate 1 where features are whitened after the whole gradient."""
    return per_class * classes * (classes * xp.log(omega) + omega**2 / 2)


def projected_speed(omega: Any, classes: Any, per_class: Any) -> Any:
    """d omega/dt = omega/(n (C + omega^2)^2): n samples share a mean, so it falls L at 1/n of its slope."""
    return omega / (per_class * (classes + omega**2) ** 2)


def rewhitened_speed(omega: Any, classes: Any, per_class: Any) -> Any:
    """d omega/dt = omega/(n C (C + omega^2)): whitening adds omega gain^2/(C n) to `projected_speed`."""
    return omega / (per_class * classes * (classes + omega**2))


DYNAMICS = ("projected", "rewhitened")


def central_path_velocity(H: np.ndarray, classes: int, dynamics: str = "projected") -> np.ndarray:
    """Velocity of whitened features on the central path, from matrices alone.

    Parameters
    ----------
    H : ndarray, shape (width, samples)
        Features with within-class covariance I, samples sorted by equal classes.
    classes : int
        C.
    dynamics : {"projected", "rewhitened"}
        Minus the gradient of L at the least-squares W and b, projected on the tangent space of {covariance = I}; or
        the whole of it, with the features whitened again.

    Returns
    -------
    ndarray, shape (width, samples)

    Raises
    ------
    InvalidProblemError
        For another name of the dynamics.
    """
    choice("central_path_velocity.dynamics", dynamics, DYNAMICS)
    samples = H.shape[1]
    Y = np.repeat(np.eye(classes), samples // classes, axis=1)
    centred, targets = H - H.mean(axis=1, keepdims=True), Y - 1 / classes
    W = np.linalg.solve(centred @ centred.T, centred @ targets.T).T
    velocity = -W.T @ (W @ centred - targets) / samples
    deviations = H - _class_means(H, classes)
    overlap = velocity @ deviations.T / samples
    symmetric = (overlap + overlap.T) / 2  # half the rate of the covariance
    # the normal space holds S times the deviations, S symmetric; whitening multiplies all features by 1 - S dt
    return velocity - symmetric @ (deviations if dynamics == "projected" else H)


def _class_means(H: np.ndarray, classes: int) -> np.ndarray:
    """Mean of its class in place of every sample."""
    grouped = H.reshape(len(H), classes, -1)
    return np.broadcast_to(grouped.mean(axis=2, keepdims=True), grouped.shape).reshape(H.shape)


def signal_to_noise(H: np.ndarray, classes: int) -> np.ndarray:
    """Singular values omega of the centred class means of whitened features, largest first, shape (C - 1,).

    Parameters are those of `central_path_velocity`.
    """
    means = H.reshape(len(H), classes, -1).mean(axis=2)
    return np.linalg.svd(means - means.mean(axis=1, keepdims=True), compute_uv=False)[: classes - 1]
