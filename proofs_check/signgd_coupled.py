"""Proofs around theorem 3.4: SignGD with coupled decay at a frozen simplex ETF."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import product
from typing import Any, NamedTuple

import sympy as sp
from mpmath import iv

from proofs_check.algebra import WRONG
from proofs_check.proof import Proof
from ufm.theory import signgd_coupled as room
from ufm.theory.symmetric_path import frame_norm

k = sp.Symbol("k", integer=True, nonnegative=True)
K = k + 2  # every number of classes
s, c, lam, eta = sp.symbols("s c lam eta", positive=True)
a, b = sp.symbols("a b", real=True)
x, y = sp.symbols("x y", positive=True)


def zero(expression: Any) -> bool:
    """Whether SymPy reduces an expression to 0; a value off 0 at one point refutes it at once."""
    expression = sp.sympify(expression)
    symbols = sorted(expression.free_symbols, key=str)
    point = {name: 3 if name.is_integer else sp.Rational(7 + i, 11) for i, name in enumerate(symbols)}
    if abs(sp.N(expression.subs(point), 40)) > sp.Float("1e-30"):
        return False
    return bool(sp.simplify(expression) == 0)


def at_least_zero(expression: Any) -> bool:
    """Whether SymPy can show an expression to be >= 0, from the signs of its symbols."""
    return sp.factor(sp.together(sp.expand(expression))).is_nonnegative is True


# --------------------------------------------------------------- from the K x K gradient to two scalars


class Symmetric(NamedTuple):
    """The matrix diagonal I + everywhere J; symbolic K, for J J = K J."""

    identity: Any
    ones: Any

    def times(self, other: Symmetric) -> Symmetric:
        """Matrix product."""
        mixed = self.identity * other.ones + self.ones * other.identity + K * self.ones * other.ones
        return Symmetric(self.identity * other.identity, mixed)

    def entries(self) -> tuple[Any, Any]:
        """Diagonal and off-diagonal entry."""
        return self.identity + self.ones, self.ones


def gradient(first: Any, second: Any, scale: Any) -> tuple[Any, Any]:
    """Entries of grad_W at W = (first + second) I - second J from softmax and matrix products, H = scale (I - J/K).

    n samples of a class have equal columns and weight s/n each: s = n/(n K) for the mean, n for the sum.
    """
    W, H = Symmetric(first + second, -second), Symmetric(scale, -scale / K)
    own, other = W.times(H).entries()
    wrong = sp.exp(other) / (sp.exp(own) + (K - 1) * sp.exp(other))
    right = sp.exp(own) / (sp.exp(own) + (K - 1) * sp.exp(other))
    return Symmetric(s * (right - 1 - wrong), s * wrong).times(H).entries()


class Recursion(NamedTuple):
    """psi and the arguments of both signs, as their checks read them."""

    psi: Callable[..., Any] = room.psi
    pushes: Callable[..., Any] = room.pushes


def recursion_is_the_update(recursion: Recursion) -> bool:
    """grad_W is -(K-1) psi and psi, the pushes are -(grad + lam W) and its negative off the diagonal, K and c symbolic.

    Then W - eta sign(grad + lam W) has again two values, and its a and b are those of `reduced_step`, for sign is odd.
    """
    on, off = gradient(a, b, c)
    pull = recursion.psi(a + b, K, s, c, sp)
    if not (zero(on + (K - 1) * pull) and zero(off - pull)):
        return False
    push_a, push_b = recursion.pushes(a, b, lam, K, s, c, sp)
    if not (zero(on + lam * a + push_a) and zero(off + lam * (-b) - push_b)):
        return False
    step = room.reduced_step(a, b, eta, lam, K, s, c, sp)
    moves = [(new - old) / eta for new, old in zip(step, (a, b), strict=True)]
    return moves == [sp.sign(push) for push in room.pushes(a, b, lam, K, s, c, sp)]


def printed_psi(argument: Any, classes: Any, factor: Any, scale: Any, xp: Any) -> Any:
    """Softmax exponent c^2 (a+b) instead of c (a+b): printed as (a+b)/(K-1) at c = 1/sqrt(K-1)."""
    return room.psi(argument, classes, factor / scale, scale**2, xp)


def psi_of_the_unit_frame(argument: Any, classes: Any, factor: Any, scale: Any, xp: Any) -> Any:
    """The scale 1/sqrt(K-1) whatever the features are."""
    return room.psi(argument, classes, factor, None, xp)


def pushes_with_more_decay(first: Any, second: Any, decay: Any, *rest: Any) -> Any:
    """lam times 1 + 1e-6."""
    return room.pushes(first, second, decay * WRONG, *rest)


def pushes_without_decay(first: Any, second: Any, decay: Any, *rest: Any) -> Any:
    """The decay left out of the sign."""
    return room.pushes(first, second, 0 * decay, *rest)


def exponent_is_too_small(exponent: Callable[[Any], Any]) -> bool:
    """For every K >= 3 an exponent below that of the gradient, and equal to it at K = 2; K - 1 = (1 + r)^2."""
    r = sp.Symbol("r", positive=True)
    classes = 1 + (1 + r) ** 2
    correct = sp.simplify(frame_norm(classes, xp=sp))
    missing = sp.factor(sp.simplify(correct - exponent(classes)))
    return missing.is_positive is True and sp.limit(missing, r, 0) == 0


def nc0_is_the_square(formula: Callable[..., Any]) -> bool:
    """||W^T 1||^2/K, from (x I + y J) 1 = (x + K y) 1 and ||1||^2 = K."""
    row_sum = sum(Symmetric(a + b, -b).entries()) - (-b) + (K - 1) * (-b)
    return zero(K * row_sum**2 / K - formula(a, b, K, sp))


# ------------------------------------------------------------------------------- phases and their marks


class Balance(NamedTuple):
    """Where a push vanishes: psi(multiple x) = lam x on the line a = ratio b = ratio x."""

    multiple: Any
    ratio: Any
    decay: Any = lam
    psi: Callable[..., Any] = room.psi


def in_powers_of(variable: Any, unit: Any, expression: Any) -> Any:
    """An expression with every exp(e) written as variable^(e/unit): rational, so that SymPy decides it quickly."""
    return expression.replace(
        lambda part: isinstance(part, sp.exp), lambda part: variable ** sp.cancel(part.args[0] / unit)
    )


def unique_balance(balance: Balance) -> bool:
    """On the line a = ratio x, b = x the push of b is positive exactly up to one x > 0: it falls from s c/K to -oo.

    The push of a exceeds it by (K-2) psi on a = b, and is (K-1) times it on a = (K-1) b, where both vanish at once.
    """
    m, lam_used = balance.multiple, balance.decay
    push_a, push_b = room.pushes(balance.ratio * x, x, lam_used, K, s, c, sp)
    pull = balance.psi(m * x, K, s, c, sp)
    push_a, push_b, pull, fall = (
        in_powers_of(y, -c * m * x, value) for value in (push_a, push_b, pull, -sp.diff(pull, x))
    )
    if not zero(push_b - (pull - lam_used * x)):
        return False
    if not (zero(pull.subs(y, 1) - s * c / K) and zero(pull.subs(y, 0))):
        return False  # from s c/K at x = 0 to 0 at x = oo
    if not (sp.factor(fall).is_positive is True and lam_used.is_positive is True):
        return False  # and less and less, while lam x grows without bound
    if balance.ratio == 1:
        return zero(push_a - push_b - (K - 2) * pull)
    return zero(push_a - (K - 1) * push_b)


class Peak(NamedTuple):
    """alpha at a = b = h, and the margin whose sign decides whether it is the largest of the run."""

    height: Callable[..., Any] = lambda h: ((K - 2) * h) ** 2
    margin: Callable[..., Any] = room.peak_margin


def phase_1_height(peak: Peak) -> bool:
    """alpha = ((K-2) h)^2 at a = b = h, and nowhere more while a >= h >= b and a - (K-1) b <= (K-2) h.

    The first two are kept for ever on the grid of multiples of eta, for the push of b falls with a and that of a
    falls with b: with push_b <= 0 and push_a >= 0 at (h, h), b = h cannot rise nor a = h fall. There push_b <= 0, for
    h = eta t1 >= x1; `margin_suffices` shows the rest.
    """
    h = sp.Symbol("h", positive=True)
    above, below = sp.symbols("above below", nonnegative=True)  # a - h and h - b
    push_a, push_b = room.pushes(a, b, lam, K, s, c, sp)
    for fall in (-sp.diff(push_a, b), -sp.diff(push_b, a)):
        if sp.factor(in_powers_of(y, -c * (a + b), fall)).is_positive is not True:
            return False
    if not zero(room.nc0(h, h, K, sp) - peak.height(h)):
        return False
    lowest = (h + above) - (K - 1) * (h - below) + (K - 2) * h
    return at_least_zero(lowest) and margin_suffices(peak.margin)


def margin_suffices(margin: Callable[..., Any]) -> bool:
    """A margin >= 0 gives C <= (K-2) t1, which bounds a - (K-1) b, and push_a > 0 at a = b = eta t1; K >= 3.

    The limit cycle's bound on a - (K-1) b = p - (K-1) q is C eta: p <= eta (reach of p) from p_0 <= 0 on, and
    q >= -eta (reach of q) once b has crossed its curve. For the push let x1 = h - gap, 0 <= gap <= eta; B(2 x1) = x1
    and the slope of B is at most beta, so that push_a/lam = (K-1) B(2h) - h >= (K-1) (x1 - 2 beta gap) - h.
    """
    beta = sp.Symbol("beta", positive=True)
    spare, found = sp.symbols("spare found", nonnegative=True)  # 1 - gap/eta, and the margin
    t1 = sp.Symbol("t1", positive=True)
    classes = k + 3
    flip = sp.solve(margin(t1, beta, classes) - found, t1)[0]
    beyond_width = (classes - 2) * flip - room.width(beta, classes)
    gap = 1 - spare
    push = (classes - 1) * (flip - gap - 2 * beta * gap) - flip  # push_a/(lam eta), at least
    return at_least_zero(beyond_width) and sp.factor(sp.expand(push)).is_positive is True


# --------------------------------------------------------------------------------------- the limit cycle


class Slope(NamedTuple):
    """The slope of the curve B = psi/lam and its largest value."""

    slope: Callable[..., Any] = room.slope
    steepest: Callable[..., Any] = room.steepest


def slope_is_bounded(claim: Slope) -> bool:
    """0 < -psi'/lam <= beta, with equality where exp(c x) = K - 1; symbolic K, s, c, lam."""
    derivative = in_powers_of(y, c * x, -sp.diff(room.psi(x, K, s, c, sp), x) / lam)
    if not zero(in_powers_of(y, c * x, claim.slope(x, lam, K, s, c, sp)) - derivative):
        return False
    spare = sp.factor(claim.steepest(lam, K, s, c, sp) - derivative)
    attained = zero(spare.subs(y, K - 1))
    return sp.factor(derivative).is_positive is True and spare.is_nonnegative is True and attained


class Move(NamedTuple):
    """One step of SignGD seen from the curves, and its bounds in units of eta."""

    reach: Callable[..., Any] = room.reach
    falling: int = 1  # psi falls with x; -1 if it rose
    least: Any = 1


def one_step_bound(move: Move) -> bool:
    """p = a - A(x) moves against its sign by at least eta, at most eta (1 + 2 (K-1) beta); q = b - B(x) likewise.

    push_a = -lam p and push_b = -lam q, so a moves by -eta sign p and b by -eta sign q. By the mean value theorem A
    moves by -(K-1) g (x' - x) and B by -g (x' - x) with 0 <= g <= beta. Every move is linear in g: the ends decide.
    Then either p keeps its sign and |p'| <= |p| - eta, or it changes it (or was 0) and |p'| <= eta (reach of p).
    The least is taken where a and b move oppositely; the farthest is approached for eta -> 0, at the steepest point.
    """
    pull = room.psi(a + b, K, s, c, sp)
    p, q = a - (K - 1) * pull / lam, b - pull / lam
    push_a, push_b = room.pushes(a, b, lam, K, s, c, sp)
    if not (zero(push_a + lam * p) and zero(push_b + lam * q) and zero(p - (K - 1) * q - (a - (K - 1) * b))):
        return False
    beta = sp.Symbol("beta", positive=True)
    for which, weight in ((0, K - 1), (1, 1)):
        farthest = move.reach(beta, K)[which]
        spare, at_rest = [], []
        for signs, g in product(product((-1, 0, 1), repeat=2), (0, move.falling * beta)):
            moved = -signs[which] - weight * g * sum(signs)
            if signs[which]:
                spare += [-signs[which] * moved - move.least, farthest + signs[which] * moved]
            else:
                at_rest += [farthest - moved, farthest + moved]
        if not all(at_least_zero(value) for value in spare + at_rest):
            return False
        if not {0} <= {sp.expand(value) for value in spare[::2]} & {
            sp.expand(value) for value in spare[1::2]
        }:
            return False
    return True


def width_holds(formula: Callable[..., Any]) -> bool:
    """C = (reach of p) + (K-1) (reach of q) at the steepest slope is K + s c^2/lam; a - (K-1) b = p - (K-1) q."""
    C = formula(room.steepest(lam, K, s, c, sp), K)
    P, Q = room.reach(room.steepest(lam, K, s, c, sp), K)
    return zero(C - (K + s * c**2 / lam)) and zero(C - P - (K - 1) * Q)


class Nearness(NamedTuple):
    """Lower bound on the slope of x - K psi(x)/lam, and the multiple of b* at which this vanishes."""

    least: Any = 1
    multiple: Any = K


def cycle_is_near_the_end_point(near: Nearness) -> bool:
    """|x - x*| <= |p + q|, x = a + b and x* = a* + b*: p + q = x - K psi(x)/lam, which rises by 1 or more per unit.

    With |p| and |q| at most O(eta) in the end, every slope that a step meets there tends to beta* = -psi'(x*)/lam for
    eta -> 0, by continuity, and in the bounds on |p'| and |q'| it takes the place of beta, the largest slope.
    """
    push_a, push_b = room.pushes(a, b, lam, K, s, c, sp)
    curve = x - K * room.psi(x, K, s, c, sp) / lam
    if not zero(-(push_a + push_b) / lam - curve.subs(x, a + b)):
        return False
    rise = in_powers_of(y, c * x, sp.diff(curve, x))
    least_is_sharp = zero(sp.limit(rise, y, sp.oo) - near.least)
    if not (sp.factor(rise - near.least).is_nonnegative is True and least_is_sharp):
        return False
    of_balance = room.psi(K * y, K, s, c, sp) - lam * y  # 0 at y = b*
    return zero(curve.subs(x, near.multiple * y) + K * of_balance / lam)


class Envelope(NamedTuple):
    """How far e lies above R eta_t, and what is subtracted from P at a step of rate h."""

    extra: Any = sp.Symbol("extra", nonnegative=True)
    fall: Any = 1


def envelope_falls(claim: Envelope) -> bool:
    """P' = max(P - h, R h) tends to 0 from every P_0 exactly if the rates h tend to 0 and have an infinite sum.

    Let R h <= e for all later rates. If P <= max(P_0 - S, e) after rates of sum S, the same holds one step later:
    each term of max(max(P_0 - S, e) - h, R h) is at most P_0 - S - h or at most e. So P_t <= e once S >= P_0, for
    every e > 0; no order of the rates is used. Conversely P' >= P - h and P' >= R h: from P_0 > sum eta_t, or with
    rates that do not tend to 0, P does not tend to 0. The same for q, and a - (K-1) b = p - (K-1) q.
    """
    before, total, h = sp.symbols("before total h", nonnegative=True)
    R = sp.Symbol("R", positive=True)
    e = R * h + claim.extra
    reached = (before - total - h, e - h, R * h)
    allowed = (before - total - claim.fall * h, e)
    forward = all(any(at_least_zero(bound - value) for bound in allowed) for value in reached)
    least = (before - claim.fall * h, R * h)
    backward = all(any(at_least_zero(value - bound) for value in (before - h, R * h)) for bound in least)
    return forward and backward


def schedule_brings_nc0_to_zero(rate: Callable[[Any], Any]) -> bool:
    """Whether rates have the two properties of `envelope_falls`: limit 0 and an infinite sum."""
    t = sp.Symbol("t", integer=True, positive=True)
    return sp.limit(rate(t), t, sp.oo) == 0 and not sp.Sum(rate(t), (t, 1, sp.oo)).is_convergent()


def left_over(length: Callable[[Any, Any], Any]) -> tuple[Any, Any]:
    """Bounds on |p| and |q| after a stage, beyond reach times its rate, in units of that rate.

    At a constant rate n steps make max(P - n eta, R eta) of P, and a stage of eta begins with P <= R f eta. The
    length is that of p, whose reach R_p is the larger one.
    """
    over = sp.Symbol("over", positive=True)
    f = 1 + over
    reaches = room.reach(room.steepest(lam, K, s, c, sp), K)
    return tuple(R * f - length(reaches[0], f) - R for R in reaches)


def stages_are_long_enough(length: Callable[[Any, Any], Any]) -> bool:
    """Stages of eta_0/f^j keep |p| <= R_p eta_j and |q| <= R_q eta_j at their ends, so that alpha -> 0."""
    return all(at_least_zero(-left) for left in left_over(length))


def stages_are_not_too_long(length: Callable[[Any, Any], Any]) -> bool:
    """The bound on |p| leaves nothing to spare at this length: it is the shortest that the bound allows."""
    return zero(left_over(length)[0])


def stage_length(R: Any, f: Any) -> Any:
    """(f - 1) R, the number of steps of a stage; R = 1 + s c^2/(2 lam)."""
    return (f - 1) * R


class End(NamedTuple):
    """Where phase 2 ends, relative to a*, in units of eta."""

    range: Callable[..., Any] = room.phase_2_range


def phase_2_end_holds(end: End) -> bool:
    """a - a* = ((1 + g) p - (K-1) g q)/(1 + K g), largest at p = P, q = -Q, g = lowest, smallest at 0, Q, highest.

    With x - x* = d the curves give a = a* - (K-1) g d + p, b = b* - g d + q, d their sum. The step at which a first
    does not grow has p >= 0 after p < 0, so 0 <= p <= P eta; a grew by eta at every step before. P >= Q, so the upper
    end falls with g; the lower one falls too.
    """
    p, q, d = sp.symbols("p q d", real=True)
    g, beta, lowest, highest = sp.symbols("g beta lowest highest", positive=True)
    solved = sp.solve(-K * g * d + p + q - d, d)[0]
    deviation = sp.simplify(-(K - 1) * g * solved + p)
    if not zero(deviation - ((1 + g) * p - (K - 1) * g * q) / (1 + K * g)):
        return False
    P, Q = room.reach(highest, K)
    below, above = end.range(lowest, highest, K)
    if not zero(above - deviation.subs({p: P, q: -Q, g: lowest})):
        return False
    if not zero(below - deviation.subs({p: 0, q: Q, g: highest})):
        return False
    P, Q = room.reach(beta, K)
    upper, lower = deviation.subs({p: P, q: -Q}), deviation.subs({p: 0, q: Q})
    return all(at_least_zero(-sp.diff(value, g)) for value in (upper, lower))


# ----------------------------------------------------------------------------------------------- table 1


def table_1_rows(rows: Mapping[str, str]) -> bool:
    """Whether alpha -> 0: limits of both SignGD rows for K >= 3, from W_0 = 0.

    Decoupled, 0 < eta lam < 1: both signs are those of psi > 0, so a' = (1 - eta lam) a + eta, b the same, and
    a = b -> 1/lam with alpha -> ((K-2)/lam)^2. Coupled, rates eta_0/f^j in stages of `stage_length` or more steps:
    alpha -> 0 by the bound on the limit cycle.
    """
    t = sp.Symbol("t", integer=True, positive=True)
    kept = sp.Symbol("kept", positive=True)  # 1 - eta lam in (0, 1), as kept/(1 + kept)
    shrink, rate = kept / (1 + kept), 1 / (lam * (1 + kept))
    grown = (1 - shrink**t) / lam
    if not zero(sp.powsimp(shrink * grown + rate - (1 - shrink ** (t + 1)) / lam)):
        return False
    if not zero(room.psi(x, K, s, c, sp) - s * c / (sp.exp(c * x) + K - 1)):
        return False
    limit = room.nc0(1 / lam, 1 / lam, k + 3, sp)  # at K = k + 3
    truth = {
        "decoupled": "no" if sp.factor(limit).is_positive else "yes",
        "coupled, step-wise decay": "yes" if stages_are_long_enough(stage_length) else "no",
    }
    return dict(rows) == truth


# ----------------------------------------------------------------------------------------- certification

# (lr, lam, K); as float64 numbers, which a run has too
TABLE = (
    (1e-2, 5e-3, 10),
    (1e-3, 5e-3, 10),
    (1e-2, 1e-3, 3),
    (1e-3, 1e-3, 2),
    (3e-4, 5e-4, 100),
    (1e-3, 1e-9, 10),
    (1e-3, 1e-9, 2),
    (1e-9, 1e-9, 10**6),
    (1e-8, 1e-12, 10**6),
    (1e-2, 1e-1, 3),
    (7e-6, 2e-6, 1000),
)
PRINTED = {
    "x1": "0.63339",
    "peak": "26.2144",
    "peak_continuous": "25.6756",
    "a_end": "4.30731",
    "b_end": "0.478590",
}


def marks_are_certified(marks: Callable[..., room.Marks]) -> bool:
    """Every mark of the table lies within 1e-13 of the true one, steps are exact: signs decided in interval arithmetic.

    psi(m x) - lam x falls with x, so it has its root between two x at which its sign is certain.
    """
    iv.dps = 40
    margin = iv.mpf(1) + iv.mpf([-1, 1]) * iv.mpf("1e-13")

    def encloses(multiple: int, root: float, decay: float, classes: int) -> bool:
        ends = (iv.mpf(root) * margin.a, iv.mpf(root) * margin.b)
        low, high = (room.psi(multiple * end, iv.mpf(classes), xp=iv) - iv.mpf(decay) * end for end in ends)
        return bool(low > 0 and high < 0)

    def near(value: float, exact: Any) -> bool:
        return bool(value in exact * margin)

    for lr, decay, classes in TABLE:
        found = marks(lr, decay, classes)
        if not (encloses(2, found.x1, decay, classes) and encloses(classes, found.b_end, decay, classes)):
            return False
        flips = {math.ceil(found.x1 * (1 + error) / lr) for error in (-2e-13, 2e-13)}
        if flips != {found.first_flip}:
            return False
        others = (
            (found.peak, ((classes - 2) * iv.mpf(lr) * found.first_flip) ** 2),
            (found.peak_continuous, ((classes - 2) * iv.mpf(found.x1)) ** 2),
            (found.a_end, (classes - 1) * iv.mpf(found.b_end)),
            (found.phase_2_end, (classes - 1) * iv.mpf(found.b_end) / iv.mpf(lr)),
            (found.width, classes + 1 / (iv.mpf(decay) * classes * (classes - 1))),
        )
        if not all(near(value, exact) for value, exact in others):
            return False
    example = marks(*TABLE[0])
    return all(
        f"{getattr(example, name):.{len(text.split('.')[1])}f}" == text for name, text in PRINTED.items()
    )


def small_eta_width_is_certified(formula: Callable[..., Any]) -> bool:
    """K + 4 (K-1) beta* of the table within 1e-12 of an interval that holds it: b* bracketed as in the marks."""
    iv.dps = 40
    margin = iv.mpf(1) + iv.mpf([-1, 1]) * iv.mpf("1e-13")
    for _, decay, classes in TABLE:
        end = iv.mpf(float(room.end_point(decay, classes)[1])) * margin
        exact = room.slope(classes * end, iv.mpf(decay), iv.mpf(classes), xp=iv)
        enclosure = room.width(exact, iv.mpf(classes))
        if formula(decay, classes, small_eta=True) not in enclosure * margin:
            return False
    return True


def marks_of(**wrong: Any) -> Callable[..., room.Marks]:
    """Marks with one of them wrong by a relative error."""

    def changed(*arguments: Any) -> room.Marks:
        found = room.marks(*arguments)
        return room.Marks(
            **{**vars(found), **{name: getattr(found, name) * factor for name, factor in wrong.items()}}
        )

    return changed


def marks_of_the_printed_exponent(lr: float, decay: float, classes: int) -> room.Marks:
    """Marks with (a+b)/(K-1) in the exponent."""
    scale = float(frame_norm(classes))
    return room.marks(lr, decay, classes, 1 / classes / scale, scale**2)


def marks_of_more_decay(lr: float, decay: float, classes: int) -> room.Marks:
    """Marks at lam (1 + 1e-6)."""
    return room.marks(lr, decay * float(WRONG), classes)


def times(formula: Callable[..., Any], factor: Any) -> Callable[..., Any]:
    """A formula, or both numbers of a pair, times a factor."""

    def changed(*arguments: Any) -> Any:
        value = formula(*arguments)
        return tuple(factor * part for part in value) if isinstance(value, tuple) else factor * value

    return changed


PROOFS = (
    Proof(
        "zhao2026.thm3.4",
        "K x K update = two-scalar recursion, symbolic K, s and c",
        "proved",
        recursion_is_the_update,
        Recursion(),
        {
            "psi off by 1e-6": Recursion(psi=times(room.psi, WRONG)),
            "printed exponent": Recursion(psi=printed_psi),
            "features of another scale": Recursion(psi=psi_of_the_unit_frame),
            "decay off by 1e-6": Recursion(pushes=pushes_with_more_decay),
            "no decay in the sign": Recursion(pushes=pushes_without_decay),
        },
    ),
    Proof(
        "zhao2026.thm3.4",
        "phase 1: a = b = eta t up to ceil(x1/eta), psi(2 x1) = lam x1, one x1",
        "proved",
        unique_balance,
        Balance(2, 1),
        {
            "psi(x1) = lam x1": Balance(1, 1),
            "multiple off by 1e-6": Balance(2 * WRONG, 1),
            "no decay": Balance(2, 1, decay=sp.Integer(0)),
            "printed exponent": Balance(2, 1, psi=printed_psi),
        },
    ),
    Proof(
        "zhao2026.thm3.4",
        "alpha at the end of phase 1, largest of the run where `peak_is_global`",
        "proved",
        phase_1_height,
        Peak(),
        {
            "off by 1e-6": Peak(lambda h: WRONG * ((K - 2) * h) ** 2),
            "(K-1) h": Peak(lambda h: ((K - 1) * h) ** 2),
            "C <= (K-1) t1": Peak(margin=lambda t1, beta, n: (n - 1) * t1 - room.width(beta, n)),
            "margin off by 1e-6": Peak(margin=lambda t1, beta, n: WRONG * (n - 2) * t1 - room.width(beta, n)),
            "C left out": Peak(margin=lambda t1, beta, n: (n - 2) * t1),
        },
    ),
    Proof(
        "zhao2026.thm3.4",
        "one end point: a* = (K-1) b*, psi(K b*) = lam b*",
        "proved",
        unique_balance,
        Balance(K, K - 1),
        {
            "a* = K b*": Balance(K, K),
            "multiple off by 1e-6": Balance(K * WRONG, K - 1),
            "no decay": Balance(K, K - 1, decay=sp.Integer(0)),
        },
    ),
    Proof(
        "zhao2026.thm3.4",
        "end of phase 2 within a range of steps of a*/eta, the same for all eta",
        "proved",
        phase_2_end_holds,
        End(),
        {
            "range off by 1e-6": End(times(room.phase_2_range, WRONG)),
            "slopes exchanged": End(lambda low, high, classes: room.phase_2_range(high, low, classes)),
        },
    ),
    Proof(
        "zhao2026.thm3.4",
        f"x1, first flip, peak, a*, b*, width at {len(TABLE)} settings, the example among them",
        "certified",
        marks_are_certified,
        room.marks,
        {
            **{
                f"{name} off by 1e-6": marks_of(**{name: float(WRONG)})
                for name in ("x1", "peak", "a_end", "b_end")
            },
            "first flip one step late": lambda *of: room.Marks(
                **{**vars(room.marks(*of)), "first_flip": room.marks(*of).first_flip + 1}
            ),
            "printed exponent": marks_of_the_printed_exponent,
            "decay off by 1e-6": marks_of_more_decay,
        },
    ),
    Proof(
        "ufm.signgd_limit_cycle",
        "0 < -psi'/lam <= beta = s c^2/(4 (K-1) lam), attained",
        "proved",
        slope_is_bounded,
        Slope(),
        {
            "beta too small by 1e-6": Slope(steepest=times(room.steepest, 1 / WRONG)),
            "beta too large by 1e-6": Slope(steepest=times(room.steepest, WRONG)),
            "slope off by 1e-6": Slope(slope=times(room.slope, WRONG)),
        },
    ),
    Proof(
        "ufm.signgd_limit_cycle",
        "|p'| <= max(|p| - eta, eta (1 + 2 (K-1) beta)), q likewise; every eta, symmetric start",
        "proved",
        one_step_bound,
        Move(),
        {
            "reach too small by 1e-6": Move(times(room.reach, 1 / WRONG)),
            "reach too large by 1e-6": Move(times(room.reach, WRONG)),
            "a psi that rises": Move(falling=-1),
            "least move off by 1e-6": Move(least=WRONG),
        },
    ),
    Proof(
        "ufm.signgd_limit_cycle",
        "|a - (K-1) b| <= (K + s c^2/lam) eta in the end",
        "proved",
        width_holds,
        room.width,
        {
            "off by 1e-6": times(room.width, WRONG),
            "twice q's reach missing": lambda beta, classes: room.reach(beta, classes)[0],
        },
    ),
    Proof(
        "ufm.signgd_limit_cycle",
        "|a + b - a* - b*| <= |p + q|, so that beta* takes the place of beta for eta -> 0",
        "proved",
        cycle_is_near_the_end_point,
        Nearness(),
        {
            "least slope off by 1e-6": Nearness(least=WRONG),
            "least slope not sharp": Nearness(least=1 / WRONG),
            "x* off by 1e-6": Nearness(multiple=K * WRONG),
            "x* = a*": Nearness(multiple=K - 1),
        },
    ),
    Proof(
        "ufm.signgd_limit_cycle",
        f"constant K + 4 (K-1) beta* for eta -> 0 at {len(TABLE)} settings",
        "certified",
        small_eta_width_is_certified,
        room.limit_cycle_width,
        {
            "off by 1e-6": lambda *of, **options: float(WRONG) * room.limit_cycle_width(*of, **options),
            "beta instead of beta*": lambda *of, **options: room.limit_cycle_width(*of),
        },
    ),
    Proof(
        "ufm.signgd_limit_cycle",
        "alpha -> 0 if eta_t -> 0 and sum eta_t = oo, monotone or not; the bound needs both",
        "proved",
        envelope_falls,
        Envelope(),
        {
            "rates may exceed e/R": Envelope(extra=-sp.Symbol("missing", positive=True)),
            "falls faster by 1e-6": Envelope(fall=WRONG),
            "falls slower by 1e-6": Envelope(fall=1 / WRONG),
        },
    ),
    Proof(
        "ufm.signgd_limit_cycle",
        "1/(t log(t+1)) falls to 0 with an infinite sum",
        "proved",
        schedule_brings_nc0_to_zero,
        lambda t: 1 / (t * sp.log(t + 1)),
        {
            "finite sum": lambda t: 1 / 2**t,
            "finite sum by a hair": lambda t: 1 / t ** (1 + sp.Rational(1, 10)),
            "constant rate": lambda t: sp.Integer(1),
        },
    ),
    Proof(
        "ufm.signgd_limit_cycle",
        "finite sums suffice: stages of eta_0/f^j of (f - 1) (1 + s c^2/(2 lam)) steps",
        "proved",
        stages_are_long_enough,
        stage_length,
        {
            "shorter by 1e-6": times(stage_length, 1 / WRONG),
            "q's reach for p's": lambda R, f: (f - 1) * room.reach(room.steepest(lam, K, s, c, sp), K)[1],
            "one step": lambda R, f: 1,
        },
    ),
    Proof(
        "ufm.signgd_limit_cycle",
        "no shorter stage keeps the bound",
        "proved",
        stages_are_not_too_long,
        stage_length,
        {"longer by 1e-6": times(stage_length, WRONG), "f R": lambda R, f: f * R},
    ),
    Proof(
        "zhao2026.thm3.4.erratum_exponent",
        "corrected exponent (a+b)/sqrt(K-1), symbolic K",
        "proved",
        recursion_is_the_update,
        Recursion(),
        {"printed: (a+b)/(K-1)": Recursion(psi=printed_psi)},
    ),
    Proof(
        "zhao2026.thm3.4.erratum_exponent",
        "printed exponent too small for every K >= 3",
        "proved",
        exponent_is_too_small,
        lambda classes: 1 / (classes - 1),
        {
            "corrected exponent": lambda classes: frame_norm(classes, xp=sp),
            "printed one off by 1e-6": lambda classes: WRONG / (classes - 1),
        },
    ),
    Proof(
        "zhao2026.thm3.4.erratum_alpha",
        "alpha = (a - (K-1) b)^2, symbolic K",
        "proved",
        nc0_is_the_square,
        room.nc0,
        {
            "printed: 1/N": lambda first, second, classes, xp: room.nc0(first, second, classes, xp) / classes,
            "off by 1e-6": times(room.nc0, WRONG),
        },
    ),
    Proof(
        "zhao2026.table1.erratum",
        "decoupled: no (0 < eta lam < 1); coupled with long enough stages: yes; K >= 3",
        "proved",
        table_1_rows,
        {"decoupled": "no", "coupled, step-wise decay": "yes"},
        {"printed": {"decoupled": "yes", "coupled, step-wise decay": "no"}},
    ),
)
