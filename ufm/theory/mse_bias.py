r"""Squared error with a bias that decays: simplex ETF below one rate of its decay, towards an orthogonal frame above.

Notation: K classes of n samples, N = K n, one layer Z = W H + b 1^T, lam_W, lam_H, lam_b the decays,

    F = ||W H + b 1^T - Y||_F^2/(2N) + lam_W/2 ||W||_F^2 + lam_H/2 ||H||_F^2 + lam_b/2 ||b||^2.

The least decay of W and H with product W H = M is kap ||M||_*, kap = sqrt(lam_W lam_H), so that F is convex in (M, b)
once the width is large enough, strictly in b for lam_b > 0; hence b = beta 1 by symmetry, and M is Y - b 1^T with its
singular values lowered by N kap (soft thresholding). Two kinds of singular directions are left, in units of sqrt(n):

    centred (K - 1 times, orthogonal to 1):  gain 1 - c,                c = N/n sqrt(n lam_W lam_H) = K sqrt(n) kap
    mean (along 1):                          gain 1 - c (1 + 1/lam_b),  K beta = (1 - gain)/(1 + lam_b)

each 0 where negative. The best beta leaves of the squared error along 1 the share lam_b/(1 + lam_b): the mean is the
scalar problem of `deep_collapse` at L = 1 with the strength c over that share. It survives iff lam_b > c/(1 - c):

    W W^T = sqrt(lam_H/lam_W) sqrt(n) [(1 - c)(I - J/K) + gain_mean J/K],   NC0 = ||W^T 1||^2/K = its part along 1,

a simplex ETF up to lam_b = c/(1 - c) and an orthogonal frame as lam_b -> infinity: `linear_mse` with a free bias and
without bias are the ends of this family. With cross-entropy the bias of the optimum is 0 and the frame an ETF at every
lam_b > 0. Soft thresholding is a lemma of Zhou et al. (arXiv 2203.01238), known as arXiv 2409.04180 restates it; the
optimum with a decaying bias was derived here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ufm.claims import Claim, Prediction, Source
from ufm.theory._lower_bound import at_least
from ufm.theory._recorded import PERTURBATION
from ufm.theory.deep_collapse import decays_of, other_objective, shortfall, stationary_loss
from ufm.theory.linear_mse import direction_strength

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ufm.problems import Problem
    from ufm.run import Run

PAPER = "Zhou et al., arXiv 2203.01238"

# ------------------------------------------------------------------ formulas, generic in their number type


def soft_threshold(value: Any, level: Any, xp: Any = np) -> Any:
    """Minimiser max(s - level, 0) over t >= 0 of (t - s)^2/2 + level t, for a singular value s.

    Parameters
    ----------
    value, level : number or ndarray, shape (...)
        s and the level, >= 0.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> soft_threshold(np.array([3.0, 1.0]), 2.0).tolist()
    [1.0, 0.0]
    """
    if xp is np:
        return np.maximum(value - level, 0.0)
    return getattr(xp, "Max", max)(value - level, 0)  # mpmath has none


def mean_share(bias: Any) -> Any:
    """Share lam_b/(1 + lam_b) of the squared error along 1 that the best bias leaves; any number type.

    Parameters
    ----------
    bias : number or ndarray, shape (...)
        Decay lam_b of the bias.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> mean_share(0.0), mean_share(1.0)
    (0.0, 0.5)
    """
    return bias / (1 + bias)


def mean_strength(strength: Any, share: Any) -> Any:
    """Strength of the direction 1, c over `mean_share`: c (1 + 1/lam_b); any number type.

    Parameters
    ----------
    strength, share : number or ndarray, shape (...)
        c = K sqrt(n) sqrt(lam_W lam_H), see `mean_share`.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> mean_strength(0.25, mean_share(1.0))
    0.5
    """
    return strength / share


def transition(strength: Any) -> Any:
    """lam_b = c/(1 - c) up to which the optimum is a simplex ETF, for c < 1; any number type.

    Parameters
    ----------
    strength : number or ndarray, shape (...)
        c = K sqrt(n) sqrt(lam_W lam_H).

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> transition(0.5)
    1.0
    """
    return strength / (1 - strength)


def best_bias(mean_shortfall: Any, bias: Any, classes: Any) -> Any:
    """Entry beta of the best bias, (1 - gain_mean)/(K (1 + lam_b)); any number type.

    Parameters
    ----------
    mean_shortfall : number or ndarray, shape (...)
        1 - gain along 1.
    bias : number or ndarray, shape (...)
        Decay lam_b of the bias.
    classes : int or symbol
        Number K of classes.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> best_bias(1.0, 0.0, 4)
    0.25
    """
    return mean_shortfall / (classes * (1 + bias))


def frame_cosine(centred: Any, mean: Any, classes: Any) -> Any:
    """Cosine between two rows of W from the gains, (mean - centred)/((K - 1) centred + mean); any number type.

    Parameters
    ----------
    centred, mean : number or ndarray, shape (...)
        Gain orthogonal to 1 and along it.
    classes : int or symbol
        Number K of classes.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> frame_cosine(0.5, 0.5, 4), frame_cosine(0.5, 0.0, 5)
    (0.0, -0.25)
    """
    return (mean - centred) / ((classes - 1) * centred + mean)


def balanced_square(gain: Any, features: Any, weights: Any, samples: Any, xp: Any = np) -> Any:
    """Eigenvalue sqrt(lam_H/lam_W) sqrt(n) gain of W W^T at a gain.

    Parameters
    ----------
    gain : number or ndarray, shape (...)
        Gain of the direction.
    features, weights : number or ndarray, shape (...)
        Decay of H and of W.
    samples : int or symbol
        Samples n per class.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> float(balanced_square(0.5, 0.01, 0.01, 4))
    1.0
    """
    return xp.sqrt(features) / xp.sqrt(weights) * xp.sqrt(samples) * gain


def loss_of(
    centred_shortfall: Any, mean_shortfall: Any, bias: Any, classes: Any, share: Any | None = None
) -> Any:
    """Objective by the shortfalls 1 - gain of the two kinds of directions, mean over samples; any number type.

    Parameters
    ----------
    centred_shortfall, mean_shortfall : float
        In [0, 1].
    bias : float
        lam_b.
    classes : int
        K.
    share : float, optional
        `mean_share` of the bias, where it is known as a limit.

    Returns
    -------
    number

    Examples
    --------
    >>> loss_of(1.0, 1.0, 1.0, 4), loss_of(1.0, 1.0, 0.0, 4)
    (0.4375, 0.375)
    """
    share = mean_share(bias) if share is None else share
    centred = stationary_loss(1 - centred_shortfall, 1, centred_shortfall)
    mean = stationary_loss(1 - mean_shortfall, 1, mean_shortfall)
    return ((classes - 1) * centred + share * mean) / classes


# ------------------------------------------------------------------------------------- the optimum


class BiasedOptimum(NamedTuple):
    """Global optimum with a decaying bias.

    Parameters
    ----------
    centred, mean : float
        Gain of the K - 1 directions orthogonal to 1, and along 1.
    beta : float
        Every entry of the bias.
    loss : float
        Objective.
    centred_square, mean_square : float
        Eigenvalue of W W^T orthogonal to 1, K - 1 times, and along 1: NC0.
    cosine : float
        Between two rows of W; nan where W = 0.
    transition : float
        lam_b up to which the frame is an ETF.

    Examples
    --------
    >>> round(optimum(4, 2, 0.01, 0.01, 1.0, samples=8).transition, 6)
    0.05996
    """

    centred: float  # gain of the K - 1 directions orthogonal to 1
    mean: float  # gain along 1
    beta: float  # every entry of the bias
    loss: float
    centred_square: float  # eigenvalue of W W^T orthogonal to 1, K - 1 times
    mean_square: float  # and along 1: NC0
    cosine: float  # between two rows of W; nan where W = 0
    transition: float  # lam_b up to which the frame is an ETF


def optimum(
    classes: int,
    per_class: int,
    features: float,
    weights: float,
    bias: float,
    *,
    samples: float | None = None,
) -> BiasedOptimum:
    """Global optimum of one layer with squared error and a bias that decays, equal classes, width >= K.

    Parameters
    ----------
    classes, per_class : int
        K and n.
    features, weights : float
        lam_H, lam_W > 0.
    bias : float
        lam_b >= 0; 0 for a free bias, infinity for none.
    samples : float, optional
        K n by default; 1 for a squared error that is summed, not averaged.

    Returns
    -------
    BiasedOptimum

    Examples
    --------
    >>> found = optimum(4, 5, 2e-3, 5e-3, 0.08)
    >>> round(found.loss, 9), round(found.cosine, 4), round(found.transition, 7)
    (0.026634271, -0.1001, 0.0291076)
    """
    N = classes * per_class
    total = N if samples is None else samples
    rate = bias * total / N  # relative to a squared error that is averaged
    c = direction_strength(per_class, total, features, [weights])
    share = 1.0 if np.isinf(rate) else mean_share(rate)
    centred = float(shortfall(c, 1))
    mean = float(shortfall(mean_strength(c, share), 1)) if share else 1.0
    squares = [balanced_square(1 - missing, features, weights, per_class) for missing in (centred, mean)]
    return BiasedOptimum(
        centred=1 - centred,
        mean=1 - mean,
        beta=best_bias(mean, rate, classes),
        loss=float(N / total * loss_of(centred, mean, rate, classes, share)),
        centred_square=float(squares[0]),
        mean_square=float(squares[1]),
        cosine=frame_cosine(1 - centred, 1 - mean, classes) if centred < 1 else float("nan"),
        transition=float(transition(c) * N / total) if c < 1 else float("inf"),
    )


# ---------------------------------------------------------------------------------------- claims about runs


def optimum_of(problem: Problem, coupled: Mapping[str, float]) -> BiasedOptimum:
    """Optimum of a problem that `another_problem` has accepted, with these coupled rates by block.

    Parameters
    ----------
    problem : UFM
        One that `another_problem` accepts.
    coupled : mapping of str to float
        Coupled decay rate of each block.

    Returns
    -------
    BiasedOptimum

    Examples
    --------
    >>> import ufm
    >>> problem = ufm.UFM(4, 6, loss="mse", bias=True)
    >>> round(optimum_of(problem, {"W1": 0.01, "H": 0.01, "b": 1.0}).mean, 6)
    0.92
    """
    terms = decays_of(problem, coupled)
    return optimum(
        problem.classes,
        problem.class_sizes[0],
        terms.features,
        terms.weights[0],
        coupled["b"],
        samples=terms.samples,
    )


def another_problem(problem: Problem, coupled: Mapping[str, float]) -> str | None:
    """Why the closed form is not the optimum of this problem, or None.

    Parameters
    ----------
    problem : UFM
        The problem.
    coupled : mapping of str to float
        Coupled decay rate of each block.

    Returns
    -------
    str or None

    Examples
    --------
    >>> import ufm
    >>> another_problem(ufm.UFM(4, 6, loss="mse"), {"W1": 0.01, "H": 0.01})
    'there is no bias; the optimum without one is that of linear chains'
    """
    reason = other_objective(problem, coupled)
    if reason is not None:
        return reason
    if problem.depth > 1:
        return f"there are {problem.depth} layers, and the closed form is that of one"
    if not problem.bias:
        return "there is no bias; the optimum without one is that of linear chains"
    if len(set(problem.class_sizes)) > 1:
        return f"classes have {problem.class_sizes} samples, and the closed form is for equal ones"
    rank = problem.classes - (not optimum_of(problem, coupled).mean)
    if problem.widths[0] < rank:
        return f"the width is {problem.widths[0]}, and the optimum has rank {rank}"
    return None


def _another_problem(run: Run) -> str | None:
    return another_problem(run.problem, run.coupled)


def _at_least_the_optimum(run: Run, error: float = 0.0) -> Prediction:
    """F >= the closed form, times 1 + error."""
    best = optimum_of(run.problem, run.coupled)
    return at_least(run, best.loss * (1 + error), "global optimum with a decaying bias")


def _above_the_optimum(run: Run) -> Prediction:
    return _at_least_the_optimum(run, PERTURBATION[run.dtype])


CLAIMS = (
    Claim(
        name="zhou2022.soft_thresholding",
        statement=(
            "One layer, squared error, decays lam_W, lam_H of W and H, kap = sqrt(lam_W lam_H), width >= K: for any "
            "bias b the optimum is W H = Y - b 1^T with its singular values lowered by N kap and cut at 0."
        ),
        source=Source(PAPER, "lemma on singular values as restated in arXiv 2409.04180", "read as restated"),
        room="mse_bias",
        layers={
            "symbolic": (
                "proved for a singular direction; that there is nothing but singular directions is von Neumann's "
                "inequality and that of the nuclear norm, cited"
            )
        },
    ),
    Claim(
        name="ufm.mse_bias_optimum",
        statement=(
            "With decay lam_b of the bias, equal classes, c = K sqrt(n lam_W lam_H): gains 1 - c orthogonal to 1 and "
            "1 - c (1 + 1/lam_b) along 1, 0 where negative, b = (1 - gain)/(K (1 + lam_b)) in every entry, W W^T = "
            "sqrt(n lam_H/lam_W) [gain_c (I - J/K) + gain_m J/K]: no state lies below this optimum, F = "
            "((K-1)(1 - gain_c^2) + lam_b/(1 + lam_b) (1 - gain_m^2))/(2 K)."
        ),
        source=Source(PAPER, "extends its model to the optimum with bias decay", "derived here"),
        room="mse_bias",
        figure="mse_bias",
        layers={
            "symbolic": (
                "proved for symbolic K, n and decays: optimality in every singular direction, F convex in (W H, b); "
                "the state itself stationary for K = 2..4"
            ),
            "simulation": "every recorded objective, within its round-off (a run that converges tells 1e-6)",
        },
        applies=_another_problem,
        predict=_at_least_the_optimum,
        control=_above_the_optimum,
        rank=3,
    ),
    Claim(
        name="ufm.mse_bias_transition",
        statement=(
            "That optimum is a simplex ETF, with NC0 = 0, iff lam_b <= c/(1 - c), continuously; above, NC0 = "
            "sqrt(n lam_H/lam_W) (1 - c (1 + 1/lam_b)) and the cosine between rows of W rises from -1/(K-1) to 0, an "
            "orthogonal frame, as lam_b -> infinity. lam_b = 0 and infinity are the optima with a free bias and "
            "without bias. dF/dlam_b = ||b||^2/2 throughout."
        ),
        source=Source(PAPER, "transition of the optimum with bias decay", "derived here"),
        room="mse_bias",
        figure="mse_bias",
        layers={
            "symbolic": "proved for symbolic K, n and decays; cross-entropy, where nothing of this happens, is measured"
        },
    ),
)
