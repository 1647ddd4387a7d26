r"""Deep neural collapse with squared error: one scalar problem for every depth, in closed form.

Notation: K classes of n samples, N = K n, weights W_1 ... W_L on free features H, so L + 1 decayed factors,

    H_2 = W_1 H,  H_{l+1} = W_l s(H_l),  Z = W_L s(H_L),  s the identity or ReLU,
    F = ||Z - Y||_F^2/(2N) + sum_l lam_l/2 ||W_l||_F^2 + lam_H/2 ||H||_F^2,      Lam = (n lam_H prod_l lam_l)^(1/(L+1)).

A pattern of weights whose layers may be scaled freely, whose output is x I_K on the class means and whose product of
squared norms is D^(L+1) x^2 n at best has, by the inequality of the arithmetic and the geometric mean, the least
objective phi(x) = (1 - x)^2/2 + (L+1)/2 D Lam x^(2/(L+1)). With the *strength* D Lam as the only number,

    stationary:  (1 - x) x^((L-1)/(L+1)) = D Lam,  there phi = (1 - x)(1 + L x)/2,
    exists iff   D Lam < (L+1)/(2L) ((L-1)/(2L))^((L-1)/(L+1)),
    beats zero   iff   x > (L-1)/L   iff   D Lam < 1/L ((L-1)/L)^((L-1)/(L+1)).

The larger root x, the *gain*, is the minimum; at equality both roots are one, an inflection. Deep neural collapse
(DNC: orthogonal class means in every layer) has D = K. For L >= 2 the transition to zero is of first order: the gain
jumps from (L-1)/L to 0.

At D = K and with equal decays the scalar problem is equation 2 of Garrod and Keating (arXiv 2404.06106, read in a
reproduction), the threshold for K = 2 that of Sukenik, Mondelli and Lampert (arXiv 2305.13165, recalled); the rest
was derived here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ufm.claims import Claim, Prediction, Source
from ufm.errors import invalid
from ufm.losses import MSE
from ufm.normalisation import other_features
from ufm.theory._double_double import DoubleDouble, two_product, two_sum
from ufm.theory._lower_bound import at_least
from ufm.theory._recorded import PERTURBATION

if TYPE_CHECKING:
    from ufm.problems import Problem
    from ufm.run import Run

# ------------------------------------------------------------------ formulas, generic in their number type


def exactly(number: Any, xp: Any) -> Any:
    """A whole number as the number type of `xp` holds it, so that its quotients are as exact as that type.

    Parameters
    ----------
    number : int or symbol
        The whole number.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number

    Examples
    --------
    >>> import sympy
    >>> exactly(1, sympy) / exactly(3, sympy)
    1/3
    """
    if xp is np:
        return number
    return xp.sympify(number) if hasattr(xp, "sympify") else xp.mpf(number)


def geometric_decay(features: Any, weights: Sequence[Any], samples: Any, xp: Any = np) -> Any:
    """Lam = (n lam_H prod lam_l)^(1/(L+1)), the decay that the scalar problem sees.

    Parameters
    ----------
    features : float
        Decay lam_H of the features, > 0.
    weights : sequence of float
        Decay lam_1 ... lam_L of the weights, > 0.
    samples : float
        Samples n of one class.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number

    Examples
    --------
    >>> round(geometric_decay(0.25, [0.5, 0.5], 2), 15)
    0.5
    """
    factors = exactly(len(weights) + 1, xp)
    if xp is np:  # the exponent of the product apart: many decays must not underflow
        mantissa, exponent = 1.0, 0
        for number in (samples, features, *weights):
            mantissa, shift = math.frexp(mantissa * float(number))
            exponent += shift
        whole, rest = divmod(exponent, factors)
        try:
            return math.ldexp(mantissa ** (1.0 / factors) * 2.0 ** (rest / factors), whole)
        except OverflowError:  # beyond float64, where nothing but zero is left
            return math.inf
    return (samples * features * math.prod(weights)) ** (1 / factors)


def objective(x: Any, strength: Any, depth: Any, xp: Any = np) -> Any:
    """phi(x) = (1 - x)^2/2 + (L+1)/2 D Lam x^(2/(L+1)) at output scale x >= 0.

    Parameters
    ----------
    x, strength : number or ndarray, shape (...)
        Output scale, D Lam >= 0.
    depth : int or symbol
        Number L of layers.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> objective(0.0, 0.1, 3), round(objective(1.0, 0.1, 3), 12)
    (0.5, 0.2)
    """
    factors = exactly(depth + 1, xp)
    return (1 - x) ** 2 / 2 + factors * strength * x ** (2 / factors) / 2


def strength_at(x: Any, depth: Any, xp: Any = np) -> Any:
    """D Lam at which x is stationary, (1 - x) x^((L-1)/(L+1)); the inverse of `gain`.

    Parameters
    ----------
    x : number or ndarray, shape (...)
        Output scale.
    depth : int or symbol
        Number L of layers.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> round(strength_at(0.75, 3), 6)
    0.216506
    """
    return (1 - x) * x ** _exponent(depth, xp)


def _exponent(depth: Any, xp: Any) -> Any:
    """(L-1)/(L+1)."""
    return exactly(depth - 1, xp) / exactly(depth + 1, xp)


def stationary_loss(gain: Any, depth: Any, shortfall: Any = None) -> Any:
    """phi at a stationary point, (1 - x)(1 + L x)/2; with 1 - x apart where it is known more exactly.

    Parameters
    ----------
    gain : number or ndarray, shape (...)
        Output scale at the minimum, see `gain`.
    depth : int or symbol
        Number L of layers.
    shortfall : number or ndarray, shape (...), optional
        1 - gain.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> stationary_loss(1.0, 4), stationary_loss(0.75, 4), stationary_loss(0.0, 4)
    (0.0, 0.5, 0.5)
    """
    return (1 - gain if shortfall is None else shortfall) * (1 + depth * gain) / 2


def existence_gain(depth: Any, xp: Any = np) -> Any:
    """Gain (L-1)/(2L) of the double root, an inflection: every minimum lies above it.

    Parameters
    ----------
    depth : int or symbol
        Number L of layers.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number

    Examples
    --------
    >>> existence_gain(3)
    0.3333333333333333
    """
    return exactly(depth - 1, xp) / exactly(2 * depth, xp)


def zero_gain(depth: Any, xp: Any = np) -> Any:
    """Gain (L-1)/L at which the non-trivial minimum and zero have the same objective 1/2.

    Parameters
    ----------
    depth : int or symbol
        Number L of layers.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number

    Examples
    --------
    >>> zero_gain(4)
    0.75
    """
    return exactly(depth - 1, xp) / exactly(depth, xp)


def existence_limit(depth: Any, xp: Any = np) -> Any:
    """Strength below which there is a non-trivial minimum, (L+1)/(2L) ((L-1)/(2L))^((L-1)/(L+1)).

    Parameters
    ----------
    depth : int or symbol
        Number L of layers.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number

    Examples
    --------
    >>> existence_limit(1), round(existence_limit(2), 15)
    (1.0, 0.472470393710577)
    """
    return strength_at(existence_gain(depth, xp), depth, xp)


def zero_limit(depth: Any, xp: Any = np) -> Any:
    """Strength below which the non-trivial minimum beats zero, 1/L ((L-1)/L)^((L-1)/(L+1)).

    Parameters
    ----------
    depth : int or symbol
        Number L of layers.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number

    Examples
    --------
    >>> zero_limit(1), round(zero_limit(2), 15)
    (1.0, 0.39685026299205)
    """
    return strength_at(zero_gain(depth, xp), depth, xp)


def binary_threshold(depth: Any) -> Any:
    """n lam_H prod lam_l above which zero is optimal for K = 2, (L-1)^(L-1)/(2^(L+1) L^(2L)); for any number type.

    Parameters
    ----------
    depth : int or symbol
        Number L of layers.

    Returns
    -------
    number

    Examples
    --------
    >>> binary_threshold(2), binary_threshold(5)
    (0.0078125, 4.096e-07)
    """
    return (depth - 1) ** (depth - 1) / (2 ** (depth + 1) * depth ** (2 * depth))


def layer_curvature(decay: Any, gain: Any) -> Any:
    """The K^2 eigenvalues, all equal, of the fit's Hessian by one layer at linear DNC: lam_l gamma/(1 - gamma).

    Parameters
    ----------
    decay : number or ndarray, shape (...)
        lam_l of the layer.
    gain : number or ndarray, shape (...)
        Output scale at the minimum, see `gain`.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> layer_curvature(0.5, 0.75)
    1.5
    """
    return decay * gain / (1 - gain)


def product_spread(classes: Any, depth: Any, xp: Any = np) -> Any:
    """D = K^(2/(L+1)) of the bound that no state of any 1-Lipschitz activation with s(0) = 0 can pass.

    ||Z||_* <= ||W_L||_F ||s(H_L)||_F <= prod_l ||W_l||_F ||H||_F, as ||A B||_* and ||A B||_F are at most
    ||A||_F ||B||_F and ||s(A)||_F <= ||A||_F. Of all Z with nuclear norm K sqrt(n) x the fit is at least (1 - x)^2/2:
    ||Z||_F >= ||Z||_*/sqrt(K), for K rows, and <Z, Y> <= ||Z||_* sqrt(n), the singular values of Y being sqrt(n). For
    L = 1 this is DNC's D = K.

    Parameters
    ----------
    classes : int or symbol
        K.
    depth : int or symbol
        Number L of layers.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number

    Examples
    --------
    >>> product_spread(9, 1), round(product_spread(8, 2), 12)
    (9.0, 4.0)
    """
    return classes ** (exactly(2, xp) / exactly(depth + 1, xp))


# ------------------------------------------------------------------------------------- the evaluator


def gain(strength: Any, depth: int, xp: Any = np) -> Any:
    """Larger root x of (1 - x) x^((L-1)/(L+1)) = D Lam: the output scale of the non-trivial minimum.

    Parameters
    ----------
    strength : array_like, shape (...)
        D Lam >= 0.
    depth : int
        Number L of weight matrices.
    xp : module
        ``numpy``, or ``mpmath`` for one number at its working precision.

    Returns
    -------
    ndarray or float, shape (...)
        In [(L-1)/(2L), 1], the lower end being the double root, and 0 where there is no root. Within eps of the root
        at the strength given, relatively, beside the double root too (measured up to L = 10,000); see `shortfall`.

    Raises
    ------
    InvalidProblemError
        For a strength below 0 or not a number, or a depth below 1.

    Examples
    --------
    >>> gain(0.25, 1), gain(0.5, 2)
    (0.75, 0.0)
    >>> round(gain(0.04, 4), 12)
    0.958982073939
    """
    return 1 - shortfall(strength, depth, xp)


def shortfall(strength: Any, depth: int, xp: Any = np) -> Any:
    """1 - `gain` without cancellation, so that a small strength loses no digits; 1 where there is no minimum.

    It is the smaller root u of log u + a log(1 - u) = log(D Lam), a = (L-1)/(L+1). The left side is concave, so that
    Newton's iteration from u = D Lam, below the root, climbs to it; beside the double root it halves its distance at
    each step. There the root moves like the square root of the strength, and the left side is taken in
    double-double arithmetic: the error is that of the last rounding, not of the logarithms.

    Parameters
    ----------
    strength : number or ndarray, shape (...)
        D Lam >= 0.
    depth : int
        Number L of layers.
    xp : module
        ``numpy`` or ``mpmath``.

    Returns
    -------
    number or ndarray, shape (...)

    Raises
    ------
    InvalidProblemError
        For a depth below 1 or a negative strength.

    Examples
    --------
    >>> shortfall(0.0, 3), round(shortfall(1e-6, 3), 12), shortfall(1.0, 3)
    (0.0, 1.000001e-06, 1.0)
    """
    if depth < 1:
        raise invalid("gain.depth", depth, "a whole number >= 1")
    if not np.all(np.greater_equal(strength, 0)):
        raise invalid("gain.strength", strength, "numbers >= 0")
    if xp is not np:
        return _shortfall_of_one(strength, depth, xp)
    values = np.atleast_1d(np.asarray(strength, dtype=float))
    most = existence_limit(depth)
    exists = values < most * (1 - 1e-12)
    close = ~exists & (values <= most * (1 + 1e-12))  # whether the double root exists hangs on the last digit
    if close.any():
        exists[close] = (
            _excess(np.full(int(close.sum()), 1 - existence_gain(depth)), values[close], depth) >= 0
        )
    found = np.where(values == 0, 0.0, 1.0)
    exists &= values > 0
    found[exists] = _climb(values[exists], depth)
    return float(found[0]) if np.ndim(strength) == 0 else found.reshape(np.shape(strength))


def _climb(strength: np.ndarray, depth: int) -> np.ndarray:
    """Newton's iteration of `shortfall` from below: with logarithms first, then in double-double arithmetic."""
    a, turn = _exponent(depth, np), 1 - existence_gain(depth)
    u: np.ndarray = np.minimum(strength, turn)
    for excess, back in ((_rounded_excess, 1e-6), (_excess, 0.0)):
        for _ in range(100):  # some 30 beside the double root, 5 elsewhere
            rising = 1 - u - a * u  # u (1 - u) times the derivative of log u + a log(1 - u)
            with np.errstate(divide="ignore", invalid="ignore"):
                step = -excess(u, strength, depth) * u * (1 - u) / rising
            higher = np.where(rising > 0, np.minimum(u + step, turn), u)
            if not (higher > u).any():
                break
            u = np.maximum(higher, u)
        u = u * (1 - back)  # below the root again: logarithms may have overshot it by 1e-8
    return u


def _rounded_excess(u: np.ndarray, strength: np.ndarray, depth: int) -> np.ndarray:
    """log u + a log(1 - u) - log(D Lam)."""
    excess: np.ndarray = np.log(u / strength) + _exponent(depth, np) * np.log1p(-u)
    return excess


def _excess(u: np.ndarray, strength: np.ndarray, depth: int) -> np.ndarray:
    """`_rounded_excess` to some 30 digits near the root, from (q (1 - u))^(L-1) q^2 = 1 with q = u/(D Lam)."""
    quotient = u / strength
    product, error = two_product(quotient, strength)
    q = DoubleDouble(*two_sum(quotient, ((u - product) - error) / strength))
    power = _power(q * DoubleDouble(*two_sum(np.ones_like(u), -u)), depth - 1) * q * q
    excess: np.ndarray = np.log1p((power - 1.0).high) / (depth + 1)
    return excess


def _power(base: DoubleDouble, exponent: int) -> DoubleDouble:
    """base^exponent by repeated squaring, for a whole number >= 0."""
    result = DoubleDouble.of(np.ones_like(base.high))
    while exponent:
        if exponent % 2:
            result = result * base
        base, exponent = base * base, exponent // 2
    return result


def _shortfall_of_one(strength: Any, depth: int, mpmath: Any) -> Any:
    """`shortfall` of one number in mpmath, with twice the digits inside."""
    with mpmath.workprec(2 * mpmath.mp.prec + 20):
        a, strength = _exponent(depth, mpmath), mpmath.mpf(strength)
        turn, u = 1 - existence_gain(depth, mpmath), mpmath.mpf(strength)
        if strength > existence_limit(depth, mpmath):
            u = mpmath.mpf(1)
        elif strength > 0:
            for _ in range(4 * mpmath.mp.prec):
                rising = 1 - u - a * u
                if rising <= 0:
                    break
                step = -(mpmath.log(u / strength) + a * mpmath.log1p(-u)) * u * (1 - u) / rising
                if not step > 0:
                    break
                u = min(u + step, turn)
    return +u


# ------------------------------------------------------------------------------- which objective a problem has


class Decays(NamedTuple):
    """What the closed forms need of a problem and its decay.

    Parameters
    ----------
    features : float
        lam_H.
    weights : tuple of float
        lam_1 ... lam_L.
    samples : float
        N, or 1 where the squared error is summed: the fit is ||Z - Y||_F^2/(2 samples).

    Examples
    --------
    >>> Decays(0.1, (0.2, 0.3), 6).weights
    (0.2, 0.3)
    """

    features: float  # lam_H
    weights: tuple[float, ...]  # lam_1 ... lam_L
    samples: float  # N, or 1 where the squared error is summed: the fit is ||Z - Y||_F^2/(2 samples)


def other_objective(problem: Problem, coupled: Mapping[str, float]) -> str | None:
    """Why a problem with these coupled rates has another objective than the one above, or None.

    Parameters
    ----------
    problem : UFM or DUFM
        The problem.
    coupled : mapping of str to float
        Coupled decay rate of each block.

    Returns
    -------
    str or None

    Examples
    --------
    >>> import ufm
    >>> other_objective(ufm.UFM(3, 4), {"W1": 0.1, "H": 0.1})
    'the loss is cross-entropy, not the squared error to one-hot targets'
    """
    reason = other_features(problem)
    if reason is not None:
        return reason
    if not isinstance(problem.loss, MSE):
        return f"the loss is {problem.loss.name}, not the squared error to one-hot targets"
    if problem.frozen_values:
        return f"{', '.join(problem.frozen_values)} is frozen, and every block must be trained"
    for block, rate in coupled.items():
        if block != "b" and not rate:
            return f"no coupled decay acts on {block}, so that the optimum lies at infinity"
    return None


def decays_of(problem: Problem, coupled: Mapping[str, float]) -> Decays:
    """Decay rates and number of samples of a problem that `other_objective` has accepted.

    Parameters
    ----------
    problem : UFM or DUFM
        The problem.
    coupled : mapping of str to float
        Coupled decay rate of each block.

    Returns
    -------
    Decays

    Examples
    --------
    >>> import ufm
    >>> decays_of(ufm.UFM(3, 4, per_class=2, loss="mse"), {"W1": 0.1, "H": 0.2})
    Decays(features=0.2, weights=(0.1,), samples=6)
    """
    weights = tuple(coupled[f"W{layer}"] for layer in range(1, problem.depth + 1))
    return Decays(coupled["H"], weights, problem.samples if problem.loss.reduction == "mean" else 1)


def least_objective(spread: float, decays: Decays, class_sizes: Sequence[int]) -> float:
    """Smaller objective of zero and of the non-trivial minimum with product constant D = `spread`, equal classes.

    Where the squared error is summed, both are N times that of the average, at a decay N times smaller.

    Parameters
    ----------
    spread : float
        D.
    decays : Decays
        Of the problem.
    class_sizes : sequence of int
        Samples in each class.

    Returns
    -------
    float

    Examples
    --------
    >>> [round(least_objective(3.0, Decays(lam, (lam,), 3), (1, 1, 1)), 6) for lam in (0.01, 1.0)]
    [0.02955, 0.5]
    """
    depth, weight = len(decays.weights), sum(class_sizes) / decays.samples
    strength = spread * geometric_decay(decays.features, decays.weights, class_sizes[0]) / weight
    missing = shortfall(strength, depth)
    least: float = weight * min(0.5, stationary_loss(1 - missing, depth, missing))
    return least


# ---------------------------------------------------------------------------------------- claims about runs


def _no_relu_chain(run: Run) -> str | None:
    """Why the objective is not that of a ReLU chain with squared error, equal classes and no bias, or None."""
    problem = run.problem
    reason = other_objective(problem, run.coupled)
    if reason is not None:
        return reason
    if problem.activation != "relu" or problem.depth == 1:
        return "the chain is linear, where ufm.linear_mse_optimum is exact"
    if problem.bias:
        return "the problem has a bias"
    if len(set(problem.class_sizes)) > 1:
        return f"the classes have {min(problem.class_sizes)} to {max(problem.class_sizes)} samples, not equally many"
    return None


def _no_binary_chain(run: Run) -> str | None:
    if run.problem.classes != 2:
        return f"there are {run.problem.classes} classes, not 2"
    return _no_relu_chain(run)


def _at_least(run: Run, spread: Any, where: str, error: float = 0.0) -> Prediction:
    decays = decays_of(run.problem, run.coupled)
    least = least_objective(spread, decays, run.problem.class_sizes)
    return at_least(run, least * (1 + error), where)


def _at_least_dnc(run: Run) -> Prediction:
    return _at_least(run, run.problem.classes, "DNC or zero")


def _above_dnc(run: Run) -> Prediction:
    return _at_least(run, run.problem.classes, "above DNC and zero", PERTURBATION[run.dtype])


def _at_least_the_product_bound(run: Run) -> Prediction:
    return _at_least(run, product_spread(run.problem.classes, run.problem.depth), "bound for every state")


GARROD = "Garrod, Keating, arXiv 2404.06106"

CLAIMS = (
    Claim(
        name="ufm.collapse_scalar",
        statement=(
            "L + 1 decayed factors with free scales, output x I_K and least product of squared norms n D^(L+1) x^2 "
            "have the least objective (1 - x)^2/2 + (L+1)/2 D Lam x^(2/(L+1)), Lam = (n lam_H prod lam_l)^(1/(L+1)). "
            "It is stationary iff (1 - x) x^((L-1)/(L+1)) = D Lam, with value (1 - x)(1 + L x)/2, and a minimum there "
            "iff x > (L-1)/(2L)."
        ),
        source=Source("this package", "one formula for binary, deep linear and ReLU DUFM", "derived here"),
        room="deep_collapse",
        layers={"symbolic": "proved for symbolic L, D, n and decays"},
    ),
    Claim(
        name="ufm.collapse_transition",
        statement=(
            "The non-trivial minimum exists iff D Lam < (L+1)/(2L) ((L-1)/(2L))^((L-1)/(L+1)) and beats zero iff its "
            "gain exceeds (L-1)/L, iff D^(L+1) n lam_H prod lam_l < (L-1)^(L-1)/L^(2L): of first order for L >= 2, "
            "where the gain jumps from (L-1)/L to 0, continuous for L = 1."
        ),
        source=Source(
            GARROD,
            "equation 2 for D = K, equal weight decays; the rest derived here",
            "read in a reproduction",
        ),
        room="deep_collapse",
        figure="dufm_phase_diagram",
        layers={"symbolic": "proved for symbolic L"},
    ),
    Claim(
        name="ufm.dnc_stationary",
        statement=(
            "W_l = sqrt(c/lam_l) sum_k e_k e_k^T and H = sqrt(c/(lam_H n)) [e_1 ... e_K] x 1_n^T with "
            "c = gamma (1 - gamma)/K is critical, with ReLU and without, at objective (1 - gamma)(1 + L gamma)/2."
        ),
        source=Source("this package", "explicit DNC with unequal decays", "derived here"),
        room="deep_collapse",
        layers={
            "symbolic": "proved for K = 2, 3, n = 1, 2, L = 1..4 and symbolic decays",
            "simulation": "objective to 1e-12 and gradient to its round-off at 1,000 random problems",
        },
    ),
    Claim(
        name="sukenik2023.binary",
        statement=(
            "K = 2 with ReLU: no state has an objective below that of DNC, or of zero where "
            "n lam_H prod lam_l > (L-1)^(L-1)/(2^(L+1) L^(2L)), which is the transition of the scalar problem at D = 2."
        ),
        source=Source("Sukenik, Mondelli, Lampert, arXiv 2305.13165", "theorem on binary DUFM", "recalled"),
        room="deep_collapse",
        layers={
            "symbolic": "the threshold is the transition: proved for symbolic L; optimality is recalled, not proved",
            "simulation": "every recorded objective, within its round-off",
        },
        applies=_no_binary_chain,
        predict=_at_least_dnc,
        control=_above_dnc,
        rank=2,
    ),
    Claim(
        name="garrod2024.thm4.1",
        statement=(
            "At DNC of the linear chain the Hessian of the fit by one W_l has rank K^2 and K^2 equal eigenvalues, "
            "lam_l gamma/(1 - gamma)."
        ),
        source=Source(GARROD, "theorem 4.1; value for unequal decays derived here", "read in a reproduction"),
        room="deep_collapse",
        layers={"symbolic": "proved for K = 2, 3, L = 1..3, every layer, symbolic decays"},
    ),
    Claim(
        name="sukenik2024.dnc1",
        statement=(
            "Whatever the depth, activation, widths and class sizes, copying the best column of H over its class never "
            "raises the objective of a chain whose targets depend on the class alone: if there is a minimiser, there "
            "is one with DNC1."
        ),
        source=Source(
            "Sukenik, Lampert, Mondelli, arXiv 2405.14468",
            "optimality of DNC1 recalled, this argument derived here",
            "recalled",
        ),
        room="deep_collapse",
        figure="dufm_training",
        layers={
            "symbolic": (
                "the copies of a class average to the objective itself: proved for K = 2, n = 2, 3, L = 1, 2, any "
                "activation and loss; the argument is the same for all sizes"
            )
        },
    ),
    Claim(
        name="ufm.linear_dnc1",
        statement=(
            "Linear chain, convex loss, targets by class, lam_H > 0: two features of one class are no further apart "
            "than the columns of the objective's gradient by H, divided by lam_H. Every critical point has DNC1."
        ),
        source=Source("this package", "strong convexity in each feature", "derived here"),
        room="deep_collapse",
        layers={
            "symbolic": "squared error: proved for K = 2..5, d = 2, 3; convexity of cross-entropy for K = 2..5"
        },
    ),
    Claim(
        name="ufm.product_bound",
        statement=(
            "ReLU (or any activation with abs(s(a)) <= abs(a)), squared error, equal classes: no state has an "
            "objective below the smaller of zero's and the scalar problem's with D = K^(2/(L+1)). Solutions below DNC "
            "(D = K) lie between the two."
        ),
        source=Source("this package", "nuclear norm of the output", "derived here"),
        room="deep_collapse",
        layers={
            "symbolic": (
                "the scalar problem: proved for symbolic K, L and n; the norm inequalities are argued in "
                "product_spread"
            ),
            "simulation": "every recorded objective; a run below DNC refuses D = K, the perturbed statement",
        },
        applies=_no_relu_chain,
        predict=_at_least_the_product_bound,
        control=_at_least_dnc,
        rank=1,
    ),
)
