"""Proofs of the row-sum law for symbolic t, eta, beta, lam; the formulas come from `ufm.theory.row_sum`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import sympy as sp

from proofs_check.algebra import WRONG
from proofs_check.compiled_rule import compiled_rule
from proofs_check.proof import Proof
from ufm.theory import row_sum

t = sp.Symbol("t", integer=True, nonnegative=True)
eta, lam_c, lam_d, x, y = sp.symbols("eta lam_c lam_d x y", positive=True)
beta = sp.Symbol("beta", positive=True)
a, b, r = sp.symbols("a b r", nonzero=True)
BETA = y / (1 + y)  # every momentum in (0, 1) as y runs over (0, oo)


def zero(expression: Any) -> bool:
    """Whether an expression is identically 0, with powers of symbolic t expanded."""
    return bool(sp.simplify(sp.expand(sp.powsimp(sp.expand(expression, power_exp=True)))) == 0)


# ------------------------------------------------------------------------------- lemma E.5


def cross_entropy(z: list[Any], targets: list[Any]) -> Any:
    """Cross-entropy for targets of any sum, with the factor sum(y) that makes it shift-invariant."""
    return sum(targets) * sp.log(sum(map(sp.exp, z))) - sum(w * v for w, v in zip(targets, z, strict=True))


def cross_entropy_without_factor(z: list[Any], targets: list[Any]) -> Any:
    """The same without the factor sum(y): right for normalised targets only."""
    return sp.log(sum(map(sp.exp, z))) - sum(w * v for w, v in zip(targets, z, strict=True))


def squared_error(z: list[Any], targets: list[Any]) -> Any:
    """Squared error, which is not shift-invariant."""
    return sum((v - w) ** 2 for w, v in zip(targets, z, strict=True)) / 2


def any_shift_invariant(z: list[Any], targets: list[Any]) -> Any:
    """An arbitrary function of the logit differences: the general form of a shift-invariant loss."""
    return sp.Function("F")(*(v - z[-1] for v in z[:-1]), *targets)


def nearly_shift_invariant(z: list[Any], targets: list[Any]) -> Any:
    """The same with the last logit weighted 1 + 1e-6."""
    return sp.Function("F")(*(v - WRONG * z[-1] for v in z[:-1]), *targets)


def row_sum_of_gradient_vanishes(loss: Callable[..., Any]) -> bool:
    """1^T R = 0 for R = d loss/dz, hence 1^T grad_W = (1^T R) H^T = 0, for K = 2..5 and symbolic targets."""
    for K in range(2, 6):
        logits = list(sp.symbols(f"z:{K}"))
        value = loss(logits, list(sp.symbols(f"y:{K}", positive=True)))
        if sp.simplify(sum(sp.diff(value, z) for z in logits).doit()) != 0:
            return False
    return True


def invariant_for_every_number_of_classes(factor: Callable[[Any], Any]) -> bool:
    """ell(z + c 1) = ell(z) for cross-entropy with symbolic K; `factor` multiplies the log-partition term."""
    K, k = sp.symbols("K k", integer=True, positive=True)
    c = sp.Symbol("c", real=True)
    z, w = sp.IndexedBase("z", real=True), sp.IndexedBase("y", real=True)
    total = sp.Sum(w[k], (k, 1, K))

    def ell(shift: Any) -> Any:
        partition = sp.Sum(sp.exp(z[k]), (k, 1, K))
        # exp(z + c) = exp(c) exp(z) leaves the sum as a factor
        return factor(total) * (shift + sp.log(partition)) - sp.Sum(w[k] * z[k], (k, 1, K)) - shift * total

    term = sp.Sum(sp.expand(sp.exp(z[k] + c), power_exp=True), (k, 1, K))
    pulled_out = sp.factor_terms(term) == sp.exp(c) * sp.Sum(sp.exp(z[k]), (k, 1, K))
    return bool(pulled_out) and bool(sp.expand(ell(c) - ell(0)) == 0)


# -------------------------------------------------------------------------------- the recursion


def momentum_step(w: Any, g: Any, v: Any, rate: Any, momentum: Any, nesterov: bool) -> tuple[Any, Any]:
    """The compiled rule of heavy ball or of Nesterov's momentum."""
    new, buffer = compiled_rule("momentum_step")(w, g, v, rate, momentum, float(nesterov))
    return new, buffer


class OneStep(NamedTuple):
    """Entries of the one-step matrix, and whether the decoupled shrink comes after the step."""

    entries: Callable[..., Any] = row_sum.recursion_entries
    shrunk_after: bool = False


def matrix_is_the_update_rule(one_step: OneStep) -> bool:
    """One step on (w, v) of a coordinate, summed over classes, is the one-step matrix on (m, q).

    The step is linear in (w, v, g) with the same coefficients for every class; so are the sums over classes,
    for any K, and sum g = 0 by lemma E.5. The rate is that of this step alone and v is carried: any schedule
    multiplies the matrices of its steps.
    """
    w, v, g = sp.symbols("w v g")
    for nesterov in (False, True):
        kept = 1 - eta * lam_d
        before, after = (1, kept) if one_step.shrunk_after else (kept, 1)
        new, buffer = momentum_step(before * w, g + lam_c * w, v, eta, beta, nesterov)
        step = after * new, buffer
        of_w_and_v = sp.Matrix([[sp.diff(value, x) for x in (w, v)] for value in step])
        of_g = [sp.diff(value, g) for value in step]
        linear = [
            zero(value - row[0] * w - row[1] * v - c * g) and not (set(row) | {c}) & {w, v, g}
            for value, row, c in zip(step, of_w_and_v.tolist(), of_g, strict=True)
        ]
        found = sp.Matrix(one_step.entries(eta, beta, lam_c, lam_d, nesterov))
        if not (all(linear) and all(zero(x) for x in found - of_w_and_v)):
            return False
    return True


def buffer_in_units_of_the_rate(lr: Any, momentum: Any, coupled: Any, decoupled: Any, nesterov: bool) -> Any:
    """A similar matrix, for q times the rate: right at a constant rate only."""
    (m11, m12), (m21, m22) = row_sum.recursion_entries(lr, momentum, coupled, decoupled, nesterov)
    return (m11, m12 / lr), (m21 * lr, m22)


def old_buffer_not_shrunk(lr: Any, momentum: Any, coupled: Any, decoupled: Any, nesterov: bool) -> Any:
    """The factor of a shrink after the step on what m brings alone."""
    (m11, _), below = row_sum.entries_shrunk_after(lr, momentum, coupled, decoupled, nesterov)
    return (m11, row_sum.recursion_entries(lr, momentum, coupled, decoupled, nesterov)[0][1]), below


def shrink_after_is_before_at_other_rates(change: Callable[..., Any]) -> bool:
    """(1 - eta lam) rule(w) at eta is rule((1 - eta' lam') w) at eta', buffers alike, and so are the matrices.

    For the compiled rules of momentum (heavy ball and Nesterov) and Adam; GD is momentum without a buffer. The
    direction, coupled decay included, is that of the unshrunk w in both.
    """
    w, v, g, eps, first, second = sp.symbols("w v g eps first second", positive=True)
    rate, decoupled = change(eta, lam_d)
    kept, kept_before = 1 - eta * lam_d, 1 - rate * decoupled

    def adam(x: Any, lr: Any) -> Any:
        return compiled_rule("adam_step")(x, g, v, v**2, lr, beta, BETA, eps, first, second)

    rules: list[Callable[[Any, Any], Any]] = [
        lambda x, lr: momentum_step(x, g + lam_c * w, v, lr, beta, False),
        lambda x, lr: momentum_step(x, g + lam_c * w, v, lr, beta, True),
        adam,
    ]
    for rule in rules:
        new, *buffers = rule(w, eta)
        same, *same_buffers = rule(kept_before * w, rate)
        if not (zero(kept * new - same) and buffers == same_buffers):
            return False
    return all(
        zero(entry)
        for nesterov in (False, True)
        for entry in row_sum.matrix_of(row_sum.entries_shrunk_after(eta, beta, lam_c, lam_d, nesterov), sp)
        - row_sum.recursion_matrix(rate, beta, lam_c, decoupled, nesterov, xp=sp)
    )


class Law(NamedTuple):
    """The row-sum law as its check reads it."""

    trace_determinant: Callable[..., Any] = row_sum.trace_determinant
    from_roots: Callable[..., Any] = row_sum.growth_from_roots
    from_double_root: Callable[..., Any] = row_sum.growth_from_double_root
    buffer: Any = sp.Integer(0)  # V_0^T 1 in units of m_0


def law_holds(law: Law) -> bool:
    """g_t has trace and determinant of the one-step matrix, its recursion and its first two values.

    By Cayley-Hamilton M^{t+2} = tr M^{t+1} - D M^t, so the first entry of M^t (m_0, q_0) is the only sequence
    with that recursion and these two values.
    """
    for nesterov in (False, True):
        M = row_sum.recursion_matrix(eta, beta, lam_c, lam_d, nesterov, xp=sp)
        tr, D = law.trace_determinant(eta, beta, lam_c, lam_d, nesterov)
        if not (zero(M.trace() - tr) and zero(M.det() - D)):
            return False
        plus, minus = row_sum.roots(tr, D, xp=sp)
        if not (zero(plus + minus - tr) and zero(plus * minus - D)):
            return False
        closed = row_sum.growth_closed_form(t, eta, beta, lam_c, lam_d, nesterov, xp=sp)
        if closed != row_sum.growth_from_roots(t, plus, minus, beta):
            return False
        first = M[0, 0] + M[0, 1] * law.buffer
        if not zero((tr - beta) - first):  # g_1 of the closed form, a + b - beta with a + b = tr
            return False
    return sequence_holds(lambda n: law.from_roots(n, a, b, beta), a + b, a * b) and sequence_holds(
        lambda n: law.from_double_root(n, r, beta), 2 * r, r**2
    )


def sequence_holds(g: Callable[[Any], Any], tr: Any, D: Any) -> bool:
    """g_{t+2} = tr g_{t+1} - D g_t for symbolic t, g_0 = 1 and g_1 = tr - beta."""
    return (
        zero(g(t + 2) - tr * g(t + 1) + D * g(t))
        and zero(sp.cancel(g(sp.Integer(0))) - 1)
        and zero(sp.cancel(g(sp.Integer(1))) - (tr - beta))
    )


def wrong_determinant(*arguments: Any) -> tuple[Any, Any]:
    """D times 1 + 1e-6."""
    tr, D = row_sum.trace_determinant(*arguments)
    return tr, D * WRONG


def nesterov_without_look_ahead(lr: Any, momentum: Any, coupled: Any, decoupled: Any, nesterov: bool) -> Any:
    """Heavy-ball trace for both forms."""
    return row_sum.trace_determinant(lr, momentum, coupled, decoupled, False)


def without_second_term(n: Any, plus: Any, minus: Any, momentum: Any) -> Any:
    """p_t instead of p_t - beta p_{t-1}."""
    return row_sum.growth_from_roots(n, plus, minus, 0)


class Decoupled(NamedTuple):
    """Theorem 3.1 as its check reads it: g_t, and the coupled decay that acts beside it."""

    growth: Callable[..., Any] = row_sum.theorem_3_1
    coupled: Any = sp.Integer(0)


def theorem_3_1_holds(theorem: Decoupled) -> bool:
    """(g_t m_0, 0) follows the recursion on (m, q) at every momentum, heavy ball and Nesterov."""
    for nesterov in (False, True):
        M = row_sum.recursion_matrix(eta, beta, theorem.coupled, lam_d, nesterov, xp=sp)
        now, then = theorem.growth(t, eta, lam_d), theorem.growth(t + 1, eta, lam_d)
        m, q = M * sp.Matrix([now, 0])
        if not (zero(m - then) and zero(q) and theorem.growth(0, eta, lam_d) == 1):
            return False
    return True


def theorem_3_2_holds(growth: Callable[..., Any]) -> bool:
    """m_{t+2} = (1 + beta - eta lam) m_{t+1} - beta m_t, m_1 = (1 - eta lam) m_0, for symbolic t.

    The parameters are written through the roots u +- v and u +- i v with v > 0: every pattern of distinct
    roots, beta = r_+ r_-, eta lam = (1 - r_+)(1 - r_-).
    """
    u, v = sp.Symbol("u"), sp.Symbol("v", positive=True)
    for half in (v, sp.I * v):
        momentum, product = sp.expand(u**2 - half**2), sp.expand((1 - u) ** 2 - half**2)
        lam = product / eta

        def g(n: Any, momentum: Any = momentum, lam: Any = lam) -> Any:
            return plain_roots(growth(n, eta, momentum, lam, xp=sp))

        if not zero(g(t + 2) - (1 + momentum - product) * g(t + 1) + momentum * g(t)):
            return False
        if not (zero(g(0) - 1) and zero(g(1) - (1 - product))):
            return False
    return True


def plain_roots(expression: Any) -> Any:
    """Replace square roots of perfect squares by what they are the roots of."""
    return expression.replace(
        lambda e: isinstance(e, sp.Pow) and e.exp == sp.Rational(1, 2),
        lambda e: sp.sqrt(sp.factor(sp.expand(e.base))),
    )


def theorem_3_2_with_more_decay(n: Any, lr: Any, momentum: Any, lam: Any, xp: Any) -> Any:
    """Decay rate times 1 + 1e-6."""
    return row_sum.theorem_3_2(n, lr, momentum, lam * WRONG, xp=xp)


def theorem_3_2_without_buffer(n: Any, lr: Any, momentum: Any, lam: Any, xp: Any) -> Any:
    """g_t = p_t, as if the buffer did not start at 0."""
    plus, minus = row_sum.roots(*row_sum.trace_determinant(lr, momentum, lam), xp=xp)
    return row_sum.growth_from_roots(n, plus, minus, 0)


# --------------------------------------------------------------------- stability, best momentum, slow rate


def jury_conditions(tr: Any, D: Any) -> tuple[Any, Any, Any]:
    """The three quantities that are positive iff both roots of r^2 - tr r + D lie inside the unit circle."""
    return 1 - tr + D, 1 + tr + D, 1 - D


def jury_is_necessary_and_sufficient(conditions: Callable[[Any, Any], Any]) -> bool:
    """The conditions are (1-a)(1-b), (1+a)(1+b), 1-ab for roots a, b.

    Real roots: the first two say that a, b lie on one side of 1 and one side of -1, the third excludes both
    beyond. Complex pair u +- i v: the first two are (1 -+ u)^2 + v^2 > 0 always, the third is 1 - |r|^2.
    """
    first, second, third = conditions(a + b, a * b)
    u, v = sp.symbols("u v", positive=True)
    # beyond: a = 1 + u, b = 1 + v and a = -1 - u, b = -1 - v give a third condition < 0
    beyond = [third.subs({a: s * (1 + u), b: s * (1 + v)}, simultaneous=True) for s in (1, -1)]
    pair = {a: u + sp.I * v, b: u - sp.I * v}
    return (
        zero(first - (1 - a) * (1 - b))
        and zero(second - (1 + a) * (1 + b))
        and all(bool((-sp.expand(value)).is_positive) for value in beyond)
        and zero(third.subs(pair, simultaneous=True) - (1 - u**2 - v**2))
        and zero(first.subs(pair, simultaneous=True) - ((1 - u) ** 2 + v**2))
    )


def wrong_jury(tr: Any, D: Any) -> tuple[Any, Any, Any]:
    """D weighted 1 + 1e-6 in the last condition."""
    first, second, _ = jury_conditions(tr, D)
    return first, second, 1 - D * WRONG


def stability_range_holds(stability_range: Callable[..., Any]) -> bool:
    """0 < x < range is the Jury condition, both modes excited; x = eta lam, every momentum in [0, 1)."""
    if not zero((1 - (1 - x) ** 2) - x * (stability_range(beta, decay="decoupled") - x)):
        return False  # |1 - x| < 1 iff x (2 - x) > 0
    for nesterov in (False, True):
        M = row_sum.recursion_matrix(x, beta, 1, 0, nesterov, xp=sp)
        if zero(M[0, 1] * M[1, 0]):
            return False  # then g_t would not contain both roots
        for momentum in (BETA, sp.Integer(0)):
            first, second, third = jury_conditions(*row_sum.trace_determinant(x, momentum, 1, 0, nesterov))
            end = stability_range(momentum, nesterov)
            slope = sp.simplify(-sp.diff(second, x))
            linear = zero(second - slope * (end - x))
            inside = sp.simplify(sp.expand(first / x)).is_positive and slope.is_positive
            third_positive = sp.simplify(third).is_positive
            if not (linear and bool(inside) and bool(third_positive)):
                return False
    return True


def range_off_by_1e_6(momentum: Any = 0, nesterov: bool = False, decay: str = "coupled") -> Any:
    """Upper end times 1 + 1e-6."""
    return row_sum.stability_range(momentum, nesterov, decay) * WRONG


def heavy_ball_range_for_both(momentum: Any = 0, nesterov: bool = False, decay: str = "coupled") -> Any:
    """Nesterov given heavy ball's range."""
    return row_sum.stability_range(momentum, False, decay)


def best_momentum_holds(formula: Callable[..., Any]) -> bool:
    """Double root at beta*, and a larger spectral radius than |1 - s| on both sides, s = sqrt x.

    Below beta* the polynomial is negative at 1 - s, so a root lies beyond it; above, the discriminant
    (convex in beta, 0 at beta*, negative at 1) is negative and |r|^2 = D grows with beta from (1 - s)^2.
    """
    s = sp.Symbol("s", positive=True)
    for nesterov in (False, True):
        # heavy ball: s in (0, 2) as 2 y/(1 + y); Nesterov: s in (0, 1)
        inside = (1 if nesterov else 2) * y / (1 + y)
        tr, D = row_sum.trace_determinant(s**2, beta, 1, 0, nesterov)
        best = formula(s**2, nesterov, xp=sp)
        discriminant = tr**2 - 4 * D
        if not (zero(discriminant.subs(beta, best)) and zero(D.subs(beta, best) - (1 - s) ** 2)):
            return False
        value = (1 - s) ** 2 - tr * (1 - s) + D
        if not zero(value - sp.diff(value, beta) * (beta - best)):
            return False
        slope = sp.diff(value, beta)  # > 0: value < 0 below beta*
        signs = (slope, -discriminant.subs(beta, 1), sp.diff(discriminant, beta, 2), sp.diff(D, beta))
        if not all(sp.factor(sp.together(sign.subs(s, inside))).is_positive for sign in signs):
            return False
    return True


def best_off_by_1e_6(value: Any, nesterov: bool, xp: Any) -> Any:
    """beta* times 1 + 1e-6."""
    return row_sum.critical_momentum_formula(value, nesterov, xp) * WRONG


def heavy_ball_best_for_both(value: Any, nesterov: bool, xp: Any) -> Any:
    """Nesterov given heavy ball's beta*."""
    return row_sum.critical_momentum_formula(value, False, xp)


def slow_rate_holds(rate: Callable[..., Any]) -> bool:
    """The larger root is 1 - rate + O(x^2) at x = eta lam -> 0: value 1 and slope at x = 0."""
    for nesterov in (False, True):
        plus, _ = row_sum.roots(*row_sum.trace_determinant(x, BETA, 1, 0, nesterov), xp=sp)
        start = sp.simplify(plus.subs(x, 0))
        slope = sp.simplify(sp.diff(plus, x).subs(x, 0))
        if not (zero(start - 1) and zero(slope + rate(sp.Integer(1), sp.Integer(1), BETA))):
            return False
    return True


# --------------------------------------------------------------------------------- erratum of theorem 3.2


def envelope_holds(envelope: Callable[[Any, Any], Any]) -> bool:
    """|g_t| <= envelope(t, rho) for heavy ball with coupled decay, at every root pattern.

    Induction: p_{t+1} = a p_t + b^{t+1}, so |p_t| <= (t + 1) rho^t; with beta = |a b| <= rho^2 then
    |g_t| <= (t + 1) rho^t + rho^2 t rho^{t-1}. The envelope must be at least that, not below |g_t| at the double
    root r = 1/2, and equal to |g_t| at r = -1/2: it is sharp.
    """
    rho = sp.Symbol("rho", positive=True)
    n = sp.Symbol("n", integer=True, positive=True)

    def p(k: Any) -> Any:
        return row_sum.growth_from_roots(k, a, b, 0)

    induction = zero(p(n + 1) - a * p(n) - b ** (n + 1)) and zero(
        rho * (n + 1) * rho**n + rho ** (n + 1) - (n + 2) * rho ** (n + 1)
    )
    bound = (n + 1) * rho**n + rho**2 * n * rho ** (n - 1)
    spare = sp.simplify(sp.expand(sp.powsimp(sp.expand((envelope(n, rho) - bound) / rho**n))))
    if not induction or spare.is_nonnegative is not True:
        return False
    for root in (sp.Rational(1, 2), -sp.Rational(1, 2)):
        momentum, product = root**2, (1 - root) ** 2
        g = row_sum.growth_double_root(n, 1, momentum, product)
        if not zero(momentum - row_sum.critical_momentum_formula(product, xp=sp)):
            return False
        exact = sp.simplify(g / root**n)  # 1 + n (1 - r) > 0
        if not zero(exact - (1 + n * (1 - root))):
            return False
        above = sp.simplify(envelope(n, abs(root)) / abs(root) ** n - exact)
        if above.is_nonnegative is not True or (root < 0 and above != 0):
            return False
    return True


def printed_constant_is_exceeded(bound: Callable[[Any, Any], Any]) -> bool:
    """At x = beta = 1/4 (double root 1/2) |g_t|/bound grows beyond every limit."""
    n = sp.Symbol("n", integer=True, positive=True)
    g = row_sum.growth_double_root(n, 1, sp.Rational(1, 4), sp.Rational(1, 4))
    return bool(sp.limit(sp.simplify(g / bound(n, sp.Rational(1, 2))), n, sp.oo) == sp.oo)


def printed_envelope(n: Any, rho: Any) -> Any:
    """C rho^t with a constant C, as printed."""
    return sp.Symbol("C", positive=True) * rho**n


def envelope_short_by_1e_6(n: Any, rho: Any) -> Any:
    """The linear factor times 1 - 1e-6."""
    return rho**n * (1 + n * (1 + rho) * (2 - WRONG))


PROOFS = (
    Proof(
        "zhao2026.lemE.5",
        "cross-entropy is shift-invariant, symbolic K and targets",
        "proved",
        invariant_for_every_number_of_classes,
        lambda total: total,
        {"factor sum(y) dropped": lambda total: 1, "factor off by 1e-6": lambda total: total * WRONG},
    ),
    Proof(
        "zhao2026.lemE.5",
        "1^T grad_W = 0 for cross-entropy",
        "proved for K = 2..5",
        row_sum_of_gradient_vanishes,
        cross_entropy,
        {"squared error": squared_error, "factor sum(y) dropped": cross_entropy_without_factor},
    ),
    Proof(
        "zhao2026.lemE.5",
        "1^T grad_W = 0 for any function of logit differences",
        "proved for K = 2..5",
        row_sum_of_gradient_vanishes,
        any_shift_invariant,
        {"one logit weighted 1 + 1e-6": nearly_shift_invariant},
    ),
    Proof(
        "zhao2026.thm3.1",
        "g_t = (1 - eta lam)^t at every momentum, symbolic t",
        "proved",
        theorem_3_1_holds,
        Decoupled(),
        {
            "decay off by 1e-6": Decoupled(lambda n, lr, lam: row_sum.theorem_3_1(n, lr, lam * WRONG)),
            "coupled decay beside it": Decoupled(coupled=lam_c),
        },
    ),
    Proof(
        "zhao2026.thm3.2",
        "closed form through the roots, symbolic t, real and complex roots",
        "proved",
        theorem_3_2_holds,
        row_sum.theorem_3_2,
        {"decay off by 1e-6": theorem_3_2_with_more_decay, "buffer not at 0": theorem_3_2_without_buffer},
    ),
    Proof(
        "zhao2026.thm3.2.erratum",
        "corrected envelope rho^t (1 + t (1 + rho))",
        "proved",
        envelope_holds,
        row_sum.theorem_3_2_envelope,
        {
            "printed: a constant C": printed_envelope,
            "factor short by 1e-6": envelope_short_by_1e_6,
            "too large by 1e-6": lambda n, rho: row_sum.theorem_3_2_envelope(n, rho) * WRONG,
            "rho in the factor off by 1e-6": lambda n, rho: rho**n * (1 + n * (1 + WRONG * rho)),
        },
    ),
    Proof(
        "zhao2026.thm3.2.erratum",
        "no constant C at eta lam = beta = 1/4",
        "proved",
        printed_constant_is_exceeded,
        printed_envelope,
        {"corrected envelope": row_sum.theorem_3_2_envelope},
    ),
    Proof(
        "ufm.row_sum_law",
        "the one-step matrix is the update rule summed over classes; any schedule",
        "proved",
        matrix_is_the_update_rule,
        OneStep(),
        {
            "coupled decay off by 1e-6": OneStep(
                lambda lr, mu, c, d, n: row_sum.recursion_entries(lr, mu, c * WRONG, d, n)
            ),
            "Nesterov without look-ahead": OneStep(
                lambda lr, mu, c, d, n: row_sum.recursion_entries(lr, mu, c, d, False)
            ),
            "buffer in units of the rate": OneStep(buffer_in_units_of_the_rate),
            "shrink after the step": OneStep(shrunk_after=True),
        },
    ),
    Proof(
        "ufm.row_sum_law",
        "the same where the shrink comes after the step; any schedule",
        "proved",
        matrix_is_the_update_rule,
        OneStep(row_sum.entries_shrunk_after, shrunk_after=True),
        {
            "decoupled decay off by 1e-6": OneStep(
                lambda lr, mu, c, d, n: row_sum.entries_shrunk_after(lr, mu, c, d * WRONG, n), True
            ),
            "buffer not shrunk": OneStep(old_buffer_not_shrunk, True),
            "shrink before the step": OneStep(row_sum.entries_shrunk_after),
        },
    ),
    Proof(
        "ufm.row_sum_law",
        "shrink after the step = before it at eta (1 - eta lam), lam/(1 - eta lam); Adam too",
        "proved",
        shrink_after_is_before_at_other_rates,
        row_sum.rates_before,
        {
            "rates as they are": lambda lr, lam: (lr, lam),
            "decay off by 1e-6": lambda lr, lam: (
                row_sum.rates_before(lr, lam)[0],
                row_sum.rates_before(lr, lam)[1] * WRONG,
            ),
            "both rates divided": lambda lr, lam: (lr / (1 - lr * lam), lam / (1 - lr * lam)),
        },
    ),
    Proof(
        "ufm.row_sum_law",
        "mixed decay, heavy ball and Nesterov, distinct and double roots, symbolic t",
        "proved",
        law_holds,
        Law(),
        {
            "determinant off by 1e-6": Law(trace_determinant=wrong_determinant),
            "Nesterov without look-ahead": Law(trace_determinant=nesterov_without_look_ahead),
            "p_t alone": Law(from_roots=without_second_term),
            "buffer not at 0": Law(buffer=sp.Rational(1, 10**6)),
        },
    ),
    Proof(
        "ufm.stability_range",
        "Jury conditions necessary and sufficient",
        "proved",
        jury_is_necessary_and_sufficient,
        jury_conditions,
        {"determinant off by 1e-6": wrong_jury},
    ),
    Proof(
        "ufm.stability_range",
        "ranges of eta lam, every momentum",
        "proved",
        stability_range_holds,
        row_sum.stability_range,
        {
            "range off by 1e-6": range_off_by_1e_6,
            "heavy ball's range for Nesterov": heavy_ball_range_for_both,
        },
    ),
    Proof(
        "ufm.critical_momentum",
        "double root at beta*, larger spectral radius elsewhere",
        "proved",
        best_momentum_holds,
        row_sum.critical_momentum_formula,
        {"beta* off by 1e-6": best_off_by_1e_6, "heavy ball's beta* for Nesterov": heavy_ball_best_for_both},
    ),
    Proof(
        "ufm.critical_momentum",
        "slow root 1 - eta lam/(1 - beta) + O((eta lam)^2)",
        "proved",
        slow_rate_holds,
        row_sum.slow_rate,
        {
            "rate off by 1e-6": lambda lr, lam, momentum: row_sum.slow_rate(lr, lam, momentum) * WRONG,
            "1/(1 + beta)": lambda lr, lam, momentum: row_sum.slow_rate(lr, lam, -momentum),
        },
    ),
)
