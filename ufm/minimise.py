"""minimise(problem, decay, ...) -> Minimum: the lowest state that L-BFGS finds from many starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ufm.checks import flag, real, whole
from ufm.decay import Decay
from ufm.errors import InvalidProblemError, invalid
from ufm.initial import Gaussian, Given, Start, draw, is_initialiser
from ufm.problems import Blocks, Problem
from ufm.stepping import progress_bar

if TYPE_CHECKING:
    from ufm.certificates import Certificate
    from ufm.kernels.hessian import Objective

MEMORY = 20  # pairs of steps and gradients that L-BFGS keeps
FALL = 2.0**-50  # relative decrease of the objective in one iteration below which a round ends
SAME = 1e-8  # relative difference of objectives that count as one minimum where starts are counted
ROUNDS = 5  # how often it begins anew, without memory, from where it ended: kinks break its line search


@dataclass(frozen=True, eq=False)
class Minimum:
    """The lowest state found, with what all starts reached.

    Parameters
    ----------
    problem, decay
        What was minimised.
    state : Blocks
        Trained and frozen blocks of the best start's end.
    loss : float
        Objective there.
    losses : ndarray, shape (starts,)
        Objective that every start reached, in the order of the starts.
    gradients : ndarray, shape (starts,)
        Norm of the gradient there; at kinks it need not vanish.
    iterations : ndarray of int, shape (starts,)
        L-BFGS iterations that every start took.
    best : int
        Number of the best start.
    seed : int
        Start i was drawn with seed + i.
    certificate : Certificate or None
        Of the best state; None if not asked for, or if no second derivative is known (a user's loss, normalisation in a
        ReLU chain).
    """

    problem: Problem
    decay: Decay | None
    state: Blocks = field(repr=False)
    loss: float
    losses: np.ndarray
    gradients: np.ndarray = field(repr=False)
    iterations: np.ndarray = field(repr=False)
    best: int
    seed: int
    certificate: Certificate | None

    @property
    def start(self) -> Given:
        """The trained blocks of the best state, as the start of a run."""
        return Given(**{name: self.state[name] for name in self.problem.trained})

    def __str__(self) -> str:
        reached = int((self.losses <= self.loss + SAME * abs(self.loss)).sum())
        lines = [f"lowest objective {self.loss:.10g}, which {reached} of {len(self.losses)} starts reached"]
        if self.certificate is not None:
            lines.append(f"its state: {self.certificate}")
        return "\n".join(lines)


def minimise(
    problem: Problem,
    decay: Decay | None = None,
    *,
    starts: int | Sequence[Any] = 8,
    init: Any = Gaussian(0.1),
    seed: int = 0,
    continuation: Sequence[float] = (),
    iterations: int = 3_000,
    tolerance: float = 1e-10,
    certificate: bool = True,
    progress: bool | None = None,
) -> Minimum:
    """Look for the global minimum of the objective: L-BFGS from many starts.

    Parameters
    ----------
    problem : UFM or DUFM
        What is minimised.
    decay : Coupled, optional
        Its penalty is part of the objective.
    starts : int, or sequence of initialisers and states
        How many starts are drawn from `init`; or the starts themselves: initialisers, `Start`, `Given`, arrays by
        block name.
    init : initialiser or Start
        What a number of starts is drawn from; with starts that are given it has no meaning and is refused.
    seed : int
        Start i is drawn with seed + i, as by ``simulate(..., init=init, seed=seed + i)``.
    continuation : sequence of float
        Factors > 0 of all decay rates, passed through in this order before the decay itself: (16, 8, 4, 2) begins
        where fewer directions survive. Empty by default.
    iterations : int
        Most L-BFGS iterations of every start, at every factor.
    tolerance : float
        A start ends where the largest entry of the gradient is at most this, or where the objective no longer falls.
    certificate : bool
        Whether the best state is certified.
    progress : bool, optional
        Show a progress bar over the starts.

    Returns
    -------
    Minimum

    Raises
    ------
    IncompatibleError
        For decoupled decay, which has no objective.
    InvalidProblemError
        For other arguments that are not allowed, or if no start reached a finite loss.

    Notes
    -----
    Nothing says that the lowest of the starts is the global minimum. The result depends on the seed and the versions
    of scipy and its BLAS, and on nothing else. L-BFGS supposes a smooth objective. ReLU minima lie on kinks, along
    which it creeps, or where its line search finds no descent; it is then begun again without its memory, up to four
    times. What it reaches there is near a kink, and ``certify(..., kink=1e-3)`` may say more of it.

    Examples
    --------
    >>> import ufm
    >>> found = minimise(ufm.UFM(classes=3, width=3, loss="mse"), ufm.Coupled(0.01), starts=2)
    >>> round(found.loss, 10), found.certificate.verdict  # 3 classes, each c - c^2/2 over 3 with c = 3 * 0.01
    (0.02955, 'local minimum')
    """
    from ufm.kernels.hessian import Objective

    if not isinstance(problem, Problem):
        raise invalid("minimise.problem", problem, "a problem such as DUFM(classes=3, width=4, depth=3)")
    seed, most = whole("minimise.seed", seed, 0), whole("minimise.iterations", iterations)
    tolerance = real("minimise.tolerance", tolerance, 0.0)
    flag("minimise.certificate", certificate)
    factors = _factors(continuation)
    drawn = _starts(starts, init)
    objective = Objective(problem, decay, "minimise")
    thetas, losses, gradients, taken = [], [], [], []
    with progress_bar(progress, len(drawn), 0) as show:
        for i, start in enumerate(drawn):
            theta, count = problem.pack(draw(problem, start, seed + i)), 0
            for factor in factors:
                theta, more = _descend(objective, theta, factor, most, tolerance)
                count += more
            loss, gradient = objective(theta)
            thetas.append(theta)
            losses.append(loss if np.isfinite(loss) else np.inf)
            gradients.append(float(np.linalg.norm(gradient)))
            taken.append(count)
            show(i + 1)
    best = int(np.argmin(losses))
    if not np.isfinite(losses[best]):
        raise InvalidProblemError(f"minimise: none of the {len(drawn)} starts reached a finite loss.")
    state = problem.unpack(thetas[best])
    certified: Certificate | None = None
    if certificate:
        from ufm.certificates import certify, unknown_curvature

        if unknown_curvature(problem) is None:
            certified = certify(problem, decay, state)
    return Minimum(
        problem=problem,
        decay=decay,
        state=state,
        loss=losses[best],
        losses=np.array(losses),
        gradients=np.array(gradients),
        iterations=np.array(taken),
        best=best,
        seed=seed,
        certificate=certified,
    )


def _factors(continuation: Any) -> tuple[float, ...]:
    """Factors of the decay, 1 the last."""
    allowed = "a sequence of numbers > 0, such as (16, 8, 4, 2)"
    if isinstance(continuation, str | bytes | Mapping) or not isinstance(continuation, Sequence | np.ndarray):
        raise invalid("minimise.continuation", continuation, allowed)
    found = [real("minimise.continuation", factor, allowed=allowed) for factor in continuation]
    if any(factor <= 0 for factor in found):
        raise invalid("minimise.continuation", continuation, allowed)
    return (*found, 1.0)


def _starts(starts: Any, init: Any) -> list[Any]:
    """One initialiser for every start."""
    if isinstance(starts, Sequence) and not isinstance(starts, str | bytes):
        if init != Gaussian(0.1):
            raise invalid("minimise.init", init, "nothing with starts that are given")
        if not starts:
            raise invalid("minimise.starts", starts, "a whole number >= 1, or at least one start")
        return [_initialiser("minimise.starts", start) for start in starts]
    return [_initialiser("minimise.init", init)] * whole("minimise.starts", starts)


def _initialiser(where: str, start: Any) -> Any:
    if isinstance(start, Mapping) and all(isinstance(name, str) for name in start):
        return Given(**start)
    start = getattr(start, "start", start)  # of a Solution or a Minimum
    if not (is_initialiser(start) or isinstance(start, Start)):
        raise invalid(where, start, "an initialiser such as Gaussian(0.1), Start(...) or arrays by block")
    return start


def _descend(
    objective: Objective, theta: np.ndarray, factor: float, most: int, tolerance: float
) -> tuple[np.ndarray, int]:
    """End of L-BFGS from theta, and how many iterations it took."""
    from scipy.optimize import minimize

    theta, size, taken = np.array(theta), objective.problem.size, 0

    def value_and_gradient(trained: np.ndarray) -> tuple[float, np.ndarray]:
        theta[:size] = trained
        return objective(theta, factor)

    best, trained = np.inf, theta[:size].copy()
    for _ in range(ROUNDS):
        options = {
            "maxiter": most - taken,
            "maxfun": 10 * most,
            "maxcor": MEMORY,
            "ftol": FALL,
            "gtol": tolerance,
        }
        with np.errstate(all="ignore"):  # a step too far is taken back
            end = minimize(value_and_gradient, trained, jac=True, method="L-BFGS-B", options=options)
        taken += int(end.nit)
        if not end.fun < best:
            break
        best, trained = float(end.fun), end.x
        if np.abs(end.jac).max() <= tolerance or taken >= most:
            break
    theta[:size] = trained
    return theta, taken
