"""Proofs of the two-valued path; the update rules are those that the simulator compiles, run on symbols."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import sympy as sp

from proofs_check.algebra import WRONG, is_zero
from proofs_check.compiled_rule import compiled_rule
from proofs_check.proof import Proof
from ufm.theory import symmetric_path

K = sp.Symbol("K", integer=True, positive=True)
d, o, gap = sp.symbols("d o gap", real=True)
c, s = sp.symbols("c s", positive=True)  # H = c (I - J/K); factor of the sum over classes
i, j = sp.symbols("i j", integer=True, nonnegative=True)
lr, lam_c, lam_d = sp.symbols("eta lam_c lam_d", positive=True)
beta, beta1, beta2 = sp.symbols("beta beta1 beta2", positive=True)


def two_valued(n: int, diagonal: Any, off_diagonal: Any) -> Any:
    """The n x n matrix of two values."""
    return sp.Matrix(n, n, lambda row, column: diagonal if row == column else off_diagonal)


# ------------------------------------------------------------------------------- the gradient on the path


def multiply(left: tuple[Any, Any], right: tuple[Any, Any]) -> tuple[Any, Any]:
    """(x I + y J)(u I + v J) for symbolic K, by J^2 = K J."""
    (x, y), (u, v) = left, right
    return x * u, x * v + y * u + K * y * v


def in_i_and_j(diagonal: Any, off_diagonal: Any) -> tuple[Any, Any]:
    """x, y with x I + y J of these entries."""
    return diagonal - off_diagonal, off_diagonal


def gradient_for_every_number_of_classes(entries: Callable[..., Any]) -> bool:
    """Grad W = R H^T for symbolic K, with the residual of a column from the softmax of its logits.

    1. J^2 = K J as a sum: entry (i, j) of J J is sum_k 1.
    2. Z = W H is two-valued; a column has one logit at gap above the K - 1 others, so that by shift invariance the
       wrong probability is 1/(exp(gap) + sum over the others of 1), and the true one the rest.
    3. R = s (softmax - onehot) is two-valued, and so is its product with H^T = H.
    """
    if sp.Sum(1, (j, 1, K)).doit() != K:
        return False
    H = (c, -c / K)
    x, _ = multiply(in_i_and_j(d, o), H)
    wrong = 1 / (sp.exp(x) + sp.Sum(1, (j, 1, K - 1)).doit())
    right = sp.exp(x) * wrong
    if not is_zero(right + (K - 1) * wrong - 1):
        return False
    R = in_i_and_j(s * (right - 1), s * wrong)
    u, v = multiply(R, H)
    diagonal, off_diagonal = entries(symmetric_path.logit_gap(d, o, c), K, c, s, sp)
    return is_zero(u + v - diagonal) and is_zero(v - off_diagonal)


class Data(NamedTuple):
    """Gradient and class sizes as the check on matrices reads them."""

    entries: Callable[..., Any] = symmetric_path.gradient_entries
    extra_samples_of_the_first_class: int = 0
    smoothed_first_class: Any = 0


def cross_entropy_of(W: Any, H: Any, data: Data) -> Any:
    """Cross-entropy over one sample of each class, more of the first if asked for, times s."""
    Z, n = W * H, W.shape[0]
    total = sp.Integer(0)
    for k in range(n):
        loss = sp.log(sum(sp.exp(z) for z in Z[:, k])) - Z[k, k]
        if k == 0:
            loss += data.smoothed_first_class * Z[k, k]
        total += loss * (1 + data.extra_samples_of_the_first_class * (k == 0))
    return s * total


def gradient_is_two_valued(data: Data) -> bool:
    """Derivatives of the loss by every entry of W, at two-valued W, for K = 2..4.

    The gap is K log y, so that everything is a rational function of y > 0.
    """
    y = sp.Symbol("y", positive=True)
    for n in range(2, 5):
        W = sp.Matrix(n, n, lambda row, column: sp.Symbol(f"w{row}{column}", real=True))
        H = c * (sp.eye(n) - sp.ones(n, n) / n)
        loss = cross_entropy_of(W, H, data)
        point = dict(zip(W, two_valued(n, o + n * sp.log(y) / c, o), strict=True))
        diagonal, off_diagonal = data.entries(n * sp.log(y), n, c, s, sp)
        for row in range(n):
            for column in range(n):
                found = (
                    sp.diff(loss, W[row, column]).subs(point).replace(sp.exp, lambda x: sp.exp(sp.expand(x)))
                )
                if sp.cancel(sp.together(found - (diagonal if row == column else off_diagonal))) != 0:
                    return False
    return True


def printed_exponent(gap: Any, classes: Any, norm: Any, samples_factor: Any, xp: Any) -> Any:
    """The exponent (a + b)/(K - 1) that the paper prints, for c = 1/sqrt(K - 1): gap c instead of gap."""
    return symmetric_path.gradient_entries(gap * norm, classes, norm, samples_factor, xp)


def ratio_minus_k(gap: Any, classes: Any, norm: Any, samples_factor: Any, xp: Any) -> Any:
    """The diagonal entry -K psi."""
    _, psi = symmetric_path.gradient_entries(gap, classes, norm, samples_factor, xp)
    return -classes * psi, psi


def slope_off_by_1e_6(gap: Any, classes: Any, norm: Any, samples_factor: Any, xp: Any) -> Any:
    """Both entries wrong by 1e-6."""
    return tuple(WRONG * x for x in symmetric_path.gradient_entries(gap, classes, norm, samples_factor, xp))


# ------------------------------------------------------------------------------------ elementwise updates

same = sp.Symbol("same")  # 1 on the diagonal, 0 off it


def entry(name: str) -> Any:
    """Entry (i, j) of a two-valued K x K matrix: it knows i and j by `same` alone."""
    on, off = sp.symbols(f"{name}_d {name}_o")
    return off + (on - off) * same


class Updates(NamedTuple):
    """Entry (i, j) of state and buffers after a step, and the gradient that the step gets."""

    step: Callable[..., tuple[Any, Any, Any]]
    gradient: Any = entry("g")


def elementwise_step(theta: Any, g: Any, m: Any, v: Any) -> tuple[Any, Any, Any]:
    """An arbitrary elementwise rule with two buffers, with coupled decay in g and both orders of the shrink."""
    decay, before, after = sp.symbols("decay before after")
    new, *buffers = (sp.Function(f"F{n}")(before * theta, g + decay * theta, m, v) for n in range(3))
    return after * new, buffers[0], buffers[1]


def rule_that_knows_its_row(theta: Any, g: Any, m: Any, v: Any) -> tuple[Any, Any, Any]:
    """The same, with a rate of its own in the first row."""
    new, *buffers = elementwise_step(theta, g, m, v)
    return new * (1 + sp.KroneckerDelta(i, 0) / 10**6), buffers[0], buffers[1]


def buffer_that_knows_its_row(theta: Any, g: Any, m: Any, v: Any) -> tuple[Any, Any, Any]:
    """The same, with another second buffer in the first row."""
    new, first, second = elementwise_step(theta, g, m, v)
    return new, first, second + sp.KroneckerDelta(i, 0) / 10**6


def two_valued_form_is_kept(updates: Updates) -> bool:
    """Two-valued state, gradient and buffers stay so through one step, hence through any number, for symbolic K.

    Entry (i, j) after the step depends on (i, j) by whether i = j alone.
    """
    found = updates.step(entry("w"), updates.gradient, entry("m"), entry("v"))
    return all(not {i, j} & sp.sympify(x).free_symbols for x in found)


# ----------------------------------------------------------------------------- the compiled rules on symbols


def exactly(expression: Any) -> Any:
    """An expression with rational numbers for the rule's floats."""
    return sp.simplify(sp.nsimplify(expression))


def adam(
    theta: Any, g: Any, m: Any, v: Any, eps: Any, first: Any, second: Any, t: Any
) -> tuple[Any, Any, Any]:
    """One step of Adam by the compiled rule."""
    theta, m, v = compiled_rule("adam_step")(
        theta, g, m, v, lr, first, second, eps, 1 / (1 - first**t), 1 / (1 - second**t)
    )
    return theta, m, v


class Averages(NamedTuple):
    """Adam's hyper-parameters."""

    beta1: Any = sp.Integer(0)
    beta2: Any = sp.Integer(0)
    eps: Any = sp.Integer(0)


def adam_is_signgd(averages: Averages) -> bool:
    """theta' is that of SignGD for every real gradient and whatever the buffers hold, at every t >= 1.

    The gradient is split by its sign, so that the rule's own comparison is decided.
    """
    theta, m = sp.symbols("theta m", real=True)
    v, size = sp.symbols("v size", positive=True)
    t = sp.Symbol("t", integer=True, positive=True)
    for g in (size, -size):
        found, _, _ = adam(theta, g, m, v, averages.eps, averages.beta1, averages.beta2, t)
        if not is_zero(exactly(found - compiled_rule("signgd_step")(theta, g, lr))):
            return False
    resting, _, _ = adam(theta, sp.Integer(0), sp.Integer(0), sp.Integer(0), sp.Integer(0), 0, 0, t)
    return is_zero(exactly(resting - compiled_rule("signgd_step")(theta, sp.Integer(0), lr)))


# --------------------------------------------------------------------------- laws on the path from W_0 = 0


def signgd(theta: Any, g: Any, m: Any, v: Any) -> tuple[Any, Any, Any]:
    """SignGD by the compiled rule."""
    return compiled_rule("signgd_step")(theta, g, lr), m, v


def signum(theta: Any, g: Any, m: Any, v: Any) -> tuple[Any, Any, Any]:
    """Signum by the compiled rule."""
    return (*compiled_rule("signum_step")(theta, g, m, lr, beta), v)


def adam_without_eps(theta: Any, g: Any, m: Any, v: Any) -> tuple[Any, Any, Any]:
    """Adam with eps = 0 by the compiled rule, its bias corrections free."""
    factors = sp.symbols("factor1 factor2", positive=True)
    theta, m, v = compiled_rule("adam_step")(theta, g, m, v, lr, beta1, beta2, sp.Integer(0), *factors)
    return theta, m, v


def adam_with_eps(theta: Any, g: Any, m: Any, v: Any) -> tuple[Any, Any, Any]:
    """The same with eps > 0, which sets a scale."""
    factors = sp.symbols("factor1 factor2", positive=True)
    eps = sp.Symbol("eps", positive=True)
    theta, m, v = compiled_rule("adam_step")(theta, g, m, v, lr, beta1, beta2, eps, *factors)
    return theta, m, v


def gradient_descent(theta: Any, g: Any, m: Any, v: Any) -> tuple[Any, Any, Any]:
    """GD by the compiled rule."""
    return compiled_rule("gd_step")(theta, g, lr), m, v


def heavy_ball(theta: Any, g: Any, m: Any, v: Any) -> tuple[Any, Any, Any]:
    """Heavy ball by the compiled rule."""
    return (*compiled_rule("momentum_step")(theta, g, m, lr, beta, 0.0), v)


def nesterov(theta: Any, g: Any, m: Any, v: Any) -> tuple[Any, Any, Any]:
    """Nesterov's momentum by the compiled rule."""
    return (*compiled_rule("momentum_step")(theta, g, m, lr, beta, 1.0), v)


class Law(NamedTuple):
    """A form of W that rules keep, as its check reads it."""

    rules: tuple[Callable[..., Any], ...]
    values: Callable[[Any], tuple[Any, Any]]  # diagonal and off-diagonal entry by the weight
    row_sum: Callable[[Any], Any]
    coupled: Any = sp.Integer(0)
    gradient: Callable[..., Any] = symmetric_path.gradient_entries


SCALE_FREE = Law((signgd, signum, adam_without_eps), symmetric_path.opposite_values, lambda w: (K - 2) * w)
LINEAR = Law(
    (gradient_descent, heavy_ball, nesterov),
    lambda w: symmetric_path.balanced_values(w, K),
    lambda w: sp.Integer(0),
    lam_c,
)


def law_is_kept(law: Law) -> bool:
    """One step of each rule keeps the form of W and the ratios of the buffers, for symbolic K >= 2, and W_0 = 0 has it.

    With K = n + 1, n >= 1 and g the positive off-diagonal gradient: buffers m and v of the diagonal are -n and n^2
    times those off it (as after no step, where all are 0, m >= 0 and v >= 0). The decoupled shrink acts on both
    entries before or after the step and keeps the form; it is checked as a factor before the step.
    """
    n = sp.Symbol("n", integer=True, positive=True)
    g_d, g_o = law.gradient(gap, K, c, s, sp)
    weight = sp.Symbol("w", real=True)
    ratio = sp.simplify((g_d / g_o).subs(K, n + 1))
    g, m, v = sp.symbols("g m v", positive=True)
    if not is_zero(sp.simplify(sum(law.values(sp.Integer(0))))):
        return False
    diagonal, other = (x.subs(K, n + 1) for x in map(sp.sympify, law.values(weight)))
    kept = 1 - lr * lam_d
    for rule in law.rules:
        on = rule(kept * diagonal, ratio * g + law.coupled * diagonal, ratio * m, ratio**2 * v)
        off = rule(kept * other, g + law.coupled * other, m, v)
        new_diagonal, new_other = (x.subs(K, n + 1) for x in map(sp.sympify, law.values(off[0])))
        conditions = [
            new_other - off[0],
            on[0] - new_diagonal,
            on[1] - ratio * off[1],
            on[2] - ratio**2 * off[2],
        ]
        if not all(is_zero(exactly(x)) for x in conditions):
            return False
    return is_zero(symmetric_path.row_sum(*law.values(weight), K) - law.row_sum(weight))


# ------------------------------------------------------------------------------------------- the Hessian


def hessian_holds(eigenvalues: Callable[..., Any]) -> bool:
    """Second derivatives of the loss at two-valued W: eigenvectors of each kind, K = 3..5, and the trace.

    The probabilities are p and q = 1 - (K - 1) p: Hess E = s c^2 sum_k A_k (E Pi e_k)(Pi e_k)^T with
    A_k = diag(p_k) - p_k p_k^T, the second derivative of cross-entropy by the logits of sample k.
    The vectors given, with all permutations of the classes, span spaces of the dimensions stated, which with
    those of eigenvalue 0 fill up K^2.
    """
    p = sp.Symbol("p", positive=True)
    for n in range(3, 6):
        q = 1 - (n - 1) * p
        pi = sp.eye(n) - sp.ones(n, n) / n
        of_gap = sp.log(q / p)
        values = [sp.simplify(x) for x in eigenvalues(of_gap, n, c, s, sp)]
        second = []
        for k in range(n):
            column = sp.Matrix([q if i == k else p for i in range(n)])
            second.append(sp.diag(*column) - column * column.T)

        def times(E: Any, second: Any = second, pi: Any = pi, n: int = n) -> Any:
            return s * c**2 * sum((second[k] * E * pi[:, k] * pi[k, :] for k in range(n)), sp.zeros(n, n))

        along = sp.ones(n, n) - n * sp.eye(n)
        families: list[list[Any]] = [[along], [], []]
        for k in range(1, n):
            a = sp.Matrix([1 if i == 0 else -int(i == k) for i in range(n)])
            families[1].append(sp.diag(*a) - (a * sp.ones(1, n) + sp.ones(n, 1) * a.T) / n)
        families[2] = off_diagonal_without_sums(n)
        dimensions = (1, n - 1, (n - 1) ** 2 - n)
        for value, family, dimension in zip(values, families, dimensions, strict=True):
            if sp.Matrix([list(E) for E in family] or [[0] * n * n]).rank() != dimension:
                return False
            if any(not is_zero(x) for E in family for x in sp.expand(times(E) - value * E)):
                return False
        null = [sp.ones(n, 1) * sp.eye(n)[k, :] for k in range(n)]
        null += [sp.eye(n)[:, k] * sp.ones(1, n) for k in range(n)]
        if sp.Matrix([list(E) for E in null]).rank() != 2 * n - 1:
            return False
        if any(not is_zero(x) for E in null for x in sp.expand(times(E))):
            return False
    return True


def off_diagonal_without_sums(n: int) -> list[Any]:
    """A basis of the matrices with zero diagonal, zero row sums and zero column sums."""
    conditions = []
    for k in range(n):
        for row, column in ((k, k), (k, None), (None, k)):
            conditions.append(
                [int(row in (i, None) and column in (j, None)) for i in range(n) for j in range(n)]
            )
    return [vector.reshape(n, n) for vector in sp.Matrix(conditions).nullspace()]


def order_of_eigenvalues(eigenvalues: Callable[..., Any]) -> bool:
    """First minus second and first minus third eigenvalue have the sign of gap, for symbolic K; p < 1/(K - 1)."""
    n = sp.Symbol("n", integer=True, positive=True)  # K - 1
    e = sp.Symbol("e", positive=True)  # exp(gap)
    values = [
        x.subs(K, n + 1).subs(sp.exp(gap), e).subs(sp.exp(-gap), 1 / e) for x in eigenvalues(gap, K, c, s, sp)
    ]
    return all(
        sp.factor(sp.simplify((values[0] - other) / (e - 1))).is_positive is True for other in values[1:]
    )


def hessian_with(first: Any = 1, second: Any = 1, third: Any = 1) -> Callable[..., Any]:
    """The eigenvalues, each times a factor."""

    def eigenvalues(*arguments: Any) -> Any:
        return tuple(
            factor * x
            for factor, x in zip((first, second, third), symmetric_path.hessian(*arguments), strict=True)
        )

    return eigenvalues


def curvature_of_entries_alike(*arguments: Any) -> Any:
    """One eigenvalue for all deviations, as at W = 0."""
    first, _, _ = symmetric_path.hessian(*arguments)
    return first, first, first


PROOFS = (
    Proof(
        "ufm.symmetric_path",
        "gradient (-(K-1) psi, psi) for symbolic K, c and s",
        "proved",
        gradient_for_every_number_of_classes,
        symmetric_path.gradient_entries,
        {
            "exponent (d - o)/(K - 1), as printed": printed_exponent,
            "ratio -K": ratio_minus_k,
            "psi off by 1e-6": slope_off_by_1e_6,
        },
    ),
    Proof(
        "ufm.symmetric_path",
        "derivatives of the loss by every entry of W",
        "proved for K = 2..4",
        gradient_is_two_valued,
        Data(),
        {
            "one more sample of the first class": Data(extra_samples_of_the_first_class=1),
            "another target for the first class": Data(smoothed_first_class=sp.Rational(1, 10**6)),
            "exponent (d - o)/(K - 1), as printed": Data(printed_exponent),
            "ratio -K": Data(ratio_minus_k),
        },
    ),
    Proof(
        "ufm.symmetric_path",
        "any elementwise rule with two buffers keeps the two-valued form",
        "proved",
        two_valued_form_is_kept,
        Updates(elementwise_step),
        {
            "a rate of its own in one row": Updates(rule_that_knows_its_row),
            "a buffer of its own in one row": Updates(buffer_that_knows_its_row),
            "unequal class sizes": Updates(
                elementwise_step, entry("g") + same * sp.KroneckerDelta(i, 0) / 10**6
            ),
        },
    ),
    Proof(
        "ufm.adam_is_signgd",
        "mhat/sqrt(vhat) = sign(g) in the compiled rule, all real g, every t",
        "proved",
        adam_is_signgd,
        Averages(),
        {
            "beta1 = 1e-6": Averages(beta1=sp.Rational(1, 10**6)),
            "beta2 = 1e-6": Averages(beta2=sp.Rational(1, 10**6)),
            "eps = 1e-6": Averages(eps=sp.Rational(1, 10**6)),
        },
    ),
    Proof(
        "ufm.adamw_symmetric_path",
        "SignGD, Signum and Adam keep W = w (J - 2I), row sum (K - 2) w, symbolic K",
        "proved",
        law_is_kept,
        SCALE_FREE,
        {
            "eps > 0": SCALE_FREE._replace(rules=(adam_with_eps,)),
            "coupled decay": SCALE_FREE._replace(rules=(adam_without_eps,), coupled=lam_c),
            "GD": SCALE_FREE._replace(rules=(gradient_descent,)),
            "W = w (J - 3I)": SCALE_FREE._replace(values=lambda w: (-2 * w, w)),
            "row sum (K - 1) w": SCALE_FREE._replace(row_sum=lambda w: (K - 1) * w),
        },
    ),
    Proof(
        "ufm.gd_symmetric_path",
        "GD, heavy ball and Nesterov keep W = w (J - K I), row sum 0, symbolic K",
        "proved",
        law_is_kept,
        LINEAR,
        {
            "ratio -K of the gradient": LINEAR._replace(gradient=ratio_minus_k),
            "SignGD": LINEAR._replace(rules=(signgd,)),
            "Adam without eps": LINEAR._replace(rules=(adam_without_eps,), coupled=sp.Integer(0)),
            "W = w (J - 2I)": LINEAR._replace(values=symmetric_path.opposite_values),
        },
    ),
    Proof(
        "ufm.symmetric_path_hessian",
        "eigenvectors, eigenvalues and multiplicities",
        "proved for K = 3..5",
        hessian_holds,
        symmetric_path.hessian,
        {
            "first off by 1e-6": hessian_with(first=WRONG),
            "second off by 1e-6": hessian_with(second=WRONG),
            "third off by 1e-6": hessian_with(third=WRONG),
            "all deviations alike": curvature_of_entries_alike,
        },
    ),
    Proof(
        "ufm.symmetric_path_hessian",
        "the two-valued direction is the most curved one iff gap > 0, symbolic K",
        "proved",
        order_of_eigenvalues,
        symmetric_path.hessian,
        {
            "second off by 1e-6": hessian_with(second=WRONG),
            "first and third exchanged": lambda *arguments: symmetric_path.hessian(*arguments)[::-1],
        },
    ),
)
