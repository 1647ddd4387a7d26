r"""Deep neural collapse with squared error: one scalar problem for every depth, in closed form.

Notation: K classes of n samples, N = K n, weights W_1 ... W_L on free features H, so L + 1 decayed factors,

    H_2 = W_1 H,  H_{l+1} = W_l s(H_l),  Z = W_L s(H_L),  s the identity or ReLU,
    F = ||Z - Y||_F^2/(2N) + sum_l lam_l/2 ||W_l||_F^2 + lam_H/2 ||H||_F^2,      Lam = (n lam_H prod_l lam_l)^(1/(L+1)).

A pattern of weights whose layers may be scaled freely, whose output is x I_K on the class means and whose product of
squared norms is D^(L+1) x^2 n at best has, by the inequality of the arithmetic and the geometric mean, the least
objective phi(x) = (1 - x)^2/2 + (L+1)/2 D Lam x^(2/(L+1)). With the *strength* D Lam as the only number,

    stationary:  (1 - x) x^((L-1)/(L+1)) = D Lam,  there phi = (1 - x)(1 + L x)/2,
    exists iff   D Lam <= (L+1)/(2L) ((L-1)/(2L))^((L-1)/(L+1)),
    beats zero   iff   x > (L-1)/L   iff   D Lam < 1/L ((L-1)/L)^((L-1)/(L+1)).

The larger root x, the *gain*, is the minimum. Deep neural collapse (DNC: orthogonal class means in every layer) has
D = K. For L >= 2 the transition to zero is of first order: the gain jumps from (L-1)/L to 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ufm.errors import invalid
from ufm.losses import MSE
from ufm.theory._double_double import DoubleDouble, two_product, two_sum

if TYPE_CHECKING:
    from ufm.problems import Problem

# ------------------------------------------------------------------ formulas, generic in their number type


def exactly(number: Any, xp: Any) -> Any:
    """A whole number as the number type of `xp` holds it, so that its quotients are as exact as that type."""
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

    Examples
    --------
    >>> geometric_decay(0.25, [0.5, 0.5], 2)
    0.5
    """
    factors = exactly(len(weights) + 1, xp)
    if xp is np:  # mantissas and exponents apart: a product of many decays must not underflow
        parts = [math.frexp(float(number)) for number in (samples, features, *weights)]
        mantissa, exponent = math.frexp(math.prod(part for part, _ in parts))
        whole, rest = divmod(exponent + sum(part for _, part in parts), factors)
        return math.ldexp((mantissa * 2.0**rest) ** (1.0 / factors), whole)
    return (samples * features * math.prod(weights)) ** (1 / factors)


def objective(x: Any, strength: Any, depth: Any, xp: Any = np) -> Any:
    """phi(x) = (1 - x)^2/2 + (L+1)/2 D Lam x^(2/(L+1)) at output scale x >= 0."""
    factors = exactly(depth + 1, xp)
    return (1 - x) ** 2 / 2 + factors * strength * x ** (2 / factors) / 2


def strength_at(x: Any, depth: Any, xp: Any = np) -> Any:
    """D Lam at which x is stationary, (1 - x) x^((L-1)/(L+1)); the inverse of `gain`."""
    return (1 - x) * x ** _exponent(depth, xp)


def _exponent(depth: Any, xp: Any) -> Any:
    """(L-1)/(L+1)."""
    return exactly(depth - 1, xp) / exactly(depth + 1, xp)


def stationary_loss(gain: Any, depth: Any, shortfall: Any = None) -> Any:
    """phi at a stationary point, (1 - x)(1 + L x)/2; with 1 - x apart where it is known more exactly.

    Examples
    --------
    >>> stationary_loss(1.0, 4), stationary_loss(0.75, 4), stationary_loss(0.0, 4)
    (0.0, 0.5, 0.5)
    """
    return (1 - gain if shortfall is None else shortfall) * (1 + depth * gain) / 2


def existence_gain(depth: Any, xp: Any = np) -> Any:
    """Gain (L-1)/(2L) of the double root, below which no minimum lies."""
    return exactly(depth - 1, xp) / exactly(2 * depth, xp)


def zero_gain(depth: Any, xp: Any = np) -> Any:
    """Gain (L-1)/L at which the non-trivial minimum and zero have the same objective 1/2."""
    return exactly(depth - 1, xp) / exactly(depth, xp)


def existence_limit(depth: Any, xp: Any = np) -> Any:
    """Strength up to which there is a non-trivial minimum, (L+1)/(2L) ((L-1)/(2L))^((L-1)/(L+1)).

    Examples
    --------
    >>> existence_limit(1), round(existence_limit(2), 15)
    (1.0, 0.472470393710577)
    """
    return strength_at(existence_gain(depth, xp), depth, xp)


def zero_limit(depth: Any, xp: Any = np) -> Any:
    """Strength below which the non-trivial minimum beats zero, 1/L ((L-1)/L)^((L-1)/(L+1)).

    Examples
    --------
    >>> zero_limit(1), round(zero_limit(2), 15)
    (1.0, 0.39685026299205)
    """
    return strength_at(zero_gain(depth, xp), depth, xp)


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
        In [(L-1)/(2L), 1], and 0 where there is no non-trivial minimum. The relative error is at most 4 eps at the
        strength given, beside the double root too; see `shortfall`.

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
    """
    if depth < 1:
        raise invalid("gain.depth", depth, "a whole number >= 1")
    values = np.asarray(strength) if xp is np else strength
    if not np.all(np.greater_equal(values, 0)):
        raise invalid("gain.strength", strength, "numbers >= 0")
    if xp is not np:
        return _shortfall_of_one(strength, depth, xp)
    found = np.ones(values.shape)
    least = strength_at(existence_gain(depth), depth)
    sure = values < least * (1 - 1e-12)
    close = (values >= least * (1 - 1e-12)) & (values <= least * (1 + 1e-12))
    if close.any():
        turn = np.full(int(close.sum()), 1 - existence_gain(depth))
        sure[close] = _excess(turn, values[close], depth) >= 0
    found[values == 0] = 0.0
    sure &= values > 0
    found[sure] = _climb(values[sure].astype(float), depth)
    return float(found) if found.ndim == 0 else found


def _climb(strength: np.ndarray, depth: int) -> np.ndarray:
    """Newton's iteration of `shortfall` from below: with logarithms first, then in double-double arithmetic."""
    a, turn = _exponent(depth, np), 1 - existence_gain(depth)
    u = np.minimum(strength, turn)
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
    return np.log(u / strength) + _exponent(depth, np) * np.log1p(-u)


def _excess(u: np.ndarray, strength: np.ndarray, depth: int) -> np.ndarray:
    """`_rounded_excess` to some 30 digits near the root, from (q (1 - u))^(L-1) q^2 = 1 with q = u/(D Lam)."""
    quotient = u / strength
    product, error = two_product(quotient, strength)
    q = DoubleDouble(*two_sum(quotient, ((u - product) - error) / strength))
    power = _power(q * DoubleDouble(*two_sum(np.ones_like(u), -u)), depth - 1) * q * q
    return np.log1p((power - 1.0).high) / (depth + 1)


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
    """What the closed forms need of a problem and its decay."""

    features: float  # lam_H
    weights: tuple[float, ...]  # lam_1 ... lam_L
    samples: float  # N, or 1 where the squared error is summed: the fit is ||Z - Y||_F^2/(2 samples)


def other_objective(problem: Problem, coupled: Mapping[str, float]) -> str | None:
    """Why a problem with these coupled rates has another objective than the one above, or None."""
    if not isinstance(problem.loss, MSE):
        return f"the loss is {problem.loss.name}, not the squared error"
    if problem.frozen_values:
        return f"{', '.join(problem.frozen_values)} is frozen, and every block must be trained"
    for block, rate in coupled.items():
        if block != "b" and not rate:
            return f"no coupled decay acts on {block}, so that the optimum lies at infinity"
    return None


def decays_of(problem: Problem, coupled: Mapping[str, float]) -> Decays:
    """Decay rates and number of samples of a problem that `other_objective` has accepted."""
    weights = tuple(coupled[f"W{layer}"] for layer in range(1, problem.depth + 1))
    return Decays(coupled["H"], weights, problem.samples if problem.loss.reduction == "mean" else 1)


CLAIMS = ()
