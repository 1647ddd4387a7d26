r"""Balancedness: what gradient descent does to U^T U - V V^T of adjacent linear layers, exactly, for any loss.

Where two blocks enter an objective only through their product U V (H and W_1 of every model here, W_l and W_{l+1} of a
linear chain) there is a matrix M = d fit/d(U V) with grad_U = M V^T and grad_V = U^T M. A step of gradient descent at
the rate eta with the same decay lam on both, coupled or decoupled,

    U' = (1 - eta lam) U - eta M V^T,    V' = (1 - eta lam) V - eta U^T M,

takes D = U^T U - V V^T to

    D' = (1 - eta lam)^2 D + eta^2 (V M^T M V^T - U^T M M^T U)
       = (1 - eta lam)^2 D + eta^2 (grad_U^T grad_U - grad_V grad_V^T):

the cross terms are the same in both products and cancel. Nothing else is asked: any loss, depth, batch and schedule. To
first order in eta D is conserved without decay (gradient flow conserves it) and decays like e^(-2 lam eta t) with it.
With unequal decay the cross terms do not cancel, but where the gradient of the objective vanishes
lam_U U^T U = lam_V V V^T, by -U^T M V^T = lam_U U^T U = lam_V V V^T.

Conservation under gradient flow is that of Du, Hu and Lee (arXiv 1806.00900, recalled); the law of finite steps with
decay was derived here.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from ufm.claims import Claim, Prediction, Source
from ufm.decay import shrinks_after
from ufm.losses import MSE, CrossEntropy
from ufm.normalisation import other_features
from ufm.optimizers import GD
from ufm.theory._recorded import finite_records, spread_evenly

if TYPE_CHECKING:
    from ufm.problems import Blocks
    from ufm.run import Run

MOST_PAIRS = 64  # pairs of consecutive records that are judged, spread evenly over those there are
FLOW = "Du, Hu, Lee, arXiv 1806.00900"


# ------------------------------------------------------------------ formulas, generic in their number type


def imbalance(U: Any, V: Any) -> Any:
    """D = U^T U - V V^T; numpy arrays or sympy matrices.

    Parameters
    ----------
    U, V : ndarray, shapes (rows, d) and (d, columns)
        Adjacent factors, whose product is all that enters.

    Returns
    -------
    ndarray, shape (d, d), or sympy.Matrix

    Examples
    --------
    >>> imbalance(np.eye(2), 2 * np.eye(2)).tolist()
    [[-3.0, 0.0], [0.0, -3.0]]
    """
    return U.T @ U - V @ V.T


def remainder(gradient_U: Any, gradient_V: Any) -> Any:
    """grad_U^T grad_U - grad_V grad_V^T, of the fit alone.

    Parameters
    ----------
    gradient_U, gradient_V : ndarray, shapes (rows, d) and (d, columns)
        Gradient of the fit, without decay.

    Returns
    -------
    ndarray, shape (d, d), or sympy.Matrix

    Examples
    --------
    >>> remainder(np.eye(2), 2 * np.eye(2)).tolist()
    [[-3.0, 0.0], [0.0, -3.0]]
    """
    return gradient_U.T @ gradient_U - gradient_V @ gradient_V.T


def next_imbalance(D: Any, gradient_U: Any, gradient_V: Any, lr: Any, decay: Any) -> Any:
    """D' = (1 - eta lam)^2 D + eta^2 (grad_U^T grad_U - grad_V grad_V^T); numpy arrays or sympy matrices.

    Parameters
    ----------
    D : array_like, shape (d, d)
        U^T U - V V^T before the step.
    gradient_U, gradient_V : array_like, shapes (rows, d) and (d, columns)
        Gradient of the fit, without decay.
    lr, decay : float
        eta, and lam of both blocks.

    Returns
    -------
    ndarray, shape (d, d), or sympy.Matrix

    Examples
    --------
    >>> next_imbalance(np.eye(2), np.eye(2), 2 * np.eye(2), lr=0.5, decay=1.0).tolist()
    [[-0.5, 0.0], [0.0, -0.5]]
    """
    return (1 - lr * decay) ** 2 * D + lr**2 * remainder(gradient_U, gradient_V)


# ---------------------------------------------------------------------------------------- claims about runs


def _pairs(run: Run) -> list[tuple[str, str]]:
    """Adjacent trained blocks (U, V) with equal decay and no activation between them."""
    problem = run.problem
    chain = ["H", *(f"W{layer}" for layer in range(1, problem.depth + 1))]
    linear = chain if problem.activation == "identity" or problem.depth == 1 else chain[:2]
    total = {block: run.coupled[block] + run.decoupled[block] for block in problem.trained}
    return [(U, V) for V, U in pairwise(linear) if U in total and V in total and total[U] == total[V]]


def _no_law(run: Run) -> str | None:
    problem = run.problem
    reason = other_features(problem)
    if reason is not None:
        return reason
    if type(run.optimizer) is not GD:
        return f"the optimizer is {run.optimizer!r}, and the cross terms cancel for plain gradient descent"
    if not isinstance(problem.loss, CrossEntropy | MSE):
        return f"the loss is {problem.loss!r}: the round-off of its gradient is not known"
    if problem.activation != "identity" and problem.depth > 1:
        return "with ReLU round-off may decide on which side of a kink a unit lies, so only linear chains are judged"
    if run.in_batches:
        return f"the gradient of the mini-batches of {run.batch} is not known at the records"
    if shrinks_after(run.decay):
        return "the decoupled shrink follows the step, which scales the remainder too"
    if not _pairs(run):
        return "no two adjacent blocks are trained with equal decay"
    return None


def _one_step_apart(run: Run) -> np.ndarray:
    """Records whose predecessor is the step before, at most `MOST_PAIRS` of them."""
    kept = finite_records(run)
    assert run.trajectory is not None
    steps = run.trajectory.steps[kept]
    return spread_evenly(1 + np.flatnonzero(np.diff(steps) == 1), MOST_PAIRS)


@np.errstate(over="ignore", invalid="ignore")  # squares of a run that diverges
def _law(run: Run, *, with_remainder: bool = True) -> Prediction:
    """Largest entry of D' minus its value by the law, over all pairs of blocks, at records one step apart."""
    traj, pairs = run.trajectory, _pairs(run)
    assert traj is not None
    chosen = _one_step_apart(run)
    deviations, bounds = np.zeros(len(chosen)), np.zeros(len(chosen))
    for i, record in enumerate(chosen):
        before, after = traj.state(int(record) - 1), traj.state(int(record))
        gradients, errors = _gradients(run, before)
        lr = float(run.rates[int(traj.steps[record - 1])])
        for U, V in pairs:
            decay = run.coupled[U] + run.decoupled[U]
            D, D_next = (
                imbalance(np.asarray(state[U], np.float64), np.asarray(state[V], np.float64))
                for state in (before, after)
            )
            share = 1.0 if with_remainder else 0.0
            expected = next_imbalance(D, share * gradients[U], share * gradients[V], lr, decay)
            deviations[i] = np.maximum(deviations[i], np.abs(D_next - expected).max())
            rounding = _rounding(run, before, after, gradients, errors, (U, V), lr, decay)
            bounds[i] = np.maximum(bounds[i], rounding)
    bounds = np.where(np.isfinite(bounds) & np.isfinite(deviations), bounds, np.inf)  # beyond float64
    quantity = "U^T U - V V^T of adjacent layers one step on, minus its law,"
    return Prediction(quantity, np.zeros(len(chosen)), deviations, bounds)


def _without_remainder(run: Run) -> Prediction:
    return _law(run, with_remainder=False)


def _gradients(run: Run, state: Blocks) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Gradient of the fit by every block of a linear chain, and a bound on its rounding error entry by entry.

    Products are off by (number of terms) eps times those of the absolute values. A residual of squared error is off by
    that of its logit; one of cross-entropy by p (2 max_k |dz_k| + (K + 8) eps max(1, |z|)), and by eps for p - y.
    """
    problem, eps = run.problem, float(np.finfo(run.dtype).eps)
    K, N, loss = problem.classes, problem.samples, problem.loss
    blocks = {name: np.asarray(state[name], np.float64) for name in problem.blocks}
    inputs, sizes = [blocks["H"]], [np.abs(blocks["H"])]
    for layer in range(1, problem.depth + 1):
        inputs.append(blocks[f"W{layer}"] @ inputs[-1])
        sizes.append(np.abs(blocks[f"W{layer}"]) @ sizes[-1])
    Z, size = inputs[-1], sizes[-1]
    if problem.bias:
        Z, size = Z + blocks["b"][:, None], size + np.abs(blocks["b"])[:, None]
    terms = sum(problem.widths) + problem.depth + K + N + 8
    in_logits = terms * eps * size
    weight = 1 / N if loss.reduction == "mean" else 1.0
    Y = np.eye(K)[:, problem.labels]
    if isinstance(loss, MSE):
        R, in_R = weight * (Z - Y), weight * (in_logits + 2 * eps * (np.abs(Z) + Y))
    else:
        Y = problem.targets if problem.targets is not None else (1 - loss.smoothing) * Y + loss.smoothing / K
        P = np.exp(Z - Z.max(axis=0))
        P *= Y.sum(axis=0) / P.sum(axis=0)
        R = weight * (P - Y)
        relative = 2 * in_logits.max(axis=0) + (K + 8) * eps * np.maximum(np.abs(Z).max(axis=0), 1.0)
        relative = np.minimum(relative, 1.0)  # probabilities lie between 0 and 1 whatever the logits
        in_R = weight * (P * relative + 2 * eps * (P + Y))
    gradients, errors = {}, {}
    back, back_size = R, np.abs(R)
    in_back = in_R
    for layer in range(problem.depth, 0, -1):
        W = blocks[f"W{layer}"]
        gradients[f"W{layer}"] = back @ inputs[layer - 1].T
        errors[f"W{layer}"] = (in_back + 2 * terms * eps * back_size) @ sizes[layer - 1].T
        back, back_size, in_back = W.T @ back, np.abs(W).T @ back_size, np.abs(W).T @ in_back
    gradients["H"], errors["H"] = back, in_back + 2 * terms * eps * back_size
    return gradients, errors


def _rounding(
    run: Run,
    before: Blocks,
    after: Blocks,
    gradients: dict[str, np.ndarray],
    errors: dict[str, np.ndarray],
    pair: tuple[str, str],
    lr: float,
    decay: float,
) -> float:
    """Largest error of an entry of D'.

    A step is off by 8 eps ((1 + eta lam) |B| + eta |grad|) and eta times the gradient's error.
    """
    eps, total = float(np.finfo(run.dtype).eps), 0.0
    for block, turned in zip(pair, (False, True), strict=True):
        arrays = (before[block], after[block], gradients[block], errors[block])
        B, after_B, g, in_g = (np.abs(np.asarray(A.T if turned else A, np.float64)) for A in arrays)
        off = 8 * eps * ((1 + lr * decay) * B + lr * g) + lr * in_g
        in_products = off.T @ after_B + after_B.T @ off + off.T @ off
        in_gradients = lr**2 * (in_g.T @ g + g.T @ in_g)
        in_sums = (len(B) + 8) * 2.0**-52 * (B.T @ B + after_B.T @ after_B + lr**2 * g.T @ g)
        total += float((in_products + in_gradients + in_sums).max())
    return total


CLAIMS = (
    Claim(
        name="ufm.balancedness",
        statement=(
            "Gradient descent at the rate eta with decay lam on both of two adjacent linear layers U V takes "
            "D = U^T U - V V^T to (1 - eta lam)^2 D + eta^2 (grad_U^T grad_U - grad_V grad_V^T), exactly: any loss, "
            "depth, batch and schedule. For the UFM U = W, V = H."
        ),
        source=Source(
            FLOW, "conservation under gradient flow; discrete law with decay derived here", "recalled"
        ),
        room="balancedness",
        figure="cross_entropy_optimum",
        layers={
            "symbolic": "proved for matrices of any size; that a chain's adjacent layers share one M: proved for K = 2",
            "simulation": "up to 64 pairs of records one step apart; dropping the remainder is refused",
        },
        applies=_no_law,
        predict=_law,
        control=_without_remainder,
        rank=1,
    ),
    Claim(
        name="ufm.balance_at_critical_points",
        statement=(
            "At every critical point of an objective with decay lam_U, lam_V of adjacent linear layers, "
            "lam_U U^T U = lam_V V V^T; so lam_W ||W||_F^2 = lam_H ||H||_F^2 in the UFM, whatever the loss."
        ),
        source=Source(FLOW, "its form with decay, derived here", "derived here"),
        room="balancedness",
        layers={"symbolic": "proved for matrices of any size"},
    ),
)
