r"""Depth in the Walsh basis: a deep linear chain that starts there is K (L + 1) scalars, step by step.

Notation: K = 2^m classes of n samples, N = K n, L weight matrices, V = chi/sqrt(K) the Walsh basis
(`ufm.initial.walsh`).
A linear chain whose blocks are all diagonal in V, with values a_{l,k} (l = 0 for H, mode k), has the logits
Z = V diag(z) V^T, each column over sqrt(n) for every sample of its class, with z_k = prod_l a_{l,k}. The entries of
V diag(z) V^T depend on g xor h alone; so do those of its softmax, for the normaliser is the same in every column. Hence
the residual is diagonal too,

    r_k = -c (1 - p_k),       p_k = sum_g p(g) chi_k(g),  p = softmax(f),  f(g) = sum_k z_k chi_k(g)/(K sqrt(n))
    r_k = c' (z_k - sqrt(n))  for the squared error,

with c = sqrt(n)/N and c' = 1/N for the mean over samples, and grad a_{l,k} = r_k prod_{j != l} a_{j,k}. A rule that is
linear in gradients and states with one rate per block (GD and momentum, coupled and decoupled decay, any schedule)
stays within the diagonal: the run is that rule on these scalars, with no discretisation error. For balanced values
a_{l,k} = s_k = z_k^{1/(L+1)} the flow of small steps is

    dz_k/dt = (L+1) [ -z_k^{2L/(L+1)} r_k - lam z_k ]                                                     (5.1)

and a small relative gap between two modes beside the ray z_k = z (neural collapse) obeys, to first order in the gap,

    Delta(z) = Delta(z_0) (z/z_0)^{(L-1)/(L+1)} exp(-(z - z_0)/(K sqrt(n)))                               (5.2)

which grows up to z_c = K sqrt(n) (L-1)/(L+1) and falls beyond. The spectral start and the effect are those of Garrod,
Keating and Thrampoulidis (arXiv 2605.23087), of which abstract and figure captions were read; the equations were
derived here.
"""

from __future__ import annotations

import math
from functools import lru_cache, reduce
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from ufm.claims import Claim, Prediction, Source
from ufm.decay import shrinks_after
from ufm.errors import UfmError, invalid
from ufm.initial import Spectral, Start, draw, walsh
from ufm.losses import MSE, CrossEntropy
from ufm.normalisation import other_features
from ufm.optimizers import GD
from ufm.theory._recorded import BLOCK, finite_records
from ufm.theory.symmetric_path import wrong_share

if TYPE_CHECKING:
    from ufm.run import Run

PAPER = "Garrod, Keating, Thrampoulidis, arXiv 2605.23087 (abstract and captions read)"


# ------------------------------------------------------------------ formulas, generic in their number type


@lru_cache(maxsize=16)
def characters(classes: int) -> np.ndarray:
    """`ufm.initial.walsh`, kept and read-only: a recursion asks at every step."""
    found = walsh(classes)
    found.setflags(write=False)
    return found


def class_logits(z: Any, per_class: Any = 1, xp: Any = np) -> Any:
    """f(g) = sum_k z_k chi_k(g)/(K sqrt(n)): entry (g, h) of the logits, by g xor h.

    Parameters
    ----------
    z : array_like, shape (..., K)
        Singular values of the logits in the order of `ufm.initial.walsh`.
    per_class : int
        n.
    xp : module
        ``numpy``, or ``sympy`` for an array of expressions.

    Returns
    -------
    ndarray, shape (..., K)

    Examples
    --------
    >>> class_logits(np.array([0.0, 2.0, 2.0, 2.0])).tolist()
    [1.5, -0.5, -0.5, -0.5]
    """
    K = np.shape(z)[-1]
    return z @ characters(K) / (K * xp.sqrt(per_class))


def softmax(logits: Any, xp: Any = np) -> Any:
    """Softmax over the last axis; for SymPy of one array of expressions.

    Parameters
    ----------
    logits : array_like, shape (..., K)
        Numbers, or expressions.
    xp : module
        ``numpy`` or ``sympy``.

    Returns
    -------
    ndarray, shape (..., K)

    Examples
    --------
    >>> softmax(np.zeros(4)).tolist()
    [0.25, 0.25, 0.25, 0.25]
    """
    if xp is not np:
        weights = np.array([xp.exp(value) for value in logits], dtype=object)
        return weights / weights.sum()
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def missing_spectrum(z: Any, per_class: Any = 1, xp: Any = np) -> Any:
    """1 - p_k = sum_g p(g) (1 - chi_k(g)) for every k, without cancellation; shape as `z`.

    Parameters
    ----------
    z : array_like, shape (..., K)
        Singular values of the logits in the order of `ufm.initial.walsh`.
    per_class : int or symbol
        Samples n per class.
    xp : module
        ``numpy`` or ``sympy``.

    Returns
    -------
    ndarray, shape (..., K)

    Examples
    --------
    >>> missing_spectrum(np.zeros(4)).tolist()
    [0.0, 1.0, 1.0, 1.0]
    """
    return softmax(class_logits(z, per_class, xp), xp) @ (1 - characters(np.shape(z)[-1]))


def residual(z: Any, loss: str = "ce", per_class: Any = 1, mean: bool = True, xp: Any = np) -> Any:
    """r_k: derivative of the fit by z_k.

    Parameters
    ----------
    z : array_like, shape (..., K)
        Singular values of the logits.
    loss : {"ce", "mse"}
        Cross-entropy or squared error.
    per_class : int
        n.
    mean : bool
        Average over samples, or sum.
    xp : module
        ``numpy`` or ``sympy``.

    Returns
    -------
    ndarray, shape (..., K)

    Examples
    --------
    >>> residual(np.array([0.0, 1.0]), "mse").tolist()
    [-0.5, 0.0]
    """
    samples = np.shape(z)[-1] * per_class if mean else 1
    if loss == "mse":
        return (z - xp.sqrt(per_class)) / samples
    return -missing_spectrum(z, per_class, xp) * xp.sqrt(per_class) / samples


def residual_slope(z: Any, loss: str = "ce", per_class: Any = 1, mean: bool = True, xp: Any = np) -> Any:
    """d r_k/d z_j, shape (..., K, K): c (p_{k xor j} - p_k p_j)/(K sqrt(n)), without cancellation; or c' I.

    Parameters are those of `residual`.

    Parameters
    ----------
    z, loss, per_class, mean, xp
        As for `residual`.

    Returns
    -------
    ndarray, shape (..., K, K)

    Examples
    --------
    >>> residual_slope(np.zeros(2)).tolist()
    [[0.0, 0.0], [0.0, 0.25]]
    """
    K = np.shape(z)[-1]
    samples = K * per_class if mean else 1
    if loss == "mse":
        return np.broadcast_to(np.eye(K, dtype=int) / samples, (*np.shape(z), K))
    k = np.arange(K)
    m = missing_spectrum(z, per_class, xp)  # 1 - p
    one, other = m[..., :, None], m[..., None, :]
    return (one + other - one * other - m[..., k[:, None] ^ k]) / (K * samples)


def others(values: Any) -> Any:
    """prod_{j != l} a_{j,k} for every block l, shape as `values`, (..., L + 1, K).

    Parameters
    ----------
    values : ndarray, shape (..., L + 1, K)
        a_{l,k}, block by block.

    Returns
    -------
    ndarray, shape (..., L + 1, K)

    Examples
    --------
    >>> others(np.array([[2.0], [3.0], [5.0]]))[:, 0].tolist()
    [15.0, 10.0, 6.0]
    """
    one = np.ones_like(values[..., :1, :])
    before = np.concatenate([one, values[..., :-1, :]], axis=-2).cumprod(axis=-2)
    behind = np.concatenate([one, values[..., :0:-1, :]], axis=-2).cumprod(axis=-2)
    return before * behind[..., ::-1, :]


def gradient(values: Any, residuals: Any) -> Any:
    """r_k prod_{j != l} a_{j,k}, shape as `values`, (..., L + 1, K).

    Parameters
    ----------
    values : ndarray, shape (..., L + 1, K)
        a_{l,k}, block by block.
    residuals : ndarray, shape (..., K)
        r_k, see `residual`.

    Returns
    -------
    ndarray, shape (..., L + 1, K)

    Examples
    --------
    >>> gradient(np.array([[2.0], [3.0]]), np.array([0.5])).tolist()
    [[1.5], [1.0]]
    """
    return residuals[..., None, :] * others(values)


def step(values: Any, slope: Any, lr: Any, coupled: Any = 0.0, decoupled: Any = 0.0) -> Any:
    """One step of GD: (1 - eta lam_d) a - eta (slope + lam_c a); decay rates of shape (L + 1, 1) or numbers.

    Parameters
    ----------
    values : ndarray, shape (..., L + 1, K)
        a_{l,k}, block by block.
    slope : ndarray, shape (..., L + 1, K)
        Gradient of the fit.
    lr : float
        Learning rate.
    coupled, decoupled : float or ndarray, shape (L + 1, 1)
        Decay rates by block.

    Returns
    -------
    ndarray, shape (..., L + 1, K)

    Examples
    --------
    >>> step(np.array([[2.0], [3.0]]), np.array([[1.0], [0.0]]), 0.5, coupled=0.5).tolist()
    [[1.0], [2.25]]
    """
    return (1 - lr * decoupled) * values - lr * (slope + coupled * values)


def flow(z: Any, residuals: Any, depth: Any, decay: Any = 0) -> Any:
    """dz_k/dt of (5.1), -(L+1) (z_k^{2L/(L+1)} r_k + lam z_k); any number type.

    Parameters
    ----------
    z : number or ndarray, shape (...)
        Singular values of the logits, > 0.
    residuals : number or ndarray, shape (...)
        r_k, see `residual`.
    depth : int or symbol
        Number L of layers.
    decay : number
        lam of every block.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> flow(8.0, -0.125, depth=1)
    2.0
    """
    return -(depth + 1) * (z ** (2 * depth / (depth + 1)) * residuals + decay * z)


def repulsion_exponent(depth: Any) -> Any:
    """(L-1)/(L+1), at which a relative gap grows with the scale while the residuals are equal; any number type.

    Parameters
    ----------
    depth : int or symbol
        Number L of layers.

    Returns
    -------
    number

    Examples
    --------
    >>> repulsion_exponent(3)
    0.5
    """
    return (depth - 1) / (depth + 1)


def relative_gap(z: Any, start: Any, classes: Any, depth: Any, per_class: Any = 1, xp: Any = np) -> Any:
    """Delta(z)/Delta(z_0) of (5.2), cross-entropy without decay, any number type.

    First order in the gap, flow of small steps.

    Parameters
    ----------
    z : number or ndarray, shape (...)
        Scale, > 0.
    start : number or ndarray, shape (...)
        Scale z_0 > 0.
    classes, depth : int or symbol
        Number K of classes, number L of layers.
    per_class : int or symbol
        Samples n per class.
    xp : module
        ``numpy`` or ``sympy``.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> round(float(relative_gap(4.0, 1.0, classes=8, depth=3)), 6)
    1.374579
    """
    return (z / start) ** repulsion_exponent(depth) * xp.exp(-(z - start) / (classes * xp.sqrt(per_class)))


def critical_scale(classes: Any, depth: Any, per_class: Any = 1, xp: Any = np) -> Any:
    """z_c = K sqrt(n) (L-1)/(L+1), where a gap is largest; any number type.

    Parameters
    ----------
    classes, depth : int or symbol
        Number K of classes, number L of layers.
    per_class : int or symbol
        Samples n per class.
    xp : module
        ``numpy`` or ``sympy``.

    Returns
    -------
    number

    Examples
    --------
    >>> float(critical_scale(8, 3))
    4.0
    """
    return classes * xp.sqrt(per_class) * repulsion_exponent(depth)


def largest_gap(start: Any, classes: Any, depth: Any, per_class: Any = 1, xp: Any = np) -> Any:
    """Largest Delta(z)/Delta(z_0) over z >= z_0, for z_0 below z_c: (z_c/(e z_0))^{(L-1)/(L+1)} e^{z_0/(K sqrt n)}.

    Parameters
    ----------
    start : number or ndarray, shape (...)
        Scale z_0 > 0.
    classes, depth : int or symbol
        Number K of classes, number L of layers.
    per_class : int or symbol
        Samples n per class.
    xp : module
        ``numpy`` or ``sympy``.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> round(float(largest_gap(0.2, 8, 3)), 6)
    2.781155
    """
    reduced = start / (classes * xp.sqrt(per_class))
    ratio = critical_scale(classes, depth, per_class, xp) / start
    return ratio ** repulsion_exponent(depth) * xp.exp(reduced - repulsion_exponent(depth))


def mse_relative_gap(z: Any, start: Any, depth: Any, per_class: Any = 1, xp: Any = np) -> Any:
    """(5.2) for the squared error: (z/z_0)^{(L-1)/(L+1)} (sqrt n - z)/(sqrt n - z_0), without decay; any number type.

    Largest at z = sqrt(n) (L-1)/(2L).

    Parameters
    ----------
    z : number or ndarray, shape (...)
        Scale, > 0.
    start : number or ndarray, shape (...)
        Scale z_0 > 0.
    depth : int or symbol
        Number L of layers.
    per_class : int or symbol
        Samples n per class.
    xp : module
        ``numpy`` or ``sympy``.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> float(mse_relative_gap(0.5, 0.25, depth=1))
    0.6666666666666666
    """
    full = xp.sqrt(per_class)
    return (z / start) ** repulsion_exponent(depth) * (full - z) / (full - start)


# ------------------------------------------------------------------------------- which code depth prefers

CODES = ("simplex", "pairs", "circle")


class Code(NamedTuple):
    """Logits with the margin z_cc - z_kc >= 1: cost sum_i s_i^p = pairs of multiplicity times singular value^p.

    Parameters
    ----------
    terms : tuple of pairs of number
        Multiplicity and singular value.

    Examples
    --------
    >>> Code(((3, 1),)).cost(depth=3)
    3.0
    """

    terms: tuple[tuple[Any, Any], ...]  # (multiplicity, singular value)

    def cost(self, depth: Any) -> Any:
        """sum_i s_i^{2/(L+1)}, what L + 1 factors pay for these logits."""
        return sum(count * value ** (2 / (depth + 1)) for count, value in self.terms)


def code(name: str, classes: int, xp: Any = np) -> Code:
    """Singular values of a code of unit margin.

    "simplex": I - J/K. "pairs": blocks [[1, -1], [-1, 1]], the cross-polytope, and a single 1 for odd K.
    "circle": K points on a circle, cos(2 pi (c - k)/K)/(1 - cos(2 pi/K)).

    Parameters
    ----------
    name : {"simplex", "pairs", "circle"}
        Which code.
    classes : int
        K >= 3.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath`` (its `mpf`, or intervals with ``mpmath.iv``).

    Returns
    -------
    Code

    Raises
    ------
    InvalidProblemError
        For another name.

    Examples
    --------
    >>> round(code("pairs", 10).cost(3), 6), code("simplex", 10).cost(3)
    (7.071068, 9.0)
    """
    if name == "simplex":
        return Code(((classes - 1, 1),))
    if name == "pairs":
        return Code(((classes // 2, 2), (classes % 2, 1)))
    if name != "circle":
        raise invalid("code.name", name, ", ".join(CODES))
    return Code(((2, classes / (2 * (1 - xp.cos(2 * xp.pi / classes)))),))


def cheapest(classes: int, depth: int) -> str:
    """The code of the least cost; of equal ones (circle = simplex at K = 3, circle = pairs at K = 4) the first.

    Among these three: that no other code is cheaper is not said.

    Parameters
    ----------
    classes, depth : int
        K >= 3 and L.

    Returns
    -------
    str

    Examples
    --------
    >>> [cheapest(10, depth) for depth in (1, 2, 3, 4, 5)]
    ['simplex', 'pairs', 'pairs', 'pairs', 'circle']
    """
    costs = [float(code(name, classes).cost(depth)) for name in CODES]
    least = min(costs)
    return next(name for name, cost in zip(CODES, costs, strict=True) if cost <= least * (1 + 1e-12))


# ---------------------------------------------------------------------------------- the recursion of a run


def recursion(
    values: np.ndarray,
    rates: Any,
    loss: str = "ce",
    per_class: int = 1,
    mean: bool = True,
    coupled: Any = 0.0,
    decoupled: Any = 0.0,
    momentum: float = 0.0,
) -> np.ndarray:
    """Values a_{l,k} of every block after every step of GD, or of heavy ball.

    Parameters
    ----------
    values : ndarray, shape (L + 1, K)
        Start: H, W1, ..., WL.
    rates : array_like, shape (steps,)
        Learning rate of each step.
    loss, per_class, mean
        As for `residual`.
    coupled, decoupled : float or array_like, shape (L + 1, 1)
        Decay rates, for all blocks or for each; the decoupled shrink comes before the step.
    momentum : float
        beta of heavy ball.

    Returns
    -------
    ndarray, shape (steps + 1, L + 1, K)

    Examples
    --------
    >>> recursion(np.ones((2, 2)), [0.5], "mse").tolist()
    [[[1.0, 1.0], [1.0, 1.0]], [[1.0, 1.0], [1.0, 1.0]]]
    """
    rates = np.asarray(rates, dtype=float)
    path = np.empty((len(rates) + 1, *np.shape(values)))
    path[0] = values
    buffer = np.zeros(path.shape[1:])
    with np.errstate(over="ignore", invalid="ignore"):
        for t, lr in enumerate(rates):
            now = path[t]
            slope = gradient(now, residual(now.prod(axis=0), loss, per_class, mean))
            if momentum:
                buffer = momentum * buffer + slope + coupled * now
                path[t + 1] = step(now, buffer, lr, 0.0, decoupled)
            else:
                path[t + 1] = step(now, slope, lr, coupled, decoupled)
    return path


def ray_rates(classes: int, depth: int, start: float, stop: float, share: float) -> np.ndarray:
    """Learning rates of GD that take the ray z_k = z from one scale to another, cross-entropy of one sample per class.

    Parameters
    ----------
    classes, depth : int
        K and L.
    start, stop : float
        Scales, 0 < start < stop.
    share : float
        Each step moves z by this share of it, and of 2 where z is larger: z passes the same scales at every depth.

    Returns
    -------
    ndarray, shape (steps,)

    Examples
    --------
    >>> ray_rates(2, 1, 1.0, 1.2, 0.1).round(6).tolist()
    [0.185914, 0.200208]
    """
    rates, z = [], start
    while z < stop:
        move = share * min(z, 2.0)
        rates.append(move / flow(z, -wrong_share(z, classes, math), depth))
        z += move
    return np.array(rates)


# ------------------------------------------------------------------------------- hypotheses about runs


def start_of(run: Run) -> np.ndarray | None:
    """Values of H, W1, ..., WL where every block starts at a `Spectral`, shape (L + 1, K), or None.

    Parameters
    ----------
    run : Run
        The run in question.

    Returns
    -------
    ndarray, shape (L + 1, K), or None

    Raises
    ------
    InvalidProblemError, IncompatibleError
        For a start that cannot be drawn.

    Examples
    --------
    >>> import ufm
    >>> from ufm.run import Run
    >>> start_of(Run(ufm.UFM(2, 2), ufm.GD(0.1), None, ufm.Spectral([0.5, 0.25]))).tolist()
    [[0.5, 0.25], [0.5, 0.25]]
    """
    problem, init = run.problem, run.init
    if isinstance(init, Start):
        named = {problem.last if name == "W" else name: start for name, start in init.blocks}
        chosen = [named.get(name, init.default) for name in problem.trained]
    else:
        chosen = [init] * len(problem.trained)
    if not all(isinstance(start, Spectral) for start in chosen):
        return None
    draw(problem, init, run.seed)
    return np.array([start.values(problem.classes) for start in chosen if isinstance(start, Spectral)])


def _setting(run: Run) -> str | None:
    """Why a run is not one of a few scalars by mode, or None."""
    problem, loss = run.problem, run.problem.loss
    reason = other_features(problem)
    if reason is not None:
        return reason
    if problem.bias:
        return "the logits have a bias; the modes are those of a chain without"
    try:
        start = start_of(run)
    except UfmError as error:
        return f"the start cannot be drawn: {error}"
    if start is None:
        return f"the start is {run.init!r}; the modes stay apart from a Spectral start of every block"
    if problem.depth > 1 and problem.activation != "identity":
        return f"the activation is {problem.activation}; the modes stay apart in a linear chain"
    if problem.frozen_values:
        return f"frozen are {', '.join(problem.frozen_values)}; the modes are those of a chain trained in all blocks"
    if not isinstance(loss, MSE | CrossEntropy):
        return f"the loss is {type(loss).__name__}; residuals by mode are known for cross-entropy and squared error"
    if isinstance(loss, CrossEntropy) and (loss.targets is not None or loss.smoothing):
        return "the targets are soft or smoothed; the residuals by mode are those of one-hot targets"
    if len(set(problem.class_sizes)) > 1:
        return (
            f"classes have from {min(problem.class_sizes)} to {max(problem.class_sizes)} samples; the modes stay apart "
            "for equal ones"
        )
    if run.in_batches:
        return f"batches hold {run.batch} of {problem.samples} samples; the modes stay apart under the whole gradient"
    if type(run.optimizer) is not GD:
        return f"{type(run.optimizer).__name__} steps; the error model is for GD"
    if run.dtype != "float64":
        return f"the run is in {run.dtype}; the recursion is evaluated in float64"
    return None


def _recursion_hypotheses(run: Run) -> str | None:
    reason = _setting(run)
    if reason is None and any(run.decoupled.values()) and shrinks_after(run.decay):
        return "the decoupled shrink comes after the step; the recursion is for one before it"
    return reason


def _flow_hypotheses(run: Run) -> str | None:
    reason = _recursion_hypotheses(run)
    if reason is not None:
        return reason
    start = start_of(run)
    assert start is not None
    if np.any(start != start[0]):
        return "the blocks start at different singular values; (5.1) is for balanced factors"
    rates = {run.coupled[name] + run.decoupled[name] for name in run.problem.trained}
    if len(rates) > 1:
        return f"blocks decay at rates from {min(rates):g} to {max(rates):g}; (5.1) is for equal ones"
    return None


# ------------------------------------------------------------------------------- predictions about runs

WRONG_RATES = 1e-6  # relative error of all learning rates that the recursion's control carries
LOST = 1e-3  # share of the largest value beyond which deviations count no longer as small
LOST_FLOW = 0.05  # the same for the distance of steps and flow
TINY = 1e-200  # a start at 0 stays there, and a solver needs a scale
FLOW_ERROR = 1e-9  # relative error granted to the solver of the flow


def _loss_of(run: Run) -> dict[str, Any]:
    loss = run.problem.loss
    return {
        "loss": "mse" if loss.name == "MSE" else "ce",
        "per_class": run.problem.class_sizes[0],
        "mean": loss.reduction == "mean",
    }


def _by_block(run: Run, rates: Any) -> np.ndarray:
    return np.array([[rates[name]] for name in run.problem.trained])


_judged: WeakKeyDictionary[Any, tuple[np.ndarray, np.ndarray]] = WeakKeyDictionary()


def _path_and_bound(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Recursion of a run and how far round-off may leave it; kept while the trajectory lives, for four readers."""
    found = _judged.get(run.trajectory)
    if found is None:
        path = _path(run)
        found = _judged[run.trajectory] = (path, _bound_of(run, path))
    return found


def _path(run: Run, error: float = 0.0) -> np.ndarray:
    """The recursion up to the last finite record, with all learning rates multiplied by 1 + error."""
    start = start_of(run)
    assert start is not None
    return recursion(
        start,
        _rates(run) * (1 + error),
        **_loss_of(run),
        coupled=_by_block(run, run.coupled),
        decoupled=_by_block(run, run.decoupled),
    )


def _recorded_steps(run: Run) -> np.ndarray:
    """Steps of the finite records."""
    assert run.trajectory is not None
    steps: np.ndarray = np.asarray(run.trajectory.steps)[finite_records(run)]
    return steps


def _rates(run: Run) -> np.ndarray:
    """Learning rates up to the last finite record."""
    return run.rates[: _recorded_steps(run).max(initial=0)]


def observed_modes(run: Run, kept: np.ndarray) -> np.ndarray:
    """V^T Z (V x 1/sqrt(n)) at some records, shape (records, K, K): diagonal if the modes stay apart.

    Parameters
    ----------
    run : Run
        With its trajectory.
    kept : ndarray of int, shape (records,)
        Indices of records.

    Returns
    -------
    ndarray, shape (records, K, K)

    Examples
    --------
    >>> import ufm
    >>> trajectory = ufm.simulate(ufm.UFM(2, 2), ufm.GD(0.1), init=ufm.Spectral([0.5, 0.25]), steps=1)
    >>> observed_modes(trajectory.judged(), np.array([0]))[0].diagonal().round(6).tolist()
    [0.25, 0.0625]
    """
    trajectory, problem = run.trajectory, run.problem
    assert trajectory is not None
    K, n = problem.classes, problem.class_sizes[0]
    V = characters(K) / np.sqrt(K)
    found = np.empty((len(kept), K, K))
    for row, record in enumerate(kept):
        Z = reduce(lambda X, layer: trajectory[f"W{layer}"][record] @ X, range(1, problem.depth + 1),
                   trajectory["H"][record])  # fmt: skip
        found[row] = V @ Z.reshape(K, K, n).sum(axis=2) @ V / np.sqrt(n)
    return found


class Sizes(NamedTuple):
    """Norms along the path that errors scale with, each of shape (steps + 1,).

    Parameters
    ----------
    logits : ndarray, shape (steps + 1,)
        Largest prod_l a_{l,k}, from the largest value of each block.
    pull : ndarray, shape (steps + 1,)
        sqrt(sum_l (prod_{j != l} max a_j)^2): how far a change of the state moves the logits.
    residual : ndarray, shape (steps + 1,)
        max |r_k|.
    curvature, negative : ndarray, shape (steps + 1,)
        Of the fit by the logits at most, and how negative the Hessian may be.
    state : ndarray, shape (steps + 1,)
        Frobenius norm of the state.
    spread : ndarray, shape (steps + 1,)
        Largest difference of two logits.

    Examples
    --------
    >>> sizes(np.full((1, 2, 2), 0.5), "ce", 1, True).logits.tolist()
    [0.25]
    """

    logits: np.ndarray  # largest prod_l a_{l,k}, from the largest value of each block
    pull: np.ndarray  # sqrt(sum_l (prod_{j != l} max a_j)^2): how far a change of the state moves the logits
    residual: np.ndarray  # max |r_k|
    curvature: np.ndarray  # of the fit by the logits, at most
    negative: np.ndarray  # how negative the Hessian may be
    state: np.ndarray  # Frobenius norm of the state
    spread: np.ndarray  # largest difference of two logits


def sizes(path: np.ndarray, loss: str, per_class: int, mean: bool) -> Sizes:
    """What `round_off_bound` scales with, along a path of shape (steps + 1, L + 1, K).

    Parameters
    ----------
    path : ndarray, shape (steps + 1, L + 1, K)
        From `recursion`.
    loss, per_class, mean
        As for `residual`.

    Returns
    -------
    Sizes

    Examples
    --------
    >>> sizes(np.full((3, 2, 4), 0.5), "mse", 1, True).pull.round(6).tolist()
    [0.707107, 0.707107, 0.707107]
    """
    K, blocks = path.shape[-1], path.shape[1]
    z = path.prod(axis=1)
    r = np.abs(residual(z, loss, per_class, mean)).max(axis=-1)
    factor = 1.0 / (K * per_class) if mean else 1.0
    logits = class_logits(z, per_class)
    top = np.abs(path).max(axis=-1)
    pairs = np.zeros((len(path), blocks))
    for one in range(blocks):
        for two in range(blocks):
            if one != two:
                pairs[:, one] += np.delete(top, (one, two), axis=1).prod(axis=1)
    if loss == "ce":
        p = softmax(logits)
        curvature = factor * np.minimum(0.5, 2 * (p * (1 - p)).max(axis=-1))
    else:
        curvature = np.full(len(path), factor)
    return Sizes(
        logits=top.prod(axis=1),
        pull=np.sqrt((others(top[..., None]) ** 2).sum(axis=(1, 2))),
        residual=r,
        curvature=curvature,
        negative=r * pairs.max(axis=1),
        state=np.sqrt((path**2).sum(axis=(1, 2))),
        spread=np.ptp(logits, axis=-1),
    )


def round_off_bound(
    path: np.ndarray,
    rates: np.ndarray,
    width: int,
    loss: str,
    per_class: int,
    mean: bool,
    coupled: np.ndarray,
    decoupled: np.ndarray,
) -> np.ndarray:
    """How far round-off may take an entry of V^T Z V from the recursion at each step, shape (steps + 1,).

    Deviations E of the state (Frobenius norm) obey E' = |keep - eta Hess| E + local. The Hessian lies between -rho and
    h q^2 + rho, up to decay: rho = max|r| max_l sum_{m != l} prod_{j != l, m} max a_j is what R contributes, h the
    curvature of the fit by the logits, q^2 = sum_l (prod_{j != l} max a_j)^2. With eps = 2^-52 one step adds
    eps (2 |state| + eta |grad|-errors), where each of the products of a pass adds sqrt(d) K eps of its largest
    possible size (their d terms' errors are independent) and the softmax (K + 16 + 2 spread) eps of the residual.
    First order in E, so infinite beyond the share `LOST` of the largest value. An error model, not a theorem.

    Parameters
    ----------
    path : ndarray, shape (steps + 1, L + 1, K)
        From `recursion`.
    rates : ndarray, shape (steps,)
        Learning rates.
    width : int
        Largest number of terms d in a product.
    loss, per_class, mean
        As for `residual`.
    coupled, decoupled : ndarray, shape (L + 1, 1)
        Decay rates by block.

    Returns
    -------
    ndarray, shape (steps + 1,)

    Examples
    --------
    >>> path, zero = np.full((3, 2, 2), 0.5), np.zeros((2, 1))
    >>> bound = round_off_bound(path, np.full(2, 0.1), 2, "ce", 1, True, zero, zero)
    >>> bound.shape, bool((bound < 1e-13).all())
    ((3,), True)
    """
    eps, K, blocks = np.finfo(float).eps, path.shape[-1], path.shape[1]
    with np.errstate(over="ignore", invalid="ignore"):
        size = sizes(path, loss, per_class, mean)
        product = np.sqrt(width) * K * eps
        in_logits = (blocks - 1) * product * size.logits
        in_residual = (
            size.curvature * in_logits + eps * (K + 16 + 2 * size.spread) * np.sqrt(K) * size.residual
        )
        in_gradient = size.pull * (2 * (blocks - 1) * product * size.residual + in_residual)
        largest_keep = 1 - rates * (coupled + decoupled).min()
        least_keep = 1 - rates * (coupled + decoupled).max()
        rho, top = size.negative[:-1], (size.curvature * size.pull**2 + size.negative)[:-1]
        growth = np.maximum(np.abs(largest_keep + rates * rho), rates * top - least_keep)
        local = 2 * eps * np.maximum(size.state[:-1], size.state[1:]) + rates * in_gradient[:-1]
        deviation = np.empty(len(path))
        deviation[0] = K * eps * size.state[0]
        for t in range(len(rates)):
            deviation[t + 1] = growth[t] * deviation[t] + local[t]
        lost = deviation > LOST * np.maximum.accumulate(np.abs(path).max(axis=(1, 2)))
        bound = size.pull * deviation + (blocks + 2) * product * size.logits
    bound = np.where(np.logical_or.accumulate(lost | ~np.isfinite(bound)), np.inf, bound)
    return bound


def _bound_of(run: Run, path: np.ndarray) -> np.ndarray:
    problem = run.problem
    return round_off_bound(
        path,
        _rates(run),
        max(*problem.widths, problem.samples),
        **_loss_of(run),
        coupled=_by_block(run, run.coupled),
        decoupled=_by_block(run, run.decoupled),
    )


def _recursion_prediction(run: Run, error: float = 0.0) -> Prediction:
    steps, observed = _recorded_steps(run), observed_modes(run, finite_records(run))
    path, bound = _path_and_bound(run)
    with np.errstate(over="ignore", invalid="ignore"):
        z = (_path(run, error) if error else path)[steps].prod(axis=1)
        predicted = z[:, :, None] * np.eye(run.problem.classes)
    return Prediction("Z_t in the Walsh basis, against diag(z_t)", predicted, observed, bound[steps])


def _perturbed_recursion(run: Run) -> Prediction:
    return _recursion_prediction(run, WRONG_RATES)


def flow_growth(s: np.ndarray, decay: float, loss: str, per_class: int, mean: bool) -> np.ndarray:
    """Largest eigenvalue of the symmetric Jacobian of ds_k/dt = -s_k^L r_k - lam s_k, of the shape of s[:, 0].

    Parameters
    ----------
    s : ndarray, shape (steps + 1, L + 1, K)
        Balanced values along a path.
    decay, loss, per_class, mean
        As for `integrate_flow`.

    Returns
    -------
    ndarray, shape (steps + 1,)

    Examples
    --------
    >>> flow_growth(np.full((2, 2, 2), 0.5), 0.0, "mse", 1, True).round(6).tolist()
    [0.125, 0.125]
    """
    depth, K = s.shape[1] - 1, s.shape[-1]
    found = np.empty(len(s))
    at_once = max(1, BLOCK // K**2)
    for first in range(0, len(s), at_once):
        here = slice(first, first + at_once)
        now, z = s[here, 0], s[here].prod(axis=1)
        power = now**depth
        coupling = residual_slope(z, loss, per_class, mean) * power[:, :, None] * power[:, None, :]
        own = depth * residual(z, loss, per_class, mean) * now ** (depth - 1) + decay
        J = -(depth + 1) * coupling - own[:, :, None] * np.eye(K)
        finite = np.isfinite(J).all(axis=(1, 2))
        found[here] = np.linalg.eigvalsh(np.where(finite[:, None, None], J, 0.0))[:, -1]
        found[here][~finite] = np.inf
    return found


def discretisation_bound(
    path: np.ndarray, rates: np.ndarray, decay: float, loss: str, per_class: int, mean: bool
) -> np.ndarray:
    """How far steps may be from the flow (5.1) at the same time, in the Euclidean norm over s; shape (steps + 1,).

    E' = exp(eta mu) E + eta |f' - f| with f = ds/dt at both ends of the step, twice the leading order of what one
    step does, and mu the one-sided Lipschitz constant of f, the largest eigenvalue of its Jacobian at either end.
    O(eta) at a fixed time; first order in E, so infinite beyond the share `LOST_FLOW` of the largest s.

    Parameters
    ----------
    path : ndarray, shape (steps + 1, L + 1, K)
        Balanced, from `recursion`.
    rates : ndarray, shape (steps,)
        Learning rates.
    decay, loss, per_class, mean
        As for `integrate_flow`.

    Returns
    -------
    ndarray, shape (steps + 1,)

    Examples
    --------
    >>> discretisation_bound(np.full((2, 2, 2), 0.5), np.array([0.1]), 0.0, "mse", 1, True).tolist()
    [0.0, 0.0]
    """
    s = path[:, 0]
    with np.errstate(over="ignore", invalid="ignore"):
        slope = residual(path.prod(axis=1), loss, per_class, mean)
        f = -(s ** (path.shape[1] - 1)) * slope - decay * s
        mu = flow_growth(path, decay, loss, per_class, mean)
        local = rates * np.linalg.norm(np.diff(f, axis=0), axis=-1)
        growth = np.exp(rates * np.maximum(mu[:-1], mu[1:]))
        deviation = np.zeros(len(path))
        for t in range(len(rates)):
            deviation[t + 1] = growth[t] * deviation[t] + local[t]
        lost = ~(deviation <= LOST_FLOW * np.maximum.accumulate(s.max(axis=-1)))
    return np.where(np.logical_or.accumulate(lost), np.inf, deviation)


def integrate_flow(
    z: np.ndarray,
    times: np.ndarray,
    depth: int,
    decay: float = 0.0,
    loss: str = "ce",
    per_class: int = 1,
    mean: bool = True,
    factors: float | None = None,
) -> np.ndarray:
    """z(t) of (5.1) at increasing times from t = 0, shape (times, K); to 1e-10.

    Parameters
    ----------
    z : ndarray, shape (K,)
        Start.
    times : ndarray, shape (times,)
        Sums of learning rates.
    depth : int
        L.
    decay : float
        lam of every block.
    loss, per_class, mean
        As for `residual`.
    factors : float, optional
        The number L + 1 in front of (5.1), to be wrong on purpose.

    Returns
    -------
    ndarray, shape (times, K)

    Examples
    --------
    >>> integrate_flow(np.array([0.25, 0.25]), np.array([0.0, 4.0]), 1, loss="mse").round(6).tolist()
    [[0.25, 0.25], [0.947915, 0.947915]]
    """
    from scipy.integrate import solve_ivp

    scale = 1.0 if factors is None else factors / (depth + 1)

    def slope(_: float, now: np.ndarray) -> np.ndarray:
        now = np.maximum(now, 0.0)  # a stage of the solver may step across
        velocity: np.ndarray = flow(now, residual(now, loss, per_class, mean), depth, decay)
        return scale * velocity

    found = np.tile(np.asarray(z, dtype=float), (len(times), 1))
    later = times > 0
    if later.any():
        solution = solve_ivp(
            slope, (0.0, times[-1]), z, "DOP853", times[later], rtol=1e-11, atol=1e-11 * np.max(z) + TINY
        )
        found[later] = solution.y.T
    return found


def _flow_prediction(run: Run, wrong: bool = False) -> Prediction:
    steps, settings, depth = _recorded_steps(run), _loss_of(run), run.problem.depth
    decay = float(next(iter(run.coupled.values())) + next(iter(run.decoupled.values())))
    observed = np.diagonal(observed_modes(run, finite_records(run)), axis1=1, axis2=2)
    path, round_off = _path_and_bound(run)
    with np.errstate(over="ignore", invalid="ignore"):
        z = path.prod(axis=1)
        deviation = discretisation_bound(path, _rates(run), decay, **settings)[steps]
        s = path[steps, 0].max(axis=-1)
        solver = FLOW_ERROR * np.maximum.accumulate(z.max(axis=-1))[steps]
        bound = (s + deviation) ** (depth + 1) - s ** (depth + 1) + round_off[steps] + solver
    bound = np.where(np.isnan(bound), np.inf, bound)
    times, judged = np.concatenate([[0.0], np.cumsum(_rates(run))])[steps], bound < np.inf
    factors = depth if wrong else depth + 1
    predicted = observed.copy()
    predicted[judged] = integrate_flow(z[0], times[judged], depth, decay, **settings, factors=factors)
    return Prediction("z_t, against the flow (5.1) at the same time", predicted, observed, bound)


def _perturbed_flow(run: Run) -> Prediction:
    return _flow_prediction(run, wrong=True)


# ------------------------------------------------------------------------------------------------- claims

CLAIMS = (
    Claim(
        name="ufm.spectral_recursion",
        statement=(
            "Deep linear chain, K = 2^m equal classes, every block diagonal in the Walsh basis at the start, cross-"
            "entropy or squared error: under GD with coupled and decoupled decay, a rate per block and any schedule, "
            "Z_t stays V diag(z_t) V^T with z_{t,k} = prod_l a_{l,k} and a' = (1 - eta lam_d) a - "
            "eta (r_k prod_{j != l} a_{j,k} + lam_c a), r_k = -(sqrt(n)/N)(1 - p_k): K (L + 1) scalars, exact at every "
            "step."
        ),
        source=Source(PAPER, "spectral start; recursion derived here", "derived here"),
        room="spectral_depth",
        figure="depth_repulsion",
        layers={
            "symbolic": (
                "softmax of a group matrix is one: argued by characters for every m, proved for K = 2, 4, 8; the step "
                "from derivatives by every entry for K = 2 at L = 1..3 and K = 4 at L = 1"
            ),
            "simulation": "all K^2 entries of V^T Z V within a first-order round-off model (round_off_bound)",
        },
        applies=_recursion_hypotheses,
        predict=_recursion_prediction,
        control=_perturbed_recursion,
    ),
    Claim(
        name="ufm.spectral_flow",
        statement=(
            "In that setting with balanced factors and equal decay, steps of GD follow dz_k/dt = (L+1) "
            "[z_k^{2L/(L+1)} (sqrt(n)/N)(1 - p_k) - lam z_k] at t = sum of eta to O(eta), with (sqrt(n) - z_k)/N for "
            "the squared error; under cross-entropy z_0 moves by decay alone."
        ),
        source=Source(PAPER, "equation (5.1) of the derivation here", "derived here"),
        room="spectral_depth",
        figure="depth_repulsion",
        layers={
            "symbolic": "proved from the recursion as eta -> 0 for symbolic L",
            "simulation": "each run within a Gronwall bound of O(eta) on what the steps add (discretisation_bound)",
        },
        applies=_flow_hypotheses,
        predict=_flow_prediction,
        control=_perturbed_flow,
    ),
    Claim(
        name="ufm.depth_repulsion",
        statement=(
            "Cross-entropy flow without decay beside the ray z_k = z: a relative gap between two modes is (z/z_0)^a "
            "exp(-(z - z_0)/(K sqrt n)) times that at z_0, a = (L-1)/(L+1), to first order in the gap: it grows up to "
            "z_c = a K sqrt(n), by (z_c/(e z_0))^a exp(z_0/(K sqrt n)) at most, and never at L = 1. Squared error: "
            "(z/z_0)^a (sqrt n - z)/(sqrt n - z_0), largest at sqrt(n) (L-1)/(2L)."
        ),
        source=Source(PAPER, "repulsion of singular values; equation (5.2) derived here", "derived here"),
        room="spectral_depth",
        figure="depth_repulsion",
        layers={
            "symbolic": "proved for symbolic K, L, n to first order in the gap; second order and steps are left out",
            "simulation": "GD at gaps of 1e-4 within 3e-3 of the law, L = 1, 2, 3, 5 (measured)",
        },
    ),
    Claim(
        name="ufm.margin_codes",
        statement=(
            "Cost sum_i s_i^{2/(L+1)} of logits with unit margin: simplex K - 1, pairs floor(K/2) 2^{2/(L+1)} (+ 1 for "
            "odd K), circle 2 (K/(2 - 2 cos(2 pi/K)))^{2/(L+1)}. Even K: pairs beat the simplex iff (2(K-1)/K)^(L+1) > "
            "4: K = 4 from L = 3, K >= 6 from L = 2. At K = 10 the simplex is the cheapest of the three for L = 1, "
            "pairs for L = 2..4, the circle for every L >= 5."
        ),
        source=Source(PAPER, "low-rank codes by depth; costs derived here", "derived here"),
        room="spectral_depth",
        layers={
            "symbolic": (
                "margins and singular values proved for K = 3..10; order of the three costs exact for pairs, certified "
                "for the circle; that no fourth code is cheaper is not claimed"
            )
        },
    ),
)
