"""Proofs of the optimum with a decaying bias: soft thresholding, optimality in every direction, the transition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import sympy as sp

from proofs_check.algebra import WRONG, is_zero, one_hot
from proofs_check.proof import Proof
from ufm.theory import linear_mse, mse_bias
from ufm.theory.deep_collapse import objective, stationary_loss

K, n, lam_W, lam_H, lam_b = sp.symbols("K n lam_W lam_H lam_b", positive=True)
c, above, t, s, level = sp.symbols("c above t s level", positive=True)
N, kap = K * n, sp.sqrt(lam_W * lam_H)


# ------------------------------------------------------------------------------------- soft thresholding


def threshold_is_optimal(threshold: Callable[..., Any]) -> bool:
    """(t - s)^2/2 + level t over t >= 0: the derivative vanishes at s - level > 0, and is >= 0 at 0 otherwise.

    The function is convex, so that each is the minimiser.
    """
    derivative = sp.diff((t - s) ** 2 / 2 + level * t, t)
    kept = threshold(level + above, level, sp)  # s = level + above
    if not is_zero(derivative.subs({t: kept, s: level + above})) or not is_zero(kept - above):
        return False
    lost = threshold(s, s + above, sp)  # level = s + above
    slope = derivative.subs({level: s + above}).subs(t, lost)
    return bool(lost == 0 and sp.simplify(slope).is_positive)


# --------------------------------------------------------------------------- optimality in every direction


class Optimum(NamedTuple):
    """The closed form as its check reads it, by symbols."""

    strength: Callable[..., Any] = linear_mse.direction_strength
    mean_strength: Callable[..., Any] = mse_bias.mean_strength
    best_bias: Callable[..., Any] = mse_bias.best_bias
    loss: Callable[..., Any] = mse_bias.loss_of
    square: Callable[..., Any] = mse_bias.balanced_square


def every_direction_is_optimal(optimum: Optimum) -> bool:
    """First-order conditions of the convex problem in (M, b), by directions, and the value, for symbolic K and n.

    F = ||M + b 1^T - Y||_F^2/(2N) + kap ||M||_* + lam_b/2 ||b||^2 is convex, with M = sqrt(n) [gain_c (I - J/K) +
    gain_m J/K] (I x 1^T/sqrt(n)) and b = beta 1. Its subgradient by M must be 0 in kept directions, and a
    residual of at most N kap is enough in lost ones; that by b is N lam_b beta + sqrt(n) times the residual along 1.
    In the direction 1, Y - b 1^T has the singular value sqrt(n) (1 - K beta).
    """
    found = optimum.strength(n, N, lam_H, [lam_W], sp)
    if not is_zero(found - K * sp.sqrt(n) * kap):
        return False
    mean_kept = optimum.mean_strength(found, mse_bias.mean_share(lam_b))
    for missing_c, missing_m in ((found, mean_kept), (found, sp.S.One), (sp.S.One, sp.S.One)):
        beta = optimum.best_bias(missing_m, lam_b, K)
        residual_c = sp.sqrt(n) * (1 - missing_c - 1)
        residual_m = sp.sqrt(n) * (1 - missing_m - (1 - K * beta))
        if not is_zero(sp.sqrt(n) * residual_m / N + lam_b * beta):
            return False
        if missing_c != 1 and not is_zero(residual_c / N + kap):
            return False
        if missing_m != 1 and not is_zero(residual_m / N + kap):
            return False
        penalty = kap * sp.sqrt(n) * ((K - 1) * (1 - missing_c) + 1 - missing_m)
        value = ((K - 1) * residual_c**2 + residual_m**2) / (2 * N) + penalty + lam_b * K * beta**2 / 2
        if not is_zero(value - optimum.loss(missing_c, missing_m, lam_b, K)):
            return False
        # W W^T has the eigenvalues sqrt(lam_H/lam_W) times the singular values of M, so that W and H pay kap ||M||_*
        for gain in (1 - missing_c, 1 - missing_m):
            square = optimum.square(gain, lam_H, lam_W, n, sp)
            other = square * lam_W / lam_H  # of H H^T
            if not is_zero(
                square * other - n * gain**2, (lam_W * square + lam_H * other) / 2 - kap * sp.sqrt(n) * gain
            ):
                return False
    # lost directions: |residual| <= N kap iff the strength is at least 1
    beta = optimum.best_bias(sp.S.One, lam_b, K)
    lost_mean = (
        sp.sqrt(n) * (1 - K * beta) / (N * kap) * optimum.mean_strength(found, mse_bias.mean_share(lam_b))
    )
    lost_centred = sp.sqrt(n) / (N * kap) * found
    return is_zero(lost_mean - 1, lost_centred - 1)


def mean_is_a_scalar_problem(share: Callable[[Any], Any]) -> bool:
    """Over the best beta the part along 1 is share/K times the scalar problem at L = 1 and strength c/share."""
    gain, beta = sp.symbols("gain beta", positive=True)
    part = ((1 - K * beta - gain) ** 2 / 2 + c * gain) / K + lam_b * K * beta**2 / 2
    [best] = sp.solve(sp.diff(part, beta), beta)
    left = share(lam_b)
    scalar = left / K * objective(gain, mse_bias.mean_strength(c, left), sp.Integer(1), sp)
    return is_zero(part.subs(beta, best) - scalar, best - mse_bias.best_bias(1 - gain, lam_b, K))


def state_is_stationary(optimum: Optimum) -> bool:
    """Gradient of F at explicit matrices W, H, b, for K = 2..4, n = 1 or 2, symbolic decays; the mean kept, and lost.

    W = p (I - J/K) + q J/K with p^2, q^2 the eigenvalues of W W^T, H its transpose by class, balanced.
    """
    p, q = sp.symbols("p q", positive=True)
    for classes, samples in ((2, 1), (3, 2), (4, 1)):
        along, total = sp.ones(classes, classes) / classes, classes * samples
        Y = one_hot([samples] * classes)
        strength = optimum.strength(samples, total, lam_H, [lam_W], sp)
        for missing in (optimum.mean_strength(strength, mse_bias.mean_share(lam_b)), sp.S.One):
            squares = [
                optimum.square(gain, lam_H, lam_W, samples, sp) for gain in (1 - strength, 1 - missing)
            ]
            W = p * (sp.eye(classes) - along) + q * along
            H = sp.sqrt(lam_W / lam_H) / sp.sqrt(samples) * W.T * Y
            beta = optimum.best_bias(missing, lam_b, classes)
            R = (W * H + beta * sp.ones(classes, total) - Y) / total
            gradients = (R * H.T + lam_W * W, W.T * R + lam_H * H)
            by_bias = R * sp.ones(total, 1) + lam_b * beta * sp.ones(classes, 1)
            # rows and columns of a class are alike: two entries of each tell all
            entries = [block[i, j] for block in gradients for i, j in ((0, 0), (0, block.cols - 1))]
            if not is_zero(*(_with_squares(entry, (p, q), squares) for entry in (*entries, by_bias[0]))):
                return False
    return True


def _with_squares(polynomial: Any, roots: tuple[Any, Any], squares: list[Any]) -> Any:
    """A polynomial in two roots with their squares put in."""
    found = sp.S.Zero
    for powers, coefficient in sp.Poly(sp.expand(polynomial), *roots).terms():
        for root, square, power in zip(roots, squares, powers, strict=True):
            coefficient *= square ** (power // 2) * (root if square != 0 else 0) ** (power % 2)
        found += coefficient
    return found


# -------------------------------------------------------------------------------------------- transition


class Transition(NamedTuple):
    """Threshold, cosine and loss around it as their check reads them."""

    threshold: Callable[[Any], Any] = mse_bias.transition
    cosine: Callable[..., Any] = mse_bias.frame_cosine
    strength: Callable[..., Any] = linear_mse.direction_strength
    slope: Any = sp.Rational(1, 2)


def transition_is_where_the_mean_appears(transition: Transition) -> bool:
    """Gain along 1 is 0 at lam_b = c/(1-c) and rises; F and dF/dlam_b = ||b||^2/2 are continuous; ends of the family.

    For symbolic c in (0, 1), K, and c = K sqrt(n) kap for symbolic n and decays.
    """
    if not is_zero(transition.strength(n, N, lam_H, [lam_W], sp) - K * sp.sqrt(n * lam_W * lam_H)):
        return False
    inside = 1 / (1 + t)  # any c in (0, 1)
    missing = mse_bias.mean_strength(c, mse_bias.mean_share(lam_b))
    at = transition.threshold(c)
    if not is_zero((1 - missing).subs(lam_b, at)):
        return False
    if (
        not sp.simplify(sp.diff(1 - missing, lam_b)).is_positive
        or not sp.simplify(at.subs(c, inside)).is_positive
    ):
        return False
    phases = [mse_bias.loss_of(c, one, lam_b, K) for one in (sp.S.One, missing)]
    if not is_zero((phases[0] - phases[1]).subs(lam_b, at)):
        return False
    for phase, one in zip(phases, (sp.S.One, missing), strict=True):
        beta = mse_bias.best_bias(one, lam_b, K)
        if not is_zero(sp.diff(phase, lam_b) - transition.slope * K * beta**2):
            return False
    cosine = transition.cosine(1 - c, 1 - missing, K)
    ends = (cosine.subs(lam_b, at) + 1 / (K - 1), sp.limit(cosine, lam_b, sp.oo))
    rise = K * (1 - c) * sp.diff(1 - missing, lam_b)  # over a square
    square = ((K - 1) * (1 - c) + 1 - missing) ** 2
    if (
        not is_zero(*ends, sp.diff(cosine, lam_b) * square - rise)
        or not sp.simplify(rise.subs(c, inside)).is_positive
    ):
        return False
    free, none = phases[0].subs(lam_b, 0), sp.limit(phases[1], lam_b, sp.oo)
    plain = stationary_loss(1 - c, 1)  # without bias, of all K directions
    return is_zero(free - (K - 1) / K * plain, none - plain)


PROOFS = (
    Proof(
        "zhou2022.soft_thresholding",
        "a singular value is lowered by the level and cut at 0 (splitting cited)",
        "proved",
        threshold_is_optimal,
        mse_bias.soft_threshold,
        {
            "hard threshold": lambda value, level, xp: xp.Piecewise((value, value > level), (0, True)),
            "not cut": lambda value, level, xp: value - level,
            "off by 1e-6": lambda value, level, xp: mse_bias.soft_threshold(value, WRONG * level, xp),
        },
    ),
    Proof(
        "ufm.mse_bias_optimum",
        "first-order conditions of the convex problem in every direction, and F, symbolic K, n, decays",
        "proved",
        every_direction_is_optimal,
        Optimum(),
        {
            "sqrt(n) dropped": Optimum(
                strength=lambda square, *parts: (
                    linear_mse.direction_strength(square, *parts) / sp.sqrt(square)
                )
            ),
            "mean at the strength c": Optimum(mean_strength=lambda strength, share: strength),
            "b of a free bias": Optimum(best_bias=lambda missing, bias, classes: missing / classes),
            "W W^T without sqrt(n)": Optimum(square=lambda gain, H, W, n, xp: xp.sqrt(H / W) * gain),
            "lam_W and lam_H exchanged": Optimum(
                square=lambda gain, H, W, n, xp: mse_bias.balanced_square(gain, W, H, n, xp)
            ),
            "F off by 1e-6": Optimum(loss=lambda *parts: WRONG * mse_bias.loss_of(*parts)),
            "b off by 1e-6": Optimum(best_bias=lambda *parts: WRONG * mse_bias.best_bias(*parts)),
        },
    ),
    Proof(
        "ufm.mse_bias_optimum",
        "over the best bias the direction 1 is the scalar problem at strength c (1 + lam_b)/lam_b",
        "proved",
        mean_is_a_scalar_problem,
        mse_bias.mean_share,
        {
            "1/(1 + lam_b)": lambda bias: 1 / (1 + bias),
            "off by 1e-6": lambda bias: WRONG * mse_bias.mean_share(bias),
        },
    ),
    Proof(
        "ufm.mse_bias_optimum",
        "the state with these matrices is stationary",
        "proved for K = 2..4",
        state_is_stationary,
        Optimum(),
        {
            "mean at the strength c": Optimum(mean_strength=lambda strength, share: strength),
            "b of a free bias": Optimum(best_bias=lambda missing, bias, classes: missing / classes),
            "W W^T off by 1e-6": Optimum(square=lambda *parts: WRONG * mse_bias.balanced_square(*parts)),
        },
    ),
    Proof(
        "ufm.mse_bias_transition",
        "threshold, continuity of F and its slope, cosine, both ends, symbolic K and c",
        "proved",
        transition_is_where_the_mean_appears,
        Transition(),
        {
            "threshold c": Transition(threshold=lambda c: c),
            "threshold off by 1e-6": Transition(threshold=lambda c: WRONG * mse_bias.transition(c)),
            "c without sqrt(n)": Transition(
                strength=lambda square, *parts: (
                    linear_mse.direction_strength(square, *parts) / sp.sqrt(square)
                )
            ),
            "slope ||b||^2": Transition(slope=1),
            "cosine without the mean": Transition(cosine=lambda centred, mean, classes: -1 / (classes - 1)),
        },
    ),
)
