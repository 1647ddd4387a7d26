"""The optimum of cross-entropy with any class sizes, from the convex problem that it comes down to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ufm.decay import per_block
from ufm.solutions.solution import Solution, check_problem, solution
from ufm.theory.minority_collapse import class_means, groups, optimum, rank, require_width

if TYPE_CHECKING:
    from ufm.decay import Decay
    from ufm.problems import Problem


def imbalanced_optimum(problem: Problem, decay: Decay) -> Solution:
    """Global optimum of the cross-entropy UFM with any class sizes, small classes merged where the decay is strong.

    The class means solve the convex problem of `ufm.theory.minority_collapse`, whose duality gap is at most 1e-8
    of the objective (usually it is round-off); W and H are its factors of least penalty, lam_W W^T W = lam_H H H^T.

    Parameters
    ----------
    problem : UFM
        With cross-entropy against class labels, all blocks trained, with or without a bias, width at least the rank of
        the optimum (K - 1 suffices).
    decay : Coupled
        Rates > 0 on W and H, >= 0 on b.

    Returns
    -------
    Solution

    Raises
    ------
    InvalidProblemError, IncompatibleError
        For a problem whose optimum is another, in one sentence.

    Examples
    --------
    >>> import ufm
    >>> problem, decay = ufm.UFM(4, 4, per_class=(20, 20, 2, 2)), ufm.Coupled(0.04)
    >>> found = imbalanced_optimum(problem, decay)
    >>> round(found.loss, 8), found.rank, abs(problem.value(found.blocks, decay) - found.loss) < 1e-14
    (1.00845784, 2, True)
    """
    check_problem("imbalanced_optimum", problem)
    means = optimum(problem, decay)
    require_width("imbalanced_optimum", problem, means)
    coupled, _ = per_block(decay, problem)
    roots, ranked = np.sqrt(problem.class_sizes), rank(problem, means)
    U, values, V = np.linalg.svd(class_means(problem, means) * roots)
    share = np.sqrt(values[:ranked])
    ratio = (coupled["H"] / coupled[problem.last]) ** 0.25
    arrays = {block: np.zeros(shape) for block, shape in problem.shapes.items()}
    arrays[problem.last][:, :ranked] = U[:, :ranked] * (share * ratio)
    columns = (share / ratio)[:, None] * V[:ranked] / roots
    arrays["H"][:ranked] = columns[:, problem.labels]
    if problem.bias:
        for members, value in zip(groups(problem).members, means.bias, strict=True):
            arrays["b"][list(members)] = value
    return solution("imbalanced optimum", problem, arrays, means.value, ranked, optimum=True)
