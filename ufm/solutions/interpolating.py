"""The SELI geometry as a state: where small decay leads, for any class sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ufm.decay import per_block
from ufm.errors import IncompatibleError, invalid
from ufm.solutions.solution import Solution, check_problem, solution
from ufm.theory.minority_collapse import other_model
from ufm.theory.seli import geometry, ray_loss, ray_scale

if TYPE_CHECKING:
    from ufm.decay import Decay
    from ufm.problems import Problem


def seli(problem: Problem, decay: Decay | None = None) -> Solution:
    """The SELI geometry W H = c (Y - J/K), at the margin c of least objective; c = 1, the UF-SVM, without decay.

    With decay it is no stationary state unless the classes have equal size: it is what the optimum tends to, up to
    scale, as the decay vanishes, and a good start for small decay. See `ufm.theory.seli`.

    Parameters
    ----------
    problem : UFM
        With cross-entropy against class labels, all blocks trained, no bias, width at least K - 1.
    decay : Coupled, optional
        Rates > 0 on W and H, small enough for a margin > 0.

    Returns
    -------
    Solution

    Raises
    ------
    InvalidProblemError, IncompatibleError
        For another problem, in one sentence.

    Examples
    --------
    >>> import ufm
    >>> from ufm.solutions.imbalance import imbalanced_optimum
    >>> problem, decay = ufm.UFM(4, 4, per_class=(20, 20, 2, 2)), ufm.Coupled(1e-4)
    >>> found = seli(problem, decay)
    >>> round(found.loss, 8), round(imbalanced_optimum(problem, decay).loss, 8)
    (0.00836455, 0.00825911)
    """
    check_problem("seli", problem)
    coupled, decoupled = per_block(decay, problem)
    rates = dict.fromkeys(coupled, 1.0) if decay is None else coupled
    reason = "the problem has a bias" if problem.bias else other_model(problem, rates, decoupled)
    if reason is not None:
        raise IncompatibleError(
            f"seli: {reason}; allowed: a UFM with cross-entropy, no bias, coupled decay > 0 on W and H or none."
        )
    K, found = problem.classes, geometry(problem.class_sizes)
    if problem.widths[0] < K - 1:
        raise invalid("seli.problem.width", problem.widths[0], f"at least classes - 1 = {K - 1}")
    scale, lam = 1.0, 0.0
    if decay is not None:
        lam = float(np.sqrt(rates["H"]) * np.sqrt(rates[problem.last]))
        if not lam * found.norm < (K - 1) / K:
            allowed = f"below {(K - 1) / (K * found.norm):.6g}, else the best margin is 0"
            raise invalid("seli: sqrt(lam_W lam_H)", lam, allowed)
        scale = float(ray_scale(K, lam, found.norm))
    ratio = (rates["H"] / rates[problem.last]) ** 0.25
    share = np.sqrt(scale * found.singular_values)
    arrays = {block: np.zeros(shape) for block, shape in problem.shapes.items()}
    arrays[problem.last][:, : K - 1] = found.vectors * (share * ratio)
    # P = V V^T, so the class means are V^T P scale/share
    columns = (scale / (share * ratio))[:, None] * found.vectors.T
    arrays["H"][: K - 1] = columns[:, problem.labels]
    return solution("SELI", problem, arrays, float(ray_loss(scale, K, lam, found.norm)), K - 1)
