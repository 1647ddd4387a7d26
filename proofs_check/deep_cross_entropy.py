"""Proofs for deep cross-entropy: critical scales, opposed pairs below neural collapse, and the refuted ETF theorem."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import sympy as sp
from mpmath import iv

import ufm
from proofs_check.algebra import WRONG, squares
from proofs_check.proof import Proof
from ufm.solutions import low_rank
from ufm.theory import deep_cross_entropy as theory
from ufm.theory.deep_collapse import geometric_decay

K, L, c, decay = sp.symbols("K L c Lam", positive=True)

# ---------------------------------------------------------------------------------- patterns, written out


class Pattern(NamedTuple):
    """Fit and cost as their checks read them."""

    fit: Callable[..., Any] = theory.fit
    cost: Callable[..., Any] = theory.cost
    relu_constant: Callable[..., Any] = theory.relu_constant


def pairs(classes: int) -> sp.Matrix:
    """X, with a 1 for the class left over."""
    blocks = [sp.Matrix([[1, -1], [-1, 1]])] * (classes // 2) + [sp.ones(1, 1)] * (classes % 2)
    return sp.diag(*blocks)


def pattern(classes: int, state: str) -> sp.Matrix:
    """P, the class means of the logits at scale 1."""
    return sp.eye(classes) - sp.ones(classes, classes) / classes if state == "dnc" else pairs(classes)


def fits_and_linear_costs(statement: Pattern) -> bool:
    """Softmax of the explicit logits c P, and sum of the singular values of P to the power 2/(L+1), K = 4..7."""
    for classes in range(4, 8):
        for state in theory.STATES:
            P, odd = pattern(classes, state), classes % 2 == 1
            wrong = [
                sum(sp.exp(c * (P[j, k] - P[k, k])) for j in range(classes) if j != k) for k in range(classes)
            ]
            value = sum(sp.log(1 + w) for w in wrong) / classes
            exact = sp.Integer(classes)
            if sp.expand(sp.expand_log(value - statement.fit(c, exact, state, odd, sp))) != 0:
                return False
            spectrum = P.eigenvals()  # symmetric and >= 0
            schatten = sum(m * s ** (2 / (L + 1)) for s, m in spectrum.items() if s != 0)
            if sp.simplify(schatten - statement.cost(exact, L, state, "identity", odd)) != 0:
                return False
    return True


def relu_costs(statement: Pattern) -> bool:
    """Under ReLU: no entry below 0, output 2^(L-1) X or S, and the product of the squared norms, K = 4, 6, 8.

    The pair of H and W_1 costs the square of the nuclear norm of its product.
    """
    for classes in (4, 6, 8):
        one, J = sp.eye(classes), sp.ones(classes, classes)
        X, S, exact = pairs(classes), pattern(classes, "dnc"), sp.Integer(classes)
        for state, (features, between, last), grows in (
            ("dnc", (one, one, S), 1),
            ("low_rank", (X + J, X + 2 * J / classes, X), 2),
        ):
            nuclear = sum(abs(value) * m for value, m in features.eigenvals().items())
            for depth in range(2, 6):
                means = features
                for _ in range(depth - 2):
                    means = between * means
                    if any(x < 0 for x in means):
                        return False
                output = last * means / grows ** (depth - 1)
                if output != last:
                    return False
                norms = (
                    nuclear**2 * squares(between) ** (depth - 2) * squares(last) / grows ** (2 * depth - 2)
                )
                if norms != statement.relu_constant(exact, depth, state):
                    return False
    return True


# ------------------------------------------------------------------------------------------ critical scales


class Critical(NamedTuple):
    """Objective and critical decay as their check reads them."""

    objective: Callable[..., Any] = theory.objective
    decay: Callable[..., Any] = theory.critical_decay


def critical_scales(critical: Critical) -> bool:
    """dF/dc is a positive multiple of Lam - critical Lam for every pattern, symbolic K, L; and the printed forms."""
    for state, activation, odd in (
        ("dnc", "identity", False),
        ("low_rank", "identity", False),
        ("low_rank", "identity", True),
        ("dnc", "relu", False),
        ("low_rank", "relu", False),
    ):
        slope = sp.diff(critical.objective(c, K, L, decay, state, activation, odd, sp), c)
        price = theory.cost(K, L, state, activation, odd) * c ** (2 / (L + 1) - 1)
        at = critical.decay(c, K, L, state, activation, odd, sp)
        if sp.simplify(sp.diff(slope, decay) / price) != 1 or not vanishes(
            sp.powsimp(at * price) + slope.subs(decay, 0)
        ):
            return False
    power = c ** ((L - 1) / (L + 1))
    single = power / (sp.exp(c) + K - 1)
    wrong = sp.exp(-2 * c) + (K - 2) * sp.exp(-c)
    paired = power * 2 ** (-2 / (L + 1)) / (K / 2) * (wrong + sp.exp(-2 * c)) / (1 + wrong)
    return all(
        vanishes(sp.powsimp(critical.decay(c, K, L, state, "identity", False, sp) / printed) - 1)
        for state, printed in (("dnc", single), ("low_rank", paired))
    )


def vanishes(expression: Any) -> bool:
    """A rational function of exp(-c) and K is 0."""
    E = sp.Symbol("E", positive=True)
    gathered = expression.replace(lambda e: e.is_Pow and e.base == c, lambda e: c ** sp.simplify(e.exp))
    rational = gathered.subs({sp.exp(c): 1 / E, sp.exp(-c): E, sp.exp(-2 * c): E**2})
    return bool(sp.cancel(sp.together(rational)) == 0)


def background_exponent(scale: Any, classes: Any, depth: Any, *arguments: Any) -> Any:
    """The Schatten exponent 2/L of the paper's background section, where the product has one factor less."""
    return theory.objective(scale, classes, depth - 1, *arguments)


# ---------------------------------------------------------------------------------- pairs against collapse


class Comparison(NamedTuple):
    """Theorem 1 as its check reads it."""

    cheaper: Callable[[int, int], bool] = theory.theorem_1
    least: Mapping[int, int] = {2: 6, 3: 4}  # smallest K by depth; from the last depth on it stays
    fit: Callable[..., Any] = theory.fit


def pairs_fit_better(fit: Callable[..., Any]) -> bool:
    """At one scale c > 0 the paired logarithm is smaller: the arguments differ by e^-c (1 - e^-c); odd K averages."""
    single, paired, mixed = (
        fit(c, K, state, odd, sp) for state, odd in (("dnc", False), ("low_rank", False), ("low_rank", True))
    )
    gap = sp.expand(sp.exp(single) - sp.exp(paired))
    if sp.expand(gap - sp.exp(-c) + sp.exp(-2 * c)) != 0:
        return False
    return bool(sp.simplify(mixed - ((K - 1) * paired + single) / K) == 0)


def theorem_1_holds(statement: Comparison) -> bool:
    """Fit and penalty are both smaller; the penalty's condition in integers, for all K and L.

    Even K = 2m: m 2^p against 2m - 1, odd K = 2m + 1: m 2^p + 1 against 2m, p = 2/(L+1); so 4 < q^(L+1) with
    q = (2m - 1)/m, which rises with m from 1 (m = 1) to 2: never for L = 1 or m = 1; q = 3/2 for m = 2, 5/3 for m = 3,
    and q > 1 makes it monotone in L.
    """
    if not pairs_fit_better(statement.fit):
        return False
    m = sp.Symbol("m", positive=True)

    def q(m: Any) -> Any:
        return 2 - 1 / m

    for odd in (False, True):
        classes = 2 * m + (1 if odd else 0)
        low, high = (theory.cost(classes, L, state, "identity", odd) for state in ("low_rank", "dnc"))
        if sp.simplify(low - high - m * (4 ** (1 / (L + 1)) - q(m))) != 0:
            return False
    if not (sp.diff(q(m), m).is_positive and sp.limit(q(m), m, sp.oo) == 2 and q(1) == 1):
        return False
    two, three = q(sp.Integer(2)), q(sp.Integer(3))
    if not (two**3 < 4 < two**4 and three**3 > 4):
        return False  # L = 2: from m = 3 on; L = 3 and so every larger L: from m = 2 on
    deepest = max(statement.least)
    return all(
        statement.cheaper(classes, depth) == (depth >= 2 and classes >= statement.least[min(depth, deepest)])
        for classes in range(2, 31)
        for depth in range(1, 13)
    )


def etf_is_not_optimal(case: tuple[int, int]) -> bool:
    """Exact: for these K and L, at DNC's own scale, whatever it is, pairs have a smaller fit and a smaller penalty."""
    classes, depth = case
    m = classes // 2
    return pairs_fit_better(theory.fit) and 4 * m ** (depth + 1) < (2 * m - 1) ** (depth + 1)


class Instance(NamedTuple):
    """One problem with equal decays."""

    classes: int
    depth: int
    per_class: int
    lam: float


def certified_below_dnc(instance: Instance) -> bool:
    """Interval arithmetic: an explicit state has a smaller objective than c S at every scale c."""
    problem = ufm.DUFM(
        instance.classes,
        instance.classes,
        instance.depth,
        per_class=instance.per_class,
        activation="identity",
        loss="ce",
    )
    state = low_rank(problem, ufm.Coupled(instance.lam))
    value = enclosed_objective(problem, {block: state[block] for block in problem.blocks}, instance.lam)
    return dnc_above(instance, value.b)


def enclosed_objective(problem: Any, blocks: Mapping[str, np.ndarray], lam: float) -> Any:
    """Interval that holds the objective of a linear chain at these very float64 matrices."""
    product = rows_of(blocks["H"])
    for layer in range(1, problem.depth + 1):
        product = times(rows_of(blocks[f"W{layer}"]), product)
    labels, N = problem.labels, problem.samples
    fit = iv.mpf(0)
    for i, label in enumerate(labels):
        fit += iv.log(sum((iv.exp(row[i] - product[label][i]) for row in product), iv.mpf(0)))
    squares = sum((iv.mpf(float(x)) ** 2 for block in blocks.values() for x in block.flat), iv.mpf(0))
    return fit / N + iv.mpf(lam) / 2 * squares


def rows_of(matrix: np.ndarray) -> list[list[Any]]:
    """Rows of a matrix as intervals; float64 numbers are held exactly."""
    return [[iv.mpf(float(x)) for x in row] for row in matrix]


def times(left: list[list[Any]], right: list[list[Any]]) -> list[list[Any]]:
    """Product of two matrices of intervals, zeros left out."""
    return [
        [
            sum((a * row[j] for a, row in zip(line, right, strict=True) if a != 0 and row[j] != 0), iv.mpf(0))
            for j in range(len(right[0]))
        ]
        for line in left
    ]


def dnc_above(instance: Instance, value: Any) -> bool:
    """Whether F(c S) > value for every c >= 0: fit falls and penalty rises, so each interval of c has a lower bound."""
    classes, depth, n, lam = (iv.mpf(number) for number in instance)
    decay = geometric_decay(lam, [lam] * instance.depth, n, iv)

    def penalty(scale: float) -> Any:
        return theory.penalty(iv.mpf(scale), classes, depth, decay, "dnc") if scale else iv.mpf(0)

    def fit(scale: float) -> Any:
        return theory.fit(iv.mpf(scale), classes, "dnc", xp=iv)

    top = 1.0
    while not (penalty(top).a > value):
        top *= 2
    waiting = [(0.0, top)]
    for _ in range(2000):
        if not waiting:
            return True
        low, high = waiting.pop()
        if (fit(high) + penalty(low)).a > value:
            continue
        middle = (low + high) / 2
        if (fit(middle) + penalty(middle)).b <= value:
            return False
        waiting += [(low, middle), (middle, high)]
    return False


# ------------------------------------------------------------------------------------------------- ReLU


class Relu(NamedTuple):
    """A threshold under ReLU as its check reads it: smallest even K by depth, None where there is none."""

    least: Mapping[int, int | None]
    difference: Callable[[Any, int], Any]
    holds: Callable[[int, int], bool]


def cheaper_than_linear_dnc(classes: Any, depth: int) -> Any:
    """(K-1)^(L+1) - C^(L+1) of the pairs under ReLU."""
    return (classes - 1) ** (depth + 1) - theory.relu_constant(classes, depth, "low_rank")


def cheaper_than_relu_dnc(classes: Any, depth: int) -> Any:
    """C^(L+1) of the ReLU DNC - that of the pairs."""
    return theory.relu_constant(classes, depth, "dnc") - theory.relu_constant(classes, depth, "low_rank")


def printed_theorem_7(printed: Callable[[Any, Any], Any]) -> bool:
    """The printed inequality is C(pairs, ReLU) < K - 1: the quotients of the sides agree; symbolic K and L."""
    classes = sp.Symbol("Q", positive=True) - 2  # K + 2 stays one factor
    left, right = printed(classes, L)
    sides = sp.log(left) - sp.log(right)
    costs = sp.log(theory.relu_constant(classes, L, "low_rank")) / (L + 1) - sp.log(classes - 1)
    return bool(sp.simplify(sp.expand((L + 1) * sp.expand_log(sides - costs, force=True))) == 0)


def theorem_7_sides(classes: Any, depth: Any, power: Any = 3) -> tuple[Any, Any]:
    """2(K+2)/(K-1) and 2^(2(L-1)/(L+1)) ((K+2)/K)^(3/(L+1))."""
    left = 2 * (classes + 2) / (classes - 1)
    return left, 2 ** (2 * (depth - 1) / (depth + 1)) * ((classes + 2) / classes) ** (power / (depth + 1))


def relu_thresholds(relu: Relu) -> bool:
    """Smallest even K by depth: below it the polynomial is <= 0 at every even K, from it on every coefficient is > 0.

    The coefficients are those in K - least; none at all: those of the negative polynomial in K - 4.
    """
    for depth, least in relu.least.items():
        start, sign = (4, -1) if least is None else (least, 1)
        polynomial = sp.Poly(sp.expand(sign * relu.difference(K, depth).subs(K, K + start)), K)
        if any(coefficient < 0 for coefficient in polynomial.all_coeffs()) or polynomial.eval(0) <= 0:
            return False
        for classes in range(4, 41, 2):
            exact = bool(relu.difference(sp.Integer(classes), depth) > 0)
            if exact != (least is not None and classes >= least) or exact != relu.holds(classes, depth):
                return False
    return True


def relu_pairs_all_depths(relu: Relu) -> bool:
    """`relu_thresholds`, and from the last depth on: one layer more multiplies the quotient by (K+2)/(2K) < 1."""
    if not relu_thresholds(relu):
        return False
    quotient = theory.relu_constant(K, L, "low_rank") / theory.relu_constant(K, L, "dnc")
    layer = sp.simplify(quotient.subs(L, L + 1) / quotient)
    return bool(sp.simplify(layer - (K + 2) / (2 * K)) == 0) and relu.least[max(relu.least)] == 4


SEVEN = Relu({3: None, 4: 14, 5: 10, 6: 8, 7: 8}, cheaper_than_linear_dnc, theory.theorem_7)
OWN = Relu({2: None, 3: None, 4: 8, 5: 6, 6: 4}, cheaper_than_relu_dnc, theory.relu_low_rank_wins)

PROOFS = (
    Proof(
        "ufm.deep_cross_entropy",
        "fits and linear costs of explicit patterns, symbolic scale and L",
        "proved for K = 4..7",
        fits_and_linear_costs,
        Pattern(),
        {
            "fit's K off by 1e-6": Pattern(fit=lambda s, K, *a: theory.fit(s, K * WRONG, *a)),
            "cost off by 1e-6": Pattern(cost=lambda *a: theory.cost(*a) * WRONG),
            "odd K without its last class": Pattern(
                cost=lambda K, L, state, activation, odd: (
                    theory.cost(K, L, state, activation, odd) - (1 if odd and state == "low_rank" else 0)
                )
            ),
        },
    ),
    Proof(
        "ufm.deep_cross_entropy",
        "ReLU costs of explicit layers, L = 2..5",
        "proved for K = 4, 6, 8",
        relu_costs,
        Pattern(),
        {
            "constant off by 1e-6": Pattern(relu_constant=lambda *a: theory.relu_constant(*a) * WRONG),
            "linear constant for DNC": Pattern(
                relu_constant=lambda K, L, state: (
                    (K - 1) ** (L + 1) if state == "dnc" else theory.relu_constant(K, L, state)
                )
            ),
        },
    ),
    Proof(
        "ufm.deep_cross_entropy",
        "critical scales of all patterns, symbolic K, L, Lam; eq. 19",
        "proved",
        critical_scales,
        Critical(),
        {
            "critical decay off by 1e-6": Critical(decay=lambda *a: theory.critical_decay(*a) * WRONG),
            "exponent 2/L": Critical(objective=background_exponent),
        },
    ),
    Proof(
        "garrod2025.thm1",
        "smaller fit and penalty at DNC's own scale, all K, L, n and decays",
        "proved",
        theorem_1_holds,
        Comparison(),
        {
            "K >= 4 for L = 2": Comparison(least={2: 4, 3: 4}),
            "K >= 3": Comparison(least={2: 6, 3: 3}),
            "2^(2/L)": Comparison(cheaper=lambda K, L: theory.theorem_1(K, L - 1)),
            "partner at the same gap": Comparison(
                fit=lambda s, K, state, odd, xp: theory.fit(s, K, "dnc", xp=xp)
            ),
        },
    ),
    Proof(
        "garrod2025.thm7",
        "the printed inequality is C(pairs) < K - 1, symbolic K, L",
        "proved",
        printed_theorem_7,
        theorem_7_sides,
        {
            "exponent 2/(L+1)": lambda K, L: theorem_7_sides(K, L, 2),
            "left side off by 1e-6": lambda K, L: (
                theorem_7_sides(K, L)[0] * WRONG,
                theorem_7_sides(K, L)[1],
            ),
        },
    ),
    Proof(
        "garrod2025.thm7",
        "smallest even K for L = 3..7: none, 14, 10, 8, 8; all even K",
        "proved",
        relu_thresholds,
        SEVEN,
        {
            "12 for L = 4": SEVEN._replace(least={4: 12}),
            "16 for L = 4": SEVEN._replace(least={4: 16}),
            "some for L = 3": SEVEN._replace(least={3: 40}),
        },
    ),
    Proof(
        "ufm.relu_pairs",
        "smallest even K for every L: none up to 3, then 8, 6, 4, 4, ...",
        "proved",
        relu_pairs_all_depths,
        OWN,
        {
            "theorem 7's table": OWN._replace(least={4: 14, 5: 10, 6: 8}),
            "6 for L = 4": OWN._replace(least={4: 6, 6: 4}),
            "K >= 4 from L = 5 on": OWN._replace(least={5: 4}),
        },
    ),
    Proof(
        "dang2023.deep_ce.erratum",
        "K = 4, L = 3: at DNC's own scale pairs are better, 64 < 81",
        "proved",
        etf_is_not_optimal,
        (4, 3),
        {"K = 4, L = 2": (4, 2), "K = 3, L = 3": (3, 3), "K = 10, L = 1": (10, 1)},
    ),
    Proof(
        "dang2023.deep_ce.erratum",
        "an explicit state below every ETF: K = 4, L = 3, lam = 2^-10",
        "certified",
        certified_below_dnc,
        Instance(4, 3, 1, 2.0**-10),
        {"L = 2": Instance(4, 2, 1, 2.0**-10)},
    ),
    Proof(
        "dang2023.deep_ce.erratum",
        "an explicit state below every ETF: K = 10, L = 2, n = 5, lam = 2^-10",
        "certified",
        certified_below_dnc,
        Instance(10, 2, 5, 2.0**-10),
        {"L = 1": Instance(10, 1, 5, 2.0**-10)},
    ),
)
