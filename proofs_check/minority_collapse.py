"""Proofs of the merging rule, of the certificate behind the optimum, and of the layer-peeled threshold."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, pairwise
from typing import Any, NamedTuple

import sympy as sp

from proofs_check.algebra import WRONG, squares
from proofs_check.proof import Proof
from ufm.theory import minority_collapse as room

n_g, N, others, a, rate = sp.symbols("n_g N S a lam_Z", positive=True)
more = sp.Symbol("r", nonnegative=True)
K_g = 2 + more  # two classes or more
K_A, K_B, n_A, n_B = sp.symbols("K_A K_B n_A n_B", positive=True)

# ----------------------------------------------------------------------------------------- merging rule


class Rule(NamedTuple):
    """The threshold, and the loss inside a group, as their checks read them."""

    threshold: Callable[..., Any] = room.merging_threshold
    loss: Callable[..., Any] = room.group_cross_entropy
    weight: Callable[[Any], Any] = sp.sqrt  # column weights of the nuclear norm


def rule_is_sharp(rule: Rule) -> bool:
    """Derivative and convexity of the objective in a, every S > 0, symbolic n_g, N and K_g >= 2.

    1. At a = 0 the derivative is (K_g - 1)(lam_Z w - n_g/N): S, so the coarse part and the bias, have dropped out.
       It is >= 0 iff lam_Z >= threshold; the singular values are `norm_splits`.
    2. The loss is the logarithm of a sum of exponentials of a with three different rates, so its second derivative is
       the variance of the rates: a sum over pairs of positive terms.
    3. One rate is 0, so the derivative of the loss tends to 0 and that of the objective to lam_Z (K_g - 1) w > 0: below
       the threshold there is one minimum a > 0.
    """
    count = sp.Symbol("K_g", positive=True)
    fit = count * n_g / N * rule.loss(a, count, others, sp)
    penalty = rate * (count - 1) * rule.weight(n_g) * a
    slope = sp.diff(fit + penalty, a)
    at_zero = sp.factor(sp.simplify(slope.subs(a, 0)))
    if sp.simplify(at_zero.subs(rate, rule.threshold(n_g, N, sp))) != 0:
        return False
    if not sp.simplify(sp.diff(at_zero, rate).subs(count, K_g)).is_positive:
        return False
    loss = rule.loss(a, K_g, others, sp)
    parts = sp.Add.make_args(sp.exp(loss))
    rates = sorted((sp.simplify(-sp.diff(part, a) / part) for part in parts), key=lambda x: x.subs(more, 1))
    parts = sorted(parts, key=lambda part: (-sp.diff(part, a) / part).subs({more: 1, a: 1}))
    if len(parts) != 3 or rates[0] != 0:
        return False
    if not all(sp.factor(high - low).is_positive for low, high in pairwise(rates)):
        return False
    variance = (
        sum(parts[i] * parts[j] * (rates[i] - rates[j]) ** 2 for i, j in combinations(range(3), 2))
        / sum(parts) ** 2
    )
    return bool(sp.simplify(sp.diff(loss, a, 2) - variance) == 0)


def norm_splits(weight: Callable[[Any], Any]) -> bool:
    """Within-group part a (I - J/K_g) sqrt(n_g): K_g - 1 singular values a sqrt(n_g), apart from the coarse part.

    In the algebra x I + y J, J^2 = K_g J, for symbolic K_g: the square is a^2 n_g (I - J/K_g), a projector of trace
    K_g - 1, and the product with 1 is 0; the merged coarse part lies in the span of 1 on both sides.
    """
    count = sp.Symbol("K_g", positive=True)
    x, y = a * sp.sqrt(n_g), -a * sp.sqrt(n_g) / count
    square = (x * x, 2 * x * y + count * y * y)
    if sp.simplify(x + count * y) != 0:  # on the vector 1
        return False
    value = a * weight(n_g)
    return all(
        sp.simplify(part - value**2 * projector) == 0
        for part, projector in zip(square, (1, -1 / count), strict=True)
    )


# ------------------------------------------------------------------------------------------ certificate


class Certificate(NamedTuple):
    """The two inequalities of the lower bound as their check reads them."""

    entropy_sign: int = 1
    rate: Callable[[Any, Any], Any] = lambda lam_W, lam_H: sp.sqrt(lam_W * lam_H)


def bound_holds(certificate: Certificate) -> bool:
    """F >= dual value + KL, by identities whose remainders are not negative.

    1. log sum exp(z) - <q, z> - entropy(q) = KL(q || softmax z) >= 0, K = 2..4.
    2. lam_W/2 ||W||^2 + lam_H/2 ||G||^2 - lam_Z <U, W G> = 1/2 ||sqrt(lam_W) W - sqrt(lam_H) U G^T||^2
       + lam_H/2 (||G||^2 - ||U G^T||^2), the last >= 0 for ||U|| <= 1: G = H D^(1/2) by class means, sizes 2 and 3.
    3. A bias adds <r, b> + lam_b/2 ||b||^2 >= -||r||^2/(2 lam_b).
    """
    for K in range(2, 5):
        z, q = sp.symbols(f"z:{K}", real=True), list(sp.symbols(f"q:{K - 1}", positive=True))
        q.append(1 - sum(q))
        log_sum = sp.log(sum(sp.exp(x) for x in z))
        entropy = -certificate.entropy_sign * sum(p * sp.log(p) for p in q)
        divergence = sum(p * (sp.log(p) - (x - log_sum)) for p, x in zip(q, z, strict=True))
        difference = log_sum - sum(p * x for p, x in zip(q, z, strict=True)) - entropy - divergence
        if sp.expand(difference) != 0:
            return False
    lam_W, lam_H = sp.symbols("lam_W lam_H", positive=True)
    for K, d in ((2, 2), (3, 2), (3, 3)):
        W, G, U = (
            sp.Matrix(r, c, sp.symbols(f"{x}:{r * c}")) for x, r, c in (("w", K, d), ("g", d, K), ("u", K, K))
        )
        right = U * G.T
        rest = sp.sqrt(lam_W) * W - sp.sqrt(lam_H) * right
        total = lam_W / 2 * squares(W) + lam_H / 2 * squares(G)
        linear = certificate.rate(lam_W, lam_H) * (U.T * W * G).trace()
        if sp.expand(total - linear - squares(rest) / 2 - lam_H / 2 * (squares(G) - squares(right))) != 0:
            return False
    r, b, lam_b = sp.Symbol("r", real=True), sp.Symbol("b", real=True), sp.Symbol("lam_b", positive=True)
    return bool(
        sp.expand(r * b + lam_b / 2 * b**2 + r**2 / (2 * lam_b) - (lam_b * b + r) ** 2 / (2 * lam_b)) == 0
    )


# ----------------------------------------------------------------------------------------- consequences


class Consequences(NamedTuple):
    """Corollaries of the rule as their check reads them."""

    ratio: Callable[..., Any] = room.critical_ratio
    buffer: Callable[..., Any] = room.buffer_sizes
    coarse: Callable[..., Any] = room.coarse_threshold


def consequences_hold(found: Consequences) -> bool:
    """R*, the replay buffer, K kappa = 1 and the coarse threshold with its place between the two others."""
    ratio = found.ratio(rate, n_B, K_A, K_B, sp)
    samples = n_B * (K_A * ratio + K_B)
    if sp.simplify(room.merging_threshold(n_B, samples, sp) - rate) != 0:
        return False
    n, K = sp.symbols("n K", positive=True)
    kappa = sp.sqrt(n) * room.merging_threshold(n, K * n, sp)
    if sp.simplify(K * kappa) != 1:
        return False
    new, old = sp.symbols("N_new K_old", positive=True)
    ends = found.buffer(rate, new, old, sp)
    if any(sp.simplify(end - rate**2 * (new + old * end) ** 2) != 0 for end in ends):
        return False
    if sp.simplify(sp.prod(ends) - (new / old) ** 2) != 0:  # both roots, by Vieta
        return False
    # (I - p 1^T) D^(1/2) at softmax = class frequencies p, on unit vectors of the two groups
    N_all, root = K_A * n_A + K_B * n_B, sp.Matrix([sp.sqrt(K_A), sp.sqrt(K_B)])
    p = sp.Matrix([sp.sqrt(K_A) * n_A, sp.sqrt(K_B) * n_B]) / N_all
    gradient = (sp.eye(2) - p * root.T) * sp.diag(sp.sqrt(n_A), sp.sqrt(n_B)) / N_all
    if sp.simplify(gradient.det()) != 0:
        return False
    threshold = found.coarse(n_A, n_B, K_A, K_B, sp)
    if sp.simplify((gradient.T * gradient).trace() - threshold**2) != 0:  # its one singular value
        return False
    more_A = sp.Symbol("delta", positive=True)  # n_A = n_B + delta
    squares = [
        sp.factor((x**2 * N_all**3).subs(n_A, n_B + more_A))
        for x in (room.merging_threshold(n_B, N_all, sp), threshold, room.merging_threshold(n_A, N_all, sp))
    ]
    return all(sp.expand(high - low).is_positive for low, high in pairwise(squares))


# -------------------------------------------------------------------------------------- layer-peeled model


class Peeled(NamedTuple):
    """The curve as its check reads it, and the multiplier in units of n_B/N."""

    curve: Callable[..., Any] = room.peeled_curve
    multiplier: Any = sp.Integer(1)


def curve_is_stationary(peeled: Peeled) -> bool:
    """Derivatives of fit + multiplier ||Z||_* by a, v_A and v_B vanish on the curve, symbolic K_A, K_B and angle.

    Minority merged; coarse part u v^T, u = (sqrt K_B, -sqrt K_A)/sqrt K by unit vectors of the groups, its margins
    m_A = v_A sqrt(K/(K_A K_B))/sqrt K_A and m_B = -v_B sqrt(K/(K_A K_B))/sqrt K_B. All is multiplied by N/n_B.
    """
    angle, K = sp.Symbol("f", positive=True), K_A + K_B
    x, m_A, m_B = sp.symbols("a m_A m_B", real=True)
    t, y = sp.symbols("t y", positive=True)
    loss_A = sp.log(1 + (K_A - 1) * sp.exp(-x) + K_B * sp.exp(-x * (1 - 1 / K_A) - m_A))
    loss_B = sp.log(K_B + K_A * sp.exp(-m_B))
    by_v = sp.sqrt(K / (K_A * K_B)) / sp.sqrt(K_A), -sp.sqrt(K / (K_A * K_B)) / sp.sqrt(K_B)
    found, sine, cosine = peeled.curve(angle, K_A, K_B, sp), sp.sin(angle), sp.cos(angle)
    # y = e^a and t = exp(a/K_A - m_A) stand for the exponentials
    log_t = sp.expand(found.amplitude / K_A) - sp.expand(found.margins[0])
    value_t = sp.exp(sp.simplify(log_t))
    slopes = [
        sp.expand(sp.diff(loss_A, z).subs(m_A, x / K_A - sp.log(t))).subs(x, sp.log(y)) for z in (x, m_A)
    ]
    slopes = [sp.simplify(slope).subs(t, value_t) for slope in slopes]
    ratio = found.ratio.subs(sp.exp(found.amplitude), y)
    if ratio.has(sp.exp):
        return False
    slope_B = sp.diff(loss_B, m_B).subs(m_B, found.margins[1])
    equations = (
        # margins and size belong to one vector v = s (cos f, -sin f), and the norm is K E
        (K_A - 1) * found.amplitude + found.size - K * found.budget,
        found.margins[0] - found.size * cosine * by_v[0],
        found.margins[1] + found.size * sine * by_v[1],
        K_A * ratio * slopes[0] + peeled.multiplier * (K_A - 1),
        K_A * ratio * slopes[1] * by_v[0] + peeled.multiplier * cosine,
        K_B * slope_B * by_v[1] - peeled.multiplier * sine,
    )
    point = {K_A: 3, K_B: 4, angle: sp.Rational(1, 3), y: sp.Rational(7, 2)}
    if any(abs(sp.N(equation.subs(point), 30)) > 1e-20 for equation in equations):  # refuted by an example
        return False
    return all(sp.simplify(equation) == 0 for equation in equations)


def growth_is_exponential(growth: Callable[..., Any]) -> bool:
    """log(R_0)/E on the curve tends to the stated limit at small angles, symbolic K_A, K_B.

    s -> oo, so a/s -> sqrt(K/K_B) and K E/s -> (K_A - 1) sqrt(K/K_B) + 1, while R_0 e^-a -> (1 - c)/K_A.
    """
    angle, K = sp.Symbol("f", positive=True), K_A + K_B
    found = room.peeled_curve(angle, K_A, K_B, sp)
    per_size = sp.sqrt(K / K_B) * sp.cos(angle)
    rest = sp.simplify(sp.expand(found.amplitude) - sp.expand(found.size * per_size))
    at_zero = sp.limit(rest, angle, 0)  # a less its leading part stays bounded
    if at_zero.has(sp.oo, sp.zoo, sp.nan):
        return False
    slope = per_size.subs(angle, 0) * K / ((K_A - 1) * per_size.subs(angle, 0) + 1)
    return bool(sp.simplify(slope - growth(K_A, K_B, sp)) == 0)


def shifted(formula: Callable[..., Any], factor: Any = WRONG) -> Callable[..., Any]:
    """The formula times a factor."""
    return lambda *arguments: factor * formula(*arguments)


def curve_with(**wrong: Callable[[Any], Any]) -> Callable[..., Any]:
    """The layer-peeled curve with some of its coordinates changed."""

    def curve(*arguments: Any) -> Any:
        found = room.peeled_curve(*arguments)
        return found._replace(**{name: change(getattr(found, name)) for name, change in wrong.items()})

    return curve


PROOFS = (
    Proof(
        "hong2023.merging",
        "derivative by the within-group amplitude, convexity: symbolic n_g, N, K_g",
        "proved",
        rule_is_sharp,
        Rule(),
        {
            "n_g for sqrt(n_g)": Rule(lambda size, samples, xp: size / samples),
            "K n_g for N": Rule(
                lambda size, samples, xp: 1 / (sp.Symbol("K", positive=True) * xp.sqrt(size))
            ),
            "off by 1e-6": Rule(shifted(room.merging_threshold)),
            "plain nuclear norm": Rule(weight=lambda size: sp.Integer(1)),
            "mean logit of the group forgotten": Rule(
                loss=lambda x, count, S, xp: xp.log(1 + (count - 1) * xp.exp(-x) + S * xp.exp(-x))
            ),
        },
    ),
    Proof(
        "hong2023.merging",
        "singular values of the within-group part, symbolic K_g and n_g",
        "proved",
        norm_splits,
        sp.sqrt,
        {"n_g for sqrt(n_g)": lambda size: size, "off by 1e-6": lambda size: sp.sqrt(size) * WRONG},
    ),
    Proof(
        "hong2023.convex",
        "Gibbs' inequality, the factors' and the bias's, as identities",
        "proved for K = 2..4",
        bound_holds,
        Certificate(),
        {
            "minus the entropy": Certificate(entropy_sign=-1),
            "mean of the two decays": Certificate(rate=lambda lam_W, lam_H: (lam_W + lam_H) / 2),
            "2 sqrt(lam_W lam_H), right without halves": Certificate(
                rate=lambda lam_W, lam_H: 2 * sp.sqrt(lam_W * lam_H)
            ),
        },
    ),
    Proof(
        "ufm.merging_consequences",
        "R*, replay buffer, K kappa = 1, coarse threshold and order, symbolic sizes",
        "proved",
        consequences_hold,
        Consequences(),
        {
            "R* off by 1e-6": Consequences(ratio=shifted(room.critical_ratio)),
            "buffer of the balanced form lam_Z N": Consequences(
                buffer=lambda lam, new, old, xp: ((lam * (new + old)) ** 2,)
            ),
            "coarse threshold off by 1e-6": Consequences(coarse=shifted(room.coarse_threshold)),
            "coarse threshold without K/N": Consequences(
                coarse=lambda a, b, K_A, K_B, xp: xp.sqrt(xp.sqrt(a * b)) / (K_A * a + K_B * b)
            ),
        },
    ),
    Proof(
        "fang2021.minority_collapse",
        "stationarity along the curve of R_0 and E, symbolic K_A, K_B",
        "proved",
        curve_is_stationary,
        Peeled(),
        {
            "R_0 off by 1e-6": Peeled(curve_with(ratio=lambda R: R * WRONG)),
            "E off by 1e-6": Peeled(curve_with(budget=lambda E: E * WRONG)),
            "multiplier off by 1e-6": Peeled(multiplier=WRONG),
            "multiplier sqrt(n_B)/N of the decay model": Peeled(multiplier=1 / sp.sqrt(sp.Integer(2))),
        },
    ),
    Proof(
        "fang2021.minority_collapse",
        "R_0 grows exponentially with E, symbolic K_A, K_B",
        "proved",
        growth_is_exponential,
        room.peeled_growth,
        {
            "off by 1e-6": shifted(room.peeled_growth),
            "K_A for K_A - 1": lambda K_A, K_B, xp: room.peeled_growth(K_A + 1, K_B, xp),
        },
    ),
)
