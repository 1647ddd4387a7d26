"""Proofs around theorem 3.3: the path, its limit, two errata, the lock, Frank-Wolfe, a cycle; for symbolic K."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import mpmath
import numpy as np
import sympy as sp

from proofs_check.algebra import WRONG
from proofs_check.compiled_rule import compiled_rule
from proofs_check.proof import Proof
from ufm.theory import signgd_decoupled as theory
from ufm.theory import symmetric_path

k = sp.Symbol("k", integer=True, nonnegative=True)
K2, K3 = k + 2, k + 3  # every number of classes from 2, from 3
t = sp.Symbol("t", integer=True, nonnegative=True)
x, y = sp.symbols("x y", real=True)
eta, lam, c, s, z = sp.symbols("eta lam c s z", positive=True)
BELOW_ONE = z / (1 + z)  # every number in (0, 1) as z runs over (0, oo)


def zero(expression: Any) -> bool:
    """Whether an expression is identically 0."""
    return bool(sp.simplify(sp.expand(sp.powsimp(sp.expand(expression), force=False))) == 0)


def positive(expression: Any) -> bool:
    """Whether SymPy sees that an expression is above 0 for all values of its symbols."""
    return any(bool(form(expression).is_positive) for form in (sp.sympify, sp.factor, sp.expand, sp.simplify))


# ------------------------------------------------------------------- matrices x I + y J, for symbolic K


class TwoValued(NamedTuple):
    """A K x K matrix with one value on the diagonal and one off it: (diagonal - off) I + off J."""

    diagonal: Any
    off: Any

    @classmethod
    def of(cls, identity: Any, ones: Any) -> TwoValued:
        """Build identity I + ones J."""
        return cls(identity + ones, ones)

    def times(self, other: TwoValued, K: Any) -> TwoValued:
        """Matrix product: one index of the sum meets i, one meets j, K - 2 meet neither."""
        return TwoValued(
            self.diagonal * other.diagonal + (K - 1) * self.off * other.off,
            self.diagonal * other.off + self.off * other.diagonal + (K - 2) * self.off * other.off,
        )

    def matrix(self, K: int) -> Any:
        """Explicit matrix."""
        return sp.Matrix(K, K, lambda i, j: self.diagonal if i == j else self.off)


def softmax_of_columns(Z: TwoValued, K: Any) -> TwoValued:
    """Softmax of every column; the logits enter through their difference."""
    wrong = symmetric_path.wrong_share(sp.factor(Z.diagonal - Z.off), K, sp)
    return TwoValued(1 - (K - 1) * wrong, wrong)


def product_rule_holds(times: Callable[[TwoValued, TwoValued, Any], TwoValued]) -> bool:
    """Products and softmax of two-valued matrices against explicit ones, K = 2..5."""
    a, b, d, e = sp.symbols("a b d e", positive=True)
    for K in range(2, 6):
        A, B = TwoValued(a, b), TwoValued(d, e)
        if sp.expand(A.matrix(K) * B.matrix(K) - times(A, B, K).matrix(K)) != sp.zeros(K, K):
            return False
        total = a + (K - 1) * b  # of every column of exp(Z), Z with log a on the diagonal and log b off it
        found = softmax_of_columns(TwoValued(sp.log(a), sp.log(b)), K)
        if not (
            sum(A.matrix(K)[:, 0]) == total
            and zero(found.diagonal - a / total)
            and zero(found.off - b / total)
        ):
            return False
    return True


class Path(NamedTuple):
    """The setting of theorem 3.3 as its checks read it."""

    K: Any = K2
    pattern: TwoValued = TwoValued(-1, 1)
    scale: Callable[..., Any] = symmetric_path.frame_norm
    entries: Callable[..., Any] = symmetric_path.gradient_entries
    gap: Callable[..., Any] = theory.logit_gap


def logits(W: TwoValued, features: Any, K: Any) -> TwoValued:
    """Z = W H at H = features (I - J/K)."""
    return W.times(TwoValued.of(features, -features / K), K)


def gradient_at(wrong: Any, features: Any, K: Any) -> TwoValued:
    """grad_W = (S - I) H^T/K, mean over one sample per class, at wrong-class probability `wrong`."""
    p = sp.Symbol("p", positive=True)
    found = TwoValued(-(K - 1) * p, p).times(TwoValued.of(features, -features / K), K)
    return TwoValued(*(sp.factor(entry / K).subs(p, wrong) for entry in found))


def gradient_on_the_path(W: TwoValued, features: Any, K: Any) -> TwoValued:
    """The gradient at two-valued W; W enters through the probability of a wrong class alone."""
    return gradient_at(softmax_of_columns(logits(W, features, K), K).off, features, K)


def signs_hold(path: Path) -> bool:
    """sign(grad) = J - 2I at every W = x I + y J and scale c > 0; gap and entries for the theorem's scale."""
    for features in (c, path.scale(path.K, xp=sp)):
        found = gradient_on_the_path(TwoValued.of(x, y), features, path.K)
        if not all(positive(sign * entry) for sign, entry in zip(path.pattern, found, strict=True)):
            return False
    scale = symmetric_path.frame_norm(path.K, xp=sp)
    Z = logits(TwoValued(-x, x), scale, path.K)
    if not zero(Z.diagonal - Z.off - path.gap(x, path.K, sp)):
        return False
    found = gradient_at(symmetric_path.wrong_share(y, path.K, sp), scale, path.K)
    return all(zero(a - b) for a, b in zip(found, path.entries(y, path.K, xp=sp), strict=True))


def entries_as_in_theorem_3_4(gap: Any, K: Any, xp: Any) -> Any:
    """The exponent that the paper prints in the proof of theorem 3.4: 1/(K - 1) for 1/sqrt(K - 1)."""
    return symmetric_path.gradient_entries(gap / xp.sqrt(K - 1), K, xp=xp)


# ------------------------------------------------------------------------------------- the update rules


class Law(NamedTuple):
    """Theorem 3.3 as its check reads it: w as a function of the shrinkage g, the rule, the order of shrink and step."""

    weight: Callable[[Any, Any], Any] = theory.weight_of_shrinkage
    step: Callable[[Any, Any], Any] = lambda w, g: compiled_rule("signgd_step")(w, g, eta)
    shrink_after: bool = False
    features: Any = c


def one_step(law: Law, W: TwoValued, gradient: TwoValued) -> TwoValued:
    """Shrink by 1 - eta lam and step along the gradient of the unshrunk W."""
    kept = 1 - eta * lam
    before, after = (1, kept) if law.shrink_after else (kept, 1)
    return TwoValued(*(after * law.step(before * w, g) for w, g in zip(W, gradient, strict=True)))


def recursion_is_solved(law: Law) -> bool:
    """The compiled rule takes w (J - 2I) at shrinkage g to the one at (1 - eta lam) g, for every g, K, eta, lam.

    With g = 1 at the start (w = 0) this is W_t = w_t (J - 2I) for any schedule: g is the product of its factors,
    (1 - eta lam)^t at a constant rate.
    """
    g = sp.Symbol("g", real=True)
    if law.weight(sp.Integer(1), lam) != 0:
        return False
    w = law.weight(g, lam)
    # signs are known for every real w: any symbol stands for it
    gradient = gradient_on_the_path(TwoValued(-x, x), law.features, K2)
    found = one_step(law, TwoValued(-w, w), gradient)
    then = law.weight((1 - eta * lam) * g, lam)
    if not (zero(found.diagonal + then) and zero(found.off - then)):
        return False
    closed = theory.weight_closed_form(t, eta, lam)
    return zero(closed - law.weight((1 - eta * lam) ** t, lam)) and closed.subs(t, 0) == 0


class Buffer(NamedTuple):
    """An averaged gradient as its check reads it: momentum, and the buffer in units of the signs' pattern."""

    beta: Any = BELOW_ONE
    start: Any = sp.Symbol("mu", nonnegative=True)


def signum_takes_the_same_steps(buffer: Buffer) -> bool:
    """A buffer mu (J - K I) with mu >= 0 stays one, with mu > 0, and its sign is J - 2I; from 0 on, for every beta.

    The gradients are psi_s (J - K I) with psi_s > 0, by `signs_hold`.
    """
    psi = sp.Symbol("psi", positive=True)
    for unit, sign in ((1 - K2, -1), (sp.Integer(1), 1)):
        for beta in (buffer.beta, sp.Integer(0)):
            w, m = compiled_rule("signum_step")(x, unit * psi, unit * buffer.start, eta, beta)
            if not (positive(sp.simplify(m / unit)) and zero(w - (x - eta * sign))):
                return False
    return True


def adam_takes_the_same_steps(parameters: tuple[Any, Any, Any]) -> bool:
    """Adam with beta1 = beta2 = eps = 0 steps by the sign, from any buffers."""
    psi, m, v = sp.symbols("psi m v", positive=True)
    for g, sign in (((1 - K2) * psi, -1), (psi, 1)):
        beta1, beta2, _ = parameters
        w, _, _ = compiled_rule("adam_step")(
            x, g, m, v, eta, *parameters, 1 / (1 - beta1**2), 1 / (1 - beta2**2)
        )
        if not zero(sp.simplify(w) - (x - eta * sign)):
            return False
    return True


# ------------------------------------------------------------------------ limit, monotonicity, two classes


class Limit(NamedTuple):
    """Where alpha_t tends, and the range of eta lam in which it does."""

    value: Callable[[Any, Any], Any] = theory.limit
    end: Any = sp.Integer(2)


def limit_holds(limit: Limit) -> bool:
    """alpha -> limit as g -> 0, and g_t -> 0 for 0 < eta lam < end, or for a schedule with sum eta_s = oo.

    alpha is a polynomial in g. |1 - eta lam| < 1 iff eta lam (2 - eta lam) > 0. For a schedule with eta_s lam <= 1
    the product is at most exp(-lam sum eta_s), as 1 - u <= e^-u: their difference vanishes at 0 and grows.
    """
    g, u = sp.Symbol("g", real=True), sp.Symbol("u", positive=True)
    alpha = theory.nc0_of_weight(theory.weight_of_shrinkage(g, lam), K2)
    if not zero(alpha.subs(g, 0) - limit.value(lam, K2)):
        return False
    inside = limit.end * BELOW_ONE
    if not (positive(sp.factor(1 - (1 - inside) ** 2)) and sp.limit(sp.exp(-u * t), t, sp.oo) == 0):
        return False
    gap = sp.exp(-u) - (1 - u)
    # d gap/du = 1 - e^-u = e^-u (e^u - 1) > 0
    return gap.subs(u, 0) == 0 and zero(sp.diff(gap, u) - (1 - sp.exp(-u)))


def monotone_up_to(end: Any) -> bool:
    """alpha_{t+1} > alpha_t for all t at 0 < eta lam < end, K >= 3; at eta lam = end it stays from t = 1 on.

    |w_{t+1}| - |w_t| = eta (1 - eta lam)^t. Beyond end = 1 it alternates.
    """
    kept = sp.Symbol("kept", positive=True)
    difference = theory.weight_closed_form(t, eta, lam) - theory.weight_closed_form(t + 1, eta, lam)
    if not zero(difference - eta * (1 - eta * lam) ** t):
        return False
    if not (positive(sp.simplify(1 - end * BELOW_ONE)) and positive(kept**t)):
        return False
    # every larger rate steps back: 1 - eta lam < 0 at eta lam = end (1 + z), z > 0
    return positive(end * (1 + z) - 1) and positive((K3 - 2) ** 2)


def two_classes_have_no_nc0(classes: int) -> bool:
    """alpha = 0 at every weight, for this number of classes."""
    w = sp.Symbol("w", real=True)
    return bool(theory.nc0_of_weight(w, sp.Integer(classes)) == 0)


def class_sizes_hold(margin: Callable[..., Any]) -> bool:
    """With n_k samples of class k, grad_ij has the sign of n_i + n_j - N/K off the diagonal, - on it.

    On the path the residual of a sample of class k is p (1 - K delta_ik), so that with c = 1 and up to 1/N
    grad_ij = n_j p (1 - K delta_ij) - (p/K) (N - K n_i), as sum_k n_k (1 - K delta_ik) = N - K n_i. Checked
    against the explicit product for K = 3..5, where the path does not depend on the sizes at all.
    """
    N, own, other, p = sp.symbols("N n_i n_j p", positive=True)
    off = other * p - p / K2 * (N - K2 * own)
    on = own * p * (1 - K2) - p / K2 * (N - K2 * own)
    if not (zero(off - p * margin(own, other, N, K2)) and zero(on - p * (own * (2 - K2) - N / K2))):
        return False
    for K in range(3, 6):
        sizes = sp.symbols(f"n:{K}", positive=True)
        R = TwoValued(p - K * p, p).matrix(K) * sp.diag(*sizes)
        found = R * TwoValued(1 - sp.Rational(1, K), -sp.Rational(1, K)).matrix(K)
        for i in range(K):
            for j in range(K):
                expected = margin(sizes[i], sizes[j], sum(sizes), K) - K * sizes[i] * int(i == j)
                if sp.expand(found[i, j] - p * expected) != 0:
                    return False
    return True


# --------------------------------------------------------------------------------------------- two errata


def normalisation_has_the_limit(factor: Callable[[Any], Any]) -> bool:
    """factor ||W^T 1||^2 -> ((K - 2)/lam)^2 for every K >= 2: ||W^T 1||^2 = K (w (K - 2))^2 at W = w (J - 2I)."""
    g = sp.Symbol("g", real=True)
    w = theory.weight_of_shrinkage(g, lam)
    column = TwoValued(-w, w)
    row_sum = column.diagonal + (K2 - 1) * column.off
    reached = (factor(K2) * K2 * row_sum**2).subs(g, 0)
    return zero(reached - ((K2 - 2) / lam) ** 2)


def printed_limit_differs(factor: Callable[[Any], Any]) -> bool:
    """The limit of factor ||W^T 1||^2 exceeds ((K - 2)/lam)^2 for every K >= 3, and not for K = 2."""
    excess = (factor(K3) * K3 - 1) * theory.limit(lam, K3)
    return positive(sp.factor(excess)) and theory.limit(lam, sp.Integer(2)) == 0


class Sign(NamedTuple):
    """A sign of the gradient at a state with K = 5, where c = 1/2 is rational."""

    weights: tuple[tuple[int, ...], ...]
    entry: tuple[int, int]
    sign: int


def interval_gradient(W: Any, entry: tuple[int, int]) -> Any:
    """Enclosure of grad_W at one entry, H at the simplex ETF, up to the factor c/K > 0."""
    iv, K = mpmath.iv, len(W)
    scale = iv.mpf(1) / iv.sqrt(iv.mpf(K - 1))
    rows = [[iv.mpf(v) if isinstance(v, int) else v for v in row] for row in W]
    Z = [[scale * (v - sum(row) / K) for v in row] for row in rows]
    i, j = entry

    def residual(m: int) -> Any:
        """S_im - delta_im, the true one as minus the sum of the others."""
        raised = [iv.exp(Z[n][m] - Z[m][m]) for n in range(K)]
        total = sum(raised)
        return raised[i] / total if i != m else -sum(raised[n] for n in range(K) if n != m) / total

    residuals = [residual(m) for m in range(K)]
    return residuals[j] - sum(residuals) / K


def sign_is_certified(claim: Sign) -> bool:
    """Interval arithmetic at 60 digits: the enclosure lies strictly on the side of the claimed sign."""
    with mpmath.workdps(60):
        mpmath.iv.dps = 60
        found = interval_gradient(claim.weights, claim.entry) * claim.sign
        return bool(found.a > 0)


COUNTER_EXAMPLE = ((20, 20, 20, -20, 20), *((0,) * 5,) * 4)
ON_THE_PATH = tuple(tuple(2 if i == j else -2 for j in range(5)) for i in range(5))


def sums_vanish(side: str) -> bool:
    """J (S - I) = 0 (side "columns") or (S - I) J = 0 ("rows") for all logits, K = 2..4; "rows on the path" for K."""
    if side == "rows on the path":
        S = softmax_of_columns(TwoValued.of(x, y), K2)
        return zero(S.diagonal - 1 + (K2 - 1) * S.off)
    for K in range(2, 5):
        Z = sp.Matrix(K, K, sp.symbols(f"z:{K * K}", real=True)).applyfunc(sp.exp)
        R = sp.Matrix(K, K, lambda i, j, E=Z: E[i, j] / sum(E[:, j])) - sp.eye(K)
        sums = [sum(R[:, j]) for j in range(K)] if side == "columns" else [sum(R[i, :]) for i in range(K)]
        if any(sp.simplify(total) != 0 for total in sums):
            return False
    return True


# --------------------------------------------------------------------------------- sign rule and the lock


def sign_rule_holds(decided: Callable[..., Any]) -> bool:
    """At every W: the gradient is negative on the diagonal, and off it has the sign of `decided`.

    grad_ij is a positive multiple of R_ij - mean_k R_ik, R = S - I, since H = c (I - J/K). With t_i the sum of
    S_ik over k != i: on the diagonal (S_ii - 1) (1 - 1/K) - t_i/K < 0; off it S_ij - (S_ii + t_i - 1)/K.
    """
    own, loss, others = sp.symbols("own loss others", positive=True)  # S_ij, 1 - S_ii, t_i
    diagonal = -loss - (others - loss) / K2
    if not positive(-sp.expand(diagonal)):
        return False
    off = own - (others - loss) / K2
    return zero(off - decided(own, (1 - loss) + others, K2))


class Lock(NamedTuple):
    """What locks the signs, as its check reads it."""

    spread: Callable[[Any], Any] = theory.spread_that_locks
    radius: Callable[..., Any] = theory.lock_radius
    stretch: Callable[[Any], Any] = theory.logit_stretch
    kept: Any = 1 - 2 * BELOW_ONE  # 1 - eta lam


def lock_holds(lock: Lock) -> bool:
    """Within `radius` of x I + y J all signs are J - 2I, the distance shrinks, and W_t follows from W_0.

    1. With wrong probabilities in [a, b], K `decided_by` is at least 2 (K - 1) a - (K - 2) b: in the row total
       S_ii = 1 - sum_l S_li with K - 1 terms >= a, and K - 2 terms besides S_ij are <= b. Positive below `spread`,
       and no larger ratio will do.
    2. A change D of W with |D| <= e moves Z_lj - Z_ij = c (D_lj - mean_k D_lk - D_ij + mean_k D_ik) by at most
       `stretch` c e: the sum of the absolute coefficients, two rows of (1 - 1/K) and K - 1 times 1/K.
    3. Each S_ij = 1/sum_l exp(Z_lj - Z_ij) is then within a factor exp(+-stretch c e) of its value on the family:
       their ratios are below exp(2 stretch c e) = spread at e = radius.
    4. A step with these signs takes x I + y J + D to a member of the family plus (1 - eta lam) D, |1 - eta lam| < 1.
    5. For K = 2 the sign at (0, 1) is that of S_01 + S_10 > 0, at every W.
    """
    a, excess = sp.symbols("a excess", positive=True)
    b = a * lock.spread(K3)
    worst = K3 * theory.decided_by(a, 1 - (K3 - 1) * a + a + (K3 - 2) * b, K3)
    nearer = K3 * theory.decided_by(a, 1 - (K3 - 1) * a + a + (K3 - 2) * (b - excess), K3)
    if not (zero(worst) and positive(sp.simplify(nearer))):
        return False
    row = (1 - 1 / K3) + (K3 - 1) / K3
    if not zero(lock.stretch(K3) - 2 * row):
        return False
    reach = 2 * lock.stretch(K3) * c * lock.radius(K3, c, sp)
    if not zero(sp.simplify(reach - sp.log(lock.spread(K3)))):
        return False
    D = sp.Symbol("D", real=True)
    moved = TwoValued(
        *(lock.kept * (w + D) - eta * sign for w, sign in zip((x + y, y), (-1, 1), strict=True))
    )
    on_family = TwoValued.of(lock.kept * x + 2 * eta, lock.kept * y - eta)
    if not all(zero(new - old - lock.kept * D) for new, old in zip(moved, on_family, strict=True)):
        return False
    if not positive(sp.factor(1 - lock.kept**2)):
        return False
    first, second = sp.symbols("S_01 S_10", positive=True)
    return positive(sp.expand(theory.decided_by(first, (1 - second) + first, 2)))


def solution_from_any_locked_start(shrinkage: Callable[[Any, Any], Any]) -> bool:
    """g W_0 + w (J - 2I) with w = -(1 - g)/lam goes to (1 - eta lam) times itself minus eta (J - 2I)."""
    g, start = sp.symbols("g W_0", real=True)
    then = shrinkage(g, eta * lam)
    for sign in (-1, 1):
        now = g * start + theory.weight_of_shrinkage(g, lam) * sign
        expected = then * start + theory.weight_of_shrinkage(then, lam) * sign
        if not zero((1 - eta * lam) * now - eta * sign - expected):
            return False
    return True


# --------------------------------------------------------------------------------------------- Frank-Wolfe


class Oracle(NamedTuple):
    """Frank-Wolfe as its check reads it: step size and vertex."""

    step: Callable[[Any, Any], Any] = lambda lr, rate: lr * rate
    vertex: Callable[[Any, Any], Any] = lambda g, rate: -sp.sign(g) / rate


def is_frank_wolfe(oracle: Oracle) -> bool:
    """The compiled rule is (1 - gamma) W + gamma V, and V minimises <grad, V> on the box, entry by entry."""
    size = sp.Symbol("size", positive=True)
    inside = (2 * BELOW_ONE - 1) / lam  # every number in the open box
    for g in (size, -size):
        gamma, v = oracle.step(eta, lam), oracle.vertex(g, lam)
        step = compiled_rule("signgd_step")((1 - eta * lam) * x, g, eta)
        if not zero(step - (1 - gamma) * x - gamma * v):
            return False
        if not (zero(sp.Abs(v) - 1 / lam) and positive(sp.factor(g * (inside - v)))):
            return False
    return True


def separated(term: Any, i: Any, j: Any, K: Any) -> Any:
    """Sum over i and j from 1 to K of a product of a function of i and one of j, as a product of sums over i."""
    constant, of_i, of_j = sp.Integer(1), sp.Integer(1), sp.Integer(1)
    for factor in sp.Mul.make_args(term):
        if factor.has(i) and factor.has(j):
            raise ValueError(f"{factor} does not separate")
        if factor.has(j):
            of_j *= factor
        elif factor.has(i):
            of_i *= factor
        else:
            constant *= factor
    return constant * sp.Sum(of_i, (i, 1, K)) * sp.Sum(of_j.subs(j, i), (i, 1, K))


def variance_is_a_sum_over_pairs(pair: Callable[..., Any]) -> bool:
    """E u^2 - (E u)^2 = sum_ij pair(S_i, S_j, u_i, u_j), for probabilities S of a symbolic number K of classes."""
    i, j = sp.symbols("i j", integer=True, positive=True)
    S, u = sp.IndexedBase("S", positive=True), sp.IndexedBase("u", real=True)
    terms = sp.Add.make_args(sp.expand(pair(S[i], S[j], u[i], u[j])))
    summed = sum(separated(term, i, j, K2) for term in terms)
    total, mean, square = (sp.Sum(S[i] * u[i] ** n, (i, 1, K2)) for n in range(3))
    return bool(sp.expand(summed.subs(total, 1) - (square - mean**2)) == 0)


def loss_is_convex(loss: Callable[[Any, Any], Any]) -> bool:
    """Hess = diag S - S S^T in the logits, for symbolic K; u^T Hess u is the variance of u under S.

    Shown at the logits of the true class and of two wrong ones, with any sum of exponentials over the rest (an
    identity in that sum, which for K = 2 undoes the second wrong one). Logits are linear in W.
    """
    true, *_ = logits = sp.symbols("z_true z_first z_second", real=True)
    rest = sp.Symbol("rest", nonnegative=True)
    total = rest + sum(sp.exp(v) for v in logits)
    value = loss(total, true)
    for a in logits:
        for b in logits:
            expected = sp.exp(a) / total * (int(a == b) - sp.exp(b) / total)
            if sp.simplify(sp.diff(value, a, b) - expected) != 0:
                return False
    return True


def is_the_only_minimiser(entries: Callable[[Any, Any], tuple[Any, Any]]) -> bool:
    """W* lies on the box and grad(W*)_ij (u - W*_ij) > 0 for every other u in the box, at every entry, K >= 2.

    By convexity loss(W) - loss(W*) >= sum_ij grad(W*)_ij (W_ij - W*_ij), which is above 0 unless W = W*.
    """
    star = TwoValued(*entries(lam, K2))
    gradient = gradient_on_the_path(star, symmetric_path.frame_norm(K2, xp=sp), K2)
    inside = (2 * BELOW_ONE - 1) / lam
    for g, v in zip(gradient, star, strict=True):
        if not zero(v**2 - 1 / lam**2):
            return False
        size = sp.Symbol("size", positive=True)
        direction = size if positive(g) else -size if positive(-g) else 0
        if direction == 0 or not positive(sp.factor(direction * (inside - v))):
            return False
    return True


def minimiser_entries(rate: Any, K: Any) -> tuple[Any, Any]:
    """Diagonal and off-diagonal entry of (2I - J)/lam, from the path's limit."""
    w = theory.limit_weight(rate)
    return -w, w


class Convergence(NamedTuple):
    """The sufficient condition for every start, as its check reads it."""

    growth: Callable[..., Any] = theory.growth_of_loss
    step: Callable[..., Any] = theory.step_in_logits
    slope: Callable[..., Any] = theory.least_slope
    margin: Callable[..., Any] = theory.convergence_margin
    largest_step: Any = sp.Integer(1)  # of gamma = eta lam


def every_start_converges(found: Convergence) -> bool:
    """margin > 0 and eta lam <= 1 imply W_t -> W* from every start; so do eta_t -> 0, sum eta_t = oo.

    SymPy proves the algebra; the inequalities between its pieces are argued here:

    1. A step inside the box has entries up to eta (1 + lam |W_ij|) <= 2 eta and moves logit differences by at
       most rho = stretch c 2 eta. (From outside, |W_ij| - 1/lam shrinks by 1 - eta lam: the limit is taken there.)
    2. Along the step, with ell one sample's loss and P its probability of the wrong classes,
       ell'' = Var <= rho^2 P, |ell'| <= rho P and P = 1 - S <= -log S = ell, hence ell(r) <= e^(r rho) ell(0), and
       the second-order rest is at most int_0^1 (1 - r) rho^2 e^(r rho) dr ell(0) = kappa ell(0).
    3. With <grad, V - W> <= <grad, W* - W> <= f* - f (oracle, convexity) the excess h = f - f* has
       h' <= (1 - gamma) h + kappa (h + f*): as 1 - gamma >= 0 (there eta lam <= 1 is used) the right side grows with
       h, and limsup h <= kappa f*/(gamma - kappa) if kappa < gamma.
    4. h >= psi |W_ij - W*_ij| at every entry (first-order condition; psi the smallest |grad(W*)|), so that
       limsup h < r psi brings W within the lock radius r of W*, and `lock_holds` does the rest.
    5. This is margin > 0 with q = r psi/f*. For eta_t -> 0, kappa/gamma -> 0 gives limsup h <= 0.
    """
    r, q, f = sp.symbols("r q f", positive=True)
    rho = found.step(eta, K3, sp)
    if not zero(rho - theory.logit_stretch(K3) * symmetric_path.frame_norm(K3, xp=sp) * 2 * eta):
        return False
    plain = sp.Symbol("rho", positive=True)
    rest = sp.integrate((1 - r) * plain**2 * sp.exp(r * plain), (r, 0, 1))
    kappa = found.growth(eta, K3, sp)
    if not zero(sp.expand(rest).subs(plain, rho) - kappa):
        return False
    # -log S - (1 - S) vanishes at S = 1 and falls before it: its derivative is 1 - 1/S
    S = sp.Symbol("S", positive=True)
    gap = -sp.log(S) - (1 - S)
    if not (gap.subs(S, 1) == 0 and positive(-sp.simplify(sp.diff(gap, S).subs(S, BELOW_ONE)))):
        return False
    if not positive(sp.simplify(1 - found.largest_step * BELOW_ONE)):
        return False
    gamma, extra = sp.symbols("gamma kappa", positive=True)
    fixed = extra * f / (gamma - extra)
    if not zero(sp.simplify((1 - gamma) * fixed + extra * (fixed + f) - fixed)):
        return False
    # r psi - limsup h = f margin/(gamma - kappa), with r psi = q f
    general = gamma * q - extra * (1 + q)
    if not zero(sp.simplify((q * f - fixed) - f * general / (gamma - extra))):
        return False
    scale = symmetric_path.frame_norm(K3, xp=sp)
    star = TwoValued(*minimiser_entries(lam, K3))
    Z = logits(star, scale, K3)
    gradient = gradient_on_the_path(star, scale, K3)
    least = sp.log(1 + (K3 - 1) * sp.exp(Z.off - Z.diagonal))
    if not positive(sp.factor(-gradient.diagonal / gradient.off - 1)):
        return False  # psi is the entry off the diagonal
    slope = found.slope(lam, K3, sp)
    # at lam = 2/(sqrt(K - 1) log E) the gap is log E: every lam, with powers of E for exponentials
    E = sp.Symbol("E", positive=True)
    ratio = (slope * least / (theory.lock_radius(K3, xp=sp) * gradient.off)).subs(
        lam, 2 / (sp.sqrt(K3 - 1) * sp.log(E))
    )
    if sp.simplify(ratio) != 1:
        return False
    claimed = general.subs({gamma: eta * lam, extra: kappa, q: slope})
    if sp.expand(found.margin(eta, lam, K3, sp) - claimed) != 0:
        return False
    return bool(sp.limit((sp.exp(plain) - 1 - plain) / plain, plain, 0) == 0)


# ---------------------------------------------------------------------------- a cycle, and what was measured

# what the gradient's signs must be at a state of the cycle: the lowest pair is driven up, the others down
CYCLE_SIGNS = {(i, j): -1 if i == j or {i, j} == {1, 2} else 1 for i in range(3) for j in range(3)}


def cycle_matrix(entries: tuple[Any, Any, Any], diagonal: Any) -> list[list[Any]]:
    """The state with these entries, high, middle, low, at the pairs 01, 02, 12."""
    high, middle, low = entries
    return [[diagonal, high, middle], [high, diagonal, low], [middle, low, diagonal]]


class Cycle(NamedTuple):
    """A cycle of period 3 as its check reads it, at exact rational parameters."""

    lr: Any = sp.Integer(3)
    lam: Any = sp.Rational(1, 20000)
    entries: Callable[[Any, Any], tuple[Any, Any, Any]] = theory.cycle_entries


def cycle_is_certified(cycle: Cycle) -> bool:
    """All nine signs of the gradient by interval arithmetic; with them one step only renames the classes, exactly.

    Renaming classes renames rows and columns of W, of the gradient and of the next state alike, so that three
    steps return to the start, for ever, and W never comes near (2I - J)/lam. The signs being strict, nearby states
    have the same, and come nearer by 1 - eta lam at every step: the cycle attracts.
    """
    W = cycle_matrix(cycle.entries(cycle.lr, cycle.lam), 1 / cycle.lam)
    with mpmath.workdps(60):
        mpmath.iv.dps = 60
        enclosed = [[mpmath.iv.mpf(v.p) / v.q for v in row] for row in W]
        for entry, sign in CYCLE_SIGNS.items():
            if not interval_gradient(enclosed, entry) * sign > 0:
                return False
    kept, order = 1 - cycle.lr * cycle.lam, (2, 0, 1)
    for (i, j), sign in CYCLE_SIGNS.items():
        if kept * W[i][j] - cycle.lr * sign != W[order[i]][order[j]]:
            return False
    return bool(abs(W[1][2] + 1 / cycle.lam) > 1 / (2 * cycle.lam))


def cycle_exists_from(threshold: Callable[[Any], Any]) -> bool:
    """As lam -> 0 the nine signs are those of the cycle iff eta is above the threshold.

    The pairs differ by 2 eta/3, and wrong probabilities are proportional to
    exp(c (W_ij - mean_k W_ik + mean_k W_jk)): powers of v = exp(2 c eta/9) > 1. The sign at (i, j) is that of
    2 S_ij + sum_l S_li - S_ik (K `decided_by` with S_ii = 1 - sum_l S_li). The binding one, at (2, 1), is
    z^3 - 3 z - 1 with z = v^2, whose largest root is 2 cos(pi/9).
    """
    v = sp.Symbol("v", positive=True)
    high, middle, low = theory.cycle_entries(eta, lam)
    third = 2 * eta / 3
    if any(sp.limit(sp.together(a - b), lam, 0) != third for a, b in ((high, middle), (middle, low))):
        return False
    unit = symmetric_path.frame_norm(3, xp=sp) * third / 3  # the logarithm of v is 2 c eta/9
    W = cycle_matrix((third, sp.Integer(0), -third), sp.Integer(0))
    mean = [sum(row) / 3 for row in W]
    power = {
        (i, j): sp.nsimplify(
            sp.simplify(symmetric_path.frame_norm(3, xp=sp) * (W[i][j] - mean[i] + mean[j]) / unit)
        )
        for i, j in CYCLE_SIGNS
    }
    signs = {}
    for (i, j), sign in CYCLE_SIGNS.items():
        if i != j:
            other = 3 - i - j
            size = {pair: v ** power[pair] for pair in power}
            signs[i, j] = sign * sp.expand(
                (2 * size[i, j] + size[j, i] + size[other, i] - size[i, other]) * v**4
            )
    binding = sp.expand(signs.pop((2, 1)))
    if not zero(binding - (v**6 - 3 * v**2 - 1)):
        return False
    root = 2 * sp.cos(sp.pi / 9)
    # 2 cos(3 a) = z^3 - 3 z for z = 2 cos(a); the cubic falls below its root from z = 1 on, and grows from there
    if not (zero(sp.expand_trig(2 * sp.cos(3 * x)) - ((2 * sp.cos(x)) ** 3 - 3 * 2 * sp.cos(x)))):
        return False
    cubic = sp.Poly(z**3 - 3 * z - 1, z)
    if not (
        2 * sp.cos(sp.pi / 3) == 1 and cubic.eval(1) < 0 and cubic.count_roots(1, None) == 1 and root > 1
    ):
        return False
    if not zero(2 * unit.subs(eta, threshold(sp)) - sp.log(root)):  # z = v^2 = exp(4 c eta/9)
        return False
    for expression in signs.values():
        polynomial = sp.Poly(expression, v)
        least = sp.Rational(27, 20)  # v^2 = 1.8225 is below the root 1.879
        if not (least**2 < root and polynomial.eval(least) > 0 and polynomial.count_roots(least, None) == 0):
            return False
    return True


PAIRS = tuple((i, j) for i in range(3) for j in range(3) if i != j)
VERTEX = (-1,) * len(PAIRS)  # lam W* off the diagonal


def up_to_names(signs: tuple[int, ...]) -> tuple[int, ...]:
    """One representative of the matrices of signs at `PAIRS` that differ by the names of three classes."""
    at = dict(zip(PAIRS, signs, strict=True))
    return min(tuple(at[p[i], p[j]] for i, j in PAIRS) for p in itertools.permutations(range(3)))


def every_start_arrives_at_eta_lam_1(lr: Any) -> bool:
    """K = 3, eta lam = 1: from every state of signs, by interval arithmetic, the run comes to W* = (2I - J)/lam.

    There W' = -eta sign(grad) forgets W: after one step from any start W/eta has 1 on the diagonal (`sign_rule_holds`)
    and -1, 0 or 1 off it, 3^6 states, 138 up to the names of the classes. An enclosed gradient that does not exclude
    0 is no answer.
    """
    states = {up_to_names(signs) for signs in itertools.product((-1, 0, 1), repeat=len(PAIRS))}
    following = {}
    with mpmath.workdps(30):
        mpmath.iv.dps = 30
        step = mpmath.iv.mpf(lr.p) / lr.q
        for signs in states:
            at = dict(zip(PAIRS, signs, strict=True))
            W = [[step * at.get((i, j), 1) for j in range(3)] for i in range(3)]
            enclosed = [interval_gradient(W, pair) for pair in PAIRS]
            if not all(g > 0 or g < 0 for g in enclosed):
                return False
            following[signs] = up_to_names(tuple(-1 if g > 0 else 1 for g in enclosed))
    reached = states
    for _ in states:
        reached = {following[signs] for signs in reached}
    return reached == {VERTEX}


class Basin(NamedTuple):
    """How many of ten Gaussian starts converge, by (K, eta, lam, scale)."""

    counts: Mapping[tuple[int, float, float, float], int]


MEASURED = {
    (3, 1.5, 1e-3, 20.0): 10,
    (6, 1.5, 5e-3, 20.0): 10,
    (3, 1.5, 0.1, 20.0): 10,
    (3, 20.0, 5e-5, 0.1): 10,
    (3, 20.0, 5e-5, 20.0): 0,
    (3, 0.25, 4.0, 20.0): 10,
    (3, 0.25, 7.8, 20.0): 0,
}


def converging_starts(classes: int, lr: float, decay: float, scale: float) -> int:
    """How many of the starts Gaussian(scale), seeds 0 ... 9, come to (2I - J)/lam while the start decays to e^-12."""
    import ufm

    steps = 30 + int(np.ceil(12 / (1 - abs(1 - lr * decay))))
    problem = ufm.UFM(classes, classes, features=ufm.SimplexETF())
    ends = [
        ufm.simulate(
            problem,
            ufm.SignGD(lr),
            ufm.Decoupled(decay),
            steps=steps,
            init=ufm.Gaussian(scale),
            seed=seed,
            record=ufm.At([]),
        )["W"][-1]
        for seed in range(10)
    ]
    return int(theory.converged(np.stack(ends), decay).sum())


def basin_is_as_measured(basin: Basin) -> bool:
    """The counts come out of the simulator again."""
    return all(converging_starts(*case) == count for case, count in basin.counts.items())


PROOFS = (
    Proof(
        "zhao2026.thm3.3",
        "products and softmax of matrices with two values",
        "proved for K = 2..5",
        product_rule_holds,
        TwoValued.times,
        {
            "K - 1 for K - 2": lambda a, b, K: TwoValued(
                TwoValued.times(a, b, K).diagonal, TwoValued.times(a, b, K).off + a.off * b.off
            )
        },
    ),
    Proof(
        "zhao2026.thm3.3",
        "sign(grad) = J - 2I at every x I + y J and scale of the ETF; symbolic K",
        "proved",
        signs_hold,
        Path(),
        {
            "K = 1 allowed": Path(K=k + 1),
            "features of the opposite sign": Path(scale=lambda K, xp: -symmetric_path.frame_norm(K, xp=xp)),
            "pattern J": Path(pattern=TwoValued(1, 1)),
            "exponent 1/(K - 1)": Path(entries=entries_as_in_theorem_3_4),
            "gap off by 1e-6": Path(gap=lambda w, K, xp: theory.logit_gap(w * WRONG, K, xp)),
        },
    ),
    Proof(
        "zhao2026.thm3.3",
        "W_t = w_t (J - 2I) solves the compiled rule; any schedule; symbolic K, eta, lam, t",
        "proved",
        recursion_is_solved,
        Law(),
        {
            "lam off by 1e-6": Law(weight=lambda g, rate: theory.weight_of_shrinkage(g, rate * WRONG)),
            "W_0 = 1e-6 (J - 2I)": Law(
                weight=lambda g, rate: theory.weight_of_shrinkage(g, rate) + WRONG - 1
            ),
            "shrink after the step": Law(shrink_after=True),
            "gradient itself, not its sign": Law(step=lambda w, g: compiled_rule("gd_step")(w, g, eta)),
            "features of the opposite sign": Law(features=-c),
        },
    ),
    Proof(
        "zhao2026.thm3.3",
        "Signum takes the same steps at every momentum",
        "proved",
        signum_takes_the_same_steps,
        Buffer(),
        {"buffer of the opposite sign": Buffer(start=-z), "momentum above 1": Buffer(beta=1 + z)},
    ),
    Proof(
        "zhao2026.thm3.3",
        "Adam with beta1 = beta2 = eps = 0 takes the same steps",
        "proved",
        adam_takes_the_same_steps,
        (sp.Integer(0), sp.Integer(0), sp.Integer(0)),
        {
            "eps = 1e-6": (sp.Integer(0), sp.Integer(0), WRONG - 1),
            "beta1 = 1e-6": (WRONG - 1, sp.Integer(0), sp.Integer(0)),
            "beta2 = 1e-6": (sp.Integer(0), WRONG - 1, sp.Integer(0)),
        },
    ),
    Proof(
        "zhao2026.thm3.3",
        "alpha_t -> ((K - 2)/lam)^2 for 0 < eta lam < 2, and for schedules with sum eta_s = oo",
        "proved",
        limit_holds,
        Limit(),
        {
            "limit off by 1e-6": Limit(value=lambda rate, K: theory.limit(rate, K) * WRONG),
            "((K - 1)/lam)^2": Limit(value=lambda rate, K: theory.limit(rate, K + 1)),
            "up to 2 (1 + 1e-6)": Limit(end=2 * WRONG),
        },
    ),
    Proof(
        "zhao2026.thm3.3",
        "alpha_t grows monotonically for 0 < eta lam <= 1",
        "proved",
        monotone_up_to,
        sp.Integer(1),
        {"up to 1 + 1e-6": WRONG, "up to 1 - 1e-6": 2 - WRONG},
    ),
    Proof(
        "zhao2026.thm3.3",
        "alpha = 0 for K = 2",
        "proved",
        two_classes_have_no_nc0,
        2,
        {"K = 3": 3},
    ),
    Proof(
        "zhao2026.thm3.3",
        "unequal classes: any two hold more than N/K samples",
        "proved",
        class_sizes_hold,
        theory.class_size_margin,
        {
            "N/K off by 1e-6": lambda a, b, N, K: a + b - N / K * WRONG,
            "each holds more than N/K": lambda a, b, N, K: a - N / K,
        },
    ),
    Proof(
        "zhao2026.thm3.3.erratum_limit",
        "((K - 2)/lam)^2 is the limit of ||W^T 1||^2/K",
        "proved",
        normalisation_has_the_limit,
        lambda K: 1 / K,
        {"printed: no 1/K": lambda K: sp.Integer(1), "off by 1e-6": lambda K: WRONG / K},
    ),
    Proof(
        "zhao2026.thm3.3.erratum_limit",
        "the printed limit is another number for every K >= 3",
        "proved",
        printed_limit_differs,
        lambda K: sp.Integer(1),
        {"corrected: 1/K": lambda K: 1 / K},
    ),
    Proof(
        "zhao2026.thm3.3.erratum_lemma",
        "the gradient at (0, 3) of the counter-example is negative",
        "certified",
        sign_is_certified,
        Sign(COUNTER_EXAMPLE, (0, 3), -1),
        {
            "printed: positive off the diagonal": Sign(COUNTER_EXAMPLE, (0, 3), 1),
            "another column": Sign(COUNTER_EXAMPLE, (0, 2), -1),
            "a state of the path": Sign(ON_THE_PATH, (0, 3), -1),
        },
    ),
    Proof(
        "zhao2026.thm3.3.erratum_lemma",
        "corrected: J (softmax(W H) - I) = 0 for all logits",
        "proved for K = 2..4",
        sums_vanish,
        "columns",
        {"printed: (softmax(W H) - I) J = 0": "rows"},
    ),
    Proof(
        "zhao2026.thm3.3.erratum_lemma",
        "row sums vanish on the path; symbolic K",
        "proved",
        sums_vanish,
        "rows on the path",
        {"printed: everywhere": "rows"},
    ),
    Proof(
        "ufm.signgd_lock",
        "the radius, and that the distance shrinks by 1 - eta lam; symbolic K",
        "proved",
        lock_holds,
        Lock(),
        {
            "spread off by 1e-6": Lock(spread=lambda K: theory.spread_that_locks(K) * WRONG),
            "radius off by 1e-6": Lock(radius=lambda K, *rest: theory.lock_radius(K, *rest) * WRONG),
            "row means left out": Lock(stretch=lambda K: sp.Integer(2)),
            "eta lam up to 2 (1 + 1e-6)": Lock(kept=1 - 2 * WRONG * BELOW_ONE),
        },
    ),
    Proof(
        "ufm.signgd_lock",
        "W_t = g W_0 + w_t (J - 2I) for any schedule",
        "proved",
        solution_from_any_locked_start,
        lambda g, rate: (1 - rate) * g,
        {"decay off by 1e-6": lambda g, rate: (1 - WRONG * rate) * g, "start not shrunk": lambda g, rate: g},
    ),
    Proof(
        "ufm.signgd_frank_wolfe",
        "the compiled rule is a Frank-Wolfe step with eta lam on the box",
        "proved",
        is_frank_wolfe,
        Oracle(),
        {
            "vertex off by 1e-6": Oracle(vertex=lambda g, rate: -sp.sign(g) / rate * WRONG),
            "vertex up the gradient": Oracle(vertex=lambda g, rate: sp.sign(g) / rate),
            "step size eta": Oracle(step=lambda lr, rate: lr),
        },
    ),
    Proof(
        "ufm.signgd_frank_wolfe",
        "sum_{i<j} S_i S_j (u_i - u_j)^2 >= 0 is u^T (diag S - S S^T) u; symbolic K",
        "proved",
        variance_is_a_sum_over_pairs,
        lambda a, b, u, v: a * b * (u - v) ** 2 / 2,
        {
            "off by 1e-6": lambda a, b, u, v: WRONG * a * b * (u - v) ** 2 / 2,
            "sums of two": lambda a, b, u, v: a * b * (u + v) ** 2 / 2,
        },
    ),
    Proof(
        "ufm.signgd_frank_wolfe",
        "that is the second derivative of cross-entropy by the logits, which is convex; symbolic K",
        "proved",
        loss_is_convex,
        lambda total, true: sp.log(total) - true,
        {
            "probability of the wrong classes": lambda total, true: 1 - sp.exp(true) / total,
            "off by 1e-6": lambda total, true: WRONG * sp.log(total) - true,
        },
    ),
    Proof(
        "ufm.signgd_frank_wolfe",
        "(2I - J)/lam is the only minimiser on the box; symbolic K",
        "proved",
        is_the_only_minimiser,
        minimiser_entries,
        {
            "a corner of the other sign": lambda rate, K: (-1 / rate, 1 / rate),
            "the simplex ETF in the box": lambda rate, K: (1 / rate, -1 / (rate * (K - 1))),
            "off by 1e-6": lambda rate, K: (WRONG / rate, -WRONG / rate),
        },
    ),
    Proof(
        "ufm.signgd_frank_wolfe",
        "signs at every W: negative on the diagonal, off it iff S_ij + 1/K > mean_k S_ik; symbolic K",
        "proved",
        sign_rule_holds,
        theory.decided_by,
        {
            "1/K left out": lambda own, total, K: own - total / K,
            "S_ij off by 1e-6": lambda own, total, K: theory.decided_by(own * WRONG, total, K),
        },
    ),
    Proof(
        "ufm.signgd_frank_wolfe",
        "every start converges if convergence_margin > 0 and eta lam <= 1, or eta_t -> 0 with sum eta_t = oo; algebra",
        "proved",
        every_start_converges,
        Convergence(),
        {
            "kappa too small by 1e-6": Convergence(
                growth=lambda lr, K, xp: theory.growth_of_loss(lr, K, xp) / WRONG
            ),
            "eta lam up to 1 + 1e-6": Convergence(largest_step=WRONG),
            "steps of eta": Convergence(step=lambda lr, K, xp: theory.step_in_logits(lr, K, xp) / 2),
            "slope off by 1e-6": Convergence(
                slope=lambda rate, K, xp: theory.least_slope(rate, K, xp) * WRONG
            ),
            "margin without its 1 + q": Convergence(
                margin=lambda lr, rate, K, xp: (
                    lr * rate * theory.least_slope(rate, K, xp) - theory.growth_of_loss(lr, K, xp)
                )
            ),
        },
    ),
    Proof(
        "ufm.signgd_cycle",
        "a cycle of period 3 at K = 3, eta = 3, lam = 5e-5",
        "certified",
        cycle_is_certified,
        Cycle(),
        {
            "eta = 2": Cycle(lr=sp.Integer(2)),
            "eta = 2.007": Cycle(lr=sp.Rational(2007, 1000)),
            "entries off by 1e-6": Cycle(
                entries=lambda lr, rate: tuple(WRONG * v for v in theory.cycle_entries(lr, rate))
            ),
        },
    ),
    Proof(
        "ufm.signgd_cycle",
        "the same below eta = 2: eta = 1.95, lam = 0.1",
        "certified",
        cycle_is_certified,
        Cycle(lr=sp.Rational(39, 20), lam=sp.Rational(1, 10)),
        {
            "eta = 1.9": Cycle(lr=sp.Rational(19, 10), lam=sp.Rational(1, 10)),
            "lam = 1e-4": Cycle(lr=sp.Rational(39, 20), lam=sp.Rational(1, 10000)),
        },
    ),
    Proof(
        "ufm.signgd_cycle",
        "as lam -> 0 it exists iff eta > (9 sqrt(2)/4) log(2 cos(pi/9))",
        "proved",
        cycle_exists_from,
        theory.cycle_threshold,
        {"threshold off by 1e-6": lambda xp: theory.cycle_threshold(xp) * WRONG},
    ),
    *(
        Proof(
            "ufm.signgd_basin",
            f"K = 3, eta lam = 1, eta = {lr}: every start converges, all states enumerated",
            "certified",
            every_start_arrives_at_eta_lam_1,
            lr,
            {"eta = 3": sp.Integer(3)},
        )
        for lr in (sp.Rational(1, 2), sp.Integer(1), sp.Rational(3, 2))
    ),
    Proof(
        "ufm.signgd_basin",
        "ten starts each at seven points: all or none converge, as listed in the claim",
        "measured",
        basin_is_as_measured,
        Basin(MEASURED),
        {
            "all converge at eta = 20": Basin({(3, 20.0, 5e-5, 20.0): 10}),
            "all converge at eta lam = 1.95": Basin({(3, 0.25, 7.8, 20.0): 10}),
            "none converges at eta = 3/2": Basin({(3, 1.5, 0.1, 20.0): 0}),
            "small starts need a small eta": Basin({(3, 20.0, 5e-5, 0.1): 0}),
        },
    ),
)
