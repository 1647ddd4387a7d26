"""Proofs of aligned starts (invariance, logistic law, defects of a step) and of the two central-path laws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import sympy as sp

from proofs_check.algebra import WRONG, is_zero, one_hot
from proofs_check.proof import Proof
from ufm.theory import mse_flow

n, C, t, g, a, omega, lr = sp.symbols("n C t g a omega lr", positive=True)
v, w = sp.symbols("v w", positive=True)


# ---------------------------------------------------------------------------------------- aligned starts


class Aligned(NamedTuple):
    """The invariant set as its check reads it: H over W^T x 1^T, entries of b, and rows that sum to 0."""

    scale: Callable[[int], Any] = lambda samples: 1 / sp.sqrt(samples)
    bias: Callable[[int], Any] = lambda classes: sp.Rational(1, classes)
    centred: bool = True
    end: Callable[[int], Any] = lambda samples: sp.sqrt(samples)


def _gradients(classes: int, width: int, samples: int, aligned: Aligned) -> tuple[Any, Any, tuple[Any, ...]]:
    """W, H and the gradients of ||W H + b 1^T - Y||^2/2 by W, H, b on the set, W of symbols."""
    W = sp.Matrix(classes, width, lambda i, j: sp.Symbol(f"w{i}_{j}", real=True))
    if aligned.centred:
        W[classes - 1, :] = -sum((W[i, :] for i in range(1, classes - 1)), W[0, :])
    Y = one_hot([samples] * classes)
    H = aligned.scale(samples) * W.T * Y
    R = W * H + aligned.bias(classes) * sp.ones(*Y.shape) - Y
    return W, H, (R * H.T, W.T * R, R * sp.ones(R.cols, 1))


def set_is_invariant(aligned: Aligned) -> bool:
    """Gradients along the set: dW/dt = sqrt(n) W - W W^T W, dH/dt that of H by W, db/dt = 0, and row sums stay 0.

    Each gradient lies in the directions of the set, so that a step of GD of any size stays in it, too. The end state
    W W^T = sqrt(n) (I - J/C) has dW/dt = 0 and residual 0.
    """
    for classes, width, samples in ((2, 2, 1), (2, 1, 3), (3, 2, 2)):
        W, _, (by_W, by_H, by_b) = _gradients(classes, width, samples, aligned)
        claimed = W * W.T * W - sp.sqrt(samples) * W
        by_columns = claimed.T * one_hot([samples] * classes) / sp.sqrt(samples)
        for difference in (by_W - claimed, by_H - by_columns, by_b, sp.ones(1, classes) * by_W):
            if any(sp.expand(entry) != 0 for entry in difference):
                return False
        centre = sp.eye(classes) - sp.ones(classes, classes) / classes
        gram = aligned.end(samples) * centre
        residual = (
            aligned.scale(samples) * gram
            + aligned.bias(classes) * sp.ones(classes, classes)
            - sp.eye(classes)
        )
        if any(sp.expand(entry) != 0 for entry in residual):
            return False
    return True


def rates_at_zero_hold(rates: Callable[..., Any]) -> bool:
    """det(x I - Hessian) of ||W H + b 1^T - Y||^2/2 at 0, b = 1/C, width 1, for C = 2, 3 and n = 1..3.

    It is (x^2 - n)^(C-1) x^(N - C + 2) (x - C n)^C with N = C n, by minus the rates; a width d repeats all but the
    last factor d times, for features do not meet at second order there.
    """
    x = sp.Symbol("x")
    for classes in (2, 3):
        for samples in (1, 2, 3):
            total = classes * samples
            Y = one_hot([samples] * classes)
            symbols = sp.symbols(f"y:{2 * classes + total}", real=True)
            W, H = sp.Matrix(symbols[:classes]), sp.Matrix([symbols[classes : classes + total]])
            b = sp.Matrix(symbols[classes + total :])
            R = W * H + b * sp.ones(1, total) - Y
            at = dict(
                zip(symbols, [0] * (classes + total) + [sp.Rational(1, classes)] * classes, strict=True)
            )
            value = sp.expand(sum(entry**2 for entry in R) / 2)
            # 0 and b = 1/C is critical, and second derivatives of a polynomial there are exact
            hessian = sp.hessian(value, symbols).subs(at)
            up, down, bias = rates(classes, samples, sp)
            claimed = (
                ((x + up) * (x + down)) ** (classes - 1) * x ** (total - classes + 2) * (x + bias) ** classes
            )
            if sp.expand(hessian.charpoly(x).as_expr() - claimed) != 0:
                return False
    return True


def recursion_is_exact(step: Callable[..., Any]) -> bool:
    """W - eta grad W = U diag(step(a)) V^T for W = U diag(a) V^T: a polynomial in W W^T applied to W, symbolic eta.

    step(a)/a must be 1 + eta sqrt(n) - eta a^2 with a^2 for W W^T; entries of W are symbols, C = 2, 3.
    """
    for classes, width, samples in ((2, 2, 3), (3, 2, 2)):
        W, _, (by_W, _, _) = _gradients(classes, width, samples, Aligned())
        factor = sp.Poly(sp.expand(sp.cancel(step(a, lr, samples, sp) / a)), a)
        if any(power % 2 for (power,) in factor.monoms()):
            return False
        gram, moved = W * W.T, sp.zeros(classes, width)
        for (power,), coefficient in factor.terms():
            moved += coefficient * gram ** (power // 2) * W
        if any(sp.expand(entry) != 0 for entry in W - lr * by_W - moved):
            return False
    return True


class Law(NamedTuple):
    """The logistic law as its check reads it."""

    law: Callable[..., Any] = mse_flow.logistic
    speed: Callable[..., Any] = mse_flow.aligned_speed


def law_solves_the_flow(law: Law) -> bool:
    """g(0) = g, dg/dt = 2 g (sqrt(n) - g), which is the step of GD as eta -> 0; symbolic n, g and t."""
    now = law.law(g, t, n, sp)
    small = sp.diff(mse_flow.aligned_step(a, lr, n, sp) ** 2, lr).subs(lr, 0)
    return is_zero(
        now.subs(t, 0) - g,
        sp.diff(now, t) - law.speed(now, n, sp),
        small - law.speed(a**2, n, sp),
        now.subs(g, sp.sqrt(n)) - sp.sqrt(n),
    )


def defect_is_exact(defect: Callable[..., Any]) -> bool:
    """exp of the change of the log-odds in one step is exp(2 h + defect), symbolic h, p and n."""
    p, h, full = sp.Symbol("p", positive=True), sp.Symbol("h", positive=True), sp.sqrt(n)
    before = p * full
    after = before * (mse_flow.aligned_step(a, h / full, n, sp) / a).subs(a, sp.sqrt(before)) ** 2
    odds = (after / (full - after)) / (before / (full - before))
    claimed = sp.exp(sp.expand_log(2 * h + defect(h, p, sp)))
    return is_zero(sp.simplify(sp.powsimp(claimed)) / odds - 1)


def _rational_is_positive(expression: Any) -> bool:
    """Whether a rational function of positive v, w has coefficients of one sign above and below, not all 0."""
    signs = []
    for part in sp.fraction(sp.cancel(sp.together(expression))):
        coefficients = sp.Poly(sp.expand(part), v, w).coeffs()
        if not (all(one > 0 for one in coefficients) or all(one < 0 for one in coefficients)):
            return False
        signs.append(coefficients[0] > 0)
    return bool(signs[0] == signs[1])


def defects_are_bounded(limits: Callable[[Any], tuple[Any, Any]]) -> bool:
    """-h^2 <= defect <= 2 h^2/(1 - 2 h) for all 0 < h < 1/2, 0 < p < 1.

    With u = h (1 - p), x = 2 h p + h^2 p (1 - p) and m = 2 h, where 0 < x < m: u - u^2/2 < log(1 + u) < u and
    x < -log(1 - x) < x + x^2/(2 (1 - m)), by the signs of their derivatives; what is left are polynomials, positive
    at p = 1/(1 + v), h = 1/(2 (1 + w)) for all v, w > 0.
    """
    h, p = 1 / (2 * (1 + w)), 1 / (1 + v)
    y, room = sp.symbols("y room", positive=True)
    small = y / (1 + y)  # any number in (0, 1)
    slopes = (
        sp.diff(sp.log(1 + y) - y + y**2 / 2, y),
        sp.diff(y - sp.log(1 + y), y),
        sp.diff(-sp.log(1 - y) - y, y).subs(y, small),
    )
    if not all(sp.simplify(slope).is_positive for slope in slopes):
        return False
    m = sp.Symbol("m", positive=True)  # x = y below m = y + room < 1: 1 - m = rest
    rest = sp.Symbol("rest", positive=True)
    slope = sp.diff(y + y**2 / (2 * (1 - m)) + sp.log(1 - y), y).subs(m, 1 - rest).subs(y, 1 - rest - room)
    # y (1/rest - 1/(rest + room)) with y = 1 - rest - room > 0
    if not is_zero(slope - (1 - rest - room) * room / (rest * (rest + room))):
        return False
    u, x = h * (1 - p), 2 * h * p + h**2 * p * (1 - p)
    least, most = limits(h)
    lower = 2 * (u - u**2 / 2) + x - 2 * h
    upper = 2 * u + x + x**2 / (2 * (1 - 2 * h)) - 2 * h
    return all(map(_rational_is_positive, (x, 2 * h - x, lower - least, most - upper)))


# ------------------------------------------------------------------------------------------ central path


class Path(NamedTuple):
    """One of the two laws as its check reads it: law, velocity, and leading growth of omega."""

    law: Callable[..., Any]
    speed: Callable[..., Any]
    growth: Any
    whitened: bool
    loss: Callable[..., Any] = mse_flow.central_loss
    gain: Callable[..., Any] = mse_flow.least_squares_gain


def law_follows_from_the_loss(path: Path) -> bool:
    """Least squares in one singular direction, velocity of omega from L, law and its growth; symbolic C, n.

    The direction has variance 1/C in the targets, 1 + omega^2/C in the features and covariance omega/C between them.
    n samples share a mean, so that the projected velocity is -1/n of the slope of L. The whole gradient moves the
    deviations delta by -gain^2 delta/(C n), hence their covariance by -2 gain^2/(C n); whitening multiplies omega by
    half of that back.
    """
    slope = sp.Symbol("slope", positive=True)
    variance = (1 / C - 2 * slope * omega / C + slope**2 * (1 + omega**2 / C)) / 2
    [best] = sp.solve(sp.diff(variance, slope), slope)
    if not is_zero(best - path.gain(omega, C), variance.subs(slope, best) - path.loss(omega, C)):
        return False
    velocity = -sp.diff(path.loss(omega, C), omega) / n
    if path.whitened:
        velocity += omega * best**2 / (C * n)
    if not is_zero(velocity - path.speed(omega, C, n)):
        return False
    if not is_zero(sp.diff(path.law(omega, C, n, sp), omega) * velocity - 1):
        return False
    return bool(sp.limit(path.law(path.growth, C, n, sp) / t, t, sp.oo) == 1)


PROJECTED = Path(mse_flow.projected_law, mse_flow.projected_speed, (4 * t / n) ** sp.Rational(1, 4), False)
REWHITENED = Path(mse_flow.rewhitened_law, mse_flow.rewhitened_speed, sp.sqrt(2 * t / (n * C)), True)


def _projected_with(c1: Any, c2: Any, c3: Any) -> Path:
    """The projected law with its constants multiplied."""
    one, two, three = mse_flow.projected_constants(C, n)
    return PROJECTED._replace(
        law=lambda x, classes, samples, xp: c1 * one * xp.log(x) + c2 * two * x**2 + c3 * three * x**4
    )


PROOFS = (
    Proof(
        "mixon2020.strong_nc",
        "invariant set, velocity on it, end state",
        "proved for K = 2..3",
        set_is_invariant,
        Aligned(),
        {
            "row sums not 0": Aligned(centred=False),
            "H = W^T x 1^T": Aligned(scale=lambda samples: sp.S.One),
            "b = 0": Aligned(bias=lambda classes: sp.S.Zero),
            "end state n + 1": Aligned(end=lambda samples: sp.Integer(samples) + 1),
            "b off by 1e-6": Aligned(bias=lambda classes: WRONG / classes),
        },
    ),
    Proof(
        "mixon2020.strong_nc",
        "rates at 0 with their multiplicities, n = 1..3",
        "proved for K = 2..3",
        rates_at_zero_hold,
        mse_flow.rates_at_zero,
        {
            "bias at n": lambda C, n, xp: (xp.sqrt(n), -xp.sqrt(n), -n),
            "n + 1 for sqrt(n)": lambda C, n, xp: (n + 1, -n - 1, -C * n),
            "off by 1e-6": lambda C, n, xp: (WRONG * xp.sqrt(n), -xp.sqrt(n), -C * n),
        },
    ),
    Proof(
        "ufm.aligned_recursion",
        "one step of GD at matrices of symbols, symbolic eta",
        "proved for K = 2..3",
        recursion_is_exact,
        mse_flow.aligned_step,
        {
            "n for sqrt(n)": lambda a, lr, n, xp: a * (1 + lr * (n - a**2)),
            "a for a^2": lambda a, lr, n, xp: a * (1 + lr * (xp.sqrt(n) - a)),
            "eta off by 1e-6": lambda a, lr, n, xp: mse_flow.aligned_step(a, WRONG * lr, n, xp),
        },
    ),
    Proof(
        "ufm.logistic_flow",
        "the law solves the limit of small steps, symbolic n",
        "proved",
        law_solves_the_flow,
        Law(),
        {
            "exp(-sqrt(n) t)": Law(law=lambda g, t, n, xp: mse_flow.logistic(g, t / 2, n, xp)),
            "time divided by n": Law(law=lambda g, t, n, xp: mse_flow.logistic(g, t / n, n, xp)),
            "off by 1e-6": Law(law=lambda g, t, n, xp: mse_flow.logistic(g, WRONG * t, n, xp)),
        },
    ),
    Proof(
        "ufm.logistic_flow",
        "defect of a step in the log-odds, symbolic h, p, n",
        "proved",
        defect_is_exact,
        mse_flow.step_defect,
        {
            "leading order": lambda h, p, xp: h**2 * (3 * p - 1),
            "off by 1e-6": lambda h, p, xp: WRONG * mse_flow.step_defect(h, p, xp),
        },
    ),
    Proof(
        "ufm.logistic_flow",
        "limits of the defect for all h < 1/2 and 0 < p < 1",
        "proved",
        defects_are_bounded,
        mse_flow.defect_limits,
        {
            "2 h^2 above": lambda h: (-(h**2), 2 * h**2),
            "above, off by 1e-6": lambda h: (-(h**2), 2 * h**2 / (1 - 2 * h) * (1 - (WRONG - 1))),
            "below, off by 1e-6": lambda h: (-(h**2) * (1 - (WRONG - 1)), 2 * h**2 / (1 - 2 * h)),
        },
    ),
    Proof(
        "han2021.central_path",
        "L, velocity of the projected gradient, its law and growth, symbolic C and n",
        "proved",
        law_follows_from_the_loss,
        PROJECTED,
        {
            "law of the other flow": PROJECTED._replace(law=mse_flow.rewhitened_law),
            "whole gradient": PROJECTED._replace(whitened=True),
            "c1 off by 1e-6": _projected_with(WRONG, 1, 1),
            "c2 off by 1e-6": _projected_with(1, WRONG, 1),
            "c3 off by 1e-6": _projected_with(1, 1, WRONG),
            "L = sum 1/(1 + omega^2)/2": PROJECTED._replace(
                loss=lambda omega, classes: 1 / (1 + omega**2) / 2
            ),
            "omega ~ t^(1/2)": PROJECTED._replace(growth=REWHITENED.growth),
        },
    ),
    Proof(
        "ufm.rewhitened_path",
        "velocity of the whole gradient after whitening, its law and growth, symbolic C and n",
        "proved",
        law_follows_from_the_loss,
        REWHITENED,
        {
            "published form": REWHITENED._replace(law=mse_flow.projected_law),
            "projected gradient": REWHITENED._replace(whitened=False),
            "off by 1e-6": REWHITENED._replace(law=lambda *parts: WRONG * mse_flow.rewhitened_law(*parts)),
            "omega ~ t^(1/4)": REWHITENED._replace(growth=PROJECTED.growth),
        },
    ),
)
