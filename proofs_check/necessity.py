"""Proofs around proposition 2.1: NC0 is necessary if ||W|| stays bounded, and never sufficient."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import sympy as sp

from proofs_check.algebra import WRONG
from proofs_check.proof import Proof
from ufm.metrics import nc0, nc2w, nc3
from ufm.theory import necessity
from ufm.theory.cross_entropy_optimum import escape_scales

# ------------------------------------------------------------------------------------ proposition 2.1


class Bound(NamedTuple):
    """Proposition 2.1 as its check reads it."""

    from_nc2w_and_nc3: Callable[[Any, Any], tuple[Any, Any]] = necessity.relative_nc0_bounds
    centred: bool = True


def proposition_2_1_holds(bound: Bound) -> bool:
    """alpha/||W||_F^2 <= NC3^2 and <= NC2W, for K = 2..5 and every width.

    1. 1^T M^T = 0 for centred means, so 1^T W/||W|| = 1^T E.
    2. (1^T e)^2 <= K ||e||^2 per column e of E: K sum e_k^2 - (1^T e)^2 = sum_{i<j} (e_i - e_j)^2 (Lagrange).
    3. 1^T M* 1 = 0, |1^T X 1| <= K ||X||_F by the same identity over K^2 entries, and ||W W^T||_F <= ||W||_F^2:
       with G = W W^T, (tr G)^2 - ||G||_F^2 = sum_ij (|w_i|^2 |w_j|^2 - <w_i, w_j>^2), each term >= 0 because
       | |w|^2 v - <w, v> w |^2 = |w|^2 (|w|^2 |v|^2 - <w, v>^2), at every width.
    4. Both are sharp: NC3^2/(alpha/||W||^2) -> 1 for W = cos f M^T/||M|| + sin f 1 c^T as f -> 0, and
       NC2W/(alpha/||W||^2) -> 1 for W W^T = M* + e J/2, K = 2, as e -> 0.
    """
    for K in range(2, 6):
        ones = sp.ones(K, 1)
        means = sp.Matrix(2, K, sp.symbols(f"mu:{2 * K}"))
        M = means * (sp.eye(K) - ones * ones.T / K) if bound.centred else means
        if sp.expand(ones.T * M.T) != sp.zeros(1, 2):
            return False
        e = sp.Matrix(sp.symbols(f"e:{K}"))
        pairs = sum((e[i] - e[j]) ** 2 for i in range(K) for j in range(i))
        if sp.expand(K * (e.T * e)[0] - (ones.T * e)[0] ** 2 - pairs) != 0:
            return False
        simplex = (sp.eye(K) - ones * ones.T / K) / sp.sqrt(K - 1)
        if sp.simplify((ones.T * simplex * ones)[0]) != 0:
            return False
        G = sp.Matrix(K, K, lambda i, j: sp.Symbol(f"g{min(i, j)}{max(i, j)}"))
        terms = sum(G[i, i] * G[j, j] - G[i, j] ** 2 for i in range(K) for j in range(K))
        if sp.expand(G.trace() ** 2 - (G * G).trace() - terms) != 0:
            return False
    ww, vv, wv = sp.symbols("ww vv wv")  # |w|^2, |v|^2 and <w, v>: the square expands in these alone
    if sp.expand(ww**2 * vv - 2 * ww * wv * wv + wv**2 * ww - ww * (ww * vv - wv**2)) != 0:
        return False
    s, e = sp.symbols("s e", nonnegative=True)
    from_nc2w, from_nc3 = bound.from_nc2w_and_nc3(s, e)
    if not (sp.simplify(from_nc2w - s).is_nonnegative and sp.simplify(from_nc3 - e**2).is_nonnegative):
        return False  # 1 to 3 prove alpha/||W||^2 <= NC2W and <= NC3^2, nothing smaller
    f = sp.Symbol("f", positive=True)
    alpha, nc3_squared = sp.sin(f) ** 2, 2 - 2 * sp.cos(f)
    if sp.limit(bound.from_nc2w_and_nc3(sp.Integer(1), sp.sqrt(nc3_squared))[1] / alpha, f, 0) != 1:
        return False
    J = sp.ones(2, 2)
    simplex = sp.eye(2) - J / 2
    A = simplex + f * J / 2  # W W^T up to its norm; f is e
    relative = sum(A) / (2 * A.trace())
    unit = sp.sqrt((A * A).trace())
    distance = sp.sqrt(sp.simplify(sum(x**2 for x in A / unit - simplex)))
    return bool(sp.limit(bound.from_nc2w_and_nc3(distance, sp.Integer(1))[0] / relative, f, 0, "+") == 1)


# ------------------------------------------------------------------------- without a bound on ||W||_F


def family(s: Any, E: Any, c: Any) -> Any:
    """W = s E + 1 c^T."""
    return s * E + sp.ones(E.shape[0], 1) * c.T


def printed_form_is_refuted(weights: Callable[[Any, Any, Any], Any]) -> bool:
    """NC3 -> 0 and NC2W -> 0 as s -> oo while alpha stays off 0, for M = E^T, E c = 0 and K = 2..5."""
    s, size = sp.symbols("s size", positive=True)
    for K in range(2, 6):
        ones = sp.ones(K, 1)
        simplex = sp.eye(K) - ones * ones.T / K
        E = simplex.row_join(sp.zeros(K, 1))  # one feature more, so that c is orthogonal to all rows of E
        c = size * sp.Matrix([0] * K + [1])
        W = weights(s, E, c)
        norms = [sp.sqrt(sp.simplify(sum(x**2 for x in A))) for A in (W, E, W * W.T)]
        cosines = (
            sum(w * e for w, e in zip(W, E, strict=True)) / (norms[0] * norms[1]),
            (W * W.T * simplex).trace() / sp.sqrt(K - 1) / norms[2],
        )
        # both metrics are distances of unit matrices, so their squares are 2 - 2 cos
        if any(sp.limit(sp.simplify(2 - 2 * cosine), s, sp.oo) != 0 for cosine in cosines):
            return False
        row_sum = W.T * ones
        if sp.limit(sp.simplify((row_sum.T * row_sum)[0] / K), s, sp.oo).is_positive is not True:
            return False
    return True


def normalised_gd(
    decay: float = 0.0,
    classes: int = 4,
    width: int = 6,
    per_class: int = 2,
    lr: float = 0.01,
    steps: int = 2000,
) -> dict[str, float]:
    """Normalised gradient descent on the cross-entropy UFM in plain numpy, Gaussian start of scale 0.1.

    Returns
    -------
    dict
        "alpha": alpha/alpha_0, "nc2w" and "nc3": last value over first, "norm": growth of ||W||_F.
    """
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), per_class)
    W, H = 0.1 * rng.standard_normal((classes, width)), 0.1 * rng.standard_normal((width, len(labels)))
    first = {"alpha": nc0(W), "nc2w": nc2w(W), "nc3": nc3(W, H, labels), "norm": np.linalg.norm(W)}
    onehot = np.eye(classes)[:, labels]
    for _ in range(steps):
        Z = W @ H
        P = np.exp(Z - Z.max(axis=0))
        R = P / P.sum(axis=0) * (1 - onehot)
        R = (R - onehot * R.sum(axis=0)) / len(labels)  # p - 1 would lose what the unit step amplifies
        grad_W, grad_H = R @ H.T + decay * W, W.T @ R + decay * H
        size = np.sqrt((grad_W**2).sum() + (grad_H**2).sum())
        W, H = W - lr / size * grad_W, H - lr / size * grad_H
    last = {"alpha": nc0(W), "nc2w": nc2w(W), "nc3": nc3(W, H, labels), "norm": np.linalg.norm(W)}
    return {name: float(last[name] / first[name]) for name in first}


def bounded_W_is_needed(settings: Mapping[str, float]) -> bool:
    """NC2W and NC3 fall to a tenth while alpha stays put to 1e-10, ||W||_F growing."""
    ratios = normalised_gd(**settings)  # type: ignore[arg-type]
    collapses = ratios["nc2w"] < 0.1 and ratios["nc3"] < 0.1
    return collapses and abs(ratios["alpha"] - 1) < 1e-10 and ratios["norm"] > 2


# ------------------------------------------------------------------------------------- merged-class saddle


class Saddle(NamedTuple):
    """The saddle as its checks read it."""

    rows: Callable[..., Any] = necessity.saddle_rows
    wrong_group: Callable[..., Any] = necessity.wrong_group_probability
    curvature: Callable[..., Any] = necessity.saddle_curvature
    scales: Callable[..., Any] = escape_scales
    threshold: Callable[..., Any] = necessity.saddle_threshold


def saddle_exists(saddle: Saddle) -> bool:
    """The equations have exactly one solution delta > 0 iff lam_W lam_H < threshold; symbolic sizes.

    With y = delta v_A, f_A = 0 says delta^2 = lam_H N y (1 + (a/b) e^y), which grows from 0 to oo with y > 0;
    likewise -delta v_B. Then f_W/delta = lam_W a b - T_A - T_B with T_A, T_B falling to 0, so that it has one
    zero iff it is negative at delta = 0, where it is a b (lam_W - threshold/lam_H).
    """
    a, b, n, lam_W, lam_H, y = sp.symbols("a b n lam_W lam_H y", positive=True)
    N, at_zero = (a + b) * n, lam_W * a * b
    for first in (True, False):
        own, other = (a, b) if first else (b, a)
        delta_squared = lam_H * N * y * (1 + own / other * sp.exp(y))
        delta = sp.sqrt(delta_squared)
        v_A, v_B = (y / delta, 0) if first else (0, -y / delta)
        f = necessity.saddle_residuals(delta, v_A, v_B, a, b, n, lam_W, lam_H, sp)
        if sp.simplify(f[0 if first else 1]) != 0:
            return False
        T = sp.simplify(lam_W * a * b - f[2] / delta)
        growing, falling = sp.diff(delta_squared, y), sp.factor(sp.simplify(-sp.diff(T, y)))
        if not (growing.is_positive and falling.is_positive):
            return False
        if delta_squared.subs(y, 0) != 0 or sp.limit(delta_squared.subs({a: 1, b: 1}), y, sp.oo) != sp.oo:
            return False
        if sp.limit(T, y, sp.oo) != 0:
            return False
        at_zero -= sp.limit(T, y, 0)
    return bool(sp.simplify(at_zero - a * b * (lam_W - saddle.threshold(a + b, n) / lam_H)) == 0)


def saddle_states(saddle: Saddle) -> Any:
    """Symbolic state and residual R = (P - Y)/N, one column per class, for K = 3..6 and all group sizes."""
    delta, v_A, v_B, n = sp.symbols("delta v_A v_B n", positive=True)
    for K in range(3, 7):
        for a in range(1, K):
            b = K - a
            u_A, u_B = saddle.rows(delta, sp.Integer(a), sp.Integer(b))
            rows, columns = [u_A] * a + [u_B] * b, [v_A] * a + [v_B] * b
            R = sp.zeros(K, K)
            for y, v in enumerate(columns):
                # softmax of u v, with the largest common factor exp(u_A v) taken out
                weights = [sp.exp(sp.expand((u - u_A) * v)) for u in rows]
                for k in range(K):
                    R[k, y] = (weights[k] / sum(weights) - int(k == y)) / (K * n)
            yield K, a, b, n, (delta, v_A, v_B), rows, columns, R


def saddle_is_critical(saddle: Saddle) -> bool:
    """The gradient is a multiple of `saddle_residuals`, entry by entry, and the row sum of W is 0."""
    lam_W, lam_H = sp.symbols("lam_W lam_H", positive=True)
    for K, a, b, n, (delta, v_A, v_B), rows, columns, R in saddle_states(saddle):
        eps_A, eps_B = saddle.wrong_group(delta, v_A, v_B, sp.Integer(a), sp.Integer(b), sp)
        f_A, f_B, f_W = necessity.saddle_residuals(
            delta, v_A, v_B, sp.Integer(a), sp.Integer(b), n, lam_W, lam_H, sp
        )
        if sp.expand(sum(rows)) != 0:
            return False
        wrong = [sum(R[k, 0] for k in range(a, K)), sum(R[k, K - 1] for k in range(a))]
        if any(sp.simplify(w * K * n - eps) != 0 for w, eps in zip(wrong, (eps_A, eps_B), strict=True)):
            return False
        for y in (0, K - 1):  # the columns of a group are equal, and so are its rows
            gradient = sum(rows[k] * R[k, y] for k in range(K)) + lam_H * columns[y]
            if sp.simplify(gradient - (f_A if y < a else f_B) / (K * n)) != 0:
                return False
        for k in (0, K - 1):
            gradient = sum(n * R[k, y] * columns[y] for y in range(K)) + lam_W * rows[k]
            if sp.simplify(gradient - (f_W / (a * K) if k < a else -f_W / (b * K))) != 0:
                return False
    return True


def saddle_curvature_holds(saddle: Saddle) -> bool:
    """D^T Hess D = 2 <R, D_W D_H> + lam_W ||D_W||^2 + lam_H ||D_H||^2 at the escape direction, K = 3..6.

    D_W H + W D_H = 0 because the direction is orthogonal to the rank-1 state, so the loss's Hessian in
    the logits drops out. The value is negative iff K^2 n lam_W lam_H < 1, where the saddle exists.
    """
    lam_W, lam_H = sp.symbols("lam_W lam_H", positive=True)
    for K, a, b, n, _, _, _, R in saddle_states(saddle):
        i, j = (0, 1) if a >= 2 else (K - 2, K - 1)  # two classes of one group
        if min(a, b) < 1 or (a < 2 and b < 2):
            return False
        u = sp.zeros(K, 1)
        u[i], u[j] = 1 / sp.sqrt(2), -1 / sp.sqrt(2)
        # v has n equal entries -u_y/sqrt(n) for each class y, so <R, u v^T> = -n sum_y (u^T R)_y u_y/sqrt(n)
        pull = sp.simplify(-sp.sqrt(n) * (u.T * R * u)[0])
        of_W, of_H = saddle.scales(lam_W, lam_H, sp)
        value = 2 * pull * of_W * of_H + lam_W * of_W**2 + lam_H * of_H**2
        claimed = saddle.curvature(sp.Integer(K), n, lam_W, lam_H, sp)
        if sp.simplify(value - claimed) != 0:
            return False
        edge = sp.simplify(claimed.subs(lam_W, saddle.threshold(sp.Integer(K), n) / lam_H))
        if edge != 0 or not sp.diff(claimed, lam_W).is_positive:
            return False
    return True


def weight_off_by_1e_6(*arguments: Any) -> Any:
    """Probability of the other group off by 1e-6 in the group sizes' ratio."""
    delta, v_A, v_B, a, b, xp = arguments
    return necessity.wrong_group_probability(delta, v_A, v_B, a * WRONG, b, xp)


def opposite_rows(delta: Any, a: Any, b: Any) -> Any:
    """u_B = -u_A, which balances groups of equal size only."""
    return delta / 2, -delta / 2


def curvature_off_by_1e_6(K: Any, n: Any, lam_W: Any, lam_H: Any, xp: Any) -> Any:
    """1/(K sqrt n) off by 1e-6."""
    return necessity.saddle_curvature(K * WRONG, n, lam_W, lam_H, xp)


def scales_off_by_1e_6(lam_W: Any, lam_H: Any, xp: Any) -> Any:
    """The block of W too large by 1e-6."""
    of_W, of_H = escape_scales(lam_W, lam_H, xp)
    return of_W * WRONG, of_H


PROOFS = (
    Proof(
        "zhao2026.prop2.1",
        "alpha <= ||W||_F^2 min(NC3^2, NC2W)",
        "proved for K = 2..5",
        proposition_2_1_holds,
        Bound(),
        {
            "means not centred": Bound(centred=False),
            "NC3 bound off by 1e-6": Bound(lambda g, e: (g, e**2 * (2 - WRONG))),
            "NC2W bound off by 1e-6": Bound(lambda g, e: (g * (2 - WRONG), e**2)),
            "NC2W bound too large by 1e-6": Bound(lambda g, e: (g * WRONG, e**2)),
            "NC3 bound too large by 1e-6": Bound(lambda g, e: (g, e**2 * WRONG)),
        },
    ),
    Proof(
        "ufm.prop2.1_needs_bounded_W",
        "W = s E + 1 c^T: NC2W, NC3 -> 0, alpha stays, every size of c",
        "proved for K = 2..5",
        printed_form_is_refuted,
        family,
        {
            "1 c^T grows with s": lambda s, E, c: family(s, E, s * c),
            "1 c^T falls with s": lambda s, E, c: family(s, E, c / s),
            "W bounded": lambda s, E, c: family(s, E, c) / s,
        },
    ),
    Proof(
        "ufm.prop2.1_needs_bounded_W",
        "normalised GD without decay: NC2W, NC3 fall, alpha stays",
        "measured",
        bounded_W_is_needed,
        {},
        {"with decay 1e-6": {"decay": 1e-6}},
    ),
    Proof(
        "ufm.nc0_not_sufficient",
        "merged-class state is critical with row sum 0, all group sizes, symbolic n",
        "proved for K = 3..6",
        saddle_is_critical,
        Saddle(),
        {
            "probability off by 1e-6": Saddle(wrong_group=weight_off_by_1e_6),
            "u_B = -u_A": Saddle(rows=opposite_rows),
        },
    ),
    Proof(
        "ufm.nc0_not_sufficient",
        "negative curvature where two classes of a group part",
        "proved for K = 3..6",
        saddle_curvature_holds,
        Saddle(),
        {
            "curvature off by 1e-6": Saddle(curvature=curvature_off_by_1e_6),
            "size of the direction off by 1e-6": Saddle(scales=scales_off_by_1e_6),
        },
    ),
    Proof(
        "ufm.nc0_not_sufficient",
        "one solution of the equations iff K^2 n lam_W lam_H < 1, symbolic sizes",
        "proved",
        saddle_exists,
        Saddle(),
        {"threshold off by 1e-6": Saddle(threshold=lambda K, n: necessity.saddle_threshold(K, n) * WRONG)},
    ),
)
