"""Proofs of deep neural collapse with squared error: the scalar problem, its transition, DNC, and what bounds it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any, NamedTuple

import sympy as sp

from proofs_check.algebra import WRONG, equal_powers, one_hot
from proofs_check.proof import Proof
from ufm.theory import deep_collapse as room
from ufm.theory.linear_mse import factor_share

x, D, n, lam_H, G = sp.symbols("x D n lam_H G", positive=True)
L = sp.Symbol("L", positive=True)


# -------------------------------------------------------------------------------------- the scalar problem


class Scalar(NamedTuple):
    """The scalar problem as its checks read it."""

    objective: Callable[..., Any] = room.objective
    strength_at: Callable[..., Any] = room.strength_at
    stationary_loss: Callable[..., Any] = room.stationary_loss
    existence_gain: Callable[..., Any] = room.existence_gain
    zero_gain: Callable[..., Any] = room.zero_gain


def least_decay_holds(scalar: Scalar) -> bool:
    """The least decay of L + 1 factors with a given product of squared norms is that of phi, for symbolic L.

    With alpha_j y_j = g e^(t_j), sum t_j = 0, the sum of the L + 1 terms is at least g sum (1 + t_j) = (L+1) g, since
    e^t - 1 - t has its only minimum, 0, at t = 0; at equal terms it is (L+1) g. g^(L+1) is the product of
    alpha_j = lam_j/2 and of the squared norms, G/2^(L+1) n D^(L+1) x^2 with G = lam_H prod lam_l.
    """
    t = sp.Symbol("t", real=True)
    above = sp.exp(t) - 1 - t
    if above.subs(t, 0) != 0 or sp.solveset(above.diff(t), t, sp.S.Reals) != sp.FiniteSet(0):
        return False
    if not above.diff(t, 2).is_positive:
        return False
    g = (G / 2 ** (L + 1) * n * D ** (L + 1) * x**2) ** (1 / (L + 1))
    lam = (n * G) ** (1 / (L + 1))  # geometric_decay with G for the product; its own form is checked below
    claimed = scalar.objective(x, D * lam, L, sp) - (1 - x) ** 2 / 2
    if sp.simplify(sp.powdenest(sp.expand_power_base((L + 1) * g, force=True), force=True) - claimed) != 0:
        return False
    for depth in range(1, 9):
        rates = sp.symbols(f"lam_1:{depth + 1}", positive=True)
        given = room.geometric_decay(lam_H, rates, n, sp) ** (depth + 1)
        if sp.simplify(given - n * lam_H * sp.prod(rates)) != 0:
            return False
    return True


def stationarity_holds(scalar: Scalar) -> bool:
    """phi' = x^(-a) (D Lam - strength_at(x)), a = (L-1)/(L+1); the value; a minimum iff x exceeds existence_gain.

    At a root phi'' = -x^(-a) strength_at'(x), and strength_at' = x^(a-1) times a linear function that falls through 0
    at existence_gain.
    """
    S = sp.Symbol("S", positive=True)
    slope = scalar.objective(x, S, L, sp).diff(x)
    a = (L - 1) / (L + 1)
    if sp.simplify(sp.expand(slope * x**a) - sp.expand(S - scalar.strength_at(x, L, sp))) != 0:
        return False
    value = scalar.objective(x, scalar.strength_at(x, L, sp), L, sp)
    if sp.simplify(sp.expand(sp.powsimp(sp.expand(value))) - sp.expand(scalar.stationary_loss(x, L))) != 0:
        return False
    curve = sp.simplify(sp.expand(scalar.strength_at(x, L, sp).diff(x) * x ** (1 - a)))
    turn = sp.simplify(curve.subs(x, scalar.existence_gain(L, sp)))
    return bool(turn == 0 and sp.simplify(curve.diff(x, 2)) == 0 and sp.simplify(curve.diff(x)).is_negative)


def transition_holds(scalar: Scalar) -> bool:
    """The root beats zero iff x > (L-1)/L, and there (D Lam)^(L+1) = (L-1)^(L-1)/L^(2L); for L > 1 it is a jump.

    1/2 - stationary_loss = x (L x - (L - 1))/2 changes its sign at zero_gain alone; strength_at falls beyond
    existence_gain < zero_gain, so the condition on x is one on D Lam.
    """
    deep = 1 + sp.Symbol("m", positive=True)  # L > 1
    gap = sp.factor(sp.Rational(1, 2) - scalar.stationary_loss(x, deep))
    zero = scalar.zero_gain(deep, sp)
    if sp.simplify(gap.subs(x, zero)) != 0 or sp.simplify(gap / x).diff(x).is_positive is not True:
        return False
    if not sp.simplify(zero - scalar.existence_gain(deep, sp)).is_positive:
        return False
    limit = sp.factor(1 - zero) * zero ** ((deep - 1) / (deep + 1))
    printed = (deep - 1) ** (deep - 1) / deep ** (2 * deep)
    if sp.simplify(limit - scalar.strength_at(zero, deep, sp)) != 0:
        return False
    if not equal_powers(limit ** (deep + 1), printed):
        return False
    one = sp.Integer(1)  # L = 1: both gains are 0 and both limits 1, so the gain 1 - D Lam reaches 0 there
    ends = (scalar.zero_gain(one, sp), scalar.existence_gain(one, sp), scalar.strength_at(0, one, sp) - 1)
    return all(end == 0 for end in ends)


def limits_hold(limits: tuple[Callable[..., Any], Callable[..., Any]]) -> bool:
    """existence_limit and zero_limit against the printed powers, for symbolic L."""
    deep = 1 + sp.Symbol("m", positive=True)
    a = (deep - 1) / (deep + 1)
    printed = (
        (deep + 1) / (2 * deep) * ((deep - 1) / (2 * deep)) ** a,
        1 / deep * ((deep - 1) / deep) ** a,
    )
    return all(
        sp.simplify(limit(deep, sp) / value) == 1 for limit, value in zip(limits, printed, strict=True)
    )


def binary_threshold_holds(threshold: Callable[[Any], Any]) -> bool:
    """The recalled threshold is zero_limit^(L+1)/D^(L+1) at D = 2: there 2 Lam is the strength of the transition."""
    deep = 1 + sp.Symbol("m", positive=True)
    limit = sp.simplify(room.zero_limit(deep, sp))
    return equal_powers(limit ** (deep + 1) / 2 ** (deep + 1), threshold(deep))


# ------------------------------------------------------------------------------------------ explicit matrices


class Collapsed(NamedTuple):
    """DNC as its checks read it: share of each factor, and eigenvalues of one layer's Hessian."""

    share: Callable[[Any, Any, Any], Any] = factor_share
    loss: Callable[[Any, Any], Any] = room.stationary_loss
    curvature: Callable[[Any, Any], Any] = room.layer_curvature


def collapsed_state(K: int, per_class: int, depth: int, share: Callable[[Any, Any, Any], Any]) -> Any:
    """DNC of free positive scales w_l, h with gain prod w_l h and the decays that these scales are optimal for."""
    w = sp.symbols(f"w1:{depth + 1}", positive=True)
    h = sp.Symbol("h", positive=True)
    gain = sp.prod(w) * h
    c = share(gain, 1 - gain, sp.Integer(K))
    rates, rate_H = [c / scale**2 for scale in w], c / (per_class * h**2)
    H = h * one_hot([per_class] * K)
    return [scale * sp.eye(K) for scale in w], H, rates, rate_H, gain


def dnc_is_critical(collapsed: Collapsed) -> bool:
    """Gradient 0 and objective (1 - x)(1 + L x)/2 at symbolic decays, ReLU and identity, K = 2, 3, n = 1, 2, L = 1..4.

    Scales w_l = sqrt(c/lam_l) stand for the decays: any L + 1 decays and gain correspond to such scales. ReLU has
    slope 0 at 0, as the kernels take it.
    """
    for K, per_class, depth, relu in product((2, 3), (1, 2), (1, 2, 3, 4), (True, False)):
        W, H, rates, rate_H, gain = collapsed_state(K, per_class, depth, collapsed.share)
        N = K * per_class
        layers = [H]
        for weights in W[:-1]:
            layers.append(weights * layers[-1])  # entries are >= 0, so that ReLU leaves them
        error = (W[-1] * layers[-1] - one_hot([per_class] * K)) / N
        decay = sum(rate * (A.T * A).trace() for rate, A in zip([*rates, rate_H], [*W, H], strict=True)) / 2
        if sp.cancel(N * (error.T * error).trace() / 2 + decay - collapsed.loss(gain, depth)) != 0:
            return False
        for layer in range(depth - 1, -1, -1):
            gradient = error * layers[layer].T + rates[layer] * W[layer]
            if gradient.applyfunc(sp.cancel) != sp.zeros(K, K):
                return False
            error = W[layer].T * error
            if relu and layer > 0:
                error = error.multiply_elementwise(layers[layer].applyfunc(lambda a: int(a != 0)))
        if (error + rate_H * H).applyfunc(sp.cancel) != sp.zeros(K, N):
            return False
    return True


def layer_hessian_holds(collapsed: Collapsed) -> bool:
    """Second derivatives of the fit by every layer at linear DNC of width K + 1, K = 2, 3, L = 1..3, n = 2."""
    per_class = 2
    for K, depth in product((2, 3), (1, 2, 3)):
        W, H, rates, _, gain = collapsed_state(K, per_class, depth, collapsed.share)
        wide = [A.row_join(sp.zeros(K, 1)).col_join(sp.zeros(1, K + 1)) for A in W[:-1]]
        wide.append(W[-1].row_join(sp.zeros(K, 1)))
        H = H.col_join(sp.zeros(1, K * per_class))
        Y = one_hot([per_class] * K)
        for layer in range(depth):
            free = sp.Matrix(*wide[layer].shape, lambda i, j: sp.Symbol(f"v{i}_{j}"))
            chain = H
            for number, weights in enumerate(wide):
                chain = (free if number == layer else weights) * chain
            R = chain - Y
            fit = (R.T * R).trace() / (2 * K * per_class)
            hessian = sp.hessian(fit, list(free))  # constant: the fit is quadratic in one layer
            value = collapsed.curvature(rates[layer], gain)
            if any(sp.cancel(entry) != 0 for entry in hessian - sp.diag(*hessian.diagonal())):
                return False
            alike = sum(sp.cancel(entry - value) == 0 for entry in hessian.diagonal())
            empty = sum(entry == 0 for entry in hessian.diagonal())
            if alike != K**2 or alike + empty != hessian.rows:
                return False
    return True


# --------------------------------------------------------------------------------------- copies of columns


class Chain(NamedTuple):
    """Parts of an objective at symbolic features H (columns), for the column-copy argument."""

    fit: Callable[[sp.Matrix, list[int]], Any]
    penalty: Callable[[sp.Matrix], Any]


def sum_of_losses(Z: sp.Matrix, labels: list[int]) -> Any:
    """Sum over samples of an unknown loss of the logits that depends on the class alone."""
    return sum(sp.Function(f"loss{label}")(*Z[:, i]) for i, label in enumerate(labels))


def loss_by_sample(Z: sp.Matrix, labels: list[int]) -> Any:
    """A loss that differs between samples of one class, as noisy labels make it."""
    return sum(sp.Function(f"loss{i}")(*Z[:, i]) for i in range(Z.cols))


def loss_of_centred(Z: sp.Matrix, labels: list[int]) -> Any:
    """A loss of logits centred over the batch, as a normalisation without frozen statistics makes it."""
    mean = Z * sp.ones(Z.cols, 1) / Z.cols
    return sum_of_losses(Z - mean * sp.ones(1, Z.cols), labels)


def squared_norm(H: sp.Matrix) -> Any:
    """||H||_F^2 with any decay."""
    return lam_H / 2 * sum(h**2 for h in H)


def gram_norm(H: sp.Matrix) -> Any:
    """A penalty that couples samples, ||H^T H||_F^2."""
    return sum(g**2 for g in H.T * H)


def copies_average_to_the_objective(chain: Chain) -> bool:
    """For each class, the objectives with one of its n columns copied over the class average to the objective itself.

    Then the smallest of them is no larger than the objective. Activation and loss are unknown functions, the
    penalty of the weights does not change; K = 2, n = 2, 3, L = 1, 2. The identity is that of a sum over samples of one
    function per class, and so the argument holds for every K, n and L.
    """
    for per_class, depth in product((2, 3), (1, 2)):
        labels = [0] * per_class + [1] * per_class
        H = sp.Matrix(2, len(labels), lambda i, j: sp.Symbol(f"h{i}_{j}"))

        def objective(H: sp.Matrix, depth: int = depth, labels: list[int] = labels) -> Any:
            Z = H
            for layer in range(1, depth + 1):
                inner = Z if layer == 1 else Z.applyfunc(sp.Function("s"))
                Z = sp.Matrix(2, 2, sp.symbols(f"w{layer}_:4")) * inner
            return chain.fit(Z, labels) + chain.penalty(H)

        for label in (0, 1):
            own = [i for i, other in enumerate(labels) if other == label]
            copies = []
            for source in own:
                copied = H.copy()
                for target in own:
                    copied[:, target] = H[:, source]
                copies.append(objective(copied))
            if sp.expand(sum(copies) / per_class - objective(H)) != 0:
                return False
    return True


def fit_curvature(A: sp.Matrix, N: Any) -> sp.Matrix:
    """Hessian of the squared error by one feature, A^T A/N."""
    return A.T * A / N


def log_sum_exp(z: sp.Matrix) -> Any:
    """Cross-entropy without the logit of the label, in which it is linear."""
    return sp.log(sum(sp.exp(value) for value in z))


class Spread(NamedTuple):
    """How far two features of a class can be apart, for the check of the linear chain."""

    curvature: Callable[[sp.Matrix, Any], sp.Matrix] = fit_curvature
    log_normaliser: Callable[[sp.Matrix], Any] = log_sum_exp


def linear_features_collapse(spread: Spread) -> bool:
    """G_i - G_j = (A^T A/N + lam_H)(h_i - h_j) for squared error; cross-entropy is convex in the logits.

    With a convex loss, (h_i - h_j)^T (G_i - G_j) >= lam_H |h_i - h_j|^2, as A^T maps the loss's monotone gradient, and
    by Cauchy and Schwarz |h_i - h_j| <= |G_i - G_j|/lam_H. Cross-entropy's Hessian by the logits is
    sum_{i<j} p_i p_j (e_i - e_j)(e_i - e_j)^T, K = 2..5, whatever the target.
    """
    N = sp.Symbol("N", positive=True)
    for K, d in product(range(2, 6), (2, 3)):
        A = sp.Matrix(K, d, sp.symbols(f"a:{K * d}"))
        h, other = (sp.Matrix(sp.symbols(f"{name}:{d}")) for name in "hk")

        def objective(v: sp.Matrix, A: sp.Matrix = A) -> Any:
            error = A * v - sp.eye(A.rows)[:, 0]
            return (error.T * error)[0] / (2 * N) + lam_H * (v.T * v)[0] / 2

        gradients = [sp.Matrix([objective(v).diff(entry) for entry in v]) for v in (h, other)]
        claimed = (spread.curvature(A, N) + lam_H * sp.eye(d)) * (h - other)
        if (gradients[0] - gradients[1] - claimed).applyfunc(sp.expand) != sp.zeros(d, 1):
            return False
    for K in range(2, 6):
        z = sp.Matrix(sp.symbols(f"z:{K}", real=True))
        e = sp.symbols(f"e:{K}", positive=True)  # exp(z)
        p = [value / sum(e) for value in e]
        pairs = sp.zeros(K, K)
        for i, j in product(range(K), range(K)):
            if i < j:
                contrast = sp.eye(K)[:, i] - sp.eye(K)[:, j]
                pairs += p[i] * p[j] * contrast * contrast.T
        hessian = sp.hessian(spread.log_normaliser(z), list(z)).subs(
            dict(zip(map(sp.exp, z), e, strict=True))
        )
        if (hessian - pairs).applyfunc(sp.cancel) != sp.zeros(K, K):
            return False
    return True


# --------------------------------------------------------------------------------------------- product bound


def product_bound_holds(spread: Callable[..., Any]) -> bool:
    """Decay and fit of a Z with nuclear norm K sqrt(n) x are at least phi with D = K^(2/(L+1)); symbolic L, K, n.

    Decay: the L + 1 factors have a product of Frobenius norms of at least the nuclear norm (argued in
    `product_spread`), so a product of squared norms of at least K^2 n x^2, which must be n D^(L+1) x^2. Fit: with
    K singular values s_i that sum to T, <Z, Y> <= sqrt(n) T and ||Y||_F^2 = K n, so
    ||Z - Y||_F^2 >= sum (s_i - sqrt n)^2 = (T - K sqrt n)^2/K + sum (s_i - T/K)^2, and at T = K sqrt(n) x the first
    term is K n (1 - x)^2. A sum over i of a polynomial in s_i is written by the sums of s_i^2, of s_i and of 1.
    """
    K = sp.Symbol("K", positive=True)
    power = sp.powdenest(spread(K, L, sp) ** (L + 1), force=True)
    if sp.simplify(power - K**2) != 0:
        return False
    s, T, squares = sp.symbols("s T S2", positive=True)

    def total(term: Any) -> Any:
        return sum(c * (K, T, squares)[power] for (power,), c in sp.Poly(term, s).terms())

    gap = (T - K * sp.sqrt(n)) ** 2 / K
    if sp.expand(total((s - sp.sqrt(n)) ** 2) - gap - total((s - T / K) ** 2)) != 0:
        return False
    fit = gap.subs(T, K * sp.sqrt(n) * x) / (2 * K * n)
    return bool(sp.expand(fit - (1 - x) ** 2 / 2) == 0)


def one_factor_missing(value: Any, strength: Any, depth: Any, xp: Any = sp) -> Any:
    """The Schatten power 2/L of a chain of L factors, which here has L + 1."""
    return room.objective(value, strength, depth - 1, xp)


def equal_shares_of_the_mean(gain: Any, shortfall: Any, spread: Any) -> Any:
    """Share gamma (1 - gamma)^2/D."""
    return factor_share(gain, shortfall**2, spread)


PROOFS = (
    Proof(
        "ufm.collapse_scalar",
        "least decay of L + 1 factors, symbolic L, n, D and decays",
        "proved",
        least_decay_holds,
        Scalar(),
        {
            "Schatten power 2/L": Scalar(objective=one_factor_missing),
            "decay off by 1e-6": Scalar(lambda v, S, depth, xp: room.objective(v, S * WRONG, depth, xp)),
        },
    ),
    Proof(
        "ufm.collapse_scalar",
        "stationarity, value and minimum for symbolic L",
        "proved",
        stationarity_holds,
        Scalar(),
        {
            "root of the Schatten power 2/L": Scalar(
                strength_at=lambda v, depth, xp: room.strength_at(v, depth - 1, xp)
            ),
            "value off by 1e-6": Scalar(
                stationary_loss=lambda v, depth: room.stationary_loss(v, depth * WRONG)
            ),
            "turning point off by 1e-6": Scalar(
                existence_gain=lambda depth, xp: room.existence_gain(depth, xp) * WRONG
            ),
        },
    ),
    Proof(
        "ufm.collapse_transition",
        "beats zero iff x > (L-1)/L; threshold; jump for L > 1",
        "proved",
        transition_holds,
        Scalar(),
        {
            "gain (L-1)/(L+1)": Scalar(zero_gain=lambda depth, xp: (depth - 1) / (depth + 1)),
            "gain off by 1e-6": Scalar(zero_gain=lambda depth, xp: room.zero_gain(depth, xp) * WRONG),
            "strength off by 1e-6": Scalar(
                strength_at=lambda v, depth, xp: room.strength_at(v, depth, xp) * WRONG
            ),
        },
    ),
    Proof(
        "ufm.collapse_transition",
        "limits of existence and of zero in print, symbolic L",
        "proved",
        limits_hold,
        (room.existence_limit, room.zero_limit),
        {
            "limits exchanged": (room.zero_limit, room.existence_limit),
            "existence off by 1e-6": (
                lambda depth, xp: room.existence_limit(depth, xp) * WRONG,
                room.zero_limit,
            ),
        },
    ),
    Proof(
        "ufm.dnc_stationary",
        "gradient 0 and objective, unequal decays, ReLU and identity, L = 1..4",
        "proved for K = 2..3",
        dnc_is_critical,
        Collapsed(),
        {
            "share off by 1e-6": Collapsed(share=lambda *parts: factor_share(*parts) * WRONG),
            "share gamma (1 - gamma)^2/K": Collapsed(share=equal_shares_of_the_mean),
            "objective off by 1e-6": Collapsed(loss=lambda v, depth: room.stationary_loss(v, depth * WRONG)),
        },
    ),
    Proof(
        "sukenik2023.binary",
        "recalled threshold is the transition at D = 2, symbolic L",
        "proved",
        binary_threshold_holds,
        room.binary_threshold,
        {
            "2^L": lambda depth: 2 * room.binary_threshold(depth),
            "L^(2L+1)": lambda depth: room.binary_threshold(depth) / depth,
            "off by 1e-6": lambda depth: room.binary_threshold(depth) * WRONG,
        },
    ),
    Proof(
        "garrod2024.thm4.1",
        "rank K^2, equal eigenvalues lam_l gamma/(1 - gamma), every layer, L = 1..3",
        "proved for K = 2..3",
        layer_hessian_holds,
        Collapsed(),
        {
            "eigenvalue off by 1e-6": Collapsed(
                curvature=lambda rate, gain: room.layer_curvature(rate, gain) * WRONG
            ),
            "eigenvalue lam_l gamma^2/(1 - gamma)": Collapsed(
                curvature=lambda rate, gain: room.layer_curvature(rate, gain) * gain
            ),
            "not stationary: share off by 1e-6": Collapsed(share=lambda *parts: factor_share(*parts) * WRONG),
        },
    ),
    Proof(
        "sukenik2024.dnc1",
        "copies of a class average to the objective, unknown activation and loss",
        "proved for K = 2",
        copies_average_to_the_objective,
        Chain(sum_of_losses, squared_norm),
        {
            "noisy labels": Chain(loss_by_sample, squared_norm),
            "logits centred over the batch": Chain(loss_of_centred, squared_norm),
            "penalty that couples samples": Chain(sum_of_losses, gram_norm),
        },
    ),
    Proof(
        "ufm.linear_dnc1",
        "differences of gradients for squared error (d = 2, 3), convex cross-entropy",
        "proved for K = 2..5",
        linear_features_collapse,
        Spread(),
        {
            "curvature off by 1e-6": Spread(curvature=lambda A, N: fit_curvature(A, N) * WRONG),
            "sum of exponentials without the logarithm": Spread(log_normaliser=lambda z: sum(map(sp.exp, z))),
        },
    ),
    Proof(
        "ufm.product_bound",
        "scalar problem of the nuclear norm, symbolic K, L and n (norm inequalities argued)",
        "proved",
        product_bound_holds,
        room.product_spread,
        {
            "D = K": lambda classes, depth, xp: classes,
            "D = K^(2/L)": lambda classes, depth, xp: room.product_spread(classes, depth - 1, xp),
            "off by 1e-6": lambda classes, depth, xp: room.product_spread(classes * WRONG, depth, xp),
        },
    ),
)
