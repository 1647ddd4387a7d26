r"""How far a state of one layer is from the global minimum, whatever that is: a bound from duality, and the way out.

For logits Z = W H + b 1^T with decay of W and H the objective is at least the convex function

    fit(Z + b 1^T) + sqrt(lam_W lam_H) ||Z||_* + lam_b/2 ||b||^2,

with equality at balanced factors. For every G with ||G||_op <= sqrt(lam_W lam_H), and G 1 = 0 where lam_b = 0,

    global minimum >= -fit*(G) - ||G 1||^2/(2 lam_b),

and G = t d fit/dZ, with t just so large that the condition holds, makes this tight as the state comes near the global
minimum. It asks for no critical point, no equal classes and no width. With a bias without decay the state's G 1 is
taken out first: cross-entropy by scaling rows and columns of the probabilities, squared error by centring.

At a critical point ||G||_op <= sqrt(lam_W lam_H) says that it is a global minimiser; for width >= K - 1 (cross-entropy,
whose W has row sum 0) or >= min(K, N) the converse holds too: `Optimality.escape` then leads down.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ufm.decay import per_block
from ufm.errors import IncompatibleError, invalid
from ufm.losses import MSE, CrossEntropy
from ufm.normalisation import other_features
from ufm.problems import Blocks, Problem
from ufm.theory import cross_entropy_optimum as theory

if TYPE_CHECKING:
    from ufm.decay import Decay

SWEEPS = 200  # most scalings of rows and columns; a state near a critical point takes a few
RESOLVED = 1e-12  # relative: an operator norm that exceeds the threshold by less is equal to it
NEGLIGIBLE = 1e-8  # singular values of W and H below this share of the largest leave a direction free


@dataclass(frozen=True, eq=False)
class Optimality:
    """A state against the global minimum.

    Parameters
    ----------
    loss : float
        Objective of the state.
    bound : float
        No state, of any width, has a smaller objective than this.
    operator_norm : float
        ||G||_op, G = d fit/dZ.
    threshold : float
        sqrt(lam_W lam_H): a critical point whose operator norm is no larger is a global minimiser.
    curvature : float
        Second derivative along `escape` where the state is critical, -2 (operator_norm - threshold); nan where there
        is no such direction.
    escape : Blocks or None
        Direction in W and H along which no logit moves at first order and the objective falls at second; None where
        the operator norm does not exceed the threshold or W and H leave no direction of the features free.
    """

    loss: float
    bound: float
    operator_norm: float
    threshold: float
    curvature: float = np.nan
    escape: Blocks | None = field(default=None, repr=False)

    @property
    def gap(self) -> float:
        """Largest amount by which the state can lie above the global minimum."""
        return max(self.loss - self.bound, 0.0)

    def __str__(self) -> str:
        above = f"objective {self.loss:.10g}, at most {self.gap:.2g} above the global minimum"
        if self.escape is None:
            return f"{above}; no direction of escape (||G||_op {self.operator_norm:.4g} against {self.threshold:.4g})"
        return f"{above}; along .escape the second derivative is {self.curvature:.4g} where the state is critical"


def optimality(problem: Problem, decay: Decay | None, state: Mapping[str, Any]) -> Optimality:
    """Bound how far a state lies above the global minimum, and find the direction that leads on.

    Parameters
    ----------
    problem : UFM
        One layer, W and H trained, cross-entropy or squared error, any class sizes, with or without bias.
    decay : Coupled
        A rate > 0 for W and H.
    state : mapping of str to array_like, or a Solution
        Trained blocks by name, each of its shape in ``problem.shapes``.

    Returns
    -------
    Optimality

    Raises
    ------
    InvalidProblemError, IncompatibleError
        For another problem, in one sentence.

    Examples
    --------
    >>> import ufm
    >>> from ufm.solutions import merged, simplex
    >>> problem, decay = ufm.UFM(classes=4, width=6, per_class=3), ufm.Coupled(W=5e-3, H=1e-3)
    >>> optimality(problem, decay, simplex(problem, decay)).gap < 1e-14
    True
    >>> saddle = optimality(problem, decay, merged(problem, decay, [[0, 1], [2, 3]]))
    >>> round(saddle.operator_norm, 7), round(saddle.curvature, 7)
    (0.1443376, -0.284203)
    """
    lam_W, lam_H, lam_b = _rates("optimality", problem, decay)
    blocks = problem.unpack(problem.pack(getattr(state, "blocks", state)))
    W, H = blocks["W"], blocks["H"]
    loss, threshold = problem.value(blocks, decay), float(np.sqrt(lam_W) * np.sqrt(lam_H))
    G, bound = _dual(problem, blocks, threshold, lam_b)
    U, sigma, V = np.linalg.svd(G, full_matrices=False)
    free = _free_direction(W * np.sqrt(np.sqrt(lam_W / lam_H)), H * np.sqrt(np.sqrt(lam_H / lam_W)))
    if sigma[0] <= threshold * (1 + RESOLVED) or free is None:
        return Optimality(loss, bound, float(sigma[0]), threshold)
    of_W, of_H = theory.escape_scales(lam_W, lam_H)
    arrays = {"H": of_H * np.outer(free, V[0]), problem.last: of_W * np.outer(U[:, 0], free)}
    if problem.bias:
        arrays["b"] = np.zeros(problem.classes)
    escape = Blocks({block: arrays[block] for block in problem.blocks}, problem.last)
    curvature = float(theory.escape_curvature(sigma[0], lam_W, lam_H))
    return Optimality(loss, bound, float(sigma[0]), threshold, curvature, escape)


def lower_bound(problem: Problem, decay: Decay | None, state: Mapping[str, Any]) -> float:
    """`Optimality.bound` alone; parameters and errors as for `optimality`.

    Examples
    --------
    >>> import ufm
    >>> problem = ufm.UFM(classes=3, width=4, per_class=(4, 2, 1), bias=True)
    >>> found = ufm.minimise(problem, ufm.Coupled(0.01), starts=2, certificate=False)
    >>> bool(found.loss - 1e-6 < lower_bound(problem, ufm.Coupled(0.01), found.state) <= found.loss)
    True
    """
    lam_W, lam_H, lam_b = _rates("lower_bound", problem, decay)
    blocks = problem.unpack(problem.pack(getattr(state, "blocks", state)))
    return _dual(problem, blocks, float(np.sqrt(lam_W) * np.sqrt(lam_H)), lam_b)[1]


def _rates(where: str, problem: Problem, decay: Decay | None) -> tuple[float, float, float | None]:
    """Decay of W, H and the bias (None: no bias), or the hypothesis that fails in one sentence."""
    if not isinstance(problem, Problem) or problem.depth != 1:
        raise invalid(f"{where}.problem", problem, "a problem of one layer, such as UFM(classes=3, width=4)")
    reason = other_features(problem)
    if reason is not None:
        raise IncompatibleError(f"{where}: {reason}; allowed: a problem without normalisation.")
    if not isinstance(problem.loss, CrossEntropy | MSE):
        raise IncompatibleError(f"{where}: problem.loss is {problem.loss!r}; allowed: cross-entropy or MSE.")
    if problem.frozen_values:
        raise IncompatibleError(
            f"{where}: {', '.join(problem.frozen_values)} is frozen; allowed: trained blocks."
        )
    coupled, decoupled = per_block(decay, problem)
    if any(decoupled.values()) or not (coupled["H"] > 0 and coupled[problem.last] > 0):
        raise invalid(f"{where}.decay", decay, "coupled decay alone, with a rate > 0 for W and H")
    return coupled[problem.last], coupled["H"], coupled.get("b")


def _dual(
    problem: Problem, blocks: Blocks, threshold: float, lam_b: float | None
) -> tuple[np.ndarray, float]:
    """G = d fit/dZ at the state, and the lower bound that t G gives."""
    loss, N = problem.loss, problem.samples
    Z = blocks["W"] @ blocks["H"]
    if problem.bias:
        Z = Z + blocks["b"][:, None]
    weight = 1 / N if loss.reduction == "mean" else 1.0
    Y = np.eye(problem.classes)[:, problem.labels]
    if isinstance(loss, MSE):
        G = weight * (Z - Y)
        feasible = G - G.mean(axis=1, keepdims=True) if lam_b == 0 else G
        scaled = feasible * _shrink(feasible, threshold)
        value = -float(np.sum(scaled**2)) / (2 * weight) - float(np.sum(scaled * Y))
    else:
        if loss.smoothing:
            Y = (1 - loss.smoothing) * Y + loss.smoothing / problem.classes
        Y = Y if problem.targets is None else problem.targets
        mass = Y.sum(axis=0)
        P = np.exp(Z - Z.max(axis=0))
        P *= mass / P.sum(axis=0)
        G = weight * (P - Y)
        feasible = weight * (_with_row_sums(P, Y.sum(axis=1), mass) - Y) if lam_b == 0 else G
        scaled = feasible * _shrink(feasible, threshold)
        positive = mass > 0
        columns = np.clip((Y + scaled / weight)[:, positive] / mass[positive], 0.0, None)
        value = float(theory.dual_value(columns, weight * mass[positive]))
    if lam_b:
        value -= float(np.sum(scaled.sum(axis=1) ** 2)) / (2 * lam_b)
    return G, value


def _shrink(G: np.ndarray, threshold: float) -> float:
    """Largest t <= 1 with ||t G||_op <= threshold."""
    norm = float(np.linalg.norm(G, 2))
    return 1.0 if norm <= threshold else threshold / norm


def _with_row_sums(P: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """P >= 0 scaled by rows and columns until both sums are these (Sinkhorn), and made to have them where it is slow.

    Without the last step, shrinking what is too large and adding the rest as a matrix of rank one (Altschuler, Weed
    and Rigollet, recalled), a sum that is off would leave a number that bounds nothing.
    """
    for _ in range(SWEEPS):
        if np.abs(P.sum(axis=1) - rows).max() <= 4 * np.finfo(float).eps * rows.max():
            return P
        P = P * _ratios(rows, P.sum(axis=1))[:, None]
        P = P * _ratios(columns, P.sum(axis=0))
    P = P * np.minimum(_ratios(rows, P.sum(axis=1)), 1.0)[:, None]
    P = P * np.minimum(_ratios(columns, P.sum(axis=0)), 1.0)
    missing = np.maximum(rows - P.sum(axis=1), 0.0), np.maximum(columns - P.sum(axis=0), 0.0)
    return P + np.outer(*missing) / max(float(missing[1].sum()), np.finfo(float).tiny)


def _ratios(wanted: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """Factors that take sums to what is wanted, 1 where a sum is so small that there is none."""
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        found = wanted / sums
    return np.where(np.isfinite(found) & (sums > 0), found, 1.0)


def _free_direction(W: np.ndarray, H: np.ndarray) -> np.ndarray | None:
    """Unit vector a with W a = 0 and H^T a = 0, to 1e-8 of the largest singular value; None if there is none."""
    U, s, _ = np.linalg.svd(np.hstack([W.T, H]), full_matrices=True)
    rank = int(np.sum(s > NEGLIGIBLE * s[0])) if s[0] > 0 else 0
    return U[:, rank] if rank < len(U) else None
