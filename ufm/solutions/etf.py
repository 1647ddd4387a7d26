"""Cross-entropy with one layer and equal classes: the simplex, its merged-class saddles, and a fixed classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ufm.checks import whole
from ufm.decay import per_block
from ufm.errors import IncompatibleError, InvalidProblemError, invalid
from ufm.losses import CrossEntropy
from ufm.normalisation import other_features
from ufm.solutions.chain import LARGEST_RATE, placed
from ufm.solutions.solution import Solution, check_problem, solution
from ufm.theory import cross_entropy_optimum as theory
from ufm.theory.cross_entropy_optimum import Terms

if TYPE_CHECKING:
    from ufm.decay import Decay
    from ufm.problems import Problem


def simplex(problem: Problem, decay: Decay | None) -> Solution:
    """Global minimum of the cross-entropy UFM with equal classes: a simplex ETF, or zero under strong decay.

    Classes are points, h_k = sqrt(lam_W/(n lam_H)) w_k, W W^T = m sqrt(n lam_H/lam_W) (I - J/K), the bias is 0. Where
    K sqrt(n lam_W lam_H) >= 1 - eps zero is the global minimum. See `ufm.theory.cross_entropy_optimum`.

    Parameters
    ----------
    problem : UFM
        Cross-entropy against class labels, smoothed or not, classes of equal size, width at least K - 1, all blocks
        trained; with or without a bias.
    decay : Coupled
        A rate > 0 for W and H.

    Returns
    -------
    Solution

    Raises
    ------
    InvalidProblemError, IncompatibleError
        For a problem whose minimum is another, in one sentence.

    Examples
    --------
    >>> import ufm
    >>> found = simplex(ufm.UFM(classes=4, width=6, per_class=5), ufm.Coupled(W=5e-3, H=1e-3))
    >>> round(found.loss, 10), found.rank, found.optimum
    (0.0943616937, 3, True)
    """
    check_problem("simplex", problem)
    terms, K = _terms("simplex", problem, decay), problem.classes
    if min(problem.widths) < K - 1 and not _at_origin(terms, K):
        raise invalid("simplex.problem.width", min(problem.widths), f"at least classes - 1 = {K - 1}")
    if _at_origin(terms, K):
        arrays = {block: np.zeros(shape) for block, shape in problem.shapes.items()}
        return solution("zero", problem, arrays, terms.scale * float(np.log(K)), 0, optimum=True)
    best = theory.merged_optimum((1,) * K, terms.decay, terms.smoothing)
    return _state("simplex ETF", problem, terms, [[k] for k in range(K)], best, optimum=True)


def merged(problem: Problem, decay: Decay | None, groups: Sequence[Sequence[int]]) -> Solution:
    """Best state in which the classes of every group are one point: a strict saddle of the cross-entropy UFM.

    Parameters
    ----------
    problem, decay
        As for `simplex`, but that the groups must fit: width at least their number less 1.
    groups : sequence of sequences of int
        Class numbers, every class in one group, at least two groups and one of two classes or more.

    Returns
    -------
    Solution

    Raises
    ------
    InvalidProblemError, IncompatibleError
        For groups that are no partition, for a decay so strong that the groups merge, and for another problem.

    Examples
    --------
    >>> import ufm
    >>> problem, decay = ufm.UFM(classes=4, width=6, per_class=3), ufm.Coupled(W=5e-3, H=1e-3)
    >>> found = merged(problem, decay, [[0, 1], [2, 3]])
    >>> found.name, round(found.loss, 7), found.rank
    ('merged 2+2', 0.738513, 1)
    """
    check_problem("merged", problem)
    terms, K = _terms("merged", problem, decay), problem.classes
    found = _partition(groups, K)
    if min(problem.widths) < len(found) - 1:
        raise invalid("merged.problem.width", min(problem.widths), f"at least groups - 1 = {len(found) - 1}")
    if _at_origin(terms, K):
        raise invalid("merged.decay", decay, "a weaker decay: at this one the groups merge at zero")
    sizes = [len(group) for group in found]
    best = theory.merged_optimum(sizes, terms.decay, terms.smoothing, terms.bias)
    name = "merged " + "+".join(str(size) for size in sorted(sizes, reverse=True))
    return _state(name, problem, terms, found, best)


def polygon(problem: Problem, decay: Decay | None) -> Solution:
    """Regular polygon in two dimensions, a critical state; at width 2 the best that is found for 4 and 5 classes.

    Parameters
    ----------
    problem : UFM
        As for `simplex`, at least four classes and width at least 2.
    decay : Coupled
        A rate > 0 for W and H.

    Returns
    -------
    Solution

    Raises
    ------
    InvalidProblemError, IncompatibleError
        For three classes or fewer, a decay so strong that the polygon shrinks to zero, and another problem.

    Examples
    --------
    >>> import ufm
    >>> found = polygon(ufm.UFM(classes=5, width=2, per_class=3), ufm.Coupled(W=4e-3, H=2e-3))
    >>> round(found.loss, 7), found.rank
    (0.1778283, 2)
    """
    check_problem("polygon", problem)
    terms, K = _terms("polygon", problem, decay), problem.classes
    if K < 4:
        raise invalid("polygon.problem.classes", K, "at least 4: fewer corners are a simplex")
    if min(problem.widths) < 2:
        raise invalid("polygon.problem.width", min(problem.widths), "at least 2")
    if _at_origin(terms, K):
        raise invalid("polygon.decay", decay, "a weaker decay: at this one the polygon has shrunk to zero")
    scale, loss = theory.polygon_optimum(K, terms.kappa(K))
    angles = 2 * np.pi * np.arange(K) / K
    corners = np.sqrt(scale) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    best = theory.Merged(corners, corners, np.zeros(K), loss)
    return _state("polygon", problem, terms, [[k] for k in range(K)], best)


def fixed_simplex(problem: Problem, decay: Decay | None) -> Solution:
    """Optimum of the features under a classifier that is frozen at a simplex ETF of any scale.

    Parameters
    ----------
    problem : UFM
        As for `simplex`, with the classifier frozen, such as ``UFM(..., classifier=SimplexETF("columns"))``, padded
        with zeros or not.
    decay : Coupled
        A rate > 0 for H.

    Returns
    -------
    Solution

    Raises
    ------
    InvalidProblemError, IncompatibleError
        For a classifier that is no simplex, and for another problem.

    Examples
    --------
    >>> import ufm
    >>> problem = ufm.UFM(classes=5, width=7, per_class=3, classifier=ufm.SimplexETF("columns"))
    >>> found = fixed_simplex(problem, ufm.Coupled(H=2e-3))
    >>> round(found.loss, 10), found.optimum
    (0.2238726053, True)
    """
    check_problem("fixed_simplex", problem)
    terms, K = _terms("fixed_simplex", problem, decay, frozen=True), problem.classes
    W = problem.frozen_values[problem.last]
    square = float(np.sum(W**2)) / K
    gram = square * K / (K - 1) * (np.eye(K) - 1 / K)
    if not (square > 0 and np.abs(W @ W.T - gram).max() <= 64 * K * np.finfo(float).eps * square):
        raise invalid(
            "fixed_simplex: the frozen classifier", W, "a simplex ETF, rows w_k with W W^T ~ I - J/K"
        )
    best = theory.fixed_classifier_optimum(
        K, terms.per_class, terms.features, np.sqrt(square), terms.smoothing
    )
    # h_k = t w_k/s with m = s t K/(K-1)
    means = best.margin * (K - 1) / (K * square) * W.T
    arrays = {"H": means[:, problem.labels], problem.last: W}
    if problem.bias:
        arrays["b"] = np.zeros(K)
    rank = K - 1 if best.margin > 0 else 0
    return solution("fixed simplex", problem, arrays, terms.scale * best.loss, rank, optimum=True)


def _terms(where: str, problem: Problem, decay: Decay | None, *, frozen: bool = False) -> Terms:
    """Rates of a problem with the closed forms of this module, or the hypothesis that fails in one sentence."""
    loss = problem.loss
    if problem.depth != 1:
        raise invalid(f"{where}.problem.depth", problem.depth, "1")
    reason = other_features(problem)
    if reason is not None:
        raise IncompatibleError(f"{where}: {reason}; allowed: a problem without normalisation.")
    if not isinstance(loss, CrossEntropy) or loss.targets is not None:
        raise IncompatibleError(
            f"{where}: problem.loss is {loss!r}; allowed: cross-entropy against class labels."
        )
    held = [block for block in problem.blocks if block not in problem.trained]
    if held != ([problem.last] if frozen else []):
        wanted = "the classifier frozen and nothing else" if frozen else "every block trained"
        raise IncompatibleError(f"{where}: the frozen blocks are {held}; allowed: {wanted}.")
    if len(set(problem.class_sizes)) > 1:
        raise invalid(f"{where}: problem.per_class", problem.per_class, "classes of equal size")
    coupled, decoupled = per_block(decay, problem)
    for block in problem.trained:
        if decoupled[block]:
            raise invalid(f"{where}: decoupled decay of {block}", decoupled[block], "coupled decay alone")
        if block != "b" and not 1 / LARGEST_RATE <= coupled[block] <= LARGEST_RATE:
            raise invalid(
                f"{where}: coupled decay of {block}",
                coupled[block],
                f"a number > 0, from {1 / LARGEST_RATE:g} to {LARGEST_RATE:g}",
            )
    return theory.terms_of(problem, coupled)


def _at_origin(terms: Terms, classes: int) -> bool:
    """Whether the decay is so strong that zero is the optimum."""
    return terms.kappa(classes) * classes >= 1


def _partition(groups: Sequence[Sequence[int]], classes: int) -> list[list[int]]:
    """The groups as lists of class numbers."""
    allowed = (
        f"a partition of the classes 0 ... {classes - 1} into 2 ... {classes - 1} groups, as [[0, 1], [2, 3]]"
    )
    try:
        found = [[whole("merged.groups", k, 0, classes - 1) for k in group] for group in groups]
    except (TypeError, InvalidProblemError):
        raise invalid("merged.groups", groups, allowed) from None
    everyone = sorted(k for group in found for k in group)
    if everyone != list(range(classes)) or not all(found) or not 2 <= len(found) < classes:
        raise invalid("merged.groups", groups, allowed)
    return found


def _state(
    name: str,
    problem: Problem,
    terms: Terms,
    groups: Sequence[Sequence[int]],
    best: theory.Merged,
    *,
    optimum: bool = False,
) -> Solution:
    """The state whose rows of W and class means are those of the groups, balanced between W and H."""
    basis, rank = np.zeros((problem.classes, len(groups))), best.rows.shape[1]
    bias = np.zeros(problem.classes)
    for g, group in enumerate(groups):
        basis[list(group), g] = 1 / np.sqrt(len(group))
        bias[list(group)] = best.bias[g]
    # lam_W ||W||^2 = n lam_H ||class means||^2 in every direction
    ratio = (terms.per_class * terms.features / terms.classifier) ** 0.25
    arrays = {
        problem.last: placed(problem, problem.last, [ratio * basis @ best.rows]),
        "H": placed(problem, "H", [best.columns.T @ basis.T / ratio]),
    }
    if problem.bias:
        arrays["b"] = bias
    return solution(name, problem, arrays, terms.scale * best.loss, rank, optimum=optimum)
