"""The optimum of one layer with squared error and a bias that decays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ufm.decay import per_block
from ufm.errors import IncompatibleError, invalid
from ufm.solutions.chain import LARGEST_RATE, Rates, balanced_pair, placed
from ufm.solutions.solution import Solution, check_problem, solution
from ufm.theory import mse_bias

if TYPE_CHECKING:
    from ufm.decay import Decay
    from ufm.problems import Problem


def biased_optimum(problem: Problem, decay: Decay | None) -> Solution:
    """Global optimum of one layer with squared error and a decaying bias: simplex ETF, or a frame with NC0 > 0.

    See `ufm.theory.mse_bias`. Without decay of the bias it is the state of `linear_optimum`, up to a rotation.

    Parameters
    ----------
    problem : UFM or DUFM of one layer
        Squared error, a bias, classes of equal size, all blocks trained, at least as wide as the optimum's rank.
    decay : Coupled
        Rates > 0 of W and H; that of b may be 0.

    Returns
    -------
    Solution

    Raises
    ------
    InvalidProblemError, IncompatibleError
        For a problem whose optimum is another one, in one sentence.

    Examples
    --------
    >>> import ufm
    >>> problem, decay = ufm.UFM(4, 6, 5, loss="mse", bias=True), ufm.Coupled(W=5e-3, H=2e-3, b=0.08)
    >>> found = biased_optimum(problem, decay)
    >>> found.rank, round(found.loss, 9), round(problem.value(found.blocks, decay), 9)
    (4, 0.026634271, 0.026634271)
    """
    check_problem("biased_optimum", problem)
    coupled, decoupled = per_block(decay, problem)
    if any(decoupled.values()):
        raise IncompatibleError(
            f"biased_optimum: decay is {decay!r}; allowed: Coupled, the decay in the objective."
        )
    reason = mse_bias.another_problem(problem, coupled)
    if reason is not None:
        raise IncompatibleError(
            f"biased_optimum: {reason}; allowed: one layer with a bias, squared error, equal classes, width >= rank."
        )
    for block, rate in coupled.items():
        least = 0.0 if block == "b" else 1 / LARGEST_RATE
        if not least <= rate <= LARGEST_RATE:
            allowed = f"a number from {least:g} to {LARGEST_RATE:g}"
            raise invalid(f"biased_optimum: coupled decay of {block}", rate, allowed)
    K, n, best = problem.classes, problem.class_sizes[0], mse_bias.optimum_of(problem, coupled)
    along = np.full((K, K), 1 / K)
    means = best.centred * (np.eye(K) - along) + best.mean * along
    rank = (K - 1) * (best.centred > 0) + (best.mean > 0)
    W, H = balanced_pair(means, Rates(coupled["H"], (coupled[problem.last],), n), rank)
    arrays = {
        "H": placed(problem, "H", [H]),
        problem.last: placed(problem, problem.last, [W]),
        "b": np.full(K, best.beta),
    }
    return solution("optimum with bias decay", problem, arrays, best.loss, rank, optimum=True)
