"""Proofs around the SRG states: spectra, product constants, scales, designs, ranks, and where DNC is beaten."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import sympy as sp
from sympy.polys.domains import QQ
from sympy.polys.matrices import DomainMatrix

from proofs_check.algebra import WRONG, equal_powers
from proofs_check.proof import Proof
from ufm.theory import deep_collapse
from ufm.theory import strongly_regular_graph as graph

EXPLICIT = range(4, 8)  # vertices of the graphs that are written out: K = 6, 10, 15, 21

# ------------------------------------------------------------------------------------ relations of edges


class Spectra(NamedTuple):
    """Eigenvalues as their check reads them."""

    relations: Callable[[Any], Any] = graph.relation_eigenvalues
    incidence: Callable[..., Any] = graph.incidence_spectrum


def relations(r: int) -> tuple[sp.Matrix, sp.Matrix, sp.Matrix]:
    """B, and the adjacency matrices of sharing a vertex and of being disjoint, counted from the vertices alone."""
    B = sp.Matrix(graph.incidence(r))
    edges = list(combinations(range(r), 2))
    shared = [[len({*e} & {*f}) for f in edges] for e in edges]
    A1, A2 = (sp.Matrix([[int(s == count) for s in row] for row in shared]) for count in (1, 0))
    return B, A1, A2


def explicit_spectra(spectra: Spectra) -> bool:
    """B B^T = (r-2) I + J, B^T B = 2 I + A1, A1^2 = 2(r-2) I + (r-2) A1 + 4 A2, and all characteristic polynomials."""
    x = sp.Symbol("x")
    for r in EXPLICIT:
        B, A1, A2 = relations(r)
        K = B.cols
        by_vertex, by_edge = B * B.T, B.T * B
        if by_vertex != (r - 2) * sp.eye(r) + sp.ones(r, r) or by_edge != 2 * sp.eye(K) + A1:
            return False
        relation = 2 * (r - 2) * sp.eye(K) + (r - 2) * A1 + 4 * A2 - A1 * A1
        if any(relation) or A1 + A2 + sp.eye(K) != sp.ones(K, K):
            return False
        of_relations = spectra.relations(sp.Integer(r))
        of_B = [(value**2, m) for value, m in spectra.incidence(sp.Integer(r), sp)]
        for matrix, claimed in (
            (A1, [(a1, m) for a1, _, m in of_relations]),
            (A2, [(a2, m) for _, a2, m in of_relations]),
            (B * B.T, of_B),
        ):
            polynomial = DomainMatrix.from_Matrix(matrix).convert_to(QQ).charpoly()
            product = sp.Poly(sp.prod([(x - value) ** m for value, m in claimed]), x)
            if sp.Poly(polynomial, x) != product:
                return False
    return True


def symbolic_spectra(spectra: Spectra) -> bool:
    """For symbolic r the eigenvalues solve the relations' equations, and the multiplicities their traces.

    Given A1^2 = 2(r-2) I + (r-2) A1 + 4 A2 and I + A1 + A2 = J: on 1 the eigenvalues are the degrees, off it
    1 + a1 + a2 = 0 and a1^2 = 2(r-2) + (r-2) a1 + 4 a2, a quadratic; tr I = K and tr A1 = 0 leave one choice of
    multiplicities. The singular values of B are the square roots of 2 + a1 where that is not 0.
    """
    r = sp.Symbol("r", positive=True)
    K = graph.classes_of(r)
    found = spectra.relations(r)
    for index, (a1, a2, _) in enumerate(found):
        rest = 1 + a1 + a2 - (K if index == 0 else 0)
        if sp.expand(rest) != 0 or sp.expand(a1**2 - 2 * (r - 2) - (r - 2) * a1 - 4 * a2) != 0:
            return False
    if len({sp.expand(a1) for a1, _, _ in found}) != 3 or found[0][2] != 1:
        return False
    if sp.expand(sum(m for *_, m in found) - K) != 0 or sp.expand(sum(a1 * m for a1, _, m in found)) != 0:
        return False
    singular = [(sp.expand(value**2), sp.expand(m)) for value, m in spectra.incidence(r, sp)]
    return singular == [(sp.expand(2 + a1), sp.expand(m)) for a1, _, m in found[:2]] and found[2][0] == -2


def eigenvalue_off(r: Any) -> Any:
    """r - 4 off by 1e-6."""
    one, (a1, a2, m), three = graph.relation_eigenvalues(r)
    return one, (a1 * WRONG + sp.Rational(1, 10**6), a2, m), three


def multiplicities_swapped(r: Any) -> Any:
    """Multiplicities of the last two eigenspaces exchanged."""
    one, (a1, a2, m), (b1, b2, k) = graph.relation_eigenvalues(r)
    return one, (a1, a2, k), (b1, b2, m)


def singular_value_off(r: Any, xp: Any) -> Any:
    """sqrt(r-2) off by 1e-6."""
    one, (value, m) = graph.incidence_spectrum(r, xp)
    return one, (value * WRONG, m)


# ------------------------------------------------------------------------------------- the last two layers


class LastLayers(NamedTuple):
    """The last two layers as their checks read them."""

    constant: Callable[[Any, str], Any] = graph.last_layers
    spectrum: Callable[[Any, Any], Any] = graph.subset_spectrum
    other_sign: int = -1


def relu(matrix: sp.Matrix) -> sp.Matrix:
    """Entries below 0 become 0."""
    return matrix.applyfunc(lambda x: sp.Max(x, 0))


def inverse_square_norm(matrix: sp.Matrix) -> Any:
    """Squared Frobenius norm of the inverse of a rational matrix."""
    inverse = DomainMatrix.from_Matrix(matrix).convert_to(QQ).inv().to_Matrix()
    return sum(x**2 for x in inverse)


def explicit_neurons(last: LastLayers) -> bool:
    """Neurons +-1/2 of vertices: s(M_L) is I or A2, and the product of the two norms is (K r/4) nu."""
    for r in EXPLICIT:
        B, _, A2 = relations(r)
        neurons = sp.Matrix(B.cols, r, lambda e, v, B=B: sp.Rational(1 if B[v, e] else last.other_sign, 2))
        for variant, sign, output in (("identity", 1, sp.eye(B.cols)), ("kneser", -1, A2)):
            if relu(sign * neurons * B) != output:
                return False
            norms = sum(x**2 for x in neurons) * inverse_square_norm(output)
            if norms != last.constant(sp.Integer(r), variant):
                return False
    return True


def designs_contain_variants(last: LastLayers) -> bool:
    """(K r/4) nu = tr M^{-1} at s = 2 and at s = r - 2, symbolic r."""
    r = sp.Symbol("r", positive=True)
    pairs = (("identity", sp.Integer(2)), ("kneser", r - 2))
    return all(
        sp.simplify(last.constant(r, variant) - graph.inverse_trace(last.spectrum(r, s))) == 0
        for variant, s in pairs
    )


def explicit_designs(last: LastLayers) -> bool:
    """Gram matrix of the outputs of all s-subsets, r = 4..7 and s = 2..r: its three entries give the eigenvalues."""
    for r in EXPLICIT:
        edges = list(combinations(range(r), 2))
        first = edges.index((0, 1))
        others = edges.index((0, 2)), edges.index((2, 3))
        for s in range(2, r + 1):
            subsets = list(combinations(range(r), s))
            unit = sp.sqrt(sp.Rational(1, len(subsets) * r))
            outputs = [
                [
                    sp.Max(0, sum(1 if vertex in chosen else last.other_sign for vertex in edge)) * unit
                    for edge in edges
                ]
                for chosen in subsets
            ]
            c0, c1, c2 = (sum(row[first] * row[e] for row in outputs) for e in (first, *others))
            claimed = last.spectrum(sp.Integer(r), sp.Integer(s))
            for (a1, a2, m), (value, multiplicity) in zip(
                graph.relation_eigenvalues(sp.Integer(r)), claimed, strict=True
            ):
                if m != multiplicity or sp.expand(c0 + a1 * c1 + a2 * c2 - value) != 0:
                    return False
    return True


def best_designs_are_optimal(design: Callable[[int], dict[Any, Any]]) -> bool:
    """The optimality condition in exact rationals, r = 4..12, every size s = 2..r.

    tr M^{-1} is convex in M and M linear in the weights, so a mixture is the best one iff its derivative towards each
    size, tr M^{-1} - tr(M^{-1} M_s M^{-1}), is nowhere below 0.
    """
    for r in range(4, 13):
        weights = {sp.Integer(s): sp.Rational(weight) for s, weight in design(r).items()}
        if sum(weights.values()) != 1:
            return False
        sizes = [sp.Integer(s) for s in range(2, r + 1)]
        if max(graph.design_directions(sp.Integer(r), weights, sizes).values()) > 1:
            return False
    return True


# ------------------------------------------------------------------------------------------------- scales


class Scales(NamedTuple):
    """Spread and strength as their check reads them."""

    spread: Callable[[Any, Any], Any] = graph.block_spread
    strength: Callable[..., Any] = graph.feature_strength
    pair: Any = 1  # what multiplies the penalty of W_1 and H


def penalty(depth: int, pair: Any) -> tuple[Any, ...]:
    """Shares of the blocks as functions of the scales a, c_l, t: each is rate times squared norm."""
    a, t, n, lam_H, S, p, T = sp.symbols("a t n lam_H S p T", positive=True)
    rates = sp.symbols(f"lam_1:{depth + 1}", positive=True)
    copies = sp.symbols(f"c_2:{depth - 1}", positive=True)
    block = graph.Block(sp.Symbol("K_b", positive=True), p, S, ((1 / T, 1),))
    # W_1 H = a B (x) 1^T costs sqrt(n lam_H lam_1) a ||B||_* at least, in two equal halves
    first = pair * sp.sqrt(n * lam_H * rates[0]) * a * S
    middle = [rate * p * c**2 for rate, c in zip(rates[1:-2], copies, strict=True)]
    scale = a * sp.prod(copies) * t
    return block, (n, lam_H, rates), (a, *copies, t), [first, first, *middle, rates[-2] * t**2], scale


def even_shares_are_best(scales: Scales) -> bool:
    """Least penalty at output x I: (L+1)/2 D Lam x^(2/(L+1)), and of all but the last layer (L/2) Q s^(2/L).

    A sum of exponentials in the logarithms of the scales is convex, so where its gradient vanishes is its minimum. A
    share is half of what the block adds twice over; L = 3..5, symbolic rates, n, features, neurons and x.
    """
    x, s = sp.symbols("x s", positive=True)
    for depth in range(3, 6):
        block, (n, lam_H, rates), free, before, scale = penalty(depth, scales.pair)
        T = 1 / block.spectrum[0][0]
        shares = [*before, rates[-1] * T * x**2 / scale**2]
        total = sum(shares) / 2
        factors = sp.Integer(depth + 1)
        decay = deep_collapse.geometric_decay(lam_H, rates, n, sp)
        claimed = decay * scales.spread(block, sp.Integer(depth)) * x ** (2 / factors)
        at = solve_shares(before, free, claimed)
        if not (
            all(equal_powers(share.subs(at), claimed) for share in shares)
            and stationary(total, free, at, claimed)
        ):
            return False
        # all but the last layer, at a given scale s of the last features: eliminate t
        Q = scales.strength(block, lam_H, rates, n, sp) * s ** (2 / sp.Integer(depth))
        fixed = solve_shares(before, free, Q)
        if not equal_powers(scale.subs(fixed), s):
            return False
        constrained = sum(before).subs(free[-1], s * free[-1] / scale) / 2
        if not stationary(constrained, free[:-1], fixed, Q):
            return False
    return True


def solve_shares(shares: Sequence[Any], free: Sequence[Any], value: Any) -> dict[Any, Any]:
    """Scales at which each share has this value: the first two are the pair, linear in its scale."""
    a, *others = free
    at = {a: value / (shares[0] / a)}
    return at | {c: sp.sqrt(value / (share / c**2)) for c, share in zip(others, shares[2:], strict=True)}


def stationary(total: Any, free: Sequence[Any], at: dict[Any, Any], share: Any) -> bool:
    """The derivatives by the logarithms of the scales vanish: each term is a power, and a multiple of the share."""
    for c in free:
        slope = sp.Integer(0)
        for term in sp.Add.make_args(sp.expand(total)):
            power = sp.simplify(c * sp.diff(term, c) / term)
            multiple = sp.Rational(1, 2) if equal_powers(2 * term.subs(at), share) else sp.Integer(1)
            if not equal_powers(term.subs(at), multiple * share):
                return False
            slope += power * multiple
        if slope != 0:
            return False
    return True


def blocks_decouple(strength: Callable[..., Any]) -> bool:
    """(K_b/(2K)) (1-x)^2 + (L+1)/2 D_b Lam x^(2/(L+1)) is K_b/K times the scalar problem at `strength`; symbolic L."""
    K, S, p, T, decay, x, L = sp.symbols("K S p T decay x L", positive=True)
    block = graph.Block(sp.Symbol("K_b", positive=True), p, S, ((1 / T, 1),))
    D = graph.block_spread(block, L)
    own = block.classes / (2 * K) * (1 - x) ** 2 + (L + 1) / 2 * D * decay * x ** (2 / (L + 1))
    scalar = deep_collapse.objective(x, strength(block, K, decay, L), L, sp)
    return bool(sp.simplify(own - block.classes / K * scalar) == 0)


# ------------------------------------------------------------------------------------- the relaxed output


class Relaxed(NamedTuple):
    """The relaxed loss as its check reads it."""

    loss: Callable[..., Any] = graph.relaxed_loss
    balance: Callable[..., Any] = graph.relaxed_balance
    classes: Callable[[Any], Any] = lambda K: K  # what divides the squared error


def ridge_is_best(relaxed: Relaxed) -> bool:
    """Per eigenvector of M the last layer solves min_v (1 - s sqrt(lam) v)^2/(2K) + lW_L v^2/2, a parabola in v."""
    s, v, K, last, Q, L, value, m = sp.symbols("s v K lW_L Q L lam m", positive=True)
    own = (1 - s * sp.sqrt(value) * v) ** 2 / (2 * relaxed.classes(K)) + last * v**2 / 2
    [best] = sp.solve(sp.diff(own, v), v)
    spectrum = ((value, m),)
    found = relaxed.loss(s, spectrum, K, last, Q, L)
    if sp.simplify(found - m * own.subs(v, best) - L / 2 * Q * s ** (2 / L)) != 0:
        return False
    slope = s ** (2 / L - 1) * (Q - relaxed.balance(s, spectrum, K, last, L))
    if sp.simplify(sp.diff(found, s) - slope) != 0:
        return False
    # each term of the balance rises to its peak and falls
    rise = sp.diff(sp.log(relaxed.balance(s, spectrum, K, last, L)), s)
    peak = sp.sqrt(K * last * (L - 1) / ((L + 1) * value))
    ahead = sp.simplify(rise * s * L * (K * last + s**2 * value) / 2)
    return bool(sp.simplify(ahead - (L + 1) * value * (peak**2 - s**2)) == 0)


# ------------------------------------------------------------------------------------------------- ranks


def ranks_hold(rank: Callable[[int, Any], int]) -> bool:
    """Rank of M_L for every variant, r = 4..8, and rank K after the ReLU."""
    for r in range(4, 9):
        B = graph.incidence(r)
        for variant in graph.VARIANTS:
            design = graph.variant_design(r, variant)
            sets = [chosen for size in design for chosen in combinations(range(r), size)]
            neurons = sp.Matrix([[1 if v in chosen else -1 for v in range(r)] for chosen in sets])
            means = neurons * sp.Matrix(B)
            ranks = [DomainMatrix.from_Matrix(M).convert_to(QQ).rank() for M in (means, relu(means))]
            if ranks != [rank(r, design), B.shape[1]]:
                return False
    return True


def rank_is_theta_of_root(vertices: Callable[..., Any]) -> bool:
    """r(r-1)/2 = K, and r^2 > 2K > (r-1)^2 for r > 1; symbolic K and r."""
    K, r = sp.symbols("K r", positive=True)
    if sp.expand(graph.classes_of(vertices(K, sp)) - K) != 0:
        return False
    above, below = r**2 - 2 * graph.classes_of(r), 2 * graph.classes_of(r) - (r - 1) ** 2
    return bool(sp.expand(above - r) == 0 and sp.expand(below - (r - 1)) == 0)


# --------------------------------------------------------------------------------------------- thresholds


class Threshold(NamedTuple):
    """With how many vertices in the block, and at which depth, DNC is beaten; `deeper`: and at every larger one."""

    vertices: int
    depth: int
    deeper: bool
    variant: str = "kneser"


def constant_ratio(r: int, depth: Any, variant: str) -> Any:
    """C_SRG/K^(L+1), exact."""
    exact = sp.Integer(r)
    if variant == "best":
        design = {sp.Integer(s): sp.Rational(weight) for s, weight in graph.best_design(r).items()}
        last = graph.inverse_trace(graph.design_spectrum(exact, design))
    else:
        last = graph.last_layers(exact, variant)
    return graph.product_constant(exact, depth, last, sp) / graph.classes_of(exact) ** (depth + 1)


def dnc_is_beaten(threshold: Threshold) -> bool:
    """C_SRG < K^(L+1) with K = r(r-1)/2, and the objective rises with D: so on every K' >= K, DNC on the rest.

    1. Exact comparison at the smallest depth; one layer more multiplies C_SRG/K^(L+1) by r/K, < 1 for r > 3.
    2. d/dD of (1-x)^2/2 + (L+1)/2 D Lam x^(2/(L+1)) is > 0 for x > 0, so the minimum is below the value at DNC's x.
    3. With fewer vertices no variant wins at output x I: at L = 3 with r = 3, 4, at any depth with r = 3, where
       r/K = 1.
    """
    r, depth = threshold.vertices, sp.Integer(threshold.depth)
    x, strength, L = sp.symbols("x strength L", positive=True)
    if not bool(constant_ratio(r, depth, threshold.variant) < 1):
        return False
    layer = sp.simplify(constant_ratio(r, L + 1, threshold.variant) / constant_ratio(r, L, threshold.variant))
    if threshold.deeper and not layer < 1:
        return False
    if not sp.simplify(sp.diff(deep_collapse.objective(x, strength, L, sp), strength)).is_positive:
        return False
    return all(
        bool(constant_ratio(q, depth, variant) >= 1)
        for q in range(3, r)
        for variant in graph.VARIANTS
        if variant == "identity" or q >= 4
    )


class SixClasses(NamedTuple):
    """K = 6, L = 3, n = 1, equal decays: square root of DNC's gain, scale of the last features, design of r = 4."""

    root: Any
    scale: Any
    design: Callable[[int], Mapping[int, float]] = graph.best_design


def six_classes_beat_dnc(case: SixClasses) -> bool:
    """F(s) < (1 - x)(1 + 3x)/2 < 1/2 at a rational s: exact, as DNC's gain x = root^2 makes the decay rational.

    F(s) is the objective at one scale of the last features, so the SRG of the best scale is no higher.
    """
    classes, depth, gain = sp.Integer(6), sp.Integer(3), case.root**2
    if not gain > deep_collapse.zero_gain(depth, sp):
        return False  # zero is below DNC
    lam = deep_collapse.strength_at(gain, depth, sp) / classes
    design = {sp.Integer(s): sp.Rational(weight) for s, weight in case.design(4).items()}
    four = sp.Integer(4)
    block = graph.Block(classes, four, graph.nuclear_norm(four, sp), graph.design_spectrum(four, design))
    strength = graph.feature_strength(block, lam, [lam] * 3, 1, sp)
    found = graph.relaxed_loss(case.scale, block.spectrum, classes, lam, strength, depth)
    return bool(found < deep_collapse.stationary_loss(gain, depth))


KS = "proved for K = 6..21"  # r = 4..7
PROOFS = (
    Proof(
        "ufm.srg_spectrum",
        "B B^T, B^T B, both graphs: characteristic polynomials, r = 4..7",
        KS,
        explicit_spectra,
        Spectra(),
        {
            "r - 4 off by 1e-6": Spectra(relations=eigenvalue_off),
            "multiplicities exchanged": Spectra(relations=multiplicities_swapped),
            "singular value off by 1e-6": Spectra(incidence=singular_value_off),
        },
    ),
    Proof(
        "ufm.srg_spectrum",
        "eigenvalues and multiplicities from the relations' counts, symbolic r",
        "proved",
        symbolic_spectra,
        Spectra(),
        {
            "r - 4 off by 1e-6": Spectra(relations=eigenvalue_off),
            "multiplicities exchanged": Spectra(relations=multiplicities_swapped),
            "singular value off by 1e-6": Spectra(incidence=singular_value_off),
        },
    ),
    Proof(
        "ufm.srg_loss",
        "neurons +-1/2: outputs I and A2, product of the last two norms (K r/4) nu, r = 4..7",
        KS,
        explicit_neurons,
        LastLayers(),
        {
            "nu off by 1e-6": LastLayers(constant=lambda r, variant: graph.last_layers(r, variant) * WRONG),
            "nu = K for both": LastLayers(constant=lambda r, variant: graph.last_layers(r, "identity")),
            "neurons without signs": LastLayers(other_sign=0),
        },
    ),
    Proof(
        "ufm.srg_loss",
        "even shares: spread D and strength Q, L = 3..5, symbolic rates, n, features",
        "proved for K = r(r-1)/2",
        even_shares_are_best,
        Scales(),
        {
            "D off by 1e-6": Scales(spread=lambda block, L: graph.block_spread(block, L) * WRONG),
            "Q off by 1e-6": Scales(strength=lambda *a: graph.feature_strength(*a) * WRONG),
            "D with a layer too few": Scales(spread=lambda block, L: graph.block_spread(block, L - 1)),
            "pair dearer by 1e-6": Scales(pair=WRONG),
        },
    ),
    Proof(
        "ufm.srg_loss",
        "a block of K_b classes is K_b/K times a scalar problem, symbolic L, K, K_b",
        "proved",
        blocks_decouple,
        graph.block_strength,
        {
            "strength off by 1e-6": lambda *a: graph.block_strength(*a) * WRONG,
            "D_b without K/K_b": lambda block, K, decay, L: graph.block_strength(
                block, block.classes, decay, L
            ),
        },
    ),
    Proof(
        "ufm.srg_relaxed_output",
        "ridge, stationary scale, one peak per eigenspace; symbolic L, K, rates, eigenvalues",
        "proved",
        ridge_is_best,
        Relaxed(),
        {
            "scale off by 1e-6": Relaxed(
                loss=lambda s, spectrum, *a: graph.relaxed_loss(s * WRONG, spectrum, *a)
            ),
            "balance off by 1e-6": Relaxed(balance=lambda *a: graph.relaxed_balance(*a) * WRONG),
            "squared error without 1/K": Relaxed(classes=lambda K: sp.Integer(1)),
        },
    ),
    Proof(
        "ufm.srg_designs",
        "Gram matrices of all subset sizes, counted, r = 4..7",
        KS,
        explicit_designs,
        LastLayers(),
        {
            "eigenvalues off by 1e-6": LastLayers(
                spectrum=lambda r, s: tuple((v * WRONG, m) for v, m in graph.subset_spectrum(r, s))
            ),
            "neurons without signs": LastLayers(other_sign=0),
        },
    ),
    Proof(
        "ufm.srg_designs",
        "s = 2 and s = r - 2 are the two variants, symbolic r",
        "proved",
        designs_contain_variants,
        LastLayers(),
        {
            "nu off by 1e-6": LastLayers(constant=lambda r, variant: graph.last_layers(r, variant) * WRONG),
            "s one too small": LastLayers(spectrum=lambda r, s: graph.subset_spectrum(r, s - 1)),
        },
    ),
    Proof(
        "ufm.srg_designs",
        "no mixture of sizes is better, exact rationals, r = 4..12",
        "proved for K = 6..66",
        best_designs_are_optimal,
        graph.best_design,
        {
            "Kneser for every r": lambda r: graph.variant_design(r, "kneser"),
            "one size for r = 4": lambda r: {2: 1.0} if r == 4 else graph.best_design(r),
            "weights for r = 4 off by 1e-6": lambda r: (
                {2: 0.75 - 2**-20, 3: 0.25 + 2**-20} if r == 4 else graph.best_design(r)
            ),
        },
    ),
    Proof(
        "ufm.srg_rank",
        "rank of M_L before and after the ReLU, all variants, r = 4..8",
        "proved for K = 6..28",
        ranks_hold,
        graph.last_rank,
        {"r for r = 4 too": lambda r, design: r, "r - 1": lambda r, design: r - 1},
    ),
    Proof(
        "ufm.srg_rank",
        "sqrt(2K) < r < sqrt(2K) + 1, symbolic K",
        "proved",
        rank_is_theta_of_root,
        graph.vertices_formula,
        {"off by 1e-6": lambda K, xp: graph.vertices_formula(K, xp) * WRONG},
    ),
    Proof(
        "sukenik2024.dnc_not_optimal",
        "L = 3, K >= 10: C at r = 5 below 10^4, no smaller r at output x I; exact",
        "proved",
        dnc_is_beaten,
        Threshold(5, 3, deeper=False),
        {
            "K >= 6": Threshold(4, 3, deeper=False),
            "identity variant": Threshold(5, 3, deeper=False, variant="identity"),
            "K >= 15": Threshold(6, 3, deeper=False),
        },
    ),
    Proof(
        "sukenik2024.dnc_not_optimal",
        "L >= 4, K >= 6: C at r = 4, L = 4 below 6^5, then by r/K a layer; exact",
        "proved",
        dnc_is_beaten,
        Threshold(4, 4, deeper=True),
        {"K >= 3": Threshold(3, 4, deeper=True, variant="identity"), "L >= 3": Threshold(4, 3, deeper=True)},
    ),
    Proof(
        "sukenik2024.dnc_not_optimal",
        "L = 3, K = 6, all decays 0.0393125: best design and ridge below DNC; exact",
        "proved",
        six_classes_beat_dnc,
        SixClasses(sp.Rational(17, 20), sp.Rational(5, 3)),
        {
            "at gain 0.9604": SixClasses(sp.Rational(98, 100), sp.Rational(15, 7)),
            "Kneser": SixClasses(
                sp.Rational(17, 20), sp.Rational(11, 6), lambda r: graph.variant_design(r, "kneser")
            ),
            "where zero is below DNC": SixClasses(sp.Rational(8, 10), sp.Rational(3, 2)),
        },
    ),
)
