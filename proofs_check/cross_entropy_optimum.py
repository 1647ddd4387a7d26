"""Proofs around the global minimum of the cross-entropy UFM with equal classes, its saddles and a fixed classifier."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import sympy as sp

from proofs_check.algebra import WRONG
from proofs_check.balancedness import symbols, zero
from proofs_check.proof import Proof
from ufm.solutions.known import partitions
from ufm.theory import cross_entropy_optimum as room

MARGIN = sp.Symbol("margin", positive=True)
K, n, a, lam_W, lam_H, eps = sp.symbols("K n a lam_W lam_H eps", positive=True)


# ------------------------------------------------------------------------------------------ the optimum


class Optimum(NamedTuple):
    """The formulas of the optimum, as their check reads them."""

    nuclear_decay: Callable[..., Any] = room.nuclear_decay
    smoothed: Callable[..., Any] = room.smoothed
    margin: Callable[..., Any] = room.critical_margin
    loss: Callable[..., Any] = room.critical_loss
    objective: Callable[..., Any] = room.objective
    squared_norms: Callable[..., Any] = room.squared_norms
    threshold: Callable[..., Any] = room.origin_threshold


def simplex_is_optimal(optimum: Optimum) -> bool:
    """The simplex of the closed form is critical, has ||G||_op = sqrt(lam_W lam_H), and the loss given.

    W = alpha Q^T and class means beta Q with Q Q^T = I, Q^T Q = I - J/K; margin alpha beta. Softmax gives every wrong
    class p, so P - Y over N is -g (I - J/K) on class means with g = (K p - eps)/N, of norm g sqrt(n) on the n copies.
    Critical: lam_W alpha = g n beta and lam_H beta = g alpha. A critical point with such a G is a global minimiser
    (`certificate_is_sufficient`); without room below: at the origin p = 1/K, and the certificate holds from the
    threshold on.
    """
    decay = optimum.nuclear_decay(n, lam_W, lam_H, sp)
    kappa = optimum.smoothed(decay, K, eps)
    e = sp.simplify(sp.exp(-optimum.margin(K, kappa, 1, sp)))
    p = sp.simplify(e / (1 + (K - 1) * e))
    g = (K * p - eps) / (K * n)
    w_square, h_square = optimum.squared_norms(MARGIN, K, n, lam_W, lam_H, sp)
    loss = (
        eps * (K - 1) / K * MARGIN
        + K * (lam_W * w_square + n * lam_H * h_square) / 2
        - sp.log(1 - (K - 1) * p)
    )
    identities = (
        p - kappa,
        w_square * h_square * (K / (K - 1)) ** 2 - MARGIN**2,
        lam_W**2 * w_square / h_square - g**2 * n**2,
        g**2 * n - lam_W * lam_H,
    )
    if any(sp.simplify(one) != 0 for one in identities):
        return False
    claimed = with_margin(optimum.loss(K, kappa, 1, sp), optimum.margin(K, kappa, 1, sp))
    scalar = with_margin(optimum.objective(MARGIN, K, kappa, 1, sp), MARGIN).subs(sp.exp(-MARGIN), e)
    if not (same_up_to_logarithms(loss, claimed) and same_up_to_logarithms(scalar, claimed)):
        return False
    at_origin = (K * (1 / K) - eps) / (K * n) * sp.sqrt(n)  # ||G||_op
    edge = sp.solve(decay - optimum.threshold(K, eps), lam_W)
    return len(edge) == 1 and sp.simplify((at_origin**2 - lam_W * lam_H).subs(lam_W, edge[0])) == 0


def scalar_problem(objective: Callable[..., Any]) -> bool:
    """F_a' = (K-a)(kappa - 1/(a e^m + K - a)) and F_a'' > 0: one minimum, at the margin given, > 0 iff K kappa < 1."""
    m, kappa, group, others = sp.symbols("m kappa group others", positive=True)
    F = objective(m, group + others, kappa, group, sp)
    slope = sp.diff(F, m)
    if sp.simplify(slope - others * (kappa - 1 / (group * sp.exp(m) + others))) != 0:
        return False
    if not sp.factor(sp.simplify(sp.diff(slope, m))).is_positive:
        return False
    best = room.critical_margin(group + others, kappa, group, sp)
    e = sp.simplify(sp.exp(-best))
    if sp.simplify(kappa - e / (group + others * e)) != 0:  # the slope is 0 there
        return False
    claimed = with_margin(room.critical_loss(group + others, kappa, group, sp), best)
    if not same_up_to_logarithms(F.subs(sp.exp(-m), e).subs(m, MARGIN), claimed):
        return False
    return bool(sp.simplify(1 / e - 1 - (1 - (group + others) * kappa) / (group * kappa)) == 0)


def with_margin(expression: Any, margin: Any) -> Any:
    """The expression with its logarithm for the margin replaced by a symbol."""
    return expression.subs(margin, MARGIN)


def same_up_to_logarithms(first: Any, second: Any) -> bool:
    """Whether two sums of logarithms of positive numbers and multiples of the margin are equal."""
    difference = sp.expand(first - second)
    slope = sp.simplify(difference.coeff(MARGIN, 1))
    rest = difference.subs(MARGIN, 0)
    return bool(slope == 0 and sp.simplify(sp.exp(rest)) == 1)


# ------------------------------------------------------------------------------------------ certificate


class Certificate(NamedTuple):
    """A critical point, and what decides whether another state can lie below it."""

    threshold: Callable[[Any, Any], Any] = lambda x, y: sp.sqrt(x * y)
    critical: bool = True


def certificate_is_sufficient(certificate: Certificate) -> bool:
    """F(W', H') - F(W, H) >= (threshold - ||G||_op) ||W' H'||_* at a critical point (W, H), for any loss convex in Z.

    1. fit(Z') >= fit(Z) + <G, Z' - Z> by convexity.
    2. At a critical point <G, W H> = -lam_W ||W||^2 = -lam_H ||H||^2, so that fit(Z) - <G, Z> = F(W, H).
    3. lam_W/2 ||W'||^2 + lam_H/2 ||H'||^2 >= threshold ||W' H'||_*: the means inequality for scaled factors, with
       ||W' H'||_* <= ||W'|| ||H'|| (cited); <G, Z'> >= -||G||_op ||Z'||_* (von Neumann, cited).
    2 is checked with matrices of symbols, 3 by the discriminant.
    """
    for rows, inner, columns in ((2, 2, 3), (3, 2, 3)):
        W, H, G = symbols("w", rows, inner), symbols("h", inner, columns), symbols("g", rows, columns)
        by_W, by_H = G * H.T + lam_W * W, W.T * G + lam_H * H
        if not certificate.critical:
            by_W, by_H = sp.zeros(*W.shape), sp.zeros(*H.shape)
        inner_product = sum(x * y for x, y in zip(G, W * H, strict=True))
        squares = [lam_W * sum(x**2 for x in W), lam_H * sum(x**2 for x in H)]
        for square, block, gradient in ((squares[0], W, by_W), (squares[1], H, by_H)):
            at_zero_gradient = sum(x * y for x, y in zip(block, gradient, strict=True))
            if sp.expand(inner_product + square - at_zero_gradient) != 0:
                return False
    x, y = sp.symbols("x y", positive=True)  # ||W'||, ||H'||
    slack = lam_W * x**2 / 2 + lam_H * y**2 / 2 - certificate.threshold(lam_W, lam_H) * x * y
    square = (sp.sqrt(lam_W) * x - sp.sqrt(lam_H) * y) ** 2 / 2
    return bool(sp.simplify(sp.expand(slack - square)) == 0)


class Escape(NamedTuple):
    """The direction and its curvature."""

    scales: Callable[..., Any] = room.escape_scales
    curvature: Callable[..., Any] = room.escape_curvature
    orthogonal: bool = True


def escape_curvature_is_exact(escape: Escape) -> bool:
    """Second derivative of F along the direction, for W and H without the last feature and G = sigma u v^T + rest.

    dZ = D_W H + W D_H = 0, so the fit's second derivative is that of <G, Z> alone, 2 <G, D_W D_H>, whatever the loss.
    """
    sigma = sp.Symbol("sigma", positive=True)
    for rows, inner, columns in ((2, 2, 2), (3, 3, 3)):
        W, H = symbols("w", rows, inner), symbols("h", inner, columns)
        if escape.orthogonal:
            W[:, inner - 1], H[inner - 1, :] = sp.zeros(rows, 1), sp.zeros(1, columns)
        # singular vectors e_1, e_1 and any rest beyond them: rotations of rows and columns change nothing
        G = symbols("g", rows, columns)
        G[0, :], G[:, 0] = sp.zeros(1, columns), sp.zeros(rows, 1)
        G[0, 0] = sigma
        of_W, of_H = escape.scales(lam_W, lam_H, sp)
        D_W, D_H = sp.zeros(rows, inner), sp.zeros(inner, columns)
        D_W[0, inner - 1], D_H[inner - 1, 0] = of_W, of_H
        if not zero(D_W * H + W * D_H):
            return False
        pairing = sum(x * y for x, y in zip(G, D_W * D_H, strict=True))
        value = 2 * pairing + lam_W * sum(x**2 for x in D_W) + lam_H * sum(x**2 for x in D_H)
        if sp.simplify(value - escape.curvature(sigma, lam_W, lam_H, sp)) != 0:
            return False
    return True


# ------------------------------------------------------------------------------------------ duality


def dual_is_conjugate(dual_value: Callable[..., Any]) -> bool:
    """-fit*(G) = fit(Z) - <G, Z> at G = weight (softmax(Z) - Y), K = 2..4; and (1 - t) Y + t P is a distribution."""
    weight, t = sp.symbols("weight t", positive=True)
    for classes in range(2, 5):
        z, y = sp.symbols(f"z:{classes}", real=True), sp.symbols(f"y:{classes - 1}", positive=True)
        Y = [*y, 1 - sum(y)]
        total = sum(sp.exp(x) for x in z)
        P = [sp.exp(x) / total for x in z]
        fit = weight * (sp.log(total) - sum(target * x for target, x in zip(Y, z, strict=True)))
        pairing = sum(weight * (p - target) * x for p, target, x in zip(P, Y, z, strict=True))
        claimed = dual_value([[p] for p in P], [weight], sp)
        if sp.simplify(sp.expand(sp.expand_log(fit - pairing - claimed, force=True))) != 0:
            return False
        if sp.simplify(sum((1 - t) * target + t * p for p, target in zip(P, Y, strict=True)) - 1) != 0:
            return False
    return True


class Norms(NamedTuple):
    """Decay terms at the minimum, and the minimum itself as a function of one block's rate."""

    squared_norms: Callable[..., Any] = room.squared_norms
    loss: Callable[..., Any] = room.critical_loss


def norms_are_slopes(norms: Norms) -> bool:
    """x f'(x) at x = 1 is lam_W/2 ||W||^2 and lam_H/2 ||H||^2, where f is the minimum at x lam_W (or x lam_H).

    So both are equal, and the bounds of `penalty_bounds` close as f is concave, like every minimum of functions that
    are linear in x.
    """
    kappa = sp.Symbol("kappa", positive=True)
    margin = room.critical_margin(K, kappa, 1, sp)
    if sp.simplify(sp.diff(norms.loss(K, kappa, 1, sp), kappa) - (K - 1) * margin) != 0:
        return False
    # kappa = sqrt(x) decay + eps/K
    slope = (K - 1) * MARGIN * room.nuclear_decay(n, lam_W, lam_H, sp) / 2
    w_square, h_square = norms.squared_norms(MARGIN, K, n, lam_W, lam_H, sp)
    for term in (lam_W / 2 * K * w_square, lam_H / 2 * K * n * h_square):
        if sp.simplify(slope - term) != 0:
            return False
    # x f'(x) = (K-1) m sqrt(x) decay/2, so f' falls as m does: its derivative by kappa is below 0 for K kappa < 1
    return bool(sp.simplify(sp.diff(margin, kappa) + 1 / (kappa * (1 - (K - 1) * kappa))) == 0)


# ------------------------------------------------------------------------------------------ merged classes


class Merged(NamedTuple):
    """Merged groups of equal size."""

    margin: Callable[..., Any] = room.critical_margin
    loss: Callable[..., Any] = room.critical_loss
    sigma: Callable[..., Any] = room.merged_sigma
    smoothed: Callable[..., Any] = room.smoothed


def equal_groups_are_critical(merged: Merged) -> bool:
    """On contrasts of groups G is -sqrt(lam_W lam_H), as at the optimum; within groups -(1 - eps)/(K sqrt n).

    P gives x to every class of another group and (1 - (K-a) x)/a to those of the own one. On 1_group contrasts P - Y
    is a ((1 - (K-a) x)/a - x) - (1 - eps), on contrasts within a group -(1 - eps); over N, times sqrt(n).
    """
    decay = room.nuclear_decay(n, lam_W, lam_H, sp)
    kappa = merged.smoothed(decay, K, eps)
    m = merged.margin(K, kappa, a, sp)
    e = sp.simplify(sp.exp(-m))
    x = sp.simplify(e / (a + (K - a) * e))
    own = (1 - (K - a) * x) / a
    between = -(a * (own - x) - (1 - eps)) / (K * sp.sqrt(n))
    within = (1 - eps) / (K * sp.sqrt(n))
    if sp.simplify(between**2 - lam_W * lam_H) != 0 or sp.simplify(within - merged.sigma(K, n, eps, sp)) != 0:
        return False
    loss = -sp.log(own) + eps * (K - a) / K * MARGIN + (K - a) * decay * MARGIN
    if not same_up_to_logarithms(loss, with_margin(merged.loss(K, kappa, a, sp), m)):
        return False
    # above the threshold exactly where zero is not optimal
    edge = room.origin_threshold(K, eps) / sp.sqrt(n)
    return bool(sp.simplify(merged.sigma(K, n, eps, sp) - edge) == 0)


def contrasts_are_singular(sigma: Callable[..., Any]) -> bool:
    """Any partition, K = 3..6, any logits that are constant on groups: G u v^T = -sigma for contrasts within a group.

    P of such logits is constant on pairs of groups, so that P u = 0 and u^T P = 0; the targets leave -(1 - eps) u.
    """
    for classes in range(3, 7):
        for sizes in partitions(classes):
            if not 2 <= len(sizes) < classes:
                continue
            group = [g for g, size in enumerate(sizes) for _ in range(size)]
            logit = symbols("z", len(sizes), len(sizes))
            P = sp.zeros(classes, classes)
            for y in range(classes):
                weights = [sp.exp(logit[group[k], group[y]]) for k in range(classes)]
                for k in range(classes):
                    P[k, y] = weights[k] / sum(weights)
            Y = (1 - eps) * sp.eye(classes) + eps / classes * sp.ones(classes, classes)
            for i in range(classes - 1):
                if group[i] != group[i + 1]:
                    continue
                u = sp.zeros(classes, 1)
                u[i], u[i + 1] = 1 / sp.sqrt(2), -1 / sp.sqrt(2)
                # over N, and sqrt(n) for the n copies of every column
                claimed = -sigma(sp.Integer(classes), n, eps, sp) * u
                G = (P - Y) / (classes * sp.sqrt(n))
                if not (zero(G * u - claimed) and zero(G.T * u - claimed)):
                    return False
    return True


class Polygon(NamedTuple):
    """The regular polygon's objective and slope."""

    objective: Callable[..., Any] = room.polygon_objective
    slope: Callable[..., Any] = room.polygon_slope


def polygon_is_critical(polygon: Polygon) -> bool:
    """The slope is that of the objective, and 0 where G has the value -sqrt(lam_W lam_H) on the corners; K = 4..6.

    Softmax of the polygon makes P circulant and even, P_kl = p_(k-l) with p_j = p_-j, so that on the coordinates
    cos(2 pi l/K) of the corners it has the value lambda = sum_j p_j cos(2 pi j/K), by the addition theorem. P - Y over
    N, times sqrt(n), has (lambda - 1 + eps)/(K sqrt n). The cosines enter the rest as free numbers. At c = 0 the slope
    is K kappa - 1.
    """
    c, angle, other = sp.symbols("c angle other", positive=True)
    both = sp.cos(angle - other) + sp.cos(angle + other) - 2 * sp.cos(angle) * sp.cos(other)
    if sp.expand_trig(both) != 0:
        return False
    decay = room.nuclear_decay(n, lam_W, lam_H, sp)
    for classes in range(4, 7):
        kappa = room.smoothed(decay, classes, eps)
        corner = {
            sp.nsimplify(2 * sp.pi * j / classes): sp.Symbol(f"x{j}", real=True) for j in range(1, classes)
        }
        numbers = SimpleNamespace(
            pi=sp.pi, exp=sp.exp, log=sp.log, cos=lambda x, at=corner: at.get(x, sp.cos(x))
        )
        cosines = [sp.Integer(1), *corner.values()]
        weights = [sp.exp(c * (x - 1)) for x in cosines]
        value = sum(w * x for w, x in zip(weights, cosines, strict=True)) / sum(weights)
        slope = polygon.slope(c, classes, kappa, numbers)
        at_corners = (value - 1 + eps) / (classes * sp.sqrt(n)) + decay / sp.sqrt(n)
        if sp.simplify(at_corners * classes * sp.sqrt(n) - slope) != 0:
            return False
        if sp.simplify(sp.diff(polygon.objective(c, classes, kappa, numbers), c) - slope) != 0:
            return False
        total = sum(sp.cos(2 * sp.pi * j / classes) for j in range(classes))
        at_zero = polygon.slope(sp.Integer(0), classes, kappa, sp) - (classes * kappa - 1) - total / classes
        if sp.simplify(at_zero) != 0 or sp.simplify(total) != 0:
            return False
    return True


# ------------------------------------------------------------------------------------------ fixed classifier


class Fixed(NamedTuple):
    """Optimum under a frozen simplex."""

    residual: Callable[..., Any] = room.fixed_classifier_residual
    objective: Callable[..., Any] = room.fixed_classifier_objective


def fixed_optimum_holds(fixed: Fixed) -> bool:
    """Gradient by h of class k at h = t w_k/s along w_k is a multiple of the residual, which grows from below 0.

    W W^T = s^2 K/(K-1) (I - J/K): margin m = s t K/(K-1); W^T (p - y) = -(K p_other - eps)/K ... times w_k by
    W^T 1 = 0. The objective's derivative by m is the residual times K - 1, and the residual grows with m: one root.
    """
    m, s, others = sp.symbols("m s others", positive=True)
    classes = 1 + others
    p = 1 / (sp.exp(m) + others)
    length = m * others / (classes * s)
    # p - y = (K p - eps)(1/K - onehot), so that W^T (p - y) = -(K p - eps) w_k
    along = -(classes * p - eps) / (classes * n) + lam_H * length / s
    residual = fixed.residual(m, classes, n, lam_H, s, eps, sp)
    if sp.simplify(along * n - residual) != 0:
        return False
    slope = sp.diff(fixed.objective(m, classes, n, lam_H, s, eps, sp), m)
    if sp.simplify(slope - others * residual) != 0:
        return False
    if not sp.factor(sp.simplify(sp.diff(residual, m))).is_positive:
        return False
    return bool(sp.simplify(residual.subs({m: 0, eps: 0}) + 1 / classes) == 0)


# ------------------------------------------------------------------------------------------ perturbations


def without_n(per_class: Any, w: Any, h: Any, xp: Any) -> Any:
    """Kappa without sqrt n."""
    return room.nuclear_decay(1, w, h, xp)


def smoothing_forgotten(decay: Any, classes: Any, smoothing: Any) -> Any:
    """Kappa without eps/K."""
    return decay


def norms_exchanged(*arguments: Any) -> Any:
    """Squared norms of w and h exchanged."""
    first, second = room.squared_norms(*arguments)
    return second, first


def margin_off(classes: Any, kappa: Any, group: Any, xp: Any) -> Any:
    """Kappa off by 1e-6 in the margin."""
    return room.critical_margin(classes, kappa * WRONG, group, xp)


def loss_off(classes: Any, kappa: Any, group: Any, xp: Any) -> Any:
    """Kappa off by 1e-6 in the loss."""
    return room.critical_loss(classes, kappa * WRONG, group, xp)


def margin_without_group(classes: Any, kappa: Any, group: Any, xp: Any) -> Any:
    """Margin of the simplex for merged groups."""
    return room.critical_margin(classes, kappa, 1, xp)


def sigma_off(classes: Any, per_class: Any, smoothing: Any, xp: Any) -> Any:
    """K off by 1e-6 in sigma."""
    return room.merged_sigma(classes * WRONG, per_class, smoothing, xp)


def sigma_without_smoothing(classes: Any, per_class: Any, smoothing: Any, xp: Any) -> Any:
    """Sigma of one-hot targets."""
    return room.merged_sigma(classes, per_class, 0, xp)


def scales_off(w: Any, h: Any, xp: Any) -> Any:
    """The block of W too large by 1e-6."""
    of_W, of_H = room.escape_scales(w, h, xp)
    return of_W * WRONG, of_H


PROOFS: tuple[Proof, ...] = (
    Proof(
        "zhu2021.global_optimum",
        "critical, certificate with equality, value, threshold; symbolic K, n, rates and smoothing",
        "proved",
        simplex_is_optimal,
        Optimum(),
        {
            "kappa without sqrt n": Optimum(nuclear_decay=without_n),
            "smoothing forgotten": Optimum(smoothed=smoothing_forgotten),
            "margin off by 1e-6": Optimum(margin=margin_off),
            "loss off by 1e-6": Optimum(loss=loss_off),
            "norms exchanged": Optimum(squared_norms=norms_exchanged),
            "threshold off by 1e-6": Optimum(threshold=lambda k, s: room.origin_threshold(k, s) * WRONG),
        },
    ),
    Proof(
        "zhu2021.global_optimum",
        "scalar problem: convex, one minimum, > 0 iff K kappa < 1",
        "proved",
        scalar_problem,
        room.objective,
        {
            "kappa off by 1e-6": lambda m, k, kappa, g, xp: room.objective(m, k, kappa * WRONG, g, xp),
            "K instead of K - 1": lambda m, k, kappa, g, xp: room.objective(m, k + 1, kappa, g, xp),
        },
    ),
    Proof(
        "zhu2021.strict_saddles",
        "sufficiency of the certificate at critical points",
        "proved for K = 2, 3",
        certificate_is_sufficient,
        Certificate(),
        {
            "threshold off by 1e-6": Certificate(threshold=lambda x, y: sp.sqrt(x * y) * WRONG),
            "arithmetic mean of the rates": Certificate(threshold=lambda x, y: (x + y) / 2),
            "state not critical": Certificate(critical=False),
        },
    ),
    Proof(
        "zhu2021.strict_saddles",
        "second derivative along the escape direction",
        "proved for K = 2, 3",
        escape_curvature_is_exact,
        Escape(),
        {
            "curvature off by 1e-6": Escape(
                curvature=lambda s, w, h, xp: room.escape_curvature(s * WRONG, w, h, xp)
            ),
            "size of the direction off by 1e-6": Escape(scales=scales_off),
            "direction not orthogonal to the state": Escape(orthogonal=False),
        },
    ),
    Proof(
        "ufm.cross_entropy_gap",
        "Fenchel's equality; scaled probabilities stay feasible",
        "proved for K = 2..4",
        dual_is_conjugate,
        room.dual_value,
        {
            "weight off by 1e-6": lambda P, w, xp: room.dual_value(P, [w[0] * WRONG], xp),
            "probabilities of another class order": lambda P, w, xp: room.dual_value(
                [P[0], P[0], *P[2:]], w, xp
            ),
        },
    ),
    Proof(
        "ufm.cross_entropy_norms",
        "decay terms are the slopes of the minimum in the rates; concave",
        "proved",
        norms_are_slopes,
        Norms(),
        {
            "norms exchanged": Norms(squared_norms=norms_exchanged),
            "loss off by 1e-6": Norms(loss=loss_off),
        },
    ),
    Proof(
        "ufm.merged_class_saddles",
        "equal groups: critical, largest singular value, loss; symbolic K, a, n, rates and smoothing",
        "proved",
        equal_groups_are_critical,
        Merged(),
        {
            "margin of the simplex": Merged(margin=margin_without_group),
            "margin off by 1e-6": Merged(margin=margin_off),
            "loss off by 1e-6": Merged(loss=loss_off),
            "sigma off by 1e-6": Merged(sigma=sigma_off),
            "smoothing forgotten": Merged(smoothed=smoothing_forgotten),
        },
    ),
    Proof(
        "ufm.merged_class_saddles",
        "contrasts within groups are singular vectors of G, all partitions",
        "proved for K = 3..6",
        contrasts_are_singular,
        room.merged_sigma,
        {"sigma off by 1e-6": sigma_off, "smoothing forgotten": sigma_without_smoothing},
    ),
    Proof(
        "ufm.narrow_cross_entropy",
        "the polygon is critical, and above zero iff K kappa < 1",
        "proved for K = 4..6",
        polygon_is_critical,
        Polygon(),
        {
            "kappa off by 1e-6": Polygon(
                lambda c, k, kappa, xp: room.polygon_objective(c, k, kappa * WRONG, xp),
                lambda c, k, kappa, xp: room.polygon_slope(c, k, kappa * WRONG, xp),
            ),
            "smoothing forgotten": Polygon(
                lambda c, k, kappa, xp: room.polygon_objective(c, k, kappa - eps / k, xp),
                lambda c, k, kappa, xp: room.polygon_slope(c, k, kappa - eps / k, xp),
            ),
        },
    ),
    Proof(
        "zhu2021.fixed_etf",
        "stationary along w, derivative of the objective, only root",
        "proved",
        fixed_optimum_holds,
        Fixed(),
        {
            "decay off by 1e-6": Fixed(
                residual=lambda m, k, c, h, s, e, xp: room.fixed_classifier_residual(
                    m, k, c, h * WRONG, s, e, xp
                )
            ),
            "row norm forgotten": Fixed(
                residual=lambda m, k, c, h, s, e, xp: room.fixed_classifier_residual(m, k, c, h, 1, e, xp)
            ),
            "smoothing forgotten": Fixed(
                residual=lambda m, k, c, h, s, e, xp: room.fixed_classifier_residual(m, k, c, h, s, 0, xp)
            ),
            "objective without n": Fixed(
                objective=lambda m, k, c, h, s, e, xp: room.fixed_classifier_objective(m, k, 1, h, s, e, xp)
            ),
        },
    ),
)
