"""Proofs of the SELI geometry: optimal for every class sizes, and its closed forms for STEP imbalance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import sympy as sp

from proofs_check.algebra import WRONG
from proofs_check.proof import Proof
from ufm.theory import seli

K_A, K_B, R = sp.symbols("K_A K_B R", positive=True)

# -------------------------------------------------------------------------------------------- any class sizes


class Optimality(NamedTuple):
    """What makes SELI optimal, as its check reads it."""

    laplacian: Callable[..., Any] = seli.laplacian
    integrand: Callable[[Any, Any], Any] = lambda rate, t: (
        (1 - sp.exp(-t * rate)) * t ** sp.Rational(-3, 2) / (2 * sp.sqrt(sp.pi))
    )


def seli_is_optimal(found: Optimality) -> bool:
    """The certificate has negative off-label entries for every choice of class sizes.

    1. B = D^-1 - D^-1 J D^-1/tr(D^-1) has B 1 = 0 and (P D P) B = P, so it is the pseudo-inverse: symbolic sizes,
       K = 2..4 (one line at any K: P D B = P (I - 1 1^T D^-1/tr D^-1) = P). Its entries off the diagonal are negative,
       so exp(-t B) = exp(-t c) exp(t (c I - B)) > 0 for c >= max B_kk.
    2. Every eigenvalue x of B has sqrt(x) = integral over t > 0 of (1 - exp(-t x)) t^(-3/2)/(2 sqrt pi): both are 0 at
       x = 0 and have the same derivative. So M = sqrt(B) has negative entries off the diagonal.
    3. <S, Z> = sum_{c != y} (-S_c)(z_y - z_c) for columns S of sum 0: the dual value of margins >= 1, K = 2..4.
    """
    for K in range(2, 5):
        sizes = sp.symbols(f"n:{K}", positive=True)
        B, P = found.laplacian(sizes, sp), sp.eye(K) - sp.ones(K, K) / K
        if (B * sp.ones(K, 1)).applyfunc(sp.cancel) != sp.zeros(K, 1) or B != B.T:
            return False
        if (seli.centred_sizes(sizes, sp) - P * sp.diag(*sizes) * P).applyfunc(sp.expand) != sp.zeros(K, K):
            return False
        inside = (sp.diag(*sizes) * B).applyfunc(sp.cancel)  # P B = B, for the columns of B sum to 0
        if (P * inside - P).applyfunc(sp.cancel) != sp.zeros(K, K):
            return False
        if not all((-sp.factor(B[i, j])).is_positive for i in range(K) for j in range(i)):
            return False
        z, S = sp.symbols(f"z:{K}"), list(sp.symbols(f"S:{K}"))
        S[0] = -sum(S[1:])
        pairing = sum(s * x for s, x in zip(S, z, strict=True))
        if sp.expand(pairing - sum(-S[c] * (z[0] - z[c]) for c in range(1, K))) != 0:
            return False
    rate, t = sp.symbols("x t", positive=True)
    integrand = found.integrand(rate, t)
    derivative = sp.integrate(sp.simplify(sp.diff(integrand, rate)), (t, 0, sp.oo))
    return bool(integrand.subs(rate, 0) == 0 and sp.simplify(derivative - sp.diff(sp.sqrt(rate), rate)) == 0)


# ------------------------------------------------------------------------------------------- STEP imbalance


class Blocks(NamedTuple):
    """Matrix over two groups of classes: x_major I + y_major J, x_minor I + y_minor J on the groups, y_AB J across."""

    x_major: Any
    x_minor: Any
    y_major: Any
    y_minor: Any
    across: Any

    def times(self, other: Blocks) -> tuple[Any, ...]:
        """Parts of the product: x_major, x_minor, y_major, y_minor, and across on either side."""
        return (
            self.x_major * other.x_major,
            self.x_minor * other.x_minor,
            self.x_major * other.y_major
            + self.y_major * other.x_major
            + K_A * self.y_major * other.y_major
            + K_B * self.across * other.across,
            self.x_minor * other.y_minor
            + self.y_minor * other.x_minor
            + K_B * self.y_minor * other.y_minor
            + K_A * self.across * other.across,
            self.x_major * other.across
            + K_A * self.y_major * other.across
            + self.across * (other.x_minor + K_B * other.y_minor),
            other.x_major * self.across
            + K_A * other.y_major * self.across
            + other.across * (self.x_minor + K_B * self.y_minor),
        )


def blocks_of(found: seli.Products) -> Blocks:
    """A Gram matrix by its entries."""
    return Blocks(
        found.square_major - found.inside_major, found.square_minor - found.inside_minor,
        found.inside_major, found.inside_minor, found.across,
    )  # fmt: skip


def step_is_seli(step: Callable[..., seli.Step]) -> bool:
    """(W W^T)^2 = P D P, W W^T M = P and the singular values, for symbolic K_A, K_B and R; R = 1 is the ETF."""
    found, K = step(K_A, K_B, R, sp), K_A + K_B
    W, M = blocks_of(found.classifiers), blocks_of(found.features)
    mean = (K_A * R + K_B) / K  # P D P = D - (D J + J D)/K + mean J/K
    square = (R, sp.Integer(1), (-2 * R + mean) / K, (-2 + mean) / K, *2 * ((-R - 1 + mean) / K,))
    projector = (sp.Integer(1), sp.Integer(1), *4 * (-1 / K,))
    for product, wanted in ((W.times(W), square), (W.times(M), projector)):
        if any(not _vanishes(x - y) for x, y in zip(product, wanted, strict=True)):
            return False
    trace = K_A * found.classifiers.square_major + K_B * found.classifiers.square_minor
    first, second, once = found.singular_values
    if not _vanishes(trace - (K_A - 1) * first - (K_B - 1) * second - once):
        return False
    balanced = step(K_A, K_B, sp.Integer(1), sp)
    return all(
        sp.simplify(cosine + 1 / (K - 1)) == 0
        for products in (balanced.classifiers, balanced.features)
        for cosine in products.cosines(sp)
    )


def _vanishes(expression: Any) -> bool:
    point = {K_A: sp.Integer(3), K_B: sp.Integer(4), R: sp.Integer(5)}
    return bool(abs(sp.N(expression.subs(point), 30)) < 1e-20 and sp.cancel(sp.expand(expression)) == 0)


class Angles(NamedTuple):
    """Statements on angles as their check reads them."""

    acute: Callable[..., Any] = seli.acute_ratio
    limits: Callable[..., Any] = seli.limit_cosines


def angles_hold(angles: Angles) -> bool:
    """The product of two minority classifiers grows with R and is 0 at `acute_ratio`, 7 for halves; limits R -> oo."""
    found = seli.step(K_A, K_B, R, sp)
    inside = found.classifiers.inside_minor
    if not sp.diff(inside, R).is_positive or not _vanishes(inside.subs(R, angles.acute(K_A, K_B))):
        return False
    if sp.simplify(angles.acute(K_A, K_A)) != 7:
        return False
    wanted = angles.limits(K_A, K_B, sp)
    for products, limits in zip((found.classifiers, found.features), wanted, strict=True):
        for cosine, limit in zip(products.cosines(sp)[:2], limits, strict=True):
            at = {K_A: sp.Integer(3), K_B: sp.Integer(4)}
            if sp.simplify(sp.limit(cosine.subs(at), R, sp.oo) - sp.sympify(limit).subs(at)) != 0:
                return False
            if sp.simplify(_leading(cosine) - limit) != 0:
                return False
    return True


def _leading(cosine: Any) -> Any:
    """Limit R -> oo for symbolic K_A, K_B: sqrt(R) = 1/e taken out of both parts, then e = 0."""
    e = sp.Symbol("e", positive=True)
    top, bottom = (
        sp.expand(sp.powsimp(sp.simplify(part.subs(R, 1 / e**2))))
        for part in sp.fraction(sp.together(cosine))
    )
    return sp.limit(top / bottom, e, 0)


def ray_is_minimal(scale: Callable[..., Any]) -> bool:
    """The derivative of `ray_loss` vanishes there and the loss is convex; equal classes give the known margin."""
    K, decay, norm, c, n = sp.symbols("K lam_Z S c n", positive=True)
    slope = sp.diff(seli.ray_loss(c, K, decay, norm, sp), c)
    if sp.simplify(slope.subs(c, scale(K, decay, norm, sp))) != 0:
        return False
    more = sp.Symbol("r", positive=True)
    if not sp.simplify(sp.diff(slope, c).subs(K, 1 + more)).is_positive:
        return False
    kappa = sp.sqrt(n) * decay
    margin = sp.exp(scale(K, decay, (K - 1) * sp.sqrt(n), sp))
    return bool(sp.simplify(margin - (1 / kappa - (K - 1))) == 0)


def step_with(change: Callable[[seli.Step], seli.Step]) -> Callable[..., seli.Step]:
    """The closed forms with something changed."""
    return lambda *arguments: change(seli.step(*arguments))


def scaled_classifiers(found: seli.Step, **factors: Any) -> seli.Step:
    """Some entries of W W^T times a factor."""
    W = found.classifiers
    return found._replace(
        classifiers=W._replace(**{name: getattr(W, name) * f for name, f in factors.items()})
    )


PROOFS = (
    Proof(
        "thrampoulidis2022.seli",
        "off-label entries of the certificate are negative, any sizes",
        "proved for K = 2..4",
        seli_is_optimal,
        Optimality(),
        {
            "Laplacian off by 1e-6": Optimality(lambda sizes, xp: seli.laplacian(sizes, xp) * WRONG),
            "D^-1 - J/tr(D)": Optimality(
                lambda sizes, xp: (
                    xp.diag(*[1 / n for n in sizes]) - xp.ones(len(sizes), len(sizes)) / sum(sizes)
                )
            ),
            "t^(-5/4) for t^(-3/2)": Optimality(
                integrand=lambda rate, t: Optimality().integrand(rate, t) * t ** sp.Rational(1, 4)
            ),
            "integral off by 1e-6": Optimality(
                integrand=lambda rate, t: Optimality().integrand(rate, t) * WRONG
            ),
            "1 - 2 exp(-t x)": Optimality(
                integrand=lambda rate, t: Optimality().integrand(rate, t) - sp.exp(-t * rate)
            ),
        },
    ),
    Proof(
        "thrampoulidis2022.step",
        "Gram matrices and singular values, ETF at R = 1: symbolic K_A, K_B, R",
        "proved",
        step_is_seli,
        seli.step,
        {
            "norm off by 1e-6": step_with(lambda s: scaled_classifiers(s, square_minor=WRONG)),
            "inner product off by 1e-6": step_with(lambda s: scaled_classifiers(s, across=WRONG)),
            "groups exchanged": lambda A, B, ratio, xp: seli.step(B, A, ratio, xp),
            "features like classifiers": step_with(lambda s: s._replace(features=s.classifiers)),
            "nu for sqrt(nu)": step_with(
                lambda s: scaled_classifiers(s, across=sp.sqrt((K_B * R + K_A) / (K_A + K_B)))
            ),
        },
    ),
    Proof(
        "thrampoulidis2022.step",
        "where minority classifiers turn acute, and limits of all cosines, symbolic K_A, K_B",
        "proved",
        angles_hold,
        Angles(),
        {
            "off by 1e-6": Angles(lambda A, B: seli.acute_ratio(A, B) * WRONG),
            "7 for every pair of groups": Angles(lambda A, B: sp.Integer(7)),
            "features like classifiers": Angles(
                limits=lambda A, B, xp: 2 * (seli.limit_cosines(A, B, xp)[0],)
            ),
        },
    ),
    Proof(
        "ufm.seli_rate",
        "best multiple of the geometry; the exact margin for equal classes, symbolic K, n",
        "proved",
        ray_is_minimal,
        seli.ray_scale,
        {
            "off by 1e-6": lambda K, decay, norm, xp: seli.ray_scale(K, decay * WRONG, norm, xp),
            "K for K - 1": lambda K, decay, norm, xp: seli.ray_scale(K + 1, decay, norm, xp),
        },
    ),
)
