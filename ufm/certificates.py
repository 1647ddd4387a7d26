r"""What a state is: local minimum, strict saddle, kink or no critical point, with the numbers that say so.

Smooth case. The lowest eigenvalue of the Hessian comes from Lanczos on exact products of the Hessian with vectors
(all eigenvalues at once for few parameters). The Rayleigh quotient v^T Hess v bounds it from above, so that "strict
saddle" does not hang on the convergence of Lanczos; "local minimum" does, and on a random first vector.

Flat directions. Every minimum of a chain comes with symmetries (rotations between linear layers, of W1 and H, scales
between ReLU layers), so the eigenvalue 0 belongs to every minimum that is not 0, and "local minimum" means up to flat
directions: a degenerate minimum cannot be told from a saddle of higher order by second derivatives. Two errors move
this 0. Round-off: (widths + classes + samples) 2^-52 times the largest eigenvalue. A gradient g that is not 0: along
the symmetry exp(t A) theta the objective is constant, hence (A theta)^T Hess (A theta) = -g^T A^2 theta, which is at
most ||g||/sigma in the unit direction, sigma the smallest singular value of the blocks that is not 0 (below a hundredth
of the largest of its block it counts as 0: what is left of a dead direction makes no symmetry of note). Their sum is
`Certificate.error`.

Kinks. With ReLU the objective is smooth on pieces; where pre-activations a_k are 0 to round-off the state lies on
the border of several. With q_k the derivative by relu(a_k), the derivative along a direction v is

    F'(v) = g(p)^T v + sum_k (q_k(p) relu(a_k' v) - p_k a_k' v)      for any multipliers p

with g(p), q(p) the gradient and the slopes that the backward pass gives with p_k in place of the derivative by a_k;
both are affine in p. So F' >= 0 if there are p with g(p) = 0 and 0 <= p <= q(p), and the others are no critical
points if a v with F'(v) < 0 is found. p solves a least squares problem, and a linear programme chooses where the a_k'
depend on each other. Where 0 < p_k < q_k the kink is sharp: F rises at first order unless a_k' v = 0, and the second
derivative, along the arc in the direction v that keeps a_k at 0, is that of the Lagrangian, with p_k held, over the
directions with a_k' v = 0; the straight line rises above the arc. Where q_k = 0 the kink is flat: F is
differentiable, with another second derivative on either side, v^T Hess_S v with S = {k: a_k' v > 0}. The lowest value
of this piecewise quadratic form over unit v is sought from the lowest eigenvectors of the pieces with all flat kinks
off and on, and from random directions: a negative one is a direction of descent, whatever the search has missed; none
found is what was measured.

Where the a_k' depend on each other and many p serve, the second derivative along v is the largest over them; what is
given is the value at one p, a lower bound. So no descent at one p is none at all, and a negative value at kinks is
called a strict saddle only if the objective, evaluated along the arc, falls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ufm.checks import real, whole
from ufm.decay import Decay
from ufm.errors import IncompatibleError, invalid
from ufm.initial import block_rng
from ufm.kernels.hessian import ONE_SIDED, Objective
from ufm.losses import UserLoss
from ufm.problems import Blocks, Problem

VERDICTS = ("local minimum", "strict saddle", "kink", "not critical", "undecided")
DENSE = 300  # parameters up to which all eigenvalues are computed
LARGEST_JACOBIAN = 2**23  # entries of the derivatives of all kinks that are weighed
NEGLIGIBLE = 1e-2  # singular values of a block below this share of its largest count as 0 in the error model
ARCS = (
    1e-1,
    1e-2,
    1e-3,
    1e-4,
)  # lengths, as shares of the norm of the state, along which the objective is evaluated
RANDOM_DIRECTIONS = 8  # from which the one-sided curvature is sought, beside the eigenvectors

Product = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Certificate:
    """First and second derivatives at a state, and what they make of it.

    Parameters
    ----------
    verdict : {"local minimum", "strict saddle", "kink", "not critical", "undecided"}
        "local minimum": critical, and no eigenvalue below -`error` (up to flat directions). "strict saddle":
        critical, with a direction of negative curvature. "kink": critical on the border of smooth pieces, without
        a direction of descent, of first or second order, among those tried. "not critical": the gradient is larger
        than the tolerance. "undecided": the eigenvalue did not converge.
    reason : str
        In one sentence.
    loss : float
        Objective.
    gradient : float
        Norm of the gradient; at kinks of what the multipliers leave of it, or, where there are none, the fastest rate
        of descent -F'(v) found over unit vectors v.
    descent : Blocks
        That unit vector, for the trained blocks by name.
    curvature : float
        Lowest eigenvalue of the Hessian; at kinks the lowest one-sided second derivative found.
    direction : Blocks
        Its unit vector.
    residual : float
        ||Hess v - curvature v||: an eigenvalue of the piece lies within this distance.
    largest : float
        Largest absolute eigenvalue, to two digits.
    error : float
        By how much an eigenvalue 0 may come out wrong: round-off, and the gradient that is left.
    kinks, sharp_kinks : int
        Pre-activations that are 0, and those among them at which the loss rises to both sides at first order.

    Examples
    --------
    >>> import ufm
    >>> problem, decay = ufm.UFM(classes=3, width=4), ufm.Coupled(0.01)
    >>> found = ufm.certify(problem, decay, ufm.solutions.simplex(problem, decay))
    >>> found.verdict, found.kinks
    ('local minimum', 0)
    """

    verdict: str
    reason: str
    loss: float
    gradient: float
    descent: Blocks = field(repr=False)
    curvature: float
    direction: Blocks = field(repr=False)
    residual: float
    largest: float
    error: float
    kinks: int
    sharp_kinks: int

    @property
    def stable(self) -> bool:
        """Whether the state is critical and no direction of descent was found."""
        return self.verdict in ("local minimum", "kink")

    def __str__(self) -> str:
        return f"{self.verdict}: {self.reason}"


def certify(
    problem: Problem,
    decay: Decay | None,
    state: Mapping[str, Any],
    *,
    tolerance: float = 1e-6,
    kink: float | None = None,
    seed: int = 0,
) -> Certificate:
    """Measure gradient, lowest curvature and kinks of the objective at a state.

    Parameters
    ----------
    problem : UFM or DUFM
        With cross-entropy or squared error.
    decay : Coupled, optional
        Its penalty is part of the objective.
    state : mapping of str to array_like, or a Solution
        Trained blocks by name, each of its shape in ``problem.shapes``.
    tolerance : float
        Largest norm of the gradient of a critical point, absolute (the objective of the zero state is 1/2 for MSE
        and log K for cross-entropy).
    kink : float, optional
        Pre-activations up to this share of the largest of their layer count as 0. By default up to a running bound
        of their round-off, every entry of the state taken as rounded once: right for states that are written down.
        States that a run has found come near a kink only; give a share, such as 1e-4, for these.
    seed : int
        Of the first vector of Lanczos and of the random directions.

    Returns
    -------
    Certificate

    Raises
    ------
    IncompatibleError
        For decoupled decay, which has no objective, and a user's loss, whose second derivative is not known.
    InvalidProblemError
        For a state that does not fit, or whose loss is not finite.

    Examples
    --------
    >>> import ufm
    >>> problem, decay = ufm.UFM(classes=3, width=2, loss="mse"), ufm.Coupled(0.01)
    >>> found = certify(problem, decay, {"W": np.zeros((3, 2)), "H": np.zeros((2, 3))})
    >>> found.verdict, round(found.curvature, 12)
    ('strict saddle', -0.323333333333)
    """
    if not isinstance(problem, Problem):
        raise invalid("certify.problem", problem, "a problem such as DUFM(classes=3, width=4, depth=3)")
    reason = unknown_curvature(problem)
    if reason is not None:
        raise IncompatibleError(f"certify.problem has {reason}.")
    tolerance = real("certify.tolerance", tolerance, 0.0)
    share = None if kink is None else real("certify.kink", kink, 0.0, 1.0)
    rng = block_rng(whole("certify.seed", seed, 0), 2, 0)
    objective = Objective(problem, decay, "certify")
    theta = problem.pack(getattr(state, "blocks", state), "certify.state")
    with np.errstate(invalid="ignore"):  # checked at once
        loss, gradient = objective(theta)
    if not (np.isfinite(loss) and np.isfinite(gradient).all()):
        raise invalid(
            "certify.state", "a state whose loss is not finite", "one with a finite loss and gradient"
        )
    units = _units(objective, theta, share)
    piece = _weigh_kinks(objective, theta, units, gradient, tolerance)
    product = objective.curvature(theta, piece.slopes)
    found = _lowest(product, piece.slopes, piece.constraints, rng)
    size = sum(problem.widths) + problem.classes + problem.samples
    error = size * 2.0**-52 * found.largest + piece.gradient / _smallest_singular_value(problem, theta)
    kinks = int(sum(zero.sum() for zero in units.zero))
    falls = found.value < -error and (not kinks or _falls(objective, theta, piece, found.vector, loss))
    verdict, reason = _judge(piece, found, error, tolerance, kinks, falls)
    return Certificate(
        verdict=verdict,
        reason=reason,
        loss=loss,
        gradient=piece.gradient,
        descent=problem.unpack(piece.descent),
        curvature=found.value,
        direction=problem.unpack(found.vector),
        residual=found.residual,
        largest=found.largest,
        error=error,
        kinks=kinks,
        sharp_kinks=len(piece.rows),
    )


def unknown_curvature(problem: Problem) -> str | None:
    """Why no second derivative of a problem's objective is known, as the end of a sentence, or None."""
    if isinstance(problem.loss, UserLoss):
        return f"the loss {problem.loss!r}; allowed: cross-entropy or MSE, whose second derivative is known"
    if problem.normalisation is not None and problem.activation == "relu" and problem.depth > 1:
        return f"{problem.normalisation!r} in a ReLU chain; allowed: normalisation in linear chains, without kinks"
    return None


# ------------------------------------------------------------------------------------------ kinks


class _Units(NamedTuple):
    """The ReLU units of all layers l = 2 ... L: inputs of all layers l = 1 ... L, which units are on, which at 0."""

    inputs: list[np.ndarray]
    on: list[np.ndarray]
    zero: list[np.ndarray]


class _Piece(NamedTuple):
    """The smooth piece of the objective that is looked at, and the directions along which it is."""

    gradient: float  # norm of what multipliers leave of the gradient, or the fastest rate of descent
    descent: np.ndarray  # unit vector along which the objective falls at first order
    weighed: bool  # whether the multipliers of all kinks are known
    feasible: bool  # whether the multipliers lie between 0 and the slopes of their kinks
    slopes: np.ndarray  # of every unit, in the places of X
    constraints: np.ndarray  # orthonormal rows: directions that leave a sharp kink
    places: list[np.ndarray]  # where the sharp kinks are, by layer
    rows: np.ndarray  # derivatives of their pre-activations, shape (sharp, size)


def _units(objective: Objective, theta: np.ndarray, share: float | None) -> _Units:
    """Inputs of all layers, with the units at a kink put to 0 exactly."""
    problem = objective.problem
    blocks = problem.unpack(theta)
    X = blocks["H"]
    inputs, on, zero = [X], [], []
    doubt = 2.0**-53 * np.abs(X)  # bound of the error of X
    for layer in range(1, problem.depth):
        W = blocks[f"W{layer}"]
        sums = np.abs(W) @ np.abs(X)
        doubt = (W.shape[1] + 1) * 2.0**-52 * sums + np.abs(W) @ doubt
        X = W @ X
        if problem.activation == "relu":
            zero.append(np.abs(X) <= (doubt if share is None else share * np.abs(X).max(initial=0.0)))
            on.append((X > 0) & ~zero[-1])
            X = np.where(on[-1], X, 0.0)
        inputs.append(X)
    return _Units(inputs, on, zero)


def _backward(
    problem: Problem, blocks: Blocks, units: _Units, residual: np.ndarray, multipliers: list[np.ndarray]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Derivatives by the outputs of all layers 1 ... L, and by the outputs of the ReLUs of layers 2 ... L."""
    before: list[np.ndarray] = [residual]
    behind: list[np.ndarray] = []
    for layer in range(problem.depth, 1, -1):
        behind.insert(0, blocks[f"W{layer}"].T @ before[0])
        before.insert(0, np.where(units.on[layer - 2], behind[0], multipliers[layer - 2]))
    return before, behind


def _reached(problem: Problem, blocks: Blocks, units: _Units) -> list[np.ndarray]:
    """Kinks from which anything can reach the logits; those of a unit without outgoing weights cannot."""
    live, found = np.ones((problem.classes, problem.samples), bool), list[np.ndarray]()
    for layer in range(problem.depth, 1, -1):
        behind = (blocks[f"W{layer}"] != 0).T.astype(float) @ live > 0
        found.insert(0, behind & units.zero[layer - 2])
        live = behind & (units.on[layer - 2] | units.zero[layer - 2])
    return found


def _derivatives(problem: Problem, blocks: Blocks, units: _Units, kinks: list[np.ndarray]) -> np.ndarray:
    """Gradient of the pre-activation of every kink by the trained blocks, shape (kinks, size)."""
    rows = []
    for layer, chosen in enumerate(kinks, start=2):
        for unit, sample in zip(*np.nonzero(chosen), strict=True):
            arrays = {name: np.zeros(problem.shapes[name]) for name in problem.trained}
            d = np.zeros(problem.shapes[f"W{layer - 1}"][0])
            d[unit] = 1.0
            for below in range(layer - 1, 0, -1):
                if f"W{below}" in arrays:
                    arrays[f"W{below}"] = np.outer(d, units.inputs[below - 1][:, sample])
                d = blocks[f"W{below}"].T @ d
                if below > 1:
                    d = d * units.on[below - 2][:, sample]
            if "H" in arrays:
                arrays["H"][:, sample] = d
            rows.append(np.concatenate([arrays[name].ravel() for name in problem.trained]))
    return np.array(rows).reshape(len(rows), problem.size)


def _weigh_kinks(
    objective: Objective, theta: np.ndarray, units: _Units, gradient: np.ndarray, tolerance: float
) -> _Piece:
    """Multipliers of all kinks, the gradient that they leave, and the slope that each kink gets."""
    problem, buffers = objective.problem, objective.buffers
    slopes = np.ones(buffers.X.size)
    nothing = np.zeros((0, problem.size))
    smooth = _Piece(
        float(np.linalg.norm(gradient)), _unit(-gradient), True, True, slopes, nothing, [], nothing
    )
    if problem.activation != "relu" or problem.depth == 1:
        return smooth
    starts = np.cumsum([0, *problem.widths]) * problem.samples
    places = [slice(starts[layer - 1], starts[layer]) for layer in range(2, problem.depth + 1)]
    for place, on in zip(places, units.on, strict=True):
        slopes[place] = on.ravel()
    if not any(zero.any() for zero in units.zero):
        return smooth

    blocks, residual = problem.unpack(theta), np.array(buffers.R)

    def backward(multipliers: np.ndarray) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
        """Derivatives by the outputs of all layers, the gradient, and the slopes of the weighed kinks."""
        before, behind = _backward(problem, blocks, units, residual, _spread(weighed, multipliers))
        return before, _gradient_of(objective, theta, units, before), _collected(weighed, behind)

    weighed = _reached(problem, blocks, units)
    none = np.zeros(sum(int(chosen.sum()) for chosen in weighed))
    jacobian = np.zeros((none.size, 0))
    before, left, q = backward(none)
    p, slack = none, _slack(q, tolerance)
    needed = none.size > 0 and bool(np.linalg.norm(left) > tolerance or (np.abs(q) > slack).any())
    weighable = none.size * problem.size <= LARGEST_JACOBIAN
    if needed and weighable:
        jacobian = _derivatives(problem, blocks, units, weighed)
        p = _multipliers(jacobian, left, lambda p: backward(p)[2])
        before, left, q = backward(p)
        slack = _slack(q, tolerance)
    feasible = bool(((p >= -slack) & (p <= np.maximum(q, 0.0) + slack) & (q >= -slack)).all())
    sharp = (p > slack) & (p < q - slack)
    chosen_slopes = _spread(weighed, np.where(q <= slack, ONE_SIDED, np.where(p >= q - slack, 1.0, 0.0)))
    for place, zero, chosen, slope in zip(places, units.zero, weighed, chosen_slopes, strict=True):
        slope[zero & ~chosen] = ONE_SIDED  # nothing leads from there to the logits
        slopes[place] = np.where(zero, slope, slopes[place].reshape(zero.shape)).ravel()
    for place, X, D in zip(places, units.inputs[1:], before, strict=False):
        buffers.X[place] = X.ravel()
        buffers.D[place] = D.ravel()
    known = weighable or not needed
    feasible &= known
    rate, descent = float(np.linalg.norm(left)), _unit(-left)
    if known and not feasible and rate <= tolerance:
        clipped = np.clip(p, 0.0, np.maximum(q, 0.0))
        rate, descent = _fastest_descent(objective, theta, units, left + (clipped - p) @ jacobian)
    rows = jacobian[sharp] if sharp.any() else nothing
    places_of_sharp = [values > 0 for values in _spread(weighed, sharp.astype(float))]
    return _Piece(rate, descent, known, feasible, slopes, _orthonormal(rows), places_of_sharp, rows)


def _slack(q: np.ndarray, tolerance: float) -> float:
    """What counts as 0 among the slopes of kinks and their multipliers."""
    largest = float(np.abs(q).max(initial=0.0))
    return max(min(tolerance, 1e-4 * largest), 2.0**-40 * largest, 2.0**-52)


def _gradient_of(
    objective: Objective, theta: np.ndarray, units: _Units, before: list[np.ndarray]
) -> np.ndarray:
    """Gradient of the objective from the derivatives by the outputs of all layers."""
    problem = objective.problem
    found = {f"W{layer}": D @ X.T for layer, (D, X) in enumerate(zip(before, units.inputs, strict=True), 1)}
    found["H"] = problem.unpack(theta)["W1"].T @ before[0]
    found["b"] = before[-1].sum(axis=1)
    flat = np.concatenate([found[name].ravel() for name in problem.trained])
    gradient: np.ndarray = flat + objective.rates * theta[: problem.size]
    return gradient


def _fastest_descent(
    objective: Objective, theta: np.ndarray, units: _Units, subgradient: np.ndarray
) -> tuple[float, np.ndarray]:
    """The largest -F'(v) that a search from -subgradient finds over unit vectors v, and that v."""
    from scipy.optimize import minimize

    problem, residual = objective.problem, np.array(objective.buffers.R)
    blocks, trained = problem.unpack(theta), np.zeros(theta.size)

    def slope(v: np.ndarray) -> tuple[float, np.ndarray]:
        """F'(v)/||v|| and its derivative by v."""
        norm = float(np.linalg.norm(v))
        trained[: v.size] = v / norm
        along = problem.unpack(trained)
        T, on = along["H"], []
        for layer in range(1, problem.depth):
            A = along[f"W{layer}"] @ units.inputs[layer - 1] + blocks[f"W{layer}"] @ T
            on.append(units.on[layer - 1] | (units.zero[layer - 1] & (A > 0)))
            T = np.where(on[-1], A, 0.0)
        side = _Units(units.inputs, on, units.zero)
        off = [np.zeros(mask.shape) for mask in on]
        gradient = _gradient_of(objective, theta, units, _backward(problem, blocks, side, residual, off)[0])
        value = float(gradient @ trained[: v.size])
        return value, (gradient - value * trained[: v.size]) / norm

    start = _unit(-subgradient)
    if not start.any():
        return 0.0, start
    end = minimize(slope, start, jac=True, method="L-BFGS-B", options={"maxiter": 200})
    v = min(start, _unit(end.x), key=lambda v: slope(v)[0])
    return max(0.0, -slope(v)[0]), v


def _multipliers(
    jacobian: np.ndarray, gradient: np.ndarray, slopes: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Multipliers p with the smallest gradient + p jacobian, as far inside 0 <= p <= slopes(p) as can be.

    Where the derivatives of the kinks depend on each other there are many such p, and a linear programme chooses:
    least violation first, then the largest sum of the distances to the bounds, each up to a hundredth of the scale.
    """
    from scipy.optimize import linprog

    u, s, vt = np.linalg.svd(jacobian.T, full_matrices=False)
    kept = s > 1e-10 * s[0]
    p: np.ndarray = -(vt[kept].T / s[kept]) @ (u[:, kept].T @ gradient)
    free = np.linalg.svd(vt[kept])[2][int(kept.sum()) :].T if not kept.all() else np.zeros((p.size, 0))
    q, count = slopes(p), free.shape[1]
    unit = max(np.abs(p).max(), np.abs(q).max())
    if count == 0 or unit == 0.0:
        return p
    moved = np.array([slopes(p + unit * column) - q for column in free.T]).T / unit
    # variables: coordinates along `free`, in units; distances to the bounds, in hundredths; the violation
    inside, violation = 1e-2 * np.eye(p.size), -np.ones((2 * p.size, 1))
    bounds = np.hstack([np.vstack([-free, free - moved]), np.vstack([inside, inside]), violation])
    cost = np.concatenate([np.zeros(count), -np.ones(p.size), [1e3 * p.size]])
    limits = [(None, None)] * count + [(0.0, 1.0)] * p.size + [(0.0, None)]
    found = linprog(cost, bounds, np.concatenate([p, q - p]) / unit, bounds=limits, method="highs")
    if found.status == 0:
        p = p + unit * free @ found.x[:count]
    return p


def _spread(chosen: list[np.ndarray], values: np.ndarray) -> list[np.ndarray]:
    """Values of the chosen units in arrays of all units, 0 elsewhere."""
    found, at = [], 0
    for mask in chosen:
        array = np.zeros(mask.shape)
        array[mask] = values[at : at + int(mask.sum())]
        at += int(mask.sum())
        found.append(array)
    return found


def _collected(chosen: list[np.ndarray], arrays: list[np.ndarray]) -> np.ndarray:
    """Values at the chosen units, the inverse of `_spread`."""
    return np.concatenate([array[mask] for mask, array in zip(chosen, arrays, strict=True)])


def _unit(v: np.ndarray) -> np.ndarray:
    """v over its norm; 0 where v is 0."""
    norm = np.linalg.norm(v)
    return v / norm if norm > 0 else v


def _orthonormal(rows: np.ndarray) -> np.ndarray:
    """Orthonormal rows that span these, up to 1e-10 of the largest singular value."""
    _, s, vt = np.linalg.svd(rows, full_matrices=False)
    spanning: np.ndarray = vt[s > 1e-10 * s.max(initial=0.0)]
    return spanning


# ------------------------------------------------------------------------------------------ eigenvalues


class _Lowest(NamedTuple):
    value: float
    vector: np.ndarray
    residual: float
    largest: float


def _lowest(product: Product, slopes: np.ndarray, rows: np.ndarray, rng: np.random.Generator) -> _Lowest:
    """Lowest second derivative over unit vectors orthogonal to these rows."""
    size = rows.shape[1]

    def inside(v: np.ndarray) -> np.ndarray:
        projected: np.ndarray = v - rows.T @ (rows @ v)
        return projected

    def constrained(v: np.ndarray) -> np.ndarray:
        return inside(product(inside(v)))

    flat = slopes == ONE_SIDED
    found = []
    for slope in (0.0, 1.0) if flat.any() else (0.0,):
        slopes[flat] = slope
        found.append(_eigenpair(constrained, rows, size, rng))
    largest = max(top for _, _, top in found)
    vectors = [vector for _, vector, _ in found]
    if flat.any():
        slopes[flat] = ONE_SIDED
        drawn = [inside(rng.standard_normal((size,))) for _ in range(RANDOM_DIRECTIONS)]
        starts = [sign * vector for vector in vectors for sign in (1.0, -1.0)] + drawn
        vectors = [_descend(constrained, inside, start) for start in starts]
    quotients = [float(v @ constrained(v)) for v in vectors]
    value, vector = min(zip(quotients, vectors, strict=True), key=lambda pair: pair[0])
    return _Lowest(value, vector, float(np.linalg.norm(constrained(vector) - value * vector)), largest)


def _eigenpair(
    product: Product, rows: np.ndarray, size: int, rng: np.random.Generator
) -> tuple[float, np.ndarray, float]:
    """Lowest eigenvalue on the complement of `rows`, its unit vector, and the largest absolute eigenvalue."""
    if size <= DENSE:
        H = np.array([product(e) for e in np.eye(size)])
        values, vectors = np.linalg.eigh(0.5 * (H + H.T))
        top = float(np.abs(values).max())
        # the constrained directions are moved out of the way
        values, vectors = np.linalg.eigh(0.5 * (H + H.T) + 2.0 * top * rows.T @ rows)
        return float(values[0]), vectors[:, 0], top
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    def operator(matvec: Product) -> Any:
        return LinearOperator((size, size), matvec=lambda v: matvec(v.ravel()), dtype=np.float64)

    start = _unit(rng.standard_normal(size))
    if not product(start).any():  # a random vector is in no proper subspace: the Hessian is 0
        return 0.0, start, 0.0
    top = 1.01 * abs(float(eigsh(operator(product), k=1, which="LM", tol=1e-2, v0=start)[0][0]))

    def turned(v: np.ndarray) -> np.ndarray:
        image: np.ndarray = top * (v - 2.0 * rows.T @ (rows @ v)) - product(v)
        return image

    try:
        _, vectors = eigsh(
            operator(turned), k=1, which="LA", ncv=min(size, 80), maxiter=400, tol=1e-10, v0=start
        )
        vector = vectors[:, 0]
    except ArpackNoConvergence:
        vector = start  # its residual will say so
    return float(vector @ product(vector)), vector, top


def _descend(product: Product, inside: Callable[[np.ndarray], np.ndarray], start: np.ndarray) -> np.ndarray:
    """Unit vector at the end of a descent of the Rayleigh quotient of a piecewise quadratic form."""
    from scipy.optimize import minimize

    def quotient(v: np.ndarray) -> tuple[float, np.ndarray]:
        norm = np.linalg.norm(v)
        v = v / norm
        Hv = product(v)
        value = float(v @ Hv)
        return value, 2.0 * (Hv - value * v) / norm

    end = minimize(quotient, _unit(start), jac=True, method="L-BFGS-B", options={"maxiter": 200})
    return _unit(inside(end.x))


def _falls(objective: Objective, theta: np.ndarray, piece: _Piece, v: np.ndarray, loss: float) -> bool:
    """Whether the objective falls along the arc in the direction v that keeps the sharp kinks at 0."""
    from scipy.linalg import lstsq

    problem, size = objective.problem, objective.problem.size
    for step in ARCS:
        point = np.array(theta)
        point[:size] += step * np.linalg.norm(theta) * v
        for _ in range(3 if len(piece.rows) else 0):  # Newton's method, with the derivatives at theta
            blocks = problem.unpack(point)
            X, left = blocks["H"], []
            for layer, chosen in enumerate(piece.places, start=1):
                X = blocks[f"W{layer}"] @ X
                left.append(X[chosen])
                X = np.maximum(X, 0.0)
            point[:size] -= lstsq(piece.rows, np.concatenate(left), cond=1e-10, lapack_driver="gelsd")[0]
        if objective(point)[0] < loss - 64 * 2.0**-52 * abs(loss):
            return True
    return False


def _smallest_singular_value(problem: Problem, theta: np.ndarray) -> float:
    """Smallest singular value of the trained blocks that is not 0; inf at the zero state."""
    blocks, found = problem.unpack(theta), [np.inf]
    for name in problem.trained:
        values = np.linalg.svd(np.atleast_2d(blocks[name]), compute_uv=False)
        found += [float(s) for s in values if s > NEGLIGIBLE * values[0]]
    return min(found)


def _judge(
    piece: _Piece, found: _Lowest, error: float, tolerance: float, kinks: int, falls: bool
) -> tuple[str, str]:
    """Verdict and its sentence."""
    if piece.gradient > tolerance and piece.feasible:
        left = "what the multipliers of the kinks leave of the gradient" if kinks else "the gradient"
        return "not critical", f"{left} has norm {piece.gradient:.3g} > {tolerance:.3g}"
    if not piece.weighed:
        return "undecided", f"{kinks} pre-activations are 0, too many to weigh with so many parameters"
    if piece.gradient > tolerance:
        return "not critical", f"at a kink the loss falls at the rate {piece.gradient:.3g} > {tolerance:.3g}"
    if not piece.feasible:
        return "undecided", "no multipliers of the kinks were found, and no direction of descent"
    curvature = f"the lowest curvature is {found.value:.6g}"
    if found.largest == 0.0:
        return "undecided", "the Hessian is 0"
    if falls:
        return "strict saddle", f"{curvature}, beyond the error {error:.1g} of a flat direction"
    if found.value < -error:
        return (
            "undecided",
            f"{curvature} at one choice of multipliers, but the objective does not fall along its arc",
        )
    if kinks:
        sharp = f", {len(piece.rows)} of them sharp" if len(piece.rows) else ""
        return (
            "kink",
            f"{kinks} pre-activations are 0{sharp}; on their sides {curvature}, no descent was found",
        )
    if found.residual > 1e-6 * found.largest:
        return "undecided", f"{curvature} with a residual of {found.residual:.1g}: not converged"
    if abs(found.value) <= error:
        return (
            "local minimum",
            f"{curvature}, 0 up to the error {error:.1g}: of second order, up to flat directions",
        )
    return "local minimum", f"{curvature}, beyond the error {error:.1g} of a flat direction"
