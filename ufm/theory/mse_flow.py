r"""Gradient flow of one layer with squared error: logistic growth from aligned starts, and the two central-path laws.

**Aligned starts.** Mixon, Parshall and Pi (arXiv 2011.11619) take L = ||W H + b 1^T - Y||_F^2/2, here ``MSE("sum")``,
for C classes of n samples and no decay; under the average over C n samples their time t is reached at C n t. They call
*strong neural collapse*

    W W^T = sqrt(n) (I - J/C),    H = n^(-1/2) W^T x 1_n^T,    b = 1/C,                                     (end)

a minimum with L = 0. On the invariant set {1^T W = 0, H as above, b = 1/C}, dW/dt = sqrt(n) W - W W^T W: eigenvectors
of W W^T stay, and its eigenvalues grow by

    g(t) = sqrt(n)/(1 + (sqrt(n)/g(0) - 1) exp(-2 sqrt(n) t)),   log(g/(sqrt(n) - g)) linear in t.           (flow)

At 0 (b = 1/C) directions with W = Hbar^T, class sums over sqrt(n), grow at the rate sqrt(n), W = -Hbar^T fall at it,
b - 1/C falls at C n, and the rest is neutral at first order: deviations within a class do not decay, they are
outgrown. Gradient descent keeps the set too: a singular value a of W obeys a' = a (1 + eta (sqrt(n) - a^2)) exactly.
With h = eta sqrt(n) and p = g/sqrt(n) one step moves the log-odds by 2 h + delta,

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
from ufm.losses import MSE
from ufm.normalisation import other_features
from ufm.optimizers import GD
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
    start : number or ndarray, shape (...)
        g(0) > 0.
    time : number or ndarray, shape (...)
        t; C n times that of the averaged squared error.
    per_class : int
        n.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.
    shift : number or ndarray, shape (...)
        Added to the log-odds.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> float(logistic(1.0, 0.0, 4)), round(float(logistic(1e-3, 4.0, 4)), 6)
    (1.0, 1.99955)
    """
    full = xp.sqrt(per_class)
    return full / (1 + (full / start - 1) * xp.exp(-2 * full * time - shift))


def aligned_speed(g: Any, per_class: Any, xp: Any = np) -> Any:
    """dg/dt = 2 g (sqrt(n) - g); any number type.

    Parameters
    ----------
    g : number or ndarray, shape (...)
        Eigenvalue of W W^T in (0, sqrt(n)).
    per_class : int or symbol
        Samples n per class.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> float(aligned_speed(1.0, 4))
    2.0
    """
    return 2 * g * (xp.sqrt(per_class) - g)


def aligned_step(a: Any, lr: Any, per_class: Any, xp: Any = np) -> Any:
    """A singular value of W after one step of GD on the summed squared error, a (1 + eta (sqrt(n) - a^2)).

    Parameters
    ----------
    a : number or ndarray, shape (...)
        Singular value of W.
    lr : number or ndarray, shape (...)
        Learning rate eta.
    per_class : int or symbol
        Samples n per class.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> float(aligned_step(1.0, 0.1, 4))
    1.1
    """
    return a * (1 + lr * (xp.sqrt(per_class) - a**2))


def log_odds(g: Any, per_class: Any, xp: Any = np) -> Any:
    """log(g/(sqrt(n) - g)), which the flow moves at the rate 2 sqrt(n).

    Parameters
    ----------
    g : number or ndarray, shape (...)
        Eigenvalue of W W^T in (0, sqrt(n)).
    per_class : int or symbol
        Samples n per class.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> float(log_odds(1.0, 4))
    0.0
    """
    return xp.log(g / (xp.sqrt(per_class) - g))


def step_defect(h: Any, p: Any, xp: Any = np) -> Any:
    """What one step of GD moves the log-odds by beyond the flow's 2 h, at h = eta sqrt(n) and p = g/sqrt(n).

    Parameters
    ----------
    h, p : number or ndarray, shape (...)
        eta sqrt(n), g/sqrt(n).
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> round(float(step_defect(0.1, 0.5)), 6)
    0.005722
    """
    return 2 * xp.log(1 + h * (1 - p)) - xp.log(1 - 2 * h * p - h**2 * p * (1 - p)) - 2 * h


def defect_limits(h: Any) -> tuple[Any, Any]:
    """Least and largest defect of a step for 0 < p < 1: -h^2 and 2 h^2/(1 - 2 h), 0 < h < 1/2; any number type.

    Parameters
    ----------
    h : number or ndarray, shape (...)
        eta sqrt(n).

    Returns
    -------
    least, largest : number or ndarray, shape (...)

    Examples
    --------
    >>> defect_limits(0.25)
    (-0.0625, 0.25)
    """
    return -(h**2), 2 * h**2 / (1 - 2 * h)


def rates_at_zero(classes: Any, per_class: Any, xp: Any = np) -> tuple[Any, Any, Any]:
    """Rates of the flow at W = 0, H = 0, b = 1/C: of growth, of decay, and of the bias, sqrt(n), -sqrt(n), -C n.

    Parameters
    ----------
    classes, per_class : int or symbol
        Number C of classes, samples n per class.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    growth, decay, bias : number

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

    Returns
    -------
    dict of str to ndarray
        Of shapes (classes, width), (width, samples) and (classes,).

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
    """Singular values of W after every step of GD on the summed squared error, shape (steps + 1, modes).

    Parameters
    ----------
    start : ndarray, shape (modes,)
        Singular values of W.
    rates : ndarray, shape (steps,)
        Learning rates of the summed squared error.
    per_class : int
        N.

    Returns
    -------
    ndarray, shape (steps + 1, modes)

    Examples
    --------
    >>> recursion(np.array([1.0]), np.array([0.1, 0.1]), 4).round(4).tolist()
    [[1.0], [1.1], [1.1869]]
    """
    path = np.empty((len(rates) + 1, len(start)))
    path[0] = start
    with np.errstate(over="ignore", invalid="ignore"):
        for t, lr in enumerate(rates):
            path[t + 1] = aligned_step(path[t], lr, per_class)
    return path


# --------------------------------------------------------------------- central path, generic in their number type


def central_loss(omega: Any, classes: Any) -> Any:
    """Part of L on the central path that belongs to a singular value, 1/(C + omega^2)/2; any number type.

    Parameters
    ----------
    omega : number or ndarray, shape (...)
        Singular value of the centred class means, > 0.
    classes : int or symbol
        Number C of classes.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> central_loss(2.0, 4)
    0.0625
    """
    return 1 / (classes + omega**2) / 2


def least_squares_gain(omega: Any, classes: Any) -> Any:
    """Singular value omega/(C + omega^2) of the least-squares W; any number type.

    Parameters
    ----------
    omega : number or ndarray, shape (...)
        Singular value of the centred class means, > 0.
    classes : int or symbol
        Number C of classes.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> least_squares_gain(2.0, 4)
    0.25
    """
    return omega / (classes + omega**2)


def projected_constants(classes: Any, per_class: Any) -> tuple[Any, Any, Any]:
    """c1, c2, c3 = n C^2, n C, n/4 of the law of the projected gradient; any number type.

    Parameters
    ----------
    classes, per_class : int or symbol
        Number C of classes, samples n per class.

    Returns
    -------
    c1, c2, c3 : number

    Examples
    --------
    >>> projected_constants(4, 6)
    (96, 24, 1.5)
    """
    return per_class * classes**2, per_class * classes, per_class / 4


def projected_law(omega: Any, classes: Any, per_class: Any, xp: Any = np) -> Any:
    """c1 log omega + c2 omega^2 + c3 omega^4, which grows at the rate 1 under the projected gradient.

    Parameters
    ----------
    omega : number or ndarray, shape (...)
        Singular value of the centred class means, > 0.
    classes, per_class : int or symbol
        Number C of classes, samples n per class.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> float(projected_law(1.0, 4, 6))
    25.5
    """
    c1, c2, c3 = projected_constants(classes, per_class)
    return c1 * xp.log(omega) + c2 * omega**2 + c3 * omega**4


def rewhitened_law(omega: Any, classes: Any, per_class: Any, xp: Any = np) -> Any:
    """n C (C log omega + omega^2/2), which grows at the rate 1 where features are whitened after the whole gradient.

    Parameters
    ----------
    omega : number or ndarray, shape (...)
        Singular value of the centred class means, > 0.
    classes, per_class : int or symbol
        Number C of classes, samples n per class.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> float(rewhitened_law(1.0, 4, 6))
    12.0
    """
    return per_class * classes * (classes * xp.log(omega) + omega**2 / 2)


def projected_speed(omega: Any, classes: Any, per_class: Any) -> Any:
    """d omega/dt = omega/(n (C + omega^2)^2): n samples share a mean, so it falls L at 1/n of its slope.

    Parameters
    ----------
    omega : number or ndarray, shape (...)
        Singular value of the centred class means, > 0.
    classes, per_class : int or symbol
        Number C of classes, samples n per class.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> projected_speed(2.0, 4, 2)
    0.015625
    """
    return omega / (per_class * (classes + omega**2) ** 2)


def rewhitened_speed(omega: Any, classes: Any, per_class: Any) -> Any:
    """d omega/dt = omega/(n C (C + omega^2)): whitening adds omega gain^2/(C n) to `projected_speed`.

    Parameters
    ----------
    omega : number or ndarray, shape (...)
        Singular value of the centred class means, > 0.
    classes, per_class : int or symbol
        Number C of classes, samples n per class.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> rewhitened_speed(2.0, 4, 2)
    0.03125
    """
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

    Examples
    --------
    >>> H = np.array([[3.0, 1.0, -1.0, -3.0]])  # means 2 and -2, variance 1 inside each class
    >>> central_path_velocity(H, classes=2).round(6).tolist()
    [[0.01, 0.01, -0.01, -0.01]]
    """
    choice("central_path_velocity.dynamics", dynamics, DYNAMICS)
    samples = H.shape[1]
    Y = np.repeat(np.eye(classes), samples // classes, axis=1)
    centred, targets = H - H.mean(axis=1, keepdims=True), Y - 1 / classes
    W = np.linalg.solve(centred @ centred.T, centred @ targets.T).T
    velocity: np.ndarray = -W.T @ (W @ centred - targets) / samples
    deviations = H - _class_means(H, classes)
    overlap = velocity @ deviations.T / samples
    symmetric = (overlap + overlap.T) / 2  # half the rate of the covariance
    # the normal space holds S times the deviations, S symmetric; whitening multiplies all features by 1 - S dt
    velocity -= symmetric @ (deviations if dynamics == "projected" else H)
    return velocity


def _class_means(H: np.ndarray, classes: int) -> np.ndarray:
    """Mean of its class in place of every sample."""
    grouped = H.reshape(len(H), classes, -1)
    return np.broadcast_to(grouped.mean(axis=2, keepdims=True), grouped.shape).reshape(H.shape)


def signal_to_noise(H: np.ndarray, classes: int) -> np.ndarray:
    """Singular values omega of the centred class means of whitened features, largest first, shape (C - 1,).

    Parameters are those of `central_path_velocity`.

    Parameters
    ----------
    H : ndarray, shape (width, samples)
        Features with within-class covariance I, samples sorted by equal classes.
    classes : int
        C.

    Returns
    -------
    ndarray, shape (C - 1,)

    Examples
    --------
    >>> signal_to_noise(np.array([[3.0, 1.0, -1.0, -3.0]]), classes=2).round(6).tolist()
    [2.828427]
    """
    means = H.reshape(len(H), classes, -1).mean(axis=2)
    return np.linalg.svd(means - means.mean(axis=1, keepdims=True), compute_uv=False)[: classes - 1]


# ------------------------------------------------------------------------------- hypotheses about runs

ALIGNED = 2.0**-46  # relative distance from the aligned set that counts as round-off of the start
LOST = 1e-3  # share of the largest value beyond which deviations count no longer as small
WRONG_RATES = 1e-6  # relative error of all learning rates that the recursion's control carries


class AlignedStart(NamedTuple):
    """The aligned state nearest to a start, by the singular vectors of W.

    Parameters
    ----------
    left : ndarray, shape (classes, modes)
        Left singular vectors of W.
    values : ndarray, shape (modes,)
        Singular values of W, largest first.
    right : ndarray, shape (modes, width)
        Right singular vectors of W.
    distance : float
        To the start, over all blocks, round-off of these vectors included.

    Examples
    --------
    >>> AlignedStart(np.ones((2, 1)) / 2**0.5, np.array([1.0]), np.ones((1, 1)), 0.0).values.tolist()
    [1.0]
    """

    left: np.ndarray  # shape (classes, modes)
    values: np.ndarray  # singular values of W, largest first, shape (modes,)
    right: np.ndarray  # shape (modes, width)
    distance: float  # to the start, over all blocks, round-off of these vectors included


def start_of(run: Run) -> AlignedStart:
    """Aligned state beside the start of a run; the values that round-off alone has made count as 0.

    Parameters
    ----------
    run : Run
        With squared error and one layer.

    Returns
    -------
    AlignedStart

    Raises
    ------
    InvalidProblemError, IncompatibleError
        For a start that cannot be drawn.

    Examples
    --------
    >>> import ufm
    >>> from ufm.run import Run
    >>> problem = ufm.UFM(2, 1, loss="mse", bias=True)
    >>> start = ufm.Given(**aligned_blocks([[0.5], [-0.5]], 1))
    >>> start_of(Run(problem, ufm.GD(0.1), None, start)).values.round(6).tolist()
    [0.707107]
    """
    problem = run.problem
    given = problem.unpack(problem.pack(draw(problem, run.init, run.seed)))
    blocks = aligned_blocks(given["W"], problem.class_sizes[0])
    left, values, right = np.linalg.svd(blocks["W"], full_matrices=False)
    kept = values > max(blocks["W"].shape) * np.finfo(float).eps * values.max(initial=0.0)
    distance = sum(float(np.linalg.norm(given[name] - block)) for name, block in blocks.items())
    distance += 8 * max(blocks["W"].shape) * np.finfo(float).eps * float(np.linalg.norm(values))
    return AlignedStart(left[:, kept], values[kept], right[kept], distance)


def _not_aligned(run: Run) -> str | None:
    """Why a run is not one of a few scalars by mode, or None."""
    problem = run.problem
    reason = other_features(problem)
    if reason is not None:
        return reason
    if not isinstance(problem.loss, MSE):
        return f"the loss is {problem.loss.name}, not the squared error to one-hot targets"
    if problem.depth > 1:
        return f"there are {problem.depth} layers, and aligned starts are those of one"
    if not problem.bias:
        return "there is no bias, and aligned starts hold it at 1/C"
    if problem.frozen_values:
        return f"{', '.join(problem.frozen_values)} is frozen, and every block must be trained"
    if len(set(problem.class_sizes)) > 1:
        return f"classes have {problem.class_sizes} samples, and aligned starts need equal ones"
    if any(run.coupled.values()) or any(run.decoupled.values()):
        return f"the decay is {run.decay!r}, and the law is that without decay"
    if type(run.optimizer) is not GD:
        return f"{type(run.optimizer).__name__} steps; the recursion is that of GD"
    if run.in_batches:
        return f"batches hold {run.batch} of {problem.samples} samples, and the law needs the whole gradient"
    if run.dtype != "float64":
        return f"the run is in {run.dtype}; the recursion is evaluated in float64"
    try:
        found = start_of(run)
    except UfmError as error:
        return f"the start cannot be drawn: {error}"
    size = float(np.linalg.norm(found.values))
    if not found.distance <= ALIGNED * (size + 1):
        return f"the start {run.init!r} is {found.distance:.2g} away from 1^T W = 0, H = W^T x 1^T/sqrt(n), b = 1/C"
    if not size:
        return "the start is W = 0, which does not move"
    return None


def _beyond_the_flow(run: Run) -> str | None:
    reason = _not_aligned(run)
    if reason is not None:
        return reason
    full, largest = np.sqrt(run.problem.class_sizes[0]), float(start_of(run).values[0] ** 2)
    if not largest < full:
        return f"an eigenvalue of W W^T starts at {largest:.6g}, and the law bounds those below sqrt(n) = {full:.6g}"
    if run.steps is None and not isinstance(run.optimizer.lr, float):
        return "the rates of a schedule need the number of steps"
    rates = np.array([run.optimizer.lr]) if run.steps is None else run.rates
    h = full * float(np.max(rates, initial=0.0)) / _divisor(run)
    if not h < 0.5:
        return f"a step moves the log-odds by 2 h with h = {h:.6g}, and the bound needs h < 1/2"
    return None


def _divisor(run: Run) -> int:
    """What the squared error is divided by: N where it is averaged, else 1."""
    return run.problem.samples if run.problem.loss.reduction == "mean" else 1


# ------------------------------------------------------------------------------- predictions about runs


def round_off_bound(
    path: np.ndarray, rates: np.ndarray, classes: int, width: int, per_class: int, distance: float
) -> np.ndarray:
    """How far round-off may take the state (Frobenius norm) from the recursion at each step, shape (steps + 1,).

    A deviation E obeys E' = ||I - eta Hess|| E + local to first order. With R the residual, the Hessian of the summed
    squared error lies between -||R|| and ||W||^2 + ||H||^2 + N + ||R||, ||W|| = ||H|| = max a and ||R|| =
    max |sqrt(n) - a^2| over all C - 1 modes. A product of two matrices over m terms is off by at most m eps times
    the product of their Frobenius norms; `local` sums these over one pass, and the rounding of the update.
    Infinite from where E exceeds the share `LOST` of the largest singular value.

    Parameters
    ----------
    path : ndarray, shape (steps + 1, modes)
        Singular values of W from `recursion`.
    rates : ndarray, shape (steps,)
        Learning rates of the summed squared error.
    classes, width, per_class : int
        C, d, n.
    distance : float
        Of the start from the aligned state.

    Returns
    -------
    ndarray, shape (steps + 1,)

    Examples
    --------
    >>> path = recursion(np.array([0.1]), np.full(3, 0.01), 4)
    >>> bound = round_off_bound(path, np.full(3, 0.01), classes=2, width=1, per_class=4, distance=0.0)
    >>> bound.shape, bool((bound < 1e-14).all())
    ((4,), True)
    """
    eps, N, full = np.finfo(float).eps, classes * per_class, np.sqrt(per_class)
    padded = np.concatenate([path, np.zeros((len(path), classes - 1 - path.shape[1]))], axis=1)
    with np.errstate(over="ignore", invalid="ignore"):
        top, norm = path.max(axis=1), np.linalg.norm(path, axis=1)
        residual = np.abs(full - padded**2).max(axis=1)
        residual_norm = np.linalg.norm(full - padded**2, axis=1)
        in_residual = eps * ((width + 3) * norm**2 + 3 * np.sqrt(N))
        in_gradient = eps * (2 * N + classes) * residual_norm * (norm + 1)
        in_gradient += in_residual * (2 * top + np.sqrt(N))
        growth = np.maximum(1 + rates * residual[:-1], rates * (2 * top**2 + N + residual)[:-1] - 1)
        local = 2 * eps * (np.sqrt(2) * norm + 1)[1:] + rates * in_gradient[:-1]
        found = np.empty(len(path))
        found[0] = distance
        for t in range(len(rates)):
            found[t + 1] = growth[t] * found[t] + local[t]
        lost = ~(found <= LOST * np.maximum.accumulate(top))
    return np.where(np.logical_or.accumulate(lost), np.inf, found)


class _Paths(NamedTuple):
    """Recursion of a run at its finite records, and what it may be off by."""

    kept: np.ndarray  # records
    rates: np.ndarray  # of the summed squared error, up to the last record
    steps: np.ndarray
    start: AlignedStart
    path: np.ndarray  # shape (steps + 1, modes)
    bound: np.ndarray  # of the state, shape (records,)


def _paths(run: Run, error: float = 0.0) -> _Paths:
    """All of it, with all learning rates multiplied by 1 + error."""
    assert run.trajectory is not None
    kept, problem, start = finite_records(run), run.problem, start_of(run)
    steps = np.asarray(run.trajectory.steps)[kept]
    rates = run.rates[: steps.max(initial=0)] * (1 + error) / _divisor(run)
    n = problem.class_sizes[0]
    path = recursion(start.values, rates, n)
    bound = round_off_bound(path, rates, problem.classes, problem.widths[0], n, start.distance)
    return _Paths(kept, rates, steps, start, path, bound[steps])


def _recursion_prediction(run: Run, error: float = 0.0) -> Prediction:
    quantity = "W_t, H_t and b_t, against a' = a (1 + eta (sqrt(n) - a^2))"
    found, n = _paths(run, error), run.problem.class_sizes[0]
    assert run.trajectory is not None
    if not len(found.kept):
        return Prediction(quantity, np.zeros(0), np.zeros(0), np.zeros(0))
    observed = run.trajectory.states[found.kept]
    W = (found.start.left * found.path[found.steps][:, None, :]) @ found.start.right
    H = np.repeat(np.swapaxes(W, 1, 2), n, axis=2) / np.sqrt(n)
    blocks: Mapping[str, np.ndarray] = {
        "H": H,
        run.problem.last: W,
        "b": np.full((len(W), W.shape[1]), 1 / W.shape[1]),
    }
    predicted = np.concatenate([blocks[name].reshape(len(W), -1) for name in run.problem.trained], axis=1)
    return Prediction(quantity, predicted, observed, found.bound)


def _wrong_recursion(run: Run) -> Prediction:
    return _recursion_prediction(run, WRONG_RATES)


def _flow_prediction(run: Run, speed: float = 1.0) -> Prediction:
    """Eigenvalues of W W^T against the law at `speed` times its time."""
    found, n = _paths(run), run.problem.class_sizes[0]
    assert run.trajectory is not None
    projected = np.swapaxes(run.trajectory["W"][found.kept], 1, 2) @ found.start.left
    observed = (projected**2).sum(axis=1)
    limits = defect_limits(found.rates * np.sqrt(n))
    times, below, above = (
        np.concatenate([[0.0], np.cumsum(part)])[found.steps][:, None] for part in (found.rates, *limits)
    )
    g = found.start.values**2
    predicted, least, most = (
        logistic(g, speed * times, n, shift=shift) for shift in (np.zeros_like(below), below, above)
    )
    steps = np.maximum(most - predicted, predicted - least).max(axis=1)
    top = found.path[found.steps].max(axis=1)
    round_off = (2 * top + found.bound) * found.bound + 8 * len(g) * np.finfo(float).eps * (
        top**2 + np.sqrt(n)
    )
    return Prediction(
        "eigenvalues of W W^T, against the logistic law", predicted, observed, steps + round_off
    )


def _wrong_flow(run: Run) -> Prediction:
    return _flow_prediction(run, 0.5)


# ------------------------------------------------------------------------------------------------- claims

CLAIMS = (
    Claim(
        name="mixon2020.strong_nc",
        statement=(
            "||W H + b 1^T - Y||^2/2 without decay: W W^T = sqrt(n) (I - J/C), H = W^T x 1^T/sqrt(n), b = 1/C is a "
            "minimum with L = 0; the set {1^T W = 0, H = W^T x 1^T/sqrt(n), b = 1/C} is invariant, with dW/dt = "
            "sqrt(n) W - W W^T W; at 0 the rates are sqrt(n) and -sqrt(n) (C - 1 times the width each), -C n for b, "
            "and 0 for all else: within-class deviations do not decay."
        ),
        source=Source(MIXON, "strong neural collapse; dynamics derived here", "known from a summary"),
        room="mse_flow",
        figure="mse_flow",
        layers={
            "symbolic": "proved for C = 2, 3: invariance and end state with symbolic entries, rates at 0 for n = 1..3",
            "simulation": "flows from small random starts end there (measured)",
        },
    ),
    Claim(
        name="ufm.aligned_recursion",
        statement=(
            "From such an aligned start GD keeps it at every step, with the singular vectors of W: each singular value "
            "obeys a' = a (1 + eta (sqrt(n) - a^2)) exactly, eta divided by N for the averaged squared error."
        ),
        source=Source(MIXON, "discrete counterpart of its invariant set", "derived here"),
        room="mse_flow",
        figure="mse_flow",
        layers={
            "symbolic": "proved for C = 2, 3 with symbolic entries of W and symbolic eta",
            "simulation": "every entry of W, H and b within a first-order round-off bound (round_off_bound)",
        },
        applies=_not_aligned,
        predict=_recursion_prediction,
        control=_wrong_recursion,
        rank=1,
    ),
    Claim(
        name="ufm.logistic_flow",
        statement=(
            "Flow from an aligned start: eigenvalues of W W^T are g(t) = sqrt(n)/(1 + (sqrt(n)/g(0) - 1) "
            "exp(-2 sqrt(n) t)). GD with h = eta sqrt(n) < 1/2 from 0 < g < sqrt(n) is off in log(g/(sqrt(n) - g)) by "
            "a sum over its steps of defects between -h^2 and 2 h^2/(1 - 2 h), hence O(eta) at a fixed time."
        ),
        source=Source(MIXON, "dynamics on its invariant set; bound of the steps", "derived here"),
        room="mse_flow",
        figure="mse_flow",
        layers={
            "symbolic": "law proved for symbolic n; defects exact, their limits proved for all h < 1/2 and 0 < p < 1",
            "simulation": "each eigenvalue at every record within the sum of the limits, and round-off",
        },
        applies=_beyond_the_flow,
        predict=_flow_prediction,
        control=_wrong_flow,
    ),
    Claim(
        name="han2021.central_path",
        statement=(
            "Averaged squared error with W, b at least squares and features of within-class covariance I: L = "
            "sum_j 1/(C + omega_j^2)/2, and under the gradient projected on the tangent space of that constraint "
            "n C^2 log omega + n C omega^2 + n omega^4/4 = a_j + t: omega ~ (4 t/n)^(1/4)."
        ),
        source=Source(
            HAN, "law c1 log omega + c2 omega^2 + c3 omega^4; constants derived here", "known from a summary"
        ),
        room="mse_flow",
        figure="mse_flow",
        layers={
            "symbolic": "L, velocity, law and growth proved for symbolic C and n, by singular direction",
            "simulation": "matrices integrated: the law grows by t to 1e-7 of it (measured)",
        },
    ),
    Claim(
        name="ufm.rewhitened_path",
        statement=(
            "If instead features follow the whole gradient and are whitened again, n C (C log omega + omega^2/2) = a_j "
            "+ t: omega ~ (2 t/(n C))^(1/2). It has no omega^4, which the published law has."
        ),
        source=Source(HAN, "the other reading of its renormalised flow", "derived here"),
        room="mse_flow",
        figure="mse_flow",
        layers={
            "symbolic": "velocity, law and growth proved for symbolic C and n, by singular direction",
            "simulation": "matrices integrated: the law grows by t to 1e-7 of it (measured)",
        },
    ),
)
