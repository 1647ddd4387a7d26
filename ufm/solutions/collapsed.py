"""Solutions in which every class is one point: deep neural collapse, the optimum of a linear chain, and zero."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ufm.decay import Coupled, Decay, per_block
from ufm.errors import IncompatibleError, invalid
from ufm.losses import MSE, CrossEntropy
from ufm.solutions.chain import LARGEST_RATE
from ufm.solutions.pairs import cross_entropy_dnc
from ufm.solutions.solution import Solution, check_problem, solution
from ufm.theory.deep_collapse import (
    Decays,
    decays_of,
    existence_limit,
    other_objective,
    shortfall,
    stationary_loss,
)
from ufm.theory.linear_mse import Directions, Optimum, direction_strength, directions, factor_share, optimum

if TYPE_CHECKING:
    from ufm.problems import Problem


def dnc(problem: Problem, decay: Decay) -> Solution:
    """Deep neural collapse: every class is one point in each layer, at any depth.

    With squared error each class owns one unit of every layer; with cross-entropy the class means of the logits form
    a simplex (linear layers carry it in K - 1 dimensions; under ReLU hidden class means are orthogonal).

    Squared error: class k stays on one axis: W_l = sum_k sqrt(c_k/lam_l) e_k e_k^T, and H has
    sqrt(c_k/(lam_H n_k)) e_k for its samples, c_k = gamma_k (1 - gamma_k) n_k/N. The state is stationary with ReLU and
    without it, also where zero has the smaller objective (`ufm.theory.deep_collapse.zero_limit`). With unequal classes
    it is the general orthogonal frame, each class at its own gain.

    Parameters
    ----------
    problem : UFM or DUFM
        Without bias, all blocks trained, every width at least the number of classes (one less for linear layers under
        cross-entropy, which asks for classes of equal size).
    decay : Coupled
        A rate > 0 for every block.

    Returns
    -------
    Solution

    Raises
    ------
    InvalidProblemError, IncompatibleError
        For a problem without this solution, in one sentence.

    Examples
    --------
    >>> import ufm
    >>> found = dnc(ufm.DUFM(classes=10, width=30, depth=4), ufm.Coupled(0.004))
    >>> round(found.loss, 8), found.rank
    (0.09917987, 10)
    """
    check_problem("dnc", problem)
    if isinstance(problem.loss, CrossEntropy):
        return cross_entropy_dnc(problem, decay)
    terms = _terms("dnc", problem, decay)
    if problem.bias:
        raise IncompatibleError("dnc: the problem has a bias; allowed: bias=False.")
    if min(problem.widths) < problem.classes:
        raise invalid("dnc.problem.width", problem.widths, f"widths of at least classes = {problem.classes}")
    found = directions(problem.class_sizes)
    strengths = np.array([direction_strength(n, terms.samples, *terms[:2]) for n in found.squares])
    missing = shortfall(strengths, problem.depth)
    if (missing == 1).any():
        most = existence_limit(problem.depth)
        raise invalid(
            "dnc.decay",
            decay,
            f"decay so small that D Lam = {strengths.max():.6g} is at most {most:.6g}, else classes collapse to zero",
        )
    gains = 1 - missing
    loss = float(np.sum(found.squares / terms.samples * stationary_loss(gains, problem.depth, missing)))
    return _aligned("DNC", problem, terms, found, Optimum(gains, missing, loss))


def linear_optimum(problem: Problem, decay: Decay) -> Solution:
    """Global optimum of a linear chain with squared error: any class sizes and widths, no bias or a free one.

    Classes (with a bias, singular directions of the centred targets) for which zero is better are lost: minority
    collapse. See `ufm.theory.linear_mse`.

    Parameters
    ----------
    problem : UFM or DUFM
        With squared error and activation "identity", all blocks trained.
    decay : Coupled
        A rate > 0 for every block but the bias, whose rate must be 0.

    Returns
    -------
    Solution

    Raises
    ------
    InvalidProblemError, IncompatibleError
        For a problem whose optimum is not known in closed form, in one sentence.

    Examples
    --------
    >>> import ufm
    >>> problem = ufm.DUFM(4, 8, depth=3, per_class=[40, 20, 10, 4], activation="identity")
    >>> found = linear_optimum(problem, ufm.Coupled(3e-3))
    >>> round(found.loss, 12), found.rank
    (0.046523157198, 4)
    """
    check_problem("linear_optimum", problem)
    terms = _terms("linear_optimum", problem, decay)
    if problem.activation != "identity":
        raise invalid("linear_optimum.problem.activation", problem.activation, "'identity'")
    if problem.bias and (rate := per_block(decay, problem)[0]["b"]):
        raise invalid("linear_optimum.decay.b", rate, "0: the closed form is that of a bias without decay")
    found = directions(problem.class_sizes, problem.bias)
    best = optimum(found.squares, *terms[:2], samples=terms.samples, rank=min(problem.widths))
    return _aligned("linear optimum", problem, terms, found, best)


def zero(problem: Problem, decay: Decay | None = None) -> Solution:
    """All weights and features 0, the bias at the best constant: stationary whatever the decay.

    Parameters
    ----------
    problem : UFM or DUFM
        With squared error, or with cross-entropy against class labels and without bias; all blocks trained.
    decay : Coupled, optional
        Only that of the bias matters.

    Returns
    -------
    Solution

    Raises
    ------
    IncompatibleError
        For frozen blocks, decoupled decay or another loss, in one sentence.

    Examples
    --------
    >>> import ufm
    >>> zero(ufm.DUFM(classes=10, width=30, depth=4), ufm.Coupled(0.004)).loss
    0.5
    """
    check_problem("zero", problem)
    _coupled_only("zero", decay)
    if problem.normalisation is not None:
        raise IncompatibleError(
            f"zero: problem.normalisation is {problem.normalisation!r}; allowed: a problem without, whose features can "
            "be 0."
        )
    if problem.frozen_values:
        raise IncompatibleError(
            f"zero: {', '.join(problem.frozen_values)} is frozen; allowed: trained blocks alone."
        )
    arrays = {block: np.zeros(shape) for block, shape in problem.shapes.items()}
    loss, sizes = problem.loss, np.asarray(problem.class_sizes, dtype=float)
    if isinstance(loss, MSE):
        N = problem.samples
        scale = N if loss.reduction == "mean" else 1
        value = N / (2 * scale)
        if problem.bias:
            arrays["b"] = sizes / (N + scale * per_block(decay, problem)[0]["b"])
            value -= float(sizes @ arrays["b"]) / (2 * scale)
    elif isinstance(loss, CrossEntropy) and loss.targets is None and not problem.bias:
        value = float(np.log(problem.classes)) * (1 if loss.reduction == "mean" else problem.samples)
    else:
        raise IncompatibleError(
            f"zero: the loss is {loss!r} with bias={problem.bias}; allowed: squared error, or cross-entropy "
            "against class labels without bias."
        )
    return solution("zero", problem, arrays, value, 0)


def _coupled_only(name: str, decay: Decay | None) -> None:
    """Refuse decay outside the objective: what is stationary with it is another state."""
    if decay is not None and not isinstance(decay, Coupled):
        raise IncompatibleError(f"{name}: decay is {decay!r}; allowed: Coupled, the decay in the objective.")


def _terms(name: str, problem: Problem, decay: Decay) -> Decays:
    """Decays of the problem, or one sentence on why it has another objective."""
    _coupled_only(name, decay)
    coupled, _ = per_block(decay, problem)
    reason = other_objective(problem, coupled)
    if reason is not None:
        raise IncompatibleError(
            f"{name}: {reason}; allowed: squared error, all blocks trained, a coupled rate > 0 for each."
        )
    for block, rate in coupled.items():
        if rate > LARGEST_RATE:
            raise invalid(f"{name}: coupled decay of {block}", rate, f"a number up to {LARGEST_RATE:g}")
    return decays_of(problem, coupled)


def _aligned(name: str, problem: Problem, terms: Decays, found: Directions, best: Optimum) -> Solution:
    """The state whose factors are diagonal in the singular directions of the targets, each with an equal share."""
    kept = np.flatnonzero(best.gains)
    squares, vectors = found.squares[kept], found.vectors[:, kept]
    share = factor_share(best.gains[kept], best.shortfalls[kept], terms.samples / squares)
    arrays = {block: np.zeros(shape) for block, shape in problem.shapes.items()}
    # columns of the features: sigma_i v_i = Y^T u_i, centred where there is a bias (U has no part along 1 then)
    right = vectors[problem.labels].T / np.sqrt(squares)[:, None]
    if problem.bias:
        arrays["b"] = np.asarray(problem.class_sizes) / problem.samples
        right -= (vectors.T @ arrays["b"] / np.sqrt(squares))[:, None]
    axes = np.arange(len(kept))
    arrays["H"][axes] = np.sqrt(share / terms.features)[:, None] * right
    for layer, rate in enumerate(terms.weights[:-1], start=1):
        arrays[f"W{layer}"][axes, axes] = np.sqrt(share / rate)
    arrays[problem.last][:, axes] = vectors * np.sqrt(share / terms.weights[-1])
    return solution(name, problem, arrays, best.loss, len(kept), optimum=name == "linear optimum")
