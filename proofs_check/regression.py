"""Proofs of the regression UFM: minimum, all blocks, truncation, saddles, gamma, zero decay, dynamics by mode."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any, NamedTuple

import sympy as sp

from proofs_check.algebra import WRONG, is_zero
from proofs_check.proof import Proof
from ufm.theory import linear_mse, regression
from ufm.theory.deep_collapse import stationary_loss, strength_at

l_W, l_H, above, root_c = sp.symbols("l_W l_H x k", positive=True)
M, lr = sp.symbols("M eta", positive=True)


# -------------------------------------------------------------------------------------------- one mode


class Mode(NamedTuple):
    """The optimum of one mode as its check reads it."""

    weights: Callable[..., Any] = regression.weight_square
    features: Callable[..., Any] = regression.feature_square
    residual: Callable[..., Any] = regression.residual_square
    loss: Callable[..., Any] = regression.mode_loss


def _kept_and_lost() -> tuple[Any, Any]:
    """Eigenvalues above c and at or below it, for every l_W, l_H: (sqrt c + x)^2 and c/(1 + y)^2 with y >= 0."""
    y = sp.Symbol("y", nonnegative=True)
    c = l_W * l_H
    return (sp.sqrt(c) + above) ** 2, c / (1 + y) ** 2


def _value(function: Callable[..., Any], eigenvalue: Any, kept: bool) -> Any:
    """A formula of the room, with the larger of two numbers chosen where SymPy leaves it open."""
    found = function(eigenvalue, l_W, l_H, sp)
    c = l_W * l_H
    root = sp.sqrt(eigenvalue)
    positive, least = sp.Max(root - sp.sqrt(c), 0), sp.Min(eigenvalue, c)
    found = found.subs(positive, root - sp.sqrt(c) if kept else 0).subs(least, c if kept else eigenvalue)
    return sp.simplify(found)


def mode_is_minimal(mode: Mode) -> bool:
    """Stationary (kept) or at the edge with slope >= 0 (lost), value, residual and best features, l_i symbolic.

    L(G) is convex and diagonal in the eigenbasis of Sigma, so that these are the conditions of a minimum for any n and
    all d >= n; they hold mode by mode.
    """
    g, q, a = sp.symbols("g q a", real=True)
    for eigenvalue, kept in zip(_kept_and_lost(), (True, False), strict=True):
        best = regression.profile(g, eigenvalue, l_W, l_H)
        root = sp.sqrt(eigenvalue)
        joint = (root - a * q) ** 2 / 2 + l_H * q**2 / 2 + l_W * a**2 / 2
        at = a * root / (a**2 + l_H)  # where the derivative by q, which is increasing, vanishes
        if not is_zero(sp.diff(joint, q).subs(q, at), joint.subs(q, at) - best.subs(g, a**2)):
            return False
        square = _value(mode.weights, eigenvalue, kept)
        slope = sp.simplify(sp.diff(best, g).subs(g, square))
        if kept and slope != 0:
            return False
        if not kept and (square != 0 or not sp.factor(slope).is_nonnegative):
            return False
        amplitude = at.subs(a, sp.sqrt(square))
        missing = root - sp.sqrt(square) * amplitude
        if not is_zero(
            amplitude**2 - _value(mode.features, eigenvalue, kept),
            missing**2 - _value(mode.residual, eigenvalue, kept),
            best.subs(g, square) - _value(mode.loss, eigenvalue, kept),
        ):
            return False
    return True


class Convexity(NamedTuple):
    """The second derivative of L along D at a diagonal G, as its check reads it."""

    factor: int = 1
    power: int = 1


def profile_is_convex(claim: Convexity) -> bool:
    """d^2/dt^2 l_H/2 tr(B B^T (G + t D + l_H)^{-1}) = l_H ||X^{1/2} D X B||_F^2, X = (G + l_H)^{-1}, for n = 2, 3.

    G is diagonal in a basis of its own, B and the symmetric D are arbitrary in it.
    """
    t = sp.Symbol("t")
    for n in (2, 3):
        X = sp.diag(*sp.symbols(f"x1:{n + 1}", positive=True))
        B = sp.Matrix(n, n, lambda i, j: sp.Symbol(f"b{i}{j}"))
        D = sp.Matrix(n, n, lambda i, j: sp.Symbol(f"d{min(i, j)}{max(i, j)}"))
        inverse = X - t * X * D * X + t**2 * X * D * X * D * X
        product = (X.inv() + t * D) * inverse  # the inverse up to t^2
        if any(sp.series(sp.expand(e), t, 0, 3).removeO() - (i == j) != 0 for i, j, e in _entries(product)):
            return False
        second = sp.expand(l_H * (B * B.T * inverse).trace() / 2).coeff(t, 2) * 2
        squares = sum(X[i, i] ** claim.power * e**2 for i, _, e in _entries(D * X * B))
        if sp.expand(second - claim.factor * l_H * squares) != 0:
            return False
    return True


def _entries(matrix: Any) -> list[tuple[int, int, Any]]:
    return [(i, j, matrix[i, j]) for i in range(matrix.rows) for j in range(matrix.cols)]


def is_one_layer_of_the_linear_chain(strength: Callable[..., Any]) -> bool:
    """gamma = 1 - sqrt(c/l) solves the scalar problem at L = 1; its share gives W W^T, its loss that of the mode."""
    eigenvalue = _kept_and_lost()[0]
    lam_W, lam_H = l_W, l_H / M
    if sp.simplify(regression.published_rates(lam_W, lam_H, M)[1] - l_H) != 0:
        return False
    square = M * eigenvalue
    gain = above / (sp.sqrt(l_W * l_H) + above)
    if not is_zero(
        strength_at(gain, 1, sp) - strength(square, M, lam_H, [lam_W], sp),
        linear_mse.factor_share(gain, 1 - gain, M / square) / lam_W
        - _value(regression.weight_square, eigenvalue, True),
        square / M * stationary_loss(gain, 1) - _value(regression.mode_loss, eigenvalue, True),
    ):
        return False
    # what a mode gains on zero increases with it, so that d < n columns belong to the largest d
    gain_on_zero = eigenvalue / 2 - _value(regression.mode_loss, eigenvalue, True)
    return is_zero(gain_on_zero - above**2 / 2)


# --------------------------------------------------------------------------------------------- all blocks

r, turn = sp.symbols("r t", positive=True)
y = sp.symbols("y1 y2", positive=True)
HADAMARD = sp.Matrix([[1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2


def _rotation(t: Any) -> sp.Matrix:
    c, s = (1 - t**2) / (1 + t**2), 2 * t / (1 + t**2)
    return sp.Matrix([[c, -s], [s, c]])


class Blocks(NamedTuple):
    """What the state of a whole problem is made of, with sqrt c = k and sqrt(l_H/l_W) = r^2, root l = k + y^2."""

    weights: Callable[[Any], Any] = lambda y: r * y
    features: Callable[[Any], Any] = lambda y: y / r
    bias: Callable[[sp.Matrix], sp.Matrix] = lambda mean: mean


def _rates() -> tuple[Any, Any]:
    return root_c / r**2, root_c * r**2


def blocks_are_stationary(state: Blocks) -> bool:
    """Gradients of W, H and b, E E^T/M = c I, l_H ||H||^2 = M l_W ||W||^2 and the value, n = 2 in any basis.

    M = 4 uncentred targets; l_i, l_W, l_H, the means and the turn of the basis are symbols.
    """
    weight, feature = _rates()
    samples, mean = 4, sp.Matrix(sp.symbols("m1 m2", real=True))
    U, V = _rotation(turn), HADAMARD[:2, :]
    roots = sp.diag(*[root_c + value**2 for value in y])
    ones = sp.ones(1, samples)
    Y = 2 * U * roots * V + mean * ones
    W = U * sp.diag(*map(state.weights, y))
    H = 2 * sp.diag(*map(state.features, y)) * V
    E = W * H + state.bias(mean) * ones - Y
    zeros = [
        *(E * H.T / samples + weight * W),
        *(W.T * E / samples + feature / samples * H),
        *(E * sp.ones(samples, 1)),
        *(E * E.T / samples - root_c**2 * sp.eye(2)),
    ]
    norms = [sum(entry**2 for entry in block) for block in (W, H, E)]
    value = norms[2] / (2 * samples) + feature * norms[1] / (2 * samples) + weight * norms[0] / 2
    least = sum(root_c**2 / 2 + root_c * amplitude**2 for amplitude in y)
    zeros += [feature * norms[1] - samples * weight * norms[0], value - least]
    return all(sp.cancel(sp.together(entry)) == 0 for entry in zeros)


# --------------------------------------------------------------------------------------------- truncation

BASIS = sp.Matrix([[2, -2, 1], [1, 2, 2], [2, 1, -2]]) / 3
ROOTS = (sp.Integer(2), sp.Integer(1), sp.Rational(1, 2))
RATE = sp.Rational(3, 4)  # l_W = l_H = sqrt c


def _eigenbasis_truncation(basis: sp.Matrix) -> sp.Matrix:
    kept = [regression.weight_square(root**2, RATE, RATE, sp) for root in ROOTS]
    return basis * sp.diag(*kept) * basis.T


def _first_columns(basis: sp.Matrix) -> sp.Matrix:
    """As printed: the first j* = 2 columns of the real part of A^{1/2}."""
    half = [sp.sqrt(regression.weight_square(root**2, RATE, RATE, sp)) for root in ROOTS]
    columns = (basis * sp.diag(*half) * basis.T)[:, :2]
    return columns * columns.T


def truncation_is_minimal(gram: Callable[[sp.Matrix], sp.Matrix]) -> bool:
    """L's gradient D at this G is >= 0 and D G = 0, exactly, for the basis (2,-2,1; 1,2,2; 2,1,-2)/3."""
    covariance = BASIS * sp.diag(*[root**2 for root in ROOTS]) * BASIS.T
    G = gram(BASIS)
    if not _is_nonnegative(G):
        return False
    inverse = (G + RATE * sp.eye(3)).inv()
    D = RATE / 2 * sp.eye(3) - RATE / 2 * inverse * covariance * inverse
    return all(sp.simplify(entry) == 0 for entry in D * G) and _is_nonnegative(D)


def _is_nonnegative(matrix: sp.Matrix) -> bool:
    """Whether all principal minors of a 3 x 3 matrix are >= 0, exactly."""
    chosen = [list(rows) for size in (1, 2, 3) for rows in combinations(range(3), size)]
    return all(bool(sp.simplify(matrix[rows, rows].det()) >= 0) for rows in chosen)


def printed_form_is_above(printed: Callable[[sp.Matrix], sp.Matrix]) -> bool:
    """The printed state agrees with the minimum in the basis of the coordinates and lies 77/800 above it in the
    other.
    """
    if printed(sp.eye(3)) != _eigenbasis_truncation(sp.eye(3)):
        return False
    covariance = BASIS * sp.diag(*[root**2 for root in ROOTS]) * BASIS.T
    least = sum(regression.mode_loss(root**2, RATE, RATE, sp) for root in ROOTS)
    value = sp.nsimplify(regression.gram_loss(printed(BASIS), covariance, RATE, RATE, sp))
    return bool(sp.simplify(value - least) == sp.Rational(77, 800))


# ------------------------------------------------------------------------------------------------ saddles


class Saddle(NamedTuple):
    """What makes a critical point that misses a mode a saddle, as its check reads it."""

    block: Callable[..., Any] = lambda root: sp.Matrix([[l_W, -root], [-root, l_H]])
    determinant: Callable[..., Any] = lambda eigenvalue: l_W * l_H - eigenvalue
    curvature: Callable[..., Any] = lambda kept, missing: -2 * (kept - sp.sqrt(l_W * l_H)) * (missing - kept)


def missing_mode_is_a_way_down(saddle: Saddle) -> bool:
    """Critical points by mode; the block of a missing mode with a free column; a mode turned into a larger one.

    D W = 0 and D = l_W/2 - l_H/2 (G + l_H)^{-1} Sigma (G + l_H)^{-1} give Sigma p = (l_W/l_H) (g + l_H)^2 p for an
    eigenvector p of G at g > 0: an eigenvector of Sigma, at the value of the optimum.
    """
    g = sp.Symbol("g", positive=True)
    eigenvalue = l_W / l_H * (g + l_H) ** 2
    if not is_zero(sp.sqrt(l_H / l_W) * (sp.sqrt(eigenvalue) - sp.sqrt(l_W * l_H)) - g):
        return False
    a, q, s = sp.symbols("a q s", positive=True)
    mode = (s - a * q) ** 2 / 2 + l_W * a**2 / 2 + l_H * q**2 / 2
    at_zero = sp.hessian(mode, (a, q)).subs({a: 0, q: 0})
    block = saddle.block(s)
    if at_zero != block or not is_zero(block.det() - saddle.determinant(s**2)):
        return False
    # W = w u(angle) r^T, H = h r v(angle)^T: all norms stay, <Z, Y> does not
    angle, larger = sp.Symbol("theta", real=True), sp.Symbol("s_i", positive=True)
    product = a * q
    overlap = product * (s * sp.cos(angle) ** 2 + larger * sp.sin(angle) ** 2)
    objective = product**2 / 2 - overlap
    second = sp.diff(objective, angle, 2).subs(angle, 0)
    kept = sp.sqrt(l_W * l_H) + above  # sqrt l of the kept mode, whose a q is x
    second = second.subs({s: kept}).subs(a * q, above).subs(a, above / q)
    return is_zero(second - saddle.curvature(kept, larger))


# -------------------------------------------------------------------------------------------------- gamma


class Gamma(NamedTuple):
    """gamma at the optimum, as its check reads it."""

    normalised: Callable[..., Any] = regression.normalised_root
    plain: Callable[..., Any] = regression.unnormalised_gamma
    shift: Any = root_c


def gamma_is_the_threshold(gamma: Gamma) -> bool:
    """W W^T is a positive multiple of Sigma^{1/2} - sqrt c I; the stationary root is sqrt c; the plain one errs.

    sqrt(l_H/l_W) = r^2; n = 2 and 3. The plain gamma equals c iff r = 1: its root is off by (1 - r^2) times the mean
    excess.
    """
    for n in (2, 3):
        excess = sp.symbols(f"e1:{n + 1}", positive=True)
        roots = [root_c + value for value in excess]
        gram = [r**2 * value for value in excess]
        if not is_zero(
            *[r**2 * (root - gamma.shift) - value for root, value in zip(roots, gram, strict=True)]
        ):
            return False
        inner = sum(p * s for p, s in zip(gram, roots, strict=True))
        found = gamma.normalised(inner, sum(gram), sum(s**2 for s in roots), sum(roots), n)
        if not is_zero(found - root_c):
            return False
        # and it is where the derivative of <P, S - g I>/||S - g I|| vanishes, for any P
        P, S, g = sp.symbols(f"p1:{n + 1}"), sp.symbols(f"s1:{n + 1}"), sp.Symbol("g")
        squares = sum((s - g) ** 2 for s in S)
        slope = sp.expand(
            sp.diff(sum(p * (s - g) for p, s in zip(P, S, strict=True)), g) * squares
            - sum(p * (s - g) for p, s in zip(P, S, strict=True)) * sp.diff(squares, g) / 2
        )
        stationary = gamma.normalised(
            sum(p * s for p, s in zip(P, S, strict=True)), sum(P), sum(s**2 for s in S), sum(S), n
        )
        if sp.degree(slope, g) != 1 or sp.cancel(slope.subs(g, stationary)) != 0:
            return False
        plain = gamma.plain(sum(roots), sum(gram), n)
        if not is_zero(plain - (root_c + (1 - r**2) * sum(excess) / n) ** 2):
            return False
    return True


# --------------------------------------------------------------------------------------------- zero decay


def _inverse(W: sp.Matrix) -> sp.Matrix:
    """W^+ of a W of full row rank."""
    return W.T * (W * W.T).inv()


class NoDecay(NamedTuple):
    """Minimisers without decay, and the limit, as their check reads them."""

    features: Callable[..., sp.Matrix] = lambda W, Y, Q: (
        _inverse(W) * Y + (sp.eye(W.cols) - _inverse(W) * W) * Q
    )
    limit: Callable[[Any], Any] = lambda eigenvalue: sp.sqrt(eigenvalue)


def any_full_rank_fits(claim: NoDecay) -> bool:
    """W H = Y exactly for every W = (I w) of rank n and every Q, and no other H; W W^T -> Sigma^{1/2} as c -> 0."""
    W = sp.eye(2).row_join(sp.Matrix(sp.symbols("w1 w2", real=True)))
    Y = sp.Matrix(2, 3, lambda i, j: sp.Symbol(f"y{i}{j}"))
    Q = sp.Matrix(3, 3, lambda i, j: sp.Symbol(f"q{i}{j}"))
    H = claim.features(W, Y, Q)
    if any(sp.cancel(sp.together(entry)) != 0 for entry in W * H - Y):
        return False
    # a solution H is the formula with Q = H
    solved = sp.Matrix([Y - W[:, 2] * Q[2, :], Q[2, :]])
    if any(sp.cancel(sp.together(entry)) != 0 for entry in W * solved - Y):
        return False
    if any(sp.cancel(sp.together(entry)) != 0 for entry in claim.features(W, Y, solved) - solved):
        return False
    eigenvalue, rate = sp.symbols("l lam", positive=True)
    square = sp.sqrt(eigenvalue) - rate  # of l_W = l_H = lam < sqrt l
    if not is_zero(
        regression.weight_square(eigenvalue, rate, rate, sp).subs(eigenvalue, (rate + above) ** 2) - above
    ):
        return False
    return is_zero(sp.limit(square, rate, 0) - claim.limit(eigenvalue))


# ---------------------------------------------------------------------------------------------- dynamics


class Dynamics(NamedTuple):
    """The flow of a mode as its check reads it."""

    flow: Callable[..., Any] = regression.flow
    invariant: Callable[..., Any] = regression.invariant
    rate: Callable[..., Any] = regression.escape_rate


def modes_move_alone(dynamics: Dynamics) -> bool:
    """Minus the gradient at an aligned state is aligned again, with these velocities: n = d = 2, M = 4, symbols."""
    samples, U, V = 4, _rotation(turn), HADAMARD[:2, :]
    a, q, roots = (sp.symbols(f"{name}1 {name}2", positive=True) for name in "aqs")
    W, H = U * sp.diag(*a), 2 * sp.diag(*q) * V
    E = W * H - 2 * U * sp.diag(*roots) * V
    moved = [dynamics.flow(*mode, l_W, l_H, samples) for mode in zip(a, q, roots, strict=True)]
    expected_W = U * sp.diag(*[of_a for of_a, _ in moved])
    expected_H = 2 * sp.diag(*[of_q for _, of_q in moved]) * V
    zeros = [
        *(-E * H.T / samples - l_W * W - expected_W),
        *(-W.T * E / samples - l_H / samples * H - expected_H),
    ]
    return all(sp.cancel(sp.together(entry)) == 0 for entry in zeros)


def threshold_of_growth(dynamics: Dynamics) -> bool:
    """Invariant without decay; the larger eigenvalue of the linear part at 0 is 2 (l - c)/(M (apart - trace))."""
    a, q, s = sp.symbols("a q s", positive=True)
    free = dynamics.flow(a, q, s, 0, 0, M)
    kept = dynamics.invariant(a, q, M)
    if not is_zero(sp.diff(kept, a) * free[0] + sp.diff(kept, q) * free[1]):
        return False
    linear = sp.Matrix(dynamics.flow(a, q, s, l_W, l_H, M)).jacobian((a, q)).subs({a: 0, q: 0})
    rate = dynamics.rate(s**2, l_W, l_H, M, sp)
    if not is_zero(rate**2 - linear.trace() * rate + linear.det()):
        return False
    apart = sp.sqrt((linear[0, 0] - linear[1, 1]) ** 2 + 4 * linear[0, 1] * linear[1, 0])
    # l - c over a positive number
    return is_zero(rate * (apart - linear.trace()) - 2 * (s**2 - l_W * l_H) / M)


def step_is_the_flow_once(step: Callable[..., Any]) -> bool:
    """One step of gradient descent is the state plus lr times the velocity."""
    a, q, s = sp.symbols("a q s", positive=True)
    moved = step(a, q, s, l_W, l_H, M, lr)
    speed = regression.flow(a, q, s, l_W, l_H, M)
    return is_zero(moved[0] - a - lr * speed[0], moved[1] - q - lr * speed[1])


PROOFS = (
    Proof(
        "andriopoulos2024.minimum",
        "conditions of the minimum, features, residual, value of a mode, symbolic l, l_W, l_H",
        "proved",
        mode_is_minimal,
        Mode(),
        {
            "W W^T off by 1e-6": Mode(weights=lambda *p: WRONG * regression.weight_square(*p)),
            "l_W/l_H for l_H/l_W": Mode(weights=lambda e, W, H, xp: regression.weight_square(e, H, W, xp)),
            "loss without 1/2": Mode(
                loss=lambda *p: regression.mode_loss(*p) + regression.residual_square(*p) / 2
            ),
            "residual sqrt c": Mode(residual=lambda *p: sp.sqrt(regression.residual_square(*p))),
        },
    ),
    Proof(
        "andriopoulos2024.minimum",
        "L(G) is convex: its second derivative is a sum of squares",
        "proved for n = 2, 3",
        profile_is_convex,
        Convexity(),
        {"twice": Convexity(factor=2), "X for X^{1/2}": Convexity(power=2)},
    ),
    Proof(
        "andriopoulos2024.minimum",
        "a mode is the scalar problem of the linear chain at L = 1; what it gains grows with l",
        "proved",
        is_one_layer_of_the_linear_chain,
        linear_mse.direction_strength,
        {
            "strength off by 1e-6": lambda *p: WRONG * linear_mse.direction_strength(*p),
            "l for M l": lambda square, *p: linear_mse.direction_strength(square / M, *p),
        },
    ),
    Proof(
        "andriopoulos2024.minimum",
        "gradients of W, H, b, white residual, balance and value of the whole state, n = 2, M = 4",
        "proved",
        blocks_are_stationary,
        Blocks(),
        {
            "W off by 1e-6": Blocks(weights=lambda y: WRONG * r * y),
            "r exchanged": Blocks(weights=lambda y: y / r, features=lambda y: r * y),
            "no bias": Blocks(bias=lambda mean: 0 * mean),
        },
    ),
    Proof(
        "andriopoulos2024.truncation.erratum",
        "the eigenbasis truncation is the minimum at correlated targets, n = 3",
        "proved",
        truncation_is_minimal,
        _eigenbasis_truncation,
        {
            "first j* columns, as printed": _first_columns,
            "off by 1e-6": lambda basis: WRONG * _eigenbasis_truncation(basis),
            "no truncation": lambda basis: basis * sp.diag(*[root - RATE for root in ROOTS]) * basis.T,
        },
    ),
    Proof(
        "andriopoulos2024.truncation.erratum",
        "the printed columns lie above the minimum there, and are it for diagonal covariances",
        "proved",
        printed_form_is_above,
        _first_columns,
        {
            "eigenbasis truncation": _eigenbasis_truncation,
            "last columns": lambda basis: _first_columns(basis)[::-1, ::-1],
        },
    ),
    Proof(
        "andriopoulos2024.saddles",
        "critical points by mode; block of a missing mode; turning into a larger one",
        "proved",
        missing_mode_is_a_way_down,
        Saddle(),
        {
            "determinant l_W l_H": Saddle(determinant=lambda eigenvalue: l_W * l_H),
            "block with l": Saddle(block=lambda root: sp.Matrix([[l_W, -(root**2)], [-(root**2), l_H]])),
            "curvature off by 1e-6": Saddle(
                curvature=lambda kept, missing: WRONG * Saddle().curvature(kept, missing)
            ),
        },
    ),
    Proof(
        "andriopoulos2024.gamma",
        "normalised: c alone; unnormalised: c iff l_H = l_W",
        "proved for n = 2, 3",
        gamma_is_the_threshold,
        Gamma(),
        {
            "plain gamma is c": Gamma(plain=lambda *p: root_c**2),
            "shift c for sqrt c": Gamma(shift=root_c**2),
            "off by 1e-6": Gamma(normalised=lambda *p: WRONG * regression.normalised_root(*p)),
        },
    ),
    Proof(
        "andriopoulos2024.no_decay",
        "every W of rank n fits, with all its H; the limit of small decay is one of them only",
        "proved",
        any_full_rank_fits,
        NoDecay(),
        {
            "W^T for W^+": NoDecay(features=lambda W, Y, Q: W.T * Y),
            "no null space": NoDecay(features=lambda W, Y, Q: _inverse(W) * Y),
            "limit Sigma": NoDecay(limit=lambda eigenvalue: eigenvalue),
        },
    ),
    Proof(
        "ufm.regression_modes",
        "the gradient at an aligned state is aligned, with these velocities",
        "proved",
        modes_move_alone,
        Dynamics(),
        {
            "no 1/M": Dynamics(flow=lambda a, q, s, W, H, M: regression.flow(a, q, s, W, H, 1)),
            "decay off by 1e-6": Dynamics(
                flow=lambda a, q, s, W, H, M: regression.flow(a, q, s, WRONG * W, H, M)
            ),
        },
    ),
    Proof(
        "ufm.regression_modes",
        "a^2 - M q^2 without decay; a small mode grows iff l > c, at this rate",
        "proved",
        threshold_of_growth,
        Dynamics(),
        {
            "a^2 - q^2": Dynamics(invariant=lambda a, q, M: a**2 - q**2),
            "rate off by 1e-6": Dynamics(rate=lambda *p: WRONG * regression.escape_rate(*p)),
        },
    ),
    Proof(
        "ufm.regression_modes",
        "a step of gradient descent is the flow's velocity times lr",
        "proved",
        step_is_the_flow_once,
        regression.step,
        {
            "lr off by 1e-6": lambda a, q, s, W, H, M, lr: regression.step(a, q, s, W, H, M, WRONG * lr),
            "one after the other": lambda a, q, s, W, H, M, lr: (
                (first := regression.step(a, q, s, W, H, M, lr)[0]),
                regression.step(first, q, s, W, H, M, lr)[1],
            ),
        },
    ),
)
