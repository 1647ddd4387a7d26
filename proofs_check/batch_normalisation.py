"""Proofs of the optimum behind batch normalisation, of the simplex it allows, and of what a gap of the loss forces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import sympy as sp

from proofs_check.algebra import WRONG
from proofs_check.proof import Proof
from ufm.theory import batch_normalisation as room
from ufm.theory import cross_entropy_optimum as scalar

others = sp.Symbol("o", positive=True)  # C - 1
C = 1 + others
m, g, w, lam_g, lam_W = sp.symbols("m g w lam_g lam_W", positive=True)
t, x, y, s, gap = sp.symbols("t x y s gap", positive=True)


def zero(expression: Any) -> bool:
    """Whether an expression in positive symbols vanishes identically."""
    return bool(sp.simplify(sp.powsimp(sp.expand_log(sp.expand(expression), force=True), force=True)) == 0)


# ------------------------------------------------------------------------------------------ the lower bound


class Bound(NamedTuple):
    """The lower bound and its minimum as their check reads them."""

    kappa: Callable[..., Any] = room.scale_decay
    largest: Callable[..., Any] = room.largest_margin
    margin: Callable[..., Any] = scalar.critical_margin
    fit: Callable[..., Any] = room.fit_bound


def convex_with_slope(fit: Callable[..., Any]) -> bool:
    """fit is phi, falls at `fit_slope` and is convex, for symbolic C."""
    phi = fit(m, C, sp)
    if not zero(sp.exp(phi).rewrite(sp.exp) - 1 - others * sp.exp(-m)):
        return False
    if not zero(sp.diff(phi, m) + room.fit_slope(m, C, sp)):
        return False
    curvature = sp.simplify(sp.diff(phi, m, 2) * (sp.exp(m) + others) ** 2)
    return bool(sp.simplify(curvature - others * sp.exp(m)) == 0)


def tangent_below_exponential() -> bool:
    """e^t - 1 - t >= 0: convex, with value and derivative 0 at t = 0; so sum e^(t_k) >= C - 1 where sum t_k = 0."""
    real = sp.Symbol("r", real=True)
    rest = sp.exp(real) - 1 - real
    return bool(
        sp.diff(rest, real, 2).is_positive
        and rest.subs(real, 0) == 0
        and sp.diff(rest, real).subs(real, 0) == 0
    )


def squares_bound_the_mean_margin(largest: Callable[..., Any]) -> bool:
    """Mean margin = C/(C-1) mean <wt, h>; in units of mean square 1, B - mean margin = B mean |a - b|^2/2 >= 0.

    Equal classes make the mean of ||wt_y||^2 equal to ||Wt||^2/C. Margins: z_y - mean of the others is C/(C-1) times
    z_y - mean of all, for symbolic C with S the sum of all logits.
    """
    own, total = sp.symbols("z S")
    if not zero(own - (total - own) / others - C / others * (own - total / C)):
        return False
    # <wt, h> = (w/sqrt C) g <a, b>
    inner = sp.Symbol("ab")  # mean <a, b>; mean |a|^2 = mean |b|^2 = 1
    mean_margin, distance = C / others * w / sp.sqrt(C) * g * inner, 2 - 2 * inner
    B = largest(g, w, C, sp)
    return zero(B - mean_margin - B * distance / 2)


def lower_bound_holds(bound: Bound) -> bool:
    """Every step of F >= F(m*), and where the minimum over m >= 0 is, for symbolic C, lam_g and lam_W."""
    if not (convex_with_slope(bound.fit) and tangent_below_exponential()):
        return False
    if not squares_bound_the_mean_margin(bound.largest):
        return False
    # the decay: a square, then what is left is (C-1) kappa B
    kappa = bound.kappa(C, lam_g, lam_W, sp)
    square = (sp.sqrt(lam_g) * g - sp.sqrt(lam_W) * w) ** 2 / 2
    rest = (lam_g * g**2 + lam_W * w**2) / 2 - square - others * kappa * bound.largest(g, w, C, sp)
    if not zero(rest):
        return False
    k, u = sp.symbols("k u", positive=True)
    objective = scalar.objective(m, C, k, xp=sp)
    if not zero(sp.exp(objective - others * k * m) - sp.exp(bound.fit(m, C, sp))):
        return False
    # with C k < 1, k = 1/(C + u): the derivative is 0 at m*, which is log(1 + u) > 0
    at = bound.margin(C, 1 / (C + u), xp=sp)
    if not zero(sp.exp(at) - 1 - u):
        return False
    slope = sp.diff(objective, m).subs(k, 1 / (C + u)).subs(m, sp.log(1 + u))
    if not zero(slope):
        return False
    # with C k = 1 + u the derivative at 0, and so everywhere, is positive
    return bool(sp.simplify(sp.diff(objective, m).subs(m, 0).subs(k, (1 + u) / C)).is_positive)


class State(NamedTuple):
    """The state that attains the bound as its check reads it."""

    norms: Callable[..., Any] = room.squared_norms
    product: Callable[..., Any] = room.norm_product
    kappa: Callable[..., Any] = room.scale_decay


def simplex_attains_the_bound(state: State) -> bool:
    """Norms of the state: balanced, B = m, decay (C-1) kappa m; one rate: sqrt(C) p*. Logits m (I - J/C): C = 2..5.

    With class means s R Q and W = v (R Q)^T, R^T R = I and Q^T Q = I - J/C, the logits are s v (I - J/C), and
    s^2 = C g^2/(C-1), v^2 = ||W||^2/(C-1).
    """
    of_g, of_w = state.norms(m, C, lam_g, lam_W, sp)
    if not zero(lam_g * of_g - lam_W * of_w):
        return False
    if not zero(room.largest_margin(sp.sqrt(of_g), sp.sqrt(of_w), C, sp) - m):
        return False
    kappa = state.kappa(C, lam_g, lam_W, sp)
    if not zero((lam_g * of_g + lam_W * of_w) / 2 - others * kappa * m):
        return False
    if not zero(sp.sqrt(C * of_g / others) * sp.sqrt(of_w / others) - m):
        return False
    k = sp.Symbol("k", positive=True)
    one_rate = state.norms(scalar.critical_margin(C, k, xp=sp), C, lam_W, lam_W, sp)
    if not all(zero(norm - sp.sqrt(C) * state.product(C, k, sp)) for norm in one_rate):
        return False
    for count in range(2, 6):  # the fit: every sample sees its own logit m above the others
        Z = m * (sp.eye(count) - sp.ones(count, count) / count)
        fit = sp.log(sum(sp.exp(Z[k, 0]) for k in range(count))) - Z[0, 0]
        if not zero(sp.exp(fit) - sp.exp(room.fit_bound(m, sp.Integer(count), sp))):
            return False
    return True


class Fixed(NamedTuple):
    """Fixed scales as their check reads them."""

    residual: Callable[..., Any] = scalar.fixed_classifier_residual
    objective: Callable[..., Any] = scalar.fixed_classifier_objective


def fixed_scales_are_a_fixed_classifier(fixed: Fixed) -> bool:
    """phi(B) + lam_W/2 ||W||^2 at ||gamma|| = g in the margin B is the fixed-classifier problem with n = 1, s = g.

    Its derivative by m is C - 1 times a residual that rises with m, so that there is one minimum.
    """
    weights = m * others / (sp.sqrt(C) * g)
    if not zero(room.largest_margin(g, weights, C, sp) - m):
        return False
    objective = fixed.objective(m, C, 1, lam_W, g, xp=sp)
    if not zero(objective - room.fit_bound(m, C, sp) - lam_W * weights**2 / 2):
        return False
    residual = fixed.residual(m, C, 1, lam_W, g, xp=sp)
    if not zero(sp.diff(objective, m) - others * residual):
        return False
    return bool(sp.simplify(sp.diff(residual, m)).is_positive)


# --------------------------------------------------------------------------------------------- the lemmas


def rows_have_sums(sums: Callable[..., Any]) -> bool:
    """Sums of a normalised row from those of any row, symbolic N: 0, and N var/(var + eps)."""
    N, eps, T, S = sp.symbols("N eps T S", positive=True)
    mean = T / N
    centred_square = S - 2 * mean * T + N * mean**2  # sum (x - mean)^2
    variance = centred_square / N
    total, squares = sums(N, T, S, eps, sp)
    if sp.simplify(total) != 0 or sp.simplify(squares - centred_square / (variance + eps)) != 0:
        return False
    return bool(sp.simplify(sums(N, T, S, 0, sp)[1] - N) == 0)


def subset_means_are_bounded(bound: Callable[..., Any]) -> bool:
    """Two means a, b of shares delta, 1 - delta: the gap of s x^2/2 is s delta (1-delta) (a-b)^2/2, the rest >= 0.

    f = c + s x^2/2 with c convex; by Jensen mean f over both parts >= delta f(a) + (1-delta) f(b), whose gap is that of
    c, >= 0, and that of the square. So (a - mean)^2 = (1-delta)^2 (a-b)^2 is at most bound^2, with equality for c = 0.
    """
    odds = sp.Symbol("v", positive=True)
    share = 1 / (1 + odds)  # every delta in (0, 1)
    a, b = sp.symbols("a b", real=True)
    mean = share * a + (1 - share) * b
    least_gap = s / 2 * (share * a**2 + (1 - share) * b**2 - mean**2)
    if sp.simplify(least_gap - s / 2 * share * (1 - share) * (a - b) ** 2) != 0:
        return False
    return bool(sp.simplify(bound(gap, s, share, sp).subs(gap, least_gap) ** 2 - (a - mean) ** 2) == 0)


class Frame(NamedTuple):
    """Which scales carry a simplex, as its check reads it."""

    fits: Callable[..., Any] = room.fits
    tangent: Callable[..., Any] = room.rotation_tangent


def scales_carry_a_simplex(frame: Frame) -> bool:
    """One rotation gives a row any squared norm between two; rows of orthonormal columns are not above 1.

    The rotated row has squared norm (a + 2 tan c + tan^2 b)/(1 + tan^2), which is t; the root is real for
    a >= t >= b or a <= t <= b. Row norms |r|^2 = e^T R R^T e <= 1 for the projection R R^T, so shares
    (C-1) gamma_j^2/||gamma||^2 above 1 carry none; others are reached row by row from 1, ..., 1, 0, ..., 0
    (Muirhead's order, cited). The shipped condition and construction are asked at exact and rounded shares.
    """
    from ufm.solutions.normalised import frame as construct

    a, b, inner = sp.symbols("a b c", real=True)
    tangent = frame.tangent(a, b, inner, t, sp)
    norm = (a + 2 * tangent * inner + tangent**2 * b) / (1 + tangent**2)
    if sp.simplify(sp.together(norm - t)) != 0:
        return False
    up, down = sp.symbols("up down", nonnegative=True)
    radicand = inner**2 - (a - t) * (b - t)
    if not sp.expand(radicand.subs({a: t + up, b: t - down})).is_nonnegative:
        return False
    third, small = sp.Rational(1, 3), sp.Rational(1, 10**7)
    for rank, shares in (
        (2, (1, third, third, third)), (2, (1 - small, third + small, third, third)),
        (2, (1 + small, third - small, third, third)), (3, (1, 1, 1)), (3, (1 + small, 1, 1 - small)),
        (2, (sp.Rational(1, 2),) * 4), (1, (third,) * 3), (2, (1, 1, 0)), (2, (1 + third, 2 * third)),
    ):  # fmt: skip
        carried = all(bool(frame.fits(share, sum(shares), rank + 1)) for share in shares)
        if carried != (max(shares) <= 1):
            return False
        if carried:
            wanted = np.array(shares, dtype=float)
            R = construct(wanted, rank)
            error = max(np.abs(R.T @ R - np.eye(rank)).max(), np.abs((R**2).sum(axis=1) - wanted).max())
            if error > 1e-14:
                return False
    return True


# ----------------------------------------------------------------------------------------------- the gap


def gap_bounds_the_cosine(bound: Callable[..., Any]) -> bool:
    """Tangent, distance, cosine and mean, put together, give the shipped bound, and no smaller one holds; symbolic C.

    1 - c^2 - (1-c)/2 = (1-c)(1+2c)/2 >= 0 for 0 <= c <= 1 and 1 - (1-c)/2 >= 0 for c < 0, so 1 - c <= 2 d^2/|a|^2.
    Then 1 - ||mean u||^2 <= 1 - (mean c)^2 <= 2 (1 - mean c), as 2 (1-x) - (1-x^2) = (1-x)^2.
    """
    if not (convex_with_slope(room.fit_bound) and squares_bound_the_mean_margin(room.largest_margin)):
        return False
    r = sp.Symbol("r", nonnegative=True)
    chord = sp.factor(1 - r**2 - (1 - r) / 2)
    if sp.expand(chord - (1 - r) * (1 + 2 * r) / 2) != 0 or not sp.expand(1 - (1 - (-r)) / 2 + r).is_positive:
        return False
    if sp.expand(2 * (1 - r) - (1 - r**2) - (1 - r) ** 2) != 0:
        return False
    B, share = sp.symbols("B share", positive=True)
    short = gap / room.fit_slope(B, C, sp)  # B - mean margin
    all_classes = (
        2 * short / B
    )  # mean |a - b|^2 over all samples; over those of one class at most C times that
    squared_length = C * share  # |a_c|^2 = C ||wt_c||^2/||Wt||^2
    claimed = 2 * 2 * C * all_classes / squared_length
    return bool(sp.simplify(bound(gap, B, share, C, sp) - claimed) == 0) and closest_states(bound) == 1


def closest_states(bound: Callable[..., Any]) -> Any:
    """(1 - intra)/bound as B -> 0, then p -> 0, of simplex rows with a share p of one class at margin 0; symbolic C.

    Those p have features -e wt_c, e -> 0, so that 1 - intra = 1 - (1 - 2p)^2; the rest is aligned, with margin B r for
    the same mean square, (1 - p/C) r^2 = 1. The gap vanishes at B = 0, where its slope is taken.
    """
    B, p, stretch = sp.symbols("B p r", positive=True)
    fit = (1 - p / C) * room.fit_bound(B * stretch, C, sp) + p / C * sp.log(C)
    slope = sp.simplify(sp.diff(fit - room.fit_bound(B, C, sp), B).subs(B, 0))
    ratio = sp.simplify((1 - (1 - 2 * p) ** 2) / bound(slope * B, B, 1 / C, C, sp)).subs(B, 0)
    return sp.simplify(sp.limit(sp.simplify(ratio.subs(stretch, 1 / sp.sqrt(1 - p / C))), p, 0))


class Scale(NamedTuple):
    """The gap in units of m_reg as its check reads it."""

    constant: Callable[..., Any] = room.relative_constant
    limit: Any = sp.Integer(2)


def relative_gap_has_a_limit(scale: Scale) -> bool:
    """constant = 2 (1 + L/(q m*)), q = (C-1) kappa, L = -log(1 - q): limits 2 and oo, and above 2.

    At small q: L/q -> 1 while m* = log(1/kappa - C + 1) -> oo. At C kappa = 1: m* = 0 while L = log C and q > 0.
    At a fixed gap the constant is 2 gap/(q m*): d(kappa m*)/dkappa = m* - 1/(1 - q), positive for small kappa.
    """
    k = sp.Symbol("k", positive=True)
    margin, q = scalar.critical_margin(C, k, xp=sp), others * k
    lost = -sp.log(1 - q)
    if not zero(scale.constant(C, k, sp) - scale.limit * (1 + lost / (q * margin))):
        return False
    if sp.limit(-sp.log(1 - x) / x, x, 0, "+") != 1 or sp.limit(sp.log(1 / x - others), x, 0, "+") != sp.oo:
        return False
    at_threshold = [sp.simplify(part.subs(k, 1 / C)) for part in (margin, lost - sp.log(C))]
    if at_threshold != [0, 0] or not sp.log(C).is_positive:
        return False
    slope = sp.diff(k * margin, k)
    return bool(sp.simplify(slope - margin + 1 / (1 - q)) == 0)


def exponents_of_perturbations() -> tuple[float, float]:
    """Slopes of log(1 - intra) and log(inter + 1/(C-1)) over log(F - m_reg), two problems, isotropic perturbations."""
    import ufm
    from ufm.metrics import inter_class_cosine, intra_class_cosine
    from ufm.normalisation import behind
    from ufm.solutions.normalised import normalised_simplex

    slopes = []
    for classes, width, per_class, lam in ((4, 6, 3, 1e-1), (6, 10, 4, 5e-3)):
        problem = ufm.UFM(classes, width, per_class, normalisation=ufm.BatchNorm())
        decay = ufm.Coupled(W=lam, gamma=lam)
        best = normalised_simplex(problem, decay)
        at, direction = problem.pack(best.blocks), np.random.default_rng(1).standard_normal(problem.size)
        rows = []
        for size in np.geomspace(1e-2, 1e-4, 5):
            blocks = problem.unpack(at + size * direction)
            H = behind(problem, blocks, 1, blocks["H"])
            rows.append((
                problem.value(blocks, decay) - best.loss,
                1 - intra_class_cosine(H, problem.labels),
                inter_class_cosine(H, problem.labels) + 1 / (classes - 1),
            ))  # fmt: skip
        logs = np.log(np.array(rows))
        slopes.append([np.polyfit(logs[:, 0], logs[:, i], 1)[0] for i in (1, 2)])
    intra, inter = np.mean(slopes, axis=0)
    return float(intra), float(inter)


def exponents_are_measured(claimed: tuple[float, float]) -> bool:
    """Both slopes within 3 % of what is claimed."""
    found = exponents_of_perturbations()
    return all(abs(slope / one - 1) < 0.03 for slope, one in zip(found, claimed, strict=True))


PROOFS = (
    Proof(
        "pan2023.optimum",
        "lower bound by convexity, minimum and threshold, symbolic C, lam_g, lam_W",
        "proved",
        lower_bound_holds,
        Bound(),
        {
            "kappa = lam": Bound(kappa=lambda C, a, b, xp: xp.sqrt(a * b)),
            "kappa off by 1e-6": Bound(kappa=lambda *parts: WRONG * room.scale_decay(*parts)),
            "B without C/(C-1)": Bound(largest=lambda g, w, C, xp: g * w / xp.sqrt(C)),
            "m* = log(1/kappa - C)": Bound(margin=lambda C, k, xp: xp.log(1 / k - C)),
            "phi of C wrong classes": Bound(fit=lambda m, C, xp: xp.log(1 + C * xp.exp(-m))),
        },
    ),
    Proof(
        "pan2023.optimum",
        "the state that attains it, symbolic C; its fit for C = 2..5",
        "proved",
        simplex_attains_the_bound,
        State(),
        {
            "norms off by 1e-6": State(
                norms=lambda *parts: tuple(WRONG * norm for norm in room.squared_norms(*parts))
            ),
            "||gamma||^2 = p*": State(product=lambda C, k, xp: room.norm_product(C, k, xp) / xp.sqrt(C)),
            "p* = log(1/kappa - C + 1)": State(product=lambda C, k, xp: scalar.critical_margin(C, k, xp=xp)),
        },
    ),
    Proof(
        "pan2023.optimum",
        "fixed gamma: one minimum, that of a fixed classifier with rows of norm ||gamma||, symbolic C",
        "proved",
        fixed_scales_are_a_fixed_classifier,
        Fixed(),
        {
            "lam_W off by 1e-6": Fixed(
                objective=lambda m, C, n, lam, g, xp: scalar.fixed_classifier_objective(
                    m, C, n, lam * WRONG, g, xp=xp
                )
            ),
            "residual of n = 2": Fixed(
                residual=lambda m, C, n, lam, g, xp: scalar.fixed_classifier_residual(m, C, 2, lam, g, xp=xp)
            ),
        },
    ),
    Proof(
        "pan2023.quadratic_mean",
        "sums of a normalised row, symbolic N",
        "proved",
        rows_have_sums,
        room.normalised_sums,
        {
            "unbiased variance": lambda N, T, S, eps, xp: (
                0,
                (N - 1) * (S - T**2 / N) / (S - T**2 / N + eps * N),
            ),
            "off by 1e-6": lambda *parts: (0, WRONG * room.normalised_sums(*parts)[1]),
            "not centred": lambda N, T, S, eps, xp: (T / xp.sqrt(S / N + eps), S / (S / N + eps)),
        },
    ),
    Proof(
        "pan2023.subset_mean",
        "Jensen under strong convexity, symbolic share, with equality for squares",
        "proved",
        subset_means_are_bounded,
        room.subset_mean_bound,
        {
            "sqrt(2 gap/(s delta))": lambda gap, s, share, xp: xp.sqrt(2 * gap / (s * share)),
            "share and rest exchanged": lambda gap, s, share, xp: room.subset_mean_bound(
                gap, s, 1 - share, xp
            ),
            "off by 1e-6": lambda *parts: room.subset_mean_bound(*parts) / WRONG,
        },
    ),
    Proof(
        "ufm.normalised_simplex",
        "the rotation and its real root for any rows; condition and construction at nine sets of shares",
        "proved",
        scales_carry_a_simplex,
        Frame(),
        {
            "C gamma_j^2": Frame(fits=lambda square, total, classes: classes * square <= total),
            "any scales": Frame(fits=lambda square, total, classes: True),
            "condition off by 1e-8": Frame(
                fits=lambda square, total, classes: (
                    (classes - 1) * square * (1 + sp.Rational(1, 10**8)) <= total
                )
            ),
            "sign of the inner product": Frame(
                tangent=lambda a, b, inner, wanted, xp: -room.rotation_tangent(a, b, inner, wanted, xp)
            ),
        },
    ),
    Proof(
        "ufm.gap_bounds_intra",
        "tangent, distance, cosine and mean; states that come as close as one likes: symbolic C",
        "proved",
        gap_bounds_the_cosine,
        room.intra_bound,
        {
            "smaller by 1e-6": lambda *parts: room.intra_bound(*parts) / WRONG,
            "slope of C wrong classes": lambda gap, B, share, C, xp: room.intra_bound(
                gap, B, share, C + 1, xp
            ),
            "share of 1 for 1/C": lambda gap, B, share, C, xp: room.intra_bound(gap, B, share * C, C, xp),
        },
    ),
    Proof(
        "ufm.gap_scale",
        "form and limits at small decay and at the threshold, symbolic C",
        "proved",
        relative_gap_has_a_limit,
        Scale(),
        {
            "limit 1": Scale(limit=sp.Integer(1)),
            "off by 1e-6": Scale(constant=lambda *parts: WRONG * room.relative_constant(*parts)),
            "m_reg without its decay": Scale(constant=lambda C, k, xp: room.relative_constant(C, k, xp) - 2),
        },
    ),
    Proof(
        "ufm.gap_exponents",
        "isotropic perturbations of the optimum of two problems: 1 and 1/2 to 3 %",
        "measured",
        exponents_are_measured,
        room.EXPONENTS,
        {
            "the published exponents": room.PUBLISHED_EXPONENTS,
            "off by 5 %": tuple(1.05 * exponent for exponent in room.EXPONENTS),
        },
    ),
)
