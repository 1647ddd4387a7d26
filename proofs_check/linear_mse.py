"""Proofs of the linear chain with squared error: directions, Dang's equation, the bias, Tirer and Bruna's model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import sympy as sp

from proofs_check.algebra import WRONG, equal_powers, one_hot
from proofs_check.proof import Proof
from ufm.theory import deep_collapse, linear_mse

gain, x, N, square, G = sp.symbols("gamma x N sigma2 G", positive=True)
lam_W, lam_H, K, n = sp.symbols("lam_W lam_H K n", positive=True)
deep = 1 + sp.Symbol("m", positive=True)  # L > 1

# ---------------------------------------------------------------------------------------------- directions


class Direction(NamedTuple):
    """One singular direction as its check reads it."""

    strength: Callable[..., Any] = linear_mse.direction_strength
    power: Callable[[Any], Any] = lambda depth: 2 / (depth + 1)


def direction_is_scalar(direction: Direction) -> bool:
    """Fit and least decay of a direction are sigma^2/N times the scalar problem; its root for symbolic L.

    With G = lam_H prod lam_l the part of direction i is (sigma - z)^2/(2N) + (L+1)/2 G^(1/(L+1)) z^(2/(L+1)), by
    the inequalities of Horn, Hoelder and von Neumann (cited in `linear_mse`), and z = gamma sigma.
    """
    depth, z = sp.Symbol("L", positive=True), gain * sp.sqrt(square)
    strength = N / square * (square * G) ** (1 / (depth + 1))
    part = (sp.sqrt(square) - z) ** 2 / (2 * N)
    part += (depth + 1) / 2 * G ** (1 / (depth + 1)) * z ** direction.power(depth)
    claimed = square / N * deep_collapse.objective(gain, strength, depth, sp)
    difference = sp.expand(sp.powdenest(sp.expand_power_base(part - claimed, force=True), force=True))
    if sp.simplify(sp.powsimp(difference, force=True)) != 0:
        return False
    if not equal_powers(strength ** (depth + 1), (N / square) ** depth * N * G):
        return False
    if not equal_powers(
        deep_collapse.strength_at(gain, deep, sp).subs(1 - gain, x) ** (deep + 1),
        gain ** (deep - 1) * x ** (deep + 1),
    ):
        return False
    for layers in range(1, 7):  # the shipped function, which takes the decays one by one
        rates = sp.symbols(f"lam_1:{layers + 1}", positive=True)
        given = direction.strength(square, N, lam_H, rates, sp)
        if not equal_powers(given ** (layers + 1), (N / square) ** layers * N * lam_H * sp.prod(rates)):
            return False
    return True


class Dang(NamedTuple):
    """The public code's equation b/n_k = M x^(M-1)/(1 + x^M)^2 as its check reads it."""

    constant: Callable[..., Any] = linear_mse.dang_constant
    curve: Callable[[Any, Any], Any] = linear_mse.dang_curve
    gain: Callable[[Any, Any], Any] = linear_mse.dang_gain


def dang_equation_holds(dang: Dang) -> bool:
    """(b/n_k)^M = curve^M is gamma^(M-1) (1 - gamma)^(M+1) = (N/n_k)^M N lam_H lam_W^M, for symbolic M."""
    M = sp.Symbol("M", positive=True)
    gamma = dang.gain(x, M)
    rest = sp.simplify(1 - gamma)
    right = (dang.constant(M, N, lam_H, lam_W, sp) / n / M) ** M
    return equal_powers((dang.curve(x, M) / M) ** M, gamma ** (M - 1) * rest ** (M + 1)) and equal_powers(
        right, (N / n) ** M * N * lam_H * lam_W**M
    )


def rule_is_optimal(kept: Callable[[Any, Any], Any]) -> bool:
    """A rule keeps a direction iff its objective is below zero's, at exact rational gains and L = 1..6.

    For every L the objective is 1/2 - gamma L (gamma - (L-1)/L)/2, below 1/2 iff gamma > (L-1)/L; for L > 1 and
    gamma = (1 - s) (L-1)/L with 0 < s < 1 it exceeds 1/2 by gamma s (L-1)/2 > 0.
    """
    depth = sp.Symbol("L", positive=True)
    below_half = gain * depth * (gain - deep_collapse.zero_gain(depth, sp)) / 2
    if sp.expand(sp.Rational(1, 2) - deep_collapse.stationary_loss(gain, depth) - below_half) != 0:
        return False
    s, positive = sp.symbols("s", positive=True), sp.Symbol("r", positive=True)
    below = deep_collapse.zero_gain(deep, sp) * (1 - s)
    excess = sp.simplify(deep_collapse.stationary_loss(below, deep) - sp.Rational(1, 2))
    if sp.simplify(excess - below * s * (deep - 1) / 2) != 0:
        return False
    if not sp.simplify(excess.subs(s, 1 / (1 + positive))).is_positive:
        return False
    small = sp.Rational(1, 10**7)
    for depth in range(1, 7):
        least, zero = (
            limit(sp.Integer(depth), sp) for limit in (deep_collapse.existence_gain, deep_collapse.zero_gain)
        )
        gains = [least + (1 - least) * sp.Rational(i, 12) for i in range(12)]
        gains += [value for value in (zero * (1 - small), zero * (1 + small)) if value > 0]
        for value in gains:
            better = deep_collapse.stationary_loss(value, depth) < sp.Rational(1, 2)
            if bool(kept(value, sp.Integer(depth))) != bool(better):
                return False
    return True


# --------------------------------------------------------------------------------------------------- bias


class Bias(NamedTuple):
    """A free bias as its check reads it."""

    gram: Callable[..., Any] = linear_mse.centred_gram
    best: Callable[[sp.Matrix], sp.Matrix] = lambda error: -error * sp.ones(error.cols, 1) / error.cols


def bias_centres_the_targets(bias: Bias) -> bool:
    """The best bias centres Z - Y over the samples; Y (I - 1 1^T/N) has Gram diag(n) - n n^T/N; equal classes.

    Once the targets are centred, so is the best Z, since centring cannot raise its singular values. For equal
    classes det(t I - Gram) = t (t - n)^(K-1), and the weights sigma^2/N of the directions sum to (K - 1)/K.
    """
    t = sp.Symbol("t")
    for classes in range(2, 6):
        sizes = [1 + (k % 2) for k in range(classes)]
        total = sum(sizes)
        Y = one_hot(sizes)
        Z = sp.Matrix(classes, total, lambda i, j: sp.Symbol(f"z{i}_{j}"))
        centre = sp.eye(total) - sp.ones(total, total) / total
        moved = Z - Y + bias.best(Z - Y) * sp.ones(1, total)
        if (moved - (Z - Y) * centre).applyfunc(sp.expand) != sp.zeros(classes, total):
            return False
        if any(sp.expand(entry) != 0 for entry in moved * sp.ones(total, 1)):
            return False  # the derivative of the fit by b
        if Y * centre * Y.T != bias.gram(sizes, sp):
            return False
        equal = bias.gram([n] * classes, sp).applyfunc(sp.cancel)
        if (
            sp.expand((t * sp.eye(classes) - equal).det(method="berkowitz") - t * (t - n) ** (classes - 1))
            != 0
        ):
            return False
        if sp.cancel(equal.trace() / (classes * n) - sp.Rational(classes - 1, classes)) != 0:
            return False
    return True


# ----------------------------------------------------------------------------------------- Tirer and Bruna


class Tirer(NamedTuple):
    """The model of Tirer and Bruna as its check reads it."""

    decays: Callable[..., Any] = linear_mse.tirer_bruna_decays
    gain: Callable[..., Any] = linear_mse.tirer_bruna_gain
    square: Callable[..., Any] = linear_mse.tirer_bruna_square
    loss: Callable[..., Any] = linear_mse.tirer_bruna_loss


def tirer_bruna_is_one_layer(tirer: Tirer) -> bool:
    """Their decays are mapped to L = 1, D = K; gain, squared norm of a mean and objective follow, symbolic K and n."""
    W, H = tirer.decays(lam_W, lam_H, K, n)
    norms = sp.symbols("w h", positive=True)  # ||W||_F^2 and ||H||_F^2
    theirs = lam_W / (2 * K) * norms[0] + lam_H / (2 * K * n) * norms[1]
    if sp.simplify(theirs - (W * norms[0] + H * norms[1]) / 2) != 0:
        return False
    strength = K * deep_collapse.geometric_decay(H, [W], n, sp)
    found = tirer.gain(lam_W, lam_H, sp)
    if deep_collapse.existence_limit(sp.Integer(1), sp) != 1:
        return False  # with c = K Lam >= 1 zero is all there is
    if sp.simplify(deep_collapse.strength_at(found, 1, sp) - strength) != 0:
        return False
    if sp.simplify(tirer.loss(lam_W, lam_H, sp) - deep_collapse.stationary_loss(found, 1)) != 0:
        return False
    share = linear_mse.factor_share(found, 1 - found, K)
    return bool(sp.simplify(share / (H * n) - tirer.square(lam_W, lam_H, sp)) == 0)


PROOFS = (
    Proof(
        "ufm.linear_mse_optimum",
        "a singular direction is the scalar problem, symbolic L (norm inequalities cited)",
        "proved",
        direction_is_scalar,
        Direction(),
        {
            "Schatten power 2/L": Direction(power=lambda depth: 2 / depth),
            "strength off by 1e-6": Direction(lambda *parts: WRONG * linear_mse.direction_strength(*parts)),
            "N for N/sigma^2": Direction(
                lambda square, *parts: linear_mse.direction_strength(square, *parts) * square
            ),
        },
    ),
    Proof(
        "ufm.linear_mse_optimum",
        "Dang's equation is that of the gain, symbolic depth",
        "proved",
        dang_equation_holds,
        Dang(),
        {
            "x^M for x^(M-1)": Dang(curve=lambda x, M: linear_mse.dang_curve(x, M) * x),
            "b off by 1e-6": Dang(constant=lambda *parts: WRONG * linear_mse.dang_constant(*parts)),
            "gamma = 1/(1 + x^M)": Dang(gain=lambda x, M: 1 / (1 + x**M)),
        },
    ),
    Proof(
        "dang2023.code_window.erratum",
        "kept iff gamma > (L-1)/L; a root alone is not enough",
        "proved",
        rule_is_optimal,
        linear_mse.kept,
        {
            "largest root, as in the code": lambda gain, depth: True,
            "gamma > (L-1)/(2L)": lambda gain, depth: gain > deep_collapse.existence_gain(depth, sp),
            "off by 1e-6": lambda gain, depth: gain > deep_collapse.zero_gain(depth, sp) * WRONG,
        },
    ),
    Proof(
        "ufm.linear_mse_bias",
        "best bias, Gram matrix of the centred targets, its spectrum",
        "proved for K = 2..5",
        bias_centres_the_targets,
        Bias(),
        {
            "mean over classes instead of samples": Bias(
                gram=lambda sizes, xp: (
                    xp.diag(*sizes) - xp.Matrix(sizes) * xp.ones(1, len(sizes)) / len(sizes)
                )
            ),
            "bias off by 1e-6": Bias(best=lambda error: -error * sp.ones(error.cols, 1) / error.cols * WRONG),
        },
    ),
    Proof(
        "tirer2022.collapse",
        "decays mapped to L = 1; gain, Gram, objective, limit c = 1, symbolic K, n",
        "proved",
        tirer_bruna_is_one_layer,
        Tirer(),
        {
            "lam_H/K": Tirer(decays=lambda W, H, K, n: (W / K, H / K)),
            "sqrt(lam_H/lam_W)": Tirer(square=lambda W, H, xp: linear_mse.tirer_bruna_square(H, W, xp)),
            "loss c": Tirer(loss=lambda W, H, xp: xp.sqrt(W * H)),
            "gain off by 1e-6": Tirer(gain=lambda W, H, xp: 1 - xp.sqrt(W * H) * WRONG),
        },
    ),
)
