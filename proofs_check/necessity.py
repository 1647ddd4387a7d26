"""Proofs around proposition 2.1: NC0 is necessary if ||W|| stays bounded, and never sufficient."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import sympy as sp

from proofs_check.proof import Proof
from ufm.metrics import nc0, nc2w, nc3
from ufm.theory import necessity

WRONG = 1 + sp.Rational(1, 10**6)

# ------------------------------------------------------------------------------------ proposition 2.1


class Bound(NamedTuple):
    """Proposition 2.1 as its check reads it."""

    from_nc2w_and_nc3: Callable[[Any, Any], tuple[Any, Any]] = necessity.relative_nc0_bounds
    centred: bool = True


def proposition_2_1_holds(bound: Bound) -> bool:
    """alpha/||W||_F^2 <= NC3^2 and <= NC2W, for K = 2..5 and width 2 (columns are independent).

    1. 1^T M^T = 0 for centred means, so 1^T W/||W|| = 1^T E.
    2. (1^T e)^2 <= K ||e||^2 per column e of E: K sum e_k^2 - (1^T e)^2 = sum_{i<j} (e_i - e_j)^2 (Lagrange).
    3. 1^T M* 1 = 0, |1^T X 1| <= K ||X||_F by the same identity over K^2 entries, and
       ||W W^T||_F <= tr W W^T = ||W||_F^2.
    4. The constants: the NC3 bound is reached as NC3 -> 0 by W = cos f M^T/||M|| + sin f 1 c^T; the NC2W
       bound must cover W = 1 (K = 2), alpha/||W||^2 = 1, NC2W = sqrt 2.
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
        # tr(G)^2 - ||G||_F^2 = 2 sum of products of eigenvalues >= 0 of G = W W^T; at width 2: 2 det W^T W
        W = sp.Matrix(K, 2, sp.symbols(f"w:{2 * K}"))
        G = W.T * W
        if sp.expand(G.trace() ** 2 - (G * G).trace() - 2 * G.det()) != 0:
            return False
    s, e = sp.symbols("s e", nonnegative=True)
    from_nc2w, from_nc3 = bound.from_nc2w_and_nc3(s, e)
    if not (sp.simplify(from_nc2w - s).is_nonnegative and sp.simplify(from_nc3 - e**2).is_nonnegative):
        return False  # 1 to 3 prove alpha/||W||^2 <= NC2W and <= NC3^2, nothing smaller
    f = sp.Symbol("f", positive=True)
    alpha, nc3_squared = sp.sin(f) ** 2, 2 - 2 * sp.cos(f)
    covers = sp.limit(bound.from_nc2w_and_nc3(sp.Integer(1), sp.sqrt(nc3_squared))[1] / alpha, f, 0) >= 1
    return bool(covers) and bool(bound.from_nc2w_and_nc3(sp.sqrt(2), sp.Integer(1))[0] >= 1)


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
        # v has n equal entries u_y/sqrt(n) for each class y, so <R, u v^T> = n sum_y (u^T R)_y u_y/sqrt(n)
        pull = sp.simplify(sp.sqrt(n) * (u.T * R * u)[0])
        ratio = sp.sqrt(sp.sqrt(lam_H / lam_W))
        value = 2 * pull + lam_W * ratio**2 + lam_H / ratio**2
        claimed = saddle.curvature(sp.Integer(K), n, lam_W, lam_H, sp)
        if sp.simplify(value - claimed) != 0:
            return False
        edge = sp.simplify(claimed.subs(lam_W, 1 / (K**2 * n * lam_H)))
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
            "NC2W divided by K": Bound(lambda g, e: (g / 2, e**2)),
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
        {"curvature off by 1e-6": Saddle(curvature=curvature_off_by_1e_6)},
    ),
)
