"""Proofs around the Walsh basis: softmax of group matrices, the flow (5.1), the law of gaps (5.2), codes by depth.

Why softmax stays diagonal, for every m: a character is a product over the m bits of factors +-1, and on one bit
chi(g + h) = chi(g) chi(h). So sum_h f(g xor h) chi_k(h) = sum_u f(u) chi_k(u xor g) = chi_k(g) sum_u f(u) chi_k(u):
every matrix f(g xor h) is diagonal in the characters. Softmax over g takes f to exp(f(g xor h))/sum_u exp(f(u)), whose
normaliser is the same in every column: such a matrix again. SymPy shows the outcome for K = 2, 4, 8.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any, NamedTuple

import mpmath
import numpy as np
import sympy as sp

from proofs_check.algebra import WRONG
from proofs_check.proof import Proof
from ufm.initial import walsh
from ufm.theory import spectral_depth as room

z, s, w, lam, mu, eta, n, x = sp.symbols("z s w lam mu eta n x", positive=True)
K, L, r, r_z = sp.symbols("K L r r_z", positive=True)


def zero(expression: Any) -> bool:
    """Whether SymPy reduces an expression to 0; a value off 0 at one point refutes it at once."""
    expression = sp.sympify(expression)
    point = {
        name: sp.Rational(7 + 2 * i, 11) for i, name in enumerate(sorted(expression.free_symbols, key=str))
    }
    if abs(sp.N(expression.subs(point), 40)) > sp.Float("1e-30"):
        return False
    return bool(sp.simplify(expression) == 0)


class Names:
    """Symbols for exponentials and for one over every sum of them, so that what is left is a polynomial.

    exp(sum c_i v_i) with eighths c_i is written as prod x_i^(8 c_i), x_i = exp(v_i/8), so that products combine.
    """

    def __init__(self) -> None:
        self.exponentials: dict[Any, Any] = {}
        self.sums: dict[Any, Any] = {}

    def raised(self, exponent: Any) -> Any:
        """exp(exponent) in powers of symbols."""
        found = sp.Integer(1)
        for term in sp.Add.make_args(sp.expand(exponent)):
            c, v = term.as_coeff_Mul()
            name = self.exponentials.setdefault(v, sp.Symbol(f"x{len(self.exponentials)}", positive=True))
            found *= name ** (8 * c)
        return found

    def __call__(self, expression: Any) -> Any:
        """The expression in these symbols; equal sums have one symbol each."""
        raised = sp.sympify(expression).replace(
            lambda part: isinstance(part, sp.exp), lambda part: self.raised(part.args[0])
        )
        return raised.replace(
            lambda part: part.is_Pow and part.base.is_Add and part.exp.is_negative,
            lambda part: (
                self.sums.setdefault(part.base, sp.Symbol(f"q{len(self.sums)}", positive=True)) ** -part.exp
            ),
        )

    def vanishes(self, expression: Any) -> bool:
        """Whether an expression in these symbols is 0; at a point first."""
        symbols = sorted(expression.free_symbols - set(self.sums.values()), key=str)
        point = {name: sp.Rational(2 * i + 3, i + 2) for i, name in enumerate(symbols)}
        for total, inverse in self.sums.items():
            point[inverse] = 1 / total.subs({name: point.get(name, 1) for name in total.free_symbols})
        if sp.expand(expression.xreplace(point)) != 0:
            return False
        expanded = sp.expand(expression)
        for total, inverse in self.sums.items():
            powers = sp.Poly(expanded, inverse)
            degree = powers.degree()
            expanded = sp.expand(sum(c * total ** (degree - k) for (k,), c in powers.terms()))
        return bool(expanded == 0)


# ------------------------------------------------------------------------- softmax in the Walsh basis


def columns_softmax(logits: Any) -> Any:
    """Softmax of every column of a SymPy matrix."""
    raised = logits.applyfunc(sp.exp)
    return sp.Matrix(*logits.shape, lambda g, h: raised[g, h] / sum(raised[:, h]))


def orthonormal(classes: int) -> Any:
    """The Walsh basis as a SymPy matrix."""
    return sp.Matrix(walsh(classes).tolist()) / sp.sqrt(classes)


def householder(classes: int) -> Any:
    """Another orthonormal symmetric basis, I - 2 J/K."""
    return sp.eye(classes) - 2 * sp.ones(classes, classes) / classes


class Modes(NamedTuple):
    """Basis and residual as their check reads them; `tilt` is added to one logit."""

    basis: Callable[[int], Any] = orthonormal
    residual: Callable[..., Any] = room.residual
    tilt: Any = 0


def softmax_stays_diagonal(modes: Modes) -> bool:
    """V^T (softmax(V diag(z) V^T/sqrt n) - I) V sqrt(n)/N = diag(r_k), for symbolic z and n."""
    for classes in (2, 4, 8):
        V, values = modes.basis(classes), np.array(sp.symbols(f"z:{classes}", real=True))
        logits = (V * sp.diag(*values) * V.T / sp.sqrt(n)).applyfunc(sp.expand)
        logits[0, 0] += modes.tilt
        names = Names()
        P = columns_softmax(logits).applyfunc(names)
        found = V.T * (P - sp.eye(classes)) * V
        claimed = modes.residual(values, "ce", n, True, sp)
        for i, j in product(range(classes), repeat=2):
            entry = found[i, j] / (classes * sp.sqrt(n))
            if i == j:
                entry -= names(claimed[i])
            if not names.vanishes(entry):
                return False
    return True


# ------------------------------------------------------------------------------------ from chain to modes


class Step(NamedTuple):
    """Gradient by mode and the flow, as their checks read them."""

    gradient: Callable[..., Any] = room.gradient
    flow: Callable[..., Any] = room.flow


def fit_of(Z: Any, loss: str) -> Any:
    """Fit of one sample in each class at a SymPy matrix of logits, mean over samples."""
    classes = Z.shape[0]
    if loss == "mse":
        return sum(entry**2 for entry in Z - sp.eye(classes)) / (2 * classes)
    sums = [sp.log(sum(sp.exp(logit) for logit in Z[:, k])) for k in range(classes)]
    return sum(sums[k] - Z[k, k] for k in range(classes)) / classes


def gradient_is_by_mode_at(claimed: Step, classes: int, depth: int, loss: str) -> bool:
    """The fit differentiated by every entry of every block, then taken to an unbalanced diagonal state."""
    V, levels = orthonormal(classes), range(depth + 1)
    blocks = [sp.Matrix(classes, classes, sp.symbols(f"b{level}_:{classes**2}")) for level in levels]
    values = np.array([sp.symbols(f"a{level}_:{classes}", positive=True) for level in levels])
    state: dict[Any, Any] = {}
    for block, row in zip(blocks, values, strict=True):
        state |= dict(zip(block, V * sp.diag(*row) * V.T, strict=True))
    Z = blocks[0]
    for block in blocks[1:]:
        Z = block * Z
    free, names = sp.Matrix(classes, classes, sp.symbols(f"Z:{classes**2}")), Names()
    fit, here = fit_of(free, loss), dict(zip(free, Z.xreplace(state).applyfunc(sp.expand), strict=True))
    R = [names(sp.diff(fit, logit).xreplace(here)) for logit in free]

    def slope(entry: Any) -> Any:
        return sum(r * sp.diff(logit, entry).xreplace(state) for r, logit in zip(R, Z, strict=True))

    expected = claimed.gradient(values, room.residual(values.prod(axis=0), loss, 1, True, sp))
    return all(
        names.vanishes(entry)
        for block, row in zip(blocks, expected, strict=True)
        for entry in V.T * block.applyfunc(slope) * V - sp.diag(*[names(value) for value in row])
    )


def gradient_is_by_mode(claimed: Step) -> bool:
    """V^T (d fit/d block) V = diag(gradient) for every block and both losses, K = 2 at L = 1..3, K = 4 at L = 1."""
    settings = product([(2, 1), (2, 2), (2, 3), (4, 1)], ["ce", "mse"])
    return all(gradient_is_by_mode_at(claimed, *sizes, loss) for sizes, loss in settings)


def flow_is_the_limit(claimed: Step) -> bool:
    """d/d eta of (s')^{L+1} at eta = 0 is the flow at z = s^{L+1}, for symbolic L, residual and both decays."""
    blocks = sp.Symbol("l", nonnegative=True)
    slope = s ** (L - blocks) * r * s**blocks  # L - l layers above block l, l below, in every block the same
    after = room.step(s, sp.powsimp(slope), eta, lam, mu) ** (L + 1)
    rate = sp.diff(after, eta).subs(eta, 0)
    return zero(sp.powsimp(sp.expand(rate - claimed.flow(s ** (L + 1), r, L, lam + mu)), force=True))


# ------------------------------------------------------------------------------------------ the law of gaps


def residuals_move_as_the_group_says(slope: Callable[..., Any]) -> bool:
    """The shipped derivatives d r_k/d z_j are those of the shipped residual, and (p_{k xor j} - p_k p_j)/(K^2 n)."""
    for classes in (2, 4):
        values, names = np.array(sp.symbols(f"z:{classes}", real=True)), Names()
        residuals, shipped = (formula(values, "ce", n, True, sp) for formula in (room.residual, slope))
        p = [1 - names(value) for value in room.missing_spectrum(values, n, sp)]
        for k, j in product(range(classes), repeat=2):
            found = names(sp.diff(residuals[k], values[j]))
            group = group_slope(p[k ^ j], p[k], p[j], classes) / (classes * sp.sqrt(n))
            if not (names.vanishes(found - names(shipped[k, j])) and names.vanishes(found - group)):
                return False
    return True


def group_slope(of_sum: Any, one: Any, other: Any, classes: Any) -> Any:
    """d p_k/d z_j, (p_{k xor j} - p_k p_j)/(K sqrt n): softmax' = p (df - <p, df>) with df = chi_j/(K sqrt n)."""
    return (of_sum - one * other) / (classes * sp.sqrt(n))


class Law(NamedTuple):
    """(5.2) with its largest value, and the form for the squared error, as their checks read them."""

    gap: Callable[..., Any] = room.relative_gap
    peak: Callable[..., Any] = room.critical_scale
    largest: Callable[..., Any] = room.largest_gap
    mse: Callable[..., Any] = room.mse_relative_gap
    mse_peak: Callable[[Any, Any], Any] = lambda depth, per_class: (
        sp.sqrt(per_class) * (depth - 1) / (2 * depth)
    )


def growth_of_a_gap(residual: Any, of_difference: Any) -> Any:
    """d log Delta/dz beside the ray, from the flow: Delta' = (F_z + F_r dr) Delta and z' = F, Delta relative to z."""
    F = room.flow(z, r_z, L)
    change = (sp.diff(F, z) + sp.diff(F, r_z) * of_difference) / F - 1 / z
    return change.subs(r_z, residual)


def law_is_the_linearised_flow(law: Law) -> bool:
    """Symbolic K, L, n. On the ray p_k = q = 1 - w for k != 0, so that rows i and j of the Jacobian differ, at a gap
    between them, by (1 - q^2) - (q - q^2) = w times 1/(K sqrt n): the difference of their residuals is that over
    K sqrt n. The squared error's residuals differ by 1/N.
    """
    q = 1 - w
    rows = group_slope(1, q, q, K) - group_slope(q, q, q, K)
    if not zero(rows - w / (K * sp.sqrt(n))):
        return False
    start = sp.Symbol("z_0", positive=True)
    of_ce = growth_of_a_gap(-w / (K * sp.sqrt(n)), rows / (K * sp.sqrt(n)))
    ce = law.gap(z, start, K, L, n, sp)
    of_mse = growth_of_a_gap((z - sp.sqrt(n)) / (K * n), 1 / (K * n))
    mse = law.mse(z, start, L, n, sp)
    return all(
        zero(slope - sp.diff(gap, z) / gap) and zero(gap.subs(z, start) - 1)
        for slope, gap in ((of_ce, ce), (of_mse, mse))
    )


def largest_where_claimed(law: Law) -> bool:
    """With L = 1 + a: the slope of the logarithm falls at every z (below sqrt n for squared errors), through 0 at z_c.

    So the gap is largest there, and only there; its value is `largest_gap`.
    """
    a, start, missing = sp.symbols("a z_0 sqrt(n)-z", positive=True)
    for gap, peak in (
        (room.relative_gap(z, start, K, 1 + a, n, sp), law.peak(K, 1 + a, n, sp)),
        (room.mse_relative_gap(z, start, 1 + a, n, sp), law.mse_peak(1 + a, n)),
    ):
        slope = sp.simplify(sp.diff(gap, z) / gap)
        if not zero(slope.subs(z, peak)):
            return False
        bend = sp.diff(sp.apart(slope, z), z).subs(n, (z + missing) ** 2)
        if bend.is_negative is not True:
            return False
    value = room.relative_gap(law.peak(K, 1 + a, n, sp), start, K, 1 + a, n, sp)
    return zero(sp.simplify(sp.log(value / law.largest(start, K, 1 + a, n, sp)).expand(force=True)))


GAP, RAY, SHARE = (
    1e-4,
    (0.2, 14.0),
    0.005,
)  # gap at the start, scales that are passed, share of them in a step


def measured_gaps(classes: int, depth: int) -> tuple[np.ndarray, np.ndarray]:
    """Scale and relative gap of two modes at every step of GD, from the recursion."""
    start = np.full(classes, RAY[0])
    start[1:3] *= 1 + GAP / 2, 1 - GAP / 2
    values = np.tile(start ** (1 / (depth + 1)), (depth + 1, 1))
    path = room.recursion(values, room.ray_rates(classes, depth, *RAY, SHARE)).prod(axis=1)
    return np.sqrt(path[:, 1] * path[:, 2]), np.log(path[:, 1] / path[:, 2])


def law_holds_for_small_steps(law: Law) -> bool:
    """GD, K = 8, L = 1, 2, 3, 5, z from 0.2 to 14: every gap within 3e-3 of the law."""
    for depth in (1, 2, 3, 5):
        scale, gap = measured_gaps(8, depth)
        expected = law.gap(scale, scale[0], 8, depth, 1, np)
        if np.abs(gap / gap[0] / expected - 1).max() > 3e-3:
            return False
    return True


# ---------------------------------------------------------------------------------------- codes by depth


def matrices(name: str, classes: int) -> tuple[Any, Any]:
    """Matrix of a code up to a factor, in powers of x = exp(2 pi i/K), and its entry next to the diagonal."""
    if name == "simplex":
        return sp.eye(classes) - sp.ones(classes, classes) / classes, None
    if name == "pairs":
        block = sp.Matrix([[1, -1], [-1, 1]])
        return sp.diag(*[block] * (classes // 2), *[sp.ones(1, 1)] * (classes % 2)), None
    cosine = [(x**j + x ** (classes - j)) / 2 for j in range(classes)]
    return sp.Matrix(classes, classes, lambda i, j: cosine[(i - j) % classes]), cosine[1]


def codes_are_what_they_cost(code: Callable[..., Any]) -> bool:
    """Symmetric, Z prod (Z - s_i) = 0, traces of Z and Z^2, and the margin 1, exact for K = 3..10.

    The circle is calculated modulo the cyclotomic polynomial; its margins are (1 - cos(2 pi j/K))/(1 - cos(2 pi/K)),
    and cos falls from 0 to pi.
    """
    for classes, name in product(range(3, 11), room.CODES):
        modulus = sp.cyclotomic_poly(classes, x)

        def reduced(expression: Any, modulus: Any = modulus) -> Any:
            return sp.rem(sp.expand(expression), modulus, x)

        Z, next_to = matrices(name, classes)
        unit = 1 if next_to is None else 1 - sp.cos(2 * sp.pi / classes)  # the code is Z over this
        terms = [(m, sp.simplify(v * unit)) for m, v in code(name, sp.Integer(classes), sp).terms if m]
        product_of = Z
        for _, value in terms:
            product_of = (product_of * (Z - value * sp.eye(classes))).applyfunc(reduced)
        square = (Z * Z).applyfunc(reduced)
        if any(product_of) or any((Z - Z.T).applyfunc(reduced)):
            return False
        for power, matrix in ((1, Z), (2, square)):
            if reduced(matrix.trace() - sum(m * v**power for m, v in terms)) != 0:
                return False
        if next_to is None:
            margins = [Z[c, c] - Z[k, c] for c in range(classes) for k in range(classes) if k != c]
            if min(margins) != 1:
                return False
        elif reduced(Z[0, 0] - Z[1, 0] - (1 - next_to)) != 0:
            return False
    return True


def intervals(name: str, classes: int, depth: int) -> Any:
    """Enclosure of a code's cost."""
    terms = room.code(name, mpmath.iv.mpf(classes) if name == "circle" else classes, mpmath.iv).terms
    enclosed = room.Code(tuple((mpmath.iv.mpf(m), mpmath.iv.mpf(v)) for m, v in terms))
    return enclosed.cost(mpmath.iv.mpf(depth))


def cheapest_from(table: dict[int, dict[str, int]]) -> bool:
    """From which depth on, up to that of the next, each code is the cheapest, for every larger depth too.

    With p = 2/(L+1) the logarithm of the circle's cost rises with p at log q, q its singular value, that of the pairs
    at most at log 2, that of the simplex not at all. So for q > 2 both ratios, circle to pairs and pairs to simplex,
    fall with L: what is cheaper stays so, and the last first depth settles all the later ones.
    """
    with mpmath.workdps(30):
        mpmath.iv.dps = 30
        for classes, order in table.items():
            names = list(order)
            [(_, singular_value)] = room.code("circle", mpmath.iv.mpf(classes), mpmath.iv).terms
            if not singular_value.a > 2:
                return False
            for name, until in zip(names, [*list(order.values())[1:], order[names[-1]] + 2], strict=True):
                rivals = [other for other in room.CODES if other != name]
                for depth in range(order[name], until):
                    own = intervals(name, classes, depth)
                    if not all(own.b < intervals(other, classes, depth).a for other in rivals):
                        return False
    return True


def pairs_beat_the_simplex(base: Callable[[Any], Any]) -> bool:
    """(K/2) 2^{2/(L+1)} < K - 1 iff base(K)^(L+1) > 4, base = 2 (K-1)/K: K = 4 from L = 3, K >= 6 from L = 2, exact."""
    margin = sp.log(base(K)) * (L + 1) - sp.log(
        4
    )  # of the same sign as log(simplex/pairs), which is it over L + 1
    pairs = room.Code(((K / 2, 2),)).cost(L)
    difference = margin / (L + 1) - sp.log(room.code("simplex", K).cost(L) / pairs)
    if not zero(sp.expand_log(difference, force=True)):
        return False
    terms = room.code("pairs", 10).terms
    if terms[0] != (5, 2) or terms[1][0] != 0:
        return False
    if not sp.simplify(sp.diff(base(K), K)).is_positive or sp.limit(base(K), K, sp.oo) != 2:
        return False  # between base(6) and 2 for every K >= 6
    four, six = base(sp.Integer(4)), base(sp.Integer(6))
    return bool(four**3 < 4 < four**4 and six**3 > 4)


PROOFS = (
    Proof(
        "ufm.spectral_recursion",
        "softmax of V diag(z) V^T is diagonal in V with the shipped residual, symbolic z and n",
        "proved for K = 2, 4, 8",
        softmax_stays_diagonal,
        Modes(),
        {
            "one logit off by 1e-6": Modes(tilt=WRONG - 1),
            "another orthonormal basis": Modes(basis=householder),
            "residual off by 1e-6": Modes(residual=lambda *a: WRONG * room.residual(*a)),
            "1/K instead of sqrt(n)/N": Modes(residual=lambda *a: sp.sqrt(a[2]) * room.residual(*a)),
        },
    ),
    Proof(
        "ufm.spectral_recursion",
        "derivatives by every entry of every block, unbalanced values, both losses; L = 1..3, 1 for K = 4",
        "proved for K = 2, 4",
        gradient_is_by_mode,
        Step(),
        {
            "off by 1e-6": Step(gradient=lambda a, slopes: WRONG * room.gradient(a, slopes)),
            "the block itself among the factors": Step(
                gradient=lambda a, slopes: a * room.gradient(a, slopes)
            ),
        },
    ),
    Proof(
        "ufm.spectral_flow",
        "(5.1) is the limit of steps, symbolic L, coupled and decoupled decay",
        "proved",
        flow_is_the_limit,
        Step(),
        {
            "L instead of L + 1 factors": Step(
                flow=lambda z, r, L, lam: room.flow(z, r, L, lam) * L / (L + 1)
            ),
            "exponent 2 (L-1)/L of a chain of L factors": Step(
                flow=lambda z, r, L, lam: -(L + 1) * (z ** (2 * (L - 1) / L) * r + lam * z)
            ),
            "decay off by 1e-6": Step(flow=lambda z, r, L, lam: room.flow(z, r, L, WRONG * lam)),
        },
    ),
    Proof(
        "ufm.depth_repulsion",
        "d r_k/d z_j = (p_{k xor j} - p_k p_j)/(K^2 n), symbolic n",
        "proved for K = 2, 4",
        residuals_move_as_the_group_says,
        room.residual_slope,
        {
            "off by 1e-6": lambda *a: WRONG * room.residual_slope(*a),
            "one sample per class": lambda z, loss, per_class, *a: room.residual_slope(z, loss, 1, *a),
        },
    ),
    Proof(
        "ufm.depth_repulsion",
        "(5.2) and its form for the squared error are the flow to first order in the gap, symbolic K, L, n",
        "proved",
        law_is_the_linearised_flow,
        Law(),
        {
            "exponent off by 1e-6": Law(
                gap=lambda z, a, *rest: (z / a) ** (WRONG - 1) * room.relative_gap(z, a, *rest)
            ),
            "exp(-z/K) for every n": Law(gap=lambda z, a, K, L, n, xp: room.relative_gap(z, a, K, L, 1, xp)),
            "exponent of a chain of L factors": Law(
                gap=lambda z, a, K, L, n, xp: room.relative_gap(z, a, K, L - 1, n, xp)
            ),
            "squared error without its end": Law(
                mse=lambda z, a, L, n, xp: (z / a) ** room.repulsion_exponent(L)
            ),
        },
    ),
    Proof(
        "ufm.depth_repulsion",
        "gaps are largest at z_c, by the shipped factor, symbolic K, n and L > 1",
        "proved",
        largest_where_claimed,
        Law(),
        {
            "z_c off by 1e-6": Law(peak=lambda *a: WRONG * room.critical_scale(*a)),
            "(z_c/(e z_0))^a alone": Law(
                largest=lambda start, K, L, n, xp: (
                    (room.critical_scale(K, L, n, xp) / start / xp.E) ** room.repulsion_exponent(L)
                )
            ),
            "squared error: (L-1)/(2L+1)": Law(mse_peak=lambda L, n: sp.sqrt(n) * (L - 1) / (2 * L + 1)),
        },
    ),
    Proof(
        "ufm.depth_repulsion",
        "GD at gaps of 1e-4 within 3e-3 of (5.2), z = .2..14, K = 8, L = 1, 2, 3, 5",
        "measured",
        law_holds_for_small_steps,
        Law(),
        {
            "exponent off by 0.01": Law(
                gap=lambda z, a, *rest: (z / a) ** 0.01 * room.relative_gap(z, a, *rest)
            ),
            "K off by 1 %": Law(gap=lambda z, a, K, *rest: room.relative_gap(z, a, 1.01 * K, *rest)),
        },
    ),
    Proof(
        "ufm.margin_codes",
        "singular values and unit margin of simplex, pairs and circle",
        "proved for K = 3..10",
        codes_are_what_they_cost,
        room.code,
        {
            "circle off by 1e-6": lambda name, K, xp: (
                room.Code(tuple((m, v * WRONG) for m, v in room.code(name, K, xp).terms))
                if name == "circle"
                else room.code(name, K, xp)
            ),
            "no single class for odd K": lambda name, K, xp: (
                room.Code(((K // 2, 2), (0, 1))) if name == "pairs" else room.code(name, K, xp)
            ),
            "K modes of the simplex": lambda name, K, xp: (
                room.Code(((K, 1),)) if name == "simplex" else room.code(name, K, xp)
            ),
        },
    ),
    Proof(
        "ufm.margin_codes",
        "even K: pairs beat the simplex iff (2(K-1)/K)^(L+1) > 4; K = 4 from L = 3, K >= 6 from L = 2",
        "proved",
        pairs_beat_the_simplex,
        lambda K: 2 * (K - 1) / K,
        {
            "base off by 1e-6": lambda K: 2 * (K - 1) / K * WRONG,
            "K modes of the simplex": lambda K: 2 * K / K,
        },
    ),
    Proof(
        "ufm.margin_codes",
        "from which depth each code is the cheapest of the three, K = 5..10 and 16",
        "certified",
        cheapest_from,
        {
            5: {"simplex": 1, "circle": 3},
            6: {"simplex": 1, "pairs": 2, "circle": 5},
            7: {"simplex": 1, "pairs": 2, "circle": 4},
            8: {"simplex": 1, "pairs": 2, "circle": 5},
            9: {"simplex": 1, "pairs": 2, "circle": 5},
            10: {"simplex": 1, "pairs": 2, "circle": 5},
            16: {"simplex": 1, "pairs": 2, "circle": 5},
        },
        {
            "circle from L = 4 at K = 10": {10: {"simplex": 1, "pairs": 2, "circle": 4}},
            "circle from L = 6 at K = 10": {10: {"simplex": 1, "pairs": 2, "circle": 6}},
            "pairs from L = 1 at K = 10": {10: {"pairs": 1, "circle": 5}},
            "the simplex at L = 2, K = 6": {6: {"simplex": 1, "pairs": 3, "circle": 5}},
        },
    ),
)
