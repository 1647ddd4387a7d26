"""Cross-entropy states at every depth: neural collapse, and the low-rank states in which classes oppose in pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ufm.errors import invalid
from ufm.losses import CrossEntropy
from ufm.solutions.chain import Rates, balanced_pair, placed, rates_of, require_widths
from ufm.solutions.solution import Solution, check_problem, solution
from ufm.theory import deep_cross_entropy as theory
from ufm.theory.deep_collapse import geometric_decay

if TYPE_CHECKING:
    from ufm.decay import Decay
    from ufm.problems import Problem

_OPPOSED = np.array([[1.0, -1.0], [-1.0, 1.0]])


def low_rank(problem: Problem, decay: Decay | None) -> Solution:
    """The state of a cross-entropy problem in which classes 0 and 1, 2 and 3, ... oppose each other.

    Linear layers: class means of the logits b blockdiag((1, -1; -1, 1)), rank K/2; an odd K has one more class with
    logit b of its own, and the state, best in its scale, is then no critical point. ReLU: theorem 7 of Garrod and
    Keating (arXiv 2410.23169), class means X + J in every hidden layer; its zeros lie on the kink of the ReLU.

    Parameters
    ----------
    problem : UFM or DUFM
        Cross-entropy, classes of equal size, all blocks trained, no bias; even classes under ReLU.
    decay : Coupled
        A rate > 0 for every block.

    Returns
    -------
    Solution

    Raises
    ------
    InvalidProblemError, IncompatibleError
        For an odd number of classes under ReLU, a layer that is too narrow, a decay so strong that the state has
        shrunk to zero, or another problem.

    Examples
    --------
    >>> import ufm
    >>> problem, decay = ufm.DUFM(10, 70, 2, per_class=5, activation="identity", loss="ce"), ufm.Coupled(2**-10)
    >>> found = low_rank(problem, decay)
    >>> found.rank, round(found.loss, 8), round(problem.value(found.blocks, decay), 8)
    (5, 0.08001266, 0.08001266)
    """
    from scipy.linalg import block_diag

    check_problem("low_rank", problem)
    rates, K = rates_of("low_rank", problem, decay, CrossEntropy), problem.classes
    relu = _is_relu(problem)
    if relu and K % 2:
        raise invalid("low_rank: problem.classes", K, "an even number under ReLU")
    scale = _scale("low_rank", problem, decay, rates, "low_rank")
    X = block_diag(*[_OPPOSED] * (K // 2), *[[[1.0]]] * (K % 2))
    if not relu:
        pairs = block_diag(*[[[1.0, -1.0]]] * (K // 2), *[[[1.0]]] * (K % 2))
        frame = pairs / np.linalg.norm(pairs, axis=1)[:, None]
        return _linear("low rank", problem, rates, "low_rank", frame, scale * X)
    J = np.ones((K, K))
    return _relu("low rank", problem, rates, "low_rank", (X + J, X + 2 * J / K, X), scale)


def cross_entropy_dnc(problem: Problem, decay: Decay | None) -> Solution:
    """Deep neural collapse with cross-entropy: class means of the logits at a simplex, a (I - J/K).

    Linear layers hold the simplex in K - 1 dimensions; under ReLU the class means of every hidden layer are
    orthogonal, and W_L takes them to the simplex.

    Parameters and errors are those of `low_rank`; any number of classes.

    Examples
    --------
    >>> import ufm
    >>> problem, decay = ufm.DUFM(10, 70, 2, per_class=5, activation="identity", loss="ce"), ufm.Coupled(2**-10)
    >>> found = cross_entropy_dnc(problem, decay)
    >>> found.rank, round(found.loss, 8), round(problem.value(found.blocks, decay), 8)
    (9, 0.09066218, 0.09066218)
    """
    from scipy.linalg import helmert

    rates, K = rates_of("dnc", problem, decay, CrossEntropy), problem.classes
    scale = _scale("dnc", problem, decay, rates, "dnc")
    simplex, identity = np.eye(K) - 1 / K, np.eye(K)
    if not _is_relu(problem):
        return _linear("DNC", problem, rates, "dnc", helmert(K), scale * simplex)
    return _relu("DNC", problem, rates, "dnc", (identity, identity, simplex), scale)


def _is_relu(problem: Problem) -> bool:
    return problem.activation == "relu" and problem.depth >= 2


def _scale(where: str, problem: Problem, decay: Decay | None, rates: Rates, state: str) -> float:
    """Best scale of the pattern; refused where it is zero."""
    activation = "relu" if _is_relu(problem) else "identity"
    scale = theory.critical_scale(problem.classes, problem.depth, geometric_decay(*rates), state, activation)
    if not scale:
        raise invalid(f"{where}.decay", decay, "a weaker decay: at this one the state has shrunk to zero")
    return scale


def _linear(
    name: str, problem: Problem, rates: Rates, state: str, frame: np.ndarray, means: np.ndarray
) -> Solution:
    """Class means of Z, symmetric >= 0 with the rows of `frame` as eigenvectors, shared evenly among the factors."""
    rank, depth = len(frame), problem.depth
    require_widths(name, problem, (rank,) * depth)
    values = np.einsum("ij,jk,ik->i", frame, means, frame)
    # rate times squared norm of each factor, direction by direction
    share = geometric_decay(*rates) * values ** (2 / (depth + 1))
    arrays = {"H": placed(problem, "H", [np.sqrt(share / (rates.samples * rates.features))[:, None] * frame])}
    for layer, rate in enumerate(rates.weights, 1):
        weights = np.diag(np.sqrt(share / rate))
        arrays[f"W{layer}"] = placed(problem, f"W{layer}", [frame.T @ weights if layer == depth else weights])
    loss = theory.loss(problem.classes, *rates, state)
    return solution(name, problem, arrays, loss, rank)


def _relu(
    name: str,
    problem: Problem,
    rates: Rates,
    state: str,
    pattern: tuple[np.ndarray, np.ndarray, np.ndarray],
    scale: float,
) -> Solution:
    """Class means of H_2, layers 2 ... L-1 and W_L of this pattern; every factor has the same penalty."""
    features, between, last = pattern
    K, depth = problem.classes, problem.depth
    rank = int(np.linalg.matrix_rank(features))
    require_widths(name, problem, (rank,) + (K,) * (depth - 1))
    price = theory.cost(K, depth, state, "relu")
    share = geometric_decay(*rates) * price * scale ** (2 / (depth + 1))
    first = share / (
        np.linalg.norm(features, "nuc") * np.sqrt(rates.samples * rates.features * rates.weights[0])
    )
    W1, H = balanced_pair(first * features, rates, rank)
    arrays = {"H": placed(problem, "H", [H]), "W1": placed(problem, "W1", [W1])}
    for layer, rate in enumerate(rates.weights[1:], 2):
        part = last if layer == depth else between
        arrays[f"W{layer}"] = placed(
            problem, f"W{layer}", [np.sqrt(share / rate) / np.linalg.norm(part) * part]
        )
    loss = theory.loss(K, *rates, state, "relu")
    return solution(name, problem, arrays, loss, rank)
